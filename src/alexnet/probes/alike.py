"""Images of a set that a network can hardly tell apart: copies that were scaled, compressed or cut anew, which share no byte.

What "hardly" means is measured on the set itself: some of its images are altered as copies usually are, and two images are alike
if they are as near to each other as most of these copies are to their originals.

Shape suffixes: N images, D dimensions, k neighbors, S rows and columns, C channels.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from alexnet.core import rng
from alexnet.data.packed import ALL, PackedSet
from alexnet.evaluation.layers import find_layers
from alexnet.evaluation.subject import Subject
from alexnet.probes.features import BATCH, cached_features
from alexnet.probes.neighbors import nearest
from alexnet.probes.scan import Directions, Rows

COPIES = 64
"""Images of which copies are made to find the limit."""
WITHIN = 0.9
"""Share of the copies that lie within it."""
NEIGHBORS = 8
"""Most pairs that an image is the first of."""
COPY_SCALE, COPY_QUALITY, COPY_CUT = 0.7, 70, 0.02
"""How a copy is altered: its sides, its JPEG quality, and what is cut off at each border."""


@dataclass(frozen=True)
class Alike:
    """Two images of a set that are alike, and not equal."""

    path: str
    other: str
    kind: Literal["leak", "conflict", "duplicate"]
    """Between splits, between classes of one split, or within one class."""
    distance: float
    """Cosine distance of their features."""


@dataclass(frozen=True)
class Alikes:
    """The pairs of a set, nearest first."""

    pairs: tuple[Alike, ...]
    layer: str
    limit: float
    """Cosine distance up to which images are alike: that of most altered copies from their originals."""
    n: int


def alikes(subject: Subject, layer: str | None = None) -> Alikes:
    """The pairs of images of all splits of a set that are alike by the features of a layer, by default as of
    :func:`alexnet.index`. Equal images, which need no network, are left out. The set and its features are kept in the cache."""
    predictor, packed, images = subject.predictor, subject.packed, subject.packed.images(ALL)
    layer = predictor.usual_layer(layer).name
    with subject.progress(f"{layer} of {len(images):,} images", len(images)) as bar:
        found = cached_features(predictor, packed, ALL, [layer], workers=subject.machine.workers, progress=bar)
    row_ND = Directions(found[layer].matrix(layer))
    limit = _limit(subject, row_ND, layer)
    near = nearest(row_ND, row_ND, NEIGHBORS + 1)
    pairs = []
    for i, (index_k, distance_k) in enumerate(
        zip(near.index_Qk.tolist(), (near.distance_Qk**2 / 2).tolist(), strict=True)
    ):
        for j, distance in zip(index_k, distance_k, strict=True):
            known = i in near.index_Qk[j] and j < i  # said when it was the turn of j
            if j != i and distance <= limit and not known and not _equal(packed, i, j):
                pairs.append(_pair(packed, min(i, j), max(i, j), distance))
    return Alikes(tuple(sorted(pairs, key=lambda pair: pair.distance)), layer, limit, len(images))


def altered(pixels_SSC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy as people make them: cut a little at the borders, scaled down, saved as JPEG with a low quality, scaled up."""
    size, channels = pixels_SSC.shape[0], pixels_SSC.shape[2]
    image = Image.fromarray(pixels_SSC if channels == 3 else pixels_SSC[..., 0])
    cut, small = round(COPY_CUT * size), max(1, round(COPY_SCALE * size))
    file = io.BytesIO()
    image.crop((cut, cut, size - cut, size - cut)).resize((small, small), Image.Resampling.BILINEAR).save(
        file, "JPEG", quality=COPY_QUALITY
    )
    with Image.open(file) as copy:
        return np.asarray(copy.resize((size, size), Image.Resampling.BILINEAR)).reshape(pixels_SSC.shape)


def _limit(subject: Subject, row_ND: Rows, layer: str) -> float:
    image_N = np.sort(rng.permutation(0, "alike/copies", 0, len(subject.packed.images(ALL)))[:COPIES])
    layers, rows = find_layers(subject.predictor.model, [layer]), []
    for start in range(0, len(image_N), BATCH):
        copies = [altered(pixels) for pixels in subject.packed.images(ALL).read(image_N[start : start + BATCH])]
        rows.append(subject.predictor.activations(torch.from_numpy(np.stack(copies)), layers)[layer])
    squared_N = np.square(Directions(np.concatenate(rows))[:] - row_ND[image_N]).sum(axis=1)
    return float(np.quantile(squared_N / 2, WITHIN))


def _equal(packed: PackedSet, i: int, j: int) -> bool:
    first, second = packed.images(ALL).read(np.array([i, j]))
    return bool((first == second).all())


def _pair(packed: PackedSet, i: int, j: int, distance: float) -> Alike:
    images = packed.images(ALL)
    split_N = np.repeat(np.arange(len(packed.splits)), [len(split) for split in packed.splits.values()])
    kind: Literal["leak", "conflict", "duplicate"] = "duplicate"
    if split_N[i] != split_N[j]:
        kind = "leak"
    elif images.labels[i] != images.labels[j]:
        kind = "conflict"
    return Alike(images.paths[i], images.paths[j], kind, distance)
