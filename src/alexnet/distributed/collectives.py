"""What ranks send each other, with gradients, with its bytes counted, and in half precision where asked.

Everything but the plain sum of gradients is made of messages from rank to rank, so that pieces may differ in size, that
the bytes counted are the bytes sent, and that sums are made in the order of the ranks: the same on every rank, in the
precision of the sum even when the pieces travel in half. `torch.distributed.nn.functional` has the same functions without
these, and waits where :class:`Gathering` lets a layer compute.

    forward                                                backward
    Gathering     every rank gets all ranks' parts          what each made of a part is added where the part came from
    sum_parts     each rank gets the sum of its part        every rank gets all gradients
    sum_copies    every rank gets the sum, and all do       nothing: each has the gradient of the sum
                  the same with it
    all_sum       every rank gets the sum, and each does    the sum of the gradients
                  something else with it
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from alexnet.distributed.launch import exchange_errors
from alexnet.distributed.mesh import Axis

Direction = Literal["forward", "backward", "gradients", "statistics"]


@dataclass
class Traffic:
    """Bytes this rank has sent to others."""

    sent: Counter[tuple[str, Direction]] = field(default_factory=Counter)
    """The same bytes, by layer and direction."""

    def add(self, layer: str, direction: Direction, num_bytes: int) -> None:
        if num_bytes:
            self.sent[layer, direction] += num_bytes


@dataclass(frozen=True)
class Link:
    """The ranks along an axis, as one layer sees them."""

    axis: Axis
    layer: str
    traffic: Traffic
    wire: torch.dtype | None = None
    """Type in which floating-point numbers are sent; None: their own."""


class Messages:
    """Pieces under way: one sent to each other rank of a link, one received from each."""

    def __init__(
        self,
        link: Link,
        direction: Direction | None,
        send: Sequence[Tensor],
        shapes: Sequence[Sequence[int]],
        *,
        channels_last: bool = False,
    ) -> None:
        """Post all. ``send[r]`` goes to rank ``r`` of the axis, a piece of ``shapes[r]`` comes from there; the entries of
        this rank itself are ignored. All pieces have the dtype of ``send[0]``. ``direction`` None: not counted."""
        self.own, self.dtype, self.channels_last, self.what = link.axis.index, send[0].dtype, channels_last, link.layer
        wire = link.wire if link.wire is not None and self.dtype.is_floating_point else self.dtype
        self.shapes = [_in_memory(tuple(shape), channels_last) for shape in shapes]
        self.received, self.posted = [], []
        self.sending = []  # kept until they are sent
        operations = []
        for r, peer in enumerate(link.axis.ranks):
            came = torch.empty(self.shapes[r] if r != self.own else 0, dtype=wire, device=send[0].device)
            self.received.append(came)
            if r == self.own:
                continue
            piece = send[r].detach()
            piece = (piece.permute(0, 2, 3, 1) if channels_last else piece).to(wire).contiguous()
            self.sending.append(piece)
            if piece.numel():
                operations.append(dist.P2POp(dist.isend, piece, peer, link.axis.group))
            if came.numel():
                operations.append(dist.P2POp(dist.irecv, came, peer, link.axis.group))
            if direction is not None:
                link.traffic.add(link.layer, direction, piece.numel() * piece.element_size())
        if operations:
            with exchange_errors(f"the exchange of {self.what}"):
                self.posted = dist.batch_isend_irecv(operations)

    def wait(self) -> list[Tensor]:
        """The received pieces by rank; this rank's own entry is empty."""
        with exchange_errors(f"the exchange of {self.what}"):
            for work in self.posted:
                work.wait()
        self.posted, self.sending = [], []
        pieces = [piece.to(self.dtype) for piece in self.received]
        return [piece.permute(0, 3, 1, 2) if self.channels_last and piece.dim() == 4 else piece for piece in pieces]


class Gathering:
    """Every rank of a link gets all ranks' parts. Between :meth:`start` and :meth:`finish` the parts are under way, and
    what can be computed from the own part is; backward, the gradients of the others' parts are under way while those of
    the own part are computed.

        gathering = Gathering(link, x, shapes)
        y = layer(x)                              # from the own part
        for r, part in gathering.finish(): ...    # from the others'
    """

    def __init__(self, link: Link, x: Tensor, shapes: Sequence[Sequence[int]]) -> None:
        """``shapes[r]``: shape of the part of rank ``r``; ``shapes`` of this rank is ``x``'s."""
        self.link, self.shapes = link, [tuple(shape) for shape in shapes]
        self.channels_last = _channels_last(x)
        self.messages: Messages | None = None
        self.token: Tensor = _Start.apply(x, self)  # type: ignore[no-untyped-call]

    def finish(self) -> list[tuple[int, Tensor]]:
        """The other ranks' parts, by their place on the axis."""
        parts = _Finish.apply(self.token, self)  # type: ignore[no-untyped-call]
        return list(zip(self.others, parts, strict=True))

    @property
    def others(self) -> list[int]:
        return [r for r in range(self.link.axis.size) if r != self.link.axis.index]

    def post(self, direction: Direction, send: Sequence[Tensor], shapes: Sequence[Sequence[int]]) -> None:
        self.messages = Messages(self.link, direction, send, shapes, channels_last=self.channels_last)

    def wait(self) -> list[Tensor]:
        assert self.messages is not None
        pieces = self.messages.wait()
        self.messages = None
        return [pieces[r] for r in self.others]


class _Start(torch.autograd.Function):
    """Sends the own part. Its output, an empty tensor, ties :class:`_Finish` to it: autograd runs the backward of what
    came later first, so gradients are sent in _Finish.backward, the own part's are computed, and here they arrive."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gathering: Gathering) -> Tensor:
        ctx.gathering = gathering
        gathering.post("forward", [x] * gathering.link.axis.size, gathering.shapes)
        return x.new_empty(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, None]:
        first, *others = ctx.gathering.wait()
        for gradient in others:
            first = first + gradient
        return first, None


class _Finish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token: Tensor, gathering: Gathering) -> tuple[Tensor, ...]:
        ctx.gathering = gathering
        return tuple(gathering.wait())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gathering: Gathering = ctx.gathering
        own = gathering.link.axis.index
        send = [*gradients[:own], gradients[0], *gradients[own:]]
        gathering.post("backward", send, [gathering.shapes[own]] * len(send))
        return gradients[0].new_empty(0), None


def gather(link: Link, x: Tensor, shapes: Sequence[Sequence[int]]) -> list[Tensor]:
    """All ranks' parts in the order of the ranks, the own one as it is."""
    parts = [x]
    if link.axis.size > 1:
        parts = [part for _, part in Gathering(link, x, shapes).finish()]
        parts.insert(link.axis.index, x)
    return parts


def sum_parts(link: Link, parts: Sequence[Tensor]) -> Tensor:
    """Rank r gets the sum over all ranks of their ``parts[r]``."""
    return _SumParts.apply(link, *parts) if link.axis.size > 1 else parts[0]  # type: ignore[no-untyped-call]


class _SumParts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, link: Link, *parts: Tensor) -> Tensor:
        ctx.link, ctx.shapes = link, [part.shape for part in parts]
        own = link.axis.index
        return _sum_in_order(Messages(link, "forward", parts, [parts[own].shape] * len(parts)), parts[own])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        pieces = Messages(ctx.link, "backward", [gradient] * len(ctx.shapes), ctx.shapes).wait()
        pieces[ctx.link.axis.index] = gradient
        return None, *pieces


def sum_copies(link: Link, x: Tensor) -> Tensor:
    """The sum over ranks of ``x``, bit for bit the same on all of them; afterwards all ranks must do the same with it."""
    return _SumCopies.apply(link, x) if link.axis.size > 1 else x  # type: ignore[no-untyped-call]


class _SumCopies(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, link: Link, x: Tensor) -> Tensor:
        return _sum_in_order(Messages(link, "forward", [x] * link.axis.size, [x.shape] * link.axis.size), x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, gradient


def _sum_in_order(messages: Messages, own: Tensor) -> Tensor:
    pieces = messages.wait()
    pieces[messages.own] = own
    total = pieces[0].clone()
    for piece in pieces[1:]:
        total += piece
    return total


def all_sum(link: Link, x: Tensor) -> Tensor:
    """The sum over ranks of ``x``; afterwards each rank does something of its own with it."""
    return _AllSum.apply(link, x) if link.axis.size > 1 else x  # type: ignore[no-untyped-call]


class _AllSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, link: Link, x: Tensor) -> Tensor:
        ctx.link = link
        return _reduced(link, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, _reduced(ctx.link, gradient)


def _reduced(link: Link, x: Tensor) -> Tensor:
    flat = _padded([x], link.axis.size)
    with exchange_errors(f"the sum of {link.layer}"):
        dist.all_reduce(flat, group=link.axis.group)
    link.traffic.add(link.layer, "statistics", ring_bytes(x.numel(), link.axis.size, x.element_size()))
    return flat[: x.numel()].view(x.shape)


def add_up(axis: Axis, what: str, x: Tensor) -> Tensor:
    """The sum over the ranks of an axis of a tensor on the CPU, the same on all of them; no gradient, not counted."""
    if axis.size > 1:
        x = x.clone()
        with exchange_errors(what):
            dist.all_reduce(x, group=axis.group)
    return x


def any_of(axis: Axis, what: str, flag: bool) -> bool:
    """Whether ``flag`` is set on any rank of an axis."""
    return bool(add_up(axis, what, torch.tensor([int(flag)])).item())


def ring_bytes(numel: int, size: int, element_bytes: int) -> int:
    """Bytes that each of ``size`` ranks sends when a sum of ``numel`` numbers goes round in a ring: 2 (size - 1) of
    ``size`` equal pieces, the numbers padded to a multiple of ``size``."""
    return 2 * (size - 1) * -(-numel // size) * element_bytes


class GradientSums:
    """The gradients of a network summed over ranks while its backward pass still runs.

    A bucket is what belongs to one layer and is summed along one axis; its sum starts when the last of its gradients is
    there. Buckets start in a fixed order, the last layer's first, on every rank, whatever order gradients come in. (Not
    DDP: it knows one group of ranks for all parameters, and wants a whole copy of the network on each.)"""

    def __init__(self, buckets: Sequence[tuple[Link, Sequence[nn.Parameter]]]) -> None:
        """``buckets`` in the order of the forward pass; those of an axis of one rank are left out, and so are parameters
        that get no gradient."""
        learning = [(link, [p for p in parameters if p.requires_grad]) for link, parameters in reversed(buckets)]
        self.buckets = [(link, parameters) for link, parameters in learning if link.axis.size > 1 and parameters]
        self.armed = False
        self.missing: list[int] = []
        self.sums: list[_Sum] = []
        for i, (_, parameters) in enumerate(self.buckets):
            for p in parameters:
                p.register_post_accumulate_grad_hook(lambda _, i=i: self._arrived(i))  # type: ignore[no-untyped-call]

    def arm(self) -> None:
        """The backward pass that comes next is the last one of this step: start each sum as soon as it can."""
        self.armed, self.sums = True, []
        self.missing = [len(parameters) for _, parameters in self.buckets]

    def finish(self) -> None:
        """Start what has not started (a rank without images may have computed nothing), wait for all, and put the sums
        into the parameters' gradients."""
        self._start(len(self.buckets))
        self.armed = False
        for (_, parameters), total in zip(self.buckets, self.sums, strict=True):
            for p, gradient in zip(parameters, total.wait(), strict=True):
                assert p.grad is not None
                p.grad.copy_(gradient)

    def _arrived(self, i: int) -> None:
        if self.armed:
            self.missing[i] -= 1
            ready = next((j for j, left in enumerate(self.missing) if left), len(self.missing))
            self._start(ready)

    def _start(self, stop: int) -> None:
        for link, parameters in self.buckets[len(self.sums) : stop]:
            for p in parameters:
                if p.grad is None:
                    p.grad = torch.zeros_like(p)
            self.sums.append(_Sum(link, [p.grad for p in parameters if p.grad is not None]))


class _Sum:
    """A sum under way. In half precision the pieces are added in full: each rank adds up one piece of all, and hands it
    round."""

    def __init__(self, link: Link, gradients: Sequence[Tensor]) -> None:
        self.link, self.shapes = link, [gradient.shape for gradient in gradients]
        size, self.flat = link.axis.size, _padded(gradients, link.axis.size)
        self.halves = link.wire is not None and link.wire != self.flat.dtype
        element_bytes = link.wire.itemsize if link.wire is not None else self.flat.element_size()
        link.traffic.add(
            link.layer, "gradients", ring_bytes(sum(gradient.numel() for gradient in gradients), size, element_bytes)
        )
        if self.halves:
            pieces = self.flat.chunk(size)
            self.messages = Messages(link, None, pieces, [pieces[0].shape] * size)
        else:
            with exchange_errors(f"the sum of the gradients of {link.layer}"):
                self.work = dist.all_reduce(self.flat, group=link.axis.group, async_op=True)

    def wait(self) -> list[Tensor]:
        link, size = self.link, self.link.axis.size
        if self.halves:
            piece = _sum_in_order(self.messages, self.flat.chunk(size)[link.axis.index])
            piece = piece.to(link.wire).to(piece.dtype)  # as the others will read it
            pieces = Messages(link, None, [piece] * size, [piece.shape] * size).wait()
            pieces[link.axis.index] = piece
            self.flat = torch.cat(pieces)
        else:
            with exchange_errors(f"the sum of the gradients of {link.layer}"):
                self.work.wait()
        sizes = [shape.numel() for shape in self.shapes]
        parts = torch.split(self.flat[: sum(sizes)], sizes)
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]


def _padded(tensors: Sequence[Tensor], size: int) -> Tensor:
    """All tensors in one row, with zeros up to a multiple of ``size``."""
    numel = sum(tensor.numel() for tensor in tensors)
    flat = tensors[0].new_zeros(-(-numel // size) * size)
    for part, tensor in zip(torch.split(flat[:numel], [tensor.numel() for tensor in tensors]), tensors, strict=True):
        part.view(tensor.shape).copy_(tensor)
    return flat


def _channels_last(x: Tensor) -> bool:
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def _in_memory(shape: tuple[int, ...], channels_last: bool) -> tuple[int, ...]:
    if not channels_last:
        return shape
    B, C, H, W = shape
    return B, H, W, C
