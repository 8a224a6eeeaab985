"""It learns or says why: a check of the signal before the first step, and of the loss and the filters during training.

Shape suffixes: B images, C channels, H rows, W columns, D units, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

STUCK_SPREAD = 1e-3
"""Relative spread of the logits below which images look alike to the classifier. Measured (results/signal-check.json): the
paper's set-up on 0..255 pixels starts at some 1e-2, the known failure (the same on input of unit deviation) at 3e-4."""


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


def stuck_warning(losses: list[float], num_classes: int) -> str | None:
    """A line if the mean losses of the finished epochs have not left ln(classes) for three epochs; else None."""
    prior = math.log(num_classes)
    if len(losses) < 3 or min(losses[-3:]) < 0.98 * prior:
        return None
    return (
        f"the loss has stayed at {losses[-1]:.3f}, and ln({num_classes} classes) is {prior:.3f}: nothing but the class "
        "frequencies has been learned; try a smaller batch or another learning rate, and see the signal check"
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
