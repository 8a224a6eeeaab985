"""Learning rates over time. A rate is a function of the time and of the validation errors so far; there is no state
that a checkpoint could forget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from alexnet.training.optimizer import OptimizerConfig


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """Divide the rate by ten when the validation error stops improving (§5)."""

    kind: Literal["plateau"] = "plateau"
    """How the learning rate changes over time."""
    factor: float = 0.1
    """Factor for the rate at each drop (§5)."""
    patience: int = 3
    """Number of epochs without a new lowest validation error after which the rate drops. The paper judged by eye."""
    drops: int = 3
    """Largest number of drops (§5: "reduced three times prior to termination")."""

    def __post_init__(self) -> None:
        if not 0 < self.factor < 1:
            raise ValueError(f"Plateau.factor is {self.factor}; a drop needs 0 < factor < 1")
        if self.patience < 1 or self.drops < 0:
            raise ValueError(f"Plateau has patience {self.patience}, drops {self.drops}; it needs at least 1 and 0")


@dataclass(frozen=True, kw_only=True)
class Staged:
    """The 2012 program's hand-made schedule as its logs record it (layer-params-145*.cfg), in epochs of a run of
    ``of`` epochs; a run of another length scales it."""

    kind: Literal["staged"] = "staged"
    """How the learning rate changes over time."""
    of: int = 90
    """Length of a run, in epochs, that the epochs below refer to. A run of another length scales them."""
    drops: tuple[int, ...] = (24, 51, 79)
    """Epochs at which the rate of the weights drops to a tenth."""
    bias_drops: tuple[int, ...] = (24,)
    """Epochs at which the rate of the biases drops to a tenth; in 2012 only at the first drop of the weights."""
    conv1_slow: int = 67
    """Epoch from which conv1 learns at a tenth of the rate of the others."""
    conv1_freeze: int = 72
    """Epoch from which conv1 is frozen."""
    noise_off: int = 67
    """Epoch at which the color noise ends."""

    def __post_init__(self) -> None:
        if max((*self.drops, *self.bias_drops, self.conv1_slow, self.conv1_freeze, self.noise_off)) > self.of:
            raise ValueError(f"Staged.of is {self.of}; every stage must start within these epochs")


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Multiply the rate by ``factor`` every ``every`` epochs."""

    kind: Literal["steps"] = "steps"
    """How the learning rate changes over time."""
    every: float = 30
    """Number of epochs between drops."""
    factor: float = 0.1
    """Factor for the rate at each drop."""

    def __post_init__(self) -> None:
        if not self.every > 0:
            raise ValueError(f"Steps.every is {self.every}; a number of epochs is positive")


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Half a cosine from the full rate to ``final`` times it, after a linear warm-up from 0."""

    kind: Literal["cosine"] = "cosine"
    """How the learning rate changes over time."""
    warmup: float = 0.0
    """Number of epochs in which the rate rises from 0."""
    final: float = 0.0
    """Share of the rate that is left at the end."""

    def __post_init__(self) -> None:
        if not self.warmup >= 0 or not 0 <= self.final <= 1:
            raise ValueError(
                f"Cosine has warmup {self.warmup}, final {self.final}; it needs warmup >= 0, 0 <= final <= 1"
            )


Schedule = Plateau | Staged | Steps | Cosine


@dataclass(frozen=True)
class Rates:
    """What a schedule decides for one step."""

    weight: float
    bias: float
    layers: Mapping[str, float] = field(default_factory=dict)
    """Factors on both rates of single layers; 0 freezes."""
    color_noise: float = 1.0
    """Factor on the color noise."""


def rates(
    schedule: Schedule, optimizer: OptimizerConfig, *, epoch: float, epochs: int, val_errors: Sequence[float]
) -> Rates:
    """The rates at time ``epoch`` (0 at the start, fractions within an epoch) of a run of ``epochs``, given the
    validation errors of the finished epochs."""
    weight = optimizer.lr
    bias = optimizer.lr if optimizer.bias_lr is None else optimizer.bias_lr
    if isinstance(schedule, Plateau):
        factor = schedule.factor ** count_drops(val_errors, schedule.patience, schedule.drops)
        return Rates(weight * factor, bias * factor)
    if isinstance(schedule, Staged):
        now = math.floor(epoch) * schedule.of / epochs  # the program changed its files between epochs
        conv1 = 0.0 if now >= schedule.conv1_freeze else 0.1 if now >= schedule.conv1_slow else 1.0
        return Rates(
            weight * 0.1 ** sum(now >= drop for drop in schedule.drops),
            bias * 0.1 ** sum(now >= drop for drop in schedule.bias_drops),
            {} if conv1 == 1.0 else {"conv1": conv1},
            float(now < schedule.noise_off),
        )
    if isinstance(schedule, Steps):
        factor = schedule.factor ** math.floor(epoch / schedule.every)
        return Rates(weight * factor, bias * factor)
    if epoch < schedule.warmup:
        factor = epoch / schedule.warmup
    else:
        progress = (epoch - schedule.warmup) / max(epochs - schedule.warmup, 1e-9)
        factor = schedule.final + (1 - schedule.final) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return Rates(weight * factor, bias * factor)


def judged_error(row: Mapping[str, Any]) -> float:
    """The validation error by which an epoch is judged, of its row in the log: top-1 or, where the run balances its classes and
    the row has it, the mean of the top-1 errors of the classes."""
    return float(row.get("val_balanced_top1_error", row["val_top1_error"]))


def best_epoch(history: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The row of the epoch with the lowest validation error; of equal ones the first."""
    return min(history, key=judged_error)


def count_drops(val_errors: Sequence[float], patience: int, most: int) -> int:
    """How often the error has gone ``patience`` epochs without a new lowest value; each drop starts a new count."""
    drops = waited = 0
    best = math.inf
    for error in val_errors:
        best, waited = (error, 0) if error < best else (best, waited + 1)
        if waited >= patience and drops < most:
            drops, waited = drops + 1, 0
    return drops


def set_rates(optimizer: torch.optim.Optimizer, rates: Rates) -> None:
    """Write the rates into the groups made by :func:`~alexnet.training.optimizer.build_optimizer`."""
    for group in optimizer.param_groups:
        rate = rates.weight if group["role"] == "weight" else rates.bias
        group["lr"] = rate * rates.layers.get(group["layer"], 1.0) * group["factor"]
