"""Response normalization on a CPU by the kernels of compiled.c: built by the system's C compiler once on a machine, kept in
the cache folder."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
from ctypes import c_float, c_int64, c_void_p
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from alexnet.core.runs import cache_folder
from alexnet.models.lrn.layout import Layout, Window

SOURCE = Path(__file__).with_name("compiled.c")
FLAGS = (
    *("-O3", "-march=native", "-fPIC", "-fopenmp"),
    *("-fno-math-errno", "-fno-trapping-math"),  # comparisons become vector instructions; results do not change
    "-fno-tree-loop-distribute-patterns",  # short loops stay loops, not calls of memset
)
TIMEOUT = 60.0
"""Seconds that the compiler is given; it takes one or two."""

TILE = 16  # as in compiled.c
BUFFERS = 5
BLOCK_FLOATS = 256
"""Least size of a block's buffer, where rows allow: five of them in the first-level cache. 512 and 1024 are slower."""
MAX_ROOM = 1 << 22
"""Floats of a buffer; larger maps than that are left to torch's operations."""

_lock = threading.Lock()
_library: ctypes.CDLL | None = None
_failure: str | None = None


def available(*, build: bool = False) -> bool:
    """Whether the kernels can be called. With ``build`` the compiler is started if they were never built here; a
    failure is kept for :func:`failure` and not tried again by this process."""
    global _library, _failure
    if _library is not None:
        return True
    with _lock:
        if _library is None and _failure is None:
            try:
                file = _built_file()
                if build and not file.exists():
                    _build(file)
                if file.exists():
                    _library = _load(file)
            except (OSError, subprocess.SubprocessError, _BuildError) as error:
                _failure = " ".join(str(error).split())[:200]
    return _library is not None


def failure() -> str:
    """Why the kernels could not be built or loaded; empty if that has not happened."""
    return _failure or ""


def supports(x_BCHW: Tensor, window: Window) -> bool:
    """Float32 or bfloat16 on a CPU with the paper's exponent, and maps of a reasonable size."""
    return (
        x_BCHW.device.type == "cpu"
        and x_BCHW.dtype in (torch.float32, torch.bfloat16)
        and window.beta == 0.75
        and x_BCHW.numel() > 0
        and _room(Layout.of(x_BCHW, window), window)[1] <= MAX_ROOM
    )


def forward(x_BCHW: Tensor, window: Window) -> Tensor:
    """y, in the type and memory format of x."""
    y_BCHW = torch.empty_like(x_BCHW)
    plan, _scratch = _plan(x_BCHW, window)
    _loaded().forward(ctypes.byref(plan), x_BCHW.data_ptr(), y_BCHW.data_ptr())
    return y_BCHW


def backward(g_BCHW: Tensor, x_BCHW: Tensor, window: Window) -> Tensor:
    """The gradient with respect to x, whose type and memory format ``g_BCHW`` has."""
    dx_BCHW = torch.empty_like(x_BCHW)
    plan, _scratch = _plan(x_BCHW, window)
    _loaded().backward(ctypes.byref(plan), x_BCHW.data_ptr(), g_BCHW.data_ptr(), dx_BCHW.data_ptr())
    return dx_BCHW


class _CPlan(ctypes.Structure):
    """`Plan` of compiled.c."""

    _fields_ = [
        *((name, c_int64) for name in ("rows", "groups", "length", "step", "size", "square", "relu", "bfloat16")),
        ("k", c_float),
        ("c", c_float),
        *((name, c_int64) for name in ("threads", "rows_in_block", "room")),
        ("scratch", c_void_p),
    ]


def _room(layout: Layout, window: Window) -> tuple[int, int]:
    """Rows of a block, and the floats that one of its buffers needs."""
    lanes = min(layout.step, TILE)
    run = (layout.length + window.half) * lanes
    row = (layout.groups + (0 if window.towers else window.half)) * run
    margin = window.half * lanes + (0 if window.towers else window.half * run)
    rows = max(1, BLOCK_FLOATS // row)
    room = rows * row + 2 * margin
    # Whole cache lines, and one more, so that the same place of two buffers does not fall into the same set.
    return rows, room + -room % 16 + 16


def _plan(x_BCHW: Tensor, window: Window) -> tuple[_CPlan, Tensor]:
    """What the kernels are told, and the memory they work in, which must outlive the call."""
    layout, threads = Layout.of(x_BCHW, window), torch.get_num_threads()
    rows_in_block, room = _room(layout, window)
    scratch = torch.empty(threads * BUFFERS * room)
    plan = _CPlan(
        *layout,
        size=window.size,
        square=int(window.towers == 0),
        relu=int(window.relu),
        bfloat16=int(x_BCHW.dtype == torch.bfloat16),
        k=window.k,
        c=window.coefficient,
        threads=threads,
        rows_in_block=rows_in_block,
        room=room,
        scratch=scratch.data_ptr(),
    )
    return plan, scratch


def _loaded() -> ctypes.CDLL:
    assert _library is not None, "the kernels were called before available() was asked"
    return _library


class _BuildError(Exception):
    """Why there is no library."""


@lru_cache(maxsize=1)
def _built_file() -> Path:
    """Named after everything the machine code depends on: a home folder may be shared by unlike machines."""
    digest = hashlib.sha256(SOURCE.read_bytes())
    digest.update(repr((FLAGS, os.environ.get("CC"), os.uname().machine)).encode())
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith(("model name", "flags", "Features", "CPU part")):
            digest.update(line.encode())
        if not line:
            break  # the first processor stands for all
    return cache_folder() / "kernels" / f"lrn-{digest.hexdigest()[:16]}.so"


def _build(file: Path) -> None:
    compiler = os.environ.get("CC") or "cc"
    if shutil.which(compiler) is None:
        raise _BuildError(f"no C compiler: {compiler} is not installed")
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        # Linked without OpenMP of its own: its calls go to the one that torch has loaded, and use torch's threads.
        run = [compiler, *FLAGS, "-c", str(SOURCE), "-o", f"{folder}/lrn.o"], [compiler, "-shared", f"{folder}/lrn.o"]
        for command in (run[0], [*run[1], "-o", f"{folder}/lrn.so"]):
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
            if done.returncode:
                raise _BuildError(f"{compiler} failed: {(done.stderr.strip() or 'no message').splitlines()[0]}")
        Path(folder, "lrn.so").replace(file)


def _load(file: Path) -> ctypes.CDLL:
    status = file.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise _BuildError(f"{file} may be written by others; remove it")
    library = ctypes.CDLL(str(file))
    library.forward.argtypes = [c_void_p, c_void_p, c_void_p]
    library.backward.argtypes = [c_void_p, c_void_p, c_void_p, c_void_p]
    library.forward.restype = library.backward.restype = None
    return library
