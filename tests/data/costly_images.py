"""Legal images at the limits, and small files that ask for much: what they must come out as, and what each costs in a
process of its own."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from odd_images import (
    ADAM7,
    PICTURE,
    PNG_MAGIC,
    RGB,
    UPRIGHT,
    bmp,
    by_pillow,
    chunk,
    exif_block,
    over_white,
    palette_image,
    png,
    repeated,
    scan_bomb,
    tiff,
    to_8_bits,
)

MAX_SECONDS = 10.0
MAX_MEGABYTES = 700.0
"""Of one image, decoded and resized; memory above that of the interpreter with everything imported."""

SIDE = 9458
"""9458 x 9458 is just below 89,478,485 pixels."""
CORNERS = np.array([[[200, 30, 40], [30, 190, 60]], [[40, 50, 210], [230, 220, 40]]], dtype=np.uint8)
"""Colors of the four quarters of a large image."""
TURNED = UPRIGHT[6]


@dataclass(frozen=True)
class Costly:
    """``quarters``: colors of the quarters of what comes out, upright; or a ``reason``; neither: anything within the
    limits."""

    file: str
    write: Callable[[], bytes]
    quarters: NDArray[np.uint8] | None = None
    reason: str = ""


def in_quarters(colors: NDArray[np.generic], height: int = SIDE, width: int = SIDE) -> NDArray[np.generic]:
    """(2, 2) or (2, 2, C) samples, each over a quarter."""
    rows = np.repeat(colors, [width // 2, width - width // 2], axis=1)
    return np.repeat(rows, [height // 2, height - height // 2], axis=0)


def _png(
    colors: NDArray[np.generic], color: int, bits: int = 8, before: bytes = b"", interlaced: bool = False
) -> bytes:
    """As ``odd_images.png``, without filters, for samples of whole bytes."""
    stream, data = zlib.compressobj(1), []
    for r, c, dr, dc in ADAM7 if interlaced else [(0, 0, 1, 1)]:
        for half in (0, 1):  # all rows of a half are the same
            rows = len(range(r, SIDE, dr)) - len(range(r, SIDE // 2, dr)) if half else len(range(r, SIDE // 2, dr))
            row = in_quarters(colors, 2)[half, c::dc]
            data.append(stream.compress((b"\0" + row.astype(">u2" if bits == 16 else "u1").tobytes()) * rows))
    header = struct.pack(">IIBBBBB", SIDE, SIDE, bits, color, 0, 0, interlaced)
    idat = chunk(b"IDAT", b"".join([*data, stream.flush()]))
    return PNG_MAGIC + chunk(b"IHDR", header) + before + idat + chunk(b"IEND", b"")


def _jpeg(mode: str = "RGB", *, turn: int = 1, plain: bool = False, scans: int = 0, **options: object) -> bytes:
    """``plain``: without Adobe's marker. ``scans``: the last repeated to have so many."""
    rgb = in_quarters(CORNERS).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = turn
    data = by_pillow(Image.fromarray(rgb).convert(mode), "JPEG", **({"quality": 90, "exif": exif} | options))
    if plain:
        at = data.index(b"\xff\xee\0\x0eAdobe")
        data = data[:at] + data[at + 16 :]
    if scans:
        last = data.rindex(b"\xff\xda")
        data = data[:last] + data[last:-2] * (scans - data.count(b"\xff\xda") + 1) + data[-2:]
    return data


def _padded_jpeg(length: int) -> bytes:
    return _jpeg(turn=6).ljust(length, b"\0")


def _tiff(turn: int = 1) -> bytes:
    rgb = in_quarters(CORNERS).astype(np.uint8)
    strips = [zlib.compress(rgb[top : top + 64].tobytes(), 1) for top in range(0, SIDE, 64)]
    return tiff(rgb, {259: 8, 278: 64, 274: turn}, data=strips)


def _gif(**options: object) -> bytes:
    index = in_quarters(np.arange(4).reshape(2, 2)).astype(np.uint8)
    return by_pillow(palette_image(index, CORNERS.reshape(4, 3)), "GIF", **options)


def _webp(colors: NDArray[np.uint8], side: int, turn: int = 1, **options: object) -> bytes:
    exif = b"Exif\0\0" + exif_block(turn)
    return by_pillow(in_quarters(colors, side, side), "WEBP", method=0, exif=exif, **options)


def _newer(fmt: str, side: int, **options: object) -> bytes:
    import pillow_heif
    import pillow_jxl  # noqa: F401

    pillow_heif.register_heif_opener()
    return by_pillow(in_quarters(CORNERS, side, side).astype(np.uint8), fmt, **options)


def _strip(width: int, height: int) -> bytes:
    color = tuple(map(int, CORNERS[0, 0]))
    return by_pillow(Image.new("RGB", (width, height), color), "JPEG", quality=100, subsampling=0)


def _frames(fmt: str, number: int, **options: object) -> bytes:
    frames = [Image.fromarray(np.roll(PICTURE, i, axis=1)) for i in range(24)]
    return by_pillow(frames[0], fmt, save_all=True, append_images=[frames[i % 24] for i in range(1, number)], **options)


def _run_lengths(side: int) -> bytes:
    row = b"\xff\x01" * (side // 255) + bytes([side % 255, 1]) + b"\0\0"
    return bmp([row * side, b"\0\1"], 8, table=bytes(1024), compression=1, size=(side, side))


def _vast_tile() -> bytes:
    return tiff(RGB, {259: 8}, tile=(30_000, 30_000), data=[zlib.compress(bytes(1 << 28), 1)])


def _vast_notes() -> bytes:
    return png(RGB, 2, before=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 20))) * 100)


def _vast_exif() -> bytes:
    """5000 tags that all claim the same 40 MB."""
    tags = b"".join(struct.pack("<HHII", 0x9000 + i, 7, 40 << 20, 8) for i in range(5000))
    return png(RGB, 2, before=chunk(b"eXIf", exif_block(1, extra=tags) + bytes(40 << 20)))


def _text(number: int) -> bytes:
    return b"P3\n4000 2500\n255\n" + b"1 " * number


def _few_levels(side: int) -> bytes:
    return b"P5\n%d %d\n15\n" % (side, side) + bytes(side * side)


def costly_kinds() -> Iterator[Costly]:
    clear = np.array([[255, 255], [255, 0]], dtype=np.uint8)
    rgba = np.dstack([CORNERS, clear])
    seen = over_white(CORNERS, clear)
    wide = np.array([[1000, 60_000], [30_000, 45_000]], dtype=np.uint16)
    grey = repeated(to_8_bits(wide))
    grey_alpha = np.dstack([grey[:, :, 0], clear])
    luma = repeated(np.rint(CORNERS @ np.array([0.299, 0.587, 0.114])))
    exif = chunk(b"eXIf", exif_block(6))
    index = np.arange(4).reshape(2, 2)
    palette = chunk(b"PLTE", CORNERS.tobytes()) + chunk(b"tRNS", b"\xff\xff\xff\0")
    black = np.zeros_like(CORNERS)  # inks stored inverted and read as they are: a key of 255

    yield Costly("large-rgb.png", partial(_png, CORNERS, 2), CORNERS)
    yield Costly("large-rgb-turned.png", partial(_png, CORNERS, 2, 8, exif), TURNED(CORNERS))
    yield Costly("large-rgb-interlaced.png", partial(_png, CORNERS, 2, interlaced=True), CORNERS)
    yield Costly("large-rgba.png", partial(_png, rgba, 6), seen)
    yield Costly("large-rgba-turned.png", partial(_png, rgba, 6, 8, exif), TURNED(seen))
    yield Costly("large-rgba-16-bits.png", partial(_png, rgba.astype(int) * 257, 6, 16), seen)
    yield Costly("large-grey-16-bits.png", partial(_png, wide, 0, 16), grey)
    yield Costly("large-grey-16-bits-turned.png", partial(_png, wide, 0, 16, exif), TURNED(grey))
    yield Costly("large-grey-alpha.png", partial(_png, grey_alpha, 4), over_white(grey, clear))
    yield Costly("large-palette-transparent.png", partial(_png, index, 3, 8, palette), seen)
    yield Costly("large-rgb.jpg", _jpeg, CORNERS)
    yield Costly("large-rgb-turned.jpg", partial(_jpeg, turn=6), TURNED(CORNERS))
    yield Costly("large-grey.jpg", partial(_jpeg, "L"), luma)
    yield Costly("large-cmyk.jpg", partial(_jpeg, "CMYK"), CORNERS)
    yield Costly("large-cmyk-turned.jpg", partial(_jpeg, "CMYK", turn=6), TURNED(CORNERS))
    yield Costly("large-cmyk-unmarked.jpg", partial(_jpeg, "CMYK", plain=True), black)
    yield Costly("large-progressive.jpg", partial(_jpeg, progressive=True), CORNERS)
    yield Costly("large-40-scans.jpg", partial(_jpeg, progressive=True, scans=40), CORNERS)
    yield Costly("large-of-64-mebibytes-turned.jpg", partial(_padded_jpeg, 64 << 20), TURNED(CORNERS))
    yield Costly("large-rgb.tif", _tiff, CORNERS)
    yield Costly("large-rgb-turned.tif", partial(_tiff, 6), TURNED(CORNERS))
    yield Costly("large.gif", _gif, CORNERS)
    yield Costly("large-transparent.gif", partial(_gif, transparency=3), seen)
    yield Costly("40-megapixels.webp", partial(_webp, CORNERS, 6300, quality=90), CORNERS)
    yield Costly("40-megapixels-alpha-turned.webp", partial(_webp, rgba, 6300, 6, lossless=True), TURNED(seen))
    for width, height in ((1, 20_000), (20_000, 1), (65_500, 1366), (1366, 65_500), (65_500, 1)):
        one_color = np.broadcast_to(CORNERS[0, 0], (2, 2, 3))
        yield Costly(f"{width}-by-{height}.jpg", partial(_strip, width, height), one_color)
    yield Costly("frames-2000.gif", partial(_frames, "GIF", 2000, duration=20))
    yield Costly("frames-500.png", partial(_frames, "PNG", 500))
    yield Costly("frames-500.webp", partial(_frames, "WEBP", 500, lossless=True))
    yield Costly("exif-of-40-megabytes-5000-times.png", _vast_exif)
    # Python decodes these in Pillow, which takes too long on a slow machine, and is then cut short.
    yield Costly("run-lengths-of-81-megapixels.bmp", partial(_run_lengths, 9000))
    yield Costly("text-of-60-megabytes.ppm", partial(_text, 30_000_000))
    yield Costly("few-levels-of-59-megabytes.pgm", partial(_few_levels, 7700))

    yield Costly("64-megapixels.avif", partial(_newer, "AVIF", 8000, speed=10), CORNERS)
    yield Costly("36-megapixels.heic", partial(_newer, "HEIF", 6000, enc_params={"preset": "ultrafast"}), CORNERS)
    yield Costly("80-megapixels.jxl", partial(_newer, "JXL", 8940, effort=1), CORNERS)

    dense = partial(_jpeg, progressive=True, subsampling=0)
    yield Costly("large-progressive-444.jpg", dense, reason="too large")
    yield Costly("large-100-scans.jpg", partial(_jpeg, progressive=True, scans=100), reason="too large")
    yield Costly("large-500-scans.jpg", partial(_jpeg, progressive=True, scans=500), reason="too large")
    yield Costly("8000-scans.jpg", partial(scan_bomb, 8000), reason="too large")
    yield Costly("pages-2000.tif", partial(_frames, "TIFF", 2000), reason="unsupported format")
    yield Costly("81-megapixels.avif", partial(_newer, "AVIF", 9000, speed=10), reason="too large")
    yield Costly("89-megapixels.webp", partial(_webp, CORNERS, SIDE, quality=1), reason="too large")
    yield Costly("tile-of-2-gigabytes.tif", _vast_tile, reason="too large")
    yield Costly("notes-of-100-megabytes.png", _vast_notes, reason="too large")


# --- what an image costs --------------------------------------------------------------------------------------------

_MEASURE = """
import json, resource, sys, time
from pathlib import Path
from PIL import Image
from alexnet.core.errors import ImageError
from alexnet.data.decode import decode_image
from alexnet.data.pixels import KERNELS, resize_and_crop

def megabytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1.024e-3 for line in lines if line.startswith(name))

def apart():  # processes that were waited for: their time, and the most memory of one
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime, used.ru_maxrss * 1.024e-3

Image.init()
KERNELS.available()
for path in sys.argv[1:]:
    before, start, processor, before_apart = megabytes("VmRSS"), time.monotonic(), time.process_time(), apart()[0]
    reason, pixels = "", None
    try:
        pixels = resize_and_crop(decode_image(Path(path)), 256)
    except ImageError as error:
        reason = error.reason
    print(json.dumps({
        "seconds": time.monotonic() - start,
        "processor_seconds": time.process_time() - processor + apart()[0] - before_apart,
        "megabytes": max(megabytes("VmHWM"), apart()[1]) - before,
        "reason": reason,
        "quarters": None if pixels is None else pixels[64::128, 64::128].tolist(),
    }))
"""


@dataclass(frozen=True)
class Cost:
    seconds: float
    processor_seconds: float
    """What it takes where nothing else runs."""
    megabytes: float
    """The most memory of the process, above what it had before, with everything imported."""
    reason: str
    quarters: list[list[list[int]]] | None
    """Pixels in the middle of the quarters of the square that comes out."""


def costs(*paths: Path) -> list[Cost]:
    """Of decoding and resizing each of these files, in one process. Raises AssertionError if it fails or says anything."""
    command = [sys.executable, "-c", _MEASURE, *map(os.fspath, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode or done.stderr:
        raise AssertionError(f"exit {done.returncode}: {done.stderr[-2000:]}")
    return [Cost(**json.loads(line)) for line in io.StringIO(done.stdout)]
