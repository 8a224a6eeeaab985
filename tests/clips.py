"""Short videos for tests: a camera that pans over drawings of `shapes`, encoded by PyAV."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from alexnet.data.builtin import draw_picture

LOSSLESS = ("ffv1", "bgr0")
"""A codec that keeps every pixel, and the format of its pixels."""
REASON = "PyAV is not installed (extra `video`)"


def panned(label: str, num: int, size: int = 48, number: int = 0) -> NDArray[np.uint8]:
    """``num`` frames of a window of ``size`` rows that moves over a drawing, one pixel a frame: (num, size, size + 16, 3)."""
    drawing = np.asarray(draw_picture(label, number).resize((size + 16 + num, size)))
    return np.stack([drawing[:, i : i + size + 16] for i in range(num)])


def write_clip(
    path: Path,
    frame_NHWC: Sequence[NDArray[np.uint8]] | NDArray[np.uint8],
    codec: tuple[str, str] = ("mpeg4", "yuv420p"),
    *,
    rate: int = 25,
    times: Sequence[int] | None = None,
    turn: int = 0,
    aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """A video file; its suffix decides the container. ``times``: of each frame, in milliseconds. ``turn``: degrees
    counterclockwise by which a player is told to turn it."""
    av: Any = pytest.importorskip("av", reason=REASON)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec[0], rate=rate, options=options or {"qscale": "2", "flags": "qscale"})
        stream.height, stream.width = frame_NHWC[0].shape[:2]
        stream.pix_fmt = codec[1]
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if turn:
            stream.set_display_rotation(turn)
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i, pixels in enumerate(frame_NHWC):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[i], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path: Path) -> Path:
    """A file of a video format that holds sound alone."""
    av: Any = pytest.importorskip("av", reason=REASON)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
