"""A packed set: all images of a source decoded once, as plain NumPy files that anyone can read.

``meta.json`` is written last. It lists every other file with its size and SHA-256, and every image has a CRC-32 that
is checked when a process first reads it, so damage is found before it is learned from.
"""

# Shape suffixes: N images of a split, B images of a batch, S rows and columns, C channels.

from __future__ import annotations

import hashlib
import io
import itertools
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alexnet.core.errors import AlexNetError, DataError, printable
from alexnet.core.preprocessing import ColorStatistics
from alexnet.core.runs import read_json, sha256_file
from alexnet.data.sources import SPLITS

VERSION = 1
HEADER_BYTES = 128
"""Of a .npy file with four dimensions; the pixels follow."""
UNFINISHED = ".unfinished"
"""Folder inside a packed directory that exists until its preparation is complete."""


class PackedSplit:
    """The images of one split. Any number of threads may read at once."""

    def __init__(self, folder: Path, name: str, meta: dict[str, Any]) -> None:
        self.name = name
        self._folder = folder
        self._meta = meta
        self._jpeg = meta["store"] == "jpeg"
        n, size, channels = int(meta["counts"][name]["images"]), int(meta["size"]), int(meta["channels"])
        self._shape_SSC = (size, size, channels)
        self.labels: NDArray[np.int64] = _load_array(folder / f"{name}.labels.npy", (n,), np.int64)
        """(N,)"""
        self._crc32_N: NDArray[np.uint32] = _load_array(folder / f"{name}.crc32.npy", (n,), np.uint32)
        if self._jpeg:
            self._offset_N = _load_array(folder / f"{name}.offsets.npy", (n + 1,), np.int64)
            self._stored: NDArray[np.uint8] = np.memmap(folder / f"{name}.images.bin", np.uint8, "r")
        else:
            self._stored = _load_array(folder / f"{name}.images.npy", (n, *self._shape_SSC), np.uint8, mmap=True)
        self._verified_N = np.zeros(n, dtype=bool)

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def paths(self) -> list[str]:
        """The name of each image in the source."""
        return list(self._read_paths())

    def path(self, index: int) -> str:
        """The name of one image, without holding all of them."""
        return next(itertools.islice(self._read_paths(), index, None))

    def read(self, index_B: NDArray[np.integer]) -> NDArray[np.uint8]:
        """The images of these numbers: (B, S, S, C) uint8, a copy. Raises :class:`DataError` for an image whose bytes
        are not those that were prepared."""
        if self._jpeg:
            image_BSSC = np.empty((len(index_B), *self._shape_SSC), dtype=np.uint8)
            for b, i in enumerate(index_B.tolist()):
                image_BSSC[b] = decode_record(self.record(i), self._shape_SSC[2])
            return image_BSSC
        images_BSSC: NDArray[np.uint8] = self._stored[index_B]
        for b in np.flatnonzero(~self._verified_N[index_B]).tolist():
            self._verify(int(index_B[b]), images_BSSC[b].data)
        return images_BSSC

    def record(self, index: int) -> bytes:
        """One JPEG record of a set that is stored so, checked like :meth:`read`."""
        jpeg = self._stored[self._offset_N[index] : self._offset_N[index + 1]].tobytes()
        self._verify(index, jpeg)
        return jpeg

    def _verify(self, index: int, stored: bytes | memoryview) -> None:
        if self._verified_N[index]:
            return
        if zlib.crc32(stored) != self._crc32_N[index]:
            file = f"{self.name}.images.{'bin' if self._jpeg else 'npy'}"
            raise DataError(
                f"{printable(self._folder)}/{file}: image {index} ({printable(self.path(index))}) is damaged: its bytes are not "
                "those that were prepared; remove the folder and prepare it again"
            )
        self._verified_N[index] = True

    def _read_paths(self) -> Iterator[str]:
        path = self._folder / f"{self.name}.paths.jsonl"
        _verify_file(path, self._meta)
        with open(path, encoding="ascii") as file:
            yield from map(json.loads, file)


@dataclass(frozen=True, eq=False)
class Part:
    """Some images of a split as a split, with labels of their own."""

    split: PackedSplit
    image_N: NDArray[np.int64]
    labels: NDArray[np.int64]

    @property
    def paths(self) -> list[str]:
        paths = self.split.paths
        return [paths[i] for i in self.image_N]

    def __len__(self) -> int:
        return len(self.image_N)

    def read(self, index_B: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.split.read(self.image_N[index_B])


def decode_record(jpeg: bytes, channels: int) -> NDArray[np.uint8]:
    """The pixels of one of our own JPEG records, (S, S, C), by simplejpeg if it is installed, else by Pillow, to the
    same result."""
    try:
        import simplejpeg
    except ImportError:
        image = Image.open(io.BytesIO(jpeg), formats=("JPEG",))
        return np.asarray(image).reshape(image.height, image.width, channels)
    return np.asarray(simplejpeg.decode_jpeg(jpeg, "RGB" if channels == 3 else "GRAY"))


@dataclass(frozen=True)
class PackedSet:
    """An opened packed directory; images stay on disk until they are read."""

    path: Path
    meta: dict[str, Any]
    classes: list[str]
    splits: dict[str, PackedSplit]

    @property
    def size(self) -> int:
        return int(self.meta["size"])

    @property
    def channels(self) -> int:
        return int(self.meta["channels"])

    @property
    def fingerprint(self) -> str:
        """Names the content: the same for the same classes, pixels and order."""
        return str(self.meta["fingerprint"])

    @cached_property
    def mean(self) -> NDArray[np.float32]:
        """The mean training image, (S, S, C), on 0..255."""
        return _load_array(self._training_file("mean.npy"), (self.size, self.size, self.channels), np.float32)

    @cached_property
    def color(self) -> ColorStatistics:
        value = read_json(self._training_file("color.json"))
        return ColorStatistics(
            mean_C=np.array(value["mean"]),
            covariance_CC=np.array(value["covariance"]),
            eigenvalues_C=np.array(value["eigenvalues"]),
            eigenvectors_CC=np.array(value["eigenvectors"]),
            standard_deviations_C=np.array(value["standard_deviations"]),
        )

    def split(self, name: str) -> PackedSplit:
        """Raises :class:`DataError` naming the splits there are."""
        if name not in self.splits:
            raise DataError(f"{printable(self.path)}: no split {printable(name)!r}; there is {', '.join(self.splits)}")
        return self.splits[name]

    @property
    def held_out(self) -> str:
        """The split to validate on: ``val``, or ``test`` in sets that come with no other."""
        return "val" if "val" in self.splits else "test"

    def _training_file(self, name: str) -> Path:
        if "train" not in self.splits:
            raise DataError(f"{printable(self.path)}: no training images, so no {name}; it can only be evaluated on")
        return self.path / name


def open_packed(path: str | Path) -> PackedSet:
    """Open a packed directory. Time and memory do not grow with the images.

    Sizes, headers, ``meta.json`` and the SHA-256 of all but images and names are checked now, each image when it is
    first read. Raises :class:`DataError` for a set that is unfinished, damaged or of another version.
    """
    folder = Path(path)
    meta = _read_meta(folder)
    for name, expected in meta["files"].items():
        file = folder / name
        if not file.is_file():
            raise DataError(f"{printable(file)}: missing; remove the folder and prepare it again")
        if (size := file.stat().st_size) != expected["bytes"]:
            raise DataError(
                f"{printable(file)}: {size:,} bytes, prepared with {expected['bytes']:,}; remove the folder and prepare it again"
            )
        if not name.endswith((".images.npy", ".images.bin", ".paths.jsonl")):
            _verify_file(file, meta)
    splits: dict[str, PackedSplit] = {n: PackedSplit(folder, n, meta) for n in SPLITS if n in meta["counts"]}
    return PackedSet(folder, meta, list(meta["classes"]), splits)


def is_packed(path: Path) -> bool:
    """Whether a path is a packed directory, finished or not."""
    return (path / "meta.json").is_file() or (path / UNFINISHED).is_dir()


def seal(meta: dict[str, Any]) -> dict[str, Any]:
    """``meta`` with the fingerprint of the content and a checksum of itself."""
    content = {key: meta[key] for key in ("classes", "size", "channels", "store", "counts")}
    files = {name: file["sha256"] for name, file in meta["files"].items()}
    meta = {**meta, "fingerprint": _canonical_hash([content, files])}
    return {**meta, "sha256": _canonical_hash(meta)}


def _read_meta(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise DataError(
            f"{printable(folder)}: no such folder; make it with `alexnet prepare SOURCE {printable(folder)}`"
        )
    if not (folder / "meta.json").is_file():
        if (folder / UNFINISHED).is_dir():
            raise DataError(f"{printable(folder)}: unfinished: run prepare again, it goes on where it stopped")
        raise DataError(f"{printable(folder)}: not a packed set (no meta.json); make one with `alexnet prepare`")
    try:
        meta = read_json(folder / "meta.json")
    except AlexNetError as error:
        raise DataError(f"{error}; remove the folder and prepare it again") from error
    if not isinstance(meta, dict) or meta.get("format") != "alexnet packed set":
        raise DataError(f"{printable(folder)}/meta.json: not that of a packed set")
    if meta.get("version") != VERSION:
        raise DataError(
            f"{printable(folder)}: packed format version {printable(meta.get('version'))}, this program reads {VERSION}; "
            "remove the folder and prepare it again"
        )
    checksum = meta.pop("sha256", None)
    if checksum != _canonical_hash(meta) or meta.get("complete") is not True:
        raise DataError(f"{printable(folder)}/meta.json: damaged or edited; remove the folder and prepare it again")
    return meta


def _canonical_hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _verify_file(file: Path, meta: dict[str, Any]) -> None:
    if sha256_file(file) != meta["files"][file.name]["sha256"]:
        raise DataError(
            f"{printable(file)}: damaged: its bytes are not those that were prepared; remove the folder and prepare it again"
        )


def _load_array(file: Path, shape: tuple[int, ...], dtype: type[np.generic], mmap: bool = False) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(file, mmap_mode="r" if mmap else None, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{printable(file)}: not a readable NumPy file ({printable(error)})") from error
    if array.shape != shape or array.dtype != dtype:
        raise DataError(
            f"{printable(file)}: {array.dtype} {array.shape}, but meta.json says {np.dtype(dtype)} {shape}; "
            "remove the folder and prepare it again"
        )
    return array
