"""Recipes say what the paper, its program and their successors did, and their settings survive the run's config.json."""

from __future__ import annotations

import json

import pytest

from alexnet.claims.scales import smoke
from alexnet.core.config import from_json, to_json
from alexnet.core.errors import UsageError
from alexnet.models import list_models
from alexnet.models.alexnet import AlexNetConfig
from alexnet.recipes import RECIPES, recipe
from alexnet.training.config import TrainConfig
from alexnet.training.schedule import Plateau, Staged


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_json_and_names_itself_and_a_known_network(name):
    config = recipe(name)
    assert config.recipe == name
    assert config.network in list_models()
    assert from_json(TrainConfig, json.loads(json.dumps(to_json(config)))) == config
    assert f"alexnet train {name}" in (RECIPES[name].__doc__ or "")


@pytest.mark.parametrize("name", RECIPES)
def test_network_and_preprocessing_agree(name):
    config = recipe(name)
    assert config.model.input_size == config.preprocessing.crop
    assert config.model.in_channels == config.preprocessing.channels


def unread_pixels(model: AlexNetConfig) -> list[int]:
    """Rows (and columns) at the end of each pool's input that none of its windows reads; negative: zeros that it reads beyond."""
    side, left = model.input_size + model.overhang_pixels(), []
    for kernel, stride, padding, stage in zip(
        model.conv_kernels, model.conv_strides, model.conv_padding, model.stages, strict=True
    ):
        left.append((side + 2 * padding - kernel) % stride - (model.overhang_pixels() if not left else 0))
        side = (side + 2 * padding - kernel) // stride + 1
        if "pool" in stage:
            left.append((side - model.pool_size) % model.pool_stride)
            side = (side - model.pool_size) // model.pool_stride + 1
    return left


@pytest.mark.parametrize("config", [recipe("quickstart"), smoke().network], ids=["quickstart", "claims at smoke"])
def test_networks_of_our_own_read_their_input_evenly(config):
    # Else every map of what an answer rests on leans to the upper left.
    assert not any(unread_pixels(config.model))


def test_the_paper_network_reads_three_zeros_beyond_the_edge_and_its_pools_leave_nothing_out():
    # 224 + 3 pixels give 55; 55 to 27, 27 to 13 and 13 to 6 are exact.
    assert unread_pixels(recipe("paper2012").model) == [-3, 0, 0, 0, 0, 0, 0, 0]


def test_paper2012_is_section_5():
    config = recipe("paper2012")
    assert (config.batch_size, config.epochs) == (128, 90)
    assert (config.optimizer.lr, config.optimizer.momentum, config.optimizer.weight_decay) == (0.01, 0.9, 0.0005)
    assert config.optimizer.kind == "paper"
    assert config.optimizer.bias_lr is None  # "an equal learning rate for all layers"
    assert config.schedule == Plateau(factor=0.1, patience=5, drops=3)
    assert config.preprocessing.mean == "image"
    assert config.preprocessing.scale == 1.0
    assert config.augmentation.color_noise == 0.1


def test_code2012_is_configuration_145():
    config = recipe("code2012")
    assert config.network == "alexnet_2012_code"
    assert config.optimizer.bias_lr == 0.02
    assert config.schedule == Staged()
    assert config.augmentation.crop_draws == "chunk"
    assert config.augmentation.divide_noise


def test_an_unknown_recipe_lists_the_known():
    with pytest.raises(UsageError, match=r"unknown recipe 'paper2013'; the recipes are quickstart, paper2012"):
        recipe("paper2013")
