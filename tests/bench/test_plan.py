"""The plan for several devices: bytes, memory and seconds written out by hand. What is sent is checked on real ranks."""

from __future__ import annotations

import json
import multiprocessing
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "distributed"))
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from network_jobs import tiny

from alexnet.bench import forecast
from alexnet.bench import plan as planner
from alexnet.bench.forecast import Forecast
from alexnet.bench.plan import (
    LayerSeconds,
    LinkRates,
    Memory,
    Plan,
    Row,
    SilentRank,
    Work,
    bytes_sent,
    check,
    plan,
    possible_layouts,
    row_of,
    step_on_devices,
)
from alexnet.cli import main
from alexnet.core.device import Layout, Machine
from alexnet.core.errors import UsageError
from alexnet.distributed.launch import run_local
from alexnet.models.alexnet import alexnet_2012, alexnet_owt

multiprocessing.get_context("forkserver").set_forkserver_preload(["alexnet.bench.plan", "torch._dynamo"])

CPU = torch.device("cpu")
PAPER = alexnet_2012()
IMAGES = 128

# Weights and biases of the paper's layers. Two towers read their own maps but in conv3, fc6 and fc7.
WEIGHTS = {
    "conv1": 96 * 3 * 11**2,
    "conv2": 256 * 48 * 5**2,
    "conv3": 384 * 256 * 3**2,
    "conv4": 384 * 192 * 3**2,
    "conv5": 256 * 192 * 3**2,
    "fc6": 4096 * 9216,
    "fc7": 4096 * 4096,
    "fc8": 1000 * 4096,
}
BIASES = {"conv1": 96, "conv2": 256, "conv3": 384, "conv4": 384, "conv5": 256, "fc6": 4096, "fc7": 4096, "fc8": 1000}
CONVOLUTIONS = [layer for layer in WEIGHTS if layer.startswith("conv")]


def ring(numel: int, ranks: int) -> int:
    return 2 * (ranks - 1) * -(-numel // ranks) * 4


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_bytes_of_the_papers_network_on_two_four_and_eight_ranks(ranks: int):
    def total(layout: Layout, rank: int) -> int:
        return sum(bytes_sent(PAPER, layout, ranks, rank, IMAGES, "float32").values())

    # Every gradient goes round.
    data = sum(ring(WEIGHTS[layer] + BIASES[layer], ranks) for layer in WEIGHTS)
    # A pair has its share of the images, and a rank half of the units; halves go round among the pairs.
    pairs, images = ranks // 2, IMAGES // (ranks // 2)
    activations = 2 * (128 * 13**2 + 128 * 6**2 + 2048) + 1000
    halves = [(WEIGHTS[layer] + BIASES[layer]) // 2 for layer in WEIGHTS if layer != "fc8"]
    towers = images * activations * 4 + sum(ring(numel, pairs) for numel in halves)
    towers += ring(WEIGHTS["fc8"] // 2, pairs) + ring(1000, pairs)
    # Everybody's features go to everybody, then units of fc7's input, then logits; gradients come back.
    own, others = IMAGES // ranks, ranks - 1
    hybrid = 2 * own * 9216 * others * 4 + 2 * IMAGES * 4096 // ranks * others * 4 + 2 * own * 1000 * others * 4
    hybrid += sum(ring(WEIGHTS[layer] + BIASES[layer], ranks) for layer in CONVOLUTIONS) + ring(1000, ranks)
    for rank in (0, ranks - 1):
        assert total("data", rank) == data
        assert total("towers", rank) == towers
        assert total("hybrid", rank) == hybrid
    assert data == {2: 243_860_896, 4: 365_791_344, 8: 426_756_568}[ranks]
    assert hybrid < towers < data


def test_under_autocast_activations_travel_in_half_and_gradients_in_full():
    full, half = (bytes_sent(PAPER, "hybrid", 4, 0, IMAGES, precision) for precision in ("float32", "bfloat16"))
    for (layer, direction), num in full.items():
        assert half[layer, direction] == (num if direction == "gradients" else num // 2)
    assert sum(bytes_sent(PAPER, "data", 4, 0, IMAGES, "float64").values()) == 2 * 365_791_344


@pytest.mark.parametrize(("layout", "ranks", "images"), [("towers", 2, 2), ("hybrid", 8, 16)])
def test_memory_of_the_papers_network_by_hand(layout: Layout, ranks: int, images: int):
    memory = SilentRank(PAPER, layout, ranks, images, CPU, "float32").memory()
    conv, fc = (2, 2) if layout == "towers" else (1, ranks)  # into how many parts a layer goes
    weights = sum(WEIGHTS[layer] + BIASES[layer] for layer in CONVOLUTIONS) // conv
    weights += sum(WEIGHTS[layer] + BIASES[layer] for layer in ("fc6", "fc7")) // fc + WEIGHTS["fc8"] // fc + 1000
    assert memory.weights == memory.gradients == memory.velocities == 4 * weights
    if layout == "towers":  # nobody else has these kernels
        assert memory.sums == 0
    else:
        numbers = [WEIGHTS[layer] + BIASES[layer] for layer in CONVOLUTIONS] + [1000]
        assert memory.sums == 4 * sum(-(-numel // ranks) * ranks for numel in numbers)
    # conv1 reads 57 x 57 cells of 4 x 4 pixels. Normalization and pooling keep what they read, pooling two words an index;
    # conv3 keeps the maps of both towers.
    of_image = 48 * 57**2
    of_image += (2 * 96 * 55**2 + 3 * 96 * 27**2 + 2 * 256 * 27**2 + 2 * 256 * 13**2) // conv + 256 * 13**2
    of_image += (2 * 384 * 13**2 + 256 * 13**2 + 2 * 256 * 6**2) // conv
    # fc6 and fc7: what they read, what the ReLU gave, a byte of dropout for every unit of the layer. fc8: its own columns.
    in_fc = 9216 + 4096 // fc + 1024 + 4096 + 4096 // fc + 1024 + 4096 // fc
    kernels = 96 // conv * 48 * 3**2  # conv1's, over cells
    packed = (WEIGHTS["fc6"] * (layout == "towers") + WEIGHTS["fc7"]) // fc  # of layers that read part after part
    own = images // ranks if layout == "hybrid" else images
    assert memory.activations == 4 * (own * of_image + images * in_fc + kernels + packed)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("layout", ["data", "towers", "hybrid"])
def test_a_silent_rank_computes_every_layer_and_sends_nothing(layout: Layout, precision):
    rank = SilentRank(tiny(normalization="batch"), layout, 4, 12, CPU, precision)
    work = rank.work()
    assert [layer.layer for layer in work.layers] == ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
    assert all(layer.forward > 0 and layer.backward > 0 for layer in work.layers)
    assert work.seconds > sum(layer.forward + layer.backward for layer in work.layers) > 0
    assert all(p.grad is not None and "velocity" in rank.optimizer.state[p] for p in rank.model.parameters())
    assert {layer.layer: layer.beside for layer in work.layers if layer.beside} == {
        "data": {},
        "towers": {"conv3": 0.5, "fc6": 0.5, "fc7": 0.5},
        "hybrid": {"fc7": 3 / 10},  # fc6 has 10 units, and this rank 3 of them
    }[layout]


# A step of two layers: 1 + 2 s forward, 2 + 4 s backward, 0.5 s of update.
WORK = Work((LayerSeconds("conv1", 1.0, 2.0, 0.0), LayerSeconds("fc6", 2.0, 4.0, 0.5)), 0.5)


@pytest.mark.parametrize(
    ("under_way", "seconds"),
    [
        ({}, 9.5),
        ({("fc6", "gradients"): 1.5}, 9.5),  # hidden behind conv1's backward pass
        ({("fc6", "gradients"): 3.0}, 10.5),  # a second of it is not
        ({("conv1", "gradients"): 1.0}, 10.5),  # nothing is left to hide it
        ({("fc6", "gradients"): 3.0, ("conv1", "gradients"): 1.0}, 11.5),  # one after the other
        ({("fc6", "forward"): 1.0}, 9.5),  # half of fc6 is computed meanwhile
        ({("fc6", "forward"): 1.25, ("fc6", "backward"): 2.5}, 10.25),
        ({("conv1", "backward"): 1.0}, 10.5),  # it waits for all
        ({("fc6", "gradients"): 1.5, ("conv1", "backward"): 1.0}, 10.5),  # messages go first, the sum still is in time
        ({("stage1.norm1", "statistics"): 0.25}, 9.75),
    ],
    ids=str,
)
def test_seconds_of_a_step_on_devices_of_their_own(under_way, seconds: float):
    assert step_on_devices(WORK, under_way) == pytest.approx(seconds)


MEMORY = Memory(4, 4, 4, 2, 10)


def test_ranks_on_a_cpu_send_with_the_cores_that_compute():
    link = LinkRates(exchange=1e8, sum=2e8)
    row = row_of(PAPER, "data", 2, IMAGES, "float32", WORK, MEMORY, link, crowd=1.0)
    assert row.sending == pytest.approx(243_860_896 / 2e8)
    assert row.step == pytest.approx(9.5 + 243_860_896 / 2e8)
    assert row.images == 64
    four = row_of(PAPER, "towers", 4, IMAGES, "float32", WORK, MEMORY, link, crowd=2.0)  # two take turns on a core
    sums = sum(num for (_, direction), num in four.sent.items() if direction == "gradients")
    messages = sum(four.sent.values()) - sums
    assert (four.computing, four.step) == pytest.approx((19.0, 19.0 + sums / 2e8 + messages / 1e8))
    assert four.sent_by_rank == (sums + messages,) * 4
    alone = row_of(PAPER, "hybrid", 1, IMAGES, "float32", WORK, MEMORY, None, crowd=None)
    assert (alone.step, alone.sending, alone.sent_by_rank) == (9.5, 0.0, (0,))
    uneven = row_of(PAPER, "hybrid", 3, 7, "float32", WORK, MEMORY, link, crowd=None)  # 3, 2 and 2 images
    assert uneven.images == 3
    assert sum(uneven.sent.values()) == max(uneven.sent_by_rank)


def test_what_does_not_fit_a_layout_is_said():
    layouts, obstacles = possible_layouts(PAPER, 3, IMAGES)
    assert layouts == ["data", "hybrid"]
    assert "needs an even number of ranks, and this job has 3" in obstacles["towers"]
    layouts, obstacles = possible_layouts(alexnet_owt(), 2, IMAGES)
    assert layouts == ["data", "hybrid"]
    assert "it has one tower" in obstacles["towers"]
    layouts, obstacles = possible_layouts(PAPER, 8, 4)
    assert layouts == ["towers"]  # four pairs
    assert obstacles["data"] == "a batch of 4 images cannot be split over 8 ranks; use a larger --batch-size"


def a_plan(rows: tuple[Row, ...], obstacles: dict[Layout, str]) -> Plan:
    return Plan("alexnet_2012", "float32", "cuda", 2, IMAGES, 19.0, 1, LinkRates(1e9, 1e9), True, rows, obstacles)


def test_the_document_and_the_table_tell_what_was_measured_counted_and_calculated():
    row = row_of(PAPER, "data", 2, IMAGES, "float32", WORK, MEMORY, LinkRates(1e9, 1e9), crowd=None)
    found = a_plan((row,), {"towers": "it has one tower"})
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert document["given"] == {"link_bytes_per_second": {"exchange": 1e9, "sum": 1e9}}
    assert document["measured"] == {"one_device_step_seconds": 19.0, "ranks_side_by_side": 1}
    assert document["not_possible"] == {"towers": "it has one tower"}
    (data,) = document["layouts"]
    assert data["counted"]["bytes_sent_by_rank"] == [243_860_896] * 2
    assert data["counted"]["bytes_sent_by_layer"]["fc6"] == {"gradients": (4096 * 9216 + 4096) * 4}
    assert data["counted"]["memory_bytes"]["total"] == 24
    assert data["measured"]["layers"][1] == {"layer": "fc6", "forward": 2.0, "backward": 4.0, "beside": 0.5}
    calculated = data["calculated"]
    assert calculated["images_per_second"] == pytest.approx(128 / calculated["step_seconds"])
    assert calculated["speed_up"] == pytest.approx(19.0 / calculated["step_seconds"])
    table = found.table()
    assert "calculated, not measured: seconds and images/s" in table
    assert "a link of 1 GB/s (given)" in table
    assert "towers  not possible: it has one tower" in table
    assert "fc6 151.0, fc7 67.1, fc8 16.4" in table


def small_plan(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Plan]:
    monkeypatch.setattr(planner, "model_config", lambda _name: tiny())
    return lambda **fields: plan(
        "tiny", Machine(device=CPU), precision="float32", batch_size=8, one_device=0.1, **fields
    )


def test_one_device_needs_no_link(monkeypatch):
    found = small_plan(monkeypatch)(devices=1)
    assert found.link is None
    assert [row.layout for row in found.rows] == ["data", "towers", "hybrid"]
    assert all(row.sending == 0 and row.step == row.computing > 0 for row in found.rows)
    assert "data: sends nothing" in found.table()
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.long
def test_ranks_on_a_cpu_are_timed_side_by_side_and_their_link_with_them(monkeypatch):
    found = small_plan(monkeypatch)(devices=4)
    assert found.side_by_side == min(4, max(2, planner.usable_cores()))
    assert not found.link_given
    assert found.link is not None
    assert min(found.link.exchange, found.link.sum) > 1e6
    assert "link_bytes_per_second" in found.to_json()["measured"]
    given = small_plan(monkeypatch)(devices=2, link=0.5)
    assert given.link == LinkRates(5e8, 5e8)
    towers = given.rows[1]
    assert towers.step == pytest.approx(towers.computing + sum(towers.sent.values()) / 5e8)


@pytest.mark.long
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_bytes_of_eight_ranks_are_those_predicted(precision):
    import parallel

    for arm in parallel.ARMS:
        ranks = run_local(
            parallel.held, 8, tiny(), arm, 19, precision
        )  # three or two images a rank, five or four a pair
        assert all(rank.sent == rank.predicted and rank.sent for rank in ranks), arm
        planned = None if arm == "ddp" else SilentRank(tiny(), arm, 8, 19, CPU, precision).memory()
        first = ranks[0]
        if planned is not None:
            assert (planned.weights, planned.gradients, planned.velocities) == (
                first.parameters,
                first.gradients,
                first.velocities,
            )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--plan --gpus 0", "--gpus is 0; it must be from 1 to 1,024"),
        (
            "--plan --gpus 2 --link -1",
            "--link is -1; it must be more than 0: the GB/s that a device sends to the others",
        ),
        ("--plan --gpus 2 --link nan", "--link is nan"),
        ("lenet --plan --gpus 2", "lenet is another network"),
        ("--gpus 2", "--gpus needs --plan: it plans a job and starts nothing"),
        ("--plan --link 10", "--link needs --plan --gpus N: it is the link between the devices of a plan"),
        ("--plan --gpus two", "two"),
    ],
)
def test_what_no_plan_can_be_made_of_is_refused_at_once(capsys, options: str, words: str):
    with pytest.raises(SystemExit) as exit:
        main(["bench", "--device", "cpu", *options.split()])
    assert exit.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert words in err


@pytest.mark.parametrize("form", ["--json", ""])
def test_the_command_adds_it_to_its_forecast(monkeypatch, capsys, form: str):
    rates: dict[str, Any] = dict.fromkeys((field.name for field in fields(Forecast)), 16.0)
    words = {
        "network": "alexnet_2012",
        "precision": "float32",
        "data": "drawn",
        "bottleneck": "arithmetic",
        "kernels": "torch",
    }
    monkeypatch.setattr(forecast, "measure", lambda *_, **__: Forecast(**(rates | words | {"batch_size": 8})))
    monkeypatch.setattr(planner, "model_config", lambda _name: tiny())
    with pytest.raises(SystemExit) as exit:
        main(f"bench --device cpu --batch-size 8 --plan --gpus 1 {form}".split())
    assert not exit.value.code
    out, _ = capsys.readouterr()
    if form:
        document = json.loads(out)
        assert document["step"] == 16.0
        assert document["parallel"]["measured"]["one_device_step_seconds"] == 0.5
        assert document["parallel"]["images_per_step"] == 8
    else:
        assert "preparing ImageNet: " in out
        assert "1 device (cpu, float32), 8 images a step in all\nmeasured: a step of one device, 0.500 s" in out


def test_a_link_that_cannot_be_measured_must_be_given():
    with pytest.raises(UsageError, match="--gpus 4 needs --link GB/s"):
        check("alexnet_2012", 4, None, Machine(device=torch.device("cuda")))
    assert check("alexnet_2012", 1, None, Machine(device=torch.device("cuda"))) == PAPER
