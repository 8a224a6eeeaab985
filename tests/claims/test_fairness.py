"""Whether a comparison is a fair test follows from its arms and results, never from which side is ahead."""

from __future__ import annotations

from typing import Any

import pytest

from alexnet.claims.comparison import evidence_of
from alexnet.claims.experiment import Arm, Comparison, arms_of, lower
from alexnet.claims.fairness import choices_on_held_out, objections
from alexnet.claims.groups import EXPERIMENTS
from alexnet.claims.judging import judge
from alexnet.claims.measures import at_chance, blindness, cut_off, num_classes, share_at_chance
from alexnet.claims.scales import find_scale

RATES = ("optimizer.lr", (0.1, 0.2, 0.4))


def result(error: float = 0.2, *, classes: int = 1000, late: float = 0.0, **fields: Any) -> dict[str, Any]:
    """A run of a hundred curve points, at chance level for the share ``late``."""
    curve = [{"epoch": i / 10, "loss": 1.0, "error": 0.999 if i < 100 * late else error} for i in range(100)]
    views = {"1": {"top1_error": error, "top5_error": error / 4}}
    return {"views": views, "num_classes": classes, "curve": curve, "epochs": [{"epoch": 10}]} | fields


def reasons(first: Arm, second: Arm, of_second: list[dict[str, Any]] | None = None) -> list[str]:
    of = {first.name: [result()] * 3, second.name: of_second or [result()] * 3}
    return objections(
        lower("center_error", "C10", "", arm=first.name, than=second.name), {a.name: a for a in (first, second)}, of
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Arm(name="base", tuned=RATES), Arm(name="b", changes={"epochs": 2}, tuned=RATES)),
        # As many candidates elsewhere: Adam's rates are not SGD's.
        (Arm(name="base", tuned=RATES), Arm(name="b", changes={"epochs": 2}, tuned=("optimizer.lr", (1.0, 2.0, 4.0)))),
        # Other uses of the same networks.
        (Arm(name="a", result=result, same_training=True), Arm(name="b", result=result, same_training=True)),
        (Arm(name="a", result=result, chooses_itself=True), Arm(name="b", tuned=RATES)),
    ],
    ids=["alike", "other rates", "same networks", "each by itself"],
)
def test_arms_that_were_tuned_alike_are_fair(first: Arm, second: Arm) -> None:
    assert reasons(first, second) == []


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (Arm(name="base"), Arm(name="b", changes={"epochs": 2}), "chosen for the unchanged recipe, not for b"),
        (
            Arm(name="a", changes={"epochs": 1}),
            Arm(name="b", changes={"epochs": 2}),
            "no rate was chosen for either a or b",
        ),
        (
            Arm(name="base", tuned=RATES),
            Arm(name="b", changes={"epochs": 2}),
            "for base the rate was chosen out of 3, for b noth",
        ),
        (Arm(name="base"), Arm(name="b", tuned=RATES), "for b the rate was chosen out of 3, for base nothing was"),
        (
            Arm(name="a", tuned=RATES),
            Arm(name="b", tuned=(RATES[0], (0.1, 0.2))),
            "for a the rate was chosen out of 3, but for b the rate was chosen out of 2",
        ),
        # The same changes, but other trainings: fine-tuned and from scratch.
        (Arm(name="a", result=result), Arm(name="b", result=result), "no rate was chosen for either a or b"),
    ],
    ids=["base alone", "neither", "first alone", "second alone", "unlike", "other trainings"],
)
def test_arms_that_were_not_tuned_alike_are_no_fair_test(first: Arm, second: Arm, reason: str) -> None:
    (found,) = reasons(first, second)
    assert reason in found


def judged(comparison: Comparison, arms: Any, results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    row = evidence_of(comparison, {arm.name: arm for arm in arms}, results)
    document = {"experiment": "x", "scale": "imagenet", "arms": {}, "comparisons": [row]}
    found: dict[str, Any] = judge([document])[0]["comparisons"][0]
    return found


ALIKE = (Arm(name="a", tuned=RATES), Arm(name="b", changes={"epochs": 2}, tuned=RATES))


def test_a_control_that_did_not_train_makes_no_fair_test() -> None:
    guessing = [result(), result(0.95), result(0.93)]
    assert reasons(*ALIKE, guessing) == ["2 of 3 runs of b ended hardly better than guessing"]
    late = [result(), result(late=0.5), result(late=0.75)]
    assert reasons(*ALIKE, late) == ["b failed to train: 2 of 3 runs spent 50 to 75 % of their passes at chance level"]
    assert reasons(*ALIKE, [result(late=0.2)] * 3) == []


def test_both_sides_at_chance_level_have_no_verdict_however_clear_the_interval() -> None:
    comparison = lower("center_error", "C10", "", arm="a", than="b")
    results = {"a": [result(0.910)] * 3, "b": [result(0.999)] * 3}
    row = judged(comparison, ALIKE, results)
    assert row["verdict"] == "not a fair test yet"
    assert row["low"] is None


@pytest.mark.parametrize(
    ("error", "classes", "guess"), [(0.82, 10, True), (0.8, 10, False), (0.46, 2, True), (0.99, 1000, True)]
)
def test_chance_level_depends_on_the_number_of_classes(error: float, classes: int, guess: bool) -> None:
    assert at_chance(error, classes) == guess
    assert share_at_chance(result(error, classes=classes)) == guess


def race(*reached: bool) -> list[dict[str, Any]]:
    """Runs of ten epochs with the training error at 25 % after the fifth, or never."""
    return [
        result(curve=[{"epoch": i, "loss": 1.0, "error": 0.2 if got and i >= 5 else 0.5} for i in range(1, 11)])
        for got in reached
    ]


@pytest.mark.parametrize(
    ("first", "second", "effect", "bound"),
    [
        ((True, True), (True, True), 1, None),
        ((True, True), (True, False), 1, None),  # the lower one of two is the median, and it is known
        ((True, True), (False, False), 2, "at least"),
        ((False, False), (True, True), 0.5, "at most"),
        ((False, False), (False, False), None, None),
    ],
)
def test_runs_that_were_cut_off_give_a_bound(first: Any, second: Any, effect: float | None, bound: str | None) -> None:
    comparison = lower("epochs_to_goal", "C7", "", arm="a", than="b")
    row = judged(comparison, ALIKE, {"a": race(*first), "b": race(*second)})
    assert (row["bound"], row["effect"], row["reasons"]) == (bound, effect, [])
    assert row["verdict"] == ("inconclusive" if row["cut"] else "no effect as large")
    cut = [num for num in (2 - sum(first), 2 - sum(second)) if num]
    assert [text[:14] for text in row["cut"]] == [f"{num} of 2 runs of" for num in cut]
    assert (row["planned"], row["low"]) == ((7, None) if cut else (5, pytest.approx(1)))


def test_a_bound_between_arms_that_were_not_tuned_alike_is_no_fair_test() -> None:
    comparison = lower("epochs_to_goal", "C7", "", arm="base", than="b")
    arms = (Arm(name="base"), Arm(name="b", changes={"epochs": 2}))
    row = judged(comparison, arms, {"base": race(True, True), "b": race(False, False)})
    assert (row["verdict"], row["bound"], len(row["reasons"])) == ("not a fair test yet", "at least", 1)


def test_only_a_race_is_cut_off() -> None:
    (lost,) = race(False)
    assert cut_off("epochs_to_goal", lost)
    assert not cut_off("center_error", lost)


@pytest.mark.parametrize(("classes", "blind"), [(5, True), (10, True), (19, True), (20, False), (1000, False)])
def test_the_best_five_of_few_classes_test_nothing(classes: int, blind: bool) -> None:
    assert bool(blindness("center_error_top5", result(classes=classes))) == blind
    assert not blindness("center_error", result(classes=classes))


def test_convergence_where_the_rate_drops_is_not_the_arms() -> None:
    def epochs(*rates: float) -> list[dict[str, float]]:
        return [
            {"epoch": i, "val_loss": loss, "lr": lr}
            for i, (loss, lr) in enumerate(zip((2.0, 1.5, 1.0, 1.0), rates, strict=True), 1)
        ]

    assert "lowers the rate" in blindness("epochs_to_converge", result(epochs=epochs(0.1, 0.1, 0.01, 0.01)))
    assert blindness("epochs_to_converge", result(epochs=epochs(0.1, 0.1, 0.1, 0.1))) == ""


def test_classes_are_known_from_the_result_or_from_its_data() -> None:
    assert num_classes({"num_classes": 7, "config": {"data": "cifar10"}}) == 7
    assert num_classes({"num_classes": 10, "classes": ["a", "b"]}) == 2  # half of the classes
    assert num_classes({"config": {"data": "fashion-mnist"}}) == 10
    assert num_classes({"config": {"data": "photos/"}}) is None


def test_rates_that_were_chosen_by_held_out_images_are_named() -> None:
    experiment = EXPERIMENTS["history"]
    arms = {name: arm for name, (arm, _) in arms_of(experiment, find_scale("fashion-mnist")).items()}
    (note,) = choices_on_held_out(experiment, ("alexnet-2012", "lenet"), arms)
    assert note.startswith("the rate of lenet was chosen by the error on the same held-out images")
    apart = {name: arm for name, (arm, _) in arms_of(experiment, find_scale("cifar10-small")).items()}
    assert choices_on_held_out(experiment, ("alexnet-2012", "lenet"), apart) == []  # chosen on training images
    race = EXPERIMENTS["relu-tanh"]  # by the training error
    assert (
        choices_on_held_out(
            race, ("base", "tanh"), {n: a for n, (a, _) in arms_of(race, find_scale("cifar10")).items()}
        )
        == []
    )
