"""From the bytes of an image file to upright RGB pixels: the one decoder behind every command.

A file decodes to the right pixels or raises :class:`ImageError` with a reason class; nothing is guessed or printed.
"""

from __future__ import annotations

import io
import stat
import threading
import time
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from alexnet.core.errors import ImageError, Reason, printable

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM")
"""What is decoded, recognized by content. Not MPO: the JPEG reader opens those files too, by their first image."""

SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "other": (".heic", ".heif", ".avif", ".svg", ".jp2", ".psd", ".ico"),
}
"""File names that claim to be an image. A file so named that does not decode is a fault."""

MAX_FILE_BYTES = 64 << 20
MAX_PIXELS = 89_478_485
MAX_SIDE = 65_500
MAX_SCANS = 500
"""Of a progressive JPEG. Each scan is a pass over all coefficients: 8000 of them in 128 KB would take 17 s."""
MAX_SECONDS = 10.0

_SIGNATURES = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*"),
    *(b"P%d%c" % (kind, space) for kind in range(1, 7) for space in b" \t\r\n"),
)
_OTHER_FORMATS = {
    b"%!PS": "PostScript",
    b"%PDF": "PDF",
    b"8BPS": "PSD",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\0\0\1\0": "ICO",
    b"<svg": "SVG",
}
_WARNINGS_LOCK = threading.Lock()  # `warnings.catch_warnings` changes the whole process


def decode_image(source: Path | bytes, name: str | None = None) -> Image.Image:
    """The first frame of an image file, upright, as mode RGB.

    EXIF orientation is applied once, whatever the format. CMYK and YCCK are inverted if Adobe's marker says so, as
    Adobe's files are. 16-bit samples are scaled to 8, transparency lies over white, grey is repeated. ``image.info``
    holds the ``format`` and the decoder's ``warnings`` (list of str; about metadata: a fault in the pixels raises).

    Raises :class:`ImageError`: truncated, not an image, too large, unsupported format, no permission, empty, missing or
    damaged. ``name`` stands for the source in its message.
    """
    label = name if name is not None else "image" if isinstance(source, bytes) else str(source)
    data = source if isinstance(source, bytes) else read_image_file(source, label)
    if not data:
        raise ImageError(label, "empty", "0 bytes")
    if len(data) > MAX_FILE_BYTES:
        raise ImageError(label, "too large", f"{len(data):,} bytes; at most {MAX_FILE_BYTES:,}")
    with _WARNINGS_LOCK, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        image = _open(data, label)
        _check_size(image, data, label)
        _load_upright(image, label)
    rgb = _to_rgb(image, label)
    file_format = "JPEG" if image.format == "MPO" else image.format
    rgb.info = {"format": file_format, "warnings": [str(warning.message) for warning in caught]}
    return rgb


def read_image_file(path: Path, name: str | None = None) -> bytes:
    """The bytes of a regular file of at most ``MAX_FILE_BYTES``; pipes and devices are not opened."""
    label = name or str(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(label, "not an image", "not a regular file")
        if status.st_size > MAX_FILE_BYTES:
            raise ImageError(label, "too large", f"{status.st_size:,} bytes; at most {MAX_FILE_BYTES:,}")
        return path.read_bytes()
    except FileNotFoundError:
        raise ImageError(label, "missing", "no such file") from None
    except PermissionError:
        raise ImageError(label, "no permission") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        raise ImageError(label, "damaged", printable(error)) from error


def looks_like_image(head: bytes) -> bool:
    """Whether the first 32 bytes of a file are those of an accepted format."""
    bitmap = head[:2] == b"BM" and head[6:10] == b"\0\0\0\0"
    return bitmap or head.startswith(_SIGNATURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


class _TimedBytes(io.BytesIO):
    """Bytes that refuse to be read once ``MAX_SECONDS`` have passed. Pillow reads 64 KB at a time, so this ends a slow
    decode in any thread, without signals."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._deadline = time.monotonic() + MAX_SECONDS

    def read(self, size: int | None = -1, /) -> bytes:
        if time.monotonic() > self._deadline:
            raise TimeoutError(f"decoding takes longer than {MAX_SECONDS:g} s")
        return super().read(size)


# For damaged files Pillow raises OSError, SyntaxError, ValueError, KeyError, struct.error, MemoryError and more. The
# two functions below catch everything, and so hold nothing but calls of Pillow: a fault of ours must not hide there.


def _open(data: bytes, label: str) -> Image.Image:
    try:
        return Image.open(_TimedBytes(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise _unidentified(data[:512], label) from None
    except Exception as error:
        raise _fault(error, label) from error


def _load_upright(image: Image.Image, label: str) -> None:
    try:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
    except Exception as error:
        raise _fault(error, label) from error


def _check_size(image: Image.Image, data: bytes, label: str) -> None:
    width, height = image.size
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise ImageError(label, "too large", f"{width} x {height} pixels; at most {MAX_PIXELS:,}, side {MAX_SIDE:,}")
    # Inside coded data 0xFF is always followed by 0x00 or a restart marker, so this pair begins a scan.
    if image.format in ("JPEG", "MPO") and (scans := data.count(b"\xff\xda")) > MAX_SCANS:
        raise ImageError(label, "too large", f"{scans} scans; at most {MAX_SCANS}")


def _to_rgb(image: Image.Image, label: str) -> Image.Image:
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and image.format in ("PNG", "PPM")):
        return _scale_16_bits(image)
    if mode in ("I", "F"):
        raise ImageError(label, "unsupported format", f"mode {mode}: 32-bit samples have no stated range")
    if mode == "CMYK" and image.format in ("JPEG", "MPO") and "adobe" not in image.info:
        image = ImageChops.invert(image)  # undoes Pillow, which inverts every CMYK JPEG, marked or not
    try:
        if image.has_transparency_data:
            rgba = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
        return image if mode == "RGB" else image.convert("RGB")
    except ValueError as error:
        raise ImageError(label, "unsupported format", f"mode {mode}") from error


def _scale_16_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits (12 in some TIFF files) to 8 bits, rounded: the full range stays the full range."""
    bits = image.tag_v2.get(258, (16,))[0] if hasattr(image, "tag_v2") else 16  # TIFF: BitsPerSample
    peak = (1 << int(bits)) - 1
    sample_HW = np.asarray(image).astype(np.int64).clip(0, peak)
    return Image.fromarray(((sample_HW * 255 + peak // 2) // peak).astype(np.uint8)).convert("RGB")


def _unidentified(head: bytes, label: str) -> ImageError:
    if looks_like_image(head):
        return ImageError(label, "damaged", "its header cannot be read")
    for signature, name in _OTHER_FORMATS.items():
        if head.startswith(signature):
            return ImageError(label, "unsupported format", name)
    if head[4:8] == b"ftyp":
        return ImageError(label, "unsupported format", "HEIC, AVIF or video")
    return ImageError(label, "not an image", f"begins with {head[:8]!r}")


def _fault(error: Exception, label: str) -> ImageError:
    text = printable(error)[:200] or type(error).__name__
    reason: Reason = "damaged"
    if isinstance(error, TimeoutError | MemoryError | Image.DecompressionBombError):
        reason = "too large"
    elif isinstance(error, EOFError) or "truncated" in text.lower() or "premature" in text.lower():
        reason = "truncated"
    return ImageError(label, reason, text)
