"""How far each format answers from the network: the run is exported to all that can hold it, and results/export.json written.

python benchmarks/export.py runs/quickstart
"""

from __future__ import annotations

import argparse
import tempfile
from importlib.metadata import version
from pathlib import Path

import alexnet
from alexnet.core.runs import write_json
from alexnet.interop.exporting import SUFFIXES, To

FORMATS: tuple[tuple[To, bool], ...] = (
    ("safetensors", False),
    ("torch-export", False),
    ("onnx", False),
    ("onnx", True),
    ("hub", False),
)
"""All but torchvision's, which holds one network alone; and whether the preprocessing is in the graph."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a run whose data is on this machine")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for i, (to, whole) in enumerate(FORMATS):
            out = Path(temporary, str(i), f"mine{SUFFIXES.get(to, '')}")
            out.parent.mkdir()
            done = alexnet.export(options.model, to, out, with_preprocessing=whole)
            print(*done.lines, sep="\n")
            rows.append(done.to_json() | {"file": out.name, "with_preprocessing": whole})
    environment = [row.pop("environment") for row in rows][-1] | {"onnxruntime": version("onnxruntime")}
    document = {"recipe": "quickstart", "environment": environment, "rows": rows}
    write_json(Path(__file__).resolve().parents[1] / "results" / "export.json", document)


if __name__ == "__main__":
    main()
