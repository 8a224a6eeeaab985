"""Checkpoints as they are read: which there are, and whether one is what was written (alexnet.training.checkpoint writes them).

Nothing here changes a file: a run may be training while it is asked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load
from torch import Tensor

from alexnet.core.errors import AlexNetError
from alexnet.core.runs import MAX_SETTINGS_BYTES, parse_json
from alexnet.core.sealed import Seal

SEAL = Seal(
    what="a checkpoint",
    head="manifest.json",
    formats=(None,),
    version=1,
    max_bytes=MAX_SETTINGS_BYTES,
    error=AlexNetError,
)


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: named groups of tensors, and a JSON state."""

    step: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def read_checkpoint(folder: Path, group: str | None = None) -> Checkpoint:
    """A checkpoint, or only one ``group`` of its tensors. Each file is read once, and what is used is what was compared.
    Raises :class:`AlexNetError`, OSError or SafetensorError for one that is damaged."""
    step = -age(folder)[0]
    manifest = SEAL.read(folder)
    if manifest.get("step") != step:
        raise AlexNetError("manifest.json is of another step")
    if odd := manifest["files"].keys() ^ ({path.name for path in folder.iterdir() if path.is_file()} - {SEAL.head}):
        raise AlexNetError(f"manifest.json does not list the files that are there ({', '.join(sorted(odd)[:3])})")
    tensors: dict[str, dict[str, Tensor]] = {}
    state: Any = None
    for name in sorted(manifest["files"]):
        path = folder / name
        if group not in (None, path.stem) and path.suffix == ".safetensors":
            continue
        content = SEAL.content(folder, manifest, name)
        if path.suffix == ".safetensors":
            tensors[path.stem] = load(content)
        elif name == "state.json":
            state = parse_json(content, path)
    if state is None:
        raise AlexNetError("state.json is missing")
    return Checkpoint(step, tensors, state)


def newest_first(folder: Path) -> list[Path]:
    """The checkpoints in a folder up to the one that is pointed at as the last: what is newer was never pointed at, because
    the process was killed in between. Raises OSError for a folder that cannot be listed."""
    found = sorted(checkpoints_in(folder), key=age)
    last = folder / pointed(folder / "last")
    return found[found.index(last) :] if last in found else found


def is_checkpoint(path: Path) -> bool:
    return _NAME.fullmatch(path.name) is not None and path.is_dir()


_NAME = re.compile(r"step-(\d+)(?:\.(\d+))?")


def checkpoints_in(folder: Path) -> list[Path]:
    """Raises OSError for a folder that cannot be listed: that is not one without checkpoints."""
    try:
        return [path for path in folder.iterdir() if is_checkpoint(path)]
    except FileNotFoundError:
        return []


def age(path: Path) -> tuple[int, int]:
    """Sort key that puts checkpoints in order from the newest to the oldest."""
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return -int(match[1]), -int(match[2] or 0)


def pointed(pointer: Path) -> str:
    """The name in a pointer file; empty, or no checkpoint's name, if the file is missing or damaged."""
    try:
        return pointer.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
