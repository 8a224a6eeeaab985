"""Activations of named layers for a whole data set, as memory-mapped matrices: what every other probe works on.

```
meta.json        layers, shapes, protocol, network and data, size and SHA-256 of the other files; written last
LAYER.npy        (N, D) float32 or float16, a row an image, in the order of the split
labels.npy       (N,) int64
paths.jsonl      names of the images, one JSON string a line
```

Shape suffixes: N images, B images of a batch, S rows and columns, C channels, D units.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet.core.config import fingerprint, to_json
from alexnet.core.device import autocast
from alexnet.core.errors import AlexNetError, DataError, UsageError, printable
from alexnet.core.runs import cache_folder, environment, fsync_folder, read_json, sha256_file, write_atomic, write_json
from alexnet.data.loader import batches
from alexnet.data.packed import PackedSet
from alexnet.evaluation.error_rate import Split
from alexnet.evaluation.predict import Predictor
from alexnet.evaluation.views import CENTER, views_of
from alexnet.models.lrn import kernels_in_use
from alexnet.probes.layers import Layer, find_layers, recorded

FORMAT = "alexnet features 1"
Dtype = Literal["float32", "float16"]
BATCH = 128
POSITIONS = "before the test-time halving of plain dropout; layers called dropoutN are after it"


@dataclass(frozen=True)
class Features:
    """Activations of a split, on disk. Rows are read when they are asked for."""

    folder: Path
    meta: Mapping[str, Any]

    def __len__(self) -> int:
        return int(self.meta["n"])

    @property
    def layers(self) -> list[str]:
        return list(self.meta["layers"])

    @property
    def classes(self) -> list[str]:
        return list(self.meta["classes"])

    def matrix(self, layer: str) -> NDArray[Any]:
        """(N, D), memory-mapped, read only. An unknown layer: :class:`UsageError` that lists those that are here."""
        if layer not in self.meta["layers"]:
            raise UsageError(
                f"{printable(self.folder)}: holds no layer {printable(layer)!r}, only {', '.join(self.layers)}; "
                "write it with `alexnet features --layers`"
            )
        matrix_ND: NDArray[Any] = np.load(self.folder / f"{layer}.npy", mmap_mode="r", allow_pickle=False)
        return matrix_ND

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        labels_N: NDArray[np.int64] = np.load(self.folder / "labels.npy", allow_pickle=False)
        return labels_N

    @cached_property
    def paths(self) -> list[str]:
        with open(self.folder / "paths.jsonl", encoding="ascii") as file:
            return [json.loads(line) for line in file]


@torch.no_grad()
def embed(predictor: Predictor, pixels_BSSC: torch.Tensor, layers: Sequence[Layer]) -> dict[str, NDArray[np.float32]]:
    """The activations of these layers for the center view of a batch of stored images, (B, S, S, C) uint8: (B, D) each, maps
    flattened in the order channel, row, column."""
    model, device = predictor.model.eval(), predictor.device
    mean_SSC = None if predictor.mean is None else torch.as_tensor(predictor.mean).to(device)
    image_B = np.arange(len(pixels_BSSC))
    (x_BCHW,) = views_of(pixels_BSSC.to(device), image_B, CENTER, predictor.preprocessing, mean_SSC)
    with recorded(model, layers) as outputs, autocast(device, predictor.precision):
        model(x_BCHW.double() if predictor.precision == "float64" else x_BCHW)
    return {layer.name: outputs[layer.name].flatten(1).float().cpu().numpy() for layer in layers}


def extract(
    predictor: Predictor,
    split: Split,
    layers: Sequence[str],
    folder: Path,
    *,
    classes: Sequence[str],
    dtype: Dtype = "float32",
    batch_size: int = BATCH,
    workers: int | None = None,
    data: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Features:
    """Write the activations of the named layers for the center view of every image of ``split``, each exactly once, into
    ``folder``, which must not exist or hold features (they are replaced). Memory does not grow with the number of
    images. ``data`` says where the images come from, for the protocol.

    A row does not depend on the other images of its batch, nor on ``batch_size`` beyond the rounding of sums. Raises
    :class:`UsageError` for an unknown layer, an empty split or a folder that holds something else, and
    :class:`AlexNetError` for activations that are not finite (in float16: above 65,504)."""
    found, n = find_layers(predictor.model, layers), len(split)
    if not found:
        raise UsageError("features need at least one layer")
    if n == 0:
        raise UsageError("the split has no images: there is nothing to compute")
    if batch_size < 1:
        raise UsageError(f"batch_size is {batch_size}; it must be at least 1")
    with _new_folder(folder) as new:
        matrices = {layer.name: _empty(new / f"{layer.name}.npy", (n, layer.num_units), dtype) for layer in found}
        batch_size = min(batch_size, n)
        order_N = np.minimum(np.arange(math.ceil(n / batch_size) * batch_size), n - 1)  # every pass has the same shape
        kernels_in_use(predictor.device, build=True)
        for batch in batches(split, order_N, batch_size, workers=workers):
            outputs = embed(predictor, batch.pixels_BSSC, found)
            keep_B = batch.position_B < n
            for name, rows_BD in outputs.items():
                matrices[name][batch.image_B[keep_B]] = _as(rows_BD[keep_B], name, dtype)
            if progress:
                progress(min(int(batch.position_B[-1]) + 1, n), n)
        for matrix_ND in matrices.values():
            matrix_ND.flush()
        matrices.clear()
        label_N = np.asarray(split.labels, dtype=np.int64)
        write_atomic(new / "labels.npy", lambda file: np.save(file, label_N, allow_pickle=False))
        lines = "".join(json.dumps(path) + "\n" for path in split.paths).encode()
        write_atomic(new / "paths.jsonl", lambda file: file.write(lines))
        meta = {
            "format": FORMAT,
            "n": n,
            "layers": {layer.name: list(layer.shape) for layer in found},
            "dtype": dtype,
            "classes": list(classes),
            "model": model_fingerprint(predictor),
            "network": predictor.name,
            "protocol": {
                "view": "center",
                "positions": POSITIONS,
                "precision": predictor.precision,
                "preprocessing": to_json(predictor.preprocessing),
                **(data or {}),
            },
            "environment": environment(),
            "sha256": {file.name: sha256_file(file) for file in sorted(new.iterdir())},
        }
        write_json(new / "meta.json", meta)
    return Features(folder, meta)


def cached_features(
    predictor: Predictor,
    packed: PackedSet,
    split: str,
    layers: Sequence[str],
    *,
    cache: str | Path | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> dict[str, Features]:
    """Features of a split of a packed set, for each layer a folder of its own in the cache, computed if they are not there.
    They are found again by network, weights, preprocessing, precision, data and split."""
    found: dict[str, Features] = {}
    model, parent = model_fingerprint(predictor), cache_folder(cache) / "features"
    parent.mkdir(parents=True, exist_ok=True)
    for layer in layers:
        find_layers(predictor.model, [layer])
        key = fingerprint([model, predictor.precision, packed.fingerprint, split, layer])[:16]
        folder = parent / f"{layer}-{split}-{key}"
        if not (folder / "meta.json").is_file():
            with _locked(parent, wait=True):  # a process that waited here finds the work done
                if not (folder / "meta.json").is_file():
                    extract(
                        predictor,
                        packed.split(split),
                        [layer],
                        folder,
                        classes=packed.classes,
                        workers=workers,
                        data={"split": split, "fingerprint": packed.fingerprint},
                        progress=progress,
                    )
        found[layer] = open_features(folder, verify=False)
    return found


def open_features(folder: Path, *, verify: bool = True) -> Features:
    """Open a folder that :func:`extract` wrote. With ``verify`` the SHA-256 of every file is compared. Raises
    :class:`DataError` for a folder that is not one, or is damaged."""
    where = printable(folder)
    if not (folder / "meta.json").is_file():
        raise DataError(f"{where}: holds no features; write some with `alexnet features MODEL --out {where}`")
    try:
        meta = read_json(folder / "meta.json")
    except AlexNetError as error:
        raise DataError(f"{error}; write the features again") from error
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise DataError(f"{where}/meta.json: not that of features this program reads; write them again")
    for name, digest in meta["sha256"].items():
        file = folder / name
        if not file.is_file() or (verify and sha256_file(file) != digest):
            raise DataError(f"{printable(file)}: missing or damaged, not what meta.json says; write the features again")
    return Features(folder, meta)


def model_fingerprint(predictor: Predictor) -> str:
    """Of the network's configuration, preprocessing, mean image and weights, bit for bit: two models give the same features if
    it is the same. It does not depend on the device, the number of threads or the precision that is computed with."""
    digest = hashlib.sha256()
    for name, tensor in predictor.model.state_dict().items():
        value = tensor.float() if tensor.is_floating_point() else tensor
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy())
    if predictor.mean is not None:
        digest.update(predictor.mean.tobytes())
    return fingerprint(
        [predictor.name, to_json(predictor.model.config), to_json(predictor.preprocessing), digest.hexdigest()]
    )


def _as(rows_BD: NDArray[np.float32], name: str, dtype: Dtype) -> NDArray[Any]:
    with np.errstate(over="ignore"):  # seen by the check that follows
        converted_BD: NDArray[Any] = rows_BD.astype(dtype)
    if not np.isfinite(converted_BD).all():
        raise AlexNetError(
            f"{name}: activations are not finite as {dtype}; take float32, or an earlier checkpoint of the network"
        )
    return converted_BD


def _empty(path: Path, shape: tuple[int, int], dtype: Dtype) -> np.memmap[Any, Any]:
    needed, free = math.prod(shape) * np.dtype(dtype).itemsize, shutil.disk_usage(path.parent).free
    if needed > free:
        raise AlexNetError(
            f"{printable(path)}: needs {needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free; take fewer layers or float16"
        )
    return np.lib.format.open_memmap(path, "w+", np.dtype(dtype), shape)


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """An empty folder beside ``folder`` to be filled; it takes the place of ``folder`` at the end, or goes away."""
    if folder.exists() and not _holds_features(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{printable(folder)}: exists and holds no features; take another --out")
    new = folder.with_name(f".{folder.name}.new")
    new.mkdir(parents=True, exist_ok=True)
    with _locked(new, wait=False):
        for leftover in new.iterdir():  # of a command that was killed
            leftover.unlink()
        try:
            yield new
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    fsync_folder(folder.parent)


def _holds_features(folder: Path) -> bool:
    meta = read_json(folder / "meta.json") if (folder / "meta.json").is_file() else None
    return isinstance(meta, dict) and str(meta.get("format")).startswith("alexnet features")


@contextmanager
def _locked(folder: Path, *, wait: bool) -> Iterator[None]:
    """One process at a time. Without ``wait``, the second gets an :class:`AlexNetError`."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlexNetError(f"{printable(folder)}: another process is writing it; wait until that is done") from None
        yield
    finally:
        os.close(descriptor)
