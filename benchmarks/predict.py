"""Predictions for image files, from the disk to the answers, beside a plain PyTorch program: writes results/predict.json.

One command runs all of it, on the files of a folder (Imagenette's 2,500 held-out photographs were published):

python benchmarks/predict.py FOLDER [--n 2500] [--rounds 5] [--out results/predict.json]

Weights are random, since times do not depend on them. Each program is a process of its own, as a user would start it: what the
command line does for its process (how threads wait, freed memory) does nothing for the plain one. All take their turn with the
same files, in parts of one round each; what is compared is the sum of times in which the machine did the same. CPU seconds,
which other work on the machine disturbs less, stand beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from alexnet.cli import OPENMP_SPINS
from alexnet.core.device import emulates
from alexnet.core.memory import keep_freed_memory
from alexnet.core.preprocessing import Preprocessing
from alexnet.core.runs import environment, write_json
from alexnet.data.pictures import image_files
from alexnet.evaluation.predict import load
from alexnet.models import create_model
from alexnet.models.folder import save_model_folder
from plain import MEAN, STD, PlainAlexNet

BATCH = 32
PLAIN = "plain PyTorch, DataLoader of two workers"
OURS = {
    "predict, float32, one thread decodes, then all compute": ("float32", 0),
    "predict, float32": ("float32", None),
    "predict, bfloat16": ("bfloat16", None),
}
"""Precision, and the threads that decode."""


class Center(Dataset[Tensor]):
    """As people write it with Pillow: short side 256, the center of 224 pixels, normalized."""

    def __init__(self, paths: list[str]) -> None:
        from PIL import Image

        self.paths, self.pillow = paths, Image

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        image = self.pillow.open(self.paths[index]).convert("RGB")
        scale = 256 / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), self.pillow.Resampling.BILINEAR)
        left, top = (image.width - 224) // 2, (image.height - 224) // 2
        pixels_HWC = (np.asarray(image.crop((left, top, left + 224, top + 224)), dtype=np.float32) - MEAN) / STD
        return torch.from_numpy(pixels_HWC.astype(np.float32)).permute(2, 0, 1)


@torch.inference_mode()
def plain_answers(model: PlainAlexNet, paths: list[str]) -> list[list[int]]:
    """The five most probable classes of each file."""
    loader = DataLoader(Center(paths), BATCH, num_workers=2)
    return [row for x_BCHW in loader for row in model(x_BCHW).softmax(1).topk(5).indices.tolist()]


def serve(program: str, model: Path) -> None:
    """Answer the files of each line on standard input, a JSON list, and print the processor seconds that it took."""
    answer: Callable[[list[str]], Any]
    if program == PLAIN:
        plain = PlainAlexNet().eval()
        answer = lambda paths: plain_answers(plain, paths)  # noqa: E731
    else:
        keep_freed_memory()  # as the command line does
        precision, workers = OURS[program]
        predictor = load(model, precision=precision)  # type: ignore[arg-type]
        answer = lambda paths: predictor.predict(paths, batch_size=BATCH, workers=workers)  # noqa: E731
    for line in sys.stdin:
        paths, before = json.loads(line), os.times()
        assert len(answer(paths)) == len(paths)
        print(sum(os.times()[:4]) - sum(before[:4]), flush=True)


@contextmanager
def started(program: str, model: Path) -> Iterator[Callable[[list[str]], float]]:
    """A program in a process of its own: what it is given is answered, in so many processor seconds."""
    variables = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    if program != PLAIN:
        variables["GOMP_SPINCOUNT"] = OPENMP_SPINS
    command = [sys.executable, __file__, "--serve", program, str(model)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables) as child:
        pipes = child.stdin, child.stdout
        assert pipes[0] is not None
        assert pipes[1] is not None

        def answer(paths: list[str]) -> float:
            print(json.dumps(paths), file=pipes[0], flush=True)
            return float(pipes[1].readline())

        yield answer
        pipes[0].close()


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], Path(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--n", type=int, default=2500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "results" / "predict.json")
    options = parser.parse_args()
    paths = list(image_files([options.folder]))
    paths = paths[:: max(1, len(paths) // options.n)][: options.n]
    names = [PLAIN, *OURS]
    emulated = emulates(torch.device("cpu"), "bfloat16")
    if emulated:
        names.remove("predict, bfloat16")
    seconds, cpu = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    with ExitStack() as stack:
        model = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "model"
        preprocessing = Preprocessing(mean="channel", channel_mean=MEAN, std=STD)
        save_model_folder(
            model, create_model("alexnet_2012"), "alexnet_2012", preprocessing, list(map(str, range(1000)))
        )
        programs = {name: stack.enter_context(started(name, model)) for name in names}
        for answer in programs.values():
            answer(paths[: 2 * BATCH])  # compilers, caches
        for rows in np.array_split(np.arange(len(paths)), options.rounds):
            for name, answer in programs.items():
                start = time.perf_counter()
                cpu[name] += answer([paths[i] for i in rows])
                seconds[name] += time.perf_counter() - start
    results = {
        name: {
            "seconds": seconds[name],
            "cpu_seconds": cpu[name],
            "images_per_second": len(paths) / seconds[name],
            "times_plain": seconds[PLAIN] / seconds[name],
            "times_plain_by_cpu_seconds": cpu[PLAIN] / cpu[name],
        }
        for name in names
    }
    for name, row in results.items():
        print(
            f"{name}: {row['images_per_second']:.1f} images/s, {row['times_plain']:.2f} times plain "
            f"({1e3 * row['cpu_seconds'] / len(paths):.1f} ms of a core an image, {row['times_plain_by_cpu_seconds']:.2f})"
        )
    if emulated:
        print("predict, bfloat16: not measured, this processor has no instructions for it")
    document = {"n": len(paths), "batch": BATCH, "rounds": options.rounds, "bfloat16_emulated": emulated}
    write_json(options.out, {**document, "results": results, "environment": environment()})


if __name__ == "__main__":
    main()
