"""Settings from a file, ``-c FILE``: the ``config.json`` of a run, or YAML in which fields have the names of their options.

What the file says is what the command line would say: it becomes words that stand behind the others, and what the command line
says itself wins.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_origin

from alexnet.cli.names import nearest
from alexnet.cli.options import Option, dashed, given
from alexnet.core.errors import UsageError, printable
from alexnet.core.runs import read_file

MAX_BYTES = 1 << 20
OF_A_RUN = ("batch_size", "data", "network", "precision")
"""What the settings of a run mean for every verb; of other fields, such as ``epochs``, a verb has its own meaning."""


@dataclass(frozen=True)
class Settings:
    """What a file says."""

    file: str
    fields: dict[str, Any]
    """Values by dotted names: all of a file that somebody wrote; of a run, those that every verb shares."""
    run: dict[str, Any] | None = None
    """The configuration of the run whose ``config.json`` it is."""

    def words(self, options: Sequence[Option], arguments: Sequence[str], also: Sequence[str] = ()) -> list[str]:
        """The fields as arguments, but for those that ``arguments`` give. In a file that somebody wrote, a field that is none of
        the options, nor in ``also``, raises a :class:`UsageError`."""
        known = {option.path: option for option in options}
        said, words = {*given(arguments), *also}, list[str]()
        for path, value in self.fields.items():
            option = known.get(path)
            if option is not None and option.positional and self.run is None:
                raise UsageError(f"{self}: {path}: {option.name} stands on the command line; take it out of the file")
            if option is None and path not in also and self.run is None:
                near = nearest(path, [other for other in options if not other.positional])
                near = f" (perhaps {near.lstrip('-').replace('-', '_')})" if near else ""
                raise UsageError(f"{self}: {printable(path)[:80]} is no option here{near}; take it out or rename it")
            if option is not None and not option.positional and path not in said:
                words += self._words(option, value)
        return words

    def _words(self, option: Option, value: Any) -> list[str]:
        if isinstance(option.default, bool):
            if not isinstance(value, bool):
                raise UsageError(
                    f"{self}: {option.path} is {printable(value)[:60]}; it must be true or false, without quotes"
                )
            return [] if value == option.default else [option.name]
        if isinstance(value, list):
            if get_origin(option.hint) is not tuple and option.values[-3:] != "...":
                raise UsageError(f"{self}: {option.path} is a list; it must be one value")
            return [option.name, *_flat(value)]
        return [f"{option.name}={value}"]

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Within it, a fault of an option that the file gives is said to be in the file."""
        try:
            yield
        except UsageError as error:
            option = str(error).partition(" ")[0]
            if any(option in (dashed(path), dashed(path).removesuffix(".kind")) for path in self.fields):
                raise UsageError(f"{self}: {error}") from None
            raise

    def __str__(self) -> str:
        return printable(self.file)


def take_settings(arguments: Sequence[str]) -> tuple[Settings | None, list[str]]:
    """The settings that ``--config FILE`` names, and the arguments without it."""
    rest, file = list(arguments), None
    while found := next((i for i, word in enumerate(rest) if word.partition("=")[0] == "--config"), -1) + 1:
        _, equals, file = rest.pop(found - 1).partition("=")
        if not equals:
            if found > len(rest) or rest[found - 1].startswith("--"):
                raise UsageError("-c needs a file: the config.json of a run, or YAML")
            file = rest.pop(found - 1)
        if not file:
            raise UsageError("the value after --config is empty; give one, or leave the option out")
    return (None, rest) if file is None else (read_settings(file), rest)


def read_settings(file: str) -> Settings:
    """What a file says. Raises :class:`UsageError` for one that holds no settings, and :class:`AlexNetError` for one that
    cannot be read."""
    path = Path(file) / "config.json" if Path(file).is_dir() else Path(file)
    where = printable(path)
    if not path.is_file():
        raise UsageError(f"{where}: no such file; -c takes the config.json of a run, or YAML")
    try:
        value = _parsed(read_file(path, MAX_BYTES).decode("utf-8-sig"), where)
    except UnicodeDecodeError:
        raise UsageError(f"{where}: not text in UTF-8; save it so") from None
    except RecursionError:
        raise UsageError(f"{where}: too deeply nested; settings are at most two names deep") from None
    if not isinstance(value, dict):
        raise UsageError(f"{where}: holds no settings by name; write lines such as `epochs: 10`")
    if isinstance(value.get("train"), dict) and "data" in value:
        run = value["train"]
        return Settings(str(path), {name: run[name] for name in OF_A_RUN if run.get(name) is not None}, run)
    if "architectures" in value or "format" in value:
        raise UsageError(f"{where}: describes a network, not a run; take the config.json of a run, or YAML")
    return Settings(str(path), dict(_dotted(value, where)))


def _dotted(value: dict[Any, Any], where: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Values by dotted names, hyphens as underscores; names in the file may be nested, dotted or both."""
    for name, inner in value.items():
        path = f"{prefix}{str(name).replace('-', '_')}"
        if isinstance(inner, dict):
            yield from _dotted(inner, where, f"{path}.")
        else:
            yield path, inner


def _flat(value: list[Any]) -> list[str]:
    return [word for item in value for word in (_flat(item) if isinstance(item, list) else [str(item)])]


def _parsed(text: str, where: str) -> Any:
    """JSON, or YAML without references and without a name twice."""
    try:
        return json.loads(text)
    except ValueError as error:
        if where.endswith(".json"):
            raise UsageError(f"{where}: not JSON ({error}); mend it, or make it anew") from None
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):  # a few of them can stand for millions of values
                raise yaml.composer.ComposerError(None, None, "*references are not read", self.peek_event().start_mark)
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            mapping = super().construct_mapping(node, deep)
            names = [self.construct_object(key, deep=True) for key, _ in node.value]
            for i, (name, (key, _)) in enumerate(zip(names, node.value, strict=True)):
                if name in names[:i]:
                    raise yaml.constructor.ConstructorError(None, None, f"{name} is there twice", key.start_mark)
            return mapping

    try:
        return yaml.load(text, Loader) or {}
    except (yaml.YAMLError, ValueError) as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or error
        line = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"{where}{line}: {printable(problem)[:100]}; write lines such as `epochs: 10`") from None
