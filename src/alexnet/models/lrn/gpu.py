"""Response normalization on CUDA devices, in Triton. Imported where Triton is installed, when it is first needed.

One program computes BLOCK elements, in the order of memory. Neighbors are read again for each element that sees them: they
are in the cache. Shape and window are constants of the compiled kernel, so indices cost multiplications, not divisions.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from alexnet.models.lrn.layout import Layout, Window

BLOCK = 1024


def supports(x_BCHW: Tensor) -> bool:
    """Float32, bfloat16 and float16; float64 is left to torch's operations."""
    return x_BCHW.dtype in (torch.float32, torch.bfloat16, torch.float16) and x_BCHW.numel() > 0


def forward(x_BCHW: Tensor, window: Window) -> Tensor:
    """y, in the type and memory format of x."""
    y_BCHW = torch.empty_like(x_BCHW)
    _forward_kernel[_grid(x_BCHW)](x_BCHW, y_BCHW, x_BCHW.numel(), **_constants(x_BCHW, window))
    return y_BCHW


def backward(g_BCHW: Tensor, x_BCHW: Tensor, window: Window) -> Tensor:
    """The gradient with respect to x, whose memory format ``g_BCHW`` has."""
    dx_BCHW, gxs_BCHW = torch.empty_like(x_BCHW), torch.empty_like(x_BCHW, dtype=torch.float32)
    grid, n, constants = _grid(x_BCHW), x_BCHW.numel(), _constants(x_BCHW, window)
    _backward_products_kernel[grid](x_BCHW, g_BCHW, gxs_BCHW, n, **constants)
    _backward_kernel[grid](x_BCHW, g_BCHW, gxs_BCHW, dx_BCHW, n, **constants)
    return dx_BCHW


def _grid(x_BCHW: Tensor) -> tuple[int]:
    return (triton.cdiv(x_BCHW.numel(), BLOCK),)


def _constants(x_BCHW: Tensor, window: Window) -> dict[str, Any]:
    layout = Layout.of(x_BCHW, window)
    return {
        "GROUPS": layout.groups,
        "LENGTH": layout.length,
        "STEP": layout.step,
        "HALF": window.half,
        "HALF_GROUPS": 0 if window.towers else window.half,
        "K": window.k,
        "C": window.coefficient,
        "BETA": window.beta,
        "RELU": window.relu,
        "BLOCK": BLOCK,
    }


@triton.jit
def _elements(n, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    return at, at < n


@triton.jit
def _load(pointer, at, inside, RELU: tl.constexpr):
    value = tl.load(pointer + at, mask=inside, other=0.0).to(tl.float32)
    if RELU:
        value = tl.where(value < 0, 0.0, value)  # what is not a number stays so
    return value


@triton.jit
def _window_sum(
    pointer, at, inside, GROUPS: tl.constexpr, LENGTH: tl.constexpr, STEP: tl.constexpr, HALF: tl.constexpr,
    HALF_GROUPS: tl.constexpr, RELU: tl.constexpr, SQUARE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    cell = (at // STEP) % LENGTH
    group = (at // (STEP * LENGTH)) % GROUPS
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for dg in tl.static_range(-HALF_GROUPS, HALF_GROUPS + 1):
        for dc in tl.static_range(-HALF, HALF + 1):
            there = inside & (cell + dc >= 0) & (cell + dc < LENGTH)
            if HALF_GROUPS > 0:
                there = there & (group + dg >= 0) & (group + dg < GROUPS)
            value = _load(pointer, at + (dg * LENGTH + dc) * STEP, there, RELU)
            total += value * value if SQUARE else value
    return total


@triton.jit
def _scale(
    x, at, inside, GROUPS: tl.constexpr, LENGTH: tl.constexpr, STEP: tl.constexpr, HALF: tl.constexpr,
    HALF_GROUPS: tl.constexpr, K: tl.constexpr, C: tl.constexpr, RELU: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    return K + C * _window_sum(x, at, inside, GROUPS, LENGTH, STEP, HALF, HALF_GROUPS, RELU, True, BLOCK)


@triton.jit
def _forward_kernel(
    x, y, n, GROUPS: tl.constexpr, LENGTH: tl.constexpr, STEP: tl.constexpr, HALF: tl.constexpr,
    HALF_GROUPS: tl.constexpr, K: tl.constexpr, C: tl.constexpr, BETA: tl.constexpr, RELU: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    at, inside = _elements(n, BLOCK)
    s = _scale(x, at, inside, GROUPS, LENGTH, STEP, HALF, HALF_GROUPS, K, C, RELU, BLOCK)
    power = tl.exp2(-BETA * tl.log2(s))
    tl.store(y + at, _load(x, at, inside, RELU) * power, mask=inside)


@triton.jit
def _backward_products_kernel(
    x, g, gxs, n, GROUPS: tl.constexpr, LENGTH: tl.constexpr, STEP: tl.constexpr, HALF: tl.constexpr,
    HALF_GROUPS: tl.constexpr, K: tl.constexpr, C: tl.constexpr, BETA: tl.constexpr, RELU: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    # g x s^(-beta-1), which the window then sums
    at, inside = _elements(n, BLOCK)
    s = _scale(x, at, inside, GROUPS, LENGTH, STEP, HALF, HALF_GROUPS, K, C, RELU, BLOCK)
    power = tl.exp2((-BETA - 1) * tl.log2(s))
    tl.store(gxs + at, _load(g, at, inside, False) * _load(x, at, inside, RELU) * power, mask=inside)


@triton.jit
def _backward_kernel(
    x, g, gxs, dx, n, GROUPS: tl.constexpr, LENGTH: tl.constexpr, STEP: tl.constexpr, HALF: tl.constexpr,
    HALF_GROUPS: tl.constexpr, K: tl.constexpr, C: tl.constexpr, BETA: tl.constexpr, RELU: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    at, inside = _elements(n, BLOCK)
    s = _scale(x, at, inside, GROUPS, LENGTH, STEP, HALF, HALF_GROUPS, K, C, RELU, BLOCK)
    power = tl.exp2(-BETA * tl.log2(s))
    total = _window_sum(gxs, at, inside, GROUPS, LENGTH, STEP, HALF, HALF_GROUPS, False, False, BLOCK)
    u = _load(x, at, inside, RELU)
    value = _load(g, at, inside, False) * power - 2 * BETA * C * u * total
    if RELU:
        value = tl.where(u == 0, 0.0, value)
    tl.store(dx + at, value, mask=inside)
