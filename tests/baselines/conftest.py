"""A small set of drawn pictures: two forms, two textures, two colors."""

from __future__ import annotations

from pathlib import Path

import pytest

from alexnet.baselines.trial import Trial, trial_on
from alexnet.data.builtin import VAL_NUMBERS, draw_picture
from alexnet.data.packed import PackedSet
from alexnet.data.prepare import prepare

CLASSES = ("color-blue", "color-red", "form-disk", "form-star", "texture-dots", "texture-stripes-down")


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> PackedSet:
    """20 + 10 pictures of each class, 48 x 48."""
    folder = tmp_path_factory.mktemp("drawn")
    for split, num, first in (("train", 20, 0), ("val", 10, VAL_NUMBERS)):
        for name in CLASSES:
            (folder / "source" / split / name).mkdir(parents=True)
            for i in range(num):
                picture = draw_picture(name, first + i)
                picture.thumbnail((100, 100))
                picture.save(folder / "source" / split / name / f"{i:03d}.png")
    return prepare(str(folder / "source"), folder / "packed", size=48, workers=0)


@pytest.fixture(scope="session")
def trial(drawn: PackedSet) -> Trial:
    return trial_on(drawn, quiet=True)


@pytest.fixture(scope="session")
def packed_folder(drawn: PackedSet) -> Path:
    return drawn.path
