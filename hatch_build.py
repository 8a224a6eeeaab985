"""Puts the compiled C sources into a wheel, for kinds of processors, so that a machine without a compiler has them.

Where the wheel is built without a C compiler, or not for Linux with glibc, it is a plain one: its C is compiled where it runs,
or done without. ``CC=aarch64-linux-gnu-gcc python -m build --wheel`` builds for another machine.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

GLIBC = "2_17"
"""The oldest one with which the libraries can be loaded: they call memcpy (2.14) and what OpenMP has."""


class CompiledSources(BuildHookInterface[Any]):
    folder: Path | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel" or version == "editable":
            return
        package = Path(self.root) / "src" / "alexnet"
        spec = importlib.util.spec_from_file_location("compiling", package / "core" / "compiling.py")
        assert spec is not None
        assert spec.loader is not None
        compiling = importlib.util.module_from_spec(spec)
        sys.modules["compiling"] = compiling
        spec.loader.exec_module(compiling)
        try:
            said = subprocess.run([*compiling.compiler(), "-dumpmachine"], capture_output=True, text=True, check=True)
        except (compiling.CompileError, OSError, subprocess.CalledProcessError) as error:
            self.app.display_warning(f"a wheel without compiled code: {error}")
            return
        machine, _, system = said.stdout.strip().partition("-")
        if machine not in compiling.LEVELS or not system.endswith("linux-gnu"):
            self.app.display_warning(
                f"a wheel without compiled code: {said.stdout.strip()} is not a machine it is made for"
            )
            return
        self.folder = Path(tempfile.mkdtemp(prefix="alexnet-wheel-"))
        for source in sorted(package.rglob("*.c")):
            for level in compiling.LEVELS[machine]:
                library = self.folder / compiling.prebuilt(source, level)
                flags = [*compiling.flags_of(source), f"-march={level}"]
                compiling.compile_library(source, library, flags, timeout=None)
                inside = source.relative_to(package.parent).with_name(library.name)
                build_data["force_include"][str(library)] = str(inside)
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-manylinux_{GLIBC}_{machine}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self.folder is not None:
            shutil.rmtree(self.folder)
