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

_IMAGE_SUFFIXES = frozenset(chain.from_iterable(SUFFIXES.values()))


@dataclass(frozen=True, slots=True)
class Found:
    """One file of a folder or tar."""

    name: str
    """Relative to the folder or tar, parts joined by "/"."""
    file: str
    offset: int = 0
    length: int | None = None
    stamp: str = ""
    """Size and modification time."""

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


def list_tar(path: Path) -> Listing:
    """The regular files of an uncompressed tar, by their place in it."""
    listing = Listing()
    for member in tar_members(path):
        name = str(PurePosixPath(member.name))
        if any(_is_hidden(part) for part in name.split("/")):
            listing.skipped["hidden file or folder"] += 1
        elif member.isdir():
            listing.folders.append(name)
        elif member.isreg() and not member.issparse():
            stamp = f"{member.size} {member.mtime}"
            listing.files.append(Found(name, str(path), member.offset_data, member.size, stamp))
        else:
            listing.skipped["link or special file in the tar"] += 1
    listing.files.sort(key=lambda found: found.name)
    return listing


def tar_members(path: Path, offset: int = 0) -> Iterator[tarfile.TarInfo]:
    """The members of the tar that begins at ``offset`` of a file; a tar may lie inside another."""
    if path.exists() and not path.is_file():
        raise DataError(f"{printable(path)}: not a regular file; a tar is read in place")
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    yield member
                    tar.members = []  # type: ignore[attr-defined]  # a million of them would stay in memory
    except tarfile.TarError as error:
        raise DataError(
            f"{printable(path)}: not a readable tar ({printable(error)}); decompress .gz, .xz or .bz2 first"
        ) from error
    except OSError as error:
        raise DataError(f"{printable(path)}: {error.strerror}") from error


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
    if PurePosixPath(found.name).suffix.lower() in _IMAGE_SUFFIXES:
        return True
    try:
        with open(found.file, "rb") as file:
            file.seek(found.offset)
            return looks_like_image(file.read(32))
    except OSError as error:
        return error.errno not in (errno.ENOENT, errno.ELOOP)


def _is_hidden(part: str) -> bool:
    return part.startswith(".") or part == "__MACOSX"


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
