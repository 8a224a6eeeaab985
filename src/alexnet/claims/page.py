"""The page of ``alexnet claims report``: every claim, what was printed and logged, what was measured here, and how to repeat it.

It is one file that loads nothing and looks like a run's report (``alexnet.report``), made from the experiments' documents, the
result files beside them where they are at hand, and the published verdicts. What is missing or damaged is named on the page.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from alexnet.claims.documents import published_curves, read_documents
from alexnet.claims.drawing import Axis, arm_curves, effect_axis, finite, result_of, tuning_curves
from alexnet.claims.groups import EXPERIMENTS
from alexnet.claims.measures import MEASURES, UNITS
from alexnet.claims.results import Result, Results
from alexnet.claims.scales import HISTORY, results_folder
from alexnet.claims.verdict import NO_EFFECT, RAN, UNFAIR
from alexnet.claims.verdicts import (
    CHOSEN_ON_TEST_IMAGES,
    NOT_TESTED,
    amount,
    counts,
    entries,
    in_runs,
    in_seeds,
    is_history,
    level_of,
    outcome,
    planned,
    sentence,
    shared_with,
    short_number,
    spread_of,
)
from alexnet.core.errors import AlexNetError, UsageError, printable
from alexnet.report import figures, render, tables

Document = Mapping[str, Any]

HERE = Path(__file__).parent

WORDS = ("confirmed", "contradicted", NO_EFFECT, "inconclusive", "mixed", UNFAIR, NOT_TESTED)
UNIT_NAMES = {"points": "percentage points", "times": "times (a quotient)", "nats": "nats"}
VALUE_UNITS = {
    "epochs_to_goal": "epochs",
    "epochs_to_converge": "epochs",
    "seconds": "s for 1,000 images",
    "gradient_drop": "last layer over first",
}
"""Unit of a measure's own values, where they are neither nats nor percent."""
MAX_NAMED = 4
"""Most files named among those that are missing from one experiment."""


def write_page(results: str | Path, out: str | Path | None = None) -> Path:
    """Write the page of the claims, with the results of one's own in ``results``, and return its path: ``out``, or
    ``results/claims.html``. Raises :class:`UsageError` if ``results`` is a file, or ``out`` is a folder or is in none."""
    folder = Path(results)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{printable(folder)} is a file; --results names the folder that `claims run` wrote to")
    page = Path(out) if out is not None else folder / "claims.html"
    if page.is_dir():
        raise UsageError(f"{printable(page)} is a folder; --out names the file of the page")
    if out is None:
        folder.mkdir(parents=True, exist_ok=True)
    elif not page.parent.is_dir():
        raise UsageError(f"{printable(page.parent)}: no such folder; make it, or name another file with --out")
    render.write_page(page, "claims.html", _content(folder), folder=HERE)
    return page


def _content(folder: Path) -> dict[str, Any]:
    """What the page shows, by the names the template uses."""
    faults: list[str] = []
    known = sorted(read_documents(folder, faults), key=_order)
    found = entries(known)
    sections = []
    anchors = {(d["experiment"], d["scale"]): f"experiment-{i}" for i, d in enumerate(known)}
    for document in known:
        try:
            sections.append(_experiment(document, anchors, folder, faults))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            faults.append(
                f"{document['experiment']} at {document['scale']}: its result cannot be read ({type(error).__name__}: {error})"
            )
    rows = [_row(entry, anchors) for entry in found]
    num = counts(found)
    return {
        "title": "The paper on trial",
        "origin": "the experiments",
        "rows": rows,
        "cards": [_card(word, rows) for word in WORDS],
        "num": num | {"others": num["entries"] - num["paper"], "others_decided": num["decided"] - num["paper_decided"]},
        "chosen_on_test_images": CHOSEN_ON_TEST_IMAGES,
        "facts": [fact for entry in found for fact in entry["facts"]],
        "experiments": sections,
        "measures": {name: " ".join((measure.__doc__ or "").split()) for name, measure in MEASURES.items()},
        "untested": [row for row in rows if row["word"] == NOT_TESTED],
        "unit_names": UNIT_NAMES,
        "folder": str(folder),
        "faults": faults,
    }


def _order(document: Document) -> tuple[int, bool, str]:
    """Experiments as the groups have them, the smoke test of one last."""
    known = list(EXPERIMENTS)
    name = document["experiment"]
    return known.index(name) if name in known else len(known), document["scale"] == "smoke", str(document["scale"])


# The ledger -------------------------------------------------------------------------------------------------------------


def _row(entry: Mapping[str, Any], anchors: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    """A claim with what decided it, or why nothing did, or not all of it: what is computed can be a part of a claim."""
    claim, comparisons = entry["claim"], entry["comparisons"]
    trained = [row for row in comparisons if row["scale"] != "smoke"]
    scale = comparisons[0]["scale"] if comparisons else ""  # the largest
    word, _, parts = str(entry["verdict"]).partition(": ")
    decisive = [row for row in comparisons if row["scale"] == scale]
    shared = [
        why
        for why in (decisive[0]["reasons"] if decisive else [])
        if len(decisive) > 1 and all(why in row["reasons"] for row in decisive)
    ]
    tried = [
        {
            "says": row["says"],
            "verdict": row["verdict"],
            "numbers": _numbers(row),
            "where": anchors.get((row["experiment"], scale), ""),
            "reasons": [why for why in (*row["reasons"], *row.get("cut", ())) if why not in shared],
            "notes": row["notes"],
        }
        for row in decisive
    ]
    others = dict.fromkeys((r["experiment"], r["scale"]) for r in comparisons if r["scale"] not in (scale, "smoke"))
    commands = [f"alexnet claims list {claim['id']}"] if entry["facts"] else []
    commands += dict.fromkeys(str(row["command"]) for row in decisive)
    read = bool(entry["facts"]) and all(fact["source"] == "read" for fact in entry["facts"])
    return {
        "claim": claim,
        "word": word,
        "parts": parts,
        "facts": entry["facts"],
        "tried": tried,
        "shared": {"reasons": shared, "notes": []},
        "scale": scale,
        "history": is_history(entry),
        "others": [(other[1], anchors[other]) for other in others if other in anchors],
        "commands": commands,
        "source": "both" if trained and entry["facts"] else "trained" if trained else "read" if read else "computed",
        "part": word != NOT_TESTED and bool(entry["why"]),
        "why": entry["why"],
        "to_try": "" if decisive and not is_history(entry) else entry["to_try"],
        "to_decide": list(dict.fromkeys(row["to_decide"] for row in decisive if row["to_decide"])),
    }


def _card(word: str, rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """How many claims have this verdict, and from what."""
    sources = Counter(row["source"] for row in rows if row["word"] == word)
    said = [f"{sources[source]} {source}" for source in ("computed", "read", "trained", "both") if sources[source]]
    return {"word": word, "num": sources.total(), "sources": "" if word == NOT_TESTED else ", ".join(said)}


# One experiment ---------------------------------------------------------------------------------------------------------


def _experiment(
    document: Document, anchors: Mapping[tuple[str, str], str], folder: Path, faults: list[str]
) -> dict[str, Any]:
    """What a section shows: arms, effects, values by seed, and curves where result files are at hand."""
    name, scale, comparisons = document["experiment"], document["scale"], document["comparisons"]
    own = (results_folder(folder, str(scale)) / f"{name}.json").exists()
    results = _results(document, folder, own, faults)
    arms = [
        {
            "letter": figures.letter(i),
            "swatch": Markup(figures.swatch(i)),
            "name": arm,
            "changes": tables.flatten(about["changes"]),
            "chosen": tables.flatten(document["chosen"].get(arm, {})),
            "diverged": max((row["diverged"].get(arm, 0) for row in comparisons), default=0),
        }
        for i, (arm, about) in enumerate(document["arms"].items())
    ]
    return {
        "anchor": anchors[name, scale],
        "about": document,
        "own": own,
        "history": scale in HISTORY,
        "claims": list(dict.fromkeys(row["claim"] for row in comparisons)),
        "arms": arms,
        "effects": [
            _effects([row for row in comparisons if row["unit"] == unit], unit)
            for unit in dict.fromkeys(row["unit"] for row in comparisons if row["verdict"] != RAN)
        ],
        "by_seed": _by_seed(document),
        "shown": _shown(document),
        "used": list(dict.fromkeys(row[side]["measure"] for row in comparisons for side in ("lower", "higher"))),
        "curves": Markup(arm_curves([results[arm] for arm in document["arms"]])),
        "tuning": _tuning(document),
        "without_files": not any(results.values()),
        "environment": tables.flatten(document.get("environment", {})),
    }


def _shown(document: Document) -> dict[str, Any]:
    """What results show besides their measures, as a table: an arm a row, a number a column, means over the seeds."""
    rows = {arm: about["shown"] for arm, about in document["arms"].items() if about.get("shown")}
    columns = list(dict.fromkeys(key for seeds in rows.values() for found in seeds for key in found))
    means = {
        arm: [_short(_mean([tables.number(found.get(key)) for found in seeds])) for key in columns]
        for arm, seeds in rows.items()
    }
    return {"columns": columns, "rows": means}


def _short(value: float) -> str:
    """A number to four digits, whether a size in bytes or a share."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}" if math.isfinite(value) else "–"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _results(document: Document, folder: Path, own: bool, faults: list[str]) -> dict[str, list[Result]]:
    """The sound results of each arm. Those of an experiment of one's own that are not there or not sound are faults; a
    published document comes without any."""
    scale, missing, published = str(document["scale"]), [], {} if own else published_curves()
    results = Results(results_folder(folder, scale))
    found: dict[str, list[Result]] = {}
    for arm, about in document["arms"].items():
        found[arm] = []
        for name in map(str, about["results"]):
            try:
                found[arm].append({key: results[name].get(key) for key in ("curve", "epochs")})
            except KeyError:
                if own:
                    missing.append(Path(name).name)
                elif curves := published.get(f"{scale}/{Path(name).name}"):
                    found[arm].append(result_of(curves))
            except (AlexNetError, OSError) as error:
                if str(error) not in faults:  # one line of many results
                    faults.append(str(error))
    if missing:
        more = f" and {len(missing) - MAX_NAMED} more" if len(missing) > MAX_NAMED else ""
        faults.append(
            f"{document['experiment']} at {scale}: {', '.join(missing[:MAX_NAMED])}{more} missing from "
            f"{results_folder(folder, scale)}, so the curves show the other seeds only"
        )
    return found


def _tuning(document: Document) -> dict[str, Any] | None:
    """The search of each arm for its settings: curves by setting, and every candidate with its numbers by tuning seed."""
    tuning = document.get("tuning") or {}
    if not tuning:
        return None
    measures = {str(tuning[arm]["measure"]) for arm in tuning}
    measure = measures.pop() if len(measures) == 1 else ""
    percent = VALUE_UNITS.get(measure, UNITS.get(measure)) is None
    candidates = [
        {
            "arm": arm,
            "changes": tables.flatten(candidate["changes"]),
            "values": [_short(100 * tables.number(y) if percent else tables.number(y)) for y in candidate["values"]],
            "chosen": candidate["changes"] == about["chosen"],
        }
        for arm, about in tuning.items()
        for candidate in about["candidates"]
    ]
    curves = tuning_curves([tuning.get(arm, {}) for arm in document["arms"]], 100.0 if percent else 1.0)
    return {
        "measure": measure.replace("_", " "),
        "unit": "%" if percent else VALUE_UNITS.get(measure, UNITS.get(measure, "")),
        "curves": {field: Markup(svg) for field, svg in curves.items()},
        "candidates": candidates,
        "seeds": max((len(row["values"]) for row in candidates), default=0),
    }


def _effects(comparisons: Sequence[Mapping[str, Any]], unit: str) -> dict[str, Any]:
    """Comparisons of one unit on one axis."""
    quotient = unit == "times"
    numbers = finite([row.get(key) for row in comparisons for key in ("effect", "low", "high", "printed")])
    numbers += [number for row in comparisons for number in (*_by_pair(row), *_band(row))]
    axis = effect_axis([number for number in numbers if number > 0 or not quotient], quotient=quotient)
    return {"unit": unit, "axis": axis, "rows": [_effect(row, axis) for row in comparisons]}


def _by_pair(row: Mapping[str, Any]) -> list[float]:
    """The effect in each seed; of runs that are tests of their own there is none."""
    if row.get("each") or row["verdict"] == RAN:
        return []
    pairs = zip(row.get("lower_values", ()), row.get("higher_values", ()), strict=True)
    if row["unit"] == "times":
        return finite([tables.number(b) / tables.number(a) for a, b in pairs if a])
    return finite([tables.number(b) - tables.number(a) for a, b in pairs])


def _band(row: Mapping[str, Any]) -> list[float]:
    """The smallest effect of interest on both sides of none."""
    size = finite([row.get("of_interest")])
    if not size:
        return []
    return [1 / size[0], size[0]] if row["unit"] == "times" else [-size[0], size[0]]


def _effect(row: Mapping[str, Any], axis: Axis) -> dict[str, Any]:
    """A comparison: its numbers in words, and where they stand."""

    def places(values: Iterable[object]) -> list[float]:
        return [axis.at(value) for value in finite(list(values)) if value > 0 or not axis.logarithmic]

    def place(key: str) -> float | None:
        return next(iter(places([row.get(key)])), None)

    return {
        "claim": row["claim"],
        "says": row["says"],
        "verdict": row["verdict"],
        "sentence": sentence(row),
        "numbers": _numbers(row),
        "word": outcome(row).lower() if row["verdict"] == NO_EFFECT else row["verdict"],
        "outcome": "" if row["verdict"] == NO_EFFECT else outcome(row),
        "plan": _plan(row),
        "reasons": [*row["reasons"], *row.get("cut", ())],
        "notes": row["notes"],
        "bound": {"at least": 100, "at most": 0}.get(str(row.get("bound"))),
        "effect": place("effect"),
        "low": place("low"),
        "high": place("high"),
        "printed_at": place("printed"),
        "pairs": places(_by_pair(row)),
        "band": places(_band(row)),
    }


def _plan(row: Mapping[str, Any]) -> list[str]:
    """Sentences: what was looked for, what finds it, how much runs vary, and what shares them."""
    said = (_printed(row), planned(row), _power(row), spread_of(row), shared_with(row))
    return [text[0].upper() + text[1:] for text in said if text]


def _power(row: Mapping[str, Any]) -> str:
    """What the seeds that there are would find, where they are not those that were planned."""
    if row.get("power") is None or row["n"] >= (row.get("planned") or 0):
        return ""
    return f"{in_seeds(row['n'])} find{'' if row['n'] > 1 else 's'} it with {100 * row['power']:.0f} %"


def _numbers(row: Mapping[str, Any]) -> str:
    """Effect, interval and number of seeds."""
    if row["verdict"] == RAN:
        return "the code ran; at this scale nothing is judged"
    if not row["n"]:
        return "there is no seed for which both sides have a number"
    p = "" if row.get("p") is None else f"; p = {row['p']:.2g}"
    if row.get("holds") is not None:
        return f"{in_runs(row)}; chance alone makes it so in one of twenty{p.replace('p =', 'all runs together: p =')}"
    unit, seeds = row["unit"], in_seeds(row["n"], row.get("judged"))
    if row.get("effect") is None:
        return f"more than half of the runs of both sides were cut off ({seeds}{p})"
    ends = [row.get("low"), row.get("high")]
    interval = f"no interval{p}"
    if None not in ends:
        interval = f"{level_of(row)} %: {' to '.join(_number(end, unit, bare=True) for end in ends)}"
    bound = f"{row['bound']} " if row.get("bound") else ""
    return f"{bound}{_number(row['effect'], unit)} ({interval}; {seeds})"


def _printed(row: Mapping[str, Any]) -> str:
    return "" if row.get("printed") is None else f"printed {_number(row['printed'], row['unit'], sign=False)}"


def _number(value: object, unit: str, *, sign: bool = True, bare: bool = False) -> str:
    """``+0.42 points``, ``−0.013 nats``, ``5.20 times``."""
    if abs(tables.number(value)) >= 1e4:
        return short_number(tables.number(value)) if bare else amount(tables.number(value), unit)
    digits = 3 if unit == "nats" else 2
    text = f"{tables.number(value):{'+' if sign and unit != 'times' else ''}.{digits}f}".replace("-", "−")
    return text if bare else f"{text} {unit}"


def _by_seed(document: Document) -> list[dict[str, Any]]:
    """The numbers of each arm and measure by seed; where some seeds have no pair, those of the others in order."""
    rows: dict[tuple[str, str, tuple[str, ...]], dict[str, Any]] = {}
    for comparison in document["comparisons"]:
        for key in ("lower", "higher"):
            values, side = comparison.get(f"{key}_values", []), comparison[key]
            if not values or comparison["verdict"] == RAN:
                continue
            measure = side["measure"]
            texts = tuple(f"{tables.number(value):.4g}" for value in values)
            unit = VALUE_UNITS.get(measure, UNITS.get(measure, "%"))
            mean = sum(map(tables.number, values)) / len(values)
            arm = f"{side['arm']} less {side['less']}" if "less" in side else side["arm"]
            rows[arm, measure, texts] = {
                "arm": arm,
                "measure": str(measure).replace("_", " "),
                "unit": unit,
                "texts": texts,
                "whole": len(texts) == len(document["seeds"]),
                "mean": f"{mean:.4g}",
            }
    return sorted(rows.values(), key=lambda row: row["measure"])
