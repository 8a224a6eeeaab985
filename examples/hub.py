"""The folder that would be published on the Hugging Face Hub, and a network from it.

    python examples/hub.py

Nothing is sent. `alexnet.push_to_hub(model, "owner/name")` publishes the same folder, and
`alexnet.from_pretrained("hf-hub:owner/name")` has the network back from there. The network has random weights here.
"""

import tempfile
from pathlib import Path

import torch

import alexnet


def main() -> float:
    with tempfile.TemporaryDirectory() as scratch:
        weights, model, folder = (Path(scratch) / name for name in ("weights.pth", "model", "published"))
        torch.save(alexnet.create_model("lenet", seed=1).state_dict(), weights)
        alexnet.import_weights(weights, model, network="lenet", classes=[f"digit {number}" for number in range(10)])

        done = alexnet.export(model, "hub", folder, license="mit")
        print(*sorted(path.name for path in folder.iterdir()), sep="  ")
        print(f"read back: a score differs by {done.difference:g} at most")
        card = (folder / "README.md").read_text(encoding="utf-8")
        print(card[card.index("## Errors") : card.index("## Use")].strip())  # nothing was measured, and it says so

        network = alexnet.from_pretrained(folder)
        images_BCHW = torch.rand(4, 1, 28, 28)
        with torch.inference_mode():
            return float((network(images_BCHW) - alexnet.from_pretrained(model)(images_BCHW)).abs().max())


if __name__ == "__main__":
    main()
