"""What decoders of AVIF, HEIC and JPEG XL take: memory a pixel and processor time a megapixel, in one thread.

    python benchmarks/newer_formats.py

writes results/newer-formats.json. `data/decode.py` makes a limit of pixels of the first; the system limits the second.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pillow_heif
import pillow_jxl  # noqa: F401
from PIL import Image

from alexnet.core.runs import environment, write_json

OPTIONS = {
    "AVIF": {"quality": 60, "speed": 10},
    "HEIF": {"quality": 60, "enc_params": {"preset": "ultrafast"}},
    "JXL": {"lossless": True, "effort": 5},
}
SIDES = {"flat": 3000, "noise": 1024}
DECODE = """
import io, json, sys, time
import pillow_heif, pillow_jxl
from PIL import AvifImagePlugin, Image
pillow_heif.register_heif_opener(decode_threads=1)
AvifImagePlugin.DEFAULT_MAX_THREADS = pillow_jxl.JpegXLImagePlugin.DECODE_THREADS = 1
def most():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
data = sys.stdin.buffer.read()
before, start = most(), time.process_time()
image = Image.open(io.BytesIO(data))
image.load()
taken, pixels = time.process_time() - start, image.width * image.height
print(json.dumps({"bytes_a_pixel": (most() - before) / pixels, "seconds_a_megapixel": taken / pixels * 1e6}))
"""


def main() -> None:
    pillow_heif.register_heif_opener()
    draw, found = np.random.default_rng(0), {}
    for kind, options in OPTIONS.items():
        for picture, side in SIDES.items():
            shape = (side, side, 3)
            pixels = (
                np.full(shape, 100, np.uint8) if picture == "flat" else draw.integers(0, 256, shape, dtype=np.uint8)
            )
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, kind, **options)
            done = subprocess.run(
                [sys.executable, "-c", DECODE], input=buffer.getvalue(), capture_output=True, check=True
            )
            found[f"{kind}, {picture}"] = {"side": side, "bytes": len(buffer.getvalue()), **json.loads(done.stdout)}
            print(kind, picture, found[f"{kind}, {picture}"])
    write_json(Path("results/newer-formats.json"), {"n": 1, "decoders": found, "environment": environment()})


if __name__ == "__main__":
    main()
