"""Scalars for TensorBoard, where it is installed; the record of a run is log.jsonl."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

Write = Callable[[int, Mapping[str, float]], None]


@contextmanager
def scalar_writer(folder: Path, first_step: int) -> Iterator[Write]:
    """Gives a function that writes named scalars at a step, or does nothing if TensorBoard is missing, or cannot take the
    name of the folder, which need not be UTF-8. Events of steps after ``first_step``, left by a killed process, are hidden."""
    try:
        str(folder).encode()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torch.utils.tensorboard import SummaryWriter
    except (ImportError, UnicodeEncodeError):
        yield lambda step, scalars: None
        return
    print_fault = threading.excepthook

    def excepthook(fault: threading.ExceptHookArgs) -> None:
        if (
            type(fault.thread).__name__ != "_AsyncWriterThread"
        ):  # its faults are raised again by the next write, or close()
            print_fault(fault)

    threading.excepthook = excepthook
    writer = SummaryWriter(str(folder), purge_step=first_step + 1)

    def write(step: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            writer.add_scalar(name, value, step)

    try:
        yield write
    finally:
        try:
            writer.close()
        finally:
            threading.excepthook = print_fault
