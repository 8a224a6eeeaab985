"""What the verbs share: options, messages, JSON on stdout."""

# No `from __future__ import annotations`: tyro must see the types of options.
import contextlib
import errno
import io
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro

from alexnet.core.errors import AlexNetError, UsageError, printable

if TYPE_CHECKING:
    from alexnet.core.device import Machine

Options = TypeVar("Options")
Words = Annotated[tuple[str, ...], tyro.conf.Positional]
Word = Annotated[str, tyro.conf.Positional]


@dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    """Where to compute."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    threads: int | None = None
    """CPU threads of torch; part of what makes two runs equal bit for bit."""
    workers: int | None = None
    """Threads that read images ahead; by default as many as turn out to be needed. Never changes a result."""
    data_root: str | None = None
    """Where named sets are; by default $ALEXNET_DATA."""
    json: bool = False
    """One JSON document on stdout."""


def parse(cls: type[Options], verb: str, arguments: list[str]) -> Options:
    """The options of a verb. What tyro says of wrong ones, in a frame of several lines, becomes one :class:`UsageError`."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                cls,
                prog=f"alexnet {verb}",
                args=arguments,
                config=(tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff, tyro.conf.SuppressFixed),
            )
    except SystemExit as exit:
        if exit.code == 0:
            raise
    except ValueError as error:  # a settings dataclass refused its fields
        raise UsageError(printable(error)) from None
    lines = [re.sub(r"[\s│╭╮╰╯─-]+$|^[\s│╭╮╰╯─]+", "", line) for line in said.getvalue().splitlines()]
    lines = [line for line in lines if line and not line.startswith("For full helptext")][1:]
    text = re.sub(r"\s+", " ", " ".join(lines))[:150]
    raise UsageError(f"{text}; `alexnet {verb} --help` lists the options")


def machine_of(options: DeviceOptions) -> "Machine":
    import torch

    from alexnet.core.device import Machine, choose_device
    from alexnet.core.memory import keep_freed_memory

    keep_freed_memory()

    if options.threads is not None:
        if options.threads < 1:
            raise UsageError(f"--threads is {options.threads}; it must be at least 1")
        torch.set_num_threads(options.threads)
    if options.workers is not None and options.workers < 0:
        raise UsageError(f"--workers is {options.workers}; it must be 0 or more")
    return Machine(device=choose_device(options.device), workers=options.workers, quiet=options.json)


def errors_line(views: str, errors: dict[str, Any]) -> str:
    names = {"1": "center view", "10": "ten views"}
    return (
        f"{names.get(views, views)}: top-1 error {errors['top1_error']:.2%} ({errors['top1_errors']} of {errors['n']}), "
        f"top-5 error {errors['top5_error']:.2%} ({errors['top5_errors']} of {errors['n']})"
    )


def print_classes(evaluation: Any) -> None:
    width = max(len(printable(c.name)) for c in evaluation.classes)
    print(f"{'class':<{width}}      n  top-1  top-5 errors")
    for c in sorted(evaluation.classes, key=lambda c: -c.top1_errors / max(c.n, 1))[:20]:
        print(f"{printable(c.name):<{width}} {c.n:>6} {c.top1_errors:>6} {c.top5_errors:>6}")


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=True, allow_nan=False))


def inert(text: str) -> str:
    """A CSV cell that no spreadsheet runs as a formula."""
    text = printable(text)
    return "'" + text if text[:1] in ("=", "+", "-", "@") and len(text) > 1 else text


def describe(error: Exception) -> str:
    """One line for a person. What is not expected to fail says how to see more."""
    if isinstance(error, AlexNetError):
        return printable(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{printable(error.filename or 'disk')}: no space left; free some and run the same command again"
    if isinstance(error, OSError):
        return printable(f"{error.filename}: {error.strerror}" if error.filename else error)
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "not enough memory; take a smaller --batch-size or another --device"
    return f"{type(error).__name__}: {printable(error)[:150]} (--debug shows where)"


def complain(message: str) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(f"alexnet: {message}", file=sys.stderr, flush=True)


def silence_stdout() -> None:
    """Let the interpreter's last flush go nowhere instead of into a closed pipe."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def probe_folder(model: str, out: str | None) -> Path:
    """Where a probe writes: ``out``, or the folder ``probes`` of a run."""
    if out is not None:
        return Path(out)
    if not (Path(model) / "model").is_dir():
        raise UsageError(f"{printable(model)}: not a run; say with --out where to write")
    return Path(model) / "probes"
