"""Who takes what: the ranks of a job as a mesh of two axes, and the chunk of images each rank takes.

    layout    axes (data, tower)   images            kernels
    data      (W, 1)               a chunk a rank    all on every rank
    towers    (W / 2, 2)           a chunk a pair    half of every layer on each rank of a pair (2012)
    hybrid    (1, W)               a chunk a rank    convolutions on every rank, fully connected layers split (2014)

The data axis carries copies of the same weights, the tower axis the parts of one copy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.distributed.device_mesh import DeviceMesh

from alexnet.core.device import Layout
from alexnet.core.errors import UsageError
from alexnet.distributed.launch import COLLECTIVE_TIMEOUT

AXES = ("data", "tower")


@dataclass(frozen=True)
class Axis:
    """The ranks that differ from this one along one axis only."""

    index: int
    ranks: tuple[int, ...]
    """Their numbers in the whole job, in the order of the axis."""
    group: Any = None
    """Their process group; None for one rank, which never sends anything."""

    @property
    def size(self) -> int:
        return len(self.ranks)


ALONE = Axis(0, (0,))


@dataclass(frozen=True)
class Mesh:
    """One rank's place. The default is a job of one process, which needs no process group."""

    layout: Layout = "data"
    data: Axis = ALONE
    tower: Axis = ALONE
    world: Axis = ALONE
    device_mesh: DeviceMesh | None = None

    @property
    def rank(self) -> int:
        return self.world.index

    @property
    def chunks(self) -> int:
        """Into how many chunks the images of a batch are divided."""
        return self.world.size if self.layout == "hybrid" else self.data.size

    @property
    def chunk_index(self) -> int:
        """Which of these chunks this rank takes."""
        return self.world.index if self.layout == "hybrid" else self.data.index

    @property
    def counts(self) -> bool:
        """Whether what this rank counts of its images enters the sum over all ranks. If two ranks take the same images, only
        the first one's counts enter."""
        return self.layout == "hybrid" or self.tower.index == 0

    def images(self, num: int) -> slice:
        """Which of the ``num`` images of a global batch this rank takes, by position."""
        return chunk(num, self.chunk_index, self.chunks)

    def evaluation_order(self, num: int, batch_size: int) -> NDArray[np.int64]:
        """Which of ``num`` images this rank evaluates: every ``chunks``-th, filled up to whole batches of which all ranks
        have as many, so that they meet as often. Numbers from ``num`` on are no images."""
        batches = math.ceil(math.ceil(num / self.chunks) / batch_size)
        return self.chunk_index + self.chunks * np.arange(batches * batch_size, dtype=np.int64)


ONE_PROCESS = Mesh()


def chunk(num: int, index: int, count: int) -> slice:
    """Chunk ``index`` of ``count`` contiguous chunks of 0 .. num - 1, the first ones longer by one where they must be."""
    each, longer = divmod(num, count)
    start = index * each + min(index, longer)
    return slice(start, start + each + (index < longer))


def chunk_sizes(num: int, count: int) -> list[int]:
    """The lengths of the chunks that :func:`chunk` gives."""
    return [(part := chunk(num, index, count)).stop - part.start for index in range(count)]


def mesh_shape(layout: Layout, world: int) -> tuple[int, int]:
    """Ranks along the axes (data, tower). One rank alone holds everything, in any layout."""
    if layout == "hybrid":
        return 1, world
    if layout == "data" or world == 1:
        return world, 1
    if world % 2:
        raise UsageError(
            f"layout towers puts each half of the network on a rank of its own, so it needs an even number of ranks, and "
            f"this job has {world}; start {world - 1} or {world + 1}, or take layout data or hybrid"
        )
    return world // 2, 2


def build_mesh(layout: Layout, *, timeout: timedelta = COLLECTIVE_TIMEOUT) -> Mesh:
    """This rank's place among all ranks of the job, which call this together. Without a process group: one process."""
    if not dist.is_initialized():
        return Mesh(layout)
    rank, world = dist.get_rank(), dist.get_world_size()
    ranks_DT = torch.arange(world).view(mesh_shape(layout, world))
    data = _axis(ranks_DT.T.tolist(), rank, timeout)
    tower = _axis(ranks_DT.tolist(), rank, timeout)
    everyone = Axis(rank, tuple(range(world)), dist.group.WORLD if world > 1 else None)
    device_mesh = DeviceMesh.from_group(
        [data.group, tower.group],
        "cuda" if dist.get_backend(dist.group.WORLD) == "nccl" else "cpu",
        ranks_DT,
        mesh_dim_names=AXES,
    )
    data, tower = (replace(axis, group=None) if axis.size == 1 else axis for axis in (data, tower))
    return Mesh(layout, data, tower, everyone, device_mesh)


def _axis(lines: list[list[int]], rank: int, timeout: timedelta) -> Axis:
    """The line that holds ``rank``. Every rank takes part in making the groups of all lines; a group made without a
    timeout of its own would wait for half an hour."""
    own = ALONE
    for line in lines:
        group = dist.new_group(line, timeout=timeout)
        if rank in line:
            own = Axis(line.index(rank), tuple(line), group)
    return own
