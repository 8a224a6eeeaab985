"""What a report says in words and numbers, read from the files of a run. Files are checked as they are read: whoever
wrote them, a report is made from what is sound and names the rest."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import stat
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet.core.errors import AlexNetError, printable
from alexnet.core.intervals import TOP5_FROM, in_words
from alexnet.core.runs import read_arrays, read_file, read_json

# Shape suffixes: N images, S rows and columns of a square, C channels.

Row = Mapping[str, Any]

MAX_DEPTH = 8
MAX_ITEMS = 64
"""Most items of a setting that are shown."""
MAX_NUMBER = 1e30
MAX_THUMBNAIL_BYTES = 1 << 26
MAX_LINE_BYTES = 1 << 20
"""Longest line of a log that is taken for a row."""
MAX_SUMMARY_BYTES = 1 << 26

STEP_COLUMNS = ("step", "loss", "lr", "images_per_second")


@dataclass
class Log:
    """The rows of ``log.jsonl`` by kind."""

    steps: dict[str, array[float]] = field(default_factory=lambda: {name: array("d") for name in STEP_COLUMNS})
    """Columns of the step rows, of which a long run has a million; NaN where a field is absent or no number."""
    epochs: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    head: Row | None = None
    """The held-out errors of a last layer that was fitted, before anything was trained."""
    dropped: int = 0
    """Lines that are not JSON objects, such as one cut by a kill."""


def read_log(path: Path) -> Log:
    """Every sound line of a log, in order; a line that is cut or damaged is counted. No file: an empty log. Raises
    :class:`OSError` for a file that cannot be read, :class:`AlexNetError` for a pipe or a device, which is not opened."""
    log = Log()
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise AlexNetError("not a regular file")
        with open(path, "rb") as file:
            while line := file.readline(MAX_LINE_BYTES):
                _add_line(log, line)
    except FileNotFoundError:
        pass
    return log


def _add_line(log: Log, line: bytes) -> None:
    try:
        row = json.loads(line)
        kind = row["event"]
    except (ValueError, TypeError, LookupError, RecursionError):
        log.dropped += bool(line.strip())
        return
    if kind == "step":
        for name, values in log.steps.items():
            values.append(number(row.get(name)))
    elif kind == "epoch":
        log.epochs.append(row)
    elif kind == "head":
        log.head = row
    elif kind in ("note", "change"):
        log.notes.append(str(row.get("message", "")))


def read_summary(path: Path) -> list[Row]:
    """The epoch rows of ``summary.csv``, which repeats those of the log. None if it cannot be read."""
    try:
        text = io.StringIO(read_file(path, MAX_SUMMARY_BYTES).decode(), newline="")
        return [{str(key): _cell(cell) for key, cell in row.items()} for row in csv.DictReader(text)]
    except (AlexNetError, ValueError, csv.Error):
        return []


def _cell(text: object) -> object:
    for kind in (int, float):
        try:
            return kind(str(text))
        except ValueError:
            continue
    return text


def number(value: object) -> float:
    """``value``, or NaN if it is not a number, or none of a size that can be drawn."""
    sound = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER
    return float(value) if sound else math.nan  # type: ignore[arg-type]


@dataclass(frozen=True)
class ClassRow:
    """One class of a result."""

    index: int
    name: str
    n: int
    top1_errors: int
    top5_errors: int
    taken_for: tuple[tuple[str, int], ...]
    """Names of other classes its images were taken for, and how often; the most frequent first."""

    @property
    def top1_error(self) -> float:
        return self.top1_errors / self.n if self.n else 0.0


@dataclass(frozen=True)
class MistakeRow:
    path: str
    label: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class StoredEvaluation:
    """A sound ``results/*.json``."""

    n: int
    top1_errors: int
    top5_errors: int
    views: str
    loss_nats: float
    protocol: Mapping[str, Any]
    environment: Mapping[str, Any]
    classes: tuple[ClassRow, ...]
    confusion: tuple[tuple[int, int, int], ...]
    mistakes: tuple[MistakeRow, ...]

    @property
    def balanced_top1_error(self) -> float:
        """The mean of the top-1 errors of the classes that have images."""
        rates = [row.top1_error for row in self.classes if row.n]
        return sum(rates) / len(rates) if rates else math.nan

    @property
    def chance_loss(self) -> float:
        """ln K: the loss of answering all classes alike."""
        return math.log(len(self.classes)) if self.classes else math.nan

    @property
    def has_top5(self) -> bool:
        """Whether the best five answers leave out a class, so that a top-5 error says anything."""
        return not 0 < len(self.classes) < TOP5_FROM

    @property
    def interval(self) -> str:
        """Wilson's 95 % interval of the top-1 error, in words."""
        return in_words(self.top1_errors, self.n)

    @property
    def views_in_words(self) -> str:
        if self.views in ("1", "10"):
            return {"1": "center view", "10": "ten views"}[self.views]
        return f"views {self.views}"


def read_result(path: Path) -> StoredEvaluation:
    """A result file. :class:`AlexNetError` if it is missing or anything in it is not what it should be."""
    value = read_json(path)
    try:
        n, top1_errors, top5_errors = (_count(value[key]) for key in ("n", "top1_errors", "top5_errors"))
        if n == 0 or not top5_errors <= top1_errors <= n:
            raise ValueError(f"n {n}, top1_errors {top1_errors}, top5_errors {top5_errors} contradict each other")
        names = [str(row["name"]) for row in value.get("classes", ())]
        confusion = tuple((_count(i, names), _count(j, names), _count(num)) for i, j, num in value.get("confusion", ()))
        return StoredEvaluation(
            n=n,
            top1_errors=top1_errors,
            top5_errors=top5_errors,
            views=str(value.get("views", "?")),
            loss_nats=float(value.get("loss_nats", math.nan)),
            protocol=dict(value.get("protocol", {})),
            environment=dict(value.get("environment", {})),
            classes=_class_rows(value.get("classes", ()), names, confusion),
            confusion=confusion,
            mistakes=tuple(
                MistakeRow(
                    str(m["path"]),
                    names[_count(m["label"], names)],
                    names[_count(m["predicted"], names)],
                    float(m["probability"]),
                )
                for m in value.get("mistakes", ())
            ),
        )
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise AlexNetError(f"{printable(path)}: not a result ({printable(error)})") from error


def _class_rows(
    rows: Sequence[Row], names: Sequence[str], confusion: Sequence[tuple[int, int, int]]
) -> tuple[ClassRow, ...]:
    taken_for: list[list[tuple[str, int]]] = [[] for _ in names]
    for label, predicted, num in sorted(confusion, key=lambda entry: -entry[2]):
        if label != predicted:
            taken_for[label].append((names[predicted], num))
    return tuple(
        ClassRow(
            i,
            names[i],
            _count(row["n"]),
            _count(row["top1_errors"]),
            _count(row["top5_errors"]),
            tuple(taken_for[i][:3]),
        )
        for i, row in enumerate(rows)
    )


def _count(value: object, names: Sequence[str] | None = None) -> int:
    """``value`` if it is a count or, with ``names``, the number of one of them."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0 and (names is None or value < len(names)):
        return value
    raise ValueError(f"{value!r} is not a {'count' if names is None else 'class number'}")


def read_thumbnails(path: Path) -> dict[str, NDArray[np.uint8]]:
    """The pictures in a ``mistakes.npz``, (S, S, 3) uint8, by the name of the image; none if there is no such file.
    :class:`AlexNetError` if it is damaged or not what it should be."""
    if not path.exists():
        return {}
    if path.stat().st_size > MAX_THUMBNAIL_BYTES:
        raise AlexNetError(f"not a sound file of thumbnails (larger than {MAX_THUMBNAIL_BYTES >> 20} MiB)")
    arrays = read_arrays(path, what="a sound file of thumbnails")
    if not {"pixels", "paths"} <= arrays.keys():
        raise AlexNetError("not a sound file of thumbnails (no pixels, or no paths)")
    pixels_NSSC, paths = arrays["pixels"], arrays["paths"]
    fault = ""
    if (
        pixels_NSSC.dtype != np.uint8
        or pixels_NSSC.ndim != 4
        or pixels_NSSC.shape[3] != 3
        or 0 in pixels_NSSC.shape[1:]
    ):
        fault = f"pixels are {pixels_NSSC.dtype} {pixels_NSSC.shape}, not uint8 (N, S, S, 3)"
    elif paths.dtype.kind != "U" or paths.shape != pixels_NSSC.shape[:1]:
        fault = f"{paths.dtype} {paths.shape} names of {len(pixels_NSSC)} pictures"
    if fault:
        raise AlexNetError(f"not a sound file of thumbnails ({printable(fault)})")
    try:
        return dict(zip(paths.tolist(), pixels_NSSC, strict=True))
    except ValueError as error:  # code points that are none
        raise AlexNetError(f"not a sound file of thumbnails ({printable(error)})") from error


def leaves(value: Any, prefix: str = "", depth: int = 0) -> list[tuple[str, Any]]:
    """Nested settings as (dotted name, value) pairs."""
    if isinstance(value, Mapping) and depth < MAX_DEPTH:
        prefix = prefix + "." if prefix else ""
        return [pair for key, item in value.items() for pair in leaves(item, f"{prefix}{key}", depth + 1)]
    return [(prefix, value)]


def flatten(value: Any) -> list[tuple[str, str]]:
    """Nested settings as (dotted name, text) pairs."""
    return [(name, plain(item)) for name, item in leaves(value)]


def differing(values: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Dotted name, and the text for each of ``values``, of the settings in which they are not all equal; a dash where one does
    not have it."""
    flat = [dict(leaves(value)) for value in values]
    names = dict.fromkeys(name for fields in flat for name in fields)
    return [
        (name, [_brief(plain(fields[name])) if name in fields else "–" for fields in flat])
        for name in names
        if any((name in a) != (name in b) or not _same(a.get(name), b.get(name)) for a, b in pairwise(flat))
    ]


def _brief(text: str) -> str:
    """A fingerprint shortened to its first digits; other text as it is."""
    return text[:12] + "…" if re.fullmatch("[0-9a-f]{32,}", text) else text


def _same(a: object, b: object) -> bool:
    """Whether two values are equal as written: 1 differs from true, and NaN equals NaN."""
    try:
        return repr(a) == repr(b)
    except RecursionError:  # nested as deeply as no settings are
        return False


def plain(value: object, depth: int = 0) -> str:
    """A setting as a person writes it."""
    if isinstance(value, list | Mapping):
        if depth == MAX_DEPTH:
            return "…"
        shown = ", ".join(plain(item, depth + 1) for item in list(value)[:MAX_ITEMS])
        return f"{shown}, … ({len(value):,})" if len(value) > MAX_ITEMS else shown or "none"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def percent(part: object, whole: float = 1.0) -> str:
    """``12.3 %``, with a second digit after the point where ten thousand images carry it; a dash if it is no number."""
    share = number(part) / whole if whole else math.nan
    return f"{100 * share:.{2 if whole >= 10_000 else 1}f} %" if math.isfinite(share) else "–"


def duration(seconds: object) -> str:
    """``3 h 12 min``, ``4 min 10 s``, ``58 s``; a dash if it is not a number."""
    if not math.isfinite(number(seconds)):
        return "–"
    minutes, rest = divmod(round(number(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def figure(value: object, digits: int = 3) -> str:
    """A number with so many digits after the point; a dash if it is not one."""
    return f"{number(value):.{digits}f}" if math.isfinite(number(value)) else "–"


def count(value: object) -> str:
    """``1,234``, or a dash if it is not a count."""
    return f"{value:,}" if isinstance(value, int) else "–"
