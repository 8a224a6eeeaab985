"""The networks, by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from alexnet.core.config import from_json, to_json
from alexnet.core.errors import UsageError, perhaps, printable
from alexnet.core.preprocessing import Preprocessing
from alexnet.models.alexnet import (
    AlexNet,
    AlexNetConfig,
    alexnet_2012,
    alexnet_2012_code,
    alexnet_2012_one_tower,
    alexnet_2012_six_conv,
    alexnet_caffe,
    alexnet_d2l,
    alexnet_owt,
    caffenet,
    zfnet,
)
from alexnet.models.cifar import (
    CifarConvConfig,
    CifarConvNet,
    CifarLocalConfig,
    CifarLocalNet,
    cifar_11pct,
    cifar_13pct,
    cifar_18pct,
    cifar_19pct,
)
from alexnet.models.layers import WEIGHT_LAYERS
from alexnet.models.lenet import LeNet, LeNetConfig, lenet
from alexnet.models.network import FeatureMaps, Network

ModelConfig = AlexNetConfig | LeNetConfig | CifarLocalConfig | CifarConvConfig

_NETWORKS: dict[str, Callable[[], ModelConfig]] = {
    network.__name__: network
    for network in (
        alexnet_2012,
        alexnet_2012_code,
        alexnet_2012_one_tower,
        alexnet_2012_six_conv,
        alexnet_caffe,
        caffenet,
        alexnet_owt,
        alexnet_d2l,
        zfnet,
        lenet,
        cifar_13pct,
        cifar_11pct,
        cifar_18pct,
        cifar_19pct,
    )
}


def list_models(filter: str | Sequence[str] = "") -> list[str]:
    """The names that :func:`create_model` knows; with ``filter`` those that it, or one of several, fits: ``"alexnet*"``."""
    filters = [filter] if isinstance(filter, str) else filter
    return [name for name in _NETWORKS if not any(filters) or any(fnmatchcase(name, one) for one in filters)]


def about_model(name: str) -> str:
    """What a named network is, in a sentence."""
    _named(name)
    return re.split(r"[.:](?=\s|$)", " ".join((_NETWORKS[name].__doc__ or "").split()))[0]


def model_config(name: str, **fields: Any) -> ModelConfig:
    """The configuration of a named network with single fields replaced. An unknown name or field, or a value that its
    field does not allow, raises a :class:`UsageError` that names the known ones or the rule."""
    config = _named(name)
    return from_json(type(config), {**to_json(config), **fields}, where=name)


def create_model(
    name: str,
    *,
    seed: int = 0,
    in_chans: int | None = None,
    drop_rate: float | None = None,
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    **fields: Any,
) -> nn.Module:
    """A named network with initial weights; :func:`alexnet.create_model`, which has trained ones too, says what the arguments
    are. Errors are those of :func:`model_config`."""
    if out_indices is not None and not features_only:
        raise UsageError("out_indices needs features_only=True: other networks give logits")
    for given, field, value in (("in_chans", "in_channels", in_chans), ("drop_rate", "dropout_rate", drop_rate)):
        if value is None:
            continue
        if field in fields:
            raise UsageError(f"{given} and {field} are the same; give one of them")
        if field == "dropout_rate" and not hasattr(_named(name), field):
            if value:
                raise UsageError(f"{name} has no dropout: leave drop_rate out, or give 0")
            continue
        fields[field] = value
    network = build_model(model_config(name, **fields), name=name, seed=seed)
    return FeatureMaps(network, out_indices) if features_only else network


def build_model(config: ModelConfig, *, name: str, seed: int | None = 0) -> Network:
    """The network that a configuration describes. With ``seed=None`` its weights have no memory yet (they are on the
    ``meta`` device): for a state dict to be loaded with ``assign=True``."""
    network: Network
    try:
        match config:
            case AlexNetConfig():
                network = AlexNet(config, name=name, seed=seed)
            case LeNetConfig():
                network = LeNet(config, name=name, seed=seed)
            case CifarLocalConfig():
                network = CifarLocalNet(config, name=name, seed=seed)
            case CifarConvConfig():
                network = CifarConvNet(config, name=name, seed=seed)
    except (RuntimeError, MemoryError) as error:  # torch's words for too large
        reason = printable(error).partition("\\n")[0]
        raise UsageError(f"{name}: the network cannot be built, make its sizes smaller ({reason})") from error
    if name in _NETWORKS:
        network.preprocessing = default_preprocessing(name)
    return network


def default_preprocessing(name: str) -> Preprocessing:
    """The input that a named network, its initial weights and its learning rate were made for."""
    match _named(name):
        case LeNetConfig():
            return Preprocessing(resize=28, crop=28, channels=1, mean="none", scale=1 / 255)
        case CifarLocalConfig() | CifarConvConfig() as config:
            return Preprocessing(resize=32, crop=config.input_size)
    if name in ("alexnet_caffe", "caffenet"):
        return Preprocessing(crop=227, mean_at="crop", channel_order="bgr")
    if name == "alexnet_owt":
        return Preprocessing(mean="channel", channel_mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
    if name == "alexnet_d2l":
        return Preprocessing(resize=224, crop=224, channels=1, mean="none", scale=1 / 255)
    return Preprocessing()  # RGB, 0..255, less the mean image (§2)


@dataclass(frozen=True)
class LayerParameters:
    """The parameters of one layer, as the optimizer tells them apart."""

    weights: list[nn.Parameter]
    biases: list[nn.Parameter]
    """Everything that weight decay does not concern: biases and, where a network has them, gains and offsets of
    normalization and slopes of PReLU."""


def layer_parameters(model: nn.Module) -> dict[str, LayerParameters]:
    """All parameters by the layer they belong to, in forward order. What follows a layer (AlexNet's `stage2`, the slope
    of a PReLU) belongs to it."""
    layers: dict[str, LayerParameters] = {}
    for name, module in model.named_children():
        if isinstance(module, WEIGHT_LAYERS):
            layer = layers[name] = LayerParameters([], list(module.parameters()))
            layer.weights.append(layer.biases.pop(0))
        else:
            layer.biases.extend(module.parameters())
    return layers


def layer_shapes(model: nn.Module) -> tuple[dict[str, dict[str, tuple[int, ...]]], dict[str, str]]:
    """The shapes of the tensors of each layer and of what follows it, and the layer that each submodule belongs to, as in
    :func:`layer_parameters`."""
    layers: dict[str, dict[str, tuple[int, ...]]] = {}
    owner: dict[str, str] = {}
    for child, module in model.named_children():
        if isinstance(module, WEIGHT_LAYERS):
            layers[child] = {}
        left_out = isinstance(module, nn.Identity) and child in getattr(model.config, "layer_names", ())
        owner[child] = child if left_out else list(layers)[-1]  # what others have of it belongs to no layer here
        shapes = {f"{child}.{key}": tuple(tensor.shape) for key, tensor in module.state_dict().items()}
        if not left_out:
            layers[owner[child]] |= shapes
    return layers, owner


def _named(name: str) -> ModelConfig:
    if name not in _NETWORKS:
        raise UsageError(
            f"unknown network {printable(name)!r}{perhaps(name, _NETWORKS)}; `alexnet info` lists the networks"
        )
    return _NETWORKS[name]()
