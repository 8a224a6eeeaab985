"""Parts of a packed set as sets of their own: some classes, half of the classes, the images that one run learns from.

Shape suffixes: N images, K classes.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from alexnet.core import rng
from alexnet.core.config import fingerprint
from alexnet.core.errors import UsageError, printable
from alexnet.data.packed import PackedSet, PackedSplit, Subset
from alexnet.training.config import TrainConfig
from alexnet.training.trainer import training_images

Numbers = NDArray[np.int64]


def only_classes(data: PackedSet, label_K: Numbers) -> PackedSet:
    """The images of these classes, numbered anew in this order. The mean image and the colors stay those of all classes."""
    number = {int(label): i for i, label in enumerate(label_K)}
    parts = {}
    for name, split in data.splits.items():
        image_N = np.flatnonzero(np.isin(split.labels, label_K))
        labels = np.array([number[int(label)] for label in split.labels[image_N]], dtype=np.int64)
        parts[name] = Subset(split, image_N, labels)
    return _with_parts(data, parts, [data.classes[label] for label in label_K])


def only_images_of(data: PackedSet, config: TrainConfig) -> PackedSet:
    """The training images that a run of this configuration takes, which depend on its seed, as all training images."""
    split = data.split("train")
    image_N = training_images(len(split), config)
    return _with_parts(data, {**data.splits, "train": Subset(split, image_N, split.labels[image_N])}, data.classes)


def _with_parts(data: PackedSet, parts: dict[str, Any], classes: list[str]) -> PackedSet:
    numbers = {
        name: hashlib.sha256(part.image_N.tobytes()).hexdigest()
        for name, part in parts.items()
        if isinstance(part, Subset)
    }
    meta = data.meta | {"fingerprint": fingerprint([data.fingerprint, classes, numbers])}
    return replace(data, meta=meta, classes=classes, splits=cast(dict[str, PackedSplit], parts))


def class_halves(data: PackedSet, seed: int) -> tuple[PackedSet, PackedSet]:
    """Half of the classes, drawn, to pre-train on, and the other half, which is the task. :class:`UsageError` for fewer than
    four classes."""
    if len(data.classes) < 4:
        raise UsageError(
            f"{printable(data.path)} has {len(data.classes)} classes, but this experiment learns half of the classes first "
            "and then the others: it needs four or more"
        )
    before, after = halves_of(len(data.classes), seed, "claims/classes")
    return only_classes(data, before), only_classes(data, after)


def halves_of(num: int, seed: int, stream: str) -> tuple[Numbers, Numbers]:
    """The numbers below ``num`` in two halves, drawn, each in order; the first is the smaller if they cannot be equal."""
    order_N = rng.permutation(seed, stream, 0, num)
    return np.sort(order_N[: num // 2]), np.sort(order_N[num // 2 :])
