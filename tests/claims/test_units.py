"""Dropout masks at test, by hand and by the forward pass of training; dead units, where it is known which are dead."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alexnet.claims import units
from alexnet.claims.experiment import vary
from alexnet.claims.laboratory import asked_of_the_network, plain_result
from alexnet.claims.measures import MEASURES
from alexnet.claims.scales import find_scale
from alexnet.claims.units import dead_units, mean_of_masks, never_above_zero, with_masks
from alexnet.core.rng import DropoutDraw, dropout_keep
from alexnet.evaluation.predict import load
from alexnet.models.alexnet import AlexNet
from alexnet.training.trainer import network, network_input, training_images

SMOKE = find_scale("smoke").network
CPU = torch.device("cpu")
LOUD = vary(
    SMOKE, {"model.weight_std": tuple(2 * std for std in SMOKE.model.weight_std), "optimizer.lr": 1e-9, "epochs": 1}
)
"""With initial weights so large that masks change answers, and that only the smallest steps keep finite."""


@pytest.fixture
def x_BCHW():
    return 60 * torch.randn(5, 3, 23, 23, generator=torch.Generator().manual_seed(0))


def draws(num: int, images: int = 5) -> list[DropoutDraw]:
    return [DropoutDraw(7, mask, np.arange(images)) for mask in range(num)]


@pytest.mark.parametrize("changes", [{}, {"dropout": "inverted"}, {"dropout_place": "before"}])
def test_masks_are_those_of_the_forward_pass_of_training(x_BCHW, changes):
    model = network(vary(LOUD, {f"model.{name}": value for name, value in changes.items()}), 10)
    at_test = model.eval()(x_BCHW)
    for masked, draw in zip(with_masks(model, x_BCHW, draws(3)), draws(3), strict=True):
        torch.testing.assert_close(masked, model.train()(x_BCHW, draw))
    assert not any(module.training for module in model.modules())
    torch.testing.assert_close(model(x_BCHW), at_test)


def test_with_one_layer_of_masks_the_geometric_mean_is_the_softmax_of_the_mean_mask(x_BCHW):
    """softmax(W m x + b) multiplied over masks m is softmax of W (mean m) x + b: the factor is exact where the mean is 0.5."""
    model = network(vary(LOUD, {"model.fc_units": (32, 0)}), 10)
    assert isinstance(model, AlexNet)
    mean_BK = torch.stack([y.double().log_softmax(1) for y in with_masks(model, x_BCHW, draws(50))]).mean(0)
    kept_BD = torch.stack([dropout_keep(draw, "fc6", 32, 0.5, CPU) for draw in draws(50)]).double().mean(0)
    y = x_BCHW
    for step in model.steps()[:5]:
        y = step.run(y)
    y_BD = model.fc6(y).relu().double()
    logits_BK = (y_BD * kept_BD) @ model.fc8.weight.double().T + model.fc8.bias
    torch.testing.assert_close(mean_BK.log_softmax(1), logits_BK.log_softmax(1), rtol=1e-5, atol=1e-5)


def test_errors_and_other_answers_are_those_counted_mask_by_mask(lab, monkeypatch):
    monkeypatch.setattr(units, "MASKS", 6)
    result = asked_of_the_network(mean_of_masks)(lab, LOUD)
    data = lab.open_data(LOUD)
    split = data.split("test")
    all_N = np.arange(len(split))
    model = load(lab.run_folder(LOUD), CPU, "float32").model
    x_NCHW = network_input(torch.from_numpy(split.read(all_N)), all_N, LOUD, torch.from_numpy(data.mean))
    model.train()
    p_MNK = np.stack(
        [model(x_NCHW, DropoutDraw(LOUD.seed, m, all_N)).detach().double().softmax(1).numpy() for m in range(6)]
    )
    products = {
        name: p_MNK[part].prod(0).argmax(1) for name, part in (("all", slice(6)), ("a", slice(3)), ("b", slice(3, 6)))
    }
    factor = model.eval()(x_NCHW).argmax(1).numpy()
    assert result["views"]["1"]["top1_errors"] == (products["all"] != split.labels).sum()
    assert result["masks"]["arithmetic mean"]["top1_errors"] == (p_MNK.mean(0).argmax(1) != split.labels).sum()
    assert result["masks"]["one mask"]["top1_errors"] == (p_MNK[0].argmax(1) != split.labels).sum()
    assert MEASURES["factor_differs"](result) == pytest.approx((factor != products["all"]).mean())
    assert MEASURES["halves_differ"](result) == pytest.approx((products["a"] != products["b"]).mean())
    assert all(0 < share < 1 for share in result["differ"].values())
    assert result["differ"]["one mask"] == pytest.approx((p_MNK[0].argmax(1) != products["all"]).mean())
    # The factor is what every evaluation uses.
    assert result["masks"]["factor"]["top1_errors"] == plain_result(lab, LOUD)["views"]["1"]["top1_errors"]


def test_units_are_dead_if_their_bias_outweighs_every_input(lab):
    data = lab.open_data(SMOKE)
    model = network(SMOKE, len(data.classes))
    with torch.no_grad():
        model.fc6.bias.fill_(1e4)
        model.fc6.bias[3:8] = -1e4
        model.fc7.weight.fill_(1.0)
        model.fc7.weight[:2] = -1.0  # fc6 gives much
    dead = never_above_zero(lab, SMOKE, model, data, data.split("test"))
    assert dead["fc6"].nonzero().flatten().tolist() == [3, 4, 5, 6, 7]
    assert dead["fc7"].nonzero().flatten().tolist() == [0, 1]


def test_a_unit_that_one_image_of_one_batch_makes_answer_is_alive(lab):
    data, split = lab.open_data(SMOKE), lab.open_data(SMOKE).split("test")
    model = network(SMOKE, len(data.classes))
    all_N = np.arange(len(split))
    x_NCHW = network_input(torch.from_numpy(split.read(all_N)), all_N, SMOKE, torch.from_numpy(data.mean))
    seen = []
    model.fc6.register_forward_hook(lambda _module, _inputs, output: seen.append(output.detach()))
    model.eval()(x_NCHW)
    with torch.no_grad():  # so that the image that excites a unit most is the only one that it answers to
        best_D, second_D = seen[0].topk(2, dim=0).values
        model.fc6.bias -= (best_D + second_D) / 2
    assert len(split) > SMOKE.batch_size
    assert not never_above_zero(lab, SMOKE, model, data, split)["fc6"].any()


def test_dead_units_are_counted_before_and_after_the_training_on_its_own_images(lab):
    result = asked_of_the_network(dead_units)(lab, vary(SMOKE, {"model.biases": (0.0,) * 5 + (-1e6, 1.0, 0.0)}))
    assert result["n"] == len(training_images(len(lab.open_data(SMOKE).split("train")), SMOKE)) == 96
    assert result["units"] == {"fc6": 32, "fc7": 32}
    assert result["dead"]["start"] == {"fc6": 32, "fc7": 0}  # fc7 has its bias left
    assert MEASURES["dead_at_start"](result) == 0.5
    assert MEASURES["dead_at_end"](result) == 0.5
