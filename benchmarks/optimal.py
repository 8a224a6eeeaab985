"""How long a sheet of eight images that units want takes, and how far the ascent comes: writes results/optimal.json.

The command as a user gives it, with its default settings, as the time on the clock and as the processor time of all its threads
(which a busy machine changes little); and the sum of the activations that other numbers of steps and momenta reach.

python benchmarks/optimal.py MODEL [--layer conv5] [--channels 0-7] [--times 3] [--out results/optimal.json]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from alexnet.core.runs import environment, read_json, write_json
from alexnet.evaluation.layers import find_layers
from alexnet.evaluation.predict import load
from alexnet.probes import optimal

OTHERS = ((48, 0.1, 0.9), (36, 0.1, 0.9), (36, 0.15, 0.5), (28, 0.2, 0.5), (24, 0.2, 0.5))
"""Steps, learning rate and momentum."""


def timed(arguments: list[str], times: int) -> dict[str, Any]:
    """A command of `alexnet`, so many times: seconds on the clock and of the processor, the best first."""
    rows = []
    for _ in range(times):
        before, start = os.times(), time.perf_counter()
        subprocess.run([sys.executable, "-m", "alexnet", *arguments], check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        rows.append({"seconds": time.perf_counter() - start, "processor_seconds": used, "load": os.getloadavg()[0]})
    return {"runs": sorted(rows, key=lambda row: row["seconds"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--layer", default="conv5")
    parser.add_argument("--channels", default="0-7")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("results/optimal.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        given = [options.model, "--layer", options.layer, "--channels", options.channels, "--out", f"{folder}/probe"]
        command = timed(["probe", "optimal", *given], options.times)
        document = read_json(Path(folder) / "probe" / "optimal.json")
    channels = [row["channel"] for row in document["layers"][0]["channels"]]
    predictor, reached = load(options.model), []
    (layer,) = find_layers(predictor.model, [options.layer])
    for steps, optimal.RATE, optimal.MOMENTUM in OTHERS:
        start = time.process_time()
        found = optimal.optimal_images(predictor, layer, channels, steps=steps)
        best = [float(optimum.activation_T[0]) for optimum in found]
        about = {"steps": steps, "rate": optimal.RATE, "momentum": optimal.MOMENTUM}
        about |= {"processor_seconds": time.process_time() - start, "sum": sum(best), "activations": best}
        reached.append(about)
        print(f"{steps} steps, rate {optimal.RATE}, momentum {optimal.MOMENTUM}: {sum(best):.0f}", flush=True)
    result = {
        "network": document["network"],
        "model": document["model"],
        "layer": options.layer,
        "channels": channels,
        "starts": document["settings"]["starts"],
        "help": timed(["probe", "optimal", "--help"], options.times),
        "sheet": command | {"sum": document["layers"][0]["sum"]},
        "ascents": reached,
        "environment": environment(),
    }
    write_json(options.out, result)
    print(command)


if __name__ == "__main__":
    main()
