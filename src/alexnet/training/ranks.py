"""What each rank of a job holds and sends in one step, beside what the sizes of the layers predict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from alexnet.core.device import Machine
from alexnet.core.memory import peak_memory
from alexnet.distributed.launch import tell_first
from alexnet.models.alexnet import AlexNetConfig
from alexnet.parallelize import Parallel, predicted_traffic
from alexnet.training.config import TrainConfig


def rank_report(
    parallel: Parallel,
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
    machine: Machine,
    images: int,
    classes: int,
) -> dict[str, Any]:
    """What every rank has sent and holds, in bytes, after the first step, which had ``images`` images in all. The report is on
    rank 0; on the others it is empty. All ranks call this together."""
    parameters = list(parallel.model.parameters())
    state = [value for slots in optimizer.state.values() for value in slots.values() if isinstance(value, Tensor)]
    own = {
        "sent": {f"{layer} {direction}": num for (layer, direction), num in parallel.traffic.sent.items()},
        "parameter_bytes": _bytes(parameters),
        "gradient_bytes": _bytes([p.grad for p in parameters if p.grad is not None]),
        "optimizer_bytes": _bytes(state),
        "peak_memory_bytes": peak_memory(machine.device),
    }
    ranks = tell_first(own)
    if not ranks:
        return {}
    for rank, said in enumerate(ranks):
        if (predicted := _predicted(config, machine, len(ranks), rank, images, classes)) is not None:
            said["predicted"] = predicted
    return {
        "layout": machine.layout,
        "scheme": machine.scheme,
        "exchange": machine.exchange,
        "accumulate": machine.accumulate,
        "images": images,
        "precision": config.precision,
        "ranks": ranks,
    }


def _predicted(
    config: TrainConfig, machine: Machine, world: int, rank: int, images: int, classes: int
) -> dict[str, int] | None:
    """Bytes that a rank is predicted to send. None unless the network is an AlexNet, all its layers learn and each batch is
    computed in one part."""
    frozen = any(factor == 0 for _, factor in config.optimizer.layer_lr)
    if not isinstance(config.model, AlexNetConfig) or frozen or machine.accumulate > 1:
        return None
    sent = predicted_traffic(
        replace(config.model, num_classes=classes),
        machine.layout,
        world,
        rank,
        images,
        element_bytes=8 if config.precision == "float64" else 4,
        activation_bytes=2 if config.precision == "bfloat16" else None,
        wire_bytes=2 if machine.exchange == "bfloat16" else None,
    )
    return {f"{layer} {direction}": num for (layer, direction), num in sent.items()}


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def rank_table(report: dict[str, Any]) -> list[str]:
    """What the ranks sent and hold, in MB; the most, where ranks differ."""
    ranks = report["ranks"]
    lines = [f"{'sent in a step, MB a rank (at most)':<40} {'counted':>10} {'predicted':>10}"]
    for name in dict.fromkeys(name for said in ranks for name in said["sent"]):
        counted = max(said["sent"].get(name, 0) for said in ranks)
        predicted = [said["predicted"].get(name, 0) for said in ranks if "predicted" in said]
        lines.append(f"  {name:<38} {counted / 1e6:>10.3f} {_megabytes(predicted):>10}")
    total = max(sum(said["sent"].values()) for said in ranks)
    predicted = [sum(said["predicted"].values()) for said in ranks if "predicted" in said]
    lines.append(f"  {'together':<38} {total / 1e6:>10.3f} {_megabytes(predicted):>10}")
    lines.append("held by each rank, MB: " + ", ".join(f"{_held(said) / 1e6:,.0f}" for said in ranks))
    lines[-1] += " (parameters, gradients, velocities); at the peak of the process or device: "
    lines[-1] += ", ".join(f"{said['peak_memory_bytes'] / 1e6:,.0f}" for said in ranks)
    return lines


def _megabytes(values: list[int]) -> str:
    return f"{max(values) / 1e6:.3f}" if values else "-"


def _held(said: dict[str, Any]) -> int:
    return int(said["parameter_bytes"] + said["gradient_bytes"] + said["optimizer_bytes"])
