"""The GPU table of docs/benchmarks.md: correct first, then fast. Writes results/gpu.json.

python benchmarks/gpu.py            on the first CUDA device, within 8 minutes; needs torch, numpy and this package, no network
python benchmarks/gpu.py --tiny --out FILE      the same steps at a tiny size on whatever there is, to test this script

Exit 1 if a kernel is wrong: then nothing is measured. Exit 3 if a figure misses its line.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import plain
from alexnet.bench import rates
from alexnet.core.preprocessing import ColorStatistics, Preprocessing
from alexnet.core.rng import DropoutDraw, dropout_keep
from alexnet.core.runs import environment, write_json
from alexnet.data.loader import ResidentSplit
from alexnet.data.transforms import Augmentation, augment, draw
from alexnet.models import create_model
from alexnet.models.layers import StridedConv2d
from alexnet.models.lrn import LocalResponseNorm, MapResponseNorm, kernels_in_use, written_out
from alexnet.training.optimizer import PaperSGD

SECONDS = 8 * 60
IMAGENET_IMAGES, PAPER_EPOCHS = 1_281_167, 90
END_TO_END_LINE = 64_000
"""Images per second on one H200: 90 passes over ImageNet in 30 minutes."""
PLAIN_LINE = 4.0
"""Times plain PyTorch with autocast at batch 128, on one H200."""


@dataclass(frozen=True)
class Sizes:
    batches: tuple[int, ...]
    steps: int
    """Of one measurement."""
    repeats: int
    stored: int
    """Images of the drawn packed set."""
    units: int
    """Of fc6 and of fc7, which hold most of a network's weights."""
    precision: str

    def network(self, name: str) -> torch.nn.Module:
        return create_model(name, fc_units=(self.units, self.units))


FULL = Sizes(batches=(128, 512, 2048), steps=10, repeats=5, stored=16_384, units=4096, precision="bfloat16")
TINY = Sizes(batches=(2,), steps=1, repeats=1, stored=4, units=16, precision="float32")  # bfloat16 is slow on most CPUs


# --- correct first ----------------------------------------------------------------------------------------------------


def check(device: torch.device) -> dict[str, float]:
    """The largest error of each operation on the device against float64 on the CPU, or against the CPU's own bits; in
    units of what is allowed, so anything above 1 is wrong."""
    generator = torch.Generator().manual_seed(0)
    errors: dict[str, float] = {}
    norms = {
        "lrn": LocalResponseNorm(alpha=0.3, towers=2),
        "lrn with relu": LocalResponseNorm(alpha=0.3, towers=2, relu=True),
        "map norm": MapResponseNorm(size=5, alpha=2.0),
    }
    for name, norm in norms.items():
        for memory_format in (torch.contiguous_format, torch.channels_last):
            x_BCHW = 5 * torch.randn(4, 96, 27, 27, dtype=torch.float64, generator=generator)
            x_BCHW = x_BCHW.contiguous(memory_format=memory_format).requires_grad_()
            g_BCHW = torch.randn(x_BCHW.shape, dtype=torch.float64, generator=generator)
            exact_BCHW = written_out(x_BCHW, norm.window)
            (exact_dx_BCHW,) = torch.autograd.grad(exact_BCHW, x_BCHW, g_BCHW)
            for dtype, allowed in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
                x = x_BCHW.detach().to(device, dtype).requires_grad_()
                y = norm(x)
                (dx,) = torch.autograd.grad(y, x, g_BCHW.to(device, dtype))
                kind = f"{name}, {str(dtype).removeprefix('torch.')}, {str(memory_format).removeprefix('torch.')}"
                errors[kind] = max(_error(y, exact_BCHW), _error(dx, exact_dx_BCHW)) / allowed
    conv = StridedConv2d(3, 16, 11, 4, overhang=3)
    x_BCHW = torch.randn(2, 3, 224, 224, generator=generator).contiguous(memory_format=torch.channels_last)
    exact = copy.deepcopy(conv).double()(x_BCHW.double())
    errors["conv1 over cells"] = _error(copy.deepcopy(conv).to(device)(x_BCHW.to(device)), exact) / 1e-5
    errors["paper's rule"] = _rule_error(device, generator)
    errors["augmentation"] = _augmentation_error(device)
    masks = DropoutDraw(0, 3, np.arange(64))
    here, there = (dropout_keep(masks, "fc6", 4096, 0.5, d).cpu() for d in (device, torch.device("cpu")))
    errors["dropout masks"] = 0.0 if torch.equal(here, there) else float("inf")
    return errors


def _error(found: Tensor, exact: Tensor) -> float:
    exact = exact.detach()
    return float((found.detach().cpu().double() - exact).abs().max() / exact.abs().max())


def _rule_error(device: torch.device, generator: torch.Generator) -> float:
    start, *gradients = torch.randn(5, 1000, dtype=torch.float64, generator=generator)
    w = torch.nn.Parameter(start.clone().to(device))
    optimizer = PaperSGD([w], momentum=0.9, weight_decay=0.0005)
    written, velocity = start, torch.zeros_like(start)
    for lr, gradient in zip((0.1, 0.1, 0.01, 0.001), gradients, strict=True):
        optimizer.param_groups[0]["lr"] = lr
        w.grad = gradient.to(device)
        optimizer.step()
        velocity = 0.9 * velocity - 0.0005 * lr * written - lr * gradient
        written = written + velocity
    return _error(w, written) / 1e-13


def _augmentation_error(device: torch.device) -> float:
    data, image_B = Drawn(8), np.arange(8)
    augmentation, preprocessing = Augmentation(), Preprocessing()
    draws = draw(augmentation, preprocessing, seed=0, epoch=0, image_B=image_B, position_B=image_B)
    results = [
        augment(
            data.pixels[:8].to(d), draws, augmentation, preprocessing, torch.from_numpy(data.mean).to(d), data.color
        )
        for d in (torch.device("cpu"), device)
    ]
    return _error(results[1], results[0].double()) / 1e-6


# --- then fast --------------------------------------------------------------------------------------------------------


class Drawn:
    """Random pixels in a file, read through a memory map as packed sets are, with the statistics that go with them."""

    def __init__(self, num: int) -> None:
        self.file = tempfile.NamedTemporaryFile(suffix=".npy")  # noqa: SIM115, as long as this object
        generator = np.random.default_rng(0)
        stored = np.lib.format.open_memmap(self.file.name, "w+", np.uint8, (num, 256, 256, 3))
        for start in range(0, num, 1024):
            stored[start : start + 1024] = generator.integers(0, 256, (min(1024, num - start), 256, 256, 3), np.uint8)
        stored.flush()
        self.stored = np.load(self.file.name, mmap_mode="r")
        self.labels = np.arange(num, dtype=np.int64) % 1000
        self.mean = np.full((256, 256, 3), 127.5, dtype=np.float32)
        self.color = ColorStatistics(np.zeros(3), 5418.75 * np.eye(3), np.full(3, 5418.75), np.eye(3), np.full(3, 73.6))

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index_B: np.ndarray) -> np.ndarray:
        return self.stored[index_B]

    @property
    def pixels(self) -> Tensor:
        return torch.from_numpy(np.array(self.stored))


def networks(device: torch.device, sizes: Sizes) -> dict[str, Callable[[Tensor, Tensor], object]]:
    """Training steps by name: ours, plain with autocast, and torchvision's where it is installed, both channels last too."""
    last = torch.channels_last
    steps: dict[str, Callable[[Tensor, Tensor], object]] = {
        name: rates.training_step(sizes.network(name), device, sizes.precision)
        for name in ("alexnet_2012", "alexnet_owt")
    }
    others = {
        "plain": plain.PlainAlexNet(units=sizes.units).to(device),
        "plain, channels last": plain.PlainAlexNet(units=sizes.units).to(device, memory_format=last),
    }
    if find_spec("torchvision"):
        from torchvision.models import alexnet as torchvision_alexnet

        others["torchvision, channels last"] = torchvision_alexnet().to(device, memory_format=last)
    for name, model in others.items():
        optimizer = plain.plain_optimizer(model)
        steps[name] = lambda x, y, m=model, o=optimizer: plain.plain_step(
            m, o, x, y, bfloat16=sizes.precision == "bfloat16"
        )
    if device.type == "cuda":  # what torch's compiler would add; minutes on a CPU
        compiled = sizes.network("alexnet_2012").to(device, memory_format=last)
        ours = rates.training_step(compiled, device, sizes.precision)
        compiled.compile()
        steps["alexnet_2012, torch.compile"] = ours
    return steps


def measure_steps(device: torch.device, sizes: Sizes, end: float) -> list[dict[str, Any]]:
    """Training steps on a batch in memory."""
    rows = []
    for batch_size in sizes.batches:
        x_BCHW, label_B = rates.random_batch(batch_size, 224, 3, 1000, device)
        for name, step in networks(device, sizes).items():
            if time.monotonic() > end:
                break
            row: dict[str, Any] = {"network": name, "batch": batch_size, "images_per_second": None}
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            try:
                times = rates.seconds(
                    {"step": lambda s=step, x=x_BCHW, y=label_B: _repeat(s, x, y, sizes.steps)}, sizes.repeats
                )
            except torch.OutOfMemoryError:
                row["note"] = "out of memory"
            else:
                row["images_per_second"] = rates.median_rate(sizes.steps * batch_size, times["step"])
                row["seconds"] = times["step"]
                if device.type == "cuda":
                    row["peak_memory_bytes"] = torch.cuda.max_memory_allocated()
            rows.append(row)
            _say(row)
    return rows


def _repeat(step: Callable[[Tensor, Tensor], object], x_BCHW: Tensor, label_B: Tensor, steps: int) -> None:
    for _ in range(steps):
        step(x_BCHW, label_B)


def measure_end_to_end(device: torch.device, sizes: Sizes, data: Drawn, end: float) -> list[dict[str, Any]]:
    """Training steps of alexnet_2012 fed from a file and from the device's memory, augmented on the device."""
    resident = ResidentSplit(data, device)
    rows = []
    for batch_size in sizes.batches:
        for source, split, workers in (("packed file", data, 4), ("device memory", resident, 1)):
            if time.monotonic() > end:
                break
            step = rates.training_step(sizes.network("alexnet_2012"), device, sizes.precision)
            batches = rates.training_input(data, split, batch_size=batch_size, device=device, workers=workers)
            times = rates.seconds({"step": lambda s=step, b=batches: _feed(s, b, sizes.steps)}, sizes.repeats)
            rate = rates.median_rate(sizes.steps * batch_size, times["step"])
            row = {"network": "alexnet_2012", "from": source, "batch": batch_size, "images_per_second": rate}
            row |= {"seconds": times["step"], "paper_minutes": PAPER_EPOCHS * IMAGENET_IMAGES / rate / 60}
            rows.append(row)
            _say(row)
    return rows


def _feed(step: Callable[[Tensor, Tensor], object], batches: Iterator[tuple[Tensor, Tensor]], steps: int) -> None:
    for _ in range(steps):
        step(*next(batches))


def _say(row: dict[str, Any]) -> None:
    shown = {key: value for key, value in row.items() if key != "seconds"}
    print(
        "  ".join(f"{value:,.0f} {key}" if isinstance(value, float) else f"{value}" for key, value in shown.items()),
        flush=True,
    )


def lines(document: dict[str, Any]) -> list[dict[str, Any]]:
    """What was asked for, and whether it was reached."""
    from_memory = [row for row in document["end_to_end"] if row["from"] == "device memory"]
    best = max(from_memory, key=lambda row: row["images_per_second"], default=None)
    by = {(row["network"], row["batch"]): row["images_per_second"] for row in document["steps"]}
    found = []
    if best:
        what = f"images/s end to end from device memory, batch {best['batch']}"
        found.append({"what": what, "line": END_TO_END_LINE, "value": best["images_per_second"]})
    if by.get(("plain", 128)) and by.get(("alexnet_2012", 128)):
        ratio = by["alexnet_2012", 128] / by["plain", 128]
        found.append({"what": "times plain with autocast, batch 128", "line": PLAIN_LINE, "value": ratio})
    return [line | {"reached": line["value"] >= line["line"]} for line in found]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="smallest sizes, any device")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "results" / "gpu.json")
    options = parser.parse_args()
    if not torch.cuda.is_available() and not options.tiny:
        print("no CUDA device: nothing measured (--tiny tests this script anywhere)", file=sys.stderr)
        return 1
    start = time.monotonic()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sizes = TINY if options.tiny else FULL
    torch.backends.cudnn.benchmark = True
    errors = check(device)
    wrong = {name: error for name, error in errors.items() if not error <= 1}
    if wrong:
        print(f"wrong, so nothing was measured: {wrong}", file=sys.stderr)
        return 1
    print(f"{len(errors)} checks passed on {device}, normalization by {kernels_in_use(device)}", flush=True)
    document: dict[str, Any] = {"environment": environment(), "kernels": kernels_in_use(device), "tiny": options.tiny}
    document |= {"errors_in_units_of_what_is_allowed": errors, "repeats": sizes.repeats, "steps_a_repeat": sizes.steps}
    product = rates.matrix_product_rate(device, sizes.precision)
    flops = rates.training_flops(sizes.network("alexnet_2012"))
    document |= {"matrix_product_flops": product, "copy_bytes": rates.copy_rate(device), "flops_per_image": flops}
    document["end_to_end"] = measure_end_to_end(device, sizes, Drawn(sizes.stored), start + 0.5 * SECONDS)
    document["steps"] = measure_steps(device, sizes, start + 0.9 * SECONDS)
    for row in document["steps"]:
        if row["network"].startswith("alexnet_2012") and row["images_per_second"]:
            row["share_of_matrix_product"] = row["images_per_second"] * flops / product
    document |= {"lines": lines(document), "total_seconds": time.monotonic() - start}
    write_json(options.out, document)
    for line in document["lines"]:
        print(f"{line['what']}: {line['value']:,.1f}, asked {line['line']:,} {'' if line['reached'] else 'MISSED'}")
    return 0 if options.tiny or all(line["reached"] for line in document["lines"]) else 3


if __name__ == "__main__":
    sys.exit(main())
