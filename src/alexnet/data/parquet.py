"""Sets of the `datasets` library of Hugging Face: Parquet files whose rows hold an encoded image and its label.

Which columns these are, and the names of the classes, stand in the metadata of the schema, under ``huggingface``; files without
it are understood by the names of their columns. Rows stay where they are: an image is read, with its neighbors, when it is
asked for.
"""

from __future__ import annotations

import json
import os
import re
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from alexnet.core.errors import AlexNetError, DataError, ImageError, in_short, printable
from alexnet.data.columns import choose_columns, set_of_rows
from alexnet.data.decode import MAX_FILE_BYTES, file_stamp
from alexnet.data.folder import Found, Listing, has_image_suffix, notes_on_skipped
from alexnet.data.layout import splits_of
from alexnet.data.sources import MAX_IMAGES, Record, Source, SplitName, fingerprint_of

SUFFIX = ".parquet"
_BATCH_BYTES, _BATCH_ROWS = 4 << 20, 64
"""Rows are read in batches of about so many bytes, and at most so many rows."""
_KEPT_BATCHES = 3
"""Batches that are kept: threads do not ask in exact order."""


def parquet_files(listing: Listing) -> list[Found]:
    """The Parquet files of a folder that holds no images as files; else none."""
    found = [file for file in listing.files if file.name.lower().endswith(SUFFIX)]
    return [] if any(map(has_image_suffix, listing.files)) else found


def parquet_set(found: Sequence[Found], where: str, seed: int = 0, listing: Listing | None = None) -> Source:
    """The images of Parquet files, in the order of the files and their rows. The names of the files say which splits they are of
    (``train-00000-of-00002.parquet``, ``data/validation/0000.parquet``); where none says it, a fifth is held out. Rows without a
    label are not used. Raises :class:`DataError` for files that are no such set."""
    files = [_open(file) for file in sorted(found, key=lambda file: file.name)]
    if (total := sum(file.num for file in files)) > MAX_IMAGES:
        raise DataError(f"{where}: {total:,} rows; a set of Parquet files has at most {MAX_IMAGES:,}")
    names = next((file.names for file in files if file.names is not None), None)
    for file in files:
        if file.names != names:
            raise DataError(f"{printable(file.path)}: other names of classes than in {printable(files[0].path)}")
        if file.label is None:
            columns = ", ".join(map(printable, file.columns[:8]))
            raise DataError(f"{printable(file.path)}: no column of labels among {columns}; call it label")
    split_of = _splits([file.name for file in files], where)
    tables = [(file, split_of[file.name], _labels(file)) for file in files]
    fingerprint = fingerprint_of("parquet", seed, *(f"{file.name} {file.stamp}" for file in files))
    source = set_of_rows(tables, names, fingerprint, where, seed)
    if listing is None:
        return source
    notes = [*notes_on_skipped(listing, len(listing.twins)), *source.notes]
    return replace(source, notes=notes, not_images=len(listing.files) - len(files))


def parquet_records(found: Sequence[Found]) -> list[Record]:
    """A record of every row, whatever its label."""
    files = [_open(file) for file in sorted(found, key=lambda file: file.name)]
    return [file.record(i, "train", 0) for file in files for i in range(file.num)]


def require_pyarrow() -> Any:
    """``pyarrow.parquet``. :class:`AlexNetError` where it is not installed."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise AlexNetError('Parquet files are read with pyarrow: pip install "alexnet[parquet]"') from None
    return pyarrow.parquet


# --- one file ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _File:
    name: str
    path: str
    stamp: str
    columns: Sequence[str]
    num: int
    label: str | None
    names: tuple[str, ...] | None
    """Names of the classes, where the labels are places in them."""
    images: _Rows

    def record(self, row: int, split: SplitName, label: int) -> Record:
        name = f"{self.name}/{row:06d}"
        return Record(split, label, name, self.path, row, None, stamp=self.stamp, inside=self.images)


class _Rows:
    """The images of one file. Each process opens it for itself; threads take turns."""

    def __init__(self, path: str, stamp: str, leaf: str) -> None:
        self._path, self._stamp, self._leaf = path, stamp, leaf
        self._start_as(os.getpid())

    def _start_as(self, process: int) -> None:
        self._process, self._lock = process, threading.Lock()
        self._file: Any = None
        self._batches: deque[tuple[int, Any]] = deque(maxlen=_KEPT_BATCHES)
        self._ahead: Iterator[Any] = iter(())
        self._next = self._end = 0

    def read(self, offset: int, length: int | None, name: str) -> bytes:
        """The image in row ``offset``."""
        if self._process != os.getpid():
            self._start_as(os.getpid())
        with self._lock:
            try:
                value = self._value(offset, name)
                size = 0 if value.as_buffer() is None else value.as_buffer().size
                if size > MAX_FILE_BYTES:
                    raise ImageError(name, "too large", f"{size:,} bytes; at most {MAX_FILE_BYTES:,}")
                data = value.as_py()
            except ImageError:
                raise
            except Exception as error:  # whatever a damaged page raises
                self._start_as(os.getpid())
                raise ImageError(name, "damaged", in_short(error)) from error
        if data is None:
            raise ImageError(name, "missing", "the row has no image, perhaps the path of one alone")
        return bytes(data)

    def _value(self, row: int, name: str) -> Any:
        if self._file is None:
            self._file = require_pyarrow().ParquetFile(self._path, pre_buffer=False)
        while True:
            for first, batch in self._batches:
                if first <= row < first + len(batch):
                    return batch[row - first]
            if not self._next <= row < self._end:
                if file_stamp(os.stat(self._path)) != self._stamp:  # noqa: PTH116
                    changed = f"{printable(self._path)} changed since it was listed; run the command again"
                    raise ImageError(name, "damaged", changed)
                self._go_to(row)
            column = next(self._ahead).column(0)
            batch = column if column.type.num_fields == 0 else column.field(0)
            self._batches.append((self._next, batch))
            self._next += len(batch)

    def _go_to(self, row: int) -> None:
        """Begin with the group of rows that holds this one."""
        groups = [self._file.metadata.row_group(i) for i in range(self._file.num_row_groups)]
        starts = [0]
        for group in groups:
            starts.append(starts[-1] + group.num_rows)
        i = bisect_right(starts, row) - 1
        average = max(1, groups[i].total_byte_size // max(1, groups[i].num_rows))
        rows = min(_BATCH_ROWS, max(1, _BATCH_BYTES // average))
        self._next, self._end = starts[i], starts[i + 1]
        self._ahead = self._file.iter_batches(rows, row_groups=[i], columns=[self._leaf], use_threads=False)


def _open(found: Found) -> _File:
    pyarrow = require_pyarrow()
    try:
        with pyarrow.ParquetFile(found.file, pre_buffer=False) as file:
            schema, num = file.schema_arrow, file.metadata.num_rows
    except Exception as error:  # of a damaged file: many kinds
        said = in_short(error)
        raise DataError(f"{printable(found.file)}: not a readable Parquet file ({said}); get it again") from error
    if not 0 <= num <= MAX_IMAGES:
        raise DataError(f"{printable(found.file)}: {num:,} rows; a set of Parquet files has at most {MAX_IMAGES:,}")
    features, names = _features(schema.metadata), list(schema.names)
    leaves = {name: leaf for name in names if (leaf := _leaf(schema.field(name)))}
    try:
        columns = choose_columns(names, features, list(leaves))
    except ValueError as error:
        raise DataError(f"{printable(found.file)}: {error}; get it again") from error
    if columns.image is None:
        shown = ", ".join(map(printable, names[:8]))
        raise DataError(
            f"{printable(found.file)}: no column of images (encoded, as bytes) among {shown}; call it image"
        )
    rows = _Rows(found.file, found.stamp, leaves[columns.image])
    return _File(found.name, found.file, found.stamp, names, num, columns.label, columns.names, rows)


def _features(metadata: Mapping[bytes, bytes] | None) -> dict[str, dict[str, Any]]:
    """What the `datasets` library wrote of the columns; empty where it did not write the file."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return {}
    found = features.items() if isinstance(features, dict) else ()
    return {name: feature for name, feature in found if isinstance(feature, dict)}


def _leaf(field: Any) -> str:
    """The column of bytes in a column of images: itself, or that of a struct; empty for another column."""
    import pyarrow

    def is_bytes(kind: Any) -> bool:
        return bool(pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))

    if is_bytes(field.type):
        return str(field.name)
    if pyarrow.types.is_struct(field.type) and any(
        inner.name == "bytes" and is_bytes(inner.type) for inner in field.type
    ):
        return f"{field.name}.bytes"
    return ""


# --- all files --------------------------------------------------------------------------------------------------------


def _labels(file: _File) -> Iterator[Any]:
    """The label of each row. Words come as places in a list of words, so that each is in memory once."""
    try:
        with require_pyarrow().ParquetFile(file.path, pre_buffer=False, read_dictionary=[file.label]) as opened:
            for batch in opened.iter_batches(65536, columns=[file.label], use_threads=False):
                column = batch.column(0)
                if (words := getattr(column, "dictionary", None)) is None:
                    yield from column.to_pylist()
                else:
                    words = words.to_pylist()
                    yield from (None if i is None else words[i] for i in column.indices.to_pylist())
    except Exception as error:  # of a damaged page
        said = in_short(error)
        raise DataError(f"{printable(file.path)}: its labels cannot be read ({said}); get it again") from error


def _splits(names: Sequence[str], where: str) -> dict[str, SplitName]:
    """The split that each file's name, or that of a folder around it, says; ``train`` for all where none does."""
    words_of = {}
    for name in names:
        path = PurePosixPath(name)
        stem = re.sub(r"[-_.]?\d+(-of-\d+)?([-_.].*)?$", "", path.stem)
        words_of[name] = [stem, stem.split("-")[0], *reversed(path.parts[:-1])]
    known = splits_of({word for words in words_of.values() for word in words if word})
    found = {name: next((known[word] for word in words if word in known), None) for name, words in words_of.items()}
    said = {name: split for name, split in found.items() if split is not None}
    if not said:
        return dict.fromkeys(names, "train")
    if silent := [name for name in names if found[name] is None]:
        raise DataError(
            f"{where}: {printable(silent[0])} does not say which split it is of, as {printable(next(iter(said)))} does; put "
            "train, validation or test in front of its name"
        )
    return said
