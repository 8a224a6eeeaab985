"""Activations of named layers for a whole data set, as matrices on the disk: what every other probe works on.

```
meta.json        layers, shapes, protocol, network and data, size and SHA-256 of the other files; written last
LAYER.npy        (N, D) float32 or float16, a row an image, in the order of the split
labels.npy       (N,) int64
paths.jsonl      names of the images, one JSON string a line
```

Of N parts, on as many hosts, each computes every N-th piece: a few whole batches, composed as one process composes them, since
the last bits of a row may depend on the size of its batch. Pieces are files beside the folder until all are there and joined.

Shape suffixes: N images, B images of a batch, S rows and columns, C channels, D units.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from alexnet.core.config import fingerprint, to_json
from alexnet.core.device import Machine, Precision, choose_device
from alexnet.core.errors import AlexNetError, DataError, UsageError, printable
from alexnet.core.parts import Part, Work, alone, locked, parse_part, parts_begun
from alexnet.core.runs import (
    ArrayFile,
    cache_folder,
    environment,
    fsync_folder,
    read_arrays,
    read_json,
    writable_cache,
    write_atomic,
    write_json,
)
from alexnet.core.sealed import Seal
from alexnet.data.loader import batches
from alexnet.data.packed import PackedSet
from alexnet.evaluation.error_rate import Split
from alexnet.evaluation.finding import Finding
from alexnet.evaluation.layers import Layer, find_layers
from alexnet.evaluation.lines import images_line
from alexnet.evaluation.predict import Predictor, model_fingerprint
from alexnet.evaluation.subject import Subject
from alexnet.models.lrn import kernels_in_use

FORMAT = "alexnet features 1"
Dtype = Literal["float32", "float16"]
BATCH = 128
PIECES = 32
"""Fewest pieces into which each part of a large enough split is cut; with fewer, some parts have much more to do than others."""
PIECE_BYTES = 64 << 20
"""Approximate size of a piece, which is what is lost when a part is killed."""
META_BYTES = 1 << 20
"""Bytes of the disk that are kept free for meta.json."""
AGAIN = "remove the folder and run the command that wrote it again"
SEAL = Seal(what="features", formats=(FORMAT,), files="sha256", again=AGAIN)
COMPUTED = ("view", "positions", "precision", "preprocessing")
"""What a protocol says of the computing; the rest is of the data."""
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

    def matrix(self, layer: str) -> ArrayFile:
        """(N, D), on the disk: rows are read when they are asked for, all of them by ``[:]``. An unknown layer:
        :class:`UsageError` that lists those that are here."""
        if layer not in self.meta["layers"]:
            raise UsageError(
                f"{printable(self.folder)}: holds no layer {printable(layer)!r}, only {', '.join(self.layers)}; "
                "write it with `alexnet features --layers`"
            )
        return ArrayFile(self.folder / f"{layer}.npy")

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        labels_N: NDArray[np.int64] = np.load(self.folder / "labels.npy", allow_pickle=False)
        return labels_N

    @cached_property
    def paths(self) -> list[str]:
        with open(self.folder / "paths.jsonl", encoding="ascii") as file:
            return [json.loads(line) for line in file]

    def finding(self, called: str | None = None) -> Finding:
        """What is here, in words and for a document; ``called``: how the user called the data."""
        protocol = self.meta["protocol"]
        shapes = {layer: " x ".join(map(str, shape)) for layer, shape in self.meta["layers"].items()}
        lines = [f"{layer}: {len(self):,} x {shape} {self.meta['dtype']}" for layer, shape in shapes.items()]
        data = {key: value for key, value in protocol.items() if key not in COMPUTED}
        return Finding(
            subject={"network": self.meta["network"], "model": self.meta["model"], "data": data},
            n=len(self),
            summary=shapes,
            body={"features": str(self.folder), **self.meta},
            protocol=protocol,
            lines=[images_line(len(self), protocol, called), *lines, f"in {printable(self.folder)}"],
        )


def features(
    model: str | Path,
    layers: str | Sequence[str],
    out: str | Path,
    data: str | None = None,
    machine: Machine | None = None,
    *,
    split: str | None = None,
    dtype: Dtype = "float32",
    precision: Precision = "float32",
    batch_size: int = BATCH,
    part: str | None = None,
    best: bool = False,
    data_root: str | Path | None = None,
) -> Features | list[Part]:
    """The activations of named layers for every image of a split, once each, as NumPy files in the folder ``out``: what
    ``alexnet features`` writes. Of no layers named it is fc7 or, where that has random weights, the last one before it that
    has none. ``data`` and ``split``: those of a :class:`~alexnet.evaluation.subject.Subject`.

    ``part``: ``I/N`` for the I-th of N parts of the work, which may run on any hosts that share the folder. Returns the
    features, or, of parts, the list of those that are not done while there are some. Raises what :func:`extract` raises."""
    share = None if part is None else parse_part(part)
    subject = Subject(
        model=model,
        machine=machine or Machine(device=choose_device()),
        data=data,
        split=split,
        precision=precision,
        best=best,
        data_root=data_root,
    )
    predictor, packed, images, out = subject.predictor, subject.packed, subject.images, Path(out)
    layers = [layers] if isinstance(layers, str) else layers or [predictor.usual_layer().name]
    with subject.progress("features", len(images)) as bar:
        settings: dict[str, Any] = {
            "classes": packed.classes,
            "dtype": dtype,
            "batch_size": batch_size,
            "workers": subject.machine.workers,
            "data": subject.provenance(),
            "progress": bar,
        }
        if share is None:
            return Features(out, extract(predictor, images, layers, out, **settings).meta)
        return extract_part(predictor, images, layers, out, share, **settings) or open_features(out)


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
    ``folder``, which must not exist, be empty or hold features alone (they are replaced). Memory does not grow with the number
    of images; room on the disk is taken before the work. ``data`` says where the images come from, for the protocol. If
    :func:`extract_part` began, its parts are joined; an :class:`AlexNetError` names those that are not done.

    A row does not depend on the other images of its batch, nor on ``batch_size`` beyond the rounding of sums. Raises
    :class:`UsageError` for an unknown layer, an empty split or a folder that holds something else, and
    :class:`AlexNetError` for activations that are not finite (in float16: above 65,504)."""
    job, folder = _job(predictor, split, layers, classes, dtype, batch_size, data or {}), folder.resolve()
    if parts := parts_begun(_parts_folder(folder)):
        return _join_begun(job, folder, parts)
    with _new_folder(folder) as new:
        _require_room(new, job, job.n * job.row_bytes)
        _write_names(new, job)
        position_N = np.arange(math.ceil(job.n / job.batch_size) * job.batch_size)
        done = 0
        with _matrices(new, job, "wb") as matrices:
            for matrix in matrices.values():
                matrix.reserve()
            for row_B, outputs in _computed(job, position_N, workers):
                for name, rows_BD in outputs.items():
                    matrices[name].put(range(done, done + len(row_B)), rows_BD)
                done += len(row_B)
                if progress:
                    progress(done, job.n)
        meta = _complete(new, job, {"environment": environment()})
    return Features(folder, meta)


def extract_part(
    predictor: Predictor,
    split: Split,
    layers: Sequence[str],
    folder: Path,
    part: Part,
    *,
    classes: Sequence[str],
    dtype: Dtype = "float32",
    batch_size: int = BATCH,
    workers: int | None = None,
    data: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> list[Part]:
    """One of several parts of :func:`extract`: every N-th piece. The last part to end joins them in ``folder``, to the bytes
    that one process writes on the same kind of machine; ``machines`` in ``meta.json`` lists them if they were of several kinds.

    Returns the parts that are not done yet; if there are none, ``folder`` holds the features. If it held the same before, they
    are kept and nothing is computed. Arguments and errors are those of :func:`extract`, and the arguments must be the same
    for all parts. Interrupted, the same call goes on. Where another process does the same part, it is waited for.
    ``progress`` counts the images of this part."""
    job, folder = _job(predictor, split, layers, classes, dtype, batch_size, data or {}), folder.resolve()
    _refuse_other(folder)
    if _done_before(job, folder) and not _parts_folder(folder).exists():
        return []
    try:
        work = _begin(job, folder, part.total)
        with locked(work.place / f"part-{part.number}"):
            if not work.finished():  # else the pieces may be gone
                _compute_pieces(job, work, part, workers, progress)
        if left := work.left():
            return left
        _join_begun(job, folder, part.total)
    except FileNotFoundError:
        if not _done_before(job, folder):  # else another process was first
            raise
    return []


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
    They are found again by network, weights, preprocessing, precision, data and split, and checked like those of
    :func:`open_features`."""
    found: dict[str, Features] = {}
    model, parent = model_fingerprint(predictor), cache_folder(cache) / "features"
    for layer in layers:
        find_layers(predictor.model, [layer])
        key = fingerprint([model, predictor.precision, packed.fingerprint, split, layer])[:16]
        folder = parent / f"{layer}-{split}-{key}"
        if not (folder / "meta.json").is_file():
            writable_cache(f"the features {layer}", cache)
            with locked(parent):  # a process that waited here finds the work done
                if not (folder / "meta.json").is_file():
                    extract(
                        predictor,
                        packed.images(split),
                        [layer],
                        folder,
                        classes=packed.classes,
                        workers=workers,
                        data={"split": split, "fingerprint": packed.fingerprint},
                        progress=progress,
                    )
        found[layer] = open_features(folder)
        with suppress(OSError):  # a cache that may only be read
            os.utime(folder)  # when it was last used
    return found


def kept_features(subject: Subject, split: str, layer: str) -> ArrayFile:
    """The activations of a layer for a split of the data of a subject, (N, D), on the disk: those in the cache, or they are
    computed now."""
    with subject.progress(f"{layer} of {split}", len(subject.packed.split(split))) as bar:
        workers = subject.machine.workers
        found = cached_features(subject.predictor, subject.packed, split, [layer], workers=workers, progress=bar)
    return found[layer].matrix(layer)


def open_features(folder: Path) -> Features:
    """Open a folder that :func:`extract` wrote. The SHA-256 of every file is compared. Raises :class:`DataError` for a folder
    that is not one, or is damaged."""
    where = printable(folder)
    if not (folder / "meta.json").is_file():
        raise DataError(f"{where}: holds no features; write some with `alexnet features MODEL --out {where}`")
    meta = SEAL.read(folder)
    if not (names := _files_of(meta)):
        raise SEAL.fault(folder / SEAL.head, "not as this program writes it")
    for name in sorted(names):
        SEAL.require(folder, meta, name)
    return Features(folder, meta)


# --- the work -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    predictor: Predictor
    split: Split
    layers: Sequence[Layer]
    dtype: Dtype
    batch_size: int
    label_N: NDArray[np.int64]
    paths: Sequence[str]
    """The paths of the images. They are read before the work, with the labels: if they are damaged, nothing is lost."""
    description: dict[str, Any]
    """What ``meta.json`` says of it."""

    @property
    def n(self) -> int:
        return len(self.split)

    @property
    def row_bytes(self) -> int:
        return sum(layer.num_units for layer in self.layers) * np.dtype(self.dtype).itemsize

    def pieces(self, parts: int) -> dict[str, range]:
        """The rows of each piece, whole batches, by the name of its file."""
        batches = math.ceil(self.n / self.batch_size)
        each = (
            max(1, min(PIECE_BYTES // (self.batch_size * self.row_bytes), batches // (PIECES * parts)))
            * self.batch_size
        )
        return {f"{first:09d}": range(first, min(first + each, self.n)) for first in range(0, self.n, each)}


def _job(
    predictor: Predictor,
    split: Split,
    layers: Sequence[str],
    classes: Sequence[str],
    dtype: Dtype,
    batch_size: int,
    data: Mapping[str, Any],
) -> _Job:
    found, n = find_layers(predictor.model, layers), len(split)
    if not found:
        raise UsageError("features need at least one layer; name some, such as fc7")
    if n == 0:
        raise UsageError("the split has no images: there is nothing to compute")
    if batch_size < 1:
        raise UsageError(f"batch_size is {batch_size}; it must be at least 1")
    description = {
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
            **data,
        },
    }
    label_N = np.asarray(split.labels, dtype=np.int64)
    return _Job(predictor, split, found, dtype, min(batch_size, n), label_N, split.paths, description)


def _computed(
    job: _Job, position_N: NDArray[np.int64], workers: int | None
) -> Iterator[tuple[NDArray[np.int64], dict[str, NDArray[Any]]]]:
    """Batch after batch at these positions, the last of which may lie behind the last image: the numbers of its images and
    their activations."""
    kernels_in_use(job.predictor.device, build=True)
    order_N = np.minimum(position_N, job.n - 1)  # every pass has the same shape
    for batch in batches(job.split, order_N, job.batch_size, workers=workers):
        outputs = job.predictor.activations(batch.pixels_BSSC, job.layers)
        keep_B = position_N[batch.position_B] < job.n
        yield batch.image_B[keep_B], {name: _as(rows_BD[keep_B], name, job.dtype) for name, rows_BD in outputs.items()}


def _as(rows_BD: NDArray[np.float32], name: str, dtype: Dtype) -> NDArray[Any]:
    with np.errstate(over="ignore"):  # seen by the check that follows
        converted_BD: NDArray[Any] = rows_BD.astype(dtype)
    if not np.isfinite(converted_BD).all():
        raise AlexNetError(
            f"{name}: activations are not finite as {dtype}; take float32, or an earlier checkpoint of the network"
        )
    return converted_BD


class _Matrix:
    """The file of a layer while it is filled; a new one takes room as it is. Written, not memory-mapped: what a full disk
    does to a map is to end the process."""

    def __init__(self, file: BinaryIO, shape: tuple[int, int], dtype: Dtype) -> None:
        self.file, self.shape, self.dtype = file, shape, np.dtype(dtype)
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        self.start = file.tell()
        self.end = self.start + math.prod(shape) * self.dtype.itemsize

    def reserve(self) -> None:
        """Take the room of all rows now, and some for meta.json, where the system can: a full disk or a quota is known
        before the work."""
        if not hasattr(os, "posix_fallocate"):
            return
        try:
            os.posix_fallocate(self.file.fileno(), 0, self.end + META_BYTES)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise

    def put(self, rows: range, value_BD: NDArray[Any]) -> None:
        """Fill these rows. Values that are not theirs: :class:`ValueError`."""
        if value_BD.dtype != self.dtype or value_BD.shape != (len(rows), self.shape[1]):
            raise ValueError(f"{value_BD.dtype} {value_BD.shape} for {len(rows)} rows of {self.dtype} {self.shape}")
        self.file.seek(self.start + rows.start * self.shape[1] * self.dtype.itemsize)
        self.file.write(np.ascontiguousarray(value_BD).data)

    def flush(self) -> None:
        self.file.flush()
        self.file.truncate(self.end)
        os.fsync(self.file.fileno())


@contextmanager
def _matrices(folder: Path, job: _Job, mode: Literal["wb", "r+b"]) -> Iterator[dict[str, _Matrix]]:
    """The files of the layers, new ones or those that are there; on the disk at the end."""
    try:
        with ExitStack() as stack:
            matrices = {}
            for layer in job.layers:
                file = stack.enter_context(open(folder / f"{layer.name}.npy", mode))
                matrix = matrices[layer.name] = _Matrix(file, (job.n, layer.num_units), job.dtype)
                if mode == "wb":
                    file.truncate(matrix.end)
                elif os.fstat(file.fileno()).st_size != matrix.end:
                    raise DataError(
                        f"{printable(file.name)}: cut short; remove {printable(folder.parent)} and run all parts again"
                    )
            yield matrices
            for matrix in matrices.values():
                matrix.flush()
    except OSError as error:
        error.filename = error.filename or str(folder)  # a failed write does not name the file
        raise


def _require_room(folder: Path, job: _Job, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise AlexNetError(
            f"{printable(folder)}: needs {needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free; take fewer layers or float16"
        )


def _write_names(new: Path, job: _Job) -> None:
    write_atomic(new / "labels.npy", lambda file: np.save(file, job.label_N, allow_pickle=False))
    lines = "".join(json.dumps(path) + "\n" for path in job.paths).encode()
    write_atomic(new / "paths.jsonl", lambda file: file.write(lines))


def _complete(new: Path, job: _Job, machines: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``meta.json``, which is returned, when all else is there."""
    names = sorted(file.name for file in new.iterdir())
    meta = {**job.description, **machines, "sha256": SEAL.list_files(new, names)}
    SEAL.write(new, meta)
    return meta


# --- parts ----------------------------------------------------------------------------------------------------------
# A piece that is computed is a file NUMBER.npz. At the join its rows go to the matrices, NUMBER.placed takes its place: pieces
# need not fit on the disk twice.


def _parts_folder(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.parts"


def _begin(job: _Job, folder: Path, parts: int) -> Work:
    place, pieces = _parts_folder(folder), {name: len(rows) for name, rows in job.pieces(parts).items()}
    mark = fingerprint([job.description, job.batch_size])
    work = Work(place, pieces, parts, mark, lambda: _done_before(job, folder) is not None)
    place.mkdir(parents=True, exist_ok=True)
    with locked(place / "whole"):
        other = "begun with another model, data or options; go on with the same, or remove this folder to begin anew"
        work.begin(place, UsageError(f"{printable(place)}: {other}"))
        computed = sum(path.stat().st_blocks * 512 for path in (*place.glob("*.npz"), *place.glob("joined/*.npy")))
        _require_room(place, job, job.n * job.row_bytes - computed)
    return work


def _compute_pieces(
    job: _Job, work: Work, part: Part, workers: int | None, progress: Callable[[int, int], object] | None
) -> None:
    """Compute the pieces of a part that are not there yet."""
    pieces = job.pieces(part.total)
    todo, ready = work.to_do(part.of(list(pieces)), progress)
    if not todo:
        return
    passes = {name: math.ceil(len(pieces[name]) / job.batch_size) for name in todo}
    positions = [pieces[name].start + np.arange(passes[name] * job.batch_size) for name in todo]
    computed = _computed(job, np.concatenate(positions), workers)
    machine = np.array(json.dumps(_machine(job)))
    for name in todo:
        outputs = [next(computed)[1] for _ in range(passes[name])]
        arrays = {str(i): np.concatenate([rows[layer.name] for rows in outputs]) for i, layer in enumerate(job.layers)}
        write_atomic(work.place / f"{name}.npz", partial(_save, {"machine": machine, **arrays}))
        ready(name)


def _save(arrays: Mapping[str, NDArray[Any]], file: BinaryIO) -> None:
    np.savez(file, **arrays)  # type: ignore[arg-type]


def _machine(job: _Job) -> dict[str, Any]:
    """What the last bits of a row depend on."""
    device = job.predictor.device
    return {**environment(), "device": device.type, "normalization": kernels_in_use(device, build=True)}


def _done_before(job: _Job, folder: Path) -> dict[str, Any] | None:
    """The ``meta.json`` in ``folder`` if it holds the features of this job."""
    meta, description = _meta_in(folder), json.loads(json.dumps(job.description))
    return meta if meta and {key: meta.get(key) for key in description} == description else None


def _join_begun(job: _Job, folder: Path, parts: int) -> Features:
    """All pieces as features, if all are there."""
    _refuse_other(folder)
    work = _begin(job, folder, parts)
    place = work.place
    with locked(place / "whole"):
        if (meta := _done_before(job, folder)) is None:
            work.require_done(place, "features")
            (new := place / "joined").mkdir(exist_ok=True)
            machines = _place(job, place, parts)
            for leftover in {*new.iterdir()} - {new / f"{layer.name}.npy" for layer in job.layers}:
                leftover.unlink()  # left by a join that was killed
            alike = {key: value for key, value in machines[0].items() if key not in ("device", "normalization")}
            several = {"machines": machines} if len(machines) > 1 else {}
            _write_names(new, job)
            meta = _complete(new, job, {"environment": alike, **several})
            _replace(folder, new)
        shutil.rmtree(place, ignore_errors=True)
    return Features(folder, meta)


def _place(job: _Job, place: Path, parts: int) -> list[dict[str, Any]]:
    """Bring the rows of all pieces to the matrices of the folder ``joined``. Gives the different machines they come from."""
    machines: list[dict[str, Any]] = []
    with _matrices(place / "joined", job, "r+b" if any(place.glob("*.placed")) else "wb") as matrices:
        fsync_folder(place / "joined")
        for i, (name, rows) in enumerate(job.pieces(parts).items()):
            piece, placed = place / f"{name}.npz", place / f"{name}.placed"
            if not placed.exists():
                try:
                    arrays = read_arrays(piece)
                    machine = json.loads(str(arrays["machine"]))
                    for j, layer in enumerate(job.layers):
                        matrices[layer.name].put(rows, arrays[str(j)])
                except (AlexNetError, KeyError, ValueError) as error:
                    again = Part(i % parts + 1, parts)
                    raise DataError(f"{printable(piece)}: damaged; remove it and run part {again} again") from error
                for matrix in matrices.values():
                    matrix.flush()
                write_json(placed, machine)
            piece.unlink(missing_ok=True)
            if (machine := read_json(placed)) not in machines:
                machines.append(machine)
    return machines


# --- folders --------------------------------------------------------------------------------------------------------


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """An empty folder beside ``folder`` to be filled; it takes the place of ``folder`` at the end, or goes away."""
    _refuse_other(folder)
    new = folder.with_name(f".{folder.name}.new")
    new.mkdir(parents=True, exist_ok=True)
    with alone(new):
        for leftover in new.iterdir():  # left by a command that was killed
            leftover.unlink()
        try:
            yield new
            _refuse_other(folder)  # it may have been filled since
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        _replace(folder, new)


def _replace(folder: Path, new: Path) -> None:
    """Put the folder ``new`` in the place of ``folder``, of which nothing but features goes away: meta.json last, by which what
    is left is known for features if this is cut short."""
    for name in (*_files_of(_meta_in(folder) or {}), "meta.json"):
        (folder / name).unlink(missing_ok=True)
    new.rename(folder)
    fsync_folder(folder.parent)


def _refuse_other(folder: Path) -> None:
    """Raise :class:`UsageError` unless ``folder``, a resolved path, is free, or holds features and nothing else."""
    where = printable(folder)
    if not folder.exists():
        return
    if folder.samefile(os.curdir) or os.path.ismount(folder):
        raise UsageError(
            f"{where}: this is the working folder or a mounted one, which cannot be replaced; name a folder inside it with --out"
        )
    files, meta = sorted(folder.iterdir()) if folder.is_dir() else [folder], _meta_in(folder)
    if files and meta is None:
        raise UsageError(f"{where}: exists and holds no features; take another --out")
    ours = _files_of(meta or {}) | {"meta.json"}
    for file in files:
        if file.name not in ours or file.is_dir():
            raise UsageError(f"{where}: holds {printable(file.name)}, which is no file of features; take another --out")


def _meta_in(folder: Path) -> dict[str, Any] | None:
    """The ``meta.json`` of the features in a folder, of whatever version; None where there are none."""
    meta = read_json(folder / "meta.json") if (folder / "meta.json").is_file() else None
    return meta if isinstance(meta, dict) and str(meta.get("format")).startswith("alexnet features") else None


def _files_of(meta: Mapping[str, Any]) -> set[str]:
    """The names of the files beside ``meta.json``; none if it does not list just them."""
    layers, digests = meta.get("layers"), meta.get("sha256")
    if not isinstance(layers, dict) or not isinstance(digests, dict):
        return set()
    names = {"labels.npy", "paths.jsonl", *(f"{layer}.npy" for layer in layers)}
    return names if names == digests.keys() and not any("/" in name for name in names) else set()
