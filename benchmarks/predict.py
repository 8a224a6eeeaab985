"""Predictions for image files, from the disk to the answers, beside a plain PyTorch program: writes results/predict.json.

One command runs all of it, on the files of a folder (Imagenette's 2,500 held-out photographs were published):

python benchmarks/predict.py FOLDER [--n 2500] [--rounds 3] [--out results/predict.json]

Weights are random, since times do not depend on them. All programs take their turn with the same files, in parts of one round
each; what is compared is the sum of times in which the machine did the same.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from alexnet.core.device import Precision, emulates
from alexnet.core.memory import keep_freed_memory
from alexnet.core.preprocessing import Preprocessing
from alexnet.core.runs import environment, write_json
from alexnet.data.pictures import image_files
from alexnet.evaluation.predict import load
from alexnet.models import create_model
from alexnet.models.folder import save_model_folder
from plain import MEAN, STD, PlainAlexNet

BATCH = 32


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--n", type=int, default=2500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "results" / "predict.json")
    options = parser.parse_args()
    keep_freed_memory()
    paths = list(image_files([options.folder]))[: options.n]
    with tempfile.TemporaryDirectory() as folder:
        preprocessing = Preprocessing(mean="channel", channel_mean=MEAN, std=STD)
        names = [str(k) for k in range(1000)]
        save_model_folder(Path(folder) / "model", create_model("alexnet_2012"), "alexnet_2012", preprocessing, names)
        plain = PlainAlexNet().eval()

        def ours(precision: Precision, workers: int | None) -> Callable[[list[str]], Any]:
            predictor = load(Path(folder) / "model", precision=precision)
            return lambda part: predictor.predict(part, batch_size=BATCH, workers=workers)

        programs: dict[str, Callable[[list[str]], Any]] = {
            "plain PyTorch, DataLoader of two workers": lambda part: plain_answers(plain, part),
            "predict, float32, one thread decodes, then all compute": ours("float32", 0),
            "predict, float32": ours("float32", None),
        }
        if not emulates(torch.device("cpu"), "bfloat16"):
            programs["predict, bfloat16"] = ours("bfloat16", None)
        for run in programs.values():
            run(paths[: 2 * BATCH])  # compilers, caches
        seconds = dict.fromkeys(programs, 0.0)
        parts = np.array_split(np.arange(len(paths)), options.rounds)
        for rows in parts:
            for name, run in programs.items():
                start = time.perf_counter()
                answers = run([paths[i] for i in rows])
                seconds[name] += time.perf_counter() - start
                assert len(answers) == len(rows)
    base = seconds["plain PyTorch, DataLoader of two workers"]
    results = {
        name: {"seconds": spent, "images_per_second": len(paths) / spent, "times_plain": base / spent}
        for name, spent in seconds.items()
    }
    for name, row in results.items():
        print(f"{name}: {row['images_per_second']:.1f} images/s, {row['times_plain']:.2f} times plain")
    environ = environment()
    write_json(
        options.out,
        {"n": len(paths), "batch": BATCH, "rounds": options.rounds, "results": results, "environment": environ},
    )


if __name__ == "__main__":
    main()
