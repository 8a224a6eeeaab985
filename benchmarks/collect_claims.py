"""Publish what `alexnet claims run` found: results to results/claims/, one line each in a file for each scale, verdicts into the
package, the table into docs/claims.md.

python benchmarks/collect_claims.py runs/claims
python benchmarks/collect_claims.py results/claims        # judge again what is published, by the rules of today
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from alexnet.claims.comparison import compare_all
from alexnet.claims.documents import CURVES, PUBLISHED, read_documents
from alexnet.claims.drawing import columns_of
from alexnet.claims.groups import EXPERIMENTS
from alexnet.claims.judging import judge
from alexnet.claims.results import Results, is_result, write_lines
from alexnet.claims.scales import find_scale
from alexnet.claims.verdicts import entries, words
from alexnet.core.runs import read_json, write_atomic, write_json
from collect_probes import shortened

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results" / "claims"
BEGIN, END = "<!-- table: benchmarks/collect_claims.py -->", "<!-- end of table -->"
PILOT, END_PILOT = "<!-- pilot: benchmarks/collect_claims.py -->", "<!-- end of pilot -->"


def publish(out: Path) -> None:
    """Results and documents of ``out`` into results/claims/, where earlier ones stay."""
    for folder in scales_in(out):
        published = RESULTS / folder.name
        results = Results(published).all() | {n: shortened(r) for n, r in Results(folder).all().items()}
        write_lines(published, results.values())
        for file in sorted(folder.glob("*.json")):
            if not is_result(file):
                write_json(published / file.name, shortened(read_json(file)))


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
            for arm, about in document["arms"].items():
                names = (f"{folder.name}/{name}" for name in about["results"])
                curves |= columns_of(dict(zip(names, made[arm], strict=True)))
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


def counts() -> dict[str, int]:
    """Claims with each word, for what was computed and for what was trained."""
    known = entries(read_documents(None))
    return dict(Counter(f"{how} {entry[how].partition(':')[0]}" for entry in known for how in ("computed", "trained")))


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


def write_tables(docs: Path) -> None:
    text = docs.read_text(encoding="utf-8")
    for begin, made, end in ((BEGIN, table(), END), (PILOT, pilot_table(), END_PILOT)):
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{made}\n{end}{rest.partition(end)[2]}"
    whole: Any = text
    write_atomic(docs, lambda file: file.write(whole.encode()))


if __name__ == "__main__":
    publish(Path(sys.argv[1]))
    judge_published()
    write_tables(ROOT / "docs" / "claims.md")
    print(counts())
