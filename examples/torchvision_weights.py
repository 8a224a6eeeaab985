"""Weights of torchvision's `alexnet`, in and out: `alexnet_owt` is that network. torchvision itself is not needed.

python examples/torchvision_weights.py
"""

import torch

import alexnet
from alexnet.interop.torchvision import from_torchvision, to_torchvision


def main() -> float:
    # Stands for torchvision.models.alexnet(weights="DEFAULT").state_dict(): the same keys and shapes.
    ours = alexnet.create_model("alexnet_owt", num_classes=10, seed=1).eval()
    theirs = to_torchvision(ours)
    print(f"{len(theirs)} tensors: {', '.join(list(theirs)[:3])} ...")

    again = from_torchvision(theirs)  # the path of a .pth or safetensors file will do too; nothing in it is run
    x_BCHW = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        difference = float((again(x_BCHW) - ours(x_BCHW)).abs().max())
    print(f"after the way there and back, the largest difference of a logit is {difference:g}")
    return difference


if __name__ == "__main__":
    main()
