"""Publish what `alexnet claims run` found: experiments to results/claims/, with the results that they were judged and tuned by,
one line each in a file for each scale; verdicts into the package; the table into docs/claims.md, its counts into docs/results.md,
and the verdicts of the course into docs/learn/.

python benchmarks/collect_claims.py runs/claims
python benchmarks/collect_claims.py results/claims        # judge again what is published, by the rules of today
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from textwrap import fill
from typing import Any

import course
from alexnet.claims.comparison import compare_all
from alexnet.claims.documents import CURVES, PUBLISHED, read_documents
from alexnet.claims.drawing import columns_of
from alexnet.claims.groups import EXPERIMENTS
from alexnet.claims.judging import SIDES, judge
from alexnet.claims.measures import share_at_chance
from alexnet.claims.plan import PILOT
from alexnet.claims.results import Result, Results, is_result, write_lines
from alexnet.claims.scales import find_scale
from alexnet.claims.verdict import UNFAIR
from alexnet.claims.verdicts import counts, entries, words
from alexnet.core.runs import read_json, write_atomic, write_json
from collect_probes import shortened

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results" / "claims"
BEGIN, END = "<!-- table: benchmarks/collect_claims.py -->", "<!-- end of table -->"
PILOT_BEGIN, PILOT_END = "<!-- pilot: benchmarks/collect_claims.py -->", "<!-- end of pilot -->"
COUNTS_BEGIN, COUNTS_END = "<!-- counts: benchmarks/collect_claims.py -->", "<!-- end of counts -->"


def publish(out: Path) -> None:
    """The experiments in ``out`` that are whole, and their results, into results/claims/, where earlier ones stay."""
    for folder in scales_in(out):
        own = Results(folder)
        documents = {file.name: read_json(file) for file in sorted(folder.glob("*.json")) if not is_result(file)}
        if not documents:
            continue
        published = RESULTS / folder.name
        published.mkdir(parents=True, exist_ok=True)
        for name, document in documents.items():
            write_json(published / name, shortened(document))
        whole = set().union(*(read_whole(read_json(file)) for file in published.glob("*.json")))
        made = {name: own[name] for document in documents.values() for name in results_of(document)}
        made = {name: shortened(result if name in whole else without_curve(result)) for name, result in made.items()}
        write_lines(published, (Results(published).all() | made).values())


def results_of(document: dict[str, Any]) -> set[str]:
    """The names of the results that an experiment is judged by, and of those that chose its settings."""
    return {name for about in (*document.get("arms", {}).values(), *candidates(document)) for name in about["results"]}


def candidates(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [candidate for found in document.get("tuning", {}).values() for candidate in found["candidates"]]


def read_whole(document: dict[str, Any]) -> set[str]:
    """The results of an experiment whose curves are read: those that chose settings, those of which times are compared, and the
    first seeds of each arm, which the page draws. All curves would be a hundred megabytes."""
    rows = [row for row in document.get("comparisons", ()) if row["unit"] == "times"]
    timed = {row[side]["arm"] for row in rows for side in SIDES}
    arms = document.get("arms", {}).items()
    found = {name for arm, about in arms for name in about["results"][: None if arm in timed else PILOT]}
    return found.union(*(candidate["results"] for candidate in candidates(document)))


def without_curve(result: Result) -> Result:
    """With what is read of the curve otherwise: whether the network began to learn."""
    kept = {key: value for key, value in result.items() if key not in ("curve", "epochs")}
    return kept | ({"share_at_chance": share_at_chance(result)} if "curve" in result else {})


def judge_published() -> None:
    """The documents in results/claims/ as they are judged today, and from them the verdicts of the package and the curves of
    the page."""
    found: list[dict[str, Any]] = []
    curves: dict[str, Any] = {}
    for folder in scales_in(RESULTS):
        results = Results(folder)
        for file in sorted(folder.glob("*.json")):
            document = read_json(file)
            if "experiment" not in document:
                continue
            experiment = EXPERIMENTS[document["experiment"]]
            made = {arm: [results[name] for name in about["results"]] for arm, about in document["arms"].items()}
            rows = compare_all(experiment, find_scale(document["scale"]), made)
            found.append(document | {"title": experiment.title, "comparisons": rows})
            for about in document["arms"].values():
                first = {f"{folder.name}/{name}": results[name] for name in about["results"][:PILOT]}
                curves |= columns_of(first)  # those of all seeds would make the package larger than its code
    found = [shortened(document) for document in judge(found)]
    for document in found:
        write_json(RESULTS / document["scale"] / f"{document['experiment']}.json", document)
    shown = [{key: value for key, value in document.items() if key != "environment"} for document in found]
    write_json(ROOT / "src" / "alexnet" / "claims" / PUBLISHED, shown)
    package = ROOT / "src" / "alexnet" / "claims" / CURVES
    write_atomic(package, lambda file: file.write((json.dumps(curves, separators=(",", ":")) + "\n").encode()))
    print(f"{len(found)} experiments, {len(curves)} curves")


def scales_in(out: Path) -> list[Path]:
    """The folders of scales, without ``smoke``, which shows nothing."""
    return sorted(path for path in out.iterdir() if path.is_dir() and path.name not in ("smoke", "baselines"))


def table() -> str:
    lines = ["| claim | § | printed; logged in 2012 | computed or measured here | verdict | again |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for entry in entries(read_documents(None)):
        claim = entry["claim"]
        then = "; ".join(text for text in (claim["printed"], claim["logged"]) if text)
        found = [f"{fact['verdict']}: {fact['statement']} {fact['computed']}" for fact in entry["facts"]]
        for row in entry["comparisons"]:
            found += [f"{row['verdict']}: {row['text']}", *(f"note: {note}" for note in row["notes"])]
        again = [f"`{command}`" for command in dict.fromkeys(row["command"] for row in entry["comparisons"])]
        again += [f"`alexnet claims list {claim['id']}`"] if entry["facts"] else []
        found += [f"elsewhere here: {claim['elsewhere']}"] if claim["elsewhere"] else []
        found += [f"{'the rest is not tested' if found else 'not tested'}. {entry['why']}"] if entry["why"] else []
        cells = (
            f"**{claim['id']}** {claim['sentence']}",
            claim["section"],
            then,
            "<br>".join(found),
            words(entry),
            "<br>".join(again),
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def counted() -> str:
    """How many entries have a verdict, for docs/results.md."""
    known = entries(read_documents(None))
    number = counts(known)
    unfair = sum(entry["trained"] == UNFAIR for entry in known)
    return (
        f"{number['decided']} of {number['entries']} entries have a verdict, {number['paper_decided']} of the paper's "
        f"{number['paper']}; {number['trained']} of these come from training, the others are counted, computed or read. "
        f"{unfair} were trained and are *{UNFAIR}*, for the reasons that stand beside them."
    )


def pilot_table() -> str:
    """What the scales are like before anything is compared: mean and standard deviation over the seeds of the pilot."""
    lines = [
        "| scale | seeds | test error | training error | gap | CPU seconds a run |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for file in sorted(RESULTS.glob("pilot-*.json")):
        pilot = read_json(file)
        shares = [_mean_and_std(pilot["summary"][name], 100) for name in ("error", "training_error", "gap")]
        seconds = _mean_and_std(pilot["summary"]["cpu_seconds"], 1)
        cells = (
            f"`{pilot['scale']}`",
            str(len(pilot["runs"])),
            f"{shares[0]} %",
            f"{shares[1]} %",
            f"{shares[2]} points",
            seconds,
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _mean_and_std(value: dict[str, float | None], factor: float) -> str:
    mean, std = value["mean"], value["std"]
    assert mean is not None
    return f"{factor * mean:.1f}" + ("" if std is None else f" ± {factor * std:.1f}")


def write_between(file: Path, *parts: tuple[str, str, str]) -> None:
    """What stands between two marks of a page, written anew: of each part the first mark, the text, the last mark."""
    text = file.read_text(encoding="utf-8")
    for begin, made, end in parts:
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{made}\n{end}{rest.partition(end)[2]}"
    whole: Any = text
    write_atomic(file, lambda opened: opened.write(whole.encode()))


if __name__ == "__main__":
    publish(Path(sys.argv[1]))
    judge_published()
    write_between(ROOT / "docs" / "claims.md", (BEGIN, table(), END), (PILOT_BEGIN, pilot_table(), PILOT_END))
    write_between(ROOT / "docs" / "results.md", (COUNTS_BEGIN, fill(counted(), 140), COUNTS_END))
    course.write()
    print(counted())
