"""A network on a mesh of ranks: which layer lives where, and what it must be sent. The networks themselves know no ranks.

`data`: the whole network on every rank, gradients summed over the global batch.

`towers` (§3.2 and Figure 2): a rank holds half of the kernels of every layer and half of the columns of fc8. It sends its
maps before the layers that read both towers (conv3, fc6, fc7), and its part of the logits; nothing else. Local response
normalization stays in the tower.

`hybrid` (Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks"): each rank computes the
convolutions of its own images, and its share of the units of fc6 and fc7 for everybody's. Its three schemes differ in
which images the fully connected layers see at a time:

    all     every rank's images at once; fc6 reads W chunks
    turns   one rank's images after the other; the rank whose turn it is sends to all the others
    slices  W times a W-th of every rank's images; all send all the time

All send the same bytes; the last two hold a W-th of the activations of the fully connected layers at a time.

Shape suffixes: B images of this rank, N images of all ranks in a round, C channels, H rows, W columns, D units, K classes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.core.device import Layout, Scheme
from alexnet.core.errors import UsageError
from alexnet.core.rng import DropoutDraw, dropout_keep
from alexnet.distributed.collectives import (
    Direction,
    Gathering,
    GradientSums,
    Link,
    Messages,
    Traffic,
    all_sum,
    gather,
    ring_bytes,
    sum_copies,
    sum_parts,
)
from alexnet.distributed.launch import exchange_errors, on_first
from alexnet.distributed.mesh import Axis, Mesh, chunk, chunk_sizes, mesh_shape
from alexnet.models import layer_parameters
from alexnet.models.alexnet import AlexNet, AlexNetConfig
from alexnet.models.layers import ACTIVATIONS, Dropout, TowerLinear, check_input
from alexnet.models.lrn import LocalResponseNorm

Loss = Callable[[Tensor, slice], Tensor]
"""Takes logits (B, K) and the positions of their images among this rank's; gives the sum of their losses, divided by the number
of images in the global batch. The sum over all ranks is then the mean loss, and the sum of the ranks' gradients its gradient."""


@dataclass(frozen=True)
class Chunked:
    """A tensor of the whole network that the ranks along the tower axis share: contiguous parts along ``dim``."""

    dim: int
    size: int
    """Size of the whole layer."""


@dataclass
class Parallel:
    """One rank's part of a network, and how to train it as if there were one process."""

    model: nn.Module
    """Takes this rank's images; children and parameters are named as in the whole network. In evaluation mode it gives
    the logits of these images; all ranks along the tower axis must call it together."""
    mesh: Mesh
    chunked: dict[str, Chunked]
    """How the parameters and buffers that are not whole on every rank are cut, by name."""
    sums: GradientSums
    traffic: Traffic = field(default_factory=Traffic)

    def backward(
        self,
        x_BCHW: Tensor,
        draw: DropoutDraw,
        loss: Loss,
        *,
        last: bool = True,
        forward_context: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> Tensor:
        """Forward and backward: the logits (B, K) of this rank's images, without their graph. ``draw``: of all images of
        the global batch, in its order; this rank takes those of ``mesh.images``. Gradients are added to those that are
        there; with ``last`` they are then sums over all ranks. ``forward_context``: autocast, where it is wanted."""
        own = self.mesh.images(len(draw.image_B))
        if len(x_BCHW) != own.stop - own.start:
            raise ValueError(
                f"rank {self.mesh.rank} takes {own.stop - own.start} of {len(draw.image_B)} images, but was given {len(x_BCHW)}"
            )
        if isinstance(self.model, HybridAlexNet):
            arm = self.sums.arm if last else lambda: None
            logits_BK = self.model.train_rounds(x_BCHW, draw, loss, forward_context, arm)
        else:
            with forward_context():
                logits_BK = self.model(x_BCHW, replace(draw, image_B=draw.image_B[own]))
                value = loss(logits_BK, slice(0, len(x_BCHW)))
            if last:
                self.sums.arm()
            value.backward()  # type: ignore[no-untyped-call]
        if last:
            self.sums.finish()
        return logits_BK.detach()

    def gather_state(self, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of the whole network on rank 0, nothing on the others. Names are those of parameters and buffers,
        or of what an optimizer keeps for them ("fc6.weight/velocity"). All ranks call this together."""
        if self.mesh.data.index:
            return {}
        whole: dict[str, Tensor] = {}
        for name, tensor in named.items():
            link = Link(self.mesh.tower, f"the state of {name}", Traffic())
            if (along := self._chunked(name, tensor)) is not None and self.mesh.tower.size > 1:
                shapes = []
                for size in chunk_sizes(along.size, self.mesh.tower.size):
                    shapes.append(list(tensor.shape))
                    shapes[-1][along.dim] = size
                first = self.mesh.tower.index == 0
                if not first:
                    shapes = [[0]] * len(shapes)  # the others only send
                pieces = _to_first(link, tensor.contiguous(), shapes)
                tensor = torch.cat(pieces, dim=along.dim) if first else tensor
            if self.mesh.rank == 0:
                whole[name] = tensor
        return whole

    def spread_state(self, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This rank's part of the tensors of a whole network on the CPU of rank 0, as :meth:`gather_state` gives them in
        any layout; on other ranks ``named`` does not count. All ranks call this together."""
        if self.mesh.world.size == 1:
            return dict(named)
        shapes = on_first(
            "the shapes of the state",
            lambda: [(name, str(tensor.dtype).removeprefix("torch."), tensor.shape) for name, tensor in named.items()],
        )
        parts = {}
        for name, dtype, shape in shapes:
            tensor = (
                named[name].contiguous() if self.mesh.rank == 0 else torch.empty(shape, dtype=getattr(torch, dtype))
            )
            with exchange_errors(f"sending {name} to all ranks"):
                dist.broadcast(tensor, 0, group=self.mesh.world.group)
            parts[name] = self.own_part(name, tensor)
        return parts

    def own_part(self, name: str, tensor: Tensor) -> Tensor:
        """This rank's part of a tensor of the whole network."""
        if (along := self._chunked(name, tensor)) is None:
            return tensor
        part = chunk(along.size, self.mesh.tower.index, self.mesh.tower.size)
        return tensor.narrow(along.dim, part.start, part.stop - part.start).clone()

    def _chunked(self, name: str, tensor: Tensor) -> Chunked | None:
        """How a tensor is shared; Adam's count of steps, a number, is not."""
        return self.chunked.get(name.rpartition("/")[0] or name) if tensor.dim() else None


def _to_first(link: Link, piece: Tensor, shapes: Sequence[Sequence[int]]) -> list[Tensor]:
    """All ranks' pieces on the first rank of an axis."""
    nothing = piece.new_empty(0)
    send = [nothing if link.axis.index == 0 else piece] + [nothing] * (link.axis.size - 1)
    pieces = Messages(link, None, send, shapes).wait()
    pieces[link.axis.index] = piece
    return pieces


def parallelize(model: nn.Module, mesh: Mesh, *, wire: torch.dtype | None = None, scheme: Scheme = "all") -> Parallel:
    """This rank's part of ``model``, which is taken apart: a whole network, the same on every rank, on its device and in
    its dtype. ``wire``: the dtype in which activations and gradients travel (half the bytes with torch.bfloat16); logits
    always travel in full. :class:`UsageError` for a network that the layout cannot hold."""
    parallel = Parallel(model, mesh, {}, GradientSums([]))
    if mesh.layout != "data" and mesh.tower.size > 1:
        if not isinstance(model, AlexNet):
            raise UsageError(
                f"layout {mesh.layout} puts the layers of AlexNet on several ranks, and {type(model).__name__} is another "
                "network; take layout data"
            )
        place = _Place(parallel, wire)
        parallel.model = place.towers(model) if mesh.layout == "towers" else place.hybrid(model, scheme)
    _normalize_over_all_images(parallel)
    parallel.sums = GradientSums(_buckets(parallel, wire))
    return parallel


# Layers of which a rank holds a part ------------------------------------------------------------------------------------


class JoinedConv2d(nn.Conv2d):
    """A tower's kernels of a convolution that reads both towers: what they make of the own maps is computed while the
    others' are under way. Weights (C_out / 2, C_in, k, k)."""

    link: Link

    def forward(self, x_BCHW: Tensor) -> Tensor:
        size, own = self.link.axis.size, self.link.axis.index
        weights = self.weight.chunk(size, 1)
        gathering = Gathering(self.link, x_BCHW, [x_BCHW.shape] * size)
        y_BCHW = F.conv2d(x_BCHW, weights[own], self.bias, self.stride, self.padding)
        for r, part_BCHW in gathering.finish():
            y_BCHW = y_BCHW + F.conv2d(part_BCHW, weights[r], None, self.stride, self.padding)
        return y_BCHW


class UnitsLinear(nn.Linear):
    """A rank's units of a fully connected layer. Weights (units, D_in), or (units, D_in / towers) for a layer whose units
    read their own tower only. Reads the whole input, or this rank's columns of it, for which the others send theirs."""

    link: Link
    columns: int
    """Channels or units of the whole input."""
    towers: int
    tower_units: list[int]
    """How many of the units here belong to each tower."""

    def forward(self, x_ND: Tensor) -> Tensor:
        size, own = self.link.axis.size, self.link.axis.index
        if x_ND.shape[1] == self.columns:
            return self._read(x_ND)
        widths = chunk_sizes(self.columns, size)
        shapes = [(len(x_ND), width) for width in widths]
        if self.towers > 1:
            return self._read(torch.cat(gather(self.link, x_ND, shapes), dim=1))
        # Strided parts would give their gradients transposed, and to copy those into place costs more than the product.
        weights = [part.contiguous() for part in torch.split(self.weight, widths, dim=1)]
        gathering = Gathering(self.link, x_ND, shapes)
        y_ND = F.linear(x_ND, weights[own], self.bias)
        for r, part_ND in gathering.finish():
            y_ND = y_ND + F.linear(part_ND, weights[r])
        return y_ND

    def _read(self, x_ND: Tensor) -> Tensor:
        if self.towers == 1:
            return F.linear(x_ND, self.weight, self.bias)
        parts = zip(
            x_ND.chunk(self.towers, 1),
            torch.split(self.weight, self.tower_units),
            torch.split(self.bias, self.tower_units),
            strict=True,
        )
        return torch.cat([F.linear(x, weight, bias) for x, weight, bias in parts], dim=1)


class ColumnsLinear(nn.Linear):
    """A rank's columns of fc8, which reads everything: each rank adds up its own units, and partial logits travel, a
    quarter of what fc7's units would be. Weights (K, columns), biases (K)."""

    link: Link
    columns: slice
    """Channels or units of the whole input."""

    def forward(self, x_ND: Tensor, images: Sequence[int] | None = None) -> Tensor:
        """Logits of all N images on every rank; with ``images``, of ``images[own]`` images on each."""
        if x_ND.shape[1] > self.weight.shape[1]:
            x_ND = x_ND[:, self.columns]
        partial_NK = F.linear(x_ND, self.weight)
        if images is None:
            return sum_copies(self.link, partial_NK) + self.bias
        return sum_parts(self.link, torch.split(partial_NK, list(images))) + self.bias


class UnitsDropout(Dropout):
    """Dropout of a rank's units, with the masks they have in the whole network."""

    units: slice
    total: int

    def forward(self, x_BD: Tensor, draw: DropoutDraw | None = None) -> Tensor:
        if not self.training or self.keep == 1.0:
            return super().forward(x_BD)
        if draw is None:
            raise ValueError("a network on several ranks needs a DropoutDraw for its masks; pass one, or call eval()")
        keep_BD = dropout_keep(draw, self.layer, self.total, self.keep, x_BD.device)
        x_BD = x_BD * (keep_BD[:, self.units] if x_BD.shape[1] < self.total else keep_BD)
        return x_BD if self.kind == "plain" else x_BD / self.keep


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization by mean and variance of the global batch, not of a rank's images. Sums in float32 (float64)."""

    link: Link

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x_BCHW)
        u_BCHW = x_BCHW if x_BCHW.dtype == torch.float64 else x_BCHW.float()
        count = u_BCHW.new_tensor([u_BCHW.numel() // u_BCHW.shape[1]])
        sum_C1 = all_sum(self.link, torch.cat([u_BCHW.sum((0, 2, 3)), count]))
        num = sum_C1[-1]
        mean_C11 = (sum_C1[:-1] / num)[:, None, None]
        deviation_BCHW = u_BCHW - mean_C11
        var_C11 = (all_sum(self.link, deviation_BCHW.square().sum((0, 2, 3))) / num)[:, None, None]
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean_C11.flatten().to(self.running_mean), self.momentum or 0.0)
            unbiased_C = var_C11.flatten() * num / (num - 1)
            self.running_var.lerp_(unbiased_C.to(self.running_var), self.momentum or 0.0)
        y_BCHW = deviation_BCHW * (var_C11 + self.eps).rsqrt()
        return (y_BCHW * self.weight[:, None, None] + self.bias[:, None, None]).to(x_BCHW.dtype)


class HybridAlexNet(AlexNet):
    """AlexNet with whole convolutions and a rank's part of the fully connected layers."""

    link: Link
    """How the ranks exchange what fc6 reads."""
    scheme: Scheme

    def forward(self, x_BCHW: Tensor, draw: DropoutDraw | None = None) -> Tensor:
        """Logits (B, K) of this rank's images. All ranks call this together, each with any number of images."""
        images = _numbers_of_all(self.link.axis, len(x_BCHW), x_BCHW.device)
        return self._classify(self._features(x_BCHW), images, draw)

    def train_rounds(
        self,
        x_BCHW: Tensor,
        draw: DropoutDraw,
        loss: Loss,
        forward_context: Callable[[], AbstractContextManager[object]],
        before_last: Callable[[], None],
    ) -> Tensor:
        """Logits (B, K) of this rank's images, after a backward pass. The fully connected layers finish a round, backward
        too, before the next begins, and the convolutions' backward pass follows the last; ``before_last`` is called
        before the last round's."""
        size, own = self.link.axis.size, self.link.axis.index
        with forward_context():
            features_BD = self._features(x_BCHW)
        leaf_BD = features_BD.detach().requires_grad_(features_BD.requires_grad)
        logits = []
        starts = [chunk(len(draw.image_B), r, size).start for r in range(size)]
        rounds = _rounds(self.scheme, chunk_sizes(len(draw.image_B), size))
        for i, rows in enumerate(rounds):
            image_N = np.concatenate(
                [draw.image_B[start + part.start : start + part.stop] for start, part in zip(starts, rows, strict=True)]
            )
            with forward_context():
                logits_BK = self._classify(
                    leaf_BD[rows[own]], [part.stop - part.start for part in rows], replace(draw, image_B=image_N)
                )
                value = loss(logits_BK, rows[own])
            if i == len(rounds) - 1:
                before_last()
            value.backward()  # type: ignore[no-untyped-call]
            logits.append(logits_BK.detach())
        if leaf_BD.grad is not None:
            features_BD.backward(leaf_BD.grad)  # type: ignore[no-untyped-call]
        return torch.cat(logits)

    def _features(self, x_BCHW: Tensor) -> Tensor:
        """What fc6 reads, for this rank's images: (B, D)."""
        check_input(self.name, self.config, x_BCHW)
        x = x_BCHW
        for step in self.steps():
            x = step.run(x) if step.reads_maps else x
        return x

    def _classify(self, own_BD: Tensor, images: Sequence[int], draw: DropoutDraw | None) -> Tensor:
        """Logits of this rank's images; rank r of the axis has ``images[r]`` of them in this round."""
        x_ND = torch.cat(gather(self.link, own_BD, [(num, own_BD.shape[1]) for num in images]))
        *hidden, last = [step for step in self.steps() if not step.reads_maps]
        for step in hidden:
            x_ND = step.run(x_ND, draw)
        return last._replace(layer=partial(self.fc8, images=images)).run(x_ND)


def _rounds(scheme: Scheme, images: Sequence[int]) -> list[list[slice]]:
    """For each round, which of its own images each rank sends."""
    size = len(images)
    if scheme == "all":
        return [[slice(0, num) for num in images]]
    if scheme == "turns":
        return [[slice(0, num if r == turn else 0) for r, num in enumerate(images)] for turn in range(size)]
    return [[chunk(num, part, size) for num in images] for part in range(size)]


def _numbers_of_all(axis: Axis, num: int, device: torch.device) -> list[int]:
    link = Link(axis, "the numbers of images", Traffic())
    return [int(part) for part in gather(link, torch.tensor([num], device=device), [(1,)] * axis.size)]


# Taking a network apart -------------------------------------------------------------------------------------------------


@dataclass
class _Place:
    """Puts this rank's parts into a network, and notes them in ``parallel.chunked``."""

    parallel: Parallel
    wire: torch.dtype | None

    @property
    def axis(self) -> Axis:
        return self.parallel.mesh.tower

    def towers(self, model: AlexNet) -> AlexNet:
        c = model.config
        self._require_separable(c)
        for step in model.steps():
            conv, layer = step.layer, step.name
            if isinstance(conv, nn.Conv2d):
                self._keep(conv, layer, "weight", 0)
                self._keep(conv, layer, "bias", 0)
                conv.out_channels //= self.axis.size
                if layer in c.joined:
                    setattr(model, layer, self._joined(conv, layer))
                elif layer != "conv1":
                    conv.in_channels //= self.axis.size
                    conv.groups = 1
        for path, module in model.named_modules():
            if isinstance(module, LocalResponseNorm):
                module.window = module.window._replace(towers=1)
            elif isinstance(module, nn.GroupNorm | nn.BatchNorm2d):
                for tensor_name in [*dict(module.named_parameters()), *dict(module.named_buffers())]:
                    if getattr(module, tensor_name).dim():
                        self._keep(module, path, tensor_name, 0)
                if isinstance(module, nn.BatchNorm2d):
                    module.num_features //= self.axis.size
                else:
                    module.num_groups //= self.axis.size
                    module.num_channels //= self.axis.size
        self._fully_connected(model)
        return model

    def hybrid(self, whole: AlexNet, scheme: Scheme) -> HybridAlexNet:
        model = HybridAlexNet(whole.config, name=whole.name, seed=None)
        for name, module in whole.named_children():
            setattr(model, name, module)
        self._fully_connected(model)
        first = next(step.name for step in model.steps() if not step.reads_maps)
        model.link, model.scheme = self._link(first), scheme
        return model.train(whole.training)

    def _fully_connected(self, model: AlexNet) -> None:
        c, inputs = model.config, model.config.layer_inputs()
        for step in model.steps():
            fc, layer = step.layer, step.name
            if not isinstance(fc, nn.Linear | TowerLinear) or layer == "fc8":
                continue
            (columns,) = inputs[layer]
            units = len(fc.weight)
            self._keep(fc, layer, "weight", 0)
            self._keep(fc, layer, "bias", 0)
            total = units if c.dropout_place == "after" else columns
            assert step.dropout is not None
            setattr(model, layer.replace("fc", "dropout"), self._dropout(step.dropout, total))
            towers = fc.towers if isinstance(fc, TowerLinear) else 1
            if towers > 1 and self.parallel.mesh.layout == "towers":
                columns //= towers
                towers = 1
            setattr(model, layer, self._units(fc, layer, columns, units, towers))
        self._keep(model.fc8, "fc8", "weight", 1)
        fc8 = ColumnsLinear(1, 1, device="meta")
        fc8.weight, fc8.bias = model.fc8.get_parameter("weight"), model.fc8.get_parameter("bias")
        fc8.out_features, fc8.in_features = fc8.weight.shape
        fc8.link = replace(
            self._link("fc8"), wire=None
        )  # ranks would round their own and the others' logits differently
        fc8.columns = self._chunk(*inputs["fc8"])
        model.fc8 = fc8

    def _joined(self, conv: nn.Conv2d, layer: str) -> JoinedConv2d:
        joined = JoinedConv2d(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size[0],
            conv.stride[0],
            int(conv.padding[0]),
            device="meta",
        )
        joined.weight, joined.bias, joined.link = conv.weight, conv.bias, self._link(layer)
        return joined

    def _units(self, fc: nn.Module, layer: str, columns: int, units: int, towers: int) -> UnitsLinear:
        part = UnitsLinear(1, 1, device="meta")
        part.weight, part.bias = fc.get_parameter("weight"), fc.get_parameter("bias")
        part.out_features, part.in_features = part.weight.shape
        part.link, part.columns, part.towers = self._link(layer), columns, towers
        here = self._chunk(units)
        edges = [min(max(tower * units // towers, here.start), here.stop) for tower in range(towers + 1)]
        part.tower_units = [edges[t + 1] - edges[t] for t in range(towers)]
        return part

    def _dropout(self, whole: Dropout, total: int) -> UnitsDropout:
        part = UnitsDropout(whole.layer, kind=cast(Any, whole.kind), rate=1.0 - whole.keep)
        part.keep, part.units, part.total = whole.keep, self._chunk(total), total
        return part

    def _keep(self, module: nn.Module, path: str, name: str, dim: int) -> None:
        """Keep this rank's part of a parameter or buffer of ``module``."""
        whole = cast(Tensor, getattr(module, name))
        part = self._chunk(whole.shape[dim])
        kept = whole.detach().narrow(dim, part.start, part.stop - part.start).clone()
        self.parallel.chunked[f"{path}.{name}"] = Chunked(dim, whole.shape[dim])
        setattr(module, name, nn.Parameter(kept, whole.requires_grad) if isinstance(whole, nn.Parameter) else kept)

    def _chunk(self, num: int) -> slice:
        return chunk(num, self.axis.index, self.axis.size)

    def _link(self, layer: str) -> Link:
        return Link(self.axis, layer, self.parallel.traffic, self.wire)

    def _require_separable(self, c: AlexNetConfig) -> None:
        obstacle = None
        if c.towers != 2:
            obstacle = "it has one tower"
        elif c.unshared:
            obstacle = f"its kernels of {c.unshared[0]} are not shared (unshared)"
        elif c.normalization == "lrn" and c.lrn_crosses_towers:
            obstacle = "its normalization crosses the towers (lrn_crosses_towers)"
        elif c.normalization == "layer":
            obstacle = "layer normalization is over the maps of both towers"
        elif c.normalization == "group" and any(np.gcd(32, width) % 2 for width in c.conv_channels if width):
            obstacle = "a group of its normalization spans the towers"
        if obstacle:
            raise UsageError(f"layout towers cannot separate this network: {obstacle}; take layout data or hybrid")


def _normalize_over_all_images(parallel: Parallel) -> None:
    """Batch normalization over the images of all ranks that hold the same channels."""
    axis = _image_axis(parallel.mesh)
    if axis.size == 1:
        return
    for path, module in list(parallel.model.named_modules()):
        if type(module) is nn.BatchNorm2d:
            norm = GlobalBatchNorm2d(module.num_features, module.eps, module.momentum, device="meta")
            norm.weight, norm.bias = module.weight, module.bias
            norm.running_mean, norm.running_var = module.running_mean, module.running_var
            norm.num_batches_tracked = module.num_batches_tracked
            norm.link = Link(axis, path, parallel.traffic)
            parent, _, name = path.rpartition(".")
            setattr(parallel.model.get_submodule(parent), name, norm.train(module.training))


def _image_axis(mesh: Mesh) -> Axis:
    """The ranks that compute the convolutions of different images."""
    return mesh.world if mesh.layout == "hybrid" else mesh.data


def _buckets(parallel: Parallel, wire: torch.dtype | None) -> list[tuple[Link, list[nn.Parameter]]]:
    """Which gradients are summed over which ranks. A rank of a tower axis has the whole gradient of its own kernels and, in
    the towers layout, where both ranks have the same logits, of fc8's biases. Of all other parameters every rank has a copy,
    and a part of their gradient."""
    mesh, names = parallel.mesh, {id(p): name for name, p in parallel.model.named_parameters()}
    buckets: list[tuple[Link, list[nn.Parameter]]] = []
    for layer, parameters in layer_parameters(parallel.model).items():
        members: dict[bool, list[nn.Parameter]] = {}
        for p in (*parameters.weights, *parameters.biases):
            name = names[id(p)]
            complete = name in parallel.chunked or (mesh.layout == "towers" and name == "fc8.bias")
            members.setdefault(complete, []).append(p)
        for complete, parameter in members.items():
            axis = mesh.data if complete else mesh.world
            buckets.append((Link(axis, layer, parallel.traffic, wire), parameter))
    return buckets


# What the geometry predicts ---------------------------------------------------------------------------------------------


def predicted_traffic(
    config: AlexNetConfig,
    layout: Layout,
    world: int,
    rank: int,
    images: int,
    *,
    element_bytes: int = 4,
    activation_bytes: int | None = None,
    wire_bytes: int | None = None,
) -> dict[tuple[str, Direction], int]:
    """Bytes that ``rank`` of ``world`` sends to others in one training step of ``images`` images in the global batch, by
    layer and direction, from the sizes of the layers alone. A parameter has ``element_bytes``, a number between layers
    ``activation_bytes`` (by default as many), and both ``wire_bytes``, if given, where they travel. All layers learn: below
    the first one that does, no gradients travel."""
    data, tower = mesh_shape(layout, world)
    activation = activation_bytes or element_bytes
    wire, gradient = wire_bytes or activation, wire_bytes or element_bytes
    sent: Counter[tuple[str, Direction]] = Counter()
    model, inputs = AlexNet(config, seed=None), config.layer_inputs()
    if layout == "towers" and tower > 1:
        B = chunk_sizes(images, data)[rank // tower]
        for layer, shape in inputs.items():
            if layer in config.joined:
                sent[layer, "forward"] = sent[layer, "backward"] = B * math.prod(shape) // tower * wire
        sent["fc8", "forward"] = B * config.num_classes * activation
    elif layout == "hybrid" and tower > 1:
        B, others = chunk_sizes(images, world)[rank], world - 1
        first, *later = [step.name for step in model.steps() if not step.reads_maps]
        (columns,) = inputs[first]
        sent[first, "forward"] += B * columns * wire * others
        sent[first, "backward"] += (images - B) * columns * wire
        for layer in later[:-1]:  # fc7, if there is an fc6 before it
            (columns,) = inputs[layer]
            units = chunk_sizes(columns, world)[rank]
            sent[layer, "forward"] = images * units * wire * others
            sent[layer, "backward"] = images * (columns - units) * wire
        sent["fc8", "forward"] += (images - B) * config.num_classes * activation
        sent["fc8", "backward"] += B * others * config.num_classes * activation
    for (layer, size), numel in _summed_gradients(model, layout, data, tower).items():
        sent[layer, "gradients"] += ring_bytes(numel, size, gradient)
    for path, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            channels, size = (
                (module.num_features // tower, data) if layout == "towers" else (module.num_features, world)
            )
            one_way = sum(ring_bytes(numel, size, max(4, element_bytes)) for numel in (channels + 1, channels))
            sent[path, "statistics"] = 2 * one_way
    return {key: num for key, num in sent.items() if num}


def _summed_gradients(model: AlexNet, layout: Layout, data: int, tower: int) -> Counter[tuple[str, int]]:
    """How many of the numbers in a rank's gradients are summed over ranks, by layer and by how many ranks."""
    numbers: Counter[tuple[str, int]] = Counter()
    names = {id(p): name for name, p in model.named_parameters()}
    for layer, parameters in layer_parameters(model).items():
        for p in (*parameters.weights, *parameters.biases):
            name = names[id(p)]
            owner = model.get_submodule(name.rpartition(".")[0])
            slope = isinstance(owner, tuple(ACTIVATIONS.values()))  # of a PReLU, the same everywhere
            if tower == 1 or slope or (layout == "hybrid" and (not layer.startswith("fc") or name == "fc8.bias")):
                numbers[layer, data * tower] += p.numel()
            elif layout == "towers":
                numbers[layer, data] += p.numel() if name == "fc8.bias" else p.numel() // tower
    return numbers
