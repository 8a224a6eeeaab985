"""fc7 against pixels, on vectors whose classes are known and by another way to count."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from alexnet.claims import laboratory, retrieval
from alexnet.claims.experiment import Arm, vary
from alexnet.claims.laboratory import open_laboratory, plain_result
from alexnet.claims.measures import MEASURES
from alexnet.claims.retrieval import database, flat_map, linear_classifier, nearest_class, probe, short_codes
from alexnet.claims.scales import find_scale
from alexnet.core.device import Machine, choose_device
from alexnet.core.errors import AlexNetError
from alexnet.evaluation.predict import load
from alexnet.probes import autoencoder
from alexnet.training.trainer import training_images

SMOKE = find_scale("smoke").network


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    machine = Machine(device=choose_device("cpu"), quiet=True)
    return open_laboratory("smoke", tmp_path_factory.mktemp("claims"), machine)


@pytest.fixture
def planted(monkeypatch):
    """Features that hold the class and a little noise, or nothing but noise."""

    def plant(signal: float):
        def features(_lab, _predictor, split, image_N, space="fc7"):
            random = np.random.default_rng(len(image_N))
            return (signal * np.eye(24)[split.labels[image_N]] + random.normal(size=(len(image_N), 24))).astype("f4")

        monkeypatch.setattr(retrieval, "_features", features)

    return plant


def test_what_is_searched_are_the_images_the_network_was_trained_on(lab, monkeypatch):
    data = lab.open_data(SMOKE)
    own_N = training_images(len(data.split("train")), SMOKE)
    np.testing.assert_array_equal(database(data, SMOKE), own_N)
    monkeypatch.setattr(retrieval, "MOST_IMAGES", 40)
    some_N = database(data, SMOKE)
    assert len(some_N) == 40
    assert set(some_N) < set(own_N)


def test_the_nearest_by_pixels_are_those_of_all_distances(lab):
    data = lab.open_data(SMOKE)
    train, test, image_N = data.split("train"), data.split("test"), database(data, SMOKE)
    a_ND = train.read(image_N)[:, 2:25, 2:25].reshape(len(image_N), -1).astype(np.int64)
    b_QD = test.read(np.arange(len(test)))[:, 2:25, 2:25].reshape(len(test), -1).astype(np.int64)
    squared_QN = (b_QD**2).sum(1)[:, None] - 2 * (b_QD @ a_ND.T) + (a_ND**2).sum(1)
    wrong = int((train.labels[image_N][squared_QN.argmin(axis=1)] != test.labels).sum())
    result = nearest_class(lab, SMOKE, None, data, "pixels")
    assert (result["views"]["1"]["top1_errors"], result["n"], result["n_train"]) == (wrong, 600, 96)
    assert MEASURES["center_error"](result) == wrong / 600


def test_vectors_that_hold_the_class_are_found_and_noise_is_not(lab, planted, monkeypatch):
    monkeypatch.setattr(autoencoder, "STEPS", 60)
    monkeypatch.setattr(retrieval, "BITS", 16)
    monkeypatch.setattr(retrieval, "MAP_POINTS", 120)
    data = lab.open_data(SMOKE)
    # Without an image of its class nothing can be found: 23 or fewer classes are among 96 random images.
    known = np.isin(data.split("test").labels, data.split("train").labels[database(data, SMOKE)]).sum()
    planted(50.0)
    assert nearest_class(lab, SMOKE, None, data, "fc7")["views"]["1"]["top1_errors"] == 600 - known
    many = replace(SMOKE, train_images=240)  # of a class with one image none is left to choose the strength by
    assert linear_classifier(lab, many, None, data, "fc7")["views"]["1"]["top1_errors"] <= 60
    codes = short_codes(lab, SMOKE, None, data, "fc7")
    assert codes["n"] == known
    assert MEASURES["code_miss"](codes) < 0.7
    assert MEASURES["stranger_share"](flat_map(lab, SMOKE, None, data, "fc7")) < 0.7
    planted(0.0)
    assert nearest_class(lab, SMOKE, None, data, "fc7")["views"]["1"]["top1_errors"] > 500
    codes = short_codes(lab, SMOKE, None, data, "fc7")
    assert codes["protocol"]["chance"] == pytest.approx(1 / 24, abs=0.02)
    assert MEASURES["code_miss"](codes) > 0.85
    assert MEASURES["stranger_share"](flat_map(lab, SMOKE, None, data, "fc7")) > 0.8


def test_the_features_are_those_of_the_trained_network(lab):
    plain_result(lab, SMOKE)
    predictor = load(lab.run_folder(SMOKE), torch.device("cpu"))
    split = lab.open_data(SMOKE).split("test")
    seen = []
    predictor.model.get_submodule("act7").register_forward_hook(lambda _m, _i, out: seen.append(out.numpy()))
    found_ND = retrieval._features(lab, predictor, split, np.arange(5))
    np.testing.assert_array_equal(found_ND, seen[-1])  # the last pass; the first finds the shapes
    assert found_ND.shape == (5, 32)


def test_a_missing_extra_is_said_before_anything_is_trained(lab, monkeypatch):
    monkeypatch.setattr("alexnet.probes.linear.find_spec", lambda _name: None)
    monkeypatch.setattr(laboratory, "plain_result", lambda *_: pytest.fail("trained"))
    with pytest.raises(AlexNetError, match=r'pip install "alexnet\[probe\]"'):
        lab.result(Arm(name="x", result=probe(nearest_class, "fc7")), vary(SMOKE, {"seed": 9}))


def test_a_network_that_diverged_has_nothing_to_search(lab, monkeypatch):
    monkeypatch.setattr(laboratory, "plain_result", lambda *_: {"diverged": "step 3: the loss is nan"})
    assert probe(nearest_class, "fc7")(lab, SMOKE) == {"diverged": "step 3: the loss is nan"}
