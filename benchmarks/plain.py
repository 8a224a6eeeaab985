"""AlexNet as people write it: plain PyTorch, one file, the obvious way. What the benchmarks compare with."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class PlainAlexNet(nn.Sequential):
    """The paper's network in torch's own layers: grouped convolutions for the towers, nn.LocalResponseNorm over all
    channels, dropout as torch has it. ``norm=False`` leaves the normalization out; ``units`` are those of fc6 and of fc7."""

    def __init__(self, classes: int = 1000, *, norm: bool = True, units: int = 4096) -> None:
        def lrn() -> list[nn.Module]:
            return [nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)] if norm else []

        super().__init__(
            *[nn.ZeroPad2d((0, 3, 0, 3)), nn.Conv2d(3, 96, 11, stride=4), nn.ReLU(), *lrn(), nn.MaxPool2d(3, 2)],
            *[nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU(), *lrn(), nn.MaxPool2d(3, 2)],
            *[nn.Conv2d(256, 384, 3, padding=1), nn.ReLU()],
            *[nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU()],
            *[nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2)],
            *[nn.Flatten(), nn.Linear(9216, units), nn.ReLU(), nn.Dropout()],
            *[nn.Linear(units, units), nn.ReLU(), nn.Dropout(), nn.Linear(units, classes)],
        )


def plain_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """torch's SGD with the paper's numbers; a rate so small that a benchmark's random labels do not matter."""
    return torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9, weight_decay=5e-4)


def plain_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, x_BCHW: Tensor, label_B: Tensor, *, bfloat16: bool = False
) -> float:
    """One training step; the loss is read at once, as in most loops."""
    model.train()
    with torch.autocast(x_BCHW.device.type, torch.bfloat16, enabled=bfloat16):
        loss = F.cross_entropy(model(x_BCHW), label_B)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


class PlainImages(Dataset[tuple[Tensor, int]]):
    """Image files, decoded, resized to a short side of 256, cropped and mirrored at random with Pillow, one by one."""

    def __init__(self, paths: list[Path]) -> None:
        from PIL import Image

        self.paths, self.pillow = paths, Image

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.pillow.open(self.paths[index]).convert("RGB")
        scale = 256 / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), self.pillow.Resampling.BILINEAR)
        left = int(torch.randint(0, image.width - 223, ()))
        top = int(torch.randint(0, image.height - 223, ()))
        image = image.crop((left, top, left + 224, top + 224))
        if torch.rand(()) < 0.5:
            image = image.transpose(self.pillow.Transpose.FLIP_LEFT_RIGHT)
        pixels_HWC = (np.asarray(image, dtype=np.float32) - MEAN) / STD
        return torch.from_numpy(pixels_HWC.astype(np.float32)).permute(2, 0, 1), 0


def plain_batches(paths: list[Path], batch_size: int, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """A DataLoader over the files, in random order, for ever."""
    loader = DataLoader(
        PlainImages(paths), batch_size, shuffle=True, num_workers=workers, drop_last=True, persistent_workers=True
    )
    while True:
        yield from loader


def main() -> None:
    """A training step for each line on standard input, on the CPU in float32, and a line when it is done: a process of its
    own, so that what the benchmark does to its process does nothing for this one."""
    model = PlainAlexNet()
    optimizer = plain_optimizer(model)
    x_BCHW, label_B = 60 * torch.randn(int(sys.argv[1]), 3, 224, 224), torch.randint(0, 1000, (int(sys.argv[1]),))
    for _ in sys.stdin:
        print(plain_step(model, optimizer, x_BCHW, label_B), flush=True)


if __name__ == "__main__":
    main()
