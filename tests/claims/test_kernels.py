"""Networks with as many parameters without convolution, and other first kernels: counted, and tried on one image."""

from __future__ import annotations

import pytest
import torch

from alexnet.claims.experiment import arms_of
from alexnet.claims.groups import EXPERIMENTS
from alexnet.claims.kernels import fully_connected, kernels_of_7, num_parameters, two_layers_of_3, unshared
from alexnet.claims.laboratory import config_key
from alexnet.claims.scales import fan_ins, find_scale
from alexnet.core.config import from_json, to_json
from alexnet.models.alexnet import AlexNet, alexnet_2012
from alexnet.models.summary import summarize
from alexnet.training.config import TrainConfig
from alexnet.training.trainer import network

SMALL = find_scale("cifar10-small").network


def test_the_parameters_of_the_small_network_by_hand():
    # conv1 5x5x3 + 1, 16; conv2 5x5x8 + 1, 32; conv3 3x3x32 + 1, 48; conv4 and conv5 3x3x24 + 1, 48; fc6 of 2x2x48; fc8 of 1000
    convolutions = 76 * 16 + 201 * 32 + 289 * 48 + 2 * 217 * 48
    assert num_parameters(SMALL.model) == convolutions + 193 * 256 + 257 * 256 + 257 * 1000


@pytest.mark.parametrize("classes", [4, 1000])
@pytest.mark.parametrize("scale", ["cifar10-small", "cifar10", "fashion-mnist", "imagenette", "imagenet"])
def test_arms_have_as_many_parameters_for_any_number_of_classes(scale, classes):
    experiment = EXPERIMENTS["convolution"]
    num = {
        name: sum(p.numel() for p in network(config, classes, weights=False).parameters())
        for name, (_, config) in arms_of(experiment, find_scale(scale)).items()
    }
    assert list(num) == ["base", "fully-connected", "unshared"]
    for name in num:
        assert num[name] == pytest.approx(num["base"], rel=0.01), name


def test_the_fully_connected_network_reads_every_pixel_in_every_unit():
    model = AlexNet(fully_connected(SMALL.model))
    # (24 x 24 x 3 + 1) w + (w + 1) v + (v + 1) 256 for w = 76
    assert [(stage.name, stage.shape) for stage in summarize(model)][:2] == [
        ("input", (3, 24, 24)),
        ("conv1", (76, 1, 1)),
    ]
    assert [step.name for step in model.steps() if not isinstance(step.layer, torch.nn.Identity)] == [
        *("conv1", "fc6", "fc7", "fc8")
    ]
    assert model.conv1.weight[0].numel() == 24 * 24 * 3
    assert model.fc6.weight.shape[1] == 76
    x_BCHW = torch.randn(1, 3, 24, 24)
    by_hand_D = model.conv1.weight.flatten(1) @ x_BCHW.flatten() + model.conv1.bias
    torch.testing.assert_close(model.conv1(x_BCHW).flatten(), by_hand_D)


def test_kernels_that_are_not_shared_are_as_many_as_places():
    model = AlexNet(unshared(SMALL.model))
    assert {name: tuple(model.get_submodule(name).weight.shape) for name in ("conv3", "conv4", "conv5")} == {
        "conv3": (25, 8, 32 * 9),
        "conv4": (25, 8, 4 * 9),  # of its own tower
        "conv5": (25, 8, 4 * 9),
    }
    assert model(60 * torch.randn(2, 3, 24, 24)).isfinite().all()


@pytest.mark.parametrize("change", [fully_connected, unshared, two_layers_of_3])
def test_sums_start_as_large_as_in_the_recipe(change):
    model, changed = SMALL.model, change(SMALL.model)
    if change is two_layers_of_3:
        ours = [std * fan**0.5 for std, fan in zip(changed.weight_std, fan_ins(changed), strict=True)]
        assert ours.pop(1) == pytest.approx(2**0.5, rel=1e-3)  # the layer that was put in keeps the size of the signal
    else:
        pairs = zip(changed.weight_std, fan_ins(changed), model.weight_std, fan_ins(model), strict=True)
        ours = [std * fan**0.5 if fan else like * before**0.5 for std, fan, like, before in pairs]
    assert ours == pytest.approx(
        [std * fan**0.5 for std, fan in zip(model.weight_std, fan_ins(model), strict=True)], rel=1e-3
    )


@pytest.mark.parametrize(
    ("model", "first", "third"),
    [(alexnet_2012(), [224, 112, 27], 13), (SMALL.model, [24, 24, 11], 5)],
)
def test_two_layers_of_3_lead_to_maps_of_the_same_sizes(model, first, third):
    changed = two_layers_of_3(model)
    inputs, before = changed.layer_inputs(), model.layer_inputs()
    assert [inputs[name][1] for name in ("conv1", "conv2", "conv3")] == first
    assert inputs["conv4"][1] == before["conv3"][1] == third
    assert (inputs["fc6"], inputs["fc8"]) == (before["fc6"], before["fc8"])
    assert changed.conv_strides[0] * changed.conv_strides[1] == model.conv_strides[0]
    assert changed.joined == ("conv4", "fc6", "fc7")
    assert changed.biases == (0.0, *model.biases)
    assert fan_ins(changed)[:2] == (27, model.conv_channels[0] // 2 * 9)


def test_kernels_of_7_lead_to_maps_of_the_same_sizes():
    paper, changed = alexnet_2012(), kernels_of_7(alexnet_2012())
    assert changed.layer_inputs()["conv2"] == (96, 54, 54)  # 110 pixels in conv1, as in ZFNet, pooled
    assert all(changed.layer_inputs()[f"conv{i}"] == paper.layer_inputs()[f"conv{i}"] for i in (3, 4, 5))
    assert changed.weight_std[0] == pytest.approx(0.01 * 11 / 7, rel=1e-3)
    assert changed.weight_std[1:] == paper.weight_std[1:]


def test_a_result_from_before_a_field_was_added_keeps_its_key():
    known = to_json(SMALL)
    del known["model"]["unshared"]
    assert config_key(from_json(TrainConfig, known)) == config_key(SMALL) == "e0973b29-seed0"
    (_, changed) = arms_of(EXPERIMENTS["convolution"], find_scale("cifar10-small"))["unshared"]
    assert config_key(changed) != config_key(SMALL)
