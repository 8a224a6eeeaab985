"""Numbers as a person reads them."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from alexnet.core.errors import AlexNetError
from alexnet.report.tables import MAX_LINE_BYTES, count, duration, figure, flatten, percent, read_log, read_summary


@pytest.mark.parametrize(
    ("part", "whole", "said"),
    [
        (1, 3, "33.3 %"),
        (3747, 10_000, "37.47 %"),
        (0, 5, "0.0 %"),
        (0.125, 1.0, "12.5 %"),
        (1, 0, "–"),
        ("x", 1, "–"),
        (math.nan, 1, "–"),
    ],
)
def test_percent(part: object, whole: float, said: str) -> None:
    assert percent(part, whole) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (58, "58 s"), (59.6, "1 min 0 s"), (250, "4 min 10 s"), (11_520, "3 h 12 min"), (None, "–")],
)
def test_duration(seconds: object, said: str) -> None:
    assert duration(seconds) == said


def test_numbers_and_counts_that_are_none_are_dashes() -> None:
    assert [figure(1.23456), figure(2, 1), figure(math.nan), figure("1"), figure(True)] == [
        "1.235",
        "2.0",
        "–",
        "–",
        "–",
    ]
    assert [count(1234567), count(1.5), count(None)] == ["1,234,567", "–", "–"]


def test_settings_are_flattened_to_dotted_names() -> None:
    value = {"a": {"b": 1, "c": [1, 2.5, "x"]}, "d": None, "e": True, "f": [], "g": {}}
    assert flatten(value) == [("a.b", "1"), ("a.c", "1, 2.5, x"), ("d", "none"), ("e", "yes"), ("f", "none")]


def test_settings_of_any_depth_and_length_are_shown_in_part() -> None:
    deep: object = 1
    for _ in range(500):
        deep = {"a": deep}
    ((name, text),) = flatten(deep)
    assert name == ".".join("a" * 8)
    assert len(text) < 100
    assert flatten({"x": list(range(1000))})[0][1].endswith("63, … (1,000)")


def test_a_log_is_read_row_by_row(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(
        b'{"event": "step", "step": 1, "loss": 2.5}\n{"event": "step", "step": 2, "loss": NaN, "lr": "x"}\n'
        b'{"event": "epoch", "epoch": 1}\n{"event": "note", "message": "hello"}\n{"event": "new"}\n{"event": "ste'
    )
    log = read_log(tmp_path / "log.jsonl")
    assert log.steps["step"].tolist() == [1, 2]
    assert log.steps["loss"][0] == 2.5
    assert math.isnan(log.steps["loss"][1])
    assert all(map(math.isnan, log.steps["lr"]))
    assert (log.epochs, log.notes, log.dropped) == ([{"event": "epoch", "epoch": 1}], ["hello"], 1)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_pipes_and_devices_are_not_opened(tmp_path: Path, kind: str) -> None:
    for name in ("log.jsonl", "summary.csv"):
        if kind == "pipe":
            os.mkfifo(tmp_path / name)
        else:
            (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(AlexNetError, match="regular"):
        read_log(tmp_path / "log.jsonl")
    assert read_summary(tmp_path / "summary.csv") == []


def test_a_line_without_end_is_a_damaged_row(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(b"1" * (MAX_LINE_BYTES + 5) + b'\n{"event": "step", "step": 1}\n')
    log = read_log(tmp_path / "log.jsonl")
    assert (log.dropped, list(log.steps["step"])) == (2, [1.0])
