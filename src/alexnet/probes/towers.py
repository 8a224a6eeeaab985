"""The tower meter: whether the kernels of one tower look for color and those of the other do not (§6.1, Figure 3),
in numbers.

Shape suffixes: K kernels, C channels, R rows, S columns, F frequencies, P permutations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet.core import rng
from alexnet.core.errors import UsageError, printable
from alexnet.core.intervals import by_chance, combined
from alexnet.evaluation.finding import Finding
from alexnet.evaluation.subject import Subject
from alexnet.probes.kernels import Kernels, KernelSettings, named_kernels
from alexnet.report.pictures.towers import draw_runs, draw_towers

Array = NDArray[np.float64]

PERMUTATIONS = 10_000
LINE = 0.05
"""A run is beyond its own line if so few of the permutations of its kernels, or fewer, part the towers as far as it did."""
QUANTILES = (0.1, 0.25, 0.75, 0.9)
COLORFUL = 0.5
"""Kernels above this color selectivity are counted: color holds more of their energy than grey."""
CHANCE = 2 / 3
"""Color selectivity of a kernel of independent weights, on average: two of the three color axes are not grey."""
MEASURES = ("color_selectivity", "frequency", "orientation_selectivity")
"""What is compared between the towers."""
DEFINITIONS = {
    "color_selectivity": "share of a kernel's energy (sum of squares, its mean included) that is orthogonal to the grey axis "
    "(1, 1, 1) / sqrt 3; independent weights have 2/3 on average",
    "color_axis": "direction in RGB with the most energy of the kernel (first right singular vector), largest entry positive",
    "frequency": "where the two-dimensional power spectrum of the kernel's projection on its color_axis has its peak, in "
    "cycles/pixel; 0 for a blob without stripes; spectrum padded with zeros to 8 times the kernel's side, less one",
    "orientation_selectivity": "|sum of P exp(2 i theta)| / sum of P over that spectrum, of the projection less its mean; 0 for "
    "no orientation, 1 for one alone",
    "orientation_degrees": "of the stripes, counterclockwise from horizontal, 0 to 180: half the angle of that sum, plus 90",
}


TITLE = "How the towers share the work"
SENTENCE = (
    "In 2012 the kernels of one tower came out without color and those of the other with it, in every run (§6.1). This measures "
    "whether they do here."
)


@dataclass(frozen=True, kw_only=True)
class Settings(KernelSettings):
    """The tower meter: do the kernels of one tower look for color, and those of the other not (§6.1)? Of several runs it says
    for each, and whether more of them are divided than chance divides.

    alexnet probe towers runs/mine

    alexnet probe towers runs/seed-0 runs/seed-1 runs/seed-2

    alexnet probe towers caffenet.npz --towers 2 --channel-order bgr --out towers/
    """

    more: tuple[str, ...] = field(default=(), metadata={"positional": True})
    """Further runs, checkpoints, model folders or files of weights, each to be tested and all to be counted together."""
    seed: int = 0
    """Seed for the permutations of the test."""


def measure(subject: Subject, settings: Settings) -> Finding:
    """The tower meter of the kernels of a layer."""
    of, kernels, meter = _metered(subject, settings)
    test = f"two-sided permutation test of the difference of means, {PERMUTATIONS:,} permutations of the kernels of this network"
    body = {"layer": kernels.layer, "chance": CHANCE, **meter.to_json()}
    n = len(kernels.kernels_KCRS)
    lines = [f"{kernels.layer} of {printable(of['network'])}: {kernels.how}", *_lines(meter)]
    pictures = {"towers.png": draw_towers({**body, "network": of["network"], "n": n})}
    summary, protocol = _summary(meter), {}
    if settings.more:
        runs = [
            _run(str(subject.model), of, kernels, meter),
            *(_run(model, *_metered(replace(subject, model=model), settings)) for model in settings.more),
        ]
        together = runs_together(runs)
        body |= {"runs": runs, "together": together}
        summary |= _together_summary(together)
        lines += _together_lines(runs, together)
        pictures["towers-runs.png"] = draw_runs(body)
        protocol["together"] = (
            f"of each measure: the runs with p <= {LINE}, the probability that so many or more have it where no run's towers "
            "differ (binomial), and Fisher's p of the product of all p, which for permutation tests is on the safe side"
        )
    return Finding(
        subject=of,
        n={"kernels": n, "runs": 1 + len(settings.more)} if settings.more else n,
        summary=summary,
        body=body,
        protocol={
            **protocol,
            "kernels": kernels.how,
            "definitions": DEFINITIONS,
            "colorful_share": f"share of kernels with a color selectivity above {COLORFUL}",
            "tests": f"{test}, p not corrected for the number of measures"
            if meter.tests
            else "none: there is one tower",
        },
        lines=lines,
        pictures=pictures,
    )


def _metered(subject: Subject, settings: Settings) -> tuple[dict[str, Any], Kernels, TowerMeter]:
    """Whose the kernels of a subject are, the kernels, and what the meter says of them."""
    kernels, of = named_kernels(subject, settings)
    return of, kernels, tower_meter(kernels.kernels_KCRS, kernels.num_towers, settings.seed)


def _run(name: str, of: dict[str, Any], kernels: Kernels, meter: TowerMeter) -> dict[str, Any]:
    """One of several runs in a document. One without two towers: :class:`UsageError`."""
    if not meter.tests:
        raise UsageError(
            f"{printable(name)}: {kernels.layer} has no two towers to compare; several runs are counted together if each has"
        )
    return {
        "run": name,
        "network": of["network"],
        "model": of["model"],
        "kernels_sha256": sha256(kernels.kernels_KCRS.tobytes()).hexdigest(),
        "tests": {measure: asdict(test) | {"beyond": test.p <= LINE} for measure, test in meter.tests.items()},
    }


def runs_together(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each measure: how many ``runs`` have it, how many are beyond their own line, with which probability chance alone
    puts so many there, and the p of all tests together. The same kernels twice: :class:`UsageError`."""
    seen: dict[str, str] = {}
    for run in runs:
        if (same := seen.setdefault(run["kernels_sha256"], run["run"])) is not run["run"]:
            raise UsageError(f"{printable(run['run'])} has the kernels of {printable(same)}: each run counts once")
    together = {}
    for measure in MEASURES:
        tests = [run["tests"][measure] for run in runs if measure in run["tests"]]
        beyond = sum(test["beyond"] for test in tests)
        together[measure] = {
            "runs": len(tests),
            "beyond_own_line": beyond,
            "expected_by_chance": LINE * len(tests),
            "p_of_count": by_chance(beyond, len(tests), LINE),
            "p": combined([test["p"] for test in tests]),
        }
    return together


def _together_summary(together: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {
        f"runs whose towers differ in {measure.replace('_', ' ')}": f"{found['beyond_own_line']} of {found['runs']}, p = "
        f"{found['p']:.2g}"
        for measure, found in together.items()
    }


def _together_lines(runs: Sequence[dict[str, Any]], together: dict[str, dict[str, Any]]) -> list[str]:
    lines = ["", "color selectivity of each run: difference of means, what 95 % of permutations stay below, p"]
    for run in runs:
        test = run["tests"].get("color_selectivity")
        figures = f"{test['difference']:+.3f} {test['line']:>6.3f} {test['p']:>8.2g}" if test else "not measured"
        lines.append(f"  {figures}  {printable(run['run'])}")
    for measure, found in together.items():
        lines.append(
            f"{measure.replace('_', ' ')}: towers differ (p <= {LINE}) in {found['beyond_own_line']} of {found['runs']} runs, by "
            f"chance in {found['expected_by_chance']:.2g} (p = {found['p_of_count']:.2g}); all together: p = {found['p']:.2g}"
        )
    return lines


def _summary(meter: TowerMeter) -> dict[str, float | str]:
    """The headline figures."""
    summary: dict[str, float | str] = {
        f"color selectivity, median, tower {tower['tower']}": tower["color_selectivity"]["median"]
        for tower in meter.towers
    }
    for name, test in meter.tests.items():
        summary[f"{name.replace('_', ' ')}, difference of means"] = f"{test.difference:+.3f}, p = {test.p:.2g}"
    return summary


def _lines(meter: TowerMeter) -> list[str]:
    lines = [
        "                    color selectivity   above   preferred frequency   orientation selectivity",
        "         kernels      median     mean     0.5    median, cycles/pixel                    median",
    ]
    for tower in meter.towers:
        color, frequency, orientation = (tower[name] for name in MEASURES)
        lines.append(
            f"tower {tower['tower']} {tower['kernels']:>8} {color['median']:>11.3f} {color['mean']:>8.3f} "
            f"{tower['colorful_share']:>7.0%} {frequency['median']:>23.3f} {orientation['median']:>25.3f}"
        )
    for name, result in meter.tests.items():
        lines.append(
            f"{name.replace('_', ' ')}: difference of means {result.difference:+.3f}, p = {result.p:.2g}, "
            f"AUC {result.auc:.3f}, Cliff's delta {result.cliffs_delta:+.3f}"
        )
    if not meter.tests:
        lines.append("the network has one tower, so there is nothing to compare")
    return lines


@dataclass(frozen=True, eq=False)
class Measures:
    """The measures of each kernel; NaN for a kernel without energy, and for the orientation of a constant one."""

    color_selectivity_K: Array
    color_axis_K3: Array
    frequency_K: Array
    """Cycles/pixel."""
    orientation_degrees_K: Array
    orientation_selectivity_K: Array
    energy_K: Array

    def of(self, name: str) -> Array:
        """The measure of this name, one of ``MEASURES``: (K,)."""
        values_K: Array = getattr(self, f"{name}_K")
        return values_K


@dataclass(frozen=True)
class Comparison:
    """How the second tower compares with the first in one measure."""

    difference: float
    """Mean of the second less mean of the first."""
    p: float
    """Two-sided: (1 + permutations with a difference at least as large) / (1 + permutations)."""
    auc: float
    """Probability that a kernel of the second tower has more than one of the first; a tie counts one half."""
    cliffs_delta: float
    """2 auc - 1: from -1 (every kernel of the first tower has more) to 1."""
    permutations: int
    line: float
    """What the size of the difference stays below in 95 % of the permutations."""


@dataclass(frozen=True, eq=False)
class TowerMeter:
    """The measures of all kernels, each tower's distribution, and the tests; no tests with one tower."""

    measures: Measures
    num_towers: int
    towers: tuple[dict[str, Any], ...]
    tests: dict[str, Comparison]

    def to_json(self) -> dict[str, Any]:
        m = self.measures
        per_tower = len(m.energy_K) // self.num_towers
        return {
            "towers": list(self.towers),
            "tests": {name: asdict(test) for name, test in self.tests.items()},
            "kernels": [
                {
                    "kernel": k,
                    "tower": k // per_tower + 1,
                    "color_selectivity": _or_none(m.color_selectivity_K[k]),
                    "color_axis": [_or_none(value) for value in m.color_axis_K3[k]],
                    "frequency": _or_none(m.frequency_K[k]),
                    "orientation_degrees": _or_none(m.orientation_degrees_K[k]),
                    "orientation_selectivity": _or_none(m.orientation_selectivity_K[k]),
                    "energy": float(m.energy_K[k]),
                }
                for k in range(len(m.energy_K))
            ],
        }


def tower_meter(
    kernels_KCRS: NDArray[np.floating[Any]], num_towers: int, seed: int = 0, permutations: int = PERMUTATIONS
) -> TowerMeter:
    """Measure kernels (K, 3, R, S) in RGB order, the first tower's first, and compare two towers by a permutation test of
    the difference of means. The kernels of one network are the sample: p says whether *these* towers differ, not whether
    every run's do. Grey kernels, or towers that do not divide them: :class:`UsageError`."""
    if kernels_KCRS.ndim != 4 or kernels_KCRS.shape[1] != 3:
        raise UsageError(
            f"the kernels have shape {kernels_KCRS.shape}; the tower meter measures color, so it needs a network that reads "
            "three channels (`alexnet probe kernels` draws any)"
        )
    if num_towers not in (1, 2) or len(kernels_KCRS) % num_towers:
        raise UsageError(
            f"{len(kernels_KCRS)} kernels in {num_towers} towers: the meter takes one tower, or two equal ones"
        )
    measures = measures_of(kernels_KCRS)
    parts = np.split(np.arange(len(kernels_KCRS)), num_towers)
    towers = tuple(
        {"tower": number, "kernels": len(part)}
        | {name: _distribution(measures.of(name)[part]) for name in MEASURES}
        | {"colorful_share": _share_above(measures.color_selectivity_K[part], COLORFUL)}
        for number, part in enumerate(parts, start=1)
    )
    tests = {}
    if num_towers == 2:
        for name in MEASURES:
            first, second = (_finite(measures.of(name)[part]) for part in parts)
            if len(first) and len(second):
                tests[name] = compare(first, second, seed, permutations)
    return TowerMeter(measures, num_towers, towers, tests)


def measures_of(kernels_KCRS: NDArray[np.floating[Any]]) -> Measures:
    """What ``DEFINITIONS`` says, of each kernel (K, 3, R, S)."""
    num, _, rows, columns = kernels_KCRS.shape
    kernels_KCRS = kernels_KCRS.astype(np.float64)
    energy_K = np.square(kernels_KCRS).sum((1, 2, 3))
    grey_K = 3 * np.square(kernels_KCRS.mean(1)).sum((1, 2))
    dead_K = energy_K == 0
    color_K = np.clip(1 - grey_K / np.where(dead_K, 1, energy_K), 0, 1)

    axis_K3 = np.linalg.svd(kernels_KCRS.reshape(num, 3, -1).transpose(0, 2, 1), full_matrices=False)[2][:, 0]
    largest_K1 = np.abs(axis_K3).argmax(1)[:, None]
    axis_K3 = axis_K3 * np.sign(np.take_along_axis(axis_K3, largest_K1, 1))
    projection_KRS = np.einsum("kcrs,kc->krs", kernels_KCRS, axis_K3)

    # An odd number of frequencies is symmetric about 0, so that what has no orientation sums to exactly none.
    side = 8 * max(rows, columns) - 1
    y_FF, x_FF = np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side), indexing="ij")
    twice_FF = np.exp(2j * np.arctan2(-y_FF, x_FF))  # rows count downward
    twice_FF[0, 0] = 0
    frequency_K, vector_K = np.zeros(num), np.zeros(num, dtype=np.complex128)
    for k, projection_RS in enumerate(projection_KRS):  # one by one: large spectra of all at once take gigabytes
        peak = np.abs(np.fft.fft2(projection_RS, (side, side))).argmax()
        frequency_K[k] = np.hypot(y_FF, x_FF).flat[peak]
        power_FF = np.square(np.abs(np.fft.fft2(projection_RS - projection_RS.mean(), (side, side))))
        if (total := power_FF.sum()) > 1e-20 * energy_K[k] * side**2:  # less is the rounding of a constant kernel
            vector_K[k] = (power_FF * twice_FF).sum() / total
    degrees_K = (np.degrees(np.angle(vector_K)) / 2 + 90) % 180
    return Measures(
        color_selectivity_K=np.where(dead_K, np.nan, color_K),
        color_axis_K3=np.where(dead_K[:, None], np.nan, axis_K3),
        frequency_K=np.where(dead_K, np.nan, frequency_K),
        orientation_degrees_K=np.where(vector_K == 0, np.nan, degrees_K),
        orientation_selectivity_K=np.where(dead_K, np.nan, np.abs(vector_K)),
        energy_K=energy_K,
    )


def compare(first_N: Array, second_M: Array, seed: int = 0, permutations: int = PERMUTATIONS) -> Comparison:
    """Whether two samples differ in their mean, by a permutation test, and how much they overlap."""
    together, num = np.concatenate([first_N, second_M]), len(first_N)
    difference = float(second_M.mean() - first_N.mean())
    key_PK = rng.uniform(seed, "towers", 0, np.arange(permutations), len(together))
    first_P = together[key_PK.argsort(1)[:, :num]].mean(1)
    drawn_P = (together.sum() - num * first_P) / len(second_M) - first_P
    as_large = int((np.abs(drawn_P) >= abs(difference) * (1 - 1e-9)).sum())
    above_NM = np.sign(second_M[None, :] - first_N[:, None])
    auc = float((above_NM.mean() + 1) / 2)
    line = float(np.quantile(np.abs(drawn_P), 1 - LINE))
    return Comparison(difference, (1 + as_large) / (1 + permutations), auc, 2 * auc - 1, permutations, line)


def _distribution(values_K: Array) -> dict[str, Any]:
    values_K = _finite(values_K)
    if not len(values_K):
        return {"n": 0}
    quantiles = np.quantile(values_K, QUANTILES)
    return {"n": len(values_K), "mean": float(values_K.mean())} | {
        "quantiles": dict(zip(map(str, QUANTILES), quantiles.tolist(), strict=True)),
        "median": float(np.median(values_K)),
    }


def _share_above(values_K: Array, least: float) -> float | None:
    values_K = _finite(values_K)
    return float((values_K > least).mean()) if len(values_K) else None


def _finite(values_K: Array) -> Array:
    return values_K[np.isfinite(values_K)]


def _or_none(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
