from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from alexnet.data.builtin import CLASSES, COLORS, digits, draw_picture, draw_shapes, shapes_folder
from alexnet.data.prepare import prepare


def test_a_picture_is_a_function_of_seed_class_and_number():
    a = np.asarray(draw_picture("form-star", 7))
    assert np.array_equal(a, np.asarray(draw_picture("form-star", 7)))
    assert not np.array_equal(a, np.asarray(draw_picture("form-star", 7, seed=1)))
    assert not np.array_equal(a, np.asarray(draw_picture("form-ring", 7)))


def test_twenty_four_classes_of_portraits_landscapes_and_squares():
    assert len(CLASSES) == len(set(CLASSES)) == 24
    sizes = [draw_picture(name, number).size for name in CLASSES for number in range(6)]
    assert min(min(size) for size in sizes) >= 120
    assert 300 < max(max(size) for size in sizes) <= 600
    assert len(set(sizes)) > 80
    assert {np.sign(width - height) for width, height in sizes} == {-1, 0, 1}


def test_the_set_is_jpeg_files_and_a_larger_one_contains_the_smaller(tmp_path: Path):
    draw_shapes(tmp_path / "small", train=1, val=1, workers=1)
    draw_shapes(tmp_path / "large", train=2, val=1, workers=2)
    small = {path.relative_to(tmp_path / "small"): path.read_bytes() for path in (tmp_path / "small").rglob("*.jpg")}
    large = {path.relative_to(tmp_path / "large"): path.read_bytes() for path in (tmp_path / "large").rglob("*.jpg")}
    assert (len(small), len(large)) == (48, 72)
    assert small.items() < large.items()
    assert all(data.startswith(b"\xff\xd8\xff") for data in small.values())
    assert len(set(large.values())) == 72


def test_a_drawn_folder_is_drawn_once(tmp_path: Path):
    folder = shapes_folder(tmp_path, train=1, val=1, workers=1)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.jpg")}
    assert shapes_folder(tmp_path, train=1, val=1) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.jpg")} == times
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def center_hue(name: str, number: int) -> float:
    """Hue of the middle of a picture, by the hexcone formula written out."""
    image = np.asarray(draw_picture(name, number), dtype=np.float64) / 255
    height, width, _ = image.shape
    r, g, b = np.median(image[height // 2 - 8 : height // 2 + 8, width // 2 - 8 : width // 2 + 8], axis=(0, 1))
    high, spread = max(r, g, b), max(r, g, b) - min(r, g, b)
    if high == r:
        return float((g - b) / spread / 6 % 1)
    return float((2 + (b - r) / spread) / 6 if high == g else (4 + (r - g) / spread) / 6)


def test_the_color_classes_differ_by_hue_and_nothing_else():
    for name, hue in COLORS.items():
        for number in range(5):
            distance = abs(center_hue(f"color-{name}", number) - hue)
            assert min(distance, 1 - distance) < 0.035, (name, number)


def test_texture_classes_are_told_by_their_frequencies():
    # Vertical stripes change along rows, horizontal ones along columns; the object fills the center.
    for number in range(5):
        for name, axis in (("texture-stripes-down", 1), ("texture-stripes-across", 0)):
            grey = np.asarray(draw_picture(name, number).convert("L"), dtype=np.float64)
            quarter = min(grey.shape) // 8
            y, x = grey.shape[0] // 2, grey.shape[1] // 2
            middle = grey[y - quarter : y + quarter, x - quarter : x + quarter]
            along, across = (np.abs(np.diff(middle, axis=a)).mean() for a in (axis, 1 - axis))
            assert along > 1.5 * across, (name, number)


def test_digits_are_the_real_ones(tmp_path: Path):
    pytest.importorskip("sklearn")
    source = digits()
    assert len(source.records) == 1797
    assert (source.size, source.channels) == (28, 1)
    values = np.concatenate([np.asarray(record.read()).ravel() for record in source.records])
    assert (values.min(), values.max()) == (0, 255)
    val = np.bincount([r.label for r in source.records if r.split == "val"])
    every = np.bincount([r.label for r in source.records])
    assert val.tolist() == [round(0.2 * n) for n in every]
    assert prepare(source, tmp_path / "packed", workers=1).split("val").read(np.arange(2)).shape == (2, 28, 28, 1)
