"""The report page: what it says is what the files of the run say, whatever is in them and whatever is missing."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet.core.errors import UsageError
from alexnet.report.page import write_report

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "{{ 7*7 }}{% for x in y %}",
    "</title></style><svg onload=alert(1)>",
    "javascript:alert(1)",
    "$\\frac{1}{$ %s \u202egpj.exe \x00\x07 line\nbreak \udc80",
)
ELEMENTS = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "header",
        "div",
        "span",
        "h1",
        "h2",
        "p",
        "b",
        "i",
        "pre",
    ),
    *("dl", "dt", "dd", "ul", "li", "figure", "figcaption", "img", "details", "summary"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td"),
    *("svg", "defs", "g", "path", "use", "text", "clippath", "rect"),
}
VOID = {"meta", "img"}


class Page(HTMLParser):
    """The elements, attributes and text of a page, with a check that every element is closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.source = path.read_text("utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words += data.split()

    @property
    def text(self) -> str:
        return " ".join(self.words)


def make_run(run: Path, name: Any = lambda what: what, num_classes: int = 3) -> Path:
    """The files of a finished run. Every string in them is ``name(what it is)``."""
    (run / "results").mkdir(parents=True)
    train = {
        "recipe": name("quickstart"),
        "network": name("alexnet_2012"),
        "data": name("shapes"),
        "epochs": 2,
        "seed": 0,
    }
    config = {"train": train, "data": {"path": name("/cache/shapes")}, "fingerprint": "00ff"}
    environment = {"torch": name("2.13.0"), "command": ["alexnet", "train", name("quickstart"), "--out", name("a run")]}
    rows: list[dict[str, Any]] = [{"event": "note", "step": 0, "message": name("features hardly differ")}]
    for epoch in (1, 2):
        for step in (10 * epoch - 5, 10 * epoch):
            rows.append(
                {"event": "step", "step": step, "epoch": epoch, "loss": 2.5 / step, "lr": 0.01, "images_per_second": 70}
            )
        rows.append(
            {
                "event": "epoch",
                "epoch": epoch,
                "step": 10 * epoch,
                "train_loss": 1 / epoch,
                "train_top1_error": 0.5 / epoch,
            }
            | {"val_n": 60, "val_top1_errors": 30 // epoch, "val_top5_errors": 0, "val_top1_error": 0.5 / epoch}
            | {"val_top5_error": 0.0, "val_loss": 1.2 / epoch, "lr": 0.01, "seconds": 65.0 * epoch}
            | {"dead_filters": {name("conv1"): [0, 2]}}
        )
    write(run / "config.json", config)
    write(run / "environment.json", environment)
    (run / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for stem, views, wrong in [("final-center", "1", 18), ("final-ten", "10", 15)]:
        write(run / "results" / f"{stem}.json", make_result(name, num_classes, views, wrong))
    np.save(run / "results" / "conv1.npy", np.random.default_rng(0).normal(size=(96, 3, 11, 11)).astype(np.float32))
    write(run / "results" / "kernels.json", {"layer": "conv1", "towers": 2, "channels": 3})
    return run


def make_result(name: Any, num_classes: int, views: str, wrong: int) -> dict[str, Any]:
    """20 images a class; ``wrong`` images of class 0 are taken for class 1."""
    n = 20 * num_classes
    return {
        "n": n,
        "top1_errors": wrong,
        "top5_errors": 1,
        "top1_error": wrong / n,
        "top5_error": 1 / n,
        "views": views,
        "loss_nats": 0.6543,
        "protocol": {"views": views, "averaging": name("mean of softmax"), "preprocessing": {"resize": 256, "std": []}},
        "environment": {},
        "classes": [
            {"name": name(f"class {k}"), "n": 20, "top1_errors": wrong if k == 0 else 0, "top5_errors": int(k == 0)}
            for k in range(num_classes)
        ],
        "confusion": [[0, 0, 20 - wrong], [0, 1, wrong], *([k, k, 20] for k in range(1, num_classes))],
        "mistakes": [
            {"path": name("val/a.jpg"), "label": 0, "predicted": 1, "probability": 0.987, "label_probability": 0.01}
        ],
    }


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), "utf-8")


def assert_harmless(page: Page) -> None:
    assert page.elements <= ELEMENTS
    for name, value in page.attributes:
        assert not name.startswith("on")
        if name in ("src", "href"):
            assert value is not None
            assert value.startswith(("data:image/png;base64,", "#"))
    for outside in ("http:", "https:", "//", "@import", "url(h", "xlink", "<script", "<link", "<iframe"):
        # base64 holds "//" too, so pictures are left out
        assert outside not in "".join(part for part in page.source.split('"') if not part.startswith("data:image"))


def test_the_page_says_what_the_files_say(tmp_path: Path) -> None:
    path = write_report(make_run(tmp_path / "run"))
    assert path == tmp_path / "run" / "report.html"
    page = Page(path)
    assert_harmless(page)
    for said in [
        "alexnet_2012 on shapes", "finished", "Of 60 images it was not trained on, the network named 45 right",
        "among its first five for 59", "25.0 %", "15 of 60 images, ten views", "1.7 %", "0.654 nats an image; 1.10 for a guess",
        "Epochs 2 Steps 20", "2 min 10 s", "70 images/s", "18 30.0 %", "conv1 0 + 2", "features hardly differ",
        "class 0 20 15 75.0 %", "class 1 15", "val/a.jpg class 0 class 1 98.7 %", "alexnet train quickstart --out 'a run'",
        "train.epochs 2", "preprocessing.resize 256", "torch 2.13.0", "The 96 kernels of conv1, 11 × 11 pixels",
    ]:  # fmt: skip
        assert said in page.text, said
    assert "Missing from this report" not in page.text
    hardest_first = page.text.partition("Class by class")[2]
    assert hardest_first.index("class 0 20") < hardest_first.index("class 1 20") < hardest_first.index("class 2 20")


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("num_classes", [3, 40])
def test_hostile_strings_stay_text(tmp_path: Path, hostile: str, num_classes: int) -> None:
    plain = Page(write_report(make_run(tmp_path / "plain", num_classes=num_classes)))
    page = Page(write_report(make_run(tmp_path / "run", lambda what: hostile, num_classes)))
    assert_harmless(page)
    assert page.elements == plain.elements
    assert "49" not in page.text.split("How this was made")[0].split()  # {{ 7*7 }} was not computed
    assert not any(character in page.source for character in "\x00\x07\u202e\ufffd")


def test_the_page_is_the_same_every_time(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def test_a_page_needs_no_network_code(tmp_path: Path) -> None:
    # The report cannot invent a number: it is made without torch, models and data.
    make_run(tmp_path / "run")
    code = (
        "import sys; from pathlib import Path; from alexnet.report.page import write_report\n"
        f"write_report(Path({str(tmp_path / 'run')!r}))\n"
        "assert not {'torch', 'alexnet.models', 'alexnet.data', 'alexnet.evaluation'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Unfinished and damaged runs ------------------------------------------------------------------------------------------


def test_an_unfinished_run_shows_its_last_validation(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    shutil.rmtree(run / "results")
    page = Page(write_report(run))
    assert_harmless(page)
    for said in ["unfinished", "after epoch 2", "25.0 % 15 of 60 images, center view", "there is no final evaluation"]:
        assert said in page.text
    assert "What the first layer looks for" not in page.text


def test_a_cut_last_line_is_dropped_and_said(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    log = (run / "log.jsonl").read_bytes()
    (run / "log.jsonl").write_bytes(log[:-30])
    page = Page(write_report(run))
    assert "log.jsonl: 1 cut or damaged line left out" in page.text
    assert "Epochs 1 of 2" in page.text


def test_a_lost_log_is_replaced_by_the_summary(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "log.jsonl").unlink()
    (run / "summary.csv").write_text("epoch,step,train_loss,val_top1_errors,val_n,val_loss\n1,10,2.5,30,60,2.25\n")
    page = Page(write_report(run))
    assert_harmless(page)
    assert "log.jsonl has no rows: the curves are those of summary.csv" in page.text
    assert "1 10 2.5000 – 2.2500 30 of 60" in page.text
    assert 'aria-label="Training curves' in page.source


def test_an_empty_run_gets_a_page(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    page = Page(write_report(tmp_path / "run"))
    assert_harmless(page)
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


def test_rows_that_are_not_finite_or_not_numbers_leave_gaps(tmp_path: Path) -> None:
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
    page = Page(write_report(run))
    assert_harmless(page)
    assert "log.jsonl: 2 cut or damaged lines left out" in page.text


@pytest.mark.parametrize(
    "file", ["config.json", "environment.json", "log.jsonl", "results/final-ten.json", "results/conv1.npy"]
)
def test_no_damage_to_a_file_keeps_the_page_from_being_written(tmp_path: Path, file: str) -> None:
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
        assert_harmless(Page(write_report(run)))


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
def test_a_result_that_contradicts_itself_is_not_shown(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    run = make_run(tmp_path / "run")
    write(run / "results" / "final-ten.json", make_result(lambda what: what, 3, "10", 15) | change)
    page = Page(write_report(run))
    assert "results/final-ten.json is not readable" in page.text
    assert said in page.text
    assert "18 of 60 images, center view" in page.text  # the sound result is used instead


def test_a_pickled_array_is_not_opened(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    np.save(run / "results" / "conv1.npy", np.array([{}], dtype=object), allow_pickle=True)
    page = Page(write_report(run))
    assert "results/conv1.npy is not readable" in page.text


def test_many_classes_become_a_picture_and_a_folded_list(tmp_path: Path) -> None:
    page = Page(write_report(make_run(tmp_path / "run", num_classes=40)))
    assert "The other 20 classes" in page.text
    assert 'alt="Confusion matrix"' in page.source
    few = Page(write_report(make_run(tmp_path / "few", num_classes=32)))
    assert 'alt="Confusion matrix"' not in few.source
    assert "What is taken for what" in few.text
