"""Runs side by side: errors are compared where they may be, and every difference is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alexnet.cli.info import report
from alexnet.core.errors import UsageError
from alexnet.report.comparison import write_comparison

MakeRun = Callable[..., Path]
ReadPage = Callable[[Path], Any]


def edit(path: Path, **changes: Any) -> None:
    """Fields of a JSON file, dots for depth written as __, set to other values."""
    value = json.loads(path.read_text())
    for name, item in changes.items():
        *above, last = name.split("__")
        inner = value
        for key in above:
            inner = inner[key]
        inner[last] = item
    path.write_text(json.dumps(value))


@pytest.fixture
def runs(tmp_path: Path, make_run: MakeRun) -> list[Path]:
    """b has another seed and 9 errors fewer; c another precision."""
    a, b, c = (make_run(tmp_path / name) for name in "abc")
    edit(b / "config.json", train__seed=1, fingerprint="0100")
    edit(b / "environment.json", torch="2.12.0", command=["x"])
    confusion = [[0, 0, 14], [0, 1, 6], [1, 1, 20], [2, 2, 20]]
    classes = [{"name": f"class {k}", "n": 20, "top1_errors": 6 * (k == 0), "top5_errors": 0} for k in range(3)]
    edit(b / "results" / "final-ten.json", top1_errors=6, confusion=confusion, classes=classes)
    edit(c / "results" / "final-ten.json", protocol__averaging="of logits", protocol__preprocessing__resize=64)
    return [a, b, c]


def test_errors_are_compared_where_protocols_are_equal(runs: list[Path], tmp_path: Path, read_page: ReadPage) -> None:
    page = read_page(write_comparison(runs, tmp_path / "page.html"))
    # 15 and 6 of 60: 25 % and 10 %, 15 points; 196 * sqrt((.25 * .75 + .1 * .9) / 60) = 13.3.
    for said in [
        "3 runs compared", "A a alexnet_2012 on shapes, recipe quickstart B b",
        "A 25.0 % 15.8 to 37.2 % 15 1.7 % 1 60 0.6543 B 10.0 % 4.7 to 20.1 % 6",
        "0.6543 −15.0 ± 13.3 C 25.0 % 15.8 to 37.2 % 15", "0.6543 protocol differs Not all of these were measured alike",
        "They differ in: A B C averaging mean of softmax mean of softmax of logits preprocessing.resize 256 256 64",
        "Center view", "+0.0 ± 16.4",
        "The protocols differ",
    ]:  # fmt: skip
        assert said in page.text, said
    assert page.text.count("Not all of these were measured alike") == 1  # the center views were


def test_another_number_of_images_is_another_protocol(runs: list[Path], tmp_path: Path, read_page: ReadPage) -> None:
    for name in ("final-ten", "final-center"):
        edit(runs[1] / "results" / f"{name}.json", n=61)
    page = read_page(write_comparison(runs[:2], tmp_path / "page.html"))
    assert "They differ in: A B images 60 61" in page.text
    assert "±" not in page.text.partition("The 95 % intervals say")[0]


def test_differences_of_settings_and_machines_are_named(runs: list[Path], tmp_path: Path, read_page: ReadPage) -> None:
    page = read_page(write_comparison(runs, tmp_path / "page.html"))
    assert (
        "Different settings A B C train.seed 0 1 0 Different machines and versions A B C torch 2.13.0 2.12.0 2.13.0"
        in (page.text)
    )
    alike = read_page(write_comparison([runs[0], runs[2]], tmp_path / "page.html"))
    assert "None: the configurations are equal" in alike.text
    assert "None: machines and versions are equal" in alike.text


def test_classes_stand_side_by_side_the_most_different_first(
    runs: list[Path], tmp_path: Path, read_page: ReadPage, make_run: MakeRun
) -> None:
    edit(runs[1] / "results" / "final-center.json", n=60)
    page = read_page(write_comparison(runs[:2], tmp_path / "page.html"))
    assert "spread, points 0 class 0 75.0 % 30.0 % 45.0 1 class 1 0.0 % 0.0 % 0.0" in page.text
    assert "The protocols differ" not in page.text
    wider = make_run(tmp_path / "wider", num_classes=5)
    page = read_page(write_comparison([runs[0], wider], tmp_path / "page.html"))
    assert "2 classes that not all runs know are left out" in page.text
    strangers = make_run(tmp_path / "strangers", lambda what: what.replace("class", "kind"))
    assert "no class in common" in read_page(write_comparison([runs[0], strangers], tmp_path / "page.html")).text


def test_classes_of_one_name_are_not_confused(runs: list[Path], tmp_path: Path, read_page: ReadPage) -> None:
    for run, errors in zip(runs[:2], ((15, 0, 0), (0, 0, 15)), strict=True):
        names = ("crane", "heron", "crane")
        classes = [
            {"name": name, "n": 20, "top1_errors": e, "top5_errors": 0} for name, e in zip(names, errors, strict=True)
        ]
        edit(run / "results" / "final-ten.json", top1_errors=15, classes=classes)
    page = read_page(write_comparison(runs[:2], tmp_path / "page.html"))
    assert "0 crane 75.0 % 0.0 % 75.0 2 crane 0.0 % 75.0 % 75.0 1 heron" in page.text


def test_hostile_strings_stay_text(tmp_path: Path, hostile: str, make_run: MakeRun, read_page: ReadPage) -> None:
    runs = [make_run(tmp_path / "a", lambda what: hostile), make_run(tmp_path / "b", lambda what: hostile + "2")]
    (runs[0] / "results" / "final-center.json").rename(runs[0] / "results" / "<img src=x onerror=alert(1)>.json")
    page = read_page(write_comparison(runs, tmp_path / "page.html"))
    assert not any(character in page.source for character in "\x00\x07\u202e\ufffd")


def test_unfinished_and_damaged_runs_are_compared_as_far_as_they_go(
    runs: list[Path], tmp_path: Path, read_page: ReadPage
) -> None:
    shutil.rmtree(runs[1] / "results")
    (runs[2] / "config.json").write_text('{"a":' * 900 + "1" + "}" * 900)
    (runs[2] / "results" / "final-ten.json").write_text("{}")
    page = read_page(write_comparison(runs, tmp_path / "page.html"))
    for said in [
        "B: there is no final evaluation in results/",
        "C: results/final-ten.json is not readable",
        "unfinished",
    ]:
        assert said in page.text


def test_runs_of_one_name_are_told_apart_by_their_folders(
    tmp_path: Path, make_run: MakeRun, read_page: ReadPage
) -> None:
    runs = [make_run(tmp_path / seed / "modern") for seed in ("s0", "s1")]
    page = read_page(write_comparison(runs, tmp_path / "page.html"))
    assert "A s0/modern alexnet_2012" in page.text
    twice = read_page(write_comparison([runs[0], runs[0]], tmp_path / "page.html"))
    assert "A modern alexnet_2012" in twice.text


def test_the_page_is_the_same_every_time(runs: list[Path], tmp_path: Path) -> None:
    first = write_comparison(runs, tmp_path / "page.html").read_bytes()
    assert write_comparison(runs, tmp_path / "page.html").read_bytes() == first


def test_the_verb_compares_several_runs_and_reports_one(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert report([str(runs[0])]) == 0
    assert capsys.readouterr().out == f"{runs[0] / 'report.html'}\n"
    assert report(["a", "b"]) == 0
    assert capsys.readouterr().out == "comparison.html\n"
    assert report(["a", "b", "--out", "c/page.html"]) == 0
    assert (tmp_path / "comparison.html").read_bytes() == (runs[2] / "page.html").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "needs a run"),
        (["a", "--out", "x.html"], "--out names the page that compares"),
        (["a", "nowhere"], "nowhere: not a run"),
        (["a", "b", "--out", "nowhere/x.html"], "nowhere: no such folder"),
        (["a", "b", "--out", "c"], "c is a folder"),
        (["a"] * 27, "a comparison takes 2 to 26 runs, and 27 were named"),
    ],
)
def test_a_wrong_invocation_writes_nothing(
    runs: list[Path], arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=said):
        report(arguments)
    assert not list(tmp_path.rglob("*.html"))


def test_errors_are_points_with_wilsons_interval_on_one_axis(
    runs: list[Path], tmp_path: Path, read_page: ReadPage
) -> None:
    page = read_page(write_comparison(runs[:2], tmp_path / "page.html"))
    assert (
        "4.7 to 37.2 %" in page.text
    )  # of 6 and of 15 errors of 60, from the lower end of one to the upper of the other
    # 15 / 60: from 15.78 to 37.23, 25; on an axis from 4.66 to 37.23 those are 34.1, 100 and 62.4 %.
    assert "--low: 34.1%; --at: 62.4%; --high: 100.0%" in page.source


def test_fingerprints_are_shown_by_their_first_digits(runs: list[Path], tmp_path: Path, read_page: ReadPage) -> None:
    for run, digit in zip(runs[:2], "ab", strict=True):
        edit(run / "config.json", data__fingerprint=digit * 64)
    page = read_page(write_comparison(runs[:2], tmp_path / "page.html"))
    assert "data.fingerprint aaaaaaaaaaaa… bbbbbbbbbbbb…" in page.text
    assert "a" * 13 not in page.text
