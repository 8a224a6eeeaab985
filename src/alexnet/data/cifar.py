"""CIFAR-10 as it is found: the binary files, the Python files (read without unpickling), or JPEG files in .npz."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet.core.errors import AlexNetError, DataError, printable, refused
from alexnet.core.pickles import NUMPY_NAMES, ForeignName, PickleFault, array_of, is_array, read_pickle, text_of
from alexnet.core.runs import read_arrays
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

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32
IMAGE_BYTES = 3 * SIDE * SIDE
"""Stored as three planes, red, green and blue."""
MAX_NPZ_BYTES = 256 << 20


def is_cifar10(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("data_batch_1.bin", "data_batch_1", "train.npz"))


def cifar10(folder: Path, seed: int = 0) -> Source:
    """``data_batch_*.bin`` and ``test_batch.bin``, or ``data_batch_*`` and ``test_batch``, or ``train.npz`` and
    ``test.npz`` (arrays ``data``, ``offsets``, ``labels`` of concatenated image files). 32 x 32 RGB."""
    batches = sorted(file for file in folder.glob("*_batch*") if not file.name.startswith("."))
    if files := [file for file in batches if file.suffix == ".bin"]:
        records = [record for file in files for record in _read_binary(file)]
    elif files := [file for file in batches if file.is_file() and not file.suffix]:
        records = [record for file in files for record in _read_python(file)]
    else:
        files = [file for name in ("train.npz", "test.npz") if (file := folder / name).is_file()]
        records = [record for file in files for record in _read_npz(file)]
    only_train = all(record.split == "train" for record in records)
    return Source(
        classes=CLASSES,
        records=hold_out(records, seed) if only_train else records,
        fingerprint=fingerprint_of("cifar10", seed, *file_stamps(files)),
        size=SIDE,
        notes=[HELD_OUT_NOTE] if only_train else [],
        held_out="hash" if only_train else "source",
    )


def _read_binary(file: Path) -> list[Record]:
    """Records of one label byte and the three planes."""
    data = _read_bytes(file)
    if not data or len(data) % (1 + IMAGE_BYTES):
        raise DataError(f"{printable(file)}: {len(data):,} bytes is no multiple of {1 + IMAGE_BYTES}; get it again")
    row_ND = np.frombuffer(data, dtype=np.uint8).reshape(-1, 1 + IMAGE_BYTES)
    return _records(file, row_ND[:, 1:], row_ND[:, 0].tolist())


def _read_python(file: Path) -> list[Record]:
    value = read_plain_pickle(_read_bytes(file), printable(file))
    if not isinstance(value, dict) or not isinstance(value.get("labels"), list):
        raise DataError(f"{printable(file)}: not a CIFAR-10 batch; it has no labels")
    image_ND = value.get("data")
    if not isinstance(image_ND, np.ndarray) or image_ND.shape != (len(value["labels"]), IMAGE_BYTES):
        raise DataError(
            f"{printable(file)}: not a CIFAR-10 batch; its data are not {len(value['labels'])} x {IMAGE_BYTES}"
        )
    return _records(file, image_ND, value["labels"])


def _read_npz(file: Path) -> list[Record]:
    try:
        arrays = read_arrays(file, MAX_NPZ_BYTES, ("data", "offsets", "labels", "names"))
        data, offset_N, label_N = (arrays[name] for name in ("data", "offsets", "labels"))
        name_N = arrays.get("names")
        if any(array.ndim != 1 or array.dtype.kind not in "iu" for array in (offset_N, label_N)):
            raise ValueError("offsets or labels are no whole numbers")
        if name_N is not None and (name_N.ndim != 1 or name_N.dtype.kind != "S"):
            raise ValueError("names are no byte strings")
    except (AlexNetError, ValueError, KeyError) as error:
        raise DataError(f"{printable(file)}: not an .npz of data, offsets and labels ({printable(error)})") from error
    counts = {len(offset_N) - 1, len(label_N), len(label_N if name_N is None else name_N)}
    if len(counts) != 1 or not len(label_N) or offset_N[0] < 0 or offset_N[-1] != data.nbytes:
        raise DataError(f"{printable(file)}: offsets, labels, names and data do not belong together; get it again")
    if len(label_N) > MAX_IMAGES:  # before a list of them is made
        raise DataError(f"{printable(file)}: {len(label_N):,} images; at most {MAX_IMAGES:,}")
    if (offset_N[1:] <= offset_N[:-1]).any():
        raise DataError(f"{printable(file)}: offsets that do not go up; every image has a byte or more")
    content, offsets, labels = data.tobytes(), offset_N.tolist(), label_N.tolist()
    names = [str(i) if name_N is None else name_N[i].decode("utf-8", "replace") for i in range(len(labels))]
    if len(set(names)) < len(names):
        raise DataError(f"{printable(file)}: two images of one name; leave the names out, or give each its own")
    split = _split(file)
    return [
        Record(split, _label(file, label), f"{file.stem}/{name}", data=content[start:end])
        for label, name, start, end in zip(labels, names, offsets[:-1], offsets[1:], strict=True)
    ]


def _records(file: Path, image_ND: NDArray[np.uint8], labels: Sequence[int]) -> list[Record]:
    image_NHWC = image_ND.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    split = _split(file)
    return [
        Record(split, _label(file, label), f"{file.name}/{i}", data=np.ascontiguousarray(image_HWC))
        for i, (label, image_HWC) in enumerate(zip(labels, image_NHWC, strict=True))
    ]


def _split(file: Path) -> SplitName:
    return "test" if file.name.startswith("test") else "train"


def _label(file: Path, label: int) -> int:
    if type(label) is not int or not 0 <= label < len(CLASSES):
        said = printable(label)[:20] if type(label) in (int, float) else f"of type {type(label).__name__}"
        raise DataError(f"{printable(file)}: label {said}; CIFAR-10 has 0 to 9")
    return label


def _read_bytes(file: Path) -> bytes:
    if file.exists() and not file.is_file():  # a pipe would be waited for
        raise DataError(f"{printable(file)}: not a regular file; get it again")
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(refused(error, file)) from error


def read_plain_pickle(data: bytes, where: str) -> Any:
    """What the pickle of a batch says, its arrays of bytes among the values of a dict; nothing is unpickled. Raises
    :class:`DataError` for anything that no batch needs."""
    try:
        value = read_pickle(io.BytesIO(data), NUMPY_NAMES)
        if not isinstance(value, dict):
            return value
        return {text_of(key): array_of(item, "u1") if is_array(item) else item for key, item in value.items()}
    except ForeignName as error:
        raise DataError(f"{where}: {error}, which no CIFAR-10 batch does; not read") from error
    except (PickleFault, TypeError) as error:
        raise DataError(f"{where}: not a readable batch ({error}); use the binary version") from error
