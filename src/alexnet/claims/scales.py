"""Where a claim is tried: a recipe on a data set, from seconds to the published schedule."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from alexnet.claims.subsets import only_classes, with_held_out
from alexnet.core.device import Precision, emulates, lacking
from alexnet.core.preprocessing import Preprocessing
from alexnet.data.packed import PackedSet
from alexnet.data.transforms import Augmentation
from alexnet.models import model_config
from alexnet.models.alexnet import AlexNetConfig, alexnet_2012, alexnet_2012_code
from alexnet.recipes import NO_AUGMENTATION, paper2012, paper2012_photos
from alexnet.training.config import TrainConfig
from alexnet.training.optimizer import OptimizerConfig
from alexnet.training.schedule import Staged, Steps

HISTORY = ("cifar10", "fashion-mnist")
"""Scales whose results are kept as they were made: arms were not tuned alike, choices were made on the images that are counted,
and networks were hardly better on training images than on others, so that regularization had nothing to do."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The recipes that the arms of every experiment are varied from."""

    name: str
    network: TrainConfig
    """The paper's network and training, as large as the scale allows."""
    four_layer: TrainConfig
    """The four-layer network of figure 1: no regularization of any kind."""
    says: str
    """What was scaled down, in a sentence."""
    classes: tuple[int, ...] = ()
    """Numbers of the classes that are told apart; empty: all of the set."""
    held_out: int = 0
    """Training images on which plateaus and settings are judged, at most a tenth of all. 0: there are none, and everything is
    judged on the images that are counted."""
    counts_top5: bool = True
    """Whether there are enough classes for the best five of them to say anything."""
    tuning_seeds: int = 0
    """Runs of each candidate in the search for the settings of an arm; 0: no arm is tuned."""

    @property
    def is_history(self) -> bool:
        """Whether its results are kept as they were made, before every arm was tuned alike."""
        return self.name in HISTORY

    def images_of(self, data: PackedSet) -> PackedSet:
        """What this scale takes of a set: the splits ``train``, ``tuning`` and ``test`` of its classes."""
        if self.classes:
            data = only_classes(data, np.array(self.classes))
        return with_held_out(data, self.held_out) if self.held_out else data

    def on(self, device: torch.device) -> tuple[Scale, list[str]]:
        """The scale as it is tried on a device: in float32 where the device has no instructions for bfloat16. Beside it the
        notes that a laboratory says of it, when it has its data."""
        precision = self.network.precision
        if not emulates(device, precision):
            return self, []
        note = f"note: {lacking(device)} {precision}, so all is computed in float32, which is many times faster here"
        return self.computed_in("float32"), [note]

    def computed_in(self, precision: Precision) -> Scale:
        network, four_layer = (replace(config, precision=precision) for config in (self.network, self.four_layer))
        says = self.says.replace(self.network.precision, precision)
        return replace(self, network=network, four_layer=four_layer, says=says)


def scaled_network(size: int, *, channels: tuple[int, ...], fc_units: int, in_channels: int = 3) -> AlexNetConfig:
    """The paper's network for images of ``size`` pixels, too small for 11 x 11 kernels and a stride of 4: 5 x 5 kernels at
    stride 1 in conv1. Fewer inputs to a unit would make its initial output smaller, so each layer's standard deviation is
    larger by the root of the quotient of inputs: signals start as large as in the 2012 program (0.03 in conv3 to conv5;
    with the paper's 0.01 so short a training hardly begins)."""
    config = replace(
        alexnet_2012(),
        input_size=size,
        in_channels=in_channels,
        conv_channels=channels,
        conv_kernels=(5, 5, 3, 3, 3),
        conv_strides=(1, 1, 1, 1, 1),
        conv_padding=(2, 2, 1, 1, 1),
        fc_units=(fc_units, fc_units),
    )
    return replace(config, weight_std=suited_std(config, alexnet_2012_code()))


def suited_std(config: AlexNetConfig, like: AlexNetConfig) -> tuple[float, ...]:
    """Standard deviations of the initial weights with which the sums of each layer start as large as those of another network
    with as many layers. A layer that reads nothing, because the one before it is left out, keeps that of the other."""
    layers = zip(like.weight_std, fan_ins(config), fan_ins(like), strict=True)
    return tuple(round(std * math.sqrt(then / now), 5) if now else std for std, now, then in layers)


def fan_ins(config: AlexNetConfig) -> tuple[int, ...]:
    """Inputs of one unit of each layer, conv1 .. fc8."""
    widths = (config.in_channels, *config.conv_channels[:-1])
    return (
        *(
            width // (1 if name in ("conv1", *config.joined) else config.towers) * kernel**2
            for name, width, kernel in zip(config.layer_names, widths, config.conv_kernels, strict=False)
        ),
        *config.fc_inputs(),
    )


def smoke() -> Scale:
    """The drawn set at 23 pixels, six steps: whether the code runs, and nothing else."""
    model = scaled_network(23, channels=(8, 16, 16, 16, 16), fc_units=32)
    network = _scaled(
        model, data="shapes", size=28, stored=28, epochs=2, batch_size=32, train_images=96, precision="float32"
    )
    return Scale(
        name="smoke",
        network=network,
        four_layer=_four_layer(network, epochs=2),
        says="96 drawn images of 23 pixels, 6 steps, an eighth of the network: it shows that the code runs, no more",
        held_out=48,
    )


def cifar10_small() -> Scale:
    """Four classes of CIFAR-10, two of vehicles and two of animals, and so few images that the network fits them far better
    than others, while most of the others are right: what regularization does can be seen. Color noise too."""
    model = scaled_network(24, channels=(16, 32, 48, 48, 48), fc_units=256)
    network = _scaled(
        model, data="cifar10", size=None, stored=32, epochs=100, batch_size=32, train_images=500, precision="float32"
    )
    network = replace(network, optimizer=replace(network.optimizer, lr=0.005))
    return Scale(
        name="cifar10-small",
        network=network,
        four_layer=replace(_four_layer(network, epochs=120), batch_size=network.batch_size),
        says="four classes of CIFAR-10 (airplane, automobile, frog, horse), 500 training images and 4,000 test images, 100 "
        "passes in batches of 32, a sixth of the kernels, a sixteenth of the hidden units, float32; settings are chosen on "
        "1,000 other training images",
        classes=(0, 1, 6, 7),
        held_out=1_000,
        counts_top5=False,
        tuning_seeds=3,
    )


def cifar10() -> Scale:
    """CIFAR-10, 24-pixel crops of its 32 pixels."""
    model = scaled_network(24, channels=(32, 64, 96, 96, 96), fc_units=512)
    network = _scaled(model, data="cifar10", size=None, stored=32)
    return Scale(
        name="cifar10",
        network=network,
        four_layer=replace(_four_layer(network, epochs=40), train_images=None),
        says="CIFAR-10, 10,000 training images of 32 pixels (the four-layer network: all 50,000), 15 passes in batches of "
        "64, a quarter of the kernels, an eighth of the hidden units, bfloat16",
    )


def fashion_mnist() -> Scale:
    """Fashion-MNIST, 24-pixel crops of its 28 pixels, grey."""
    model = scaled_network(24, channels=(32, 64, 96, 96, 96), fc_units=512, in_channels=1)
    network = _scaled(model, data="fashion-mnist", size=None, stored=28)
    return Scale(
        name="fashion-mnist",
        network=network,
        four_layer=_four_layer(network, epochs=40),
        says="Fashion-MNIST, 10,000 training images of 28 grey pixels, 15 passes in batches of 64, a quarter of the kernels, "
        "an eighth of the hidden units, bfloat16",
    )


def imagenette() -> Scale:
    """6,300 photographs, the whole network: `paper2012_photos`."""
    network = replace(paper2012_photos(), recipe="claims")
    return Scale(
        name="imagenette",
        network=network,
        four_layer=_four_layer(network, epochs=15),
        says="6,300 photographs of ten ImageNet classes, the whole network, 15 passes in batches of 32 (the recipe "
        "paper2012_photos); settings are chosen on 700 others",
        held_out=700,
        tuning_seeds=2,
    )


def imagenet() -> Scale:
    """ILSVRC-2012 and the published schedule, unchanged: the only scale at which the size of an effect can be judged."""
    network = replace(paper2012(), recipe="claims")
    return Scale(
        name="imagenet",
        network=network,
        four_layer=_four_layer(network, epochs=40),
        says="ILSVRC-2012 and the published schedule, unchanged; settings are chosen, and plateaus judged, on 50,000 training "
        "images that are left out",
        held_out=50_000,
        tuning_seeds=2,
    )


SCALES: dict[str, Callable[[], Scale]] = {
    "smoke": smoke,
    "cifar10-small": cifar10_small,
    "cifar10": cifar10,
    "imagenette": imagenette,
    "fashion-mnist": fashion_mnist,
    "imagenet": imagenet,
}


def find_scale(name: str) -> Scale:
    """The scale of this name; any other text is a folder or packed set of photographs, trained on as Imagenette is."""
    if name in SCALES:
        return SCALES[name]()
    photos = imagenette()
    return replace(
        photos,
        name=name,
        network=replace(photos.network, data=name),
        four_layer=replace(photos.four_layer, data=name),
        says="own photographs, the whole network, 15 passes in batches of 32 (the recipe paper2012_photos); settings are chosen "
        "on a tenth of the training images, which is left out",
    )


DATA_FILE = "data.json"
"""File beside the results on one's own photographs that says which photographs these were."""


def results_folder(out: Path, scale: str) -> Path:
    """Where the results of a scale lie; a path has a name here that is safe for a folder."""
    if scale in SCALES:
        return out / scale
    path = Path(scale).resolve()
    return out / f"{path.name}-{hashlib.sha256(bytes(path)).hexdigest()[:8]}"


def _scaled(
    model: AlexNetConfig,
    *,
    data: str,
    size: int | None,
    stored: int,
    epochs: int = 15,
    batch_size: int = 64,
    train_images: int = 10_000,
    precision: Precision = "bfloat16",
) -> TrainConfig:
    """`paper2012` with a smaller network, fewer images and fewer passes: the same pixels and update rule. The rate drops after
    two thirds and eight ninths of the passes: at the paper's times so short a training would end before it began."""
    return replace(
        paper2012(),
        recipe="claims",
        model=model,
        data=data,
        size=size,
        preprocessing=Preprocessing(resize=stored, crop=model.input_size, channels=model.in_channels),
        augmentation=Augmentation(color_noise=0.1 if model.in_channels == 3 else 0.0),
        schedule=Staged(drops=(60, 80), bias_drops=(60, 80), conv1_slow=90, conv1_freeze=90, noise_off=90),
        epochs=epochs,
        batch_size=batch_size,
        precision=precision,
        train_images=train_images,
        views=("1",),
    )


def _four_layer(network: TrainConfig, *, epochs: int) -> TrainConfig:
    """Three convolutional layers and one fully connected (`layers-19pct.cfg`), without decay, crops, mirror or noise, until
    a quarter of the training images is still wrong (figure 1)."""
    stored, channels = network.preprocessing.resize, network.preprocessing.channels
    return replace(
        network,
        network="cifar_19pct",
        model=model_config("cifar_19pct", input_size=stored, in_channels=channels),
        preprocessing=replace(network.preprocessing, crop=stored),
        augmentation=NO_AUGMENTATION,
        optimizer=OptimizerConfig(lr=0.001, weight_decay=0.0),
        schedule=Steps(every=10_000),
        epochs=epochs,
        batch_size=128,
        until_train_error=0.25,
        views=("1",),
    )
