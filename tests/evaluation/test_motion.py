"""Averages over time, changes of the answer and steadiness, against arithmetic written out."""

from __future__ import annotations

import numpy as np
import pytest

from alexnet.evaluation.motion import directions, running_mean, similarity, steadiness, stretches


def test_the_running_mean_is_over_the_frames_that_there_are_and_no_more_than_its_window() -> None:
    # window 3: 1/1, (1+0)/2, (1+0+5)/3, (0+5+4)/3, (5+4+0)/3
    value_NK = np.array([[1, 10], [0, 10], [5, 10], [4, 10], [0, 40]], dtype=np.float32)
    expected = [[1, 10], [0.5, 10], [2, 10], [3, 10], [3, 20]]
    np.testing.assert_allclose(running_mean(value_NK, 3), expected, rtol=1e-15)


def test_the_window_is_of_32_frames() -> None:
    value_NK = np.zeros((70, 1))
    value_NK[10] = 32
    assert np.flatnonzero(running_mean(value_NK)[:, 0]).tolist() == list(range(10, 42))
    assert running_mean(value_NK)[41] == 1


def test_a_mean_of_probabilities_is_one_of_probabilities() -> None:
    value_NK = np.random.default_rng(0).dirichlet(np.ones(7), 10_000)
    mean_NK = running_mean(value_NK)
    np.testing.assert_allclose(mean_NK.sum(axis=1), 1, atol=1e-9)
    np.testing.assert_allclose(mean_NK[-1], value_NK[-32:].mean(axis=0), atol=1e-9)


def test_stretches_are_rows_of_one_label() -> None:
    assert stretches(np.array([4, 4, 2, 4, 4, 4])) == [(0, 1), (2, 2), (3, 5)]
    assert stretches(np.array([1])) == [(0, 0)]
    assert stretches(np.array([], dtype=int)) == []


def test_similarity_is_the_cosine_to_the_frame_before() -> None:
    #                      |a| 5    |b| 10: same direction  (3*4 + 4*-3) = 0   nothing answers
    value_ND = np.array([[3, 4.0], [6, 8], [4, -3], [0, 0], [1, 0], [3, 4]], dtype=np.float32)
    expected = [np.nan, 1, 0, np.nan, np.nan, 0.6]
    np.testing.assert_allclose(similarity(directions(value_ND)), expected, atol=1e-7)


def test_a_still_clip_is_steady_in_any_order() -> None:
    still_ND = directions(np.tile(np.random.default_rng(0).uniform(size=(1, 50)), (9, 1)))
    found = steadiness(still_ND)
    assert found is not None
    assert (found.pairs, found.shuffles) == (8, 100)
    assert [found.cosine, found.shuffled, found.low, found.high] == pytest.approx([1, 1, 1, 1], abs=1e-6)


def test_what_moves_slowly_is_steadier_than_shuffled_and_noise_is_not() -> None:
    random = np.random.default_rng(0)
    steps_ND = random.normal(size=(60, 40))
    walk = steadiness(directions(np.cumsum(steps_ND, axis=0)))
    noise = steadiness(directions(steps_ND))
    assert walk is not None
    assert noise is not None
    assert walk.low <= walk.shuffled <= walk.high < walk.cosine
    assert noise.low < noise.cosine < noise.high
    assert walk == steadiness(directions(np.cumsum(steps_ND, axis=0)))  # the same seed draws the same orders
    other = steadiness(directions(steps_ND), seed=1)
    assert other is not None
    assert (other.cosine, other.shuffled != noise.shuffled) == (noise.cosine, True)


def test_shuffles_tend_to_the_mean_over_all_pairs() -> None:
    unit_ND = directions(np.random.default_rng(3).uniform(size=(12, 5)))
    gram_NN = unit_ND @ unit_ND.T
    all_pairs = gram_NN[~np.eye(12, dtype=bool)].mean()
    found = steadiness(unit_ND, shuffles=500)
    assert found is not None
    assert found.shuffled == pytest.approx(all_pairs, abs=0.006)


def test_one_frame_and_frames_without_an_answer_have_no_steadiness() -> None:
    assert steadiness(np.ones((1, 3), np.float32)) is None
    assert steadiness(np.zeros((4, 3), np.float32)) is None
