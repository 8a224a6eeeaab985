"""Each computed fact against arithmetic written out by hand, or against tensors counted without `summarize`."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from alexnet.claims import facts as module
from alexnet.claims.facts import Fact, facts
from alexnet.claims.ledger import CLAIMS, find_claim
from alexnet.core.preprocessing import Preprocessing
from alexnet.data.transforms import Augmentation, draw
from alexnet.models import build_model, create_model, model_config


@pytest.fixture(scope="module")
def known() -> dict[str, Fact]:
    return {fact.id: fact for fact in facts()}


def tensors(name: str, **fields: object) -> dict[str, int]:
    """Numbers in each tensor of a network."""
    network = build_model(model_config(name, **fields), name=name, seed=None)
    return {key: parameter.numel() for key, parameter in network.named_parameters()}


def test_each_fact_has_a_name_of_its_own_and_belongs_to_a_claim():
    found = facts()
    assert len({fact.id for fact in found}) == len(found)
    order = [claim.id for claim in CLAIMS]
    assert [order.index(fact.claim) for fact in found] == sorted(order.index(fact.claim) for fact in found)
    for fact in found:
        assert find_claim(fact.claim).id == fact.id.partition("-")[0]
        assert fact.statement.endswith(".")
        assert fact.computed
        assert fact.how


def test_which_are_confirmed_and_which_contradicted(known):
    assert {id for id, fact in known.items() if fact.verdict == "contradicted"} == {
        "C5-share",
        "C11-alpha",
        "C15-neurons",
        "C16-places",
        "C18-size",
        "N8-linear",
        "N21-parameters",
        "N21-arithmetic",
        "N35-crops",
        "N36-text",
        "N37-text",
    }
    assert {id for id, fact in known.items() if fact.source == "read"} == {"N36-text", "N37-text"}
    assert {fact.verdict for fact in known.values()} == {"confirmed", "contradicted"}


def test_parameters_are_the_tensors_counted(known):
    counts = tensors("alexnet_2012")
    written_out = sum(
        (
            11 * 11 * 3 * 96 + 96,
            5 * 5 * 48 * 256 + 256,
            3 * 3 * 256 * 384 + 384,
            3 * 3 * 192 * 384 + 384,
            3 * 3 * 192 * 256 + 256,
            6 * 6 * 256 * 4096 + 4096,
            4096 * 4096 + 4096,
            4096 * 1000 + 1000,
        )
    )
    assert known["C2-parameters"].value == sum(counts.values()) == written_out == 60_965_224
    assert "60,965,224" in known["C2-parameters"].computed
    assert "+1.6 %" in known["C2-parameters"].computed


def test_neurons_are_maps_times_positions(known):
    neurons = (55**2 * 96, 27**2 * 256, 13**2 * 384, 13**2 * 384, 13**2 * 256, 4096, 4096, 1000)
    assert known["C15-neurons"].value == neurons
    assert known["C2-neurons"].value == sum(neurons) == 659_272
    printed = (253_440, 186_624, 64_896, 64_896, 43_264, 4096, 4096, 1000)
    assert printed == module.PRINTED_NEURONS
    assert [i for i in range(8) if neurons[i] != printed[i]] == [0]  # the first alone is wrong
    assert 253_440 == 55 * 48 * 96
    assert math.isqrt(253_440 // 96) ** 2 != 253_440 // 96
    assert "659,272, the printed ones 622,312" in known["C15-neurons"].computed


def test_shares_of_the_convolutions_are_tensor_sizes_over_their_sum(known):
    counts = tensors("alexnet_2012")
    shares = [(counts[f"conv{i}.weight"] + counts[f"conv{i}.bias"]) / sum(counts.values()) for i in range(1, 6)]
    assert known["C5-share"].value == pytest.approx(shares, rel=1e-12)
    assert [round(100 * share, 2) for share in shares] == [0.06, 0.50, 1.45, 1.09, 0.73]
    assert "1.45 %, 1.09 %" in known["C5-share"].computed


def test_the_one_tower_network_has_nearly_all_parameters_and_over_half_of_the_arithmetic(known):
    one, two = (sum(tensors(name).values()) for name in ("alexnet_2012_one_tower", "alexnet_2012"))
    assert known["C8-parameters"].value == (one, two)
    narrow = sum(tensors("alexnet_2012_one_tower", conv_channels=(48, 128, 192, 192, 128)).values())
    assert one - narrow == 3 * 3 * 192 * 128 + 128 + 128 * 36 * 4096
    assert f"{narrow:,}" in known["C8-parameters"].computed
    connected = 9216 * 4096 + 4096 * 4096 + 4096 * 1000
    half = (
        11**2 * 3 * 48 * 55**2
        + 5**2 * 48 * 128 * 27**2
        + 3**2 * (128 * 192 + 192 * 192 + 192 * 256) * 13**2
        + connected
    )
    whole = (
        11**2 * 3 * 96 * 55**2
        + 5**2 * 48 * 256 * 27**2
        + 3**2 * (256 * 384 + 192 * 384 + 192 * 256) * 13**2
        + connected
    )
    assert known["C8-arithmetic"].value == (half, whole) == (391_514_384, 724_406_816)


def test_widths_input_and_maps(known):
    assert known["C14-widths"].value == (96, 256, 384, 384, 256, 4096, 4096, 1000)
    assert known["C15-input"].value == 224 * 224 * 3 == 150_528
    # (224 - 11) / 4 = 53.25 and (227 - 11) / 4 = 54 steps after the first window.
    assert known["C15-maps"].value == (math.ceil(213 / 4) + 1, 213 // 4 + 1, 216 // 4 + 1) == (55, 54, 55)
    assert all((256 - 2 * border) % 2 == 0 for border in range(128))  # a centered crop is even, and 227 is odd


def test_the_constants_of_the_normalization_are_found_in_its_responses(known):
    # A lone 1 in channel i is divided by (k + c)^beta; its neighbors see it up to n // 2 channels away.
    k, n, beta = known["C11-constants"].value
    for name, coefficient in zip(("alexnet_2012", "alexnet_2012_code"), known["C11-alpha"].value, strict=True):
        fields = {"conv_channels": (32, 32, 32, 32, 32), "fc_units": (8, 8), "num_classes": 2, "input_size": 64}
        network = create_model(name, **fields)
        norm = network.get_submodule("stage1.norm1")
        tiny, large = (torch.zeros(1, 32, 1, 1, dtype=torch.float64) for _ in range(2))
        tiny[0, 8], large[0, 8] = 1e-9, 1000.0
        divisor = float(tiny[0, 8] / norm(tiny)[0, 8])
        assert divisor == pytest.approx(2.0**0.75, rel=1e-12)
        assert divisor == pytest.approx(k**beta, rel=1e-12)
        steep = float(large[0, 8] / norm(large)[0, 8]) ** (1 / beta)
        assert (steep - k) / 1000**2 == pytest.approx(coefficient, rel=1e-9)
        seen = torch.full((1, 32, 1, 1), 1e-9, dtype=torch.float64)
        plain = norm(seen)
        seen[0, 8] = 1000.0
        assert int((norm(seen) != plain).sum()) == n
    assert known["C11-alpha"].value == pytest.approx((1e-4, 2e-5))


def test_training_draws_all_2178_inputs_and_no_other(known):
    image_B = np.arange(60_000)
    draws = draw(Augmentation(), Preprocessing(), seed=0, epoch=0, image_B=image_B, position_B=image_B)
    seen = {*zip(draws.top_B.tolist(), draws.left_B.tolist(), draws.mirror_B.tolist(), strict=True)}
    assert seen == set(itertools.product(range(33), range(33), (False, True)))
    assert known["C16-places"].value == known["N35-crops"].value == len(seen) == 2178
    assert "33 x 33 x 2 = 2,178" in known["C16-places"].computed


def test_ten_views_are_five_places_twice(known):
    assert known["C17-views"].value == (10, 5)
    assert "(0, 0), (0, 32), (16, 16), (32, 0), (32, 32)" in known["C17-views"].computed


def test_noise_by_eigenvalue_is_beyond_the_range_of_pixels(known):
    by_eigenvalue, by_deviation = known["C18-size"].value
    assert by_eigenvalue == pytest.approx(0.1 * 14830.383, rel=1e-5)  # the variance, as published beside the deviation
    assert by_deviation == pytest.approx(12.178, abs=1e-3)
    assert "5.8 of these grey levels" in known["C18-size"].computed  # 0.1 x 0.228072 x 255


def test_the_two_rules_agree_until_the_rate_drops(known):
    apart, velocities = known["C20-rule"].value
    assert apart < 1e-12
    # A velocity v runs out over v (0.9 + 0.81 + ...) = 9 v; with a tenth of the rate torch's over 0.9 v.
    assert velocities == pytest.approx(9.0 - 0.9, rel=1e-9)
    # The two weights themselves, written out: v <- 0.9 v - 0.0005 lr w - lr g, and b <- 0.9 b + g + 0.0005 w.
    w = x = 1.0
    v = b = 0.0
    for step in range(100):
        v = 0.9 * v - 0.0005 * 0.01 * w - 0.01 * math.cos(step)
        b = 0.9 * b + math.cos(step) + 0.0005 * x
        w, x = w + v, x - 0.01 * b
    assert w == pytest.approx(x, abs=1e-12)
    assert float(module._way(module.PaperSGD, [0.01] * 100)[-1]) == pytest.approx(w, abs=1e-12)


def test_decay_is_the_slope_of_the_penalty(known):
    assert known["N29-steps"].value < 1e-12
    w, v = 1.0, 0.0
    for step in range(100):
        lr = 0.01 if step < 50 else 0.001
        v = 0.9 * v - lr * (math.cos(step) + 0.0005 * w)
        w += v
    assert float(module._way(module.PaperSGD, [0.01] * 50 + [0.001] * 50)[-1]) == pytest.approx(w, abs=1e-12)


def test_dropout_of_units_by_hand(known):
    # Each term is kept with probability 1/2: the sum has mean (sum of terms) / 2 and variance (sum of squares) / 4.
    terms = [1.5, -0.5, 2.0, -1.0, 0.25, 1.0]
    expected = (sum(terms) / 2 - 0.75) ** 2 + sum(t * t for t in terms) / 4
    assert known["N8-linear"].value == pytest.approx((expected, expected), rel=1e-12)

    def penalty(scale: float) -> float:
        sums = [sum(itertools.compress(terms, mask)) * scale for mask in itertools.product((0, 1), repeat=6)]
        losses = [math.log1p(math.exp(-s)) for s in sums]
        return math.fsum(losses) / 64 - math.log1p(math.exp(-scale * sum(terms) / 2))

    assert known["N8-cross-entropy"].value == pytest.approx(penalty(2.0) / penalty(1.0), rel=1e-9)
    assert penalty(1e-3) > 0
    assert penalty(2e-3) / penalty(1e-3) == pytest.approx(4.0, rel=1e-2)  # near 0 it is the square that L2 is


def test_fully_connected_layers_hold_the_memory_and_not_the_work(known):
    counts = tensors("alexnet_2012")
    memory = sum(n for key, n in counts.items() if key.startswith("fc")) / sum(counts.values())
    work = (9216 * 4096 + 4096 * 4096 + 4096 * 1000) / 724_406_816
    assert known["N11-memory"].value == pytest.approx((memory, work), rel=1e-12)
    averaged = sum(tensors("alexnet_2012", head="global_average").values())
    assert averaged == sum(n for key, n in counts.items() if key.startswith("conv")) + 256 * 1000 + 1000
    assert f"{averaged:,}" in known["N11-memory"].computed


def test_lenet_by_hand(known):
    small = (5 * 5 * 6 + 6) + (5 * 5 * 6 * 16 + 16) + (400 * 120 + 120) + (120 * 84 + 84) + (84 * 10 + 10)
    large = sum(tensors("alexnet_d2l").values())
    assert (small, large) == (61_706, 46_764_746)
    assert known["N21-parameters"].value == pytest.approx(large / small, rel=1e-12)
    small = 5 * 5 * 6 * 28**2 + 5 * 5 * 6 * 16 * 10**2 + 400 * 120 + 120 * 84 + 84 * 10
    large = (
        11**2 * 96 * 54**2
        + 5**2 * 96 * 256 * 26**2
        + 3**2 * (256 * 384 + 384 * 384 + 384 * 256) * 12**2
        + 256 * 25 * 4096
        + 4096 * 4096
        + 4096 * 10
    )
    assert (small, large) == (416_520, 938_146_176)
    assert known["N21-arithmetic"].value == pytest.approx(large / small, rel=1e-12)
    assert "758 times" in known["N21-parameters"].computed
    assert "2,252 times" in known["N21-arithmetic"].computed


def test_verdicts_follow_from_the_network_that_is_counted(monkeypatch):
    def narrower(name, **fields):
        if name == "alexnet_2012":
            fields = {"conv_channels": (96, 256, 256, 256, 128), "input_size": 195, **fields}
        return model_config(name, **fields)

    monkeypatch.setattr(module, "model_config", narrower)
    verdicts = {fact.id: fact.verdict for fact in facts()}
    for id in ("C2-parameters", "C2-neurons", "C8-parameters", "C14-widths", "C15-input", "C15-maps"):
        assert verdicts[id] == "contradicted", id


def test_verdicts_follow_from_the_crop(monkeypatch):
    monkeypatch.setattr(module, "Preprocessing", lambda: Preprocessing(resize=255))  # 32 x 32 x 2
    assert {fact.id: fact.verdict for fact in facts()}["C16-places"] == "confirmed"
