"""Response normalization as ONNX has it, for both exporters of torch: its operator LRN, once for each tower.

LRN divides by ``(bias + alpha / size · (sum of x² over the window))^beta``: its alpha multiplies the mean, ours the sum.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from alexnet.models.lrn.layout import Window


def response_norm(x_BCHW: Tensor, window: Window) -> Tensor:
    """y within ``torch.onnx.export``, for a window of channels."""
    if torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
        torch.onnx.register_custom_op_symbolic("alexnet::response_norm", _symbolic, 9)  # type: ignore[attr-defined]
        return torch.ops.alexnet.response_norm(x_BCHW, *window)  # type: ignore[no-any-return]
    towers = (x_BCHW.relu() if window.relu else x_BCHW).chunk(window.towers, 1)
    fields = fields_of(window)
    return torch.cat([torch.onnx.ops.symbolic("LRN", (x,), fields, dtype=x.dtype, shape=x.shape) for x in towers], 1)


def fields_of(window: Window) -> dict[str, Any]:
    """The attributes of LRN for a window of channels."""
    alpha = window.coefficient * window.size
    return {"size": window.size, "alpha": alpha, "beta": float(window.beta), "bias": float(window.k)}


def _symbolic(graph: Any, x: Any, *constants: Any) -> Any:
    """What the exporter by TorchScript writes in the place of `alexnet::response_norm`."""
    window = Window(*(constant.node().t("value").item() for constant in constants))
    fields = {f"{name}_{'i' if name == 'size' else 'f'}": value for name, value in fields_of(window).items()}
    if window.relu:
        x = graph.op("Relu", x)
    if window.towers == 1:
        return graph.op("LRN", x, **fields)
    number = {"num_outputs_i": window.towers} if graph.opset >= 18 else {}  # before, the outputs themselves say it
    towers = graph.op("Split", x, axis_i=1, outputs=window.towers, **number)
    return graph.op("Concat", *(graph.op("LRN", tower, **fields) for tower in towers), axis_i=1)
