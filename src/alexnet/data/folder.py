"""Folders of images, on disk or in an archive, as they are found; ``layout`` says which folders are splits and classes.

Classes are in the order of their names (by code point).
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path, PurePosixPath

from alexnet.core.errors import DataError, ImageError, as_text, printable
from alexnet.data.decode import NEWER, SUFFIXES, file_stamp, looks_like_image
from alexnet.data.layout import Layout, splits_of, understand
from alexnet.data.sources import (
    HELD_OUT_NOTE,
    SPLITS,
    Container,
    Fault,
    Record,
    Source,
    SplitName,
    fingerprint_of,
    hold_out,
)

_IMAGE_SUFFIXES = frozenset(chain.from_iterable(SUFFIXES.values()))
_NOBODYS = ("__MACOSX", "lost+found", "@eaDir")
"""Folders that systems make for themselves: macOS in archives, ext4, and Synology's previews of every image."""


@dataclass(frozen=True, slots=True)
class Found:
    """One file of a folder or archive."""

    name: str
    """Relative to the folder or archive, parts joined by "/"."""
    file: str
    offset: int = 0
    length: int | None = None
    stamp: str = ""
    """Size and modification time, of the archive if it lies in one."""
    twin_of: str = ""
    """The name by which the same file (by a hard or symbolic link) was found first."""
    inside: Container | None = None
    """What reads it, if it does not lie in ``file`` as it is."""

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self.name.split("/"))


@dataclass
class Listing:
    """What was found: files in the order of their names, folders, and a count of what was passed over."""

    files: list[Found] = field(default_factory=list)
    twins: list[Found] = field(default_factory=list)
    """Further names of these files, by hard and symbolic links."""
    folders: list[str] = field(default_factory=list)
    linked_folders: dict[str, str] = field(default_factory=dict)
    """Links to folders of this list, and the names by which these were found first."""
    skipped: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)


def image_folder(root: Path, seed: int = 0) -> Source:
    """The images below ``root``. Raises :class:`DataError` for what cannot be a classification set."""
    return arrange(walk(root), printable(root), seed)


def pictures(root: Path) -> Source:
    """Every image below ``root``, in whatever folders, to learn from without labels. Raises :class:`DataError` for none."""
    listing = walk(root)
    images, _ = without_second_kinds([found for found in listing.files if is_image(found)])
    if not images:
        raise DataError(
            f"{printable(root)}: no images among {len(listing.files):,} files; name a folder that holds some"
        )
    return Source(
        classes=["picture"],
        records=[Record("train", 0, as_text(found.name), found.file, stamp=found.stamp) for found in images],
        fingerprint=fingerprint_of("pictures", *(f"{found.name} {found.stamp}" for found in images)),
        not_images=len(listing.files) - len(images),
        notes=notes_on_skipped(listing, len(listing.twins)),
        held_out="source",
    )


def walk(root: Path) -> Listing:
    """Every regular file below ``root``, once: links are followed last, and lead nowhere twice. Hidden files, pipes and
    devices are counted and not opened."""
    listing = Listing()
    seen: dict[tuple[int, int], str] = {}
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
        first = seen.setdefault((status.st_dev, status.st_ino), name)
        if stat.S_ISREG(status.st_mode):
            found = Found(name, path, stamp=file_stamp(status), twin_of="" if first == name else first)
            (listing.files if first == name else listing.twins).append(found)
        elif is_folder and first != name:
            listing.skipped["second name of a folder"] += 1
            listing.linked_folders[name] = first
        elif not is_folder:
            listing.skipped["pipe, socket or device"] += 1
        else:
            if name:
                listing.folders.append(name)
            for entry in _entries(path):
                if is_hidden(entry.name):
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


def arrange(listing: Listing, where: str, seed: int) -> Source:
    """Splits and classes from the names of files. Raises :class:`DataError` for what is no set, or may be two."""
    files = sorted([*listing.files, *listing.twins], key=lambda found: found.name)
    claims = [found for found in files if is_image(found)]
    images, twins = without_second_kinds(claims)
    if not images:
        raise DataError(
            f"{where}: no images among {len(listing.files):,} files; expected train/CLASS/*.jpg and val/CLASS/*.jpg, "
            f"or CLASS/*.jpg{_formats_passed_over(files)}"
        )
    layout = understand(Counter(found.parts[:-1] for found in images), map(_parts, listing.folders), where)
    placed = [(layout.place(found.parts[layout.wrapping : -1]), found) for found in images]
    classes = sorted({at[1] for at, _ in placed if at}, key=as_text)
    if not classes:
        lists = sorted({found.name for found in files if found.name.lower().endswith(".csv")})
        hint = f", or name the list of them if it is one: {where}/{printable(lists[0])}" if lists else ""
        raise DataError(f"{where}: {len(images):,} images, but not in class folders; expected CLASS/*.jpg{hint}")
    number = {name: label for label, name in enumerate(classes)}
    records: dict[tuple[str, SplitName, str], Record] = {}  # each file once in a class of a split
    for at, found in placed:
        if at and (key := (found.twin_of or found.name, *at)) not in records:
            name = as_text("/".join(found.parts[layout.wrapping :]))
            place = found.file, found.offset, found.length
            records[key] = Record(at[0], number[at[1]], name, *place, stamp=found.stamp, inside=found.inside)
    ordered = sorted(records.values(), key=lambda record: (SPLITS.index(record.split), record.label, record.name))
    again = sum(at is not None for at, _ in placed) - len(records)
    stray = sum(at is None for at, _ in placed)
    notes = notes_on_skipped(listing, again)
    notes += [f"image beside the class folders: {stray} skipped"] if stray else []
    notes += [
        f"{count} {kind} file{'s' if count > 1 else ''} beside an image of the same name: skipped"
        for kind, count in sorted(twins.items())
    ]
    notes += [*layout.notes, *_notes_on_files_of_two_splits(records)]
    if others := Counter(_suffix(found) for found in files) - Counter(_suffix(found) for found in claims):
        notes.append(f"files that are not images: {_counted(others)}")
    only_train = all(record.split == "train" for record in ordered)
    if only_train:
        ordered = hold_out(ordered, seed)
        notes.append(HELD_OUT_NOTE)
    return Source(
        classes=[as_text(name) for name in classes],
        records=ordered,
        fingerprint=fingerprint_of("folder", seed, *(f"{found.name} {found.stamp}" for found in files)),
        not_images=len(files) - again - len(ordered),
        notes=notes,
        faults=[*listing.faults, *_linked_folders(listing, layout)],
        empty=_empty_classes(listing, layout, placed),
        held_out="hash" if only_train else "source",
    )


def notes_on_skipped(listing: Listing, again: int) -> list[str]:
    """What was passed over, with ``again`` further names of files."""
    skipped = listing.skipped + Counter({"second name of a file": again})
    return [f"{what}: {count} skipped" for what, count in sorted(skipped.items())]


def _parts(name: str) -> tuple[str, ...]:
    return tuple(name.split("/"))


def _empty_classes(
    listing: Listing, layout: Layout, placed: Sequence[tuple[tuple[SplitName, str] | None, Found]]
) -> list[Fault]:
    filled = {at for at, _ in placed}
    around = {found.parts[: layout.wrapping] for _, found in placed}
    return [
        Fault("/".join(inside), "class folder without images; add some or remove it")
        for parts in map(_parts, sorted(listing.folders))
        if (inside := parts[layout.wrapping :])
        and parts[: layout.wrapping] in around
        and layout.is_class_folder(inside)
        and layout.place(inside) not in filled
    ]


def _linked_folders(listing: Listing, layout: Layout) -> list[Fault]:
    """Splits, and classes of a split, that are links to folders of the set: as images are counted once, they seem empty."""
    return [
        Fault(
            name,
            f"a link to {printable(first)}, which is in the set already; put images here, or remove one of the two",
        )
        for name, first in listing.linked_folders.items()
        if first
        and () not in layout.heads
        and (
            layout.is_class_folder(inside := _parts(name)[layout.wrapping :])
            or (len(inside) == 1 and splits_of(inside))
        )
    ]


def _notes_on_files_of_two_splits(records: Mapping[tuple[str, SplitName, str], Record]) -> list[str]:
    """Files that lie in two splits by hard or symbolic links."""
    first: dict[str, Record] = {}
    pairs = [
        (record, other)
        for (file, _, _), record in records.items()
        if (other := first.setdefault(file, record)) != record
    ]
    across = [(a, b) for a, b in pairs if a.split != b.split]
    if not across:
        return []
    a, b = across[0]
    files = "file is" if len(across) == 1 else "files are"
    return [f"{len(across):,} {files} in two splits by links, as {a.name}, which is {b.name}"]


def _formats_passed_over(files: Sequence[Found]) -> str:
    return f"; found {_counted(Counter(map(_suffix, files)))}" if files else ""


def _suffix(found: Found) -> str:
    return as_text(PurePosixPath(found.name).suffix.lower()) or "without a suffix"


def _counted(suffixes: Mapping[str, int]) -> str:
    """``12 .txt, 3 .csv``: the most frequent first."""
    ordered = sorted(suffixes.items(), key=lambda item: (-item[1], item[0]))
    more = f" and {len(ordered) - 6} more kinds" if len(ordered) > 6 else ""
    return ", ".join(f"{count:,} {suffix}" for suffix, count in ordered[:6]) + more


def is_image(found: Found) -> bool:
    """Whether a file claims to be an image, by its name or else by its first bytes. One that is there and cannot be read
    counts as one, so that it is named and not passed over."""
    if has_image_suffix(found):
        return True
    try:
        if found.inside is not None and found.length is not None:
            data = found.inside.read(found.offset, found.length, found.name)
            return isinstance(data, bytes) and looks_like_image(data[:32])
        with open(found.file, "rb") as file:
            file.seek(found.offset)
            return looks_like_image(file.read(32))
    except ImageError:
        return True
    except OSError as error:
        return error.errno not in (errno.ENOENT, errno.ELOOP)


def without_second_kinds(images: Sequence[Found]) -> tuple[list[Found], Counter[str]]:
    """``images`` without files of a kind that is not read (camera raw, ...), or not everywhere (HEIC, AVIF, JPEG XL), beside
    one of the same name of another kind: the same photograph, as cameras and telephones write it. How many there were, by
    kind."""
    read = {_stem(found) for found in images if _second_kind(found) is None}
    kept, twins = [], Counter[str]()
    for found in images:
        kind = _second_kind(found)
        if kind is not None and _stem(found) in read:
            twins[kind] += 1
        else:
            kept.append(found)
    return kept, twins


def _stem(found: Found) -> str:
    return found.name[: len(found.name) - len(PurePosixPath(found.name).suffix)].casefold()


def _second_kind(found: Found) -> str | None:
    """The kind of image that the suffix names, if that kind is not read, or not everywhere; else None."""
    suffix = PurePosixPath(found.name).suffix.lower()
    if suffix in SUFFIXES["camera raw"]:
        return "camera raw"
    second = chain.from_iterable(SUFFIXES[kind] for kind in (*NEWER, "slide or stack", "other"))
    return suffix if suffix in second else None


def has_image_suffix(found: Found) -> bool:
    return PurePosixPath(found.name).suffix.lower() in _IMAGE_SUFFIXES


def is_hidden(part: str) -> bool:
    return part.startswith(".") or part in _NOBODYS
