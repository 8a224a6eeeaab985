"""Parts of a job: every piece in one part exactly, and locks that hold with and without those of files."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alexnet.core.errors import AlexNetError, UsageError
from alexnet.core.parts import Part, Work, alone, listed, locked, parse_part, parts_begun


@pytest.mark.parametrize("total", [1, 2, 3, 5, 9])
def test_every_piece_is_in_one_part_and_parts_differ_by_one_piece(total: int) -> None:
    pieces = list(range(7))
    parts = [Part(number, total).of(pieces) for number in range(1, total + 1)]
    assert sorted(piece for part in parts for piece in part) == pieces
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert list(Part(2, 3).of(pieces)) == [1, 4]


def test_a_part_is_written_as_number_of_total() -> None:
    assert parse_part("2/4") == Part(2, 4)
    assert str(Part(2, 4)) == "2/4"


@pytest.mark.parametrize(
    "text", ["0/2", "3/2", "x", "", "1/0", "-1/2", "1", "1/2/3", "1/2\n", " 1/2", "1.0/2", "٢/٤", "1/" + "9" * 5000]
)
def test_what_is_no_part_is_refused_on_one_line(text: str) -> None:
    with pytest.raises(UsageError, match="as in 2/4") as error:
        parse_part(text)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 120


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fingerprint": "another"}, "something else"),
        ({"parts": 2}, "begun in 3 parts; go on with --part I/3, or remove this folder to begin anew"),
    ],
)
def test_work_goes_on_only_as_it_was_begun(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    work, other = Work(tmp_path, {"a": 1}, 3, "mark", lambda: False), UsageError("something else")
    assert parts_begun(tmp_path) is None
    for _ in range(2):
        work.begin(tmp_path, other)
        assert parts_begun(tmp_path) == 3
    with pytest.raises(UsageError, match=said):
        replace(work, **changes).begin(tmp_path, other)


def test_what_is_to_do_is_counted_and_what_a_kill_left_of_it_is_removed(tmp_path: Path) -> None:
    work, said = Work(tmp_path, {"a": 5, "b": 6, "c": 7}, 1, "", lambda: False), list[tuple[int, int]]()
    for name in ("b.npz", ".a.npz.tmp-7", ".c.npz.tmp-7"):
        (tmp_path / name).touch()
    todo, ready = work.to_do(["a", "b"], lambda *counts: said.append(counts))
    assert todo == ["a"]
    ready("a")
    assert said == [(6, 11), (11, 11)]
    assert {path.name for path in tmp_path.iterdir()} == {"b.npz", ".c.npz.tmp-7"}  # c may be written by another part


def test_parts_with_work_left_are_those_that_are_not_all_done(tmp_path: Path) -> None:
    work = Work(tmp_path, dict.fromkeys("abcd", 1), 3, "", lambda: False)
    assert replace(work, parts=9).left() == [Part(number, 9) for number in (1, 2, 3, 4)]  # the others have no piece
    for name in ("a.npz", "b.placed", "c.bin", ".d.npz.tmp-7"):
        (tmp_path / name).touch()
    assert work.left() == [Part(1, 3), Part(3, 3)]  # of a d, b, c
    assert replace(work, finished=lambda: True).left() == []
    with pytest.raises(AlexNetError, match="parts 1/3, 3/3 not done; run prepare with --part for each"):
        work.require_done(tmp_path, "prepare")
    (tmp_path / "c.npz").touch()
    (tmp_path / "d.npz").touch()
    assert work.left() == []
    work.require_done(tmp_path, "prepare")
    assert listed([Part(1, 3)]) == "part 1/3"
    assert listed([Part(1, 3), Part(3, 3)]) == "parts 1/3, 3/3"
    assert listed([Part(number, 20) for number in range(1, 11)]).endswith("8/20 and 2 more")


@pytest.mark.parametrize("files_lock", [True, False])
def test_one_process_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files_lock: bool) -> None:
    original = fcntl.flock

    def folders_only(descriptor: object, operation: int) -> None:
        if not isinstance(descriptor, int):
            raise OSError(errno.ENOSYS, "Function not implemented")
        original(descriptor, operation)

    if not files_lock:
        monkeypatch.setattr(fcntl, "flock", folders_only)
    log = tmp_path / "log"
    log.touch()
    children = []
    for _ in range(3):
        if (child := os.fork()) == 0:
            with locked(tmp_path / "place"), open(log, "a") as file:
                file.write("in ")
                file.flush()
                time.sleep(0.02)
                file.write("out ")
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert log.read_text() == "in out " * 3


def test_a_second_process_is_refused_where_the_first_is_alone(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(AlexNetError, match="another process is writing to it; wait"), alone(tmp_path):
        pass
    with alone(tmp_path):  # again free
        assert list(tmp_path.iterdir()) == []


def test_other_failures_of_a_lock_are_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OSError, match="Input/output error"), locked(tmp_path / "place"):
        pass
