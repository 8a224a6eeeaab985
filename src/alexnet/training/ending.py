"""When a run ends before its last epoch, and why one that has ended cannot simply go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alexnet.training.config import TrainConfig, other_rate
from alexnet.training.schedule import best_epoch, judged_error, rates


def ends(config: TrainConfig, history: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a run with these finished epochs ends, though there were more to come."""
    return _why_it_ends(config, history) is not None


def _why_it_ends(config: TrainConfig, history: Sequence[Mapping[str, Any]]) -> str | None:
    """The reason, and what to change for more epochs."""
    goal, patience = config.until_train_error, config.early_stopping
    if goal is not None and any(row["train_top1_error"] <= goal for row in history):
        return f"the training error has reached {goal:g}; for more epochs, add --change --until-train-error None"
    if patience is None or not history:
        return None
    best, last = best_epoch(history)["epoch"], history[-1]["epoch"]
    if last - best < patience:
        return None
    return (
        f"no epoch after epoch {best} had a lower validation error; for more epochs, add --change --early-stopping "
        f"{last - best + 1} or more, or None"
    )


def why_not_longer(
    before: TrainConfig, config: TrainConfig, history: Sequence[Mapping[str, Any]], *, change: bool
) -> str | None:
    """Why a run that has ended with the settings ``before`` does not go on with ``config``, and what to add; None if it does.

    It goes on where it would end no sooner, and where the epochs that it has trained are the first ones of the longer run too:
    with rates that depend on the length of a run, only if asked to ``change``."""
    if (ended := _why_it_ends(config, history)) is not None:
        return ended
    errors, done = [judged_error(row) for row in history], len(history)

    def rate(epoch: float, settings: TrainConfig) -> float:
        seen = errors[: int(epoch)]
        now = rates(settings.schedule, settings.optimizer, epoch=epoch, epochs=settings.epochs, val_errors=seen)
        return now.weight

    if change or all(rate(epoch, before) == rate(epoch, config) for epoch in np.arange(0, done, 0.25)):
        return None
    low, high = rate(done - 0.01, before), rate(done, config)
    return (
        f"its {config.schedule.kind} schedule is one of {before.epochs} epochs and ended at a learning rate of {low:.2g}; one of "
        f"{config.epochs} would go back to {high:.2g}. To train on like that, add --change; to train on at one low rate, add "
        f"--change --schedule.kind steps --schedule.every {config.epochs}{other_rate(config, 0.1)}"
    )
