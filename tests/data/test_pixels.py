"""Resizing and sums: the same values by the compiled kernels and by Pillow and NumPy."""

from __future__ import annotations

import time

import numpy as np
import pytest
from PIL import Image

from alexnet.data.pixels import KERNELS, color_moments, resize_and_crop, resize_short_side


@pytest.fixture(params=["compiled", "Pillow"], autouse=True)
def path(request, monkeypatch):
    """Every test here runs with the compiled kernels and with Pillow."""
    if request.param == "Pillow":
        monkeypatch.setattr(KERNELS, "available", lambda **_: False)
    elif not KERNELS.available(build=True):
        pytest.skip(f"the kernels cannot be compiled here: {KERNELS.failure}")
    return request.param


def random_rgb(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 31 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def by_pillow(image: Image.Image, size: int) -> np.ndarray:
    short = min(image.size)
    width, height = image.width * size // short, image.height * size // short
    left, top = (width - size) // 2, (height - size) // 2
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [1, 7, 28, 64, 256])
def test_every_value_is_pillows(size: int, mode: str):
    sides = np.exp(np.random.default_rng(size).uniform(0, 6.3, (60, 2))).astype(int)  # 1 to 544 pixels
    sides = np.vstack([sides, sides[:10, :1] * [1, 2] + [0, 1], [[500, 375], [375, 500], [256, 256], [512, 256]]])
    for height, width in sides[sides.max(axis=1) < 50 * sides.min(axis=1)]:
        image = Image.fromarray(random_rgb(height, width)).convert(mode)
        assert np.array_equal(resize_and_crop(image, size), by_pillow(image, size)), (height, width)


def test_white_stays_white():
    # Weights are rounded to multiples of 2^-22 and need not sum to 1; still no value may run over.
    for side in (257, 300, 1023, 4000):
        white = Image.fromarray(np.full((side, side + 1, 3), 255, dtype=np.uint8))
        assert resize_and_crop(white, 256).min() == 255


def test_short_side_256_and_center_square():
    image = Image.fromarray(random_rgb(300, 501))
    expected = image.resize((501 * 256 // 300, 256), Image.Resampling.BILINEAR)  # 427 x 256
    assert np.array_equal(np.asarray(resize_short_side(image, 256)), np.asarray(expected))
    left = (427 - 256) // 2  # 85, rounded down from 85.5
    assert np.array_equal(resize_and_crop(image, 256), np.asarray(expected)[:, left : left + 256])


def test_shrinking_averages_over_all_source_pixels():
    # A fine checkerboard of 0 and 255 becomes flat grey only if every pixel takes part; plain bilinear interpolation
    # would return 0s and 255s.
    board = np.indices((512, 512)).sum(axis=0) % 2 * 255
    grey = resize_and_crop(Image.fromarray(np.dstack([board] * 3).astype(np.uint8)), 64)[4:-4, 4:-4]
    assert grey.min() >= 126
    assert grey.max() <= 129


def test_an_image_of_the_right_size_is_kept_as_it_is():
    stored = random_rgb(32, 32)
    assert np.array_equal(resize_and_crop(Image.fromarray(stored), 32), stored)


@pytest.mark.parametrize("shape", [(20000, 1), (1, 20000), (1, 1), (3, 50)])
def test_extreme_strips_cost_little(shape: tuple[int, int]):
    start = time.perf_counter()
    image = Image.fromarray(random_rgb(*shape))
    assert resize_and_crop(image, 256).shape == (256, 256, 3)
    assert max(resize_short_side(image, 256).size) <= 50 * 256
    assert time.perf_counter() - start < 2


def test_of_a_strip_the_middle_is_kept():
    strip = np.zeros((2, 1000, 3), dtype=np.uint8)
    strip[:, 450:550] = 200  # the middle 50:1
    assert resize_and_crop(Image.fromarray(strip), 16).min() == 200
    assert np.asarray(resize_short_side(Image.fromarray(strip), 16)).min() == 200


# --- sums -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bright", [False, True])
def test_sums_are_exact(channels: int, bright: bool):
    image_NSSC = np.random.default_rng(0).integers(0, 256, (3, 250, 250, channels), dtype=np.uint8)
    if bright:
        image_NSSC[:] = 255
    sum_SSC, product_CC = color_moments(image_NSSC)
    exact_NPC = image_NSSC.reshape(3, -1, channels).astype(object)
    assert np.array_equal(sum_SSC, image_NSSC.astype(np.int64).sum(axis=0))
    expected = sum(image_PC.T @ image_PC for image_PC in exact_NPC)
    assert product_CC.tolist() == expected.tolist()


def test_sums_of_nothing_are_zero():
    sum_SSC, product_CC = color_moments(np.zeros((0, 4, 4, 3), dtype=np.uint8))
    assert sum_SSC.shape == (4, 4, 3)
    assert not sum_SSC.any()
    assert not product_CC.any()
