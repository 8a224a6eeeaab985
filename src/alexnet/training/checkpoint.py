"""Checkpoints: all or nothing, verified, never pickled.

``checkpoint/step-N/`` holds safetensors files, ``state.json``, and ``manifest.json`` with size and SHA-256 of each. It is
written under a temporary name, fsynced and renamed; then the pointer files ``last`` and ``best`` are replaced. A second
checkpoint of the same step (an epoch stopped before its validation, then validated) is ``step-N.1``. At no moment is the
last good checkpoint gone.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from alexnet.core.errors import AlexNetError, NotFiniteError, printable
from alexnet.core.runs import (
    MAX_SETTINGS_BYTES,
    fsync_folder,
    parse_json,
    read_file,
    read_json,
    sha256_file,
    write_atomic,
    write_json,
)

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
    best. Raises :class:`NotFiniteError` naming the first non-finite tensor, and OSError if the disk refuses; what was
    there before stays in both cases."""
    for group, named in tensors.items():
        for name, tensor in named.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise NotFiniteError(f"step {step}: {group} {name} holds a non-finite number; not saved")
    folder.mkdir(parents=True, exist_ok=True)
    for path in list(folder.iterdir()):
        if path.match("step-*.tmp"):  # of a killed process; one RUN has one trainer
            shutil.rmtree(path)
    final = _free_name(folder, step)
    temporary = folder / f"{final.name}.tmp"
    temporary.mkdir()
    try:
        for group, named in tensors.items():
            save_tensors(named, temporary / f"{group}.safetensors")
        write_json(temporary / "state.json", dict(state))
        files = {p.name: {"bytes": p.stat().st_size, "sha256": sha256_file(p)} for p in sorted(temporary.iterdir())}
        write_json(temporary / "manifest.json", {"version": VERSION, "step": step, "files": files})
        fsync_folder(temporary)
        temporary.rename(final)
        fsync_folder(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if best:  # before `last`: a process that is killed in between comes by this step again, and points at it again
        _point(folder / "best", final)
    _point(folder / "last", final)
    _delete_old(folder, final)


def save_tensors(named: Mapping[str, Tensor], path: Path) -> None:
    """A safetensors file, fsynced. safetensors reports a full disk as its own error; here it is an OSError."""
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in named.items()}, path)
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    except SafetensorError as error:
        raise OSError(f"{path}: {error}") from error


def load_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest sound checkpoint under ``folder``, and a line about each newer one that was passed over; those are
    renamed ``damaged-step-N``, so that they do not count among the two that are kept. ``None`` if there is no checkpoint
    at all. Raises :class:`AlexNetError` if there are some and none is sound."""
    found = sorted(_checkpoints(folder), key=_age)
    pointed = folder / _pointed(folder / "last")
    if pointed in found:  # what is newer was never pointed at: the process was killed in between
        found = found[found.index(pointed) :]
    faults: dict[Path, str] = {}
    for path in found:
        try:
            checkpoint = _load(path)
        except (AlexNetError, OSError, SafetensorError) as error:
            faults[path] = f"checkpoint {path.name} is damaged and passed over: {printable(error)}"
        else:
            if faults:
                _set_aside(list(faults), folder, path)
            return checkpoint, list(faults.values())
    if faults:
        raise AlexNetError(
            f"{printable(folder)}: no sound checkpoint ({next(iter(faults.values()))}); start again with --fresh"
        )
    return None, []


def _load(folder: Path) -> Checkpoint:
    step = -_age(folder)[0]
    manifest = read_json(folder / "manifest.json", MAX_SETTINGS_BYTES)
    if not isinstance(manifest, dict) or manifest.get("version") != VERSION or manifest.get("step") != step:
        raise AlexNetError("manifest.json is not of this version and step")
    files, found = manifest.get("files"), {path.name for path in folder.iterdir() if path.is_file()} - {"manifest.json"}
    if (
        not isinstance(files, dict)
        or not all(isinstance(file, dict) for file in files.values())
        or files.keys() ^ found
    ):
        odd = sorted(files.keys() ^ found)[:3] if isinstance(files, dict) else []
        raise AlexNetError(f"manifest.json does not list the files that are there ({', '.join(odd)})")
    tensors: dict[str, dict[str, Tensor]] = {}
    state: Any = None
    for name, file in sorted(files.items()):  # each is read once, and what is used is what was compared
        path = folder / name
        content = read_file(path) if path.stat().st_size == file.get("bytes") else b""
        if hashlib.sha256(content).hexdigest() != file.get("sha256"):
            raise AlexNetError(f"{name} does not match its SHA-256 in manifest.json")
        if path.suffix == ".safetensors":
            tensors[path.stem] = load(content)
        elif name == "state.json":
            state = parse_json(content, path)
    if state is None:
        raise AlexNetError("state.json is missing")
    return Checkpoint(step, tensors, state)


def _point(pointer: Path, target: Path) -> None:
    write_atomic(pointer, lambda file: file.write(f"{target.name}\n".encode()))


_NAME = re.compile(r"step-(\d+)(?:\.(\d+))?")


def _checkpoints(folder: Path) -> list[Path]:
    """Raises OSError for a folder that cannot be listed: that is not one without checkpoints."""
    try:
        return [path for path in folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
    except FileNotFoundError:
        return []


def _age(path: Path) -> tuple[int, int]:
    """Sorts checkpoints from the newest to the oldest."""
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return -int(match[1]), -int(match[2] or 0)


def _free_name(folder: Path, step: int) -> Path:
    """``step-N``, or ``step-N.K`` if there are K of this step."""
    same = [path for path in _checkpoints(folder) if _age(path)[0] == -step]
    return folder / (f"step-{step}.{1 - min(_age(path)[1] for path in same)}" if same else f"step-{step}")


def _pointed(pointer: Path) -> str:
    """The name in a pointer file; none of a checkpoint if it is missing or damaged."""
    try:
        return pointer.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _set_aside(damaged: list[Path], folder: Path, sound: Path) -> None:
    _point(folder / "last", sound)
    for path in damaged:
        aside = folder / f"damaged-{path.name}"
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
    fsync_folder(folder)


def _delete_old(folder: Path, last: Path) -> None:
    """Keep the newest up to ``last``, and the best. What is newer than ``last`` was left by a kill."""
    found = sorted(_checkpoints(folder), key=_age)
    kept = set(found[found.index(last) :][:KEEP])
    try:  # an error of reading is no reason to take the best for one of the others
        best = folder / (folder / "best").read_text(errors="replace").strip()
        kept.add(best if best in found else found[-1])  # of a damaged pointer: only the best grows so old
    except FileNotFoundError:
        pass
    for path in found:
        if path not in kept:
            shutil.rmtree(path)
