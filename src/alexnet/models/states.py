"""What a user names as a model: a run, one of its checkpoints, or a model folder, here or on the Hugging Face Hub.

Of a run that is finished, its model; of another, the newest of its checkpoints that is sound. A checkpoint has no classes, no
preprocessing and no mean image: those are in ``RUN/checkpoint/network``, or in the model of the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from alexnet.core.console import say
from alexnet.core.device import PRECISIONS
from alexnet.core.errors import AlexNetError, UsageError, printable
from alexnet.core.runs import MAX_SETTINGS_BYTES, read_json, standing
from alexnet.models.checkpoint import (
    Checkpoint,
    checkpoints_in,
    is_checkpoint,
    newest_first,
    pointed,
    progress_of,
    read_checkpoint,
)
from alexnet.models.folder import ModelFolder, folder_of, load_described, load_model_folder
from alexnet.models.hub import fetched, is_on_hub

CHECKPOINTS = "checkpoint"
NETWORK = "network"
"""Folder beside the checkpoints of a run: what all of them have in common."""
POINTERS = ("last", "best")


@dataclass(frozen=True)
class State:
    """Which checkpoint of a run a model is."""

    path: Path
    step: int
    epoch: int
    """Finished epochs."""
    position: int
    """Images of the next epoch that were already used."""
    epochs: int | None
    """Epochs of the whole run, as its settings now say."""
    top1_errors: int | None
    """Errors among the validation images after that epoch; None in the middle of an epoch."""
    val_n: int | None
    best: bool
    """Whether it is the one with the lowest validation error."""
    balanced_error: float | None = None
    """The mean of the errors of the classes after that epoch, where that judges the epochs."""

    def __str__(self) -> str:
        of = f" of {self.epochs}" if self.epochs is not None else ""
        text = f"{printable(self.path)}, after epoch {self.epoch}{of}"
        if self.position:
            text += f" and {self.position:,} images of the next"
        if self.best and self.balanced_error is not None:
            text += f", the one with the lowest validation error ({self.balanced_error:.1%}, the mean over classes)"
        elif self.best and self.val_n and self.top1_errors is not None:
            text += f", the one with the fewest validation errors ({self.top1_errors:,} of {self.val_n:,})"
        return text

    def record(self) -> dict[str, Any]:
        """The checkpoint as the protocol of a result names it."""
        return {"checkpoint": self.path.name, "step": self.step, "epoch": self.epoch, "images_of_next": self.position}


def run_of(model: str | Path) -> Path | None:
    """The run that ``model`` belongs to: a run, its folder of checkpoints, or one of these. None for anything else, such as a
    model folder."""
    path = standing(Path(model))
    if is_checkpoint(path) or (path.parent.name == CHECKPOINTS and path.name in POINTERS):
        return path.parent.parent
    if path.name == CHECKPOINTS and _has_checkpoints(path):
        return path.parent
    return path if (path / "model").is_dir() or _has_checkpoints(path / CHECKPOINTS) else None


def read_settings(run: Path) -> dict[str, Any]:
    """config.json of a run. :class:`AlexNetError` if it is not what a run writes: it may have come from elsewhere."""
    stored = read_json(run / "config.json")
    parts = ("train", "data", "initial")
    if isinstance(stored, dict) and all(isinstance(stored.get(part, {}), dict) for part in parts):
        trained = stored.get("train", {})
        counts = [trained.get(name) for name in ("size", "batch_size", "train_images")]
        sound = isinstance(stored.get("data", {}).get("path"), str) and isinstance(trained.get("seed", 0), int)
        sound &= all(count is None or (type(count) is int and count > 0) for count in counts)
        sound &= trained.get("precision", "float32") in PRECISIONS
        if sound and _is_history(stored.get("history", [])):
            return stored
    raise AlexNetError(
        f"{printable(run)}/config.json: not that of a run; restore it, or name a model folder and --data"
    )


def _is_history(value: Any) -> bool:
    """Whether this is a list of changes: step, epoch, and for each field the old and the new value."""
    return isinstance(value, list) and all(
        isinstance(entry, dict)
        and isinstance(entry.get("step"), int)
        and isinstance(entry.get("changed"), dict)
        and all(isinstance(pair, list) and len(pair) == 2 for pair in entry["changed"].values())
        for entry in value
    )


def state_of(model: str | Path, *, best: bool = False) -> State | None:
    """The checkpoint that is meant; None for a finished run and for a model folder. With ``best``, that with the lowest
    validation error. Raises what :func:`open_model` raises."""
    found = _found(standing(Path(model)), best)
    return None if found is None else found[0]


def open_model(model: str | Path, *, best: bool = False) -> tuple[ModelFolder, State | None]:
    """The network that is meant, and which checkpoint of a run it is if it is one: that is said aloud. ``hf-hub:OWNER/NAME`` is a
    model folder in a repository of the Hugging Face Hub, which is fetched.

    Raises :class:`UsageError` for what is no model, and for ``best`` where nothing was validated; :class:`AlexNetError`
    for a run without a sound checkpoint, and for what is damaged; and what :func:`~alexnet.models.hub.fetched` raises."""
    if is_on_hub(model) and not best:
        return load_model_folder(fetched(model)), None
    path = standing(Path(model))
    if path != Path(model):
        say(
            f"note: {printable(model)}: a start with --fresh has no checkpoint yet, so this is the run before it; if that start "
            "was killed, `alexnet report` puts the run back"
        )
    if path.is_file() and not (path.parent.name == CHECKPOINTS and path.name in POINTERS):
        raise UsageError(_of_file(path))
    if (found := _found(path, best)) is None:
        return load_model_folder(path / "model" if (path / "model").is_dir() else path), None
    state, checkpoint = found
    run = state.path.parent.parent
    description = next((f for f in (state.path.parent / NETWORK, run / "model") if (f / "config.json").is_file()), None)
    if description is None:
        raise AlexNetError(
            f"{printable(state.path)} lies beside no {CHECKPOINTS}/{NETWORK}, which says its classes and its input: an earlier "
            "version wrote none; go on with the run by --resume, and its next checkpoint writes it"
        )
    opened = load_described(description, checkpoint.tensors["model"], printable(state.path / "model.safetensors"))
    asked_for = best or path not in (run, run / CHECKPOINTS)
    say(f"note: {'' if asked_for else f'{printable(run)} is not finished; '}this is {state}")
    return opened, state


def _found(path: Path, best: bool) -> tuple[State, Checkpoint] | None:
    run = run_of(path)
    if run is None:
        if best:
            raise UsageError(f"{printable(path)}: --best needs a run with checkpoints, the --out of `alexnet train`")
        return None
    folder = run / CHECKPOINTS
    named = folder / (pointed(path) if path.is_file() else path.name)
    if best or named == folder / pointed(folder / "best") != folder:
        chosen = folder / pointed(folder / "best")
        if not is_checkpoint(chosen):
            raise UsageError(f"{printable(run)} has no best checkpoint: no epoch of it was validated; leave out --best")
    elif is_checkpoint(named):
        chosen = named
    elif (run / "model" / "config.json").is_file() and path.name != CHECKPOINTS:
        return None
    else:
        return _newest(run)
    try:
        return _state(run, chosen)
    except (OSError, SafetensorError, KeyError, AlexNetError) as error:
        raise AlexNetError(f"{printable(chosen)}: missing or damaged ({printable(error)}); name another one") from error


def _newest(run: Path) -> tuple[State, Checkpoint]:
    """The newest sound checkpoint. A training that goes on meanwhile replaces them: then it is looked again."""
    faults: list[str] = []
    for _ in range(3):
        faults = []
        for path in newest_first(run / CHECKPOINTS):
            try:
                found = _state(run, path)
            except (OSError, SafetensorError, KeyError, AlexNetError) as error:
                faults.append(f"{path.name}: {printable(error)}")
                continue
            for fault in faults:
                say(f"warning: damaged and passed over: {fault}")
            return found
    if faults:
        raise AlexNetError(f"{printable(run)}: no sound checkpoint ({faults[0]}); train again with --fresh")
    raise AlexNetError(f"{printable(run)}: has no checkpoint yet, so there is no model; go on with --resume")


def _state(run: Path, path: Path) -> tuple[State, Checkpoint]:
    checkpoint = read_checkpoint(path, "model")
    progress, _ = progress_of(checkpoint)
    last = progress.history[-1] if progress.history and not progress.position else {}
    epochs = _epochs(run)
    best = path.name == pointed(path.parent / "best")
    errors, n, balanced = (last.get(name) for name in ("val_top1_errors", "val_n", "val_balanced_top1_error"))
    if "model" not in checkpoint.tensors:
        raise AlexNetError("model.safetensors is missing")
    done = progress.epoch, progress.position
    return State(path, checkpoint.step, *done, epochs, errors, n, best, balanced), checkpoint


def _epochs(run: Path) -> int | None:
    try:
        epochs = read_json(run / "config.json", MAX_SETTINGS_BYTES)["train"]["epochs"]
    except (AlexNetError, OSError, LookupError, TypeError):
        return None
    return epochs if isinstance(epochs, int) else None


def _has_checkpoints(folder: Path) -> bool:
    try:
        return bool(checkpoints_in(folder))
    except OSError:
        return False


_WEIGHTS = "holds weights without classes and preprocessing; make a model of it: alexnet import FILE --out MODEL"
_FILES = {
    **dict.fromkeys((".pth", ".pt", ".bin", ".ckpt", ".pkl", ".safetensors"), _WEIGHTS),
    ".onnx": "is an ONNX file, which only predict and evaluate take; name the run or the model folder that it was made from",
    ".npz": "holds arrays, which only `alexnet evaluate` takes, as saved probabilities; name a run or a model folder",
}
"""What files are that people give for a model, and what works."""


def _of_file(path: Path) -> str:
    if (folder := folder_of(path)) is not None:
        return f"{printable(path)} belongs to a model; name its folder, {printable(folder)}"
    said = _FILES.get(path.suffix.lower(), "is a file; a model is a folder: name a run, the --out of `alexnet train`")
    return f"{printable(path)} {said}"
