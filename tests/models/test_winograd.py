"""Convolutions by Winograd's minimal filtering, against torch's in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from alexnet.models import create_model
from alexnet.models.layers import StridedConv2d
from alexnet.models.winograd import KERNELS, Conv2d


@pytest.fixture(autouse=True)
def _kernels() -> None:
    if not KERNELS.available(build=True):
        pytest.skip(f"needs a C compiler: {KERNELS.failure}")


def _layer(inputs: int, outputs: int, kernel: int, groups: int = 1, *, bias: bool = True) -> Conv2d:
    torch.manual_seed(1)
    return Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=bias)


def _batch(num: int, channels: int, height: int, width: int) -> Tensor:
    torch.manual_seed(2)
    return torch.randn(num, channels, height, width).relu()


def _by_torch(layer: Conv2d, x_BCHW: Tensor) -> Tensor:
    """In float32 by torch's own convolution."""
    return torch.nn.Conv2d.forward(layer, x_BCHW)


def _in_float64(layer: Conv2d, x_BCHW: Tensor) -> Tensor:
    bias = None if layer.bias is None else layer.bias.double()
    return torch.nn.functional.conv2d(
        x_BCHW.double(), layer.weight.double(), bias, padding=layer.padding, groups=layer.groups
    )


@pytest.mark.parametrize(
    ("inputs", "outputs", "kernel", "groups", "height", "width"),
    [
        (96, 256, 5, 2, 27, 27),  # conv2
        (64, 96, 3, 1, 13, 13),  # as conv3, narrower
        (64, 64, 3, 2, 13, 13),  # as conv4 and conv5
        (16, 32, 3, 1, 7, 12),  # the last tiles whole in one direction
        (16, 32, 5, 1, 8, 7),
        (48, 32, 3, 1, 9, 31),
    ],
)
@torch.inference_mode()
def test_sums_are_those_of_float64_as_near_as_float32_comes(
    inputs: int, outputs: int, kernel: int, groups: int, height: int, width: int
) -> None:
    layer, x_BCHW = _layer(inputs, outputs, kernel, groups), _batch(9, inputs, height, width)
    y_BCHW, exact_BCHW = layer(x_BCHW), _in_float64(layer, x_BCHW)
    assert y_BCHW.is_contiguous(memory_format=torch.channels_last)
    error, usual = (float((y - exact_BCHW).square().mean().sqrt()) for y in (y_BCHW, _by_torch(layer, x_BCHW)))
    assert error < 4 * usual + 1e-7
    assert error < 3e-6 * float(exact_BCHW.std())
    assert not torch.equal(y_BCHW, _by_torch(layer, x_BCHW))  # so these are not torch's


@torch.inference_mode()
def test_weights_of_one_at_one_place_move_the_maps() -> None:
    # y[o] is the map of channel o, moved by (row, column) - 2, with zeros where it came from: exact in any arithmetic that
    # is right, and wrong in every place where a tile is cut wrongly.
    layer, x_BCHW = _layer(32, 32, 5, bias=False), _batch(8, 32, 11, 9).mul(8).round()
    for row, column in ((0, 0), (2, 2), (4, 1)):
        layer.weight.zero_()
        layer.weight[torch.arange(32), torch.arange(32), row, column] = 1
        expected = torch.nn.functional.pad(x_BCHW, (2, 2, 2, 2))[:, :, row : row + 11, column : column + 9]
        torch.testing.assert_close(layer(x_BCHW), expected, rtol=0, atol=1e-4)


@torch.inference_mode()
def test_the_result_for_an_image_does_not_depend_on_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x_BCHW = _layer(32, 64, 3), _batch(24, 32, 13, 13)
    y_BCHW = layer(x_BCHW)
    assert torch.equal(layer(x_BCHW.flip(0)).flip(0), y_BCHW)
    assert torch.equal(layer(x_BCHW[:11]), y_BCHW[:11])
    monkeypatch.setattr("alexnet.models.winograd.ROOM", 1)  # an image at a time
    assert torch.equal(layer(x_BCHW), y_BCHW)


@torch.inference_mode()
def test_the_result_does_not_depend_on_threads_or_memory_format() -> None:
    layer, x_BCHW = _layer(32, 64, 3, groups=2), _batch(8, 32, 13, 13)
    y_BCHW = layer(x_BCHW)
    assert torch.equal(layer(x_BCHW.contiguous(memory_format=torch.channels_last)), y_BCHW)
    torch.set_num_threads(2)
    try:
        assert torch.equal(layer(x_BCHW), y_BCHW)
    finally:
        torch.set_num_threads(1)


def test_what_needs_gradients_or_another_arithmetic_is_left_to_torch() -> None:
    layer, x_BCHW = _layer(32, 64, 3), _batch(8, 32, 13, 13)
    assert torch.equal(layer(x_BCHW), _by_torch(layer, x_BCHW))  # gradients are on
    with torch.no_grad():
        assert torch.equal(layer(x_BCHW[:7]), _by_torch(layer, x_BCHW[:7]))  # too few images
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x_BCHW).dtype == torch.bfloat16
        assert layer.double()(x_BCHW.double()).dtype == torch.float64


@torch.inference_mode()
def test_conv1_is_computed_so_over_its_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    layer = StridedConv2d(3, 96, 11, stride=4, overhang=3)
    x_BCHW = _batch(8, 3, 60, 60).contiguous(memory_format=torch.channels_last)
    padded_BCHW = torch.nn.functional.pad(x_BCHW.double(), (0, 3, 0, 3))
    exact_BCHW = torch.nn.functional.conv2d(padded_BCHW, layer.weight.double(), layer.bias.double(), stride=4)
    y_BCHW = layer(x_BCHW)
    torch.testing.assert_close(y_BCHW.double(), exact_BCHW, rtol=0, atol=1e-5)
    monkeypatch.setattr("alexnet.models.winograd.LEAST_IMAGES", 9)
    assert not torch.equal(layer(x_BCHW), y_BCHW)  # torch's sums


def test_what_is_not_a_number_stays_so() -> None:
    layer, x_BCHW = _layer(32, 64, 3), _batch(8, 32, 13, 13)
    x_BCHW[3, 5, 6, 6] = torch.nan
    with torch.no_grad():
        y_BCHW = layer(x_BCHW)
    assert y_BCHW[3, :, 5:8, 5:8].isnan().all()
    assert y_BCHW[[0, 1, 2, 4, 5, 6, 7]].isfinite().all()


def test_a_network_answers_as_with_torchs_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    network = create_model("alexnet_2012", num_classes=10, seed=0).eval()
    x_BCHW = 60 * _batch(8, 3, 224, 224).sub(0.4).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        ours_BK = network(x_BCHW)
        monkeypatch.setattr(Conv2d, "forward", torch.nn.Conv2d.forward)
        torchs_BK = network(x_BCHW)
    assert not torch.equal(ours_BK, torchs_BK)
    torch.testing.assert_close(ours_BK, torchs_BK, rtol=0, atol=2e-5 * float(torchs_BK.std()))
