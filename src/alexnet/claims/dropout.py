"""§4.2: dropout, and what might stand in its place."""

from __future__ import annotations

from collections.abc import Sequence

from alexnet.claims.augmentation import CENTERED
from alexnet.claims.experiment import Arm, Experiment, beside_base, lower, sooner
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
