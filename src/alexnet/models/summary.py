"""What a network is made of: each stage's shape, parameters and multiply-adds, counted on the network itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from alexnet.models.layers import WEIGHT_LAYERS, LocalConv2d, TowerLinear
from alexnet.models.lrn import LocalResponseNorm, MapResponseNorm

_WITHOUT_PARAMETERS = (nn.MaxPool2d, nn.AvgPool2d, LocalResponseNorm, MapResponseNorm)
"""Modules that are a row although they have no parameters. Nonlinearities and dropout are not."""


@dataclass(frozen=True)
class Stage:
    """One row: what a stage gives for one image, and what it costs."""

    name: str
    shape: tuple[int, ...]
    """(C, H, W) or (D,)."""
    parameters: int
    multiply_adds: int
    """Multiplications with weights for one image, those with padding included; biases, pooling and normalization are
    not counted."""
    kernel: int | None = None
    """Side of the window of a convolution or of pooling, in pixels; None for stages without one."""
    stride: int | None = None
    padding: int | None = None
    """Zeros on each side of the input, in pixels."""
    overhang: int = 0
    """More zeros at the right and at the bottom, which the last windows read."""
    groups: int | None = None
    """Parts of the input that are connected to their own part of the output only: 2 in layers of two separate towers."""

    @property
    def neurons(self) -> int:
        """Outputs of a layer with weights (the paper counts 650,000); 0 for other stages."""
        return math.prod(self.shape) if self.multiply_adds else 0


def summarize(model: nn.Module) -> list[Stage]:
    """The stages of a network in forward order, the first being its input. Runs one forward pass of one image."""
    stages: list[Stage] = []

    def record(name: str, module: nn.Module, output: Tensor) -> None:
        parameters = sum(parameter.numel() for parameter in module.parameters())
        shape = tuple(output.shape[1:])
        stages.append(Stage(name, shape, parameters, _multiply_adds(module, output), **_window(module)))

    handles = []
    for path, module in model.named_modules():
        leaf = not any(module.children())
        if leaf and (isinstance(module, _WITHOUT_PARAMETERS) or any(True for _ in module.parameters())):
            name = path.rpartition(".")[2]
            handles.append(module.register_forward_hook(lambda m, _, y, name=name: record(name, m, y)))

    config: Any = model.config
    parameter = next(model.parameters())
    x_BCHW = parameter.new_zeros(1, config.in_channels, config.input_size, config.input_size)
    stages.append(Stage("input", tuple(x_BCHW.shape[1:]), 0, 0))
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(x_BCHW)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return stages


def _window(module: nn.Module) -> dict[str, int]:
    """Kernel, stride, padding, overhang and groups of a stage, as far as it has them."""
    if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        window = {"kernel": _side(module.kernel_size), "stride": _side(module.stride), "padding": _side(module.padding)}
        if isinstance(module, nn.Conv2d):
            window |= {"groups": module.groups, "overhang": int(getattr(module, "overhang", 0))}
        return window
    if isinstance(module, LocalConv2d):
        return {"kernel": module.kernel, "stride": 1, "padding": module.kernel // 2, "groups": module.groups}
    if isinstance(module, nn.Linear | TowerLinear):
        return {"groups": getattr(module, "towers", 1)}
    return {}


def _side(size: Any) -> int:
    return int(size[0] if isinstance(size, tuple) else size)


def _multiply_adds(module: nn.Module, output: Tensor) -> int:
    if isinstance(module, nn.Conv2d):
        return module.weight.numel() * output.shape[2] * output.shape[3]
    return module.get_parameter("weight").numel() if isinstance(module, WEIGHT_LAYERS) else 0
