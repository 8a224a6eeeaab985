"""A checkpoint is whole or not there, and rot is found."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
import torch

from alexnet.core.errors import AlexNetError
from alexnet.training import checkpoint
from alexnet.training.checkpoint import load_checkpoint, save_checkpoint


def save(folder: Path, step: int, *, best: bool = False) -> None:
    tensors = {"model": {"w": torch.full((3, 4), float(step))}, "optimizer": {"w/velocity": torch.ones(5)}}
    save_checkpoint(folder, step, tensors, {"step": step, "text": "x" * 200}, best=best)


def loaded_step(folder: Path) -> int:
    checkpoint, _ = load_checkpoint(folder)
    assert checkpoint is not None
    assert checkpoint.tensors["model"]["w"].tolist() == [[float(checkpoint.step)] * 4] * 3
    return checkpoint.step


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_two_newest_and_the_best_are_kept_and_the_newest_is_loaded(tmp_path):
    for step in (1, 2, 3, 4, 5):
        save(tmp_path, step, best=step == 2)
    assert names(tmp_path) == {"step-2", "step-4", "step-5", "last", "best"}
    assert loaded_step(tmp_path) == 5


def test_a_second_checkpoint_of_a_step_does_not_replace_the_first(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    save(tmp_path, 2)
    assert (tmp_path / "last").read_text() == "step-2.1\n"
    assert names(tmp_path) == {"step-2", "step-2.1", "last"}
    assert loaded_step(tmp_path) == 2


def test_a_checkpoint_that_was_never_pointed_at_is_not_used(tmp_path):
    save(tmp_path, 1)
    pointer = (tmp_path / "last").read_bytes()
    save(tmp_path, 2)
    (tmp_path / "last").write_bytes(pointer)  # killed between the rename and the pointer
    assert loaded_step(tmp_path) == 1
    save(tmp_path, 3)
    assert names(tmp_path) == {"step-2", "step-3", "last"}
    assert loaded_step(tmp_path) == 3


@pytest.mark.parametrize("pointer", [b"", b"step-9\n", b"\xff\xfe", None])
def test_a_lost_pointer_costs_nothing(pointer, tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    if pointer is None:
        (tmp_path / "last").unlink()
    else:
        (tmp_path / "last").write_bytes(pointer)
    assert loaded_step(tmp_path) == 2


def test_every_bit_flip_and_every_truncation_is_found(tmp_path):
    save(tmp_path / "sound", 1)
    save(tmp_path / "sound", 2)
    flips = random.Random(0)
    for trial in range(120):
        folder = tmp_path / "damaged"
        shutil.copytree(tmp_path / "sound", folder)
        file = flips.choice(sorted((folder / "step-2").iterdir()))
        content = bytearray(file.read_bytes())
        if trial % 4:
            bit = flips.randrange(8 * len(content))
            content[bit // 8] ^= 1 << bit % 8
        else:
            del content[flips.choice([0, 1, len(content) // 2, len(content) - 1]) :]
        file.write_bytes(content)
        checkpoint, faults = load_checkpoint(folder)
        assert checkpoint is not None
        # a flip inside the manifest that changes no fact (white space) may leave it sound, and then it is the whole truth
        assert (checkpoint.step, len(faults)) in {(1, 1), (2, 0)}
        if checkpoint.step == 2:
            assert file.name == "manifest.json"
            assert checkpoint.tensors["model"]["w"][0, 0] == 2
        shutil.rmtree(folder)


def test_a_non_finite_number_is_refused_by_name_and_nothing_is_written(tmp_path):
    save(tmp_path, 1)
    with pytest.raises(AlexNetError, match=r"step 2: model fc8\.bias holds a non-finite number; not saved"):
        save_checkpoint(tmp_path, 2, {"model": {"fc8.bias": torch.tensor([1.0, float("inf")])}}, {}, best=False)
    assert names(tmp_path) == {"step-1", "last"}


def test_a_missing_file_is_damage(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    (tmp_path / "step-2" / "optimizer.safetensors").unlink()
    checkpoint, faults = load_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.step == 1
    assert "step-2 is damaged" in faults[0]


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
def test_the_best_is_not_deleted_when_its_pointer_cannot_be_read(error, tmp_path, monkeypatch):
    save(tmp_path, 1, best=True)
    save(tmp_path, 2)
    read_text = Path.read_text

    def refused(self, *arguments, **settings):
        if self.name == "best":
            raise error
        return read_text(self, *arguments, **settings)

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(OSError, match=error.strerror):
        save(tmp_path, 3)
    assert {"step-1", "step-2", "step-3"} <= names(tmp_path)
    assert loaded_step(tmp_path) == 3


def test_a_folder_that_cannot_be_listed_is_not_one_without_checkpoints(tmp_path, monkeypatch):
    save(tmp_path, 1)

    def refused(_path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.listdir", refused)
    monkeypatch.setattr("os.scandir", refused)
    with pytest.raises(PermissionError):
        load_checkpoint(tmp_path)


def test_a_kill_between_the_pointers_leaves_the_best_for_the_next_time(tmp_path, monkeypatch):
    """The process comes by this step again, with the error before as the best."""
    point, pointed = checkpoint._point, []
    monkeypatch.setattr(
        checkpoint, "_point", lambda pointer, target: (pointed.append(pointer.name), point(pointer, target))
    )
    save_checkpoint(tmp_path, 1, {}, {}, best=True)
    assert pointed == ["best", "last"]


def test_a_damaged_pointer_does_not_cost_the_best(tmp_path):
    save_checkpoint(tmp_path, 1, {}, {}, best=True)
    for step in (2, 3):
        save_checkpoint(tmp_path, step, {}, {}, best=False)
    (tmp_path / "best").write_text("step-1x\n")
    for step in (4, 5, 6):
        save_checkpoint(tmp_path, step, {}, {}, best=False)
        assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-1", f"step-{step - 1}", f"step-{step}"]
