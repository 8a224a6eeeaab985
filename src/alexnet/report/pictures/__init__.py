"""Pictures of what a network has learned, from numbers and pixels alone: one module for each probe.

Colors are Okabe and Ito's, which are told apart by the color-blind too; every picture says its units.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from alexnet.core.console import say
from alexnet.core.runs import write_atomic
from alexnet.report.lettering import legend, quiet_fonts, write_names

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
DPI = 150
SHOWN_NUMBERS = 12
"""Of names that cannot be written, in the line on the screen; the JSON file has all."""


def save_pictures(folder: Path, pictures: Mapping[str, Figure]) -> dict[str, dict[str, str]]:
    """Figures as PNG files of these names. Where no font of this machine has the letters of a name, numbers stand for it: that
    is said in a line, and what they stand for is returned by file, ``{"neighbors.png": {"[1]": "猫"}}``."""
    numbered = {file: numbers for file, figure in pictures.items() if (numbers := save_figure(figure, folder / file))}
    for file, numbers in numbered.items():
        say(
            f"{file}: no font on this machine has the letters of some names, so numbers stand for them: "
            f"{legend(numbers, SHOWN_NUMBERS)}; install a font that has the letters and run this again to see the names"
        )
    return numbered


def save_figure(figure: Figure, path: Path) -> dict[str, str]:
    """A matplotlib figure as PNG, atomically; the same figure gives the same bytes on one machine. What numbers stand for in it,
    of :func:`alexnet.report.lettering.write_names`."""
    buffer = io.BytesIO()
    numbers = write_names(figure)
    with warnings.catch_warnings(), quiet_fonts():
        warnings.filterwarnings("ignore", "Glyph ", UserWarning)
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None}, facecolor="white")
    write_atomic(path, lambda file: file.write(buffer.getvalue()))
    return numbers


def save_image(pixels_HWC: NDArray[np.uint8], path: Path) -> None:
    """(H, W), (H, W, 3) or (H, W, 4) uint8 as PNG, atomically."""
    buffer = io.BytesIO()
    Image.fromarray(pixels_HWC).save(buffer, format="PNG", optimize=True)
    write_atomic(path, lambda file: file.write(buffer.getvalue()))


def contact_sheet(
    images: Sequence[NDArray[np.uint8]], columns: int, *, size: int = 64, gap: int = 2, background: int = 255
) -> NDArray[np.uint8]:
    """Pictures (H, W, 3), (H, W, 1) or (H, W) uint8 as thumbnails of ``size`` pixels, row after row: (H, W, 3) uint8."""
    rows = math.ceil(len(images) / columns)
    step = size + gap
    sheet_HWC = np.full((rows * step - gap, columns * step - gap, 3), background, dtype=np.uint8)
    for i, image in enumerate(images):
        picture = Image.fromarray(image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image).convert("RGB")
        top, left = (i // columns) * step, (i % columns) * step
        sheet_HWC[top : top + size, left : left + size] = np.asarray(picture.resize((size, size)))
    return sheet_HWC
