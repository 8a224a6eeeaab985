"""What tests of several packages share: a data set and a training so small that a run of some twenty steps takes a second,
what a folder holds, a process of one's own. The benchmarks of reliability use it too."""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from alexnet.core.preprocessing import Preprocessing
from alexnet.data.transforms import Augmentation
from alexnet.models import model_config
from alexnet.training.config import TrainConfig
from alexnet.training.optimizer import OptimizerConfig
from alexnet.training.schedule import Cosine


def make_photographs(root: Path, train: int = 18, val: int = 4) -> Path:
    """Three class folders told apart by color, so many images of each: noise of 36 x 40 pixels."""
    random = np.random.default_rng(0)
    for split, num in (("train", train), ("val", val)):
        for label, name in enumerate(("blue", "green", "red")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(num):
                pixels = random.integers(0, 120, (36, 40, 3), dtype=np.uint8)
                pixels[..., 2 - label] += 100
                Image.fromarray(pixels).save(folder / f"{i}.png", compress_level=0)
    return root


def tiny_training(data: Path, **fields: Any) -> TrainConfig:
    """The paper's network, tiny, with dropout and all augmentation on."""
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
        data=str(data),
        size=36,
        preprocessing=Preprocessing(resize=36, crop=32, scale=1 / 64),
        augmentation=Augmentation(),
        schedule=Cosine(warmup=1),
        **({"optimizer": OptimizerConfig(lr=0.02)} | fields),
    )


def script(name: str) -> ModuleType:
    """A script of benchmarks/ as a module: they import one another by name."""
    folder = str(Path(__file__).parents[1] / "benchmarks")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)


class StopAfter:
    """A stop that is requested once so many steps have been looked at."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    @property
    def requested(self) -> bool:
        self.left -= 1
        return self.left < 0


def content(folder: Path) -> dict[str, str]:
    """SHA-256 of every file under a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if not path.is_dir()
    }


def in_child(work: Callable[[], object]) -> int:
    """The process number of a fork that does ``work`` and ends with 0, or 1 after an exception."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return child
