"""Train on photographs with nothing else said, as ``alexnet train PHOTOS`` does: which network, from which weights, for how long.

The choice is an ordinary configuration, made in three steps that can be looked at: :func:`propose` chooses everything but the
length from the listing of the images, :func:`plan` fits the length to the time there is, measured on this machine, and
:func:`~alexnet.recipes.run.train` carries it out.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from PIL import Image

from alexnet.core.console import say
from alexnet.core.device import Machine, choose_device, emulates
from alexnet.core.errors import DataError, ImageError, UsageError, perhaps, printable
from alexnet.core.preprocessing import Preprocessing
from alexnet.data.named import NAMED_SETS, find_source
from alexnet.data.packed import PackedSet, is_packed, open_packed
from alexnet.data.sources import Source, class_counts, class_faults
from alexnet.interop.weights import KNOWN, name_here
from alexnet.models.alexnet import AlexNetConfig
from alexnet.recipes import IMAGENET_MEAN, IMAGENET_STD, RECIPES, modern_photos, quickstart
from alexnet.recipes.look import is_uneven, look
from alexnet.recipes.pace import Pace
from alexnet.recipes.pretrained import LEAST, PARTS, configured, train_from, with_best_layer
from alexnet.recipes.run import find_data, train
from alexnet.training.config import TrainConfig
from alexnet.training.initial import Initial, load_initial
from alexnet.training.schedule import Cosine
from alexnet.training.trainer import checkpoint_bytes, require_possible

MINUTES = 15.0
"""Most minutes that a run is planned for where nothing is said."""
STEPS = 1500
"""Steps that a network needs from random weights, at least, where there is time."""
EPOCHS = (15, 300)
"""Fewest passes over the images that are planned from random weights where there is time, and most."""
PHOTOGRAPH = 96
"""Shorter side from which images are taken for photographs."""
SHRUNK = 40
"""Pixels below which the first layer of `quickstart` would leave too few."""
FEW = 3000
"""Photographs below which a small network on small pictures learns more in the same time than the paper's."""
HEADERS = 32
"""Images whose size is read to know how large those of a set are."""
SAVED_BYTES = 300e6
"""Bytes of checkpoints that are written in a second, on a slow disk."""


@dataclass(frozen=True)
class Images:
    """What is known of a set before it is decoded."""

    classes: list[str]
    of_class: list[int]
    """Training images of each class."""
    side: int
    """Shorter side of the images in pixels: the median of some."""
    channels: int
    stored: int | None = None
    """Side at which they are packed already; None if they are not."""


@dataclass(frozen=True)
class Proposal:
    """A configuration of which all but the length is chosen, with the weights that it starts from, and why."""

    config: TrainConfig
    initial: Initial | None
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """A run that is ready to begin."""

    config: TrainConfig
    initial: Initial | None
    seconds: dict[str, float]
    """What each part of it will take, estimated from a few steps: features, training or tuning, evaluation."""
    lines: tuple[str, ...]
    tries: bool = False
    """Whether it is first tried on some of the training images if tuning helps."""


def train_photos(
    photos: str | Path,
    out: str | Path | None = None,
    *,
    init_from: str | Path | None = None,
    minutes: float | None = None,
    machine: Machine | None = None,
    data_root: str | Path | None = None,
) -> dict[str, Any]:
    """Train a network on photographs in class folders, or on any other data, with nothing else said.

    ``init_from``: trained weights to start from; by default those of :data:`~alexnet.interop.weights.KNOWN` that are in the
    cache, else none. ``minutes``: how long it may take. ``out``: the folder of the run, by default ``runs/PHOTOS-1`` or the
    first number that is free. Returns the summary of :func:`~alexnet.recipes.run.train`.

    To change what is chosen: ``proposed = propose(...)``, then :func:`plan` with any ``dataclasses.replace`` of it. Raises
    :class:`DataError` for data that cannot be learned from, :class:`UsageError` for weights that do not fit."""
    machine = machine or Machine(device=choose_device())
    require_minutes(minutes)
    require_data(photos)
    proposal = propose(photos, init_from=init_from, data_root=data_root)
    data = find_data(proposal.config, data_root, quiet=machine.quiet)
    out = Path(out) if out is not None else new_run(photos)
    planned = plan(proposal, data, machine, out, minutes=minutes)
    for line in (*look(data, str(photos)).lines, *planned.lines):
        say(line)
    return carry_out(planned, out, machine, data=data)


def carry_out(
    planned: Plan,
    out: Path,
    machine: Machine,
    *,
    data: PackedSet,
    resume: bool = False,
    change: bool = False,
    fresh: bool = False,
) -> dict[str, Any]:
    """Train as it was planned; the options are those of :func:`~alexnet.recipes.run.train`."""
    config, initial = planned.config, planned.initial
    begun = resume and (out / "config.json").is_file()
    if config.last_layer == "fitted" and initial is not None and not begun:
        config = with_best_layer(config, data, initial, machine)
    if planned.tries and initial is not None:
        return train_from(config, out, machine, data=data, initial=initial, resume=resume, fresh=fresh)
    return train(config, out, machine, data=data, initial=initial, resume=resume, change=change, fresh=fresh)


def require_data(photos: str | Path) -> None:
    """:class:`UsageError` for a word that is neither data nor a recipe."""
    word = str(photos)
    if word in NAMED_SETS or (word and Path(word).exists()):
        return
    raise UsageError(
        f"{printable(word)} is no recipe{perhaps(word, [*RECIPES, *NAMED_SETS])} and no folder or file; `alexnet train --help` "
        "lists the recipes"
    )


def require_minutes(minutes: float | None) -> None:
    if minutes is not None and not 0 < minutes < math.inf:
        raise UsageError(f"--minutes is {minutes:g}; it must be more than 0, as 20 or 0.5")


def new_run(photos: str | Path) -> Path:
    """``runs/PHOTOS-N`` with the first number that is free."""
    name, number = _name(photos), 1
    while (Path("runs") / f"{name}-{number}").exists():
        number += 1
    return Path("runs") / f"{name}-{number}"


def newest_run(photos: str | Path) -> Path:
    """The ``runs/PHOTOS-N`` with the largest number; with 1 if there is none."""
    pattern = re.compile(re.escape(_name(photos)) + r"-([1-9]\d*)")
    there = Path("runs").iterdir() if Path("runs").is_dir() else ()
    numbers = [int(match[1]) for path in there if (match := pattern.fullmatch(path.name))]
    return Path("runs") / f"{_name(photos)}-{max(numbers, default=1)}"


def _name(photos: str | Path) -> str:
    path = Path(photos).absolute()
    return path.stem if path.is_file() else path.resolve().name or "photos"


# --- what to train ----------------------------------------------------------------------------------------------------


def propose(
    photos: str | Path, *, init_from: str | Path | None = None, data_root: str | Path | None = None
) -> Proposal:
    """Choose network, input, batches and balance for the images of ``photos``, which are listed and not decoded, and the weights
    to start from."""
    images = list_images(photos, data_root)
    if init_from is not None:
        return _from_weights(str(photos), images, load_initial(init_from))
    here = name_here()
    if here is None:
        wanted = "" if images.channels != 3 else _what_weights_change()
        return _from_scratch(str(photos), images, wanted)
    proposal = _from_weights(str(photos), images, load_initial(here))
    reads = proposal.config.preprocessing
    if images.channels != reads.channels:
        return _from_scratch(
            str(photos), images, f"{here} is in the cache, but reads color, and these images are grey."
        )
    if images.stored is not None and images.stored < (least := max(reads.crop, PHOTOGRAPH)):
        why = f"{here} is in the cache, but needs {least} pixels, and the set is packed at {images.stored}."
        return _from_scratch(str(photos), images, why)
    return proposal


def _what_weights_change() -> str:
    """What to do where no trained weights are in the cache."""
    name = next(known.name for known in KNOWN if known.package is not None)
    return f"`alexnet weights get {name}` would let it start from trained layers: far fewer errors on a small set."


def list_images(photos: str | Path, data_root: str | Path | None = None) -> Images:
    """List data and read the size of some of its images. Raises :class:`DataError` for what cannot be learned from."""
    if is_packed(Path(photos)):
        packed = open_packed(photos)
        of_class = packed.class_counts.get("train")
        images = Images(packed.classes, of_class or [], packed.size, packed.channels, packed.size)
    else:
        source = find_source(photos, data_root=data_root)
        for fault in class_faults(source):
            raise DataError(f"{printable(photos)}: {printable(fault.path)}: {fault.reason}")
        of_class = class_counts(source).get("train")
        images = Images(list(source.classes), of_class or [], _side(source), source.channels)
    if len(images.classes) < 2:
        raise DataError(f"{printable(photos)}: holds one class; a classifier needs two or more")
    if not images.of_class:
        raise DataError(
            f"{printable(photos)}: no images to train on; put class folders with images into a folder train"
        )
    return images


def _side(source: Source) -> int:
    """The median of the shorter sides of some images."""
    if source.size is not None:
        return source.size
    sides = []
    for record in source.records[:: max(1, len(source.records) // HEADERS)]:
        try:
            content = record.read()
            if isinstance(content, bytes):
                with Image.open(io.BytesIO(content)) as image:
                    sides.append(min(image.size))
            else:
                sides.append(min(content.shape[:2]))
        except (ImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue  # it is named when the set is decoded
    return int(median(sides)) if sides else PHOTOGRAPH


def _from_weights(photos: str, images: Images, initial: Initial) -> Proposal:
    config = replace(configured(initial), data=photos, **_balance(images))
    if images.stored is not None:  # a network without fc6 takes squares of any size
        made, model = config.preprocessing, config.model
        crop = made.crop
        if isinstance(model, AlexNetConfig) and not any(model.fc_units):
            crop, model = images.stored, replace(model, input_size=images.stored)
        made = replace(made, crop=crop, resize=max(images.stored, crop))
        config = replace(config, size=None, preprocessing=made, model=model)
    line = f"Plan: start from {printable(initial.source)}, a trained {initial.network}{_uneven(images)}."
    return Proposal(config, initial, (line,))


def _from_scratch(photos: str, images: Images, note: str) -> Proposal:
    """The training of `modern_photos` with a network and batches for these images."""
    base, num = modern_photos(), sum(images.of_class)
    size = images.stored or (256 if images.side >= PHOTOGRAPH and num >= FEW else 56)
    crop = size * 7 // 8 if size >= PHOTOGRAPH else size * 51 // 56
    colors = images.channels == 3
    made = Preprocessing(
        resize=size,
        crop=crop,
        channels=images.channels,
        mean="channel",
        channel_mean=IMAGENET_MEAN if colors else (118.0,),
        std=IMAGENET_STD if colors else (58.0,),
    )
    given: dict[str, Any] = {"input_size": crop, "in_channels": images.channels}
    model: Any = (base if size >= PHOTOGRAPH else quickstart()).model
    if crop < SHRUNK:  # so that conv1 makes about 23 pixels, as in `quickstart`
        given |= {"conv_kernels": (5, 5, 3, 3, 3), "conv_strides": (1, 1, 1, 1, 1)}
    config = replace(
        base,
        data=photos,
        size=None if images.stored else size,
        model=replace(model, **given),
        preprocessing=made,
        # Grey sets are mostly of characters, which are others when they are mirrored.
        augmentation=replace(base.augmentation, mirror=colors),
        batch_size=8 if num < 500 else 16 if num < 2000 else 32,
        **_balance(images),
    )
    line = f"Plan: train {config.network} from random weights on {crop} x {crop} pixels{_uneven(images)}."
    return Proposal(config, None, (line, *([note] if note else [])))


def _balance(images: Images) -> dict[str, Any]:
    return {"balance": "sampler"} if is_uneven(images.of_class) else {}


def _uneven(images: Images) -> str:
    return ", showing each class equally often" if is_uneven(images.of_class) else ""


# --- how long ---------------------------------------------------------------------------------------------------------


def plan(
    proposal: Proposal,
    data: PackedSet,
    machine: Machine,
    out: str | Path,
    *,
    minutes: float | None = None,
    fixed: Collection[str] = (),
) -> Plan:
    """Fit the epochs of a proposal to ``minutes``, by default :data:`MINUTES` at most, from a few steps that are measured; where
    the fields ``fixed`` hold ``epochs``, ``schedule.warmup`` or ``precision``, these stay. What cannot be trained is refused as
    by :func:`~alexnet.recipes.run.train`; :class:`UsageError` where not even one epoch fits."""
    config, initial = proposal.config, proposal.initial
    require_minutes(minutes)
    if emulates(machine.device, config.precision) and "precision" not in fixed:
        config = replace(config, precision="float32")
    require_possible(config, data, machine, initial, Path(out))
    images = min(config.train_images or len(data.split("train")), len(data.split("train")))
    steps, val = math.ceil(images / config.batch_size), len(data.split(data.held_out))
    pace = Pace(config, machine, len(data.classes))
    step = min(pace.step(config.precision) for _ in range(3))
    answer = min(pace.answer() for _ in range(2))
    saving = checkpoint_bytes(pace.model, config) / SAVED_BYTES
    fitted = config.last_layer == "fitted"
    tries = fitted and "epochs" not in fixed and images // PARTS >= LEAST
    before = {"features": 2 * images * answer} if fitted else {}
    after = {"evaluation": val * answer * sum(_views(views) for views in config.views)}
    epoch = steps * step + val * answer + saving
    if tries:  # all but one part of the images are learned from twice
        epoch += epoch * (PARTS - 1) / PARTS
    left = (MINUTES if minutes is None else minutes) * 60 - sum(before.values()) - sum(after.values())
    if "epochs" not in fixed:
        wanted = config.epochs if initial is not None else min(max(EPOCHS[0], math.ceil(STEPS / steps)), EPOCHS[1])
        wanted = wanted if tries or not fitted else 0
        epochs = max(0, min(wanted, int(left // epoch)))
        if epochs < 1 and not fitted:
            least = in_words(epoch + sum(after.values()))
            raise UsageError(
                f"one pass over the images and the evaluation take {least} here, and there are {minutes or MINUTES:g} minutes; "
                "give more --minutes, or say how many --epochs"
            )
        config = _of_length(config, epochs, fixed)
    seconds = before | ({"tuning" if fitted else "training": config.epochs * epoch} if config.epochs else {}) | after
    lines = [*proposal.lines, *_steps_in_words(config, images, steps, tries=tries and config.epochs > 0)]
    if initial is None and config.epochs * steps < STEPS / 2:
        lines.append(
            f"That is little: from random weights a network needs some {STEPS:,} steps; give it more --minutes."
        )
    lines.append(f"Time: {in_words(sum(seconds.values()))}{_parts(seconds)}.")
    if minutes is not None and sum(seconds.values()) > 60 * minutes:
        lines.append(f"That is more than --minutes {minutes:g}; there is nothing left to shorten.")
    return Plan(config, initial, seconds, tuple(lines), tries and config.epochs > 0)


def _steps_in_words(config: TrainConfig, images: int, steps: int, *, tries: bool) -> list[str]:
    """What is done in which order."""
    passes = f"{config.epochs:,} pass{'es' if config.epochs != 1 else ''} over the {images:,} training images"
    passes += f" in batches of {config.batch_size}: {config.epochs * steps:,} steps."
    if config.last_layer != "fitted":
        return [passes]
    lines = [f"First fit a last layer to what the other layers compute of the {images:,} training images."]
    if tries:
        lines.append("Then try on a fifth of these whether tuning the upper layers helps, and if so:")
    if config.epochs:
        return [*lines, passes]
    return [*lines, "That is all: for tuning there are too few images, or there is too little time."]


def _of_length(config: TrainConfig, epochs: int, fixed: Collection[str]) -> TrainConfig:
    """A configuration with so many epochs, and its warm-up in proportion."""
    schedule = config.schedule
    if isinstance(schedule, Cosine) and "schedule.warmup" not in fixed and config.epochs:
        schedule = replace(schedule, warmup=schedule.warmup * epochs / config.epochs)
    return replace(config, epochs=epochs, schedule=schedule)


def _views(views: str) -> int:
    return int(views.rpartition(":")[2])


def in_words(seconds: float) -> str:
    """A time as people say it: about 40 seconds, about 4 minutes, about 2 hours 10 minutes."""
    if seconds < 55:
        return f"about {max(10, 10 * round(seconds / 10))} seconds"
    minutes = max(1, round(seconds / 60))
    if minutes < 120:
        return f"about {minutes} minute{'s' if minutes != 1 else ''}"
    return f"about {minutes // 60} hours {minutes % 60 // 10 * 10} minutes"


def _parts(seconds: dict[str, float]) -> str:
    """How a time of some minutes is divided."""
    if sum(seconds.values()) < 110:
        return ""
    parts = [(name, part / 60) for name, part in seconds.items() if part >= 5]
    words = [f"{'less than 1' if minutes < 0.75 else round(minutes)} for {name}" for name, minutes in parts]
    return ": " + ", ".join(words) if len(words) > 1 else ""
