"""Rooms around networks with random weights, as the tests of the page need them: no file, no training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alexnet.core.device import Machine
from alexnet.core.preprocessing import Preprocessing
from alexnet.data.packed import PackedSet
from alexnet.evaluation.predict import Predictor
from alexnet.evaluation.subject import Subject
from alexnet.models import create_model, default_preprocessing
from alexnet.models.folder import Origin
from alexnet.page.room import Room

SMALL: dict[str, Any] = {
    "input_size": 64,
    "conv_channels": (8, 8, 12, 12, 8),
    "conv_kernels": (5, 3, 3, 3, 3),
    "conv_strides": (2, 1, 1, 1, 1),
    "fc_units": (12, 12),
    "num_classes": 7,
    "init": "he",
}
"""Fields of an AlexNet whose answers take a millisecond."""


def room_of(
    name: str,
    cache: Path,
    *,
    preprocessing: Preprocessing | None = None,
    new: tuple[str, ...] = (),
    images: PackedSet | None = None,
    **fields: Any,
) -> Room:
    """A room with a named network; ``fields`` are those of its configuration. ``new``: layers that count as untrained.
    ``images``: a set whose validation images give the crops."""
    model = create_model(name, **fields).eval()
    config: Any = model.config
    usual = default_preprocessing(name)
    if preprocessing is None:
        preprocessing = replace(
            usual, crop=config.input_size, resize=config.input_size + usual.resize - usual.crop, scale=1 / 64
        )
    side = preprocessing.resize
    pattern_SS1 = np.add.outer(np.arange(side), 2.0 * np.arange(side))[..., None] % 90
    mean = None
    if preprocessing.mean == "image":
        mean = np.repeat(pattern_SS1 + 60, preprocessing.channels, axis=2).astype(np.float32)
    subject = Subject(model=name, machine=Machine(device=torch.device("cpu"), quiet=True))
    vars(subject)["predictor"] = Predictor(
        name,
        model,
        preprocessing,
        tuple(f"class {k}" for k in range(config.num_classes)),
        mean,
        torch.device("cpu"),
        origin=Origin(file="weights.pth", sha256="0", taken=("conv1",), new=new, seed=0) if new else None,
    )
    if images is not None:
        vars(subject)["packed"] = images
    return Room(subject=subject, has_images=images is not None, index=None, cache=cache, keep=cache)


def picture_for(room: Room, seed: int = 0) -> np.ndarray:
    """Random pixels of the size that the room's network takes: (S, S, C) uint8."""
    preprocessing = room.predictor.preprocessing
    shape = (preprocessing.resize, preprocessing.resize, preprocessing.channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
