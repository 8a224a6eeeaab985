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
    """Where arms are not tuned alike (:attr:`Scale.tuning_seeds` is 0): a dotted field and its candidates, of which the best for
    one seed is taken."""
    search: tuple[str, ...] = ()
    """Dotted fields whose values are searched for this arm (``alexnet.claims.tuning``): :func:`arms_of` decides."""
    result: Callable[[Laboratory, TrainConfig], Result] | None = None
    """How a result is made of a configuration (its seed included), where that is not one training from scratch."""
    starts_at: Mapping[str, Any] = field(default_factory=dict)
    """Values of searched fields at which its search begins, where those of the recipe are meant for something else."""
    same_training: bool = False
    """Whether its networks are plainly trained, as its configuration says, so that it differs from other arms with the same
    changes in what is done with them: its settings are searched by plain trainings too."""
    chooses_itself: bool = False
    """Whether its method chooses its own settings, on training images or by a formula."""
    rate_of: tuple[str, float] | None = None
    """Where the claim is about a badly chosen rate: an arm before this one, and by what the rate chosen for that one is
    multiplied here. Nothing is chosen for this arm itself."""


@dataclass(frozen=True)
class Side:
    """A number: a measure (``alexnet.claims.measures``) of an arm, or how far it is above that of another: what is gained by
    going from the one to the other."""

    arm: str
    measure: str
    less: str | None = None
    """The other arm, whose number with the same seed is subtracted."""

    @property
    def arms(self) -> tuple[str, ...]:
        return (self.arm,) if self.less is None else (self.arm, self.less)

    def to_json(self) -> dict[str, str]:
        return {name: value for name, value in vars(self).items() if value is not None}


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
    """Whether every run is a test of its own, and the claim is that more of them show it than chance would make."""
    blind: bool = False
    """Whether its measure turned out to show next to nothing: it is compared where results are history, and nowhere else."""
    since: bool = False
    """Whether it was added since: it is compared everywhere but where results are history."""


def lower(
    measure: str,
    claim: str,
    says: str,
    *,
    arm: str = "base",
    than: str,
    printed: float | None = None,
    blind: bool = False,
    since: bool = False,
) -> Comparison:
    """That a measure is lower for one arm than for another."""
    return Comparison(
        claim=claim,
        says=says,
        lower=Side(arm, measure),
        higher=Side(than, measure),
        printed=printed,
        blind=blind,
        since=since,
    )


def sooner(claim: str, says: str, losses: Sequence[int], *, arm: str = "base", than: str) -> tuple[Comparison, ...]:
    """That the training loss of one arm is sooner down to each of these percentages of that of guessing."""
    return tuple(
        lower(
            f"epochs_to_loss_{percent}",
            claim,
            f"{says}: to {percent} % of that of guessing",
            arm=arm,
            than=than,
            since=True,
        )
        for percent in losses
    )


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
    also_tuned: tuple[str, ...] = ()
    """Fields that are searched for every arm beside the learning rate, since the claim is about something that goes with
    them: the deviations of the initial weights, the weight decay."""
    tuned_by: str = "center_error"
    """The measure that chooses among an arm's candidates: the lowest wins."""
    scales: tuple[str, ...] = ()
    """Where it makes sense; empty: everywhere."""

    def fits(self, scale: str) -> bool:
        return not self.scales or scale in self.scales

    def compared_at(self, scale: Scale) -> tuple[Comparison, ...]:
        """The comparisons that are made at a scale. Of few classes the best five are not counted."""
        return tuple(
            comparison
            for comparison in self.comparisons
            if not (comparison.since if scale.is_history else comparison.blind)
            and (scale.counts_top5 or not comparison.lower.measure.endswith("_top5"))
        )

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
    """The arms by name, with their configurations; rates are not chosen yet. Where arms are tuned alike, each has the same
    search: over the learning rate and what the experiment adds, less what the arm itself decides."""
    base = recipe_of(experiment, scale)
    found = {}
    for arm in experiment.arms(base):
        config = vary(base, arm.changes)
        if scale.tuning_seeds:
            arm = dataclasses.replace(arm, tuned=None, search=_search(arm, experiment.also_tuned))
        found[arm.name] = (arm, config)
    return found


def _search(arm: Arm, also: Sequence[str]) -> tuple[str, ...]:
    if arm.chooses_itself or arm.rate_of:
        return ()
    return ("optimizer.lr", *(name for name in also if name not in arm.changes))
