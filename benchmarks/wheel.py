"""What the compiled code in a wheel is worth where there is no C compiler: writes results/wheel.json.

Three things that compiled code does, in a fresh process with one thread, in seconds of that process (median of some): from the
sources with a compiler, from the sources without one, and from the wheel without one. Needs x86-64 or arm64 Linux.

make wheel
python benchmarks/wheel.py dist/alexnet-*-manylinux*.whl
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from statistics import median

from alexnet.core.runs import environment, write_json

ROOT = Path(__file__).parents[1]
REPEATS = 3
NO_COMPILER = "/nowhere/cc"

WORK = f"""
import json, time, numpy, torch
from pathlib import Path
from PIL import Image
import alexnet
from alexnet.data import pixels
from alexnet.models import create_model, winograd
from alexnet.models.lrn import LocalResponseNorm, compiled
torch.set_num_threads(1)
torch.manual_seed(0)
for module in (pixels, winograd, compiled):
    module.KERNELS.available(build=True)
model = create_model("alexnet_2012", num_classes=10)
x = 60 * torch.randn(32, 3, 224, 224)
norm = LocalResponseNorm(size=5, alpha=1e-4, beta=0.75, k=2.0, towers=1)
maps = torch.randn(32, 96, 27, 27)
photo = Image.fromarray(numpy.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=numpy.uint8))

def lrn():
    y = maps.clone().requires_grad_()
    norm(y).sum().backward()

def step():
    model.train().zero_grad()
    model(x[:16]).square().sum().backward()

def answers():
    with torch.no_grad():
        model.eval()(x)

def resizing():
    for _ in range(20):
        pixels.resize_and_crop(photo, 256)

seconds = {{}}
for work in (lrn, step, answers, resizing):
    work()
    took = []
    for _ in range({REPEATS}):
        start = time.process_time()
        work()
        took.append(time.process_time() - start)
    seconds[work.__name__] = took
loaded = sorted(Path(m.KERNELS.library._name).name for m in (pixels, winograd, compiled) if m.KERNELS.available())
print(json.dumps({{"package": alexnet.__file__, "libraries": loaded, "seconds": seconds}}))
"""
WHAT = {
    "lrn": "response normalization of 32 images of 96 maps of 27 x 27, and its gradient",
    "step": "forward and backward of alexnet_2012, 16 images",
    "answers": "the answers of alexnet_2012 to 32 images",
    "resizing": "20 images of 640 x 480 resized and cut to 256 x 256",
}


def measure(package: Path, compiler: str | None) -> dict[str, dict[str, list[float]]]:
    """What each work takes with the package in a folder, and which libraries it used."""
    with tempfile.TemporaryDirectory() as cache:
        variables = {"PYTHONPATH": str(package), "ALEXNET_CACHE": cache, "OMP_NUM_THREADS": "1"}
        if compiler is not None:
            variables["CC"] = compiler
        done = subprocess.run(
            [sys.executable, "-c", WORK], env=os.environ | variables, stdout=subprocess.PIPE, text=True, check=True
        )
    found: dict[str, dict[str, list[float]]] = json.loads(done.stdout)
    assert Path(str(found.pop("package"))).is_relative_to(package)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(options.wheel).extractall(folder)
        ways = {
            "sources, a compiler": measure(ROOT / "src", None),
            "sources, no compiler": measure(ROOT / "src", NO_COMPILER),
            "wheel, no compiler": measure(Path(folder), NO_COMPILER),
        }
    best = {name: {work: median(took) for work, took in found["seconds"].items()} for name, found in ways.items()}
    for work, what in WHAT.items():
        print(f"{what}:")
        for name, medians in best.items():
            print(f"  {name}: {medians[work]:.3f} s")
    document = {
        "what": WHAT,
        "command": f"python benchmarks/wheel.py {options.wheel.name}",
        "environment": environment(),
        "ways": {name: found | {"median": best[name]} for name, found in ways.items()},
    }
    write_json(ROOT / "results" / "wheel.json", document)


if __name__ == "__main__":
    main()
