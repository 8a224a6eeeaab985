"""Files of more than 8 bits: every stored form comes out exactly, scaled by what is said to be white."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from alexnet.cli import main
from alexnet.core.errors import ImageError, UsageError
from alexnet.data import decode
from alexnet.data.apart import decode_apart
from alexnet.data.check import check
from alexnet.data.decode import decode_image
from alexnet.data.named import find_source
from alexnet.data.prepare import prepare, white_of_set
from alexnet.evaluation.predict import load
from odd_images import chunk, over_white, png, tiff

HEIGHT, WIDTH = 7, 11
RNG = np.random.default_rng(0)


def drawn(bits: int, *channels: int) -> NDArray[np.uint16]:
    """Samples of so many bits, with the smallest and the largest."""
    sample = RNG.integers(0, 1 << bits, (HEIGHT, WIDTH, *channels), dtype=np.uint16)
    sample.flat[:3], sample.flat[-3:] = 0, (1 << bits) - 1
    return sample


def scaled(sample: NDArray[np.uint16], white: int) -> NDArray[np.uint8]:
    """As it is written in the documentation, one sample at a time."""
    grey = [min(int(s), white) * 255 / white for s in sample.ravel()]
    rgb = np.floor(np.array(grey) + 0.5).astype(np.uint8).reshape(sample.shape)
    return np.repeat(rgb[:, :, None], 3, axis=2) if rgb.ndim == 2 else rgb


def pnm(sample: NDArray[np.uint16], peak: int, *, text: bool = False) -> bytes:
    kind = (2 if text else 5) + (sample.ndim == 3)
    body = " ".join(map(str, sample.ravel().tolist())).encode() if text else sample.astype(">u2").tobytes()
    return b"P%d\n%d %d\n%d\n" % (kind, WIDTH, HEIGHT, peak) + body


def planes(sample: NDArray[np.uint16], order: str = "<") -> bytes:
    data = [np.ascontiguousarray(sample[:, :, c]).astype(order + "u2").tobytes() for c in range(3)]
    return tiff(sample, {284: 2}, data=data, order=order)


def compressed(sample: NDArray[np.uint16], how: str, order: str = "<") -> bytes:
    """Grey by Pillow, which cannot write colors of 16 bits."""
    buffer = io.BytesIO()
    Image.fromarray(sample).save(buffer, "TIFF", compression=how)
    return buffer.getvalue()


GREYS = {
    "png": lambda s, _: png(s, 0, 16),
    "png interlaced": lambda s, _: png(s, 0, 16, interlaced=True),
    "tiff": lambda s, _: tiff(s),
    "tiff big-endian": lambda s, _: tiff(s, order=">"),
    "tiff lzw": lambda s, _: compressed(s, "tiff_lzw"),
    "tiff deflate": lambda s, _: compressed(s, "tiff_adobe_deflate"),
    "pgm": lambda s, _: pnm(s, 65535),
    "pgm of its own range": lambda s, peak: pnm(s, peak),
    "pgm as text": lambda s, peak: pnm(s, peak, text=True),
}
COLORS = {
    "png": lambda s, _: png(s, 2, 16),
    "png interlaced": lambda s, _: png(s, 2, 16, interlaced=True),
    "tiff": lambda s, _: tiff(s),
    "tiff big-endian": lambda s, _: tiff(s, order=">"),
    "tiff in planes": lambda s, _: planes(s),
    "tiff in planes, big-endian": lambda s, _: planes(s, ">"),
    "ppm": lambda s, _: pnm(s, 65535),
    "ppm of its own range": lambda s, peak: pnm(s, peak),
}


@pytest.mark.parametrize("bits", [9, 10, 12, 14, 16])
def test_each_stored_form_is_scaled_by_the_stated_maximum(bits: int) -> None:
    peak = (1 << bits) - 1
    for channels, forms in ((), GREYS), ((3,), COLORS):
        sample = drawn(bits, *channels)
        for name, form in forms.items():
            image = decode_image(form(sample, peak), name, peak)
            np.testing.assert_array_equal(np.asarray(image), scaled(sample, peak), err_msg=f"{name}, {channels}")
            assert image.info["samples"] == (peak, peak), name


def test_samples_above_the_maximum_become_white_and_are_counted() -> None:
    for channels, forms in ((), GREYS), ((3,), COLORS):
        sample = drawn(12, *channels)
        for name, form in forms.items():
            image = decode_image(form(sample, 4095), name, 3000)
            difference = np.asarray(image).astype(int) - scaled(sample, 3000)
            assert np.abs(difference).max() <= name.startswith("ppm"), name  # Pillow rounds halves to even
            if not name.startswith("ppm"):  # which Pillow cuts
                assert image.info["samples"] == (4095, 3000), name


def test_by_default_a_file_is_scaled_by_what_it_says_itself() -> None:
    sample = drawn(12)
    assert decode_image(pnm(sample, 4095)).info["samples"] == (65535, 65535)
    np.testing.assert_array_equal(np.asarray(decode_image(pnm(sample, 4095))), scaled(sample, 4095))
    np.testing.assert_array_equal(np.asarray(decode_image(png(sample, 0, 16))), scaled(sample, 65535))
    assert decode_image(png(sample, 0, 16)).info["samples"] == (4095, 65535)
    color = drawn(12, 3)  # of which the high bytes are read: at most 15 * 256 + 255
    np.testing.assert_array_equal(np.asarray(decode_image(png(color, 2, 16))), color >> 8)
    assert decode_image(png(color, 2, 16)).info["samples"] == (4095, 65535)
    assert "samples" not in decode_image(png(color.astype(np.uint8), 2)).info


def test_alpha_keeps_its_range_and_lies_over_white() -> None:
    sample = drawn(12, 4)
    sample[:, :, 3] = RNG.integers(0, 65536, (HEIGHT, WIDTH))
    expected = over_white(scaled(sample[:, :, :3], 4095), (sample[:, :, 3] >> 8).astype(np.uint8))
    for data in (png(sample, 6, 16), tiff(sample, {338: 2})):
        assert np.abs(np.asarray(decode_image(data, None, 4095)).astype(int) - expected).max() <= 1
    grey = sample[:, :, [0, 3]]
    expected = over_white(scaled(sample[:, :, 0], 4095), (sample[:, :, 3] >> 8).astype(np.uint8))
    assert np.abs(np.asarray(decode_image(png(grey, 4, 16), None, 4095)).astype(int) - expected).max() <= 1


def test_one_transparent_color_of_12_bits_is_one_color() -> None:
    # By their high bytes alone, 16 times 16 times 16 colors were transparent with it.
    sample = np.full((HEIGHT, WIDTH, 3), 1000, np.uint16)
    sample[2, 3] = 1001, 1002, 1003
    data = png(sample, 2, 16, before=chunk(b"tRNS", struct.pack(">3H", 1001, 1002, 1003)))
    pixels = np.asarray(decode_image(data, None, 4095))
    assert pixels[2, 3].tolist() == [255] * 3
    assert (pixels != 255).any(axis=2).sum() == HEIGHT * WIDTH - 1


def test_white_is_zero_is_turned_over_like_8_bits() -> None:
    sample = drawn(12)
    np.testing.assert_array_equal(
        np.asarray(decode_image(tiff(sample, {262: 0}), None, 4095)), 255 - scaled(sample, 4095)
    )
    np.testing.assert_array_equal(np.asarray(decode_image(tiff(sample, {262: 0}))), 255 - scaled(sample, 65535))


def test_in_strips_and_turned_the_values_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [png(drawn(12), 0, 16), png(drawn(12, 3), 2, 16), png(drawn(12, 4), 6, 16), tiff(drawn(12, 3), {274: 6})]
    files += [tiff(drawn(12), {262: 0, 274: 3})]
    whole = [decode_image(data, None, 4095) for data in files]
    monkeypatch.setattr(decode, "LARGE_PIXELS", 0)
    monkeypatch.setattr(decode, "_STRIP_PIXELS", 25)
    for data, expected in zip(files, whole, strict=True):
        image = decode_image(data, None, 4095)
        np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))
        assert image.info["samples"] == expected.info["samples"]


def test_files_of_8_bits_do_not_change(tmp_path: Path) -> None:
    for data in (png(drawn(8).astype(np.uint8), 0), png(drawn(8, 3).astype(np.uint8), 2)):
        np.testing.assert_array_equal(np.asarray(decode_image(data, None, 4095)), np.asarray(decode_image(data)))


def test_samples_that_pillow_computes_with_are_refused_with_the_way_out() -> None:
    with pytest.raises(
        ImageError, match=r"a\.tif: unsupported format \(samples stored as RGBa;16L cannot be scaled; save it as PNG\)"
    ):
        decode_image(tiff(drawn(12, 4), {338: 1}), "a.tif", 4095)


# A whole set ----------------------------------------------------------------------------------------------------------


def folder_of(path: Path, bits: int, *channels: int) -> Path:
    """Two classes of eight pictures; the largest sample of the set is that of so many bits."""
    for c in range(2):
        (path / f"class{c}").mkdir(parents=True)
        for i in range(8):
            sample = drawn(bits, *channels) // (1 + c)
            (path / f"class{c}" / f"{i}.png").write_bytes(png(sample, 2 if channels else 0, 16))
    return path


@pytest.mark.parametrize(
    ("bits", "share", "look"), [(10, "1.6%", "almost black"), (12, "6.2%", "almost black"), (14, "25.0%", "dark")]
)
@pytest.mark.parametrize("channels", [(), (3,)], ids=["grey", "color"])
def test_a_set_of_a_narrow_range_is_told(
    in_memory: Path, bits: int, share: str, look: str, channels: tuple[int, ...]
) -> None:
    root = folder_of(in_memory / "set", bits, *channels)
    expected = f"16 images of 16 bits use at most {share} of their range: they will be {look}; "
    assert check(root, workers=1)["notes"][0].startswith(expected)
    assert prepare(root, in_memory / "packed", size=8, workers=1).meta["notes"][0].startswith(expected)
    peak = (1 << bits) - 1
    for sample_max in (peak, "set"):
        assert not any("range" in note for note in check(root, workers=1, sample_max=sample_max)["notes"])
    assert check(root, workers=1, sample_max=peak // 4)["notes"][0] == (
        f"16 images of more than 8 bits have samples above {peak // 4}, up to {peak}: these become white; a larger "
        "--sample-max keeps them apart"
    )


def test_a_set_of_the_full_range_has_no_note_and_one_of_8_bits_no_largest_sample(in_memory: Path) -> None:
    root = folder_of(in_memory / "wide", 16)
    assert not any("range" in note for note in check(root, workers=1)["notes"])
    for i, path in enumerate(sorted(root.rglob("*.png"))):
        path.write_bytes(png(np.full((8, 8), i, np.uint8), 0))
    assert white_of_set(find_source(root), "set", workers=1) is None
    for wrong in (0, -1, 65536):
        with pytest.raises(
            UsageError, match=f"sample_max is {wrong}; it must be 'set', or at least 1 and at most 65535"
        ):
            white_of_set(find_source(root), wrong)


def test_the_maximum_of_the_set_is_that_of_its_training_images(in_memory: Path) -> None:
    root = in_memory / "set"
    for split, peak in (("train", 1000), ("val", 3000)):
        for c in range(2):
            (root / split / f"class{c}").mkdir(parents=True)
            sample = np.full((HEIGHT, WIDTH), peak // (1 + c), np.uint16)
            (root / split / f"class{c}" / "0.png").write_bytes(png(sample, 0, 16))
    packed = prepare(root, in_memory / "packed", size=4, workers=1, sample_max="set")
    assert packed.sample_max == packed.meta["protocol"]["sample_max"] == 1000
    for split, expected in (("train", [255, 128]), ("val", [255, 255])):
        images = packed.split(split)
        assert images.read(np.arange(2))[:, 0, 0, 0].tolist() == expected


def test_a_file_of_a_newer_kind_is_decoded_once_for_its_largest_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pillow_jxl", reason="JPEG XL is read with pillow-jxl-plugin")
    calls = []

    def counted(*given: object, **more: object) -> Image.Image:
        calls.append(given)
        return decode_apart(*given, **more)

    monkeypatch.setattr(decode, "decode_apart", counted)
    for sample, largest in ((np.full((8, 8), 4095, np.uint16), 4095), (np.full((8, 8), 255, np.uint8), 0)):
        file = io.BytesIO()
        Image.fromarray(sample).save(file, "JXL", lossless=True)
        assert decode.largest_sample(file.getvalue()) == largest
    assert len(calls) == 2
    assert decode.largest_sample(png(np.full((8, 8), 4095, np.uint16), 0, 16)) == 4095


def exit_code(*command: str) -> object:
    with pytest.raises(SystemExit) as left:
        main(list(command))
    return left.value.code


def test_a_model_scales_what_it_is_asked_as_what_it_learned(
    in_memory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, run = folder_of(in_memory / "set", 12), in_memory / "run"
    small = (
        "--epochs 1 --batch-size 4 --views 1 --threads 1 --model.conv-channels 2 2 2 2 2 --model.fc-units 4 4".split()
    )
    command = ["train", "quickstart", *small, "--data", str(root), "--out", str(run), "--workers", "1"]
    assert exit_code(*command, "--sample-max", "set") == 0
    predictor = load(run)
    assert predictor.preprocessing.sample_max == 4095
    assert predictor.preprocessing.resize == 56
    learned = prepare(root, in_memory / "stated", size=56, workers=1, sample_max=4095).split("train")
    for i in range(3):
        np.testing.assert_array_equal(predictor.pixels(str(root / learned.paths[i])), learned.read(np.array([i]))[0])
    assert exit_code("evaluate", str(run), "--data", str(root), "--json") == 0
    capsys.readouterr()
    prepare(root, in_memory / "plain", size=56, workers=1)
    assert exit_code("evaluate", str(run), "--data", str(in_memory / "plain")) == 2
    assert (
        capsys.readouterr()
        .err.rstrip()
        .endswith(
            "plain: its images of more than 8 bits were prepared without --sample-max; prepare them again with --sample-max 4095"
        )
    )
    assert exit_code("evaluate", str(run), "--data", str(in_memory / "stated")) == 0
