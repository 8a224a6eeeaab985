"""t-SNE: planted clusters, purity and silhouette by hand, thumbnails against all possible arrangements, and the probe."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from threadpoolctl import threadpool_limits

from alexnet.cli.probe import probe
from alexnet.core.device import Machine
from alexnet.core.errors import AlexNetError, UsageError
from alexnet.core.preprocessing import Preprocessing
from alexnet.data.packed import PackedSet
from alexnet.data.prepare import prepare
from alexnet.evaluation.predict import Predictor, load
from alexnet.evaluation.subject import Subject
from alexnet.models import create_model
from alexnet.models.folder import save_model_folder
from alexnet.probes import linear, tsne
from alexnet.probes.tsne import Settings, center_pixels, chance_purity, grid_cells, neighbors_of_own_class, tsne_map
from alexnet.report.pictures import save_figure
from alexnet.report.pictures.tsne import BORDER, CLASS_COLORS, NOBODY, point_maps, thumbnail_map

NAMES = ["$ash", "_birch", "cedar\n"]
INPUT = Preprocessing(resize=28, crop=24, mean="none", scale=1 / 255)


def clusters(n: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    label_N = np.arange(n) % 3
    return (random.normal(size=(n, 20)) + 30 * np.eye(20)[label_N]).astype(np.float32), label_N


# --- the map and its figures ----------------------------------------------------------------------------------------


def test_planted_clusters_are_apart_on_the_map() -> None:
    rows_ND, label_N = clusters(90)
    found = tsne_map(rows_ND, label_N, perplexity=10)
    assert found.xy_N2.shape == (90, 2)
    assert (found.map_neighbors, found.space_neighbors, found.num_neighbors) == (900, 900, 900)
    assert found.map_silhouette > 0.7
    assert found.trustworthiness > 0.85
    assert found.variance_kept == pytest.approx(1)  # 20 numbers are 20 components
    assert found.to_json()["neighbor_purity"] == 1
    shuffled = tsne_map(rows_ND, np.random.default_rng(1).permutation(label_N), perplexity=10)
    assert np.array_equal(shuffled.xy_N2, found.xy_N2)  # the labels have no part in the map
    assert abs(shuffled.map_neighbors / 900 - chance_purity(label_N)) < 0.08
    assert abs(shuffled.map_silhouette) < 0.1


def test_the_map_depends_on_its_seed_and_not_on_the_threads() -> None:
    rows_ND, label_N = clusters(60)
    found = tsne_map(rows_ND, label_N, perplexity=5)
    with threadpool_limits(1):
        assert np.array_equal(tsne_map(rows_ND, label_N, perplexity=5).xy_N2, found.xy_N2)


def test_neighbors_by_hand() -> None:
    # 0 and 1 are neighbors of one class; 10, of the other, and 11 are neighbors too
    xy_N2, label_N = np.array([[0, 0], [1, 0], [10, 0], [11, 0]], np.float32), np.array([0, 0, 1, 0])
    assert neighbors_of_own_class(xy_N2, label_N, 1) == 2
    assert neighbors_of_own_class(xy_N2, label_N, 3) == 6  # all others: 2 + 2 + 0 + 2
    assert chance_purity(label_N) == 6 / 12
    random = np.random.default_rng(0)
    xy_N2, label_N = random.normal(size=(70, 2)).astype(np.float32), random.integers(0, 4, 70)
    distance_NN = np.linalg.norm(xy_N2[:, None].astype(float) - xy_N2[None], axis=2) + np.diag(np.full(70, np.inf))
    nearest_NK = np.argsort(distance_NN, axis=1)[:, :10]
    assert neighbors_of_own_class(xy_N2, label_N) == (label_N[nearest_NK] == label_N[:, None]).sum()


def test_silhouette_by_hand() -> None:
    rows_ND, label_N = clusters(30)
    found = tsne_map(rows_ND, label_N, perplexity=5)
    for points, silhouette in ((rows_ND, found.space_silhouette), (found.xy_N2, found.map_silhouette)):
        distance_NN = np.linalg.norm(points[:, None].astype(float) - points[None], axis=2)
        values = []
        for i in range(30):
            own = distance_NN[i, label_N == label_N[i]].sum() / 9  # the nine others
            other = min(distance_NN[i, label_N == k].mean() for k in range(3) if k != label_N[i])
            values.append((other - own) / max(own, other))
        assert silhouette == pytest.approx(np.mean(values), rel=1e-4)


@pytest.mark.parametrize(
    ("n", "classes", "perplexity", "message"),
    [
        (30, 3, 30.0, "--perplexity is 30, and there are 30 points; it must be at least 1 and less"),
        (30, 3, 0.5, "--perplexity is 0.5"),
        (30, 1, 5.0, "30 images of 1 class make no map"),
        (30, 30, 5.0, "30 images of 30 classes make no map"),
        (10, 3, 5.0, "10 images of 3 classes make no map"),
    ],
)
def test_what_makes_no_map_is_refused(n: int, classes: int, perplexity: float, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tsne_map(clusters(n)[0], np.arange(n) % classes, perplexity=perplexity)


def test_equal_rows_and_too_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AlexNetError, match="the features of all images are the same"):
        tsne_map(np.ones((30, 4), np.float32), np.arange(30) % 3, perplexity=5)
    monkeypatch.setattr(tsne, "MAX_POINTS", 29)
    with pytest.raises(UsageError, match="t-SNE maps at most 29 points, and these are 30"):
        tsne_map(*clusters(30), perplexity=5)


# --- thumbnails -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_no_arrangement_is_nearer(n: int) -> None:
    xy_N2 = np.random.default_rng(n).normal(size=(n, 2)).astype(np.float32)
    cell_N, side = grid_cells(xy_N2)
    assert side == (2 if n <= 4 else 3)
    unit_N2 = (xy_N2 - xy_N2.min(0)) / np.ptp(xy_N2, axis=0)
    center_G2 = np.array([((g % side + 0.5) / side, 1 - (g // side + 0.5) / side) for g in range(side**2)])

    def cost(cells: tuple[int, ...]) -> float:
        return float(((unit_N2 - center_G2[list(cells)]) ** 2).sum())

    assert cost(tuple(cell_N)) == pytest.approx(min(map(cost, itertools.permutations(range(side**2), n))))


def test_no_two_thumbnails_share_a_cell_and_each_is_near_its_point() -> None:
    random = np.random.default_rng(0)
    xy_N2 = np.concatenate([random.normal(size=(150, 2)), random.normal(size=(140, 2)) * 0.1 + 4]).astype(np.float32)
    cell_N, side = grid_cells(xy_N2)
    assert side == 18  # 17 x 17 is one too few
    assert len(set(cell_N.tolist())) == 290
    assert set(cell_N.tolist()) <= set(range(side**2))
    unit_N2 = (xy_N2 - xy_N2.min(0)) / np.ptp(xy_N2, axis=0)

    def displacement(cells: NDArray[np.int64]) -> float:
        center_N2 = np.stack([(cells % side + 0.5) / side, 1 - (cells // side + 0.5) / side], axis=1)
        return float(np.linalg.norm(unit_N2 - center_N2, axis=1).mean())

    at_random = min(displacement(random.permutation(side**2)[:290]) for _ in range(200))
    assert displacement(cell_N) < 0.6 * at_random


def test_points_on_a_grid_stay_where_they_are() -> None:
    order = np.random.default_rng(0).permutation(25)
    xy_N2 = np.stack([order % 5, 4 - order // 5], axis=1).astype(np.float32) * [3, 7]  # row 0 is the top one
    assert np.array_equal(grid_cells(xy_N2)[0], order)
    same, side = grid_cells(np.zeros((4, 2), np.float32))
    assert (sorted(same.tolist()), side) == ([0, 1, 2, 3], 2)


def test_the_sheet_shows_each_thumbnail_in_its_cell_and_frame() -> None:
    thumbnails = np.random.default_rng(0).integers(0, 256, (3, 6, 6, 3), dtype=np.uint8)
    step = 6 + 2 * BORDER
    sheet = thumbnail_map(thumbnails, np.array([3, 0, 1]), 2, np.array([0, 1, 10]))
    assert sheet.shape == (2 * step, 2 * step, 3)
    inner = slice(BORDER, BORDER + 6)
    assert np.array_equal(sheet[:step, :step][inner, inner], thumbnails[1])
    assert np.array_equal(sheet[:step, step:][inner, inner], thumbnails[2])
    assert np.array_equal(sheet[step:, step:][inner, inner], thumbnails[0])
    assert (sheet[step:, :step] == NOBODY).all()
    assert sheet[-1, -1].tolist() == [0, 0x72, 0xB2] == sheet[0, -1].tolist()
    assert CLASS_COLORS[0] == "#0072B2"
    with pytest.raises(ValueError, match="two thumbnails share a cell"):
        thumbnail_map(thumbnails, np.array([3, 0, 3]), 2, np.array([0, 1, 2]))


# --- pictures and the command ---------------------------------------------------------------------------------------


def test_up_to_twenty_classes_have_a_legend_of_their_own_looks(tmp_path: Path) -> None:
    def document(num_classes: int) -> dict[str, object]:
        figures = {"neighbor_purity": 0.5, "neighbor_purity_chance": 0.1, "silhouette": 0.1, "trustworthiness": 0.9}
        xy = np.random.default_rng(0).normal(size=(60, 2)).tolist()
        return {
            "maps": {"fc7": figures, "pixels": figures},
            "points": {"label": (np.arange(60) % num_classes).tolist(), "maps": {"fc7": xy, "pixels": xy}},
            "classes": ["$a^$", "_b", "c\n", *(f"class {k}" for k in range(3, num_classes))],
            "data": {"split": "val"},
        }

    for name in ("one.png", "two.png"):
        save_figure(point_maps(document(20)), tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    figure = point_maps(document(20))
    (legend,) = figure.legends
    assert [text.get_text().strip() for text in legend.get_texts()][:4] == ["$a^$", "_b", "c\\n", "class 3"]
    for axes, title in zip(figure.axes, ("Map by fc7", "Map by pixels"), strict=True):
        assert axes.get_title().startswith(title)
        assert [text.get_text() for text in axes.texts][:3] == ["$a^$", "_b", "c\\n"]  # each at its cluster
    looks = {(line.get_color(), line.get_marker()) for line in figure.axes[0].lines}
    assert len(looks) == 20
    many = point_maps(document(21))
    assert not many.legends
    assert "too many for a legend" in many.get_suptitle()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of pictures told apart by where they are bright, 2 + 14 of each; and LeNet."""
    root, random = tmp_path_factory.mktemp("tsne"), np.random.default_rng(0)
    for k, name in enumerate(NAMES):
        for split, count in (("train", 2), ("val", 14)):
            (root / "set" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels_HWC = random.integers(0, 120, (28, 28, 3), dtype=np.uint8)
                pixels_HWC[9 * k : 9 * k + 9] += 120
                Image.fromarray(pixels_HWC).save(root / "set" / split / name / f"{i}.png")
    model = create_model("lenet", num_classes=3, in_channels=3, input_size=24)
    save_model_folder(root / "model", model, "lenet", INPUT, NAMES)
    return root


@pytest.fixture(scope="module")
def packed(folder: Path) -> PackedSet:
    return prepare(folder / "set", folder / "packed", size=28, workers=1)


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Predictor:
    return load(folder / "model")


def test_pixels_are_the_input_of_the_network(
    predictor: Predictor, packed: PackedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tsne, "BATCH", 2)
    monkeypatch.setattr("alexnet.probes.linear.MAX_SIDE", 8)
    image_N = np.array([40, 3, 0])
    center = packed.split("val").read(image_N)[:, 2:26, 2:26].transpose(0, 3, 1, 2) / 255
    means = center.reshape(3, 3, 8, 3, 8, 3).mean(axis=(3, 5)).reshape(3, -1)
    np.testing.assert_allclose(center_pixels(predictor, packed.split("val"), image_N), means, atol=1e-6)


def test_the_command_writes_and_prints(
    folder: Path, packed: PackedSet, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    given = ["tsne", str(folder / "model"), "--data", str(packed.path), "--layer", "f6", "--perplexity", "5"]
    assert probe([*given, "--out", str(tmp_path / "probes")]) == 0
    said = capsys.readouterr().out
    files = ("tsne.json", "tsne.png", "tsne-thumbnails-f6.png", "tsne-thumbnails-pixels.png")
    for file in files:
        assert file in said
        assert (tmp_path / "probes" / file).is_file()
    document = json.loads((tmp_path / "probes" / "tsne.json").read_text())
    assert list(document["maps"]) == ["f6", "pixels"]
    assert document["maps"]["pixels"]["neighbor_purity"] > 0.9  # the pixels tell where a picture is bright
    assert document["maps"]["pixels"]["neighbor_purity_chance"] == pytest.approx(13 / 41)
    assert document["points"]["path"] == packed.split("val").paths
    assert np.array(document["points"]["maps"]["f6"]).shape == (42, 2)
    assert document["protocol"]["pixels"] == "the network's input as 3 x 24 x 24 means"
    assert document["data"]["fingerprint"] == packed.fingerprint
    assert document["environment"]["torch"] == torch.__version__
    with Image.open(tmp_path / "probes" / "tsne-thumbnails-f6.png") as image:
        sheet = (
            np.asarray(image.convert("RGB"))[-700:].reshape(7, 100, 7, 100, 3).swapaxes(1, 2)
        )  # 42 thumbnails of 96 + 2 x 2 pixels on 7 x 7
    shown = [0, 0, 0]
    for cell in sheet.reshape(49, 100, 100, 3):
        frame = "#" + cell[0, 0].tobytes().hex().upper()
        if frame != "#A0A0A0":  # nobody's cell
            bands = [cell[2 + 31 * k : 31 + 31 * k].mean() for k in range(3)]  # a picture is bright where its class is
            assert CLASS_COLORS.index(frame) == np.argmax(bands)
            shown[int(np.argmax(bands))] += 1
    assert shown == [14, 14, 14]
    assert probe([*given, "--out", str(tmp_path / "probes"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == document


def subject_of(folder: Path, packed: PackedSet) -> Subject:
    return Subject(model=folder / "model", machine=Machine(device=torch.device("cpu")), data=str(packed.path))


def test_too_many_points_become_a_sample_that_is_even_by_class(
    folder: Path, packed: PackedSet, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tsne, "MAX_POINTS", 30)
    found = tsne.measure(subject_of(folder, packed), Settings(layer="pixels", points=40, perplexity=5))
    said = capsys.readouterr().err
    assert "t-SNE maps at most 30 points, so 30 of the 42 images are taken, as many of each class" in said
    assert found.n == 30
    assert list(found.body["maps"]) == ["pixels"]
    assert np.bincount(found.body["points"]["label"]).tolist() == [10, 10, 10]
    assert found.protocol["images"] == "a sample of 30 of 42, as many of each class"
    assert found.lines[0] == "30 images of val: a sample of 30 of 42, as many of each class"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer": "fc9"}, "no layer is called 'fc9'; the layers are pixels, c1"),
        ({"layer": "pixels", "perplexity": 42.0}, "--perplexity is 42, and there are 42 points"),
    ],
)
def test_wrong_settings_are_refused(folder: Path, packed: PackedSet, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tsne.measure(subject_of(folder, packed), Settings(**settings))


def test_a_map_of_one_point_or_without_a_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    given = ["tsne", str(folder / "model"), "--data", "nowhere"]
    with pytest.raises(UsageError, match="--points is 1; a map needs at least 2"):
        probe([*given, "--out", str(tmp_path), "--points", "1"])
    with pytest.raises(UsageError, match="name a folder with --out"):
        probe(given)


@pytest.mark.parametrize("kind", [linear, tsne])
def test_without_scikit_learn_the_extra_is_named(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(AlexNetError, match=r'need scikit-learn: pip install "alexnet\[probe\]"'):
        kind.measure(Subject(model="nowhere", machine=Machine(device=torch.device("cpu"))), kind.Settings())
