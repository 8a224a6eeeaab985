"""How the processes of a job find each other, and what is said when one of them fails.

`torchrun` starts the processes and tells each who it is; :func:`join` makes them a job. :func:`run_local` does without
torchrun, for tests and for small jobs on one machine.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from alexnet.core.errors import AlexNetError, StoppedError, UsageError, printable

COLLECTIVE_TIMEOUT = timedelta(seconds=60)
"""The longest that a rank waits for the others. What only one rank does between two steps must take less."""

ROLL_CALL_SECONDS = 3.0
"""Time for the ranks that are alive to say so, once an exchange has broken off."""

STORE_SECONDS = 5.0
"""Time for the store, through which the ranks meet, to answer once something has failed."""

GRACE_SECONDS = 5.0
"""Time for the other ranks to end, and to say why, once one has failed."""

UNKNOWN_FAULT = "another rank was killed, is stopped, or cannot be reached: see its own output and that of the launcher"

_ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
_FAULT = "alexnet/fault"
_PROCESS = "alexnet/process"
_HERE = "alexnet/here"
_MEETING = "alexnet/meeting"
_POLL_SECONDS = 0.02
_BEAT_SECONDS = 1.0
_turns = itertools.count()
"""Numbers what all ranks do together through the store, so that each such thing has a key of its own."""

T = TypeVar("T")


class ExchangeError(AlexNetError):
    """An exchange between ranks that broke off: another rank failed, was killed, or did not come in time."""


@dataclass(frozen=True)
class Job:
    """Who this process is in its job."""

    rank: int
    world: int
    local_rank: int
    """Number of this rank among those of its host; it chooses the GPU."""
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes files and prints."""
        return self.rank == 0


def in_job() -> bool:
    """Whether torchrun (or :func:`run_local`) started this process."""
    return all(name in os.environ for name in _ENVIRONMENT)


def restarted() -> bool:
    """Whether torchrun has started the ranks again after a failure: the run then goes on, whatever the command says."""
    return in_job() and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def number() -> int:
    """The rank of this process in its job, before or after it has joined; 0 of one that is alone."""
    return _numbers()[0] if in_job() else 0


def _numbers() -> tuple[int, int, int]:
    """Rank, ranks in all, and rank among those of this host."""
    try:
        rank, world, local_rank = (int(os.environ[name]) for name in _ENVIRONMENT)
    except (KeyError, ValueError):
        given = ", ".join(f"{name}={printable(os.environ.get(name))}" for name in _ENVIRONMENT)
        raise UsageError(
            f"this process is not part of a job ({given}); start it with torchrun --nproc-per-node N -m alexnet ..."
        ) from None
    if not 0 <= rank < world:
        raise UsageError(f"RANK={rank} is not below WORLD_SIZE={world}; start the job with torchrun")
    return rank, world, local_rank


def whoami(device: str = "auto") -> Job:
    """This process's place, from the environment that torchrun sets. ``device``: auto, cpu or cuda; on CUDA each rank of
    a host takes the GPU of its local number."""
    rank, world, local_rank = _numbers()
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
        address = "env://" if store is None else store.resolve().as_uri()
        found, _, _ = next(iter(rendezvous(address, job.rank, job.world, timeout=timeout)))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if job.device.type == "cuda" else "gloo",
            store=_meet(found, job, timeout),
            rank=job.rank,
            world_size=job.world,
            timeout=timeout,
        )
        _store().set(f"{_PROCESS}/{job.rank}", json.dumps([socket.gethostname(), os.getpid(), _processes()]))
        dist.barrier()  # none leaves before the last one is connected
    except (RuntimeError, ValueError, OSError) as error:  # the first is torch.distributed's own
        raise ExchangeError(
            f"{where}: the ranks did not find each other within {timeout.total_seconds():g} s ({_line(error)}); check that "
            "all were started, with the same --rdzv-endpoint"
        ) from error
    try:
        try:
            yield job
        except StoppedError:  # all ranks stop: ignore the SIGTERM with which the launcher answers the first exit
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            _leave()
            raise
        _leave()
    except ExchangeError as error:
        raise ExchangeError(f"{where}: {error}; {_first_fault(job)}") from error
    except StoppedError:
        raise
    except BaseException as error:
        _tell(f"{where} failed first: {type(error).__name__}: {_line(error)}")
        raise
    finally:
        with suppress(RuntimeError):  # the other ranks of the group are gone
            dist.destroy_process_group()


def _meet(store: Any, job: Job, timeout: timedelta) -> Any:
    """A part of ``store`` for these processes alone. torchrun may give ranks that it starts again the store of those that
    failed, where gloo would find the addresses of processes that are gone. The first rank opens a meeting, every rank
    enters its own name, and goes in when it finds itself on the list of the guests."""
    own, deadline = uuid.uuid4().hex, time.monotonic() + timeout.total_seconds()
    if job.rank == 0:
        store.set(_MEETING, own)
    while time.monotonic() < deadline:
        if store.check([_MEETING]):  # perhaps still the one of the processes before
            meeting = f"{_MEETING}/{store.get(_MEETING).decode()}"
            names = [f"{meeting}/{rank}" for rank in range(job.world)]
            store.set(names[job.rank], own)
            if job.rank == 0 and store.check(names):
                store.set(meeting, json.dumps([store.get(name).decode() for name in names]))
            if store.check([meeting]) and own in json.loads(store.get(meeting)):
                return dist.PrefixStore(meeting, store)  # type: ignore[attr-defined]
        time.sleep(_POLL_SECONDS)
    raise RuntimeError("not all of them came")


def _leave() -> None:
    with exchange_errors("leaving the job together"):
        dist.barrier()


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
        _within(STORE_SECONDS, lambda: _store().compare_set(_FAULT, "", message))


def _first_fault(job: Job) -> str:
    """The message of the rank that failed first, after waiting a moment for it; without one, which ranks do not answer."""
    try:
        return _within(ROLL_CALL_SECONDS + STORE_SECONDS, lambda: _roll_call(job))
    except TimeoutError:
        return "the host through which the ranks meet does not answer either: check the network and the output of the other ranks"
    except Exception:
        return UNKNOWN_FAULT


def _roll_call(job: Job) -> str:
    store = _store()
    store.set(f"{_HERE}/{job.rank}", "")
    if _answered(store, [_FAULT], ROLL_CALL_SECONDS):
        return printable(store.get(_FAULT).decode(errors="replace"))
    silent = [rank for rank in range(job.world) if not store.check([f"{_HERE}/{rank}"])]
    return "; ".join(_state_of(rank, store.get(f"{_PROCESS}/{rank}")) for rank in silent) or UNKNOWN_FAULT


def _state_of(rank: int, process: bytes) -> str:
    """Why a rank does not answer, as far as its host can be asked. A stopped process of this host is killed: the launcher's
    SIGTERM would not reach it, and the job would last half a minute longer."""
    host, number, _ = json.loads(process)
    state, where = _state(process), f"rank {rank} (process {number} on {printable(host)})"
    if state == "stopped":
        os.kill(number, signal.SIGKILL)
        return f"{where} was stopped, and is now killed"
    return f"{where} was killed" if state == "gone" else f"{where} does not answer"


def _store() -> Any:
    return dist.distributed_c10d._get_default_store()


def _within(seconds: float, work: Callable[[], T]) -> T:
    """``work()`` in a thread of its own, or TimeoutError: the store waits for ever for a host that cannot be reached."""
    future: Future[T] = Future()

    def answer() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=answer, name="alexnet-store", daemon=True).start()
    return future.result(seconds)


def _processes() -> str:
    """What tells this host, and this container, from others of its name: there the same number is another process. Empty where
    processes cannot be asked for at all."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _state(process: bytes) -> Literal["elsewhere", "running", "stopped", "gone"]:
    """What this host knows of a process, named as :func:`join` names it."""
    host, number, processes = json.loads(process)
    if (host, processes) != (socket.gethostname(), _processes()) or not processes:
        return "elsewhere"
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "gone"
    return "gone" if state in "ZX" else "stopped" if state in "Tt" else "running"


# What ranks do together, beside sending tensors --------------------------------------------------------------------------


def on_first(what: str, work: Callable[[], T]) -> T:
    """What the first rank alone does, and its answer, a JSON document, on every rank. However long it takes: the others wait
    while the first gives signs of life. All ranks call this together; one process does the work and nothing else."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return work()
    key, store = f"alexnet/first/{next(_turns)}", _store()
    if dist.get_rank() == 0:
        with _signs_of_life(f"{key}/beat"):
            answer = work()
        store.set(key, json.dumps(answer))
        return answer
    with exchange_errors(f"waiting for the first rank ({what})"):
        beat, limit = b"", COLLECTIVE_TIMEOUT.total_seconds()
        silence = f"no sign of life for {COLLECTIVE_TIMEOUT.total_seconds():g} s"
        process = store.get(f"{_PROCESS}/0")

        def look() -> tuple[bool, bytes]:
            """Whether the waiting is over, and the last sign of life."""
            over = _answered(store, [key, _FAULT], _BEAT_SECONDS)
            return over, store.get(f"{key}/beat") if store.check([f"{key}/beat"]) else b""

        while True:
            try:
                over, now = _within(limit + _BEAT_SECONDS, look)
            except TimeoutError:
                raise RuntimeError(silence) from None
            if over:
                break
            if now != beat:
                beat, limit = now, COLLECTIVE_TIMEOUT.total_seconds()
            limit -= _BEAT_SECONDS
            if _state(process) == "gone":
                raise RuntimeError("it was killed")
            if limit < 0:
                raise RuntimeError(silence)
        if not store.check([key]):
            raise RuntimeError("it failed")
    found: T = json.loads(store.get(key))
    return found


def first_before_others(what: str, work: Callable[[], T]) -> T:
    """``work()`` on every rank, on the first before the others: what it leaves in a cache they find there. All ranks call this
    together."""
    mine: list[T] = []
    on_first(what, lambda: mine.append(work()))
    return mine[0] if mine else work()


def _answered(store: Any, keys: list[str], seconds: float) -> bool:
    """Whether one of ``keys`` is there within this time. The store's own waiting would print a warning each time."""
    deadline, pause = time.monotonic() + seconds, 0.001
    while not any(store.check([key]) for key in keys):
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(2 * pause, 0.1)
    return True


@contextmanager
def _signs_of_life(key: str) -> Iterator[None]:
    over, store = threading.Event(), _store()

    def beat() -> None:
        for number in itertools.count():
            store.set(key, str(number))
            if over.wait(_BEAT_SECONDS):
                return

    thread = threading.Thread(target=beat, name="alexnet-beat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def tell_first(said: Any) -> list[Any]:
    """What every rank says, JSON documents in the order of the ranks: on the first rank; on the others nothing."""
    if not dist.is_initialized():
        return [said]
    key, store = f"alexnet/said/{next(_turns)}", _store()
    store.set(f"{key}/{dist.get_rank()}", json.dumps(said))
    if dist.get_rank():
        return []
    with exchange_errors("hearing every rank"):
        return [json.loads(store.get(f"{key}/{rank}")) for rank in range(dist.get_world_size())]


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
    faults: dict[int, str] = {}  # in the order in which they came
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
