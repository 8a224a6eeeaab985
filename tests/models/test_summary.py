from __future__ import annotations

import pytest

from alexnet.models import create_model
from alexnet.models.summary import Stage, summarize

COUNTS = [
    # name, fields, parameters, multiply-adds
    ("alexnet_2012", {}, 60_965_224, 724_406_816),
    ("alexnet_2012_code", {}, 60_965_224, 724_406_816),
    ("alexnet_caffe", {}, 60_965_224, 724_406_816),
    ("caffenet", {}, 60_965_224, 724_406_816),
    ("alexnet_owt", {}, 61_100_840, 714_188_480),
    ("alexnet_2012_one_tower", {}, 59_798_312, 391_514_384),
    ("alexnet_2012_six_conv", {}, 61_555_304, 745_640_480),
    ("alexnet_2012", {"towers": 1}, 62_378_344, 1_135_256_096),
    ("alexnet_d2l", {}, 46_764_746, 938_146_176),
    ("lenet", {}, 61_706, 416_520),
    ("cifar_13pct", {}, 1_116_490, None),
    ("cifar_13pct", {"input_size": 32}, 1_901_386, None),
    ("cifar_11pct", {}, 2_112_970, None),
    ("cifar_11pct", {"input_size": 32}, 3_672_906, None),
    ("cifar_18pct", {}, 89_578, None),
]


@pytest.mark.parametrize(("name", "fields", "parameters", "multiply_adds"), COUNTS)
def test_totals_are_the_published_ones(name, fields, parameters, multiply_adds):
    model = create_model(name, **fields)
    stages = summarize(model)
    assert sum(stage.parameters for stage in stages) == parameters
    assert sum(p.numel() for p in model.parameters()) == parameters  # no parameter is in two rows or in none
    if multiply_adds:
        assert sum(stage.multiply_adds for stage in stages) == multiply_adds


def test_each_row_of_the_papers_network():
    rows = [(s.name, s.shape, s.parameters, s.multiply_adds) for s in summarize(create_model("alexnet_2012"))]
    assert rows == [
        ("input", (3, 224, 224), 0, 0),
        ("conv1", (96, 55, 55), 34_944, 105_415_200),  # 11 · 11 · 3 · 96 · 55²
        ("norm1", (96, 55, 55), 0, 0),
        ("pool1", (96, 27, 27), 0, 0),
        ("conv2", (256, 27, 27), 307_456, 223_948_800),  # 5 · 5 · 48 · 256 · 27²
        ("norm2", (256, 27, 27), 0, 0),
        ("pool2", (256, 13, 13), 0, 0),
        ("conv3", (384, 13, 13), 885_120, 149_520_384),  # 3 · 3 · 256 · 384 · 13²
        ("conv4", (384, 13, 13), 663_936, 112_140_288),  # 3 · 3 · 192 · 384 · 13²
        ("conv5", (256, 13, 13), 442_624, 74_760_192),  # 3 · 3 · 192 · 256 · 13²
        ("pool5", (256, 6, 6), 0, 0),
        ("fc6", (4096,), 37_752_832, 37_748_736),  # 256 · 36 · 4096
        ("fc7", (4096,), 16_781_312, 16_777_216),
        ("fc8", (1000,), 4_097_000, 4_096_000),
    ]


def test_neurons_are_the_659_272_of_the_true_geometry():
    # §3.5 rounds to 650,000; the paper's own list starts with 253,440, which cannot be 55² maps.
    stages = summarize(create_model("alexnet_2012"))
    layers = [stage for stage in stages if stage.parameters]
    neurons = [stage.shape[0] * (stage.shape[1] * stage.shape[2] if len(stage.shape) == 3 else 1) for stage in layers]
    assert neurons == [290_400, 186_624, 64_896, 64_896, 43_264, 4096, 4096, 1000]
    assert sum(neurons) == 659_272


def test_the_six_layer_network_has_its_sixth_layer_on_the_pooled_maps():
    names = {stage.name: stage for stage in summarize(create_model("alexnet_2012_six_conv"))}
    assert names["conv6"] == Stage(
        "conv6", (256, 6, 6), 256 * 256 * 9 + 256, 256 * 256 * 9 * 36, kernel=3, stride=1, padding=1, groups=1
    )


def test_the_network_is_left_as_it_was():
    model = create_model("lenet").train()
    summarize(model)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
