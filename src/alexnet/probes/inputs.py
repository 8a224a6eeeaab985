"""Which inputs a network gets wrong: by class and by properties of the image, how far its probabilities can be believed, and
what a mirror or a shift of a few pixels changes.

Shape suffixes: N images, B images of a batch, S rows and columns, C channels, K classes, V views, G groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet.core import rng
from alexnet.core.errors import AlexNetError, UsageError, printable
from alexnet.core.intervals import rate_of
from alexnet.core.preprocessing import Preprocessing
from alexnet.data.decode import image_size
from alexnet.data.loader import batches
from alexnet.data.named import find_source
from alexnet.data.packed import ALL, is_packed
from alexnet.data.sources import Source
from alexnet.data.transforms import apply_crops, fit
from alexnet.evaluation.error_rate import Split, mean_log_probability
from alexnet.evaluation.finding import Finding
from alexnet.evaluation.predict import Predictor
from alexnet.evaluation.subject import ImagesSettings, Subject, answers
from alexnet.evaluation.views import CENTER
from alexnet.report.pictures.inputs import draw_classes, draw_properties, draw_reliability, draw_shift

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
ORIGINAL = ("width", "height", "aspect")
"""Properties of the original file."""


TITLE = "Which images are hard"
SENTENCE = (
    "Errors by properties of the image, how far the probabilities can be believed, and what a mirror image or a small shift "
    "changes."
)


@dataclass(frozen=True, kw_only=True)
class Settings(ImagesSettings):
    """Which inputs decide: the error by class and by property of the image, the worst confusions, how far probabilities can be
    believed, and what a mirror or a shift of 1 to 32 pixels changes.

    alexnet probe inputs runs/mine
    """

    shifted: int = 1000
    """Images to shift, chosen at random: each takes 20 forward passes. 0 for none."""
    seed: int = 0
    """Seed for choosing images, splitting them and resampling."""
    batch_size: int = 128
    """Images that are computed together."""

    def __post_init__(self) -> None:
        if self.shifted < 0:
            raise ValueError(f"Settings.shifted is {self.shifted}; it must be at least 0")
        if self.batch_size < 1:
            raise ValueError(f"Settings.batch_size is {self.batch_size}; it must be at least 1")


def measure(subject: Subject, settings: Settings) -> Finding:
    """The errors of the center view and what they depend on, and what a mirror and a shift change."""
    predictor, split = subject.predictor, subject.images
    if (n := len(split)) < 2:
        raise UsageError(f"the split {split.name} has {n} images; the probe needs 2 or more, take another --split")
    own = answers(subject, CENTER, settings.batch_size)
    answer_NK, label_N = own.log_probability_NK, own.label_N
    wrong_N = answer_NK.argmax(1) != label_N
    room = predictor.preprocessing.resize - predictor.preprocessing.crop
    body: dict[str, Any] = {
        "error": rate_of(int(wrong_N.sum()), n),
        "classes": errors_by_class(wrong_N, label_N, predictor.classes),
        "properties": _properties(subject, wrong_N, label_N, settings.seed),
        "confusions": confusions(answer_NK.argmax(1), label_N, predictor.classes),
        "calibration": calibration(answer_NK, label_N, seed=settings.seed),
        "temperature": temperature(answer_NK, label_N, seed=settings.seed),
        "mirror": _mirrored(subject, answer_NK, label_N),
        "shift": (shift := _shifted(subject, label_N, settings)),
        "shifts_without_room": [d for d in SHIFTS if settings.shifted and d > room],
    }
    return Finding(
        subject=subject.record(split.name),
        n=n,
        summary=_summary(body),
        body=body,
        protocol={
            **own.protocol,
            **PROTOCOL,
            "shift": f"crops of the stored image, which leaves {room} pixels of room in all; {shift[0]['n']} random images"
            if shift
            else f"none: {room} pixels of room, {settings.shifted} images asked for",
        },
        lines=_lines(body),
        pictures={
            "inputs-properties.png": draw_properties(body),
            "inputs-classes.png": draw_classes(body),
            "inputs-reliability.png": draw_reliability(body["calibration"], body["temperature"]),
            "inputs-shift.png": draw_shift(body["mirror"], shift),
        },
    )


PROTOCOL = {
    "properties": "of the stored pixels, the whole square; fifths by value; intervals by bootstrap over images, "
    f"{RESAMPLES} resamples, 95 %, not corrected for the number of properties",
    "rates": "with Wilson's 95 % intervals",
    "calibration": f"of the center view, {BINS} bins",
    "temperature": "fitted on a random half, tested on the other",
    "mirror": "the center crop, mirrored, with the mean image as for every mirrored training image",
}


def _properties(
    subject: Subject, wrong_N: NDArray[np.bool_], label_N: NDArray[np.int64], seed: int
) -> dict[str, dict[str, Any]]:
    """:func:`by_property` of each property, or why it is not known."""
    with subject.progress("properties", len(wrong_N)) as bar:
        value_of = stored_properties(subject.images, workers=subject.machine.workers, progress=bar)
    sizes, why_not = _original_sizes(subject)
    found = {
        name: by_property(value_N, wrong_N, label_N, seed=seed, name=name)
        for name, value_N in (value_of | sizes).items()
    }
    return found | {name: {"unit": UNITS[name], "not_known": why_not} for name in ORIGINAL if why_not}


def _original_sizes(subject: Subject) -> tuple[dict[str, Floats], str]:
    """:func:`original_sizes` of the images, or why they are not known."""
    name, images = subject.packed.source, subject.images
    if is_packed(Path(name)):
        return {}, "a packed set does not keep them"
    try:
        return original_sizes(find_source(name, data_root=subject.data_root), images.name, images.paths), ""
    except (AlexNetError, OSError) as error:
        return {}, printable(error)


def _mirrored(subject: Subject, answer_NK: NDArray[np.float32], label_N: NDArray[np.int64]) -> dict[str, Any]:
    """:func:`compare` of the center view and its mirror image, and how many answers become right or wrong."""
    (mirrored_NK,) = _answer_views(subject, "mirrored", np.arange(len(label_N)), [MIRROR])
    right_N, mirrored_right_N = answer_NK.argmax(1) == label_N, mirrored_NK.argmax(1) == label_N
    return compare([(answer_NK, mirrored_NK)], label_N) | {
        "right_to_wrong": int((right_N & ~mirrored_right_N).sum()),
        "wrong_to_right": int((~right_N & mirrored_right_N).sum()),
    }


def _shifted(subject: Subject, label_N: NDArray[np.int64], settings: Settings) -> list[dict[str, Any]]:
    """:func:`shift_effect` on random images; nothing where none are asked for, or there is no room."""
    pairs_of = shift_pairs(subject.predictor.preprocessing)
    if not settings.shifted or not pairs_of:
        return []
    views = sorted({view for pairs in pairs_of.values() for pair in pairs for view in pair})
    chosen_N = np.sort(rng.permutation(settings.seed, "inputs/shifted", 0, len(label_N))[: settings.shifted])
    answer_VNK = _answer_views(subject, "shifted", chosen_N, views)
    return shift_effect(dict(zip(views, answer_VNK, strict=True)), label_N[chosen_N], pairs_of)


def _answer_views(
    subject: Subject, what: str, image_N: NDArray[np.int64], views: Sequence[View]
) -> NDArray[np.float32]:
    workers = subject.machine.workers
    with subject.progress(what, len(image_N)) as bar:
        return answer_views(subject.predictor, subject.images, image_N, views, workers=workers, progress=bar)


def _summary(body: Mapping[str, Any]) -> dict[str, float]:
    """The headline figures."""
    worst = max(body["classes"], key=lambda c: c["rate"])
    return {
        "top-1 error, center view": body["error"]["rate"],
        f"error of the hardest class, {printable(worst['name'])}": worst["rate"],
        "expected calibration error": body["calibration"]["ece"],
        "the same of a calibrated network": body["calibration"]["ece_if_calibrated"],
        "answers that a mirror changes": body["mirror"]["changed"]["rate"],
        **{f"answers that a shift by {s['pixels']} changes": s["changed"]["rate"] for s in body["shift"]},
    }


def _lines(body: Mapping[str, Any]) -> list[str]:
    error, calibration, temperature = (body[key] for key in ("error", "calibration", "temperature"))
    return [
        f"top-1 error {error['rate']:.2%} ({error['count']} of {error['n']})",
        "",
        *_class_lines(body["classes"]),
        "",
        "error by property        first fifth   last   difference [95 %], points   within classes",
        *(_property_line(name, about) for name, about in body["properties"].items()),
        "",
        "most frequent mistakes",
        *(
            f"{c['count']:>5}  {printable(c['class'])} taken for {printable(c['taken_for'])} ({c['rate']:.1%} of the class)"
            for c in body["confusions"][:5]
        ),
        "",
        f"ECE {calibration['ece']:.2%} (a calibrated network: {calibration['ece_if_calibrated']:.2%}), equal mass "
        f"{calibration['ece_equal_mass']:.2%}, Brier score {calibration['brier']:.4f}",
        f"temperature {temperature['temperature']:.3f}: ECE {temperature['ece_before']:.2%} to {temperature['ece_after']:.2%} on "
        f"the other half, {temperature['tested_on']} images (a calibrated network: {temperature['ece_if_calibrated']:.2%})",
        "",
        *_view_lines(body),
    ]


def _class_lines(classes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The ten hardest."""
    worst = sorted(classes, key=lambda c: -c["rate"])[:10]
    width = max(len(printable(c["name"])) for c in worst)
    return [f"{printable(c['name']):<{width}} {c['rate']:>7.1%}  [{c['low']:.1%}, {c['high']:.1%}]" for c in worst]


def _property_line(name: str, about: Mapping[str, Any]) -> str:
    if "groups" not in about:
        return f"{name:<24} {'not known: ' + about['not_known'] if 'not_known' in about else 'all the same'}"
    first, last = about["groups"][0]["rate"], about["groups"][-1]["rate"]
    both = [about[key] for key in ("last_less_first", "last_less_first_within_class")]
    text = [f"{100 * d['value']:+.1f} [{100 * d['low']:+.1f}, {100 * d['high']:+.1f}]" for d in both]
    return f"{name:<24} {first:>11.1%} {last:>6.1%}   {text[0]:<25}   {text[1]}"


def _view_lines(body: Mapping[str, Any]) -> list[str]:
    rows = [("mirror", body["mirror"]), *((f"{s['pixels']} pixels", s) for s in body["shift"])]
    lines = [
        f"{name:<12} {row['changed']['rate']:>22.1%}   {row['error_before']:>12.1%} {row['error_after']:>6.1%}   "
        f"{row['total_variation']:>15.3f}"
        for name, row in rows
    ]
    if body["shifts_without_room"]:
        lines.append(f"no room for {', '.join(map(str, body['shifts_without_room']))} pixels")
    return ["            predictions that change   error before, after   total variation", *lines]


# Counts ------------------------------------------------------------------------------------------------------------------


def errors_by_class(wrong_N: NDArray[np.bool_], label_N: NDArray[np.int64], classes: Sequence[str]) -> list[Any]:
    """For each class the share of its images that are wrong."""
    return [
        {"name": name, **rate_of(int(wrong_N[label_N == k].sum()), int((label_N == k).sum()))}
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
            **rate_of(int(count_KK.flat[i]), int(per_class_K[i // K])),
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
            **rate_of(int(wrong_N[group_N == g].sum()), int((group_N == g).sum())),
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
            **rate_of(int(c.right_N[bin_N == g].sum()), int((bin_N == g).sum())),
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
