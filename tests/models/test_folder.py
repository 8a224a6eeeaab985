from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from alexnet.core.errors import AlexNetError
from alexnet.core.preprocessing import Preprocessing
from alexnet.models import create_model, default_preprocessing
from alexnet.models.folder import load_model_folder, load_tensors, read_safetensors, save_model_folder

CLASSES = ["T-shirt/top", "crane", "crane", "Süß\n<b>", "\udcff", *"56789"]  # names need be neither unique nor clean
FILES = ["config.json", "preprocessor.json", "classes.json", "mean.npy", "model.safetensors"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """LeNet with a mean image."""
    model = create_model("lenet", seed=4)
    preprocessing = Preprocessing(resize=30, crop=28, channels=1)
    mean = np.random.default_rng(0).random((30, 30, 1), np.float32) * 255
    save_model_folder(tmp_path / "model", model, "lenet", preprocessing, CLASSES, mean)
    return tmp_path / "model"


def rewrite(folder: Path, file: str, content: bytes) -> None:
    """Replace a file and its recorded hash: what remains is for the other checks to find."""
    (folder / file).write_bytes(content)
    config = json.loads((folder / "config.json").read_text())
    config["sha256"][file] = hashlib.sha256(content).hexdigest()
    (folder / "config.json").write_text(json.dumps(config))


def rewrite_config(folder: Path, **changes: Any) -> None:
    config = {**json.loads((folder / "config.json").read_text()), **changes}
    text = json.dumps([config["name"], config["config"]], sort_keys=True, separators=(",", ":"))
    config["fingerprint"] = hashlib.sha256(text.encode()).hexdigest()[:16]
    (folder / "config.json").write_text(json.dumps(config))


def json_of(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


def rewrite_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    change(tensors)
    rewrite(folder, "model.safetensors", safetensors.torch.save(tensors))


def test_a_loaded_network_is_the_saved_one(folder: Path):
    loaded = load_model_folder(folder)
    saved = create_model("lenet", seed=4).eval()
    x_BCHW = torch.rand(2, 1, 28, 28)
    assert torch.equal(loaded.model(x_BCHW), saved(x_BCHW))
    assert loaded.name == loaded.model.name == "lenet"
    assert loaded.model.config == saved.config
    assert not loaded.model.training
    assert loaded.preprocessing == Preprocessing(resize=30, crop=28, channels=1)
    assert loaded.classes == CLASSES
    assert loaded.mean is not None
    assert loaded.mean.dtype == np.float32
    assert np.array_equal(loaded.mean, np.random.default_rng(0).random((30, 30, 1), np.float32) * 255)
    assert sorted(file.name for file in folder.iterdir()) == sorted(FILES)


def test_changed_fields_and_running_statistics_are_kept(tmp_path: Path):
    fields = {"num_classes": 3, "fc_units": (8, 6), "normalization": "batch", "activation": "prelu", "input_size": 99}
    model = create_model("alexnet_2012", **fields)
    model(torch.randn(2, 3, 99, 99))  # running mean and variance move
    preprocessing = Preprocessing(resize=99, crop=99, mean="none")
    save_model_folder(tmp_path / "m", model, "alexnet_2012", preprocessing, ["a", "b", "c"], None)
    loaded = load_model_folder(tmp_path / "m").model
    assert loaded.config == model.config
    x_BCHW = torch.randn(1, 3, 99, 99)
    assert torch.equal(loaded(x_BCHW), model.eval()(x_BCHW))


def test_a_loaded_network_can_be_trained(folder: Path):
    model = load_model_folder(folder).model.train()
    before = model.get_parameter("c1.weight").clone()
    model(torch.rand(1, 1, 28, 28)).square().sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert not torch.equal(model.get_parameter("c1.weight"), before)


@pytest.mark.parametrize("file", FILES)
def test_every_flipped_bit_is_found(folder: Path, file: str):
    # safetensors has no checksum of its own: without ours, nearly all of these would load with wrong weights.
    content = (folder / file).read_bytes()
    rng = random.Random(file)
    for _ in range(50):
        bit = rng.randrange(8 * len(content))
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        (folder / file).write_bytes(damaged)
        if file == "config.json" and json_of(bytes(damaged)) == json_of(content):
            continue  # a flip that makes one kind of white space another
        with pytest.raises(AlexNetError) as caught:
            load_model_folder(folder)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("length", [0, 1, 10, -1])
def test_a_cut_file_is_refused_by_name(folder: Path, file: str, length: int):
    (folder / file).write_bytes((folder / file).read_bytes()[: length if length >= 0 else -10])
    with pytest.raises(AlexNetError, match=file):
        load_model_folder(folder)


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_refused_by_name(folder: Path, file: str):
    (folder / file).unlink()
    with pytest.raises(AlexNetError, match=file):
        load_model_folder(folder)


def test_a_missing_folder_is_refused(tmp_path: Path):
    with pytest.raises(AlexNetError, match="no such model folder"):
        load_model_folder(tmp_path / "none")


def test_another_networks_weights_are_refused_with_the_first_three_faults(folder: Path):
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["f6.weight"] = tensors["f6.weight"].T.contiguous()  # transposed
        tensors["output.weight"] = tensors["output.weight"].half()
        del tensors["c1.bias"]
        tensors["zz"] = torch.zeros(1)

    rewrite_tensors(folder, change)
    with pytest.raises(AlexNetError) as caught:
        load_model_folder(folder)
    message = str(caught.value)
    assert "c1.bias: not in the file; f6.weight: file (120, 84), model (84, 120); output.weight: file (10, 84) float16, " \
        "model (10, 84); and 1 more" in message  # fmt: skip


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(folder: Path, tmp_path: Path, value: float):
    model = create_model("lenet")
    with torch.no_grad():
        model.get_parameter("c3.weight")[1, 2, 3, 4] = value
    with pytest.raises(AlexNetError, match=r"c3\.weight"):
        save_model_folder(tmp_path / "new", model, "lenet", default_preprocessing("lenet"), CLASSES, None)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]
    rewrite_tensors(folder, lambda tensors: tensors["c3.weight"].view(-1)[7].fill_(value))
    with pytest.raises(AlexNetError, match=r"c3\.weight"):
        load_model_folder(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "version 2.*upgrade"),
        ({"format": "other"}, "not that of a model folder; name another"),
        ({"name": "vgg"}, "unknown network 'vgg'"),
        ({"name": "../../etc/passwd"}, "unknown network"),
        ({"name": "cifar_13pct"}, "pooling"),
        ({"config": None}, "config"),
        ({"sha256": None}, "sha256"),
    ],
)
def test_a_foreign_configuration_is_refused(folder: Path, changes: dict[str, Any], message: str):
    rewrite_config(folder, **changes)
    with pytest.raises(AlexNetError, match=message) as caught:
        load_model_folder(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("units", "message"),
    [
        (2**24, r"fc6\.weight: file \(2, 9216\), model \(16777216, 9216\)"),
        (10**30, r"config: AlexNetConfig\.fc_units .* 16,777,216"),
        (-2, r"config: AlexNetConfig\.fc_units"),
    ],
)
def test_a_configuration_too_large_for_memory_is_refused_without_allocating(tmp_path: Path, units: int, message: str):
    model = create_model("alexnet_2012", fc_units=(2, 2), num_classes=2)
    preprocessing = replace(default_preprocessing("alexnet_2012"), mean="none")
    save_model_folder(tmp_path / "m", model, "alexnet_2012", preprocessing, ["a", "b"], None)
    config = json.loads((tmp_path / "m" / "config.json").read_text())["config"]
    rewrite_config(tmp_path / "m", config={**config, "fc_units": [units, units]})
    with pytest.raises(AlexNetError, match=message):
        load_model_folder(tmp_path / "m")


def test_an_edited_configuration_is_refused_even_where_it_would_fit(tmp_path: Path):
    model = create_model("alexnet_2012", fc_units=(2, 2), num_classes=2)
    preprocessing = replace(default_preprocessing("alexnet_2012"), mean="none")
    save_model_folder(tmp_path / "m", model, "alexnet_2012", preprocessing, ["a", "b"], None)
    config = tmp_path / "m" / "config.json"
    text = config.read_text()
    config.write_text(text.replace('"lrn_k": 2.0', '"lrn_k": 6.0'))
    assert config.read_text() != text
    with pytest.raises(AlexNetError, match="fingerprint"):
        load_model_folder(tmp_path / "m")


def test_nothing_is_unpickled(folder: Path, tmp_path: Path):
    canary = tmp_path / "canary"

    class Payload:
        def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
            return os.system, (f"touch {canary}",)

    array = np.empty((30, 30, 1), dtype=object)
    array[:] = Payload()
    with open(tmp_path / "evil.npy", "wb") as file:
        np.save(file, array, allow_pickle=True)
    rewrite(folder, "mean.npy", (tmp_path / "evil.npy").read_bytes())
    with pytest.raises(AlexNetError, match=r"mean\.npy"):
        load_model_folder(folder)
    rewrite(folder, "model.safetensors", pickle.dumps(Payload()))
    with pytest.raises(AlexNetError, match=r"not a sound safetensors file|mean"):
        load_model_folder(folder)
    assert not canary.exists()


@pytest.mark.parametrize(
    ("preprocessing", "classes", "mean", "message"),
    [
        (Preprocessing(resize=28, crop=28, channels=1, mean="none"), ["a"], None, "1 class names for 10 outputs"),
        (Preprocessing(resize=28, crop=24, channels=1, mean="none"), CLASSES, None, "1 channels of 24 pixels"),
        (Preprocessing(resize=28, crop=28, channels=3, mean="none"), CLASSES, None, "3 channels of 28 pixels"),
        (Preprocessing(resize=28, crop=28, channels=1), CLASSES, None, "names no mean.npy"),
        (Preprocessing(resize=28, crop=28, channels=1), CLASSES, np.zeros((28, 28)), r"\(28, 28\)"),
        (Preprocessing(resize=28, crop=28, channels=1), CLASSES, np.zeros((20, 20, 1)), "at least 28 pixels"),
        (Preprocessing(resize=28, crop=28, channels=1), CLASSES, np.full((28, 28, 1), np.nan), "finite"),
    ],
)
def test_what_does_not_fit_the_network_is_refused(tmp_path: Path, preprocessing, classes, mean, message):
    with pytest.raises(AlexNetError, match=message):
        save_model_folder(tmp_path / "m", create_model("lenet"), "lenet", preprocessing, classes, mean)
    assert not list(tmp_path.iterdir())


def test_saving_again_replaces_a_model_folder_as_a_whole(folder: Path):
    model = create_model("lenet", seed=5)
    save_model_folder(folder, model, "lenet", default_preprocessing("lenet"), CLASSES, None)
    loaded = load_model_folder(folder)
    assert loaded.mean is None
    assert torch.equal(loaded.model.get_parameter("c1.weight"), model.get_parameter("c1.weight"))
    assert [p.name for p in folder.parent.iterdir()] == ["model"]  # nothing is left over


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"x")
    with pytest.raises(AlexNetError, match="exists and is not a model folder"):
        save_model_folder(
            tmp_path / "photos", create_model("lenet"), "lenet", default_preprocessing("lenet"), CLASSES, None
        )
    assert (tmp_path / "photos" / "cat.jpg").read_bytes() == b"x"


def test_a_full_disk_leaves_the_old_folder_whole(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AlexNetError, match="not saved, No space left on device"):
        save_model_folder(folder, create_model("lenet", seed=5), "lenet", default_preprocessing("lenet"), CLASSES, None)
    monkeypatch.undo()
    assert torch.equal(
        load_model_folder(folder).model.get_parameter("c1.weight"),
        create_model("lenet", seed=4).get_parameter("c1.weight"),
    )
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_tensors_can_be_loaded_into_a_network_that_has_weights(tmp_path: Path):
    source, target = create_model("lenet", seed=1), create_model("lenet", seed=2)
    weight = target.get_parameter("c1.weight")
    load_tensors(target, source.state_dict(), "here")
    assert target.get_parameter("c1.weight") is weight  # an optimizer keeps its parameters
    assert torch.equal(weight, source.get_parameter("c1.weight"))


def test_refused_tensors_change_nothing():
    model = create_model("lenet")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    tensors = {**create_model("lenet", seed=2).state_dict(), "output.bias": torch.zeros(9)}
    with pytest.raises(AlexNetError, match=r"here: .*output\.bias: file \(9,\), model \(10,\)"):
        load_tensors(model, tensors, "here")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8 + b"{}",  # a header of 2^64 - 1 bytes
        (60).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,999999]}}  ' + bytes(16),
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        b"PK\x03\x04",
    ],
)
def test_a_file_that_is_not_safetensors_is_refused_in_one_line(tmp_path: Path, content: bytes):
    path = tmp_path / "weights\n.safetensors"
    path.write_bytes(content)
    with pytest.raises(AlexNetError, match=r"not a sound safetensors file|a safetensors header of \d") as caught:
        read_safetensors(path)
    assert "\n" not in str(caught.value)


def test_weights_are_read_from_a_folder_whose_name_is_no_text(tmp_path: Path):
    """The safetensors library by itself refuses such a name."""
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")) / "weights.safetensors"
    path.parent.mkdir()
    path.write_bytes(safetensors.torch.save({"a": torch.arange(3)}, {"made": "here"}))
    tensors, entries = read_safetensors(path)
    assert (tensors["a"].tolist(), entries) == ([0, 1, 2], {"made": "here"})


def test_every_file_is_readable_without_this_program(folder: Path):
    assert json.loads((folder / "classes.json").read_bytes().decode("utf-8", "surrogatepass")) == CLASSES
    assert json.loads((folder / "config.json").read_text())["config"]["activation"] == "sigmoid"
    assert np.load(folder / "mean.npy").shape == (30, 30, 1)
    assert isinstance(create_model("lenet"), nn.Module)
    assert safetensors.torch.load_file(folder / "model.safetensors").keys() == create_model("lenet").state_dict().keys()
