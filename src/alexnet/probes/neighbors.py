"""The training images that are nearest to an image: by the features of a layer, and by the pixels (§6.1, Figure 4).

Shape suffixes: Q queries, N images searched, M held-out images, R queries whose ranks are counted, B images of a block,
D dimensions, k neighbors, S rows and columns, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet.core import rng
from alexnet.core.config import to_json
from alexnet.core.console import say
from alexnet.core.errors import UsageError, printable
from alexnet.core.intervals import Errors
from alexnet.core.preprocessing import Preprocessing
from alexnet.data.packed import PackedSet, PackedSplit
from alexnet.data.transforms import fit
from alexnet.evaluation.error_rate import Split
from alexnet.evaluation.finding import Finding
from alexnet.evaluation.layers import PIXELS
from alexnet.evaluation.predict import Predictor
from alexnet.evaluation.subject import DataSettings, Subject
from alexnet.probes.features import POSITIONS, kept_features
from alexnet.probes.scan import ROUNDING, Rows, blur, centered, scan
from alexnet.report.pictures.neighbors import Tile, draw_errors, draw_neighbors

BLOCK_BYTES = 128 << 20
"""Bytes of float32 that are searched at a time."""
SPARE = 64
"""Rows that are kept, beyond k, to be compared exactly."""
SHOWN = 6
"""Neighbors of each query in Figure 4."""
RANKED = 200
"""Most queries for which the ranks of neighbors are counted."""
USUAL_KS = (1, 5, 20)

TITLE = "Nearest images"
SENTENCE = (
    "Held-out images beside the training images nearest to them, by the features of a layer and by pixels (Figure 4, "
    "right)."
)


@dataclass(frozen=True, kw_only=True)
class Settings(DataSettings):
    """Show held-out images beside the six training images nearest to them, by the features of a layer and by pixels (Figure 4,
    right), and count the errors of a vote of the k nearest in both spaces.

    alexnet probe neighbors runs/mine --queries 5
    """

    layer: str | None = None
    """Layer whose features are compared: by default fc7, or the last hidden layer of a network without one; a wrong name lists
    all."""
    split: str | None = None
    """Where the queries are from; by default val, or test where there is no val."""
    queries: int = 10
    """How many images to show, drawn by the seed, from as many classes as there are."""
    images: tuple[int, ...] = ()
    """Show the images of these numbers instead."""
    ks: tuple[int, ...] | None = None
    """Numbers of neighbors that vote; by default 1, 5 and 20, as far as there are so many training images."""
    limit: int | None = None
    """Count the errors on this many images of the split, drawn by the seed; by default on all."""
    seed: int = 0
    """Seed for choosing images."""

    def __post_init__(self) -> None:
        for name, value in (("queries", self.queries), ("limit", self.limit)):
            if value is not None and value < 1:
                raise ValueError(f"Settings.{name} is {value}; it must be at least 1")
        if self.ks == ():
            raise ValueError("Settings.ks names no number; leave it out, or name some such as 1 5 20")


def measure(subject: Subject, settings: Settings) -> Finding:
    """The training images nearest to held-out ones (§6.1), by the features of a layer and by pixels (:class:`PixelRows`): six
    of each image that is shown and, on all images or ``limit`` of them, the errors of a vote."""
    packed, layer = subject.packed, subject.predictor.usual_layer(settings.layer).name
    if layer == PIXELS:
        raise UsageError(f"--layer is {PIXELS}, with which the layer is compared; name a layer of the network")
    train, test = packed.split("train"), packed.split(settings.split or packed.held_out)
    ks = _ks(settings, len(train))
    shown_Q = _queries(test.labels, settings.images, settings.queries, settings.seed)
    counted_Q = np.sort(rng.permutation(settings.seed, "neighbors/counted", 0, len(test))[: settings.limit])
    found = _search(subject, layer, test, shown_Q, counted_Q, max(SHOWN, *ks), settings.seed)
    label_Q = test.labels[counted_Q]
    knn = {space: knn_errors(near, train.labels, label_Q, ks) for space, near in found.counted.items()}
    rank = float(np.median(found.pixel_rank_R6)) / len(train)
    body = {
        "layer": layer,
        "train_images": len(train),
        "knn": {space: [{"k": k, **row.to_json()} for k, row in errors.items()] for space, errors in knn.items()},
        "six_nearest": {
            **_six_nearest(found.counted, train.labels, label_Q),
            "median_pixel_rank": {"fraction_of_training_images": rank, "queries": len(found.pixel_rank_R6)},
        },
        "queries": _shown(packed, test, shown_Q, found.shown),
    }
    titles = [f"nearest of {len(train):,} training images by {layer}", "nearest by pixels"]
    return Finding(
        subject=subject.record(test.name),
        n=len(counted_Q),
        summary={f"error, {k} nearest by {space}": knn[space][k].error for k in (ks[0], ks[-1]) for space in knn},
        body=body,
        protocol={
            **_protocol(subject.predictor, layer),
            "queries_shown": "as asked for" if settings.images else "drawn, each of another class while there are",
            "images_counted": "all" if len(counted_Q) == len(test) else "drawn",
        },
        lines=_lines(body),
        pictures={
            "neighbors.png": draw_neighbors(_tiles(packed, test, body), titles, legend=True),
            "neighbors_error.png": draw_errors(body, len(counted_Q)),
        },
    )


def _protocol(predictor: Predictor, layer: str) -> dict[str, Any]:
    given = predictor.preprocessing
    values = given.crop**2 * given.channels
    return {
        "searched": "train",
        "distance": "Euclidean, exact",
        layer: f"center view; {POSITIONS}",
        PIXELS: f"center square of {given.crop} pixels of the stored image, {values} values 0..255",
        "vote": "most of the k nearest; among classes with equally many, that of the nearer neighbor",
        "precision": predictor.precision,
        "preprocessing": to_json(given),
    }


def _ks(settings: Settings, num_train: int) -> tuple[int, ...]:
    """The numbers of neighbors that vote. More than there are: :class:`UsageError`."""
    ks = settings.ks or tuple(k for k in USUAL_KS if k <= num_train)
    if settings.ks is None and len(ks) < len(USUAL_KS):
        say(f"there are {num_train} training images: k is {' and '.join(map(str, ks))}")
    if not 1 <= min(ks) <= max(ks) <= num_train:
        raise UsageError(
            f"--ks {' '.join(map(str, ks))}: there are {num_train:,} training images; each k must be from 1 to {num_train}"
        )
    return ks


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


@dataclass(frozen=True)
class _Found:
    """What is nearest in each space: the layer, and ``pixels``."""

    shown: Mapping[str, Nearest]
    counted: Mapping[str, Nearest]
    pixel_rank_R6: NDArray[np.int64]
    """For some of the images that are counted: the ranks, by pixels, of the six nearest by the layer."""


def _search(
    subject: Subject,
    layer: str,
    test: PackedSplit,
    shown_Q: NDArray[np.int64],
    counted_Q: NDArray[np.int64],
    k: int,
    seed: int,
) -> _Found:
    train, preprocessing = subject.packed.split("train"), subject.predictor.preprocessing
    feature_ND, feature_MD = (kept_features(subject, split.name, layer) for split in (train, test))
    base: dict[str, Rows] = {layer: feature_ND, PIXELS: PixelRows(train, preprocessing, np.arange(len(train)))}

    def rows(space: str, image_Q: NDArray[np.int64]) -> Rows:
        return feature_MD[image_Q] if space == layer else PixelRows(test, preprocessing, image_Q)

    counted = {}
    for space in base:
        with subject.progress(f"neighbors by {space}", len(train)) as bar:
            counted[space] = nearest(rows(space, counted_Q), base[space], k, progress=bar)
    shown = {space: nearest(rows(space, shown_Q), base[space], SHOWN) for space in base}
    ranked_R = rng.permutation(seed, "neighbors/ranked", 0, len(counted_Q))[:RANKED]
    rank_R6 = ranks(rows(PIXELS, counted_Q[ranked_R]), base[PIXELS], counted[layer].index_Qk[ranked_R, :SHOWN])
    return _Found(shown, counted, rank_R6)


def _six_nearest(
    found: Mapping[str, Nearest], train_label_N: NDArray[np.int64], label_Q: NDArray[np.int64]
) -> dict[str, Any]:
    """How many of the six nearest are of the query's class, and how many are so in both spaces. (No intervals: the six of an
    image are no independent draws.)"""
    six = {space: near.index_Qk[:, :SHOWN] for space, near in found.items()}
    first_Q6, second_Q6 = six.values()

    def share(is_so: NDArray[np.bool_]) -> dict[str, Any]:
        count = int(is_so.sum())
        return {"images": count, "of": first_Q6.size, "fraction": count / first_Q6.size}

    same = {space: share(train_label_N[index_Q6] == label_Q[:, None]) for space, index_Q6 in six.items()}
    return {"same_class": same, "in_both": share(first_Q6[:, :, None] == second_Q6[:, None, :])}


def _shown(
    packed: PackedSet, test: PackedSplit, image_Q: NDArray[np.int64], found: Mapping[str, Nearest]
) -> list[dict[str, Any]]:
    """Each query, and its neighbors in each space."""

    def image(split: PackedSplit, number: int) -> dict[str, Any]:
        return {"image": number, "path": split.paths[number], "class": packed.classes[split.labels[number]]}

    def near(found: Nearest, i: int) -> list[dict[str, Any]]:
        numbers = zip(found.index_Qk[i].tolist(), found.distance_Qk[i].tolist(), strict=True)
        return [{**image(packed.split("train"), number), "distance": distance} for number, distance in numbers]

    return [
        {**image(test, number), **{space: near(of_space, i) for space, of_space in found.items()}}
        for i, number in enumerate(image_Q.tolist())
    ]


def _tiles(packed: PackedSet, test: PackedSplit, body: Mapping[str, Any]) -> list[tuple[Tile, list[list[Tile]]]]:
    """The pictures of the queries and of their neighbors."""

    def tile(split: PackedSplit, image: Mapping[str, Any], is_right: bool | None = None) -> Tile:
        return Tile(split.read(np.array([image["image"]]))[0], image["class"], is_right)

    train = packed.split("train")
    return [
        (
            tile(test, query),
            [[tile(train, near, near["class"] == query["class"]) for near in query[space]] for space in body["knn"]],
        )
        for query in body["queries"]
    ]


def _lines(body: Mapping[str, Any]) -> list[str]:
    spaces, six = body["knn"], body["six_nearest"]
    ks = [row["k"] for row in spaces[PIXELS]]
    return [
        f"{'error of the k nearest':<24}" + "".join(f"{f'k = {k}':>10}" for k in ks),
        *(f"{printable(space):<24}" + "".join(f"{row['error']:>10.2%}" for row in spaces[space]) for space in spaces),
        *(
            f"of the six nearest by {printable(space)}, {same['fraction']:.1%} are of the query's class"
            for space, same in six["same_class"].items()
        ),
        f"{six['in_both']['fraction']:.1%} of the six nearest by {printable(body['layer'])} are among the six nearest by pixels; "
        f"their median rank by pixels is {six['median_pixel_rank']['fraction_of_training_images']:.0%} of the way down (50% is "
        "chance)",
    ]


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
    """Euclidean, but in an index of another metric."""


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
        raise UsageError(
            f"the queries have {dim} dimensions and the rows searched have {base_dim}; both must have the same"
        )
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
    q_QD = centered(query_QD, center_D)
    squared_Qk = np.stack(
        [squared_distances(q_D, base_ND[index_k]) for q_D, index_k in zip(query_QD, index_Qk, strict=True)]
    )
    limit_Qk = torch.from_numpy(squared_Qk) - q_QD.double().square().sum(1, keepdim=True)
    rank_Qk = torch.zeros(index_Qk.shape, dtype=torch.int64)
    rows = _block_rows(dim, BLOCK_BYTES)
    for start in range(0, n, rows):
        x_BD = centered(base_ND[start : start + rows], center_D)
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
    q_QD = centered(query_QD, center_D)
    q_norm_Q1 = q_QD.norm(dim=1, keepdim=True) + blur(base_ND)
    norm_N = torch.empty(n)
    low_Qm, index_Qm = torch.empty(num_queries, 0), torch.empty(num_queries, 0, dtype=torch.int64)
    for block in scan(q_QD, base_ND, center_D, rows):
        end = block.start + len(block.norm_B)
        norm_N[block.start : end] = block.norm_B
        length_QB = q_norm_Q1 + block.norm_B
        low_QB = block.norm_B.square() - 2 * block.product_QB - slack * length_QB**2
        index_QB = torch.arange(block.start, end).expand(num_queries, -1)
        low_Qm, place_Qm = torch.cat([low_Qm, low_QB], 1).topk(
            min(keep, low_Qm.shape[1] + len(block.norm_B)), largest=False
        )
        index_Qm = torch.cat([index_Qm, index_QB], 1).gather(1, place_Qm)
        progress(end)

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


def vote(label_Qk: NDArray[np.int64]) -> NDArray[np.int64]:
    """The class of most neighbors, which come nearest first: (Q,). Among classes with equally many, that of the nearer
    neighbor."""
    times_Qk = (label_Qk[:, :, None] == label_Qk[:, None, :]).sum(axis=2)
    chosen_Q1 = times_Qk.argmax(axis=1)[:, None]  # the first of those with most votes
    return np.take_along_axis(label_Qk, chosen_Q1, axis=1)[:, 0]


def knn_errors(
    found: Nearest, train_label_N: NDArray[np.int64], test_label_Q: NDArray[np.int64], ks: Sequence[int]
) -> dict[int, Errors]:
    """The errors of the k nearest neighbors by k, from one search for the most."""
    num_found = found.index_Qk.shape[1]
    for k in ks:
        if not 1 <= k <= num_found:
            raise UsageError(f"k is {k}; it must be 1 to {num_found}, the number of neighbors that were found")
    label_Qk = np.asarray(train_label_N)[found.index_Qk]
    return {k: Errors(int((vote(label_Qk[:, :k]) != test_label_Q).sum()), len(label_Qk)) for k in ks}


def knn_error(
    train_ND: Rows,
    train_label_N: NDArray[np.int64],
    test_QD: Rows,
    test_label_Q: NDArray[np.int64],
    ks: Sequence[int] = (1, 5, 20),
    *,
    progress: Callable[[int, int], object] | None = None,
) -> dict[int, Errors]:
    """The k-nearest-neighbor error of a space: each test image gets the class of most of its k nearest training images
    (:func:`vote`), counted exactly."""
    return knn_errors(nearest(test_QD, train_ND, max(ks), progress=progress), train_label_N, test_label_Q, ks)
