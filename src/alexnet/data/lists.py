"""Lists of images as text: a path and a label in each row, as this program or another writes them.

A list says exactly what is meant, so nothing in it is skipped: a row that cannot be used is an error with its number, and
a column that is not used is said.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path, PurePosixPath

from alexnet.core.errors import DataError, as_text, printable
from alexnet.data.decode import SUFFIXES, file_stamp
from alexnet.data.layout import splits_of
from alexnet.data.sources import HELD_OUT_NOTE, Record, Source, SplitName, fingerprint_of, hold_out

LIST_SUFFIXES = (".csv", ".tsv", ".txt")

_PATHS = (
    *("path", "file_path", "filepath", "file_name", "filename", "file", "fname", "image_path", "img_path"),
    *("image_file", "image_name", "img_name", "image", "img", "images", "image_id", "img_id", "id", "name"),
)
_LABELS = (
    *("label", "labels", "class", "classes", "class_name", "classname", "category", "category_name", "target", "y"),
    *("label_name", "class_id", "category_id", "class_label", "species"),
)
"""Titles of columns that other programs write (Kaggle, fastai, Keras, AutoGluon, Hugging Face), the likelier first."""
_SPLIT_TITLES = ("split", "subset", "set", "partition", "phase", "usage", "data_set", "dataset", "data_split")
_FLAGS: dict[str, SplitName] = {
    **dict.fromkeys(("is_valid", "is_val", "is_validation", "valid", "val", "validation"), "val"),
    **dict.fromkeys(("is_test", "test"), "test"),
    **dict.fromkeys(("is_train", "is_training", "is_training_image", "train", "training"), "train"),
}
"""Columns of true and false, one for a split."""
_TRUE = {
    "true": True,
    "1": True,
    "1.0": True,
    "yes": True,
    "false": False,
    "0": False,
    "0.0": False,
    "no": False,
    "": False,
}
_MAYBE_SPLIT = re.compile(r"(^|_)(k?fold|(.*)split|subset|set|val(id)?|test|train|holdout|partition|phase|usage)(_|$)")
_IMAGE_SUFFIXES = frozenset(suffix for of_format in SUFFIXES.values() for suffix in of_format)
_USUAL = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".tif", ".webp", ".bmp", ".gif")
"""Suffixes that are tried for paths without one, such as the ids of Kaggle's lists."""

_Row = tuple[int, list[str]]
"""The number of a row in the file, from 1, and its cells."""


@dataclass(frozen=True)
class _Columns:
    """Which cell of a row says what."""

    path: int
    label: int | None
    """Column of the label; None if ``classes`` say it."""
    classes: dict[int, str] = field(default_factory=dict)
    """Columns of 0 and 1, one for a class."""
    split: int | None = None
    flags: dict[int, SplitName] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class _Image:
    row: int
    name: str
    file: Path
    stamp: str
    label: str
    split: SplitName | None


def csv_list(path: Path, seed: int = 0) -> Source:
    """A list with the columns ``path``, ``label`` and, if there is one, ``split``, under these or other programs' titles;
    without titles the columns stand in that order. Commas, semicolons, tabs, bars or spaces are between the columns.

    Paths are relative to the list's folder. Labels are names of classes, in the order of their text, or, if all are whole
    numbers, of their value, or columns of 0 and 1 with one 1 in a row. Any row that cannot be used is a
    :class:`DataError` with its row number: numbers and names among the labels, and two spellings of a number (1 and 01),
    too.
    """
    rows = _read_rows(path)
    columns, rows = _understood(path, rows)
    images = list(_images(path, rows, columns))
    classes = _classes_of(path, images)
    number = {name: label for label, name in enumerate(classes)}
    records = [
        Record(image.split or "train", number[image.label], as_text(image.name), str(image.file), stamp=image.stamp)
        for image in images
    ]
    stamps = (f"{i.row} {i.name} {i.label} {i.split or ''} {i.stamp}" for i in images)
    only_train = all(record.split == "train" for record in records)
    return Source(
        classes=classes,
        records=hold_out(records, seed) if only_train else records,
        fingerprint=fingerprint_of("csv", seed, *stamps),
        notes=[*columns.notes, *([HELD_OUT_NOTE] if only_train else [])],
        held_out="hash" if only_train else "source",
    )


# --- the table ------------------------------------------------------------------------------------------------------


def _read_rows(path: Path) -> list[_Row]:
    row = 0
    rows: list[_Row] = []
    if path.exists() and not path.is_file():
        raise DataError(f"{printable(path)}: not a regular file; a list is read from one")
    try:
        with open(path, "rb") as file:
            start = file.read(1 << 16)
        utf16 = start.startswith((b"\xff\xfe", b"\xfe\xff"))  # spreadsheets' "Unicode text"
        # -sig: spreadsheets begin with a byte-order mark. Bytes of a path that are not UTF-8 stay as they are.
        coding, errors = ("utf-16", "strict") if utf16 else ("utf-8-sig", "surrogateescape")
        delimiter = _delimiter(start.decode(coding, "replace"))
        with open(path, newline="", encoding=coding, errors=errors) as lines:
            for row, cells in enumerate(csv.reader(lines, delimiter=delimiter, strict=True), start=1):
                if any(cells):
                    rows.append((row, cells))
    except (csv.Error, UnicodeError) as error:
        raise DataError(f"{printable(path)}, after row {row}: not a UTF-8 CSV file ({printable(error)})") from error
    except OSError as error:
        raise DataError(f"{printable(path)}: {error.strerror}; name a list that can be read") from error
    return rows


def _delimiter(start: str) -> str:
    """What is between the columns: the first of these that is in the first line, outside of quotes."""
    first = re.sub(r'"[^"]*"', "", next((line for line in start.splitlines() if line.strip()), ""))
    return next((mark for mark in ",;\t|" if mark in first), " " if len(first.split(" ")) in (2, 3) else ",")


# --- the columns ----------------------------------------------------------------------------------------------------


def _understood(path: Path, rows: list[_Row]) -> tuple[_Columns, list[_Row]]:
    """The columns, and the rows below their titles."""
    if not rows:
        raise DataError(f"{printable(path)}: no rows; a row is path,label[,split]")
    first, below = rows[0][1], rows[1:]
    titles = [re.sub(r"[\s.-]+", "_", cell.strip().casefold()) for cell in first]
    has_path, has_label = any(title in _PATHS for title in titles), any(title in _LABELS for title in titles)
    if not (has_path and has_label):
        second_has_image = bool(below) and any(_is_image(path.parent, cell) for cell in below[0][1])
        if any(_is_image(path.parent, cell) for cell in first) or not (has_path or has_label or second_has_image):
            return _Columns(0, 1, split=2 if len(first) > 2 else None), rows
    if not below:
        raise DataError(f"{printable(path)}: no rows below the titles; a row is path,label[,split]")
    return _titled(path, first, titles, below), below


def _titled(path: Path, first: list[str], titles: list[str], rows: list[_Row]) -> _Columns:
    def among(names: Sequence[str], columns: Sequence[int]) -> int | None:
        return next((i for name in names for i in columns if titles[i] == name), None)

    left = [i for i, title in enumerate(titles) if title]
    place, label = among(_PATHS, left), among(_LABELS, left)
    if place is None:
        place = next((i for i in left if i != label and _is_image(path.parent, _cell(rows[0][1], i))), None)
    left = [i for i in left if i not in (place, label)]
    split = among(("split",), left)
    if split is None:
        split = among(_SPLIT_TITLES, in_words := [i for i in left if _all_splits(_cells(rows, i))])
        split = in_words[0] if split is None and len(in_words) == 1 else split
    flags = {
        i: _FLAGS[titles[i]]
        for i in left
        if split is None
        and titles[i] in _FLAGS
        and (label is not None or titles[i].startswith("is_"))  # else it may be a class
        and _all_flags(_cells(rows, i))
    }
    left = [i for i in left if i != split and i not in flags]
    shown = ", ".join(printable(title) for title in first[:8]) + (", ..." if len(first) > 8 else "")
    if place is None:
        raise DataError(f"{printable(path)}: no column of paths among {shown}; call it path")
    classes: dict[int, str] = {}
    if label is None and len(left) == 1:
        label = left.pop()
    elif label is None:
        if len(left) < 2 or not all(_all_flags(_cells(rows, i)) for i in left):
            raise DataError(f"{printable(path)}: no column of labels among {shown}; call it label")
        classes, left = {i: first[i].strip() for i in left}, []
    elif label in left:
        left.remove(label)
    columns = _Columns(place, label, classes, split, flags)
    return replace(columns, notes=_notes_on(columns, first, titles, left))


def _notes_on(columns: _Columns, first: list[str], titles: list[str], unused: list[int]) -> list[str]:
    """What each column is read as, unless that is what its title says, and which are not read."""
    read = [("path", columns.path), ("label", columns.label), ("split", columns.split)]
    said = [f"{word} is column {printable(first[i])}" for word, i in read if i is not None and titles[i] != word]
    said += [f"a true {printable(first[i])} is {split}" for i, split in columns.flags.items()]
    if columns.classes:
        said.append(f"the {len(columns.classes)} columns of 0 and 1 are classes")
    notes = [f"columns: {', '.join(said)}"] if said else []
    divided = columns.split is not None or bool(columns.flags)
    perhaps = [] if divided else [i for i in unused if _MAYBE_SPLIT.search(titles[i])]
    notes += [
        f"column {printable(first[i])} is not used; if it says which images are held out, call it split, with train, val or "
        "test in each row"
        for i in perhaps
    ]
    if ignored := [printable(first[i]) for i in unused if i not in perhaps]:
        more = ", ..." if len(ignored) > 8 else ""
        notes.append(f"column{'s' if len(ignored) > 1 else ''} not used: {', '.join(ignored[:8])}{more}")
    return notes


def _cell(cells: Sequence[str], i: int) -> str:
    return cells[i] if i < len(cells) else ""


def _cells(rows: Sequence[_Row], i: int) -> set[str]:
    return {_cell(cells, i).strip() for _, cells in rows}


def _all_splits(values: set[str]) -> bool:
    names = values - {""}
    return bool(names) and len(splits_of(names)) == len(names)


def _all_flags(values: set[str]) -> bool:
    return values != {""} and all(value.lower() in _TRUE for value in values)


# --- the rows -------------------------------------------------------------------------------------------------------


def _images(path: Path, rows: Sequence[_Row], columns: _Columns) -> Iterator[_Image]:
    first_row: dict[str, int] = {}

    def once(where: str, row: int, name: str) -> None:
        place = os.path.abspath(path.parent / name)  # noqa: PTH100  # a/../b is b, and ./b too
        if first_row.setdefault(place, row) != row:
            raise DataError(f"{where}: {printable(name)} is already in row {first_row[place]}; list each image once")

    words = splits_of(_cells(rows, columns.split)) if columns.split is not None else {}
    for row, cells in rows:
        where = f"{printable(path)}, row {row}"
        name, label = _cell(cells, columns.path), _label_of(where, cells, columns)
        if not name or not label:
            raise DataError(f"{where}: {len(cells)} columns; a row is path,label[,split]")
        if not as_text(label) == label:
            raise DataError(
                f"{where}: not a UTF-8 CSV file: its label is {printable(as_text(label))[:80]!r}; save the list as UTF-8"
            )
        split = _split_of(where, cells, columns, words)
        once(where, row, name)
        name, file, stamp = _found(where, path.parent, name)
        once(where, row, name)
        yield _Image(row, name, file, stamp, label, split)


def _label_of(where: str, cells: Sequence[str], columns: _Columns) -> str:
    if columns.label is not None:
        return _cell(cells, columns.label).strip()
    ones = [name for i, name in columns.classes.items() if _TRUE[_cell(cells, i).strip().lower()]]
    if len(ones) != 1:
        said = f"{len(ones)} of the columns of classes are 1" if ones else "none of the columns of classes is 1"
        raise DataError(f"{where}: {said}; an image has one class")
    return ones[0]


def _split_of(where: str, cells: Sequence[str], columns: _Columns, words: dict[str, SplitName]) -> SplitName | None:
    if columns.flags:
        true = [split for i, split in columns.flags.items() if _TRUE[_cell(cells, i).strip().lower()]]
        if len(set(true)) > 1:
            raise DataError(f"{where}: in {' and in '.join(true)}; an image is in one split")
        known = set(columns.flags.values())
        return true[0] if true else "train" if "train" not in known else "val" if "test" in known else "test"
    split = "" if columns.split is None else _cell(cells, columns.split).strip()
    if split and split not in words:
        raise DataError(f"{where}: split {printable(split)!r} is not train, val or test")
    return words.get(split)


def _found(where: str, folder: Path, name: str) -> tuple[str, Path, str]:
    """The file that a path means, with the path as it would be written here: other programs leave out suffixes, and write
    backslashes."""
    slashes = name.strip().replace("\\", "/")
    suffixes = () if PurePosixPath(slashes).suffix.lower() in _IMAGE_SUFFIXES else _USUAL
    try:
        for known in (name, name.strip(), slashes, *(slashes + suffix for suffix in suffixes)):
            try:
                file = folder / known
                return known, file, file_stamp(file.stat())
            except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL byte in the name
                continue
    except OSError as error:
        raise DataError(f"{where}: {printable(name)}: {error.strerror}") from None
    lies = next(
        (f"; it lies in {printable(inner.name)}/" for inner in _folders(folder) if (inner / slashes).exists()), ""
    )
    coding = "; save the list as UTF-8" if as_text(name) != name else ""
    raise DataError(
        f"{where}: {printable(as_text(name))}: no such file; paths are relative to the folder of the list{lies}{coding}"
    )


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(inner for inner in folder.iterdir() if inner.is_dir())[:1000]
    except OSError:
        return []


def _is_image(folder: Path, cell: str) -> bool:
    """Whether a cell has the name of an image, or is the path of a file."""
    if PurePosixPath(cell.strip().replace("\\", "/")).suffix.lower() in _IMAGE_SUFFIXES:
        return True
    try:
        return bool(cell.strip()) and _found("", folder, cell)[1].is_file()
    except DataError:
        return False


def _classes_of(path: Path, images: Sequence[_Image]) -> list[str]:
    """The labels in order. Their digits are compared, not their values: a number may have a million of them."""
    first_row: dict[str, int] = {}
    for image in images:
        first_row.setdefault(image.label, image.row)
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
