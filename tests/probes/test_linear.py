"""Linear probes: planted and hand-computed classes, scikit-learn put together by hand, and no look at the held-out split."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from alexnet.cli.probe import probe as command
from alexnet.core import rng
from alexnet.core.device import Machine
from alexnet.core.errors import DataError, UsageError
from alexnet.core.preprocessing import Preprocessing
from alexnet.data.packed import PackedSet
from alexnet.data.prepare import prepare
from alexnet.evaluation.error_rate import evaluate_split
from alexnet.evaluation.layers import activations
from alexnet.evaluation.predict import Predictor, load
from alexnet.evaluation.views import CENTER
from alexnet.models import create_model
from alexnet.models.folder import save_model_folder
from alexnet.probes import linear, probe
from alexnet.probes.linear import (
    Errors,
    balanced_sample,
    default_layers,
    few_labels,
    linear_probe,
    pooled,
    pooled_features,
    pooled_shape,
)
from alexnet.report.pictures import save_figure
from alexnet.report.pictures.linear import error_curves


def run(arguments: list[str]) -> int:
    return command(["linear", *arguments])


INPUT = Preprocessing(resize=28, crop=28, mean="none", scale=1 / 255)


def clouds(n: int, distance: float, seed: int, dim: int = 8) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """``n`` points of four classes around corners of a cube, with other units and zeros for some of the numbers."""
    random = np.random.default_rng(seed)
    label_N = np.arange(n) % 4
    rows_ND = random.normal(size=(n, dim))
    rows_ND[np.arange(n), label_N] += distance
    rows_ND[:, 5] = rows_ND[:, 5] * 1000 + 7000
    rows_ND[:, 6] = 3.0
    return rows_ND.astype(np.float32), label_N


# --- the classifier -------------------------------------------------------------------------------------------------


def test_a_line_cut_in_the_middle() -> None:
    train_ND = np.array([[-1.0]] * 5 + [[1.0]] * 5, np.float32)
    held_out_MD = np.array([[-0.1], [0.1], [0.2], [-3.0]], np.float32)
    found = linear_probe(train_ND, np.repeat([0, 1], 5), held_out_MD, np.array([0, 1, 0, 0]))
    assert (found.held_out, found.train) == (Errors(1, 4), Errors(0, 10))
    assert found.selection == (
        (1e-4, Errors(0, 2)),
        (1e-3, Errors(0, 2)),
        (1e-2, Errors(0, 2)),
        (0.1, Errors(0, 2)),
        (1.0, Errors(0, 2)),
    )
    assert found.strength == 1e-4  # the smallest of equally good ones


def test_planted_classes_are_found_and_shuffled_labels_are_not() -> None:
    (train_ND, label_N), (held_out_MD, label_M) = clouds(400, 12.0, 0), clouds(800, 12.0, 1)
    assert linear_probe(train_ND, label_N, held_out_MD, label_M).held_out == Errors(0, 800)
    shuffled_N = np.random.default_rng(0).permutation(label_N)
    found = linear_probe(train_ND, shuffled_N, held_out_MD, np.random.default_rng(1).permutation(label_M))
    assert (
        0.75 - 4 * math.sqrt(0.75 * 0.25 / 800) < found.held_out.errors / 800 < 0.75 + 4 * math.sqrt(0.75 * 0.25 / 800)
    )


def test_the_same_as_scikit_learn_put_together_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "TOLERANCE", 1e-8)  # a warm start ends where a cold one does
    (train_ND, label_N), (held_out_MD, label_M) = clouds(300, 1.5, 0), clouds(500, 1.5, 1)
    train_ND, held_out_MD = train_ND.astype(np.float64), held_out_MD.astype(np.float64)
    select_N = rng.rank_in_class(label_N, 3, "linear probe/selection") % 5 == 4
    train_ND[np.flatnonzero(select_N)[:20], 7] = (
        50.0  # were these in the scaling, the selection would come out another way
    )

    def errors(c: float, fit_N: NDArray[np.bool_], rows: NDArray[Any], labels: NDArray[Any]) -> Errors:
        pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=c, tol=1e-8, max_iter=1000))
        return Errors(int((pipeline.fit(train_ND[fit_N], label_N[fit_N]).predict(rows) != labels).sum()), len(labels))

    found = linear_probe(train_ND, label_N, held_out_MD, label_M, seed=3)
    expected = [(c, errors(c, ~select_N, train_ND[select_N], label_N[select_N])) for c, _ in found.selection]
    assert list(found.selection) == expected
    assert found.selection[0][1].n == 60
    counts = [e.errors for _, e in expected]
    assert found.strength == expected[counts.index(min(counts))][0]
    assert len(expected) == len(linear.STRENGTHS) or counts[-1] > min(counts[:-1])  # it stopped because the errors rose
    assert found.held_out == errors(found.strength, np.ones(300, bool), held_out_MD, label_M)
    assert found.converged


def test_the_held_out_images_have_no_part_in_the_fit() -> None:
    (train_ND, label_N), (held_out_MD, label_M) = clouds(200, 1.0, 0), clouds(100, 1.0, 1)
    found = linear_probe(train_ND, label_N, held_out_MD, label_M)
    far_MD = np.concatenate([held_out_MD, 1e6 * held_out_MD])  # would move the means and deviations
    other = linear_probe(train_ND, label_N, far_MD, np.concatenate([label_M, label_M]))
    assert (found.selection, found.strength, found.train) == (other.selection, other.strength, other.train)
    assert linear_probe(train_ND, label_N, far_MD[:100], label_M) == found  # row by row the same answers


def test_the_same_seed_gives_the_same_result() -> None:
    (train_ND, label_N), (held_out_MD, label_M) = clouds(200, 1.0, 0), clouds(100, 1.0, 1)
    found = [linear_probe(train_ND, label_N, held_out_MD, label_M, seed=seed) for seed in (5, 5, 6)]
    assert found[0] == found[1]
    assert found[0].selection != found[2].selection


@pytest.mark.parametrize(("labels", "classes"), [([0] * 10, 1), ([0, 1, 2, 3] * 1, 4)])
def test_too_little_to_choose_on_is_refused(labels: list[int], classes: int) -> None:
    rows = np.zeros((len(labels), 2), np.float32)
    with pytest.raises(
        UsageError, match=f"two classes or more, and 5 training images in one of them; there are {classes}"
    ):
        linear_probe(rows, np.array(labels), rows, np.array(labels))


def test_the_interval_is_wilsons() -> None:
    # Wilson 1927: (p + z²/2n ± z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n)
    z, p, n = 1.959963984540054, 0.3, 50
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    found = Errors(15, 50).to_json()
    assert found["low"] == pytest.approx((middle - half) / (1 + z * z / n), rel=1e-9)
    assert found["high"] == pytest.approx((middle + half) / (1 + z * z / n), rel=1e-9)
    assert Errors(0, 5).to_json()["low"] == 0


# --- few labels -----------------------------------------------------------------------------------------------------


def test_few_labels_by_hand() -> None:
    (train_ND, label_N), (held_out_MD, label_M) = clouds(80, 3.0, 0), clouds(200, 3.0, 1)
    found = few_labels(train_ND, label_N, held_out_MD, label_M, per_class=(1, 5, 20, 21), seeds=(0, 1, 2))
    assert [row.per_class for row in found] == [1, 5, 20]  # no class has 21
    scaler = StandardScaler().fit(train_ND)
    for row in found[:2]:
        for seed, errors in enumerate(row.held_out):
            few = np.flatnonzero(rng.rank_in_class(label_N, seed, "linear probe/few labels") < row.per_class)
            assert np.bincount(label_N[few]).tolist() == [row.per_class] * 4
            classifier = LogisticRegression(C=0.01, tol=1e-3).fit(scaler.transform(train_ND[few]), label_N[few])
            assert errors == Errors(int((classifier.predict(scaler.transform(held_out_MD)) != label_M).sum()), 200)
    assert len(set(found[0].held_out)) > 1  # other seeds, other images
    assert len(set(found[2].held_out)) == 1  # all images: nothing is left to draw
    means = [row.to_json()["mean_error"] for row in found]
    assert means == sorted(means, reverse=True)
    document = found[0].to_json()
    assert document["mean_error"] == pytest.approx(sum(document["errors"]) / 600)
    assert (document["min_error"], document["max_error"]) == (
        min(document["errors"]) / 200,
        max(document["errors"]) / 200,
    )


def test_a_sample_is_even_by_class_and_grows_by_adding() -> None:
    label_N = np.array([0] * 50 + [1] * 3 + [2] * 20)
    for limit, counts in ((9, [3, 3, 3]), (15, [6, 3, 6]), (73, [50, 3, 20]), (1000, [50, 3, 20])):
        sample = balanced_sample(label_N, limit, 0, "test")
        assert np.bincount(label_N[sample]).tolist() == counts
        assert (np.diff(sample) > 0).all()
    assert set(balanced_sample(label_N, 9, 0, "test")) < set(balanced_sample(label_N, 20, 0, "test"))
    assert balanced_sample(label_N, 9, 0, "test").tolist() != balanced_sample(label_N, 9, 1, "test").tolist()


# --- features -------------------------------------------------------------------------------------------------------


def test_the_layers_of_each_stage() -> None:
    small = create_model("alexnet_2012", conv_channels=(8, 8, 8, 8, 8), fc_units=(16, 16), num_classes=4)
    assert default_layers(small) == ["pixels", "pool1", "pool2", "conv3", "conv4", "pool5", "fc6", "fc7"]
    assert default_layers(create_model("lenet")) == ["pixels", "s2", "s4", "c5", "f6"]
    assert default_layers(create_model("cifar_13pct")) == ["pixels", "pool1", "pool2", "local3", "local4"]


def test_maps_are_averaged_down() -> None:
    shapes = [
        (3, 224, 224),
        (96, 27, 27),
        (256, 13, 13),
        (384, 13, 13),
        (256, 6, 6),
        (4096,),
        (9000, 2, 2),
        (1, 28, 28),
    ]
    averaged = [(3, 32, 32), (96, 6, 6), (256, 4, 4), (384, 3, 3), (256, 4, 4), (4096,), (9000, 1, 1), (1, 28, 28)]
    assert [pooled_shape(shape) for shape in shapes] == averaged
    pixels_BCHW = np.random.default_rng(0).normal(size=(2, 3, 224, 224)).astype(np.float32)
    means = pixels_BCHW.reshape(2, 3, 32, 7, 32, 7).mean(axis=(3, 5)).reshape(2, -1)
    np.testing.assert_allclose(pooled(pixels_BCHW.reshape(2, -1), (3, 224, 224)), means, atol=1e-6)
    vectors = np.ones((2, 5), np.float16)
    assert pooled(vectors, (5,)).dtype == np.float32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of pictures told apart by where they are bright, 12 + 5 of each; and LeNet."""
    root, random = tmp_path_factory.mktemp("linear"), np.random.default_rng(0)
    for k, name in enumerate(["$ash", "_birch", "cedar"]):
        for split, count in (("train", 12), ("val", 5)):
            (root / "set" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels_HWC = random.integers(0, 120, (28, 28, 3), dtype=np.uint8)
                pixels_HWC[9 * k : 9 * k + 9] += 120
                Image.fromarray(pixels_HWC).save(root / "set" / split / name / f"{i}.png")
    model = create_model("lenet", num_classes=3, in_channels=3, activation="relu", seed=7)
    save_model_folder(root / "model", model, "lenet", INPUT, ["$ash", "_birch", "cedar"])
    return root


@pytest.fixture(scope="module")
def packed(folder: Path) -> PackedSet:
    return prepare(folder / "set", folder / "packed", size=28, workers=1)


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Predictor:
    return load(folder / "model")


def test_features_are_the_activations_averaged_over_windows(
    predictor: Predictor, packed: PackedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "MAX_UNITS", 54)  # s2 (6, 14, 14) becomes (6, 3, 3)
    monkeypatch.setattr(linear, "BATCH", 4)
    image_N, said = np.array([16, 2, 0, 7, 9]), []
    split = packed.split("train")
    found = pooled_features(
        predictor, split, ["s2", "f6"], image_N, progress=lambda done, total: said.append((done, total))
    )
    x_BCHW = torch.from_numpy(split.read(image_N)).permute(0, 3, 1, 2).float() / 255
    expected = activations(predictor.model, x_BCHW, ["s2", "f6"])
    windows = [slice(0, 5), slice(4, 10), slice(9, 14)]  # floor(14 i / 3) to ceil(14 (i + 1) / 3)
    maps_BCHW = expected["s2"].numpy()
    means = [[maps_BCHW[:, :, rows, columns].mean(axis=(2, 3)) for columns in windows] for rows in windows]
    np.testing.assert_allclose(found["s2"].reshape(5, 6, 3, 3), np.array(means).transpose(2, 3, 0, 1), atol=1e-5)
    np.testing.assert_allclose(found["f6"], expected["f6"].numpy(), atol=1e-5)
    assert said == [(4, 5), (5, 5)]


def test_one_labeled_image_of_each_of_many_classes_is_no_warning() -> None:
    rows_ND, label_N = np.eye(24, dtype=np.float32), np.arange(24)
    (found,) = few_labels(rows_ND, label_N, rows_ND, label_N, per_class=(1,), seeds=(0,))
    assert found.held_out == (Errors(0, 24),)


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command_writes_and_prints(
    folder: Path, packed: PackedSet, predictor: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(folder / "model"), "--data", str(packed.path), "--device", "cpu"]
    assert run([*given, "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    document = json.loads((tmp_path / "linear.json").read_text())
    assert (tmp_path / "linear.png").stat().st_size > 10_000
    assert "linear.json\n" in said
    assert [row["layer"] for row in document["layers"]] == ["pixels", "s2", "s4", "c5", "f6"]
    assert document["layers"][0]["errors"] == 0  # the pixels tell where a picture is bright
    assert document["layers"][0]["n"] == 15
    split = packed.split("val")
    own = evaluate_split(predictor.model, split, INPUT, None, classes=packed.classes, views=CENTER)
    assert document["own"]["errors"] == own.top1_errors != 10  # not that of one answer for all
    assert document["chance"]["errors"] == 10
    assert [(r["layer"], r["images_per_class"]) for r in document["few_labels"]] == [
        (layer, m) for layer in ("pixels", "s4", "c5", "f6") for m in (1, 5, 10)
    ]
    assert document["protocol"]["images"] == {"train": "36 of 36", "held out": "15 of 15"}
    assert document["data"]["fingerprint"] == packed.fingerprint
    assert run([*given, "--out", str(tmp_path), "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == document


def test_python_finds_what_the_command_finds(
    folder: Path, packed: PackedSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = Machine(device=torch.device("cpu"), quiet=True)
    asked = {"data": str(packed.path), "images": 18, "layers": ("c5",)}
    found = probe("linear", folder / "model", machine=machine, **asked)
    assert not list(tmp_path.iterdir())  # a model folder has no place for it
    assert probe("linear", folder / "model", machine=machine, out=tmp_path / "out", **asked).body == found.body
    written = (tmp_path / "out" / "linear.json").read_bytes(), (tmp_path / "out" / "linear.png").read_bytes()
    (tmp_path / "out" / "linear-of-my-own.png").write_bytes(b"not ours")
    given = [str(folder / "model"), "--data", str(packed.path), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert run([*given, "--images", "18", "--layers", "c5"]) == 0
    assert written == tuple((tmp_path / "out" / name).read_bytes() for name in ("linear.json", "linear.png"))
    assert capsys.readouterr().out.startswith("\n".join(found.lines))
    assert (tmp_path / "out" / "linear-of-my-own.png").read_bytes() == b"not ours"
    with pytest.raises(ValueError, match=r"images is 9; a classifier needs at least 10"):
        probe("linear", folder / "model", images=9)
    with pytest.raises(UsageError, match="no probe is called 'minds'"):
        probe("minds", folder / "model")


def test_a_sample_other_layers_and_wrong_settings(
    folder: Path, packed: PackedSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(folder / "model"), "--data", str(packed.path), "--out", str(tmp_path), "--device", "cpu", "--json"]
    assert run([*given, "--images", "18", "--layers", "output", "c5"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["protocol"]["images"] == {"train": "18 of 36", "held out": "15 of 15"}
    assert [row["layer"] for row in document["layers"]] == ["output", "c5"]
    with pytest.raises(UsageError, match="no layer is called 'fc9'; the layers are pixels, c1"):
        run([*given, "--layers", "fc9"])
    with pytest.raises(UsageError, match="--images is 9"):
        run([*given, "--images", "9"])
    with pytest.raises(UsageError, match="--out"):
        run(given[:3])
    held_out_only = prepare_without_training(folder, tmp_path)
    with pytest.raises(DataError, match="no split 'train'"):
        run([str(folder / "model"), "--data", str(held_out_only), "--out", str(tmp_path)])


def prepare_without_training(folder: Path, parent: Path) -> Path:
    for name in ("$ash", "_birch", "cedar"):
        (parent / "set" / "val" / name).mkdir(parents=True)
        for file in (folder / "set" / "val" / name).iterdir():
            (parent / "set" / "val" / name / file.name).write_bytes(file.read_bytes())
    return prepare(parent / "set", parent / "packed", size=28, workers=1).path


def test_a_set_of_other_classes_has_no_error_of_the_network(folder: Path, tmp_path: Path) -> None:
    for split, count in (("train", 6), ("test", 2)):
        for k, name in enumerate(["one", "two"]):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (28, 28), (100 * k + i, 90, 90)).save(tmp_path / "set" / split / name / f"{i}.png")
    prepare(tmp_path / "set", tmp_path / "packed", size=28, workers=1)
    given = [str(folder / "model"), "--data", str(tmp_path / "packed"), "--out", str(tmp_path), "--device", "cpu"]
    assert run([*given, "--layers", "pixels"]) == 0
    document = json.loads((tmp_path / "linear.json").read_text())
    assert document["own"] is None
    assert document["layers"][0]["errors"] == 0
    assert document["data"]["split"] == "test"


def test_the_picture_is_the_same_twice_and_goes_without_few_labels(tmp_path: Path) -> None:
    row = {"layer": "fc7", "units": 16, **Errors(3, 9).to_json()}
    few = {"layer": "fc7", "images_per_class": 5, "mean_error": 0.5, "min_error": 0.4, "max_error": 0.6}
    document = {
        "layers": [row, {**row, "layer": "pixels"}],
        "few_labels": [few, {**few, "images_per_class": 10}],
        "own": None,
        "chance": {"error": 0.9},
        "n": 9,
        "n_train": 20,
        "seeds": [0, 1],
    }
    for name in ("one.png", "two.png"):
        save_figure(error_curves(document, 9), tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert len(error_curves(document, 9).axes) == 2
    assert len(error_curves({**document, "few_labels": []}, 9).axes) == 1
