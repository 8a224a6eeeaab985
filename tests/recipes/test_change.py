"""A run that goes on with other settings: what may be changed, how it is written down, and that it stays exact."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from alexnet.cli import main
from alexnet.core.device import Machine
from alexnet.core.errors import StoppedError, UsageError
from alexnet.core.runs import write_json
from alexnet.data.transforms import Augmentation
from alexnet.recipes.run import train
from alexnet.report.page import write_report
from alexnet.training import trainer
from alexnet.training.ending import why_not_longer
from alexnet.training.optimizer import OptimizerConfig
from alexnet.training.schedule import Plateau, Staged, Steps
from alexnet.training.trainer import fit
from shared import StopAfter

QUIET = Machine(device=torch.device("cpu"), quiet=True)
STOPPED = 75
TINY = (
    "--size 36 --preprocessing.resize 36 --preprocessing.crop 32 --preprocessing.scale 0.02 --model.input-size 32 "
    "--model.fc-units 16 16 --model.conv-channels 8 8 8 8 8 --model.conv-kernels 5 3 3 3 3 --model.conv-padding 2 1 1 1 1 "
    "--batch-size 8 --device cpu --threads 1 --epochs 3"
).split()


def stopped(config, data, out, step, **options):
    with pytest.raises(StoppedError):
        fit(config, data, out, QUIET, stop=StopAfter(step - 1), **options)


def rows(out: Path, event: str) -> list[dict]:
    found = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    clock = ("images_per_second", "data_seconds", "seconds")
    return [{k: v for k, v in row.items() if k not in clock} for row in found if row["event"] == event]


def weights(model: torch.nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


def settings(out: Path) -> dict:
    return json.loads((out / "config.json").read_text())


def test_a_lower_rate_is_taken_and_written_down_with_its_step(tiny_config, tiny_set, tmp_path, capsys):
    lower = replace(tiny_config, optimizer=OptimizerConfig(lr=0.002))
    stopped(tiny_config, tiny_set, tmp_path, 4)
    fit(lower, tiny_set, tmp_path, QUIET, resume=True, change=True)
    plain = tmp_path / "plain"
    fit(tiny_config, tiny_set, plain, QUIET)
    rates, before = ([row["lr"] for row in rows(out, "step")] for out in (tmp_path, plain))
    assert rates[:4] == before[:4]
    assert rates[4:] == pytest.approx([rate / 10 for rate in before[4:]])
    entry = {"step": 4, "epoch": 0, "changed": {"optimizer.lr": [0.02, 0.002]}}
    assert settings(tmp_path)["history"] == [entry]
    assert settings(tmp_path)["train"]["optimizer"]["lr"] == 0.002
    message = "changed after step 4: optimizer.lr 0.02 -> 0.002"
    assert rows(tmp_path, "change") == [{"event": "change", **entry, "message": message}]
    assert message in capsys.readouterr().err
    assert message.replace(">", "&gt;") in write_report(tmp_path).read_text()


@pytest.mark.parametrize(
    "fields",
    [
        {"schedule": Steps(every=1, factor=0.5)},
        {"epochs": 2},
        {"augmentation": Augmentation(color_noise=0.0)},
        {"batch_size": 4},
        {"label_smoothing": 0.1},
        {"optimizer": OptimizerConfig(lr=0.02, weight_decay=0.0, momentum=0.5, layer_lr=(("conv1", 0.0),))},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_what_decides_the_optimization_may_be_changed_and_goes_on_exactly(fields, tiny_config, tiny_set, tmp_path):
    """Stopped, changed, stopped again, resumed: to the byte what it is without the second stop."""
    new, found = replace(tiny_config, **fields), []
    for name in ("straight", "stopped"):
        out = tmp_path / name
        stopped(tiny_config, tiny_set, out, 4)
        if name == "stopped":
            stopped(new, tiny_set, out, 5, resume=True, change=True)
        model = fit(new, tiny_set, out, QUIET, resume=True, change=name == "straight").model
        found.append((weights(model), rows(out, "step"), rows(out, "epoch"), rows(out, "change")))
    assert found[0] == found[1]
    assert len(found[0][3]) == 1


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"seed": 7}, "seed"),
        ({"train_images": 20}, "train_images"),
        ({"balance": "sampler"}, "balance"),
        ({"optimizer": OptimizerConfig(kind="adamw", lr=0.02)}, r"optimizer\.kind"),
        ({"preprocessing": {"scale": 1.0}}, r"preprocessing\.scale"),
        ({"model": {"dropout_rate": 0.1}}, r"model\.dropout_rate"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_decides_the_network_or_the_data_may_not(fields, named, tiny_config, tiny_set, tmp_path):
    stopped(tiny_config, tiny_set, tmp_path, 2)
    for name in ("preprocessing", "model"):
        if name in fields:
            fields = {name: replace(getattr(tiny_config, name), **fields[name])}
    before = settings(tmp_path)
    with pytest.raises(UsageError, match=rf"{named}.*cannot be changed"):
        fit(replace(tiny_config, **fields), tiny_set, tmp_path, QUIET, resume=True, change=True)
    assert settings(tmp_path) == before


def test_decays_of_single_layers_that_were_no_factors_are_refused_until_they_are(tiny_config, tiny_set, tmp_path):
    def with_decay(weight_decay, *layers):
        return replace(
            tiny_config, optimizer=OptimizerConfig(lr=0.02, weight_decay=weight_decay, layer_weight_decay=layers)
        )

    stopped(with_decay(0.5, ("conv1", 0.1)), tiny_set, tmp_path, 2)
    document = settings(tmp_path)
    del document["version"]  # as it was when 0.1 was the decay of conv1
    write_json(tmp_path / "config.json", document)
    with pytest.raises(
        UsageError, match=r"begun when optimizer\.layer_weight_decay held decays.*give both with --change"
    ):
        fit(with_decay(0.5, ("conv1", 0.1)), tiny_set, tmp_path, QUIET, resume=True)
    factors = with_decay(0.5, ("conv1", 0.2))  # 0.2 times 0.5
    stopped(factors, tiny_set, tmp_path, 3, resume=True, change=True)
    fit(factors, tiny_set, tmp_path, QUIET, resume=True)


def test_without_change_other_settings_are_refused_and_the_way_is_named(tiny_config, tiny_set, tmp_path):
    stopped(tiny_config, tiny_set, tmp_path, 2)
    with pytest.raises(UsageError, match=r"optimizer\.lr\); resume without them, add --change"):
        fit(replace(tiny_config, optimizer=OptimizerConfig(lr=1)), tiny_set, tmp_path, QUIET, resume=True)


def test_a_change_that_was_killed_before_it_was_saved_is_still_in_the_log(tiny_config, tiny_set, tmp_path, monkeypatch):
    stopped(tiny_config, tiny_set, tmp_path, 4)
    lower = replace(tiny_config, optimizer=OptimizerConfig(lr=0.002))

    def killed(self, batch, data_seconds):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer._Trainer, "_step", killed)
        with pytest.raises(KeyboardInterrupt):
            fit(lower, tiny_set, tmp_path, QUIET, resume=True, change=True)
    fit(lower, tiny_set, tmp_path, QUIET, resume=True)
    assert [row["step"] for row in rows(tmp_path, "change")] == [4]


def test_a_run_ends_where_its_user_is_satisfied_and_goes_on_for_longer(tiny_config, tiny_set, tmp_path):
    config = replace(tiny_config, views=("1",), epochs=6)
    stopped(config, tiny_set, tmp_path, 21)  # 17 steps, and two looks in each of two validations
    summary = train(replace(config, epochs=2), tmp_path, QUIET, data=tiny_set, resume=True)
    assert (tmp_path / "model" / "model.safetensors").is_file()
    assert (tmp_path / "report.html").is_file()
    assert summary["views"]["1"]["n"] == 12
    assert [row["step"] for row in rows(tmp_path, "step")][-1] == 17
    result = (tmp_path / "results" / "final-center.json").read_bytes()
    with pytest.raises(UsageError, match=r"has finished its 2 epochs; .* add --epochs"):
        train(replace(config, epochs=1), tmp_path, QUIET, data=tiny_set, resume=True)
    before = settings(tmp_path)
    with pytest.raises(UsageError, match=r"ended after 2 epochs: its cosine schedule .* of 4 would go back to 0\.015"):
        train(replace(config, epochs=4), tmp_path, QUIET, data=tiny_set, resume=True)
    assert settings(tmp_path) == before
    assert (tmp_path / "model" / "model.safetensors").is_file()
    train(replace(config, epochs=4), tmp_path, QUIET, data=tiny_set, resume=True, change=True)
    assert len(rows(tmp_path, "epoch")) == 4
    assert [row["changed"] for row in rows(tmp_path, "change")] == [{"epochs": [6, 2]}, {"epochs": [2, 4]}]
    assert (tmp_path / "earlier" / "step-17" / "results" / "final-center.json").read_bytes() == result
    assert (tmp_path / "results" / "final-center.json").read_bytes() != result


@pytest.mark.parametrize("schedule", [Plateau(patience=1), Steps(every=2)], ids=["plateau", "steps"])
def test_a_finished_run_goes_on_to_what_a_longer_one_is(schedule, tiny_config, tiny_set, tmp_path):
    config, longer = (replace(tiny_config, schedule=schedule, epochs=epochs) for epochs in (1, 3))
    fit(config, tiny_set, tmp_path / "run", QUIET)
    resumed = fit(longer, tiny_set, tmp_path / "run", QUIET, resume=True).model
    assert weights(resumed) == weights(fit(longer, tiny_set, tmp_path / "whole", QUIET).model)


def history(*errors: int) -> list[dict]:
    return [{"epoch": i, "val_top1_error": e / 12, "train_top1_error": 0.5} for i, e in enumerate(errors, start=1)]


@pytest.mark.parametrize(
    ("fields", "longer", "reason"),
    [
        (
            {"schedule": Staged(), "epochs": 90},
            {"epochs": 100},
            r"staged schedule is one of 90 epochs .* --schedule\.every 100 ",
        ),
        ({"schedule": Steps()}, {"epochs": 100}, None),
        ({"early_stopping": 2}, {"epochs": 100}, r"no epoch after epoch 1 .*--early-stopping 3 or more"),
        ({"early_stopping": 2}, {"early_stopping": 3}, None),
        ({"until_train_error": 0.6}, {"epochs": 100}, r"training error has reached 0\.6.*--until-train-error None"),
    ],
    ids=["staged", "steps", "early stopping", "more patience", "goal"],
)
def test_why_a_run_that_has_ended_does_not_go_on(fields, longer, reason, tiny_config):
    before = replace(tiny_config, **{"epochs": 3, "schedule": Steps()} | fields)
    done = history(*[5, 6, 7][: before.epochs]) if before.epochs == 3 else history(*[5] * 90)
    why = why_not_longer(before, replace(before, **longer), done, change=False)
    assert why is None if reason is None else re.search(reason, why or "")


def command(*words: object) -> int:
    with pytest.raises(SystemExit) as exit:
        main(["train", "quickstart", *map(str, words)])
    return int(exit.value.code or 0)


def test_a_resumed_command_need_not_repeat_the_settings(tiny_set, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    monkeypatch.setattr(trainer, "StopRequest", None)  # fit() is given one
    monkeypatch.setattr("alexnet.recipes.run.StopRequest", lambda: _entered(StopAfter(3)))
    assert command("--data", tiny_set.path, "--out", out, *TINY) == STOPPED
    monkeypatch.setattr("alexnet.recipes.run.StopRequest", lambda: _entered(StopAfter(1000)))
    assert command("--out", out, "--resume", "--model.fc-units", 8, 8) == 2
    assert "model.fc_units" in capsys.readouterr().err
    assert command("--out", out, "--resume", "--epochs", 2) == 0
    assert len(rows(out, "epoch")) == 2
    assert command("--out", out, "--resume", "--change", "--epochs", 4, "--optimizer.lr", 0.001) == 0
    assert len(rows(out, "epoch")) == 4
    assert command("--out", out, "--resume") == 0
    assert "is finished; nothing to do" in capsys.readouterr().err
    assert command("--out", out, "--change") == 2
    assert "--change needs --resume" in capsys.readouterr().err


def _entered(stop: StopAfter):
    from contextlib import nullcontext

    return nullcontext(stop)
