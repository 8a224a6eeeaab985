"""Data sets that need no network: drawn photographs (``shapes``), and real handwritten digits (``digits``).

A picture of ``shapes`` is one object before clutter, in the light, blur, noise and JPEG loss of a cheap camera. Eight
classes are told apart by form alone, eight by texture alone and eight by color alone; all else about the object is
drawn at random. So a network has to learn outlines, patterns and colors.
"""

from __future__ import annotations

import colorsys
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from alexnet.core import rng
from alexnet.core.errors import AlexNetError, UsageError, refused
from alexnet.core.runs import cache_folder, writable_cache
from alexnet.data.pool import in_processes
from alexnet.data.sources import HELD_OUT_NOTE, Record, Source, SplitName, fingerprint_of, hold_out

# Shape suffixes: H rows, W columns, C channels (RGB). Floats are colors on 0..1.
Array = NDArray[np.floating[Any]]

DIGITS_SIZE = 28
"""Side at which the 8 x 8 digits are stored: that of MNIST, which LeNet reads."""

DRAWING = 2
"""Version of the pictures: other numbers draw other pictures."""

FORMS = ("arrow", "crescent", "cross", "disk", "ring", "square", "star", "triangle")
TEXTURES = ("checks", "dots", "grain", "patches", "rings", "stripes-across", "stripes-down", "zigzag")
COLORS = {
    "red": 0.0,
    "orange": 0.085,
    "yellow": 0.16,
    "green": 0.34,
    "cyan": 0.50,
    "blue": 0.62,
    "purple": 0.76,
    "pink": 0.90,
}
"""Hue on 0..1."""
CLASSES = (
    *(f"form-{name}" for name in FORMS),
    *(f"texture-{name}" for name in TEXTURES),
    *(f"color-{name}" for name in COLORS),
)
TRAIN_IMAGES, VAL_IMAGES = 120, 25
"""Images of each class in the standard set."""
VAL_NUMBERS = 1_000_000
"""Number of the first validation picture of a class; training pictures count from 0."""


def digits(seed: int = 0) -> Source:
    """The 1,797 handwritten digits that come with scikit-learn (UCI optical recognition test set): grey, 8 x 8, values
    0..16 scaled to 0..255. One fifth of each class is held out, by a hash of seed and number."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UsageError('the set `digits` comes with scikit-learn: pip install "alexnet[probe]"') from None
    data = load_digits()
    image_NHW = np.rint(data.images * (255 / 16)).astype(np.uint8)
    records = [
        Record("train", int(label), f"digits/{i:04d}", data=image_HW[:, :, None])
        for i, (image_HW, label) in enumerate(zip(image_NHW, data.target, strict=True))
    ]
    return Source(
        classes=[str(label) for label in range(10)],
        records=hold_out(records, seed),
        fingerprint=fingerprint_of("digits", seed, image_NHW.tobytes().hex()),
        size=DIGITS_SIZE,
        channels=1,
        notes=[HELD_OUT_NOTE],
        held_out="hash",
    )


def shapes_folder(
    cache: str | Path | None = None,
    *,
    train: int = TRAIN_IMAGES,
    val: int = VAL_IMAGES,
    seed: int = 0,
    workers: int | None = None,
) -> Path:
    """The folder of the drawn set inside the folder ``cache``; drawn if it is not there."""
    folder = cache_folder(cache) / f"shapes-v{DRAWING}-{train}-{val}-seed{seed}"
    if folder.is_dir():
        return folder
    temporary = writable_cache("the drawn set shapes", cache) / f".{folder.name}.tmp-{os.getpid()}"
    try:
        draw_shapes(temporary, train=train, val=val, seed=seed, workers=workers)
        temporary.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # else another process was first
            raise AlexNetError(f"{refused(error, temporary)}, or set ALEXNET_CACHE to another folder") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def draw_shapes(
    folder: Path, *, train: int = TRAIN_IMAGES, val: int = VAL_IMAGES, seed: int = 0, workers: int | None = None
) -> None:
    """Write ``train/CLASS/*.jpg`` and ``val/CLASS/*.jpg`` below ``folder``, so many of each class. A picture is a
    function of seed, class, split and number: a larger set contains the smaller."""
    if train < 1 or val < 0:
        raise UsageError(f"shapes: train is {train}, val is {val}; each class needs at least one training image")
    counts: dict[SplitName, int] = {"train": train, "val": val}
    jobs = [_ClassJob(folder, split, name, count) for name in CLASSES for split, count in counts.items()]
    for _ in in_processes(partial(_draw_class, seed), jobs, workers):
        pass


@dataclass(frozen=True)
class _ClassJob:
    folder: Path
    split: SplitName
    name: str
    count: int


def _draw_class(seed: int, job: _ClassJob) -> None:
    folder = job.folder / job.split / job.name
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(job.count):
        picture = draw_picture(job.name, i if job.split == "train" else VAL_NUMBERS + i, seed)
        picture.save(folder / f"{job.name}-{i:05d}.jpg", quality=70 + i % 26)


def draw_picture(class_name: str, number: int, seed: int = 0) -> Image.Image:
    """One picture of a class, 120 to 600 pixels a side."""
    random = _Draws(seed, class_name, number)
    width, height = _frame(random)
    kind, _, detail = class_name.partition("-")
    background_HWC = _background(random, width, height)
    short = min(width, height)
    radius = short * random.between(0.30, 0.40)
    slack = short / 2 - 0.8 * radius  # the object stays inside the center square
    center = (
        width / 2 + slack * random.between(-0.35, 0.35),
        height / 2 + slack * random.between(-0.35, 0.35),
    )
    outline = FORM_OUTLINES[detail](random) if kind == "form" else _blob(random)
    inside_HW = _fill(outline, random.between(-0.25, 0.25), center, radius, width, height)
    if kind == "texture":
        object_HWC = _textured(random, TEXTURE_PATTERNS[detail], center, radius, width, height)
    else:
        hue = COLORS[detail] + random.between(-0.018, 0.018) if kind == "color" else random.between(0, 1)
        low_saturation = 0.75 if kind == "color" else 0.0
        color_C = _color(hue, random.between(low_saturation, 1.0), random.between(0.6, 1.0))
        background_HWC = _set_off(background_HWC, color_C)
        object_HWC = np.broadcast_to(color_C, (height, width, 3))
    x_W, y_H = ((np.arange(n, dtype=np.float32) - at) / radius for n, at in zip((width, height), center, strict=True))
    light = random.between(0, 2 * math.pi)  # where it comes from
    shade_HW = np.clip(1 + 0.22 * (x_W[None, :] * math.cos(light) + y_H[:, None] * math.sin(light)), 0.5, 1.4)
    picture_HWC = background_HWC + (object_HWC * shade_HW[:, :, None] - background_HWC) * inside_HW[:, :, None]
    return _photographed(random, picture_HWC)


class _Draws:
    """The random numbers of one picture, in the order in which it asks for them."""

    def __init__(self, seed: int, class_name: str, number: int) -> None:
        key = int(rng.keys(seed, f"shapes/{class_name}", 0, np.array([number]))[0])
        self.generator = np.random.Generator(np.random.PCG64(key))

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * float(self.generator.random())

    def integer(self, high: int) -> int:
        return int(self.generator.random() * high)

    def noise(self, *shape: int) -> Array:
        """Uniform on -1..1."""
        return self.generator.random(shape, dtype=np.float32) * 2 - 1


def _set_off(background_HWC: Array, color_C: Array) -> Array:
    """The background, darkened or lightened where it is so much like the object that nobody could see the outline."""
    mean_C = background_HWC.mean(axis=(0, 1))
    lacking = 0.35 - float(np.abs(mean_C - color_C).max())
    if lacking <= 0:
        return background_HWC
    shift = np.float32(lacking + 0.15)
    return background_HWC - shift if color_C.mean() > 0.4 else background_HWC + shift


def _frame(random: _Draws) -> tuple[int, int]:
    """Portrait, landscape or square, as photographs come."""
    aspect = (1.0, 4 / 3, 3 / 2, 3 / 4, 2 / 3, random.between(0.6, 1.7))[random.integer(6)]
    long = random.between(150, 600) if random.between(0, 1) < 0.12 else random.between(150, 300)
    width, height = (long, long / aspect) if aspect >= 1 else (long * aspect, long)
    return max(120, round(width)), max(120, round(height))


def _color(hue: float, saturation: float, value: float) -> Array:
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), dtype=np.float32)


def _muted(random: _Draws, strength: float) -> Array:
    """Any color, drawn towards grey."""
    color_C = _color(random.between(0, 1), random.between(0, 0.9), random.between(0.15, 1.0))
    return 0.5 + strength * (color_C - 0.5)


def _soft_noise(random: _Draws, cells: int, width: int, height: int) -> Array:
    """Smooth noise of about ``cells`` bumps across: (H, W), -1..1."""
    coarse = Image.fromarray(random.noise(cells + 1, cells + 1))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def _background(random: _Draws, width: int, height: int) -> Array:
    """A muted gradient with soft blotches, and clutter out of focus: bars and small polygons of any color."""
    a_C, b_C = (_muted(random, 0.55) for _ in range(2))
    mix_HW = 0.5 + 0.5 * _soft_noise(random, 1 + random.integer(4), width, height)
    ground_HWC = a_C + (b_C - a_C) * mix_HW[:, :, None]
    ground_HWC += 0.05 * _soft_noise(random, 12, width, height)[:, :, None]
    canvas = Image.fromarray((ground_HWC.clip(0, 1) * 255).astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    short = min(width, height)
    for _ in range(3 + random.integer(6)):
        x, y = random.between(0, width), random.between(0, height)
        color = tuple((_muted(random, 0.7) * 255).astype(int).tolist())
        if random.between(0, 1) < 0.5:
            angle, length = random.between(0, math.pi), short * random.between(0.1, 0.5)
            end = (x + length * math.cos(angle), y + length * math.sin(angle))
            draw.line([(x, y), end], fill=color, width=max(1, round(short * random.between(0.008, 0.03))))
        else:
            corners = 3 + random.integer(4)
            size = short * random.between(0.03, 0.08)
            turns = sorted(random.between(0, 2 * math.pi) for _ in range(corners))
            draw.polygon([(x + size * math.cos(t), y + size * math.sin(t)) for t in turns], fill=color)
    return np.asarray(canvas.filter(ImageFilter.BoxBlur(short * 0.012)), dtype=np.float32) / 255


# --- outlines: polygons around the origin, radius about 1; a second polygon is a hole ------------------------------

Polygon = list[tuple[float, float]]
Outline = list[Polygon]


def _circle(radius: float, stretch: float = 1.0) -> Polygon:
    turns = [2 * math.pi * i / 64 for i in range(64)]
    return [(radius * stretch * math.cos(t), radius / stretch * math.sin(t)) for t in turns]


def _corners(count: int, first: float, *radii: float) -> Polygon:
    """Corners at equal angles from ``first`` on, at the radii in turn."""
    turns = [first + 2 * math.pi * i / count for i in range(count)]
    return [(radii[i % len(radii)] * math.cos(t), radii[i % len(radii)] * math.sin(t)) for i, t in enumerate(turns)]


def _crescent(random: _Draws) -> Outline:
    """A disk and a bite out of it: three quarters of a circle, closed by a parabola through its inside."""
    outer = [(math.cos(t), math.sin(t)) for t in np.linspace(0.25 * math.pi, 1.75 * math.pi, 40)]
    tip = outer[-1]
    depth = random.between(0.9, 1.2)
    inner = [(tip[0] - depth * (1 - y * y / (tip[1] * tip[1])), y) for y in np.linspace(tip[1], -tip[1], 20)]
    return [outer + inner]


def _cross(random: _Draws) -> Outline:
    w = random.between(0.24, 0.36)
    corner = [(w, -1.0), (w, -w), (1.0, -w)]
    quarters = [[(x, y), (-y, x), (-x, -y), (y, -x)] for x, y in corner]
    return [[quarters[i][turn] for turn in range(4) for i in range(3)]]


def _arrow(random: _Draws) -> Outline:
    w = random.between(0.15, 0.25)
    return [[(-1, -w), (0.05, -w), (0.05, -0.75), (1, 0), (0.05, 0.75), (0.05, w), (-1, w)]]


FORM_OUTLINES: dict[str, Callable[[_Draws], Outline]] = {
    "arrow": _arrow,
    "crescent": _crescent,
    "cross": _cross,
    "disk": lambda random: [_circle(0.95, stretch=random.between(0.92, 1.08))],
    "ring": lambda random: [_circle(1.0), _circle(random.between(0.5, 0.65))],
    "square": lambda random: [_corners(4, math.pi / 4, 1.1)],
    "star": lambda random: [_corners(10, -math.pi / 2, 1.15, random.between(0.42, 0.52))],
    "triangle": lambda random: [_corners(3, -math.pi / 2, 1.15)],
}


def _blob(random: _Draws) -> Outline:
    """A lumpy closed curve that is none of the forms."""
    waves = [(k, random.between(0.08, 0.2) / math.sqrt(k - 1), random.between(0, 2 * math.pi)) for k in (2, 3, 4, 5)]
    points = []
    for i in range(72):
        t = 2 * math.pi * i / 72
        radius = 0.95 * (1 + sum(size * math.cos(k * t + phase) for k, size, phase in waves))
        points.append((radius * math.cos(t), radius * math.sin(t)))
    return [points]


def _fill(outline: Outline, turn: float, center: tuple[float, float], radius: float, width: int, height: int) -> Array:
    """How much of each pixel is inside, (H, W) on 0..1, smooth at the edge."""
    mask = Image.new("L", (width, height))
    draw = ImageDraw.Draw(mask)
    cos, sin = radius * math.cos(turn), radius * math.sin(turn)
    for i, polygon in enumerate(outline):
        points = [(center[0] + cos * x - sin * y, center[1] + sin * x + cos * y) for x, y in polygon]
        draw.polygon(points, fill=0 if i else 255)
    return np.asarray(mask.filter(ImageFilter.BoxBlur(max(0.6, radius / 70))), dtype=np.float32) / 255


# --- textures: 0..1 over coordinates measured in periods -----------------------------------------------------------

Pattern = Callable[[_Draws, Array, Array], Array]


def _unit(x_HW: Array) -> Array:
    return x_HW.clip(0, 1)


def _wave(x_HW: Array) -> Array:
    """A square wave with slightly soft edges."""
    return _unit(0.5 + 1.6 * np.sin(2 * math.pi * x_HW))


def _checks(random: _Draws, x_HW: Array, y_HW: Array) -> Array:
    return _unit(0.5 + 2.5 * np.sin(1.2 * math.pi * x_HW) * np.sin(1.2 * math.pi * y_HW))


def _dots(random: _Draws, x_HW: Array, y_HW: Array) -> Array:
    return _unit(10 * (0.34 - np.hypot(x_HW % 1 - 0.5, y_HW % 1 - 0.5)))


def _grain(random: _Draws, x_HW: Array, y_HW: Array) -> Array:
    return _cells(random, 30, x_HW, contrast=0.9)


def _patches(random: _Draws, x_HW: Array, y_HW: Array) -> Array:
    return _cells(random, 9, x_HW, contrast=4.0)


def _cells(random: _Draws, cells: int, x_HW: Array, contrast: float) -> Array:
    """Random blotches, ``cells`` of them across the picture."""
    height, width = x_HW.shape
    coarse = Image.fromarray(random.noise(cells, cells))
    return _unit(0.5 + contrast * np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)))


def _rings(random: _Draws, x_HW: Array, y_HW: Array) -> Array:
    return _wave(np.hypot(x_HW - random.between(-1, 1), y_HW - random.between(-1, 1)))


TEXTURE_PATTERNS: dict[str, Pattern] = {
    "checks": _checks,
    "dots": _dots,
    "grain": _grain,
    "patches": _patches,
    "rings": _rings,
    "stripes-across": lambda random, x_HW, y_HW: _wave(y_HW),
    "stripes-down": lambda random, x_HW, y_HW: _wave(x_HW),
    "zigzag": lambda random, x_HW, y_HW: _wave(0.8 * y_HW + 0.9 * np.abs((0.6 * x_HW) % 1 - 0.5) * 2),
}


def _textured(
    random: _Draws, pattern: Pattern, center: tuple[float, float], radius: float, width: int, height: int
) -> Array:
    """Two colors of clearly different brightness, mixed by the pattern: (H, W, 3)."""
    dark_C = _color(random.between(0, 1), random.between(0, 0.9), random.between(0.1, 0.4))
    light_C = _color(random.between(0, 1), random.between(0, 0.5), random.between(0.75, 1.0))
    period = radius * random.between(0.32, 0.48)
    turn = random.between(-0.2, 0.2)
    cos, sin = math.cos(turn) / period, math.sin(turn) / period
    x_1W = np.arange(width, dtype=np.float32)[None, :] - center[0]
    y_H1 = np.arange(height, dtype=np.float32)[:, None] - center[1]
    mix_HW = pattern(random, cos * x_1W + sin * y_H1, cos * y_H1 - sin * x_1W)
    if random.between(0, 1) < 0.5:
        dark_C, light_C = light_C, dark_C
    return dark_C + (light_C - dark_C) * mix_HW[:, :, None]


def _photographed(random: _Draws, picture_HWC: Array) -> Image.Image:
    """Light, blur and noise."""
    height, width, _ = picture_HWC.shape
    picture_HWC = picture_HWC * (1 + 0.15 * _soft_noise(random, 2, width, height)[:, :, None])
    picture_HWC = picture_HWC * random.between(0.8, 1.1) + random.between(0.03, 0.05) * random.noise(height, width, 1)
    image = Image.fromarray((picture_HWC.clip(0, 1) * 255).astype(np.uint8))
    return image.filter(ImageFilter.BoxBlur(random.between(0.2, 0.004 * min(width, height))))
