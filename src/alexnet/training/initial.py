"""Weights that a run starts from instead of random ones, taken over layer by layer, by name and shape."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from alexnet.core.config import differences, from_json, to_json
from alexnet.core.errors import AlexNetError, UsageError, printable
from alexnet.core.preprocessing import Preprocessing
from alexnet.core.runs import write_atomic
from alexnet.evaluation.classes import places
from alexnet.interop.importing import OWN, preprocessing_of_weights, renamed
from alexnet.interop.state_dict import WeightsFile, read_weights
from alexnet.interop.weights import file_of
from alexnet.models import ModelConfig, build_model, layer_shapes
from alexnet.models.folder import folder_of
from alexnet.models.states import open_model, run_of
from alexnet.training.config import TrainConfig


@dataclass(frozen=True, eq=False)
class Initial:
    """Trained weights, and what one must know to go on from them."""

    source: str
    """Where they come from: a path, or what made them."""
    network: str
    tensors: Mapping[str, Tensor]
    """The weights by the names of a state dict, of the whole network or of some of its layers."""
    preprocessing: Preprocessing
    """The input they were trained on."""
    classes: tuple[str, ...] = ()
    """The classes of the last layer, in order; empty if it was not trained."""
    made: Mapping[str, Any] = field(default_factory=dict)
    """How the weights were made, for the record of the run."""
    input_known: bool = True
    """Whether ``preprocessing`` is what they were trained on; of tensors alone it is what is usual for the network."""
    model: ModelConfig | None = None
    """The sizes of the network that they were in, where they are known; by default those that its name stands for."""

    @cached_property
    def fingerprint(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of the tensors, with names and shapes, and of the classes."""
        digest = hashlib.sha256(repr(self.classes).encode("utf-8", "surrogatepass"))
        for name, tensor in sorted(self.tensors.items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Transfer:
    """What a network takes over."""

    initial: Initial
    tensors: dict[str, Tensor]
    """The part of the network's state dict that is taken over."""
    taken: list[str]
    """Layers that the network takes over."""
    new: dict[str, str]
    """Why each other layer of the network starts at random."""
    left: list[str]
    """Layers of the source that the network does not take over."""

    def record(self) -> dict[str, Any]:
        """The transfer as the run's config.json records it."""
        initial = self.initial
        return {
            "source": initial.source,
            "network": initial.network,
            "fingerprint": initial.fingerprint,
            "taken": self.taken,
            "new": self.new,
            "left": self.left,
            **({"made": dict(initial.made)} if initial.made else {}),
        }

    def __str__(self) -> str:
        parts = [f"taken over: {', '.join(self.taken)}"]
        parts += [f"new: {layer} ({reason})" for layer, reason in self.new.items()]
        parts += [f"left there: {', '.join(self.left)}"] if self.left else []
        return f"initial weights of {printable(self.initial.source)}: {'; '.join(parts)}"


FORMAT = "alexnet initial weights 1"
SCALING = ("mean", "mean_at", "channel_mean", "std", "scale", "channel_order")
"""The settings of the preprocessing that decide what numbers the first layer is given, and not of how many pixels."""


def save_initial(initial: Initial, file: Path) -> None:
    """Write weights as a ``.safetensors`` file, atomically, with all that is known of them as its metadata."""
    known = {
        "format": FORMAT,
        "network": initial.network,
        "preprocessing": to_json(initial.preprocessing),
        "classes": initial.classes,
        "made": dict(initial.made),
        "fingerprint": initial.fingerprint,
    }
    content = safetensors.torch.save(dict(initial.tensors), {"alexnet": json.dumps(known)})
    write_atomic(file, lambda opened: opened.write(content))


def load_initial(model: str | Path, network: str | None = None) -> Initial:
    """The weights in a run directory, a checkpoint of one (``RUN/checkpoint/best``), a model folder or a file of weights, that
    of :func:`save_initial` or of another program, or weights in the cache by their name; of an imported model those that came
    with its file. ``network`` is the one that they are for, where a file is that of several.

    Raises what :func:`~alexnet.models.states.open_model`, :func:`~alexnet.interop.state_dict.read_weights` and
    :func:`~alexnet.interop.importing.renamed` raise."""
    path = file_of(model)
    if (part_of := folder_of(path)) is not None:
        model = path = part_of
    if path.exists() and not path.is_dir() and run_of(model) is None:
        file = read_weights(path)
        return _saved(file) or _renamed(str(model), file, network)
    folder, state = open_model(model)
    made = {} if state is None else state.record()
    tensors: Mapping[str, Tensor] = folder.model.state_dict()
    if folder.origin is not None:
        made = {"file": folder.origin.file, "sha256": folder.origin.sha256}
        _, owner = layer_shapes(folder.model)
        tensors = {
            key: value for key, value in tensors.items() if owner[key.partition(".")[0]] not in folder.origin.new
        }
    config: Any = folder.model.config
    return Initial(str(model), folder.name, tensors, folder.preprocessing, tuple(folder.classes), made, model=config)


def _saved(file: WeightsFile) -> Initial | None:
    """What :func:`save_initial` wrote; None for anything else. :class:`AlexNetError` for a damaged file."""
    where = printable(file.path)
    try:
        known = json.loads(file.metadata.get("alexnet", "null"))
        if not isinstance(known, dict) or known.get("format") != FORMAT:
            return None
        initial = Initial(
            str(file.path),
            str(known["network"]),
            file.tensors,
            from_json(Preprocessing, known["preprocessing"], "preprocessing"),
            tuple(map(str, known["classes"])),
            dict(known["made"]),
        )
        sound = initial.fingerprint == known["fingerprint"]
    except (ValueError, TypeError, LookupError, RecursionError, UsageError) as error:
        raise AlexNetError(f"{where}: its metadata are not as this program writes them; make it again") from error
    if not sound:
        raise AlexNetError(f"{where}: damaged, its weights are not those of its fingerprint; make it again")
    return initial


def _renamed(source: str, file: WeightsFile, network: str | None) -> Initial:
    """The weights of another program."""
    named = renamed(file)
    name = network if network in named.networks or not named.networks else named.networks[0]
    assert name is not None
    made = {"sha256": file.sha256, **({"entry": file.entry} if file.entry else {})}
    known = named.of != OWN
    return Initial(source, name, named.tensors, preprocessing_of_weights(name), made=made, input_known=known)


def transfer(initial: Initial, config: TrainConfig, classes: Sequence[str]) -> Transfer:
    """Which layers the network of ``config`` takes over for data of these ``classes``: those whose name and shapes, with
    what follows them (normalization, slopes), are the same. The last layer is new unless the classes are the same, and is
    brought to their order; a layer that the source does not have, or has in other shapes, is new. :class:`UsageError` if none
    fits."""
    place_K = places(classes, initial.classes)
    layers, theirs, new = _compared(initial, config, len(classes))
    head, num, before = list(layers)[-1], len(classes), len(initial.classes)
    if head in theirs and (num != before or (place_K < 0).any()):
        new[head] = f"{num} classes here, {before} there" if before else "the classes there are not known"
        new[head] = "other classes" if num == before else new[head]
    taken = [layer for layer in layers if layer not in new]
    if not taken:
        raise UsageError(f"{misfit(initial, config, len(classes))}; take weights of {config.network}")
    tensors = {key: initial.tensors[key] for layer in taken for key in layers[layer]}
    if head in taken:
        tensors |= {key: tensors[key][torch.from_numpy(place_K)] for key in layers[head] if tensors[key].dim()}
    new = {layer: new[layer] for layer in layers if layer in new}
    return Transfer(initial, tensors, taken, new, [printable(layer) for layer in theirs if layer not in layers])


Shapes = dict[str, dict[str, tuple[int, ...]]]
"""For each layer, the tensors of its own and of what follows it, with their shapes."""


def _compared(initial: Initial, config: TrainConfig, num_classes: int) -> tuple[Shapes, Shapes, dict[str, str]]:
    """The layers of the network, those of the source, and why each of the first that does not fit does not."""
    model = build_model(replace(config.model, num_classes=num_classes), name=config.network, seed=None)
    layers, owner = layer_shapes(model)
    theirs: Shapes = {}
    for key, tensor in initial.tensors.items():
        child = key.partition(".")[0]
        theirs.setdefault(owner.get(child, child), {})[key] = tuple(tensor.shape)
    new: dict[str, str] = {}
    for layer, shapes in layers.items():
        if layer not in theirs:
            new[layer] = "the source has none"
        elif other := [key for key in shapes | theirs[layer] if shapes.get(key) != theirs[layer].get(key)]:
            key = other[0]
            here, there = shapes.get(key, "missing"), theirs[layer].get(key, "missing")
            new[layer] = f"{key} is {there} there and {here} here"
    return layers, theirs, new


def misfit(initial: Initial, config: TrainConfig, num_classes: int | None = None) -> str | None:
    """Why no layer but the last fits, or None if one does: known before the data are, whose classes decide the last one."""
    layers, theirs, new = _compared(initial, config, num_classes or config.model.num_classes)
    inner = list(layers)[:-1]
    if any(layer not in new for layer in inner):
        return None
    why = next((f": {layer}, {new[layer]}" for layer in inner if layer in theirs), "")
    network = printable(initial.network)
    return f"{printable(initial.source)} ({network}) has no layer that fits {config.network}{why}"


def with_input_of(initial: Initial, config: TrainConfig, fixed: Collection[str] = ()) -> tuple[TrainConfig, list[str]]:
    """``config`` with pixels scaled, and channels ordered, as the initial weights know them, and the notes to say of that; where
    the first layer is not taken over, as it is. Fields named in ``fixed``, as ``preprocessing.scale``, stay."""
    if not initial.input_known:
        return config, []
    layers, _, new = _compared(initial, config, config.model.num_classes)
    names = [name for name in SCALING if f"preprocessing.{name}" not in fixed]
    made = replace(config.preprocessing, **{name: getattr(initial.preprocessing, name) for name in names})
    changed = differences(to_json(made), to_json(config.preprocessing), "preprocessing")
    if next(iter(layers)) in new or not changed:
        return config, []
    source = printable(initial.source)
    note = f"note: the input is that of {source}, not that of the recipe {config.recipe} ({', '.join(changed)})"
    return replace(config, preprocessing=made), [note]


def other_input(initial: Initial, config: TrainConfig) -> list[str]:
    """The settings of the preprocessing in which the source differs: its layers know another input."""
    known = initial.preprocessing if initial.input_known else config.preprocessing
    if config.last_layer == "fitted":  # to what the layers compute of images of this size
        known = replace(known, resize=config.preprocessing.resize, crop=config.preprocessing.crop)
    return differences(to_json(known), to_json(config.preprocessing), "preprocessing")
