"""Files are the old or the new, never a part."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from alexnet.core.errors import AlexNetError, printable
from alexnet.core.native import NativeSource
from alexnet.core.runs import ArrayFile, cache_folder, read_json, writable_cache, write_atomic, write_json


@pytest.fixture
def no_home(monkeypatch):
    """A user without HOME and without an account."""

    def home():
        raise RuntimeError("Could not determine home directory.")

    for name in ("ALEXNET_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pathlib.Path.home", home)


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


@pytest.mark.parametrize("shape", [(7, 3), (7,), (7, 0), (0, 3), (4, 2, 5)])
def test_rows_read_from_a_file_are_those_of_the_array(tmp_path, shape):
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    np.save(tmp_path / "a.npy", array)
    found = ArrayFile(tmp_path / "a.npy")
    assert (found.shape, found.dtype, len(found)) == (array.shape, array.dtype, len(array))
    every = np.arange(len(array))
    for rows in (slice(None), slice(1, 3), slice(5, 2), slice(None, None, -2), every[::-1], every % 2 == 1, every[:0]):
        assert np.array_equal(found[rows], array[rows]), rows
    assert np.array_equal(np.asarray(found, dtype=np.float64), array)
    if len(array):
        assert np.array_equal(found[-1], array[-1])
    with pytest.raises(IndexError):
        found[len(array)]


def test_a_file_of_rows_that_is_cut_while_it_is_open_is_an_error(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3000, 3)))
    found = ArrayFile(tmp_path / "a.npy")
    os.truncate(tmp_path / "a.npy", 40_000)
    assert found[:1000].shape == (1000, 3)
    for rows in (slice(None), np.array([2999])):
        with pytest.raises(AlexNetError, match=r"a\.npy: cut short since it was opened"):
            found[rows]
    with pytest.raises(AlexNetError, match=r"a\.npy: not a readable NumPy file \(cut short\)"):
        ArrayFile(tmp_path / "a.npy")


def test_what_is_no_file_of_rows_is_named(tmp_path):
    np.save(tmp_path / "number.npy", np.float32(3))
    np.save(tmp_path / "turned.npy", np.asfortranarray(np.zeros((2, 3))))
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "text.npy").write_text("text")
    os.mkfifo(tmp_path / "pipe.npy")
    for name in ("number", "turned", "objects", "text", "pipe", "missing"):
        with pytest.raises(AlexNetError, match=rf"{name}\.npy: not a readable NumPy file"):
            ArrayFile(tmp_path / f"{name}.npy")


def test_a_cache_that_cannot_be_written_is_said_with_what_is_kept_there_and_how_to_move_it(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "file" / "cache"))
    said = r"^the set is kept in the cache /.*/file/cache, which cannot be written \(Not a directory\); set ALEXNET_CACHE to "
    with pytest.raises(AlexNetError, match=said):
        writable_cache("the set")
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    assert writable_cache("the set") == tmp_path / "cache"
    monkeypatch.setattr(os, "access", lambda *_: False)  # as for a user who is not root
    with pytest.raises(AlexNetError, match=r"which cannot be written \(Permission denied\); set ALEXNET_CACHE"):
        writable_cache("the set")


def test_a_user_without_a_home_folder_is_told_of_the_setting(no_home):
    with pytest.raises(
        AlexNetError, match=r"^the set is kept in a cache, and this user has no home .* set ALEXNET_CACHE"
    ):
        writable_cache("the set")


def test_compiled_kernels_are_done_without_where_there_is_no_home_folder(no_home, tmp_path):
    (tmp_path / "nothing.c").write_text("void nothing(void) {}")
    source = NativeSource(tmp_path / "nothing.c", {"nothing": []})
    assert not source.available()
    assert source.available(build=True) or "compiler" in source.failure


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/ada")
    for ours, xdg, folder in (
        (None, None, "/home/ada/.cache/alexnet"),
        (None, "/var/caches", "/var/caches/alexnet"),
        ("/mine", "/var/caches", "/mine"),
        ("", "", "/home/ada/.cache/alexnet"),
        (None, "caches", "/home/ada/.cache/alexnet"),  # its standard: a path that is not absolute is ignored
    ):
        for name, value in (("ALEXNET_CACHE", ours), ("XDG_CACHE_HOME", xdg)):
            monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
        assert cache_folder() == Path(folder)
