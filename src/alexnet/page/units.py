"""A unit of the network, or a channel of its maps: where it is, what it sees, which pictures excite it most and which would.

What costs much depends on the model and on the images alone. It is computed once and kept in the room's cache.

Shape suffixes: C channels, T kept crops.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
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
from alexnet.page.see import channel_of, layer_of, trained_layers
from alexnet.page.stages import field_json, layers_of, modules_of, tower_of
from alexnet.page.worker import NotYetError
from alexnet.probes import optimal as probe
from alexnet.probes.maps import Best, Patch, field_size, patch_at, patch_pixels

IMAGES = 500
"""Most images that are looked through for crops."""
CROPS = 9
BATCH = 8
"""Images that are looked at together."""
SECONDS = 0.5
"""How long images are looked through with one question, so that others are answered in between."""


def unit(room: Room, layer: str, channel: int, optimal: bool = True) -> dict[str, Any]:
    """What is known of a channel: its tower, how much its kernel looks for color (in the first convolution: the share of its
    energy that is not grey), what a unit of it sees, the crops of the room's images that excite it most, at most one of an
    image, and how much the image excites it that was made to. Without ``optimal`` that image is not made.

    The images are looked through for :data:`SECONDS` with every question, for all layers at once; as long as ``images`` of them
    are fewer than ``of``, there are neither crops nor a reason why not."""
    found = layer_of(room, layer)
    channel_of(found, channel)
    crops, why_not = _crops(room, found, channel)
    seen, of = progress_of(room)
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
        "images": seen,
        "of": of,
        "optimal": None
        if wanted is None
        else {
            "activation": float(wanted["activation"]),
            "crop_activation": crops[0].activation if crops else None,
        },
    }


def crops_png(room: Room, layer: str, channel: int) -> bytes:
    """The crops as a row of equal squares, what a unit sees being one; what lies outside the image is grey. None to show:
    :class:`UsageError`; :class:`NotYetError` as long as images are looked through."""
    found = layer_of(room, layer)
    crops, why_not = _crops(room, found, channel_of(found, channel))
    if crops is None and why_not is None:
        seen, of = progress_of(room)
        raise NotYetError(f"{seen} of {of} images have been looked through for crops; ask again")
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
    """The crops that excite a channel most, best first, or none and the reason; neither while images are looked through."""
    if not room.has_images:
        return None, "there are no images to take crops from; start the page with --data"
    try:
        images = _images(room)
        best = _strongest(room)
    except AlexNetError as error:  # images of another kind than the network reads, or damaged ones
        return None, str(error)
    if best is None:
        return None, None
    own, paths = best[layer.name], images.paths
    rows = zip(
        own.image_CT[channel].tolist(), own.value_CT[channel].tolist(), own.unit_CT[channel].tolist(), strict=True
    )
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


def look_through(room: Room, progress: Callable[[int, int], object]) -> None:
    """Look through all images now, instead of some with every question. Raises what reading damaged images raises."""
    while room.has_images and _strongest(room) is None:
        progress(*progress_of(room))


def progress_of(room: Room) -> tuple[int, int]:
    """How many images have been looked through, and of how many."""
    return (_looks(room).seen, len(_images(room))) if room.has_images else (0, 0)


class _Looks:
    """The images that excite each channel of each layer most, of those that were looked through: the first ``seen``."""

    def __init__(self, room: Room) -> None:
        self.images, self.seen = _images(room), 0
        self.best = {layer.name: Best(layer.shape[0], CROPS) for layer in trained_layers(room)}

    def go_on(self, room: Room, seconds: float) -> None:
        """Look at some more: at :data:`BATCH` images at least, and for so long."""
        end, n, layers = time.monotonic() + seconds, len(self.images), trained_layers(room)
        while self.seen < n:
            image_B = np.arange(self.seen, self.seen + BATCH)
            pixels_BSSC = torch.as_tensor(self.images.read(image_B.clip(max=n - 1)))  # every pass has the same shape
            rows = room.predictor.activations(pixels_BSSC, layers)
            if bad := [name for name, row_BD in rows.items() if not np.isfinite(row_BD).all()]:
                raise AlexNetError(f"{bad[0]}: activations are not finite; take an earlier checkpoint of the network")
            num = min(BATCH, n - self.seen)
            for layer in layers:
                units_BCU = rows[layer.name][:num].reshape(num, layer.shape[0], -1)
                self.best[layer.name].add(units_BCU.max(2), units_BCU.argmax(2), image_B[:num])
            self.seen += num
            if time.monotonic() >= end:
                break

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {f"{name}/{what}": getattr(best, what) for name, best in self.best.items() for what in Best.ARRAYS}

    def take(self, arrays: dict[str, NDArray[Any]], layers: Sequence[Layer]) -> bool:
        """Take these, of all images, if they are sound."""
        for layer in layers:
            shape, places = (layer.shape[0], min(CROPS, len(self.images))), layer.num_units // layer.shape[0]
            own = {what: arrays[f"{layer.name}/{what}"] for what in Best.ARRAYS}
            sound = _within(own["image_CT"], len(self.images)) and _within(own["unit_CT"], places)
            if not sound or any(array.shape != shape for array in own.values()):
                return False
            for what, array in own.items():
                setattr(self.best[layer.name], what, array)
        self.seen = len(self.images)
        return True


@lru_cache(maxsize=1)
def _looks(room: Room) -> _Looks:
    """What was looked at so far: all, where the cache has it."""
    looks = _Looks(room)
    with suppress(AlexNetError, KeyError):
        looks.take(read_arrays(_crops_file(room)), trained_layers(room))
    return looks


def _crops_file(room: Room) -> Path:
    subject = room.subject
    key = fingerprint([subject.packed.fingerprint, subject.images.name, IMAGES, CROPS, room.predictor.precision])
    return room.cache / f"crops-{key}.npz"


def _strongest(room: Room) -> dict[str, Best] | None:
    """For each layer the images that excite its channels most, from the cache or from one pass for all layers, of which each
    call does some: None until it is done."""
    with _COMPUTING:
        looks = _looks(room)
        if looks.seen < len(looks.images):
            looks.go_on(room, SECONDS)
            if looks.seen == len(looks.images):
                _keep(_crops_file(room), looks.arrays())
        return looks.best if looks.seen == len(looks.images) else None


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
        _keep(file, arrays)
        return arrays


def _keep(file: Path, arrays: dict[str, NDArray[Any]]) -> None:
    with suppress(OSError):  # a full disk keeps nobody from looking
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, lambda opened: np.savez(opened, **arrays))  # type: ignore[arg-type]
