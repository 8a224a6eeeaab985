"""A sealed folder: what is listed, and what is said of a file that is not as listed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alexnet.core.errors import AlexNetError, DataError
from alexnet.core.sealed import Seal

LISTED = Seal(what="a set", formats=("set",), version=2, check="check", again="make it again")
HASHED = Seal(what="a model", head="config.json", formats=("model",), files="sha256", error=AlexNetError)


@pytest.fixture(params=[LISTED, HASHED], ids=["sizes", "hashes"])
def seal(request: pytest.FixtureRequest) -> Seal:
    return request.param


@pytest.fixture
def folder(seal: Seal, tmp_path: Path) -> Path:
    (tmp_path / "a.bin").write_bytes(b"alpha")
    head = {"format": seal.formats[0], "version": seal.version, seal.files: seal.list_files(tmp_path, ["a.bin"])}
    seal.write(tmp_path, head)
    return tmp_path


def change(seal: Seal, folder: Path, **values: Any) -> None:
    head = {**json.loads((folder / seal.head).read_text()), **values}
    head.pop(seal.check, None)
    (folder / seal.head).write_text(json.dumps(seal.sealed(head)))


def test_the_list_is_what_sha256sum_says(seal: Seal, folder: Path) -> None:
    expected = "8ed3f6ad685b959ead7022518e1af76cd816f8e8ec7ccdda1ed4018e8f2223f8"  # printf alpha | sha256sum
    assert seal.read(folder)[seal.files]["a.bin"] == (expected if seal is HASHED else {"bytes": 5, "sha256": expected})
    assert seal.content(folder, seal.read(folder), "a.bin") == b"alpha"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"alphabet", "a.bin: 8 bytes, but meta.json says 5; make it again"),
        (b"alphe", "a.bin: damaged, its SHA-256 is not that in "),
        (None, "a.bin: missing"),
    ],
)
def test_a_file_that_is_not_as_listed(seal: Seal, folder: Path, content: bytes | None, said: str) -> None:
    if seal is HASHED and content == b"alphabet":
        said = "a.bin: damaged, its SHA-256 is not that in config.json"
    head = seal.read(folder)
    (folder / "a.bin").unlink()
    if content is not None:
        (folder / "a.bin").write_bytes(content)
    for use in (seal.require, seal.content):
        with pytest.raises(seal.error, match=said):
            use(folder, head, "a.bin")


def test_the_size_alone_is_compared_where_that_is_asked_for(seal: Seal, folder: Path) -> None:
    (folder / "a.bin").write_bytes(b"alphe")
    seal.require(folder, seal.read(folder), "a.bin", contents=False)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"format": "other"}, "not that of a .*; name another folder"),
        ({"version": 9}, "of version 9, this program reads (2; upgrade it, or make it again|None; upgrade it)$"),
        ({"files": None, "sha256": None}, "not as this program writes it: (files|sha256) is missing"),
        ({"files": {"../a": {"bytes": 1, "sha256": "0"}}, "sha256": {"../a": "0"}}, r"'\.\./a' is no file of a "),
        ({"files": {"a.bin": {"sha256": "0"}}, "sha256": {"a.bin": 3}}, "size or SHA-256 of a.bin is missing"),
    ],
    ids=str,
)
def test_a_list_that_is_not_ours(seal: Seal, folder: Path, values: dict[str, Any], said: str) -> None:
    change(seal, folder, **values)
    with pytest.raises(seal.error, match=said):
        seal.read(folder)


def test_a_list_that_was_edited(tmp_path: Path) -> None:
    LISTED.write(tmp_path, {"format": "set", "version": 2, "files": {}, "n": 5})
    text = (tmp_path / "meta.json").read_text()
    assert LISTED.read(tmp_path)["n"] == 5
    (tmp_path / "meta.json").write_text(text.replace('"n": 5', '"n": 6'))
    with pytest.raises(DataError, match=r"meta\.json: damaged or edited; make it again"):
        LISTED.read(tmp_path)


def test_what_is_made_of_damaged_bytes_is_not_given_out(folder: Path, seal: Seal) -> None:
    def refuse(content: bytes) -> int:
        raise ValueError(f"not a sound file: {content!r}")

    head = seal.read(folder)
    assert seal.made(folder, head, "a.bin", len) == 5
    with pytest.raises(ValueError, match="not a sound file: b'alpha'"):
        seal.made(folder, head, "a.bin", refuse)
    (folder / "a.bin").write_bytes(b"alphe")
    for make in (len, refuse):  # what is wrong with the file comes first
        with pytest.raises(seal.error, match="damaged, its SHA-256"):
            seal.made(folder, head, "a.bin", make)
