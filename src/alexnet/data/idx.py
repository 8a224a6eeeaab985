"""IDX files, the format of MNIST and Fashion-MNIST: a header of big-endian sizes, then the bytes; plain or gzipped."""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet.core.errors import DataError, printable
from alexnet.data.sources import (
    HELD_OUT_NOTE,
    MAX_IMAGES,
    Record,
    Source,
    SplitName,
    file_stamps,
    fingerprint_of,
    hold_out,
)

FASHION_MNIST_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
MAX_BYTES = 4 << 30
"""Limit of an unpacked file, so that a small .gz cannot fill the memory. Beyond SMALL_BYTES it may also be at most MAX_RATIO
times as large as the file it is in."""
SMALL_BYTES, MAX_RATIO = 256 << 20, 100

_IMAGES = re.compile(r"images[.-]idx3", re.IGNORECASE)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array of unsigned bytes in an IDX file. Raises :class:`DataError` if it is anything else."""
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise DataError(f"{printable(path)}: not a regular file; IDX data is read from one")
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            zero, kind, num_dims = struct.unpack(">HBB", file.read(4))
            if zero != 0 or kind != 8 or not 1 <= num_dims <= 4:
                raise DataError(f"{printable(path)}: not an IDX file of unsigned bytes")
            shape = struct.unpack(f">{num_dims}I", file.read(4 * num_dims))
            num_bytes = math.prod(shape)
            if shape[0] > MAX_IMAGES:
                raise DataError(f"{printable(path)}: its header announces {shape[0]:,} images; at most {MAX_IMAGES:,}")
            if num_bytes > (most := min(MAX_BYTES, max(SMALL_BYTES, MAX_RATIO * path.stat().st_size))):
                raise DataError(f"{printable(path)}: its header announces {num_bytes:,} bytes; at most {most:,}")
            data = file.read(num_bytes + 1)
    except (OSError, EOFError, struct.error, zlib.error) as error:
        raise DataError(f"{printable(path)}: cannot be read as IDX ({printable(error)})") from error
    if len(data) != num_bytes:
        more = "more" if len(data) > num_bytes else "fewer"
        raise DataError(f"{printable(path)}: {more} bytes than the {num_bytes:,} its header announces; get it again")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def is_idx(path: Path) -> bool:
    """Whether a file has the name of IDX images, or a folder holds one."""
    return bool(_image_files(path))


def idx_set(path: Path, seed: int = 0, classes: Sequence[str] | None = None) -> Source:
    """The images of an IDX file, or of all in a folder, with the labels of the file beside it (``images`` and ``idx3``
    in the name become ``labels`` and ``idx1``). Grey, at their own size. ``test`` if the name holds t10k or test, else
    ``train``. ``classes``: names for the labels 0, 1, ..; None for the numbers."""
    files = _image_files(path)
    pairs = [(images, images.with_name(_IMAGES.sub(_label_name, images.name))) for images in files]
    records: list[Record] = []
    sizes = set()
    for images, labels in pairs:
        if not labels.is_file():
            raise DataError(f"{printable(images)}: its labels are missing; expected {printable(labels.name)} beside it")
        image_NHW, label_N = read_idx(images), read_idx(labels)
        if image_NHW.ndim != 3 or label_N.ndim != 1 or len(image_NHW) != len(label_N) or 0 in image_NHW.shape:
            raise DataError(
                f"{printable(images)}: {image_NHW.shape} images with {label_N.shape} labels do not belong together"
            )
        if len(records) + len(label_N) > MAX_IMAGES:
            raise DataError(f"{printable(path)}: more than {MAX_IMAGES:,} images")
        sizes.add(min(image_NHW.shape[1:]))
        split: SplitName = "test" if re.search("t10k|test", images.name, re.IGNORECASE) else "train"
        records += [
            Record(split, int(label), f"{images.name}/{i}", data=image_HW[:, :, None])
            for i, (image_HW, label) in enumerate(zip(image_NHW, label_N, strict=True))
        ]
    names = classes or [str(label) for label in range(1 + max(record.label for record in records))]
    if (highest := max(record.label for record in records)) >= len(names):
        raise DataError(f"{printable(path)}: label {highest}, but there are {len(names)} classes")
    only_train = all(record.split == "train" for record in records)
    return Source(
        classes=names,
        records=hold_out(records, seed) if only_train else records,
        fingerprint=fingerprint_of("idx", seed, *file_stamps(file for pair in pairs for file in pair)),
        size=min(sizes),
        channels=1,
        notes=[HELD_OUT_NOTE] if only_train else [],
        held_out="hash" if only_train else "source",
    )


def _image_files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.iterdir() if _IMAGES.search(file.name) and not file.name.startswith("."))
    return [path] if path.is_file() and _IMAGES.search(path.name) else []


def _label_name(match: re.Match[str]) -> str:
    return match[0].lower().replace("images", "labels").replace("idx3", "idx1")
