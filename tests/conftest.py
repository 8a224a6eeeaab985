"""Shared fixtures: the folder of real data (tests that need it skip where it is absent), a packed set and a network so small
that a run of some twenty steps takes a second; and one thread for torch."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pty
import signal
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from alexnet.data.packed import PackedSet
from alexnet.data.prepare import prepare
from alexnet.training.config import TrainConfig

sys.path.insert(0, str(Path(__file__).parent))

from shared import make_photographs, tiny_training

# Processes that tests start are forked from one that has imported this once; any optimizer imports torch._dynamo.
multiprocessing.get_context("forkserver").set_forkserver_preload(
    ["alexnet.recipes.run", "alexnet.cli", "alexnet.parallelize", "torch._dynamo", "torch.utils.tensorboard"]
)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job, whose children nobody could interrupt
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.fsync = os.fstat  # no test cuts the power, and a disk takes milliseconds for each of tens of thousands of syncs
torch.set_num_threads(1)  # small tensors gain nothing from two, and lose much when something else runs on the machine

LONG_FILES = (
    *("claims/test_experiments.py", "bench/test_scripts.py", "models/test_lrn.py", "report/test_page.py"),
    *(
        "distributed/test_training.py",
        "test_known_answers.py",
        "probes/test_small_sets.py",
        "reliability/test_kills.py",
    ),
    *("data/test_prepare.py", "bench/test_forecast.py", "probes/test_inputs.py", "claims/test_page.py"),
)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """The half million objects of modules and tests stay until the end, so nobody searches them for garbage: not while they are
    made, which would take a third of that time, nor later, nor in a fork, which would copy the pages that they lie in."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first: no worker is left with one of them when the others have nothing to do any more."""
    items.sort(key=lambda item: not item.path.as_posix().endswith(LONG_FILES))


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data sets: ``$ALEXNET_DATA``, or ``../shared/data`` beside the repository."""
    root = Path(os.environ.get("ALEXNET_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not (root / "README.md").is_file():
        pytest.skip(f"real data not found: set ALEXNET_DATA (looked in {root})")
    return root


@pytest.fixture
def in_memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in memory where there is such a file system, for tests that sync files thousands of times."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path_factory.mktemp("memory")
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """Three classes told apart by color; 54 training and 12 validation images of 40 x 36 pixels."""
    return make_photographs(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_set(tiny_folder, tmp_path_factory) -> PackedSet:
    return prepare(tiny_folder, tmp_path_factory.mktemp("packed") / "set", size=36, workers=1)


@pytest.fixture
def tiny_config(tiny_set) -> TrainConfig:
    """Dropout and all augmentation on: 7 steps an epoch, the last of 6 images."""
    return tiny_training(tiny_set.path, epochs=3, batch_size=8, checkpoint_steps=3)


@pytest.fixture
def on_a_terminal(monkeypatch):
    """A function of a width and of some work: what the work writes to standard error, a terminal of that width.

    A terminal hands over what was written bit by bit, and ends with an error once the writer has closed it."""

    def shown(width: int, work: Callable[[], None]) -> str:
        reader, writer = pty.openpty()
        with open(writer, "w", encoding="utf-8") as stderr, monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", stderr)
            patch.setenv("TERM", "xterm")
            patch.setenv("COLUMNS", str(width))
            work()
        pieces = []
        with suppress(OSError):
            while piece := os.read(reader, 1 << 16):
                pieces.append(piece)
        os.close(reader)
        return b"".join(pieces).decode()

    return shown


class Opened(Exception):
    """Raised with the configuration when `train` would open its data."""


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """The configuration that a command line trains, up to the moment when data would be opened."""

    def stop(config: TrainConfig, *_: object, **__: object) -> None:
        raise Opened(config)

    monkeypatch.setattr("alexnet.recipes.run.find_data", stop)

    def configuration(*arguments: str) -> TrainConfig:
        from alexnet.cli.train import train

        with pytest.raises(Opened) as opened:
            train([*arguments, "--out", str(tmp_path / "new"), "--device", "cpu"])
        return opened.value.args[0]

    return configuration
