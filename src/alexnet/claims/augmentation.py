"""§4.1: crops, mirror images, color noise, and ten views at test time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alexnet.claims.experiment import Arm, Comparison, Experiment, Side, beside_base, lower
from alexnet.claims.measures import RANDOM_VIEWS
from alexnet.training.config import TrainConfig

CENTERED: Mapping[str, Any] = {"augmentation.crop": "center", "augmentation.mirror": False}
NO_COLOR_NOISE: Mapping[str, Any] = {"augmentation.color_noise": 0.0}
COLOR_SCALES = ("smoke", "cifar10-small", "cifar10", "imagenette", "imagenet")


FEW_CROPS = (1, 4, 16)


def _mistuned_arms(_base: TrainConfig) -> Sequence[Arm]:
    slow = ("base", 0.1)
    return (
        Arm(name="base"),
        Arm(name="no-crops", changes=CENTERED),
        Arm(name="slow", rate_of=slow),
        Arm(name="slow-no-crops", changes=CENTERED, rate_of=slow),
    )


EXPERIMENTS = (
    Experiment(
        id="crops",
        title="Random crops and mirror images, and ten views",
        setting={"views": ("1", "10")},
        arms=beside_base({"no-crops": CENTERED}),
        comparisons=(
            lower("gap", "C16", "held-out and training error are less apart with crops and mirror", than="no-crops"),
            lower("center_error", "C16", "the error is lower with crops and mirror images", than="no-crops"),
            Comparison(
                claim="C26",
                says="the error of ten views is lower than that of the center",
                lower=Side("base", "ten_view_error"),
                higher=Side("base", "center_error"),
                printed=1.5,
            ),
            Comparison(
                claim="C26",
                says="the top-5 error of ten views is lower than that of the center",
                lower=Side("base", "ten_view_error_top5"),
                higher=Side("base", "center_error_top5"),
                printed=1.3,
            ),
        ),
    ),
    Experiment(
        id="random-crops",
        title="Random crops at test, the center, and the ten views",
        setting={"views": ("1", "10", *(f"random:{num}" for num in RANDOM_VIEWS))},
        arms=beside_base({}),
        comparisons=tuple(
            Comparison(
                claim="N32",
                says=f"the error of {num} random crops is lower than that of {what}",
                lower=Side("base", f"random_{num}_error"),
                higher=Side("base", measure),
            )
            for num in RANDOM_VIEWS
            for what, measure in (("the center", "center_error"), ("the ten views", "ten_view_error"))
        ),
    ),
    Experiment(
        id="crop-number",
        title="One, 4 and 16 crops of each image again and again, and a new one in each pass",
        arms=beside_base({f"crops-{number}": {"augmentation.crops": number} for number in FEW_CROPS}),
        comparisons=tuple(
            lower(
                "center_error",
                "N46",
                f"the error is lower with new crops than with {of} of each image",
                than=f"crops-{number}",
            )
            for number, of in zip(FEW_CROPS, ("one", "4", "16"), strict=True)
        ),
    ),
    Experiment(
        id="color-noise",
        title="With and without color noise",
        arms=beside_base({"no-color-noise": NO_COLOR_NOISE}),
        comparisons=(
            lower("center_error", "C18", "the error is lower with color noise", than="no-color-noise", printed=1.0),
        ),
        scales=COLOR_SCALES,
    ),
    Experiment(
        id="color-noise-size",
        title="Color noise by standard deviation, by eigenvalue, and by the constants others copied",
        arms=beside_base(
            {
                "eigenvalue-noise": {"augmentation.color_noise_of": "eigenvalue"},
                "popular-noise": {"augmentation.color_noise_of": "constants"},
            }
        ),
        comparisons=(
            lower("center_error", "N12", "the error is lower than with noise by eigenvalue", than="eigenvalue-noise"),
            lower("center_error", "N12", "the error is lower than with the popular constants", than="popular-noise"),
        ),
        scales=COLOR_SCALES,
    ),
    Experiment(
        id="augmentation-mistuned",
        title="Augmentation at a tenth of the best learning rate, and at the best rate for each arm",
        arms=_mistuned_arms,
        comparisons=(
            lower(
                "center_error",
                "N13",
                "at a tenth of the rate that is best with augmentation the error is lower without it",
                arm="slow-no-crops",
                than="slow",
            ),
            lower(
                "center_error",
                "N13",
                "at its own best learning rate the error is lower without augmentation",
                arm="no-crops",
                than="base",
            ),
        ),
    ),
)
