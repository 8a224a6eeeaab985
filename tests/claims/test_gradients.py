"""The gradient norms are those of finite differences, and fall as the nonlinearities say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from alexnet.claims import documents
from alexnet.claims.comparison import compare_all
from alexnet.claims.experiment import vary
from alexnet.claims.gradients import gradients
from alexnet.claims.groups import EXPERIMENTS
from alexnet.claims.measures import MEASURES
from alexnet.claims.scales import find_scale
from alexnet.core.rng import DropoutDraw
from alexnet.training.trainer import network, training_images

SMOKE = find_scale("smoke").network


def test_the_norm_of_a_layer_is_the_slope_of_the_loss_along_its_gradient(lab):
    result = gradients(lab, SMOKE)
    data, config = lab.open_data(SMOKE), SMOKE
    split = data.split("train")
    image_N = training_images(len(split), config)
    crop = slice(2, 25)  # 23 of 28 pixels, from an offset that is rounded down
    x_NSSC = split.read(image_N)[:, crop, crop].astype(np.float64) - data.mean[crop, crop]
    x_NCSS = torch.from_numpy(x_NSSC).permute(0, 3, 1, 2)
    label_N = torch.from_numpy(split.labels[image_N])
    model = network(config, len(data.classes)).double().train()

    def loss() -> torch.Tensor:
        return F.cross_entropy(model(x_NCSS, DropoutDraw(config.seed, 0, image_N)), label_N)

    assert result["n"] == 96
    assert result["loss_nats"] == pytest.approx(loss().item(), rel=1e-5)
    for layer in ("conv1", "conv4", "fc8"):
        weight = model.get_submodule(layer).weight
        (direction,) = torch.autograd.grad(loss(), weight)
        step = 1e-6 * direction / direction.norm()
        with torch.no_grad():
            weight += step
            above = loss().item()
            weight -= 2 * step
            below = loss().item()
            weight += step
        found = result["gradients"][layer]
        assert found["gradient"] == pytest.approx((above - below) / 2e-6, rel=1e-3)
        assert found["weights"] == pytest.approx(float(weight.detach().norm()), rel=1e-5)
        assert found["relative"] == pytest.approx(found["gradient"] / found["weights"])


def test_sigmoids_let_less_of_the_gradient_through_and_every_layer_is_shown(lab):
    sigmoid = gradients(lab, vary(SMOKE, {"model.activation": "sigmoid"}))
    relu = gradients(lab, SMOKE)
    assert list(relu["shown"]) == ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
    # Seven sigmoids, none steeper than 1/4.
    assert MEASURES["gradient_drop"](sigmoid) > 100 * MEASURES["gradient_drop"](relu) > 0
    assert gradients(lab, SMOKE) == relu
    assert gradients(lab, replace(SMOKE, seed=1)) != relu


def test_initial_weights_that_suit_a_sigmoid_let_more_through(lab):
    arms = {arm.name: vary(SMOKE, arm.changes) for arm in EXPERIMENTS["gradients-suited"].arms(SMOKE)}
    assert {config.model.biases for config in arms.values()} == {(0.0,) * 8}
    stds = {name: config.model.weight_std for name, config in arms.items()}
    assert stds["gradients-relu-suited"][0] == pytest.approx((2 / 75) ** 0.5)  # He: 5 x 5 x 3 inputs
    assert stds["gradients-tanh-suited"][-1] == pytest.approx((1 / 32) ** 0.5)
    drop = {name: MEASURES["gradient_drop"](gradients(lab, config)) for name, config in arms.items()}
    paper = MEASURES["gradient_drop"](gradients(lab, vary(SMOKE, {"model.activation": "sigmoid"})))
    assert drop["gradients-sigmoid-suited"] < paper / 10


def test_the_drop_is_that_of_the_last_layer_over_the_first():
    layers = {"conv1": {"relative": 0.5}, "conv2": {"relative": 9.0}, "fc8": {"relative": 4.0}}
    assert MEASURES["gradient_drop"]({"gradients": layers}) == 8


def test_two_runs_far_apart_make_a_document_that_can_be_read():
    """Their interval of a quotient has no end that can be drawn."""

    def result(arm: str, seed: int, first: float) -> dict:
        layers = {"conv1": {"relative": first}, "fc8": {"relative": 1.0}}
        return {"arm": arm, "fingerprint": f"0-seed{seed}", "seed": seed, "gradients": layers}

    experiment = EXPERIMENTS["gradients-suited"]
    arms = ("gradients-relu-suited", "gradients-sigmoid-suited", "gradients-tanh-suited")
    results = {arm: [result(arm, 0, 1.0), result(arm, 1, 100.0 ** (i + 1))] for i, arm in enumerate(arms)}
    rows = compare_all(experiment, find_scale("cifar10-small"), results)
    assert all(row["high"] > 1e6 for row in rows)
    assert all(map(documents._is_row, rows))
