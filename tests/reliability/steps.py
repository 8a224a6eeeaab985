"""Runs within this process: resumed from every step, and stopped by numbers that are not finite."""

from __future__ import annotations

import csv
import json
import math
import os
import random
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from faults import Figure, remove, rows
from safetensors.torch import load_file

from alexnet.core.device import Machine
from alexnet.core.errors import AlexNetError, UsageError
from alexnet.data.packed import open_packed
from alexnet.data.prepare import resolve
from alexnet.training import checkpoint, trainer
from alexnet.training.config import TrainConfig
from alexnet.training.optimizer import OptimizerConfig
from alexnet.training.trainer import fit
from shared import make_photographs, tiny_training

QUIET = Machine(device=torch.device("cpu"), quiet=True)


def tiny(data: Path, **fields: Any) -> TrainConfig:
    """Dropout and all augmentation on; 40 steps: 5 epochs of 8, the last of 5 images."""
    return tiny_training(data, **({"epochs": 5, "batch_size": 7, "checkpoint_steps": 4} | fields))


@contextmanager
def replaced(owner: object, name: str, value: object) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


@contextmanager
def at_each_step(act: Callable[[Any, Any], None]) -> Iterator[None]:
    """Call ``act(trainer, batch)`` before each step."""
    step = trainer._Trainer._step

    def acting(self: Any, batch: Any, data_seconds: float) -> None:
        act(self, batch)
        step(self, batch, data_seconds)

    with replaced(trainer._Trainer, "_step", acting):
        yield


def state(run: Path) -> dict[str, bytes]:
    """Weights and velocities of the last checkpoint."""
    last = run / "checkpoint" / (run / "checkpoint" / "last").read_text().strip()
    return {path.name: path.read_bytes() for path in sorted(last.glob("*.safetensors"))}


# Resuming ---------------------------------------------------------------------------------------------------------------


def resumes(data: Path, folder: Path, workers: Sequence[int], every: int = 1) -> Figure:
    """Go on from the checkpoint of each step of a run of 40, with each number of readers: weights, velocities, rows of the
    log, and the images of each step in their order."""
    packed, config, figure = open_packed(data), tiny(data), Figure()
    whole, order = folder / "whole", {}

    def note(self: Any, batch: Any) -> None:
        order[self.progress.step + 1] = batch.image_N.tobytes()

    with replaced(checkpoint, "KEEP", 100), at_each_step(note):
        fit(replace(config, checkpoint_steps=1), packed, whole, QUIET)
    expected = state(whole), rows(whole), dict(order)
    steps = sorted(expected[2])
    figure.check(len(steps) == 40, f"{len(steps)} steps")
    for step in steps[:-1:every]:
        for number in workers:
            run = folder / "run"
            shutil.copytree(whole, run)
            for path in (run / "checkpoint").glob("step-*"):
                if int(path.name.removeprefix("step-")) > step:
                    shutil.rmtree(path)
            (run / "checkpoint" / "last").write_text(f"step-{step}\n")
            order.clear()
            with at_each_step(note):
                fit(config, packed, run, replace(QUIET, workers=number), resume=True)
            found = state(run), rows(run), {s: images for s, images in expected[2].items() if s <= step} | order
            names = ("weights or velocities", "rows of the log", "order of the images")
            differ = [name for name, a, b in zip(names, found, expected, strict=True) if a != b]
            figure.check(not differ, f"step {step}, {number} readers: {', '.join(differ)}")
            figure.check(min(order) == step + 1, f"step {step}: went on at step {min(order)}")
            figure.count += 1
            remove(run)
    figure.details = {"steps": len(steps), "readers": list(workers)}
    return figure


# Names ------------------------------------------------------------------------------------------------------------------


def names(folder: Path, seed: int) -> Figure:
    """A run that was stopped at a random step goes on from the same photographs under six other names, each found in the cache
    without being prepared again; and not from other photographs under the same name."""
    photos, cache, figure, draw = make_photographs(folder / "photos"), folder / "cache", Figure(), random.Random(seed)
    size = 36  # of tiny runs
    config, whole = tiny(photos), folder / "whole"
    with replaced(checkpoint, "KEEP", 100):
        fit(replace(config, checkpoint_steps=1), resolve(photos, size=size, cache=cache), whole, QUIET)
    expected = state(whole), rows(whole)
    (folder / "link").symlink_to(photos)
    shutil.copytree(photos, folder / "copy" / "照片", copy_function=shutil.copyfile)
    with tarfile.open(folder / "photos.tar", "w") as tar:
        tar.add(photos, "wrapped")
    others: dict[str, Callable[[], str]] = {
        "a path from the working folder": lambda: os.path.relpath(photos),
        "a link": lambda: str(folder / "link"),
        "a copy": lambda: str(folder / "copy" / "照片"),
        "a tar": lambda: str(folder / "photos.tar"),
        "touched": lambda: _touched(photos),
        "a renamed folder in a renamed parent": lambda: str(
            (folder / "copy").rename(folder / "moved").joinpath("照片").rename(folder / "moved" / "pictures")
        ),
    }
    for name, other in others.items():
        step, run, data = draw.randint(1, 39), folder / "run", other()
        shutil.copytree(whole, run)
        for path in (run / "checkpoint").glob("step-*"):
            if int(path.name.removeprefix("step-")) > step:
                shutil.rmtree(path)
        (run / "checkpoint" / "last").write_text(f"step-{step}\n")
        fit(replace(config, data=data), resolve(data, size=size, cache=cache), run, QUIET, resume=True)
        figure.check((state(run), rows(run)) == expected, f"{name}, step {step}: goes on otherwise")
        figure.check(len([*cache.glob("*/meta.json")]) == 1, f"{name}: prepared again")
        figure.count += 1
        remove(run)
    (photos / "train" / "red" / "0.png").unlink()
    try:
        fit(config, resolve(photos, size=size, cache=cache), whole, QUIET, resume=True)
        figure.check(False, "other photographs: not noticed")
    except UsageError as error:
        figure.check("trained on other images" in str(error), f"other photographs: {error}")
    figure.details = {"names": list(others)}
    return figure


def _touched(photos: Path) -> str:
    for file in photos.rglob("*.png"):
        os.utime(file)
    return f"{photos}/."


# Numbers that are not finite ------------------------------------------------------------------------------------------------


def non_finite(data: Path, folder: Path, count: int, seed: int) -> Figure:
    """A loss, a pixel of the input or a gradient becomes NaN or infinite at a random step; and a learning rate of 1e20. The
    run stops there, no file holds such a number, and without the fault it goes on to the end of a run that had none."""
    packed, config, figure = open_packed(data), tiny(data), Figure()
    fit(config, packed, folder / "whole", QUIET)
    expected, draw = (state(folder / "whole"), rows(folder / "whole")), random.Random(seed)
    faults_of = {"loss": _bad_loss, "pixel": _bad_pixel, "gradient": _bad_gradient}
    for trial in range(count):
        kind, value = ("rate", *faults_of)[trial % 4], (math.nan, math.inf)[trial // 4 % 2]
        step, run = draw.randint(1, 40), folder / f"run-{trial}"
        name = f"{kind} {value} at step {step}"
        figure.count += 1
        try:
            if kind == "rate":
                step, name = 2, "a rate of 1e20"
                fit(replace(config, optimizer=OptimizerConfig(lr=1e20), seed=trial), packed, run, QUIET)
            else:
                with faults_of[kind](step, value):
                    fit(config, packed, run, QUIET)
            figure.check(False, f"{name}: not noticed")
        except AlexNetError as error:
            # A gradient shows in the loss of the next step, or when the weights are to be saved.
            latest = step + (kind in ("gradient", "rate"))
            words = str(error).partition(":")[0]
            stopped = words.startswith("step ") and step <= int(words[5:]) <= latest
            figure.check(stopped, f"{name}: {error}")
            logged = max((row["step"] for row in rows(run) if row["event"] == "step"), default=0)
            figure.check(logged < latest, f"{name}: step {logged} is in the log")
        figure.failures += [f"{name}: {found}" for found in not_finite(run)]
        if kind != "rate":
            fit(config, packed, run, QUIET, resume=True)
            figure.check((state(run), rows(run)) == expected, f"{name}: goes on otherwise")
        remove(run)
    figure.details = {"kinds": ["rate", *faults_of], "values": ["NaN", "infinity"]}
    return figure


@contextmanager
def _bad_loss(step: int, value: float) -> Iterator[None]:
    steps, cross_entropy = [0], trainer.F.cross_entropy

    def note(self: Any, _batch: Any) -> None:
        steps[0] = self.progress.step + 1

    def loss(*arguments: Any, **settings: Any) -> torch.Tensor:
        found = cross_entropy(*arguments, **settings)
        return found * value if steps[0] == step and torch.is_grad_enabled() else found

    with at_each_step(note), replaced(trainer.F, "cross_entropy", loss):
        yield


@contextmanager
def _bad_pixel(step: int, value: float) -> Iterator[None]:
    steps, augment = [0], trainer.transforms.augment

    def note(self: Any, _batch: Any) -> None:
        steps[0] = self.progress.step + 1

    def spoiled(*arguments: Any) -> torch.Tensor:
        x_BCHW = augment(*arguments)
        if steps[0] == step:
            x_BCHW[-1, 1, 7, 9] = value
        return x_BCHW

    with at_each_step(note), replaced(trainer.transforms, "augment", spoiled):
        yield


@contextmanager
def _bad_gradient(step: int, value: float) -> Iterator[None]:
    backward = trainer._Trainer._backward

    def spoiled(self: Any, *arguments: Any, **settings: Any) -> torch.Tensor:
        result = backward(self, *arguments, **settings)
        if self.progress.step + 1 == step:
            parameter = next(p for p in self.model.parameters() if p.grad is not None)
            parameter.grad[(0,) * parameter.dim()] = value
        return result

    with replaced(trainer._Trainer, "_backward", spoiled):
        yield


def not_finite(run: Path) -> list[str]:
    """The files of a run that hold a number which is not finite."""
    found = []

    def refuse(word: str) -> float:
        raise ValueError(word)

    for path in sorted(path for path in run.rglob("*") if path.is_file()):
        try:
            if path.suffix == ".safetensors":
                fine = all(bool(torch.isfinite(tensor).all()) for tensor in load_file(path).values())
            elif path.suffix == ".json":
                json.loads(path.read_text(), parse_constant=refuse)
                fine = True
            elif path.suffix == ".jsonl":
                fine = all(_finite(json.loads(line, parse_constant=refuse)) for line in path.read_text().splitlines())
            elif path.suffix == ".csv":
                cells = [cell for row in list(csv.reader(path.read_text().splitlines()))[1:] for cell in row]
                fine = all(math.isfinite(float(cell)) for cell in cells)
            elif path.suffix == ".npy":
                fine = bool(np.isfinite(np.load(path)).all())
            elif path.name.startswith("events."):
                fine = all(math.isfinite(value) for value in _scalars(path))
            else:
                fine = True
        except ValueError as error:
            fine = str(error) not in ("NaN", "Infinity", "-Infinity")
        if not fine:
            found.append(f"{path.relative_to(run)} holds a number that is not finite")
    return found


def _finite(row: dict[str, Any]) -> bool:
    return all(math.isfinite(value) for value in row.values() if isinstance(value, float))


def _scalars(path: Path) -> Iterator[float]:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    for event in EventFileLoader(str(path)).Load():
        for value in event.summary.value:
            yield from value.tensor.float_val or [value.simple_value]
