"""Layers by name: what is read where, and what part of the image a unit sees, by the gradient of that unit."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from alexnet.core.errors import UsageError
from alexnet.evaluation.layers import (
    PIXELS,
    ReceptiveField,
    activations,
    before_nonlinearity,
    find_layers,
    negated,
    network_layers,
    recorded,
    usual_layer,
)
from alexnet.models import create_model

NARROW: dict[str, Any] = {"conv_channels": (8, 8, 8, 8, 8), "fc_units": (16, 16), "num_classes": 4}


def narrow(name: str, **fields: Any) -> nn.Module:
    """A named network, its layers a few units wide; the geometry is the real one."""
    if name.startswith("cifar"):
        return create_model(name, **fields).eval()
    return create_model(name, **({} if name == "lenet" else NARROW) | fields).eval()


def test_layers_of_the_paper_in_forward_order() -> None:
    names = [layer.name for layer in network_layers(narrow("alexnet_2012"))]
    assert names == (
        "pixels conv1 norm1 pool1 conv2 norm2 pool2 conv3 conv4 conv5 pool5 fc6 dropout6 fc7 dropout7 fc8".split()
    )


def test_layers_of_the_2012_program_have_a_nonlinearity_of_their_own_where_it_comes_later() -> None:
    names = [layer.name for layer in network_layers(narrow("alexnet_2012_code"))]
    assert names == (
        "pixels conv1 norm1 pool1 act1 conv2 norm2 map_norm2 pool2 conv3 conv4 conv5 pool5 act5 "
        "fc6 dropout6 fc7 dropout7 fc8".split()
    )


@pytest.mark.parametrize(
    ("usual", "untrained", "layer"),
    [
        ("fc7", (), "fc7"),
        ("fc7", ("fc8",), "fc7"),
        ("fc7", ("fc6", "fc7", "fc8"), "pool5"),
        ("fc7", ("conv1", "fc7"), "pixels"),
        ("conv5", ("fc6",), "conv5"),
        ("conv5", ("conv4", "conv5"), "conv3"),
    ],
)
def test_the_usual_layer_comes_before_all_untrained_ones(usual: str, untrained: tuple[str, ...], layer: str) -> None:
    model = narrow("alexnet_owt")
    assert usual_layer(model, None, usual, untrained).name == layer
    assert usual_layer(model, "fc7", usual, untrained).name == "fc7"


@pytest.mark.parametrize(
    ("name", "fields", "vectors", "maps"),
    [
        ("alexnet_2012", {}, "fc7", "conv5"),
        ("alexnet_owt", {"fc_units": (0, 0)}, "pool5", "conv5"),
        ("lenet", {}, "f6", "c3"),
        ("cifar_13pct", {}, "local4", "local4"),
        ("cifar_18pct", {}, "pool3", "conv3"),
    ],
)
def test_without_fc7_the_usual_vectors_are_what_the_classifier_reads(name, fields, vectors, maps) -> None:
    model = create_model(name, **fields)
    assert usual_layer(model, None, "fc7").name == vectors
    assert usual_layer(model, None, "conv5").name == maps


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("lenet", {}, "pixels c1 s2 c3 s4 c5 f6 output"),
        ("cifar_11pct", {}, "pixels conv1 pool1 norm1 conv2 norm2 pool2 local3 local4 fc10"),
        ("cifar_18pct", {}, "pixels conv1 pool1 act1 norm1 conv2 pool2 norm2 conv3 pool3 fc10"),
        # Dropout that does nothing at test is no layer.
        ("caffenet", {}, "pixels conv1 pool1 norm1 conv2 pool2 norm2 conv3 conv4 conv5 pool5 fc6 fc7 fc8"),
        # Nor is one that the configuration leaves out.
        (
            "alexnet_2012",
            {"conv_channels": (8, 8, 8, 0, 8), "fc_units": (16, 0)},
            "pixels conv1 norm1 pool1 conv2 norm2 pool2 conv3 conv5 pool5 fc6 dropout6 fc8",
        ),
    ],
)
def test_names_of_other_networks(name: str, fields: dict[str, Any], expected: str) -> None:
    assert [layer.name for layer in network_layers(narrow(name, **fields))] == expected.split()


def test_shapes_are_those_of_the_paper() -> None:
    shapes = {layer.name: layer.shape for layer in network_layers(create_model("alexnet_2012", fc_units=(2, 2)))}
    assert [shapes[name] for name in ("conv1", "pool1", "conv2", "conv3", "conv5", "pool5", "fc8")] == [
        (96, 55, 55),
        (96, 27, 27),
        (256, 27, 27),
        (384, 13, 13),
        (256, 13, 13),
        (256, 6, 6),
        (1000,),
    ]


def test_an_unknown_layer_is_refused_with_the_names_of_all() -> None:
    with pytest.raises(UsageError, match="no layer is called 'conv9'; the layers are pixels, c1, s2, c3"):
        find_layers(narrow("lenet"), ["c1", "conv9"])


# Receptive fields -----------------------------------------------------------------------------------------------------


def test_receptive_fields_of_the_paper_by_hand() -> None:
    fields = {layer.name: layer.field for layer in network_layers(narrow("alexnet_2012"))}
    # size + (kernel - 1) * stride, stride * step, offset - padding * stride, from layer to layer:
    by_hand = {
        "conv1": (11, 4, 0),
        "norm1": (11, 4, 0),
        "pool1": (19, 8, 0),  # 11 + 2 * 4
        "conv2": (51, 8, -16),  # 19 + 4 * 8, - 2 * 8
        "pool2": (67, 16, -16),  # 51 + 2 * 8
        "conv3": (99, 16, -32),  # 67 + 2 * 16
        "conv4": (131, 16, -48),
        "conv5": (163, 16, -64),
        "pool5": (195, 32, -64),
    }
    for name, expected in by_hand.items():
        field = fields[name]
        assert field is not None
        assert (field.size, field.stride, field.offset) == expected
    assert fields["fc6"] is None


def test_a_box_is_cut_at_the_borders() -> None:
    field = ReceptiveField(size=51, stride=8, offset=-16)
    assert field.box(0, 3, 224) == (0, 8, 35, 59)
    assert field.box(26, 0, 224) == (192, 0, 224, 35)
    assert ReceptiveField(51, 8, -16, end=218).box(26, 2, 224) == (192, 0, 218, 51)


def positive(model: nn.Module) -> nn.Module:
    """The same geometry with weights that let no gradient vanish or cancel: all positive and small, means for maxima, so
    that every pixel that a unit can see changes it."""
    random = torch.Generator().manual_seed(0)
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):
                mean = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, ceil_mode=child.ceil_mode)
                setattr(module, name, mean)
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = max(parameter[0].numel(), 1)
            parameter.copy_((0.5 + torch.rand(parameter.shape, generator=random)) / fan_in)
    return model.double()


def seen(model: nn.Module, layer: Any, y: int, x: int) -> Tensor:
    """Which pixels change one unit of every channel: (H, W) bool, by the gradient with respect to them."""
    config: Any = model.config
    shape = (1, config.in_channels, config.input_size, config.input_size)
    x_BCHW = 0.5 + torch.rand(shape, generator=torch.Generator().manual_seed(1)).double()
    x_BCHW.requires_grad_()
    with recorded(model, [layer]) as outputs:
        model(x_BCHW)
    (gradient_BCHW,) = torch.autograd.grad(outputs[layer.name][0, :, y, x].sum(), x_BCHW)
    return (gradient_BCHW[0] != 0).any(0)


NETWORKS: list[tuple[str, dict[str, Any]]] = [
    ("lenet", {}),
    ("lenet", {"input_size": 31}),
    ("cifar_11pct", {}),
    ("cifar_18pct", {}),
    ("alexnet_2012", {}),
    ("alexnet_2012_code", {}),
    ("alexnet_owt", {}),
    ("alexnet_d2l", {}),  # conv1 and pool1 leave rows out
    ("alexnet_2012", {"input_size": 151, "overhang": False}),
    ("zfnet", {}),
]


@pytest.mark.parametrize(("name", "fields"), NETWORKS)
def test_a_unit_sees_the_pixels_of_its_box_and_no_others(name: str, fields: dict[str, Any]) -> None:
    model = narrow(name, **fields)
    layers = [layer for layer in network_layers(model) if layer.field is not None]
    model = positive(model)
    assert len(layers) >= 5
    for layer in layers:
        assert layer.field is not None
        last = layer.shape[1] - 1
        for y, x in {(0, 0), (last // 2, last // 3), (last, last), (max(last - 1, 0), 0)}:
            seen_HW = seen(model, layer, y, x)
            expected_HW = torch.zeros_like(seen_HW)
            top, left, bottom, right = layer.field.box(y, x, seen_HW.shape[0])
            expected_HW[top:bottom, left:right] = True
            assert torch.equal(seen_HW, expected_HW), (layer.name, y, x)


def test_normalization_within_a_map_widens_the_field_and_across_channels_does_not() -> None:
    fields = {layer.name: layer.field for layer in network_layers(narrow("alexnet_2012_code"))}
    before, across, within = fields["conv2"], fields["norm2"], fields["map_norm2"]
    assert before is not None
    assert within is not None
    assert before == across
    assert (within.size, within.offset) == (before.size + 4 * 8, before.offset - 2 * 8)


def test_layer_normalization_sees_the_whole_image() -> None:
    layers = {layer.name: layer for layer in network_layers(narrow("alexnet_2012", normalization="layer"))}
    assert layers["conv1"].field is not None
    assert layers["norm1"].field is None
    assert layers["conv2"].field is None


# Activations ----------------------------------------------------------------------------------------------------------


def test_a_relu_inside_the_normalization_is_applied_to_what_is_read() -> None:
    model = narrow("alexnet_2012")
    x_BCHW = 50 * torch.randn(2, 3, 224, 224)
    read = activations(model, x_BCHW, ["conv1", "norm1", "conv2", "conv3", "fc7", "dropout7", "fc8"])
    with torch.no_grad():  # the forward pass of the paper, written out
        conv1 = model.conv1(x_BCHW)  # type: ignore[operator]
        norm1 = model.stage1.norm1(conv1)  # type: ignore[operator,union-attr]
        conv2 = model.conv2(model.stage1.pool1(norm1))  # type: ignore[operator,union-attr]
        conv3 = model.conv3(model.stage2(conv2))  # type: ignore[operator]
        pool5 = model.stage5(model.conv5(model.stage4(model.conv4(conv3.relu()))))  # type: ignore[operator]
        fc7 = model.fc7(0.5 * model.fc6(pool5.flatten(1)).relu()).relu()  # type: ignore[operator]
    assert (conv1 < 0).any()
    for name, expected in (
        ("conv1", conv1.relu()),
        ("norm1", norm1),
        ("conv2", conv2.relu()),
        ("conv3", conv3.relu()),
        ("fc7", fc7),
        ("dropout7", 0.5 * fc7),
        ("fc8", model(x_BCHW).detach()),
    ):
        assert torch.equal(read[name], expected), name


def test_a_fused_relu_reads_as_one_written_out() -> None:
    # The same weights, once with the ReLU inside the normalization and once in front of it as a module of its own.
    fused = narrow("alexnet_2012")
    plain = narrow("alexnet_2012")
    for i in (1, 2):
        stage = plain.get_submodule(f"stage{i}")
        stage.get_submodule(f"norm{i}").window = stage.get_submodule(f"norm{i}").window._replace(relu=False)  # type: ignore[assignment,operator]
        modules = [(f"act{i}", nn.ReLU()), *stage.named_children()]
        setattr(plain, f"stage{i}", nn.Sequential(OrderedDict(modules)))
    x_BCHW = 50 * torch.randn(1, 3, 224, 224)
    names = ["conv1", "norm1", "conv2", "norm2", "conv5"]
    one, other = activations(fused, x_BCHW, names), activations(plain, x_BCHW, names)
    assert [layer.name for layer in network_layers(plain)] == [layer.name for layer in network_layers(fused)]
    for name in names:
        torch.testing.assert_close(one[name], other[name])


def test_conv1_of_the_2012_program_is_read_with_its_signs() -> None:
    model = narrow("alexnet_2012_code", biases=(0.0,) * 8)
    read = activations(model, 50 * torch.randn(1, 3, 224, 224), ["conv1", "pool1", "act1", "conv5", "pool5", "act5"])
    assert (read["conv1"] < 0).any()
    assert (read["pool1"] < 0).any()
    assert (read["act1"] >= 0).all()
    assert torch.equal(read["act1"], read["pool1"].relu())
    assert (read["conv5"] < 0).any()
    assert torch.equal(read["act5"], read["pool5"].relu())


NORM_FIRST = ("norm act pool", "norm act pool", "norm act", "norm act", "norm act pool")


# Before the nonlinearity ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "fields", "layers"),
    [
        ("alexnet_2012", {}, "conv1 conv2 conv4 conv5 pool5 fc6 fc7 fc8"),  # norm1 and norm2 hold a ReLU
        ("alexnet_2012_code", {}, "conv1 pool1 conv3 pool5 fc7"),  # pooled before the ReLU
        ("alexnet_owt", {"normalization": "batch", "stages": NORM_FIRST}, "conv1 norm1 act1 conv3 fc6"),
        ("cifar_13pct", {}, "conv1 pool1 conv2 local3 local4 fc10"),
    ],
)
def test_what_comes_before_the_relu_becomes_the_layer_by_it(name: str, fields: dict[str, Any], layers: str) -> None:
    model = create_model(name) if name.startswith("cifar") else narrow(name, init="he", **fields).eval()
    config: Any = model.config
    x_BCHW = 3 * torch.randn(2, 3, config.input_size, config.input_size, generator=torch.Generator().manual_seed(1))
    for layer in find_layers(model, layers.split()):
        expected = activations(model, x_BCHW, [layer.name])[layer.name]
        found = before_nonlinearity(model, layer)(x_BCHW).detach()
        is_rectified = bool((expected >= 0).all())
        assert bool((found < 0).any()), layer.name  # a unit that is off is seen
        torch.testing.assert_close(found.relu() if is_rectified else found, expected, rtol=1e-5, atol=1e-6)


def test_a_sigmoid_is_left_out_too() -> None:
    model, x_BCHW = create_model("lenet"), torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    for layer in find_layers(model, ["c1", "c3", "c5", "f6"]):
        expected = activations(model, x_BCHW, [layer.name])[layer.name]
        torch.testing.assert_close(before_nonlinearity(model, layer)(x_BCHW).sigmoid().detach(), expected)


@pytest.mark.parametrize("name", ["alexnet_2012", "alexnet_owt", "caffenet", "zfnet"])
def test_without_padding_an_image_of_the_size_of_a_field_gives_one_unit(name: str) -> None:
    model = narrow(name, init="he", input_size=195).eval()
    x_1CHW = torch.randn(1, 3, 195, 195, generator=torch.Generator().manual_seed(1))
    for layer in network_layers(model):
        if len(layer.shape) != 3:
            break
        assert layer.field is not None
        y = x = layer.shape[1] // 2
        top, left, bottom, right = layer.field.box(y, x, 195)
        if bottom - top != layer.field.size:
            break
        alone = before_nonlinearity(model, layer, unpadded=True)(x_1CHW[:, :, top:bottom, left:right])
        assert alone.shape == (1, layer.shape[0], 1, 1), layer.name
        expected = before_nonlinearity(model, layer)(x_1CHW)[:, :, y, x]
        torch.testing.assert_close(alone[:, :, 0, 0], expected, rtol=1e-4, atol=1e-5)
    else:
        raise AssertionError("no layer was tried")
    assert layer.name not in ("pixels", "conv1", "conv2")


def test_the_other_sign_of_the_weights_is_the_other_sign_of_the_units_and_of_nothing_else() -> None:
    model = narrow("alexnet_2012", init="he", input_size=67).eval()
    x_BCHW = torch.randn(2, 3, 67, 67, generator=torch.Generator().manual_seed(1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for layer in find_layers(model, ["conv1", "norm1", "conv4", "fc8"]):
        other = negated(model, layer)
        expected = -before_nonlinearity(model, layer)(x_BCHW)
        torch.testing.assert_close(before_nonlinearity(other, layer)(x_BCHW), expected)
        theirs = dict(other.named_parameters())
        shared = {name for name, parameter in model.named_parameters() if theirs[name] is parameter}
        own = layer.name.replace("norm", "conv")
        assert set(theirs) - shared == {f"{own}.weight", f"{own}.bias"}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(UsageError, match="pixels has no weights"):
        negated(model, find_layers(model, ["pixels"])[0])


def test_pixels_are_the_input() -> None:
    x_BCHW = torch.rand(2, 1, 28, 28)
    assert torch.equal(activations(narrow("lenet"), x_BCHW, [PIXELS])[PIXELS], x_BCHW)


def test_reading_leaves_modes_and_hooks_as_they_were() -> None:
    model = narrow("alexnet_2012").train()
    model.dropout6.eval()  # type: ignore[operator,union-attr]
    before = {name: module.training for name, module in model.named_modules()}
    x_BCHW = torch.randn(1, 3, 224, 224)
    first = activations(model, x_BCHW, ["fc8"])["fc8"]
    assert torch.equal(activations(model, x_BCHW, ["fc8"])["fc8"], first)  # no mask was drawn
    with pytest.raises(UsageError, match="reads images of shape"):
        activations(model, x_BCHW[:, :2], ["conv1"])
    assert {name: module.training for name, module in model.named_modules()} == before
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_recorded_activations_keep_their_place_in_the_graph() -> None:
    model = narrow("lenet")
    x_BCHW = torch.rand(1, 1, 28, 28, requires_grad=True)
    with recorded(model, find_layers(model, ["c3", "output"])) as outputs:
        logits_BK = model(x_BCHW)
    assert torch.equal(outputs["output"], logits_BK)
    (gradient,) = torch.autograd.grad(logits_BK[0, 3], outputs["c3"])
    assert np.isfinite(gradient.numpy()).all()
    assert gradient.abs().sum() > 0
