"""How often a comparison comes to a wrong word, by simulation of the rules of `alexnet.claims.plan`: its runs are added seed by
seed and looked at after each, until the interval decides or three times the planned number is reached.

python benchmarks/claims_error_rates.py      # writes results/claims/error-rates.json
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.claims.plan import AT_OTHERS, AT_PLAN, AT_TWICE, PILOT, POWER
from alexnet.claims.student import critical, power
from alexnet.core.runs import write_json

OUT = Path(__file__).resolve().parents[1] / "results" / "claims" / "error-rates.json"
TRIALS = 20_000
PLANS = (5, 10, 20, 40)
"""Seeds that would be planned if the spread were known."""
OTHERS = (0, 2, 6)
"""Degrees of freedom that other arms of the scale add to the spread with each seed; 0: a comparison is judged by itself."""


@cache
def shift_with_power(df: int) -> float:
    """The effect in standard errors that has 80 % power at the planned look."""
    low, high = 0.0, 60.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if power(middle, df, AT_PLAN) < POWER else (low, middle)
    return high


def rates(plan: int, others: int, effect: float, random: np.random.Generator) -> dict[str, Any]:
    """Shares of trials that came to each word, when the true effect is ``effect`` times the smallest one of interest. Differences
    of pairs have a standard deviation of 1."""

    def df(n: int) -> int:
        return n - 1 + others * n

    interest = shift_with_power(df(plan)) / np.sqrt(plan)
    most = 3 * plan
    n_S = np.arange(1, most + 1)
    difference_TS = random.normal(effect * interest, 1, (TRIALS, most))
    mean_TS = difference_TS.cumsum(1) / n_S
    squares_TS = np.maximum((difference_TS**2).cumsum(1) - n_S * mean_TS**2, 0)
    if others:
        squares_TS += random.chisquare(others, (TRIALS, most)).cumsum(1)

    def deviation(n: int) -> Any:
        return np.sqrt(squares_TS[:, n - 1] / df(n))

    def planned_from(n: int) -> Any:
        planned_T = np.full(TRIALS, 10**6)
        for k in range(PILOT, 10 * plan + 200):
            enough_T = interest * np.sqrt(k) / deviation(n) >= shift_with_power(df(n) + k - n)
            planned_T[enough_T & (planned_T == 10**6)] = k
        return planned_T

    plans = {n: planned_from(n) for n in range(2, PILOT + 1)}
    open_T, ever_T = np.ones(TRIALS, bool), np.zeros(TRIALS, bool)
    num = dict.fromkeys(("confirmed", "contradicted", "no effect as large"), 0)
    for n in range(2, most + 1):
        planned_T, mean_T, error_T = plans[min(n, PILOT)], mean_TS[:, n - 1], deviation(n) / np.sqrt(n)
        t_T = np.where(
            planned_T == n,
            critical(AT_PLAN, df(n)),
            np.where(2 * planned_T == n, critical(AT_TWICE, df(n)), critical(AT_OTHERS, df(n))),
        )
        differs_T = abs(mean_T) > t_T * error_T
        within_T = ~differs_T & (abs(mean_T) + t_T * error_T < interest)
        num["confirmed"] += int((open_T & differs_T & (mean_T > 0)).sum())
        num["contradicted"] += int((open_T & differs_T & (mean_T < 0)).sum())
        num["no effect as large"] += int((open_T & within_T).sum())
        open_T &= ~(differs_T | within_T)
        ever_T |= differs_T
    return {
        "planned": plan,
        "df_of_other_arms_a_seed": others,
        "true_effect_of_that_of_interest": effect,
        **{word: count / TRIALS for word, count in num.items()},
        "an_interval_ever_left_out_no_effect": float(ever_T.mean()),
    }


if __name__ == "__main__":
    found = [
        rates(plan, others, effect, np.random.default_rng([plan, others, int(effect)]))
        for effect in (0.0, 1.0)
        for plan in PLANS
        for others in OTHERS
    ]
    document = {
        "what": "shares of simulated comparisons by the word they came to; runs are added and looked at one seed after the "
        "other, to three times the planned number",
        "levels": {"at the planned number": AT_PLAN, "at twice that": AT_TWICE, "at any other": AT_OTHERS},
        "trials": TRIALS,
        "command": "python benchmarks/claims_error_rates.py",
        "rates": found,
    }
    write_json(OUT, document)
    none = [row for row in found if row["true_effect_of_that_of_interest"] == 0]
    print(
        "no effect, but confirmed or contradicted, at most", max(row["confirmed"] + row["contradicted"] for row in none)
    )
    print("the same without stopping, at most", max(row["an_interval_ever_left_out_no_effect"] for row in none))
    some = [row for row in found if row["true_effect_of_that_of_interest"] == 1]
    print("an effect as large, but 'no effect as large', at most", max(row["no effect as large"] for row in some))
    print("an effect as large, and confirmed, at least", min(row["confirmed"] for row in some))
