"""What a linear classifier can read from each layer: how much of the classes' meaning is there, plain to see, at each depth.

Maps are averaged down to at most :data:`MAX_UNITS` numbers, about as many as fc6 and fc7 have, so that no layer wins by size.
Each number is standardized, and scikit-learn's logistic regression does the rest.

Shape suffixes: N training images, M held-out images, B images of a batch, C channels, H rows, W columns, D units.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from alexnet.core import rng
from alexnet.core.errors import AlexNetError, UsageError, printable
from alexnet.core.intervals import Errors
from alexnet.data.loader import batches
from alexnet.evaluation.classes import places
from alexnet.evaluation.error_rate import Split
from alexnet.evaluation.finding import Finding
from alexnet.evaluation.layers import PIXELS, find_layers, network_layers
from alexnet.evaluation.predict import Predictor
from alexnet.evaluation.subject import DataSettings, Subject
from alexnet.models.layers import WEIGHT_LAYERS
from alexnet.models.lrn import kernels_in_use
from alexnet.probes.features import BATCH
from alexnet.report.pictures.linear import error_curves

MAX_UNITS = 4096
"""Most numbers that a layer keeps after averaging: as many as fc6 and fc7 have."""
MAX_SIDE = 32
"""Greatest side of a map after averaging: 224 x 224 pixels become the means of 7 x 7 blocks."""
AVERAGING = f"maps over a grid of windows, to at most {MAX_SIDE} x {MAX_SIDE} and {MAX_UNITS:,} numbers"
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Values of C, the weight of the loss against that of the penalty |w|^2 / 2, tried in this order."""
FEW_LABELS_STRENGTH = 1e-2
"""C with few labels, the middle of the values above: there are no images left to choose it on."""
SELECTION_PART = 5
"""One training image in so many, of each class, chooses C."""
TOLERANCE, MAX_ITERATIONS = 1e-3, 1000
PER_CLASS, DRAWS = (1, 5, 10, 50), 5
"""Numbers of labeled images of a class, and how often so many are drawn."""
DEEPEST = 3
"""Layers that few labels are tried on, besides the pixels."""

TITLE = "What each layer tells apart"
SENTENCE = "The errors of a linear classifier on the features of each layer."

Array = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Settings(DataSettings):
    """The held-out error of a linear classifier on each layer, from the pixels to the last hidden layer, with all labels and
    with few.

    alexnet probe linear runs/mine
    """

    layers: tuple[str, ...] = ()
    """Layers to read; a wrong name lists all. By default the pixels and each layer with weights but the last, after its
    pooling."""
    images: int = 10_000
    """Most images to take from each split, as many of each class."""
    seed: int = 0
    """Seed for sampling images and for the part of them that chooses C; few labels are also drawn with the next four seeds."""

    def __post_init__(self) -> None:
        if self.images < 10:
            raise ValueError(f"Settings.images is {self.images}; a classifier needs at least 10")


def measure(subject: Subject, settings: Settings) -> Finding:
    """The errors of :func:`linear_probe` on each layer, of :func:`few_labels` on the deepest, and of the network itself."""
    require_scikit_learn()
    predictor, packed = subject.predictor, subject.packed
    model = predictor.model
    layers = find_layers(model, list(dict.fromkeys(settings.layers)) or default_layers(model))
    output = network_layers(model)[-1].name
    names = list(dict.fromkeys([*(layer.name for layer in layers), output]))
    splits = {"train": packed.split("train"), "held out": packed.split(packed.held_out)}
    images = {
        what: balanced_sample(split.labels, settings.images, settings.seed, f"linear probe/{what}")
        for what, split in splits.items()
    }
    features = {}
    for what, image_N in images.items():
        with subject.progress(f"features, {what}", len(image_N)) as bar:
            workers = subject.machine.workers
            features[what] = pooled_features(predictor, splits[what], names, image_N, workers=workers, progress=bar)
    label_N, label_M = (split.labels[images[what]] for what, split in splits.items())
    known_M, answer_M = places(packed.classes, predictor.classes)[label_M], features["held out"][output].argmax(1)
    own = Errors(int((answer_M != known_M).sum()), len(label_M)) if (known_M >= 0).all() else None
    chance = Errors(int((label_M != np.bincount(label_N).argmax()).sum()), len(label_M))

    rows: list[dict[str, Any]] = []
    few: list[dict[str, Any]] = []
    deepest = {layer.name for layer in layers[-DEEPEST:]} | {PIXELS}
    seeds = list(range(settings.seed, settings.seed + DRAWS))
    with subject.progress("classifiers", len(layers), "layers") as bar:
        for i, layer in enumerate(layers):
            train_ND, held_out_MD = (rows[layer.name] for rows in features.values())
            about = {
                "shape": list(layer.shape),
                "averaged": list(pooled_shape(layer.shape)),
                "units": train_ND.shape[1],
            }
            fitted = linear_probe(train_ND, label_N, held_out_MD, label_M, seed=settings.seed)
            rows.append({"layer": layer.name, **about, **fitted.to_json()})
            if layer.name in deepest:
                results = few_labels(train_ND, label_N, held_out_MD, label_M, per_class=PER_CLASS, seeds=seeds)
                few.extend({"layer": layer.name, **result.to_json()} for result in results)
            bar.update(i + 1)
    body = {
        "n_train": len(label_N),
        "seeds": seeds,
        "layers": rows,
        "few_labels": few,
        "own": None if own is None else own.to_json(),
        "chance": chance.to_json(),
    }
    return Finding(
        subject=subject.record(packed.held_out),
        n=len(label_M),
        summary={f"error, linear on {row['layer']}": row["error"] for row in rows},
        body=body,
        protocol={
            **PROTOCOL,
            "few_labels": f"C {FEW_LABELS_STRENGTH:g}; means and deviations of all {len(label_N):,} training images; "
            "the network was trained on whatever labels it was trained on",
            "images": {what: f"{len(images[what]):,} of {len(split):,}" for what, split in splits.items()},
            "precision": predictor.precision,
        },
        lines=_lines(body, len(label_M), packed.held_out),
        pictures={"linear.png": error_curves(body, len(label_M))},
    )


PROTOCOL = {
    "view": "center, of training and held-out images alike",
    "averaging": AVERAGING,
    "scaling": "each number to mean 0 and deviation 1 on the training images",
    "classifier": "scikit-learn's LogisticRegression: multinomial, penalty |w|^2 / 2, L-BFGS",
    "tolerance": TOLERANCE,
    "C": f"the smallest of {', '.join(f'{c:g}' for c in STRENGTHS)} with the fewest errors on one in {SELECTION_PART} training "
    "images of each class, tried in this order until the errors rise; then all training images are fitted",
    "interval": "Wilson, 95 %, over held-out images; not over trainings of the network",
}


def _lines(body: dict[str, Any], n: int, split: str) -> list[str]:
    lines = [f"linear classifiers on {body['n_train']:,} labeled images; errors of {n:,} of {split}:"]
    for row in body["layers"]:
        interval = f"({row['low']:.1%} to {row['high']:.1%})"
        lines.append(
            f"  {row['layer']:<10} {row['error']:>6.1%} {interval:<18} {row['units']:>5,} numbers, C {row['C']:g}"
        )
    if body["own"] is not None:
        lines.append(f"  the network itself {body['own']['error']:.1%}")
    lines.append(f"few labels, mean of {len(body['seeds'])} draws:")
    for layer in dict.fromkeys(row["layer"] for row in body["few_labels"]):
        rows = [row for row in body["few_labels"] if row["layer"] == layer]
        lines.append(f"  {layer:<10} " + ", ".join(f"{r['images_per_class']}: {r['mean_error']:.1%}" for r in rows))
    return lines


@dataclass(frozen=True)
class LinearProbe:
    """A classifier fitted to all training images, with C chosen on a part of them."""

    held_out: Errors
    train: Errors
    strength: float
    """The chosen C, the weight of the loss against the penalty."""
    selection: tuple[tuple[float, Errors], ...]
    """Each C that was tried, with its errors on the part of the training images that chose it."""
    converged: bool
    """Whether the last fit ended before the greatest number of iterations."""

    def to_json(self) -> dict[str, Any]:
        return {
            **self.held_out.to_json(),
            "train": self.train.to_json(),
            "C": self.strength,
            "C_at_end_of_grid": self.strength in (STRENGTHS[0], STRENGTHS[-1]),
            "selection": [{"C": c, "errors": e.errors, "n": e.n} for c, e in self.selection],
            "converged": self.converged,
        }


@dataclass(frozen=True)
class FewLabels:
    """Classifiers fitted to ``per_class`` labeled images of each class, one for each draw of these images."""

    per_class: int
    held_out: tuple[Errors, ...]
    """Errors on the held-out images, for each seed."""

    def to_json(self) -> dict[str, Any]:
        rates = [errors.error for errors in self.held_out]
        return {
            "images_per_class": self.per_class,
            "errors": [errors.errors for errors in self.held_out],
            "n": self.held_out[0].n,
            "mean_error": math.fsum(rates) / len(rates),
            "min_error": min(rates),
            "max_error": max(rates),
        }


def require_scikit_learn() -> None:
    """Say what is missing before a network is run for nothing."""
    if find_spec("sklearn") is None:
        raise AlexNetError('linear probes and t-SNE need scikit-learn: pip install "alexnet[probe]"')


def default_layers(model: nn.Module) -> list[str]:
    """The pixels, and each layer with weights but the last; where pooling ends its stage, after that. Of the 2012 network:
    pixels, pool1, pool2, conv3, conv4, pool5, fc6, fc7."""
    modules = dict(model.named_modules())
    weights = {path.rpartition(".")[2] for path, module in modules.items() if isinstance(module, WEIGHT_LAYERS)}
    stages = [PIXELS]
    for layer in network_layers(model)[1:]:
        if layer.name in weights:
            stages.append(layer.name)
        elif isinstance(modules[layer.path], nn.MaxPool2d | nn.AvgPool2d):
            stages[-1] = layer.name
    return stages[:-1]


def pooled_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape to which a layer of this shape is averaged down. Vectors stay as they are."""
    if len(shape) != 3:
        return shape
    side = max(1, min(MAX_SIDE, math.isqrt(MAX_UNITS // shape[0])))
    return shape[0], min(side, shape[1]), min(side, shape[2])


def pooled(rows_BD: NDArray[Any], shape: tuple[int, ...]) -> Array:
    """Maps of ``shape``, flattened, as means over a grid of windows (adaptive average pooling): (B, D) float32."""
    if pooled_shape(shape) == shape:
        return np.asarray(rows_BD, dtype=np.float32)
    _, height, width = pooled_shape(shape)
    maps_BCHW = torch.from_numpy(np.array(rows_BD, dtype=np.float32)).view(-1, *shape)
    means_BD: Array = F.adaptive_avg_pool2d(maps_BCHW, (height, width)).flatten(1).numpy()
    return means_BD


def pooled_features(
    predictor: Predictor,
    split: Split,
    layers: Sequence[str],
    image_N: NDArray[np.int64],
    *,
    workers: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> dict[str, Array]:
    """The averaged activations of these layers for the center views of the images of these numbers, in one pass: (N, D) each."""
    found, n = find_layers(predictor.model, layers), len(image_N)
    features = {layer.name: np.empty((n, math.prod(pooled_shape(layer.shape))), np.float32) for layer in found}
    kernels_in_use(predictor.device, build=True)
    for batch in batches(split, image_N, BATCH, workers=workers):
        rows = predictor.activations(batch.pixels_BSSC, found)
        for layer in found:
            features[layer.name][batch.position_B] = pooled(rows[layer.name], layer.shape)
        if progress:
            progress(int(batch.position_B[-1]) + 1, n)
    for name, rows_ND in features.items():
        if not np.isfinite(rows_ND).all():
            raise AlexNetError(f"{printable(name)}: activations are not finite; take an earlier checkpoint")
    return features


def balanced_sample(label_N: Labels, limit: int, seed: int, stream: str) -> NDArray[np.int64]:
    """The numbers of at most ``limit`` images, ascending: as many of each class as there are or as fit. A larger sample
    holds the smaller."""
    key_N = rng.keys(seed, f"{stream}/order", 0, np.arange(len(label_N)))
    order_N = np.lexsort((key_N, rng.rank_in_class(label_N, seed, stream)))
    return np.sort(order_N[:limit])


def linear_probe(
    train_ND: Array, label_N: Labels, held_out_MD: Array, label_M: Labels, *, seed: int = 0
) -> LinearProbe:
    """The held-out errors of logistic regression on standardized features.

    C is chosen on one fifth of the training images, with means and deviations of the other four: the smallest of
    :data:`STRENGTHS` with the fewest errors, trying larger ones until the errors rise. Then all training images are fitted
    with it. The held-out images have no part in any of this. Raises :class:`UsageError` for fewer than two classes, or fewer
    than five images in every class."""
    require_scikit_learn()
    select_N = rng.rank_in_class(label_N, seed, "linear probe/selection") % SELECTION_PART == SELECTION_PART - 1
    if len(np.unique(label_N)) < 2 or not select_N.any():
        raise UsageError(
            f"a linear probe needs two classes or more, and {SELECTION_PART} training images in one of them; "
            f"there are {len(np.unique(label_N))} classes in {len(label_N)} training images"
        )
    classifier, scaler = _classifier(), _scaler()
    fit_ND, choose_ND = scaler.fit_transform(train_ND[~select_N]), scaler.transform(train_ND[select_N])
    tried: list[tuple[float, Errors]] = []
    for strength in STRENGTHS:
        _fit(classifier, strength, fit_ND, label_N[~select_N])
        tried.append((strength, _errors(classifier, choose_ND, label_N[select_N])))
        if tried[-1][1].errors > min(errors.errors for _, errors in tried):
            break
    best = min(tried, key=lambda row: row[1].errors)[0]
    del fit_ND, choose_ND

    standard_ND = scaler.fit_transform(train_ND)
    converged = _fit(classifier, best, standard_ND, label_N)
    return LinearProbe(
        held_out=_errors(classifier, scaler.transform(held_out_MD), label_M),
        train=_errors(classifier, standard_ND, label_N),
        strength=best,
        selection=tuple(tried),
        converged=converged,
    )


def few_labels(
    train_ND: Array,
    label_N: Labels,
    held_out_MD: Array,
    label_M: Labels,
    *,
    per_class: Sequence[int],
    seeds: Sequence[int],
) -> list[FewLabels]:
    """The held-out errors of logistic regression on few labeled images of each class. Means and deviations are those of all
    training images, whose labels are not used; C is :data:`FEW_LABELS_STRENGTH`. A seed's larger choices hold its smaller
    ones. A number of images that some class does not have is left out."""
    require_scikit_learn()
    scaler = _scaler().fit(train_ND)
    held_out_MD = scaler.transform(held_out_MD)
    found: dict[int, list[Errors]] = {m: [] for m in per_class if m <= np.unique(label_N, return_counts=True)[1].min()}
    for seed in seeds:
        rank_N = rng.rank_in_class(label_N, seed, "linear probe/few labels")
        for m, counts in found.items():
            few = np.flatnonzero(rank_N < m)
            classifier = _classifier()
            _fit(classifier, FEW_LABELS_STRENGTH, scaler.transform(train_ND[few]), label_N[few])
            counts.append(_errors(classifier, held_out_MD, label_M))
    return [FewLabels(m, tuple(counts)) for m, counts in found.items()]


def _scaler() -> Any:
    from sklearn.preprocessing import StandardScaler

    return StandardScaler()


def _classifier() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(warm_start=True, tol=TOLERANCE, max_iter=MAX_ITERATIONS)


def _fit(classifier: Any, strength: float, rows_ND: Array, label_N: Labels) -> bool:
    """Fit on from where the classifier is, and say whether it converged."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it becomes a field of the result
        warnings.filterwarnings(
            "ignore", "The number of unique classes", UserWarning
        )  # one labeled image of each is meant
        classifier.set_params(C=strength).fit(rows_ND, label_N)
    return bool(np.max(classifier.n_iter_) < MAX_ITERATIONS)


def _errors(classifier: Any, rows_ND: Array, label_N: Labels) -> Errors:
    return Errors(int((classifier.predict(rows_ND) != label_N).sum()), len(label_N))
