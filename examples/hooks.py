"""What every layer computes, by forward hooks.

python examples/hooks.py
"""

import numpy as np
import torch

import alexnet
from alexnet.data.builtin import draw_picture


def main() -> dict[str, float]:
    network = alexnet.create_model("alexnet_2012", num_classes=24, fc_units=(256, 256), init="he").eval()
    picture = draw_picture("form-star", 0).convert("RGB").resize((224, 224))
    x_BCHW = torch.from_numpy(np.asarray(picture, dtype=np.float32) - 115).permute(2, 0, 1)[None]

    silent: dict[str, float] = {}

    def record(name: str):
        def hook(module, inputs, output):
            silent[name] = float((output == 0).float().mean())
            print(f"{name:8} {tuple(output.shape[1:])!s:16} {silent[name]:6.1%} of the units are silent")

        return hook

    # Layers have the paper's names; stage1 is what follows conv1: ReLU, normalization and pooling.
    handles = [module.register_forward_hook(record(name)) for name, module in network.named_children()]
    with torch.inference_mode():
        network(x_BCHW)
    for handle in handles:
        handle.remove()
    return silent


if __name__ == "__main__":
    main()
