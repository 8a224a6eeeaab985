"""A run from its folder's first file to its report: who may write there, what --fresh deletes and when, what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from alexnet.cli import main
from alexnet.core.device import Machine
from alexnet.core.errors import AlexNetError, NotFiniteError, StoppedError, UsageError
from alexnet.data.prepare import prepare
from alexnet.data.sources import class_lines
from alexnet.evaluation.subject import evaluate
from alexnet.models.alexnet import AlexNet
from alexnet.recipes import run as recipes_run
from alexnet.recipes.run import dry_run, train
from alexnet.training import files
from alexnet.training.optimizer import OptimizerConfig
from alexnet.training.schedule import Cosine
from alexnet.training.trainer import fit
from shared import make_photographs

QUIET = Machine(device=torch.device("cpu"), quiet=True)


@pytest.fixture
def config(tiny_config):
    return replace(tiny_config, epochs=1, views=("1",))


def content(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name != ".lock"}


def test_a_second_trainer_in_the_same_run_is_refused_and_deletes_nothing(config, tiny_set, tmp_path):
    train(config, tmp_path, QUIET, data=tiny_set, report=False)
    before = content(tmp_path)
    for options in ({"fresh": True}, {"resume": True}):
        with (
            files.sole_trainer(tmp_path),
            pytest.raises(AlexNetError, match=f"process {os.getpid()} is training here"),
        ):
            train(replace(config, epochs=2), tmp_path, QUIET, data=tiny_set, **options)
    assert content(tmp_path) == before


def test_the_folder_is_held_until_the_last_file_is_written(config, tiny_set, tmp_path, monkeypatch):
    tried = []

    def second(function):
        def trying(*arguments, **settings):
            with pytest.raises(AlexNetError, match="is training here"), files.sole_trainer(tmp_path):
                pass
            tried.append(function.__name__)
            return function(*arguments, **settings)

        return trying

    for name in ("evaluate_split", "save_model_folder", "write_report"):
        monkeypatch.setattr(recipes_run, name, second(getattr(recipes_run, name)))
    train(config, tmp_path, QUIET, data=tiny_set)
    assert tried == ["save_model_folder", "evaluate_split", "write_report"]
    with files.sole_trainer(tmp_path):
        pass


@pytest.mark.parametrize(
    ("fields", "machine"),
    [
        ({"optimizer": OptimizerConfig(layer_lr=(("conv9", 0.0),))}, {}),
        ({"model": {"normalization": "batch"}}, {"accumulate": 2}),
    ],
)
def test_fresh_deletes_nothing_for_a_training_that_cannot_be(fields, machine, config, tiny_set, tmp_path):
    train(config, tmp_path, QUIET, data=tiny_set, report=False)
    before = content(tmp_path)
    if "model" in fields:
        fields = {"model": replace(config.model, **fields["model"])}
    with pytest.raises(UsageError):
        train(replace(config, **fields), tmp_path, replace(QUIET, **machine), data=tiny_set, fresh=True)
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"input_size": 36},
            "the network reads 36 x 36 pixels of 3 channels (--model.in-channels, --model.input-size), but",
        ),
        ({"in_channels": 1}, "is given 32 x 32 pixels of 3 channels (--preprocessing.channels, --preprocessing.crop)"),
    ],
)
def test_a_network_for_another_input_is_refused_with_the_options_that_decide_it(
    fields, said, config, tiny_set, tmp_path
):
    config = replace(config, model=replace(config.model, **fields))
    with pytest.raises(UsageError, match=re.escape(said)):
        train(config, tmp_path / "run", QUIET, data=tiny_set)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("limit", "said"), [(55, True), (54, False)])
def test_a_limit_above_the_number_of_training_images_is_said(limit, said, config, tiny_set, tmp_path, capsys):
    found = dry_run(replace(config, train_images=limit), tmp_path, QUIET, data=tiny_set, steps=1)
    assert found["training_images"] == 54
    line = "note: --train-images is 55, but there are 54: the run learns from all of them"
    assert (line in capsys.readouterr().err) is said


def test_fresh_deletes_a_linked_folder_of_checkpoints_and_knows_a_run_to_the_last(
    config, tiny_set, tmp_path, monkeypatch
):
    out, disk = tmp_path / "run", tmp_path / "disk"
    fit(config, tiny_set, out, QUIET)
    (out / "checkpoint").rename(disk)
    (out / "checkpoint").symlink_to(disk)
    deleted = []
    unlink = Path.unlink
    with monkeypatch.context() as patch:
        patch.setattr(
            Path, "unlink", lambda path, missing_ok=False: (deleted.append(path.name), unlink(path, missing_ok))[1]
        )
        files.clear(out)
    assert not any((out / "checkpoint").glob("*"))
    assert deleted[0] == "checkpoint"
    assert deleted[-1] == "config.json"
    assert any(disk.iterdir())  # what a link leads to may be another's
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photo.jpg").touch()
    with pytest.raises(UsageError, match="holds no run"):
        train(config, tmp_path / "other", QUIET, data=tiny_set, fresh=True)
    (out / "checkpoint").unlink(missing_ok=True)
    train(config, out, QUIET, data=tiny_set, fresh=True, report=False)  # only .lock is there


def test_a_run_that_has_lost_its_settings_is_not_begun_again(config, tiny_set, tmp_path):
    fit(config, tiny_set, tmp_path, QUIET)
    (tmp_path / "config.json").unlink()
    before = content(tmp_path / "checkpoint")
    with pytest.raises(UsageError, match=r"has checkpoints but no config\.json"):
        fit(replace(config, seed=9), tiny_set, tmp_path, QUIET, resume=True)
    assert content(tmp_path / "checkpoint") == before
    assert (tmp_path / "log.jsonl").stat().st_size > 0


@pytest.mark.parametrize(
    "text",
    [
        *("[]", "{}", "null", '{"train": {}}', '{"train": {"size": -1}, "data": {"path": "x"}}'),
        '{"data": {"path": "x"}, "history": [{"step": 1, "changed": {"epochs": [1]}}]}',
    ],
)
def test_settings_that_no_run_writes_are_refused(text, config, tiny_set, tmp_path, capsys):
    train(config, tmp_path, QUIET, data=tiny_set, report=False)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(AlexNetError, match=r"config\.json: not that of a run"):
        evaluate([tmp_path])
    with pytest.raises(AlexNetError, match=r"config\.json: not that of a run"):
        train(config, tmp_path, QUIET, data=tiny_set, resume=True)


@pytest.mark.parametrize("text", ["[]", "{}"])
def test_a_result_that_no_run_writes_is_refused(text, config, tiny_set, tmp_path):
    train(config, tmp_path, QUIET, data=tiny_set, report=False)
    (tmp_path / "results" / "final-center.json").write_text(text)
    with pytest.raises(AlexNetError, match=r"final-center\.json"):
        train(config, tmp_path, QUIET, data=tiny_set, resume=True)


def test_a_report_that_cannot_be_written_does_not_hide_that_the_run_was_stopped(
    config, tiny_set, tmp_path, monkeypatch, capsys
):
    def stopped(*_, **__):
        raise StoppedError("stopped")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recipes_run, "fit", stopped)
    monkeypatch.setattr(recipes_run, "write_report", full)
    with pytest.raises(StoppedError):
        train(config, tmp_path, QUIET, data=tiny_set)
    assert "note: no report" in capsys.readouterr().err


def test_what_is_not_finite_is_said_before_the_first_step_and_after_the_last(config, tiny_set, tmp_path):
    loud = replace(config, preprocessing=replace(config.preprocessing, scale=1e20))
    with pytest.raises(NotFiniteError, match="outputs of the untrained network are not finite from conv"):
        fit(loud, tiny_set, tmp_path / "loud", QUIET)
    # One step an epoch: the weights that it leaves are seen by the validation first, or by the save.
    diverging = replace(config, optimizer=OptimizerConfig(lr=1e20), schedule=Cosine(warmup=0), batch_size=54)
    with pytest.raises(NotFiniteError, match=r"step 1: .*at a lower rate, add --resume --change --optimizer.lr 1e\+19"):
        fit(diverging, tiny_set, tmp_path / "late", QUIET)
    with pytest.raises(NotFiniteError, match=r"step \d: "):
        fit(replace(diverging, batch_size=8, checkpoint_steps=1), tiny_set, tmp_path / "saved", QUIET)


def test_workers_are_those_asked_for_in_training_validation_and_the_final_evaluation(
    config, tiny_set, tmp_path, monkeypatch
):
    from alexnet.evaluation import error_rate
    from alexnet.training import trainer

    asked = []

    def noting(module):
        original = module.batches

        def noted(*arguments, **settings):
            asked.append((module, settings["workers"]))
            return original(*arguments, **settings)

        return noted

    for module in (trainer, error_rate):
        monkeypatch.setattr(module, "batches", noting(module))
    train(config, tmp_path, replace(QUIET, workers=0), data=tiny_set, report=False)
    assert set(asked) == {(trainer, 0), (error_rate, 0)}
    assert asked.count((error_rate, 0)) == 2


def test_the_classes_are_shown_where_the_data_of_a_training_is_opened(config, tiny_set, capsys):
    for quiet, shown in ((False, class_lines(tiny_set.classes, tiny_set.class_counts)), (True, [])):
        recipes_run.open_data(config, quiet=quiet)
        assert capsys.readouterr().err.splitlines() == shown


def test_leaks_are_counted_before_anything_is_learned(config, tmp_path, capsys):
    photos = make_photographs(tmp_path / "photos")
    for i in range(2):
        shutil.copyfile(photos / f"train/red/{i}.png", photos / f"val/red/leak{i}.png")
    data = prepare(photos, tmp_path / "packed", size=36, workers=1)
    recipes_run.open_data(replace(config, data=str(data.path)), quiet=True)
    said = f"warning: 2 of the 14 val images are also in train; `alexnet check {data.path}` names them\n"
    assert capsys.readouterr().err == said


def test_a_forecast_takes_a_batch_in_the_parts_and_the_precision_of_the_run(config, tiny_set, tmp_path, monkeypatch):
    seen = []
    forward = AlexNet.forward

    def noted(model, x_BCHW, draw=None):
        if not x_BCHW.is_meta:  # of the check that the settings fit together
            seen.append((len(x_BCHW), x_BCHW.dtype))
        return forward(model, x_BCHW, draw)

    monkeypatch.setattr(AlexNet, "forward", noted)
    kind = replace(config, batch_size=7, precision="float64")
    found = dry_run(kind, tmp_path / "run", replace(QUIET, accumulate=3), data=tiny_set, steps=1)
    assert seen == [(3, torch.float64), (2, torch.float64), (2, torch.float64)]
    assert found["disk_bytes"] == found["parameters"] * 8 * (2 * files.CHECKPOINTS + 1)


def test_fresh_is_refused_in_a_job(tmp_path, monkeypatch, capsys):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as exit:
        main(["train", "quickstart", "--out", str(tmp_path / "run"), "--fresh"])
    assert exit.value.code == 2
    assert "--fresh under torchrun would delete the run again" in capsys.readouterr().err


def test_a_log_that_is_shorter_than_its_checkpoint_says_is_not_filled_up(config, tiny_set, tmp_path, capsys):
    fit(replace(config, epochs=1), tiny_set, tmp_path, QUIET)
    log = tmp_path / "log.jsonl"
    log.write_bytes(log.read_bytes()[:300])
    with files.Log(log, 2000) as again:
        again.write({"event": "step"})
    assert b"\0" not in log.read_bytes()
    assert json.loads(log.read_bytes().splitlines()[-1]) == {"event": "step"}
    assert "shorter than the checkpoint says" in capsys.readouterr().err
