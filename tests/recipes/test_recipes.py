"""Recipes say what the paper, its program and their successors did, and their settings survive the run's config.json."""

from __future__ import annotations

import json

import pytest

from alexnet.core.config import from_json, to_json
from alexnet.core.errors import UsageError
from alexnet.models import list_models
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
