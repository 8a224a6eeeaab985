"""The gradient of each image of a batch, by torch.func: which pictures a step would follow most.

python examples/single_gradients.py
"""

import torch
import torch.nn.functional as F
from torch.func import functional_call, grad, vmap

import alexnet


def main(images: int = 4) -> torch.Tensor:
    network = alexnet.create_model("alexnet_2012", num_classes=10, fc_units=(64, 64), init="he").eval()
    draw = torch.Generator().manual_seed(0)
    x_BCHW = torch.randn(images, 3, 224, 224, generator=draw)
    label_B = torch.randint(0, 10, (images,), generator=draw)
    parameters = {name: parameter.detach() for name, parameter in network.named_parameters()}

    def loss(parameters, x_CHW, label):
        return F.cross_entropy(functional_call(network, parameters, (x_CHW[None],)), label[None])

    gradients = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, x_BCHW, label_B)
    norm_B = torch.stack([g.flatten(1).square().sum(1) for g in gradients.values()]).sum(0).sqrt()
    for i, norm in enumerate(norm_B):
        print(f"image {i}: norm of the gradient {float(norm):.3g}")
    return norm_B


if __name__ == "__main__":
    main()
