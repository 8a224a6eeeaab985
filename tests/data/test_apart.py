"""A decoder in a process of its own is ended when it takes too much, and may crash."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from alexnet.core.errors import ImageError
from alexnet.data import decode as decoding
from alexnet.data.apart import decode_apart
from alexnet.data.decode import decode_image
from odd_images import PICTURE, by_pillow

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there are no such processes")
TALL = np.random.default_rng(0).integers(0, 256, (3000, 500, 3), dtype=np.uint8)


def apart(decode: Callable[[], Image.Image]) -> Image.Image:
    return decode_apart(decode, "a.jxl", threading.Lock(), max_bytes=64 << 20, max_seconds=1)


def picture() -> Image.Image:
    image = Image.fromarray(TALL)
    image.info = {"format": "JXL", "warnings": ["odd"]}
    return image


def test_the_pixels_come_over_whole_with_what_is_said_of_them():
    image = apart(picture)
    assert np.array_equal(image, TALL)
    assert image.info == {"format": "JXL", "warnings": ["odd"]}


def refuse() -> Image.Image:
    raise ImageError("another name", "truncated", "cut")


def vast() -> Image.Image:
    return Image.frombytes("L", (10, 10), bytes(2 << 30))


def endless() -> Image.Image:
    while True:
        pass


def crash() -> Image.Image:
    os.kill(os.getpid(), signal.SIGSEGV)
    raise AssertionError


def fault() -> Image.Image:
    raise KeyError("of ours")


@pytest.mark.parametrize(
    ("decode", "reason", "said"),
    [
        (refuse, "truncated", "a.jxl: truncated (cut)"),
        (vast, "too large", "MemoryError"),
        (endless, "too large", "decoding takes longer than 1 s"),
        (crash, "damaged", "its decoder crashed (SIGSEGV) or needs more than 64 MiB"),
        (fault, "damaged", "KeyError"),
    ],
)
def test_whatever_goes_wrong_there_is_a_fault_of_the_file(decode, reason, said, capfd, monkeypatch):
    fork, processes = os.fork, []
    monkeypatch.setattr(os, "fork", lambda: processes.append(fork()) or processes[-1])
    with pytest.raises(ImageError) as caught:
        apart(decode)
    assert caught.value.reason == reason
    assert said in str(caught.value)
    assert capfd.readouterr() == ("", "")
    with pytest.raises(ChildProcessError):
        os.waitpid(*processes, os.WNOHANG)  # it is not left behind


def test_threads_decode_at_the_same_time_beside_those_that_need_no_process():
    files = [by_pillow(PICTURE, fmt, quality=100) for fmt in ("AVIF", "PNG", "AVIF", "GIF")] * 3
    with ThreadPoolExecutor(4) as threads:
        images = list(threads.map(decode_image, files))
    assert [image.size for image in images] == [PICTURE.shape[1::-1]] * len(files)


def test_no_other_thread_changes_the_filters_of_warnings_while_a_process_is_forked(monkeypatch):
    fork, held, before = os.fork, [], list(warnings.filters)

    def counted() -> int:
        held.append(decoding._PROCESS_LOCK.locked())
        return fork()

    monkeypatch.setattr(os, "fork", counted)
    decode_image(by_pillow(PICTURE, "AVIF", quality=100))
    assert held == [True]
    assert not decoding._PROCESS_LOCK.locked()
    assert warnings.filters == before
