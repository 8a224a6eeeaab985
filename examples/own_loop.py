"""A training loop of your own on a packed set, with the augmentation of `alexnet train`.

    python examples/own_loop.py

It draws a tiny folder of pictures, packs it, and trains a small network with torch's own DataLoader and optimizer.
"""

import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch.utils.data import DataLoader

import alexnet


def draw_photos(folder: Path, count: int) -> None:
    """`count` discs and `count` bars, of any color and at any place: photos/disc/*.png and photos/bar/*.png."""
    draw = torch.Generator().manual_seed(2012)
    for name in ("disc", "bar"):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            x, y, *color = (int(v) for v in torch.randint(0, 40, (5,), generator=draw))
            image = Image.new("RGB", (64, 64), (30, 30, 30))
            fill = (215 - color[0], 215 - color[1], 215 - color[2])
            if name == "disc":
                ImageDraw.Draw(image).ellipse((x, y, x + 20, y + 20), fill=fill)
            else:
                ImageDraw.Draw(image).rectangle((x, 4, x + 6, 60), fill=fill)
            image.save(folder / name / f"{i:03d}.png")


def error(network: torch.nn.Module, images: alexnet.ImageDataset) -> float:
    """The share of images whose largest logit is that of another class."""
    network.eval()
    wrong = 0
    with torch.inference_mode():
        for x_BCHW, label_B in DataLoader(images, batch_size=32):
            wrong += int((network(x_BCHW).argmax(1) != label_B).sum())
    return wrong / len(images)


def main(epochs: int = 6, workers: int = 0) -> float:
    with tempfile.TemporaryDirectory() as scratch:
        draw_photos(Path(scratch) / "photos", count=40)
        packed = alexnet.prepare(Path(scratch) / "photos", Path(scratch) / "packed", size=32, workers=1)

        pixels, label = packed.split("train")[0]  # one image as it is stored: (32, 32, 3) uint8
        print(
            f"{len(packed.split('train'))} images to learn from; the first is a {packed.classes[label]}, {pixels.shape}"
        )

        # The same preprocessing for both; what varies in training is a function of (image, seed, epoch).
        reads = alexnet.Preprocessing(resize=32, crop=24)
        images = alexnet.ImageDataset(packed, "train", preprocessing=reads, augmentation=alexnet.Augmentation(), seed=1)
        held_out = alexnet.ImageDataset(packed, "val", preprocessing=reads)  # the center of each image

        network = alexnet.create_model("cifar_18pct", num_classes=len(images.classes), input_size=24, seed=1)
        optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
        torch.manual_seed(1)  # the order of the images, and nothing else
        loader = DataLoader(images, batch_size=16, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
        for epoch in range(epochs):
            images.set_epoch(epoch)
            network.train()
            for x_BCHW, label_B in loader:
                loss = F.cross_entropy(network(x_BCHW), label_B)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            print(f"epoch {epoch + 1}: error on {len(held_out)} held-out images {error(network, held_out):.1%}")
        return error(network, held_out)


if __name__ == "__main__":
    main()
