"""The trained weights and the run that the tests of this folder share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from alexnet.core.device import Machine
from alexnet.recipes.run import train
from shared import make_photographs, tiny_training


@pytest.fixture(scope="session")
def trunk(data_root: Path) -> Path:
    """The five trained convolutions of torchvision's ``alexnet``, as torch.save wrote them."""
    path = data_root / "weights" / "alexnet-owt-trunk" / "alexnet_owt_trunk.pth"
    if not path.is_file():
        pytest.skip(f"the trained trunk is not there ({path})")
    return path


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """Three classes, of which one has a name that Markdown and HTML would read otherwise: `<b>green*`, blue, red."""
    photos = make_photographs(tmp_path_factory.mktemp("place") / "photos", train=4)
    for split in ("train", "val"):
        (photos / split / "green").rename(photos / split / "<b>green*")
    return photos


@pytest.fixture(scope="session")
def run(photos) -> Path:
    """A run of one epoch whose data is here, 36 x 36 pixels, with a mean image."""
    root = photos.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALEXNET_CACHE", str(root / "cache"))
        machine = Machine(device=torch.device("cpu"), quiet=True, workers=0)
        train(tiny_training(photos, epochs=1, batch_size=6, views=("1",)), root / "run", machine, report=False)
    return root / "run"
