"""Commands killed, stopped, starved and told to stop, and what is left of what they did."""

from __future__ import annotations

import ctypes
import os
import random
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np
from faults import (
    HANG,
    INTERVAL,
    Command,
    Figure,
    finish,
    logged_step,
    one_line,
    remove,
    same,
    saved_step,
    started,
    training,
    uninterrupted,
    wait_until,
)

from shared import content, make_photographs

STOPPED = 75
LEFT = 130
STEPS = 28

# kill -9 --------------------------------------------------------------------------------------------------------------------


def kills(data: Path, folder: Path, count: int, seed: int, reach: float = 1.0) -> Figure:
    """Kill the tiny run at random moments of the first ``reach`` of its length, start it again until it ends, compare; with
    new runs until ``count`` kills have hit one."""
    expected, seconds = uninterrupted(data, folder)
    draw, figure, when, repeated = random.Random(seed), Figure(), Counter[str](), []
    runs = 0
    while figure.count < count:
        out, runs, attempts = folder / f"run-{runs}", runs + 1, 0
        code: int | None = None
        while code != 0 and attempts < 50 * count:
            attempts, began = attempts + 1, time.monotonic()
            with started(training(data, out), folder / "said.txt") as command:
                if figure.count < count:
                    command.process.join(draw.uniform(0, reach * seconds))
                    if command.process.exitcode is None:
                        command.send(signal.SIGKILL)
                        code = command.code()
                        if code == -signal.SIGKILL:  # else it ended in this moment
                            figure.count += 1
                            when[_phase(out)] += 1
                            repeated.append(logged_step(out) - saved_step(out))
                            continue
                code = command.code()
            if code != 0:
                figure.check(False, f"run {runs}: exit code {code}: {command.text()[-300:]}")
                break
            if attempts == 1:
                seconds = time.monotonic() - began  # the machine has become faster since
        if code == 0:
            figure.check(not (differ := same(out, expected)), f"run {runs}: {', '.join(differ)} differ")
            figure.check((out / "report.html").is_file(), f"run {runs}: no report")
            left = sorted(path.name for path in out.glob("[!.]*/*.tmp*"))
            figure.check(not left, f"run {runs}: {', '.join(left)} stay for ever")
        remove(out)
    figure.check(max(repeated, default=0) <= INTERVAL, f"{max(repeated, default=0)} steps had to be repeated")
    figure.details = {"runs": runs, "killed": dict(when), "steps_repeated_at_most": max(repeated, default=0)}
    return figure


def _phase(out: Path) -> str:
    """Where a run was when it was killed, as far as its files tell."""
    if any(out.glob("checkpoint/*.tmp*")) or any(out.glob("checkpoint/.*.tmp-*")):
        return "in a save"
    if not (out / "log.jsonl").exists():
        return "before the first step"
    return "while training" if saved_step(out) < STEPS else "after the last step"


def prepare_kills(folder: Path, count: int, seed: int) -> Figure:
    """Kill ``alexnet prepare`` in two processes at random moments; every other time its workers as well."""
    source = make_photographs(folder / "source", train=60, val=10)
    (source / "train" / "red" / "3.png").write_bytes(b"no image")
    command = partial(_preparing, source)
    finish(["--version"], folder / "said.txt")  # the first process waits for what all are forked from
    began = time.monotonic()
    code, text = finish(command(folder / "whole"), folder / "said.txt")
    assert code == 0, text
    seconds, expected = time.monotonic() - began, content(folder / "whole")
    draw, figure, sets = random.Random(seed), Figure(), 0
    while figure.count < count:
        out, sets = folder / f"set-{sets}", sets + 1
        for _ in range(3):
            with started(command(out), folder / "said.txt") as running:
                running.process.join(draw.uniform(0, seconds))
                if running.process.exitcode is None and figure.count < count:
                    if figure.count % 2 and _leads(running.pid):
                        os.killpg(running.pid, signal.SIGKILL)
                    else:
                        running.send(signal.SIGKILL)
                    figure.count += running.code() == -signal.SIGKILL
        code, text = finish(command(out), folder / "said.txt")
        figure.check(code == 0, f"set {sets}: exit code {code}: {text[-300:]}")
        if code == 0:
            figure.check(content(out) == expected, f"set {sets} differs")
        remove(out)
    figure.details = {"sets": sets}
    return figure


def _preparing(source: Path, out: Path) -> list[str]:
    return ["prepare", str(source), str(out), "--size", "36", "--workers", "2", "--max-bad", "1"]


def _leads(pid: int) -> bool:
    with suppress(ProcessLookupError):
        return os.getpgid(pid) == pid
    return False


# Signals --------------------------------------------------------------------------------------------------------------------


def signals(data: Path, folder: Path, number: int, count: int, seed: int, *, twice: bool = False) -> Figure:
    """Ask a run to stop at random moments, once its handler stands; start it again until it ends; compare. ``count``: how often
    it stopped."""
    expected, seconds = uninterrupted(data, folder)
    draw, figure, ended, later, notes = random.Random(seed), Figure(), Counter[int | None](), [], Counter[str]()
    runs, waited = 0, []
    while figure.count < count:
        out, runs = folder / f"run-{runs}", runs + 1
        code: int | None = None
        while code != 0:
            with started(training(data, out), folder / "said.txt") as command:
                if figure.count < count:
                    wait_until(lambda c=command: c.catches(signal.SIGTERM) or not c.process.is_alive())
                    command.process.join(draw.uniform(0, 0.7 * seconds))
                if figure.count >= count or not command.catches(signal.SIGTERM):
                    code = command.code()  # it has ended, or is writing its report
                    seconds *= 0.9
                    if code != 0:
                        figure.check(False, f"run {runs}: exit code {code}: {command.text()[-300:]}")
                        break
                    continue
                asked = time.monotonic()
                command.send(number)
                logged = logged_step(out)
                if twice and wait_until(lambda c=command: "once more" in c.text() or not c.process.is_alive()):
                    command.send(number)
                code = command.code()
                waited.append(time.monotonic() - asked)
                figure.count += code != 0  # else the report was being written, after everything else
                ended[code] += 1
                figure.check(not command.session(), f"run {runs}: processes left behind")
                figure.check("Traceback" not in command.text(), f"run {runs}: {command.text()[-300:]}")
                figure.check(not _shared_memory(command), f"run {runs}: left in /dev/shm")
            if code == STOPPED:
                later.append(saved_step(out) - logged)
                figure.check(saved_step(out) == logged_step(out), f"run {runs}: steps lost")
                figure.check(one_line(command.text()), f"run {runs}: said {command.text()[-300:]}")
                notes["after the last step" if "after the last step" in command.text() else "in training"] += 1
            elif code == LEFT and twice:
                figure.check(logged_step(out) - saved_step(out) <= INTERVAL, f"run {runs}: more than an interval lost")
            elif code != 0 and not (code in (-number, LEFT) and (out / "results" / "final-ten.json").exists()):
                figure.check(False, f"run {runs}: exit code {code}: {command.text()[-300:]}")
                break  # else the report was being written, after everything else
        if code == 0:
            figure.check(not (differ := same(out, expected)), f"run {runs}: {', '.join(differ)} differ")
        remove(out)
    most = max(later, default=0)
    figure.check(most <= 1, f"{most} steps after the one that was under way")
    figure.details = {
        "runs": runs,
        "exit_codes": {str(code): times for code, times in sorted(ended.items(), key=str)},
        "stopped": dict(notes),
        "steps_finished_after_the_signal_at_most": most,
        "seconds_until_the_end_at_most": round(max(waited), 2),
    }
    return figure


def _shared_memory(command: Command) -> list[str]:
    folder = Path("/dev/shm")
    return [path.name for path in folder.iterdir() if str(command.pid) in path.name] if folder.is_dir() else []


# Readers ---------------------------------------------------------------------------------------------------------------------


def slow_decoding() -> None:
    """As if each image took 20 ms to come."""
    from alexnet.data import shards

    load = shards.load_image
    shards.load_image = lambda *arguments: (time.sleep(0.02), load(*arguments))[1]


def workers_lost(folder: Path, count: int, seed: int) -> Figure:
    """Workers of ``prepare`` are killed, crash, end or are stopped in turn; the next call finishes the set."""
    source = make_photographs(folder / "source", train=60, val=10)
    (source / "train" / "red" / "3.png").write_bytes(b"no image")
    code, text = finish(_preparing(source, folder / "whole"), folder / "said.txt")
    assert code == 0, text
    expected, draw, figure = content(folder / "whole"), random.Random(seed), Figure()
    numbers = (signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV, signal.SIGTERM)
    noticed: dict[str, float] = {}
    for trial in range(count):
        number, out = numbers[trial % len(numbers)], folder / "set"
        remove(out)
        with started(_preparing(source, out), folder / "said.txt", slow_decoding) as command:
            wait_until(lambda c=command: len(_children(c.pid)) == 2 or not c.process.is_alive())
            command.process.join(draw.uniform(0, 0.5))
            victim = draw.choice(_children(command.pid) or [0])
            if not victim:
                figure.check(False, f"trial {trial}: no worker to send a signal to: {command.text()[-300:]}")
                continue
            began = time.monotonic()
            os.kill(victim, number)
            code, text = command.code(), command.text()
            seconds = time.monotonic() - began
            noticed[number.name] = max(noticed.get(number.name, 0.0), round(seconds, 1))
            figure.count += 1
            named = code == 1 and f"worker process {victim} was" in text and one_line(text)
            figure.check(named, f"{number.name}: exit code {code}: {text[-300:]}")
            figure.check(wait_until(lambda c=command: not c.session(), 10), f"{number.name}: processes left behind")
        code, text = finish(_preparing(source, out), folder / "said.txt")
        figure.check(code == 0 and content(out) == expected, f"{number.name}: the set differs ({code}): {text[-300:]}")
    figure.details = {"seconds_until_noticed_at_most": noticed}
    return figure


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def spoiled_reading(kind: str, read: int) -> None:
    """Have the ``read``-th batch of training images hang for ever, or be damaged; a batch may take two seconds."""
    from alexnet.core.errors import DataError
    from alexnet.data.packed import PackedSplit
    from alexnet.training import trainer

    original, lock, reads = PackedSplit.read, threading.Lock(), [0]

    def spoiled(self: PackedSplit, index_B: np.ndarray) -> np.ndarray:
        if self.name == "train" and len(index_B) <= 8:
            with lock:
                reads[0] += 1
                mine = reads[0]
            if mine == read:
                if kind == "hangs":
                    threading.Event().wait()
                raise DataError("image 5 (red/5.png) is damaged")
        return original(self, index_B)

    PackedSplit.read = spoiled  # type: ignore[method-assign]
    trainer.batches = partial(trainer.batches, timeout=2.0)  # type: ignore[attr-defined]


def readers_lost(data: Path, folder: Path, count: int, seed: int) -> Figure:
    """Reading hangs, or meets a damaged image, at a random batch: what was computed is saved, the place is named, the process
    ends, and goes on with nothing lost."""
    expected, _ = uninterrupted(data, folder)
    draw, figure = random.Random(seed), Figure()
    longest = 0.0
    for trial in range(count):
        kind, out, read = ("hangs", "is damaged")[trial % 2], folder / f"run-{trial}", draw.randint(1, STEPS)
        before = partial(spoiled_reading, kind, read)
        began = time.monotonic()
        code, text = finish(training(data, out, "--workers", str(draw.randint(1, 3))), folder / "said.txt", before)
        longest = max(longest, time.monotonic() - began)
        figure.count += 1
        expect, words = (1, r"batch at position \d+ took longer than 2 s") if kind == "hangs" else (4, "image 5")
        named = code == expect and re.search(words, text) is not None and one_line(text)
        figure.check(named, f"read {read} {kind}: exit code {code}: {text[-300:]}")
        figure.check(saved_step(out) == logged_step(out), f"read {read} {kind}: steps lost")
        code, text = finish(training(data, out), folder / "said.txt")
        figure.check(code == 0 and not same(out, expected), f"read {read} {kind}: goes on otherwise ({code})")
        remove(out)
    figure.details = {"seconds_of_a_run_that_was_given_up_at_most": round(longest, 1)}
    return figure


# Disks, memory, locks --------------------------------------------------------------------------------------------------------


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[bool]:
    """A file system of ``size`` bytes at ``folder``; False where this user may not mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={size}"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], capture_output=True)
    try:
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def limit_file_size(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def full_disk(data: Path, folder: Path, seed: int) -> Figure:
    """A disk of one and a half checkpoints; one that fills up while training; files that may not grow beyond a limit."""
    expected, _ = uninterrupted(data, folder)
    checkpoint = sum(path.stat().st_size for path in (folder / "whole/checkpoint/step-28").iterdir())
    figure, draw, said = Figure(), random.Random(seed), folder / "said.txt"

    for size in (checkpoint // 2, checkpoint * 3 // 4):  # less than weights, less than what else there is
        out = folder / f"limit-{size}"
        code, text = finish(training(data, out), said, partial(limit_file_size, size))
        figure.count += 1
        figure.check(code in (0, 1) and (code == 0 or one_line(text)), f"files of {size} bytes: {code}: {text[-300:]}")
        figure.check(not any(out.glob("checkpoint/*.tmp*")), f"files of {size} bytes: temporary files left")
        code, text = finish(training(data, out), said)
        figure.check(code == 0 and not same(out, expected), f"files of {size} bytes: goes on otherwise: {text[-300:]}")

    disk = folder / "disk"
    with small_disk(disk, checkpoint * 3 // 2) as mounted:
        if mounted:
            code, text = finish(training(data, disk / "run"), said)
            figure.count += 1
            refused = code == 1 and one_line(text) and "checkpoints need" in text
            figure.check(refused, f"one and a half checkpoints: {code}: {text[-300:]}")
    for _ in range(3):
        with small_disk(disk, 4 << 20) as mounted:
            if not mounted:
                figure.details["left_out"] = "no file system may be mounted here"
                break
            step = draw.randint(1, 20)
            with started(training(data, disk / "run"), said) as command:
                wait_until(lambda s=step, c=command: logged_step(disk / "run") >= s or not c.process.is_alive())
                fill(disk / "filler")
                code, text = command.code(), command.text()
            figure.count += 1
            figure.check(code == 1 and one_line(text), f"full after step {step}: {code}: {text[-300:]}")
            (disk / "filler").unlink()
            figure.check(
                logged_step(disk / "run") - saved_step(disk / "run") <= INTERVAL, f"full after step {step}: lost"
            )
            code, text = finish(training(data, disk / "run"), said)
            good = code == 0 and not same(disk / "run", expected)
            figure.check(good, f"full after step {step}: goes on otherwise: {text[-300:]}")
            figure.details.setdefault("full_after_step", []).append(step)
    return figure


def fill(path: Path) -> None:
    """Take all the room there is."""
    with suppress(OSError), open(path, "wb", buffering=0) as file:
        size = 1 << 16
        while size:
            try:
                file.write(b"x" * size)
            except OSError:
                size //= 2


def without_shared_memory() -> None:
    """A /dev/shm in which nothing can be made, for this process alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    clone_newns, ms_rec_private = 0x00020000, 0x4000 | (1 << 18)
    if libc.unshare(clone_newns) or libc.mount(b"none", b"/", None, ms_rec_private, None):
        sys.exit(99)
    if libc.mount(b"none", b"/dev/shm", b"tmpfs", 0, b"size=4k,nr_inodes=1"):
        sys.exit(99)


def little_memory(more: int) -> None:
    """No more address space than there is now, and ``more`` bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


# Long runs -------------------------------------------------------------------------------------------------------------------


def long_run(data: Path, folder: Path, steps: int) -> Figure:
    """Memory, open files and threads of one process over ``steps`` steps, from a tenth of them on."""
    epochs = -(-steps // 27)  # batches of 2 of 54 images
    options = ("--epochs", str(epochs), "--batch-size", "2", "--checkpoint-steps", "500", "--workers", "2")
    out, figure, seen = folder / "long", Figure(count=steps), []
    with started(training(data, out, *options), folder / "said.txt") as command:
        for step in range(steps // 10, steps + 1, steps // 20):
            wait_until(lambda s=step, c=command: _last_step(out) >= s or not c.process.is_alive(), 6 * HANG, 0.05)
            if command.process.is_alive():
                seen.append((step, *_in_use(command.pid)))
        code = command.code(6 * HANG)
        figure.check(code == 0, f"exit code {code}: {command.text()[-300:]}")
    figure.check(len(seen) > 5, f"looked {len(seen)} times only")
    memory, files, threads = (np.array([row[i] for row in seen]) for i in (1, 2, 3))
    growth = (memory.max() - memory[0]) / 1e6
    figure.check(growth < 20, f"memory grew by {growth:.1f} MB")
    figure.check(files.max() <= files[0] + 1, f"open files: {files.tolist()}")  # +1: one being written
    figure.check(threads.max() <= threads[0] + 2, f"threads: {threads.tolist()}")  # readers come and go with an epoch
    figure.details = {
        "steps": int(_last_step(out)),
        "memory_growth_MB": round(float(growth), 1),
        "memory_MB": [round(value / 1e6, 1) for value in memory.tolist()],
        "open_files": files.tolist(),
        "threads": threads.tolist(),
    }
    return figure


def _last_step(out: Path) -> int:
    with suppress(OSError), open(out / "log.jsonl", "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 4000))
        steps = re.findall(rb'"step": (\d+)', file.read())
        return int(steps[-1]) if steps else 0
    return 0


def _in_use(pid: int) -> tuple[int, int, int]:
    """Anonymous memory in bytes, open files, threads."""
    status = Path(f"/proc/{pid}/status").read_text()
    memory = int(re.findall(r"RssAnon:\s+(\d+) kB", status)[0]) * 1024
    threads = int(re.findall(r"Threads:\s+(\d+)", status)[0])
    return memory, len(list(Path(f"/proc/{pid}/fd").iterdir())), threads
