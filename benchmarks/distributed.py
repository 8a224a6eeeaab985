"""The loss curves of the same run in one process and on several ranks, as a picture and a result file.

alexnet train paper2012_photos --train-images 3200 --epochs 3 --precision float32 --views 1 --out runs/one
torchrun --nproc-per-node 2 -m alexnet train paper2012_photos --train-images 3200 --epochs 3 --precision float32 --views 1 \\
    --layout towers --out runs/towers
python benchmarks/distributed.py runs/one runs/towers ...   (writes results/distributed.json, docs/pictures/distributed.png)
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from alexnet.core.config import differences
from alexnet.core.runs import read_json, write_json
from alexnet.report.tables import read_log

mpl.use("Agg")
import matplotlib.pyplot as plt  # after the backend is chosen

ROOT = Path(__file__).resolve().parents[1]


def losses(run: Path) -> np.ndarray:
    return np.array(read_log(run / "log.jsonl").steps["loss"])


def document(run: Path, alone: Path) -> dict[str, Any]:
    """What the ranks held and sent, and how far the run is from the one of one process."""
    train, log = read_json(run / "config.json")["train"], read_log(run / "log.jsonl")
    final = read_json(run / "results" / "final-center.json")
    ours, theirs = losses(run), losses(alone)
    apart = np.abs(ours - theirs) / theirs
    return {
        "recipe": train["recipe"],
        "precision": train["precision"],
        "seed": train["seed"],
        "batch_size": train["batch_size"],
        "steps": len(ours),
        "losses": ours.round(6).tolist(),
        "relative_difference_of_losses": {
            "first": float(apart[0]),
            "median": float(np.median(apart)),
            "largest": float(apart.max()),
        },
        "epochs": [{k: row[k] for k in ("train_loss", "val_loss", "val_top1_errors", "val_n")} for row in log.epochs],
        "final": {k: final[k] for k in ("n", "top1_errors", "top5_errors", "loss_nats")},
        "ranks": read_json(run / "ranks.json") if (run / "ranks.json").is_file() else None,
        "environment": {k: v for k, v in read_json(run / "environment.json").items() if k != "command"},
    }


def draw(runs: list[Path], names: list[str]) -> None:
    figure, axes = plt.subplots(figsize=(7.5, 3))
    for i, (run, name) in enumerate(zip(runs, names, strict=True)):
        style = (
            {"color": "0.75", "linewidth": 4} if i == 0 else {"linewidth": 1.2, "linestyle": ("-", "--", ":")[i % 3]}
        )
        axes.plot(np.arange(1, len(losses(run)) + 1), losses(run), label=name, **style)
    axes.set(xlabel="step", ylabel="loss, nats")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(ROOT / "docs" / "pictures" / "distributed.png", dpi=110)


def main(runs: list[Path]) -> None:
    first = read_json(runs[0] / "config.json")["train"]
    for run in runs[1:]:
        if changed := differences(first, read_json(run / "config.json")["train"]):
            raise SystemExit(f"{run} differs from {runs[0]} in {', '.join(changed)}; they must be the same run")
    documents = [document(run, runs[0]) for run in runs]
    names = [
        "one process" if d["ranks"] is None else f"{len(d['ranks']['ranks'])} ranks, {d['ranks']['layout']}"
        for d in documents
    ]
    write_json(ROOT / "results" / "distributed.json", {"runs": dict(zip(names, documents, strict=True))})
    draw(runs, names)
    for name, d in zip(names, documents, strict=True):
        print(f"{name}: final loss {d['losses'][-1]:.4f}, losses apart {d['relative_difference_of_losses']}")


if __name__ == "__main__":
    main([Path(run) for run in sys.argv[1:]])
