"""The verdicts that come with the package follow from the result files of the repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from alexnet.claims.groups import EXPERIMENTS
from alexnet.claims.runner import compare
from alexnet.claims.verdicts import documents
from alexnet.core.runs import read_json

RESULTS = Path(__file__).parents[2] / "results" / "claims"
PUBLISHED = documents(None)


@pytest.mark.parametrize("document", PUBLISHED, ids=lambda d: f"{d['experiment']}-{d['scale']}")
def test_a_published_verdict_is_that_of_its_results(document):
    results = {
        arm: [read_json(RESULTS / document["scale"] / name) for name in about["results"]]
        for arm, about in document["arms"].items()
    }
    for arm, found in results.items():
        assert [result["seed"] for result in found] == document["seeds"], arm
    experiment = EXPERIMENTS[document["experiment"]]
    assert len(experiment.comparisons) == len(document["comparisons"])
    for comparison, published in zip(experiment.comparisons, document["comparisons"], strict=True):
        again = compare(comparison, results)
        assert again["claim"] == published["claim"]
        assert again["verdict"] == published["verdict"]
        for key in ("effect", "low", "high", "smallest_effect"):
            assert again[key] == pytest.approx(published[key], rel=1e-3, abs=2e-3)


def test_at_least_ten_claims_were_trained_with_three_seeds():
    trained = {c["claim"] for d in PUBLISHED if len(d["seeds"]) >= 3 for c in d["comparisons"] if c["n"] >= 3}
    assert len(trained) >= 10
