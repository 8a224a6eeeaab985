"""CIFAR-10 as it is found: the binary files, the Python files (read without unpickling), or JPEG files in .npz."""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from alexnet.core.errors import AlexNetError, DataError, printable
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
        raise DataError(f"{printable(file)}: {error.strerror}") from error


# --- pickle without unpickling --------------------------------------------------------------------------------------

_ARRAY_PARTS = {
    "numpy.core.multiarray _reconstruct",
    "numpy._core.multiarray _reconstruct",
    "numpy ndarray",
    "numpy dtype",
}
_MARK = object()


class _Unfinished(list[Any]):
    """An array or dtype between the opcodes that make it: [name, arguments, state]."""


def read_plain_pickle(data: bytes, where: str) -> Any:
    """What a pickle of dicts, lists, tuples, strings, numbers and byte arrays says. The opcodes are interpreted here,
    and no function or class is ever looked up or called. Raises :class:`DataError` for anything else in it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # about an escape in a string that Python does not write
            return _interpreted(data, where)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, StopIteration, Warning) as error:
        raise DataError(f"{where}: not a readable batch ({printable(error)[:150]}); use the binary version") from error


def _interpreted(data: bytes, where: str) -> Any:
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def pop_to_mark() -> list[Any]:
        start = len(stack) - 1 - next(i for i, item in enumerate(reversed(stack)) if item is _MARK)
        items = stack[start + 1 :]
        del stack[start:]
        return items

    for opcode, value, _ in pickletools.genops(data):
        name, argument = opcode.name, cast(Any, value)
        if name in ("PROTO", "FRAME"):
            continue
        if name == "STOP":
            return _finished(stack.pop())
        if name == "MARK":
            stack.append(_MARK)
        elif name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "NONE", "NEWTRUE", "NEWFALSE"):
            stack.append(_constant(name))
        elif name.endswith(("INT", "INT1", "INT2", "LONG", "LONG1", "STRING", "UNICODE", "BINBYTES", "BYTES8")):
            stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[argument])
        elif name in ("TUPLE", "LIST"):
            items = pop_to_mark()
            stack.append(tuple(items) if name == "TUPLE" else items)
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "APPEND":
            item = stack.pop()
            stack[-1].append(item)
        elif name == "APPENDS":
            items = pop_to_mark()
            stack[-1].extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = pop_to_mark() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            stack[-1].update(zip(map(_text, items[::2]), items[1::2], strict=True))
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            path = argument if name == "GLOBAL" else f"{_text(stack.pop(-2))} {_text(stack.pop())}"
            if path not in _ARRAY_PARTS:
                raise DataError(f"{where}: refers to {printable(path[:80])}, which no CIFAR-10 batch does; not read")
            stack.append(path)
        elif name == "REDUCE":
            arguments = stack.pop()
            stack.append(_Unfinished([stack.pop(), arguments, None]))
        elif name == "BUILD":
            state = stack.pop()
            stack[-1][2] = state
        else:
            raise DataError(f"{where}: pickle opcode {name}, which no CIFAR-10 batch needs; use the binary version")
    raise DataError(f"{where}: the pickle does not end")


def _constant(name: str) -> Any:
    return {"EMPTY_DICT": {}, "EMPTY_LIST": [], "EMPTY_TUPLE": (), "NONE": None, "NEWTRUE": True, "NEWFALSE": False}[
        name
    ]


def _text(key: Any) -> str:
    if not isinstance(key, str | bytes):  # str() of what shares its parts a thousand times fills the memory
        raise TypeError(f"a {type(key).__name__} for a name")
    return key.decode("latin-1") if isinstance(key, bytes) else key


def _finished(value: Any) -> Any:
    """``value`` with the arrays in its dict made real."""
    return {key: _array(item) for key, item in value.items()} if isinstance(value, dict) else value


def _array(value: Any) -> Any:
    if not isinstance(value, _Unfinished):
        return value
    _, shape, dtype, column_order, data = value[2]  # version, shape, dtype, Fortran order, bytes
    if _text(dtype[1][0]) != "u1":
        raise ValueError("an array of something else than unsigned bytes")
    raw = data.encode("latin-1") if isinstance(data, str) else data
    return np.frombuffer(raw, dtype=np.uint8).reshape(shape, order="F" if column_order else "C")
