"""§5: how much tuning is worth: what a setting that is wrong by a factor costs, for schedules of the rate and kernel machines.

All errors are those of the training images that are held out for choices. No image that is counted elsewhere is looked at.

Shape suffixes: N training images, M images held out for choices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from alexnet.baselines.pixels import squared_distances
from alexnet.baselines.trial import reduced_pixels, require_scikit_learn
from alexnet.claims.experiment import Arm, Experiment, lower, vary
from alexnet.claims.laboratory import Laboratory
from alexnet.claims.measures import center_error
from alexnet.claims.optimization import schedules
from alexnet.claims.results import Result
from alexnet.claims.tuning import FIRST_SEED, scaled, search
from alexnet.training.config import TrainConfig
from alexnet.training.trainer import training_images

WRONG = (-2, -1, 1, 2)
"""Powers of two by which a setting is wrong: up to four times too small or too large. As the search tries powers of two of the
recipe's rate, most of these trainings are ones that it made."""
SIDE = 32
"""Side of the images that a kernel machine compares."""
WIDTH, STRENGTH = 1.0, 1.0
"""Where the search begins: gamma times the mean squared distance of training images, and C."""
CHOOSING_SEEDS = 3
"""Choices of training images over whose mean error a kernel machine's constants are chosen, as the rates of networks are."""


def wrong_rates(name: str) -> Callable[[Laboratory, TrainConfig], Result]:
    """Errors at the rate of a configuration, which is the chosen one, and at wrong ones. ``name``: of the arm that is trained."""

    def result(lab: Laboratory, config: TrainConfig) -> Result:
        apart, arm = lab.for_tuning(), Arm(name=name)

        def error(power: int) -> float:
            tried = vary(config, scaled(config, "optimizer.lr", 2.0**power))
            found = apart.result(arm, replace(tried, seed=FIRST_SEED + config.seed, views=("1",)))
            return 1 - 1 / len(lab.open_data(config).classes) if "diverged" in found else center_error(found)

        return _found(error(0), {"learning rate": {str(power): error(power) for power in WRONG}})

    return result


def wrong_constants(lab: Laboratory, config: TrainConfig) -> Result:
    """Errors of support vector machines with a Gaussian kernel on pixels, at the chosen width and C and where one of them is
    wrong. They learn from the images that the network with this seed would learn from."""
    require_scikit_learn()
    errors = [_kernel_errors(lab, replace(config, seed=FIRST_SEED + i)) for i in range(CHOOSING_SEEDS)]
    own = _kernel_errors(lab, replace(config, seed=FIRST_SEED + config.seed))
    best = search(lambda powers: sum(error(powers) for error in errors), 2)
    wrong = {
        constant: {str(power): own((best[0] + power * (i == 0), best[1] + power * (i == 1))) for power in WRONG}
        for i, constant in enumerate(("width", "C"))
    }
    return _found(own(best), wrong) | {"chosen": {"width": WIDTH * 2.0 ** best[0], "C": STRENGTH * 2.0 ** best[1]}}


def _kernel_errors(lab: Laboratory, config: TrainConfig) -> Callable[[tuple[int, ...]], float]:
    """The error by the powers of two of width and C."""
    from sklearn.svm import SVC

    data = lab.for_tuning().open_data(config)
    train, held_out = data.split("train"), data.split(data.held_out)
    image_N = training_images(len(train), config)
    row_ND = reduced_pixels(train, image_N, SIDE, "training images", quiet=True)
    row_MD = reduced_pixels(held_out, np.arange(len(held_out)), SIDE, "images held out", quiet=True)
    squared_NN, squared_MN = squared_distances(row_ND, row_ND), squared_distances(row_MD, row_ND)

    @cache
    def error(powers: tuple[int, ...]) -> float:
        gamma = WIDTH * 2.0 ** powers[0] / squared_NN.mean()
        machine = SVC(kernel="precomputed", C=STRENGTH * 2.0 ** powers[1])
        machine.fit(np.exp(-gamma * squared_NN), train.labels[image_N])
        return float((machine.predict(np.exp(-gamma * squared_MN)) != held_out.labels).mean())

    return error


def _found(chosen: float, wrong: Mapping[str, Mapping[str, float]]) -> Result:
    shown = {f"{setting} x 2^{power}": error for setting, of in wrong.items() for power, error in of.items()}
    return {
        "views": {"1": {"top1_error": chosen}},
        "wrong": wrong,
        "shown": {"chosen": chosen, **shown},
        "protocol": {"images": "training images held out for choices", "diverged": "counts as guessing"},
    }


def _rates_arms(base: TrainConfig) -> Sequence[Arm]:
    return tuple(
        Arm(name=f"wrong-rates-{name}", changes={"schedule": schedule}, result=wrong_rates(name), same_training=True)
        for name, schedule in schedules(base).items()
        if name != "staged"
    )


EXPERIMENTS = (
    Experiment(
        id="wrong-rates",
        title="Rates wrong by up to four times: on plateaus, in steps, and by a cosine with warm-up",
        arms=_rates_arms,
        comparisons=tuple(
            lower(
                "cost_of_wrong_settings",
                "N47",
                f"a wrong rate costs less with a cosine after a warm-up than {how}",
                arm="wrong-rates-cosine",
                than=f"wrong-rates-{than}",
            )
            for than, how in (("plateau", "on plateaus"), ("steps", "in steps"))
        ),
    ),
    Experiment(
        id="wrong-constants",
        title="Constants wrong by up to four times: kernel machines on pixels, and the network",
        arms=lambda _base: (
            Arm(name="wrong-constants", result=wrong_constants, chooses_itself=True),
            Arm(name="wrong-rates", result=wrong_rates("base"), same_training=True),
        ),
        comparisons=(
            lower(
                "cost_of_wrong_settings",
                "N48",
                "a wrong width or C costs a kernel machine less than a wrong rate costs the network",
                arm="wrong-constants",
                than="wrong-rates",
            ),
        ),
        scales=("smoke", "cifar10-small", "imagenette"),
    ),
)
