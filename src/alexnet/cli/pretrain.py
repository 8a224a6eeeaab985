"""The verb pretrain."""

# No `from __future__ import annotations`: tyro must see the types of options.
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from alexnet.cli.names import long_names
from alexnet.cli.settings import take_settings
from alexnet.cli.shared import DeviceOptions, Word, check_file, machine_of, parse, print_json
from alexnet.core.errors import printable


@dataclass(frozen=True, kw_only=True)
class PretrainOptions(DeviceOptions):
    """Learn the convolutional layers of a network from pictures without their labels, as an autoencoder that draws each picture
    again. A training with --init-from starts from them; its fully connected layers are new.

    alexnet pretrain holiday/ --recipe modern --out start.safetensors

    alexnet train modern --data photos/ --out new --init-from start.safetensors

    An interrupted pre-training keeps nothing and does not resume.
    """

    data: Word
    """Folder of pictures, with or without class folders, or any other data that train takes. Images of val and test are not
    used."""
    out: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """File to write the weights into: NAME.safetensors."""
    recipe: str = "modern_photos"
    """Recipe whose network, input and crops are used. Take the one that you will train with."""
    epochs: int | None = None
    """Passes over the images; by default a third of those of the recipe."""
    batch_size: int | None = None
    """Images in one step; by default as in the recipe."""
    train_images: int | None = None
    """Learn from this many images, chosen at random by the seed; by default from all."""
    precision: Literal["float32", "tf32", "bfloat16", "float64"] | None = None
    """Number format to compute in; by default that of the recipe, or float32 on a processor without instructions for
    bfloat16."""
    seed: int = 0
    """Seed for the initial weights and every random draw."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "train_images"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"PretrainOptions.{name} is {value}; it must be at least 1")
        if not 0 <= self.seed < 2**63:
            raise ValueError(
                f"PretrainOptions.seed is {self.seed}; it must be at least 0 and less than 2 to the power of 63"
            )


def pretrain(arguments: list[str]) -> int:
    settings, _ = take_settings(long_names(arguments))
    options = parse(PretrainOptions, "pretrain", arguments)
    check_file(options.out, "--out")
    from alexnet.core.config import from_json, to_json
    from alexnet.recipes import for_device, recipe
    from alexnet.recipes import run as runs
    from alexnet.training.config import TrainConfig

    of_run = settings is not None and settings.run is not None
    base = from_json(TrainConfig, settings.run, settings.file) if settings and of_run else recipe(options.recipe)
    epochs = math.ceil(base.epochs / 3) if options.epochs is None else options.epochs
    named = {name: getattr(options, name) for name in ("data", "batch_size", "train_images", "precision", "seed")}
    config = replace(base, **{name: value for name, value in named.items() if value is not None})
    machine = machine_of(options)
    config, notes = (config, []) if options.precision else for_device(config, machine.device)
    summary = runs.pretrain(config, options.out, machine, epochs=epochs, data_root=options.data_root, notes=notes)
    if options.json:
        print_json(to_json(summary))
        return 0
    errors, layers = summary["reconstruction_error"], summary["layers"]
    before = f", {errors[0]:.3f} in the first" if len(errors) > 1 else ""
    start = f"-c {_quoted(settings.file)}" if settings and of_run else options.recipe
    passes = f"{epochs} pass{'es' if epochs > 1 else ''}"
    print(f"{summary['network']}: {layers[0]} to {layers[-1]}, learned from {summary['images']:,} images in {passes}")
    print(f"reconstruction error {errors[-1]:.3f} of the input's variance in the last pass{before}")
    print(f"{printable(options.out)}: start from it with `alexnet train {start} --init-from {_quoted(options.out)}`")
    return 0


def _quoted(path: str) -> str:
    import shlex

    return shlex.quote(printable(Path(path)))
