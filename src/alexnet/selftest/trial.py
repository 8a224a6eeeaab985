"""All checks, one after the other, in a temporary folder."""

from __future__ import annotations

import multiprocessing
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from alexnet.core.errors import UsageError, perhaps, printable
from alexnet.selftest import faults, figures
from alexnet.selftest.checks import Check, Outcome
from alexnet.selftest.scene import PRELOADED, Scene

CHECKS = (
    Check("counts", "an evaluation counts every image exactly once", figures.counts),
    Check("normalization", "response normalization is the formula of §3.3", figures.normalization),
    Check("normalization-cuda", "and so it is on the GPU", figures.normalization_cuda),
    Check("rot-packed", "damage in a packed set is found, and named by file and image", faults.rot_packed),
    Check("rot-checkpoint", "a damaged checkpoint is found, named and passed over", faults.rot_checkpoint),
    Check("reader", "a reader that hangs is noticed by name", faults.reader),
    Check("worker", "a worker of prepare that dies is named, and nothing is lost", faults.worker),
    Check("repeat", "the same steps on the same machine give the same bytes", figures.repeat),
    Check("stop", "told to stop, a run saves, leaves with 75 and loses no step", faults.stop),
    Check("disk-full", "a save on a full disk leaves the checkpoint before it intact", faults.disk_full),
    Check("kill", "killed at any moment, a resumed run ends with the same bytes", faults.kill),
    Check("rank", "a rank that dies is named within seconds", faults.rank),
    Check("ranks-agree", "two ranks compute what one process does", figures.ranks_agree),
)

QUICK = ("counts", "normalization", "normalization-cuda", "rot-packed", "rot-checkpoint")
"""Checks that take seconds."""


def selftest(only: Sequence[str] = (), say: Callable[[str], object] = lambda _: None) -> list[Outcome]:
    """Try the promises named, or all of them: an outcome of each. ``say`` is told of each before it is tried.

    Everything is made below a temporary folder (``$TMPDIR`` chooses the disk), which is gone at the end, as are all
    processes, also after Ctrl-C or SIGTERM (KeyboardInterrupt). An unknown name: :class:`UsageError`."""
    names = [check.name for check in CHECKS]
    for name in only:
        if name not in names:
            raise UsageError(
                f"no check is called {printable(name)!r}{perhaps(name, names)}; they are {', '.join(names)}"
            )
    chosen = [check for check in CHECKS if not only or check.name in only]
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    outcomes = []
    with _interruptible(), tempfile.TemporaryDirectory(prefix="alexnet-selftest-") as folder:
        scene = Scene(Path(folder))
        for i, check in enumerate(chosen, start=1):
            say(f"{i} of {len(chosen)}, {check.name}: {check.promise}")
            outcomes.append(check(scene))
    return outcomes


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM as Ctrl-C: the default would leave folder and processes behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
