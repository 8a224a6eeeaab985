"""The figures of docs/reliability.md that are about training and `prepare`: real kills, faults, signals; writes
results/reliability.json.

python benchmarks/reliability.py [NAME...] [--count N] [--seed S]
Each figure replaces its entry in the file and leaves the others. Exit 3 if a promise was not kept.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as the command line does
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "reliability"))

import faults
import processes
import refusals
import saves
import steps
import torch
from faults import Figure

from alexnet.core.runs import environment, read_json, write_json
from alexnet.data.prepare import prepare
from shared import make_photographs

RESULT = Path(__file__).resolve().parents[1] / "results" / "reliability.json"

FIGURES: dict[str, tuple[str, int, Callable[[Path, Path, int, int], Figure]]] = {
    "kills": (
        "kill -9 of a run at random moments: the end is the same to the byte, at most one interval is repeated",
        200,
        lambda data, folder, count, seed: processes.kills(data, folder, count, seed),
    ),
    "save-kills": (
        "kill at each system call of three saves that opens, writes, syncs, renames or deletes: old or new, whole",
        0,
        lambda _data, folder, _count, _seed: saves.kills(folder),
    ),
    "save-errors": (
        "ENOSPC, EIO, EACCES, EROFS, EDQUOT at each of them: one line, exit 1, the checkpoint before is whole",
        0,
        lambda _data, folder, _count, _seed: saves.errors(folder),
    ),
    "save-order": (
        "every rename of a save comes after the fsync of what is renamed and before that of its folder",
        0,
        lambda _data, folder, _count, _seed: saves.order(folder),
    ),
    "run-errors": (
        "the same errors at random calls of a run: one line or no harm, and the end is the same to the byte",
        100,
        lambda data, folder, count, seed: saves.run_errors(data, folder, count, seed),
    ),
    "disk-full": (
        "a disk too small, one that fills up, a limit of file size: one line, and it goes on to the same bytes",
        0,
        lambda data, folder, _count, seed: processes.full_disk(data, folder, seed),
    ),
    "fresh": (
        "--fresh refused in many ways, or dead before its first checkpoint: one line, the old run whole to the byte",
        0,
        lambda data, folder, _count, _seed: refusals.refusals(data, folder),
    ),
    "fresh-kills": (
        "kill at each rename of a --fresh: the old run is back to the byte, or the new one has a checkpoint",
        0,
        lambda data, folder, _count, _seed: refusals.replacements_killed(data, folder),
    ),
    "resume": (
        "resumed from every step of 40, with 0, 1, 2 and 4 readers: the same bytes in the same order",
        0,
        lambda data, folder, _count, _seed: steps.resumes(data, folder, (0, 1, 2, 4)),
    ),
    "names": (
        "a stopped run goes on from the same photographs under six other names: the same bytes, nothing prepared again",
        0,
        lambda _data, folder, _count, seed: steps.names(folder, seed),
    ),
    "sigterm": (
        "SIGTERM at random moments: exit 75 within a step and a save, nothing lost, nothing left behind",
        50,
        lambda data, folder, count, seed: processes.signals(data, folder, signal.SIGTERM, count, seed),
    ),
    "sigint": (
        "SIGINT at random moments: the same",
        50,
        lambda data, folder, count, seed: processes.signals(data, folder, signal.SIGINT, count, seed),
    ),
    "sigint-twice": (
        "a second SIGINT as soon as the first is answered: exit 130, at most one interval is lost",
        20,
        lambda data, folder, count, seed: processes.signals(data, folder, signal.SIGINT, count, seed, twice=True),
    ),
    "readers": (
        "a read that hangs, or meets a damaged image, at a random batch: named, saved, goes on to the same bytes",
        20,
        lambda data, folder, count, seed: processes.readers_lost(data, folder, count, seed),
    ),
    "workers": (
        "workers of prepare killed, crashed, ended, stopped: named, nothing left behind, the same set in the end",
        20,
        lambda _data, folder, count, seed: processes.workers_lost(folder, count, seed),
    ),
    "non-finite": (
        "a loss, an input, a gradient that is not finite at a random step: it stops there, and no file holds one",
        40,
        lambda data, folder, count, seed: steps.non_finite(data, folder, count, seed),
    ),
    "prepare-kills": (
        "kill -9 of prepare at random moments: the packed set is the same to the byte",
        50,
        lambda _data, folder, count, seed: processes.prepare_kills(folder, count, seed),
    ),
    "long-run": (
        "one process over 10,000 steps: growth of memory, open files, threads",
        10_000,
        lambda data, folder, count, _seed: processes.long_run(data, folder, count),
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(FIGURES))
    parser.add_argument("--count", type=int, help="how often, instead of as often as is published")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if unknown := set(options.names) - FIGURES.keys():
        parser.error(f"no such figure: {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    faults.CONTEXT.set_forkserver_preload(faults.PRELOADED)
    kept = True
    for name in options.names or FIGURES:
        what, count, measure = FIGURES[name]
        with tempfile.TemporaryDirectory(prefix="alexnet-reliability-") as folder:
            place = Path(folder)
            prepare(make_photographs(place / "photographs"), place / "data", size=36, workers=1)
            began = time.monotonic()
            with contextlib.redirect_stderr(io.StringIO()):  # of runs within this process
                figure = measure(place / "data", place, count if options.count is None else options.count, options.seed)
        record = {
            "promise": what,
            "n": figure.count,
            "failures": len(figure.failures),
            "failed": figure.failures[:20],
            "seconds": round(time.monotonic() - began, 1),
            "seed": options.seed,
            "details": figure.details,
            "command": f"python benchmarks/reliability.py {name}",
            "environment": environment(),
        }
        print(
            f"{name}: {figure.count} tried, {len(figure.failures)} failed, {record['seconds']:.0f} s {figure.details}"
        )
        for failure in figure.failures[:20]:
            print(f"  {failure}")
        kept = kept and not figure.failures
        known = read_json(RESULT) if RESULT.exists() else {}
        write_json(RESULT, known | {name: record})
    return 0 if kept else 3


if __name__ == "__main__":
    sys.exit(main())
