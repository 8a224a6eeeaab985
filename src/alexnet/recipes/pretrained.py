"""Start from trained weights: a last layer fitted to what their layers compute, then, if it helps, some passes at small rates.

Whether the passes help is tried first, on training images alone: four fifths of each class are learned from, the last fifth is
asked. It is asked of the tuned weights, and of means of these and the fitted ones: what tuning on few images adds and what it
spoils lie on the same line (Wortsman et al., "Robust fine-tuning of zero-shot models", 2022). The images that a run holds out
have no part in any choice.
"""

from __future__ import annotations

import shutil
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import nn

from alexnet.core import rng
from alexnet.core.config import from_json, to_json
from alexnet.core.console import Bar, say
from alexnet.core.device import Machine
from alexnet.core.errors import AlexNetError, UsageError
from alexnet.core.runs import read_json, write_json
from alexnet.data.packed import PackedSet, Subset, with_parts
from alexnet.evaluation.error_rate import evaluate_split
from alexnet.evaluation.views import CENTER
from alexnet.models import model_config
from alexnet.models.alexnet import AlexNetConfig
from alexnet.models.states import read_settings
from alexnet.recipes import transfer
from alexnet.recipes.run import train
from alexnet.report.tables import number, read_log
from alexnet.training.config import TrainConfig
from alexnet.training.files import sole_trainer
from alexnet.training.head import Head, with_fitted_head
from alexnet.training.initial import Initial, misfit
from alexnet.training.trainer import fit, mix

PARTS = 5
"""Of each class, one of so many parts is asked in the trial."""
LEAST = 40
"""Images that a trial needs to ask, to say anything."""
SHARES = (0.75, 0.5, 0.25, 0.0)
"""Shares of the fitted weights in the mean with the tuned ones that the trial compares."""
TRIAL = ".trial"
"""Folder of a run in which tuning is tried."""
RECORD = "trial.json"


@dataclass(frozen=True)
class Mean:
    """A mean of the fitted and the tuned weights, and what it does for the images that were left out."""

    start_share: float
    """Share of the fitted weights."""
    errors: int
    loss: float


@dataclass(frozen=True)
class Trial:
    """What tuning did for images that were left out of the training images."""

    n: int
    head_errors: int
    head_loss: float
    epochs: int
    """Passes that were tried."""
    means: tuple[Mean, ...]

    @property
    def best(self) -> Mean:
        return min(self.means, key=lambda mean: mean.loss)

    @property
    def helps(self) -> bool:
        """Whether the loss is lower after it, and there are no more errors: a few errors fewer may be chance, and with a higher
        loss the network has learned the training images by heart."""
        return self.best.loss < self.head_loss and self.best.errors <= self.head_errors

    def to_json(self) -> dict[str, Any]:
        return cast(dict[str, Any], to_json(self)) | {"helps": self.helps}

    def __str__(self) -> str:
        best = self.best
        verdict = "so the network is tuned" if self.helps else "so the fitted layer is kept as it is"
        mixed = f", mixed with {best.start_share:.0%} of the fitted weights" if best.start_share else ""
        return (
            f"tuning tried on {self.n} training images that were left out: {self.head_errors} errors before (loss "
            f"{self.head_loss:.3f}), {best.errors} after {self.epochs} passes{mixed} ({best.loss:.3f}), {verdict}"
        )


def candidates(initial: Initial) -> list[TrainConfig]:
    """Configurations that start from these weights, one for each layer that a new last layer can read: the end of the
    convolutions, then fc6 and fc7 where the weights hold them.

    A network of convolutions alone takes the whole stored square, somewhat enlarged (:func:`~alexnet.recipes.transfer`); with fc6
    it needs the size that it was trained with. Raises :class:`UsageError` for weights of no network here."""
    base = transfer()
    model = initial.model or model_config(initial.network)
    made = initial.preprocessing
    known = replace(base, network=initial.network, model=model, preprocessing=made, size=made.resize)
    if not isinstance(model, AlexNetConfig):
        found = [replace(known, optimizer=replace(base.optimizer, layer_lr=()))]
    else:
        side = base.preprocessing.resize if made.resize == 256 else made.resize
        whole = replace(made, resize=side, crop=side)
        cut = replace(model, fc_units=(0, 0), input_size=side)
        found = [replace(known, model=cut, preprocessing=whole, size=side)]
        fc6, fc7 = model.fc_units
        if model.head == "fc" and fc6 and _holds(initial, "fc6"):
            found.append(replace(known, model=replace(model, fc_units=(fc6, 0))))
            if fc7 and _holds(initial, "fc7"):
                found.append(known)
    if (why := misfit(initial, found[0])) is not None:
        raise UsageError(f"{why}; name other weights with --init-from")
    return found


def _holds(initial: Initial, layer: str) -> bool:
    return any(name.startswith(f"{layer}.") for name in initial.tensors)


def configured(initial: Initial) -> TrainConfig:
    """The first of :func:`candidates`: what the weights of convolutions alone can do."""
    return candidates(initial)[0]


def with_best_layer(config: TrainConfig, data: PackedSet, initial: Initial, machine: Machine) -> TrainConfig:
    """The configuration with that network, and the input it needs, whose fitted last layer has the lowest loss on training images
    left out: one of :func:`candidates`. The errors of each are said. One whose network is none of these stays as it is."""
    choices = [replace(config, model=one.model, preprocessing=one.preprocessing) for one in candidates(initial)]
    if len(choices) == 1 or config.model not in [one.model for one in choices]:
        return config
    heads: list[Head] = []
    for i, choice in enumerate(choices, 1):
        with Bar(f"features {i} of {len(choices)}", len(data.split("train")), quiet=machine.quiet) as bar:
            heads.append(with_fitted_head(choice, data, initial, machine, progress=bar)[1])
    found = [head.chosen for head in heads]
    names = ["fc7" if all(one.model.fc_units) else "fc6" if any(one.model.fc_units) else "pool5" for one in choices]  # type: ignore[union-attr]
    tried = {name: one for name, one in zip(names, found, strict=True) if one is not None}
    if not tried:  # one image in each class
        return config
    best = min(tried, key=lambda name: tried[name].loss_nats)
    errors = ", ".join(f"{one.left_out.error:.1%} for {name}" for name, one in tried.items())
    say(f"the last layer reads {best}; errors on training images that were left out: {errors}")
    return choices[names.index(best)]


def train_from(
    config: TrainConfig,
    out: str | Path,
    machine: Machine,
    *,
    data: PackedSet,
    initial: Initial,
    fresh: bool = False,
    resume: bool = False,
) -> dict[str, Any]:
    """Train from these weights as :func:`~alexnet.recipes.run.train` does, but try first whether tuning helps, and leave it out
    if not; if it does, keep the share of the fitted weights that did best, unless the configuration names one. A run that has
    begun goes on as it was decided. The summary says what came of the trial."""
    out = Path(out)
    begun = resume and (out / "config.json").is_file()
    trial: Trial | None = None
    if begun:
        decided = read_settings(out).get("train", {}).get("start_share", 0.0)
        config = replace(config, start_share=config.start_share or decided)
    elif config.epochs:
        trial = try_tuning(config, data, machine, initial, out, fresh=fresh)
        if trial is not None and trial.helps:
            config = replace(config, start_share=trial.best.start_share)
        else:
            config = replace(config, epochs=0)
    summary = train(config, out, machine, data=data, initial=initial, resume=resume, fresh=fresh)
    if trial is not None:
        write_json(out / "results" / RECORD, trial.to_json())
        shutil.rmtree(out / TRIAL, ignore_errors=True)
    done = _recorded(out / "results" / RECORD)
    return summary | ({"trial": done.to_json()} if done else {})


def try_tuning(
    config: TrainConfig, data: PackedSet, machine: Machine, initial: Initial, out: Path, *, fresh: bool = False
) -> Trial | None:
    """Train on four fifths of the training images, and compare the errors on the last fifth before and after; None where that
    leaves fewer than :data:`LEAST` images to ask. What was done is found again in ``out/.trial``."""
    parts = _parted(data, config.seed)
    if len(parts.split("val")) < LEAST:
        say(
            f"{len(data.split('train')):,} training images are too few to try on some of them whether tuning helps, so the "
            "fitted last layer is kept as it is"
        )
        return None
    with sole_trainer(out):
        folder = out / TRIAL
        if fresh:
            shutil.rmtree(folder, ignore_errors=True)
        elif (done := _recorded(folder / RECORD)) is not None:
            return done
        say(f"trying on {len(parts.split('val')):,} of the training images whether tuning helps")
        learned_N = cast(Subset, parts.splits["train"]).image_N
        with Bar("features for the last layer", len(data.split("train")), quiet=machine.quiet) as bar:
            start, _ = with_fitted_head(config, data, initial, machine, image_N=learned_N, progress=bar)
        alone = replace(config, start_share=0.0)
        tuned = fit(alone, parts, folder, machine, initial=start, resume=(folder / "config.json").is_file()).model
        log = read_log(folder / "log.jsonl")
        head = log.head or {}
        shares = (config.start_share,) if config.start_share else SHARES
        trial = Trial(
            n=int(number(head["n"])),
            head_errors=int(number(head["top1_errors"])),
            head_loss=number(head["loss_nats"]),
            epochs=len(log.epochs),
            means=tuple(_mean(config, parts, machine, start, tuned, share) for share in shares),
        )
        write_json(folder / RECORD, trial.to_json())
        shutil.rmtree(folder / "checkpoint")
    say(trial)
    return trial


def _mean(
    config: TrainConfig, parts: PackedSet, machine: Machine, start: Initial, tuned: nn.Module, start_share: float
) -> Mean:
    """What a mean of both weights does for the images that were left out."""
    mean = deepcopy(tuned)
    mix(mean.state_dict(), start.tensors, tuned.state_dict(), start_share)
    result = evaluate_split(
        mean,
        parts.split("val"),
        config.preprocessing,
        parts.mean,
        classes=parts.classes,
        views=CENTER,
        batch_size=config.batch_size,
        device=machine.device,
        precision=config.precision,
        workers=machine.workers,
    )
    return Mean(start_share, result.top1_errors, result.loss_nats)


def _recorded(file: Path) -> Trial | None:
    try:
        known = read_json(file)
        return from_json(Trial, {name: known[name] for name in Trial.__dataclass_fields__})
    except (AlexNetError, OSError, LookupError, TypeError):
        return None


def _parted(data: PackedSet, seed: int) -> PackedSet:
    """The training images in two splits, with a fifth of each class in the second."""
    split = data.split("train")
    label_N = np.asarray(split.labels, dtype=np.int64)
    asked_N = rng.rank_in_class(label_N, seed, "transfer/trial") % PARTS == PARTS - 1
    parts = {
        name: Subset(split, image_N, label_N[image_N])
        for name, image_N in (("train", np.flatnonzero(~asked_N)), ("val", np.flatnonzero(asked_N)))
    }
    return with_parts(data, parts, data.classes)
