"""Starts with --fresh that are refused, or die before their first checkpoint: the earlier run is whole to the byte."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from faults import Figure, training
from PIL import Image

from alexnet.cli import main
from alexnet.core.errors import AlexNetError
from alexnet.core.runs import REPLACED
from alexnet.data.packed import open_packed
from alexnet.data.prepare import prepare
from alexnet.evaluation.predict import load
from alexnet.training import files
from alexnet.training.checkpoint import load_checkpoint
from shared import content, in_child

OPTIONS = {
    "another input size than the crop": "--model.input-size 48",
    "a crop that the network does not read": "--preprocessing.crop 24",
    "a crop larger than the image": "--preprocessing.crop 40",
    "grey input for color images": "--model.in-channels 1",
    "color images for grey input": "--preprocessing.channels 1 --preprocessing.mean none --preprocessing.std",
    "a seed above 64 bits": f"--seed {2**70}",
    "a seed below 0": "--seed -1",
    "widths that no machine has": "--model.fc-units 1000000000 1000000000",
    "widths that this machine has not": "--model.fc-units 2000000 2000000",
    "an odd width for two towers": "--model.fc-units 15 16",
    "too many kernel sizes": "--model.conv-kernels 5 3 3 3 3 3",
    "maps that vanish": "--model.conv-strides 8 8 8 1 1",
    "a layer that is not there": "--optimizer.layer-lr conv9 0",
    "every layer frozen": "--optimizer.layer-lr "
    + " ".join(f"{name} 0" for name in "conv1 conv2 conv3 conv4 conv5 fc6 fc7 fc8".split()),
    "no epochs": "--epochs 0",
    "a rate below 0": "--optimizer.lr -1",
    "views that do not exist": "--views 3",
    "batch normalization in parts": "--model.normalization batch --accumulate 2",
    "a device that is not there": "--device cuda:99",
    "both --resume and --fresh": "--resume --fresh",
    "data that is not there": "--data {folder}/nowhere",
    "data without an image": "--data {folder}/empty",
    "data of grey images": "--data {folder}/grey",
    "data that is damaged": "--data {folder}/damaged",
    "initial weights that are not there": "--init-from {folder}/nowhere",
    "initial weights of another network": "--init-from {folder}/narrow/model",
    "numbers that are not finite before the first step": "--preprocessing.scale 1e30",
    "numbers that are not finite in the second step": "--optimizer.lr 1e30 --schedule.warmup 0",
}

DIES = "numbers that are not finite in the second step"
"""The one that is found in training: where no run was before, a first start is left to go on with."""


def refusals(data: Path, folder: Path) -> Figure:
    """Try each, with files of the old run compared before and after, and ask for one line and no other change."""
    figure, out = Figure(), folder / "run"
    _scene(data, folder)
    before = content(folder)
    cases: dict[str, tuple[str, Callable[[], contextlib.AbstractContextManager[object]]]] = {
        name: (words.format(folder=folder), contextlib.nullcontext) for name, words in OPTIONS.items()
    }

    def held() -> contextlib.AbstractContextManager[object]:
        return files.sole_trainer(out)

    cases["a disk that is too small"] = ("", _small_disk)
    cases["another process that trains there"] = ("", held)
    for name, (words, surroundings) in cases.items():
        with surroundings():
            code, said = _call(data, out, "--fresh", *words.split())
        lines = [line for line in said.splitlines() if line.startswith("alexnet: ")]
        figure.count += 1
        figure.check(code in (1, 2, 4), f"{name}: exit {code}: {said[-300:]}")
        figure.check(len(lines) == 1 and "Traceback" not in said, f"{name}: said {said[-300:]}")
        after = content(folder)
        differ = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
        figure.check(not differ, f"{name}: {', '.join(differ[:5])}")
        if name != DIES and surroundings is not held:
            with surroundings():
                _call(data, folder / "none" / "run", *words.split())
            figure.check(not (folder / "none").exists(), f"{name}: a refused first start left files")
            shutil.rmtree(folder / "none", ignore_errors=True)
    figure.details = {"kinds": list(cases)}
    return figure


def replacements_killed(data: Path, folder: Path) -> Figure:
    """Kill a --fresh at every rename until its first checkpoint stands, and start the run that was there again: the old run is
    what RUN means meanwhile, and back to the byte; and after the first checkpoint the new one is there and the old one gone."""
    figure, out = Figure(), folder / "run"
    _scene(data, folder)
    before, kept = content(out), folder / "kept"
    shutil.copytree(out, kept)
    earlier, new = _read(out), 0
    for number in range(1000):
        killed = in_child(lambda n=number: _fresh_killed_at(n, data, out))  # type: ignore[misc]
        _, status = os.waitpid(killed, 0)
        if os.waitstatus_to_exitcode(status) != 9:
            break
        begun = (out / "config.json").is_file() and '"seed": 1,' in (out / "config.json").read_text()
        stands = begun and (out / "checkpoint" / "last").is_file()
        read = _read(out)
        figure.check(stands or read in (earlier, MOVED), f"killed at rename {number}: RUN is read as {read}")
        files.recover(out)
        if stands:
            new += 1
            checkpoint, _ = load_checkpoint(out / "checkpoint")
            figure.check(checkpoint is not None, f"killed at rename {number}: neither run is there")
            figure.check(not (out / REPLACED).exists(), f"killed at rename {number}: the old run stays")
        else:
            after = {path: sha for path, sha in content(out).items() if path != ".lock"}
            figure.check(after == before, f"killed at rename {number}: the old run differs")
        figure.count += 1
        shutil.rmtree(out)
        shutil.copytree(kept, out)
    figure.check(
        figure.count - new > 10 and new > 0, f"{figure.count} renames, {new} of them after the first checkpoint"
    )
    figure.details = {"the new run stands": new, "the old run is back": figure.count - new}
    return figure


MOVED = "cut off while it moved"


def _read(out: Path) -> str:
    """The weights of a run, or the line that says that they are not to be had now."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            state = load(out).model.state_dict()
    except AlexNetError as error:
        return MOVED if MOVED in str(error) else str(error)
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in state.values())).hexdigest()


def _fresh_killed_at(number: int, data: Path, out: Path) -> None:
    rename, left = os.rename, [number]

    def counted(path: Path, target: Path) -> Path:
        if left[0] == 0:
            os._exit(9)
        left[0] -= 1
        rename(path, target)
        return Path(target)

    Path.rename = counted  # type: ignore[method-assign,assignment]
    Path.replace = counted  # type: ignore[method-assign,assignment]
    _call(data, out, "--fresh", "--seed", "1", "--epochs", "1")


def _scene(data: Path, folder: Path) -> None:
    """A finished run, and data and weights that cannot be used."""
    (folder / "empty").mkdir()
    shutil.copytree(data, folder / "damaged")
    with open(folder / "damaged" / "train.images.npy", "r+b") as file:
        file.truncate(5000)
    for name in ("a", "b"):
        for i in range(6):
            path = folder / "photographs" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((36, 36), 20 * i, dtype=np.uint8)).save(path)
    prepare(folder / "photographs", folder / "grey", size=36, workers=1)
    grey = open_packed(folder / "grey")
    if grey.channels != 1:
        shutil.rmtree(folder / "grey")
        (folder / "grey").mkdir()
    narrow = "--model.conv-channels 4 4 4 4 4 --model.fc-units 8 8".split()
    for name, words in (("run", ()), ("narrow", narrow)):
        code, said = _call(data, folder / name, "--epochs", "1", *words)
        assert code == 0, said


def _call(data: Path, out: Path, *words: str) -> tuple[int, str]:
    """Exit code of the tiny run in this process with other options, and what it said on stderr."""
    said = io.StringIO()
    command = [word for word in training(data, out) if word != "--resume"]
    with ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stderr(said))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        try:
            main([*command, *words])
        except SystemExit as exit:
            return int(exit.code or 0), said.getvalue()
    raise AssertionError("main() returned")


@contextmanager
def _small_disk() -> Iterator[None]:
    usage = shutil.disk_usage
    shutil.disk_usage = lambda _: SimpleNamespace(free=1000)  # type: ignore[assignment,return-value]
    try:
        yield
    finally:
        shutil.disk_usage = usage
