"""Which pixels speak for a class, by captum's integrated gradients.

pip install "alexnet[probe]"
python examples/attributions.py
"""

import numpy as np
import torch
from captum.attr import IntegratedGradients

import alexnet
from alexnet.data.builtin import CLASSES, draw_picture


def main(steps: int = 16) -> float:
    network = alexnet.create_model("alexnet_2012", num_classes=len(CLASSES), fc_units=(64, 64), init="he").eval()
    picture = draw_picture("color-red", 0).convert("RGB").resize((224, 224))
    x_BCHW = torch.from_numpy(np.asarray(picture, dtype=np.float32) - 115).permute(2, 0, 1)[None]
    label = int(network(x_BCHW).argmax())

    found_BCHW, gap = IntegratedGradients(network).attribute(
        x_BCHW, target=label, n_steps=steps, internal_batch_size=4, return_convergence_delta=True
    )
    share = found_BCHW.abs().sum((0, 2, 3)) / found_BCHW.abs().sum()
    print(f"for {CLASSES[label]}: red {share[0]:.1%}, green {share[1]:.1%}, blue {share[2]:.1%} of all attribution")
    print(f"the attributions add up to the difference of the logits but for {float(gap):.2g}")
    return float(share.sum())


if __name__ == "__main__":
    main()
