"""A temporary folder with a small run: commands in processes of their own, and what must be equal in the end."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import runpy
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from multiprocessing.process import BaseProcess
from pathlib import Path

from alexnet.core.preprocessing import Preprocessing
from alexnet.data.builtin import draw_shapes
from alexnet.data.packed import PackedSet
from alexnet.data.prepare import prepare
from alexnet.models import model_config
from alexnet.recipes import quickstart
from alexnet.training.config import TrainConfig

CONTEXT: multiprocessing.context.BaseContext = multiprocessing.get_context("forkserver")
PRELOADED = ["alexnet.recipes.run", "alexnet.cli", "alexnet.parallelize", "torch._dynamo", "torch.utils.tensorboard"]
"""Modules that are imported once, by the process from which all others are forked."""
HANG_SECONDS = 120.0
"""Seconds after which a command is taken to hang."""

SIZE, CROP = 36, 32
BATCH = 8
EPOCHS = 4
INTERVAL = 3
"""Steps between checkpoints."""
CHANNELS, UNITS = 16, 64
CLOCK = ("images_per_second", "data_seconds", "seconds")
"""Fields of a log that differ between two runs although both compute the same."""


@dataclass(frozen=True)
class Scene:
    folder: Path
    """Folder of the run; at the end it is removed, with everything in it."""
    kills: int = 20
    kill_seconds: float = 40.0
    """Seconds after which no further kill is tried, for slow machines."""
    seed: int = 0
    """Seed of the random moments and places."""

    @cached_property
    def photographs(self) -> Path:
        """The drawn set: two training images and one held out of each of 24 classes."""
        draw_shapes(self.folder / "shapes", train=2, val=1)
        return self.folder / "shapes"

    @cached_property
    def packed(self) -> PackedSet:
        return prepare(self.photographs, self.folder / "packed", size=SIZE)

    @cached_property
    def whole(self) -> tuple[dict[str, str], float]:
        """What the run ends with when nothing disturbs it, and the seconds it takes."""
        out = self.folder / "whole"
        command = self.training(out)
        finish(["--version"], out)  # the first process waits for what all are forked from
        start = time.monotonic()
        code, text = finish(command, out)
        if code:
            raise RuntimeError(f"train ended with {code} where nothing happened to it: {last_line(text)}")
        return final(out), time.monotonic() - start

    def training(self, out: Path) -> list[str]:
        """The command of a run with dropout and all augmentation, which also goes on with it."""
        channels = [str(CHANNELS)] * 5
        tiny = f"--epochs {EPOCHS} --checkpoint-steps {INTERVAL} --batch-size {BATCH} --threads 1".split()
        tiny += ["--model.conv-channels", *channels, "--model.fc-units", str(UNITS), str(UNITS)]
        return [*self.wide_training(out), *tiny]

    def wide_training(self, out: Path) -> list[str]:
        """The same with the network of `quickstart` and all threads."""
        shape = f"--size {SIZE} --preprocessing.resize {SIZE} --preprocessing.crop {CROP} --model.input-size {CROP} "
        shape += "--model.conv-kernels 5 3 3 3 3 --model.conv-padding 2 1 1 1 1 --device cpu --resume"
        return ["train", "quickstart", "--data", str(self.packed.path), "--out", str(out), *shape.split()]

    @cached_property
    def config(self) -> TrainConfig:
        """The same run in float64, for ranks."""
        return replace(
            quickstart(),
            model=model_config(
                "alexnet_2012",
                input_size=CROP,
                conv_channels=(CHANNELS,) * 5,
                conv_kernels=(5, 3, 3, 3, 3),
                conv_strides=(2, 1, 1, 1, 1),
                conv_padding=(2, 1, 1, 1, 1),
                fc_units=(UNITS, UNITS),
                init="he",
                biases=(0.0,) * 8,
            ),
            data=str(self.packed.path),
            size=SIZE,
            preprocessing=Preprocessing(resize=SIZE, crop=CROP, scale=1 / 64),
            precision="float64",
            epochs=EPOCHS,
            batch_size=BATCH,
            checkpoint_steps=INTERVAL,
            views=("1",),
        )


# Commands ---------------------------------------------------------------------------------------------------------------


@contextmanager
def started(arguments: Sequence[str], out: Path, file_bytes: int | None = None) -> Iterator[BaseProcess]:
    """A command, running, in a session of its own; what it says goes to ``out``.txt. At the end it is killed.
    ``file_bytes``: the system refuses it larger files than that, as a full disk would."""
    process: BaseProcess = CONTEXT.Process(  # type: ignore[attr-defined]
        target=_call, args=(list(arguments), said_by(out), file_bytes)
    )
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def _call(arguments: list[str], said: Path, file_bytes: int | None) -> None:
    os.setsid()  # Ctrl-C is the parent's
    speak_into(said)
    if file_bytes is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, resource.RLIM_INFINITY))
    sys.argv = ["alexnet", *arguments]
    runpy.run_module("alexnet", run_name="__main__")  # as `python -m alexnet` does


def speak_into(said: Path) -> None:
    """Send to a file what this process says, to the last traceback."""
    file = open(said, "a", buffering=1, errors="backslashreplace")  # noqa: SIM115, open to the end of the process
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
    sys.stdout = sys.stderr = file


def ended(process: BaseProcess) -> int:
    """The exit code, negative for a signal."""
    process.join(HANG_SECONDS)
    if process.exitcode is None:
        raise TimeoutError(f"a command has not ended within {HANG_SECONDS:g} s")
    return process.exitcode


def finish(arguments: Sequence[str], out: Path, file_bytes: int | None = None) -> tuple[int, str]:
    """Run a command to its end: exit code, and what it said."""
    said_by(out).unlink(missing_ok=True)
    with started(arguments, out, file_bytes) as process:
        return ended(process), said_by(out).read_text(errors="replace")


def said_by(out: Path) -> Path:
    return out.with_suffix(".txt")


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1] if text.strip() else "it said nothing"


def wait_until(what: Callable[[], bool]) -> bool:
    """Wait until ``what()`` is true. Whether it came true within :data:`HANG_SECONDS`."""
    deadline = time.monotonic() + HANG_SECONDS
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


# What a run has come to ---------------------------------------------------------------------------------------------------


def rows(out: Path) -> list[dict[str, object]]:
    """log.jsonl without what depends on the clock; a line that was cut by a kill is left out."""
    path = out / "log.jsonl"
    text = path.read_text() if path.exists() else ""
    found = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [{key: value for key, value in row.items() if key not in CLOCK} for row in found]


def logged_step(out: Path) -> int:
    return max((int(str(row["step"])) for row in rows(out)), default=0)


def saved_step(out: Path) -> int:
    """The step that a resumed run starts from."""
    pointer = out / "checkpoint" / "last"
    return int(pointer.read_text().strip().removeprefix("step-").partition(".")[0]) if pointer.exists() else 0


def final(out: Path) -> dict[str, str]:
    """SHA-256 of weights, velocities, log and results of a finished run, by name."""
    last = out / "checkpoint" / (out / "checkpoint" / "last").read_text().strip()
    kept = [*last.glob("*.safetensors"), out / "model" / "model.safetensors", *(out / "results").glob("final-*.json")]
    digests = {path.name: sha256(path.read_bytes()).hexdigest() for path in kept}
    return digests | {"log.jsonl": sha256(json.dumps(rows(out)).encode()).hexdigest()}


def content(folder: Path) -> dict[str, str]:
    """SHA-256 of every file under a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        with suppress(FileNotFoundError, IsADirectoryError):
            found[str(path.relative_to(folder))] = sha256(path.read_bytes()).hexdigest()
    return found


def unlike(ours: dict[str, str], theirs: dict[str, str]) -> str:
    """The names of what differs."""
    return ", ".join(sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)))
