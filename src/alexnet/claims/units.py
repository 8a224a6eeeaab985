"""§4.2 and §5: what the units of fc6 and fc7 of a trained network do: its answers with dropout masks instead of the factor of 0.5
at test, and units that no image makes answer.

Shape suffixes: B images of a batch, N images, K classes, C channels, H rows, W columns, D units, M masks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from alexnet.claims.experiment import Arm, Comparison, Experiment, Side, lower
from alexnet.claims.laboratory import Laboratory, asked_of_the_network, counts_of, some_training_images
from alexnet.claims.optimization import biases_times
from alexnet.claims.results import Result
from alexnet.core.device import autocast
from alexnet.core.rng import DropoutDraw
from alexnet.data.loader import Batch, batches
from alexnet.data.packed import PackedSet
from alexnet.evaluation.error_rate import Split, count
from alexnet.evaluation.layers import activations
from alexnet.evaluation.predict import Predictor
from alexnet.evaluation.probabilities import Probabilities
from alexnet.models.alexnet import AlexNet, Step
from alexnet.models.layers import Dropout
from alexnet.training.config import TrainConfig
from alexnet.training.trainer import network, network_input

MASKS = 300
"""Masks for each image: an even number, for two halves are compared."""
HIDDEN = ("fc6", "fc7")


# The mean over masks --------------------------------------------------------------------------------------------------


def mean_of_masks(lab: Laboratory, config: TrainConfig, predictor: Predictor) -> Result:
    """Errors on the held-out images of the geometric mean of the probabilities with :data:`MASKS` masks; beside it those of their
    arithmetic mean, of one mask and of the factor, and the shares of images to which two of these give another answer."""
    answers = _answers(lab, config, predictor)
    counted = {
        name: counts_of(count(answers[name])) for name in ("geometric mean", "arithmetic mean", "factor", "one mask")
    }
    label_N = {name: of_one.log_probability_NK.argmax(1) for name, of_one in answers.items()}
    differ = {
        name: float((label_N[first] != label_N[second]).mean())
        for name, first, second in (
            ("factor", "factor", "geometric mean"),
            ("halves", "first half", "second half"),
            ("one mask", "one mask", "geometric mean"),
        )
    }
    return {
        "n": counted["factor"]["n"],
        "views": {"1": counted["geometric mean"]},
        "masks": counted,
        "differ": differ,
        "protocol": answers["geometric mean"].protocol,
        "shown": {f"errors, {name}": counts["top1_error"] for name, counts in counted.items()}
        | {f"other answers, {name}": share for name, share in differ.items()},
    }


def _answers(lab: Laboratory, config: TrainConfig, predictor: Predictor) -> dict[str, Probabilities]:
    """The answers to the held-out images at their centers, by each of these ways. Each image has masks of its own."""
    model, data = predictor.model, lab.open_data(config)
    assert isinstance(model, AlexNet)
    split = data.split(data.held_out)
    parts: dict[str, list[Tensor]] = {}
    for batch, x_BCHW in _inputs(lab, config, data, split):
        draws = (DropoutDraw(config.seed, mask, batch.image_B) for mask in range(MASKS))
        with torch.no_grad(), autocast(lab.machine.device, config.precision):
            factor_BK = model.eval()(x_BCHW)
            mask_MBK = torch.stack([logits_BK.cpu() for logits_BK in with_masks(model, x_BCHW, draws)])
        mask_MBK = mask_MBK.double().log_softmax(2)
        for name, answer_BK in {
            "geometric mean": mask_MBK.mean(0),
            "first half": mask_MBK[: MASKS // 2].mean(0),
            "second half": mask_MBK[MASKS // 2 :].mean(0),
            "arithmetic mean": mask_MBK.logsumexp(0),
            "one mask": mask_MBK[0],
            "factor": factor_BK.cpu().double(),
        }.items():
            parts.setdefault(name, []).append(answer_BK.log_softmax(1).float())
    label_N, paths, classes = np.asarray(split.labels, dtype=np.int64), tuple(split.paths), tuple(data.classes)
    protocol = {"views": "1", "masks": MASKS, "averaging": "geometric mean of softmax probabilities over masks"}
    return {
        name: Probabilities(torch.cat(part).numpy(), label_N, paths, classes, protocol) for name, part in parts.items()
    }


def with_masks(model: AlexNet, x_BCHW: Tensor, draws: Iterable[DropoutDraw]) -> Iterator[Tensor]:
    """Logits (B, K) with each of these masks, as in training. What comes before the first mask is computed once."""
    steps = model.eval().steps()
    first = next(i for i, step in enumerate(steps) if step.dropout is not None)
    head, rest = steps[first], steps[first + 1 :]
    x = x_BCHW
    for step in steps[:first]:
        x = step.run(x)
    if not head.drops_input:
        x = head._replace(dropout=None).run(x)
        head = Step(head.name, nn.Identity(), dropout=head.dropout)
    for module in model.modules():
        if isinstance(module, Dropout):
            module.train()
    try:
        for draw in draws:
            y = x
            for step in (head, *rest):
                y = step.run(y, draw)
            yield y
    finally:
        model.eval()


# Units that are never alive --------------------------------------------------------------------------------------------


def dead_units(lab: Laboratory, config: TrainConfig, predictor: Predictor) -> Result:
    """Units of fc6 and fc7 that give 0 for the center of every image that the run learned from, before its first step and after
    its last."""
    data = lab.open_data(config)
    untrained = network(config, len(data.classes)).to(lab.machine.device)
    images = some_training_images(config, data)
    dead = {
        when: never_above_zero(lab, config, model, data, images)
        for when, model in (("start", untrained), ("end", predictor.model))
    }
    units = {name: len(dead_D) for name, dead_D in dead["start"].items()}
    counted = {when: {name: int(dead_D.sum()) for name, dead_D in found.items()} for when, found in dead.items()}
    return {
        "n": len(images),
        "units": units,
        "dead": counted,
        "shown": {
            f"{name}, {when}": num / units[name] for when, found in counted.items() for name, num in found.items()
        },
    }


def never_above_zero(
    lab: Laboratory, config: TrainConfig, model: nn.Module, data: PackedSet, images: Split
) -> Mapping[str, Tensor]:
    """For each unit of fc6 and fc7 whether no image makes it answer: (D,) bool by layer."""
    dead: dict[str, Tensor] = {}
    for _, x_BCHW in _inputs(lab, config, data, images):
        with autocast(lab.machine.device, config.precision):
            found = activations(model, x_BCHW, HIDDEN)
        for name, y_BD in found.items():
            now_D = (y_BD <= 0).all(0).cpu()
            dead[name] = now_D & dead.get(name, now_D)
    return dead


def _inputs(lab: Laboratory, config: TrainConfig, data: PackedSet, split: Split) -> Iterator[tuple[Batch, Tensor]]:
    """All images of a split in batches, and what the network reads of them: their centers."""
    mean_SSC = torch.from_numpy(data.mean).to(lab.machine.device)
    for batch in batches(split, np.arange(len(split)), config.batch_size, workers=lab.machine.workers):
        pixels_BSSC = batch.pixels_BSSC.to(lab.machine.device)
        yield batch, network_input(pixels_BSSC, batch.image_B, config, mean_SSC)


def _dead_arms(base: TrainConfig) -> Sequence[Arm]:
    ask = asked_of_the_network(dead_units)
    return (
        Arm(name="units-bias-1", result=ask, same_training=True),
        Arm(name="units-bias-0", changes=biases_times(base, 0.0), result=ask, same_training=True),
    )


EXPERIMENTS = (
    Experiment(
        id="dropout-masks",
        title="300 dropout masks at test, and the factor of 0.5",
        arms=lambda _base: (
            Arm(name="base"),
            Arm(name="masks-300", result=asked_of_the_network(mean_of_masks), same_training=True),
        ),
        comparisons=(
            lower(
                "center_error",
                "N38",
                "the error is lower with the geometric mean over 300 masks than with the factor of 0.5",
                arm="masks-300",
                than="base",
            ),
            Comparison(
                claim="N38",
                says="150 masks give another answer than 150 others less often than the factor of 0.5 gives another than all 300",
                lower=Side("masks-300", "halves_differ"),
                higher=Side("masks-300", "factor_differs"),
            ),
        ),
    ),
    Experiment(
        id="dead-units",
        title="Units of fc6 and fc7 that no image makes answer, with initial biases of 1 and of 0",
        also_tuned=("model.weight_std",),
        arms=_dead_arms,
        comparisons=tuple(
            lower(
                f"dead_at_{when}",
                "N39",
                f"fewer units are dead {how} with biases of 1 than of 0",
                arm="units-bias-1",
                than="units-bias-0",
            )
            for when, how in (("start", "before the first step"), ("end", "after the last step"))
        ),
    ),
)
