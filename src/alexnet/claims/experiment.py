"""What an experiment is: arms that differ from one recipe in named fields, and what is compared between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from alexnet.claims.results import Result
from alexnet.claims.scales import Scale
from alexnet.training.config import TrainConfig

if TYPE_CHECKING:
    from alexnet.claims.laboratory import Laboratory


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to train: a recipe with these fields replaced, and no others."""

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Dotted field of the recipe's :class:`TrainConfig` to its value here: ``{"model.normalization": "none"}``."""
    tuned: tuple[str, tuple[Any, ...]] | None = None
    """A dotted field and its candidates: the best for one seed, of none that are compared, is taken."""
    result: Callable[[Laboratory, TrainConfig], Result] | None = None
    """How a result is made of a configuration (its seed included), where that is not one training from scratch."""
    same_training: bool = False
    """Whether its networks are trained as those of the unchanged recipe, so that arms differ in what is done with them."""
    chooses_itself: bool = False
    """Whether its method chooses its own settings, on training images."""


@dataclass(frozen=True)
class Side:
    """A number: a measure (``alexnet.claims.measures``) of an arm."""

    arm: str
    measure: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What the claim says of two numbers: ``lower`` is the lower one."""

    claim: str
    says: str
    """In words: what is lower than what."""
    lower: Side
    higher: Side
    printed: float | None = None
    """The effect in the paper, in the unit of the measures."""
    each: bool = False
    """Whether every run is a test of its own, and the claim is that all of them show it."""


def lower(
    measure: str, claim: str, says: str, *, arm: str = "base", than: str, printed: float | None = None
) -> Comparison:
    """That a measure is lower for one arm than for another."""
    return Comparison(claim=claim, says=says, lower=Side(arm, measure), higher=Side(than, measure), printed=printed)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Arms and comparisons that answer one or more claims."""

    id: str
    title: str
    arms: Callable[[TrainConfig], Sequence[Arm]]
    """The arms for the recipe of a scale. The one named ``base`` changes nothing."""
    comparisons: tuple[Comparison, ...]
    recipe: Literal["network", "four-layer"] = "network"
    """Which recipe of a scale is varied."""
    setting: Mapping[str, Any] = field(default_factory=dict)
    """Changes that all arms share, the base too."""
    tuned_by: str = "center_error"
    """The measure that chooses among an arm's candidates: the lowest wins."""
    scales: tuple[str, ...] = ()
    """Where it makes sense; empty: everywhere."""

    def fits(self, scale: str) -> bool:
        return not self.scales or scale in self.scales

    @property
    def claims(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(comparison.claim for comparison in self.comparisons))


def beside_base(changes: Mapping[str, Mapping[str, Any]]) -> Callable[[TrainConfig], Sequence[Arm]]:
    """For :attr:`Experiment.arms`: the recipe unchanged, and an arm of each of these names with its changes."""
    arms = (Arm(name="base"), *(Arm(name=name, changes=fields) for name, fields in changes.items()))
    return lambda _recipe: arms


def vary(config: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    """The configuration with dotted fields replaced: ``vary(config, {"optimizer.lr": 0.02, "epochs": 3})``."""
    grouped: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        head, _, rest = name.partition(".")
        grouped.setdefault(head, {})[rest] = value
    replaced = {
        head: inner[""] if "" in inner else dataclasses.replace(getattr(config, head), **inner)
        for head, inner in grouped.items()
    }
    return dataclasses.replace(config, **replaced)


def learning_rates(base: TrainConfig, factors: Sequence[float] = (0.25, 0.5, 1.0, 2.0)) -> tuple[str, tuple[Any, ...]]:
    """The recipe's learning rate times these, for :attr:`Arm.tuned`."""
    return "optimizer.lr", tuple(base.optimizer.lr * factor for factor in factors)


def recipe_of(experiment: Experiment, scale: Scale) -> TrainConfig:
    """What all arms of the experiment are varied from."""
    return vary(scale.network if experiment.recipe == "network" else scale.four_layer, experiment.setting)


def arms_of(experiment: Experiment, scale: Scale) -> dict[str, tuple[Arm, TrainConfig]]:
    """The arms by name, with their configurations; rates are not chosen yet."""
    base = recipe_of(experiment, scale)
    return {arm.name: (arm, vary(base, arm.changes)) for arm in experiment.arms(base)}
