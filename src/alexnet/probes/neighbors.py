"""The training images that are nearest to an image: by the features of a layer, and by the pixels (§6.1, Figure 4).

Shape suffixes: Q queries, N images searched, B images of a block, D dimensions, k neighbors, S rows and columns, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.core import rng
from alexnet.core.config import to_json
from alexnet.core.errors import UsageError
from alexnet.core.preprocessing import Preprocessing
from alexnet.data.packed import PackedSet
from alexnet.data.transforms import fit
from alexnet.evaluation.error_rate import Split
from alexnet.evaluation.predict import Predictor, model_fingerprint
from alexnet.probes.features import POSITIONS, cached_features
from alexnet.probes.layers import PIXELS

BLOCK_BYTES = 128 << 20
"""Bytes of float32 that are searched at a time."""
SPARE = 64
"""Rows that are kept, beyond k, to be compared exactly."""
ROUNDING = 8 * 2.0**-24
"""A product of D terms in float32 is off by less than this times the square root of D times both lengths: rounding errors
add up like a random walk (Higham and Mary 2019), with room to spare."""
SHOWN = 6
"""Neighbors of each query in Figure 4."""
RANKED = 200
"""Most queries for which the ranks of neighbors are counted."""


class Rows(Protocol):
    """A matrix (N, D), in memory or not."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: Any, /) -> NDArray[Any]:
        """A slice of the rows, or those of these numbers."""


@dataclass(frozen=True)
class PixelRows:
    """Stored images as the network sees them before the mean is subtracted: the center square of ``crop`` pixels, values
    0..255, a row an image. Read when they are asked for."""

    split: Split
    preprocessing: Preprocessing
    image_N: NDArray[np.int64]
    """Numbers of the images in the split."""

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.image_N), self.preprocessing.crop**2 * self.preprocessing.channels

    def __getitem__(self, rows: Any, /) -> NDArray[Any]:
        pixels_BSSC = torch.as_tensor(self.split.read(self.image_N[rows]))
        pixels_BSSC = fit(pixels_BSSC, self.preprocessing.resize)
        border, crop = (self.preprocessing.resize - self.preprocessing.crop) // 2, self.preprocessing.crop
        pixels_BSSC = pixels_BSSC[:, border : border + crop, border : border + crop]
        return pixels_BSSC.reshape(len(pixels_BSSC), -1).numpy()


@dataclass(frozen=True)
class Nearest:
    """For each query, nearest first; equally near rows in the order of their numbers."""

    index_Qk: NDArray[np.int64]
    distance_Qk: NDArray[np.float64]
    """Euclidean."""


def nearest(
    query_QD: Rows,
    base_ND: Rows,
    k: int,
    *,
    block_bytes: int = BLOCK_BYTES,
    progress: Callable[[int, int], object] | None = None,
) -> Nearest:
    """The ``k`` rows of ``base_ND`` nearest to each query by Euclidean distance, or all if there are fewer: exact, by a scan
    in blocks, so memory does not grow with N or Q.

    Float32 products find the rows that can be among the first k, given what their rounding can amount to; these rows are
    compared in float64. Where more than ``k + SPARE`` rows can, as among many equal ones, all rows are compared so."""
    (num_queries, dim), (n, base_dim) = query_QD.shape, base_ND.shape
    if dim != base_dim:
        raise UsageError(f"the queries have {dim} dimensions, what is searched has {base_dim}; they must be the same")
    if n == 0 or k < 1:
        raise UsageError(f"k is {k} and there are {n} rows to search; both must be at least 1")
    rows, k = _block_rows(dim, block_bytes), min(k, n)
    index_Qk, distance_Qk = np.empty((num_queries, k), np.int64), np.empty((num_queries, k))
    starts = range(0, num_queries, rows)
    for i, start in enumerate(starts):
        part = slice(start, min(start + rows, num_queries))

        def tell(done: int, i: int = i) -> None:
            if progress:
                progress(i * n + done, len(starts) * n)

        index_Qk[part], squared_Qk = _nearest(np.asarray(query_QD[part]), base_ND, k, rows, tell)
        distance_Qk[part] = np.sqrt(squared_Qk)
    return Nearest(index_Qk, distance_Qk)


def ranks(query_QD: Rows, base_ND: Rows, index_Qk: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many other rows of ``base_ND`` are nearer to each query than the given ones: (Q, k). 0 is the nearest. Distances
    are in float32, those of the given rows in float64."""
    query_QD, (n, dim) = np.asarray(query_QD[:]), base_ND.shape
    center_D = query_QD.mean(axis=0, dtype=np.float64).astype(np.float32)
    q_QD = _centered(query_QD, center_D)
    squared_Qk = np.stack(
        [squared_distances(q_D, base_ND[index_k]) for q_D, index_k in zip(query_QD, index_Qk, strict=True)]
    )
    limit_Qk = torch.from_numpy(squared_Qk) - q_QD.double().square().sum(1, keepdim=True)
    rank_Qk = torch.zeros(index_Qk.shape, dtype=torch.int64)
    rows = _block_rows(dim, BLOCK_BYTES)
    for start in range(0, n, rows):
        x_BD = _centered(base_ND[start : start + rows], center_D)
        squared_QB = x_BD.square().sum(1) - 2 * q_QD @ x_BD.T
        number_B = torch.arange(start, start + len(x_BD))
        for j in range(index_Qk.shape[1]):
            other_QB = number_B != torch.from_numpy(index_Qk[:, j, None])
            rank_Qk[:, j] += ((squared_QB < limit_Qk[:, j, None]) & other_QB).sum(1)
    return rank_Qk.numpy()


def _nearest(
    query_QD: NDArray[Any], base_ND: Rows, k: int, rows: int, progress: Callable[[int], object]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Numbers and squared distances. The rows with the smallest lower bounds of the distance are kept; if the k-th of them is
    nearer than the bound of the last, no other row can come before it."""
    (num_queries, dim), n = query_QD.shape, base_ND.shape[0]
    keep, slack = min(k + SPARE, n), ROUNDING * math.sqrt(dim)
    center_D = query_QD.mean(axis=0, dtype=np.float64).astype(
        np.float32
    )  # the shorter the vectors, the less is rounded
    q_QD = _centered(query_QD, center_D)
    q_norm_Q1 = q_QD.norm(dim=1, keepdim=True)
    norm_N = torch.empty(n)
    low_Qm, index_Qm = torch.empty(num_queries, 0), torch.empty(num_queries, 0, dtype=torch.int64)
    for start in range(0, n, rows):
        x_BD = _centered(base_ND[start : start + rows], center_D)
        norm_B = norm_N[start : start + len(x_BD)] = x_BD.norm(dim=1)
        low_QB = torch.addmm(norm_B.square()[None], q_QD, x_BD.T, alpha=-2).sub_(slack * (q_norm_Q1 + norm_B) ** 2)
        index_QB = torch.arange(start, start + len(x_BD)).expand(num_queries, -1)
        low_Qm, place_Qm = torch.cat([low_Qm, low_QB], 1).topk(min(keep, low_Qm.shape[1] + len(x_BD)), largest=False)
        index_Qm = torch.cat([index_Qm, index_QB], 1).gather(1, place_Qm)
        progress(start + len(x_BD))

    low_Qm = low_Qm.double() + q_QD.double().square().sum(1, keepdim=True)
    high_Qm = low_Qm + 2 * slack * (q_norm_Q1 + norm_N[index_Qm]).double() ** 2
    possible_Qm = low_Qm <= high_Qm.kthvalue(k, dim=1, keepdim=True).values
    found_Qk, squared_Qk = np.empty((num_queries, k), np.int64), np.empty((num_queries, k))
    for i, query_D in enumerate(query_QD):
        index_m = np.sort(index_Qm[i, possible_Qm[i]].numpy())
        squared_m = squared_distances(query_D, base_ND[index_m])
        order_k = np.argsort(squared_m, kind="stable")[:k]
        found_Qk[i], squared_Qk[i] = index_m[order_k], squared_m[order_k]
        if keep < n and squared_Qk[i, -1] >= low_Qm[i, -1]:
            found_Qk[i], squared_Qk[i] = _nearest_in_float64(query_D, base_ND, k, max(1, rows // 2))
    return found_Qk, squared_Qk


def _nearest_in_float64(
    query_D: NDArray[Any], base_ND: Rows, k: int, rows: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    index_m, squared_m = np.empty(0, np.int64), np.empty(0)
    for start in range(0, base_ND.shape[0], rows):
        squared_B = squared_distances(query_D, base_ND[start : start + rows])
        squared_m = np.concatenate([squared_m, squared_B])
        index_m = np.concatenate([index_m, np.arange(start, start + len(squared_B))])
        order_k = np.argsort(squared_m, kind="stable")[:k]
        index_m, squared_m = index_m[order_k], squared_m[order_k]
    return index_m, squared_m


def _block_rows(dim: int, block_bytes: int) -> int:
    """Rows of a block, so that neither they nor their products with as many queries take more than ``block_bytes``."""
    return max(1, min(block_bytes // (4 * dim), math.isqrt(block_bytes // 4)))


def squared_distances(query_D: NDArray[Any], rows_BD: NDArray[Any]) -> NDArray[np.float64]:
    """Squared distances in float64. Equal rows have equal ones."""
    difference_BD = rows_BD.astype(np.float64)
    np.subtract(difference_BD, query_D, out=difference_BD)
    squared_B: NDArray[np.float64] = np.square(difference_BD, out=difference_BD).sum(axis=1)
    return squared_B


def _centered(rows_BD: NDArray[Any], center_D: NDArray[np.float32]) -> Tensor:
    """The rows less the center, as a copy in float32."""
    wide: type[np.floating[Any]] = np.float64 if rows_BD.dtype == np.float64 else np.float32
    copy_BD = rows_BD.astype(wide)
    np.subtract(copy_BD, center_D, out=copy_BD)
    return torch.from_numpy(copy_BD).float()


@dataclass(frozen=True)
class KnnError:
    """How many of ``n`` images the majority of their ``k`` nearest neighbors gets wrong."""

    k: int
    n: int
    errors: int

    @property
    def error(self) -> float:
        return self.errors / self.n

    def to_json(self) -> dict[str, Any]:
        return {"k": self.k, "n": self.n, "errors": self.errors, "error": self.error}


def vote(label_Qk: NDArray[np.int64]) -> NDArray[np.int64]:
    """The class of most neighbors, which come nearest first: (Q,). Among classes with equally many, that of the nearer
    neighbor."""
    times_Qk = (label_Qk[:, :, None] == label_Qk[:, None, :]).sum(axis=2)
    chosen_Q1 = times_Qk.argmax(axis=1)[:, None]  # the first of those with most votes
    return np.take_along_axis(label_Qk, chosen_Q1, axis=1)[:, 0]


def knn_errors(
    found: Nearest, train_label_N: NDArray[np.int64], test_label_Q: NDArray[np.int64], ks: Sequence[int]
) -> tuple[KnnError, ...]:
    """The errors of the k nearest neighbors for several k, from one search for the most."""
    num_found = found.index_Qk.shape[1]
    for k in ks:
        if not 1 <= k <= num_found:
            raise UsageError(f"k is {k}; it must be 1 to {num_found}, the number of neighbors there are")
    label_Qk = np.asarray(train_label_N)[found.index_Qk]
    wrong = {k: int((vote(label_Qk[:, :k]) != test_label_Q).sum()) for k in ks}
    return tuple(KnnError(k, len(label_Qk), errors) for k, errors in wrong.items())


def knn_error(
    train_ND: Rows,
    train_label_N: NDArray[np.int64],
    test_QD: Rows,
    test_label_Q: NDArray[np.int64],
    ks: Sequence[int] = (1, 5, 20),
    *,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[KnnError, ...]:
    """The k-nearest-neighbor error of a space: each test image gets the class of most of its k nearest training images
    (:func:`vote`), counted exactly."""
    return knn_errors(nearest(test_QD, train_ND, max(ks), progress=progress), train_label_N, test_label_Q, ks)


@dataclass(frozen=True, kw_only=True)
class Neighbors:
    """What a search for the training images nearest to held-out ones found, by a layer's features and by pixels."""

    layer: str
    packed: PackedSet
    split: str
    seed: int
    shown_Q: NDArray[np.int64]
    """Numbers of the images whose neighbors are shown."""
    shown: Mapping[str, Nearest]
    """Their neighbors in each space: the layer, and ``pixels``."""
    knn: Mapping[str, tuple[KnnError, ...]]
    """Errors of the nearest neighbors in each space, counted over ``n`` images, as are the numbers below."""
    n: int
    same_class: Mapping[str, int]
    """How many of the six nearest of each are of its class."""
    in_both: int
    """How many of the six nearest by the layer are among the six nearest by pixels."""
    pixel_rank: float
    """Median rank by pixels of the six nearest by the layer, as a fraction of the training images: 0.5 is chance."""
    ranked: int
    """Number of images for which these ranks were counted."""
    model: str
    protocol: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        of = min(SHOWN, len(self.packed.split("train"))) * self.n
        same = {space: {"images": num, "of": of, "fraction": num / of} for space, num in self.same_class.items()}
        return {
            "probe": "neighbors",
            "layer": self.layer,
            "n": self.n,
            "train_images": len(self.packed.split("train")),
            "knn": {space: [error.to_json() for error in errors] for space, errors in self.knn.items()},
            "six_nearest": {
                "same_class": same,
                "in_both": {"images": self.in_both, "of": of, "fraction": self.in_both / of},
                "median_pixel_rank": {"fraction_of_training_images": self.pixel_rank, "queries": self.ranked},
            },
            "queries": [self._query(i) for i in range(len(self.shown_Q))],
            "seed": self.seed,
            "protocol": dict(self.protocol),
            "model": self.model,
            "data": {"fingerprint": self.packed.fingerprint, "queries": self.split, "searched": "train"},
        }

    def _query(self, i: int) -> dict[str, Any]:
        def image(split: str, number: int) -> dict[str, Any]:
            images = self.packed.split(split)
            return {
                "image": number,
                "path": images.paths[number],
                "class": self.packed.classes[images.labels[number]],
            }

        found = {
            space: [
                {**image("train", number), "distance": distance}
                for number, distance in zip(nearest.index_Qk[i].tolist(), nearest.distance_Qk[i].tolist(), strict=True)
            ]
            for space, nearest in self.shown.items()
        }
        return {**image(self.split, int(self.shown_Q[i])), **found}


def neighbors(
    predictor: Predictor,
    packed: PackedSet,
    *,
    layer: str = "fc7",
    split: str | None = None,
    images: Sequence[int] = (),
    queries: int = 10,
    ks: Sequence[int] = (1, 5, 20),
    limit: int | None = None,
    seed: int = 0,
    cache: str | Path | None = None,
    workers: int | None = None,
    progress: Callable[[str, int, int], object] | None = None,
) -> Neighbors:
    """The training images nearest to held-out ones (§6.1): six each for the images of these numbers, or for ``queries`` drawn
    ones, each of another class while there are; and the k-nearest-neighbor errors over ``split``, or over ``limit`` images
    of it, drawn. All of it in the space of ``layer`` and in the space of pixels (:class:`PixelRows`).

    ``progress(what, done, total)``. Raises :class:`UsageError` for an unknown layer or images that are not there."""

    def tell(what: str) -> Callable[[int, int], object] | None:
        return None if progress is None else lambda done, total: progress(what, done, total)

    held_out = split or packed.held_out
    train, test, preprocessing = packed.split("train"), packed.split(held_out), predictor.preprocessing
    if layer == PIXELS:
        raise UsageError(f"--layer is {PIXELS}, with which every layer is compared; name another")
    if not ks:
        raise UsageError("ks is empty; name a number of neighbors that vote")
    if not 1 <= min(ks) <= max(ks) <= len(train):
        raise UsageError(
            f"--ks {' '.join(map(str, ks))}: there are {len(train):,} training images; each k must be from 1 to {len(train)}"
        )
    shown_Q = _queries(test.labels, images, queries, seed)
    counted_Q = np.sort(rng.permutation(seed, "neighbors/counted", 0, len(test))[:limit])
    features = {
        part: cached_features(
            predictor, packed, part, [layer], cache=cache, workers=workers, progress=tell(f"{layer} of {part}")
        )[layer].matrix(layer)
        for part in ("train", held_out)
    }
    base: dict[str, Rows] = {
        layer: features["train"],
        PIXELS: PixelRows(train, preprocessing, np.arange(len(train))),
    }

    def rows(space: str, image_Q: NDArray[np.int64]) -> Rows:
        return features[held_out][image_Q] if space == layer else PixelRows(test, preprocessing, image_Q)

    counted = {
        space: nearest(rows(space, counted_Q), base[space], max(SHOWN, *ks), progress=tell(f"neighbors by {space}"))
        for space in base
    }
    six = {space: found.index_Qk[:, :SHOWN] for space, found in counted.items()}
    label_Q = test.labels[counted_Q]
    ranked_Q = rng.permutation(seed, "neighbors/ranked", 0, len(counted_Q))[:RANKED]
    rank_Q6 = ranks(rows(PIXELS, counted_Q[ranked_Q]), base[PIXELS], six[layer][ranked_Q])
    return Neighbors(
        layer=layer,
        packed=packed,
        split=held_out,
        seed=seed,
        shown_Q=shown_Q,
        shown={space: nearest(rows(space, shown_Q), base[space], SHOWN) for space in base},
        knn={space: knn_errors(found, train.labels, label_Q, ks) for space, found in counted.items()},
        n=len(counted_Q),
        same_class={space: int((train.labels[six[space]] == label_Q[:, None]).sum()) for space in base},
        in_both=int((six[layer][:, :, None] == six[PIXELS][:, None, :]).sum()),
        pixel_rank=float(np.median(rank_Q6)) / len(train),
        ranked=len(ranked_Q),
        model=model_fingerprint(predictor),
        protocol={
            "distance": "Euclidean, exact",
            layer: f"center view; {POSITIONS}",
            PIXELS: f"center square of {preprocessing.crop} pixels of the stored image, {base[PIXELS].shape[1]} values 0..255",
            "vote": "most of the k nearest; among classes with equally many, that of the nearer neighbor",
            "queries_shown": "as asked for" if images else "drawn, each of another class while there are",
            "images_counted": "all" if len(counted_Q) == len(test) else "drawn",
            "precision": predictor.precision,
            "preprocessing": to_json(preprocessing),
        },
    )


def _queries(label_N: NDArray[np.int64], images: Sequence[int], num: int, seed: int) -> NDArray[np.int64]:
    n = len(label_N)
    for image in images:
        if not 0 <= image < n:
            raise UsageError(f"there is no image {image}; the split has the images 0 to {n - 1}")
    if images:
        return np.array(images, dtype=np.int64)
    order_N = rng.permutation(seed, "neighbors/shown", 0, n)
    first_N = np.zeros(n, dtype=bool)
    first_N[np.unique(label_N[order_N], return_index=True)[1]] = True
    return np.concatenate([order_N[first_N], order_N[~first_N]])[:num]
