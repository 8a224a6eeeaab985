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
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text
from numpy.typing import NDArray
from PIL import Image

from alexnet.core.console import say
from alexnet.core.runs import write_bytes
from alexnet.report.lettering import legend, quiet_fonts, write_names

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
DPI = 150
REPORT_WIDTH = 944
"""Pixels that a picture has in a report, which is 62 rem wide with its margins."""
LEAST_TEXT = 9.0
"""Smallest height of a font, in pixels of a report at 100 %."""
PHOTOGRAPHS = "Photographs"
"""The text of a PNG file that says where images lie in it: a dark page turns the rest of the picture dark."""
SHOWN_NUMBERS = 12
"""Most names that cannot be written which the line on the screen explains; the JSON file explains all."""


def save_pictures(folder: Path, pictures: Mapping[str, Figure]) -> dict[str, dict[str, str]]:
    """Figures as PNG files of these names, and what numbers stand for in them, of :func:`drawn`."""
    files, numbered = drawn(pictures)
    for name, content in files.items():
        write_bytes(folder / name, content)
    return numbered


def drawn(pictures: Mapping[str, Figure]) -> tuple[dict[str, bytes], dict[str, dict[str, str]]]:
    """Figures as the bytes of PNG files of these names. Where no font of this machine has the letters of a name, numbers stand
    for it: that is said in a line, and what they stand for is returned by file, ``{"neighbors.png": {"[1]": "猫"}}``."""
    files, numbered = {}, {}
    for file, figure in pictures.items():
        files[file], numbers = as_png(figure)
        if numbers:
            numbered[file] = numbers
    for file, numbers in numbered.items():
        say(
            f"{file}: no font on this machine has the letters of some names, so numbers stand for them: "
            f"{legend(numbers, SHOWN_NUMBERS)}; install a font that has the letters and run this again to see the names"
        )
    return files, numbered


def save_figure(figure: Figure, path: Path) -> dict[str, str]:
    """A matplotlib figure as a PNG file, written atomically; and what numbers stand for in it."""
    content, numbers = as_png(figure)
    write_bytes(path, content)
    return numbers


def as_png(figure: Figure) -> tuple[bytes, dict[str, str]]:
    """A matplotlib figure as PNG; the same figure gives the same bytes on one machine. No text in it is smaller than
    :data:`LEAST_TEXT` in a report, and it says where in it photographs are. What numbers stand for in it, of
    :func:`alexnet.report.lettering.write_names`."""
    buffer = io.BytesIO()
    numbers = write_names(figure)
    figure.set_dpi(DPI)
    least = LEAST_TEXT * 72 / DPI * max(1.0, figure.get_figwidth() * DPI / REPORT_WIDTH)
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_fontsize(max(text.get_fontsize(), least))
    with warnings.catch_warnings(), quiet_fonts():
        warnings.filterwarnings("ignore", "Glyph ", UserWarning)
        figure.draw_without_rendering()  # so that what the axes hold is in its place
        metadata = {"Software": None, PHOTOGRAPHS: _photographs(figure)}
        figure.savefig(buffer, format="png", dpi=DPI, metadata=metadata, facecolor="white")
    return buffer.getvalue(), numbers


def _photographs(figure: Figure) -> str:
    """Where images lie in the picture: ``left,top,right,bottom`` of each, in pixels, the last two excluded."""
    boxes = []
    for image in figure.findobj(AxesImage):
        assert isinstance(image, AxesImage)
        left, bottom, right, top = image.get_window_extent().extents
        height = figure.bbox.height
        boxes.append(",".join(str(round(edge)) for edge in (left, height - top, right, height - bottom)))
    return " ".join(boxes)


def show_at(axes: Axes, pixels_HWC: NDArray[np.uint8], left: float, top: float, width: float, height: float) -> None:
    """An image at a place of its own in axes whose unit is a pixel, and whose rows are counted from the top."""
    axes.imshow(pixels_HWC, extent=(left, left + width, top + height, top), interpolation="nearest", aspect="auto")


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
