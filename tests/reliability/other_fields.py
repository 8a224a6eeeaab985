"""JSON files that are whole but say something else: each field missing, of another type, unknown, negative, huge, or a path."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

HUGE = 10**30
CLIMBING = "../" * 12 + "tmp/\x1b[31mcanary\n"


@dataclass(frozen=True, eq=False)
class Change:
    field: tuple[str | int, ...]
    how: str
    value: Any
    """The whole document with this change."""

    @property
    def top(self) -> str | int | None:
        """The field of the document in which it is."""
        return self.field[0] if self.field else None

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.field)) or 'all of it'}: {self.how}"


def changes(document: Any) -> Iterator[Change]:
    """The document with one field changed, for every field and every kind of change. Of a list, the first item stands for all."""
    for field in [(), *_fields(document)]:
        old = _at(document, field)
        for how, new in _others(old).items():
            changed = copy.deepcopy(document)
            if not field:
                changed = new
            else:
                _at(changed, field[:-1])[field[-1]] = new
            yield Change(field, how, changed)
        if field and isinstance(field[-1], str):
            changed = copy.deepcopy(document)
            del _at(changed, field[:-1])[field[-1]]
            yield Change(field, "missing", changed)


def _fields(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    keys = list(value) if isinstance(value, dict) else [0] if isinstance(value, list) and value else []
    for key in keys:
        yield (*place, key)
        yield from _fields(value[key], (*place, key))


def _at(value: Any, field: tuple[str | int, ...]) -> Any:
    for key in field:
        value = value[key]
    return value


def _others(old: Any) -> dict[str, Any]:
    """Values that cannot stand where ``old`` stands, and some that can but make no sense there."""
    others: dict[str, Any] = {
        "a text": CLIMBING,
        "a number": 7.5,
        "a list": [CLIMBING],
        "an object": {CLIMBING: 1},
        "null": None,
    }
    others = {how: new for how, new in others.items() if new != old}
    if isinstance(old, str):
        del others["a text"]
        return others | {"a path": CLIMBING}
    if isinstance(old, bool):
        return others
    if isinstance(old, int | float):
        del others["a number"]
        return others | {"negative": -3, "huge": HUGE, "a truth": True}
    if isinstance(old, dict):
        return others | {"unknown": old | {CLIMBING: CLIMBING}}
    return others
