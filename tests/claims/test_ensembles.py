"""Ensembles and searched coefficients, with answers known beforehand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from alexnet.claims import ensembles, laboratory
from alexnet.claims.ensembles import ensemble, ensemble_result
from alexnet.claims.experiment import Arm, vary
from alexnet.claims.laboratory import config_key
from alexnet.claims.measures import MEASURES
from alexnet.claims.scales import find_scale
from alexnet.evaluation.probabilities import Probabilities
from alexnet.training.trainer import training_images

SMOKE = find_scale("smoke").network


@pytest.fixture(scope="module")
def data(lab):
    return lab.open_data(SMOKE)


def answers(p_NK, label_N) -> Probabilities:
    log_NK = np.log(np.asarray(p_NK, dtype=np.float32))
    paths = tuple(f"{i}.png" for i in range(len(label_N)))
    classes = tuple("abcdefgh"[: log_NK.shape[1]])
    return Probabilities(log_NK, np.asarray(label_N, dtype=np.int64), paths, classes, {"views": "1"})


def test_the_errors_of_an_ensemble_and_of_its_members_are_counted_by_hand():
    one = answers([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7]], [0, 0, 0])  # right, wrong, wrong
    two = answers([[0.2, 0.8], [0.9, 0.1], [0.4, 0.6]], [0, 0, 0])  # wrong, right, wrong
    result = ensemble_result([one, two])  # 0.55, 0.65, 0.35
    assert result["views"]["1"]["top1_errors"] == 1
    assert [member["top1_errors"] for member in result["members"]] == [2, 2]
    assert MEASURES["members_error"](result) == pytest.approx(2 / 3)
    assert MEASURES["members_error_top5"](result) == 0
    assert result["views"]["1"]["loss_nats"] == pytest.approx(-np.log([0.55, 0.65, 0.35]).mean(), rel=1e-6)


def test_no_image_is_answered_with_coefficients_that_saw_it(monkeypatch):
    """A search that is asked about one half has its answer used for the other."""
    asked = []

    def first_image_decides(members):
        asked.append(set(members[0].paths))
        return [1.0, 0.0] if "0.png" in members[0].paths else [0.0, 1.0]

    monkeypatch.setattr(ensembles, "searched_weights", first_image_decides)
    right, wrong = answers([[0.9, 0.1]] * 10, [0] * 10), answers([[0.1, 0.9]] * 10, [0] * 10)
    result = ensemble_result([right, wrong], search_seed=3)
    assert not asked[0] & asked[1]
    assert len(asked[0] | asked[1]) == 10
    assert result["views"]["1"]["n"] == 10
    # The half of image 0 asks for the right member, and the wrong one answers it; and the other way round.
    assert result["views"]["1"]["top1_errors"] == len(next(half for half in asked if "0.png" in half)) == 5


def test_the_first_member_is_the_plain_network_and_all_learn_from_its_images(lab, data, monkeypatch):
    trained = []

    def spy(config, out, machine, **fields):
        trained.append((config, fields["data"]))
        return train(config, out, machine, **fields)

    train = laboratory.train
    monkeypatch.setattr(laboratory, "train", spy)
    two = lab.result(Arm(name="ensemble-2", result=ensemble(2)), SMOKE)
    plain = lab.result(Arm(name="base"), SMOKE)
    assert two["members"][0]["top1_errors"] == plain["views"]["1"]["top1_errors"]
    assert [config.seed for config, _ in trained] == [0, 10_000]  # the plain one once, for both
    (first, whole), (second, part) = trained
    assert replace(second, seed=0) == first == SMOKE
    own = training_images(len(whole.split("train")), first)
    assert len(own) == 96
    assert [whole.split("train").paths[i] for i in own] == part.split("train").paths
    assert len(training_images(len(part.split("train")), second)) == 96
    assert len(part.split("val")) == len(data.split("tuning"))

    other = ensemble_result(
        [ensembles.answers_of(lab, SMOKE, data, lab.run_folder(SMOKE), lambda: pytest.fail("trained again"))] * 2
    )
    assert other["views"]["1"]["top1_errors"] == plain["views"]["1"]["top1_errors"]


def test_results_that_are_more_than_a_training_are_never_taken_for_one(lab):
    config = replace(SMOKE, seed=5)
    special = lab.result(Arm(name="a-special", result=lambda _lab, _config: {"special": 1}), config)
    assert special["special"] == 1
    assert lab.results.find(config_key(config)) is None
    assert lab.result(Arm(name="b-special", result=lambda _lab, _config: {"special": 2}), config)["special"] == 2
    assert lab.result(Arm(name="a-special", result=lambda *_: pytest.fail("computed again")), config) == special


def test_a_member_that_diverges_makes_no_ensemble(lab):
    assert "the loss is" in ensemble(2)(lab, vary(SMOKE, {"optimizer.lr": 1e20}))["diverged"]
