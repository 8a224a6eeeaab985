"""The report page: what it says is what the files of the run say, whatever is in them and whatever is missing."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alexnet.core.errors import UsageError
from alexnet.core.intervals import wilson
from alexnet.report.page import PICTURE_CLASSES, _best_epoch, write_report

MakeRun = Callable[..., Path]
ReadPage = Callable[[Path], Any]


def test_the_page_says_what_the_files_say(tmp_path: Path, make_run: MakeRun, read_page: ReadPage) -> None:
    path = write_report(make_run(tmp_path / "run"))
    assert path == tmp_path / "run" / "report.html"
    page = read_page(path)
    for said in [
        "alexnet_2012 on shapes", "finished", "Of 60 images it was not trained on, the network named 45 right",
        "25.0 %", "15 of 60 images, ten views; 95 % interval 15.8 to 37.2 %", "0.654 nats an image; guessing gives 1.10",
        "Recipe quickstart Seed 0 Epochs 2 Steps 20", "2 min 10 s", "70 images/s", "18 30.0 %", "conv1 0 + 2",
        "features hardly differ", "0 class 0 75.0 % 15 20 class 1 15", "class 0 taken for class 1, 98.7 % val/a.jpg",
        "alexnet train quickstart --out 'a run'", "train.epochs 2", "preprocessing.resize 256", "torch 2.13.0",
        "The 96 kernels of conv1, 11 × 11 pixels", "alexnet probe KIND RUN looks further into the network", "mean of softmax",
        "What the channels answer to", "channels 36 layer conv5", "protocol.view center", "n 60 error 0.25 How this",
    ]:  # fmt: skip
        assert said in page.text, said
    assert "Missing from this report" not in page.text
    assert page.source.count("<img") == 3  # kernels, a mistake, a probe's picture; the matrix is a table
    for alternative in ("The 96 kernels of conv1", "val/a.jpg, class 0", "A red box"):
        assert ("alt", alternative) in page.attributes
    hardest_first = page.text.partition("Class by class")[2]
    assert hardest_first.index("0 class 0") < hardest_first.index("1 class 1 0.0") < hardest_first.index("2 class 2")


@pytest.fixture(scope="session", params=[3, 40])
def plain(
    request: pytest.FixtureRequest, tmp_path_factory: Any, make_run: MakeRun, read_page: ReadPage
) -> tuple[int, Any]:
    run = make_run(tmp_path_factory.mktemp("plain") / "run", num_classes=request.param)
    return request.param, read_page(write_report(run))


def test_hostile_strings_stay_text(
    tmp_path: Path, hostile: str, plain: tuple[int, Any], make_run: MakeRun, read_page: ReadPage
) -> None:
    num_classes, harmless = plain
    page = read_page(write_report(make_run(tmp_path / "run", lambda what: hostile, num_classes)))
    assert page.elements == harmless.elements
    assert "49" not in page.text.split("How to run it again")[0].split()  # {{ 7*7 }} was not computed
    assert not any(character in page.source for character in "\x00\x07\u202e\ufffd")


def test_the_page_is_the_same_every_time(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(tmp_path / "run")
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def test_a_page_needs_no_network_code(tmp_path: Path, make_run: MakeRun) -> None:
    # The report cannot invent a number: it is made without torch, models and data.
    make_run(tmp_path / "run")
    code = (
        "import sys; from pathlib import Path; from alexnet.report.page import write_report\n"
        f"write_report(Path({str(tmp_path / 'run')!r}))\n"
        "assert not {'torch', 'alexnet.models', 'alexnet.data', 'alexnet.evaluation'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Unfinished and damaged runs ------------------------------------------------------------------------------------------


def test_an_unfinished_run_shows_its_last_validation(tmp_path: Path, make_run: MakeRun, read_page: ReadPage) -> None:
    run = make_run(tmp_path / "run")
    shutil.rmtree(run / "results")
    page = read_page(write_report(run))
    for said in ["unfinished", "after epoch 2", "25.0 % 15 of 60 images, center view", "there is no final evaluation"]:
        assert said in page.text
    assert "What the first layer looks for" not in page.text


def test_a_cut_last_line_is_dropped_and_said(tmp_path: Path, make_run: MakeRun, read_page: ReadPage) -> None:
    run = make_run(tmp_path / "run")
    log = (run / "log.jsonl").read_bytes()
    (run / "log.jsonl").write_bytes(log[:-30])
    page = read_page(write_report(run))
    assert "log.jsonl: 1 cut or damaged line is left out" in page.text
    assert "Epochs 1 of 2" in page.text


def test_a_lost_log_is_replaced_by_the_summary(tmp_path: Path, make_run: MakeRun, read_page: ReadPage) -> None:
    run = make_run(tmp_path / "run")
    (run / "log.jsonl").unlink()
    (run / "summary.csv").write_text("epoch,step,train_loss,val_top1_errors,val_n,val_loss\n1,10,2.5,30,60,2.25\n")
    page = read_page(write_report(run))
    assert "log.jsonl has no rows, so the curves are those of summary.csv" in page.text
    assert "1 10 2.5000 – 2.2500 30 of 60" in page.text
    assert 'aria-label="Loss, nats, against epochs: training 2.5 to 2.5; validation 2.25 to 2.25"' in page.source


def test_an_empty_run_gets_a_page(tmp_path: Path, read_page: ReadPage) -> None:
    (tmp_path / "run").mkdir()
    page = read_page(write_report(tmp_path / "run"))
    for said in [
        "config.json is missing",
        "environment.json is missing",
        "log.jsonl has no rows",
        "no final evaluation",
    ]:
        assert said in page.text


def test_no_run_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such run"):
        write_report(tmp_path / "absent")


def test_rows_that_are_not_finite_or_not_numbers_leave_gaps(
    tmp_path: Path, make_run: MakeRun, read_page: ReadPage
) -> None:
    run = make_run(tmp_path / "run")
    strange = [math.nan, math.inf, -math.inf, 1e308, -1e308, 1e-320, "high", None, [], {}, True, 10**400, -5]
    with open(run / "log.jsonl", "a") as file:
        for value in strange:
            of_step = dict.fromkeys(("step", "epoch", "loss", "lr", "images_per_second", "top1_error"), value)
            file.write(json.dumps({"event": "step", **of_step}) + "\n")
            of_epoch = dict.fromkeys(
                ("epoch", "step", "train_loss", "val_loss", "val_top1_error", "lr", "seconds"), value
            )
            file.write(json.dumps({"event": "epoch", "val_n": value, "dead_filters": value, **of_epoch}) + "\n")
        file.write('{"event": "epoch"}\n{"event": {}}\n[1]\n"epoch"\n\n{"event": "note"}\n')
    page = read_page(write_report(run))
    assert "log.jsonl: 2 cut or damaged lines are left out" in page.text


@pytest.mark.parametrize(
    "file",
    [
        *("config.json", "environment.json", "log.jsonl", "results/final-ten.json", "results/conv1.npy"),
        *("results/mistakes.npz", "probes/maps.json", "probes/maps-image.png"),
    ],
)
def test_no_damage_to_a_file_keeps_the_page_from_being_written(
    tmp_path: Path, file: str, make_run: MakeRun, read_page: ReadPage
) -> None:
    run = make_run(tmp_path / "run")
    sound = (run / file).read_bytes()
    if file != "log.jsonl":
        (run / "log.jsonl").unlink()  # drawing the curves takes most of the time
    generator = np.random.default_rng(0)
    contents = [sound[:length] for length in (0, 1, 10, len(sound) // 2, len(sound) - 2)]
    for position in generator.integers(0, min(len(sound), 2000), 12):
        contents.append(sound[:position] + bytes([generator.integers(0, 256)]) + sound[position + 1 :])
    contents += [
        b"null",
        b"[]",
        b"1",
        b"{}",
        b'{"train": 3, "n": "x"}',
        b"[" * 5000,
        b'{"a":' * 900 + b"1" + b"}" * 900,
    ]
    for content in contents:
        (run / file).write_bytes(content)
        read_page(write_report(run))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n": 0}, "contradict"),
        ({"n": "60"}, "is not a count"),
        ({"n": 14}, "contradict"),
        ({"top1_errors": -1}, "is not a count"),
        ({"top5_errors": 16}, "contradict"),
        ({"confusion": [[0, 99, 1]]}, "is not a class number"),
        ({"confusion": [[0, -1, 1]]}, "is not a class number"),
        ({"mistakes": [{"path": "a", "label": -1, "predicted": 0, "probability": 1}]}, "is not a class number"),
        ({"classes": [{"name": "a"}]}, "is not a class number"),
    ],
)
def test_a_result_that_contradicts_itself_is_not_shown(
    tmp_path: Path, change: dict[str, Any], said: str, make_run: MakeRun, make_result: Any, read_page: ReadPage
) -> None:
    run = make_run(tmp_path / "run")
    changed = make_result(lambda what: what, 3, "10", 15) | change
    (run / "results" / "final-ten.json").write_text(json.dumps(changed))
    page = read_page(write_report(run))
    assert "results/final-ten.json is not readable" in page.text
    assert said in page.text
    assert "18 of 60 images, center view" in page.text  # the sound result is used instead


def test_a_pickled_array_is_not_opened(tmp_path: Path, make_run: MakeRun, read_page: ReadPage) -> None:
    run = make_run(tmp_path / "run")
    pickled = np.array([{}], dtype=object)
    np.save(run / "results" / "conv1.npy", pickled, allow_pickle=True)
    np.savez(run / "results" / "mistakes.npz", pixels=np.zeros((1, 2, 2, 3), dtype=np.uint8), paths=pickled)
    page = read_page(write_report(run))
    assert "results/conv1.npy is not readable" in page.text
    assert "results/mistakes.npz is not readable" in page.text
    assert "val/a.jpg" in page.text  # the list is there without its picture


def test_many_classes_become_a_picture_and_a_folded_list(
    tmp_path: Path, make_run: MakeRun, read_page: ReadPage
) -> None:
    page = read_page(write_report(make_run(tmp_path / "run", num_classes=40)))
    assert "all 40 classes" in page.text
    assert 'alt="Confusion matrix of 40 classes' in page.source
    few = read_page(write_report(make_run(tmp_path / "few", num_classes=32)))
    assert "all 32 classes" in few.text
    assert 'alt="Confusion matrix' not in few.source
    assert "What is taken for what" in few.text


def test_the_command_is_the_one_that_starts_the_run_anew(
    tmp_path: Path, make_run: MakeRun, read_page: ReadPage
) -> None:
    run = make_run(tmp_path / "run")
    command = ["/home/me/alexnet/__main__.py", "train", "modern", "--out", "runs/a b", "--resume", "--seed", "3"]
    (run / "environment.json").write_text(json.dumps({"command": command}))
    assert "alexnet train modern --out 'runs/a b' --seed 3" in read_page(write_report(run)).text
    (run / "environment.json").write_text(json.dumps({"command": ["own.py", "train", "x"]}))
    assert "own.py train x" in read_page(write_report(run)).text


def test_a_thumbnail_is_the_picture_of_its_mistake(tmp_path: Path, make_run: MakeRun, read_page: ReadPage) -> None:
    run = make_run(tmp_path / "run")
    pixels_NSSC = np.stack([np.full((2, 2, 3), value, dtype=np.uint8) for value in (7, 99)])
    np.savez(run / "results" / "mistakes.npz", pixels=pixels_NSSC, paths=np.array(["val/other.jpg", "val/a.jpg"]))
    source = read_page(write_report(run)).source
    (thumbnail,) = re.findall(r'<li><img src="data:image/png;base64,([^"]*)" alt="val/a.jpg, class 0"', source)
    assert (np.asarray(Image.open(io.BytesIO(base64.b64decode(thumbnail)))) == 99).all()


def test_blocks_hold_the_wrong_answers_of_their_classes(tmp_path: Path, make_run: MakeRun, read_page: ReadPage) -> None:
    # 40 classes are 20 blocks of 2. Class 0: 2 for class 1, of its own block, 3 for class 5, of the third.
    run = make_run(tmp_path / "run", num_classes=40)
    path = run / "results" / "final-ten.json"
    result = json.loads(path.read_text())
    result["confusion"] = [[0, 0, 15], [0, 1, 2], [0, 5, 3], *([k, k, 20] for k in range(1, 40))]
    path.write_text(json.dumps(result | {"top1_errors": 5, "top5_errors": 0}))
    page = read_page(write_report(run))
    assert "0–1 class 0 … 2 3 2–3 class 2 … 4–5 class 4 …" in page.text
    assert "class 0 class 5 3 20 class 0 class 1 2 20" in page.text


def test_a_small_result_of_very_many_classes_takes_no_memory_of_their_square(tmp_path: Path) -> None:
    row = {"name": "a", "n": 0, "top1_errors": 0, "top5_errors": 0}
    classes = [{**row, "n": 1, "top1_errors": 1}, *[row] * PICTURE_CLASSES]
    (tmp_path / "results").mkdir()
    result = {"n": 1, "top1_errors": 1, "top5_errors": 0, "classes": classes, "confusion": [[0, 1, 1]]}
    (tmp_path / "results" / "final-center.json").write_text(json.dumps(result))
    page = write_report(tmp_path).read_text("utf-8")
    assert "by blocks of" in page
    assert 'class="zoom"' not in page


@pytest.mark.parametrize(
    ("side", "said"),
    [(11, "After long training on photographs they are edges"), (7, "Kernels of 7 × 7 pixels are too small")],
)
def test_the_caption_of_kernels_calls_no_trained_network_untrained(
    tmp_path: Path, make_run: Callable[..., Path], read_page: Callable[[Path], Any], side: int, said: str
) -> None:
    run = make_run(tmp_path / "run")
    np.save(run / "results" / "conv1.npy", np.ones((8, 3, side, side), dtype=np.float32))
    page = read_page(write_report(run))
    assert said in page.text
    assert "untrained" not in page.text


def test_the_best_epoch_is_told_where_the_network_is_not_of_it():
    def rows(*errors):
        return [{"epoch": i, "val_top1_errors": num} for i, num in enumerate(errors, start=1)]

    assert _best_epoch(rows(6, 7, 8)) == "6 after epoch 1 (evaluate --best); model/ is of epoch 3, 8"
    assert _best_epoch(rows(8, 6, 7, 6)) == ""  # none is better than the last
    stopped = "6 after epoch 2, whose weights are model/ (early stopping, after epoch 3)"
    assert _best_epoch(rows(8, 6, 7), stopping=True) == stopped
    balanced = [row | {"val_balanced_top1_error": error} for row, error in zip(rows(6, 7), (0.5, 0.25), strict=True)]
    assert _best_epoch(balanced, stopping=True).startswith("25.0 % (mean of the classes) after epoch 2")
    assert _best_epoch([{"epoch": "x"}]) == _best_epoch([]) == ""


@pytest.mark.parametrize(("num_classes", "told"), [(5, False), (6, True)])
def test_top5_errors_are_left_out_where_five_answers_are_all(
    tmp_path: Path, make_run: Callable[..., Path], num_classes: int, told: bool
) -> None:
    page = write_report(make_run(tmp_path / "run", num_classes=num_classes)).read_text()
    assert ("Top-5 error" in page) == told
    assert ("among its first five" in page) == told
    assert ("val top-5" in page) == told


def test_the_error_has_its_interval(
    tmp_path: Path, make_run: Callable[..., Path], make_result: Callable[..., Any]
) -> None:
    run = make_run(tmp_path / "run", num_classes=6)
    path = run / "results" / "final-ten.json"
    result = json.loads(path.read_text())
    low, high = wilson(result["top1_errors"], result["n"])
    assert f"95 % interval {100 * low:.1f} to {100 * high:.1f} %" in write_report(run).read_text()
