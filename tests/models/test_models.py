"""What every network promises, for every name."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.core.config import from_json, to_json
from alexnet.core.errors import UsageError
from alexnet.core.rng import DropoutDraw
from alexnet.models import ModelConfig, create_model, default_preprocessing, layer_parameters, list_models, model_config

NAMES = list_models()


def narrow(name: str) -> dict[str, Any]:
    """Fields that make the AlexNets quick: smaller images, and few units where most of their weights are."""
    return {"fc_units": (64, 64), "input_size": 131} if hasattr(model_config(name), "fc_units") else {}


@pytest.fixture(scope="module", params=NAMES)
def model(request: pytest.FixtureRequest) -> nn.Module:
    return create_model(request.param, **narrow(request.param))


def pixels(model: nn.Module, batch: int = 2) -> Tensor:
    """A batch on the scale of the network's own preprocessing."""
    c, scale = model.config, default_preprocessing(model.name).scale
    generator = torch.Generator().manual_seed(9)
    return torch.rand(batch, c.in_channels, c.input_size, c.input_size, generator=generator) * 255 * scale


def draw(epoch: int = 0) -> DropoutDraw:
    return DropoutDraw(seed=0, epoch=epoch, image_B=np.array([4, 11]))


def test_names_are_those_of_the_issue():
    assert {
        "alexnet_2012", "alexnet_2012_code", "alexnet_2012_one_tower", "alexnet_2012_six_conv", "alexnet_caffe", "caffenet",
        "alexnet_owt", "alexnet_d2l", "zfnet", "lenet", "cifar_13pct", "cifar_11pct", "cifar_18pct", "cifar_19pct",
    } == set(NAMES)  # fmt: skip


def test_gives_finite_logits_and_gradients_to_all_parameters(model):
    logits_BK = model.train()(pixels(model), draw())
    assert logits_BK.shape == (2, model.config.num_classes)
    assert logits_BK.dtype == torch.float32
    assert logits_BK.isfinite().all()
    model.zero_grad()
    F.cross_entropy(logits_BK, torch.tensor([0, 1])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert any((p.grad != 0).any() for p in layer_parameters(model)[next(iter(layer_parameters(model)))].weights)


def test_test_mode_treats_each_image_for_itself(model):
    x_BCHW = pixels(model)
    with torch.no_grad():
        together = model.eval()(x_BCHW)
        alone = torch.cat([model(x_BCHW[:1]), model(x_BCHW[1:])])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_a_draw_fixes_the_dropout_masks(model):
    model.train()
    x_BCHW = pixels(model)
    with torch.no_grad():
        assert torch.equal(model(x_BCHW, draw(0)), model(x_BCHW, draw(0)))
        has_dropout = hasattr(model.config, "dropout")
        assert torch.equal(model(x_BCHW, draw(0)), model(x_BCHW, draw(1))) != has_dropout


def test_layers_have_each_parameter_once_in_forward_order(model):
    layers = layer_parameters(model)
    listed = [p for layer in layers.values() for p in (*layer.weights, *layer.biases)]
    assert {id(p) for p in listed} == {id(p) for p in model.parameters()}
    assert len(listed) == len(list(model.parameters()))
    called: list[str] = []
    handles = [
        model.get_submodule(name).register_forward_hook(lambda m, args, y, name=name: called.append(name))
        for name in layers
    ]
    with torch.no_grad():
        model(pixels(model))
    for handle in handles:
        handle.remove()
    assert called == list(layers)
    for layer in layers.values():
        assert [p.ndim > 1 for p in layer.weights] == [True]


def test_channels_last_and_bfloat16_give_nearly_the_same(model):
    x_BCHW = pixels(model)
    model.eval()
    with torch.no_grad():
        exact = model(x_BCHW)
        with torch.autocast("cpu", torch.bfloat16):
            fast = model(x_BCHW.contiguous(memory_format=torch.channels_last))
    assert fast.dtype == torch.bfloat16
    assert (fast.float() - exact).norm() <= 0.03 * exact.norm()


def test_another_input_shape_is_refused(model):
    c = model.config
    with pytest.raises(UsageError, match=model.name):
        model(torch.zeros(1, c.in_channels + 1, c.input_size, c.input_size))


@pytest.mark.parametrize("name", NAMES)
def test_initial_weights_depend_on_the_seed_alone(name: str):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    a = create_model(name, seed=7, **narrow(name))
    assert torch.equal(torch.get_rng_state(), state)  # nor does building a network disturb the generator
    torch.manual_seed(2)
    b, other = create_model(name, seed=7, **narrow(name)), create_model(name, seed=8, **narrow(name))
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert all(
        not torch.equal(p, q)
        for layer, twin in zip(layer_parameters(a).values(), layer_parameters(other).values(), strict=True)
        for p, q in zip(layer.weights, twin.weights, strict=True)
    )


@pytest.mark.parametrize("name", NAMES)
def test_configuration_survives_json(name: str):
    config = model_config(name)
    text = json.dumps(to_json(config))
    assert from_json(type(config), json.loads(text)) == config
    assert from_json(ModelConfig, json.loads(text)) == config  # also where the reader does not know which network it is


@pytest.mark.parametrize("name", NAMES)
def test_preprocessing_gives_what_the_network_reads(name: str):
    config, preprocessing = model_config(name), default_preprocessing(name)
    assert (preprocessing.channels, preprocessing.crop) == (config.in_channels, config.input_size)


def test_slopes_gains_and_offsets_are_not_decayed():
    model = create_model("alexnet_2012", activation="prelu", normalization="batch", fc_units=(8, 8), num_classes=3)
    sizes = {name: [p.numel() for p in layer.biases] for name, layer in layer_parameters(model).items()}
    assert sizes["conv1"] == [96, 1, 96, 96]  # bias, slope, gain, offset
    assert sizes["fc6"] == [8, 1]
    assert sizes["fc8"] == [3]


@pytest.mark.parametrize("name", ["lenet", "cifar_11pct", "cifar_18pct"])
def test_slopes_belong_to_the_layer_before_them(name: str):
    layers = layer_parameters(create_model(name, activation="prelu"))
    assert [len(layer.biases) for layer in layers.values()] == [2] * (len(layers) - 1) + [1]
