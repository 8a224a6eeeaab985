from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from alexnet.core.errors import AlexNetError
from alexnet.data import pool
from alexnet.data.pool import in_processes


def square(x: int) -> int:
    return x * x


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_every_job_comes_back_with_its_result(workers: int):
    assert sorted(in_processes(square, range(20), workers)) == [(x, x * x) for x in range(20)]


def fail(x: int) -> int:
    if x == 3:
        raise ValueError("three")
    return x


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_worker_is_raised_here(workers: int):
    with pytest.raises(ValueError, match="three"):
        list(in_processes(fail, range(10), workers))


class TwoParts(Exception):
    """Can be sent, but not made again of what it says."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(f"{number}: {text}")


class Locked(Exception):
    """Cannot be sent."""

    def __init__(self) -> None:
        super().__init__("behind\na lock")
        self.lock = threading.Lock()


def raise_two_parts(x: int) -> int:
    raise TwoParts(x, "of two parts")


def raise_locked(x: int) -> int:
    raise Locked


@pytest.mark.parametrize(
    ("function", "text"),
    [(raise_two_parts, "TwoParts: 3: of two parts"), (raise_locked, "Locked: behind\\na lock")],
)
def test_an_error_that_cannot_be_sent_is_told(function: Callable[[int], int], text: str):
    with pytest.raises(AlexNetError) as caught:
        list(in_processes(function, [3] * 10, 2))
    assert str(caught.value) == text
    assert function.__name__ in caught.value.__notes__[0]


def die(x: int) -> int:
    if x == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def test_a_killed_worker_is_one_line_and_no_hang():
    with pytest.raises(AlexNetError, match=r"worker process \d+ was killed by SIGKILL"):
        list(in_processes(die, range(10), 2))


def wait(folder: Path) -> None:
    (folder / str(os.getpid())).touch()
    time.sleep(60)


def test_workers_do_not_outlive_a_killed_parent(tmp_path: Path):
    parent = os.fork()
    if parent == 0:
        list(in_processes(wait, [tmp_path] * 4, 2))
        os._exit(0)
    deadline = time.monotonic() + 20
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = [int(path.name) for path in tmp_path.iterdir()]
    assert len(workers) == 2
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    while any(is_running(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(is_running(pid) for pid in workers)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def stand_still(x: int) -> int:
    if x == 3:
        os.kill(os.getpid(), signal.SIGSTOP)
    return x


def test_a_stopped_worker_is_named_and_no_hang(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pool, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(pool, "STOPPED_SECONDS", 0.1)
    with pytest.raises(AlexNetError, match=r"worker process \d+ was stopped from outside"):
        list(in_processes(stand_still, range(10), 2))
    assert not multiprocessing.active_children()


def hang(x: int) -> int:
    if x == 3:
        threading.Event().wait()
    return x


def test_a_worker_that_does_nothing_is_named_and_no_hang(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pool, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(pool, "SILENT_SECONDS", 0.2)
    with pytest.raises(AlexNetError, match=r"worker process \d+ has done nothing for 0\.2 s \(state S\)"):
        list(in_processes(hang, range(10), 2))
    assert not multiprocessing.active_children()


def leave(x: int) -> int:
    if x == 3:
        os._exit(7)
    return x


def test_a_worker_that_leaves_is_named():
    with pytest.raises(AlexNetError, match=r"worker process \d+ ended with code 7"):
        list(in_processes(leave, range(10), 2))


def test_no_worker_stays_when_nobody_wants_the_rest():
    results = in_processes(square, range(1000), 2)
    next(results)
    results.close()
    assert not multiprocessing.active_children()
