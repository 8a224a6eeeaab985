"""Sets of images in one file: tar archives, compressed or not, and zip archives. Nothing is extracted by its name.

A tar and a zip archive are read in place. A compressed tar has no places to read from: it is unpacked once, into a temporary file
without a name that is gone when the last who reads it is.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import struct
import tarfile
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from alexnet.core.errors import DataError, ImageError, in_short, printable, refused
from alexnet.data.decode import MAX_FILE_BYTES, file_stamp
from alexnet.data.folder import Found, Listing, arrange, is_hidden
from alexnet.data.sources import Container, Fault, Source, part_of

TAR_END_BYTES = 64 << 20
"""Bytes behind the end of a tar that are searched for more files."""
MAX_RATIO = 100
"""A compressed tar may unpack to so many times its bytes; photographs hardly shrink at all."""
ALWAYS_BYTES = 256 << 20
"""A small one may unpack to as much."""

_OF_ODD_HEADERS = (ValueError, OverflowError, MemoryError, RecursionError)
"""What ``tarfile`` and ``zipfile`` raise for impossible sizes, and for long chains of headers."""
_COMPRESSED: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
_MORE_ROOM = "set TMPDIR to a folder with more room, or unpack it and name the folder"
_ZIPS = (b"PK\3\4", b"PK\5\6")
_OTHERS = {
    b"7z\xbc\xaf\x27\x1c": "7-Zip archive",
    b"Rar!\x1a\x07": "RAR archive",
    b"\x28\xb5\x2f\xfd": "file compressed by Zstandard",
    b"\x1f\x9d": "file compressed by compress",
    b"\x04\x22\x4d\x18": "file compressed by LZ4",
    b"LZIP": "file compressed by lzip",
}
_LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Mark, length of the name, length of what else stands before the content."""
_ENCRYPTED, _UNICODE = 1, 0x800
_DEFLATED, _BZIP2 = 8, 12


def is_archive(path: Path) -> bool:
    """Whether a file is an archive: by its first bytes, or as a tar, which has no mark of its own, by its name."""
    return path.suffix.lower() == ".tar" or _start(path).startswith((*_ZIPS, *_COMPRESSED, *_OTHERS))


def image_archive(path: Path, seed: int = 0) -> Source:
    """The layouts of a folder of images inside an archive. Raises :class:`DataError` for one that is damaged."""
    return arrange(list_archive(path), printable(path), seed)


def list_archive(path: Path) -> Listing:
    """The regular files of an archive by the names that they have in it; of several of one name the last. Raises
    :class:`DataError` for an archive that is damaged, cut, encrypted as a whole, or of a kind that is not read."""
    start = _start(path)
    if start.startswith(_ZIPS):
        return list_zip(path)
    if other := next((name for mark, name in _OTHERS.items() if start.startswith(mark)), None):
        raise DataError(
            f"{printable(path)}: a {other}, which is not read; unpack it and name the folder, or pack it as .zip"
        )
    unpack = next((how for mark, how in _COMPRESSED.items() if start.startswith(mark)), None)
    return list_tar(path) if unpack is None else _list_compressed(path, unpack)


def _start(path: Path) -> bytes:
    if not path.is_file():  # a pipe would be waited for
        return b""
    try:
        with open(path, "rb") as file:
            return file.read(8)
    except OSError as error:
        raise DataError(refused(error, path)) from error


# --- what is listed of either kind ------------------------------------------------------------------------------------


class _Member(NamedTuple):
    """What an archive says of one of its members."""

    name: str
    kind: Literal["file", "folder", "hard link", "other"]
    offset: int = 0
    length: int = 0
    target: str = ""
    """Of a hard link, the name of the file that it is."""


def _listed(members: Iterable[_Member], path: Path, stamp: str, inside: Container | None = None) -> Listing:
    """The regular files among the members of an archive, of several of one name the last; ``inside`` reads them."""
    listing = Listing()
    files: dict[str, Found] = {}
    for member in members:
        parts = _parts(member.name)
        name = "/".join(parts)
        if any(is_hidden(part) and part != ".." for part in parts):
            listing.skipped["hidden file or folder"] += 1
        elif ".." in parts:
            listing.faults.append(Fault(name, "its name leads out of the archive; pack the folder again"))
        elif member.kind == "folder":
            listing.folders += [name] if parts else []
        elif member.kind == "file" and parts:
            if name in files:
                listing.skipped["earlier file of the same name in the archive"] += 1
            files[name] = Found(name, str(path), member.offset, member.length, stamp, inside=inside)
        elif member.kind == "hard link" and name not in files and (first := files.get("/".join(_parts(member.target)))):
            listing.twins.append(replace(first, name=name, twin_of=first.name))
        else:
            listing.skipped["link or special file in the archive"] += 1
    listing.files = sorted(files.values(), key=lambda found: found.name)
    return listing


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in ("", ".")]


# --- tar --------------------------------------------------------------------------------------------------------------


def list_tar(path: Path, offset: int = 0, size: int | None = None) -> Listing:
    """The regular files of an uncompressed tar, by their place in it; of members of one name the last, as ``tar`` unpacks
    them. ``offset``, ``size``: of a tar inside the file. Raises :class:`DataError` for one that is damaged or cut."""
    try:
        stamp = file_stamp(path.stat())
    except OSError as error:
        raise DataError(refused(error, path)) from error
    return _listed(map(_member_of_tar, tar_members(path, offset, size)), path, stamp)


def _member_of_tar(info: tarfile.TarInfo) -> _Member:
    if info.isreg() and not info.issparse():
        return _Member(info.name, "file", info.offset_data, info.size)
    if info.islnk():
        return _Member(info.name, "hard link", target=info.linkname)
    return _Member(info.name, "folder" if info.isdir() else "other")


def tar_members(path: Path, offset: int = 0, size: int | None = None) -> Iterator[tarfile.TarInfo]:
    """The members of the tar that begins at ``offset`` of a file and has ``size`` bytes (None: up to the end); a tar may lie
    inside another. Raises :class:`DataError` for one that is damaged or cut, at the latest behind its last member."""
    if path.exists() and not path.is_file():
        raise DataError(f"{printable(path)}: not a regular file; a tar is read in place")
    try:
        with open(path, "rb") as file:
            end = os.fstat(file.fileno()).st_size if size is None else offset + size
            yield from _members(file, offset, end, path)
    except OSError as error:
        raise DataError(refused(error, path)) from error


def _members(file: BinaryIO, offset: int, end: int, path: Path) -> Iterator[tarfile.TarInfo]:
    try:
        file.seek(offset)
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                if member.size < 0 or not member.offset_data <= tar.offset <= end:
                    raise tarfile.ReadError(f"the file at byte {member.offset:,} of it is cut, or has a wrong size")
                yield member
                tar.members = []  # type: ignore[attr-defined]  # a million of them would stay in memory
            _check_end_of_tar(file, tar.offset, end)
    except (tarfile.TarError, *_OF_ODD_HEADERS) as error:
        said = in_short(error)
        raise DataError(f"{printable(path)}: not a readable tar ({said}); get it again") from error


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


# --- compressed tar ---------------------------------------------------------------------------------------------------


class _Unpacked:
    """A tar that was compressed, in a temporary file, which is closed with the last record that lies in it."""

    def __init__(self, file: BinaryIO) -> None:
        self._descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._descriptor)

    def read(self, offset: int, length: int | None, name: str) -> bytes:
        data = os.pread(self._descriptor, length or 0, offset)
        if len(data) != length:
            raise ImageError(name, "truncated", "the archive ends inside it")
        return data


def _list_compressed(path: Path, unpack: Callable[[BinaryIO], Any]) -> Listing:
    try:
        with open(path, "rb") as packed, tempfile.TemporaryFile() as file:
            stamp = file_stamp(os.fstat(packed.fileno()))
            _require_room(packed, file, path)
            _unpack(packed, unpack, file, path)
            members = map(_member_of_tar, _members(file, 0, file.tell(), path))
            return _listed(members, path, stamp, _Unpacked(file))
    except OSError as error:
        raise DataError(refused(error, path)) from error


def _require_room(packed: BinaryIO, file: BinaryIO, path: Path) -> None:
    """Refuse before the work what would fill the disk: a tar has at least the bytes that it is compressed to, and gzip says how
    many it had, less a multiple of 4 GiB."""
    needed = os.fstat(packed.fileno()).st_size
    if needed > 4 and packed.read(2) == b"\x1f\x8b":
        packed.seek(-4, os.SEEK_END)
        needed = max(needed, int.from_bytes(packed.read(4), "little"))
    packed.seek(0)
    volume = os.fstatvfs(file.fileno())
    if needed > (free := volume.f_bavail * volume.f_frsize):
        raise DataError(
            f"{printable(path)}: unpacked it has {needed / 1e6:,.0f} MB or more, and {printable(tempfile.gettempdir())} has "
            f"{free / 1e6:,.0f} MB free; {_MORE_ROOM}"
        )


def _unpack(packed: BinaryIO, unpack: Callable[[BinaryIO], Any], file: BinaryIO, path: Path) -> None:
    most = max(ALWAYS_BYTES, MAX_RATIO * os.fstat(packed.fileno()).st_size)
    try:
        with unpack(packed) as stream:
            while data := stream.read(1 << 20):
                if file.tell() + len(data) > most:
                    raise DataError(
                        f"{printable(path)}: unpacks to more than {most:,} bytes, {MAX_RATIO} times its size; unpack it and name "
                        "the folder, if you trust it"
                    )
                _write(file, data, path)
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        said = printable(error)[:150]
        raise DataError(f"{printable(path)}: damaged or cut ({said}); get it again") from error


def _write(file: BinaryIO, data: bytes, path: Path) -> None:
    try:
        file.write(data)
        file.flush()
    except OSError as error:
        raise DataError(
            f"{printable(path)}: unpacked it does not fit into {printable(tempfile.gettempdir())} ({error.strerror}); "
            f"{_MORE_ROOM}"
        ) from error


# --- zip --------------------------------------------------------------------------------------------------------------


class _Packed(NamedTuple):
    method: int
    packed_bytes: int
    crc32: int
    encrypted: bool


@dataclass(frozen=True, eq=False)
class _Zip:
    """A zip archive; a member is known by the place of its header."""

    path: str
    stamp: str
    members: Mapping[int, _Packed]

    def read(self, offset: int, length: int | None, name: str) -> bytes:
        method, packed_bytes, crc32, encrypted = self.members[offset]
        if encrypted:
            raise ImageError(
                name, "unsupported format", "encrypted; unpack the archive with its password, and name the folder"
            )
        if length is None or max(length, packed_bytes) > MAX_FILE_BYTES:
            raise ImageError(name, "too large", f"at most {MAX_FILE_BYTES:,} bytes")
        with part_of(self.path, self.stamp, name) as file:
            file.seek(offset)
            header = file.read(_LOCAL_HEADER.size)
            if len(header) < _LOCAL_HEADER.size or header[:4] != _ZIPS[0]:
                raise ImageError(name, "damaged", "the archive has no file where it says so")
            file.seek(sum(_LOCAL_HEADER.unpack(header)[1:]), os.SEEK_CUR)
            data = _inflated(file.read(packed_bytes), method, length, name)
        if len(data) != length or zlib.crc32(data) != crc32:
            raise ImageError(name, "damaged", "it has not the size or the checksum that the archive says")
        return data


def _inflated(packed: bytes, method: int, length: int, name: str) -> bytes:
    """At most one byte more than ``length``, whatever the content unpacks to."""
    try:
        if method == zipfile.ZIP_STORED:
            return packed
        if method == _DEFLATED:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, length + 1)
        if method == _BZIP2:
            return bz2.BZ2Decompressor().decompress(packed, length + 1)
    except (zlib.error, OSError, EOFError) as error:
        raise ImageError(name, "damaged", printable(error)) from error
    raise ImageError(
        name, "unsupported format", f"compressed by method {method} of zip; pack it again by the usual one"
    )


def list_zip(path: Path) -> Listing:
    """The regular files of a zip archive. Names that do not say how they are coded are UTF-8 or, if they all can be, GBK, as
    programs in China write them, else code page 437. Raises :class:`DataError` for an archive that is damaged or cut."""
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            stamp, infos = file_stamp(os.fstat(file.fileno())), archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, struct.error, EOFError, *_OF_ODD_HEADERS) as error:
        said = in_short(error)
        raise DataError(f"{printable(path)}: not a readable zip archive ({said}); get it again") from error
    except OSError as error:
        raise DataError(refused(error, path)) from error
    _refuse_overlaps(infos, path)
    if (files := [info for info in infos if not info.is_dir()]) and all(i.flag_bits & _ENCRYPTED for i in files):
        raise DataError(f"{printable(path)}: encrypted; unpack it with its password, and name the folder")
    packed = {
        i.header_offset: _Packed(i.compress_type, i.compress_size, i.CRC, bool(i.flag_bits & _ENCRYPTED)) for i in infos
    }
    return _listed(map(_member_of_zip, infos, _names(infos)), path, stamp, _Zip(str(path), stamp, packed))


def _member_of_zip(info: zipfile.ZipInfo, name: str) -> _Member:
    name = name.replace("\\", "/")
    regular = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
    kind: Literal["file", "folder", "other"] = "folder" if name.endswith("/") else "file" if regular else "other"
    return _Member(name, kind, info.header_offset, info.file_size)


def _refuse_overlaps(infos: Iterable[zipfile.ZipInfo], path: Path) -> None:
    for first, second in pairwise(sorted(infos, key=lambda info: info.header_offset)):
        if first.header_offset + _LOCAL_HEADER.size + first.compress_size > second.header_offset:
            raise DataError(
                f"{printable(path)}: {printable(first.filename)} and {printable(second.filename)} in it overlap, as in an "
                "archive that is made to unpack without end; get it again"
            )


def _names(infos: Iterable[zipfile.ZipInfo]) -> list[str]:
    """The names of members. ``zipfile`` reads those that do not say that they are UTF-8 as code page 437, which has a character
    for each byte."""
    infos = list(infos)
    raw = [b"" if info.flag_bits & _UNICODE else info.orig_filename.encode("cp437", "replace") for info in infos]
    coding = next((coding for coding in ("utf-8", "gbk") if _all_are(raw, coding)), "cp437")
    return [
        (name.decode(coding) if name else info.orig_filename).split("\0")[0]
        for name, info in zip(raw, infos, strict=True)
    ]


def _all_are(names: Iterable[bytes], coding: str) -> bool:
    """Whether names can be read so. What Western names happen to be in GBK are rare characters, which GB 2312 lacks."""
    try:
        text = "".join(name.decode(coding) for name in names)
    except UnicodeDecodeError:
        return False
    foreign = [character for character in text if not character.isascii()]
    return coding != "gbk" or len("".join(foreign).encode("gb2312", "ignore")) >= len(
        foreign
    )  # half of them, of two bytes
