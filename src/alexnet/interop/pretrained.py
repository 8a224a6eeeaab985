"""Networks by name, with initial or with trained weights, as users of timm ask for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from alexnet import models
from alexnet.core.console import say
from alexnet.core.errors import UsageError, printable
from alexnet.interop.importing import renamed
from alexnet.interop.state_dict import read_weights
from alexnet.interop.weights import KNOWN, file_of, weights_here
from alexnet.models import model_config
from alexnet.models.hub import is_on_hub


def list_models(filter: str | Sequence[str] = "", pretrained: bool = False) -> list[str]:
    """The names that :func:`create_model` knows; with ``filter`` those that it, or one of several, fits: ``"alexnet*"``; with
    ``pretrained`` those of which trained weights are known by name."""
    trained = {each.network for each in KNOWN}
    return [name for name in models.list_models(filter) if not pretrained or name in trained]


def create_model(name: str, pretrained: bool = False, *, seed: int = 0, **fields: Any) -> nn.Module:
    """A named network, in training mode: ``create_model("alexnet_2012", num_classes=10)``.

    ``fields`` are those of its configuration, and timm's names: ``in_chans`` for ``in_channels``, ``drop_rate`` for
    ``dropout_rate``. With ``num_classes=0`` there is no last layer. With ``features_only=True`` the module gives a list of maps,
    one for each of ``out_indices`` (all of them; the last n; or these numbers), which its ``feature_info`` describes.

    Weights are initial ones, which depend on the configuration and ``seed`` alone. With ``pretrained`` they are trained: those
    that `alexnet weights` lists for this network, if `alexnet weights get` has fetched them. Layers that these do not hold, or
    hold in other shapes, such as the last one for another number of classes, stay initial, and a line on stderr says which.
    Kernels of conv1 are adapted to ``in_chans`` as timm adapts them. Nothing is fetched here.

    Raises what :func:`alexnet.models.model_config` raises for the name and the fields, and with ``pretrained``
    :class:`UsageError` where no trained weights are known or fetched, or no layer of them fits."""
    if is_on_hub(name):
        raise UsageError(
            f"{printable(name)} is a trained model, not a network by name; alexnet.from_pretrained opens it"
        )
    model_config(name)  # or a UsageError that names the known ones
    source = weights_here(name, "alexnet.from_pretrained opens models of your own") if pretrained else None
    network = models.create_model(name, seed=seed, **fields)
    if source is not None:
        _take_over(network, name, source, seed)
    return network


def _take_over(network: nn.Module, name: str, source: str, seed: int) -> None:
    """Give the layers of a network the trained weights that fit, and say which layers keep their initial ones."""
    own = network.state_dict()
    trained = dict(renamed(read_weights(file_of(source))).tensors)
    notes = []
    channels, read = own["conv1.weight"].shape[1], trained["conv1.weight"].shape[1]
    if channels != read:
        trained["conv1.weight"] = _for_channels(trained["conv1.weight"], channels)
        notes.append(
            f"conv1 reads {channels} {'channel' if channels == 1 else 'channels'} with kernels made of those for {read}"
        )
    layers = dict.fromkeys(key.partition(".")[0] for key in own)
    taken = [layer for layer in layers if _fits(layer, own, trained)]
    new = [layer for layer in layers if layer not in taken]
    if not taken:
        raise UsageError(f"no layer of {source} fits {name} with these fields; leave fields out, or pretrained")
    if new:
        notes.append(f"new, with random weights of seed {seed}: {', '.join(new)}")
    if notes:
        say(f"note: {name}: {', '.join(taken)} of {source}; {'; '.join(notes)}")
    network.load_state_dict({key: trained[key] for key in own if key.partition(".")[0] in taken}, strict=False)


def _fits(layer: str, own: Mapping[str, Tensor], trained: Mapping[str, Tensor]) -> bool:
    shapes = {key: tensor.shape for key, tensor in own.items() if key.startswith(f"{layer}.")}
    return all(key in trained and trained[key].shape == shape for key, shape in shapes.items())


def _for_channels(weight_OCHW: Tensor, channels: int) -> Tensor:
    """Kernels for images of so many channels, as timm makes them: for one their sum over the channels, for several the channels
    repeated, and scaled so that their sum is as large as before."""
    C = weight_OCHW.shape[1]
    if channels == 1:
        return weight_OCHW.sum(1, keepdim=True)
    return weight_OCHW.repeat(1, -(-channels // C), 1, 1)[:, :channels] * (C / channels)
