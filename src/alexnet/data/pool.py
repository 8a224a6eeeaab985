"""The same function over many jobs in forked processes."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, TypeVar

from alexnet.core.device import usable_cores
from alexnet.core.errors import AlexNetError, printable
from alexnet.core.memory import keep_freed_memory

Job = TypeVar("Job")
Answer = TypeVar("Answer")

LOOK_SECONDS = 1.0
"""Time between two looks at what the workers are doing. Time is counted in looks: Ctrl-Z stops this process as well, and then
no worker is taken to be late."""
STOPPED_SECONDS = 5.0
"""Seconds after which a stopped worker (SIGSTOP, a debugger) is given up."""
SILENT_SECONDS = 120.0
"""Seconds without use of the processor after which a worker is given up: its disk does not answer."""


@dataclass
class _Worker:
    process: multiprocessing.process.BaseProcess
    pipe: Connection
    job: int = 0
    """What it works on."""
    ticks: str = ""
    """The processor time it had used at the last look."""
    silent: float = 0.0
    """Seconds since it has used more."""
    stopped: float = 0.0
    """Seconds since it was stopped."""


def in_processes(
    function: Callable[[Job], Answer], jobs: Sequence[Job], workers: int | None
) -> Iterator[tuple[Job, Answer]]:
    """Each job with its result, in the order in which they finish. ``workers``: None for one a core; 0 or 1 for
    none. Raises what ``function`` raises, and :class:`AlexNetError` naming a worker that died, was stopped, or hangs."""
    count = min(len(jobs), usable_cores() if workers is None else workers)
    if count <= 1:
        for job in jobs:
            yield job, function(job)
        return
    # Forked workers import nothing, and need no `if __name__ == "__main__"` in the caller's script. They run only our
    # own drawing and decoding, which takes no lock that a thread of this process could have held (Python 3.12 warns of
    # that). Pipes alone connect them, so nothing is needed in /dev/shm.
    pool: list[_Worker] = []
    try:
        for _ in range(count):
            pool.append(_start(function, jobs))
        yield from _results(pool, jobs)
        for worker in pool:
            worker.process.join(LOOK_SECONDS)
    finally:
        for worker in pool:
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()


def _start(function: Callable[[Job], Answer], jobs: Sequence[Job]) -> _Worker:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(function, jobs, theirs), daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    theirs.close()  # so that reading from the worker ends when it dies
    return _Worker(process, ours)


def _results(pool: Sequence[_Worker], jobs: Sequence[Job]) -> Iterator[tuple[Job, Any]]:
    todo = iter(range(len(jobs)))
    busy = {worker.pipe: worker for worker in pool if _give(worker, todo)}
    look = time.monotonic() + LOOK_SECONDS
    while busy:
        results = []
        for pipe in wait(list(busy), LOOK_SECONDS):
            assert isinstance(pipe, Connection)
            worker = busy[pipe]
            try:
                fine, answer = pipe.recv()
            except (EOFError, OSError):
                raise _died(worker) from None
            if not fine:
                raise answer
            results.append((jobs[worker.job], answer))
            if not _give(worker, todo):
                del busy[pipe]
        if time.monotonic() >= look:
            for worker in busy.values():
                _look(worker)
            look = time.monotonic() + LOOK_SECONDS
        yield from results


def _give(worker: _Worker, todo: Iterator[int]) -> bool:
    """Send a worker its next job, or let it end if there is none."""
    job = next(todo, None)
    try:
        worker.pipe.send(job)
    except OSError:
        raise _died(worker) from None
    if job is not None:
        worker.job, worker.silent, worker.stopped = job, 0.0, 0.0
    return job is not None


def _died(worker: _Worker) -> AlexNetError:
    worker.process.join(LOOK_SECONDS)
    code = worker.process.exitcode
    how = f"was killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"ended with code {code}"
    return AlexNetError(
        f"worker process {worker.process.pid} {how} (for want of memory, or by a file that crashes the decoder): run it "
        "again, with fewer --workers; --workers 1 shows at which file"
    )


def _look(worker: _Worker) -> None:
    """Raise :class:`AlexNetError` if a worker stands still, as far as the system tells."""
    try:
        fields = Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it died, which its pipe will say, or this is no Linux
        return
    state, ticks = fields[0], " ".join(fields[11:13])
    worker.stopped = worker.stopped + LOOK_SECONDS if state in "Tt" else 0.0
    worker.silent = worker.silent + LOOK_SECONDS if ticks == worker.ticks else 0.0
    worker.ticks = ticks
    if worker.stopped >= STOPPED_SECONDS:
        raise AlexNetError(
            f"worker process {worker.process.pid} was stopped from outside and has not gone on for {STOPPED_SECONDS:g} s; "
            "run it again"
        )
    if worker.silent >= SILENT_SECONDS:
        raise AlexNetError(
            f"worker process {worker.process.pid} has done nothing for {SILENT_SECONDS:g} s (state {state}); is the disk of "
            "the data reachable? Run it again when it is"
        )


def _work(function: Callable[[Job], Answer], jobs: Sequence[Job], pipe: Connection) -> None:
    _start_worker()
    with suppress(EOFError, OSError):  # the other end of the pipe has died
        while (job := pipe.recv()) is not None:
            try:
                answer: tuple[bool, Any] = True, function(jobs[job])
            except Exception as error:
                said = _sendable(error)
                said.add_note(f"in worker process {os.getpid()}:\n{traceback.format_exc()}")
                answer = False, said
            pipe.send(answer)


def _sendable(error: Exception) -> Exception:
    """``error``, or, where it cannot be made again in another process, an :class:`AlexNetError` with its name and text."""
    try:
        ForkingPickler.dumps(copy(error))
    except Exception:
        return AlexNetError(f"{type(error).__name__}: {printable(error)}")
    return error


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and die with it."""
    keep_freed_memory()
    gc.freeze()  # what the parent made is not searched for garbage again and again
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()


def _follow(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
