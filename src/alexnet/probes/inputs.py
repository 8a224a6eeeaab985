"""Which inputs a network gets wrong: by class and by properties of the image, how far its probabilities can be believed, and
what a mirror or a shift of a few pixels changes.

Shape suffixes: N images, B images of a batch, S rows and columns, C channels, K classes, V views, G groups.
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
from alexnet.core.errors import UsageError
from alexnet.core.intervals import wilson
from alexnet.core.preprocessing import Preprocessing
from alexnet.data.decode import image_size
from alexnet.data.loader import batches
from alexnet.data.packed import ALL
from alexnet.data.sources import Source
from alexnet.data.transforms import apply_crops, fit
from alexnet.evaluation.error_rate import Split, mean_log_probability
from alexnet.evaluation.predict import Predictor

Floats = NDArray[np.float64]
QUINTILES = 5
BINS = 15
RESAMPLES = 1000
SHIFTS = (1, 2, 4, 8, 16, 32)
LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601: what JPEG and Pillow call brightness."""
UNITS = {
    "saturation": "mean of 1 - min / max of R, G, B",
    "brightness": "mean luma, 0 to 1",
    "contrast": "standard deviation of luma, 0 to 1",
    "width": "pixels of the original",
    "height": "pixels of the original",
    "aspect": "width over height of the original",
}


def share(count: int, n: int) -> dict[str, Any]:
    """``count`` of ``n`` as a rate with Wilson's 95 % interval; without images a rate of 0 within 0 to 1."""
    low, high = wilson(count, n)
    return {"n": n, "count": count, "rate": count / n if n else 0.0, "low": low, "high": high}


def errors_by_class(wrong_N: NDArray[np.bool_], label_N: NDArray[np.int64], classes: Sequence[str]) -> list[Any]:
    """For each class the share of its images that are wrong."""
    return [
        {"name": name, **share(int(wrong_N[label_N == k].sum()), int((label_N == k).sum()))}
        for k, name in enumerate(classes)
    ]


def confusions(
    predicted_N: NDArray[np.int64], label_N: NDArray[np.int64], classes: Sequence[str], num: int = 10
) -> list[dict[str, Any]]:
    """The most frequent mistakes: images of a class taken for another, as a share of that class."""
    K = len(classes)
    count_KK = np.bincount(label_N * K + predicted_N, minlength=K * K).reshape(K, K)
    np.fill_diagonal(count_KK, 0)
    per_class_K = np.bincount(label_N, minlength=K)
    order = np.argsort(-count_KK.ravel(), kind="stable")[:num]
    return [
        {
            "class": classes[i // K],
            "taken_for": classes[i % K],
            **share(int(count_KK.flat[i]), int(per_class_K[i // K])),
        }
        for i in order.tolist()
        if count_KK.flat[i]
    ]


# Properties of the image -------------------------------------------------------------------------------------------------


def image_properties(pixels_BSSC: NDArray[np.uint8]) -> dict[str, Floats]:
    """Mean saturation (of HSV), mean brightness and RMS contrast of stored pixels, each (B,) on 0..1. Grey images have no
    saturation."""
    x_BSSC = pixels_BSSC.astype(np.float32) / 255
    if x_BSSC.shape[3] == 1:
        luma_BSS = x_BSSC[..., 0]
        found = {}
    else:
        luma_BSS = x_BSSC @ np.array(LUMA, dtype=np.float32)
        high_BSS, low_BSS = x_BSSC.max(3), x_BSSC.min(3)
        saturation_BSS = (high_BSS - low_BSS) / np.maximum(high_BSS, 1 / 255)
        found = {"saturation": saturation_BSS.mean((1, 2), dtype=np.float64)}
    return found | {
        "brightness": luma_BSS.mean((1, 2), dtype=np.float64),
        "contrast": luma_BSS.std((1, 2), dtype=np.float64),
    }


def stored_properties(
    split: Split, *, workers: int | None = None, progress: Callable[[int, int], object] | None = None
) -> dict[str, Floats]:
    """:func:`image_properties` of every image of a split, (N,) each."""
    n = len(split)
    rows = []
    for batch in batches(split, np.arange(n), 64, workers=workers):
        rows.append(image_properties(batch.pixels_BSSC.numpy()))
        if progress:
            progress(int(batch.position_B[-1]) + 1, n)
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def original_sizes(source: Source, split: str, paths: Sequence[str]) -> dict[str, Floats]:
    """Width, height and aspect of the original files of these images, upright, (N,) each; from their headers alone. An image
    that the source does not hold: :class:`UsageError`; one that cannot be read: :class:`ImageError`."""
    record_of = {record.name: record for record in source.records if split in (ALL, record.split)}
    if missing := [path for path in paths if path not in record_of]:
        raise UsageError(f"the source does not hold {len(missing)} of the {len(paths)} images")
    size_N2 = np.array([_size(path, record_of[path].read()) for path in paths], dtype=np.float64)
    return {"width": size_N2[:, 0], "height": size_N2[:, 1], "aspect": size_N2[:, 0] / size_N2[:, 1]}


def _size(path: str, data: bytes | NDArray[np.uint8]) -> tuple[int, int]:
    return (data.shape[1], data.shape[0]) if isinstance(data, np.ndarray) else image_size(data, path)


def by_property(
    value_N: Floats, wrong_N: NDArray[np.bool_], label_N: NDArray[np.int64], *, seed: int, name: str
) -> dict[str, Any]:
    """How the error depends on a property: the share of wrong images in each fifth of its values, the difference between the
    last fifth and the first, and Spearman's correlation of the value with being wrong, both with 95 % bootstrap intervals
    over images (:data:`RESAMPLES`, seeded). Equal values stay together, so fifths may differ in size.

    ``within_class`` is that difference for fifths taken in each class by itself: a property that merely tells easy classes
    from hard ones vanishes there. Values that are all the same have no fifths."""
    from scipy.stats import rankdata

    about: dict[str, Any] = {"unit": UNITS.get(name, "")}
    if value_N.min() == value_N.max():
        return about | {"all_the_same": float(value_N[0])}
    group_N = _groups(value_N)
    rank_N, class_group_N = rankdata(value_N), np.zeros(len(value_N), dtype=np.int64)
    for k in np.unique(label_N):
        class_group_N[label_N == k] = _groups(value_N[label_N == k])
    generator = np.random.Generator(np.random.PCG64(int(rng.keys(seed, f"inputs/{name}", 0, np.zeros(1, int))[0])))

    def measure(index_N: NDArray[np.int64]) -> tuple[float, float, float]:
        wrong = wrong_N[index_N].astype(np.float64)
        return (
            _last_less_first(group_N[index_N], wrong),
            _correlation(rank_N[index_N], wrong),
            _last_less_first(class_group_N[index_N], wrong),
        )

    n = len(value_N)
    own = measure(np.arange(n))
    drawn = np.array([measure(generator.integers(0, n, n)) for _ in range(RESAMPLES)])
    low, high = np.percentile(drawn, (2.5, 97.5), axis=0)
    difference, spearman, within_class = (
        {"value": own[i], "low": float(low[i]), "high": float(high[i])} for i in range(3)
    )
    groups = [
        {
            "from": float(value_N[group_N == g].min()),
            "to": float(value_N[group_N == g].max()),
            "mean": float(value_N[group_N == g].mean()),
            **share(int(wrong_N[group_N == g].sum()), int((group_N == g).sum())),
        }
        for g in np.unique(group_N)
    ]
    return about | {
        "groups": groups,
        "last_less_first": difference,
        "spearman_with_wrong": spearman,
        "last_less_first_within_class": within_class,
    }


def _groups(value_N: Floats) -> NDArray[np.int64]:
    """Which fifth each value is in; equal values are in the same."""
    edges = np.quantile(value_N, np.arange(1, QUINTILES) / QUINTILES)
    return np.searchsorted(edges, value_N, side="left").astype(np.int64)


def _last_less_first(group_N: NDArray[np.int64], wrong_N: Floats) -> float:
    last, first = wrong_N[group_N == group_N.max()], wrong_N[group_N == group_N.min()]
    return float(last.mean() - first.mean())


def _correlation(one_N: Floats, other_N: Floats) -> float:
    """Pearson's; of ranks it is Spearman's. 0 where one does not vary. (With 0 and 1, ranks are the values.)"""
    if one_N.std() == 0 or other_N.std() == 0:
        return 0.0
    return float(np.corrcoef(one_N, other_N)[0, 1])


# Confidence --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Confidence:
    """The probability of each image's predicted class, and whether that was right."""

    value_N: Floats
    right_N: NDArray[np.bool_]


def confidence(log_probability_NK: NDArray[Any], label_N: NDArray[np.int64]) -> Confidence:
    log_probability_NK = log_probability_NK.astype(np.float64)
    return Confidence(np.exp(log_probability_NK.max(1)), log_probability_NK.argmax(1) == label_N)


def reliability(c: Confidence, bins: int = BINS) -> list[dict[str, Any]]:
    """Bins of equal width over 0..1, those with images: mean confidence, and share of right answers with its interval."""
    bin_N = np.minimum((c.value_N * bins).astype(np.int64), bins - 1)
    return [
        {
            "from": g / bins,
            "to": (g + 1) / bins,
            "confidence": float(c.value_N[bin_N == g].mean()),
            **share(int(c.right_N[bin_N == g].sum()), int((bin_N == g).sum())),
        }
        for g in np.unique(bin_N).tolist()
    ]


def expected_calibration_error(c: Confidence, bins: int = BINS, *, equal_mass: bool = False) -> float:
    """Mean over the images of |mean confidence - share right| of the image's bin (Guo et al. 2017). Bins have equal width,
    or with ``equal_mass`` equally many images."""
    if equal_mass:
        parts = np.array_split(np.argsort(c.value_N, kind="stable"), bins)
    else:
        bin_N = np.minimum((c.value_N * bins).astype(np.int64), bins - 1)
        parts = [np.flatnonzero(bin_N == g) for g in range(bins)]
    gaps = [abs(float((c.value_N[part] - c.right_N[part]).sum())) for part in parts]
    return sum(gaps) / len(c.value_N)


def error_if_calibrated(value_N: Floats, *, seed: int, draws: int = 200) -> float:
    """The mean calibration error of networks of these confidences that are right exactly as often as they say, over seeded
    draws: what an error has to exceed to mean anything."""
    generator = np.random.Generator(np.random.PCG64(int(rng.keys(seed, "inputs/calibrated", 0, np.zeros(1, int))[0])))
    drawn = [Confidence(value_N, generator.random(len(value_N)) < value_N) for _ in range(draws)]
    return float(np.mean([expected_calibration_error(c) for c in drawn]))


def calibration(log_probability_NK: NDArray[Any], label_N: NDArray[np.int64], *, seed: int) -> dict[str, Any]:
    """Expected calibration error, Brier score (mean over images of the squared distance of the probabilities from the answer,
    0 to 2), loss, and the bins of a reliability diagram.

    An ECE is positive for any finite number of images: compare it with ``ece_if_calibrated``."""
    c = confidence(log_probability_NK, label_N)
    probability_NK = np.exp(log_probability_NK.astype(np.float64))
    answer_NK = np.eye(probability_NK.shape[1])[label_N]
    return {
        "n": len(label_N),
        "bins": BINS,
        "ece": expected_calibration_error(c),
        "ece_equal_mass": expected_calibration_error(c, equal_mass=True),
        "ece_if_calibrated": error_if_calibrated(c.value_N, seed=seed),
        "mean_confidence": float(c.value_N.mean()),
        "accuracy": float(c.right_N.mean()),
        "brier": float(np.square(probability_NK - answer_NK).sum(1).mean()),
        "loss_nats": float(-(log_probability_NK.astype(np.float64) * answer_NK).sum(1).mean()),
        "reliability": reliability(c),
    }


def temperature(log_probability_NK: NDArray[Any], label_N: NDArray[np.int64], *, seed: int) -> dict[str, Any]:
    """The number that the logits have to be divided by for the least loss on a random half of the images, between 1/20 and
    20, and what it does to the other half (Guo et al. 2017). Above 1, the network was too sure."""
    from scipy.optimize import minimize_scalar

    order_N = rng.permutation(seed, "inputs/halves", 0, len(label_N))
    fitted, tested = np.array_split(order_N, 2)
    log_probability_NK = log_probability_NK.astype(np.float64)

    def loss(log_temperature: float, index_N: NDArray[np.int64]) -> float:
        scaled_NK = cooled(log_probability_NK[index_N], math.exp(log_temperature))
        return float(-scaled_NK[np.arange(len(index_N)), label_N[index_N]].mean())

    bound = math.log(20)
    best = float(minimize_scalar(loss, bounds=(-bound, bound), args=(fitted,), method="bounded").x)
    before, after = log_probability_NK[tested], cooled(log_probability_NK[tested], math.exp(best))
    return {
        "temperature": math.exp(best),
        "fitted_on": len(fitted),
        "tested_on": len(tested),
        "ece_before": expected_calibration_error(confidence(before, label_N[tested])),
        "ece_after": expected_calibration_error(confidence(after, label_N[tested])),
        "ece_if_calibrated": error_if_calibrated(confidence(after, label_N[tested]).value_N, seed=seed),
        "loss_before": loss(0.0, tested),
        "loss_after": loss(best, tested),
    }


def cooled(log_probability_NK: Floats, temperature: float) -> Floats:
    """Logarithms of the softmax of logits divided by ``temperature``; of one view, logarithms of probabilities are logits."""
    scaled_NK = log_probability_NK / temperature
    return np.asarray(scaled_NK - np.logaddexp.reduce(scaled_NK, axis=1, keepdims=True))


# Mirror and shift --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class View:
    """A crop, by how far it lies below and to the right of the center one, in pixels."""

    down: int = 0
    right: int = 0
    mirror: bool = False


MIRROR = View(mirror=True)


def shift_pairs(preprocessing: Preprocessing, shifts: Sequence[int] = SHIFTS) -> dict[int, list[tuple[View, View]]]:
    """For each distance the pairs of crops to compare, all within the stored image: the center and the crops so far up, down,
    left and right of it; for a distance beyond the room on one side, the two crops that lie so far apart about the
    center, across and down. Distances for which there is no room are left out."""
    room = preprocessing.resize - preprocessing.crop
    before, after = room // 2, room - room // 2
    pairs: dict[int, list[tuple[View, View]]] = {}
    for d in shifts:
        if d <= before:
            pairs[d] = [(View(), View(*way)) for way in ((-d, 0), (d, 0), (0, -d), (0, d))]
        elif d <= before + after:
            first = -min(before, d // 2)
            pairs[d] = [(View(first, 0), View(first + d, 0)), (View(0, first), View(0, first + d))]
    return pairs


@torch.no_grad()
def answer_views(
    predictor: Predictor,
    split: Split,
    image_N: NDArray[np.int64],
    views: Sequence[View],
    *,
    batch_size: int = 64,
    workers: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> NDArray[np.float32]:
    """ln of the probabilities for each view of these images: (V, N, K)."""
    model, preprocessing, device = predictor.model.eval(), predictor.preprocessing, predictor.device
    mean_SSC = None if predictor.mean is None else torch.as_tensor(predictor.mean).to(device)
    border, n = (preprocessing.resize - preprocessing.crop) // 2, len(image_N)
    found_VNK = np.empty((len(views), n, len(predictor.classes)), dtype=np.float32)
    for batch in batches(split, image_N, batch_size, workers=workers):
        pixels_BSSC = fit(batch.pixels_BSSC.to(device), preprocessing.resize)
        for v, view in enumerate(views):
            top_B, left_B = (torch.full((len(pixels_BSSC),), border + offset) for offset in (view.down, view.right))
            mirror_B = torch.full((len(pixels_BSSC),), view.mirror)
            x_BCHW = apply_crops(pixels_BSSC, top_B, left_B, mirror_B, preprocessing, mean_SSC)
            found_VNK[v, batch.position_B] = mean_log_probability(model, [x_BCHW], predictor.precision).numpy()
        if progress:
            progress(int(batch.position_B[-1]) + 1, n)
    return found_VNK


def compare(
    pairs: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]], label_N: NDArray[np.int64]
) -> dict[str, Any]:
    """What changes from the first to the second of each pair of answers, (N, K) each, to the same images: the share of
    images whose predicted class changes, and of those that are wrong before and after, all as means over the pairs, and the
    mean total-variation distance of the probabilities, half the sum of absolute differences. The interval of ``changed``
    counts each image once."""
    n, changed_N, distance = len(label_N), np.zeros(len(label_N)), 0.0
    wrong_2 = [0.0, 0.0]
    for before_NK, after_NK in pairs:
        first_N, second_N = before_NK.argmax(1), after_NK.argmax(1)
        changed_N += (first_N != second_N) / len(pairs)
        wrong_2[0] += float((first_N != label_N).mean()) / len(pairs)
        wrong_2[1] += float((second_N != label_N).mean()) / len(pairs)
        difference_NK = np.exp(before_NK.astype(np.float64)) - np.exp(after_NK.astype(np.float64))
        distance += float(np.abs(difference_NK).sum(1).mean() / 2) / len(pairs)
    changed = float(changed_N.mean())
    half = 1.959963984540054 * float(changed_N.std()) / math.sqrt(n)
    return {
        "n": n,
        "pairs": len(pairs),
        "changed": {"rate": changed, "low": max(0.0, changed - half), "high": min(1.0, changed + half)},
        "error_before": wrong_2[0],
        "error_after": wrong_2[1],
        "total_variation": distance,
    }


def shift_effect(
    answer_of: Mapping[View, NDArray[np.float32]],
    label_N: NDArray[np.int64],
    pairs_of: Mapping[int, Sequence[tuple[View, View]]],
) -> list[dict[str, Any]]:
    """:func:`compare` for each distance, with what was compared."""
    return [
        {
            "pixels": d,
            "compared": "center and up, down, left, right" if View() in pairs[0] else "two ends, across and down",
            **compare([(answer_of[a], answer_of[b]) for a, b in pairs], label_N),
        }
        for d, pairs in pairs_of.items()
    ]
