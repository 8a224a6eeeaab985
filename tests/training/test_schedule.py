"""Learning rates at the times that matter, written out."""

from __future__ import annotations

import pytest

from alexnet.training.optimizer import OptimizerConfig
from alexnet.training.schedule import Cosine, Plateau, Staged, Steps, count_drops, rates

PAPER = OptimizerConfig(lr=0.01)
CODE = OptimizerConfig(lr=0.01, bias_lr=0.02)


def test_plateau_drops_after_patience_epochs_without_a_new_low_and_three_times_at_most():
    assert count_drops([0.9, 0.8, 0.8, 0.8], patience=2, most=3) == 1
    assert count_drops([0.9, 0.8, 0.8, 0.79], patience=2, most=3) == 0
    assert count_drops([0.5] * 100, patience=2, most=3) == 3
    now = rates(Plateau(patience=2), PAPER, epoch=4, epochs=90, val_errors=[0.9, 0.8, 0.8, 0.8])
    assert (now.weight, now.bias) == pytest.approx((0.001, 0.001))


@pytest.mark.parametrize(
    ("epoch", "weight", "bias", "conv1", "noise"),
    [
        (0, 1e-2, 2e-2, None, 1),
        (23.99, 1e-2, 2e-2, None, 1),
        (24, 1e-3, 2e-3, None, 1),
        (51, 1e-4, 2e-3, None, 1),
        (66.5, 1e-4, 2e-3, None, 1),
        (67, 1e-4, 2e-3, 0.1, 0),  # conv1 at 1e-5, colour noise off
        (72, 1e-4, 2e-3, 0.0, 0),  # conv1 frozen
        (79, 1e-5, 2e-3, 0.0, 0),
        (89, 1e-5, 2e-3, 0.0, 0),
    ],
)
def test_staged_follows_the_logged_table(epoch, weight, bias, conv1, noise):
    now = rates(Staged(), CODE, epoch=epoch, epochs=90, val_errors=[])
    assert now.weight == pytest.approx(weight)
    assert now.bias == pytest.approx(bias)
    assert now.layers.get("conv1") == conv1
    assert now.color_noise == noise


def test_staged_scales_to_a_shorter_run():
    # 24 of 90 epochs are 4 of 15
    before, after = (rates(Staged(), CODE, epoch=e, epochs=15, val_errors=[]).weight for e in (3.9, 4.0))
    assert (before, after) == pytest.approx((0.01, 0.001))


def test_steps_and_cosine():
    assert rates(Steps(every=30), PAPER, epoch=60, epochs=90, val_errors=[]).weight == pytest.approx(1e-4)
    cosine = Cosine(warmup=2, final=0.1)
    factors = [rates(cosine, PAPER, epoch=e, epochs=12, val_errors=[]).weight / 0.01 for e in (0, 1, 2, 7, 12)]
    assert factors == pytest.approx([0, 0.5, 1, 0.1 + 0.9 * 0.5, 0.1])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Plateau(factor=1.5),
        lambda: Staged(of=50),
        lambda: Steps(every=0),
        lambda: Cosine(final=2),
        lambda: OptimizerConfig(lr=-1),
        lambda: OptimizerConfig(momentum=1),
    ],
)
def test_settings_refuse_what_makes_no_sense(make):
    with pytest.raises(ValueError, match=r"needs|must|is positive|start within"):
        make()
