"""What probes left in ``RUN/probes``, for the page: NAME.json with the figures, a ``title`` and a ``sentence``, and the pictures
that it names under ``files``, or NAME*.png.

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

MAX_WIDTH = 1600
MAX_FILE_BYTES = 1 << 26
AS_IT_IS_BYTES = 400_000
"""A picture of fewer bytes, and no wider than ``MAX_WIDTH``, stands in the page unchanged."""
ROOM_BYTES = 6_000_000
"""Bytes that all pictures of probes may have together; in a page they take a third more."""
MAX_FIGURES = 24
MAX_BOXES = 10_000
NO_HEADLINES = ("seed", "place")
"""Numbers at the top of a probe's JSON that are no finding."""
PROVENANCE = ("protocol", "settings", "n", "seed", "network", "model", "data", "environment")


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
    documents = {path.stem: read_object(path, faults) for path in sorted(folder.glob("*.json"))}
    for name, document in sorted(documents.items(), key=lambda entry: _place(entry[1])):
        title, sentence = (said if isinstance(said := document.get(key), str) else "" for key in ("title", "sentence"))
        title = title or name
        words = document.get("pictures")
        pictures = []
        for path in _pictures(folder, name, document):
            said = words.get(path.name) if isinstance(words, Mapping) else None
            try:
                fitted = _fit(path)
            except (AlexNetError, OSError) as error:
                faults.append(f"probes/{path.name} is not readable: {error}")
                continue
            size = len(fitted.ink) + len(fitted.photographs)
            if size > room:
                faults.append(
                    f"probes/{path.name} is left out: all pictures of this page together may take {ROOM_BYTES / 1e6:g} MB"
                )
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
        faults.append(
            f"the probes {' and '.join(models.values())} looked at different models; run the older ones again"
        )
    return sections


def _place(document: Mapping[str, Any]) -> float:
    """Where a section stands on the page: in the order of the kinds, or at the end."""
    place = tables.number(document.get("place"))
    return place if math.isfinite(place) else math.inf


def _pictures(folder: Path, name: str, document: Mapping[str, Any]) -> list[Path]:
    """The pictures that a document names; those that begin with its name where it names none, as after earlier versions."""
    files = document.get("files")
    if not isinstance(files, list):
        return sorted(folder.glob(f"{name}*.png"), key=lambda path: path.stem)
    names = [file for file in files if isinstance(file, str) and Path(file).name == file and file.endswith(".png")]
    return [folder / file for file in names]


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
