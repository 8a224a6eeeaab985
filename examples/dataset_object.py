"""A `Dataset` of the library `datasets` as a set of images, with the augmentation of this package.

    python examples/dataset_object.py

It needs the library (pip install datasets). A list of rows like {"image": picture, "label": 0} does as well.
"""

import tempfile
from pathlib import Path

import datasets
import numpy as np
from PIL import Image
from torch.utils.data import DataLoader

import alexnet

CLASSES = ["sunset", "meadow", "sea"]
COLORS = np.array([(220, 110, 40), (60, 160, 50), (40, 90, 200)])


def drawn(count: int, seed: int) -> datasets.Dataset:
    """Noise around the color of each class."""
    noise = np.random.default_rng(seed).integers(-35, 36, (count, 40, 40, 3))
    labels = [i % len(CLASSES) for i in range(count)]
    pixels = (COLORS[labels][:, None, None] + noise).clip(0, 255).astype(np.uint8)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)})
    return datasets.Dataset.from_dict({"image": [Image.fromarray(x) for x in pixels], "label": labels}, features)


def main() -> int:
    """The number of images in one pass."""
    rows = datasets.DatasetDict(train=drawn(60, seed=0), validation=drawn(15, seed=1))
    with tempfile.TemporaryDirectory() as scratch:
        packed = alexnet.prepare(rows, Path(scratch) / "packed", size=32, workers=1)
        print(", ".join(packed.classes), {name: len(split) for name, split in packed.splits.items()})
        reads = alexnet.Preprocessing(resize=32, crop=24)
        images = alexnet.ImageDataset(packed, "train", preprocessing=reads, augmentation=alexnet.Augmentation())
        images.set_epoch(0)
        seen = sum(len(label_B) for _, label_B in DataLoader(images, batch_size=16, shuffle=True))
        print(f"{seen} images in one pass, {tuple(images[0][0].shape)} each")
    return seen


if __name__ == "__main__":
    main()
