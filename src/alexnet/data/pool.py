"""The same function over many jobs in forked processes."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for_connection
from typing import TypeVar

from alexnet.core.errors import AlexNetError
from alexnet.core.memory import keep_freed_memory

Job = TypeVar("Job")
Result = TypeVar("Result")


def in_processes(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: int | None
) -> Iterator[tuple[Job, Result]]:
    """Each job with its result, in the order in which they finish. ``workers``: None for one a core; 0 or 1 for
    none."""
    count = min(len(jobs), len(os.sched_getaffinity(0)) if workers is None else workers)
    if count <= 1:
        for job in jobs:
            yield job, function(job)
        return
    # Forked workers import nothing, and need no `if __name__ == "__main__"` in the caller's script. They run only our
    # own drawing and decoding, which takes no lock that a thread of this process could have held (Python 3.12 warns of
    # that).
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker)
    waiting = iter(jobs)
    running: dict[Future[Result], Job] = {}
    try:
        while True:
            for job in waiting:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DeprecationWarning)
                    running[pool.submit(function, job)] = job
                if len(running) >= 2 * count:
                    break
            if not running:
                return
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                yield running.pop(future), future.result()
    except BrokenProcessPool as error:
        raise AlexNetError(
            "a worker process died (killed for memory, or by a file that crashes the decoder): run it again, "
            "with fewer --workers; --workers 1 shows at which file"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


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
    wait_for_connection([sentinel])
    os._exit(1)
