"""Classifiers of raw pixels: the nearest training images, and a linear classifier.

Shape suffixes: N training images, M held-out images, Q queries of a block, K classes, D numbers of an image, k neighbors.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet.baselines.trial import (
    SELECTION_PART,
    Answers,
    Array,
    Labels,
    Trial,
    choose,
    count_errors,
    one_column_a_class,
    reduced_pixels,
    require_scikit_learn,
)
from alexnet.core.console import Bar

NEIGHBORS = (1, 3, 5, 9, 17, 33)
"""Numbers of neighbors that are tried."""
QUERIES = 512
"""Queries in a block of distances."""
ROWS = 8192
"""Training images in a block of distances."""
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Values of C, the weight of the loss against that of the penalty |w|^2 / 2, tried in this order."""
TOLERANCE, MAX_ITERATIONS = 1e-4, 2000


def squared_distances(query_QD: NDArray[Any], row_ND: NDArray[Any]) -> NDArray[np.float64]:
    """Squared Euclidean distances in float64: (Q, N). Of pixels that are multiples of 1/64, exact."""
    query_QD, row_ND = query_QD.astype(np.float64), row_ND.astype(np.float64)
    squared_QN = torch.addmm(
        torch.from_numpy(np.square(row_ND).sum(axis=1))[None],
        torch.from_numpy(query_QD),
        torch.from_numpy(row_ND).T,
        alpha=-2,
    )
    squared_QN += torch.from_numpy(np.square(query_QD).sum(axis=1))[:, None]
    result_QN: NDArray[np.float64] = squared_QN.clamp_(min=0).numpy()
    return result_QN


def nearest_in_classes(
    query_QD: Array, row_ND: Array, label_N: Labels, num_classes: int, k: int, what: str, *, quiet: bool = False
) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """The squared distances of the ``k`` nearest images of each class, nearest first: (Q, K, k) float64, infinite where a
    class has fewer. Exact, in blocks of queries, each with its place among all."""
    images_of = [np.flatnonzero(label_N == label) for label in range(num_classes)]
    with Bar(what, len(query_QD), quiet=quiet) as bar:
        for start in range(0, len(query_QD), QUERIES):
            part = slice(start, min(start + QUERIES, len(query_QD)))
            near_QKk = np.full((part.stop - start, num_classes, k), np.inf)
            for label, own in enumerate(images_of):
                for first in range(0, len(own), ROWS):
                    squared_QB = squared_distances(query_QD[part], row_ND[own[first : first + ROWS]])
                    all_QB = np.concatenate([near_QKk[:, label], squared_QB], axis=1)
                    near_QKk[:, label] = np.sort(np.partition(all_QB, k - 1, axis=1)[:, :k], axis=1)
            yield part, near_QKk
            bar.update(part.stop)


def neighbor_scores(near_QKk: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Scores by the votes of the ``k`` nearest images: (Q, K). Images as near as the last of them vote too. Equal votes, none
    among them, are ranked by the distance of the nearest image of the class."""
    limit_Q11 = np.partition(near_QKk.reshape(len(near_QKk), -1), k - 1, axis=1)[:, k - 1, None, None]
    votes_QK = ((near_QKk <= limit_Q11) & np.isfinite(near_QKk)).sum(axis=2)
    order_QK = np.lexsort((near_QKk[:, :, 0], -votes_QK), axis=1)
    score_QK = np.empty(votes_QK.shape)
    np.put_along_axis(score_QK, order_QK, np.arange(votes_QK.shape[1], 0, -1.0)[None], axis=1)
    return score_QK


def nearest_neighbors(trial: Trial, side: int = 32) -> Answers:
    """The classes of the nearest training images by the Euclidean distance of pixels. How many vote is chosen on one training
    image in five, which the other four answer."""
    start = time.perf_counter()
    n, num_classes, quiet, label_N = trial.num_fit, len(trial.classes), trial.quiet, trial.label_N
    row_ND = reduced_pixels(trial.train, trial.image_N, side, "training images", quiet=quiet)
    ks = [k for k in NEIGHBORS if k <= n]
    what = "neighbors of training images"
    errors = dict.fromkeys(ks, 0)
    for part, near_QKk in nearest_in_classes(
        row_ND[n:], row_ND[:n], label_N[:n], num_classes, ks[-1], what, quiet=quiet
    ):
        for k in ks:
            errors[k] += count_errors(neighbor_scores(near_QKk, k), label_N[n:][part])["top1_errors"]
    best = min(ks, key=lambda k: errors[k])
    fitted = time.perf_counter()

    query_MD = reduced_pixels(trial.held_out, np.arange(len(trial.held_out)), side, "held-out images", quiet=quiet)
    score_MK = np.empty((len(query_MD), num_classes))
    for part, near_QKk in nearest_in_classes(query_MD, row_ND, label_N, num_classes, best, "neighbors", quiet=quiet):
        score_MK[part] = neighbor_scores(near_QKk, best)
    return Answers(
        score_MK=score_MK,
        log_probability=False,
        fit_seconds=fitted - start,
        test_seconds=time.perf_counter() - fitted,
        model_bytes=row_ND.nbytes,
        method={
            "classifier": "nearest neighbors, Euclidean, exact; equal votes by the nearest image of each class",
            "numbers": row_ND.shape[1],
            "pixels": _reduction(trial, side),
            "neighbors": best,
            "tried": [{"neighbors": k, "errors": errors[k], "n": len(label_N) - n} for k in ks],
        },
    )


def linear(trial: Trial, side: int = 32) -> Answers:
    """Multinomial logistic regression on standardized pixels. C is chosen on one training image in five, with means and
    deviations of the other four; then all training images are fitted with it."""
    require_scikit_learn()
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    start = time.perf_counter()
    n, label_N = trial.num_fit, trial.label_N
    row_ND = reduced_pixels(trial.train, trial.image_N, side, "training images", quiet=trial.quiet)
    scaler = StandardScaler()
    classifier = LogisticRegression(tol=TOLERANCE, max_iter=MAX_ITERATIONS)
    fit_ND, choose_ND = scaler.fit_transform(row_ND[:n]), scaler.transform(row_ND[n:])
    with Bar("classifiers", len(STRENGTHS) + 1, "fits", quiet=trial.quiet) as bar:

        def errors_of(strength: float) -> int:
            _fit(classifier.set_params(C=strength), fit_ND, label_N[:n])
            bar.update(bar.done + 1)
            return int((classifier.predict(choose_ND) != label_N[n:]).sum())

        best, tried = choose(STRENGTHS, errors_of)
        _fit(classifier.set_params(C=best), scaler.fit_transform(row_ND), label_N)
        bar.update(bar.total)
    numbers = row_ND.shape[1]
    del row_ND
    fitted = time.perf_counter()

    query_MD = reduced_pixels(
        trial.held_out, np.arange(len(trial.held_out)), side, "held-out images", quiet=trial.quiet
    )
    score_MK = one_column_a_class(classifier.decision_function(scaler.transform(query_MD)))
    return Answers(
        score_MK=torch.from_numpy(score_MK).log_softmax(dim=1).numpy(),
        log_probability=True,
        fit_seconds=fitted - start,
        test_seconds=time.perf_counter() - fitted,
        model_bytes=4 * (classifier.coef_.size + classifier.intercept_.size + 2 * numbers),
        method={
            "classifier": "scikit-learn's LogisticRegression: multinomial, penalty |w|^2 / 2, L-BFGS",
            "numbers": numbers,
            "pixels": _reduction(trial, side),
            "scaling": "each number to mean 0 and deviation 1 on the training images",
            "tolerance": TOLERANCE,
            "converged": bool(np.max(classifier.n_iter_) < MAX_ITERATIONS),
            "C": best,
            "tried": [{"C": c, "errors": e, "n": len(label_N) - n} for c, e in tried],
            "choice": f"on one in {SELECTION_PART} training images of each class, until the errors rise",
        },
    )


def _fit(classifier: Any, row_ND: Array, label_N: Labels) -> None:
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it becomes a field of the result
        classifier.fit(row_ND, label_N)


def _reduction(trial: Trial, side: int) -> str:
    size = trial.held_out.read(np.arange(1)).shape[1]
    return f"{size} x {size}, averaged to {side} x {side}" if side < size else f"{size} x {size}, as stored"
