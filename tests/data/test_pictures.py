"""Which forms of pictures are taken, in which order, and what is refused rather than guessed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from alexnet.core.errors import ImageError
from alexnet.data.decode import decode_image
from alexnet.data.pictures import is_one, pictures

RGB_HWC = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)


def pixels(given: Any) -> list[np.ndarray]:
    return [np.asarray(picture.decode()) for picture in pictures(given)]


@pytest.mark.parametrize(
    "given",
    [
        RGB_HWC[..., 0],
        RGB_HWC[..., :1],
        torch.from_numpy(RGB_HWC[..., 0].copy()),
        torch.from_numpy(RGB_HWC[..., 0].copy())[None],
        Image.fromarray(RGB_HWC[..., 0]),
        RGB_HWC[..., 0] / 255,
    ],
)
def test_one_channel_is_grey(given: Any) -> None:
    (found,) = pixels(given)
    assert np.array_equal(found, np.repeat(RGB_HWC[..., :1], 3, axis=2))


def test_floating_samples_are_rounded_to_the_256_of_a_file() -> None:
    (found,) = pixels(np.array([[0.0, 0.001, 0.5, 1.0, -0.0019, 1.0019]], np.float32))
    assert found[0, :, 0].tolist() == [
        0,
        0,
        128,
        255,
        0,
        255,
    ]  # 0.255; 127.5, which goes to the even number; half a step is 0.00196


def test_an_open_file_is_read_from_its_start_and_stays_open(tmp_path: Path) -> None:
    memory = io.BytesIO()
    Image.fromarray(RGB_HWC).save(memory, "PNG")  # which leaves it at its end
    (tmp_path / "a.png").write_bytes(memory.getvalue())
    with open(tmp_path / "a.png", "rb") as file, open(tmp_path / "a.png", "rb", buffering=0) as raw:
        found = list(pictures([memory, memory, file, raw]))
        assert not file.closed
    assert [picture.name for picture in found] == ["input 0", "input 1", *[str(tmp_path / "a.png")] * 2]
    assert all(np.array_equal(picture.decode(), RGB_HWC) for picture in found)


def test_a_batch_is_its_pictures_and_lists_may_be_mixed(tmp_path: Path) -> None:
    Image.fromarray(RGB_HWC).save(tmp_path / "a.png")
    tensor = torch.from_numpy(RGB_HWC.copy()).permute(2, 0, 1)
    mixed = [tmp_path, tensor[None].repeat(2, 1, 1, 1), RGB_HWC[None], (tmp_path / "a.png").read_bytes()]
    found = list(pictures(mixed))
    assert [picture.name for picture in found] == [
        str(tmp_path / "a.png"),
        *("input 1[0]", "input 1[1]", "input 2[0]", "input 3"),
    ]
    assert all(np.array_equal(picture.decode(), RGB_HWC) for picture in found)


@pytest.mark.parametrize(
    ("given", "one"),
    [
        ("a.jpg", True),
        (Path("a.jpg"), True),
        (b"", True),
        (io.BytesIO(), True),
        (RGB_HWC, True),
        (RGB_HWC[None], False),
        (["a.jpg"], False),
        (iter(["a.jpg"]), False),
        (Path(__file__).parent, False),
    ],
)
def test_one_picture_is_told_from_several(given: Any, one: bool) -> None:
    assert is_one(given) is one


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "NoneType is no picture; a picture is a path, the bytes"),
        (7, "int is no picture"),
        ({"a.jpg": 1}, "dict is no picture"),
        (io.StringIO("a.jpg"), "StringIO is no picture"),
        (torch.zeros(3, 4, 4).to_sparse(), "input 0 is a tensor without its samples in memory"),
        (torch.zeros(3, 4, 4, device="meta"), "input 0 is a tensor without its samples in memory"),
        (["a.jpg", 7], "input 1 is int; a picture is"),
        ([["a.jpg"]], "input 0 is list"),
        (RGB_HWC.astype(np.int64), "input 0 is numpy.ndarray of int64"),
        (RGB_HWC > 3, "input 0 is numpy.ndarray of bool"),
        (np.array(["a.jpg"]), "of <U5"),
        (torch.zeros(3, 4, 4, dtype=torch.int32), r"input 0 is torch.Tensor of torch.int32"),
    ],
)
def test_another_type_is_a_type_error_before_any_picture_is_read(given: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        pictures(given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (torch.zeros(4, 6, 3), r"shape \(4, 6, 3\); if its channels are last, take x.permute\(2, 0, 1\)"),
        (torch.zeros(2, 4, 6, 3), r"take x.permute\(0, 3, 1, 2\)"),
        (np.zeros((5, 6, 4), np.uint8), r"if its fourth channel is alpha, take x\[..., :3\]"),
        (torch.zeros(4, 5, 6), r"take x\[:3\]"),
        (torch.zeros(2, 4, 5, 6), r"take x\[:, :3\]"),
        (np.zeros(4, np.uint8), r"of shape \(4,\); a picture is"),
        (np.zeros((3, 4, 6)), r"if its channels are first, take x.transpose\(1, 2, 0\)"),
        (np.zeros((2, 3, 4, 6)), r"take x.transpose\(0, 2, 3, 1\)"),
        (np.zeros((4, 6, 5)), r"shape \(4, 6, 5\); a picture is"),
        (np.zeros((5, 1, 4, 6, 3)), r"shape \(5, 1, 4, 6, 3\); a picture is"),
        (np.zeros(3), r"shape \(3,\); a picture is"),
        (np.zeros((0, 6, 3)), r"shape \(0, 6, 3\)"),
        (
            torch.full((3, 4, 4), 2.0),
            "input 0 has floating-point samples from 2 to 2; they must be from 0 to 1, or uint8",
        ),
        (np.full((4, 4), -0.1), "from -0.1 to -0.1"),
        (np.full((4, 4), 1 + 0.5 / 255), "from 1.00196 to 1.00196"),
        ([RGB_HWC, np.full((4, 4), np.nan)], "input 1 has floating-point samples from nan"),
    ],
)
def test_shapes_and_samples_that_could_be_meant_in_two_ways_are_refused(given: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        list(pictures(given))


def test_an_image_of_pillow_is_read_as_its_file_and_left_as_it_is(tmp_path: Path) -> None:
    rgba = Image.fromarray(np.dstack([RGB_HWC, RGB_HWC[..., 0]]))
    palette = Image.fromarray(RGB_HWC).quantize(5)
    cmyk = Image.fromarray(RGB_HWC).convert("CMYK")
    exif = Image.Exif()
    exif[274] = 5
    rgba.save(tmp_path / "a.png", exif=exif)
    palette.save(tmp_path / "b.png", transparency=2)
    cmyk.save(tmp_path / "c.jpg")
    cmyk.save(
        tmp_path / "d.tif", exif=exif, compression="tiff_lzw"
    )  # Pillow maps uncompressed ones, and turns them wrongly
    Image.fromarray(RGB_HWC[..., 0].astype(np.uint16) * 200).save(tmp_path / "e.png")
    Image.fromarray(RGB_HWC).convert("1").save(tmp_path / "f.gif")
    for file in sorted(tmp_path.iterdir()):
        expected = np.asarray(decode_image(file))
        with Image.open(file) as image:
            assert [np.array_equal(found, expected) for found in pixels([image, image])] == [True, True], file.name
            with Image.open(file) as fresh:
                assert image.copy().tobytes() == fresh.tobytes()  # still open, and not turned


def test_what_pillow_cannot_load_is_a_fault_of_that_image(tmp_path: Path) -> None:
    Image.fromarray(RGB_HWC.repeat(50, axis=0)).save(tmp_path / "a.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-200])
    with Image.open(tmp_path / "cut.jpg") as image, pytest.raises(ImageError, match=r"cut\.jpg: truncated"):
        pixels(image)
    (wide,) = pictures(Image.new("F", (4, 4)))
    with pytest.raises(ImageError, match="input 0: unsupported format"):
        wide.decode()
