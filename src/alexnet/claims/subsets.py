"""Parts of a packed set as sets of their own: some classes, half of the classes, the images that one run learns from, those on
which settings are chosen.

Shape suffixes: N images, K classes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet.core import rng
from alexnet.core.errors import UsageError, printable
from alexnet.data.packed import PackedSet, Subset, with_parts
from alexnet.training.config import TrainConfig
from alexnet.training.trainer import training_images

Numbers = NDArray[np.int64]

TUNING = "tuning"
"""The split of the training images that are held out for choices."""


def only_classes(data: PackedSet, label_K: Numbers) -> PackedSet:
    """The images of these classes, numbered anew in this order. The mean image and the colors stay those of all classes."""
    number = {int(label): i for i, label in enumerate(label_K)}
    parts = {}
    for name, split in data.splits.items():
        image_N = np.flatnonzero(np.isin(split.labels, label_K))
        labels = np.array([number[int(label)] for label in split.labels[image_N]], dtype=np.int64)
        parts[name] = Subset(split, image_N, labels)
    return with_parts(data, parts, [data.classes[label] for label in label_K])


def with_held_out(data: PackedSet, most: int) -> PackedSet:
    """The set in three splits: ``train``, ``tuning``, which are up to ``most`` of its training images, one in ten at the most,
    and ``test``, the images that are counted. Plateaus and settings are judged on ``tuning`` alone. Which images these are
    does not depend on the seed of a run."""
    split = data.split("train")
    order_N = rng.permutation(0, "claims/held-out", 0, len(split))
    num = min(most, len(split) // 10)
    parts: dict[str, Any] = {
        name: Subset(split, image_N, split.labels[image_N])
        for name, image_N in (("train", np.sort(order_N[num:])), (TUNING, np.sort(order_N[:num])))
    }
    return with_parts(data, parts | {"test": data.split(data.held_out)}, data.classes)


def to_learn_from(data: PackedSet) -> PackedSet:
    """Of a set that :func:`with_held_out` made, what a training may see: it validates on the split ``tuning``, and the images
    that are counted are not in it. Any other set as it is."""
    if TUNING not in data.splits:
        return data
    return replace(data, splits={"train": data.splits["train"], "val": data.splits[TUNING]})


def only_images_of(data: PackedSet, config: TrainConfig) -> PackedSet:
    """The training images that a run of this configuration takes, which depend on its seed, as all training images."""
    split = data.split("train")
    image_N = training_images(len(split), config)
    return with_parts(data, {**data.splits, "train": Subset(split, image_N, split.labels[image_N])}, data.classes)


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
