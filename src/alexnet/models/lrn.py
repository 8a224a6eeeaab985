"""Local response normalization (§3.3), and the within-map normalizer of the 2012 program.

Both compute ``y = x · s^-β`` with ``s = k + c · (sum of x² over a window)``; the window is made of neighboring channels
or of neighboring positions. The gradient, with ``W`` for the sum over the window, is

    dx = g · s^-β - 2βc · x · W(g · x · s^(-β-1))

Shape suffixes: B images, C channels, H rows, W columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

AlphaTimes = Literal["sum", "mean"]

PIECE_ELEMENTS = 1 << 18
"""On a CPU, work on pieces of about this many elements (1 MB in float32): the operations here are bound by memory, and
the pieces stay in the cache from one to the next. Forward and backward of (128, 96, 55, 55) in bfloat16 on one core: 0.27 s;
0.3 s with 2^16 or 2^20, 1.4 s with the whole batch at once."""


def reference(
    x_BCHW: Tensor, *, size: int, alpha: float, alpha_times: AlphaTimes, beta: float, k: float, towers: int
) -> Tensor:
    """The formula of §3.3 as it is written, one channel after the other: slow, to check the fast one against.

    b_i = a_i / (k + alpha · sum of a_j² over j = max(0, i - n/2) .. min(N - 1, i + n/2))^beta

    ``N`` is the number of channels of *one* tower. With ``alpha_times="mean"``, alpha is first divided by n."""
    coefficient = alpha if alpha_times == "sum" else alpha / size
    out = []
    for tower_BNHW in x_BCHW.chunk(towers, dim=1):
        num = tower_BNHW.shape[1]
        for i in range(num):
            neighbors = tower_BNHW[:, max(0, i - size // 2) : min(num - 1, i + size // 2) + 1]
            out.append(tower_BNHW[:, i] / (k + coefficient * neighbors.square().sum(1)) ** beta)
    return torch.stack(out, dim=1)


class LocalResponseNorm(nn.Module):
    """Normalization by the squares of ``size`` neighboring channels of the same tower (§3.3).

    Any floating-point dtype and both memory formats, which the result keeps; computed in float32 (float64 for float64).
    ``torch.nn.LocalResponseNorm(size, alpha, beta, k)`` is the same with ``alpha_times="mean", towers=1``."""

    def __init__(
        self,
        *,
        size: int = 5,
        alpha: float = 1e-4,
        alpha_times: AlphaTimes = "sum",
        beta: float = 0.75,
        k: float = 2.0,
        towers: int = 1,
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.alpha_times = alpha_times
        self.window = Window(size, alpha if alpha_times == "sum" else alpha / size, beta, k, towers)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return _response_norm(x_BCHW, self.window)

    def extra_repr(self) -> str:
        w = self.window
        return f"{w.size}, alpha={self.alpha} of {self.alpha_times}, beta={w.beta}, k={w.k}, towers={w.towers}"


class MapResponseNorm(nn.Module):
    """Normalization by the squares of ``size`` x ``size`` neighboring positions of the same map; alpha multiplies their
    mean, positions outside the map counting as zeros (2012 program, layer type ``rnorm``)."""

    def __init__(self, *, size: int, alpha: float, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha
        self.window = Window(size, alpha / size**2, beta, k, towers=None)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return _response_norm(x_BCHW, self.window)

    def extra_repr(self) -> str:
        w = self.window
        return f"{w.size} x {w.size}, alpha={self.alpha} of mean, beta={w.beta}, k={w.k}"


class Window(NamedTuple):
    """What is summed over, and the constants of the formula."""

    size: int
    """Neighbors in the window, along each of its dimensions; odd."""
    coefficient: float
    """c, which multiplies the *sum* of squares."""
    beta: float
    k: float
    towers: int | None
    """Channels are summed over within each of so many equal parts; None: positions are summed over, within each map."""


class _ResponseNorm(torch.autograd.Function):
    """Saves its input alone: to compute ``s`` again costs less than to write it to memory and to read it back."""

    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor, window: Window) -> Tensor:
        ctx.save_for_backward(x_BCHW)
        ctx.window = window
        y_BCHW = torch.empty_like(x_BCHW)
        plan = _Plan.of(x_BCHW, window)
        x = plan.buffer(x_BCHW)
        for rows in plan.pieces(x_BCHW):
            plan.load(x, x_BCHW, rows)
            y = _power(plan.scale(x), window.beta).mul_(plan.centers(x))
            plan.store(y_BCHW, y, rows)
        return y_BCHW

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_BCHW: Tensor) -> tuple[Tensor, None]:
        (x_BCHW,) = ctx.saved_tensors
        window: Window = ctx.window
        dx_BCHW = torch.empty_like(x_BCHW)
        plan = _Plan.of(x_BCHW, window)
        g_BCHW = torch.empty_like(x_BCHW).copy_(g_BCHW) if g_BCHW.stride() != x_BCHW.stride() else g_BCHW
        x, g, gxs = plan.buffer(x_BCHW), plan.buffer(x_BCHW), plan.buffer(x_BCHW)
        for rows in plan.pieces(x_BCHW):
            plan.load(x, x_BCHW, rows)
            plan.load(g, g_BCHW, rows)
            s = plan.scale(x)
            g_power = _power(s, window.beta).mul_(plan.centers(g))
            torch.mul(g_power, plan.centers(x), out=plan.centers(gxs)).div_(s)
            dx = g_power.addcmul_(plan.centers(x), plan.window_sum(gxs), value=-2 * window.beta * window.coefficient)
            plan.store(dx_BCHW, dx, rows)
        return dx_BCHW, None


def _response_norm(x_BCHW: Tensor, window: Window) -> Tensor:
    dense = x_BCHW.is_contiguous() or x_BCHW.is_contiguous(memory_format=torch.channels_last)
    return _ResponseNorm.apply(x_BCHW if dense else x_BCHW.contiguous(), window)  # type: ignore[no-any-return, no-untyped-call]


def _power(s: Tensor, beta: float) -> Tensor:
    """s^-beta. For 3/4 by two square roots, six times as fast as the general power on a CPU."""
    if beta != 0.75:
        return s.pow(-beta)
    r = s.rsqrt()
    return r.sqrt().mul_(r)


class _Plan(NamedTuple):
    """How a batch is cut into pieces, and a piece laid out flat so that neighbors are a fixed step apart.

    In memory order a batch is (rows, groups, length, step), and sums run over ``length`` (channels of a tower, or
    columns), for a square window over ``groups`` (the lines of a map) too. In a piece's buffer a gap of zeros follows
    each run of ``length``, and each row of ``groups`` where they are summed over; so a window never sees what is beyond
    the border, and its sum is a few additions of one long flat tensor to itself, shifted.

        channels   NCHW: (B, T, C/T, H·W)   channels last: (B·H·W, T, C/T, 1)
        positions  NCHW: (B·C, H, W, 1)     channels last: (B, H, W, C)"""

    window: Window
    channels_last: bool
    shape: tuple[int, int, int, int]
    stride: tuple[int, int, int, int]
    """Of ``shape`` in a buffer, gaps included."""
    steps: tuple[int, ...]
    """Distance of neighbors in a buffer, for each dimension of the window."""
    margin: int
    """Zeros before the first row of a buffer; the gap after its last row is as long."""

    @classmethod
    def of(cls, x_BCHW: Tensor, window: Window) -> _Plan:
        B, C, H, W = x_BCHW.shape
        channels_last = not x_BCHW.is_contiguous()
        gap = window.size // 2
        if window.towers is not None:
            T = window.towers
            rows, groups, length, step = (B * H * W, T, C // T, 1) if channels_last else (B, T, C // T, H * W)
            group_stride = (length + gap) * step
            row_stride = groups * group_stride
            steps: tuple[int, ...] = (step,)
        else:
            rows, groups, length, step = (B, H, W, C) if channels_last else (B * C, H, W, 1)
            group_stride = (length + gap) * step
            row_stride = (groups + gap) * group_stride
            steps = (step, group_stride)
        shape, stride = (rows, groups, length, step), (row_stride, group_stride, step, 1)
        return cls(window, channels_last, shape, stride, steps, margin=gap * sum(steps))

    def pieces(self, x_BCHW: Tensor) -> Iterator[slice]:
        rows = self._rows_in_piece(x_BCHW)
        for start in range(0, self.shape[0], rows):
            yield slice(start, min(start + rows, self.shape[0]))

    def buffer(self, x_BCHW: Tensor) -> Tensor:
        """Zeros for one piece, in the dtype to compute in."""
        dtype = torch.float64 if x_BCHW.dtype == torch.float64 else torch.float32
        return x_BCHW.new_zeros(self.margin + self._rows_in_piece(x_BCHW) * self.stride[0], dtype=dtype)

    def load(self, buffer: Tensor, x_BCHW: Tensor, rows: slice) -> None:
        piece = self._in_memory_order(x_BCHW)[rows]
        buffer[self.margin :].as_strided(piece.shape, self.stride).copy_(piece)

    def store(self, x_BCHW: Tensor, centers: Tensor, rows: slice) -> None:
        piece = self._in_memory_order(x_BCHW)[rows]
        piece.copy_(centers.as_strided(piece.shape, self.stride))

    def centers(self, buffer: Tensor) -> Tensor:
        """The elements of a buffer that a window can stand on, in line with :meth:`window_sum`."""
        return buffer[self.margin : buffer.numel() - self.margin]

    def window_sum(self, buffer: Tensor) -> Tensor:
        for step in self.steps:
            buffer = _sums_of_neighbors(buffer, self.window.size, step)
        return buffer

    def scale(self, buffer: Tensor) -> Tensor:
        """``k + c · (sum of x² over the window)``, each member of the window bringing its share of ``k``."""
        share = buffer.new_full((), self.window.k / self.window.size ** len(self.steps))
        return self.window_sum(torch.addcmul(share, buffer, buffer, value=self.window.coefficient))

    def _rows_in_piece(self, x_BCHW: Tensor) -> int:
        if x_BCHW.device.type != "cpu":
            return self.shape[0]
        return max(1, min(self.shape[0], PIECE_ELEMENTS // math.prod(self.shape[1:])))

    def _in_memory_order(self, x_BCHW: Tensor) -> Tensor:
        return (x_BCHW.permute(0, 2, 3, 1) if self.channels_last else x_BCHW).view(self.shape)


def _sums_of_neighbors(x: Tensor, size: int, step: int) -> Tensor:
    """Element i is the sum of x[i], x[i + step], ..., ``size`` terms, by doubling: three additions for five terms."""
    total, terms = x, 1
    while 2 * terms <= size:
        total = total[: total.numel() - terms * step] + total[terms * step :]
        terms *= 2
    num = x.numel() - (size - 1) * step
    for i in range(terms, size):
        total = total[:num].add_(x[i * step : i * step + num])
    return total
