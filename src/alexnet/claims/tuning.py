"""The search for the settings of an arm, the same for every arm: by the images held out of the training images, never by those
that are counted.

A setting is tried at powers of two times the value that the arm's recipe has. The search begins with a half, one and twice
that value, and goes on outwards while the best is at the border. With several settings it takes one after the other, around
again until nothing changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from alexnet.claims.experiment import Arm, vary
from alexnet.claims.laboratory import Laboratory
from alexnet.claims.measures import MEASURES, cut_off
from alexnet.claims.results import Result, name_of
from alexnet.core.config import to_json
from alexnet.training.config import TrainConfig

FIRST_SEED = 1000
"""Seed of the first run of a candidate; none of the compared runs has it."""
MOST_STEPS = 8
"""Steps from the value of the recipe, either way, after which a search ends: 256 times."""


@dataclass(frozen=True)
class Candidate:
    """Values of the settings that were tried, and what came out of it."""

    changes: Mapping[str, Any]
    values: tuple[float | None, ...]
    """The measure of each run; None for one that diverged, or never got to what is measured."""
    training_errors: tuple[float, ...]
    results: tuple[str, ...]

    @property
    def score(self) -> tuple[float, float]:
        """Its mean over the runs, infinite if one has no number; among those, its mean training error."""
        mean = math.inf if None in self.values else _mean([value for value in self.values if value is not None])
        return mean, _mean(self.training_errors)

    def to_json(self) -> dict[str, Any]:
        return {"changes": to_json(self.changes), "values": list(self.values), "results": list(self.results)}


@dataclass(frozen=True)
class Tuning:
    """A finished search: the values that are taken, and every candidate."""

    chosen: dict[str, Any]
    document: dict[str, Any]
    """What the document of the experiment says of it."""


def tune(lab: Laboratory, arm: Arm, config: TrainConfig, *, measure: str, seeds: int) -> Tuning:
    """Search the fields :attr:`Arm.search` by the mean of a measure over runs that see no image of the test set. Arms with
    the same changes whose networks are plainly trained have one search together."""
    apart, config = lab.for_tuning(), vary(config, arm.starts_at)
    arm = Arm(name="base", search=arm.search) if arm.same_training else arm
    fields = tuple(name for name in arm.search if attrgetter(name)(config))  # no multiple of 0 is another value
    tried: dict[tuple[int, ...], Candidate] = {}

    def score(powers: tuple[int, ...]) -> tuple[float, float]:
        if powers not in tried:
            changes: dict[str, Any] = {}
            for name, power in zip(fields, powers, strict=True):
                changes |= scaled(config, name, 2.0**power)
            made = [
                apart.result(arm, replace(vary(config, changes), seed=FIRST_SEED + i, views=("1",)))
                for i in range(seeds)
            ]
            tried[powers] = Candidate(
                changes,
                tuple(_value(measure, result) for result in made),
                tuple(float(result.get("training", {}).get("top1_error", 1.0)) for result in made),
                tuple(map(name_of, made)),
            )
        return tried[powers].score

    best = search(score, len(fields))
    return Tuning(
        dict(tried[best].changes),
        {
            "measure": measure,
            "seeds": [FIRST_SEED + i for i in range(seeds)],
            "fields": list(fields),
            "chosen": to_json(tried[best].changes),
            "candidates": [tried[powers].to_json() for powers in sorted(tried)],
        },
    )


def search(score: Callable[[tuple[int, ...]], Any], num: int) -> tuple[int, ...]:
    """The powers of two of ``num`` settings with the lowest score that a search of one setting after the other finds; of
    equal ones the lowest power, so that what diverges leads downwards."""
    best = (0,) * num
    while True:
        before = best
        for i in range(num):
            best = _along(score, best, i)
        if best == before or num == 1:
            return best


def _along(score: Callable[[tuple[int, ...]], Any], start: tuple[int, ...], i: int) -> tuple[int, ...]:
    def at(power: int) -> tuple[int, ...]:
        return (*start[:i], power, *start[i + 1 :])

    low, high = max(start[i] - 1, -MOST_STEPS), min(start[i] + 1, MOST_STEPS)
    while True:
        best = min(range(low, high + 1), key=lambda power: (score(at(power)), power))
        if best == low > -MOST_STEPS:
            low -= 1
        elif best == high < MOST_STEPS:
            high += 1
        else:
            return at(best)


def scaled(config: TrainConfig, name: str, factor: float) -> dict[str, Any]:
    """The changes that make a setting so many times as large: each number of several; with the learning rate that of the
    biases."""
    value = attrgetter(name)(config)
    changes = {name: tuple(factor * x for x in value) if isinstance(value, tuple) else factor * value}
    if name == "optimizer.lr" and config.optimizer.bias_lr is not None:
        changes["optimizer.bias_lr"] = factor * config.optimizer.bias_lr
    return changes


def _value(measure: str, result: Result) -> float | None:
    return None if "diverged" in result or cut_off(measure, result) else MEASURES[measure](result)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
