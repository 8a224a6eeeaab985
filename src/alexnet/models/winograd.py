"""Convolutions of stride 1 on a CPU with a third or a quarter of the products, where only answers are wanted: the kernels of
winograd.c.

Shape suffixes: B images, C channels, H rows, W columns, O outputs, P tiles.
"""

from __future__ import annotations

import ctypes
from ctypes import c_int64, c_void_p
from pathlib import Path

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.core.native import NativeSource

SIDE = ROWS = 6  # as in winograd.c
LEAST_IMAGES = 8
"""Of fewer images the products that are saved cost less than to transform the kernels, which each call does."""
WORTH_COMPILING = 32
"""Images in a batch for which the compiler is started, if the kernels are not there yet."""
ROOM = 4 << 20
"""Most floats between the stages, about; they are meant to stay in the last cache. Decides how many images a call does."""

KERNELS = NativeSource(
    Path(__file__).with_name("winograd.c"),
    {"spread": [c_void_p] * 3, "convolve": [c_void_p] * 7},
)


class Conv2d(nn.Conv2d):
    """`nn.Conv2d`, computed by :func:`conv2d` where it has stride 1 and the same zeros on all sides."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        plain = self.stride == self.dilation == (1, 1) and self.padding_mode == "zeros"
        if plain and self.padding in ((0, 0), (1, 1), (2, 2)):
            return conv2d(x_BCHW, self.weight, self.bias, padding=int(self.padding[0]), groups=self.groups)
        return super().forward(x_BCHW)


@torch.fx.wrap  # one call in the graph of a tracer
def conv2d(x_BCHW: Tensor, weight_OCkk: Tensor, bias_O: Tensor | None, *, padding: int, groups: int = 1) -> Tensor:
    """A convolution of stride 1. On a CPU in float32, without gradients, the same sums in another order and with fewer products:
    Winograd's minimal filtering, whose rounding errors are two or three times those of a plain sum in float32. The result for
    an image then does not depend on the other images of its batch."""
    if _fits(x_BCHW, weight_OCkk, padding, groups) and KERNELS.available(build=len(x_BCHW) >= WORTH_COMPILING):
        return _convolve(x_BCHW, weight_OCkk, bias_O, padding, groups)
    return F.conv2d(x_BCHW, weight_OCkk, bias_O, padding=padding, groups=groups)


def _fits(x_BCHW: Tensor, weight_OCkk: Tensor, padding: int, groups: int) -> bool:
    """Whether the kernels compute this convolution, and faster: float32 without gradients, 3 x 3 or 5 x 5 kernels, whole vectors
    of channels, maps of more than one tile, and images enough."""
    outputs, channels, *kernel = weight_OCkk.shape
    return (
        not torch.is_grad_enabled()
        and type(x_BCHW) is Tensor
        and x_BCHW.device.type == "cpu"
        and x_BCHW.dtype == weight_OCkk.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.compiler.is_exporting()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
        and len(x_BCHW) >= LEAST_IMAGES
        and kernel in ([3, 3], [5, 5])
        and channels % 16 == 0
        and outputs % (32 * groups) == 0
        and min(x_BCHW.shape[2:]) + 2 * padding > SIDE
        and has_memory(x_BCHW)
        and has_memory(weight_OCkk)
    )


def has_memory(x: Tensor) -> bool:
    """Whether a tensor has an address: not so within torch.func's transforms, where it stands for several."""
    try:
        x.data_ptr()
    except RuntimeError:
        return False
    return True


class _Call(ctypes.Structure):
    """`Call` of winograd.c."""

    _fields_ = [
        (name, c_int64)
        for name in (
            *("images", "channels", "outputs", "height", "width", "kernel", "padding", "groups", "threads"),
            *("weight_plane", "in_plane", "out_plane"),
        )
    ]


def _convolve(x_BCHW: Tensor, weight_OCkk: Tensor, bias_O: Tensor | None, padding: int, groups: int) -> Tensor:
    num, channels, height, width = x_BCHW.shape
    outputs, kernel = len(weight_OCkk), weight_OCkk.shape[3]
    down, across = (side + 2 * padding - kernel + 1 for side in (height, width))
    x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
    y_BCHW = torch.empty((num, outputs, down, across), memory_format=torch.channels_last)
    tile = SIDE + 1 - kernel
    tiles = -(-down // tile) * -(-across // tile)
    at_once = min(num, max(1, ROOM // (SIDE**2 * tiles * (channels + outputs))))
    rows = -(-at_once * tiles // ROWS) * ROWS
    # Planes a little apart from a power of two, or else the same place of all would fall into the same set of the cache.
    planes = [n + 16 for n in (outputs * channels // groups, rows * channels, rows * outputs)]
    spread, inputs, products = (torch.empty(SIDE**2 * plane) for plane in planes)
    weight_OCkk = weight_OCkk.contiguous()
    bias_O = torch.zeros(outputs) if bias_O is None else bias_O.contiguous()
    threads = torch.get_num_threads()
    call = _Call(at_once, channels, outputs, height, width, kernel, padding, groups, threads, *planes)
    KERNELS.library.spread(ctypes.byref(call), weight_OCkk.data_ptr(), spread.data_ptr())
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
