"""Decode a source once into a packed set: in parallel, resumable, with mean image and color covariance in the same
pass.

The images of a split are cut into shards of fixed size. A worker decodes a shard, writes its pixels at their final
place, then a small journal file: a journal that is there is a shard that is done. The result does not depend on the
number of workers or on interruptions, byte for byte. A rejected image leaves a hole; in the end the last images of the
split move into the holes, in order, which can be repeated without harm until the file is cut to its length.
"""

# Shape suffixes: N images of a split or shard, S rows and columns, P pixels, C channels.

from __future__ import annotations

import errno
import fcntl
import io
import json
import math
import os
import shutil
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, features

from alexnet.core.errors import AlexNetError, DataError, ImageError, UsageError, printable
from alexnet.core.runs import fsync_folder, read_json, sha256_file, write_atomic, write_json
from alexnet.data.builtin import digits, shapes_folder
from alexnet.data.cifar import cifar10, is_cifar10
from alexnet.data.decode import SUFFIXES, decode_image, resize_and_crop
from alexnet.data.folder import image_folder, image_tar
from alexnet.data.idx import FASHION_MNIST_CLASSES, idx_set, is_idx
from alexnet.data.imagenet import imagenet, is_imagenet
from alexnet.data.packed import UNFINISHED, VERSION, PackedSet, decode_record, is_packed, open_packed, seal
from alexnet.data.pool import in_processes
from alexnet.data.sources import SPLITS, Record, Source, Split, class_faults, class_notes, csv_list, fingerprint_of

Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""
Store = Literal["pixels", "jpeg"]

SIZE = 256
"""Side of a packed photograph where nothing else is said (§2)."""
SHARD_IMAGES = 256
HEADER_BYTES = 128
"""Of a .npy file with four dimensions; the pixels follow."""
JPEG_QUALITY = 95
"""Of records stored as JPEG, as in the batches of cuda-convnet2."""


def prepare(
    source: str | Path | Source,
    packed: str | Path,
    *,
    size: int | None = None,
    store: Store = "pixels",
    workers: int | None = None,
    seed: int = 0,
    max_bad: float | None = None,
    progress: Progress | None = None,
) -> PackedSet:
    """Decode ``source`` into the folder ``packed``, and open it.

    ``size``: side of the stored squares; None for 256, or for the size at which an IDX or CIFAR set comes. ``store``:
    pixels, or JPEG records for sets beyond the disk. ``seed`` decides which images are held out where the source does
    not say. ``max_bad``: how many unreadable images to put up with, a count, or a fraction if below 1; None for 0.1 %
    of all (at least 10) and 10 % of each class.

    Interrupted, the same call goes on where it stopped; on a finished set of the same source it returns that. Raises
    :class:`DataError` for a source that cannot be used, and :class:`UsageError` for a folder that holds something else.
    """
    listing = source if isinstance(source, Source) else read_source(source, seed=seed)
    folder, plan = Path(packed), _plan(listing, size, store)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            if not (folder / "meta.json").exists():
                _begin(folder, plan)
                _pack_shards(folder, plan, workers, progress)
                _finish(folder, plan, max_bad)
            return _finished(folder, plan)
    except OSError as error:
        raise _storage_error(error, folder, plan) from error


def read_source(source: str | Path, *, seed: int = 0) -> Source:
    """The records of a path: a folder of images, IDX or CIFAR-10 files or ImageNet, a tar, a CSV list, or an IDX
    file."""
    path = Path(source)
    try:
        if path.is_dir():
            if is_idx(path):
                return idx_set(path, seed)
            if is_cifar10(path):
                return cifar10(path, seed)
            return imagenet(path, seed) if is_imagenet(path) else image_folder(path, seed)
        if not path.exists():
            raise DataError(
                f"{printable(path)}: no such file, folder or named set; the sets are {', '.join(NAMED_SETS)}"
            )
    except (OSError, ValueError) as error:
        raise DataError(f"{printable(path)}: cannot be read ({printable(error)})") from error
    if is_idx(path):
        return idx_set(path, seed)
    if path.suffix.lower() == ".tar":
        return image_tar(path, seed)
    if path.suffix.lower() == ".csv":
        return csv_list(path, seed)
    raise DataError(f"{printable(path)}: not a folder, .tar, .csv or IDX file; decompress archives first")


def resolve(
    data: str | Path,
    *,
    data_root: str | Path | None = None,
    cache: str | Path | None = None,
    size: int | None = None,
    workers: int | None = None,
    seed: int = 0,
    max_bad: float | None = None,
    progress: Progress | None = None,
) -> PackedSet:
    """Open ``data``: a packed folder, or a named set or anything else that :func:`prepare` takes, prepared once into a
    cache.

    Named sets are looked for in ``data_root``, ``$ALEXNET_DATA`` or ``./data``. The cache is ``cache``,
    ``$ALEXNET_CACHE`` or ``~/.cache/alexnet``; its entries are named after the names, sizes and times of the source's
    files.
    """
    path = Path(data)
    if is_packed(path):
        opened = open_packed(path)
        if size is not None and opened.size != size:
            raise UsageError(f"{printable(path)}: packed at {opened.size} pixels, but {size} are asked for")
        return opened
    cache = Path(cache or os.environ.get("ALEXNET_CACHE") or Path.home() / ".cache" / "alexnet")
    listing = named_source(str(data), data_root=data_root, cache=cache, seed=seed) or read_source(path, seed=seed)
    label = "".join(c if c.isalnum() or c == "-" else "-" for c in path.name or "set")[:40]
    key = _plan(listing, size, "pixels").fingerprint[:16]
    return prepare(
        listing, cache / f"{label}-{key}", size=size, workers=workers, seed=seed, max_bad=max_bad, progress=progress
    )


# --- named sets -----------------------------------------------------------------------------------------------------

NAMED_SETS = {
    "shapes": (),
    "digits": (),
    "imagenette": (
        *("photos/imagenette-224.tar", "imagenette-224.tar", "imagenette2", "imagenette2-320", "imagenette2-160"),
        *("imagenette2.tar", "imagenette"),
    ),
    "fashion-mnist": ("fashion-mnist", "FashionMNIST/raw"),
    "cifar10": ("cifar10", "cifar-10-batches-bin", "cifar-10-batches-py"),
}
"""Where each set may lie below the data folder; the first two are built in."""

_HOMES = {
    "imagenette": "https://github.com/fastai/imagenette, and unpack it",
    "fashion-mnist": "https://github.com/zalandoresearch/fashion-mnist (four .gz files)",
    "cifar10": "https://www.cs.toronto.edu/~kriz/cifar.html (the binary version), and unpack it",
}
_IMAGENETTE_NAMES = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}


def named_source(
    name: str, *, data_root: str | Path | None = None, cache: str | Path | None = None, seed: int = 0
) -> Source | None:
    """The records of a named set; None if no set has this name. ``shapes`` are drawn into ``cache``."""
    if name not in NAMED_SETS:
        return None
    if name == "shapes":
        return image_folder(shapes_folder(Path(cache or "."), seed=seed), seed)
    if name == "digits":
        return digits(seed)
    root = Path(data_root or os.environ.get("ALEXNET_DATA") or "data")
    path = next((root / place for place in NAMED_SETS[name] if (root / place).exists()), None)
    if path is None:
        raise DataError(
            f"{name}: not found in {printable(root)} (looked for {', '.join(NAMED_SETS[name])}); get it from {_HOMES[name]}, "
            "and name the folder it is in by --data-root or $ALEXNET_DATA"
        )
    if name == "fashion-mnist":
        return idx_set(path, seed, FASHION_MNIST_CLASSES)
    if name == "cifar10":
        return cifar10(path, seed)
    source = image_tar(path, seed) if path.suffix == ".tar" else image_folder(path, seed)
    return replace_names(source, _IMAGENETTE_NAMES)


def replace_names(source: Source, names: dict[str, str]) -> Source:
    """``source`` with classes renamed; their order stays."""
    return Source(**{**vars(source), "classes": [names.get(name, name) for name in source.classes]})


# --- the plan: everything that decides the result -------------------------------------------------------------------


@dataclass(frozen=True)
class _Shard:
    split: Split
    first: int
    """Number of its first image in the split, rejected ones counted."""
    records: Sequence[Record]

    @property
    def name(self) -> str:
        return f"{self.split}-{self.first // SHARD_IMAGES:06d}"


@dataclass(frozen=True)
class _Plan:
    source: Source
    size: int
    store: Store
    protocol: dict[str, Any]
    shards: Sequence[_Shard]
    notes: Sequence[str]
    fingerprint: str

    @property
    def splits(self) -> dict[str, list[Record]]:
        """All records listed, by split."""
        splits: dict[str, list[Record]] = {}
        for shard in self.shards:
            splits.setdefault(shard.split, []).extend(shard.records)
        return splits

    @property
    def image_bytes(self) -> int:
        return self.size**2 * self.source.channels


def _plan(source: Source, size: int | None, store: Store) -> _Plan:
    side = size or source.size or SIZE
    if not 1 <= side <= 4096:
        raise UsageError(f"size is {side}; the side of a packed image is 1 to 4096 pixels")
    for fault in class_faults(source):
        raise DataError(f"{printable(fault.path)}: {fault.reason}")
    shards = []
    for split in SPLITS:
        records = [record for record in source.records if record.split == split]
        shards += [_Shard(split, i, records[i : i + SHARD_IMAGES]) for i in range(0, len(records), SHARD_IMAGES)]
    protocol = {
        "size": side,
        "channels": source.channels,
        "store": store if store == "pixels" else f"JPEG, quality {JPEG_QUALITY}",
        "resize": "short side to size, long side in proportion, rounded down",
        "resampling": "Pillow bilinear, antialiased",
        "crop": "center square, offsets rounded down",
        "decoder": {
            "pillow": PIL.__version__,
            **{name: features.version(name) for name in ("libjpeg_turbo", "zlib", "webp", "libtiff")},
        },
    }
    names = (f"{record.split} {record.label} {record.name}" for record in source.records)
    fingerprint = fingerprint_of(VERSION, json.dumps(protocol), *source.classes, source.fingerprint, *names)
    return _Plan(source, side, store, protocol, shards, [*source.notes, *class_notes(source)], fingerprint)


# --- states of the packed folder ------------------------------------------------------------------------------------


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time prepares a folder; another waits, and finds the work done."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _begin(folder: Path, plan: _Plan) -> None:
    for leftover in folder.rglob(".*.tmp-*"):  # of a write that was killed
        leftover.unlink()
    state = folder / UNFINISHED / "plan.json"
    if state.exists():
        if read_json(state).get("fingerprint") != plan.fingerprint:
            raise DataError(
                f"{printable(folder)}: begun with another source or other settings, or the source has changed since; "
                "remove this folder to prepare from the start"
            )
    elif any(entry.name != UNFINISHED and not entry.name.endswith(".images.npy") for entry in folder.iterdir()):
        raise UsageError(f"{printable(folder)}: neither empty nor a packed set; choose another folder")
    if plan.store == "pixels":
        sizes = {split: HEADER_BYTES + len(records) * plan.image_bytes for split, records in plan.splits.items()}
        written = sum(path.stat().st_blocks * 512 for path in folder.glob("*.images.npy"))
        needed, free = sum(sizes.values()) - written, shutil.disk_usage(folder).free
        if needed > free:
            raise AlexNetError(
                f"no space left in {printable(folder)}: needs {needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB free; "
                "choose another place, or a smaller --size"
            )
        for split, size in sizes.items():
            if not (images := folder / f"{split}.images.npy").exists():
                with open(images, "wb") as file:
                    file.truncate(size)
    state.parent.mkdir(exist_ok=True)
    write_json(state, {"fingerprint": plan.fingerprint})


def _finished(folder: Path, plan: _Plan) -> PackedSet:
    packed = open_packed(folder)
    if packed.meta["plan"] != plan.fingerprint:
        raise UsageError(
            f"{printable(folder)}: holds a set prepared from another source or with other settings, or the source has changed "
            "since; choose another folder, or remove this one"
        )
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
    return packed


def _storage_error(error: OSError, folder: Path, plan: _Plan) -> AlexNetError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        needed = sum(map(len, plan.splits.values())) * plan.image_bytes
        return AlexNetError(
            f"no space left in {printable(folder)}: the set takes up to {needed / 1e6:,.0f} MB, "
            f"{shutil.disk_usage(folder).free / 1e6:,.0f} MB free; make room and prepare again, it goes on where it stopped"
        )
    return AlexNetError(f"{printable(error.filename or folder)}: {error.strerror or printable(error)}")


# --- shards ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rejected:
    path: str
    split: Split
    label: int
    reason: str
    detail: str


@dataclass(frozen=True)
class _Journal:
    """What the worker found out about the images of its shard."""

    good_N: NDArray[np.bool_]
    crc32_N: NDArray[np.uint32]
    """Of what is stored, pixels or JPEG; 0 for rejected images, like the next."""
    length_N: NDArray[np.int64]
    """Bytes of each JPEG record; empty for pixels."""
    sum_SSC: NDArray[np.uint32]
    """Sum of the good images of a training shard; else empty, like the next."""
    product_CC: NDArray[np.uint64]
    """Sums over their pixels of the products of two channels."""
    rejected: list[_Rejected]
    odd: list[str]


def _pack_shards(folder: Path, plan: _Plan, workers: int | None, progress: Progress | None) -> None:
    total = sum(len(shard.records) for shard in plan.shards)
    todo = [shard for shard in plan.shards if not _journal_path(folder, shard).exists()]
    done = total - sum(len(shard.records) for shard in todo)
    if progress:
        progress(done, total)
    pack = partial(_pack_shard, folder, plan.size, plan.source.channels, plan.store)
    for shard, _ in in_processes(pack, todo, workers if len(todo) > 1 else 1):
        done += len(shard.records)
        if progress:
            progress(done, total)


def _pack_shard(folder: Path, size: int, channels: int, store: Store, shard: _Shard) -> None:
    """Decode the images of a shard, store the good ones, then write the journal."""
    n = len(shard.records)
    image_NSSC = np.zeros((n, size, size, channels), dtype=np.uint8)
    good_N = np.zeros(n, dtype=bool)
    crc32_N = np.zeros(n, dtype=np.uint32)
    jpegs: list[bytes] = [b""] * n
    rejected, odd = [], []
    for i, record in enumerate(shard.records):
        try:
            image_SSC, remarks = load_image(record, size, channels)
        except ImageError as error:
            rejected.append(_Rejected(record.name, shard.split, record.label, error.reason, error.detail))
            continue
        if store == "jpeg":
            jpegs[i] = _encode(image_SSC)
            image_SSC = decode_record(jpegs[i], channels)  # statistics of what will be read
        image_NSSC[i] = image_SSC
        good_N[i] = True
        crc32_N[i] = zlib.crc32(jpegs[i] or image_NSSC[i].data)
        odd += [f"{record.name}: {remark}" for remark in remarks]
    if store == "jpeg":
        write_atomic(_records_path(folder, shard), lambda file: file.writelines(jpegs))
    else:
        with open(folder / f"{shard.split}.images.npy", "r+b") as file:
            file.seek(HEADER_BYTES + shard.first * image_NSSC[0].nbytes)
            file.write(image_NSSC.data)
            file.flush()
            os.fsync(file.fileno())
    training = shard.split == "train"
    arrays = {
        "good_N": good_N,
        "crc32_N": crc32_N,
        "length_N": np.array([len(jpeg) for jpeg in jpegs], dtype=np.int64),
        "sum_SSC": image_NSSC.sum(axis=0, dtype=np.uint32) if training else np.zeros(0, np.uint32),
        "product_CC": _products(image_NSSC) if training else np.zeros(0, np.uint64),
        "report": np.array(json.dumps({"rejected": [asdict(item) for item in rejected], "odd": odd})),
    }
    write_atomic(_journal_path(folder, shard), lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]


def load_image(record: Record, size: int, channels: int) -> tuple[NDArray[np.uint8], list[str]]:
    """The pixels to be stored of one image, (size, size, channels), and what is odd about its file.
    Raises :class:`ImageError`."""
    data = record.read()
    if not isinstance(data, bytes) and data.shape == (size, size, channels):
        return data, []
    image, odd = decode(record, data)
    return resize_and_crop(image if channels == 3 else image.convert("L"), size).reshape(size, size, channels), odd


def decode(record: Record, data: bytes | NDArray[np.uint8]) -> tuple[Image.Image, list[str]]:
    """A record's data as an image, and what is odd about its file."""
    if not isinstance(data, bytes):
        return Image.fromarray(data[:, :, 0] if data.shape[2] == 1 else data), []
    image = decode_image(data, record.name)
    odd = list(image.info["warnings"])
    suffix = PurePosixPath(record.name).suffix.lower()
    if suffix not in ("", *SUFFIXES[image.info["format"]]):
        odd.append(f"a {image.info['format']} file")
    return image, odd


def _encode(image_SSC: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image_SSC if image_SSC.shape[2] == 3 else image_SSC[:, :, 0]).save(
        buffer, "JPEG", quality=JPEG_QUALITY
    )
    return buffer.getvalue()


def _products(image_NSSC: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Sums over all pixels of the products of two channels, in integers: (C, C)."""
    channels = image_NSSC.shape[-1]
    sum_CC = np.zeros((channels, channels), dtype=np.uint64)
    for image_SSC in image_NSSC:
        plane_CP = np.ascontiguousarray(image_SSC.reshape(-1, channels).T).astype(np.uint16)  # 255 * 255 < 2^16
        for c in range(channels):
            for d in range(c + 1):
                sum_CC[c, d] += (plane_CP[c] * plane_CP[d]).sum(dtype=np.uint64)
    return np.tril(sum_CC) + np.tril(sum_CC, -1).T


def _journal_path(folder: Path, shard: _Shard) -> Path:
    return folder / UNFINISHED / f"{shard.name}.npz"


def _records_path(folder: Path, shard: _Shard) -> Path:
    return folder / UNFINISHED / f"{shard.name}.bin"


def _read_journal(path: Path) -> _Journal:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            report = json.loads(str(arrays["report"]))
            return _Journal(
                **{name: arrays[name] for name in ("good_N", "crc32_N", "length_N", "sum_SSC", "product_CC")},
                rejected=[_Rejected(**item) for item in report["rejected"]],
                odd=report["odd"],
            )
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{printable(path)}: damaged; remove it and prepare again") from error


# --- the end: holes closed, statistics, meta.json -------------------------------------------------------------------


def _finish(folder: Path, plan: _Plan, max_bad: float | None) -> None:
    journals = [_read_journal(_journal_path(folder, shard)) for shard in plan.shards]
    rejected = [item for journal in journals for item in journal.rejected]
    _refuse_too_many(folder, plan, rejected, max_bad)
    counts: dict[str, Any] = {}
    for split, records in plan.splits.items():
        pairs = [(s, j) for s, j in zip(plan.shards, journals, strict=True) if s.split == split]
        good_N = np.concatenate([journal.good_N for _, journal in pairs])
        crc32_N = np.concatenate([journal.crc32_N for _, journal in pairs])
        if plan.store == "jpeg":
            row_N = np.flatnonzero(good_N)
            _join_records(folder, split, pairs)
        else:
            row_N = _rows_without_holes(good_N)
            _close_holes(folder / f"{split}.images.npy", row_N, plan)
        label_N = np.array([records[i].label for i in row_N], dtype=np.int64)
        _save_array(folder / f"{split}.labels.npy", label_N)
        _save_array(folder / f"{split}.crc32.npy", crc32_N[row_N])
        _save_lines(folder / f"{split}.paths.jsonl", [json.dumps(records[i].name) for i in row_N])
        per_class = np.bincount(label_N, minlength=len(plan.source.classes))
        counts[split] = {"images": len(row_N), "per_class": per_class.tolist()}
    if "train" in counts:
        training = [j for s, j in zip(plan.shards, journals, strict=True) if s.split == "train"]
        _save_statistics(folder, training, counts["train"]["images"])
    _write_meta(folder, plan, counts, rejected, [remark for journal in journals for remark in journal.odd])


def _refuse_too_many(folder: Path, plan: _Plan, rejected: list[_Rejected], max_bad: float | None) -> None:
    total = len(plan.source.records)
    limit = max(10, total // 1000)
    if max_bad is not None:
        limit = math.floor(max_bad * total if max_bad < 1 else max_bad)
    named = "; ".join(f"{printable(r.path)}: {r.reason}" for r in rejected[:3]) + ("; ..." if len(rejected) > 3 else "")
    listed = Counter(record.label for record in plan.source.records)
    for label, bad in sorted(Counter(item.label for item in rejected).items()):
        if max_bad is None and bad > 0.1 * listed[label]:
            raise DataError(
                f"{printable(folder)}: {bad} of the {listed[label]} files of class {printable(plan.source.classes[label])} "
                f"cannot be read, more than 10 % ({named}); replace them, or set --max-bad"
            )
    good = Counter((record.split, record.label) for record in plan.source.records)
    good.subtract(Counter((item.split, item.label) for item in rejected))
    for (split, label), count in sorted(good.items()):
        if count == 0:
            name = printable(plan.source.classes[label])
            raise DataError(f"{printable(folder)}: no {split} file of class {name} can be read ({named}); replace them")
    if len(rejected) > limit:
        raise DataError(
            f"{printable(folder)}: {len(rejected):,} of {total:,} files cannot be read, more than {limit:,} ({named}); "
            "replace them, or set --max-bad"
        )


def _rows_without_holes(good_N: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Which record is in each row of the finished file: its own, or in place of a rejected one the next of the last
    good."""
    n = int(good_N.sum())
    row_N = np.arange(n)
    row_N[~good_N[:n]] = n + np.flatnonzero(good_N[n:])
    return row_N


def _close_holes(path: Path, row_N: NDArray[np.int64], plan: _Plan) -> None:
    n = len(row_N)
    final = HEADER_BYTES + n * plan.image_bytes
    with open(path, "r+b") as file:
        if path.stat().st_size > final:  # else this was done before an interruption
            for row in np.flatnonzero(row_N != np.arange(n)).tolist():
                file.seek(HEADER_BYTES + int(row_N[row]) * plan.image_bytes)
                image = file.read(plan.image_bytes)
                file.seek(HEADER_BYTES + row * plan.image_bytes)
                file.write(image)
        file.seek(0)
        file.write(_npy_header((n, plan.size, plan.size, plan.source.channels)))
        file.flush()
        os.fsync(file.fileno())
        file.truncate(final)
        os.fsync(file.fileno())


def _npy_header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    header = buffer.getvalue()
    assert len(header) == HEADER_BYTES, shape
    return header


def _join_records(folder: Path, split: str, pairs: Sequence[tuple[_Shard, _Journal]]) -> None:
    """Append the shards' JPEG records to one file, and remove each when it is in: they need not fit on the disk
    twice."""
    end = 0
    with open(folder / f"{split}.images.bin", "ab") as joined:
        size = joined.tell()
        for shard, journal in pairs:
            start, end = end, end + int(journal.length_N.sum())
            part = _records_path(folder, shard)
            if size < end:  # not, or not wholly, appended before an interruption
                joined.truncate(start)
                joined.write(part.read_bytes())
                joined.flush()
                os.fsync(joined.fileno())
                size = end
            part.unlink(missing_ok=True)
    length_N = np.concatenate([journal.length_N[journal.good_N] for _, journal in pairs])
    _save_array(folder / f"{split}.offsets.npy", np.concatenate([[0], np.cumsum(length_N)]).astype(np.int64))


def _save_statistics(folder: Path, journals: Sequence[_Journal], n: int) -> None:
    sum_SSC: NDArray[np.uint64] = np.zeros(journals[0].sum_SSC.shape, dtype=np.uint64)
    product_CC: NDArray[np.uint64] = np.zeros(journals[0].product_CC.shape, dtype=np.uint64)
    for journal in journals:
        sum_SSC += journal.sum_SSC
        product_CC += journal.product_CC
    _save_array(folder / "mean.npy", (sum_SSC / n).astype(np.float32))
    size, channels = sum_SSC.shape[1:]
    pixels = n * size * size
    sum_C = [int(value) for value in sum_SSC.sum(axis=(0, 1))]
    covariance_CC = np.array(
        [  # E[xy] - E[x] E[y], in whole numbers until the division
            [(pixels * int(product_CC[c, d]) - sum_C[c] * sum_C[d]) / pixels**2 for d in range(channels)]
            for c in range(channels)
        ]
    )
    eigenvalue_C, eigenvector_CC = np.linalg.eigh(covariance_CC)
    eigenvalue_C = eigenvalue_C.clip(min=0.0)
    largest_C = eigenvector_CC[np.abs(eigenvector_CC).argmax(axis=0), np.arange(channels)]
    color = {
        "units": "pixel values 0..255; variances in their square",
        "channels": "RGB" if channels == 3 else "grey",
        "pixels": pixels,
        "mean": [value / pixels for value in sum_C],
        "channel_standard_deviations": np.sqrt(np.diag(covariance_CC)).tolist(),
        "covariance": covariance_CC.tolist(),
        "eigenvalues": eigenvalue_C.tolist(),
        "eigenvectors": (eigenvector_CC * np.sign(largest_C)).tolist(),
        "eigenvectors_are": "columns, in the order of the eigenvalues, the largest component positive",
        "standard_deviations": np.sqrt(eigenvalue_C).tolist(),
    }
    write_json(folder / "color.json", color)


def _write_meta(folder: Path, plan: _Plan, counts: dict[str, Any], rejected: list[_Rejected], odd: list[str]) -> None:
    source = plan.source
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    odd_note = [f"{len(odd)} odd files: {'; '.join(printable(remark) for remark in odd[:3])}"] if odd else []
    meta = {
        "format": "alexnet packed set",
        "version": VERSION,
        "complete": True,
        "classes": list(source.classes),
        "counts": counts,
        "size": plan.size,
        "channels": source.channels,
        "store": plan.store,
        "protocol": plan.protocol,
        "found": {
            "files": len(source.records) + source.not_images,
            "accepted": len(source.records) - len(rejected),
            "rejected": len(rejected),
            "not_images": source.not_images,
        },
        "rejected": [asdict(item) | {"class": source.classes[item.label]} for item in rejected],
        "notes": [*plan.notes, *odd_note],
        "plan": plan.fingerprint,
        "files": {
            name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_file(folder / name)} for name in names
        },
    }
    fsync_folder(folder)
    write_json(folder / "meta.json", seal(meta))


def _save_array(path: Path, array: NDArray[Any]) -> None:
    write_atomic(path, lambda file: np.save(file, array))


def _save_lines(path: Path, lines: Sequence[str]) -> None:
    write_atomic(path, lambda file: file.writelines(f"{line}\n".encode() for line in lines))
