"""The verdicts in the pages of docs/learn/, in English and Chinese, as the ledger and the published experiments give them.

python benchmarks/course.py      # writes what stands between the marks; `collect_claims.py` does it too
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alexnet.claims.documents import read_documents
from alexnet.claims.verdicts import entries, is_history, words

LEARN = Path(__file__).resolve().parents[1] / "docs" / "learn"
PART = re.compile(r"(<!-- verdicts: ([CN0-9 to]+) -->\n).*?(<!-- end of verdicts -->)", re.DOTALL)
TABLE = re.compile(r"(<!-- sentences: ([CN0-9 to]+) -->\n).*?(<!-- end of sentences -->)", re.DOTALL)

CHINESE = {
    "not a fair test yet": "对比尚不公平",
    "no effect as large": "没有那么大的作用",
    "not tested": "尚未检验",
    "contradicted": "不成立",
    "confirmed": "成立",
    "inconclusive": "尚无定论",
    "mixed: ": "不一：",
    " (history)": "（早先的规模）",
    "computed ": "计算：",
    "trained ": "训练：",
    "read ": "原文：",
    ", ": "，",
}
"""The words of a verdict, longer ones first."""


def pages() -> dict[Path, str]:
    """Every page of the course that has verdicts, as it should be."""
    known = {entry["claim"]["id"]: entry for entry in entries(read_documents(None))}
    chinese = tomllib.loads((LEARN / "claims.zh.toml").read_text(encoding="utf-8"))
    found = {}
    for page in sorted(LEARN.glob("*.md")):
        sentences = chinese if page.name.endswith(".zh.md") else None
        text = page.read_text(encoding="utf-8")
        made = PART.sub(lambda m, s=sentences: m[1] + listed(m[2], known, s) + m[3], text)  # type: ignore[misc]
        made = TABLE.sub(lambda m, s=sentences: m[1] + table(m[2], known, s) + m[3], made)  # type: ignore[misc]
        if "<!-- verdicts: " in text or "<!-- sentences: " in text:
            found[page] = made
    return found


def named(ids: str) -> list[str]:
    """``C5 N1 to N3``: C5, N1, N2, N3."""
    found: list[str] = []
    for first, last in re.findall(r"([CN]\d+)(?: to ([CN]\d+))?", ids):
        found += [f"{first[0]}{n}" for n in range(int(first[1:]), int((last or first)[1:]) + 1)]
    return found


def listed(ids: str, known: Mapping[str, Any], chinese: Mapping[str, str] | None) -> str:
    """The claims one after the other: sentence, verdict, and what would try it."""
    lines = []
    for id in named(ids):
        entry = known[id]
        sentence = entry["claim"]["sentence"] if chinese is None else chinese[id]
        lines.append(
            f"- **{id}** {sentence}<br>{'Verdict: ' if chinese is None else '判定：'}**{word(entry, chinese)}**"
        )
        if chinese is None:
            lines += [
                f"    - {fact['verdict']}: {fact['statement']} {fact['source'].capitalize()}: {fact['computed']}"
                for fact in entry["facts"]
            ]
            lines += [f"    - {row['verdict']}: {row['text'].partition('. ')[0]}" for row in entry["comparisons"]]
        lines.append(f"    - `alexnet claims list {id}`" + (f", `{entry['to_try']}`" if entry["to_try"] else ""))
    return "\n" + "\n".join(lines) + "\n\n"


def table(ids: str, known: Mapping[str, Any], chinese: Mapping[str, str] | None) -> str:
    head = "| claim | sentence | verdict |" if chinese is None else "| 编号 | 笔记的话 | 判定 |"
    rows = [
        f"| {id} | {known[id]['claim']['sentence'] if chinese is None else chinese[id]} | {word(known[id], chinese)} |"
        for id in named(ids)
    ]
    return "\n".join(["", head, "| --- | --- | --- |", *rows, "", ""])


def word(entry: Mapping[str, Any], chinese: Mapping[str, str] | None) -> str:
    text = words(entry)
    if chinese is None:
        return text.replace(" (history)", " (an earlier scale)") if is_history(entry) else text
    for english, translated in CHINESE.items():
        text = text.replace(english, translated)
    return text


def write() -> None:
    for page, text in pages().items():
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
