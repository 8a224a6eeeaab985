"""A packed set as a Dataset of torch, for training loops of one's own.

What is drawn for an image is a function of (seed, epoch, number of the image), as in our own training: neither the order nor the
number of workers changes it.

Shape suffixes: B images, C channels, H rows, W columns, S rows or columns of a square.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import SupportsIndex

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from alexnet.core.errors import UsageError
from alexnet.core.preprocessing import Preprocessing
from alexnet.data.packed import PackedSet, image_number, open_packed
from alexnet.data.transforms import Augmentation, augment, draw

CENTER = Augmentation(crop="center", mirror=False, color_noise=0.0)
"""Nothing is drawn: the center of each image, as validation sees it."""


class ImageDataset(Dataset[tuple[Tensor, int]]):
    """The images of a split of a packed set as network inputs: item i is (input (C, H, W) float32, label), for
    ``torch.utils.data.DataLoader`` with any number of workers.

    ``packed``: an opened set, or the path of one. ``split``: train, val, test, or all. ``preprocessing``: what the network
    reads; the default is that of the paper's. ``augmentation``: how images vary; None, as for validation, gives the center of
    each. :meth:`set_epoch` says for which pass the variation is drawn; ``alexnet train`` counts passes from 0. With the same seed
    the inputs are those of ``alexnet train``, bit for bit, on a CPU.

    Raises :class:`~alexnet.core.errors.DataError` for a set or a split that is not there or is damaged (an image when it is
    read), :class:`~alexnet.core.errors.UsageError` for one that the preprocessing does not fit, and :class:`ValueError` for an
    augmentation that is not of one image alone.
    """

    def __init__(
        self,
        packed: PackedSet | str | Path,
        split: str = "train",
        *,
        preprocessing: Preprocessing | None = None,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        self.packed = packed if isinstance(packed, PackedSet) else open_packed(packed)
        self.images = self.packed.images(split)
        self.preprocessing = Preprocessing() if preprocessing is None else preprocessing
        self.augmentation = CENTER if augmentation is None else augmentation
        self.seed = seed
        if self.augmentation.mixes:
            raise ValueError(
                "Augmentation.mixup and cutmix mix two images; draw_mixes and mix of data.transforms do that"
            )
        if self.augmentation.crop_draws == "chunk":
            raise ValueError("Augmentation.crop_draws is 'chunk', which depends on the order of images; take 'image'")
        if self.packed.channels != self.preprocessing.channels:
            raise UsageError(
                f"{self.packed.where} holds images of {self.packed.channels} channels; "
                f"Preprocessing.channels is {self.preprocessing.channels}: make them equal"
            )
        self._mean_SSC = torch.from_numpy(self.packed.mean) if self.preprocessing.mean == "image" else None
        self._color = self.packed.color if self.augmentation.color_noise else None
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]  # workers that stay alive see it change

    @property
    def classes(self) -> list[str]:
        """The names of the classes, by label."""
        return self.packed.classes

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,): the label of each image, without reading one, as a sampler needs them."""
        return self.images.labels

    def set_epoch(self, epoch: int) -> None:
        """Draw for this pass from now on. Call it before the loader is iterated; workers that are kept (``persistent_workers``)
        take it over."""
        self._epoch.fill_(epoch)

    def inputs(self, image_B: NDArray[np.integer] | Sequence[int], epoch: int) -> Tensor:
        """The images of these numbers as they are in one pass: (B, C, H, W) float32. It depends on nothing else."""
        index_B = np.asarray(image_B, dtype=np.int64)
        draws = draw(
            self.augmentation, self.preprocessing, seed=self.seed, epoch=epoch, image_B=index_B, position_B=index_B
        )
        pixels_BSSC = torch.from_numpy(self.images.read(index_B))
        return augment(pixels_BSSC, draws, self.augmentation, self.preprocessing, self._mean_SSC, self._color)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: SupportsIndex) -> tuple[Tensor, int]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[SupportsIndex]) -> list[tuple[Tensor, int]]:
        """Several at once, which is what a DataLoader asks for."""
        image_B = [image_number(index, len(self)) for index in indices]
        x_BCHW = self.inputs(image_B, int(self._epoch))
        return list(zip(x_BCHW, self.labels[image_B].tolist(), strict=True))
