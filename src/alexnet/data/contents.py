"""What images consist of, by the CRC-32 of their bytes: whether two files, or two folders, hold the same.

CRC-32 are remembered in the cache by path, size and times of the file, so a file that nobody touched is read once.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from alexnet.core.device import usable_cores
from alexnet.core.errors import AlexNetError, ImageError
from alexnet.core.runs import cache_folder, read_array, read_file, writable_cache, write_atomic
from alexnet.data.decode import file_stamp

if TYPE_CHECKING:
    from alexnet.data.sources import Record

UNREADABLE = -1
MEMORY = "contents.npy"
"""File in the cache folder that holds what is remembered, sorted by key."""
REMEMBER_FROM = 500
"""Fewest files whose contents are worth remembering: fewer are read again faster than their CRC-32 are written down."""
MAX_REMEMBERED = 4_000_000
"""Files that are remembered at most: those that were read last."""
SETTLED_NS = 2_000_000_000
"""A file that changed less than this long ago is not remembered: it may change again and keep the same time."""
_ROW = np.dtype([("key", "<u8"), ("crc32", "<u4")])


def crc32_of(data: bytes | NDArray[np.uint8]) -> int:
    return zlib.crc32(data if isinstance(data, bytes) else np.ascontiguousarray(data).data)


def crc32s(records: Sequence[Record], progress: Callable[[int, int], object] | None = None) -> NDArray[np.int64]:
    """The CRC-32 of the bytes of each record, :data:`UNREADABLE` where there are none. Files that are not remembered are
    read; ``progress(done, total)`` counts those."""
    key_N = _keys(records)
    crc32_N = _recall(key_N)
    todo_M = np.flatnonzero(crc32_N == UNREADABLE)

    def read(i: int) -> int:
        try:
            return crc32_of(records[i].read())
        except ImageError:
            return UNREADABLE

    with ThreadPoolExecutor(usable_cores()) as threads:
        for done, (i, crc32) in enumerate(zip(todo_M, threads.map(read, todo_M.tolist()), strict=True), start=1):
            crc32_N[i] = crc32
            if progress and (done % 100 == 0 or done == len(todo_M)):
                progress(done, len(todo_M))
    if len(todo_M) >= REMEMBER_FROM:
        _remember(key_N[todo_M], crc32_N[todo_M])
    return crc32_N


def remember(records: Sequence[Record], crc32_N: NDArray[np.int64]) -> None:
    """Write down what was found when the records were read for something else."""
    if len(records) >= REMEMBER_FROM:
        _remember(_keys(records), crc32_N)


def same_bytes(records: Sequence[Record]) -> list[list[Record]]:
    """Groups of records with the same bytes, by size and CRC-32. Only files whose size another file
    has are read, and those whose size is not known."""
    of_size: dict[int | None, list[Record]] = defaultdict(list)
    for record in records:
        of_size[record.size].append(record)
    alike = [record for group in of_size.values() if len(group) > 1 for record in group]
    groups: dict[tuple[int | None, int], list[Record]] = defaultdict(list)
    for record, crc32 in zip(alike, crc32s(alike).tolist(), strict=True):
        if crc32 != UNREADABLE:
            groups[record.size, crc32].append(record)
    return [group for group in groups.values() if len(group) > 1]


def _keys(records: Sequence[Record]) -> NDArray[np.uint64]:
    """The keys under which the CRC-32 of the records are remembered; 0 for those that are not: images in memory, and files that
    are gone, have just changed, or have changed since they were listed."""
    settled = time.time_ns() - SETTLED_NS
    statuses: dict[str, str] = {}
    key_N = np.zeros(len(records), np.uint64)
    for i, record in enumerate(records):
        if record.data is not None:
            continue
        if record.file not in statuses:
            statuses[record.file] = ""
            with suppress(OSError, ValueError):
                status = os.stat(record.file)  # noqa: PTH116  # of a million files
                if status.st_ctime_ns < settled and record.stamp in ("", file_stamp(status)):
                    times = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
                    statuses[record.file] = f"{os.path.abspath(record.file)}\0{times}"  # noqa: PTH100
        if status_of := statuses[record.file]:
            text = f"{status_of}\0{record.offset} {record.length}".encode("utf-8", "surrogatepass")
            key_N[i] = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) or 1
    return key_N


def _recall(key_N: NDArray[np.uint64]) -> NDArray[np.int64]:
    crc32_N = np.full(len(key_N), UNREADABLE)
    rows = _remembered()
    if len(rows) and len(key_N):
        at_N = np.searchsorted(rows["key"], key_N).clip(max=len(rows) - 1)
        known_N = (rows["key"][at_N] == key_N) & (key_N != 0)
        crc32_N[known_N] = rows["crc32"][at_N[known_N]]
    return crc32_N


def _remember(key_N: NDArray[np.uint64], crc32_N: NDArray[np.int64]) -> None:
    """Add these CRC-32 to what is remembered; do nothing where the cache cannot be written."""
    good_N = (key_N != 0) & (crc32_N != UNREADABLE)
    if not good_N.any():
        return
    rows = np.zeros(int(good_N.sum()), _ROW)
    rows["key"], rows["crc32"] = key_N[good_N], crc32_N[good_N]
    rows = np.concatenate([rows, _remembered()])  # the first of a key is kept
    rows = (
        rows[np.unique(rows["key"], return_index=True)[1]]
        if len(rows) <= MAX_REMEMBERED
        else np.sort(rows[: good_N.sum()])
    )
    with suppress(AlexNetError, OSError):
        write_atomic(writable_cache("a list of files") / MEMORY, lambda file: np.save(file, rows))


def _remembered() -> NDArray[np.void]:
    try:
        path: Path = cache_folder() / MEMORY
        rows = read_array(io.BytesIO(read_file(path, 2 * MAX_REMEMBERED * _ROW.itemsize)), path)
    except AlexNetError:  # nothing was written yet, or it was cut
        return np.zeros(0, _ROW)
    return rows if rows.dtype == _ROW and rows.ndim == 1 else np.zeros(0, _ROW)
