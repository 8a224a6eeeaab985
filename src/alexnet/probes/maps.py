"""What a layer answers to one image, and which images and crops of a data set excite its channels most.

Shape suffixes: N images, B images of a batch, S rows and columns of an image, C channels, H rows, W columns, T kept images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet.core.errors import AlexNetError, UsageError
from alexnet.core.preprocessing import Preprocessing
from alexnet.data.loader import batches
from alexnet.data.transforms import fit
from alexnet.evaluation.error_rate import Split
from alexnet.evaluation.predict import Predictor
from alexnet.models.lrn import kernels_in_use
from alexnet.probes.features import embed
from alexnet.probes.layers import Layer, find_layers

BATCH = 128
Box = tuple[int, int, int, int]
"""(top, left, bottom, right) in pixels, the last two excluded."""


@dataclass(frozen=True, eq=False)
class ImageMaps:
    """The activations of a layer for the center view of one image."""

    layer: Layer
    view_SSC: NDArray[np.uint8]
    """What the network was shown, before preprocessing."""
    activation_CHW: NDArray[np.float32]
    """The activations (C, H, W); (D, 1, 1) for a layer without maps."""

    def strongest(self, num: int) -> list[int]:
        """The channels with the largest activations at any position, largest first; equal ones in their order."""
        return [int(c) for c in np.argsort(-self.activation_CHW.max((1, 2)), kind="stable")[:num]]

    def to_json(self) -> list[dict[str, Any]]:
        """For each channel the largest and the mean activation, the share of positions above zero, where the largest is, and
        what its unit sees."""
        channels = []
        for channel, map_HW in enumerate(self.activation_CHW):
            y, x = divmod(int(map_HW.argmax()), map_HW.shape[1])
            channels.append(
                {
                    "channel": channel,
                    "max": float(map_HW[y, x]),
                    "mean": float(map_HW.mean()),
                    "share_above_zero": float((map_HW > 0).mean()),
                    "y": y,
                    "x": x,
                    "view_box": list(box_of(self.layer, y, x, len(self.view_SSC))),
                }
            )
        return channels


@dataclass(frozen=True)
class Patch:
    """The unit of a channel that one image excites most."""

    image: int
    """Number of the image in its split."""
    path: str
    label: int
    activation: float
    y: int
    x: int
    view_box: Box
    """What the unit sees, in pixels of the network's input, cut at its borders."""
    stored_box: Box
    """The same in pixels of the stored image, brought to the network's ``resize``."""


@dataclass(frozen=True)
class ChannelPatches:
    channel: int
    patches: tuple[Patch, ...]
    """Patches of different images, most exciting first; equally exciting ones in the order of the split."""
    images_above_zero: int
    """In how many images any unit of the channel is above zero. 0 in a layer behind a ReLU: the channel is silent, and the
    order of its patches says nothing."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def maps_of(predictor: Predictor, image: str | Path, layer: str) -> ImageMaps:
    """The activations of a layer for the center view of an image file. Errors are those of ``predict`` and of
    :func:`~alexnet.probes.layers.find_layers`."""
    (found,) = find_layers(predictor.model, [layer])
    pixels_1SSC = torch.from_numpy(predictor.pixels(str(image))[None])
    activation_1D = embed(predictor, pixels_1SSC, [found])[layer]
    if not np.isfinite(activation_1D).all():
        raise AlexNetError(f"{layer}: activations are not finite; take an earlier checkpoint of the network")
    return ImageMaps(found, view_of(pixels_1SSC, predictor.preprocessing)[0], _maps(activation_1D, found)[0])


@torch.no_grad()
def top_patches(
    predictor: Predictor,
    split: Split,
    layer: str,
    channels: Sequence[int],
    k: int = 9,
    *,
    batch_size: int = BATCH,
    workers: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> list[ChannelPatches]:
    """For each of the channels, the ``k`` images of a split that excite a unit of it most, by the center view of every
    image: of each image the unit with the largest activation, the first in reading order among equal ones. Memory does not
    grow with the number of images.

    Raises :class:`UsageError` for an unknown layer or channel, ``k`` below 1 and an empty split, and
    :class:`AlexNetError` for activations that are not finite."""
    (found,), n = find_layers(predictor.model, [layer]), len(split)
    if bad := [channel for channel in channels if not 0 <= channel < found.shape[0]]:
        raise UsageError(f"{layer} has no channel {bad[0]}; its channels are 0 to {found.shape[0] - 1}")
    if not channels or k < 1 or n == 0:
        raise UsageError(f"{len(channels)} channels, the {k} best of {n} images; there must be one of each at least")
    best = _Best(len(channels), k)
    above_zero_C = np.zeros(len(channels), dtype=np.int64)
    batch_size = min(batch_size, n)
    order_N = np.minimum(np.arange(math.ceil(n / batch_size) * batch_size), n - 1)  # every pass has the same shape
    kernels_in_use(predictor.device, build=True)
    for batch in batches(split, order_N, batch_size, workers=workers):
        keep_B = batch.position_B < n
        maps_BCHW = _maps(embed(predictor, batch.pixels_BSSC, [found])[layer], found)[keep_B][:, list(channels)]
        if not np.isfinite(maps_BCHW).all():
            raise AlexNetError(f"{layer}: activations are not finite; take an earlier checkpoint of the network")
        units_BCU = maps_BCHW.reshape(*maps_BCHW.shape[:2], -1)
        best.add(units_BCU.max(2), units_BCU.argmax(2), batch.image_B[keep_B])
        above_zero_C += (units_BCU > 0).any(2).sum(0)
        if progress:
            progress(min(int(batch.position_B[-1]) + 1, n), n)

    columns, preprocessing, paths = (
        (found.shape[2] if len(found.shape) == 3 else 1),
        predictor.preprocessing,
        split.paths,
    )
    start = (preprocessing.resize - preprocessing.crop) // 2

    def patch(image: int, activation: float, unit: int) -> Patch:
        y, x = divmod(unit, columns)
        box = top, left, bottom, right = box_of(found, y, x, preprocessing.crop)
        stored = (top + start, left + start, bottom + start, right + start)
        return Patch(image, paths[image], int(split.labels[image]), activation, y, x, box, stored)

    rows = zip(best.image_CT.tolist(), best.value_CT.tolist(), best.unit_CT.tolist(), strict=True)
    return [
        ChannelPatches(channel, tuple(map(patch, *row)), int(above_zero))
        for channel, row, above_zero in zip(channels, rows, above_zero_C, strict=True)
    ]


def patch_pixels(
    predictor: Predictor, split: Split, layer: Layer, patches: Sequence[Patch]
) -> list[tuple[NDArray[np.uint8], Box]]:
    """What each unit sees: the pixels of the view under its box, (H, W, C), and where they lie in the whole square that its
    receptive field would be, had the image no borders."""
    image_B = np.array([patch.image for patch in patches], dtype=np.int64)
    view_BSSC = view_of(torch.as_tensor(split.read(image_B)), predictor.preprocessing)
    found = []
    for patch, view_SSC in zip(patches, view_BSSC, strict=True):
        top, left, bottom, right = patch.view_box
        y0 = x0 = 0
        if layer.field is not None:
            y0, x0 = (layer.field.offset + i * layer.field.stride for i in (patch.y, patch.x))
        found.append((view_SSC[top:bottom, left:right], (top - y0, left - x0, bottom - y0, right - x0)))
    return found


def field_size(layer: Layer, preprocessing: Preprocessing) -> int:
    """Side of the square that a unit sees, in pixels, borders or not; of the whole input where there is no field."""
    return preprocessing.crop if layer.field is None else layer.field.size


def box_of(layer: Layer, y: int, x: int, view_size: int) -> Box:
    """What unit (y, x) sees of the network's input; everything in a layer without a receptive field."""
    return (0, 0, view_size, view_size) if layer.field is None else layer.field.box(y, x, view_size)


def view_of(pixels_BSSC: torch.Tensor, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """The center view of stored images as pixels: (B, crop, crop, C) uint8."""
    start, crop = (preprocessing.resize - preprocessing.crop) // 2, preprocessing.crop
    view_BSSC = fit(pixels_BSSC.cpu(), preprocessing.resize)[:, start : start + crop, start : start + crop]
    if view_BSSC.is_floating_point():
        view_BSSC = view_BSSC.round().clamp(0, 255).to(torch.uint8)
    pixels: NDArray[np.uint8] = view_BSSC.numpy()
    return pixels


class _Best:
    """The T largest values of each channel seen so far, with their images and units; earlier images first among equals."""

    def __init__(self, num_channels: int, num: int) -> None:
        self.num = num
        self.value_CT = np.empty((num_channels, 0), dtype=np.float32)
        self.unit_CT = np.empty((num_channels, 0), dtype=np.int64)
        self.image_CT = np.empty((num_channels, 0), dtype=np.int64)

    def add(self, value_BC: NDArray[np.float32], unit_BC: NDArray[np.int64], image_B: NDArray[np.int64]) -> None:
        image_BC = np.broadcast_to(image_B[:, None], value_BC.shape)
        value_CT = np.concatenate([self.value_CT, value_BC.T], axis=1)
        order_CT = np.argsort(-value_CT, axis=1, kind="stable")[:, : self.num]
        self.value_CT = np.take_along_axis(value_CT, order_CT, 1)
        self.unit_CT = np.take_along_axis(np.concatenate([self.unit_CT, unit_BC.T], axis=1), order_CT, 1)
        self.image_CT = np.take_along_axis(np.concatenate([self.image_CT, image_BC.T], axis=1), order_CT, 1)


def _maps(activation_BD: NDArray[np.float32], layer: Layer) -> NDArray[np.float32]:
    """(B, C, H, W); units are maps of one position."""
    return activation_BD.reshape(len(activation_BD), *(layer.shape if len(layer.shape) == 3 else (*layer.shape, 1, 1)))
