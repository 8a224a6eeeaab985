"""Short binary codes for image retrieval: how much of the search by 4,096 numbers is left in a few bytes (§6.1).

A coder turns vectors into bits, by random hyperplanes, by ITQ or by an autoencoder. What it learns, it learns from the
vectors of the database alone, without labels. Codes are compared by Hamming distance, exhaustively, with faiss.

Shape suffixes: N vectors of the database, Q queries, D units, K bits, W bytes of a code, R ranks, G groups of equal distance.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from alexnet.core import rng
from alexnet.core.config import to_json
from alexnet.core.console import say
from alexnet.core.errors import AlexNetError, DataError, UsageError, in_short, printable
from alexnet.core.runs import read_arrays, write_atomic
from alexnet.data.packed import PackedSplit
from alexnet.evaluation.error_rate import Split
from alexnet.evaluation.finding import Finding
from alexnet.evaluation.predict import Predictor
from alexnet.evaluation.subject import DataSettings, Subject
from alexnet.probes.autoencoder import SETTINGS, Affine, train_encoder
from alexnet.probes.features import POSITIONS, kept_features
from alexnet.report.pictures.codes import draw_codes

FORMAT = "alexnet coder 1"
Kind = Literal["hyperplanes", "itq", "autoencoder"]
COMPONENTS = 512
"""Principal components that ITQ and the autoencoder see at most."""
ITQ_ROUNDS = 50
RANKS = (10, 100)
USUAL_BITS = (16, 32, 64, 128, 256)
THUMBNAIL = 32
"""Side of the images whose raw pixels are coded, as in Krizhevsky and Hinton 2011, the paper's [14]."""
TIMED_QUERIES = 200
CHUNK = 1 << 21
"""Distances, or numbers of vectors, that are in memory at once."""

TITLE = "Short binary codes"
SENTENCE = "How well images are found again when their features are cut to a few bits, as §6.1 of the paper proposes."


@dataclass(frozen=True, kw_only=True)
class Settings(DataSettings):
    """Search by short binary codes (§6.1): those of random hyperplanes, of ITQ and of an autoencoder, and those of an
    autoencoder on pixels. The training images are the database, the held-out ones the queries.

    alexnet probe codes runs/mine --bits 32 64
    """

    layer: str | None = None
    """Layer to code: by default fc7, or the last hidden layer of a network without one; a wrong name lists all."""
    bits: tuple[int, ...] | None = None
    """Lengths of the codes, multiples of 8; by default 16, 32, 64, 128 and 256, as far as there are so many images."""
    seeds: int = 3
    """How many times everything is fitted, with seeds 0, 1, ..."""

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ValueError(f"Settings.seeds is {self.seeds}; it must be at least 1")
        if self.bits == ():
            raise ValueError("Settings.bits names no length; leave it out, or name some of 8 16 32 64 128 256")


def measure(subject: Subject, settings: Settings) -> Finding:
    """How well each coder finds images again, at each length of the codes (:func:`compare`)."""
    load_faiss()
    layer, packed = subject.predictor.usual_layer(settings.layer), subject.packed
    database, queries = packed.split("train"), packed.split(packed.held_out)
    bits, seeds = _lengths(settings, len(database), layer.num_units), range(settings.seeds)
    features = Vectors(
        layer.name, *(kept_features(subject, split.name, layer.name)[:] for split in (database, queries))
    )
    pixels = Vectors("raw pixels", *(_pixels(subject, split) for split in (database, queries)))
    with subject.progress("codes", 4 * len(bits) * len(seeds), "coders") as bar:
        result = compare(features, pixels, database.labels, queries.labels, bits, seeds, progress=bar)
    body = {"layer": layer.name, "bits": list(bits), "seeds": list(seeds), **result}
    n = {"database": len(database), "queries": len(queries), "classes": len(packed.classes)}
    return Finding(
        subject=subject.record(queries.name),
        n=n,
        summary=_summary(result),
        body=body,
        protocol=describe_protocol(subject.predictor, layer.name),
        lines=_lines(result),
        pictures={"codes.png": draw_codes(body, n)},
    )


def _lengths(settings: Settings, num: int, num_units: int) -> tuple[int, ...]:
    """The lengths of the codes, ascending. Raises what :func:`require_bits` raises."""
    bits = tuple(sorted(set(settings.bits or usual_bits(num, num_units))))
    require_bits(bits, num, num_units)
    if settings.bits is None and len(bits) < len(USUAL_BITS):
        say(f"there are {num} training images: codes of {' and '.join(map(str, bits))} bits")
    return bits


def _pixels(subject: Subject, split: PackedSplit) -> NDArray[np.float32]:
    with subject.progress(f"pixels of {split.name}", len(split)) as bar:
        return thumbnails(split, progress=bar)


def _summary(result: Mapping[str, Any]) -> dict[str, float]:
    """The figures of the report: mean average precisions."""
    summary = {f"mAP, {row['input']}, floats": row["mean_average_precision"] for row in result["float"]}
    for row in result["curves"]:
        summary[f"mAP, {row['input']}, {row['coder']}, {row['bits']} bits"] = row["mean_average_precision"]["mean"]
    return summary


def _lines(result: Mapping[str, Any]) -> list[str]:
    """A table: a row for each search."""
    depth = result["depth"]
    lines = [f"{'':<24} {'bits':>6} {'bytes':>6}    mAP {f'precision@{depth}':>14} {f'recall@{depth}':>11}  ms a query"]
    rows = [(f"{row['input']}, floats", "", row) for row in result["float"]]
    for row in result["curves"]:
        means = {key: value["mean"] if isinstance(value, dict) else value for key, value in row.items()}
        rows.append((f"{row['input']}, {row['coder']}", row["bits"], means))
    for what, bits, row in rows:
        lines.append(
            f"{what:<24} {bits:>6} {row['bytes']:>6,} {row['mean_average_precision']:>6.3f} {row[f'precision_{depth}']:>14.3f} "
            f"{row[f'recall_{depth}']:>11.3f} {row['search_ms']:>11.3f}"
        )
    return lines


@dataclass(frozen=True, eq=False)
class Coder:
    """Affine layers with a ReLU between two; an output above 0 is a bit."""

    kind: Kind
    seed: int
    layers: tuple[Affine, ...]

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"no coder is of kind {self.kind!r}; the kinds are {', '.join(get_args(Kind))}")
        sizes = [weight_OI.shape[::-1] for weight_OI, _ in self.layers]
        fit_together = all(before[-1] == after[0] for before, after in pairwise(sizes))
        if not sizes or any(len(size) != 2 for size in sizes) or not fit_together or sizes[-1][1] % 8:
            raise ValueError(
                f"layers of {sizes} inputs and outputs do not fit together: each must read what the one before it gives, and the "
                "last must give a multiple of 8 bits"
            )
        for weight_OI, bias_O in self.layers:
            if bias_O.shape != weight_OI.shape[:1] or not (weight_OI.dtype == bias_O.dtype == np.float32):
                raise ValueError("weights are float32 (O, I), biases float32 (O,)")
            if not (np.isfinite(weight_OI).all() and np.isfinite(bias_O).all()):
                raise ValueError("the coder has weights that are not finite")

    @property
    def num_bits(self) -> int:
        return len(self.layers[-1][1])

    @property
    def num_units(self) -> int:
        return int(self.layers[0][0].shape[1])

    def encode(self, vector_ND: NDArray[Any]) -> NDArray[np.uint8]:
        """Codes (N, K / 8), the first bit the highest of the first byte, as ``np.packbits`` has it. Vectors of another
        length: :class:`UsageError`."""
        if vector_ND.ndim != 2 or vector_ND.shape[1] != self.num_units:
            raise UsageError(
                f"the coder reads vectors of shape (N, {self.num_units}), and these have {vector_ND.shape}"
            )
        code_NW = np.empty((len(vector_ND), self.num_bits // 8), dtype=np.uint8)
        for rows in _slices(len(vector_ND), self.num_units):
            value = torch.from_numpy(np.array(vector_ND[rows], dtype=np.float32))
            for i, (weight_OI, bias_O) in enumerate(self.layers):
                value = F.linear(value.relu() if i else value, torch.from_numpy(weight_OI), torch.from_numpy(bias_O))
            code_NW[rows] = np.packbits(value.numpy() > 0, axis=1)
        return code_NW

    def save(self, path: Path) -> None:
        """One ``.npz`` file of plain arrays, atomically. Every member of the archive carries a CRC."""
        header = {"format": FORMAT, "kind": self.kind, "seed": self.seed, "layers": len(self.layers)}
        arrays: dict[str, NDArray[Any]] = {"text": np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)}
        for i, (weight_OI, bias_O) in enumerate(self.layers):
            arrays |= {f"weight{i}": weight_OI, f"bias{i}": bias_O}
        write_atomic(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]


def load_coder(path: Path) -> Coder:
    """The inverse of :meth:`Coder.save`; nothing is unpickled. A missing, foreign or damaged file: :class:`DataError`."""
    try:
        arrays = read_arrays(path, what="a sound file of a coder")
        header = json.loads(arrays["text"].tobytes())
        if header["format"] != FORMAT:
            raise ValueError(f"format {header['format']!r}, this program reads {FORMAT!r}")
        layers = tuple((arrays[f"weight{i}"], arrays[f"bias{i}"]) for i in range(header["layers"]))
        return Coder(header["kind"], int(header["seed"]), layers)
    except AlexNetError as error:
        raise DataError(f"{error}; fit it again") from error
    except (ValueError, TypeError, LookupError, OverflowError, MemoryError, RecursionError) as error:
        raise DataError(f"{printable(path)}: not a sound file of a coder ({in_short(error)}); fit it again") from error


@dataclass(frozen=True, eq=False)
class TrainingVectors:
    """The vectors (N, D) that coders learn from, and what several of them need."""

    vector_ND: NDArray[Any]

    @cached_property
    def mean_D(self) -> NDArray[np.float64]:
        mean_D: NDArray[np.float64] = self.vector_ND.mean(axis=0, dtype=np.float64)
        return mean_D

    @cached_property
    def basis_PD(self) -> NDArray[np.float32]:
        """The first principal components, 512 or as many as there are. Vectors that are all equal: :class:`DataError`;
        without scikit-learn: :class:`AlexNetError`."""
        try:
            from sklearn.decomposition import PCA
        except ImportError:
            raise AlexNetError('principal components need scikit-learn: pip install "alexnet[probe]"') from None
        if (self.vector_ND == self.vector_ND[:1]).all():
            raise DataError("all vectors of the database are equal: there is nothing to learn from; take another layer")
        num = min(COMPONENTS, *self.vector_ND.shape)
        pca = PCA(num, random_state=0).fit(np.asarray(self.vector_ND, dtype=np.float32))
        return np.asarray(pca.components_, dtype=np.float32)

    @cached_property
    def projected_NP(self) -> NDArray[np.float32]:
        """The centered vectors in that basis."""
        projected_NP = np.empty((len(self.vector_ND), len(self.basis_PD)), dtype=np.float32)
        for rows in _slices(len(self.vector_ND), self.vector_ND.shape[1]):
            projected_NP[rows] = (self.vector_ND[rows] - self.mean_D).astype(np.float32) @ self.basis_PD.T
        return projected_NP

    def centered(self, weight_OD: NDArray[np.float32], bias_O: NDArray[np.float32] | float = 0.0) -> Affine:
        """The affine map that subtracts the mean first."""
        return weight_OD, (bias_O - weight_OD @ self.mean_D).astype(np.float32)


def fit(kind: Kind, vectors: TrainingVectors, num_bits: int, seed: int) -> Coder:
    """A coder of this kind. Raises what :func:`require_bits` raises."""
    require_bits([num_bits], *vectors.vector_ND.shape)
    fitters = {"hyperplanes": _hyperplanes, "itq": _itq, "autoencoder": _autoencoder}
    return Coder(kind, seed, tuple(fitters[kind](vectors, num_bits, seed)))


def require_bits(bits: Sequence[int], num: int, num_units: int) -> None:
    """Codes have a multiple of 8 bits, and no more than there are principal components; else :class:`UsageError`."""
    most = _most_bits(num, num_units)
    if most < 8:
        raise UsageError(
            f"there are {num:,} training images with {num_units:,} numbers each: codes need at least 8 of both"
        )
    for num_bits in bits:
        if num_bits % 8 or not 8 <= num_bits <= most:
            raise UsageError(
                f"--bits {num_bits}: with {num:,} training images of {num_units:,} numbers each it must be a multiple of 8, at "
                f"most {most}"
            )


def usual_bits(num: int, num_units: int) -> tuple[int, ...]:
    """Those of :data:`USUAL_BITS` that so many vectors have principal components for, or 8."""
    return tuple(bits for bits in USUAL_BITS if bits <= _most_bits(num, num_units)) or (8,)


def _most_bits(num: int, num_units: int) -> int:
    return min(COMPONENTS, num, num_units) // 8 * 8


def ranks_of(num: int) -> tuple[int, ...]:
    """How many of the first results are looked at in a database of ``num`` images: 10 and 100; in one of fewer than 100 images,
    10 or half of them."""
    return RANKS if num >= RANKS[-1] else (max(1, min(RANKS[0], num // 2)),)


def _hyperplanes(vectors: TrainingVectors, num_bits: int, seed: int) -> list[Affine]:
    """Each bit is the side of a random hyperplane through the mean (Charikar 2002): the share of bits that differ is on
    average the angle over pi."""
    num_units = vectors.vector_ND.shape[1]
    normal_KD = rng.normal(seed, "hyperplanes", 0, np.arange(num_bits), num_units).astype(np.float32)
    return [vectors.centered(normal_KD)]


def _itq(vectors: TrainingVectors, num_bits: int, seed: int) -> list[Affine]:
    """Iterative quantization (Gong and Lazebnik 2011): the first principal components, turned so that they come near to the
    corners of a cube. Each of 50 rounds takes the nearest corners, then the best rotation into these (Procrustes); neither
    step makes the squared distance larger. (Not by faiss: the rotation of its ITQMatrix, in 1.15.1, is not the best one.)"""
    x_NK = torch.from_numpy(vectors.projected_NP[:, :num_bits].copy())
    normal_KK = torch.from_numpy(rng.normal(seed, "itq", 0, np.arange(num_bits), num_bits))
    rotation_KK = torch.linalg.qr(normal_KK).Q.float()
    for _ in range(ITQ_ROUNDS):
        corner_NK = torch.where(x_NK @ rotation_KK > 0, 1.0, -1.0)
        u_KK, _, vt_KK = torch.linalg.svd((x_NK.T @ corner_NK).double())
        rotation_KK = (u_KK @ vt_KK).float()
    return [vectors.centered(rotation_KK.T.numpy() @ vectors.basis_PD[:num_bits])]


def _autoencoder(vectors: TrainingVectors, num_bits: int, seed: int) -> list[Affine]:
    """The proposal of §6.1. It sees principal components, so the turn into them belongs to its first layer."""
    (weight_HP, bias_H), second = train_encoder(vectors.projected_NP, num_bits, seed)
    return [vectors.centered(weight_HP @ vectors.basis_PD, bias_H), second]


def code_index(code_NW: NDArray[np.uint8]) -> Any:
    """Exhaustive search by Hamming distance, as a faiss index."""
    index = load_faiss().IndexBinaryFlat(code_NW.shape[1] * 8)
    index.add(code_NW)
    return index


def float_index(vector_ND: NDArray[Any]) -> Any:
    """Exhaustive search by squared Euclidean distance, as a faiss index."""
    index = load_faiss().IndexFlatL2(vector_ND.shape[1])
    index.add(np.ascontiguousarray(vector_ND, dtype=np.float32))
    return index


def load_faiss() -> Any:
    """The module; not installed: :class:`AlexNetError`."""
    try:
        import faiss
    except ImportError:
        raise AlexNetError('search needs faiss: pip install "alexnet[probe]"') from None
    return faiss


def mean_average_precisions(distance_QN: NDArray[Any], relevant_QN: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The average precision of each query (Q,), from distances in ascending order and whether what is there is relevant.

    It is the mean, over the relevant items, of the share of relevant ones among all that come no later. Items at equal
    distance have no order: the answer is the expectation over all orders of them (McSherry and Najork 2008). So it does
    not depend on how images are numbered, and a code that puts everything at one distance gets what chance gets."""
    groups = _Groups(distance_QN, relevant_QN)
    num = distance_QN.shape[1]
    within = np.arange(num)[None, :] - groups.first_G[groups.of_QN]
    # Of an item that is relevant: those before its group, itself, and its share of the group's others.
    others_G = (groups.relevant_G - 1) / np.maximum(groups.size_G - 1, 1)
    expected_QN = groups.before_G[groups.of_QN] + 1 + within * others_G[groups.of_QN]
    share_G = groups.relevant_G / groups.size_G
    sum_Q = (share_G[groups.of_QN] * expected_QN / np.arange(1, num + 1)).sum(axis=1)
    return np.asarray(sum_Q / relevant_QN.sum(axis=1), dtype=np.float64)


def expected_hits(distance_QN: NDArray[Any], relevant_QN: NDArray[np.bool_], rank: int) -> NDArray[np.float64]:
    """How many relevant items are among the first ``rank`` (Q,), on average over all orders of items at equal distance."""
    groups = _Groups(distance_QN, relevant_QN)
    taken_G = np.clip(rank - groups.first_G, 0, groups.size_G)
    row_G = groups.start_G // distance_QN.shape[1]
    hits_Q = np.bincount(row_G, groups.relevant_G * taken_G / groups.size_G, minlength=len(distance_QN))
    return np.asarray(hits_Q, dtype=np.float64)


class _Groups:
    """Runs of equal distance in each row: where they start, their size, how many of them are relevant."""

    def __init__(self, distance_QN: NDArray[Any], relevant_QN: NDArray[np.bool_]) -> None:
        is_first_QN = np.ones(distance_QN.shape, dtype=bool)
        is_first_QN[:, 1:] = distance_QN[:, 1:] != distance_QN[:, :-1]
        num = distance_QN.shape[1]
        self.of_QN = (np.cumsum(is_first_QN.ravel()) - 1).reshape(distance_QN.shape)
        self.start_G = np.flatnonzero(is_first_QN)
        self.first_G = self.start_G % num
        self.size_G = np.diff(self.start_G, append=distance_QN.size)
        self.relevant_G = np.add.reduceat(relevant_QN.ravel().astype(np.int64), self.start_G)
        before_G = np.cumsum(self.relevant_G) - self.relevant_G
        self.before_G = (
            before_G - before_G[np.maximum.accumulate(np.where(self.first_G == 0, np.arange(len(before_G)), 0))]
        )


@dataclass(frozen=True, eq=False)
class Task:
    """What is searched for: held-out queries, and the database by what they ought to find."""

    label_N: NDArray[np.int64]
    label_Q: NDArray[np.int64]
    neighbor_QR: NDArray[np.int64] | None = None
    """The nearest 100 of each query, or as many as :func:`ranks_of` says last, by Euclidean distance between the
    network's vectors; None where nobody asks for the recall."""

    @property
    def chance(self) -> float:
        """The precision of a random order."""
        return float(np.mean(np.bincount(self.label_N)[self.label_Q])) / len(self.label_N)


def quality(index: Any, query: NDArray[Any], task: Task, own_QR: NDArray[np.int64] | None = None) -> dict[str, float]:
    """How good a search is, as means over the queries:

    ``mean_average_precision`` over the whole database, relevant is what has the query's label;
    ``precision_R``: the share of the first R that has it;
    ``recall_R``: the share of the R nearest by Euclidean distance (``task.neighbor_QR``) that is among the first R;
    ``own_recall_R``: the same for ``own_QR``, the nearest in other vectors.

    Items at equal distance have no order: everything is the expectation over their orders."""
    num = index.ntotal
    named = {"recall": task.neighbor_QR, "own_recall": own_QR}
    truths = {name: truth_QR for name, truth_QR in named.items() if truth_QR is not None}
    sums: dict[str, float] = {}
    for rows in _slices(len(query), num):
        distance_QN, item_QN = index.search(np.ascontiguousarray(query[rows]), num)
        relevant_QN = task.label_N[item_QN] == task.label_Q[rows, None]
        values = {"mean_average_precision": mean_average_precisions(distance_QN, relevant_QN)}
        for rank in ranks_of(num):
            values[f"precision_{rank}"] = expected_hits(distance_QN, relevant_QN, rank) / rank
            for name, truth_QR in truths.items():
                is_near_QN = np.zeros(item_QN.shape, dtype=bool)
                np.put_along_axis(is_near_QN, truth_QR[rows, :rank], True, axis=1)
                found_QN = np.take_along_axis(is_near_QN, item_QN, axis=1)
                values[f"{name}_{rank}"] = expected_hits(distance_QN, found_QN, rank) / rank
        for name, value_Q in values.items():
            sums[name] = sums.get(name, 0.0) + float(value_Q.sum())
    return {name: total / len(query) for name, total in sums.items()}


def milliseconds(work: Callable[[NDArray[Any]], object], query: NDArray[Any]) -> float:
    """Milliseconds that one query takes alone: the median of the first 200, on one thread, after ten to warm up."""
    faiss = load_faiss()
    threads, torch_threads = faiss.omp_get_max_threads(), torch.get_num_threads()
    try:
        faiss.omp_set_num_threads(1)
        torch.set_num_threads(1)
        seconds = []
        for i in (*range(-10, 0), *range(TIMED_QUERIES)):
            one = np.ascontiguousarray(query[i % len(query)][None])
            start = time.perf_counter()
            work(one)
            seconds.append(time.perf_counter() - start)
        return float(np.median(seconds[10:])) * 1e3
    finally:
        faiss.omp_set_num_threads(threads)
        torch.set_num_threads(torch_threads)


@dataclass(frozen=True, eq=False)
class Vectors:
    """Vectors of one sort for the database (N, D) and for the queries (Q, D)."""

    name: str
    database_ND: NDArray[Any]
    query_QD: NDArray[Any]

    def directions(self) -> Vectors:
        """Centered vectors of length 1: their Euclidean distance is a function of the angle, as that of signs is."""
        mean_D = self.database_ND.mean(axis=0, dtype=np.float64).astype(np.float32)
        turned = (F.normalize(torch.from_numpy(v - mean_D)).numpy() for v in (self.database_ND, self.query_QD))
        return Vectors(f"{self.name} directions", *turned)


def compare(
    features: Vectors,
    pixels: Vectors,
    label_N: NDArray[np.int64],
    label_Q: NDArray[np.int64],
    bits: Sequence[int],
    seeds: Sequence[int],
    progress: Callable[[int, int], object] | None = None,
) -> dict[str, Any]:
    """All coders on the network's vectors, and the autoencoder on pixels, for each number of bits and each seed, beside
    the search by floats; ``chance`` is the precision of a random order.

    Raises :class:`DataError` for a query whose class is not in the database, and :class:`UsageError` for fewer than 8 images."""
    _require_answers(label_N, label_Q)
    for vectors in (features, pixels):
        require_bits(bits, *vectors.database_ND.shape)
    depth = ranks_of(len(label_N))[-1]
    own = {v.name: float_index(v.database_ND).search(_float32(v.query_QD), depth)[1] for v in (features, pixels)}
    task = Task(label_N, label_Q, own[features.name])
    rows: list[tuple[Kind, Vectors]] = [("hyperplanes", features), ("itq", features), ("autoencoder", features)]
    rows.append(("autoencoder", pixels))
    learned = {v.name: TrainingVectors(v.database_ND) for v in (features, pixels)}
    jobs = [(kind, vectors, num_bits) for kind, vectors in rows for num_bits in bits]
    total, done = len(jobs) * len(seeds), 0
    curves = []
    for kind, vectors, num_bits in jobs:
        figures: list[Mapping[str, float]] = []
        for seed in seeds:
            coder = fit(kind, learned[vectors.name], num_bits, seed)
            index, code_QW = code_index(coder.encode(vectors.database_ND)), coder.encode(vectors.query_QD)
            encoding, searching = milliseconds(coder.encode, vectors.query_QD), _search_time(index, code_QW)
            index.use_heap = False  # counts distances, which is faster when the whole database is ranked
            found = quality(index, code_QW, task, None if vectors is features else own[vectors.name])
            figures.append({**found, "encode_ms": encoding, "search_ms": searching})
            done += 1
            if progress:
                progress(done, total)
        about = {"coder": kind, "input": vectors.name, "bits": num_bits, "bytes": num_bits // 8}
        curves.append({**about, **{name: _spread([f[name] for f in figures]) for name in figures[0]}})
    return {
        "depth": depth,
        "curves": curves,
        "float": [_float_search(v, task) for v in (features, features.directions(), pixels)],
        "chance": task.chance,
    }


def _float_search(vectors: Vectors, task: Task) -> dict[str, Any]:
    index, query_QD = float_index(vectors.database_ND), _float32(vectors.query_QD)
    about = {"input": vectors.name, "bytes": 4 * query_QD.shape[1], "search_ms": _search_time(index, query_QD)}
    return {**about, **quality(index, query_QD, task)}


def _search_time(index: Any, query: NDArray[Any]) -> float:
    return milliseconds(lambda one: index.search(one, ranks_of(index.ntotal)[-1]), query)


def _spread(values: Sequence[float]) -> dict[str, Any]:
    return {"mean": float(np.mean(values)), "low": min(values), "high": max(values), "seeds": list(values)}


def _require_answers(label_N: NDArray[np.int64], label_Q: NDArray[np.int64]) -> None:
    if len(label_N) == 0 or len(label_Q) == 0:
        raise DataError(
            f"a search needs training images and held-out ones to search for; there are {len(label_N)} and {len(label_Q)}"
        )
    missing = sorted(set(label_Q.tolist()) - set(label_N.tolist()))
    if missing:
        raise DataError(
            f"class {missing[0]} has held-out images but no training images, so no search can find any of it"
        )


def describe_protocol(predictor: Predictor, layer: str) -> dict[str, Any]:
    """What was done, for people and for comparison."""
    return {
        "vectors": {
            "layer": layer,
            "view": "center",
            "positions": POSITIONS,
            "precision": predictor.precision,
            "preprocessing": to_json(predictor.preprocessing),
        },
        "pixels": f"stored image averaged down to at most {THUMBNAIL} x {THUMBNAIL}, on 0..1",
        "database": "training images; coders learn from their vectors, without labels",
        "queries": "held-out images, which no coder has learned from",
        "relevant": "same label",
        "ties": "expectation over all orders of items at equal distance",
        "recall": f"of the nearest by Euclidean distance between {layer} vectors; own_recall: between pixels",
        "directions": "vectors centered by the mean of the database and brought to length 1",
        "hyperplanes": "normal vectors from N(0, 1), through the mean of the database",
        "itq": f"principal components, as many as bits, {ITQ_ROUNDS} rounds",
        "autoencoder": {"principal_components": COMPONENTS, **SETTINGS},
        "time": f"one query at a time on one thread, the nearest {RANKS[-1]} (or fewer, of a small database), by a scan: "
        f"median of {TIMED_QUERIES}; "
        "encode_ms is one vector to code, without the network",
        "spread": "mean, lowest and highest over the seeds",
    }


def thumbnails(split: Split, progress: Callable[[int, int], object] | None = None) -> NDArray[np.float32]:
    """The stored images, averaged down to 32 x 32 (smaller ones as they are), on 0..1: (N, 32 * 32 * C)."""
    rows = []
    for chunk in _slices(len(split), 1 << 14):
        pixels_BSSC = torch.from_numpy(split.read(np.arange(len(split))[chunk]))
        x_BCSS = pixels_BSSC.permute(0, 3, 1, 2).float() / 255
        small_BCSS = F.adaptive_avg_pool2d(x_BCSS, min(THUMBNAIL, x_BCSS.shape[-1]))
        rows.append(small_BCSS.flatten(1).numpy())
        if progress:
            progress(min(chunk.stop, len(split)), len(split))
    return np.concatenate(rows)


def _float32(vector_ND: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(vector_ND, dtype=np.float32)


def _slices(num: int, width: int) -> list[slice]:
    """Rows of a matrix of this width, in parts that fit into memory."""
    step = max(1, CHUNK // width)
    return [slice(first, min(first + step, num)) for first in range(0, num, step)]
