"""Settings as frozen dataclasses: to and from JSON, strictly, and a fingerprint to compare two of them by."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import types
import typing
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from alexnet.core.errors import UsageError, perhaps, printable

T = TypeVar("T")


def to_json(value: Any) -> Any:
    """A dataclass as plain dicts, lists, strings and numbers."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return str(value)


def from_json(cls: type[T], value: Any, where: str = "config") -> T:
    """The inverse of :func:`to_json`. An unknown field, a missing one, or one of the wrong type raises a
    :class:`UsageError` that names field, value and rule."""
    return typing.cast(T, _convert(cls, value, where))


def fingerprint(value: Any) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the canonical JSON."""
    text = json.dumps(to_json(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """The dotted names of the fields in which two JSON values differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        names = sorted(a.keys() | b.keys())
        return [d for n in names for d in differences(a.get(n), b.get(n), f"{where}.{n}" if where else n)]
    return [] if a == b else [where]


def not_finite(value: Any, where: str = "") -> str | None:
    """The dotted name of the first number in a JSON value that is NaN or infinite."""
    if isinstance(value, dict):
        inner = [(f"{where}.{name}" if where else name, item) for name, item in value.items()]
    elif isinstance(value, list):
        inner = [(f"{where}[{i}]", item) for i, item in enumerate(value)]
    else:
        return where if isinstance(value, float) and not math.isfinite(value) else None
    return next((name for place, item in inner if (name := not_finite(item, place)) is not None), None)


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(args, value, where)
    if origin is Literal:
        if value in args:
            return value
        raise _bad(where, value, "one of " + ", ".join(map(repr, args)))
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise _bad(where, value, "a list")
        hints = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
        if len(hints) != len(value):
            raise _bad(where, value, f"a list of {len(hints)}")
        return tuple(_convert(h, v, f"{where}[{i}]") for i, (h, v) in enumerate(zip(hints, value, strict=True)))
    if origin is list:
        if not isinstance(value, list):
            raise _bad(where, value, "a list")
        return [_convert(args[0], item, f"{where}[{i}]") for i, item in enumerate(value)]
    if origin is dict:  # JSON has no other keys than texts
        if not isinstance(value, dict):
            raise _bad(where, value, "an object")
        return {key: _convert(args[1], item, f"{where}.{printable(key)[:80]}") for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return _convert_dataclass(typing.cast(type, hint), value, where)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise _bad(where, value, "a number that fits into 64 bits") from None
    if hint is Any or (isinstance(value, hint) and not (hint is int and isinstance(value, bool))):
        return value
    raise _bad(where, value, f"a value of type {getattr(hint, '__name__', hint)}")


def _convert_dataclass(cls: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _bad(where, value, f"the fields of {cls.__name__}")
    hints = get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    if unknown := sorted(value.keys() - fields.keys()):
        name = printable(unknown[0])[:80]
        raise UsageError(
            f"{where}.{name}: unknown field{perhaps(name, fields)}; {cls.__name__} has {', '.join(fields)}"
        )
    for name, f in fields.items():
        no_default = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if name not in value and no_default:
            raise UsageError(f"{where}.{name}: missing; {cls.__name__} needs it")
    try:
        return cls(**{name: _convert(hints[name], item, f"{where}.{name}") for name, item in value.items()})
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error


def _convert_union(options: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in options:
        return None
    options = tuple(o for o in options if o is not type(None))
    if isinstance(value, dict) and "kind" in value:  # dataclasses told apart by a Literal field `kind`
        for option in options:
            if dataclasses.is_dataclass(option) and value["kind"] in get_args(get_type_hints(option).get("kind")):
                return _convert(option, value, where)
    error: UsageError | None = None
    for option in options:
        try:
            return _convert(option, value, where)
        except UsageError as e:
            error = error or e
    assert error is not None
    raise error


def _bad(where: str, value: Any, rule: str) -> UsageError:
    return UsageError(f"{where} is {_shown(value)}; it must be {rule}")


def _shown(value: Any) -> str:
    """A value as it is written, if that is short."""
    if isinstance(value, list | tuple | dict) and len(value) > 8:
        return f"a {type(value).__name__} of {len(value):,}"
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # deeply nested; a number of more digits than are printed
        return f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."
