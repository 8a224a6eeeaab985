"""Starting from trained weights: which layers a new last layer may read, and tuning only where images left out ask for it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from alexnet.core.device import Machine
from alexnet.core.errors import StoppedError, UsageError
from alexnet.evaluation.predict import load
from alexnet.models import create_model, default_preprocessing
from alexnet.recipes import pretrained, transfer
from alexnet.recipes.pretrained import Mean, Trial, candidates, configured, train_from, try_tuning, with_best_layer
from alexnet.training import head
from alexnet.training.config import TrainConfig
from alexnet.training.initial import Initial
from alexnet.training.trainer import fit, network
from shared import tiny_training

QUIET = Machine(device=torch.device("cpu"), quiet=True)


@pytest.fixture(scope="module")
def trained(tiny_set, tmp_path_factory) -> Initial:
    """Weights that know the colors of the tiny set, under other names of classes."""
    config = tiny_training(tiny_set.path, epochs=2, batch_size=8, checkpoint_steps=100)
    model = fit(config, tiny_set, tmp_path_factory.mktemp("trained") / "run", QUIET).model
    return Initial("trained", config.network, model.state_dict(), config.preprocessing, ("a", "b"), model=config.model)


@pytest.fixture
def config(trained, tiny_config) -> TrainConfig:
    return replace(configured(trained), data=tiny_config.data, epochs=2, batch_size=8)


def owt(layers: str = "conv") -> Initial:
    """torchvision's network, or its convolutions alone."""
    tensors = {
        key: value for key, value in create_model("alexnet_owt", num_classes=5).state_dict().items() if layers in key
    }
    return Initial("weights", "alexnet_owt", tensors, default_preprocessing("alexnet_owt"))


def test_of_convolutions_alone_the_last_layer_reads_their_end_and_the_whole_square_is_seen():
    (config,) = candidates(owt())
    assert config == transfer()
    assert (config.model.fc_units, config.preprocessing.crop, config.preprocessing.resize, config.size) == (
        (0, 0),
        320,
        320,
        320,
    )
    assert (config.last_layer, config.epochs) == ("fitted", 6)


def test_whole_weights_offer_fc6_and_fc7_at_the_size_that_they_were_trained_with():
    found = candidates(owt(""))
    assert [config.model.fc_units for config in found] == [(0, 0), (4096, 0), (4096, 4096)]
    assert [config.preprocessing.crop for config in found] == [320, 224, 224]


def test_a_network_of_other_sizes_keeps_them(trained):
    found = candidates(trained)
    assert found[0].model.conv_channels == trained.model.conv_channels
    assert found[0].preprocessing.crop == found[0].preprocessing.resize == trained.preprocessing.resize
    assert found[2].model == trained.model


def test_weights_of_other_sizes_than_the_network_are_refused():
    tensors = {"conv1.weight": torch.zeros(3, 3, 5, 5)}
    with pytest.raises(UsageError, match="name other weights with --init-from"):
        candidates(Initial("strange", "alexnet_owt", tensors, default_preprocessing("alexnet_owt")))


def test_the_layer_is_read_whose_classifier_does_best_on_images_left_out(trained, config, tiny_set, capsys):
    best = with_best_layer(config, tiny_set, trained, QUIET)
    said = capsys.readouterr().err
    choices = [replace(config, model=one.model, preprocessing=one.preprocessing) for one in candidates(trained)]
    losses = []
    for choice in choices:
        _, head = pretrained.with_fitted_head(choice, tiny_set, trained, QUIET)
        losses.append(min(tried.loss_nats for tried in head.tried))
    assert best == choices[int(np.argmin(losses))]
    assert f"the last layer reads {['pool5', 'fc6', 'fc7'][int(np.argmin(losses))]}" in said
    other = replace(config, model=replace(config.model, fc_units=(8, 0)))
    assert with_best_layer(other, tiny_set, trained, QUIET) == other


@pytest.mark.parametrize(
    ("tuned", "loss", "helps"),
    [(9, 1.0, False), (9, 0.4, True), (11, 0.1, False), (10, 0.4, True), (10, 0.6, False), (10, 0.5, False)],
)
def test_tuning_helps_if_the_loss_is_lower_and_there_are_no_more_errors(tuned, loss, helps):
    means = (Mean(0.5, 4, 2.0), Mean(0.0, tuned, loss))  # the one with the lowest loss counts
    trial = Trial(n=50, head_errors=10, head_loss=0.5, epochs=3, means=means)
    assert trial.helps is helps
    assert ("so the network is tuned" in str(trial)) is helps


def test_the_trial_asks_a_fifth_of_the_training_images_and_no_other(monkeypatch, trained, config, tiny_set, tmp_path):
    monkeypatch.setattr(pretrained, "LEAST", 5)
    trial = try_tuning(config, tiny_set, QUIET, trained, tmp_path / "run")
    assert trial.n == 9  # ranks 4, 9 and 14 of 18 images in each of three classes
    parts = pretrained._parted(tiny_set, config.seed)
    numbers = [set(parts.split(name).image_N.tolist()) for name in ("train", "val")]
    assert numbers[0] | numbers[1] == set(range(54))
    assert not numbers[0] & numbers[1]
    assert parts.split("val").split is tiny_set.split("train")
    monkeypatch.setattr(pretrained, "fit", lambda *_, **__: pytest.fail("tried again"))
    assert try_tuning(config, tiny_set, QUIET, trained, tmp_path / "run") == trial


def test_the_trial_compares_means_of_the_fitted_and_the_tuned_weights(monkeypatch, trained, config, tiny_set, tmp_path):
    monkeypatch.setattr(pretrained, "LEAST", 5)
    found, real = [], pretrained.evaluate_split

    def watched(model, *args, **options):
        found.append({name: value.clone() for name, value in model.state_dict().items()})
        return real(model, *args, **options)

    monkeypatch.setattr(pretrained, "evaluate_split", watched)
    trial = try_tuning(config, tiny_set, QUIET, trained, tmp_path / "run")
    assert [mean.start_share for mean in trial.means] == [0.75, 0.5, 0.25, 0.0]
    parts = pretrained._parted(tiny_set, config.seed)
    learned_N = parts.splits["train"].image_N
    start, _ = pretrained.with_fitted_head(config, tiny_set, trained, QUIET, image_N=learned_N)
    tuned = fit(config, parts, tmp_path / "alone", QUIET, initial=start).model.state_dict()
    for share, state in zip((0.75, 0.5, 0.25, 0.0), found, strict=True):
        expected = {name: share * start.tensors[name] + (1 - share) * value for name, value in tuned.items()}
        torch.testing.assert_close(state, expected, rtol=1e-5, atol=1e-7)
    wanted = replace(config, start_share=0.3)
    only = try_tuning(wanted, tiny_set, QUIET, trained, tmp_path / "wanted")
    assert [mean.start_share for mean in only.means] == [0.3]


@pytest.mark.parametrize("helps", [False, True])
def test_a_run_is_tuned_only_if_the_trial_says_so(monkeypatch, trained, config, tiny_set, tmp_path, helps):
    means = (Mean(0.25, 2, 0.5 if helps else 1.5),)
    trial = Trial(n=9, head_errors=3, head_loss=1.0, epochs=2, means=means)
    monkeypatch.setattr(pretrained, "try_tuning", lambda *_, **__: trial)
    out = tmp_path / "run"
    summary = train_from(config, out, QUIET, data=tiny_set, initial=trained)
    assert summary["trial"]["helps"] is helps
    decided = json.loads((out / "config.json").read_text())["train"]
    assert (decided["epochs"], decided["start_share"]) == ((2, 0.25) if helps else (0, 0.0))
    conv5 = load(out).model.state_dict()["conv5.weight"]
    assert torch.equal(conv5, trained.tensors["conv5.weight"]) is not helps
    monkeypatch.setattr(pretrained, "try_tuning", lambda *_, **__: pytest.fail("tried again"))
    again = train_from(
        config if helps else replace(config, epochs=0), out, QUIET, data=tiny_set, initial=trained, resume=True
    )
    assert again == summary


def test_trial_and_run_share_the_features_of_all_images(monkeypatch, trained, config, tiny_set, tmp_path):
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pretrained, "LEAST", 5)
    computed = []
    compute = head._compute_features

    def counted(*arguments):
        computed.append(len(arguments[3]))
        return compute(*arguments)

    monkeypatch.setattr(head, "_compute_features", counted)
    train_from(config, tmp_path / "run", QUIET, data=tiny_set, initial=trained)
    assert computed == [54]


def test_few_images_are_not_tried_on(trained, config, tiny_set, tmp_path, capsys):
    summary = train_from(config, tmp_path / "run", QUIET, data=tiny_set, initial=trained)
    assert "too few to try on some of them whether tuning helps" in capsys.readouterr().err
    assert "trial" not in summary
    assert not (tmp_path / "run" / ".trial").exists()


def test_a_trial_that_was_stopped_goes_on(monkeypatch, trained, config, tiny_set, tmp_path):
    monkeypatch.setattr(pretrained, "LEAST", 5)
    straight = try_tuning(config, tiny_set, QUIET, trained, tmp_path / "straight")

    class Stop:
        def __init__(self) -> None:
            self.asked = 0

        @property
        def requested(self) -> bool:
            self.asked += 1
            return self.asked == 4

    def stopped(*args, **options):
        return fit(*args, **options, stop=Stop())

    monkeypatch.setattr(pretrained, "fit", stopped)
    with pytest.raises(StoppedError):
        try_tuning(config, tiny_set, QUIET, trained, tmp_path / "run")
    monkeypatch.setattr(pretrained, "fit", fit)
    assert try_tuning(config, tiny_set, QUIET, trained, tmp_path / "run") == straight


def test_the_trunk_is_the_start_that_the_recipe_is_made_for(tmp_path: Path):
    model = network(transfer(), 10, weights=False)
    assert model.fc8.in_features == 256 * 9 * 9
