"""What this machine's rates mean for the paper's training run."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet.bench import rates
from alexnet.core.device import Machine, Precision
from alexnet.core.errors import UsageError
from alexnet.data.packed import decode_record, open_packed
from alexnet.data.prepare import prepare, resolve
from alexnet.data.shards import Store
from alexnet.evaluation.finding import Finding
from alexnet.models import create_model
from alexnet.models.lrn import kernels_in_use

IMAGENET_IMAGES = 1_281_167
"""Training images of ILSVRC-2012 (§2)."""
PAPER_EPOCHS = 90
"""§5: "roughly 90 cycles", which "took five to six days on two NVIDIA GTX 580 3GB GPUs"."""
DRAWN = 384
"""Photographs drawn where no data is named."""
BATCHES = 3
"""How long one measurement takes."""
ARITHMETIC_SHARE = 0.5
"""A step that reaches this share of the matrix-product rate is limited by arithmetic, a slower one by memory traffic."""


@dataclass(frozen=True)
class Forecast:
    """Rates in images per second, unless their names say otherwise; medians."""

    network: str
    precision: Precision
    batch_size: int
    data: str
    product_flops: float
    """Floating-point operations per second of torch's matrix product."""
    copy_bytes: float
    """Bytes per second of a copy, read and written."""
    prepare: float
    """JPEG files decoded, resized, cropped and written, on all cores."""
    decode_packed: float
    """Our own JPEG records decoded, one thread."""
    read: float
    """Packed pixels gathered into batches."""
    augment: float
    """Batches in memory cropped, mirrored, shifted in color."""
    step: float
    """Training steps on batches in memory."""
    end_to_end: float
    """Training steps fed from the packed set."""
    flops_per_image: int
    arithmetic_share: float
    """The step's share of the matrix-product rate. Convolutions may reach more than torch's matrix product does."""
    bottleneck: str
    kernels: str
    """Which kernels compute response normalization."""
    jpeg_record_bytes: float
    """Mean size of a 256 x 256 JPEG record of these pictures."""

    @property
    def days_of_paper(self) -> float:
        """Days for 90 epochs of ImageNet, validation not counted."""
        return PAPER_EPOCHS * IMAGENET_IMAGES / self.end_to_end / 86400

    def finding(self, *, storage: bool = False) -> Finding:
        """The rates as JSON and in words; with ``storage`` also what preparing and storing ImageNet takes, in words."""
        body = self.to_json()
        rates_in_words = (
            ("prepare (decode, resize, write)", self.prepare),
            ("decode our JPEG records, one thread", self.decode_packed),
            ("read packed pixels", self.read),
            ("augment", self.augment),
            (f"training step, batch {self.batch_size}, {self.precision}", self.step),
            ("end to end", self.end_to_end),
        )
        lines = [f"{name:<44} {rate:>12,.0f} images/s" for name, rate in rates_in_words]
        lines += [
            f"{'matrix product':<44} {self.product_flops / 1e9:>12,.0f} GFLOP/s",
            f"{'copy, read and written':<44} {self.copy_bytes / 1e9:>12,.1f} GB/s",
            f"response normalization: {self.kernels}; the step computes {self.flops_per_image / 1e9:.2f} GFLOP an image, "
            f"{self.arithmetic_share:.0%} of the matrix product's rate",
            f"limited by: {self.bottleneck}",
            f"{PAPER_EPOCHS} passes over ImageNet at this rate: {self.days_of_paper:,.1f} days (2012: 5 to 6 days on two GPUs)",
        ]
        if storage:
            lines.append(
                f"preparing ImageNet: {body['prepare_imagenet_hours']:.1f} hours; stored as pixels "
                f"{body['imagenet_pixels_bytes'] / 1e9:.0f} GB, as JPEG records of such pictures "
                f"{body['imagenet_jpeg_bytes'] / 1e9:.0f} GB"
            )
        return Finding(
            subject={"network": self.network, "model": None},
            n=self.batch_size,
            summary={"training step, images/s": self.step, "end to end, images/s": self.end_to_end},
            body=body,
            protocol={"rates": "medians of stages that are measured in turns", "pictures": self.data},
            lines=lines,
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {
            "paper_days": self.days_of_paper,
            "prepare_imagenet_hours": IMAGENET_IMAGES / self.prepare / 3600,
            "imagenet_pixels_bytes": IMAGENET_IMAGES * 256 * 256 * 3,
            "imagenet_jpeg_bytes": round(IMAGENET_IMAGES * self.jpeg_record_bytes),
        }


def measure(
    network: str,
    machine: Machine,
    *,
    precision: Precision,
    batch_size: int = 128,
    data: str | None = None,
    data_root: str | None = None,
    say: Callable[[str], None] = lambda _stage: None,
) -> Forecast:
    """Measure each stage on this machine with ``network``, on ``data`` or on drawn photographs; ``say`` is told what is
    being measured. Takes one to three minutes on two cores."""
    device = machine.device
    given = resolve(data, data_root=data_root) if data else None
    model = create_model(network)
    shape: Any = model.config
    if (shape.in_channels, shape.input_size) != (3, 224):
        raise UsageError(f"bench measures networks that read 224 x 224 color images; {network} reads others")
    kernels = kernels_in_use(device, build=True)
    with tempfile.TemporaryDirectory(prefix="alexnet-bench-") as folder:
        say("decoding and resizing")
        prepare_rate, jpeg_bytes, decode_rate = _prepared(Path(folder))
        packed = given or open_packed(Path(folder, "pixels"))
        say("matrix products and copies")
        product, copy = rates.matrix_product_rate(device, precision), rates.copy_rate(device)
        say("reading and augmenting")
        split = packed.split("train")
        rows = np.arange(batch_size) % len(split)
        held = _Held(split.read(rows), split.labels[rows])
        stored, memory = (
            rates.training_input(packed, source, batch_size=batch_size, device=device, workers=workers)
            for source, workers in ((split, machine.workers), (held, 0))
        )
        stages = rates.seconds(
            {
                "read": lambda: [split.read(rows) for _ in range(BATCHES)],
                "augment": lambda: [next(memory) for _ in range(BATCHES)],
            }
        )
        say(f"training steps of {network}")
        step = rates.training_step(model, device, precision)
        x_BCHW, label_B = rates.random_batch(batch_size, 224, 3, 1000, device)
        steps = rates.seconds(
            {
                "step": lambda: [step(x_BCHW, label_B) for _ in range(BATCHES)],
                "end to end": lambda: [step(*next(stored)) for _ in range(BATCHES)],
            },
            repeats=3,
        )
    flops = rates.training_flops(create_model(network))
    rate = {name: rates.median_rate(BATCHES * batch_size, times) for name, times in (stages | steps).items()}
    share = rate["step"] * flops / product
    return Forecast(
        network=network,
        precision=precision,
        batch_size=batch_size,
        data=data or "drawn photographs of 500 x 375 pixels",
        product_flops=product,
        copy_bytes=copy,
        prepare=prepare_rate,
        decode_packed=decode_rate,
        read=rate["read"],
        augment=rate["augment"],
        step=rate["step"],
        end_to_end=rate["end to end"],
        flops_per_image=flops,
        arithmetic_share=share,
        bottleneck=bottleneck(rate, share),
        kernels=kernels,
        jpeg_record_bytes=jpeg_bytes,
    )


def bottleneck(rate: dict[str, float], share: float) -> str:
    """The slowest of ``read``, ``augment`` and ``step`` (images per second); a step is named after what limits it."""
    slowest = min(("read", "augment", "step"), key=lambda name: rate[name])
    if slowest != "step":
        return slowest
    return "arithmetic" if share >= ARITHMETIC_SHARE else "memory traffic"


@dataclass(frozen=True)
class _Held:
    """One batch in memory, as a split."""

    pixels_BSSC: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index_B: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.pixels_BSSC


def _prepared(folder: Path) -> tuple[float, float, float]:
    """Drawn photographs per second of their preparation; mean bytes of a JPEG record, and records decoded per second."""
    rates.drawn_photographs(folder / "photographs", DRAWN)

    def again(store: Store) -> None:
        shutil.rmtree(folder / store, ignore_errors=True)
        prepare(folder / "photographs", folder / store, store=store)

    times = rates.seconds({"prepare": lambda: again("pixels")}, repeats=3)["prepare"]
    again("jpeg")
    split = open_packed(folder / "jpeg").split("train")
    jpegs = [split.record(i) for i in range(100)]
    decoding = rates.seconds({"decode": lambda: [decode_record(jpeg, 3) for jpeg in jpegs]})["decode"]
    return rates.median_rate(DRAWN, times), sum(map(len, jpegs)) / len(jpegs), rates.median_rate(len(jpegs), decoding)
