"""What wrong settings cost, on curves that are written down and by another implementation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn.svm import SVC

from alexnet.claims import laboratory, tuning
from alexnet.claims.experiment import Arm, vary
from alexnet.claims.laboratory import Laboratory
from alexnet.claims.measures import MEASURES
from alexnet.claims.scales import find_scale
from alexnet.claims.sensitivity import WRONG, wrong_constants, wrong_rates
from alexnet.claims.tuning import FIRST_SEED, tune
from alexnet.training.trainer import training_images

SMOKE = find_scale("smoke").network


@pytest.fixture(autouse=True)
def short_search(monkeypatch):
    monkeypatch.setattr(tuning, "MOST_STEPS", 2)


@pytest.fixture
def asked(monkeypatch):
    """In place of training: an error of 10 % at twice the recipe's rate and 3 points more for each doubling either way. At eight
    times that rate all runs diverge. The configurations that were asked for."""
    asked = []

    def train(lab, config):
        asked.append(config)
        doublings = math.log2(config.optimizer.lr / SMOKE.optimizer.lr)
        if doublings >= 3:
            return {"diverged": "the loss is nan"}
        assert lab.tunes
        error = 0.1 + 0.03 * abs(doublings - 1)
        return {"views": {"1": {"top1_error": error}}, "training": {"top1_error": error}}

    monkeypatch.setattr(laboratory, "train_and_measure", train)
    return asked


def test_a_wrong_rate_costs_the_mean_of_the_curve_above_the_chosen_rate(lab, asked, tmp_path):
    apart = replace(lab, out=tmp_path)
    chosen = vary(SMOKE, {"optimizer.lr": 2 * SMOKE.optimizer.lr, "seed": 1})
    result = wrong_rates("base")(apart, chosen)
    assert result["views"]["1"]["top1_error"] == pytest.approx(0.1)
    rates = {"-2": 0.16, "-1": 0.13, "1": 0.13, "2": 1 - 1 / 24}  # the last one diverged: a guess among 24 classes
    assert result["wrong"] == {"learning rate": pytest.approx(rates)}
    assert MEASURES["cost_of_wrong_settings"](result) == pytest.approx(sum(rates.values()) / 4 - 0.1)
    assert {config.seed for config in asked} == {FIRST_SEED + 1}


def test_trainings_of_the_search_are_not_made_again(lab, asked, tmp_path):
    apart = replace(lab, out=tmp_path)
    arm = Arm(name="wrong-rates", result=wrong_rates("base"), same_training=True, search=("optimizer.lr",))
    found = tune(apart, arm, SMOKE, measure="center_error", seeds=2)
    assert found.chosen == {"optimizer.lr": 2 * SMOKE.optimizer.lr}
    assert len(asked) == 2 * 4  # half, one, two and four times
    arm.result(apart, vary(SMOKE, found.chosen))
    assert len(asked) == 2 * 4 + 1  # one more, at eight times


def test_a_kernel_machine_is_that_of_another_call_of_the_library(lab):
    result = wrong_constants(lab, SMOKE)
    data = lab.for_tuning().open_data(SMOKE)
    train, held_out = data.split("train"), data.split(data.held_out)
    image_N = training_images(len(train), replace(SMOKE, seed=FIRST_SEED))
    x_ND, x_MD = (
        split.read(numbers).reshape(len(numbers), -1).astype(float)
        for split, numbers in ((train, image_N), (held_out, np.arange(len(held_out))))
    )
    mean = np.square(x_ND[:, None] - x_ND).sum(2).mean()

    def error(width: float, c: float) -> float:
        machine = SVC(kernel="rbf", gamma=width / mean, C=c).fit(x_ND, train.labels[image_N])
        return float((machine.predict(x_MD) != held_out.labels).mean())

    width, c = result["chosen"]["width"], result["chosen"]["C"]
    assert result["views"]["1"]["top1_error"] == pytest.approx(error(width, c))
    assert result["wrong"]["width"] == {str(p): pytest.approx(error(width * 2.0**p, c)) for p in WRONG}
    assert result["wrong"]["C"] == {str(p): pytest.approx(error(width, c * 2.0**p)) for p in WRONG}


def test_a_kernel_machine_sees_no_image_that_is_counted(lab):
    class NoTest(Laboratory):
        def for_tuning(self):
            return lab.for_tuning()

    blind = NoTest("smoke", lab.out, lab.machine, lambda _config: pytest.fail("opens the images that are counted"))
    assert wrong_constants(blind, SMOKE) == wrong_constants(lab, SMOKE)
