"""The second act: piles of pictures, and a last layer that tells them apart, fitted to what the layers below it compute.

A head is a few bytes that whoever asks keeps and sends along: a worker that starts again answers as the one before it did.

Shape suffixes: S rows or columns of a square, C channels, H rows and W columns of maps, N pictures, D features, K piles.
"""

from __future__ import annotations

import io
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from alexnet.core.errors import AlexNetError, UsageError, printable, refused
from alexnet.core.parts import alone
from alexnet.evaluation.layers import Layer, network_layers, recorded
from alexnet.evaluation.predict import Predictor
from alexnet.models import ModelConfig, build_model
from alexnet.models.alexnet import AlexNetConfig
from alexnet.models.folder import save_model_folder
from alexnet.page import see
from alexnet.page.room import Room
from alexnet.training.head import Head, fit_head

MOST_PILES, MOST_PICTURES = 100, 1000
"""What a head is fitted to in a few seconds on two cores."""
MOST_LETTERS = 80
"""Of the name of a pile."""
LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True, eq=False)
class Reading:
    """A layer that a head may read, and the network that ends with such a head."""

    layer: Layer
    units: int
    config: ModelConfig

    @property
    def name(self) -> str:
        """fc7 for the units of fc7 as they are halved at test time."""
        return self.layer.name.replace("dropout", "fc")


@dataclass(frozen=True, eq=False)
class Taught:
    """A head: its logits are ``features @ weight_KD.T + bias_K``."""

    names: tuple[str, ...]
    reading: int
    """Which of :func:`readings` it reads."""
    weight_KD: NDArray[np.float32]
    bias_K: NDArray[np.float32]

    def to_bytes(self) -> bytes:
        about = json.dumps({"names": self.names, "reading": self.reading}).encode()
        file = io.BytesIO()
        np.savez(file, about=np.frombuffer(about, np.uint8), weight_KD=self.weight_KD, bias_K=self.bias_K)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Taught:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            about = json.loads(arrays["about"].tobytes())
            return cls(tuple(about["names"]), about["reading"], arrays["weight_KD"], arrays["bias_K"])


@lru_cache(maxsize=2)
def readings(predictor: Predictor) -> tuple[Reading, ...]:
    """What a new last layer can read, as `alexnet train PHOTOS` tries it: the end of the convolutions, then fc6 and fc7 where the
    network has them; of other networks what their last layer reads. Layers with random weights, and what comes after
    them, are left out: :class:`UsageError` if nothing remains."""
    config: Any = predictor.model.config
    configs = [config]
    if isinstance(config, AlexNetConfig) and config.head == "fc":
        fc6, fc7 = config.fc_units
        configs = [replace(config, fc_units=units) for units in dict.fromkeys([(0, 0), (fc6, 0), (fc6, fc7)])]
    new = () if predictor.origin is None else predictor.origin.new
    found = []
    for one in configs:
        network = _headless(predictor, one)
        *below, _ = [name for name, module in network.named_children() if any(True for _ in module.parameters())]
        if not set(below) & set(new):
            found.append(Reading(network_layers(network)[-2], _last(network)[1].in_features, one))
    if not found:
        raise UsageError(
            f"this model cannot be taught, because {', '.join(new)} in it has random weights; serve one whose convolutions are "
            "trained"
        )
    return tuple(found)


def features(room: Room, pixels: NDArray[np.uint8]) -> bytes:
    """What a picture (S, S, C) is in each of :func:`readings`, one after the other: float16."""
    predictor = room.predictor
    choices = readings(predictor)
    with recorded(predictor.model, [one.layer for one in choices]) as outputs:
        predictor.answers([pixels])
    parts = []
    for one in choices:
        value_1CHW = outputs[one.layer.name]
        vector_D = value_1CHW.flatten()
        parts.append(vector_D if len(vector_D) == one.units else value_1CHW.mean((2, 3))[0])
    row_D = torch.cat(parts).float().cpu().numpy()
    if not np.isfinite(row_D).all():
        raise UsageError("what the layers compute of this picture is not finite; take another picture or model")
    return row_D.clip(-LARGEST, LARGEST).astype(np.float16).tobytes()


def teach(room: Room, piles: Sequence[tuple[str, Sequence[bytes]]]) -> tuple[dict[str, Any], bytes]:
    """A head that tells these piles apart, each a name and the :func:`features` of its pictures, and what to say of it: of the
    layers that it may read the one with the lowest loss on pictures that are left out in turn, or the first where no pile has
    two pictures.

    ``error`` is the share of wrong answers among these pictures. Every pile counts as much as the others, however many
    pictures it has. Raises :class:`UsageError` for fewer than two piles, an empty one, and names that do not tell them apart."""
    names = _names([name for name, _ in piles])
    rows = [row for _, pictures in piles for row in pictures]
    if empty := [name for name, (_, pictures) in zip(names, piles, strict=True) if not pictures]:
        raise UsageError(f"the pile {printable(empty[0])} is empty; add a picture to it, or remove it")
    if len(rows) > MOST_PICTURES:
        raise UsageError(
            f"there are {len(rows):,} pictures; at most {MOST_PICTURES:,} are learned from, so remove some"
        )
    choices = readings(room.predictor)
    ends = np.cumsum([one.units for one in choices])
    if any(len(row) != 2 * ends[-1] for row in rows):
        raise UsageError("these features are not of the model that is served; add the pictures again")
    row_ND = np.stack([np.frombuffer(row, np.float16) for row in rows]).astype(np.float32)
    label_N = np.repeat(np.arange(len(piles)), [len(pictures) for _, pictures in piles])
    parts = np.split(row_ND, ends[:-1], axis=1)
    heads = [fit_head(part[:, None], label_N, len(piles), balanced=True) for part in parts]
    best = min(range(len(heads)), key=lambda i: _loss(heads[i]))  # of equal ones the first
    found = heads[best]
    about = {
        "layer": choices[best].name,
        "images": len(rows),
        "error": None if found.chosen is None else found.chosen.left_out.error,
        "piles": [{"name": name, "images": len(own)} for name, (_, own) in zip(names, piles, strict=True)],
    }
    return about, Taught(names, best, found.weight_KD.float().numpy(), found.bias_K.float().numpy()).to_bytes()


def head_answers(room: Room, head: bytes, pixels: NDArray[np.uint8]) -> dict[str, Any]:
    """Which pile a picture (S, S, C) is of: all of them, the most probable first."""
    predictor = taught(room.predictor, head)
    (answers,) = predictor.answers([pixels], top_k=len(predictor.classes))
    return {"answers": [vars(answer) for answer in answers]}


def head_saliency(room: Room, head: bytes, pixels: NDArray[np.uint8], label: int) -> bytes:
    """Where a picture (S, S, C) must change to change the score of a pile most: a PNG file to lay over its center view, the
    gradient through the head and the layers below it. Raises what :func:`~alexnet.page.see.saliency` raises."""
    subject = replace(room.subject)
    vars(subject)["predictor"] = taught(room.predictor, head)
    return see.saliency(replace(room, subject=subject), pixels, label, "gradient")


def keep_head(room: Room, head: bytes) -> dict[str, Any]:
    """Write the network with this head as a model folder, the next of taught-1, taught-2, ... that is free under ``room.keep``.

    Raises :class:`AlexNetError` where the disk does not take it, or another process is just writing there."""
    predictor = taught(room.predictor, head)
    try:
        room.keep.mkdir(parents=True, exist_ok=True)
        with alone(room.keep):
            there = {entry.name for entry in room.keep.iterdir()}
            name = next(f"taught-{i}" for i in range(1, len(there) + 2) if f"taught-{i}" not in there)
            path = (room.keep / name).absolute()
            save_model_folder(
                path, predictor.model, predictor.name, predictor.preprocessing, predictor.classes, predictor.mean
            )
    except OSError as error:
        raise AlexNetError(refused(error, room.keep)) from error
    return {"folder": name, "path": printable(path)}


@lru_cache(maxsize=4)
def taught(predictor: Predictor, head: bytes) -> Predictor:
    """The network as far as the head reads it, then the head, with the piles as its classes. The layers below are not copied."""
    known = Taught.from_bytes(head)
    config = replace(readings(predictor)[known.reading].config, num_classes=len(known.names))
    weight_KD, bias_K = torch.from_numpy(known.weight_KD), torch.from_numpy(known.bias_K)
    network = _with_head(predictor, config, weight_KD, bias_K)
    return replace(predictor, model=network, classes=known.names, state=None, origin=None)


def _names(given: Sequence[str]) -> tuple[str, ...]:
    """The names of piles, with single spaces and one way to write each letter."""
    if len(given) < 2:
        raise UsageError("there is nothing to tell apart in fewer than two piles; add another")
    if len(given) > MOST_PILES:
        raise UsageError(f"there are {len(given)} piles; at most {MOST_PILES} are told apart, so remove some")
    names = []
    for number, name in enumerate(given, 1):
        name = unicodedata.normalize("NFC", " ".join(name.split()))
        if not name:
            raise UsageError(f"pile {number} has no name; give it one")
        if len(name) > MOST_LETTERS:
            raise UsageError(
                f"the name of pile {number} has {len(name)} letters; at most {MOST_LETTERS} are taken, so shorten it"
            )
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):  # ZWJ and such belong to scripts
            raise UsageError(f"the name of pile {number} has letters that cannot be written; give it another")
        if name in names:
            raise UsageError(f"two piles are called {printable(name)}; give one of them another name")
        names.append(name)
    return tuple(names)


def _loss(head: Head) -> float:
    return 0.0 if head.chosen is None else head.chosen.loss_nats


def _headless(predictor: Predictor, config: ModelConfig) -> nn.Module:
    """The network of ``config`` with the weights of the predictor's, and a last layer of zeros for one class."""
    one = replace(config, num_classes=1)
    units = _last(build_model(one, name=predictor.name, seed=None))[1].in_features
    return _with_head(predictor, one, torch.zeros(1, units), torch.zeros(1))


def _with_head(predictor: Predictor, config: ModelConfig, weight_KD: Tensor, bias_K: Tensor) -> nn.Module:
    network = build_model(config, name=predictor.name, seed=None)
    last, _ = _last(network)
    like = next(predictor.model.parameters())
    theirs = predictor.model.state_dict()
    weights = {name: theirs[name] for name in network.state_dict() if name.partition(".")[0] != last}
    weights |= {f"{last}.weight": weight_KD.to(like), f"{last}.bias": bias_K.to(like)}
    network.load_state_dict(weights, assign=True)
    return network.eval()


def _last(network: nn.Module) -> tuple[str, nn.Linear]:
    name, last = list(network.named_children())[-1]
    assert isinstance(last, nn.Linear)
    return name, last
