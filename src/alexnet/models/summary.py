"""What a network is made of: each stage's shape, parameters and multiply-adds, counted on the network itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from alexnet.models.layers import WEIGHT_LAYERS
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


def summarize(model: nn.Module) -> list[Stage]:
    """The stages of a network in forward order, the first being its input. Runs one forward pass of one image."""
    stages: list[Stage] = []

    def record(name: str, module: nn.Module, output: Tensor) -> None:
        parameters = sum(parameter.numel() for parameter in module.parameters())
        stages.append(Stage(name, tuple(output.shape[1:]), parameters, _multiply_adds(module, output)))

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


def _multiply_adds(module: nn.Module, output: Tensor) -> int:
    if isinstance(module, nn.Conv2d):
        return module.weight.numel() * output.shape[2] * output.shape[3]
    return module.get_parameter("weight").numel() if isinstance(module, WEIGHT_LAYERS) else 0
