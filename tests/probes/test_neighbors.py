"""Nearest neighbors: exact against brute force in float64 and faiss, the vote against scikit-learn, and the probe."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from alexnet.cli.probe import probe
from alexnet.core.device import Machine
from alexnet.core.errors import UsageError
from alexnet.core.intervals import Errors
from alexnet.core.preprocessing import Preprocessing
from alexnet.data.packed import PackedSet
from alexnet.data.prepare import prepare
from alexnet.evaluation.subject import Subject
from alexnet.models import create_model
from alexnet.models.folder import save_model_folder
from alexnet.probes import neighbors as module
from alexnet.probes.neighbors import PixelRows, Settings, knn_error, measure, nearest, ranks, vote
from alexnet.report.pictures import save_figure
from alexnet.report.pictures.neighbors import Tile, draw_errors, draw_neighbors


def run(arguments: list[str]) -> int:
    return probe(["neighbors", *arguments])


INPUT = Preprocessing(resize=28, crop=28, mean="none", scale=1 / 255)


def brute_force(query_QD: NDArray[Any], base_ND: NDArray[Any], k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    difference_QND = query_QD[:, None].astype(np.float64) - base_ND[None].astype(np.float64)
    distance_QN = np.sqrt((difference_QND**2).sum(axis=2))
    index_Qk = np.argsort(distance_QN, axis=1, kind="stable")[:, :k]
    return index_Qk, np.take_along_axis(distance_QN, index_Qk, axis=1)


def test_four_points_on_a_line() -> None:
    found = nearest(np.array([[2.0]]), np.array([[10.0], [0.0], [4.0], [3.0]]), 3)
    assert found.index_Qk.tolist() == [[3, 1, 2]]  # 0 and 4 are equally far: the lower number first
    assert found.distance_Qk.tolist() == [[1.0, 2.0, 2.0]]


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("dim", [1, 3, 64, 300])
def test_the_same_as_brute_force_in_float64_in_whatever_blocks(dtype: type[np.generic], dim: int) -> None:
    random = np.random.default_rng(dim)
    base_ND = random.normal(100, 40, (230, dim)).clip(0, 255).astype(dtype)
    base_ND[115:] = base_ND[:115]  # every row twice: ties everywhere
    query_QD = random.normal(100, 40, (7, dim)).clip(0, 255).astype(dtype)
    for k in (1, 10, 229, 1000):
        index_Qk, distance_Qk = brute_force(query_QD, base_ND, k)
        for block_bytes in (1 << 9, 1 << 14, 1 << 26):
            found = nearest(query_QD, base_ND, k, block_bytes=block_bytes)
            assert np.array_equal(found.index_Qk, index_Qk)
            np.testing.assert_allclose(found.distance_Qk, distance_Qk, rtol=1e-12, atol=1e-12)


def test_the_same_as_faiss() -> None:
    faiss = pytest.importorskip("faiss")
    random = np.random.default_rng(0)
    base_ND, query_QD = (random.normal(size=(n, 96)).astype(np.float32) for n in (900, 40))
    index = faiss.IndexFlatL2(96)
    index.add(base_ND)
    squared_Qk, index_Qk = index.search(query_QD, 12)
    found = nearest(query_QD, base_ND, 12)
    assert np.array_equal(found.index_Qk, index_Qk)
    np.testing.assert_allclose(found.distance_Qk**2, squared_Qk, rtol=1e-4)


def test_rows_that_float32_cannot_tell_apart_are_put_in_order() -> None:
    # |x|^2 - 2 q x in float32 has steps of 8 at 10^8, the squared distances differ by 10^-4
    random = np.random.default_rng(0)
    base_ND = np.full((500, 16), 2500.0, np.float32)
    base_ND[:, 0] += np.float32(0.01) * random.permutation(500).astype(np.float32)
    query_QD = np.concatenate([base_ND[:1] - 1, np.zeros((1, 16), np.float32)])  # two far apart: nothing is centered
    index_Qk, _ = brute_force(query_QD, base_ND, 20)
    assert np.array_equal(nearest(query_QD, base_ND, 20).index_Qk, index_Qk)


def test_more_equal_rows_than_are_kept_are_all_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    scan = module._nearest_in_float64
    monkeypatch.setattr(module, "_nearest_in_float64", lambda *given: calls.append(1) or scan(*given))
    base_ND = np.ones((400, 8), np.float32)
    base_ND[200:] = 3
    found = nearest(np.zeros((1, 8), np.float32), base_ND, 5, block_bytes=1 << 10)
    assert found.index_Qk.tolist() == [[0, 1, 2, 3, 4]]
    assert calls == [1]
    nearest(np.zeros((1, 8), np.float32), np.random.default_rng(0).normal(size=(400, 8)), 5)
    assert calls == [1]  # not where it is not needed


def test_what_is_searched_is_read_in_blocks() -> None:
    @dataclass
    class Spy:
        matrix_ND: NDArray[np.float16]
        most: int = 0

        @property
        def shape(self) -> tuple[int, ...]:
            return self.matrix_ND.shape

        def __getitem__(self, rows: Any) -> NDArray[np.float16]:
            part: NDArray[np.float16] = self.matrix_ND[rows]
            self.most = max(self.most, len(part))
            return part

    random = np.random.default_rng(0)
    base, query = (Spy(random.normal(size=(n, 50)).astype(np.float16)) for n in (3000, 200))
    found = nearest(query, base, 3, block_bytes=1 << 14)
    assert max(base.most, query.most) <= (1 << 14) // (4 * 50)
    assert np.array_equal(found.index_Qk, brute_force(query.matrix_ND, base.matrix_ND, 3)[0])


@pytest.mark.parametrize(
    ("shape", "k", "message"), [((3, 5), 1, "dimensions"), ((0, 4), 1, "0 rows"), ((3, 4), 0, "k is 0")]
)
def test_what_cannot_be_searched_is_refused(shape: tuple[int, int], k: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        nearest(np.zeros((1, 4)), np.zeros(shape), k)


def test_ranks_count_the_nearer_rows() -> None:
    random = np.random.default_rng(0)
    base_ND, query_QD = random.normal(size=(300, 20)).astype(np.float32), random.normal(size=(4, 20)).astype(np.float32)
    everything = nearest(query_QD, base_ND, 300).index_Qk
    assert np.array_equal(ranks(query_QD, base_ND, everything[:, ::30]), np.tile(np.arange(0, 300, 30), (4, 1)))


def test_votes_by_hand() -> None:
    label_Qk = np.array([[2, 1, 1, 0], [2, 1, 1, 2], [0, 1, 2, 3], [3, 1, 2, 2]])
    assert vote(label_Qk).tolist() == [
        1,
        2,
        0,
        2,
    ]  # most; of two with two each the nearer; of four with one the nearest


def test_errors_by_hand() -> None:
    #  train:  0a 1a 2b 9b    test: 0.4 is a, 1.9 is a, 7 is a
    train_ND, train_label_N = np.array([[0.0], [1.0], [2.0], [9.0]]), np.array([0, 0, 1, 1])
    found = knn_error(train_ND, train_label_N, np.array([[0.4], [1.9], [7.0]]), np.array([0, 0, 0]), ks=(1, 3))
    # one: 1.9 -> 2b, 7 -> 9b; three: 1.9 -> 2b 1a 0a, 7 -> 9b 2b 1a
    assert found == {1: Errors(2, 3), 3: Errors(1, 3)}


@pytest.mark.parametrize("k", [1, 3, 20])
def test_errors_are_those_of_scikit_learn_where_its_rule_for_ties_is_the_same(k: int) -> None:
    sklearn = pytest.importorskip("sklearn.neighbors")
    random = np.random.default_rng(k)
    center_KD = 0.4 * random.normal(size=(2, 10))  # two classes: an odd k has no ties
    label_N = random.integers(0, 2, 400)
    x_ND = center_KD[label_N] + random.normal(size=(400, 10))
    train_ND, test_ND, train_label_N, test_label_N = x_ND[:300], x_ND[300:], label_N[:300], label_N[300:]
    ours = knn_error(train_ND, train_label_N, test_ND, test_label_N, ks=(k,))[k]
    theirs = sklearn.KNeighborsClassifier(k, algorithm="brute").fit(train_ND, train_label_N)
    share_N = theirs.predict_proba(test_ND)[:, 1]
    clear_N = share_N != 0.5
    wrong = int((theirs.predict(test_ND) != test_label_N)[clear_N].sum())
    ties = int((~clear_N).sum())
    assert (ties > 0) == (k == 20)
    assert 0 < wrong <= ours.errors <= wrong + ties
    if not ties:
        assert ours.errors == wrong


def test_too_many_neighbors_are_refused() -> None:
    with pytest.raises(UsageError, match="k is 5; it must be 1 to 3"):
        knn_error(np.zeros((3, 2)), np.zeros(3, np.int64), np.zeros((1, 2)), np.zeros(1, np.int64), ks=(1, 5))


# --- the probe ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set in which the last training image of each of three classes is, but for noise, the first held-out one; and LeNet."""
    root = tmp_path_factory.mktemp("neighbors")
    random = np.random.default_rng(0)
    for k, name in enumerate(["$ash", "birch", "cedar"]):
        first_HW = random.integers(0, 256, (28, 28))
        for split, count in (("train", 8), ("val", 3)):
            (root / "set" / split / name).mkdir(parents=True)
            for i in range(count):
                twin = (split, i) in (("train", 7), ("val", 0))
                noise_HW = random.integers(-3, 4, (28, 28)) if split == "train" else 0
                pixels_HW = first_HW + noise_HW if twin else random.integers(0, 256, (28, 28)) // (k + 1)
                image = Image.fromarray(pixels_HW.clip(0, 255).astype(np.uint8))
                image.save(root / "set" / split / name / f"{i}.png")
    model = create_model("lenet", num_classes=3, in_channels=3)
    save_model_folder(root / "model", model, "lenet", INPUT, ["$ash", "birch", "cedar"])
    return root


@pytest.fixture(scope="module")
def packed(folder: Path) -> PackedSet:
    return prepare(folder / "set", folder / "packed", size=28, workers=1)


@pytest.fixture
def subject(folder: Path, packed: PackedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Subject:
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    machine = Machine(device=torch.device("cpu"), quiet=True)
    return Subject(model=folder / "model", machine=machine, data=str(packed.path), training=True)


def test_the_twin_is_found_in_both_spaces(subject: Subject, packed: PackedSet) -> None:
    found = measure(subject, Settings(layer="c1", images=(0, 3, 6), ks=(1, 5)))
    assert found.n == 9
    assert found.subject["data"]["split"] == "val"
    assert found.pictures.keys() == {"neighbors.png", "neighbors_error.png"}
    body = found.body
    assert json.loads(json.dumps(body, allow_nan=False)) == body
    # pixel distances written out
    train, test = (packed.split(name).read(np.arange(n)).astype(float) for name, n in (("train", 24), ("val", 9)))
    index_Q6, distance_Q6 = brute_force(test.reshape(9, -1), train.reshape(24, -1), 6)
    for i, query in enumerate(body["queries"]):
        assert query["image"] == 3 * i
        for space in ("c1", "pixels"):
            assert len(query[space]) == 6
            assert query[space][0]["class"] == query["class"]
            assert Path(query[space][0]["path"]).name == "7.png"
            distances = [near["distance"] for near in query[space]]
            assert distances == sorted(distances)
        assert [near["image"] for near in query["pixels"]] == index_Q6[3 * i].tolist()
        np.testing.assert_allclose([near["distance"] for near in query["pixels"]], distance_Q6[3 * i])
    label_Q, label_N = packed.split("val").labels, packed.split("train").labels
    same = int((label_N[index_Q6] == label_Q[:, None]).sum())
    six = body["six_nearest"]
    assert six["same_class"]["pixels"] == {"images": same, "of": 54, "fraction": same / 54}
    nearest_errors = int((label_N[index_Q6[:, 0]] != label_Q).sum())
    one, five = body["knn"]["pixels"]
    assert (one["k"], one["n"], one["errors"], five["k"]) == (1, 9, nearest_errors, 5)
    assert found.summary["error, 5 nearest by pixels"] == five["error"]
    assert f"of the six nearest by pixels, {same / 54:.1%} are of the query's class" in found.lines


def test_the_same_seed_draws_the_same(subject: Subject) -> None:
    def drawn(seed: int) -> Any:
        return measure(subject, Settings(layer="c1", seed=seed, queries=4, ks=(1,), limit=5))

    first = drawn(0)
    assert first.body == drawn(0).body
    assert first.n == 5
    queries = first.body["queries"]
    assert len({query["class"] for query in queries[:3]}) == 3  # a query of each class, before a second of one
    assert [q["image"] for q in queries] != [q["image"] for q in drawn(1).body["queries"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "fc9"}, "no layer is called 'fc9'; the layers are pixels, c1"),
        ({"layer": "pixels"}, "name a layer of the network"),
        ({"images": (9,)}, "no image 9; the split has the images 0 to 8"),
        ({"images": (-1,)}, "no image -1"),
        ({"ks": (1, 25)}, "24 training images"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_computed(
    subject: Subject, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        measure(subject, Settings(**{"layer": "c1", "ks": (1,)} | options))
    assert not (tmp_path / "cache").exists()


def test_pixels_are_the_center_that_the_network_sees() -> None:
    @dataclass
    class Split:
        labels: NDArray[np.int64]
        paths: list[str]
        pixels: NDArray[np.uint8]

        def __len__(self) -> int:
            return len(self.pixels)

        def read(self, index_B: NDArray[np.int64]) -> NDArray[np.uint8]:
            return self.pixels[index_B]

    pixels = np.random.default_rng(0).integers(0, 256, (5, 9, 9, 3), dtype=np.uint8)
    split = Split(np.zeros(5, np.int64), list("abcde"), pixels)
    rows = PixelRows(split, Preprocessing(resize=9, crop=4, mean="none"), np.array([4, 1, 0]))
    assert rows.shape == (3, 48)
    assert np.array_equal(rows[0:2], pixels[[4, 1], 2:6, 2:6].reshape(2, -1))
    assert np.array_equal(rows[np.array([2])], pixels[[0], 2:6, 2:6].reshape(1, -1))
    larger = PixelRows(split, Preprocessing(resize=18, crop=18, mean="none"), np.arange(5))
    assert larger[0:1].shape == (1, 18 * 18 * 3)  # stored smaller than the network reads


# --- pictures and the command ---------------------------------------------------------------------------------------


def test_pictures_are_the_same_twice_and_show_all_tiles(tmp_path: Path) -> None:
    random = np.random.default_rng(0)

    def tile(caption: str, is_right: bool | None = None, channels: int = 3) -> Tile:
        return Tile(random.integers(0, 256, (20, 20, channels), dtype=np.uint8), caption, is_right)

    rows = [
        (tile("$a^2$"), [[tile("b", True), Tile(None, "missing")], [tile("日本", False, 1)]]),
        (tile("a very long name of a class"), [[tile("c", True), tile("d", False)], []]),
    ]
    for name in ("one.png", "two.png"):
        save_figure(draw_neighbors(rows, ["by fc7", "by pixels"], legend=True), tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    with Image.open(tmp_path / "one.png") as image:
        colors = {tuple(color) for color in np.asarray(image.convert("RGB")).reshape(-1, 3)[::3].tolist()}
    assert {(0, 158, 115), (213, 94, 0)} <= colors  # frames of both kinds


def test_the_bars_are_drawn_from_the_document(tmp_path: Path) -> None:
    knn = {space: [{"k": k, "n": 9, "errors": 3, "error": 1 / 3} for k in (1, 5)] for space in ("fc7", "pixels")}
    save_figure(draw_errors({"knn": knn, "train_images": 24}, 9), tmp_path / "bars.png")
    with Image.open(tmp_path / "bars.png") as image:
        assert image.width > 600


def test_the_command_writes_and_prints(
    folder: Path, packed: PackedSet, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    given = [str(folder / "model"), "--data", str(packed.path), "--layer", "c1", "--ks", "1", "3"]
    assert run([*given, "--out", str(tmp_path / "probes"), "--queries", "2"]) == 0
    said = capsys.readouterr().out
    files = [tmp_path / "probes" / f"neighbors{end}" for end in (".json", ".png", "_error.png")]
    assert said.endswith("".join(f"{file}\n" for file in files))
    assert all(file.is_file() for file in files)
    document = json.loads(files[0].read_text())
    assert document["probe"] == "neighbors"
    assert [row["k"] for row in document["knn"]["c1"]] == [1, 3]
    assert document["data"]["fingerprint"] == packed.fingerprint
    assert document["environment"]["torch"] == torch.__version__
    assert run([*given, "--out", str(tmp_path / "probes"), "--queries", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == document


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--queries", "0"], "--queries is 0; it must be at least 1"),
        (["--limit", "0"], "--limit is 0; it must be at least 1"),
        (["--ks"], "--ks names no number"),
        (["--ks", "one"], "--ks is one; it takes whole numbers"),
    ],
)
def test_options_that_make_no_sense_are_refused_by_their_names(options: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        run(["absent", *options])
