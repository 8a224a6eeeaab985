"""What a unit wants to see: the image that excites it most, found by gradient ascent on the pixels (Erhan et al. 2009), among
images of natural spectrum and color (Olah, Mordvintsev and Schubert 2017), beside the crops of real images that do.

Shape suffixes: T starts, C channels, F rows and columns of a picture, N those of the canvas that it is cut from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from alexnet.core import rng
from alexnet.core.device import autocast
from alexnet.core.errors import UsageError
from alexnet.core.preprocessing import Preprocessing
from alexnet.data.transforms import apply_crops, fit
from alexnet.evaluation.layers import Layer, before_nonlinearity, negated
from alexnet.evaluation.predict import Predictor
from alexnet.models.layers import LocalConv2d
from alexnet.models.lrn import MapResponseNorm

Aim = Literal["unit", "channel"]
STEPS = 48
STARTS = 2
RATE = 0.1
"""Learning rate of Adam, in standard deviations of a coefficient."""
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
    channel: int,
    *,
    aim: Aim = "unit",
    negative: bool = False,
    starts: int = STARTS,
    steps: int = STEPS,
    seed: int = 0,
) -> Optimum:
    """The images that excite a channel most, one from each start, most exciting first."""
    if not 0 <= channel < layer.shape[0]:
        raise UsageError(f"{layer.name} has no channel {channel}; its channels are 0 to {layer.shape[0] - 1}")
    if negative:
        predictor = replace(predictor, model=negated(predictor.model, layer))
    frame = frame_of(predictor, layer, aim)
    value = _objective(predictor, layer, channel, frame, aim)
    pixels_TFFC = _ascend(value, predictor, layer.name, channel, frame.side, starts, steps, seed)
    return _measured(predictor, layer, channel, frame, value, pixels_TFFC, aim)


def _objective(predictor: Predictor, layer: Layer, channel: int, frame: Frame, aim: Aim) -> Callable[[Tensor], Tensor]:
    """What is to be made large, (T,), as a function of pixels (T, F, F, C) of 0 to 255."""
    compute = before_nonlinearity(predictor.model, layer, unpadded=not frame.whole)
    preprocessing, mean_FFC = _framed(predictor, frame)
    y, x = (frame.y, frame.x) if frame.whole else (0, 0)

    def value(pixels_TFFC: Tensor) -> Tensor:
        at_T = torch.zeros(len(pixels_TFFC), dtype=torch.int64)
        x_TCFF = apply_crops(pixels_TFFC, at_T, at_T, at_T.bool(), preprocessing, mean_FFC)
        if predictor.precision == "float64":
            x_TCFF = x_TCFF.double()
        with autocast(predictor.device, predictor.precision):
            output = compute(x_TCFF)[:, channel]
        if output.ndim == 1:
            return output.float()
        return (output.mean((1, 2)) if aim == "channel" else output[:, y, x]).float()

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
    value: Callable[[Tensor], Tensor],
    predictor: Predictor,
    layer: str,
    channel: int,
    side: int,
    starts: int,
    steps: int,
    seed: int,
) -> NDArray[np.uint8]:
    """The pixels (T, F, F, C) at the end of ``steps`` steps from each start."""
    stream, start_T = f"optimal/{layer}/{channel}", np.arange(starts)
    colors = predictor.preprocessing.channels
    jitter = int(side * JITTER)
    size = next(
        size for size in count(side + 2 * jitter, 2) if _has_small_factors(size)
    )  # in the middle of whole pixels
    inner = slice((size - side) // 2, (size - side) // 2 + side)
    half = size // 2 + 1
    frequency_NH = torch.hypot(torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None])
    scale_NH = 1 / frequency_NH.clamp(min=1 / size)  # amplitudes of natural images fall with the frequency
    drawn = rng.normal(seed, f"{stream}/start", 0, start_T, colors * size * half * 2)
    shape = (starts, colors, size, half, 2)
    coefficients = (CONTRAST * torch.from_numpy(drawn).float().view(shape)).to(predictor.device).requires_grad_()
    scale_NH = scale_NH.to(predictor.device)
    mixing_CC = (COLORS_CC if colors == 3 else torch.eye(colors)).to(predictor.device)

    def canvas() -> Tensor:
        spectrum = torch.view_as_complex(coefficients) * scale_NH
        x_TCNN = torch.fft.irfft2(spectrum, s=(size, size), norm="ortho") / 4
        x_TCNN = torch.einsum("kc,tchw->tkhw", mixing_CC, x_TCNN)
        contrast_T111 = x_TCNN[:, :, inner, inner].square().mean((1, 2, 3), keepdim=True).sqrt()
        return (x_TCNN * (MAX_CONTRAST / contrast_T111).clamp(max=1)).sigmoid()

    adam = torch.optim.Adam([coefficients], lr=RATE, eps=1e-12)
    for step in range(steps):
        picture_TCFF = _transformed(canvas(), side, jitter, rng.uniform(seed, stream, step, start_T, 4))
        value_T = value(255 * picture_TCFF.permute(0, 2, 3, 1))
        (gradient,) = torch.autograd.grad(value_T.sum(), coefficients)
        norm_T = gradient.flatten(1).norm(dim=1).clamp(min=1e-30)
        coefficients.grad = -gradient / norm_T.view(-1, 1, 1, 1, 1)
        adam.step()
    with torch.no_grad():
        picture_TCFF = canvas()[:, :, inner, inner]
        return (255 * picture_TCFF.permute(0, 2, 3, 1)).round().to(torch.uint8).cpu().numpy()


def _has_small_factors(size: int) -> bool:
    """Whether the fast Fourier transform of this size is fast."""
    return 2520**8 % size == 0  # 2520 = 2^3 3^2 5 7


def _transformed(canvas_TCNN: Tensor, side: int, jitter: int, drawn_T4: NDArray[np.float64]) -> Tensor:
    """A picture (T, C, F, F) of each canvas: shifted, scaled, and rotated about its middle."""
    size = canvas_TCNN.shape[2]
    draw_T4 = torch.from_numpy(2 * drawn_T4 - 1)
    scale_T = side / size * (1 + SCALING * draw_T4[:, 0])
    angle_T = torch.deg2rad(ROTATION * draw_T4[:, 1])
    shift_T2 = 2 * jitter / size * draw_T4[:, 2:]
    sine_T, cosine_T = scale_T * angle_T.sin(), scale_T * angle_T.cos()
    affine_T23 = torch.stack(
        [
            torch.stack([cosine_T, -sine_T, shift_T2[:, 0]], 1),
            torch.stack([sine_T, cosine_T, shift_T2[:, 1]], 1),
        ],
        1,
    ).to(canvas_TCNN)
    grid = F.affine_grid(affine_T23, [len(canvas_TCNN), canvas_TCNN.shape[1], side, side], align_corners=False)
    return F.grid_sample(canvas_TCNN, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _measured(
    predictor: Predictor,
    layer: Layer,
    channel: int,
    frame: Frame,
    value: Callable[[Tensor], Tensor],
    pixels_TFFC: NDArray[np.uint8],
    aim: Aim,
) -> Optimum:
    with torch.no_grad():
        before_T = value(torch.from_numpy(pixels_TFFC).to(predictor.device)).cpu().numpy()
    preprocessing = predictor.preprocessing
    size = preprocessing.resize
    start = (size - preprocessing.crop) // 2
    whole = np.full((len(pixels_TFFC), size, size, preprocessing.channels), 128, np.uint8)
    top, left = start + frame.top, start + frame.left
    whole[:, top : top + frame.side, left : left + frame.side] = pixels_TFFC
    output = predictor.activations(torch.from_numpy(whole), [layer])[layer.name].reshape(len(whole), *layer.shape)
    activation_T = output[:, channel]
    if activation_T.ndim == 3:
        activation_T = activation_T.max((1, 2)) if aim == "channel" else activation_T[:, frame.y, frame.x]
    order = np.argsort(-before_T, kind="stable")
    return Optimum(channel, pixels_TFFC[order], activation_T[order], before_T[order])
