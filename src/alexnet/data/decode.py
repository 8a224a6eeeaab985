"""From the bytes of an image file to upright RGB pixels: the one decoder behind every command.

A file decodes to the right pixels or raises :class:`ImageError` with a reason class; nothing is guessed or printed.
"""

from __future__ import annotations

import ctypes
import io
import logging
import os
import re
import stat
import struct
import sys
import threading
import time
import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from itertools import takewhile
from pathlib import Path, PurePath
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageChops, ImageFile, UnidentifiedImageError, features

from alexnet.core.errors import ImageError, Reason, printable
from alexnet.data.apart import decode_apart
from alexnet.data.samples import (
    FULL,
    is_inverted,
    is_wide,
    join_bytes,
    mend_tiles,
    read_exactly,
    read_low_bytes,
    to_8_bits,
    white_of,
)

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM")
"""What is decoded in this process, by content. Not MPO: the JPEG reader opens those files too, by their first image."""
NEWER = {
    "AVIF": "Pillow from 11.3 on reads it: pip install -U pillow",
    "HEIF": 'pip install "alexnet[formats]"',
    "JXL": 'pip install "alexnet[formats]"',
}
"""What is decoded in a process apart, as its decoders read a whole file at once; and how to get the decoder."""

SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif", ".hif"),
    "JXL": (".jxl",),
    "camera raw": (
        *(
            ".nef",
            ".nrw",
            ".cr2",
            ".cr3",
            ".crw",
            ".arw",
            ".sr2",
            ".srf",
            ".dng",
            ".raf",
            ".orf",
            ".rw2",
            ".rwl",
            ".pef",
        ),
        *(".srw", ".x3f", ".3fr", ".fff", ".iiq", ".mef", ".mos", ".mrw", ".erf", ".dcr", ".kdc", ".gpr"),
    ),
    "slide or stack": (".svs", ".stk", ".lsm", ".ndpi", ".scn", ".bif", ".qptiff"),
    "other": (".svg", ".jp2", ".psd", ".ico"),
}
"""File names that claim to be an image. A file so named that does not decode is a fault."""

MAX_FILE_BYTES = 64 << 20
MAX_PIXELS = 89_478_485
MAX_SIDE = 65_500
MAX_SCANS = 500
"""Limit of the scans of a progressive JPEG. Each is a pass over all coefficients: 8000 of them in 128 KB would take 17 s."""
MAX_SCAN_PIXELS = 4_000_000_000
"""Limit of scans times pixels: 45 scans of the largest image. (500 of them, in 0.6 MB, would take 30 s.)"""
MAX_DECODER_BYTES = 650_000_000
"""What a decoder may hold beside the file: the pixels, and for some kinds much more (see ``_decoder_bytes``)."""
MAX_SECONDS = 8.0
"""Processor time for decoding an image. To make the pixels upright RGB and to resize them may take 2 s more: 10 s in all."""
LARGE_PIXELS = 1 << 24
"""Images with more pixels are converted and turned in strips, so there is never more than one whole copy beside the decoder's."""
_STRIP_PIXELS = 1 << 18

_SIGNATURES = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*"),
    *(b"P%d%c" % (kind, space) for kind in range(1, 7) for space in b" \t\r\n"),
)
_WAYS_OUT = {
    "camera raw": "export it from its program as JPEG or TIFF",
    "slide or stack": "export its planes as TIFF or PNG",
    "TIFF of several pages": "save each page as a file of its own, for example with: magick FILE page-%d.png",
    "video": "save frames of it as JPEG",
}
_OTHER_FORMATS = {
    b"%!PS": "PostScript",
    b"%PDF": "PDF",
    b"8BPS": "PSD",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"II\xbc\x01": "JPEG XR",
    b"v/1\x01": "OpenEXR",
    b"gimp xcf": "XCF",
    b"\0\0\1\0": "ICO",
    b"<svg": "SVG",
    **dict.fromkeys(
        # RAF, ORF, RW2, CRW, X3F, MRW
        (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"II\x1a\0\0\0HEAPCCDR", b"FOVb", b"\0MRM"),
        "camera raw",
    ),
}
VIDEOS = {
    b"\x1aE\xdf\xa3": "matroska",  # WebM too
    b"\0\0\1\xba": "mpeg",
    b"\0\0\1\xb3": "mpegvideo",
    b"FLV\1": "flv",
    b"0&\xb2u\x8ef\xcf\x11": "asf",  # WMV
    b"OggS": "ogg",
}
"""How files of videos begin, beside those of QuickTime, AVI and MPEG transport streams; and FFmpeg's names of their formats."""
_QUICKTIME_BOXES = (b"moov", b"mdat", b"wide", b"pnot")
_BRANDS = {  # behind "ftyp"
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), "HEIF"),
    **dict.fromkeys((b"mif1", b"msf1", b"mif2"), "AVIF or HEIF"),
    b"crx ": "camera raw",
}
_JPEG_XL = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")
_CONTAINERS = ("AVIF", "HEIF", "AVIF or HEIF")
_SPOKEN = {"AVIF": "AVIF", "HEIF": "HEIC", "JXL": "JPEG XL"}
_TAGS_OF_STACKS = (33628, 33629, 34412, 65420)
"""TIFF tags by which stacks are known: two of MetaMorph's, then those of Zeiss's LSM and Hamamatsu's slides."""
_SUBFILE, _WIDTH, _PHOTOMETRIC, _SUBDIRECTORIES, _DNG_VERSION = 254, 256, 262, 330, 50706
_MAX_DIRECTORIES = 100
"""Directories of a TIFF file that are looked at."""
_COLOR_FILTERS, _LINEAR_RAW = 32803, 34892
_TURNS = {  # EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BYTES_A_PIXEL = {"AVIF": 10, "HEIF": 8, "JXL": 8}
"""What their decoders hold, with the pixels; measured (`results/newer-formats.json`)."""
_JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])")
"""Markers that a length follows, and the end marker, which none does. The others stand inside coded data or stand alone."""
_PNG_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row, and steps, of the passes of an interlaced file."""
_LOADING = threading.Lock()
_PROCESS_LOCK = threading.Lock()  # `warnings.catch_warnings` and `_quiet` change the whole process


def _release_in_child() -> None:
    """In a forked process nobody holds them."""
    global _LOADING, _PROCESS_LOCK
    _LOADING, _PROCESS_LOCK = threading.Lock(), threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_child)
_QUIET_FORMATS = ("JPEG", "MPO", "WEBP")
"""Formats whose pixels Pillow decodes without a warning: several threads may do it at a time, but for large images, because of
their memory."""
_READ_FLAGS = os.O_RDONLY
for _name in ("O_CLOEXEC", "O_BINARY", "O_NONBLOCK"):  # not blocked by a pipe put in the place of a file
    _READ_FLAGS |= getattr(os, _name, 0)
logging.getLogger("PIL").addHandler(logging.NullHandler())  # or else its complaints appear where no logging is set up


def decode_image(source: Path | bytes, name: str | None = None, sample_max: int | None = None) -> Image.Image:
    """The first frame of an image file, upright, as mode RGB.

    EXIF orientation is applied once, whatever the format. CMYK and YCCK are inverted if Adobe's marker says so, as
    Adobe's files are. 16-bit samples are scaled to 8, transparency lies over white, grey is repeated. ``sample_max`` is the
    sample that becomes 255 in files of more than 8 bits, larger ones too; by default what each file says is its largest.
    ``image.info`` holds the ``format``, the decoder's ``warnings`` (list of str; about metadata: a fault in the pixels raises),
    and of files of more than 8 bits ``samples``, the largest one and the one that became 255.

    Raises :class:`ImageError`: truncated, not an image, too large, unsupported format, no permission, empty, missing or
    damaged. ``name`` stands for the source in its message.
    """
    label = name if name is not None else "image" if isinstance(source, bytes) else str(source)
    data = source if isinstance(source, bytes) else read_image_file(source, label)
    if not data:
        raise ImageError(label, "empty", "0 bytes")
    if len(data) > MAX_FILE_BYTES:
        raise ImageError(label, "too large", f"{len(data):,} bytes; at most {MAX_FILE_BYTES:,}")
    if kind := _kind_of_tiff(data, label):
        raise _unsupported(kind, label)
    if formats := _newer_formats(data, label):
        return decode_apart(
            partial(_decode_alone, data, label, sample_max, formats),
            label,
            _PROCESS_LOCK,
            max_bytes=MAX_DECODER_BYTES,
            max_seconds=MAX_SECONDS,
        )
    return _decode(data, label, sample_max, FORMATS)


def _decode_alone(data: bytes, label: str, sample_max: int | None, formats: tuple[str, ...]) -> Image.Image:
    """The same, with as many threads as the limit of processor time counts."""
    if (pillow_heif := sys.modules.get("pillow_heif")) is not None:
        pillow_heif.options.DECODE_THREADS = 1
    for name, setting in (
        ("PIL.AvifImagePlugin", "DEFAULT_MAX_THREADS"),
        ("pillow_jxl.JpegXLImagePlugin", "DECODE_THREADS"),
    ):
        if name in sys.modules:
            setattr(sys.modules[name], setting, 1)
    return _decode(data, label, sample_max, formats)


def _decode(data: bytes, label: str, sample_max: int | None, formats: tuple[str, ...]) -> Image.Image:
    with _PROCESS_LOCK, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        image = _open(data, label, formats)
        with _faults_of(label):
            wide = is_wide(image) or image.mode.startswith("I;16")
            if wide:
                mend_tiles(image)
            two = wide and sample_max is not None and read_exactly(image, sample_max)
        _check_size(image, data, label, 2 if two else 1)
        turn = _turn(image, label)
        aside = image.format in _QUIET_FORMATS and image.width * image.height <= LARGE_PIXELS
        if not aside:
            _load(image, label)
        low = _low_bytes(data, label) if two else None
    if aside:
        _load(image, label)
    if image.format == "PNG":
        _check_png(image, data, label, exact=two)
    del data  # freed, unless somebody else holds it
    with _faults_of(label):
        white = (sample_max or white_of(image)) if wide else None
        rgb = _upright_rgb(image, low, turn, white, label)
    rgb.info |= {"warnings": [str(warning.message) for warning in caught]}
    return rgb


def upright_rgb(image: Image.Image, name: str = "image", sample_max: int | None = None) -> Image.Image:
    """An image that Pillow has opened, or that was made with it, as :func:`decode_image` gives a file: upright, as mode RGB.
    It is loaded, and else left as it is. Of colors of more than 8 bits Pillow gives the high 8. Raises :class:`ImageError`
    where it cannot be loaded or converted."""
    with _LOADING, _faults_of(name):  # two threads may be given one image, whose file they would share
        wide = image.mode.startswith("I;16") or (isinstance(image, ImageFile.ImageFile) and is_wide(image))
        with _quiet(image):
            image.load()
        own = image.copy()
        turn = None if _says_how_itself(image) else _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    own.format = image.format
    with _faults_of(name):
        return _upright_rgb(own, None, turn, (sample_max or white_of(image)) if wide else None, name)


def image_size(data: bytes, name: str = "image") -> tuple[int, int]:
    """Width and height of an image file when it is upright; for most kinds from its header alone. Raises
    :class:`ImageError`."""
    if _newer_formats(data, name):
        return decode_image(data, name).size
    with _PROCESS_LOCK, warnings.catch_warnings(), _faults_of(name):
        warnings.simplefilter("ignore")
        with _open(data, name) as image:
            orientation, (width, height) = image.getexif().get(ExifTags.Base.Orientation), image.size
            turned = orientation in (5, 6, 7, 8) and image.format != "TIFF"  # Pillow gives the upright size of those
    return (height, width) if turned else (width, height)


def largest_sample(data: bytes, name: str = "image") -> int:
    """The largest sample of an image file whose samples have more than 8 bits, on the scale of 16; 0 for other files, which for
    most kinds the header alone says. Raises :class:`ImageError`."""
    if not _newer_formats(data, name):
        with _PROCESS_LOCK, warnings.catch_warnings(), _faults_of(name):
            warnings.simplefilter("ignore")
            with _open(data, name) as image:
                if not is_wide(image):
                    return 0
    largest, _ = decode_image(data, name, FULL).info.get("samples", (0, FULL))
    return int(largest)


def read_image_file(path: str | Path, name: str | None = None, stamp: str = "") -> bytes:
    """The bytes of a regular file of at most ``MAX_FILE_BYTES``; pipes and devices are not opened. ``stamp``: what
    :func:`file_stamp` said of it when it was listed; another file in its place is refused."""
    label = name or str(path)
    with open_file(path, label, stamp=stamp) as file, _faults_of_reading(label):
        return file.read(MAX_FILE_BYTES + 1)


def open_file(path: str | Path, label: str, max_bytes: int = MAX_FILE_BYTES, stamp: str = "") -> BinaryIO:
    """A regular file of at most ``max_bytes``, open at its start; pipes and devices are not opened. ``stamp`` as of
    :func:`read_image_file`. Raises :class:`ImageError`."""
    with _faults_of_reading(label), ExitStack() as stack:
        status = os.stat(path)  # noqa: PTH116  # before opening: a device may do something when it is opened
        _check_file(status, label, max_bytes, stamp)
        file = stack.enter_context(open(os.open(path, _READ_FLAGS), "rb"))
        _check_file(os.fstat(file.fileno()), label, max_bytes, stamp)
        stack.pop_all()
        return file


@contextmanager
def _faults_of_reading(label: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise ImageError(label, "missing", "no such file") from None
    except PermissionError:
        raise ImageError(label, "no permission") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        raise ImageError(label, "damaged", printable(error)) from error


def file_stamp(status: os.stat_result) -> str:
    """Size and modification time: another file under the same name has another one."""
    return f"{status.st_size} {status.st_mtime_ns}"


def _check_file(status: os.stat_result, label: str, max_bytes: int, stamp: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(label, "not an image", "not a regular file")
    if status.st_size > max_bytes:
        raise ImageError(label, "too large", f"{status.st_size:,} bytes; at most {max_bytes:,}")
    if stamp and file_stamp(status) != stamp:
        listed_bytes = int(stamp.split()[0])
        reason: Reason = "truncated" if status.st_size < listed_bytes else "damaged"
        raise ImageError(
            label, reason, f"changed since it was listed with {listed_bytes:,} bytes; run the command again"
        )


def looks_like_image(head: bytes) -> bool:
    """Whether the first 32 bytes of a file are those of an accepted format."""
    bitmap = head[:2] == b"BM" and head[6:10] == b"\0\0\0\0"
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    return bitmap or webp or head.startswith((*_SIGNATURES, *_JPEG_XL)) or _kind_of_container(head) in _CONTAINERS


def kind_of_video(head: bytes) -> str:
    """FFmpeg's name of the format of a video, by the first 512 bytes of its file; empty for what is none. A file of sound alone
    may be in one of these formats."""
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if head[4:8] in _QUICKTIME_BOXES or _kind_of_container(head) == "video":
        return "mov"
    if any(
        len(head) > start + 2 * step and set(head[start::step][:3]) == {0x47} for start, step in ((0, 188), (4, 192))
    ):
        return "mpegts"
    return next((name for signature, name in VIDEOS.items() if head.startswith(signature)), "")


def _kind_of_container(head: bytes) -> str:
    """What a file that begins like an MP4 holds, by its brands; empty for another beginning."""
    if head[4:8] != b"ftyp":
        return ""
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))]  # the main one, then others that fit
    kinds = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
    return next((kind for kind in kinds if kind != "AVIF or HEIF"), kinds[0] if kinds else "video")


def _newer_formats(data: bytes, label: str) -> tuple[str, ...]:
    """The formats among ``NEWER`` that a file may have, by its first bytes, whose decoders are made ready. Raises
    :class:`ImageError` where they are not installed."""
    kind = "JXL" if data.startswith(_JPEG_XL) else _kind_of_container(data[:512])
    if kind not in (*_CONTAINERS, "JXL"):
        return ()
    formats = tuple(name for name in NEWER if name in kind.split(" or "))
    if ready := tuple(name for name in formats if _is_ready(name)):
        return ready
    raise ImageError(label, "unsupported format", f"{_SPOKEN[formats[-1]]}; {NEWER[formats[-1]]}")


def _is_ready(name: str) -> bool:
    """Whether Pillow can open this format among ``NEWER``, with its plug-in, which is loaded."""
    if name == "AVIF":
        return "avif" in features.modules and bool(features.check_module("avif"))
    try:
        if name == "HEIF":
            import pillow_heif

            pillow_heif.register_heif_opener()
        else:
            import pillow_jxl  # noqa: F401  # it registers itself
    except ImportError:
        return False
    return True


def _kind_of_tiff(data: bytes, label: str) -> str:
    """What a TIFF file is besides an image, or empty. Cameras and microscopes use TIFF as a container, whose first image is
    a preview, or one plane of many; some are known by their tags, others by their name alone."""
    if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return ""
    suffix = PurePath(label).suffix.lower()
    for kind in ("camera raw", "slide or stack"):
        if suffix in SUFFIXES[kind]:
            return kind
    directories = _tiff_directories(data)
    tags = next(directories, {})
    if any(tag in tags for tag in _TAGS_OF_STACKS):
        return "slide or stack"
    raw = _DNG_VERSION in tags or data[8:10] == b"CR" or tags.get(_PHOTOMETRIC) in (_COLOR_FILTERS, _LINEAR_RAW)
    preview = tags.get(_SUBFILE, 0) & 1 and _SUBDIRECTORIES in tags
    if raw or preview:
        return "camera raw"
    return "TIFF of several pages" if any(map(partial(_is_page, tags), directories)) else ""


def _is_page(first: dict[int, int], tags: dict[int, int]) -> bool:
    """Whether a directory behind the first is a page of its own: neither a mask, nor a smaller copy, which may not say so."""
    return not tags.get(_SUBFILE, 0) & 5 and 2 * tags.get(_WIDTH, 0) >= first.get(_WIDTH, 0)


def _tiff_directories(data: bytes) -> Iterator[dict[int, int]]:
    """The tags of each directory of a TIFF file. Their values where they are one short or long number, else 0."""
    order = "<" if data[:2] == b"II" else ">"
    seen = {0}
    try:
        (at,) = struct.unpack_from(order + "I", data, 4)
        while at not in seen and len(seen) <= _MAX_DIRECTORIES:
            seen.add(at)
            tags = {}
            (num,) = struct.unpack_from(order + "H", data, at)
            for i in range(num):
                tag, field, count = struct.unpack_from(order + "HHI", data, at + 2 + 12 * i)
                form = {3: "H", 4: "I"}.get(field) if count == 1 else None
                tags[tag] = struct.unpack_from(order + form, data, at + 10 + 12 * i)[0] if form else 0
            yield tags
            (at,) = struct.unpack_from(order + "I", data, at + 2 + 12 * num)
    except struct.error:  # it is cut, which the decoder will say
        pass


class _TimedBytes(io.BytesIO):
    """Bytes that refuse to be read once ``MAX_SECONDS`` of the thread's processor time have passed (a busy machine refuses
    nothing). Pillow reads 64 KB at a time, so this ends a slow decode in any thread, without signals."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._deadline = time.thread_time() + MAX_SECONDS

    def read(self, size: int | None = -1, /) -> bytes:
        if time.thread_time() > self._deadline:
            raise TimeoutError(f"decoding takes longer than {MAX_SECONDS:g} s")
        return super().read(size)


@contextmanager
def _faults_of(label: str) -> Iterator[None]:
    """Whatever Pillow raises is a fault of the file: OSError, SyntaxError, ValueError, KeyError, IndexError, AssertionError,
    struct.error, RecursionError and more, when it opens a damaged file, when it looks at a tag, when it decodes, and when it
    converts what it decoded. Around little else, so that faults of ours do not hide among those."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:
        raise _fault(error, label) from error


def _open(data: bytes, label: str, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    with _faults_of(label):
        try:
            return Image.open(_TimedBytes(data), formats=formats)
        except UnidentifiedImageError:
            raise _unidentified(data[:512], label) from None


def _turn(image: Image.Image, label: str) -> Image.Transpose | None:
    """How to turn the pixels, once they are loaded as they are stored."""
    with _faults_of(label):
        if _says_how_itself(image):
            return None
        exif = image.getexif()
        return _TURNS.get(exif.pop(ExifTags.Base.Orientation, 1))  # or else Pillow turns TIFF files while it loads them


def _says_how_itself(image: Image.Image) -> bool:
    """Whether the format turns its pixels by a rule of its own, beside which EXIF counts for nothing. Pillow gives that rule of
    AVIF as EXIF. What the plug-in gives of a JPEG XL file that was made of a JPEG file is that file."""
    if image.format == "AVIF":
        image.info.pop("xmp", None)
    return image.format == "HEIF" or (image.format == "JXL" and not getattr(image, "jpeg", False))


def _load(image: Image.Image, label: str) -> None:
    """Decode the pixels."""
    with _faults_of(label), _quiet(image):
        image.load()


def _low_bytes(data: bytes, label: str) -> Image.Image:
    """The same image with the low bytes of its samples."""
    image = _open(data, label)
    mend_tiles(image)
    try:
        finish = read_low_bytes(image)
    except ValueError as error:
        raise ImageError(label, "unsupported format", f"{error} cannot be scaled; save it as PNG") from error
    _turn(image, label)
    _load(image, label)
    with _faults_of(label):
        return finish(image)


@contextmanager
def _quiet(image: Image.Image) -> Iterator[None]:
    """libtiff reports faults to the standard error of the process, beside raising them. It is told not to, where it is found;
    else what any thread writes there meanwhile is lost as well."""
    if image.format != "TIFF":
        yield
    elif (libtiff := _libtiff()) is not None:
        before = libtiff.TIFFSetErrorHandler(None)
        try:
            yield
        finally:
            libtiff.TIFFSetErrorHandler(before)
    else:
        with _redirected():
            yield


@cache
def _libtiff() -> ctypes.CDLL | None:
    """The library that Pillow has loaded, where the system says which it is: on Linux."""
    try:
        maps = Path("/proc/self/maps").read_text(errors="surrogateescape")
        files = {words[5] for line in maps.splitlines() if len(words := line.split(maxsplit=5)) == 6}
        library = ctypes.CDLL(next(file for file in files if PurePath(file).name.startswith("libtiff")))
        setter = library.TIFFSetErrorHandler
    except (OSError, StopIteration, AttributeError):
        return None
    setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
    return library


@contextmanager
def _redirected() -> Iterator[None]:
    try:
        before = os.dup(2)
    except OSError:  # closed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)


def _check_size(image: Image.Image, data: bytes, label: str, copies: int = 1) -> None:
    width, height = image.size
    pixels = width * height
    if max(width, height) > MAX_SIDE or pixels > MAX_PIXELS:
        raise ImageError(label, "too large", f"{width} x {height} pixels; at most {MAX_PIXELS:,}, side {MAX_SIDE:,}")
    scans = count_scans(data) if image.format in ("JPEG", "MPO") else 1
    if scans > MAX_SCANS or scans * pixels > MAX_SCAN_PIXELS:
        raise ImageError(
            label, "too large", f"{scans} scans of {pixels:,} pixels; at most {MAX_SCANS}, {MAX_SCAN_PIXELS:,} in all"
        )
    with _faults_of(label):
        needed = copies * _decoder_bytes(image, scans, len(data))
    if needed > MAX_DECODER_BYTES:
        raise ImageError(
            label,
            "too large",
            f"{width} x {height} pixels of this kind take {needed >> 20:,} MiB to decode; "
            f"at most {MAX_DECODER_BYTES >> 20:,}",
        )


def count_scans(data: bytes) -> int:
    """Scans of the first image of a JPEG file; not those of a thumbnail or of images behind it."""
    scans, at = 0, 2
    while (marker := _JPEG_MARKER.search(data, at)) and marker[1] != b"\xd9":
        scans += marker[1] == b"\xda"
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return scans


def _decoder_bytes(image: Image.Image, scans: int, file_bytes: int) -> int:
    """What Pillow and the library below it hold to decode an image, beside the file."""
    pixels = image.width * image.height
    needed = pixels * {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}.get(image.mode, 4)
    if image.format in _BYTES_A_PIXEL:
        return _BYTES_A_PIXEL[image.format] * pixels + 2 * file_bytes
    if image.format == "WEBP":
        return 4 * needed + 2 * file_bytes  # two canvases and a copy of one, always of four channels
    if image.format in ("JPEG", "MPO") and (scans > 1 or "progressive" in image.info):
        areas = [across * down for _, across, down, *_ in getattr(image, "layer", ())]
        needed += 2 * pixels * sum(areas) // max([1, *areas])  # all coefficients, until the last scan
    if image.format == "TIFF":
        needed += _tiff_chunk_bytes(image)
    return needed


def _tiff_chunk_bytes(image: Image.Image) -> int:
    """Bytes of one decoded strip or tile, which the file may make larger than the image."""
    tags = getattr(image, "tag_v2", {})

    def number(tag: int, default: int) -> int:
        value = tags.get(tag, default)
        values = value if isinstance(value, tuple) else (value,)
        return max(0, sum(values)) if all(isinstance(each, int) for each in values) else default

    rows = min(number(278, image.height), image.height)  # RowsPerStrip
    width, height = number(322, image.width), number(323, rows)  # TileWidth, TileLength
    return width * height * max(8, number(258, 8)) // 8  # BitsPerSample of each


def _check_png(image: Image.Image, data: bytes, label: str, *, exact: bool) -> None:
    """Check what Pillow does not: a stream of pixels that ends too early leaves zeros, and is refused. Correct the transparent
    color of 16-bit samples, which keeps 16 bits where Pillow makes the pixels 8."""
    width, height = image.size
    if data[12:16] != b"IHDR":
        raise ImageError(label, "damaged", "its first chunk is not the header")
    bits, color, interlaced = (data[i] for i in (24, 25, 28))
    before_pixels = [name for name, _, _ in takewhile(lambda chunk: chunk[0] != b"IDAT", _png_chunks(data))]
    if before_pixels.count(b"IHDR") > 1 or before_pixels.count(b"PLTE") > 1:
        raise ImageError(label, "damaged", "it has two headers or two palettes")
    if color == 3 and image.palette is None:
        raise ImageError(label, "damaged", "it has no palette (PLTE), which its pixels need")
    transparent = image.info.get("transparency")
    if bits == 16 and image.mode == "RGB" and not exact and isinstance(transparent, tuple):
        image.info["transparency"] = tuple(sample >> 8 for sample in transparent)
    with _faults_of(label):
        last_row = image.crop((0, height - 1, width, height)).tobytes()
    if not interlaced and any(last_row):
        return
    sample_bits = bits * {2: 3, 4: 2, 6: 4}.get(color, 1)
    expected = 0
    for left, top, across, down in _PNG_PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = max(0, -(-(width - left) // across)), max(0, -(-(height - top) // down))
        expected += rows * (1 + -(-columns * sample_bits // 8)) if columns else 0
    if (found := _png_stream_bytes(data, expected)) < expected:
        raise ImageError(label, "truncated", f"{found:,} of {expected:,} bytes of pixels")


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, and where the content begins and ends, of each chunk."""
    at = 8
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        yield name, at + 8, at + 8 + length
        at += 12 + length


def _png_stream_bytes(data: bytes, enough: int) -> int:
    """Bytes of pixels in the IDAT chunks, counted to ``enough``."""
    stream, found = zlib.decompressobj(), 0
    for name, begin, end in _png_chunks(data):
        if found >= enough:
            break
        for start in range(begin, end, 1 << 16) if name == b"IDAT" else ():
            try:
                found += len(stream.decompress(data[start : min(start + (1 << 16), end)]))
            except zlib.error:
                return found
    return found


def _upright_rgb(
    image: Image.Image, low: Image.Image | None, turn: Image.Transpose | None, white: int | None, label: str
) -> Image.Image:
    """The image as RGB, turned upright. ``low``: the low bytes of samples of 16 bits, if they are needed. ``white``: the
    sample that becomes 255, for samples of more than 8 bits."""
    file_format = "JPEG" if image.format == "MPO" else str(image.format)
    plain = image.mode == "RGB" and not image.has_transparency_data and turn is None and low is None
    inverted = white is not None and is_inverted(image)
    if plain or (image.width * image.height <= LARGE_PIXELS):
        low = None if low is None else _as_stored(low)
        rgb, largest = _to_rgb(_as_stored(image), low, file_format, white, label)
        rgb = ImageChops.invert(rgb) if inverted else rgb
        rgb = rgb if turn is None else rgb.transpose(turn)
    else:
        planes, largest = _planes(image, low, file_format, white, label)
        image.close()  # before another copy is made
        if low is not None:
            low.close()
        for i in range(3):  # one at a time
            planes[i] = ImageChops.invert(planes[i]) if inverted else planes[i]
            planes[i] = planes[i] if turn is None else planes[i].transpose(turn)
        rgb = Image.merge("RGB", planes)
    rgb.info = {"format": file_format}
    if white is not None:
        rgb.info["samples"] = (largest, white)
    return rgb


def _as_stored(image: Image.Image) -> Image.Image:
    """The image with the size of its stored pixels: for a TIFF file that is not upright, Pillow gives the upright size."""
    return image if image.size == image.im.size else image.crop((0, 0, *image.im.size))


def _planes(
    image: Image.Image, low: Image.Image | None, file_format: str, white: int | None, label: str
) -> tuple[list[Image.Image], int]:
    """Red, green and blue of a large image, as they are stored, converted strip by strip, and its largest sample."""
    width, height = image.im.size  # as stored: for TIFF files `image.size` is the upright size
    planes, largest = [Image.new("L", (width, height)) for _ in range(3)], 0
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        box = (0, top, width, min(top + rows, height))
        strip = None if low is None else low.crop(box)
        rgb, most = _to_rgb(image.crop(box), strip, file_format, white, label)
        largest = max(largest, most)
        for plane, band in zip(planes, rgb.split(), strict=True):
            plane.paste(band, (0, top))
    return planes, largest


def _to_rgb(
    image: Image.Image, low: Image.Image | None, file_format: str, white: int | None, label: str
) -> tuple[Image.Image, int]:
    """The image as RGB, pixel by pixel, so that a strip gives the same as the whole image; and, for samples of more than 8
    bits, the largest (where only the high bytes are known, the largest that it may be)."""
    mode, largest = image.mode, 0
    if white is not None and (mode.startswith("I;16") or (mode == "I" and file_format in ("PNG", "PPM"))):
        return _grey_of_16_bits(image, white)
    if mode in ("I", "F"):
        raise ImageError(
            label,
            "unsupported format",
            f"mode {mode}: samples of 32 bits, or in floating point, have no stated range; scale them to 8 or 16 bits and "
            "save them as PNG",
        )
    if low is not None:
        image, largest = join_bytes(image, low, white or FULL)
    elif white is not None:
        most = max(high for _, high in _extrema(image)[:3])
        largest = round(most / 255 * white) if file_format == "PPM" else most << 8 | 255
    if mode == "CMYK" and file_format == "JPEG" and "adobe" not in image.info:
        image = ImageChops.invert(image)  # undoes Pillow, which inverts every CMYK JPEG, marked or not
    try:
        if image.has_transparency_data:
            rgba = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB"), largest
        return image if mode == "RGB" else image.convert("RGB"), largest
    except ValueError as error:
        raise ImageError(label, "unsupported format", f"mode {mode}") from error


def _extrema(image: Image.Image) -> list[tuple[int, int]]:
    """Smallest and largest value of each channel."""
    found = image.getextrema()
    return list(found) if isinstance(found[0], tuple) else [found]  # type: ignore[list-item]


def _grey_of_16_bits(image: Image.Image, white: int) -> tuple[Image.Image, int]:
    sample_HW = np.asarray(image)
    grey_HW = to_8_bits(sample_HW, white)
    if isinstance(transparent := image.info.get("transparency"), int):
        grey_HW[sample_HW == transparent] = 255
    return Image.fromarray(grey_HW).convert("RGB"), int(sample_HW.max())


def _unidentified(head: bytes, label: str) -> ImageError:
    if looks_like_image(head):
        return ImageError(label, "damaged", "its header cannot be read")
    for signature, name in _OTHER_FORMATS.items():
        if head.startswith(signature):
            return _unsupported(name, label)
    if kind := _kind_of_container(head) or (kind_of_video(head) and "video"):
        return _unsupported(kind, label)
    return ImageError(label, "not an image", f"begins with {head[:8]!r}")


def _unsupported(kind: str, label: str) -> ImageError:
    way_out = _WAYS_OUT.get(kind, "convert it to PNG or JPEG")
    return ImageError(label, "unsupported format", f"{kind}; {way_out}")


def _fault(error: Exception, label: str) -> ImageError:
    text = printable(str(error).strip())[:200]
    if "Please build `libjxl`" in text:  # which is all that is said of whatever is wrong
        text = "the decoder of JPEG XL refuses it"
    elif not text or not isinstance(error, OSError | EOFError | SyntaxError | ValueError | MemoryError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    reason: Reason = "damaged"
    if isinstance(error, TimeoutError | MemoryError | Image.DecompressionBombError) or any(
        words in text for words in ("too large", "Too much memory", "Out of memory", "Memory allocation")
    ):
        reason = "too large"
    elif isinstance(error, EOFError) or any(word in text.lower() for word in ("truncated", "premature", "not enough")):
        reason = "truncated"
    return ImageError(label, reason, text)
