"""Checkpoints as they are read: which there are, and whether one is what was written (alexnet.training.checkpoint writes them).

Nothing here changes a file: a run may be training while it is asked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from safetensors.torch import load
from torch import Tensor

from alexnet.core.config import from_json, not_finite
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


@dataclass
class Progress:
    """How far a run has come. Everything here is in state.json of its checkpoints."""

    step: int = 0
    epoch: int = 0
    """Finished epochs."""
    position: int = 0
    """Images of the current epoch already used."""
    loss_sum: float = 0.0
    """Sum of the loss over these images."""
    top1_errors: int = 0
    """Errors among these images as the network saw them: augmented, with dropout."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One row for each finished epoch."""
    best: float = math.inf
    """Lowest validation error, by which the epochs are judged."""
    log_bytes: int = 0
    """Length of log.jsonl."""
    seconds: float = 0.0
    """Seconds spent training, over all starts of the run."""
    changes: int = 0
    """Changes of the settings that log.jsonl tells of."""
    watched: int = 0
    """Number of epochs before the last change; nothing is concluded from them."""
    warned: list[str] = field(default_factory=list)
    """Kinds of trouble that were reported since then."""
    start: dict[str, Any] | None = None
    """The signal in the last layer of the untrained network."""

    def __post_init__(self) -> None:
        for name in (
            "step",
            "epoch",
            "position",
            "loss_sum",
            "top1_errors",
            "log_bytes",
            "seconds",
            "changes",
            "watched",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is negative")
        if self.top1_errors > self.position:
            raise ValueError("there are more top1_errors than images before position")
        if self.watched > self.epoch:
            raise ValueError("watched is beyond epoch")
        if len(self.history) != self.epoch:
            raise ValueError(f"history has {len(self.history):,} rows, which is not the number in epoch")
        for i, row in enumerate(self.history):
            if not _is_epoch(row) or row["epoch"] != i + 1:
                raise ValueError(f"history[{i}] is not the row of epoch {i + 1}")

    def to_json(self) -> dict[str, Any]:
        """What :func:`progress_of` reads; JSON has no infinity."""
        return asdict(self) | {"best": self.best if math.isfinite(self.best) else None}


EPOCH_COUNTS = ("epoch", "step", "val_n", "val_top1_errors", "val_top5_errors")
EPOCH_NUMBERS = ("train_loss", "train_top1_error", "val_top1_error", "val_top5_error", "val_loss", "lr")
"""What the row of an epoch holds, besides what is only shown."""


def _is_epoch(row: Mapping[str, Any]) -> bool:
    counts: list[Any] = [row.get(name) for name in EPOCH_COUNTS]
    numbers: list[Any] = [row.get(name) for name in EPOCH_NUMBERS] + [row.get("val_balanced_top1_error", 0)]
    return (
        all(type(count) is int and count >= 0 for count in counts)
        and all(type(number) in (int, float) and number >= 0 for number in numbers)
        and row["val_n"] >= max(1, row["val_top1_errors"])
    )


def progress_of(checkpoint: Checkpoint) -> tuple[Progress, dict[str, str | int]]:
    """How far the run had come, and what makes going on exact. Raises :class:`AlexNetError` naming the field if state.json, whose
    seal may fit, does not hold what this program writes."""
    try:
        if not isinstance(checkpoint.state, dict):
            raise AlexNetError("not an object of fields")
        state = dict(checkpoint.state)
        if missing := [name for name in (*(f.name for f in fields(Progress)), CONDITIONS) if name not in state]:
            raise AlexNetError(f"{missing[0]} is missing")
        if name := not_finite(state):
            raise AlexNetError(f"{name} is not finite")
        conditions = from_json(_Conditions, {"values": state.pop(CONDITIONS)}, CONDITIONS).values
        if state["best"] is None:
            state["best"] = math.inf
        progress = from_json(Progress, state, "state")
        if progress.step != checkpoint.step:
            raise AlexNetError("step is not that of the checkpoint")
    except AlexNetError as error:
        raise AlexNetError(f"state.json: {error}") from error
    return progress, conditions


CONDITIONS = "reproducible_with"
"""Field of state.json: what bit-for-bit equality of two runs depends on."""
MAX_CONDITION = 200
"""Characters of a value in it: both values are shown where it has changed."""


@dataclass(frozen=True)
class _Conditions:
    values: dict[str, str | int]

    def __post_init__(self) -> None:
        if any(len(str(value)) > MAX_CONDITION for value in self.values.values()):
            raise ValueError(f"a value is longer than {MAX_CONDITION} characters")


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
