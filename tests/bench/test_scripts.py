"""The scripts of benchmarks/ run; their figures are for quiet machines."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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


@pytest.fixture
def run_script(monkeypatch, capsys):
    """A function of a script's name and arguments: its exit code, stdout and stderr. It runs in this process, which has
    imported torch already, as Python would run it."""
    monkeypatch.syspath_prepend(str(SCRIPTS))

    def run(name: str, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(SCRIPTS / name), run_name="__main__")
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


def test_gpu_script_without_a_gpu_measures_nothing_and_says_so(run_script, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, _, err = run_script("gpu.py", "--out", tmp_path / "gpu.json")
    assert code == 1
    assert err.startswith("no CUDA device: nothing measured")
    assert not (tmp_path / "gpu.json").exists()


def test_cpu_script_names_its_parts(run_script):
    code, _, err = run_script("cpu.py", "no-such")
    assert code == 2
    assert "there is step-float32" in err


@pytest.fixture
def as_it_was():
    """The queue answers SIGTERM until its process ends."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("as_it_was")
def test_the_queue_of_claims_stops_when_the_time_is_up_and_goes_on(run_script, tmp_path):
    packed = prepare(make_photographs(tmp_path / "photographs", train=32), tmp_path / "packed", size=28, workers=1).path
    command = ("--data", packed, "--scale", "smoke", "--seeds", 2, "--device", "cpu", "--only", "overlap")
    code, _, err = run_script("claims_queue.py", *command, "--out", tmp_path, "--minutes", 0.001)
    assert code == 75, err
    assert err.splitlines()[-1].startswith(("stopped at step", "stopped between"))
    code, out, err = run_script("claims_queue.py", *command, "--out", tmp_path)
    assert code == 0, err
    assert out.count("C13 ") == 3
    assert len(list((tmp_path / "smoke").glob("*-seed1.json"))) == 2
    verdicts = json.loads((tmp_path / "smoke" / "overlap.json").read_text())
    assert [row["n"] for row in verdicts["comparisons"]] == [2, 2, 2]
