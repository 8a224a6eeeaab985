"""§3.1: how much of the gradient reaches the first layers, before any step, through sigmoid, tanh and ReLU.

Shape suffixes: B images, C channels, H rows, W columns, S rows or columns of a square, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F

from alexnet.claims.experiment import Arm, Experiment, lower
from alexnet.claims.laboratory import Laboratory
from alexnet.claims.results import Result
from alexnet.claims.scales import HISTORY, fan_ins
from alexnet.core.rng import DropoutDraw
from alexnet.data import transforms
from alexnet.data.loader import batches
from alexnet.models import layer_parameters
from alexnet.models.alexnet import AlexNetConfig
from alexnet.training.config import TrainConfig
from alexnet.training.trainer import network, training_images

IMAGES = 512
"""Number of images over which the gradient is averaged."""
BATCH = 64
GAINS = {"relu": math.sqrt(2), "sigmoid": 4.0, "tanh": 1.0}
"""By how much initial weights must be larger than 1 / sqrt(fan-in) for the signal to keep its size: ReLU halves its square, a
sigmoid is at its steepest a quarter as steep as tanh."""


def gradients(lab: Laboratory, config: TrainConfig) -> Result:
    """The gradient of the loss over the first training images, by the weights of each layer, at the initial weights: its norm,
    theirs, and the quotient. Centers of the images; dropout as in the first epoch;
    float32."""
    data, device = lab.open_data(config), lab.machine.device
    split = data.split("train")
    image_N = training_images(len(split), config)[:IMAGES]
    model = network(config, len(data.classes)).to(device).train()
    none = replace(config.augmentation, crop="center", mirror=False, color_noise=0.0)
    mean_SSC = torch.from_numpy(data.mean).to(device)
    loss_sum = 0.0
    for batch in batches(split, image_N, BATCH, workers=lab.machine.workers):
        draws = transforms.draw(
            none, config.preprocessing, seed=config.seed, epoch=0, image_B=batch.image_B, position_B=batch.position_B
        )
        x_BCHW = transforms.augment(batch.pixels_BSSC.to(device), draws, none, config.preprocessing, mean_SSC, None)
        logits_BK = model(x_BCHW, DropoutDraw(config.seed, 0, batch.image_B))
        loss = F.cross_entropy(logits_BK, batch.label_B.to(device), reduction="sum") / len(image_N)
        loss.backward()  # type: ignore[no-untyped-call]
        loss_sum += float(loss.detach())
    found = {}
    for layer, parameters in layer_parameters(model).items():
        (weight,) = parameters.weights
        assert weight.grad is not None
        gradient, size = float(weight.grad.double().norm()), float(weight.detach().double().norm())
        found[layer] = {"gradient": gradient, "weights": size, "relative": gradient / size}
    return {
        "n": len(image_N),
        "loss_nats": loss_sum,
        "gradients": found,
        "shown": {layer: norms["relative"] for layer, norms in found.items()},
    }


def _arms(_base: TrainConfig) -> Sequence[Arm]:
    return (
        Arm(name="gradients-relu", result=gradients),
        *(
            Arm(name=f"gradients-{name}", changes={"model.activation": name}, result=gradients)
            for name in ("sigmoid", "tanh")
        ),
    )


def _suited_arms(base: TrainConfig) -> Sequence[Arm]:
    """Each nonlinearity with initial weights by its gain, and biases of 0, where it is steepest."""
    assert isinstance(base.model, AlexNetConfig)
    zeros, fans = tuple(0.0 for _ in base.model.biases), fan_ins(base.model)
    return tuple(
        Arm(
            name=f"gradients-{name}-suited",
            changes=({} if name == base.model.activation else {"model.activation": name})
            | {
                "model.weight_std": tuple(gain / math.sqrt(fan) for fan in fans),
                "model.biases": zeros,
            },
            result=gradients,
            chooses_itself=True,
        )
        for name, gain in GAINS.items()
    )


EXPERIMENTS = (
    Experiment(
        id="gradients-suited",
        title="The gradient in each layer before the first step, from initial weights that suit ReLU, sigmoid and tanh",
        arms=_suited_arms,
        comparisons=tuple(
            lower(
                "gradient_drop",
                "N1",
                f"from the last layer to the first the gradient falls less through ReLU than through {name}, each with "
                "initial weights that suit it",
                arm="gradients-relu-suited",
                than=f"gradients-{name}-suited",
            )
            for name in ("sigmoid", "tanh")
        ),
    ),
    Experiment(
        id="gradients",
        title="The gradient in each layer before the first step: ReLU, sigmoid and tanh",
        arms=_arms,
        comparisons=tuple(
            lower(
                "gradient_drop",
                "N1",
                f"from the last layer to the first the gradient falls less through ReLU than through {name}",
                arm="gradients-relu",
                than=f"gradients-{name}",
            )
            for name in ("sigmoid", "tanh")
        ),
        scales=("smoke", *HISTORY),
    ),
)
