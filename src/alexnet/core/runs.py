"""Files of a run: written atomically, read with checks, described by their environment."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO

from alexnet.core.errors import AlexNetError, printable

MAX_JSON_BYTES = 1 << 30
"""A larger JSON file is refused unread."""


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Have ``write(file)`` fill a temporary file beside ``path``, fsync it, rename it over ``path``, fsync the folder.
    A reader, or a machine that lost power, sees the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """``value`` as indented JSON, atomically. Refuses NaN and infinity: they are not JSON."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomic(path, lambda file: file.write(text.encode("utf-8", "surrogatepass")))


def read_json(path: Path) -> Any:
    """The value of a JSON file. Raises :class:`AlexNetError` naming the file if it is missing, huge or malformed."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise AlexNetError(f"{printable(path)}: larger than {MAX_JSON_BYTES >> 30} GiB, not read")
        return json.loads(path.read_bytes().decode("utf-8", "surrogatepass"))
    except FileNotFoundError:
        raise AlexNetError(f"{printable(path)}: no such file") from None
    except (ValueError, RecursionError) as error:
        raise AlexNetError(f"{printable(path)}: not valid JSON ({printable(error)})") from error


def fsync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cache_folder(cache: str | Path | None = None) -> Path:
    """``cache``, ``$ALEXNET_CACHE`` or ``~/.cache/alexnet``."""
    return Path(cache or os.environ.get("ALEXNET_CACHE") or Path.home() / ".cache" / "alexnet")


def sha256_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def environment() -> dict[str, Any]:
    """Machine and versions, for result files: numbers are compared only with what they were measured on."""
    import numpy
    import torch

    from alexnet import __version__

    return {
        "alexnet": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "pillow": _version("pillow"),
        "platform": f"{sys.platform}-{platform.machine()}",
        "processor": _processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
