"""Images that are in a set more than once: leaks between its splits, and label conflicts between its classes."""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from alexnet.core.errors import printable
from alexnet.data.packed import PackedSet
from alexnet.data.sources import SPLITS, SplitName


@dataclass(frozen=True, slots=True)
class Item:
    """An image: its split, its class, and its number or name in the split."""

    split: SplitName
    label: int
    name: int | str


@dataclass(frozen=True, slots=True)
class Twin:
    """An image that is the same as ``other``. In a later split of the same class it is a leak, in another class a conflict."""

    kind: Literal["leak", "conflict"]
    item: Item
    other: Item


def twins(groups: Iterable[Sequence[Item]]) -> list[Twin]:
    """What is wrong with groups of equal images, each image once. Images that are in one class of one split twice are not."""
    found = []
    for group in groups:
        ordered = sorted(group, key=lambda item: SPLITS.index(item.split))
        first_of_class: dict[int, Item] = {}
        for item in ordered:
            first = first_of_class.setdefault(item.label, item)
            if first.split != item.split:
                found.append(Twin("leak", item, first))
            elif item.label != ordered[0].label:
                found.append(Twin("conflict", item, ordered[0]))
    return found


def packed_twins(packed: PackedSet) -> list[Twin]:
    """The twins in a packed set, which names images by their numbers. Images are equal if their stored bytes are; these are
    read only where the CRC-32 are the same. Raises :class:`~alexnet.core.errors.DataError` for a damaged one."""
    splits = [split for split in SPLITS if split in packed.splits]
    crc32_N = np.concatenate([packed.splits[split].crc32_N for split in splits])
    first_split = np.cumsum([0, *(len(packed.splits[split]) for split in splits)])
    order_N = np.argsort(crc32_N, kind="stable")
    change_N = np.flatnonzero(np.diff(crc32_N[order_N])) + 1
    bounds = np.concatenate([[0], change_N, [len(order_N)]])
    groups: dict[Hashable, list[Item]] = defaultdict(list)
    for g in np.flatnonzero(np.diff(bounds) > 1).tolist():
        for i in order_N[bounds[g] : bounds[g + 1]].tolist():
            s = int(np.searchsorted(first_split, i, side="right")) - 1
            split, number = packed.splits[splits[s]], i - int(first_split[s])
            groups[g, split.stored_digest(number)].append(Item(splits[s], int(split.labels[number]), number))
    return twins(groups.values())


def warning_of(packed: PackedSet, name: str) -> str:
    """One line about leaks and label conflicts of a set that its user calls ``name``; empty if there are none."""
    found = packed_twins(packed)
    leaks = Counter(twin.item.split for twin in found if twin.kind == "leak")
    conflicts = sum(twin.kind == "conflict" for twin in found)
    parts = [
        f"{num:,} of the {len(packed.splits[split]):,} {split} images {'is' if num == 1 else 'are'} also in an earlier split"
        if split == "test"
        else f"{num:,} of the {len(packed.splits[split]):,} {split} images {'is' if num == 1 else 'are'} also in train"
        for split, num in leaks.items()
    ]
    if conflicts:
        parts.append(f"{conflicts:,} image{'s are' if conflicts > 1 else ' is'} in two classes")
    if not parts:
        return ""
    return f"{', and '.join(parts)}; `alexnet check {printable(shlex.quote(name))}` names them"
