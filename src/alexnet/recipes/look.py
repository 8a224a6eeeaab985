"""What a person should know about a set of photographs before a network learns from it, in a few lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.cells import cell_len

from alexnet.core.errors import printable
from alexnet.data.packed import PackedSet
from alexnet.data.twins import warning_of

UNEVEN = 3
"""So many times as many training images has the largest class than the smallest, where classes are balanced in training."""
COLUMNS = 80
NAMED_FILES = 2


@dataclass(frozen=True)
class Look:
    """A set in figures and in at most five lines."""

    images: dict[str, int]
    """Images of each split."""
    classes: list[str]
    of_class: list[int]
    """Training images of each class."""
    unread: int
    """Files that cannot be read and are left out."""
    twins: str
    """What is wrong with images that are in the set twice, in words; empty if nothing is."""
    lines: tuple[str, ...]

    @property
    def uneven(self) -> bool:
        return is_uneven(self.of_class)


def is_uneven(of_class: Sequence[int]) -> bool:
    """Whether classes of so many images need to be balanced."""
    return max(of_class) >= UNEVEN * max(1, min(of_class))


def look(data: PackedSet, name: str | None = None) -> Look:
    """Look at a packed set that its user calls ``name``: classes, balance, faults, leaks, and what is held out."""
    name = name or data.source or str(data.path)
    images = {name: len(split) for name, split in data.splits.items()}
    of_class, unread = data.class_counts["train"], len(data.meta["rejected"])
    twins = warning_of(data, name)
    lines = (
        _classes(Path(name).name or name, sum(images.values()), data.classes),
        _balance(data.classes, of_class),
        _unread([str(fault["path"]) for fault in data.meta["rejected"]]),
        f"Warning: {twins}." if twins else "No image is both in training and held out, and none is in two classes.",
        _held_out(data),
    )
    return Look(images, data.classes, of_class, unread, twins, lines)


def _classes(name: str, num: int, classes: Sequence[str]) -> str:
    """The first line: as many names of classes as there is room for."""
    begun = f"{printable(name)}: {_images(num)} in {len(classes):,} classes: "
    shown: list[str] = []
    for left, each in zip(range(len(classes) - 1, -1, -1), map(printable, classes), strict=True):
        more = f" and {left:,} more" if left else ""
        if shown and cell_len(begun + ", ".join([*shown, each]) + more) > COLUMNS:
            break
        shown.append(each)
    left = len(classes) - len(shown)
    return begun + ", ".join(shown) + (f" and {left:,} more" if left else "")


def _balance(classes: Sequence[str], of_class: Sequence[int]) -> str:
    most, fewest = max(of_class), min(of_class)
    if most == fewest:
        return f"Each class has {_images(most)} to learn from."
    large, small = (printable(classes[of_class.index(num)]) for num in (most, fewest))
    return f"The largest class is {large} with {_images(most)} to learn from, the smallest {small} with {fewest:,}."


def _unread(paths: Sequence[str]) -> str:
    if not paths:
        return "Every file can be read."
    more = f" and {len(paths) - NAMED_FILES:,} more" if len(paths) > NAMED_FILES else ""
    named = ", ".join(map(printable, paths[:NAMED_FILES])) + more
    return f"{len(paths):,} {'files' if len(paths) > 1 else 'file'} cannot be read and will be left out: {named}."


def _held_out(data: PackedSet) -> str:
    counts = data.meta["counts"][data.held_out]["per_class"]
    num = sum(counts)
    by_hash = data.meta.get("held_out") == "hash"
    chosen = "a fifth of each class, at least one" if by_hash else f"the {data.held_out} images of the set"
    line = f"{_images(num)} {'are' if num > 1 else 'is'} held out to measure the error: {chosen}"
    without = [name for name, count in zip(data.classes, counts, strict=True) if not count]
    if len(without) == 1:
        line += f"; none of {printable(without[0])}"
    elif without:
        line += f"; none of {len(without):,} classes"
    return line + "."


def _images(num: int) -> str:
    return f"{num:,} image{'s' if num != 1 else ''}"
