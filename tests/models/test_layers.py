from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import alexnet
from alexnet.core.rng import DropoutDraw, dropout_keep
from alexnet.evaluation.layers import network_layers
from alexnet.models import create_model
from alexnet.models.layers import ACTIVATIONS, Dropout, LocalConv2d, StridedConv2d, TowerLinear, initialize

DRAW = DropoutDraw(seed=3, epoch=1, image_B=np.array([5, 70]))


def test_plain_dropout_masks_in_training_and_halves_at_test():
    # §4.2: at test the outputs of all units are used, multiplied by 0.5.
    x_BD = torch.arange(1.0, 201.0).view(2, 100)
    dropout = Dropout("fc6", kind="plain", rate=0.5)
    keep_BD = dropout_keep(DRAW, "fc6", 100, 0.5, x_BD.device)
    assert torch.equal(dropout(x_BD, DRAW), torch.where(keep_BD, x_BD, 0.0))
    assert torch.equal(dropout.eval()(x_BD), x_BD / 2)


def test_inverted_dropout_doubles_in_training_and_does_nothing_at_test():
    x_BD = torch.arange(1.0, 201.0).view(2, 100)
    dropout = Dropout("fc6", kind="inverted", rate=0.5)
    keep_BD = dropout_keep(DRAW, "fc6", 100, 0.5, x_BD.device)
    assert torch.equal(dropout(x_BD, DRAW), torch.where(keep_BD, 2 * x_BD, 0.0))
    assert torch.equal(dropout.eval()(x_BD), x_BD)


@pytest.mark.parametrize("training", [True, False])
def test_plain_dropout_is_inverted_dropout_times_the_keep_probability(training: bool):
    x_BD = torch.randn(2, 50)
    plain = Dropout("fc7", kind="plain", rate=0.25).train(training)
    inverted = Dropout("fc7", kind="inverted", rate=0.25).train(training)
    torch.testing.assert_close(plain(x_BD, DRAW), 0.75 * inverted(x_BD, DRAW))


@pytest.mark.parametrize("rate", [0.5, 0.2])
@pytest.mark.parametrize("draw", [True, False])
def test_each_unit_is_dropped_with_the_probability_asked_for(rate: float, draw: bool):
    draw_or_none = DropoutDraw(seed=0, epoch=0, image_B=np.arange(50)) if draw else None
    dropped = (Dropout("fc6", kind="plain", rate=rate)(torch.ones(50, 4000), draw_or_none) == 0).float().mean().item()
    assert dropped == pytest.approx(rate, abs=5 * math.sqrt(rate * (1 - rate) / 200_000))


def test_the_mask_of_an_image_does_not_depend_on_its_batch():
    dropout, x_BD = Dropout("fc6", kind="plain", rate=0.5), torch.ones(2, 64)
    other = DropoutDraw(seed=3, epoch=1, image_B=np.array([70, 9]))
    assert torch.equal(dropout(x_BD, DRAW)[1], dropout(x_BD, other)[0])
    assert not torch.equal(dropout(x_BD, DRAW)[0], dropout(x_BD, other)[1])


def test_a_rate_of_zero_changes_nothing():
    x_BD = torch.randn(2, 8)
    assert Dropout("fc6", kind="plain", rate=0.0)(x_BD, DRAW) is x_BD


def test_tower_linear_is_two_separate_layers():
    layer = TowerLinear(6, 4, towers=2)
    initialize(layer, torch.Generator().manual_seed(0), init="gaussian", std=1.0, bias=0.5)
    x_BD = torch.randn(3, 6)
    a = x_BD[:, :3] @ layer.weight[:2].T + 0.5
    b = x_BD[:, 3:] @ layer.weight[2:].T + 0.5
    torch.testing.assert_close(layer(x_BD), torch.cat([a, b], dim=1))


def test_local_convolution_with_equal_kernels_everywhere_is_a_convolution():
    shared = nn.Conv2d(3, 5, 3, padding=1, dtype=torch.float64)
    local = LocalConv2d(3, 5, 3, map_size=4).double()
    with torch.no_grad():
        local.weight.copy_(shared.weight.flatten(1).expand(16, 5, 27))
        local.bias.copy_(shared.bias.expand(16, 5))
    x_BCHW = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(local(x_BCHW), shared(x_BCHW))


def test_local_convolution_has_its_own_kernel_and_bias_at_each_position():
    local = LocalConv2d(2, 3, 3, map_size=4).double()
    initialize(local, torch.Generator().manual_seed(0), init="gaussian", std=1.0)
    with torch.no_grad():
        local.bias.copy_(torch.randn(16, 3))
    x_BCHW = torch.randn(2, 2, 4, 4, dtype=torch.float64)
    y_BCHW = local(x_BCHW)
    padded = torch.nn.functional.pad(x_BCHW, (1, 1, 1, 1))
    for row, column in [(0, 0), (1, 2), (3, 3)]:
        patch_BD = padded[:, :, row : row + 3, column : column + 3].flatten(1)
        position = 4 * row + column
        expected = patch_BD @ local.weight[position].T + local.bias[position]
        torch.testing.assert_close(y_BCHW[:, :, row, column], expected)


def test_a_local_convolution_in_groups_is_one_for_each_part_of_the_maps():
    whole = LocalConv2d(4, 6, 3, map_size=3, groups=2).double()
    parts = [LocalConv2d(2, 3, 3, map_size=3).double() for _ in range(2)]
    with torch.no_grad():
        for tensor_name in ("weight", "bias"):
            own = [getattr(part, tensor_name).copy_(torch.randn_like(getattr(part, tensor_name))) for part in parts]
            getattr(whole, tensor_name).copy_(torch.cat(own, dim=1))
    x_BCHW = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    expected = torch.cat([part(x) for part, x in zip(parts, x_BCHW.chunk(2, 1), strict=True)], dim=1)
    torch.testing.assert_close(whole(x_BCHW), expected)


def test_initial_kernels_of_a_local_convolution_are_those_of_a_convolution():
    """Their fans are of one position: 16 x 25 inputs, and 2 x 25 outputs that read one input."""
    local = LocalConv2d(16, 2, 5, map_size=20)
    for init, std in (("he", math.sqrt(2 / 400)), ("xavier", math.sqrt(6 / (400 + 50)) / math.sqrt(3))):
        initialize(local, torch.Generator().manual_seed(0), init=init)
        assert local.weight.std().item() == pytest.approx(std, rel=0.01)


@pytest.mark.parametrize(
    ("init", "std", "bias_std"),
    [
        ("gaussian", 0.03, 0.0),
        ("he", math.sqrt(2 / 400), 0.0),  # fan-in 400
        (
            "xavier",
            math.sqrt(2 / (400 + 500)),
            0.0,
        ),  # fan-out 500; a uniform draw within ±b has standard deviation b/√3
        ("torch", math.sqrt(1 / 3 / 400), math.sqrt(1 / 3 / 400)),
    ],
)
def test_initial_weights_have_the_spread_their_rule_names(init, std, bias_std):
    layer = nn.Linear(400, 500)
    initialize(layer, torch.Generator().manual_seed(0), init=init, std=0.03, bias=0.1)
    assert layer.weight.std().item() == pytest.approx(std, rel=0.01)
    assert abs(layer.weight.mean().item()) < 5 * std / math.sqrt(layer.weight.numel())
    if init == "torch":
        assert layer.bias.std().item() == pytest.approx(bias_std, rel=0.15)
    else:
        assert (layer.bias == 0.1).all()


def test_fan_in_and_fan_out_of_a_grouped_convolution_are_those_of_one_kernel():
    layer = nn.Conv2d(64, 128, 3, groups=2)  # 32 maps x 9; 128 kernels x 9
    for init, expected in (("he", math.sqrt(2 / 288)), ("xavier", math.sqrt(2 / (288 + 1152)))):
        initialize(layer, torch.Generator().manual_seed(0), init=init)
        assert layer.weight.std().item() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "overhang", "height", "width"),
    [
        (11, 4, 0, 3, 224, 224),  # the paper's
        (11, 4, 2, 0, 64, 60),  # 2014's
        (11, 4, 0, 0, 67, 67),  # Caffe's
        (3, 2, 1, 0, 13, 17),
        (5, 3, 0, 1, 16, 19),
        (2, 4, 0, 0, 13, 14),  # kernels smaller than the stride
        (4, 4, 4, 0, 16, 16),
        (5, 2, 0, 0, 9, 10),  # a last column that no kernel sees
    ],
)
def test_strided_convolution_over_cells_is_a_strided_convolution(kernel, stride, padding, overhang, height, width):
    conv = StridedConv2d(3, 6, kernel, stride, padding=padding, overhang=overhang).double()
    x_BCHW = torch.randn(2, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plain = x_BCHW.clone().requires_grad_()
    expected = F.conv2d(F.pad(plain, (0, overhang, 0, overhang)), conv.weight, conv.bias, stride, padding)
    g_BCHW = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, (plain, conv.weight, conv.bias), g_BCHW)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = x_BCHW.clone(memory_format=memory_format).requires_grad_()
        y_BCHW = conv(x)
        torch.testing.assert_close(y_BCHW, expected, rtol=1e-11, atol=1e-12)
        for ours, theirs in zip(torch.autograd.grad(y_BCHW, (x, conv.weight, conv.bias), g_BCHW), wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


ONE_MORE = """
from alexnet.cli import main
from alexnet.models import create_model
from alexnet.evaluation.layers import network_layers

model = create_model("lenet", activation="silu")
print(type(model.act1).__name__, network_layers(model)[1].name, network_layers(model)[1].path)
main(["train", "lenet", "--model.activation", "swish"])
"""


def test_an_activation_is_one_entry(tmp_path: Path):
    source = Path(alexnet.__file__).parent
    copy = shutil.copytree(source, tmp_path / "alexnet", ignore=shutil.ignore_patterns("__pycache__"))
    layers = copy / "models" / "layers.py"
    entry = '    "gelu": nn.GELU,\n'
    assert layers.read_text().count(entry) == 1
    layers.write_text(layers.read_text().replace(entry, entry + '    "silu": nn.SiLU,\n'))
    ran = subprocess.run(
        [sys.executable, "-c", ONE_MORE],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert ran.stdout == "SiLU c1 act1\n"  # the network has it, and the probes read c1 after it
    assert "it takes one of relu, tanh, sigmoid, leaky_relu, prelu, gelu, silu;" in ran.stderr
    assert ran.returncode == 2


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_is_read_with_its_layer(name: str):
    assert network_layers(create_model("lenet", activation=name))[1].path == "act1"
