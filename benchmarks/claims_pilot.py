"""What a scale is like before anything is compared on it: error, gap, spread and cost of the unchanged recipe, five seeds.

nice -n 19 python benchmarks/claims_pilot.py --out runs/claims     # writes results/claims/pilot-SCALE.json
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch

from alexnet.claims.experiment import Arm
from alexnet.claims.laboratory import open_laboratory
from alexnet.claims.measures import center_error, gap, training_error
from alexnet.claims.scales import find_scale
from alexnet.core.device import Machine
from alexnet.core.runs import environment, read_json, write_json

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", default="cifar10-small")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", default="runs/claims")
    parser.add_argument("--data-root", help="folder of the named sets")
    options = parser.parse_args()
    torch.set_num_threads(1)
    scale, machine = find_scale(options.scale), Machine(device=torch.device("cpu"), quiet=True, workers=1)
    lab = open_laboratory(scale.name, Path(options.out), machine, options.data_root)
    lab.open_data(scale.network)
    file = ROOT / "results" / "claims" / f"pilot-{scale.name}.json"
    runs = read_json(file)["runs"] if file.exists() else []
    for seed in range(len(runs), options.seeds):
        before = time.process_time()
        result = lab.result(Arm(name="base"), replace(scale.network, seed=seed))
        runs.append(
            {
                "seed": seed,
                "error": center_error(result),
                "training_error": training_error(result),
                "gap": round(gap(result), 6),
                "cpu_seconds": round(time.process_time() - before, 1),
            }
        )
        summary = {
            name: {
                "mean": statistics.mean(run[name] for run in runs),
                "std": statistics.stdev(run[name] for run in runs) if len(runs) > 1 else None,
            }
            for name in ("error", "training_error", "gap", "cpu_seconds")
        }
        about = {"scale": scale.name, "says": scale.says, "test_images": result["n"], "train_images": result["n_train"]}
        write_json(file, about | {"summary": summary, "runs": runs, "environment": environment()})
        print(runs[-1], flush=True)


if __name__ == "__main__":
    main()
