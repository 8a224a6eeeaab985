"""Local response normalization (§3.3), and the within-map normalizer of the 2012 program.

Both compute ``y = x · s^-β`` with ``s = k + c · (sum of x² over a window)``; the window is made of neighboring channels
or of neighboring positions. The gradient, with ``W`` for the sum over the window, is

    dx = g · s^-β - 2βc · x · W(g · x · s^(-β-1))

Shape suffixes: B images, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Literal

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.models.lrn import compiled, plain
from alexnet.models.lrn.layout import Window

AlphaTimes = Literal["sum", "mean"]


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


def written_out(x_BCHW: Tensor, window: Window) -> Tensor:
    """The same by a few of torch's operations, which any compiler, exporter or converter knows."""
    B, C, H, W = x_BCHW.shape
    dtype = torch.float64 if x_BCHW.dtype == torch.float64 else torch.float32
    u_BCHW = (x_BCHW.relu() if window.relu else x_BCHW).to(dtype)
    square_BCHW = u_BCHW.square()
    if window.towers:
        runs_BTNP = square_BCHW.reshape(B, window.towers, C // window.towers, H * W)
        padded_BTNP = F.pad(runs_BTNP, (0, 0, window.half, window.half))
        total_BCHW = sum(padded_BTNP[:, :, j : j + C // window.towers] for j in range(window.size)).view(B, C, H, W)  # type: ignore[union-attr]
    else:
        mean_BCHW = F.avg_pool2d(square_BCHW, window.size, 1, window.half, count_include_pad=True)
        total_BCHW = mean_BCHW * window.size**2
    return (u_BCHW * (window.k + window.coefficient * total_BCHW) ** -window.beta).to(x_BCHW.dtype)


class LocalResponseNorm(nn.Module):
    """Normalization by the squares of ``size`` neighboring channels of the same tower (§3.3); with ``relu``, of max(x, 0)
    in the same pass.

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
        relu: bool = False,
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.alpha_times = alpha_times
        self.window = Window(size, alpha if alpha_times == "sum" else alpha / size, beta, k, towers, relu)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return response_norm(x_BCHW, self.window)

    def extra_repr(self) -> str:
        w, relu = self.window, ", of max(x, 0)" if self.window.relu else ""
        return f"{w.size}, alpha={self.alpha} of {self.alpha_times}, beta={w.beta}, k={w.k}, towers={w.towers}{relu}"


class MapResponseNorm(nn.Module):
    """Normalization by the squares of ``size`` x ``size`` neighboring positions of the same map; alpha multiplies their
    mean, positions outside the map counting as zeros (2012 program, layer type ``rnorm``)."""

    def __init__(self, *, size: int, alpha: float, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha
        self.window = Window(size, alpha / size**2, beta, k, towers=0)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return response_norm(x_BCHW, self.window)

    def extra_repr(self) -> str:
        w = self.window
        return f"{w.size} x {w.size}, alpha={self.alpha} of mean, beta={w.beta}, k={w.k}"


@torch.fx.wrap  # one call in the graph of a tracer
def response_norm(x_BCHW: Tensor, window: Window) -> Tensor:
    """y for a batch of maps, differentiable once. The first training step on a CPU has the kernels compiled; what only
    predicts takes them if they are there, and never waits for a compiler."""
    if torch.compiler.is_exporting() or torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
        return _to_export(x_BCHW, window)
    if torch.compiler.is_compiling():
        return torch.ops.alexnet.response_norm(x_BCHW, *window)  # type: ignore[no-any-return]
    if x_BCHW.requires_grad and torch.is_grad_enabled():
        kernels_in_use(x_BCHW.device, build=True)
    return _ResponseNorm.apply(x_BCHW, *window)  # type: ignore[no-any-return,no-untyped-call]


def _to_export(x_BCHW: Tensor, window: Window) -> Tensor:
    """The same for a program that is written down: ONNX has the operator; others get torch's operations."""
    if window.towers and x_BCHW.dtype == torch.float32 and torch.onnx.is_in_onnx_export():
        from alexnet.models.lrn import onnx

        return onnx.response_norm(x_BCHW, window)
    return written_out(x_BCHW, window)


def kernels_in_use(device: torch.device, *, build: bool = False) -> str:
    """Which code normalizes float32 and bfloat16 on a device: ``triton``, ``compiled`` or ``torch``. With ``build`` the
    CPU's kernels are compiled if they are not there yet."""
    if device.type == "cuda":
        return "triton" if find_spec("triton") else "torch"
    return "compiled" if device.type == "cpu" and compiled.KERNELS.available(build=build) else "torch"


def _kernels(x_BCHW: Tensor, window: Window) -> ModuleType:
    if x_BCHW.is_cuda and kernels_in_use(x_BCHW.device) == "triton":
        from alexnet.models.lrn import gpu

        return gpu if gpu.supports(x_BCHW) else plain
    if compiled.supports(x_BCHW, window):
        if compiled.KERNELS.available():
            return compiled
        compiled.KERNELS.tell_failure("response normalization takes three times as long")
    return plain


# One operator for torch: compilers see it as a whole, and autograd calls its gradient. It saves its input alone: to compute s
# again costs less than to write it to memory and to read it back. (Not `torch.library.custom_op`: the first call of such an
# operator imports torch's compiler, which takes a second.)

_WINDOW = "int size, float coefficient, float beta, float k, int towers, bool relu"
_LIBRARY = torch.library.Library("alexnet", "DEF")  # type: ignore[no-untyped-call]
_LIBRARY.define(f"response_norm(Tensor x, {_WINDOW}) -> Tensor")  # type: ignore[no-untyped-call]
_LIBRARY.define(f"response_norm_backward(Tensor g, Tensor x, {_WINDOW}) -> Tensor")  # type: ignore[no-untyped-call]


def _forward(x_BCHW: Tensor, *window: Any) -> Tensor:
    x_BCHW = _dense(x_BCHW)
    return _kernels(x_BCHW, Window(*window)).forward(x_BCHW, Window(*window))  # type: ignore[no-any-return]


def _backward(g_BCHW: Tensor, x_BCHW: Tensor, *window: Any) -> Tensor:
    x_BCHW = _dense(x_BCHW)
    if g_BCHW.stride() != x_BCHW.stride() or g_BCHW.dtype != x_BCHW.dtype:
        g_BCHW = torch.empty_like(x_BCHW).copy_(g_BCHW)
    return _kernels(x_BCHW, Window(*window)).backward(g_BCHW, x_BCHW, Window(*window))  # type: ignore[no-any-return]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x_BCHW, *ctx.window = inputs
    ctx.save_for_backward(x_BCHW)


def _gradient(ctx: Any, g_BCHW: Tensor) -> tuple[Tensor | None, ...]:
    (x_BCHW,) = ctx.saved_tensors
    return torch.ops.alexnet.response_norm_backward(g_BCHW, x_BCHW, *ctx.window), *(None for _ in ctx.window)


_LIBRARY.impl("response_norm", _forward, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
_LIBRARY.impl("response_norm_backward", _backward, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
torch.library.register_fake(
    "alexnet::response_norm", lambda x_BCHW, *_window: torch.empty_like(_dense(x_BCHW)), lib=_LIBRARY
)
torch.library.register_fake(
    "alexnet::response_norm_backward", lambda _g, x_BCHW, *_window: torch.empty_like(_dense(x_BCHW)), lib=_LIBRARY
)
torch.library.register_autograd("alexnet::response_norm", _gradient, setup_context=_save, lib=_LIBRARY)


class _ResponseNorm(torch.autograd.Function):
    """The operator with its gradient as torch.func's transforms want it: they take no gradient that is registered."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x_BCHW: Tensor, *window: Any) -> Tensor:
        return torch.ops.alexnet.response_norm(x_BCHW, *window)  # type: ignore[no-any-return]

    setup_context = staticmethod(_save)
    backward = staticmethod(_gradient)


def _over_more_images(operator: Callable[..., Tensor], num: int) -> Callable[..., tuple[Tensor, int]]:
    """The rule of vmap for an operator on ``num`` tensors: another dimension of images is as good as more of them."""

    def rule(info: Any, dims: tuple[int | None, ...], *arguments: Any) -> tuple[Tensor, int]:
        stacks = [
            x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
            for x, dim in zip(arguments[:num], dims, strict=False)
        ]
        y = operator(*(x_VBCHW.flatten(0, 1) for x_VBCHW in stacks), *arguments[num:])
        return y.view(*stacks[0].shape[:2], *y.shape[1:]), 0

    return rule


for _name, _num in (("response_norm", 1), ("response_norm_backward", 2)):
    _rule = _over_more_images(getattr(torch.ops.alexnet, _name), _num)
    torch.library.register_vmap(f"alexnet::{_name}", _rule, lib=_LIBRARY)


def _dense(x_BCHW: Tensor) -> Tensor:
    """Contiguous or channels last."""
    dense = x_BCHW.is_contiguous() or x_BCHW.is_contiguous(memory_format=torch.channels_last)
    return x_BCHW if dense else x_BCHW.contiguous()
