"""Draws depend on (seed, stream, epoch, image) alone, and are as random as they should be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from alexnet.core import rng


def test_splitmix64_gives_the_published_sequence():
    # The first outputs of SplitMix64 with seed 1234567 (Vigna's reference implementation).
    golden = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        state = np.uint64(1234567) + np.arange(1, 6, dtype=np.uint64) * golden
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert rng._mix64(state).tolist() == expected


def test_a_draw_does_not_depend_on_the_batch_it_is_made_in():
    alone = [rng.uniform(3, "crop", 7, np.array([i]), 4) for i in range(10)]
    together = rng.uniform(3, "crop", 7, np.arange(10), 4)
    assert np.array_equal(np.concatenate(alone), together)


@pytest.mark.parametrize("change", [{"seed": 1}, {"stream": "mirror"}, {"epoch": 1}, {"image_B": np.arange(1, 1001)}])
def test_every_coordinate_changes_the_draw(change):
    base = {"seed": 0, "stream": "crop", "epoch": 0, "image_B": np.arange(1000)}
    a, b = rng.uniform(**base, num=1)[:, 0], rng.uniform(**(base | change), num=1)[:, 0]
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.12  # 4 standard errors of 1000 independent pairs


def test_uniform_draws_are_uniform_and_normal_draws_normal():
    uniform = rng.uniform(0, "test", 0, np.arange(20_000), 2)
    assert stats.kstest(uniform[:, 0], "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(uniform.T)[0, 1]) < 0.03
    assert stats.kstest(rng.normal(0, "test", 0, np.arange(20_000), 1)[:, 0], "norm").pvalue > 1e-3


def test_integers_reach_both_ends_equally_often():
    counts = np.bincount(rng.integers(0, "crop", 0, np.arange(33_000), 1, 33)[:, 0], minlength=33)
    assert len(counts) == 33
    assert stats.chisquare(counts).pvalue > 1e-3


def test_permutation_holds_each_image_once_and_differs_by_epoch():
    first, second = rng.permutation(0, "order", 0, 1000), rng.permutation(0, "order", 1, 1000)
    assert sorted(first) == sorted(second) == list(range(1000))
    assert (first != second).mean() > 0.98


def test_dropout_masks_keep_the_stated_share_and_are_independent_between_images_and_units():
    draw = rng.DropoutDraw(seed=0, epoch=0, image_B=np.arange(64))
    keep_BU = rng.dropout_keep(draw, "fc6", 4096, 0.5, torch.device("cpu")).double()
    assert float(keep_BU.mean()) == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(64 * 4096))
    off_diagonal = np.corrcoef(keep_BU.numpy()) - np.eye(64)
    assert np.abs(off_diagonal).max() < 5.5 / np.sqrt(4096)
    shifted = [np.corrcoef(keep_BU[:, :-d].flatten(), keep_BU[:, d:].flatten())[0, 1] for d in (1, 2, 3, 16)]
    assert np.abs(shifted).max() < 5 / np.sqrt(64 * 4096)
    rare = rng.dropout_keep(draw, "fc6", 4096, 0.1, torch.device("cpu")).double()
    assert float(rare.mean()) == pytest.approx(0.1, abs=0.003)


def test_dropout_masks_follow_the_image_not_its_place():
    device = torch.device("cpu")
    forward = rng.dropout_keep(rng.DropoutDraw(5, 2, np.array([8, 9])), "fc7", 100, 0.5, device)
    backward = rng.dropout_keep(rng.DropoutDraw(5, 2, np.array([9, 8])), "fc7", 100, 0.5, device)
    assert torch.equal(forward, backward.flip(0))
    other_layer = rng.dropout_keep(rng.DropoutDraw(5, 2, np.array([8, 9])), "fc6", 100, 0.5, device)
    assert not torch.equal(forward, other_layer)


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0, 4.0])
def test_shares_are_beta_distributed(alpha):
    share = rng.symmetric_beta(0, "mix", 0, np.arange(20_000), alpha)
    assert stats.kstest(share, stats.beta(alpha, alpha).cdf).pvalue > 0.01
    assert np.array_equal(rng.symmetric_beta(0, "mix", 0, np.array([7]), alpha), share[7:8])
