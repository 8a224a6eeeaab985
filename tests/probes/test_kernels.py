"""The kernels of the first layer, as a report shows them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from alexnet.core.errors import AlexNetError
from alexnet.core.preprocessing import Preprocessing
from alexnet.models import create_model
from alexnet.probes.kernels import conv1_kernels, save_kernels

RGB = Preprocessing(mean="none")
BGR = Preprocessing(mean="none", channel_order="bgr")


def test_kernels_are_the_weights_of_conv1_in_rgb_order() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 5), nn.Conv2d(4, 8, 3))
    weight = model[0].weight.detach().numpy()  # type: ignore[union-attr]
    assert (conv1_kernels(model, RGB) == weight).all()
    assert (conv1_kernels(model, BGR) == weight[:, [2, 1, 0]]).all()


def test_kernels_are_a_copy() -> None:
    model = nn.Conv2d(1, 2, 3)
    before = model.weight.detach().clone()
    conv1_kernels(model, RGB)[:] = 7
    assert torch.equal(model.weight, before)


def test_a_network_without_convolutions_has_none() -> None:
    with pytest.raises(AlexNetError, match="no convolution"):
        conv1_kernels(nn.Linear(2, 2), RGB)


@pytest.mark.parametrize(
    ("name", "shape", "towers"),
    [("alexnet_2012", (96, 3, 11, 11), 2), ("alexnet_2012_one_tower", (48, 3, 11, 11), 1), ("lenet", (6, 1, 5, 5), 1)],
)
def test_the_files_of_a_run(tmp_path: Path, name: str, shape: tuple[int, ...], towers: int) -> None:
    narrow = {} if name == "lenet" else {"fc_units": (2, 2), "num_classes": 2}  # 60 million weights are not needed here
    save_kernels(tmp_path, create_model(name, **narrow), RGB)
    stored = np.load(tmp_path / "conv1.npy", allow_pickle=False)
    assert (stored.shape, stored.dtype) == (shape, np.float32)
    about = json.loads((tmp_path / "kernels.json").read_text())
    assert about == {"layer": "conv1", "towers": towers, "channels": shape[1]}
