"""The options that a dataclass declares: their names, values and help, and what of them a command line gives.

tyro turns arguments into values; before it, :func:`choose_kinds` chooses the members of unions, which tyro has as subcommands
only, and :func:`spelled` writes the values of closed lists as their lists have them.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import re
import textwrap
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, is_dataclass, replace
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro

from alexnet.core.errors import UsageError, perhaps, printable

Config = TypeVar("Config")


@dataclass(frozen=True)
class Option:
    """One option or positional argument."""

    path: str
    """Its field, dotted: ``schedule.warmup``."""
    name: str
    """As it is typed: ``--schedule.warmup``, ``--augmentation.no-mirror``, ``SOURCE``."""
    hint: Any
    default: Any
    """``dataclasses.MISSING`` where it must be given."""
    owner: type
    """The class that declares it, or inherits it."""
    positional: bool = False
    kinds: tuple[str, ...] = ()
    """The kinds of a union, for the field ``kind`` of its member."""
    about: str = ""
    """What the field says of itself that it is nested in."""
    metavar: str = ""
    """What its value is called, where that is not its type or its name."""

    @property
    def required(self) -> bool:
        return self.default is MISSING

    @property
    def field(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def group(self) -> str:
        """What it is nested in: ``schedule`` for ``schedule.warmup``, nothing for an option of the verb itself."""
        return self.path.rpartition(".")[0]

    @property
    def help(self) -> str:
        """The string under its field; for a switch that is on, what is not done without it."""
        text = field_documents(self.owner)[self.field]
        return f"Do not {text[:1].lower()}{text[1:]}" if self.default is True else text

    @property
    def values(self) -> str:
        """What it takes, in short: ``N`` for a whole number, ``X`` for another, ``{a,b}`` for a closed list."""
        if self.kinds:
            return f"{{{','.join(self.kinds)}}}"
        first, *_, last = self.field.upper().split("_") * 2
        return self.metavar or _values(self.hint, first if _takes_pairs(self.hint) else last)

    @property
    def base(self) -> type:
        """The class that declares it."""
        return next(c for c in reversed(self.owner.__mro__) if self.field in vars(c).get("__annotations__", {}))


def options_of(
    cls: type, default: Any = None, prefix: str = "", kinds: tuple[str, ...] = (), about: str = ""
) -> Iterator[Option]:
    """The options of a class, or of an instance ``default`` of it, in the order of their fields, nested ones by their dots."""
    hints = get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        hint, marks = _unwrapped(hints[field.name])
        if tyro.conf.Fixed in marks:
            continue
        value = getattr(default, field.name) if default is not None else _default(field)
        path = f"{prefix}{field.name}"
        if is_dataclass(value):
            flat = any(getattr(mark, "name", None) == "" for mark in marks)
            inner = "" if flat else field_documents(cls)[field.name]
            yield from options_of(type(value), value, prefix if flat else f"{path}.", _kinds(hint), inner)
            continue
        positional = tyro.conf.Positional in marks
        dashed = path.replace("_", "-")
        if positional:
            name = field.name.upper()
            name = name.removesuffix("S") + "..." if get_origin(hint) is tuple else name
        elif value is True:
            before, dot, last = dashed.rpartition(".")
            name = f"--{before}{dot}no-{last}"
        else:
            name = f"--{dashed}"
        metavar = next((mark.metavar for mark in marks if getattr(mark, "metavar", None)), "")
        yield Option(path, name, hint, value, cls, positional, kinds if field.name == "kind" else (), about, metavar)


def given(arguments: Sequence[str]) -> list[str]:
    """The fields, dotted, of the options that a command line gives, in its order; ``no-`` before the last is left away."""
    names = [a[2:].partition("=")[0] for a in arguments if a.startswith("--")]
    return [re.sub(r"(^|\.)no_(?=[^.]+$)", r"\1", name.replace("-", "_")) for name in names]


def dashed(path: str) -> str:
    """The option of a field: ``--optimizer.weight-decay`` for ``optimizer.weight_decay``."""
    return f"--{path.replace('_', '-')}"


def value_of(arguments: Sequence[str], path: str) -> str | None:
    """The value that a command line gives an option before anything else of it is understood."""
    value = None
    for word, after in itertools.zip_longest(arguments, arguments[1:]):
        name, equals, inside = word.partition("=")
        if word.startswith("--") and given([name]) == [path]:
            value = inside if equals else after
    return value


def choose_kinds(config: Config, arguments: Sequence[str]) -> tuple[Config, list[str]]:
    """``config`` with the members of unions that the arguments choose, and the arguments with each choice once, at the end.

    ``--schedule.kind cosine``, ``--schedule cosine``, ``--schedule:cosine`` and ``schedule:cosine-config`` are one choice, with
    ``=`` or a space, hyphens or underscores. A member of another kind than that of ``config`` begins with its own defaults.
    An unknown kind, or an option of a kind that is not chosen, raises a :class:`UsageError`.
    """
    unions = dict(_unions(config))
    left: list[str] = []
    chosen: dict[str, type] = {}
    words = iter(enumerate(arguments))
    for i, word in words:
        path, kind = _choice(word, unions, after_option=i > 0 and arguments[i - 1].startswith("--"))
        if path is None:
            left.append(word)
            continue
        if kind is None:
            _, kind = next(words, (0, None))
            if kind is None or kind.startswith("--"):
                raise UsageError(f"{printable(word)} needs a kind: {_listed(unions[path])}")
        chosen[path] = _member(path, kind, unions[path])
    for path, member in chosen.items():
        if type(getattr(config, path)) is not member:
            config = replace(config, **{path: member()})  # type: ignore[type-var]
    for name in given(left):
        path, _, field = name.partition(".")
        if path in unions:
            _refuse_other_kinds(path, field, type(getattr(config, path)), unions[path])
    return config, left + [word for path, member in chosen.items() for word in (f"--{path}.kind", _kind(member))]


def spelled(cls: type, arguments: Sequence[str]) -> list[str]:
    """The arguments with values of closed lists as these have them: ``--model.head global-average`` is ``global_average``."""
    hints = {option.path: option.hint for option in options_of(cls)}
    hint: Any = None
    words: list[str] = []
    known: dict[str, str] = {}
    for word in arguments:
        option, equals, value = word.partition("=")
        if option.startswith("--"):
            hint = hints.get(given([option])[0])
            known = {_plain(str(choice)): str(choice) for choice in _choices(hint)}
            words.append(option + equals + known.get(_plain(value), value) if equals else word)
        else:
            words.append(known.get(_plain(word), word))
            known = known if get_origin(hint) is tuple else {}
    return words


def _unwrapped(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type without what Annotated adds, and that."""
    return (get_args(hint)[0], get_args(hint)[1:]) if get_origin(hint) is Annotated else (hint, ())


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _members(hint: Any) -> tuple[type, ...]:
    """The dataclasses of a union."""
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else ()
    return parts if len(parts) > 1 and all(is_dataclass(part) for part in parts) else ()


def _unions(config: Any) -> Iterator[tuple[str, tuple[type, ...]]]:
    hints = get_type_hints(type(config))
    return ((name, members) for name, hint in hints.items() if (members := _members(hint)))


def _kind(member: type) -> str:
    return str(get_args(get_type_hints(member)["kind"])[0])


def _kinds(hint: Any) -> tuple[str, ...]:
    return tuple(map(_kind, _members(hint)))


def _listed(members: Sequence[type]) -> str:
    return ", ".join(map(_kind, members))


def _plain(word: str) -> str:
    """A word without what spellings differ in: case, hyphens and underscores."""
    return re.sub("[-_]", "", word.lower())


def _choice(word: str, unions: dict[str, Any], *, after_option: bool) -> tuple[str | None, str | None]:
    """The union that an argument chooses a member of, and the kind if the argument has it. A word without hyphens is one only
    if it cannot be the value of the option before it."""
    match = re.fullmatch(r"(--)?([A-Za-z_-]+)(?:\.kind)?(?:([=:])(.*))?", word, re.DOTALL)
    path = match and match[2].lower().replace("-", "_")
    if not match or path not in unions:
        return None, None
    if not match[1]:
        known = {_plain(name) for member in unions[path] for name in (_kind(member), member.__name__)}
        if match[3] != ":" or (after_option and _plain(match[4]).removesuffix("config") not in known):
            return None, None
    return path, match[4]


def _member(path: str, word: str, members: Sequence[type]) -> type:
    plain = _plain(word).removesuffix("config")
    for member in members:
        if plain in (_plain(_kind(member)), _plain(member.__name__).removesuffix("config")):
            return member
    near = perhaps(word, map(_kind, members))
    raise UsageError(f"--{path}.kind is {printable(word)[:60]}{near}; the kinds are {_listed(members)}")


def _refuse_other_kinds(path: str, field: str, chosen: type, members: Sequence[type]) -> None:
    """A field that the chosen member has not, but another has."""
    if field in {f.name for f in dataclasses.fields(chosen)}:
        return
    others = [_kind(other) for other in members if field in {f.name for f in dataclasses.fields(other)}]
    if others:
        kinds = " or ".join(others)
        raise UsageError(
            f"--{path}.{field.replace('_', '-')} belongs to --{path}.kind {kinds}, and the kind here is {_kind(chosen)}; "
            f"leave it out, or choose {kinds}"
        )


def _choices(hint: Any) -> tuple[Any, ...]:
    """The values of a closed list, also of one in a tuple or beside None."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    return tuple(itertools.chain.from_iterable(_choices(part) for part in get_args(hint)))


def _takes_pairs(hint: Any) -> bool:
    """Whether a word and a number are given in turns; the first word of the field's name says what the word is."""
    return get_origin(hint) is tuple and any(get_origin(part) is tuple for part in get_args(hint))


def _values(hint: Any, name: str) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"{{{','.join(map(str, args))}}}"
    if origin in (Union, types.UnionType):
        return _values(next(arg for arg in args if arg is not type(None)), name)
    if origin is tuple and args[-1] is Ellipsis:
        return f"{_values(args[0], name.removesuffix('S'))} ..."
    if origin is tuple:
        return " ".join(_values(arg, name) for arg in args)
    return {bool: "", int: "N", float: "X"}.get(hint, name)


@cache
def field_documents(cls: type) -> dict[str, str]:
    """The string under each field of a dataclass, on one line."""
    documents: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not is_dataclass(base) or "__annotations__" not in vars(base) or base.__module__ == "types":
            continue  # "types": put together by make_dataclass of fields that are explained where they come from
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        for statement, after in itertools.pairwise([*typing.cast(ast.ClassDef, tree).body, ast.Pass()]):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                text = after.value if isinstance(after, ast.Expr) else None
                words = text.value if isinstance(text, ast.Constant) and isinstance(text.value, str) else ""
                documents[statement.target.id] = " ".join(words.split()).replace("``", "`")
    return documents
