"""Every probe, with nothing but the model named, on two classes of twelve photographs each, two of them held out: it works and
says what it chose, or says in a line what is needed; and what it says then works."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet.cli.probe import probe as probe_command
from alexnet.core.errors import UsageError
from alexnet.core.preprocessing import Preprocessing
from alexnet.data.prepare import prepare
from alexnet.models import create_model
from alexnet.models.folder import save_model_folder
from alexnet.probes import KINDS, autoencoder
from alexnet.probes.codes import ranks_of, usual_bits
from alexnet.probes.tsne import usual_perplexity

NAMES = ["猫", "狗"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("small")
    random = np.random.default_rng(0)
    for split, num in (("train", 10), ("val", 2)):
        for label, name in enumerate(NAMES):
            (root / "set" / split / name).mkdir(parents=True)
            for i in range(num):
                pixels = random.integers(0, 160, (36, 36, 3), dtype=np.uint8)
                pixels[..., label] += 90
                Image.fromarray(pixels).save(root / "set" / split / name / f"{i}.png")
    prepare(root / "set", root / "packed", size=36, workers=1)
    model = create_model(
        "alexnet_2012",
        num_classes=2,
        input_size=31,
        conv_channels=(16, 16, 16, 16, 16),
        conv_kernels=(5, 3, 3, 3, 3),
        conv_strides=(1, 1, 1, 1, 1),
        conv_padding=(2, 1, 1, 1, 1),
        fc_units=(32, 32),
        init="he",
        biases=(0.0,) * 8,
    )
    given = Preprocessing(resize=36, crop=31, mean="none", scale=1 / 64)
    save_model_folder(root / "model", model, "alexnet_2012", given, sorted(NAMES))
    return root


def probe(kind: str, small: Path, out: Path, *more: str) -> int:
    data = () if kind in ("kernels", "towers") else ("--data", str(small / "packed"))
    more = ("--seeds", "1") if kind == "codes" else more  # the time of one fit
    given = [str(small / "model"), "--out", str(out), "--device", "cpu", *data, *more]
    return probe_command([kind, *given])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "tsne"])
def test_a_probe_of_a_small_set_needs_no_option(
    kind: str, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(autoencoder, "STEPS", 12)
    assert probe(kind, small, tmp_path / "out") == 0
    said = " ".join(capsys.readouterr())
    chosen = {
        "codes": "there are 20 training images: codes of 16 bits",
        "maps": "the 8 of 16 channels with the largest activations",
    }
    if kind in chosen:
        assert chosen[kind] in said
    document = json.loads((tmp_path / "out" / f"{kind}.json").read_text())
    assert document["probe"] == kind
    assert list((tmp_path / "out").glob(f"{kind}*.png"))


def test_a_map_of_too_few_images_says_what_to_take_instead(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UsageError, match=r"4 images of 2 classes make no map: it takes at least 11 .*--split all"):
        probe("tsne", small, tmp_path)
    assert probe("tsne", small, tmp_path, "--split", "all", "--points", "11") == 0
    assert "with 11 images on the map the perplexity is 3 instead of 30" in capsys.readouterr().err
    document = json.loads((tmp_path / "tsne.json").read_text())
    assert (document["n"], document["protocol"]["perplexity"]) == (11, 3)


def test_neighbors_vote_as_far_as_there_are_any(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    random = np.random.default_rng(0)
    for split, num in (("train", 2), ("val", 1)):
        for name in NAMES:
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for i in range(num):
                pixels = random.integers(0, 255, (36, 36, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "set" / split / name / f"{i}.png")
    prepare(tmp_path / "set", tmp_path / "packed", size=36, workers=1)
    given = [str(small / "model"), "--data", str(tmp_path / "packed"), "--out", str(tmp_path / "out")]
    assert probe_command(["neighbors", *given]) == 0
    assert "there are 4 training images: k is 1" in capsys.readouterr().err
    document = json.loads((tmp_path / "out" / "neighbors.json").read_text())
    assert [row["k"] for row in document["knn"]["fc7"]] == [1]
    assert document["six_nearest"]["same_class"]["fc7"]["of"] == 4 * 2
    assert document["six_nearest"]["same_class"]["fc7"]["fraction"] == 0.5  # all four are the nearest
    with pytest.raises(UsageError, match="--ks 5: there are 4 training images"):
        probe_command(["neighbors", *given, "--ks", "5"])
    with pytest.raises(UsageError, match=r"4 training images .* at least 8"):
        probe_command(["codes", *given])


def test_layers_are_chosen_that_the_network_has(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    model = create_model("lenet", num_classes=2, in_channels=3)
    save_model_folder(tmp_path / "lenet", model, "lenet", Preprocessing(resize=36, crop=28, mean="none"), sorted(NAMES))
    given = [str(tmp_path / "lenet"), "--data", str(small / "packed"), "--out", str(tmp_path / "out")]
    for kind, layer in (("neighbors", "f6"), ("maps", "c3")):
        assert probe_command([kind, *given]) == 0
        assert json.loads((tmp_path / "out" / f"{kind}.json").read_text())["layer"] == layer


@pytest.mark.parametrize(("num", "perplexity"), [(11, 3), (4, 1), (90, 29), (91, 30), (2500, 30)])
def test_the_usual_perplexity_is_a_third_of_the_neighbors(num: int, perplexity: float) -> None:
    assert usual_perplexity(num) == perplexity


def test_codes_are_as_long_as_there_are_components_and_looked_at_as_far_as_there_are_images() -> None:
    assert usual_bits(7000, 4096) == (16, 32, 64, 128, 256)
    assert usual_bits(100, 4096) == (16, 32, 64)
    assert usual_bits(9, 4096) == (8,)
    assert (ranks_of(7000), ranks_of(100), ranks_of(99), ranks_of(9)) == ((10, 100), (10, 100), (10,), (4,))
