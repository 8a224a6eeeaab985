"""Several networks as one: a weighted mean of their probabilities (§6, Table 2).

The 2012 program could also search the weights on the validation images by their top-5 error (avg-valid.py), to answer for
the test images with them (avg-test.py).

Shape suffixes: M members, N images of a split, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet.core.errors import UsageError, printable
from alexnet.evaluation.classes import places
from alexnet.evaluation.error_rate import label_ranks
from alexnet.evaluation.probabilities import Probabilities

STEPS = (0.25, 0.125, 0.0625, 0.03125, 0.015625)
"""Changes of one weight that a search tries, the large ones first; all weights together are 1."""


def combine(members: Sequence[Probabilities], weights: Sequence[float] | None = None) -> Probabilities:
    """The mean of the members' probabilities, with ``weights`` (normalized to sum 1) or equally, of classes in the order of the
    first member. Members that did not answer for the same images, in the same order, with the same labels, or that know
    other classes, raise :class:`UsageError` naming the first difference."""
    members = _aligned(members)
    weights = [1.0] * len(members) if weights is None else list(weights)
    if len(weights) != len(members) or not all(0 <= w < math.inf for w in weights) or not 0 < sum(weights) < math.inf:
        raise UsageError(f"weights are {weights}; {len(members)} members need one each, none negative, not all zero")
    first = members[0]
    total_NK = np.full(first.log_probability_NK.shape, -np.inf)
    for weight, member in zip(weights, members, strict=True):
        if share := weight / sum(weights):
            np.logaddexp(total_NK, math.log(share) + member.log_probability_NK, out=total_NK)
    return Probabilities(
        total_NK.astype(np.float32), first.label_N, first.paths, first.classes, _protocol(members, weights)
    )


def searched_weights(members: Sequence[Probabilities]) -> tuple[float, ...]:
    """The weights, of sum 1, with which these images are answered with the fewest top-5 errors, then the fewest top-1 errors,
    then the least loss, as far as coordinate steps find them: from equal weights on, each member's in turn is raised and
    lowered by a step, the others keeping their proportions, until no step helps; then by smaller ones (:data:`STEPS`).
    The members are those of :func:`combine`. A search looks at labels: judge its weights on other images."""
    members = _aligned(members)
    p_MNK = torch.from_numpy(np.exp([member.log_probability_NK.astype(np.float64) for member in members]))
    label_N = torch.from_numpy(members[0].label_N)

    def score(weight_M: NDArray[np.float64]) -> tuple[int, int, float]:
        p_NK = torch.tensordot(torch.from_numpy(weight_M), p_MNK, dims=1)
        rank_N = label_ranks(p_NK, label_N)
        loss = -float(p_NK.gather(1, label_N[:, None]).clamp(min=1e-300).log().mean())
        return int((rank_N >= 5).sum()), int((rank_N >= 1).sum()), round(loss, 9)

    best_M = np.full(len(members), 1 / len(members))
    best = score(best_M)
    for step in STEPS:
        improved = True
        while improved:
            improved = False
            for m in range(len(members)):
                for change in (step, -step):
                    weight_M = _with_one_changed(best_M, m, change)
                    if weight_M is not None and (found := score(weight_M)) < best:
                        best, best_M, improved = found, weight_M, True
    return tuple(best_M.tolist())


def _with_one_changed(weight_M: NDArray[np.float64], m: int, change: float) -> NDArray[np.float64] | None:
    """The weights with that of ``m`` changed, from 0 to 1, and the others in proportion; None where they are all 0."""
    others = weight_M.sum() - weight_M[m]
    if others <= 0:
        return None
    own = float(np.clip(weight_M[m] + change, 0, 1))
    changed_M: NDArray[np.float64] = weight_M * ((1 - own) / others)
    changed_M[m] = own
    return changed_M


def _aligned(members: Sequence[Probabilities]) -> list[Probabilities]:
    """The members with the classes in the order of the first one, once it is sure that all answered for the same images."""
    if not members:
        raise UsageError("an ensemble needs at least one member")
    first = members[0]
    members = [first, *(_in_order(member, first.classes, number) for number, member in enumerate(members[1:], start=2))]
    for number, member in enumerate(members[1:], start=2):
        _require_same("image", first.paths, member.paths, number)
        _require_same("label", _names(first), _names(member), number)
    return members


def _in_order(member: Probabilities, classes: Sequence[str], number: int) -> Probabilities:
    """The answers of a member for classes in this order."""
    if member.classes == tuple(classes):
        return member
    one, other = "the first member of the ensemble", f"member {number}"
    for ours, theirs, who, whom in ((classes, member.classes, one, other), (member.classes, classes, other, one)):
        if alone := np.flatnonzero(places(ours, theirs) < 0).tolist():
            raise UsageError(
                f"{who} knows the class {printable(ours[alone[0]])!r} and {whom} does not; all members must tell the same "
                "classes apart"
            )
    place_K = places(classes, member.classes)
    return replace(
        member,
        log_probability_NK=member.log_probability_NK[:, place_K],
        label_N=np.argsort(place_K)[member.label_N],
        classes=tuple(classes),
    )


def _names(member: Probabilities) -> list[str]:
    return [member.classes[label] for label in member.label_N.tolist()]


def _require_same(what: str, ours: Sequence[Any], theirs: Sequence[Any], number: int) -> None:
    if len(ours) != len(theirs):
        raise UsageError(
            f"member {number} of the ensemble has {len(theirs)} {what} entries, the first has {len(ours)}; "
            "all members must answer for the same data"
        )
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if a != b:
            raise UsageError(
                f"member {number} of the ensemble has {printable(b)!r} as {what} {i}, the first has {printable(a)!r}; "
                "all members must answer for the same data"
            )


def _protocol(members: Sequence[Probabilities], weights: Sequence[float]) -> dict[str, Any]:
    """What the members' protocols share, and each one's own beside its weight."""
    protocols = [member.protocol for member in members]
    shared = {key: value for key, value in protocols[0].items() if all(key in p and p[key] == value for p in protocols)}
    views = sorted({str(p.get("views", "")) for p in protocols})
    return {
        **shared,
        "views": "+".join(views),
        "ensemble": [
            {"weight": weight / sum(weights), **{k: v for k, v in p.items() if k not in shared}}
            for weight, p in zip(weights, protocols, strict=True)
        ],
    }
