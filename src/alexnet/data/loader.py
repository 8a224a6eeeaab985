"""One epoch of batches from a packed split, in a given order, from a given position, read ahead by threads.

Reading is a copy and a checksum, both of which release the interpreter lock, so threads do; there is no worker process
to lose. A read that hangs is given up, and does not keep the process from ending. Which images a batch holds depends on
(seed, epoch, position) alone.

An image may stand in an epoch several times. Its number is then that in the split, for its second place that plus the length
of the split, and so on: pixels and label are the same, and what is drawn by the number is not.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.core import rng
from alexnet.core.device import usable_cores
from alexnet.core.errors import AlexNetError, UsageError

RESIDENT_RESERVE = 12 << 30
"""Bytes of a device that are left to training when a set is made resident."""
RESIDENT_PIECE = 1024
"""Images copied to the device at a time."""

Job = TypeVar("Job")
Done = TypeVar("Done")

READ_TIMEOUT = 120.0
"""Seconds after which a batch that has not arrived is given up."""
DISMISS_SECONDS = 1.0
"""Seconds to wait for readers to end."""


class ReadTimeoutError(AlexNetError):
    """A batch that has not arrived in time."""


class Images(Protocol):
    """What the loader needs of a data set: labels, and pixels by image number."""

    @property
    def labels(self) -> NDArray[np.int64]: ...

    def __len__(self) -> int: ...

    def read(self, index_B: NDArray[np.int64]) -> NDArray[np.uint8] | Tensor: ...


class ResidentSplit:
    """A split whose pixels were all copied into the memory of a device; each image was checked on the way.
    :class:`UsageError` if they do not fit beside what training needs."""

    def __init__(self, split: Images, device: torch.device) -> None:
        self.labels, num = split.labels, len(split)
        first = torch.as_tensor(split.read(np.arange(1)))
        needed = num * first.numel()
        if device.type == "cuda" and needed > (free := torch.cuda.mem_get_info(device)[0]) - RESIDENT_RESERVE:
            raise UsageError(
                f"--resident: {num:,} images are {needed / 1e9:,.0f} GB, {free / 1e9:,.0f} GB of the device are free and "
                f"training needs {RESIDENT_RESERVE / 1e9:.0f}; leave it out, and images are read as they are needed"
            )
        self.pixels_NSSC = torch.empty((num, *first.shape[1:]), dtype=torch.uint8, device=device)
        for start in range(0, num, RESIDENT_PIECE):
            rows = np.arange(start, min(start + RESIDENT_PIECE, num))
            self.pixels_NSSC[start : start + len(rows)] = torch.as_tensor(split.read(rows))

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index_B: NDArray[np.int64]) -> Tensor:
        """The images of these numbers, on the device: (B, S, S, C) uint8, a copy."""
        return self.pixels_NSSC[torch.from_numpy(index_B).to(self.pixels_NSSC.device)]


@dataclass(frozen=True)
class Batch:
    """Images as stored, with what the random draws need to know of them."""

    image_N: NDArray[np.int64]
    """Number in the split of each image of the batch, of all ranks."""
    image_B: NDArray[np.int64]
    """The same of the images that were read: of all of them, or of this rank's."""
    position_B: NDArray[np.int64]
    """Position of each image in the epoch's order."""
    pixels_BSSC: Tensor
    """uint8 (B, S, S, C), in pinned memory if asked for."""
    label_B: Tensor
    """int64 (B,)."""
    partners: Batch | None = None
    """Another image of the epoch for each that was read, if asked for."""


def epoch_order(num: int, seed: int, epoch: int, *, shuffle: bool = True) -> NDArray[np.int64]:
    """The order of the images in one epoch."""
    return rng.permutation(seed, "order", epoch, num) if shuffle else np.arange(num, dtype=np.int64)


def balanced_order(image_N: NDArray[np.int64], label_N: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of one epoch, as long as ``image_N``, in which each class of the images ``image_N`` stands equally often, or once
    more where that does not divide: of a large class other images in each epoch, of a small one each image several times.
    ``label_N``: the labels of the whole split."""
    total = len(label_N)
    classes, count_K = np.unique(label_N[image_N], return_counts=True)
    num_K = np.full(len(classes), len(image_N) // len(classes))
    num_K[rng.permutation(seed, "balance/classes", epoch, len(classes))[: len(image_N) % len(classes)]] += 1
    shuffled_N = image_N[epoch_order(len(image_N), seed, epoch)]
    by_class_N = shuffled_N[np.argsort(label_N[shuffled_N], kind="stable")]
    places = []
    for own, num in zip(np.split(by_class_N, np.cumsum(count_K)[:-1]), num_K, strict=True):
        place = np.arange(num)
        places.append(own[place % len(own)] + total * (place // len(own)))
    number_N = np.concatenate(places)
    return number_N[np.argsort(rng.keys(seed, "balance/order", epoch, number_N), kind="stable")]


def batches(
    split: Images,
    order_N: NDArray[np.int64],
    batch_size: int,
    *,
    start: int = 0,
    workers: int | None = None,
    own: Callable[[int], NDArray[np.int64]] = np.arange,
    partner_N: NDArray[np.int64] | None = None,
    pin: bool = False,
    timeout: float = READ_TIMEOUT,
) -> Iterator[Batch]:
    """The batches of ``order_N`` from position ``start`` on; the last may be smaller. ``own(B)``: which of the B images of a
    batch are read, by their places in it. ``partner_N``: for each position the position of another image, to be read with it.
    ``workers`` threads read ahead, 0 reads when asked; None: as many as are needed, one more whenever a batch had to be waited
    for, up to one a core. Raises what reading raises, and :class:`ReadTimeoutError` if a batch takes longer than ``timeout``."""

    def read(image_N: NDArray[np.int64], position_B: NDArray[np.int64], others: Batch | None = None) -> Batch:
        image_B = order_N[position_B]
        row_B = image_B % len(split)
        pixels_BSSC = torch.as_tensor(split.read(row_B))
        label_B = torch.from_numpy(np.asarray(split.labels[row_B], dtype=np.int64))
        if pin:
            pixels_BSSC = pixels_BSSC if pixels_BSSC.is_cuda else pixels_BSSC.pin_memory()
            label_B = label_B.pin_memory()
        return Batch(image_N, image_B, position_B, pixels_BSSC, label_B, others)

    def load(first: int) -> Batch:
        num = min(batch_size, len(order_N) - first)
        image_N, position_B = order_N[first : first + num], first + own(num)
        others = None if partner_N is None else read(image_N, partner_N[position_B])
        return read(image_N, position_B, others)

    firsts = range(start, len(order_N), batch_size)
    return ahead(load, firsts, workers=workers, what="the batch at position", timeout=timeout)


def ahead(
    work: Callable[[Job], Done],
    jobs: Iterable[Job],
    *,
    workers: int | None = None,
    window: int | None = None,
    what: str = "job",
    timeout: float = READ_TIMEOUT,
) -> Iterator[Done]:
    """``work`` done on each of ``jobs``, in their order, ahead of who asks. ``workers``: as of :func:`batches`. ``window``: how
    many are done ahead, by default as few as keep the threads busy. Jobs are taken by who asks, in its thread. Raises what
    ``work`` raises, and :class:`ReadTimeoutError`, which names the job after ``what``, if one takes longer than ``timeout``."""
    if workers is not None and workers < 0:
        raise UsageError(f"workers is {workers}; it must be at least 0, or None for as many as are needed")
    if workers == 0:
        yield from map(work, jobs)
        return
    most = workers or usable_cores()
    num = window or (2 * workers if workers else 2)
    readers = _Readers(work, most)
    pending: deque[tuple[str, Future[Done]]] = deque()
    try:
        for job in jobs:
            pending.append((f"{what} {job}", readers.submit(job)))
            if len(pending) > num:
                if workers is None and window is None and not pending[0][1].done():
                    num = min(num + 1, 2 * most)
                yield _wait(pending, timeout)
        while pending:
            yield _wait(pending, timeout)
    finally:
        for _, future in pending:
            future.cancel()
        readers.dismiss()


class _Readers(Generic[Job, Done]):
    """Threads that do jobs, started as they are needed. Not those of :mod:`concurrent.futures`, which the interpreter
    waits for before it ends: one of these may hang for ever."""

    def __init__(self, work: Callable[[Job], Done], most: int) -> None:
        self.work, self.most = work, most
        self.jobs: SimpleQueue[tuple[Job, Future[Done]] | None] = SimpleQueue()
        self.threads: list[threading.Thread] = []

    def submit(self, job: Job) -> Future[Done]:
        future: Future[Done] = Future()
        self.jobs.put((job, future))
        if len(self.threads) < self.most:
            name = f"alexnet-reader-{len(self.threads)}"
            thread = threading.Thread(target=self._read, name=name, daemon=True)
            thread.start()
            self.threads.append(thread)
        return future

    def dismiss(self) -> None:
        """Let them end, and wait a moment for those that can."""
        for _ in self.threads:
            self.jobs.put(None)
        deadline = time.monotonic() + DISMISS_SECONDS
        for thread in self.threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _read(self) -> None:
        while (given := self.jobs.get()) is not None:
            job, future = given
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(self.work(job))
                except BaseException as error:
                    future.set_exception(error)


def _wait(pending: deque[tuple[str, Future[Done]]], timeout: float) -> Done:
    job, future = pending.popleft()
    try:
        return future.result(timeout)
    except TimeoutError:
        raise ReadTimeoutError(
            f"reading {job} took longer than {timeout:g} s; is the disk of the data reachable?"
        ) from None
