"""TensorBoard sees each step once, also after a kill."""

from __future__ import annotations

import warnings

import pytest

from alexnet.training.tensorboard import scalar_writer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def test_steps_written_again_after_a_resume_replace_the_lost_ones(tmp_path):
    with scalar_writer(tmp_path, first_step=0) as write:
        for step in (1, 2, 3):
            write(step, {"train/loss": float(step)})
    with scalar_writer(tmp_path, first_step=1) as write:  # resumed from a checkpoint at step 1
        for step in (2, 3):
            write(step, {"train/loss": float(10 * step)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        events = event_accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 1.0), (2, 20.0), (3, 30.0)]
