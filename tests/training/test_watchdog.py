"""The signal check tells a set-up that can learn from the known one that cannot."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from alexnet.models import create_model
from alexnet.training.watchdog import dead_filters, signal_check, signal_warning, stuck_warning


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


def test_a_loss_at_ln_classes_for_three_epochs_is_named():
    prior = math.log(10)
    assert stuck_warning([prior, prior, prior], 10) is not None
    assert stuck_warning([prior, prior], 10) is None
    assert stuck_warning([prior, prior, 0.9 * prior], 10) is None


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
