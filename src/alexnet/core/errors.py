"""What can go wrong, and the exit code each kind has (the command line prints ``str(error)`` as one line)."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from difflib import get_close_matches
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


class NotFiniteError(AlexNetError):
    """A loss, or an output of a network, that is NaN or infinite."""


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


def perhaps(name: str, known: Iterable[str]) -> str:
    """`` (perhaps NAME)`` with the one of ``known`` that is most like ``name``, for the end of a clause; empty if none is."""
    name, known = name[:100].lower(), list(known)
    near = [other for other in known if name and other.lower().startswith(name)] or get_close_matches(name, known, 1)
    return f" (perhaps {near[0]})" if near else ""


_REMEDIES = {
    errno.ENOENT: "make its folder first, or name another",
    errno.EISDIR: "name a file",
    errno.ENOTDIR: "a part of this path is a file; name another",
    errno.EEXIST: "name another, or remove it",
    errno.EACCES: "change its rights, or name another",
    errno.EPERM: "change its rights, or name another",
    errno.EROFS: "name a place that can be written to",
    errno.ENAMETOOLONG: "name a shorter one",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENOSPC: "free some space and run the same command again",
    errno.EDQUOT: "free some space and run the same command again",
    errno.EIO: "the disk may be failing; save what is on it and use another",
}


def refused(error: OSError, path: str | Path | None = None) -> str:
    """What the system refused, of which file, and what to do about it: one line. ``path`` where the error names none."""
    where = error.filename or path
    text = f"{where}: {error.strerror}" if where and error.strerror else str(error)
    return printable(text) + (f"; {remedy}" if (remedy := _REMEDIES.get(error.errno or 0)) else "")


def printable(text: object) -> str:
    """``text`` on one line, with control characters and undecodable bytes escaped: safe to print and to log."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(text))


def in_short(error: object) -> str:
    """What an error of another library says, on one line of at most 150 characters; its kind if it says nothing."""
    return printable(error)[:150] or type(error).__name__


def as_text(name: str) -> str:
    """A name of a file as text that any program can read: bytes of it that are not UTF-8, which Python keeps as lone
    surrogates, become ``\\xNN``."""
    return (
        "".join(_undecodable(ord(c)) if "\ud800" <= c <= "\udfff" else c for c in name) if not name.isascii() else name
    )


def _undecodable(code: int) -> str:
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"
