"""Rows of float16 by the kernel of scan.c: the order is that of distances written out in float64, ties and all."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from alexnet.probes import neighbors, scan
from alexnet.probes.neighbors import nearest
from alexnet.probes.scan import Directions
from alexnet.probes.search import Vectors

needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler here")


@pytest.fixture(params=[pytest.param(True, marks=needs_cc), False], ids=["kernel", "torch"], autouse=True)
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """The same with and without a compiler."""
    if request.param:
        assert scan.KERNELS.available(build=True), scan.KERNELS.failure
    else:
        monkeypatch.setattr(scan.KERNELS, "available", lambda build=False: False)
    return bool(request.param)


def written_out(query_QD: NDArray[Any], base_ND: NDArray[Any], k: int) -> NDArray[np.int64]:
    squared_QN = np.square(query_QD[:, None].astype(np.float64) - base_ND[None].astype(np.float64)).sum(axis=2)
    return np.argsort(squared_QN, axis=1, kind="stable")[:, :k]


def rows(n: int, dim: int, seed: int = 0) -> NDArray[np.float16]:
    """Like features: nothing below zero, all rows twice, one of zeros, one of numbers that float16 has only as subnormal."""
    row_ND = np.random.default_rng(seed).normal(0.5, 2, (n, dim)).clip(0).astype(np.float16)
    row_ND[n // 2 :] = row_ND[: n - n // 2]
    row_ND[3], row_ND[5] = 0, np.float16(6e-8) * np.arange(dim).clip(0, 900)
    return row_ND


@pytest.mark.parametrize("dim", [1, 7, 40, 1030])
@pytest.mark.parametrize("queries", [1, 2, 37])
def test_the_order_is_that_of_float64(dim: int, queries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "PIECE_BYTES", 2 * dim * 11)  # pieces that divide nothing
    base_ND = rows(130, dim)
    query_QD = np.concatenate([base_ND[:1], rows(40, dim, seed=1)])[:queries]
    for given in (lambda x: x, Directions):
        space: Callable[[NDArray[Any]], Any] = given
        found = nearest(np.asarray(space(query_QD)[:]), space(base_ND), 9, block_bytes=4 * dim * 50)
        assert np.array_equal(found.index_Qk, written_out(space(query_QD)[:], space(base_ND)[:], 9))


def test_rows_that_float32_cannot_tell_apart_are_put_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    # all within 1e-6 of one direction: their squared distances differ by less than float32 rounds of the rows
    random = np.random.default_rng(0)
    base_ND = np.full((300, 64), 1000, np.float16)
    base_ND[np.arange(300), random.integers(0, 64, 300)] += np.float16(0.5) * random.integers(-2, 3, 300).astype(
        np.float16
    )
    query_QD = Directions(np.full((1, 64), 3, np.float16))[:]
    found = nearest(query_QD, Directions(base_ND), 20)
    assert np.array_equal(found.index_Qk, written_out(query_QD, Directions(base_ND)[:], 20))


@pytest.mark.parametrize("unit", [False, True])
def test_what_a_pass_gives_is_within_its_bounds(unit: bool, kernel: bool) -> None:
    base_ND: Any = Directions(rows(90, 500)) if unit else rows(90, 500)
    query_QD = (Directions(rows(6, 500, seed=2)) if unit else rows(6, 500, seed=2))[:].astype(np.float64)
    center_D = query_QD.mean(axis=0).astype(np.float32)
    q_QD, x_ND = query_QD - center_D, base_ND[:].astype(np.float64) - center_D
    (block,) = scan.scan(torch.from_numpy(q_QD).float(), base_ND, center_D, 1000)
    squared_QN = block.norm_B.double().square() - 2 * block.product_QB.double()
    exact_QN = np.square(x_ND).sum(axis=1) - 2 * q_QD @ x_ND.T
    length_QN = np.linalg.norm(q_QD, axis=1)[:, None] + np.linalg.norm(x_ND, axis=1)
    bound_QN = scan.ROUNDING * np.sqrt(base_ND.shape[1]) * (length_QN + scan.blur(base_ND)) ** 2
    assert (np.abs(squared_QN.numpy() - exact_QN) < bound_QN / 4).all()
    assert scan.blur(base_ND) == (2 / np.sqrt(501) if unit else 0)


def test_only_what_can_be_nearest_is_compared_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    squared = neighbors.squared_distances
    monkeypatch.setattr(neighbors, "squared_distances", lambda q, x: compared.append(len(x)) or squared(q, x))
    base_ND = np.random.default_rng(0).normal(size=(2000, 64)).astype(np.float16)
    for space in (base_ND, Directions(base_ND)):
        compared.clear()
        assert nearest(np.asarray(space[7:8]), space, 5).index_Qk[0, 0] == 7
        assert sum(compared) <= 8


def test_queries_together_read_the_rows_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base_ND = rows(300, 64)
    for i in range(3):
        np.save(tmp_path / f"{i}.npy", base_ND[i * 100 : (i + 1) * 100])
    vectors, read = Vectors([tmp_path / f"{i}.npy" for i in range(3)], 64), []
    get = Vectors.__getitem__

    def counted(self: Vectors, part: Any) -> NDArray[Any]:
        if isinstance(part, slice):
            read.append(range(*part.indices(300)))
        return get(self, part)

    monkeypatch.setattr(Vectors, "__getitem__", counted)
    monkeypatch.setattr(scan, "PIECE_BYTES", 2 * 64 * 70)
    query_QD = rows(20, 64, seed=3).astype(np.float32)
    assert np.array_equal(nearest(query_QD, vectors, 4).index_Qk, written_out(query_QD, base_ND, 4))
    assert sorted(row for part in read for row in part) == list(range(300))
