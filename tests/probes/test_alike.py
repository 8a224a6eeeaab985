"""Copies that share no byte with their originals are found by features, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from alexnet.cli import data as cli
from alexnet.core.device import Machine
from alexnet.core.preprocessing import Preprocessing
from alexnet.evaluation.subject import Subject
from alexnet.models import create_model
from alexnet.models.folder import save_model_folder
from alexnet.probes.alike import alikes, altered


def photograph(seed: int) -> Image.Image:
    """Soft blobs of color, as photographs have at a small size."""
    blobs = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(blobs).resize((56, 56), Image.Resampling.BICUBIC)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes and two splits of unlike images. One of val is a smaller copy of one of train, one of the class b is a copy
    of one of the class a, and one is in a split twice, byte for byte."""
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "photos"
    for n, (split, name) in enumerate([("train", "a"), ("train", "b"), ("val", "a"), ("val", "b")]):
        (root / split / name).mkdir(parents=True)
        for i in range(5):
            photograph(10 * n + i).save(root / split / name / f"{i}.png")
    photograph(3).resize((44, 44)).save(root / "val" / "a" / "copy.jpg", quality=70)
    photograph(11).resize((46, 46)).save(root / "train" / "a" / "copy.jpg", quality=70)
    photograph(14).save(root / "train" / "b" / "again.png")
    return root


@pytest.fixture
def model(tmp_path: Path) -> Path:
    network = create_model("lenet", num_classes=2, in_channels=3)
    input_ = Preprocessing(resize=28, crop=28, mean="channel", channel_mean=(127.5,) * 3, scale=1 / 128)
    save_model_folder(tmp_path / "model", network, "lenet", input_, ["a", "b"])
    return tmp_path / "model"


def test_copies_are_found_and_equal_images_are_left_to_their_bytes(photos: Path, model: Path) -> None:
    machine = Machine(device=torch.device("cpu"), quiet=True)
    found = alikes(Subject(model=model, machine=machine, data=str(photos)), "pixels")
    assert found.n == 23
    assert {(pair.path, pair.other, pair.kind) for pair in found.pairs} == {
        ("train/a/3.png", "val/a/copy.jpg", "leak"),
        ("train/a/copy.jpg", "train/b/1.png", "conflict"),
    }
    assert all(0 < pair.distance <= found.limit < 0.1 for pair in found.pairs)


def test_the_command_says_them_beside_the_faults(photos: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "train" / "a" / "bad.jpg").write_bytes(b"")
    assert cli.check([str(photos), "--model", str(model), "--json"]) == 4
    document = json.loads(capsys.readouterr().out)
    assert len(document["faults"]) == 1
    assert (document["alike"]["n"], document["alike"]["layer"]) == (23, "f6")


@pytest.mark.parametrize("channels", [1, 3])
def test_an_altered_copy_has_the_shape_of_its_original(channels: int) -> None:
    pixels_SSC = np.asarray(photograph(0))[..., :channels]
    copy_SSC = altered(np.ascontiguousarray(pixels_SSC))
    assert (copy_SSC.shape, copy_SSC.dtype) == (pixels_SSC.shape, np.uint8)
    assert 1 < np.abs(copy_SSC.astype(int) - pixels_SSC).mean() < 30
