"""What bfloat16 costs or gains on this processor: writes results/precision.json.

Training steps of the recipe modern_photos (alexnet_2012, batch 32), and the operations that it is made of, each alone with its
gradients, in float32 and in bfloat16, in turns. python benchmarks/precision.py      (some twenty minutes where bfloat16 is slow)
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as the command line does

import torch
from torch import nn

from alexnet.bench import rates
from alexnet.core.device import Precision, autocast
from alexnet.core.memory import keep_freed_memory
from alexnet.core.runs import environment, write_json
from alexnet.models import create_model
from alexnet.models.lrn import LocalResponseNorm
from alexnet.recipes import modern_photos

CPU = torch.device("cpu")
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
STEPS = 2
REPEATS = 5
IMAGES = 4
"""Images that an operation alone is timed on."""


def training_step(precision: Precision) -> Callable[[], object]:
    """A step of modern_photos on random pixels in memory."""
    config = modern_photos()
    x_BCHW, label_B = rates.random_batch(config.batch_size, config.preprocessing.crop, 3, 10, CPU)
    step = rates.training_step(create_model("alexnet_2012", num_classes=10), CPU, precision)
    return lambda: step(x_BCHW, label_B)


def operation(layer: nn.Module, shape: tuple[int, ...], precision: Precision) -> Callable[[], object]:
    """A layer forward and backward."""
    x = torch.randn(IMAGES, *shape)
    if len(shape) == 3:
        x, layer = x.contiguous(memory_format=torch.channels_last), layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if not list(layer.parameters()) and precision == "bfloat16":
        x = x.bfloat16()  # what the convolution before it gives it
    x.requires_grad_()

    def run() -> None:
        with autocast(CPU, precision):
            y = layer(x)
        y.sum().backward()

    return run


def main() -> None:
    keep_freed_memory()
    layers: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
        "conv2": (nn.Conv2d(96, 256, 5, padding=2, groups=2), (96, 27, 27)),
        "conv3": (nn.Conv2d(256, 384, 3, padding=1), (256, 13, 13)),
        "fc7": (nn.Linear(4096, 4096), (4096,)),
        "normalization of conv1": (LocalResponseNorm(), (96, 55, 55)),
        "pooling of conv1": (nn.MaxPool2d(3, 2), (96, 55, 55)),
    }
    rows = []
    for what, (layer, shape) in layers.items():
        rows.append(_row(what, IMAGES, {p: operation(layer, shape, p) for p in PRECISIONS}, REPEATS))
    rows.append(_row("training step", modern_photos().batch_size, {p: training_step(p) for p in PRECISIONS}, STEPS))
    product = {p: rates.matrix_product_rate(CPU, p) for p in PRECISIONS}
    supported = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    print(f"matrix product: {product['float32'] / 1e9:.1f} and {product['bfloat16'] / 1e9:.2f} GFLOP/s")
    document = {
        "recipe": "modern_photos",
        "network": "alexnet_2012",
        "bfloat16_supported": supported,
        "matrix_product_flops_per_second": product,
        "environment": environment() | {"capability": torch.backends.cpu.get_cpu_capability()},
        "rows": rows,
    }
    write_json(Path(__file__).resolve().parents[1] / "results" / "precision.json", document)


def _row(what: str, images: int, functions: dict[Precision, Callable[[], object]], repeats: int) -> dict[str, object]:
    times = rates.seconds(functions, repeats)
    slower = min(times["bfloat16"]) / min(times["float32"])
    print(
        f"{what}, {images} images: {min(times['float32']):.3g} s, in bfloat16 {min(times['bfloat16']):.3g} s, {slower:.2g} times"
    )
    return {"what": what, "images": images, "bfloat16_times_slower": slower, "times": rates.as_json(times)}


if __name__ == "__main__":
    main()
