"""Whole runs on the ranks of a job, for tests/distributed/test_training.py."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from alexnet.core.device import Machine
from alexnet.core.errors import StoppedError
from alexnet.core.preprocessing import Preprocessing
from alexnet.data.packed import open_packed
from alexnet.distributed.mesh import build_mesh
from alexnet.evaluation.error_rate import evaluate_split
from alexnet.evaluation.views import CENTER
from alexnet.recipes.run import train
from alexnet.training import trainer
from alexnet.training.config import TrainConfig


def on_cpu(**fields: Any) -> Machine:
    return Machine(device=torch.device("cpu"), quiet=True, **fields)


def train_once(
    config: TrainConfig, out: str, machine: dict[str, Any], stop_after: int | None = None, change: bool = False
) -> dict[str, Any]:
    """Train until the end, or until the step at which this rank alone is told to stop."""
    if stop_after is not None and os.environ["RANK"] == "1":
        step = trainer._Trainer._step

        def step_and_stop(self: trainer._Trainer, *args: Any, **options: Any) -> None:
            step(self, *args, **options)
            self.stop.requested = self.progress.step == stop_after

        trainer._Trainer._step = step_and_stop  # type: ignore[method-assign]
    data = open_packed(config.data)
    try:
        return train(config, out, on_cpu(**machine), data=data, resume=True, change=change, report=False)
    except StoppedError as error:
        return {"stopped": str(error)}


def many(jobs: Sequence[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Several calls of :func:`train_once`, one after the other: ranks cost more to start than to train."""
    return [train_once(*job) for job in jobs]


class Squares:
    """Images of which the network below tells the class: (N, 4, 4, 3)."""

    def __init__(self, num: int) -> None:
        self.labels = np.arange(num, dtype=np.int64) * 5 % 3
        self.paths = [f"{i}.png" for i in range(num)]

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index_B: np.ndarray) -> np.ndarray:
        pixels = np.zeros((len(index_B), 4, 4, 3), dtype=np.uint8)
        pixels[np.arange(len(index_B)), ..., self.labels[index_B]] = 100 + index_B[:, None, None] % 100
        pixels[..., 0] += 90 * (index_B % 4 == 1)[:, None, None].astype(np.uint8)  # some are taken for the first class
        return pixels


class Means(torch.nn.Module):
    """The mean of each color is the score of its class."""

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return x_BCHW.mean((2, 3))


def evaluations(nums: Sequence[int], batch_sizes: Sequence[int], layout: str) -> list[dict[str, Any]]:
    """Of every number of images in every batch size: what this rank was told."""
    mesh = build_mesh(layout)  # type: ignore[arg-type]
    told = []
    for num in nums:
        for batch_size in batch_sizes:
            result = evaluate_split(
                Means(),
                Squares(num),
                Preprocessing(resize=4, crop=4, mean="none"),
                None,
                classes=["red", "green", "blue"],
                views=CENTER,
                batch_size=batch_size,
                workers=0,
                mesh=mesh,
            )
            document = result.to_json()
            del document["environment"]
            told.append(document)
    return told
