"""A run that is told to stop finishes its step, saves, and says so; what it cannot catch costs an interval at most."""

from __future__ import annotations

import io
import os
import pty
import signal
import subprocess
import sys

import pytest
from faults import INTERVAL, finish, logged_step, same, saved_step, started, training, uninterrupted, wait_until
from processes import signals

from alexnet.cli import VERBS, main
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
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGQUIT])
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


def test_a_closed_terminal_asks_to_stop_however_often_it_says_so():
    before = signal.getsignal(signal.SIGHUP)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with StopRequest() as stop:
            for _ in range(3):  # the kernel, the shell, and a service manager after its SIGTERM
                signal.raise_signal(signal.SIGHUP)
                assert stop.requested
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with StopRequest() as stop:  # under nohup
            signal.raise_signal(signal.SIGHUP)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.skipif(sys.platform != "linux", reason="what a closed terminal does depends on the system")
def test_a_run_whose_terminal_is_closed_is_saved(tiny_set, tmp_path):
    out = tmp_path / "run"
    command = [word for word in training(tiny_set.path, out) if word != "--resume"]
    child, terminal = pty.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            main([*command, "--epochs", "1000"])
        except SystemExit as exit:
            os._exit(int(exit.code or 0))
        os._exit(1)
    assert wait_until(lambda: logged_step(out) >= 4)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 75
    assert saved_step(out) == logged_step(out)


INTERRUPTED_AT = """
import os, signal, sys
class AtImport:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv.pop():
            os.kill(os.getpid(), signal.SIGINT)
        else:
            sys.argv.append(MODULE)
MODULE = sys.argv[-1]
sys.meta_path.insert(0, AtImport())
from alexnet.__main__ import main
main()
"""


@pytest.mark.parametrize("module", ["alexnet.cli", "tyro"])
def test_an_interruption_while_modules_are_imported_is_one_line(module):
    """Of every verb; the first module is imported before any verb is known."""
    for verb in VERBS if module == "tyro" else ["train"]:
        words = [verb, "quickstart", "--help"] if verb == "train" else [verb, "--help"]
        done = subprocess.run(
            [sys.executable, "-c", INTERRUPTED_AT, *words, module], capture_output=True, text=True, timeout=60
        )
        assert (verb, done.returncode, done.stderr) == (verb, 130, "alexnet: interrupted\n")
