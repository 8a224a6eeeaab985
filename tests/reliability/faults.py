"""What the tests of real faults and benchmarks/reliability.py share: a tiny run with dropout and all augmentation, commands
in processes of their own that can be killed, stopped and starved, and what must be equal in the end."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alexnet.cli import main

CONTEXT = multiprocessing.get_context("forkserver")
PRELOADED = ["alexnet.recipes.run", "alexnet.cli", "alexnet.parallelize", "torch._dynamo", "torch.utils.tensorboard"]
HANG = 600.0
"""Seconds after which a command is taken to hang. No limit of speed."""

TINY = (
    "--size 36 --preprocessing.resize 36 --preprocessing.crop 32 --model.input-size 32 --model.fc-units 16 16 "
    "--model.conv-channels 8 8 8 8 8 --model.conv-kernels 5 3 3 3 3 --model.conv-padding 2 1 1 1 1 "
    "--threads 1 --device cpu --batch-size 8"
)
INTERVAL = 3
"""Steps between checkpoints of the tiny run; an epoch has 7."""
EPOCHS = 4

CLOCK = ("images_per_second", "data_seconds", "seconds")
"""What differs between two runs to the same end."""


@dataclass
class Figure:
    """How often a promise was tried, and where it was not kept."""

    count: int = 0
    failures: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def check(self, kept: bool, what: str) -> None:
        if not kept:
            self.failures.append(what)


def training(data: Path, out: Path, *options: str) -> list[str]:
    """A run of 28 steps, and the command that goes on with it."""
    words = [*TINY.split(), "--epochs", str(EPOCHS), "--checkpoint-steps", str(INTERVAL), *options]
    return ["train", "quickstart", "--data", str(data), "--out", str(out), "--resume", *words]


@dataclass
class Command:
    """The command line in a process of its own, and in a session of its own."""

    process: multiprocessing.process.BaseProcess
    said: Path
    """Everything it wrote to stdout and stderr."""

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def text(self) -> str:
        return self.said.read_text(errors="replace") if self.said.exists() else ""

    def code(self, seconds: float = HANG) -> int | None:
        """The exit code, negative for a signal; None if it has not ended."""
        self.process.join(seconds)
        return self.process.exitcode

    def send(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def session(self) -> list[int]:
        """The processes of its session that are still there."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == self.pid and fields[0] not in "ZX":
                    found.append(int(folder.name))
        return found

    def catches(self, number: int) -> bool:
        """Whether the process has a handler of its own for a signal."""
        with suppress(OSError):
            status = Path(f"/proc/{self.pid}/status").read_text()
            caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
            return bool(int(caught.split()[1], 16) >> (number - 1) & 1)
        return False


@contextmanager
def started(arguments: Sequence[str], said: Path, before: Callable[[], None] | None = None) -> Iterator[Command]:
    """A command, running; at the end killed with all that it started. ``before``, a function of a module, is called in
    its process first."""
    said.unlink(missing_ok=True)
    process = CONTEXT.Process(target=_call, args=(list(arguments), said, before))
    process.start()
    command = Command(process, said)
    try:
        yield command
    finally:
        process.kill()
        process.join()
        for pid in command.session():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _call(arguments: list[str], said: Path, before: Callable[[], None] | None) -> None:
    os.setsid()
    for number in (signal.SIGHUP, signal.SIGQUIT):  # which a shell's background job may ignore
        signal.signal(number, signal.SIG_DFL)
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    if before is not None:
        before()
    main(arguments)


def finish(arguments: Sequence[str], said: Path, before: Callable[[], None] | None = None) -> tuple[int | None, str]:
    """Run a command to its end: exit code, and what it said."""
    with started(arguments, said, before) as command:
        code = command.code()
        return code, command.text()


def wait_until(what: Callable[[], bool], seconds: float = HANG, pause: float = 0.002) -> bool:
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True


def one_line(text: str) -> bool:
    """Whether a command failed with one line of its own."""
    before, _, message = text.rstrip().partition("alexnet: ")  # what is before may be a line of stdout that was cut
    return bool(message) and "\n" not in message and "alexnet: " not in message and "Traceback" not in before


# What a run has come to ---------------------------------------------------------------------------------------------------


def rows(run: Path) -> list[dict[str, Any]]:
    """log.jsonl without what depends on the clock; a line that was cut by a kill is left out."""
    path = run / "log.jsonl"
    text = path.read_text() if path.exists() else ""
    found = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [{key: value for key, value in row.items() if key not in CLOCK} for row in found]


def logged_step(run: Path) -> int:
    return max((row["step"] for row in rows(run)), default=0)


def saved_step(run: Path) -> int:
    """The step that a resumed run starts from."""
    pointer = run / "checkpoint" / "last"
    return int(pointer.read_text().strip().removeprefix("step-").partition(".")[0]) if pointer.exists() else 0


def final(run: Path) -> dict[str, str]:
    """SHA-256 of weights, velocities, log, table and results, without what depends on the clock."""
    last = run / "checkpoint" / (run / "checkpoint" / "last").read_text().strip()
    kept = [*last.glob("*.safetensors"), run / "model" / "model.safetensors", run / "summary.csv", run / "signal.json"]
    files = {path.name: path.read_bytes() for path in kept}
    files["log"] = json.dumps(rows(run)).encode()
    for path in sorted((run / "results").glob("final-*.json")):
        result = json.loads(path.read_text())
        files[path.name] = json.dumps({key: value for key, value in result.items() if "second" not in key}).encode()
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def same(run: Path, expected: dict[str, str]) -> list[str]:
    """The names of what differs."""
    found = final(run)
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))


def uninterrupted(data: Path, folder: Path) -> tuple[dict[str, str], float]:
    """The tiny run to its end: what it comes to, and the seconds it took."""
    finish(["--version"], folder / "whole.txt")  # the first process waits for what all are forked from
    began = time.monotonic()
    code, text = finish(training(data, folder / "whole"), folder / "whole.txt")
    assert code == 0, text
    return final(folder / "whole"), time.monotonic() - began


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
