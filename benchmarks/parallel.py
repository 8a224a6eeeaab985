"""alexnet_2012 on several processes of this machine: bytes, memory and seconds beside what `alexnet bench --plan` says of them.

python benchmarks/parallel.py [--batch 128] [--repeats 5] [--out results/parallel.json]

Bytes that each rank sends in a step, and what it holds, on 1, 2, 4 and 8 ranks in the three layouts and in torch's
DistributedDataParallel; seconds of a step of 2 ranks with half of the threads each, in turns with the measurements that a plan
is calculated from and with one process. Needs 13 GB of memory, and a quiet machine. Exit 3 if a byte differs from its
prediction, or a step by more than 25 %.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as the command line does

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from alexnet.bench import rates
from alexnet.bench.plan import (
    LAYOUTS,
    LinkRates,
    Memory,
    SilentRank,
    Work,
    bytes_sent,
    link_rates,
    median_link,
    median_work,
    meet,
    row_of,
)
from alexnet.core.device import Layout, Precision, autocast
from alexnet.core.memory import keep_freed_memory
from alexnet.core.rng import DropoutDraw
from alexnet.core.runs import environment, write_json
from alexnet.distributed.collectives import ring_bytes
from alexnet.distributed.launch import run_local
from alexnet.distributed.mesh import build_mesh
from alexnet.models import build_model
from alexnet.models.alexnet import AlexNetConfig, alexnet_2012
from alexnet.parallelize import parallelize
from alexnet.training.optimizer import OptimizerConfig, build_optimizer

CPU = torch.device("cpu")
WORLDS = (1, 2, 4, 8)
ALLOWED = 0.25
"""A planned step may differ from the measured one by this much."""

Arm = Layout | Literal["ddp"]
ARMS: tuple[Arm, ...] = (*LAYOUTS, "ddp")

multiprocessing.get_context("forkserver").set_forkserver_preload(
    ["alexnet.bench.plan", "torch._dynamo"]  # any optimizer imports the last
)


@dataclass(frozen=True)
class Held:
    """What a rank sent in its last step, in bytes by layer and direction, and what it holds after it."""

    sent: dict[str, int]
    predicted: dict[str, int]
    parameters: int
    gradients: int
    velocities: int
    peak: int
    """Of the process, above what it had before there was a network."""


class Trainee:
    """This rank's part of a network in training on numbers in memory, as one arm has it."""

    def __init__(self, config: AlexNetConfig, arm: Arm, batch: int, precision: Precision = "float32") -> None:
        model = build_model(config, name="alexnet", seed=0).to(memory_format=torch.channels_last).train()
        self.batch, self.precision = batch, precision
        self.sent: dict[str, int] = {}
        self.summed = 0
        x_BCHW, label_B = rates.random_batch(batch, config.input_size, config.in_channels, config.num_classes, CPU)
        draw = DropoutDraw(0, 0, np.arange(batch, dtype=np.int64))
        if arm == "ddp":
            self.mesh = build_mesh("data")
            own = self.mesh.images(batch)
            self.model = DistributedDataParallel(model, gradient_as_bucket_view=True)
            self.model.register_comm_hook(None, self._count)
            draw = DropoutDraw(0, 0, draw.image_B[own])
            self.backward = lambda: self._backward_ddp(x_BCHW[own], label_B[own], draw)
        else:
            self.mesh = build_mesh(arm)
            own = self.mesh.images(batch)
            self.parallel = parallelize(model, self.mesh)
            self.model = self.parallel.model
            self.backward = lambda: self._backward(x_BCHW[own], label_B[own], draw)
        self.optimizer = build_optimizer(model if arm == "ddp" else self.model, OptimizerConfig(lr=1e-6))

    def step(self) -> None:
        self.sent.clear()
        self.summed = 0
        self.optimizer.zero_grad()
        self.backward()
        self.optimizer.step()

    def seconds(self) -> float:
        """Of a step which all ranks begin together."""
        meet()
        start = time.perf_counter()
        self.step()
        return time.perf_counter() - start

    def _backward(self, x_BCHW: Tensor, label_B: Tensor, draw: DropoutDraw) -> None:
        def loss(logits_BK: Tensor, rows: slice) -> Tensor:
            return F.cross_entropy(logits_BK.float(), label_B[rows], reduction="sum") / self.batch

        self.parallel.traffic.sent.clear()
        self.parallel.backward(x_BCHW, draw, loss, forward_context=lambda: autocast(CPU, self.precision))
        self.sent |= {f"{layer} {way}": num for (layer, way), num in self.parallel.traffic.sent.items()}

    def _backward_ddp(self, x_BCHW: Tensor, label_B: Tensor, draw: DropoutDraw) -> None:
        with autocast(CPU, self.precision):
            logits_BK = self.model(x_BCHW, draw)
        loss = F.cross_entropy(logits_BK.float(), label_B, reduction="sum") * self.mesh.world.size / self.batch
        loss.backward()  # DDP takes the mean over ranks

    def _count(self, state, bucket):  # type: ignore[no-untyped-def]  # torch refuses annotations that are words
        """Numbers that DDP hands over to be summed."""
        self.summed += bucket.buffer().numel()
        self.sent["all gradients"] = ring_bytes(self.summed, self.mesh.world.size, bucket.buffer().element_size())
        return allreduce_hook(dist.group.WORLD, bucket)


def held(config: AlexNetConfig, arm: Arm, batch: int, precision: Precision = "float32", steps: int = 2) -> Held:
    """On a rank of a job: ``steps`` steps."""
    keep_freed_memory()
    before = _memory("VmRSS")
    trainee = Trainee(config, arm, batch, precision)
    for _ in range(steps):
        trainee.step()
    rank, world = dist.get_rank(), dist.get_world_size()
    if arm == "ddp":
        numel = sum(p.numel() for p in trainee.model.parameters())
        predicted = {"all gradients": ring_bytes(numel, world, 4)} if world > 1 else {}
    else:
        sent = bytes_sent(config, arm, world, rank, batch, precision)
        predicted = {f"{layer} {way}": num for (layer, way), num in sent.items()}
    parameters = list(trainee.model.parameters())
    velocities = [state["velocity"] for state in trainee.optimizer.state.values()]
    return Held(
        sent={name: num for name, num in trainee.sent.items() if num},
        predicted=predicted,
        parameters=_bytes(parameters),
        gradients=_bytes([p.grad for p in parameters if p.grad is not None]),
        velocities=_bytes(velocities),
        peak=_memory("VmHWM") - before,
    )


def _bytes(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _memory(name: str) -> int:
    """Of this process: VmRSS, what it has, or VmHWM, the most it ever had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


@dataclass(frozen=True)
class Turn:
    """One arm on one rank; seconds."""

    step: float
    work: Work | None
    """What a plan of it is made of; None for DDP."""
    link: LinkRates
    one_process: float | None
    """A step of all images with all threads; None on ranks that wait meanwhile."""


def turns(config: AlexNetConfig, arm: Arm, batch: int, repeats: int, cores: int) -> tuple[list[Turn], Memory | None]:
    """On a rank of a job: the arm, what its plan is made of, and one process, in turns; and the memory planned."""
    keep_freed_memory()
    threads = max(1, cores // dist.get_world_size())
    torch.set_num_threads(threads)
    trainee = Trainee(config, arm, batch)
    silent = None if arm == "ddp" else SilentRank(config, arm, dist.get_world_size(), batch, CPU, "float32")
    memory = silent.memory() if silent else None
    alone = rates.training_step(build_model(config, name="alexnet"), CPU, "float32") if dist.get_rank() == 0 else None
    x_BCHW, label_B = rates.random_batch(batch, config.input_size, config.in_channels, config.num_classes, CPU)
    found = []
    for _ in range(repeats + 1):
        meet()
        work = silent.work() if silent else None
        step = trainee.seconds()
        link = link_rates()
        meet()
        one_process = None
        if alone is not None:
            torch.set_num_threads(cores)
            start = time.perf_counter()
            alone(x_BCHW, label_B)
            one_process = time.perf_counter() - start
            torch.set_num_threads(threads)
        found.append(Turn(step, work, link, one_process))
    return found[1:], memory  # the first turn warms up


def bytes_and_memory(config: AlexNetConfig, batch: int) -> list[dict[str, Any]]:
    rows = []
    for world in WORLDS:
        for arm in ARMS:
            ranks = run_local(held, world, config, arm, batch, timeout=600.0)
            sent, predicted = ([sum(getattr(r, name).values()) for r in ranks] for name in ("sent", "predicted"))
            exact = all(r.sent == r.predicted for r in ranks)
            rows.append(
                {
                    "ranks": world,
                    "arm": arm,
                    "images_per_step": batch,
                    "bytes_sent_by_rank": {"measured": sent, "predicted": predicted, "exact": exact},
                    "bytes_sent_by_first_rank": ranks[0].sent,
                    "memory_by_rank": [
                        {k: v for k, v in asdict(r).items() if k not in ("sent", "predicted")} for r in ranks
                    ],
                }
            )
            most = max(ranks, key=lambda r: r.peak)
            three = max(r.parameters + r.gradients + r.velocities for r in ranks)
            print(
                f"{world} ranks, {arm:<7} {max(sent) / 1e6:>8.2f} MB sent in a step, {'as' if exact else 'NOT as'} predicted; "
                f"weights, gradients and velocities {three / 1e6:.0f} MB, peak {most.peak / 1e6:.0f} MB",
                flush=True,
            )
    return rows


def seconds_of_two(config: AlexNetConfig, batch: int, repeats: int) -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0))
    rows = []
    for arm in ARMS:
        ranks = run_local(turns, 2, config, arm, batch, repeats, cores, timeout=3600.0)
        (first, memory), _ = ranks
        together = list(zip(*(found for found, _ in ranks), strict=True))
        times = {
            "measured": [max(turn.step for turn in each) for each in together],
            "one_process": [turn.one_process for turn in first if turn.one_process is not None],
        }
        link = median_link([turn.link for turn in first])
        row: dict[str, Any] = {
            "arm": arm,
            **rates.as_json(times),
            "link_bytes_per_second": asdict(link) if link else None,
        }
        step, one_process = row["measured"]["median"], row["one_process"]["median"]
        text = f"2 ranks, {arm:<7} {step:.3f} s a step, one process of {cores} threads {one_process:.3f} s"
        if arm != "ddp" and memory is not None:
            works = [median_work([turn.work for turn in found if turn.work]) for found, _ in ranks]
            work = max(works, key=lambda work: work.seconds)
            plan = row_of(config, arm, 2, batch, "float32", work, memory, link, crowd=1.0)
            row["planned"] = {"step": plan.step, "computing": plan.computing, "sending": plan.sending}
            row["planned"]["memory_bytes"] = asdict(memory) | {"total": memory.total}
            row["off_by"] = plan.step / step - 1
            row["within_25_percent"] = abs(row["off_by"]) <= ALLOWED
            text += f"; planned {plan.step:.3f} s ({row['off_by']:+.1%}), {plan.sending:.3f} s of it for sending"
        rows.append(row)
        print(text, flush=True)
    return {
        "ranks": 2,
        "threads_of_each": max(1, cores // 2),
        "threads_of_one_process": cores,
        "n": repeats,
        "rows": rows,
    }


def calculated(config: AlexNetConfig, batch: int) -> list[dict[str, Any]]:
    """Bytes on more ranks than were started."""
    rows = []
    for world in (16, 32, 64):
        for layout in LAYOUTS:
            sent = [sum(bytes_sent(config, layout, world, r, batch, "float32").values()) for r in (0, world - 1)]
            rows.append({"ranks": world, "layout": layout, "images_per_step": batch, "bytes_sent_by_a_rank": max(sent)})
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch", type=int, default=128, help="images of a step, of all ranks together")
    parser.add_argument("--repeats", type=int, default=5, help="turns of which medians are taken")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "results" / "parallel.json")
    options = parser.parse_args()
    config, load = alexnet_2012(), os.getloadavg()[0]
    rows = bytes_and_memory(config, options.batch)
    steps = seconds_of_two(config, options.batch, options.repeats)
    document = {
        "network": "alexnet_2012",
        "precision": "float32",
        "backend": "gloo, all ranks on this machine",
        "seed": 0,
        "environment": environment(),
        "load_average": {"before": load, "after": os.getloadavg()[0]},
        "measured": {"bytes_and_memory": {"n": 1, "rows": rows}, "steps": steps},
        "calculated": {
            "what": "bytes of a step on more ranks than were started",
            "rows": calculated(config, options.batch),
        },
    }
    write_json(options.out, document)
    fine = all(row["bytes_sent_by_rank"]["exact"] for row in rows)
    return 0 if fine and all(row.get("within_25_percent", True) for row in steps["rows"]) else 3


if __name__ == "__main__":
    sys.exit(main())
