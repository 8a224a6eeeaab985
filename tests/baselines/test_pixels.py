"""Nearest neighbors and a linear classifier: scikit-learn and scipy, votes written out, and drawn classes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from alexnet.baselines import kernel_svm as kernel_module
from alexnet.baselines import pixels
from alexnet.baselines.kernel_svm import kernel_svm
from alexnet.baselines.pixels import (
    linear,
    nearest_in_classes,
    nearest_neighbors,
    neighbor_scores,
    squared_distances,
)
from alexnet.baselines.trial import Array, Labels, Trial, count_errors, reduced_pixels
from alexnet.core.errors import UsageError

CHANCE = 50 / 60


def near(query_QD: Array, row_ND: Array, label_N: Labels, k: int) -> NDArray[np.float64]:
    """Of four classes, the blocks put together."""
    near_QKk = np.full((len(query_QD), 4, k), np.nan)
    for part, block in nearest_in_classes(query_QD, row_ND, label_N, 4, k, "test", quiet=True):
        near_QKk[part] = block
    return near_QKk


def test_distances_of_pixels_are_exact() -> None:
    random = np.random.default_rng(0)
    a_QD, b_ND = (random.integers(0, 256 * 64, (n, 300)).astype(np.float32) / 64 for n in (5, 7))
    expected_QN = [
        [sum((int(64 * x) - int(64 * y)) ** 2 for x, y in zip(a, b, strict=True)) for b in b_ND] for a in a_QD
    ]
    assert (squared_distances(a_QD, b_ND) * 4096 == np.array(expected_QN)).all()


def test_the_nearest_of_each_class_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "QUERIES", 7)
    monkeypatch.setattr(pixels, "ROWS", 5)
    random = np.random.default_rng(0)
    query_QD, row_ND = random.normal(size=(20, 4)).astype(np.float32), random.normal(size=(60, 4)).astype(np.float32)
    label_N = np.concatenate([np.zeros(2, np.int64), random.integers(0, 3, 58) % 2 + 1])
    near_QKk = near(query_QD, row_ND, label_N, 3)
    squared_QN = cdist(query_QD.astype(float), row_ND.astype(float), "sqeuclidean")
    for label in (1, 2):
        assert near_QKk[:, label] == pytest.approx(np.sort(squared_QN[:, label_N == label], axis=1)[:, :3], abs=1e-10)
    assert near_QKk[:, 0, :2] == pytest.approx(np.sort(squared_QN[:, :2], axis=1), abs=1e-10)
    assert np.isinf(near_QKk[:, 0, 2]).all()  # two images only
    assert np.isinf(near_QKk[:, 3]).all()  # none


def test_votes_written_out() -> None:
    # Three classes; the three nearest of all images are at 1 (class 1), 2 (class 0) and 3 (class 1).
    near_1Kk = np.array([[[2.0, 9.0, 9.0], [1.0, 3.0, 8.0], [4.0, 5.0, 6.0]]])
    assert neighbor_scores(near_1Kk, 1).argsort(axis=1)[0, ::-1].tolist() == [1, 0, 2]
    assert neighbor_scores(near_1Kk, 3).argsort(axis=1)[0, ::-1].tolist() == [1, 0, 2]
    # Votes 1, 0, 2 of three: the most votes first, though class 0 has the nearest; class 1 has none, so it is last.
    near_1Kk = np.array([[[1.0, 9.0, 9.0], [7.0, 9.0, 9.0], [2.0, 3.0, 8.0]]])
    assert neighbor_scores(near_1Kk, 3).argsort(axis=1)[0, ::-1].tolist() == [2, 0, 1]
    # Two images are as near as the second: both vote, and the order of the classes does not decide.
    near_1Kk = np.array([[[1.0, 9.0], [5.0, 5.0], [8.0, 8.0]]])
    assert neighbor_scores(near_1Kk, 2).argmax() == 1


@pytest.mark.parametrize("k", [1, 5])
def test_the_neighbors_of_scikit_learn(k: int) -> None:
    random = np.random.default_rng(k)
    row_ND, query_QD = random.normal(size=(300, 6)).astype(np.float32), random.normal(size=(200, 6)).astype(np.float32)
    label_N = random.integers(0, 4, 300)
    near_QKk = near(query_QD, row_ND, label_N, k)
    theirs = KNeighborsClassifier(k).fit(row_ND, label_N)
    votes_QK = np.sort(theirs.predict_proba(query_QD), axis=1)
    clear_Q = votes_QK[:, -1] > votes_QK[:, -2]  # of equal votes scikit-learn takes the first class
    assert clear_Q.sum() > 100
    found_Q = neighbor_scores(near_QKk, k).argmax(axis=1)
    assert (found_Q == theirs.predict(query_QD))[clear_Q].all()


def test_neighbors_of_drawn_classes(trial: Trial) -> None:
    answers = nearest_neighbors(trial, side=8)
    assert count_errors(answers.score_MK, trial.label_M)["top1_error"] < CHANCE - 0.2
    assert not answers.log_probability
    assert answers.model_bytes == 120 * 8 * 8 * 3 * 4
    # How many vote was chosen without the held-out images: the errors of scikit-learn on the part that chooses.
    row_ND = reduced_pixels(trial.train, trial.image_N, 8, "test", quiet=True)
    (tried,) = [row for row in answers.method["tried"] if row["neighbors"] == 1]
    theirs = KNeighborsClassifier(1).fit(row_ND[:96], trial.label_N[:96])
    assert tried == {"neighbors": 1, "errors": int((theirs.predict(row_ND[96:]) != trial.label_N[96:]).sum()), "n": 24}


def test_a_linear_classifier_of_drawn_classes(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "TOLERANCE", 1e-8)
    answers = linear(trial, side=8)
    assert count_errors(answers.score_MK, trial.label_M)["top1_error"] < CHANCE - 0.2
    assert np.exp(answers.score_MK).sum(axis=1) == pytest.approx(np.ones(60), abs=1e-9)
    row_ND = reduced_pixels(trial.train, trial.image_N, 8, "test", quiet=True).astype(np.float64)
    query_MD = reduced_pixels(trial.held_out, np.arange(60), 8, "test", quiet=True).astype(np.float64)
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=answers.method["C"], tol=1e-8, max_iter=1000))
    expected_MK = theirs.fit(row_ND, trial.label_N).predict_log_proba(query_MD)
    assert answers.score_MK == pytest.approx(expected_MK, abs=0.02)
    assert answers.model_bytes == 4 * (6 * 192 + 6 + 2 * 192)


def test_a_linear_classifier_of_two_classes(trial: Trial) -> None:
    keep_N = trial.label_N < 2
    two = replace(
        trial,
        classes=trial.classes[:2],
        image_N=trial.image_N[keep_N],
        num_fit=int(keep_N[: trial.num_fit].sum()),
    )
    score_MK = linear(two, side=8).score_MK
    assert score_MK.shape == (60, 2)
    assert (score_MK[two.label_M < 2].argmax(axis=1) == two.label_M[two.label_M < 2]).mean() > 0.8  # blue and red
    assert kernel_svm(two, side=8).score_MK.shape == (60, 2)


def test_kernel_machines_are_those_of_scikit_learn(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_module, "WIDTHS", (2.0, 3.0))
    answers = kernel_svm(trial, side=8)
    assert count_errors(answers.score_MK, trial.label_M)["top1_error"] < CHANCE - 0.2
    row_ND = reduced_pixels(trial.train, trial.image_N, 8, "test", quiet=True).astype(np.float64)
    query_MD = reduced_pixels(trial.held_out, np.arange(60), 8, "test", quiet=True).astype(np.float64)
    theirs = SVC(kernel="rbf", gamma=answers.method["gamma"], C=answers.method["C"]).fit(row_ND, trial.label_N)
    assert answers.score_MK == pytest.approx(theirs.decision_function(query_MD), abs=1e-2)
    assert answers.method["support_vectors"] == len(theirs.support_)


def test_too_many_images_for_a_kernel(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_module, "MAX_IMAGES", 100)
    with pytest.raises(UsageError, match="--train-images"):
        kernel_svm(trial)


def test_the_same_twice(trial: Trial) -> None:
    for function in (nearest_neighbors, linear, kernel_svm):
        assert (function(trial, 8).score_MK == function(trial, 8).score_MK).all()
