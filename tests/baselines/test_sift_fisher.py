"""Dense SIFT and Fisher vectors: loops written out, facts of gradients, scikit-image, finite differences, drawn classes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import norm
from skimage.feature import fisher_vector
from sklearn.mixture import GaussianMixture

from alexnet.baselines import sift_fisher as module
from alexnet.baselines import trial as trial_module
from alexnet.baselines.sift_fisher import (
    Grid,
    Mixture,
    bands,
    dense_color,
    dense_sift,
    descriptors,
    fisher_gradients,
    fit_mixture,
    grid_for,
    improved,
    sift_fisher,
)
from alexnet.baselines.trial import Trial, count_errors
from alexnet.core.errors import UsageError

CHANCE = 50 / 60
ONE = Grid((16,), 4, 99)
"""One patch in an image of 16 x 16."""


def picture(side: int = 16, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).integers(0, 256, (side, side)).astype(np.float64)


def sift(image: NDArray[np.float64], grid: Grid = ONE) -> NDArray[np.float32]:
    """(P, 4, 4, 8)."""
    found_PD = dense_sift(torch.tensor(image[None], dtype=torch.float32), grid)[0][0]
    return np.asarray(found_PD.reshape(-1, 4, 4, 8).numpy())


# --- descriptors ----------------------------------------------------------------------------------------------------


def written_out(image: NDArray[np.float64], top: int, left: int, cell: int) -> NDArray[np.float64]:
    """SIFT of one patch, pixel by pixel: each gradient is shared by the four nearest cells and the two nearest orientations."""
    side = len(image)
    histogram = np.zeros((4, 4, 8))
    for y in range(side):
        for x in range(side):
            down = (image[min(y + 1, side - 1), x] - image[max(y - 1, 0), x]) / 2
            right = (image[y, min(x + 1, side - 1)] - image[y, max(x - 1, 0)]) / 2
            length, turn = math.hypot(down, right), (math.atan2(down, right) % (2 * math.pi)) / (math.pi / 4)
            v, u = (y + 0.5 - top) / cell, (x + 0.5 - left) / cell  # in cells, from the corner of the patch
            length *= math.exp(-((v - 2) ** 2 + (u - 2) ** 2) / 8)
            for i in range(4):
                for j in range(4):
                    near = max(0, 1 - abs(v - i - 0.5)) * max(0, 1 - abs(u - j - 0.5))
                    low = int(turn) % 8
                    histogram[i, j, low] += length * near * (1 - turn % 1)
                    histogram[i, j, (low + 1) % 8] += length * near * (turn % 1)
    histogram /= np.linalg.norm(histogram)
    histogram = np.minimum(histogram, 0.2)
    return np.asarray(np.sqrt(histogram / histogram.sum()))


def test_descriptors_written_out() -> None:
    image = picture()
    assert sift(image)[0] == pytest.approx(written_out(image, 0, 0, 4), abs=1e-5)
    image, grid = picture(20, 1), Grid((20,), 3, 5)  # an odd cell; rows and columns 1 and 6
    assert grid.places(20) == [1, 6]
    for found, (top, left) in zip(sift(image, grid), [(1, 1), (1, 6), (6, 1), (6, 6)], strict=True):
        assert found == pytest.approx(written_out(image, top, left, 3), abs=1e-5)


@pytest.mark.parametrize(
    ("right", "down", "orientation"),
    [(1, 0, 0), (1, 1, 1), (0, 1, 2), (-1, 1, 3), (-1, 0, 4), (-1, -1, 5), (0, -1, 6), (1, -1, 7)],
)
def test_a_slope_has_one_orientation(right: int, down: int, orientation: int) -> None:
    y, x = np.mgrid[0.0:32, 0.0:32]
    (patch,) = sift(8 * (right * x + down * y), Grid((32,), 4, 99))
    expected = np.zeros(8)
    expected[orientation] = 1
    assert np.square(patch).sum(axis=(0, 1)) == pytest.approx(expected, abs=1e-5)


def test_an_image_turned_by_a_quarter() -> None:
    image = picture()
    (patch,) = sift(image)
    (turned,) = sift(np.rot90(image, -1).copy())  # clockwise: what pointed right points down
    assert turned == pytest.approx(np.roll(np.rot90(patch, -1), 2, axis=2), abs=1e-5)
    (mirrored,) = sift(image[:, ::-1].copy())
    assert mirrored == pytest.approx(patch[:, ::-1][:, :, [4, 3, 2, 1, 0, 7, 6, 5]], abs=1e-5)


def test_brightness_and_contrast_do_not_matter() -> None:
    assert sift(0.3 * picture() + 40) == pytest.approx(sift(picture()), abs=1e-5)


def test_flat_patches_do_not_count() -> None:
    flat, grid = np.full((64, 64), 77.0), Grid((64,), 4, 16)
    flat[:32] += picture(64)[:32]
    x = np.mgrid[0.0:64, 0.0:64][1]
    for image, expected in (
        (flat, [True] * 8 + [False] * 8),
        (1.1 * x, [True] * 16),  # an inner patch has a mean gradient of 1.1 levels
        (0.9 * x, [False] * 16),
    ):
        found, counts = dense_sift(torch.tensor(image[None], dtype=torch.float32), grid)
        assert torch.isfinite(found).all()
        inner = [5, 6, 9, 10] if image is not flat else [0, 1, 2, 3, 12, 13, 14, 15]
        assert counts[0][inner].tolist() == [expected[i] for i in inner]


def test_color_statistics_written_out() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 20, 20)).astype(np.float32)
    found, counts = dense_color(torch.from_numpy(pixels), Grid((20,), 3, 5))
    assert counts.all()
    for patch, (top, left) in zip(found[0], [(1, 1), (1, 6), (6, 1), (6, 6)], strict=True):
        cells = pixels[0, :, top : top + 12, left : left + 12].reshape(3, 4, 3, 4, 3).transpose(1, 3, 0, 2, 4) / 255
        means, deviations = cells.mean(axis=(3, 4)).ravel(), cells.std(axis=(3, 4)).ravel()
        assert patch.numpy() == pytest.approx(np.concatenate([means, deviations]), abs=1e-4)


def test_grids_for_photographs_and_for_small_images() -> None:
    assert grid_for(256) == Grid((256, 181, 128, 91, 64), 6, 6)
    assert grid_for(500) == grid_for(256)
    assert grid_for(28) == Grid((56, 40, 28, 20), 4, 3)
    assert grid_for(8) == Grid((16,), 4, 3)
    with pytest.raises(UsageError, match="too small"):
        grid_for(7)
    for side in grid_for(28).sides:
        first, last = grid_for(28).places(side)[0], side - 16 - grid_for(28).places(side)[-1]
        assert 0 <= last - first <= 1


def test_patches_and_their_bands_are_in_the_same_order() -> None:
    grid = Grid((48, 24), 4, 8)  # rows 0 8 16 24 32 of 48, centers 8 16 24 32 40; rows 0 8 of 24
    assert bands(grid, 3).tolist() == [0] * 5 + [1] * 10 + [2] * 10 + [1, 1, 2, 2]
    assert set(bands(grid, 1)) == {0}
    pixels = torch.zeros(1, 48, 48, 1, dtype=torch.uint8)
    pixels[:, 24:] = torch.from_numpy(picture(48)[24:, :, None].astype(np.uint8))
    _, counts_BP = descriptors(pixels, grid, "sift")
    assert counts_BP.shape == (1, 29)
    assert not counts_BP[0, :5].any()
    assert counts_BP[0, 20:25].all()
    assert counts_BP[0, 27:].all()


# --- Fisher vectors -------------------------------------------------------------------------------------------------


def some_mixture(num: int = 3, dim: int = 5) -> Mixture:
    random = np.random.default_rng(0)
    weight_G = random.uniform(0.5, 1, num)
    return Mixture(
        torch.zeros(dim),
        torch.eye(dim),
        torch.tensor(weight_G / weight_G.sum()),
        torch.tensor(random.normal(size=(num, dim))),
        torch.tensor(random.uniform(0.5, 2, (num, dim))),
        True,
    )


def gradients(x_PE: NDArray[np.float64], mixture: Mixture) -> NDArray[np.float64]:
    """Of the whole image, (2, G, E)."""
    num = len(x_PE)
    everything, nowhere = torch.ones(1, num, dtype=torch.bool), torch.zeros(num, dtype=torch.int64)
    found_BRF = fisher_gradients(torch.tensor(x_PE[None]), everything, nowhere, 1, mixture)
    return np.asarray(found_BRF.numpy().reshape(2, *mixture.mean_GE.shape))


def test_the_fisher_vectors_of_scikit_image() -> None:
    mixture, x_PE = some_mixture(), np.random.default_rng(1).normal(size=(40, 5))
    theirs = GaussianMixture(3, covariance_type="diag")
    theirs.weights_, theirs.means_ = mixture.weight_G.numpy(), mixture.mean_GE.numpy()
    theirs.covariances_ = mixture.variance_GE.numpy()
    theirs.precisions_cholesky_ = 1 / np.sqrt(theirs.covariances_)
    expected_F = fisher_vector(x_PE, theirs)
    by_mean, by_deviation = gradients(x_PE, mixture)
    assert by_mean.ravel() == pytest.approx(expected_F[3:18], abs=1e-12)
    assert by_deviation.ravel() == pytest.approx(-expected_F[18:], abs=1e-12)  # scikit-image has the other sign here


def test_fisher_vectors_are_the_gradient_of_the_likelihood() -> None:
    mixture, x_PE = some_mixture(), np.random.default_rng(1).normal(size=(40, 5))
    weight_G, mean_GE = mixture.weight_G.numpy(), mixture.mean_GE.numpy()
    deviation_GE = mixture.variance_GE.sqrt().numpy()

    def likelihood(mean_GE: NDArray[np.float64], deviation_GE: NDArray[np.float64]) -> float:
        log_PG = norm.logpdf(x_PE[:, None], mean_GE, deviation_GE).sum(axis=2) + np.log(weight_G)
        return float(logsumexp(log_PG, axis=1).mean())

    by_mean, by_deviation = gradients(x_PE, mixture)
    for g, e in [(0, 0), (1, 3), (2, 4)]:
        step = np.zeros_like(mean_GE)
        step[g, e] = 1e-5
        slope = (likelihood(mean_GE + step, deviation_GE) - likelihood(mean_GE - step, deviation_GE)) / 2e-5
        assert by_mean[g, e] == pytest.approx(slope * deviation_GE[g, e] / math.sqrt(weight_G[g]), rel=1e-6)
        slope = (likelihood(mean_GE, deviation_GE + step) - likelihood(mean_GE, deviation_GE - step)) / 2e-5
        assert by_deviation[g, e] == pytest.approx(slope * deviation_GE[g, e] / math.sqrt(2 * weight_G[g]), rel=1e-6)


def test_bands_hold_their_own_descriptors_and_those_that_count() -> None:
    mixture, random = some_mixture(), np.random.default_rng(1)
    x_BPE = torch.tensor(random.normal(size=(2, 30, 5)))
    counts_BP, band_P = torch.tensor(random.random((2, 30)) < 0.7), torch.tensor(random.integers(0, 3, 30))
    counts_BP[1, band_P == 2] = False
    found_BRF = fisher_gradients(x_BPE, counts_BP, band_P, 3, mixture).numpy()
    for b in range(2):
        for r, inside_P in enumerate([band_P >= 0, band_P == 0, band_P == 1, band_P == 2]):
            kept_PE = x_BPE[b, counts_BP[b] & inside_P].numpy()
            expected = gradients(kept_PE, mixture).ravel() if len(kept_PE) else np.zeros(30)
            assert found_BRF[b, r] == pytest.approx(expected, abs=1e-12)


def test_improved_vectors_are_rooted_and_of_length_one() -> None:
    gradient_BRF = torch.tensor([[[4.0, -9.0, 0.0], [0.0, 0.0, -16.0]], [[0.0, 0, 0], [0, 0, 0]]])
    found_BF = improved(gradient_BRF)
    expected = np.array([2 / math.sqrt(13), -3 / math.sqrt(13), 0, 0, 0, -1]) / math.sqrt(2)
    assert found_BF[0].numpy() == pytest.approx(expected, abs=1e-6)
    assert (found_BF[1] == 0).all()  # an image without descriptors


def test_planted_gaussians_are_found() -> None:
    random = np.random.default_rng(0)
    center_GD = 10 * np.eye(3, 8)
    x_ND = (center_GD[np.arange(3000) % 3] + random.normal(size=(3000, 8))).astype(np.float32)
    mixture = fit_mixture(x_ND, 3, seed=0)
    found_GD = mixture.mean_GE @ mixture.basis_DE.T + mixture.center_D
    order = found_GD[:, :3].argmax(dim=1).argsort()
    assert found_GD[order].numpy() == pytest.approx(center_GD, abs=0.2)
    assert mixture.weight_G.numpy() == pytest.approx(np.full(3, 1 / 3), abs=0.01)
    with pytest.raises(UsageError, match="--gaussians"):
        fit_mixture(x_ND[:2], 3, seed=0)


# --- the baseline ---------------------------------------------------------------------------------------------------


def test_drawn_classes_are_told_apart_by_form_and_by_color(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLE_PATCHES", 50)
    answers = sift_fisher(trial, gaussians=4, num_bands=2)
    assert answers.parts is not None
    label_M = trial.label_M
    assert count_errors(answers.score_MK, label_M)["top1_error"] < CHANCE - 0.3
    colored, formed = (np.isin(label_M, own) for own in ([0, 1], [2, 3, 4, 5]))
    assert count_errors(answers.parts["sift"][formed], label_M[formed])["top1_error"] < CHANCE - 0.3
    assert count_errors(answers.parts["color"][colored], label_M[colored])["top1_error"] < CHANCE - 0.3
    assert answers.score_MK == pytest.approx((answers.parts["sift"] + answers.parts["color"]) / 2)
    assert answers.method["fisher_vector"]["numbers"] == 2 * 4 * 64 * 3
    sift = 128 + 128 * 64 + 4 + 2 * 4 * 64 + 6 * 1536 + 6
    color = 96 + 96 * 64 + 4 + 2 * 4 * 64 + 6 * 1536 + 6
    assert answers.model_bytes == 4 * (sift + color)
    again = sift_fisher(trial, gaussians=4, num_bands=2)
    assert (answers.score_MK == again.score_MK).all()
    assert answers.method == again.method


def test_what_cannot_be_done_is_said(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="--bands"):
        sift_fisher(trial, num_bands=0)
    with pytest.raises(UsageError, match="--gaussians"):
        sift_fisher(trial, gaussians=0)
    monkeypatch.setattr(trial_module, "MAX_BYTES", 1000)
    monkeypatch.setattr(module, "EM_STEPS", 1)
    with pytest.raises(UsageError, match="--gaussians or --bands"):
        sift_fisher(trial, gaussians=1)
