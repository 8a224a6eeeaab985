"""C sources of this package: built by the system's C compiler once on a machine, kept in the cache folder, called through
ctypes. Where there is no compiler their callers have another way."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from alexnet.core.runs import cache_folder

FLAGS = ("-O3", "-march=native", "-fPIC")
TIMEOUT = 60.0
"""Seconds that the compiler is given; it takes one or two."""


class NativeSource:
    """One C file and the functions it exports, all of them returning nothing.

    ``functions``: argument types by name. ``flags``: for the compiler, beside :data:`FLAGS`. The library is linked
    without libraries of its own: what it calls must be loaded already.
    """

    def __init__(self, source: Path, functions: Mapping[str, Sequence[Any]], flags: Sequence[str] = ()) -> None:
        self.source, self.functions, self.flags = source, functions, (*FLAGS, *flags)
        self.failure = ""
        """Why the library could not be built or loaded; empty if that has not happened."""
        self._lock = threading.Lock()
        self._library: ctypes.CDLL | None = None

    def available(self, *, build: bool = False) -> bool:
        """Whether the functions can be called. With ``build`` the compiler is started if they were never built on this
        machine; a failure is not tried again by this process."""
        if self._library is not None:
            return True
        with self._lock:
            if self._library is None and not self.failure:
                try:
                    if build and not self._built.exists():
                        self._build()
                    if self._built.exists():
                        self._library = self._load()
                except (OSError, subprocess.SubprocessError, _BuildError) as error:
                    self.failure = " ".join(str(error).split())[:200]
        return self._library is not None

    @property
    def library(self) -> ctypes.CDLL:
        """To call the functions; :meth:`available` was asked before."""
        assert self._library is not None, f"{self.source.name} was called before available() was asked"
        return self._library

    @cached_property
    def _built(self) -> Path:
        """Named after everything the machine code depends on: a home folder may be shared by unlike machines."""
        what = repr((self.flags, os.environ.get("CC"), os.uname().machine, _processor())).encode()
        digest = hashlib.sha256(self.source.read_bytes() + what).hexdigest()[:16]
        return cache_folder() / "kernels" / f"{self.source.stem}-{digest}.so"

    def _build(self) -> None:
        compiler, file = os.environ.get("CC") or "cc", self._built
        if shutil.which(compiler) is None:
            raise _BuildError(f"no C compiler: {compiler} is not installed")
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            # In two steps: a flag such as -fopenmp would link a second library where torch has loaded its own.
            code, library = f"{folder}/code.o", f"{folder}/library.so"
            for command in (
                [compiler, *self.flags, "-c", str(self.source), "-o", code],
                [compiler, "-shared", code, "-o", library],
            ):
                done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
                if done.returncode:
                    raise _BuildError(f"{compiler} failed: {(done.stderr.strip() or 'no message').splitlines()[0]}")
            Path(library).replace(file)

    def _load(self) -> ctypes.CDLL:
        status = self._built.stat()
        if status.st_uid != os.getuid() or status.st_mode & 0o022:
            raise _BuildError(f"{self._built} may be written by others; remove it")
        library = ctypes.CDLL(str(self._built))
        for name, arguments in self.functions.items():
            function = getattr(library, name)
            function.argtypes, function.restype = list(arguments), None
        return library


class _BuildError(Exception):
    """Why there is no library."""


@lru_cache(maxsize=1)
def _processor() -> str:
    """Its model and instructions; the first one stands for all."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return ""
    return "\n".join(
        line for line in first.splitlines() if line.startswith(("model name", "flags", "Features", "CPU part"))
    )
