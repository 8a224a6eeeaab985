from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.core.errors import UsageError
from alexnet.core.rng import DropoutDraw
from alexnet.models import create_model, model_config
from alexnet.models.alexnet import AlexNet, AlexNetConfig, alexnet_2012, alexnet_2012_code, alexnet_caffe, caffenet
from alexnet.models.lrn import LocalResponseNorm, MapResponseNorm

SMALL: dict[str, Any] = {
    "input_size": 98,  # conv1 gives 23, the last window overhanging by one pixel; then 11, 5, 5, 5, 2
    "conv_channels": (8, 16, 12, 12, 16),
    "fc_units": (16, 16),
    "num_classes": 5,
    "weight_std": (0.1,) * 8,  # with 0.01 the biases alone would decide the logits of so small a network
    "biases": (0.0,) * 8,
}


def small(**fields: Any) -> AlexNet:
    return AlexNet(AlexNetConfig(**{**SMALL, **fields}), seed=0)


def pixels(model: AlexNet, batch: int = 2, dtype: torch.dtype = torch.float32) -> Tensor:
    c = model.config
    generator = torch.Generator().manual_seed(5)
    return (torch.rand(batch, c.in_channels, c.input_size, c.input_size, generator=generator) * 255 - 115).to(dtype)


# Geometry -------------------------------------------------------------------------------------------------------------


def conv1_maps(model: AlexNet, x_BCHW: Tensor) -> Tensor:
    found: list[Tensor] = []
    handle = model.conv1.register_forward_hook(lambda module, args, output: found.append(output))
    model(x_BCHW)
    handle.remove()
    return found[0]


def test_224_pixels_give_55_because_the_last_window_overhangs_and_reads_zeros():
    model = create_model("alexnet_2012", fc_units=(4, 4), num_classes=2)
    x_BCHW = pixels(model, 1)
    maps = conv1_maps(model, x_BCHW)
    assert maps.shape == (1, 96, 55, 55)
    # Windows start at 0, 4, .. 216. The last one covers 216 .. 226, of which 224 .. 226 are outside.
    weight, bias = model.conv1.weight, model.conv1.bias
    corner_C = (x_BCHW[0, None, :, 216:, 216:] * weight[:, :, :8, :8]).sum((1, 2, 3)) + bias
    torch.testing.assert_close(maps[0, :, 54, 54], corner_C, rtol=1e-4, atol=1e-4)
    first_C = (x_BCHW[0, None, :, :11, :11] * weight).sum((1, 2, 3)) + bias
    torch.testing.assert_close(maps[0, :, 0, 0], first_C, rtol=1e-4, atol=1e-4)
    padded = F.conv2d(F.pad(x_BCHW, (0, 3, 0, 3)), weight, bias, stride=4)
    torch.testing.assert_close(maps, padded)
    symmetric = F.conv2d(x_BCHW, weight, bias, stride=4, padding=2)  # torchvision's way to 55
    assert symmetric.shape == maps.shape
    assert (symmetric - maps).abs().max() > 1


@pytest.mark.parametrize(
    ("input_size", "zeros"),
    [(224, 3), (227, 0), (226, 1), (225, 2), (228, 3), (11, 0), (10, 0)],  # (size - 11) mod 4, completed to 4
)
def test_overhang_completes_the_last_window_of_any_input(input_size: int, zeros: int):
    config = replace(AlexNetConfig(), overhang=True)
    object.__setattr__(config, "input_size", input_size)  # the rule alone, also for inputs too small for the rest
    assert config.overhang_pixels() == zeros


def test_map_sizes_are_the_papers():
    assert AlexNetConfig().map_sizes() == [27, 13, 13, 13, 6]


def test_pooling_without_overlap_needs_rounding_up_and_other_padding():
    # Configuration 147: 55 -> 28, conv2 with padding 1 -> 26 -> 13, conv5 without padding -> 11 -> 6.
    fields = {"pool_size": 2, "pool_stride": 2, "conv_padding": (0, 1, 1, 1, 0)}
    assert AlexNetConfig(**fields, pool_ceil=True).map_sizes() == [28, 13, 13, 13, 6]
    assert AlexNetConfig(**fields, pool_ceil=False).map_sizes() == [27, 12, 12, 12, 5]


# Order of operations: the same networks, written again without our modules (table of the order of operations) ---------


def restated(m: AlexNet, x: Tensor, order1: str, order2: str, alpha: float, k: float, towers: int) -> Tensor:
    """Logits at test time by torch's functions: its LRN, whose alpha is of the mean, on each tower for itself."""

    def after_conv(x: Tensor, order: str) -> Tensor:
        for word in order.split():
            if word == "relu":
                x = F.relu(x)
            elif word == "pool":
                x = F.max_pool2d(x, 3, 2)
            elif word == "lrn":
                x = torch.cat([F.local_response_norm(t, 5, alpha, 0.75, k) for t in x.chunk(towers, 1)], 1)
            else:  # within-map: 5 x 5, scale 1e-3 / 25, k 1
                x = x / (1 + 1e-3 * F.avg_pool2d(x**2, 5, 1, 2)) ** 0.75
        return x

    keep = 0.5 if m.config.dropout == "plain" else 1.0
    x = F.pad(x, (0, 3, 0, 3)) if m.config.input_size == 224 else x
    x = after_conv(F.conv2d(x, m.conv1.weight, m.conv1.bias, stride=4), order1)
    x = after_conv(F.conv2d(x, m.conv2.weight, m.conv2.bias, padding=2, groups=2), order2)
    x = F.conv2d(x, m.conv3.weight, m.conv3.bias, padding=1).relu()
    x = F.conv2d(x, m.conv4.weight, m.conv4.bias, padding=1, groups=2).relu()
    x = F.max_pool2d(F.conv2d(x, m.conv5.weight, m.conv5.bias, padding=1, groups=2).relu(), 3, 2)
    x = F.linear(x.flatten(1), m.fc6.weight, m.fc6.bias).relu() * keep
    x = F.linear(x, m.fc7.weight, m.fc7.bias).relu() * keep
    return F.linear(x, m.fc8.weight, m.fc8.bias)


@pytest.mark.parametrize(
    ("config", "order1", "order2", "alpha", "k", "towers"),
    [
        (alexnet_2012(), "relu lrn pool", "relu lrn pool", 5e-4, 2.0, 2),
        (alexnet_2012_code(), "lrn pool relu", "relu lrn map pool", 1e-4, 2.0, 2),
        (alexnet_caffe(), "relu lrn pool", "relu lrn pool", 1e-4, 1.0, 1),
        (caffenet(), "relu pool lrn", "relu pool lrn", 1e-4, 1.0, 1),
    ],
    ids=["alexnet_2012", "alexnet_2012_code", "alexnet_caffe", "caffenet"],
)
def test_order_of_operations(config, order1, order2, alpha, k, towers):
    model = AlexNet(replace(config, fc_units=(32, 32), num_classes=7)).double().eval()
    with torch.no_grad():
        model.conv1.weight.mul_(20)  # responses large enough for normalization to show
        x_BCHW = pixels(model, 1, torch.float64)
        expected = restated(model, x_BCHW, order1, order2, alpha, k, towers)
        torch.testing.assert_close(model(x_BCHW), expected, rtol=1e-9, atol=0)


def test_relu_commutes_with_max_pooling():
    a, b = small(), small(stages=(*AlexNetConfig().stages[:4], "pool act"))
    assert torch.equal(a.eval()(pixels(a)), b.eval()(pixels(a)))


def test_relu_does_not_commute_with_normalization():
    # Squares of negative responses enter the denominator when it comes first, as in layer 1 of the 2012 program.
    x_BCHW = torch.tensor([3.0, -4.0]).view(1, 2, 1, 1)
    norm = LocalResponseNorm(size=3, alpha=1.0, beta=1.0, k=1.0)
    assert norm(x_BCHW.relu()).flatten().tolist() == pytest.approx([3 / 10, 0])  # 1 + 9
    assert norm(x_BCHW).relu().flatten().tolist() == pytest.approx([3 / 26, 0])  # 1 + 9 + 16
    after, before = small(lrn_alpha=1.0), small(lrn_alpha=1.0, stages=("norm pool act", *AlexNetConfig().stages[1:]))
    assert not torch.allclose(after.eval()(pixels(after)), before.eval()(pixels(after)))


# Towers ---------------------------------------------------------------------------------------------------------------


def influence(model: AlexNet, source: str, target: str) -> tuple[bool, bool]:
    """Does the second half of ``source``'s output reach the first half of ``target``'s? And the first half?"""
    outputs: dict[str, Tensor] = {}
    for name in (source, target):
        model.get_submodule(name).register_forward_hook(lambda m, args, y, name=name: outputs.update({name: y}))
    model(pixels(model))
    first_half = outputs[target].chunk(2, 1)[0].square().sum()
    (gradient,) = torch.autograd.grad(first_half, outputs[source])
    other, own = gradient.chunk(2, 1)[1], gradient.chunk(2, 1)[0]
    return bool((other != 0).any()), bool((own != 0).any())


@pytest.mark.parametrize(
    ("source", "target", "joined"),
    [
        ("conv1", "conv2", False),
        ("stage2", "conv3", True),
        ("stage3", "conv4", False),
        ("stage4", "conv5", False),
        ("stage5", "fc6", True),
        ("act6", "fc7", True),
    ],
)
def test_towers_meet_only_where_the_paper_joins_them(source: str, target: str, joined: bool):
    assert influence(small(init="he"), source, target) == (joined, True)


def test_isolated_towers_meet_in_fc8_alone():
    model = small(init="he", joined=())
    for source, target in [("conv1", "conv3"), ("conv1", "stage5"), ("conv1", "act7")]:
        assert influence(model, source, target) == (False, True)
    assert influence(model, "conv1", "fc8") == (True, True)


def test_kernels_that_are_not_shared_stay_in_their_tower_and_compute_a_convolution_where_they_are_equal():
    fields = {"init": "he", "unshared": ("conv3", "conv4", "conv5")}
    local, plain = small(**fields), small(init="he")
    assert influence(local, "stage2", "conv3") == (True, True)
    assert influence(local, "stage3", "conv4") == influence(local, "stage4", "conv5") == (False, True)
    with torch.no_grad():
        for layer in fields["unshared"]:
            kernels, shared = local.get_submodule(layer), plain.get_submodule(layer)
            kernels.weight.copy_(shared.weight.flatten(1).expand_as(kernels.weight))
            kernels.bias.copy_(shared.bias.expand_as(kernels.bias))
    same = plain.state_dict()
    local.load_state_dict(
        {key: same[key] for key in same if key.partition(".")[0] not in fields["unshared"]}, strict=False
    )
    torch.testing.assert_close(local.eval()(pixels(local)), plain.eval()(pixels(plain)))


def test_one_tower_has_no_groups():
    model = small(init="he", towers=1)
    assert influence(model, "conv1", "conv2") == (True, True)
    assert {m.groups for m in model.modules() if isinstance(m, nn.Conv2d)} == {1}


# Initial weights ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "stds", "biases"),
    [
        ("alexnet_2012", (0.01,) * 8, (0, 1, 0, 1, 1, 1, 1, 0)),
        ("alexnet_2012_code", (0.01, 0.01, 0.03, 0.03, 0.03, 0.01, 0.01, 0.01), (0, 1, 0, 1, 1, 1, 1, 0)),
        ("alexnet_caffe", (0.01, 0.01, 0.01, 0.01, 0.01, 0.005, 0.005, 0.01), (0, 0.1, 0, 0.1, 0.1, 0.1, 0.1, 0)),
        ("caffenet", (0.01, 0.01, 0.01, 0.01, 0.01, 0.005, 0.005, 0.01), (0, 1, 0, 1, 1, 1, 1, 0)),
    ],
)
def test_initial_standard_deviations_and_biases(name, stds, biases):
    model = create_model(name, fc_units=(256, 256), num_classes=100)
    for layer, std, bias in zip(model.config.layer_names, stds, biases, strict=True):
        module = model.get_submodule(layer)
        assert module.weight.std().item() == pytest.approx(std, rel=0.03), layer
        assert torch.all(module.bias == bias), layer


# Switches -------------------------------------------------------------------------------------------------------------

SWITCHES: dict[str, tuple[dict[str, Any], str]] = {
    # what is switched: fields, and the class of a module that is only there with them ("" where none is)
    "tanh": ({"activation": "tanh"}, "Tanh"),
    "sigmoid": ({"activation": "sigmoid"}, "Sigmoid"),
    "leaky ReLU": ({"activation": "leaky_relu"}, "LeakyReLU"),
    "PReLU": ({"activation": "prelu"}, "PReLU"),
    "GELU": ({"activation": "gelu"}, "GELU"),
    "no normalization": ({"normalization": "none"}, ""),
    "batch normalization": ({"normalization": "batch"}, "BatchNorm2d"),
    "layer normalization": ({"normalization": "layer"}, "GroupNorm"),
    "group normalization": ({"normalization": "group"}, "GroupNorm"),
    "normalization before the nonlinearity": ({"stages": ("norm pool act", "norm act pool", "act", "act", "act pool")}, ""),
    "normalization after pooling": ({"stages": ("act pool norm", "act pool norm", "act", "act", "act pool")}, ""),
    "within-map normalization": ({"stages": ("act norm pool", "act map_norm pool", "act", "act", "act pool")}, "MapResponseNorm"),
    "normalization of conv5": ({"stages": ("act norm pool", "act norm pool", "act", "act", "act norm pool")}, ""),
    "LRN size": ({"lrn_size": 3}, ""),
    "LRN alpha": ({"lrn_alpha": 1e-2}, ""),
    "LRN alpha of the mean": ({"lrn_alpha_times": "mean"}, ""),
    "LRN beta": ({"lrn_beta": 0.5}, ""),
    "LRN k": ({"lrn_k": 1.0}, ""),
    "LRN across towers": ({"lrn_crosses_towers": True}, ""),
    "average pooling": ({"pooling": "average"}, "AvgPool2d"),
    "pooling without overlap": ({"pool_size": 2, "pool_ceil": True}, ""),
    "symmetric padding": ({"overhang": False, "conv_padding": (2, 2, 1, 1, 1)}, ""),
    "no padding of conv1": ({"overhang": False}, ""),
    "global average pooling": ({"head": "global_average"}, ""),
    "dropout inverted": ({"dropout": "inverted"}, ""),
    "dropout before": ({"dropout_place": "before"}, ""),
    "dropout rate": ({"dropout_rate": 0.2}, ""),
    "weight std": ({"weight_std": (0.2,) * 8}, ""),
    "biases": ({"biases": AlexNetConfig().biases}, ""),
    "He initialization": ({"init": "he"}, ""),
    "torch initialization": ({"init": "torch"}, ""),
    "one tower": ({"towers": 1}, ""),
    "isolated towers": ({"joined": ()}, "TowerLinear"),
    "joined elsewhere": ({"joined": ("conv4", "fc6")}, "TowerLinear"),
    "kernels of their own at each place": ({"unshared": ("conv3", "conv5")}, "LocalConv2d"),
    "without conv3": ({"conv_channels": (8, 16, 0, 12, 16)}, ""),
    "without conv2": ({"conv_channels": (8, 0, 12, 12, 16)}, ""),
    "without conv5": ({"conv_channels": (8, 16, 12, 12, 0)}, ""),
    "without fc6": ({"fc_units": (0, 16)}, ""),
    "without fc7": ({"fc_units": (16, 0)}, ""),
    "wider": ({"conv_channels": (16, 32, 24, 24, 32), "fc_units": (32, 32)}, ""),
    "grey": ({"in_channels": 1}, ""),
    "larger input": ({"input_size": 130}, ""),
    "more classes": ({"num_classes": 9}, ""),
}  # fmt: skip


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_switch_trains_and_changes_the_network(switch: str):
    fields, marker = SWITCHES[switch]
    plain, switched = small(), small(**fields)
    x_BCHW = pixels(switched)
    torch.manual_seed(0)
    logits_BK = switched(x_BCHW)
    assert logits_BK.isfinite().all()
    F.cross_entropy(logits_BK, torch.tensor([0, 1])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in switched.parameters())
    classes = [{type(m).__name__ for m in model.modules()} for model in (plain, switched)]
    assert not marker or (marker in classes[1] and marker not in classes[0])
    if x_BCHW.shape == pixels(plain).shape and logits_BK.shape[1] == 5:
        torch.manual_seed(0)
        assert not torch.equal(plain(x_BCHW), logits_BK)


def test_a_layer_left_out_takes_its_nonlinearity_and_normalization_with_it_and_leaves_its_pooling():
    model = small(conv_channels=(8, 0, 12, 12, 0))
    assert isinstance(model.conv2, nn.Identity)
    assert [type(m) for m in model.stage2] == [nn.MaxPool2d]
    assert [type(m) for m in model.stage5] == [nn.MaxPool2d]
    assert model.conv3.in_channels == 8
    assert model.fc6.in_features == 12 * 2 * 2


@pytest.mark.parametrize(
    ("fields", "steps"),
    [
        ({}, "conv1 8 conv2 16 conv3 12 conv4 12 conv5 64 fc6 16 fc7 16 fc8 5"),
        ({"fc_units": (0, 16), "dropout_place": "before"}, "conv1 8 conv2 16 conv3 12 conv4 12 conv5 64 fc7 16 fc8 5"),
        ({"head": "global_average"}, "conv1 8 conv2 16 conv3 12 conv4 12 conv5 16 fc8 5"),
        ({"conv_channels": (8, 0, 12, 12, 0)}, "conv1 8 conv2 8 conv3 12 conv4 12 conv5 48 fc6 16 fc7 16 fc8 5"),
    ],
)
def test_the_steps_are_the_forward_pass(fields: dict[str, Any], steps: str):
    # The channels or units that each step gives; the last maps have 2 x 2 pixels.
    model = small(init="he", **fields)
    read: dict[str, tuple[int, ...]] = {}
    for name, module in model.named_children():
        module.register_forward_pre_hook(lambda m, args, name=name: read.update({name: tuple(args[0].shape[1:])}))
    draw = DropoutDraw(0, 0, np.arange(2))
    logits_BK, x, found = model(pixels(model), draw), pixels(model), []
    for step in model.steps():
        x = step.run(x, draw)
        found += [step.name, str(x.shape[1])]
    assert " ".join(found) == steps
    assert torch.equal(x, logits_BK)
    assert model.config.layer_inputs() == {
        step.name: read[step.name] for step in model.steps() if not isinstance(step.layer, nn.Identity)
    }


def test_ablation_of_normalization_removes_all_three_of_the_2012_program():
    # Configuration 148.
    counts = [
        sum(isinstance(m, LocalResponseNorm | MapResponseNorm) for m in model.modules())
        for model in (
            AlexNet(replace(alexnet_2012_code(), **SMALL)),
            AlexNet(replace(alexnet_2012_code(), **SMALL, normalization="none")),
        )
    ]
    assert counts == [3, 0]


def test_dropout_sits_after_fc6_and_fc7_or_before_them():
    orders = {
        "after": ["fc6", "act6", "dropout6", "fc7", "act7", "dropout7", "fc8"],
        "before": ["dropout6", "fc6", "act6", "dropout7", "fc7", "act7", "fc8"],
    }
    for place, expected in orders.items():
        model = small(dropout_place=place)
        order: list[str] = []
        for name in ("dropout6", "fc6", "act6", "dropout7", "fc7", "act7", "fc8"):
            model.get_submodule(name).register_forward_hook(
                lambda m, args, y, name=name, order=order: order.append(name)
            )
        model(pixels(model))
        assert order == expected


@pytest.mark.parametrize(
    ("name", "kind", "place"),
    [
        ("alexnet_2012", "plain", "after"),
        ("alexnet_2012_code", "plain", "after"),
        ("alexnet_caffe", "inverted", "after"),
        ("caffenet", "inverted", "after"),
        ("alexnet_owt", "inverted", "before"),
        ("alexnet_d2l", "inverted", "after"),
    ],
)
def test_dropout_of_each_network(name: str, kind: str, place: str):
    config = model_config(name)
    assert (config.dropout, config.dropout_place, config.dropout_rate) == (kind, place, 0.5)


def test_the_two_dropout_layers_draw_different_masks():
    model = small(biases=(1.0,) * 8, weight_std=(0.0,) * 8)  # every unit is 1, so the masks show
    masks: list[Tensor] = []
    for layer in (model.dropout6, model.dropout7):
        layer.register_forward_hook(lambda m, args, y: masks.append(y))
    model(pixels(model), DropoutDraw(seed=0, epoch=0, image_B=np.array([3, 4])))
    assert masks[0].shape == masks[1].shape
    assert not torch.equal(masks[0], masks[1])


# Wrong settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"conv_channels": (96, 256)}, "conv_channels"),
        ({"conv_kernels": (11, 5, 3, 3)}, "conv_kernels"),
        ({"stages": ("act",) * 4}, "stages"),
        ({"stages": ("act norm norm", "", "", "", "")}, "stages"),
        ({"stages": ("relu", "", "", "", "")}, "stages"),
        ({"weight_std": (0.01,)}, "weight_std"),
        ({"biases": (0.0,) * 9}, "biases"),
        ({"weight_std": (-0.01,) * 8}, "weight_std"),
        ({"num_classes": -1}, "num_classes"),
        ({"input_size": 20}, "input_size"),
        ({"conv_channels": (0, 256, 384, 384, 256)}, "conv_channels"),
        ({"conv_channels": (95, 256, 384, 384, 256)}, "towers"),
        ({"towers": 3}, "towers"),
        ({"joined": ("conv9",)}, "joined"),
        ({"joined": ("conv1",)}, "joined"),
        ({"unshared": ("fc6",)}, "unshared"),
        ({"unshared": ("conv1",)}, "unshared"),  # its stride is 4
        ({"unshared": ("conv2",), "conv_padding": (0, 1, 1, 1, 1)}, "unshared"),
        ({"conv_strides": (0, 1, 1, 1, 1)}, "conv_strides"),
        ({"lrn_size": 4}, "lrn_size"),
        ({"lrn_k": 0.0}, "lrn_k"),
        ({"dropout_rate": 1.0}, "dropout_rate"),
        ({"activation": "swish"}, "activation"),
        ({"input_size": "224"}, "input_size"),
        ({"local_response_norm": True}, "local_response_norm"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(fields: dict[str, Any], message: str):
    with pytest.raises(UsageError, match=message) as caught:
        create_model("alexnet_2012", **fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "near"), [("alexnet", "alexnet_2012"), ("lennet", "lenet"), ("Caffe-Net", "caffenet")]
)
def test_an_unknown_network_is_answered_with_one_that_is_known(name, near):
    with pytest.raises(
        UsageError, match=rf"unknown network '{name}' \(perhaps {near}\); `alexnet info` lists the networks"
    ):
        create_model(name)


def test_a_batch_of_another_shape_is_refused_by_name():
    with pytest.raises(UsageError, match=r"alexnet_2012 reads images of shape \(3, 224, 224\).*\(2, 3, 227, 227\)"):
        create_model("alexnet_2012", fc_units=(2, 2))(torch.zeros(2, 3, 227, 227))
