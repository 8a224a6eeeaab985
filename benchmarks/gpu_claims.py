"""Claims on a GPU in slices: for so many minutes, then stop with a checkpoint; the same command goes on from the results.

python benchmarks/gpu_claims.py PACKED --minutes 9 --out runs/claims      # PACKED: CIFAR-10 as `alexnet prepare` packs it

The experiments are those of EXPERIMENTS, in this order, one seed of all after the other, so that whenever it is stopped most
have equally many pairs. Exit 75 when time was up, 0 when all is there.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path

from alexnet.claims.groups import EXPERIMENTS as KNOWN
from alexnet.claims.laboratory import open_laboratory
from alexnet.claims.runner import run_experiment
from alexnet.claims.scales import find_scale
from alexnet.claims.verdicts import sentence
from alexnet.core.device import Machine, choose_device
from alexnet.core.errors import StoppedError

EXPERIMENTS = (
    *("lrn", "overlap", "towers", "dropout", "weight-decay", "crops", "color-noise", "biases", "momentum", "depth"),
    *("tower-colors", "relu-tanh", "max-average", "lrn-successors", "tower-meetings", "dropout-kinds", "schedules"),
    *(
        "initial-weights",
        "lrn-constants",
        "lrn-places",
        "color-noise-size",
        "dropout-others",
        "update-rule",
        "sgd-noise",
    ),
    *("augmentation-mistuned", "depth-for-width", "relu-sigmoid", "relu-successors", "lrn-cifar10"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packed", help="packed set, at most 60 MB if it has to travel")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--out", default="runs/claims")
    parser.add_argument("--scale", default="cifar10")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only", nargs="*", default=EXPERIMENTS, help="experiments")
    options = parser.parse_args()
    scale = find_scale(options.scale)
    scale = replace(
        scale,
        network=replace(scale.network, data=options.packed),
        four_layer=replace(scale.four_layer, data=options.packed),
    )
    machine = Machine(device=choose_device(options.device), quiet=True, resident=True)
    lab = open_laboratory(scale.name, Path(options.out), machine)
    stop_after(60 * options.minutes)
    try:
        for seeds in range(1, options.seeds + 1):
            for name in options.only:
                document = run_experiment(KNOWN[name], scale, range(seeds), lab)
                if seeds == options.seeds:
                    for row in document["comparisons"]:
                        print(f"{row['claim']} {row['verdict']}: {sentence(row)}", flush=True)
    except StoppedError as stopped:
        print(stopped, file=sys.stderr)
        return 75
    return 0


def stop_after(seconds: float) -> None:
    """Ask this process to stop as a person would: a training saves a checkpoint and ends."""

    def stop(*_: object) -> None:
        raise StoppedError("time is up between two trainings; the same command goes on")

    signal.signal(signal.SIGTERM, stop)
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGTERM))
    timer.daemon = True
    timer.start()


if __name__ == "__main__":
    sys.exit(main())
