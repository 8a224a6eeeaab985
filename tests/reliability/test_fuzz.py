"""Mutated files of every kind that is read: only the documented errors come out, soon, in one line, in little memory.

The same targets run under Atheris (fuzz/README.md). What either found is a file in ``found``."""

from __future__ import annotations

import random
import struct
import time
import zlib
from pathlib import Path

import pytest

from alexnet.core.errors import AlexNetError, ImageError
from alexnet.data.decode import decode_image
from containers import PNG_MAGIC, mutate_parts, take_apart
from mutations import Campaign, campaign, mutate, require_one_line
from targets import CASES, TARGETS, image_files, newer_files

FOUND = sorted((Path(__file__).parent / "found").glob("*-*"))
MAX_GROWTH_BYTES = 700_000_000


def fuzzed(name: str, count: int, seed: int, folder: Path) -> Campaign:
    return TARGETS[name](folder).campaign(count, seed)


@pytest.mark.parametrize(("name", "count"), [(name, max(60, count // 30)) for name, count in CASES.items()])
def test_a_mutated_file_is_read_or_refused(name: str, count: int, in_memory: Path) -> None:
    done = fuzzed(name, count, 1, in_memory)
    assert done.faults == []
    assert done.cases == count
    if name != "checkpoint":  # where an older one takes the place of a damaged one
        assert done.refused.total() > count // 4


@pytest.mark.long
@pytest.mark.parametrize(("name", "count"), CASES.items())
def test_many_mutated_files_are_read_or_refused(name: str, count: int, in_memory: Path) -> None:
    done = fuzzed(name, count, 2012, in_memory)
    assert done.faults == []
    assert done.cases == count
    assert done.growth_bytes < MAX_GROWTH_BYTES


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    names = {path.name.partition("-")[0] for path in FOUND}
    return {name: TARGETS[name](tmp_path_factory.mktemp(name)) for name in names}


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.name)
def test_what_was_found_once_is_refused_or_read(path: Path, targets: dict) -> None:
    target = targets[path.name.partition("-")[0]]
    try:
        target.check(path.read_bytes())
    except target.allowed as error:
        require_one_line(error)


def test_a_file_taken_apart_and_put_together_is_the_same_image() -> None:
    files = [*image_files(), *newer_files()]
    assert sum(bool(take_apart(data).parts) for data in files) > 20
    for data in files:
        parts, join = take_apart(data)
        assert not parts or answer(join(parts)) == answer(data)


def answer(data: bytes) -> bytes | str:
    try:
        return decode_image(data).tobytes()
    except ImageError as error:
        return error.reason


def test_damaged_parts_of_a_png_have_right_checksums() -> None:
    sound, draw = next(data for data in image_files() if data.startswith(PNG_MAGIC)), random.Random(0)
    damaged = {mutate_parts(sound, draw) for _ in range(100)}
    assert len(damaged) > 50
    for data in damaged:
        at = len(PNG_MAGIC)
        while at < len(data):
            (length,) = struct.unpack_from(">I", data, at)
            assert struct.unpack_from(">I", data, at + 8 + length)[0] == zlib.crc32(data[at + 4 : at + 8 + length])
            at += 12 + length


# The fuzzer itself ----------------------------------------------------------------------------------------------------


def test_a_fault_of_the_reader_is_seen() -> None:
    def read(data: bytes) -> None:
        if len(data) % 4 == 0:
            raise ImageError("x", "damaged")
        if len(data) % 4 == 1:
            raise KeyError("files")
        if len(data) % 4 == 2:
            raise AlexNetError("two\nlines")
        time.sleep(60 if len(data) % 8 == 3 else 0)

    done = campaign(read, [bytes(range(64))], 60, 0, seconds=0.05)
    assert {text for text, _ in done.faults} == {
        *("KeyError: 'files'", "a message of several lines", "HangError: no answer in time")
    }
    assert done.accepted + done.refused.total() > 0
    with pytest.raises(KeyError):
        read(next(data for text, data in done.faults if text.startswith("KeyError")))


def test_damage_depends_on_the_seed_alone_and_changes_something() -> None:
    sound = b'{"a": [1, 2, {"b": "text"}], "n": 12}' + b" " * 30
    once, again = ([mutate(sound, random.Random(seed), [sound]) for seed in range(300)] for _ in range(2))
    assert once == again
    assert len(set(once)) > 200
    assert sum(data == sound for data in once) < 30
