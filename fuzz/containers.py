"""Damage to what an image file is made of: chunks, tags, segments or blocks that are missing, doubled, moved, exchanged or
changed inside, while lengths and checksums are right again. It goes past what finds broken bytes, into the code behind."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mutations import MAX_BYTES, mutate

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
TAGS = (
    254,
    256,
    257,
    258,
    259,
    262,
    266,
    273,
    274,
    277,
    278,
    279,
    284,
    305,
    317,
    318,
    320,
    322,
    323,
    324,
    325,
    330,
    332,
)
TAGS += (338, 339, 340, 347, 512, 513, 529, 530, 532, 700, 33432, 34377, 34665, 34675, 34853, 40965, 50706, 65000)
"""Of TIFF: those that decide how pixels are read, and those that lead elsewhere."""


class Part(NamedTuple):
    name: bytes
    content: bytes


class Parts(NamedTuple):
    """A file taken apart, and how it is put together again, with its own lengths and checksums."""

    parts: list[Part]
    join: Callable[[Sequence[Part]], bytes]


def mutate_parts(data: bytes, draw: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """``data``, an image file, with one to four of its parts damaged; one that has no parts is damaged as bytes."""
    parts, join = take_apart(data)
    if not parts:
        return mutate(data, draw, others)
    foreign = take_apart(draw.choice(others)).parts if others and draw.random() < 0.2 else []
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        parts = draw.choice(_KINDS)(parts, draw, foreign) or parts
    return join(parts)[:MAX_BYTES]


def take_apart(data: bytes) -> Parts:
    """The parts of a sound PNG, JPEG, WebP, GIF, TIFF, AVIF or HEIC file; of others none."""
    if data.startswith(PNG_MAGIC):
        return Parts(list(_png_chunks(data)), _join_png)
    if data.startswith(b"\xff\xd8"):
        return Parts(list(_jpeg_segments(data)), _join_jpeg)
    if data[:4] == b"RIFF":
        return Parts(list(_riff_chunks(data)), _join_riff)
    if data.startswith(b"GIF8"):
        head = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
        return Parts(
            list(_gif_blocks(data, head)), lambda parts: data[:head] + b"".join(n + c for n, c in parts) + b";"
        )
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _tiff_tags(data)
    if data[4:8] == b"ftyp":
        return Parts(list(_boxes(data)), _join_boxes)
    return Parts([], bytes)


# --- the formats ------------------------------------------------------------------------------------------------------


def _png_chunks(data: bytes) -> list[Part]:
    parts, at = [], 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        parts.append(Part(data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return parts


def _join_png(parts: Sequence[Part]) -> bytes:
    chunks = (struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in parts)
    return PNG_MAGIC + b"".join(chunks)


def _jpeg_segments(data: bytes) -> list[Part]:
    """Markers with what their length covers; coded data is a part without a name."""
    parts, at = [], 2
    while at < len(data):
        start = at
        while at < len(data) and not (data[at] == 0xFF and data[at + 1] not in (0, *range(0xD0, 0xD8))):
            at += 1
        if at > start:
            parts.append(Part(b"", data[start:at]))
        if at < len(data):
            name, at = data[at : at + 2], at + 2
            length = 0 if name == b"\xff\xd9" else struct.unpack_from(">H", data, at)[0]
            parts.append(Part(name, data[at + 2 : at + length]))
            at += length
    return parts


def _join_jpeg(parts: Sequence[Part]) -> bytes:
    segments = (
        name + content
        if name in (b"", b"\xff\xd9")
        else name + struct.pack(">H", min(len(content), 65533) + 2) + content
        for name, content in parts
    )
    return b"\xff\xd8" + b"".join(segments)


def _riff_chunks(data: bytes) -> list[Part]:
    parts, at = [], 12
    while at + 8 <= len(data):
        (length,) = struct.unpack_from("<I", data, at + 4)
        parts.append(Part(data[at : at + 4], data[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    return parts


def _join_riff(parts: Sequence[Part]) -> bytes:
    body = b"WEBP" + b"".join(n + struct.pack("<I", len(c)) + c + b"\0" * (len(c) % 2) for n, c in parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _gif_blocks(data: bytes, at: int) -> list[Part]:
    """Extensions, and images with their tables."""
    parts = []
    while at < len(data) and data[at : at + 1] in (b"!", b","):
        start, fixed = at, 2
        if data[at : at + 1] == b",":
            fixed = 11 + (3 << (data[at + 9] & 7) + 1 if data[at + 9] & 0x80 else 0)
        at += fixed
        while data[at]:
            at += 1 + data[at]
        at += 1
        parts.append(Part(data[start : start + fixed], data[start + fixed : at]))
    return parts


def _tiff_tags(data: bytes) -> Parts:
    """The entries of the first directory. Changed, it is written behind the file, where it may have more of them."""
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    entries = [data[start + 2 + 12 * i : start + 14 + 12 * i] for i in range(count)]
    following = data[start + 2 + 12 * count :][:4]

    def join(parts: Sequence[Part]) -> bytes:
        head = data[:4] + struct.pack(order + "I", len(data)) + data[8:]
        body = b"".join((name + content).ljust(12, b"\0")[:12] for name, content in parts)
        return head + struct.pack(order + "H", len(parts)) + body + following

    return Parts([Part(entry[:2], entry[2:]) for entry in entries], join)


def _boxes(data: bytes, inside: bytes = b"") -> list[Part]:
    """The boxes of an AVIF or HEIC file, those inside of others behind these: of ``meta``, which says what there is, and of
    ``iprp`` and ``ipco``, its properties. A name is that of the box behind those of the boxes around it."""
    parts, at = [], 0
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        content = data[at + 8 : at + length]
        if name in _AROUND:
            head = _AROUND[name]
            parts += [Part(inside + name, content[:head]), *_boxes(content[head:], inside + name)]
        else:
            parts.append(Part(inside + name, content))
        at += max(length, 8)
    return parts


_AROUND = {b"meta": 4, b"iprp": 0, b"ipco": 0}
"""Boxes around boxes, and the bytes that each has in front of them."""


def _join_boxes(parts: Sequence[Part], depth: int = 0) -> bytes:
    """Boxes that follow the one around them lie in it."""
    out, at = b"", 0
    while at < len(parts):
        name, content = parts[at]
        at += 1
        if name[4 * depth :][:4] in _AROUND and len(name) == 4 * depth + 4:
            start = at
            while at < len(parts) and len(parts[at].name) > len(name):
                at += 1
            content += _join_boxes(parts[start:at], depth + 1)
        out += struct.pack(">I", len(content) + 8) + name[-4:].rjust(4, b"\0") + content
    return out


# --- the kinds of damage ----------------------------------------------------------------------------------------------

Kind = Callable[[list[Part], random.Random, list[Part]], list[Part]]


def _drop(parts: list[Part], draw: random.Random, _: list[Part]) -> list[Part]:
    at = draw.randrange(len(parts))
    return parts[:at] + parts[at + 1 :]


def _double(parts: list[Part], draw: random.Random, _: list[Part]) -> list[Part]:
    at, to = draw.randrange(len(parts)), draw.randrange(len(parts) + 1)
    return parts[:to] + [parts[at]] * draw.choice((1, 1, 2, 50)) + parts[to:]


def _move(parts: list[Part], draw: random.Random, _: list[Part]) -> list[Part]:
    parts = list(parts)
    part = parts.pop(draw.randrange(len(parts)))
    parts.insert(draw.randrange(len(parts) + 1), part)
    return parts


def _change(parts: list[Part], draw: random.Random, _: list[Part]) -> list[Part]:
    at = draw.randrange(len(parts))
    name, content = parts[at]
    return [*parts[:at], Part(name, mutate(content, draw)), *parts[at + 1 :]]


def _rename(parts: list[Part], draw: random.Random, _: list[Part]) -> list[Part]:
    """To what another part is called, or, of a TIFF tag, to one that is known to matter."""
    at, name = draw.randrange(len(parts)), draw.choice(parts).name
    if len(name) == 2 and name[0] != 0xFF and draw.random() < 0.7:
        name = struct.pack(draw.choice("<>") + "H", draw.choice(TAGS))
    return [*parts[:at], Part(name, parts[at].content), *parts[at + 1 :]]


def _exchange(parts: list[Part], draw: random.Random, _: list[Part]) -> list[Part]:
    """The contents of two parts."""
    parts = list(parts)
    a, b = draw.randrange(len(parts)), draw.randrange(len(parts))
    parts[a], parts[b] = Part(parts[a].name, parts[b].content), Part(parts[b].name, parts[a].content)
    return parts


def _add(parts: list[Part], draw: random.Random, foreign: list[Part]) -> list[Part]:
    """A part of another file."""
    if not foreign:
        return _double(parts, draw, foreign)
    at = draw.randrange(len(parts) + 1)
    return [*parts[:at], draw.choice(foreign), *parts[at:]]


_KINDS: tuple[Kind, ...] = (_drop, _double, _move, _change, _change, _change, _rename, _exchange, _add)
