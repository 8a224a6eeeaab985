"""Weights that a run starts from instead of random ones, taken over layer by layer, by name and shape."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alexnet.core.config import differences, to_json
from alexnet.core.errors import UsageError, printable
from alexnet.core.preprocessing import Preprocessing
from alexnet.evaluation.classes import places
from alexnet.models import build_model
from alexnet.models.layers import WEIGHT_LAYERS
from alexnet.models.states import open_model
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


def load_initial(model: str | Path) -> Initial:
    """The weights in a run directory, a checkpoint of one (``RUN/checkpoint/best``) or a model folder. Raises what
    :func:`~alexnet.models.states.open_model` raises."""
    folder, state = open_model(model)
    made = {} if state is None else state.record()
    return Initial(
        str(model), folder.name, folder.model.state_dict(), folder.preprocessing, tuple(folder.classes), made
    )


def transfer(initial: Initial, config: TrainConfig, classes: Sequence[str]) -> Transfer:
    """Which layers the network of ``config`` takes over for data of these ``classes``: those whose name and shapes, with
    what follows them (normalization, slopes), are the same. The last layer is new unless the classes are the same, and is
    brought to their order; a layer that the source does not have is new. :class:`UsageError` if any other differs, or if
    none fits."""
    place_K = places(classes, initial.classes)
    model = build_model(replace(config.model, num_classes=len(classes)), name=config.network, seed=None)
    layers, owner = _shapes(model)
    head, source = list(layers)[-1], printable(initial.source)
    theirs: dict[str, dict[str, tuple[int, ...]]] = {}
    for key, tensor in initial.tensors.items():
        child = key.partition(".")[0]
        theirs.setdefault(owner.get(child, child), {})[key] = tuple(tensor.shape)
    taken: list[str] = []
    new: dict[str, str] = {}
    for layer, shapes in layers.items():
        if layer not in theirs:
            new[layer] = "the source has none"
        elif layer == head and (len(classes) != len(initial.classes) or (place_K < 0).any()):
            num, before = len(classes), len(initial.classes)
            new[layer] = "other classes" if num == before else f"{num} classes here, {before} there"
        elif other := [key for key in shapes | theirs[layer] if shapes.get(key) != theirs[layer].get(key)]:
            key = other[0]
            here, there = shapes.get(key, "missing"), theirs[layer].get(key, "missing")
            if layer != head:
                raise UsageError(
                    f"{source} ({printable(initial.network)}) is another network than this {config.network}: {key} is "
                    f"{there} there and {here} here; only the last layer may differ"
                )
            new[layer] = f"{key} is {there} there and {here} here"
        else:
            taken.append(layer)
    if not taken:
        raise UsageError(
            f"{source} ({printable(initial.network)}) has no layer of {config.network} ({', '.join(layers)}) that could "
            "be taken over; name a model with such layers"
        )
    tensors = {key: initial.tensors[key] for layer in taken for key in layers[layer]}
    if head in taken:
        tensors |= {key: tensors[key][torch.from_numpy(place_K)] for key in layers[head] if tensors[key].dim()}
    return Transfer(initial, tensors, taken, new, [printable(layer) for layer in theirs if layer not in layers])


def other_input(initial: Initial, config: TrainConfig) -> list[str]:
    """The settings of the preprocessing in which the source differs: its layers know another input."""
    return differences(to_json(initial.preprocessing), to_json(config.preprocessing), "preprocessing")


def _shapes(model: nn.Module) -> tuple[dict[str, dict[str, tuple[int, ...]]], dict[str, str]]:
    """The shapes of the tensors of each layer and of what follows it, and the layer that each submodule belongs to, as in
    :func:`~alexnet.models.layer_parameters`."""
    layers: dict[str, dict[str, tuple[int, ...]]] = {}
    owner: dict[str, str] = {}
    for child, module in model.named_children():
        if isinstance(module, WEIGHT_LAYERS):
            layers[child] = {}
        owner[child] = list(layers)[-1]
        shapes = {f"{child}.{key}": tuple(tensor.shape) for key, tensor in module.state_dict().items()}
        layers[owner[child]] |= shapes
    return layers, owner
