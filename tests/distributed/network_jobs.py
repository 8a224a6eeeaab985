"""One network on several ranks and on one, in float64, for tests/test_parallelize.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from alexnet.core.rng import DropoutDraw
from alexnet.distributed.mesh import Layout, Mesh, build_mesh
from alexnet.models import ModelConfig, build_model
from alexnet.models.alexnet import AlexNetConfig
from alexnet.parallelize import Parallel, Scheme, parallelize, predicted_traffic
from alexnet.training.optimizer import OptimizerConfig, build_optimizer

SIDE = 35  # conv1 gives 16 (the last window overhangs), then 7, 3, 3, 3, 1

TINY: dict[str, Any] = {
    "input_size": SIDE,
    "num_classes": 5,
    "conv_channels": (4, 8, 6, 6, 8),
    "conv_kernels": (6, 3, 3, 3, 3),
    "conv_strides": (2, 1, 1, 1, 1),
    "conv_padding": (0, 1, 1, 1, 1),
    "fc_units": (10, 14),  # among four ranks: 3, 3, 2, 2 and 4, 4, 3, 3
    "weight_std": (0.05, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3),
    "biases": (0.1,) * 8,
    "lrn_alpha": 0.01,
}


def tiny(**fields: Any) -> AlexNetConfig:
    return AlexNetConfig(**{**TINY, **fields})


@dataclass(frozen=True)
class Case:
    name: str
    model: ModelConfig
    layouts: tuple[Layout, ...]
    """Of each step; where it changes, the state goes through a file."""
    scheme: Scheme = "all"
    images: tuple[int, ...] = (7, 3, 5)
    """In the global batch of each step."""
    wire: str | None = None
    frozen: tuple[str, ...] = ()
    micro_batches: int = 1


@dataclass
class Answer:
    losses: list[float] = field(default_factory=list)
    logits: dict[str, list[float]] = field(default_factory=dict)
    """Of each image of each step, by "step/position"."""
    gradients: dict[str, np.ndarray] = field(default_factory=dict)
    """Of the first step."""
    state: dict[str, np.ndarray] = field(default_factory=dict)
    """Parameters, buffers and velocities after the last step."""
    evaluated: dict[str, list[float]] = field(default_factory=dict)
    """Logits in evaluation mode after the last step, by image."""
    sent: list[dict[tuple[str, str], int]] = field(default_factory=list)
    predicted: list[dict[tuple[str, str], int]] = field(default_factory=list)
    parameters: int = 0


def batch(model: ModelConfig, step: int, images: int) -> tuple[Tensor, Tensor, DropoutDraw]:
    generator = torch.Generator().manual_seed(1000 + step)
    side, channels = model.input_size, model.in_channels
    x_BCHW = torch.randn(images, channels, side, side, generator=generator, dtype=torch.float64) * 3
    label_B = torch.randint(model.num_classes, (images,), generator=generator)
    return x_BCHW, label_B, DropoutDraw(3, step, np.arange(images, dtype=np.int64) * 7 + 50 * step)


def whole_network(case: Case) -> nn.Module:
    model = build_model(case.model, name=case.name, seed=4).double().to(memory_format=torch.channels_last)
    for name, p in model.named_parameters():
        p.requires_grad_(name.partition(".")[0] not in case.frozen)
    return model


def optimizer_of(model: nn.Module, case: Case) -> torch.optim.Optimizer:
    return build_optimizer(
        model, OptimizerConfig(lr=0.02, bias_lr=0.04, layer_lr=tuple((layer, 0.0) for layer in case.frozen))
    )


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}/{slot}": torch.as_tensor(value)
        for name, p in model.named_parameters()
        for slot, value in optimizer.state.get(p, {}).items()
    }


def arrays(named: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.detach().clone().numpy() for name, tensor in named.items()}


def one_process(case: Case) -> Answer:
    """The reference: nothing of `alexnet.parallelize` takes part."""
    model, answer = whole_network(case), Answer()
    optimizer = optimizer_of(model, case)
    model.train()
    for step, images in enumerate(case.images):
        x_BCHW, label_B, draw = batch(case.model, step, images)
        logits_BK = model(x_BCHW.to(memory_format=torch.channels_last), draw)
        loss = F.cross_entropy(logits_BK, label_B)
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            answer.gradients = arrays({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
        optimizer.step()
        answer.losses.append(loss.item())
        answer.logits |= {f"{step}/{i}": row for i, row in enumerate(logits_BK.tolist())}
    answer.state = arrays(model.state_dict() | optimizer_state(model, optimizer))
    model.eval()
    x_BCHW, _, _ = batch(case.model, 99, 9)
    with torch.no_grad():
        answer.evaluated = {str(i): row for i, row in enumerate(model(x_BCHW).tolist())}
    answer.parameters = sum(p.numel() for p in model.parameters())
    return answer


def on_ranks(cases: Sequence[Case], folder: str) -> list[Answer]:
    """The same on the ranks of this job; each rank has its own part of the answer, rank 0 the whole state."""
    meshes: dict[Layout, Mesh] = {layout: build_mesh(layout) for layout in ("data", "hybrid")}
    if dist.get_world_size() in (1, 2, 4):
        meshes["towers"] = build_mesh("towers")
    return [_case_on_ranks(case, meshes, Path(folder)) for case in cases]


def _case_on_ranks(case: Case, meshes: dict[Layout, Mesh], folder: Path) -> Answer:
    answer, layout = Answer(), case.layouts[0]
    mesh = meshes[layout]
    parallel, optimizer = _parts(case, mesh)
    for step, (images, wanted) in enumerate(zip(case.images, case.layouts, strict=True)):
        if wanted != layout:  # through a file, as a checkpoint goes
            saved = folder / f"{case.name}-{step}.safetensors"
            whole = parallel.gather_state(_state(parallel, optimizer))
            if dist.get_rank() == 0:
                save_file({name: tensor.contiguous() for name, tensor in whole.items()}, saved)
                whole = load_file(saved)
            mesh, layout = meshes[wanted], wanted
            parallel, optimizer = _parts(case, mesh)
            _load(parallel.model, optimizer, parallel.spread_state(whole))
        answer.losses.append(_step(case, step, images, parallel, mesh, optimizer, answer))
        answer.sent.append(dict(parallel.traffic.sent))
        parallel.traffic.sent.clear()
        if isinstance(case.model, AlexNetConfig):
            wire_bytes = None if case.wire is None else 2
            args = case.model, wanted, dist.get_world_size(), mesh.rank, images
            answer.predicted.append(dict(predicted_traffic(*args, element_bytes=8, wire_bytes=wire_bytes)))
    answer.state = arrays(parallel.gather_state(_state(parallel, optimizer)))
    answer.parameters = sum(p.numel() for p in parallel.model.parameters())
    parallel.model.eval()
    x_BCHW, _, _ = batch(case.model, 99, 9)
    with torch.no_grad():
        for image_B in mesh.evaluation_order(9, 2).reshape(-1, 2):
            logits_BK = parallel.model(x_BCHW[np.minimum(image_B, 8)])
            if mesh.counts:
                rows = zip(image_B, logits_BK.tolist(), strict=True)
                answer.evaluated |= {str(i): row for i, row in rows if i < 9}
    return answer


def _parts(case: Case, mesh: Mesh) -> tuple[Parallel, torch.optim.Optimizer]:
    """This rank's part of a fresh network, and its optimizer."""
    wire = None if case.wire is None else getattr(torch, case.wire)
    parallel = parallelize(whole_network(case), mesh, wire=wire, scheme=case.scheme)
    parallel.model.train()
    return parallel, optimizer_of(parallel.model, case)


def _state(parallel: Parallel, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return parallel.model.state_dict() | optimizer_state(parallel.model, optimizer)


def _step(
    case: Case, step: int, images: int, parallel: Parallel, mesh: Mesh, optimizer: torch.optim.Optimizer, answer: Answer
) -> float:
    """This rank's part of the mean loss."""
    x_BCHW, label_B, draw = batch(case.model, step, images)
    optimizer.zero_grad()
    total = 0.0
    edges = [images * part // case.micro_batches for part in range(case.micro_batches + 1)]
    for start, stop in pairwise(edges):
        own = mesh.images(stop - start)
        own = slice(start + own.start, start + own.stop)
        label_of_own = label_B[own]

        def loss(logits_BK: Tensor, rows: slice, label_of_own: Tensor = label_of_own) -> Tensor:
            return F.cross_entropy(logits_BK, label_of_own[rows], reduction="sum") / images

        logits_BK = parallel.backward(
            x_BCHW[own].to(memory_format=torch.channels_last),
            replace(draw, image_B=draw.image_B[start:stop]),
            loss,
            last=stop == images,
        )
        if mesh.counts:
            total += loss(logits_BK, slice(0, None)).item()
            rows = zip(range(own.start, own.stop), logits_BK.tolist(), strict=True)
            answer.logits |= {f"{step}/{i}": row for i, row in rows}
    if step == 0:
        gradients = {n: p.grad for n, p in parallel.model.named_parameters() if p.grad is not None}
        answer.gradients = arrays(parallel.gather_state(gradients))
    optimizer.step()
    return total


def _load(model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Tensor]) -> None:
    model.load_state_dict({name: tensor for name, tensor in state.items() if "/" not in name})
    parameters = dict(model.named_parameters())
    for key, value in state.items():
        name, slash, slot = key.partition("/")
        if slash:
            optimizer.state[parameters[name]][slot] = torch.empty_like(parameters[name]).copy_(value)
