"""Response normalization on a CPU by the kernels of lrn.c."""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int64, c_void_p
from pathlib import Path

import torch
from torch import Tensor

from alexnet.core.native import NativeSource
from alexnet.models.lrn.layout import Layout, Window

TILE = 16  # as in lrn.c
BUFFERS = 5
BLOCK_FLOATS = 256
"""Least size of a block's buffer, where rows allow: five of them in the first-level cache. 512 and 1024 are slower."""
MAX_ROOM = 1 << 22
"""Most floats in a buffer; maps that need more are left to torch's operations."""

KERNELS = NativeSource(
    Path(__file__).with_name("lrn.c"),
    {"forward": [c_void_p] * 3, "backward": [c_void_p] * 4},
)


def supports(x_BCHW: Tensor, window: Window) -> bool:
    """Float32 or bfloat16 on a CPU with the paper's exponent, and maps of a reasonable size."""
    return (
        x_BCHW.device.type == "cpu"
        and x_BCHW.dtype in (torch.float32, torch.bfloat16)
        and window.beta == 0.75
        and x_BCHW.numel() > 0
        and _room(Layout.of(x_BCHW, window), window)[1] <= MAX_ROOM
    )


def forward(x_BCHW: Tensor, window: Window) -> Tensor:
    """y, in the type and memory format of x."""
    y_BCHW = torch.empty_like(x_BCHW)
    call, _scratch = _call(x_BCHW, window)
    KERNELS.library.forward(ctypes.byref(call), x_BCHW.data_ptr(), y_BCHW.data_ptr())
    return y_BCHW


def backward(g_BCHW: Tensor, x_BCHW: Tensor, window: Window) -> Tensor:
    """The gradient with respect to x, whose type and memory format ``g_BCHW`` has."""
    dx_BCHW = torch.empty_like(x_BCHW)
    call, _scratch = _call(x_BCHW, window)
    KERNELS.library.backward(ctypes.byref(call), x_BCHW.data_ptr(), g_BCHW.data_ptr(), dx_BCHW.data_ptr())
    return dx_BCHW


class _Call(ctypes.Structure):
    """`Call` of lrn.c."""

    _fields_ = [
        *((name, c_int64) for name in ("rows", "groups", "length", "step", "size", "square", "relu", "bfloat16")),
        ("k", c_float),
        ("c", c_float),
        *((name, c_int64) for name in ("threads", "rows_in_block", "room")),
        ("scratch", c_void_p),
    ]


def _room(layout: Layout, window: Window) -> tuple[int, int]:
    """Rows of a block, and the floats that one of its buffers needs."""
    lanes = min(layout.step, TILE)
    run = (layout.length + window.half) * lanes
    row = (layout.groups + (0 if window.towers else window.half)) * run
    margin = window.half * lanes + (0 if window.towers else window.half * run)
    rows = max(1, BLOCK_FLOATS // row)
    room = rows * row + 2 * margin
    # Whole cache lines, and one more, so that the same place of two buffers does not fall into the same set.
    return rows, room + -room % 16 + 16


def _call(x_BCHW: Tensor, window: Window) -> tuple[_Call, Tensor]:
    """What the kernels are told, and the memory they work in, which must outlive the call."""
    layout, threads = Layout.of(x_BCHW, window), torch.get_num_threads()
    rows_in_block, room = _room(layout, window)
    scratch = torch.empty(threads * BUFFERS * room)
    call = _Call(
        *layout,
        size=window.size,
        square=int(window.towers == 0),
        relu=int(window.relu),
        bfloat16=int(x_BCHW.dtype == torch.bfloat16),
        k=window.k,
        c=window.coefficient,
        threads=threads,
        rows_in_block=rows_in_block,
        room=room,
        scratch=scratch.data_ptr(),
    )
    return call, scratch
