"""Odd, broken and hostile image files, all generated: what each of them must come out as, or why it must be refused.

Expected pixels are written out in NumPy from the samples that were put into the file. Formats with many variants (PNG,
TIFF, BMP, PNM, baseline JPEG) are written byte by byte here, so that no library stands on both sides.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Kind:
    """A file and what becomes of it: ``pixels``, upright RGB (H, W, 3), up to ``tolerance``; or a ``reason`` class."""

    file: str
    data: bytes
    pixels: Pixels | None = None
    tolerance: int = 0
    reason: str = ""


# --- the pictures that are stored -----------------------------------------------------------------------------------

_DRAWN = np.random.default_rng(2012)
RGB: Pixels = _DRAWN.integers(0, 256, (11, 14, 3), dtype=np.uint8)
GREY: Pixels = _DRAWN.integers(0, 256, (11, 14), dtype=np.uint8)
ALPHA: Pixels = _DRAWN.integers(0, 256, (11, 14), dtype=np.uint8)
WIDE = _DRAWN.integers(0, 1 << 16, (11, 14, 4)).astype(np.uint16)
BLOCKS: Pixels = np.array(  # 2 x 3 blocks of 8 x 8 pixels, which JPEG keeps
    [[[200, 30, 40], [30, 190, 60], [40, 50, 210]], [[230, 220, 40], [90, 90, 90], [20, 160, 170]]], dtype=np.uint8
)


def blown_up(small: NDArray[np.uint8], times: int = 8) -> Pixels:
    return np.repeat(np.repeat(small, times, axis=0), times, axis=1)


PICTURE = blown_up(BLOCKS)

UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {  # what the EXIF orientations ask for, on rows and columns
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a[::-1].transpose(1, 0, 2),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a[:, ::-1].transpose(1, 0, 2),
}


def repeated(grey: NDArray[np.generic]) -> Pixels:
    return np.repeat(np.asarray(grey, dtype=np.uint8)[:, :, None], 3, axis=2)


def over_white(rgb: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> Pixels:
    share = alpha[:, :, None].astype(float) / 255
    return np.rint(rgb * share + 255 * (1 - share)).astype(np.uint8)


def to_8_bits(sample: NDArray[np.uint16], peak: int = 65535) -> Pixels:
    return np.rint(sample.astype(float) * 255 / peak).astype(np.uint8)


def by_pillow(image: Image.Image | Pixels, fmt: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, fmt, **options)
    return buffer.getvalue()


def undated(film: bytes) -> bytes:
    """An ISO media file of the same bytes whenever it is made: the times of making in its headers (of version 1) become 0."""
    content = bytearray(film)
    for box in (b"mvhd\1", b"tkhd\1", b"mdhd\1"):
        start = content.index(box) + 8
        content[start : start + 16] = bytes(16)
    return bytes(content)


# --- PNG ------------------------------------------------------------------------------------------------------------

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
"""First row and column, step of rows and columns of each pass."""


def chunk(name: bytes, data: bytes, crc: int | None = None) -> bytes:
    checksum = zlib.crc32(name + data) if crc is None else crc
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)


def packed_rows(sample: NDArray[np.generic], bits: int) -> list[bytes]:
    """Each row of (H, W) or (H, W, C) samples, the first in the highest bits."""
    flat = sample.reshape(len(sample), -1)
    if bits >= 8:
        return [row.tobytes() for row in flat.astype(">u2" if bits == 16 else "u1")]
    return [np.packbits((row[:, None].astype(int) >> np.arange(bits)[::-1]) & 1).tobytes() for row in flat]


def filtered(rows: Sequence[bytes], kind: int, step: int) -> bytes:
    """Rows with PNG's filter ``kind``; ``step`` bytes a pixel."""
    out, above = b"", bytes(len(rows[0]) if rows else 0)
    for row in rows:
        left, corner = bytes(step) + row, bytes(step) + above
        paeth = []
        for a, b, c in zip(left, above, corner, strict=False):
            p = a + b - c
            paeth.append(min((a, b, c), key=lambda value: abs(p - value)))
        guess = (bytes(len(row)), left, above, [(a + b) // 2 for a, b in zip(left, above, strict=False)], paeth)[kind]
        out += bytes([kind]) + bytes((x - g) % 256 for x, g in zip(row, guess, strict=False))
        above = row
    return out


def png(
    sample: NDArray[np.generic],
    color: int,
    bits: int = 8,
    *,
    interlaced: bool = False,
    filter_kind: int = 0,
    before: bytes = b"",
    after: bytes = b"",
    pieces: int = 1,
    size: tuple[int, int] | None = None,
) -> bytes:
    """``sample`` (H, W) or (H, W, C) as a PNG file of a color type; chunks ``before`` and ``after`` the pixels, which lie in
    so many IDAT chunks."""
    height, width = sample.shape[:2]
    step = max(1, bits * (1 if sample.ndim == 2 else sample.shape[2]) // 8)
    parts = [sample[r::dr, c::dc] for r, c, dr, dc in ADAM7] if interlaced else [sample]
    raw = b"".join(filtered(packed_rows(part, bits), filter_kind, step) for part in parts if part.size)
    data = zlib.compress(raw)
    length = -(-len(data) // pieces)
    idat = b"".join(chunk(b"IDAT", data[i : i + length]) for i in range(0, len(data), length))
    header = struct.pack(">IIBBBBB", *(size or (width, height)), bits, color, 0, 0, interlaced)
    return PNG_MAGIC + chunk(b"IHDR", header) + before + idat + after + chunk(b"IEND", b"")


def png_kinds() -> Iterator[Kind]:
    low = {bits: (GREY >> (8 - bits)) for bits in (1, 2, 4)}
    for bits, sample in low.items():
        scaled = repeated(sample * (255 // ((1 << bits) - 1)))
        yield Kind(f"png-grey-{bits}.png", png(sample, 0, bits), scaled)
        hole = int(sample[3, 3])
        scaled = np.where((sample == hole)[:, :, None], 255, scaled).astype(np.uint8)
        trns = chunk(b"tRNS", struct.pack(">H", hole))
        yield Kind(f"png-grey-{bits}-transparent.png", png(sample, 0, bits, before=trns), scaled)
    grey16 = WIDE[:, :, 0]
    wide8 = to_8_bits(WIDE)
    rgba8 = np.dstack([RGB, ALPHA])
    yield Kind("png-grey-8.png", png(GREY, 0), repeated(GREY))
    yield Kind("png-grey-16.png", png(grey16, 0, 16), repeated(to_8_bits(grey16)))
    yield Kind("png-rgb-8.png", png(RGB, 2), RGB)
    yield Kind("png-rgb-16.png", png(WIDE[:, :, :3], 2, 16), wide8[:, :, :3], 1)
    grey_alpha = np.dstack([GREY, ALPHA])
    yield Kind("png-grey-alpha-8.png", png(grey_alpha, 4), over_white(repeated(GREY), ALPHA), 1)
    grey_over_white = over_white(repeated(wide8[:, :, 0]), wide8[:, :, 3])
    yield Kind("png-grey-alpha-16.png", png(WIDE[:, :, [0, 3]], 4, 16), grey_over_white, 2)
    yield Kind("png-rgba-8.png", png(rgba8, 6), over_white(RGB, ALPHA), 1)
    yield Kind("png-rgba-16.png", png(WIDE, 6, 16), over_white(wide8[:, :, :3], wide8[:, :, 3]), 2)
    for name, sample, color, bits, expected, tolerance in (
        ("grey-1", low[1], 0, 1, repeated(low[1] * 255), 0),
        ("grey-8", GREY, 0, 8, repeated(GREY), 0),
        ("grey-16", grey16, 0, 16, repeated(to_8_bits(grey16)), 0),
        ("rgb-8", RGB, 2, 8, RGB, 0),
        ("rgba-8", rgba8, 6, 8, over_white(RGB, ALPHA), 1),
    ):
        yield Kind(f"png-interlaced-{name}.png", png(sample, color, bits, interlaced=True), expected, tolerance)
    for kind in range(1, 5):
        yield Kind(f"png-filter-{kind}.png", png(RGB, 2, filter_kind=kind), RGB)
    for bits in (1, 2, 4, 8):
        index = GREY >> (8 - bits)
        table = _DRAWN_TABLE[: 1 << bits]
        plte = chunk(b"PLTE", table.tobytes())
        yield Kind(f"png-palette-{bits}.png", png(index, 3, bits, before=plte), table[index])
        alpha = np.minimum(index.astype(int) * 200, 255).astype(np.uint8)
        trns = chunk(b"tRNS", np.minimum(np.arange(1 << bits) * 200, 255).astype(np.uint8).tobytes())
        data = png(index, 3, bits, before=plte + trns)
        yield Kind(f"png-palette-{bits}-alpha.png", data, over_white(table[index], alpha), 1)
    for name, sample, color, bits, hole, expected in (
        ("grey-8", GREY, 0, 8, [GREY[3, 3]], repeated(np.where(GREY[3, 3] == GREY, 255, GREY))),
        (
            "grey-16",
            grey16,
            0,
            16,
            [grey16[3, 3]],
            repeated(np.where(grey16 == grey16[3, 3], 255, to_8_bits(grey16))),
        ),
        ("rgb-8", RGB, 2, 8, RGB[3, 3], np.where((RGB[3, 3] == RGB).all(-1, keepdims=True), 255, RGB)),
        (
            "rgb-16",
            WIDE[:, :, :3],
            2,
            16,
            WIDE[3, 3, :3],
            np.where((WIDE[:, :, :3] == WIDE[3, 3, :3]).all(-1, keepdims=True), 255, wide8[:, :, :3]),
        ),
    ):
        trns = chunk(b"tRNS", struct.pack(f">{len(hole)}H", *map(int, hole)))
        data = png(sample, color, bits, before=trns)
        yield Kind(f"png-transparent-{name}.png", data, expected.astype(np.uint8), int(name == "rgb-16"))

    good = png(RGB, 2)
    markup = b"<script>alert(1)</script>"
    yield Kind("png-in-pieces.png", png(RGB, 2, pieces=200), RGB)
    yield Kind("png-bytes-behind.png", good + b"more" * 100, RGB)
    yield Kind("png-unknown-chunk.png", png(RGB, 2, before=chunk(b"abCd", b"x" * 50)), RGB)
    yield Kind("png-markup-in-text.png", png(RGB, 2, before=chunk(b"tEXt", b"Comment\0" + markup)), RGB)
    yield Kind("png-gamma.png", png(RGB, 2, before=chunk(b"gAMA", struct.pack(">I", 100000))), RGB)
    profile = chunk(b"iCCP", b"name\0\0" + zlib.compress(b"no profile"))
    yield Kind("png-profile.png", png(RGB, 2, before=profile), RGB)
    text_bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(8 << 20)))
    yield Kind("png-text-bomb.png", png(RGB, 2, before=text_bomb), reason="too large")
    profile_bomb = chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(8 << 20)))
    yield Kind("png-profile-bomb.png", png(RGB, 2, before=profile_bomb), reason="too large")
    xmp = b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'
    yield Kind("png-turned-by-xmp.png", png(RGB, 2, before=chunk(b"iTXt", xmp)), UPRIGHT[6](RGB))
    yield Kind("png-exif-behind-pixels.png", png(RGB, 2, after=chunk(b"eXIf", exif_block(8))), UPRIGHT[8](RGB))
    yield Kind("png-one-pixel.png", png(RGB[:1, :1], 2), RGB[:1, :1])
    frames = [Image.fromarray(np.roll(RGB, i, axis=0)) for i in range(3)]
    yield Kind("png-animated.png", by_pillow(frames[0], "PNG", save_all=True, append_images=frames[1:]), RGB)

    def header(
        width: int = 14, height: int = 11, bits: int = 8, color: int = 2, more: tuple[int, ...] = (0, 0, 0)
    ) -> bytes:
        return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, *more))

    idat = good[good.index(b"IDAT") - 4 : -12]
    yield Kind("png-half.png", good[: len(good) // 2], reason="truncated")
    yield Kind("png-header-only.png", PNG_MAGIC + header(), reason="damaged")
    yield Kind("png-magic-only.png", PNG_MAGIC, reason="damaged")
    yield Kind("png-no-pixels.png", PNG_MAGIC + header() + chunk(b"IEND", b""), reason="damaged")
    for name, sample, color, bits in (("rgb", RGB, 2, 8), ("grey-1", low[1], 0, 1), ("grey-16", grey16, 0, 16)):
        few = png(sample[:10], color, bits, size=(14, 11))  # a whole stream of too few rows
        yield Kind(f"png-few-rows-{name}.png", few, reason="truncated")
    few = png(RGB[:10], 2, size=(14, 11), interlaced=True)
    yield Kind("png-few-rows-interlaced.png", few, reason="damaged")
    black = np.zeros_like(RGB)
    behind_note = PNG_MAGIC + chunk(b"tEXt", b"a\0b" * 9) + good[8:]
    yield Kind("png-header-not-first.png", behind_note, reason="damaged")
    yield Kind("png-black.png", png(black, 2), black)
    yield Kind("png-black-interlaced.png", png(black, 2, interlaced=True, pieces=3), black)
    # Their pixels are protected by a checksum of their own, and right.
    yield Kind("png-pixels-checksum.png", PNG_MAGIC + header() + idat[:-4] + b"\0" * 4, RGB)
    yield Kind("png-no-end.png", good[:-12], RGB)
    yield Kind("png-note-checksum.png", png(RGB, 2, before=chunk(b"tEXt", b"a\0b", crc=0)), reason="damaged")
    yield Kind("png-header-checksum.png", good[:29] + b"\0" * 4 + good[33:], reason="damaged")
    yield Kind("png-bad-stream.png", PNG_MAGIC + header() + chunk(b"IDAT", b"no stream" * 9), reason="damaged")
    yield Kind("png-no-columns.png", PNG_MAGIC + header(width=0) + idat, reason="damaged")
    index = np.arange(RGB.shape[0] * RGB.shape[1], dtype=np.uint8).reshape(RGB.shape[:2]) % 4
    plte = chunk(b"PLTE", bytes(range(12)))
    yield Kind("png-palette-missing.png", png(index, 3), reason="damaged")
    yield Kind("png-palette-behind-pixels.png", png(index, 3, after=plte), reason="damaged")
    yield Kind("png-palette-twice.png", png(index, 3, before=plte + plte), reason="damaged")
    yield Kind("png-header-twice.png", png(RGB, 2, before=header(4, 4)), reason="damaged")
    yield Kind("png-no-such-depth.png", PNG_MAGIC + header(bits=3) + idat, reason="damaged")
    yield Kind("png-no-such-filter.png", PNG_MAGIC + header(more=(0, 7, 0)) + idat, reason="damaged")
    yield Kind("png-50000-squared.png", PNG_MAGIC + header(50_000, 50_000) + idat, reason="too large")
    yield Kind("png-2-billion-wide.png", PNG_MAGIC + header(2**31 - 1, 1) + idat, reason="too large")
    yield Kind("png-side-65501.png", png(np.zeros((1, 65_501), np.uint8), 0), reason="too large")
    yield Kind("png-side-65500.png", png(np.zeros((1, 65_500), np.uint8), 0), np.zeros((1, 65_500, 3), np.uint8))
    raw = zlib.compress(filtered(packed_rows(RGB, 8), 0, 3), wbits=-15)
    apple = chunk(b"CgBI", b"\x50\0\x20\x02") + header() + chunk(b"IDAT", raw)
    yield Kind("png-of-apple.png", PNG_MAGIC + apple, reason="damaged")


_DRAWN_TABLE: Pixels = np.random.default_rng(1).integers(0, 256, (256, 3), dtype=np.uint8)


# --- EXIF -----------------------------------------------------------------------------------------------------------


def exif_block(orientation: int, order: str = "<", field: int = 3, extra: bytes = b"") -> bytes:
    """A TIFF block with one tag, the orientation, as SHORT (3) or LONG (4); ``extra`` entries behind it."""
    value = struct.pack(order + ("HH" if field == 3 else "I"), *((orientation, 0) if field == 3 else (orientation,)))
    entries = struct.pack(order + "HHI", 0x0112, field, 1) + value + extra
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(order + "HIH", 42, 8, len(entries) // 12) + entries + b"\0\0\0\0"


def app1(block: bytes) -> bytes:
    return segment(0xE1, b"Exif\0\0" + block)


def exif_kinds() -> Iterator[Kind]:
    for orientation, turned in UPRIGHT.items():
        block = exif_block(orientation)
        jpg = jpeg(ycc(BLOCKS), segments=app1(block))
        yield Kind(f"exif-{orientation}.jpg", jpg, turned(PICTURE), 2)
        yield Kind(f"exif-{orientation}.png", png(RGB, 2, before=chunk(b"eXIf", block)), turned(RGB))
        webp = by_pillow(RGB, "WEBP", lossless=True, exif=b"Exif\0\0" + block)
        yield Kind(f"exif-{orientation}.webp", webp, turned(RGB))
        yield Kind(f"exif-{orientation}.tif", tiff(RGB, {274: orientation}), turned(RGB))

    def turned_jpeg(block: bytes, before: bytes = b"") -> bytes:
        return jpeg(ycc(BLOCKS), segments=before + app1(block))

    yield Kind("exif-big-endian.jpg", turned_jpeg(exif_block(6, ">")), UPRIGHT[6](PICTURE), 2)
    yield Kind("exif-as-long.jpg", turned_jpeg(exif_block(6, field=4)), UPRIGHT[6](PICTURE), 2)
    for odd in (0, 9, 65535):
        yield Kind(f"exif-orientation-{odd}.jpg", turned_jpeg(exif_block(odd)), PICTURE, 2)
    description = struct.pack("<HHII", 0x010E, 2, 30, 38)
    markup = exif_block(6, extra=description) + b"<img src=x onerror=alert(1)>\0\0"
    yield Kind("exif-markup.jpg", turned_jpeg(markup), UPRIGHT[6](PICTURE), 2)
    pointers = b"".join(struct.pack("<HHII", 0x9000 + i, 7, 60_000, 8) for i in range(4000))
    overlapping = exif_block(3, extra=pointers) + bytes(15_000)
    yield Kind("exif-overlapping-tags.jpg", turned_jpeg(overlapping), UPRIGHT[3](PICTURE), 2)
    nonsense = b"II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0\xff\xff\xff\xff" * 3
    yield Kind("exif-nonsense.jpg", turned_jpeg(nonsense), PICTURE, 2)
    yield Kind("exif-empty.jpg", turned_jpeg(b""), PICTURE, 2)
    yield Kind("exif-cut.jpg", turned_jpeg(exif_block(6)[:15]), PICTURE, 2)
    thumbnail = exif_block(8) + jpeg(ycc(BLOCKS[:1, :1]))
    yield Kind("exif-thumbnail.jpg", turned_jpeg(thumbnail), UPRIGHT[8](PICTURE), 2)
    itself = exif_block(6)[:-4] + b"\x08\0\0\0"  # the next directory is this one
    yield Kind("exif-loop.jpg", turned_jpeg(itself), UPRIGHT[6](PICTURE), 2)
    xmp = segment(0xE1, b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="3"/>')
    yield Kind("exif-xmp.jpg", jpeg(ycc(BLOCKS), segments=xmp), UPRIGHT[3](PICTURE), 2)
    rgba = np.dstack([RGB, ALPHA])
    data = png(rgba, 6, before=chunk(b"eXIf", exif_block(5)))
    yield Kind("exif-and-alpha.png", data, UPRIGHT[5](over_white(RGB, ALPHA)), 1)
    data = png(WIDE[:, :, 0], 0, 16, before=chunk(b"eXIf", exif_block(7)))
    yield Kind("exif-and-16-bits.png", data, UPRIGHT[7](repeated(to_8_bits(WIDE[:, :, 0]))))


# --- JPEG -----------------------------------------------------------------------------------------------------------


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def adobe(transform: int) -> bytes:
    return segment(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, transform))


def ycc(small: NDArray[np.uint8]) -> list[NDArray[np.int64]]:
    """Y, Cb, Cr of each block (JFIF)."""
    r, g, b = (small[:, :, i].astype(float) for i in range(3))
    y = 0.299 * r + 0.587 * g + 0.114 * b
    planes = y, 128 + (b - y) / 1.772, 128 + (r - y) / 1.402
    return [np.rint(plane).clip(0, 255).astype(int) for plane in planes]


_CODES = b"".join(  # 12 codes of 4 bits: how many bits a difference has; one of 1 bit: the end of a block
    [
        segment(0xC4, b"\0" + bytes([0, 0, 0, 12, *[0] * 12]) + bytes(range(12))),
        segment(0xC4, b"\x10" + bytes([1, *[0] * 15]) + b"\0"),
    ]
)


def jpeg(
    planes: Sequence[NDArray[np.int64]],
    *,
    sampling: Sequence[tuple[int, int]] | None = None,
    segments: bytes = b"",
    between: bytes = b"",
    size: tuple[int, int] | None = None,
    restart: int = 0,
    apart: bool = False,
    precision: int = 8,
    frame: int = 0xC0,
    wide_table: bool = False,
    repeat: int = 1,
) -> bytes:
    """A baseline JPEG file whose 8 x 8 blocks are flat, with the values of ``planes`` (rows, columns of blocks each).

    ``size``: width and height, if not all of the blocks. ``apart``: a scan for each plane. ``repeat``: so often."""
    sampling = sampling or [(1, 1)] * len(planes)
    rows, columns = planes[0].shape[0] // sampling[0][1], planes[0].shape[1] // sampling[0][0]
    most_h, most_v = (max(s[i] for s in sampling) for i in (0, 1))
    width, height = size or (columns * 8 * most_h, rows * 8 * most_v)
    table = (b"\x10" + b"\0\x08" * 64) if wide_table else b"\0" + b"\x08" * 64  # so that the mean is 128 + DC
    parts = b"".join(struct.pack("BBB", i + 1, h << 4 | v, 0) for i, (h, v) in enumerate(sampling))
    head = struct.pack(">BHHB", precision, height, width, len(planes)) + parts
    data = b"\xff\xd8" + segments + segment(0xDB, table) + segment(frame, head) + _CODES
    if restart:
        data += segment(0xDD, struct.pack(">H", restart))
    groups = [[i] for i in range(len(planes))] if apart else [list(range(len(planes)))]
    for group in groups * repeat:
        scan = bytes([len(group)]) + b"".join(bytes([i + 1, 0]) for i in group) + b"\0\x3f\0"
        data += between + segment(0xDA, scan)
        bits, last, count = "", dict.fromkeys(group, 0), 0
        for r in range(rows):
            for c in range(columns):
                if restart and count and count % restart == 0:
                    data += _stuffed(bits) + bytes([0xFF, 0xD0 + (count // restart - 1) % 8])
                    bits, last = "", dict.fromkeys(group, 0)
                count += 1
                for i in group:
                    h, v = sampling[i]
                    for y in range(v):
                        for x in range(h):
                            value = int(planes[i][r * v + y, c * h + x]) - 128
                            bits += _difference(value - last[i])
                            last[i] = value
        data += _stuffed(bits)
    return data + b"\xff\xd9"


def _difference(value: int) -> str:
    count = abs(value).bit_length()
    digits = f"{value if value > 0 else value + (1 << count) - 1:0{count}b}" if count else ""
    return f"{count:04b}{digits}0"


def _stuffed(bits: str) -> bytes:
    bits += "1" * (-len(bits) % 8)
    return int(bits or "0", 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")


def scan_bomb(scans: int, side: int = 64) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    data = by_pillow(Image.new("RGB", (side, side), (90, 120, 30)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


def jpeg_kinds() -> Iterator[Kind]:
    planes = ycc(BLOCKS)
    good = jpeg(planes)
    inks = np.array([[10, 200, 90], [250, 0, 128]])
    four = [inks, inks[::-1], 255 - inks, np.array([[255, 128, 200], [90, 255, 30]])]

    def printed(stored: Sequence[NDArray[np.int64]], inverted: bool) -> Pixels:
        c, m, y, k = (plane if inverted else 255 - plane for plane in stored)
        return blown_up(np.rint(np.dstack([c * k, m * k, y * k]) / 255).astype(np.uint8))

    yield Kind("jpeg-baseline.jpg", good, PICTURE, 2)
    yield Kind("jpeg-grey.jpg", jpeg(planes[:1]), blown_up(repeated(planes[0])))
    sampled = jpeg(planes[:1]).replace(b"\x01\x11\0", b"\x01\x22\0", 1)  # of one plane alone it means nothing
    yield Kind("jpeg-grey-sampled-2x2.jpg", sampled, blown_up(repeated(planes[0])))
    yield Kind("jpeg-restarts.jpg", jpeg(planes, restart=1), PICTURE, 2)
    yield Kind("jpeg-scans-apart.jpg", jpeg(planes, apart=True), PICTURE, 2)
    yield Kind("jpeg-16-bit-table.jpg", jpeg(planes, wide_table=True), PICTURE, 2)
    yield Kind("jpeg-fill-bytes.jpg", good.replace(b"\xff\xdb", b"\xff\xff\xff\xff\xdb", 1), PICTURE, 2)
    yield Kind("jpeg-cropped.jpg", jpeg(planes, size=(19, 13)), PICTURE[:13, :19], 2)
    rgb = [BLOCKS[:, :, i].astype(int) for i in range(3)]
    yield Kind("jpeg-rgb-by-adobe.jpg", jpeg(rgb, segments=adobe(0)), PICTURE)
    yield Kind("jpeg-ycc-by-adobe.jpg", jpeg(planes, segments=adobe(1)), PICTURE, 2)
    yield Kind("jpeg-cmyk-adobe.jpg", jpeg(four, segments=adobe(0)), printed(four, True), 2)
    yield Kind("jpeg-cmyk-plain.jpg", jpeg(four), printed(four, False), 2)
    tinted = ycc(BLOCKS)
    inverse = np.rint(
        np.dstack(
            [
                255 - (tinted[0] + 1.402 * (tinted[2] - 128)),
                255 - (tinted[0] - 0.344136 * (tinted[1] - 128) - 0.714136 * (tinted[2] - 128)),
                255 - (tinted[0] + 1.772 * (tinted[1] - 128)),
            ]
        ).clip(0, 255)
    )
    ycck = [*tinted, four[3]]
    stored = [*(inverse[:, :, i] for i in range(3)), four[3]]
    yield Kind("jpeg-ycck.jpg", jpeg(ycck, segments=adobe(2)), printed(stored, True), 3)
    yield Kind(
        "jpeg-cmyk-turned.jpg", jpeg(four, segments=app1(exif_block(6)) + adobe(0)), UPRIGHT[6](printed(four, True)), 2
    )
    flat = [np.repeat(np.repeat(planes[0], 2, 0), 2, 1), planes[1], planes[2]]
    doubled = blown_up(BLOCKS, 16)
    inner = jpeg(flat, sampling=[(2, 2), (1, 1), (1, 1)])
    yield Kind(
        "jpeg-420.jpg", inner, doubled, 255
    )  # chroma is smoothed between blocks: their centers are looked at below
    across = [np.repeat(planes[0], 2, 1), planes[1], planes[2]]
    yield Kind("jpeg-422.jpg", jpeg(across, sampling=[(2, 1), (1, 1), (1, 1)]), np.repeat(PICTURE, 2, 1), 255)
    smooth = Image.fromarray(PICTURE)
    yield Kind(
        "jpeg-progressive.jpg", by_pillow(smooth, "JPEG", progressive=True, quality=100, subsampling=0), PICTURE, 4
    )
    yield Kind("jpeg-optimized.jpg", by_pillow(smooth, "JPEG", optimize=True, quality=100, subsampling=0), PICTURE, 4)
    grey = by_pillow(smooth.convert("L"), "JPEG", progressive=True, quality=100)
    luma = np.rint(PICTURE @ np.array([0.299, 0.587, 0.114]))
    yield Kind("jpeg-progressive-grey.jpg", grey, repeated(luma), 3)
    usual = by_pillow(Image.fromarray(np.full((16, 16), 90, np.uint8)), "JPEG")
    while b"\xff\xc4" in usual:  # as frames of Motion JPEG leave them out
        at = usual.index(b"\xff\xc4")
        usual = usual[:at] + usual[at + 2 + int.from_bytes(usual[at + 2 : at + 4], "big") :]
    yield Kind("jpeg-usual-codes-left-out.jpg", usual, np.full((16, 16, 3), 90, np.uint8), 1)
    both = by_pillow(
        smooth, "MPO", save_all=True, append_images=[Image.new("RGB", (24, 16))], quality=100, subsampling=0
    )
    yield Kind("jpeg-two-pictures.jpg", both, PICTURE, 4)
    yield Kind("jpeg-bytes-behind.jpg", good + b"<?php echo 1 ?>" * 20, PICTURE, 2)
    yield Kind("jpeg-jpeg-behind.jpg", good + jpeg(planes[:1]) * 600, PICTURE, 2)
    yield Kind("jpeg-zip-behind.jpg", good + zip_file(), PICTURE, 2)
    comment = segment(0xFE, b"</title><script>alert(1)</script>\n\x1b[31m")
    yield Kind("jpeg-markup-comment.jpg", jpeg(planes, segments=comment), PICTURE, 2)
    profile = segment(0xE2, b"ICC_PROFILE\0\x01\x01" + b"no profile at all")
    yield Kind("jpeg-profile.jpg", jpeg(planes, segments=profile), PICTURE, 2)
    yield Kind("jpeg-one-pixel.jpg", jpeg(planes, size=(1, 1)), PICTURE[:1, :1], 2)
    strip = [np.full((1, 2500), value) for value in (90, 128, 128)]
    yield Kind("jpeg-20000-by-1.jpg", jpeg(strip, size=(20_000, 1)), np.full((1, 20_000, 3), 90, np.uint8), 1)
    upright = [plane.T for plane in strip]
    yield Kind("jpeg-1-by-20000.jpg", jpeg(upright, size=(1, 20_000)), np.full((20_000, 1, 3), 90, np.uint8), 1)
    turned = jpeg(strip, size=(20_000, 1), segments=app1(exif_block(6)))
    yield Kind("jpeg-20000-by-1-turned.jpg", turned, np.full((20_000, 1, 3), 90, np.uint8), 1)
    yield Kind("jpeg-400-scans.jpg", scan_bomb(390), blown_up(np.array([[[90, 120, 30]]], np.uint8), 64), 3)

    yield Kind("jpeg-600-scans.jpg", scan_bomb(600), reason="too large")
    hidden = scan_bomb(600).replace(
        b"\xff\xda", segment(0xFE, b"\xff\xd9") + b"\xff\xda"
    )  # seems to end before each scan
    yield Kind("jpeg-600-hidden-scans.jpg", hidden, reason="too large")
    yield Kind("jpeg-900-scans-apart.jpg", jpeg(planes, apart=True, repeat=300), reason="too large")
    wide = scan_bomb(490)
    at = wide.index(b"\xff\xc2")
    wide = wide[: at + 5] + struct.pack(">HH", 9000, 9000) + wide[at + 9 :]
    yield Kind("jpeg-500-scans-of-81-megapixels.jpg", wide, reason="too large")
    at = good.index(b"\xff\xc0")
    yield Kind("jpeg-half.jpg", by_pillow(RGB, "JPEG")[:-120], reason="truncated")
    yield Kind("jpeg-no-end.jpg", good[:-2], reason="truncated")
    yield Kind("jpeg-no-scan.jpg", good[: good.index(b"\xff\xda")], reason="damaged")
    yield Kind("jpeg-20-bytes.jpg", good[:20], reason="truncated")
    yield Kind("jpeg-2-bytes.jpg", b"\xff\xd8", reason="not an image")
    yield Kind("jpeg-start-then-text.jpg", b"\xff\xd8\xff" + b"hello " * 50, reason="damaged")
    yield Kind("jpeg-12-bits.jpg", jpeg(planes, precision=12, frame=0xC1), reason="damaged")
    yield Kind("jpeg-lossless.jpg", jpeg(planes, frame=0xC3), reason="damaged")
    yield Kind("jpeg-two-planes.jpg", jpeg(planes[:2]), reason="damaged")
    yield Kind("jpeg-five-planes.jpg", jpeg([*four, inks]), reason="damaged")
    yield Kind("jpeg-no-rows.jpg", good[: at + 5] + b"\0\0" + good[at + 7 :], reason="damaged")
    yield Kind("jpeg-no-columns.jpg", good[: at + 7] + b"\0\0" + good[at + 9 :], reason="damaged")
    yield Kind("jpeg-65535-squared.jpg", good[: at + 5] + b"\xff" * 4 + good[at + 9 :], reason="too large")
    long = good[: at + 5] + struct.pack(">HH", 1, 65_501) + good[at + 9 :]
    yield Kind("jpeg-side-65501.jpg", long, reason="too large")
    progressive = by_pillow(smooth, "JPEG", progressive=True, subsampling=0)
    at = progressive.index(b"\xff\xc2")
    big = progressive[: at + 5] + struct.pack(">HH", 9400, 9400) + progressive[at + 9 :]
    yield Kind("jpeg-progressive-beyond-memory.jpg", big, reason="too large")
    yield Kind("jpeg-cut-in-exif.jpg", jpeg(planes, segments=app1(exif_block(6)))[:30], reason="truncated")


# --- GIF, WebP ------------------------------------------------------------------------------------------------------


def palette_image(index: NDArray[np.uint8], table: NDArray[np.uint8]) -> Image.Image:
    image = Image.frombytes("P", index.shape[::-1], index.tobytes())
    image.putpalette(table.tobytes())
    return image


def gif_kinds() -> Iterator[Kind]:
    index = GREY >> 4
    table = _DRAWN_TABLE[:16]
    image = palette_image(index, table)
    plain = by_pillow(image, "GIF")
    yield Kind("gif.gif", plain, table[index])
    yield Kind("gif-not-interlaced.gif", by_pillow(image, "GIF", interlace=0), table[index])
    yield Kind("gif-87a.gif", b"GIF87a" + plain[6:], table[index])
    yield Kind("gif-bytes-behind.gif", plain + b"x" * 100, table[index])
    yield Kind("gif-no-end.gif", plain[:-1], table[index])
    seen = np.where((index == index[0, 0])[:, :, None], 255, table[index]).astype(np.uint8)
    yield Kind("gif-transparent.gif", by_pillow(image, "GIF", transparency=int(index[0, 0])), seen)
    frames = [palette_image(np.roll(index, i, axis=0), table) for i in range(4)]
    moving = by_pillow(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50, loop=0)
    yield Kind("gif-animated.gif", moving, table[index])
    yield Kind("gif-grey.gif", by_pillow(Image.fromarray(GREY), "GIF"), repeated(GREY))
    # A screen of 4 x 3 pixels, no table of colors, one frame of 2 x 2 at (1, 1), all of color 1 of its own table: codes
    # clear, 1, 1 1, 1, end.
    screen = b"GIF89a" + struct.pack("<HHBBB", 4, 3, 0, 0, 0)
    frame = b"," + struct.pack("<HHHHB", 1, 1, 2, 2, 0x80) + bytes([9, 9, 9, 200, 10, 20]) + b"\x02\x02\x8c\x53\0"
    small = np.full((3, 4, 3), 9, np.uint8)  # around the frame: the background, color 0
    small[1:, 1:3] = 200, 10, 20
    yield Kind("gif-small-frame.gif", screen + frame + b";", small)
    yield Kind("gif-half.gif", plain[: len(plain) // 2], reason="truncated")
    yield Kind("gif-no-frame.gif", screen + b";", reason="damaged")
    yield Kind("gif-header-only.gif", plain[:10], reason="damaged")
    yield Kind("gif-frame-cut.gif", screen + frame[:16], reason="damaged")
    huge = b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + frame + b";"
    yield Kind("gif-65535-squared.gif", huge, reason="too large")


def webp_kinds() -> Iterator[Kind]:
    lossless = by_pillow(RGB, "WEBP", lossless=True)
    yield Kind("webp-lossless.webp", lossless, RGB)
    yield Kind("webp-lossy.webp", by_pillow(blown_up(np.array([[[90, 120, 30]]], np.uint8), 16), "WEBP", quality=100),
               blown_up(np.array([[[90, 120, 30]]], np.uint8), 16), 4)  # fmt: skip
    rgba = Image.fromarray(np.dstack([RGB, ALPHA]))
    alpha = by_pillow(rgba, "WEBP", lossless=True, exact=True)
    yield Kind("webp-alpha.webp", alpha, over_white(RGB, ALPHA), 1)
    turned = by_pillow(rgba, "WEBP", lossless=True, exact=True, exif=b"Exif\0\0" + exif_block(6))
    yield Kind("webp-alpha-turned.webp", turned, UPRIGHT[6](over_white(RGB, ALPHA)), 1)
    frames = [Image.fromarray(np.roll(RGB, i, axis=0)) for i in range(3)]
    moving = by_pillow(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    yield Kind("webp-animated.webp", moving, RGB)
    yield Kind("webp-profile.webp", by_pillow(RGB, "WEBP", lossless=True, icc_profile=b"no profile"), RGB)
    yield Kind("webp-bytes-behind.webp", lossless + b"x" * 100, RGB)
    yield Kind("webp-half.webp", lossless[: len(lossless) // 2], reason="damaged")
    yield Kind("webp-header-only.webp", lossless[:12], reason="damaged")
    yield Kind("webp-nothing-inside.webp", b"RIFF\x04\0\0\0WEBP", reason="damaged")
    yield Kind("webp-garbage-inside.webp", b"RIFF\x64\0\0\0WEBPVP8L" + b"\x55" * 92, reason="damaged")
    canvas = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + (16_382).to_bytes(3, "little") * 2
    huge = canvas + chunks_of_animation()
    yield Kind(
        "webp-16383-squared.webp", b"RIFF" + struct.pack("<I", len(huge) + 4) + b"WEBP" + huge, reason="too large"
    )
    canvas = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + (7_999).to_bytes(3, "little") * 2
    large = canvas + chunks_of_animation()
    yield Kind(
        "webp-64-megapixels.webp", b"RIFF" + struct.pack("<I", len(large) + 4) + b"WEBP" + large, reason="too large"
    )


def chunks_of_animation() -> bytes:
    """One frame of 14 x 11 pixels for an animated WebP file."""
    still = by_pillow(RGB, "WEBP", lossless=True)[12:]
    place = (0).to_bytes(3, "little") * 2 + (13).to_bytes(3, "little") + (10).to_bytes(3, "little") + b"\x64\0\0\0"
    frame = place + still
    return b"ANIM" + struct.pack("<I", 6) + bytes(6) + b"ANMF" + struct.pack("<I", len(frame)) + frame


# --- BMP, PNM -------------------------------------------------------------------------------------------------------


def bmp(
    rows: Sequence[bytes],
    bits: int,
    *,
    table: bytes = b"",
    masks: bytes = b"",
    compression: int = 0,
    size: tuple[int, int] = (14, 11),
    top_down: bool = False,
    header: int = 40,
) -> bytes:
    """Rows from the top, stored from the bottom unless ``top_down``, each padded to four bytes."""
    if compression in (1, 2):
        pixels = b"".join(rows)
    else:
        ordered = rows if top_down else rows[::-1]
        pixels = b"".join(row + bytes(-len(row) % 4) for row in ordered)
    width, height = size
    if header == 12:
        info = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        info = struct.pack(
            "<IiiHHIIiiII",
            header,
            width,
            -height if top_down else height,
            1,
            bits,
            compression,
            len(pixels),
            1,
            1,
            0,
            0,
        )
        info += (masks + bytes(header))[: max(len(masks), header - 40)]
    start = 14 + len(info) + len(table)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + info + table + pixels


def bmp_kinds() -> Iterator[Kind]:
    bgr = [row.tobytes() for row in RGB[:, :, ::-1]]
    good = bmp(bgr, 24)
    yield Kind("bmp-24.bmp", good, RGB)
    yield Kind("bmp-top-down.bmp", bmp(bgr, 24, top_down=True), RGB)
    yield Kind("bmp-os2.bmp", bmp(bgr, 24, header=12), RGB)
    blank = np.dstack([RGB[:, :, ::-1], np.zeros_like(GREY)])
    yield Kind("bmp-32.bmp", bmp([row.tobytes() for row in blank], 32), RGB)
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    bgra = np.dstack([RGB[:, :, ::-1], ALPHA])
    data = bmp([row.tobytes() for row in bgra], 32, masks=masks, compression=3, header=108)
    yield Kind("bmp-alpha.bmp", data, over_white(RGB, ALPHA), 1)
    for bits in (1, 4, 8):
        index = GREY >> (8 - bits)
        table = _DRAWN_TABLE[: 1 << bits]
        quads = b"".join(bytes([b, g, r, 0]) for r, g, b in table)
        yield Kind(f"bmp-palette-{bits}.bmp", bmp(packed_rows(index, bits), bits, table=quads), table[index])
    five = (RGB >> 3).astype(int)
    word = (five[:, :, 0].astype("<u2") << 10) | (five[:, :, 1].astype("<u2") << 5) | five[:, :, 2]
    expected = np.rint(five * 255 / 31).astype(np.uint8)
    yield Kind("bmp-555.bmp", bmp([row.astype("<u2").tobytes() for row in word], 16), expected, 1)
    six = (RGB[:, :, 1] >> 2).astype(int)
    word = (five[:, :, 0].astype("<u2") << 11) | (six.astype("<u2") << 5) | five[:, :, 2]
    expected = np.dstack([expected[:, :, 0], np.rint(six * 255 / 63).astype(np.uint8), expected[:, :, 2]])
    masks = struct.pack("<III", 0xF800, 0x7E0, 0x1F)
    data = bmp([row.astype("<u2").tobytes() for row in word], 16, masks=masks, compression=3)
    yield Kind("bmp-565.bmp", data, expected, 1)
    index = GREY >> 4
    table = _DRAWN_TABLE[:256]
    quads = b"".join(bytes([b, g, r, 0]) for r, g, b in table)
    runs = [b"".join(bytes([1, value]) for value in row) + b"\0\0" for row in index[::-1]] + [b"\0\1"]
    yield Kind("bmp-run-lengths.bmp", bmp(runs, 8, table=quads, compression=1), table[index])
    yield Kind("bmp-bytes-behind.bmp", good + b"x" * 99, RGB)
    yield Kind("bmp-half.bmp", good[: len(good) // 2], reason="truncated")
    yield Kind("bmp-header-only.bmp", good[:54], reason="truncated")
    yield Kind("bmp-cut-in-header.bmp", good[:20], reason="truncated")
    yield Kind("bmp-billions.bmp", bmp(bgr, 24, size=(2**31 - 1, 2**31 - 1)), reason="too large")
    yield Kind("bmp-jpeg-inside.bmp", bmp(bgr, 24, compression=4), reason="damaged")
    yield Kind("bmp-17-bits.bmp", bmp(bgr, 17), reason="damaged")
    yield Kind("bmp-runs-end-early.bmp", bmp([b"\x05\x01\0\1"], 8, table=quads, compression=1), reason="truncated")


def pnm_kinds() -> Iterator[Kind]:
    bit = GREY >> 7

    def text(sample: NDArray[np.generic]) -> bytes:
        return b" ".join(b"%d" % value for value in sample.ravel().tolist())

    wide = WIDE[:, :, 0]
    yield Kind("pnm-bits-text.pbm", b"P1\n14 11\n" + text(bit), repeated((1 - bit) * 255))
    yield Kind("pnm-grey-text.pgm", b"P2\n14 11\n255\n" + text(GREY), repeated(GREY))
    yield Kind("pnm-rgb-text.ppm", b"P3\n14 11\n255\n" + text(RGB), RGB)
    yield Kind("pnm-bits.pbm", b"P4\n14 11\n" + b"".join(packed_rows(bit, 1)), repeated((1 - bit) * 255))
    yield Kind("pnm-grey.pgm", b"P5\n14 11\n255\n" + GREY.tobytes(), repeated(GREY))
    yield Kind("pnm-rgb.ppm", b"P6\n14 11\n255\n" + RGB.tobytes(), RGB)
    yield Kind("pnm-comments.ppm", b"P6 # markup <b>\n14 # wide\n11\n# high\n255\n" + RGB.tobytes(), RGB)
    yield Kind("pnm-grey-15.pgm", b"P5\n14 11\n15\n" + (GREY >> 4).tobytes(), repeated((GREY >> 4) * 17), 1)
    yield Kind("pnm-grey-16-bits.pgm", b"P5\n14 11\n65535\n" + wide.astype(">u2").tobytes(), repeated(to_8_bits(wide)))
    ten = wide >> 6
    yield Kind(
        "pnm-grey-10-bits.pgm", b"P5\n14 11\n1023\n" + ten.astype(">u2").tobytes(), repeated(to_8_bits(ten, 1023)), 1
    )
    rgb16 = WIDE[:, :, :3]
    yield Kind("pnm-rgb-16-bits.ppm", b"P6\n14 11\n65535\n" + rgb16.astype(">u2").tobytes(), to_8_bits(rgb16), 1)
    yield Kind("pnm-half.ppm", b"P6\n14 11\n255\n" + RGB.tobytes()[:200], reason="truncated")
    yield Kind("pnm-header-only.ppm", b"P6\n14 11\n255\n", reason="truncated")
    yield Kind("pnm-no-numbers.ppm", b"P6\nwide high\n255\n" + RGB.tobytes(), reason="damaged")
    yield Kind("pnm-no-rows.ppm", b"P6\n14 0\n255\n", reason="damaged")
    yield Kind("pnm-minus-1.ppm", b"P6\n-1 -1\n255\n" + RGB.tobytes(), reason="damaged")
    yield Kind("pnm-peak-0.ppm", b"P6\n14 11\n0\n" + RGB.tobytes(), reason="damaged")
    yield Kind("pnm-peak-99999.ppm", b"P6\n14 11\n99999\n" + RGB.tobytes(), reason="damaged")
    yield Kind("pnm-billions.ppm", b"P6\n999999999 999999999\n255\n", reason="too large")
    yield Kind("pnm-bits-cut.pbm", b"P1\n14 11\n0 1 0 1", reason="truncated")
    yield Kind("pnm-letters.pgm", b"P2\n14 11\n255\n" + b"a b c " * 60, reason="damaged")
    yield Kind(
        "pnm-floats.pgm", b"Pf\n14 11\n-1.0\n" + np.zeros((11, 14), "<f4").tobytes(), reason="unsupported format"
    )


# --- TIFF -----------------------------------------------------------------------------------------------------------


def tiff(
    sample: NDArray[np.generic],
    tags: dict[int, int | tuple[int, ...]] | None = None,
    *,
    order: str = "<",
    big: bool = False,
    data: Sequence[bytes] | None = None,
    tile: tuple[int, int] | None = None,
    next_page: int | None = 0,
    size: tuple[int, int] | None = None,
) -> bytes:
    """``sample`` (H, W) or (H, W, C) uncompressed in one strip, or ``data``: its strips (or tiles); other ``tags`` as
    SHORT or LONG values. ``next_page``: where the next directory is; None: this one."""
    height, width = sample.shape[:2]
    channels = 1 if sample.ndim == 2 else sample.shape[2]
    bits = sample.dtype.itemsize * 8
    strips = [sample.astype(sample.dtype.newbyteorder(order)).tobytes()] if data is None else list(data)
    head = 16 if big else 8
    body, offsets = b"", []
    for strip in strips:
        offsets.append(head + len(body))
        body += strip + bytes(len(strip) % 2)
    values: dict[int, int | tuple[int, ...]] = {
        256: size[0] if size else width, 257: size[1] if size else height, 258: (bits,) * channels, 259: 1,
        262: 2 if channels >= 3 else 1, 277: channels,
        **({322: tile[0], 323: tile[1]} if tile else {278: height}),
        **({324: tuple(offsets), 325: tuple(map(len, strips))} if tile else {273: tuple(offsets), 279: tuple(map(len, strips))}),
        **(tags or {}),
    }  # fmt: skip
    start = head + len(body)
    count, entry, word = ("Q", 20, "Q") if big else ("H", 12, "I")
    room = 8 if big else 4
    extra_at = start + struct.calcsize("<" + count) + entry * len(values) + room
    entries, extra = b"", b""
    for tag, value in sorted(values.items()):
        many = value if isinstance(value, tuple) else (value,)
        field = 3 if max(many) < 65536 else 4
        stored = struct.pack(order + {3: "H", 4: "I"}[field] * len(many), *many)
        if len(stored) > room:
            place = struct.pack(order + word, extra_at + len(extra))
            extra += stored + bytes(len(stored) % 2)
        else:
            place = stored.ljust(room, b"\0")
        entries += struct.pack(order + "HH" + word, tag, field, len(many)) + place
    mark = b"II" if order == "<" else b"MM"
    first = struct.pack(order + "HHHQ", 43, 8, 0, start) if big else struct.pack(order + "HI", 42, start)
    after = struct.pack(order + word, start if next_page is None else next_page)
    return mark + first + body + struct.pack(order + count, len(values)) + entries + after + extra


def tiff_kinds() -> Iterator[Kind]:
    wide = WIDE[:, :, 0]
    good = tiff(RGB)
    yield Kind("tiff-rgb.tif", good, RGB)
    yield Kind("tiff-big-endian.tif", tiff(RGB, order=">"), RGB)
    yield Kind("tiff-big.tif", tiff(RGB, big=True), RGB)
    yield Kind("tiff-grey.tif", tiff(GREY), repeated(GREY))
    yield Kind("tiff-white-is-zero.tif", tiff(GREY, {262: 0}), repeated(255 - GREY))
    yield Kind("tiff-16-bits.tif", tiff(wide), repeated(to_8_bits(wide)))
    yield Kind("tiff-16-bits-big-endian.tif", tiff(wide, order=">"), repeated(to_8_bits(wide)))
    yield Kind("tiff-rgb-16-bits.tif", tiff(WIDE[:, :, :3]), to_8_bits(WIDE[:, :, :3]), 1)
    rgba = np.dstack([RGB, ALPHA])
    yield Kind("tiff-alpha.tif", tiff(rgba, {338: 2}), over_white(RGB, ALPHA), 1)
    yield Kind(
        "tiff-cmyk.tif",
        tiff(rgba, {262: 5}),
        np.rint((255.0 - RGB) * (255.0 - ALPHA[:, :, None]) / 255).astype(np.uint8),
        1,
    )
    lightness = np.zeros((2, 2, 3), np.uint8)  # L*a*b*: white above, black below
    lightness[0, :, 0] = 255
    yield Kind("tiff-lab.tif", tiff(lightness, {262: 8}), repeated([[255, 255], [0, 0]]), 1)
    table = _DRAWN_TABLE
    colors = tuple(int(value) * 257 for value in table.T.ravel())
    yield Kind("tiff-palette.tif", tiff(GREY, {262: 3, 320: colors}), table[GREY])
    bit = GREY >> 7
    packed = b"".join(packed_rows(bit, 1))
    yield Kind("tiff-bits.tif", tiff(bit, {258: 1}, data=[packed]), repeated(bit * 255))
    rows = [RGB[i : i + 2].tobytes() for i in range(0, 11, 2)]
    yield Kind("tiff-strips.tif", tiff(RGB, {278: 2}, data=rows), RGB)
    deflated = [zlib.compress(row) for row in rows]
    yield Kind("tiff-deflate.tif", tiff(RGB, {278: 2, 259: 8}, data=deflated), RGB)
    runs = [b"".join(bytes([len(row) - 1]) + row.tobytes() for row in RGB.reshape(11, -1))]
    yield Kind("tiff-packbits.tif", tiff(RGB, {259: 32773}, data=runs), RGB)
    planes = [RGB[:, :, i].tobytes() for i in range(3)]
    yield Kind("tiff-planes.tif", tiff(RGB, {284: 2}, data=planes), RGB)
    canvas = np.zeros((16, 16, 3), np.uint8)
    canvas[:11, :14] = RGB
    yield Kind("tiff-tiles.tif", tiff(RGB, tile=(16, 16), data=[canvas.tobytes()]), RGB)
    for name in ("tiff_lzw", "lzma", "zstd"):
        yield Kind(f"tiff-by-pillow-{name}.tif", by_pillow(RGB, "TIFF", compression=name), RGB)
    fax = by_pillow(Image.fromarray(bit * 255).convert("1"), "TIFF", compression="group4")
    yield Kind("tiff-fax.tif", fax, repeated(bit * 255))
    pages = [Image.fromarray(np.roll(RGB, i, axis=0)) for i in range(3)]
    several = by_pillow(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    yield Kind("tiff-pages.tif", several, reason="unsupported format")
    small = Image.fromarray(RGB[::3, ::3])
    yield Kind("tiff-small-copy-behind.tif", by_pillow(pages[0], "TIFF", save_all=True, append_images=[small]), RGB)
    mask = struct.pack(
        "<HHHIIHHIII", 2, 254, 4, 1, 4, 256, 4, 1, 14, 0
    )  # subfile type, width, and no further directory
    yield Kind("tiff-mask-behind.tif", tiff(RGB, next_page=len(tiff(RGB))) + mask, RGB)
    yield Kind("tiff-next-page-is-this.tif", tiff(RGB, next_page=None), RGB)
    yield Kind("tiff-next-page-outside.tif", tiff(RGB, next_page=10**9), RGB)
    turned = tiff(RGB, {274: 6, 278: 2, 259: 8}, data=deflated)
    yield Kind("tiff-deflate-turned.tif", turned, UPRIGHT[6](RGB))
    yield Kind("tiff-bytes-behind.tif", good + b"x" * 500, RGB)
    yield Kind("tiff-half.tif", good[: len(good) // 2], reason="damaged")
    yield Kind("tiff-header-only.tif", good[:8], reason="damaged")
    outside = tiff(RGB, {273: 10**8})
    yield Kind("tiff-pixels-outside.tif", outside, reason="truncated")
    yield Kind("tiff-floats.tif", tiff(np.zeros((4, 4), np.float32), {339: 3}), reason="unsupported format")
    yield Kind("tiff-32-bits.tif", tiff(np.zeros((4, 4), np.uint32)), reason="unsupported format")
    yield Kind("tiff-50000-squared.tif", tiff(RGB, size=(50_000, 50_000)), reason="too large")
    vast = tiff(RGB, {259: 8}, tile=(40_000, 40_000), data=[zlib.compress(bytes(1 << 20))])
    yield Kind("tiff-vast-tile.tif", vast, reason="too large")
    yield Kind("tiff-7-channels.tif", tiff(np.zeros((4, 4, 7), np.uint8)), reason="damaged")
    yield Kind("tiff-unknown-compression.tif", tiff(RGB, {259: 4242}), reason="damaged")
    yield Kind("tiff-bad-stream.tif", tiff(RGB, {259: 8}, data=[b"no stream"]), reason="damaged")
    yield Kind("tiff-no-columns.tif", tiff(RGB, size=(0, 11)), reason="damaged")


# --- what is no image, and names ------------------------------------------------------------------------------------


def zip_file() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a.txt"), "text")
    return buffer.getvalue()


class _RunsCode:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch /tmp/a-pickle-was-loaded",)


def foreign_kinds() -> Iterator[Kind]:
    """Files that are no images, or none of ours, whatever they are called."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))
    array = io.BytesIO()
    np.save(array, np.arange(9))
    bomb = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;">]><svg>&c;</svg>'
    for name, data, reason in (
        ("empty", b"", "empty"),
        ("one-byte", b"\xff", "not an image"),
        ("zeros", bytes(5000), "not an image"),
        ("ones", b"\xff" * 5000, "not an image"),
        ("noise", np.random.default_rng(3).bytes(5000), "not an image"),
        ("text", b"hello, I am a text\n", "not an image"),
        ("html", b"<!DOCTYPE html><html><body>404</body></html>", "not an image"),
        ("json", b'{"error": "not found"}', "not an image"),
        ("pickle", pickle.dumps(_RunsCode()), "not an image"),
        ("zip", zip_file(), "not an image"),
        ("gzip", zlib.compress(b"text", wbits=31), "not an image"),
        ("tar", buffer.getvalue(), "not an image"),
        ("npy", array.getvalue(), "not an image"),
        ("program", b"\x7fELF\x02\x01\x01" + bytes(57), "not an image"),
        ("script", b"#!/bin/sh\ntouch /tmp/a-script-was-run\n", "not an image"),
        ("lfs-pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "not an image"),
        ("xml-bomb", bomb, "not an image"),
        ("svg", b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "unsupported format"),
        ("svg-with-xml-head", b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        ("eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(x) run\n", "unsupported format"),
        ("pdf", b"%PDF-1.4\n1 0 obj <</Type /Catalog>> endobj\n", "unsupported format"),
        ("psd", b"8BPS\0\x01" + bytes(40), "unsupported format"),
        ("ico", by_pillow(np.zeros((16, 16, 3), np.uint8), "ICO"), "unsupported format"),
        ("heic", b"\0\0\0\x18ftypheic" + bytes(40), "damaged"),
        ("avif", b"\0\0\0\x20ftypavif" + bytes(40), "damaged"),
        ("jxl", b"\xff\x0a" + bytes(40), "damaged"),
        ("film", b"\0\0\0\x20ftypisom" + bytes(40), "unsupported format"),
        ("jp2", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "unsupported format"),
        ("tga", bytes([0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 4, 0, 24, 0]) + bytes(48), "not an image"),
        ("after-blanks", b"   " + png(RGB, 2), "not an image"),
        ("base64", b"/9j/4AAQSkZJRgABAQ==", "not an image"),
    ):
        yield Kind(f"foreign-{name}.jpg", data, reason=reason)


def newer_kinds() -> Iterator[Kind]:
    """AVIF, HEIC and JPEG XL, whose decoders read a whole file at once. None is written here: the blocks come back to a few
    grey levels. The second and third turn pixels by rules of their own, beside which EXIF counts for nothing."""
    import pillow_heif
    import pillow_jxl  # noqa: F401

    pillow_heif.register_heif_opener()
    mask = blown_up(np.array([[255, 0, 255], [0, 255, 255]], dtype=np.uint8))
    clear = Image.fromarray(np.dstack([PICTURE, mask]))
    grey = repeated(blown_up(BLOCKS[:, :, 1]))
    turned, plain = exif_block(6), Image.fromarray(PICTURE)
    best: dict[str, tuple[str, dict[str, object]]] = {
        "avif": ("AVIF", {"quality": 100, "subsampling": "4:4:4"}),
        "heic": ("HEIF", {"quality": 100, "chroma": 444}),
        "jxl": ("JXL", {"lossless": True}),
    }
    for suffix, (fmt, options) in best.items():
        good = by_pillow(plain, fmt, **options)
        yield Kind(f"newer-rgb.{suffix}", good, PICTURE, 4)
        yield Kind(
            f"newer-by-content-{suffix}.jpg", by_pillow(plain.rotate(180), fmt, **options), PICTURE[::-1, ::-1], 4
        )
        yield Kind(f"newer-clear.{suffix}", by_pillow(clear, fmt, **options), over_white(PICTURE, mask), 6)
        yield Kind(f"newer-grey.{suffix}", by_pillow(Image.fromarray(grey[:, :, 0]), fmt, **options), grey, 4)
        upright = (
            PICTURE if suffix == "jxl" else UPRIGHT[6](PICTURE)
        )  # the writers of the others make the format's own rule of it
        yield Kind(f"newer-turned.{suffix}", by_pillow(plain, fmt, exif=turned, **options), upright, 4)
        for share in (0.3, 0.7, 0.99):
            reason = "truncated" if suffix == "avif" and share > 0.9 else "damaged"
            yield Kind(f"newer-cut-{share}.{suffix}", good[: int(share * len(good))], reason=reason)
    frames = [plain, plain.rotate(180)]
    yield Kind(
        "newer-moving.avif",
        undated(by_pillow(frames[0], "AVIF", save_all=True, append_images=frames[1:], **best["avif"][1])),
        PICTURE,
        4,
    )
    brand = by_pillow(plain, "AVIF", **best["avif"][1]).replace(b"ftypavif", b"ftypmif1", 1)
    yield Kind("newer-of-a-wider-brand.heic", brand, PICTURE, 4)


def container_kinds() -> Iterator[Kind]:
    """TIFF as a container: camera raw whose first image is a preview, stacks and slides of microscopes. By name or by tags."""
    preview = tiff(RGB)
    suffixes = "nef NRW cr2 arw DNG pef srw 3fr iiq dcr svs stk lsm ndpi".split()
    for i, suffix in enumerate(suffixes, start=1):
        yield Kind(f"container.{suffix}", tiff(np.roll(RGB, (i, i), axis=(0, 1))), reason="unsupported format")
    yield Kind("container-big.dng", tiff(RGB[1:], big=True), reason="unsupported format")
    yield Kind("container-png.nef", png(RGB[1:], 2), RGB[1:])  # contents decide
    for name, tags in (
        ("dng-version", {50706: 0x0401}),
        ("color-filters", {258: 14, 259: 34713, 262: 32803, 277: 1}),
        ("linear-raw", {262: 34892}),
        ("preview", {254: 1, 330: 8}),
        ("stack", {33628: 1}),
        ("lsm", {34412: 1}),
        ("ndpi", {65420: 1}),
    ):
        for order in "<>":
            data = tiff(RGB, tags, order=order)
            yield Kind(f"container-{name}-{'little' if order == '<' else 'big'}.tif", data, reason="unsupported format")
    yield Kind("container-cr2.tif", preview[:8] + b"CR\2\0" + preview[8:], reason="unsupported format")
    yield Kind("container-page-of-many.tif", tiff(RGB, {254: 2}), RGB)
    for name, data in (
        ("cr3", b"\0\0\0\x18ftypcrx \0\0\0\1crx isom"),
        ("raf", b"FUJIFILMCCD-RAW 0201FF"),
        ("orf", b"IIRO\x08\0\0\0"),
        ("rw2", b"IIU\0\x18\0\0\0"),
        ("crw", b"II\x1a\0\0\0HEAPCCDR"),
        ("x3f", b"FOVb"),
        ("mrw", b"\0MRM"),
    ):
        yield Kind(f"container.{name}", data + bytes(40), reason="unsupported format")


def name_kinds() -> Iterator[Kind]:
    """The same small picture under names that break lines, pages, tables, shells and terminals."""
    for i, name in enumerate(
        (
            "two\nlines.png",
            "return\rand\ttab.png",
            "bell\x07 \x1b[31mred\x1b[0m.png",
            "not-utf8-\udcff\udcfe.png",
            "<img src=x onerror=alert(1)>.png",
            "&lt;b&gt; & \"quotes' .png",
            "=HYPERLINK(1).png",
            "-rf --help.png",
            "$(touch canary) `id` ; | &.png",
            "%2e%2e%2fetc%2fpasswd.png",
            "back\\slash.png",
            " blank .png",
            "comma, semicolon; \"a\".png",
            "caf\u00e9.png",
            "cafe\u0301.png",
            "\u202egnp.exe.png",
            "\u2028line separator\u200b.png",
            "\U0001f600.png",
            "CON.png",
            "UPPER.PNG",
            "no suffix",
            "two.suffixes.png.txt",
            "of-another-format.jpg",
            "x" * 251 + ".png",
        )
    ):  # fmt: skip
        pixels = np.roll(RGB, (i, i), axis=(0, 1))
        yield Kind(name, png(pixels, 2), pixels)


def make_kinds() -> Iterator[Kind]:
    families = exif_kinds, jpeg_kinds, png_kinds, gif_kinds, webp_kinds, bmp_kinds, tiff_kinds, pnm_kinds
    for family in (*families, newer_kinds, foreign_kinds, container_kinds, name_kinds):
        yield from family()


@cache
def kinds() -> tuple[Kind, ...]:
    """All of them, each with a name of its own."""
    return tuple(make_kinds())
