"""A unit of the network, or a channel of its maps: where it is, what it sees, which pictures excite it most and which would.

What costs much depends on the model and on the images alone. It is computed once and kept in the room's cache.

Shape suffixes: C channels, T kept crops.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from alexnet.core.config import fingerprint
from alexnet.core.errors import AlexNetError, UsageError, as_text
from alexnet.core.runs import read_arrays, write_atomic
from alexnet.data.packed import Subset, training_subset
from alexnet.evaluation.layers import Layer
from alexnet.evaluation.predict import Predictor
from alexnet.page.images import png, row_of_squares
from alexnet.page.room import Room
from alexnet.page.see import channel_of, layer_of
from alexnet.page.stages import field_json, layers_of, modules_of, tower_of
from alexnet.probes import optimal as probe
from alexnet.probes.maps import Patch, field_size, patch_at, patch_pixels, top_patches

IMAGES = 500
"""Most images that are looked through for crops."""
CROPS = 9
BATCH_NUMBERS = 1 << 22
"""Activations that a batch of more than eight images may have."""


def unit(room: Room, layer: str, channel: int, optimal: bool = True) -> dict[str, Any]:
    """What is known of a channel: its tower, how much its kernel looks for color (in the first convolution: the share of its
    energy that is not grey), what a unit of it sees, the crops of the room's images that excite it most, at most one of an
    image, and how much the image excites it that was made to. Without ``optimal`` that image is not made."""
    found = layer_of(room, layer)
    channel_of(found, channel)
    crops, why_not = _crops(room, found, channel)
    wanted = _optimum(room, found, channel) if optimal else None
    return {
        "layer": layer,
        "channel": channel,
        "channels": found.shape[0],
        "tower": tower_of(room.predictor.model, found, channel),
        "selectivity": _selectivity(room, layer, channel),
        "field": field_json(found),
        "crops": None if crops is None else [_crop_json(room, patch) for patch in crops],
        "why_no_crops": why_not,
        "optimal": None
        if wanted is None
        else {
            "activation": float(wanted["activation"]),
            "crop_activation": crops[0].activation if crops else None,
        },
    }


def crops_png(room: Room, layer: str, channel: int) -> bytes:
    """The crops as a row of equal squares, what a unit sees being one; what lies outside the image is grey. None to show:
    :class:`UsageError`."""
    found = layer_of(room, layer)
    crops, why_not = _crops(room, found, channel_of(found, channel))
    if not crops:
        raise UsageError(why_not or "there are no crops to show")
    pieces = patch_pixels(room.predictor, _images(room), found, crops)
    return png(row_of_squares(pieces, field_size(found, room.predictor.preprocessing)))


def optimal_png(room: Room, layer: str, channel: int) -> bytes:
    """The image that excites a unit in the middle of a channel most, as large as what it sees
    (:func:`~alexnet.probes.optimal.optimal_images`)."""
    found = layer_of(room, layer)
    return png(_optimum(room, found, channel_of(found, channel))["pixels"])


def kernel_png(room: Room, layer: str, channel: int) -> bytes:
    """The weights of a channel of the first convolution as pixels: 0 is mid grey, its largest weight is an end of the scale.
    Another layer: :class:`UsageError`."""
    from alexnet.probes.kernels import conv1_kernels
    from alexnet.report.pictures.kernels import shaded

    found = layer_of(room, layer)
    channel_of(found, channel)
    first = _first_convolution(room.predictor.model)
    if layer != first:
        instead = f"only those of {first}" if first else "and this network has none that can"
        raise UsageError(f"the kernels of {layer} cannot be shown as pixels, {instead}")
    kernels_KCRS = conv1_kernels(room.predictor.model, room.predictor.preprocessing)
    return png(shaded(kernels_KCRS[[channel]])[0])


def _first_convolution(model: nn.Module) -> str | None:
    """The first layer, if it is a convolution whose kernels are the same everywhere."""
    name = next(iter(layers_of(model)))
    return name if isinstance(modules_of(model)[name], nn.Conv2d) else None


def _selectivity(room: Room, layer: str, channel: int) -> float | None:
    predictor = room.predictor
    if layer != _first_convolution(predictor.model) or predictor.preprocessing.channels != 3:
        return None
    value = float(_color_selectivity(predictor)[channel])
    return value if np.isfinite(value) else None  # a kernel of zeros has none


@lru_cache(maxsize=1)
def _color_selectivity(predictor: Predictor) -> NDArray[np.float64]:
    from alexnet.probes.kernels import conv1_kernels
    from alexnet.probes.towers import measures_of

    return measures_of(conv1_kernels(predictor.model, predictor.preprocessing)).color_selectivity_K


# Crops ---------------------------------------------------------------------------------------------------------------


def _crops(room: Room, layer: Layer, channel: int) -> tuple[list[Patch] | None, str | None]:
    """The crops that excite a channel most, best first, or none and the reason."""
    if not room.has_images:
        return None, "there are no images to take crops from; start the page with --data"
    try:
        images = _images(room)
        strongest = _strongest(room, layer)
    except AlexNetError as error:  # images of another kind than the network reads, or damaged ones
        return None, str(error)
    paths = images.paths
    rows = zip(*(strongest[name][channel].tolist() for name in ("image", "activation", "unit")), strict=True)
    crops = [
        patch_at(room.predictor, layer, image, paths[image], int(images.labels[image]), activation, at)
        for image, activation, at in rows
        if activation > 0
    ]
    return crops, None if crops else f"none of the {len(images):,} images brings this channel above 0"


def _crop_json(room: Room, patch: Patch) -> dict[str, Any]:
    return {
        "activation": patch.activation,
        "label": as_text(room.subject.packed.classes[patch.label]),
        "box": list(patch.view_box),
    }


@lru_cache(maxsize=1)
def _images(room: Room) -> Subset:
    """The images that are looked through: those of the subject, of more than :data:`IMAGES` a fixed draw."""
    images = room.subject.images
    image_N = training_subset(len(images), IMAGES, seed=0)
    return Subset(images, image_N, images.labels[image_N])


def _strongest(room: Room, layer: Layer) -> dict[str, NDArray[Any]]:
    """For each channel of a layer the images that excite it most, their activation and the place of the unit in the map,
    (C, T) each: from the cache, or computed for all channels in one pass and put there."""
    subject, images = room.subject, _images(room)
    key = fingerprint([subject.packed.fingerprint, subject.images.name, IMAGES, CROPS, room.predictor.precision])
    shape, places = (layer.shape[0], min(CROPS, len(images))), layer.num_units // layer.shape[0]

    def is_whole(arrays: dict[str, NDArray[Any]]) -> bool:
        same = all(arrays[name].shape == shape for name in ("image", "activation", "unit"))
        return same and _within(arrays["image"], len(images)) and _within(arrays["unit"], places)

    def compute() -> dict[str, NDArray[Any]]:
        patches = top_patches(
            room.predictor,
            images,
            layer.name,
            range(layer.shape[0]),
            CROPS,
            batch_size=max(8, min(32, BATCH_NUMBERS // layer.num_units)),
            workers=subject.machine.workers,
        )
        columns = layer.shape[2] if len(layer.shape) == 3 else 1
        return {
            "image": np.array([[patch.image for patch in own.patches] for own in patches]),
            "activation": np.array([[patch.activation for patch in own.patches] for own in patches], np.float32),
            "unit": np.array([[patch.y * columns + patch.x for patch in own.patches] for own in patches]),
        }

    return _kept(room, f"crops-{layer.name}-{key}.npz", is_whole, compute)


def _within(numbers: NDArray[Any], end: int) -> bool:
    return numbers.dtype.kind == "i" and int(numbers.min()) >= 0 and int(numbers.max()) < end


# The image that a unit wants to see ----------------------------------------------------------------------------------


def _optimum(room: Room, layer: Layer, channel: int) -> dict[str, NDArray[Any]]:
    """The best of the images that excite a channel, ``pixels`` (F, F, C), and its ``activation``: from the cache, or computed
    and put there."""
    key = fingerprint(
        [probe.STARTS, probe.STEPS, probe.RATE, probe.MOMENTUM, probe.MAX_CONTRAST, room.predictor.precision]
    )
    shape = (*[probe.frame_of(room.predictor, layer).side] * 2, room.predictor.preprocessing.channels)

    def is_whole(arrays: dict[str, NDArray[Any]]) -> bool:
        return arrays["pixels"].shape == shape and arrays["activation"].shape == ()

    def compute() -> dict[str, NDArray[Any]]:
        (found,) = probe.optimal_images(room.predictor, layer, [channel])
        return {"pixels": found.pixels_TFFC[0], "activation": np.asarray(found.activation_T[0])}

    return _kept(room, f"optimal-{layer.name}-{channel}-{key}.npz", is_whole, compute)


# What is kept --------------------------------------------------------------------------------------------------------

_COMPUTING = threading.Lock()


def _kept(
    room: Room,
    name: str,
    is_whole: Callable[[dict[str, NDArray[Any]]], bool],
    compute: Callable[[], dict[str, NDArray[Any]]],
) -> dict[str, NDArray[Any]]:
    """The arrays in the file called ``name`` of the room's cache; computed, and put there, if it is not there or damaged."""
    file = room.cache / name
    with _COMPUTING:
        with suppress(AlexNetError, KeyError):
            arrays = read_arrays(file)
            if is_whole(arrays):
                return arrays
        arrays = compute()
        with suppress(OSError):  # a full disk keeps nobody from looking
            room.cache.mkdir(parents=True, exist_ok=True)
            write_atomic(file, lambda opened: np.savez(opened, **arrays))  # type: ignore[arg-type]
        return arrays
