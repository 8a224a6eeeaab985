"""Convolutions of stride 1 on a CPU with a third or a quarter of the products, where only answers are wanted: the kernels of
winograd.c.

Shape suffixes: B images, C channels, H rows, W columns, O outputs, P tiles.
"""

from __future__ import annotations

import ctypes
from ctypes import c_int64, c_void_p
from pathlib import Path

import torch
from torch import Tensor, nn

from alexnet.core.native import NativeSource

POINTS, ROWS = 36, 6  # as in winograd.c
LEAST_IMAGES = 8
"""Of fewer images the products that are saved cost less than to transform the kernels, which each call does."""
WORTH_COMPILING = 32
"""Images in a batch for which the compiler is started, if the kernels are not there yet."""
ROOM = 4 << 20
"""Most floats between the stages, about; they are meant to stay in the last cache. Decides how many images a call does."""

KERNELS = NativeSource(
    Path(__file__).with_name("winograd.c"),
    {"spread": [c_void_p] * 3, "convolve": [c_void_p] * 7},
    ("-fopenmp", "-fno-math-errno", "-fno-trapping-math"),
)


class Conv2d(nn.Conv2d):
    """`nn.Conv2d`; without gradients, on a CPU, the same sums in another order and with fewer products: Winograd's minimal
    filtering, whose results differ by about twice float32's rounding errors (tests/models/test_winograd.py). The result for an
    image does not depend on the other images of its batch."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if _fits(self, x_BCHW) and KERNELS.available(build=len(x_BCHW) >= WORTH_COMPILING):
            return _convolve(self, x_BCHW)
        return super().forward(x_BCHW)


def _fits(conv: nn.Conv2d, x_BCHW: Tensor) -> bool:
    """Whether the kernels compute this convolution, and faster: float32 without gradients, 3 x 3 or 5 x 5 kernels that keep the
    size of their maps, whole vectors of channels, and images enough."""
    kernel = conv.kernel_size[0]
    return (
        not torch.is_grad_enabled()
        and type(x_BCHW) is Tensor
        and x_BCHW.device.type == "cpu"
        and x_BCHW.dtype == conv.weight.dtype == torch.float32
        and len(x_BCHW) >= LEAST_IMAGES
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.compiler.is_exporting()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
        and kernel in (3, 5)
        and conv.kernel_size == (kernel, kernel)
        and conv.padding == (kernel // 2, kernel // 2)
        and conv.padding_mode == "zeros"
        and conv.stride == conv.dilation == (1, 1)
        and conv.in_channels % (16 * conv.groups) == 0
        and conv.out_channels % (32 * conv.groups) == 0
        and min(x_BCHW.shape[2:]) > 6
    )


class _Call(ctypes.Structure):
    """`Call` of winograd.c."""

    _fields_ = [
        (name, c_int64)
        for name in (
            *("images", "channels", "outputs", "height", "width", "kernel", "groups", "threads"),
            *("weight_plane", "in_plane", "out_plane"),
        )
    ]


def _convolve(conv: nn.Conv2d, x_BCHW: Tensor) -> Tensor:
    channels, outputs, kernel = conv.in_channels, conv.out_channels, conv.kernel_size[0]
    num, _, height, width = x_BCHW.shape
    x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
    y_BCHW = torch.empty((num, outputs, height, width), memory_format=torch.channels_last)
    tiles = -(-height // (7 - kernel)) * -(-width // (7 - kernel))
    at_once = min(num, max(1, ROOM // (POINTS * tiles * (channels + outputs))))
    rows = -(-at_once * tiles // ROWS) * ROWS
    # Planes a little apart from a power of two, or else the same place of all would fall into the same set of the cache.
    planes = [n + 16 for n in (outputs * channels // conv.groups, rows * channels, rows * outputs)]
    spread, inputs, products = (torch.empty(POINTS * plane) for plane in planes)
    bias_O = torch.zeros(outputs) if conv.bias is None else conv.bias
    threads = torch.get_num_threads()
    call = _Call(at_once, channels, outputs, height, width, kernel, conv.groups, threads, *planes)
    weight = conv.weight.contiguous()
    KERNELS.library.spread(ctypes.byref(call), weight.data_ptr(), spread.data_ptr())
    for first in range(0, num, at_once):
        call.images = min(at_once, num - first)
        KERNELS.library.convolve(
            ctypes.byref(call),
            x_BCHW[first:].data_ptr(),
            spread.data_ptr(),
            bias_O.data_ptr(),
            y_BCHW[first:].data_ptr(),
            inputs.data_ptr(),
            products.data_ptr(),
        )
    return y_BCHW
