"""What trained layers are worth on a few hundred photographs of your own: writes results/transfer.json.

python benchmarks/transfer.py PHOTOS WEIGHTS [--seeds 5] [--draws 10] [--from-scratch 3] [--out results/transfer.json]
    [--picture docs/pictures/transfer.png]

PHOTOS holds train/CLASS and val/CLASS (published: 800 + 290 photographs of clothing, CC0), WEIGHTS torchvision's convolutions.
`train-SEED` is the whole of `alexnet train PHOTOS`. `few` is a last layer fitted to 20, 10, 5 and 1 images of each class, drawn
anew, beside a plain program on the same draws: Pillow, torch's layers, and scikit-learn's ridge on pool5 of whole pictures at
400 x 533 pixels. `scratch` is what `alexnet train` makes of the first of these draws where no trained weights are in the cache.
`neighbors` asks the nearest training image by cosine and by Euclidean distance. Parts that are in the file already are not made
again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from alexnet.core import rng
from alexnet.core.device import Machine
from alexnet.core.intervals import wilson
from alexnet.core.runs import environment, write_json
from alexnet.data.packed import PackedSet
from alexnet.recipes.auto import train_photos
from alexnet.recipes.pretrained import configured, train_from
from alexnet.recipes.run import open_data
from alexnet.training.config import TrainConfig
from alexnet.training.head import fit_head, frozen_features
from alexnet.training.initial import Initial, load_initial

PER_CLASS = (20, 10, 5, 1)
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
Matrix = NDArray[np.float32]
Labels = NDArray[np.int64]


def rate(errors: int, n: int) -> dict[str, Any]:
    low, high = wilson(errors, n)
    return {"errors": errors, "n": n, "error": errors / n, "low": low, "high": high}


def trained(config: TrainConfig, data: PackedSet, initial: Initial, machine: Machine, seed: int) -> dict[str, Any]:
    """The whole job with one seed, in a folder of its own that goes on where it was stopped."""
    out, start, busy = Path("runs") / f"transfer-seed-{seed}", time.perf_counter(), time.process_time()
    summary = train_from(replace(config, seed=seed), out, machine, data=data, initial=initial, resume=True)
    errors = summary["views"]["1"]
    return {
        "seed": seed,
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - busy,
        "head": rate(summary["head"]["top1_errors"], summary["head"]["n"])
        | {"loss_nats": summary["head"]["loss_nats"]},
        "final": rate(errors["top1_errors"], errors["n"]) | {"loss_nats": errors["loss_nats"]},
        "trial": summary.get("trial"),
    }


def plain_network(initial: Initial) -> nn.Sequential:
    """torchvision's convolutions, written out."""
    sizes = ((3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1))
    layers: list[nn.Module] = []
    for i, (before, after, kernel, stride, padding) in enumerate(sizes, 1):
        conv = nn.Conv2d(before, after, kernel, stride, padding)
        conv.load_state_dict({name: initial.tensors[f"conv{i}.{name}"] for name in ("weight", "bias")})
        layers += [conv, nn.ReLU(), *([nn.MaxPool2d(3, 2)] if i in (1, 2, 5) else [])]
    return nn.Sequential(*layers).eval()


def plain_features(network: nn.Module, files: list[Path]) -> Matrix:
    """pool5 averaged to 6 x 6, of whole pictures at 400 x 533 pixels, upright or lying."""
    rows = []
    for file in files:
        image = Image.open(file).convert("RGB")
        size = (400, 533) if image.height >= image.width else (533, 400)
        pixels_HWC = torch.from_numpy(np.array(image.resize(size, Image.Resampling.BILINEAR))).float() / 255
        with torch.inference_mode():
            maps = network(((pixels_HWC - MEAN) / STD).permute(2, 0, 1)[None])
            rows.append(F.adaptive_avg_pool2d(maps, 6).flatten().numpy())
    return np.stack(rows)


def few(row: dict[str, Any], draws: int) -> list[dict[str, Any]]:
    """Errors of both on the same draws."""
    from sklearn.linear_model import RidgeClassifierCV

    found = []
    for per_class in PER_CLASS:
        ours, plain = [], []
        for seed in range(draws):
            few_N = rng.rank_in_class(row["label_N"], seed, "benchmark/few") < per_class
            head = fit_head(row["ours_NVD"][few_N], row["label_N"][few_N], row["classes"], seed=seed)
            logits_MK = torch.from_numpy(row["ours_MD"]).double() @ head.weight_KD.T + head.bias_K
            ours.append(int((logits_MK.argmax(1).numpy() != row["label_M"]).sum()))
            ridge = RidgeClassifierCV(alphas=np.logspace(0, 6, 13)).fit(row["plain_ND"][few_N], row["label_N"][few_N])
            plain.append(int((ridge.predict(row["plain_MD"]) != row["label_M"]).sum()))
        n = len(row["label_M"])
        difference = np.subtract(ours, plain) / n
        found.append(
            {
                "images_per_class": per_class,
                "errors": ours,
                "plain_errors": plain,
                "n": n,
                "error": float(np.mean(ours)) / n,
                "plain_error": float(np.mean(plain)) / n,
                "difference": float(difference.mean()),
                "difference_standard_error": float(difference.std(ddof=1) / np.sqrt(draws)),
            }
        )
    return found


def scratch(photos: Path, data: PackedSet, per_class: int, draw: int, machine: Machine) -> dict[str, Any]:
    """A network that begins with random weights, planned as `alexnet train PHOTOS` plans it, on one of the draws."""
    split = data.split("train")
    few_N = rng.rank_in_class(np.asarray(split.labels, dtype=np.int64), draw, "benchmark/few") < per_class
    drawn, cache = Path("drawn") / f"{per_class}-{draw}", os.environ.get("ALEXNET_CACHE")
    for path in np.asarray(split.paths)[few_N]:
        (drawn / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photos / path, drawn / path)
    shutil.copytree(photos / data.held_out, drawn / data.held_out, dirs_exist_ok=True)
    start = time.perf_counter()
    os.environ["ALEXNET_CACHE"] = "no-weights"
    try:
        summary = train_photos(drawn, Path("runs") / f"scratch-{per_class}-{draw}", machine=machine)
    finally:
        os.environ.pop("ALEXNET_CACHE")
        if cache is not None:
            os.environ["ALEXNET_CACHE"] = cache
    errors = summary["views"]["1"]
    return rate(errors["top1_errors"], errors["n"]) | {"seconds": time.perf_counter() - start}


def picture(result: dict[str, Any], file: Path) -> None:
    """The error against the photographs of a class: mean and range of the draws."""
    figure = Figure(figsize=(6.5, 3.6), dpi=150, layout="constrained")
    axes = figure.subplots()
    n = result["few"][0]["n"]
    scratch_errors = {
        per_class: [result[name]["errors"] for name in result if name.startswith(f"scratch-{per_class}-")]
        for per_class in PER_CLASS
    }
    lines = (
        ("from random weights", {k: errors for k, errors in scratch_errors.items() if errors}, "#555555", "v", ":"),
        (
            "plain program on torchvision's layers",
            {row["images_per_class"]: row["plain_errors"] for row in result["few"]},
            "#d55e00",
            "s",
            "--",
        ),
        (
            "alexnet, last layer fitted",
            {row["images_per_class"]: row["errors"] for row in result["few"]},
            "#0072b2",
            "o",
            "-",
        ),
    )
    for label, errors, color, marker, dash in lines:
        x, rows = list(errors), [np.asarray(of, np.float64) / n * 100 for of in errors.values()]
        draws = f"{len(rows[0])} draw{'s' * (len(rows[0]) > 1)}"
        axes.plot(x, [row.mean() for row in rows], dash, color=color, marker=marker, label=f"{label} ({draws})")
        axes.fill_between(x, [row.min() for row in rows], [row.max() for row in rows], color=color, alpha=0.15, lw=0)
    axes.set_xscale("log")
    axes.set_xticks(PER_CLASS, [str(k) for k in PER_CLASS], minor=False)
    axes.minorticks_off()
    axes.set(xlabel="photographs of a class", ylabel="top-1 error, %", ylim=(0, 100))
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file)


def neighbors(row_ND: Matrix, label_N: Labels, row_MD: Matrix, label_M: Labels) -> dict[str, Any]:
    """Whether the nearest training image is of the same class."""
    found = {}
    for metric in ("cosine", "euclidean"):
        a, b = (torch.from_numpy(rows).double() for rows in (row_MD, row_ND))
        if metric == "cosine":
            a, b = F.normalize(a), F.normalize(b)
        nearest_M = torch.cdist(a, b).argmin(1).numpy()
        found[metric] = rate(int((label_N[nearest_M] != label_M).sum()), len(label_M))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos")
    parser.add_argument("weights")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--from-scratch", type=int, default=3, help="draws that a network is trained on from scratch")
    parser.add_argument("--picture", type=Path, help="draw the error against the photographs of a class here, and end")
    parser.add_argument("--out", type=Path, default=Path("results/transfer.json"))
    arguments = parser.parse_args()
    if arguments.picture is not None:
        picture(json.loads(arguments.out.read_text()), arguments.picture)
        return
    initial, machine = load_initial(arguments.weights), Machine(device=torch.device("cpu"))
    config = replace(configured(initial), data=arguments.photos)
    data = open_data(config)
    result: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}

    def part(name: str, make: Callable[[], Any]) -> None:
        if name not in result:
            result[name] = make()
            write_json(arguments.out, result | {"environment": environment(), "threads": torch.get_num_threads()})

    part(
        "data",
        lambda: {
            "classes": len(data.classes),
            "train": len(data.split("train")),
            "val": len(data.split(data.held_out)),
        },
    )
    held_out = replace(data, splits={"train": data.split(data.held_out)})
    image_N, image_M = (np.arange(len(one.split("train"))) for one in (data, held_out))

    def features() -> dict[str, Any]:
        network = plain_network(initial)
        root = Path(arguments.photos)
        files_N, files_M = ([root / path for path in one.split("train").paths] for one in (data, held_out))
        return {
            "classes": len(data.classes),
            "label_N": np.asarray(data.split("train").labels, dtype=np.int64),
            "label_M": np.asarray(held_out.split("train").labels, dtype=np.int64),
            "ours_NVD": frozen_features(config, data, initial, image_N, machine),
            "ours_MD": frozen_features(config, held_out, initial, image_M, machine, views=1)[:, 0],
            "plain_ND": plain_features(network, files_N),
            "plain_MD": plain_features(network, files_M),
        }

    if not {"few", "neighbors"} <= result.keys():
        row = features()
        part("few", lambda: few(row, arguments.draws))
        part(
            "neighbors",
            lambda: neighbors(row["ours_NVD"][:, 0], row["label_N"], row["ours_MD"], row["label_M"]),
        )
    for draw in range(arguments.from_scratch):
        for per_class in PER_CLASS:
            make = partial(scratch, Path(arguments.photos), data, per_class, draw, machine)
            part(f"scratch-{per_class}-{draw}", make)
    for seed in range(arguments.seeds):
        part(f"train-{seed}", partial(trained, config, data, initial, machine, seed))


if __name__ == "__main__":
    main()
