"""Files of a run: written atomically, read with checks, described by their environment."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import math
import os
import platform
import stat
import sys
import warnings
import weakref
from collections.abc import Callable, Container
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from zipfile import ZIP_STORED, ZipFile

from alexnet.core.errors import AlexNetError, in_short, printable, refused

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESTORE = "restore it or make it again"

MAX_JSON_BYTES = 128 << 20
"""Limit of a JSON file; the result of a large evaluation fits. A larger file is refused unread."""
MAX_SETTINGS_BYTES = 16 << 20
"""Limit of a JSON file of settings or a list of files: JSON takes up to twenty times its size in memory."""

REPLACED = ".replaced"
"""Folder inside that of a run that keeps the run which ``--fresh`` replaces, until the new one has a checkpoint."""
REPLACING = ".replacing"
"""Name of that folder while files are moved there, or back."""


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
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(temporary)):
            error.filename, error.filename2 = str(path), None  # what a person asked for
        raise
    fsync_folder(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """``content`` as a file, atomically."""
    write_atomic(path, lambda file: file.write(content))


def write_json(path: Path, value: Any) -> None:
    """``value`` as indented JSON, atomically. Refuses NaN and infinity: they are not JSON."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomic(path, lambda file: file.write(text.encode("utf-8", "surrogatepass")))


def read_json(path: Path, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """The value of a JSON file. Raises :class:`AlexNetError` naming the file if it is missing, large or malformed."""
    if not path.exists():
        raise AlexNetError(f"{printable(path)}: no such file; name another, or make it again")
    return parse_json(read_file(path, max_bytes), path)


def parse_json(content: bytes, path: Path) -> Any:
    """The value of the JSON text that was read from ``path``. Raises like :func:`read_json`."""
    try:
        return json.loads(content.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError, MemoryError) as error:
        raise AlexNetError(f"{printable(path)}: not valid JSON ({printable(error)}); {RESTORE}") from error


def read_file(path: Path, max_bytes: int | None = None) -> bytes:
    """The bytes of a regular file; pipes and devices are not opened. Raises :class:`AlexNetError` naming the file if it
    is missing, cannot be read or has more than ``max_bytes``."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise AlexNetError(f"{printable(path)}: not a regular file")
        if max_bytes is not None and status.st_size > max_bytes:
            raise AlexNetError(f"{printable(path)}: {status.st_size:,} bytes, not read; at most {max_bytes:,}")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        said = refused(error, path) if isinstance(error, OSError) else f"{printable(path)}: {printable(error)}"
        raise AlexNetError(said) from error


# For damaged headers NumPy and zipfile raise ValueError, KeyError, TypeError, OverflowError, SyntaxError, RuntimeError,
# NotImplementedError and more. The two functions below catch everything, and so hold nothing but their calls.


def read_array(content: BinaryIO, path: Path) -> NDArray[Any]:
    """The array in a ``.npy`` file, open at its start, that was found at ``path``. Nothing is unpickled. Raises
    :class:`AlexNetError` naming ``path``."""
    import numpy as np

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a header of Python 2 would be answered with lines on stderr
            array: NDArray[Any] = np.lib.format.read_array(content, allow_pickle=False)
        return array
    except Exception as error:
        raise AlexNetError(f"{printable(path)}: not a readable NumPy file ({_said(error)}); {RESTORE}") from error


class ArrayFile:
    """The array in the ``.npy`` file ``path``, whose rows are read when they are asked for, into memory of their own. It is not
    mapped: where a mapped file is cut meanwhile, the kernel ends the process (SIGBUS), and nobody learns why.

    Any number of threads may read. Raises like :func:`read_array`, also when rows are no longer there.
    """

    def __init__(self, path: Path) -> None:
        import numpy as np

        self.path = path
        try:
            self._descriptor = open_regular(path)
        except OSError as error:
            raise AlexNetError(f"{printable(path)}: not a readable NumPy file ({_said(error)}); {RESTORE}") from error
        self._close = weakref.finalize(self, os.close, self._descriptor)
        try:
            with open(self._descriptor, "rb", closefd=False) as file, warnings.catch_warnings():
                warnings.simplefilter("error")
                version = np.lib.format.read_magic(file)
                read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                shape, fortran, dtype = read_header[version](file)
                self._start = file.tell()
            if not shape or dtype.hasobject or (fortran and len(shape) > 1):
                raise ValueError("not rows of numbers")
            self.shape: tuple[int, ...] = tuple(int(extent) for extent in shape)
            self.dtype = dtype
            self._row_bytes = math.prod(self.shape[1:]) * dtype.itemsize
            if os.fstat(self._descriptor).st_size < self._start + self.shape[0] * self._row_bytes:
                raise ValueError("cut short")
        except Exception as error:
            self._close()
            raise AlexNetError(f"{printable(path)}: not a readable NumPy file ({_said(error)}); {RESTORE}") from error

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any, /) -> NDArray[Any]:
        """A slice of the rows, those of these numbers, or one: a copy."""
        import numpy as np

        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                piece: NDArray[Any] = np.empty((max(0, stop - start), *self.shape[1:]), self.dtype)
                if piece.nbytes:
                    self._read(piece.reshape(-1).view(np.uint8).data, start)
                return piece
            rows = np.arange(start, stop, step)
        if np.ndim(rows) == 0:
            return self[np.array([rows])][0]  # type: ignore[no-any-return]
        row_B = np.arange(len(self))[np.asarray(rows)]  # NumPy's rules: from the end, of a mask, and its IndexError
        array_B: NDArray[Any] = np.empty((len(row_B), *self.shape[1:]), self.dtype)
        if array_B.nbytes:
            num, view = self._row_bytes, array_B.reshape(-1).view(np.uint8).data
            for b, row in enumerate(row_B.tolist()):
                self._read(view[b * num : (b + 1) * num], row)
        return array_B

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:] if dtype is None else self[:].astype(dtype, copy=False)

    def _read(self, into: memoryview, row: int) -> None:
        pread_into(self._descriptor, into, self._start + row * self._row_bytes, self.path)


def open_regular(path: Path) -> int:
    """A descriptor to read a regular file; pipes and devices are :class:`OSError`. It shares a lock, by which whoever wants to
    remove the file sees that it is in use."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    with suppress(OSError):  # some file systems have no locks
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return descriptor


def pread_into(descriptor: int, into: memoryview, offset: int, path: Path) -> None:
    """Fill ``into`` from this place of the file at ``path``. Raises :class:`AlexNetError` if the file ends before."""
    while into:
        try:
            num = os.preadv(descriptor, [into], offset)
        except OSError as error:
            raise AlexNetError(f"{printable(path)}: cannot be read ({printable(error.strerror)}); {RESTORE}") from error
        if num == 0:
            raise AlexNetError(f"{printable(path)}: cut short since it was opened; {RESTORE}")
        into, offset = into[num:], offset + num


def read_arrays(
    path: Path, max_bytes: int | None = None, names: Container[str] | None = None, what: str = "a readable NumPy file"
) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file, or those called ``names``, by name. Unpacked they may have ``max_bytes``; by default no
    more than the file, so that nothing is compressed, as in what this program writes. Nothing is unpickled. Raises
    :class:`AlexNetError` naming the file, and ``what`` it is not."""
    import numpy as np

    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("not a regular file")
        limit = status.st_size if max_bytes is None else max_bytes
        with ZipFile(path) as archive:
            members = [(member.filename.removesuffix(".npy"), member) for member in archive.infolist()]
            members = [(name, member) for name, member in members if names is None or name in names]
            if max_bytes is None and any(member.compress_type != ZIP_STORED for _, member in members):
                raise ValueError("compressed members, which this program does not write")
            if sum(member.file_size for _, member in members) > limit:
                raise ValueError(f"unpacked more than {limit:,} bytes")
            arrays: dict[str, NDArray[Any]] = {}
            for name, member in members:
                with archive.open(member) as content, warnings.catch_warnings():
                    warnings.simplefilter("error")
                    arrays[name] = np.lib.format.read_array(content, allow_pickle=False)
            return arrays
    except FileNotFoundError:
        raise AlexNetError(f"{printable(path)}: no such file; name another, or make it again") from None
    except Exception as error:
        raise AlexNetError(f"{printable(path)}: not {what} ({_said(error)}); {RESTORE}") from error


def _said(error: Exception) -> str:
    """What NumPy or zipfile says, on one line, without its hint at how to unpickle."""
    text = in_short(error)
    return "it holds Python objects, which are never read" if "pickle" in text else text


def fsync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def run_being_replaced(path: Path) -> Path | None:
    """The run at ``path``, or around it, in which a ``--fresh`` start, under way or killed, has no checkpoint yet: the earlier
    run still counts. None if there is none."""
    for run in (path, *path.parents[:2]):
        begun = (run / REPLACED).is_dir() and not (run / "checkpoint" / "last").is_file()
        if begun or (run / REPLACING).is_dir():
            return run
    return None


def standing(path: Path) -> Path:
    """Where a run, or what lies in it, is to be read: in the hidden folder while the run is being replaced, else where it is
    named. :class:`AlexNetError` where its files were being moved."""
    run = run_being_replaced(path)
    if run is None or REPLACED in path.parts:
        return path
    if (run / REPLACING).is_dir():
        raise AlexNetError(
            f"{printable(run)}: a start with --fresh was cut off while it moved the files of the earlier run; "
            f"`alexnet report {printable(run)}` puts them back"
        )
    waiting = run / REPLACED / path.relative_to(run)
    return waiting if waiting.exists() else path


def cache_folder(cache: str | Path | None = None) -> Path:
    """``cache``, ``$ALEXNET_CACHE``, ``$XDG_CACHE_HOME/alexnet`` or ``~/.cache/alexnet``, where what was computed once is looked
    for. As its standard asks, an XDG_CACHE_HOME that is not absolute counts for nothing. Raises :class:`AlexNetError` for a
    user without a home folder."""
    if named := cache or os.environ.get("ALEXNET_CACHE"):
        return Path(named)
    if (caches := Path(os.environ.get("XDG_CACHE_HOME", ""))).is_absolute():
        return caches / "alexnet"
    try:
        return Path.home() / ".cache" / "alexnet"
    except RuntimeError:
        raise AlexNetError("this user has no home folder to keep a cache in; set ALEXNET_CACHE to a folder") from None


def writable_cache(what: str, cache: str | Path | None = None, instead: str = "") -> Path:
    """The cache folder, made if need be. Raises :class:`AlexNetError` that says ``what`` cannot be kept where, how to choose
    another place, and what else can be done ``instead``."""
    remedy = f"set ALEXNET_CACHE to a folder that can be written{instead}"
    try:
        folder = cache_folder(cache)
    except AlexNetError:
        raise AlexNetError(f"{what} is kept in a cache, and this user has no home folder for one; {remedy}") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        why = printable(error.strerror or error)
        raise AlexNetError(
            f"{what} is kept in the cache {printable(folder)}, which cannot be written ({why}); {remedy}"
        ) from error
    return folder


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
