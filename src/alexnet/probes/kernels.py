"""The kernels of the first layer: what the network looks for in the pixels (§6.1, Figure 3).

Shape suffixes: K kernels, C channels, R rows, S columns.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from alexnet.core.errors import AlexNetError
from alexnet.core.preprocessing import Preprocessing
from alexnet.core.runs import write_atomic, write_json


def conv1_kernels(model: nn.Module, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Weights of the first convolution, channels in the order red, green, blue: (K, C, R, S). The first tower's kernels
    come first. A network without a convolution: :class:`AlexNetError`."""
    conv = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if conv is None:
        raise AlexNetError("the network has no convolution: there are no kernels to show")
    kernels_KCRS = conv.weight.detach().float().cpu().numpy().copy()
    return kernels_KCRS[:, ::-1].copy() if preprocessing.channel_order == "bgr" else kernels_KCRS


def save_kernels(results: Path, model: nn.Module, preprocessing: Preprocessing) -> None:
    """``conv1.npy`` and ``kernels.json`` in ``results``, for the report."""
    kernels_KCRS = conv1_kernels(model, preprocessing)
    write_atomic(results / "conv1.npy", lambda file: np.save(file, kernels_KCRS, allow_pickle=False))
    num_towers = getattr(getattr(model, "config", None), "towers", 1)
    write_json(results / "kernels.json", {"layer": "conv1", "towers": num_towers, "channels": kernels_KCRS.shape[1]})
