"""A run that is told to stop finishes its step, saves, and says so; what it cannot catch costs an interval at most."""

from __future__ import annotations

import io
import signal
import sys

import pytest
from faults import INTERVAL, finish, logged_step, same, saved_step, started, training, uninterrupted, wait_until
from processes import signals

from alexnet.core.signals import StopRequest


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_fifty_requests_at_random_moments(number, tiny_set, tmp_path):
    figure = signals(tiny_set.path, tmp_path, number, 50, seed=0)
    assert (figure.count, figure.failures) == (50, [])


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_second_request_leaves_at_once(tiny_set, tmp_path):
    figure = signals(tiny_set.path, tmp_path, signal.SIGINT, 10, seed=0, twice=True)
    assert (figure.count, figure.failures) == (10, [])


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT])
def test_another_signal_is_no_worse_than_a_kill(number, tiny_set, tmp_path):
    expected, _ = uninterrupted(tiny_set.path, tmp_path)
    out = tmp_path / "run"
    with started(training(tiny_set.path, out), tmp_path / "said.txt") as command:
        wait_until(lambda: logged_step(out) >= 10 or not command.process.is_alive())
        command.send(number)
        assert command.code() == -number
        assert logged_step(out) - saved_step(out) <= INTERVAL
    code, text = finish(training(tiny_set.path, out), tmp_path / "said.txt")
    assert code == 0, text
    assert same(out, expected) == []


def _stop_at_once() -> None:
    """Ask as soon as there is a handler, before the first step."""
    enter = StopRequest.__enter__

    def entered(self: StopRequest) -> StopRequest:
        enter(self)
        signal.raise_signal(signal.SIGTERM)
        return self

    StopRequest.__enter__ = entered  # type: ignore[method-assign]


def _stop_in_each_save() -> None:
    from alexnet.training import trainer

    save = trainer.save_checkpoint

    def saving(*arguments: object, **settings: object) -> None:
        if not stopped:
            stopped.append(True)
            signal.raise_signal(signal.SIGTERM)
        save(*arguments, **settings)  # type: ignore[arg-type]

    stopped: list[bool] = []
    trainer.save_checkpoint = saving  # type: ignore[attr-defined]


def _stop_in_validation() -> None:
    from alexnet.training import trainer

    evaluate = trainer.evaluate_split

    def evaluating(*arguments: object, **settings: object) -> object:
        signal.raise_signal(signal.SIGTERM)
        return evaluate(*arguments, **settings)  # type: ignore[arg-type]

    trainer.evaluate_split = evaluating  # type: ignore[attr-defined]


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("moment", "steps"), [(_stop_at_once, 1), (_stop_in_each_save, INTERVAL + 1), (_stop_in_validation, 7)]
)
def test_a_request_before_the_first_step_in_a_save_or_in_validation(moment, steps, tiny_set, tmp_path):
    expected, _ = uninterrupted(tiny_set.path, tmp_path)
    out = tmp_path / "run"
    code, text = finish(training(tiny_set.path, out), tmp_path / "said.txt", moment)
    assert code == 75, text
    assert "Traceback" not in text
    assert saved_step(out) == logged_step(out) == steps
    code, text = finish(training(tiny_set.path, out), tmp_path / "said.txt")
    assert code == 0, text
    assert same(out, expected) == []


def test_a_request_in_the_middle_of_a_line_on_stderr_is_heard(monkeypatch):
    """The buffer of stderr refuses a second writer in the same thread."""

    class Busy(io.StringIO):
        def write(self, text: str) -> int:
            raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>")

    monkeypatch.setattr(sys, "stderr", Busy())
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested
