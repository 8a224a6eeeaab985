"""Rates of this machine: arithmetic, memory, and each stage from a JPEG file to a training step.

Shape suffixes: N images, B images of a batch, C channels, H rows, W columns, S rows or columns of a square.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from alexnet.core.device import Precision, autocast
from alexnet.core.preprocessing import ColorStatistics, Preprocessing
from alexnet.core.rng import DropoutDraw
from alexnet.data.loader import Images, batches, epoch_order
from alexnet.data.transforms import Augmentation, augment, draw
from alexnet.models.summary import summarize
from alexnet.training.optimizer import OptimizerConfig, build_optimizer

REPEATS = 5
PRODUCT_SIDES = {"cpu": (512, 1024, 2048), "cuda": (4096, 8192)}
SLOW_PRODUCT = 0.1
"""Seconds of a product after which no larger one is tried: a processor without instructions for bfloat16 takes 3 s for a side
of 1024, and gains nothing from a larger one."""
COPY_BYTES = {"cpu": 256 << 20, "cuda": 4 << 30}


def seconds(functions: Mapping[str, Callable[[], object]], repeats: int = REPEATS) -> dict[str, list[float]]:
    """Times of each function, in turns: what disturbs the machine for a while disturbs them all. One more call of each
    comes first, uncounted."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            wait_for_devices()
            if turn:
                times[name].append(time.perf_counter() - start)
    return times


def median_rate(amount: float, times: list[float]) -> float:
    """Amount per second of the median time."""
    return amount / statistics.median(times)


def matrix_product_rate(device: torch.device, precision: Precision) -> float:
    """Floating-point operations per second of the fastest of torch's square matrix products."""
    dtype = {"bfloat16": torch.bfloat16, "float64": torch.float64}.get(precision, torch.float32)
    rates = []
    with autocast(device, precision):
        for side in PRODUCT_SIDES.get(device.type, PRODUCT_SIDES["cpu"]):
            a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
            times = seconds({"product": lambda a=a, b=b: torch.mm(a, b)})  # type: ignore[misc]
            rates.append(2 * side**3 / min(times["product"]))
            if min(times["product"]) > SLOW_PRODUCT:
                break
    return max(rates)


def copy_rate(device: torch.device) -> float:
    """Bytes per second, read and written, of a copy from memory to memory."""
    source = torch.ones(COPY_BYTES.get(device.type, COPY_BYTES["cpu"]), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / min(seconds({"copy": lambda: target.copy_(source)})["copy"])


def training_flops(model: nn.Module) -> int:
    """Floating-point operations of one training step for one image: two for each multiply-add, once forward and twice
    backward, except that the first layer's input needs no gradient."""
    stages = [stage.multiply_adds for stage in summarize(model) if stage.multiply_adds]
    return 2 * (3 * sum(stages) - stages[0])


def training_step(
    model: nn.Module, device: torch.device, precision: Precision, optimizer: torch.optim.Optimizer | None = None
) -> Callable[[Tensor, Tensor], Tensor]:
    """The step of :mod:`alexnet.training.trainer` as a function of network input (B, C, S, S) and labels (B,): dropout
    masks, loss in float32, gradients, the paper's rule. Returns the loss, on the device."""
    model = model.to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = optimizer or build_optimizer(model, OptimizerConfig(lr=1e-6))
    steps = itertools.count()

    def step(x_BCHW: Tensor, label_B: Tensor) -> Tensor:
        masks = DropoutDraw(0, 0, np.arange(len(x_BCHW)) + next(steps) * len(x_BCHW))
        with autocast(device, precision):
            logits_BK = model(x_BCHW, masks)
        loss = F.cross_entropy(logits_BK.float(), label_B)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    return step


def random_batch(
    batch_size: int, side: int, channels: int, classes: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Network input of the size of pixels, and labels, in memory."""
    generator = torch.Generator().manual_seed(0)
    x_BCHW = 60 * torch.randn(batch_size, channels, side, side, generator=generator)
    label_B = torch.randint(0, classes, (batch_size,), generator=generator)
    return x_BCHW.to(device).contiguous(memory_format=torch.channels_last), label_B.to(device)


class Statistics(Protocol):
    """What training input needs to know of a packed set as a whole."""

    @property
    def mean(self) -> NDArray[np.float32]: ...
    @property
    def color(self) -> ColorStatistics: ...


def training_input(
    data: Statistics, split: Images, *, batch_size: int, device: torch.device, workers: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Network input and labels of ``split``, epoch after epoch, as the trainer computes them at the paper's sizes: crops,
    mirror, mean and color noise, the last two those of ``data``."""
    preprocessing, augmentation = Preprocessing(), Augmentation()
    mean_SSC = torch.from_numpy(data.mean).to(device)
    for epoch in itertools.count():
        order_N = epoch_order(len(split), 0, epoch)[: max(1, len(split) // batch_size) * batch_size]  # whole batches
        for batch in batches(split, order_N, batch_size, workers=workers, pin=device.type == "cuda"):
            places = {"image_B": batch.image_B, "position_B": batch.position_B}
            draws = draw(augmentation, preprocessing, seed=0, epoch=epoch, **places)
            pixels_BSSC = batch.pixels_BSSC.to(device, non_blocking=True)
            x_BCHW = augment(pixels_BSSC, draws, augmentation, preprocessing, mean_SSC, data.color)
            yield x_BCHW, batch.label_B.to(device, non_blocking=True)


def drawn_photographs(folder: Path, num: int) -> None:
    """``num`` JPEG files in two class folders, of the size, quality and weight of ImageNet's (500 x 375 pixels, some 100
    KB): soft shapes under noise."""
    from PIL import Image

    for i in range(num):
        path = folder / f"class {i % 2}" / f"{i:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        generator = np.random.default_rng(i)
        shapes = Image.fromarray(generator.integers(0, 256, (15, 20, 3), dtype=np.uint8)).resize(
            (500, 375), Image.Resampling.BICUBIC
        )
        grain_HWC = generator.normal(0, 9, (375, 500, 1)) + generator.normal(0, 3, (375, 500, 3))
        pixels_HWC = np.clip(np.asarray(shapes) + grain_HWC, 0, 255).astype(np.uint8)
        Image.fromarray(pixels_HWC).save(path, quality=90)


def wait_for_devices() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def as_json(times: Mapping[str, list[float]]) -> dict[str, Any]:
    """Medians and all times, in seconds."""
    return {
        name: {"median": statistics.median(values), "n": len(values), "seconds": values}
        for name, values in times.items()
    }
