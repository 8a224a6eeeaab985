"""Tables 1 and 2: what came before, AlexNet, and AlexNet with today's training, on the same data.

The older methods learn from as many training images as the networks, as many of each class, and answer whole images. Nothing
but the choice of images, and what little they draw, differs between their seeds: where they learn from all images, the nearest
neighbors give the same number for every seed but for the part that chooses how many vote, and the interval of a comparison comes
from the network's seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any

from alexnet.baselines.kernel_svm import kernel_svm
from alexnet.baselines.pixels import linear, nearest_neighbors
from alexnet.baselines.sift_fisher import sift_fisher
from alexnet.baselines.trial import Answers, Trial, require_scikit_learn, trial_on
from alexnet.baselines.trial import result as baseline_result
from alexnet.claims.experiment import Arm, Experiment, lower
from alexnet.claims.laboratory import COUNTS, Laboratory, plain_result, train_and_measure
from alexnet.claims.results import Result
from alexnet.core.preprocessing import Preprocessing
from alexnet.data.packed import PackedSet
from alexnet.evaluation.subject import provenance
from alexnet.models import model_config
from alexnet.models.alexnet import AlexNetConfig
from alexnet.recipes import NO_AUGMENTATION, lenet, modern, modern_photos
from alexnet.training.config import TrainConfig
from alexnet.training.trainer import network, training_images

MOST_IMAGES, LEAST_OF_A_CLASS = 50_000, 10
"""Most training images of the older methods, whose Fisher vectors fit into memory; fewest of each class."""
KERNEL_IMAGES = 5_000
"""Most training images of the kernel machine, which takes time and memory with their square."""
IMAGES_OF_A_GAUSSIAN, GAUSSIANS = 60, 32
LENET_SIDE = 32
LENET_RATES = (0.3, 0.9, 0.1)
"""Candidates: the textbook's 0.9 is for batches of 256."""

EARLIER = {
    "pixels-nearest": "the nearest images by pixels",
    "pixels-linear": "a linear classifier of pixels",
    "kernel-svm": "a kernel machine of pixels",
    "fisher-vectors": "Fisher vectors of SIFT and color",
}
"""How the older methods are named in a sentence."""


# The older methods ------------------------------------------------------------------------------------------------------


def earlier(name: str) -> Callable[[Laboratory, TrainConfig], Result]:
    """Errors, seconds and bytes of an older method."""

    def result(lab: Laboratory, config: TrainConfig) -> Result:
        require_scikit_learn()
        data = lab.open_data(config)
        trial = trial_for(
            data, config, most=KERNEL_IMAGES if name == "kernel-svm" else MOST_IMAGES, quiet=lab.machine.quiet
        )
        made = baseline_result(name, trial, _answers(name, trial), provenance(config.data, data, data.held_out))
        counts = {key: made[key] for key in COUNTS}
        return {
            "n": made["n"],
            "n_train": len(trial.image_N),
            "views": {"1": counts},
            "seconds": made["fit_seconds"],
            "test_seconds": made["test_seconds"],
            "model_bytes": made["model_bytes"],
            "protocol": made["protocol"],
            **({"parts": made["parts"]} if "parts" in made else {}),
            "shown": _shown(counts, made["fit_seconds"], made["model_bytes"], len(trial.image_N)),
        }

    return result


def trial_for(data: PackedSet, config: TrainConfig, *, most: int, quiet: bool) -> Trial:
    """As many training images as the network of this configuration has, as many of each class; not more than ``most``."""
    num = max(len(training_images(len(data.split("train")), config)), LEAST_OF_A_CLASS * len(data.classes))
    return trial_on(data, train_images=min(num, most), seed=config.seed, quiet=quiet)


def _answers(name: str, trial: Trial) -> Answers:
    if name == "pixels-nearest":
        return nearest_neighbors(trial)
    if name == "pixels-linear":
        return linear(trial)
    if name == "kernel-svm":
        return kernel_svm(trial)
    return sift_fisher(trial, gaussians=max(1, min(GAUSSIANS, len(trial.image_N) // IMAGES_OF_A_GAUSSIAN)))


# The networks -----------------------------------------------------------------------------------------------------------


def plain_network(lab: Laboratory, config: TrainConfig) -> Result:
    """The plain network of the scale, with its size."""
    return _with_size(lab, config, plain_result(lab, config))


def other_network(lab: Laboratory, config: TrainConfig) -> Result:
    """Another network, or another training, with its size."""
    return _with_size(lab, config, train_and_measure(lab, config))


def _with_size(lab: Laboratory, config: TrainConfig, result: Result) -> Result:
    if "diverged" in result:
        return result
    model = network(config, len(lab.open_data(config).classes), weights=False)
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    about = {key: value for key, value in result.items() if key not in ("arm", "scale", "seed", "fingerprint")}
    shown = _shown(result["views"]["1"], result["seconds"], size, result["n_train"])
    return about | {"model_bytes": size, "shown": shown}


def _shown(counts: dict[str, Any], seconds: float, size: int, images: int) -> dict[str, Any]:
    """A row of the table: errors, seconds of training, bytes of the model in float32."""
    return {
        "top1_error": counts["top1_error"],
        "top5_error": counts["top5_error"],
        "seconds": seconds,
        "model_bytes": size,
        "train_images": images,
    }


def lenet_changes(base: TrainConfig) -> dict[str, Any]:
    """The textbook's LeNet and its training, in the passes and batches of the scale, on images of at most 32 pixels."""
    recipe, channels = lenet(), base.preprocessing.channels
    side = min(LENET_SIDE, base.preprocessing.resize)
    changes = {
        "network": "lenet",
        "model": model_config("lenet", input_size=side, in_channels=channels),
        "preprocessing": Preprocessing(resize=side, crop=side, channels=channels, mean="none", scale=1 / 255),
        "augmentation": NO_AUGMENTATION,
        "optimizer": recipe.optimizer,
        "schedule": recipe.schedule,
        "views": ("1",),
    }
    return _that_differ(base, changes)


def modern_changes(base: TrainConfig) -> dict[str, Any]:
    """What the recipe ``modern`` changes in ``paper2012``, or for a training as short as that of photographs
    ``modern_photos``. Grey images take the mean of the colors."""
    recipe = modern() if base.epochs >= modern().epochs else modern_photos()
    assert isinstance(recipe.model, AlexNetConfig)
    pixels, channels = recipe.preprocessing, base.preprocessing.channels
    statistics = {
        name: value if channels == len(value) else (round(sum(value) / len(value), 3),) * channels
        for name, value in (("channel_mean", pixels.channel_mean), ("std", pixels.std))
    }
    changes: dict[str, Any] = {
        **{f"model.{name}": getattr(recipe.model, name) for name in ("init", "biases", "dropout")},
        "preprocessing.mean": pixels.mean,
        **{f"preprocessing.{name}": value for name, value in statistics.items()},
        "augmentation.crop": recipe.augmentation.crop,
        "augmentation.resized_area": recipe.augmentation.resized_area,
        **{f"optimizer.{field.name}": getattr(recipe.optimizer, field.name) for field in fields(recipe.optimizer)},
        "schedule": recipe.schedule,
        "label_smoothing": recipe.label_smoothing,
    }
    return _that_differ(base, changes)


def _that_differ(base: TrainConfig, changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in changes.items() if attrgetter(name)(base) != value}


# The experiment ---------------------------------------------------------------------------------------------------------


def _arms(base: TrainConfig) -> Sequence[Arm]:
    return (
        *(Arm(name=name, result=earlier(name), chooses_itself=True) for name in EARLIER),
        Arm(name="lenet", changes=lenet_changes(base), tuned=("optimizer.lr", LENET_RATES), result=other_network),
        Arm(name="alexnet-2012", result=plain_network, same_training=True),
        Arm(name="alexnet-today", changes=modern_changes(base), result=other_network),
    )


EXPERIMENTS = (
    Experiment(
        id="history",
        title="What came before, AlexNet, and AlexNet with today's training",
        arms=_arms,
        comparisons=(
            *(
                lower(
                    "center_error",
                    "C25",
                    f"the error of AlexNet is lower than that of {words}",
                    arm="alexnet-2012",
                    than=name,
                    printed=8.2 if name == "fisher-vectors" else None,
                )
                for name, words in EARLIER.items()
            ),
            lower(
                "center_error_top5",
                "C27",
                "the top-5 error of AlexNet is lower than that of Fisher vectors of SIFT and color",
                arm="alexnet-2012",
                than="fisher-vectors",
            ),
            lower(
                "center_error",
                "N22",
                "the error of AlexNet is lower than that of LeNet",
                arm="alexnet-2012",
                than="lenet",
            ),
            lower(
                "center_error",
                "N23",
                "the error of AlexNet is lower with today's training than with that of 2012",
                arm="alexnet-today",
                than="alexnet-2012",
            ),
        ),
    ),
)
