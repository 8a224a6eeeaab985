"""§3.2: two towers, and what parts between them (§6.1)."""

from __future__ import annotations

from collections.abc import Sequence

from alexnet.claims.experiment import Arm, Comparison, Experiment, Side, beside_base, lower
from alexnet.models.alexnet import AlexNetConfig
from alexnet.training.config import TrainConfig


def _half(base: TrainConfig) -> Sequence[Arm]:
    assert isinstance(base.model, AlexNetConfig)
    *first, last = base.model.conv_channels
    halves = (*(width // 2 for width in first), last)
    return (
        Arm(name="base"),
        Arm(name="one-tower-half", changes={"model.towers": 1, "model.conv_channels": halves}),
    )


EXPERIMENTS = (
    Experiment(
        id="towers",
        title="Two towers, and one with half the kernels",
        arms=_half,
        comparisons=(
            lower(
                "center_error",
                "C8",
                "the error of two towers is lower than of half",
                than="one-tower-half",
                printed=1.7,
            ),
            lower("center_error_top5", "C8", "the top-5 error likewise", than="one-tower-half", printed=1.2),
        ),
    ),
    Experiment(
        id="tower-meetings",
        title="Towers that meet, towers that never meet, and none",
        arms=beside_base({"isolated": {"model.joined": ()}, "one-tower": {"model.towers": 1}}),
        comparisons=(
            lower(
                "center_error", "N7", "the error of towers that meet is lower than of two that do not", than="isolated"
            ),
            lower("center_error", "N7", "the error without towers is lower than with", arm="one-tower", than="base"),
        ),
    ),
    Experiment(
        id="tower-colors",
        title="Whether one tower is for color, by a permutation test of each run",
        arms=beside_base({}),
        comparisons=(
            Comparison(
                claim="C34",
                says="the towers' color selectivities differ by more than 95 % of what chance makes",
                lower=Side("base", "tower_difference_by_chance"),
                higher=Side("base", "tower_difference"),
                each=True,
            ),
        ),
        scales=("smoke", "cifar10-small", "cifar10", "imagenette", "imagenet"),
    ),
)
