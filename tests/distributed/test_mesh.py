from __future__ import annotations

import itertools
import math

import pytest
import rank_jobs

from alexnet.core.errors import UsageError
from alexnet.distributed.launch import run_local
from alexnet.distributed.mesh import Axis, Mesh, build_mesh, chunk, chunk_sizes, mesh_shape


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_every_image_of_a_batch_is_taken_exactly_once_in_order(world: int):
    for num in range(65):
        chunks = [chunk(num, rank, world) for rank in range(world)]
        taken = [i for part in chunks for i in range(part.start, part.stop)]
        assert taken == list(range(num))
        sizes = chunk_sizes(num, world)
        assert sizes == [part.stop - part.start for part in chunks]
        assert max(sizes) - min(sizes) <= 1


def test_the_remainder_goes_to_the_first_ranks():
    assert [(chunk(7, r, 4).start, chunk(7, r, 4).stop) for r in range(4)] == [(0, 2), (2, 4), (4, 6), (6, 7)]


@pytest.mark.parametrize(("world", "batch_size"), list(itertools.product([1, 2, 3, 4], [1, 3, 8])))
def test_evaluation_takes_every_image_exactly_once_in_as_many_whole_batches_on_each_rank(world: int, batch_size: int):
    ranks = [Mesh("data", data=Axis(r, tuple(range(world)))) for r in range(world)]
    for num in range(1, 65):
        orders = [mesh.evaluation_order(num, batch_size) for mesh in ranks]
        assert sorted(number for order in orders for number in order.tolist() if number < num) == list(range(num))
        assert {len(order) for order in orders} == {math.ceil(math.ceil(num / world) / batch_size) * batch_size}
        assert all((order % world == rank).all() for rank, order in enumerate(orders))


def test_axes_of_each_layout():
    assert [mesh_shape("data", n) for n in (1, 3, 4)] == [(1, 1), (3, 1), (4, 1)]
    assert [mesh_shape("towers", n) for n in (1, 2, 6)] == [(1, 1), (1, 2), (3, 2)]
    assert [mesh_shape("hybrid", n) for n in (1, 3, 4)] == [(1, 1), (1, 3), (1, 4)]
    with pytest.raises(UsageError, match="even number of ranks, and this job has 3; start 2 or 4, or take"):
        mesh_shape("towers", 3)


def test_one_process_takes_everything_without_a_group():
    for layout in ("data", "towers", "hybrid"):
        mesh = build_mesh(layout)
        assert mesh == Mesh(layout)
        assert mesh.images(5) == slice(0, 5)
        assert mesh.counts


def test_of_two_towers_with_the_same_images_one_counts():
    pairs = [
        Mesh("towers", Axis(d, (t, t + 2)), Axis(t, (2 * d, 2 * d + 1)), Axis(2 * d + t, (0, 1, 2, 3)))
        for d in (0, 1)
        for t in (0, 1)
    ]
    assert [mesh.images(5) for mesh in pairs] == [slice(0, 3)] * 2 + [slice(3, 5)] * 2
    counted = [mesh.evaluation_order(5, 3).tolist() for mesh in pairs if mesh.counts]
    assert counted == [[0, 2, 4], [1, 3, 5]]


def test_four_ranks_meet_in_every_layout():
    for rank, found in enumerate(run_local(rank_jobs.meshes, 4)):
        everyone = (0, 1, 2, 3)
        assert found["data"]["data"] == (rank, everyone)
        assert found["data"]["tower"] == (0, (rank,))
        assert found["towers"]["data"] == (rank // 2, (rank % 2, rank % 2 + 2))
        assert found["towers"]["tower"] == (rank % 2, (rank // 2 * 2, rank // 2 * 2 + 1))
        assert found["hybrid"]["tower"] == (rank, everyone)
        assert found["towers"]["coordinate"] == (rank // 2, rank % 2)
        assert {found[layout]["names"] for layout in ("data", "towers", "hybrid")} == {("data", "tower")}
        assert found["data"]["share"] == found["hybrid"]["share"] == (rank, 4, True)
        assert found["towers"]["share"] == (rank // 2, 2, rank % 2 == 0)
