"""Layers and initial weights that the networks share.

Shape suffixes: B images, C channels, H rows, W columns, D units, L positions, O outputs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.core.errors import UsageError
from alexnet.core.rng import DropoutDraw, dropout_keep
from alexnet.models.winograd import conv2d

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
        towers = zip(
            x_BD.chunk(self.towers, 1), self.weight.chunk(self.towers), self.bias.chunk(self.towers), strict=True
        )
        return torch.cat([F.linear(x, weight, bias) for x, weight, bias in towers], dim=1)


class StridedConv2d(nn.Conv2d):
    """`nn.Conv2d` with a stride s, and with `overhang` more zeros at the right and at the bottom.

    A channels-last batch is read as cells of s x s pixels: 3 x 227 x 227 under 11 x 11 kernels with stride 4 is 48 x 57 x 57
    under 3 x 3 kernels with stride 1. Products and sums are the same; but three channels fill no vector unit, and on a CPU
    in float32 the gradient of the weights takes half the time (docs/benchmarks.md)."""

    def __init__(self, *args: Any, overhang: int = 0, **fields: Any) -> None:
        super().__init__(*args, **fields)
        self.overhang = overhang

    def forward(self, x_BCHW: Tensor) -> Tensor:
        channels_last = x_BCHW.is_contiguous(memory_format=torch.channels_last) and not x_BCHW.is_contiguous()
        if not channels_last or torch.compiler.is_exporting():
            if self.overhang:
                x_BCHW = F.pad(x_BCHW, (0, self.overhang, 0, self.overhang))
            return super().forward(x_BCHW)
        s, k, pad = self.stride[0], self.kernel_size[0], int(self.padding[0])
        span = -(-k // s)  # side of a kernel, in cells
        B, C, H, W = x_BCHW.shape
        rows, columns = ((side + self.overhang + 2 * pad - k) // s + span for side in (H, W))
        if pad % s or H % s or W % s:
            x_BCHW = F.pad(x_BCHW, (pad, s * columns - W - pad, pad, s * rows - H - pad))
            pad, H, W = 0, s * rows, s * columns
        device = x_BCHW.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x_BCHW.dtype
        cells_BHWssC = x_BCHW.new_zeros((B, rows, columns, s, s, C), dtype=dtype)
        pixels_BHsWsC = x_BCHW.permute(0, 2, 3, 1).reshape(B, H // s, s, W // s, s, C)
        top, bottom, right = pad // s, min(rows, (pad + H) // s), min(columns, (pad + W) // s)
        cells_BHWssC[:, top:bottom, top:right] = pixels_BHsWsC.transpose(2, 3)[:, : bottom - top, : right - top]
        weight_OCkk = F.pad(self.weight, (0, s * span - k) * 2).view(-1, C, span, s, span, s)
        weight_OCkk = weight_OCkk.permute(0, 3, 5, 1, 2, 4).reshape(self.out_channels, -1, span, span)
        return conv2d(
            cells_BHWssC.view(B, rows, columns, -1).permute(0, 3, 1, 2),
            weight_OCkk.contiguous(memory_format=torch.channels_last),
            self.bias,
            padding=0,
        )


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
        B, g = len(x_BCHW), self.groups
        L, units, D = self.weight.shape
        patch_LBgD = F.unfold(x_BCHW, self.kernel, padding=self.kernel // 2).permute(2, 0, 1).reshape(L, B, g, D)
        y_NBO = torch.baddbmm(  # N: a product for each position and group
            self.bias.view(L * g, 1, -1),
            patch_LBgD.transpose(1, 2).reshape(L * g, B, D),
            self.weight.view(L * g, -1, D).mT,
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
        if draw is None:
            keep_BD = torch.rand_like(x_BD, dtype=torch.float32) < self.keep
        else:
            keep_BD = dropout_keep(draw, self.layer, x_BD.shape[1], self.keep, x_BD.device)
        x_BD = x_BD * keep_BD
        return x_BD if self.kind == "plain" else x_BD / self.keep

    def extra_repr(self) -> str:
        return f"{self.layer}, {self.kind}, keep={self.keep}"


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


def check_input(name: str, config: InputShape, x_BCHW: Tensor) -> None:
    """Refuse a batch of another shape than the network was built for, naming both."""
    expected = (config.in_channels, config.input_size, config.input_size)
    if tuple(x_BCHW.shape[1:]) != expected:
        raise UsageError(
            f"{name} reads images of shape {expected}, but the batch has shape {tuple(x_BCHW.shape)}: "
            "set in_channels and input_size to those of the data"
        )


WEIGHT_LAYERS = (nn.Conv2d, nn.Linear, TowerLinear, LocalConv2d)
"""The modules that are layers in the paper's sense: each has a `weight`, and a `bias`."""
