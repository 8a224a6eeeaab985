"""The networks of 2012 and their relatives: one configuration, one module whose forward pass reads like Figure 2.

Shape suffixes: B images, C channels, H rows, W columns, D units, K classes.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.core.errors import UsageError
from alexnet.core.rng import DropoutDraw
from alexnet.models.layers import (
    Activation,
    Dropout,
    Init,
    LocalConv2d,
    StridedConv2d,
    TowerLinear,
    activation,
    check_input,
    check_sizes,
    initialize,
    is_traced,
)
from alexnet.models.lrn import LocalResponseNorm, MapResponseNorm
from alexnet.models.network import Network
from alexnet.models.winograd import Conv2d

STAGE_WORDS = ("act", "norm", "map_norm", "pool")


@dataclass(frozen=True, kw_only=True)
class AlexNetConfig:
    """What the paper or its program varied. The defaults are the network of the paper's text.

    Tuples over the convolutional layers have five entries, or six with conv6; tuples over all layers continue with
    fc6, fc7, fc8."""

    kind: Literal["alexnet"] = "alexnet"
    """Kind of network."""
    input_size: int = 224
    """Side of the square input in pixels; equal to --preprocessing.crop."""
    in_channels: int = 3
    """Channels of the input: 3 for color, 1 for grey; equal to --preprocessing.channels."""
    num_classes: int = 1000
    """Number of outputs of fc8; 0: there is no fc8, and the network gives what it would read."""

    conv_channels: tuple[int, ...] = (96, 256, 384, 384, 256)
    """Number of kernels in conv1 to conv5 (§3.5), both towers together. 0 leaves a layer out, with its nonlinearity and
    normalization; its pooling stays."""
    conv_kernels: tuple[int, ...] = (11, 5, 3, 3, 3)
    """Side of the kernels of each convolution (§3.5)."""
    conv_strides: tuple[int, ...] = (4, 1, 1, 1, 1)
    """Stride of each convolution (§3.5)."""
    conv_padding: tuple[int, ...] = (0, 2, 1, 1, 1)
    """Zeros that each convolution adds on all four sides of its input."""
    overhang: bool = True
    """Let the last windows of conv1 hang over the right and bottom edges, where they read zeros. This, not a 227-pixel crop,
    is how 224 pixels give 55 in the 2012 program (layer.py)."""
    stages: tuple[str, ...] = ("act norm pool", "act norm pool", "act", "act", "act pool")
    """What follows each convolution, in order: `act` (nonlinearity), `norm` (see --model.normalization), `map_norm` (the
    within-map normalizer that the 2012 program has in layer 2) and `pool` (§3.3 to §3.5)."""
    fc_units: tuple[int, int] = (4096, 4096)
    """Number of units in fc6 and fc7; 0 leaves a layer out."""
    head: Literal["fc", "global_average"] = "fc"
    """What follows the convolutions. `fc`: fc6, fc7 and fc8, as in 2012. `global_average`: fc8 reads the average of each
    map."""

    towers: int = 2
    """Number of towers. 2: the two halves of Figure 2, each on its own GPU in 2012. 1: every kernel reads every map."""
    joined: tuple[str, ...] = ("conv3", "fc6", "fc7")
    """Layers that read both towers; the others read only their own (§3.2). If it is empty, the towers meet only in fc8, as in
    the 2012 program's configuration 150. conv1 always reads the image, and fc8 everything."""

    unshared: tuple[str, ...] = ()
    """Convolutional layers that have kernels of their own at each place of their maps, as the "local" layers of the 2012 program
    do, instead of the same everywhere."""

    activation: Activation = "relu"
    """The nonlinearity of all hidden layers (§3.1)."""
    normalization: Literal["none", "lrn", "batch", "layer", "group"] = "lrn"
    """What `norm` in --model.stages stands for: lrn (local response normalization, §3.3), batch, layer (over all maps of an
    image) or group (over groups of maps, at most 32)."""
    lrn_size: int = 5
    """Number of channels in the window of local response normalization, n in §3.3; odd."""
    lrn_alpha: float = 1e-4
    """Coefficient of the squared neighbors in local response normalization, alpha in §3.3."""
    lrn_alpha_times: Literal["sum", "mean"] = "sum"
    """What alpha multiplies. `sum`: the sum of squares, as in the formula of §3.3. `mean`: that sum divided by n, as the 2012
    program, Caffe and torch compute it."""
    lrn_beta: float = 0.75
    """Exponent of local response normalization, beta in §3.3."""
    lrn_k: float = 2.0
    """Constant of local response normalization, k in §3.3."""
    lrn_crosses_towers: bool = False
    """Let the window of local response normalization reach across the border between the towers. Caffe does; in 2012 the towers
    were on two GPUs, and it did not."""

    pooling: Literal["max", "average"] = "max"
    """Whether pooling takes the largest value of a window or its average (§3.4)."""
    pool_size: int = 3
    """Side of a pooling window, z in §3.4."""
    pool_stride: int = 2
    """Distance between pooling windows, s in §3.4. Windows overlap if s < z."""
    pool_ceil: bool = False
    """Round the size of pooled maps up. The 2012 program and Caffe do; the paper's sizes are the same either way."""

    dropout: Literal["plain", "inverted"] = "plain"
    """When activations are scaled for dropout. `plain`: at test, by the keep probability (§4.2). `inverted`: in training, by
    its inverse (Caffe, torch)."""
    dropout_place: Literal["after", "before"] = "after"
    """Where dropout acts: after the nonlinearity of fc6 and fc7 (§4.2), or before these layers, on their input (torchvision)."""
    dropout_rate: float = 0.5
    """Probability that a unit is dropped (§4.2)."""

    init: Init = "gaussian"
    """How initial weights are drawn. `gaussian`: with the standard deviations --model.weight-std (§5). `he`: with sqrt(2 /
    fan-in). `xavier`: uniform within sqrt(6 / (fan-in + fan-out)). `torch`: weights and biases uniform within
    1 / sqrt(fan-in)."""
    weight_std: tuple[float, ...] = (0.01,) * 8
    """Standard deviation of the initial weights of each layer, conv1 to fc8, for --model.init gaussian (§5)."""
    biases: tuple[float, ...] = (0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0)
    """Initial bias of each layer, conv1 to fc8 (§5); --model.init torch draws its own."""

    def __post_init__(self) -> None:
        n = len(self.conv_channels)
        if n not in (5, 6):
            raise _bad("conv_channels", self.conv_channels, "has one entry for each of conv1 .. conv5, or .. conv6")
        for name in ("conv_kernels", "conv_strides", "conv_padding", "stages"):
            if len(getattr(self, name)) != n:
                raise _bad(name, getattr(self, name), f"needs {n} entries, one for each convolutional layer")
        for name in ("weight_std", "biases"):
            if len(getattr(self, name)) != n + 3:
                raise _bad(name, getattr(self, name), f"needs {n + 3} entries, conv1 .. fc8")
        check_sizes(self, 1, "input_size", "in_channels", "pool_size", "pool_stride")
        check_sizes(self, 1, "conv_kernels", "conv_strides", "lrn_size")
        check_sizes(self, 0, "num_classes", "conv_channels", "conv_padding", "fc_units")
        if min(self.weight_std) < 0:
            raise _bad("weight_std", self.weight_std, "needs entries of at least 0")
        if self.conv_channels[0] == 0:
            raise _bad("conv_channels", self.conv_channels, "needs a conv1; other layers may be left out with 0")
        if self.towers not in (1, 2):
            raise _bad("towers", self.towers, "must be 1 or 2")
        if self.towers == 2 and any(width % 2 for width in self.conv_channels + self.fc_units):
            raise _bad("towers", self.towers, "needs even conv_channels and fc_units, half for each tower")
        if unknown := set(self.joined) - set(self.layer_names[1:-1]):
            raise _bad("joined", sorted(unknown)[0], "must name layers among " + ", ".join(self.layer_names[1:-1]))
        for name in self.unshared:
            if name not in self.layer_names[:n]:
                raise _bad("unshared", name, "must name layers among " + ", ".join(self.layer_names[:n]))
            i = self.layer_names.index(name)
            if self.conv_strides[i] != 1 or 2 * self.conv_padding[i] != self.conv_kernels[i] - 1:
                raise _bad("unshared", name, "needs stride 1 and a padding that keeps the size of the maps")
        for stage in self.stages:
            words = stage.split()
            if set(words) - set(STAGE_WORDS) or len(set(words)) != len(words):
                raise _bad("stages", stage, f"may hold each of the words {', '.join(STAGE_WORDS)} once")
        if self.lrn_size % 2 == 0:
            raise _bad("lrn_size", self.lrn_size, "must be odd: the window has as many neighbors on either side")
        if self.lrn_alpha < 0 or self.lrn_k <= 0:
            raise _bad("lrn_alpha, lrn_k", (self.lrn_alpha, self.lrn_k), "need alpha >= 0 and k > 0")
        if not 0 <= self.dropout_rate < 1:
            raise _bad("dropout_rate", self.dropout_rate, "must be at least 0 and less than 1")
        if (side := self.map_sizes()[-1]) < 1:
            raise _bad("input_size", self.input_size, f"is too small: the last maps would have {side} pixels a side")

    @property
    def layer_names(self) -> tuple[str, ...]:
        """conv1 .. conv5 (or conv6), fc6, fc7, fc8."""
        return (*(f"conv{i + 1}" for i in range(len(self.conv_channels))), "fc6", "fc7", "fc8")

    def overhang_pixels(self) -> int:
        """Columns (and rows) of zeros that complete conv1's last window: 3 for 224 pixels."""
        steps = self.input_size + 2 * self.conv_padding[0] - self.conv_kernels[0]
        return -steps % self.conv_strides[0] if self.overhang and steps > 0 else 0

    def fc_inputs(self) -> tuple[int, int, int]:
        """Units that fc6, fc7 and fc8 read: 9216, 4096, 4096 in the paper."""
        width = next(width for width in reversed(self.conv_channels) if width)
        if self.head == "global_average":
            return width, width, width
        fc6 = width * self.map_sizes()[-1] ** 2
        fc7 = self.fc_units[0] or fc6
        return fc6, fc7, self.fc_units[1] or fc7

    def layer_inputs(self) -> dict[str, tuple[int, ...]]:
        """Shape of what each layer reads of one image, in forward order, without the layers that are left out:
        conv1 (3, 224, 224) .. fc8 (4096,) in the paper."""
        inputs: dict[str, tuple[int, ...]] = {}
        width, side = self.in_channels, self.input_size
        for i, (channels, pooled) in enumerate(zip(self.conv_channels, self.map_sizes(), strict=True), 1):
            if channels:
                inputs[f"conv{i}"] = width, side, side
                width = channels
            side = pooled
        for layer, units, columns in zip(("fc6", "fc7"), self.fc_units, self.fc_inputs()[:2], strict=True):
            if units and self.head == "fc":
                inputs[layer] = (columns,)
        return inputs | {"fc8": self.fc_inputs()[2:]}

    def map_sizes(self, input_size: int | None = None) -> list[int]:
        """Side of the maps at the end of each convolutional stage, in pixels: 27, 13, 13, 13, 6 in the paper. The last is below 1
        where the input, of another size than the network was built for, is too small."""
        side, sizes = (self.input_size if input_size is None else input_size) + self.overhang_pixels(), []
        for i, stage in enumerate(self.stages):
            if self.conv_channels[i]:
                side = (side + 2 * self.conv_padding[i] - self.conv_kernels[i]) // self.conv_strides[i] + 1
            if "pool" in stage.split():
                steps = (side - self.pool_size) / self.pool_stride
                side = (math.ceil(steps) if self.pool_ceil else math.floor(steps)) + 1
            sizes.append(side)
            if side < 1:
                break
        return sizes

    def last_map(self, input_size: int) -> int:
        """Side of the last maps of an input of this size; below 1 if it is too small."""
        sizes = self.map_sizes(input_size)
        return sizes[-1] if len(sizes) == len(self.stages) else 0


def _bad(name: str, value: object, rule: str) -> ValueError:
    return ValueError(f"AlexNetConfig.{name} is {value!r}; it {rule}")


# The named networks ---------------------------------------------------------------------------------------------------


def alexnet_2012() -> AlexNetConfig:
    """The network of the paper's text, with two towers: 60,965,224 parameters."""
    return AlexNetConfig()


def alexnet_2012_code() -> AlexNetConfig:
    """What the winning program of 2012 ran (configuration 145): in layer 1 the normalization sees signed values before pooling
    and ReLU, layer 2 has a second, within-map normalizer, alpha is divided by n, conv3 to conv5 start at 0.03."""
    return replace(
        alexnet_2012(),
        stages=("norm pool act", "act norm map_norm pool", "act", "act", "pool act"),
        lrn_alpha_times="mean",
        pool_ceil=True,
        weight_std=(0.01, 0.01, 0.03, 0.03, 0.03, 0.01, 0.01, 0.01),
    )


def alexnet_2012_one_tower() -> AlexNetConfig:
    """§3.2's comparison net on one GPU: half the kernels in conv1 to conv4; conv5, fc6 and fc7 keep their width."""
    return replace(alexnet_2012(), towers=1, conv_channels=(48, 128, 192, 192, 256))


def alexnet_2012_six_conv() -> AlexNetConfig:
    """§6's network with a sixth convolutional layer over the last pooling layer (configuration 146): 3 x 3 kernels that
    read both towers of the 6 x 6 maps."""
    return AlexNetConfig(
        conv_channels=(96, 256, 384, 384, 256, 256),
        conv_kernels=(11, 5, 3, 3, 3, 3),
        conv_strides=(4, 1, 1, 1, 1, 1),
        conv_padding=(0, 2, 1, 1, 1, 1),
        stages=("act norm pool", "act norm pool", "act", "act", "act pool", "act"),
        joined=("conv3", "conv6", "fc6", "fc7"),
        weight_std=(0.01,) * 9,
        biases=(0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0),
    )


def alexnet_caffe() -> AlexNetConfig:
    """BVLC's `bvlc_alexnet`: 227-pixel crops, bias 0.1 where the paper has 1, one stream with grouped kernels, so that
    normalization crosses the border of the towers."""
    return replace(
        alexnet_2012(),
        input_size=227,
        lrn_alpha_times="mean",
        lrn_k=1.0,
        lrn_crosses_towers=True,
        pool_ceil=True,
        dropout="inverted",
        weight_std=(0.01, 0.01, 0.01, 0.01, 0.01, 0.005, 0.005, 0.01),
        biases=(0.0, 0.1, 0.0, 0.1, 0.1, 0.1, 0.1, 0.0),
    )


def caffenet() -> AlexNetConfig:
    """BVLC's reference CaffeNet: as `alexnet_caffe`, but pooling comes before normalization; biases are the paper's."""
    return replace(
        alexnet_caffe(),
        stages=("act pool norm", "act pool norm", "act", "act", "act pool"),
        biases=alexnet_2012().biases,
    )


def alexnet_owt() -> AlexNetConfig:
    """The single-stream network of "One weird trick" (Krizhevsky 2014) as torchvision has it: 61,100,840 parameters."""
    return replace(
        alexnet_2012(),
        conv_channels=(64, 192, 384, 256, 256),
        conv_padding=(2, 2, 1, 1, 1),
        overhang=False,
        normalization="none",
        towers=1,
        dropout="inverted",
        dropout_place="before",
        init="torch",
    )


def zfnet() -> AlexNetConfig:
    """The network of Zeiler and Fergus (2013), figure 3: smaller kernels and strides in conv1 and conv2, one tower, pooling
    before normalization. 62,357,608 parameters."""
    return replace(
        alexnet_2012(),
        conv_kernels=(7, 5, 3, 3, 3),
        conv_strides=(2, 2, 1, 1, 1),
        conv_padding=(0, 0, 1, 1, 1),
        stages=("act pool norm", "act pool norm", "act", "act", "act pool"),
        pool_ceil=True,  # of 110 pixels figure 3 makes 55
        towers=1,
        biases=(0.0,) * 8,
    )


def alexnet_d2l() -> AlexNetConfig:
    """The AlexNet of "Dive into Deep Learning": one tower, no normalization, for Fashion-MNIST at 224 pixels."""
    return replace(
        alexnet_2012(),
        in_channels=1,
        num_classes=10,
        conv_padding=(1, 2, 1, 1, 1),
        overhang=False,
        normalization="none",
        towers=1,
        dropout="inverted",
        init="xavier",
        biases=(0.0,) * 8,
    )


# The module -----------------------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """One step of the forward pass: a layer with weights, and what goes with it."""

    name: str
    """Name of the layer: conv1 .. fc8."""
    layer: Callable[[Tensor], Tensor]
    """The convolution or fully connected layer itself; nn.Identity for a convolution that is left out."""
    then: tuple[Callable[[Tensor], Tensor], ...] = ()
    """What follows, in order: a stage or a nonlinearity; the last convolution's maps are then made one vector."""
    dropout: Dropout | None = None
    drops_input: bool = False
    """Whether dropout acts on what the layer reads; otherwise on what the step gives."""

    @property
    def reads_maps(self) -> bool:
        """Whether it is a convolution; the others read vectors."""
        return self.name.startswith("conv")

    def run(self, x: Tensor, draw: DropoutDraw | None = None) -> Tensor:
        if self.dropout is not None and self.drops_input:
            x = self.dropout(x, draw)
        x = self.layer(x)
        for function in self.then:
            x = function(x)
        return x if self.dropout is None or self.drops_input else self.dropout(x, draw)


class AlexNet(Network):
    """AlexNet. Reads (B, in_channels, input_size, input_size) floats that went through the network's `Preprocessing`,
    gives logits (B, num_classes). Initial weights are a function of `config` and `seed` alone; with `seed=None` they
    have no memory (the `meta` device) until a state dict is loaded with `assign=True`."""

    HEAD = "fc8"
    config: AlexNetConfig

    def __init__(self, config: AlexNetConfig, *, name: str = "alexnet", seed: int | None = 0) -> None:
        super().__init__()
        self.config = config
        self.name = name

        self.conv1, self.stage1 = self._conv(1), self._stage(1)
        self.conv2, self.stage2 = self._conv(2), self._stage(2)
        self.conv3, self.stage3 = self._conv(3), self._stage(3)
        self.conv4, self.stage4 = self._conv(4), self._stage(4)
        self.conv5, self.stage5 = self._conv(5), self._stage(5)
        if len(config.conv_channels) == 6:
            self.conv6, self.stage6 = self._conv(6), self._stage(6)
        self.fc6, self.act6, self.dropout6 = self._fc(6)
        self.fc7, self.act7, self.dropout7 = self._fc(7)
        self.num_features = config.fc_inputs()[2]
        self.fc8 = self.new_head()
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
            for layer, std, bias in zip(config.layer_names, config.weight_std, config.biases, strict=True):
                module = self.get_submodule(layer)
                if not isinstance(module, nn.Identity):
                    initialize(module, generator, init=config.init, std=std, bias=bias)

    def forward(self, x_BCHW: Tensor, draw: DropoutDraw | None = None) -> Tensor:
        """Logits (B, K). In training mode dropout masks are those of `draw`, or come from torch's generator."""
        check_input(self.name, self.config, x_BCHW, any_size=not self.config.unshared)
        x = x_BCHW
        for step in self.steps():
            x = step.run(x, draw)
        return x  # logits_BK

    def forward_features(self, x_BCHW: Tensor) -> Tensor:
        """The maps of the last convolutional stage (B, C, H, W), of images of any size that leaves one pixel of them."""
        self._check_size(x_BCHW)
        x = x_BCHW
        for step in self.steps():
            if step.reads_maps:
                x = step._replace(then=tuple(function for function in step.then if function != self._vector)).run(x)
        return x

    def forward_head(self, x_BCHW: Tensor, pre_logits: bool = False, draw: DropoutDraw | None = None) -> Tensor:
        """Logits (B, K) for the last maps; with ``pre_logits`` what fc8 reads. Maps of another size than the network was built
        for are first averaged to that size, as torchvision does it."""
        side = self.config.map_sizes()[-1]
        if self.config.head == "fc" and (is_traced(x_BCHW) or tuple(x_BCHW.shape[2:]) != (side, side)):
            x_BCHW = F.adaptive_avg_pool2d(x_BCHW, side)
        x = self._vector(x_BCHW)
        *hidden, last = [step for step in self.steps() if not step.reads_maps]
        for step in hidden:
            x = step.run(x, draw)
        return x if pre_logits else last.run(x, draw)

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        c, info, channels, reduction = self.config, [], self.config.in_channels, 1
        for i, stage in enumerate(c.stages):
            channels = c.conv_channels[i] or channels
            reduction *= (c.conv_strides[i] if c.conv_channels[i] else 1) * (c.pool_stride if "pool" in stage else 1)
            info.append({"num_chs": channels, "reduction": reduction, "module": f"stage{i + 1}"})
        return info

    def draw_head(self, generator: torch.Generator) -> None:
        c = self.config
        initialize(self.fc8, generator, init=c.init, std=c.weight_std[-1], bias=c.biases[-1])

    def _check_size(self, x_BCHW: Tensor) -> None:
        c = self.config
        if is_traced(x_BCHW):
            return
        if c.unshared:  # its kernels belong to places
            check_input(self.name, c, x_BCHW)
            return
        if x_BCHW.ndim != 4 or x_BCHW.shape[1] != c.in_channels or min(map(c.last_map, x_BCHW.shape[2:])) < 1:
            least = next(side for side in range(1, c.input_size + 1) if c.last_map(side) >= 1)
            raise UsageError(
                f"{self.name} makes maps of images of {c.in_channels} channels and at least {least} pixels a side, but the batch "
                f"has shape {tuple(x_BCHW.shape)}"
            )

    def steps(self) -> list[Step]:
        """The forward pass in order: the convolutions, then the fully connected layers that are not left out. `forward`
        walks this list, and so does whoever takes a network apart or times its layers."""
        # Sizes of the paper's network; `act` is ReLU (§3.1), `norm` is local response normalization (§3.3).
        steps = [
            Step("conv1", self.conv1, (self.stage1,)),  # 96 x 27 x 27    act, norm, pool (§3.4); last windows overhang
            Step("conv2", self.conv2, (self.stage2,)),  # 256 x 13 x 13   act, norm, pool
            Step("conv3", self.conv3, (self.stage3,)),  # 384 x 13 x 13   act; reads both towers (§3.5)
            Step("conv4", self.conv4, (self.stage4,)),  # 384 x 13 x 13   act
            Step("conv5", self.conv5, (self.stage5,)),  # 256 x 6 x 6     act, pool
        ]
        if len(self.config.conv_channels) == 6:
            steps.append(Step("conv6", self.conv6, (self.stage6,)))  # 256 x 6 x 6     act; reads both towers (§6)
        steps[-1] = steps[-1]._replace(then=(*steps[-1].then, self._vector))
        drops_input = self.config.dropout_place == "before"
        for name, fc, act, dropout in (
            ("fc6", self.fc6, self.act6, self.dropout6),  # 4096            act, dropout (§4.2)
            ("fc7", self.fc7, self.act7, self.dropout7),  # 4096            act, dropout
        ):
            if not isinstance(fc, nn.Identity):
                steps.append(Step(name, fc, (act,), dropout, drops_input))
        return [*steps, Step("fc8", self.fc8)]  # 1000

    def _vector(self, x_BCHW: Tensor) -> Tensor:
        """What the fully connected layers read of the last maps."""
        return x_BCHW.flatten(1) if self.config.head == "fc" else x_BCHW.mean((2, 3))

    def _groups(self, layer: str) -> int:
        return 1 if layer in self.config.joined else self.config.towers

    def _conv(self, i: int) -> nn.Module:
        c = self.config
        if c.conv_channels[i - 1] == 0:
            return nn.Identity()
        groups = 1 if i == 1 else self._groups(f"conv{i}")  # both towers read the image
        if f"conv{i}" in c.unshared:
            width, side, _ = c.layer_inputs()[f"conv{i}"]
            return LocalConv2d(width, c.conv_channels[i - 1], c.conv_kernels[i - 1], side, groups=groups, device="meta")
        kind: Callable[..., nn.Conv2d] = Conv2d
        if i == 1 and c.conv_strides[0] > 1:
            kind = partial(StridedConv2d, overhang=c.overhang_pixels())
        return kind(
            in_channels=next((width for width in reversed(c.conv_channels[: i - 1]) if width), c.in_channels),
            out_channels=c.conv_channels[i - 1],
            kernel_size=c.conv_kernels[i - 1],
            stride=c.conv_strides[i - 1],
            padding=c.conv_padding[i - 1],
            groups=groups,
            device="meta",
        )

    def _stage(self, i: int) -> nn.Sequential:
        c, channels = self.config, self.config.conv_channels[i - 1]
        stage: OrderedDict[str, nn.Module] = OrderedDict()
        # One pass does both; the module is then norm1 alone, and there is no act1.
        relu_in_norm = c.activation == "relu" and c.normalization == "lrn" and "act norm" in c.stages[i - 1]
        for word in c.stages[i - 1].split():
            if word == "pool":
                pool = nn.MaxPool2d if c.pooling == "max" else nn.AvgPool2d
                stage[f"pool{i}"] = pool(c.pool_size, c.pool_stride, ceil_mode=c.pool_ceil)
            elif channels == 0:
                continue  # the layer is left out, only its pooling stays
            elif word == "act":
                if not relu_in_norm:
                    stage[f"act{i}"] = activation(c.activation)
            elif word == "norm" and c.normalization != "none":
                stage[f"norm{i}"] = self._norm(channels, relu=relu_in_norm)
            elif word == "map_norm" and c.normalization == "lrn":
                stage[f"map_norm{i}"] = MapResponseNorm(size=5, alpha=1e-3, beta=0.75, k=1.0)  # layer-params-145.cfg
        return nn.Sequential(stage)

    def _fc(self, i: int) -> tuple[nn.Module, nn.Module, Dropout]:
        c, layer = self.config, f"fc{i}"
        inputs, units = c.fc_inputs()[i - 6], c.fc_units[i - 6]
        if units == 0 or c.head != "fc":
            return nn.Identity(), nn.Identity(), Dropout(layer, kind=c.dropout, rate=0.0)
        towers = self._groups(layer)
        fc = (
            nn.Linear(inputs, units, device="meta")
            if towers == 1
            else TowerLinear(inputs, units, towers, device="meta")
        )
        return fc, activation(c.activation), Dropout(layer, kind=c.dropout, rate=c.dropout_rate)

    def _norm(self, channels: int, *, relu: bool) -> nn.Module:
        c = self.config
        if c.normalization == "batch":
            return nn.BatchNorm2d(channels)
        if c.normalization == "layer":
            return nn.GroupNorm(1, channels)
        if c.normalization == "group":
            return nn.GroupNorm(math.gcd(32, channels), channels)
        return LocalResponseNorm(
            size=c.lrn_size,
            alpha=c.lrn_alpha,
            alpha_times=c.lrn_alpha_times,
            beta=c.lrn_beta,
            k=c.lrn_k,
            towers=1 if c.lrn_crosses_towers else c.towers,
            relu=relu,
        )
