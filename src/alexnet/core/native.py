"""C sources of this package, called through ctypes: compiled in the wheel or, where that has nothing for this machine, built by
the system's C compiler once and kept in the cache folder. Where there is neither their callers have another way."""

from __future__ import annotations

import ctypes
import hashlib
import os
import stat
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from alexnet.core.compiling import CompileError, compile_library, flags_of, levels_for, prebuilt
from alexnet.core.console import say
from alexnet.core.errors import AlexNetError
from alexnet.core.runs import cache_folder, sha256_file, write_atomic


class NativeSource:
    """One C file and the functions it exports, all of them returning nothing.

    ``functions``: argument types by name. The library is linked without libraries of its own: what it calls must be loaded
    already.
    """

    def __init__(self, source: Path, functions: Mapping[str, Sequence[Any]]) -> None:
        self.source, self.functions = source, functions
        self.failure = ""
        """Why the library could not be built or loaded; empty if that has not happened."""
        self._lock = threading.Lock()
        self._library: ctypes.CDLL | None = None
        self._looked = self._told = False

    def available(self, *, build: bool = False) -> bool:
        """Whether the functions can be called. With ``build`` the compiler is started if there is no sound library for this
        machine; a failure is not tried again by this process."""
        if self._library is not None or (self._looked and not build) or self.failure:
            return self._library is not None
        with self._lock:
            if self._library is None:
                self._library = self._prebuilt() or self._kept()
                self._looked = True
            if self._library is None and build and not self.failure:
                try:
                    self._library = self._build()
                except (OSError, subprocess.SubprocessError, CompileError) as error:
                    self.failure = " ".join(str(error).split())[:200]
        return self._library is not None

    @property
    def library(self) -> ctypes.CDLL:
        """The loaded library, whose functions can be called. Call :meth:`available` first."""
        assert self._library is not None, f"{self.source.name} was called before available() was asked"
        return self._library

    def tell_failure(self, loss: str) -> None:
        """Say, once in this process, what it costs that the library could not be built: ``loss``, and why."""
        if self.failure and not self._told:
            self._told = True
            say(f"note: {loss}: its C code could not be compiled ({self.failure})")

    @cached_property
    def _key(self) -> str:
        """A hash of everything the machine code depends on: different machines may share a home folder."""
        what = repr((os.environ.get("CC"), os.uname().machine, _processor())).encode()
        return hashlib.sha256(self.source.read_bytes() + what).hexdigest()[:16]

    def _kept(self) -> ctypes.CDLL | None:
        """The library that was built earlier. Its SHA-256 is a part of its name: one that was cut or damaged would end this
        process (SIGBUS) when it is called."""
        with suppress(OSError, AlexNetError, CompileError):
            for file in sorted(_own_folder().glob(f"{self.source.stem}-{self._key}-*.so")):
                status = file.stat()
                private = status.st_uid == os.getuid() and not status.st_mode & 0o022
                if private and file.stem.rpartition("-")[2] == sha256_file(file):
                    with suppress(OSError):
                        return self._load(file)
        return None

    def _build(self) -> ctypes.CDLL:
        """Compile, keep for the next process if the cache takes it, and load."""
        with tempfile.TemporaryDirectory(prefix="alexnet-") as folder:
            library = Path(folder) / "library.so"
            compile_library(self.source, library, [*flags_of(self.source), "-march=native"])
            with suppress(OSError, AlexNetError, CompileError):
                return self._load(self._keep(library.read_bytes()))
            return self._load(library)  # once loaded, it stays, without its file

    def _prebuilt(self) -> ctypes.CDLL | None:
        """The library that the installed wheel has for this kind of processor."""
        for level in levels_for(os.uname().machine, _instructions()):
            file = self.source.with_name(prebuilt(self.source, level))
            if file.is_file():
                with suppress(OSError):
                    return self._load(file)
        return None

    def _keep(self, library: bytes) -> Path:
        """Write the library to the cache, in place of one that does not fit."""
        folder, name = _own_folder(make=True), f"{self.source.stem}-{self._key}"
        for old in folder.glob(f"{name}-*.so"):
            old.unlink(missing_ok=True)
        file = folder / f"{name}-{hashlib.sha256(library).hexdigest()}.so"

        def write(opened: BinaryIO) -> None:
            os.fchmod(opened.fileno(), 0o700)
            opened.write(library)

        write_atomic(file, write)
        return file

    def _load(self, file: Path) -> ctypes.CDLL:
        library = ctypes.CDLL(str(file))
        for name, arguments in self.functions.items():
            function = getattr(library, name)
            function.argtypes, function.restype = list(arguments), None
        return library


def _own_folder(*, make: bool = False) -> Path:
    """Where this user's libraries are kept. Of a cache that several users share, each has a folder that only they can write
    to, whatever the umask: what others could write would run as this user."""
    shared = cache_folder() / "kernels"
    folder = shared / str(os.getuid())
    if make and not folder.exists():
        shared.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):  # it belongs to another user, who has set this before
            shared.chmod(stat.S_IMODE(shared.parent.stat().st_mode))
        folder.mkdir(mode=0o700, exist_ok=True)
    if make:
        folder.chmod(0o700)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise CompileError(f"others may write to {folder}")
    return folder


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


def _instructions() -> set[str]:
    """What the processor can, as Linux names it."""
    return {word for line in _processor().splitlines() if line.startswith("flags") for word in line.split()}
