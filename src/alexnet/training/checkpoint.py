"""Checkpoints: all or nothing, verified, never pickled.

``checkpoint/step-N/`` holds safetensors files, ``state.json``, and ``manifest.json`` with size and SHA-256 of each. It is
written under a temporary name, fsynced and renamed; then the pointer files ``last`` and ``best`` are replaced. A second
checkpoint of the same step (an epoch stopped before its validation, then validated) is ``step-N.1``. At no moment is the
last good checkpoint gone.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from alexnet.core.errors import AlexNetError, NotFiniteError, printable
from alexnet.core.runs import fsync_folder, write_atomic, write_json
from alexnet.models.checkpoint import SEAL, Checkpoint, age, checkpoints_in, newest_first, read_checkpoint

KEEP = 2
"""Newest checkpoints that are kept, besides the best."""


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
        if path.match("step-*.tmp"):  # a killed process left it: one RUN has one trainer
            shutil.rmtree(path)
    final = _free_name(folder, step)
    temporary = folder / f"{final.name}.tmp"
    temporary.mkdir()
    try:
        for group, named in tensors.items():
            save_tensors(named, temporary / f"{group}.safetensors")
        write_json(temporary / "state.json", dict(state))
        files = SEAL.list_files(temporary, sorted(path.name for path in temporary.iterdir()))
        SEAL.write(temporary, {"version": SEAL.version, "step": step, "files": files})
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


def load_checkpoint(
    folder: Path, require: Callable[[Checkpoint], object] | None = None
) -> tuple[Checkpoint | None, list[str]]:
    """The newest sound checkpoint under ``folder``, and a line about each newer one that was passed over; those are
    renamed ``damaged-step-N``, so that they do not count among the two that are kept. ``None`` if there is no checkpoint
    at all. Raises :class:`AlexNetError` if there are some and none is sound. ``require`` raises it for one whose seal fits but
    that is not what was written."""
    found = newest_first(folder)
    faults: dict[Path, str] = {}
    for path in found:
        try:
            checkpoint = read_checkpoint(path)
            if require is not None:
                require(checkpoint)
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


def _point(pointer: Path, target: Path) -> None:
    write_atomic(pointer, lambda file: file.write(f"{target.name}\n".encode()))


def _free_name(folder: Path, step: int) -> Path:
    """``step-N``, or ``step-N.K`` if there are K of this step."""
    same = [path for path in checkpoints_in(folder) if age(path)[0] == -step]
    return folder / (f"step-{step}.{1 - min(age(path)[1] for path in same)}" if same else f"step-{step}")


def _set_aside(damaged: list[Path], folder: Path, sound: Path) -> None:
    _point(folder / "last", sound)
    for path in damaged:
        aside = folder / f"damaged-{path.name}"
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
    fsync_folder(folder)


def _delete_old(folder: Path, last: Path) -> None:
    """Keep the newest up to ``last``, and the best. What is newer than ``last`` was left by a kill."""
    found = sorted(checkpoints_in(folder), key=age)
    kept = set(found[found.index(last) :][:KEEP])
    try:  # an error of reading is no reason to take the best for one of the others
        best = folder / (folder / "best").read_text(errors="replace").strip()
        kept.add(best if best in found else found[-1])  # if the pointer is damaged: only the best is kept so long
    except FileNotFoundError:
        pass
    for path in found:
        if path not in kept:
            shutil.rmtree(path)
