"""Kills, signals, a full disk, damaged files, readers and workers and ranks that die: made here, for real."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet.core.device import Machine
from alexnet.core.errors import AlexNetError
from alexnet.data.check import check
from alexnet.data.loader import ReadTimeoutError, batches
from alexnet.data.packed import HEADER_BYTES, open_packed
from alexnet.distributed.launch import number, run_local
from alexnet.recipes.run import train
from alexnet.selftest.checks import BrokenError, NotHereError, require
from alexnet.selftest.scene import (
    HANG_SECONDS,
    INTERVAL,
    SIZE,
    Scene,
    content,
    ended,
    final,
    finish,
    last_line,
    logged_step,
    said_by,
    saved_step,
    speak_into,
    started,
    unlike,
    wait_until,
)
from alexnet.training.checkpoint import load_checkpoint, save_checkpoint
from alexnet.training.config import TrainConfig

NOTICED_SECONDS = 30.0
"""Seconds within which a dead rank must be named."""
READ_SECONDS = 0.5
"""Seconds that a reader may take, in the check of one that hangs."""
FLIPS, CUTS = 60, 20
TRIES = 3
"""How often to try a fault that must hit a command while it works."""


def kill(scene: Scene) -> str:
    expected, seconds = scene.whole
    moments, deadline = random.Random(scene.seed), time.monotonic() + scene.kill_seconds
    kills = runs = repeated = 0
    while runs == 0 or (kills < scene.kills and time.monotonic() < deadline):
        out, code = scene.folder / f"killed-{runs}", -1
        runs += 1
        while code:
            enough = kills >= scene.kills or time.monotonic() >= deadline
            with started(scene.training(out), out) as process:
                if not enough:
                    process.join(moments.uniform(0, seconds))
                    process.kill()
                code = ended(process)
            kills += code == -signal.SIGKILL
            repeated = max(repeated, logged_step(out) - saved_step(out))
            require(code in (0, -signal.SIGKILL), f"after kill {kills}: exit {code}: {_said(out)}")
        differs = unlike(final(out), expected)
        require(not differs, f"after {kills} kills the finished run differs in {differs}")
        shutil.rmtree(out)
    if kills < scene.kills // 4:
        raise NotHereError(f"too slow: {kills} kills in {scene.kill_seconds:g} s, {scene.kills} are wanted")
    require(repeated <= INTERVAL, f"{repeated} steps were lost by a kill; checkpoints are {INTERVAL} apart")
    return f"{kills} kill -9 in {runs} runs of {seconds:.1f} s: no byte differs, at most {repeated} steps done again"


def stop(scene: Scene) -> str:
    expected, _ = scene.whole
    out, stops, slowest = scene.folder / "stopped", [], 0.0
    for told in (signal.SIGTERM, signal.SIGINT):
        with started(scene.training(out), out) as process:
            _await_step(out, saved_step(out) + 2)
            begin = time.monotonic()
            os.kill(_pid(process), told)
            code = ended(process)
        _require_hit(code)
        slowest = max(slowest, time.monotonic() - begin)
        require(code == 75, f"{told.name}: exit {code}, not 75: {_said(out)}")
        lost = logged_step(out) - saved_step(out)
        require(not lost, f"{told.name}: stopped at step {logged_step(out)}, of which {lost} are not saved")
        stops.append(f"{told.name} at step {saved_step(out)}")
    code, text = finish(scene.training(out), out)
    require(code == 0, f"resumed: exit {code}: {last_line(text)}")
    differs = unlike(final(out), expected)
    require(not differs, f"the resumed run differs in {differs}")
    return f"{' and '.join(stops)}: exit 75 after {slowest:.1f} s, no step lost, no byte differs in the end"


def disk_full(scene: Scene) -> str:
    expected, _ = scene.whole
    out = scene.folder / "full"
    with started(scene.training(out), out) as process:
        require(wait_until(lambda: saved_step(out) > 0), f"no checkpoint was made: {_said(out)}")
        process.kill()
        _require_hit(ended(process))
    checkpoint, step = out / "checkpoint" / f"step-{saved_step(out)}", saved_step(out)
    before = content(checkpoint)
    room = max(file.stat().st_size for file in checkpoint.iterdir()) // 2
    code, text = finish(scene.training(out), out, file_bytes=room)
    require(code == 1, f"a save with room for {room:,} bytes: exit {code}, not 1: {last_line(text)}")
    said = [line for line in text.splitlines() if line.startswith("alexnet: ")]
    named = len(said) == 1 and str(out) in said[0] and "Traceback" not in text
    require(named, f"not one line that names the folder of the run: {last_line(text)}")
    require(saved_step(out) == step, f"`last` points at step {saved_step(out)}, which was not saved")
    differs = unlike(content(checkpoint), before)
    require(not differs, f"the checkpoint before it was changed: {differs}")
    leftover = [path.name for path in (out / "checkpoint").iterdir() if "tmp" in path.name]
    require(not leftover, f"left behind: {', '.join(leftover)}")
    code, text = finish(scene.training(out), out)
    require(code == 0, f"resumed with room again: exit {code}: {last_line(text)}")
    differs = unlike(final(out), expected)
    require(not differs, f"resumed with room again, the run differs in {differs}")
    return f"a save with room for half of it: exit 1, one line, step {step} intact; resumed with room, no byte differs"


def rot_packed(scene: Scene) -> str:
    draws, folder = random.Random(scene.seed), scene.packed.path
    names = scene.packed.split("train").paths
    files = sorted(path for path in folder.iterdir() if path.is_file())
    images = 0
    for name, damage in _damages(draws, [*files, *[folder / "train.images.npy"] * len(files)]):
        with _damaged(folder / name, damage, draws) as at:
            faults = check(folder)["faults"]
        said = " ".join(f"{fault['path']} {fault['reason']}" for fault in faults)
        require(bool(faults), f"{damage} at byte {at:,} of {name} was not found")
        require(name in said, f"{damage} at byte {at:,} of {name}: named as {said[:200]}")
        if name == "train.images.npy" and damage == "flip" and at >= HEADER_BYTES:
            image = (at - HEADER_BYTES) // (SIZE * SIZE * 3)
            require(names[image] in said, f"a flip in image {image} ({names[image]}) was named as {said[:200]}")
            images += 1
    return f"{FLIPS} flipped bits and {CUTS} cut ends in {len(files)} files: all found and named, {images} by the image"


def rot_checkpoint(scene: Scene) -> str:
    draws, sound, folder = random.Random(scene.seed), scene.folder / "sound", scene.folder / "rotten"
    for step in (1, 2):
        tensors = {"model": {"w": torch.full((40, 50), float(step))}, "optimizer": {"w/velocity": torch.ones(2000)}}
        save_checkpoint(sound, step, tensors, {"step": step}, best=False)
    for name, damage in _damages(draws, sorted((sound / "step-2").iterdir())):
        shutil.copytree(sound, folder)
        with _damaged(folder / "step-2" / name, damage, draws) as at:
            checkpoint, faults = load_checkpoint(folder)
            shutil.rmtree(folder)
        where = f"{damage} at byte {at:,} of {name}"
        require(checkpoint is not None and checkpoint.step == 1, f"{where}: the damaged checkpoint was taken")
        require(len(faults) == 1 and "step-2" in faults[0] and name in faults[0], f"{where}: named as {faults}")
    return f"{FLIPS} flipped bits and {CUTS} cut ends: all found and named, the checkpoint before was taken each time"


def _damages(draws: random.Random, files: list[Path]) -> Iterator[tuple[str, str]]:
    for case in range(FLIPS + CUTS):
        yield draws.choice(files).name, "flip" if case < FLIPS else "cut"


@contextmanager
def _damaged(file: Path, damage: str, draws: random.Random) -> Iterator[int]:
    """Damage a file: flip one bit or cut off its end. Gives the byte where the damage begins. Afterward the file, if it still
    exists, is as it was."""
    whole = file.read_bytes()
    at = draws.randrange(len(whole) - 1)  # without its last byte a JSON file says the same
    rotten = bytearray(whole[:at] if damage == "cut" else whole)
    if damage == "flip":
        rotten[at] ^= 1 << draws.randrange(8)
    file.write_bytes(rotten)
    try:
        yield at
    finally:
        if file.exists():
            file.write_bytes(whole)


class _HangingSplit:
    """Images of which those from the ninth on are never read."""

    def __init__(self) -> None:
        self.labels = np.zeros(32, dtype=np.int64)
        self.released = threading.Event()

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index_B: NDArray[np.int64]) -> NDArray[np.uint8]:
        if index_B.max() >= 8:
            self.released.wait(20 * READ_SECONDS)
        return np.zeros((len(index_B), 4, 4, 3), dtype=np.uint8)


def reader(scene: Scene) -> str:
    split, begin = _HangingSplit(), time.monotonic()
    try:
        for batch in batches(split, np.arange(32), 4, workers=2, timeout=READ_SECONDS):
            first = int(batch.position_B[0])
            require(first < 8, f"a reader that hung for {20 * READ_SECONDS:g} s was waited for")
        raise BrokenError("a reader that hung was not noticed")
    except ReadTimeoutError as error:
        seconds = time.monotonic() - begin
        require("position 8" in str(error), f"the batch that hung is not named: {error}")
        require(seconds < 10 * READ_SECONDS, f"noticed after {seconds:.1f} s, not after {READ_SECONDS:g}")
    finally:
        split.released.set()
    return f"a reader that hangs: noticed after {seconds:.1f} s, the batch named, the others not waited for"


def worker(scene: Scene) -> str:
    if not Path("/proc/self/stat").exists():
        raise NotHereError("no /proc to find the processes of another process in")
    expected = content(scene.packed.path)
    for attempt in range(TRIES):
        out = scene.folder / f"worker-{attempt}"
        command = ["prepare", str(scene.photographs), str(out), "--size", str(SIZE), "--workers", "2"]
        with started(command, out) as process:
            victim = _first_child(process)
            if victim is not None:
                with suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
            code = ended(process)
        if code == 0:
            continue  # the set is so small that its workers were done
        text = _said(out)
        require(code == 1, f"prepare ended with {code}, not 1: {text}")
        require(f"worker process {victim} was killed by SIGKILL" in text, f"the worker is not named: {text}")
        code, text = finish(command, out)
        require(code == 0, f"prepared again: exit {code}: {last_line(text)}")
        differs = unlike(content(out), expected)
        require(not differs, f"prepared again, the set differs in {differs}")
        return "a worker of prepare killed: exit 1, the process named; prepared again, no byte differs"
    raise NotHereError(f"prepare was done before a worker could be killed, {TRIES} times")


def rank(scene: Scene) -> str:
    out, begin = scene.folder / "ranks-die", time.time()
    try:
        run_local(train_in_rank, 2, scene.config, str(out), INTERVAL + 1, timeout=HANG_SECONDS)
        raise BrokenError("a job of two ranks ended well although one was killed")
    except AlexNetError as error:
        died = _moment(out)
        seconds = time.time() - (died.stat().st_mtime if died.exists() else begin)
        require("rank 1 of 2" in str(error) and "SIGKILL" in str(error), f"the dead rank is not named: {error}")
    require(seconds < NOTICED_SECONDS, f"named after {seconds:.1f} s")
    step, saved = logged_step(out), saved_step(out)
    require(step - saved <= INTERVAL, f"killed at step {step}, step {saved} is the last that was saved")
    return f"one of two ranks killed at step {step}: named after {seconds:.1f} s, step {saved} is saved"


def train_in_rank(config: TrainConfig, out: str, dies_at: int | None = None) -> None:
    """The run of a rank, the second of which is killed when ``dies_at`` steps have been logged."""
    speak_into(said_by(Path(out)))
    if dies_at is not None and number() == 1:
        threading.Thread(target=_die, args=(Path(out), dies_at), daemon=True).start()
    machine = Machine(device=torch.device("cpu"), quiet=True)
    train(config, out, machine, data=open_packed(config.data), report=False)


def _die(out: Path, step: int) -> None:
    wait_until(lambda: logged_step(out) >= step)
    _moment(out).touch()
    os.kill(os.getpid(), signal.SIGKILL)


def _moment(out: Path) -> Path:
    return out.with_suffix(".died")


def _require_hit(code: int) -> None:
    if code == 0:
        raise NotHereError("the run was over before anything could happen to it")


def _await_step(out: Path, step: int) -> None:
    require(wait_until(lambda: logged_step(out) >= step), f"step {step} was not reached: {_said(out)}")


def _first_child(process: BaseProcess) -> int | None:
    """The first process that is seen among those that one starts; None if that one ends before."""
    deadline = time.monotonic() + HANG_SECONDS
    while process.exitcode is None and time.monotonic() < deadline:
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == process.pid:
                    return int(folder.name)
    return None


def _pid(process: BaseProcess) -> int:
    assert process.pid is not None
    return process.pid


def _said(out: Path) -> str:
    return last_line(said_by(out).read_text(errors="replace")) if said_by(out).exists() else "it said nothing"
