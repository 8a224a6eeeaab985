"""A known answer: the real weights of CaffeNet's first two convolutions on Caffe's ``cat.jpg``, through our layers and
through an independent computation in NumPy with float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from alexnet.models import create_model

Array = NDArray[np.float64]


@pytest.fixture(scope="module")
def weights(data_root: Path) -> dict[str, NDArray[np.float32]]:
    with np.load(data_root / "weights/caffenet-conv1-conv2/caffenet_conv1_conv2.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def cat_CHW(data_root: Path) -> Array:
    """227 x 227, blue first, 0..255 less the mean image under the crop."""
    folder = data_root / "weights/caffenet-conv1-conv2"
    with Image.open(folder / "cat.jpg") as image:
        pixels_HWC = np.asarray(image.convert("RGB").resize((256, 256), Image.Resampling.BILINEAR), np.float64)
    less_mean_CHW = pixels_HWC[:, :, ::-1].transpose(2, 0, 1) - np.load(folder / "ilsvrc_2012_mean.npy")
    return less_mean_CHW[:, 14:241, 14:241]


def convolve(x_CHW: Array, weight: Array, bias: Array, *, stride: int = 1, padding: int = 0, groups: int = 1) -> Array:
    x_CHW = np.pad(x_CHW, ((0, 0), (padding, padding), (padding, padding)))
    size, per_group = weight.shape[-1], weight.shape[0] // groups
    window_CHWkk = np.lib.stride_tricks.sliding_window_view(x_CHW, (size, size), axis=(1, 2))[:, ::stride, ::stride]
    maps = []
    for group in range(groups):
        mine = slice(group * weight.shape[1], (group + 1) * weight.shape[1])
        kernels = weight[group * per_group : (group + 1) * per_group]
        maps.append(np.tensordot(kernels, window_CHWkk[mine], axes=([1, 2, 3], [0, 3, 4])))
    return np.concatenate(maps) + bias[:, None, None]


def max_pool(x_CHW: Array) -> Array:
    return np.lib.stride_tricks.sliding_window_view(x_CHW, (3, 3), axis=(1, 2))[:, ::2, ::2].max((3, 4))


def normalize(x_CHW: Array) -> Array:
    """Caffe's LRN: five channels of one stream, alpha 1e-4 divided by five, beta 0.75, k 1."""
    out = np.empty_like(x_CHW)
    for i in range(len(x_CHW)):
        neighbors = x_CHW[max(0, i - 2) : i + 3]
        out[i] = x_CHW[i] / (1 + 1e-4 / 5 * (neighbors**2).sum(0)) ** 0.75
    return out


def caffenet_with(weights: dict[str, NDArray[np.float32]], **fields: object) -> nn.Module:
    model = create_model("caffenet", fc_units=(2, 2), num_classes=2, **fields).eval()
    with torch.no_grad():
        for layer in (model.conv1, model.conv2):
            name = "conv1" if layer is model.conv1 else "conv2"
            layer.weight.copy_(torch.from_numpy(weights[f"{name}_weight"]))
            layer.bias.copy_(torch.from_numpy(weights[f"{name}_bias"]))
    return model


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_two_stages_of_caffenet_on_the_cat(weights, cat_CHW, dtype):
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    norm1 = normalize(max_pool(np.maximum(convolve(cat_CHW, w["conv1_weight"], w["conv1_bias"], stride=4), 0)))
    conv2 = convolve(norm1, w["conv2_weight"], w["conv2_bias"], padding=2, groups=2)
    norm2 = normalize(max_pool(np.maximum(conv2, 0)))
    assert norm1.shape == (96, 27, 27)
    assert norm2.shape == (256, 13, 13)

    model = caffenet_with(weights).to(dtype)
    with torch.no_grad():
        ours1 = model.stage1(model.conv1(torch.from_numpy(cat_CHW[None]).to(dtype)))
        ours2 = model.stage2(model.conv2(ours1))
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    for ours, expected in ((ours1, norm1), (ours2, norm2)):
        error = np.abs(ours[0].double().numpy() - expected).max() / np.abs(expected).max()
        assert error < tolerance
    assert (norm1 > 1).any(axis=(1, 2)).sum() > 60  # trained kernels: most respond to the cat


def test_the_computation_tells_caffenet_from_its_relatives(weights, cat_CHW):
    # Each of these is a common mistake; on real weights and a real photograph none hides in the tolerance above.
    x_BCHW = torch.from_numpy(cat_CHW[None]).float()

    def stage2(**fields: object) -> torch.Tensor:
        model = caffenet_with(weights, **fields)
        with torch.no_grad():
            return model.stage2(model.conv2(model.stage1(model.conv1(x_BCHW))))

    right = stage2()
    for mistake in (
        {"stages": ("act norm pool", "act norm pool", "act", "act", "act pool")},
        {"lrn_k": 2.0},
        {"lrn_alpha_times": "sum"},
        {"lrn_crosses_towers": False},
        {"normalization": "none"},
    ):
        assert (stage2(**mistake) - right).abs().max() / right.abs().max() > 1e-3, mistake


def test_towers_kept_apart_change_four_channels_of_the_first_normalization(weights, cat_CHW):
    x_BCHW = torch.from_numpy(cat_CHW[None]).float()
    with torch.no_grad():
        stream, towers = (
            model.stage1(model.conv1(x_BCHW))
            for model in (caffenet_with(weights), caffenet_with(weights, lrn_crosses_towers=False))
        )
    assert (stream != towers).any(dim=(0, 2, 3)).nonzero().flatten().tolist() == [46, 47, 48, 49]
