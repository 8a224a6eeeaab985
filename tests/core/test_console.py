"""The line of progress fits the terminal and keeps what one looks for."""

from __future__ import annotations

import math
import re

import pytest

from alexnet.core.console import Bar, bar_line, clock, say

FIELDS = (
    "epoch 3/90",
    "loss 2.301",
    "error 81.2%",
    "step 7104",
    "lr 0.01",
    "7,104/28,125 images 61/s",
    "0:00:38 elapsed",
)


def columns(text: str) -> int:
    """By hand: the characters of these tests that take two columns are the Chinese ones."""
    return sum(2 if "\u4e00" <= letter <= "\u9fff" else 1 for letter in text)


@pytest.mark.parametrize("width", [40, 79, 80, 120, 200])
@pytest.mark.parametrize("what", ["train", "prepare 照片/二零二六年的猫和狗", "prepare " + "x" * 300])
def test_a_line_has_bar_share_and_time_left_at_any_width(what, width):
    line = bar_line(what, 0.42, 83, FIELDS, width, ascii_only=False).plain
    assert columns(line) <= width
    assert line.count("━") + line.count("─") >= 8
    assert line.count("━") / (line.count("━") + line.count("─")) == pytest.approx(0.42, abs=0.1)
    assert " 42% 0:01:23 left" in line
    assert what[:5] in line


def test_more_fields_stand_where_there_is_more_room():
    at = {width: bar_line("train", 0.42, 83, FIELDS, width, ascii_only=False).plain for width in (40, 80, 200)}
    assert at[40] == "train " + "━" * 6 + "─" * 10 + "  42% 0:01:23 left"
    assert "epoch 3/90  loss 2.301" in at[80]
    assert "step" not in at[80]
    assert at[200].endswith("7,104/28,125 images 61/s  0:00:38 elapsed")


def test_a_terminal_without_such_letters_gets_others():
    line = bar_line("train", 0.5, math.inf, (), 60, ascii_only=True).plain
    assert line.isascii()
    assert "############------------  50% -:--:-- left" in line


def test_time_left_is_what_is_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("alexnet.core.console.time.monotonic", lambda: now[0])
    bar = Bar("train", 300, done=100)
    now[0] = 150.0
    bar.update(150)  # 50 in 50 s, 150 to go
    assert bar._left() == pytest.approx(150)
    assert clock(bar._left()) == "0:02:30"
    assert clock(14_697) == "4:04:57"


def test_where_there_is_no_terminal_a_line_says_the_time_left(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr("alexnet.core.console.time.monotonic", lambda: now[0])
    bar = Bar("train", 200)
    now[0] = 40.0
    bar.update(40, "epoch 1/3  loss 2.301")
    assert capsys.readouterr().err == "train: 40/200 images 1/s epoch 1/3 loss 2.301, 0:02:40 left\n"


@pytest.mark.parametrize("width", [40, 80])
def test_a_terminal_shows_one_line_and_messages_above_it(width, on_a_terminal):
    def work():
        with Bar("prepare 照片/[red]猫", 100) as bar:
            bar.update(50, "epoch 1/3  loss 2.301")
            bar.live.refresh()
            say("left out: 一.jpg")
            bar.live.refresh()

    shown = on_a_terminal(width, work)
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).replace("\r", "\n").split("\n")
    assert "left out: 一.jpg" in lines
    drawn = [line for line in lines if "%" in line]
    assert all(line.startswith("prepare 照") and "left" in line for line in drawn)
    assert any(" 50% " in line for line in drawn)
    assert max(map(columns, lines)) < width


@pytest.mark.parametrize(("term", "live"), [("xterm", True), ("dumb", False)])
def test_a_terminal_that_cannot_move_its_cursor_gets_lines(monkeypatch, term, live):
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr("alexnet.core.console.LINE_SECONDS", 0.0)
    with Bar("train", 10) as bar:
        assert (bar.live is not None) == live


@pytest.mark.parametrize(
    ("variables", "colored"),
    [({"FORCE_COLOR": "1"}, True), ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False), ({}, False)],
)
def test_colors_are_as_the_environment_asks(monkeypatch, capsys, variables, colored):
    from alexnet.cli import main

    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        main(["claims", "list", "C1", "C2", "C3"])
    assert bool(re.search(r"\x1b\[[0-9;]*3[1-6]", capsys.readouterr().out)) == colored
