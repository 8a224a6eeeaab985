"""§4.2: whether dropout keeps units from relying on one another: what it costs to remove units of fc7 at test.

Shape suffixes: N held-out images, K classes, D units of fc7.
"""

from __future__ import annotations

import numpy as np
import torch

from alexnet.claims.dropout import NO_DROPOUT
from alexnet.claims.experiment import Arm, Experiment, lower
from alexnet.claims.laboratory import Laboratory, asked_of_the_network
from alexnet.claims.measures import PERCENT_REMOVED
from alexnet.claims.results import Result
from alexnet.core import rng
from alexnet.data.loader import batches
from alexnet.evaluation.error_rate import Split, label_ranks
from alexnet.evaluation.predict import Predictor
from alexnet.training.config import TrainConfig

DRAWS = 5
"""Random choices of the units that are removed, over which errors are averaged."""


def without_units(lab: Laboratory, config: TrainConfig, predictor: Predictor) -> Result:
    """Errors of the held-out images, at the center, of the whole network, and when each of :data:`PERCENT_REMOVED` of the units
    of fc7 are removed. What the others send to fc8 is scaled up, so that its sum stays as large on average."""
    data = lab.open_data(config)
    split = data.split(data.held_out)
    label_N = torch.from_numpy(np.asarray(split.labels, dtype=np.int64))
    x_ND = inputs_of_fc8(predictor, split, lab.machine.workers)
    fc8 = predictor.model.get_submodule("fc8").float()

    @torch.no_grad()
    def error(factor_D: torch.Tensor) -> float:
        logits_NK = fc8(x_ND * factor_D).cpu()
        return float((label_ranks(logits_NK, label_N) > 0).double().mean())

    num = x_ND.shape[1]
    errors = {
        str(percent): float(
            np.mean([error(kept(num, percent, config.seed, draw).to(x_ND.device)) for draw in range(DRAWS)])
        )
        for percent in PERCENT_REMOVED
    }
    whole = error(torch.ones(num, device=x_ND.device))
    return {
        "n": len(label_N),
        "views": {"1": {"top1_error": whole}},
        "percent_removed": errors,
        "shown": {"0": whole, **errors},
        "protocol": {"removed": f"random units of fc7, mean of {DRAWS} draws; the others times 1 / (share that stays)"},
    }


def inputs_of_fc8(predictor: Predictor, split: Split, workers: int | None) -> torch.Tensor:
    """What fc8 reads of each image, the test-time factor of dropout included: (N, D) float32."""
    rows: list[torch.Tensor] = []
    fc8 = predictor.model.get_submodule("fc8")
    hook = fc8.register_forward_pre_hook(lambda _module, inputs: rows.append(inputs[0].float()))
    try:
        for batch in batches(split, np.arange(len(split)), 64, workers=workers):
            predictor.activations(batch.pixels_BSSC, [])
    finally:
        hook.remove()
    return torch.cat(rows)


def kept(num: int, percent: int, seed: int, draw: int) -> torch.Tensor:
    """Factors of ``num`` units of which so many percent, rounded, are removed: 0, or what makes their mean 1: (D,)."""
    removed = round(num * percent / 100)
    factor_D = torch.full((num,), num / (num - removed))
    factor_D[torch.from_numpy(rng.permutation(seed, "claims/removed", draw, num)[:removed])] = 0.0
    return factor_D


EXPERIMENTS = (
    Experiment(
        id="units-removed",
        title="Errors when part of fc7 is removed at test, with and without dropout in training",
        arms=lambda _base: (
            Arm(name="units-removed", result=asked_of_the_network(without_units), same_training=True),
            Arm(
                name="units-removed-no-dropout",
                changes=NO_DROPOUT,
                result=asked_of_the_network(without_units),
                same_training=True,
            ),
        ),
        comparisons=tuple(
            lower(
                f"rise_without_{percent}",
                "N45",
                f"without {percent} % of fc7 the error rises less after training with dropout",
                arm="units-removed",
                than="units-removed-no-dropout",
            )
            for percent in PERCENT_REMOVED
        ),
    ),
)
