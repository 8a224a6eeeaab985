"""Where questions are handed to the worker process: one at a time, but pictures of several clients together; none for longer than
it may take; and to a new worker after one that has died or was killed."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from multiprocessing.connection import Connection
from typing import Any, Literal, Protocol

from alexnet.core.console import say
from alexnet.core.errors import AlexNetError
from alexnet.page.worker import LOOK, QUESTIONS, Opening, Outcome, Ready

BATCH = 32
"""Most pictures that are computed together."""
GATHER_SECONDS = 0.03
"""How long a picture waits for as many others as were computed with the last one: clients that were answered together ask again
together, and the first of them would otherwise be computed alone, at twice the cost."""
MAX_WAITING = 64
"""Most questions that wait."""
MAX_CRASHERS = 256
"""Questions that are remembered because a worker did not live to answer them."""
RESTART_SECONDS = 2.0
"""Pause before a worker is started again that could not be started."""
PATIENCE_SECONDS = 5.0
"""After which a question that has waited is asked before quicker ones that came later."""
LOOK_SECONDS = 1.0
"""Time between two looks at whether a worker that nobody asks is still alive."""

Status = Literal["starting", "ready", "restarting"]


class BusyError(Exception):
    """Too many questions wait already."""


class LostError(Exception):
    """The worker did not live to answer this question; ``again`` where it was so before, and was not tried."""

    def __init__(self, *, again: bool = False) -> None:
        super().__init__("asked before" if again else "lost")
        self.again = again


class Worker(Protocol):
    """A process that answers."""

    def send(self, message: Any) -> None: ...

    def receive(self) -> Any:
        """The next message; EOFError or OSError from one that has died."""

    def is_alive(self) -> bool: ...

    def kill(self) -> None: ...


class Process:
    """A worker in a Python of its own. Not one of :mod:`multiprocessing`, which would run the caller's script again."""

    def __init__(self, opening: Opening) -> None:
        ours, theirs = socket.socketpair()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        code += f"from alexnet.page.worker import main; main({theirs.fileno()})"
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", code],  # no module of the working folder
                env=environment,
                stdin=subprocess.PIPE,  # its end tells the worker that this process has ended
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self.pipe: Connection[Any, Any] = Connection(ours.detach())
        with contextlib.suppress(OSError):  # it has died already, which receive() says
            self.pipe.send(opening)

    def send(self, message: Any) -> None:
        self.pipe.send(message)

    def receive(self) -> Any:
        return self.pipe.recv()

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()


class _Question:
    def __init__(self, name: str, arguments: Mapping[str, Any], key: str) -> None:
        self.name, self.arguments, self.key = name, arguments, key
        self.came = time.monotonic()
        self.outcome: Future[Outcome] = Future()
        self.alone = False
        """Whether it is asked alone, because a worker died over it."""


class _Alarm:
    """Calls ``ring`` in so many seconds, unless it is asked before whether it has."""

    def __init__(self, seconds: float, ring: Callable[[], None]) -> None:
        self.lock, self.ring, self.state = threading.Lock(), ring, "set"
        self.timer = threading.Timer(seconds, self._ring)
        self.timer.daemon = True
        self.timer.start()

    def _ring(self) -> None:
        with self.lock:
            if self.state == "set":
                self.state = "rang"
                self.ring()

    def rang(self) -> bool:
        self.timer.cancel()
        with self.lock:
            if self.state == "set":
                self.state = "off"
            return self.state == "rang"


class Desk:
    """Questions, and the worker that answers them, from the first moment on until :meth:`close`.

    ``start`` makes a worker, which first says that it is :class:`~alexnet.page.worker.Ready`, or why not. The first one that
    cannot be started ends the desk: ``ready`` has its error. One after it is tried again until it can."""

    def __init__(self, start: Callable[[], Worker], *, seconds: Mapping[str, float] = QUESTIONS) -> None:
        self.start, self.seconds = start, seconds
        self.ready: Future[Ready] = Future()
        self.status: Status = "starting"
        self.waiting: list[_Question] = []
        self.crashers: OrderedDict[str, None] = OrderedDict()
        self.changed = threading.Condition()
        self.closed = False
        self.together = 1
        """Pictures in the last batch."""
        self.worker: Worker | None = None
        self.thread = threading.Thread(target=self._work, name="desk", daemon=True)
        self.thread.start()

    def ask(self, name: str, arguments: Mapping[str, Any], *, key: str) -> Future[Outcome]:
        """The outcome of a question, when it is there: cancelled as long as it waits, it is never asked. ``key``: what is the
        same for the same question, so that one which killed a worker is not asked again. Raises :class:`BusyError` and
        :class:`LostError`."""
        question = _Question(name, arguments, key)
        with self.changed:
            if key in self.crashers:
                raise LostError(again=True)
            if self.closed or len(self.waiting) >= MAX_WAITING:
                raise BusyError
            self.waiting.append(question)
            self.changed.notify()
        return question.outcome

    def close(self) -> None:
        """Kill the worker and let whoever waits go."""
        with self.changed:
            self.closed = True
            left = [*self.waiting]
            self.waiting.clear()
            self.changed.notify()
            if self.worker is not None:
                self.worker.kill()
        for question in left:
            if not question.outcome.cancel():  # it was asked before, and the worker died over it
                question.outcome.set_exception(LostError())
        self.thread.join()

    def _work(self) -> None:
        while (worker := self._started()) is not None:
            while several := self._next(worker):
                if not self._asked(worker, several):
                    break
            self._end(worker)

    def _started(self) -> Worker | None:
        """A worker that is ready, however many have to be tried; None where the desk is closed, or the first one fails."""
        while not self.closed:
            worker, said = self._start()
            if worker is not None and isinstance(said, Ready):
                self.status = "ready"
                if not self.ready.done():
                    self.ready.set_result(said)
                return worker
            if worker is not None:
                self._end(worker)
            if not self.ready.done():
                self.ready.set_exception(said)
                with self.changed:
                    self.closed = True
            with self.changed:
                if not self.closed:
                    say(f"the worker cannot be started again: {said}; trying again")
                    self.changed.wait(RESTART_SECONDS)
        return None

    def _start(self) -> tuple[Worker | None, Any]:
        """A new worker and its first word, or why there is none."""
        try:
            worker = self.start()
        except OSError as error:  # no more processes, no memory
            return None, error
        with self.changed:
            self.worker = worker
            if self.closed:
                worker.kill()
        try:
            return worker, worker.receive()
        except (EOFError, OSError):
            return worker, AlexNetError("the worker process ended before it was ready (for want of memory?)")

    def _end(self, worker: Worker) -> None:
        with self.changed:
            self.worker = None
            if self.status == "ready":
                self.status = "restarting"
        worker.kill()

    def _next(self, worker: Worker) -> list[_Question]:
        """The question whose turn it is, and, if it brings a picture, others that wait with one; none where the desk is closed,
        or the worker has died with nothing to do."""
        with self.changed:
            while True:
                self.changed.wait_for(lambda: self.waiting or self.closed, LOOK_SECONDS)
                if self.closed or not worker.is_alive():
                    return []
                if not self.waiting:
                    continue
                first = min(self.waiting, key=self._turn)
                self.waiting.remove(first)
                if self._is_wanted(first):
                    break
            several = [first]
            if first.name == LOOK and not first.alone:
                self.changed.wait_for(lambda: self.closed or len(self._looks()) + 1 >= self.together, GATHER_SECONDS)
                for other in self._looks()[: BATCH - 1]:
                    self.waiting.remove(other)
                    if self._is_wanted(other):
                        several.append(other)
                self.together = len(several)
            return several

    def _looks(self) -> list[_Question]:
        return [it for it in self.waiting if it.name == LOOK and not it.alone]

    def _turn(self, question: _Question) -> tuple[float, float]:
        """Those that have waited long come first, then those that are quick: whoever walks over a picture does not wait for
        many that are drawn."""
        has_waited = time.monotonic() - question.came > PATIENCE_SECONDS
        return (0.0 if has_waited else self.seconds[question.name], question.came)

    def _is_wanted(self, question: _Question) -> bool:
        """Whether somebody still waits for it, and it may be asked."""
        if not question.outcome.running() and not question.outcome.set_running_or_notify_cancel():
            return False
        if question.key in self.crashers:
            question.outcome.set_exception(LostError(again=True))
            return False
        return True

    def _asked(self, worker: Worker, several: list[_Question]) -> bool:
        """Ask, and hand the outcomes on; False where the worker died over it, or took too long and was killed."""
        late = _Alarm(self.seconds[several[0].name], worker.kill)
        try:
            worker.send((several[0].name, [question.arguments for question in several]))
            outcomes = dict(zip(several, worker.receive(), strict=True))
        except Exception:  # it has died, which is EOFError or OSError, or said what cannot be understood
            self._lose(several, late.rang())
            return False
        for question, outcome in outcomes.items():
            question.outcome.set_result(outcome)
        return not late.rang()

    def _lose(self, several: list[_Question], late: bool) -> None:
        """Questions over which a worker died are asked once more, each alone. The one over which another dies then, or that has
        taken too long, is to blame: not what was asked when the system killed a worker for want of memory."""
        with self.changed:
            if not self.closed and not (len(several) == 1 and (late or several[0].alone)):
                for question in several:
                    question.alone = True
                self.waiting += several
                return
            if not self.closed:
                self.crashers[several[0].key] = None
                if len(self.crashers) > MAX_CRASHERS:
                    self.crashers.popitem(last=False)
                how = "took too long" if late else "crashed"
                say(f"the worker {how} over {several[0].name} and is started again")
        for question in several:
            question.outcome.set_exception(LostError())
