"""Run an experiment: tune every arm, train every arm with every seed, and judge its comparisons."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from alexnet.claims.comparison import compare_all, value_of
from alexnet.claims.experiment import Arm, Experiment, Side, arms_of, recipe_of, vary
from alexnet.claims.laboratory import Laboratory
from alexnet.claims.results import Result, name_of
from alexnet.claims.scales import Scale
from alexnet.claims.tuning import FIRST_SEED, scaled, tune
from alexnet.core.config import to_json
from alexnet.core.console import say
from alexnet.core.errors import UsageError
from alexnet.core.runs import environment, write_json
from alexnet.training.config import TrainConfig


def run_experiment(experiment: Experiment, scale: Scale, seeds: Sequence[int], lab: Laboratory) -> dict[str, Any]:
    """Every arm with every seed, and the verdict of every comparison: the document of ``out/SCALE/ID.json``."""
    if not experiment.fits(scale.name):
        raise UsageError(
            f"the experiment {experiment.id} cannot be run at the scale {scale.name}, only at {', '.join(experiment.scales)}"
        )
    lab.require_same_data(recipe_of(experiment, scale))
    results: dict[str, list[Result]] = {}
    chosen: dict[str, dict[str, Any]] = {}
    tuning: dict[str, dict[str, Any]] = {}
    arms = arms_of(experiment, scale)
    for name, (arm, config) in arms.items():
        if arm.search:
            say(f"experiment {experiment.id}: {name}, tuning")
            found = tune(lab, arm, config, measure=experiment.tuned_by, seeds=scale.tuning_seeds)
            chosen[name], tuning[name] = found.chosen, found.document
        elif arm.tuned:
            chosen[name] = _best_of_one_seed(experiment, arm, config, lab)
        elif arm.rate_of:
            leader, factor = arm.rate_of
            chosen[name] = scaled(arms[leader][1], "optimizer.lr", factor)
        arms[name] = (arm, vary(config, chosen.get(name, {})))
    for seed in seeds:  # seed by seed, so that what is stopped has whole pairs
        for name, (arm, config) in arms.items():
            say(f"experiment {experiment.id}: {name}, seed {seed}")
            results.setdefault(name, []).append(lab.result(arm, replace(config, seed=seed)))
    document = {
        "experiment": experiment.id,
        "title": experiment.title,
        "scale": scale.name,
        "says": scale.says,
        "seeds": list(seeds),
        "chosen": {name: to_json(changes) for name, changes in chosen.items()},
        "tuning": tuning,
        "arms": {
            name: {
                "changes": {k: to_json(v) for k, v in arm.changes.items()},
                "results": [name_of(r) for r in results[name]],
                **({"shown": shown} if (shown := [r["shown"] for r in results[name] if "shown" in r]) else {}),
            }
            for name, (arm, _) in arms.items()
        },
        "comparisons": compare_all(experiment, scale, results),
        "command": f"alexnet claims run {experiment.id} --scale {shlex.quote(scale.name)} --seeds {len(seeds)}",
        "environment": environment(),
    }
    write_json(lab.folder / f"{experiment.id}.json", document)
    return document


def _best_of_one_seed(experiment: Experiment, arm: Arm, config: TrainConfig, lab: Laboratory) -> dict[str, Any]:
    """The arm's candidate with the lowest measure in one run. In a race to a training error a candidate is given up when the
    best before it would have been there."""
    assert arm.tuned is not None
    field, candidates = arm.tuned
    best, values = math.inf, []  # of equal ones, none of which got there, the one with the lower training error
    for candidate in candidates:
        say(f"experiment {experiment.id}: {arm.name}, trying {field} {candidate}")
        tried = replace(vary(config, {field: candidate}), seed=FIRST_SEED)
        if experiment.tuned_by == "epochs_to_goal" and math.isfinite(best):
            tried = replace(tried, epochs=min(tried.epochs, math.ceil(best)))
        result = lab.result(arm, tried)
        value = value_of(Side(arm.name, experiment.tuned_by), result)
        left = result.get("training", {}).get("top1_error", 1.0)
        values.append((math.inf if value is None else value, left))
        best = min(values)[0]
    return {field: candidates[values.index(min(values))]}
