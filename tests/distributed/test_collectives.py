from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import rank_jobs
import torch
from rank_jobs import draw, sizes
from torch import Tensor, nn

from alexnet.distributed import collectives
from alexnet.distributed.collectives import Gathering, Link, Traffic, ring_bytes
from alexnet.distributed.launch import run_local
from alexnet.distributed.mesh import Axis


def weights(rank: int, *shape: int) -> np.ndarray:
    """By what each rank of `all_collectives` multiplies its result before it sums."""
    return draw(100 + rank, *shape).numpy()


@pytest.fixture(scope="module", params=[2, 4])
def found(request):
    return run_local(rank_jobs.all_collectives, request.param)


def close(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-14)


def test_gather_gives_all_parts_and_adds_up_what_was_made_of_them(found):
    rows = sizes(len(found))
    whole = np.concatenate([draw(r, n, 5).numpy() for r, n in enumerate(rows)])
    gradient = sum(weights(r, sum(rows), 5) for r in range(len(found)))
    for r, part in enumerate(np.split(gradient, np.cumsum(rows)[:-1])):
        assert np.array_equal(found[r]["gather"][0], whole)
        close(found[r]["gather"][1], part)


def test_gathered_maps_keep_their_memory_order(found):
    world = len(found)
    whole = np.concatenate([draw(10 + r, 2, 3, 4, 4).numpy() for r in range(world)], axis=1)
    gradient = sum(weights(r, 2, 3 * world, 4, 4) for r in range(world))
    for r in range(world):
        assert np.array_equal(found[r]["maps"][0], whole)
        close(found[r]["maps"][1], gradient[:, 3 * r : 3 * r + 3])
        assert found[r]["channels last"]


def test_sum_parts_gives_each_rank_the_sum_of_its_rows(found):
    rows = sizes(len(found))
    edges = np.cumsum(rows)[:-1]
    total = sum(draw(20 + r, sum(rows), 4).numpy() for r in range(len(found)))
    gradient = np.concatenate([weights(r, n, 4) for r, n in enumerate(rows)])
    for r, part in enumerate(np.split(total, edges)):
        close(found[r]["sum_parts"][0], part)
        close(found[r]["sum_parts"][1], gradient)


def test_sums_for_everyone(found):
    world = len(found)
    for r in range(world):
        close(found[r]["all_sum"][0], sum(draw(30 + s, 6).numpy() for s in range(world)))
        close(found[r]["all_sum"][1], sum(weights(s, 6) for s in range(world)))
        close(found[r]["sum_copies"][0], sum(draw(40 + s, 6).numpy() for s in range(world)))
        close(found[r]["sum_copies"][1], draw(140, 6).numpy())  # once, not once for each copy
        assert np.array_equal(found[r]["sum_copies"][0], found[0]["sum_copies"][0])  # bit for bit


def test_in_half_precision_only_what_travels_is_rounded(found):
    world = len(found)
    for r in range(world):
        parts = [draw(50 + s, 7).float() for s in range(world)]
        expected = np.concatenate([(p if s == r else p.bfloat16().float()).numpy() for s, p in enumerate(parts)])
        assert np.array_equal(found[r]["half"][0], expected)
        assert np.array_equal(found[r]["half"][1], np.full(7, world, dtype=np.float32))
        assert found[r]["labels"].tolist() == [1000001 + s for s in range(world)]  # whole numbers are never rounded


def test_bytes_are_those_that_went_to_other_ranks(found):
    world = len(found)
    rows = sizes(world)
    for r in range(world):
        others = world - 1
        assert found[r]["sent"] == {
            key: num
            for key, num in {
                "gather/forward": rows[r] * 5 * 8 * others,
                "gather/backward": (sum(rows) - rows[r]) * 5 * 8,
                "maps/forward": 2 * 3 * 16 * 8 * others,
                "maps/backward": 2 * 3 * 16 * 8 * others,
                "sum_parts/forward": (sum(rows) - rows[r]) * 4 * 8,
                "sum_parts/backward": rows[r] * 4 * 8 * others,
                "all_sum/statistics": 2 * ring_bytes(6, world, 8),
                "sum_copies/forward": 6 * 8 * others,
                "half/forward": 7 * 2 * others,
                "half/backward": 7 * 2 * others,
                "labels/forward": 8 * others,
            }.items()
            if num
        }


def test_a_ring_passes_every_number_twice_except_its_own_share():
    # 10 numbers among 4 ranks: padded to 12, pieces of 3; each rank sends 3 pieces to add up and 3 to hand round.
    assert ring_bytes(10, 4, 8) == 6 * 3 * 8
    assert ring_bytes(10, 1, 8) == 0


@pytest.mark.parametrize("wire", [None, "float16"])
def test_gradients_are_summed_over_ranks_and_micro_batches_and_start_before_the_end(wire: str | None):
    world = 3
    found = run_local(rank_jobs.gradient_sums, world, wire)
    torch.manual_seed(0)
    first, second, frozen = nn.Linear(3, 5).double(), nn.Linear(5, 2).double(), nn.Linear(2, 2).double()
    for micro_batch in range(2):
        for rank in range(world - 1):
            frozen(second(first(draw(10 * micro_batch + rank, 4, 3)))).square().sum().backward()
    expected = [p.grad.numpy() for p in (*first.parameters(), *second.parameters())]
    for rank in range(world):
        for ours, theirs, copy in zip(found[rank]["gradients"], expected, found[0]["gradients"], strict=True):
            np.testing.assert_allclose(
                ours, theirs, rtol=0, atol=1e-12 if wire is None else 2e-3 * np.abs(theirs).max()
            )
            assert np.array_equal(ours, copy)  # else the copies of the weights would drift apart
        # 20 and 12 numbers, in doubles or halves; none of the frozen layer.
        assert found[rank]["sent"] == {
            "0/gradients": ring_bytes(20, 3, 8 if wire is None else 2),
            "1/gradients": ring_bytes(12, 3, 8 if wire is None else 2),
        }
    assert [f["started"] for f in found] == [2, 2, 0]
    if wire == "float16":
        assert any(
            not np.allclose(o, e, rtol=0, atol=1e-9) for o, e in zip(found[0]["gradients"], expected, strict=True)
        )


def test_what_needs_no_other_rank_is_computed_while_messages_are_under_way(monkeypatch):
    events: list[str] = []

    class Note(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, what: str) -> Tensor:
            ctx.what = what
            events.append(what)
            return x * 2

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
            events.append(ctx.what)
            return gradient * 2, None

    class Post:
        """Messages to a rank that answers with ones."""

        def __init__(self, link: Link, direction: str, send: Any, shapes: Any, **_: Any) -> None:
            self.answers = [torch.ones(shape) for shape in shapes]
            events.append(f"{direction}: sent")

        def wait(self) -> list[Tensor]:
            events.append("came")
            return self.answers

    monkeypatch.setattr(collectives, "Messages", Post)
    x = torch.full((3,), 5.0, requires_grad=True)
    gathering = Gathering(Link(Axis(0, (0, 1)), "conv3", Traffic()), x, [(3,), (3,)])
    y = Note.apply(x, "own part")
    for _, part in gathering.finish():
        y = y + Note.apply(part, "other part")
    assert events == ["forward: sent", "own part", "came", "other part"]
    assert y.tolist() == [12.0] * 3
    events.clear()
    y.sum().backward()
    assert events == ["other part", "backward: sent", "own part", "came"]
    assert x.grad.tolist() == [3.0] * 3  # 2 of its own use, 1 that came
