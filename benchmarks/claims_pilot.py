"""What a scale is like before anything is compared on it: error, gap, spread and cost of the unchanged recipe, five seeds.

nice -n 19 python benchmarks/claims_pilot.py --out runs/claims     # writes results/claims/pilot-SCALE.json
nice -n 19 python benchmarks/claims_pilot.py --scale imagenette --steps 3      # results/claims/steps-SCALE.json

With ``--steps`` it times so many training steps instead, on random pixels, where whole runs take hours: what one would take.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch

from alexnet.bench import rates
from alexnet.claims.experiment import Arm
from alexnet.claims.laboratory import open_laboratory
from alexnet.claims.measures import center_error, gap, training_error
from alexnet.claims.scales import Scale, find_scale
from alexnet.core.device import Machine
from alexnet.core.runs import environment, read_json, write_json
from alexnet.training.trainer import network

CPU = torch.device("cpu")
CLASSES, PHOTOGRAPHS = 10, 6_300
"""Of Imagenette, for training: a tenth is held out for choices."""
ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", default="cifar10-small")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", default="runs/claims")
    parser.add_argument("--data-root", help="folder of the named sets")
    parser.add_argument("--steps", type=int, help="time so many training steps")
    options = parser.parse_args()
    torch.set_num_threads(1)
    machine = Machine(device=CPU, quiet=True, workers=1)
    scale, notes = find_scale(options.scale).on(machine.device)
    if options.steps:
        time_steps(scale, options.steps)
        return
    lab = open_laboratory(scale.name, Path(options.out), machine, options.data_root, notes)
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


def time_steps(scale: Scale, steps: int) -> None:
    """CPU seconds of training steps of the unchanged recipe, without decoding and validation, and of the steps of a whole run."""
    config = scale.network
    x_BCHW, label_B = rates.random_batch(config.batch_size, config.preprocessing.crop, 3, CLASSES, CPU)
    step = rates.training_step(network(config, CLASSES), CPU, config.precision)
    step(x_BCHW, label_B)
    seconds = []
    for _ in range(steps):
        before = time.process_time()
        step(x_BCHW, label_B)
        seconds.append(round(time.process_time() - before, 2))
        print(seconds[-1], flush=True)
    steps_a_run = config.epochs * math.ceil(PHOTOGRAPHS / config.batch_size)
    found = {"cpu_seconds_a_step": seconds, "steps_a_run": steps_a_run, "cpu_seconds_a_run": min(seconds) * steps_a_run}
    about = {"scale": scale.name, "says": scale.says, "precision": config.precision, "batch_size": config.batch_size}
    write_json(ROOT / "results" / "claims" / f"steps-{scale.name}.json", about | found | {"environment": environment()})


if __name__ == "__main__":
    main()
