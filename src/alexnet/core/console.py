"""What a person sees while a verb works: a bar on a terminal, plain lines elsewhere, always on stderr."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from alexnet.core.errors import printable

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

MIN_BAR, FULL_BAR, MAX_BAR = 8, 16, 24
"""Columns of a progress bar: the fewest, those it has before other fields are shown, and the most."""
LINE_SECONDS = 30.0
"""Seconds between two plain lines where there is no terminal."""

muted = False
"""Whether this process prints nothing, as every rank of a job but the first."""


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

    A context manager; on a terminal a line that fits its width, elsewhere a line every 30 s. ``quiet`` shows nothing.
    """

    current: Bar | None = None

    def __init__(self, what: str, total: int, unit: str = "images", *, done: int = 0, quiet: bool = False) -> None:
        self.what, self.total, self.unit, self.first, self.quiet = what, total, unit, done, quiet or muted
        self.done, self.text = done, ""
        self.live: Any = None
        self.console: Any = None
        self.started = self.said = time.monotonic()

    def __enter__(self) -> Bar:
        if not self.quiet and sys.stderr is not None and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self.console = Console(stderr=True)
        if self.console is not None and self.console.is_terminal and not self.console.is_dumb_terminal:
            self.live = Live(get_renderable=self._line, console=self.console, transient=True, refresh_per_second=8)
            self.live.start()
        Bar.current = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        Bar.current = None
        if self.live is not None:
            with suppress(OSError):  # the terminal was closed
                self.live.stop()

    def update(self, done: int, text: str = "", *, total: int | None = None) -> None:
        """``done`` units of ``total`` are ready; ``text`` stands beside the bar, as many of its fields, two spaces apart, as
        there is room for."""
        self.done, self.text, self.total = done, text, self.total if total is None else total
        now = time.monotonic()
        if self.live is None and not self.quiet and now - self.said >= LINE_SECONDS:
            self.said = now
            said = " ".join([self._count(), *self.text.split()])
            say(f"{self.what}: {said}, {clock(self._left())} left")

    def __call__(self, done: int, total: int) -> None:
        """Itself as the ``progress`` of a job."""
        self.update(done, total=total)

    def _line(self) -> RenderableType:
        fields = [field for field in self.text.split("  ") if field]
        return bar_line(
            self.what,
            self.done / self.total if self.total else 0.0,
            self._left(),
            [*fields, self._count(), f"{clock(time.monotonic() - self.started)} elapsed"],
            self.console.width - 1,  # a full last column makes some terminals begin a new line
            ascii_only=self.console.options.ascii_only,
        )

    def _rate(self) -> float:
        return (self.done - self.first) / max(time.monotonic() - self.started, 1e-9)

    def _left(self) -> float:
        """Seconds, at the rate so far; infinite before the first unit."""
        rate = self._rate()
        return (self.total - self.done) / rate if rate > 0 else math.inf

    def _count(self) -> str:
        return f"{self.done:,}/{self.total:,} {self.unit} {self._rate():,.0f}/s"


def bar_line(what: str, share: float, left: float, fields: Sequence[str], width: int, *, ascii_only: bool) -> Text:
    """One line of at most ``width`` columns: what is done, a bar, its share and the time left always; then as many of ``fields``
    as fit. A Chinese character takes two columns."""
    from rich.text import Text

    share = min(max(share, 0.0), 1.0)
    certain = f" {share:>4.0%} {clock(left)} left"
    name = Text(what, no_wrap=True)
    name.truncate(max(width - MIN_BAR - 1 - len(certain), 0), overflow="ellipsis")
    room = width - name.cell_len - bool(name.cell_len) - len(certain)
    size = max(min(room, MAX_BAR), 0)
    beside = [""]
    for field in fields:
        wider = Text("  ".join([*beside, field]))
        if wider.cell_len > room - min(size, FULL_BAR):
            break
        beside.append(field)
    tail = "  ".join(beside)
    size = min(size, room - Text(tail).cell_len)
    full, rest = ("#", "-") if ascii_only else ("━", "─")
    done = int(share * size)
    line = Text.assemble(
        name, " " if name.cell_len else "", (full * done, "bar.complete"), (rest * (size - done), "bar.back")
    )
    line.append(certain)
    line.append(tail)
    line.no_wrap = True
    return line


def clock(seconds: float) -> str:
    """h:mm:ss."""
    if not math.isfinite(seconds):
        return "-:--:--"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
