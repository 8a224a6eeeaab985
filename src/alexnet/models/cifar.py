"""The CIFAR-10 networks behind §3.1 (ReLU against tanh) and §3.3 (13 % to 11 % error), as cuda-convnet defines them.

Shape suffixes: B images, C channels, H rows, W columns, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from alexnet.core.rng import DropoutDraw
from alexnet.models.layers import Activation, LocalConv2d, activation, check_input, check_sizes, initialize
from alexnet.models.lrn import LocalResponseNorm, MapResponseNorm
from alexnet.models.network import Network


@dataclass(frozen=True, kw_only=True)
class CifarLocalConfig:
    """Two convolutional and two unshared local layers, and fc10 (`layers-conv-local-13pct.cfg` and `-11pct.cfg`)."""

    kind: Literal["cifar_local"] = "cifar_local"
    """Kind of network."""
    input_size: int = 24
    """Side of the square input, in pixels: 24-pixel crops of the 32-pixel images."""
    in_channels: int = 3
    """Channels of the input: 3 for color, 1 for grey."""
    num_classes: int = 10
    """Number of outputs of fc10; 0: there is no fc10, and the network gives what it would read."""
    activation: Activation = "relu"
    """The nonlinearity of all hidden layers (§3.1)."""
    normalization: Literal["none", "lrn"] = "none"
    """`lrn`: local response normalization over nine channels, after pool1 and after the nonlinearity of conv2 (§3.3)."""
    local_channels: tuple[int, int] = (32, 32)
    """Number of filters of local3 and local4 at each position."""

    def __post_init__(self) -> None:
        check_sizes(self, 1, "in_channels", "local_channels")
        check_sizes(self, 0, "num_classes")
        check_sizes(self, 5, "input_size")  # pooled twice


@dataclass(frozen=True, kw_only=True)
class CifarConvConfig:
    """Three convolutional layers and fc10: four weight layers (`layers-18pct.cfg` and `layers-19pct.cfg`)."""

    kind: Literal["cifar_conv"] = "cifar_conv"
    """Kind of network."""
    input_size: int = 32
    """Side of the square input, in pixels."""
    in_channels: int = 3
    """Channels of the input: 3 for color, 1 for grey."""
    num_classes: int = 10
    """Number of outputs of fc10; 0: there is no fc10, and the network gives what it would read."""
    activation: Activation = "relu"
    """The nonlinearity of all hidden layers (§3.1)."""
    normalization: Literal["none", "map"] = "map"
    """`map`: response normalization over 3 x 3 positions within each map, after pool1 and pool2."""

    def __post_init__(self) -> None:
        check_sizes(self, 1, "in_channels")
        check_sizes(self, 0, "num_classes")
        check_sizes(self, 9, "input_size")  # pooled three times


def cifar_13pct() -> CifarLocalConfig:
    """Krizhevsky's CIFAR-10 network of 13 % test error, without normalization: 1,116,490 parameters for 24-pixel crops."""
    return CifarLocalConfig()


def cifar_11pct() -> CifarLocalConfig:
    """Krizhevsky's CIFAR-10 network of 11 % test error, with normalization. It is also wider than `cifar_13pct` (64 filters in
    local3), and its recipe decays fc10 more: for the effect of normalization alone, compare it with its own
    ``normalization="none"``."""
    return replace(cifar_13pct(), normalization="lrn", local_channels=(64, 32))


def cifar_18pct() -> CifarConvConfig:
    """Krizhevsky's CIFAR-10 network of 18 % test error, without crops: 89,578 parameters."""
    return CifarConvConfig()


def cifar_19pct() -> CifarConvConfig:
    """`cifar_18pct` without normalization, 19 % test error. Its four weight layers fit §3.1's comparison of ReLU with
    tanh, whose exact network is not known."""
    return replace(cifar_18pct(), normalization="none")


class _CifarNet(Network):
    """Reads (B, in_channels, input_size, input_size), gives logits (B, num_classes). There is no dropout: `draw` has no
    effect."""

    HEAD = "fc10"
    fc10: nn.Module

    def forward(self, x_BCHW: Tensor, draw: DropoutDraw | None = None) -> Tensor:
        return self.forward_head(self.forward_features(x_BCHW))

    def forward_head(self, x_BCHW: Tensor, pre_logits: bool = False, draw: DropoutDraw | None = None) -> Tensor:
        x_BD = x_BCHW.flatten(1)
        return x_BD if pre_logits else cast(Tensor, self.fc10(x_BD))  # logits_BK

    def draw_head(self, generator: torch.Generator) -> None:
        initialize(self.fc10, generator, init="gaussian", std=0.01)


class CifarLocalNet(_CifarNet):
    """Two convolutional and two local layers, and fc10."""

    config: CifarLocalConfig

    def __init__(self, config: CifarLocalConfig, *, name: str = "cifar_local", seed: int | None = 0) -> None:
        super().__init__()
        self.config = config
        self.name = name
        map_size = _pooled(_pooled(config.input_size))
        local3, local4 = config.local_channels
        self.conv1 = nn.Conv2d(config.in_channels, 64, 5, padding=2, device="meta")
        self.act1 = activation(config.activation)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.norm1 = _cross_map_norm(config)
        self.conv2 = nn.Conv2d(64, 64, 5, padding=2, device="meta")
        self.act2 = activation(config.activation)
        self.norm2 = _cross_map_norm(config)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.local3 = LocalConv2d(64, local3, 3, map_size, device="meta")
        self.act3 = activation(config.activation)
        self.local4 = LocalConv2d(local3, local4, 3, map_size, device="meta")
        self.act4 = activation(config.activation)
        self.num_features = local4 * map_size**2
        self.fc10 = self.new_head()
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
            initialize(self.conv1, generator, init="gaussian", std=1e-4)
            initialize(self.conv2, generator, init="gaussian", std=0.01)
            initialize(self.local3, generator, init="gaussian", std=0.04)
            initialize(self.local4, generator, init="gaussian", std=0.04)
            if config.num_classes:
                self.draw_head(generator)

    def forward_features(self, x_BCHW: Tensor) -> Tensor:
        """The last maps (B, C, H, W)."""
        check_input(self.name, self.config, x_BCHW)
        x_BCHW = self.norm1(self.pool1(self.act1(self.conv1(x_BCHW))))  # 64 x 12 x 12
        x_BCHW = self.pool2(self.norm2(self.act2(self.conv2(x_BCHW))))  # 64 x 6 x 6
        x_BCHW = self.act3(self.local3(x_BCHW))  # 32 or 64 x 6 x 6
        return cast(Tensor, self.act4(self.local4(x_BCHW)))  # 32 x 6 x 6

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        return [
            {"num_chs": 64, "reduction": 2, "module": "norm1"},
            {"num_chs": 64, "reduction": 4, "module": "pool2"},
            {"num_chs": self.config.local_channels[0], "reduction": 4, "module": "act3"},
            {"num_chs": self.config.local_channels[1], "reduction": 4, "module": "act4"},
        ]


class CifarConvNet(_CifarNet):
    """Three convolutional layers and fc10."""

    config: CifarConvConfig

    def __init__(self, config: CifarConvConfig, *, name: str = "cifar_conv", seed: int | None = 0) -> None:
        super().__init__()
        self.config = config
        self.name = name
        map_size = _pooled(_pooled(_pooled(config.input_size)))
        self.conv1 = nn.Conv2d(config.in_channels, 32, 5, padding=2, device="meta")
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.act1 = activation(config.activation)
        self.norm1 = _within_map_norm(config)
        self.conv2 = nn.Conv2d(32, 32, 5, padding=2, device="meta")
        self.act2 = activation(config.activation)
        self.pool2 = nn.AvgPool2d(3, 2, ceil_mode=True)
        self.norm2 = _within_map_norm(config)
        self.conv3 = nn.Conv2d(32, 64, 5, padding=2, device="meta")
        self.act3 = activation(config.activation)
        self.pool3 = nn.AvgPool2d(3, 2, ceil_mode=True)
        self.num_features = 64 * map_size**2
        self.fc10 = self.new_head()
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
            initialize(self.conv1, generator, init="gaussian", std=1e-4)
            initialize(self.conv2, generator, init="gaussian", std=0.01)
            initialize(self.conv3, generator, init="gaussian", std=0.01)
            if config.num_classes:
                self.draw_head(generator)

    def forward_features(self, x_BCHW: Tensor) -> Tensor:
        """The last maps (B, C, H, W)."""
        check_input(self.name, self.config, x_BCHW)
        x_BCHW = self.norm1(self.act1(self.pool1(self.conv1(x_BCHW))))  # 32 x 16 x 16
        x_BCHW = self.norm2(self.pool2(self.act2(self.conv2(x_BCHW))))  # 32 x 8 x 8
        return cast(Tensor, self.pool3(self.act3(self.conv3(x_BCHW))))  # 64 x 4 x 4

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        return [
            {"num_chs": 32, "reduction": 2, "module": "norm1"},
            {"num_chs": 32, "reduction": 4, "module": "norm2"},
            {"num_chs": 64, "reduction": 8, "module": "pool3"},
        ]


def _pooled(side: int) -> int:
    """Side of the maps after 3 x 3 pooling with stride 2, rounded up as in cuda-convnet."""
    return -(-(side - 3) // 2) + 1


def _cross_map_norm(config: CifarLocalConfig) -> nn.Module:
    if config.normalization == "none":
        return nn.Identity()
    return LocalResponseNorm(size=9, alpha=1e-3, alpha_times="mean", beta=0.75, k=1.0)


def _within_map_norm(config: CifarConvConfig) -> nn.Module:
    if config.normalization == "none":
        return nn.Identity()
    return MapResponseNorm(size=3, alpha=5e-5, beta=0.75, k=1.0)
