"""Decode a source once into a packed set: in parallel, resumable, with mean image and color covariance in the same
pass.

The images of a split are cut into shards of fixed size. A worker decodes a shard, writes its pixels at their final
place, then a small journal file: a journal that is there is a shard that is done. The result does not depend on the
number of workers or on interruptions, byte for byte. A rejected image leaves a hole; in the end the last images of the
split move into the holes, in order, which can be repeated without harm until the file is cut to its length.

Of N parts, on as many hosts, each does every N-th shard and writes its pixels to a file of its own: two hosts that write to
one file over a network spoil each other's pages. Whoever finds all journals there brings the pixels to their place.
"""

# Shape suffixes: N images of a split or shard, S rows and columns, P pixels, C channels.

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
import shlex
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import features

from alexnet.core.errors import AlexNetError, DataError, ImageError, UsageError, printable, refused
from alexnet.core.parts import Part, Work, locked, parts_begun
from alexnet.core.runs import (
    cache_folder,
    fsync_folder,
    writable_cache,
    write_atomic,
    write_json,
)
from alexnet.data import pixels
from alexnet.data.cache import USED, contents_of, find_set, note_use, same_contents, shape_of
from alexnet.data.contents import remember
from alexnet.data.decode import largest_sample
from alexnet.data.named import find_pictures, find_source
from alexnet.data.packed import (
    AGAIN,
    FORMAT,
    HEADER_BYTES,
    SEAL,
    UNFINISHED,
    VERSION,
    PackedSet,
    is_packed,
    open_packed,
    seal,
)
from alexnet.data.pool import in_processes
from alexnet.data.rows import Rows
from alexnet.data.samples import Range, SampleMax, sample_max_fault
from alexnet.data.shards import (
    JPEG_QUALITY,
    Journal,
    Rejected,
    Shard,
    Store,
    pack_shard,
    read_journal,
    records_path,
    write_pixels,
)
from alexnet.data.sources import SPLITS, Record, Source, class_faults, class_notes, fingerprint_of

Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""

SIZE = 256
"""Side of a packed photograph where nothing else is said (§2)."""
COMPILE_FROM = 500
"""Number of images from which compiling the resizing pays: it takes half a second once, and saves a millisecond an image."""
SHARD_IMAGES = 256
SHARDS = 32
"""Fewest shards into which each part of a large enough source is cut. With fewer, some workers would wait at the end while
others have a whole shard to do."""
SHARD_BYTES = 128 << 20
"""Limit of the pixels of a shard, which a worker holds in memory."""

_NOTHING: NDArray[Any] = np.zeros(0)


def prepare(
    source: str | Path | Source | Rows,
    packed: str | Path,
    *,
    size: int | None = None,
    store: Store = "pixels",
    data_root: str | Path | None = None,
    workers: int | None = None,
    seed: int = 0,
    max_bad: float | None = None,
    sample_max: SampleMax = None,
    training: bool = True,
    progress: Progress | None = None,
) -> PackedSet:
    """Decode ``source`` into the folder ``packed``, and open it: a path, the name of a set, or rows with an image and a label, as
    a `Dataset` or `DatasetDict` of the `datasets` library has them (:func:`~alexnet.data.rows.row_set`).

    ``size``: side of the stored squares; None for 256, or for the size at which an IDX or CIFAR set comes. ``store``:
    pixels, or JPEG records for sets beyond the disk. ``seed`` decides which images are held out where the source does
    not say. ``max_bad``: how many unreadable images to put up with, a count, or a fraction if below 1; None for 0.1 %
    of all (at least 10) and 10 % of each class. ``sample_max``: the sample that becomes white in files of more than 8 bits, or
    "set" for the largest of the training images; None for the largest that each file allows. Without ``training``, the set need
    not be one that can be learned from: it may lack images of a class, or hold a single class.

    Interrupted, the same call goes on where it stopped; on a finished set of the same source it returns that. A folder begun
    by :func:`prepare_part` is joined. Raises :class:`DataError` for a source that cannot be used, :class:`UsageError` for
    a folder that holds something else, and :class:`AlexNetError` naming parts that are not done.
    """
    listing = source if isinstance(source, Source) else find_source(source, data_root=data_root, seed=seed)
    folder = Path(packed)
    white = white_of_set(listing, sample_max, workers)
    job = _job(listing, size, store, parts_begun(folder / UNFINISHED) or 1, white, training=training)
    with _reported(folder, job), _finishing(folder, job) as finished:
        if not finished and job.parts == 1:
            hashes = _RunningHashes(folder, job, _work(folder, job).done())
            for shard in _pack_shards(folder, job, job.shards, workers, progress):
                hashes.add(shard)
            _finish(folder, job, max_bad, hashes.digests())
        elif not finished:
            _work(folder, job).require_done(folder, "prepare")
            _finish(folder, job, max_bad, _gather(folder, job, progress))
    return _finished(folder, job)


def prepare_part(
    source: str | Path | Source | Rows,
    packed: str | Path,
    part: Part,
    *,
    size: int | None = None,
    store: Store = "pixels",
    data_root: str | Path | None = None,
    workers: int | None = None,
    seed: int = 0,
    max_bad: float | None = None,
    sample_max: SampleMax = None,
    progress: Progress | None = None,
) -> list[Part]:
    """One of several parts of :func:`prepare`: every N-th shard of ``source`` into the folder ``packed`` that all parts
    share. The last part to end joins them, to the bytes that one process would have written.

    Returns the parts that are not done yet; if there are none, the set is finished. Options and errors are those of
    :func:`prepare`, and the options must be the same for all parts. Interrupted, the same call goes on. Where another
    process does the same part, it is waited for. ``progress`` counts the images of this part, then those joined.
    """
    listing = source if isinstance(source, Source) else find_source(source, data_root=data_root, seed=seed)
    folder, white = Path(packed), white_of_set(listing, sample_max, workers)
    job = _job(listing, size, store, part.total, white)
    with _reported(folder, job):
        with _finishing(folder, job) as finished:
            pass
        if not finished and job.parts > 1:
            with locked(folder / UNFINISHED / f"part-{part.number}"):
                for _ in _pack_shards(folder, job, part.of(job.shards), workers, progress):
                    pass
            if left := _work(folder, job).left():
                return left
    prepare(
        listing,
        folder,
        size=size,
        store=store,
        workers=workers,
        max_bad=max_bad,
        sample_max=white,
        progress=progress,
    )
    return []


def resolve(
    data: str | Path,
    *,
    data_root: str | Path | None = None,
    cache: str | Path | None = None,
    size: int | None = None,
    workers: int | None = None,
    seed: int = 0,
    max_bad: float | None = None,
    sample_max: SampleMax = None,
    training: bool = True,
    labels: bool = True,
    progress: Progress | None = None,
) -> PackedSet:
    """Open ``data``: a packed folder, or a named set or anything else that :func:`prepare` takes, prepared once into a
    cache. Without ``labels``, pictures in a folder need not lie in class folders.

    Named sets are looked for in ``data_root``, ``$ALEXNET_DATA`` or ``./data``. The cache is ``cache``,
    :func:`~alexnet.core.runs.cache_folder`. A set in it is found by the names, sizes and times of the source's files or,
    where these are new, by their contents: a copy, a folder of another name, or a tar of it is not prepared again.
    """
    path = Path(data)
    if is_packed(path):
        opened = open_packed(path)
        if size is not None and opened.size != size:
            raise UsageError(
                f"{printable(path)}: packed at {opened.size} pixels, and this command asks for {size}; leave the size out, or "
                "prepare the set again"
            )
        if sample_max is not None and sample_max != "set":
            opened.require_sample_max(sample_max, printable(path))
        if (path / USED).exists():
            note_use(path)
        return opened
    began = time.time_ns()
    listing = (
        find_source(data, data_root=data_root, cache=cache, seed=seed)
        if labels
        else find_pictures(data, data_root=data_root, cache=cache)
    )
    white = white_of_set(listing, sample_max, workers)
    job = _job(listing, size, "pixels", white=white, training=training)
    try:  # a cache that may not be written can be read
        found = find_set(cache_folder(cache), job.fingerprint, job.shape, job.records, progress)
    except AlexNetError:
        found = None
    if found is not None:
        note_use(found, _place(data, listing))
        return replace(open_packed(found), source=str(data))
    instead = f", or prepare it (alexnet prepare {printable(data)} PACKED) and name the packed folder"
    parent = writable_cache(f"what is prepared of {printable(data)}", cache, instead)
    label = "".join(c if c.isalnum() or c == "-" else "-" for c in path.name or "set")[:40]
    name = f"{label}-{job.fingerprint[:16]}"
    if _is_finished(parent / name):  # damaged, or with other contents under the same names, sizes and times
        name = f"{name}-{began}"
    packed = prepare(
        listing,
        parent / name,
        size=size,
        workers=workers,
        seed=seed,
        max_bad=max_bad,
        sample_max=white,
        training=training,
        progress=progress,
    )
    note_use(packed.path, _place(data, listing), began)
    return replace(packed, source=str(data))


def _place(data: str | Path, listing: Source) -> str | Path | None:
    """Where a source is, by which the cache knows whether it is still there; a set that is built in has no place."""
    if Path(data).exists():
        return data
    files = [record.file for record in listing.records[:1] if record.file]
    return files[0] if files else None


def white_of_set(source: Source, sample_max: SampleMax, workers: int | None = None) -> int | None:
    """``sample_max``, or for "set" the largest sample of the training images of more than 8 bits; None if there are none.
    Raises :class:`UsageError`."""
    if (fault := sample_max_fault(sample_max)) is not None:
        raise UsageError(fault)
    if sample_max != "set":
        return sample_max
    records = [record for record in source.records if record.split == "train"] or source.records
    chunks = [records[i : i + SHARD_IMAGES] for i in range(0, len(records), SHARD_IMAGES)]
    return max((largest for _, largest in in_processes(_largest_sample, chunks, workers)), default=0) or None


def _largest_sample(records: Sequence[Record]) -> int:
    """The largest sample of the images of more than 8 bits that can be read; 0 if there are none."""
    largest = 0
    for record in records:
        with suppress(ImageError):
            data = record.read()
            if isinstance(data, bytes):
                largest = max(largest, largest_sample(data, record.name))
    return largest


# --- the job: everything that decides the result --------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    source: Source
    size: int
    store: Store
    parts: int
    protocol: dict[str, Any]
    shards: Sequence[Shard]
    notes: Sequence[str]
    fingerprint: str

    @cached_property
    def splits(self) -> dict[str, list[Record]]:
        """All records listed, by split."""
        splits: dict[str, list[Record]] = {}
        for shard in self.shards:
            splits.setdefault(shard.split, []).extend(shard.records)
        return splits

    @property
    def records(self) -> list[Record]:
        return [record for shard in self.shards for record in shard.records]

    @cached_property
    def shape(self) -> str:
        """A fingerprint without the times of files and without their bytes."""
        kind = json.dumps([VERSION, self.protocol, self.source.held_out])
        return shape_of(kind, self.source.classes, self.records)

    @property
    def image_bytes(self) -> int:
        return self.size**2 * self.source.channels

    @property
    def sample_max(self) -> int | None:
        """The sample that becomes white in files of more than 8 bits; None for the largest that each file allows."""
        return self.protocol.get("sample_max")

    @property
    def in_place(self) -> bool:
        """Whether workers write pixels where they will stay."""
        return self.store == "pixels" and self.parts == 1


def _job(
    source: Source,
    size: int | None,
    store: Store,
    parts: int = 1,
    white: int | None = None,
    *,
    training: bool = True,
) -> _Job:
    side = (source.size or SIZE) if size is None else size
    if not 1 <= side <= 4096:
        raise UsageError(f"size is {side}; the side of a packed image is 1 to 4096 pixels")
    for fault in class_faults(source, training=training):
        where = f"{printable(source.name)}: " if source.name else ""
        raise DataError(f"{where}{printable(fault.path)}: {fault.reason}")
    most, share = SHARD_BYTES // (side * side * source.channels), len(source.records) // (SHARDS * parts)
    shard_images = max(1, min(SHARD_IMAGES, most, share))
    shards = []
    for split in SPLITS:
        records = [record for record in source.records if record.split == split]
        shards += [Shard(split, i, records[i : i + shard_images]) for i in range(0, len(records), shard_images)]
    protocol = {
        "size": side,
        "channels": source.channels,
        "store": store if store == "pixels" else f"JPEG, quality {JPEG_QUALITY}",
        "resize": "short side to size, long side in proportion, rounded down",
        "resampling": "Pillow bilinear, antialiased",
        "crop": "center square, offsets rounded down",
        "decoder": decoder_versions(),
    }
    if white is not None:
        protocol["sample_max"] = white
    names = (f"{record.split} {record.label} {record.name}" for record in source.records)
    fingerprint = fingerprint_of(VERSION, json.dumps(protocol), *source.classes, source.fingerprint, *names)
    return _Job(source, side, store, parts, protocol, shards, [*source.notes, *class_notes(source)], fingerprint)


def decoder_versions() -> dict[str, Any]:
    """Versions of the libraries that decide the pixels of a set."""
    libraries = ("libjpeg_turbo", "zlib", "webp", "libtiff")
    return {"pillow": PIL.__version__, **{name: features.version(name) for name in libraries}}


# --- states of the packed folder ------------------------------------------------------------------------------------


@contextmanager
def _finishing(folder: Path, job: _Job) -> Iterator[bool]:
    """The folder begun, and held by this process alone; another waits. Gives whether the set is finished."""
    found = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    if "meta.json" in found:
        yield True
        return
    if found and UNFINISHED not in found:
        raise _foreign(folder)
    (folder / UNFINISHED).mkdir(parents=True, exist_ok=True)
    with locked(folder / UNFINISHED / "whole"):
        finished = _is_finished(folder)  # the process that was waited for may have done it
        if not finished:
            _begin(folder, job)
        yield finished


def _foreign(folder: Path) -> UsageError:
    return UsageError(f"{printable(folder)}: neither empty nor a packed set; choose another folder")


def _is_finished(folder: Path) -> bool:
    return (folder / "meta.json").exists()


def _work(folder: Path, job: _Job) -> Work:
    pieces = {shard.name: len(shard.records) for shard in job.shards}
    return Work(folder / UNFINISHED, pieces, job.parts, job.fingerprint, lambda: _is_finished(folder))


def _begin(folder: Path, job: _Job) -> None:
    for leftover in folder.glob(".*.tmp-*"):  # left by a write that was killed
        leftover.unlink()
    if parts_begun(folder / UNFINISHED) is None and any(entry.name != UNFINISHED for entry in folder.iterdir()):
        raise _foreign(folder)
    other = "begun with another source or other settings, or the source has changed since; remove this folder to prepare from"
    _work(folder, job).begin(folder, DataError(f"{printable(folder)}: {other} the start"))
    if job.store == "pixels":
        files = [*folder.glob("*.images.npy"), *(folder / UNFINISHED).glob("*.bin")]
        written = sum(path.stat().st_blocks * 512 for path in files)
        needed, free = sum(_file_sizes(job).values()) - written, shutil.disk_usage(folder).free
        if needed > free:
            raise AlexNetError(
                f"no space left in {printable(folder)}: needs {needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB free; "
                "make room, or name a folder elsewhere ($ALEXNET_CACHE is that of what train and others prepare)"
            )
    if job.in_place:
        _make_files(folder, job)


def _file_sizes(job: _Job) -> dict[str, int]:
    return {split: HEADER_BYTES + len(records) * job.image_bytes for split, records in job.splits.items()}


def _make_files(folder: Path, job: _Job) -> None:
    """The files of pixels, empty, of full length: they take room as they are filled."""
    for split, size in _file_sizes(job).items():
        if not (images := folder / f"{split}.images.npy").exists():
            with open(images, "wb") as file:
                file.truncate(size)


def _finished(folder: Path, job: _Job) -> PackedSet:
    packed = open_packed(folder)
    if packed.meta.get("plan") != job.fingerprint and not same_contents(packed.meta, job.shape, job.records):
        raise UsageError(
            f"{printable(folder)}: holds a set prepared from another source or with other settings, or the source has changed "
            "since; choose another folder, or remove this one"
        )
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
    return packed


@contextmanager
def _reported(folder: Path, job: _Job) -> Iterator[None]:
    """Failures of the disk in words."""
    try:
        yield
    except OSError as error:
        if not (isinstance(error, FileNotFoundError) and _is_finished(folder)):  # else another process was first
            raise _storage_error(error, folder, job) from error


def _storage_error(error: OSError, folder: Path, job: _Job) -> AlexNetError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        needed = len(job.source.records) * job.image_bytes
        free = shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free
        return AlexNetError(
            f"no space left in {printable(folder)}: the set takes up to {needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB free; "
            "make room and run the same command again, it goes on where it stopped"
        )
    return AlexNetError(refused(error, folder))


def _pack_shards(
    folder: Path, job: _Job, shards: Sequence[Shard], workers: int | None, progress: Progress | None
) -> Iterator[Shard]:
    """Pack those that are not packed yet; each when it is."""
    by_name = {shard.name: shard for shard in shards}
    names, ready = _work(folder, job).to_do(list(by_name), progress)
    todo = [by_name[name] for name in names]
    pack = partial(pack_shard, folder, job.size, job.source.channels, job.store, job.in_place, job.sample_max)
    if sum(len(shard.records) for shard in todo) >= COMPILE_FROM:
        pixels.KERNELS.available(build=True)
        pixels.KERNELS.tell_failure("resizing takes five times as long")
    for shard, _ in in_processes(pack, todo, workers):
        yield shard
        ready(shard.name)


def _gather(folder: Path, job: _Job, progress: Progress | None) -> dict[str, str]:
    """Bring the pixels that parts made to their place, shard by shard: they need not fit on the disk twice. Gives what
    :meth:`_RunningHashes.digests` does."""
    if job.store == "jpeg":
        return {}
    _make_files(folder, job)
    hashes, done = _RunningHashes(folder, job, set()), 0
    for shard in job.shards:
        part = records_path(folder, shard)
        if part.exists():  # else this was done before an interruption
            content = part.read_bytes()
            if len(content) != len(shard.records) * job.image_bytes:
                raise DataError(f"{printable(part)}: {len(content):,} bytes, not those of its images; {AGAIN}")
            write_pixels(folder, shard, job.image_bytes, content)
            part.unlink()
        hashes.add(shard)
        done += len(shard.records)
        if progress:
            progress(done, len(job.source.records))
    return hashes.digests()


class _RunningHashes:
    """SHA-256 of the files of pixels, by name, from the front as far as shards are packed: as it will be if no image is
    rejected."""

    def __init__(self, folder: Path, job: _Job, packed: set[str]) -> None:
        self.folder, self.job, self.packed = folder, job, packed
        self.waiting = deque(job.shards if job.store == "pixels" else ())
        self.hashes = {
            split: hashlib.sha256(_npy_header((len(records), job.size, job.size, job.source.channels)))
            for split, records in job.splits.items()
        }

    def add(self, shard: Shard) -> None:
        self.packed.add(shard.name)
        while self.waiting and self.waiting[0].name in self.packed:
            first = self.waiting.popleft()
            with open(self.folder / f"{first.split}.images.npy", "rb") as file:
                file.seek(HEADER_BYTES + first.first * self.job.image_bytes)
                self.hashes[first.split].update(file.read(len(first.records) * self.job.image_bytes))

    def digests(self) -> dict[str, str]:
        """The digests by file name; empty if not everything was added."""
        if self.waiting or self.job.store != "pixels":
            return {}
        return {f"{split}.images.npy": sha256.hexdigest() for split, sha256 in self.hashes.items()}


# --- the end: holes closed, statistics, meta.json -------------------------------------------------------------------


def _finish(folder: Path, job: _Job, max_bad: float | None, digests: Mapping[str, str]) -> None:
    journals: list[Journal] = []
    sum_SSC = np.zeros((job.size, job.size, job.source.channels), dtype=np.uint64)
    product_CC = np.zeros((job.source.channels, job.source.channels), dtype=np.uint64)
    for shard in job.shards:
        journal = read_journal(folder, shard)
        if shard.split == "train":
            sum_SSC += journal.sum_SSC
            product_CC += journal.product_CC
        journals.append(replace(journal, sum_SSC=_NOTHING, product_CC=_NOTHING))  # for ImageNet they are gigabytes
    rejected = [item for journal in journals for item in journal.rejected]
    _refuse_too_many(folder, job, rejected, max_bad)
    counts: dict[str, Any] = {}
    for split, records in job.splits.items():
        pairs = [(s, j) for s, j in zip(job.shards, journals, strict=True) if s.split == split]
        good_N = np.concatenate([journal.good_N for _, journal in pairs])
        crc32_N = np.concatenate([journal.crc32_N for _, journal in pairs])
        if job.store == "jpeg":
            row_N = np.flatnonzero(good_N)
            _join_records(folder, split, pairs)
        else:
            row_N = _rows_without_holes(good_N)
            _close_holes(folder / f"{split}.images.npy", row_N, job)
        label_N = np.array([records[i].label for i in row_N], dtype=np.int64)
        _save_array(folder / f"{split}.labels.npy", label_N)
        _save_array(folder / f"{split}.crc32.npy", crc32_N[row_N])
        _save_lines(folder / f"{split}.paths.jsonl", [json.dumps(records[i].name) for i in row_N])
        per_class = np.bincount(label_N, minlength=len(job.source.classes))
        counts[split] = {"images": len(row_N), "per_class": per_class.tolist()}
    if "train" in counts:
        _save_statistics(folder, counts["train"]["images"], sum_SSC, product_CC)
    known = {} if rejected else digests  # holes that were closed changed the files
    wide = sum((journal.wide for journal in journals), Range())
    source: dict[str, str] = {}
    if all(len(journal.source_N) for journal in journals):  # else an earlier version made a part
        source_N = np.concatenate([journal.source_N for journal in journals])
        source = {"shape": job.shape, "contents": contents_of(source_N.tolist())}
        remember(job.records, source_N)
    _write_meta(
        folder, job, counts, rejected, [remark for journal in journals for remark in journal.odd], wide, source, known
    )


def _refuse_too_many(folder: Path, job: _Job, rejected: list[Rejected], max_bad: float | None) -> None:
    total = len(job.source.records)
    limit = max(10, total // 1000)
    if max_bad is not None:
        limit = math.floor(max_bad * total if max_bad < 1 else max_bad)
    source = job.source
    named = "; ".join(map(str, rejected[:1])) + "".join(f"; {printable(r.path)}: {r.reason}" for r in rejected[1:3])
    named += "; ..." if len(rejected) > 3 else ""
    them = "it" if len(rejected) == 1 else "them"
    where = printable(source.name or folder)
    size = "" if job.size == (source.size or SIZE) else f" --size {job.size}"
    command = f"alexnet prepare {shlex.quote(source.name) if source.name else 'SOURCE'} PACKED{size} --max-bad {len(rejected)}"
    remedy = f"replace {them}, or leave {them} out with `{printable(command)}` and name PACKED as the data from then on"
    listed = Counter(record.label for record in source.records)
    good = Counter((record.split, record.label) for record in source.records)
    good.subtract(Counter((item.split, item.label) for item in rejected))
    for (split, label), count in sorted(good.items()):
        if count == 0:
            name = printable(source.classes[label])
            raise DataError(f"{where}: no {split} file of class {name} can be read ({named}); replace {them}")
    for label, bad in sorted(Counter(item.label for item in rejected).items()):
        if max_bad is None and bad > 0.1 * listed[label]:
            raise DataError(
                f"{where}: {bad} of the {listed[label]} files of class {printable(source.classes[label])} cannot be read, "
                f"more than 10 % ({named}); {remedy}"
            )
    if len(rejected) > limit:
        raise DataError(
            f"{where}: {len(rejected):,} of {total:,} files cannot be read, more than {limit:,} ({named}); {remedy}"
        )


def _rows_without_holes(good_N: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Which record is in each row of the finished file: its own, or in place of a rejected one the next of the last
    good."""
    n = int(good_N.sum())
    row_N = np.arange(n)
    row_N[~good_N[:n]] = n + np.flatnonzero(good_N[n:])
    return row_N


def _close_holes(path: Path, row_N: NDArray[np.int64], job: _Job) -> None:
    n = len(row_N)
    final = HEADER_BYTES + n * job.image_bytes
    with open(path, "r+b") as file:
        if path.stat().st_size > final:  # else this was done before an interruption
            for row in np.flatnonzero(row_N != np.arange(n)).tolist():
                file.seek(HEADER_BYTES + int(row_N[row]) * job.image_bytes)
                image = file.read(job.image_bytes)
                file.seek(HEADER_BYTES + row * job.image_bytes)
                file.write(image)
        file.seek(0)
        file.write(_npy_header((n, job.size, job.size, job.source.channels)))
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


def _join_records(folder: Path, split: str, pairs: Sequence[tuple[Shard, Journal]]) -> None:
    """Append the shards' JPEG records to one file, and remove each when it is in: they need not fit on the disk
    twice."""
    end = 0
    with open(folder / f"{split}.images.bin", "ab") as joined:
        size = joined.tell()
        for shard, journal in pairs:
            start, end = end, end + int(journal.length_N.sum())
            part = records_path(folder, shard)
            if size < end:  # not, or not wholly, appended before an interruption
                joined.truncate(start)
                joined.write(part.read_bytes())
                joined.flush()
                os.fsync(joined.fileno())
                size = end
            part.unlink(missing_ok=True)
    length_N = np.concatenate([journal.length_N[journal.good_N] for _, journal in pairs])
    _save_array(folder / f"{split}.offsets.npy", np.concatenate([[0], np.cumsum(length_N)]).astype(np.int64))


def _save_statistics(folder: Path, n: int, sum_SSC: NDArray[np.uint64], product_CC: NDArray[np.uint64]) -> None:
    size, _, channels = sum_SSC.shape
    _save_array(folder / "mean.npy", (sum_SSC / n).astype(np.float32))
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


def _write_meta(
    folder: Path,
    job: _Job,
    counts: dict[str, Any],
    rejected: list[Rejected],
    odd: list[str],
    wide: Range,
    contents: Mapping[str, str],
    digests: Mapping[str, str],
) -> None:
    source = job.source
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    odd_note = [f"{len(odd)} odd files: {'; '.join(printable(remark) for remark in odd[:3])}"] if odd else []
    meta = {
        "format": FORMAT,
        "version": VERSION,
        "complete": True,
        "classes": list(source.classes),
        "counts": counts,
        "size": job.size,
        "channels": source.channels,
        "store": job.store,
        "protocol": job.protocol,
        "found": {
            "files": len(source.records) + source.not_images,
            "accepted": len(source.records) - len(rejected),
            "rejected": len(rejected),
            "not_images": source.not_images,
        },
        "rejected": [asdict(item) | {"class": source.classes[item.label]} for item in rejected],
        "notes": [*wide.notes(job.sample_max), *job.notes, *odd_note],
        "held_out": source.held_out,
        "wide": asdict(wide),
        "plan": job.fingerprint,
        **({"source": dict(contents)} if contents else {}),
        "files": SEAL.list_files(folder, names, digests),
    }
    fsync_folder(folder)
    write_json(folder / "meta.json", seal(meta))


def _save_array(path: Path, array: NDArray[Any]) -> None:
    write_atomic(path, lambda file: np.save(file, array))


def _save_lines(path: Path, lines: Sequence[str]) -> None:
    write_atomic(path, lambda file: file.writelines(f"{line}\n".encode() for line in lines))
