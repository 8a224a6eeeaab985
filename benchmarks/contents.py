"""What it costs to know photographs by their contents: writes results/contents.json.

The CRC-32 of all files of Imagenette, as a tar and as a folder, read for the first time and remembered. $ALEXNET_DATA names the
folder with the set; python benchmarks/contents.py
"""

from __future__ import annotations

import os
import tarfile
import tempfile
import time
from pathlib import Path

from alexnet.bench.rates import as_json
from alexnet.core.runs import environment, write_json
from alexnet.data.contents import SETTLED_NS, crc32s
from alexnet.data.named import find_source

REPEATS = 5


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder, cache = Path(temporary) / "imagenette", Path(temporary) / "cache"
        os.environ["ALEXNET_CACHE"] = str(cache)
        as_tar = find_source("imagenette")
        with tarfile.open(as_tar.records[0].file) as tar:
            tar.extractall(folder, filter="data")
        time.sleep(SETTLED_NS / 1e9 + 0.1)  # files that have just changed are not remembered
        for what, source in (("tar", as_tar), ("folder", find_source(folder))):
            times: dict[str, list[float]] = {"first": [], "remembered": []}
            for _ in range(REPEATS):
                for file in cache.glob("contents.npy"):
                    file.unlink()
                for name in times:
                    start = time.perf_counter()
                    crc32_N = crc32s(source.records)
                    times[name].append(time.perf_counter() - start)
            sizes = [record.size or 0 for record in source.records]
            rows.append({"what": what, "files": len(crc32_N), "bytes": sum(sizes), "times": as_json(times)})
            print(what, len(crc32_N), {name: f"{min(values):.3f} s" for name, values in times.items()})
    document = {"data": "imagenette", "load_average": os.getloadavg()[0], "environment": environment(), "rows": rows}
    write_json(Path(__file__).resolve().parents[1] / "results" / "contents.json", document)


if __name__ == "__main__":
    main()
