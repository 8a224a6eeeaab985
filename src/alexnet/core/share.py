"""A job cut into equal parts for several processes, on one host or on several that share a file system."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from alexnet.core.errors import AlexNetError, UsageError, printable

Piece = TypeVar("Piece")


@dataclass(frozen=True)
class Share:
    """One part of a job: every ``total``-th piece of work, from number ``number`` on, which starts at 1."""

    number: int
    total: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.total:
            raise UsageError(f"--part {self} does not exist: the parts of N are 1/N to N/N, as in 2/4")

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"

    def of(self, pieces: Sequence[Piece]) -> Sequence[Piece]:
        """The pieces that belong to this part."""
        return pieces[self.number - 1 :: self.total]


def parse_share(text: str) -> Share:
    """``I/N`` as written on a command line. :class:`UsageError` if it is not that."""
    if not (match := re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)):
        raise UsageError(f"--part is {printable(text)[:40]!r}; write I/N, as in 2/4 for the second of four parts")
    return Share(int(match[1]), int(match[2]))


def unfinished(pieces: Sequence[str], done: set[str], total: int) -> list[Share]:
    """Which of ``total`` parts have a piece that is not done."""
    shares = (Share(number, total) for number in range(1, min(total, len(pieces)) + 1))
    return [share for share in shares if not done.issuperset(share.of(pieces))]


def listed(shares: Sequence[Share]) -> str:
    """``part 2/3`` or ``parts 2/3, 3/3``, in full up to eight."""
    names = ", ".join(map(str, shares[:8])) + (f" and {len(shares) - 8:,} more" if len(shares) > 8 else "")
    return f"part{'s' if len(shares) > 1 else ''} {names}"


@contextmanager
def locked(place: Path) -> Iterator[None]:
    """One process at a time; another waits. ``place``: a folder that is there for this, made if need be and left.

    Locked is a file in it, open for writing: that is what network file systems lock for all hosts. Where they lock no
    files, the folder itself is locked, which other processes of this host see.
    """
    place.mkdir(exist_ok=True)
    with open(place / "lock", "ab") as file, _opened(place) as folder:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time in a folder that is there; another of this host gets an :class:`AlexNetError`."""
    with _opened(folder) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlexNetError(
                f"{printable(folder)}: another process is writing to it; wait until it is done"
            ) from None
        yield


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
