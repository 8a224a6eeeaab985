"""Pictures: kernels and confusion pixel by pixel, curves by what is drawn."""

from __future__ import annotations

import base64
import io
import re
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alexnet.report import figures
from alexnet.report.figures import (
    MAX_POINTS,
    comparison_curves,
    confusion_picture,
    kernel_picture,
    swatch,
    training_curves,
)
from alexnet.report.tables import Log


def pixels(data_uri: str) -> np.ndarray:
    """(H, W, 4) uint8 of a PNG in a data URI."""
    head, _, content = data_uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGBA"))


def make_log(epochs: list[dict[str, Any]], **steps: list[float]) -> Log:
    log = Log(epochs=epochs)  # type: ignore[arg-type]
    num = max(map(len, steps.values()), default=0)
    for name, values in log.steps.items():
        values.extend(array("d", steps.get(name, [float("nan")] * num)))
    return log


def curves(svg: str, color: str) -> list[list[tuple[float, float]]]:
    """The points of the lines drawn in one color of the page."""
    paths = re.findall(r'<path d="([^"]*)" clip-path="[^"]*" style="(fill: none; [^"]*)"', svg)
    drawn = [path for path, style in paths if f"stroke: var(--{color})" in style]
    return [[(float(x), float(y)) for x, y in re.findall(r"[ML] ([-\d.e]+) ([-\d.e]+)", path)] for path in drawn]


def test_a_kernel_is_scaled_so_that_zero_is_mid_grey_and_its_largest_weight_an_end() -> None:
    kernel_CRS = np.zeros((3, 2, 2), dtype=np.float32)
    kernel_CRS[:, 0, 0] = (0.5, -0.5, 0.25)
    image = pixels(kernel_picture(kernel_CRS[None]))
    assert image.shape == (2, 2, 4)
    assert image[0, 0].tolist() == [255, 0, 191, 255]  # 127.5 + 127.5 * (1, -1, .5)
    assert image[1, 1].tolist() == [128, 128, 128, 255]
    small = pixels(kernel_picture(kernel_CRS[None] / 1000))
    assert (small == image).all()  # each kernel on its own scale


def test_kernels_stand_in_rows_tower_below_tower() -> None:
    # 36 kernels of 2 x 2, 18 a tower: two rows of 9. The first weight of kernel k, of at most 36, tells k.
    kernels_KCRS = np.ones((36, 1, 2, 2), dtype=np.float32)
    kernels_KCRS[:, 0, 0, 0] = np.arange(36) / 36
    image = pixels(kernel_picture(kernels_KCRS, num_towers=2))
    # Rows of 2 pixels with a gap of 1; between the towers 3: 2 + 1 + 2 + 3 + 2 + 1 + 2 = 13 high, 9 * 3 - 1 = 26 wide.
    assert image.shape == (13, 26, 4)
    for k in range(36):
        top, left = [0, 3, 8, 11][k // 9], 3 * (k % 9)
        assert image[top, left, 0] == pytest.approx(127.5 + 127.5 * k / 36, abs=0.6)  # rounded to a whole number
        assert image[top + 1, left + 1].tolist() == [255] * 4
    assert (image[:, 2, 3] == 0).all()  # gaps are transparent
    assert (image[5:8, :, 3] == 0).all()


@pytest.mark.parametrize(("num", "columns"), [(96, 16), (64, 16), (48, 12), (40, 10), (5, 5), (17, 16)])
def test_rows_of_kernels_are_full_where_they_can_be(num: int, columns: int) -> None:
    towers = 2 if num in (96, 48, 40) else 1
    image = pixels(kernel_picture(np.ones((num, 1, 1, 1), dtype=np.float32), towers))
    assert image.shape[1] == 2 * columns - 1


def test_dead_and_broken_kernels_are_grey() -> None:
    kernels_KCRS = np.zeros((2, 3, 4, 4), dtype=np.float32)
    kernels_KCRS[1] = np.nan
    image = pixels(kernel_picture(kernels_KCRS))
    assert set(image[image[..., 3] == 255][:, 0].tolist()) == {128}


@pytest.mark.parametrize(("num", "towers"), [(1, 1), (1, 2), (6, 1), (48, 1), (96, 2), (97, 2)])
def test_any_number_of_kernels_is_drawn_completely(num: int, towers: int) -> None:
    kernels_KCRS = np.random.default_rng(0).normal(size=(num, 3, 5, 5)).astype(np.float32)
    image = pixels(kernel_picture(kernels_KCRS, towers))
    assert (image[..., 3] == 255).sum() == num * 25


def test_confusion_rows_are_true_classes() -> None:
    # Class 0: 3 right, 1 taken for class 2 -> opacity 127.5 + 127.5 * sqrt(1/4) = 191.25 at row 0, column 2.
    image = pixels(confusion_picture([(0, 0, 3), (0, 2, 1), (1, 1, 5)], 3))
    assert image[0, 2, 3] == 191
    assert image[1, 1, 3] == 255
    assert image[2, 0, 3] == 0
    assert image[0, 2, :3].tolist() != image[1, 1, :3].tolist()  # wrong and right differ in color


def test_curves_are_drawn_at_their_epochs() -> None:
    # Two epochs of 10 steps; loss falls, so y (downwards in SVG) grows.
    epochs = [{"epoch": e, "step": 10 * e, "train_loss": 3.0 - e, "val_loss": 4.0 - e} for e in (1, 2)]
    svg = training_curves(make_log(epochs, step=[0.0, 10.0, 20.0], loss=[3.0, 2.0, 1.0]))
    steps, training = map(np.array, curves(svg, "blue"))
    (validation,) = map(np.array, curves(svg, "orange"))
    # Steps 0, 10, 20 are epochs 0, 1, 2: the step loss meets the training loss of epochs 1 and 2.
    assert np.allclose(steps[1:], training)
    assert np.allclose(np.diff(steps, axis=0)[0], np.diff(steps, axis=0)[1])
    assert np.allclose(validation[:, 0], training[:, 0])
    assert np.allclose(validation[1], [training[1, 0], training[0, 1]])  # validation loss 2, as training loss before


def test_steps_of_an_unfinished_epoch_go_on_at_the_pace_of_the_last() -> None:
    # One epoch of 10 steps is finished; step 15 is half an epoch further.
    epochs = [{"epoch": 1, "step": 10, "train_loss": 1.0}]
    svg = training_curves(make_log(epochs, step=[0.0, 10.0, 15.0], loss=[3.0, 1.0, 2.0]))
    at_0, at_10, at_15 = (x for x, _ in curves(svg, "blue")[0])
    assert at_15 - at_10 == pytest.approx((at_10 - at_0) / 2, rel=1e-4)


def test_a_long_curve_is_thinned_to_means() -> None:
    num = 100 * MAX_POINTS
    step = np.arange(1.0, num + 1)
    zigzag = np.where(np.arange(num) % 2, 5.0, -5.0)  # its mean over neighbors is 0
    wave = np.sin(step / num * 20)
    svg = training_curves(make_log([], step=step.tolist(), loss=(wave + zigzag).tolist()))
    alone = training_curves(make_log([], step=step.tolist(), loss=wave.tolist()))
    (line,), (smooth,) = curves(svg, "blue"), curves(alone, "blue")
    assert 100 < len(line) <= MAX_POINTS
    assert len(svg) < 1.1 * len(alone)
    assert np.allclose(line[0], smooth[0], atol=1)


def test_a_gap_is_a_gap() -> None:
    epochs = [{"epoch": e, "train_loss": float("nan") if e == 3 else 1.0 / e} for e in range(1, 6)]
    svg = training_curves(make_log(epochs))
    path = re.search(r'<path d="([^"]*)" clip-path="[^"]*" style="fill: none; stroke: var\(--blue\)', svg)
    assert path is not None
    assert path[1].count("M") == 2  # the line is lifted at epoch 3


def test_nothing_to_draw_is_nothing() -> None:
    assert training_curves(make_log([])) == ""
    assert training_curves(make_log([{"epoch": 1, "train_loss": "high"}], step=[1.0], loss=[float("nan")])) == ""


def test_curves_take_the_colors_of_the_page_and_load_nothing() -> None:
    svg = training_curves(make_log([{"epoch": 1, "train_loss": 1.0, "val_loss": 2.0}]))
    assert svg.startswith("<svg ")
    assert svg.endswith("</svg>")
    assert not re.search(r"#0[1-9]0[1-9]0[1-9]", svg)  # every stand-in color was replaced
    assert "http" not in svg
    assert "var(--blue)" in svg


def test_a_figure_says_in_words_where_its_lines_begin_and_end() -> None:
    epochs = [{"epoch": e, "train_loss": 3.0 / e, "val_top1_error": 0.5 / e} for e in (1, 2, 3)]
    svg = training_curves(make_log(epochs))
    labels = re.findall(r'aria-label="([^"]*)"', svg)
    assert labels == [
        "Loss, nats, against epochs: training 3 to 1",
        "Error, %, against epochs: val top-1 50 to 16.7",
        "Learning rate, against epochs",
        "Images a second, against epochs",
    ]


def test_no_two_figures_of_a_page_have_an_identifier_in_common() -> None:
    log = make_log([{"epoch": e, "train_loss": 1.0 / e, "val_loss": 2.0, "val_top1_error": 0.1} for e in (1, 2)])
    page = training_curves(log) + comparison_curves([log, log]) + swatch(0) + swatch(1)
    named = re.findall(r' id="([^"]*)"', page)
    assert len(named) == len(set(named)) > 0
    assert set(re.findall(r'(?:href="#|url\(#)([^")]*)', page)) == set(named)


def test_every_run_of_a_comparison_has_a_line_of_its_own() -> None:
    logs = [make_log([{"epoch": e, "val_loss": r + e, "train_loss": 1.0} for e in (1, 2)]) for r in range(26)]
    svg = comparison_curves(logs)
    (loss,) = re.findall(r'aria-label="Validation loss, nats, against epochs: ([^"]*)"', svg)
    assert loss.startswith("A 1 to 2; B 2 to 3; ")
    assert loss.endswith("; Z 26 to 27")
    styles = set()
    for run in range(26):
        (line,) = re.findall(r'style="(fill: none; [^"]*stroke-width: 1.8[^"]*)"', swatch(run))
        styles.add(line)
        assert svg.count(f'style="{line}"') >= 2  # the line of the legend is the line of the figures
    assert len(styles) == 26


# Machado, Oliveira and Fernandes 2009, severity 1: what is left of linear red, green and blue.
PROTANOPE = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
DEUTERANOPE = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
TRITANOPE = [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]


def lab(color: str, seen: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of a color as an eye sees it."""
    srgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(seen @ linear, 0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    "eye", [np.eye(3), PROTANOPE, DEUTERANOPE, TRITANOPE], ids=["all", "protan", "deutan", "tritan"]
)
def test_the_colors_of_a_figure_are_told_apart_by_every_eye(scheme: int, eye: Any) -> None:
    style = (Path(figures.__file__).parent / "style.css").read_text()
    # Right and wrong; training, validation and top-5; the first three runs: where no text and no order tells them apart.
    for names in (("blue", "orange", "green"), ("right", "wrong")):
        seen = [lab(re.findall(rf"--{name}: (#[0-9a-f]{{6}});", style)[scheme], np.array(eye)) for name in names]
        for i, one in enumerate(seen):
            for other in seen[:i]:
                assert np.linalg.norm(one - other) > 20  # a just noticeable difference is 2.3


def test_before_the_first_epoch_ends_curves_are_against_steps_and_say_so() -> None:
    steps = {"step": [1.0, 2.0, 3.0], "loss": [3.0, 2.0, 1.0]}
    svg = training_curves(make_log([], **steps))
    assert 'aria-label="Loss, nats, against steps"' in svg
    assert re.findall(r">(epoch|step)</text>", svg) == ["step"] * 4
    svg = training_curves(make_log([{"epoch": 1, "step": 3, "train_loss": 2.0}], **steps))
    assert re.findall(r">(epoch|step)</text>", svg) == ["epoch"] * 4


@pytest.mark.parametrize("last", [1e-12, 0.0])
def test_the_end_of_a_cosine_does_not_flatten_the_axis_of_rates(last: float) -> None:
    log = make_log([], step=[1.0, 2.0, 3.0, 4.0], lr=[0.02, 0.01, 0.002, last])
    rates = training_curves(log).split("<svg")[3]
    (points,) = curves(rates, "ink")
    y = [point[1] for point in points[:3]]
    assert y[2] - y[0] > 50  # of 1.8 inches less title and axis, 70 points: a decade, not a tenth of eleven
    assert "1e-" not in rates
