"""How wrong invocations and odd surroundings are answered: writes results/invocations.json.

python benchmarks/invocations.py            as root, for the read-only folder
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "reliability"))

import surroundings  # noqa: E402
import wrong_invocations  # noqa: E402
from wrong_invocations import WRONG, Answer, build_world, faults_of, own_words  # noqa: E402

from alexnet.cli import VERBS  # noqa: E402
from alexnet.core.runs import environment, write_json  # noqa: E402


def invocations(world: Path) -> dict[str, object]:
    python = [sys.executable, wrong_invocations.__file__, str(world)]
    done = subprocess.run(
        python, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True
    )
    answers = [Answer(**fields) for fields in json.loads(done.stdout)]
    pairs = list(zip(WRONG, answers, strict=True))
    seconds = sorted(got.wall_seconds for got in answers)
    longest = max(pairs, key=lambda pair: len(own_words(pair[1].err.splitlines()[-1], pair[0].arguments)))
    return {
        "n": len(WRONG),
        "verbs": {verb: sum(wrong.arguments[0] == verb for wrong in WRONG) for verb in VERBS},
        "exit_codes": {str(code): count for code, count in sorted(Counter(got.code for got in answers).items())},
        "faults": {wrong.id: found for wrong, got in pairs if (found := faults_of(wrong, got))},
        "tracebacks": sum("Traceback" in got.err for got in answers),
        "longest_message": len(own_words(longest[1].err.splitlines()[-1], longest[0].arguments)),
        "longest_is_of": longest[0].id,
        "seconds_beyond_torch": {
            "median": statistics.median(seconds),
            "slowest": seconds[-1],
            "slowest_is_of": max(pairs, key=lambda pair: pair[1].wall_seconds)[0].id,
            "slowest_cpu": max(got.cpu_seconds for got in answers),
        },
        "load_average": os.getloadavg()[0],
    }


def matrix(world: Path, folder: Path) -> dict[str, object]:
    """Of each surrounding: the exit codes by verb, and what was wrong."""
    rows: dict[str, object] = {}
    for i, name in enumerate(surroundings.SURROUNDINGS):
        try:
            answers = surroundings.run_in(name, world, folder / str(i), list(surroundings.verbs(world, folder)))
        except (OSError, subprocess.CalledProcessError) as error:
            rows[name] = {"skipped": str(error)}
            continue
        faults = {
            verb: found for verb, (code, err) in answers.items() if (found := surroundings.faults_in(name, code, err))
        }
        rows[name] = {"exit_codes": {verb: code for verb, (code, _) in answers.items()}, "faults": faults}
        print(name, faults or "fine", file=sys.stderr, flush=True)
    return rows


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="alexnet-bench-") as place:
        os.environ["ALEXNET_CACHE"] = f"{place}/cache"
        os.environ.pop("ALEXNET_DATA", None)
        Path(place).chmod(0o755)
        world = Path(place, "world")
        world.mkdir()
        build_world(world)
        result = {"environment": environment(), "wrong_invocations": invocations(world)}
        write_json(ROOT / "results" / "invocations.json", {**result, "surroundings": matrix(world, Path(place))})


if __name__ == "__main__":
    main()
