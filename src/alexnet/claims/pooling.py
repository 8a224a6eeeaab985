"""§3.4: overlapping pooling."""

from __future__ import annotations

from alexnet.claims.experiment import Experiment, beside_base, lower

EXPERIMENTS = (
    Experiment(
        id="overlap",
        title="Pooling windows of 3 and of 2 pixels, 2 apart",
        arms=beside_base({"no-overlap": {"model.pool_size": 2}}),
        comparisons=(
            lower("center_error", "C13", "the error is lower with overlapping windows", than="no-overlap", printed=0.4),
            lower("center_error_top5", "C13", "the top-5 error is lower with them", than="no-overlap", printed=0.3),
            lower("gap", "C13", "held-out and training error are less apart with them", than="no-overlap"),
        ),
    ),
)
