"""A whole training run as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import tyro

from alexnet.core.config import not_finite, to_json
from alexnet.core.device import Precision
from alexnet.core.preprocessing import Preprocessing
from alexnet.data.packed import MAX_SIZE
from alexnet.data.samples import SampleMax, sample_max_fault
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
    """Layers and sizes of the network. The data decide ``num_classes``."""
    data: str
    """Photographs to train on: a folder of class folders, a packed folder, a list, an archive, or a named set."""
    size: int | None = 256
    """Side of the stored images in pixels, if the data is not packed yet; None keeps the size of IDX and CIFAR sets."""
    sample_max: SampleMax = None
    """Sample that is white in files of more than 8 bits: 4095 for those of a 12-bit camera, or set: the largest in the training
    images. By default the largest that each file allows."""
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    """How a photograph becomes the input of the network."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """How training images are varied."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """How gradients change the weights."""
    schedule: Schedule = field(default_factory=Plateau)
    """How the learning rate changes over time."""
    epochs: int = 90
    """Passes over the training images (§5). 0, with --last-layer fitted: nothing more is trained."""
    batch_size: int = 128
    """Images in one step (§5)."""
    label_smoothing: float = 0.0
    """Share of each target that is spread evenly over all classes; 0 switches it off."""
    balance: Literal["none", "weights", "sampler"] = "none"
    """Make classes of few images count as much as classes of many. weights: weight the loss of each image by the inverse size of
    its class. sampler: show each class equally often in an epoch, which stays as long as it was; images of small classes come
    several times, each time with another crop. With either, an epoch is judged by the mean of the classes' validation errors."""
    ema: float = 0.0
    """Validate and keep a moving average of the weights in place of the last weights. The value is its decay at each step: 0.99
    suits some hundred steps, 0.999 some thousand. Early steps have a smaller one, so that the untrained weights are soon
    forgotten. 0 switches it off."""
    start_share: float = 0.0
    """For a run that starts from trained weights: validate and keep a mean of the weights that it started from and of the last
    weights, with this share of the first (Wortsman et al. 2022). A network that was tuned on few images often errs less on new
    ones so. 0 keeps the last weights alone."""
    last_layer: Literal["random", "fitted"] = "random"
    """How the last layer begins where the run starts from trained weights. random: as in any run, unless the weights hold it for
    the same classes. fitted: as the linear classifier that fits best what the layers below compute of the training images; with
    --epochs 0 that is the model."""
    early_stopping: int | None = None
    """End the run after this many epochs without a new lowest validation error, and make the weights of the best epoch the model.
    The held-out images choose that epoch, so the error on them is then lower than on new ones. By default train all epochs and
    keep the last weights."""
    precision: Precision = "float32"
    """Number format to compute in; weights stay in float32. bfloat16 is often twice as fast, and many times slower on a
    processor without instructions for it: there a recipe that computes in it takes float32 instead."""
    seed: int = 0
    """Seed for the initial weights and every random draw."""
    until_train_error: float | None = None
    """Stop after the first epoch in which the training error is at most this share; by default train all epochs."""
    train_images: int | None = None
    """Train on this many images, chosen at random by the seed; by default on all."""
    checkpoint_steps: int = 500
    """Steps between checkpoints. The end of each epoch makes one, too."""
    views: tuple[str, ...] = ("1", "10")
    """How to look at each image in the final evaluation: 1 (center), 10 (the paper's ten views) or random:K."""

    @property
    def itemsize(self) -> int:
        """Bytes of a weight: the number formats below float32 are those of products only."""
        return 8 if self.precision == "float64" else 4

    def __post_init__(self) -> None:
        if name := not_finite(to_json(self)):
            raise ValueError(f"TrainConfig.{name} is NaN or infinite; it must be a finite number")
        for views in self.views:
            parse_views(views)
        if self.size is not None and not 1 <= self.size <= MAX_SIZE:
            raise ValueError(f"TrainConfig.size is {self.size}; it must be at least 1 and at most {MAX_SIZE}")
        if (fault := sample_max_fault(self.sample_max)) is not None:
            raise ValueError(f"TrainConfig.{fault}")
        for name in ("epochs", "batch_size", "checkpoint_steps"):
            if getattr(self, name) < (least := int(name != "epochs" or self.last_layer == "random")):
                raise ValueError(f"TrainConfig.{name} is {getattr(self, name)}; it must be at least {least}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(
                f"TrainConfig.seed is {self.seed}; it must be at least 0 and less than 2 to the power of 63"
            )
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"TrainConfig.label_smoothing is {self.label_smoothing}; it needs 0 <= label_smoothing < 1"
            )
        if self.balance == "sampler" and self.augmentation.crops is not None:
            raise ValueError(
                "TrainConfig.balance is sampler, which draws another crop each time that an epoch shows an image again; with "
                "augmentation.crops, take weights"
            )
        if not 0 <= self.ema < 1:
            raise ValueError(f"TrainConfig.ema is {self.ema}; it needs 0 <= ema < 1")
        if not 0 <= self.start_share < 1:
            raise ValueError(f"TrainConfig.start_share is {self.start_share}; it needs 0 <= start_share < 1")
        if self.start_share and self.ema:
            raise ValueError(
                f"TrainConfig.start_share is {self.start_share} and TrainConfig.ema is {self.ema}; only one of them can say "
                "which weights are kept, so set the other to 0"
            )
        if self.early_stopping is not None and self.early_stopping < 1:
            raise ValueError(
                f"TrainConfig.early_stopping is {self.early_stopping}; it is a number of epochs and must be at least 1"
            )
        if self.until_train_error is not None and not 0 <= self.until_train_error < 1:
            raise ValueError(
                f"TrainConfig.until_train_error is {self.until_train_error}; it is a share, 0 <= until_train_error < 1"
            )
        if self.train_images is not None and self.train_images < 1:
            raise ValueError(f"TrainConfig.train_images is {self.train_images}; it must be at least 1")


def other_rate(config: TrainConfig, factor: float) -> str:
    """The options that multiply the learning rates of a run."""
    options = f" --optimizer.lr {config.optimizer.lr * factor:.2g}"
    bias_lr = config.optimizer.bias_lr
    return options if bias_lr is None else f"{options} --optimizer.bias-lr {bias_lr * factor:.2g}"
