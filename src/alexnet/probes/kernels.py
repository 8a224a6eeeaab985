"""The kernels of the first layer: what the network looks for in the pixels (§6.1, Figure 3); and what the second layer would
look for if the two were linear.

Shape suffixes: K kernels, C channels, R rows, S columns.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from alexnet.core.errors import AlexNetError, UsageError, printable
from alexnet.core.preprocessing import Preprocessing
from alexnet.core.runs import read_array, read_arrays, read_file, write_atomic, write_json
from alexnet.models.folder import read_safetensors
from alexnet.probes.layers import network_layers

ChannelOrder = Literal["rgb", "bgr"]
WEIGHT_FILES = (".npy", ".npz", ".safetensors")
CONV1_KEYS = ("conv1_weight", "conv1.weight", "features.0.weight")
"""Names of conv1's weights in files: by exports from Caffe, by this program, by torchvision."""

MAX_KERNELS, MAX_SIDE = 4096, 64
"""Limits of a file of kernels: pictures, spectra and permutations take memory with their number, and with the square of
their side."""
MAX_ARRAY_BYTES = 1 << 26
"""Limit of the kernels in a NumPy file."""


@dataclass(frozen=True, eq=False)
class Kernels:
    """The kernels of one layer as pictures, the first tower's first."""

    layer: str
    kernels_KCRS: NDArray[np.float32]
    """Channels in the order red, green, blue."""
    num_towers: int
    how: str
    """What the pictures are, in words."""


def conv1_kernels(model: nn.Module, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Weights of the first convolution, channels in the order red, green, blue: (K, C, R, S). The first tower's kernels
    come first. A network without a convolution: :class:`AlexNetError`."""
    conv = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if conv is None:
        raise AlexNetError("the network has no convolution: there are no kernels to show")
    return _in_rgb_order(conv.weight.detach().float().cpu().numpy(), preprocessing.channel_order)


def conv2_patterns(model: nn.Module, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """What the second convolution looks for in the pixels if all between it and the first is taken for linear: each of its
    kernels is the sum of first-layer kernels, weighted, and placed as far apart as its inputs lie. (K, C, R, S), channels
    in the order red, green, blue; for AlexNet 43 x 43 pixels. Nonlinearity, pooling and normalization are left out. A
    network without two convolutions: :class:`AlexNetError`."""
    convs = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d)][:2]
    if len(convs) < 2:
        raise AlexNetError("the network has no second convolution: there are no patterns to show")
    (_, conv1), (name, conv2) = convs
    layers = network_layers(model)
    before = layers[[layer.name for layer in layers].index(name) - 1].field
    if before is None:
        raise AlexNetError(
            f"{name} comes after a layer that sees the whole image: its kernels have no place in the pixels"
        )
    patterns = [
        F.conv_transpose2d(weight_KCRS, kernels_KCRS, stride=before.stride)
        for weight_KCRS, kernels_KCRS in zip(
            conv2.weight.detach().float().cpu().chunk(conv2.groups),
            conv1.weight.detach().float().cpu().chunk(conv2.groups),
            strict=True,
        )
    ]
    return _in_rgb_order(torch.cat(patterns).numpy(), preprocessing.channel_order)


def kernels_of(model: nn.Module, preprocessing: Preprocessing, layer: str | None = None) -> Kernels:
    """The kernels of the first convolution (by default) or the patterns of the second, by the layer's name. Another
    layer: :class:`UsageError` that names the two."""
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)][:2]
    conv1_KCRS = conv1_kernels(model, preprocessing)
    if layer is not None and layer not in names:
        raise UsageError(
            f"the kernels of {printable(layer)!r} cannot be drawn in pixels, only those of {' and '.join(names)}; "
            "`alexnet probe maps` shows what excites any layer"
        )
    config: Any = getattr(model, "config", None)
    num_towers = int(getattr(config, "towers", 1))
    if layer is None or layer == names[0]:
        return Kernels(names[0], conv1_KCRS, num_towers, f"weights of {names[0]}")
    how = f"kernels of {names[1]} as sums of those of {names[0]}; nonlinearity, pooling and normalization left out"
    return Kernels(names[1], conv2_patterns(model, preprocessing), num_towers, how)


def is_weights_file(model: str | Path) -> bool:
    """Whether ``model`` is a file of weights and not a run or a model folder."""
    return Path(model).suffix in WEIGHT_FILES and not Path(model).is_dir()


def read_conv1(file: Path, num_towers: int = 1, channel_order: ChannelOrder = "rgb") -> Kernels:
    """conv1's kernels from a file: a ``.npy`` array (K, C, R, S), or an ``.npz`` or ``.safetensors`` file that has one under
    a usual name. ``channel_order`` is that of the file. Raises :class:`AlexNetError` for a file that is not one, and
    :class:`UsageError` for towers that do not divide the kernels."""
    where = printable(file)
    if file.suffix == ".safetensors":
        arrays: dict[str, Any] = {name: tensor.float().numpy() for name, tensor in read_safetensors(file).items()}
    else:
        arrays = (
            read_arrays(file, MAX_ARRAY_BYTES, CONV1_KEYS)
            if file.suffix == ".npz"
            else {CONV1_KEYS[0]: read_array(io.BytesIO(read_file(file, MAX_ARRAY_BYTES)), file)}
        )
    key = next((key for key in CONV1_KEYS if key in arrays), None)
    if key is None:
        raise AlexNetError(
            f"{where}: holds no kernels of conv1, no array is called {' or '.join(CONV1_KEYS)}; name another file"
        )
    kernels_KCRS = np.asarray(arrays[key])
    if kernels_KCRS.ndim != 4 or kernels_KCRS.shape[1] not in (1, 3) or kernels_KCRS.dtype.kind != "f":
        raise AlexNetError(
            f"{where}: {key} is {kernels_KCRS.dtype} {kernels_KCRS.shape}; kernels are floats (kernels, 1 or 3 channels, "
            "rows, columns)"
        )
    if 0 in kernels_KCRS.shape or len(kernels_KCRS) > MAX_KERNELS or max(kernels_KCRS.shape[2:]) > MAX_SIDE:
        raise AlexNetError(
            f"{where}: {key} has the shape {kernels_KCRS.shape}; it must be 1 to {MAX_KERNELS:,} kernels of 1 to {MAX_SIDE} "
            "pixels a side"
        )
    with np.errstate(over="ignore"):  # seen by the check that follows
        kernels_KCRS = kernels_KCRS.astype(np.float32)
    if not np.isfinite(kernels_KCRS).all():
        raise AlexNetError(f"{where}: {key} holds values that are not finite as float32")
    if num_towers < 1 or len(kernels_KCRS) % num_towers:
        raise UsageError(
            f"{where}: {len(kernels_KCRS)} kernels cannot be the kernels of {num_towers} equal towers; --towers must divide them"
        )
    kernels_KCRS = _in_rgb_order(kernels_KCRS, channel_order)
    return Kernels("conv1", kernels_KCRS, num_towers, "weights of conv1")


def save_kernels(results: Path, model: nn.Module, preprocessing: Preprocessing) -> None:
    """``conv1.npy`` and ``kernels.json`` in ``results``, for the report."""
    kernels_KCRS = conv1_kernels(model, preprocessing)
    write_atomic(results / "conv1.npy", lambda file: np.save(file, kernels_KCRS, allow_pickle=False))
    num_towers = getattr(getattr(model, "config", None), "towers", 1)
    write_json(results / "kernels.json", {"layer": "conv1", "towers": num_towers, "channels": kernels_KCRS.shape[1]})


def _in_rgb_order(kernels_KCRS: NDArray[np.float32], channel_order: ChannelOrder) -> NDArray[np.float32]:
    """A copy of the kernels with their channels in the order red, green, blue."""
    return kernels_KCRS[:, ::-1].copy() if channel_order == "bgr" else kernels_KCRS.copy()
