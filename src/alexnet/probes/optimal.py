"""What a unit wants to see: the image that excites it most, found by gradient ascent on the pixels (Erhan et al. 2009), among
images of natural spectrum and color (Olah, Mordvintsev and Schubert 2017), beside the crops of real images that do.

Shape suffixes: K channels to excite, T starts of each, P pictures (K * T), C colors, F rows and columns of a picture, N those of
the canvas that it is cut from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from alexnet.core import rng
from alexnet.core.config import to_json
from alexnet.core.device import autocast
from alexnet.core.errors import UsageError, printable
from alexnet.core.preprocessing import Preprocessing
from alexnet.data.packed import AllSplits, PackedSplit
from alexnet.data.transforms import apply_crops, fit
from alexnet.evaluation.finding import Finding
from alexnet.evaluation.layers import Layer, before_nonlinearity, negated, network_layers, num_towers, tower_of
from alexnet.evaluation.predict import Predictor
from alexnet.evaluation.subject import ImagesSettings, Subject
from alexnet.models.layers import LocalConv2d
from alexnet.models.lrn import MapResponseNorm
from alexnet.probes.maps import Box, ChannelPatches, field_size, patch_pixels, top_patches
from alexnet.report.pictures.maps import Tile
from alexnet.report.pictures.optimal import Row, draw_optimal

Aim = Literal["unit", "channel"]
STEPS = 36
STARTS = 2
TOGETHER = 16
"""Pictures that are climbed in one batch."""
RATE, MOMENTUM = 0.15, 0.5
"""Of Adam: its learning rate, and how much of the average of gradients is kept at a step. Each gradient is of other shifts and
rotations, and with the usual 0.9 the average holds to those of ten steps ago: that takes 48 steps to get as far."""
JITTER = 1 / 16
"""Largest shift, as a share of the side of a picture: 10 of the 163 pixels that a unit of conv5 sees."""
SCALING, ROTATION = 0.05, 5.0
"""Largest change of the scale, and largest rotation in degrees."""
MAX_CONTRAST = 1.0
CONTRAST = 0.01
"""Standard deviation of the coefficients that a start has."""

# Square root of the covariance of red, green and blue in ImageNet, over its largest column (Lucid, Olah et al. 2017).
COLORS_CC = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
COLORS_CC = COLORS_CC / COLORS_CC.norm(dim=0).max()

TITLE = "What a unit wants to see"
SENTENCE = (
    "The images that excite units most, drawn by the network itself, beside the strongest crops of real images, with the "
    "activation of the unit on both."
)
SHOWN = 8
"""Channels to show where none are named."""
CROPS = 4
"""Crops of real images beside the images that a unit wants."""


@dataclass(frozen=True, kw_only=True)
class Settings(ImagesSettings):
    """The image that excites a unit most, by gradient ascent on its pixels, beside the crops of real images that excite it most.

    alexnet probe optimal runs/mine --layer conv5 --channels 0-15

    alexnet probe optimal runs/mine --layer conv1 conv2 conv3 --negative

    alexnet probe optimal runs/mine --layer fc8 --channels cat dog
    """

    layer: tuple[str, ...] = ()
    """Layers, each drawn on a sheet of its own; by default conv5, or the last convolution of a network without one. A wrong
    name lists all."""
    channels: tuple[str, ...] = ()
    """Channels by number, such as 3 or 0-15, and classes by name for the last layer; by default the first eight, or the first
    four of each tower."""
    aim: Aim = "unit"
    """Excite the unit in the middle of the channel's map, or all units of the channel."""
    negative: bool = False
    """Look for what the channels answer least to: the sign of their weights is changed, for images and crops."""
    starts: int = STARTS
    """Images for each channel, from different random starts."""
    seed: int = 0
    """Seed for the starts, shifts, rotations and scales."""

    def __post_init__(self) -> None:
        if self.starts < 1:
            raise ValueError(f"Settings.starts is {self.starts}; it must be at least 1")


def measure(subject: Subject, settings: Settings) -> Finding:
    """The images that units of one or several layers want to see, and the crops of data that excite the same units most."""
    predictor = subject.predictor
    layers = [predictor.usual_layer(name, "conv5") for name in dict.fromkeys(settings.layer) or (None,)]
    chosen = [named_channels(predictor, layer, settings.channels) for layer in layers]
    if settings.negative:
        for layer in layers:
            negated(predictor.model, layer)  # refused before anything is computed
    has_data = subject.data is not None or subject.settings is not None
    split = subject.images if has_data else None
    lines, rows, pictures, arrays = [], [], {}, {}
    for layer, channels in zip(layers, chosen, strict=True):
        found = _layer(subject, layer, channels, settings, split)
        rows.append(found.to_json())
        lines += found.lines()
        sides = found.optima[0].pixels_TFFC.shape[1], field_size(layer, predictor.preprocessing)
        pictures[f"optimal-{layer.name}.png"] = draw_optimal(found.sheet(), *sides, title=found.title())
        arrays[f"optimal-{layer.name}.npy"] = np.stack([optimum.pixels_TFFC for optimum in found.optima])
    if split is None:
        lines.append("this model folder names no data, so there are no crops to compare with; --data adds them")
    return Finding(
        subject=subject.record(None if split is None else split.name),
        n=sum(map(len, chosen)),
        summary={f"{row['layer']}: sum of activations": row["sum"] for row in rows}
        | {f"{row['layer']}: units that never fire": len(row["silent"]) for row in rows if row["silent"]},
        body={"layers": rows},
        protocol=PROTOCOL
        | {"steps": STEPS, "precision": predictor.precision, "preprocessing": to_json(predictor.preprocessing)},
        lines=lines,
        pictures=pictures,
        arrays=arrays,
    )


PROTOCOL = {
    "ascent": "Adam on the Fourier coefficients of the picture, whose amplitudes fall with the frequency, in decorrelated colors "
    "of ImageNet (Olah et al. 2017); the gradient is brought to length 1, the contrast limited",
    "transformations": f"shift up to {JITTER:.3g} of the side, scale within {SCALING:.0%}, rotation within {ROTATION:g} degrees, "
    "drawn anew at every step",
    "objective": "the value before the nonlinearity; activations are those of the network for the final pixels",
    "crops": "one of an image at most, by the center view",
}


def named_channels(predictor: Predictor, layer: Layer, names: Sequence[str]) -> list[int]:
    """Channels by number, range or, in the last layer, class; without names the first eight, or the first of each tower.
    :class:`UsageError` for what is none of these."""
    total = layer.shape[0]
    if not names:
        towers = num_towers(predictor.model, network_layers(predictor.model), layer)
        each = min(SHOWN // towers, total // towers)
        return [tower * (total // towers) + i for tower in range(towers) for i in range(each)]
    classes = _classes(predictor, layer)
    found: list[int] = []
    for name in names:
        if match := re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", name):
            first = int(match[1])
            last = first if match[2] is None else int(match[2])
            if not first <= last < total:
                raise UsageError(
                    f"--channels {printable(name)}: {layer.name} has the channels 0 to {total - 1}, and a range goes upwards"
                )
            found += range(first, last + 1)
        elif name in classes:
            found.append(classes.index(name))
        else:
            what = " and the names of classes" if classes else "; only the last layer knows classes by name"
            raise UsageError(
                f"--channels {printable(name)}: {layer.name} has no such channel; its channels are 0 to {total - 1}{what}"
            )
    return list(dict.fromkeys(found))


def _classes(predictor: Predictor, layer: Layer) -> tuple[str, ...]:
    """The names of the units of the last layer; none of others, nor where the network cannot tell classes yet."""
    is_last = layer.path == network_layers(predictor.model)[-1].path
    trained = predictor.origin is None or layer.name not in predictor.origin.new
    return predictor.classes if is_last and trained and len(predictor.classes) == layer.shape[0] else ()


@dataclass(frozen=True, eq=False)
class _Found:
    """What was found for a layer."""

    predictor: Predictor
    layer: Layer
    optima: list[Optimum]
    crops: list[ChannelPatches] | None
    pixels: list[list[tuple[NDArray[np.uint8], Box]]]
    negative: bool

    @cached_property
    def classes(self) -> tuple[str, ...]:
        return _classes(self.predictor, self.layer)

    @cached_property
    def towers(self) -> int:
        return num_towers(self.predictor.model, network_layers(self.predictor.model), self.layer)

    def name(self, channel: int) -> str:
        if self.classes:
            return self.classes[channel]
        return f"{'channel' if len(self.layer.shape) == 3 else 'unit'} {channel}"

    def tower(self, channel: int) -> int | None:
        return tower_of(self.towers, self.layer, channel)

    def to_json(self) -> dict[str, Any]:
        rows = []
        for i, optimum in enumerate(self.optima):
            row: dict[str, Any] = {
                "channel": optimum.channel,
                "name": self.name(optimum.channel),
                "tower": self.tower(optimum.channel),
                "activations": optimum.activation_T.tolist(),
                "before_nonlinearity": optimum.before_T.tolist(),
                "crops": None if self.crops is None else self.crops[i].to_json()["patches"],
            }
            rows.append(row)
        best = [float(optimum.activation_T[0]) for optimum in self.optima]
        crops = None if self.crops is None else [float(channel.patches[0].activation) for channel in self.crops]
        return {
            "layer": self.layer.name,
            "side": int(self.optima[0].pixels_TFFC.shape[1]),
            "sum": sum(best),
            "sum_of_crops": None if crops is None else sum(crops),
            "above_crops": None if crops is None else sum(a > b for a, b in zip(best, crops, strict=True)),
            "silent": [row["channel"] for row, value in zip(rows, best, strict=True) if value <= 0],
            "channels": rows,
        }

    def title(self) -> str:
        body, sign = self.to_json(), "least" if self.negative else "most"
        size = f"{body['side']} x {body['side']} pixels"
        said = f"{self.layer.name} of {self.predictor.name}: what excites each channel {sign}, {size}"
        total = f"; sum of activations {body['sum']:.3g}"
        if body["sum_of_crops"] is None:
            return said + total
        total += f", of the crops {body['sum_of_crops']:.3g}"
        return f"{said}, and the strongest crops of real images{total}; activations below"

    def lines(self) -> list[str]:
        body, n = self.to_json(), len(self.optima)
        said = f"{self.layer.name}: sum of the activations of {n} channels {body['sum']:.4g}"
        if body["sum_of_crops"] is not None:
            said += f", on their strongest crops {body['sum_of_crops']:.4g}; "
            said += f"{body['above_crops']} of {n} answer more to their image"
        silent = [self.name(channel) for channel in body["silent"]]
        if not silent:
            return [said]
        names = ", ".join(map(printable, silent))
        return [said, f"{self.layer.name}: no image was found for which these are above 0: {names}"]

    def sheet(self) -> list[list[Row]]:
        """The rows of the sheet, tower by tower."""
        columns: dict[int | None, list[Row]] = {}
        for i, optimum in enumerate(self.optima):
            side = optimum.pixels_TFFC.shape[1]
            images = zip(optimum.pixels_TFFC, optimum.activation_T, strict=True)
            wanted = [Tile(pixels_FFC, (0, 0, side, side), float(value)) for pixels_FFC, value in images]
            crops = []
            if self.crops is not None:
                near = zip(self.pixels[i], self.crops[i].patches, strict=True)
                crops = [Tile(pixels, place, patch.activation) for (pixels, place), patch in near]
            name = self.name(optimum.channel)
            row = Row(name if optimum.activation_T[0] > 0 else f"{name}\nnever fires", wanted, crops)
            columns.setdefault(self.tower(optimum.channel), []).append(row)
        return list(columns.values())


def _layer(
    subject: Subject,
    layer: Layer,
    channels: Sequence[int],
    settings: Settings,
    split: PackedSplit | AllSplits | None,
) -> _Found:
    predictor = subject.predictor
    with subject.progress(f"{layer.name}: images", len(channels), "channels") as bar:
        how: dict[str, Any] = {name: getattr(settings, name) for name in ("aim", "negative", "starts", "seed")}
        optima = optimal_images(predictor, layer, channels, **how, progress=bar)
    if split is None:
        return _Found(predictor, layer, optima, None, [], settings.negative)
    asked = replace(predictor, model=negated(predictor.model, layer)) if settings.negative else predictor
    with subject.progress(f"{layer.name} of {split.name}", len(split)) as bar:
        crops = top_patches(asked, split, layer.name, channels, CROPS, workers=subject.machine.workers, progress=bar)
    pixels = [patch_pixels(predictor, split, layer, channel.patches) for channel in crops]
    return _Found(predictor, layer, optima, crops, pixels, settings.negative)


@dataclass(frozen=True, eq=False)
class Optimum:
    """The images that a channel wants to see, best first."""

    channel: int
    pixels_TFFC: NDArray[np.uint8]
    """What the unit sees; of a unit that has no receptive field, or whose field leaves the image, the network's whole input."""
    activation_T: NDArray[np.float32]
    """What the network itself computes for these pixels."""
    before_T: NDArray[np.float32]
    """The same before the nonlinearity, which the ascent went by."""


@dataclass(frozen=True)
class Frame:
    """Where in the network's input a picture stands, and which unit looks at it."""

    top: int
    left: int
    side: int
    y: int
    x: int
    """The unit's place in its map, 0 and 0 for a layer without maps."""
    whole: bool
    """Whether the picture is the whole input."""


def frame_of(predictor: Predictor, layer: Layer, aim: Aim = "unit") -> Frame:
    """The frame of the unit in the middle of a layer's maps: its receptive field if that lies inside the image."""
    crop, field = predictor.preprocessing.crop, layer.field
    if len(layer.shape) != 3:
        return Frame(0, 0, crop, 0, 0, whole=True)
    _, rows, columns = layer.shape
    if field is None:
        return Frame(0, 0, crop, rows // 2, columns // 2, whole=True)
    middle = round(((crop - field.size) / 2 - field.offset) / field.stride)
    y, x = min(middle, rows - 1), min(middle, columns - 1)
    top, left, bottom, right = field.box(y, x, crop)
    placed = any(isinstance(module, LocalConv2d | MapResponseNorm) for module in predictor.model.modules())
    if aim == "channel" or placed or (bottom - top, right - left) != (field.size, field.size):
        return Frame(0, 0, crop, y, x, whole=True)
    return Frame(top, left, field.size, y, x, whole=False)


def optimal_images(
    predictor: Predictor,
    layer: Layer,
    channels: Sequence[int],
    *,
    aim: Aim = "unit",
    negative: bool = False,
    starts: int = STARTS,
    steps: int = STEPS,
    seed: int = 0,
    progress: Callable[[int, int], object] | None = None,
) -> list[Optimum]:
    """For each channel the images that excite it most, one from each start, most exciting first. Several channels are computed
    together: their images are those of each alone but for rounding."""
    if bad := [channel for channel in channels if not 0 <= channel < layer.shape[0]]:
        raise UsageError(f"{layer.name} has no channel {bad[0]}; its channels are 0 to {layer.shape[0] - 1}")
    if negative:
        predictor = replace(predictor, model=negated(predictor.model, layer))
    frame = frame_of(predictor, layer, aim)
    value, found = _objective(predictor, layer, frame, aim), list[Optimum]()
    num = max(1, TOGETHER // starts)
    for some in (channels[first : first + num] for first in range(0, len(channels), num)):
        pixels_PFFC = _ascend(value, predictor, layer.name, some, frame.side, starts, steps, seed)
        found += _measured(predictor, layer, some, frame, value, pixels_PFFC, aim)
        if progress:
            progress(len(found), len(channels))
    return found


Objective = Callable[[Tensor, Tensor], Tensor]
"""Of pixels (P, F, F, C) of 0 to 255 and a channel for each (P,), what is to be made large: (P,)."""


def _objective(predictor: Predictor, layer: Layer, frame: Frame, aim: Aim) -> Objective:
    compute = before_nonlinearity(predictor.model, layer, unpadded=not frame.whole)
    preprocessing, mean_FFC = _framed(predictor, frame)
    y, x = (frame.y, frame.x) if frame.whole else (0, 0)

    def value(pixels_PFFC: Tensor, channel_P: Tensor) -> Tensor:
        at_P = torch.zeros(len(pixels_PFFC), dtype=torch.int64)
        x_PCFF = apply_crops(pixels_PFFC, at_P, at_P, at_P.bool(), preprocessing, mean_FFC)
        if predictor.precision == "float64":
            x_PCFF = x_PCFF.double()
        with autocast(predictor.device, predictor.precision):
            output = compute(x_PCFF)
        own = output[torch.arange(len(output), device=output.device), channel_P]
        if own.ndim == 3:
            own = own.mean((1, 2)) if aim == "channel" else own[:, y, x]
        return own.float()

    return value


def _framed(predictor: Predictor, frame: Frame) -> tuple[Preprocessing, Tensor | None]:
    """The preprocessing of a picture in the frame alone, and its part of the mean image."""
    preprocessing, mean_FFC = predictor.preprocessing, None
    if predictor.mean is not None:
        start = (preprocessing.resize - preprocessing.crop) // 2
        mean_SSC = fit(torch.as_tensor(predictor.mean).to(predictor.device)[None], preprocessing.resize)[0]
        top, left = start + frame.top, start + frame.left
        mean_FFC = mean_SSC[top : top + frame.side, left : left + frame.side]
    return replace(preprocessing, resize=frame.side, crop=frame.side), mean_FFC


def _ascend(
    value: Objective,
    predictor: Predictor,
    layer: str,
    channels: Sequence[int],
    side: int,
    starts: int,
    steps: int,
    seed: int,
) -> NDArray[np.uint8]:
    """The pixels (P, F, F, C) at the end of ``steps`` steps from each start of each channel."""
    start_T, colors = np.arange(starts), predictor.preprocessing.channels
    jitter = int(side * JITTER)
    size = next(
        size for size in count(side + 2 * jitter, 2) if _has_small_factors(size)
    )  # in the middle of whole pixels
    inner = slice((size - side) // 2, (size - side) // 2 + side)
    half = size // 2 + 1
    frequency_NH = torch.hypot(torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None])
    scale_NH = 1 / frequency_NH.clamp(min=1 / size)  # amplitudes of natural images fall with the frequency
    scale_NH = scale_NH.to(predictor.device)
    mixing_CC = (COLORS_CC if colors == 3 else torch.eye(colors)).to(predictor.device)
    streams = [f"optimal/{layer}/{channel}" for channel in channels]
    num = colors * size * half * 2
    drawn_PD = np.concatenate([rng.normal(seed, f"{stream}/start", 0, start_T, num) for stream in streams])
    coefficients = CONTRAST * torch.from_numpy(drawn_PD).float().view(-1, colors, size, half, 2)
    coefficients = coefficients.to(predictor.device).requires_grad_()
    channel_P = torch.tensor(channels, device=predictor.device).repeat_interleave(starts)

    def canvas() -> Tensor:
        spectrum = torch.view_as_complex(coefficients) * scale_NH
        x_PCNN = torch.fft.irfft2(spectrum, s=(size, size), norm="ortho") / 4
        x_PCNN = torch.einsum("kc,pchw->pkhw", mixing_CC, x_PCNN)
        contrast_P111 = x_PCNN[:, :, inner, inner].square().mean((1, 2, 3), keepdim=True).sqrt()
        return (x_PCNN * (MAX_CONTRAST / contrast_P111).clamp(max=1)).sigmoid()

    climb = _Adam(coefficients)
    for step in range(steps):
        drawn_P4 = np.concatenate([rng.uniform(seed, stream, step, start_T, 4) for stream in streams])
        picture_PCFF = _transformed(canvas(), side, jitter, drawn_P4)
        value_P = value(255 * picture_PCFF.permute(0, 2, 3, 1), channel_P)
        (gradient,) = torch.autograd.grad(value_P.sum(), coefficients)
        norm_P = gradient.flatten(1).norm(dim=1).clamp(min=1e-30)
        climb.step(gradient / norm_P.view(-1, 1, 1, 1, 1))
    with torch.no_grad():
        picture_PCFF = canvas()[:, :, inner, inner]
        return (255 * picture_PCFF.permute(0, 2, 3, 1)).round().to(torch.uint8).cpu().numpy()


class _Adam:
    """Kingma and Ba's ascent (2015) on one tensor, with torch's averages and nearly no epsilon. That of :mod:`torch.optim` makes
    its process import torch's compiler, which takes longer than to climb."""

    def __init__(self, parameter: Tensor) -> None:
        self.parameter, self.steps = parameter, 0
        self.mean, self.square = torch.zeros_like(parameter), torch.zeros_like(parameter)

    @torch.no_grad()
    def step(self, gradient: Tensor) -> None:
        self.steps += 1
        self.mean.lerp_(gradient, 1 - MOMENTUM)
        self.square.mul_(0.999).addcmul_(gradient, gradient, value=1 - 0.999)
        deviation = (self.square / (1 - 0.999**self.steps)).sqrt_().add_(1e-12)
        self.parameter.addcdiv_(self.mean, deviation, value=RATE / (1 - MOMENTUM**self.steps))


def _has_small_factors(size: int) -> bool:
    """Whether the fast Fourier transform of this size is fast."""
    return 2520**8 % size == 0  # 2520 = 2^3 3^2 5 7


def _transformed(canvas_PCNN: Tensor, side: int, jitter: int, drawn_P4: NDArray[np.float64]) -> Tensor:
    """A picture (P, C, F, F) of each canvas: shifted, scaled, and rotated about its middle."""
    size = canvas_PCNN.shape[2]
    draw_P4 = torch.from_numpy(2 * drawn_P4 - 1)
    scale_P = side / size * (1 + SCALING * draw_P4[:, 0])
    angle_P = torch.deg2rad(ROTATION * draw_P4[:, 1])
    shift_P2 = 2 * jitter / size * draw_P4[:, 2:]
    sine_P, cosine_P = scale_P * angle_P.sin(), scale_P * angle_P.cos()
    affine_P23 = torch.stack(
        [
            torch.stack([cosine_P, -sine_P, shift_P2[:, 0]], 1),
            torch.stack([sine_P, cosine_P, shift_P2[:, 1]], 1),
        ],
        1,
    ).to(canvas_PCNN)
    grid = F.affine_grid(affine_P23, [len(canvas_PCNN), canvas_PCNN.shape[1], side, side], align_corners=False)
    return F.grid_sample(canvas_PCNN, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _measured(
    predictor: Predictor,
    layer: Layer,
    channels: Sequence[int],
    frame: Frame,
    value: Objective,
    pixels_PFFC: NDArray[np.uint8],
    aim: Aim,
) -> list[Optimum]:
    channel_P = np.repeat(channels, len(pixels_PFFC) // len(channels))
    with torch.no_grad():
        at = predictor.device
        before_P = value(torch.from_numpy(pixels_PFFC).to(at), torch.from_numpy(channel_P).to(at)).cpu().numpy()
    preprocessing = predictor.preprocessing
    size = preprocessing.resize
    start = (size - preprocessing.crop) // 2
    whole = np.full((len(pixels_PFFC), size, size, preprocessing.channels), 128, np.uint8)
    top, left = start + frame.top, start + frame.left
    whole[:, top : top + frame.side, left : left + frame.side] = pixels_PFFC
    output = predictor.activations(torch.from_numpy(whole), [layer])[layer.name].reshape(len(whole), *layer.shape)
    activation_P = output[np.arange(len(output)), channel_P]
    if activation_P.ndim == 3:
        activation_P = activation_P.max((1, 2)) if aim == "channel" else activation_P[:, frame.y, frame.x]
    order_KT = np.argsort(-before_P.reshape(len(channels), -1), axis=1, kind="stable")
    order_KT += np.arange(0, len(before_P), order_KT.shape[1])[:, None]
    return [
        Optimum(channel, pixels_PFFC[order_T], activation_P[order_T], before_P[order_T])
        for channel, order_T in zip(channels, order_KT, strict=True)
    ]
