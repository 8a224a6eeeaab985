"""Short codes: coders against implementations written out, measures against all orders of ties, files, the command."""

from __future__ import annotations

import itertools
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from alexnet.cli.probe import probe
from alexnet.core import rng
from alexnet.core.errors import AlexNetError, DataError, UsageError
from alexnet.core.preprocessing import Preprocessing
from alexnet.data.prepare import prepare
from alexnet.models import create_model
from alexnet.models.folder import save_model_folder
from alexnet.probes import autoencoder, codes
from alexnet.probes.autoencoder import train_encoder
from alexnet.probes.codes import (
    Coder,
    Kind,
    Task,
    TrainingVectors,
    Vectors,
    code_index,
    compare,
    expected_hits,
    fit,
    float_index,
    load_coder,
    mean_average_precisions,
    quality,
    require_bits,
    thumbnails,
)
from alexnet.report.pictures import save_figure
from alexnet.report.pictures.codes import draw_codes


def run(arguments: list[str]) -> int:
    return probe(["codes", *arguments])


KINDS: tuple[Kind, ...] = ("hyperplanes", "itq", "autoencoder")
Array = NDArray[Any]


def curved(num: int, seed: int = 0, num_units: int = 40) -> NDArray[np.float32]:
    """Vectors on a curved surface of two dimensions, off the origin."""
    random = np.random.default_rng(7)
    turn, push = random.standard_normal((2, num_units)), random.uniform(0, 6, num_units)
    at = np.random.default_rng(seed).uniform(-2, 2, (num, 2))
    return np.asarray(5 + 3 * np.sin(at @ turn + push), dtype=np.float32)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoencoder, "STEPS", 12)
    monkeypatch.setattr(codes, "TIMED_QUERIES", 5)


# --- measures -------------------------------------------------------------------------------------------------------


def in_all_orders(distance: Array, relevant: Array) -> list[Array]:
    """The relevance of a ranking in each order of its ties."""
    runs = [relevant[distance == d] for d in np.unique(distance)]
    orders = itertools.product(*(itertools.permutations(run) for run in runs))
    return [np.array([r for run in order for r in run]) for order in orders]


def average_precision(relevant: Array) -> float:
    places = np.flatnonzero(relevant)
    return float(np.mean([(i + 1) / (place + 1) for i, place in enumerate(places)]))


@pytest.mark.parametrize("levels", [1, 2, 3, 5])
def test_ties_count_as_the_mean_over_all_their_orders(levels: int) -> None:
    random = np.random.default_rng(levels)
    distance_QN = np.sort(random.integers(0, levels, (6, 7)), axis=1)
    relevant_QN = random.random((6, 7)) < 0.5
    relevant_QN[:, 3] = True
    relevant_QN[0] = True
    found_Q = mean_average_precisions(distance_QN, relevant_QN)
    for q in range(6):
        orders = in_all_orders(distance_QN[q], relevant_QN[q])
        assert found_Q[q] == pytest.approx(np.mean([average_precision(order) for order in orders]), abs=1e-12)
        for rank in (1, 3, 7):
            hits = expected_hits(distance_QN, relevant_QN, rank)[q]
            assert hits == pytest.approx(np.mean([order[:rank].sum() for order in orders]), abs=1e-12)


def test_average_precision_by_hand() -> None:
    # relevant at places 1 and 4 of 5: (1/1 + 2/4) / 2 = 0.75
    relevant = np.array([[True, False, False, True, False]])
    assert mean_average_precisions(np.arange(5)[None], relevant) == pytest.approx([0.75])
    # the last two at one distance: place 4 or 5, (1/1 + (2/4 + 2/5) / 2) / 2 = 0.725
    assert mean_average_precisions(np.array([[0, 1, 2, 3, 3]]), relevant) == pytest.approx([0.725])


def test_average_precision_is_that_of_scikit_learn_where_nothing_is_tied() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(0)
    distance_QN, relevant_QN = np.sort(random.random((20, 300)), axis=1), random.random((20, 300)) < 0.1
    found_Q = mean_average_precisions(distance_QN, relevant_QN)
    theirs = [metrics.average_precision_score(r, -d) for d, r in zip(distance_QN, relevant_QN, strict=True)]
    np.testing.assert_allclose(found_Q, theirs, rtol=1e-12)


def test_figures_of_a_search_are_those_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    code_NW, code_QW = (random.integers(0, 256, (n, 1), dtype=np.uint8) for n in (150, 9))
    label_N, label_Q = random.integers(0, 3, 150), np.arange(9) % 3
    neighbor_QR = np.stack([random.permutation(150)[:100] for _ in range(9)])
    own_QR = np.stack([random.permutation(150)[:100] for _ in range(9)])
    expected: dict[str, list[float]] = {}
    for q in range(9):
        distance = np.array([bin(int(a) ^ int(code_QW[q, 0])).count("1") for a in code_NW[:, 0]])

        def mean_over_ties(wanted: Array, rank: int, distance: Array = distance) -> float:
            """Of how many wanted items are among the first: each is there with the chance that is left for its distance."""
            chances = [
                np.clip((rank - (distance < d).sum()) / (distance == d).sum(), 0, 1) for d in distance[wanted].tolist()
            ]
            return float(sum(chances))

        for rank in (10, 100):
            row = {
                f"precision_{rank}": mean_over_ties(np.flatnonzero(label_N == label_Q[q]), rank) / rank,
                f"recall_{rank}": mean_over_ties(neighbor_QR[q, :rank], rank) / rank,
                f"own_recall_{rank}": mean_over_ties(own_QR[q, :rank], rank) / rank,
            }
            for name, value in row.items():
                expected.setdefault(name, []).append(value)
    task = Task(label_N, label_Q, neighbor_QR)
    found = quality(code_index(code_NW), code_QW, task, own_QR)
    assert found.keys() - expected.keys() == {"mean_average_precision"}
    for name, values in expected.items():
        assert found[name] == pytest.approx(np.mean(values), abs=1e-12), name
    monkeypatch.setattr(codes, "CHUNK", 300)  # two queries at a time
    assert quality(code_index(code_NW), code_QW, task, own_QR) == pytest.approx(found, abs=1e-12)


def test_float_search_finds_its_own_neighbors() -> None:
    base, query = curved(120), curved(8, seed=1)
    index = float_index(base)
    by_hand = np.argsort(((query[:, None] - base[None]) ** 2).sum(axis=2), axis=1)[:, :100]
    found = quality(index, query, Task(np.arange(120) % 2, np.arange(8) % 2, by_hand))
    assert found["recall_10"] == found["recall_100"] == 1


# --- coders ---------------------------------------------------------------------------------------------------------


def test_random_hyperplanes_differ_in_angle_over_pi_of_their_bits() -> None:
    # vectors at known angles around the mean, which is not 0
    angles = np.array([0, 0.3, 1.0, np.pi / 2, 2.5])
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    space = np.linalg.qr(np.random.default_rng(0).standard_normal((512, 2)))[0]
    vector_ND = (np.concatenate([circle, -circle, *[np.zeros((502, 2))]]) @ space.T + 40).astype(np.float32)
    vectors = TrainingVectors(vector_ND)
    shares = []
    for seed in range(8):
        bits = np.unpackbits(fit("hyperplanes", vectors, 512, seed).encode(vector_ND[:5]), axis=1)
        shares.append((bits != bits[0]).mean(axis=1))
    np.testing.assert_allclose(np.mean(shares, axis=0), angles / np.pi, atol=0.03)  # 4,096 bits: sigma 0.008


def test_more_hyperplanes_begin_with_the_fewer() -> None:
    vectors = TrainingVectors(curved(64))
    few, many = (fit("hyperplanes", vectors, bits, 5).encode(vectors.vector_ND) for bits in (16, 32))
    assert (many[:, :2] == few).all()


def quantization_loss(turned_NK: Array) -> float:
    return float(((turned_NK - np.where(turned_NK < 0, -1.0, 1.0)) ** 2).sum())


def test_itq_is_the_alternation_of_the_paper() -> None:
    procrustes = pytest.importorskip("scipy.linalg").orthogonal_procrustes
    x_ND = curved(400)
    vectors = TrainingVectors(x_ND)
    coder = fit("itq", vectors, 16, seed=4)
    basis_KD = vectors.basis_PD[:16].astype(np.float64)
    rotation_KK = coder.layers[0][0].astype(np.float64) @ basis_KD.T
    np.testing.assert_allclose(rotation_KK @ rotation_KK.T, np.eye(16), atol=1e-5)

    # Gong and Lazebnik 2011, §3.2, with SciPy's solution of the Procrustes problem, from the same first rotation
    v_NK = (x_ND - x_ND.mean(axis=0, dtype=np.float64)) @ basis_KD.T
    r_KK = np.linalg.qr(rng.normal(4, "itq", 0, np.arange(16), 16))[0]
    losses = [quantization_loss(v_NK @ r_KK)]
    for _ in range(50):
        r_KK, _ = procrustes(v_NK, np.where(v_NK @ r_KK < 0, -1.0, 1.0))
        losses.append(quantization_loss(v_NK @ r_KK))
    assert (np.diff(losses) <= 1e-9 * losses[0]).all()
    assert losses[-1] < 0.99 * losses[0]
    assert quantization_loss(v_NK @ rotation_KK.T) == pytest.approx(losses[-1], rel=1e-4)
    ours, theirs = np.unpackbits(coder.encode(x_ND), axis=1), (v_NK @ r_KK) > 0
    assert (ours == theirs).mean() > 0.999


def test_itq_finds_the_corners_that_the_vectors_were_made_from() -> None:
    # Corners of a cube, turned in space: bits are the corners', but for their order and sign.
    random = np.random.default_rng(5)
    corner_NK = random.choice([-1.0, 1.0], size=(600, 8))
    turn_DK = np.linalg.qr(random.standard_normal((24, 8)))[0]
    x_ND = (corner_NK @ turn_DK.T + 0.05 * random.standard_normal((600, 24)) + 3).astype(np.float32)
    best = 0.0
    for seed in range(3):  # it may stop in a worse place, as alternations do
        bits_NK = 2.0 * np.unpackbits(fit("itq", TrainingVectors(x_ND), 8, seed).encode(x_ND), axis=1) - 1
        best = max(best, float(np.abs(bits_NK.T @ corner_NK / 600).max(axis=1).min()))
    assert best == 1


def test_basis_is_that_of_the_covariance() -> None:
    x_ND = curved(200)
    vectors = TrainingVectors(x_ND)
    values, directions = np.linalg.eigh(np.cov(x_ND.T.astype(np.float64)))
    basis_PD = vectors.basis_PD[:8]
    np.testing.assert_allclose(np.abs(basis_PD @ directions[:, ::-1][:, :8]), np.eye(8), atol=1e-3)
    np.testing.assert_allclose(vectors.projected_NP.var(axis=0, ddof=1)[:8], values[::-1][:8], rtol=1e-4)


@pytest.mark.usefixtures("quick")
def test_the_autoencoder_is_folded_into_two_layers() -> None:
    vectors = TrainingVectors(curved(150))
    coder = fit("autoencoder", vectors, 16, seed=2)
    (first, first_bias), (second, second_bias) = train_encoder(vectors.projected_NP, 16, 2)
    x_ND = curved(60, seed=9)
    projected = (x_ND - vectors.mean_D) @ vectors.basis_PD.T
    score = np.maximum(projected @ first.T + first_bias, 0) @ second.T + second_bias
    sure = np.abs(score) > 1e-4
    assert sure.mean() > 0.99
    assert (np.unpackbits(coder.encode(x_ND), axis=1) == (score > 0))[sure].all()
    assert [weight.shape for weight, _ in coder.layers] == [(512, 40), (16, 512)]


def test_the_autoencoder_learns_a_curved_surface() -> None:
    # Bits of a plane that is laid over a curved surface keep less of who is near whom.
    base, query = curved(500), curved(60, seed=1)
    neighbor_QR = float_index(base).search(query, 100)[1]
    task = Task(np.zeros(500, dtype=np.int64), np.zeros(60, dtype=np.int64), neighbor_QR)
    vectors = TrainingVectors(base)
    recall = {}
    for kind in KINDS:
        coder = fit(kind, vectors, 16, seed=0)
        recall[kind] = quality(code_index(coder.encode(base)), coder.encode(query), task)["recall_100"]
    assert recall["autoencoder"] > recall["hyperplanes"] + 0.1
    assert recall["autoencoder"] > recall["itq"]


@pytest.mark.usefixtures("quick")
def test_scale_of_the_vectors_does_not_matter_to_the_autoencoder() -> None:
    x_ND = curved(100)
    small, large = (fit("autoencoder", TrainingVectors(x_ND * s), 8, 0).encode(x_ND * s) for s in (1, 1024))
    assert (small == large).mean() > 0.99


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_codes_other_seed_other_codes(kind: Kind) -> None:
    x_ND = curved(100)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[union-attr]  # noqa: NPY002
    torch.rand(3)
    first = fit(kind, TrainingVectors(x_ND), 32, 1).encode(x_ND)
    torch.rand(3)
    again, other = (fit(kind, TrainingVectors(x_ND), 32, seed).encode(x_ND) for seed in (1, 2))
    assert (first == again).all()
    assert (first != other).any()
    torch.set_rng_state(state)
    fit(kind, TrainingVectors(x_ND), 32, 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()  # type: ignore[union-attr]  # noqa: NPY002


def hand_made() -> Coder:
    """Bit i: whether |x0| > i - 4, through a ReLU."""
    fold = np.array([[1, 0], [-1, 0]], dtype=np.float32)
    return Coder(
        "autoencoder",
        0,
        (
            (fold, np.zeros(2, dtype=np.float32)),
            (np.ones((8, 2), dtype=np.float32), 4 - np.arange(8, dtype=np.float32)),
        ),
    )


def test_codes_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x_ND = np.array([[0, 9], [1.5, 9], [-1.5, 9], [-20, 9]], dtype=np.float32)
    assert hand_made().encode(x_ND)[:, 0].tolist() == [0b11110000, 0b11111100, 0b11111100, 0b11111111]
    monkeypatch.setattr(codes, "CHUNK", 1)  # a row at a time, from a file
    np.save(tmp_path / "x.npy", x_ND)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert hand_made().encode(mapped)[:, 0].tolist() == [0b11110000, 0b11111100, 0b11111100, 0b11111111]
    with pytest.raises(UsageError, match=r"\(N, 2\), and these have \(4, 3\)"):
        hand_made().encode(np.zeros((4, 3)))


@pytest.mark.parametrize("bits", [0, 12, -8, 48, 1024])
def test_codes_are_whole_bytes_and_not_longer_than_there_are_components(bits: int) -> None:
    with pytest.raises(UsageError, match=rf"--bits {bits}: .* at most 40"):
        fit("hyperplanes", TrainingVectors(curved(64)), bits, 0)
    require_bits([8, 40], 64, 40)


def test_vectors_that_are_all_equal_are_refused() -> None:
    with pytest.raises(DataError, match="all vectors of the database are equal"):
        fit("itq", TrainingVectors(np.ones((50, 20), dtype=np.float32)), 8, 0)


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", KINDS)
def test_a_coder_comes_back_from_its_file(kind: Kind, tmp_path: Path) -> None:
    x_ND = curved(100)
    coder = fit(kind, TrainingVectors(x_ND), 16, 3)
    coder.save(tmp_path / "coder.npz")
    back = load_coder(tmp_path / "coder.npz")
    assert (back.kind, back.seed, back.num_bits, back.num_units) == (kind, 3, 16, 40)
    assert (back.encode(x_ND) == coder.encode(x_ND)).all()


def test_files_that_are_not_sound_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "coder.npz"
    hand_made().save(path)
    with np.load(path) as file:
        sound = dict(file)

    def text(**change: Any) -> Array:
        header = {"format": codes.FORMAT, "kind": "itq", "seed": 0, "layers": 2}
        return np.frombuffer(json.dumps({**header, **change}).encode(), dtype=np.uint8)

    nan = np.full((8, 2), np.nan, dtype=np.float32)
    bad: list[dict[str, Any]] = [
        {"text": text(format="alexnet coder 0")},
        {"text": text(kind="pickle")},
        {"text": text(layers=0)},
        {"text": text(layers=3)},
        {"text": text(layers="2")},
        {"text": np.frombuffer(b"{", dtype=np.uint8)},
        {"weight1": nan},
        {"weight1": np.ones((8, 3), dtype=np.float32)},
        {"weight1": np.ones((8, 2))},
        {"weight1": np.ones(2, dtype=np.float32)},
        {"weight1": np.ones((7, 2), dtype=np.float32), "bias1": np.ones(7, dtype=np.float32)},
        {"bias1": np.ones(7, dtype=np.float32)},
        {"weight0": np.array([{"a": 1}], dtype=object)},
    ]
    for change in bad:
        np.savez(path, **{**sound, **change})
        with pytest.raises(DataError, match="not a sound file of a coder") as caught:
            load_coder(path)
        assert "\n" not in str(caught.value)
    for content in (b"", b"PK\x03\x04", b"text"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="not a sound file of a coder"):
            load_coder(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("text.npy", bytes(1_000_000))
    with pytest.raises(DataError, match="compressed members"):
        load_coder(path)
    with pytest.raises(DataError, match=r"absent\.npz: no such file"):
        load_coder(tmp_path / "absent.npz")


# --- the comparison, the picture, the command -----------------------------------------------------------------------


def test_directions_are_centered_and_of_length_one() -> None:
    vectors = Vectors("fc7", curved(50), curved(9, seed=1)).directions()
    mean = curved(50).mean(axis=0)
    expected = (curved(9, seed=1) - mean) / np.linalg.norm(curved(9, seed=1) - mean, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors.query_QD, expected, atol=1e-5)


@pytest.mark.usefixtures("quick")
def test_the_comparison_has_every_coder_length_and_seed() -> None:
    random = np.random.default_rng(0)
    base, query, label_N, label_Q = curved(120), curved(10, seed=1), np.arange(120) % 4, np.arange(10) % 4
    pixels = Vectors("pixels", random.random((120, 48), np.float32), random.random((10, 48), np.float32))
    steps: list[tuple[int, int]] = []
    found = compare(
        Vectors("fc7", base, query),
        pixels,
        label_N,
        label_Q,
        [8, 16],
        [0, 1],
        progress=lambda *step: steps.append(step),
    )
    rows = [(row["coder"], row["input"], row["bits"], row["bytes"]) for row in found["curves"]]
    sorts = [*((kind, "fc7") for kind in KINDS), ("autoencoder", "pixels")]
    assert rows == [(*sort, bits, bits // 8) for sort in sorts for bits in (8, 16)]
    assert steps == [(i, 16) for i in range(1, 17)]
    for row in found["curves"]:
        spread = row["recall_100"]
        assert len(spread["seeds"]) == 2
        assert spread["low"] <= spread["mean"] <= spread["high"]
        assert row["search_ms"]["low"] > 0
        assert ("own_recall_100" in row) == (row["input"] == "pixels")
    assert [(row["input"], row["bytes"]) for row in found["float"]] == [
        ("fc7", 160),
        ("fc7 directions", 160),
        ("pixels", 192),
    ]
    assert found["float"][0]["recall_100"] == 1
    assert found["chance"] == 0.25
    coder = fit("itq", TrainingVectors(base), 16, 1)
    task = Task(label_N, label_Q, float_index(base).search(query, 100)[1])
    itself = quality(code_index(coder.encode(base)), coder.encode(query), task)
    assert found["curves"][3]["mean_average_precision"]["seeds"][1] == itself["mean_average_precision"]


def test_a_database_without_answers_is_refused() -> None:
    vectors = Vectors("fc7", curved(120), curved(4))
    with pytest.raises(DataError, match="class 3 has held-out images but no training images"):
        compare(vectors, vectors, np.zeros(120, dtype=np.int64), np.array([0, 0, 3, 0]), [8], [0])
    with pytest.raises(DataError, match="there are 120 and 0"):
        compare(vectors, vectors, np.zeros(120, dtype=np.int64), np.zeros(0, dtype=np.int64), [8], [0])


class Split:
    def __init__(self, size: int, channels: int = 3) -> None:
        self.pixels = np.random.default_rng(0).integers(0, 256, (5, size, size, channels), dtype=np.uint8)
        self.labels, self.paths = np.zeros(5, dtype=np.int64), [""] * 5

    def __len__(self) -> int:
        return 5

    def read(self, index_B: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.pixels[index_B]


def test_thumbnails_are_means_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codes, "CHUNK", 1 << 15)  # two images at a time
    split = Split(96)
    expected = split.pixels.reshape(5, 32, 3, 32, 3, 3).mean(axis=(2, 4)).transpose(0, 3, 1, 2) / 255
    np.testing.assert_allclose(thumbnails(split), expected.reshape(5, 3072), atol=1e-6)
    small = Split(8, channels=1)
    np.testing.assert_allclose(thumbnails(small), small.pixels.reshape(5, 64) / 255, atol=1e-7)


def test_the_picture_shows_each_series(tmp_path: Path) -> None:
    def spread(mean: float) -> dict[str, Any]:
        return {"mean": mean, "low": mean - 0.02, "high": mean + 0.02, "seeds": [mean]}

    keys = ("mean_average_precision", "recall_100", "encode_ms", "search_ms")
    sorts = [*((kind, "fc7") for kind in KINDS), ("autoencoder", "pixels")]
    n = {"database": 7000, "queries": 2500, "classes": 10}
    body = {
        "layer": "fc7",
        "bits": [16, 64],
        "seeds": [0, 1, 2],
        "depth": 100,
        "chance": 0.1,
        "curves": [
            {
                "coder": kind,
                "input": name,
                "bits": bits,
                "bytes": bits // 8,
                **{key: spread(0.2 + i / 10) for key in keys},
            }
            for i, (kind, name) in enumerate(sorts)
            for bits in (16, 64)
        ],
        "float": [
            {"input": name, "bytes": 16384, "mean_average_precision": 0.5, "recall_100": 1.0, "search_ms": 4.0}
            for name in ("fc7", "fc7 directions", "pixels")
        ],
    }
    save_figure(draw_codes(body, n), tmp_path / "codes.png")
    with Image.open(tmp_path / "codes.png") as image:
        picture = np.asarray(image.convert("RGB")).astype(int)
    for color in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x00, 0x9E, 0x73), (0xCC, 0x79, 0xA7)):
        assert (np.abs(picture - color).sum(axis=2) < 6).sum() > 300, color
    before = (tmp_path / "codes.png").read_bytes()
    save_figure(draw_codes(body, n), tmp_path / "codes.png")
    assert (tmp_path / "codes.png").read_bytes() == before


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model folder and a packed set: dark and light noise, 60 of each to train on, 4 held out."""
    root = tmp_path_factory.mktemp("noise")
    random = np.random.default_rng(0)
    for name, low, high in (("dark", 0, 140), ("light", 110, 255)):
        for split, count in (("train", 60), ("val", 4)):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(low, high, (28, 28, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i:02}.png")
    base = tmp_path_factory.mktemp("files")
    prepare(root, base / "packed", size=28, workers=1)
    model = create_model("lenet", in_channels=3, num_classes=2)
    save_model_folder(base / "model", model, "lenet", Preprocessing(resize=28, crop=28, mean="none"), ["dark", "light"])
    return base / "model", base / "packed"


@pytest.mark.usefixtures("quick")
def test_the_command_writes_what_it_says(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    model, packed = map(str, files)
    arguments = [model, "--data", packed, "--layer", "f6", "--bits", "16", "8", "--seeds", "2", "--device", "cpu"]
    arguments += ["--out", str(tmp_path / "out")]
    assert run(arguments) == 0
    told = capsys.readouterr().out
    assert "f6, autoencoder" in told
    assert told.endswith(f"{tmp_path / 'out' / 'codes.json'}\n{tmp_path / 'out' / 'codes.png'}\n")
    stored = json.loads((tmp_path / "out" / "codes.json").read_text())
    assert (stored["probe"], stored["layer"], stored["bits"], stored["seeds"]) == ("codes", "f6", [8, 16], [0, 1])
    assert stored["n"] == {"database": 120, "queries": 8, "classes": 2}
    assert stored["data"]["split"] == "val"
    assert stored["float"][0]["bytes"] == 84 * 4
    with Image.open(tmp_path / "out" / "codes.png") as picture:
        assert picture.width > 1500
    assert run([*arguments, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    for document in (stored, again):
        for row in (*document["curves"], *document["float"]):
            for key in ("encode_ms", "search_ms"):
                row.pop(key, None)
    assert again == stored


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--bits", "12"], "--bits 12: "),
        (["--bits"], "--bits names no length"),
        (["--bits", "256", "--layer", "f6"], "at most 80"),
        (["--seeds", "0"], "--seeds is 0"),
        (["--layer", "fc9"], "the layers are pixels, "),
    ],
)
def test_wrong_options_are_refused_before_anything_is_computed(
    files: tuple[Path, Path], tmp_path: Path, arguments: list[str], said: str
) -> None:
    model, packed = map(str, files)
    defaults = [] if "--layer" in arguments else ["--layer", "f6"]
    with pytest.raises(UsageError, match=said):
        run([model, "--data", packed, "--device", "cpu", "--out", str(tmp_path / "out"), *defaults, *arguments])
    assert not (tmp_path / "out").exists()


def test_without_faiss_the_extra_is_named(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(AlexNetError, match=r'pip install "alexnet\[probe\]"'):
        run([str(files[0]), "--data", str(files[1]), "--device", "cpu", "--out", str(tmp_path)])
