"""A laboratory for the scale ``smoke`` on few images, so that an experiment runs in seconds and nothing is drawn first."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from alexnet.claims.laboratory import Laboratory
from alexnet.claims.scales import find_scale
from alexnet.core.device import Machine, choose_device
from alexnet.data.packed import PackedSet
from alexnet.data.prepare import prepare


@pytest.fixture(scope="session")
def few_images(tmp_path_factory) -> PackedSet:
    """In place of ``shapes``: 24 classes of 20 training and 2 validation images, noise of 28 x 28 pixels."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for split, num in (("train", 20), ("val", 2)):
        for label in range(24):
            class_folder = folder / "set" / split / f"class-{label:02d}"
            class_folder.mkdir(parents=True)
            for i, pixels in enumerate(random.integers(0, 256, (num, 28, 28, 3), dtype=np.uint8)):
                Image.fromarray(pixels).save(class_folder / f"{i}.png", compress_level=0)
    return prepare(folder / "set", folder / "packed", size=28, workers=1)


@pytest.fixture(scope="module")
def lab(few_images, tmp_path_factory) -> Laboratory:
    """Shared by the tests of a file, so that arms of several experiments are trained once."""
    machine = Machine(device=choose_device("cpu"), quiet=True)
    data = find_scale("smoke").images_of(few_images)
    return Laboratory("smoke", tmp_path_factory.mktemp("claims"), machine, lambda _config: data)
