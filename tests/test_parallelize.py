"""Every layout gives the numbers of one process. The oracle is the one-process network, in float64."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent / "distributed"))

from network_jobs import Answer, Case, on_ranks, one_process, tiny, whole_network

from alexnet.core.errors import UsageError
from alexnet.core.rng import DropoutDraw
from alexnet.distributed.launch import run_local
from alexnet.distributed.mesh import Axis, Layout, Mesh
from alexnet.models import create_model
from alexnet.models.alexnet import AlexNetConfig, alexnet_2012, alexnet_2012_six_conv
from alexnet.models.lenet import LeNetConfig
from alexnet.parallelize import Parallel, UnitsDropout, parallelize, predicted_traffic

PAPER = tiny()
CODE = tiny(
    stages=("norm pool act", "act norm map_norm pool", "act", "act", "pool act"), lrn_alpha_times="mean", pool_ceil=True
)
ODD = tiny(  # everything a stage may hold that has parameters, six convolutions, one layer left out
    conv_channels=(4, 8, 0, 6, 8, 8),
    conv_kernels=(6, 3, 3, 3, 3, 3),
    conv_strides=(2, 1, 1, 1, 1, 1),
    conv_padding=(0, 1, 1, 1, 1, 1),
    stages=("act norm pool", "act norm pool", "act", "norm act", "act pool", "act"),
    joined=("conv4", "conv6", "fc7"),  # fc6 reads its own tower only
    weight_std=(0.05, *(0.3,) * 8),
    biases=(0.1,) * 9,
    activation="prelu",
    normalization="batch",
    dropout="inverted",
    dropout_place="before",
)
OWT = tiny(towers=1, joined=(), normalization="none", dropout="inverted", dropout_place="before")
AVERAGE = tiny(head="global_average", normalization="group", conv_channels=(4, 8, 6, 6, 8))
NARROW = tiny(fc_units=(0, 14), num_classes=3, joined=("conv2", "fc7"), activation="tanh")
LENET = LeNetConfig(input_size=28, num_classes=5)


def three(case: Case) -> Case:
    return replace(case, layouts=case.layouts * 3)


ANY_WORLD = [
    three(Case("paper-data", PAPER, ("data",))),
    three(Case("paper-hybrid", PAPER, ("hybrid",))),
    three(Case("paper-turns", PAPER, ("hybrid",), scheme="turns")),
    three(Case("paper-slices", PAPER, ("hybrid",), scheme="slices")),
    three(Case("odd-data", ODD, ("data",))),
    three(Case("odd-hybrid", ODD, ("hybrid",), scheme="slices")),
    three(Case("owt-hybrid", OWT, ("hybrid",))),
    three(Case("average-hybrid", AVERAGE, ("hybrid",))),
    three(Case("narrow-hybrid", NARROW, ("hybrid",))),
    three(Case("lenet-data", LENET, ("data",))),
    three(Case("frozen-hybrid", PAPER, ("hybrid",), frozen=("conv1", "conv2", "conv3", "conv4", "conv5"))),
    three(Case("micro-data", PAPER, ("data",), micro_batches=2)),
    three(Case("micro-hybrid", PAPER, ("hybrid",), scheme="turns", micro_batches=2)),
]
EVEN_WORLDS = [
    three(Case("paper-towers", PAPER, ("towers",))),
    three(Case("code-towers", CODE, ("towers",))),
    three(Case("odd-towers", ODD, ("towers",))),
    three(Case("average-towers", AVERAGE, ("towers",))),
    three(Case("narrow-towers", NARROW, ("towers",))),
    three(Case("frozen-towers", PAPER, ("towers",), frozen=("conv1", "conv2"))),
    three(Case("micro-towers", PAPER, ("towers",), micro_batches=2)),
    Case("paper-moved", PAPER, ("towers", "hybrid", "data")),
    Case("odd-moved", ODD, ("data", "towers", "hybrid")),
    Case("paper-moved-back", PAPER, ("hybrid", "data", "towers")),
]
ALL = ANY_WORLD + EVEN_WORLDS


def check(case: Case, ranks: list[Answer], world: int) -> None:
    expected, first = one_process(case), ranks[0]

    def close(ours: object, theirs: object, what: str) -> None:
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10, err_msg=f"{case.name}, {world} ranks: {what}")

    close(np.sum([answer.losses for answer in ranks], axis=0), expected.losses, "losses")
    for part in ("logits", "evaluated"):
        counted = [row for answer in ranks for row in getattr(answer, part)]
        assert len(counted) == len(set(counted)), f"{case.name}: an image counted twice"
        merged = {k: v for answer in ranks for k, v in getattr(answer, part).items()}
        assert merged.keys() == getattr(expected, part).keys(), case.name
        for image, row in getattr(expected, part).items():
            close(merged[image], row, f"{part} of image {image}")
    for part in ("gradients", "state"):
        ours, theirs = getattr(first, part), getattr(expected, part)
        assert ours.keys() == theirs.keys(), case.name
        for name, value in theirs.items():
            assert ours[name].shape == value.shape, name
            close(ours[name], value, f"{part} of {name}")
    assert all(not answer.state for answer in ranks[1:])
    if (
        len({*case.layouts}) == 1
        and not case.frozen
        and case.micro_batches == 1
        and isinstance(case.model, AlexNetConfig)
    ):
        for answer in ranks:
            assert answer.sent == answer.predicted, f"{case.name}, {world} ranks"


@pytest.mark.parametrize(
    ("world", "names"),
    [
        (2, ("paper-towers", "paper-turns")),
        (4, ("paper-data", "paper-towers", "paper-slices", "odd-towers", "odd-hybrid", "paper-moved")),
    ],
)
def test_losses_logits_gradients_weights_and_velocities_are_those_of_one_process(world: int, names, tmp_path):
    # Each rank of four has 2, 2, 2 and 1 images, then 1, 1, 1 and none.
    cases = [case for case in ALL if case.name in names]
    assert len(cases) == len(names)
    answers = run_local(on_ranks, world, cases, str(tmp_path))
    for i, case in enumerate(cases):
        check(case, [answer[i] for answer in answers], world)


@pytest.mark.long
@pytest.mark.parametrize("images", [(7, 3, 5), (8, 8, 8), (1, 2, 9)], ids=str)
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_every_network_in_every_layout_on_one_to_four_ranks(world: int, images: tuple[int, ...], tmp_path):
    cases = [
        replace(case, images=images) for case in (ANY_WORLD if world == 3 else ALL) if min(images) >= case.micro_batches
    ]
    answers = run_local(on_ranks, world, cases, str(tmp_path), timeout=280)
    for i, case in enumerate(cases):
        check(case, [answer[i] for answer in answers], world)


@pytest.mark.long
def test_half_precision_on_the_wire_halves_the_bytes_and_changes_little(tmp_path):
    cases = [
        replace(case, wire="bfloat16") for case in ALL if case.name in ("paper-data", "paper-towers", "paper-hybrid")
    ]
    answers = run_local(on_ranks, 4, cases, str(tmp_path))
    for i, case in enumerate(cases):
        ranks, expected = [answer[i] for answer in answers], one_process(case)
        for answer in ranks:
            assert answer.sent == answer.predicted
        losses = np.sum([answer.losses for answer in ranks], axis=0)
        np.testing.assert_allclose(losses, expected.losses, rtol=0.05)
        difference = max(np.abs(ranks[0].state[name] - value).max() for name, value in expected.state.items())
        assert 1e-7 < difference < 0.05  # something was rounded, nothing was lost


def test_a_rank_of_two_towers_holds_half_of_the_network_and_of_the_velocities():
    whole = whole_network(Case("whole", PAPER, ("towers",)))
    sizes = {name: p.numel() for name, p in whole.named_parameters()}
    # A mesh that is only looked at needs no processes.
    part = parallelize(whole, Mesh("towers", tower=Axis(1, (0, 1)), world=Axis(1, (0, 1))))
    for name, p in part.model.named_parameters():
        assert p.numel() * (1 if name == "fc8.bias" else 2) == sizes[name], name
    assert isinstance(part.model.dropout6, UnitsDropout)
    assert part.model.dropout6.units == slice(5, 10)


def test_the_parts_of_a_state_make_the_whole():
    named = {name: p.detach() for name, p in whole_network(Case("whole", PAPER, ("hybrid",))).named_parameters()}
    named["fc6.weight/velocity"] = torch.arange(10 * 8.0).view(10, 8)
    named["fc6.weight/step"] = torch.tensor(3.0)
    ranks = tuple(range(4))
    parts = []
    for r in ranks:
        mesh = Mesh("hybrid", tower=Axis(r, ranks), world=Axis(r, ranks))
        parallel = parallelize(whole_network(Case("whole", PAPER, ("hybrid",))), mesh)
        parts.append({name: parallel.own_part(name, tensor) for name, tensor in named.items()})
    assert [len(part["fc6.weight"]) for part in parts] == [3, 3, 2, 2]
    assert torch.equal(torch.cat([part["fc6.weight/velocity"] for part in parts]), named["fc6.weight/velocity"])
    assert torch.equal(torch.cat([part["fc8.weight"] for part in parts], dim=1), named["fc8.weight"])
    assert all(torch.equal(part["conv3.weight"], named["conv3.weight"]) for part in parts)
    assert all(part["fc6.weight/step"] == 3 for part in parts)


def test_bytes_of_the_papers_network_by_hand():
    # Two towers, 128 images, float32. conv3 reads 2 x 128 maps of 13 x 13, fc6 2 x 128 maps of 6 x 6, fc7 2 x 2048 units.
    towers = predicted_traffic(alexnet_2012(), "towers", 2, 0, 128)
    assert towers == {
        ("conv3", "forward"): 128 * 128 * 13 * 13 * 4,
        ("conv3", "backward"): 128 * 128 * 13 * 13 * 4,
        ("fc6", "forward"): 128 * 128 * 6 * 6 * 4,
        ("fc6", "backward"): 128 * 128 * 6 * 6 * 4,
        ("fc7", "forward"): 128 * 2048 * 4,
        ("fc7", "backward"): 128 * 2048 * 4,
        ("fc8", "forward"): 128 * 1000 * 4,
    }
    half = predicted_traffic(alexnet_2012(), "towers", 2, 1, 128, wire_bytes=2)
    assert sum(half.values()) == (sum(towers.values()) - 512_000) // 2 + 512_000  # logits stay in float32
    # Data parallel: all 60,965,224 parameters go round in a ring of two, and nothing else.
    data = predicted_traffic(alexnet_2012(), "data", 2, 0, 128)
    assert sum(data.values()) == 60_965_224 * 4
    assert {direction for _, direction in data} == {"gradients"}
    # Hybrid, 8 ranks with 16 of 128 images each: 2,334,080 parameters of the convolutions and 1,000 biases in a ring of 8.
    hybrid = predicted_traffic(alexnet_2012(), "hybrid", 8, 3, 128)
    assert sum(num for (_, d), num in hybrid.items() if d == "gradients") == 2 * 7 * (2_334_080 + 1000) // 8 * 4
    assert hybrid["fc6", "forward"] == hybrid["fc6", "backward"] == 16 * 9216 * 4 * 7
    assert hybrid["fc7", "forward"] == hybrid["fc7", "backward"] == 128 * 512 * 4 * 7
    assert hybrid["fc8", "forward"] == hybrid["fc8", "backward"] == 16 * 1000 * 4 * 7
    assert "conv6" in {layer for layer, _ in predicted_traffic(alexnet_2012_six_conv(), "towers", 2, 0, 128)}


def two_ranks(layout: Layout) -> Mesh:
    return Mesh(layout, tower=Axis(0, (0, 1)), world=Axis(0, (0, 1)))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"towers": 1, "joined": ()}, "it has one tower; take layout data or hybrid"),
        ({"unshared": ("conv4",)}, "its kernels of conv4 are not shared"),
        ({"lrn_crosses_towers": True}, "lrn_crosses_towers"),
        ({"normalization": "layer"}, "layer normalization is over the maps of both towers"),
        ({"normalization": "group", "conv_channels": (6, 10, 6, 6, 9 * 2), "conv_kernels": (6, 3, 3, 3, 3)}, None),
    ],
)
def test_what_cannot_be_separated_is_refused(fields, words):
    model = whole_network(Case("case", tiny(**fields), ("towers",)))
    if words is None:
        assert isinstance(parallelize(model, two_ranks("towers")), Parallel)
    else:
        with pytest.raises(UsageError, match=words):
            parallelize(model, two_ranks("towers"))


def test_other_networks_are_data_parallel_only():
    with pytest.raises(UsageError, match="LeNet is another network; take layout data"):
        parallelize(create_model("lenet"), two_ranks("hybrid"))


def test_a_network_of_one_rank_stays_what_it_is():
    for layout in ("data", "towers", "hybrid"):
        model = whole_network(Case("case", PAPER, (layout,)))
        parallel = parallelize(model, Mesh(layout))
        assert parallel.model is model
        assert parallel.chunked == {}
        assert not any(isinstance(module, UnitsDropout) for module in model.modules())


def test_wrong_numbers_of_images_and_missing_draws_are_refused():
    part = parallelize(whole_network(Case("case", PAPER, ("towers",))), two_ranks("towers"))
    draw = DropoutDraw(0, 0, np.arange(5))
    with pytest.raises(ValueError, match="rank 0 takes 5 of 5 images, but was given 3"):
        part.backward(torch.zeros(3, 3, 35, 35), draw, lambda logits_BK, rows: logits_BK.sum())
    dropout = part.model.dropout6.train()
    assert isinstance(dropout, nn.Module)
    with pytest.raises(ValueError, match="pass one, or call eval"):
        dropout(torch.ones(2, 5))
    whole = UnitsDropout("fc6", kind="plain", rate=0.5)
    whole.units, whole.total = slice(0, 10), 10
    kept = whole(torch.ones(5, 10), draw)
    assert torch.equal(dropout(torch.ones(5, 5), draw), kept[:, :5])
