"""All experiments, by group."""

from __future__ import annotations

from alexnet.claims import (
    activation,
    augmentation,
    coadaptation,
    depth,
    dropout,
    ensembles,
    gradients,
    history,
    kernels,
    labels,
    light,
    normalization,
    optimization,
    pooling,
    retrieval,
    selectivity,
    sensitivity,
    towers,
    transfer,
    units,
)
from alexnet.claims.experiment import Experiment
from alexnet.claims.ledger import CLAIMS, find_claim
from alexnet.core.errors import UsageError, perhaps, printable

EXPERIMENTS: dict[str, Experiment] = {
    experiment.id: experiment
    for group in (
        *(activation, gradients, normalization, pooling, towers, dropout, augmentation, optimization, depth, kernels),
        *(ensembles, transfer, history, retrieval, units),
        *(light, selectivity, coadaptation, sensitivity, labels),
    )
    for experiment in group.EXPERIMENTS
}


def experiments_of(claim: str) -> list[Experiment]:
    """The experiments that compare something for a claim."""
    return [experiment for experiment in EXPERIMENTS.values() if claim in experiment.claims]


def find_experiments(name: str) -> list[Experiment]:
    """Those of a claim (``C10``), or the one of this name (``lrn``). Raises :class:`UsageError`, which says why a claim
    has none."""
    if name in EXPERIMENTS:
        return [EXPERIMENTS[name]]
    if not any(claim.id.lower() == name.lower() for claim in CLAIMS):
        raise UsageError(
            f"no claim or experiment is called {printable(name)!r}{perhaps(name, EXPERIMENTS)}; `alexnet claims list` shows the "
            "claims, and `alexnet claims list C7` the experiments of one"
        )
    claim = find_claim(name)
    if found := experiments_of(claim.id):
        return found
    raise UsageError(
        f"{claim.id} has no experiment to run; `alexnet claims list {claim.id}` says why, or what is computed instead"
    )
