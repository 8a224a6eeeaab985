"""What a training step on several devices would take, send and hold, from rates of one device and counted bytes.

Measured: each layer of a rank's part of the network, forward and backward, in the shapes and on the number of images that
the rank has, with nothing sent; the update; on a CPU, the link between ranks. Counted: the bytes that ranks send, and the
bytes they hold. Calculated from these: the seconds of a step.

On a CPU the ranks share the cores, and the cores also do the sending. So ranks are timed side by side, each with its share of
the threads; sending is added to computing; ranks beyond the number of cores take turns. Elsewhere each rank has a device of
its own, and the step waits only for what is not sent while it computes (:func:`step_on_devices`).

Shape suffixes: B images, C channels, H rows, W columns, N rows that a layer computes, D units.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, get_args

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from alexnet.bench.rates import wait_for_devices
from alexnet.core.device import Layout, Machine, Precision, autocast, usable_cores
from alexnet.core.errors import UsageError
from alexnet.core.memory import keep_freed_memory
from alexnet.core.rng import DropoutDraw
from alexnet.distributed.collectives import Direction, Link, Messages, Traffic, ring_bytes
from alexnet.distributed.launch import run_local
from alexnet.distributed.mesh import ALONE, Axis, Mesh, chunk_sizes, mesh_shape
from alexnet.models import model_config
from alexnet.models.alexnet import AlexNet, AlexNetConfig
from alexnet.models.layers import WEIGHT_LAYERS
from alexnet.parallelize import (
    ColumnsLinear,
    GlobalBatchNorm2d,
    JoinedConv2d,
    UnitsLinear,
    parallelize,
    predicted_traffic,
)
from alexnet.training.optimizer import OptimizerConfig, build_optimizer

LAYOUTS: tuple[Layout, ...] = get_args(Layout)
MAX_DEVICES = 1024
REPEATS = 3
EXCHANGED_BYTES = 8 << 20
"""Size of a message in the test of the link; conv3 sends 11 MB for 128 images in two towers."""
SUMMED_BYTES = 64 << 20
"""Size of a sum in the test of the link; the gradients of fc7 are 67 MB."""
LEFT_OUT = "latency of messages, reading images, ranks of unequal speed; workspace of kernels, gradients of activations"

Sent = Mapping[tuple[str, Direction], int]
"""Bytes by layer and direction."""


@dataclass(frozen=True)
class LayerSeconds:
    layer: str
    forward: float
    backward: float
    beside: float
    """The share of both that is computed while what the layer reads of other ranks is under way."""


@dataclass(frozen=True)
class Work:
    """Seconds of what one rank computes in a step."""

    layers: tuple[LayerSeconds, ...]
    update: float
    """Seconds of the weight update, including the copies that sums of gradients need."""

    @property
    def seconds(self) -> float:
        return sum(layer.forward + layer.backward for layer in self.layers) + self.update


@dataclass(frozen=True)
class Memory:
    """Bytes that one rank holds in a step."""

    weights: int
    gradients: int
    velocities: int
    sums: int
    """The copies in which gradients travel."""
    activations: int
    """Everything that the backward pass reads again, including what other ranks sent."""

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.velocities + self.sums + self.activations


@dataclass(frozen=True)
class LinkRates:
    """Bytes per second that a rank sends while it receives as many."""

    exchange: float
    """Rate of messages from rank to rank."""
    sum: float
    """Rate of sums that go round in a ring."""


@dataclass(frozen=True)
class Row:
    """One layout. Images, work and memory are those of the first rank, whose share is the largest."""

    layout: Layout
    images: int
    """The images whose convolutions the first rank computes."""
    sent: Sent
    """Bytes sent in a step by the rank that sends most."""
    sent_by_rank: tuple[int, ...]
    memory: Memory
    work: Work
    computing: float
    """Seconds: ``work``, on a CPU times the number of ranks that take turns on a core."""
    sending: float
    """Seconds that the link is busy."""
    step: float
    """Seconds."""


@dataclass(frozen=True)
class Plan:
    """A network on ``devices`` that share ``batch_size`` images a step."""

    network: str
    precision: Precision
    device: str
    devices: int
    batch_size: int
    one_device: float
    """Seconds of a step of all images on one device, measured; on a CPU with all threads."""
    side_by_side: int
    """Ranks that were timed at the same time."""
    link: LinkRates | None
    """None for one device."""
    link_given: bool
    rows: tuple[Row, ...]
    obstacles: Mapping[Layout, str]
    """Why a layout is not among the rows."""

    def to_json(self) -> dict[str, Any]:
        return {
            "network": self.network,
            "precision": self.precision,
            "device": self.device,
            "devices": self.devices,
            "images_per_step": self.batch_size,
            "given": {"link_bytes_per_second": asdict(self.link)} if self.link and self.link_given else {},
            "measured": {
                "one_device_step_seconds": self.one_device,
                "ranks_side_by_side": self.side_by_side,
                **({"link_bytes_per_second": asdict(self.link)} if self.link and not self.link_given else {}),
            },
            "layouts": [self._row(row) for row in self.rows],
            "not_possible": dict(self.obstacles),
            "left_out": LEFT_OUT,
        }

    def _row(self, row: Row) -> dict[str, Any]:
        by_layer: dict[str, dict[str, int]] = {}
        for (layer, direction), num in row.sent.items():
            by_layer.setdefault(layer, {})[direction] = num
        return {
            "layout": row.layout,
            "counted": {
                "images_of_first_rank": row.images,
                "bytes_sent_by_rank": list(row.sent_by_rank),
                "bytes_sent_by_layer": by_layer,
                "memory_bytes": asdict(row.memory) | {"total": row.memory.total},
            },
            "measured": asdict(row.work),
            "calculated": {
                "computing_seconds": row.computing,
                "sending_seconds": row.sending,
                "waiting_seconds": row.step - row.computing,
                "step_seconds": row.step,
                "images_per_second": self.batch_size / row.step,
                "speed_up": self.one_device / row.step,
            },
        }

    def table(self) -> str:
        """The plan as text for people; MB are 10^6 bytes."""
        source = "given" if self.link_given else "measured between ranks here"
        link = "" if self.link is None else f"; a link of {_rates(self.link)} ({source})"
        lines = [
            f"{self.devices} device{'s' * (self.devices > 1)} ({self.device}, {self.precision}), {self.batch_size} images a step "
            f"in all{link}",
            f"measured: a step of one device, {self.one_device:.3f} s; each layer, forward and backward, of one rank's part"
            + (f", {self.side_by_side} ranks side by side" if self.side_by_side > 1 else ""),
            "counted: bytes sent and held. calculated, not measured: seconds and images/s",
            f"{'layout':<8}{'images':>7}{'computes':>10}{'sends':>9}{'waits':>9}{'step':>9}{'images/s':>10}{'speed-up':>9}"
            f"{'MB sent':>9}{'MB held':>9}",
        ]
        for row in self.rows:
            lines.append(
                f"{row.layout:<8}{row.images:>7}{row.computing:>8.3f} s{row.sending:>7.3f} s{row.step - row.computing:>7.3f} s"
                f"{row.step:>7.3f} s{self.batch_size / row.step:>10,.1f}{self.one_device / row.step:>8.2f}x"
                f"{max(row.sent_by_rank) / 1e6:>9,.1f}{row.memory.total / 1e6:>9,.0f}"
            )
        lines += [f"{layout:<8}not possible: {reason}" for layout, reason in self.obstacles.items()]
        for row in self.rows:
            held = ", ".join(f"{name} {num / 1e6:,.0f}" for name, num in asdict(row.memory).items())
            sent = ", ".join(f"{layer} {num / 1e6:,.1f}" for layer, num in _by_layer(row.sent).items())
            lines += [
                f"{row.layout}: MB sent, {sent}" if sent else f"{row.layout}: sends nothing",
                f"  MB held, {held}",
            ]
        return "\n".join([*lines, f"left out: {LEFT_OUT}"])


def _rates(link: LinkRates) -> str:
    if link.exchange == link.sum:
        return f"{link.sum / 1e9:g} GB/s"
    return f"{link.exchange / 1e9:.2f} GB/s in messages and {link.sum / 1e9:.2f} GB/s in sums"


def _by_layer(sent: Sent) -> dict[str, int]:
    totals: dict[str, int] = {}
    for (layer, _), num in sent.items():
        totals[layer] = totals.get(layer, 0) + num
    return totals


def check(network: str, devices: int, link: float | None, machine: Machine) -> AlexNetConfig:
    """The network to plan for. Raises :class:`UsageError` for what no plan can be made of; ``link`` in GB/s."""
    if not 1 <= devices <= MAX_DEVICES:
        raise UsageError(f"--gpus is {devices}; it must be from 1 to {MAX_DEVICES:,}")
    if link is not None and not 0 < link < float("inf"):
        raise UsageError(f"--link is {link:g}; it must be more than 0: the GB/s that a device sends to the others")
    if link is None and devices > 1 and machine.device.type != "cpu":
        raise UsageError(
            f"--gpus {devices} needs --link GB/s, what a device sends to the others: with one device it cannot be measured "
            "(only between ranks on a CPU: --device cpu)"
        )
    config = model_config(network)
    if not isinstance(config, AlexNetConfig):
        raise UsageError(f"--gpus plans alexnet_2012 and its relatives; {network} is another network")
    return config


def plan(
    network: str,
    machine: Machine,
    *,
    precision: Precision,
    batch_size: int,
    devices: int,
    one_device: float,
    link: float | None = None,
) -> Plan:
    """Measure, count and calculate. ``link``: GB/s; None: measured between ranks on this CPU. ``one_device``: seconds of a
    step of all images on one device. Takes about the time of a dozen such steps."""
    config = check(network, devices, link, machine)
    layouts, obstacles = possible_layouts(config, devices, batch_size)
    on_cpu = machine.device.type == "cpu"
    side_by_side = min(devices, max(2, usable_cores())) if on_cpu else 1
    threads = max(1, torch.get_num_threads() // devices) if on_cpu else None
    args = config, layouts, devices, batch_size, machine.device, precision, threads
    found = run_local(_measured, side_by_side, *args, timeout=3600.0) if side_by_side > 1 else [_measured(*args)]
    crowd = devices / side_by_side if on_cpu else None
    rates = None
    if link is not None:
        rates = LinkRates(link * 1e9, link * 1e9)
    elif measured := found[0].link:
        rates = LinkRates(measured.exchange * side_by_side / devices, measured.sum * side_by_side / devices)
    rows = []
    for layout in layouts:
        work = max((each.works[layout] for each in found), key=lambda work: work.seconds)
        rows.append(
            row_of(config, layout, devices, batch_size, precision, work, found[0].memories[layout], rates, crowd)
        )
    return Plan(
        network=network,
        precision=precision,
        device=machine.device.type,
        devices=devices,
        batch_size=batch_size,
        one_device=one_device,
        side_by_side=side_by_side,
        link=rates,
        link_given=link is not None,
        rows=tuple(rows),
        obstacles=obstacles,
    )


# Counted --------------------------------------------------------------------------------------------------------------


def possible_layouts(config: AlexNetConfig, devices: int, batch_size: int) -> tuple[list[Layout], dict[Layout, str]]:
    """The layouts that hold the network and give each rank an image, and what is in the way of the others."""
    layouts: list[Layout] = []
    obstacles: dict[Layout, str] = {}
    for layout in LAYOUTS:
        try:
            mesh = first_place(layout, devices)
            parallelize(AlexNet(config, seed=None), mesh)
        except UsageError as error:
            obstacles[layout] = str(error)
            continue
        if mesh.chunks > batch_size:
            obstacles[layout] = (
                f"a batch of {batch_size} images cannot be split over {mesh.chunks} ranks; use a larger --batch-size"
            )
        else:
            layouts.append(layout)
    return layouts, obstacles


def first_place(layout: Layout, devices: int) -> Mesh:
    """The first rank's place among ``devices``, to look at: it has no process groups."""
    _, tower = mesh_shape(layout, devices)
    ranks = tuple(range(devices))
    return Mesh(layout, data=Axis(0, ranks[::tower]), tower=Axis(0, ranks[:tower]), world=Axis(0, ranks))


def bytes_sent(
    config: AlexNetConfig, layout: Layout, devices: int, rank: int, images: int, precision: Precision
) -> dict[tuple[str, Direction], int]:
    """What a rank sends in a step, as :func:`predicted_traffic`; under autocast activations travel in bfloat16, and
    gradients of parameters in float32."""
    element = 8 if precision == "float64" else 4
    activation = 2 if precision == "bfloat16" else element
    return predicted_traffic(config, layout, devices, rank, images, element_bytes=element, activation_bytes=activation)


# Measured -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layer:
    name: str
    forward: Callable[[Tensor], Tensor]
    rows: int
    """Images it computes."""
    columns: int
    """Channels or units it reads."""
    beside: float


class SilentRank:
    """The first rank's part of a network on ``devices``, which computes its layers one by one on numbers of the right
    sizes, and sends nothing."""

    def __init__(
        self,
        config: AlexNetConfig,
        layout: Layout,
        devices: int,
        batch_size: int,
        device: torch.device,
        precision: Precision,
    ) -> None:
        mesh = first_place(layout, devices)
        parallel = parallelize(AlexNet(config, seed=None), mesh)
        assert isinstance(parallel.model, AlexNet)
        names = {id(p): name for name, p in parallel.model.named_parameters()}
        model = parallel.model.to_empty(device=device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        for module in model.modules():
            if isinstance(module, GlobalBatchNorm2d):
                module.link = replace(module.link, axis=ALONE)
        generator = torch.Generator(device).manual_seed(0)
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                if tensor.is_floating_point():
                    tensor.normal_(0.0, 0.01, generator=generator).abs_()
        self.device, self.precision = device, precision
        self.images = chunk_sizes(batch_size, mesh.chunks)[0]
        self.layers = list(_layers(model, self.images, batch_size if layout == "hybrid" else self.images))
        self.x_BCHW = 60 * torch.randn(
            (self.images, config.in_channels, config.input_size, config.input_size), generator=generator, device=device
        ).contiguous(memory_format=torch.channels_last)
        self.model, self.optimizer = model, build_optimizer(model, OptimizerConfig(lr=1e-6))
        self.summed = [
            (link.axis.size, [model.get_parameter(names[id(p)]) for p in parameters])
            for link, parameters in parallel.sums.buckets
        ]
        """Parameters whose gradients are summed together, and over how many ranks."""

    def work(self) -> Work:
        """One step, timed."""
        self.optimizer.zero_grad()
        forward: list[float] = []
        passed = self._forward(forward)
        backward = []
        for x, y in reversed(passed):
            gradient = torch.full_like(y, 1e-6)
            backward.append(self._timed(lambda y=y, gradient=gradient: y.backward(gradient)))  # type: ignore[misc]
            x.grad = None
        update = self._timed(self._update)
        seconds = zip(self.layers, forward, reversed(backward), strict=True)
        return Work(tuple(LayerSeconds(layer.name, f, b, layer.beside) for layer, f, b in seconds), update)

    def memory(self) -> Memory:
        """The bytes that this rank holds, counted; those of activations by a forward pass."""
        own = {p.untyped_storage().data_ptr() for p in self.model.parameters()}
        held: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                held[storage.data_ptr()] = storage.nbytes()
            return tensor

        with saved_tensors_hooks(note, lambda tensor: tensor):
            passed = self._forward([])
        del passed
        weights = sum(p.numel() * p.element_size() for p in self.model.parameters())
        sums = 0
        for size, parameters in self.summed:
            sums += -(-sum(p.numel() for p in parameters) // size) * size * parameters[0].element_size()
        return Memory(weights, weights, weights, sums, sum(held.values()))

    def _forward(self, seconds: list[float]) -> list[tuple[Tensor, Tensor]]:
        """What each layer reads and gives. The time of each is appended to ``seconds``."""
        passed: list[tuple[Tensor, Tensor]] = []
        y = self.x_BCHW
        for layer in self.layers:
            x = _of_size(y.detach(), layer.rows, layer.columns).requires_grad_(bool(passed))
            with autocast(self.device, self.precision):
                start = self._now()
                y = layer.forward(x)
                seconds.append(self._now() - start)
            passed.append((x, y))
        return passed

    def _update(self) -> None:
        for _, parameters in self.summed:
            gradients = [p.grad for p in parameters if p.grad is not None]
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
                gradient.copy_(part.view(gradient.shape))
        self.optimizer.step()

    def _timed(self, function: Callable[[], object]) -> float:
        start = self._now()
        function()
        return self._now() - start

    def _now(self) -> float:
        wait_for_devices()
        return time.perf_counter()


def _layers(model: AlexNet, images: int, rows: int) -> Iterator[_Layer]:
    """The layers of a rank's part, with what follows each, in forward order; ``rows``: images of the fully connected ones."""
    config, steps = model.config, model.steps()
    draw = DropoutDraw(0, 0, np.arange(rows, dtype=np.int64))
    last_maps = [step.name for step in steps if step.reads_maps][-1]
    width = config.in_channels  # channels or units that the rank has itself when the step begins
    for step in steps:
        layer, columns, beside = step.layer, width, 0.0
        if isinstance(layer, JoinedConv2d):
            columns, beside = layer.in_channels, 1 / layer.link.axis.size
            step = step._replace(layer=partial(_joined, layer))
        elif isinstance(layer, UnitsLinear) and layer.columns > width:
            columns = layer.columns
            if layer.towers == 1:
                beside = width / columns
                step = step._replace(layer=partial(_units, layer))
        elif isinstance(layer, ColumnsLinear):
            columns = layer.in_features
            step = step._replace(layer=partial(F.linear, weight=layer.weight, bias=layer.bias))
        yield _Layer(step.name, partial(step.run, draw=draw), images if step.reads_maps else rows, columns, beside)
        if isinstance(layer, WEIGHT_LAYERS):
            width = len(layer.weight)
        if step.name == last_maps and config.head == "fc":
            width *= config.map_sizes()[-1] ** 2


def _joined(conv: JoinedConv2d, x_BCHW: Tensor) -> Tensor:
    """What :class:`JoinedConv2d` computes, part after part, with all parts here."""
    size = conv.link.axis.size
    own_BCHW, *others = (part.contiguous(memory_format=torch.channels_last) for part in x_BCHW.chunk(size, 1))
    weights = conv.weight.chunk(size, 1)
    y_BCHW = F.conv2d(own_BCHW, weights[0], conv.bias, conv.stride, conv.padding)
    for part_BCHW, weight in zip(others, weights[1:], strict=True):
        y_BCHW = y_BCHW + F.conv2d(part_BCHW, weight, None, conv.stride, conv.padding)
    return y_BCHW


def _units(fc: UnitsLinear, x_ND: Tensor) -> Tensor:
    """What :class:`UnitsLinear` computes, part after part, with all parts here."""
    widths = chunk_sizes(fc.columns, fc.link.axis.size)
    own_ND, *others = torch.split(x_ND, widths, dim=1)
    weights = [part.contiguous() for part in torch.split(fc.weight, widths, dim=1)]
    y_ND = F.linear(own_ND, weights[0], fc.bias)
    for part_ND, weight in zip(others, weights[1:], strict=True):
        y_ND = y_ND + F.linear(part_ND, weight)
    return y_ND


def _of_size(x: Tensor, rows: int, columns: int) -> Tensor:
    """``x`` repeated or cut to as many rows and columns as an exchange gives."""
    if x.shape[:2] == (rows, columns):
        return x
    repeats = [-(-rows // x.shape[0]), -(-columns // x.shape[1])]
    tiled = x.repeat(*repeats, *(1 for _ in x.shape[2:]))[:rows, :columns]
    return tiled.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.contiguous_format)


@dataclass(frozen=True)
class _Measured:
    works: dict[Layout, Work]
    memories: dict[Layout, Memory]
    link: LinkRates | None


def _measured(
    config: AlexNetConfig,
    layouts: Sequence[Layout],
    devices: int,
    batch_size: int,
    device: torch.device,
    precision: Precision,
    threads: int | None,
) -> _Measured:
    """Medians from timing the layouts in turns. In a job, its ranks are timed side by side, and so is the link between them."""
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
        keep_freed_memory()
    ranks = {layout: SilentRank(config, layout, devices, batch_size, device, precision) for layout in layouts}
    memories = {layout: rank.memory() for layout, rank in ranks.items()}
    works: dict[Layout, list[Work]] = {layout: [] for layout in layouts}
    links: list[LinkRates] = []
    for turn in range(REPEATS + 1):  # the first one is not counted
        for layout, rank in ranks.items():
            meet()
            found = rank.work()
            if turn:
                works[layout].append(found)
        if dist.is_initialized():
            links.append(link_rates())
    torch.set_num_threads(before)
    return _Measured({layout: median_work(each) for layout, each in works.items()}, memories, median_link(links[1:]))


def meet() -> None:
    """Wait for the other ranks of the job, if this is one."""
    if dist.is_initialized():
        dist.barrier()


def link_rates() -> LinkRates:
    """Measure the link between all ranks of this job at once."""
    world = dist.get_world_size()
    axis = Axis(dist.get_rank(), tuple(range(world)), dist.group.WORLD)
    piece, total = torch.ones(EXCHANGED_BYTES // 4), torch.ones(SUMMED_BYTES // 4)
    meet()
    start = time.perf_counter()
    Messages(Link(axis, "the link's test", Traffic()), None, [piece] * world, [piece.shape] * world).wait()
    exchanged = time.perf_counter() - start
    meet()
    start = time.perf_counter()
    dist.all_reduce(total)
    summed = time.perf_counter() - start
    return LinkRates((world - 1) * EXCHANGED_BYTES / exchanged, ring_bytes(total.numel(), world, 4) / summed)


def median_work(works: Sequence[Work]) -> Work:
    """The median of each part of the work."""
    layers = []
    for each in zip(*(work.layers for work in works), strict=True):
        forward, backward = (
            statistics.median(getattr(layer, way) for layer in each) for way in ("forward", "backward")
        )
        layers.append(LayerSeconds(each[0].layer, forward, backward, each[0].beside))
    return Work(tuple(layers), statistics.median(work.update for work in works))


def median_link(links: Sequence[LinkRates]) -> LinkRates | None:
    if not links:
        return None
    return LinkRates(statistics.median(link.exchange for link in links), statistics.median(link.sum for link in links))


# Calculated -----------------------------------------------------------------------------------------------------------


def row_of(
    config: AlexNetConfig,
    layout: Layout,
    devices: int,
    batch_size: int,
    precision: Precision,
    work: Work,
    memory: Memory,
    link: LinkRates | None,
    crowd: float | None,
) -> Row:
    """``crowd``: ranks that take turns on the cores of a rank, which also send; None: each rank has a device of its own.
    ``link``: what a rank has of it; None for one device, which sends nothing."""
    by_rank = [bytes_sent(config, layout, devices, rank, batch_size, precision) for rank in range(devices)]
    sent = max(by_rank, key=lambda each: sum(each.values()))
    under_way: dict[tuple[str, Direction], float] = {}
    if link is not None:
        under_way = {k: n / (link.exchange if k[1] in ("forward", "backward") else link.sum) for k, n in sent.items()}
    computing = work.seconds * (crowd or 1.0)
    sending = sum(under_way.values())
    return Row(
        layout=layout,
        images=chunk_sizes(batch_size, first_place(layout, devices).chunks)[0],
        sent=sent,
        sent_by_rank=tuple(sum(each.values()) for each in by_rank),
        memory=memory,
        work=work,
        computing=computing,
        sending=sending,
        step=step_on_devices(work, under_way) if crowd is None else computing + sending,
    )


def step_on_devices(work: Work, under_way: Mapping[tuple[str, Direction], float]) -> float:
    """Seconds of a step whose messages need ``under_way``, by layer and direction, in the order in which
    :mod:`alexnet.parallelize` computes and sends.

    A layer that reads other ranks' parts computes ``beside`` of its work meanwhile, and waits for the rest; another one
    waits for all. The sum of a layer's gradients begins when its backward pass is done and the sums before it are; messages
    go first. The update waits for the last sum. Sums of batch normalization are waited for where they are made."""
    now = sum(seconds for (_, direction), seconds in under_way.items() if direction == "statistics")
    for layer in work.layers:
        exchange = under_way.get((layer.layer, "forward"), 0.0)
        now += max(exchange, layer.beside * layer.forward) + (1 - layer.beside) * layer.forward
    free = now
    """When the sums that have begun will be done."""
    for layer in reversed(work.layers):
        exchange = under_way.get((layer.layer, "backward"), 0.0)
        now += max(exchange, layer.beside * layer.backward) + (1 - layer.beside) * layer.backward
        free = max(free + exchange, now) + under_way.get((layer.layer, "gradients"), 0.0)
    return max(now, free) + work.update
