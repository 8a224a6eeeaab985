from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from alexnet.models import create_model
from alexnet.models.cifar import CifarConvNet, CifarLocalNet


def cross_map(x_BCHW: torch.Tensor) -> torch.Tensor:
    return F.local_response_norm(x_BCHW, 9, alpha=1e-3, beta=0.75, k=1.0)


def within_map(x_BCHW: torch.Tensor) -> torch.Tensor:
    return x_BCHW / (1 + 5e-5 * F.avg_pool2d(x_BCHW.square(), 3, 1, 1)) ** 0.75


def bright(model: CifarLocalNet | CifarConvNet) -> torch.Tensor:
    """Float64 pixels and conv1 weights large enough for the normalization to show."""
    model.double()
    with torch.no_grad():
        model.conv1.weight.mul_(1000)
    c = model.config
    return torch.rand(2, c.in_channels, c.input_size, c.input_size, dtype=torch.float64) * 255 - 128


@pytest.mark.parametrize("name", ["cifar_13pct", "cifar_11pct"])
def test_local_networks_are_built_in_cuda_convnets_order(name: str):
    m = create_model(name)
    norm = cross_map if name == "cifar_11pct" else lambda x: x
    x = x_BCHW = bright(m)
    x = norm(F.max_pool2d(F.conv2d(x, m.conv1.weight, m.conv1.bias, padding=2).relu(), 3, 2, ceil_mode=True))
    assert x.shape == (2, 64, 12, 12)
    x = F.max_pool2d(norm(F.conv2d(x, m.conv2.weight, m.conv2.bias, padding=2).relu()), 3, 2, ceil_mode=True)
    assert x.shape == (2, 64, 6, 6)
    x = m.local4(m.local3(x).relu()).relu()
    torch.testing.assert_close(m(x_BCHW), F.linear(x.flatten(1), m.fc10.weight, m.fc10.bias))


@pytest.mark.parametrize("name", ["cifar_18pct", "cifar_19pct"])
def test_convolutional_networks_are_built_in_cuda_convnets_order(name: str):
    m = create_model(name)
    norm = within_map if name == "cifar_18pct" else lambda x: x
    x = x_BCHW = bright(m)
    x = norm(F.max_pool2d(F.conv2d(x, m.conv1.weight, m.conv1.bias, padding=2), 3, 2, ceil_mode=True).relu())
    x = norm(clipped_average(F.conv2d(x, m.conv2.weight, m.conv2.bias, padding=2).relu()))
    x = clipped_average(F.conv2d(x, m.conv3.weight, m.conv3.bias, padding=2).relu())
    assert x.shape == (2, 64, 4, 4)
    torch.testing.assert_close(m(x_BCHW), F.linear(x.flatten(1), m.fc10.weight, m.fc10.bias))


def clipped_average(x_BCHW: torch.Tensor) -> torch.Tensor:
    """3 x 3 windows every 2 pixels; one that hangs over the edge averages what is inside (spec: cuda-convnet)."""
    side = x_BCHW.shape[-1]
    starts = range(0, side - 1, 2)
    columns = [[x_BCHW[..., i : i + 3, j : j + 3].mean((2, 3)) for j in starts] for i in starts]
    return torch.stack([torch.stack(row, dim=-1) for row in columns], dim=-2)


def test_normalization_is_the_clean_ablation_of_the_11_percent_network():
    with_norm, without = create_model("cifar_11pct"), create_model("cifar_11pct", normalization="none")
    assert all(torch.equal(a, b) for a, b in zip(with_norm.parameters(), without.parameters(), strict=True))
    x_BCHW = torch.rand(1, 3, 24, 24) * 255
    assert not torch.equal(with_norm(x_BCHW), without(x_BCHW))


@pytest.mark.parametrize(
    ("name", "stds"),
    [
        ("cifar_13pct", {"conv1": 1e-4, "conv2": 0.01, "local3": 0.04, "local4": 0.04, "fc10": 0.01}),
        ("cifar_18pct", {"conv1": 1e-4, "conv2": 0.01, "conv3": 0.01, "fc10": 0.01}),
    ],
)
def test_initial_weights(name: str, stds: dict[str, float]):
    model = create_model(name)
    for layer, std in stds.items():
        module = model.get_submodule(layer)
        assert module.weight.std().item() == pytest.approx(std, rel=0.05), layer
        assert (module.bias == 0).all(), layer
