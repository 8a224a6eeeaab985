"""A run may start from trained weights: what fits is taken over to the byte, the rest is as random as ever, and resuming
knows which weights they were."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from alexnet.core.device import Machine
from alexnet.core.errors import AlexNetError, StoppedError, UsageError
from alexnet.data.packed import PackedSet
from alexnet.data.prepare import prepare
from alexnet.models import build_model, create_model, default_preprocessing, list_models, model_config
from alexnet.models.folder import save_model_folder
from alexnet.recipes import recipe
from alexnet.recipes.run import start_from
from alexnet.training import trainer
from alexnet.training.config import TrainConfig
from alexnet.training.initial import Initial, load_initial, other_input, save_initial, transfer, with_input_of
from alexnet.training.optimizer import OptimizerConfig
from alexnet.training.schedule import Steps
from alexnet.training.trainer import fit, network

CPU = torch.device("cpu")
QUIET = Machine(device=CPU, quiet=True)
LAYERS = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]


def weights(model: torch.nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


def model_folder(path: Path, config: TrainConfig, data: PackedSet, seed: int, epochs: int = 0) -> Path:
    """A folder of the configuration's network, fresh or trained, for the classes of ``data``."""
    config = replace(config, seed=seed)
    model = network(config, len(data.classes))
    if epochs:
        model = fit(replace(config, epochs=epochs), data, path.with_name("source-run"), QUIET).model
    save_model_folder(path, model, config.network, config.preprocessing, data.classes, data.mean)
    return path


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory) -> PackedSet:
    """Two of the colors of the tiny set under other names, in other images: 16 to train, 8 to validate."""
    root = tmp_path_factory.mktemp("two")
    random = np.random.default_rng(1)
    for split, num in (("train", 8), ("val", 4)):
        for label, name in enumerate(("cold", "warm")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(num):
                pixels = random.integers(0, 120, (36, 40, 3), dtype=np.uint8)
                pixels[..., 2 - 2 * label] += 100
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return prepare(root, tmp_path_factory.mktemp("packed-two") / "set", size=36, workers=1)


@pytest.fixture
def source(tiny_config, tiny_set, tmp_path) -> Path:
    return model_folder(tmp_path / "source", tiny_config, tiny_set, seed=7)


def start_of(monkeypatch) -> dict[str, bytes]:
    """What the network of the next run holds before its first step."""
    found: dict[str, bytes] = {}
    monkeypatch.setattr(trainer._Trainer, "_note_signal", lambda self: found.update(weights(self.model)))
    return found


# What is taken over ---------------------------------------------------------------------------------------------------


def test_other_classes_get_a_new_head_and_all_else_to_the_byte(
    source, tiny_config, two_classes, tmp_path, monkeypatch, capsys
):
    initial, found = load_initial(source), start_of(monkeypatch)
    fit(replace(tiny_config, epochs=1), two_classes, tmp_path / "run", QUIET, initial=initial)
    theirs = {name: value.numpy().tobytes() for name, value in initial.tensors.items()}
    fresh = weights(network(tiny_config, 2))
    head = {"fc8.weight", "fc8.bias"}
    assert {name for name in found if found[name] == theirs[name]} == found.keys() - head
    assert {name: found[name] for name in head} == {name: fresh[name] for name in head}
    said = capsys.readouterr().err
    assert "taken over: conv1, conv2, conv3, conv4, conv5, fc6, fc7; new: fc8 (2 classes here, 3 there)" in said
    record = json.loads((tmp_path / "run" / "config.json").read_text())["initial"]
    assert record == {
        "source": str(source),
        "network": "alexnet_2012",
        "fingerprint": initial.fingerprint,
        "taken": LAYERS[:-1],
        "new": {"fc8": "2 classes here, 3 there"},
        "left": [],
    }


def test_a_run_without_initial_weights_says_nothing_of_them(tiny_config, tiny_set, tmp_path):
    fit(replace(tiny_config, epochs=1), tiny_set, tmp_path / "run", QUIET)
    assert "initial" not in json.loads((tmp_path / "run" / "config.json").read_text())


@pytest.mark.parametrize(
    ("classes", "reason"),
    [
        (["blue", "green", "red"], None),
        (["blue", "red", "green"], None),
        (["a", "b", "c"], "other classes"),
        (["blue", "green"], "2 classes here, 3 there"),
    ],
)
def test_the_head_is_kept_only_for_the_same_classes_and_brought_to_their_order(classes, reason, source, tiny_config):
    found = transfer(load_initial(source), tiny_config, classes)
    assert found.new == ({} if reason is None else {"fc8": reason})
    assert ("fc8.weight" in found.tensors) == (reason is None)
    if reason is None:
        rows = [["blue", "green", "red"].index(name) for name in classes]
        for key in ("fc8.weight", "fc8.bias"):
            assert torch.equal(found.tensors[key], found.initial.tensors[key][rows])


@pytest.mark.parametrize("name", list_models())
def test_every_network_takes_over_all_of_its_own_weights(name, tiny_config):
    config = model_config(name)
    model = build_model(config, name=name, seed=None)  # shapes are enough
    classes = tuple(map(str, range(config.num_classes)))
    initial = Initial("itself", name, model.state_dict(), default_preprocessing(name), classes)
    found = transfer(initial, replace(tiny_config, network=name, model=config), classes)
    assert (found.new, found.left) == ({}, [])
    assert found.tensors.keys() == model.state_dict().keys()


def test_a_layer_that_only_one_of_the_two_has_is_new_or_left(tiny_config, tiny_set, tmp_path):
    fields = {
        "conv_channels": (8,) * 6,
        "conv_kernels": (5, 3, 3, 3, 3, 3),
        "conv_strides": (2, 1, 1, 1, 1, 1),
        "conv_padding": (2, 1, 1, 1, 1, 1),
        "stages": ("act norm pool", "act norm pool", "act", "act", "act pool", "act"),
        "weight_std": (0.01,) * 9,
        "biases": (0.0,) * 9,
    }
    six = replace(tiny_config, model=replace(tiny_config.model, **fields))
    short, long = (
        load_initial(model_folder(tmp_path / n, c, tiny_set, 0)) for n, c in (("5", tiny_config), ("6", six))
    )
    assert transfer(short, six, tiny_set.classes).new == {"conv6": "the source has none"}
    found = transfer(long, tiny_config, tiny_set.classes)
    assert (found.taken, found.left) == (LAYERS, ["conv6"])
    assert str(found).endswith("left there: conv6")


# What does not fit ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "new"),
    [
        (
            {"conv_channels": (8, 8, 16, 8, 8)},
            {
                "conv3": "conv3.weight is (8, 8, 3, 3) there and (16, 8, 3, 3) here",
                "conv4": "conv4.weight is (8, 4, 3, 3) there and (8, 8, 3, 3) here",
            },
        ),
        (
            {"fc_units": (32, 16)},
            {
                "fc6": "fc6.weight is (16, 8) there and (32, 8) here",
                "fc7": "fc7.weight is (16, 16) there and (16, 32) here",
            },
        ),
        (
            {"normalization": "batch"},
            {f"conv{i}": f"stage{i}.norm{i}.weight is missing there and (8,) here" for i in (1, 2)},
        ),
        (
            {"activation": "prelu"},
            {f"conv{i}": f"stage{i}.act{i}.weight is missing there and (1,) here" for i in range(1, 6)}
            | {f"fc{i}": f"act{i}.weight is missing there and (1,) here" for i in (6, 7)},
        ),
    ],
)
def test_every_layer_that_fits_is_taken_and_the_others_are_new(fields, new, source, tiny_config, tiny_set):
    config = replace(tiny_config, model=replace(tiny_config.model, **fields))
    found = transfer(load_initial(source), config, tiny_set.classes)
    assert found.new == new
    assert found.taken == [layer for layer in LAYERS if layer not in new]


def test_nothing_that_fits_is_an_error_and_leaves_no_run(source, tiny_config, tiny_set, tmp_path):
    lenet = replace(tiny_config, network="lenet", model=model_config("lenet"))
    with pytest.raises(UsageError, match=r"\(alexnet_2012\) has no layer that fits lenet; take weights of lenet"):
        transfer(load_initial(source), lenet, ["a", "b"])
    wide = {"conv_channels": (12,) * 5, "fc_units": (20, 20)}
    config = replace(tiny_config, model=replace(tiny_config.model, **wide))
    says = r"no layer that fits alexnet_2012: conv1, conv1\.weight is \(8, 3, 5, 5\) there and \(12, 3, 5, 5\) here"
    with pytest.raises(UsageError, match=says) as error:
        fit(config, tiny_set, tmp_path / "run", QUIET, initial=load_initial(source))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_damaged_folder_and_none_at_all_are_one_line(source, tmp_path):
    content = bytearray((source / "model.safetensors").read_bytes())
    content[-5] ^= 1
    (source / "model.safetensors").write_bytes(content)
    with pytest.raises(AlexNetError, match=r"model\.safetensors: damaged, its SHA-256"):
        load_initial(source)
    with pytest.raises(AlexNetError, match="nowhere: no such model folder"):
        load_initial(tmp_path / "nowhere")


def test_weights_that_know_another_input_are_noted(source, tiny_config, tiny_set, tmp_path, capsys):
    config = replace(tiny_config, preprocessing=replace(tiny_config.preprocessing, channel_order="bgr"), epochs=1)
    fit(config, tiny_set, tmp_path / "run", QUIET, initial=load_initial(source))
    says = "the initial weights were trained on another input (preprocessing.channel_order)"
    assert says in capsys.readouterr().err
    assert says in (tmp_path / "run" / "log.jsonl").read_text()


def test_the_input_is_taken_over_with_the_first_layer(source, tiny_config, capsys):
    other = replace(tiny_config.preprocessing, mean="channel", channel_mean=(1.0, 2.0, 3.0), scale=0.1)
    config, initial = replace(tiny_config, preprocessing=other), load_initial(source)
    found, (note,) = with_input_of(initial, config)
    assert found == tiny_config
    assert "(preprocessing.channel_mean, preprocessing.mean, preprocessing.scale)" in note
    kept = with_input_of(initial, config, ["preprocessing.scale"])[0].preprocessing
    assert kept == replace(tiny_config.preprocessing, scale=0.1)
    wide = replace(config, model=replace(config.model, conv_channels=(12, 8, 8, 8, 8)))
    assert with_input_of(initial, wide) == (wide, [])
    assert with_input_of(initial, tiny_config) == (tiny_config, [])
    unknown = replace(initial, input_known=False)
    assert with_input_of(unknown, config) == (config, [])
    assert other_input(unknown, config) == []


def test_the_weights_of_a_model_folder_are_the_model(source):
    found = load_initial(source / "model.safetensors")
    assert (found.fingerprint, found.classes) == (load_initial(source).fingerprint, ("blue", "green", "red"))


def test_recipes_that_fit_are_named(source):
    theirs = create_model("alexnet_owt", fc_units=(8, 8)).state_dict()
    trunk = {key: value for key, value in theirs.items() if key.startswith("conv")}
    preprocessing = default_preprocessing("alexnet_owt")
    save_initial(Initial("trunk", "alexnet_owt", trunk, preprocessing), source / "trunk.safetensors")
    says = r"conv1\.weight is \(64, 3, 11, 11\) there and \(96, 3, 11, 11\) here; take the recipe owt or transfer$"
    with pytest.raises(UsageError, match=says):
        start_from(source / "trunk.safetensors", recipe("modern_photos"))
    with pytest.raises(UsageError, match=r"take weights of lenet$"):
        start_from(source, recipe("lenet"))
    assert start_from(source / "trunk.safetensors", recipe("owt")).network == "alexnet_owt"


# Resuming -------------------------------------------------------------------------------------------------------------


def stop_after(run: Path, steps: int, config: TrainConfig, data: PackedSet, initial: Initial) -> None:
    class Stop:
        looks = steps

        @property
        def requested(self) -> bool:
            self.looks -= 1
            return self.looks < 0

    with pytest.raises(StoppedError):
        fit(config, data, run, QUIET, initial=initial, stop=Stop())


@pytest.mark.parametrize("again", [True, False], ids=["named again", "not named"])
def test_a_resumed_run_equals_one_that_was_not_stopped(again, source, tiny_config, two_classes, tmp_path):
    initial, config = load_initial(source), replace(tiny_config, epochs=2)
    whole = fit(config, two_classes, tmp_path / "whole", QUIET, initial=initial).model
    stop_after(tmp_path / "run", 2, config, two_classes, initial)
    given = load_initial(source) if again else None
    resumed = fit(config, two_classes, tmp_path / "run", QUIET, initial=given, resume=True).model
    assert weights(resumed) == weights(whole)


def test_resuming_from_another_source_is_refused(source, tiny_config, tiny_set, two_classes, tmp_path):
    initial, config, run = load_initial(source), replace(tiny_config, epochs=2), tmp_path / "run"
    stop_after(run, 2, config, two_classes, initial)
    other = load_initial(model_folder(tmp_path / "other", tiny_config, tiny_set, seed=8))
    with pytest.raises(UsageError, match=r"made with other settings \(the initial weights\)"):
        fit(config, two_classes, run, QUIET, initial=other, resume=True)
    plain = tmp_path / "plain"
    fit(replace(config, epochs=1), two_classes, plain, QUIET)
    with pytest.raises(UsageError, match=r"made with other settings \(the initial weights\)"):
        fit(replace(config, epochs=1), two_classes, plain, QUIET, initial=initial, resume=True)


def test_without_a_checkpoint_the_source_is_still_needed(source, tiny_config, tiny_set, tmp_path, monkeypatch):
    run, initial = tmp_path / "run", load_initial(source)

    def killed(self: object, *_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer._Trainer, "_train_epoch", killed)
        patch.setattr(trainer, "clear", lambda *_, **__: None)  # a kill leaves what is there
        with pytest.raises(KeyboardInterrupt):
            fit(tiny_config, tiny_set, run, QUIET, initial=initial)
    with pytest.raises(UsageError, match=r"no checkpoint yet .*source; name them again with --init-from"):
        fit(tiny_config, tiny_set, run, QUIET, resume=True)
    found = start_of(monkeypatch)
    fit(tiny_config, tiny_set, run, QUIET, initial=initial, resume=True)
    assert found == {name: value.numpy().tobytes() for name, value in initial.tensors.items()}


def test_the_fingerprint_is_of_weights_and_classes_and_not_of_the_place(source, tiny_config, tiny_set, tmp_path):
    initial, moved = load_initial(source), load_initial(source.rename(tmp_path / "moved"))
    assert moved.fingerprint == initial.fingerprint
    assert replace(initial, classes=("a", "b", "c")).fingerprint != initial.fingerprint
    changed = {name: value.clone() for name, value in initial.tensors.items()}
    changed["fc7.bias"][3] += 1e-6
    assert replace(initial, tensors=changed).fingerprint != initial.fingerprint


# Freezing -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["paper", "sgd", "adam", "adamw"])
def test_frozen_layers_keep_every_byte_with_their_normalization_and_the_others_learn(
    kind, tiny_config, tiny_set, two_classes, tmp_path
):
    batch = replace(tiny_config, model=replace(tiny_config.model, normalization="batch"))
    initial = load_initial(model_folder(tmp_path / "source", batch, tiny_set, seed=7, epochs=1))
    frozen = (("conv1", 0.0), ("fc6", 0.0))
    optimizer = OptimizerConfig(kind=kind, lr=0.01, weight_decay=0.1, bias_weight_decay=0.1, layer_lr=frozen)
    config = replace(batch, optimizer=optimizer, schedule=Steps(), epochs=2)
    model = fit(config, two_classes, tmp_path / "run", QUIET, initial=initial).model
    before = {name: value.numpy().tobytes() for name, value in initial.tensors.items()}
    kept = {name for name, value in weights(model).items() if value == before[name]}
    conv1 = {f"conv1.{name}" for name in ("weight", "bias")} | {
        f"stage1.norm1.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    assert kept == conv1 | {"fc6.weight", "fc6.bias"}


def test_a_slower_layer_takes_the_step_that_its_factor_says(source, tiny_config, tiny_set, tmp_path):
    """One step of plain descent, w - lr factor g: the same gradient, so the steps are as the factors."""
    initial, steps = load_initial(source), {}
    for factor in (1.0, 0.5):
        optimizer = OptimizerConfig(kind="sgd", lr=0.25, momentum=0.0, weight_decay=0.0, layer_lr=(("conv2", factor),))
        config = replace(
            tiny_config, optimizer=optimizer, schedule=Steps(), epochs=1, batch_size=54, precision="float64"
        )
        model = fit(config, tiny_set, tmp_path / str(factor), QUIET, initial=initial).model
        steps[factor] = {name: value - initial.tensors[name] for name, value in model.state_dict().items()}
    for name, step in steps[1.0].items():
        factor = 0.5 if name.startswith("conv2.") else 1.0
        torch.testing.assert_close(steps[0.5][name], factor * step, rtol=1e-8, atol=1e-14)
        assert step.abs().max() > 0


@pytest.mark.parametrize(
    ("layers", "says"), [(LAYERS, "freezes every layer"), (["conv9"], "no layer 'conv9'; the layers are conv1, conv2")]
)
def test_freezing_everything_or_what_is_not_there_is_refused_and_leaves_no_run(
    layers, says, tiny_config, tiny_set, tmp_path
):
    config = replace(tiny_config, optimizer=OptimizerConfig(layer_lr=tuple((layer, 0.0) for layer in layers)))
    with pytest.raises(UsageError, match=says):
        fit(config, tiny_set, tmp_path / "run", QUIET)
    assert not (tmp_path / "run").exists()


# What it is for -------------------------------------------------------------------------------------------------------


def test_a_network_that_knows_the_colors_learns_new_names_for_them_sooner(tiny_config, tiny_set, two_classes, tmp_path):
    calm = replace(tiny_config, model=replace(tiny_config.model, dropout_rate=0.0))
    initial = load_initial(model_folder(tmp_path / "source", calm, tiny_set, seed=7, epochs=5))
    losses: dict[str, list[float]] = {"fresh": [], "tuned": []}
    for seed in (0, 1, 2):
        for arm, start in (("fresh", None), ("tuned", initial)):
            config = replace(calm, seed=seed, epochs=2, schedule=Steps())
            run = tmp_path / f"{arm}-{seed}"
            fit(config, two_classes, run, QUIET, initial=start)
            rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
            losses[arm].append([row["val_loss"] for row in rows if row["event"] == "epoch"][-1])
    assert all(tuned < fresh / 4 for tuned, fresh in zip(losses["tuned"], losses["fresh"], strict=True)), losses
