"""The measurements run at a tiny size; what they say of a machine is for benchmarks/."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from alexnet.bench import forecast, rates
from alexnet.bench.forecast import bottleneck, measure
from alexnet.core.device import Machine
from alexnet.core.errors import UsageError
from alexnet.models import create_model


def test_functions_are_timed_in_turns_and_the_first_round_is_not_counted():
    calls = []
    times = rates.seconds({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=2)
    assert calls == ["a", "b"] * 3
    assert {name: len(values) for name, values in times.items()} == {"a": 2, "b": 2}
    assert rates.median_rate(6, [1.0, 2.0, 30.0]) == 3.0


def test_flops_of_a_training_step_of_the_paper():
    # Multiply-adds: conv1 96 x 55² x 363, conv2 256 x 27² x 1200, conv3 384 x 13² x 2304, conv4 384 x 13² x 1728,
    # conv5 256 x 13² x 1728, fc6 9216 x 4096, fc7 4096², fc8 4096 x 1000.
    conv1 = 96 * 55**2 * 363
    others = 256 * 27**2 * 1200 + 384 * 13**2 * (2304 + 1728) + 256 * 13**2 * 1728 + 9216 * 4096 + 4096**2 + 4096000
    assert rates.training_flops(create_model("alexnet_2012")) == 2 * (2 * conv1 + 3 * others)


def test_a_measured_step_trains():
    model = create_model("lenet")
    before = model.f6.weight.detach().clone()
    step = rates.training_step(model, torch.device("cpu"), "float32")
    loss = step(torch.randn(8, 1, 28, 28), torch.zeros(8, dtype=torch.long))
    assert loss.isfinite()
    assert not torch.equal(model.f6.weight, before)


@pytest.mark.parametrize(
    ("rate", "share", "expected"),
    [
        ({"read": 9e4, "augment": 8e3, "step": 90}, 0.9, "arithmetic"),
        ({"read": 9e4, "augment": 8e3, "step": 90}, 0.3, "memory traffic"),
        ({"read": 9e4, "augment": 8e3, "step": 6e4}, 0.9, "augment"),
        ({"read": 9e2, "augment": 8e3, "step": 6e4}, 0.9, "read"),
    ],
)
def test_the_bottleneck_is_named(rate, share, expected):
    assert bottleneck(rate, share) == expected


def test_drawn_photographs_weigh_what_imagenets_do(tmp_path):
    rates.drawn_photographs(tmp_path, 4)
    sizes = [path.stat().st_size for path in tmp_path.rglob("*.jpg")]
    assert len(sizes) == 4
    assert 60_000 < np.mean(sizes) < 160_000


def test_everything_is_measured_and_forecast(monkeypatch):
    monkeypatch.setattr(forecast, "DRAWN", 140)
    monkeypatch.setattr(forecast, "BATCHES", 1)
    monkeypatch.setattr(rates, "REPEATS", 1)
    monkeypatch.setattr(rates, "PRODUCT_SIDES", {"cpu": (64, 128)})
    monkeypatch.setattr(rates, "COPY_BYTES", {"cpu": 1 << 20})
    found = measure("alexnet_2012", Machine(device=torch.device("cpu")), precision="float32", batch_size=2)
    document = json.loads(json.dumps(found.to_json()))
    for name in ("prepare", "decode_packed", "read", "augment", "step", "end_to_end", "product_flops", "copy_bytes"):
        assert document[name] > 0
    assert document["imagenet_pixels_bytes"] == 251_887_681_536
    assert document["paper_days"] == pytest.approx(90 * 1_281_167 / document["end_to_end"] / 86400)
    assert document["bottleneck"] in ("arithmetic", "memory traffic")


def test_a_network_for_other_images_is_refused():
    with pytest.raises(UsageError, match="lenet reads others"):
        measure("lenet", Machine(device=torch.device("cpu")), precision="float32")
