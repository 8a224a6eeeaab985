"""§4.2: dropout, and what might stand in its place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from alexnet.claims.augmentation import CENTERED
from alexnet.claims.experiment import Arm, Comparison, Experiment, Side, beside_base, lower, sooner
from alexnet.claims.scales import fan_ins
from alexnet.models.alexnet import AlexNetConfig
from alexnet.training.config import TrainConfig

NO_DROPOUT = {"model.dropout_rate": 0.0}


def _others(base: TrainConfig) -> Sequence[Arm]:
    unregularized = {**NO_DROPOUT, **CENTERED, "optimizer.weight_decay": 0.0, "augmentation.color_noise": 0.0}
    return (
        Arm(name="base"),
        Arm(name="tuned-decay", changes=NO_DROPOUT),
        Arm(name="no-regularization", changes=unregularized),
        Arm(name="global-average", changes={"model.head": "global_average", "model.fc_units": (0, 0)}),
    )


def narrow_fc(base: TrainConfig) -> dict[str, Any]:
    """fc6 and fc7 an eighth as wide; a layer that reads fewer units starts with weights larger by the root of the quotient."""
    model = base.model
    assert isinstance(model, AlexNetConfig)
    narrow = replace(model, fc_units=(model.fc_units[0] // 8, model.fc_units[1] // 8))
    fans = zip(model.weight_std, fan_ins(model), fan_ins(narrow), strict=True)
    return {
        "model.fc_units": narrow.fc_units,
        "model.weight_std": tuple(std * math.sqrt(before / now) for std, before, now in fans),
    }


def _narrow_arms(base: TrainConfig) -> Sequence[Arm]:
    return (
        Arm(name="base"),
        Arm(name="no-dropout", changes=NO_DROPOUT),
        Arm(name="narrow-fc", changes=narrow_fc(base)),
        Arm(name="narrow-fc-no-dropout", changes={**narrow_fc(base), **NO_DROPOUT}),
    )


EXPERIMENTS = (
    Experiment(
        id="dropout",
        title="With and without dropout",
        arms=beside_base({"no-dropout": NO_DROPOUT}),
        comparisons=(
            lower("gap", "C19", "held-out and training error are less apart with dropout", than="no-dropout"),
            lower("center_error", "C19", "the error is lower with dropout", than="no-dropout"),
            lower(
                "epochs_to_converge",
                "C19",
                "the network converges sooner without dropout",
                arm="no-dropout",
                than="base",
                printed=2.0,
                blind=True,
            ),
            *sooner(
                "C19",
                "the training loss comes down sooner without dropout",
                (75, 50, 25),
                arm="no-dropout",
                than="base",
            ),
        ),
    ),
    Experiment(
        id="dropout-kinds",
        title="Dropout: plain or inverted, after the fully connected layers or before them",
        arms=beside_base(
            {"inverted-dropout": {"model.dropout": "inverted"}, "dropout-before": {"model.dropout_place": "before"}}
        ),
        comparisons=(
            lower(
                "center_error", "N10", "the error is lower with plain than inverted dropout", than="inverted-dropout"
            ),
            lower("center_error", "N10", "the error is lower with dropout after the layers", than="dropout-before"),
        ),
    ),
    Experiment(
        id="dropout-narrow",
        title="With and without dropout, fc6 and fc7 as wide as they are and an eighth as wide",
        arms=_narrow_arms,
        comparisons=(
            Comparison(
                claim="N28",
                says="dropout lowers the error less where fc6 and fc7 are an eighth as wide",
                lower=Side("narrow-fc-no-dropout", "center_error", less="narrow-fc"),
                higher=Side("no-dropout", "center_error", less="base"),
            ),
            lower(
                "center_error",
                "N28",
                "where fc6 and fc7 are an eighth as wide the error is lower without dropout",
                arm="narrow-fc-no-dropout",
                than="narrow-fc",
            ),
        ),
    ),
    Experiment(
        id="dropout-others",
        title="In the place of dropout: a tuned decay, nothing at all, no fully connected layers",
        also_tuned=("optimizer.weight_decay",),
        arms=_others,
        comparisons=(
            lower("center_error", "N8", "the error is lower with dropout than with a tuned decay", than="tuned-decay"),
            lower(
                "center_error", "N9", "the error is lower with regularization than with none", than="no-regularization"
            ),
            lower(
                "center_error",
                "N11",
                "the error is lower with global average pooling than with fc6 and fc7",
                arm="global-average",
                than="base",
            ),
        ),
    ),
)
