"""§7: what pre-training is worth, by the number of labeled images: without labels, and on ImageNet with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alexnet.claims.experiment import Arm, Comparison, Experiment, Side, lower
from alexnet.claims.laboratory import Laboratory, train_in
from alexnet.claims.results import Result
from alexnet.claims.transfer import after_autoencoder, autoencoder_first
from alexnet.recipes import owt
from alexnet.training.config import TrainConfig
from alexnet.training.initial import load_initial
from alexnet.training.schedule import Steps

FEWER = 10
"""By how much fewer labeled images there are; they are seen in :data:`MORE_PASSES` times as many passes."""
MORE_PASSES = 4
TRUNK = "alexnet-owt-trunk"
"""Convolutions trained on ImageNet, which `alexnet weights get` fetches."""
PASSES_OF_LABELED = {100: 300, 1000: 60}
"""Passes over so many labeled photographs."""


def _autoencoder_on_all(base: TrainConfig) -> Callable[[Laboratory, TrainConfig], Result]:
    """Few labeled images after an autoencoder on as many as the recipe has."""

    def result(lab: Laboratory, config: TrainConfig) -> Result:
        return after_autoencoder(lab, config, base.train_images, math.ceil(base.epochs / 3))

    return result


def _few_labels(base: TrainConfig) -> Sequence[Arm]:
    assert base.train_images is not None, "scales with a number of training images"
    few = {"train_images": base.train_images // FEWER, "epochs": MORE_PASSES * base.epochs}
    return (
        Arm(name="base"),
        Arm(name="autoencoder-first", result=autoencoder_first),
        Arm(name="few-labels", changes=few),
        Arm(name="few-labels-autoencoder-first", changes=few, result=_autoencoder_on_all(base)),
    )


def from_trunk(lab: Laboratory, config: TrainConfig) -> Result:
    """The plain training, from the convolutions of :data:`TRUNK`. Raises what
    :func:`~alexnet.training.initial.load_initial` raises, where they have not been fetched."""
    return train_in(
        lab,
        config,
        lab.run_folder(config, "trunk"),
        lab.open_data(config),
        lambda: load_initial(TRUNK, config.network),
    )


def _trunk_setting() -> Mapping[str, Any]:
    """The network that the convolutions are of, its input and its training."""
    recipe = owt()
    return {name: getattr(recipe, name) for name in ("network", "model", "preprocessing", "augmentation", "optimizer")}


def _trunk_arms(_base: TrainConfig) -> Sequence[Arm]:
    """Those that need the convolutions first: without them nothing is trained in vain."""
    of_images = {
        images: {"train_images": images, "epochs": epochs, "schedule": Steps(every=epochs / 3)}
        for images, epochs in PASSES_OF_LABELED.items()
    }
    return (
        *(Arm(name=f"trunk-{n}", changes=changes, result=from_trunk) for n, changes in of_images.items()),
        *(Arm(name=f"scratch-{n}", changes=changes) for n, changes in of_images.items()),
    )


EXPERIMENTS = (
    Experiment(
        id="few-labels",
        title="An autoencoder first, with all labels and with a tenth of them",
        arms=_few_labels,
        comparisons=(
            lower(
                "center_error",
                "N49",
                "with a tenth of the labels the error is lower after an autoencoder on all images",
                arm="few-labels-autoencoder-first",
                than="few-labels",
            ),
            Comparison(
                claim="N49",
                says="an autoencoder first lowers the error less with all labels than with a tenth of them",
                lower=Side("base", "center_error", less="autoencoder-first"),
                higher=Side("few-labels", "center_error", less="few-labels-autoencoder-first"),
            ),
        ),
        scales=("smoke", "cifar10-small"),
    ),
    Experiment(
        id="trunk-labels",
        title="Convolutions trained on ImageNet, with 1,000 and with 100 labeled photographs",
        setting=_trunk_setting(),
        arms=_trunk_arms,
        comparisons=(
            *(
                lower(
                    "center_error",
                    "N49",
                    f"with {images:,} labeled images the error is lower from convolutions trained on ImageNet",
                    arm=f"trunk-{images}",
                    than=f"scratch-{images}",
                )
                for images in PASSES_OF_LABELED
            ),
            Comparison(
                claim="N49",
                says="convolutions trained on ImageNet lower the error less with 1,000 labeled images than with 100",
                lower=Side("scratch-1000", "center_error", less="trunk-1000"),
                higher=Side("scratch-100", "center_error", less="trunk-100"),
            ),
        ),
        scales=("imagenette",),
    ),
)
