"""Pictures to begin with: some of the images that the page has at hand.

Shape suffixes: B images, S rows or columns of a square, C channels.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet.core import rng
from alexnet.core.errors import AlexNetError, as_text
from alexnet.evaluation.views import view_of
from alexnet.page.room import Room
from alexnet.page.worker import Pixels

SAMPLES = 8


def samples(room: Room) -> list[tuple[Pixels, str]]:
    """Up to :data:`SAMPLES` of the room's images with the names of their classes, of as many classes as there are; always the
    same ones. None where there are no images, or none that the network can read."""
    if not room.has_images:
        return []
    predictor, images = room.predictor, room.subject.images
    image_B = chosen(np.asarray(images.labels))
    try:
        pixels_BSSC = torch.as_tensor(images.read(image_B))
    except AlexNetError:  # damaged, or no longer there: the page has drawings of its own
        return []
    if pixels_BSSC.shape[-1] != predictor.preprocessing.channels:
        return []
    preprocessing = predictor.preprocessing
    square_BSSC = view_of(pixels_BSSC, replace(preprocessing, crop=preprocessing.resize))
    names = [as_text(room.subject.packed.classes[label]) for label in images.labels[image_B]]
    return [(Pixels.of(square_SSC), name) for square_SSC, name in zip(square_BSSC, names, strict=True)]


def chosen(label_N: NDArray[np.int64], num: int = SAMPLES) -> NDArray[np.int64]:
    """The numbers of up to ``num`` images: the first of each class in a fixed random order, then the second ones, and so on."""
    order_N = rng.permutation(0, "samples", 0, len(label_N))
    seen: Counter[int] = Counter()
    turns = []  # how many of its class come before it
    for label in label_N[order_N].tolist():
        turns.append(seen[label])
        seen[label] += 1
    return order_N[np.argsort(turns, kind="stable")][:num]


def about(room: Room, pixels_SSC: NDArray[np.uint8]) -> dict[str, Any]:
    """What an upload of the picture would be answered: its most probable classes, or None where there are no classes."""
    predictor = room.predictor
    answers = None if predictor.why_no_answers else [vars(one) for one in predictor.answers([pixels_SSC])[0]]
    return {"width": pixels_SSC.shape[1], "height": pixels_SSC.shape[0], "answers": answers}
