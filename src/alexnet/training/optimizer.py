"""The paper's update rule, and torch's optimizers, over one parameter group for each layer's weights and biases."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from alexnet.core.errors import UsageError, printable
from alexnet.models import layer_parameters


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How a gradient becomes a step."""

    kind: Literal["paper", "sgd", "adam", "adamw"] = "paper"
    """Update rule. ``paper``: the learning rate is inside the velocity (§5). ``sgd``, ``adam`` and ``adamw`` are those of
    torch.optim: adam adds the weight decay to the gradient, as the paper does; adamw shrinks the weights beside its step."""
    lr: float = 0.01
    """Initial learning rate (§5)."""
    bias_lr: float | None = None
    """Initial learning rate of the biases; by default that of the weights (§5: "an equal learning rate for all layers"). The
    2012 program used twice that."""
    momentum: float = 0.9
    """Momentum (§5); for adam and adamw, beta1."""
    weight_decay: float = 0.0005
    """Weight decay (§5)."""
    bias_weight_decay: float = 0.0
    """Decay of the biases. The paper does not say; the 2012 program used none."""
    beta2: float = 0.999
    """Second beta of adam and adamw."""
    layer_lr: tuple[tuple[str, float], ...] = ()
    """Factors for the learning rates of single layers; 0 freezes a layer: conv1 0 conv2 0 conv3 0.1."""
    layer_weight_decay: tuple[tuple[str, float], ...] = ()
    """Factors for the weight decays of single layers; 0 switches a decay off: fc6 2 fc7 2."""

    @property
    def adaptive(self) -> bool:
        """Whether each weight has a step size of its own, from the mean square of its gradients."""
        return self.kind in ("adam", "adamw")

    @property
    def moments(self) -> int:
        """Numbers that the optimizer keeps for each parameter."""
        return 2 if self.adaptive else 1

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise ValueError(f"OptimizerConfig.lr is {self.lr}; a learning rate is positive")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"OptimizerConfig.momentum is {self.momentum}; it needs 0 <= momentum < 1")
        if not min(self.weight_decay, self.bias_weight_decay) >= 0:
            raise ValueError(f"OptimizerConfig.weight_decay is {self.weight_decay}; a decay is 0 or more")
        if any(not value >= 0 for _, value in (*self.layer_lr, *self.layer_weight_decay)):
            raise ValueError("OptimizerConfig.layer_lr and layer_weight_decay hold factors, which are 0 or more")


class PaperSGD(torch.optim.Optimizer):
    """Momentum with the learning rate inside the velocity (§5; weights.cu of the 2012 program):

        v <- momentum * v - weight_decay * lr * w - lr * gradient
        w <- w + v

    A velocity keeps the rate it was made with, so a drop of the rate takes effect over some ten steps; torch.optim.SGD
    keeps the rate outside and brakes at once. One pass over the memory, by torch's own fused kernel. Parameters of a
    group whose ``lr`` is 0 are frozen: neither they nor their velocity change.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 0.01, momentum: float = 0.9, weight_decay: float = 0.0005
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            lr, momentum, weight_decay = group["lr"], group["momentum"], group["weight_decay"]
            if lr == 0:
                continue
            params = [w for w in group["params"] if w.grad is not None]
            if not params:
                continue
            velocities = []
            if momentum:  # without it a velocity is the step itself, and torch's kernel takes none
                for w in params:
                    if not self.state[w]:
                        self.state[w]["velocity"] = torch.zeros_like(w)
                velocities = [self.state[w]["velocity"] for w in params]
            # torch's fused step is v <- momentum v + (1 - dampening) (g + weight_decay w), w <- w - lr v.
            torch._fused_sgd_(
                params,
                [_laid_out_like(w, w.grad) for w in params],
                velocities,
                weight_decay=weight_decay,
                momentum=momentum,
                lr=-1.0 if momentum else lr,
                dampening=1.0 + lr if momentum else 0.0,
                nesterov=False,
                maximize=False,
                is_first_step=False,
            )
        return loss


def _laid_out_like(w: Tensor, g: Tensor | None) -> Tensor:
    """The gradient with the strides of its parameter: the kernel goes through both in the order of memory."""
    assert g is not None
    return g if g.stride() == w.stride() else torch.empty_like(w).copy_(g)


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """One group for the weights and one for the biases of each layer, labelled ``layer`` and ``role``, with the layer's
    ``factor`` on the rates. A layer that the network does not have, or factors of no decay: :class:`UsageError`."""
    layers = layer_parameters(model)
    factors, decay_factors = dict(config.layer_lr), dict(config.layer_weight_decay)
    if unknown := sorted((factors.keys() | decay_factors.keys()) - layers.keys()):
        raise UsageError(f"optimizer: no layer {printable(unknown[0])!r}; the layers are {', '.join(layers)}")
    if config.weight_decay == 0 and any(decay_factors.values()):
        raise UsageError(
            "optimizer.layer_weight_decay holds factors of optimizer.weight_decay, which is 0; give that a value, and the "
            "layers that are not to decay the factor 0"
        )
    groups: list[dict[str, Any]] = []
    for layer, parameters in layers.items():
        weight_decay = config.weight_decay * decay_factors.get(layer, 1.0)
        roles = [
            ("weight", parameters.weights, weight_decay),
            ("bias", parameters.biases, config.bias_weight_decay),
        ]
        groups += [
            {
                "params": list(params),
                "layer": layer,
                "role": role,
                "factor": factors.get(layer, 1.0),
                "weight_decay": decay,
            }
            for role, params, decay in roles
            if params
        ]
    if config.kind == "paper":
        return PaperSGD(groups, lr=config.lr, momentum=config.momentum)
    if config.kind == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=True)
    rule = torch.optim.Adam if config.kind == "adam" else torch.optim.AdamW
    return rule(groups, lr=config.lr, betas=(config.momentum, config.beta2), fused=True)
