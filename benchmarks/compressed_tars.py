"""What reading the pictures of a compressed tar costs, by three ways: writes results/compressed-tars.json.

python benchmarks/compressed_tars.py PHOTOS [--images 1000] [--out results/compressed-tars.json]

PHOTOS is a folder or an archive of photographs (published: 1,000 of Imagenette's at 224 pixels). They are packed in a drawn
order, as the disk may list them, and read in the order of their names, as `prepare` does. It is processor time, so that a busy
machine does not matter. `unpacked`: what the package does, a temporary file. `checkpoints`: nothing on the disk; copies of zlib's
state after each MiB, from the nearest of which a picture is unpacked again (gzip alone can do that). `streamed`: unpacked once
to be listed and once more to be read, in the order of the archive and in one process. `zip` and `tar` are read in place.
`decoded`: what decoding the same pictures takes.
"""

from __future__ import annotations

import argparse
import gzip
import io
import tarfile
import tempfile
import time
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alexnet.core import rng
from alexnet.core.runs import environment, write_json
from alexnet.data.archives import list_archive
from alexnet.data.decode import decode_image
from alexnet.data.pictures import Picture, pictures
from alexnet.data.sources import Record

STEP = 1 << 20
"""Bytes between two checkpoints."""
COMPRESSIONS = {"tar.gz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz", "tar": "w:"}


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def read_all(path: Path) -> list[bytes]:
    """As the package reads it: by the names."""
    found = list_archive(path).files
    return [
        bytes(Record("train", 0, f.name, f.file, f.offset, f.length, stamp=f.stamp, inside=f.inside).read())
        for f in found
    ]


def data_of(picture: Picture) -> bytes:
    return bytes(picture.source.read() if isinstance(picture.source, Record) else Path(str(picture)).read_bytes())


class Checkpoints:
    """The content of a gzip file from the nearest place before it where the state of zlib was kept."""

    def __init__(self, path: Path) -> None:
        self.packed = path.read_bytes()
        state, at, out = zlib.decompressobj(31), 0, 0
        self.starts, self.states = [0], [(state.copy(), 0)]
        while at < len(self.packed):
            out += len(state.decompress(self.packed[at : at + 65536]))
            at += 65536
            if out - self.starts[-1] >= STEP:
                self.starts.append(out)
                self.states.append((state.copy(), at))

    def read(self, offset: int, length: int) -> bytes:
        i = bisect_right(self.starts, offset) - 1
        state, at = self.states[i][0].copy(), self.states[i][1]
        skip, data = offset - self.starts[i], bytearray()
        while len(data) < skip + length:
            data += state.decompress(self.packed[at : at + 65536])
            at += 65536
        return bytes(data[skip : skip + length])


def from_checkpoints(path: Path) -> list[bytes]:
    with gzip.open(path) as file, tarfile.open(fileobj=file) as tar:  # the list, which could come of the same pass
        places = {info.name: (info.offset_data, info.size) for info in tar}
    start = time.process_time()
    kept = Checkpoints(path)
    found = [kept.read(*places[name]) for name in sorted(places)]
    from_checkpoints.seconds = time.process_time() - start  # type: ignore[attr-defined]
    return found


def streamed(path: Path) -> list[bytes]:
    with tarfile.open(path, "r|*") as tar:
        names = [info.name for info in tar]
    with tarfile.open(path, "r|*") as tar:
        data = {info.name: file.read() for info in tar if (file := tar.extractfile(info)) is not None}
    return [data[name] for name in sorted(names)]


def measure(photos: Path, images: int, place: Path) -> dict[str, Any]:
    found = list(pictures(photos))
    files = {f"{i}.jpg": data_of(found[i]) for i in rng.permutation(0, "compressed-tars", 0, len(found))[:images]}
    rows: dict[str, Any] = {}
    with zipfile.ZipFile(place / "set.zip", "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    content: list[bytes] | None = None
    for kind in ("zip", *COMPRESSIONS):
        path = place / f"set.{kind}"
        if kind != "zip":
            with tarfile.open(path, COMPRESSIONS[kind]) as tar:
                for name, data in files.items():
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
        content = content or read_all(path)
        assert read_all(path) == content
        row: dict[str, Any] = {"bytes": path.stat().st_size, "unpacked": seconds(lambda path=path: read_all(path))}
        if kind == "tar.gz":
            assert from_checkpoints(path) == content
            row["checkpoints"] = from_checkpoints.seconds  # type: ignore[attr-defined]
        if kind.startswith("tar."):
            assert streamed(path) == content
            row["streamed"] = seconds(lambda path=path: streamed(path))
        rows[kind] = row
        print(kind, row)
    assert content is not None
    decoded = seconds(lambda: [decode_image(data) for data in content])
    return {"n": len(files), "processor_seconds": rows, "decoded": decoded}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("results/compressed-tars.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found = measure(options.photos, options.images, Path(place))
    write_json(options.out, {**found, "environment": environment()})


if __name__ == "__main__":
    main()
