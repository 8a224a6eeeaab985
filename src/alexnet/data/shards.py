"""The work of one process of `prepare`: decode one shard of a split, store it, and write down what was found."""

# Shape suffixes: N images of a shard, S rows and columns, P pixels, C channels.

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alexnet.core.errors import DataError, ImageError, printable
from alexnet.core.runs import write_atomic
from alexnet.data.contents import UNREADABLE, crc32_of
from alexnet.data.decode import SUFFIXES, decode_image
from alexnet.data.packed import HEADER_BYTES, UNFINISHED, decode_record
from alexnet.data.pixels import color_moments, resize_and_crop
from alexnet.data.samples import Range
from alexnet.data.sources import Record, SplitName

Store = Literal["pixels", "jpeg"]

JPEG_QUALITY = 95
"""JPEG quality of stored records, as in the batches of cuda-convnet2."""


@dataclass(frozen=True)
class Shard:
    split: SplitName
    first: int
    """Number of its first image in the split, rejected ones counted."""
    records: Sequence[Record]

    @property
    def name(self) -> str:
        return f"{self.split}-{self.first:08d}"


@dataclass(frozen=True)
class Rejected:
    path: str
    split: SplitName
    label: int
    reason: str
    detail: str

    def __str__(self) -> str:
        """For people: a format that is not read, with the way out."""
        more = f" ({printable(self.detail)})" if self.reason == "unsupported format" and self.detail else ""
        return f"{printable(self.path)}: {self.reason}{more}"


@dataclass(frozen=True)
class Journal:
    """What the worker found out about the images of its shard."""

    good_N: NDArray[np.bool_]
    crc32_N: NDArray[np.uint32]
    """CRC-32 of what is stored of each image, pixels or JPEG; 0 for rejected images."""
    length_N: NDArray[np.int64]
    """Bytes of each JPEG record; 0 for pixels and for rejected images."""
    sum_SSC: NDArray[np.uint32]
    """Sum of the good images of a training shard; empty for other shards."""
    product_CC: NDArray[np.uint64]
    """Sums over their pixels of the products of two channels; empty for other shards."""
    source_N: NDArray[np.int64]
    """CRC-32 of the bytes that were decoded, ``UNREADABLE`` if there were none; empty in journals of an earlier version."""
    rejected: list[Rejected]
    odd: list[str]
    wide: Range
    """How much of their range the images of more than 8 bits use."""


def pack_shard(
    folder: Path, size: int, channels: int, store: Store, in_place: bool, sample_max: int | None, shard: Shard
) -> None:
    """Decode the images of a shard, store the good ones, then write the journal. Without ``in_place`` they are stored
    in a file of the shard's own, as JPEG records always are."""
    n = len(shard.records)
    image_NSSC = np.zeros((n, size, size, channels), dtype=np.uint8)
    good_N = np.zeros(n, dtype=bool)
    crc32_N = np.zeros(n, dtype=np.uint32)
    source_N = np.full(n, UNREADABLE)
    jpegs: list[bytes] = [b""] * n
    rejected, odd, wide = [], [], Range()
    for i, record in enumerate(shard.records):
        try:
            data = record.read()
            source_N[i] = crc32_of(data)
            image_SSC, remarks, its_range = load_image(record, data, size, channels, sample_max)
        except ImageError as error:
            rejected.append(Rejected(record.name, shard.split, record.label, error.reason, error.detail))
            continue
        if store == "jpeg":
            jpegs[i] = _encode(image_SSC)
            image_SSC = decode_record(jpegs[i], channels)  # statistics of what will be read
        image_NSSC[i] = image_SSC
        good_N[i] = True
        wide += its_range
        crc32_N[i] = zlib.crc32(jpegs[i] or image_NSSC[i].data)
        odd += [f"{record.name}: {remark}" for remark in remarks]
    if in_place:
        write_pixels(folder, shard, image_NSSC[0].nbytes, image_NSSC.data)
    else:
        stored = jpegs if store == "jpeg" else [image_NSSC.data]
        write_atomic(records_path(folder, shard), lambda file: file.writelines(stored))
    nothing = np.zeros(0, np.uint32), np.zeros(0, np.uint64)
    sum_SSC, product_CC = color_moments(image_NSSC) if shard.split == "train" else nothing
    arrays = {
        "good_N": good_N,
        "crc32_N": crc32_N,
        "length_N": np.array([len(jpeg) for jpeg in jpegs], dtype=np.int64),
        "sum_SSC": sum_SSC,
        "product_CC": product_CC,
        "source_N": source_N,
        "report": np.array(
            json.dumps({"rejected": [asdict(item) for item in rejected], "odd": odd, "wide": asdict(wide)})
        ),
    }
    write_atomic(journal_path(folder, shard), lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]


def write_pixels(folder: Path, shard: Shard, image_bytes: int, content: bytes | memoryview) -> None:
    """Write the pixels of a shard to their place in the file of its split."""
    with open(folder / f"{shard.split}.images.npy", "r+b") as file:
        file.seek(HEADER_BYTES + shard.first * image_bytes)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def load_image(
    record: Record, data: bytes | NDArray[np.uint8], size: int, channels: int, sample_max: int | None = None
) -> tuple[NDArray[np.uint8], list[str], Range]:
    """The pixels to be stored of what was read of one image, (size, size, channels), what is odd about its file, and what it
    uses of the range of its samples. Raises :class:`ImageError`."""
    if not isinstance(data, bytes) and data.shape == (size, size, channels):
        return data, [], Range()
    image, odd = decode(record, data, sample_max)
    square = resize_and_crop(image if channels == 3 else image.convert("L"), size)
    return square.reshape(size, size, channels), odd, Range.of(image)


def decode(
    record: Record, data: bytes | NDArray[np.uint8], sample_max: int | None = None
) -> tuple[Image.Image, list[str]]:
    """A record's data as an image, and what is odd about its file."""
    if not isinstance(data, bytes):
        return Image.fromarray(data[:, :, 0] if data.shape[2] == 1 else data), []
    image = decode_image(data, record.name, sample_max)
    odd = list(image.info["warnings"])
    suffix = PurePosixPath(record.name).suffix.lower()
    if suffix not in ("", *SUFFIXES[image.info["format"]]):
        odd.append(f"a {image.info['format']} file")
    return image, odd


def _encode(image_SSC: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image_SSC if image_SSC.shape[2] == 3 else image_SSC[:, :, 0]).save(
        buffer, "JPEG", quality=JPEG_QUALITY
    )
    return buffer.getvalue()


def journal_path(folder: Path, shard: Shard) -> Path:
    return folder / UNFINISHED / f"{shard.name}.npz"


def records_path(folder: Path, shard: Shard) -> Path:
    return folder / UNFINISHED / f"{shard.name}.bin"


def read_journal(folder: Path, shard: Shard) -> Journal:
    """Raises :class:`DataError` if it is damaged."""
    path = journal_path(folder, shard)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            report = json.loads(str(arrays["report"]))
            numbers: dict[str, Any] = {name: arrays[name] for name in arrays.files if name != "report"}
            numbers.setdefault("source_N", np.zeros(0, np.int64))
            rejected = [Rejected(**item) for item in report["rejected"]]
            return Journal(**numbers, rejected=rejected, odd=report["odd"], wide=Range(**report.get("wide", {})))
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{printable(path)}: damaged; remove it and prepare again") from error
