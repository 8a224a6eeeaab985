"""The signal check on set-ups that are known to learn and known to fail: writes results/signal-check.json.

python benchmarks/signal_check.py [DATA]
"""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from alexnet.core.preprocessing import Preprocessing
from alexnet.core.runs import environment, write_json
from alexnet.data.prepare import resolve
from alexnet.data.transforms import apply_crops
from alexnet.recipes import IMAGENET_MEAN, IMAGENET_STD, code2012, modern, owt, paper2012
from alexnet.training.trainer import network
from alexnet.training.watchdog import signal_check, signal_warning

IMAGES = 64


def main(data: str) -> None:
    packed = resolve(data, size=256)
    index = np.linspace(0, len(packed.split("train")) - 1, IMAGES).astype(np.int64)
    pixels = torch.from_numpy(packed.split("train").read(index))
    mean = torch.from_numpy(packed.mean)
    unit = Preprocessing(mean="channel", channel_mean=IMAGENET_MEAN, std=IMAGENET_STD)
    setups = {
        "paper2012": paper2012(),
        "paper2012 on input of unit deviation": replace(paper2012(), preprocessing=unit),
        "code2012": code2012(),
        "modern": modern(),
        "owt": owt(),
    }
    rows = []
    for name, config in setups.items():
        start = torch.full((IMAGES,), (config.preprocessing.resize - config.preprocessing.crop) // 2)
        x = apply_crops(pixels, start, start, torch.zeros(IMAGES, dtype=torch.bool), config.preprocessing, mean)
        signals = signal_check(network(config, len(packed.classes)), x)
        warning = signal_warning(signals, float(x.std()))
        rows.append({"setup": name, "layers": [asdict(s) for s in signals], "warning": warning})
        print(f"{name}: logits differ by {signals[-1].spread:.1e} of their size; {'warns' if warning else 'fine'}")
    out = Path(__file__).resolve().parents[1] / "results" / "signal-check.json"
    write_json(out, {"data": data, "n": IMAGES, "seed": 0, "environment": environment(), "setups": rows})


if __name__ == "__main__":
    main(*(sys.argv[1:] or ["shapes"]))
