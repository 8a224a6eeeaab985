"""Faults of single system calls, injected by strace: into the saving of checkpoints, and into a whole run.

A process that has everything imported waits at a gate until strace holds it. Calls are counted without a fault first; then
the first, second, ... of each kind fails, or is the last thing the process does.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from faults import CONTEXT, HANG, Figure, finish, one_line, remove, same, training, uninterrupted, wait_until

from alexnet.cli import main, train
from alexnet.training.checkpoint import load_checkpoint, save_checkpoint
from alexnet.training.files import explained_faults

CHANGING = (
    "openat open creat write pwrite64 writev pwritev fsync fdatasync sync_file_range rename renameat renameat2 unlink unlinkat "
    "rmdir mkdir mkdirat truncate ftruncate fallocate link linkat symlink symlinkat copy_file_range sendfile"
).split()
"""System calls that open, write, sync, rename or delete."""
ERRORS = ("ENOSPC", "EIO", "EACCES", "EROFS", "EDQUOT")
OLD, SAVED = (1, 2, 3), (4, 5, 6)
"""Steps of the checkpoints that are there (the first is the best) and of those that are saved (4 is the best)."""


@cache
def strace_works() -> str:
    """Why faults cannot be injected here; empty if they can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    child = subprocess.Popen(["sleep", "30"])
    try:
        tracer = subprocess.Popen(["strace", "-qq", "-o", os.devnull, "-p", str(child.pid)], stderr=subprocess.PIPE)
        held = wait_until(lambda: _traced(child.pid) or tracer.poll() is not None, 20) and _traced(child.pid)
    finally:
        child.kill()
        child.wait()
    tracer.communicate()
    return "" if held else "strace may not hold a process here"


def _traced(pid: int) -> bool:
    with suppress(OSError):
        return "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text()
    return False


# What is saved ------------------------------------------------------------------------------------------------------------


def save(folder: Path, step: int) -> None:
    tensors = {
        "model": {"conv1.weight": torch.full((60, 50), step + 0.25), "fc8.bias": torch.arange(7.0) + step},
        "optimizer": {"conv1.weight/velocity": torch.full((60, 50), 0.5 - step)},
    }
    save_checkpoint(folder, step, tensors, {"step": step, "text": "x" * 300}, best=step in (OLD[0], SAVED[0]))


def is_sound(folder: Path, step: int) -> bool:
    """Whether exactly this step is what a run would go on from, to the last number."""
    found, passed_over = load_checkpoint(folder)
    if found is None or passed_over or found.step != step or found.state != {"step": step, "text": "x" * 300}:
        return False
    model, optimizer = found.tensors["model"], found.tensors["optimizer"]
    return (
        bool((model["conv1.weight"] == step + 0.25).all())
        and model["fc8.bias"].tolist() == [i + step for i in range(7)]
        and bool((optimizer["conv1.weight/velocity"] == 0.5 - step).all())
    )


def prepared(folder: Path) -> Path:
    """The checkpoints that are there before."""
    for step in OLD:
        save(folder, step)
    return folder


def _save_behind_gate(folder: Path, said: Path, gate: Connection) -> None:
    """Three saves, as the command line would report their failure. Each that returned is told through the gate."""
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    with tempfile.TemporaryDirectory() as place:
        for step in range(4):
            save(Path(place), step)  # whatever is imported or compiled late

    def saving(_arguments: list[str]) -> int:
        gate.send(0)
        gate.recv()
        with explained_faults(folder.parent):
            for step in SAVED:
                save(folder, step)
                gate.send(step)
        return 0

    train.train = saving
    os.chdir(folder.parent)
    main(["train"])


class Saving:
    """Three saves under strace, over and over on copies of the same folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.before = prepared(folder / "before" / "checkpoint")

    def run(self, *options: str) -> tuple[int | None, int, Path, str]:
        """Exit code, the last step whose save returned, the checkpoints, and what was said."""
        run = self.folder / "run"
        remove(run)
        shutil.copytree(self.before, run / "checkpoint")
        ours, theirs = CONTEXT.Pipe()
        said = self.folder / "said.txt"
        process = CONTEXT.Process(target=_save_behind_gate, args=(run / "checkpoint", said, theirs))
        process.start()
        theirs.close()
        try:
            assert ours.recv() == 0
            tracer = held_by_strace(process.pid, self.folder / "trace.txt", options)
            ours.send(True)
            process.join(HANG)
            tracer.communicate(timeout=HANG)
            reached = OLD[-1]
            with suppress(EOFError):
                while ours.poll():
                    reached = ours.recv()
            return process.exitcode, reached, run / "checkpoint", said.read_text()
        finally:
            process.kill()
            process.join()
            ours.close()

    def calls(self) -> list[str]:
        """What the saves do, one call a line, with the paths of open files."""
        code, reached, _, said = self.run("-y", "-e", f"trace={','.join(CHANGING)}")
        assert (code, reached) == (0, SAVED[-1]), said
        lines = (self.folder / "trace.txt").read_text().splitlines()
        own = re.compile(rf"<(pipe|socket|/dev/null|{re.escape(str(self.folder / 'said.txt'))})")
        return [line.partition(" ")[2].strip() for line in lines if not own.search(line) and "(" in line]

    def points(self) -> list[tuple[str, int]]:
        """Each system call of the saves, by name and number. Those of the gate are counted with them."""
        self.run("-e", f"trace={','.join(CHANGING)}")
        lines = (self.folder / "trace.txt").read_text().splitlines()
        names = Counter(re.findall(r"^\d+ +(\w+)\(", "\n".join(lines), re.M))
        return [(name, number) for name, count in names.items() for number in range(1, count + 1)]


def held_by_strace(pid: int | None, trace: Path, options: Sequence[str]) -> subprocess.Popen[bytes]:
    """strace, once it holds the process."""
    command = ["strace", "-f", "-qq", "-p", str(pid), "-o", str(trace), *options]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert wait_until(lambda: _traced(pid or 0) or tracer.poll() is not None)
    assert tracer.poll() is None, tracer.communicate()
    return tracer


# The promises -------------------------------------------------------------------------------------------------------------


def kills(folder: Path, every: int = 1) -> Figure:
    """Killed at each system call of three saves: what is loaded is the last one that returned, or the next one, whole; and
    the next save works."""
    saving, figure, loaded = Saving(folder), Figure(), Counter[str]()
    for name, number in saving.points()[::every]:
        code, reached, checkpoint, said = saving.run(
            "-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={number}"
        )
        figure.count += 1
        what = f"killed at {name} {number}"
        figure.check(code == -signal.SIGKILL, f"{what}: exit code {code}: {said[-200:]}")
        loaded[_after(checkpoint, reached, what, figure)] += 1
    figure.details = {"system_calls": dict(Counter(name for name, _ in saving.points())), "loaded": dict(loaded)}
    return figure


def errors(folder: Path, every: int = 1, names: Sequence[str] = ERRORS) -> Figure:
    """Each system call of three saves fails, with each error: exit 1 and one line; the rest as above."""
    saving, figure, loaded = Saving(folder), Figure(), Counter[str]()
    points = [(error, *point) for error in names for point in saving.points()]
    for error, name, number in points[::every]:
        code, reached, checkpoint, said = saving.run(
            "-e", f"trace={name}", "-e", f"inject={name}:error={error}:when={number}"
        )
        figure.count += 1
        what = f"{error} at {name} {number}"
        harmless = name == "mkdir" and (code, reached) == (0, SAVED[-1])  # of a folder that is there
        figure.check(harmless or (code == 1 and one_line(said)), f"{what}: exit code {code}: {said[-300:]}")
        explained = re.search("the last checkpoint is intact|there was no checkpoint yet", said)
        figure.check(harmless or explained is not None, f"{what}: {said[-300:]}")
        if name not in ("unlink", "unlinkat", "rmdir", "openat"):  # else it may be the removal itself that failed
            figure.check(not list(checkpoint.glob("*.tmp")), f"{what}: temporary files left")
        loaded[_after(checkpoint, reached, what, figure)] += 1
    figure.details = {"errors": list(names), "loaded": dict(loaded)}
    return figure


def _after(checkpoint: Path, reached: int, what: str, figure: Figure) -> str:
    """Which checkpoint is loaded after a fault in the save that follows ``reached``, and whether the run goes on."""
    if is_sound(checkpoint, reached):
        found = "the one before"
    elif is_sound(checkpoint, reached + 1):
        found = "the new one"
    else:
        found = "neither"
        figure.check(False, f"{what}: neither step {reached} nor {reached + 1} is loaded")
    save(checkpoint, SAVED[-1] + 1)
    best = checkpoint / (checkpoint / "best").read_text().strip() / "manifest.json"
    figure.check(best.exists(), f"{what}: the best checkpoint is gone")
    figure.check(is_sound(checkpoint, SAVED[-1] + 1), f"{what}: the next save is not loaded")
    left = sorted(path.name for path in checkpoint.iterdir() if "tmp" in path.name and not path.name.startswith("."))
    figure.check(not left, f"{what}: {', '.join(left)} stay for ever")
    return found


def order(folder: Path) -> Figure:
    """From the calls of three saves: content is synced before it gets its name, the name before anything else happens to the
    folder; and nothing is deleted while a rename may still be lost. In a folder that is not yet named all may happen, if in
    the end it is synced."""
    figure = Figure()
    unsynced: set[str] = set()
    renamed: set[str] = set()
    for call in Saving(folder).calls():
        name = call.partition("(")[0]
        opened = re.search(r"= \d+<(.*)>$", call)
        on = re.match(r"\w+\(\d+<([^>]*)>", call)
        paths = re.findall(r'"([^"]*)"', call)
        if name == "openat" and "O_CREAT" in call and opened:
            unsynced |= {opened[1], str(Path(opened[1]).parent)}
        elif name in ("write", "pwrite64", "writev", "ftruncate", "fallocate") and on:
            unsynced.add(on[1])
        elif name in ("fsync", "fdatasync") and on:
            unsynced.discard(on[1])
            renamed.discard(on[1])
        elif name.startswith("rename"):
            source, target = paths
            if Path(target).parent.suffix == ".tmp":
                unsynced = {target if path == source else path for path in unsynced} | {str(Path(target).parent)}
                continue
            lost = sorted(path for path in unsynced if path == source or path.startswith(f"{source}/"))
            figure.check(not lost, f"{Path(source).name} was renamed before the fsync of {', '.join(lost)}")
            figure.check(not renamed, f"{Path(source).name} was renamed before the fsync of {', '.join(renamed)}")
            renamed.add(str(Path(target).parent))
            figure.count += 1
        elif name in ("unlink", "unlinkat", "rmdir"):
            figure.check(not renamed, f"{paths[0]} was deleted before the fsync of {', '.join(renamed)}")
    figure.check(not renamed, f"no fsync of {', '.join(renamed)} in the end")
    figure.check(figure.count == 2 * len(SAVED) + 1, f"{figure.count} renames")
    return figure


# A whole run --------------------------------------------------------------------------------------------------------------


def _wait_for_tracer() -> None:
    wait_until(lambda: _traced(os.getpid()), pause=0.005)


def run_errors(data: Path, folder: Path, count: int, seed: int) -> Figure:
    """A random call of a run that writes, syncs, renames, makes or deletes fails, wherever it is: in training, saving,
    evaluating, reporting. Either it does no harm, or one line says so; and the run goes on to the same bytes."""
    expected, _ = uninterrupted(data, folder)
    figure, draw, codes = Figure(), random.Random(seed), Counter[str]()
    names = [name for name in CHANGING if not name.startswith(("open", "creat"))]
    code, _ = _traced_run(data, folder, folder / "counted", ("-e", f"trace={','.join(names)}"))
    assert code == 0
    made = Counter(re.findall(r"^\d+ +(\w+)\(", (folder / "trace.txt").read_text(), re.M))
    calls = [(name, number) for name, times in sorted(made.items()) for number in range(1, times + 1)]
    while figure.count < count:
        (name, number), error, out = draw.choice(calls), draw.choice(ERRORS), folder / "run"
        inject = f"inject={name}:error={error}:when={number}"
        code, said = _traced_run(data, folder, out, ("-e", f"trace={name}", "-e", inject))
        what = f"{error} at {name} {number}"
        figure.count += 1
        codes[str(code)] += 1
        figure.check(code == 0 or (code == 1 and one_line(said)), f"{what}: exit code {code}: {said[-300:]}")
        code, said = finish(training(data, out), folder / "said.txt")
        figure.check(code == 0, f"{what}: goes on with exit code {code}: {said[-300:]}")
        if code == 0:
            figure.check(not (differ := same(out, expected)), f"{what}: {', '.join(differ)} differ")
        remove(out)
    figure.details = {"system_calls": dict(made), "exit_codes": dict(codes)}
    return figure


def _traced_run(data: Path, folder: Path, out: Path, options: Sequence[str]) -> tuple[int | None, str]:
    from faults import started

    with started(training(data, out), folder / "said.txt", _wait_for_tracer) as command:
        tracer = held_by_strace(command.pid, folder / "trace.txt", options)
        code = command.code()
        tracer.communicate(timeout=HANG)
        return code, command.text()
