"""§3.1: rectified linear units against what came before them and after, and max against average pooling."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from alexnet.claims.experiment import Arm, Experiment, beside_base, learning_rates, lower
from alexnet.models.alexnet import AlexNetConfig
from alexnet.training.config import TrainConfig

SMALL_SCALES = ("smoke", "cifar10-small", "cifar10", "fashion-mnist")
"""Figure 1 is of CIFAR-10; its network is made for images of that size."""

RATES = (4.0, 8.0, 16.0, 32.0)
"""Candidates for each arm, the likeliest first: the four-layer network's own rate is made for 120 epochs, not for speed."""

SUCCESSORS = ("leaky_relu", "prelu", "gelu")


def _activations(*names: str) -> Callable[[TrainConfig], Sequence[Arm]]:
    def arms(base: TrainConfig) -> Sequence[Arm]:
        rates = learning_rates(base, RATES)
        others = (Arm(name=name, changes={"model.activation": name}, tuned=rates) for name in names)
        return Arm(name="base", tuned=rates), *others

    return arms


DIVISORS = (8, 64)
"""What pixels of 0 to 255, less their mean, are divided by; 64 makes their standard deviation about 1."""


def _input_scales(base: TrainConfig) -> Sequence[Arm]:
    """ReLU and tanh with pixels as they are and divided. Of divided ones the search of the initial weights begins with so much
    larger ones in conv1 that its sums are as large as before."""
    assert isinstance(base.model, AlexNetConfig)
    conv1, *rest = base.model.weight_std
    arms = []
    for name, whole, changes in (("relu", "base", {}), ("tanh", "tanh", {"model.activation": "tanh"})):
        arms.append(Arm(name=whole, changes=changes))
        arms += [
            Arm(
                name=f"{name}-over-{divisor}",
                changes=changes | {"preprocessing.scale": base.preprocessing.scale / divisor},
                starts_at={"model.weight_std": (divisor * conv1, *rest)},
            )
            for divisor in DIVISORS
        ]
    return arms


EXPERIMENTS = (
    Experiment(
        id="relu-tanh",
        title="Epochs to 25 % training error, ReLU and tanh (figure 1)",
        recipe="four-layer",
        arms=_activations("tanh"),
        tuned_by="epochs_to_goal",
        comparisons=(
            lower(
                "epochs_to_goal", "C7", "ReLU reaches 25 % training error sooner than tanh", than="tanh", printed=6.0
            ),
        ),
        scales=SMALL_SCALES,
    ),
    Experiment(
        id="relu-sigmoid",
        title="Epochs to 25 % training error, ReLU and sigmoid",
        recipe="four-layer",
        arms=_activations("sigmoid"),
        tuned_by="epochs_to_goal",
        comparisons=(
            lower("epochs_to_goal", "N1", "ReLU reaches 25 % training error sooner than sigmoid", than="sigmoid"),
        ),
        scales=SMALL_SCALES,
    ),
    Experiment(
        id="relu-successors",
        title="Epochs to 25 % training error, ReLU and its successors",
        recipe="four-layer",
        arms=_activations(*SUCCESSORS),
        tuned_by="epochs_to_goal",
        comparisons=tuple(
            lower("epochs_to_goal", "N2", f"{name} reaches 25 % training error sooner than ReLU", arm=name, than="base")
            for name in SUCCESSORS
        ),
        scales=SMALL_SCALES,
    ),
    Experiment(
        id="input-scale",
        title="ReLU and tanh with pixels of 0 to 255 less their mean, and with an eighth and a 64th of them",
        also_tuned=("model.weight_std",),
        arms=_input_scales,
        comparisons=(
            *(
                lower(
                    "center_error",
                    "N41",
                    f"the error with ReLU is lower with pixels as they are than divided by {divisor}",
                    than=f"relu-over-{divisor}",
                )
                for divisor in DIVISORS
            ),
            *(
                lower(
                    "center_error",
                    "N41",
                    f"the error with tanh is lower with pixels divided by {divisor} than as they are",
                    arm=f"tanh-over-{divisor}",
                    than="tanh",
                )
                for divisor in DIVISORS
            ),
        ),
    ),
    Experiment(
        id="max-average",
        title="Max and average pooling",
        arms=beside_base({"average-pooling": {"model.pooling": "average"}}),
        comparisons=(
            lower(
                "center_error", "N3", "the error is lower with max pooling than with average", than="average-pooling"
            ),
        ),
    ),
)
