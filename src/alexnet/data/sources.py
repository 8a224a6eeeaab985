"""What a set of images is before it is decoded: a list of records, whatever they were found in.

A kind of data set is a function that returns a :class:`Source`.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len, set_cell_size

from alexnet.core.errors import ImageError, printable
from alexnet.data.contents import same_bytes
from alexnet.data.decode import MAX_FILE_BYTES, file_stamp, read_image_file

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")

HeldOut = Literal["hash", "source"]

VAL_FRACTION = 0.2
"""Share of each class that is held out where a source does not say which images are."""

MAX_IMAGES = 2_000_000
"""Most images of a set that come as arrays: a small file can announce millions of empty ones."""


class Container(Protocol):
    """A file from which pieces are read that do not lie in it as they are, by any number of threads and forked processes."""

    def read(self, offset: int, length: int | None, name: str) -> bytes | NDArray[np.uint8]:
        """One piece, an encoded image or pixels (H, W, C), which is called ``name`` in messages. Raises :class:`ImageError`."""
        ...


@dataclass(frozen=True, slots=True)
class Record:
    """One image and where its bytes are: a file, a part of a file (as in a tar), or memory."""

    split: SplitName
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
    """Size and modification time of the file (or archive) when it was listed. Another one in its place is refused."""
    inside: Container | None = None
    """What reads it, if it does not lie in ``file`` as it is; ``offset`` and ``length`` are then as that means them."""

    @property
    def size(self) -> int | None:
        """Bytes, as listed; None for a file that could not be looked at."""
        if self.data is not None:
            return len(self.data) if isinstance(self.data, bytes) else self.data.nbytes
        return self.length if self.length is not None or self.inside or not self.stamp else int(self.stamp.split()[0])

    def read(self) -> bytes | NDArray[np.uint8]:
        """The encoded image, or pixels. Raises :class:`ImageError`."""
        if self.data is not None:
            return self.data
        if self.length is not None and self.length > MAX_FILE_BYTES:
            raise ImageError(self.name, "too large", f"{self.length:,} bytes; at most {MAX_FILE_BYTES:,}")
        if self.inside is not None:
            return self.inside.read(self.offset, self.length, self.name)
        if self.length is None:
            return read_image_file(self.file, self.name, self.stamp)
        with part_of(self.file, self.stamp, self.name) as file:
            file.seek(self.offset)
            data = file.read(self.length)
        if len(data) < self.length:
            raise ImageError(self.name, "truncated", f"{printable(self.file)} ends inside it")
        return data


@contextmanager
def part_of(path: str, stamp: str, name: str) -> Iterator[BinaryIO]:
    """A file that holds ``name``, open, if it is the one of this ``stamp`` (empty: any). Whatever goes wrong with it is an
    :class:`ImageError` of ``name``."""
    try:
        with open(path, "rb") as file:
            if stamp and file_stamp(os.fstat(file.fileno())) != stamp:
                changed = f"{printable(path)} changed since it was listed; run the command again"
                raise ImageError(name, "damaged", changed)
            yield file
    except FileNotFoundError:
        raise ImageError(name, "missing", f"{printable(path)}: no such file") from None
    except PermissionError:
        raise ImageError(name, "no permission", printable(path)) from None
    except OSError as error:
        raise ImageError(name, "damaged", printable(error)) from error


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
    """Why it cannot be used as it is."""
    empty: Sequence[Fault] = ()
    """Class folders without images: why it cannot be learned from as it is."""
    held_out: HeldOut = "source"
    """Who decides which images are held out: the source, or, where it names no splits, a hash (:func:`hold_out`)."""
    name: str = ""
    """What the user called it, for messages; empty for one that was made in memory."""


def class_faults(source: Source, *, training: bool = True) -> list[Fault]:
    """The source's own faults, and classes that cannot be learned; of what is not for ``training``, only the faults that
    matter then too."""
    if not training:
        return list(source.faults)
    faults = [*source.empty, *source.faults]
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


def class_counts(source: Source) -> dict[SplitName, list[int]]:
    """How many images each class has in each split that there is."""
    counts: dict[SplitName, list[int]] = {}
    for record in source.records:
        counts.setdefault(record.split, [0] * len(source.classes))[record.label] += 1
    return {split: counts[split] for split in SPLITS if split in counts}


SHOWN_CLASSES = 4
"""Number of classes shown from each end of their list."""
_NAME_CELLS = 40


def class_lines(classes: Sequence[str], counts: Mapping[SplitName, Sequence[int]]) -> list[str]:
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


def _labels_of_splits(source: Source) -> dict[SplitName, set[int]]:
    labels: dict[SplitName, set[int]] = {}
    for record in source.records:
        labels.setdefault(record.split, set()).add(record.label)
    return labels


def split_by_hash(names: Sequence[str], seed: int, fraction: float, together: Iterable[Sequence[str]] = ()) -> set[str]:
    """Which images of a class are held out: the ``fraction`` of them (rounded; at least one, but never all) whose hash
    of (seed, name) is smallest. Images that join or leave later move few of the others. Groups of names that stay
    ``together`` stand at the smallest of their hashes, and are left out where they are too many."""
    count = min(max(1, round(fraction * len(names))), len(names) - 1)
    group_of = {name: group for group in together for name in group}
    groups = {name: group_of.get(name, (name,)) for name in sorted(names, key=lambda name: _hash(f"{seed}/{name}"))}
    held: set[str] = set()
    for group in groups.values():
        if held.isdisjoint(group) and len(held) + len(group) <= count:
            held.update(group)
    smallest = min(groups.values(), key=len)
    return set(smallest) if not held and len(smallest) < len(names) else held


def hold_out(records: Sequence[Record], seed: int, fraction: float = VAL_FRACTION) -> list[Record]:
    """``records``, of each class the ``fraction`` by :func:`split_by_hash` moved from ``train`` to ``val``. Records of a class
    with the same bytes stay together: on two sides they would be a leak."""
    of_class: dict[int, list[Record]] = defaultdict(list)
    for record in records:
        if record.split == "train":
            of_class[record.label].append(record)
    held: set[str] = set()
    for same_class in of_class.values():
        together = [[record.name for record in group] for group in same_bytes(same_class)]
        held |= split_by_hash([record.name for record in same_class], seed, fraction, together)
    return [replace(r, split="val") if r.split == "train" and r.name in held else r for r in records]


HELD_OUT_BY_HASH = "held out as val, by a hash of seed and name"
HELD_OUT_NOTE = f"nothing but training images: {VAL_FRACTION:.0%} of each class {HELD_OUT_BY_HASH}"


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
