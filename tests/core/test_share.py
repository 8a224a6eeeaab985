"""Parts of a job: every piece in one part exactly, and locks that hold with and without those of files."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path

import pytest

from alexnet.core.errors import AlexNetError, UsageError
from alexnet.core.share import Share, alone, listed, locked, parse_share, unfinished


@pytest.mark.parametrize("total", [1, 2, 3, 5, 9])
def test_every_piece_is_in_one_part_and_parts_differ_by_one_piece(total: int) -> None:
    pieces = list(range(7))
    parts = [Share(number, total).of(pieces) for number in range(1, total + 1)]
    assert sorted(piece for part in parts for piece in part) == pieces
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert list(Share(2, 3).of(pieces)) == [1, 4]


def test_a_part_is_written_as_number_of_total() -> None:
    assert parse_share("2/4") == Share(2, 4)
    assert str(Share(2, 4)) == "2/4"


@pytest.mark.parametrize(
    "text", ["0/2", "3/2", "x", "", "1/0", "-1/2", "1", "1/2/3", "1/2\n", " 1/2", "1.0/2", "٢/٤", "1/" + "9" * 5000]
)
def test_what_is_no_part_is_refused_on_one_line(text: str) -> None:
    with pytest.raises(UsageError, match="as in 2/4") as error:
        parse_share(text)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 120


def test_parts_with_work_left_are_those_that_are_not_all_done() -> None:
    pieces = ["a", "b", "c", "d"]
    assert unfinished(pieces, {"a", "b"}, 3) == [Share(1, 3), Share(3, 3)]  # of a d, b, c
    assert unfinished(pieces, set(pieces), 3) == []
    assert unfinished(pieces, set(), 9) == [Share(number, 9) for number in (1, 2, 3, 4)]  # the others have no piece
    assert listed([Share(1, 3)]) == "part 1/3"
    assert listed([Share(1, 3), Share(3, 3)]) == "parts 1/3, 3/3"
    assert listed([Share(number, 20) for number in range(1, 11)]).endswith("8/20 and 2 more")


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
