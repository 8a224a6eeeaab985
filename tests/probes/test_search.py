"""The index: what is found is what is nearest, whatever was added when, and nothing damaged or foreign is searched."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from alexnet.cli import search as cli
from alexnet.core.errors import AlexNetError, DataError, ImageError, UsageError
from alexnet.core.parts import alone
from alexnet.core.preprocessing import Preprocessing
from alexnet.core.sealed import Seal
from alexnet.data import inside
from alexnet.evaluation.predict import Predictor, load
from alexnet.models import create_model
from alexnet.models.folder import save_model_folder
from alexnet.probes import autoencoder
from alexnet.probes import search as module
from alexnet.probes.codes import load_coder
from alexnet.probes.neighbors import nearest
from alexnet.probes.scan import Directions
from alexnet.probes.search import Index, Kind, Vectors, add_to_index, build_index, open_index, query_vectors

INPUT = Preprocessing(resize=28, crop=28, mean="none", scale=1 / 255)
LAYER = "c1"


def save_model(folder: Path, seed: int) -> Path:
    save_model_folder(
        folder, create_model("lenet", seed=seed, num_classes=3, in_channels=3), "lenet", INPUT, list("abc")
    )
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("search") / "model", 0)


@pytest.fixture(scope="module")
def predictor(model: Path) -> Predictor:
    return load(model)


@pytest.fixture
def quick_coder(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few steps that a coder is learned at once, and so few images compared that codes choose them."""
    monkeypatch.setattr(autoencoder, "STEPS", 40)
    monkeypatch.setattr(module, "COMPARED", 15)


def draw(folder: Path, first: int, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(first, first + count):
        pixels = np.random.default_rng(i).integers(0, 256, (28, 28, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:04d}.png", compress_level=0)


def vectors_of(predictor: Predictor, numbers: list[int]) -> NDArray[np.float16]:
    """The features of drawn pictures by a forward pass of their own."""
    pixels = np.stack([np.random.default_rng(i).integers(0, 256, (28, 28, 3), dtype=np.uint8) for i in numbers])
    x_BCHW = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        c1_BCHW = torch.sigmoid(predictor.model.get_submodule("c1")(x_BCHW))
    return c1_BCHW.flatten(1).numpy().astype(np.float16)


def build(predictor: Predictor, model: Path, sources: Path, folder: Path, **options: Any) -> Index:
    return build_index(
        predictor, [sources], folder, **{"model": model, "layer": LAYER, "metric": "euclidean", **options}
    )


def brute_force(query_QD: NDArray[Any], base_ND: NDArray[Any], k: int) -> NDArray[np.float64]:
    difference_QND = query_QD[:, None].astype(np.float64) - base_ND[None].astype(np.float64)
    return np.sort(np.sqrt((difference_QND**2).sum(axis=2)), axis=1)[:, :k]


def test_an_index_holds_each_image_once_with_its_features(predictor: Predictor, model: Path, tmp_path: Path) -> None:
    draw(tmp_path / "a", 0, 37)  # more than a batch
    index = build(predictor, model, tmp_path / "a", tmp_path / "index")
    assert [Path(path).name for path in index.paths] == [f"{i:04d}.png" for i in range(37)]
    assert index.vectors[:].dtype == np.float16
    np.testing.assert_allclose(
        index.vectors[:].astype(float), vectors_of(predictor, list(range(37))).astype(float), atol=1e-3
    )
    assert index.meta["faiss"] is None
    assert open_index(tmp_path / "index").meta == index.meta


@pytest.mark.parametrize("kind", ["exact", "ivf", "hnsw"])
def test_what_is_found_is_what_is_nearest(predictor: Predictor, model: Path, tmp_path: Path, kind: Kind) -> None:
    if kind != "exact":
        pytest.importorskip("faiss")
    draw(tmp_path / "a", 0, 60)
    index = build(predictor, model, tmp_path / "a", tmp_path / "index", kind=kind)
    draw(tmp_path / "queries", 55, 7)  # five that are in it, two that are not
    paths, query_QD = query_vectors(index, predictor, [tmp_path / "queries"])
    found = open_index(tmp_path / "index").search(query_QD, 4)
    np.testing.assert_allclose(found.distance_Qk, brute_force(query_QD, index.vectors[:], 4), rtol=1e-12)
    assert [Path(path).name for path in paths] == [f"{i:04d}.png" for i in range(55, 62)]
    assert found.index_Qk[:5, 0].tolist() == [55, 56, 57, 58, 59]
    assert (found.distance_Qk[:5, 0] == 0).all()
    assert (found.distance_Qk[5:, 0] > 0).all()
    if kind != "exact":
        recall = index.meta["faiss"]["recall"]
        assert (recall["at"], recall["of"], recall["queries"]) == (10, 600, 60)
        assert recall["recall"] == recall["found"] / recall["of"] == 1.0  # so few that all are compared


def cosine_distances(query_QD: NDArray[Any], base_ND: NDArray[Any]) -> NDArray[np.float64]:
    query_QD, base_ND = query_QD.astype(np.float64), base_ND.astype(np.float64)
    lengths_QN = np.linalg.norm(query_QD, axis=1)[:, None] * np.linalg.norm(base_ND, axis=1)
    return 1 - query_QD @ base_ND.T / lengths_QN


@pytest.mark.parametrize("kind", ["exact", "ivf", "hnsw"])
def test_by_cosine_what_is_found_is_what_has_the_same_direction(
    predictor: Predictor, model: Path, tmp_path: Path, kind: Kind
) -> None:
    if kind != "exact":
        pytest.importorskip("faiss")
    draw(tmp_path / "a", 0, 60)
    index = build(predictor, model, tmp_path / "a", tmp_path / "index", kind=kind, metric="cosine")
    query_QD = np.vstack([vectors_of(predictor, [61, 62]), index.vectors[7:8] / 2]).astype(np.float16)
    found, distance_QN = open_index(index.folder).search(query_QD, 9), cosine_distances(query_QD, index.vectors[:])
    assert np.array_equal(found.index_Qk, np.argsort(distance_QN, axis=1, kind="stable")[:, :9])
    np.testing.assert_allclose(found.distance_Qk, np.sort(distance_QN, axis=1)[:, :9], rtol=1e-9, atol=1e-15)
    assert found.index_Qk[2, 0] == 7
    assert found.distance_Qk[2, 0] < 1e-6  # halved, which float16 holds but for the smallest
    if kind != "exact":
        assert index.meta["faiss"]["recall"]["recall"] == 1.0


def test_zeros_have_a_direction_of_their_own() -> None:
    base_ND = np.array([[0, 0], [3, 4], [-3, -4], [6, 8], [4, -3]], np.float16)
    found = nearest(Directions(base_ND)[:2], Directions(base_ND), 5)
    np.testing.assert_allclose(found.distance_Qk**2 / 2, [[0, 1, 1, 1, 1], [0, 0, 1, 1, 2]], atol=1e-15)
    assert [found.index_Qk[0, 0], *found.index_Qk[1, :2]] == [0, 1, 3]


def test_an_index_of_the_first_format_is_searched_by_euclidean_distance(
    predictor: Predictor, model: Path, tmp_path: Path
) -> None:
    draw(tmp_path / "a", 0, 9)
    index = build(predictor, model, tmp_path / "a", tmp_path / "index")
    old = {key: value for key, value in index.meta.items() if key not in ("metric", "chosen")}
    module.SEAL.write(index.folder, {**old, "format": "alexnet index 1"})
    old_index, query_QD = open_index(index.folder), vectors_of(predictor, [20])
    assert old_index.metric == "euclidean"
    assert np.array_equal(old_index.search(query_QD, 4).distance_Qk, index.search(query_QD, 4).distance_Qk)
    draw(tmp_path / "a", 9, 1)
    assert len(add_to_index(old_index, predictor, [tmp_path / "a"])) == 10


@pytest.mark.usefixtures("quick_coder")
def test_codes_name_candidates_whose_vectors_are_compared(
    predictor: Predictor, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMPARED", 20)
    monkeypatch.setattr(module, "CODE_BITS", 40)
    draw(tmp_path / "a", 0, 60)
    folder = build(predictor, model, tmp_path / "a", tmp_path / "index", kind="codes").folder
    monkeypatch.setitem(sys.modules, "faiss", None)  # a search does without
    monkeypatch.setitem(sys.modules, "sklearn", None)
    index = open_index(folder)
    about, base_ND = index.meta["codes"], index.vectors[:]
    assert (about["rows"], about["bits"], about["compared"], about["made_by"]) == (60, 40, 20, "autoencoder")
    assert {about["file"], about["coder"]} == {"codes-60.npy", "coder-60.npz"} <= index.meta["files"].keys()
    code_NK = np.unpackbits(load_coder(folder / about["coder"]).encode(base_ND), axis=1)
    np.testing.assert_array_equal(np.packbits(code_NK, axis=1), np.load(folder / about["file"]))
    query_QD = vectors_of(predictor, [3, 70, 71])
    found = index.search(query_QD, 5)
    code_QK = np.unpackbits(load_coder(folder / about["coder"]).encode(query_QD), axis=1)
    for query_D, code_K, index_k, distance_k in zip(
        query_QD, code_QK, found.index_Qk, found.distance_Qk, strict=True
    ):  # by hand: the 20 rows whose codes differ in the fewest bits, the first of equal ones; then the 5 nearest vectors
        near_m = np.argsort((code_NK != code_K).sum(axis=1), kind="stable")[:20]
        distance_m = np.sqrt(((base_ND[near_m].astype(float) - query_D.astype(float)) ** 2).sum(axis=1))
        order_k = np.lexsort([near_m, distance_m])[:5]
        assert index_k.tolist() == near_m[order_k].tolist()
        np.testing.assert_allclose(distance_k, distance_m[order_k], rtol=1e-12)
    assert (found.index_Qk[0, 0], found.distance_Qk[0, 0]) == (3, 0)
    by_codes = index.search_codes(query_QD, 7)
    assert by_codes is not None
    for code_K, index_k, bits_k in zip(code_QK, by_codes.index_Qk, by_codes.distance_Qk, strict=True):
        bits_N = (code_NK != code_K).sum(axis=1)
        assert index_k.tolist() == (near_k := np.argsort(bits_N, kind="stable")[:7]).tolist()
        assert bits_k.tolist() == bits_N[near_k].tolist()
    true = [set(np.argsort(((base_ND - row_D).astype(float) ** 2).sum(1), kind="stable")[1:11]) for row_D in base_ND]
    own_Nk = index.search(base_ND, 11).index_Qk
    hits = sum(len(true[i] & set(own_Nk[i, 1:].tolist())) for i in range(60))
    assert (about["recall"]["found"], about["recall"]["of"]) == (hits, 600)
    assert 600 * 19 / 59 < hits < 600  # more than by chance, which has 19 of the other 59 compared


@pytest.mark.usefixtures("quick_coder")
def test_codes_are_of_directions_where_the_metric_is_the_cosine(
    predictor: Predictor, model: Path, tmp_path: Path
) -> None:
    draw(tmp_path / "a", 0, 40)
    index = build(predictor, model, tmp_path / "a", tmp_path / "index", kind="codes", metric="cosine")
    query_QD = np.vstack([index.vectors[7:8], index.vectors[7:8] / 2]).astype(np.float16)
    found = open_index(index.folder).search(query_QD, 3)
    assert found.index_Qk[:, 0].tolist() == [7, 7]
    assert found.index_Qk[0].tolist() == found.index_Qk[1].tolist()  # the length of a query says nothing
    expected_Qk = np.take_along_axis(cosine_distances(query_QD, index.vectors[:]), found.index_Qk, axis=1)
    np.testing.assert_allclose(found.distance_Qk, expected_Qk, rtol=1e-9, atol=1e-12)


def test_few_images_need_no_codes_and_all_are_compared(
    predictor: Predictor, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(tmp_path / "a", 0, 6)
    words = [str(model), str(tmp_path / "a"), "--out", str(tmp_path / "told"), "--layer", LAYER, "--kind", "codes"]
    assert cli.index(words) == 0
    assert "a search compares all of so few images" in capsys.readouterr().out
    index = build(predictor, model, tmp_path / "a", tmp_path / "index", kind="codes")
    assert (index.meta["codes"], index.shortcut) == (None, None)
    query_QD = vectors_of(predictor, [3, 9])
    found = open_index(index.folder).search(query_QD, 4)
    np.testing.assert_allclose(found.distance_Qk, brute_force(query_QD, index.vectors[:], 4), rtol=1e-12)


@pytest.mark.usefixtures("quick_coder")
def test_codes_grow_with_the_index_and_are_learned_anew_where_it_has_doubled(
    predictor: Predictor, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path / "a", 0, 30)
    index = build(predictor, model, tmp_path / "a", tmp_path / "index", kind="codes")
    first = (index.folder / index.meta["codes"]["coder"]).read_bytes()
    for more, num, learned in ((10, 40, 30), (20, 60, 60)):
        draw(tmp_path / "a", num - more, more)
        index = add_to_index(open_index(index.folder), predictor, [tmp_path / "a"])
        about = index.meta["codes"]
        assert (about["rows"], about["learned_from"]) == (num, learned)
        assert ((index.folder / about["coder"]).read_bytes() == first) == (learned == 30)
        on_disk = {path.name for path in index.folder.iterdir() if path.name[0] != "."}
        assert on_disk == {"meta.json", *index.meta["files"]}
        assert index.search(vectors_of(predictor, [num - 1]), 1).index_Qk.tolist() == [[num - 1]]
    (tmp_path / "a" / "0003.png").unlink()
    index = add_to_index(open_index(index.folder), predictor, [tmp_path / "a"])
    assert index.meta["codes"]["rows"] == len(index) == 59
    draw(tmp_path / "a", 90, 1)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_with_codes", lambda index: index)  # killed just before
        add_to_index(open_index(index.folder), predictor, [tmp_path / "a"])
    index = open_index(index.folder)
    assert (index.meta["codes"]["rows"], len(index)) == (59, 60)
    found = index.search(vectors_of(predictor, [90]), 1)
    assert Path(index.paths[found.index_Qk[0, 0]]).name == "0090.png"


def test_bits_are_counted_with_either_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    code_NB = np.random.default_rng(0).integers(0, 256, (9, 11), dtype=np.uint8)  # 88 bits: two words of 64
    expected = np.unpackbits(code_NB, axis=1).sum(axis=1).tolist()
    assert module.bits_in(module._in_words(code_NB)).tolist() == expected
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert module.bits_in(module._in_words(code_NB)).tolist() == expected


@pytest.mark.usefixtures("quick_coder")
def test_codes_that_are_not_of_the_index_are_refused(predictor: Predictor, model: Path, tmp_path: Path) -> None:
    draw(tmp_path / "a", 0, 20)
    index = build(predictor, model, tmp_path / "a", tmp_path / "index", kind="codes")
    about = index.meta["codes"]
    for change in (
        {"file": "images-0.jsonl"},
        {"coder": "../x"},
        {"rows": 21},
        {"recall": None},
        {"file": about["coder"]},
    ):
        module.SEAL.write(index.folder, {**index.meta, "codes": about | change})
        with pytest.raises(DataError, match=r"meta\.json: not as this program writes it"):
            open_index(index.folder)
    module.SEAL.write(index.folder, {**index.meta, "kind": "exact"})
    with pytest.raises(DataError, match=r"meta\.json: not as this program writes it"):
        open_index(index.folder)
    np.save(index.folder / about["file"], np.zeros((20, 3), np.uint8))
    module.SEAL.write(index.folder, {**index.meta, "files": module._described(index, about["file"])})
    with pytest.raises(DataError, match="which are not its codes"):
        open_index(index.folder).search(index.vectors[:1], 1)


def test_recall_is_counted_against_exact(predictor: Predictor, model: Path, tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    draw(tmp_path / "a", 0, 130)
    folder = build(predictor, model, tmp_path / "a", tmp_path / "index", kind="ivf").folder
    index = open_index(folder)
    searched = index._faiss
    assert searched.nlist == 2
    searched.nprobe = 1
    recall = module.recall(index, 5)
    # by hand, with the lists that faiss says each vector is in
    base_ND = index.vectors[:].astype(np.float32)
    _, list_N1 = searched.quantizer.search(base_ND, 1)
    distance_NN = ((base_ND[:, None].astype(float) - base_ND[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distance_NN, np.inf)
    true_N5 = np.argsort(distance_NN, axis=1, kind="stable")[:, :5]
    rows = np.sort(module.rng.permutation(0, "search/recall", 0, 130)[: module.RECALL_QUERIES])
    same = (list_N1[true_N5[rows], 0] == list_N1[rows]).sum()
    assert 0 < same < 500
    assert (recall["found"], recall["of"]) == (same, 500)
    assert faiss.__version__ == index.meta["faiss"]["version"]


@pytest.mark.parametrize("kind", ["exact", "ivf", "hnsw"])
def test_adding_gives_what_building_at_once_gives(
    predictor: Predictor, model: Path, tmp_path: Path, kind: Kind
) -> None:
    if kind != "exact":
        pytest.importorskip("faiss")
    for name, first, count in (("a", 0, 20), ("b", 20, 5), ("c", 25, 30)):
        draw(tmp_path / "all" / name, first, count)
    whole = build(predictor, model, tmp_path / "all", tmp_path / "whole", kind=kind)
    index = build(predictor, model, tmp_path / "all" / "a", tmp_path / "grown", kind=kind)
    for name, total in (("b", 25), ("c", 55), ("c", 55)):  # the last is already there
        index = add_to_index(index, predictor, [tmp_path / "all" / name])
        assert len(index) == total
        assert len(list(index.folder.glob("faiss-*"))) == (kind != "exact")
    assert np.array_equal(index.vectors[:], whole.vectors[:])
    query_QD = vectors_of(predictor, [3, 22, 50, 99])
    ours, theirs = index.search(query_QD, 6), open_index(tmp_path / "whole").search(query_QD, 6)
    assert np.array_equal(ours.index_Qk, theirs.index_Qk)
    assert np.array_equal(ours.distance_Qk, theirs.distance_Qk)


def test_many_parts_are_one_matrix(
    predictor: Predictor, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path / "a", 0, 40)
    monkeypatch.setattr(module, "BATCH", 4)
    monkeypatch.setattr(module, "PART", 8)
    index = build(predictor, model, tmp_path / "a", tmp_path / "index")
    assert [part["rows"] for part in index.meta["parts"]] == [8] * 5
    matrix_ND = np.concatenate([np.load(tmp_path / "index" / f"vectors-{i}.npy") for i in range(5)])
    for rows in (slice(None), slice(5, 19), slice(39, 99), np.array([33, 0, 33, 8]), np.empty(0, np.int64)):
        assert np.array_equal(index.vectors[rows], matrix_ND[rows])
    assert Vectors([], 7)[:].shape == (0, 7)


def test_a_changed_file_takes_the_place_of_what_it_was(predictor: Predictor, model: Path, tmp_path: Path) -> None:
    draw(tmp_path / "a", 0, 6)
    index = build(predictor, model, tmp_path / "a", tmp_path / "index")
    draw(tmp_path / "other", 50, 1)
    (tmp_path / "other" / "0050.png").replace(tmp_path / "a" / "0002.png")
    index = add_to_index(index, predictor, [tmp_path / "a"])
    assert len(index) == 7
    found = index.search(vectors_of(predictor, [2, 50]), 10)
    names = [[Path(index.paths[row]).name for row in row_k if row >= 0] for row_k in found.index_Qk.tolist()]
    assert all(sorted(row) == [f"{i:04d}.png" for i in range(6)] for row in names)  # each file once
    assert found.distance_Qk[0, 0] > 1  # the old picture is not there any more
    assert (names[1][0], found.distance_Qk[1, 0] < 0.1) == ("0002.png", True)
    assert (found.index_Qk[:, 6:] == -1).all()
    assert np.isinf(found.distance_Qk[:, 6:]).all()


def test_files_that_cannot_be_read_are_named_and_left_out(predictor: Predictor, model: Path, tmp_path: Path) -> None:
    draw(tmp_path / "a", 0, 3)
    (tmp_path / "a" / "0001.png").write_bytes(b"")
    (tmp_path / "a" / "x\n.jpg").write_bytes(b"no image")
    faults: list[ImageError] = []
    sources = [tmp_path / "a", tmp_path / "absent.png"]
    index = build_index(predictor, sources, tmp_path / "index", model=model, layer=LAYER, on_fault=faults.append)
    assert [Path(path).name for path in index.paths] == ["0000.png", "0002.png"]
    assert {Path(fault.path).name: fault.reason for fault in faults} == {
        "0001.png": "empty",
        "x\n.jpg": "not an image",
        "absent.png": "missing",
    }
    draw(tmp_path / "a", 1, 1)  # repaired: found when added again
    assert len(add_to_index(index, predictor, [tmp_path / "a"])) == 3


def test_an_index_of_nothing_is_refused_and_not_left_behind(predictor: Predictor, model: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "bad.png").write_bytes(b"")
    for source, message in ((tmp_path / "a", "none of the images"), (Path("-"), "standard input")):
        with pytest.raises(AlexNetError, match=message):
            build(predictor, model, source, tmp_path / "index")
        assert not (tmp_path / "index").exists()
    with pytest.raises(UsageError, match="no layer is called 'fc9'; the layers are pixels, c1"):
        build_index(predictor, [tmp_path / "a"], tmp_path / "index", model=model, layer="fc9")
    with pytest.raises(UsageError, match="not empty"):
        build(predictor, model, tmp_path / "a", tmp_path / "a")
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["bad.png"]


def test_another_model_or_precision_is_refused(predictor: Predictor, model: Path, tmp_path: Path) -> None:
    draw(tmp_path / "a", 0, 3)
    index = build(predictor, model, tmp_path / "a", tmp_path / "index")
    other = load(save_model(tmp_path / "other", 1))
    for act in (
        lambda: add_to_index(index, other, [tmp_path / "a"]),
        lambda: query_vectors(index, other, [tmp_path / "a"]),
    ):
        with pytest.raises(UsageError, match="features of another model"):
            act()
    with pytest.raises(UsageError, match="this index was made in float32; pass --precision float32"):
        query_vectors(index, load(model, precision="bfloat16"), [tmp_path / "a"])
    assert len(query_vectors(index, load(model), [tmp_path / "a"])[0]) == 3


@pytest.mark.parametrize("kind", ["exact", "hnsw"])
def test_damage_is_found_before_anything_is_read(predictor: Predictor, model: Path, tmp_path: Path, kind: Kind) -> None:
    if kind == "hnsw":
        pytest.importorskip("faiss")
    draw(tmp_path / "a", 0, 5)
    folder = build(predictor, model, tmp_path / "a", tmp_path / "index", kind=kind).folder
    names = sorted(file.name for file in folder.iterdir())
    assert names == sorted(["images-0.jsonl", "meta.json", "vectors-0.npy"] + ["faiss-5.index"] * (kind == "hnsw"))
    for name in names:
        content = (folder / name).read_bytes()
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        for damaged in (content[:-2], flipped):
            (folder / name).write_bytes(damaged)
            with pytest.raises(DataError, match=name):
                open_index(folder)
        (folder / name).unlink()
        with pytest.raises(DataError, match="missing" if name != "meta.json" else "holds no index"):
            open_index(folder)
        (folder / name).write_bytes(content)
    assert len(open_index(folder)) == 5


def test_a_folder_that_is_no_index_is_refused(tmp_path: Path) -> None:
    for content in ('{"format": "alexnet packed set"}', "[]"):
        (tmp_path / "meta.json").write_text(content)
        with pytest.raises(DataError, match="not that of an index"):
            open_index(tmp_path)


def test_meta_cannot_point_outside_the_folder(predictor: Predictor, model: Path, tmp_path: Path) -> None:
    draw(tmp_path / "a", 0, 2)
    index = build(predictor, model, tmp_path / "a", tmp_path / "index")
    secret = tmp_path / "secret"
    secret.write_bytes(b"x")
    files = {**index.meta["files"], "../secret": {"bytes": 1, "sha256": hashlib.sha256(b"x").hexdigest()}}
    (part,) = index.meta["parts"]
    for change in (
        {"files": files},
        {"parts": [part | {"images": "../secret"}], "files": files},
        {"parts": [part | {"images": "/dev/zero"}]},
        {"parts": [part | {"vectors": "../index/vectors-0.npy"}]},
    ):
        module.SEAL.write(index.folder, {**index.meta, **change})
        with pytest.raises(
            DataError, match=r"(not as this program writes it|'../secret' is no file of an index); build"
        ):
            open_index(index.folder)


@pytest.mark.parametrize(
    "change",
    [
        {"files": {}},
        {"files": []},
        {"files": None},
        {"parts": 5},
        {"parts": [5]},
        {"parts": [{"vectors": "vectors-0.npy", "images": "vectors-0.npy", "rows": 2}]},
        {"parts": [{"vectors": "vectors-0.npy", "images": ["images-0.jsonl"], "rows": 2}]},
        {"parts": [{"vectors": "vectors-0.npy", "images": "images-0.jsonl", "rows": -2}]},
        {"parts": [{"vectors": "vectors-0.npy", "images": "images-0.jsonl", "rows": True}]},
        {"parts": [{"vectors": "vectors-0.npy", "images": "images-0.jsonl"}]},
        {"dimension": "x"},
        {"dimension": 0},
        {"model": 5},
        {"layer": []},
        {"kind": "slow"},
        {"precision": "float8"},
        {"network": None},
        {"faiss": 5},
    ],
    ids=str,
)
def test_a_meta_file_with_a_fitting_checksum_that_is_not_ours_is_refused(
    predictor: Predictor, model: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    draw(tmp_path / "a", 0, 2)
    index = build(predictor, model, tmp_path / "a", tmp_path / "index")
    for kind in ("exact", "hnsw"):
        module.SEAL.write(index.folder, {**index.meta, "kind": kind, **change})
        with pytest.raises(DataError, match=r"meta\.json: not as this program writes it"):
            open_index(index.folder)
    module.SEAL.write(index.folder, {key: value for key, value in index.meta.items() if key not in change})
    with pytest.raises(DataError, match=r"meta\.json: not as this program writes it"):
        open_index(index.folder)


def test_what_faiss_is_to_read_is_a_file_of_the_index(predictor: Predictor, model: Path, tmp_path: Path) -> None:
    draw(tmp_path / "a", 0, 2)
    index = build(predictor, model, tmp_path / "a", tmp_path / "index")
    (index.folder / "faiss-2.index").write_bytes(b"x")
    recall = dict.fromkeys(("at", "found", "of", "queries", "recall"), 1)
    sound = {"file": "faiss-2.index", "rows": 2, "learned_from": 2, "version": "1", "recall": recall}
    meta = {**index.meta, "files": module._described(index, "faiss-2.index"), "kind": "hnsw"}
    module.SEAL.write(index.folder, {**meta, "faiss": sound})
    assert len(open_index(index.folder)) == 2
    for change in (
        {"kind": "exact"},
        {"faiss": sound | {"file": "images-0.jsonl"}},
        {"faiss": sound | {"file": "../a/0000.png"}},
        {"faiss": sound | {"rows": 3}},
        {"faiss": sound | {"recall": recall | {"at": "ten"}}},
        {"faiss": sound | {"recall": None}},
        {"files": index.meta["files"]},
    ):
        module.SEAL.write(index.folder, {**meta, "faiss": sound, **change})
        with pytest.raises(DataError, match=r"meta\.json: not as this program writes it"):
            open_index(index.folder)


@pytest.mark.parametrize("lines", [1, 3])
def test_lists_that_are_not_of_all_vectors_are_refused(
    predictor: Predictor, model: Path, tmp_path: Path, lines: int
) -> None:
    draw(tmp_path / "a", 0, 2)
    index = build(predictor, model, tmp_path / "a", tmp_path / "index")
    file, (part,) = index.folder / "images-0.jsonl", index.meta["parts"]
    module.SEAL.write(index.folder, {**index.meta, "parts": [part | {"rows": lines}]})
    with pytest.raises(DataError, match=rf"2 vectors for {lines} rows; build the index again"):
        _ = open_index(index.folder).vectors
    file.write_text("".join((file.read_text().splitlines(keepends=True) * 2)[:lines]))
    module.SEAL.write(index.folder, {**index.meta, "files": module._described(index, file.name)})
    with pytest.raises(DataError, match=rf"{lines} images for 2 rows; build the index again"):
        _ = open_index(index.folder).images


def test_an_index_that_was_interrupted_before_its_first_part_is_gone_on_with(
    predictor: Predictor, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path / "a", 0, 3)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_with_part", stop)
        with pytest.raises(KeyboardInterrupt):
            build(predictor, model, tmp_path / "a", tmp_path / "index")
    index = open_index(tmp_path / "index")
    with pytest.raises(DataError, match=r"index: holds no images yet; go on with `alexnet index --add`"):
        index.search(vectors_of(predictor, [0]), 2)
    assert len(add_to_index(index, predictor, [tmp_path / "a"])) == 3


def test_an_index_that_came_to_nothing_leaves_a_link_to_a_folder_as_it_was(
    predictor: Predictor, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "bad.png").write_bytes(b"")
    (tmp_path / "far").mkdir()
    (tmp_path / "index").symlink_to("far")
    with pytest.raises(DataError, match="none of the images could be read"):
        build(predictor, model, tmp_path / "a", tmp_path / "index")
    assert list((tmp_path / "index").iterdir()) == []
    draw(tmp_path / "a", 0, 2)
    assert len(build(predictor, model, tmp_path / "a", tmp_path / "index")) == 2
    assert (tmp_path / "index").is_symlink()


def test_queries_of_another_shape_are_refused(predictor: Predictor, model: Path, tmp_path: Path) -> None:
    draw(tmp_path / "a", 0, 2)
    index = build(predictor, model, tmp_path / "a", tmp_path / "index")
    dim = index.meta["dimension"]
    for query_QD in (np.zeros((1, dim + 1)), np.zeros(dim), np.full((1, dim), np.nan)):
        with pytest.raises(UsageError, match="queries are"):
            index.search(query_QD, 1)
    assert index.search(np.zeros((1, dim)), 1 << 60).index_Qk.shape == (1, 2)  # no more room than there are images
    with pytest.raises(UsageError, match="k is 0"):
        index.search(np.zeros((1, dim)), 0)


KILLED = """
import os, signal, sys
import torch
from alexnet.core.sealed import Seal
from alexnet.data import inside
from alexnet.evaluation.predict import load
from alexnet.probes import search
torch.set_num_threads(1)
search.BATCH, search.PART = 4, 8
model, source, folder, what = sys.argv[1:]
original = Seal.write
def stop(*given):
    if what == "before meta.json":
        os.kill(os.getpid(), signal.SIGKILL)
    original(*given)
    os.kill(os.getpid(), signal.SIGKILL)
Seal.write = stop
search.add_to_index(search.open_index(folder), load(model), [source])
"""


@pytest.mark.parametrize(("when", "rows"), [("before meta.json", 3), ("after meta.json", 11)])
def test_killed_while_adding_the_index_is_whole_and_adding_goes_on(
    predictor: Predictor, model: Path, tmp_path: Path, when: str, rows: int
) -> None:
    draw(tmp_path / "a", 0, 3)
    before = build(predictor, model, tmp_path / "a", tmp_path / "index")
    draw(tmp_path / "a", 3, 20)
    given = [str(model), str(tmp_path / "a"), str(before.folder), when]
    done = subprocess.run([sys.executable, "-c", KILLED, *given], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    index = open_index(before.folder)
    assert len(index) == rows
    assert np.array_equal(index.vectors[:3], before.vectors[:])
    assert index.search(vectors_of(predictor, [1]), 1).index_Qk.tolist() == [[1]]
    assert (before.folder / "vectors-1.npy").exists()  # named by meta.json or not
    index = add_to_index(index, predictor, [tmp_path / "a"])
    assert [Path(path).name for path in index.paths] == [f"{i:04d}.png" for i in range(23)]
    assert open_index(before.folder).meta == index.meta
    assert {file.name for file in before.folder.iterdir()} == {"meta.json", *index.meta["files"]}


def test_vectors_that_faiss_does_not_yet_hold_are_found(
    predictor: Predictor, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faiss")
    draw(tmp_path / "a", 0, 20)
    index = build(predictor, model, tmp_path / "a", tmp_path / "index", kind="hnsw")
    draw(tmp_path / "b", 20, 5)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_with_faiss", lambda index: index)  # killed just before
        add_to_index(index, predictor, [tmp_path / "b"])
    index = open_index(index.folder)
    assert (index.meta["faiss"]["rows"], len(index)) == (20, 25)
    query_QD = vectors_of(predictor, [3, 22])
    found = index.search(query_QD, 8)
    assert found.index_Qk[:, 0].tolist() == [3, 22]
    np.testing.assert_allclose(found.distance_Qk, brute_force(query_QD, index.vectors[:], 8), rtol=1e-12)


def test_one_process_adds_at_a_time(predictor: Predictor, model: Path, tmp_path: Path) -> None:
    draw(tmp_path / "a", 0, 2)
    index = build(predictor, model, tmp_path / "a", tmp_path / "index")
    with alone(index.folder), pytest.raises(AlexNetError, match="another process is writing to it"):
        add_to_index(index, predictor, [tmp_path / "a"])


def test_without_faiss_the_extra_is_named(
    predictor: Predictor, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    draw(tmp_path / "a", 0, 2)
    with pytest.raises(AlexNetError, match=r'pip install "alexnet\[probe\]"'):
        build(predictor, model, tmp_path / "a", tmp_path / "index", kind="ivf")
    assert not (tmp_path / "index").exists()
    assert len(build(predictor, model, tmp_path / "a", tmp_path / "index")) == 2


def pack(path: Path, numbers: Iterable[int]) -> Path:
    """The drawn pictures of these numbers in an archive, by its suffix, in Chinese folders."""
    draw(folder := path.parent / f"for {path.name}", 0, 12)
    with tarfile.open(path, "w:gz") if path.suffix == ".gz" else zipfile.ZipFile(path, "w") as archive:
        for i in numbers:
            add = archive.add if isinstance(archive, tarfile.TarFile) else archive.write
            add(folder / f"{i:04d}.png", f"猫/{i:04d}.png")
    return path


@pytest.mark.parametrize("name", ["照片.zip", "photos.tar.gz"])
def test_an_archive_is_indexed_in_place_and_brought_up_to_date(
    name: str, predictor: Predictor, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(tmp_path / name, range(4))
    monkeypatch.chdir(tmp_path)
    index = build(predictor, model, Path(name), tmp_path / "index")
    assert index.paths == [f"{path}/猫/{i:04d}.png" for i in range(4)]
    same = vectors_of(predictor, list(range(4)))
    np.testing.assert_allclose(index.vectors[:].astype(float), same.astype(float), atol=1e-3)

    with monkeypatch.context() as patch:
        patch.setattr(inside, "members", None)  # an archive that is as it was is not even listed
        assert add_to_index(index, predictor, [], everywhere=True).meta == index.meta

    pack(path, [1, 2, 3, 8])  # 0 is gone, 8 is new, and the others are read again
    gone: list[str] = []
    updated = add_to_index(index, predictor, [], everywhere=True, on_gone=gone.append)
    assert gone == [f"{path}/猫/0000.png"]
    assert updated.paths == [f"{path}/猫/{i:04d}.png" for i in (1, 2, 3)]  # without those that they replace
    assert updated.search(same[1:2], 3).index_Qk[0, 0] == 0
    added = add_to_index(open_index(index.folder), predictor, [path])
    assert added.paths == [f"{path}/猫/{i:04d}.png" for i in (1, 2, 3, 8)]

    path.unlink()
    faults: list[ImageError] = []
    assert len(add_to_index(added, predictor, [path], on_fault=faults.append)) == len(added)  # perhaps not mounted
    assert [(fault.path, fault.reason) for fault in faults] == [(str(path), "missing")]
    assert len(add_to_index(added, predictor, [], everywhere=True)) == 0


def test_rows_of_parquet_files_are_indexed(predictor: Predictor, model: Path, tmp_path: Path) -> None:
    parquet, pyarrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    draw(tmp_path / "a", 0, 3)
    (tmp_path / "set").mkdir()
    rows = [path.read_bytes() for path in sorted((tmp_path / "a").iterdir())]
    parquet.write_table(pyarrow.table({"image": rows}), tmp_path / "set" / "train.parquet")
    index = build(predictor, model, tmp_path / "set", tmp_path / "index")
    assert index.paths == [f"{tmp_path}/set/train.parquet/{row:06d}" for row in range(3)]
    found = index.search(query_vectors(index, predictor, [index.paths[2]])[1], 1)
    assert (found.index_Qk.tolist(), found.distance_Qk.tolist()) == ([[2]], [[0.0]])


def test_a_hit_in_an_archive_is_shown_and_can_be_searched_for(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out, picture = pack(tmp_path / "照片.zip", range(4)), str(tmp_path / "index"), tmp_path / "found.png"
    assert cli.index([str(model), str(path), "--out", out, "--layer", LAYER]) == 0
    query = f"{path}/猫/0002.png"
    capsys.readouterr()
    assert cli.search([out, query, "--top", "3", "--picture", str(picture), "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["searches"]
    assert (answer["query"], answer["results"][0]) == (query, {"path": query, "distance": 0.0, "gone": False})
    drawn = picture.read_bytes()
    pack(path, [1, 2])
    assert cli.search([out, query, "--top", "4", "--json", "--picture", str(picture)]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["searches"]
    assert {Path(match["path"]).name for match in answer["results"] if match["gone"]} == {"0000.png", "0003.png"}
    assert len(picture.read_bytes()) < len(drawn)  # they are left blank
    path.write_bytes(path.read_bytes()[:300])
    assert cli.search([out, str(tmp_path / "for 照片.zip" / "0002.png"), "--top", "4"]) == 0
    said = capsys.readouterr()
    assert said.out.count("(no longer there)") == 4


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-30]), "not a readable zip archive"),
        (lambda path: zipfile.ZipFile(path, "w").writestr("a.txt", "x"), "no image files in this archive"),
    ],
)
def test_an_archive_that_cannot_be_read_is_refused_before_anything_changes(
    spoil: Any, said: str, predictor: Predictor, model: Path, tmp_path: Path
) -> None:
    path = pack(tmp_path / "photos.zip", range(2))
    index = build(predictor, model, path, tmp_path / "index")
    spoil(path)
    with pytest.raises(DataError, match=said):
        build(predictor, model, path, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    for named, everywhere in (([path], False), ([], True)):
        with pytest.raises(DataError, match=said):
            add_to_index(index, predictor, named, everywhere=everywhere)
    assert open_index(index.folder).meta == index.meta


def test_the_commands(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(tmp_path / "a", 0, 5)
    (tmp_path / "a" / "bad.png").write_bytes(b"")
    out = str(tmp_path / "index")
    assert cli.index([str(model), str(tmp_path / "a"), "--out", out, "--layer", LAYER, "--json"]) == 4
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert (document["images"], document["added"], document["left_out"]) == (5, 5, [str(tmp_path / "a" / "bad.png")])
    assert captured.err.count("bad.png: empty") == 1
    (tmp_path / "a" / "bad.png").unlink()
    draw(tmp_path / "b", 5, 2)
    assert cli.index([str(model), str(tmp_path / "a"), str(tmp_path / "b"), "--out", out, "--add"]) == 0
    assert "2 images added, 0 left out; 7 in all" in capsys.readouterr().out

    query = str(tmp_path / "b" / "0006.png")
    picture = tmp_path / "found.png"
    (tmp_path / "a" / "0001.png").unlink()  # shown as not readable
    assert cli.search([out, query, str(tmp_path / "no.png"), "--top", "7", "--picture", str(picture), "--json"]) == 4
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    (answer,) = document["searches"]
    assert (answer["query"], answer["results"][0]) == (query, {"path": query, "distance": 0.0, "gone": False})
    assert [Path(r["path"]).name for r in answer["results"] if r["gone"]] == ["0001.png"]
    assert len(answer["results"]) == 7
    assert "no.png: missing" in captured.err
    with Image.open(picture) as image:
        assert image.width > 7 * 100
    assert cli.search([out, query, "--top", "2", "--model", str(model)]) == 0
    assert f"  0  {query}" in capsys.readouterr().out


def test_wrong_commands(model: Path, tmp_path: Path) -> None:
    draw(tmp_path / "a", 0, 2)
    out = str(tmp_path / "index")
    cli.index([str(model), str(tmp_path / "a"), "--out", out, "--layer", LAYER, "--json"])
    query = str(tmp_path / "a" / "0000.png")
    add = [str(model), str(tmp_path / "a"), "--out", out, "--add"]
    assert cli.index([*add, "--layer", LAYER, "--kind", "exact", "--json"]) == 0
    for verb, given, message in (
        (cli.index, [str(model), "--out", out], "needs folders"),
        (cli.index, [str(model), str(tmp_path / "a"), "--out", out, "--layer", LAYER], "--add"),
        (cli.index, [*add, "--layer", "c3"], f"--layer is c3, and .*index was built with {LAYER}; leave it out"),
        (cli.index, [*add, "--layer", LAYER, "--kind", "ivf"], "--kind is ivf, and .*index was built with exact"),
        (cli.index, [*add, "--metric", "euclidean"], "--metric is euclidean, and .*index was built with cosine"),
        (
            cli.index,
            [str(model), out, "--out", f"{out}-2", "--layer", "output", "--kind", "codes"],
            "output has 3 numbers",
        ),
        (cli.index, [*add, "--precision", "bfloat16"], "--precision is bfloat16, and .*index was built with float32"),
        (cli.search, [out], "needs images"),
        (cli.search, [out, query, "--top", "0"], "--top is 0"),
        (cli.search, [out, "-", "--picture", "p.png"], "standard input"),
        (cli.search, [out, query, "--model", str(tmp_path / "gone")], "say with --model"),
        (cli.search, [str(tmp_path / "a"), query], "holds no index"),
    ):
        with pytest.raises(AlexNetError, match=message):
            verb(given)


def test_the_benchmark_runs_at_a_small_size(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    script = Path(__file__).parents[2] / "benchmarks" / "search.py"
    given = ["--n", "1500", "--folder", str(tmp_path), "--out", str(tmp_path / "search.json")]
    done = subprocess.run([sys.executable, str(script), *given], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "search.json").read_text())
    assert (document["n"], document["dimensions"]) == (1500, 4096)
    recalls = [row["recall_at_10"] for row in document["recall"]]
    assert recalls == sorted(recalls)
    assert recalls[-1] > 0.9
    assert [path.name for path in tmp_path.iterdir()] == ["search.json"]


@pytest.mark.parametrize("kind", ["exact", "ivf"])
def test_what_is_gone_from_a_folder_is_taken_out_and_the_rest_stays(
    kind: Kind, predictor: Predictor, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind != "exact":
        pytest.importorskip("faiss")
    monkeypatch.setattr(module, "PART", 8)
    draw(tmp_path / "a", 0, 20)
    draw(tmp_path / "b", 20, 4)
    index = build_index(
        predictor, [tmp_path / "a", tmp_path / "b"], tmp_path / "index", model=model, layer=LAYER, kind=kind
    )
    (tmp_path / "a" / "0003.png").unlink()
    (tmp_path / "a" / "0005.png").rename(tmp_path / "a" / "renamed.png")
    (tmp_path / "b").rename(tmp_path / "elsewhere")  # as a disk that is not mounted
    gone: list[str] = []
    index = add_to_index(index, predictor, [tmp_path / "a"], on_gone=gone.append)
    assert [Path(path).name for path in gone] == ["0003.png", "0005.png"]
    index = open_index(tmp_path / "index")
    numbers = {f"{i:04d}.png": i for i in range(24)} | {"renamed.png": 5}
    assert sorted(Path(path).name for path in index.paths) == sorted(numbers.keys() - {"0003.png", "0005.png"})
    expected = vectors_of(predictor, [numbers[Path(path).name] for path in index.paths])
    np.testing.assert_allclose(index.vectors[:].astype(float), expected.astype(float), atol=1e-3)
    found = index.search(vectors_of(predictor, [5, 7]), 1)
    assert [Path(index.paths[i]).name for i in found.index_Qk[:, 0]] == ["renamed.png", "0007.png"]
    named = {"meta.json", *index.meta["files"]}
    assert {path.name for path in (tmp_path / "index").iterdir() if path.name[0] != "."} == named
    again = add_to_index(index, predictor, [tmp_path / "a"], on_gone=gone.append)
    assert (len(again), len(gone)) == (len(index), 2)


def test_everywhere_what_is_gone_or_changed_is_found_in_all_files_of_the_index(
    predictor: Predictor, model: Path, tmp_path: Path
) -> None:
    for name, first in (("a", 0), ("b", 3), ("c", 6)):
        draw(tmp_path / name, first, 3)
    sources = [tmp_path / name for name in "abc"]
    index = build_index(predictor, sources, tmp_path / "index", model=model, layer=LAYER)
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "b" / "0004.png").unlink()
    draw(tmp_path / "other", 50, 1)
    (tmp_path / "other" / "0050.png").replace(tmp_path / "c" / "0007.png")
    gone: list[str] = []
    index = add_to_index(index, predictor, [], everywhere=True, on_gone=gone.append)
    assert [Path(path).name for path in gone] == ["0000.png", "0001.png", "0002.png", "0004.png"]
    found = index.search(vectors_of(predictor, [50]), 9)
    names = [Path(index.paths[row]).name for row in found.index_Qk[0].tolist() if row >= 0]
    assert (names[0], sorted(names)) == ("0007.png", ["0003.png", "0005.png", "0006.png", "0007.png", "0008.png"])
    assert found.distance_Qk[0, 0] < 1e-6


def test_a_folder_without_images_and_a_missing_one_take_nothing_out(
    predictor: Predictor, model: Path, tmp_path: Path
) -> None:
    draw(tmp_path / "a", 0, 3)
    index = build(predictor, model, tmp_path / "a", tmp_path / "index")
    for path in (tmp_path / "a").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="no image files in this folder"):
        add_to_index(index, predictor, [tmp_path / "a"])
    (tmp_path / "a").rmdir()
    faults: list[ImageError] = []
    assert len(add_to_index(index, predictor, [tmp_path / "a"], on_fault=faults.append)) == 3
    assert len(faults) == 1


def test_a_kill_while_rows_are_taken_out_leaves_the_index_as_it_was(
    predictor: Predictor, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path / "a", 0, 5)
    index = build(predictor, model, tmp_path / "a", tmp_path / "index")
    (tmp_path / "a" / "0003.png").unlink()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Seal, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            add_to_index(index, predictor, [tmp_path / "a"])
    assert len(open_index(tmp_path / "index")) == 5
    assert len(add_to_index(index, predictor, [tmp_path / "a"])) == 4
