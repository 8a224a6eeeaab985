"""torchvision's ``alexnet`` and our ``alexnet_owt``: one network, key for key. torchvision itself is not needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from alexnet.core.errors import AlexNetError, printable
from alexnet.interop.state_dict import read_weights
from alexnet.models.alexnet import AlexNet, alexnet_owt
from alexnet.models.folder import load_tensors

LAYERS = {
    "features.0": "conv1",
    "features.3": "conv2",
    "features.6": "conv3",
    "features.8": "conv4",
    "features.10": "conv5",
    "classifier.1": "fc6",
    "classifier.4": "fc7",
    "classifier.6": "fc8",
}
"""torchvision's name of each layer -> ours."""


NAMES = {f"{theirs}.{kind}": f"{ours}.{kind}" for theirs, ours in LAYERS.items() for kind in ("weight", "bias")}
"""torchvision's keys -> ours."""


def from_torchvision(source: Path | Mapping[str, Tensor]) -> AlexNet:
    """``alexnet_owt`` with the weights of a torchvision ``alexnet``, in evaluation mode; as many outputs as they have.

    ``source`` is a state dict or a file of one, written by ``torch.save`` or safetensors; nothing is unpickled. The network's
    input is that of ``default_preprocessing("alexnet_owt")``. Raises :class:`AlexNetError` for other files, and for keys,
    shapes and values that do not fit."""
    if isinstance(source, Path):
        tensors, where = dict(read_weights(source).tensors), printable(source)
    else:
        tensors, where = {key: tensor.detach().clone() for key, tensor in source.items()}, "state dict"
    head = tensors.get("classifier.6.bias")
    num_classes = len(head) if head is not None and head.ndim == 1 and len(head) else 1000
    model = AlexNet(replace(alexnet_owt(), num_classes=num_classes), name="alexnet_owt", seed=None)
    load_tensors(model, {NAMES.get(key, key): tensor for key, tensor in tensors.items()}, where)
    return model.eval()


FREE = ("num_classes", "init", "weight_std", "biases", "dropout_rate")
"""Fields of a configuration that do not change what the weights mean."""


def to_torchvision(model: nn.Module) -> dict[str, Tensor]:
    """The weights of an ``alexnet_owt`` under torchvision's keys, for ``torchvision.models.alexnet().load_state_dict``.
    Raises :class:`AlexNetError` for a network that torchvision's module cannot hold, naming what differs."""
    owt, name = alexnet_owt(), printable(model.name)
    if not isinstance(model, AlexNet):
        raise AlexNetError(f"{name}: torchvision's alexnet cannot hold this network; only alexnet_owt is the same")
    for field, theirs in vars(owt).items():
        if field not in FREE and (ours := getattr(model.config, field)) != theirs:
            raise AlexNetError(
                f"{name}: torchvision's alexnet cannot hold this network, whose {field} is {ours} and not {theirs}; only "
                "alexnet_owt with these fields is the same"
            )
    tensors = model.state_dict()
    return {theirs: tensors[ours].detach().clone() for theirs, ours in NAMES.items()}
