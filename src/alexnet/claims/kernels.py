"""§1 and §3.5: convolution against networks of as many parameters without it, and how large the first kernels are."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

from alexnet.claims.experiment import Arm, Comparison, Experiment, lower, sooner
from alexnet.claims.scales import fan_ins, suited_std
from alexnet.models.alexnet import AlexNet, AlexNetConfig
from alexnet.training.config import TrainConfig

UNSHARED = ("conv3", "conv4", "conv5")
"""Where maps are small enough for kernels of their own; in the 2012 program's networks for CIFAR-10, too, the first layers share
theirs."""
WIDEST = 1 << 14


# As many parameters -----------------------------------------------------------------------------------------------------


def num_parameters(config: AlexNetConfig) -> int:
    return sum(parameter.numel() for parameter in AlexNet(config, seed=None).parameters())


def widest(of_width: Callable[[int], AlexNetConfig], num: int) -> AlexNetConfig:
    """The widest of these networks with at most so many parameters. Widths are even, for two towers, and 2 at least."""
    widths = range(2, WIDEST, 2)
    return of_width(widths[max(0, bisect_right(widths, num, key=lambda width: num_parameters(of_width(width))) - 1)])


def unshared(base: AlexNetConfig) -> AlexNetConfig:
    """Kernels of their own at each place of :data:`UNSHARED`, in so few maps, and so many units of fc6, that the network has as
    many parameters. fc7 keeps its width, so that this holds for any number of classes."""
    first = base.conv_channels[:2]

    def of_maps(width: int) -> AlexNetConfig:
        return replace(base, unshared=UNSHARED, conv_channels=(*first, width, width, width))

    return _filled_up(widest(of_maps, num_parameters(base)), base)


def fully_connected(base: AlexNetConfig) -> AlexNetConfig:
    """Three hidden layers that read everything: the first are kernels as large as the image, the last is as wide as fc7."""
    fc7 = base.fc_units[1]

    def of_units(width: int) -> AlexNetConfig:
        return replace(
            base,
            conv_channels=(width, 0, 0, 0, 0),
            conv_kernels=(base.input_size, *base.conv_kernels[1:]),
            conv_strides=(1, *base.conv_strides[1:]),
            conv_padding=(0, *base.conv_padding[1:]),
            stages=("act", "", "", "", ""),
            fc_units=(width, fc7),
        )

    return _filled_up(widest(of_units, num_parameters(base)), base)


def _filled_up(config: AlexNetConfig, base: AlexNetConfig) -> AlexNetConfig:
    """With as many units in fc6 as make up for what is still missing."""
    fc7 = base.fc_units[1]
    config = widest(lambda width: replace(config, fc_units=(width, fc7)), num_parameters(base))
    return replace(config, weight_std=suited_std(config, base))


# The first layer ----------------------------------------------------------------------------------------------------------


def kernels_of_7(base: AlexNetConfig) -> AlexNetConfig:
    """conv1 of 7 x 7 at stride 2 as in ZFNet, and conv2 at stride 2 too, so that conv3 sees maps of the size that it knows."""
    config = replace(
        base, conv_kernels=(7, *base.conv_kernels[1:]), conv_strides=(2, 2, *base.conv_strides[2:]), overhang=True
    )
    return replace(config, weight_std=suited_std(config, base))


def two_layers_of_3(base: AlexNetConfig) -> AlexNetConfig:
    """Two layers of 3 x 3 in the place of conv1, which share its stride. At stride 1 a unit sees 5 x 5 pixels, as with kernels of
    that size; at stride 4 it sees 7 x 7, where kernels of 11 x 11 see more. The second layer reads its own tower."""
    stride = math.isqrt(base.conv_strides[0])
    first = base.conv_channels[0]
    config = replace(
        base,
        conv_channels=(first, *base.conv_channels),
        conv_kernels=(3, 3, *base.conv_kernels[1:]),
        conv_strides=(stride, stride, *base.conv_strides[1:]),
        conv_padding=(1, 1, *base.conv_padding[1:]),
        overhang=False,
        stages=("act", *base.stages),
        joined=tuple(f"conv{int(name[4:]) + 1}" if name.startswith("conv") else name for name in base.joined),
        weight_std=(base.weight_std[0], *base.weight_std),
        biases=(base.biases[0], *base.biases),
    )
    # The sums of the first layer are as large as those of conv1, and the second keeps their size (sqrt(2 / inputs), for ReLU).
    (of_image, of_maps), of_conv1 = fan_ins(config)[:2], fan_ins(base)[0]
    first_std = base.weight_std[0] * math.sqrt(of_conv1 / of_image)
    stds = (round(first_std, 5), round(math.sqrt(2 / of_maps), 5))
    return replace(config, weight_std=(*stds, *base.weight_std[1:]))


# The experiments ----------------------------------------------------------------------------------------------------------


def _with(**networks: Callable[[AlexNetConfig], AlexNetConfig]) -> Callable[[TrainConfig], Sequence[Arm]]:
    """The recipe unchanged, and an arm for each network that is made of its own."""

    def arms(base: TrainConfig) -> Sequence[Arm]:
        assert isinstance(base.model, AlexNetConfig)
        made = {name.replace("_", "-"): _changes(base.model, make(base.model)) for name, make in networks.items()}
        return Arm(name="base"), *(Arm(name=name, changes=changes) for name, changes in made.items())

    return arms


def _changes(base: AlexNetConfig, other: AlexNetConfig) -> dict[str, Any]:
    values = {field.name: (getattr(base, field.name), getattr(other, field.name)) for field in fields(base)}
    return {f"model.{name}": after for name, (before, after) in values.items() if before != after}


def _against_convolution(arm: str, what: str) -> tuple[Comparison, ...]:
    return (
        *sooner("N40", f"the training loss comes down sooner by convolution than {what}", (75, 50, 25), than=arm),
        lower("center_error", "N40", f"the error is lower {what} than by convolution", arm=arm, than="base"),
    )


EXPERIMENTS = (
    Experiment(
        id="convolution",
        title="Convolution, fully connected layers, and kernels that are not shared, with as many parameters",
        also_tuned=("model.weight_std",),
        arms=_with(fully_connected=fully_connected, unshared=unshared),
        comparisons=(
            *_against_convolution("fully-connected", "fully connected"),
            *_against_convolution("unshared", "with kernels that are not shared"),
        ),
    ),
    Experiment(
        id="kernel-stack",
        title="Two layers of 3 x 3 in the place of conv1",
        also_tuned=("model.weight_std",),
        arms=_with(two_of_3x3=two_layers_of_3),
        comparisons=(
            lower(
                "center_error",
                "N42",
                "the error is lower with two layers of 3 x 3 than with one of larger kernels",
                arm="two-of-3x3",
                than="base",
            ),
        ),
    ),
    Experiment(
        id="first-kernels",
        title="The first kernels: 11 x 11 at stride 4 and 7 x 7 at stride 2",
        also_tuned=("model.weight_std",),
        arms=_with(conv1_7x7=kernels_of_7),
        comparisons=(
            lower(
                "center_error",
                "N42",
                "the error is lower with 7 x 7 at stride 2 than with 11 x 11 at stride 4",
                arm="conv1-7x7",
                than="base",
            ),
        ),
        scales=("imagenette", "imagenet"),
    ),
)
