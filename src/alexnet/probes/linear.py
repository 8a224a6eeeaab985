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
from alexnet.core.intervals import wilson
from alexnet.data.loader import batches
from alexnet.evaluation.error_rate import Split
from alexnet.evaluation.predict import Predictor
from alexnet.models.layers import WEIGHT_LAYERS
from alexnet.models.lrn import kernels_in_use
from alexnet.probes.features import BATCH, embed
from alexnet.probes.layers import PIXELS, find_layers, network_layers

MAX_UNITS = 4096
"""Most numbers that a layer keeps after averaging: as many as fc6 and fc7 have."""
MAX_SIDE = 32
"""Greatest side of a map after averaging: 224 x 224 pixels become the means of 7 x 7 blocks."""
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Values of C, the weight of the loss against that of the penalty |w|^2 / 2, tried in this order."""
FEW_LABELS_STRENGTH = 1e-2
"""C with few labels, the middle of the values above: there are no images left to choose it on."""
SELECTION_PART = 5
"""One training image in so many, of each class, chooses C."""
TOLERANCE, MAX_ITERATIONS = 1e-3, 1000

Array = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Errors:
    """Errors counted on ``n`` images. ``low`` and ``high`` bound the rate with 95 % confidence (Wilson 1927), as far as the
    choice of the images is concerned."""

    errors: int
    n: int

    def to_json(self) -> dict[str, Any]:
        low, high = wilson(self.errors, self.n)
        return {"errors": self.errors, "n": self.n, "error": self.errors / self.n, "low": low, "high": high}


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
        rates = [errors.errors / errors.n for errors in self.held_out]
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
        rows = embed(predictor, batch.pixels_BSSC, found)
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
        classifier.set_params(C=strength).fit(rows_ND, label_N)
    return bool(np.max(classifier.n_iter_) < MAX_ITERATIONS)


def _errors(classifier: Any, rows_ND: Array, label_N: Labels) -> Errors:
    return Errors(int((classifier.predict(rows_ND) != label_N).sum()), len(label_N))
