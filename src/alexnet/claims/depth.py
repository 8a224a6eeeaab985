"""§1 and §7: what each layer is worth, and whether width and rate make up for it."""

from __future__ import annotations

from collections.abc import Sequence

from alexnet.claims.experiment import Arm, Experiment, lower
from alexnet.models.alexnet import AlexNetConfig
from alexnet.training.config import TrainConfig

REMOVED = (2, 3, 4, 5)


def _without(base: TrainConfig, layer: int, width: float = 1.0) -> dict[str, object]:
    """The network without conv``layer``; the other convolutional layers from conv2 on ``width`` times as wide. Without conv3
    the towers meet in conv4: what is removed is a layer, not the meeting."""
    assert isinstance(base.model, AlexNetConfig)
    channels = [c if i == 0 else 2 * round(c * width / 2) for i, c in enumerate(base.model.conv_channels)]
    channels[layer - 1] = 0
    changes: dict[str, object] = {"model.conv_channels": tuple(channels)}
    if f"conv{layer}" in base.model.joined:
        joined = tuple(f"conv{layer + 1}" if name == f"conv{layer}" else name for name in base.model.joined)
        changes["model.joined"] = joined
    return changes


def _arms(base: TrainConfig) -> Sequence[Arm]:
    return (
        Arm(name="base"),
        *(Arm(name=f"without-conv{i}", changes=_without(base, i)) for i in REMOVED),
    )


def _compensated_arms(base: TrainConfig) -> Sequence[Arm]:
    return (
        Arm(name="base"),
        *(Arm(name=f"wider-without-conv{i}", changes=_without(base, i, 1.25)) for i in REMOVED),
    )


EXPERIMENTS = (
    Experiment(
        id="depth",
        title="Without each of conv2 to conv5",
        arms=_arms,
        comparisons=tuple(
            lower("center_error", claim, f"the error is lower with conv{i}", than=f"without-conv{i}", printed=printed)
            for claim, layers, printed in (("C5", (2, 5), None), ("C6", (3, 4), 2.0))
            for i in layers
        ),
    ),
    Experiment(
        id="depth-for-width",
        title="Without each of conv2 to conv5, the others a quarter wider, the rate chosen anew",
        arms=_compensated_arms,
        comparisons=tuple(
            lower("center_error", "N20", f"the error is lower with conv{i} than with width instead", than=name)
            for i, name in ((i, f"wider-without-conv{i}") for i in REMOVED)
        ),
    ),
)
