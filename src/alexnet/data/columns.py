"""Rows with an image and a label, as the `datasets` library of Hugging Face has them: which columns these are, and the set that
the rows make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from alexnet.core.errors import DataError, printable
from alexnet.data.sources import HELD_OUT_NOTE, SPLITS, Record, Source, SplitName, hold_out

IMAGES = ("image", "img", "picture", "photo")
LABELS = ("label", "labels", "class", "category", "target", "fine_label")


class Table(Protocol):
    """Rows of one split."""

    @property
    def path(self) -> str:
        """For messages."""
        ...

    def record(self, row: int, split: SplitName, label: int) -> Record: ...


@dataclass(frozen=True)
class Columns:
    image: str | None
    label: str | None
    names: tuple[str, ...] | None
    """Names of the classes, where the labels are places in them."""


def choose_columns(columns: Sequence[str], features: Mapping[str, Mapping[str, Any]], images: Sequence[str]) -> Columns:
    """The columns of images and of labels: ``features`` is what the library says of each column, empty where it says nothing, and
    ``images`` are those columns that may hold images. Raises :class:`ValueError` for names of classes that are no names."""
    kinds = {name: feature.get("_type") for name, feature in features.items()}
    image = _chosen([name for name in images if kinds.get(name) == "Image"] or images, IMAGES, by_name=not kinds)
    labeled = [name for name in columns if kinds.get(name) == "ClassLabel"]
    label = _chosen(labeled or [name for name in columns if name in LABELS], LABELS, by_name=False)
    names = features[label].get("names") if label is not None and label in labeled else None
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ValueError("the names of its classes are no list of names")
    return Columns(image, label, None if names is None else tuple(names))


def _chosen(candidates: Sequence[str], usual: Sequence[str], *, by_name: bool) -> str | None:
    """The one of these columns with the most usual name, or, unless only the name counts, the first."""
    named = [name for name in usual if name in candidates]
    rest = [] if by_name and len(candidates) > 1 else candidates
    return next(iter([*named, *rest]), None)


def set_of_rows(
    tables: Sequence[tuple[Table, SplitName, Iterable[Any]]],
    names: Sequence[str] | None,
    fingerprint: str,
    where: str,
    seed: int,
) -> Source:
    """The set of tables, each with its split and the label of each of its rows. Rows without a label are not used; where nothing
    is held out, a fifth is. Raises :class:`DataError`."""
    rows = [(table, split, i, label) for table, split, labels in tables for i, label in enumerate(labels)]
    labeled = [row for row in rows if _is_label(row[3])]
    if not labeled:
        raise DataError(f"{where}: no row has a label; name a set whose rows have some")
    classes, number = _classes(names, labeled, where)
    ordered = sorted(labeled, key=lambda row: SPLITS.index(row[1]))  # stable: else as they stand
    records = [table.record(i, split, number[label]) for table, split, i, label in ordered]
    only_train = all(record.split == "train" for record in records)
    notes = [f"{len(rows) - len(labeled):,} rows without a label are not used"] if len(labeled) < len(rows) else []
    return Source(
        classes=classes,
        records=hold_out(records, seed) if only_train else records,
        fingerprint=fingerprint,
        notes=[*notes, *([HELD_OUT_NOTE] if only_train else [])],
        held_out="hash" if only_train else "source",
    )


def _is_label(label: Any) -> bool:
    return label is not None and label != "" and not (isinstance(label, int) and label < 0)


def _classes(
    names: Sequence[str] | None, rows: Sequence[tuple[Table, SplitName, int, Any]], where: str
) -> tuple[list[str], dict[Any, int]]:
    """The classes that have rows, in their order, and the number of each label."""
    for table, _, i, label in rows:
        at = f"{printable(table.path)}, row {i}"
        if names is not None and not (isinstance(label, int) and label < len(names)):
            raise DataError(f"{at}: label {printable(label)}, but there are {len(names)} names of classes")
        if not isinstance(label, int | str):
            raise DataError(f"{at}: its label is {printable(label)[:40]}; it must be a whole number or a name")
    found = {label for *_, label in rows}
    if len({type(label) for label in found}) > 1:
        raise DataError(f"{where}: labels are numbers in some rows and names in others; use one of both")
    ordered = sorted(found)
    if names is None:
        return [str(label) for label in ordered], {label: i for i, label in enumerate(ordered)}
    often = Counter(names)
    classes = [names[label] if often[names[label]] == 1 else f"{names[label]} ({label})" for label in ordered]
    return classes, {label: i for i, label in enumerate(ordered)}
