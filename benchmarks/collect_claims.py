"""Publish what `alexnet claims run` found: results to results/claims/, verdicts into the package, the table into docs/claims.md.

python benchmarks/collect_claims.py runs/claims
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

from alexnet.claims.verdicts import PUBLISHED, documents, entries, words
from alexnet.core.runs import read_json, write_atomic, write_json
from collect_probes import shortened

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- table: benchmarks/collect_claims.py -->", "<!-- end of table -->"


def publish(results: Path) -> None:
    """Result files and verdicts, without the smoke scale, which shows nothing."""
    found = []
    for folder in sorted(path for path in results.iterdir() if path.is_dir() and path.name != "smoke"):
        (ROOT / "results" / "claims" / folder.name).mkdir(parents=True, exist_ok=True)
        for file in sorted(folder.glob("*.json")):
            value = shortened(read_json(file))
            write_json(ROOT / "results" / "claims" / folder.name / file.name, value)
            if "experiment" in value:
                found.append({k: v for k, v in value.items() if k != "environment"})
    write_json(ROOT / "src" / "alexnet" / "claims" / PUBLISHED, found)
    print(f"{len(found)} experiments")


def table() -> str:
    lines = ["| claim | § | printed; logged in 2012 | computed or measured here | verdict | again |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for entry in entries(documents(None)):
        claim = entry["claim"]
        then = "; ".join(text for text in (claim["printed"], claim["logged"]) if text)
        found = [f"{fact['verdict']}: {fact['statement']} {fact['computed']}" for fact in entry["facts"]]
        found += [f"{row['verdict']}: {row['text']}" for row in entry["comparisons"]]
        again = [f"`{command}`" for command in dict.fromkeys(row["command"] for row in entry["comparisons"])]
        again += [f"`alexnet claims list {claim['id']}`"] if entry["facts"] else []
        ours = "<br>".join(found) or f"not tested. {claim['untested']}"
        cells = (
            f"**{claim['id']}** {claim['sentence']}",
            claim["section"],
            then,
            ours,
            words(entry),
            "<br>".join(again),
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def counts() -> dict[str, int]:
    """Claims with each word, for what was computed and for what was trained."""
    known = entries(documents(None))
    return dict(Counter(f"{how} {entry[how].partition(':')[0]}" for entry in known for how in ("computed", "trained")))


def write_table(docs: Path) -> None:
    before, _, rest = docs.read_text(encoding="utf-8").partition(BEGIN)
    text: Any = f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"
    write_atomic(docs, lambda file: file.write(text.encode()))


if __name__ == "__main__":
    publish(Path(sys.argv[1]))
    write_table(ROOT / "docs" / "claims.md")
    print(counts())
