"""The pictures of the most confident mistakes, small, as a result file: the report reads no images.

Shape suffixes: N images, S rows and columns of a square, C channels.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alexnet.core.runs import write_atomic
from alexnet.evaluation.error_rate import Evaluation, Split

FILE = "mistakes.npz"
THUMBNAIL = 96
"""Rows and columns, in pixels."""


def save_mistakes(results: Path, evaluations: Iterable[Evaluation], split: Split) -> None:
    """``mistakes.npz`` in ``results``: for every image named by the mistakes of ``evaluations``, in the order of ``split`` that
    they were made on, ``pixels`` (N, 96, 96, 3) uint8 and ``paths`` (N,) text. Grey images become three equal channels; an
    image smaller than a thumbnail keeps its pixels as squares."""
    named = {mistake.path for evaluation in evaluations for mistake in evaluation.mistakes}
    found = [(i, path) for i, path in enumerate(split.paths) if path in named]
    index_N = np.array([i for i, _ in found], dtype=np.int64)
    pixels_NSSC = np.zeros((len(found), THUMBNAIL, THUMBNAIL, 3), dtype=np.uint8)
    for n, image_SSC in enumerate(split.read(index_N) if len(found) else ()):
        pixels_NSSC[n] = _thumbnail(image_SSC)
    paths = np.array([path for _, path in found], dtype=np.str_)
    write_atomic(results / FILE, lambda file: np.savez(file, pixels=pixels_NSSC, paths=paths))


def _thumbnail(image_SSC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    image = Image.fromarray(image_SSC[..., 0] if image_SSC.shape[2] == 1 else image_SSC).convert("RGB")
    resample = Image.Resampling.NEAREST if image.width < THUMBNAIL else Image.Resampling.LANCZOS
    return np.asarray(image.resize((THUMBNAIL, THUMBNAIL), resample))
