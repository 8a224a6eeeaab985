"""The trained weights that the tests of this folder share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def trunk(data_root: Path) -> Path:
    """The five trained convolutions of torchvision's ``alexnet``, as torch.save wrote them."""
    path = data_root / "weights" / "alexnet-owt-trunk" / "alexnet_owt_trunk.pth"
    if not path.is_file():
        pytest.skip(f"the trained trunk is not there ({path})")
    return path
