"""What a measurement found: its figures, its words and its pictures; and the one kind of document that they are published as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from alexnet.core.config import to_json
from alexnet.core.errors import AlexNetError
from alexnet.core.runs import MAX_SETTINGS_BYTES, environment, read_json, write_atomic, write_bytes, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Finding:
    """What was found, ready to be read by a program, printed, and drawn."""

    subject: Mapping[str, Any]
    """What it was found on: ``network``, ``model`` and ``data`` (:meth:`~alexnet.evaluation.subject.Subject.record`)."""
    n: int | Mapping[str, int]
    """How many images, kernels or channels it rests on."""
    summary: Mapping[str, float | int | str]
    """The headline figures, by what they are called on the page of a run."""
    body: Mapping[str, Any]
    """All figures, as JSON."""
    protocol: Mapping[str, Any]
    """How it was measured."""
    lines: Sequence[str] = ()
    """What is said on the screen."""
    pictures: Mapping[str, Figure] = field(default_factory=dict)
    """Figures by the names of the PNG files that they become."""
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Arrays by the names of the NumPy files that they become."""

    def document(self, settings: Any) -> dict[str, Any]:
        """The finding as JSON, with the settings that it was asked for with, the machine and the versions."""
        return {
            **self.subject,
            "settings": to_json(settings),
            "n": self.n,
            "summary": self.summary,
            **self.body,
            "protocol": self.protocol,
            "environment": environment(),
        }


def publish(finding: Finding, document: dict[str, Any], folder: Path, name: str) -> dict[str, Any]:
    """Write ``NAME.json`` and the pictures and arrays of a finding into ``folder``, and delete those of an earlier one.

    Everything is drawn before anything is deleted. The figures of one finding never lie beside the pictures of another, also
    where the program is killed. Returns the document with the names of the ``files``, and with what numbers in pictures stand
    for, ``numbered``, where no font has the letters of a name."""
    from alexnet.report.pictures import drawn

    pictures, numbered = drawn(finding.pictures)
    document = document | {"numbered": numbered, "files": [*pictures, *finding.arrays]}
    folder.mkdir(parents=True, exist_ok=True)
    for earlier in _earlier_files(folder / f"{name}.json"):
        earlier.unlink(missing_ok=True)
    write_json(folder / f"{name}.json", document)
    for file, content in pictures.items():
        write_bytes(folder / file, content)
    for file, array in finding.arrays.items():
        write_atomic(folder / file, partial(_save, array))
    return document


def _save(array: NDArray[Any], file: BinaryIO) -> None:
    np.save(file, array, allow_pickle=False)


def _earlier_files(path: Path) -> list[Path]:
    """The files of the finding that was published before, and its document last."""
    try:
        earlier = read_json(path, MAX_SETTINGS_BYTES)
    except AlexNetError:
        return [path] if path.is_file() else []
    files = earlier.get("files") if isinstance(earlier, dict) else None
    names = [name for name in files if isinstance(name, str)] if isinstance(files, list) else []
    return [*(path.with_name(name) for name in names if Path(name).name == name and name.startswith(path.stem)), path]
