"""Layers and initial weights that the networks share.

Shape suffixes: B images, C channels, H rows, W columns, D units, L positions, O outputs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.core.errors import UsageError
from alexnet.core.rng import DropoutDraw, dropout_keep
from alexnet.models.winograd import conv2d, has_memory

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "gelu": nn.GELU,
}
"""Every nonlinearity by its name in a configuration. One more is one line here: the command line's choices and the probes
read this table."""

if TYPE_CHECKING:
    Activation = str
else:
    Activation = Literal[tuple(ACTIVATIONS)]
Init = Literal["gaussian", "he", "xavier", "torch"]


class TowerLinear(nn.Module):
    """A fully connected layer within each tower, whose units read that tower alone. Weights (D_out, D_in / towers)."""

    def __init__(self, in_features: int, out_features: int, towers: int, *, device: str | None = None) -> None:
        super().__init__()
        self.towers = towers
        self.weight = nn.Parameter(torch.empty(out_features, in_features // towers, device=device))
        self.bias = nn.Parameter(torch.empty(out_features, device=device))

    def forward(self, x_BD: Tensor) -> Tensor:
        return tower_linear(x_BD, self.weight, self.bias, self.towers)


@torch.fx.wrap  # one call in the graph of a tracer, here and below: it cannot follow loops and questions about shapes
def tower_linear(x_BD: Tensor, weight_OD: Tensor, bias_O: Tensor, towers: int) -> Tensor:
    """What :class:`TowerLinear` computes."""
    parts = zip(x_BD.chunk(towers, 1), weight_OD.chunk(towers), bias_O.chunk(towers), strict=True)
    return torch.cat([F.linear(x, weight, bias) for x, weight, bias in parts], dim=1)


class StridedConv2d(nn.Conv2d):
    """`nn.Conv2d` with a stride s, and with `overhang` more zeros at the right and at the bottom.

    A channels-last batch is read as cells of s x s pixels: 3 x 227 x 227 under 11 x 11 kernels with stride 4 is 48 x 57 x 57
    under 3 x 3 kernels with stride 1. Products and sums are the same; but three channels fill no vector unit, and on a CPU
    in float32 the gradient of the weights takes half the time (docs/benchmarks.md)."""

    def __init__(self, *args: Any, overhang: int = 0, **fields: Any) -> None:
        super().__init__(*args, **fields)
        self.overhang = overhang

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return strided_conv2d(
            x_BCHW, self.weight, self.bias, self.stride[0], padding=int(self.padding[0]), overhang=self.overhang
        )


@torch.fx.wrap
def strided_conv2d(
    x_BCHW: Tensor, weight_OCkk: Tensor, bias_O: Tensor | None, stride: int, *, padding: int = 0, overhang: int = 0
) -> Tensor:
    """What :class:`StridedConv2d` computes."""
    if not _is_channels_last(x_BCHW):
        if overhang:
            x_BCHW = F.pad(x_BCHW, (0, overhang, 0, overhang))
        return F.conv2d(x_BCHW, weight_OCkk, bias_O, stride, padding)
    s, pad = stride, padding
    C, k = weight_OCkk.shape[1:3]
    span = -(-k // s)  # side of a kernel, in cells
    B, _, H, W = x_BCHW.shape
    rows, columns = ((side + overhang + 2 * pad - k) // s + span for side in (H, W))
    if pad % s or H % s or W % s:
        x_BCHW = F.pad(x_BCHW, (pad, s * columns - W - pad, pad, s * rows - H - pad))
        pad, H, W = 0, s * rows, s * columns
    device = x_BCHW.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x_BCHW.dtype
    cells_BHWssC = x_BCHW.new_zeros((B, rows, columns, s, s, C), dtype=dtype)
    pixels_BHsWsC = x_BCHW.permute(0, 2, 3, 1).reshape(B, H // s, s, W // s, s, C)
    top, bottom, right = pad // s, min(rows, (pad + H) // s), min(columns, (pad + W) // s)
    cells_BHWssC[:, top:bottom, top:right] = pixels_BHsWsC.transpose(2, 3)[:, : bottom - top, : right - top]
    weight_OCkk = F.pad(weight_OCkk, (0, s * span - k) * 2).view(-1, C, span, s, span, s)
    weight_OCkk = weight_OCkk.permute(0, 3, 5, 1, 2, 4).reshape(len(weight_OCkk), -1, span, span)
    return conv2d(
        cells_BHWssC.view(B, rows, columns, -1).permute(0, 3, 1, 2),
        weight_OCkk.contiguous(memory_format=torch.channels_last),
        bias_O,
        padding=0,
    )


def _is_channels_last(x_BCHW: Tensor) -> bool:
    """Whether a batch is channels last and not contiguous as well. Never for a program that is written down, nor within
    vmap, whose batches answer no such question."""
    if torch.compiler.is_exporting() or torch.jit.is_tracing() or x_BCHW.is_contiguous():  # type: ignore[attr-defined,no-untyped-call]
        return False
    return has_memory(x_BCHW) and x_BCHW.is_contiguous(memory_format=torch.channels_last)


class LocalConv2d(nn.Module):
    """A convolution whose kernels are not shared: each position has its own, and its own biases (cuda-convnet's "local"
    layer). Stride 1, zeros at the borders, so maps keep their size. Weights (L, O, C·k·k / groups), biases (L, O)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        map_size: int,
        *,
        groups: int = 1,
        device: str | None = None,
    ) -> None:
        super().__init__()
        self.kernel = kernel
        self.groups = groups
        positions = map_size**2
        fan_in = in_channels // groups * kernel**2
        self.weight = nn.Parameter(torch.empty(positions, out_channels, fan_in, device=device))
        self.bias = nn.Parameter(torch.empty(positions, out_channels, device=device))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return local_conv2d(x_BCHW, self.weight, self.bias, self.kernel, self.groups)


@torch.fx.wrap
def local_conv2d(x_BCHW: Tensor, weight_LOD: Tensor, bias_LO: Tensor, kernel: int, groups: int) -> Tensor:
    """What :class:`LocalConv2d` computes."""
    B, g = x_BCHW.shape[0], groups
    L, units, D = weight_LOD.shape
    patch_LBgD = F.unfold(x_BCHW, kernel, padding=kernel // 2).permute(2, 0, 1).reshape(L, B, g, D)
    y_NBO = torch.baddbmm(  # N: a product for each position and group
        bias_LO.view(L * g, 1, -1),
        patch_LBgD.transpose(1, 2).reshape(L * g, B, D),
        weight_LOD.view(L * g, -1, D).transpose(1, 2),
    )
    return y_NBO.view(L, g, B, -1).permute(2, 1, 3, 0).reshape(B, units, *x_BCHW.shape[2:])


class Dropout(nn.Module):
    """Dropout of units (§4.2). `plain`: masked in training, times the keep probability at test. `inverted`: masked and
    divided by the keep probability in training, unchanged at test."""

    def __init__(self, layer: str, *, kind: Literal["plain", "inverted"], rate: float) -> None:
        super().__init__()
        self.layer = layer
        self.kind = kind
        self.keep = 1.0 - rate

    def forward(self, x_BD: Tensor, draw: DropoutDraw | None = None) -> Tensor:
        if self.keep == 1.0:
            return x_BD
        if not self.training:
            return x_BD * self.keep if self.kind == "plain" else x_BD
        x_BD = masked(x_BD, self.layer, self.keep, draw)
        return x_BD if self.kind == "plain" else x_BD / self.keep

    def extra_repr(self) -> str:
        return f"{self.layer}, {self.kind}, keep={self.keep}"


@torch.fx.wrap
def masked(x_BD: Tensor, layer: str, keep: float, draw: DropoutDraw | None) -> Tensor:
    """The units that dropout keeps, the others as zeros: those of ``draw``, or by torch's generator."""
    if draw is None:
        return x_BD * (torch.rand_like(x_BD, dtype=torch.float32) < keep)
    return x_BD * dropout_keep(draw, layer, x_BD.shape[1], keep, x_BD.device)


def activation(name: Activation) -> nn.Module:
    """A nonlinearity by its name in the configuration."""
    return ACTIVATIONS[name]()


@torch.no_grad()
def initialize(
    module: nn.Module, generator: torch.Generator, *, init: Init, std: float = 0.0, bias: float = 0.0
) -> None:
    """Give `module.weight` and `module.bias` values, and memory if they have none (the `meta` device). `init`, `std`
    and `bias` are those of :class:`AlexNetConfig`. Draws are made on the CPU in float32."""
    if module.get_parameter("weight").is_meta:
        module.to_empty(device="cpu")
    weight, biases = module.get_parameter("weight"), module.get_parameter("bias")
    if isinstance(module, LocalConv2d):
        fan_in, fan_out = weight.shape[2], weight.shape[1] * module.kernel**2
    else:
        fan_in, fan_out = weight[0].numel(), weight.shape[0] * weight[0, 0].numel()
    if init in ("gaussian", "he"):
        std = std if init == "gaussian" else math.sqrt(2 / fan_in)
        weight.copy_(torch.randn(weight.shape, generator=generator) * std)
    else:
        bound = math.sqrt(6 / (fan_in + fan_out)) if init == "xavier" else 1 / math.sqrt(fan_in)
        weight.copy_((torch.rand(weight.shape, generator=generator) * 2 - 1) * bound)
    if init == "torch":
        biases.copy_((torch.rand(biases.shape, generator=generator) * 2 - 1) / math.sqrt(fan_in))
    else:
        biases.fill_(bias)


MAX_SIZE = 1 << 24
"""No width, side or count of a network may be larger. A bound at all keeps a hostile configuration out of torch."""


def check_sizes(config: object, least: int, *names: str) -> None:
    """Raise ValueError unless these fields of a configuration, numbers or tuples of them, are sizes from ``least``."""
    for name in names:
        value = getattr(config, name)
        if not all(least <= size <= MAX_SIZE for size in (value if isinstance(value, tuple) else (value,))):
            raise ValueError(f"{type(config).__name__}.{name} is {value!r}; sizes go from {least} to {MAX_SIZE:,}")


class InputShape(Protocol):
    """The fields of every network's configuration that say what it reads."""

    @property
    def in_channels(self) -> int: ...
    @property
    def input_size(self) -> int: ...


def check_input(name: str, config: InputShape, x_BCHW: Tensor, *, any_size: bool = False) -> None:
    """Refuse a batch of another shape than the network was built for, naming both."""
    if is_traced(x_BCHW):
        return
    expected = (config.in_channels, config.input_size, config.input_size)
    if tuple(x_BCHW.shape[1:]) != expected:
        raise UsageError(
            f"{name} reads images of shape {expected}, but the batch has shape {tuple(x_BCHW.shape)}: "
            "set in_channels and input_size to those of the data"
            + (", or ask forward_head(forward_features(x))" if any_size else "")
        )


def is_traced(x_BCHW: Tensor) -> bool:
    """Whether a tracer goes through the network, whose shapes are no numbers."""
    return isinstance(x_BCHW, torch.fx.Proxy) or torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call,no-any-return]


WEIGHT_LAYERS = (nn.Conv2d, nn.Linear, TowerLinear, LocalConv2d)
"""The modules that are layers in the paper's sense: each has a `weight`, and a `bias`."""
