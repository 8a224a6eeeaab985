"""Checkpoints: all or nothing, verified, never pickled.

``checkpoint/step-N/`` holds safetensors files, ``state.json``, and ``manifest.json`` with size and SHA-256 of each. It is
written under a temporary name, fsynced and renamed; then the pointer files ``last`` and ``best`` are replaced. At no
moment is the last good checkpoint gone.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from alexnet.core.errors import AlexNetError, printable
from alexnet.core.runs import fsync_folder, read_json, sha256_file, write_atomic, write_json

VERSION = 1
KEEP = 2
"""Newest checkpoints that are kept, besides the best."""


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: named groups of tensors, and a JSON state."""

    step: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], *, best: bool
) -> None:
    """Write ``folder/step-N``, point ``last`` (and ``best``) at it, delete what is neither among the two newest nor the
    best. Raises :class:`AlexNetError` naming the first non-finite tensor, and OSError if the disk refuses; what was
    there before stays in both cases."""
    for group, named in tensors.items():
        for name, tensor in named.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise AlexNetError(f"step {step}: {group} {name} holds a non-finite number; not saved")
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob("step-*.tmp"):  # of a killed process; one RUN has one trainer
        shutil.rmtree(leftover)
    final, temporary = folder / f"step-{step}", folder / f"step-{step}.tmp"
    temporary.mkdir()
    try:
        for group, named in tensors.items():
            save_tensors(named, temporary / f"{group}.safetensors")
        write_json(temporary / "state.json", dict(state))
        files = {p.name: {"bytes": p.stat().st_size, "sha256": sha256_file(p)} for p in sorted(temporary.iterdir())}
        write_json(temporary / "manifest.json", {"version": VERSION, "step": step, "files": files})
        fsync_folder(temporary)
        if final.exists():  # left unsound by an earlier run that then fell back behind it
            shutil.rmtree(final)
        temporary.rename(final)
        fsync_folder(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _point(folder / "last", final)
    if best:
        _point(folder / "best", final)
    _delete_old(folder)


def save_tensors(named: Mapping[str, Tensor], path: Path) -> None:
    """A safetensors file, fsynced. safetensors reports a full disk as its own error; here it is an OSError."""
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in named.items()}, path)
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    except SafetensorError as error:
        raise OSError(f"{path}: {error}") from error


def load_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest sound checkpoint under ``folder``, and a line about each newer one that was passed over. ``None`` if
    there is none at all. Raises :class:`AlexNetError` if there are some and none is sound."""
    steps = sorted(_steps(folder), reverse=True)
    pointed = _pointed_step(folder / "last")
    if pointed is None and steps:  # killed between the rename and the first pointer: the folder is complete
        pointed = steps[0]
    faults: list[str] = []
    for step in [s for s in steps if pointed is None or s <= pointed]:
        try:
            return _load(folder / f"step-{step}", step), faults
        except (AlexNetError, OSError, SafetensorError) as error:
            faults.append(f"checkpoint step-{step} is damaged and passed over: {printable(error)}")
    if faults:
        raise AlexNetError(f"{printable(folder)}: no sound checkpoint ({faults[0]}); start again with --fresh")
    return None, []


def _load(folder: Path, step: int) -> Checkpoint:
    manifest = read_json(folder / "manifest.json")
    if not isinstance(manifest, dict) or manifest.get("version") != VERSION or manifest.get("step") != step:
        raise AlexNetError("manifest.json is not of this version and step")
    for name, file in manifest["files"].items():
        path = folder / Path(name).name
        if path.stat().st_size != file["bytes"] or sha256_file(path) != file["sha256"]:
            raise AlexNetError(f"{name} does not match its SHA-256")
    tensors = {path.stem: load_file(path) for path in sorted(folder.glob("*.safetensors"))}
    return Checkpoint(step, tensors, read_json(folder / "state.json"))


def _point(pointer: Path, target: Path) -> None:
    write_atomic(pointer, lambda file: file.write(f"{target.name}\n".encode()))


def _steps(folder: Path) -> Iterable[int]:
    matches = [re.fullmatch(r"step-(\d+)", p.name) for p in folder.glob("step-*") if p.is_dir()]
    return [int(m[1]) for m in matches if m]


def _pointed_step(pointer: Path) -> int | None:
    try:
        match = re.fullmatch(r"step-(\d+)\n", pointer.read_text())
    except (OSError, UnicodeDecodeError):
        return None
    return int(match[1]) if match else None


def _delete_old(folder: Path) -> None:
    last, best = _pointed_step(folder / "last"), _pointed_step(folder / "best")
    newest = sorted((s for s in _steps(folder) if last is None or s <= last), reverse=True)[:KEEP]
    for step in _steps(folder):
        if step not in newest and step != best:
            shutil.rmtree(folder / f"step-{step}")
