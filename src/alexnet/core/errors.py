"""What can go wrong, and the exit code each kind has (the command line prints ``str(error)`` as one line)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Reason = Literal[
    "truncated", "not an image", "too large", "unsupported format", "no permission", "empty", "missing", "damaged"
]


class AlexNetError(Exception):
    """A failure the user can understand: the message says what, where, the rule and what to do next."""

    exit_code = 1


class UsageError(AlexNetError):
    """A wrong invocation: unknown name, ill-typed field, settings that contradict each other."""

    exit_code = 2


class CheckError(AlexNetError):
    """The command ran, but a check of its result failed."""

    exit_code = 3


class DataError(AlexNetError):
    """Faults in the data: unreadable images, leaks between splits, damaged records."""

    exit_code = 4


class ImageError(DataError):
    """One image that cannot be used: ``path``, a ``reason`` class, and ``detail`` for people."""

    def __init__(self, path: str | Path, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{printable(path)}: {reason}" + (f" ({detail})" if detail else ""))
        self.path = path
        self.reason: Reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[ImageError], tuple[str | Path, Reason, str]]:
        return ImageError, (self.path, self.reason, self.detail)  # crosses process boundaries in `prepare`


class StoppedError(AlexNetError):
    """Stopped on request, with a checkpoint: the same command with ``--resume`` goes on from there."""

    exit_code = 75


def printable(text: object) -> str:
    """``text`` on one line, with control characters and undecodable bytes escaped: safe to print and to log."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(text))
