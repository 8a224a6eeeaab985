"""Where the arms of experiments are trained and measured, and where their results are found again.

A result is found by what it was computed from: the configuration, the seed included, and the data. So experiments share their
arms, a stopped experiment goes on where it was, and nothing is computed or written twice.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from operator import getitem
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.claims.experiment import Arm
from alexnet.claims.results import Result, Results, means_of_neighbors
from alexnet.claims.scales import DATA_FILE, SCALES, find_scale, results_folder
from alexnet.claims.subsets import to_learn_from
from alexnet.core import rng
from alexnet.core.config import fingerprint, to_json
from alexnet.core.console import say
from alexnet.core.device import Machine
from alexnet.core.errors import NotFiniteError, UsageError, printable
from alexnet.core.runs import environment, read_json, write_json
from alexnet.data.packed import PackedSet, Subset
from alexnet.evaluation.error_rate import Evaluation, Split, evaluate_split
from alexnet.evaluation.predict import Predictor, load
from alexnet.evaluation.views import parse_views
from alexnet.models.alexnet import AlexNetConfig
from alexnet.probes.towers import PERMUTATIONS, measures_of
from alexnet.recipes.run import open_data, train
from alexnet.training.config import TrainConfig
from alexnet.training.files import has_checkpoint
from alexnet.training.initial import Initial
from alexnet.training.trainer import training_images

TRAINING_IMAGES = 10_000
"""Most training images whose error is counted again after the training."""
CURVE_POINTS, MOST_POINTS = 10, 400
"""Points of a result's curve for each epoch, and of a whole curve, at most."""
OF_AN_EPOCH = ("epoch", "train_loss", "train_top1_error", "val_top1_error", "val_loss", "lr")
"""What a result says of each epoch. Hundreds of results are published."""
ADDED_FIELDS: dict[tuple[str, ...], Any] = {
    ("sample_max",): None,
    ("preprocessing", "sample_max"): None,
    ("model", "unshared"): [],
    ("augmentation", "crops"): None,
    ("balance",): "none",
    ("ema",): 0.0,
    ("start_share",): 0.0,
    ("early_stopping",): None,
    ("last_layer",): "random",
    ("augmentation", "mixup"): 0.0,
    ("augmentation", "cutmix"): 0.0,
}
"""Fields that settings did not have when results were first published, and the value that was meant: a result keeps its key."""
COUNTS = ("n", "top1_errors", "top5_errors", "top1_error", "top5_error", "loss_nats")
"""What a result says of an evaluation."""


@dataclass(frozen=True)
class Laboratory:
    """One scale on one machine: where results are made and kept, ``out/SCALE``, and the runs beside them."""

    scale: str
    out: Path
    machine: Machine
    open_data: Callable[[TrainConfig], PackedSet]
    tunes: bool = False
    """Whether its results choose settings: of these neither the run nor the course of the training is kept, but for a race."""
    notes: list[str] = field(default_factory=list)
    """Lines that are said before the first result is computed: by then nothing is refused any more."""

    @property
    def folder(self) -> Path:
        return results_folder(self.out, self.scale)

    @cached_property
    def results(self) -> Results:
        return Results(self.folder)

    def result(self, arm: Arm, config: TrainConfig) -> Result:
        """The result of an arm with this configuration: read, or made now and written once."""
        key = result_key(arm, config)
        if (known := self.results.find(key)) is not None:
            return known
        data = self.open_data(config)
        while self.notes:
            say(self.notes.pop(0))
        made = {
            "arm": arm.name,
            "scale": self.scale,
            "seed": config.seed,
            "fingerprint": key,
            "num_classes": len(data.classes),
            **(arm.result or train_and_measure)(self, config),
            "config": to_json(config),
            "environment": environment(),
        }
        if self.tunes:
            made.pop("epochs", None)
            if config.until_train_error is None:
                made.pop("curve", None)
            shutil.rmtree(self.run_folder(config), ignore_errors=True)
        self.results.add(made)
        return made

    def for_tuning(self) -> Laboratory:
        """The same laboratory without the images that are counted: what it counts are those held out for choices."""
        return replace(self, open_data=lambda config: to_learn_from(self.open_data(config)), tunes=True)

    def require_same_data(self, config: TrainConfig) -> None:
        """Own photographs can change under their name, and results of others are no pairs: :class:`UsageError` if they are
        not those that the first result here was made from. A named set stays what it is."""
        if self.scale in SCALES:
            return
        known, data = self.folder / DATA_FILE, {"fingerprint": self.open_data(config).fingerprint}
        if not known.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(known, data)
        elif read_json(known) != data:
            raise UsageError(
                f"{printable(self.folder)} holds results for other images than those that are now in {printable(self.scale)}; "
                "take another --out"
            )

    def run_folder(self, config: TrainConfig, what: str = "") -> Path:
        """The folder of the plain run of a configuration, or, with a word, of another run with it. How images are looked at
        afterwards is no part of a run."""
        return self.folder / "runs" / (config_key(replace(config, views=("1",))) + (f"-{what}" if what else ""))


def open_laboratory(
    scale: str, out: Path, machine: Machine, data_root: str | None = None, notes: Sequence[str] = ()
) -> Laboratory:
    """A laboratory that opens each data set when it is first asked for, once, and takes of it what the scale does. ``notes``
    are what it says before its first result."""
    opened: dict[tuple[str, int | None], PackedSet] = {}
    images_of = find_scale(scale).images_of

    def data_of(config: TrainConfig) -> PackedSet:
        key = (config.data, config.size)
        if key not in opened:
            opened[key] = images_of(open_data(config, data_root, quiet=machine.quiet))
        return opened[key]

    return Laboratory(scale, out, machine, data_of, notes=list(notes))


def config_key(config: TrainConfig) -> str:
    """The key of what a result is computed from: a hash of the configuration without names and without how often checkpoints
    are written, and the seed."""
    fields = {k: v for k, v in to_json(config).items() if k not in ("recipe", "network", "checkpoint_steps", "seed")}
    for *path, name in ADDED_FIELDS:
        inner = reduce(getitem, path, fields)
        if name in inner and inner[name] == ADDED_FIELDS[*path, name]:
            del inner[name]
    return f"{fingerprint(fields)[:8]}-seed{config.seed}"


def result_key(arm: Arm, config: TrainConfig) -> str:
    """What is more than a training has its own results: the name comes last, where no plain arm's key can match it."""
    key = config_key(config)
    return f"{key}-{arm.name}" if arm.result else key


def train_and_measure(lab: Laboratory, config: TrainConfig) -> Result:
    """Train from scratch, and everything that the measures read."""
    return train_in(lab, config, lab.run_folder(config), lab.open_data(config))


def train_in(
    lab: Laboratory, config: TrainConfig, out: Path, data: PackedSet, make_initial: Callable[[], Initial] | None = None
) -> Result:
    """The result of a run in ``out``, which is trained, or goes on, unless it is finished. A training that ends in a loss
    that is not finite is a result too. ``make_initial``: the weights to start from, asked for only where there is no
    checkpoint yet."""
    begun = has_checkpoint(out) or (out / "model" / "config.json").is_file()
    initial = make_initial() if make_initial and not begun else None
    seen, plain = to_learn_from(data), replace(config, views=("1",))
    try:
        train(plain, out, lab.machine, data=seen, initial=initial, resume=True, report=False)
    except NotFiniteError as error:
        return {"diverged": str(error)}
    return measured(lab, config, data, out)


def plain_result(lab: Laboratory, config: TrainConfig) -> Result:
    """The result of the plain training of this configuration, whose model is in ``lab.run_folder(config)`` unless it
    diverged: where results were kept but not the run, it is trained again."""
    result = lab.result(Arm(name="base"), config)
    if "diverged" not in result and not (lab.run_folder(config) / "model" / "config.json").is_file():
        train_and_measure(lab, config)
    return result


def asked_of_the_network(
    function: Callable[[Laboratory, TrainConfig, Predictor], Result],
) -> Callable[[Laboratory, TrainConfig], Result]:
    """For :attr:`Arm.result`: what a function finds in the plain network of a configuration, which is trained unless it was."""

    def result(lab: Laboratory, config: TrainConfig) -> Result:
        plain = plain_result(lab, config)
        if "diverged" in plain:
            return {"diverged": plain["diverged"]}
        return function(lab, config, load(lab.run_folder(config), lab.machine.device, config.precision))

    return result


def measured(lab: Laboratory, config: TrainConfig, data: PackedSet, out: Path) -> Result:
    """The result of a finished run, counted on the held-out images of ``data``; its checkpoints are deleted."""
    rows = _log(out)
    steps = [row for row in rows if row["event"] == "step"]
    epochs = [row for row in rows if row["event"] == "epoch"]
    num = len(training_images(len(data.split("train")), config))
    counted = {name: evaluate(lab, config, data, out, data.split(data.held_out), name) for name in config.views}
    result = {
        "n": counted["1"].n,
        "n_train": num,
        "views": {name: counts_of(evaluation) for name, evaluation in counted.items()},
        "protocol": counted["1"].protocol,
        "training": training_counts(lab, config, data, out),
        "epochs": [{name: row[name] for name in OF_AN_EPOCH} for row in epochs],
        "curve": curve(steps, math.ceil(num / config.batch_size)),
        "seconds": epochs[-1]["seconds"],
        "images_seen": num * len(epochs),
    }
    if isinstance(config.model, AlexNetConfig) and config.model.towers == 2 and config.model.in_channels == 3:
        result["towers"] = tower_colors(out)
    shutil.rmtree(out / "checkpoint", ignore_errors=True)
    return result


def tower_colors(out: Path) -> dict[str, float]:
    """How far apart the towers of conv1 are in mean color selectivity, the 95th percentile of that under permutation, and the p
    of the permutation test: the share of ways to deal the kernels, the one that was found included, that part them as far."""
    kernels_KCRS = np.load(out / "results" / "conv1.npy", allow_pickle=False)
    color_K = measures_of(kernels_KCRS).color_selectivity_K
    half = len(color_K) // 2
    order_PK = rng.uniform(0, "claims/towers", 0, np.arange(PERMUTATIONS), len(color_K)).argsort(1)
    drawn_P = np.abs(color_K[order_PK[:, :half]].mean(1) - color_K[order_PK[:, half:]].mean(1))
    found = float(abs(color_K[:half].mean() - color_K[half:].mean()))
    as_far = int((drawn_P >= found - 1e-9).sum())
    return {
        "difference": found,
        "by_chance": float(np.quantile(drawn_P, 0.95)),
        "p": (1 + as_far) / (1 + PERMUTATIONS),
    }


def training_counts(lab: Laboratory, config: TrainConfig, data: PackedSet, out: Path) -> dict[str, Any]:
    """Errors and loss of training images as the finished network sees them: the center, without dropout."""
    return counts_of(evaluate(lab, config, data, out, some_training_images(config, data)))


def some_training_images(config: TrainConfig, data: PackedSet) -> Subset:
    """The images that a run learned from, or :data:`TRAINING_IMAGES` of them, drawn."""
    split = data.split("train")
    image_N = training_images(len(split), config)
    some_N = np.sort(image_N[rng.permutation(config.seed, "claims/training", 0, len(image_N))[:TRAINING_IMAGES]])
    return Subset(split, some_N, split.labels[some_N])


def counts_of(evaluation: Evaluation) -> dict[str, Any]:
    return {name: getattr(evaluation, name) for name in COUNTS}


def evaluate(
    lab: Laboratory,
    config: TrainConfig,
    data: PackedSet,
    out: Path,
    split: Split,
    views: str = "1",
    *,
    keep_probabilities: bool = False,
) -> Evaluation:
    """What the network of the finished run ``out`` answers for the images of a split, by default at the center."""
    predictor = load(out, lab.machine.device, config.precision)
    return evaluate_network(lab, config, data, predictor, split, views, keep_probabilities=keep_probabilities)


def evaluate_network(
    lab: Laboratory,
    config: TrainConfig,
    data: PackedSet,
    predictor: Predictor,
    split: Split,
    views: str = "1",
    *,
    keep_probabilities: bool = False,
) -> Evaluation:
    """The same of a network that is loaded."""
    return evaluate_split(
        predictor.model,
        split,
        config.preprocessing,
        data.mean,
        classes=data.classes,
        views=parse_views(views, config.seed),
        batch_size=config.batch_size,
        device=lab.machine.device,
        precision=config.precision,
        keep_probabilities=keep_probabilities,
    )


def curve(steps: Sequence[dict[str, Any]], steps_an_epoch: int) -> list[dict[str, float]]:
    """Mean loss and error of the steps, ten points an epoch, or fewer of a long training: what figure 1 draws."""
    width = max(1, steps_an_epoch // CURVE_POINTS, math.ceil(len(steps) / MOST_POINTS))
    last = [row["step"] / steps_an_epoch for row in steps[width - 1 :: width]]
    loss_P, error_P = (
        means_of_neighbors(np.array([row[name] for row in steps], np.float64), width) for name in ("loss", "top1_error")
    )
    rows = zip(last, loss_P.tolist(), error_P.tolist(), strict=True)
    return [{"epoch": epoch, "loss": loss, "error": error} for epoch, loss, error in rows]


def _log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
