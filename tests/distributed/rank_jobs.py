"""What single ranks do in the tests of this folder. Results are plain values and NumPy arrays."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from alexnet.distributed import launch
from alexnet.distributed.collectives import (
    Gathering,
    GradientSums,
    Link,
    Traffic,
    all_sum,
    gather,
    sum_copies,
    sum_parts,
)
from alexnet.distributed.launch import ExchangeError, on_first, tell_first, whoami
from alexnet.distributed.mesh import Axis, build_mesh, chunk


def axis_of_all() -> Axis:
    return Axis(dist.get_rank(), tuple(range(dist.get_world_size())), dist.group.WORLD)


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sizes(world: int) -> list[int]:
    """Parts of different lengths, the last of them empty."""
    return [*[3, 1, 2][: world - 1], 0]


def all_collectives() -> dict[str, Any]:
    """Each collective once, forward and backward, with pieces of different sizes: outputs, gradients, bytes."""
    axis = axis_of_all()
    rank, world, traffic = axis.index, axis.size, Traffic()
    found: dict[str, Any] = {}

    def record(name: str, y: Tensor, x: Tensor) -> None:
        # A different function of the result on every rank: the gradient is the sum over ranks of their weights.
        (y * draw(100 + rank, *y.shape)).sum().backward()
        found[name] = y.detach().numpy().copy(), x.grad.numpy().copy()
        x.grad = None

    rows = sizes(world)
    x = draw(rank, rows[rank], 5).requires_grad_()
    record("gather", torch.cat(gather(Link(axis, "gather", traffic), x, [(n, 5) for n in rows])), x)

    maps = draw(10 + rank, 2, 3, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    gathering = Gathering(Link(axis, "maps", traffic), maps, [maps.shape] * world)
    parts = dict(gathering.finish()) | {rank: maps}
    record("maps", torch.cat([parts[r] for r in range(world)], 1), maps)
    found["channels last"] = all(
        p.is_contiguous(memory_format=torch.channels_last) and not p.is_contiguous() for p in parts.values()
    )

    x = draw(20 + rank, sum(rows), 4).requires_grad_()
    record("sum_parts", sum_parts(Link(axis, "sum_parts", traffic), x.split(rows)), x)

    x = draw(30 + rank, 6).requires_grad_()
    record("all_sum", all_sum(Link(axis, "all_sum", traffic), x), x)

    x = draw(40 + rank, 6).requires_grad_()
    y = sum_copies(Link(axis, "sum_copies", traffic), x)
    (y * draw(140, 6)).sum().backward()  # the same function everywhere
    found["sum_copies"] = y.detach().numpy().copy(), x.grad.numpy().copy()

    half = draw(50 + rank, 7).float().requires_grad_()
    wired = gather(Link(axis, "half", traffic, torch.bfloat16), half, [(7,)] * world)
    torch.cat(wired).sum().backward()
    found["half"] = torch.cat(wired).detach().numpy().copy(), half.grad.numpy().copy()

    with torch.no_grad():
        labels = gather(Link(axis, "labels", traffic, torch.bfloat16), torch.tensor([1000001 + rank]), [(1,)] * world)
    found["labels"] = torch.cat(labels).numpy()
    found["sent"] = {"/".join(key): num for key, num in traffic.sent.items()}
    return found


def gradient_sums(wire: str | None) -> dict[str, Any]:
    """Gradients of a two-layer network summed over ranks, of which the last one computes nothing at all."""
    axis, traffic = axis_of_all(), Traffic()
    torch.manual_seed(0)
    first, second, frozen = nn.Linear(3, 5).double(), nn.Linear(5, 2).double(), nn.Linear(2, 2).double()
    frozen.requires_grad_(False)
    dtype = None if wire is None else getattr(torch, wire)
    sums = GradientSums(
        [(Link(axis, str(i), traffic, dtype), list(m.parameters())) for i, m in enumerate((first, second, frozen))]
    )
    started_early = 0
    for micro_batch in range(2):
        if micro_batch == 1:
            sums.arm()
        if axis.index < axis.size - 1:
            x = draw(10 * micro_batch + axis.index, 4, 3)
            frozen(second(first(x))).square().sum().backward()
            started_early = len(sums.sums)
    sums.finish()
    parameters = [*first.parameters(), *second.parameters()]
    return {
        "gradients": [p.grad.numpy() for p in parameters],
        "started": started_early,
        "sent": {"/".join(key): num for key, num in traffic.sent.items()},
    }


def meshes() -> dict[str, Any]:
    """Each layout's place of this rank."""
    found: dict[str, Any] = {}
    for layout in ("data", "towers", "hybrid"):
        mesh = build_mesh(layout)
        assert mesh.device_mesh is not None
        found[layout] = {
            "data": (mesh.data.index, mesh.data.ranks),
            "tower": (mesh.tower.index, mesh.tower.ranks),
            "coordinate": tuple(mesh.device_mesh.get_coordinate() or ()),
            "names": mesh.device_mesh.mesh_dim_names,
            "share": (mesh.chunk_index, mesh.chunks, mesh.counts),
        }
        for axis in (mesh.data, mesh.tower, mesh.world):  # the groups work, and hold whom they should
            total = torch.tensor([10 ** dist.get_rank()])
            if axis.group is not None:
                dist.all_reduce(total, group=axis.group)
            assert total.item() == sum(10**r for r in axis.ranks)
    found["share"] = [(chunk(7, r, 4).start, chunk(7, r, 4).stop) for r in range(4)]
    return found


def who() -> tuple[int, int, int, str, int]:
    job = whoami()
    return job.rank, job.world, job.local_rank, str(job.device), torch.get_num_threads()


def fail_on_last(how: str) -> None:
    """The last rank fails, is killed, or stays away; the others wait for it."""
    rank, world = dist.get_rank(), dist.get_world_size()
    if rank == world - 1:
        if how == "raises":
            raise ValueError("label 12 of 10\nand more")
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)
    gather(Link(axis_of_all(), "conv3", Traffic()), torch.ones(3), [(3,)] * world)


def wait_for_a_stopped_rank() -> tuple[float, str]:
    """Rank 1 comes two seconds after the others' patience ends: what they say, and after how many seconds."""
    mesh = build_mesh("hybrid", timeout=timedelta(seconds=1))
    began = time.monotonic()
    if mesh.rank == 1:
        time.sleep(3)
        return 0.0, ""
    try:
        gather(Link(mesh.tower, "conv3", Traffic()), torch.ones(3), [(3,)] * mesh.world.size)
    except ExchangeError as error:
        return time.monotonic() - began, str(error)
    return 0.0, "came"


def first_alone(seconds: float) -> tuple[Any, list[Any]]:
    """What the first rank takes longer for than any exchange may take, and what all have to say."""
    launch.COLLECTIVE_TIMEOUT = timedelta(seconds=1.5)

    def work() -> dict[str, int]:
        time.sleep(seconds)
        return {"rank": dist.get_rank(), "process": os.getpid()}

    return on_first("long work", work), tell_first(dist.get_rank() * 10)


def first_fills(folder: str) -> str:
    cache = Path(folder, "cache")

    def work() -> str:
        if cache.exists():
            return "found"
        time.sleep(0.3)
        cache.touch(exist_ok=False)
        return "filled"

    return launch.first_before_others("filling the cache", work)


def first_fails() -> None:
    def work() -> None:
        raise ValueError("no space left")

    on_first("a save", work)


def first_stops(folder: str) -> None:
    """The first rank is stopped in what it does alone, and gives no signs of life; the other leaves what it says."""
    launch.COLLECTIVE_TIMEOUT = timedelta(seconds=1.5)
    try:
        on_first("a save", lambda: os.kill(os.getpid(), signal.SIGSTOP))
    except ExchangeError as error:
        Path(folder, "said").write_text(f"{error}; {launch._first_fault(whoami())}")
        raise
