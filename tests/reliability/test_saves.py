"""A save is all or nothing, whatever the system says to which call; and a run survives it."""

from __future__ import annotations

import pytest
from faults import Figure
from processes import full_disk
from saves import ERRORS, errors, kills, order, run_errors, strace_works


@pytest.fixture(autouse=True)
def _strace() -> None:
    if why := strace_works():
        pytest.skip(f"faults of system calls cannot be injected: {why}")


def test_a_save_syncs_what_it_renames_and_then_the_folder(tmp_path):
    assert order(tmp_path).failures == []


def test_a_save_that_is_killed_leaves_the_old_checkpoint_or_the_new(tmp_path):
    figure = kills(tmp_path, every=41)
    assert (figure.count >= 4, figure.failures) == (True, [])


def test_a_save_that_fails_says_so_and_leaves_the_checkpoint_before(tmp_path):
    figure = errors(tmp_path, every=41, names=("ENOSPC",))
    assert (figure.count >= 4, figure.failures) == (True, [])


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_killed_at_every_call_of_three_saves(tmp_path):
    figure = kills(tmp_path)
    assert (figure.count >= 150, figure.failures) == (True, [])
    assert figure.details["loaded"].keys() == {"the one before", "the new one"}


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("error", ERRORS)
def test_every_error_at_every_call_of_three_saves(error, tmp_path):
    figure = errors(tmp_path, names=(error,))
    assert (figure.count >= 150, figure.failures) == (True, [])


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_errors_at_random_calls_of_a_whole_run(tiny_set, tmp_path):
    figure = run_errors(tiny_set.path, tmp_path, 60, seed=1)
    assert (figure.count, figure.failures) == (60, [])


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_full_disk_is_one_line_and_costs_at_most_an_interval(tiny_set, tmp_path):
    figure = full_disk(tiny_set.path, tmp_path, seed=0)
    assert figure.failures == []
    if "left_out" in figure.details:
        pytest.skip(figure.details["left_out"])


def test_a_failure_is_counted():
    figure = Figure()
    figure.check(True, "kept")
    figure.check(False, "not kept")
    assert figure.failures == ["not kept"]
