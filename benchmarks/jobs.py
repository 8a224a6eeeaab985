"""The jobs beside training, each beside the rate of what it cannot do without: writes results/jobs.json.

python benchmarks/jobs.py MODEL PHOTOS [--parts search,first,...] [--n 500] [--rounds 3] [--out results/jobs.json]

MODEL is a run or a model folder, PHOTOS a set of photographs with the folders train and val (Imagenette's were published).
A part that is in the file already is not made again, so that the program can be stopped and started again; name it with
--again to have it made anew. `search` writes 8.2 GB under $TMPDIR and deletes them. All parts take some ten minutes on two
quiet cores, which must have nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from alexnet.bench.rates import random_batch, seconds, training_step
from alexnet.core.device import Machine, usable_cores
from alexnet.core.memory import keep_freed_memory
from alexnet.core.preprocessing import Preprocessing
from alexnet.core.runs import environment, read_json, write_json
from alexnet.data.loader import ahead, balanced_order, epoch_order
from alexnet.data.packed import open_packed
from alexnet.data.pictures import image_files, pictures
from alexnet.evaluation.error_rate import evaluate_split
from alexnet.evaluation.predict import Predictor, load
from alexnet.evaluation.subject import evaluate
from alexnet.evaluation.views import CENTER
from alexnet.models import create_model
from alexnet.models.lrn import kernels_in_use
from alexnet.probes.features import features
from alexnet.probes.library import index
from alexnet.probes.neighbors import nearest
from alexnet.probes.scan import KERNELS, Directions
from alexnet.probes.search import PART, Vectors
from cpu import sparse_set

VECTORS, DIM, TOP, TOGETHER = 1_000_000, 4096, 10, 20
PROBES = ("linear", "codes", "tsne")
PROBE_SECONDS = 60.0
FIRST_SECONDS = 0.3
RATE = 0.9
CODE_RATE = 0.95
LARGEST, CLASSES = 1_281_167, 10_184

FIRST = """
import sys, time
import numpy as np
import torch
x = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
start, used = time.perf_counter(), time.process_time()
import alexnet
predictor = alexnet.load(sys.argv[1])
answer = predictor.predict if predictor.why_no_answers is None else predictor.embed
answer(x)
print(time.perf_counter() - start, time.process_time() - used)
"""


Found = TypeVar("Found")


@dataclass(frozen=True)
class Given:
    model: Path
    photos: Path
    n: int
    rounds: int


def clocked(work: Callable[[], object]) -> dict[str, float]:
    """Seconds on the clock, and of all processors, children's among them."""
    start, used = time.perf_counter(), sum(os.times()[:4])
    work()
    return {"seconds": time.perf_counter() - start, "processor_seconds": sum(os.times()[:4]) - used}


def best(work: Callable[[], object], rounds: int) -> dict[str, float]:
    return min((clocked(work) for _ in range(rounds)), key=lambda one: one["seconds"])


def search(given: Given) -> dict[str, Any]:
    """Exact search among a million vectors in parts as an index has them, beside reading these files, from memory and from the
    disk (where the system lets go of what it keeps)."""
    with tempfile.TemporaryDirectory() as folder:
        block_BD = torch.randn(PART, DIM, generator=torch.Generator().manual_seed(0)).relu_().half().numpy()
        files = [Path(folder) / f"vectors-{i}.npy" for i in range(-(-VECTORS // PART))]
        for i, file in enumerate(files):
            np.save(file, np.roll(block_BD, i, axis=1)[: VECTORS - i * PART])  # other directions, by either distance
        os.sync()
        assert KERNELS.available(build=True), KERNELS.failure
        vectors = Vectors(files, DIM)
        query_QD = vectors[np.arange(TOGETHER) * (VECTORS // TOGETHER)].astype(np.float32)

        def forget() -> None:
            for file in files:
                with open(file, "rb") as opened:
                    os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

        def read(threads: int) -> None:
            def one(file: Path) -> None:
                piece = bytearray(1 << 20)
                with open(file, "rb", buffering=0) as opened:
                    while opened.readinto(piece):
                        pass

            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(one, files))

        cores, size, rows = usable_cores(), sum(file.stat().st_size for file in files), {}
        for what, work in {
            "read the files, all cores": lambda: read(cores),
            "exact, one query": lambda: nearest(query_QD[:1], vectors, TOP),
        }.items():
            forget()
            rows[f"{what}, from the disk"] = clocked(work)
        for what, work in {
            "read the files, all cores": lambda: read(cores),
            "exact, one query": lambda: nearest(query_QD[:1], vectors, TOP),
            "exact, one query, cosine": lambda: nearest(Directions(query_QD)[:1], Directions(vectors), TOP),
            f"exact, {TOGETHER} queries together": lambda: nearest(query_QD, vectors, TOP),
        }.items():
            work()
            rows[f"{what}, from memory"] = best(work, given.rounds)
        ones = torch.ones(1 << 27, dtype=torch.int64)
        adding = best(lambda: ones.sum(), given.rounds)
    for row in rows.values():
        row["GB_per_second"] = size / row["seconds"] / 1e9
    rows["sum over an array in memory"] = {**adding, "GB_per_second": (8 << 27) / adding["seconds"] / 1e9}
    times_the_reading = {
        where: rows[f"exact, one query, from {where}"]["seconds"]
        / rows[f"read the files, all cores, from {where}"]["seconds"]
        for where in ("the disk", "memory")
    }
    return {"n": VECTORS, "dimensions": DIM, "bytes": size, "rows": rows, "times_the_reading": times_the_reading}


def first(given: Given) -> dict[str, Any]:
    """The first answer of a program that has torch and NumPy, and the rate of later ones beside the bare network's."""
    runs = []
    for _ in range(1 + given.rounds):
        done = subprocess.run(
            [sys.executable, "-c", FIRST, str(given.model)], check=True, capture_output=True, text=True
        )
        runs.append([float(word) for word in done.stdout.split()[-2:]])
    clock, used = (statistics.median(column) for column in zip(*runs[1:], strict=True))
    predictor = load(given.model)
    kernels_in_use(predictor.device, build=True)
    side, batch = predictor.preprocessing.resize, 32
    given_BSSC = np.random.default_rng(0).integers(0, 256, (2 * batch, side, side, 3), np.uint8)
    answer: Callable[[Any], Any] = predictor.predict if predictor.why_no_answers is None else predictor.embed
    times = seconds(
        {"predict": lambda: answer(list(given_BSSC)), "bare": lambda: bare(predictor, batch, 2)}, repeats=given.rounds
    )
    rate = statistics.median(times["bare"]) / statistics.median(times["predict"])
    return {
        "seconds": clock,
        "processor_seconds": used,
        "reach_seconds": FIRST_SECONDS,
        "rate_of_the_bare_network": rate,
        "n": len(given_BSSC),
        "times": times,
    }


@torch.inference_mode()
def bare(predictor: Predictor, batch: int, num: int) -> None:
    crop = predictor.preprocessing.crop
    x_BCHW = torch.zeros(batch, predictor.preprocessing.channels, crop, crop)
    for _ in range(num):
        predictor.model(x_BCHW)


def photographs(given: Given) -> dict[str, Any]:
    """`index`, `features` and `evaluate --views 10` of photographs: their rates, of the slower of decoding alone and the network
    alone. Both need the same cores, so that the sum of both is what a job must take at least: that stands beside."""
    predictor, layer = load(given.model), load(given.model).usual_layer().name
    kernels_in_use(predictor.device, build=True)
    every = list(image_files([given.photos / "val"]))
    paths = every[:: max(1, len(every) // given.n)][: given.n]
    batch, n, rows = 32, len(paths), {}
    with tempfile.TemporaryDirectory() as folder:
        chosen = Path(folder) / "photos"
        for i, path in enumerate(paths):
            place = chosen / Path(path).parent.name
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{i}{Path(path).suffix}").symlink_to(Path(path).absolute())
        os.environ["ALEXNET_CACHE"] = str(Path(folder) / "cache")

        def decode() -> None:
            for _ in ahead(predictor.pixels, pictures(paths), workers=usable_cores(), what="the picture"):
                pass

        decode()  # the files are in memory then
        decoding = best(decode, given.rounds)["seconds"]
        network = best(lambda: bare(predictor, batch, -(-n // batch)), given.rounds)["seconds"]
        data, quiet = str(chosen), Machine(device=torch.device("cpu"), quiet=True)
        jobs: dict[str, tuple[Callable[[int], object], int]] = {
            "index": (
                lambda i: index(given.model, [chosen], f"{folder}/index-{i}", quiet, layer=layer, metric="cosine"),
                1,
            ),
            "features": (
                lambda i: features(given.model, [layer], f"{folder}/features-{i}", data, quiet, split="all"),
                1,
            ),
        }
        if predictor.why_no_answers is None:
            jobs["evaluate --views 10"] = (
                lambda i: evaluate([given.model], data, quiet, split="all", views="10"),
                10,
            )
        for what, (job, views) in jobs.items():
            numbers = iter(range(given.rounds))
            took = best(lambda job=job, numbers=numbers: job(next(numbers)), given.rounds)  # type: ignore[misc]
            slower = max(decoding, views * network)
            rows[what] = {
                **took,
                "images_per_second": n / took["seconds"],
                "of_the_slower": slower / took["seconds"],
                "of_both_one_after_the_other": (decoding + views * network) / took["seconds"],
                "reach": RATE,
            }
    alone = {"decoding_images_per_second": n / decoding, "network_images_per_second": n / network}
    return {"n": n, **alone, "rows": rows}


def probes(given: Given) -> dict[str, Any]:
    """The commands as they are given, on a set that is prepared and nothing else."""
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        prepare = [sys.executable, "-m", "alexnet", "prepare", str(given.photos), f"{folder}/packed"]
        subprocess.run(prepare, check=True, stdout=subprocess.DEVNULL)
        for kind in PROBES:
            variables = {**os.environ, "ALEXNET_CACHE": f"{folder}/{kind}"}
            data, out = ["--data", f"{folder}/packed"], ["--out", f"{folder}/out"]
            command = [sys.executable, "-m", "alexnet", "probe", kind, str(given.model), *data, *out]
            rows[kind] = clocked(
                lambda command=command, variables=variables: subprocess.run(  # type: ignore[misc]
                    command, check=True, env=variables, stdout=subprocess.DEVNULL
                )
            )
            document = read_json(Path(folder) / "out" / f"{kind}.json")
            rows[kind] |= {"n": document["n"], "summary": document["summary"], "reach_seconds": PROBE_SECONDS}
    return {"rows": rows}


def code_step(given: Given) -> dict[str, Any]:
    """A training step of `alexnet_2012_code` beside one of `alexnet_2012`, in turns."""
    batch, device, precision = 128, torch.device("cpu"), "float32"
    kernels_in_use(device, build=True)
    x_BCHW, label_B = random_batch(batch, 224, 3, 1000, device)
    steps = {}
    for name in ("alexnet_2012", "alexnet_2012_code"):
        step = training_step(create_model(name), device, "float32")
        steps[name] = lambda step=step: step(x_BCHW, label_B)  # type: ignore[misc]
    times = seconds(steps, repeats=given.rounds)
    rate = statistics.median(times["alexnet_2012"]) / statistics.median(times["alexnet_2012_code"])
    return {"precision": precision, "batch": batch, "rate": rate, "reach": CODE_RATE, "times": times}


def large(given: Given) -> dict[str, Any]:
    """What is done once for a set, and evaluation by a network that costs next to nothing, on sets of zeros (sparse files) of
    10,184 classes: seconds an image must not grow with the number of images."""
    rows: dict[str, list[dict[str, float]]] = {}

    def take(step: str, num: int, work: Callable[[], Found]) -> Found:
        found: list[Found] = []
        took = clocked(lambda: found.append(work()))
        per_image = 1e6 * took["processor_seconds"] / num
        rows.setdefault(step, []).append({"images": num, **took, "microseconds_of_a_core_an_image": per_image})
        return found[0]

    for num in (LARGEST // 4, LARGEST // 2, LARGEST):
        with tempfile.TemporaryDirectory() as folder:
            sparse_set(Path(folder), num, classes=CLASSES)
            packed = take("open the set and its names", num, lambda folder=folder: open_packed(folder))  # type: ignore[misc]
            split = packed.split("train")
            take("labels and paths", num, lambda split=split: (split.labels[-1], split.paths[-1]))  # type: ignore[misc]
            take("order of an epoch", num, lambda num=num: epoch_order(num, 0, 1))  # type: ignore[misc]
            every_N, label_N = np.arange(num), np.asarray(split.labels)
            balanced = lambda n=every_N, labels=label_N: balanced_order(n, labels, 0, 1)  # noqa: E731
            take("order of an epoch with equal classes", num, balanced)
    network = torch.nn.Sequential(torch.nn.AvgPool2d(32), torch.nn.Flatten(), torch.nn.Linear(3, CLASSES))
    preprocessing = Preprocessing(resize=32, crop=32, mean="none")
    for num in (LARGEST // 128, LARGEST // 64, LARGEST // 32):
        with tempfile.TemporaryDirectory() as folder:
            sparse_set(Path(folder), num, side=32, classes=CLASSES)
            packed = open_packed(folder)
            count = lambda packed=packed: evaluate_split(  # noqa: E731
                network, packed.split("train"), preprocessing, None, classes=packed.classes, views=CENTER
            ).to_json()
            take("evaluate", num, count)
    growth = {
        step: sized[-1]["microseconds_of_a_core_an_image"] / sized[0]["microseconds_of_a_core_an_image"]
        for step, sized in rows.items()
    }
    return {"classes": CLASSES, "rows": rows, "growth_of_an_images_time": growth}


PARTS: dict[str, Callable[[Given], dict[str, Any]]] = {
    "search": search,
    "first": first,
    "photographs": photographs,
    "probes": probes,
    "code_step": code_step,
    "large": large,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--again", default="")
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "results" / "jobs.json")
    options = parser.parse_args()
    keep_freed_memory()  # as the command line does
    given = Given(options.model, options.photos, options.n, options.rounds)
    document = read_json(options.out) if options.out.exists() else {}
    for name in options.parts.split(","):
        if name in document and name not in options.again.split(","):
            print(f"{name}: in {options.out} already", flush=True)
            continue
        found = clocked(lambda name=name: document.update({name: PARTS[name](given)}))  # type: ignore[misc]
        document[name] |= {"rounds": given.rounds, "load": os.getloadavg()[0], "environment": environment()}
        write_json(options.out, document)
        print(f"{name}, {found['seconds']:.0f} s: {json.dumps(document[name], indent=1)}", flush=True)


if __name__ == "__main__":
    main()
