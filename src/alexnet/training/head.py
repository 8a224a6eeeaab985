"""A last layer that is fitted, not trained: a linear classifier on what the layers below compute, which stay as they are.

It is ridge regression on targets of +1 for an image's class and -1 for the others, which has a closed form. Its penalty is
chosen by cross-validation on the training images. The scores times a factor, chosen on the same left-out images, are logits,
whose softmax is as sure as it is often right. Scores and factor are linear: the classifier is an ordinary last layer.

Shape suffixes: N images, V views of an image, R rows (views of images), D features, K classes, B images of a batch.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from alexnet.core import rng
from alexnet.core.config import fingerprint, to_json
from alexnet.core.device import Machine, autocast
from alexnet.core.errors import AlexNetError, UsageError, printable
from alexnet.core.intervals import Errors
from alexnet.core.runs import (
    ArrayFile,
    cache_folder,
    read_json,
    sha256_file,
    writable_cache,
    write_atomic,
    write_json,
)
from alexnet.data.loader import batches
from alexnet.data.packed import PackedSet
from alexnet.data.transforms import apply_crops
from alexnet.distributed.launch import in_job
from alexnet.models.lrn import kernels_in_use
from alexnet.training.config import TrainConfig
from alexnet.training.initial import Initial, Transfer, transfer
from alexnet.training.targets import class_weights
from alexnet.training.trainer import network, training_images

PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Penalties that are tried, relative to the mean squared length of a centered row."""
USUAL = (10.0, 6.0)
"""Penalty and factor where there is nothing to choose them on: one image in each class."""
FACTORS = np.geomspace(0.5, 60, 60)
"""Factors of the scores that are tried."""
FOLDS = 5
LARGE = 4000
"""Equations, the fewer of rows and features, from which on only one of the folds is left out: a solution takes seconds there."""
MAX_BYTES = 1 << 29
"""Most features, in bytes. Where two views of each image are more, there is one; where that is more, images are left out,
evenly over the classes."""
BATCH = 64

Rows = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Tried:
    """A penalty, and what came of it on images that were left out of the fit."""

    penalty: float
    left_out: Errors
    """Errors of rows."""
    balanced_error: float
    """The mean of the classes' errors."""
    factor: float
    """The factor of the scores with the lowest loss."""
    loss_nats: float


@dataclass(frozen=True, eq=False)
class Head:
    """A linear classifier: logits are ``features @ weight_KD.T + bias_K``, in float64."""

    weight_KD: Tensor
    bias_K: Tensor
    penalty: float
    factor: float
    tried: tuple[Tried, ...]
    """Empty where no class has two images."""
    images: int
    """Training images that it was fitted to."""
    views: int
    """Views of each: its center, and that mirrored."""

    def __str__(self) -> str:
        of = f"last layer fitted to {self.images:,} images"
        if (chosen := self.chosen) is None:
            return f"{of}; one image in each class leaves none to choose its penalty on, so it is the usual one"
        left_out = chosen.left_out
        rows = "" if self.views == 1 else ", each as it is and mirrored"
        return (
            f"{of}{rows}: {left_out.error:.1%} errors where they were left out in turn, with penalty {self.penalty:g}"
        )

    @property
    def chosen(self) -> Tried | None:
        return next((tried for tried in self.tried if tried.penalty == self.penalty), None)

    def record(self) -> dict[str, Any]:
        """What a run says of it in config.json."""
        tried = [asdict(one) | {"left_out": one.left_out.to_json()} for one in self.tried]
        known = {"images": self.images, "views": self.views, "penalty": self.penalty, "factor": self.factor}
        return known | {"tried": tried}


def fit_head(row_NVD: Rows, label_N: Labels, num_classes: int, *, seed: int = 0, balanced: bool = False) -> Head:
    """The classifier of ``V`` views of each image, which are rows of their own and are left out together.

    Of :data:`PENALTIES` it takes the one with the lowest loss on images left out in turn, :data:`FOLDS` parts of every class (of
    a large problem, one of the parts): of few images, errors are too few to choose by. ``balanced``: every class counts as much
    as the others, in the fit and in the choice. All sums are in float64."""
    views = row_NVD.shape[1]
    row_RD = torch.from_numpy(row_NVD).double().flatten(0, 1)
    label_R = torch.from_numpy(label_N.repeat(views))
    weight_K = torch.from_numpy(class_weights(label_N, num_classes)) if balanced else torch.ones(num_classes)
    weight_R = weight_K.double()[label_R]
    rank_N = rng.rank_in_class(label_N, seed, "head/folds")
    tried: list[Tried] = []
    if (folds := min(FOLDS, int(rank_N.max()) + 1)) > 1:
        fold_R = torch.from_numpy((rank_N % folds).repeat(views))
        left_out = range(folds - 1, folds) if min(row_RD.shape) > LARGE else range(folds)
        tried = _try(row_RD, label_R, weight_R, [fold_R == fold for fold in left_out], num_classes)
    penalty, factor = USUAL
    if tried:
        best = min(tried, key=lambda one: one.loss_nats)
        penalty, factor = best.penalty, best.factor
    ((weight_KD, bias_K),) = _ridge(row_RD, label_R, weight_R, num_classes, [penalty])
    return Head(factor * weight_KD, factor * bias_K, penalty, factor, tuple(tried), len(row_NVD), views)


def _try(row_RD: Tensor, label_R: Tensor, weight_R: Tensor, folds: Sequence[Tensor], num_classes: int) -> list[Tried]:
    """Each penalty on the rows of each fold (R) in turn, fitted to all others."""
    scores: list[list[Tensor]] = [[] for _ in PENALTIES]
    for fold_R in folds:
        kept = ~fold_R
        for own, (weight_KD, bias_K) in zip(
            scores, _ridge(row_RD[kept], label_R[kept], weight_R[kept], num_classes, PENALTIES), strict=True
        ):
            own.append(row_RD[fold_R] @ weight_KD.T + bias_K)
    label = torch.cat([label_R[fold_R] for fold_R in folds])
    weight = torch.cat([weight_R[fold_R] for fold_R in folds])
    tried = []
    for penalty, own in zip(PENALTIES, scores, strict=True):
        score = torch.cat(own)
        wrong = score.argmax(1) != label
        by_class = [float(wrong[label == k].double().mean()) for k in torch.unique(label)]
        losses = [_loss(score * factor, label, weight) for factor in FACTORS]
        best = int(np.argmin(losses))
        errors = Errors(int(wrong.sum()), len(wrong))
        tried.append(Tried(penalty, errors, math.fsum(by_class) / len(by_class), float(FACTORS[best]), losses[best]))
    return tried


def _loss(logits_RK: Tensor, label_R: Tensor, weight_R: Tensor) -> float:
    loss_R = F.cross_entropy(logits_RK, label_R, reduction="none")
    return float((weight_R * loss_R).sum() / weight_R.sum())


def _ridge(
    row_RD: Tensor, label_R: Tensor, weight_R: Tensor, num_classes: int, penalties: Sequence[float]
) -> list[tuple[Tensor, Tensor]]:
    """Weights (K, D) and biases (K,) for each penalty: the least sum of weighted squared differences from the targets plus
    penalty times the squared weights. The biases have no penalty. The equations are those of rows or of features, whichever
    are fewer."""
    total, root_R1 = weight_R.sum(), weight_R.sqrt()[:, None]
    target_RK = 2 * F.one_hot(label_R, num_classes).double() - 1
    mean_D, mean_K = weight_R @ row_RD / total, weight_R @ target_RK / total
    x_RD, y_RK = root_R1 * (row_RD - mean_D), root_R1 * (target_RK - mean_K)
    by_rows = x_RD.shape[0] <= x_RD.shape[1]
    gram = x_RD @ x_RD.T if by_rows else x_RD.T @ x_RD
    right = y_RK if by_rows else x_RD.T @ y_RK
    size = float(x_RD.square().sum() / total) or 1.0  # rows that are all alike tell nothing: any penalty will do
    fits = []
    for penalty in penalties:
        equations = gram.clone()
        equations.diagonal().add_(penalty * size)
        solution = torch.cholesky_solve(right, torch.linalg.cholesky(equations))
        weight_DK = x_RD.T @ solution if by_rows else solution
        fits.append((weight_DK.T.contiguous(), mean_K - weight_DK.T @ mean_D))
    return fits


def frozen_features(
    config: TrainConfig,
    data: PackedSet,
    initial: Initial,
    image_N: Labels,
    machine: Machine,
    *,
    views: int = 2,
    progress: Callable[[int, int], object] | None = None,
) -> Rows:
    """What the last layer of the network reads of training images, with the weights of ``initial`` in all layers below it: (N,
    V, D) float32, of the center of each image and, for two views, of that mirrored. They are kept in the cache, where it can be
    written, and found there again by weights, network, input, precision and images.

    :class:`UsageError` if a layer below the last is not among the weights."""
    images = hashlib.sha256(image_N.tobytes()).hexdigest()
    of = [initial.fingerprint, config.network, to_json(config.model), to_json(config.preprocessing), config.precision]
    folder = cache_folder() / "features" / f"last-layer-{fingerprint([of, data.fingerprint, images, views])[:16]}"
    rows, meta = folder / "rows.npy", folder / "meta.json"
    with suppress(AlexNetError, OSError, LookupError, TypeError):  # missing or damaged: computed again
        if read_json(meta)["sha256"] == sha256_file(rows):
            with suppress(OSError):  # a cache that may only be read
                os.utime(folder)  # when it was last used
            return ArrayFile(rows)[:]
    row_NVD = _compute_features(config, data, initial, image_N, machine, views, progress)
    with suppress(AlexNetError, OSError):  # a cache that may only be read, or a full one
        writable_cache("features")
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(rows, lambda file: np.save(file, row_NVD, allow_pickle=False))
        write_json(meta, {"layer": "last layer's input", "n": len(row_NVD), "sha256": sha256_file(rows)})
    return row_NVD


def _compute_features(
    config: TrainConfig,
    data: PackedSet,
    initial: Initial,
    image_N: Labels,
    machine: Machine,
    views: int,
    progress: Callable[[int, int], object] | None,
) -> Rows:
    taken, name, units = _taken(config, data, initial)
    model = network(config, len(data.classes))
    model.load_state_dict(taken.tensors, strict=False)
    model = model.to(machine.device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    last = model.get_submodule(name)
    split, mean_SSC = data.split("train"), torch.from_numpy(data.mean).to(machine.device)
    kernels_in_use(machine.device, build=True)
    row_NVD = np.empty((len(image_N), views, units), np.float32)
    read: list[Tensor] = []
    handle = last.register_forward_pre_hook(lambda _module, inputs: read.append(inputs[0]))
    made = config.preprocessing
    try:
        for batch in batches(split, image_N, BATCH, workers=machine.workers):
            pixels_BSSC = batch.pixels_BSSC.to(machine.device)
            start_B = torch.full((len(pixels_BSSC),), (made.resize - made.crop) // 2)
            for view in range(views):
                mirror_B = torch.full_like(start_B, view, dtype=torch.bool)
                x_BCHW = apply_crops(pixels_BSSC, start_B, start_B, mirror_B, made, mean_SSC)
                with torch.inference_mode(), autocast(machine.device, config.precision):
                    model(x_BCHW)
                row_NVD[batch.position_B, view] = read.pop().float().cpu().numpy()
            if progress:
                progress(int(batch.position_B[-1]) + 1, len(image_N))
    finally:
        handle.remove()
    if not np.isfinite(row_NVD).all():
        raise AlexNetError(f"{printable(initial.source)}: what its layers compute of these images is not finite")
    return row_NVD


def _taken(config: TrainConfig, data: PackedSet, initial: Initial) -> tuple[Transfer, str, int]:
    """What the network takes over, and the name and the units of what its last layer reads. :class:`UsageError` unless all
    layers below that are taken over."""
    taken = transfer(initial, config, data.classes)
    name, last = list(network(config, len(data.classes), weights=False).named_children())[-1]
    if not isinstance(last, nn.Linear):
        raise UsageError(f"last_layer is fitted, but {name} of {config.network} is no linear layer; take random")
    if new := [layer for layer in taken.new if layer != name]:
        raise UsageError(
            f"last_layer is fitted to what the layers below compute, but {new[0]} would be new ({taken.new[new[0]]}); leave it "
            "out of the network (--model.fc-units 0 0), name other weights with --init-from, or take last_layer random"
        )
    return taken, name, last.in_features


def require_fittable(config: TrainConfig, data: PackedSet, initial: Initial | None) -> None:
    """:class:`UsageError` unless a last layer can be fitted: weights of all layers below it are given, and one process trains."""
    if initial is None:
        raise UsageError("--last-layer fitted needs trained weights in the layers below it: name some with --init-from")
    if in_job():
        raise UsageError(
            "--last-layer fitted is computed by one process: run it with --epochs 0 and without torchrun, then start the ranks "
            "with --init-from RUN and --last-layer random"
        )
    _taken(config, data, initial)


def with_fitted_head(
    config: TrainConfig,
    data: PackedSet,
    initial: Initial,
    machine: Machine,
    *,
    image_N: Labels | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[Initial, Head]:
    """The weights of ``initial`` with a last layer that is fitted to the training images of a run, or to those of them with the
    numbers ``image_N``, and what was found. The features of all are computed once, whichever it is fitted to.

    Raises what :func:`frozen_features` raises."""
    taken, name, units = _taken(config, data, initial)
    every_N = np.asarray(data.split("train").labels, dtype=np.int64)
    run_N = training_images(len(every_N), config)
    most = MAX_BYTES // (4 * units)
    views = 2 if config.augmentation.mirror and 2 * len(run_N) <= most else 1
    if len(run_N) > most:
        rank_N = rng.rank_in_class(every_N[run_N], config.seed, "head/most")
        run_N = run_N[np.sort(np.argsort(rank_N, kind="stable")[:most])]
    row_NVD = frozen_features(config, data, initial, run_N, machine, views=views, progress=progress)
    if image_N is not None:
        wanted_N = np.isin(run_N, image_N)
        run_N, row_NVD = run_N[wanted_N], row_NVD[wanted_N]
    head = fit_head(row_NVD, every_N[run_N], len(data.classes), seed=config.seed, balanced=config.balance != "none")
    tensors = taken.tensors | {f"{name}.weight": head.weight_KD.float(), f"{name}.bias": head.bias_K.float()}
    made = {"weights": initial.fingerprint, **initial.made, "head": head.record()}
    fitted = replace(initial, tensors=tensors, classes=tuple(data.classes), network=config.network, made=made)
    return fitted, head
