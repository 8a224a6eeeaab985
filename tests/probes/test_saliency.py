"""Saliency maps against finite differences and written-out formulas, and the two tests that judge them."""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from alexnet.cli.probe import probe as command
from alexnet.core.device import Machine
from alexnet.core.errors import AlexNetError, UsageError
from alexnet.core.preprocessing import Preprocessing
from alexnet.evaluation.finding import Finding
from alexnet.evaluation.layers import ReceptiveField, network_layers, recorded, with_relu_modules
from alexnet.evaluation.predict import Predictor
from alexnet.evaluation.subject import Subject
from alexnet.models import create_model
from alexnet.models.folder import save_model_folder
from alexnet.probes import saliency as probe
from alexnet.probes.saliency import (
    METHODS,
    Curves,
    Settings,
    area,
    blur,
    cascade,
    center_inputs,
    deletion_insertion,
    explained,
    incompleteness,
    mean_interval,
    place,
    rank_correlation,
    saliency,
    sanity,
    scores,
    window_and_stride,
)
from alexnet.report.pictures.saliency import caption, draw_maps

SIDE = 64


def run(arguments: list[str]) -> int:
    return command(["saliency", *arguments])


NARROW: dict[str, Any] = {"conv_channels": (8, 8, 8, 8, 8), "fc_units": (16, 12), "num_classes": 4, "input_size": SIDE}


def lively(name: str, **fields: Any) -> nn.Module:
    """Larger weights than the paper's first ones, which give nearly the same answer to everything."""
    return create_model(name, **(NARROW | {"init": "he"} | fields)).eval()


def predictor_of(model: nn.Module, precision: Any = "float64", **preprocessing: Any) -> Predictor:
    config: Any = model.config
    fields = {"resize": config.input_size, "crop": config.input_size, "channels": config.in_channels, "mean": "none"}
    model = model.double() if precision == "float64" else model
    classes = tuple(f"class {k}" for k in range(config.num_classes))
    name = getattr(model, "name", "planted")
    return Predictor(
        name, model, Preprocessing(**(fields | preprocessing)), classes, None, torch.device("cpu"), precision
    )


@pytest.fixture
def predictor() -> Predictor:
    return predictor_of(lively("alexnet_2012"))


def pictures(num: int, channels: int = 3, side: int = SIDE, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    small = torch.randn(num, channels, 8, 8, generator=generator, dtype=torch.float64)
    return 40 * F.interpolate(small, (side, side), mode="bilinear")


def logits(predictor: Predictor, x_BCHW: Tensor, target_B: Tensor) -> Tensor:
    output_BK: Tensor = predictor.model(x_BCHW)
    return output_BK.gather(1, target_B[:, None])[:, 0]


# --- every ReLU a module ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["alexnet_2012", "alexnet_2012_code", "caffenet"])
def test_unfolding_the_relus_changes_no_logit_and_copies_no_weight(name: str) -> None:
    side = 67 if name == "caffenet" else SIDE
    model = lively(name, input_size=side)
    fused = sum(getattr(getattr(m, "window", None), "relu", False) for m in model.modules())
    before = sum(isinstance(m, nn.ReLU) for m in model.modules())
    unfolded = with_relu_modules(model)
    assert sum(isinstance(m, nn.ReLU) for m in unfolded.modules()) == before + fused
    assert not any(getattr(getattr(m, "window", None), "relu", False) for m in unfolded.modules())
    assert sum(getattr(getattr(m, "window", None), "relu", False) for m in model.modules()) == fused
    theirs = dict(unfolded.named_parameters())
    assert all(theirs[key] is value for key, value in model.named_parameters())
    x_BCHW = pictures(3, side=side).float()
    torch.testing.assert_close(unfolded(x_BCHW), model(x_BCHW), rtol=1e-5, atol=1e-6)
    assert {"alexnet_2012": 2, "alexnet_2012_code": 1, "caffenet": 0}[name] == fused


# --- the five methods ------------------------------------------------------------------------------------------------


def test_the_gradient_is_that_of_finite_differences(predictor: Predictor) -> None:
    x_BCHW, target_B = pictures(2), torch.tensor([1, 3])
    map_BHW = saliency(predictor, x_BCHW, target_B, "gradient")
    assert (map_BHW.shape, map_BHW.dtype) == ((2, SIDE, SIDE), np.float32)
    for y, x in [(5, 7), (30, 31), (50, 12), (20, 44)]:
        slope_BC = torch.empty(2, 3, dtype=torch.float64)
        for c in range(3):
            step = torch.zeros_like(x_BCHW)
            step[:, c, y, x] = 1e-5
            rise_B = logits(predictor, x_BCHW + step, target_B) - logits(predictor, x_BCHW - step, target_B)
            slope_BC[:, c] = rise_B.detach() / 2e-5
        np.testing.assert_allclose(map_BHW[:, y, x], slope_BC.abs().amax(1), rtol=1e-5)


def test_integrated_gradients_are_gauss_and_legendres_sum_and_add_up_to_the_logit(predictor: Predictor) -> None:
    x_BCHW, target_B = pictures(2), torch.tensor([0, 2])
    map_BHW = saliency(predictor, x_BCHW, target_B, "integrated_gradients")
    node_S, weight_S = np.polynomial.legendre.leggauss(probe.PATH_STEPS)
    total = torch.zeros_like(x_BCHW)
    for node, weight in zip((1 + node_S) / 2, weight_S / 2, strict=True):
        inner = (node * x_BCHW).requires_grad_()
        total += weight * torch.autograd.grad(logits(predictor, inner, target_B).sum(), inner)[0]
    np.testing.assert_allclose(map_BHW, (total * x_BCHW).sum(1), rtol=1e-4, atol=1e-7 * np.abs(map_BHW).max())
    rise_B = logits(predictor, x_BCHW, target_B) - logits(predictor, torch.zeros_like(x_BCHW), target_B)
    np.testing.assert_allclose(map_BHW.sum((1, 2)), rise_B.detach(), rtol=0.1)
    off = incompleteness(predictor, x_BCHW, target_B, map_BHW)
    expected = np.abs(map_BHW.sum((1, 2), dtype=np.float64) - rise_B.detach().numpy()).mean()
    assert off["mean_absolute"] == pytest.approx(expected)
    assert off["of_mean_absolute"] == pytest.approx(float(rise_B.detach().abs().mean()))


class _Guided(torch.autograd.Function):
    """A ReLU that lets only positive gradients through (Springenberg et al. 2015)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return g * (g > 0) * (x > 0)


class _GuidedReLU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return _Guided.apply(x)  # type: ignore[no-any-return,no-untyped-call]


def test_guided_backpropagation_is_that_of_a_relu_written_out(predictor: Predictor) -> None:
    x_BCHW, target_B = pictures(2), torch.tensor([1, 0])
    map_BHW = saliency(predictor, x_BCHW, target_B, "guided_backprop")
    guided = with_relu_modules(predictor.model)
    for path, module in list(guided.named_modules()):
        if isinstance(module, nn.ReLU):
            guided.set_submodule(path, _GuidedReLU())
    x_BCHW.requires_grad_()
    logit = guided(x_BCHW).gather(1, target_B[:, None]).sum()
    expected = torch.autograd.grad(logit, x_BCHW)[0].abs().amax(1)
    np.testing.assert_allclose(map_BHW, expected, rtol=1e-5, atol=1e-12)
    plain = saliency(predictor, x_BCHW, target_B, "gradient")
    assert not np.allclose(map_BHW, plain, rtol=0.1)  # the fused ReLUs took part, and all others


def test_grad_cam_is_the_formula_on_conv5_after_its_relu(predictor: Predictor) -> None:
    x_BCHW, target_B = pictures(3), torch.tensor([1, 0, 2])
    map_BHW = saliency(predictor, x_BCHW, target_B, "grad_cam")
    (layer,) = [layer for layer in network_layers(predictor.model) if layer.name == "conv5"]
    with recorded(predictor.model, [layer]) as outputs:
        logit = logits(predictor, x_BCHW.requires_grad_(), target_B).sum()
        (slope_BChw,) = torch.autograd.grad(logit, outputs["conv5"])
    weight_BC = slope_BChw.mean((2, 3))
    cam_Bhw = torch.einsum("bc,bchw->bhw", weight_BC, outputs["conv5"]).relu().detach()
    assert (cam_Bhw > 0).any()
    np.testing.assert_allclose(map_BHW, place(cam_Bhw, layer.field, SIDE), rtol=1e-5, atol=1e-9)


def test_grad_cam_reads_a_last_convolution_whose_relu_is_in_the_normalization() -> None:
    stages = ("act pool", "act pool", "act", "act", "act norm pool")
    predictor = predictor_of(lively("alexnet_2012", stages=stages))
    x_BCHW, target_B = pictures(1), torch.tensor([1])
    (layer,) = [layer for layer in network_layers(predictor.model) if layer.name == "conv5"]
    assert layer.relu
    with recorded(predictor.model, [layer]) as outputs:
        predictor.model(x_BCHW)
    model: Any = predictor.model
    rectified = outputs["conv5"].detach().requires_grad_()
    x_BD = model.stage5.pool5(replace_window(model.stage5.norm5)(rectified)).flatten(1)
    for i in (6, 7):
        x_BD = F.relu(getattr(model, f"fc{i}")(x_BD)) * 0.5
    slope = torch.autograd.grad(model.fc8(x_BD)[0, 1], rectified)[0]
    cam_Bhw = (slope.mean((2, 3), keepdim=True) * rectified).sum(1).relu().detach()
    expected = place(cam_Bhw, layer.field, SIDE)
    np.testing.assert_allclose(saliency(predictor, x_BCHW, target_B, "grad_cam"), expected, rtol=1e-5, atol=1e-9)


def replace_window(norm: Any) -> nn.Module:
    without: Any = copy.deepcopy(norm)
    without.window = norm.window._replace(relu=False)
    return without  # type: ignore[no-any-return]


def test_occlusion_is_the_mean_fall_under_every_window_that_covers_a_pixel() -> None:
    predictor = predictor_of(create_model("lenet"))
    x_BCHW, target_B = pictures(2, 1, 28), torch.tensor([3, 7])
    window, stride = window_and_stride(28)
    assert (window, stride) == (7, 4)
    assert window_and_stride(224) == (56, 28)
    fall_BHW, times_HW = np.zeros((2, 28, 28)), np.zeros((28, 28))
    whole_B = logits(predictor, x_BCHW, target_B).detach().numpy()
    for top in range(0, 28 - window + stride, stride):
        for left in range(0, 28 - window + stride, stride):
            part = (slice(top, top + window), slice(left, left + window))
            covered = x_BCHW.clone()
            covered[:, :, part[0], part[1]] = 0
            fall_B = whole_B - logits(predictor, covered, target_B).detach().numpy()
            fall_BHW[:, part[0], part[1]] += fall_B[:, None, None]
            times_HW[part] += 1
    assert times_HW.min() >= 1
    found = saliency(predictor, x_BCHW, target_B, "occlusion")
    np.testing.assert_allclose(found, fall_BHW / times_HW, rtol=1e-4, atol=1e-7)


@dataclass
class Size:
    in_channels: int = 3
    input_size: int = 32
    num_classes: int = 2


class Planted(nn.Module):
    """Class 1 is as probable as the upper left quarter is bright; nothing else is read."""

    def __init__(self) -> None:
        super().__init__()
        self.config = Size()
        self.conv = nn.Conv2d(3, 1, 1, bias=False)
        self.act = nn.ReLU()
        self.fc = nn.Linear(1024, 2, bias=False)
        with torch.no_grad():
            self.conv.weight.fill_(1 / 3)
            self.fc.weight.zero_().view(2, 32, 32)[1, :16, :16] = 0.02

    def forward(self, x_BCHW: Tensor) -> Tensor:
        output: Tensor = self.fc(self.act(self.conv(x_BCHW)).flatten(1))
        return output


@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_the_quarter_that_decides(method: Any) -> None:
    predictor = predictor_of(Planted(), "float32")
    x_BCHW = torch.zeros(1, 3, 32, 32)
    x_BCHW[:, :, 4:12, 4:12] = 1.0
    map_HW = np.abs(saliency(predictor, x_BCHW, torch.tensor([1]), method)[0])
    inside = map_HW[:16, :16].sum() / map_HW.sum()
    assert inside > 0.95  # of the map; a quarter of the area


@pytest.mark.parametrize(
    ("name", "channels", "side"), [("lenet", 1, 28), ("cifar_11pct", 3, 24), ("cifar_18pct", 3, 32)]
)
def test_other_networks_have_maps_too(name: str, channels: int, side: int) -> None:
    predictor = predictor_of(create_model(name), "float32")
    x_BCHW, target_B = pictures(2, channels, side).float(), torch.tensor([1, 8])
    maps = {method: saliency(predictor, x_BCHW, target_B, method) for method in METHODS}
    assert all(map_BHW.shape == (2, side, side) for map_BHW in maps.values())
    same = np.array_equal(maps["guided_backprop"], maps["gradient"])
    assert same == (name == "lenet")  # sigmoids: nothing to guide
    said = explained(predictor.preprocessing, predictor.model)["guided_backprop"]
    assert ("no ReLU" in said) == (name == "lenet")


def test_a_map_does_not_depend_on_the_other_images_nor_change_the_network(predictor: Predictor) -> None:
    x_BCHW, target_B = pictures(3), torch.tensor([1, 0, 2])
    before = {key: value.clone() for key, value in predictor.model.state_dict().items()}
    for method in METHODS:
        together = saliency(predictor, x_BCHW, target_B, method)
        alone = saliency(predictor, x_BCHW[1:2], target_B[1:2], method)
        np.testing.assert_allclose(together[1:2], alone, rtol=1e-5, atol=1e-9)
        assert np.array_equal(together, saliency(predictor, x_BCHW, target_B, method))
    assert all(torch.equal(before[key], value) for key, value in predictor.model.state_dict().items())
    assert all(parameter.grad is None for parameter in predictor.model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in predictor.model.modules())


def test_bfloat16_gives_nearly_the_same_map() -> None:
    predictor = predictor_of(lively("alexnet_2012"), "float32")
    x_BCHW, target_B = pictures(1).float(), torch.tensor([1])
    exact = saliency(predictor, x_BCHW, target_B, "gradient")
    rounded = saliency(replace(predictor, precision="bfloat16"), x_BCHW, target_B, "gradient")
    assert not np.array_equal(exact, rounded)
    assert np.corrcoef(exact.ravel(), rounded.ravel())[0, 1] > 0.95


def test_an_unknown_method_lists_all(predictor: Predictor) -> None:
    with pytest.raises(UsageError, match="'lime'; the methods are gradient, integrated_gradients"):
        saliency(predictor, pictures(1), torch.tensor([0]), "lime")  # type: ignore[arg-type]


def test_without_captum_the_message_says_how_to_get_it(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(AlexNetError, match=r'pip install "alexnet\[probe\]"'):
        saliency(predictor, pictures(1), torch.tensor([0]), "gradient")


def test_a_map_that_is_not_finite_is_refused(predictor: Predictor) -> None:
    with pytest.raises(AlexNetError, match="not finite"):
        saliency(predictor, pictures(1) * float("nan"), torch.tensor([0]), "occlusion")


# --- where a unit stands ---------------------------------------------------------------------------------------------


def test_maps_that_tile_the_input_are_placed_as_torch_interpolates() -> None:
    map_Bhw = torch.randn(2, 7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(map_Bhw[:, None], (28, 28), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(place(map_Bhw, ReceptiveField(4, 4, 0), 28), expected)
    torch.testing.assert_close(place(map_Bhw, None, 28), expected)


def test_a_unit_of_conv5_is_placed_at_the_middle_of_what_it_sees() -> None:
    field = ReceptiveField(size=163, stride=16, offset=-64)  # of conv5: unit 3 sees rows -16 to 146, the middle is 65
    for y, x in [(3, 5), (6, 6), (11, 2)]:
        map_1hw = torch.zeros(1, 13, 13)
        map_1hw[0, y, x] = 1
        peak = int(place(map_1hw, field, 224)[0].argmax())
        assert divmod(peak, 224) == (17 + 16 * y, 17 + 16 * x)


# --- deletion and insertion ------------------------------------------------------------------------------------------


def test_the_area_under_a_line_is_a_half() -> None:
    assert area(np.array([[1.0, 0.5, 0.0], [1.0, 1.0, 1.0], [0.2, 0.0, 0.0]])) == pytest.approx([0.5, 1.0, 0.05])


def test_curves_are_those_of_a_plain_loop() -> None:
    predictor = predictor_of(Planted(), "float32")
    x_BCHW, target_B = pictures(2, 3, 32, seed=4).float(), torch.tensor([1, 1])
    map_BHW = saliency(predictor, x_BCHW, target_B, "integrated_gradients")
    map_BHW += np.random.default_rng(0).uniform(0, 1e-6, map_BHW.shape).astype(np.float32)  # no ties
    image_B = np.array([5, 9])
    found = deletion_insertion(predictor, x_BCHW, target_B, {"own": map_BHW}, seed=0, image_B=image_B, steps=4)
    assert list(found) == ["own", "random", "center_prior"]
    for b in range(2):
        flat = map_BHW[b].ravel()
        for s in range(5):
            top = np.argsort(-flat)[: 256 * s]
            removed, inserted = x_BCHW[b].clone().reshape(3, -1), blur(x_BCHW[b]).reshape(3, -1)
            removed[:, top] = 0
            inserted[:, top] = x_BCHW[b].reshape(3, -1)[:, top]
            for image, curves in ((removed, found["own"].deletion_BS), (inserted, found["own"].insertion_BS)):
                expected = predictor.model(image.reshape(1, 3, 32, 32)).softmax(1)[0, 1].item()
                assert curves[b, s] == pytest.approx(expected, rel=1e-5)


def test_a_true_map_beats_a_random_order_and_its_opposite_is_worst() -> None:
    predictor = predictor_of(Planted(), "float32")
    x_BCHW, target_B = pictures(6, 3, 32, seed=2).float().abs() / 10, torch.full((6,), 1)
    true = saliency(predictor, x_BCHW, target_B, "integrated_gradients")
    maps = {"true": true, "opposite": -true}
    found = scores(deletion_insertion(predictor, x_BCHW, target_B, maps, seed=0, image_B=np.arange(6)))
    deletion = {name: score["deletion"]["area"]["mean"] for name, score in found.items()}
    insertion = {name: score["insertion"]["area"]["mean"] for name, score in found.items()}
    assert deletion["true"] < deletion["random"] < deletion["opposite"]
    assert insertion["true"] > insertion["random"] > insertion["opposite"]
    assert found["true"]["deletion"]["minus_random"]["high"] < 0 < found["opposite"]["deletion"]["minus_random"]["low"]
    expected = deletion["true"] - deletion["center_prior"]
    assert found["true"]["deletion"]["minus_center_prior"]["mean"] == pytest.approx(expected)
    assert "minus_random" not in found["random"]["deletion"]


def test_a_map_that_orders_nothing_is_the_random_order_of_that_image() -> None:
    predictor = predictor_of(Planted(), "float32")
    x_BCHW, target_B = pictures(2, 3, 32).float(), torch.tensor([1, 1])
    flat = {"flat": np.ones((2, 32, 32), dtype=np.float32)}
    one = deletion_insertion(predictor, x_BCHW, target_B, flat, seed=0, image_B=np.array([4, 8]))
    assert np.array_equal(one["flat"].deletion_BS, one["random"].deletion_BS)
    alone = deletion_insertion(predictor, x_BCHW[1:], target_B[1:], {}, seed=0, image_B=np.array([8]))
    np.testing.assert_allclose(alone["random"].deletion_BS, one["random"].deletion_BS[1:], rtol=1e-6)
    other = deletion_insertion(predictor, x_BCHW, target_B, {}, seed=1, image_B=np.array([4, 8]))
    assert not np.allclose(other["random"].deletion_BS, one["random"].deletion_BS)


def test_the_center_prior_takes_the_middle_first() -> None:
    predictor = predictor_of(Planted(), "float32")
    x_BCHW = torch.zeros(1, 3, 32, 32)
    x_BCHW[:, :, 12:16, 12:16] = 10.0  # next to the middle, in the quarter that is read
    found = deletion_insertion(predictor, x_BCHW, torch.tensor([1]), {}, seed=0, image_B=np.zeros(1, dtype=int))
    falls = found["center_prior"].deletion_BS[0]
    assert falls[0] > 0.9
    assert falls[2:] == pytest.approx(0.5)


def test_intervals_are_students() -> None:
    values = np.array([0.1, 0.4, 0.35, 0.8, 0.05])
    low, high = scipy.stats.t.interval(0.95, 4, values.mean(), scipy.stats.sem(values))
    assert mean_interval(values) == pytest.approx({"mean": 0.34, "low": low, "high": high})
    assert mean_interval(values[:1]) == {"mean": 0.1, "low": 0.1, "high": 0.1}


# --- random weights --------------------------------------------------------------------------------------------------


def test_the_cascade_goes_from_the_last_layer_to_the_first_with_fresh_weights() -> None:
    original = predictor_of(create_model("alexnet_2012", **NARROW), "float32")
    before = {key: value.clone() for key, value in original.model.state_dict().items()}
    seen: list[str] = []
    for layer, random in cascade(original, seed=3):
        seen.append(layer)
        state = random.model.state_dict()
        replaced = {key.split(".")[0] for key, value in before.items() if not torch.equal(state[key], value)}
        assert replaced == set(seen)
    assert seen == ["fc8", "fc7", "fc6", "conv5", "conv4", "conv3", "conv2", "conv1"]
    assert all(torch.equal(before[key], value) for key, value in original.model.state_dict().items())
    again = [random.model.get_submodule("fc8").weight.sum().item() for _, random in cascade(original, seed=3)]  # type: ignore[union-attr]
    assert again[0] == state["fc8.weight"].sum().item()
    assert state["conv1.weight"].std().item() == pytest.approx(0.01, rel=0.1)  # §5, as the network's own first weights


def test_fresh_weights_are_not_those_the_training_began_with() -> None:
    for seed in range(3):
        trained = predictor_of(create_model("lenet", seed=seed), "float32")
        (last, random), *_ = cascade(trained, seed)
        fresh, first = (m.get_submodule(last).get_parameter("weight").detach() for m in (random.model, trained.model))
        assert abs(np.corrcoef(fresh.ravel(), first.ravel())[0, 1]) < 0.2


def test_rank_correlation_is_spearmans_of_absolute_values() -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(size=(9, 9)).round(1), random.normal(size=(9, 9)).round(1)
    assert rank_correlation(a, b) == pytest.approx(
        scipy.stats.spearmanr(np.abs(a).ravel(), np.abs(b).ravel()).statistic
    )
    assert rank_correlation(a, -a) == pytest.approx(1)
    assert rank_correlation(a, np.zeros((9, 9))) == 0


def test_a_method_whose_map_stays_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = predictor_of(create_model("lenet"), "float32")
    x_BCHW, target_B = pictures(4, 1, 28).float(), torch.tensor([0, 1, 2, 3])
    random = np.random.default_rng(0)
    maps: Any = {method: random.uniform(size=(4, 28, 28)).astype(np.float32) for method in ("gradient", "occlusion")}

    def edges_or_noise(_predictor: Any, _x: Any, _target: Any, method: str) -> Any:
        return maps[method] if method == "gradient" else random.uniform(size=(4, 28, 28))

    monkeypatch.setattr(probe, "saliency", edges_or_noise)
    found = sanity(predictor, x_BCHW, target_B, maps, seed=0)
    assert found["layers"] == ["output", "f6", "c5", "c3", "c1"]
    assert found["layers_of_the_verdict"] == 3
    assert found["fail"] == ["gradient"]
    assert [row["mean"] for row in found["correlation"]["gradient"]] == pytest.approx([1] * 5)
    assert abs(found["correlation"]["occlusion"][-1]["mean"]) < 0.1
    assert abs(found["other_image"]["gradient"]["mean"]) < 0.1
    assert found["n"] == 4


def test_the_sanity_check_compares_with_the_maps_of_the_random_network() -> None:
    predictor = predictor_of(create_model("lenet"), "float32")
    x_BCHW, target_B = pictures(2, 1, 28).float(), torch.tensor([0, 1])
    maps: Any = {"gradient": saliency(predictor, x_BCHW, target_B, "gradient")}
    found = sanity(predictor, x_BCHW, target_B, maps, seed=5)
    for i, (_, random) in enumerate(cascade(predictor, 5)):
        new = saliency(random, x_BCHW, target_B, "gradient")
        rows = [
            scipy.stats.spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(maps["gradient"], new, strict=True)
        ]
        assert found["correlation"]["gradient"][i]["mean"] == pytest.approx(np.mean(rows))


def document_with(fail: list[str], high: float) -> dict[str, Any]:
    rows = [{"mean": 0.9, "low": 0.8, "high": 1.0}, {"mean": 0.85, "low": 0.8, "high": 0.9}]
    sanity = {"layers": ["fc", "conv"], "layers_of_the_verdict": 2, "fail": fail, "correlation": {"grad_cam": rows}}
    own = {"deletion": {"minus_center_prior": {"high": high}}}
    return {"sanity": sanity, "scores": {"orders": {"grad_cam": own, "random": {}, "center_prior": {}}}}


def test_the_caption_names_what_is_not_to_be_trusted() -> None:
    bad = caption(document_with(["grad_cam"], 0.01))
    assert "Not to be trusted: Grad-CAM (0.85)" in bad
    assert "from fc down to conv" in bad
    assert "Not shown to be better at deletion than taking pixels from the center: Grad-CAM" in bad
    good = caption(document_with([], -0.01))
    assert "Every map changes" in good
    assert "deletion" not in good
    assert len(caption({}).splitlines()) == 1


def test_grey_images_and_maps_without_a_positive_pixel_are_drawn() -> None:
    pixels = np.full((1, 8, 8, 1), 200, dtype=np.uint8)
    figure = draw_maps(pixels, {"occlusion": -np.ones((1, 8, 8), dtype=np.float32)}, ["$5 \u00e9, 9%"], {})
    (shown,) = figure.axes[1].images
    assert np.allclose(np.asarray(shown.get_array()), 0.55 * 200 / 255)  # the image alone, dimmed
    assert figure.axes[0].get_title() == "$5 \u00e9, 9%"


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_center_view_is_what_the_network_reads() -> None:
    preprocessing = {"resize": 36, "crop": 28}
    predictor = predictor_of(create_model("lenet"), "float32", **preprocessing)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 36, 36, 1), dtype=np.uint8)
    x_BCHW, seen_BHWC = center_inputs(predictor, pixels)
    assert np.array_equal(seen_BHWC, pixels[:, 4:32, 4:32])
    assert np.array_equal(x_BCHW[:, 0].numpy(), seen_BHWC[..., 0].astype(np.float32))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small color network as a model folder, and a folder of pictures."""
    folder = tmp_path_factory.mktemp("saliency")
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("ape", "bee $x$"):
            (folder / "data" / split / name).mkdir(parents=True)
            for i in range(3):
                noise = random.integers(0, 256, (9, 9, 3), dtype=np.uint8)
                Image.fromarray(noise).resize((40, 36)).save(folder / "data" / split / name / f"{i}.png")
    model = create_model("cifar_18pct", num_classes=2).eval()
    preprocessing = Preprocessing(resize=36, crop=32, mean="channel", channel_mean=(127.0, 127.0, 127.0))
    save_model_folder(folder / "net", model, "cifar_18pct", preprocessing, ["ape", "bee $x$"])
    return folder


def options(workplace: Path, out: Path, *more: str) -> list[str]:
    return [str(workplace / "net"), "--data", str(workplace / "data"), "--out", str(out), "--threads", "1", *more]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("cache")
def test_the_command_writes_the_same_json_twice_and_three_pictures(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ("--count", "2", "--scored", "3", "--sanity", "2")
    assert run(options(workplace, tmp_path / "a", *small)) == 0
    said = capsys.readouterr().out
    assert "guided backpropagation" in said
    assert str(tmp_path / "a" / "saliency.json") in said
    assert run(options(workplace, tmp_path / "b", *small, "--json")) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads((tmp_path / "a" / "saliency.json").read_text())
    assert document["probe"] == "saliency"
    assert set(document["scores"]["orders"]) == {*METHODS, "random", "center_prior"}
    assert document["scores"]["n"] == 3
    assert document["sanity"]["layers"] == ["fc10", "conv3", "conv2", "conv1"]
    assert len(document["images"]) == 2
    assert document["protocol"]["baseline"] == "input 0, which is the mean color"
    assert {"model", "data", "settings", "environment", "n"} <= set(document)
    for name in ("saliency", "saliency-scores", "saliency-sanity"):
        one, other = ((tmp_path / folder / f"{name}.png") for folder in "ab")
        with Image.open(one) as picture:
            assert picture.width > 500
        assert one.read_bytes() == other.read_bytes()


def looked_into(workplace: Path, data: str | None = None, **settings: Any) -> Finding:
    subject = Subject(model=workplace / "net", machine=Machine(device=torch.device("cpu")), data=data)
    return probe.measure(subject, Settings(**settings))


def test_given_files_need_no_data(workplace: Path) -> None:
    image = workplace / "data" / "val" / "ape" / "0.png"
    found = looked_into(workplace, images=(str(image),), scored=0, sanity=0)
    assert [one["path"] for one in found.body["images"]] == [str(image)]
    assert found.body["images"][0]["class"] is None
    assert found.subject["data"] is None
    assert "scores" not in found.body
    assert list(found.pictures) == ["saliency.png"]


def test_the_command_takes_images_after_the_model(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [str(workplace / "data" / "val" / "ape" / name) for name in ("2.png", "0.png")]
    assert run([str(workplace / "net"), *images, "--out", str(tmp_path), "--scored", "0", "--sanity", "0"]) == 0
    document = json.loads((tmp_path / "saliency.json").read_text())
    assert document["settings"]["images"] == images == [one["path"] for one in document["images"]]
    assert document["files"] == ["saliency.png"]
    capsys.readouterr()
    with pytest.raises(SystemExit):
        run(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "usage: alexnet probe saliency MODEL [IMAGE...] [options]" in said
    assert "IMAGE... Files or folders to draw the maps of; by default random held-out images." in said
    assert "--images" not in said


@pytest.mark.usefixtures("cache")
def test_data_with_other_classes_is_refused_before_a_map_is_made(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "saliency", lambda *_: pytest.fail("a map was made"))
    image = str(workplace / "data" / "val" / "ape" / "0.png")
    with pytest.raises(UsageError, match="digits holds 1,797 images of 0, 1, 2 and 7 more"):
        looked_into(workplace, "digits", images=(image,))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--sanity", "9", "--scored", "2"], "--sanity is 9, but only 2 images are scored; raise --scored"),
        (["--count", "0"], "--count needs at least 1; --scored and --sanity need at least 0"),
        (["--scored", "-1", "--sanity", "-1"], "--scored and --sanity need at least 0"),
        (["--precision", "half"], "--precision"),
    ],
)
def test_wrong_options_are_one_line(more: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        run(["nowhere", *more])
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_image_is_named(workplace: Path, tmp_path: Path) -> None:
    (tmp_path / "note.png").write_text("no picture")
    with pytest.raises(AlexNetError, match=r"note\.png: not an image"):
        looked_into(workplace, images=(str(tmp_path / "note.png"),))


def test_curves_hold_both_kinds() -> None:
    ones = np.ones((2, 3))
    table = scores({"own": Curves(ones, 0 * ones)})
    assert table["own"]["deletion"]["area"]["mean"] == 1
    assert table["own"]["insertion"]["curve"] == [0, 0, 0]
