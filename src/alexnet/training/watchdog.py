"""It learns or says why: a check of the signal before the first step, and of the loss and the filters during training.

Shape suffixes: B images, C channels, H rows, W columns, D units, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from alexnet.training.schedule import judged_error

STUCK_SPREAD = 1e-3
"""Relative spread of the logits below which images look alike to the classifier. Measured (results/signal-check.json): the
paper's set-up on 0..255 pixels starts at some 1e-2, the known failure (the same on input of unit deviation) at 3e-4."""


MIN_STEPS, MIN_EPOCHS = 500, 3
"""Before so many steps and validations nothing is said of how a training gets on: networks that learn well in the end may
spend some hundred steps at the loss of guessing."""

FAINT = 1e-3
"""Deviation of the untrained logits between images below which the first steps of the last biases drown it."""


@dataclass(frozen=True)
class LayerSignal:
    """How far one layer's outputs differ between images, compared with their size."""

    layer: str
    rms: float
    """Root mean square of the outputs."""
    spread: float
    """Root mean variance over the images, divided by ``rms``: near 1 the layer tells images apart, near 0 it gives every
    image the same answer, which mostly comes from its biases."""


@torch.no_grad()
def signal_check(model: nn.Module, x_BCHW: Tensor) -> list[LayerSignal]:
    """Push one batch of network input through the model in evaluation mode and measure each named layer
    (conv1 .. fc8) in forward order."""
    was_training = model.training
    model.eval()
    with _outputs(model) as outputs:
        model(x_BCHW)
    model.train(was_training)
    signals = []
    for layer, out in outputs.items():
        out_BD = out.flatten(1).cpu().double()
        rms = float(out_BD.square().mean().sqrt())
        between = float(out_BD.var(dim=0, unbiased=False).mean().sqrt())
        signals.append(LayerSignal(layer, rms, between / rms if rms > 0 else 0.0))
    return signals


def signal_warning(signals: list[LayerSignal], input_std: float) -> str | None:
    """A line naming cause and cure if the last layer can only learn how frequent each class is; else None.

    ``input_std``: standard deviation of the network's input.
    """
    last = signals[-1]
    if last.spread >= STUCK_SPREAD and math.isfinite(last.rms):
        return None
    first_lost = next(s for s in signals if s.spread < 10 * STUCK_SPREAD or not math.isfinite(s.rms))
    cure = (
        f"the input has standard deviation {input_std:.2g}: keep pixels on the 0..255 scale "
        "(preprocessing.scale 1), or use a larger initial deviation and smaller biases"
        if input_std < 10
        else "use a larger initial deviation of the weights or smaller initial biases"
    )
    return (
        f"signal check: the outputs of {last.layer} differ between images by only {last.spread:.1e} of their size "
        f"(lost at {first_lost.layer}), so only the class frequencies can be learned and the loss will stay at "
        f"ln(classes); {cure}"
    )


@dataclass(frozen=True)
class Guessing:
    """The loss and error of guessing: of answers that know how frequent each class is, and do not look at the images."""

    train_loss: float
    """Mean loss of the training images, in nats."""
    val_loss: float
    val_error: float
    """Top-1 error when the most frequent class is the only answer; where classes are balanced the mean over classes, which is the
    same whatever the only answer is."""


def guessing(
    train_N: NDArray[np.int64], val_N: NDArray[np.int64], num_classes: int, *, balanced: bool = False
) -> Guessing:
    """Loss and error of guessing, from the labels of both splits; where the training is ``balanced``, all classes are alike."""
    if balanced:
        trained, validated = len(np.unique(train_N)), len(np.unique(val_N))
        return Guessing(math.log(trained), math.log(trained), 1 - 1 / validated)
    count_K, val_K = np.bincount(train_N, minlength=num_classes), np.bincount(val_N, minlength=num_classes)
    nats_K = -np.log(np.maximum(count_K, 0.5) / len(train_N))
    return Guessing(
        float(count_K @ nats_K) / len(train_N), float(val_K @ nats_K) / len(val_N), 1 - int(val_K.max()) / len(val_N)
    )


@dataclass(frozen=True)
class Trouble:
    """Why a training does not get on, and in a sentence what was seen."""

    kind: Literal["lost", "stuck", "diverging", "slow"]
    """``lost``: every image has got the same answer from the start. ``stuck``: it has come to that. ``diverging``: the loss is
    above that of guessing and does not fall. ``slow``: images get different answers, which do not become better."""
    seen: str


def trouble(
    history: Sequence[Mapping[str, Any]], chance: Guessing, *, since: int = 0, start: LayerSignal | None
) -> Trouble | None:
    """What is wrong after the epochs of ``history``, whose steps are counted from ``since``; None if nothing is, or if it is too
    early to say. ``start``: the last layer of the untrained network."""
    if len(history) < MIN_EPOCHS or history[-1]["step"] - since < MIN_STEPS:
        return None
    recent, before = history[-MIN_EPOCHS:], history[: -MIN_EPOCHS + 1]
    losses = [float(row["train_loss"]) for row in recent]
    limit = max(STUCK_SPREAD, 0.1 * start.spread) if start is not None else STUCK_SPREAD
    same = _same_answer(recent[1:], limit)
    if any(_better_than_guessing(row, chance) for row in recent):
        lowest = min(float(row["train_loss"]) for row in before)
        if min(losses[1:]) < max(1.25 * lowest, chance.train_loss):
            return None
        return Trouble(
            "stuck" if same else "diverging", f"the training loss has risen from {lowest:.3g} to {losses[-1]:.3g}"
        )
    steps, error = history[-1]["step"] - since, judged_error(recent[-1])
    compared = f"(validation error {error:.1%}, guessing {chance.val_error:.1%})"
    if same and _same_answer(recent[:1], limit):
        lost = start is not None and (start.spread < STUCK_SPREAD or start.rms * start.spread < FAINT)
        return Trouble(
            "lost" if lost else "stuck", f"after {steps:,} steps every image gets the same answer {compared}"
        )
    if losses[-1] < 0.98 * losses[0]:
        return None  # it is on its way
    if min(losses) > 1.1 * chance.train_loss:
        return Trouble(
            "diverging", f"the training loss is {losses[-1]:.3g}, and that of guessing {chance.train_loss:.3g}"
        )
    return Trouble(
        "slow",
        f"after {steps:,} steps answers are no better than guessing {compared}, and the training loss stays at "
        f"{losses[-1]:.3f}",
    )


def _same_answer(rows: Sequence[Mapping[str, Any]], limit: float) -> bool:
    spreads = [row.get("spread") for row in rows]
    return all(isinstance(spread, float) and spread < limit for spread in spreads)


def _better_than_guessing(row: Mapping[str, Any], chance: Guessing) -> bool:
    """Whether a training is better than guessing: by two standard deviations of the validation error, by the validation loss, or
    by the training loss. The last shows little under augmentation, dropout and smoothed labels."""
    error, n = chance.val_error, int(row["val_n"])
    return bool(
        judged_error(row) < error - 2 * math.sqrt(error * (1 - error) / n)
        or row["val_loss"] < 0.98 * chance.val_loss
        or row["train_loss"] < 0.95 * chance.train_loss
    )


@torch.no_grad()
def dead_filters(model: nn.Module, x_BCHW: Tensor, towers: int) -> dict[str, list[int]]:
    """Filters of each convolution whose response is positive nowhere in the batch, counted for each of the towers that
    ``model`` holds. With ReLU they give no output and get no gradient."""
    was_training = model.training
    model.eval()
    with _outputs(model) as outputs:
        model(x_BCHW)
    model.train(was_training)
    return {
        layer: [int(n) for n in (~(out > 0).any(dim=3).any(dim=2).any(dim=0)).view(towers, -1).sum(dim=1)]
        for layer, out in outputs.items()
        if out.dim() == 4 and out.shape[1] % towers == 0
    }


@contextmanager
def _outputs(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """The outputs of the convolutions and fully connected layers, by name, of the forward passes in this context."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(_module: nn.Module, _inputs: object, out: Tensor) -> None:
            outputs[name] = out.float()

        return model.get_submodule(name).register_forward_hook(hook)

    layers = [name for name, module in model.named_children() if any(True for _ in module.parameters())]
    handles = [keep(name) for name in layers]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
