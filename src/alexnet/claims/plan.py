"""How many seeds a comparison takes, fixed before its last look, and what each look at it may decide.

A comparison looks for its smallest effect of interest. Its plan is the number of seeds that finds an effect of that size with
:data:`POWER`, from the spread of the first :data:`PILOT` seeds; later seeds do not change it. Whoever looks while runs are added
looks many times, and each time chance may decide. So the 5 % that a claim may err by are shared out: most of them for the look at
the planned number, some for one at twice that number, and what remains for looks at any other
(``results/claims/error-rates.json`` has the rates that come out of it).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from alexnet.claims.permutation import fewest_beyond
from alexnet.claims.spread import Spread
from alexnet.claims.student import critical, power
from alexnet.core.intervals import by_chance

POWER = 0.8
PILOT = 5
"""Seeds whose spread makes the plan, and the fewest that a plan has."""
AT_PLAN, AT_TWICE, AT_OTHERS = 0.025, 0.01, 0.0002
"""Probability of a wrong *confirmed* or *contradicted* at one look, where there is no effect: at the planned number, at twice
that number, at any other."""
SMALLEST = {"points": 0.5, "nats": 0.02, "times": 1.1}
"""Smallest effect of interest where the paper prints none, by unit; of quotients the quotient."""
DIVIDED = 0.5
"""For runs that are tests of their own: the share of them that shows the effect if it is worth finding."""
MOST_SEEDS = 1_000_000


@dataclass(frozen=True)
class Look:
    """So many first seeds, judged at this level."""

    n: int
    level: float


def looks(n: int, planned: int | None) -> list[Look]:
    """What may be looked at once there are ``n`` seeds."""
    if planned is None:
        return []
    levels = {n: AT_OTHERS, planned: AT_PLAN, 2 * planned: AT_TWICE}
    return [Look(k, level) for k, level in levels.items() if k <= n]


def smallest_of_interest(unit: str, printed: float | None) -> float:
    """The printed effect, or that of the unit: in the unit."""
    return abs(printed) if printed else SMALLEST[unit]


def planned_seeds(interest: float, spread: Spread, known: int, family: int) -> int:
    """The fewest seeds, from :data:`PILOT` on, that find a difference of ``interest`` with :data:`POWER` among ``family``
    comparisons of a claim. The spread is known from ``known`` pairs; each further pair adds a degree of freedom."""
    return _fewest(lambda n: power_of(n, interest, spread, known, family) >= POWER)


def power_of(n: int, interest: float, spread: Spread, known: int, family: int) -> float:
    """The probability that ``n`` planned seeds find a difference of ``interest``."""
    error = spread.of_mean_difference(n)
    return power(interest / error, max(1, spread.df + n - known), AT_PLAN / family) if error else 1.0


def planned_flips(family: int) -> int:
    """The fewest pairs that decide in a permutation test if all of them agree: 2 of 2^n ways are as extreme."""
    return _fewest(lambda n: 2 ** (1 - n) <= AT_PLAN / family)


def planned_runs(family: int) -> int:
    """The fewest runs that show with :data:`POWER` that more are beyond their own line than chance makes, if
    :data:`DIVIDED` of them are."""
    return next(n for n in count(PILOT) if power_of_runs(n, family) >= POWER)  # not even in n: counts are whole


def power_of_runs(n: int, family: int) -> float:
    return by_chance(fewest_beyond(n, AT_PLAN / family), n, DIVIDED)


def next_look(n: int, planned: int) -> int | None:
    """Seeds up to the next planned look; None past the last."""
    return next((k - n for k in (planned, 2 * planned) if k > n), None)


def more_seeds(n: int, planned: int | None, effect: float, interest: float, spread: Spread | None, family: int) -> int:
    """Seeds up to the next planned look, or to an earlier one that decides if effect and spread stay as they are: its interval
    has to leave out either no effect or an effect of ``interest``. Without a spread, those up to one."""
    if planned is None or spread is None:
        return max(1, PILOT - n)
    margin = max(abs(effect), interest - abs(effect))

    def decides(k: int) -> bool:
        t = critical(AT_OTHERS / family, max(1, spread.df + k - n))
        return t * spread.of_mean_difference(k) < margin

    at_others = _fewest(decides, least=n + 1) - n
    return min(at_others, next_look(n, planned) or at_others)


def _fewest(enough: Callable[[int], bool], least: int = PILOT) -> int:
    """The least number from ``least`` on for which ``enough`` holds, which it does for all greater ones."""
    low, high = least - 1, least
    while not enough(high):
        low, high = high, 2 * high
        if high > MOST_SEEDS:
            return MOST_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
