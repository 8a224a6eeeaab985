"""Halves of the classes, fine-tuning, pre-training without labels, six layers: with answers known beforehand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from alexnet.claims import laboratory, transfer
from alexnet.claims.experiment import arms_of, vary
from alexnet.claims.groups import EXPERIMENTS
from alexnet.claims.laboratory import config_key
from alexnet.claims.scales import fan_ins, find_scale
from alexnet.claims.subsets import class_halves, only_classes, only_images_of
from alexnet.claims.transfer import autoencoder_first, fine_tuned, six_conv_changes, with_pretrained
from alexnet.core.errors import UsageError
from alexnet.core.runs import read_json
from alexnet.models.alexnet import alexnet_2012_six_conv
from alexnet.models.folder import load_model_folder

SMOKE = find_scale("smoke").network


@pytest.fixture(scope="module")
def data(lab):
    return lab.open_data(SMOKE)


# Halves of the classes ----------------------------------------------------------------------------------------------------


def test_chosen_classes_are_numbered_anew_and_their_images_are_theirs(data):
    label_K = np.array([3, 11, 7])
    some = only_classes(data, label_K)
    assert some.classes == [data.classes[i] for i in (3, 11, 7)]
    for name in data.splits:
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
        assert not set(before.split("test").paths) & set(after.split("test").paths)
        drawn.add(tuple(after.classes))
    assert len(drawn) == 4
    with pytest.raises(UsageError, match="has 3 classes, but this experiment learns half"):
        class_halves(only_classes(data, np.arange(3)), 0)


def test_fine_tuning_starts_from_what_was_learned_on_the_other_classes(lab, monkeypatch):
    frozen = vary(SMOKE, {"optimizer.layer_lr": tuple((f"conv{i}", 0.0) for i in range(1, 6))})
    names = []
    train = laboratory.train
    monkeypatch.setattr(
        laboratory, "train", lambda config, out, *a, **k: (names.append(out), train(config, out, *a, **k))[1]
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


def test_a_network_that_diverges_before_makes_no_ensemble(lab):
    assert "the loss is" in with_pretrained(1, 0)(lab, vary(SMOKE, {"optimizer.lr": 1e20}))["diverged"]


def test_an_autoencoder_is_trained_once_for_a_run(lab, monkeypatch):
    config = replace(SMOKE, seed=6, epochs=1)
    result = autoencoder_first(lab, config)
    assert result["pretraining_epochs"] == 1
    (folder,) = (lab.folder / "runs").glob(f"{config_key(config)}-autoencoder-first")
    assert read_json(folder / "config.json")["initial"]["taken"] == [f"conv{i}" for i in range(1, 6)]
    monkeypatch.setattr(transfer, "pretrain", lambda *_, **__: pytest.fail("pre-trained again"))
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
