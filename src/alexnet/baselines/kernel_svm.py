"""A support vector machine with a Gaussian kernel on raw pixels, which takes time and memory with the square of the images:
so it is fitted to a part of them.

Shape suffixes: N training images, Q held-out images of a block, K classes, D numbers of an image.
"""

from __future__ import annotations

import time

import numpy as np

from alexnet.baselines.pixels import QUERIES, squared_distances
from alexnet.baselines.trial import (
    SELECTION_PART,
    Answers,
    Trial,
    count_errors,
    one_column_a_class,
    reduced_pixels,
    require_scikit_learn,
)
from alexnet.core.console import Bar
from alexnet.core.errors import UsageError

MAX_IMAGES = 10_000
"""Their kernel takes 800 MB, and there are three matrices of this size at a time."""
WIDTHS = (1.0, 3.0, 9.0)
"""Values of gamma times the mean squared distance of training images."""
STRENGTHS = (1.0, 10.0, 100.0)
"""Values of C."""


def kernel_svm(trial: Trial, side: int = 32) -> Answers:
    """Support vector machines with the kernel exp(-gamma |x - y|^2), one for each pair of classes. Gamma and C are chosen on one
    training image in five. Raises :class:`UsageError` for more than :data:`MAX_IMAGES` training images."""
    require_scikit_learn()
    from sklearn.svm import SVC

    if len(trial.image_N) > MAX_IMAGES:
        raise UsageError(
            f"a kernel machine of {len(trial.image_N):,} training images takes too much memory and time; "
            f"take at most {MAX_IMAGES:,} with --train-images"
        )
    start = time.perf_counter()
    n, label_N = trial.num_fit, trial.label_N
    row_ND = reduced_pixels(trial.train, trial.image_N, side, "training images", quiet=trial.quiet)
    squared_NN = squared_distances(row_ND, row_ND)
    mean = squared_NN.mean() or 1.0
    classifier = SVC(kernel="precomputed")
    tried = []
    with Bar("classifiers", len(WIDTHS) * len(STRENGTHS) + 1, "fits", quiet=trial.quiet) as bar:
        for width in WIDTHS:
            kernel_NN = np.exp(squared_NN[:, :n] * (-width / mean))
            for strength in STRENGTHS:
                classifier.set_params(C=strength).fit(kernel_NN[:n], label_N[:n])
                score_QK = one_column_a_class(classifier.decision_function(kernel_NN[n:]))
                tried.append((width, strength, count_errors(score_QK, label_N[n:])["top1_errors"]))
                bar.update(len(tried))
        width, strength, _ = min(tried, key=lambda row: row[2])
        kernel_NN = np.exp(squared_NN * (-width / mean))
        classifier.set_params(C=strength).fit(kernel_NN, label_N)
        bar.update(bar.total)
    del squared_NN, kernel_NN
    fitted = time.perf_counter()

    query_MD = reduced_pixels(
        trial.held_out, np.arange(len(trial.held_out)), side, "held-out images", quiet=trial.quiet
    )
    score_MK = np.empty((len(query_MD), len(trial.classes)))
    with Bar("kernel of held-out images", len(query_MD), quiet=trial.quiet) as bar:
        for first in range(0, len(query_MD), QUERIES):
            part = slice(first, first + QUERIES)
            kernel_QN = np.exp(squared_distances(query_MD[part], row_ND) * (-width / mean))
            score_MK[part] = one_column_a_class(classifier.decision_function(kernel_QN))
            bar.update(min(first + QUERIES, len(query_MD)))
    return Answers(
        score_MK=score_MK,
        log_probability=False,
        fit_seconds=fitted - start,
        test_seconds=time.perf_counter() - fitted,
        model_bytes=4
        * (len(classifier.support_) * row_ND.shape[1] + classifier.dual_coef_.size + classifier.intercept_.size),
        method={
            "classifier": "scikit-learn's SVC: one machine for each pair of classes, ranked by votes, then by margins",
            "kernel": "exp(-gamma |x - y|^2) of pixels on 0..255",
            "numbers": row_ND.shape[1],
            "gamma": width / mean,
            "C": strength,
            "support_vectors": len(classifier.support_),
            "tried": [{"gamma": w / mean, "C": c, "errors": errors, "n": len(label_N) - n} for w, c, errors in tried],
            "choice": f"on one in {SELECTION_PART} training images of each class",
        },
    )
