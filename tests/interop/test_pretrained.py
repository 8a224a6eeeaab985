"""Networks by name with trained weights: what is taken over, what stays initial, and what is said of it. Small files stand in
for the weights that are known by name."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import alexnet
from alexnet.core.errors import UsageError
from alexnet.interop import pretrained, weights
from alexnet.interop.torchvision import LAYERS
from alexnet.models import build_model, model_config

SMALL: dict[str, Any] = {"conv_channels": (4, 6, 6, 6, 6), "fc_units": (8, 8), "init": "he"}


def trained(**fields: Any) -> torch.nn.Module:
    """The network that the files hold, whole or in parts."""
    return build_model(model_config("alexnet_owt", num_classes=5, **SMALL | fields), name="alexnet_owt", seed=7)


@pytest.fixture
def known(tmp_path: Path, monkeypatch) -> Path:
    """The folder of the cache with two known files, of the whole network and of its convolutions."""
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path))
    folder = tmp_path / "weights"
    folder.mkdir()
    made = []
    for each, num in zip(weights.KNOWN, (8, 5), strict=True):
        names = {ours: theirs for theirs, ours in list(LAYERS.items())[:num]}
        parts = {key.rpartition("."): tensor for key, tensor in trained().state_dict().items()}
        file = folder / each.file
        torch.save({f"{names[layer]}.{kind}": t for (layer, _, kind), t in parts.items() if layer in names}, file)
        content = file.read_bytes()
        made.append(replace(each, bytes=len(content), sha256=hashlib.sha256(content).hexdigest()))
    for module in (weights, pretrained):
        monkeypatch.setattr(module, "KNOWN", tuple(made))
    return folder


def test_trained_weights_by_name(known: Path, capsys):
    network = alexnet.create_model("alexnet_owt", pretrained=True, num_classes=5, **SMALL)
    theirs = trained().state_dict()
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in network.state_dict().items())
    assert capsys.readouterr().err == ""


def test_the_last_layer_is_new_for_other_classes(known: Path, capsys):
    network = alexnet.create_model("alexnet_owt", True, num_classes=3, seed=2, **SMALL)
    theirs, initial = trained().state_dict(), alexnet.create_model("alexnet_owt", num_classes=3, seed=2, **SMALL)
    for key, tensor in network.state_dict().items():
        assert torch.equal(tensor, initial.state_dict()[key] if key.startswith("fc8.") else theirs[key]), key
    assert capsys.readouterr().err == (
        "note: alexnet_owt: conv1, conv2, conv3, conv4, conv5, fc6, fc7 of alexnet-owt; new, with random weights of seed 2: fc8\n"
    )


def test_of_the_convolutions_alone_the_rest_is_new(known: Path, capsys):
    (known / weights.KNOWN[0].file).unlink()
    network = alexnet.create_model("alexnet_owt", pretrained=True, num_classes=5, **SMALL)
    assert torch.equal(network.conv5.weight, trained().conv5.weight)
    assert "conv5 of alexnet-owt-trunk; new, with random weights of seed 0: fc6, fc7, fc8\n" in capsys.readouterr().err
    x_BCHW = torch.randn(1, 3, 99, 99)
    backbone = alexnet.create_model("alexnet_owt", pretrained=True, features_only=True, out_indices=(-1,), **SMALL)
    assert torch.equal(backbone(x_BCHW)[0], trained().forward_features(x_BCHW))
    alexnet.create_model("alexnet_owt", pretrained=True, num_classes=0, fc_units=(0, 0), conv_channels=(4, 6, 6, 6, 6))
    assert capsys.readouterr().err == ""  # nothing of these is new


def test_kernels_for_other_channels_answer_as_timms(known: Path, capsys):
    x_B1HW, whole = torch.randn(2, 1, 224, 224), trained().eval()
    grey = alexnet.create_model("alexnet_owt", pretrained=True, in_chans=1, num_classes=5, **SMALL).eval()
    assert torch.allclose(grey(x_B1HW), whole(x_B1HW.expand(-1, 3, -1, -1)), atol=1e-5)
    assert "conv1 reads 1 channel with kernels made of those for 3" in capsys.readouterr().err
    assert len(grey.pretrained_cfg["mean"]) == len(grey.pretrained_cfg["std"]) == 1
    six = alexnet.create_model("alexnet_owt", pretrained=True, in_chans=6, num_classes=5, **SMALL).eval()
    color = torch.randn(2, 3, 224, 224)
    assert torch.allclose(six(color.repeat(1, 2, 1, 1)), whole(color), atol=1e-5)


def test_what_is_not_there_is_one_line_that_says_what_to_do(known: Path):
    with pytest.raises(
        UsageError, match=r"no trained weights of lenet .*, only of alexnet_owt; alexnet\.from_pretrained"
    ):
        alexnet.create_model("lenet", pretrained=True)
    with pytest.raises(UsageError, match="unknown network 'resnet50'"):
        alexnet.create_model("resnet50", pretrained=True)
    with pytest.raises(UsageError, match=r"hf-hub:me/clothes is a trained model.*alexnet\.from_pretrained opens it"):
        alexnet.create_model("hf-hub:me/clothes", pretrained=True)
    with pytest.raises(UsageError, match="no layer of alexnet-owt fits alexnet_owt with these fields"):
        alexnet.create_model("alexnet_owt", pretrained=True, conv_channels=(2,) * 5, fc_units=(2, 2))
    for file in known.iterdir():
        file.write_bytes(b"damaged")
    with pytest.raises(
        UsageError, match=r"alexnet_owt are here yet; `alexnet weights get alexnet-owt` fetches conv1 to conv5, fc6"
    ):
        alexnet.create_model("alexnet_owt", pretrained=True)
    assert sorted(known.iterdir()) == sorted(known / each.file for each in weights.KNOWN)  # nothing was fetched


def test_names_of_networks_with_trained_weights():
    assert alexnet.list_models(pretrained=True) == ["alexnet_owt"]
    assert alexnet.list_models("lenet", pretrained=True) == []
    assert alexnet.list_models("lenet") == ["lenet"]
