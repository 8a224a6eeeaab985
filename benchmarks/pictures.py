"""The pictures of the README and of docs/claims.md: examples of the drawn set, the curves and kernels of a run, figure 1.

python benchmarks/pictures.py [RUN]    (a finished run; writes docs/pictures/)
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image

from alexnet.claims.results import Results
from alexnet.core.runs import read_json
from alexnet.data.builtin import CLASSES, draw_picture
from alexnet.report.tables import read_log

mpl.use("Agg")
import matplotlib.pyplot as plt  # after the backend is chosen

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "pictures"
TILE = 100


def shapes() -> None:
    """One picture of each class, 12 in a row."""
    sheet = Image.new("RGB", (12 * TILE, 2 * TILE), "white")
    for i, name in enumerate(CLASSES):
        picture = draw_picture(name, 1)
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        tile = picture.crop((left, top, left + side, top + side)).resize((TILE - 4, TILE - 4))
        sheet.paste(tile, (i % 12 * TILE + 2, i // 12 * TILE + 2))
    sheet.save(OUT / "shapes.jpg", quality=88)


def training(run: Path) -> None:
    """Errors by epoch, and the kernels of conv1, one tower above the other."""
    epochs = read_log(run / "log.jsonl").epochs
    kernels = np.load(run / "results" / "conv1.npy", allow_pickle=False)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.6), width_ratios=(1, 1.6))
    for key, label in (("train_top1_error", "training"), ("val_top1_error", "validation"), ("val_top5_error", "top-5")):
        left.plot([row["epoch"] for row in epochs], [100 * float(row[key]) for row in epochs], label=label)
    left.set(xlabel="epoch", ylabel="error, %", ylim=(0, None))
    left.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False)
    scaled = 0.5 + 0.5 * kernels / np.abs(kernels).max(axis=(1, 2, 3), keepdims=True)
    padded = np.pad(scaled.transpose(0, 2, 3, 1), ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=1)
    rows = padded.reshape(4, -1, *padded.shape[1:])
    right.imshow(np.concatenate([np.concatenate(list(row), axis=1) for row in rows]), interpolation="nearest")
    right.set_title(f"the {len(kernels)} kernels of conv1, each scaled on its own", fontsize=9)
    right.axis("off")
    figure.tight_layout()
    figure.savefig(OUT / "training.png", dpi=110)


def figure_1() -> None:
    """Training error by epoch with ReLU and with tanh, of three seeds each, as in figure 1 of the paper."""
    folder = ROOT / "results" / "claims" / "cifar10"
    arms, results = read_json(folder / "relu-tanh.json")["arms"], Results(folder)
    figure, axes = plt.subplots(figsize=(7.5, 3))
    for (arm, label), style in zip((("base", "ReLU"), ("tanh", "tanh")), ("-", "--"), strict=True):
        for i, name in enumerate(arms[arm]["results"]):
            points = results[name]["curve"]
            epoch, error = [p["epoch"] for p in points], [100 * p["error"] for p in points]
            axes.plot(
                epoch, error, style, color="C0" if arm == "base" else "C1", linewidth=1, label=None if i else label
            )
    axes.axhline(25, color="0.6", linewidth=0.8)
    axes.set(xlabel="epoch", ylabel="training error, %", ylim=(20, 75), xlim=(0, 40))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(OUT / "figure-1.png", dpi=110)


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    shapes()
    figure_1()
    if len(sys.argv) > 1:
        training(Path(sys.argv[1]))
