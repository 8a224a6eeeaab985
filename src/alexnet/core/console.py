"""What a person sees while a verb works: a bar on a terminal, plain lines elsewhere, always on stderr."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import Any

from alexnet.core.errors import printable

LINE_SECONDS = 30.0
"""Between two plain lines where there is no terminal."""

muted = False
"""Whether this process says nothing: a rank of a job beside its first."""


def mute() -> None:
    """Let the first rank of a job do the talking."""
    global muted
    muted = True


def say(message: object) -> None:
    """One line on stderr, above a running bar. A closed stderr is no reason to lose a run."""
    if muted:
        return
    try:
        if Bar.current is not None and Bar.current.live is not None:
            Bar.current.live.console.print(printable(message), markup=False, highlight=False, soft_wrap=True)
        else:
            print(printable(message), file=sys.stderr, flush=True)
    except OSError:
        pass


class Bar:
    """Progress of one job of ``total`` units: rate, time left, and whatever fields :meth:`update` is given.

    A context manager; on a terminal a rich progress bar, elsewhere a line every 30 s. ``quiet`` shows nothing.
    """

    current: Bar | None = None

    def __init__(self, what: str, total: int, unit: str = "images", *, done: int = 0, quiet: bool = False) -> None:
        self.what, self.total, self.unit, self.first, self.quiet = what, total, unit, done, quiet or muted
        self.done = done
        self.live: Any = None
        self.started = self.said = time.monotonic()

    def __enter__(self) -> Bar:
        if not self.quiet and sys.stderr is not None and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description}", markup=False),  # a path may hold what rich takes for markup
                BarColumn(bar_width=24),
                TextColumn("{task.percentage:>3.0f}% {task.fields[text]}", markup=False),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
            )
            self.live = Progress(*columns, console=Console(stderr=True), transient=True)
            self.task = self.live.add_task(self.what, total=self.total, completed=self.done, text="")
            self.live.start()
        Bar.current = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        Bar.current = None
        if self.live is not None:
            with suppress(OSError):  # of a terminal that was closed
                self.live.stop()

    def update(self, done: int, text: str = "", *, total: int | None = None) -> None:
        """``done`` units of ``total`` are ready; ``text`` stands beside the bar."""
        self.done, self.total = done, self.total if total is None else total
        now = time.monotonic()
        rate = (done - self.first) / max(now - self.started, 1e-9)
        text = f"{done:,}/{self.total:,} {self.unit} {rate:,.0f}/s {text}".rstrip()
        if self.live is not None:
            self.live.update(self.task, completed=done, total=self.total, text=text)
        elif not self.quiet and now - self.said >= LINE_SECONDS:
            self.said = now
            left = (self.total - done) / rate if rate > 0 else float("inf")
            eta = f", {left:,.0f} s left" if left != float("inf") else ""
            say(f"{self.what}: {text}{eta}")
