"""Training controls for small and uneven sets: exact over interruptions, and what they say they are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from alexnet.core import rng
from alexnet.core.device import Machine
from alexnet.core.errors import AlexNetError, StoppedError, UsageError
from alexnet.data.loader import epoch_order
from alexnet.data.transforms import Augmentation
from alexnet.training import trainer
from alexnet.training.trainer import fit, network_input, training_images
from shared import StopAfter

QUIET = Machine(device=torch.device("cpu"), quiet=True)
MIXED = Augmentation(mixup=0.5, cutmix=1.0)


def weights(model: torch.nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


def rows(run: Path, event: str) -> list[dict]:
    found = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    clock = ("images_per_second", "data_seconds", "seconds")
    return [{k: v for k, v in row.items() if k not in clock} for row in found if row["event"] == event]


@pytest.mark.parametrize(
    "fields",
    [
        {"balance": "sampler", "augmentation": MIXED},
        {"balance": "weights", "augmentation": Augmentation(mixup=0.2)},
        {"ema": 0.9, "early_stopping": 1},
    ],
    ids=["sampler", "weights", "ema and early stopping"],
)
def test_a_stopped_and_resumed_run_equals_one_that_was_not(fields, tiny_config, tiny_set, tmp_path):
    config = replace(
        tiny_config, train_images=20, epochs=4, checkpoint_steps=100, **fields
    )  # uneven classes, 3 steps an epoch
    whole, run = tmp_path / "whole", tmp_path / "run"
    model = fit(config, tiny_set, whole, QUIET).model
    for looks in (1, 5):
        with pytest.raises(StoppedError):
            fit(config, tiny_set, run, QUIET, resume=True, stop=StopAfter(looks))
    resumed = fit(config, tiny_set, run, replace(QUIET, workers=0), resume=True).model
    assert weights(resumed) == weights(model)
    assert [rows(run, event) for event in ("step", "epoch")] == [rows(whole, event) for event in ("step", "epoch")]


def test_the_loss_of_a_step_is_that_of_its_mixed_images_weighted_by_their_classes(tiny_config, tiny_set, tmp_path):
    config = replace(
        tiny_config,
        precision="float64",
        balance="weights",
        train_images=20,
        batch_size=20,
        epochs=1,
        model=replace(tiny_config.model, dropout_rate=0.0),
        augmentation=Augmentation(crop="center", mirror=False, color_noise=0.0, mixup=1.0),
    )
    fit(config, tiny_set, tmp_path, QUIET)
    split = tiny_set.split("train")
    image_B = training_images(len(split), config)[epoch_order(20, 0, 0)]
    partner_B = image_B[rng.integers(0, "mix/partner", 0, image_B, 1, 20)[:, 0]]
    share_B = rng.symmetric_beta(0, "mix/average", 0, image_B, 1.0)
    mean, model = torch.from_numpy(tiny_set.mean), trainer.network(config, 3).double()
    own, other = (
        network_input(torch.as_tensor(split.read(number_B)), number_B, config, mean).double()
        for number_B in (image_B, partner_B)
    )
    x = torch.stack([s * a + (1 - s) * b for s, a, b in zip(share_B, own, other, strict=True)])
    nats_BK = -model.train()(x).log_softmax(dim=1).detach().numpy()
    labels, others = split.labels[image_B], split.labels[partner_B]
    weight_K = 20 / (3 * np.bincount(labels))
    assert len(set(weight_K)) > 1
    expected = sum(
        share_B[i] * weight_K[labels[i]] * nats_BK[i, labels[i]]
        + (1 - share_B[i]) * weight_K[others[i]] * nats_BK[i, others[i]]
        for i in range(20)
    )
    assert rows(tmp_path, "step")[0]["loss"] == pytest.approx(expected / 20, rel=1e-12)


@pytest.mark.parametrize("normalization", ["lrn", "batch"])
def test_the_model_is_the_average_of_the_weights_of_all_steps(
    normalization, tiny_config, tiny_set, tmp_path, monkeypatch
):
    model = replace(tiny_config.model, normalization=normalization)
    config = replace(tiny_config, ema=0.5, epochs=2, precision="float64", model=model)
    step, states = trainer._Trainer._step, []

    def watched(self, batch, data_seconds):
        states.append({name: value.clone() for name, value in self.model.state_dict().items()})
        step(self, batch, data_seconds)
        states.append({name: value.clone() for name, value in self.model.state_dict().items()})

    monkeypatch.setattr(trainer._Trainer, "_step", watched)
    found = fit(config, tiny_set, tmp_path, QUIET).model.state_dict()
    average, after = states[0], states[1::2]
    for t, state in enumerate(after, start=1):  # decays 2/11, 3/12, 4/13, ... as long as they are below 0.5
        decay = min(0.5, (1 + t) / (10 + t))
        average = {
            name: decay * average[name] + (1 - decay) * value if value.is_floating_point() else value
            for name, value in state.items()
        }
    assert len(after) == 14
    torch.testing.assert_close(found, average, rtol=1e-12, atol=1e-14)
    assert not torch.equal(found["fc8.weight"], after[-1]["fc8.weight"])
    kept, trained = (load_file(tmp_path / f"checkpoint/step-14/{name}.safetensors") for name in ("model", "trained"))
    torch.testing.assert_close(kept, dict(found), rtol=0, atol=0)
    torch.testing.assert_close(trained, dict(after[-1]), rtol=0, atol=0)


def test_a_share_of_the_weights_that_a_run_started_from_is_kept(tiny_config, tiny_set, tmp_path, monkeypatch):
    model = replace(tiny_config.model, normalization="batch")
    plain = replace(tiny_config, epochs=2, model=model)
    step, first = trainer._Trainer._step, []

    def watched(self, batch, data_seconds):
        if not first:
            first.append({name: value.clone() for name, value in self.model.state_dict().items()})
        step(self, batch, data_seconds)

    monkeypatch.setattr(trainer._Trainer, "_step", watched)
    last = fit(plain, tiny_set, tmp_path / "plain", QUIET).model.state_dict()
    found = fit(replace(plain, start_share=0.25), tiny_set, tmp_path / "run", QUIET).model.state_dict()
    expected = {
        name: 0.25 * first[0][name] + 0.75 * value if value.is_floating_point() else value
        for name, value in last.items()
    }
    torch.testing.assert_close(dict(found), expected, rtol=1e-5, atol=1e-7)
    assert not torch.equal(found["conv1.weight"], last["conv1.weight"])
    shared = replace(plain, start_share=0.25)
    for looks in (2, 4):
        with pytest.raises(StoppedError):
            fit(shared, tiny_set, tmp_path / "stopped", QUIET, resume=True, stop=StopAfter(looks))
    assert weights(fit(shared, tiny_set, tmp_path / "stopped", QUIET, resume=True).model) == weights(
        fit(shared, tiny_set, tmp_path / "run", QUIET, resume=True).model
    )
    with pytest.raises(UsageError, match="start_share"):
        fit(plain, tiny_set, tmp_path / "run", QUIET, resume=True, change=True)
    file = max((tmp_path / "run" / "checkpoint").glob("step-*/started.safetensors"))
    torch.testing.assert_close(load_file(file), first[0], rtol=0, atol=0)


def test_an_average_begins_and_ends_in_the_middle_of_a_run(tiny_config, tiny_set, tmp_path):
    """Without the average the run goes on with the weights that were trained, and they are those of a plain run."""
    plain = fit(tiny_config, tiny_set, tmp_path / "plain", QUIET).model
    run, averaged = tmp_path / "run", replace(tiny_config, ema=0.9)
    for config, looks in ((tiny_config, 2), (averaged, 4)):
        with pytest.raises(StoppedError):
            fit(config, tiny_set, run, QUIET, resume=True, change=True, stop=StopAfter(looks))
    assert weights(fit(tiny_config, tiny_set, run, QUIET, resume=True, change=True).model) == weights(plain)


def test_where_classes_are_balanced_their_mean_error_judges_an_epoch(tiny_config, tiny_set, tmp_path):
    config = replace(tiny_config, balance="sampler", epochs=1)
    fit(config, tiny_set, tmp_path, QUIET)
    (row,) = rows(tmp_path, "epoch")
    state = json.loads((tmp_path / "checkpoint" / "step-7" / "state.json").read_text())
    assert state["best"] == row["val_balanced_top1_error"] == pytest.approx(row["val_top1_errors"] / 12)  # even classes


def validated_as(monkeypatch, errors: list[int]) -> None:
    """Let the validations of a run, one after the other, find so many errors of 12."""
    found, real = iter(errors), trainer.evaluate_split
    monkeypatch.setattr(
        trainer, "evaluate_split", lambda *a, **options: replace(real(*a, **options), top1_errors=next(found))
    )


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_early_stopping_ends_the_run_and_the_best_epoch_becomes_the_model(
    ema, tiny_config, tiny_set, tmp_path, monkeypatch
):
    validated_as(monkeypatch, [9, 5, 7, 5, 6])  # an equal error is no lower one
    config = replace(tiny_config, epochs=9, early_stopping=2, ema=ema)
    model = fit(config, tiny_set, tmp_path, QUIET).model
    assert [row["val_top1_errors"] for row in rows(tmp_path, "epoch")] == [9, 5, 7, 5]
    best, last = (load_file(tmp_path / f"checkpoint/step-{step}/model.safetensors") for step in (14, 28))
    torch.testing.assert_close(dict(model.state_dict()), best, rtol=0, atol=0)
    assert not torch.equal(best["fc8.weight"], last["fc8.weight"])
    again = fit(config, tiny_set, tmp_path, QUIET, resume=True).model  # killed before the evaluation, say
    assert weights(again) == weights(model)


def test_with_early_stopping_the_best_of_all_epochs_is_the_model_too(tiny_config, tiny_set, tmp_path, monkeypatch):
    validated_as(monkeypatch, [9, 5, 7])
    model = fit(replace(tiny_config, early_stopping=2), tiny_set, tmp_path, QUIET).model
    best = load_file(tmp_path / "checkpoint/step-14/model.safetensors")
    torch.testing.assert_close(dict(model.state_dict()), best, rtol=0, atol=0)


def test_a_best_checkpoint_that_is_gone_is_said_with_a_way_on(tiny_config, tiny_set, tmp_path, monkeypatch):
    validated_as(monkeypatch, [5, 9, 9])
    config = replace(tiny_config, early_stopping=2)
    fit(config, tiny_set, tmp_path, QUIET)
    (tmp_path / "checkpoint" / "step-7" / "model.safetensors").write_bytes(b"")
    with pytest.raises(AlexNetError, match=r"checkpoint/best: .* missing or damaged .*--change --early-stopping None"):
        fit(config, tiny_set, tmp_path, QUIET, resume=True)
    fit(replace(config, early_stopping=None), tiny_set, tmp_path, QUIET, resume=True, change=True)
