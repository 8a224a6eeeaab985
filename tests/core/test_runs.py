"""Files are the old or the new, never a part."""

from __future__ import annotations

import os

import pytest

from alexnet.core.errors import AlexNetError, printable
from alexnet.core.runs import read_json, write_atomic, write_json


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    def fail(file):
        file.write(b"half")
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        write_atomic(path, fail)
    assert read_json(path) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_json_refuses_nan_and_names_a_damaged_file(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    (tmp_path / "b.json").write_bytes(b'{"x": ')
    with pytest.raises(AlexNetError, match=r"b\.json: not valid JSON"):
        read_json(tmp_path / "b.json")
    with pytest.raises(AlexNetError, match="no such file"):
        read_json(tmp_path / "c.json")


def test_undecodable_names_survive_json_and_print_on_one_line(tmp_path):
    name = os.fsdecode(b"caf\xe9\n.jpg")
    write_json(tmp_path / "a.json", [name])
    assert read_json(tmp_path / "a.json") == [name]
    assert printable(name) == "caf\\udce9\\n.jpg"
