"""What `alexnet train` makes of its options: kinds chosen on the command line, and options that would have no effect."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import attrgetter

from alexnet.cli.options import choose_kinds, given, value_of
from alexnet.core.errors import UsageError
from alexnet.models import list_models, model_config
from alexnet.models.alexnet import AlexNetConfig
from alexnet.training.config import TrainConfig

FIRST = (
    "out",
    "data",
    "epochs",
    "batch_size",
    "optimizer.lr",
    "schedule.kind",
    "precision",
    "seed",
    "init_from",
    "dry_run",
    "resume",
    "fresh",
    "device",
)
"""The options that most people need, in the order of the help."""

DECIDED = {
    "model.num_classes": "the network gets one output for each class of the data",
    "preprocessing.sample_max": "--sample-max decides it, with the data",
}
"""Fields of a configuration that are no options, and what sets them."""


def with_kinds(base: TrainConfig, arguments: Sequence[str]) -> tuple[TrainConfig, list[str]]:
    """The configuration of a recipe with the kinds that the arguments choose. A network of another kind has its own
    defaults, and reads the input that the preprocessing makes, if it can."""
    config, arguments = choose_kinds(base, arguments)
    if type(config.model) is not type(base.model):
        network = next(name for name in list_models() if model_config(name) == config.model)
        config = replace(config, network=network)
        with contextlib.suppress(
            UsageError, ValueError
        ):  # too few pixels for its defaults; no number, which is refused later
            crop = int(value_of(arguments, "preprocessing.crop") or config.preprocessing.crop)
            channels = int(value_of(arguments, "preprocessing.channels") or config.preprocessing.channels)
            config = replace(config, model=model_config(network, input_size=crop, in_channels=channels))
    return config, arguments


def refuse_unused(config: TrainConfig, base: TrainConfig, arguments: Sequence[str]) -> None:
    """Refuse an option that changes ``base`` although nothing reads it with the other settings: whoever gives it expects an
    effect."""
    for path in given(arguments):
        for paths, is_used, condition in _CONDITIONS:
            if path in paths and not is_used(config) and attrgetter(path)(config) != attrgetter(path)(base):
                raise UsageError(f"--{path.replace('_', '-')} has no effect here: it needs {condition}")


def _alexnet(holds: Callable[[AlexNetConfig], bool]) -> Callable[[TrainConfig], bool]:
    return lambda config: not isinstance(config.model, AlexNetConfig) or holds(config.model)


def _follows(word: str) -> Callable[[AlexNetConfig], bool]:
    return lambda model: any(word in stage.split() for stage in model.stages)


_LRN = ("model.lrn_size", "model.lrn_alpha", "model.lrn_alpha_times", "model.lrn_beta", "model.lrn_k")
_POOLING = ("model.pooling", "model.pool_size", "model.pool_stride", "model.pool_ceil")

_CONDITIONS: tuple[tuple[Sequence[str], Callable[[TrainConfig], bool], str], ...] = (
    (("optimizer.beta2",), lambda c: c.optimizer.kind == "adamw", "--optimizer.kind adamw"),
    (("preprocessing.channel_mean",), lambda c: c.preprocessing.mean == "channel", "--preprocessing.mean channel"),
    (("preprocessing.mean_at",), lambda c: c.preprocessing.mean == "image", "--preprocessing.mean image"),
    (
        ("augmentation.resized_area", "augmentation.resized_aspect"),
        lambda c: c.augmentation.crop == "resized",
        "--augmentation.crop resized",
    ),
    (
        ("augmentation.crop_draws",),
        lambda c: c.augmentation.crop != "center" or c.augmentation.mirror,
        "random crops or mirrored images",
    ),
    (
        ("augmentation.color_noise_of", "augmentation.divide_noise", "schedule.noise_off"),
        lambda c: c.augmentation.color_noise > 0,
        "an --augmentation.color-noise above 0",
    ),
    (
        (*_LRN, "model.lrn_crosses_towers"),
        _alexnet(lambda m: m.normalization == "lrn" and (_follows("norm")(m))),
        "--model.normalization lrn and a `norm` in --model.stages",
    ),
    (("model.normalization",), _alexnet(_follows("norm")), "a `norm` in --model.stages"),
    (_POOLING, _alexnet(_follows("pool")), "a `pool` in --model.stages"),
    (("model.joined", "model.lrn_crosses_towers"), _alexnet(lambda m: m.towers == 2), "--model.towers 2"),
    (("model.fc_units",), _alexnet(lambda m: m.head == "fc"), "--model.head fc"),
    (
        ("model.dropout", "model.dropout_place"),
        _alexnet(lambda m: m.dropout_rate > 0 and m.head == "fc"),
        "a --model.dropout-rate above 0 and --model.head fc",
    ),
    (("model.dropout_rate",), _alexnet(lambda m: m.head == "fc"), "--model.head fc"),
    (("model.weight_std",), _alexnet(lambda m: m.init == "gaussian"), "--model.init gaussian"),
    (("model.biases",), _alexnet(lambda m: m.init != "torch"), "another --model.init than torch"),
)
"""Options, when something reads them, and that condition in words."""
