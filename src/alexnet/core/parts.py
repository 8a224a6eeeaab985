"""A job cut into equal parts for several processes, on one host or on several that share a file system."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from alexnet.core.errors import AlexNetError, UsageError, printable
from alexnet.core.runs import read_json, write_json

Piece = TypeVar("Piece")
Progress = Callable[[int, int], object]
"""Called with (images done, images in all)."""

BEGUN = "plan.json"
SUFFIXES = (".npz", ".placed")
"""Of the file of a piece that is done: what was computed, or a mark that it has been brought to its place."""


@dataclass(frozen=True)
class Part:
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


def parse_part(text: str) -> Part:
    """``I/N`` as written on a command line. :class:`UsageError` if it is not that."""
    if not (match := re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)):
        raise UsageError(f"--part is {printable(text)[:40]!r}; write I/N, as in 2/4 for the second of four parts")
    return Part(int(match[1]), int(match[2]))


def listed(parts: Sequence[Part]) -> str:
    """``part 2/3`` or ``parts 2/3, 3/3``, in full up to eight."""
    names = ", ".join(map(str, parts[:8])) + (f" and {len(parts) - 8:,} more" if len(parts) > 8 else "")
    return f"part{'s' if len(parts) > 1 else ''} {names}"


@dataclass(frozen=True)
class Work:
    """A job of several pieces, each of them done where there is a file of its name in the folder ``place``."""

    place: Path
    pieces: Mapping[str, int]
    """How many images each piece has."""
    parts: int
    fingerprint: str
    """Of all that decides what is computed."""
    finished: Callable[[], bool]
    """Whether the result is there; then the pieces may be gone."""

    def begin(self, folder: Path, other: AlexNetError) -> None:
        """Write down in ``place`` what is computed in how many parts. Where work was begun before, raises ``other`` if it is
        something else, and :class:`UsageError` for another number of parts; whoever begins anew removes ``folder``."""
        if (parts := parts_begun(self.place)) is None:
            write_json(self.place / BEGUN, {"fingerprint": self.fingerprint, "parts": self.parts})
            return
        begun = read_json(self.place / BEGUN)
        if begun.get("fingerprint", begun.get("work")) != self.fingerprint:  # "work": features begun earlier
            raise other
        if parts != self.parts:
            how = f"in {parts} parts; go on with --part I/{parts}" if parts > 1 else "in one; go on without --part"
            raise UsageError(f"{printable(folder)}: begun {how}, or remove this folder to begin anew")

    def done(self) -> set[str]:
        """The pieces that are done. (To list a folder shows what other hosts did; to look for a file may not.)"""
        return {path.stem for path in self.place.iterdir() if path.suffix in SUFFIXES}

    def left(self) -> list[Part]:
        """The parts with a piece that is not done."""
        done, names = self.done(), list(self.pieces)
        parts = (Part(number, self.parts) for number in range(1, min(self.parts, len(names)) + 1))
        left = [part for part in parts if not done.issuperset(part.of(names))]
        return [] if self.finished() else left

    def require_done(self, folder: Path, verb: str) -> None:
        if left := self.left():
            raise AlexNetError(
                f"{printable(folder)}: {listed(left)} not done; run {verb} with --part for each of them, on any host, or "
                "remove this folder"
            )

    def to_do(self, names: Sequence[str], progress: Progress | None) -> tuple[list[str], Callable[[str], None]]:
        """Which of these pieces are to be done, and what is to be called with each of them when it is: it tells ``progress``."""
        done = self.done()
        todo = [name for name in names if name not in done]
        for leftover in self.place.glob(".*.tmp-*"):  # left by a write that was killed
            if leftover.name[1:].partition(".")[0] in todo:  # else another part may be writing it
                leftover.unlink()
        total, count = sum(self.pieces[name] for name in names), 0

        def ready(*done: str) -> None:
            nonlocal count
            count += sum(self.pieces[name] for name in done)
            if progress:
                progress(count, total)

        ready(*(name for name in names if name in done))
        return todo, ready


def parts_begun(place: Path) -> int | None:
    """The number of parts in which work was begun in a folder; None if it was not."""
    return int(read_json(place / BEGUN).get("parts", 1)) if (place / BEGUN).exists() else None


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
