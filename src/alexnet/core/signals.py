"""Stopping when told to, at a moment that loses nothing."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from alexnet.core.console import say

REPEATED = 1.0
"""Seconds within which a signal under torchrun is the same one again: of the terminal or scheduler, and passed on."""


class StopRequest:
    """A context in which the first SIGINT, SIGTERM or SIGHUP sets ``requested``, and a second SIGINT or SIGTERM leaves at once
    with exit code 130. A closed terminal sends SIGHUP itself and again through its shell, so that never leaves at once; where it
    is ignored, as under nohup, it stays so. Elsewhere than in the main thread, where Python delivers no signals, a stop never
    is requested."""

    def __init__(self) -> None:
        self.requested = False
        self.asked = 0.0
        self.previous: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                    continue
                self.previous[number] = signal.getsignal(number)
                signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            if number == signal.SIGHUP:
                return
            if "TORCHELASTIC_RUN_ID" in os.environ and time.monotonic() - self.asked < REPEATED:
                return
            os._exit(130)
        self.requested, self.asked = True, time.monotonic()
        with suppress(RuntimeError):  # a signal may come in the middle of a line on stderr
            say("stopping as soon as everything is saved; a second signal leaves at once")
