"""Grad-CAM: where in the picture the last convolution sees a class.

python examples/grad_cam.py
"""

import numpy as np
import torch

import alexnet
from alexnet.data.builtin import CLASSES, draw_picture


def main() -> torch.Tensor:
    network = alexnet.create_model("alexnet_2012", num_classes=len(CLASSES), fc_units=(64, 64), init="he").eval()
    picture = draw_picture("form-ring", 0).convert("RGB").resize((224, 224))
    x_BCHW = torch.from_numpy(np.asarray(picture, dtype=np.float32) - 115).permute(2, 0, 1)[None]

    maps: list[torch.Tensor] = []
    handle = network.conv5.register_forward_hook(lambda module, inputs, output: maps.append(output))
    logits_BK = network(x_BCHW)
    handle.remove()

    label = int(logits_BK.argmax())
    (gradient_BCHW,) = torch.autograd.grad(logits_BK[0, label], maps[0])
    weight_C = gradient_BCHW.mean((2, 3))[0]  # how much each channel speaks for the class
    cam_HW = torch.einsum("c,chw->hw", weight_C, maps[0][0]).relu().detach()
    cam_HW = cam_HW / cam_HW.max().clamp(min=1e-12)
    print(f"where conv5 sees {CLASSES[label]}:")
    for row in cam_HW:
        print("  " + "".join(" .:-=+*#%@"[int(9 * value)] * 2 for value in row))
    return cam_HW


if __name__ == "__main__":
    main()
