"""Table 2: several networks that answer as one.

Shape suffixes: N images, K classes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from alexnet.claims.experiment import Arm, Comparison, Experiment, Side, lower
from alexnet.claims.laboratory import Laboratory, counts_of, evaluate, plain_result, train_in
from alexnet.claims.results import Result
from alexnet.claims.subsets import Numbers, halves_of, only_images_of
from alexnet.data.packed import PackedSet
from alexnet.evaluation.ensemble import combine, searched_weights
from alexnet.evaluation.error_rate import count
from alexnet.evaluation.probabilities import Probabilities, load_probabilities
from alexnet.training.config import TrainConfig

SIZES = (2, 5, 7)
"""Networks of an ensemble: Table 2 has five and seven."""
MEMBER_SEEDS = 10_000
"""Step between the seeds of an ensemble's members; the first has the seed of the result, as the plain network does."""


def member_config(config: TrainConfig, member: int) -> TrainConfig:
    return replace(config, seed=config.seed + MEMBER_SEEDS * member)


def ensemble(size: int, *, search: bool = False) -> Callable[[Laboratory, TrainConfig], Result]:
    """The mean of the probabilities of ``size`` networks; with ``search``, with searched coefficients."""

    def result(lab: Laboratory, config: TrainConfig) -> Result:
        train = partial(plain_result, lab, config)
        members = members_of(lab, config, lab.open_data(config), size, lab.run_folder(config), train, "member")
        if isinstance(members, dict):
            return members
        return ensemble_result(members, search_seed=config.seed if search else None)

    return result


def members_of(
    lab: Laboratory,
    config: TrainConfig,
    data: PackedSet,
    size: int,
    first: Path,
    train_first: Callable[[], Result],
    name: str,
) -> list[Probabilities] | Result:
    """The answers of networks that differ in their seed alone: all learn from the training images of the first, which is a run
    that other arms know too."""
    same = only_images_of(data, config)
    members = []
    for i in range(size):
        member, out = member_config(config, i), lab.run_folder(config, f"{name}-{i}")
        train = partial(train_in, lab, member, out, same)
        found = answers_of(lab, member, same, *((first, train_first) if i == 0 else (out, train)))
        if isinstance(found, dict):
            return found
        members.append(found)
        if i > 0:
            forget_model(out)
    return members


def forget_model(out: Path) -> None:
    """The answers stay: a model of the whole network takes over 200 MB, and nothing else asks for those of further members."""
    shutil.rmtree(out / "model", ignore_errors=True)


def answers_of(
    lab: Laboratory, config: TrainConfig, data: PackedSet, out: Path, train: Callable[[], Result]
) -> Probabilities | Result:
    """What the network of the run in ``out`` answers for the held-out images, at the center; ``train`` is called first, unless
    they were kept. A training that diverged is returned as the result that it is."""
    if (saved := out / "answers.npz").is_file():
        return load_probabilities(saved)
    result = train()
    if "diverged" in result:
        return result
    evaluation = evaluate(lab, config, data, out, data.split(data.held_out), keep_probabilities=True)
    assert evaluation.probabilities is not None
    evaluation.probabilities.save(saved)
    return evaluation.probabilities


def ensemble_result(members: Sequence[Probabilities], search_seed: int | None = None) -> Result:
    """Errors of the ensemble, and of each member alone. With searched coefficients each half of the images is answered with
    those that were the best for the other half, so that all images count and none was seen by its own search."""
    result: Result = {"members": [counts_of(count(member)) for member in members]}
    if search_seed is None:
        evaluation = count(combine(members))
    else:
        halves = halves_of(len(members[0].label_N), search_seed, "claims/search")
        coefficients = [searched_weights([_some(member, half) for member in members]) for half in halves]
        answers = [
            combine([_some(member, half) for member in members], weights)
            for half, weights in zip(halves, reversed(coefficients), strict=True)
        ]
        evaluation = count(
            replace(
                members[0],
                log_probability_NK=np.concatenate([answer.log_probability_NK for answer in answers]),
                label_N=np.concatenate([answer.label_N for answer in answers]),
                paths=tuple(path for answer in answers for path in answer.paths),
            )
        )
        result["coefficients"] = coefficients
    return {"n": evaluation.n, "views": {"1": counts_of(evaluation)}, "protocol": evaluation.protocol, **result}


def _some(answers: Probabilities, image_N: Numbers) -> Probabilities:
    return replace(
        answers,
        log_probability_NK=answers.log_probability_NK[image_N],
        label_N=answers.label_N[image_N],
        paths=tuple(answers.paths[i] for i in image_N),
    )


def _ensembles(_base: TrainConfig) -> Sequence[Arm]:
    return (
        *(Arm(name=f"ensemble-{size}", result=ensemble(size), same_training=True) for size in SIZES),
        *(Arm(name=f"searched-{size}", result=ensemble(size, search=True), same_training=True) for size in SIZES[1:]),
    )


def _against_members(size: int, printed: tuple[float | None, float | None] = (None, None)) -> tuple[Comparison, ...]:
    arm = f"ensemble-{size}"
    return tuple(
        Comparison(
            claim="C29",
            says=f"the {name}error of the mean of {size} networks is lower than theirs alone",
            lower=Side(arm, f"center_error{suffix}"),
            higher=Side(arm, f"members_error{suffix}"),
            printed=effect,
        )
        for name, suffix, effect in (("", "", printed[0]), ("top-5 ", "_top5", printed[1]))
    )


EXPERIMENTS = (
    Experiment(
        id="ensembles",
        title="Ensembles of 2, 5 and 7 networks, with equal and with searched coefficients",
        arms=_ensembles,
        comparisons=(
            *_against_members(2),
            *_against_members(5, (2.6, 1.8)),
            *_against_members(7),
            *(
                lower(
                    measure,
                    "N27",
                    f"the {name}error of {size} networks is lower with searched coefficients than with equal ones",
                    arm=f"searched-{size}",
                    than=f"ensemble-{size}",
                )
                for size in SIZES[1:]
                for name, measure in (("top-5 ", "center_error_top5"), ("", "center_error"))
            ),
        ),
    ),
)
