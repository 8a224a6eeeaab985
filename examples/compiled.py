"""torch.compile: the whole network is one graph, in which normalization is one operator.

python examples/compiled.py
"""

import time

import torch

import alexnet


def main(backend: str = "inductor", images: int = 32) -> float:
    network = alexnet.create_model("alexnet_2012", num_classes=10, fc_units=(64, 64), init="he").eval()
    network = network.to(memory_format=torch.channels_last)
    x_BCHW = torch.randn(images, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
    compiled = torch.compile(network, backend=backend, fullgraph=True)

    with torch.no_grad():
        difference = float((compiled(x_BCHW) - network(x_BCHW)).abs().max())  # the first call compiles
        for name, function in (("as it is", network), ("compiled", compiled)):
            start = time.perf_counter()
            function(x_BCHW)
            print(f"{name}: {images / (time.perf_counter() - start):,.0f} images per second")
    print(f"the largest difference of a logit is {difference:.1g}")
    return difference


if __name__ == "__main__":
    main()
