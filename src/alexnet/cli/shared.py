"""What the verbs share: options, messages, JSON on stdout."""

# No `from __future__ import annotations`: tyro must see the types of options.
import contextlib
import io
import itertools
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro

from alexnet.cli.helptext import help_text
from alexnet.cli.names import long_names, unknown
from alexnet.cli.options import given, options_of, spelled
from alexnet.cli.settings import take_settings
from alexnet.core.errors import AlexNetError, UsageError, as_text, printable, refused

if TYPE_CHECKING:
    from alexnet.core.device import Machine, Precision
    from alexnet.core.parts import Part
    from alexnet.evaluation.finding import Finding
    from alexnet.evaluation.predict import Predictor

Options = TypeVar("Options")
Words = Annotated[tuple[str, ...], tyro.conf.Positional]
Word = Annotated[str, tyro.conf.Positional]

MAX_THREADS = 1024
FORMULA_SIGNS = tuple("=+-@＝＋－＠")
"""What begins a formula in a spreadsheet; the wide ones in East Asian editions."""


@dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    """Machine and output."""

    device: str = "auto"
    """Where to compute: auto, cpu, cuda, cuda:N or mps."""
    threads: int | None = None
    """CPU threads for torch. Two runs are equal bit for bit only if they use the same number."""
    workers: int | None = None
    """Threads that read images ahead; by default as many as are needed. They never change a result."""
    data_root: str | None = None
    """Folder that holds the named sets; by default $ALEXNET_DATA, or ./data."""
    config: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """Take options from this file: YAML in which they have these names, or the config.json of a run. What the command line says
    wins."""
    json: bool = False
    """Print one JSON document on stdout."""


@dataclass(frozen=True, kw_only=True)
class ModelOptions(DeviceOptions):
    """Which state of the model."""

    best: bool = False
    """For a run, take the checkpoint with the lowest validation error instead of the last state."""


NOT_ASKED = {*(field.name for field in fields(ModelOptions)), "model", "models", "out", "save"}
"""Options that are no settings of what is measured: where it is computed, on what, and where the result goes."""


def parse(
    cls: type[Options],
    verb: str,
    arguments: list[str],
    *,
    first: Sequence[str] = (),
    decided: Mapping[str, str] = {},
) -> Options:
    """The options of a verb. What tyro says of wrong ones, in a frame of several lines, becomes one :class:`UsageError`. So
    does an empty word, such as an unset variable of a shell leaves: as a path it would mean the working folder.

    ``--help`` prints the help and exits; ``first``: the fields whose options it explains before all others, for a verb with
    many. ``decided``: fields that the program sets, and by what; to give one is refused."""
    options = list(options_of(cls))
    arguments = long_names(arguments, options)
    names = given(arguments)
    if {"-h", "--help", "--help-all"} & {*arguments}:
        opened = {name.rpartition(".")[0] for name in names if name.endswith(".kind")}
        everything = "--help-all" in arguments
        print(help_text(cls, verb, first=first, opened=opened, hidden=decided, all=everything), end="")
        raise SystemExit(0)
    settings, arguments = take_settings(arguments)
    if settings is not None:
        arguments += settings.words(options, arguments)
        with settings.blamed():
            return parse(cls, verb, arguments, first=first, decided=decided)
    if "" in arguments:
        before = arguments[arguments.index("") - 1] if arguments.index("") else verb
        raise UsageError(f"the value after {printable(before)} is empty; give one, or leave the option out")
    for name in names:
        if name in decided:
            raise UsageError(f"--{name.replace('_', '-')} cannot be set: {decided[name]}; leave it out")
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                cls,
                prog=f"alexnet {verb}",
                args=spelled(cls, arguments),
                config=(tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff, tyro.conf.SuppressFixed),
            )
    except SystemExit as exit:
        if exit.code == 0:
            raise
    except ValueError as error:  # a settings dataclass refused its fields
        raise UsageError(_by_option(cls, printable(error))) from None
    raise UsageError(f"{_fault(cls, verb, arguments, said.getvalue())}; `alexnet {verb} --help` lists the options")


def _fault(cls: type, verb: str, arguments: Sequence[str], said: str) -> str:
    """What tyro says in its frame, in a few words of ours; in its own where it says something else."""
    lines = [re.sub(r"[\s│╭╮╰╯─-]+$|^[\s│╭╮╰╯─]+", "", line) for line in said.splitlines()]
    text = re.sub(r"\s+", " ", " ".join(line for line in lines[1:] if line)).partition(" For full helptext")[0]
    if text.startswith("Missing from"):
        places = [f for f in fields(cls) if f.type == Word and f.default is MISSING]
        names = [f.name.upper() for f in places[len(places) - lines.count("STR") :]]
        return f"{verb} lacks {', '.join(names + re.findall(r'(?<= )--[a-z-]+(?= [A-Z{])', text))}"
    values = {option.name: _in_words(option.values) for option in options_of(cls)}
    if match := re.match(r"Missing value for argument '(--[\w.-]+)", text):
        return f"{match[1]} needs {values.get(match[1], 'a value')}"
    if match := re.match(r"invalid choice '(.*)' for argument '(--[\w.-]+)'", text):
        return f"{match[2]} is {printable(match[1])[:60]}; it takes {values.get(match[2], 'another value')}"
    option, _, takes = text.partition(" Argument helptext: ")[2].partition(" ")
    if text.startswith("Error parsing --") and takes:
        words = [b for a, b in itertools.pairwise(arguments) if a.replace("_", "-") == option]
        words += [b for a, equals, b in (word.partition("=") for word in arguments) if equals and a == option]
        wanted = values.get(option, takes.partition(" ")[0])
        return f"{option} is {printable(words[-1])[:60] if words else 'wrong'}; it takes {wanted}"
    if re.match(r"Error parsing [\w.]+: ", text):  # a settings dataclass refused its fields
        return _by_option(cls, printable(text.partition(": ")[2]))
    if text.startswith("Unrecognized options: "):
        return _unrecognized(cls, verb, arguments, text.removeprefix("Unrecognized options: "))
    return printable(text)[:150].rstrip(".")


def _unrecognized(cls: type, verb: str, arguments: Sequence[str], said: str) -> str:
    """Of the words that tyro does not know, the first option, or else the first."""
    words = said.partition(" Perhaps you meant: ")[0].split(", ")
    word = next((word for word in words if word.startswith("-")), words[0])
    place = arguments.index(word) if word in arguments else 0
    return unknown(word, list(options_of(cls)), verb, arguments[place - 1] if place else "")


def _by_option(cls: type, message: str) -> str:
    """A message of a settings dataclass with its fields by the names of their options."""
    names = {}
    for option in options_of(cls):
        for owner in option.owner.__mro__:
            names[option.path] = names[f"{owner.__name__}.{option.field}"] = f"--{option.path.replace('_', '-')}"
    message = re.sub(r"\bTrainConfig\.(?=\w+\.)", "", message)
    return re.sub(r"[A-Za-z]\w*\.\w+", lambda match: names.get(match[0], match[0]), message)


def _in_words(values: str) -> str:
    """What an option takes, in a sentence."""
    if values.startswith("{"):
        return "one of " + values[1:-1].replace(",", ", ")
    in_words = {"N": "a whole number", "X": "a number", "N N": "two whole numbers", "X X": "two numbers"}
    return {**in_words, "N ...": "whole numbers", "X ...": "numbers"}.get(values, f"a value ({values})")


def check_threads(threads: int | None) -> None:
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise UsageError(f"--threads is {threads}; it must be at least 1 and at most {MAX_THREADS:,}")


def check_workers(workers: int | None) -> None:
    if workers is not None and not 0 <= workers <= MAX_THREADS:
        raise UsageError(f"--workers is {workers}; it must be at least 0 and at most {MAX_THREADS:,}")


def check_folder(path: Path, option: str) -> None:
    """Refuse a folder that cannot be written, or made, before anything long begins."""
    nearest = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise UsageError(f"{printable(nearest)} is a file; {option} names a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageError(f"{printable(nearest)} cannot be written to; take another {option}")


def check_file(path: str | None, option: str) -> None:
    """Refuse a file that cannot be written, before anything long begins."""
    if path is None:
        return
    if Path(path).is_dir():
        raise UsageError(f"{printable(path)} is a folder; {option} names a file")
    if not Path(path).parent.is_dir():
        raise UsageError(f"{printable(path)}: its folder is not there; make it first, or take another {option}")
    check_folder(Path(path).parent, option)


def machine_of(options: DeviceOptions) -> "Machine":
    import torch

    from alexnet.core.device import Machine, choose_device
    from alexnet.core.memory import keep_freed_memory

    keep_freed_memory()

    check_threads(options.threads)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    check_workers(options.workers)
    return Machine(device=choose_device(options.device), workers=options.workers, quiet=options.json)


def tell(finding: "Finding", options: DeviceOptions, out: str | None = None) -> None:
    """Write a finding to the file ``out`` and print it, as JSON or in words."""
    settings = {f.name: getattr(options, f.name) for f in fields(options) if f.name not in NOT_ASKED}
    document = finding.document(settings)
    if out is not None:
        from alexnet.core.runs import write_json

        write_json(Path(out), document)
    if options.json:
        print_json(document)
    else:
        print(*finding.lines, sep="\n")


def print_json(value: Any) -> None:
    """One JSON document on stdout. Names that are not UTF-8 are made text: JSON has no lone surrogates."""
    print(json.dumps(_text_in(value), indent=1, ensure_ascii=True, allow_nan=False))


def _text_in(value: Any) -> Any:
    if isinstance(value, dict):
        return {_text_in(key): _text_in(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_text_in(item) for item in value]
    return as_text(value) if isinstance(value, str) else value


def print_part(written: dict[str, str], part: "Part", left: Sequence["Part"], *, json: bool) -> None:
    """That one part of a job is done, and which are not."""
    from alexnet.core.parts import listed

    if json:
        print_json({**written, "part": str(part), "not_done": [str(other) for other in left]})
    else:
        print(f"part {part} is done, not yet {listed(left)}; the last to end joins them")


def inert(text: str) -> str:
    """A CSV cell that no spreadsheet runs as a formula."""
    text = printable(text)
    return "'" + text if text[:1] in FORMULA_SIGNS and len(text) > 1 else text


def describe(error: Exception) -> str:
    """One line for a person. What is not expected to fail says how to see more."""
    if isinstance(error, AlexNetError):
        return printable(error)
    if isinstance(error, OSError):
        return refused(error)
    if isinstance(error, MemoryError) or re.search("out of memory|allocate memory", str(error)):
        return "not enough memory; take a smaller --batch-size, --size or --workers, whichever the verb has, or another --device"
    return f"{type(error).__name__}: {printable(error)[:150]} (--debug shows where)"


def complain(message: str) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(f"alexnet: {message}", file=sys.stderr, flush=True)


def open_outputs() -> None:
    """What was closed before the start leads nowhere: its number is not to become that of a file. A character that a
    terminal's encoding lacks is written as its escape."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, for the rest of the process
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def silence_stdout() -> None:
    """Let the interpreter's last flush go nowhere instead of into a closed pipe."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def load_model(options: ModelOptions, machine: "Machine", precision: "Precision | None" = None) -> "Predictor":
    """The model that the options name."""
    from alexnet.evaluation.predict import load

    named: Any = options
    return load(named.model, machine.device, precision or named.precision, best=options.best)


def bring_back(model: Path) -> None:
    """Put the run back that a killed ``--fresh`` had set aside, before something is written beside it."""
    from alexnet.core.runs import run_being_replaced
    from alexnet.training.files import recover

    if (run := run_being_replaced(model)) is None:
        return
    try:
        recover(run)
    except AlexNetError:
        raise AlexNetError(
            f"{printable(run)}: a training that replaces this run goes on there; wait for its first checkpoint"
        ) from None
