"""A picture decoded in a process of its own, which may crash, and which the system ends when it takes too much.

Some decoders read a whole file at once, so that nothing in this process could stop them. On Linux they work in a forked process
with limits of memory and processor time; elsewhere in this process, without.
"""

from __future__ import annotations

import faulthandler
import json
import os
import select
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from PIL import Image

from alexnet.core.errors import ImageError, printable

WALL_SECONDS = 600.0
"""Seconds after which a process that has not answered is ended, however busy the machine is."""
_STRIP_BYTES = 1 << 20
"""Pixels are handed over in strips of about so many bytes, and are never there twice."""


def decode_apart(
    decode: Callable[[], Image.Image], label: str, alone: threading.Lock, *, max_bytes: int, max_seconds: float
) -> Image.Image:
    """What ``decode`` returns, an image of mode RGB whose ``info`` JSON can hold. Its process may have ``max_bytes`` of memory
    more than this one has, and ``max_seconds`` of processor time. ``alone`` is held by who changes the filters of warnings, which
    all threads have in common: it is held while the process is forked. Raises the :class:`ImageError` that ``decode`` raises, or
    one that says how the process ended."""
    if sys.platform != "linux":
        return decode()
    reading, writing = os.pipe()
    with alone, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forked beside threads: it does nothing but decode
        child = os.fork()
        if child == 0:
            _answer(decode, writing, max_bytes, max_seconds)
    os.close(writing)
    image = None
    try:
        with suppress(EOFError):
            image = _receive(reading, label)
    finally:
        os.close(reading)
        status = 0
        with suppress(ProcessLookupError, ChildProcessError):  # where SIGCHLD is ignored
            os.kill(child, signal.SIGKILL)  # it has answered or ended, or is not to go on
            status = os.waitpid(child, 0)[1]
    if image is None:
        raise _ended(status, label, max_bytes, max_seconds)
    return image


# --- in the process -------------------------------------------------------------------------------------------------


def _answer(decode: Callable[[], Image.Image], writing: int, max_bytes: int, max_seconds: float) -> NoReturn:
    """Write one line of JSON, ``info`` and size or what is wrong, and behind it the pixels; and end."""
    try:
        signal.set_wakeup_fd(-1)  # signals of this process are not those of the one that waits
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        faulthandler.disable()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries write there
        _limit(max_bytes, max_seconds)
        with open(writing, "wb") as pipe:
            try:
                image = decode()
            except ImageError as error:
                pipe.write(_line({"reason": error.reason, "detail": error.detail}))
            except Exception as error:
                detail = f"{type(error).__name__}: {printable(error)}"[:200]
                pipe.write(
                    _line({"reason": "too large" if isinstance(error, MemoryError) else "damaged", "detail": detail})
                )
            else:
                pipe.write(_line({"size": image.size, "info": image.info}))
                for box in _strips(*image.size):
                    pipe.write(image.crop(box).tobytes())
    finally:
        os._exit(0)


def _limit(max_bytes: int, max_seconds: float) -> None:
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[5])
    for what, most in (
        (resource.RLIMIT_DATA, pages * resource.getpagesize() + max_bytes),
        (resource.RLIMIT_CPU, int(max_seconds)),  # counted from the fork on
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _strips(width: int, height: int) -> list[tuple[int, int, int, int]]:
    rows = max(1, _STRIP_BYTES // (3 * width))
    return [(0, top, width, min(top + rows, height)) for top in range(0, height, rows)]


# --- who waits for it -----------------------------------------------------------------------------------------------


def _receive(reading: int, label: str) -> Image.Image:
    """The image; :class:`EOFError` where the process ended before it was whole."""
    deadline = time.monotonic() + WALL_SECONDS
    line = bytearray()
    while not line.endswith(b"\n"):
        line += _read(reading, 1, deadline)
    said = json.loads(line)
    if "reason" in said:
        raise ImageError(label, said["reason"], said["detail"])
    image = Image.new("RGB", tuple(said["size"]))
    for left, top, right, bottom in _strips(*image.size):
        size = right - left, bottom - top
        image.paste(Image.frombytes("RGB", size, _read(reading, 3 * size[0] * size[1], deadline)), (left, top))
    image.info = said["info"]
    return image


def _read(reading: int, num: int, deadline: float) -> bytes:
    found = bytearray()
    ready = select.poll()
    ready.register(reading, select.POLLIN)
    while len(found) < num:
        if not ready.poll(max(0.0, deadline - time.monotonic()) * 1000) or not (
            more := os.read(reading, num - len(found))
        ):
            raise EOFError
        found += more
    return bytes(found)


def _ended(status: int, label: str, max_bytes: int, max_seconds: float) -> ImageError:
    """What to say of a process that ended before its answer was whole."""
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if number in (signal.SIGXCPU, signal.SIGKILL):
        return ImageError(label, "too large", f"decoding takes longer than {max_seconds:g} s, or too much memory")
    how = signal.Signals(number).name if number else "without an answer"
    return ImageError(label, "damaged", f"its decoder crashed ({how}) or needs more than {max_bytes >> 20:,} MiB")
