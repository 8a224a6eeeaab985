"""What a set of images is before it is decoded: a list of records, whatever they were found in.

A kind of data set is a function that returns a :class:`Source`; the simplest, a CSV list, is here.
"""

from __future__ import annotations

import csv
import hashlib
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len, set_cell_size

from alexnet.core.errors import DataError, ImageError, printable
from alexnet.data.decode import MAX_FILE_BYTES, file_stamp, read_image_file

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""What the splits may be called in folders and lists."""

VAL_FRACTION = 0.2
"""Of each class, where a source does not say which images are held out."""

MAX_IMAGES = 2_000_000
"""Of a set whose images come as arrays: a small file can announce millions of empty ones."""


@dataclass(frozen=True, slots=True)
class Record:
    """One image and where its bytes are: a file, a part of a file (as in a tar), or memory."""

    split: Split
    label: int
    """Position in ``Source.classes``."""
    name: str
    """For people: the path relative to the source, parts joined by "/"."""
    file: str = ""
    offset: int = 0
    length: int | None = None
    """None: the whole file."""
    data: bytes | NDArray[np.uint8] | None = None
    """An encoded image, or pixels (H, W, C)."""
    stamp: str = ""
    """Size and modification time of the file (or tar) when it was listed. Another one in its place is refused."""

    def read(self) -> bytes | NDArray[np.uint8]:
        """The encoded image, or pixels. Raises :class:`ImageError`."""
        if self.data is not None:
            return self.data
        if self.length is None:
            return read_image_file(self.file, self.name, self.stamp)
        if self.length > MAX_FILE_BYTES:
            raise ImageError(self.name, "too large", f"{self.length:,} bytes; at most {MAX_FILE_BYTES:,}")
        try:
            with open(self.file, "rb") as file:
                if self.stamp and file_stamp(os.fstat(file.fileno())) != self.stamp:
                    changed = f"{printable(self.file)} changed since it was listed; run the command again"
                    raise ImageError(self.name, "damaged", changed)
                file.seek(self.offset)
                data = file.read(self.length)
        except FileNotFoundError:
            raise ImageError(self.name, "missing", f"{printable(self.file)}: no such file") from None
        except PermissionError:
            raise ImageError(self.name, "no permission", printable(self.file)) from None
        except OSError as error:
            raise ImageError(self.name, "damaged", printable(error)) from error
        if len(data) < self.length:
            raise ImageError(self.name, "truncated", f"{printable(self.file)} ends inside it")
        return data


@dataclass(frozen=True)
class Fault:
    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """A whole set: its classes in order, and a record for every image."""

    classes: Sequence[str]
    records: Sequence[Record]
    fingerprint: str
    """Changes when the source does: made of names, sizes and times of files, not of their contents."""
    size: int | None = None
    """Side of images that come at one size and are kept at it (MNIST, CIFAR-10); None for photographs."""
    channels: int = 3
    not_images: int = 0
    """Files found that do not claim to be images."""
    notes: Sequence[str] = ()
    """What people should know and nothing depends on."""
    faults: Sequence[Fault] = ()
    """Why it cannot be used as it is: class folders without images."""


def class_faults(source: Source) -> list[Fault]:
    """The source's own faults, and classes that cannot be learned."""
    faults = list(source.faults)
    if len(source.classes) < 2:
        faults.append(Fault(source.classes[0], "the only class; a classifier needs two or more"))
    labels = _labels_of_splits(source)
    if "train" in labels:
        faults += [
            Fault(name, "a class without training images; every class of the other splits needs some")
            for label, name in enumerate(source.classes)
            if label not in labels["train"]
        ]
    return faults


def class_notes(source: Source) -> list[str]:
    """What is odd about the classes, and harmless."""
    notes = [
        f"class {printable(name)} has no {split} images"
        for split, labels in _labels_of_splits(source).items()
        for label, name in enumerate(source.classes)
        if split != "train" and label not in labels
    ]
    folded = sorted((unicodedata.normalize("NFKC", name).casefold(), name) for name in source.classes)
    return notes + [
        f"classes {printable(a)} and {printable(b)} have names that differ by case or coding only"
        for (fold_a, a), (fold_b, b) in pairwise(folded)
        if fold_a == fold_b
    ]


def class_counts(source: Source) -> dict[Split, list[int]]:
    """How many images each class has in each split that there is."""
    counts: dict[Split, list[int]] = {}
    for record in source.records:
        counts.setdefault(record.split, [0] * len(source.classes))[record.label] += 1
    return {split: counts[split] for split in SPLITS if split in counts}


SHOWN_CLASSES = 4
"""From each end of the list of classes."""
_NAME_CELLS = 40


def class_lines(classes: Sequence[str], counts: Mapping[Split, Sequence[int]]) -> list[str]:
    """The first and last classes with their numbers of images, as lines of a table: what people look at before anything is
    learned."""
    shown = list(range(len(classes)))
    if len(classes) > 2 * SHOWN_CLASSES + 1:
        shown = [*shown[:SHOWN_CLASSES], *shown[-SHOWN_CLASSES:]]
    names = {i: printable(classes[i]) for i in shown}
    title, total = f"{len(classes):,} classes" if len(classes) != 1 else "1 class", "all images"
    cells = min(_NAME_CELLS, max(map(cell_len, (title, total, *(f"  {name}" for name in names.values())))))

    def line(name: str, values: Iterable[object]) -> str:
        name = name if cell_len(name) <= cells else set_cell_size(name, cells - 3).rstrip() + "..."
        return set_cell_size(name, cells) + "".join(f"{value:>10}" for value in values)

    lines = [line(title, counts)]
    for before, i in pairwise([-1, *shown]):
        if i != before + 1:
            lines.append(f"  ... {i - before - 1:,} more")
        lines.append(line(f"  {names[i]}", (f"{of_split[i]:,}" for of_split in counts.values())))
    return [*lines, line(total, (f"{sum(of_split):,}" for of_split in counts.values()))]


def _labels_of_splits(source: Source) -> dict[Split, set[int]]:
    labels: dict[Split, set[int]] = {}
    for record in source.records:
        labels.setdefault(record.split, set()).add(record.label)
    return labels


def split_by_hash(names: Sequence[str], seed: int, fraction: float) -> set[str]:
    """Which images of a class are held out: the ``fraction`` of them (rounded; at least one, but never all) whose hash
    of (seed, name) is smallest. Images that join or leave later move few of the others."""
    count = min(max(1, round(fraction * len(names))), len(names) - 1)
    return set(sorted(names, key=lambda name: _hash(f"{seed}/{name}"))[:count])


def hold_out(records: Sequence[Record], seed: int, fraction: float = VAL_FRACTION) -> list[Record]:
    """``records``, of each class the ``fraction`` by :func:`split_by_hash` moved from ``train`` to ``val``."""
    names: dict[int, list[str]] = defaultdict(list)
    for record in records:
        if record.split == "train":
            names[record.label].append(record.name)
    held = set().union(*(split_by_hash(of_class, seed, fraction) for of_class in names.values()))
    return [replace(r, split="val") if r.split == "train" and r.name in held else r for r in records]


HELD_OUT_NOTE = (
    f"nothing but training images: {VAL_FRACTION:.0%} of each class held out as val, by a hash of seed and name"
)


def csv_list(path: Path, seed: int = 0) -> Source:
    """A CSV list with the columns ``path``, ``label`` and, if there is one, ``split``.

    Paths are relative to the list's folder. Without a header line the columns stand in that order. Labels are names of
    classes, in the order of their text, or, if all are whole numbers, of their value. Any row that cannot be used is a
    :class:`DataError` with its row number: numbers and names among the labels, and two spellings of a number (1 and 01),
    too.
    """
    rows = _csv_rows(path)
    classes = _classes_of(path, rows)
    number = {name: label for label, name in enumerate(classes)}
    records: list[Record] = []
    stamps: list[str] = []
    first_row: dict[str, int] = {}
    for row, name, label, split in rows:
        where = f"{printable(path)}, row {row}"
        place = os.path.abspath(path.parent / name)  # noqa: PTH100  # a/../b is b, and ./b too
        if place in first_row:
            raise DataError(f"{where}: {printable(name)} is already in row {first_row[place]}; list each image once")
        first_row[place] = row
        try:
            file = path.parent / name
            stamp = file_stamp(file.stat())
        except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL byte in the name
            raise DataError(
                f"{where}: {printable(name)}: no such file; paths are relative to the folder of the list"
            ) from None
        except OSError as error:
            raise DataError(f"{where}: {printable(name)}: {error.strerror}") from None
        stamps.append(f"{row} {name} {label} {split} {stamp}")
        records.append(Record(split or "train", number[label], name, str(file), stamp=stamp))
    only_train = all(record.split == "train" for record in records)
    return Source(
        classes=classes,
        records=hold_out(records, seed) if only_train else records,
        fingerprint=fingerprint_of("csv", seed, *stamps),
        notes=[HELD_OUT_NOTE] if only_train else [],
    )


def _classes_of(path: Path, rows: Sequence[tuple[int, str, str, Split | None]]) -> list[str]:
    """The labels in order. Their digits are compared, not their values: a number may have a million of them."""
    first_row: dict[str, int] = {}
    for row, _, label, _ in rows:
        first_row.setdefault(label, row)
    numbers = [label for label in first_row if label.isascii() and label.isdigit()]
    if not numbers:
        return sorted(first_row)
    for label, row in first_row.items():
        if not (label.isascii() and label.isdigit()):
            raise DataError(
                f"{printable(path)}, row {row}: label {printable(label)[:80]!r} is not a whole number, but "
                f"{numbers[0][:20]!r} in row {first_row[numbers[0]]} is; use numbers or names for all"
            )
    numbers.sort(key=lambda label: (len(label.lstrip("0")), label.lstrip("0")))
    for a, b in pairwise(numbers):
        if a.lstrip("0") == b.lstrip("0"):
            raise DataError(
                f"{printable(path)}, row {first_row[b]}: label {b[:20]!r} is the number {a[:20]!r} of row "
                f"{first_row[a]}, written in another way"
            )
    return numbers


def _csv_rows(path: Path) -> list[tuple[int, str, str, Split | None]]:
    """(row number, path, label, split) of each row."""
    rows: list[tuple[int, str, str, Split | None]] = []
    columns = {"path": 0, "label": 1, "split": 2}
    row = 0
    if path.exists() and not path.is_file():
        raise DataError(f"{printable(path)}: not a regular file; a list is read from one")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:  # -sig: spreadsheets begin with a byte-order mark
            for row, cells in enumerate(csv.reader(file, strict=True), start=1):
                if not any(cells):
                    continue
                names = [cell.strip().lower() for cell in cells]
                if row == 1 and "path" in names and "label" in names:
                    columns = {name: names.index(name) for name in ("path", "label", "split") if name in names}
                    continue
                path_label_split = [cells[i] if i < len(cells) else "" for i in columns.values()]
                name, label, split = (*path_label_split, "")[:3]
                if not name or not label.strip():
                    raise DataError(f"{printable(path)}, row {row}: {len(cells)} columns; a row is path,label[,split]")
                if split and split.strip().lower() not in SPLIT_NAMES:
                    raise DataError(
                        f"{printable(path)}, row {row}: split {printable(split)!r} is not train, val or test"
                    )
                rows.append((row, name, label.strip(), SPLIT_NAMES.get(split.strip().lower())))
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{printable(path)}, after row {row}: not a UTF-8 CSV file ({printable(error)})") from error
    except OSError as error:
        raise DataError(f"{printable(path)}: {error.strerror}; name a list that can be read") from error
    if not rows:
        raise DataError(f"{printable(path)}: no rows; a row is path,label[,split]")
    return rows


def fingerprint_of(*parts: object) -> str:
    """Hexadecimal SHA-256 of the text of the parts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(str(part).encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def file_stamps(paths: Iterable[Path]) -> list[str]:
    """Name, size and modification time of each file, for a fingerprint."""
    return [f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in paths]


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
