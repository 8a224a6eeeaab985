"""Runs of several ranks and of one, in float64: the same losses, the same weights, each image counted once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import training_jobs
from safetensors.numpy import load_file

from alexnet.core.errors import AlexNetError
from alexnet.data.transforms import Augmentation
from alexnet.distributed.launch import run_local
from alexnet.recipes.run import train
from alexnet.training.config import TrainConfig

LAYOUTS = [
    {"layout": "data"},
    {"layout": "towers"},
    {"layout": "hybrid"},
    {"layout": "hybrid", "scheme": "turns"},
    {"layout": "hybrid", "scheme": "slices"},
    {"layout": "data", "accumulate": 3},
    {"layout": "towers", "accumulate": 2},
    {"layout": "hybrid", "accumulate": 9},  # more parts than images
]


@pytest.fixture
def config(tiny_config: TrainConfig) -> TrainConfig:
    """54 images in batches of 8, the last of 6; dropout and all augmentation on."""
    return replace(tiny_config, precision="float64", epochs=2, views=("1",))


def rows(out: Path, event: str) -> list[dict[str, Any]]:
    return [row for line in (out / "log.jsonl").read_text().splitlines() if (row := json.loads(line))["event"] == event]


def last_checkpoint(out: Path) -> dict[str, np.ndarray]:
    folder = out / "checkpoint" / (out / "checkpoint" / "last").read_text().strip()
    return {
        f"{group}/{name}": value
        for group in ("model", "optimizer", "trained")
        if (folder / f"{group}.safetensors").is_file()
        for name, value in load_file(folder / f"{group}.safetensors").items()
    }


def assert_same_run(ours: Path, theirs: Path) -> None:
    assert [row["loss"] for row in rows(ours, "step")] == pytest.approx(
        [row["loss"] for row in rows(theirs, "step")], rel=1e-10
    )
    for mine, other in zip(rows(ours, "epoch"), rows(theirs, "epoch"), strict=True):
        for name in ("train_loss", "val_loss"):
            assert mine[name] == pytest.approx(other[name], rel=1e-10), name
        for name in ("train_top1_error", "val_n", "val_top1_errors", "val_top5_errors", "dead_filters"):
            assert mine[name] == other[name], name
    mine, other = last_checkpoint(ours), last_checkpoint(theirs)
    assert mine.keys() == other.keys()
    for name, value in other.items():
        np.testing.assert_allclose(mine[name], value, rtol=1e-9, atol=1e-12, err_msg=name)
    mine, other = (load_file(out / "model" / "model.safetensors") for out in (ours, theirs))
    for name, value in other.items():
        np.testing.assert_allclose(mine[name], value, rtol=1e-9, atol=1e-12, err_msg=name)
    a, b = (json.loads((out / "results" / "final-center.json").read_text()) for out in (ours, theirs))
    assert a["loss_nats"] == pytest.approx(b["loss_nats"], rel=1e-10)
    for name in ("n", "top1_errors", "classes", "confusion", "protocol"):
        assert a[name] == b[name], name


def check_world(world: int, machines: list[dict[str, Any]], config: TrainConfig, tmp_path: Path) -> None:
    train(config, tmp_path / "one", training_jobs.on_cpu(), data=training_jobs.open_packed(config.data), report=False)
    jobs = [(config, str(tmp_path / f"{world}-{i}"), machine) for i, machine in enumerate(machines)]
    summaries = run_local(training_jobs.many, world, jobs)
    assert all(summary == summaries[0] for summary in summaries)
    for _, out, _ in jobs:
        assert_same_run(Path(out), tmp_path / "one")


def test_two_ranks_train_as_one_process_does(config, tmp_path):
    check_world(2, LAYOUTS[:3] + LAYOUTS[5:6], config, tmp_path)


def test_two_ranks_balance_mix_average_and_choose_as_one_process_does(config, tmp_path):
    small = replace(
        config,
        train_images=20,
        balance="sampler",
        augmentation=Augmentation(mixup=0.5, cutmix=1.0),
        ema=0.9,
        early_stopping=1,
    )
    check_world(2, LAYOUTS[:3], replace(small, epochs=3), tmp_path)
    errors = [row["val_balanced_top1_error"] for row in rows(tmp_path / "one", "epoch")]
    assert errors[-1] >= min(errors[:-1])  # the best epoch, which every rank was to load, is not the last


@pytest.mark.long
@pytest.mark.parametrize("world", [2, 3, 4])
def test_every_layout_of_every_world_trains_as_one_process_does(world, config, tmp_path):
    check_world(world, [m for m in LAYOUTS if world % 2 == 0 or m["layout"] != "towers"], config, tmp_path)


def test_what_was_sent_is_what_the_sizes_of_the_layers_predict(config, tmp_path):
    config = replace(config, epochs=1, train_images=14)  # batches of 8 and 6
    machines = [
        *LAYOUTS[:5],
        {"layout": "towers", "exchange": "bfloat16"},
        {"layout": "hybrid", "exchange": "bfloat16"},
    ]
    jobs = [(config, str(tmp_path / str(i)), machine) for i, machine in enumerate(machines)]
    jobs += [
        (replace(config, precision="bfloat16"), str(tmp_path / f"b{i}"), machine) for i, machine in enumerate(machines)
    ]
    run_local(training_jobs.many, 2, jobs)
    held = {}
    for settings, out, machine in jobs:
        report = json.loads((Path(out) / "ranks.json").read_text())
        for said in report["ranks"]:
            assert said["sent"] == said["predicted"], (settings.precision, machine)
            assert said["peak_memory_bytes"] > 0
        held[settings.precision, json.dumps(machine)] = report["ranks"][0]["parameter_bytes"]
    whole, halves = held["float64", json.dumps(LAYOUTS[0])], held["float64", json.dumps(LAYOUTS[1])]
    assert halves == pytest.approx(whole / 2, rel=0.01)  # but for fc8's biases


def test_a_run_goes_on_in_another_layout_and_with_other_ranks(config, tmp_path):
    alone, moved = tmp_path / "one", tmp_path / "moved"
    train(config, alone, training_jobs.on_cpu(), data=training_jobs.open_packed(config.data), report=False)
    for world, machine, stop_after in ((2, LAYOUTS[1], 3), (2, LAYOUTS[2], 6), (3, LAYOUTS[0], 11)):
        (said, *_) = run_local(training_jobs.train_once, world, config, str(moved), machine, stop_after)
        assert f"stopped at step {stop_after}" in said["stopped"]
    run_local(training_jobs.train_once, 2, config, str(moved), LAYOUTS[3])
    assert_same_run(moved, alone)


def test_a_change_is_written_down_once_and_taken_by_all_ranks(config, tmp_path):
    begun = replace(config, epochs=1)
    changed = replace(config, optimizer=replace(config.optimizer, lr=0.001), label_smoothing=0.1)
    alone, ranks = (
        [(begun, str(out), {}), (changed, str(out), {}, None, True)] for out in (tmp_path / "1", tmp_path / "2")
    )
    training_jobs.many(alone)
    first, second = run_local(training_jobs.many, 2, ranks)
    assert first == second
    history = json.loads((tmp_path / "2" / "config.json").read_text())["history"]
    fields = {"epochs": [1, 2], "optimizer.lr": [config.optimizer.lr, 0.001], "label_smoothing": [0.0, 0.1]}
    assert history == [{"step": 7, "epoch": 1, "changed": fields}]
    assert len(rows(tmp_path / "2", "change")) == 1
    assert_same_run(tmp_path / "2", tmp_path / "1")


def test_few_images_leave_some_ranks_without_any(config, tmp_path):
    config = replace(config, train_images=5, batch_size=3, epochs=1)  # batches of 3 and 2 among 4 ranks
    check_world(4, LAYOUTS[:3], config, tmp_path)


def test_bfloat16_stays_close(config, tmp_path):
    config = replace(config, precision="bfloat16")
    train(config, tmp_path / "one", training_jobs.on_cpu(), data=training_jobs.open_packed(config.data), report=False)
    jobs = [(config, str(tmp_path / str(i)), machine) for i, machine in enumerate(LAYOUTS[:3])]
    run_local(training_jobs.many, 2, jobs)
    expected = [row["loss"] for row in rows(tmp_path / "one", "step")]
    for _, out, _ in jobs:
        assert [row["loss"] for row in rows(Path(out), "step")][:4] == pytest.approx(expected[:4], rel=2e-2)


def test_towers_of_an_odd_number_of_ranks_are_refused(config, tmp_path):
    with pytest.raises(AlexNetError, match="needs an even number of ranks, and this job has 3"):
        run_local(training_jobs.train_once, 3, config, str(tmp_path / "run"), {"layout": "towers"})


def check_evaluation(world: int, layout: str, nums: list[int], batch_sizes: list[int]) -> None:
    expected = training_jobs.evaluations(nums, batch_sizes, "data")
    for said in run_local(training_jobs.evaluations, world, nums, batch_sizes, layout):
        assert said == expected


def test_evaluation_counts_every_image_once_on_any_ranks():
    check_evaluation(2, "data", [1, 2, 3, 8, 17], [1, 3, 8])
    check_evaluation(4, "towers", [1, 5, 17], [3])


@pytest.mark.long
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_evaluation_counts_every_image_once_in_all_cases(world):
    check_evaluation(world, "data", list(range(1, 65)), [1, 3, 8])
