"""Whether a wheel installs: into an empty environment, where ``alexnet selftest --quick`` must pass, and with each extra alone.

python tests/installing.py dist/alexnet-*-manylinux*_x86_64.whl [EXTRA...]

Some minutes, and a gigabyte of $TMPDIR. Without a C compiler in reach: CC names none. Exit 1 if something does not work.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

VIDEO = """
import av, numpy
with av.open("clip.mp4", "w") as file:
    stream = file.add_stream("mpeg4", rate=5)
    stream.width = stream.height = 64
    for i in range(5):
        picture = numpy.full((64, 64, 3), 40 * i, numpy.uint8)
        file.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
    file.mux(stream.encode())
"""
HEIC = """
import pillow_heif
from PIL import Image
pillow_heif.register_heif_opener()
for label in "ab":
    for i in range(4):
        Image.new("RGB", (64, 64), (60 * i, 99 * (label == "b"), 99)).save(f"heic/{label}/{i}.heic")
"""
PARQUET = """
import io, pyarrow, pyarrow.parquet
from PIL import Image
def png(i):
    Image.new("RGB", (64, 64), (9 * i, 0, 99)).save(file := io.BytesIO(), "PNG")
    return {"bytes": file.getvalue(), "path": f"{i}.png"}
table = {"image": [png(i) for i in range(20)], "label": [i % 2 for i in range(20)]}
pyarrow.parquet.write_table(pyarrow.table(table), "parquet/train-00000-of-00001.parquet")
"""
TRAIN = (
    "train quickstart --data shapes --train-images 48 --epochs 1 --size 36 --preprocessing.resize 36 --preprocessing.crop 32 "
    "--model.input-size 32 --model.fc-units 16 16 --model.conv-channels 8 8 8 8 8 --model.conv-kernels 5 3 3 3 3 "
    "--model.conv-padding 2 1 1 1 1 --views 1 --device cpu"
).split()
VERBS: dict[str, tuple[str, list[str]]] = {
    "fast": ("import simplejpeg", "prepare photos packed".split()),
    "probe": ("import sklearn, skimage, faiss, captum", "probe tsne run --device cpu".split()),
    "tensorboard": ("from torch.utils.tensorboard import SummaryWriter", [*TRAIN, "--out", "logged"]),
    "serve": ("import uvicorn", "serve run --check --device cpu".split()),
    "video": (VIDEO, "predict run clip.mp4 --device cpu".split()),
    "formats": (HEIC, "check heic".split()),
    "parquet": (PARQUET, "check parquet".split()),
    "onnx": ("import onnxruntime", "export run --to onnx --out run.onnx".split()),
    "hub": ("import huggingface_hub", "export run --to hub --out card".split()),
}
"""For each extra, what makes its input, and a command that needs it."""
PHOTOS = """
from pathlib import Path
from PIL import Image
import shutil, random
random.seed(0)
for label in "ab":
    for folder in ("photos", "heic"):
        Path(folder, label).mkdir(parents=True)
    for i in range(8):
        Image.frombytes("RGB", (64, 64), random.randbytes(64 * 64 * 3)).save(f"photos/{label}/{i}.jpg")
Path("parquet").mkdir()
"""
LIBRARIES = """
from alexnet.data import pixels
from alexnet.models import winograd
from alexnet.models.lrn import compiled
for kernels in (pixels.KERNELS, winograd.KERNELS, compiled.KERNELS):
    assert kernels.available() and ".x86-64" in kernels.library._name, kernels.failure
"""


def main(wheel: str, only: Sequence[str]) -> int:
    failed = []
    with tempfile.TemporaryDirectory(prefix="alexnet-install-") as name:
        folder = Path(name)
        base = _environment(folder / "base")
        _run([base, "-m", "pip", "install", "-q", str(Path(wheel).absolute())], folder)
        for words in (["-c", LIBRARIES], ["-c", PHOTOS], ["-m", "alexnet", "selftest", "--quick"]):
            failed += ["base"] * bool(_run([base, *words], folder))
        failed += ["base"] * bool(_run([base, "-m", "alexnet", *TRAIN, "--out", "run"], folder))
        for extra in only or VERBS:
            prepared, words = VERBS[extra]
            alone = _environment(folder / "alone" / extra)
            packages = next((folder / "alone" / extra).glob("lib/python*/site-packages"))
            (packages / "base.pth").write_text(f"{next((folder / 'base').glob('lib/python*/site-packages'))}\n")
            code = _run([alone, "-m", "pip", "install", "-q", f"alexnet[{extra}]"], folder)
            code = code or _run([alone, "-c", prepared], folder) or _run([alone, "-m", "alexnet", *words], folder)
            failed += [extra] * bool(code)
    print(f"did not work: {', '.join(dict.fromkeys(failed))}" if failed else "all of it works")
    return 1 if failed else 0


def _environment(folder: Path) -> str:
    venv.create(folder, with_pip=True)
    return str(folder / "bin" / "python")


def _run(command: list[str], folder: Path) -> int:
    """Its exit code; a command that fails is shown with what it said."""
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    variables |= {"CC": "/nowhere/cc", "ALEXNET_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    shown = " ".join(command[1:6]).partition("\n")[0]
    print(f"{'failed' if done.returncode else 'passed'}: {Path(command[0]).parents[1].name}: {shown}", flush=True)
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-2000:], sep="\n", flush=True)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
