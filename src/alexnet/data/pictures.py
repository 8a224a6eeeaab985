"""Pictures in every form that people have them in: files, folders, bytes, Pillow's images, arrays and tensors.

Shape suffixes: B images, C channels, H rows, W columns.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from alexnet.core.errors import DataError, printable
from alexnet.data.decode import MAX_FILE_BYTES, decode_image, upright_rgb
from alexnet.data.folder import Found, Listing, is_image, walk, without_second_kinds
from alexnet.data.inside import holds_pictures, members, record_at
from alexnet.data.parquet import parquet_files, parquet_records
from alexnet.data.sources import Record

STDIN = "-"
File = io.BufferedIOBase | io.RawIOBase
"""A binary file that is open, or bytes in memory as one."""
PictureLike = str | os.PathLike[str] | bytes | bytearray | memoryview | File | Image.Image | NDArray[Any] | Tensor
"""What :func:`pictures` reads: see there."""

HALF_STEP = 0.5 / 255
"""By less than this, samples in floating point may be beyond 0 and 1: they are rounded to these."""
TAKEN = (
    "a picture is a path, the bytes of an image file, a binary file that is open, a PIL image, a NumPy array (H, W, 3), "
    "(H, W, 1) or (H, W), or a tensor (3, H, W), (1, H, W) or (H, W), of uint8 from 0 to 255 or floating point from 0 to 1; "
    "several are a list or an iterator of these, an array (B, H, W, C), a tensor (B, C, H, W), or a folder"
)


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture that is not decoded yet."""

    name: str
    """Its path (``photos.zip/cat/1.jpg`` of one in an archive), ``-`` for standard input, or, for what has no name, which of the
    inputs it is: ``input 0``, or ``input 0[2]`` for the third image of a batch."""
    source: Path | bytes | Image.Image | Record

    def decode(self, sample_max: int | None = None) -> Image.Image:
        """Its upright RGB pixels, whatever the form. Raises :class:`~alexnet.core.errors.ImageError`."""
        if isinstance(self.source, Image.Image):
            return upright_rgb(self.source, self.name, sample_max)
        source = self.source
        if isinstance(source, Path) and (record := record_at(source)) is not None:
            source = replace(record, name=self.name)
        if not isinstance(source, Record):
            return decode_image(source, self.name, sample_max)
        data = source.read()
        return decode_image(data, self.name, sample_max) if isinstance(data, bytes) else Image.fromarray(data)

    def __str__(self) -> str:
        return self.name


def is_one(given: PictureLike | Iterable[PictureLike]) -> bool:
    """Whether this is one picture, and not several: a list, an iterator, a folder or a batch."""
    if isinstance(given, np.ndarray | Tensor):
        return given.ndim != 4
    if isinstance(given, str | os.PathLike):
        return not _is_folder(os.fspath(given)) and not holds_pictures(os.fspath(given))
    return isinstance(given, bytes | bytearray | memoryview | File | Image.Image)


def pictures(given: PictureLike | Iterable[PictureLike]) -> Iterator[Picture]:
    """The pictures in what is given, in order.

    - A path is a file, a folder or an archive (its images, recursively, in the order of their names), a picture in an archive
      (``photos.zip/cat/1.jpg``), a Parquet file or a folder of them (their rows), or ``-`` for the bytes of one image on
      standard input. bytes are those of an image file, which may also be open: it is read from its start if
      that can be sought, and left open.
    - An image of Pillow is turned as its EXIF orientation says and laid over white where it is transparent, as files are.
    - Arrays have their channels last, tensors have them first: red, green and blue, or one of grey. Samples are uint8, 0 to
      255, or floating point, 0 to 1 as of torchvision's ``ToTensor``, rounded to steps of 1/255 (and beyond by less than half a
      step, as resizing leaves them). With one more axis in
      front they are as many pictures.
    - A list, a tuple or an iterator holds any of these, mixed.

    All but an iterator is looked at when this is called, before any picture is decoded. Raises :class:`TypeError` for
    another type, inside a list as well, :class:`ValueError` for a shape or samples that could be meant in several ways, and
    :class:`DataError` for a folder without images, when it is its turn."""
    if isinstance(given, str | os.PathLike | bytes | bytearray | memoryview | File | Image.Image | np.ndarray | Tensor):
        several: Iterable[Any] = [given]
    elif isinstance(given, Mapping | io.TextIOBase) or not isinstance(given, Iterable):
        raise TypeError(f"{_kind(given)} is no picture; {TAKEN}")
    else:
        several = given if isinstance(given, Iterator) else list(given)
    if isinstance(several, list):
        for i, one in enumerate(several):
            _require_picture(one, i)
    return _in_order(several)


def _in_order(several: Iterable[Any]) -> Iterator[Picture]:
    for i, one in enumerate(several):
        _require_picture(one, i)
        if isinstance(one, str | os.PathLike):
            yield from _of_path(os.fspath(one))
        elif isinstance(one, Image.Image):
            yield Picture(str(getattr(one, "filename", "") or f"input {i}"), one)
        elif isinstance(one, np.ndarray | Tensor):
            for j, pixels in enumerate(one if one.ndim == 4 else [one]):
                name = f"input {i}[{j}]" if one.ndim == 4 else f"input {i}"
                yield Picture(name, Image.fromarray(_as_uint8(pixels, name)))
        elif isinstance(one, File):
            yield Picture(str(getattr(one, "name", f"input {i}")), _content(one))
        else:
            yield Picture(f"input {i}", bytes(one))


def _of_path(source: str) -> Iterator[Picture]:
    path = Path(source)
    if source == STDIN:
        # it is read by who asks: a thread that waits for it would outlive the process's end
        yield Picture(source, sys.stdin.buffer.read(MAX_FILE_BYTES + 1))
    elif _is_folder(source):
        listing = walk(path)
        if tables := parquet_files(listing):
            yield from _rows_of(tables, path)
        else:
            yield from (Picture(file, Path(file)) for file in _images_in(listing, source))
    elif not holds_pictures(source):
        yield Picture(source, path)
    else:
        for inside, record in members(path).items():
            name = f"{path}/{inside}"
            yield Picture(name, replace(record, name=name))


def _content(file: File) -> bytes:
    if file.seekable():
        file.seek(0)
    content = bytearray()
    while len(content) <= MAX_FILE_BYTES and (part := file.read(MAX_FILE_BYTES + 1 - len(content))):
        content += part
    return bytes(content)


def image_files(sources: Iterable[str | Path]) -> Iterator[str]:
    """The paths of the pictures in files, folders and archives, as :func:`pictures` has them, and ``-`` as it is. A folder or an
    archive without images: :class:`DataError`."""
    for source in map(str, sources):
        if source == STDIN:
            yield source
        else:
            yield from (picture.name for picture in _of_path(source))


def _images_in(listing: Listing, folder: str) -> Iterator[str]:
    found = without_second_kinds([*filter(is_image, listing.files)])[0]
    if not found:
        raise DataError(f"{printable(folder)}: no image files in this folder; name another folder or the files")
    yield from (file.file for file in found)


def _rows_of(tables: Sequence[Found], folder: Path) -> Iterator[Picture]:
    """The images of Parquet files of a folder, in the order of their rows."""
    for record in parquet_records(tables):
        name = f"{folder}/{record.name}"
        yield Picture(name, replace(record, name=name))


def _is_folder(source: str | bytes) -> bool:
    try:
        return os.path.isdir(source)  # noqa: PTH112
    except OSError:  # a name that is too long: decoding it says so, and the others are answered
        return False


def _require_picture(one: Any, i: int) -> None:
    """Types, shapes and kinds of samples; whether floating samples are from 0 to 1 is seen when it is their turn."""
    if isinstance(one, os.PathLike) and not isinstance(os.fspath(one), str):
        raise TypeError(f"input {i} is a path of bytes; take os.fsdecode(path); {TAKEN}")
    if isinstance(one, str | os.PathLike | bytes | bytearray | memoryview | File | Image.Image):
        return
    if not isinstance(one, np.ndarray | Tensor):
        raise TypeError(f"input {i} is {_kind(one)}; {TAKEN}")
    if isinstance(one, Tensor) and (one.layout != torch.strided or one.is_meta):
        raise TypeError(f"input {i} is a tensor without its samples in memory, one after another; {TAKEN}")
    floating = one.is_floating_point() if isinstance(one, Tensor) else np.issubdtype(one.dtype, np.floating)
    if not floating and one.dtype not in (np.uint8, torch.uint8):
        raise TypeError(f"input {i} is {_kind(one)} of {one.dtype}; {TAKEN}")
    shape, tensor = tuple(one.shape), isinstance(one, Tensor)
    image, grey = shape[-3:], len(shape) == 2
    first, last = (len(shape) in (3, 4) and image[place] in (1, 3) for place in (0, 2))
    if 0 in image or not (grey or (first if tensor else last)):
        advice = ""
        if first or last:
            axes = [0, 3, 1, 2] if tensor else [0, 2, 3, 1]
            order = ", ".join(map(str, axes if len(shape) == 4 else [axis - 1 for axis in axes[1:]]))
            turn = f"permute({order})" if tensor else f"transpose({order})"
            advice = f"if its channels are {'last' if tensor else 'first'}, take x.{turn}; "
        elif len(shape) in (3, 4) and image[0 if tensor else 2] == 4:
            colors = "x[..., :3]" if not tensor else "x[:3]" if len(shape) == 3 else "x[:, :3]"
            advice = f"if its fourth channel is alpha, take {colors}; "
        raise ValueError(f"input {i} is {_kind(one)} of shape {shape}; {advice}{TAKEN}")


def _as_uint8(pixels: NDArray[Any] | Tensor, name: str) -> NDArray[np.uint8]:
    """(H, W, 3) or (H, W)."""
    if isinstance(pixels, Tensor):
        pixels = pixels.detach()
        pixels = (pixels.float() if pixels.dtype in (torch.bfloat16, torch.float16) else pixels).cpu().numpy()
        pixels = pixels.transpose(1, 2, 0) if pixels.ndim == 3 else pixels
    if pixels.dtype != np.uint8:
        low, high = pixels.min(), pixels.max()
        if not (low > -HALF_STEP and high < 1 + HALF_STEP):  # also NaN
            raise ValueError(
                f"{name} has floating-point samples from {low:g} to {high:g}; they must be from 0 to 1, or uint8 from 0 to "
                "255 (not yet normalized: the model subtracts its own mean)"
            )
        pixels = np.rint(pixels.astype(np.float64) * 255).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)


def _kind(value: Any) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__.split('.')[0]}.{kind.__name__}"
