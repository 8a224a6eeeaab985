"""What stands between the pixels of a photograph and the input of a network, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Photograph -> network input. The steps, in order: short side to ``resize``, center square of ``resize`` pixels
    (both done once, by ``prepare``), a crop of ``crop`` pixels, ``mean`` subtracted, ``scale`` multiplied,
    divided by ``std``, channels in ``channel_order``. A network and its preprocessing are only right together, so every
    model folder holds both (``preprocessor.json``)."""

    resize: int = 256
    """Short side of the stored image, and the side of its center square, in pixels (§2)."""
    crop: int = 224
    """Side of the network's input, in pixels (§4.1)."""
    channels: int = 3
    """Channels that the network reads: 3 for color, 1 for grey."""
    mean: Literal["image", "channel", "none"] = "image"
    """What is subtracted from pixels of 0 to 255: the mean image of the training set (§2; the file ``mean.npy``), one number
    for each channel (``channel_mean``), or nothing."""
    mean_at: Literal["center", "crop"] = "center"
    """Which part of the mean image is subtracted: always its center (2012 program, convdata_jpeg.py), or the part under the
    crop (Caffe)."""
    channel_mean: tuple[float, ...] = ()
    """Numbers to subtract from red, green and blue, on a scale of 0 to 255."""
    std: tuple[float, ...] = ()
    """Numbers to divide red, green and blue by, after the mean is subtracted; none: no division."""
    scale: float = 1.0
    """Factor for pixels of 0 to 255: 1 in 2012, 1/255 for networks that read 0 to 1."""
    channel_order: Literal["rgb", "bgr"] = "rgb"
    """Order in which the network reads the color channels."""
    sample_max: int | None = None
    """Sample that is white in files of more than 8 bits, where photographs were decoded so; by default the largest that each
    file allows."""

    def __post_init__(self) -> None:
        c = self.channels
        if not 1 <= self.crop <= self.resize:
            raise ValueError(f"Preprocessing.crop is {self.crop}; it needs 1 <= crop <= resize, which is {self.resize}")
        if self.mean == "channel" and len(self.channel_mean) != c:
            raise ValueError(f"Preprocessing.channel_mean is {self.channel_mean}; mean='channel' needs {c} numbers")
        if self.std and (len(self.std) != c or min(self.std) <= 0):
            raise ValueError(f"Preprocessing.std is {self.std}; it needs {c} positive numbers, or none")
        if self.sample_max is not None and not 1 <= self.sample_max <= 65535:
            raise ValueError(f"Preprocessing.sample_max is {self.sample_max}; it must be at least 1 and at most 65535")
        if not self.scale > 0:
            raise ValueError(f"Preprocessing.scale is {self.scale}; it must be positive")


@dataclass(frozen=True)
class ColorStatistics:
    """Covariance of the color of the training pixels, on 0..255, and its principal axes (§4.1, second form).
    Grey sets have one channel."""

    mean_C: NDArray[np.float64]
    covariance_CC: NDArray[np.float64]
    eigenvalues_C: NDArray[np.float64]
    """Variances along the axes, ascending."""
    eigenvectors_CC: NDArray[np.float64]
    """Column i is the unit vector of eigenvalue i; its largest component is positive."""
    standard_deviations_C: NDArray[np.float64]
    """Square roots of the eigenvalues: what the 2012 program multiplied its noise by."""
