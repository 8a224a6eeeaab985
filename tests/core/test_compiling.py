"""The code for kinds of processors that a wheel has: what is chosen, and that each kind computes the same."""

from __future__ import annotations

import os
import shutil
from ctypes import c_void_p
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet.core import native
from alexnet.core.compiling import LEVELS, V3, V4, compile_library, flags_of, levels_for, prebuilt
from alexnet.core.native import NativeSource
from alexnet.data import pixels

needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler here")
PACKAGE = Path(native.__file__).parents[1]


def test_the_fastest_code_that_a_processor_can_run_comes_first():
    assert levels_for("x86_64", set()) == ["x86-64"]
    assert levels_for("x86_64", V3 - {"fma"}) == ["x86-64"]
    assert levels_for("x86_64", V3 | {"avx512f"}) == ["x86-64-v3", "x86-64"]
    assert levels_for("x86_64", V4) == ["x86-64-v4", "x86-64-v3", "x86-64"]
    assert levels_for("aarch64", set()) == ["armv8-a"]
    assert levels_for("riscv64", set()) == []


def test_every_source_says_how_it_is_compiled():
    """Pillow's rounding must not become one product and sum: then levels with such an instruction would differ."""
    sources = sorted(PACKAGE.rglob("*.c"))
    assert [source.name for source in sources] == ["pixels.c", "lrn.c", "winograd.c", "scan.c"]
    assert ["-fopenmp" in flags_of(source) for source in sources] == [False, True, True, False]
    assert flags_of(sources[0]) == ["-O3", "-fPIC", "-ffp-contract=off"]


@needs_cc
def test_what_a_wheel_has_is_used_without_a_compiler_and_what_is_damaged_is_not(tmp_path, monkeypatch):
    code = tmp_path / "level.c"
    monkeypatch.setattr(native, "_instructions", lambda: set(V3))
    monkeypatch.setattr(native.os, "uname", lambda: os.uname_result(("", "", "", "", "x86_64")))
    names = [prebuilt(code, level) for level in LEVELS["x86_64"]]
    assert names == ["level.x86-64-v4.so", "level.x86-64-v3.so", "level.x86-64.so"]
    for number, name in enumerate(names):
        code.write_text(f"#include <stdint.h>\nvoid level(int64_t *x) {{ *x = {number}; }}\n")
        compile_library(code, tmp_path / name, flags_of(code))
    monkeypatch.setenv("CC", "/nowhere/cc")
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))

    def answer(folder: Path) -> int:
        source = NativeSource(folder / "level.c", {"level": [c_void_p]})
        assert source.available()
        x = np.array([-1])
        source.library.level(x.ctypes.data)
        return int(x[0])

    later = shutil.copytree(tmp_path, tmp_path / "later")  # what was loaded from a path stays loaded
    (later / names[1]).write_bytes(b"no library")
    assert answer(tmp_path) == 1
    assert answer(later) == 2
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(code, bare)
    assert not NativeSource(bare / code.name, {"level": [c_void_p]}).available(build=True)
    assert not (tmp_path / "cache").exists()


@needs_cc
@pytest.mark.parametrize("level", levels_for(os.uname().machine, native._instructions()))
def test_every_level_resizes_to_the_bits_of_pillow(level, tmp_path, monkeypatch):
    library = tmp_path / "pixels.so"
    compile_library(pixels.KERNELS.source, library, [*flags_of(pixels.KERNELS.source), f"-march={level}"])
    code = NativeSource(pixels.KERNELS.source, pixels.KERNELS.functions)
    code._library = code._load(library)
    random = np.random.default_rng(0)
    images = [Image.fromarray(random.integers(0, 256, (h, w, 3), dtype=np.uint8)) for h, w in ((97, 131), (300, 200))]
    monkeypatch.setattr(pixels, "KERNELS", code)
    ours = [pixels.resize_and_crop(image, 64) for image in images]
    code._library, code.failure = None, "as without a compiler"
    for image, found in zip(images, ours, strict=True):
        np.testing.assert_array_equal(pixels.resize_and_crop(image, 64), found)
