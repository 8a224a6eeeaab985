"""ZFNet against figure 3 of Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks" (2013)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from alexnet.core.preprocessing import Preprocessing
from alexnet.models import create_model, default_preprocessing
from alexnet.models.lrn import LocalResponseNorm
from alexnet.models.summary import summarize
from alexnet.recipes import recipe

LAYERS = {
    # weights + biases, of kernels x height x width x channels, and units x inputs
    "conv1": 96 * 7 * 7 * 3 + 96,
    "conv2": 256 * 5 * 5 * 96 + 256,
    "conv3": 384 * 3 * 3 * 256 + 384,
    "conv4": 384 * 3 * 3 * 384 + 384,
    "conv5": 256 * 3 * 3 * 384 + 256,
    "fc6": 4096 * 6 * 6 * 256 + 4096,
    "fc7": 4096 * 4096 + 4096,
    "fc8": 1000 * 4096 + 1000,
}


def test_shapes_and_parameters_are_those_of_figure_3():
    stages = summarize(create_model("zfnet"))
    assert [(stage.name, stage.shape) for stage in stages] == [
        ("input", (3, 224, 224)),
        ("conv1", (96, 110, 110)),
        ("pool1", (96, 55, 55)),
        ("norm1", (96, 55, 55)),
        ("conv2", (256, 26, 26)),
        ("pool2", (256, 13, 13)),
        ("norm2", (256, 13, 13)),
        ("conv3", (384, 13, 13)),
        ("conv4", (384, 13, 13)),
        ("conv5", (256, 13, 13)),
        ("pool5", (256, 6, 6)),
        ("fc6", (4096,)),
        ("fc7", (4096,)),
        ("fc8", (1000,)),
    ]
    assert {stage.name: stage.parameters for stage in stages if stage.parameters} == LAYERS
    assert sum(LAYERS.values()) == 62_357_608


def test_maps_go_through_relu_then_pooling_then_normalization():
    # "(i) passed through a rectified linear function, (ii) pooled (max within 3x3 regions, using stride 2)
    # and (iii) contrast normalized across feature maps"
    model = create_model("zfnet", fc_units=(8, 8))
    for stage in (model.stage1, model.stage2):
        assert [type(module) for module in stage] == [nn.ReLU, nn.MaxPool2d, LocalResponseNorm]
    assert (model.stage1.pool1.kernel_size, model.stage1.pool1.stride) == (3, 2)
    assert [type(module) for module in model.stage3] == [type(module) for module in model.stage4] == [nn.ReLU]


def test_it_starts_at_a_hundredth_without_biases():
    model = create_model("zfnet", fc_units=(8, 8))
    for name in ("conv1", "conv2", "conv3", "conv4", "conv5"):
        layer = model.get_submodule(name)
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.03)
        assert not layer.bias.any()


def test_it_reads_what_the_paper_of_2012_reads():
    # "resizing the smallest dimension to 256, cropping the center 256x256 region, subtracting the per-pixel mean"
    assert default_preprocessing("zfnet") == Preprocessing(resize=256, crop=224, mean="image")
    assert recipe("zfnet").preprocessing == default_preprocessing("zfnet")


def test_it_learns_six_images_by_heart():
    narrow: dict[str, Any] = {"input_size": 67, "conv_channels": (16, 32, 32, 32, 32), "fc_units": (64, 64)}
    model = create_model("zfnet", **narrow, num_classes=3, init="he")
    x_BCHW = 10 * torch.randn(6, 3, 67, 67, generator=torch.Generator().manual_seed(0))
    label_B = torch.tensor([0, 1, 2, 0, 1, 2])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.003, momentum=0.9)
    for _ in range(20):
        loss = F.cross_entropy(model.eval()(x_BCHW), label_B)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1  # ln 3 = 1.1 by guessing
