"""Sets that are objects of Python: a `Dataset` or `DatasetDict` of the `datasets` library, or rows of the same form, such as a
list of ``{"image": ..., "label": ...}``. The library is not imported.
"""

from __future__ import annotations

import hashlib
import operator
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from alexnet.core.errors import DataError, ImageError, in_short, printable
from alexnet.data.columns import IMAGES, LABELS, choose_columns, set_of_rows
from alexnet.data.decode import MAX_FILE_BYTES, read_image_file
from alexnet.data.layout import splits_of
from alexnet.data.pictures import pictures
from alexnet.data.sources import MAX_IMAGES, Record, Source, SplitName, fingerprint_of


class Rows(Protocol):
    """What has a length and gives row ``i`` as a mapping with an image and a label; or a mapping from names of splits to
    such."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: Any, /) -> Any: ...


def row_set(given: Rows, seed: int = 0) -> Source:
    """The images and labels of rows. A mapping has a split for each of its names (train, validation, test, ...); else, and where
    it names train alone, a fifth is held out.

    An image is encoded (bytes, or the path of a file), a picture of Pillow, an array or a tensor, as
    :func:`~alexnet.data.pictures.pictures` takes them. Labels are whole numbers or names; those of a `ClassLabel` have its names.
    Transforms and formats of a `Dataset` are not applied. Rows are asked for by forked processes, one at a time in each.

    Raises :class:`DataError` for rows that are no such set, :class:`TypeError` for another object."""
    tables = {name: _table(name, rows) for name, rows in _splits(given).items()}
    split_of = splits_of({name for name in tables if name})
    for name in tables:
        if name and name not in split_of:
            raise DataError(f"split {printable(name)} is not train, validation or test; name it so, or leave it out")
    first = next(iter(tables.values()))
    for table in tables.values():
        if table.names != first.names:
            raise DataError(f"{printable(table.path)}: other names of classes than in {printable(first.path)}")
    if (total := sum(len(table.rows) for table in tables.values())) > MAX_IMAGES:
        raise DataError(f"{total:,} rows; a set has at most {MAX_IMAGES:,}")
    split: list[tuple[_Table, SplitName, list[Any]]] = [
        (table, split_of[name] if name else "train", table.labels()) for name, table in tables.items()
    ]
    fingerprint = fingerprint_of("rows", seed, *(f"{name} {table.fingerprint()}" for name, table in tables.items()))
    return set_of_rows(split, first.names, fingerprint, "the rows", seed)


def _splits(given: Any) -> Mapping[str, Any]:
    """The rows of each split; of one without a name, that is empty."""
    splits = given if isinstance(given, Mapping) else {"": given}
    for rows in splits.values():
        if hasattr(rows, "features") and not hasattr(rows, "__len__"):
            raise TypeError("a stream of the datasets library has no numbered rows; load it without streaming=True")
        if isinstance(rows, str | bytes) or not (hasattr(rows, "__len__") and hasattr(rows, "__getitem__")):
            raise TypeError(
                f"{type(rows).__name__} is no set; a set is a path, a name, a Dataset of the datasets library, or a list of rows "
                'like {"image": picture, "label": 0}'
            )
    if not splits or not any(len(rows) for rows in splits.values()):
        raise DataError("the set has no rows")
    return {str(name): rows for name, rows in splits.items() if len(rows)}


@dataclass(frozen=True, eq=False)
class _Table:
    name: str
    rows: Any
    image: str
    label: str
    names: tuple[str, ...] | None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def path(self) -> str:
        return self.name or "the rows"

    def record(self, row: int, split: SplitName, label: int) -> Record:
        name = f"{self.name}/{row:06d}" if self.name else f"{row:06d}"
        return Record(split, label, name, offset=row, inside=self)

    def read(self, offset: int, length: int | None, name: str) -> bytes | NDArray[np.uint8]:
        """The image in row ``offset``."""
        try:
            with self.lock:
                value = self.rows[offset][self.image]
        except Exception as error:  # whatever the object raises
            raise ImageError(name, "damaged", in_short(error)) from error
        return _content(value, name)

    def labels(self) -> list[Any]:
        """The label of each row; whole numbers of any kind as those of Python."""
        if hasattr(self.rows, "features"):
            return [_plain(value) for value in self.rows[self.label]]
        return [_plain(self._label(i)) for i in range(len(self.rows))]

    def _label(self, i: int) -> Any:
        row = self.rows[i]
        if isinstance(row, Mapping) and {self.image, self.label} <= row.keys():
            return row[self.label]
        raise DataError(f"{self.path}, row {i}: {_described(row)}; every row must have {self.image} and {self.label}")

    def fingerprint(self) -> str:
        """What the library says of the rows, or else a hash of all images."""
        known = getattr(self.rows, "_fingerprint", None)  # documented, in spite of its name
        if isinstance(known, str):
            return known
        digest = hashlib.sha256()
        for i in range(len(self.rows)):
            try:
                data = self.read(i, None, "")
                digest.update(f"{len(data)} {getattr(data, 'shape', '')}".encode())
                digest.update(data if isinstance(data, bytes) else np.ascontiguousarray(data).data)
            except ImageError as error:
                digest.update(error.reason.encode())
        return digest.hexdigest()


def _table(name: str, rows: Any) -> _Table:
    where = name or "the rows"
    features: dict[str, dict[str, Any]] = {}
    if hasattr(rows, "features") and hasattr(rows, "cast_column"):
        rows = rows.with_format(None)
        keys = list(rows.features)
        features = {
            key: {"_type": type(kind).__name__, "names": getattr(kind, "names", None)}
            for key, kind in rows.features.items()
        }
    else:
        first = rows[0]
        if not isinstance(first, Mapping):
            raise DataError(f'{where}, row 0: {_described(first)}; a row is like {{"image": picture, "label": 0}}')
        keys = list(first)
    columns = choose_columns(keys, features, [key for key in keys if key not in LABELS])
    image, label = columns.image, columns.label
    if image is None or label is None:
        shown = ", ".join(map(printable, keys[:8]))
        what, usual = ("images", IMAGES[0]) if image is None else ("labels", LABELS[0])
        raise DataError(f"{where}: no column of {what} among {shown}; call it {usual}")
    if features and features[image]["_type"] == "Image":  # as it is stored, for our own decoder
        rows = rows.cast_column(image, replace(rows.features[image], decode=False))
    return _Table(name, rows, image, label, columns.names)


def _described(row: Any) -> str:
    if isinstance(row, Mapping):
        return f"a row with {', '.join(map(printable, list(row)[:8])) or 'nothing'}"
    return f"a row that is {type(row).__name__}"


def _plain(label: Any) -> Any:
    if not isinstance(label, str):
        with suppress(TypeError):
            return operator.index(label)
    return label


def _content(value: Any, name: str) -> bytes | NDArray[np.uint8]:
    """An encoded image, or pixels (H, W, 3)."""
    if isinstance(value, Mapping):  # of the library: encoded, or where it lies
        data = value.get("bytes")
        value = value.get("path") if data is None else data
    if value is None:
        raise ImageError(name, "missing", "the row has no image")
    if isinstance(value, str | os.PathLike):
        return read_image_file(os.fspath(value), name)
    if isinstance(value, bytes | bytearray | memoryview):
        if len(value) > MAX_FILE_BYTES:
            raise ImageError(name, "too large", f"{len(value):,} bytes; at most {MAX_FILE_BYTES:,}")
        return bytes(value)
    try:
        found = [np.asarray(picture.decode()) for picture in pictures([value])]
    except ImageError as error:
        raise ImageError(name, error.reason, error.detail) from error
    except (TypeError, ValueError) as error:
        raise ImageError(name, "not an image", in_short(error)) from error
    if len(found) != 1:
        raise ImageError(name, "not an image", f"{len(found)} pictures in one row")
    return found[0]
