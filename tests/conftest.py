"""Shared fixtures: the folder of real data (tests that need it skip where it is absent), and one thread for torch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # small tensors gain nothing from two, and lose much when something else runs on the machine


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data sets: ``$ALEXNET_DATA``, or ``../shared/data`` beside the repository."""
    root = Path(os.environ.get("ALEXNET_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not (root / "README.md").is_file():
        pytest.skip(f"real data not found: set ALEXNET_DATA (looked in {root})")
    return root
