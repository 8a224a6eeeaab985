"""Run the experiments of the claims one after the other, in order of worth; stopped or killed, the same command goes on.

python benchmarks/claims_queue.py --out runs/claims --list          # what is left, in hours of one core; trains nothing
nice -n 19 python benchmarks/claims_queue.py --out runs/claims
python benchmarks/claims_queue.py --scale cifar10-small --data PACKED --device cuda --minutes 9       # a GPU in slices

The order is that of GROUPS. Of each experiment all arms are tuned, then one seed of all is trained after the other. All
experiments of a group get their first seeds; then one after the other gets as many more as would decide what is inconclusive,
up to the number that is planned, and the verdicts are looked at again. What would take more seeds than its group may have stays
inconclusive. One thread, so that times are those of one core. What was trained is kept at once as a file of its own, and never
made again. PACKED is the scale's data as `alexnet prepare` packs them. Exit 75 when time was up or it was stopped, 1 if an
experiment failed (the others go on), 0 when all is there. `python benchmarks/collect_claims.py OUT` publishes what is there so
far.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import traceback
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from alexnet.claims.documents import read_documents
from alexnet.claims.experiment import arms_of
from alexnet.claims.groups import EXPERIMENTS as KNOWN
from alexnet.claims.laboratory import Laboratory, config_key, open_laboratory
from alexnet.claims.plan import PILOT
from alexnet.claims.runner import run_experiment
from alexnet.claims.scales import SCALES, Scale, find_scale
from alexnet.claims.verdicts import looks_to_come, sentence
from alexnet.core.device import Machine, choose_device
from alexnet.core.errors import StoppedError

Document = Mapping[str, Any]
Key = tuple[str, str]
"""A scale and an experiment."""
Documents = Mapping[Key, Document]


@dataclass(frozen=True)
class Group:
    """Experiments of about the same worth at a scale."""

    scale: str
    experiments: tuple[str, ...]
    most: int
    """Most seeds of an experiment, whatever its plan asks for, so that the list ends."""
    first: int = PILOT
    """Seeds of each before any gets more: those whose spread makes the plan."""


WITH_A_VERDICT = (
    *("overlap", "dropout", "towers", "crops", "tower-colors", "color-noise"),
    *("momentum", "weight-decay", "lrn", "depth", "biases"),
)
"""Those that had results before every arm was tuned; those whose arms have one search before those that have two."""
FIGURE_1 = ("gradients-suited", "relu-tanh", "relu-sigmoid")
LAST_LAYER = ("neighbors", "codes", "linear-classifier", "map")
"""What the last hidden layer is good for, of the networks that are there already: minutes, no trainings."""
NEVER_RUN = (
    *("ensembles", "update-rule", "schedules", "lrn-successors", "lrn-places", "relu-successors", "max-average"),
    *("tower-meetings", "dropout-others", "dropout-kinds", "color-noise-size", "augmentation-mistuned"),
    *("initial-weights", "sgd-noise", "depth-for-width", "lrn-constants", "fine-tuning", "lrn-cifar10"),
)
BEYOND = ("history", "six-conv", "more", "autoencoder-first", "pretrained-ensemble")
"""What came before and after, and what was only hoped for, or trained on more images than there are here."""
QUESTIONS = tuple(
    name
    for name, experiment in KNOWN.items()
    if experiment.fits("cifar10-small") and name not in {*WITH_A_VERDICT, *FIGURE_1, *LAST_LAYER, *NEVER_RUN, *BEYOND}
)
"""What the notes ask beyond the paper: every other experiment, so that a new one is queued too."""
PHOTOGRAPHS = (
    "tower-colors",
    "crops",
    "overlap",
    "towers",
    "history",
    "lrn",
    "ensembles",
    "first-kernels",
    "trunk-labels",
)
"""The whole network. It takes hours a training where there is no GPU, so it comes last."""

GROUPS = (
    Group("cifar10-small", WITH_A_VERDICT, most=60),
    Group("cifar10-small", FIGURE_1, most=20),
    Group("cifar10-small", LAST_LAYER, most=20),
    Group("cifar10-small", NEVER_RUN, most=40),
    Group("cifar10-small", BEYOND, most=40),
    Group("cifar10-small", QUESTIONS, most=40),
    Group("imagenette", PHOTOGRAPHS, most=5, first=3),
)


@dataclass(frozen=True)
class Turn:
    """An experiment, and how many seeds it has afterwards."""

    group: Group
    experiment: str
    seeds: int


def next_turn(
    groups: Sequence[Group], documents: Documents, seen: Collection[Key], failed: Collection[Key] = ()
) -> Turn | None:
    """What is to be run next; None when all is there. ``documents`` are those known so far, judged together. Those not yet
    ``seen`` by this process may be of earlier code, so they are run again, which trains nothing that is known."""
    for group in groups:
        names = [name for name in group.experiments if (group.scale, name) not in failed]
        for name in names:
            if (group.scale, name) not in seen:
                return Turn(group, name, max(group.first, seeds_of(documents.get((group.scale, name)))))
        for name in names:
            if (seeds := wanted(documents[group.scale, name], group.most)) is not None:
                return Turn(group, name, seeds)
    return None


def seeds_of(document: Document | None) -> int:
    return len(document["seeds"]) if document else 0


def wanted(document: Document, most: int) -> int | None:
    """Seeds at the nearest look that may decide something; None if there is none up to ``most``."""
    return min((look for look in looks_to_come(document) if look <= most), default=None)


# Hours ----------------------------------------------------------------------------------------------------------------

SECONDS = {"smoke": 1.0, "cifar10-small": 70.0, "imagenette": 7_742.0}
"""CPU seconds of one training of the unchanged recipe (results/claims/pilot-cifar10-small.json, steps-imagenette.json)."""
CANDIDATES = {0: 0, 1: 4, 2: 9}
"""Settings that a search tries, about, by how many fields it has."""
TRAININGS = {
    "gradients-suited": (0, 0),
    "ensembles": (0, 6),
    "history": (2, 2),
    "fine-tuning": (3.5, 3.5),
    "pretrained-ensemble": (4.5, 4.5),
    "autoencoder-first": (1.3, 1.3),
    "wrong-rates": (0, 13),
    "wrong-constants": (0, 4.5),
    **dict.fromkeys(LAST_LAYER, (0, 0.1)),
}
"""Trainings for a candidate of a search, and for a seed, where this is not one an arm: networks of half of the classes count
half, and those of the unchanged recipe are there already."""


@dataclass(frozen=True)
class Work:
    """What an experiment still takes, in hours of one core."""

    group: Group
    experiment: str
    seeds: int
    wanted: int | None
    hours: float
    """To the seeds that are wanted now."""
    hours_at_most: float
    """To the most seeds of the group."""


def work_left(groups: Sequence[Group], documents: Documents) -> list[Work]:
    """An estimate for every experiment, in the order of the queue: arms that an earlier one has trained cost nothing again."""
    found = []
    trained: set[Any] = set()
    for group in groups:
        scale = find_scale(group.scale)
        for name in group.experiments:
            of_search, of_seed = _trainings(name, scale, trained)
            document = documents.get((group.scale, name))
            seeds = seeds_of(document)
            target = wanted(document, group.most) if document else group.first
            searched = 0 if document else of_search * scale.tuning_seeds
            hours = [
                SECONDS[scale.name] / 3600 * (searched + of_seed * max(0, to - seeds))
                for to in (target or seeds, group.most if target else seeds)
            ]
            found.append(Work(group, name, seeds, target, *hours))
    return found


def _trainings(name: str, scale: Scale, trained: set[Any]) -> tuple[float, float]:
    """Trainings of the search with one tuning seed, and of one seed; those in ``trained``, to which they are added, are none."""
    arms = [
        (arm, (scale.name, config_key(replace(config, views=("1",))), arm.search))
        for arm, config in arms_of(KNOWN[name], scale).values()
    ]
    if name in TRAININGS:
        of_candidate, of_seed = TRAININGS[name]
        fields = max((len(arm.search) for arm, _ in arms), default=0)
        return CANDIDATES[fields] * of_candidate, of_seed
    new = [arm for arm, key in arms if key not in trained]
    trained.update(key for _, key in arms)
    return sum(CANDIDATES[len(arm.search)] for arm in new), len(new)


def show(left: Sequence[Work]) -> None:
    print(f"{'scale':<14} {'experiment':<22} {'seeds':>5} {'next':>5} {'hours':>7} {'at most':>8}")
    for work in left:
        following = "-" if work.wanted is None else work.wanted
        hours = f"{work.hours:7.1f} {work.hours_at_most:8.1f}"
        print(f"{work.group.scale:<14} {work.experiment:<22} {work.seeds:>5} {following:>5} {hours}")
    for scale in dict.fromkeys(work.group.scale for work in left):
        of_scale = [work for work in left if work.group.scale == scale]
        now, most = (sum(getattr(work, name) for work in of_scale) for name in ("hours", "hours_at_most"))
        print(f"{scale}: {now:.0f} core-hours to the next look at each, {most:.0f} to the most seeds of each")


# The command ------------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="runs/claims")
    parser.add_argument("--scale", choices=SCALES, metavar="SCALE", help="the groups of this scale alone")
    parser.add_argument("--data", help="packed set in the place of the scale's, at most 60 MB if it has to travel")
    parser.add_argument("--data-root", help="folder of the named sets")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--minutes", type=float, help="stop after so long; by default when all is there")
    parser.add_argument("--list", action="store_true", help="print what is left, and train nothing")
    parser.add_argument("--only", nargs="*", choices=KNOWN, metavar="EXPERIMENT", help="these alone, at SCALE")
    parser.add_argument("--seeds", type=int, default=PILOT, help="seeds of --only")
    options = parser.parse_args(arguments)
    if options.data and not options.scale:
        parser.error("--data needs --scale, whose data it stands for")
    groups = tuple(group for group in GROUPS if options.scale in (None, group.scale))
    if options.only:
        scale = options.scale or "cifar10-small"
        fit = tuple(name for name in options.only if KNOWN[name].fits(scale))
        groups = (Group(scale, fit, most=options.seeds, first=options.seeds),)
    if options.list:
        show(work_left(groups, _documents(options.out)))
        return 0
    torch.set_num_threads(1)
    machine = Machine(device=choose_device(options.device), quiet=True, workers=1, resident=options.device != "cpu")

    @cache
    def at(name: str) -> tuple[Scale, Laboratory]:
        scale, notes = find_scale(name).on(machine.device)
        if options.data:
            network, four_layer = (replace(config, data=options.data) for config in (scale.network, scale.four_layer))
            scale = replace(scale, network=network, four_layer=four_layer)
        return scale, open_laboratory(name, Path(options.out), machine, options.data_root, notes)

    seen: set[Key] = set()
    failed: set[Key] = set()
    try:
        stop_when_asked(options.minutes)
        documents = _documents(options.out)
        while turn := next_turn(groups, documents, seen, failed):
            key = (turn.group.scale, turn.experiment)
            print(f"{turn.experiment} at {turn.group.scale}: to {turn.seeds} seeds", flush=True)
            try:
                scale, lab = at(turn.group.scale)
                run_experiment(KNOWN[turn.experiment], scale, range(turn.seeds), lab)
            except StoppedError:
                raise
            except Exception:
                traceback.print_exc()
                failed.add(key)
                continue
            seen.add(key)
            documents = _documents(options.out)
            for row in documents[key]["comparisons"]:
                print(f"{row['claim']} {row['verdict']}: {sentence(row)}", flush=True)
    except StoppedError as stopped:
        print(stopped, file=sys.stderr)
        return 75
    for scale_name, name in failed:
        print(f"{name} at {scale_name} failed, see above", file=sys.stderr)
    return 1 if failed else 0


def _documents(out: str) -> dict[Key, Document]:
    """All documents, judged together."""
    return {(document["scale"], document["experiment"]): document for document in read_documents(out, [])}


def stop_when_asked(minutes: float | None) -> None:
    """Between two trainings, too, a signal ends this process as a person would; when time is up it sends itself one."""

    def stop(*_: object) -> None:
        raise StoppedError("stopped between two trainings; the same command goes on")

    signal.signal(signal.SIGTERM, stop)
    if minutes is not None:
        timer = threading.Timer(60 * minutes, os.kill, (os.getpid(), signal.SIGTERM))
        timer.daemon = True
        timer.start()


if __name__ == "__main__":
    sys.exit(main())
