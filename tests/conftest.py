"""Shared fixtures: the folder of real data (tests that need it skip where it is absent), a packed set and a network so small
that a run of some twenty steps takes a second; and one thread for torch."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from alexnet.core.preprocessing import Preprocessing
from alexnet.data.packed import PackedSet
from alexnet.data.prepare import prepare
from alexnet.data.transforms import Augmentation
from alexnet.models import model_config
from alexnet.training.config import TrainConfig
from alexnet.training.optimizer import OptimizerConfig
from alexnet.training.schedule import Cosine

# Processes that tests start are forked from one that has imported this once; any optimizer imports torch._dynamo.
multiprocessing.get_context("forkserver").set_forkserver_preload(
    ["alexnet.recipes.run", "alexnet.cli", "alexnet.parallelize", "torch._dynamo", "torch.utils.tensorboard"]
)
torch.set_num_threads(1)  # small tensors gain nothing from two, and lose much when something else runs on the machine


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data sets: ``$ALEXNET_DATA``, or ``../shared/data`` beside the repository."""
    root = Path(os.environ.get("ALEXNET_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not (root / "README.md").is_file():
        pytest.skip(f"real data not found: set ALEXNET_DATA (looked in {root})")
    return root


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """Three classes told apart by color; 54 training and 12 validation images of 40 x 36 pixels."""
    root = tmp_path_factory.mktemp("tiny")
    random = np.random.default_rng(0)
    for split, num in (("train", 18), ("val", 4)):
        for label, name in enumerate(("blue", "green", "red")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(num):
                pixels = random.integers(0, 120, (36, 40, 3), dtype=np.uint8)
                pixels[..., 2 - label] += 100
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


@pytest.fixture(scope="session")
def tiny_set(tiny_folder, tmp_path_factory) -> PackedSet:
    return prepare(tiny_folder, tmp_path_factory.mktemp("packed") / "set", size=36, workers=1)


@pytest.fixture
def tiny_config(tiny_set) -> TrainConfig:
    """Dropout and all augmentation on: 7 steps an epoch, the last of 6 images."""
    return TrainConfig(
        recipe="tiny",
        network="alexnet_2012",
        model=model_config(
            "alexnet_2012",
            input_size=32,
            conv_channels=(8, 8, 8, 8, 8),
            conv_kernels=(5, 3, 3, 3, 3),
            conv_strides=(2, 1, 1, 1, 1),
            conv_padding=(2, 1, 1, 1, 1),
            fc_units=(16, 16),
            init="he",
            biases=(0.0,) * 8,
        ),
        data=str(tiny_set.path),
        size=36,
        preprocessing=Preprocessing(resize=36, crop=32, scale=1 / 64),
        augmentation=Augmentation(),
        optimizer=OptimizerConfig(lr=0.02),
        schedule=Cosine(warmup=1),
        epochs=3,
        batch_size=8,
        checkpoint_steps=3,
    )
