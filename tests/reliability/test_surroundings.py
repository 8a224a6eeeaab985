"""What a run meets on a machine: another trainer, little memory, no shared memory, a full log, a clock that jumps, ten thousand
steps."""

from __future__ import annotations

import errno
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from faults import (
    finish,
    logged_step,
    one_line,
    same,
    started,
    training,
    uninterrupted,
    wait_until,
)
from processes import little_memory, long_run, without_shared_memory

from shared import content, make_photographs

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]
NOT_ALLOWED = 99


def test_a_second_trainer_is_refused_and_the_lock_of_a_killed_one_is_taken_over(tiny_set, tmp_path):
    expected, _ = uninterrupted(tiny_set.path, tmp_path)
    out = tmp_path / "run"
    with started(training(tiny_set.path, out), tmp_path / "first.txt") as first:
        assert wait_until(lambda: logged_step(out) >= 2)
        first.send(signal.SIGSTOP)
        code, text = finish(training(tiny_set.path, out), tmp_path / "second.txt")
        assert (code, one_line(text)) == (1, True), text
        assert f"process {first.pid} is training here" in text
        first.send(signal.SIGKILL)
        first.code()
    assert (out / ".lock").exists()
    code, text = finish(training(tiny_set.path, out), tmp_path / "third.txt")
    assert code == 0, text
    assert same(out, expected) == []


def test_too_little_memory_is_one_line_with_a_way_out(tiny_set, tmp_path):
    options = ("--batch-size", "54", "--model.conv-channels", *["256"] * 5)  # what is computed, not the weights
    code, text = finish(
        training(tiny_set.path, tmp_path / "run", *options), tmp_path / "said.txt", partial(little_memory, 60 << 20)
    )
    assert (code, one_line(text)) == (1, True), text
    assert "not enough memory; take a smaller --batch-size" in text


def test_nothing_needs_shared_memory(tiny_set, tmp_path):
    source, said = make_photographs(tmp_path / "source"), tmp_path / "said.txt"
    prepared = partial(_prepare, source)
    code, text = finish(prepared(tmp_path / "set"), said, without_shared_memory)
    if code == NOT_ALLOWED:
        pytest.skip("this user may not have a /dev/shm of their own")
    assert code == 0, text
    assert finish(prepared(tmp_path / "usual"), said)[0] == 0
    assert content(tmp_path / "set") == content(tmp_path / "usual")
    expected, _ = uninterrupted(tiny_set.path, tmp_path)
    code, text = finish(training(tiny_set.path, tmp_path / "run"), said, without_shared_memory)
    assert code == 0, text
    assert same(tmp_path / "run", expected) == []


def _prepare(source: Path, out: Path) -> list[str]:
    return ["prepare", str(source), str(out), "--size", "36", "--workers", "2"]


def test_a_log_that_takes_nothing_is_one_line(tiny_set, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "log.jsonl").symlink_to("/dev/full")
    code, text = finish(training(tiny_set.path, out), tmp_path / "said.txt")
    assert (code, one_line(text)) == (1, True), text


def test_scalars_that_cannot_be_written_are_one_line(tiny_set, tmp_path):
    """TensorBoard writes them in a thread of its own, which would print its fault as well."""
    pytest.importorskip("tensorboard")
    code, text = finish(training(tiny_set.path, tmp_path / "run"), tmp_path / "said.txt", _full_scalars)
    assert (code, one_line(text)) == (1, True), text
    assert "No space left on device" in text


def _full_scalars() -> None:
    from tensorboard.summary.writer import record_writer

    def write(_self: object, _data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    record_writer.RecordWriter.write = write


def test_stderr_that_takes_nothing_loses_no_run(tiny_set, tmp_path):
    expected, _ = uninterrupted(tiny_set.path, tmp_path)
    code, _ = finish(training(tiny_set.path, tmp_path / "run"), tmp_path / "said.txt", _full_stderr)
    assert code == 0
    assert same(tmp_path / "run", expected) == []


def _full_stderr() -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), 2)


def test_a_clock_that_jumps_changes_nothing(tiny_set, tmp_path):
    expected, _ = uninterrupted(tiny_set.path, tmp_path)
    code, text = finish(training(tiny_set.path, tmp_path / "run"), tmp_path / "said.txt", _jumping_clock)
    assert code == 0, text
    assert same(tmp_path / "run", expected) == []


def _jumping_clock() -> None:
    times = iter(range(10**9))
    now = time.time
    time.time = lambda: now() + 10**8 * (-1) ** next(times)


def test_ten_thousand_steps_take_no_more_than_the_first(tiny_set, tmp_path):
    figure = long_run(tiny_set.path, tmp_path, 10_000)
    assert figure.failures == []
