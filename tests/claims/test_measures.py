"""Measures are arithmetic on a result file."""

from __future__ import annotations

import pytest

from alexnet.claims.laboratory import curve
from alexnet.claims.measures import MEASURES, UNITS, cut_off, time_to_loss

RESULT = {
    "views": {
        "1": {"top1_error": 0.4, "top5_error": 0.1},
        "10": {"top1_error": 0.35, "top5_error": 0.08},
        "random:10": {"top1_error": 0.38},
        "random:30": {"top1_error": 0.36},
    },
    "training": {"top1_error": 0.3, "loss_nats": 0.9},
    "epochs": [{"epoch": 1, "val_loss": 2.0}, {"epoch": 2, "val_loss": 1.04}, {"epoch": 3, "val_loss": 1.0}],
    "curve": [{"epoch": (i + 1) / 10, "loss": 3.0 - 0.1 * i, "error": 0.9 - 0.03 * i, "steps": 1} for i in range(30)],
    "towers": {"difference": 0.2, "by_chance": 0.05},
    "seconds": 6.0,
    "images_seen": 3000,
}


@pytest.mark.parametrize(
    ("measure", "value"),
    [
        ("center_error", 0.4),
        ("center_error_top5", 0.1),
        ("ten_view_error", 0.35),
        ("ten_view_error_top5", 0.08),
        ("random_10_error", 0.38),
        ("random_30_error", 0.36),
        ("training_error", 0.3),
        ("training_loss", 0.9),
        ("gap", 0.1),
        ("early_loss", 2.9),  # 3.0, 2.9, 2.8
        ("epochs_to_goal", 2.3),  # 0.9 - 0.03 * 22 = 0.24
        ("epochs_to_converge", 2),  # 1.04 <= 1.05
        ("tower_difference", 0.2),
        ("tower_difference_by_chance", 0.05),
        ("seconds", 2.0),
    ],
)
def test_each_measure(measure, value):
    assert MEASURES[measure](RESULT) == pytest.approx(value)


def test_a_run_that_never_got_there_counts_all_its_epochs():
    assert MEASURES["epochs_to_goal"](RESULT | {"curve": RESULT["curve"][:5]}) == 3


def losses(*loss: float, epoch: float = 0.1, classes: int = 10) -> dict:
    points = [{"epoch": epoch * (i + 1), "loss": value} for i, value in enumerate(loss)]
    return {"curve": points, "num_classes": classes}


def test_runs_are_timed_to_shares_of_the_loss_of_guessing():
    run = losses(*[2.3] * 5, *[1.0] * 5, *[0.5] * 10)  # ln 10 = 2.303
    # Means over five points: 2.3, 2.04, 1.78, 1.52, 1.26, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5.
    for percent, epochs in ((90, 0.6), (75, 0.8), (50, 1.0), (25, 1.5)):
        measure = f"epochs_to_loss_{percent}"
        assert MEASURES[measure](run) == pytest.approx(epochs)
        assert not cut_off(measure, run)
        assert UNITS[measure] == "times"


def test_one_step_at_a_low_loss_is_not_there_yet():
    assert time_to_loss(losses(2.3, 0.1, *[2.3] * 8), 0.75) is None
    assert time_to_loss(losses(0.1, 2.0, 2.0, 2.0, 2.0), 0.75) == pytest.approx(0.5)


def test_half_an_epoch_is_as_long_in_a_coarse_curve_as_in_a_fine_one():
    assert time_to_loss(losses(2.0, 1.0, 1.0, 1.0, epoch=0.25), 0.5) == pytest.approx(0.75)
    assert time_to_loss(losses(2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, epoch=0.125), 0.5) == pytest.approx(0.75)


def test_a_run_that_never_gets_to_a_loss_is_cut_off_after_all_its_epochs():
    run = losses(*[2.0] * 30)
    assert cut_off("epochs_to_loss_75", run)
    assert MEASURES["epochs_to_loss_75"](run) == pytest.approx(3.0)
    assert not cut_off("epochs_to_loss_90", run)


def test_every_unit_is_of_a_measure_and_every_measure_has_a_sentence():
    assert UNITS.keys() <= MEASURES.keys()
    assert all(measure.__doc__ for measure in MEASURES.values())


def test_a_curve_has_ten_means_an_epoch():
    steps = [{"step": i + 1, "loss": float(i), "top1_error": (i % 2) / 2} for i in range(45)]
    points = curve(steps, 20)
    assert [point["epoch"] for point in points] == [pytest.approx(0.1 * (i + 1)) for i in range(22)]
    assert [point["loss"] for point in points[:3]] == [0.5, 2.5, 4.5]
    assert {point["error"] for point in points} == {0.25}
    assert len(curve(steps[:3], 3)) == 3  # fewer steps than points
    long = [{"step": i + 1, "loss": 1.0, "top1_error": 0.5} for i in range(1600)]  # 100 epochs of 16 steps
    assert [point["epoch"] for point in curve(long, 16)] == [pytest.approx(0.25 * (i + 1)) for i in range(400)]
