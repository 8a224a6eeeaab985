"""What `prepare` computes of pixels: the short side of a photograph to 256, the center square of that (§2), and the sums
behind the mean image and the covariance of color. By the kernels of pixels.c, or to the same values without a C compiler.

Shape suffixes: N images, S rows and columns, H rows, T taps, P pixels, C channels.
"""

from __future__ import annotations

from ctypes import c_int64, c_void_p
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alexnet.core.native import NativeSource

MAX_ASPECT = 50
"""Greatest ratio of the sides of an image that is resized; longer strips are cropped first, or else a 1 x 20000 image would
grow to 256 x 5,120,000."""

KERNELS = NativeSource(
    Path(__file__).with_name("pixels.c"),
    {
        "weigh": [c_int64] * 5 + [c_void_p] * 3,
        "resize": [c_void_p] * 2 + [c_int64] * 7 + [c_void_p] * 4,
        "add_moments": [c_void_p] + [c_int64] * 3 + [c_void_p] * 2,
    },
)
MAX_PIXELS = 1 << 24
"""Greatest number of pixels of an image given to the kernels. (So an output has fewer than 2^14 taps, which its arithmetic
needs.)"""


def resize_and_crop(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """The center square of an RGB image whose short side was resized to ``size`` (§2): (size, size, 3) uint8, or
    (size, size) of a grey one (mode L). Offsets of the crop are rounded down. The same values with the compiled kernels
    and with Pillow, which takes five times as long."""
    image = _crop_strip(image)
    width, height = _resized(image.size, size)
    left, top = (width - size) // 2, (height - size) // 2
    if _is_usual(image, size) and KERNELS.available():
        return _resize_native(image, (width, height), (left, top), size)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.array(resized.crop((left, top, left + size, top + size)), dtype=np.uint8)


def resize_short_side(image: Image.Image, size: int) -> Image.Image:
    """The whole image, short side ``size``, long side in proportion and rounded down, by Pillow's bilinear filter,
    which averages over all source pixels when it shrinks. Of strips longer than 50:1 the middle is kept."""
    image = _crop_strip(image)
    return image.resize(_resized(image.size, size), Image.Resampling.BILINEAR)


def color_moments(image_NSSC: NDArray[np.uint8]) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
    """Sums over the images, (S, S, C), and sums over all their pixels of the products of two channels, (C, C): integers,
    exact for up to 16 million images."""
    n, size, _, channels = image_NSSC.shape
    sum_SSC = np.zeros((size, size, channels), dtype=np.uint32)
    product_CC = np.zeros((channels, channels), dtype=np.uint64)
    if KERNELS.available() and image_NSSC.flags.c_contiguous:
        place = sum_SSC.ctypes.data, product_CC.ctypes.data
        KERNELS.library.add_moments(image_NSSC.ctypes.data, n, size * size, channels, *place)
    else:
        for image_SSC in image_NSSC:
            sum_SSC += image_SSC
            plane_CP = np.ascontiguousarray(image_SSC.reshape(-1, channels).T).astype(np.uint16)  # 255 * 255 < 2^16
            for c in range(channels):
                for d in range(c + 1):
                    product_CC[c, d] += (plane_CP[c] * plane_CP[d]).sum(dtype=np.uint64)
    return sum_SSC, np.tril(product_CC) + np.tril(product_CC, -1).T


def _is_usual(image: Image.Image, size: int) -> bool:
    """Whether the kernels resize this image. They are not given what needs no resizing, large images, which would be copied
    for them, and upright strips, whose columns some versions of Pillow resize first, which rounds differently."""
    pixels = image.width * image.height
    return min(image.size) != size and pixels <= MAX_PIXELS and image.height <= 2 * image.width


def _resized(sides: tuple[int, int], size: int) -> tuple[int, int]:
    width, height = sides
    short = min(sides)
    return width * size // short, height * size // short


def _crop_strip(image: Image.Image) -> Image.Image:
    longest = MAX_ASPECT * min(image.size)
    width, height = (min(side, longest) for side in image.size)
    if (width, height) == image.size:
        return image
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _resize_native(image: Image.Image, whole: tuple[int, int], corner: tuple[int, int], size: int) -> NDArray[np.uint8]:
    """The square of ``size`` pixels at ``corner`` (left, top) of ``image`` resized to ``whole`` (width, height)."""
    library, channels = KERNELS.library, len(image.getbands())
    stride = _taps(image.size, whole)
    start_2S, weight_2ST = np.empty((2, size), dtype=np.int32), np.empty((2, size, stride), dtype=np.int32)
    most_2 = np.empty(2, dtype=np.int64)
    for i in (0, 1):
        place = start_2S[i].ctypes.data, weight_2ST[i].ctypes.data, most_2[i:].ctypes.data
        library.weigh(image.size[i], whole[i], corner[i], size, stride, *place)
    first, end = int(start_2S[1, 0]), min(int(start_2S[1, -1] + most_2[1]), image.height)  # the rows that are needed
    start_2S[1] -= first
    row_bytes = image.width * channels
    pixels = image.tobytes()[first * row_bytes : end * row_bytes]
    out_SSC = np.empty((size, size, channels), dtype=np.uint8)
    across_HSC = np.empty((end - first, size, channels), dtype=np.uint8)
    wide = np.empty((image.width + stride + size) * channels + 8, dtype=np.int32)
    library.resize(
        pixels,
        out_SSC.ctypes.data,
        *(end - first, image.width, channels, size, stride, *most_2.tolist()),
        *(array.ctypes.data for array in (start_2S, weight_2ST, across_HSC, wide)),
    )
    return out_SSC if channels == 3 else out_SSC[:, :, 0]


def _taps(sides: tuple[int, int], whole: tuple[int, int]) -> int:
    """Source pixels below the triangle of one output, at most."""
    return max(2 * -(-before // after) + 1 for before, after in zip(sides, whole, strict=True))
