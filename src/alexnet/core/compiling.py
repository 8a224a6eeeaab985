"""How the C sources of this package are compiled: on a machine for itself, and into a wheel for kinds of processors.

Only the standard library is used: a wheel is built where the rest of the package, and what it needs, is not installed.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path

TIMEOUT = 60.0
"""Seconds that the compiler is given; it takes one or two."""

V3 = frozenset("avx avx2 bmi1 bmi2 f16c fma abm movbe".split())
V4 = V3 | frozenset("avx512f avx512bw avx512cd avx512dq avx512vl".split())
LEVELS: dict[str, dict[str, frozenset[str]]] = {
    "x86_64": {"x86-64-v4": V4, "x86-64-v3": V3, "x86-64": frozenset()},
    "aarch64": {"armv8-a": frozenset()},
}
"""For each machine the kinds of processors that a wheel has code for, the fastest first: the name that compilers have for them
(-march), and the instructions they need, as Linux names them. v3 is AVX2 (since 2013), v4 AVX-512."""


class CompileError(Exception):
    """Why there is no library."""


def flags_of(source: Path) -> list[str]:
    """What the compiler is told about a C file beside the processor: its line ``// cc: FLAGS``."""
    found = re.search(r"^// cc: *(.*)$", source.read_text(encoding="utf-8"), re.MULTILINE)
    return ["-O3", "-fPIC", *(found[1].split() if found else [])]


def prebuilt(source: Path, level: str) -> str:
    """The file name of the library that a wheel has for a kind of processor, beside its source."""
    return f"{source.stem}.{level}.so"


def levels_for(machine: str, instructions: Collection[str]) -> list[str]:
    """The kinds of processors whose code runs on this one, the fastest first."""
    return [level for level, needed in LEVELS.get(machine, {}).items() if needed.issubset(instructions)]


def compiler() -> list[str]:
    """The words of ``$CC``, or ``cc``; :class:`CompileError` if there is none."""
    try:
        words = shlex.split(os.environ.get("CC") or "") or ["cc"]  # CC="ccache gcc" is usual
    except ValueError as error:
        raise CompileError(f"CC={os.environ['CC']}: {error}") from None
    if shutil.which(words[0]) is None:
        raise CompileError(f"no C compiler: {words[0]} is not installed")
    return words


def compile_library(source: Path, library: Path, flags: Sequence[str], timeout: float | None = TIMEOUT) -> None:
    """Compile ``source`` to a library that is linked without libraries of its own. Raises :class:`CompileError`, OSError, or
    :class:`subprocess.TimeoutExpired`."""
    words = compiler()
    # In two steps: a flag such as -fopenmp would link a second library where torch has loaded its own.
    code = library.with_suffix(".o")
    for arguments in ([*flags, "-c", str(source), "-o", str(code)], ["-shared", str(code), "-o", str(library)]):
        # What ccache keeps may come from another machine, whose -march=native is not ours.
        environment = os.environ | {"CCACHE_DISABLE": "1"}
        done = subprocess.run(
            [*words, *arguments], env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )
        if done.returncode:
            said = (done.stderr.strip() or "no message").splitlines()[0]
            raise CompileError(f"{shlex.join(words)} failed: {said}")
