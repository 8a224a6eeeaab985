"""The paper's update rule, by hand and against torch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from alexnet.core.errors import UsageError
from alexnet.models import create_model
from alexnet.recipes import cifar10
from alexnet.training.optimizer import OptimizerConfig, PaperSGD, build_optimizer
from alexnet.training.schedule import Rates, set_rates


def step(w: nn.Parameter, optimizer: torch.optim.Optimizer, lr: float, grad: float) -> None:
    optimizer.param_groups[0]["lr"] = lr
    w.grad = torch.full_like(w, grad)
    optimizer.step()


def test_velocity_keeps_the_learning_rate_it_was_made_with():
    # §5:  v <- 0.9 v - 0.0005 lr w - lr g,   w <- w + v
    #   lr 0.1,  g 0.5:  v = -0.00005 - 0.05                    = -0.05005         w = 0.94995
    #   lr 0.01, g 0.2:  v = -0.045045 - 0.00000474975 - 0.002  = -0.04704974975   w = 0.90290025025
    w = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    optimizer = PaperSGD([w], momentum=0.9, weight_decay=0.0005)
    step(w, optimizer, 0.1, 0.5)
    step(w, optimizer, 0.01, 0.2)
    assert w.item() == pytest.approx(0.90290025025, rel=1e-12)


def test_without_momentum_a_step_is_its_own_velocity():
    # w <- w - 0.0005 lr w - lr g:  1 - 0.00005 - 0.05 = 0.94995;  0.94995 - 0.00000474975 - 0.002 = 0.94794525025
    w = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    optimizer = PaperSGD([w], momentum=0.0, weight_decay=0.0005)
    step(w, optimizer, 0.1, 0.5)
    step(w, optimizer, 0.01, 0.2)
    assert w.item() == pytest.approx(0.94794525025, rel=1e-12)


def test_torch_sgd_agrees_at_a_constant_rate_and_not_after_a_drop():
    ours, theirs = (nn.Parameter(torch.tensor(1.0, dtype=torch.float64)) for _ in range(2))
    a = PaperSGD([ours], momentum=0.9, weight_decay=0.0005)
    b = torch.optim.SGD([theirs], lr=0.1, momentum=0.9, weight_decay=0.0005)
    for i in range(20):
        step(ours, a, 0.1, 0.01 * i)
        step(theirs, b, 0.1, 0.01 * i)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    velocity = a.state[ours]["velocity"].item()
    step(ours, a, 0.01, 0.1)
    step(theirs, b, 0.01, 0.1)
    # the paper goes on with 0.9 v, torch with 0.9 v times 0.01 / 0.1
    assert ours.item() - theirs.item() == pytest.approx(0.9 * 0.9 * velocity, rel=1e-9)


def test_adam_decays_through_the_gradient_and_adamw_beside_it():
    # One step from w = 1 with the gradient 0.5, rate 0.1 and decay 0.2. Both moments are then those of one gradient, so
    # Adam's step is the rate whatever that gradient is, 0.5 or 0.5 + 0.2 w; AdamW takes off 0.1 * 0.2 * w besides.
    after = {}
    for kind in ("adam", "adamw"):
        model = nn.Sequential(nn.Linear(1, 1, bias=False, dtype=torch.float64))
        nn.init.ones_(model[0].weight)
        optimizer = build_optimizer(model, OptimizerConfig(kind=kind, lr=0.1, weight_decay=0.2))
        step(model[0].weight, optimizer, 0.1, 0.5)
        after[kind] = model[0].weight.item()
    assert after == pytest.approx({"adam": 0.9, "adamw": 0.88}, abs=1e-8)


def test_adam_is_torchs_adam_with_an_l2_penalty_in_the_gradient_of_the_weights_alone():
    ours, theirs = (create_model("lenet", seed=3).double() for _ in range(2))
    config = OptimizerConfig(kind="adam", lr=0.01, momentum=0.8, beta2=0.95, weight_decay=0.3, layer_lr=(("f6", 0.5),))
    a = build_optimizer(ours, config)
    set_rates(a, Rates(weight=0.01, bias=0.01))
    slow = list(theirs.f6.parameters())
    others = [p for name, p in theirs.named_parameters() if not name.startswith("f6.")]
    groups = [{"params": slow, "lr": 0.005}, {"params": others}]
    b = torch.optim.Adam(groups, lr=0.01, betas=(0.8, 0.95), foreach=False)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            p.grad = torch.randn(p.shape, dtype=torch.float64, generator=generator)
            q.grad = p.grad + (0.3 * q.detach() if q.dim() > 1 else 0.0)
        a.step()
        b.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)


def test_a_rate_of_zero_freezes_weights_and_velocity():
    w = nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = PaperSGD([w], momentum=0.9, weight_decay=0.0005)
    step(w, optimizer, 0.1, 1.0)
    before, velocity = w.detach().clone(), optimizer.state[w]["velocity"].clone()
    step(w, optimizer, 0.0, 1.0)
    assert torch.equal(w, before)
    assert torch.equal(optimizer.state[w]["velocity"], velocity)


@pytest.mark.parametrize("weight_last", [False, True])
@pytest.mark.parametrize("gradient_last", [False, True])
def test_the_written_rule_in_float64_whatever_the_memory_formats(weight_last, gradient_last):
    formats = {False: torch.contiguous_format, True: torch.channels_last}
    generator = torch.Generator().manual_seed(0)
    start, *gradients = torch.randn(6, 24, 5, 3, 3, dtype=torch.float64, generator=generator)
    w = nn.Parameter(start.clone(memory_format=formats[weight_last]))
    optimizer = PaperSGD([w], momentum=0.9, weight_decay=0.0005)
    plain, velocity = start, torch.zeros_like(start)
    for lr, gradient in zip((0.1, 0.1, 0.01, 0.03, 0.001), gradients, strict=True):
        optimizer.param_groups[0]["lr"] = lr
        w.grad = gradient.contiguous(memory_format=formats[gradient_last])
        optimizer.step()
        velocity = 0.9 * velocity - 0.0005 * lr * plain - lr * gradient
        plain = plain + velocity
    torch.testing.assert_close(w.detach(), plain, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(optimizer.state[w]["velocity"], velocity, rtol=1e-13, atol=1e-15)


def test_weights_and_biases_have_their_own_rates_and_decay_and_layers_can_be_frozen():
    model = create_model("lenet")
    optimizer = build_optimizer(model, OptimizerConfig(lr=0.01, bias_lr=0.02, weight_decay=0.1))
    layers = {group["layer"] for group in optimizer.param_groups}
    first = min(layers)
    set_rates(optimizer, Rates(weight=0.01, bias=0.02, layers={first: 0.0}))
    for group in optimizer.param_groups:
        expected = 0.0 if group["layer"] == first else {"weight": 0.01, "bias": 0.02}[group["role"]]
        assert group["lr"] == expected
        assert group["weight_decay"] == {"weight": 0.1, "bias": 0.0}[group["role"]]
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())


def test_single_layers_have_their_own_factor_and_decay_and_unknown_ones_are_named():
    model = create_model("cifar_11pct")
    config = OptimizerConfig(
        layer_lr=(("conv1", 0.0),), layer_weight_decay=(("fc10", 2.5), ("conv2", 0.0)), weight_decay=0.5
    )
    optimizer = build_optimizer(model, config)
    set_rates(optimizer, Rates(weight=0.1, bias=0.1))
    found = {(g["layer"], g["role"]): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups}
    assert (found["conv1", "weight"], found["conv1", "bias"]) == ((0.0, 0.5), (0.0, 0.0))
    assert found["fc10", "weight"] == (0.1, 1.25)  # 2.5 times 0.5
    assert found["fc10", "bias"] == found["conv2", "weight"] == (0.1, 0.0)
    with pytest.raises(UsageError, match="no layer 'conv9'; the layers are conv1"):
        build_optimizer(model, OptimizerConfig(layer_lr=(("conv9", 1.0),)))
    with pytest.raises(UsageError, match=r"factors of optimizer\.weight_decay, which is 0"):
        build_optimizer(model, OptimizerConfig(layer_weight_decay=(("fc10", 0.01),), weight_decay=0.0))


def test_the_decays_of_the_11_percent_network_are_those_of_its_published_file():
    config = cifar10()  # layers-cifar10-11pct: epsW 0.001; wc 0.004 at local3 and local4, 0.01 at fc10, else 0
    groups = build_optimizer(create_model(config.network), config.optimizer).param_groups
    decays = {group["layer"]: group["weight_decay"] for group in groups if group["role"] == "weight"}
    assert decays == {"conv1": 0.0, "conv2": 0.0, "local3": 0.004, "local4": 0.004, "fc10": 0.01}
    assert {group["weight_decay"] for group in groups if group["role"] == "bias"} == {0.0}
