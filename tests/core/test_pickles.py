"""Pickles are read as what they say: no name in them is looked up, no call is made."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import time
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from alexnet.core.pickles import (
    MAX_OPCODES,
    NUMPY_NAMES,
    Call,
    ForeignName,
    Name,
    PickleFault,
    array_of,
    is_array,
    read_pickle,
)


def read(data: bytes, known: frozenset[str] | None = None) -> Any:
    return read_pickle(io.BytesIO(data), known)


VALUES = {
    "text": "größe",
    "bytes": b"\x00\xff" * 200,
    "numbers": [0, -1, 255, 65535, 2**31, -(2**70), 0.1, -1e300, True, False, None],
    "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
    "nested": {"a": [{"b": ("c", ["d"])}], 3: "three", b"k": 1.5, None: 0},
}


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_are_those_that_pickle_reads(protocol: int):
    values = VALUES if protocol > 2 else {key: value for key, value in VALUES.items() if key != "bytes"}
    values = values if protocol > 2 else values | {"nested": {"a": [{"b": ("c", ["d"])}], 3: "three"}}
    data = pickle.dumps(values, protocol=protocol)
    assert read(data) == pickle.loads(data) == values  # noqa: S301


@pytest.mark.parametrize("protocol", range(6))
def test_an_ordered_dict_is_a_dict_in_its_order(protocol: int):
    made = OrderedDict([("b", 1), ("a", 2)])
    made.note = "kept by pickle, not by us"  # type: ignore[attr-defined]
    assert list(read(pickle.dumps(made, protocol=protocol)).items()) == [("b", 1), ("a", 2)]


def test_python_2_gives_the_pairs_of_an_ordered_dict_at_once():
    data = b"ccollections\nOrderedDict\n(](](U\x01aK\x01e](U\x01bK\x02eetR."
    assert pickle.loads(data) == read(data) == {"a": 1, "b": 2}  # noqa: S301


@pytest.mark.parametrize("protocol", range(6))
def test_what_would_be_called_stays_a_description(protocol: int, tmp_path: Path):
    class Payload:
        def __reduce__(self) -> object:
            return os.system, (f"touch {tmp_path / 'canary'}",)

    value = read(pickle.dumps({"weights": [1], "odd": Payload(), "space": SimpleNamespace(a=1), "set": {1}}, protocol))
    call = value["odd"]
    assert isinstance(call, Call)
    assert call.calls("posix system")
    assert isinstance(call.function, Name)
    assert value["weights"] == [1]
    assert not (tmp_path / "canary").exists()


def test_a_name_that_is_not_known_is_refused_by_name():
    with pytest.raises(ForeignName, match=r"^refers to posix system$"):
        read(pickle.dumps(os.system), NUMPY_NAMES)
    for data in (b"(S'x'\nios\nsystem\n.", b"\x82\x07.", b"\x8f."):  # INST, EXT1, EMPTY_SET
        with pytest.raises(ForeignName):
            read(data, NUMPY_NAMES)


@pytest.mark.parametrize("code", ["u1", "f4"])
def test_arrays_are_those_that_pickle_makes(code: str):
    array = np.arange(24, dtype=code).reshape(2, 3, 4)
    for value in (array, np.asfortranarray(array), array[:0]):
        call = read(pickle.dumps(value, protocol=4), NUMPY_NAMES)
        assert is_array(call)
        found = array_of(call, code)
        assert found.dtype == value.dtype
        assert np.array_equal(found, value)
        with pytest.raises(PickleFault, match="something else than i2"):
            array_of(call, "i2")


@pytest.mark.parametrize(
    ("shape", "says"),
    [((2, -1), "shape"), ((3,), "shape"), (("x",), "shape"), ((2**40, 2**40), "shape"), (None, "iterable")],
)
def test_an_array_that_lies_about_its_shape_is_refused(shape: Any, says: str):
    call = read(pickle.dumps(np.zeros(4, np.float32), protocol=4))
    call.state = (1, shape, *call.state[2:])
    with pytest.raises(PickleFault, match=says):
        array_of(call, "f4")


def test_several_pickles_are_read_one_after_the_other():
    stream = io.BytesIO(pickle.dumps(1) + pickle.dumps("two", 2) + b"rest")
    assert (read_pickle(stream), read_pickle(stream), stream.read()) == (1, "two", b"rest")


def test_every_opcode_is_read_or_refused():
    for opcode in pickletools.opcodes:
        for end in (b"", b".", b"\n.", b"\x01.", b"x\ny\n."):
            with suppress(PickleFault):
                read(b"\x80\x02(K\x01K\x02" + opcode.code.encode("latin-1") + end)


BOMBS = {
    "too many objects": b"}" * 3_000_000 + b".",
    "too many marks": b"(" * 3_000_000 + b".",
    "tuples that share their parts": b")" + b"2\x86" * 200 + b"q\x00}h\x00K\x01s.",
    "a string of 2^60 bytes": b"\x8d" + (1 << 60).to_bytes(8, "little") + b"abc",
    "a number of 10^6 digits": b"L" + b"9" * 1_000_000 + b"L\n.",
    "deep lists": b"]" * 400_000 + b"a" * 399_999 + b".",
    "keys of one hash": b"}("
    + b"".join(b"\x8a\x0a" + (k * (2**61 - 1)).to_bytes(10, "little") + b"N" for k in range(1, 60_000))
    + b"u.",
    "a large key, hashed again and again": b"\x8b\0\0\x40\0" + b"\1" * (4 << 20) + b"q\0}(" + b"h\0N" * 3000 + b"u.",
    "marks and tuples": b"]" * 100_000 + b"(t" * 200_000 + b".",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_pickle_that_wants_time_and_memory_gets_little(kind: str):
    began = time.process_time()
    with suppress(PickleFault):
        read(BOMBS[kind])
    assert time.process_time() - began < 10


def test_the_number_of_opcodes_is_limited():
    with pytest.raises(PickleFault, match=r"^more than 500,000 opcodes$"):
        read(b"}" * (MAX_OPCODES + 1) + b".")
