"""Train the arms of an experiment, one result file for each arm and seed, and judge its comparisons.

A result is found again by what it was computed from: the configuration, the seed included, and the data. So experiments
share their arms, a stopped experiment goes on where it was, and nothing is computed or written twice.
"""

from __future__ import annotations

import json
import math
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from alexnet.claims.experiment import Arm, Comparison, Experiment, Result, Side, vary
from alexnet.claims.fairness import choices_on_held_out, cut_offs, objections
from alexnet.claims.measures import MEASURES, UNITS
from alexnet.claims.scales import DATA_FILE, SCALES, Scale, results_folder
from alexnet.claims.verdict import BOUND, RAN, UNFAIR, Verdict, judge, judge_each, without_verdict
from alexnet.core import rng
from alexnet.core.config import fingerprint, to_json
from alexnet.core.console import say
from alexnet.core.device import Machine
from alexnet.core.errors import NotFiniteError, UsageError, printable
from alexnet.core.runs import environment, read_json, write_json
from alexnet.data.packed import PackedSet, Part
from alexnet.evaluation.error_rate import Evaluation, Split, evaluate_split
from alexnet.evaluation.predict import load
from alexnet.evaluation.views import CENTER
from alexnet.models.alexnet import AlexNetConfig
from alexnet.probes.towers import PERMUTATIONS, measure
from alexnet.recipes.run import open_data, result_name, run, show_classes
from alexnet.training.config import TrainConfig
from alexnet.training.initial import Initial
from alexnet.training.trainer import training_images

TUNING_SEED = 1000
"""Seed of the runs that choose a learning rate; none of the compared runs has it."""
TRAINING_IMAGES = 10_000
"""Most training images whose error is counted again after the training."""
CURVE_POINTS = 10
"""Points of a result's curve for each epoch."""


@dataclass(frozen=True)
class Bench:
    """Where results are made and kept: ``out/SCALE/*.json``, and the runs beside them."""

    scale: str
    out: Path
    machine: Machine
    open_data: Callable[[TrainConfig], PackedSet]

    @property
    def folder(self) -> Path:
        return results_folder(self.out, self.scale)

    def stored(self, key: str) -> Result | None:
        """The result of this key, if it was made before."""
        found = sorted(self.folder.glob(f"*-{key}.json"))
        return read_json(found[0]) if found else None

    def result(self, arm: Arm, config: TrainConfig) -> Result:
        """The result of an arm with this configuration: read, or made now and written once."""
        key = result_key(arm, config)
        if (known := self.stored(key)) is not None:
            return known
        made = {
            "arm": arm.name,
            "scale": self.scale,
            "seed": config.seed,
            "fingerprint": key,
            "num_classes": len(self.open_data(config).classes),
            **(arm.result or train_and_measure)(self, config),
            "config": to_json(config),
            "environment": environment(),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / f"{arm.name}-{key}.json", made)
        return made

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
                f"{printable(self.folder)}: its results were made from other images than are in {printable(self.scale)} now; "
                "take another --out"
            )

    def run_folder(self, config: TrainConfig) -> Path:
        return self.folder / "runs" / config_key(config)


def config_key(config: TrainConfig) -> str:
    """The key of what a result is computed from: a hash of the configuration without names and without how often checkpoints
    are written, and the seed."""
    fields = {k: v for k, v in to_json(config).items() if k not in ("recipe", "network", "checkpoint_steps", "seed")}
    return f"{fingerprint(fields)[:8]}-seed{config.seed}"


def result_key(arm: Arm, config: TrainConfig) -> str:
    """What is more than a training has its own results: the name comes last, where no plain arm's key can match it."""
    key = config_key(config)
    return f"{key}-{arm.name}" if arm.result else key


def train_and_measure(bench: Bench, config: TrainConfig) -> Result:
    """Train from scratch, and everything that the measures read."""
    return train_in(bench, config, bench.run_folder(config), bench.open_data(config))


def train_in(
    bench: Bench, config: TrainConfig, out: Path, data: PackedSet, make_initial: Callable[[], Initial] | None = None
) -> Result:
    """The result of a run in ``out``, which is trained, or goes on, unless it is finished. A training that ends in a loss
    that is not finite is a result too. ``make_initial``: the weights to start from, asked for only where there is no
    checkpoint yet."""
    begun = (out / "checkpoint" / "last").is_file() or (out / "model" / "config.json").is_file()
    initial = make_initial() if make_initial and not begun else None
    try:
        summary = run(config, out, bench.machine, data=data, initial=initial, resume=True, report=False)
    except NotFiniteError as error:
        return {"diverged": str(error)}
    return measured(bench, config, data, out, summary)


def plain_result(bench: Bench, config: TrainConfig) -> Result:
    """The result of the plain training of this configuration, whose model is in ``bench.run_folder(config)`` unless it
    diverged: where results were kept but not the run, it is trained again."""
    result = bench.result(Arm(name="base"), config)
    if "diverged" not in result and not (bench.run_folder(config) / "model" / "config.json").is_file():
        train_and_measure(bench, config)
    return result


def measured(bench: Bench, config: TrainConfig, data: PackedSet, out: Path, summary: dict[str, Any]) -> Result:
    """The result of a finished run; its checkpoints are deleted."""
    rows = _log(out)
    steps = [row for row in rows if row["event"] == "step"]
    epochs = [row for row in rows if row["event"] == "epoch"]
    num = len(training_images(len(data.split("train")), config))
    result = {
        "n": summary["views"]["1"]["n"],
        "n_train": num,
        "views": summary["views"],
        "protocol": read_json(out / "results" / result_name("1"))["protocol"],
        "training": training_counts(bench, config, data, out),
        "epochs": [{k: v for k, v in row.items() if k not in ("event", "dead_filters")} for row in epochs],
        "curve": curve(steps, math.ceil(num / config.batch_size)),
        "seconds": epochs[-1]["seconds"],
        "images_seen": num * len(epochs),
    }
    if isinstance(config.model, AlexNetConfig) and config.model.towers == 2 and config.model.in_channels == 3:
        result["towers"] = tower_colors(out)
    shutil.rmtree(out / "checkpoint", ignore_errors=True)
    return result


def tower_colors(out: Path) -> dict[str, float]:
    """How far apart the towers of conv1 are in mean color selectivity, and the 95th percentile of that under permutation:
    what is above it is a permutation test with p below 5 %."""
    kernels_KCRS = np.load(out / "results" / "conv1.npy", allow_pickle=False)
    color_K = measure(kernels_KCRS).color_selectivity_K
    half = len(color_K) // 2
    order_PK = rng.uniform(0, "claims/towers", 0, np.arange(PERMUTATIONS), len(color_K)).argsort(1)
    drawn_P = np.abs(color_K[order_PK[:, :half]].mean(1) - color_K[order_PK[:, half:]].mean(1))
    return {
        "difference": float(abs(color_K[:half].mean() - color_K[half:].mean())),
        "by_chance": float(np.quantile(drawn_P, 0.95)),
    }


def training_counts(bench: Bench, config: TrainConfig, data: PackedSet, out: Path) -> dict[str, Any]:
    """Errors and loss of training images as the finished network sees them: the center, without dropout."""
    split = data.split("train")
    image_N = training_images(len(split), config)
    some_N = np.sort(image_N[rng.permutation(config.seed, "claims/training", 0, len(image_N))[:TRAINING_IMAGES]])
    evaluation = evaluate_center(bench, config, data, out, Part(split, some_N, split.labels[some_N]))
    counts = {name: getattr(evaluation, name) for name in ("n", "top1_errors", "top5_errors", "loss_nats")}
    return counts | {"top1_error": evaluation.top1_error, "top5_error": evaluation.top5_error}


def evaluate_center(
    bench: Bench, config: TrainConfig, data: PackedSet, out: Path, split: Split, *, keep_probabilities: bool = False
) -> Evaluation:
    """What the network of the finished run ``out`` answers to the center views of a split."""
    predictor = load(out, bench.machine.device, config.precision)
    return evaluate_split(
        predictor.model,
        split,
        config.preprocessing,
        data.mean,
        classes=data.classes,
        views=CENTER,
        batch_size=config.batch_size,
        device=bench.machine.device,
        precision=config.precision,
        keep_probabilities=keep_probabilities,
    )


def curve(steps: Sequence[dict[str, Any]], steps_an_epoch: int) -> list[dict[str, float]]:
    """Mean loss and error of the steps, ten points an epoch: what figure 1 draws."""
    width = max(1, steps_an_epoch // CURVE_POINTS)
    points = []
    for end in range(width, len(steps) + 1, width):
        some = steps[end - width : end]
        points.append(
            {
                "epoch": steps[end - 1]["step"] / steps_an_epoch,
                "loss": sum(row["loss"] for row in some) / width,
                "error": sum(row["top1_error"] for row in some) / width,
            }
        )
    return points


def _log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


# An experiment ----------------------------------------------------------------------------------------------------------


def recipe_of(experiment: Experiment, scale: Scale) -> TrainConfig:
    """What all arms of the experiment are varied from."""
    return vary(scale.network if experiment.recipe == "network" else scale.four_layer, experiment.setting)


def arms_of(experiment: Experiment, scale: Scale) -> dict[str, tuple[Arm, TrainConfig]]:
    """The arms by name, with their configurations; rates are not chosen yet."""
    base = recipe_of(experiment, scale)
    return {arm.name: (arm, vary(base, arm.changes)) for arm in experiment.arms(base)}


def run_experiment(experiment: Experiment, scale: Scale, seeds: Sequence[int], bench: Bench) -> dict[str, Any]:
    """Every arm with every seed, and the verdict of every comparison: the document of ``out/SCALE/ID.json``."""
    if not experiment.fits(scale.name):
        raise UsageError(
            f"{experiment.id} means nothing at the scale {scale.name}; its scales are {', '.join(experiment.scales)}"
        )
    bench.require_same_data(recipe_of(experiment, scale))
    results: dict[str, list[Result]] = {}
    chosen: dict[str, dict[str, Any]] = {}
    arms = arms_of(experiment, scale)
    for name, (arm, config) in arms.items():
        if arm.tuned:
            chosen[name] = _tuned(experiment, arm, config, bench)
            arms[name] = (arm, vary(config, chosen[name]))
    for seed in seeds:  # seed by seed, so that what is stopped has whole pairs
        for name, (arm, config) in arms.items():
            say(f"{experiment.id}, {name}, seed {seed}")
            results.setdefault(name, []).append(bench.result(arm, replace(config, seed=seed)))
    document = {
        "experiment": experiment.id,
        "title": experiment.title,
        "scale": scale.name,
        "says": scale.says,
        "seeds": list(seeds),
        "chosen": {name: to_json(changes) for name, changes in chosen.items()},
        "arms": {
            name: {
                "changes": {k: to_json(v) for k, v in arm.changes.items()},
                "results": [f"{r['arm']}-{r['fingerprint']}.json" for r in results[name]],
                **({"shown": shown} if (shown := [r["shown"] for r in results[name] if "shown" in r]) else {}),
            }
            for name, (arm, _) in arms.items()
        },
        "comparisons": compare_all(experiment, scale, results),
        "command": f"alexnet claims run {experiment.id} --scale {shlex.quote(scale.name)} --seeds {len(seeds)}",
        "environment": environment(),
    }
    write_json(bench.folder / f"{experiment.id}.json", document)
    return document


def _tuned(experiment: Experiment, arm: Arm, config: TrainConfig, bench: Bench) -> dict[str, Any]:
    """The arm's candidate with the lowest measure in one run. In a race to a training error a candidate is given up when the
    best before it would have been there."""
    assert arm.tuned is not None
    field, candidates = arm.tuned
    best, values = math.inf, []  # of equal ones, none of which got there, the one with the lower training error
    for candidate in candidates:
        say(f"{experiment.id}, {arm.name}, {field} {candidate}")
        tried = replace(vary(config, {field: candidate}), seed=TUNING_SEED)
        if experiment.tuned_by == "epochs_to_goal" and math.isfinite(best):
            tried = replace(tried, epochs=min(tried.epochs, math.ceil(best)))
        result = bench.result(arm, tried)
        value = value_of(Side(arm.name, experiment.tuned_by), result)
        left = result.get("training", {}).get("top1_error", 1.0)
        values.append((math.inf if value is None else value, left))
        best = min(values)[0]
    return {field: candidates[values.index(min(values))]}


def value_of(side: Side, result: Result) -> float | None:
    """The measure of a result; None if the training diverged."""
    return None if "diverged" in result else MEASURES[side.measure](result)


def compare_all(experiment: Experiment, scale: Scale, results: Mapping[str, Sequence[Result]]) -> list[dict[str, Any]]:
    """What an experiment's document says of each comparison."""
    arms = {name: arm for name, (arm, _) in arms_of(experiment, scale).items()}
    found = []
    for comparison in experiment.comparisons:
        names = (comparison.lower.arm, comparison.higher.arm)
        row = compare(comparison, arms, results, smoke=scale.name == "smoke")
        found.append(row | {"notes": choices_on_held_out(experiment, names, arms)})
    return found


def compare(
    comparison: Comparison,
    arms: Mapping[str, Arm],
    results: Mapping[str, Sequence[Result]],
    *,
    smoke: bool = False,
) -> dict[str, Any]:
    """The verdict over the seeds for which both sides have a number, or the reasons why there is none."""
    sides = (comparison.lower, comparison.higher)
    unit = UNITS.get(comparison.lower.measure, "points")
    pairs = zip(*([value_of(side, r) for r in results[side.arm]] for side in sides), strict=True)
    values = [(a, b) for a, b in pairs if a is not None and b is not None]
    diverged = {side.arm: count for side in sides if (count := sum("diverged" in r for r in results[side.arm]))}
    document = {
        "claim": comparison.claim,
        "says": comparison.says,
        "lower": vars(comparison.lower),
        "higher": vars(comparison.higher),
        "unit": unit,
        "printed": comparison.printed,
        "diverged": diverged,
    }
    if smoke:
        return document | Verdict(verdict=RAN, n=len(values)).to_json() | {"reasons": []}
    reasons = objections(comparison, arms, results)
    if not values:
        return document | Verdict(verdict=UNFAIR, n=0).to_json() | {"reasons": reasons}
    factor = 100.0 if unit == "points" else 1.0
    lower, higher = ([factor * pair[i] for pair in values] for i in (0, 1))
    quotient = unit == "times"
    cut = [cut_offs(side.measure, side.arm, results[side.arm]) for side in sides]
    if comparison.each and not reasons:
        verdict = judge_each(lower, higher)
    elif any(cut):
        word = UNFAIR if reasons or all(cut) else BOUND
        bound: Literal["at least", "at most"] | None = None if all(cut) else "at most" if cut[0] else "at least"
        verdict = without_verdict(lower, higher, word, quotient=quotient, bound=bound)
    elif reasons:
        verdict = without_verdict(lower, higher, UNFAIR, quotient=quotient)
    else:
        verdict = judge(lower, higher, quotient=quotient)
    reasons += filter(None, cut)
    return document | {"lower_values": lower, "higher_values": higher, **verdict.to_json(), "reasons": reasons}


def default_bench(scale: str, out: Path, machine: Machine, data_root: str | None = None) -> Bench:
    opened: dict[tuple[str, int | None], PackedSet] = {}

    def data_of(config: TrainConfig) -> PackedSet:
        key = (config.data, config.size)
        if key not in opened:
            opened[key] = open_data(config, data_root, quiet=machine.quiet)
            if not machine.quiet:
                show_classes(opened[key])
        return opened[key]

    return Bench(scale, out, machine, data_of)
