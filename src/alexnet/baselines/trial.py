"""What a baseline is fitted to and tested on, what it answers, and how the answers are counted: as those of the networks are.

Shape suffixes: N training images, M held-out images, K classes, B images of a batch, S rows and columns, C channels,
D numbers of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from alexnet.core import rng
from alexnet.core.config import fingerprint
from alexnet.core.console import Bar
from alexnet.core.errors import AlexNetError, UsageError, printable
from alexnet.core.runs import environment
from alexnet.data.loader import batches
from alexnet.data.packed import PackedSet
from alexnet.evaluation.error_rate import Split, label_ranks
from alexnet.evaluation.finding import Finding
from alexnet.evaluation.lines import error_lines

IN_CLASS = "baseline/order in class"
"""The stream of draws that orders the images of a class."""
SELECTION_PART = 5
"""One training image in so many, of each class, chooses settings."""
MAX_BYTES = 4 << 30
"""Limit of the numbers that all training images are reduced to; they are held in memory."""
BATCH = 64

Array = NDArray[np.float32]
Labels = NDArray[np.int64]
Value = TypeVar("Value")


@dataclass(frozen=True, eq=False, kw_only=True)
class Trial:
    """The training images a baseline may use, and the held-out images that it must answer."""

    train: Split
    held_out: Split
    classes: tuple[str, ...]
    image_N: Labels
    """Numbers of the training images: first those that settings are tried on, then those that choose among them."""
    num_fit: int
    """How many of these are not in the part that chooses."""
    seed: int
    quiet: bool = False

    @property
    def label_N(self) -> Labels:
        return self.train.labels[self.image_N]

    @property
    def label_M(self) -> Labels:
        return self.held_out.labels


def trial_on(packed: PackedSet, *, train_images: int | None = None, seed: int = 0, quiet: bool = False) -> Trial:
    """All training images of a packed set, or ``train_images`` of them, as many of each class as there are or as fit; a
    larger choice holds the smaller. Raises :class:`UsageError` for fewer than two classes, a class without a training
    image, no image to choose settings by, and no image to test on."""
    train, held_out = packed.split("train"), packed.split(packed.held_out)
    label_N = train.labels
    if train_images is not None and train_images < 1:
        raise UsageError(f"--train-images is {train_images}; it must be at least 1")
    key_N = rng.keys(seed, "baseline/order", 0, np.arange(len(label_N)))
    order_N = np.lexsort((key_N, rng.rank_in_class(label_N, seed, IN_CLASS)))
    image_N = np.sort(order_N[:train_images])
    missing = np.setdiff1d(np.arange(len(packed.classes)), label_N[image_N])
    if len(missing):
        raise UsageError(
            f"{printable(packed.path)}: no training image of {printable(packed.classes[missing[0]])} among {len(image_N):,}; "
            "every class needs one: take more with --train-images"
        )
    choosing_N = rng.rank_in_class(label_N[image_N], seed, IN_CLASS) % SELECTION_PART == SELECTION_PART - 1
    if len(packed.classes) < 2 or not choosing_N.any():
        raise UsageError(
            f"{printable(packed.path)}: a baseline needs two classes or more, and {SELECTION_PART} training images in one of "
            f"them; there are {len(packed.classes)} classes in {len(image_N):,} training images"
        )
    if len(held_out) == 0:
        raise UsageError(f"{printable(packed.path)}: the split {packed.held_out} has no images to test on")
    return Trial(
        train=train,
        held_out=held_out,
        classes=tuple(packed.classes),
        image_N=np.concatenate([image_N[~choosing_N], image_N[choosing_N]]),
        num_fit=int((~choosing_N).sum()),
        seed=seed,
        quiet=quiet,
    )


def reduced_pixels(split: Split, image_N: Labels, side: int, what: str, *, quiet: bool = False) -> Array:
    """The images of these numbers as rows of ``side * side * C`` numbers on 0..255, by area averaging; smaller images as
    they are: (N, D) float32. A mean of 8 x 8 pixels, a multiple of 1/64, is exact."""
    if side < 1:
        raise UsageError(f"--side is {side}; it must be at least 1")
    row_ND = np.empty((0, 0), np.float32)
    with Bar(what, len(image_N), quiet=quiet) as bar:
        for batch in batches(split, image_N, BATCH):
            x_BCSS = batch.pixels_BSSC.permute(0, 3, 1, 2).float()
            if side < x_BCSS.shape[-1]:
                x_BCSS = F.adaptive_avg_pool2d(x_BCSS, side)
            if batch.position_B[0] == 0:
                require_memory(len(image_N), x_BCSS[0].numel(), "pixels")
                row_ND = np.empty((len(image_N), x_BCSS[0].numel()), np.float32)
            row_ND[batch.position_B] = x_BCSS.flatten(1).numpy()
            bar.update(int(batch.position_B[-1]) + 1)
    return row_ND


def require_memory(images: int, numbers: int, what: str, less: str = "--side") -> None:
    """:class:`UsageError` if so many numbers of each training image are more than :data:`MAX_BYTES`."""
    if (needed := 4 * images * numbers) > MAX_BYTES:
        raise UsageError(
            f"the {what} of {images:,} images, {numbers:,} numbers each, take {needed / 1e9:.1f} GB of memory, over "
            f"{MAX_BYTES / 1e9:.1f}: take fewer with --train-images, or less with {less}"
        )


def require_scikit_learn() -> None:
    """Say what is missing before anything is computed for nothing."""
    if find_spec("sklearn") is None:
        raise AlexNetError('baselines need scikit-learn: pip install "alexnet[probe]"')


def choose(values: Sequence[Value], errors_of: Callable[[Value], int]) -> tuple[Value, list[tuple[Value, int]]]:
    """The first of ``values`` with the fewest errors, tried in order until the errors rise; and those that were tried."""
    tried: list[tuple[Value, int]] = []
    for value in values:
        tried.append((value, errors_of(value)))
        if tried[-1][1] > min(errors for _, errors in tried):
            break
    return min(tried, key=lambda pair: pair[1])[0], tried


def one_column_a_class(decision_M: NDArray[Any]) -> NDArray[np.float64]:
    """What scikit-learn's classifiers of two classes give as one number, as two: (M, K) float64."""
    if decision_M.ndim == 2:
        return decision_M.astype(np.float64)
    return np.stack([-decision_M / 2, decision_M / 2], axis=1).astype(np.float64)


@dataclass(frozen=True, eq=False, kw_only=True)
class Answers:
    """A score for each class of each held-out image, the greatest first, and what it cost."""

    score_MK: NDArray[np.float64]
    log_probability: bool
    """Whether the scores are ln of probabilities; else there is no loss."""
    fit_seconds: float
    """Time from the stored training images to the classifier, including the choice of settings."""
    test_seconds: float
    """Time from the stored held-out images to their scores."""
    model_bytes: int
    """What must be kept to answer, in float32."""
    method: dict[str, Any]
    """How it was done and which settings were chosen; becomes part of the protocol."""
    parts: dict[str, NDArray[np.float64]] | None = None
    """Scores of the classifiers that were averaged, where there are several."""


def count_errors(score_MK: NDArray[np.float64], label_M: Labels) -> dict[str, Any]:
    """Top-1 and top-5 errors as integers and fractions. Equal scores are ranked in class order; a score that is NaN raises
    :class:`AlexNetError`."""
    rank_M = label_ranks(torch.from_numpy(score_MK), torch.from_numpy(np.asarray(label_M, dtype=np.int64))).numpy()
    n, top1, top5 = len(rank_M), int((rank_M >= 1).sum()), int((rank_M >= 5).sum())
    return {"n": n, "top1_errors": top1, "top5_errors": top5, "top1_error": top1 / n, "top5_error": top5 / n}


def result(name: str, trial: Trial, answers: Answers, data: Mapping[str, Any]) -> dict[str, Any]:
    """The result file (docs/architecture.md). ``data`` says where the images come from and becomes part of the protocol."""
    label_M = trial.label_M
    count = partial(count_errors, label_M=label_M)
    loss = None
    if answers.log_probability:
        loss = float(-answers.score_MK[np.arange(len(label_M)), label_M].mean())
    classes = []
    for label in np.unique(label_M).tolist():
        own = count_errors(answers.score_MK[label_M == label], label_M[label_M == label])
        counts = {key: own[key] for key in ("n", "top1_errors", "top5_errors")}
        classes.append({"name": trial.classes[label], **counts})
    parts = {part: count(score_MK) for part, score_MK in (answers.parts or {}).items()}
    return {
        "baseline": name,
        **count(answers.score_MK),
        "views": "whole image",
        "loss_nats": loss,
        "fit_seconds": round(answers.fit_seconds, 4),
        "test_seconds": round(answers.test_seconds, 2),
        "model_bytes": answers.model_bytes,
        **({"parts": parts} if parts else {}),
        "protocol": {
            "views": "whole image",
            "ranking": "by score, equal ones in class order",
            "loss": "mean over images of -ln(probability of the right class)" if answers.log_probability else None,
            "class_order": fingerprint(list(trial.classes)),
            "training_images": f"{len(trial.image_N):,} of {len(trial.train):,}",
            "seed": trial.seed,
            "method": answers.method,
            **data,
        },
        "environment": environment() | {"scikit-learn": metadata.version("scikit-learn")},
        "classes": classes,
    }


def found(name: str, trial: Trial, answers: Answers, data: Mapping[str, Any]) -> Finding:
    """The result as JSON and in words."""
    body, num = result(name, trial, answers, data), len(trial.classes)
    lines = error_lines(f"{name}, {body['views']}", body, num)
    for part, errors in body.get("parts", {}).items():
        lines += error_lines(f"  {part} alone", errors, num)
    lines.append(
        f"fitted to {body['protocol']['training_images']} training images in {body['fit_seconds']:,.1f} s; "
        f"{body['n']:,} images answered in {body['test_seconds']:,.1f} s; model {body['model_bytes'] / 1e6:,.1f} MB"
    )
    return Finding(
        subject={"network": None, "model": None, "data": data},
        n=body["n"],
        summary={f"{rate} error": body[f"{rate.replace('-', '')}_error"] for rate in ("top-1", "top-5")},
        body=body,
        protocol=body["protocol"],
        lines=lines,
    )
