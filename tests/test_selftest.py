"""The checks of `alexnet selftest` pass here, and each fails where its promise is broken."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import safetensors.torch
import torch

from alexnet.cli import main
from alexnet.core.errors import AlexNetError, StoppedError, UsageError
from alexnet.core.runs import sha256_file, write_json
from alexnet.core.sealed import Seal
from alexnet.data import loader, pool
from alexnet.data.packed import PackedSplit, open_packed
from alexnet.evaluation import error_rate
from alexnet.models.lrn import compiled, plain
from alexnet.selftest import faults, figures, scene, trial
from alexnet.selftest.checks import Outcome, table
from alexnet.selftest.scene import Scene
from alexnet.selftest.trial import CHECKS, selftest
from alexnet.training import trainer

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def outcome(name: str, stage: Scene) -> Outcome:
    (check,) = (check for check in CHECKS if check.name == name)
    return check(stage)


@pytest.fixture(scope="module")
def whole(tiny_folder, tiny_set, tmp_path_factory) -> Scene:
    """The images of the other tests, and a run of 14 steps that nothing happened to."""
    stage = Scene(tmp_path_factory.mktemp("selftest"), kills=1)
    shutil.copytree(tiny_set.path, stage.folder / "packed")
    stage.__dict__.update(photographs=tiny_folder, packed=open_packed(stage.folder / "packed"))
    for module in scene.PRELOADED:  # or each forked process would import them
        import_module(module)
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        _ = stage.whole
    return stage


def make_quick(patch: pytest.MonkeyPatch) -> None:
    """Short runs without a report, in processes forked from this one: what is broken here is broken there."""
    patch.setattr(scene, "CONTEXT", multiprocessing.get_context("fork"))
    patch.setattr(scene, "EPOCHS", 2)
    patch.setattr("alexnet.recipes.run.write_report", lambda out: out / "report.html")


@pytest.fixture
def stage(whole, tmp_path, monkeypatch) -> Scene:
    """The same in a folder of its own."""
    make_quick(monkeypatch)
    stage = replace(whole, folder=tmp_path)
    shutil.copytree(whole.packed.path, tmp_path / "packed")
    stage.__dict__.update(photographs=whole.photographs, packed=open_packed(tmp_path / "packed"), whole=whole.whole)
    return stage


@pytest.fixture
def empty(tmp_path) -> Scene:
    return Scene(tmp_path)


# What passes here -------------------------------------------------------------------------------------------------------


def test_counts_normalization_and_a_hanging_reader_pass_here(empty, monkeypatch):
    monkeypatch.setattr(faults, "READ_SECONDS", 0.2)
    for name in ("counts", "normalization", "reader"):
        assert outcome(name, empty).result == "passed", outcome(name, empty).detail


def test_rot_is_found_here(stage, monkeypatch):
    monkeypatch.setattr(faults, "FLIPS", 12)
    monkeypatch.setattr(faults, "CUTS", 4)
    for name in ("rot-packed", "rot-checkpoint"):
        assert outcome(name, stage).result == "passed", outcome(name, stage).detail


def test_without_a_gpu_its_check_is_skipped_with_the_reason(empty, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said = outcome("normalization-cuda", empty)
    assert (said.result, said.detail) == ("skipped", "no CUDA device that this torch can use")


# Promises that are broken ---------------------------------------------------------------------------------------------------


def test_an_image_counted_twice_is_noticed(empty, monkeypatch):
    add = error_rate.Tally.add

    def twice(self, image_B, log_probability_BK, label_B, valid_B):
        add(self, image_B, log_probability_BK, label_B, torch.ones_like(valid_B))  # the copies that fill up a batch

    monkeypatch.setattr(error_rate.Tally, "add", twice)
    said = outcome("counts", empty)
    assert said.result == "failed"
    assert "1 images were not counted exactly once" in said.detail


def test_errors_that_are_off_by_one_are_noticed(empty, monkeypatch):
    ranks = error_rate.label_ranks
    monkeypatch.setattr(
        error_rate, "label_ranks", lambda score_BK, label_B: (ranks(score_BK, label_B) - 1).clamp(min=0)
    )
    assert outcome("counts", empty).detail == "in batches of 1: (23, 15, 3) images and errors, not (23, 19, 6)"


def test_a_loss_over_other_views_is_noticed(empty, monkeypatch):
    mean = error_rate.mean_log_probability
    monkeypatch.setattr(error_rate, "mean_log_probability", lambda *args: mean(*args) - 1e-5)
    assert "the loss is" in outcome("counts", empty).detail


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_normalization_that_is_a_hundred_thousandth_off_is_noticed(direction, empty, monkeypatch):
    for kernels in (compiled, plain):
        right = getattr(kernels, direction)
        monkeypatch.setattr(kernels, direction, lambda *args, right=right: right(*args) * (1 + 1e-5))
    said = outcome("normalization", empty)
    assert said.result == "failed"
    assert "more than rounding" in said.detail


def test_images_without_checksums_are_noticed(stage, monkeypatch):
    monkeypatch.setattr(PackedSplit, "_verify", lambda *_: None)
    said = outcome("rot-packed", stage)
    assert said.result == "failed"
    assert "a flip in image" in said.detail


def test_files_without_checksums_are_noticed(stage, monkeypatch):
    monkeypatch.setattr(Seal, "require", lambda *_, **__: None)
    said = outcome("rot-packed", stage)
    assert said.result == "failed"
    assert "was not found" in said.detail


def test_a_checkpoint_without_checksums_is_noticed(empty, monkeypatch):
    monkeypatch.setattr(Seal, "content", lambda _self, folder, _head, name, *_: (folder / name).read_bytes())
    said = outcome("rot-checkpoint", empty)
    assert said.result == "failed"
    assert "the damaged checkpoint was taken" in said.detail


def test_a_reader_that_is_waited_for_is_noticed(empty, monkeypatch):
    monkeypatch.setattr(faults, "READ_SECONDS", 0.01)
    monkeypatch.setattr(loader, "_wait", lambda pending, _timeout: pending.popleft()[1].result())
    assert "was waited for" in outcome("reader", empty).detail


def test_a_dead_worker_without_a_name_is_noticed(stage, monkeypatch):
    monkeypatch.setattr(pool, "_died", lambda _: AlexNetError("something has failed"))
    said = outcome("worker", stage)
    assert said.result == "failed"
    assert said.detail == "the worker is not named: alexnet: something has failed"


def test_draws_that_differ_from_run_to_run_are_noticed(whole, stage, monkeypatch):
    def train(_arguments, out):
        shutil.copytree(whole.folder / "whole", out)
        if out.name == "again":
            model = out / "model" / "model.safetensors"
            content = bytearray(model.read_bytes())
            content[-1] ^= 1
            model.write_bytes(content)
        return 0, ""

    monkeypatch.setattr(figures, "finish", train)
    said = outcome("repeat", stage)
    assert said.result == "failed"
    assert said.detail.endswith("differ in model.safetensors")


def test_a_stop_that_saves_nothing_is_noticed(stage, monkeypatch):
    def leave(self):
        if self.stop.requested:
            raise StoppedError("stopped, as promised")

    monkeypatch.setattr(trainer._Trainer, "_stop_if_requested", leave)
    said = outcome("stop", stage)
    assert said.result == "failed"
    assert "not saved" in said.detail


def test_a_checkpoint_that_is_written_in_place_is_noticed(stage, monkeypatch):
    def in_place(folder, step, groups, state, *, best):
        place = next(folder.glob("step-*"), folder / f"step-{step}")
        place.mkdir(parents=True, exist_ok=True)
        for group, named in groups.items():
            tensors = {name: tensor.contiguous() for name, tensor in named.items()}
            (place / f"{group}.safetensors").write_bytes(safetensors.torch.save(tensors))  # its save_file renames
        write_json(place / "state.json", dict(state))
        files = {p.name: {"bytes": p.stat().st_size, "sha256": sha256_file(p)} for p in place.iterdir()}
        files.pop("manifest.json", None)
        write_json(place / "manifest.json", {"version": 1, "step": int(place.name[5:]), "files": files})
        (folder / "last").write_text(f"{place.name}\n")

    monkeypatch.setattr(trainer, "save_checkpoint", in_place)
    said = outcome("disk-full", stage)
    assert said.result == "failed"
    assert re.match("the checkpoint before it was changed: |resumed with room again: exit 1", said.detail), said.detail


class FirstCheckpoint(random.Random):
    """The moment at which there is a first checkpoint."""

    out: Path

    def uniform(self, _a: float, _b: float) -> float:
        scene.wait_until(lambda: scene.saved_step(self.out) > 0)
        return 0.0


def test_a_resumed_run_without_its_velocities_is_noticed(stage, monkeypatch):
    restore = trainer._Trainer._restore

    def forget(self, saved):
        saved.tensors["optimizer"].clear()
        restore(self, saved)

    monkeypatch.setattr(trainer._Trainer, "_restore", forget)
    monkeypatch.setattr(FirstCheckpoint, "out", stage.folder / "killed-0", raising=False)
    monkeypatch.setattr(faults.random, "Random", FirstCheckpoint)
    said = outcome("kill", stage)
    assert said.result == "failed"
    assert (
        "after 1 kills the finished run differs in final-center.json, final-ten.json, log.jsonl, model." in said.detail
    )


@pytest.mark.parametrize(
    ("fault", "seen"), [("rank 0 of 2 failed: ", "the dead rank is not named"), (None, "ended well although")]
)
def test_a_dead_rank_without_a_name_is_noticed(fault, seen, stage, monkeypatch):
    def job(*_args, **_options):
        if fault is not None:
            raise AlexNetError(fault)

    monkeypatch.setattr(faults, "run_local", job)
    said = outcome("rank", stage)
    assert said.result == "failed"
    assert seen in said.detail


def test_ranks_with_losses_of_their_own_are_noticed(empty, monkeypatch):
    empty.__dict__["config"] = None

    def job(_function, world, _config, out, **_options):
        Path(out).mkdir()
        row = {"event": "step", "step": 1, "loss": 2.5 + 1e-9 * world}
        (Path(out) / "log.jsonl").write_text(json.dumps(row) + "\n")

    monkeypatch.setattr(figures, "run_local", job)
    said = outcome("ranks-agree", empty)
    assert said.result == "failed"
    assert "differ from those of one by 4.0e-10" in said.detail


# The verb ---------------------------------------------------------------------------------------------------------------


def test_quick_tries_what_takes_seconds(monkeypatch, capsys):
    asked = []

    def record(only, _say):
        asked.append(only)
        return [Outcome("counts", "p", "passed", "d", 0.1)]

    monkeypatch.setattr(trial, "selftest", record)
    with pytest.raises(SystemExit) as left:
        main(["selftest", "--quick"])
    assert left.value.code == 0
    assert asked == [trial.QUICK]
    assert {"counts", "normalization", "rot-packed"} <= set(trial.QUICK) <= {check.name for check in trial.CHECKS}


def test_the_verb_prints_a_table_and_leaves_with_3_if_a_check_failed(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with pytest.raises(SystemExit) as left:
        main(["selftest", "--only", "counts", "--out", str(tmp_path / "outcomes.json")])
    said = capsys.readouterr()
    assert left.value.code == 0, said
    assert said.out.splitlines()[0].startswith("counts  passed ")
    assert "1 of 1, counts: an evaluation counts every image exactly once" in said.err
    document = json.loads((tmp_path / "outcomes.json").read_text())
    assert [check["result"] for check in document["checks"]] == ["passed"]
    assert [path.name for path in tmp_path.iterdir()] == ["outcomes.json"]
    monkeypatch.setattr(error_rate.Tally, "add", lambda *_: None)
    with pytest.raises(SystemExit) as left:
        main(["selftest", "--only", "counts", "--json"])
    said = capsys.readouterr()
    assert (left.value.code, said.err) == (3, "")
    document = json.loads(said.out)
    assert (document["passed"], document["failed"]) == (0, 1)
    assert "promised: an evaluation counts" in table([Outcome(**document["checks"][0])])


def test_an_unknown_check_is_refused_with_the_known():
    with pytest.raises(UsageError, match=r"no check is called 'kil' \(perhaps kill\); they are counts, normalization,"):
        selftest(["kil"])


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_every_check_passes_here():
    outcomes = selftest()
    assert {o.name: o.detail for o in outcomes if o.result == "failed"} == {}
    assert [o.name for o in outcomes] == [check.name for check in CHECKS]


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing_behind(number, tmp_path):
    command = [sys.executable, "-m", "alexnet", "selftest", "--only", "kill"]
    process = subprocess.Popen(
        command,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("alexnet-selftest-*/killed-0/log.jsonl")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == "alexnet: interrupted"
    assert not list(tmp_path.glob("alexnet-selftest-*"))
    assert not processes_of(tmp_path)


def processes_of(folder: Path) -> list[str]:
    """Command lines, or files said into, that name the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            found += [str(process) for file in (process / "fd").iterdir() if str(folder) in str(file.readlink())]
        except OSError:
            continue
    return found
