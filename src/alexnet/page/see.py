"""The See act: what a network is made of, what it answers to a picture, and what its channels and units do with it.

A picture is the square that the preprocessing keeps, (S, S, C) uint8. The network sees its *view*, the middle of it; boxes are
(top, left, bottom, right), the last two excluded. What is answered is JSON: text, finite numbers, lists, dicts and None.

Shape suffixes: B pictures or views, S rows and columns of a picture, C channels, H rows, W columns, K classes.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from itertools import takewhile
from typing import Any, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from alexnet.core.errors import AlexNetError, UsageError, as_text, printable
from alexnet.evaluation.error_rate import mean_log_probability
from alexnet.evaluation.layers import Layer, with_relu_modules
from alexnet.evaluation.predict import Predictor, model_fingerprint, most_probable
from alexnet.evaluation.views import CENTER, TEN, Views, positions, view_of
from alexnet.models import about_model, list_models
from alexnet.models.layers import LocalConv2d
from alexnet.page.images import columns_for, heat, png, sheet
from alexnet.page.room import Room
from alexnet.page.stages import NORMALIZATIONS, layers_of, modules_of, num_towers, stages, tower_of

Pixels = NDArray[np.uint8]

TOP = 5
"""Answers that are given for a picture."""
MOST_BYTES = 24 << 20
"""Bytes of recorded layers that are kept: those of the last pictures, four or so of the network of 2012."""
NORMALIZATION, TOWERS = "normalization", ("tower0", "tower1")
"""What can be switched off besides channels."""
METHODS = ("gradient", "guided_backprop", "integrated_gradients", "grad_cam")
"""How it is found what an answer rests on, besides by covering parts of the picture."""
WHITE = 100
COLORS = ("red", "green", "blue")


# The model -----------------------------------------------------------------------------------------------------------


def model(room: Room) -> dict[str, Any]:
    """The network as the page shows it before there is a picture: its stages with the arithmetic of their shapes, what can be
    asked of it, and what is open beside it."""
    predictor = room.predictor
    network, preprocessing, why_not = predictor.model, predictor.preprocessing, predictor.why_no_answers
    found = stages(network, preprocessing, why_not is None)
    untrained = () if predictor.origin is None else predictor.origin.new
    known = True
    for stage in found:  # from the first layer with random weights on nothing is worth looking at
        known = known and stage["name"] not in untrained
        stage["trained"] = known
        stage["has_maps"], stage["has_units"] = stage["has_maps"] and known, stage["has_units"] and known
    normalized = any(isinstance(module, NORMALIZATIONS) for module in network.modules())
    index = room.index
    return {
        "name": as_text(predictor.name),
        "title": about_model(predictor.name) if predictor.name in list_models() else as_text(predictor.name),
        "classes": [as_text(name) for name in predictor.classes],
        "num_classes": len(predictor.classes),
        "can_answer": why_not is None,
        "why_not": why_not,
        "input": {
            "size": preprocessing.crop,
            "channels": preprocessing.channels,
            "resize": preprocessing.resize,
        },
        "towers": num_towers(network),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "multiply_adds": sum(stage["multiply_adds"] for stage in found),
        "stages": found,
        "switches": {NORMALIZATION: normalized, "towers": 2 if num_towers(network) == 2 else 0},
        "methods": list(METHODS) if why_not is None and find_spec("captum") else [],
        "data": _data(room),
        "index": None if index is None else {"images": len(index), "codes": index.meta.get("kind") == "codes"},
        "fingerprint": fingerprint(predictor),
    }


@lru_cache(maxsize=1)
def fingerprint(predictor: Predictor) -> str:
    """:func:`model_fingerprint`, computed once: it reads all weights."""
    return model_fingerprint(predictor)


def _data(room: Room) -> dict[str, Any] | None:
    if not room.has_images:
        return None
    return {"name": as_text(room.subject.packed.where), "images": len(room.subject.images)}


# Answers -------------------------------------------------------------------------------------------------------------


def views(room: Room, pixels_SSC: Pixels) -> dict[str, Any]:
    """The paper's ten views of a picture (§4.1), where each lies in the square of ``square`` pixels, what each says, and what
    they say together: the mean of their probabilities."""
    start, predictor = time.monotonic(), room.predictor
    predictor.require_answers()
    x_BCHW = torch.cat(list(_inputs(predictor, pixels_SSC, TEN)))
    with torch.inference_mode():
        log_BK = mean_log_probability(predictor.model.eval(), [x_BCHW], predictor.precision)
    probability_BK, side, crop = log_BK.double().exp(), len(pixels_SSC), predictor.preprocessing.crop
    where = positions(TEN, np.zeros(1, np.int64), side, side, crop)
    places = zip(where.top_BV[0].tolist(), where.left_BV[0].tolist(), where.mirror_BV[0].tolist(), strict=True)
    return {
        "views": [
            {
                "box": [top, left, top + crop, left + crop],
                "mirrored": mirrored,
                "answers": _top(predictor, probability_K),
            }
            for (top, left, mirrored), probability_K in zip(places, probability_BK, strict=True)
        ],
        "square": side,
        "answers": _top(predictor, probability_BK.mean(0)),
        "seconds": time.monotonic() - start,
    }


def input_png(room: Room, pixels_SSC: Pixels) -> bytes:
    """What the network sees of a picture: its view in the middle."""
    (view_SSC,) = view_of(torch.from_numpy(pixels_SSC[None]), room.predictor.preprocessing)
    return png(view_SSC)


def square_png(_room: Room, pixels_SSC: Pixels) -> bytes:
    """The square that the ten views are cut from."""
    return png(pixels_SSC)


def _inputs(predictor: Predictor, pixels_SSC: Pixels, chosen: Views = CENTER) -> Iterator[Tensor]:
    """What the network reads of a picture: (1, C, crop, crop) for each view."""
    return predictor.inputs(torch.from_numpy(np.ascontiguousarray(pixels_SSC[None])), chosen)


def _top(predictor: Predictor, probability_K: Tensor) -> list[dict[str, Any]]:
    """The most probable classes; equal ones in their order."""
    answers = most_probable(probability_K.cpu().numpy(), predictor.classes, TOP)
    return [vars(answer) | {"name": as_text(answer.name)} for answer in answers]


# Maps ----------------------------------------------------------------------------------------------------------------


def layer_of(room: Room, name: str) -> Layer:
    """The layer of this name. :class:`UsageError` for a name that there is not, and for a layer whose weights, or those of one
    before it, are random: there is nothing to see in it."""
    predictor, known = room.predictor, layers_of(room.predictor.model)
    if name not in known:
        raise UsageError(f"no layer is called {printable(name)!r}; the layers are {', '.join(known)}")
    names = [layer.name for layer in trained_layers(room)]
    if predictor.origin is not None and name not in names:
        raise UsageError(
            f"{name} shows nothing, because {predictor.origin.lack}; look at the layers {', '.join(names)}"
        )
    return known[name]


def trained_layers(room: Room) -> list[Layer]:
    """The layers before the first that has random weights: all of a network that was trained."""
    origin, layers = room.predictor.origin, list(layers_of(room.predictor.model).values())
    new = () if origin is None else origin.new
    return list(takewhile(lambda layer: layer.name not in new, layers))


def channel_of(layer: Layer, channel: int) -> int:
    """A channel that the layer has, or :class:`UsageError`."""
    if not 0 <= channel < layer.shape[0]:
        raise UsageError(f"{layer.name} has no channel {channel}; its channels are 0 to {layer.shape[0] - 1}")
    return channel


def recorded_maps(room: Room, pixels_SSC: Pixels) -> Mapping[str, NDArray[np.float32]]:
    """What every layer computes for the view of a picture, by the layer's name: (C, H, W), or (D, 1, 1) of a layer without
    maps. One pass gives all; those of the last pictures are kept, :data:`MOST_BYTES` of them."""
    predictor = room.predictor
    with _KEPT_LOCK:
        kept = _KEPT.setdefault(predictor, OrderedDict())
        key = hashlib.sha256(pixels_SSC.tobytes()).digest()
        if key in kept:
            kept.move_to_end(key)
            return kept[key]
        layers = list(layers_of(predictor.model).values())
        rows = predictor.activations(torch.from_numpy(np.ascontiguousarray(pixels_SSC)[None]), layers)
        maps = {
            layer.name: rows[layer.name].reshape(layer.shape if len(layer.shape) == 3 else (*layer.shape, 1, 1))
            for layer in layers
        }
        for name, map_CHW in maps.items():
            if not np.isfinite(map_CHW).all():
                raise AlexNetError(f"{name}: activations are not finite; take an earlier checkpoint of the network")
        kept[key] = maps
        size = {name: sum(map_CHW.nbytes for map_CHW in maps.values()) for name, maps in kept.items()}
        while len(kept) > 1 and sum(size.values()) > MOST_BYTES:
            del size[kept.popitem(last=False)[0]]
        return maps


_KEPT: WeakKeyDictionary[Predictor, OrderedDict[bytes, Mapping[str, NDArray[np.float32]]]] = WeakKeyDictionary()
_KEPT_LOCK = threading.Lock()


def maps(room: Room, pixels_SSC: Pixels, layer: str) -> dict[str, Any]:
    """The channels of a layer on a picture, and how the sheet of :func:`maps_sheet` is laid out: tiles of ``tile`` pixels,
    ``columns`` in a row, on which ``scale`` is white. Units of a layer without maps are tiles of one pixel."""
    start, map_CHW = time.monotonic(), recorded_maps(room, pixels_SSC)[layer_of(room, layer).name]
    return {
        "layer": layer,
        "shape": list(layer_of(room, layer).shape),
        "columns": columns_for(len(map_CHW)),
        "tile": list(map_CHW.shape[1:]),
        "largest": _numbers(map_CHW.max((1, 2))),
        "mean": _numbers(map_CHW.mean((1, 2))),
        "scale": _scale(map_CHW),
        "seconds": time.monotonic() - start,
    }


def maps_sheet(room: Room, pixels_SSC: Pixels, layer: str) -> bytes:
    """All maps of a layer as one grey picture, one pixel a value."""
    map_CHW = recorded_maps(room, pixels_SSC)[layer_of(room, layer).name]
    return png(sheet(map_CHW, _scale(map_CHW)))


def one_map(room: Room, pixels_SSC: Pixels, layer: str, channel: int) -> dict[str, Any]:
    """One map as numbers, where it is strongest, and what the unit there sees of the view."""
    found = layer_of(room, layer)
    map_HW = recorded_maps(room, pixels_SSC)[layer][channel_of(found, channel)]
    y, x = divmod(int(map_HW.argmax()), map_HW.shape[1])
    return {
        "values": [_numbers(row) for row in map_HW],
        "largest": float(map_HW[y, x]),
        "strongest": [y, x],
        "box": box_of(room, found, y, x),
    }


def box_of(room: Room, layer: Layer, y: int, x: int) -> list[int]:
    """What the unit at a place of a map sees of the view; all of it in a layer that sees the whole."""
    side = room.predictor.preprocessing.crop
    return [0, 0, side, side] if layer.field is None else list(layer.field.box(y, x, side))


def window(room: Room, pixels_SSC: Pixels, layer: str, channel: int, y: int, x: int) -> dict[str, Any]:
    """A place of a map: its value, what of the view it comes from, and in the first convolution the numbers that were read, the
    kernel's weights and the products that were added, channel by channel as the network reads them. ``sum`` is the sum of the
    products and the bias, ``after_relu`` the value once the nonlinearity that follows, if one does, was applied."""
    found = layer_of(room, layer)
    map_HW = recorded_maps(room, pixels_SSC)[layer][channel_of(found, channel)]
    if not (0 <= y < map_HW.shape[0] and 0 <= x < map_HW.shape[1]):
        rows, columns = map_HW.shape
        raise UsageError(f"{layer} has no place {y}, {x}; rows are 0 to {rows - 1}, columns 0 to {columns - 1}")
    return {
        "box": box_of(room, found, y, x),
        "value": float(map_HW[y, x]),
        "products": _products(room, pixels_SSC, found, channel, y, x, float(map_HW[y, x])),
    }


@torch.no_grad()
def _products(
    room: Room, pixels_SSC: Pixels, layer: Layer, channel: int, y: int, x: int, value: float
) -> dict[str, Any] | None:
    """The arithmetic of one place of the first convolution; None of other layers."""
    predictor = room.predictor
    module = modules_of(predictor.model)[layer.name]
    is_first = layer.name == next(iter(layers_of(predictor.model)))
    if not is_first or not isinstance(module, nn.Conv2d | LocalConv2d):
        return None
    (x_1CHW,) = _inputs(predictor, pixels_SSC)
    if isinstance(module, LocalConv2d):
        place = y * layer.shape[2] + x
        k, stride, padding = module.kernel, 1, module.kernel // 2
        kernel, bias = module.weight[place, channel].view(-1, k, k), float(module.bias[place, channel])
    else:
        k, stride, padding = module.kernel_size[0], module.stride[0], int(module.padding[0])
        kernel, bias = module.weight[channel], 0.0 if module.bias is None else float(module.bias[channel])
    read = torch.zeros(kernel.shape, dtype=torch.float32)  # what lies outside the view is zeros
    top, left = y * stride - padding, x * stride - padding
    side = x_1CHW.shape[2]
    rows, columns = (slice(max(at, 0), min(at + k, side)) for at in (top, left))
    read[:, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = x_1CHW[
        0, :, rows, columns
    ].cpu()
    weights = kernel.detach().float().cpu()
    products = read.double() * weights.double()
    order = COLORS if predictor.preprocessing.channel_order == "rgb" else COLORS[::-1]
    return {
        "channels": list(order) if len(read) == 3 else ["grey"] * len(read),
        "input": _cube(read),
        "kernel": _cube(weights),
        "products": _cube(products),
        "bias": bias,
        "sum": float(products.sum()) + bias,
        "after_relu": value,
    }


def _cube(values_CHW: Tensor) -> list[list[list[float]]]:
    return [[_numbers(row.numpy()) for row in plane] for plane in values_CHW]


def _numbers(values: NDArray[np.floating[Any]]) -> list[float]:
    """Numbers with the six digits that a float32 has for sure: a third of the text."""
    return [float(f"{value:.7g}") for value in values.tolist()]


def _scale(map_CHW: NDArray[np.float32]) -> float:
    """The value that is white on a sheet: one in :data:`WHITE` of the layer's values above 0 is larger, so that a few do not
    leave the rest in the dark. 0 if none is above 0."""
    above = map_CHW[map_CHW > 0]
    place = len(above) - 1 - len(above) // WHITE
    return float(np.partition(above, place)[place]) if len(above) else 0.0


# With parts switched off ---------------------------------------------------------------------------------------------


def answers(
    room: Room, pixels_SSC: Pixels, off: Sequence[tuple[str, int]] = (), without: Sequence[str] = ()
) -> dict[str, Any]:
    """What the network answers as it is, and with parts switched off. The channels of ``off``, a layer and a number each, give
    0 everywhere. Of ``without``, ``normalization`` lets all values through unchanged, and ``tower0`` and ``tower1`` set all
    channels of that tower to 0. The network of the room is not touched: a copy that shares its weights is changed.

    Unknown parts: :class:`UsageError`."""
    start, predictor = time.monotonic(), room.predictor
    predictor.require_answers()
    silent, plain = _parts_off(room, off, without)
    inputs = list(_inputs(predictor, pixels_SSC))
    with torch.inference_mode():
        both = [
            mean_log_probability(model, inputs, predictor.precision)[0].double().exp()
            for model in (predictor.model.eval(), _changed(predictor.model, silent, plain))
        ]
    before, after = (_top(predictor, probability_K) for probability_K in both)
    for answer in before:
        answer["probability_after"] = float(both[1][answer["label"]])
    for answer in after:
        answer["probability_before"] = float(both[0][answer["label"]])
    return {"before": before, "after": after, "seconds": time.monotonic() - start}


def _parts_off(room: Room, off: Sequence[tuple[str, int]], without: Sequence[str]) -> tuple[dict[str, set[int]], bool]:
    """The channels of each layer that are to be silent, and whether normalization is to be left out."""
    model = room.predictor.model
    layers = list(layers_of(model).values())
    silent: dict[str, set[int]] = {}
    for name, channel in off:
        layer = layer_of(room, name)
        if layer.name == layers[-1].name:
            raise UsageError(f"the units of {name} are the classes; switch off channels of the layers before it")
        silent.setdefault(name, set()).add(channel_of(layer, channel))
    for part in without:
        if part not in (NORMALIZATION, *TOWERS):
            raise UsageError(
                f"without is {printable(part)!r}; what can be left out is {NORMALIZATION}, {' and '.join(TOWERS)}"
            )
        if part == NORMALIZATION and not any(isinstance(module, NORMALIZATIONS) for module in model.modules()):
            raise UsageError("this network has no normalization that could be switched off")
        if part in TOWERS:
            if num_towers(model) == 1:
                raise UsageError("this network has one tower; there is none to switch off")
            for layer in layers[:-1]:
                own = {c for c in range(layer.shape[0]) if tower_of(model, layer, c) == TOWERS.index(part)}
                silent[layer.name] = silent.get(layer.name, set()) | own
    return silent, NORMALIZATION in without


def _changed(model: nn.Module, silent: Mapping[str, set[int]], plain: bool) -> nn.Module:
    """The network with these channels of its layers at 0, and with ``plain`` without normalization. It shares the weights of
    ``model``, and none of its modules."""
    changed = with_relu_modules(model)
    for path, module in list(changed.named_modules()):
        if plain and isinstance(module, NORMALIZATIONS):
            changed.set_submodule(path, nn.Identity())
    for name, channels in silent.items():
        changed.get_submodule(layers_of(model)[name].path).register_forward_hook(_silence(sorted(channels)))
    return changed


def _silence(channels: list[int]) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        output = output.clone()
        output[:, channels] = 0
        return output

    return hook


# What an answer rests on ---------------------------------------------------------------------------------------------


def saliency(room: Room, pixels_SSC: Pixels, label: int, method: str = METHODS[0]) -> bytes:
    """Color and opacity to lay over the view: what its pixels do for the logit of a class, by one of :data:`METHODS`, of which
    ``docs/inside.md`` tells; blue where they speak against it.

    Raises :class:`UsageError` for an unknown class or method, and where captum is not installed."""
    if method not in METHODS:
        raise UsageError(f"no method is called {printable(method)!r}; the methods are {', '.join(METHODS)}")
    return _heat(room, pixels_SSC, label, method)


def occlusion(room: Room, pixels_SSC: Pixels, label: int) -> bytes:
    """The same by covering: how much the logit of a class falls when a window around a pixel is covered, blue where it rises."""
    return _heat(room, pixels_SSC, label, "occlusion")


def _heat(room: Room, pixels_SSC: Pixels, label: int, method: str) -> bytes:
    predictor = room.predictor
    predictor.require_answers()
    if not 0 <= label < len(predictor.classes):
        raise UsageError(f"no class has the number {label}; they are 0 to {len(predictor.classes) - 1}")
    if find_spec("captum") is None:
        raise UsageError('what an answer rests on is found with captum; install it with pip install "alexnet[probe]"')
    from alexnet.probes import saliency as probe  # late: it brings matplotlib

    (x_1CHW,) = _inputs(predictor, pixels_SSC)
    (map_HW,) = probe.saliency(predictor, x_1CHW, torch.tensor([label]), cast(probe.Method, method))
    return png(heat(map_HW))
