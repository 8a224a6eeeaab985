"""What a check of a promise is, and what comes out of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from alexnet.core.errors import AlexNetError, printable, refused
from alexnet.selftest.scene import Scene


class BrokenError(Exception):
    """A promise that was not kept: what was seen instead."""


class NotHereError(Exception):
    """Why a promise cannot be tried on this machine."""


@dataclass(frozen=True)
class Outcome:
    name: str
    promise: str
    result: Literal["passed", "failed", "skipped"]
    detail: str
    """What was done and seen; for a failure, what was seen instead; for a skipped check, the reason."""
    seconds: float


@dataclass(frozen=True)
class Check:
    name: str
    promise: str
    work: Callable[[Scene], str]
    """Returns what was done and seen if the promise was kept; else raises :class:`BrokenError`, or what the program raised."""

    def __call__(self, scene: Scene) -> Outcome:
        start = time.monotonic()
        result: Literal["passed", "failed", "skipped"] = "failed"
        try:
            detail, result = self.work(scene), "passed"
        except NotHereError as reason:
            detail, result = str(reason), "skipped"
        except (BrokenError, AlexNetError) as error:
            detail = str(error)
        except OSError as error:
            detail = refused(error)
        except Exception as error:  # a check that fails in another way than was thought of has failed all the same
            detail = f"{type(error).__name__}: {error}"
        return Outcome(self.name, self.promise, result, printable(detail)[:400], time.monotonic() - start)


def require(kept: bool, seen: str) -> None:
    """Raise :class:`BrokenError` unless a part of a promise was kept."""
    if not kept:
        raise BrokenError(seen)


def table(outcomes: Sequence[Outcome]) -> str:
    """One line for each check; below it the promise, where it was not kept."""
    width = max(len(outcome.name) for outcome in outcomes)
    lines = []
    for outcome in outcomes:
        lines.append(f"{outcome.name:<{width}}  {outcome.result:<7} {outcome.seconds:6.1f} s  {outcome.detail}")
        if outcome.result == "failed":
            lines.append(f"{'':<{width}}  promised: {outcome.promise}")
    return "\n".join(lines)
