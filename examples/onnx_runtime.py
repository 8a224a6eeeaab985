"""A network as an ONNX file that takes photographs and answers with names, run by onnxruntime alone.

    python examples/onnx_runtime.py        # pip install "alexnet[onnx]"

The network has random weights here; put a run in the place of `model` to take your own.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from PIL import Image

import alexnet


def random_model(folder: Path) -> Path:
    """A model folder of a small network with random weights and ten classes."""
    torch.save(alexnet.create_model("cifar_18pct", seed=1).state_dict(), folder / "weights.pth")
    names = [f"thing {number}" for number in range(10)]
    alexnet.import_weights(folder / "weights.pth", folder / "model", network="cifar_18pct", classes=names)
    return folder / "model"


def main() -> float:
    with tempfile.TemporaryDirectory() as scratch:
        model = random_model(Path(scratch))
        done = alexnet.export(model, "onnx", Path(scratch) / "things.onnx", with_preprocessing=True)
        print(f"exported; on {done.n} pictures a score differs by {done.difference:.1e} at most")

        # From here on alexnet is not needed. The photograph may have any size; a batch holds photographs of one size.
        session = onnxruntime.InferenceSession(done.file, providers=["CPUExecutionProvider"])
        about = session.get_modelmeta().custom_metadata_map
        print(f"{about['network']}: {len(json.loads(about['classes']))} classes, reads {session.get_inputs()[0].shape}")
        photograph = Image.radial_gradient("L").convert("RGB").resize((320, 240))
        names, probabilities, _logits = session.run(None, {"pixels": np.asarray(photograph)[None]})
        for name, probability in zip(names[0], probabilities[0], strict=True):
            print(f"{name} {probability:.1%}")

        # The same question, asked of the network itself.
        answer = alexnet.load(model).predict(photograph).answers[0]
        print(f"the network itself: {answer.name} {answer.probability:.1%}")
        return abs(answer.probability - float(probabilities[0][0]))


if __name__ == "__main__":
    main()
