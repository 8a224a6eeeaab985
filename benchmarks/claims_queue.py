"""Run the experiments of the claims one after the other, in order of worth; stopped or killed, the same command goes on.

nice -n 19 python benchmarks/claims_queue.py --out runs/claims
python benchmarks/claims_queue.py --data PACKED --device cuda --minutes 9       # a GPU in slices

One thread, so that times are those of one core. The order is that of ROUNDS; of each experiment all arms are tuned, then one seed
of all is trained after the other. What was trained is kept at once as a file of its own, and never made again. PACKED is the
scale's data as `alexnet prepare` packs them. Exit 75 when time was up or it was stopped, 0 when all is there.
`python benchmarks/collect_claims.py OUT` publishes what is there so far.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from alexnet.claims.groups import EXPERIMENTS as KNOWN
from alexnet.claims.laboratory import open_laboratory
from alexnet.claims.runner import run_experiment
from alexnet.claims.scales import find_scale
from alexnet.claims.verdicts import sentence
from alexnet.core.device import Machine, choose_device
from alexnet.core.errors import StoppedError


@dataclass(frozen=True)
class Round:
    """Experiments and the seeds that they then have."""

    experiments: tuple[str, ...]
    seeds: int


WITH_A_VERDICT = (
    *(
        "overlap",
        "dropout",
        "towers",
        "crops",
        "tower-colors",
        "color-noise",
        "momentum",
        "weight-decay",
        "lrn",
        "depth",
    ),
    "biases",
)
"""Those that had results before every arm was tuned; those whose arms have one search before those that have two."""
FIGURE_1 = ("gradients-suited", "relu-tanh", "relu-sigmoid")
NEVER_RUN = (
    *("ensembles", "update-rule", "schedules", "lrn-successors", "lrn-places", "relu-successors", "max-average"),
    *("tower-meetings", "dropout-others", "dropout-kinds", "color-noise-size", "augmentation-mistuned"),
    *("initial-weights", "sgd-noise", "depth-for-width", "lrn-constants", "fine-tuning", "lrn-cifar10"),
)
QUESTIONS = ("random-crops",)
"""What the notes ask beyond the paper, after all others."""
ROUNDS = (
    Round(WITH_A_VERDICT, 5),
    Round(FIGURE_1, 5),
    Round(WITH_A_VERDICT, 10),
    Round(("overlap", "dropout", "towers", "color-noise", "lrn"), 21),
    Round(NEVER_RUN, 5),
    Round(NEVER_RUN, 10),
    Round(QUESTIONS, 5),
)
"""Some 40 hours of one core. The effects that are printed for the third group are small: 0.4 points for overlapping windows."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="runs/claims")
    parser.add_argument("--scale", default="cifar10-small")
    parser.add_argument("--data", help="packed set in the place of the scale's, at most 60 MB if it has to travel")
    parser.add_argument("--data-root", help="folder of the named sets")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--minutes", type=float, help="stop after so long; by default when all is there")
    parser.add_argument("--only", nargs="*", choices=KNOWN, metavar="EXPERIMENT", help="one round of these alone")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of --only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    scale = find_scale(options.scale)
    if options.data:
        network, four_layer = (replace(config, data=options.data) for config in (scale.network, scale.four_layer))
        scale = replace(scale, network=network, four_layer=four_layer)
    machine = Machine(device=choose_device(options.device), quiet=True, workers=1, resident=options.device != "cpu")
    lab = open_laboratory(scale.name, Path(options.out), machine, options.data_root)
    stop_when_asked(options.minutes)
    rounds = [Round(tuple(options.only), options.seeds)] if options.only else ROUNDS
    try:
        for turn in rounds:
            for name in turn.experiments:
                if not KNOWN[name].fits(scale.name):
                    continue
                for row in run_experiment(KNOWN[name], scale, range(turn.seeds), lab)["comparisons"]:
                    print(f"{row['claim']} {row['verdict']}: {sentence(row)}", flush=True)
    except StoppedError as stopped:
        print(stopped, file=sys.stderr)
        return 75
    return 0


def stop_when_asked(minutes: float | None) -> None:
    """Between two trainings, too, a signal ends this process as a person would; when time is up it sends itself one."""

    def stop(*_: object) -> None:
        raise StoppedError("stopped between two trainings; the same command goes on")

    signal.signal(signal.SIGTERM, stop)
    if minutes is not None:
        timer = threading.Timer(60 * minutes, os.kill, (os.getpid(), signal.SIGTERM))
        timer.daemon = True
        timer.start()


if __name__ == "__main__":
    sys.exit(main())
