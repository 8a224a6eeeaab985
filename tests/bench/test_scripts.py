"""The scripts of benchmarks/ run; their figures are for quiet machines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from alexnet.data.prepare import prepare
from shared import make_photographs

SCRIPTS = Path(__file__).parents[2] / "benchmarks"

# Only torch, numpy and the standard library beside this package, as on a bare GPU machine.
WITHOUT_OTHERS = """
import runpy, sys
for name in ("PIL", "tyro", "rich", "safetensors", "simplejpeg", "matplotlib", "jinja2", "torchvision", "sklearn"):
    sys.modules[name] = None
sys.path.insert(0, sys.argv[1])
script, sys.argv = sys.argv[1] + "/gpu.py", ["gpu.py", *sys.argv[2:]]
runpy.run_path(script, run_name="__main__")
"""


def test_gpu_script_runs_at_a_tiny_size_on_the_cpu_with_torch_and_numpy_alone(tmp_path):
    command = [sys.executable, "-c", WITHOUT_OTHERS, str(SCRIPTS), "--tiny", "--out", str(tmp_path / "gpu.json")]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, check=False
    )
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "gpu.json").read_text())
    assert all(error <= 1 for error in document["errors_in_units_of_what_is_allowed"].values())
    assert {"alexnet_2012", "alexnet_owt", "plain"} <= {row["network"] for row in document["steps"]}
    assert {row["from"] for row in document["end_to_end"]} == {"packed file", "device memory"}
    assert all(row["images_per_second"] > 0 for row in document["steps"] + document["end_to_end"])


def test_gpu_script_without_a_gpu_measures_nothing_and_says_so(tmp_path):
    command = [sys.executable, str(SCRIPTS / "gpu.py"), "--out", str(tmp_path / "gpu.json")]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("no CUDA device: nothing measured")
    assert not (tmp_path / "gpu.json").exists()


def test_cpu_script_names_its_parts():
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "cpu.py"), "no-such"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "there is step-float32" in done.stderr


def test_the_queue_of_claims_stops_when_the_time_is_up_and_goes_on(tmp_path):
    packed = prepare(make_photographs(tmp_path / "photographs", train=32), tmp_path / "packed", size=28, workers=1).path
    command = [
        sys.executable,
        str(SCRIPTS / "claims_queue.py"),
        "--data",
        str(packed),
        "--scale",
        "smoke",
        "--seeds",
        "2",
    ]
    command += ["--device", "cpu", "--only", "overlap", "--out", str(tmp_path), "--minutes"]
    stopped = subprocess.run([*command, "0.001"], capture_output=True, text=True, check=False)
    assert stopped.returncode == 75, stopped.stderr
    assert stopped.stderr.splitlines()[-1].startswith(("stopped at step", "stopped between"))
    done = subprocess.run([*command, "5"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("C13 ") == 3
    assert len(list((tmp_path / "smoke").glob("*-seed1.json"))) == 2
    verdicts = json.loads((tmp_path / "smoke" / "overlap.json").read_text())
    assert [row["n"] for row in verdicts["comparisons"]] == [2, 2, 2]
