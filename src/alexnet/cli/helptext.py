"""What ``--help`` prints: usage, what a verb does, the options that most people need, the others by group, examples; as wide as
the terminal, or 80 columns."""

from __future__ import annotations

import inspect
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from textwrap import wrap
from typing import Any

from alexnet.cli.names import short_name
from alexnet.cli.options import Option, options_of

LEFT = 26
"""Columns of an option and its values; what is longer has a line of its own."""


def help_text(
    cls: type,
    verb: str,
    *,
    first: Sequence[str] = (),
    opened: Collection[str] = (),
    hidden: Collection[str] = (),
    all: bool = True,
) -> str:
    """The help of a verb. ``first`` are the fields of the options that most people need; if there are any, and not ``all`` is
    asked for, the others are named by group, and only the groups ``opened`` are explained. ``hidden``: fields that nobody sets.
    """
    width = terminal_width()
    options = [option for option in options_of(cls) if option.path not in hidden]
    prose, examples = described(cls)
    words = [option.name if option.required else f"[{option.name}]" for option in options if option.positional]
    words += [f"{option.name} {option.values}" for option in options if option.required and not option.positional]
    lines = wrap(f"usage: alexnet {' '.join([verb, *words])} [options]", width, subsequent_indent="         ")
    for paragraph in prose:
        lines += ["", *wrap(paragraph, width)]
    chosen = {option.path: option for option in options}
    short = bool(first) and not all
    sections: dict[str, list[Option]] = {"arguments": [], "options": []}
    if first:
        sections["options"] = [chosen[path] for path in first]
    for option in options:
        if option.path not in first:
            title = _section(option, cls)
            sections.setdefault("other options" if first and title == "options" else title, []).append(option)
    sections["options"].sort(key=lambda option: not option.required)
    rest = {}
    for title, members in sections.items():
        if short and title not in ("arguments", "options") and members[0].group not in opened:
            rest[title] = members
        elif members:
            lines += [
                "",
                *wrap(f"{title}:", width),
                *(line for option in members for line in _explained(option, width)),
            ]
    if rest:
        lines += ["", *wrap(f"more options, explained by `alexnet {verb} --help-all`:", width)]
        for title, members in rest.items():
            lines += _row(*_summary(title, members), width)
    if examples:
        lines += ["", "examples:", *(f"  {example}" for example in examples)]
    return "\n".join(lines) + "\n"


def terminal_width() -> int:
    """Columns of the terminal; 80 where there is none."""
    return max(shutil.get_terminal_size().columns, 40)


def listing(usage: str, title: str, entries: Mapping[str, str], last: str = "") -> str:
    """The help of a verb that is followed by one of several words: what each is."""
    width = terminal_width()
    rows = [line for name, said in entries.items() for line in _row(name, said, width, left=max(map(len, entries)) + 2)]
    lines = [*wrap(f"usage: alexnet {usage}", width), "", *wrap(f"{title}:", width), *rows]
    return "\n".join([*lines, *(["", *wrap(last, width)] if last else [])]) + "\n"


def first_sentence(document: str | None) -> str:
    """The first sentence of a docstring, or what stands before its first colon."""
    return re.split(r"[.:](?=\s|$)", " ".join((document or "").split()))[0]


def described(cls: type) -> tuple[list[str], list[str]]:
    """The paragraphs of a docstring, and the examples in it: lines that begin with a command."""
    prose, examples = [[]], []  # type: list[list[str]], list[str]
    for line in (inspect.getdoc(cls) or "").replace("``", "`").splitlines():
        if line.startswith(("alexnet ", "torchrun ")):
            examples.append(line.strip())
        elif line.strip():
            prose[-1].append(line.strip())
        else:
            prose.append([])
    return [" ".join(paragraph) for paragraph in prose if paragraph], examples


def _section(option: Option, cls: type) -> str:
    """The title of the section that an option stands in."""
    if option.positional:
        return "arguments"
    if option.group:
        return f"--{option.group}.*, {option.about[:1].lower()}{option.about[1:].rstrip('.')}"
    said = inspect.getdoc(option.base) or ""
    own = (
        option.base is cls
        or not issubclass(cls, option.base)
        or said.startswith(f"{option.base.__name__}(")
        or said == inspect.getdoc(cls)  # the settings of a probe, whose words are those of the command
    )
    return "options" if own else first_sentence(said).lower()


def _summary(title: str, members: Sequence[Option]) -> tuple[str, str]:
    """One entry for a group: what it is about, or its options by name."""
    if members[0].group:
        return f"--{members[0].group}.*", members[0].about
    return title, " ".join(option.name for option in members)


def _explained(option: Option, width: int) -> list[str]:
    said = [option.help] if option.help else []
    if option.required and not option.positional:
        said.append("(required)")
    elif not option.positional and option.default not in (None, (), "") and not isinstance(option.default, bool):
        said.append(f"(default: {_shown(option.default)})")
    short = short_name(option.path)
    names = option.name if option.positional or short is None else f"{short}, {option.name}"
    left = names if option.positional else f"{names} {option.values}".rstrip()
    return _row(left, " ".join(said), width)


def _row(name: str, said: str, width: int, left: int = LEFT) -> list[str]:
    """Two columns: the right one begins on the next line where the left one is too long."""
    indent = " " * (left + 2 if width >= 2 * left else 6)
    head = wrap(name, width, initial_indent="  ", subsequent_indent="      ", break_on_hyphens=False)
    lines = wrap(said, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    if len(head) == 1 and len(head[0]) < len(indent) - 1 and lines:
        lines[0] = head[0].ljust(len(indent)) + lines[0][len(indent) :]
        return lines
    return head + lines


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(f"'{item}'" if isinstance(item, str) and " " in item else str(item) for item in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
