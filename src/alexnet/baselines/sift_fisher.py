"""Dense SIFT and color descriptors, Fisher vectors and linear support vector machines: what led before 2012 (tables 1 and 2).

Descriptors: Lowe 2004, on a grid. Fisher vectors: Perronnin, Sanchez and Mensink 2010; with bands of the image and linear
machines by stochastic gradient descent: Sanchez and Perronnin 2011, whose two classifiers table 1 names.

Shape suffixes: B images of a batch, S rows and columns, C channels, O orientations, Y rows and X columns of the grid, I cells
along a side of a patch, P patches of an image, D numbers of a descriptor, G Gaussians, R regions, F numbers of a Fisher
vector, N training images, M held-out images, K classes.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from alexnet.baselines.trial import (
    SELECTION_PART,
    Answers,
    Array,
    Labels,
    Trial,
    choose,
    count_errors,
    one_column_a_class,
    require_memory,
    require_scikit_learn,
)
from alexnet.core import rng
from alexnet.core.console import Bar
from alexnet.core.errors import UsageError
from alexnet.data.loader import batches

Kind = Literal["sift", "color"]

CELLS, ORIENTATIONS = 4, 8
CLIP = 0.2
"""Greatest number of a SIFT descriptor before it is normalized again (Lowe 2004)."""
FLAT = 1.0
"""Mean gradient, in levels of 0..255 a pixel, below which a patch has no SIFT descriptor."""
SCALES = 5
"""Sizes at which an image is read at most, each smaller than the one before by the square root of 2."""
LARGEST, SMALL = 256, 96
"""Larger images are reduced to this side; smaller ones than this are doubled first, as Lowe does."""
REDUCED = 64
"""Numbers of a descriptor after principal component analysis."""
SAMPLE_IMAGES, SAMPLE_PATCHES = 1000, 100
"""Training images, and patches of each, that components and Gaussians are fitted to."""
FLOOR = 1e-3
"""Added to the variances of the Gaussians, as a part of the mean variance of the descriptors."""
EM_STEPS = 50
ALPHAS = (1e-4, 1e-5, 1e-6)
"""Weights of the penalty |w|^2 / 2 against the mean hinge loss, tried in this order."""
EPOCHS = 10
BATCH = 16


@dataclass(frozen=True)
class Grid:
    """Where descriptors are taken: of the image at each of these sides, from patches of 4 x 4 cells of ``cell`` pixels, every
    ``step`` pixels."""

    sides: tuple[int, ...]
    cell: int
    step: int

    def places(self, side: int) -> list[int]:
        """The first row, or column, of each patch: as far from one border as from the other."""
        room = side - CELLS * self.cell
        return list(range(room % self.step // 2, room + 1, self.step))


def grid_for(size: int) -> Grid:
    """The grid of images of ``size`` pixels: 24 x 24 every 6 pixels for photographs, 16 x 16 every 3 pixels of the doubled
    image below :data:`SMALL`."""
    top, cell, step = (min(size, LARGEST), 6, 6) if size >= SMALL else (2 * size, 4, 3)
    sides = [round(top / math.sqrt(2) ** i) for i in range(SCALES)]
    if top < CELLS * cell:
        raise UsageError(
            f"images of {size} x {size} pixels are too small for SIFT; it needs {CELLS * cell // 2} or more"
        )
    return Grid(tuple(side for side in sides if side >= CELLS * cell), cell, step)


# --- descriptors ----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _windows(side: int, grid: Grid, smooth: bool) -> Tensor:
    """The weight of each pixel of a line in each cell of each patch: (Y * I, S). Smooth: it falls to 0 from the center of the
    cell to those of its neighbors, and by a Gaussian of two cells from the center of the patch (Lowe 2004, section 6.1)."""
    pixel_S = torch.arange(side, dtype=torch.float64)
    rows = []
    for first in grid.places(side):
        for i in range(CELLS):
            from_cell_S = (pixel_S - (first + (i + 0.5) * grid.cell - 0.5)).abs() / grid.cell
            from_patch_S = (pixel_S - (first + CELLS / 2 * grid.cell - 0.5)) / grid.cell
            weight_S = (1 - from_cell_S).clamp(min=0) * (-(from_patch_S**2) / (2 * (CELLS / 2) ** 2)).exp()
            rows.append(weight_S if smooth else (from_cell_S < 0.5).double() / grid.cell)
    return torch.stack(rows).float()


def _pool(map_BCSS: Tensor, window_ZS: Tensor) -> Tensor:
    """Weighted sums over the cells of all patches: (B, P, 4, 4, C), of patches in rows."""
    pooled_BCZZ = window_ZS @ map_BCSS @ window_ZS.T
    batch, channels, lines, _ = pooled_BCZZ.shape
    pooled_BCYIXI = pooled_BCZZ.view(batch, channels, lines // CELLS, CELLS, lines // CELLS, CELLS)
    return pooled_BCYIXI.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, CELLS, CELLS, channels)


def dense_sift(grey_BSS: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """SIFT descriptors of one scale, (B, P, 128): for each of 4 x 4 cells the gradient by 8 orientations, the first along the
    columns, turning toward the rows. Scaled to length 1, cut at :data:`CLIP`, scaled so again; then, as RootSIFT (Arandjelovic
    and Zisserman 2012), the square root of each number's part of their sum. Also which patches are not flat: (B, P) bool.
    ``grey_BSS`` holds levels on 0..255."""
    side = grey_BSS.shape[-1]
    padded_BSS = F.pad(grey_BSS[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    down_BSS = (padded_BSS[:, 2:, 1:-1] - padded_BSS[:, :-2, 1:-1]) / 2
    right_BSS = (padded_BSS[:, 1:-1, 2:] - padded_BSS[:, 1:-1, :-2]) / 2
    turn_BSS = torch.atan2(down_BSS, right_BSS) * (ORIENTATIONS / (2 * math.pi))  # in steps of an eighth
    length_BSS = (down_BSS.square() + right_BSS.square()).sqrt()
    map_BOSS = torch.empty(len(grey_BSS), ORIENTATIONS, side, side)
    for o in range(ORIENTATIONS):
        apart_BSS = torch.remainder(turn_BSS - o + ORIENTATIONS / 2, ORIENTATIONS) - ORIENTATIONS / 2
        map_BOSS[:, o] = apart_BSS.abs_().neg_().add_(1).clamp_(min=0).mul_(length_BSS)
    window_ZS = _windows(side, grid, smooth=True)
    histogram_BPD = _pool(map_BOSS, window_ZS).flatten(2)

    # Weights of an inner patch; at the border some fall outside.
    weight = (
        _windows(3 * CELLS * grid.cell, Grid((), grid.cell, CELLS * grid.cell), smooth=True)[CELLS : 2 * CELLS].sum()
        ** 2
    )
    textured_BP = histogram_BPD.sum(dim=2) > FLAT * weight
    histogram_BPD = F.normalize(F.normalize(histogram_BPD, dim=2).clamp(max=CLIP), dim=2)
    return F.normalize(histogram_BPD, p=1, dim=2).sqrt_(), textured_BP


def dense_color(x_BCSS: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Local color statistics (Clinchant and others 2007) of one scale, (B, P, 96): mean and deviation of red, green and blue in
    4 x 4 cells, on 0..1. Every patch has them."""
    window_ZS = _windows(x_BCSS.shape[-1], grid, smooth=False)
    x_BCSS = x_BCSS / 255
    mean_BPIIC = _pool(x_BCSS, window_ZS)
    deviation_BPIIC = (_pool(x_BCSS.square(), window_ZS) - mean_BPIIC.square()).clamp(min=0).sqrt()
    color_BPD = torch.cat([mean_BPIIC.flatten(2), deviation_BPIIC.flatten(2)], dim=2)
    return color_BPD, torch.ones(color_BPD.shape[:2], dtype=torch.bool)


def descriptors(pixels_BSSC: Tensor, grid: Grid, kind: Kind) -> tuple[Tensor, Tensor]:
    """The descriptors of all scales, (B, P, D) float32, and which of them count, (B, P) bool."""
    x_BCSS = pixels_BSSC.permute(0, 3, 1, 2).float()
    if kind == "sift" and x_BCSS.shape[1] == 3:
        x_BCSS = torch.einsum("bcij,c->bij", x_BCSS, torch.tensor([0.299, 0.587, 0.114]))[:, None]
    found = []
    for side in grid.sides:
        scaled_BCSS = x_BCSS
        if side != x_BCSS.shape[-1]:
            scaled_BCSS = F.interpolate(x_BCSS, (side, side), mode="bilinear", antialias=True, align_corners=False)
        found.append(dense_sift(scaled_BCSS[:, 0], grid) if kind == "sift" else dense_color(scaled_BCSS, grid))
    return torch.cat([f[0] for f in found], dim=1), torch.cat([f[1] for f in found], dim=1)


def bands(grid: Grid, num: int) -> Labels:
    """Which of ``num`` equal horizontal bands of the image the center of each patch is in: (P,), as :func:`descriptors`."""
    band_P: list[int] = []
    for side in grid.sides:
        places = grid.places(side)
        for first in places:
            band_P += [(first + CELLS * grid.cell // 2) * num // side] * len(places)
    return np.array(band_P)


# --- Fisher vectors -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Mixture:
    """Gaussians with diagonal covariances, of descriptors reduced to ``REDUCED`` numbers or fewer."""

    center_D: Tensor
    basis_DE: Tensor
    """Principal components of the descriptors; the Gaussians describe ``(x - center) @ basis``."""
    weight_G: Tensor
    mean_GE: Tensor
    variance_GE: Tensor
    converged: bool

    @property
    def num_parameters(self) -> int:
        return sum(t.numel() for t in (self.center_D, self.basis_DE, self.weight_G, self.mean_GE, self.variance_GE))


def fit_mixture(x_ND: Array, num_gaussians: int, seed: int) -> Mixture:
    """Principal components of the rows, and by scikit-learn's expectation maximization the Gaussians of what they give."""
    from sklearn.decomposition import PCA
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    if num_gaussians < 1 or len(x_ND) < max(2, num_gaussians):
        raise UsageError(
            f"--gaussians is {num_gaussians}; it must be at least 1 and at most {len(x_ND):,}, the number of descriptors to fit"
        )
    pca = PCA(min(REDUCED, *x_ND.shape), svd_solver="covariance_eigh").fit(x_ND.astype(np.float64))
    reduced_NE = pca.transform(x_ND)
    floor = max(FLOOR * float(reduced_NE.var(axis=0).mean()), 1e-12)
    mixture = GaussianMixture(
        num_gaussians,
        covariance_type="diag",
        reg_covar=floor,
        max_iter=EM_STEPS,
        init_params="k-means++",
        random_state=seed % 2**32,
    )
    # Products this small gain little from threads, which wait for each other on a busy machine.
    with warnings.catch_warnings(), threadpool_limits(1, user_api="blas"):
        warnings.simplefilter("ignore", ConvergenceWarning)  # it becomes a field of the result
        mixture.fit(reduced_NE)
    as_tensor = partial(torch.tensor, dtype=torch.float32)
    return Mixture(
        as_tensor(pca.mean_),
        as_tensor(pca.components_.T.copy()),
        as_tensor(mixture.weights_),
        as_tensor(mixture.means_),
        as_tensor(mixture.covariances_),
        bool(mixture.converged_),
    )


def fisher_gradients(x_BPE: Tensor, counts_BP: Tensor, band_P: Tensor, num_bands: int, mixture: Mixture) -> Tensor:
    """The gradient of the mean log-likelihood of an image's reduced descriptors by the means and the standard deviations of the
    Gaussians, divided by the square root of its Fisher information: (B, R, 2 * G * E), of the whole image first, then of
    each band if there are several. Only the descriptors that count are in the mean; none at all gives 0."""
    weight_G, mean_GE, variance_GE = mixture.weight_G, mixture.mean_GE, mixture.variance_GE
    deviation_GE = variance_GE.sqrt()
    constant_G = weight_G.log() - (variance_GE.log() + mean_GE.square() / variance_GE).sum(dim=1) / 2
    sums = []
    for band in range(num_bands):
        inside_P = band_P == band
        x_BpE = x_BPE[:, inside_P] if num_bands > 1 else x_BPE
        square_BpE = x_BpE.square()
        log_BpG = x_BpE @ (mean_GE / variance_GE).T + square_BpE @ (-0.5 / variance_GE).T + constant_G
        share_BpG = log_BpG.softmax(dim=2).mul_(counts_BP[:, inside_P, None])
        share_BGp = share_BpG.transpose(1, 2)
        num_B = counts_BP[:, inside_P].sum(dim=1).to(x_BPE)
        sums.append((num_B, share_BpG.sum(dim=1)[..., None], share_BGp @ x_BpE, share_BGp @ square_BpE))
    if num_bands > 1:
        sums.insert(0, tuple(torch.stack(part).sum(dim=0) for part in zip(*sums, strict=True)))  # type: ignore[arg-type]
    regions = []
    for num_B, share_BG1, x_BGE, square_BGE in sums:
        num_B111 = num_B.clamp(min=1)[:, None, None]
        by_mean_BGE = (x_BGE - share_BG1 * mean_GE) / deviation_GE
        by_deviation_BGE = (
            square_BGE - 2 * x_BGE * mean_GE + share_BG1 * (mean_GE.square() - variance_GE)
        ) / variance_GE
        scale_G1 = weight_G.sqrt()[:, None]
        by_mean_BGE = by_mean_BGE / scale_G1 / num_B111
        by_deviation_BGE = by_deviation_BGE / (math.sqrt(2) * scale_G1) / num_B111
        regions.append(torch.cat([by_mean_BGE.flatten(1), by_deviation_BGE.flatten(1)], dim=1))
    return torch.stack(regions, dim=1)


def improved(gradient_BRF: Tensor) -> Tensor:
    """The square root of each number with its sign, each region scaled to length 1, and the whole: (B, R * F)."""
    rooted_BRF = gradient_BRF.sign() * gradient_BRF.abs().sqrt()
    return F.normalize(F.normalize(rooted_BRF, dim=2).flatten(1), dim=1)


@dataclass(frozen=True)
class Encoder:
    """What turns pixels into Fisher vectors."""

    grid: Grid
    kind: Kind
    mixture: Mixture
    num_bands: int

    @property
    def length(self) -> int:
        regions = 1 if self.num_bands == 1 else 1 + self.num_bands
        return 2 * regions * self.mixture.mean_GE.numel()

    def encode(self, pixels_BSSC: Tensor) -> Tensor:
        """(B, F) float32."""
        x_BPD, counts_BP = descriptors(pixels_BSSC, self.grid, self.kind)
        reduced_BPE = (x_BPD - self.mixture.center_D) @ self.mixture.basis_DE
        band_P = torch.from_numpy(bands(self.grid, self.num_bands))
        return improved(fisher_gradients(reduced_BPE, counts_BP, band_P, self.num_bands, self.mixture))


# --- the baseline ---------------------------------------------------------------------------------------------------


def sift_fisher(trial: Trial, *, gaussians: int = 32, num_bands: int = 3, color: bool = True) -> Answers:
    """Fisher vectors of dense SIFT, and with ``color``, where there are colors, of local color statistics, a linear machine on
    each; the scores of the two are averaged. ``num_bands`` horizontal bands are encoded besides the whole image; 1 is the
    whole image alone. The penalty is chosen on one training image in five."""
    require_scikit_learn()
    if num_bands < 1:
        raise UsageError(f"--bands is {num_bands}; it must be at least 1, which is the whole image alone")
    size, channels = trial.held_out.read(np.arange(1)).shape[2:]
    grid = grid_for(size)
    kinds: list[Kind] = ["sift", "color"] if color and channels == 3 else ["sift"]
    parts: dict[str, NDArray[np.float64]] = {}
    methods: dict[str, Any] = {}
    fit_seconds = test_seconds = 0.0
    numbers = 0
    for kind in kinds:
        start = time.perf_counter()
        encoder = fit_encoder(trial, grid, kind, gaussians, num_bands)
        require_memory(len(trial.image_N), encoder.length, "Fisher vectors", "--gaussians or --bands")
        row_NF = np.empty((len(trial.image_N), encoder.length), np.float32)

        def keep(position_B: Labels, fisher_BF: Array, row_NF: Array = row_NF) -> None:
            row_NF[position_B] = fisher_BF

        _encode(encoder, trial, keep)
        classifier, methods[kind] = _linear_machines(row_NF, trial)
        del row_NF, keep
        fitted = time.perf_counter()
        fit_seconds += fitted - start

        score_MK = np.empty((len(trial.held_out), len(trial.classes)))

        def answer(
            position_B: Labels, fisher_BF: Array, score_MK: Any = score_MK, classifier: Any = classifier
        ) -> None:
            score_MK[position_B] = one_column_a_class(classifier.decision_function(fisher_BF))

        _encode(encoder, trial, answer, held_out=True)
        parts[kind] = score_MK
        test_seconds += time.perf_counter() - fitted
        numbers += encoder.mixture.num_parameters + classifier.coef_.size + classifier.intercept_.size
        methods[kind]["mixture_converged"] = encoder.mixture.converged
    return Answers(
        score_MK=np.mean(list(parts.values()), axis=0),
        log_probability=False,
        fit_seconds=fit_seconds,
        test_seconds=test_seconds,
        model_bytes=4 * numbers,
        parts=parts if len(parts) > 1 else None,
        method={
            "classifier": "scikit-learn's SGDClassifier: linear, one against the rest, hinge loss, averaged weights; "
            "scores of several kinds of descriptors averaged",
            "descriptors": {
                "kinds": list(kinds),
                "image_sides": list(grid.sides),
                "patch": CELLS * grid.cell,
                "step": grid.step,
                "of_each_image": len(bands(grid, 1)),
                "numbers": encoder.mixture.mean_GE.shape[1],
            },
            "fisher_vector": {
                "gaussians": gaussians,
                "regions": "whole image" if num_bands == 1 else f"whole image and {num_bands} horizontal bands",
                "numbers": encoder.length,
                "sample": f"{SAMPLE_PATCHES} descriptors of each of {min(SAMPLE_IMAGES, len(trial.image_N)):,} training images",
                "em_steps": EM_STEPS,
            },
            "epochs": EPOCHS,
            "choice": f"alpha on one in {SELECTION_PART} training images of each class, until the errors rise",
            "chosen": methods,
        },
    )


def fit_encoder(trial: Trial, grid: Grid, kind: Kind, gaussians: int, num_bands: int) -> Encoder:
    """Components and Gaussians of a sample of the descriptors of training images."""
    image_n = trial.image_N[rng.permutation(trial.seed, "baseline/mixture", 0, len(trial.image_N))[:SAMPLE_IMAGES]]
    rows = []
    with Bar(f"{kind} of a sample", len(image_n), quiet=trial.quiet) as bar:
        for batch in batches(trial.train, image_n, BATCH):
            x_BPD, counts_BP = descriptors(batch.pixels_BSSC, grid, kind)
            patch_Bp = rng.integers(trial.seed, f"baseline/{kind}", 0, batch.image_B, SAMPLE_PATCHES, x_BPD.shape[1])
            image_B1 = torch.arange(len(x_BPD))[:, None]
            counts_Bp = counts_BP[image_B1, torch.from_numpy(patch_Bp)]
            rows.append(x_BPD[image_B1, torch.from_numpy(patch_Bp)][counts_Bp].numpy())
            bar.update(int(batch.position_B[-1]) + 1)
    with Bar(f"{gaussians} Gaussians of {kind}", 1, "mixtures", quiet=trial.quiet) as bar:
        mixture = fit_mixture(np.concatenate(rows), gaussians, trial.seed)
        bar.update(1)
    return Encoder(grid, kind, mixture, num_bands)


def _encode(
    encoder: Encoder, trial: Trial, receive: Callable[[Labels, Array], object], *, held_out: bool = False
) -> None:
    """Give ``receive`` the Fisher vectors of all training or held-out images, with their positions."""
    split = trial.held_out if held_out else trial.train
    image_N = np.arange(len(split)) if held_out else trial.image_N
    what = f"Fisher vectors of {encoder.kind}, {'held-out' if held_out else 'training'} images"
    with Bar(what, len(image_N), quiet=trial.quiet) as bar:
        for batch in batches(split, image_N, BATCH):
            receive(batch.position_B, encoder.encode(batch.pixels_BSSC).numpy())
            bar.update(int(batch.position_B[-1]) + 1)


def _linear_machines(row_NF: Array, trial: Trial) -> tuple[Any, dict[str, Any]]:
    """Linear machines, one against the rest, and how the penalty was chosen."""
    from sklearn.linear_model import SGDClassifier

    n, label_N = trial.num_fit, trial.label_N
    classifier = SGDClassifier(
        loss="hinge",
        average=True,
        max_iter=EPOCHS,
        tol=None,
        n_jobs=torch.get_num_threads(),
        random_state=trial.seed % 2**32,
    )
    with Bar("linear machines", len(ALPHAS) + 1, "fits", quiet=trial.quiet) as bar:

        def errors_of(alpha: float) -> int:
            classifier.set_params(alpha=alpha).fit(row_NF[:n], label_N[:n])
            bar.update(bar.done + 1)
            score_MK = one_column_a_class(classifier.decision_function(row_NF[n:]))
            return int(count_errors(score_MK, label_N[n:])["top1_errors"])

        best, tried = choose(ALPHAS, errors_of)
        classifier.set_params(alpha=best).fit(row_NF, label_N)
        bar.update(bar.total)
    return classifier, {"alpha": best, "tried": [{"alpha": a, "errors": e, "n": len(label_N) - n} for a, e in tried]}
