"""The pictures of the README, of docs/claims.md and of docs/learn/: examples of the drawn set, the curves and kernels of a run,
figure 1, the windows of conv1, where parameters and arithmetic are, masks of dropout.

python benchmarks/pictures.py [RUN]    (a finished run; writes docs/pictures/)
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image

from alexnet.claims.results import Results
from alexnet.core.rng import DropoutDraw, dropout_keep
from alexnet.core.runs import read_json
from alexnet.data.builtin import CLASSES, draw_picture
from alexnet.models import create_model
from alexnet.models.summary import summarize
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


def windows() -> None:
    """The last windows of conv1 along a row of 224 pixels: 11 wide, 4 apart, the 55th 3 pixels over the edge."""
    figure, axes = plt.subplots(figsize=(7.5, 2.4))
    for x in range(188, 227):
        axes.add_patch(
            plt.Rectangle(
                (x, 0), 1, 1, facecolor="0.85" if x < 224 else "white", edgecolor="white" if x < 224 else "0.6"
            )
        )
    for n in range(48, 55):
        left, row = 4 * n, 1.4 + (54 - n)
        axes.add_patch(plt.Rectangle((left, row), 11, 0.7, facecolor="C1" if n == 54 else "C0", alpha=0.8))
        axes.text(
            left - 0.5, row + 0.35, f"window {n + 1}: pixels {left} to {left + 10}", ha="right", va="center", fontsize=8
        )
    axes.axvline(224, color="0.2", linewidth=1)
    axes.text(224.3, -0.6, "three zeros", fontsize=8, va="center")
    axes.text(223.7, -0.6, "pixels 0 to 223 of the image", ha="right", fontsize=8, va="center")
    axes.set(xlim=(168, 230), ylim=(-1, 9))
    axes.axis("off")
    figure.tight_layout()
    figure.savefig(OUT / "windows.png", dpi=110)


def parameters() -> None:
    """The share of each layer in the parameters and in the multiply-adds of the paper's network."""
    stages = [stage for stage in summarize(create_model("alexnet_2012")) if stage.parameters]
    figure, axes = plt.subplots(figsize=(7.5, 2.6))
    for what, shift in (("parameters", -0.2), ("multiply_adds", 0.2)):
        values = np.array([getattr(stage, what) for stage in stages])
        bars = axes.bar(np.arange(len(stages)) + shift, 100 * values / values.sum(), 0.4, label=what.replace("_", "-"))
        axes.bar_label(bars, fmt="%.1f", fontsize=7)
    axes.set_xticks(range(len(stages)), [stage.name for stage in stages])
    axes.set(ylabel="share, %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(OUT / "parameters.png", dpi=110)


def dropout() -> None:
    """Which of the first units of fc6 stay, for the same 24 images in two passes."""
    figure, axes = plt.subplots(1, 2, figsize=(7.5, 2.4))
    for epoch, ax in enumerate(axes):
        kept = dropout_keep(DropoutDraw(0, epoch, np.arange(24)), "fc6", 64, 0.5, torch.device("cpu"))
        ax.imshow(kept, cmap="Blues", vmin=0, vmax=1.4, aspect="auto", interpolation="nearest")
        ax.set(
            title=f"pass {epoch + 1}: {100 * kept.float().mean():.0f} % stay", xlabel="units of fc6", ylabel="images"
        )
        ax.tick_params(length=0)
    figure.tight_layout()
    figure.savefig(OUT / "dropout.png", dpi=110)


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    shapes()
    figure_1()
    windows()
    parameters()
    dropout()
    if len(sys.argv) > 1:
        training(Path(sys.argv[1]))
