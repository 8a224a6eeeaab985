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
import operator
import os
import weakref
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, SupportsIndex, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alexnet.core import rng
from alexnet.core.config import fingerprint
from alexnet.core.errors import AlexNetError, DataError, UsageError, printable
from alexnet.core.preprocessing import ColorStatistics
from alexnet.core.runs import ArrayFile, open_regular, pread_into, read_array, read_file, read_json
from alexnet.core.sealed import Seal, canonical_hash
from alexnet.data.decode import count_scans
from alexnet.data.sources import HELD_OUT_BY_HASH, SPLITS, SplitName

VERSION = 1
HEADER_BYTES = 128
"""Length of the header of a .npy file with four dimensions; the pixels follow it."""
MAX_SIZE = 4096
"""Side of a stored image, at most."""
FORMAT = "alexnet packed set"
UNFINISHED = ".unfinished"
"""Folder inside a packed directory that exists until its preparation is complete."""
Array = TypeVar("Array", NDArray[Any], ArrayFile)

ALL = "all"
"""Stands in place of the name of a split for every image of every split."""
AGAIN = "remove the folder and prepare it again"
SEAL = Seal(what="a packed set", formats=(FORMAT,), version=VERSION, check="sha256", again=AGAIN)


class _Images:
    """What can be asked of images one at a time, besides all that :meth:`read` gives together."""

    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index_B: NDArray[np.integer]) -> NDArray[np.uint8]:
        raise NotImplementedError

    def __getitem__(self, index: SupportsIndex) -> tuple[NDArray[np.uint8], int]:
        """The pixels (S, S, C) uint8 of one image, a copy, and its label. A negative number counts from the end."""
        i = image_number(index, len(self))
        return self.read(np.array([i]))[0], int(self.labels[i])


def image_number(index: SupportsIndex, num: int) -> int:
    """The number, from 0, of an image of ``num``, given as of a list: -1 is the last. Raises :class:`IndexError`."""
    i = operator.index(index)
    if not -num <= i < num:
        raise IndexError(f"image {i} of {num:,}: the numbers are 0 to {num - 1:,}, or -1 to {-num:,} from the end")
    return i % num


class PackedSplit(_Images):
    """The images of one split. Any number of threads may read at once, and of processes: pickled, it is opened again there."""

    def __init__(self, folder: Path, name: str, meta: dict[str, Any]) -> None:
        self.name = name
        self._folder = folder
        self._meta = meta
        self._jpeg = meta["store"] == "jpeg"
        n, size, channels = meta["counts"][name]["images"], meta["size"], meta["channels"]
        self._shape_SSC = (size, size, channels)
        self.labels: NDArray[np.int64] = _load_array(folder / f"{name}.labels.npy", (n,), np.int64)
        """(N,)"""
        if not 0 <= self.labels.min() <= self.labels.max() < len(meta["classes"]):
            raise DataError(
                f"{printable(folder)}/{name}.labels.npy: labels {self.labels.min()} to {self.labels.max()} of "
                f"{len(meta['classes'])} classes; {AGAIN}"
            )
        self.crc32_N: NDArray[np.uint32] = _load_array(folder / f"{name}.crc32.npy", (n,), np.uint32)
        """(N,): CRC-32 of the stored form of each image."""
        if self._jpeg:
            self._offset_N = _load_array(folder / f"{name}.offsets.npy", (n + 1,), np.int64)
            images, ends_N = folder / f"{name}.images.bin", self._offset_N[1:]
            if self._offset_N[0] != 0 or (ends_N <= self._offset_N[:-1]).any() or ends_N[-1] != images.stat().st_size:
                raise DataError(f"{printable(folder)}/{name}.offsets.npy: not the offsets of its records; {AGAIN}")
            self._records = open_regular(images)
            weakref.finalize(self, os.close, self._records)
        else:
            self._pixels = _open_array(folder / f"{name}.images.npy", (n, *self._shape_SSC), np.uint8)
        self._verified_N = np.zeros(n, dtype=bool)

    def __reduce__(self) -> tuple[Any, ...]:
        return PackedSplit, (self._folder.absolute(), self.name, self._meta)

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
                jpeg = self.record(i)
                try:
                    image_BSSC[b] = decode_record(jpeg, self._shape_SSC[2], self._shape_SSC[0])
                except Exception as error:  # whatever a decoder raises for what is no such record
                    raise self._damaged(i, printable(error)) from error
            return image_BSSC
        try:
            images_BSSC: NDArray[np.uint8] = self._pixels[index_B]
        except AlexNetError as error:
            raise DataError(f"{error}, or {AGAIN}") from error
        for b in np.flatnonzero(~self._verified_N[index_B]).tolist():
            self._verify(int(index_B[b]), images_BSSC[b].data)
        return images_BSSC

    def record(self, index: int) -> bytearray:
        """One JPEG record of a set that is stored so, checked like :meth:`read`. One of several scans, which ours never
        have and which can take long to decode, is damaged."""
        start, end = self._offset_N[index].item(), self._offset_N[index + 1].item()
        jpeg = bytearray(end - start)
        try:
            pread_into(self._records, memoryview(jpeg), start, self._folder / f"{self.name}.images.bin")
        except AlexNetError as error:
            raise DataError(f"{error}, or {AGAIN}") from error
        self._verify(index, jpeg)
        return jpeg

    def stored_digest(self, index: int) -> bytes:
        """Hash of the stored form of an image, checked like :meth:`read`; equal images have equal hashes."""
        stored = self.record(index) if self._jpeg else self.read(np.array([index])).tobytes()
        return hashlib.blake2b(stored, digest_size=16).digest()

    def _verify(self, index: int, stored: bytearray | memoryview) -> None:
        if self._verified_N[index]:
            return
        if zlib.crc32(stored) != self.crc32_N[index]:
            raise self._damaged(index, "its bytes are not those that were prepared")
        if self._jpeg and (scans := count_scans(bytes(stored))) != 1:
            raise self._damaged(index, f"{scans} scans, and not one, as records have")
        self._verified_N[index] = True

    def _damaged(self, index: int, why: str) -> DataError:
        file = f"{self.name}.images.{'bin' if self._jpeg else 'npy'}"
        try:
            name = printable(self.path(index))
        except DataError:
            name = f"its name is lost: {self.name}.paths.jsonl is damaged as well"
        return DataError(f"{printable(self._folder)}/{file}: image {index} ({name}) is damaged: {why}; {AGAIN}")

    def _read_paths(self) -> Iterator[str]:
        file = self._folder / f"{self.name}.paths.jsonl"
        SEAL.require(self._folder, self._meta, file.name)
        num = 0
        try:
            with open(file, encoding="ascii") as lines:
                for num, line in enumerate(lines, start=1):
                    name = json.loads(line)
                    if not isinstance(name, str) or num > len(self):
                        raise ValueError(f"line {num} is not the name of an image")
                    yield name
            if num != len(self):
                raise ValueError(f"{num} names")
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(
                f"{printable(file)}: not the names of {len(self)} images ({printable(error)}); {AGAIN}"
            ) from error


@dataclass(frozen=True)
class AllSplits(_Images):
    """The images of several splits as one split, in their order."""

    splits: Sequence[PackedSplit]
    name: str = "all"

    @cached_property
    def labels(self) -> NDArray[np.int64]:  # type: ignore[override]
        return np.concatenate([split.labels for split in self.splits])

    @cached_property
    def crc32_N(self) -> NDArray[np.uint32]:
        return np.concatenate([split.crc32_N for split in self.splits])

    @cached_property
    def paths(self) -> list[str]:
        return [path for split in self.splits for path in split.paths]

    def read(self, index_B: NDArray[np.integer]) -> NDArray[np.uint8]:
        """As :meth:`PackedSplit.read`."""
        end_S = np.cumsum([len(split) for split in self.splits])
        split_B, images = np.searchsorted(end_S, index_B, side="right"), []
        for s in np.unique(split_B).tolist():
            start = end_S[s] - len(self.splits[s])
            images.append(self.splits[s].read(index_B[split_B == s] - start))
        image_BSSC = np.concatenate(images)
        image_BSSC[np.argsort(split_B, kind="stable")] = image_BSSC.copy()
        return image_BSSC


@dataclass(frozen=True, eq=False)
class Subset(_Images):
    """Some images of a split as a split, with labels of their own."""

    split: PackedSplit | AllSplits
    image_N: NDArray[np.int64]
    labels: NDArray[np.int64]

    @property
    def paths(self) -> list[str]:
        paths = self.split.paths
        return [paths[i] for i in self.image_N]

    def read(self, index_B: NDArray[np.integer]) -> NDArray[np.uint8]:
        return self.split.read(self.image_N[index_B])


def with_parts(data: PackedSet, parts: Mapping[str, Any], classes: Sequence[str]) -> PackedSet:
    """The set with these splits, of which some are :class:`Subset`; it has a fingerprint of its own. The mean image and the
    colors stay those of the whole."""
    numbers = {
        name: hashlib.sha256(part.image_N.tobytes()).hexdigest()
        for name, part in parts.items()
        if isinstance(part, Subset)
    }
    meta = data.meta | {"fingerprint": fingerprint([data.fingerprint, list(classes), numbers])}
    return replace(data, meta=meta, classes=list(classes), splits=cast(dict[str, PackedSplit], dict(parts)))


def training_subset(num: int, limit: int | None, seed: int) -> NDArray[np.int64]:
    """The numbers of the images of ``num`` that a run learns from, ascending: all, or the first ``limit`` of a fixed random
    order."""
    if limit is None or limit >= num:
        return np.arange(num, dtype=np.int64)
    return np.sort(rng.permutation(seed, "subset", 0, num)[:limit])


def decode_record(jpeg: bytes | bytearray, channels: int, side: int | None = None) -> NDArray[np.uint8]:
    """The pixels of one of our own JPEG records, (S, S, C), by simplejpeg if it is installed, else by Pillow, to the
    same result. With ``side``, a record whose header says another size is a :class:`ValueError` and not decoded."""
    try:
        import simplejpeg
    except ImportError:
        image = Image.open(io.BytesIO(jpeg), formats=("JPEG",))
        _require_side(image.size, side)
        return np.asarray(image).reshape(image.height, image.width, channels)
    if side is not None:
        _require_side(simplejpeg.decode_jpeg_header(jpeg)[:2], side)
    return np.asarray(simplejpeg.decode_jpeg(jpeg, "RGB" if channels == 3 else "GRAY"))


def _require_side(sides: tuple[int, ...], side: int | None) -> None:
    if side is not None and sides != (side, side):
        raise ValueError(f"a record of {sides[0]} x {sides[1]} pixels, not {side} x {side}")


@dataclass(frozen=True)
class PackedSet:
    """An opened packed directory; images stay on disk until they are read."""

    path: Path
    meta: dict[str, Any]
    classes: list[str]
    splits: dict[str, PackedSplit]
    source: str = ""
    """What the user called the set, if not ``path``."""

    @property
    def where(self) -> str:
        """The name of the set in messages."""
        return printable(self.source or self.path)

    @property
    def size(self) -> int:
        return int(self.meta["size"])

    @property
    def channels(self) -> int:
        return int(self.meta["channels"])

    @property
    def class_counts(self) -> dict[SplitName, list[int]]:
        """How many images each class has in each split that there is."""
        return {split: self.meta["counts"][split]["per_class"] for split in SPLITS if split in self.meta["counts"]}

    @property
    def fingerprint(self) -> str:
        """Names the content: the same for the same classes, pixels and order."""
        return str(self.meta["fingerprint"])

    @property
    def sample_max(self) -> int | None:
        """The sample that became white in files of more than 8 bits; None for the largest that each file allows."""
        value = self.meta["protocol"].get("sample_max")
        return value if isinstance(value, int) else None

    def require_sample_max(self, wanted: int | None, name: str) -> None:
        """Raise :class:`UsageError` if images were decoded with another one: their grey levels would mean something else."""
        wide = self.meta.get("wide")
        if self.sample_max == wanted or (isinstance(wide, dict) and wide.get("images") == 0):
            return
        how = "without --sample-max" if self.sample_max is None else f"with --sample-max {self.sample_max}"
        need = "without it" if wanted is None else f"with --sample-max {wanted}"
        raise UsageError(f"{name}: its images of more than 8 bits were prepared {how}; prepare them again {need}")

    @cached_property
    def mean(self) -> NDArray[np.float32]:
        """The mean training image, (S, S, C), on 0..255."""
        file = self._training_file("mean.npy")
        mean_SSC = _load_array(file, (self.size, self.size, self.channels), np.float32)
        if not np.isfinite(mean_SSC).all():
            raise DataError(f"{printable(file)}: holds values that are not finite; {AGAIN}")
        return mean_SSC

    @cached_property
    def color(self) -> ColorStatistics:
        file, c = self._training_file("color.json"), self.channels

        def numbers(name: str, *shape: int) -> NDArray[np.float64]:
            array = np.array(value[name], dtype=np.float64)
            if array.shape != shape or not np.isfinite(array).all():
                raise ValueError(f"{name} is not {shape} finite numbers")
            return array

        try:
            value = read_json(file)
            return ColorStatistics(
                mean_C=numbers("mean", c),
                covariance_CC=numbers("covariance", c, c),
                eigenvalues_C=numbers("eigenvalues", c),
                eigenvectors_CC=numbers("eigenvectors", c, c),
                standard_deviations_C=numbers("standard_deviations", c),
            )
        except (AlexNetError, ValueError, TypeError, LookupError, OverflowError) as error:
            raise DataError(f"{printable(file)}: not the statistics of a set ({printable(error)}); {AGAIN}") from error

    def split(self, name: str) -> PackedSplit:
        """Raises :class:`DataError` naming the splits there are."""
        if name not in self.splits:
            raise DataError(f"{self.where}: no split {printable(name)!r}; there is {', '.join(self.splits)}")
        return self.splits[name]

    def images(self, split: str) -> PackedSplit | AllSplits:
        """A split, or with ``all`` every image of every split."""
        return AllSplits(tuple(self.splits.values())) if split == ALL else self.split(split)

    @property
    def held_out(self) -> str:
        """The split to validate on: ``val``, or ``test`` in sets that come with no other."""
        return "val" if "val" in self.splits else "test"

    @property
    def not_for_training(self) -> str:
        """What is asked for by those who train nothing: the held-out split of a source that names its splits, else ``all``.
        (To hold images out by a hash is a rule of training.)"""
        return ALL if self.meta.get("held_out") == "hash" else self.held_out

    def _training_file(self, name: str) -> Path:
        if "train" not in self.splits:
            raise DataError(f"{self.where}: no training images, so no {name}; it can only be evaluated on")
        if name not in self.meta["files"]:
            raise DataError(f"{printable(self.path)}: {name} is not among the files in meta.json; {AGAIN}")
        return self.path / name


def open_packed(path: str | Path) -> PackedSet:
    """Open a packed directory. Time and memory do not grow with the images.

    Sizes, headers, ``meta.json`` and the SHA-256 of all but images and names are checked now, each image when it is
    first read. Raises :class:`DataError` for a set that is unfinished, damaged or of another version.
    """
    folder = Path(path)
    meta = _read_meta(folder)
    for name in meta["files"]:
        SEAL.require(folder, meta, name, contents=not name.endswith((".images.npy", ".images.bin", ".paths.jsonl")))
    splits: dict[str, PackedSplit] = {n: PackedSplit(folder, n, meta) for n in SPLITS if n in meta["counts"]}
    return PackedSet(folder, meta, list(meta["classes"]), splits)


def is_packed(path: Path) -> bool:
    """Whether a path is a packed directory, finished or not."""
    return (path / UNFINISHED).is_dir() or _has_checksums(path) or _says_packed(path / "meta.json")


def _has_checksums(path: Path) -> bool:
    """Whether a folder is a packed set, or was one once."""
    return any((path / f"{split}.crc32.npy").is_file() for split in SPLITS)


def _says_packed(meta: Path) -> bool:
    """Whether a file begins like the meta.json of a set; images of a source may lie beside one of somebody else's."""
    if not meta.is_file():
        return False
    with open(meta, "rb") as file:
        return FORMAT.encode() in file.read(100)


def seal(meta: dict[str, Any]) -> dict[str, Any]:
    """``meta`` with the fingerprint of the content and a checksum of everything."""
    content = {key: meta[key] for key in ("classes", "size", "channels", "store", "counts")}
    files = {name: file["sha256"] for name, file in meta["files"].items()}
    return SEAL.sealed({**meta, "fingerprint": canonical_hash([content, files])})


def _read_meta(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise DataError(
            f"{printable(folder)}: no such folder; make it with `alexnet prepare SOURCE {printable(folder)}`"
        )
    if not (folder / "meta.json").is_file():
        if (folder / UNFINISHED).is_dir():
            raise DataError(f"{printable(folder)}: unfinished: run prepare again, it goes on where it stopped")
        if _has_checksums(folder):
            raise DataError(f"{printable(folder)}/meta.json: missing; {AGAIN}")
        raise DataError(f"{printable(folder)}: not a packed set (no meta.json); make one with `alexnet prepare`")
    meta = {"protocol": {}, "rejected": [], "notes": [], **SEAL.read(folder)}
    if fault := _meta_fault(meta):
        raise SEAL.fault(folder / SEAL.head, fault)
    by_hash = any(
        HELD_OUT_BY_HASH in str(note) for note in meta["notes"]
    )  # how sets told it that did not say "held_out"
    return {"held_out": "hash" if by_hash else "source", **meta}


def _meta_fault(meta: dict[str, Any]) -> str:
    """What a set that this program prepared would not have; its checksum does not tell who wrote it."""
    classes, counts = meta.get("classes"), meta.get("counts")
    if meta.get("complete") is not True:
        return "it does not say that the set is complete"
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        return "its classes are no list of names"
    if meta.get("store") not in ("pixels", "jpeg") or meta.get("channels") not in (1, 3):
        return "its store or its channels are unknown"
    if not isinstance(meta.get("size"), int) or not 1 <= meta["size"] <= MAX_SIZE:
        return f"its size is not 1 to {MAX_SIZE}"
    if not isinstance(counts, dict) or not counts or not counts.keys() <= set(SPLITS):
        return "its splits are not some of train, val and test"
    for count in counts.values():
        if not isinstance(count, dict) or type(n := count.get("images")) is not int or not 1 <= n < 1 << 62:
            return "a split does not say how many images it has"
    if not _files_of(meta) <= meta["files"].keys():
        return "files of the set are not listed"
    if not isinstance(meta.get("fingerprint"), str) or not isinstance(meta["protocol"], dict):
        return "its fingerprint or its protocol is missing"
    if meta.get("held_out", "hash") not in ("hash", "source"):
        return "it does not say who held images out"
    rejected, notes = meta["rejected"], meta["notes"]
    if not isinstance(notes, list) or not isinstance(rejected, list):
        return "its notes or its rejected files are no list"
    if not all(isinstance(r, dict) and {str} == {type(r.get(key)) for key in ("path", "reason")} for r in rejected):
        return "a rejected file has no path or no reason"
    return ""


def _files_of(meta: dict[str, Any]) -> set[str]:
    """The names of the files that a set must have."""
    images = ["images.npy"] if meta["store"] == "pixels" else ["images.bin", "offsets.npy"]
    kinds = ["labels.npy", "crc32.npy", "paths.jsonl", *images]
    return {f"{split}.{kind}" for split in meta["counts"] for kind in kinds}


def _load_array(file: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    try:
        return _expect(read_array(io.BytesIO(read_file(file)), file), file, shape, dtype)
    except AlexNetError as error:
        raise DataError(f"{error}; {AGAIN}") from error


def _open_array(file: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> ArrayFile:
    try:
        return _expect(ArrayFile(file), file, shape, dtype)
    except AlexNetError as error:
        raise DataError(f"{error}; {AGAIN}") from error


def _expect(array: Array, file: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> Array:
    if array.shape != shape or array.dtype != dtype:
        raise AlexNetError(
            f"{printable(file)}: {array.dtype} {array.shape}, but meta.json says {np.dtype(dtype)} {shape}"
        )
    return array
