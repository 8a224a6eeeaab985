"""Folders of class folders, on disk or in a tar file.

``train``, ``val`` and ``test`` folders of class folders, or class folders alone. The first folder below a split is the
class; whatever lies below it, however deep, belongs to it. Classes are in the order of their names (by code point).
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from alexnet.core.errors import DataError, printable
from alexnet.data.decode import SUFFIXES, file_stamp, looks_like_image
from alexnet.data.sources import (
    HELD_OUT_NOTE,
    SPLIT_NAMES,
    SPLITS,
    Fault,
    Record,
    Source,
    Split,
    fingerprint_of,
    hold_out,
)

TAR_END_BYTES = 64 << 20
"""How far behind the end of a tar it is looked whether there is more."""

_OF_ODD_HEADERS = (ValueError, OverflowError, MemoryError, RecursionError)
"""What ``tarfile`` raises for sizes that are none, and for long chains of headers."""

_IMAGE_SUFFIXES = frozenset(chain.from_iterable(SUFFIXES.values()))
_NOBODYS = ("__MACOSX", "lost+found", "@eaDir")
"""Folders that systems make for themselves: macOS in archives, ext4, and Synology's previews of every image."""


@dataclass(frozen=True, slots=True)
class Found:
    """One file of a folder or tar."""

    name: str
    """Relative to the folder or tar, parts joined by "/"."""
    file: str
    offset: int = 0
    length: int | None = None
    stamp: str = ""
    """Size and modification time, of the tar if it lies in one."""

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self.name.split("/"))


@dataclass
class Listing:
    """What was found: files in the order of their names, folders, and a count of what was passed over."""

    files: list[Found] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


def image_folder(root: Path, seed: int = 0) -> Source:
    """The images below ``root``. Raises :class:`DataError` for what cannot be a classification set."""
    return arrange(walk(root), printable(root), seed)


def image_tar(path: Path, seed: int = 0) -> Source:
    """The same layouts inside an uncompressed tar file, which is read in place."""
    return arrange(list_tar(path), printable(path), seed)


def walk(root: Path) -> Listing:
    """Every regular file below ``root``, once: links are followed last, and lead nowhere twice. Hidden files, pipes and
    devices are counted and not opened."""
    listing = Listing()
    seen: set[tuple[int, int]] = set()
    pending = deque([("", str(root))])
    while pending:
        name, path = pending.popleft()
        try:
            status = os.stat(path)  # noqa: PTH116  # a Path for each of a million files takes as long as the files do
        except OSError as error:  # a link that leads nowhere: reading it will say so
            if not name:
                raise DataError(f"{printable(root)}: {error.strerror}") from error
            listing.files.append(Found(name, path))
            continue
        is_folder = stat.S_ISDIR(status.st_mode)
        if (status.st_dev, status.st_ino) in seen:
            listing.skipped[f"second name of a {'folder' if is_folder else 'file'}"] += 1
            continue
        seen.add((status.st_dev, status.st_ino))
        if stat.S_ISREG(status.st_mode):
            listing.files.append(Found(name, path, stamp=file_stamp(status)))
        elif not is_folder:
            listing.skipped["pipe, socket or device"] += 1
        else:
            if name:
                listing.folders.append(name)
            for entry in _entries(path):
                if _is_hidden(entry.name):
                    listing.skipped["hidden file or folder"] += 1
                    continue
                push = pending.append if entry.is_symlink() else pending.appendleft
                push((f"{name}/{entry.name}" if name else entry.name, entry.path))
    listing.files.sort(key=lambda found: found.name)
    return listing


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        return sorted(os.scandir(folder), key=lambda entry: entry.name, reverse=True)
    except OSError as error:
        raise DataError(f"{printable(folder)}: cannot be listed ({error.strerror})") from error


def list_tar(path: Path, offset: int = 0, size: int | None = None) -> Listing:
    """The regular files of an uncompressed tar, by their place in it; of members of one name the last, as ``tar`` unpacks
    them. ``offset``, ``size``: of a tar inside the file. Raises :class:`DataError` for one that is damaged or cut."""
    listing = Listing()
    files: dict[str, Found] = {}
    try:
        stamp = file_stamp(path.stat())
    except OSError as error:
        raise DataError(f"{printable(path)}: {error.strerror}") from error
    for member in tar_members(path, offset, size):
        name = str(PurePosixPath(member.name))
        if any(_is_hidden(part) for part in name.split("/")):
            listing.skipped["hidden file or folder"] += 1
        elif member.isdir():
            listing.folders.append(name)
        elif member.isreg() and not member.issparse():
            if name in files:
                listing.skipped["earlier file of the same name in the tar"] += 1
            files[name] = Found(name, str(path), member.offset_data, member.size, stamp)
        else:
            listing.skipped["link or special file in the tar"] += 1
    listing.files = sorted(files.values(), key=lambda found: found.name)
    return listing


def tar_members(path: Path, offset: int = 0, size: int | None = None) -> Iterator[tarfile.TarInfo]:
    """The members of the tar that begins at ``offset`` of a file and has ``size`` bytes (None: up to the end); a tar may lie
    inside another. Raises :class:`DataError` for one that is damaged or cut, at the latest behind its last member."""
    if path.exists() and not path.is_file():
        raise DataError(f"{printable(path)}: not a regular file; a tar is read in place")
    try:
        with open(path, "rb") as file:
            end = os.fstat(file.fileno()).st_size if size is None else offset + size
            file.seek(offset)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    if member.size < 0 or not member.offset_data <= tar.offset <= end:
                        raise tarfile.ReadError(f"the file at byte {member.offset:,} of it is cut, or has a wrong size")
                    yield member
                    tar.members = []  # type: ignore[attr-defined]  # a million of them would stay in memory
                _check_end_of_tar(file, tar.offset, end)
    except (tarfile.TarError, *_OF_ODD_HEADERS) as error:
        said = printable(error)[:150] or type(error).__name__
        raise DataError(
            f"{printable(path)}: not a readable tar ({said}); get it again, or decompress .gz, .xz or .bz2 first"
        ) from error
    except OSError as error:
        raise DataError(f"{printable(path)}: {error.strerror}") from error


def _check_end_of_tar(file: BinaryIO, at: int, end: int) -> None:
    """Raise unless a tar ends ``at`` this byte: ``tarfile`` takes a damaged header for the end, and a tar that was cut
    between two files for a whole one. There must be a block of zeros (two by the standard, but not all write them), and
    nothing else behind it."""
    file.seek(at)
    left = min(end - at, TAR_END_BYTES)
    if left < tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f"cut short at byte {at:,}: there is no end mark")
    for start in range(at, at + left, 1 << 16):
        if file.read(min(1 << 16, at + left - start)).strip(b"\0"):
            raise tarfile.ReadError(f"damaged at byte {at:,}, or two tars joined without tar -A")


def arrange(listing: Listing, where: str, seed: int) -> Source:
    """Splits and classes from the names of files."""
    files, folders = _below_common_folder(listing)
    images = [found for found in files if is_image(found)]
    if not images:
        raise DataError(
            f"{where}: no images among {len(files):,} files; expected train/CLASS/*.jpg and val/CLASS/*.jpg, or CLASS/*.jpg"
        )
    has_splits = any(found.parts[0].lower() in SPLIT_NAMES for found in images if len(found.parts) > 1)
    depth = 2 if has_splits else 1  # folders above an image: split and class, or class

    def place(parts: tuple[str, ...]) -> tuple[Split, str] | None:
        if len(parts) < depth:
            return None
        split = SPLIT_NAMES.get(parts[0].lower()) if has_splits else "train"
        return (split, parts[depth - 1]) if split else None

    placed = [(place(found.parts[:-1]), found) for found in images]
    classes = sorted({at[1] for at, _ in placed if at})
    if not classes:
        raise DataError(f"{where}: {len(images):,} images, but not in class folders; expected CLASS/*.jpg")
    filled = {at for at, _ in placed if at}
    empty = [
        name
        for name in sorted(folders)
        if name.count("/") == depth - 1 and (at := place(tuple(name.split("/")))) and at not in filled
    ]
    number = {name: label for label, name in enumerate(classes)}
    records = [
        Record(at[0], number[at[1]], f.name, f.file, f.offset, f.length, stamp=f.stamp) for at, f in placed if at
    ]
    records.sort(key=lambda record: (SPLITS.index(record.split), record.label, record.name))
    notes = [f"{what}: {count} skipped" for what, count in sorted(listing.skipped.items())]
    if stray := len(images) - len(records):
        notes.append(f"image beside the class folders: {stray} skipped")
    if all(record.split == "train" for record in records):
        records = hold_out(records, seed)
        notes.append(HELD_OUT_NOTE)
    return Source(
        classes=classes,
        records=records,
        fingerprint=fingerprint_of("folder", seed, *(f"{found.name} {found.stamp}" for found in files)),
        not_images=len(files) - len(records),
        notes=notes,
        faults=[Fault(name, "class folder without images; add some or remove it") for name in empty],
    )


def is_image(found: Found) -> bool:
    """Whether a file claims to be an image, by its name or else by its first bytes. One that is there and cannot be read
    counts as one, so that it is named and not passed over."""
    if has_image_suffix(found):
        return True
    try:
        with open(found.file, "rb") as file:
            file.seek(found.offset)
            return looks_like_image(file.read(32))
    except OSError as error:
        return error.errno not in (errno.ENOENT, errno.ELOOP)


def has_image_suffix(found: Found) -> bool:
    return PurePosixPath(found.name).suffix.lower() in _IMAGE_SUFFIXES


def _is_hidden(part: str) -> bool:
    return part.startswith(".") or part in _NOBODYS


def _below_common_folder(listing: Listing) -> tuple[list[Found], list[str]]:
    """Files and folders by their names below the one folder that holds everything, if it is no class and no split:
    archives often come wrapped like that."""
    tops = {found.parts[0] for found in listing.files if "/" in found.name}
    top = next(iter(tops), "")
    wrapped = any(len(found.parts) > 2 for found in listing.files)
    beside = any("/" not in found.name and is_image(found) for found in listing.files)
    if len(tops) != 1 or top.lower() in SPLIT_NAMES or not wrapped or beside:
        return listing.files, listing.folders
    prefix = top + "/"
    files = [replace(f, name=f.name.removeprefix(prefix)) for f in listing.files]
    return files, [name.removeprefix(prefix) for name in listing.folders if name.startswith(prefix)]
