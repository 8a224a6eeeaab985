"""Small image folders to prepare and check, on a file system that is fast to sync."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

MakeFolder = Callable[..., Path]


def picture(seed: int, width: int = 20, height: int = 16) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, fmt: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


@pytest.fixture
def tmp_path(in_memory: Path) -> Path:
    return in_memory


@pytest.fixture
def image_folder_of(tmp_path: Path) -> MakeFolder:
    """``make({"train/cat": 3, ...})``: a folder with so many different lossless pictures in each of these folders."""

    def make(counts: dict[str, int], name: str = "source") -> Path:
        seed = 0
        for folder, count in counts.items():
            (tmp_path / name / folder).mkdir(parents=True)
            for i in range(count):
                seed += 1
                (tmp_path / name / folder / f"{i:03d}.png").write_bytes(encoded(picture(seed), "PNG"))
        return tmp_path / name

    return make
