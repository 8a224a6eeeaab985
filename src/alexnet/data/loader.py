"""One epoch of batches from a packed split, in a given order, from a given position, read ahead by threads.

Reading is a copy and a checksum, both of which release the interpreter lock, so threads do; there is no worker process
to lose. Which images a batch holds depends on (seed, epoch, position) alone.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.core import rng
from alexnet.core.errors import AlexNetError, UsageError

RESIDENT_RESERVE = 12 << 30
"""Bytes of a device that are left to training when a set is made resident."""
RESIDENT_PIECE = 1024
"""Images copied to the device at a time."""

READ_TIMEOUT = 120.0
"""Seconds after which a batch that has not arrived is given up."""


class Split(Protocol):
    """What the loader needs of a data set: labels, and pixels by image number."""

    @property
    def labels(self) -> NDArray[np.int64]: ...

    def __len__(self) -> int: ...

    def read(self, index_B: NDArray[np.int64]) -> NDArray[np.uint8] | Tensor: ...


class ResidentSplit:
    """A split whose pixels were all copied into the memory of a device; each image was checked on the way.
    :class:`UsageError` if they do not fit beside what training needs."""

    def __init__(self, split: Split, device: torch.device) -> None:
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

    image_B: NDArray[np.int64]
    """Number of each image in its split."""
    position_B: NDArray[np.int64]
    """Position of each image in the epoch's order."""
    pixels_BSSC: Tensor
    """uint8 (B, S, S, C), in pinned memory if asked for."""
    label_B: Tensor
    """int64 (B,)."""


def epoch_order(num: int, seed: int, epoch: int, *, shuffle: bool = True) -> NDArray[np.int64]:
    """The order of the images in one epoch."""
    return rng.permutation(seed, "order", epoch, num) if shuffle else np.arange(num, dtype=np.int64)


def batches(
    split: Split,
    order_N: NDArray[np.int64],
    batch_size: int,
    *,
    start: int = 0,
    workers: int | None = None,
    pin: bool = False,
    timeout: float = READ_TIMEOUT,
) -> Iterator[Batch]:
    """The batches of ``order_N`` from position ``start`` on; the last may be smaller. ``workers`` threads read ahead, 0
    reads when asked; None: as many as are needed, one more whenever a batch had to be waited for, up to one a core.
    Raises what reading raises, and :class:`AlexNetError` if a batch takes longer than ``timeout``."""

    def load(first: int) -> Batch:
        position_B = np.arange(first, min(first + batch_size, len(order_N)))
        image_B = order_N[position_B]
        pixels_BSSC = torch.as_tensor(split.read(image_B))
        label_B = torch.from_numpy(np.asarray(split.labels[image_B], dtype=np.int64))
        if pin:
            pixels_BSSC = pixels_BSSC if pixels_BSSC.is_cuda else pixels_BSSC.pin_memory()
            label_B = label_B.pin_memory()
        return Batch(image_B, position_B, pixels_BSSC, label_B)

    firsts = range(start, len(order_N), batch_size)
    if workers == 0:
        yield from map(load, firsts)
        return
    most = workers or len(os.sched_getaffinity(0))
    ahead = 2 * workers if workers else 2
    pool = ThreadPoolExecutor(most, thread_name_prefix="alexnet-reader")
    try:
        pending: deque[tuple[int, Future[Batch]]] = deque()
        for first in firsts:
            pending.append((first, pool.submit(load, first)))
            if len(pending) > ahead:
                if workers is None and not pending[0][1].done():
                    ahead = min(ahead + 1, 2 * most)
                yield _wait(pending, timeout)
        while pending:
            yield _wait(pending, timeout)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _wait(pending: deque[tuple[int, Future[Batch]]], timeout: float) -> Batch:
    first, future = pending.popleft()
    try:
        return future.result(timeout)
    except TimeoutError:
        raise AlexNetError(
            f"reading the batch at position {first} took longer than {timeout:g} s; is the disk of the data reachable?"
        ) from None
