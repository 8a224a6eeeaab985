from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from alexnet.data import contents
from alexnet.data.contents import MEMORY, UNREADABLE, crc32s, same_bytes
from alexnet.data.named import read_source
from alexnet.data.sources import Record

MakeFolder = Callable[..., Path]


@pytest.fixture
def files(image_folder_of: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Record]:
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    return list(read_source(image_folder_of({"train/cat": 4, "train/dog": 3})).records)


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    read, names = Record.read, list[str]()
    monkeypatch.setattr(Record, "read", lambda self: (names.append(self.name), read(self))[1])
    return names


def test_checksums_are_those_of_the_files(files: list[Record]):
    expected = [zlib.crc32(Path(record.file).read_bytes()) for record in files]
    assert crc32s(files).tolist() == expected
    Path(files[3].file).unlink()
    expected[3] = UNREADABLE
    assert crc32s(files).tolist() == expected


def test_a_file_is_read_again_only_when_it_was_touched(
    files: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(contents, "REMEMBER_FROM", 1)
    monkeypatch.setattr(contents, "SETTLED_NS", -(10**12))  # what has just changed, too
    names = reads(monkeypatch)
    expected = crc32s(files).tolist()
    assert len(names) == 7
    assert crc32s(files[::-1]).tolist() == expected[::-1]
    assert len(names) == 7
    os.utime(files[2].file)
    assert crc32s([Record("train", 0, r.name, r.file) for r in files]).tolist() == expected
    assert names[7:] == [files[2].name]
    (tmp_path / "cache" / MEMORY).write_bytes(b"cut")
    assert crc32s([Record("train", 0, r.name, r.file) for r in files]).tolist() == expected


def test_a_file_that_has_just_changed_is_not_remembered(files: list[Record], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(contents, "REMEMBER_FROM", 1)
    crc32s(files)
    status = Path(files[0].file).stat()
    Path(files[0].file).write_bytes(bytes(status.st_size))
    os.utime(files[0].file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert crc32s(files)[0] == zlib.crc32(bytes(status.st_size))


def test_only_files_of_one_size_are_read_to_find_the_same_bytes(files: list[Record], monkeypatch: pytest.MonkeyPatch):
    for i, record in enumerate(files):
        Path(record.file).write_bytes(bytes([i // 2]) * (10 if i < 5 else i))
    records = [Record("train", 0, r.name, r.file, length=10 if i < 5 else i) for i, r in enumerate(files)]
    names = reads(monkeypatch)
    found = same_bytes(records)
    assert [[r.name for r in group] for group in found] == [[r.name for r in records[i : i + 2]] for i in (0, 2)]
    assert sorted(names) == sorted(r.name for r in records[:5])
