"""What odd, broken and hostile images become, and what the costliest of them cost: writes results/odd-images.json.

All kinds of tests/data/odd_images.py go through decoding, `check` and `prepare`; those of tests/data/costly_images.py are decoded
and resized, each in a process of its own. Exit 3 if one comes out wrong or costs more than 10 s of a processor or 700 MB.
Some minutes: python benchmarks/odd_images.py
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "data"))

from costly_images import MAX_MEGABYTES, MAX_SECONDS, Cost, Costly, costly_kinds, costs

from alexnet.core.console import Bar
from alexnet.core.errors import ImageError
from alexnet.core.runs import environment, write_json
from alexnet.data.check import check
from alexnet.data.decode import decode_image
from alexnet.data.prepare import prepare
from odd_images import Kind, kinds

OUT = Path(__file__).resolve().parents[1] / "results" / "odd-images.json"


def comes_out_right(kind: Kind) -> bool:
    try:
        pixels = np.asarray(decode_image(kind.data, kind.file)).astype(int)
    except ImageError as error:
        return error.reason == kind.reason
    if kind.pixels is None or pixels.shape != kind.pixels.shape:
        return False
    return bool(np.abs(pixels - kind.pixels).max() <= kind.tolerance)


def all_kinds(folder: Path) -> dict[str, Any]:
    """Of the small kinds: how many there are, what became of them, and the most that one of them cost."""
    for i, kind in enumerate(kinds()):
        path = folder / "train" / "ab"[i % 2] / kind.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(kind.data)
    (folder / "train" / "notes.txt").write_text("no image")
    report = check(folder, workers=1)
    packed = prepare(folder, folder.with_name("packed"), size=16, workers=1, max_bad=len(kinds()))
    assert packed.meta["found"] == report["found"]
    measured = costs(*sorted((folder / "train").glob("[ab]/*")))
    return {
        "kinds": len(kinds()),
        "right": sum(map(comes_out_right, kinds())),
        "refused": dict(sorted(Counter(item["reason"] for item in packed.meta["rejected"]).items())),
        "files_found": sum(path.is_file() for path in folder.rglob("*")),
        "found_by_check_and_prepare": report["found"],
        "most_processor_seconds": round(max(cost.processor_seconds for cost in measured), 3),
        "most_megabytes": round(max(cost.megabytes for cost in measured), 1),
    }


def is_right(kind: Costly, cost: Cost) -> bool:
    if kind.reason:
        return cost.reason == kind.reason
    if kind.quarters is None:
        return cost.reason in ("", "too large")
    return cost.quarters is not None and bool(np.abs(np.array(cost.quarters) - kind.quarters.astype(int)).max() <= 2)


def main() -> int:
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        small = all_kinds(Path(temporary) / "set")
        at_the_limits = list(costly_kinds())
        with Bar("costly images", len(at_the_limits)) as bar:
            for i, kind in enumerate(at_the_limits, start=1):
                path = Path(temporary) / kind.file
                path.write_bytes(kind.write())
                (cost,) = costs(path)
                rows.append(
                    {
                        "file": kind.file,
                        "bytes": path.stat().st_size,
                        "right": is_right(kind, cost),
                        "refused": cost.reason or None,
                        "seconds": round(cost.seconds, 2),
                        "processor_seconds": round(cost.processor_seconds, 2),
                        "megabytes": round(cost.megabytes),
                    }
                )
                path.unlink()
                bar.update(i)
    result = {
        "limits": {"processor_seconds": MAX_SECONDS, "megabytes_above_the_interpreter": MAX_MEGABYTES},
        "environment": environment(),
        "small": small,
        "costly": {
            "kinds": len(rows),
            "right": sum(row["right"] for row in rows),
            "refused": sum(row["refused"] is not None for row in rows),
            "most_seconds": max(row["seconds"] for row in rows),
            "most_processor_seconds": max(row["processor_seconds"] for row in rows),
            "most_megabytes": max(row["megabytes"] for row in rows),
            "rows": rows,
        },
    }
    write_json(OUT, result)
    print(
        f"{small['right']} of {small['kinds']} small kinds are right, {result['costly']['right']} of {len(rows)} costly ones;"
    )
    print(f"at most {result['costly']['most_processor_seconds']} s, {result['costly']['most_megabytes']} MB; in {OUT}")
    costly = result["costly"]
    within = costly["most_processor_seconds"] <= MAX_SECONDS and costly["most_megabytes"] <= MAX_MEGABYTES
    return 0 if within and small["right"] == small["kinds"] and costly["right"] == len(rows) else 3


if __name__ == "__main__":
    raise SystemExit(main())
