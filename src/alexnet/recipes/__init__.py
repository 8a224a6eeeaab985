"""Complete training runs, by name: each function returns one frozen :class:`~alexnet.training.config.TrainConfig`.

A variation is a ``dataclasses.replace``, or an option of ``alexnet train RECIPE --optimizer.lr 0.02``. Input scale,
initialization and learning rate are fixed together, because they only work together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from alexnet.core.device import emulates, lacking
from alexnet.core.errors import UsageError, printable
from alexnet.core.preprocessing import Preprocessing
from alexnet.data.transforms import Augmentation
from alexnet.models import default_preprocessing, model_config
from alexnet.training.config import TrainConfig
from alexnet.training.optimizer import OptimizerConfig
from alexnet.training.schedule import Cosine, Plateau, Staged, Steps

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
"""Mean and standard deviation of ImageNet's RGB pixels, 0..255, as every library prints them."""

NO_AUGMENTATION = Augmentation(crop="center", mirror=False, color_noise=0.0)


def paper2012() -> TrainConfig:
    """The paper's text: pixels 0..255 less the mean image, std 0.01, bias 1, one rate for all layers, divided by ten
    when the validation error stops improving (§2 to §5).

    alexnet train paper2012 --data imagenet --out runs/paper2012
    Printed for ILSVRC-2012 validation: 40.7 % top-1, 18.2 % top-5 error with ten views (Table 2). Not measured here.
    """
    return TrainConfig(
        recipe="paper2012",
        network="alexnet_2012",
        model=model_config("alexnet_2012"),
        data="imagenet",
        schedule=Plateau(factor=0.1, patience=5, drops=3),
    )


def code2012() -> TrainConfig:
    """What the winning program did (layer-params-145.cfg): std 0.03 in conv3 to conv5, biases at twice the rate, its
    logged schedule with conv1 slowed and frozen, crops shared by 32 images, color noise divided by 1.1.

    alexnet train code2012 --data imagenet --out runs/code2012
    Its log: 40.66 % top-1, 18.21 % top-5 error with ten views on ILSVRC-2012 validation. Not measured here.
    """
    return TrainConfig(
        recipe="code2012",
        network="alexnet_2012_code",
        model=model_config("alexnet_2012_code"),
        data="imagenet",
        augmentation=Augmentation(crop_draws="chunk", divide_noise=True),
        optimizer=OptimizerConfig(lr=0.01, bias_lr=0.02),
        schedule=Staged(),
    )


def caffe() -> TrainConfig:
    """BVLC's reference CaffeNet (solver.prototxt): batch 256, biases at twice the rate, the rate divided by ten every 20
    epochs, inverted dropout, BGR pixels less the part of the mean image under the crop.

    alexnet train caffe --data imagenet --out runs/caffe
    Its model card: 42.6 % top-1, 19.6 % top-5 error at the center on ILSVRC-2012 validation. Not measured here.
    """
    return TrainConfig(
        recipe="caffe",
        network="caffenet",
        model=model_config("caffenet"),
        data="imagenet",
        preprocessing=default_preprocessing("caffenet"),
        augmentation=Augmentation(color_noise=0.0),
        optimizer=OptimizerConfig(lr=0.01, bias_lr=0.02),
        schedule=Steps(every=20, factor=0.1),
        batch_size=256,
    )


def owt() -> TrainConfig:
    """torchvision's `alexnet` with its reference recipe: random resized crops, SGD 0.01, batch 32, ÷10 every 30 epochs.

    alexnet train owt --data imagenet --out runs/owt
    Its model card: 43.48 % top-1, 20.93 % top-5 error at the center on ILSVRC-2012 validation. Not measured here.
    """
    return TrainConfig(
        recipe="owt",
        network="alexnet_owt",
        model=model_config("alexnet_owt"),
        data="imagenet",
        preprocessing=default_preprocessing("alexnet_owt"),
        augmentation=Augmentation(crop="resized", color_noise=0.0),
        optimizer=OptimizerConfig(kind="sgd", lr=0.01, weight_decay=1e-4, bias_weight_decay=1e-4),
        schedule=Steps(every=30, factor=0.1),
        batch_size=32,
    )


def zfnet() -> TrainConfig:
    """The network of Zeiler and Fergus (2013) with the training that they describe: batch 128, rate 0.01 lowered when the
    validation error stops improving, 70 epochs, no color noise. Two things differ: the weights decay as in 2012, which their
    paper does not mention, and kernels of conv1 to conv5 are not scaled down when their root mean square exceeds 0.1.

    alexnet train zfnet --data imagenet --out runs/zfnet
    Printed for ILSVRC-2012 validation: 38.4 % top-1, 16.5 % top-5 error with ten views. Not measured here.
    """
    return TrainConfig(
        recipe="zfnet",
        network="zfnet",
        model=model_config("zfnet"),
        data="imagenet",
        augmentation=Augmentation(color_noise=0.0),
        schedule=Plateau(factor=0.1, patience=5, drops=3),
        epochs=70,
    )


def modern() -> TrainConfig:
    """The paper's network with today's training: standardized input, He initialization with biases 0, linear warm-up and
    cosine, label smoothing, random resized crops.

    alexnet train modern --data imagenet --out runs/modern --precision bfloat16
    For some thousand photographs of your own `modern_photos` is the better recipe. Not measured on ImageNet here.
    """
    return TrainConfig(
        recipe="modern",
        network="alexnet_2012",
        model=model_config("alexnet_2012", init="he", biases=(0.0,) * 8, dropout="inverted"),
        data="imagenet",
        preprocessing=Preprocessing(mean="channel", channel_mean=IMAGENET_MEAN, std=IMAGENET_STD),
        augmentation=Augmentation(crop="resized"),
        optimizer=OptimizerConfig(kind="sgd", lr=0.02, weight_decay=5e-4),
        schedule=Cosine(warmup=5),
        label_smoothing=0.1,
    )


def paper2012_photos() -> TrainConfig:
    """`paper2012` scaled to the 7,000 photographs of Imagenette: 15 passes in batches of 32 (3,285 steps instead of
    900,000), bfloat16, and the three drops of the rate where the 2012 program's log has them, at 24, 51 and 79 of 90
    epochs, because 15 validation errors are too few to see a plateau in.

    alexnet train paper2012_photos --out runs/paper2012
    Measured on Imagenette: 38.84 % top-1 error at the center (results/imagenette.json).
    """
    return replace(
        paper2012(),
        recipe="paper2012_photos",
        data="imagenette",
        schedule=Staged(bias_drops=(24, 51, 79), conv1_slow=90, conv1_freeze=90, noise_off=90),
        **_PHOTOS,
    )


def code2012_photos() -> TrainConfig:
    """`code2012` scaled to the 7,000 photographs of Imagenette as `paper2012_photos` is; the schedule is the logged one.

    alexnet train code2012_photos --out runs/code2012
    Measured on Imagenette: 38.08 % top-1 error at the center (results/imagenette.json).
    """
    return replace(code2012(), recipe="code2012_photos", data="imagenette", **_PHOTOS)


def modern_photos() -> TrainConfig:
    """For photographs of your own, some hundred to some thousand: `modern` with batches of 32, milder crops (at least half
    of the image, because a short training underfits as it is) and 15 passes over the images. Made for the 7,000 of Imagenette.

    alexnet train modern_photos --data photos/ --out runs/mine
    Measured on Imagenette: 22.40 % top-1 error at the center (results/imagenette.json).
    """
    return replace(
        modern(),
        recipe="modern_photos",
        data="imagenette",
        augmentation=Augmentation(crop="resized", resized_area=(0.5, 1.0)),
        optimizer=OptimizerConfig(kind="sgd", lr=0.01, weight_decay=5e-4),
        schedule=Cosine(warmup=1),
        **_PHOTOS,
    )


def transfer() -> TrainConfig:
    """For photographs of your own with trained weights of others: a last layer fitted to what the convolutions compute, then
    some passes at small rates that change conv4 and conv5 too. The network sees the whole square of each photograph, at 320
    pixels.

    alexnet train transfer --data my/ --init-from alexnet-owt-trunk --out runs/my
    `alexnet train photos/` does this and tries first whether the passes help.
    """
    base = owt()
    frozen = (("conv1", 0.0), ("conv2", 0.0), ("conv3", 0.0), ("fc8", 0.1))
    return replace(
        base,
        recipe="transfer",
        data="photos",
        model=model_config("alexnet_owt", input_size=320, fc_units=(0, 0)),
        size=320,
        preprocessing=replace(base.preprocessing, resize=320, crop=320),
        augmentation=Augmentation(crop="resized", resized_area=(0.35, 1.0), color_noise=0.0),
        optimizer=OptimizerConfig(kind="sgd", lr=0.003, weight_decay=5e-4, layer_lr=frozen),
        schedule=Cosine(warmup=0.5),
        epochs=6,
        last_layer="fitted",
        views=("1",),
    )


_PHOTOS: dict[str, Any] = {"epochs": 15, "batch_size": 32, "precision": "bfloat16", "checkpoint_steps": 100}


def quickstart() -> TrainConfig:
    """The whole system in under 100 s of training on two cores: the drawn set `shapes`, and the paper's network at half
    width on 51-pixel crops. Of 51 pixels conv1 makes 23, and the pools 11, 5 and 2: as in the paper's network every window
    fits, so no pool leaves out a last row and column.

    alexnet train quickstart --out runs/quickstart
    Expected: below 10 % top-1 and 2 % top-5 error with ten views (results/quickstart.json).
    """
    return TrainConfig(
        recipe="quickstart",
        network="alexnet_2012",
        model=model_config(
            "alexnet_2012",
            input_size=51,
            conv_channels=(48, 128, 192, 192, 128),
            conv_kernels=(7, 5, 3, 3, 3),
            conv_strides=(2, 1, 1, 1, 1),
            fc_units=(1024, 1024),
            init="he",
            biases=(0.0,) * 8,
        ),
        data="shapes",
        size=56,
        preprocessing=Preprocessing(resize=56, crop=51, mean="channel", channel_mean=IMAGENET_MEAN, std=IMAGENET_STD),
        optimizer=OptimizerConfig(lr=0.02),
        schedule=Cosine(warmup=1),
        epochs=16,
        batch_size=64,
    )


def d2l_fashion_mnist() -> TrainConfig:
    """The AlexNet chapter of the textbook "Dive into Deep Learning" on Fashion-MNIST at 224 pixels, plain SGD 0.01.

    alexnet train d2l_fashion_mnist --epochs 1 --out runs/d2l
    Measured: 25.24 % error after one pass in bfloat16 (results/fashion-mnist.json).
    """
    return TrainConfig(
        recipe="d2l_fashion_mnist",
        network="alexnet_d2l",
        model=model_config("alexnet_d2l"),
        data="fashion-mnist",
        size=None,
        preprocessing=default_preprocessing("alexnet_d2l"),
        augmentation=NO_AUGMENTATION,
        optimizer=OptimizerConfig(kind="sgd", lr=0.01, momentum=0.0, weight_decay=0.0),
        schedule=Steps(every=1000),
        epochs=10,
        views=("1",),
    )


def lenet() -> TrainConfig:
    """LeNet as textbooks have it (sigmoid, average pooling, Xavier) on Fashion-MNIST, plain SGD 0.9, batch 256.

    alexnet train lenet --out runs/lenet
    Measured: 14.11 % error on the 10,000 test images (results/fashion-mnist.json).
    """
    return TrainConfig(
        recipe="lenet",
        network="lenet",
        model=model_config("lenet"),
        data="fashion-mnist",
        size=None,
        preprocessing=default_preprocessing("lenet"),
        augmentation=NO_AUGMENTATION,
        optimizer=OptimizerConfig(kind="sgd", lr=0.9, momentum=0.0, weight_decay=0.0),
        schedule=Steps(every=1000),
        epochs=20,
        batch_size=256,
        views=("1",),
    )


def cifar10() -> TrainConfig:
    """The 11 % network of §3.3 on CIFAR-10 (layers-cifar10-11pct.cfg, layer-params of the same name): 24-pixel crops, no
    color noise, the local layers and fc10 decayed, the rate divided by ten for the last 20 of 520 epochs and again for
    the last 10.

    alexnet train cifar10 --epochs 40 --out runs/cifar10
    Printed: 11 % test error, after training on all five batches with ten views. Not measured here.
    """
    return TrainConfig(
        recipe="cifar10",
        network="cifar_11pct",
        model=model_config("cifar_11pct"),
        data="cifar10",
        size=None,
        preprocessing=default_preprocessing("cifar_11pct"),
        augmentation=Augmentation(color_noise=0.0),
        optimizer=OptimizerConfig(
            lr=0.001,
            bias_lr=0.002,
            weight_decay=0.004,
            layer_weight_decay=(("conv1", 0.0), ("conv2", 0.0), ("fc10", 2.5)),
        ),
        schedule=Staged(
            of=520, drops=(500, 510), bias_drops=(500, 510), conv1_slow=520, conv1_freeze=520, noise_off=520
        ),
        epochs=520,
    )


def for_device(config: TrainConfig, device: torch.device) -> tuple[TrainConfig, list[str]]:
    """A configuration whose number format nobody named, for the start of a run: float32 where the device has no instructions
    for bfloat16. What is chosen is stored with the run, and holds wherever it goes on. Beside it the notes that
    :func:`~alexnet.recipes.run.train` says of it, once nothing is refused any more."""
    if not emulates(device, config.precision):
        return config, []
    note = (
        f"note: {lacking(device)} {config.precision}, so this run computes in float32, which is many times faster here "
        f"(--precision {config.precision} computes as the recipe says)"
    )
    return replace(config, precision="float32"), [note]


RECIPES: dict[str, Callable[[], TrainConfig]] = {
    recipe.__name__: recipe
    for recipe in (
        quickstart,
        paper2012,
        code2012,
        caffe,
        owt,
        zfnet,
        modern,
        paper2012_photos,
        code2012_photos,
        modern_photos,
        transfer,
        d2l_fashion_mnist,
        lenet,
        cifar10,
    )
}


def recipe(name: str) -> TrainConfig:
    """The configuration a name stands for; an unknown one is a :class:`UsageError` that lists the known."""
    if name not in RECIPES:
        raise UsageError(f"unknown recipe {printable(name)!r}; the recipes are {', '.join(RECIPES)}")
    return RECIPES[name]()
