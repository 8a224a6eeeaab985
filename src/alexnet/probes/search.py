"""An index of the images in one's own folders by the features of a layer: build, add, search.

```
meta.json          model, layer, precision, kind, metric; rows, bytes and SHA-256 of the other files; replaced last
vectors-I.npy      (rows, D) float16: part I of the vectors
images-I.jsonl     path, bytes and time (ns) of the image of each of these rows, or of its archive, a JSON list a line
faiss-N.index      of the kinds ivf and hnsw: the first N vectors
codes-N.npy        of the kind codes: (N, B) uint8, short codes of the first N vectors;  coder-N.npz  what makes them
```

A file is written whole before meta.json names it: whatever happens while images are added, what was there before stays.

Shape suffixes: Q queries, N vectors, B vectors of a part or block, or bytes of a code, W words of 64 bits of a code, D
dimensions, k neighbors, m candidates.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet.core import rng
from alexnet.core.config import to_json
from alexnet.core.device import Precision, usable_cores
from alexnet.core.errors import AlexNetError, DataError, ImageError, UsageError, printable
from alexnet.core.parts import alone
from alexnet.core.runs import ArrayFile, write_atomic
from alexnet.core.sealed import Seal
from alexnet.data.inside import holds_pictures, is_there, stamp_of
from alexnet.data.pictures import STDIN, Picture, PictureLike, image_files, pictures
from alexnet.evaluation.layers import find_layers
from alexnet.evaluation.predict import Predictor, model_fingerprint
from alexnet.models.lrn import kernels_in_use
from alexnet.probes.codes import Coder, TrainingVectors, fit, load_coder
from alexnet.probes.neighbors import Nearest, nearest, squared_distances
from alexnet.probes.scan import Directions, Rows

FORMAT, FORMAT_1 = "alexnet index 2", "alexnet index 1"
"""Indexes of format 1 have no metric: theirs is the Euclidean distance."""
SEAL = Seal(
    what="an index", formats=(FORMAT, FORMAT_1), check="check", separators=(", ", ": "), again="build the index again"
)
Kind = Literal["exact", "ivf", "hnsw", "codes"]
Metric = Literal["cosine", "euclidean"]
PART = 8192
"""Most vectors in a part, which is what a killed command loses and what is held in memory."""
BATCH = 32
OWN_FILES = ("vectors-*.npy", "images-*.jsonl", "faiss-*.index", "codes-*.npy", "coder-*.npz", ".*.tmp-*")
MOST_REPLACED = 0.25
"""Share of rows of images that have changed since and got other rows, above which they are taken out: an archive that changes has
all its images read again."""
TRAIN_PER_LIST = 50
"""Vectors for each list of ivf that k-means learns from; faiss wants 39."""
RECALL_QUERIES, RECALL_AT = 100, 10
CODE_BITS = 256
"""Bits of a code; fewer where a vector has fewer numbers. Those of the paper's autoencoder keep most neighbors at each length
(docs/inside.md)."""
CODED_FROM = 20_000
"""Most vectors that the coder learns from, drawn."""
COMPARED = 300
"""Images whose codes are nearest, of which the vectors themselves are then compared. So few images need no codes."""

Image = tuple[str, int, int]
"""Absolute path, bytes, time of the last change in ns: of a picture in an archive (``photos.zip/cat/1.jpg``) those of the
archive."""


@dataclass(frozen=True)
class Index:
    """An opened index. Vectors are read when they are searched."""

    folder: Path
    meta: Mapping[str, Any]

    def __len__(self) -> int:
        return sum(part["rows"] for part in self.meta["parts"])

    @cached_property
    def vectors(self) -> Vectors:
        vectors = Vectors([self.folder / part["vectors"] for part in self.meta["parts"]], int(self.meta["dimension"]))
        if vectors.shape[0] != len(self):
            raise DataError(
                f"{printable(self.folder)}: {vectors.shape[0]:,} vectors for {len(self):,} rows; build the index again"
            )
        return vectors

    @property
    def metric(self) -> Metric:
        """What near means: ``cosine``, 1 less the cosine of the angle between two vectors (one of zeros is at distance 0 from
        its like and 1 from all others), or ``euclidean``."""
        metric: Metric = self.meta.get("metric", "euclidean")
        return metric

    @property
    def _rows(self) -> Rows:
        """The vectors, so placed that the Euclidean distance puts them in the order of the metric."""
        return Directions(self.vectors) if self.metric == "cosine" else self.vectors

    @cached_property
    def images(self) -> list[Image]:
        """The image that each vector belongs to."""
        images: list[Image] = []
        for part in self.meta["parts"]:
            try:
                with open(self.folder / part["images"], encoding="ascii") as file:
                    for path, size, time in map(json.loads, file):
                        images.append((str(path), int(size), int(time)))
            except (ValueError, TypeError, OverflowError, RecursionError) as error:
                said = f"{printable(self.folder / part['images'])}: not a list of images ({printable(error)[:100]})"
                raise DataError(f"{said}; build the index again") from error
        if len(images) != len(self):
            raise DataError(
                f"{printable(self.folder)}: {len(images):,} images for {len(self):,} rows; build the index again"
            )
        return images

    @cached_property
    def paths(self) -> list[str]:
        return [path for path, _, _ in self.images]

    @cached_property
    def _replaced(self) -> set[int]:
        """Rows of files that have since changed and got another row."""
        last = {path: row for row, path in enumerate(self.paths)}
        return set(range(len(self))) - set(last.values())

    def search(self, query_QD: NDArray[Any], k: int) -> Nearest:
        """The ``k`` images nearest to each query, or all if there are fewer, of features of the same model and layer. Exact
        by the kind ``exact``, a scan; by the others of those that faiss or short codes found, with exact distances. -1 and
        infinity where fewer were found."""
        query_QD = self._as_rows(query_QD, k)
        k, num = min(k, len(self)), min(k + len(self._replaced), len(self))
        candidates = [nearest(query_QD, self._rows, num)] if self.shortcut is None else self._candidates(query_QD, num)
        index_Qk, distance_Qk = np.full((len(query_QD), k), -1), np.full((len(query_QD), k), math.inf)
        replaced = np.fromiter(self._replaced, np.int64, len(self._replaced))
        for i in range(len(query_QD)):
            index_m = np.concatenate([found.index_Qk[i] for found in candidates])
            distance_m = np.concatenate([found.distance_Qk[i] for found in candidates])
            live_m = (index_m >= 0) & ~np.isin(index_m, replaced)
            index_m, distance_m = index_m[live_m], distance_m[live_m]
            order_k = np.lexsort([index_m, distance_m])[:k]
            index_Qk[i, : len(order_k)], distance_Qk[i, : len(order_k)] = index_m[order_k], distance_m[order_k]
        return Nearest(index_Qk, distance_Qk**2 / 2 if self.metric == "cosine" else distance_Qk)

    def search_codes(self, query_QD: NDArray[Any], k: int) -> Nearest | None:
        """By the short codes alone, without the vectors: the ``k`` images in whose codes the fewest bits differ from the code of
        each query, and how many differ; of equal ones the first. None where the index has no codes."""
        if self.meta["kind"] != "codes" or self.shortcut is None:
            return None
        rows, k = int(self.shortcut["rows"]), min(k, len(self))
        index_Qk, bits_Qk = np.full((len(query_QD), k), -1), np.full((len(query_QD), k), math.inf)
        live_N = np.setdiff1d(np.arange(rows), np.fromiter(self._replaced, np.int64, len(self._replaced)))
        for i, bits_N in enumerate(self.codes.differing(self._as_rows(query_QD, k))):
            order_k = _least(bits_N[live_N] * rows + live_N, k)
            bits_Qk[i, : len(order_k)], index_Qk[i, : len(order_k)] = np.divmod(np.sort(order_k), rows)
        return Nearest(index_Qk, bits_Qk)

    def _as_rows(self, query_QD: NDArray[Any], k: int) -> NDArray[Any]:
        """Queries like the rows that they are compared with. Refuses what cannot be searched for."""
        if len(self) == 0:
            raise DataError(f"{printable(self.folder)}: holds no images yet; go on with `alexnet index --add`")
        dim = int(self.meta["dimension"])
        if query_QD.ndim != 2 or query_QD.shape[1] != dim or not np.isfinite(query_QD).all():
            raise UsageError(f"queries are {query_QD.shape}; they must be (Q, {dim}), finite")
        if k < 1:
            raise UsageError(f"k is {k}; it must be at least 1")
        query_QD = _as_stored(query_QD).astype(np.float32)
        return Directions(query_QD)[:] if self.metric == "cosine" else query_QD

    @property
    def shortcut(self) -> dict[str, Any] | None:
        """What meta.json says of that which is searched in place of all vectors; None for a scan."""
        found: dict[str, Any] | None = self.meta.get("codes" if self.meta["kind"] == "codes" else "faiss")
        return found

    @cached_property
    def _faiss(self) -> Any:
        faiss = _import_faiss()
        flags = faiss.IO_FLAG_MMAP if self.meta["kind"] == "ivf" else 0
        return faiss.read_index(str(self.folder / self.meta["faiss"]["file"]), flags)

    def _candidates(self, query_QD: NDArray[Any], k: int) -> list[Nearest]:
        """What faiss or the codes find among their vectors, and the nearest of those that were added and are not yet there."""
        assert self.shortcut is not None
        rows, n = int(self.shortcut["rows"]), len(self)
        index_Qk = (
            self.codes.nearest(query_QD, min(max(k, COMPARED), rows))
            if self.meta["kind"] == "codes"
            else self._faiss.search(query_QD.astype(np.float32), min(k, rows))[1]
        )
        distance_Qk = np.full(index_Qk.shape, math.inf)
        for i, index_k in enumerate(index_Qk):
            found_k = index_k >= 0
            distance_Qk[i, found_k] = np.sqrt(squared_distances(query_QD[i], self._rows[index_k[found_k]]))
        found = [Nearest(index_Qk, distance_Qk)]
        if rows < n:
            rest = nearest(query_QD, self._rows[rows:n], k)
            found.append(Nearest(rest.index_Qk + rows, rest.distance_Qk))
        return found

    @cached_property
    def codes(self) -> Codes:
        """The short codes of an index of the kind ``codes``, which are read when they are first asked for."""
        about = self.meta["codes"]
        coder = load_coder(self.folder / about["coder"])
        code_NB = ArrayFile(self.folder / about["file"])[:]
        if code_NB.dtype != np.uint8 or code_NB.shape != (about["rows"], coder.num_bits // 8):
            raise SEAL.fault(self.folder / about["file"], f"{code_NB.dtype} {code_NB.shape}, which are not its codes")
        if coder.num_units != self._rows.shape[1]:
            raise SEAL.fault(self.folder / about["coder"], f"it codes vectors of {coder.num_units} numbers")
        return Codes(coder, code_NB)


class Codes:
    """Short codes of vectors, compared by the number of bits that differ: with NumPy alone, since the codes of a million images
    take a few milliseconds."""

    def __init__(self, coder: Coder, code_NB: NDArray[np.uint8]) -> None:
        self.coder, self._word_NW = coder, _in_words(code_NB)

    def nearest(self, query_QD: NDArray[Any], m: int) -> NDArray[np.int64]:
        """The ``m`` nearest codes of each query (Q, m), in the order of the rows; of equally near ones the first."""
        n = len(self._word_NW)
        ordered = (_least(bits_N * n + np.arange(n), m) % n for bits_N in self.differing(query_QD))
        return np.array([np.sort(index_m) for index_m in ordered]).reshape(len(query_QD), m)

    def differing(self, query_QD: NDArray[Any]) -> Iterator[NDArray[np.int64]]:
        """How many bits of each code differ from those of a query, (N,), for one query after the other."""
        return (bits_in(self._word_NW ^ word_W) for word_W in _in_words(self.coder.encode(query_QD)))


def _least(value_N: NDArray[np.int64], m: int) -> NDArray[np.int64]:
    """The ``m`` least values, or all if there are fewer, in no order."""
    return np.partition(value_N, m - 1)[:m] if m < len(value_N) else value_N


def _in_words(code_NB: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Codes of any number of bytes as words of 64 bits (N, W), filled up with zeros."""
    padded_NB = np.zeros((len(code_NB), -(-code_NB.shape[1] // 8) * 8), np.uint8)
    padded_NB[:, : code_NB.shape[1]] = code_NB
    return padded_NB.view(np.uint64)


_BITS_IN_BYTE = np.array([value.bit_count() for value in range(256)], np.uint8)


def bits_in(word_NW: NDArray[np.uint64]) -> NDArray[np.int64]:
    """How many bits of each row are 1: (N,)."""
    if hasattr(np, "bitwise_count"):  # NumPy 2
        counts: NDArray[np.uint8] = np.bitwise_count(word_NW)
    else:
        counts = _BITS_IN_BYTE[word_NW.view(np.uint8)]
    sum_N: NDArray[np.int64] = counts.sum(axis=1, dtype=np.int64)
    return sum_N


class Vectors:
    """The parts of an index as one matrix (N, D) float16, on the disk: rows are read when they are asked for."""

    dtype = np.dtype(np.float16)

    def __init__(self, files: Sequence[Path], dim: int) -> None:
        self._parts = [ArrayFile(file) for file in files]
        for file, part in zip(files, self._parts, strict=True):
            if len(part.shape) != 2 or part.shape[1] != dim or part.dtype != np.float16:
                raise DataError(
                    f"{printable(file)}: {part.dtype} {part.shape}, not float16 (N, {dim}); build the index again"
                )
        self._ends = np.cumsum([len(part) for part in self._parts], dtype=np.int64)
        self.shape = (int(self._ends[-1]) if files else 0, dim)

    def __getitem__(self, rows: Any, /) -> NDArray[Any]:
        """A slice of the rows, or those of these numbers."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(self.shape[0])
            if step == 1:
                return self._slice(start, stop)
            rows = np.arange(start, stop, step)
        index_B = np.asarray(rows)
        vector_BD = np.empty((len(index_B), self.shape[1]), np.float16)
        part_B = np.searchsorted(self._ends, index_B, side="right")
        for p in np.unique(part_B).tolist():
            here_B = np.flatnonzero(part_B == p)
            start = int(self._ends[p]) - len(self._parts[p])
            vector_BD[here_B] = self._parts[p][index_B[here_B] - start]
        return vector_BD

    def _slice(self, start: int, stop: int) -> NDArray[np.float16]:
        pieces = []
        for end, part in zip(self._ends.tolist(), self._parts, strict=True):
            first = end - len(part)
            if start < end and first < stop:
                pieces.append(part[max(0, start - first) : stop - first])
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else np.empty((0, self.shape[1]), np.float16)


def build_index(
    predictor: Predictor,
    sources: Iterable[str | Path],
    folder: Path,
    *,
    model: str | Path,
    layer: str = "fc7",
    kind: Kind = "exact",
    metric: Metric = "cosine",
    chosen: Mapping[str, Any] | None = None,
    on_fault: Callable[[ImageError], object] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Index:
    """An index of the images of files, folders and archives in the new folder ``folder``. ``model`` is where the predictor was
    loaded from, for the searches to come; ``chosen`` says why this metric. A file that cannot be read is given to ``on_fault``
    and left out. Raises :class:`UsageError` for a folder that is not empty, and :class:`DataError` if no image could be read."""
    (found,) = find_layers(predictor.model, [layer])
    require_possible(folder, kind)
    if kind == "codes" and found.num_units < 8:
        raise UsageError(
            f"{layer} has {found.num_units} numbers an image, and codes need 8 or more; take another --layer or --kind exact"
        )
    sources = list(sources)
    folder.mkdir(parents=True, exist_ok=True)
    meta = {
        "format": FORMAT,
        "model": str(Path(model).absolute()),
        "model_fingerprint": model_fingerprint(predictor),
        "network": predictor.name,
        "layer": layer,
        "dimension": found.num_units,
        "dtype": "float16",
        "precision": predictor.precision,
        "preprocessing": to_json(predictor.preprocessing),
        "kind": kind,
        "metric": metric,
        "chosen": chosen,
        "parts": [],
        "faiss": None,
        "codes": None,
        "files": {},
    }
    SEAL.write(folder, meta)
    try:
        return add_to_index(Index(folder, meta), predictor, sources, on_fault=on_fault, progress=progress)
    except AlexNetError:
        if not open_index(folder).meta["parts"]:
            (folder / "meta.json").unlink()
            with suppress(OSError):  # a link to a folder stays
                folder.rmdir()
        raise


def require_possible(folder: Path, kind: Kind) -> None:
    """Raises :class:`UsageError` for a folder that is not empty, and :class:`AlexNetError` where a kind cannot be built."""
    if kind == "codes":
        _require_sklearn()
    elif kind != "exact":
        _import_faiss()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            f"{printable(folder)}: exists and is not empty; add to an index with --add, or take another --out"
        )


def add_to_index(
    index: Index,
    predictor: Predictor,
    sources: Iterable[str | Path],
    *,
    everywhere: bool = False,
    on_fault: Callable[[ImageError], object] | None = None,
    on_gone: Callable[[str], object] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Index:
    """The index as these files, folders and archives are now: with their images that are not yet in it, by path, size and time,
    where a file that has changed takes the place of what it was, and without those that are no longer there, whose paths are
    given to ``on_gone``. What is not of ``sources`` stays: it may be on a disk that is not mounted. With ``everywhere`` all
    files of the index are looked at as well, wherever they are. Raises :class:`UsageError` for another model than the index was
    built with."""
    require_model(index, predictor)
    named = [str(source) for source in sources]
    with alone(index.folder):
        index = open_index(index.folder)
        _sweep(index)
        known, gone = set(index.images), _gone(index, named, everywhere)
        lost = dict.fromkeys(index.paths[row] for row in gone)
        looked_at = chain(image_files(named), index.paths if everywhere else ())
        images = [image for image in dict.fromkeys(map(_image, looked_at)) if image not in known]
        images = [image for image in images if image[0] not in lost]
        if on_gone:
            for path in lost:
                on_gone(path)
        if gone:
            index = _without(index, gone)
        kernels_in_use(predictor.device, build=bool(images))
        done = 0
        rows: list[NDArray[np.float16]] = []
        kept: list[Image] = []
        files = (Picture(path, Path(path)) for path, _, _ in images)
        for image, (_, row) in zip(images, features_of(index, predictor, files), strict=True):
            if isinstance(row, ImageError):
                if on_fault:
                    on_fault(row)
            else:
                kept.append(image)
                rows.append(row)
            if len(rows) >= PART:
                index, rows, kept = _with_part(index, rows, kept), [], []
            if progress:
                done += 1
                progress(done, len(images))
        if rows:
            index = _with_part(index, rows, kept)
        if len(index._replaced) > MOST_REPLACED * len(index):
            index = _without(index, index._replaced)
        if len(index) == 0 and not gone:
            raise DataError("none of the images could be read; an index needs at least one")
        if index.meta["kind"] == "exact" or len(index) == 0:
            return index
        return _with_codes(index) if index.meta["kind"] == "codes" else _with_faiss(index)


def _gone(index: Index, sources: Iterable[str], everywhere: bool) -> list[int]:
    """The rows of files that these sources, or with ``everywhere`` any, held and that are no longer there. (A folder that is not
    there itself may be on a disk that is not mounted.)"""
    places = {os.path.abspath(source) for source in sources if source != STDIN}  # noqa: PTH100, which keeps links
    several = tuple(
        f"{place.rstrip(os.sep)}{os.sep}" for place in places if Path(place).is_dir() or holds_pictures(place)
    )
    return [
        row
        for row, (path, size, time_ns) in enumerate(index.images)
        if (everywhere or path in places or path.startswith(several)) and not is_there(path, (size, time_ns))
    ]


def open_index(folder: str | Path) -> Index:
    """Open an index. Size and SHA-256 of every file are compared with meta.json before anything is read from them; what faiss
    reads is nevertheless as trustworthy as who wrote the folder. Raises :class:`DataError` for a folder that is no index, or
    is damaged."""
    folder = Path(folder)
    where = printable(folder)
    if not (folder / "meta.json").is_file():
        raise DataError(f"{where}: holds no index; make one with `alexnet index MODEL FOLDER --out {where}`")
    meta = SEAL.read(folder)
    if not _is_whole(meta):
        raise SEAL.fault(folder / SEAL.head, "not as this program writes it")
    with ThreadPoolExecutor(usable_cores()) as threads:
        list(threads.map(lambda name: SEAL.require(folder, meta, name), meta["files"]))
    return Index(folder, meta)


def require_model(index: Index, predictor: Predictor) -> None:
    """Raises :class:`UsageError` unless the predictor computes the features that the index holds."""
    if model_fingerprint(predictor) != index.meta["model_fingerprint"]:
        raise UsageError(
            f"{printable(index.folder)}: holds features of another model ({printable(index.meta['network'])} from "
            f"{printable(index.meta['model'])}); distances to those of this one mean nothing: name that model, or build anew"
        )
    if predictor.precision != index.meta["precision"]:
        raise UsageError(
            f"{printable(index.folder)}: this index was made in {printable(index.meta['precision'])}; pass --precision "
            f"{printable(index.meta['precision'])}"
        )


def query_vectors(
    index: Index,
    predictor: Predictor,
    given: PictureLike | Iterable[PictureLike],
    *,
    on_fault: Callable[[ImageError], object] | None = None,
) -> tuple[list[str], NDArray[np.float16]]:
    """The names and the features (Q, D) of query pictures. One that cannot be read is given to ``on_fault`` and left out."""
    require_model(index, predictor)
    names, rows = [], []
    for name, row in features_of(index, predictor, pictures(given)):
        if isinstance(row, ImageError):
            if on_fault:
                on_fault(row)
        else:
            names.append(name)
            rows.append(row)
    return names, np.array(rows, np.float16).reshape(len(rows), int(index.meta["dimension"]))


def features_of(
    index: Index, predictor: Predictor, given: Iterator[Picture]
) -> Iterator[tuple[str, NDArray[np.float16] | ImageError]]:
    """The name of each picture, and its features or what is wrong with it, in order."""
    layers = find_layers(predictor.model, [index.meta["layer"]])
    for group in predictor.decoded(given, BATCH):
        good = [it for _, it in group if not isinstance(it, ImageError)]
        rows: Iterator[NDArray[np.float16]] = iter(())
        if good:
            good += good[-1:] * (BATCH - len(good))  # every pass has the same shape, so equal files have equal features
            rows = iter(_as_stored(predictor.activations(torch.from_numpy(np.stack(good)), layers)[layers[0].name]))
        yield from ((name, it if isinstance(it, ImageError) else next(rows)) for name, it in group)


def _image(path: str) -> Image:
    if path == STDIN:
        raise UsageError("an index is of files; standard input can only be searched for")
    absolute = os.path.abspath(path)  # noqa: PTH100, which keeps links
    return absolute, *(stamp_of(absolute) or (0, 0))  # of one that is not there, reading will say why


def _as_stored(vector_BD: NDArray[Any]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        half_BD = vector_BD.astype(np.float16)
    if not np.isfinite(half_BD).all():
        raise AlexNetError("features are not finite as float16, which an index holds; take another layer")
    return half_BD


# --- the files ------------------------------------------------------------------------------------------------------


def _with_part(index: Index, rows: Sequence[NDArray[np.float16]], images: Sequence[Image]) -> Index:
    index = _part_of(index, np.stack(rows), images, _next_part(index))
    SEAL.write(index.folder, index.meta)
    return index


def _part_of(index: Index, vector_BD: NDArray[np.float16], images: Sequence[Image], number: int) -> Index:
    """The index with one more part, whose files are written; meta.json does not name them yet."""
    lines = "".join(json.dumps(image) + "\n" for image in images).encode()
    part = {"vectors": f"vectors-{number}.npy", "images": f"images-{number}.jsonl", "rows": len(images)}
    write_atomic(index.folder / str(part["vectors"]), lambda file: np.save(file, vector_BD, allow_pickle=False))
    write_atomic(index.folder / str(part["images"]), lambda file: file.write(lines))
    files = _described(index, str(part["vectors"]), str(part["images"]))
    return Index(index.folder, {**index.meta, "parts": [*index.meta["parts"], part], "files": files})


def _next_part(index: Index) -> int:
    numbers = (re.fullmatch(r"vectors-(\d{1,9})\.npy", part["vectors"]) for part in index.meta["parts"])
    return 1 + max((int(number[1]) for number in numbers if number), default=-1)


def _without(index: Index, rows: Collection[int]) -> Index:
    """The index without these rows: parts that hold some are written again, under other names, and what faiss had of them is
    left out. Until the new meta.json stands, the old one does."""
    images, vectors, first = index.images, index.vectors, 0
    drop_N = np.zeros(len(index), dtype=bool)
    drop_N[list(rows)] = True
    untouched: list[Any] = []
    left: list[int] = []
    for part in index.meta["parts"]:
        here = range(first, first + part["rows"])
        first = here.stop
        if drop_N[here.start : here.stop].any():
            left += [row for row in here if not drop_N[row]]
        else:
            untouched.append(part)
    named = {name for part in untouched for name in (part["vectors"], part["images"])}
    files = {name: about for name, about in index.meta["files"].items() if name in named}
    meta = {**index.meta, "parts": untouched, "files": files, "faiss": None, "codes": None}
    thinned = Index(index.folder, meta)
    number = _next_part(index)
    for start in range(0, len(left), PART):
        some = left[start : start + PART]
        thinned = _part_of(thinned, vectors[np.array(some)], [images[row] for row in some], number)
        number += 1
    SEAL.write(index.folder, thinned.meta)
    _sweep(thinned)
    return Index(index.folder, thinned.meta)


def _rewritten(index: Index, **changes: Any) -> Index:
    meta = {**index.meta, **changes}
    SEAL.write(index.folder, meta)
    return Index(index.folder, meta)


def _described(index: Index, *names: str) -> dict[str, Any]:
    return {**index.meta["files"], **SEAL.list_files(index.folder, names)}


def _is_whole(meta: Mapping[str, Any]) -> bool:
    """Whether all that is read of a ``meta.json`` is there and of its kind; its checksum does not tell who wrote it. Files
    that are opened must be among those that are compared."""
    try:
        parts, files, faiss, codes = meta["parts"], meta["files"], meta["faiss"], meta.get("codes")
        opened = [part[key] for part in parts for key in ("vectors", "images")]
        counts, measured = [meta["dimension"], *(part["rows"] for part in parts)], []
        for shortcut, names in ((faiss, ("file",)), (codes, ("file", "coder"))):
            if shortcut is not None:
                opened += [shortcut[name] for name in names]
                counts += [shortcut["rows"], shortcut["learned_from"]]
                measured += [shortcut["recall"][key] for key in ("at", "found", "of", "queries", "recall")]
        texts = [meta[key] for key in ("model", "model_fingerprint", "network", "layer")]
        return (
            all(type(count) is int and count > 0 for count in counts)
            and all(isinstance(number, int | float) for number in measured)
            and all(isinstance(text, str) for text in (*texts, *opened))
            and len(set(opened)) == len(opened)
            and set(opened) <= files.keys()
            and meta["kind"] in get_args(Kind)
            and (meta["format"] == FORMAT_1 or meta["metric"] in get_args(Metric))
            and meta["precision"] in get_args(Precision)
            and (faiss is None or meta["kind"] in ("ivf", "hnsw"))
            and (codes is None or meta["kind"] == "codes")
            and all(s is None or s["rows"] <= sum(counts[1 : len(parts) + 1]) for s in (faiss, codes))
        )
    except (LookupError, TypeError, AttributeError):
        return False


def _sweep(index: Index) -> None:
    """Delete what a killed command wrote and did not come to name."""
    for pattern in OWN_FILES:
        for file in index.folder.glob(pattern):
            if file.name not in index.meta["files"]:
                file.unlink()


# --- codes ----------------------------------------------------------------------------------------------------------


def _require_sklearn() -> None:
    if find_spec("sklearn") is None:
        raise AlexNetError('the kind codes learns with scikit-learn: pip install "alexnet[probe]"')


def _with_codes(index: Index) -> Index:
    """All vectors coded, by a coder that is learned anew where they have become twice as many, and what part of the true
    neighbors a search by codes finds. Few images get none: all are compared."""
    old, n = index.meta.get("codes"), len(index)
    if n <= COMPARED or (old and old["rows"] == n):
        return index
    if old and n < 2 * old["learned_from"]:
        coder, rows, learned = load_coder(index.folder / old["coder"]), old["rows"], old["learned_from"]
        code_NB = ArrayFile(index.folder / old["file"])[:]
    else:
        coder, rows, learned = _learned_coder(index), 0, n
        code_NB = np.empty((0, coder.num_bits // 8), np.uint8)
    coded = [coder.encode(index._rows[start : min(start + PART, n)]) for start in range(rows, n, PART)]
    codes, coder_file = f"codes-{n}.npy", f"coder-{n}.npz"
    all_NB = np.concatenate([code_NB, *coded])
    write_atomic(index.folder / codes, lambda file: np.save(file, all_NB, allow_pickle=False))
    coder.save(index.folder / coder_file)
    about = {
        "file": codes,
        "coder": coder_file,
        "rows": n,
        "learned_from": learned,
        "made_by": coder.kind,
        "bits": coder.num_bits,
        "compared": COMPARED,
    }
    files = _described(index, codes, coder_file)
    if old:
        del files[old["file"]], files[old["coder"]]
    found = Index(index.folder, {**index.meta, "codes": about, "files": files})
    index = _rewritten(found, codes={**about, "recall": recall(found)})
    _sweep(index)
    return index


def _learned_coder(index: Index) -> Coder:
    """The paper's autoencoder, learned from vectors of this index."""
    n, dim = index._rows.shape
    sample = np.sort(rng.permutation(0, "search/codes", 0, n)[:CODED_FROM])
    parts = [index._rows[sample[i : i + PART]].astype(np.float32) for i in range(0, len(sample), PART)]
    vectors = TrainingVectors(np.concatenate(parts))
    return fit("autoencoder", vectors, min(CODE_BITS, n // 8 * 8, dim // 8 * 8), seed=0)


# --- faiss ----------------------------------------------------------------------------------------------------------


def _import_faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise AlexNetError('the kinds ivf and hnsw need faiss: pip install "alexnet[probe]"') from None
    faiss.omp_set_num_threads(torch.get_num_threads())
    return faiss


def _with_faiss(index: Index) -> Index:
    """All vectors put into what faiss searches, learned anew where they have become twice as many, and what part of the true
    neighbors it finds."""
    faiss, old, n = _import_faiss(), index.meta["faiss"], len(index)
    if old and old["rows"] == n:
        return index
    if old and n < 2 * old["learned_from"]:
        searched, rows, learned = faiss.read_index(str(index.folder / old["file"])), old["rows"], old["learned_from"]
    else:
        searched, rows, learned = _empty_faiss(faiss, index), 0, n
    for start in range(rows, n, PART):
        searched.add(index._rows[start : min(start + PART, n)].astype(np.float32))
    name = f"faiss-{n}.index"
    faiss.write_index(searched, str(index.folder / name))
    with open(index.folder / name, "rb") as file:
        os.fsync(file.fileno())
    about = {"file": name, "rows": n, "learned_from": learned, "version": faiss.__version__}
    files = _described(index, name)
    if old:
        del files[old["file"]]
    found = Index(index.folder, {**index.meta, "faiss": about, "files": files})
    index = _rewritten(found, faiss={**about, "recall": recall(found)})
    _sweep(index)
    return index


def _empty_faiss(faiss: Any, index: Index) -> Any:
    """Vectors as float16, which they are: only the choice of which to compare is approximate."""
    n, dim = index._rows.shape
    half = faiss.ScalarQuantizer.QT_fp16
    if index.meta["kind"] == "hnsw":
        searched = faiss.IndexHNSWSQ(dim, half, 32)
        searched.hnsw.efConstruction, searched.hnsw.efSearch = 80, 64
        searched.train(index._rows[:1].astype(np.float32))
        return searched
    num_lists = max(1, min(math.isqrt(n), n // TRAIN_PER_LIST))
    searched = faiss.IndexIVFScalarQuantizer(faiss.IndexFlatL2(dim), dim, num_lists, half, faiss.METRIC_L2, False)
    searched.nprobe = max(1, num_lists // 8)
    sample = np.sort(rng.permutation(0, "search/lists", 0, n)[: TRAIN_PER_LIST * num_lists])
    searched.train(index._rows[sample].astype(np.float32))
    return searched


def recall(index: Index, k: int = RECALL_AT) -> dict[str, Any]:
    """How many of the ``k`` true neighbors of some of its own images, themselves left out, an index finds."""
    own_Q = np.sort(rng.permutation(0, "search/recall", 0, len(index))[:RECALL_QUERIES])
    query_QD = index._rows[own_Q]
    exact_Qk = nearest(query_QD, index._rows, k + 1).index_Qk
    found = index._candidates(query_QD, min(k + 1, len(index)))[0]
    hits = total = 0
    found_Qm = np.take_along_axis(found.index_Qk, found.distance_Qk.argsort(axis=1, kind="stable"), axis=1)
    for own, exact_k, found_k in zip(own_Q.tolist(), exact_Qk.tolist(), found_Qm.tolist(), strict=True):
        true = [row for row in exact_k if row != own][:k]
        hits += len(set(true) & set([row for row in found_k if row != own][:k]))
        total += len(true)
    return {"at": k, "found": hits, "of": total, "queries": len(own_Q), "recall": hits / total if total else 1.0}
