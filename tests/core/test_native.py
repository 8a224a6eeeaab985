"""C code is compiled once, kept for this user alone, and compiled again when what was kept is damaged."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from ctypes import c_int64, c_void_p
from pathlib import Path

import numpy as np
import pytest

from alexnet.core import native
from alexnet.core.native import NativeSource

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler here")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CC", raising=False)
    (tmp_path / "double.c").write_text(
        "#include <stdint.h>\nvoid twice(int64_t n, int64_t *x) { for (int64_t i = 0; i < n; i++) x[i] *= 2; }\n"
    )
    return tmp_path / "cache"


@pytest.fixture(params=[0o002, 0o000, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def source(cache: Path) -> NativeSource:
    """As a new process has it."""
    return NativeSource(cache.parent / "double.c", {"twice": [c_int64, c_void_p]})


def libraries(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.so"))


def works(code: NativeSource) -> bool:
    x_N = np.arange(4)
    code.library.twice(4, x_N.ctypes.data)
    return x_N.tolist() == [0, 2, 4, 6]


def built(cache: Path) -> Path:
    code = source(cache)
    assert code.available(build=True), code.failure
    assert works(code)
    (library,) = libraries(cache)
    return library


def test_under_any_umask_a_library_is_loaded_by_the_next_process(cache: Path, umask: int) -> None:
    library = built(cache)
    assert stat.S_IMODE(library.stat().st_mode) == stat.S_IMODE(library.parent.stat().st_mode) == 0o700
    again = source(cache)
    assert again.available()
    assert works(again)


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "zeros", "writable", "gone"])
def test_a_damaged_library_is_not_loaded_and_built_again(cache: Path, damage: str) -> None:
    library = built(cache)
    content = library.read_bytes()
    damaged = {
        "cut": content[: len(content) // 2],
        "empty": b"",
        "flipped": content[:5000] + bytes([content[5000] ^ 1]) + content[5001:],
        "zeros": bytes(len(content)),
    }
    if damage == "writable":
        library.chmod(0o666)
    elif damage == "gone":
        library.unlink()
    else:
        library.unlink()  # it is mapped by this process, which would feel it
        library.write_bytes(damaged[damage])
    assert not source(cache).available()
    mended = built(cache)
    assert mended.stat().st_size == len(content)
    assert source(cache).available()


def test_users_of_one_cache_have_libraries_of_their_own(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir()
    cache.chmod(0o2775)  # of a group, as administrators set it up
    first = built(cache)
    assert stat.S_IMODE(first.parent.parent.stat().st_mode) & 0o777 == 0o775
    own = os.getuid()
    monkeypatch.setattr(native.os, "getuid", lambda: own + 1)
    other = source(cache)
    assert not other.available()
    assert other.available(build=True), other.failure  # even where it cannot be kept
    assert works(other)
    assert first in libraries(cache)


def test_where_nothing_can_be_kept_it_is_built_for_this_process(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.write_text("a file in the place of the folder")
    code = source(cache)
    assert code.available(build=True), code.failure
    assert works(code)
    monkeypatch.delenv("ALEXNET_CACHE")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert source(cache).available(build=True)


@pytest.mark.parametrize("compiler", ["ccache gcc", "gcc -pipe", "  ", "env cc"])
def test_cc_may_be_several_words(cache: Path, compiler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if compiler.strip() and shutil.which(compiler.split()[0]) is None:
        pytest.skip(f"{compiler.split()[0]} is not installed")
    monkeypatch.setenv("CC", compiler)
    built(cache)


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        ("/nowhere/cc -O2", "no C compiler: /nowhere/cc is not installed"),
        ("false --x", "false --x failed: no message"),
        ("cc 'x", "CC=cc 'x: No closing quotation"),
    ],
)
def test_the_loss_is_said_once(
    cache: Path, compiler: str, reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CC", compiler)
    code = source(cache)
    code.tell_failure("doubling takes twice as long")
    assert not code.available(build=True)
    for _ in range(2):
        code.tell_failure("doubling takes twice as long")
    assert capsys.readouterr().err == (
        f"note: doubling takes twice as long: its C code could not be compiled ({reason})\n"
    )
    assert libraries(cache) == []
