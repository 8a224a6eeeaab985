"""Scalars for TensorBoard, where it is installed; the record of a run is log.jsonl."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path


def scalar_writer(folder: Path, first_step: int) -> Callable[[int, Mapping[str, float]], None]:
    """A function that writes named scalars at a step, or does nothing if TensorBoard is missing. Events of steps after
    ``first_step``, left by a killed process, are hidden."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return lambda step, scalars: None
    writer = SummaryWriter(str(folder), purge_step=first_step + 1)

    def write(step: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            writer.add_scalar(name, value, step)

    return write
