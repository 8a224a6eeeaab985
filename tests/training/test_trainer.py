"""A run is a function of its configuration: whatever the workers, the interruptions and the restarts."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from alexnet.core.config import fingerprint
from alexnet.core.device import Machine
from alexnet.core.errors import AlexNetError, DataError, StoppedError, UsageError
from alexnet.data.packed import open_packed
from alexnet.data.prepare import prepare
from alexnet.data.transforms import Augmentation
from alexnet.training import checkpoint, files, trainer
from alexnet.training.optimizer import OptimizerConfig
from alexnet.training.trainer import fit
from shared import make_photographs

CPU = torch.device("cpu")
QUIET = Machine(device=CPU, quiet=True)


def weights(model: torch.nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


def rows(run: Path) -> list[dict]:
    """log.jsonl without what depends on the clock."""
    clock = ("images_per_second", "data_seconds", "seconds")
    lines = (run / "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in clock} for line in lines]


@pytest.fixture
def reference(tiny_config, tiny_set, tmp_path):
    model = fit(tiny_config, tiny_set, tmp_path / "reference", QUIET).model
    return weights(model), rows(tmp_path / "reference")


@pytest.mark.parametrize("workers", [None, 0, 2, 4])
def test_workers_change_nothing(workers, reference, tiny_config, tiny_set, tmp_path):
    model = fit(tiny_config, tiny_set, tmp_path / "run", replace(QUIET, workers=workers)).model
    assert weights(model) == reference[0]
    assert rows(tmp_path / "run") == reference[1]


def test_images_in_the_devices_memory_change_nothing(reference, tiny_config, tiny_set, tmp_path):
    model = fit(tiny_config, tiny_set, tmp_path / "run", replace(QUIET, resident=True)).model
    assert weights(model) == reference[0]
    assert rows(tmp_path / "run") == reference[1]


def test_bfloat16_follows_float32(reference, tiny_config, tiny_set, tmp_path):
    """21 steps of the same run: the loss of each epoch within 2 %. Weights stay float32."""
    model = fit(replace(tiny_config, precision="bfloat16"), tiny_set, tmp_path / "run", QUIET).model
    assert all(p.dtype == torch.float32 for p in model.parameters())
    losses = [
        [row["train_loss"] for row in found if row["event"] == "epoch"]
        for found in (rows(tmp_path / "run"), reference[1])
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]


def test_normalization_kernels_are_a_condition_of_exact_resumption(
    reference, tiny_config, tiny_set, tmp_path, monkeypatch, capsys
):
    """Without a compiler the same run is as good, but not equal to the bit, and says so."""
    run = tmp_path / "reference"
    if "compiled" not in (run / "checkpoint" / "step-21" / "state.json").read_text():
        pytest.skip("the kernels cannot be compiled here")
    monkeypatch.setattr(trainer, "kernels_in_use", lambda *_, **__: "torch")
    fit(tiny_config, tiny_set, run, QUIET, resume=True)
    assert "normalization kernels compiled -> torch" in capsys.readouterr().err


@pytest.mark.parametrize("stop_at", [1, 4, 7, 8, 14, 20])
def test_a_stopped_and_resumed_run_equals_one_that_was_not(stop_at, reference, tiny_config, tiny_set, tmp_path):
    run, step = tmp_path / "run", trainer._Trainer._step

    def stop_after(self, batch, data_seconds):
        step(self, batch, data_seconds)
        if self.progress.step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer._Trainer, "_step", stop_after)
        with pytest.raises(StoppedError, match=f"stopped at step {stop_at}"):
            fit(tiny_config, tiny_set, run, QUIET)
    model = fit(tiny_config, tiny_set, run, QUIET, resume=True).model
    assert weights(model) == reference[0]
    assert rows(run) == reference[1]


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_torch_optimizers_resume_exactly_too(kind, tiny_config, tiny_set, tmp_path):
    config = replace(tiny_config, optimizer=OptimizerConfig(kind=kind, lr=0.003), epochs=2)
    whole = fit(config, tiny_set, tmp_path / "whole", QUIET).model
    step = trainer._Trainer._step

    def fail_at_nine(self, batch, data_seconds):
        if self.progress.step == 9:
            raise KeyboardInterrupt  # as hard as an exception gets: no save
        step(self, batch, data_seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer._Trainer, "_step", fail_at_nine)
        with pytest.raises(KeyboardInterrupt):
            fit(config, tiny_set, tmp_path / "run", QUIET)
    resumed = fit(config, tiny_set, tmp_path / "run", QUIET, resume=True).model
    assert weights(resumed) == weights(whole)
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")


def test_it_learns(reference):
    epochs = [row for row in reference[1] if row["event"] == "epoch"]
    assert epochs[-1]["val_top1_errors"] <= 1
    assert epochs[-1]["train_loss"] < epochs[0]["train_loss"]


def test_two_newest_checkpoints_and_the_best_stay(reference, tiny_config, tiny_set, tmp_path):
    folder = tmp_path / "reference" / "checkpoint"
    steps = {p.name for p in folder.glob("step-*")}
    best = (folder / "best").read_text().strip()
    assert (folder / "last").read_text() == "step-21\n"
    assert steps == {"step-21", "step-18", best}


def test_losses_read_late_from_the_device_are_the_same(reference, tiny_config, tiny_set, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "STEPS_UNREAD", {"cpu": 4})  # as if the CPU worked by itself
    model = fit(tiny_config, tiny_set, tmp_path / "run", QUIET).model
    assert weights(model) == reference[0]
    assert rows(tmp_path / "run") == reference[1]


@pytest.mark.parametrize("unread", [{}, {"cpu": 4}], ids=["each step", "every fourth"])
def test_a_loss_that_is_not_finite_stops_at_that_step_and_saves_nothing_of_it(
    unread, tiny_config, tiny_set, tmp_path, monkeypatch
):
    monkeypatch.setattr(trainer, "STEPS_UNREAD", unread)
    config = replace(tiny_config, optimizer=OptimizerConfig(lr=1e20))
    with pytest.raises(
        AlexNetError, match=r"step \d+: the loss is (nan|inf).*add --resume --change --optimizer\.lr 1e\+19"
    ):
        fit(config, tiny_set, tmp_path / "run", QUIET)
    for path in (tmp_path / "run").rglob("*.safetensors"):
        assert all(torch.isfinite(t).all() for t in load_file(path).values())
    assert "NaN" not in (tmp_path / "run" / "log.jsonl").read_text()


@pytest.mark.parametrize("what", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
def test_a_damaged_checkpoint_is_found_and_the_one_before_is_used(
    what, reference, tiny_config, tiny_set, tmp_path, capsys
):
    run = tmp_path / "reference"
    newest = run / "checkpoint" / (run / "checkpoint" / "last").read_text().strip()
    content = bytearray((newest / what).read_bytes())
    content[len(content) // 2] ^= 1
    (newest / what).write_bytes(content)
    model = fit(tiny_config, tiny_set, run, QUIET, resume=True).model
    assert "step-21 is damaged and passed over" in capsys.readouterr().err
    assert weights(model) == reference[0]
    assert rows(run) == reference[1]
    found = {p.name for p in (run / "checkpoint").iterdir() if p.is_dir()}
    assert {"step-21", "step-18", "damaged-step-21"} <= found


def test_no_sound_checkpoint_is_an_error_and_none_yet_is_not(tiny_config, tiny_set, tmp_path, capsys):
    run = tmp_path / "run"
    first = fit(replace(tiny_config, epochs=1), tiny_set, run, QUIET, resume=True).model
    assert "no checkpoint yet: starting at step 0" in capsys.readouterr().err
    assert first is not None
    for folder in (run / "checkpoint").glob("step-*"):
        (folder / "state.json").write_text("{}")
    with pytest.raises(AlexNetError, match="no sound checkpoint"):
        fit(replace(tiny_config, epochs=1), tiny_set, run, QUIET, resume=True)


def test_resuming_with_other_settings_is_refused_by_name(reference, tiny_config, tiny_set, tmp_path):
    other = replace(tiny_config, batch_size=4, augmentation=Augmentation(color_noise=0.2))
    with pytest.raises(UsageError, match=r"augmentation\.color_noise, batch_size"):
        fit(other, tiny_set, tmp_path / "reference", QUIET, resume=True)


def test_a_run_begun_before_a_setting_was_added_goes_on(reference, tiny_config, tiny_set, tmp_path):
    run = tmp_path / "run"
    fit(replace(tiny_config, epochs=1), tiny_set, run, QUIET)
    document = json.loads((run / "config.json").read_text())
    del document["train"]["label_smoothing"]
    del document["train"]["augmentation"]["divide_noise"]
    (run / "config.json").write_text(json.dumps(document))
    assert weights(fit(tiny_config, tiny_set, run, QUIET, resume=True).model) == reference[0]


def test_the_same_images_under_another_name_go_on_to_the_same_bytes(reference, tiny_config, tiny_set, tmp_path):
    run, moved = tmp_path / "run", tmp_path / "moved"
    fit(replace(tiny_config, epochs=1), tiny_set, run, QUIET)
    shutil.copytree(tiny_set.path, moved)
    config = replace(tiny_config, data="./moved")
    model = fit(config, open_packed(moved), run, QUIET, resume=True).model
    assert weights(model) == reference[0]
    stored = json.loads((run / "config.json").read_text())
    assert (stored["train"]["data"], stored["data"]["path"]) == ("./moved", str(moved))
    assert stored["fingerprint"] == fingerprint(stored["train"])


def test_a_packed_file_cut_in_training_is_one_line_and_the_run_is_saved(reference, tiny_config, tiny_set, tmp_path):
    packed, run, step = tmp_path / "packed", tmp_path / "run", trainer._Trainer._step
    shutil.copytree(tiny_set.path, packed)

    def cut(self, batch, data_seconds):
        step(self, batch, data_seconds)
        if self.progress.step == 2:
            os.truncate(packed / "train.images.npy", 5000)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer._Trainer, "_step", cut)
        with pytest.raises(DataError, match=r"packed/train\.images\.npy: cut short since it was opened"):
            fit(tiny_config, open_packed(packed), run, replace(QUIET, workers=0))
    assert (run / "checkpoint" / "last").read_text() == "step-2\n"
    assert weights(fit(tiny_config, tiny_set, run, QUIET, resume=True).model) == reference[0]


def test_other_images_under_the_same_name_are_refused(reference, tiny_config, tmp_path):
    other = prepare(make_photographs(tmp_path / "photos", train=17), tmp_path / "other", size=36, workers=1)
    before = (tmp_path / "reference" / "config.json").read_bytes()
    with pytest.raises(UsageError, match=rf"trained on other images than those of {tiny_config.data}"):
        fit(tiny_config, other, tmp_path / "reference", QUIET, resume=True)
    assert (tmp_path / "reference" / "config.json").read_bytes() == before


def test_training_on_a_subset_takes_the_same_images_every_epoch(tiny_config, tiny_set, tmp_path):
    config = replace(tiny_config, train_images=16, epochs=2)
    fit(config, tiny_set, tmp_path / "run", QUIET)
    images = trainer.training_images(54, config)
    assert len(images) == len(set(images.tolist())) == 16
    assert [row["step"] for row in rows(tmp_path / "run") if row["event"] == "epoch"] == [2, 4]


def test_it_ends_after_the_first_epoch_with_the_training_error_asked_for(reference, tiny_config, tiny_set, tmp_path):
    errors = [row["train_top1_error"] for row in reference[1] if row["event"] == "epoch"]
    first = min(i for i, error in enumerate(errors) if error <= errors[1])
    assert first < len(errors) - 1
    config = replace(tiny_config, until_train_error=errors[1])
    for resume in (False, True):
        fit(config, tiny_set, tmp_path / "run", QUIET, resume=resume)
        assert rows(tmp_path / "run") == [row for row in reference[1] if row.get("epoch", 1) <= first + 1]
    with pytest.raises(ValueError, match=r"until_train_error is 1\.5; it is a share"):
        replace(tiny_config, until_train_error=1.5)


class Stop:
    """A stop that is requested at the n-th look."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    @property
    def requested(self) -> bool:
        self.looks -= 1
        return self.looks <= 0


@pytest.mark.parametrize("looks", [7, 8, 9, 10])
def test_a_stop_at_the_end_of_an_epoch_or_in_its_validation_loses_nothing(
    looks, reference, tiny_config, tiny_set, tmp_path
):
    run = tmp_path / "run"
    with pytest.raises(StoppedError):
        fit(tiny_config, tiny_set, run, QUIET, stop=Stop(looks))
    model = fit(tiny_config, tiny_set, run, QUIET, resume=True).model
    assert weights(model) == reference[0]
    assert rows(run) == reference[1]


def test_no_room_for_the_checkpoints_is_said_before_the_first_step(tiny_config, tiny_set, tmp_path, monkeypatch):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(AlexNetError, match=r"checkpoints need \d+ MB, 0 MB are free"):
        fit(tiny_config, tiny_set, tmp_path / "run", QUIET)
    assert not list((tmp_path / "run").glob("checkpoint/*"))


@pytest.mark.parametrize("kind", ["write", "rename"])
def test_a_save_that_fails_leaves_the_checkpoint_before_it(kind, tiny_config, tiny_set, tmp_path, monkeypatch):
    """The disk fills up at the second checkpoint; the first is intact, and the run goes on from it."""
    run, saves = tmp_path / "run", []

    def full(*arguments: object, **_: object) -> None:
        saves.append(arguments)
        if len(saves) == 4:
            raise OSError(errno.ENOSPC, "No space left on device", str(run))
        return original(*arguments)

    target = (checkpoint, "save_tensors") if kind == "write" else (Path, "rename")
    original = getattr(*target)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*target, full)
        if kind == "rename":
            saves += [()]  # one rename a save, and one before the first, of what checkpoints share; two files a save
        with pytest.raises(AlexNetError, match=r"cannot be written .No space left.*MB are free.*checkpoint is intact"):
            fit(tiny_config, tiny_set, run, QUIET)
    assert [p.name for p in (run / "checkpoint").glob("step-*")] == ["step-3"]
    whole = fit(tiny_config, tiny_set, tmp_path / "whole", QUIET).model
    resumed = fit(tiny_config, tiny_set, run, QUIET, resume=True).model
    assert weights(resumed) == weights(whole)


def test_grey_images_for_a_color_network_are_refused(tiny_config, tiny_set, tmp_path):
    grey = replace(tiny_config, preprocessing=replace(tiny_config.preprocessing, channels=1))
    with pytest.raises(UsageError, match="holds images of 3 channels"):
        fit(grey, tiny_set, tmp_path / "run", QUIET)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc here")
@pytest.mark.parametrize("kind", ["paper", "adamw"])
def test_a_checkpoint_that_was_resumed_from_is_let_go(kind, tiny_config, tiny_set, tmp_path, monkeypatch):
    """Its files would stay mapped, and on the disk after they are deleted."""
    optimizer = OptimizerConfig(kind=kind, lr=0.003)
    config = replace(tiny_config, optimizer=optimizer, epochs=1, checkpoint_steps=1)
    step, mapped, interrupts = trainer._Trainer._step, [], [2]

    def watched(self, batch, data_seconds):
        step(self, batch, data_seconds)
        if self.progress.step in interrupts:
            interrupts.clear()
            raise KeyboardInterrupt
        mapped.append(str(tmp_path) in Path("/proc/self/maps").read_text())

    monkeypatch.setattr(trainer._Trainer, "_step", watched)
    with pytest.raises(KeyboardInterrupt):
        fit(config, tiny_set, tmp_path, QUIET)
    fit(config, tiny_set, tmp_path, QUIET, resume=True)
    assert mapped == [False] * 7
