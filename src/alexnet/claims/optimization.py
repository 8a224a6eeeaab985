"""§5: weight decay, biases, initial weights, momentum, batches, the update rule, schedules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alexnet.claims.experiment import Arm, Experiment, beside_base, lower, sooner
from alexnet.models.alexnet import AlexNetConfig
from alexnet.training.config import TrainConfig
from alexnet.training.schedule import Cosine, Plateau, Schedule, Staged, Steps


def biases_times(base: TrainConfig, factor: float) -> dict[str, Any]:
    """All initial biases so many times as large."""
    assert isinstance(base.model, AlexNetConfig)
    return {"model.biases": tuple(factor * b for b in base.model.biases)}


def _bias_arms(base: TrainConfig) -> Sequence[Arm]:
    return (
        Arm(name="base"),
        *(Arm(name=f"bias-{factor:g}", changes=biases_times(base, factor)) for factor in (0.1, 0.0)),
    )


def _std_arms(base: TrainConfig) -> Sequence[Arm]:
    assert isinstance(base.model, AlexNetConfig)
    std = base.model.weight_std
    return (
        Arm(name="base"),
        *(Arm(name=f"std-x{times}", changes={"model.weight_std": tuple(times * s for s in std)}) for times in (2, 3)),
    )


def _noise_arms(base: TrainConfig) -> Sequence[Arm]:
    return (
        Arm(name="base"),
        *(Arm(name=f"batch-x{times}", changes={"batch_size": times * base.batch_size}) for times in (4, 8)),
    )


def _rule_arms(base: TrainConfig) -> Sequence[Arm]:
    """The search of Adam's rate begins at a sixteenth of that of SGD."""
    slower = base.optimizer.lr / 16
    return (
        Arm(name="base"),
        Arm(name="torch-sgd", changes={"optimizer.kind": "sgd"}),
        Arm(
            name="adamw",
            changes={"optimizer.kind": "adamw"},
            starts_at={"optimizer.lr": slower, "optimizer.weight_decay": 0.01},
        ),
        Arm(name="adam", changes={"optimizer.kind": "adam"}, starts_at={"optimizer.lr": slower}),
    )


def schedules(base: TrainConfig) -> dict[str, Schedule]:
    """Schedules of the rate over the passes of a recipe."""
    return {
        "plateau": Plateau(patience=max(1, round(base.epochs * 5 / 90))),
        "staged": Staged(),
        "steps": Steps(every=base.epochs / 3),
        "cosine": Cosine(warmup=base.epochs / 18),
    }


def _schedule_arms(base: TrainConfig) -> Sequence[Arm]:
    return tuple(Arm(name=name, changes={"schedule": schedule}) for name, schedule in schedules(base).items())


EXPERIMENTS = (
    Experiment(
        id="weight-decay",
        title="Weight decay and the training error",
        arms=beside_base({"no-decay": {"optimizer.weight_decay": 0.0}}),
        comparisons=(
            lower("training_error", "C21", "the training error is lower with weight decay", than="no-decay"),
            lower("training_loss", "C21", "the training loss is lower with weight decay", than="no-decay"),
            lower("center_error", "C21", "the error is lower with weight decay", than="no-decay"),
        ),
    ),
    Experiment(
        id="biases",
        title="Initial biases of 1, 0.1 and 0",
        also_tuned=("model.weight_std",),
        arms=_bias_arms,
        comparisons=(
            lower("early_loss", "C22", "early loss is lower with biases of 1 than of 0", than="bias-0", blind=True),
            lower("early_loss", "C22", "early loss is lower with biases of 1 than of 0.1", than="bias-0.1", blind=True),
            *sooner("C22", "the training loss comes down sooner with biases of 1 than of 0", (90, 75), than="bias-0"),
            *sooner(
                "C22", "the training loss comes down sooner with biases of 1 than of 0.1", (90, 75), than="bias-0.1"
            ),
            lower("center_error", "N14", "the error is lower with biases of 0 than of 1", arm="bias-0", than="base"),
        ),
    ),
    Experiment(
        id="initial-weights",
        title="Initial weights at the paper's scale, twice and three times it",
        arms=_std_arms,
        comparisons=(
            lower("center_error", "N15", "the error is lower with 0.02 for 0.01", arm="std-x2", than="base"),
            lower("center_error", "N15", "the error is lower with 0.03 for 0.01", arm="std-x3", than="base"),
        ),
    ),
    Experiment(
        id="momentum",
        title="With and without momentum",
        arms=beside_base({"no-momentum": {"optimizer.momentum": 0.0}}),
        comparisons=(
            lower("center_error", "C20", "the error is lower with momentum 0.9 than with none", than="no-momentum"),
        ),
    ),
    Experiment(
        id="sgd-noise",
        title="Batches four and eight times as large",
        arms=_noise_arms,
        comparisons=(
            lower("center_error", "N16", "the error is lower than with batches four times as large", than="batch-x4"),
            lower("center_error", "N16", "the error is lower than with batches eight times as large", than="batch-x8"),
        ),
    ),
    Experiment(
        id="update-rule",
        title="The paper's update rule, torch's SGD, Adam and AdamW",
        also_tuned=("optimizer.weight_decay",),
        arms=_rule_arms,
        comparisons=(
            lower(
                "center_error", "N17", "the error is lower by the paper's rule than by torch's SGD", than="torch-sgd"
            ),
            lower("center_error", "N18", "the error is lower by SGD than by Adam", than="adam"),
            lower("center_error", "N18", "the error is lower by SGD than by AdamW", than="adamw"),
            *sooner(
                "N18", "the training loss comes down sooner by Adam than by SGD", (90, 75), arm="adam", than="base"
            ),
        ),
    ),
    Experiment(
        id="schedules",
        title="The rate on plateaus, as the 2012 program's log has it, in steps, and by a cosine with warm-up",
        arms=_schedule_arms,
        comparisons=(
            lower(
                "center_error", "N19", "the error is lower by a cosine than on plateaus", arm="cosine", than="plateau"
            ),
            lower("center_error", "N19", "the error is lower by a cosine than by steps", arm="cosine", than="steps"),
            lower(
                "center_error",
                "C23",
                "the error is lower on plateaus than by logged stages",
                arm="plateau",
                than="staged",
            ),
        ),
    ),
)
