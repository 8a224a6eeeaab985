"""The tower meter on kernels whose color, frequency and orientation are known, and on CaffeNet's."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray
from PIL import Image

from alexnet.cli.probe import probe
from alexnet.core.errors import UsageError
from alexnet.probes.kernels import read_conv1
from alexnet.probes.towers import MEASURES, compare, measures_of, runs_together, tower_meter
from alexnet.report.pictures.towers import draw_towers

Array = NDArray[np.float64]
GREY = np.ones(3) / math.sqrt(3)
RED_GREEN = np.array([1.0, -1.0, 0.0]) / math.sqrt(2)


def run(arguments: list[str]) -> int:
    return probe(["towers", *arguments])


def grating(cycles_per_pixel: float, degrees: float, color_C: Array, side: int = 11, phase: float = 0.3) -> Array:
    """Stripes at this angle to the horizontal, counterclockwise, under a round window: (3, side, side)."""
    row_RS, column_RS = np.mgrid[:side, :side] - (side - 1) / 2
    across_RS = column_RS * math.sin(math.radians(degrees)) + row_RS * math.cos(math.radians(degrees))
    window_RS = np.exp(-(row_RS**2 + column_RS**2) / (2 * (side / 4) ** 2))
    stripes_RS = np.cos(2 * math.pi * cycles_per_pixel * across_RS + phase) * window_RS
    return color_C[:, None, None] * stripes_RS


def test_color_selectivity_by_hand() -> None:
    # Energy 9 + 1 + 4 = 14; on the grey axis (3 - 1 + 2)^2 / 3 = 16 / 3; outside it 1 - 16 / 42 = 0.619...
    kernels_KCRS = np.zeros((4, 3, 2, 2))
    kernels_KCRS[0, :, 0, 0] = (3, -1, 2)
    kernels_KCRS[1, :, 0, 1] = (2, 2, 2)  # grey
    kernels_KCRS[2, :, 1, 1] = (1, -2, 1)  # no grey at all
    kernels_KCRS[3] = np.array([1, 0, 0])[:, None, None]  # uniform red: its mean counts
    color_K = measures_of(kernels_KCRS).color_selectivity_K
    np.testing.assert_allclose(color_K, [1 - 16 / 42, 0, 1, 2 / 3], atol=1e-12)


def test_color_selectivity_knows_no_scale_and_no_order_of_channels() -> None:
    kernels_KCRS = np.random.default_rng(0).standard_normal((5, 3, 4, 4))
    color_K = measures_of(kernels_KCRS).color_selectivity_K
    np.testing.assert_allclose(measures_of(-0.01 * kernels_KCRS).color_selectivity_K, color_K)
    np.testing.assert_allclose(measures_of(kernels_KCRS[:, ::-1]).color_selectivity_K, color_K)
    loud = np.array([5.0, 1, 1])[:, None, None]  # another gain of one channel does change it
    assert not np.allclose(measures_of(loud * kernels_KCRS).color_selectivity_K, color_K)


def test_independent_weights_have_two_thirds_of_their_energy_in_color() -> None:
    kernels_KCRS = np.random.default_rng(0).standard_normal((2000, 3, 3, 3))
    assert measures_of(kernels_KCRS).color_selectivity_K.mean() == pytest.approx(2 / 3, abs=0.01)


def test_the_color_axis_is_the_direction_with_the_most_energy() -> None:
    kernel_CRS = 3 * grating(0.1, 0, -RED_GREEN) + grating(0.25, 90, GREY)
    axis_3 = measures_of(kernel_CRS[None]).color_axis_K3[0]
    # By power iteration on the covariance of the colors.
    color_P3 = kernel_CRS.reshape(3, -1).T
    expected_3 = np.array([1.0, 0.2, 0.1])
    for _ in range(200):
        expected_3 = color_P3.T @ (color_P3 @ expected_3)
        expected_3 /= np.linalg.norm(expected_3)
    assert abs(axis_3 @ expected_3) == pytest.approx(1, abs=1e-9)
    assert axis_3[np.abs(axis_3).argmax()] > 0


@pytest.mark.parametrize("color_C", [GREY, RED_GREEN])
@pytest.mark.parametrize(("cycles", "degrees"), [(0.2, 0), (0.2, 90), (0.3, 30), (0.25, 45), (0.15, 135), (0.35, 170)])
def test_a_planted_grating_is_found(cycles: float, degrees: float, color_C: Array) -> None:
    measures = measures_of(grating(cycles, degrees, color_C)[None])
    assert measures.frequency_K[0] == pytest.approx(cycles, abs=0.012)  # the grid of the padded spectrum: 1/87
    off = abs(measures.orientation_degrees_K[0] - degrees) % 180
    assert min(off, 180 - off) < 2
    assert measures.orientation_selectivity_K[0] > 0.8


def test_orientation_is_counterclockwise_as_the_picture_is_seen() -> None:
    # One bright diagonal from the lower left to the upper right, as "/": 45 degrees.
    kernel_RS = np.eye(9)[::-1]
    (degrees,) = measures_of(np.broadcast_to(kernel_RS, (1, 3, 9, 9))).orientation_degrees_K
    assert degrees == pytest.approx(45, abs=1)


def test_what_has_no_orientation_has_none() -> None:
    row_RS, column_RS = np.mgrid[:11, :11] - 5
    blob_RS = np.exp(-(row_RS**2 + column_RS**2) / 8)
    plaid_RS = np.cos(2 * math.pi * 0.2 * row_RS) + np.cos(2 * math.pi * 0.2 * column_RS)
    flat_RS = np.full((11, 11), 0.3)
    kernels_KCRS = np.stack([np.broadcast_to(k, (3, 11, 11)) for k in (blob_RS, plaid_RS, flat_RS)])
    measures = measures_of(kernels_KCRS)
    np.testing.assert_allclose(measures.orientation_selectivity_K, 0, atol=1e-10)
    assert measures.frequency_K[0] == measures.frequency_K[2] == 0
    assert measures.frequency_K[1] == pytest.approx(0.2, abs=0.012)


def test_a_uniform_part_counts_for_frequency_and_not_for_orientation() -> None:
    kernel_CRS = grating(0.25, 60, GREY)
    without, with_it = measures_of(kernel_CRS[None]), measures_of(kernel_CRS[None] + 2)
    assert with_it.orientation_selectivity_K == pytest.approx(without.orientation_selectivity_K)
    assert with_it.frequency_K == 0 != without.frequency_K


def test_a_dead_kernel_has_no_measures_and_no_part_in_the_distribution() -> None:
    kernels_KCRS = np.random.default_rng(0).standard_normal((4, 3, 5, 5))
    kernels_KCRS[1] = 0
    meter = tower_meter(kernels_KCRS, 2)
    document = json.loads(json.dumps(meter.to_json(), allow_nan=False))
    dead = document["kernels"][1]
    assert dead == {
        "kernel": 1,
        "tower": 1,
        "color_selectivity": None,
        "color_axis": [None] * 3,
        "frequency": None,
        "orientation_degrees": None,
        "orientation_selectivity": None,
        "energy": 0.0,
    }
    assert [tower["color_selectivity"]["n"] for tower in document["towers"]] == [1, 2]
    assert tower_meter(np.zeros((4, 3, 5, 5)), 2).tests == {}


# The comparison -------------------------------------------------------------------------------------------------------


def test_p_is_that_of_all_permutations() -> None:
    first_N, second_M = np.array([0.1, 0.4, 0.2, 0.35]), np.array([0.5, 0.3, 0.8, 0.45])
    together, observed = np.concatenate([first_N, second_M]), second_M.mean() - first_N.mean()
    as_large = total = 0
    for chosen in itertools.combinations(range(8), 4):
        rest = [i for i in range(8) if i not in chosen]
        total += 1
        as_large += abs(together[rest].mean() - together[list(chosen)].mean()) >= observed - 1e-12
    found = compare(first_N, second_M, permutations=20_000)
    assert found.difference == pytest.approx(observed)
    assert found.p == pytest.approx(as_large / total, abs=4 * math.sqrt(0.25 / 20_000))
    assert 0.02 < found.p < 0.3


def test_no_p_is_zero_and_no_difference_gives_one() -> None:
    far = compare(np.zeros(20), np.ones(20), permutations=999)
    assert far.p == pytest.approx(1 / 1000)
    assert (far.auc, far.cliffs_delta) == (1, 1)
    same = compare(np.ones(5), np.ones(7), permutations=100)
    assert (same.p, same.auc, same.cliffs_delta) == (1, 0.5, 0)


def test_p_is_uniform_where_towers_are_alike() -> None:
    random = np.random.default_rng(0)
    p = [compare(random.random(10), random.random(10), seed=i, permutations=199).p for i in range(300)]
    assert np.mean(np.array(p) <= 0.1) == pytest.approx(0.1, abs=0.06)
    assert np.mean(p) == pytest.approx(0.5, abs=0.06)


def test_auc_by_counting_pairs() -> None:
    first_N, second_M = np.array([1.0, 2, 3]), np.array([2.0, 4])
    # 2 is above 1, like 2, below 3; 4 is above all: (1 + 1/2 + 0 + 3) / 6
    found = compare(first_N, second_M, permutations=10)
    assert found.auc == pytest.approx(4.5 / 6)
    assert found.cliffs_delta == pytest.approx(2 * 4.5 / 6 - 1)
    assert compare(second_M, first_N, permutations=10).cliffs_delta == pytest.approx(-found.cliffs_delta)


def test_the_seed_decides_the_permutations() -> None:
    random = np.random.default_rng(1)
    first_N, second_M = random.random(20), random.random(20) + 0.1
    assert compare(first_N, second_M, 5, 500) == compare(first_N, second_M, 5, 500)
    assert compare(first_N, second_M, 5, 500).p != compare(first_N, second_M, 6, 500).p


# The meter ------------------------------------------------------------------------------------------------------------


def two_towers(num: int = 12) -> Array:
    """Grey gratings in the first tower, red-green ones in the second; one of each the other way round."""
    angles = np.linspace(0, 170, num)
    grey, color = ([grating(f, a, c) for a in angles] for f, c in ((0.3, GREY), (0.12, RED_GREEN)))
    grey[0], color[0] = color[0], grey[0]
    return np.stack([*grey, *color])


def test_planted_towers_are_told_apart() -> None:
    meter = tower_meter(two_towers(), 2)
    first, second = meter.towers
    assert (first["tower"], first["kernels"], second["tower"]) == (1, 12, 2)
    assert first["color_selectivity"]["median"] == pytest.approx(0, abs=1e-9)
    assert first["color_selectivity"]["mean"] == pytest.approx(1 / 12)
    assert second["color_selectivity"]["mean"] == pytest.approx(11 / 12)
    assert (first["colorful_share"], second["colorful_share"]) == (pytest.approx(1 / 12), pytest.approx(11 / 12))
    test = meter.tests["color_selectivity"]
    assert test.difference == pytest.approx(10 / 12)
    assert test.p < 0.001
    assert meter.tests["frequency"].difference < -0.1
    values = meter.measures.color_selectivity_K[:12]
    assert first["color_selectivity"]["quantiles"]["0.9"] == pytest.approx(np.quantile(values, 0.9))


def test_one_tower_is_measured_and_not_compared() -> None:
    meter = tower_meter(two_towers(), 1)
    assert len(meter.towers) == 1
    assert meter.tests == {}


@pytest.mark.parametrize(("shape", "towers"), [((4, 1, 5, 5), 1), ((4, 3, 5), 1), ((5, 3, 5, 5), 2), ((6, 3, 5, 5), 3)])
def test_what_cannot_be_measured_is_refused(shape: tuple[int, ...], towers: int) -> None:
    with pytest.raises(UsageError, match="three channels" if len(shape) == 3 or shape[1] == 1 else "one tower, or two"):
        tower_meter(np.ones(shape), towers)


def test_caffenets_first_half_is_color_agnostic_and_its_second_is_not(data_root: Path) -> None:
    # §6.1 says so of the paper's own network; these are the weights of the Caffe project's.
    file = data_root / "weights/caffenet-conv1-conv2/caffenet_conv1_conv2.npz"
    meter = tower_meter(read_conv1(file, 2, "bgr").kernels_KCRS, 2)
    first, second = (tower["color_selectivity"] for tower in meter.towers)
    assert first["median"] == pytest.approx(0.029, abs=0.001)
    assert second["median"] == pytest.approx(0.908, abs=0.001)
    assert [round(48 * tower["colorful_share"]) for tower in meter.towers] == [1, 37]
    test = meter.tests["color_selectivity"]
    assert test.p == 1 / 10_001  # no permutation of 10,000 comes near
    assert test.auc > 0.95
    # By another way: the energy along two axes that span all color. The file is blue first, which changes neither.
    with np.load(file) as weights:
        kernels_KCRS = weights["conv1_weight"].astype(np.float64)
    axes_23 = np.array([RED_GREEN, np.array([1, 1, -2]) / math.sqrt(6)])
    color_K = np.square(np.einsum("kcrs,ac->kars", kernels_KCRS, axes_23)).sum((1, 2, 3))
    np.testing.assert_allclose(
        meter.measures.color_selectivity_K, color_K / np.square(kernels_KCRS).sum((1, 2, 3)), atol=1e-6
    )


# Several runs ---------------------------------------------------------------------------------------------------------


def test_the_line_of_a_run_is_what_nineteen_of_twenty_permutations_stay_below() -> None:
    first_N, second_M = np.array([1.0, 2, 4]), np.array([8.0, 16, 32])
    deals = [sum(deal) / 3 for deal in itertools.combinations([1.0, 2, 4, 8, 16, 32], 3)]
    differences = sorted(
        abs(21 - 2 * mean) for mean in deals
    )  # all means are 63 / 6, the other half's is 21 less this one's
    found = compare(first_N, second_M, permutations=20_000)
    # 2 of the 20 deals are as far apart as can be: the 95th percentile is that, which is what was found, with p = 0.1.
    assert found.line == pytest.approx(differences[-1]) == pytest.approx(found.difference)
    assert found.p == pytest.approx(0.1, abs=0.01)


def run_of(name: str, p: float) -> dict[str, Any]:
    tests = {measure: {"p": p, "beyond": p <= 0.05} for measure in MEASURES}
    return {"run": name, "kernels_sha256": name, "tests": tests}


def test_runs_beyond_their_own_line_are_counted_against_chance() -> None:
    together = runs_together([run_of(str(i), 0.05 if i < 8 else 0.3) for i in range(39)])["color_selectivity"]
    assert (together["runs"], together["beyond_own_line"]) == (39, 8)
    assert together["expected_by_chance"] == pytest.approx(1.95)
    assert together["p_of_count"] == pytest.approx(scipy.stats.binom.sf(7, 39, 0.05), rel=1e-12)
    assert together["p"] == pytest.approx(scipy.stats.combine_pvalues([0.05] * 8 + [0.3] * 31).pvalue, rel=1e-12)
    none = runs_together([run_of(str(i), 0.06) for i in range(3)])["frequency"]
    assert (none["beyond_own_line"], none["p_of_count"]) == (0, pytest.approx(1))
    both = runs_together([run_of("a", 0.01), run_of("b", 0.01)])["color_selectivity"]
    assert both["p_of_count"] == pytest.approx(0.05**2)
    assert both["p"] == pytest.approx(1e-4 * (1 - math.log(1e-4)))


def test_several_runs_are_each_tested_and_counted_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alike = np.stack([grating(0.2, angle, color) for angle in np.linspace(0, 170, 12) for color in (GREY, RED_GREEN)])
    for i, kernels in enumerate((two_towers(), alike, two_towers()[::-1])):
        np.save(tmp_path / f"塔-{i}.npy", kernels.astype(np.float32))
    runs = [str(tmp_path / f"塔-{i}.npy") for i in range(3)]
    assert run([*runs, "--towers", "2", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "color selectivity: towers differ (p <= 0.05) in 2 of 3 runs, by chance in 0.15 (p = " in printed
    document = json.loads((tmp_path / "out" / "towers.json").read_text())
    assert (document["n"], document["settings"]["more"]) == ({"kernels": 24, "runs": 3}, runs[1:])
    assert [found["run"] for found in document["runs"]] == runs
    differences = [found["tests"]["color_selectivity"]["difference"] for found in document["runs"]]
    assert differences == pytest.approx(
        [10 / 12, 0, -10 / 12], abs=1e-6
    )  # which tower it is differs; that it is one counts
    # 3 p^2 (1 - p) + p^3 with p = 0.05
    assert document["together"]["color_selectivity"]["p_of_count"] == pytest.approx(3 * 0.05**2 * 0.95 + 0.05**3)
    assert document["summary"]["runs whose towers differ in color selectivity"].startswith("2 of 3, p = ")
    alone = tower_meter(np.load(runs[2]).astype(np.float64), 2).tests["color_selectivity"]
    assert document["runs"][2]["tests"]["color_selectivity"]["p"] == alone.p
    assert document["files"] == ["towers.png", "towers-runs.png"]


def test_a_run_counts_once_and_has_two_towers(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", two_towers().astype(np.float32))
    np.save(tmp_path / "copy.npy", two_towers().astype(np.float32))
    files = [str(tmp_path / "w.npy"), str(tmp_path / "copy.npy"), "--out", str(tmp_path / "out")]
    with pytest.raises(UsageError, match=r"copy\.npy has the kernels of .*w\.npy: each run counts once"):
        run([*files, "--towers", "2"])
    with pytest.raises(UsageError, match=r"w\.npy: conv1 has no two towers to compare"):
        run(files)
    assert not (tmp_path / "out").exists()


# Picture and command --------------------------------------------------------------------------------------------------


def test_the_command_writes_the_meter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "w.npy", two_towers()[:, ::-1].astype(np.float32))
    arguments = [
        str(tmp_path / "w.npy"), "--towers", "2", "--channel-order", "bgr", "--out", str(tmp_path / "out"), "--seed", "3",
    ]  # fmt: skip
    assert run(arguments) == 0
    printed = capsys.readouterr().out
    assert "tower 1       12       0.000    0.083      8%" in printed
    assert "color selectivity: difference of means +0.833, p = 0.0001" in printed
    document = json.loads((tmp_path / "out" / "towers.json").read_text())
    assert document["probe"] == "towers"
    assert (document["n"], document["settings"]["seed"], len(document["kernels"])) == (24, 3, 24)
    assert document["tests"]["color_selectivity"]["permutations"] == 10_000
    assert run([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == document
    with Image.open(tmp_path / "out" / "towers.png") as image:
        assert image.size == (1500, 1080)


def test_the_command_says_that_one_tower_has_nothing_to_compare(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "w.npy", two_towers(4).astype(np.float32))
    assert run([str(tmp_path / "w.npy"), "--out", str(tmp_path)]) == 0
    assert "one tower, so there is nothing to compare" in capsys.readouterr().out
    document = json.loads((tmp_path / "towers.json").read_text())
    assert (document["tests"], document["protocol"]["tests"]) == ({}, "none: there is one tower")


def test_the_picture_shows_each_tower_in_each_panel() -> None:
    meter = tower_meter(two_towers(), 2)
    figure = draw_towers({"layer": "conv1", "network": "test", "n": 24, "chance": 2 / 3, **meter.to_json()})
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "share of energy outside the grey axis",
        "cycles/pixel",
        "0: none, 1: a single orientation",
        "color selectivity",
    ]
    assert "p = 0.0001" in figure.axes[0].get_title(loc="left")
    medians = [line.get_xdata()[0] for line in figure.axes[0].get_lines()]  # type: ignore[index]
    assert medians == pytest.approx([0, 1, 2 / 3])
    assert [len(dots.get_offsets()) for dots in figure.axes[3].collections] == [12, 12]  # type: ignore[arg-type]
