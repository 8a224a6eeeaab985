"""Error by class and property, calibration, mirror and shift: against scikit-learn, SciPy, and loops written out."""

from __future__ import annotations

import colorsys
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, confusion_matrix, log_loss

from alexnet.cli.probe import probe as command
from alexnet.core.device import Machine
from alexnet.core.errors import UsageError
from alexnet.core.preprocessing import Preprocessing
from alexnet.data.named import find_source
from alexnet.data.prepare import prepare
from alexnet.evaluation.error_rate import evaluate_split
from alexnet.evaluation.finding import Finding
from alexnet.evaluation.predict import Predictor
from alexnet.evaluation.subject import subject_of
from alexnet.evaluation.views import CENTER
from alexnet.models import create_model
from alexnet.models.folder import save_model_folder
from alexnet.probes.inputs import (
    MIRROR,
    Confidence,
    Settings,
    View,
    answer_views,
    by_property,
    calibration,
    compare,
    confidence,
    confusions,
    cooled,
    error_if_calibrated,
    errors_by_class,
    expected_calibration_error,
    image_properties,
    measure,
    original_sizes,
    reliability,
    shift_effect,
    shift_pairs,
    stored_properties,
    temperature,
)


def made_answers(n: int = 600, num: int = 5, seed: int = 0, scale: float = 1.0) -> tuple[Any, Any]:
    """Log-probabilities, float64, and labels drawn from exactly these probabilities: calibrated where ``scale`` is 1."""
    random = np.random.default_rng(seed)
    logits_NK = random.normal(size=(n, num)) * 1.5
    true_NK = cooled(logits_NK, 1.0)
    label_N = (np.exp(true_NK).cumsum(1) < random.uniform(size=(n, 1))).sum(1)
    return cooled(logits_NK * scale, 1.0), label_N.clip(0, num - 1)


# --- counts ----------------------------------------------------------------------------------------------------------


def test_errors_of_each_class_counted_by_hand() -> None:
    wrong_N, label_N = np.array([True, False, True, True]), np.array([0, 0, 2, 2])
    rows = errors_by_class(wrong_N, label_N, ["a", "b", "c"])
    assert [(row["name"], row["count"], row["n"]) for row in rows] == [("a", 1, 2), ("b", 0, 0), ("c", 2, 2)]


def test_confusions_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    label_N, predicted_N = random.integers(0, 4, 200), random.integers(0, 4, 200)
    rows = confusions(predicted_N, label_N, "abcd", num=100)
    matrix = confusion_matrix(label_N, predicted_N)
    assert len(rows) == 12
    assert [row["count"] for row in rows] == sorted((row["count"] for row in rows), reverse=True)
    for row in rows:
        i, j = "abcd".index(row["class"]), "abcd".index(row["taken_for"])
        assert i != j
        assert row["count"] == matrix[i, j]
        assert row["rate"] == matrix[i, j] / matrix[i].sum()
    assert [row["count"] for row in confusions(predicted_N, label_N, "abcd", num=3)] == [r["count"] for r in rows[:3]]
    assert confusions(label_N, label_N, "abcd") == []


# --- properties ------------------------------------------------------------------------------------------------------


def test_properties_are_those_of_colorsys_pixel_by_pixel() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 6, 6, 3), dtype=np.uint8)
    pixels[0, 0] = 0  # black has no saturation
    found = image_properties(pixels)
    for b in range(3):
        colors = pixels[b].reshape(-1, 3) / 255
        luma = [0.299 * r + 0.587 * g + 0.114 * blue for r, g, blue in colors]
        assert found["saturation"][b] == pytest.approx(np.mean([colorsys.rgb_to_hsv(*c)[1] for c in colors]), abs=1e-6)
        assert found["brightness"][b] == pytest.approx(np.mean(luma), abs=1e-6)
        assert found["contrast"][b] == pytest.approx(np.std(luma), abs=1e-6)


def test_grey_images_have_no_saturation() -> None:
    pixels = np.full((1, 2, 2, 1), 51, dtype=np.uint8)
    found = image_properties(pixels)
    assert set(found) == {"brightness", "contrast"}
    assert found["brightness"][0] == pytest.approx(0.2)
    assert found["contrast"][0] == 0


@dataclass
class Squares:
    """A split in memory."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    @property
    def paths(self) -> list[str]:
        return [f"{i}.png" for i in range(len(self.pixels))]

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, index_B: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.pixels[index_B]


def squares(n: int, side: int = 36, channels: int = 3) -> Squares:
    random = np.random.default_rng(n)
    return Squares(random.integers(0, 256, (n, side, side, channels), dtype=np.uint8), random.integers(0, 3, n))


def test_properties_of_a_split_are_in_its_order() -> None:
    split = squares(130, side=8)
    done: list[tuple[int, int]] = []
    found = stored_properties(split, workers=0, progress=lambda i, n: done.append((i, n)))
    expected = image_properties(split.pixels)
    assert all(np.allclose(found[name], expected[name]) for name in expected)
    assert done[-1] == (130, 130)


def test_an_error_that_grows_with_a_property_is_found() -> None:
    random = np.random.default_rng(0)
    value_N = random.uniform(size=2000)
    wrong_N = random.uniform(size=2000) < 0.2 + 0.4 * value_N
    found = by_property(value_N, wrong_N, random.integers(0, 4, 2000), seed=0, name="brightness")
    assert [g["n"] for g in found["groups"]] == [400] * 5
    assert found["groups"][0]["to"] < found["groups"][1]["from"]
    sizes = [(value_N >= g["from"]) & (value_N <= g["to"]) for g in found["groups"]]
    assert [g["count"] for g in found["groups"]] == [int(wrong_N[inside].sum()) for inside in sizes]
    delta, rho = found["last_less_first"], found["spearman_with_wrong"]
    assert delta["value"] == pytest.approx(found["groups"][4]["rate"] - found["groups"][0]["rate"])
    assert rho["value"] == pytest.approx(scipy.stats.spearmanr(value_N, wrong_N).statistic)
    # the interval of a difference of two independent shares of 400: 1.96 standard errors either way
    p, q = found["groups"][4]["rate"], found["groups"][0]["rate"]
    half = 1.96 * np.sqrt(p * (1 - p) / 400 + q * (1 - q) / 400)
    assert (delta["low"], delta["high"]) == pytest.approx((p - q - half, p - q + half), abs=0.012)
    assert delta["low"] > 0 < rho["low"]
    assert found["last_less_first_within_class"]["low"] > 0


def test_a_property_that_only_tells_classes_apart_vanishes_within_them() -> None:
    random = np.random.default_rng(1)
    label_N = random.integers(0, 2, 3000)
    value_N = label_N + random.uniform(size=3000)  # class 1 is brighter, and harder
    wrong_N = random.uniform(size=3000) < 0.1 + 0.5 * label_N
    found = by_property(value_N, wrong_N, label_N, seed=0, name="brightness")
    assert found["last_less_first"]["low"] > 0.4
    within = found["last_less_first_within_class"]
    assert within["low"] < 0 < within["high"]


def test_equal_values_stay_together_and_the_same_seed_gives_the_same_intervals() -> None:
    random = np.random.default_rng(2)
    value_N = random.integers(0, 3, 300).astype(float)
    wrong_N, label_N = random.uniform(size=300) < 0.3, random.integers(0, 3, 300)
    found = by_property(value_N, wrong_N, label_N, seed=4, name="width")
    assert all(g["from"] == g["to"] for g in found["groups"])
    assert sum(g["n"] for g in found["groups"]) == 300
    assert found == by_property(value_N, wrong_N, label_N, seed=4, name="width")
    assert found != by_property(value_N, wrong_N, label_N, seed=5, name="width")


def test_images_all_of_one_size_have_no_fifths() -> None:
    found = by_property(np.full(9, 224.0), np.zeros(9, dtype=bool), np.zeros(9, dtype=np.int64), seed=0, name="width")
    assert found == {"unit": "pixels of the original", "all_the_same": 224.0}


def test_original_sizes_are_those_of_the_files_upright(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for k, name in enumerate("ab"):
            (tmp_path / split / name).mkdir(parents=True)
            image = Image.new("RGB", (30 + k, 20))
            exif = image.getexif()
            exif[0x0112] = 6 if name == "b" else 1  # a quarter turn
            image.save(tmp_path / split / name / "0.jpg", exif=exif)
    source = find_source(tmp_path)
    paths = [record.name for record in source.records if record.split == "val"]
    found = original_sizes(source, "val", paths)
    assert found["width"].tolist() == [30, 20]
    assert found["height"].tolist() == [20, 31]
    assert found["aspect"] == pytest.approx([1.5, 20 / 31])
    with pytest.raises(UsageError, match="does not hold 1 of the 3 images"):
        original_sizes(source, "val", [*paths, "val/a/gone.jpg"])


# --- confidence ------------------------------------------------------------------------------------------------------


def test_the_calibration_error_of_two_bins_by_hand() -> None:
    # bin 0.5 to 1 of two bins: confidences 0.6, 0.8 right, 1.0 wrong: |2.4 - 2| / 4; bin 0 to 0.5: 0.4 right: |0.4 - 1| / 4
    c = Confidence(np.array([0.6, 0.8, 1.0, 0.4]), np.array([True, True, False, True]))
    assert expected_calibration_error(c, 2) == pytest.approx((0.4 + 0.6) / 4)
    # equally many in each of two bins: (0.4, 0.6) both right, |1.0 - 2|; (0.8, 1.0) one right, |1.8 - 1|
    assert expected_calibration_error(c, 2, equal_mass=True) == pytest.approx((1.0 + 0.8) / 4)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_calibration_is_that_of_scikit_learn(scale: float) -> None:
    log_probability_NK, label_N = made_answers(scale=scale)
    c = confidence(log_probability_NK, label_N)
    right, sure = calibration_curve(c.right_N, c.value_N, n_bins=15, strategy="uniform")
    bins = reliability(c)
    np.testing.assert_allclose([b["confidence"] for b in bins], sure)
    np.testing.assert_allclose([b["rate"] for b in bins], right)
    assert sum(b["n"] for b in bins) == 600
    found = calibration(log_probability_NK, label_N, seed=0)
    weight = np.array([b["n"] for b in bins]) / 600
    assert found["ece"] == pytest.approx(float(weight @ np.abs(right - sure)))
    right, sure = calibration_curve(c.right_N, c.value_N, n_bins=15, strategy="quantile")
    assert found["ece_equal_mass"] == pytest.approx(float(np.abs(right - sure).mean()), abs=1e-3)
    probability_NK = np.exp(log_probability_NK)
    oracle = brier_score_loss(label_N, probability_NK, labels=range(5), scale_by_half=False)
    assert found["brier"] == pytest.approx(oracle)
    assert found["loss_nats"] == pytest.approx(log_loss(label_N, probability_NK, labels=range(5)))
    assert found["accuracy"] == pytest.approx((probability_NK.argmax(1) == label_N).mean())
    assert (found["ece"] < 2 * found["ece_if_calibrated"]) == (scale == 1.0)


def test_a_calibrated_network_has_the_error_that_is_foretold() -> None:
    random, value_N = np.random.default_rng(3), np.random.default_rng(4).uniform(0.2, 1, 1500)
    errors = [expected_calibration_error(Confidence(value_N, random.uniform(size=1500) < value_N)) for _ in range(300)]
    assert error_if_calibrated(value_N, seed=0) == pytest.approx(np.mean(errors), rel=0.05)


def test_the_temperature_that_made_a_network_too_sure_is_found() -> None:
    log_probability_NK, label_N = made_answers(n=6000, scale=2.5)
    found = temperature(log_probability_NK, label_N, seed=0)
    assert found["temperature"] == pytest.approx(2.5, rel=0.05)
    assert found["ece_after"] < found["ece_before"] / 3
    assert found["loss_after"] < found["loss_before"]
    assert (found["fitted_on"], found["tested_on"]) == (3000, 3000)
    assert found == temperature(log_probability_NK, label_N, seed=0)


def test_half_of_the_images_decide_the_temperature_and_the_others_judge_it() -> None:
    log_probability_NK, label_N = made_answers(n=400)
    found = temperature(log_probability_NK, label_N, seed=0)
    from alexnet.core import rng

    tested = rng.permutation(0, "inputs/halves", 0, 400)[200:]
    after = torch.log_softmax(torch.from_numpy(log_probability_NK[tested]) / found["temperature"], 1)
    label = torch.from_numpy(label_N[tested])
    assert found["loss_after"] == pytest.approx(torch.nn.functional.nll_loss(after, label).item())


def test_cooling_is_the_softmax_of_divided_logits() -> None:
    logits_NK = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.log_softmax(logits_NK / 1.7, dim=1)
    np.testing.assert_allclose(cooled(torch.log_softmax(logits_NK, 1).numpy(), 1.7), expected)


# --- mirror and shift ------------------------------------------------------------------------------------------------


def test_pairs_of_a_256_pixel_image_under_a_224_pixel_crop() -> None:
    pairs = shift_pairs(Preprocessing())
    assert list(pairs) == [1, 2, 4, 8, 16, 32]
    assert pairs[16] == [(View(), View(-16, 0)), (View(), View(16, 0)), (View(), View(0, -16)), (View(), View(0, 16))]
    assert pairs[32] == [(View(-16, 0), View(16, 0)), (View(0, -16), View(0, 16))]


@pytest.mark.parametrize("room", range(12))
def test_no_crop_leaves_the_stored_image_and_each_pair_is_so_far_apart(room: int) -> None:
    for d, pairs in shift_pairs(Preprocessing(resize=20 + room, crop=20), range(1, 20)).items():
        for a, b in pairs:
            assert abs(a.down - b.down) + abs(a.right - b.right) == d
            assert all(0 <= room // 2 + offset <= room for v in (a, b) for offset in (v.down, v.right))
    assert list(shift_pairs(Preprocessing(resize=20 + room, crop=20), range(1, 20))) == list(range(1, room + 1))


def small_predictor(**fields: Any) -> Predictor:
    model = create_model("cifar_18pct", num_classes=3).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.ndim)) * 0.05)
    input_ = Preprocessing(**({"resize": 36, "crop": 32, "mean": "none", "scale": 1 / 255} | fields))
    return Predictor("cifar_18pct", model, input_, tuple("abc"), None, torch.device("cpu"))


def test_views_are_crops_cut_by_hand() -> None:
    predictor, split = small_predictor(), squares(5)
    views = [View(), View(-2, 1), View(2, -2), MIRROR]
    done: list[int] = []
    found_VNK = answer_views(
        predictor, split, np.array([4, 1, 2]), views, batch_size=2, workers=0, progress=lambda i, _n: done.append(i)
    )
    assert done == [2, 3]
    for v, (top, left, mirror) in enumerate([(2, 2, False), (0, 3, False), (4, 0, False), (2, 2, True)]):
        for i, image in enumerate([4, 1, 2]):
            crop = split.pixels[image, top : top + 32, left : left + 32]
            crop = crop[:, ::-1] if mirror else crop
            x_BCHW = torch.from_numpy(crop.astype(np.float32) / 255).permute(2, 0, 1)[None]
            with torch.no_grad():
                expected = predictor.model(x_BCHW).log_softmax(1)[0]
            np.testing.assert_allclose(found_VNK[v, i], expected, rtol=1e-4, atol=1e-5)


def test_the_center_view_is_that_of_the_evaluation() -> None:
    predictor, split = small_predictor(), squares(7)
    evaluation = evaluate_split(
        predictor.model, split, predictor.preprocessing, None, classes="abc", views=CENTER, keep_probabilities=True
    )
    assert evaluation.probabilities is not None
    (center_NK,) = answer_views(predictor, split, np.arange(7), [View()])
    np.testing.assert_allclose(center_NK, evaluation.probabilities.log_probability_NK, rtol=1e-5, atol=1e-6)


def test_mirroring_symmetric_images_changes_nothing() -> None:
    predictor, split = small_predictor(), squares(6)
    symmetric = Squares(np.maximum(split.pixels, split.pixels[:, :, ::-1]), split.labels)
    center_NK, mirrored_NK = answer_views(predictor, symmetric, np.arange(6), [View(), MIRROR])
    assert np.array_equal(center_NK, mirrored_NK)
    found = compare([(center_NK, mirrored_NK)], split.labels)
    assert found["changed"]["rate"] == found["total_variation"] == 0
    center_NK, mirrored_NK = answer_views(predictor, split, np.arange(6), [View(), MIRROR])
    assert compare([(center_NK, mirrored_NK)], split.labels)["total_variation"] > 0


def test_a_comparison_by_hand() -> None:
    before = np.log(np.array([[0.8, 0.2], [0.6, 0.4]], dtype=np.float32))
    after = np.log(np.array([[0.7, 0.3], [0.1, 0.9]], dtype=np.float32))
    found = compare([(before, after)], np.array([0, 1]))
    assert found["changed"]["rate"] == 0.5
    assert found["error_before"] == 0.5
    assert found["error_after"] == 0.0
    assert found["total_variation"] == pytest.approx((0.1 + 0.5) / 2)
    both = compare([(before, after), (before, before)], np.array([0, 1]))
    assert both["changed"]["rate"] == 0.25
    assert both["error_after"] == 0.25
    assert both["n"] == 2
    assert both["pairs"] == 2


def test_each_distance_says_what_was_compared() -> None:
    predictor, split = small_predictor(), squares(6)
    pairs_of = shift_pairs(predictor.preprocessing)
    assert list(pairs_of) == [1, 2, 4]
    views = sorted({view for pairs in pairs_of.values() for pair in pairs for view in pair})
    answers = dict(zip(views, answer_views(predictor, split, np.arange(6), views), strict=True))
    rows = shift_effect(answers, split.labels, pairs_of)
    assert [row["pixels"] for row in rows] == [1, 2, 4]
    assert rows[0]["compared"].startswith("center")
    assert rows[2]["compared"].startswith("two ends")
    expected = [np.abs(np.exp(answers[a]) - np.exp(answers[b])).sum(1).mean() / 2 for a, b in pairs_of[4]]
    assert rows[2]["total_variation"] == pytest.approx(np.mean(expected), rel=1e-4)


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network as a model folder, and a folder of pictures of many sizes."""
    folder = tmp_path_factory.mktemp("inputs")
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for k, name in enumerate(("ape", "bee $x$", "cat")):
            (folder / "data" / split / name).mkdir(parents=True)
            for i in range(4):
                noise = random.integers(0, 40 + 70 * k, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(noise).resize((37 + 3 * i, 40 + 5 * k)).save(
                    folder / "data" / split / name / f"{i}.png"
                )
    predictor = small_predictor()
    save_model_folder(
        folder / "net", predictor.model, "cifar_18pct", predictor.preprocessing, ["ape", "bee $x$", "cat"]
    )
    return folder


def run(workplace: Path, *more: str) -> int:
    return command(["inputs", str(workplace / "net"), "--threads", "1", *more])


def found(workplace: Path, **settings: Any) -> Finding:
    asked = Settings(**{"data": str(workplace / "data"), **settings})
    machine = Machine(device=torch.device("cpu"), workers=0, quiet=True)
    return measure(subject_of(workplace / "net", machine, asked), asked)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALEXNET_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield Path(os.environ["ALEXNET_CACHE"])


def test_the_command_writes_the_same_json_twice_and_four_pictures(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, data = tmp_path / "out", ("--data", str(workplace / "data"))
    assert run(workplace, *data, "--out", str(out)) == 0
    said = capsys.readouterr().out
    assert "top-1 error" in said
    assert "no room for 8, 16, 32 pixels" in said
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    assert run(workplace, *data, "--out", str(out), "--json") == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads(first["inputs.json"])
    assert (document["probe"], document["n"]) == ("inputs", 12)
    assert {"network", "model", "data", "settings", "environment", "protocol"} <= set(document)
    assert sorted(document["files"]) == sorted(first.keys() - {"inputs.json"})
    for name in ("properties", "classes", "reliability", "shift"):
        with Image.open(out / f"inputs-{name}.png") as picture:
            assert picture.width > 500


def test_figures_agree_with_one_another(workplace: Path) -> None:
    finding = found(workplace)
    body, mirror = finding.body, finding.body["mirror"]
    assert (finding.n, finding.subject["data"]["split"]) == (12, "val")
    assert [s["pixels"] for s in body["shift"]] == [1, 2, 4]
    assert body["shifts_without_room"] == [8, 16, 32]
    assert set(body["properties"]) == {"saturation", "brightness", "contrast", "width", "height", "aspect"}
    assert body["properties"]["width"]["groups"][0]["from"] == 37
    assert body["error"]["count"] == sum(c["count"] for c in body["classes"])
    assert sum(b["n"] for b in body["calibration"]["reliability"]) == 12
    gained = (mirror["wrong_to_right"] - mirror["right_to_wrong"]) / 12
    assert mirror["error_before"] - mirror["error_after"] == pytest.approx(gained)
    assert finding.summary["top-1 error, center view"] == body["error"]["rate"]


def test_a_packed_set_does_not_know_the_sizes_of_the_files_it_was_made_of(workplace: Path, tmp_path: Path) -> None:
    prepare(workplace / "data", tmp_path / "packed", size=36, workers=1)
    body = found(workplace, data=str(tmp_path / "packed"), shifted=0).body
    assert body["properties"]["width"]["not_known"] == "a packed set does not keep them"
    assert "groups" not in body["properties"]["aspect"]
    assert body["shift"] == body["shifts_without_room"] == []


def test_images_that_make_no_finding_are_refused(workplace: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="digits holds 1,797 images of 0, 1, 2 and 7 more"):
        found(workplace, data="digits", shifted=0)
    with pytest.raises(UsageError, match="no split 'test'; there is train, val"):
        found(workplace, split="test")
    (tmp_path / "one" / "val" / "ape").mkdir(parents=True)
    Image.new("RGB", (36, 36)).save(tmp_path / "one" / "val" / "ape" / "a.png")
    with pytest.raises(UsageError, match="the split val has 1 images; the probe needs 2 or more"):
        found(workplace, data=str(tmp_path / "one"))


def test_wrong_options_are_one_line(workplace: Path) -> None:
    with pytest.raises(UsageError, match="--shifted is -1; it must be at least 0"):
        run(workplace, "--shifted", "-1")
    with pytest.raises(UsageError, match="--batch-size is 0; it must be at least 1"):
        run(workplace, "--batch-size", "0")
    with pytest.raises(UsageError, match="not a run, so it has no folder for probes"):
        run(workplace)
