"""ImageNet as people have it.

- **ILSVRC tars**: a folder with ``ILSVRC2012_img_train.tar`` (a tar of class tars), ``ILSVRC2012_img_val.tar`` and the
  development kit, anywhere below; likewise ``ILSVRC2010_images_train.tar``, ``..._val.tar`` and ``..._test.tar``,
  whose test labels are public. Everything is read in place. Extracted folders of the same names do as well.
- **Kaggle**: the folder that holds ``ILSVRC/Data/CLS-LOC`` and ``LOC_val_solution.csv``.
- **Whole ImageNet**: a folder of class tars ``n01440764.tar``; half of each class is held out, by a hash of seed and
  name, as the paper did with the Fall 2009 release (§6).

A class is named by its wnid (WordNet id) and, where the words are known, the first of them: "n01440764 tench". Classes
are in the order of their wnids, the order of Caffe and torchvision; the development kit's own numbering (ILSVRC id) is
another.
"""

from __future__ import annotations

import csv
import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import Any

from alexnet.core.errors import AlexNetError, DataError, printable
from alexnet.core.runs import read_file
from alexnet.data.archives import list_tar, tar_members
from alexnet.data.folder import Found, Listing, has_image_suffix, is_image, notes_on_skipped, walk
from alexnet.data.sources import HELD_OUT_BY_HASH, VAL_FRACTION, Record, Source, SplitName, fingerprint_of, hold_out

_WNID = re.compile(r"n\d{8}")
_ID = re.compile(r"[0-9]{1,6}")
_NUMBERED = re.compile(r"ILSVRC(?:2010|2012)_(val|test)_(\d{8})\.JPEG", re.IGNORECASE)
_ILSVRC = re.compile(r"ILSVRC20\d\d_(img|images)_(train|val|test)(\.tar)?|LOC_val_solution\.csv|n\d{8}\.tar")
_TRAIN_TAR = re.compile(r"ILSVRC20\d\d_(img|images)_train\.tar")
_HELD_OUT_TAR = re.compile(r"ILSVRC20\d\d_(img|images)_(val|test)\.tar")
MAX_DEVKIT_BYTES = 1 << 24
"""Limit of meta.mat, and of what is unpacked from it."""
_DEVKIT = re.compile(r"meta\.mat|map_clsloc\.txt|ILSVRC20\d\d_(validation|test)_ground_truth\.txt|LOC_.*\.(csv|txt)")


@dataclass(frozen=True)
class Synset:
    """One class of a development kit."""

    ilsvrc_id: int
    wnid: str
    words: str
    """Synonyms, separated by commas."""


def is_imagenet(folder: Path) -> bool:
    """Whether a folder holds one of the forms above. A plain ``train``, ``val`` tree of class folders is none of
    them."""
    return (
        any(_ILSVRC.fullmatch(path.name) for path in folder.iterdir())
        or (folder / "ILSVRC" / "Data" / "CLS-LOC").is_dir()
        or next((folder / "val").glob("ILSVRC20*_val_*.JPEG"), None) is not None
    )


def imagenet(folder: Path, seed: int = 0) -> Source:
    """The images of an ImageNet folder. Raises :class:`DataError` where labels are missing or contradict each other."""
    listing = walk(folder)
    tars = [found for found in listing.files if found.name.endswith(".tar")]
    devkit = {
        PurePosixPath(found.name).name: Path(found.file)
        for found in listing.files
        if _DEVKIT.fullmatch(found.parts[-1])
    }
    class_tars = [found for found in tars if _WNID.fullmatch(found.parts[-1].removesuffix(".tar"))]
    files = list(_opened(listing))
    train = [(found.parts[-2], found) for found in files if _is_training_image(found)]
    held_out = list(_numbered_images(files))
    _refuse_copies((f"train/{wnid}/{found.parts[-1]}", found) for wnid, found in train)
    _refuse_copies((f"{split} image {image_number}", found) for split, image_number, found in held_out)
    labeled = _labeled(devkit, held_out, folder)
    words = {synset.wnid: synset.words for synset in _synsets(devkit)}
    wnids = sorted({wnid for wnid, _ in train} or {wnid for _, wnid, _ in labeled})
    if not wnids:
        raise DataError(f"{printable(folder)}: no ImageNet images found in it")
    number = {wnid: label for label, wnid in enumerate(wnids)}
    foreign = sum(wnid not in number for _, wnid, _ in labeled)  # the kit may be for more classes than these
    records = [Record("train", number[wnid], f.name, f.file, f.offset, f.length, stamp=f.stamp) for wnid, f in train]
    for split, wnid, found in labeled:
        if wnid in number:
            place = found.file, found.offset, found.length
            records.append(Record(split, number[wnid], found.name, *place, stamp=found.stamp))
    records.sort(key=lambda r: (r.split != "train", r.split != "val", r.label if r.split == "train" else 0, r.name))
    notes = notes_on_skipped(listing, len(listing.twins))
    used = chain((found for _, found in train), (found for _, _, found in held_out))
    if stray := sum(map(has_image_suffix, files)) - sum(map(has_image_suffix, used)):
        notes.append(f"image without a label (as the test images of 2012), or outside its folder: {stray} skipped")
    if foreign:
        notes.append(f"held-out image of a class without training images: {foreign:,} skipped")
    if all(record.split == "train" for record in records):
        fraction = 0.5 if len(class_tars) == len(tars) else VAL_FRACTION
        records = hold_out(records, seed, fraction)
        notes.append(f"no validation images: {fraction:.0%} of each class {HELD_OUT_BY_HASH}")
    stamps = (f"{found.name} {found.stamp}" for found in listing.files)
    return Source(
        classes=[f"{wnid} {words[wnid].split(',')[0].strip()}" if wnid in words else wnid for wnid in wnids],
        records=records,
        fingerprint=fingerprint_of("imagenet", seed, *stamps),
        not_images=len(files) - len(records),
        notes=notes,
        held_out="source" if held_out else "hash",
    )


def _opened(listing: Listing) -> Iterator[Found]:
    """The files of a folder, with what is in the tars of ImageNet in place of these."""
    for found in listing.files:
        name, path = found.parts[-1], Path(found.file)
        if _TRAIN_TAR.fullmatch(name):
            for member in tar_members(path):
                wnid = PurePosixPath(member.name).name.removesuffix(".tar")
                if not _WNID.fullmatch(wnid):
                    raise DataError(f"{printable(path)}: {printable(member.name)} in it is not the tar of a class")
                yield from _class_tar(listing, wnid, list_tar(path, member.offset_data, member.size))
        elif name.endswith(".tar") and _WNID.fullmatch(wnid := name.removesuffix(".tar")):
            yield from _class_tar(listing, wnid, list_tar(path))
        elif _HELD_OUT_TAR.fullmatch(name):
            inner = list_tar(path)
            listing.skipped += inner.skipped
            yield from inner.files
        else:
            yield found


def _class_tar(listing: Listing, wnid: str, inner: Listing) -> Iterator[Found]:
    """The files of a class tar, by the names that they have in a class folder."""
    listing.skipped += inner.skipped
    for found in inner.files:
        yield replace(found, name=f"train/{wnid}/{found.parts[-1]}")


def _is_training_image(found: Found) -> bool:
    """Whether it is an image in a class folder below a folder ``train``."""
    parts = found.parts
    return len(parts) > 2 and bool(_WNID.fullmatch(parts[-2])) and "train" in parts[-3] and is_image(found)


def _numbered_images(files: Iterable[Found]) -> Iterator[tuple[SplitName, int, Found]]:
    """(split, number, image) of the files ``ILSVRC2012_val_00000001.JPEG`` and their like."""
    for found in files:
        if (match := _NUMBERED.fullmatch(found.parts[-1])) and not _is_training_image(found):
            split: SplitName = "val" if match[1].lower() == "val" else "test"
            if split == "val" or "ILSVRC2010" in found.parts[-1]:  # the labels of the 2012 test images are not public
                yield split, int(match[2]), found


def _refuse_copies(images: Iterable[tuple[str, Found]]) -> None:
    """Refuse an image that is there twice, as with a tar beside what was extracted from it."""
    first: dict[str, Found] = {}
    for image, found in images:
        if (other := first.setdefault(image, found)) is not found:
            a, b = (f.file if f.length is not None else Path(f.file).parent for f in (other, found))
            raise DataError(
                f"{printable(a)} and {printable(b)}: both hold {printable(image)}, which would count twice; move the tar or "
                "the extracted copy elsewhere"
            )


def _labeled(
    devkit: dict[str, Path], images: Sequence[tuple[SplitName, int, Found]], folder: Path
) -> list[tuple[SplitName, str, Found]]:
    """(split, wnid, image) of held-out images: their class folder says the class, or else the development kit."""
    loose = [image for image in images if not _WNID.fullmatch(_folder_of(image[2]))]
    truth = _held_out_labels(devkit, loose, folder) if loose else {}
    labeled = []
    for split, image_number, found in images:
        wnid = truth.get((split, image_number)) or _folder_of(found)
        if not _WNID.fullmatch(wnid):
            raise DataError(f"{printable(folder)}: the list of validation labels has none of {printable(found.name)}")
        labeled.append((split, wnid, found))
    return labeled


def _folder_of(found: Found) -> str:
    return found.parts[-2] if len(found.parts) > 1 else ""


def _held_out_labels(
    devkit: dict[str, Path], images: Iterable[tuple[SplitName, int, Found]], folder: Path
) -> dict[tuple[SplitName, int], str]:
    """wnid of each image. Line n of a ground-truth file is the ILSVRC id of image n; Kaggle's list gives the wnid
    itself."""
    if solution := devkit.get("LOC_val_solution.csv"):
        try:
            with open(solution, newline="", encoding="utf-8") as file:
                rows = {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(file)}
            return {("val", int(name.rpartition("_")[2])): wnid for name, wnid in rows.items()}
        except (LookupError, ValueError, TypeError, AttributeError, OSError, csv.Error) as error:
            raise DataError(
                f"{printable(solution)}: not Kaggle's list of validation labels ({printable(error)})"
            ) from error
    wnid_of_id = {synset.ilsvrc_id: synset.wnid for synset in _synsets(devkit)}
    labels: dict[tuple[SplitName, int], str] = {}
    for split in sorted({split for split, _, _ in images}):
        word = "validation" if split == "val" else "test"
        path = next((p for name, p in devkit.items() if name.endswith(f"_{word}_ground_truth.txt")), None)
        if path is None or not wnid_of_id:
            raise DataError(
                f"{printable(folder)}: the labels of the {word} images are missing; put the development kit's "
                f"ILSVRC..._{word}_ground_truth.txt and meta.mat (or map_clsloc.txt) into this folder"
            )
        for line, text in enumerate(path.read_text("utf-8", "replace").split(), start=1):
            if not text.isdecimal() or len(text) > 9 or int(text) not in wnid_of_id:
                raise DataError(
                    f"{printable(path)}, line {line}: {printable(text)[:40]} is no ILSVRC id of the development kit"
                )
            labels[split, line] = wnid_of_id[int(text)]
    for split, image_number, found in images:
        if (split, image_number) not in labels:
            raise DataError(f"{printable(folder)}: {printable(found.name)} has no line in the ground-truth file")
    return labels


# --- the development kit ---------------------------------------------------------------------------------------------


def _synsets(devkit: dict[str, Path]) -> list[Synset]:
    if path := devkit.get("meta.mat"):
        return read_meta_mat(path)
    if path := devkit.get("map_clsloc.txt"):
        return [Synset(int(i), wnid, words.replace("_", " ")) for wnid, i, words in _fields(path, 3)]
    if path := devkit.get("LOC_synset_mapping.txt"):  # Kaggle: in the order of wnids, without ids
        return [Synset(0, wnid, words) for wnid, words in _fields(path, 2)]
    return []


def _fields(path: Path, count: int) -> Iterator[list[str]]:
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), start=1):
        fields = line.split(maxsplit=count - 1)
        if len(fields) != count or not _WNID.fullmatch(fields[0]) or (count == 3 and not _ID.fullmatch(fields[1])):
            raise DataError(
                f"{printable(path)}, line {number}: expected {count} columns, the first a wnid"
                + (", the second a number" if count == 3 else "")
            )
        yield fields


def read_meta_mat(path: Path) -> list[Synset]:
    """The classes in a development kit's ``meta.mat``, in the order of their ILSVRC ids; inner nodes of the hierarchy
    too."""
    try:
        rows = next(value for name, value in _mat_variables(read_file(path, MAX_DEVKIT_BYTES)) if name == "synsets")
        key = next(name for name in rows[0] if name.endswith("_ID") and name != "WNID")
        return [Synset(int(row[key][0]), str(row["WNID"]), str(row["words"])) for row in rows]
    except (
        *(AlexNetError, LookupError, ValueError, TypeError, AttributeError, StopIteration, OverflowError),
        *(RecursionError, struct.error, zlib.error),
    ) as error:
        said = printable(error)[:150] or "no synsets in it"
        raise DataError(f"{printable(path)}: not the meta.mat of a development kit ({said})") from error


# MATLAB 5 files: a header of 128 bytes, then elements of (type, size, content), which may be zlib-compressed. A matrix
# is an element whose content is again elements: flags (with its class), dimensions, name, then its values.
_MI_COMPRESSED, _MI_MATRIX = 15, 14
_CLASS_CELL, _CLASS_STRUCT, _CLASS_CHAR = 1, 2, 4
_NUMBER_FORMATS = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q", 16: "B", 17: "H"}
_TEXT_CODINGS = {1: "latin-1", 2: "latin-1", 4: "utf-16-le", 16: "utf-8", 17: "utf-16-le"}


def _mat_variables(data: bytes) -> Iterator[tuple[str, Any]]:
    if data[:10] != b"MATLAB 5.0" or data[126:128] != b"IM":
        raise ValueError("not a little-endian MATLAB 5 file")
    left = MAX_DEVKIT_BYTES
    for kind, content in _elements(memoryview(data)[128:]):
        if kind == _MI_COMPRESSED:
            inflater = zlib.decompressobj()
            unpacked = inflater.decompress(content, left)
            left -= len(unpacked)
            if not inflater.eof or not left:
                raise ValueError(f"cut short, or unpacked more than {MAX_DEVKIT_BYTES:,} bytes")
            ((kind, content),) = _elements(memoryview(unpacked))
        if kind == _MI_MATRIX:
            yield _matrix(content)


def _elements(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(type, content), which is a view: cells lie in cells, and each level would copy those below."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<II", data, at)
        if kind >> 16:  # the short form: size in the upper half, up to 4 bytes of content in place
            kind, size = kind & 0xFFFF, kind >> 16
            yield kind, data[at + 4 : at + 4 + size]
            at += 8
        else:
            yield kind, data[at + 8 : at + 8 + size]
            padding = -size % 8 if kind != _MI_COMPRESSED else 0
            at += 8 + size + padding


def _matrix(content: memoryview) -> tuple[str, Any]:
    """(name, value): a str for characters, a list of dicts for a struct array, a tuple of numbers otherwise."""
    elements = _elements(content)
    parts = list(islice(elements, 3))
    if not parts:
        return "", ()
    matrix_class, name = parts[0][1][0], str(parts[2][1], "latin-1")
    if matrix_class == _CLASS_STRUCT:
        (_, width_view), (_, fields_view) = islice(elements, 2)
        (width,), fields = struct.unpack("<i", width_view), bytes(fields_view)
        names = [fields[i : i + width].split(b"\0")[0].decode("latin-1") for i in range(0, len(fields), width)]
        values = [_matrix(value)[1] for _, value in elements]
        return name, [
            dict(zip(names, values[i : i + len(names)], strict=True)) for i in range(0, len(values), len(names))
        ]
    if matrix_class == _CLASS_CELL:
        return name, [_matrix(value)[1] for _, value in elements]
    first = next(elements, None)
    if matrix_class == _CLASS_CHAR:
        return name, str(first[1], _TEXT_CODINGS[first[0]]) if first else ""
    return name, _numbers(*first) if first else ()


def _numbers(kind: int, content: memoryview) -> tuple[Any, ...]:
    code = _NUMBER_FORMATS[kind]
    return struct.unpack(f"<{len(content) // struct.calcsize(code)}{code}", content)
