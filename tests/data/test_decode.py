from __future__ import annotations

import io
import os
import struct
import sys
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, TiffImagePlugin, features

from alexnet.core.errors import ImageError
from alexnet.data import decode
from alexnet.data.decode import decode_image, image_size
from odd_images import UPRIGHT


def encoded(image: Image.Image, fmt: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(decode_image(data))


def random_rgb(height: int = 8, width: int = 12) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("fmt", ["PNG", "WEBP", "TIFF", "JPEG"])
def test_exif_orientation_is_applied_once_in_every_format(fmt: str, orientation: int):
    stored = np.kron(random_rgb(3, 5), np.ones((16, 16, 1), dtype=np.uint8))  # blocks that JPEG keeps
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, object] = {"tiffinfo": {0x0112: orientation}} if fmt == "TIFF" else {"exif": exif}
    options |= {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(fmt, {})
    got = pixels(encoded(Image.fromarray(stored), fmt, **options))
    expected = UPRIGHT[orientation](stored)
    assert got.shape == expected.shape
    assert np.abs(got.astype(int) - expected).max() <= (6 if fmt == "JPEG" else 0)


def adobe_marker(data: bytes) -> int:
    return data.index(b"\xff\xee\x00\x0eAdobe")


def test_cmyk_with_adobe_marker_is_inverted_and_without_it_is_not():
    cyan0_magenta255_yellow255_key0 = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    marked = encoded(cyan0_magenta255_yellow255_key0, "JPEG", quality=100)  # Pillow marks, and stores inverted
    assert pixels(marked)[8, 8] == pytest.approx([255, 0, 0], abs=3)
    at = adobe_marker(marked)
    unmarked = marked[:at] + marked[at + 16 :]
    # Now the stored (255, 0, 0, 255) are meant as they are: full key is black.
    assert pixels(unmarked)[8, 8] == pytest.approx([0, 0, 0], abs=3)
    red_stored_plainly = encoded(Image.new("CMYK", (16, 16), (255, 0, 0, 255)), "JPEG", quality=100)
    at = adobe_marker(red_stored_plainly)
    assert pixels(red_stored_plainly[:at] + red_stored_plainly[at + 16 :])[8, 8] == pytest.approx([255, 0, 0], abs=3)


def test_ycck_is_converted_by_the_adobe_rule():
    # Stored Y 100, Cb 128, Cr 128 (no color), K 200, all inverted as Adobe does: ink C = M = Y = 100 after the inversion of
    # 255 - Y, K = 255 - 200, so R = G = B = (255 - 100) * 200 / 255 = 121.6.
    data = bytearray(encoded(Image.new("CMYK", (16, 16), (155, 127, 127, 55)), "JPEG", quality=100))
    data[adobe_marker(bytes(data)) + 15] = 2  # transform: YCCK
    assert pixels(bytes(data))[8, 8] == pytest.approx([121.6] * 3, abs=3)


@pytest.mark.parametrize("fmt", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_clipped(fmt: str):
    samples = np.array([[0, 128, 129, 255, 256, 25700, 40000, 65535]], dtype=np.uint16)
    expected = [0, 0, 1, 1, 1, 100, 156, 255]  # v * 255 / 65535, rounded
    got = pixels(encoded(Image.fromarray(samples), fmt))
    assert got[0, :, 0].tolist() == expected
    assert (got == got[:, :, :1]).all()


def test_twelve_bit_tiff_uses_its_own_range():
    image = Image.fromarray(np.array([[0, 2048, 4095, 4095]], dtype=np.uint16))
    data = bytearray(encoded(image, "TIFF", tiffinfo={}))
    at = data.index(struct.pack("<HHIHH", 258, 3, 1, 16, 0))  # BitsPerSample 16 -> 12, packed by hand
    data[at + 8 : at + 10] = struct.pack("<H", 12)
    values = [0, 2048, 4095, 4095]
    bits = "".join(f"{v:012b}" for v in values)
    packed = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
    start = data.index(np.array(values, dtype="<u2").tobytes())
    data[start : start + 8] = packed.ljust(8, b"\0")
    assert pixels(bytes(data))[0, :, 0].tolist() == [0, 128, 255, 255]


def test_transparency_lies_over_white():
    a, value = 64, 40
    over_white = round((value * a + 255 * (255 - a)) / 255)
    assert pixels(encoded(Image.new("RGBA", (4, 4), (value, value, value, a)), "PNG"))[0, 0] == pytest.approx(
        [over_white] * 3, abs=1
    )
    assert pixels(encoded(Image.new("LA", (4, 4), (value, a)), "PNG"))[0, 0] == pytest.approx([over_white] * 3, abs=1)
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    assert pixels(encoded(palette, "GIF", transparency=1)).min() == 255
    assert pixels(encoded(palette, "PNG", transparency=bytes([255, 0]))).min() == 255
    assert pixels(encoded(Image.new("RGB", (4, 4), (1, 2, 3)), "PNG", transparency=(1, 2, 3))).min() == 255
    assert pixels(encoded(palette, "PNG"))[0, 0].tolist() == [255, 0, 0]


def test_grey_and_bilevel_are_repeated():
    assert pixels(encoded(Image.new("L", (4, 4), 77), "PNG"))[0, 0].tolist() == [77] * 3
    assert pixels(encoded(Image.new("1", (4, 4), 1), "BMP"))[0, 0].tolist() == [255] * 3


@pytest.mark.parametrize("fmt", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_taken(fmt: str):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "lime", "blue")]
    options = {"lossless": True} if fmt == "WEBP" else {}
    data = encoded(frames[0], fmt, save_all=True, append_images=frames[1:], **options)
    assert pixels(data)[4, 4].tolist() == [255, 0, 0]


def test_of_a_multi_picture_jpeg_the_first_picture_is_taken():
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue")]
    image = decode_image(encoded(frames[0], "MPO", save_all=True, append_images=frames[1:]))
    assert image.getpixel((8, 8)) == pytest.approx((254, 0, 0), abs=3)
    assert image.info["format"] == "JPEG"


def png_header(width: int, height: int) -> bytes:
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    idat = b"IDAT" + zlib.compress(b"\0" * 100)
    chunks = [
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in (ihdr, idat)
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def scan_bomb(scans: int) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    data = encoded(Image.fromarray(random_rgb(64, 64)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


JPEG = encoded(Image.fromarray(random_rgb(40, 60)), "JPEG")
PNG = encoded(Image.fromarray(random_rgb(40, 60)), "PNG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (JPEG[:-2], "truncated"),
        (PNG[: len(PNG) // 2], "truncated"),
        (encoded(Image.new("RGB", (40, 40)), "BMP")[:200], "truncated"),
        (JPEG[:20], "damaged"),
        (b"hello, I am a text\n", "not an image"),
        (b"\0" * 5000, "not an image"),
        (b"<html><body>404</body></html>", "not an image"),
        (b"%PDF-1.4 ...", "unsupported format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported format"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 40, "damaged"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "unsupported format"),
        (encoded(Image.new("RGB", (16, 16)), "ICO"), "unsupported format"),
        (encoded(Image.new("F", (4, 4), 0.5), "TIFF"), "unsupported format"),
        (encoded(Image.new("I", (4, 4), 70000), "TIFF"), "unsupported format"),
        (png_header(50_000, 50_000), "too large"),
        (png_header(70_000, 10), "too large"),
        (scan_bomb(600), "too large"),
    ],
)
def test_what_cannot_be_decoded_is_refused_with_its_reason(data: bytes, reason: str):
    with pytest.raises(ImageError) as caught:
        decode_image(data, "some\nfile.jpg")
    assert caught.value.reason == reason
    assert str(caught.value).startswith("some\\nfile.jpg: ")
    assert "\n" not in str(caught.value)


def test_a_progressive_jpeg_of_the_usual_ten_scans_is_fine():
    assert pixels(encoded(Image.fromarray(random_rgb(64, 64)), "JPEG", progressive=True)).shape == (64, 64, 3)


def test_files_that_are_no_files_are_not_opened(tmp_path: Path):
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)  # opening it would wait for a writer forever
    for path, reason in [
        (pipe, "not an image"),
        (tmp_path, "not an image"),
        (Path("/dev/zero"), "not an image"),
        (tmp_path / "missing.jpg", "missing"),
        (Path("nul\0byte.jpg"), "damaged"),
    ]:
        with pytest.raises(ImageError) as caught:
            decode_image(path)
        assert caught.value.reason == reason


def test_a_file_beyond_the_size_limit_is_not_read(tmp_path: Path):
    huge = tmp_path / "huge.jpg"
    with open(huge, "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ImageError, match="too large"):
        decode_image(huge)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_says_so(tmp_path: Path):
    (tmp_path / "a.jpg").write_bytes(JPEG)
    (tmp_path / "a.jpg").chmod(0)
    with pytest.raises(ImageError, match="no permission"):
        decode_image(tmp_path / "a.jpg")


def test_decoding_ends_at_the_time_limit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(decode, "MAX_SECONDS", -1.0)
    with pytest.raises(ImageError, match=r"too large.*longer than"):
        decode_image(JPEG)


def jpeg_with_corrupt_exif() -> bytes:
    block = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0\xff\xff\xff\xff" * 3
    return JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + JPEG[2:]


def test_metadata_warnings_are_counted_and_not_printed(capfd: pytest.CaptureFixture[str]):
    image = decode_image(jpeg_with_corrupt_exif())
    assert image.info["warnings"]
    assert np.array_equal(np.asarray(image), pixels(JPEG))
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says which libraries a process has loaded")
def test_what_another_thread_says_while_a_damaged_tiff_is_decoded_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    damaged = bytearray(encoded(Image.fromarray(random_rgb(32, 32)), "TIFF", compression="tiff_adobe_deflate"))
    start = Image.open(io.BytesIO(damaged)).tag_v2[TiffImagePlugin.STRIPOFFSETS][0]
    damaged[start : start + 8] = bytes(8)  # of which libtiff has something to say
    load = TiffImagePlugin.TiffImageFile.load

    def beside(image: TiffImagePlugin.TiffImageFile) -> object:
        os.write(2, b"said meanwhile\n")
        return load(image)

    monkeypatch.setattr(TiffImagePlugin.TiffImageFile, "load", beside)
    with pytest.raises(ImageError):
        decode_image(bytes(damaged))
    assert set(capfd.readouterr().err.splitlines()) == {"said meanwhile"}


def test_threads_decode_at_once_and_leave_the_warning_filters_alone():
    before = list(warnings.filters)
    results: list[int] = []

    def work() -> None:
        results.extend(len(decode_image(jpeg_with_corrupt_exif()).info["warnings"]) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 80
    assert len(set(results)) == 1
    assert warnings.filters == before


def test_two_photographs_are_decoded_at_the_same_time(monkeypatch: pytest.MonkeyPatch):
    both, original, errors = threading.Barrier(2), ImageFile.ImageFile.load, []

    def load(image: ImageFile.ImageFile):
        both.wait(timeout=5)  # breaks where one is decoded after the other
        return original(image)

    def work() -> None:
        try:
            decode_image(JPEG)
        except ImageError as error:
            errors.append(error)

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


SEEDS = [
    JPEG,
    PNG,
    encoded(Image.fromarray(random_rgb()), "WEBP"),
    encoded(Image.fromarray(random_rgb()), "GIF"),
    encoded(Image.fromarray(random_rgb()), "BMP"),
    encoded(Image.fromarray(random_rgb()), "TIFF", compression="tiff_lzw"),
    encoded(Image.fromarray(random_rgb()), "PPM"),
    encoded(Image.fromarray(random_rgb()), "JPEG", progressive=True),
    jpeg_with_corrupt_exif(),
]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SEEDS), st.data())
def test_damage_gives_an_image_or_an_image_error_and_nothing_else(seed: bytes, data: st.DataObject):
    damaged = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    try:
        image = decode_image(bytes(damaged[: cut or None]))
    except ImageError:
        return
    assert image.mode == "RGB"


ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    KeyError,
    IndexError,
    AssertionError,
    AttributeError,
    TypeError,
    struct.error,
)
ERRORS += (RecursionError, MemoryError, EOFError, OverflowError, zlib.error, NotImplementedError, ZeroDivisionError)


@pytest.mark.parametrize("where", ["open", "getexif", "load", "convert", "has_transparency_data", "transpose"])
def test_whatever_pillow_raises_is_a_fault_of_the_file(where: str, monkeypatch: pytest.MonkeyPatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(random_rgb()).convert("P"), "PNG", exif=exif)
    for kind in ERRORS:

        def broken(*_: object, kind: type[Exception] = kind, **__: object) -> None:
            raise kind("boom")

        if where == "open":
            monkeypatch.setattr(Image, "open", broken)
        else:
            monkeypatch.setattr(Image.Image, where, property(broken) if where == "has_transparency_data" else broken)
        with pytest.raises(ImageError, match=r"^image: "):
            decode_image(data)


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_the_size_by_the_header_is_that_of_the_upright_image(fmt: str):
    exif = Image.Exif()
    exif[0x0112] = 6
    options: dict[str, object] = {"tiffinfo": {0x0112: 6}} if fmt == "TIFF" else {"exif": exif}
    data = encoded(Image.new("RGB", (30, 20)), fmt, **options)
    assert image_size(data) == decode_image(data).size == (20, 30)
    with pytest.raises(ImageError, match=r"a\.jpg: truncated|a\.jpg: damaged"):
        image_size(data[:20], "a.jpg")


def test_a_fault_of_our_own_does_not_hide_among_damaged_files(monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> None:
        raise KeyError("ours")

    monkeypatch.setattr(decode, "_check_size", broken)
    with pytest.raises(KeyError):
        decode_image(JPEG)


@pytest.mark.parametrize(
    ("data", "without", "said"),
    [
        (b"\0\0\0\x18ftypheic" + b"\0" * 40, "pillow_heif", 'HEIC; pip install "alexnet[formats]"'),
        (b"\0\0\0\x18ftypmif1\0\0\0\0heic" + b"\0" * 40, "pillow_heif", 'HEIC; pip install "alexnet[formats]"'),
        (b"\xff\x0a" + b"\0" * 40, "pillow_jxl", 'JPEG XL; pip install "alexnet[formats]"'),
        (b"\0\0\0\x20ftypavif" + b"\0" * 40, "avif", "AVIF; Pillow from 11.3 on reads it: pip install -U pillow"),
    ],
)
def test_a_format_whose_decoder_is_not_installed_is_refused_with_the_command_that_installs_it(
    data: bytes, without: str, said: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, without, None)
    monkeypatch.setattr(
        features, "modules", {name: module for name, module in features.modules.items() if name != without}
    )
    with pytest.raises(ImageError) as caught:
        decode_image(data, "a.jpg")
    assert str(caught.value) == f"a.jpg: unsupported format ({said})"


def test_tiffs_that_are_refused_say_the_way_out():
    page = Image.new("RGB", (8, 8))
    for data, said in (
        (
            encoded(page, "TIFF", save_all=True, append_images=[page]),
            "TIFF of several pages; save each page as a file of its own",
        ),
        (encoded(Image.new("F", (4, 4), 0.5), "TIFF"), "scale them to 8 or 16 bits and save them as PNG"),
    ):
        with pytest.raises(ImageError, match=said):
            decode_image(data, "a.tif")
