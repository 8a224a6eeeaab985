"""What a layer answers to one image, and which images and crops of a data set excite its channels most.

Shape suffixes: N images, B images of a batch, S rows and columns of an image, C channels, H rows, W columns, T kept images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from alexnet.core.config import to_json
from alexnet.core.errors import AlexNetError, UsageError, printable
from alexnet.core.preprocessing import Preprocessing
from alexnet.data.loader import batches
from alexnet.evaluation.error_rate import Split
from alexnet.evaluation.finding import Finding
from alexnet.evaluation.layers import Layer, find_layers
from alexnet.evaluation.predict import Predictor
from alexnet.evaluation.subject import ImagesSettings, Subject
from alexnet.evaluation.views import view_of
from alexnet.models.lrn import kernels_in_use
from alexnet.probes.features import POSITIONS
from alexnet.report.pictures.maps import Tile, draw_maps, draw_patches

BATCH = 128
STRONGEST = 8
"""Channels to show where none are named."""
Box = tuple[int, int, int, int]
"""(top, left, bottom, right) in pixels, the last two excluded."""


TITLE = "What the channels answer to"
SENTENCE = "The activations of a layer for one image, and the pieces of the data that excite its channels most."


@dataclass(frozen=True, kw_only=True)
class Settings(ImagesSettings):
    """What a layer answers to an image, and which crops of a data set excite its channels most; either, or both. Without
    --image and --channels: the channels that answer most strongly.

    alexnet probe maps runs/mine

    alexnet probe maps runs/mine --layer conv5 --image cat.jpg

    alexnet probe maps runs/mine --layer conv5 --channels 0 5 9 --top 9
    """

    layer: str | None = None
    """Layer to look at: by default conv5, or the last convolution of a network without one; a wrong name lists all.
    In fully connected layers channels are units, and each sees the whole image."""
    image: str | None = None
    """Image whose activations are drawn, and written to maps.npy."""
    show: int = 40
    """Channels drawn for the image: those with the largest activations."""
    channels: tuple[int, ...] = ()
    """Channels whose most exciting crops are looked for in the data."""
    top: int = 9
    """Crops for each channel, at most one of an image."""

    def __post_init__(self) -> None:
        for name in ("show", "top"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"Settings.{name} is {value}; it must be at least 1")


def measure(subject: Subject, settings: Settings) -> Finding:
    """The maps of an image, and the crops that excite channels most."""
    predictor = subject.predictor
    layer = predictor.usual_layer(settings.layer, "conv5")
    field = layer.field
    body: dict[str, Any] = {
        "layer": layer.name,
        "shape": list(layer.shape),
        "receptive_field": None
        if field is None
        else {"size": field.size, "stride": field.stride, "offset": field.offset},
        "image": None,
    }
    lines, pictures, arrays = [_about(layer)], {}, {}
    if settings.image is not None:
        maps = maps_of(predictor, settings.image, layer.name)
        strongest = maps.strongest(settings.show)
        body["image"] = {"path": settings.image, "drawn": strongest, "channels": maps.to_json()}
        lines.append(_image_line(body["image"]))
        pictures["maps-image.png"] = draw_maps(maps.view_SSC, maps.activation_CHW, strongest, layer=layer.name)
        arrays["maps.npy"] = maps.activation_CHW
    split = subject.images if settings.channels or settings.image is None else None
    if split is not None:
        found = _most_excited(subject, layer, settings)
        body["channels"] = [channel.to_json() for channel in found]
        lines += _patch_lines(found, layer, len(split), chosen=len(found) < layer.shape[0] and not settings.channels)
        pictures["maps-patches.png"] = _patches_picture(subject, layer, found)
    return Finding(
        subject=subject.record(None if split is None else split.name),
        n=0 if split is None else len(split),
        summary={
            "layer": layer.name,
            "a unit sees": "the whole image" if field is None else f"{field.size} x {field.size} pixels",
        },
        body=body,
        protocol={**PROTOCOL, "precision": predictor.precision, "preprocessing": to_json(predictor.preprocessing)},
        lines=lines,
        pictures=pictures,
        arrays=arrays,
    )


PROTOCOL = {
    "view": "center",
    "positions": POSITIONS,
    "boxes": "(top, left, bottom, right), the last two excluded; view_box in pixels of the network's input, cut at its borders, "
    "stored_box in pixels of the stored image at the size of the preprocessing's resize",
}


def _most_excited(subject: Subject, layer: Layer, settings: Settings) -> list[ChannelPatches]:
    """:func:`top_patches` of the channels that are named, or of the :data:`STRONGEST` that answer most strongly."""
    split, channels = subject.images, settings.channels or range(layer.shape[0])
    with subject.progress(f"{layer.name} of {split.name}", len(split)) as bar:
        found = top_patches(
            subject.predictor,
            split,
            layer.name,
            channels,
            settings.top,
            workers=subject.machine.workers,
            progress=bar,
        )
    if settings.channels or len(found) <= STRONGEST:
        return found
    return sorted(found, key=lambda channel: (-channel.patches[0].activation, channel.channel))[:STRONGEST]


def _patches_picture(subject: Subject, layer: Layer, found: Sequence[ChannelPatches]) -> Figure:
    predictor, split = subject.predictor, subject.images
    rows = []
    for channel in found:
        pixels = patch_pixels(predictor, split, layer, channel.patches)
        tiles = [
            Tile(pixels_HWC, place, patch.activation)
            for (pixels_HWC, place), patch in zip(pixels, channel.patches, strict=True)
        ]
        rows.append((f"{'channel' if layer.field else 'unit'} {channel.channel}", tiles))
    size = field_size(layer, predictor.preprocessing)
    title = (
        f"{layer.name} of {predictor.name}: the crops of the {len(split):,} images of {split.name} that excite a channel "
        f"most, one of an image at most; {size} x {size} pixels, what lies outside the image is grey; activations below"
    )
    return draw_patches(rows, size, title=title)


def _about(layer: Layer) -> str:
    """The layer in a line."""
    sees, field = "every unit sees the whole image", layer.field
    if field is not None:
        sees = f"a unit sees {field.size} x {field.size} pixels, {field.stride} from the next, the first from {field.offset} on"
    return f"{layer.name}: {' x '.join(map(str, layer.shape))}; {sees}"


def _image_line(image: Mapping[str, Any]) -> str:
    channels = image["channels"]
    first = ", ".join(f"{c} ({channels[c]['max']:.3g})" for c in image["drawn"][:8])
    active = sum(channel["max"] > 0 for channel in channels)
    return (
        f"{printable(image['path'])}: {active} of {len(channels)} channels have an activation above 0; largest: {first}"
    )


def _patch_lines(found: Sequence[ChannelPatches], layer: Layer, n: int, *, chosen: bool) -> list[str]:
    """``chosen``: the channels were chosen by their activations among those of the layer."""
    lines = [
        f"channel {channel.channel}: above 0 in {channel.images_above_zero:,} of {n:,} images; most in "
        f"{printable(channel.patches[0].path)} ({channel.patches[0].activation:.3g})"
        for channel in found
    ]
    if not chosen:
        return lines
    return [
        f"the {len(found)} of {layer.shape[0]} channels with the largest activations; --channels names others",
        *lines,
    ]


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
    :func:`~alexnet.evaluation.layers.find_layers`."""
    (found,) = find_layers(predictor.model, [layer])
    pixels_1SSC = torch.from_numpy(predictor.pixels(str(image))[None])
    activation_1D = predictor.activations(pixels_1SSC, [found])[layer]
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
    best = Best(len(channels), k)
    above_zero_C = np.zeros(len(channels), dtype=np.int64)
    batch_size = min(batch_size, n)
    order_N = np.minimum(np.arange(math.ceil(n / batch_size) * batch_size), n - 1)  # every pass has the same shape
    kernels_in_use(predictor.device, build=True)
    for batch in batches(split, order_N, batch_size, workers=workers):
        keep_B = batch.position_B < n
        maps_BCHW = _maps(predictor.activations(batch.pixels_BSSC, [found])[layer], found)[keep_B][:, list(channels)]
        if not np.isfinite(maps_BCHW).all():
            raise AlexNetError(f"{layer}: activations are not finite; take an earlier checkpoint of the network")
        units_BCU = maps_BCHW.reshape(*maps_BCHW.shape[:2], -1)
        best.add(units_BCU.max(2), units_BCU.argmax(2), batch.image_B[keep_B])
        above_zero_C += (units_BCU > 0).any(2).sum(0)
        if progress:
            progress(min(int(batch.position_B[-1]) + 1, n), n)

    paths = split.paths

    def patch(image: int, activation: float, unit: int) -> Patch:
        return patch_at(predictor, found, image, paths[image], int(split.labels[image]), activation, unit)

    rows = zip(best.image_CT.tolist(), best.value_CT.tolist(), best.unit_CT.tolist(), strict=True)
    return [
        ChannelPatches(channel, tuple(map(patch, *row)), int(above_zero))
        for channel, row, above_zero in zip(channels, rows, above_zero_C, strict=True)
    ]


def patch_at(
    predictor: Predictor, layer: Layer, image: int, path: str, label: int, activation: float, unit: int
) -> Patch:
    """The patch of an image that the unit numbered ``unit``, in reading order, of each map of a layer sees."""
    preprocessing = predictor.preprocessing
    y, x = divmod(unit, layer.shape[2] if len(layer.shape) == 3 else 1)
    box = top, left, bottom, right = box_of(layer, y, x, preprocessing.crop)
    start = (preprocessing.resize - preprocessing.crop) // 2
    stored = (top + start, left + start, bottom + start, right + start)
    return Patch(image, path, label, activation, y, x, box, stored)


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


class Best:
    """The T largest values of each channel seen so far, with their images and units; earlier images first among equals."""

    ARRAYS = ("image_CT", "value_CT", "unit_CT")

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
