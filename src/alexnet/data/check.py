"""Read a whole source or packed set without writing, and report what is wrong with it."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.core.errors import DataError, ImageError, refused
from alexnet.data.named import find_source
from alexnet.data.packed import SEAL, PackedSet, PackedSplit, is_packed, open_packed
from alexnet.data.pool import in_processes
from alexnet.data.prepare import Progress, white_of_set
from alexnet.data.rows import Rows
from alexnet.data.samples import Range, SampleMax
from alexnet.data.shards import decode
from alexnet.data.sources import Fault, Record, Source, SplitName, class_counts, class_faults, class_notes
from alexnet.data.twins import Item, Twin, packed_twins, twins

TINY_CLASS = 10
"""Training images below which a class is worth a note."""
_CHUNK = 64


def check(
    source: str | Path | Source | Rows,
    *,
    data_root: str | Path | None = None,
    cache: str | Path | None = None,
    workers: int | None = None,
    seed: int = 0,
    sample_max: SampleMax = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """``{"faults": [{"path": .., "reason": ..}], "notes": [..], "classes": [{"name": .., "train": 80, ..}]}`` of anything that
    can be prepared, or of a packed folder. Of the former also ``"found"``, counts: files = accepted + rejected + not_images.

    Faults: unreadable images, the same image in two splits (a leak) or in two classes (a label conflict), a class without
    training images or of which nothing can be read, damaged records. Notes, which harm nobody: the same image twice in a
    class, tiny classes, odd files, files passed over. Raises :class:`DataError` where there is nothing to read at all.
    """
    if not isinstance(source, Source):
        if isinstance(source, str | Path) and is_packed(Path(source)):
            return _check_packed(Path(source), progress)
        source = find_source(source, data_root=data_root, cache=cache, seed=seed)
    white = white_of_set(source, sample_max, workers)
    examined: list[_Examined] = []
    chunks = [source.records[i : i + _CHUNK] for i in range(0, len(source.records), _CHUNK)]
    for _, results in in_processes(partial(_examine, white), chunks, workers):
        examined += results
        if progress:
            progress(len(examined), len(source.records))
    examined.sort(key=lambda e: (e.split, e.name))
    faults = [*class_faults(source), *(Fault(e.name, e.fault) for e in examined if e.fault)]
    faults += _unreadable_classes(source, examined)
    wrong, duplicates = _equal(source, examined)
    dark = sum((e.wide for e in examined), Range()).notes(white)
    notes = [*dark, *source.notes, *class_notes(source), *duplicates, *_tiny_classes(source)]
    notes += [f"{e.name}: {remark}" for e in examined for remark in e.odd]
    rejected = sum(bool(e.fault) for e in examined)
    found = {
        "files": len(examined) + source.not_images,
        "accepted": len(examined) - rejected,
        "rejected": rejected,
        "not_images": source.not_images,
    }
    return _report([*faults, *wrong], notes) | {
        "found": found,
        "classes": _classes(source.classes, class_counts(source)),
    }


@dataclass(frozen=True)
class _Examined:
    split: SplitName
    label: int
    name: str
    digest: bytes
    """Hash of the file's bytes; empty if it could not be read."""
    pixels: bytes
    """Hash of its pixels, which files with different bytes may share; empty if it could not be decoded."""
    fault: str
    odd: Sequence[str]
    wide: Range


def _examine(sample_max: int | None, records: Sequence[Record]) -> list[_Examined]:
    examined = []
    for record in records:
        digest, pixels, fault, wide = b"", b"", "", Range()
        odd: list[str] = []
        try:
            data = record.read()
            digest = _digest(data if isinstance(data, bytes) else data.tobytes())
            image, odd = decode(record, data, sample_max)
            wide = Range.of(image)
            pixels = _digest(f"{image.mode} {image.size}".encode(), image.tobytes())
        except ImageError as error:
            fault = error.reason + (f" ({error.detail})" if error.detail else "")
        examined.append(_Examined(record.split, record.label, record.name, digest, pixels, fault, odd, wide))
    return examined


def _digest(*parts: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.digest()


def _unreadable_classes(source: Source, examined: Sequence[_Examined]) -> list[Fault]:
    listed = Counter((e.split, e.label) for e in examined)
    unreadable = Counter((e.split, e.label) for e in examined if e.fault)
    return [
        Fault(f"{split}/{source.classes[label]}", "class with no readable image")
        for (split, label), count in sorted(listed.items())
        if unreadable[split, label] == count
    ]


def _equal(source: Source, examined: Sequence[_Examined]) -> tuple[list[Fault], list[str]]:
    """Leaks and label conflicts between equal images, and groups of equal ones of one class and split."""
    groups: dict[bytes, list[_Examined]] = defaultdict(list)
    for e in examined:
        if e.pixels:
            groups[e.pixels].append(e)
    several = [group for group in groups.values() if len(group) > 1]
    bytes_of = {(e.split, e.name): e.digest for group in several for e in group}
    items = [[Item(e.split, e.label, e.name) for e in group] for group in several]

    def said(twin: Twin) -> str:
        item, other = twin.item, twin.other
        same = bytes_of[item.split, str(item.name)] == bytes_of[other.split, str(other.name)]
        return f"same {'bytes' if same else 'pixels'} as {other.name}: " + _consequence(twin, source.classes)

    notes = []
    for group in several:
        for split, label in sorted({(e.split, e.label) for e in group}):
            same = [e for e in group if (e.split, e.label) == (split, label)]
            if len(same) > 1:
                what = "bytes" if len({e.digest for e in same}) == 1 else "pixels"
                notes.append(f"same {what}: {', '.join(e.name for e in same)}")
    return [Fault(str(twin.item.name), said(twin)) for twin in twins(items)], notes


def _consequence(twin: Twin, classes: Sequence[str]) -> str:
    if twin.kind == "leak":
        return f"a leak between {twin.other.split} and {twin.item.split}"
    return f"a label conflict, here {classes[twin.item.label]} and there {classes[twin.other.label]}"


def _equal_packed(packed: PackedSet) -> list[Fault]:
    paths = {name: split.paths for name, split in packed.splits.items()}
    return [
        Fault(
            paths[twin.item.split][int(twin.item.name)],
            f"same pixels as {paths[twin.other.split][int(twin.other.name)]}: {_consequence(twin, packed.classes)}",
        )
        for twin in packed_twins(packed)
    ]


def _tiny_classes(source: Source) -> list[str]:
    counts = Counter(record.label for record in source.records if record.split == "train")
    return [
        f"class {name} has only {counts[label]} training image{'s' if counts[label] > 1 else ''}"
        for label, name in enumerate(source.classes)
        if 0 < counts[label] < TINY_CLASS
    ]


def _check_packed(folder: Path, progress: Progress | None) -> dict[str, Any]:
    try:
        packed = open_packed(folder)
    except DataError as error:
        return _report([Fault(str(folder), str(error))], [])
    except OSError as error:
        return _report([Fault(str(folder), refused(error, folder))], [])
    faults = _packed_faults(folder, packed, progress)
    return _report(faults or _equal_packed(packed), []) | {"classes": _classes(packed.classes, packed.class_counts)}


def _packed_faults(folder: Path, packed: PackedSet, progress: Progress | None) -> list[Fault]:
    faults = []
    total, done = sum(map(len, packed.splits.values())), 0
    for split in packed.splits.values():
        for start in range(0, len(split), _CHUNK):
            index_B = np.arange(start, min(start + _CHUNK, len(split)))
            faults += list(_damaged(split, index_B))
            done += len(index_B)
            if progress:
                progress(done, total)
    if not faults:
        for name in packed.meta["files"]:
            try:
                SEAL.require(folder, packed.meta, name)
            except (DataError, OSError) as error:
                faults.append(Fault(name, refused(error, folder / name) if isinstance(error, OSError) else str(error)))
    return faults


def _damaged(split: PackedSplit, index_B: np.ndarray[Any, np.dtype[np.int64]]) -> Iterator[Fault]:
    try:
        split.read(index_B)
    except DataError as error:
        if len(index_B) > 1:
            for index in index_B:
                yield from _damaged(split, np.array([index]))
        else:
            yield Fault(f"{split.name} image {index_B[0]}", str(error))


def _classes(names: Sequence[str], counts: Mapping[SplitName, Sequence[int]]) -> list[dict[str, Any]]:
    return [{"name": name, **{split: of[i] for split, of in counts.items()}} for i, name in enumerate(names)]


def _report(faults: Sequence[Fault], notes: Sequence[str]) -> dict[str, Any]:
    return {"faults": [asdict(fault) for fault in faults], "notes": list(notes)}
