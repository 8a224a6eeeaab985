"""Collect the final errors of finished runs into one file of results/, with machine, versions and protocol.

python benchmarks/collect.py NAME RUN...
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from alexnet.core.config import fingerprint
from alexnet.core.runs import read_json, sha256_file, write_json

RESULT_KEYS = ("n", "top1_errors", "top5_errors", "top1_error", "top5_error", "views", "loss_nats", "protocol")


def collect(run: Path) -> dict[str, Any]:
    """What a run was, and what came out."""
    config = read_json(run / "config.json")
    train = config["train"]
    results = {
        path.stem.removeprefix("final-"): read_json(path) for path in sorted((run / "results").glob("final-*.json"))
    }
    epochs = [line for line in (run / "summary.csv").read_text().splitlines()[1:] if line]
    return {
        "recipe": train["recipe"],
        "network": train["network"],
        "seed": train["seed"],
        "epochs": train["epochs"],
        "batch_size": train["batch_size"],
        "precision": train["precision"],
        "train_images": train["train_images"],
        "data_fingerprint": config["data"]["fingerprint"],
        "config_fingerprint": fingerprint(train),
        "weights_sha256": sha256_file(run / "model" / "model.safetensors"),
        "environment": {k: v for k, v in read_json(run / "environment.json").items() if k != "command"},
        "epochs_finished": len(epochs),
        "results": {name: {key: result[key] for key in RESULT_KEYS} for name, result in results.items()},
    }


if __name__ == "__main__":
    name, *runs = sys.argv[1:]
    out = Path(__file__).resolve().parents[1] / "results" / f"{name}.json"
    write_json(out, {"runs": [collect(Path(run)) for run in runs]})
    print(out)
