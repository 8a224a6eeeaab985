"""The files of a run, and the folder they stand in: who may write there, what must not have changed, what a fault says."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, TextIO

from alexnet.core.config import differences, fingerprint, from_json, to_json
from alexnet.core.console import say
from alexnet.core.errors import AlexNetError, UsageError, printable
from alexnet.core.runs import REPLACED, REPLACING, environment, fsync_folder, read_json, write_atomic, write_json
from alexnet.data.packed import PackedSet
from alexnet.models.checkpoint import Checkpoint
from alexnet.models.states import read_settings
from alexnet.training.checkpoint import KEEP, load_checkpoint
from alexnet.training.config import TrainConfig
from alexnet.training.ending import why_not_longer
from alexnet.training.initial import Initial, Transfer

CHECKPOINTS = KEEP + 2
"""Most checkpoints on the disk at once: the newest, the best, and one being written."""

VERSION = 2
"""Of config.json; where it says none, ``optimizer.layer_weight_decay`` held decays and not factors."""

NOT_COMPUTED = ("checkpoint_steps", "views", "data")
"""Fields of a run that may change when it resumes: no number of the training depends on them. The data is compared by its
fingerprint, and may have another name."""

NEVER_CHANGED = (
    *("recipe", "network", "model", "preprocessing", "size", "train_images", "seed", "balance", "last_layer"),
    *("optimizer.kind", "start_share"),
)
"""Fields that decide the network, its input, the data or the draws, with all fields below them; the last two decide what a
checkpoint holds. Everything else decides how the network is optimized, and may be changed on resume."""


RUN_FILES = (
    "config.json",
    "environment.json",
    "log.jsonl",
    "summary.csv",
    "signal.json",
    "ranks.json",
    "report.html",
)
MADE_AT_THE_END = ("model", "results", "probes", "report.html")
"""What a run leaves when it is finished, and what was made from its network since then."""
RUN_FOLDERS = ("checkpoint", "model", "results", "probes", "tensorboard", "earlier")


def require_run(out: Path) -> None:
    """:class:`UsageError` for a folder in which no run has written: nothing in it may be deleted."""
    if out.is_dir() and not (out / "config.json").is_file() and any(path.name[0] != "." for path in out.iterdir()):
        raise UsageError(
            f"{printable(out)} is not empty and holds no run; --fresh deletes runs only, take another --out"
        )


def clear(run: Path, keep: Collection[str] = ()) -> None:
    """Delete the files of a run but for those called ``keep``, and nothing else; config.json, by which it is known for one,
    last."""
    for name in (*RUN_FOLDERS, *reversed(RUN_FILES)):
        path = run / name
        if name in keep:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def set_aside(run: Path) -> None:
    """Move the files of an earlier run into a hidden folder beside them, until the new run has a checkpoint."""
    moving = run / REPLACING
    moving.mkdir()
    for name in (*RUN_FILES, *RUN_FOLDERS):
        if os.path.lexists(run / name):
            (run / name).rename(moving / name)
    fsync_folder(moving)
    moving.rename(run / REPLACED)
    fsync_folder(run)


def put_back(run: Path) -> bool:
    """Undo :func:`set_aside`, wherever it or what followed was interrupted. Where the new run has a checkpoint it stands, and
    the earlier one is deleted. Whether the earlier run is back."""
    moving, aside = run / REPLACING, run / REPLACED
    if aside.is_dir() and has_checkpoint(run):
        shutil.rmtree(aside)
        return False
    if aside.is_dir():
        clear(run)
        _delete_leftovers(run)
        aside.rename(moving)
    if not moving.is_dir():
        return False
    for path in moving.iterdir():
        path.rename(run / path.name)
    moving.rmdir()
    fsync_folder(run)
    return True


def recover(run: Path) -> None:
    """Put the run back that a killed ``--fresh`` had set aside."""
    if (run / REPLACING).is_dir() or (run / REPLACED).is_dir():
        with sole_trainer(run):
            if put_back(run):
                say(f"{printable(run)}: the earlier run is back; the one that was to replace it had no checkpoint yet")


def has_checkpoint(run: Path) -> bool:
    """Whether there is a state of the run to go on from."""
    return (run / "checkpoint" / "last").is_file()


def stored_config(run: Path) -> TrainConfig | None:
    """The settings that a run has now. None where there is no run, or one of another version: it is refused later, by name."""
    try:
        return from_json(TrainConfig, read_settings(run)["train"])
    except (AlexNetError, KeyError):
        return None


def require_same_run(
    config: TrainConfig, data: PackedSet, run: Path, initial: Initial | None = None, *, change: bool = False
) -> dict[str, list[Any]]:
    """Raise :class:`UsageError`, naming the fields, if ``run`` was made with other settings, other data, or (where
    ``initial`` is given) other initial weights.

    A run may go on for more epochs or for fewer and, with ``change``, with any settings that decide only how it is
    optimized. Returns those fields with the old and the new value."""
    stored, settings = read_settings(run), to_json(config)
    had = stored_config(run)  # with the defaults of fields that settings did not have when the run began
    before = stored.get("train") if had is None else to_json(had)
    changed = [d for d in differences(before, settings) if d not in NOT_COMPUTED]
    if stored.get("data", {}).get("fingerprint") != data.fingerprint:
        raise UsageError(
            f"{printable(run)} was trained on other images than those of {printable(config.data)}; resume with the same "
            "images, whatever their folder is called now, or take another --out"
        )
    begun = stored.get("initial", {})  # a last layer that was fitted is one of its weights
    known = (begun.get("fingerprint"), begun.get("made", {}).get("weights"))
    if initial is not None and initial.fingerprint not in known:
        changed.append("the initial weights")
    decays = "optimizer.layer_weight_decay"
    if "version" not in stored and _at(before, decays) and decays not in changed:
        raise UsageError(
            f"{printable(run)} was begun when {decays} held decays; now it holds factors of optimizer.weight_decay: give both "
            "with --change, or take another --out"
        )
    free = [name for name in changed if _may_change(name)]
    if other := [name for name in changed if name not in free]:
        raise UsageError(
            f"{printable(run)} was made with other settings ({', '.join(other[:4])}), which decide the network, its data or "
            "its draws and cannot be changed; resume without them, or take another --out"
        )
    if not change and (other := [name for name in free if name != "epochs"]):
        raise UsageError(
            f"{printable(run)} was made with other settings ({', '.join(other[:4])}); resume without them, add --change to go "
            "on with them, or take another --out"
        )
    return {name: [_at(before, name), _at(settings, name)] for name in free}


def _may_change(field: str) -> bool:
    fixed = any(f"{field}.".startswith(f"{name}.") for name in NEVER_CHANGED)
    return not fixed and field.partition(".")[0] in {f.name for f in fields(TrainConfig)}


def _at(value: Any, name: str) -> Any:
    """The value of a dotted field; None if there is no such field, as in a schedule of another kind."""
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def described(change: dict[str, Any]) -> str:
    """An entry of the history in config.json as one line."""
    changed = ", ".join(f"{name} {_said(old)} -> {_said(new)}" for name, (old, new) in change["changed"].items())
    return f"changed after step {change['step']}: {changed}"


def _said(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _record_change(
    run: Path, config: TrainConfig, changed: dict[str, list[Any]], checkpoint: Checkpoint | None, *, change: bool
) -> None:
    """Give a run its new settings, and write down which were changed when. What it had made of its last state is set aside:
    that is no longer the end of the run."""
    state: dict[str, Any] = {} if checkpoint is None else checkpoint.state
    step, epoch, logged = state.get("step", 0), state.get("epoch", 0), state.get("changes", 0)
    made = [name for name in MADE_AT_THE_END if (run / name).exists()]
    if changed and "model" in made and config.epochs <= epoch:
        raise UsageError(
            f"{printable(run)} has finished its {epoch} epochs; to go on with other settings, add --epochs with more than that"
        )
    if changed and "model" in made and checkpoint is None:
        raise UsageError(f"{printable(run)} has no checkpoint any more to go on from; take another --out")
    before = stored_config(run)
    if changed and before is not None and ("model" in made or epoch >= before.epochs):
        reason = why_not_longer(before, config, state.get("history", []), change=change)
        if reason is not None:
            raise UsageError(f"{printable(run)} has ended after {epoch} epochs: {reason}")
    if changed and made:
        aside = run / "earlier" / f"step-{step}"
        aside.mkdir(parents=True, exist_ok=True)
        for name in made:
            if (aside / name).is_dir():
                shutil.rmtree(aside / name)
            (run / name).rename(aside / name)
    stored = read_settings(run)
    history = stored.get("history", [])
    for entry in history[logged:]:  # its step may be in a checkpoint that was lost: it holds from this one on
        entry |= {"step": step, "epoch": epoch}
    if changed:
        history = [*history, {"step": step, "epoch": epoch, "changed": changed}]
        settings = to_json(config)
        stored |= {"version": VERSION, "train": settings, "fingerprint": fingerprint(settings)}
    if history:
        write_json(run / "config.json", stored | {"history": history})


def _record_place(run: Path, config: TrainConfig, data: PackedSet) -> None:
    """Write down what the data of a run is called now, where that has changed: by that name it will be looked for."""
    stored = read_settings(run)
    if (stored["train"].get("data"), stored["data"]["path"]) == (config.data, str(data.path)):
        return
    settings = stored["train"] | {"data": config.data}
    place = stored["data"] | {"path": str(data.path)}
    write_json(run / "config.json", stored | {"train": settings, "data": place, "fingerprint": fingerprint(settings)})


def require_openable(
    config: TrainConfig,
    data: PackedSet,
    run: Path,
    initial: Initial | None,
    *,
    resume: bool,
    change: bool = False,
) -> dict[str, list[Any]]:
    """:class:`UsageError` unless a run can begin in this folder, or go on there with ``resume``. What is changed, as in
    :func:`require_same_run`."""
    if not (run / "config.json").exists():
        if any((run / "checkpoint").glob("step-*")):
            raise UsageError(
                f"{printable(run)} has checkpoints but no config.json to say of what; restore it, or take another --out"
            )
        return {}
    if not resume:
        raise UsageError(
            f"{printable(run)} holds a run; add --resume to go on, --fresh to start over, or take another --out"
        )
    return require_same_run(config, data, run, initial, change=change)


def open_run(
    config: TrainConfig,
    data: PackedSet,
    run: Path,
    start: Transfer | None,
    require: Callable[[Checkpoint], object],
    *,
    resume: bool,
    change: bool = False,
) -> Checkpoint | None:
    """Create the files of a new run, or check that an old one is the same, write down what is changed, and load the newest
    checkpoint that ``require`` does not refuse."""
    initial = None if start is None else start.initial
    changed = require_openable(config, data, run, initial, resume=resume, change=change)
    checkpoint: Checkpoint | None = None
    faults: list[str] = []
    _delete_leftovers(run)
    if not (run / "config.json").exists():
        settings = to_json(config)
        origin = {"path": str(data.path), "fingerprint": data.fingerprint}
        document = {"version": VERSION, "train": settings, "data": origin, "fingerprint": fingerprint(settings)}
        write_json(run / "config.json", document | ({} if start is None else {"initial": start.record()}))
    else:
        checkpoint, faults = load_checkpoint(run / "checkpoint", require)
        source = read_settings(run).get("initial", {}).get("source")
        if checkpoint is None and start is None and source is not None:
            raise UsageError(
                f"{printable(run)} has no checkpoint yet and starts from the weights of {printable(source)}; name them "
                "again with --init-from"
            )
        _record_change(run, config, changed, checkpoint, change=change)
        _record_place(run, config, data)
    for fault in faults:
        say(f"warning: {fault}")
    if faults and checkpoint is not None:
        say(f"warning: going on from step {checkpoint.step}; the steps after it are computed again")
    if resume and checkpoint is None:
        say("no checkpoint yet: starting at step 0")
    write_json(run / "environment.json", environment() | {"command": _first_command(run)})
    return checkpoint


def _delete_leftovers(run: Path) -> None:
    """The temporary files of writes that were killed."""
    for folder in (".", "checkpoint", "results"):
        for leftover in run.glob(f"{folder}/.*.tmp-*"):
            leftover.unlink()


def _first_command(run: Path) -> list[str]:
    """The command that began the run: one that goes on with it need not repeat the settings."""
    with suppress(AlexNetError, LookupError, TypeError):
        command = read_json(run / "environment.json")["command"]
        if isinstance(command, list) and all(isinstance(word, str) for word in command):
            return command
    return sys.argv


class Log:
    """log.jsonl, cut back to where the checkpoint was made: rows are neither lost nor doubled."""

    def __init__(self, path: Path, length: int) -> None:
        self.file = open(path, "ab")  # noqa: SIM115, closed by __exit__
        if self.file.tell() < length:
            say(f"warning: {printable(path)} is shorter than the checkpoint says: rows are missing")
            length = path.read_bytes().rfind(b"\n") + 1
        self.file.truncate(length)

    def write(self, row: dict[str, Any]) -> None:
        self.file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
        self.file.flush()

    def sync(self) -> int:
        """Make the rows durable; the length of the file."""
        self.file.flush()
        os.fsync(self.file.fileno())
        return os.fstat(self.file.fileno()).st_size

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def write_summary(path: Path, history: list[dict[str, Any]]) -> None:
    columns = [name for name in history[0] if name not in ("event", "dead_filters", "spread")]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_atomic(path, lambda file: file.write(text.getvalue().encode()))


def require_space(run: Path, checkpoint_bytes: int) -> None:
    """Refuse to begin what cannot be saved. The checkpoints that are there make room, but only for the second of the new."""
    there = [path for folder in (run, run / REPLACED) for path in (folder / "checkpoint").rglob("*") if path.is_file()]
    have, needed = sum(path.stat().st_size for path in there), CHECKPOINTS * checkpoint_bytes
    free = shutil.disk_usage(existing_parent(run)).free
    if free < checkpoint_bytes or free + have < needed:
        raise AlexNetError(
            f"{printable(run)}: checkpoints need {needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free; free some space or "
            "take another --out"
        )


def existing_parent(path: Path) -> Path:
    """The path itself, or the nearest folder above it that is there."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


@contextmanager
def explained_faults(run: Path) -> Iterator[None]:
    """A full or broken disk as one line; what was saved before is sound."""
    try:
        yield
    except OSError as error:
        free = shutil.disk_usage(run).free
        if has_checkpoint(run):
            saved = "the last checkpoint is intact: mend this, then add --resume"
        elif (run / REPLACED).is_dir():
            saved = "the earlier run is put back: mend this, then run the command again"
        else:
            saved = "there was no checkpoint yet: mend this, then add --resume"
        raise AlexNetError(
            f"{printable(run)}: cannot be written ({printable(error.strerror or error)}; {free / 1e6:,.0f} MB are free); "
            f"{saved}"
        ) from error


@contextmanager
def sole_trainer(run: Path) -> Iterator[None]:
    """Make the folder of a run, and hold it by a lock that the kernel releases however the process ends. If nothing was
    written there, the folder is gone again in the end."""
    made = [place for place in (run, *run.parents) if not place.exists()]
    run.mkdir(parents=True, exist_ok=True)
    with _locked(run) as lock:
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        try:
            yield
        finally:
            (run / ".lock").unlink(missing_ok=True)
            with suppress(OSError):  # the folder is not empty
                for folder in made:
                    folder.rmdir()


def _locked(run: Path) -> TextIO:
    """The open lock file of a run, locked."""
    while True:
        file = open(run / ".lock", "a+")  # noqa: SIM115, closed by the caller
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            there = (run / ".lock").stat()
        except BlockingIOError:
            file.seek(0)
            owner = file.read(32).strip()
            file.close()
            raise AlexNetError(
                f"{printable(run)}: process {owner} is training here; wait, or take another --out"
            ) from None
        except FileNotFoundError:  # the one who held it has just ended, and removed it
            there = None
        if there is not None and there.st_ino == os.fstat(file.fileno()).st_ino:
            return file
        file.close()
