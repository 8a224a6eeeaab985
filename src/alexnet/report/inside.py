"""What probes left in ``RUN/probes``, for the page: NAME.json with the figures, NAME*.png with the pictures.

The figures shown are those under the key ``summary`` of a probe's JSON, ``{label: number or text}``, else its numbers at the top;
the words for a picture are those under ``pictures``, ``{file name: text}``.
"""

from __future__ import annotations

import base64
import io
import math
import struct
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from alexnet.core.errors import AlexNetError
from alexnet.core.runs import read_file
from alexnet.report import tables
from alexnet.report.files import read_object
from alexnet.report.lettering import legend
from alexnet.report.pictures import PHOTOGRAPHS

PROBES = {
    "kernels": (
        "Kernels, tower by tower",
        "The weights of a layer as pictures (Figure 3 of the paper). Long training on photographs makes edges, gratings and "
        "spots of color of large kernels; small ones look like noise even where a network has learned.",
    ),
    "towers": (
        "How the towers share the work",
        "In 2012 the kernels of one tower came out without color and those of the other with it, in every run (§6.1). This "
        "measures whether they do here.",
    ),
    "maps": (
        "What the channels answer to",
        "The activations of a layer for one image, and the pieces of the data that excite its channels most.",
    ),
    "neighbors": (
        "Nearest images",
        "Held-out images beside the training images nearest to them, by the features of a layer and by pixels (Figure 4, right).",
    ),
    "codes": (
        "Short binary codes",
        "How well images are found again when their features are cut to a few bits, as §6.1 of the paper proposes.",
    ),
    "tsne": (
        "A map of the images",
        "Images placed so that those alike to the network, or by their pixels, lie together. How far apart others are means "
        "nothing.",
    ),
    "saliency": (
        "Where an answer comes from",
        "The pixels that an answer rests on, by several methods, and tests of whether their pictures deserve belief.",
    ),
    "linear": (
        "What each layer tells apart",
        "The errors of a linear classifier on the features of each layer.",
    ),
    "inputs": (
        "Which images are hard",
        "Errors by properties of the image, how far the probabilities can be believed, and what a mirror image or a small shift "
        "changes.",
    ),
}
"""Heading and sentence of each probe, in the order of the page."""

MAX_WIDTH = 1600
MAX_FILE_BYTES = 1 << 26
AS_IT_IS_BYTES = 400_000
"""A picture of fewer bytes, and no wider than ``MAX_WIDTH``, stands in the page unchanged."""
ROOM_BYTES = 6_000_000
"""Bytes that all pictures of probes may have together; in a page they take a third more."""
MAX_FIGURES = 24
MAX_BOXES = 10_000
NO_HEADLINES = ("seed",)
"""Numbers at the top of a probe's JSON that are no finding."""
PROVENANCE = ("protocol", "n", "seed", "model", "data", "environment")


@dataclass(frozen=True)
class Picture:
    source: str
    """The picture as a data URI, without its photographs where it says where they are."""
    text: str
    width: int
    height: int
    photographs: str = ""
    """The photographs as a data URI, transparent elsewhere. They stay as they are on a dark page, where the rest turns dark."""
    is_plain: bool = True
    """Whether the picture does not say where its photographs are, and so stays as it is on a dark page."""
    numbered: str = ""
    """What the numbers in the picture stand for, where names could not be written."""


@dataclass(frozen=True)
class Section:
    name: str
    title: str
    sentence: str
    pictures: list[Picture]
    figures: list[tuple[str, str]]
    provenance: list[tuple[str, str]]


def read_sections(folder: Path, faults: list[str]) -> list[Section]:
    """A section for each probe that left a sound file. What is damaged, or too much for one page, is named in ``faults``."""
    sections, models = [], {}
    room = ROOM_BYTES
    for name, (title, sentence) in PROBES.items():
        document = read_object(folder / f"{name}.json", faults) if (folder / f"{name}.json").exists() else {}
        words = document.get("pictures")
        pictures = []
        for path in sorted(folder.glob(f"{name}*.png"), key=lambda path: path.stem):
            said = words.get(path.name) if isinstance(words, Mapping) else None
            try:
                fitted = _fit(path)
            except (AlexNetError, OSError) as error:
                faults.append(f"probes/{path.name} is not readable: {error}")
                continue
            size = len(fitted.ink) + len(fitted.photographs)
            if size > room:
                faults.append(f"probes/{path.name} is left out: the pictures of the page have {ROOM_BYTES / 1e6:g} MB")
                continue
            room -= size
            picture = Picture(
                _data_uri(fitted.ink, fitted.kind),
                said if isinstance(said, str) else f"{title} ({path.stem})",
                fitted.width,
                fitted.height,
                _data_uri(fitted.photographs, "webp"),
                fitted.is_plain,
                _numbered(document, path.name),
            )
            pictures.append(picture)
        if pictures or document:
            provenance = tables.flatten({key: document[key] for key in PROVENANCE if key in document})
            sections.append(Section(name, title, sentence, pictures, _figures(document), provenance))
            if isinstance(model := document.get("model"), str):
                models[model] = name
    if len(models) > 1:
        faults.append(f"probes: {' and '.join(models.values())} looked at different models; make the older ones again")
    return sections


def _numbered(document: Mapping[str, Any], file: str) -> str:
    of_files = document.get("numbered")
    numbers = of_files.get(file) if isinstance(of_files, Mapping) else None
    return legend({str(k): str(v) for k, v in numbers.items()}) if isinstance(numbers, Mapping) else ""


def _figures(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Label and text of the headline figures."""
    summary = document.get("summary")
    if isinstance(summary, Mapping):
        found = [(str(key), _text(value)) for key, value in summary.items()]
    else:
        numbers = ((key, value) for key, value in document.items() if key not in NO_HEADLINES)
        found = [(str(key), _text(value)) for key, value in numbers if math.isfinite(tables.number(value))]
    return [(label, text) for label, text in found if text][:MAX_FIGURES]


def _text(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}" if math.isfinite(tables.number(value)) else ""
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else ""
    return value if isinstance(value, str) else ""


@dataclass(frozen=True)
class _Fitted:
    ink: bytes
    kind: str
    width: int
    height: int
    photographs: bytes = b""
    is_plain: bool = True


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}" if content else ""


def _fit(path: Path) -> _Fitted:
    """A PNG file for the page. It is decoded here, so that a damaged one is found."""
    content = read_file(path, MAX_FILE_BYTES)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=("PNG",))
            image.load()
    except (
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
        *(OSError, SyntaxError, ValueError, EOFError, MemoryError, struct.error, zlib.error),
    ) as error:
        raise AlexNetError(f"not a sound PNG file ({error})") from error
    boxes = _boxes(image)
    if not boxes and image.width <= MAX_WIDTH and len(content) <= AS_IT_IS_BYTES:
        return _Fitted(content, "png", image.width, image.height, is_plain=boxes is None)
    white = Image.new("RGBA", image.size, "white")
    flat = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    if flat.width > MAX_WIDTH:
        size = (MAX_WIDTH, max(1, round(flat.height * MAX_WIDTH / flat.width)))
        flat = flat.resize(size, Image.Resampling.LANCZOS)
    if not boxes:
        return _Fitted(_webp(flat), "webp", flat.width, flat.height, is_plain=boxes is None)
    photographs = Image.new("RGBA", flat.size)
    for left, top, right, bottom in boxes:
        box = (
            *(left * flat.width // image.width, top * flat.height // image.height),
            *(right * flat.width // image.width, bottom * flat.height // image.height),
        )
        photographs.paste(flat.crop(box), box[:2])
        flat.paste("white", box)
    return _Fitted(_webp(flat), "webp", flat.width, flat.height, _webp(photographs), is_plain=False)


def _webp(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    try:
        image.save(buffer, format="WEBP", quality=85, method=4)
    except (OSError, ValueError, KeyError) as error:  # higher than WebP allows, or a Pillow without it
        raise AlexNetError(f"{image.width} x {image.height} pixels cannot be written as WebP ({error})") from error
    return buffer.getvalue()


def _boxes(image: Image.Image) -> list[tuple[int, int, int, int]] | None:
    """Where a picture says that its photographs are; None if it does not say."""
    said = image.info.get(PHOTOGRAPHS)
    if not isinstance(said, str):
        return None
    boxes = []
    for word in said.split()[:MAX_BOXES]:
        edges = [int(edge) for edge in word.split(",") if edge.isdecimal()]
        if len(edges) == 4:
            left, top, right, bottom = edges
            box = (left, top, min(right, image.width), min(bottom, image.height))
            if box[0] < box[2] and box[1] < box[3]:
                boxes.append(box)
    return boxes
