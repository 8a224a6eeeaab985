"""The CPU table of docs/benchmarks.md: each figure beside its baseline, in one run; writes results/cpu.json.

python benchmarks/cpu.py [NAME...]      (make bench; some ten minutes on two cores)
Exit 3 if a figure misses its line by more than NOISE. $ALEXNET_DATA names the folder with the 300 ImageNet photographs; without
it drawn photographs of their size are read, and the table says so.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as the command line does

import numpy as np
import torch
from PIL import Image

import plain
from alexnet.bench import rates
from alexnet.core.device import autocast
from alexnet.core.memory import keep_freed_memory
from alexnet.core.preprocessing import Preprocessing
from alexnet.core.runs import environment, write_json
from alexnet.data.packed import PackedSet
from alexnet.data.prepare import prepare
from alexnet.evaluation.error_rate import evaluate_split
from alexnet.evaluation.views import TEN
from alexnet.models import create_model
from alexnet.models.lrn import LocalResponseNorm, kernels_in_use, reference

CPU = torch.device("cpu")
BATCH = 128
REPEATS = 5
NOISE = 0.03
"""Two runs of an unchanged program differ by up to this much on a quiet machine."""
CORES = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Row:
    """One line of the table: a ratio or a quantity, and what it should reach."""

    name: str
    what: str
    value: float
    line: float
    at_least: bool
    """The value should be at least ``line``; else at most."""
    text: str
    times: dict[str, Any]
    """Of both sides, in seconds."""

    @property
    def reached(self) -> bool:
        return self.value >= self.line * (1 - NOISE) if self.at_least else self.value <= self.line * (1 + NOISE)


def step_float32() -> list[Row]:
    return _step("step-float32", bfloat16=False)


def step_bfloat16() -> list[Row]:
    return _step("step-bfloat16", bfloat16=True)


def _step(name: str, *, bfloat16: bool) -> list[Row]:
    """alexnet_2012 beside itself without normalization, and beside plain PyTorch in float32."""
    precision = "bfloat16" if bfloat16 else "float32"
    x_BCHW, label_B = rates.random_batch(BATCH, 224, 3, 1000, CPU)
    ours = rates.training_step(create_model("alexnet_2012"), CPU, precision)
    without = rates.training_step(create_model("alexnet_2012", normalization="none"), CPU, precision)
    with _plain_program() as plain_step:
        times = rates.seconds(
            {
                "ours": lambda: ours(x_BCHW, label_B),
                "ours without normalization": lambda: without(x_BCHW, label_B),
                "plain, float32": plain_step,
            },
            REPEATS,
        )
    rate = {key: rates.median_rate(BATCH, value) for key, value in times.items()}
    ratio = rate["ours"] / rate["ours without normalization"]
    flops = rates.training_flops(create_model("alexnet_2012"))
    share = rate["ours"] * flops / rates.matrix_product_rate(CPU, precision)
    text = (
        f"{rate['ours']:.1f} images/s; without normalization {rate['ours without normalization']:.1f}; plain float32 "
        f"{rate['plain, float32']:.1f} ({rate['ours'] / rate['plain, float32']:.2f}x); {share:.0%} of the matrix product's rate"
    )
    what = f"training step of alexnet_2012, {precision}, of the rate without normalization"
    return [Row(name, what, ratio, 0.92, True, text, rates.as_json(times))]


@contextmanager
def _plain_program() -> Iterator[Callable[[], None]]:
    """A step of benchmarks/plain.py, in a process of its own as a user would start it."""
    variables = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    command = [sys.executable, plain.__file__, str(BATCH)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        pipes = child.stdin, child.stdout

        def step() -> None:
            print("step", file=pipes[0], flush=True)
            assert pipes[1].readline(), "the plain program stopped"

        yield step
        pipes[0].close()


def lrn() -> list[Row]:
    """Normalization with its ReLU beside the ReLU alone, and its error against the written formula."""
    rows = []
    for channels, side in ((96, 55), (256, 27)):
        shape = (BATCH, channels, side, side)
        x_BCHW = (20 * torch.randn(shape)).contiguous(memory_format=torch.channels_last).requires_grad_()
        g_BCHW = torch.randn(shape).contiguous(memory_format=torch.channels_last)
        norm = LocalResponseNorm(towers=2, relu=True)
        times = rates.seconds(
            {
                "normalization with ReLU": lambda norm=norm, x=x_BCHW, g=g_BCHW: torch.autograd.grad(norm(x), x, g),
                "ReLU": lambda x=x_BCHW, g=g_BCHW: torch.autograd.grad(torch.relu(x), x, g),
            },
            2 * REPEATS,
        )
        medians = {key: statistics.median(value) for key, value in times.items()}
        few = x_BCHW[:2].detach()
        exact = reference(few.double().relu(), size=5, alpha=1e-4, alpha_times="sum", beta=0.75, k=2.0, towers=2)
        error = float(((norm(few) - exact).abs() / exact.abs().clamp_min(1e-30)).max())
        text = (
            f"{1e3 * medians['normalization with ReLU']:.1f} ms, ReLU {1e3 * medians['ReLU']:.1f} ms, forward and backward; "
            f"largest relative error {error:.1e} against the written formula in float64"
        )
        ratio = medians["normalization with ReLU"] / medians["ReLU"]
        what = f"LRN with its ReLU on {channels} x {side} x {side}, float32, in times of the ReLU"
        rows.append(Row(f"lrn-{channels}", what, ratio, 3.0, False, text, rates.as_json(times)))
        rows.append(Row(f"lrn-{channels}-error", "its relative error", error, 1e-5, False, "", {}))
    return rows


def end_to_end() -> list[Row]:
    """Steps fed from a packed set beside steps on a batch in memory, in the faster precision."""
    x_BCHW, label_B = rates.random_batch(BATCH, 224, 3, 2, CPU)
    step = rates.training_step(create_model("alexnet_2012", num_classes=2), CPU, "bfloat16")
    source = rates.training_input(packed(), packed().split("train"), batch_size=BATCH, device=CPU)
    times = rates.seconds(
        {
            "from packed data": lambda: [step(*next(source)) for _ in range(3)],
            "in memory": lambda: [step(x_BCHW, label_B) for _ in range(3)],
        },
        REPEATS,
    )
    rate = {key: rates.median_rate(3 * BATCH, value) for key, value in times.items()}
    text = f"{rate['from packed data']:.1f} images/s, in memory {rate['in memory']:.1f} (bfloat16)"
    what = "training from packed data, of the rate in memory"
    ratio = rate["from packed data"] / rate["in memory"]
    return [Row("end-to-end", what, ratio, 0.97, True, text, rates.as_json(times))]


def pipeline() -> list[Row]:
    """Packed uint8 to augmented batches, beside a DataLoader that decodes with Pillow."""
    ours = rates.training_input(packed(), packed().split("train"), batch_size=BATCH, device=CPU)
    theirs = plain.plain_batches(photographs(), BATCH, CORES)
    times = rates.seconds(
        {
            "packed": lambda: [next(ours) for _ in range(20)],
            "Pillow DataLoader": lambda: [next(theirs) for _ in range(2)],
        },
        REPEATS,
    )
    rate = {"packed": rates.median_rate(20 * BATCH, times["packed"])}
    rate["Pillow"] = rates.median_rate(2 * BATCH, times["Pillow DataLoader"])
    text = f"{rate['packed']:,.0f} images/s; Pillow in {CORES} workers {rate['Pillow']:,.0f} on {kind_of_photographs()}"
    return [
        Row("pipeline", "input alone, images/s", rate["packed"], 3000, True, text, rates.as_json(times)),
        Row("pipeline-ratio", "in times of a Pillow DataLoader", rate["packed"] / rate["Pillow"], 8, True, "", {}),
    ]


def preparation() -> list[Row]:
    """`prepare`, files to packed set, beside Pillow's bare decoding and resizing in as many processes."""
    with tempfile.TemporaryDirectory() as folder:
        copies = []
        for copy, path in itertools.product(range(4), photographs()):
            target = Path(folder, "source", f"class {copy % 2}", f"{copy}-{path.name}")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            copies.append(target)

        def again() -> None:
            shutil.rmtree(Path(folder, "packed"), ignore_errors=True)
            prepare(Path(folder, "source"), Path(folder, "packed"))

        with multiprocessing.get_context("fork").Pool(CORES) as pool:
            times = rates.seconds(
                {
                    "prepare": again,
                    "Pillow": lambda: pool.map(_decode_and_resize, copies, chunksize=8),
                },
                REPEATS,
            )
    rate = {key: rates.median_rate(len(copies), value) for key, value in times.items()}
    text = f"{rate['prepare']:,.0f} images/s, Pillow {rate['Pillow']:,.0f} in {CORES} processes, on {kind_of_photographs()}"
    ratio = rate["prepare"] / rate["Pillow"]
    return [Row("prepare", "prepare, of Pillow's bare decode and resize", ratio, 0.9, True, text, rates.as_json(times))]


def _decode_and_resize(path: Path) -> None:
    image = Image.open(path).convert("RGB")
    scale = 256 / min(image.size)
    image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BILINEAR)


class _Images:
    """Some of a split, once."""

    def __init__(self, data: PackedSet, num: int) -> None:
        split = data.split("train")
        self.images, self.labels, self.paths = split.read(np.arange(num)), split.labels[:num], split.paths[:num]

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index_B: np.ndarray) -> np.ndarray:
        return self.images[index_B]


def ten_views() -> list[Row]:
    """Evaluation with ten views beside bare forward passes of as many crops."""
    num = 64
    model = create_model("alexnet_2012", num_classes=2).to(memory_format=torch.channels_last).eval()
    data, images = packed(), _Images(packed(), num)
    x_BCHW, _ = rates.random_batch(num, 224, 3, 2, CPU)

    def forward() -> None:
        with torch.no_grad(), autocast(CPU, "float32"):
            for _ in range(10):
                model(x_BCHW)

    def evaluate() -> None:
        evaluate_split(model, images, Preprocessing(), data.mean, classes=data.classes, views=TEN, batch_size=num)

    times = rates.seconds({"evaluate": evaluate, "forward": forward}, REPEATS)
    rate = {key: rates.median_rate(num, value) for key, value in times.items()}
    text = f"{rate['evaluate']:.1f} images/s, bare forward passes {rate['forward']:.1f} (float32)"
    ratio = rate["evaluate"] / rate["forward"]
    return [
        Row("ten-views", "ten-view evaluation, of bare forward passes", ratio, 0.9, True, text, rates.as_json(times))
    ]


def cold_start() -> list[Row]:
    """`alexnet predict` of one file and `alexnet --help` in new processes, beside importing torch."""
    from alexnet.models import build_model, model_config
    from alexnet.models.folder import save_model_folder

    with tempfile.TemporaryDirectory() as folder:
        model = build_model(model_config("alexnet_2012"), name="alexnet_2012", seed=0)
        names = [f"class {i}" for i in range(1000)]
        save_model_folder(Path(folder, "model"), model, "alexnet_2012", Preprocessing(), names, packed().mean)
        alexnet = [sys.executable, "-m", "alexnet"]
        times = rates.seconds(
            {
                "predict": lambda: _run([*alexnet, "predict", f"{folder}/model", str(photographs()[0])]),
                "import torch": lambda: _run([sys.executable, "-c", "import torch"]),
                "help": lambda: _run([*alexnet, "--help"]),
            },
            REPEATS,
        )
    medians = {key: statistics.median(value) for key, value in times.items()}
    above = medians["predict"] - medians["import torch"]
    text = f"{medians['predict']:.2f} s, import torch alone {medians['import torch']:.2f} s"
    return [
        Row(
            "predict",
            "predict of one file, cold, seconds above `import torch`",
            above,
            1.5,
            False,
            text,
            rates.as_json(times),
        ),
        Row("help", "alexnet --help, seconds", medians["help"], 0.5, False, "", {}),
    ]


OPEN = """
import sys, time, numpy as np
from pathlib import Path
from alexnet.data.loader import epoch_order
from alexnet.data.packed import open_packed
def private():
    return next(int(l.split()[1]) * 1024 for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("RssAnon"))
before, start = private(), time.perf_counter()
split = open_packed(sys.argv[1]).split("train")
opened, seconds = private(), time.perf_counter() - start
order = epoch_order(len(split), 0, 0)
middle = peak = private()
for first in range(0, len(order) - 128, 128 * 50):
    split.read(order[first : first + 128])
    peak = max(peak, private())
print(seconds, opened - before, middle - before, peak - before)
"""


def large_set() -> list[Row]:
    """A packed set of ImageNet's size, all zeros on a sparse file: opened, one epoch's order drawn, every 50th batch read."""
    from alexnet.bench.forecast import IMAGENET_IMAGES

    with tempfile.TemporaryDirectory() as folder:
        sparse_set(Path(folder), IMAGENET_IMAGES)
        found = [
            json.loads(f"[{_run([sys.executable, '-c', OPEN, folder]).replace(' ', ', ')}]") for _ in range(REPEATS)
        ]
    seconds, opened, ordered, peak = (statistics.median(column) for column in zip(*found, strict=True))
    text = (
        f"private memory {opened / 1e6:.0f} MB opened, {ordered / 1e6:.0f} MB with an epoch's order, {peak / 1e6:.0f} MB at most "
        "while reading"
    )
    return [
        Row("large-set", "opening 1.28 million images, seconds", seconds, 2.0, False, text, {"all": found}),
        Row("large-set-memory", "its private memory at most, MB", peak / 1e6, 100.0, False, "", {}),
    ]


def sparse_set(folder: Path, num: int, *, side: int = 256, classes: int = 1000) -> None:
    """Files as `prepare` writes them, with pixels that are all 0."""
    import zlib

    from alexnet.core.runs import sha256_file
    from alexnet.data.packed import VERSION, seal

    shape = (num, side, side, 3)
    np.lib.format.open_memmap(folder / "train.images.npy", "w+", np.uint8, shape)
    np.save(folder / "train.labels.npy", np.arange(num, dtype=np.int64) % classes)
    np.save(folder / "train.crc32.npy", np.full(num, zlib.crc32(bytes(side * side * 3)), dtype=np.uint32))
    (folder / "train.paths.jsonl").write_text("".join(f'"{i}.jpg"\n' for i in range(num)))
    np.save(folder / "mean.npy", np.zeros(shape[1:], dtype=np.float32))
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": "" if "images" in path.name else sha256_file(path)}
        for path in sorted(folder.iterdir())
    }
    meta = {
        "format": "alexnet packed set",
        "version": VERSION,
        "complete": True,
        "store": "pixels",
        "size": side,
        "channels": 3,
    }
    meta |= {"classes": [str(i) for i in range(classes)], "counts": {"train": {"images": num}}, "files": files}
    write_json(folder / "meta.json", seal(meta))


TRAIN = """
import torch
from pathlib import Path
def peak():  # of this program alone: what getrusage says begins with the parent's
    return next(int(l.split()[1]) * 1024 for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmHWM"))
before = peak()
from alexnet.bench import rates
from alexnet.core.memory import keep_freed_memory
from alexnet.models import create_model
keep_freed_memory()
step = rates.training_step(create_model("alexnet_2012"), torch.device("cpu"), "float32")
batch = rates.random_batch(128, 224, 3, 1000, torch.device("cpu"))
for _ in range(4): step(*batch)
print(peak() - before)
"""


def training_memory() -> list[Row]:
    """Peak memory of training steps above that of a process that has imported torch."""
    found = [int(_run([sys.executable, "-c", TRAIN])) / 1e9 for _ in range(3)]
    what = "peak memory of training, batch 128, float32, GB above `import torch`"
    return [Row("memory", what, statistics.median(found), 3.0, False, "the 2012 cards had 3 GB each", {"all": found})]


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


_PACKED: list[PackedSet] = []


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Of what is drawn and packed, as long as this process."""
    return tempfile.TemporaryDirectory(prefix="alexnet-bench-")


def photographs() -> list[Path]:
    """The 300 ImageNet photographs of the data folder, or as many drawn ones."""
    real = sorted(Path(os.environ.get("ALEXNET_DATA", "nowhere"), "imagenet-samples", "images").rglob("*.JPEG"))
    if real:
        return real
    drawn = Path(_folder().name, "drawn")
    if not drawn.exists():
        rates.drawn_photographs(drawn, 300)
    return sorted(drawn.rglob("*.jpg"))


def kind_of_photographs() -> str:
    return f"{len(photographs())} {'drawn' if photographs()[0].suffix == '.jpg' else 'ImageNet'} photographs"


def packed() -> PackedSet:
    """These photographs twice, prepared, in two classes."""
    if not _PACKED:
        for copy, path in itertools.product(range(2), photographs()):
            target = Path(_folder().name, "source", f"class {copy}", f"{copy}-{path.name}")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        _PACKED.append(prepare(Path(_folder().name, "source"), Path(_folder().name, "packed")))
    return _PACKED[0]


PARTS: dict[str, Callable[[], list[Row]]] = {
    "step-float32": step_float32,
    "step-bfloat16": step_bfloat16,
    "lrn": lrn,
    "end-to-end": end_to_end,
    "pipeline": pipeline,
    "prepare": preparation,
    "ten-views": ten_views,
    "cold-start": cold_start,
    "large-set": large_set,
    "memory": training_memory,
}


def main() -> int:
    names = sys.argv[1:] or list(PARTS)
    if unknown := [name for name in names if name not in PARTS]:
        print(f"no part {unknown[0]!r}; there is {', '.join(PARTS)}", file=sys.stderr)
        return 2
    keep_freed_memory()
    kernels = kernels_in_use(CPU, build=True)
    rows: list[Row] = []
    print("| what | reach | measured | |\n| --- | --- | --- | --- |")
    for name in names:
        for row in PARTS[name]():
            rows.append(row)
            sign, mark = ("≥" if row.at_least else "≤"), ("" if row.reached else " **missed**")
            print(f"| {row.what} | {sign} {row.line:g} | {row.value:.3g}{mark} | {row.text} |", flush=True)
    if names == list(PARTS):
        document = {
            "environment": environment(),
            "kernels": kernels,
            "batch": BATCH,
            "repeats": REPEATS,
            "noise": NOISE,
        }
        document |= {"rows": [asdict(row) | {"reached": row.reached} for row in rows]}
        write_json(Path(__file__).resolve().parents[1] / "results" / "cpu.json", document)
    return 0 if all(row.reached for row in rows) else 3


if __name__ == "__main__":
    sys.exit(main())
