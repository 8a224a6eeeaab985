"""The views of an image that a prediction is averaged over: its center, the paper's ten, or random crops.

Shape suffixes: B images, V views, C channels, H rows, W columns, S rows or columns of a square.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.core import rng
from alexnet.core.errors import UsageError, printable
from alexnet.core.preprocessing import Preprocessing
from alexnet.data.transforms import apply_crops, fit

MAX_RANDOM_VIEWS = 1000


@dataclass(frozen=True)
class Views:
    """Which crops of an image the network sees. ``str`` gives the form :func:`parse_views` reads."""

    kind: Literal["center", "ten", "random"]
    num: int
    seed: int = 0

    def __str__(self) -> str:
        return f"random:{self.num}" if self.kind == "random" else str(self.num)


CENTER = Views("center", 1)
TEN = Views("ten", 10)


def parse_views(text: str, seed: int = 0) -> Views:
    """``1``: the center. ``10``: the paper's ten views (§4.1). ``random:K``: K random crops, each mirrored with
    probability 1/2, drawn from ``seed``. Anything else: :class:`UsageError`."""
    if text == "1":
        return CENTER
    if text == "10":
        return TEN
    kind, _, number = text.partition(":")
    if kind == "random" and re.fullmatch("[1-9][0-9]{0,3}", number) and int(number) <= MAX_RANDOM_VIEWS:
        return Views("random", int(number), seed)
    raise UsageError(
        f"views is {printable(text)!r}; it must be 1 (center), 10 (the paper's ten views) or random:K with K from 1 to "
        f"{MAX_RANDOM_VIEWS}"
    )


@dataclass(frozen=True)
class Positions:
    """Where each view of each image lies, in pixels of the stored image, and whether it is mirrored."""

    top_BV: NDArray[np.int64]
    left_BV: NDArray[np.int64]
    mirror_BV: NDArray[np.bool_]


def positions(views: Views, image_B: NDArray[np.int64], height: int, width: int, crop: int) -> Positions:
    """The views of the images numbered ``image_B``, all of ``height`` x ``width`` pixels.

    Ten views come in the order of the 2012 program (convdata_jpeg.py): top left, top right, center, bottom left, bottom
    right, then the mirror images of these five. Random views depend on (seed, image) alone, and the first k of K are
    the same for any K."""
    bottom, right = height - crop, width - crop
    if views.kind == "random":
        u_BV3 = rng.uniform(views.seed, "views", 0, image_B, 3 * views.num).reshape(-1, views.num, 3)
        top_BV, left_BV = (u_BV3[..., :2] * [bottom + 1, right + 1]).astype(np.int64).transpose(2, 0, 1)
        return Positions(top_BV, left_BV, u_BV3[..., 2] < 0.5)
    center = (bottom // 2, right // 2)
    corners = [(0, 0), (0, right), center, (bottom, 0), (bottom, right)]
    ten = [(top, left, mirror) for mirror in (False, True) for top, left in corners]
    views_V = ten if views.kind == "ten" else [(*center, False)]
    top_BV, left_BV, mirror_BV = (np.tile(np.array(column), (len(image_B), 1)) for column in zip(*views_V, strict=True))
    return Positions(top_BV, left_BV, mirror_BV)


def views_of(
    pixels_BSSC: Tensor,
    image_B: NDArray[np.int64],
    views: Views,
    preprocessing: Preprocessing,
    mean_SSC: Tensor | None,
) -> Iterator[Tensor]:
    """The network's inputs, one view of all images at a time: ``views.num`` times (B, C, crop, crop) float32. Images of
    another number of channels than ``preprocessing`` is for: :class:`UsageError`."""
    if pixels_BSSC.shape[3] != preprocessing.channels:
        raise UsageError(
            f"the images have {pixels_BSSC.shape[3]} channels, the network reads {preprocessing.channels}; "
            "take data of the kind it was trained on"
        )
    size = preprocessing.resize
    where = positions(views, image_B, size, size, preprocessing.crop)
    pixels_BSSC = fit(pixels_BSSC, size)  # once, not once a view
    top_BV, left_BV, mirror_BV = map(torch.from_numpy, (where.top_BV, where.left_BV, where.mirror_BV))
    for top_B, left_B, mirror_B in zip(top_BV.unbind(1), left_BV.unbind(1), mirror_BV.unbind(1), strict=True):
        yield apply_crops(pixels_BSSC, top_B, left_B, mirror_B, preprocessing, mean_SSC)


def view_of(pixels_BSSC: Tensor, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """The center view of stored images as pixels: (B, crop, crop, C) uint8."""
    start, crop = (preprocessing.resize - preprocessing.crop) // 2, preprocessing.crop
    view_BSSC = fit(pixels_BSSC.cpu(), preprocessing.resize)[:, start : start + crop, start : start + crop]
    if view_BSSC.is_floating_point():
        view_BSSC = view_BSSC.round().clamp(0, 255).to(torch.uint8)
    pixels: NDArray[np.uint8] = view_BSSC.numpy()
    return pixels


def random_views_of(
    images_HWC: Sequence[NDArray[np.uint8]],
    views: Views,
    preprocessing: Preprocessing,
    mean_SSC: Tensor | None,
    device: torch.device,
) -> Iterator[Tensor]:
    """Random views over the whole of images of any shape, not only their center squares: ``views.num`` times
    (B, C, crop, crop) float32. All images draw the same numbers, so the answer for one does not depend on the others.
    The mean image knows the center square only: its center is subtracted from every crop."""
    crop, start = preprocessing.crop, (preprocessing.resize - preprocessing.crop) // 2
    if mean_SSC is not None:
        mean_SSC = fit(mean_SSC[None], preprocessing.resize)[0, start : start + crop, start : start + crop]
    preprocessing = replace(preprocessing, resize=crop)  # what follows sees the crops alone
    first_B = np.zeros(1, dtype=np.int64)
    where = [positions(views, first_B, image.shape[0], image.shape[1], crop) for image in images_HWC]
    zero_B = torch.zeros(len(images_HWC), dtype=torch.int64)
    for v in range(views.num):
        corners = [(int(w.top_BV[0, v]), int(w.left_BV[0, v])) for w in where]
        crops = [x[top : top + crop, left : left + crop] for x, (top, left) in zip(images_HWC, corners, strict=True)]
        pixels_BSSC = torch.from_numpy(np.stack(crops)).to(device)
        mirror_B = torch.tensor([bool(w.mirror_BV[0, v]) for w in where])
        yield apply_crops(pixels_BSSC, zero_B, zero_B, mirror_B, preprocessing, mean_SSC)
