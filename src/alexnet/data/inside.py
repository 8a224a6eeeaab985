"""Pictures in an archive or a Parquet file, which have paths as if it were a folder: ``photos.zip/cat/1.jpg``.

What such a file holds is listed once and kept, for the last few of them: a compressed tar is unpacked to be listed.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from alexnet.core.errors import DataError, ImageError, printable, refused
from alexnet.data.archives import is_archive, list_archive
from alexnet.data.decode import file_stamp
from alexnet.data.folder import Found, is_image, without_second_kinds
from alexnet.data.parquet import SUFFIX, parquet_records
from alexnet.data.sources import Record

KEPT_LISTS = 4
"""Files whose lists are kept, with what compressed tars among them unpack to."""
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", SUFFIX)
_LISTING = threading.Lock()


def holds_pictures(path: str | Path) -> bool:
    """Whether a file is an archive or a Parquet file."""
    path = Path(path)
    try:
        return path.is_file() and (path.suffix.lower() == SUFFIX or is_archive(path))
    except (DataError, OSError, ValueError):  # it cannot be read, which decoding it says
        return False


def members(container: str | Path) -> Mapping[str, Record]:
    """All pictures of an archive, whatever its folders are, or the rows of a Parquet file, by their names in it and in the order
    of these. Raises :class:`DataError` for one that is damaged or holds no pictures."""
    try:
        stamp = file_stamp(os.stat(container))  # noqa: PTH116
    except OSError as error:
        raise DataError(refused(error, container)) from error
    with _LISTING:  # two threads would unpack it twice
        return _members(os.path.abspath(container), stamp)  # noqa: PTH100, which keeps links


@lru_cache(maxsize=KEPT_LISTS)
def _members(file: str, stamp: str) -> Mapping[str, Record]:
    path = Path(file)
    if path.suffix.lower() == SUFFIX:
        rows = parquet_records([Found(path.name, file, stamp=stamp)])
        return {record.name.removeprefix(f"{path.name}/"): record for record in rows}
    listing = list_archive(path)
    if listing.faults:
        fault = listing.faults[0]
        raise DataError(f"{printable(path)}: {printable(fault.path)}: {fault.reason}")
    images, _ = without_second_kinds([*filter(is_image, listing.files)])
    if not images:
        packed = next((found.name for found in listing.files if found.name.lower().endswith(_ARCHIVES)), None)
        other = "name another one" if packed is None else f"unpack it and name {printable(packed)}, which lies in it"
        raise DataError(f"{printable(path)}: no image files in this archive; {other}")
    return {
        found.name: Record(
            "train", 0, found.name, found.file, found.offset, found.length, stamp=found.stamp, inside=found.inside
        )
        for found in images
    }


def record_at(path: str | Path) -> Record | None:
    """The picture at a path that leads into an archive or a Parquet file; None for another path. :class:`ImageError` where the
    archive is damaged or has no such picture."""
    container = container_of(path)
    if container is None or not holds_pictures(container):
        return None
    try:
        return members(container)[_name_in(container, path)]
    except KeyError:
        raise ImageError(path, "missing", f"{printable(container)} holds no such picture") from None
    except DataError as error:
        raise ImageError(path, "damaged", str(error)) from error


def container_of(path: str | Path) -> str | None:
    """The file into which a path leads as if it were a folder; None for a path that leads into none."""
    for place in (path, *Path(path).parents):
        with suppress(OSError, ValueError):
            mode = os.stat(place).st_mode  # noqa: PTH116
            return str(place) if stat.S_ISREG(mode) and place is not path else None
    return None


def stamp_of(path: str) -> tuple[int, int] | None:
    """Bytes and time of the last change, in ns, of a file, or of the one that holds it; None where neither is there."""
    try:
        status = os.stat(path)  # noqa: PTH116, of a million files
    except (OSError, ValueError):
        container = container_of(path)
        return None if container is None else stamp_of(container)
    return status.st_size, status.st_mtime_ns


def is_there(path: str, stamp: tuple[int, int]) -> bool:
    """Whether a file is there, or, in an archive or a Parquet file, its picture: that is looked for where it is not the one of
    this ``stamp``. Raises :class:`DataError` for one that is damaged."""
    found = stamp_of(path)
    if found is None or found == stamp or (container := container_of(path)) is None:
        return found is not None
    return _name_in(container, path) in members(container)


def _name_in(container: str, path: str | Path) -> str:
    return Path(path).relative_to(container).as_posix()
