"""Ensembles, searched coefficients, halves of the classes, fine-tuning, six layers: with answers known beforehand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from alexnet.claims import combination, laboratory
from alexnet.claims.combination import (
    autoencoder_first,
    class_halves,
    ensemble,
    ensemble_result,
    fine_tuned,
    only_classes,
    only_images_of,
    search_coefficients,
    six_conv_changes,
    with_pretrained,
)
from alexnet.claims.experiment import Arm, arms_of, vary
from alexnet.claims.groups import EXPERIMENTS
from alexnet.claims.laboratory import config_key
from alexnet.claims.measures import MEASURES
from alexnet.claims.scales import fan_ins, find_scale
from alexnet.core.errors import UsageError
from alexnet.core.runs import read_json
from alexnet.evaluation.probabilities import Probabilities
from alexnet.models.alexnet import alexnet_2012_six_conv
from alexnet.models.folder import load_model_folder
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


# Ensembles --------------------------------------------------------------------------------------------------------------


def test_the_errors_of_an_ensemble_and_of_its_members_are_counted_by_hand():
    one = answers([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7]], [0, 0, 0])  # right, wrong, wrong
    two = answers([[0.2, 0.8], [0.9, 0.1], [0.4, 0.6]], [0, 0, 0])  # wrong, right, wrong
    result = ensemble_result([one, two])  # 0.55, 0.65, 0.35
    assert result["views"]["1"]["top1_errors"] == 1
    assert [member["top1_errors"] for member in result["members"]] == [2, 2]
    assert MEASURES["members_error"](result) == pytest.approx(2 / 3)
    assert MEASURES["members_error_top5"](result) == 0
    assert result["views"]["1"]["loss_nats"] == pytest.approx(-np.log([0.55, 0.65, 0.35]).mean(), rel=1e-6)


def test_a_search_leaves_equal_members_equal_and_trusts_the_one_that_knows():
    random = np.random.default_rng(0)
    label_N = random.integers(0, 8, 60)
    knows = np.full((60, 8), 0.3 / 7)
    knows[np.arange(60), label_N] = 0.7
    misled = np.full((60, 8), 0.1 / 7)
    misled[np.arange(60), (label_N + 1) % 8] = 0.9
    same = answers(knows, label_N)
    assert search_coefficients([same, same, same], seed=0) == pytest.approx([1 / 3] * 3)
    weights = search_coefficients([answers(misled, label_N), same], seed=0)
    assert sum(weights) == pytest.approx(1)
    assert 0.9 * weights[0] < 0.7 * weights[1]  # so it answers as the second does
    assert search_coefficients([answers(misled, label_N), same], seed=0) == weights


def test_no_image_is_answered_with_coefficients_that_saw_it(monkeypatch):
    """A search that is asked about one half has its answer used for the other."""
    asked = []

    def first_image_decides(members, seed):
        asked.append(set(members[0].paths))
        return [1.0, 0.0] if "0.png" in members[0].paths else [0.0, 1.0]

    monkeypatch.setattr(combination, "search_coefficients", first_image_decides)
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
        return run(config, out, machine, **fields)

    run = laboratory.run
    monkeypatch.setattr(laboratory, "run", spy)
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
    assert len(part.split("val")) == len(data.split("val"))

    other = ensemble_result(
        [combination.answers_of(lab, SMOKE, data, lab.run_folder(SMOKE), lambda: pytest.fail("trained again"))] * 2
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
    absurd = vary(SMOKE, {"optimizer.lr": 1e20})
    assert "the loss is" in ensemble(2)(lab, absurd)["diverged"]
    assert "the loss is" in with_pretrained(1, 0)(lab, absurd)["diverged"]


# Halves of the classes ----------------------------------------------------------------------------------------------------


def test_chosen_classes_are_numbered_anew_and_their_images_are_theirs(data):
    label_K = np.array([3, 11, 7])
    some = only_classes(data, label_K)
    assert some.classes == [data.classes[i] for i in (3, 11, 7)]
    for name in ("train", "val"):
        whole, part = data.split(name), some.split(name)
        assert len(part) == np.isin(whole.labels, label_K).sum() == len(part.labels)
        assert [label_K[label] for label in part.labels] == [whole.labels[whole.paths.index(p)] for p in part.paths]
        index_B = np.array([len(part) - 1, 0])
        expected = whole.read(np.array([whole.paths.index(part.paths[i]) for i in index_B]))
        np.testing.assert_array_equal(part.read(index_B), expected)
    assert set(some.split("train").labels) == {0, 1, 2}
    np.testing.assert_array_equal(some.mean, data.mean)
    prints = {data.fingerprint, some.fingerprint, only_classes(data, np.array([3, 7, 11])).fingerprint}
    assert len(prints | {only_images_of(some, SMOKE).fingerprint}) == 4


def test_halves_of_the_classes_share_none_and_are_drawn_by_seed(data):
    drawn = set()
    for seed in range(4):
        before, after = class_halves(data, seed)
        assert len(before.classes) == len(after.classes) == 12
        assert sorted(before.classes + after.classes) == sorted(data.classes)
        assert not set(before.split("val").paths) & set(after.split("val").paths)
        drawn.add(tuple(after.classes))
    assert len(drawn) == 4
    with pytest.raises(UsageError, match="has 3 classes; pre-training on half of them"):
        class_halves(only_classes(data, np.arange(3)), 0)


def test_fine_tuning_starts_from_what_was_learned_on_the_other_classes(lab, monkeypatch):
    frozen = vary(SMOKE, {"optimizer.layer_lr": tuple((f"conv{i}", 0.0) for i in range(1, 6))})
    names = []
    run = laboratory.run
    monkeypatch.setattr(
        laboratory, "run", lambda config, out, *a, **k: (names.append(out), run(config, out, *a, **k))[1]
    )
    result = fine_tuned(lab, frozen)
    source, out = names
    before, after = (load_model_folder(folder / "model") for folder in (source, out))
    assert not set(before.classes) & set(after.classes)
    assert list(after.classes) == result["classes"]
    assert list(before.classes) == result["before"]["classes"]
    then, now = before.model.state_dict(), after.model.state_dict()
    for name in then:
        assert torch.equal(then[name], now[name]) == name.startswith("conv"), name
    assert read_json(source / "config.json")["train"]["optimizer"]["layer_lr"] == []
    assert read_json(out / "config.json")["initial"]["taken"] == [*(f"conv{i}" for i in range(1, 6)), "fc6", "fc7"]

    fine_tuned(lab, SMOKE)  # another fine-tuning, of the same network
    assert names[2] == source


def test_an_autoencoder_is_trained_once_for_a_run(lab, monkeypatch):
    config = replace(SMOKE, seed=6, epochs=1)
    result = autoencoder_first(lab, config)
    assert result["pretraining_epochs"] == 1
    (folder,) = (lab.folder / "runs").glob(f"{config_key(config)}-autoencoder-first")
    assert read_json(folder / "config.json")["initial"]["taken"] == [f"conv{i}" for i in range(1, 6)]
    monkeypatch.setattr(combination, "pretrain", lambda *_, **__: pytest.fail("pre-trained again"))
    assert autoencoder_first(lab, config)["views"] == result["views"]


# Networks ---------------------------------------------------------------------------------------------------------------


def test_the_sixth_layer_is_that_of_the_named_network():
    for name in ("imagenette", "imagenet"):
        config = find_scale(name).network
        assert vary(config, six_conv_changes(config)).model == alexnet_2012_six_conv()


def test_the_sixth_layer_of_a_small_network_starts_with_the_same_signal():
    config = find_scale("cifar10").network
    small, program = vary(config, six_conv_changes(config)).model, alexnet_2012_six_conv()
    assert small.map_sizes()[-2:] == [2, 2]  # over the last pooling, which leaves 2 x 2 of 24 pixels
    signal = [std * math.sqrt(fan) for std, fan in zip(small.weight_std, fan_ins(small), strict=True)]
    theirs = math.sqrt(fan_ins(program)[5] / fan_ins(program)[4])
    assert signal[5] / signal[4] == pytest.approx(theirs, rel=1e-3)


def test_more_is_half_as_much_again():
    arms = arms_of(EXPERIMENTS["more"], find_scale("imagenet"))
    assert arms["longer"][1].epochs == 135
    assert arms["wider"][1].model.conv_channels == (144, 384, 576, 576, 384)
    assert arms["wider"][1].model.fc_units == (6144, 6144)
