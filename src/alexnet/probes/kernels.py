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
from alexnet.core.runs import read_array, read_arrays, read_file, sha256_file, write_atomic, write_json
from alexnet.evaluation.finding import Finding
from alexnet.evaluation.layers import network_layers
from alexnet.evaluation.subject import Subject
from alexnet.models.folder import read_safetensors
from alexnet.report.pictures.kernels import SCALES, Scale, draw_kernels

ChannelOrder = Literal["rgb", "bgr"]
WEIGHT_FILES = (".npy", ".npz", ".safetensors")
CONV1_KEYS = ("conv1_weight", "conv1.weight", "features.0.weight")
"""Names of conv1's weights in files: by exports from Caffe, by this program, by torchvision."""

MAX_KERNELS, MAX_SIDE = 4096, 64
"""Limits of a file of kernels: pictures, spectra and permutations take memory with their number, and with the square of
their side."""
MAX_ARRAY_BYTES = 1 << 26
"""Limit of the kernels in a NumPy file."""


TITLE = "Kernels, tower by tower"
SENTENCE = (
    "The weights of a layer as pictures (Figure 3 of the paper). Long training on photographs makes edges, gratings and spots of "
    "color of large kernels; small ones look like noise even where a network has learned."
)


@dataclass(frozen=True, kw_only=True)
class KernelSettings:
    """Which kernels are meant. A file of weights may stand for the model: .npy, .npz or .safetensors with conv1's weights
    (K, C, rows, columns)."""

    layer: str | None = None
    """conv1, or conv2 as the sum of conv1's kernels that it is if the network were linear between them."""
    towers: int | None = None
    """Equal towers in a file of weights; 1 by default."""
    channel_order: ChannelOrder | None = None
    """Order of the color channels in a file of weights; rgb by default."""


@dataclass(frozen=True, kw_only=True)
class Settings(KernelSettings):
    """The kernels of the first layer as pictures, tower below tower (Figure 3).

    alexnet probe kernels runs/mine --scale common

    alexnet probe kernels caffenet.npz --channel-order bgr --out kernels/
    """

    scale: Scale = "each"
    """Each kernel on its own scale, or one scale for all."""


def measure(subject: Subject, settings: Settings) -> Finding:
    """The kernels of a layer, and how large their weights are."""
    kernels, of = named_kernels(subject, settings)
    num, channels, rows, columns = kernels.kernels_KCRS.shape
    peak_K = np.abs(kernels.kernels_KCRS).max((1, 2, 3)).astype(float)
    scaling = SCALES[settings.scale]
    return Finding(
        subject=of,
        n=num,
        summary={"layer": kernels.layer, "kernels": num, "towers": kernels.num_towers, "scale": scaling},
        body={
            "layer": kernels.layer,
            "shape": [num, channels, rows, columns],
            "towers": kernels.num_towers,
            "largest_weight": float(peak_K.max()),
            "largest_weights": peak_K.tolist(),
        },
        protocol={"pictures": kernels.how, "channel_order": "rgb", "scale": settings.scale, "scaling": scaling},
        lines=[
            f"{kernels.layer}: {num} kernels of {rows} x {columns} pixels in {kernels.num_towers} tower(s); {kernels.how}",
            f"largest weights from {peak_K.min():.3g} to {peak_K.max():.3g}; {scaling}",
        ],
        pictures={
            "kernels.png": draw_kernels(
                kernels.kernels_KCRS, kernels.num_towers, layer=kernels.layer, how=kernels.how, scale=settings.scale
            )
        },
    )


def named_kernels(subject: Subject, settings: KernelSettings) -> tuple[Kernels, dict[str, Any]]:
    """The kernels of the model or file of weights that the subject names, and whose they are, for a document."""
    path = Path(subject.model)
    if is_weights_file(path):
        if settings.layer not in (None, "conv1"):
            raise UsageError(f"--layer is {printable(settings.layer)}; a file of weights is read for conv1 only")
        kernels = read_conv1(path, 1 if settings.towers is None else settings.towers, settings.channel_order or "rgb")
        return kernels, {"network": path.name, "model": sha256_file(path), "data": None}
    for name, value in (("--towers", settings.towers), ("--channel-order", settings.channel_order)):
        if value is not None:
            raise UsageError(f"{name} is for a file of weights; a run or a model folder knows its own")
    predictor = subject.predictor
    return kernels_of(predictor.model, predictor.preprocessing, settings.layer), subject.record(None)


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
        arrays: dict[str, Any] = {name: tensor.float().numpy() for name, tensor in read_safetensors(file)[0].items()}
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
