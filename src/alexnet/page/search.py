"""The third act: the pictures of an index that are most like one, by features, by pixels and by short codes.

What is compared as pixels are thumbnails. They are made once, a little with every question, and kept in the cache in parts that
are written whole, so that a worker that starts again goes on where the one before it stopped.

Shape suffixes: S rows or columns of a square, C channels, N pictures, B of them in a part, D values, k neighbors.
"""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageOps

from alexnet.core.config import fingerprint
from alexnet.core.errors import AlexNetError, ImageError, UsageError, as_text
from alexnet.core.runs import read_arrays, write_atomic
from alexnet.data.inside import stamp_of
from alexnet.data.pictures import Picture
from alexnet.evaluation.layers import find_layers
from alexnet.evaluation.predict import Predictor
from alexnet.page.room import Room
from alexnet.probes.codes import THUMBNAIL
from alexnet.probes.search import Index

SHOWN = 12
PART = 64
"""Thumbnails in a file."""
KEPT_PARTS = 256
"""Parts that are kept in memory: 50 MB."""
SECONDS = 1.0
"""How long thumbnails are made while somebody waits."""
SIDE = 224
"""Of the pictures that are shown, in pixels."""
SCANNED = 50_000
"""Most vectors that are all compared where the index has codes; from there on what the codes find is."""


def matches(room: Room, pixels: NDArray[np.uint8]) -> dict[str, Any]:
    """The pictures of the index nearest to a picture (S, S, C), each time with the seconds that the search took:

    - ``features``: by the metric of the index; ``network_seconds`` is what computing the features took.
    - ``pixels``: by the root mean square of the differences of thumbnails, on 0..1, among those ``images`` of the ``of`` pictures
      that have a thumbnail yet.
    - ``codes``: by the share of the ``bits`` that differ, where the index has codes; or else None.

    Raises :class:`UsageError` where no index is served."""
    index = _index(room)
    start = time.perf_counter()
    feature_D = _features(index, room.predictor, pixels)
    network = time.perf_counter() - start
    found = {"network_seconds": network, "layer": index.meta["layer"], "features": _by_features(index, feature_D)}
    return found | {"codes": _by_codes(index, feature_D), "pixels": _by_pixels(room, index, pixels)}


def thumbnail(room: Room, number: int) -> bytes:
    """A picture of the index, by its number, as a small square JPEG in color. :class:`UsageError` for a number that is none,
    :class:`ImageError` for a file that is gone or cannot be read."""
    index = _index(room)
    if not 0 <= number < len(index):
        raise UsageError(f"the index has no picture {number}; its {len(index):,} pictures are counted from 0")
    path = index.paths[number]
    image = Picture(Path(path).name, Path(path)).decode(room.predictor.preprocessing.sample_max)
    file = io.BytesIO()
    ImageOps.fit(image, (SIDE, SIDE), Image.Resampling.BILINEAR).save(file, "JPEG", quality=85)
    return file.getvalue()


def _index(room: Room) -> Index:
    if room.index is None:
        raise UsageError("no index is served; start `alexnet serve` with --index INDEX")
    return room.index


def _features(index: Index, predictor: Predictor, pixels_SSC: NDArray[np.uint8]) -> NDArray[np.float32]:
    layers = find_layers(predictor.model, [index.meta["layer"]])
    return predictor.activations(torch.from_numpy(pixels_SSC[None]), layers)[layers[0].name]


def _by_features(index: Index, feature_1D: NDArray[np.float32]) -> dict[str, Any]:
    if len(index) == 0:
        return {"seconds": 0.0, "metric": index.metric, "matches": []}
    scan = index
    if index.meta["kind"] == "codes" and len(index) <= SCANNED:  # what the codes are a short form of
        scan = Index(index.folder, {**index.meta, "kind": "exact", "codes": None})
    start = time.perf_counter()
    near = scan.search(feature_1D, SHOWN)
    seconds = time.perf_counter() - start
    found = zip(near.index_Qk[0].tolist(), near.distance_Qk[0].tolist(), strict=True)
    shown = [(number, distance) for number, distance in found if number >= 0]
    return {"seconds": seconds, "metric": index.metric, "matches": _described(index, shown)}


def _by_codes(index: Index, feature_1D: NDArray[np.float32]) -> dict[str, Any] | None:
    if index.meta["kind"] != "codes" or index.shortcut is None:
        return None
    bits = index.codes.coder.num_bits  # reads the codes, whose time is not that of a search
    start = time.perf_counter()
    near = index.search_codes(feature_1D, SHOWN)
    seconds = time.perf_counter() - start
    assert near is not None
    found = zip(near.index_Qk[0].tolist(), near.distance_Qk[0].tolist(), strict=True)
    shown = [(number, distance / bits) for number, distance in found if number >= 0]
    return {"seconds": seconds, "metric": "hamming", "bits": bits, "matches": _described(index, shown)}


def _by_pixels(room: Room, index: Index, pixels_SSC: NDArray[np.uint8]) -> dict[str, Any] | None:
    """None where the cache, which keeps the thumbnails, cannot be written to."""
    number_N = live(index)
    files = _files(room, index, len(number_N))
    try:
        made = _make(room, index, number_N, files)
    except OSError:
        return None
    query_D = small(pixels_SSC[None])[0].astype(np.float32)
    start = time.perf_counter()
    found, distances = [np.empty(0, np.int64)], [np.empty(0)]
    for part in map(_part, files[:made]):
        if part:
            found.append(part["number_B"])
            distances.append(np.sqrt(np.square(part["row_BD"] - query_D).mean(axis=1)) / 255)
    number_M, distance_M = np.concatenate(found), np.concatenate(distances)
    near = np.lexsort([number_M, distance_M])[:SHOWN]
    seconds = time.perf_counter() - start
    shown = list(zip(number_M[near].tolist(), distance_M[near].tolist(), strict=True))
    about = {"images": min(made * PART, len(number_N)), "of": len(number_N)}
    return {"seconds": seconds, "metric": "rms", **about, "matches": _described(index, shown)}


def live(index: Index) -> NDArray[np.int64]:
    """The numbers of the pictures of an index, ascending: of a file that has changed the last row."""
    return np.array(sorted({path: row for row, path in enumerate(index.paths)}.values()), np.int64)


def small(pixels_NSSC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Squares averaged down to 32 x 32, smaller ones as they are: (N, D)."""
    x_NCSS = torch.from_numpy(pixels_NSSC).permute(0, 3, 1, 2).float()
    small_NCSS = F.adaptive_avg_pool2d(x_NCSS, min(THUMBNAIL, x_NCSS.shape[-1]))
    return small_NCSS.flatten(1).round().byte().numpy()


def _files(room: Room, index: Index, num: int) -> list[Path]:
    """Where the thumbnails of this index are kept, as it is now."""
    identity = fingerprint([index.meta["files"], index.meta["preprocessing"], THUMBNAIL])[:16]
    return [room.cache / f"thumbnails-{identity}" / f"{part}.npz" for part in range(-(-num // PART))]


def _make(room: Room, index: Index, number_N: NDArray[np.int64], files: Sequence[Path]) -> int:
    """Make thumbnails for :data:`SECONDS`, and say how many parts there are. Raises :class:`OSError` if they cannot be kept."""
    end = time.monotonic() + SECONDS
    for part, file in enumerate(files):
        if file.exists():
            continue
        if time.monotonic() >= end:
            return part
        number_B, row_BD = _thumbnails(room, index, number_N[part * PART : (part + 1) * PART].tolist())
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, partial(np.savez, number_B=number_B, row_BD=row_BD))
    return len(files)


def _thumbnails(room: Room, index: Index, numbers: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Those of these pictures (B, D), with their numbers; of one that cannot be read there is none."""
    pictures = (Picture(index.paths[number], Path(index.paths[number])) for number in numbers)
    (group,) = room.predictor.decoded(pictures, len(numbers), workers=room.subject.machine.workers)
    there = [(number, it) for number, (_, it) in zip(numbers, group, strict=True) if not isinstance(it, ImageError)]
    if not there:
        return np.empty(0, np.int64), np.empty((0, 0), np.uint8)
    return np.array([number for number, _ in there], np.int64), small(np.stack([it for _, it in there]))


def _part(file: Path) -> dict[str, NDArray[Any]] | None:
    """What :func:`_read` says of a part, from memory where the file has not changed since."""
    try:
        status = file.stat()
    except OSError:
        return None
    return _read(file, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=KEPT_PARTS)
def _read(file: Path, _time_ns: int, _size: int) -> dict[str, NDArray[Any]] | None:
    """A part; None of one without thumbnails. One that is damaged is removed, and made again with the next question."""
    with suppress(AlexNetError, OSError):
        part = read_arrays(file)
        if part.keys() == {"number_B", "row_BD"} and len(part["number_B"]) == len(part["row_BD"]):
            return part if len(part["row_BD"]) else None
    file.unlink(missing_ok=True)
    return None


def _described(index: Index, found: Sequence[tuple[int, float]]) -> list[dict[str, Any]]:
    """What the page says of pictures by their numbers. A name is for people: nothing is opened by it."""
    described = []
    for number, distance in found:
        path, size, time_ns = index.images[number]
        stamp = stamp_of(path)
        gone, changed = stamp is None, stamp not in (None, (size, time_ns))
        name, folder = as_text(Path(path).name), as_text(Path(path).parent.name)
        known = {"number": number, "name": name, "folder": folder, "distance": float(distance)}
        described.append(known | {"gone": gone, "changed": changed})
    return described
