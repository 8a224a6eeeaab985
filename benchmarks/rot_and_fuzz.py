"""Rot and fuzzing with fixed seeds, counted: writes results/rot.json and results/fuzz.json. Some four minutes on one core.

Rot: 1,000 flipped bits and 200 cuts over the files of a packed set, of pixels and of JPEG records; 500 and 100 over checkpoints
and over model folders; lost blocks, missing and misplaced files. Fuzzing: 20,000 mutated images, 100,000 whose checksums stay
right, 5,000 headers of weights, packed sets, checkpoints, results and published sets, 500 CSV lists. With --atheris, the ends of
the logs of ten-minute runs (FOLDER/NAME.log, see fuzz/README.md) are recorded as well.

python benchmarks/rot_and_fuzz.py [--seed 2012] [--atheris FOLDER] [--out results]
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "fuzz"))

from alexnet.core.runs import environment, write_json  # noqa: E402
from rot import Tally, rot_checkpoint, rot_model, rot_packed  # noqa: E402
from targets import CASES, TARGETS  # noqa: E402

ROTTEN: dict[str, Callable[[Path, int], Tally]] = {
    "packed set, pixels": lambda folder, seed: rot_packed(folder, "pixels", 1000, 200, seed, blocks=20),
    "packed set, JPEG records": lambda folder, seed: rot_packed(folder, "jpeg", 1000, 200, seed, blocks=20),
    "checkpoints": lambda folder, seed: rot_checkpoint(folder, 500, 100, seed, blocks=20),
    "model folders": lambda folder, seed: rot_model(folder, 500, 100, seed, blocks=20),
}


def rot(seed: int) -> dict[str, Any]:
    rows = {}
    for name, run in ROTTEN.items():
        with tempfile.TemporaryDirectory(dir=memory()) as folder:
            tally = run(Path(folder), seed)
        rows[name] = tally.summary() | {"faults": tally.faults[:20]}
        print(name, rows[name], file=sys.stderr)
    return rows


def fuzz(seed: int) -> dict[str, Any]:
    rows = {}
    for name, count in CASES.items():
        with tempfile.TemporaryDirectory(dir=memory()) as folder:
            target = TARGETS[name](Path(folder))
            start, used = time.perf_counter(), time.process_time()
            done = target.campaign(count, seed)
            seconds = {"seconds": time.perf_counter() - start, "processor_seconds": time.process_time() - used}
        rows[name] = done.summary() | seconds | {"seeds_to_start_from": len(target.seeds)}
        rows[name]["what"] = [text for text, _ in done.faults[:20]]
        print(name, rows[name], file=sys.stderr)
    return rows


def atheris(folder: Path) -> dict[str, Any]:
    """What libFuzzer says at the end of each log."""
    rows: dict[str, Any] = {}
    for log in sorted(folder.glob("*.log")):
        text = log.read_text(errors="replace")
        done = re.search(r"Done (\d+) runs in (\d+) second", text)
        lines = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", text)
        peak = re.search(r"stat::peak_rss_mb:\s+(\d+)", text)
        slowest = re.search(r"stat::slowest_unit_time_sec:\s+(\d+)", text)
        rows[log.stem] = {
            "runs": int(done[1]) if done else None,
            "seconds": int(done[2]) if done else None,
            "edges": int(lines[-1][0]) if lines else None,
            "peak_mb": int(peak[1]) if peak else None,
            "slowest_seconds": int(slowest[1]) if slowest else None,
            "crashes": len(re.findall(r"SUMMARY: libFuzzer|Uncaught Python exception", text)),
        }
    return rows


def memory() -> str | None:
    """Where files are synced fast, if there is such a place."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=2012)
    parser.add_argument("--atheris", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    about = {"seed": options.seed, "environment": environment()}
    write_json(options.out / "rot.json", {**about, "rows": rot(options.seed)})
    found: dict[str, Any] = {**about, "rows": fuzz(options.seed)}
    if options.atheris is not None:
        found["atheris"] = atheris(options.atheris)
    write_json(options.out / "fuzz.json", found)


if __name__ == "__main__":
    main()
