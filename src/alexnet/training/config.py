"""A whole training run as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass, field

import tyro

from alexnet.core.config import not_finite, to_json
from alexnet.core.device import Precision
from alexnet.core.preprocessing import Preprocessing
from alexnet.data.packed import MAX_SIZE
from alexnet.data.transforms import Augmentation
from alexnet.evaluation.views import parse_views
from alexnet.models import ModelConfig
from alexnet.training.optimizer import OptimizerConfig
from alexnet.training.schedule import Plateau, Schedule


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides what a run computes. Input scale, initialization and learning rate belong together, so a
    recipe fixes them together."""

    recipe: tyro.conf.Fixed[str]
    """The function in ``alexnet.recipes`` this came from."""
    network: tyro.conf.Fixed[str]
    """Its name among ``alexnet.list_models()``."""
    model: ModelConfig
    """The network, field by field. ``num_classes`` is set from the data."""
    data: str
    """Default data set: a path or a name."""
    size: int | None = 256
    """Side of the stored images, for data that is not prepared yet; None: as the data comes."""
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    augmentation: Augmentation = field(default_factory=Augmentation)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: Schedule = field(default_factory=Plateau)
    epochs: int = 90
    """Passes over the training images (§5)."""
    batch_size: int = 128
    """Images of one step (§5)."""
    label_smoothing: float = 0.0
    """Share of the target given to all classes alike."""
    precision: Precision = "float32"
    seed: int = 0
    """Of the initial weights and of every draw."""
    until_train_error: float | None = None
    """End after the first epoch whose training error, as the network saw the images, is at most this; None: after all."""
    train_images: int | None = None
    """Train on the first so many images of a fixed random order; None: on all."""
    checkpoint_steps: int = 500
    """Steps between checkpoints within an epoch; the end of an epoch always makes one."""
    views: tuple[str, ...] = ("1", "10")
    """Views of the final evaluation."""

    def __post_init__(self) -> None:
        if name := not_finite(to_json(self)):
            raise ValueError(f"TrainConfig.{name} is NaN or infinite; it must be a finite number")
        for views in self.views:
            parse_views(views)
        if self.size is not None and not 1 <= self.size <= MAX_SIZE:
            raise ValueError(f"TrainConfig.size is {self.size}; it must be at least 1 and at most {MAX_SIZE}")
        for name in ("epochs", "batch_size", "checkpoint_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"TrainConfig.{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"TrainConfig.label_smoothing is {self.label_smoothing}; it needs 0 <= label_smoothing < 1"
            )
        if self.until_train_error is not None and not 0 <= self.until_train_error < 1:
            raise ValueError(
                f"TrainConfig.until_train_error is {self.until_train_error}; it is a share, 0 <= until_train_error < 1"
            )
        if self.train_images is not None and self.train_images < 1:
            raise ValueError(f"TrainConfig.train_images is {self.train_images}; it must be at least 1")
