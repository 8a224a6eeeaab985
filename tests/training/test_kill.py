"""kill -9 at random moments loses nothing: the same command with --resume ends with the same bytes."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from alexnet.cli import main

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["alexnet.recipes.run", "alexnet.cli", "torch.utils.tensorboard"])


def command(data: Path, out: Path) -> list[str]:
    """A run of 28 steps with dropout and all augmentation on."""
    tiny = "--size 36 --preprocessing.resize 36 --preprocessing.crop 32 --model.input-size 32 --model.fc-units 16 16"
    tiny += " --model.conv-channels 8 8 8 8 8 --model.conv-kernels 5 3 3 3 3 --model.conv-padding 2 1 1 1 1"
    tiny += " --epochs 4 --batch-size 8 --checkpoint-steps 3 --threads 1 --device cpu"
    return ["train", "quickstart", "--data", str(data), "--out", str(out), "--resume", *tiny.split()]


def fingerprint(run: Path) -> dict[str, str]:
    """Of the final weights, velocities and rows of the log, without what depends on the clock."""
    last = run / "checkpoint" / (run / "checkpoint" / "last").read_text().strip()
    files = {p.name: p.read_bytes() for p in [*last.glob("*.safetensors"), run / "model" / "model.safetensors"]}
    clock = ("images_per_second", "data_seconds", "seconds")
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    files["log"] = json.dumps([{k: v for k, v in row.items() if k not in clock} for row in rows]).encode()
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def start(arguments: list[str]) -> multiprocessing.process.BaseProcess:
    process = CONTEXT.Process(target=main, args=(arguments,))
    process.start()
    return process


def finish(arguments: list[str]) -> float:
    """Run to the end; seconds it took."""
    began, process = time.monotonic(), start(arguments)
    process.join(120)
    assert process.exitcode == 0
    return time.monotonic() - began


def run_with_kills(data: Path, out: Path, kills: int, seconds: float, seed: int) -> None:
    """Kill the run ``kills`` times at uniformly random moments of its length, then let it finish."""
    random_state = random.Random(seed)
    for _ in range(kills):
        process = start(command(data, out))
        process.join(random_state.uniform(0, seconds))
        if process.exitcode is None:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
        process.join(30)
        assert process.exitcode in (0, -signal.SIGKILL)
    finish(command(data, out))


@pytest.mark.timeout(600)
def test_twenty_kills_at_random_moments_change_no_byte(tiny_set, tmp_path):
    seconds = finish(command(tiny_set.path, tmp_path / "whole"))
    expected = fingerprint(tmp_path / "whole")
    # three interrupted runs, 20 kills in all: one that dies young again and again, two at any moment
    for i, (kills, longest) in enumerate([(6, 0.5 * seconds), (7, seconds), (7, seconds)]):
        run_with_kills(tiny_set.path, tmp_path / f"killed{i}", kills, longest, seed=i)
        assert fingerprint(tmp_path / f"killed{i}") == expected
