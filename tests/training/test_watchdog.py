"""The signal check tells a set-up that can learn from the known one that cannot."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from alexnet.models import create_model
from alexnet.training.watchdog import (
    Guessing,
    LayerSignal,
    dead_filters,
    guessing,
    signal_check,
    signal_warning,
    trouble,
)


@pytest.fixture(scope="module")
def photographs() -> torch.Tensor:
    """Eight images with the contrast and the smoothness of photographs, 0..255 less their mean."""
    coarse = torch.randn(8, 3, 14, 14, generator=torch.Generator().manual_seed(0))
    return 60 * F.interpolate(coarse, size=(224, 224), mode="bicubic")


def warning(name: str, x: torch.Tensor) -> str | None:
    return signal_warning(signal_check(create_model(name, num_classes=10), x), float(x.std()))


def test_the_2012_networks_pass_on_pixels_and_fail_on_unit_input(photographs):
    assert warning("alexnet_2012", photographs) is None
    assert warning("alexnet_2012_code", photographs) is None
    said = warning("alexnet_2012", photographs / 60)
    assert said is not None
    assert "only the class frequencies can be learned" in said
    assert "keep pixels on the 0..255 scale" in said


def test_signal_is_measured_between_images_and_leaves_the_model_as_it_was(photographs):
    model = create_model("lenet")
    model.train()
    x = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    same = signal_check(model, x[:1].expand(4, -1, -1, -1))
    different = signal_check(model, x)
    assert model.training
    assert [s.layer for s in different] == [name for name, m in model.named_children() if list(m.parameters())]
    assert all(s.spread < 1e-6 for s in same)
    assert all(s.spread > 1e-4 for s in different)


def test_guessing_of_a_balanced_training_takes_all_classes_for_equally_frequent():
    trained, validated = np.repeat([0, 1, 2], [100, 10, 1]), np.repeat([0, 1], [25, 2])
    assert guessing(trained, validated, 3, balanced=True) == Guessing(math.log(3), math.log(3), 0.5)


TEN = Guessing(train_loss=math.log(10), val_loss=math.log(10), val_error=0.9)


def history(losses, errors=0.9, val_loss=2.31, spreads=0.5, steps=200, n=1000):
    """Epochs of ``steps`` steps; one number stands for all epochs."""
    columns = [value if isinstance(value, list) else [value] * len(losses) for value in (errors, val_loss, spreads)]
    return [
        {
            "step": steps * (i + 1),
            "train_loss": loss,
            "val_top1_error": error,
            "val_loss": val,
            "val_n": n,
            "spread": spread,
        }
        for i, (loss, error, val, spread) in enumerate(zip(losses, *columns, strict=True))
    ]


def kind(rows, start_spread=0.4, **options) -> str | None:
    start = None if start_spread is None else LayerSignal("fc8", 1.0, start_spread)
    found = trouble(rows, TEN, start=start, **options)
    return None if found is None else found.kind


@pytest.mark.parametrize(
    ("rows", "start_spread", "expected"),
    [
        (history([2.303, 2.303, 2.303], spreads=1e-5), 1e-5, "lost"),
        (history([2.303, 2.31, 2.305], spreads=0.0), 0.4, "stuck"),
        (history([1.4, 1.2, 2.31, 2.305], errors=[0.5, 0.4, 0.9, 0.9], spreads=[0.9, 0.9, 0.0, 0.0]), 0.4, "stuck"),
        (history([1.2, 1.5, 2.4, 3.1], errors=[0.4, 0.5, 0.8, 0.85]), 0.4, "diverging"),
        (history([5.0, 4.4, 6.1]), 0.4, "diverging"),
        (history([2.303, 2.302, 2.303]), 0.4, "slow"),
        (history([2.303, 2.302, 2.303], spreads=None), None, "slow"),
    ],
)
def test_what_keeps_a_training_from_getting_on_is_told_apart(rows, start_spread, expected):
    assert kind(rows, start_spread) == expected


@pytest.mark.parametrize(
    "rows",
    [
        history([2.35, 2.31, 2.30], errors=[0.88, 0.86, 0.83]),  # augmentation and dropout; validation learns
        history([2.31, 2.29, 2.28], errors=0.89, val_loss=[2.30, 2.27, 2.24]),  # smoothed labels
        history([2.30, 2.28, 2.29], errors=[0.7, 0.6, 0.55], val_loss=1.8),  # mixed images
        history([2.6, 2.45, 2.35]),  # it has only begun, from a loud start
        history([1.0, 0.5, 0.2], errors=0.9, val_loss=5.0),  # what it learns does not carry over
        history([1.2, 1.1, 1.4, 1.35], errors=0.4),  # one bad epoch of a network that knows much
        history([2.3, 2.3, 2.3], spreads=0.0, steps=7),  # 21 steps
        history([2.3, 2.3], spreads=0.0, steps=10_000),  # two looks
    ],
)
def test_a_training_that_gets_on_or_has_only_begun_is_left_alone(rows):
    assert kind(rows) is None


def test_steps_count_from_the_last_change():
    rows = history([2.303] * 3, spreads=0.0, steps=200)
    assert kind(rows) == "stuck"
    assert kind(rows, since=200) is None


def test_what_guessing_is_worth_depends_on_the_frequencies():
    # Three quarters of one class: entropy 0.75 ln(4/3) + 0.25 ln 4 = 0.5623; half of the validation images are of it.
    chance = guessing(np.array([0, 0, 0, 1]), np.array([0, 1]), 2)
    assert chance.train_loss == pytest.approx(0.5623, abs=1e-4)
    assert chance.val_loss == pytest.approx(0.5 * math.log(4 / 3) + 0.5 * math.log(4))
    assert chance.val_error == 0.5


def test_dead_filters_are_counted_by_tower():
    model = create_model(
        "alexnet_2012",
        num_classes=3,
        input_size=67,
        conv_channels=(8, 8, 8, 8, 8),
        fc_units=(8, 8),
        weight_std=(0.05,) * 8,
    )
    with torch.no_grad():
        model.conv2.bias[5:] = -1e6  # three filters of the second tower
    counts = dead_filters(model, torch.randn(4, 3, 67, 67, generator=torch.Generator().manual_seed(0)), towers=2)
    assert counts["conv2"] == [0, 3]
    assert counts["conv1"] == [0, 0]
