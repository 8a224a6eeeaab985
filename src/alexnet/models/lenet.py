"""LeNet-5 (LeCun, Bottou, Bengio and Haffner 1998) in the plain form that textbooks compare AlexNet with.

Shape suffixes: B images, C channels, H rows, W columns, D units, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from alexnet.core.rng import DropoutDraw
from alexnet.models.layers import Activation, activation, check_input, check_sizes, initialize
from alexnet.models.network import Network


@dataclass(frozen=True, kw_only=True)
class LeNetConfig:
    """What separates LeNet from AlexNet besides size: the nonlinearity and the pooling."""

    kind: Literal["lenet"] = "lenet"
    """Kind of network."""
    input_size: int = 28
    """Side of the square input, in pixels; C1 adds two zeros on each side."""
    in_channels: int = 1
    """Channels of the input: 1 for grey, 3 for color."""
    num_classes: int = 10
    """Number of outputs; 0: there is no last layer, and the network gives what it would read."""
    activation: Activation = "sigmoid"
    """The nonlinearity of all hidden layers."""
    pooling: Literal["average", "max"] = "average"
    """Whether pooling takes the average of a 2 x 2 window or its largest value."""

    def __post_init__(self) -> None:
        check_sizes(self, 1, "in_channels")
        check_sizes(self, 0, "num_classes")
        check_sizes(self, 12, "input_size")  # C3's 5 x 5 kernels on maps of half that side, and S4 after them


def lenet() -> LeNetConfig:
    """LeNet of 1998 for 28-pixel images: 61,706 parameters."""
    return LeNetConfig()


class LeNet(Network):
    """Layers bear the names of the 1998 paper. Reads (B, in_channels, input_size, input_size), gives logits
    (B, num_classes). There is no dropout: `draw` has no effect."""

    HEAD = "output"
    config: LeNetConfig

    def __init__(self, config: LeNetConfig, *, name: str = "lenet", seed: int | None = 0) -> None:
        super().__init__()
        self.config = config
        self.name = name
        pool = nn.AvgPool2d if config.pooling == "average" else nn.MaxPool2d
        last_map = (config.input_size // 2 - 4) // 2
        self.c1 = nn.Conv2d(config.in_channels, 6, 5, padding=2, device="meta")
        self.act1 = activation(config.activation)
        self.s2 = pool(2)
        self.c3 = nn.Conv2d(6, 16, 5, device="meta")
        self.act3 = activation(config.activation)
        self.s4 = pool(2)
        self.c5 = nn.Linear(16 * last_map**2, 120, device="meta")
        self.act5 = activation(config.activation)
        self.f6 = nn.Linear(120, 84, device="meta")
        self.act6 = activation(config.activation)
        self.num_features = 84
        self.output = self.new_head()
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
            for layer in (self.c1, self.c3, self.c5, self.f6):
                initialize(layer, generator, init="xavier")  # with a smaller start, sigmoids let no gradient through
            if config.num_classes:
                self.draw_head(generator)

    def forward(self, x_BCHW: Tensor, draw: DropoutDraw | None = None) -> Tensor:
        return self.forward_head(self.forward_features(x_BCHW))

    def forward_features(self, x_BCHW: Tensor) -> Tensor:
        """The maps of S4 (B, 16, H, W)."""
        check_input(self.name, self.config, x_BCHW)
        x_BCHW = self.s2(self.act1(self.c1(x_BCHW)))  # 6 x 14 x 14
        return cast(Tensor, self.s4(self.act3(self.c3(x_BCHW))))  # 16 x 5 x 5

    def forward_head(self, x_BCHW: Tensor, pre_logits: bool = False, draw: DropoutDraw | None = None) -> Tensor:
        x_BD = self.act5(self.c5(x_BCHW.flatten(1)))  # 120
        x_BD = self.act6(self.f6(x_BD))  # 84
        return cast(Tensor, x_BD if pre_logits else self.output(x_BD))  # logits_BK

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        return [
            {"num_chs": 6, "reduction": 2, "module": "s2"},
            {"num_chs": 16, "reduction": 4, "module": "s4"},
        ]

    def draw_head(self, generator: torch.Generator) -> None:
        initialize(self.output, generator, init="xavier")
