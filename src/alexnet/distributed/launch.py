"""How the processes of a job find each other, and what is said when one of them fails.

`torchrun` starts the processes and tells each who it is; :func:`join` makes them a job. :func:`run_local` does without
torchrun, for tests and for small jobs on one machine.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from alexnet.core.errors import AlexNetError, UsageError, printable

COLLECTIVE_TIMEOUT = timedelta(seconds=60)
"""A rank waits no longer for the others. What only one rank does between two steps must take less."""

GRACE_SECONDS = 5.0
"""For the other ranks to end, and to say why, once one has failed."""

_ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
_FAULT = "alexnet/fault"

T = TypeVar("T")


class ExchangeError(AlexNetError):
    """An exchange between ranks that broke off: another rank failed, was killed, or did not come in time."""


@dataclass(frozen=True)
class Job:
    """Who this process is in its job."""

    rank: int
    world: int
    local_rank: int
    """Among the ranks of this host; it chooses the GPU."""
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes files and prints."""
        return self.rank == 0


def in_job() -> bool:
    """Whether torchrun (or :func:`run_local`) started this process."""
    return all(name in os.environ for name in _ENVIRONMENT)


def whoami(device: str = "auto") -> Job:
    """This process's place, from the environment that torchrun sets. ``device``: auto, cpu or cuda; on CUDA each rank of
    a host takes the GPU of its local number."""
    try:
        rank, world, local_rank = (int(os.environ[name]) for name in _ENVIRONMENT)
    except (KeyError, ValueError):
        given = ", ".join(f"{name}={printable(os.environ.get(name))}" for name in _ENVIRONMENT)
        raise UsageError(
            f"this process is not part of a job ({given}); start it with torchrun --nproc-per-node N -m alexnet ..."
        ) from None
    if not 0 <= rank < world:
        raise UsageError(f"RANK={rank} is not below WORLD_SIZE={world}; start the job with torchrun")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device not in ("cpu", "cuda"):
        raise UsageError(
            f"--device {printable(device)}: the ranks of a job take cpu or cuda (each its own GPU); use auto, cpu or cuda"
        )
    if device == "cuda" and local_rank >= torch.cuda.device_count():
        raise UsageError(
            f"rank {rank} of {world}: this host has {torch.cuda.device_count()} GPUs for local rank {local_rank}; start at "
            "most as many ranks as there are GPUs, or take --device cpu"
        )
    return Job(rank, world, local_rank, torch.device("cuda", local_rank) if device == "cuda" else torch.device("cpu"))


@contextmanager
def join(device: str = "auto", *, store: Path | None = None, timeout: timedelta = COLLECTIVE_TIMEOUT) -> Iterator[Job]:
    """Be a rank of the job inside this context: gloo on the CPU, NCCL on CUDA. ``store``: a file through which the
    ranks meet; None: what torchrun set up.

    The first rank that fails tells the others its reason, so that their own message names it instead of a lost
    connection. Raises :class:`ExchangeError` for a rank that waited in vain. All leave together, so what only one rank
    does at the end of a job stands behind this context, or takes less than ``timeout``."""
    job = whoami(device)
    where = f"rank {job.rank} of {job.world}"
    if job.device.type == "cuda":
        torch.cuda.set_device(job.device)
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if job.device.type == "cuda" else "gloo",
            init_method="env://" if store is None else store.resolve().as_uri(),
            rank=job.rank,
            world_size=job.world,
            timeout=timeout,
        )
        dist.barrier()  # none leaves before the last one is connected
    except (RuntimeError, ValueError, OSError) as error:  # the first is torch.distributed's own
        raise ExchangeError(
            f"{where}: the ranks did not find each other within {timeout.total_seconds():g} s ({_line(error)}); see that "
            "all were started, with the same --rdzv-endpoint"
        ) from error
    try:
        yield job
        with exchange_errors("leaving the job together"):
            dist.barrier()
    except ExchangeError as error:
        raise ExchangeError(f"{where}: {error}; {_first_fault()}") from error
    except BaseException as error:
        _tell(f"{where} failed first: {type(error).__name__}: {_line(error)}")
        raise
    finally:
        with suppress(RuntimeError):  # of a group whose other ranks are gone
            dist.destroy_process_group()


@contextmanager
def exchange_errors(what: str) -> Iterator[None]:
    """What torch says about a lost or late rank, as an :class:`ExchangeError` of one line."""
    try:
        yield
    except RuntimeError as error:
        raise ExchangeError(f"{what} broke off ({_line(error)})") from error


def _tell(message: str) -> None:
    """Leave ``message`` for the other ranks, unless one has left its own."""
    with suppress(Exception):  # the store may be gone with the launcher; the failure itself is what counts
        _store().compare_set(_FAULT, "", message)


def _first_fault() -> str:
    """What the rank that failed first has left, waiting a moment for it."""
    with suppress(Exception):
        store = _store()
        store.wait([_FAULT], timedelta(seconds=2))
        return printable(store.get(_FAULT).decode(errors="replace"))
    return "another rank was killed, is stopped, or cannot be reached: see its own output and that of the launcher"


def _store() -> Any:
    return dist.distributed_c10d._get_default_store()


def _line(error: BaseException) -> str:
    """The first line of a message; of torch's own, without the file name in brackets and the advice that follows."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if line.startswith("["):
        line = line.partition("] ")[2]
    return printable(line.partition(" This is typically")[0].rstrip("."))[:300]


# Without torchrun -----------------------------------------------------------------------------------------------------


def run_local(
    function: Callable[..., T], world: int, *args: Any, device: str = "cpu", timeout: float = 240.0
) -> list[T]:
    """``function(*args)`` in ``world`` processes of this machine that have joined one job; the results in the order of
    the ranks. ``function`` and ``args`` are pickled from process to process, so ``function`` stands in a module.

    Raises :class:`AlexNetError`, naming the rank, if one fails, is killed, or has not ended within ``timeout`` seconds;
    the others are then ended."""
    context = multiprocessing.get_context("forkserver")
    with tempfile.TemporaryDirectory(prefix="alexnet-job-") as folder:
        processes, results = [], []
        for rank in range(world):
            receiver, sender = context.Pipe(duplex=False)
            store = Path(folder, "store")
            process = context.Process(
                target=_local_rank, args=(sender, function, args, rank, world, store, device), daemon=True
            )
            process.start()
            sender.close()
            processes.append(process)
            results.append(receiver)
        try:
            return _gather(processes, results, timeout)
        finally:
            for process in processes:
                process.kill()
                process.join()
            for receiver in results:
                receiver.close()


def _local_rank(
    sender: Connection,
    function: Callable[..., T],
    args: tuple[Any, ...],
    rank: int,
    world: int,
    store: Path,
    device: str,
) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # not the address of the host's name, which may lead nowhere
    torch.set_num_threads(max(1, torch.get_num_threads() // world))
    try:
        with join(device, store=store):
            result = function(*args)
    except BaseException as error:
        sender.send(
            (False, str(error) if isinstance(error, ExchangeError) else f"{type(error).__name__}: {_line(error)}")
        )
        raise
    sender.send((True, result))


def _gather(processes: list[Any], results: list[Connection], timeout: float) -> list[Any]:
    world, deadline = len(processes), time.monotonic() + timeout
    answers: dict[int, Any] = {}
    faults: dict[int, str] = {}  # in the order of their coming
    waiting = set(range(world))
    while waiting and (left := deadline - time.monotonic()) > 0:
        wait([results[rank] for rank in waiting], left)
        for rank in sorted(rank for rank in waiting if results[rank].poll()):
            waiting.remove(rank)
            try:
                fine, answer = results[rank].recv()
            except EOFError:  # it ended without a word
                processes[rank].join(GRACE_SECONDS)
                code = processes[rank].exitcode
                killed = (
                    f"was killed by {signal.Signals(-code).name}"
                    if code is not None and code < 0
                    else f"ended with {code}"
                )
                fine, answer = False, killed
            if fine:
                answers[rank] = answer
            else:
                faults[rank] = answer
                deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
    if faults:
        # A lost connection is the consequence of another rank's end.
        rank = next(
            (rank for rank, fault in faults.items() if not fault.startswith(f"rank {rank} of ")), next(iter(faults))
        )
        raise AlexNetError(f"rank {rank} of {world} failed: {faults[rank]}")
    if waiting:
        late = ", ".join(map(str, sorted(waiting)))
        raise AlexNetError(f"rank {late} of {world} has not ended within {timeout:g} s")
    return [answers[rank] for rank in range(world)]
