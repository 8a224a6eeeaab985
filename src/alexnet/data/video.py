"""The frames of a video file as pictures, one at a time: upright, in square pixels, with their times.

PyAV reads them, which holds FFmpeg (extra ``video``). A file is recognized by its content; FFmpeg is told the format, so that it
never takes a file for a list of other files. What is wrong with a file is an :class:`ImageError`, as for an image.

Shape suffixes: H rows, W columns, C channels.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alexnet.core.errors import AlexNetError, ImageError, Reason, UsageError, printable
from alexnet.data.decode import kind_of_video, open_file

MAX_FILE_BYTES = 64 << 30
MAX_PIXELS = 8192 * 4352
"""Limit of a frame. A decoder may hold 17 of them, 53 MB each."""
MAX_FRAMES = 1_000_000
"""Limit of the frames that are decoded: 9 hours of 30 a second."""
MAX_SECONDS = 8.0
"""Processor time from one frame to the next."""
MAX_STRETCH = 4
"""A stated ratio of width and height of a pixel that is further from 1 is no camera's, and is not believed."""
HEAD_BYTES = 512
_MAX_BOXES = 1_000_000
_SOUND_ONLY = "it holds no video; name a file that does"


@dataclass(frozen=True, eq=False)
class Frame:
    number: int
    """Its place in the file, from 0."""
    seconds: float
    """Time since the first frame."""
    image: Image.Image
    """Upright, RGB."""
    of: int | None
    """How many frames the file says it has, where it says so or tells it by its length; not always right."""


def is_video(path: str | Path) -> bool:
    """Whether a file begins as videos do. What cannot be read is none: to decode it says why."""
    with suppress(ImageError), _opened(Path(path), str(path)):
        return True
    return False


def require_pyav() -> Any:
    """PyAV. :class:`AlexNetError` where it is not installed, or one that ends the process when it opens an MPEG file with
    options, as all before 18 do."""
    try:
        import av
    except ImportError:
        raise AlexNetError('videos are read with PyAV: pip install "alexnet[video]"') from None
    if int(av.__version__.partition(".")[0]) < 18:
        raise AlexNetError(f'videos need PyAV 18, and this is {av.__version__}: pip install "alexnet[video]"')
    return av


def frames(path: str | Path, every: int = 1, name: str | None = None) -> Iterator[Frame]:
    """Every ``every``-th frame of a video file, from the first on, in the order in which they are shown. All are decoded, and one
    is in memory at a time, besides what the decoder keeps.

    Times are those that the file states, so that they are right where the rate varies; where it states none, they are counted
    at its rate. Raises :class:`ImageError` for whatever is wrong with the file, at the frame where that is found, and
    :class:`AlexNetError` without PyAV."""
    if every < 1:
        raise UsageError(f"every is {every}; it must be at least 1")
    av, label = require_pyav(), name if name is not None else str(path)
    with _opened(Path(path), label) as (file, kind, size), _faults_of(label), ExitStack() as stack:
        if _ends_early(file, kind, size):
            raise ImageError(label, "truncated", f"{size:,} bytes, and more were written")
        watched = _Watched(file)
        container = stack.enter_context(av.open(watched, format=kind, options=_OPTIONS))
        pictures = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not pictures:
            raise ImageError(label, "unsupported format", _SOUND_ONLY)
        stream = pictures[0]
        _check_size(stream.codec_context.width, stream.codec_context.height, label)
        stream.codec_context.thread_count = 1  # so that its processor time is this thread's
        yield from _chosen(container, stream, every, watched, label)


_OPTIONS = {"max_pixels": str(MAX_PIXELS), "err_detect": "explode", "protocol_whitelist": "none"}
"""What is damaged is refused and not concealed; no file leads to another file."""


def _chosen(container: Any, stream: Any, every: int, watched: _Watched, label: str) -> Iterator[Frame]:
    number, first, of = 0, None, _said_frames(stream)
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    for packet in container.demux(stream):
        if packet.is_corrupt:
            raise ImageError(label, "damaged", f"after {number:,} frames")
        watched.require_time()
        for decoded in packet.decode():
            if number >= MAX_FRAMES:
                raise ImageError(label, "too large", f"more than {MAX_FRAMES:,} frames")
            _check_size(decoded.width, decoded.height, label)
            if first is None and decoded.pts is not None:
                first = decoded.pts * decoded.time_base - number / rate
            if number % every == 0:
                stated = decoded.pts is not None and first is not None
                seconds = decoded.pts * decoded.time_base - first if stated else number / rate
                yield Frame(number, float(seconds), _upright(decoded, stream), of)
            number += 1
            watched.allow_more()
    if not number:
        raise ImageError(label, "damaged", "no frame of it can be read")


def _said_frames(stream: Any) -> int | None:
    if stream.frames:
        return int(stream.frames)
    length = stream.duration and stream.duration * stream.time_base
    if not length and stream.container.duration:
        length = Fraction(stream.container.duration, 1_000_000)
    return max(1, round(length * stream.average_rate)) if length and stream.average_rate else None


def _check_size(width: int, height: int, label: str) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(label, "too large", f"{width} x {height} pixels; at most {MAX_PIXELS:,}")


def _upright(frame: Any, stream: Any) -> Image.Image:
    ratio = stream.codec_context.sample_aspect_ratio or stream.sample_aspect_ratio or 1
    width, height = frame.width, frame.height
    if 1 < ratio <= MAX_STRETCH:
        height = max(1, round(height / ratio))
    elif 1 / MAX_STRETCH <= ratio < 1:
        width = max(1, round(width * ratio))
    pixels_HWC: NDArray[np.uint8] = frame.to_ndarray(format="rgb24", width=width, height=height)
    matrix = frame.side_data.get("DISPLAYMATRIX")
    return Image.fromarray(np.ascontiguousarray(pixels_HWC if matrix is None else turned(pixels_HWC, matrix)))


def turned(pixels_HWC: NDArray[np.uint8], matrix: Any) -> NDArray[np.uint8]:
    """The pixels as a display matrix, the bytes of nine 32-bit numbers, shows them. Of these a, b say where one step to the right
    leads, c, d one step down; of others than quarter turns and mirror images the nearest is taken."""
    a, b, _, c, d, *_ = np.frombuffer(matrix, dtype=np.int32).tolist()
    right, down = a, d
    if abs(b) > abs(a):
        pixels_HWC, right, down = pixels_HWC.swapaxes(0, 1), c, b
    return pixels_HWC[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]


class _Watched:
    """A file that refuses to be read once the time for a frame is up, which ends a search of the demuxer too."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.allow_more()

    def allow_more(self) -> None:
        """Begin the time of another frame."""
        self._deadline = time.thread_time() + MAX_SECONDS

    def require_time(self) -> None:
        if time.thread_time() > self._deadline:
            raise TimeoutError(f"a frame takes longer than {MAX_SECONDS:g} s to decode")

    def read(self, size: int) -> bytes:
        self.require_time()
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


@contextmanager
def _opened(path: Path, label: str) -> Iterator[tuple[BinaryIO, str, int]]:
    """The file, open at its start; its format; its bytes."""
    with open_file(path, label, MAX_FILE_BYTES) as file:
        size, head = os.fstat(file.fileno()).st_size, file.read(HEAD_BYTES)
        file.seek(0)
        if not head:
            raise ImageError(label, "empty", "0 bytes")
        if not (kind := kind_of_video(head)):
            raise ImageError(label, "unsupported format", f"begins with {head[:8]!r}, as no video that is read here")
        yield file, kind, size


@contextmanager
def _faults_of(label: str) -> Iterator[None]:
    """Whatever PyAV raises is a fault of the file."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:
        text = printable(getattr(error, "strerror", None) or error)[:200] or type(error).__name__
        reason: Reason = "too large" if isinstance(error, TimeoutError | MemoryError) else "damaged"
        raise ImageError(label, reason, text) from error


def _ends_early(file: BinaryIO, kind: str, size: int) -> bool:
    """Whether a file says that it goes on after its end: FFmpeg takes a cut one for a shorter one."""
    end_of = {"mov": _end_of_boxes, "avi": _end_of_riff, "matroska": _end_of_segment}.get(kind)
    early = end_of is not None and end_of(file) > size
    file.seek(0)
    return early


def _end_of_boxes(file: BinaryIO) -> int:
    """Where the last box that holds pictures, or says where they are, ends in an MP4 or QuickTime file."""
    at = end = 0
    for _ in range(_MAX_BOXES):
        file.seek(at)
        head = file.read(16)
        length, name = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if len(head) < 8 or length < 8:  # 0: up to the end
            break
        at += length
        end = at if name in (b"mdat", b"moov", b"moof") else end
    return end


def _end_of_riff(file: BinaryIO) -> int:
    length = int.from_bytes(file.read(8)[4:], "little")
    return 0 if length in (0, 0xFFFFFFFF) else 8 + length


def _end_of_segment(file: BinaryIO) -> int:
    """Where the segment ends in a Matroska file, which it may leave open."""
    at = 0
    for _ in range(3):  # the header, perhaps a void, the segment
        file.seek(at)
        head = file.read(16)
        id_bytes = 9 - (head[0].bit_length() if head else 0)
        rest = head[id_bytes:]
        if not rest or not rest[0]:
            return 0
        size_bytes = 9 - rest[0].bit_length()
        length = int.from_bytes(rest[:size_bytes], "big") & ((1 << 7 * size_bytes) - 1)
        is_open = length == (1 << 7 * size_bytes) - 1
        at += id_bytes + size_bytes + length
        if head[:4] == b"\x18S\x80g":
            return 0 if is_open else at
    return 0
