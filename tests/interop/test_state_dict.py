"""Files of weights hold what torch.load finds in them, in both forms; and nothing in them is run, believed or waited for."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import time
import warnings
import zipfile
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from alexnet.core.errors import AlexNetError
from alexnet.interop.state_dict import read_weights

FORMS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older form"])


def saved(path: Path, value: Any, *, zipped: bool = True, protocol: int = 2) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    return path


def odd_state() -> dict[str, Any]:
    torch.manual_seed(0)
    row = torch.randn(4, 6)
    flat = torch.randn(10)
    return OrderedDict(
        plain=torch.randn(3, 5),
        transposed=row.t(),
        piece=flat[2:5],
        other_piece=flat[5:9],
        column=torch.randn(4, 4)[:, 1],
        number=torch.tensor(7),
        empty=torch.empty(0, 3),
        parameter=nn.Parameter(torch.randn(2, 2)),
        half=torch.randn(3).half(),
        brain=torch.randn(3).bfloat16(),
        double=torch.randn(3).double(),
        yes=torch.tensor([True, False]),
        **{f"int{i}": torch.arange(3, dtype=getattr(torch, f"int{i}")) for i in (8, 16, 32, 64)},
        byte=torch.arange(3, dtype=torch.uint8),
    )


@FORMS
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_the_tensors_are_those_of_torch_load(zipped: bool, protocol: int, tmp_path: Path):
    path = saved(tmp_path / "weights.pth", odd_state(), zipped=zipped, protocol=protocol)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of protocols that torch.save does not use by itself
        theirs = torch.load(path, weights_only=protocol < 4)  # which reads no newer ones; the file is ours
    ours = read_weights(path).tensors
    assert list(ours) == list(theirs)
    for key, value in theirs.items():
        assert (ours[key].dtype, ours[key].shape) == (value.dtype, value.shape), key
        assert torch.equal(ours[key], value), key
        assert ours[key].is_contiguous()


@FORMS
def test_one_tensor_under_two_names_is_one(zipped: bool, tmp_path: Path):
    one = torch.randn(5)
    found = read_weights(saved(tmp_path / "w.pth", {"a": one, "b": one}, zipped=zipped)).tensors
    assert torch.equal(found["a"], one)
    assert found["a"] is found["b"]


def test_safetensors_are_read(tmp_path: Path):
    state = {"a": torch.randn(2, 3), "b": torch.randn(4).bfloat16()}
    safetensors.torch.save_file(state, tmp_path / "w.pth")  # its content says what it is, not its name
    found = read_weights(tmp_path / "w.pth")
    assert found.tensors.keys() == state.keys()
    assert all(torch.equal(found.tensors[key], value) for key, value in state.items())


def test_the_real_trunk_is_that_of_torch_load(trunk: Path):
    theirs, ours = torch.load(trunk, weights_only=True), read_weights(trunk).tensors
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())
    assert [round(value, 4) for value in ours["features.0.bias"][:3].tolist()] == [-0.9705, -2.8070, -0.0371]


# Checkpoints ----------------------------------------------------------------------------------------------------------

STATE = {"conv1.weight": torch.arange(6.0).reshape(2, 3), "conv1.bias": torch.zeros(2)}


class Anything:
    """A class of somebody's program, whose objects are in a checkpoint."""

    def __init__(self) -> None:
        self.note, self.weight = "hi", torch.ones(3)


@FORMS
@pytest.mark.parametrize(
    ("value", "entry"),
    [
        ({"state_dict": STATE, "epoch": 3}, "state_dict"),
        (
            {
                "model": STATE,
                "optimizer": {"state": {0: {"momentum_buffer": torch.ones(9)}}},
                "args": Namespace(lr=0.1),
            },
            "model",
        ),
        ({"model": {"note": torch.zeros(1), **STATE}, "model_ema": STATE, "n": 1}, "model_ema"),
        ({"best": torch.tensor(0.1), "loss": torch.tensor(0.2), "state_dict": STATE}, "state_dict"),
        ({"model": {"state_dict": STATE}}, "model.state_dict"),
        ({"step": 3, "params": STATE, "optimizer": {"state": {0: {"momentum_buffer": torch.ones(9)}}}}, "params"),
        ({"state_dict": STATE, "model": Anything(), "hyper_parameters": {"a": Anything(), (1, 2): {3}}}, "state_dict"),
    ],
    ids=["state_dict", "torchvision", "ema", "with tensors", "nested", "of another name", "Lightning"],
)
def test_a_checkpoint_gives_its_weights_and_the_rest_is_not_read(value: Any, entry: str, zipped: bool, tmp_path: Path):
    found = read_weights(saved(tmp_path / "checkpoint.pth", value, zipped=zipped))
    assert found.entry == entry
    assert list(found.tensors) == list(STATE)
    assert all(torch.equal(found.tensors[key], value) for key, value in STATE.items())
    assert set(found.unread) == value.keys() - {entry.partition(".")[0]}


# What is refused ------------------------------------------------------------------------------------------------------


class Payload:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> object:
        return os.system, (f"touch {self.canary}",)


def zip_of(path: Path, *, pickled: bytes, compression: int = zipfile.ZIP_STORED, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, content in members.items():
            archive.writestr(f"archive/{name.replace('__', '/')}", content)
    return path


def tensor_pickle(
    *,
    numel: int = 4,
    offset: object = 0,
    shape: object = (2, 2),
    stride: object = (2, 1),
    key: object = "0",
    kind: str = "torch FloatStorage",
) -> bytes:
    """A state dict of one tensor, ``w``, as torch.save pickles it."""

    class Storage:
        pass

    class Rebuilt:
        def __reduce__(self) -> object:
            return _call, (Storage(), offset, shape, stride, False, OrderedDict())

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: object) -> object:
            return ("storage", _kind, key, "cpu", numel) if isinstance(value, Storage) else None

    content = io.BytesIO()
    Pickler(content, protocol=2).dump({"w": Rebuilt()})
    module, name = kind.split()
    data = content.getvalue().replace(f"c{__name__}\n_kind\n".encode(), f"c{module}\n{name}\n".encode())
    return data.replace(f"c{__name__}\n_call\n".encode(), b"ctorch._utils\n_rebuild_tensor_v2\n")


def _call() -> None: ...


def _kind() -> None: ...


def lightning_module(path: Path) -> Path:
    return saved(path, nn.Sequential(nn.Linear(2, 2)))


def script(path: Path) -> Path:
    return zip_of(path, pickled=pickle.dumps({}), **{"code____torch__.py": b"import os", "constants.pkl": b"."})


def overlapping_members(path: Path) -> Path:
    """A bomb: two members of the archive are the same bytes."""
    zip_of(path, pickled=tensor_pickle(), data__0=bytes(16), data__1=bytes(16))
    data = bytearray(path.read_bytes())
    entries = [i for i in range(len(data)) if data[i : i + 4] == b"PK\x01\x02"]
    data[entries[2] + 42 : entries[2] + 46] = data[entries[1] + 42 : entries[1] + 46]
    path.write_bytes(data)
    return path


def written(content: bytes) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return write


def older(value: Any, change: Callable[[bytes], bytes]) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        saved(path, value, zipped=False)
        path.write_bytes(change(path.read_bytes()))
        return path

    return write


def one_tensor(num_bytes: int, **fields: Any) -> Callable[[Path], Path]:
    """A file of one tensor whose storage has so many bytes."""
    return lambda path: zip_of(path, pickled=tensor_pickle(**fields), data__0=bytes(num_bytes))


def unicode(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def described_twice(path: Path) -> Path:
    """The older form, with a tensor in a storage of 2^33 elements that the rest of the file knows to have four."""

    def storage(numel: bytes) -> bytes:
        return b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000X\3\0\0\0cpu" + numel + b"NtQ"

    large = b"\x8a\5" + (1 << 33).to_bytes(5, "little")
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage(large) + b"K\0" + large + b"\x85K\1\x85\x89" + b"}tR"
    value = b"\x80\2}(" + unicode("w") + tensor + unicode("x") + storage(b"K\4") + b"u."
    head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    parts = [*map(pickle.dumps, head), value, pickle.dumps(["0"]), (4).to_bytes(8, "little"), bytes(16)]
    path.write_bytes(b"".join(parts))
    return path


def one_name_twice(path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(path, "w") as archive:
            for value in ({}, {"a": 1}):
                archive.writestr("archive/data.pkl", pickle.dumps(value))
    return path


def sparse(start: bytes) -> Callable[[Path], Path]:
    """A file of 64 GiB that takes no room on the disk."""

    def write(path: Path) -> Path:
        with open(path, "wb") as file:
            file.write(start)
            file.truncate(64 << 30)
        return path

    return write


def safetensors_of(header: object, data: bytes = b"") -> Callable[[Path], Path]:
    text = json.dumps(header).encode()
    return written(len(text).to_bytes(8, "little") + text + data)


def entry(dtype: str = "F32", start: int = 0, end: int = 16) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [4], "data_offsets": [start, end]}


HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a web page": (written(b"<!DOCTYPE html><html><body>Sign in"), "a web page, not weights"),
    "a web page after spaces": (written(b"\n\n <HTML>"), "a web page, not weights"),
    "nothing": (written(b""), "an empty file"),
    "a pointer": (written(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "pointer of Git LFS"),
    "words": (written(b"weights" * 100), "not a file of weights that is known here"),
    "a header of 2^63": (written((1 << 63).to_bytes(8, "little") + b"{}"), "a safetensors header of 9,223,"),
    "a header of 64 MiB": (written((64 << 20).to_bytes(8, "little") + b"{}"), "a safetensors header of 67,108,864"),
    "a wrong header": (written((3).to_bytes(8, "little") + b"{a}"), "not a sound safetensors"),
    "a whole module": (lightning_module, r"names torch\.nn\.modules\.container Sequential, which weights do not need"),
    "an object": (lambda path: saved(path, Anything()), r"Anything, which weights do not need; none of it was run"),
    "an object for the weights": (
        lambda path: saved(path, {"model": Anything()}),
        r"Anything, which weights do not need",
    ),
    "an object among the weights": (
        lambda path: saved(path, {**STATE, "odd": Anything()}),
        r"Anything, which weights do not",
    ),
    "one tensor": (lambda path: saved(path, torch.ones(3)), "holds one tensor"),
    "a list": (lambda path: saved(path, [torch.ones(3)]), "holds a list, not weights by name"),
    "no tensors": (lambda path: saved(path, {"a": 1}), "holds no weights"),
    "two networks": (
        lambda path: saved(path, {"generator": STATE, "judge": STATE}),
        "holds no weights: .* nor one entry",
    ),
    "a program": (script, "a TorchScript program, which holds code"),
    "another archive": (lambda path: saved(path, {}) and _no_pickle(path), "not one of torch.save: it has no data.pkl"),
    "a compressed bomb": (
        lambda path: zip_of(
            path, pickled=tensor_pickle(), compression=zipfile.ZIP_DEFLATED, data__0=bytes(100_000_000)
        ),
        "compressed, which torch.save never does",
    ),
    "members that overlap": (overlapping_members, "members overlap"),
    "a list of members of 8 MiB": (
        written(b"PK\x03\x04" + bytes(9 << 20) + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 9, 9, 8 << 20, 4, 0)),
        "a list of members of 8,388,608 bytes",
    ),
    "a storage that is short": (one_tensor(12), "has 12 bytes, and its tensors need 16"),
    "a storage that is missing": (lambda path: zip_of(path, pickled=tensor_pickle()), "storage 0 is missing"),
    "a storage of 2^40": (
        lambda path: zip_of(
            path, pickled=tensor_pickle(numel=1 << 40, shape=(1 << 20, 1 << 20), stride=(1 << 20, 1)), data__0=b""
        ),
        "has 0 bytes, and its tensors need 4,398",
    ),
    "a tensor behind its storage": (one_tensor(16, offset=1), "behind whose end"),
    "a tensor of one element, repeated": (
        one_tensor(16, shape=(1 << 30, 1 << 10), stride=(0, 0)),
        "whose elements overlap",
    ),
    "rows that overlap": (one_tensor(16, stride=(1, 1)), "whose elements overlap"),
    "steps backwards": (one_tensor(16, stride=(-2, 1)), "sound sizes and strides"),
    "a size that is text": (one_tensor(16, shape=("2", 2)), "sound sizes"),
    "a storage of objects": (
        one_tensor(16, kind="builtins eval"),
        "a tensor of builtins eval, which is not read",
    ),
    "a key that climbs": (
        one_tensor(16, key="../../../../etc/passwd"),
        r"storage \.\./\.\./.* is missing",
    ),
    "tensors that overlap": (
        lambda path: saved(path, {"a": (row := torch.randn(9))[:6], "b": row[3:]}),
        "a and b overlap in their storage",
    ),
    "big-endian": (
        lambda path: zip_of(path, pickled=tensor_pickle(), data__0=bytes(16), byteorder=b"big"),
        "other byte order",
    ),
    "an older file that is cut": (older(STATE, lambda data: data[:-9]), r"storage \d+ is cut off"),
    "an older file of another size": (
        older({"a": torch.ones(1)}, lambda data: data[:-12] + b"\xff" * 12),
        "cut off, or not as long",
    ),
    "an older file without storages": (
        older(STATE, lambda data: data[: data.rindex(b"e.") - 9]),
        "not readable as weights",
    ),
    "an archive that points before its start": (
        lambda path: _before_its_start(zip_of(path, pickled=tensor_pickle(), data__0=bytes(16))),
        "a damaged zip archive",
    ),
    "opcodes that do not fit": (written(b"\x80\x02h\x07."), "its opcodes do not fit together"),
    "a damaged archive": (lambda path: _flipped(saved(path, STATE)), "a damaged zip archive"),
    "a tar": (lambda path: _tar(path), "a tar archive"),
    "gzip": (written(b"\x1f\x8b\x08"), "compressed with gzip"),
    "deep lists": (written(b"\x80\x02" + b"]" * 400_000 + b"a" * 399_999 + b"."), "more than 500,000 opcodes"),
    "pairs, again and again": (
        written(
            b"\x80\2(ccollections\nOrderedDict\nq\0("
            + (b"](" + b"(K\1K\2l" * 5000 + b"e" + b"tq\1R")
            + b"h\0h\1R" * 200
            + b"l."
        ),
        "items for an OrderedDict that are no pairs, or too many",
    ),
    "a pair that is text": (
        written(b"\x80\2ccollections\nOrderedDict\n]" + unicode("a" * 1000) + b"a\x85R."),
        "items for an OrderedDict that are no pairs",
    ),
    "a long name, again and again": (
        written(b"\x80\4(" + unicode("a" * (1 << 20)) + b"q\0" + b"h\0h\0\x93" * 200 + b"l."),
        "a name of 2,097,152 letters",
    ),
    "a memo of 2^64": (written(b"\x80\2Np18446744073709551616\n."), "a memo without a sound number"),
    "arrays that share their bytes": (
        written(
            (b"\x80\3}(" + unicode("a") + pickle.dumps(np.zeros(1 << 19, "f4"), 3)[2:-1] + b"r\0\1\0\0")
            + (b"".join(unicode(f"b{i}") + b"j\0\1\0\0" for i in range(200)) + b"u.")
        ),
        "arrays that share their bytes",
    ),
    "a storage that is described twice": (described_twice, "its tensors need 34,359,738,368"),
    "two members of one name": (one_name_twice, "several members of one name"),
    "a sparse archive": (sparse(b"PK\3\4"), "68,719,476,736 bytes; at most 4,294,967,296 are read"),
    "sparse safetensors": (sparse((2).to_bytes(8, "little") + b"{}"), "68,719,476,736 bytes; at most 4,294,967,296"),
    "safetensors that overlap": (safetensors_of({"a": entry(), "b": entry()}, bytes(16)), "not a sound safetensors"),
    "safetensors with a gap": (
        safetensors_of({"a": entry(), "b": entry(start=32, end=48)}, bytes(48)),
        "not a sound safetensors",
    ),
    "safetensors of another type": (safetensors_of({"a": entry("F64")}, bytes(16)), "not a sound safetensors"),
    "safetensors of half bytes": (
        safetensors_of({"a": {**entry("F4"), "shape": [32]}}, bytes(16)),
        "holds tensors of the type 'F4', which is not read",
    ),
    "safetensors of 10,001 tensors": (
        safetensors_of({f"w{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(10_001)}),
        "10,001 tensors; at most 10,000 are read",
    ),
    "text in UTF-16": (written("{}".encode("utf-16") + bytes(20)), "not a file of weights that is known here"),
    "many objects": (written(b"\x80\x02" + b"}" * 5_000_000), "more than 500,000 opcodes"),
    "a state dict of numbers": (written(pickle.dumps({"a": 1})), "a pickle without weights"),
}


def _no_pickle(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"")
    return path


def _flipped(path: Path) -> Path:
    """With one bit of a tensor wrong, which its CRC-32 tells."""
    data = bytearray(path.read_bytes())
    place = data.index(struct.pack("<f", 5.0))
    data[place] ^= 1
    path.write_bytes(data)
    return path


def _before_its_start(path: Path) -> Path:
    data = bytearray(path.read_bytes())
    end = data.rindex(b"PK\x05\x06")
    place = int.from_bytes(data[end + 16 : end + 20], "little")
    data[end + 16 : end + 20] = (place + 100).to_bytes(4, "little")
    path.write_bytes(data)
    return path


def _tar(path: Path) -> Path:
    import tarfile

    with tarfile.open(path, "w") as tar:
        tar.addfile(tarfile.TarInfo("pickle"))
    return path


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_or_broken_file_is_one_line(kind: str, tmp_path: Path):
    write, says = HOSTILE[kind]
    path = write(tmp_path / "weights.pth")
    began = time.process_time()
    with pytest.raises(AlexNetError, match=says) as error:
        read_weights(path)
    assert time.process_time() - began < 10
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300 + len(str(path))


@FORMS
@pytest.mark.parametrize("place", ["alone", "among the weights", "for the weights", "beside the weights"])
def test_what_would_be_executed_is_not(place: str, zipped: bool, tmp_path: Path):
    payload = Payload(tmp_path / "canary")
    value = {
        "alone": payload,
        "among the weights": {**STATE, "odd": payload},
        "for the weights": {"state_dict": payload},
        "beside the weights": {"state_dict": STATE, "callbacks": payload},
    }[place]
    path = saved(tmp_path / "weights.pth", value, zipped=zipped)
    if place == "beside the weights":
        assert read_weights(path).unread == ("callbacks",)
    else:
        with pytest.raises(AlexNetError, match="names posix system, which weights do not need; none of it was run"):
            read_weights(path)
    assert not (tmp_path / "canary").exists()


def test_a_pipe_is_not_waited_for_and_a_missing_file_is_named(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.pth")
    for name, says in (("pipe.pth", "not a regular file"), ("none.pth", "no such file"), (".", "")):
        with pytest.raises(AlexNetError, match=says or "."):
            read_weights(tmp_path / name)


def test_many_small_tensors_are_too_many(tmp_path: Path):
    header = {f"w{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(3)}
    text = json.dumps(header).encode()
    (tmp_path / "w").write_bytes(len(text).to_bytes(8, "little") + text)
    found: dict[str, Tensor] = dict(read_weights(tmp_path / "w").tensors)
    assert len(found) == 3
    path = saved(tmp_path / "many.pth", dict.fromkeys(map(str, range(10_001)), torch.zeros(1)))
    with pytest.raises(AlexNetError, match="10,001 tensors; at most 10,000"):
        read_weights(path)
