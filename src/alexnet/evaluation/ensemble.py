"""Several networks as one: a weighted mean of their probabilities (§6, Table 2).

The 2012 program could also search the weights on the validation set (avg-valid.py); a search that looks at the labels
it is then scored on is not offered.

Shape suffixes: N images of a split, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from alexnet.core.errors import UsageError, printable
from alexnet.evaluation.classes import places
from alexnet.evaluation.probabilities import Probabilities


def combine(members: Sequence[Probabilities], weights: Sequence[float] | None = None) -> Probabilities:
    """The mean of the members' probabilities, with ``weights`` (normalized to sum 1) or equally, of classes in the order of the
    first member. Members that did not answer for the same images, in the same order, with the same labels, or that know
    other classes, raise :class:`UsageError` naming the first difference."""
    if not members:
        raise UsageError("an ensemble needs at least one member")
    weights = [1.0] * len(members) if weights is None else list(weights)
    if len(weights) != len(members) or not all(0 <= w < math.inf for w in weights) or not 0 < sum(weights) < math.inf:
        raise UsageError(f"weights are {weights}; {len(members)} members need one each, none negative, not all zero")
    first = members[0]
    members = [first, *(_in_order(member, first.classes, number) for number, member in enumerate(members[1:], start=2))]
    for number, member in enumerate(members[1:], start=2):
        _require_same("image", first.paths, member.paths, number)
        _require_same("label", _names(first), _names(member), number)

    total_NK = np.full(first.log_probability_NK.shape, -np.inf)
    for weight, member in zip(weights, members, strict=True):
        if share := weight / sum(weights):
            np.logaddexp(total_NK, math.log(share) + member.log_probability_NK, out=total_NK)
    return Probabilities(
        total_NK.astype(np.float32), first.label_N, first.paths, first.classes, _protocol(members, weights)
    )


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
