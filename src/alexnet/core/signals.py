"""Stopping when told to, at a moment that loses nothing."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from alexnet.core.console import say


class StopRequest:
    """A context in which the first SIGINT or SIGTERM sets ``requested``, and the second leaves at once with exit code
    130. Elsewhere than in the main thread, where Python delivers no signals, it never is requested."""

    def __init__(self) -> None:
        self.requested = False
        self.previous: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.getsignal(number)
                signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            os._exit(130)
        self.requested = True
        say("stopping as soon as nothing is lost by it; once more leaves at once")
