"""``python -m alexnet``, and the command ``alexnet``: Ctrl-C ends it with one line from the very start."""

from __future__ import annotations

import os
import signal
from types import FrameType


def main() -> None:
    """Run the command line. Modules are imported inside, where an interruption is no traceback."""
    ours = (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )  # it may be ignored, as in a shell's background
    if ours:
        signal.signal(signal.SIGINT, _leave)
    from alexnet.cli import main as run_verb

    if ours:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        run_verb()
    finally:
        if ours:
            signal.signal(signal.SIGINT, _leave)


def _leave(_number: int, _frame: FrameType | None) -> None:
    os.write(2, b"alexnet: interrupted\n")
    os._exit(130)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, as Python does; within an import, where libraries turn that into other errors and nothing has
    begun, leave at once."""
    place = frame
    while place is not None:
        if place.f_code.co_filename.startswith("<frozen importlib"):
            _leave(number, frame)
        place = place.f_back
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
