"""From stored pixels to the network's input: crops, mirror images, color noise and the mean, batched on the training device.

The draws are made first, as plain arrays that depend on (seed, epoch, image) alone; applying them is arithmetic.

Shape suffixes: B images, C channels, H rows, W columns, S rows or columns of a square.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from alexnet.core import rng
from alexnet.core.preprocessing import ColorStatistics, Preprocessing


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How training images vary (§4.1)."""

    crop: Literal["random", "resized", "center"] = "random"
    """Which part of an image the network sees. ``random``: a square at a random place (§4.1). ``resized``: a rectangle of random
    area and aspect, resized (2014 and later). ``center``: always the center."""
    crop_draws: Literal["image", "chunk"] = "image"
    """Whether crop and mirroring are drawn for each image, or once for each chunk of 32 consecutive images, as the 2012 program
    did (convdata_jpeg.py)."""
    mirror: bool = True
    """Mirror training images at random, half of them on average."""
    crops: int | None = None
    """Number of crops of each image, mirrored or not, that training goes through again and again; by default each pass draws a
    new one."""
    color_noise: float = 0.1
    """Strength of the color noise: standard deviation of the random factors for the principal components of color (§4.1).
    0 switches the noise off."""
    color_noise_of: Literal["deviation", "eigenvalue", "constants"] = "deviation"
    """What the random factors multiply. deviation: each component's standard deviation (2012 program). eigenvalue: its variance,
    as the formula of §4.1 says. constants: 55.5, 4.8 and 1.1, which many programs copied (they are ImageNet's variances on a
    scale of 0 to 1, taken for deviations)."""
    divide_noise: bool = False
    """Divide the input by 1 + ``color_noise``. The 2012 program did, to keep the scale of test images."""
    resized_area: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest share of the image that a ``resized`` crop covers; drawn uniformly."""
    resized_aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest ratio of width to height of a ``resized`` crop; drawn log-uniformly."""

    mixup: float = 0.0
    """Average each training image and its label with those of another image (Zhang et al. 2018). The value is the parameter of
    the Beta distribution that the shares are drawn from: 0.2 mixes little, 1 mixes much. 0 switches it off."""
    cutmix: float = 0.0
    """Paste a random rectangle of another image into each training image, and mix the labels by area (Yun et al. 2019). The value
    is the parameter of the Beta distribution that the areas are drawn from, usually 1. With ``mixup`` too, each image is mixed in
    one of the two ways at random. 0 switches it off."""

    @property
    def mixes(self) -> bool:
        """Whether training images are mixed with others."""
        return self.mixup > 0 or self.cutmix > 0

    def __post_init__(self) -> None:
        if not self.color_noise >= 0:
            raise ValueError(f"Augmentation.color_noise is {self.color_noise}; a standard deviation is 0 or more")
        if self.crops is not None and self.crops < 1:
            raise ValueError(f"Augmentation.crops is {self.crops}; it must be at least 1")
        if self.crops is not None and self.crop_draws == "chunk":
            raise ValueError(f"Augmentation.crops is {self.crops}; crops drawn for chunks of images cannot be so few")
        for name in ("mixup", "cutmix"):
            if not 0 <= getattr(self, name) <= MAX_MIX:
                raise ValueError(
                    f"Augmentation.{name} is {getattr(self, name)}; it must be at least 0, which switches it off, and at most "
                    f"{MAX_MIX}"
                )
        for name in ("resized_area", "resized_aspect"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"Augmentation.{name} is {(low, high)}; it needs 0 < low <= high")
        if self.resized_area[1] > 1:
            raise ValueError(f"Augmentation.resized_area is {self.resized_area}; a crop covers at most 1 of the image")


MAX_MIX = 100
"""Largest parameter of the Beta distribution of a share: from there on it is practically always one half."""

POPULAR_DEVIATIONS = (255 * 0.0045, 255 * 0.0188, 255 * 0.2175)
"""What became of ImageNet's color statistics elsewhere: its variances on a scale of 0 to 1, ascending, used as deviations."""

CHUNK = 32
"""Images that share a crop in the 2012 program."""


@dataclass(frozen=True)
class Draws:
    """The random choices for one batch. Boxes are in pixels of the ``resize`` x ``resize`` image."""

    top_B: NDArray[np.float64]
    left_B: NDArray[np.float64]
    height_B: NDArray[np.float64]
    width_B: NDArray[np.float64]
    mirror_B: NDArray[np.bool_]
    noise_BC: NDArray[np.float64] | None
    """Standard normal factors of the color components; None without noise."""


def draw(
    augmentation: Augmentation,
    preprocessing: Preprocessing,
    *,
    seed: int,
    epoch: int,
    image_B: NDArray[np.int64],
    position_B: NDArray[np.int64],
) -> Draws:
    """The choices for the images numbered ``image_B``, which stand at ``position_B`` of the epoch's order."""
    key_B, suffix = (image_B, "") if augmentation.crop_draws == "image" else (position_B // CHUNK, "/chunk")
    resize, crop, num = preprocessing.resize, preprocessing.crop, len(image_B)
    cut = epoch if augmentation.crops is None else epoch % augmentation.crops
    height_B = width_B = np.full(num, float(crop))
    if augmentation.crop == "center":
        top_B = left_B = np.full(num, float((resize - crop) // 2))
    elif augmentation.crop == "random":  # offsets 0 .. 32 both ways: 33 x 33 places, not the paper's 32 x 32
        offset_B2 = rng.integers(seed, "crop" + suffix, cut, key_B, 2, resize - crop + 1)
        top_B, left_B = offset_B2[:, 0].astype(np.float64), offset_B2[:, 1].astype(np.float64)
    else:
        top_B, left_B, height_B, width_B = _draw_boxes(augmentation, resize, seed, cut, key_B, suffix)
    mirror_B = np.zeros(num, dtype=bool)
    if augmentation.mirror:
        mirror_B = rng.uniform(seed, "mirror" + suffix, cut, key_B, 1)[:, 0] < 0.5
    noise_BC = None
    if augmentation.color_noise:
        noise_BC = rng.normal(seed, "color", epoch, image_B, preprocessing.channels)
    return Draws(top_B, left_B, height_B, width_B, mirror_B, noise_BC)


@dataclass(frozen=True)
class Mixes:
    """How each image of a batch is mixed with its partner."""

    share_B: NDArray[np.float64]
    """The share of the image itself, of its pixels or of its area; its partner has the rest."""
    box_B4: NDArray[np.int64]
    """Rectangle of the input that the partner covers: top, left, bottom, right. Empty where pixels are averaged."""
    averaged_B: NDArray[np.bool_]


def draw_mixes(augmentation: Augmentation, crop: int, *, seed: int, epoch: int, image_B: NDArray[np.int64]) -> Mixes:
    """The mixes of the images numbered ``image_B``, whose input has ``crop`` x ``crop`` pixels. Rectangles have the aspect of the
    input and their center anywhere in it; what lies outside is cut off, and the share is that of the pixels that are left."""
    mixup, cutmix = augmentation.mixup, augmentation.cutmix
    averaged_B = np.full(len(image_B), mixup > 0)
    if mixup and cutmix:
        averaged_B = rng.uniform(seed, "mix/way", epoch, image_B, 1)[:, 0] < 0.5
    share_B = np.ones(len(image_B))
    if mixup:
        share_B[averaged_B] = rng.symmetric_beta(seed, "mix/average", epoch, image_B[averaged_B], mixup)
    box_B4 = np.zeros((len(image_B), 4), dtype=np.int64)
    if cutmix:
        cut_C = image_B[~averaged_B]
        side_C1 = np.round(crop * np.sqrt(1 - rng.symmetric_beta(seed, "mix/area", epoch, cut_C, cutmix)))[:, None]
        start_C2 = np.round(crop * rng.uniform(seed, "mix/center", epoch, cut_C, 2) - side_C1 / 2)
        box_C4 = np.concatenate([start_C2, start_C2 + side_C1], axis=1).clip(0, crop).astype(np.int64)
        box_B4[~averaged_B] = box_C4
        share_B[~averaged_B] = 1 - (box_C4[:, 2] - box_C4[:, 0]) * (box_C4[:, 3] - box_C4[:, 1]) / crop**2
    return Mixes(share_B, box_B4, averaged_B)


def mix(x_BCHW: Tensor, other_BCHW: Tensor, mixes: Mixes) -> Tensor:
    """Network input mixed with that of the partners, image by image; ``x_BCHW`` is overwritten and returned."""
    for i, (averaged, share) in enumerate(zip(mixes.averaged_B.tolist(), mixes.share_B.tolist(), strict=True)):
        if averaged:
            x_BCHW[i] = share * x_BCHW[i] + (1 - share) * other_BCHW[i]
        else:
            top, left, bottom, right = mixes.box_B4[i].tolist()
            x_BCHW[i, :, top:bottom, left:right] = other_BCHW[i, :, top:bottom, left:right]
    return x_BCHW


def _draw_boxes(
    augmentation: Augmentation, resize: int, seed: int, epoch: int, key_B: NDArray[np.int64], suffix: str
) -> tuple[NDArray[np.float64], ...]:
    """Random resized crops: the first of ten tries whose box fits, else the whole image (Szegedy et al. 2014's rule as
    it is commonly implemented)."""
    u_BTF = rng.uniform(seed, "box" + suffix, epoch, key_B, 20).reshape(-1, 10, 2)
    low, high = augmentation.resized_area
    area_BT = resize**2 * (low + (high - low) * u_BTF[..., 0])
    log_low, log_high = np.log(augmentation.resized_aspect)
    aspect_BT = np.exp(log_low + (log_high - log_low) * u_BTF[..., 1])
    width_BT, height_BT = np.round(np.sqrt(area_BT * aspect_BT)), np.round(np.sqrt(area_BT / aspect_BT))
    fits_BT = (width_BT <= resize) & (height_BT <= resize) & (width_BT >= 1) & (height_BT >= 1)
    first_B, row_B = fits_BT.argmax(axis=1), np.arange(len(key_B))
    found_B = fits_BT.any(axis=1)
    height_B = np.where(found_B, height_BT[row_B, first_B], float(resize))
    width_B = np.where(found_B, width_BT[row_B, first_B], float(resize))
    u_B2 = rng.uniform(seed, "crop" + suffix, epoch, key_B, 2)
    return (
        np.floor(u_B2[:, 0] * (resize - height_B + 1)),
        np.floor(u_B2[:, 1] * (resize - width_B + 1)),
        height_B,
        width_B,
    )


def augment(
    pixels_BSSC: Tensor,
    draws: Draws,
    augmentation: Augmentation,
    preprocessing: Preprocessing,
    mean_SSC: Tensor | None,
    color: ColorStatistics | None,
    noise_factor: float = 1.0,
) -> Tensor:
    """Stored uint8 pixels (B, S, S, C) -> network input (B, C, crop, crop) float32, in the order of the 2012 program
    (convdata_jpeg.py): crop, mirror, subtract the mean, add color noise, divide. ``noise_factor`` 0 switches the noise
    (and its divisor) off for the last epochs, as that program did."""
    mirror_B = torch.from_numpy(draws.mirror_B)
    offset_BC = None
    if draws.noise_BC is not None and noise_factor and color is not None:
        std_C = augmentation.color_noise * noise_factor * _noise_size(augmentation, color)
        offset_BC = torch.from_numpy((draws.noise_BC * std_C) @ color.eigenvectors_CC.T).float()
    divisor = 1.0 + augmentation.color_noise if augmentation.divide_noise and offset_BC is not None else 1.0
    if augmentation.crop == "resized":
        box_B4 = torch.from_numpy(np.stack([draws.top_B, draws.left_B, draws.height_B, draws.width_B], axis=1))
        x_BSSC = _resized_crops(fit(pixels_BSSC, preprocessing.resize), box_B4, mirror_B, preprocessing.crop)
        center = (preprocessing.resize - preprocessing.crop) // 2
        top_B = left_B = torch.full((len(mirror_B),), center)
    else:
        top_B, left_B = torch.from_numpy(draws.top_B).long(), torch.from_numpy(draws.left_B).long()
        x_BSSC = _crops(fit(pixels_BSSC, preprocessing.resize), top_B, left_B, mirror_B, preprocessing.crop)
    return _normalize(x_BSSC, top_B, left_B, mirror_B, preprocessing, mean_SSC, offset_BC, divisor)


def apply_crops(
    pixels_BSSC: Tensor,
    top_B: Tensor,
    left_B: Tensor,
    mirror_B: Tensor,
    preprocessing: Preprocessing,
    mean_SSC: Tensor | None,
) -> Tensor:
    """One given crop of each image, without noise: (B, C, crop, crop) float32. Positions are in pixels of the
    ``resize`` x ``resize`` image."""
    x_BSSC = _crops(fit(pixels_BSSC, preprocessing.resize), top_B, left_B, mirror_B, preprocessing.crop)
    return _normalize(x_BSSC, top_B, left_B, mirror_B, preprocessing, mean_SSC, None, 1.0)


def fit(pixels_BSSC: Tensor, size: int) -> Tensor:
    """Square images of another stored size (28-pixel digits, say) brought to ``size`` by antialiased bilinear
    interpolation; those of the right size pass unchanged."""
    if pixels_BSSC.shape[1] == size:
        return pixels_BSSC
    x_BCSS = pixels_BSSC.permute(0, 3, 1, 2).float()
    resized_BCSS = F.interpolate(x_BCSS, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return resized_BCSS.permute(0, 2, 3, 1)


def _crops(pixels_BSSC: Tensor, top_B: Tensor, left_B: Tensor, mirror_B: Tensor, crop: int) -> Tensor:
    """(B, crop, crop, C), of the type of ``pixels_BSSC``: a copy."""
    if pixels_BSSC.shape[1] == pixels_BSSC.shape[2] == crop and not mirror_B.any():
        return pixels_BSSC.clone(memory_format=torch.contiguous_format)
    if pixels_BSSC.device.type == "cpu":  # copying rows is 15 times faster than indexing each pixel
        out = pixels_BSSC.new_empty((len(pixels_BSSC), crop, crop, pixels_BSSC.shape[3]))
        for i, (top, left, mirror) in enumerate(zip(top_B.tolist(), left_B.tolist(), mirror_B.tolist(), strict=True)):
            piece = pixels_BSSC[i, top : top + crop, left : left + crop]
            out[i] = piece.flip(1) if mirror else piece
        return out
    device = pixels_BSSC.device
    step = torch.arange(crop, device=device)
    row_BS = top_B.to(device)[:, None] + step
    column_BS = left_B.to(device)[:, None] + torch.where(mirror_B.to(device)[:, None], crop - 1 - step, step)
    image_B = torch.arange(len(pixels_BSSC), device=device)
    return pixels_BSSC[image_B[:, None, None], row_BS[:, :, None], column_BS[:, None, :]]


def _resized_crops(pixels_BSSC: Tensor, box_B4: Tensor, mirror_B: Tensor, crop: int) -> Tensor:
    """Boxes (top, left, height, width) resized to ``crop`` pixels, bilinear: (B, crop, crop, C) float32. A box of a
    256-pixel image is at most 256/224 times the output, so nothing is lost for want of an antialiasing filter."""
    device, size = pixels_BSSC.device, pixels_BSSC.shape[1]
    top_B, left_B, height_B, width_B = box_B4.cpu().unbind(1)  # not every device has float64
    center_S = (torch.arange(crop, dtype=torch.float64) + 0.5) / crop
    across_BS = torch.where(mirror_B.cpu()[:, None], 1 - center_S, center_S)
    y_BS = (top_B[:, None] + height_B[:, None] * center_S) * 2 / size - 1
    x_BS = (left_B[:, None] + width_B[:, None] * across_BS) * 2 / size - 1
    x_BS, y_BS = x_BS.float().to(device), y_BS.float().to(device)
    grid_BSS2 = torch.stack([x_BS[:, None, :].expand(-1, crop, -1), y_BS[:, :, None].expand(-1, -1, crop)], dim=3)
    x_BCSS = pixels_BSSC.permute(0, 3, 1, 2).float()
    out_BCSS = F.grid_sample(x_BCSS, grid_BSS2, mode="bilinear", padding_mode="border", align_corners=False)
    return out_BCSS.permute(0, 2, 3, 1).contiguous()  # as pixels lie in memory, line by line


def _normalize(
    x_BSSC: Tensor,
    top_B: Tensor,
    left_B: Tensor,
    mirror_B: Tensor,
    preprocessing: Preprocessing,
    mean_SSC: Tensor | None,
    offset_BC: Tensor | None,
    divisor: float,
) -> Tensor:
    """Mean, noise and scale. The result is (B, C, S, S) in channels-last memory, which is how the pixels came."""
    crop, device = preprocessing.crop, x_BSSC.device
    x_BSSC = x_BSSC.float()  # crops are copies, so the steps below may be in place
    if preprocessing.mean == "image":
        assert mean_SSC is not None, "Preprocessing.mean is 'image' but no mean image was given"
        mean_SSC = fit(mean_SSC[None], preprocessing.resize)[0].to(device)
        if preprocessing.mean_at == "center":  # for every crop, mirrored or not
            start = (preprocessing.resize - crop) // 2
            x_BSSC.sub_(mean_SSC[start : start + crop, start : start + crop])
        else:
            mean_BSSC = mean_SSC.expand(len(x_BSSC), *mean_SSC.shape)
            x_BSSC.sub_(_crops(mean_BSSC, top_B, left_B, mirror_B, crop))
    elif preprocessing.mean == "channel":
        _lines(x_BSSC).sub_(torch.tensor(preprocessing.channel_mean, device=device).repeat(crop))
    if offset_BC is not None:
        x_BSSC.add_(offset_BC.to(device)[:, None, None, :])
    if divisor != 1.0:
        x_BSSC.div_(divisor)
    factor = torch.full((preprocessing.channels,), preprocessing.scale)
    if preprocessing.std:
        factor = factor / torch.tensor(preprocessing.std)
    if not torch.equal(factor, torch.ones_like(factor)):
        _lines(x_BSSC).mul_(factor.to(device).repeat(crop))
    if preprocessing.channel_order == "bgr":
        x_BSSC = x_BSSC.flip(3)
    return x_BSSC.permute(0, 3, 1, 2)


def _lines(x_BSSC: Tensor) -> Tensor:
    """The same values with the channels of a row side by side: on a CPU three channels fill no vector, and what is done to each
    takes six times as long."""
    return x_BSSC.view(*x_BSSC.shape[:2], x_BSSC.shape[2] * x_BSSC.shape[3])


def _noise_size(augmentation: Augmentation, color: ColorStatistics) -> NDArray[np.float64]:
    """What one unit of color noise is along each axis, in grey levels."""
    if augmentation.color_noise_of == "eigenvalue":
        return color.eigenvalues_C
    if augmentation.color_noise_of == "constants":
        return np.array(POPULAR_DEVIATIONS[-len(color.eigenvalues_C) :])
    return color.standard_deviations_C
