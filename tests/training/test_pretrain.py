"""The autoencoder before the classifier: its geometry, that it learns, and that its weights are taken over."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import alexnet
from alexnet.cli import main
from alexnet.core.device import Machine
from alexnet.core.errors import AlexNetError, UsageError
from alexnet.data.packed import PackedSet
from alexnet.models import build_model, model_config
from alexnet.models.alexnet import AlexNetConfig
from alexnet.training.initial import Initial, load_initial, other_input, save_initial, transfer
from alexnet.training.pretrain import Autoencoder, pretrain
from alexnet.training.trainer import fit, network

CPU = torch.device("cpu")
QUIET = Machine(device=CPU, quiet=True)
SMALL = {"conv_channels": (4, 4, 4, 4, 4), "fc_units": (4, 4), "num_classes": 2}


class Unlabelled:
    """A split whose labels, where they are read, are all the same."""

    def __init__(self, split) -> None:
        self.split, self.labels = split, np.zeros(len(split), dtype=np.int64)

    def __len__(self) -> int:
        return len(self.split)

    def read(self, index_B):
        return self.split.read(index_B)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("alexnet_2012", {}),  # the last windows overhang
        ("alexnet_owt", {}),  # padding 2, and columns that no window reads
        ("alexnet_2012_code", {}),  # normalization before pooling before ReLU
        ("alexnet_2012_six_conv", {"conv_channels": (4,) * 6}),
        ("alexnet_2012", {"conv_channels": (4, 4, 0, 4, 4)}),
        ("alexnet_2012", {"pool_size": 2, "pool_ceil": True}),
        ("alexnet_2012", {"input_size": 99}),
    ],
)
def test_a_reconstruction_has_the_shape_of_the_input_and_every_layer_a_gradient(name, fields):
    config = model_config(name, **(SMALL | fields))
    assert isinstance(config, AlexNetConfig)
    model = build_model(config, name=name)
    x_BCHW = torch.randn(2, 3, config.input_size, config.input_size)
    y_BCHW = Autoencoder(model, config, seed=0)(x_BCHW)
    assert y_BCHW.shape == x_BCHW.shape
    y_BCHW.square().sum().backward()
    convs = [p for n, p in model.named_parameters() if n.startswith("conv")]
    assert convs
    assert all(p.grad is not None and bool(p.grad.any()) for p in convs)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "side"), [(11, 4, 0, 64), (11, 4, 2, 64), (5, 2, 1, 33), (3, 1, 1, 20)]
)
def test_the_mirror_puts_every_pixel_back_where_it_came_from(kernel, stride, padding, side):
    """With the same kernels a transposed convolution is the adjoint: <mirror(conv(x)), x'> = <conv(x), conv(x')>."""
    config = AlexNetConfig(
        conv_channels=(4, 0, 0, 0, 0),
        conv_kernels=(kernel, 1, 1, 1, 1),
        conv_strides=(stride, 1, 1, 1, 1),
        conv_padding=(padding, 0, 0, 0, 0),
        stages=("",) * 5,
        input_size=side,
        fc_units=(4, 4),
    )
    model = build_model(config, name="one layer").double()
    autoencoder = Autoencoder(model, config, seed=0).double()
    conv1 = model.get_submodule("conv1")
    with torch.no_grad():
        autoencoder.mirrors[0].weight.copy_(conv1.weight)
        conv1.bias.zero_()
        autoencoder.rms = torch.ones(())
        a, b = torch.randn(2, 1, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        assert (autoencoder(a) * b).sum().item() == pytest.approx((conv1(a) * conv1(b)).sum().item(), rel=1e-9)


def test_the_reconstruction_gets_better_and_beats_a_constant(tiny_config, tiny_set):
    found = pretrain(replace(tiny_config, batch_size=6), tiny_set, epochs=30, device=CPU, quiet=True)
    errors = found.made["reconstruction_error"]
    assert len(errors) == 30
    assert errors[-1] < 0.95 < errors[0], errors


def test_it_is_a_function_of_seed_and_images_and_reads_no_label(tiny_config, tiny_set):
    unlabelled = PackedSet(
        tiny_set.path, tiny_set.meta, tiny_set.classes, {"train": Unlabelled(tiny_set.split("train"))}
    )
    first, again, other, few = (
        pretrain(config, data, epochs=1, device=CPU, workers=workers, quiet=True)
        for config, data, workers in (
            (tiny_config, tiny_set, None),
            (tiny_config, unlabelled, 0),
            (replace(tiny_config, seed=1), tiny_set, 0),
            (replace(tiny_config, train_images=16), tiny_set, 0),
        )
    )
    assert first.fingerprint == again.fingerprint
    assert len({first.fingerprint, other.fingerprint, few.fingerprint}) == 3
    assert few.made["images"] == 16


def test_a_run_starts_from_the_encoder_and_its_fully_connected_layers_are_those_of_a_run_without(
    tiny_config, tiny_set, tmp_path, monkeypatch
):
    config = replace(tiny_config, epochs=1)
    initial = pretrain(config, tiny_set, epochs=1, device=CPU, quiet=True)
    found: dict[str, torch.Tensor] = {}
    monkeypatch.setattr(
        "alexnet.training.trainer._Trainer._note_signal",
        lambda self: found.update({name: value.clone() for name, value in self.model.state_dict().items()}),
    )
    fit(config, tiny_set, tmp_path / "run", QUIET, initial=initial)
    fresh = network(config, 3).state_dict()
    for name, value in found.items():
        conv = name.startswith("conv")
        assert torch.equal(value, initial.tensors[name] if conv else fresh[name]), name
        assert not (conv and torch.equal(value, fresh[name])), name


def test_a_network_without_such_layers_and_a_loss_that_is_not_finite_are_refused(tiny_config, tiny_set):
    lenet = replace(tiny_config, network="lenet", model=model_config("lenet"))
    with pytest.raises(UsageError, match="lenet: pre-training is for networks of conv1"):
        pretrain(lenet, tiny_set, epochs=1, device=CPU, quiet=True)
    unshared = replace(tiny_config, model=replace(tiny_config.model, unshared=("conv4",)))
    with pytest.raises(UsageError, match="the kernels of conv4 are not shared"):
        pretrain(unshared, tiny_set, epochs=1, device=CPU, quiet=True)
    wild = replace(tiny_config.preprocessing, scale=1e38)
    with pytest.raises(AlexNetError, match="pre-training: the loss of epoch 1 is"):
        pretrain(replace(tiny_config, preprocessing=wild), tiny_set, epochs=1, device=CPU, quiet=True)


# The verb -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def recipe_is_tiny(tiny_config, monkeypatch, tmp_path):
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("alexnet.recipes.recipe", lambda name: tiny_config)


def code_of(*arguments: str) -> object:
    with pytest.raises(SystemExit) as exit:
        main(list(arguments))
    return exit.value.code


def test_the_verb_writes_what_the_function_learns_and_training_starts_from_it(
    recipe_is_tiny, tiny_config, tiny_set, tiny_folder, tmp_path, capsys
):
    words = ["pretrain", str(tiny_folder), "--out", "开始.safetensors", "--device", "cpu", "--seed", "3"]
    assert code_of(*words) == 0
    out = capsys.readouterr().out
    assert "alexnet_2012: conv1 to conv5, learned from 54 images in 1 pass\n" in out  # a third of the recipe's three
    assert "alexnet train modern_photos --init-from '开始.safetensors'" in out
    expected = pretrain(replace(tiny_config, seed=3), tiny_set, epochs=1, device=CPU, quiet=True)
    saved = load_initial("开始.safetensors")
    assert saved.fingerprint == expected.fingerprint
    assert saved.made["reconstruction_error"] == expected.made["reconstruction_error"]
    assert (saved.made["data"], saved.made["seed"]) == (str(tiny_folder), 3)
    assert other_input(saved, tiny_config) == []
    found = transfer(saved, tiny_config, tiny_set.classes)
    assert found.taken == ["conv1", "conv2", "conv3", "conv4", "conv5"]
    assert found.new == dict.fromkeys(("fc6", "fc7", "fc8"), "the source has none")

    assert code_of(*words, "--json", "--epochs", "2", "--train-images", "16") == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["images"], len(summary["reconstruction_error"])) == (16, 2)
    assert summary["weights"] == load_initial("开始.safetensors").fingerprint != expected.fingerprint


def test_pictures_without_class_folders_are_enough(recipe_is_tiny, tiny_config, tmp_path):
    for i in range(9):
        Image.effect_noise((40, 36), 30 + i).convert("RGB").save(tmp_path / f"{i}.png")
    summary = alexnet.pretrain(replace(tiny_config, data=str(tmp_path)), "start.safetensors", QUIET, epochs=1)
    assert (summary["images"], summary["file"]) == (9, "start.safetensors")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--out start.npz", "start.npz: the weights are written as a file NAME.safetensors"),
        ("--out a.safetensors --epochs 0", "--epochs is 0; it must be at least 1"),
        ("--out a.safetensors --batch-size 0", "--batch-size is 0; it must be at least 1"),
        ("--out gone/a.safetensors", "its folder is not there"),
    ],
)
def test_what_cannot_be_done_is_refused_before_a_picture_is_read(words, message, recipe_is_tiny, capsys):
    assert code_of("pretrain", "nothing-here", *words.split()) == 2
    assert message in capsys.readouterr().err


def test_a_file_of_initial_weights_is_whole_or_refused(tiny_config, tmp_path):
    file = tmp_path / "a.safetensors"
    initial = Initial("here", "alexnet_2012", {"conv1.weight": torch.arange(4.0)}, tiny_config.preprocessing, ("猫",))
    save_initial(initial, file)
    back = load_initial(file)
    assert (back.fingerprint, back.preprocessing, back.classes) == (initial.fingerprint, initial.preprocessing, ("猫",))
    sound = file.read_bytes()
    file.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    with pytest.raises(AlexNetError, match="damaged, its weights are not those of its fingerprint"):
        load_initial(file)
    file.write_bytes(sound.replace(b"mean", b"meen", 1))
    with pytest.raises(AlexNetError, match="its metadata are not as this program writes them"):
        load_initial(file)
    file.write_bytes(sound[: len(sound) // 2])
    with pytest.raises(AlexNetError, match="not a sound safetensors file"):
        load_initial(file)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
