"""What a name or a path means: the named sets, and every form of data that is recognized by its files."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from alexnet.core.errors import DataError, printable, refused
from alexnet.data.archives import image_archive, is_archive
from alexnet.data.builtin import digits, shapes_folder
from alexnet.data.cifar import cifar10, is_cifar10
from alexnet.data.decode import file_stamp
from alexnet.data.folder import Found, arrange, image_folder, is_image, pictures, walk
from alexnet.data.idx import FASHION_MNIST_CLASSES, idx_set, is_idx
from alexnet.data.imagenet import imagenet, is_imagenet
from alexnet.data.inside import holds_pictures, members
from alexnet.data.lists import LIST_SUFFIXES, csv_list
from alexnet.data.packed import is_packed
from alexnet.data.parquet import SUFFIX, parquet_files, parquet_records, parquet_set
from alexnet.data.rows import Rows, row_set
from alexnet.data.sources import Source, fingerprint_of

NAMED_SETS = {
    "shapes": (),
    "digits": (),
    "imagenette": (
        *("photos/imagenette-224.tar", "imagenette-224.tar", "imagenette2", "imagenette2-320", "imagenette2-160"),
        *("imagenette2.tar", "imagenette"),
    ),
    "imagenet": ("imagenet", "ILSVRC2012", "imagenet-object-localization-challenge"),
    "fashion-mnist": ("fashion-mnist", "FashionMNIST/raw"),
    "cifar10": ("cifar10", "cifar-10-batches-bin", "cifar-10-batches-py"),
}
"""Where each set may lie below the data folder; the first two are built in."""

_HOMES = {
    "imagenette": "https://github.com/fastai/imagenette, and unpack it",
    "imagenet": "https://image-net.org (members): the tars of ILSVRC-2012, or Kaggle's tree",
    "fashion-mnist": "https://github.com/zalandoresearch/fashion-mnist (four .gz files)",
    "cifar10": "https://www.cs.toronto.edu/~kriz/cifar.html (the binary version), and unpack it",
}
_IMAGENETTE_NAMES = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}


def find_source(
    data: str | Path | Rows, *, data_root: str | Path | None = None, cache: str | Path | None = None, seed: int = 0
) -> Source:
    """The records of a named set, of a path, or of rows in memory."""
    if not isinstance(data, str | os.PathLike):
        return row_set(data, seed)
    source = named_source(str(data), data_root=data_root, cache=cache, seed=seed) or read_source(data, seed=seed)
    return replace(source, name=str(data))


def find_pictures(data: str | Path, *, data_root: str | Path | None = None, cache: str | Path | None = None) -> Source:
    """The records of data whose labels do not matter: those of :func:`find_source`; but of a folder, an archive or a Parquet file
    with pictures that have no class, all of them, unless it names its splits."""
    several = Path(data).is_dir() or holds_pictures(data)
    try:
        source = find_source(data, data_root=data_root, cache=cache)
    except DataError:
        if not several:
            raise
        return replace(_all_pictures(Path(data)), name=str(data))
    if source.held_out == "source" or not several:
        return source
    everything = _all_pictures(Path(data))
    return source if len(source.records) == len(everything.records) else replace(everything, name=str(data))


def _all_pictures(path: Path) -> Source:
    """Every picture, to learn from without labels."""
    if path.is_dir():
        if not (tables := parquet_files(walk(path))):
            return pictures(path)
        records = parquet_records(tables)
    else:
        records = list(members(path).values())
    names = (f"{record.name} {record.stamp}" for record in records)
    return Source(classes=["picture"], records=records, fingerprint=fingerprint_of("pictures", *names))


def named_source(
    name: str, *, data_root: str | Path | None = None, cache: str | Path | None = None, seed: int = 0
) -> Source | None:
    """The records of a named set, looked for in ``data_root``, ``$ALEXNET_DATA`` or ``./data``; ``shapes`` are drawn into
    the cache. None if no set has this name. Raises :class:`DataError` saying where it was looked."""
    if name == "shapes":
        return image_folder(shapes_folder(cache, seed=seed), seed)
    if name == "digits":
        return digits(seed)
    if name not in NAMED_SETS:
        return None
    root = Path(data_root or os.environ.get("ALEXNET_DATA") or "data")
    path = next((root / place for place in NAMED_SETS[name] if (root / place).exists()), None)
    if path is None:
        raise DataError(
            f"{name}: not found in {printable(root)} (looked for {', '.join(NAMED_SETS[name])}); get it from {_HOMES[name]}, "
            "and name its folder by --data-root or $ALEXNET_DATA"
        )
    if name == "fashion-mnist":
        return idx_set(path, seed, FASHION_MNIST_CLASSES)
    source = read_source(path, seed=seed)
    return replace(source, classes=[_IMAGENETTE_NAMES.get(wnid, wnid) for wnid in source.classes])


def read_source(source: str | Path, *, seed: int = 0) -> Source:
    """The records of a path: a folder of images, IDX or CIFAR-10 files or ImageNet, an archive, a list, or an IDX
    file."""
    path = Path(source)
    try:
        if is_packed(path):
            raise DataError(f"{printable(path)}: already a packed set; train and evaluate on it as it is")
        if path.is_dir():
            if is_idx(path):
                return idx_set(path, seed)
            if is_cifar10(path):
                return cifar10(path, seed)
            if is_imagenet(path):
                return imagenet(path, seed)
            listing = walk(path)
            if found := parquet_files(listing):
                return parquet_set(found, printable(path), seed, listing)
            return arrange(listing, printable(path), seed)
        if not path.exists():
            raise DataError(
                f"{printable(path)}: no such file, folder or named set; the sets are {', '.join(NAMED_SETS)}"
            )
    except (OSError, ValueError) as error:
        said = refused(error, path) if isinstance(error, OSError) else f"{printable(path)}: {printable(error)}"
        raise DataError(said) from error
    if is_idx(path):
        return idx_set(path, seed)
    if is_archive(path):
        return image_archive(path, seed)
    if path.suffix.lower() == SUFFIX:
        return parquet_set([Found(path.name, str(path), stamp=file_stamp(path.stat()))], printable(path), seed)
    if path.suffix.lower() in LIST_SUFFIXES:
        return csv_list(path, seed)
    if is_image(Found(path.name, str(path))):
        raise DataError(
            f"{printable(path)}: a single picture is no set of images; name the folder that holds a folder of pictures for each "
            "class, or ask a model about this one with `alexnet predict`"
        )
    raise DataError(f"{printable(path)}: not a folder, .tar, .tar.gz, .zip, .parquet, .csv, .tsv, .txt or IDX file")
