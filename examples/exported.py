"""A program of torch.export for any number of images, saved, and loaded without this package's code.

python examples/exported.py
"""

import io

import torch

import alexnet


def main() -> float:
    network = alexnet.create_model("alexnet_2012", num_classes=10, fc_units=(64, 64), init="he").eval()
    draw = torch.Generator().manual_seed(0)
    x_BCHW = torch.randn(5, 3, 224, 224, generator=draw)

    batch = torch.export.Dim("batch")
    program = torch.export.export(network, (x_BCHW[:2],), dynamic_shapes=({0: batch},))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()  # torch's own operations alone

    with torch.inference_mode():
        difference = float((loaded(x_BCHW) - network(x_BCHW)).abs().max())
    print(f"{len(file.getvalue()):,} bytes; on 5 images the largest difference of a logit is {difference:.1g}")
    return difference


if __name__ == "__main__":
    main()
