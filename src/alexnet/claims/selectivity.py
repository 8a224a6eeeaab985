"""§6.1: how far the units of a trained network answer to one class, by layer: from edges to parts of things.

Shape suffixes: N held-out images, B images of a batch, K classes, U units of a layer (a map is one), D numbers of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from alexnet.claims.experiment import Arm, Comparison, Experiment, Side, lower
from alexnet.claims.laboratory import Laboratory, asked_of_the_network
from alexnet.claims.measures import SELECTIVE_LAYERS
from alexnet.claims.results import Result
from alexnet.core import rng
from alexnet.data.loader import batches
from alexnet.evaluation.error_rate import Split
from alexnet.evaluation.layers import find_layers
from alexnet.evaluation.predict import Predictor
from alexnet.training.config import TrainConfig
from alexnet.training.trainer import network

SHUFFLES = 10
"""Times that the labels are shuffled, for the selectivity that chance makes."""


def untrained_selectivity(lab: Laboratory, config: TrainConfig) -> Result:
    """:func:`selectivity` of the network with its initial weights."""
    data = lab.open_data(config)
    return selectivity(
        lab,
        config,
        Predictor(
            name="untrained",
            model=network(config, len(data.classes)).to(lab.machine.device),
            preprocessing=config.preprocessing,
            classes=tuple(data.classes),
            mean=data.mean,
            device=lab.machine.device,
            precision=config.precision,
        ),
    )


def selectivity(lab: Laboratory, config: TrainConfig, predictor: Predictor) -> Result:
    """Mean :func:`class_selectivity` of the units of each of :data:`SELECTIVE_LAYERS` over the held-out images, with their labels
    and with shuffled ones."""
    data = lab.open_data(config)
    split = data.split(data.held_out)
    label_N = np.asarray(split.labels)
    orders = [rng.permutation(config.seed, "claims/shuffled", i, len(label_N)) for i in range(SHUFFLES)]
    found = {}
    for layer, response_NU in responses(predictor, split, SELECTIVE_LAYERS, lab.machine.workers).items():
        shuffled = [class_selectivity(response_NU, label_N[order_N]).mean() for order_N in orders]
        found[layer] = {
            "units": response_NU.shape[1],
            "mean": float(class_selectivity(response_NU, label_N).mean()),
            "by_chance": float(np.mean(shuffled)),
        }
    return {
        "n": len(label_N),
        "selectivity": found,
        "shown": {layer: about["mean"] - about["by_chance"] for layer, about in found.items()},
        "protocol": {
            "view": "center",
            "unit": "a unit of fc7, or a map, by its mean",
            "index": "(largest class mean - mean of the others) / their sum; 0 for a unit that is never active",
            "by_chance": f"the same with shuffled labels, mean of {SHUFFLES}",
        },
    }


def responses(
    predictor: Predictor, split: Split, names: Sequence[str], workers: int | None
) -> dict[str, NDArray[np.float32]]:
    """How much each unit of each layer answers to each image, of maps their means: (N, U) each."""
    layers = find_layers(predictor.model, names)
    found: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
    for batch in batches(split, np.arange(len(split)), 64, workers=workers):
        rows = predictor.activations(batch.pixels_BSSC, layers)
        for layer in layers:
            row_BD = rows[layer.name]
            found[layer.name].append(row_BD.reshape(len(row_BD), layer.shape[0], -1).mean(2))
    return {name: np.concatenate(rows) for name, rows in found.items()}


def class_selectivity(response_NU: NDArray[np.floating], label_N: NDArray[np.integer]) -> NDArray[np.float64]:
    """Of each unit the largest of its mean responses to the classes, less the mean of the others, over the sum of both: 0 for
    one that answers to all alike, 1 for one that answers to a single class (Morcos et al. 2018): (U,). Responses are 0 or
    more."""
    mean_KU = np.stack([response_NU[label_N == label].mean(0, dtype=np.float64) for label in np.unique(label_N)])
    largest_U = mean_KU.max(0)
    others_U = (mean_KU.sum(0) - largest_U) / (len(mean_KU) - 1)
    sum_U = largest_U + others_U
    found_U: NDArray[np.float64] = np.divide(largest_U - others_U, sum_U, out=np.zeros_like(sum_U), where=sum_U > 0)
    return found_U


def _deeper(first: str, second: str) -> Comparison:
    return Comparison(
        claim="N44",
        says=f"beyond what shuffled labels give, units of {first} answer less to one class than units of {second}",
        lower=Side("selectivity", f"selectivity_{first}"),
        higher=Side("selectivity", f"selectivity_{second}"),
    )


EXPERIMENTS = (
    Experiment(
        id="selectivity",
        title="How far units answer to one class, by layer",
        arms=lambda _base: (
            Arm(name="selectivity", result=asked_of_the_network(selectivity), same_training=True),
            Arm(name="selectivity-untrained", result=untrained_selectivity, chooses_itself=True),
        ),
        comparisons=(
            *(_deeper(first, second) for first, second in pairwise(SELECTIVE_LAYERS)),
            lower(
                "selectivity_fc7",
                "N44",
                "units of fc7 answer less to one class before training than after it",
                arm="selectivity-untrained",
                than="selectivity",
            ),
        ),
    ),
)
