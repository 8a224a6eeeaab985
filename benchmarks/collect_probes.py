"""Copy the figures of a run's probes to results/inside/: six digits, file names without their folders, no list of points.

python benchmarks/collect_probes.py RUN
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from alexnet.core.runs import read_json, write_json


def shortened(value: Any) -> Any:
    """The same JSON value, small enough to keep."""
    if isinstance(value, dict):
        return {key: shortened(item) for key, item in value.items() if key != "points"}
    if isinstance(value, list):
        return [shortened(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return Path(value).name if isinstance(value, str) and value.startswith("/") else value


if __name__ == "__main__":
    out = Path(__file__).resolve().parents[1] / "results" / "inside"
    for file in sorted((Path(sys.argv[1]) / "probes").glob("*.json")):
        write_json(out / file.name, shortened(read_json(file)))
        print(out / file.name)
