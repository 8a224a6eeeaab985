"""One page that sets runs side by side, from their files: errors where they may be compared, curves, and what was different.

Two errors are compared only if their protocols are equal; where they are not, the page says in what they differ.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from alexnet.core.errors import UsageError, printable
from alexnet.core.intervals import wilson
from alexnet.report import figures, tables
from alexnet.report.figures import letter
from alexnet.report.files import RunFiles, read_run
from alexnet.report.render import write_page
from alexnet.report.tables import ClassRow, StoredEvaluation

MAX_RUNS = 26
"""Most runs that are compared: there are as many letters to call them by."""
NOT_SETTINGS = ("fingerprint",)
"""Fields of a configuration that follow from the others."""
NOT_ENVIRONMENT = ("command",)


def write_comparison(runs: Sequence[Path], out: Path) -> Path:
    """Write the page that compares ``runs`` into the file ``out`` and return its path. :class:`UsageError` for fewer than two
    runs, more than 26, or one that is no folder."""
    if not 2 <= len(runs) <= MAX_RUNS:
        raise UsageError(f"a comparison takes 2 to {MAX_RUNS} runs, and {len(runs)} were named")
    if out.is_dir():
        raise UsageError(f"{printable(out)} is a folder; --out names the file of the comparison")
    if not out.parent.is_dir():
        raise UsageError(f"{printable(out.parent)}: no such folder; make it, or name another file with --out")
    write_page(out, "comparison.html", _content([read_run(run) for run in runs]))
    return out


def _content(runs: Sequence[RunFiles]) -> dict[str, Any]:
    names = _names([run.folder for run in runs])
    logs = [run.log for run in runs]
    configs = [{k: v for k, v in run.config.items() if k not in NOT_SETTINGS} for run in runs]
    environments = [{k: v for k, v in run.environment.items() if k not in NOT_ENVIRONMENT} for run in runs]
    return {
        "title": f"{len(runs)} runs compared",
        "origin": "the runs",
        "runs": [
            {"letter": letter(i), "name": name, "swatch": Markup(figures.swatch(i)), "files": run}
            for i, (name, run) in enumerate(zip(names, runs, strict=True))
        ],
        "tables": [_errors(name, runs) for name in dict.fromkeys(name for run in runs for name in run.results)],
        "curves": Markup(figures.comparison_curves(logs)),
        "letters": [letter(i) for i in range(len(runs))],
        "settings": tables.differing(configs),
        "environment": tables.differing(environments),
        "classes": _classes(runs),
        "faults": [f"{letter(i)}: {fault}" for i, run in enumerate(runs) for fault in run.faults],
    }


def _names(folders: Sequence[Path]) -> list[str]:
    """The last parts of the paths: as many as tell them apart, if any do."""
    parts = [folder.absolute().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(path[-length:]) for path in parts]
        if len(set(names)) == len(names):
            return names
    return [folder.name for folder in folders]


def _errors(name: str, runs: Sequence[RunFiles]) -> dict[str, Any]:
    """The results called ``name``, a row a run, each set against the first if their protocols are equal; and the fields in which
    the protocols are not."""
    found = {letter(i): run.results[name] for i, run in enumerate(runs) if name in run.results}
    protocols = [{**result.protocol, "images": result.n} for result in found.values()]
    first = next(iter(found.values()))
    rows: list[dict[str, Any]] = []
    for (of, result), protocol in zip(found.items(), protocols, strict=True):
        differs = bool(tables.differing([protocols[0], protocol]))
        points = "" if differs or result is first else _difference(first, result)
        rows.append({"letter": of, "result": result, "differs": differs, "points": points})
    intervals = [wilson(row["result"].top1_errors, row["result"].n) for row in rows]
    start, end = min(low for low, _ in intervals), max(high for _, high in intervals)
    for row, (low, high) in zip(rows, intervals, strict=True):
        places = (low, row["result"].top1_errors / row["result"].n, high)
        row["low"], row["interval"] = low, row["result"].interval
        row["places"] = [round(100 * (place - start) / (end - start or 1.0), 1) for place in places]
    return {
        "axis": f"{100 * start:.1f} to {100 * end:.1f} %",
        "name": name,
        "views": first.views_in_words,
        "letters": list(found),
        "rows": rows,
        "protocols": tables.differing(protocols),
    }


def _difference(first: StoredEvaluation, other: StoredEvaluation) -> str:
    """By how many points the top-1 error is higher, with the 95 % interval that counting so many images leaves."""
    shares = [(result.top1_errors / result.n, result.n) for result in (first, other)]
    noise = 1.96 * math.sqrt(sum(share * (1 - share) / n for share, n in shares))
    return f"{100 * (shares[1][0] - shares[0][0]):+.1f} ± {100 * noise:.1f}".replace("-", "−")


def _classes(runs: Sequence[RunFiles]) -> dict[str, Any] | None:
    """The top-1 error of each class that all runs know, by the first result that all of them have."""
    with_classes = [(i, run) for i, run in enumerate(runs) if any(r.classes for r in run.results.values())]
    if len(with_classes) < 2:
        return None
    shared = [
        name
        for name in with_classes[0][1].results
        if all(name in run.results and run.results[name].classes for _, run in with_classes)
    ]
    if not shared:
        return None
    results = [run.results[shared[0]] for _, run in with_classes]
    by_name = [dict(_numbered(result.classes)) for result in results]
    rows = []
    for key, row in by_name[0].items():
        if all(key in known for known in by_name):
            of_runs = [known[key] for known in by_name]
            shares = [of_run.top1_error for of_run in of_runs]
            rows.append({"index": row.index, "name": row.name, "runs": of_runs, "spread": max(shares) - min(shares)})
    return {
        "views": results[0].views_in_words,
        "letters": [letter(i) for i, _ in with_classes],
        "rows": sorted(rows, key=lambda row: -row["spread"]),
        "not_shared": len(set().union(*by_name)) - len(rows),
        "comparable": not tables.differing([{**result.protocol, "images": result.n} for result in results]),
    }


def _numbered(rows: Iterable[ClassRow]) -> Iterable[tuple[tuple[str, int], ClassRow]]:
    """Each class with its name, and how often that name came before: two classes may have one name."""
    seen: Counter[str] = Counter()
    for row in rows:
        yield (row.name, seen[row.name]), row
        seen[row.name] += 1
