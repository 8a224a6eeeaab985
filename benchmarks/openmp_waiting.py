"""How torch's threads should wait for each other on a machine that is shared: writes results/openmp-waiting.json.

Training steps of alexnet_2012 (batch 32, bfloat16, channels last, all cores) in a fresh process for each way of waiting, alone
and beside one busy process. python benchmarks/openmp_waiting.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from alexnet.core.runs import environment, write_json

WAYS: dict[str, dict[str, str]] = {
    "default": {},
    "asleep": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"},
    "GOMP_SPINCOUNT=2000": {"GOMP_SPINCOUNT": "2000"},
    "GOMP_SPINCOUNT=30000": {"GOMP_SPINCOUNT": "30000"},
}
STEPS = 5

STEP = f"""
import json, time, torch
import torch.nn.functional as F
from alexnet.core.memory import keep_freed_memory
from alexnet.models import create_model
keep_freed_memory()
model = create_model("alexnet_2012", num_classes=10).to(memory_format=torch.channels_last)
x = (60 * torch.randn(32, 3, 224, 224)).contiguous(memory_format=torch.channels_last)
label = torch.randint(0, 10, (32,))
rates = []
for step in range({STEPS} + 1):
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(x)
    model.zero_grad()
    F.cross_entropy(logits.float(), label).backward()
    rates.append(32 / (time.perf_counter() - start))
print(json.dumps(rates[1:]))
"""


def measure(variables: dict[str, str]) -> list[float]:
    """Images per second of each step after the first."""
    plain = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run(
        [sys.executable, "-c", STEP], env=plain | variables, capture_output=True, text=True, check=True
    )
    rates: list[float] = json.loads(done.stdout)
    return rates


def main() -> None:
    rows = []
    for beside in (False, True):
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if beside else None
        try:
            for way, variables in WAYS.items():
                rates = sorted(measure(variables))
                rows.append({"way": way, "beside_a_busy_process": beside, "n": STEPS, "images_per_second": rates})
                print(f"{way}{' beside a busy process' if beside else ''}: median {rates[STEPS // 2]:.1f} images/s")
        finally:
            if busy:
                busy.kill()
    out = Path(__file__).resolve().parents[1] / "results" / "openmp-waiting.json"
    write_json(
        out,
        {"network": "alexnet_2012", "batch": 32, "precision": "bfloat16", "environment": environment(), "rows": rows},
    )


if __name__ == "__main__":
    main()
