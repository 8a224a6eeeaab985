"""The documentation as a site: the pages of docs/ and those that are made of the package, gathered for MkDocs; then what was
built, checked. `make docs` does all of it.

python benchmarks/documentation.py gather build/docs     # what mkdocs.yml builds from
python benchmarks/documentation.py check site            # dead links, missing anchors, and anything that is loaded from elsewhere
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import sys
from collections.abc import Callable
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import alexnet
from alexnet.cli import VERBS, main
from alexnet.cli.baseline import KINDS as BASELINES
from alexnet.core.runs import read_json
from alexnet.probes import KINDS as PROBES

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
FENCE = re.compile(r"^(`{3,})[^\n]*\n.*?^\1[ ]*$", re.MULTILINE | re.DOTALL)
MERMAID = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BROKEN = re.compile(r"(?<=[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef])\n *(?=[\u4e00-\u9fff\u201c])")
"""The end of a line within Chinese text, which would become a space."""
DIAGRAMS = "pictures/diagrams"


# Before: what the site is built from ----------------------------------------------------------------------------------


def gather(out: Path) -> None:
    """docs/ in ``out``, with the pages that are made of the package and, at their own paths, all files of the repository that a
    page links to; such a page is read for links in turn."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(DOCS, out, ignore=shutil.ignore_patterns("*.toml"))
    made = {"commands.md": commands(), "reference.md": reference(), "result-files.md": result_files()}
    for name, text in made.items():
        (out / name).write_text(text, encoding="utf-8")
    waiting = [(page, DOCS / page.relative_to(out)) for page in sorted(out.rglob("*.md"))]
    while waiting:
        page, origin = waiting.pop()
        text, found = linked(drawn(page.read_text(encoding="utf-8"), page.relative_to(out)), page, origin, out)
        if page.name.endswith(".zh.md"):
            text = outside_of_code(lambda prose: BROKEN.sub("", prose), text)
        page.write_text(text, encoding="utf-8")
        for file in sorted(found):
            copy = out / file.relative_to(ROOT)
            if not copy.exists():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
                if file.suffix == ".md":
                    waiting.append((copy, file))


def linked(text: str, page: Path, origin: Path, out: Path) -> tuple[str, set[Path]]:
    """The text of a page in ``out`` with its links as they are there, and the files outside of docs/ that they lead to.

    ``origin`` is where the page stands in the repository. A link to a folder of results leads to the list of them, one to
    a README to the first page."""
    found: set[Path] = set()

    def moved(match: re.Match[str]) -> str:
        path, mark, anchor = match[2].partition("#")
        if not path or "://" in path or path.startswith("mailto:"):
            return match[0]
        target = Path(os.path.normpath(origin.parent / unquote(path)))
        if target.is_relative_to(DOCS):
            there = out / target.relative_to(DOCS)
        elif target.is_relative_to(ROOT / "results") and target.is_dir():
            there = out / "result-files.md"
        elif target in (ROOT / "README.md", ROOT / "README.zh.md"):
            there = out / "index.md"
        elif target.is_file():
            found.add(target)
            there = out / target.relative_to(ROOT)
        else:
            return match[0]  # MkDocs says that it is dead
        if there.name.endswith(".zh.md"):  # on the site a page of one name in two languages leads to that of its own
            there = there.with_name(there.name.removesuffix(".zh.md") + ".md")
        return match[1] + os.path.relpath(there, page.parent) + mark + anchor + match[3]

    return outside_of_code(lambda prose: LINK.sub(moved, prose), text), found


def outside_of_code(change: Callable[[str], str], text: str) -> str:
    """``text`` with ``change`` done to all that is not in a fenced block."""
    parts, end = [], 0
    for block in FENCE.finditer(text):
        parts += [change(text[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, change(text[end:])])


def drawn(text: str, page: Path) -> str:
    """With the pictures of diagrams in their place (``benchmarks/diagrams.py``); one that is not drawn yet stays text."""

    def picture(match: re.Match[str]) -> str:
        name = f"{DIAGRAMS}/{diagram_name(match[1])}.svg"
        if not (DOCS / name).is_file():
            print(f"{page}: a diagram is not drawn; run python benchmarks/diagrams.py", file=sys.stderr)
            return match[0]
        return f"![]({os.path.relpath(DOCS / name, (DOCS / page).parent)})"

    return MERMAID.sub(picture, text)


def diagram_name(source: str) -> str:
    return sha256(source.encode()).hexdigest()[:12]


def commands() -> str:
    """The command line, as the program explains it."""
    parts = ["# Command line\n\nWhat `alexnet --help` and `alexnet VERB --help-all` print.\n"]
    parts.append(f"```text\n{said()}```\n")
    for verb in dict.fromkeys(VERBS):
        parts.append(f"## alexnet {verb}\n\n```text\n{said(verb)}```\n")
        for kind in KINDS.get(verb, ()):
            parts.append(f"### alexnet {verb} {kind}\n\n```text\n{said(verb, kind)}```\n")
    return "\n".join(parts)


KINDS = {"train": ("PHOTOS", "modern"), "probe": PROBES, "baseline": BASELINES, "claims": ("list", "run", "report")}
"""The words after a verb that have a help of their own; of the recipes, which share their options, one."""


def said(*place: str) -> str:
    """What the program prints for ``--help-all``, 100 columns wide."""
    heard, columns = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100"
    try:
        with contextlib.redirect_stdout(heard), contextlib.suppress(SystemExit):
            main([*place, "--help-all"])
    finally:
        os.environ.pop("COLUMNS") if columns is None else os.environ.update(COLUMNS=columns)
    return heard.getvalue()


def reference() -> str:
    """A page that mkdocstrings fills with the docstrings of the public names."""
    parts = [
        "# Python reference\n\nEvery public name, from its docstring. [In Python](api.md) has them in groups, with examples.\n"
    ]
    parts += [f"::: {home}.{name}\n" for name, home in sorted(alexnet._HOMES.items(), key=lambda item: item[0].lower())]
    return "\n".join(parts)


def result_files() -> str:
    """Every file of results/, and what made it."""
    lines = ["# Files of results", "", "Every figure in these pages is in one of these files.", ""]
    lines += ["| file | measured on |", "| --- | --- |"]
    for file in sorted((ROOT / "results").rglob("*.json")):
        name = file.relative_to(ROOT).as_posix()
        lines.append(f"| [{name.removeprefix('results/')}](../{name}) | {machine_of(read_json(file))} |")
    return "\n".join(lines) + "\n"


def machine_of(document: object) -> str:
    """Processor, cores and versions of the first environment in a document; empty if it has none."""
    if isinstance(document, dict):
        if isinstance(about := document.get("environment"), dict) and "torch" in about:
            return f"{about.get('processor', '')}, {about.get('cores', '?')} cores, torch {about['torch']}"
        document = list(document.values())
    return next(filter(None, map(machine_of, document)), "") if isinstance(document, list) else ""


# After: what was built ------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a page leads to, what it loads, and which anchors it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        about = {name: value or "" for name, value in attrs}
        self.anchors.update(about[name] for name in ("id", "name") if about.get(name))
        if tag == "a" and "href" in about:
            self.links.add(about["href"])
        if "src" in about:
            self.loaded.add(about["src"])
        if tag == "link" and about.get("rel") not in ("canonical", "alternate", "next", "prev"):
            self.loaded.add(about.get("href", ""))


def faults(site: Path) -> list[str]:
    """Every link and file of a built site that leads nowhere, and everything that it loads from elsewhere."""
    pages = {file: Page(file.read_text(encoding="utf-8")) for file in sorted(site.rglob("*.html"))}
    found = []
    for file, page in pages.items():
        if file.name == "404.html":  # its links start at the root of a host
            continue
        where = file.relative_to(site).as_posix()
        for link in sorted(page.loaded | page.links):
            address = urlsplit(link)
            if address.scheme or address.netloc:
                if link in page.loaded and address.scheme != "data":
                    found.append(f"{where} loads {link}")
                continue
            target = file if not address.path else Path(os.path.normpath(file.parent / unquote(address.path)))
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                found.append(f"{where}: {link} is not there")
            elif (
                address.fragment
                and target in pages
                and unquote(address.fragment) not in pages[target].anchors | {"__toc"}
            ):
                found.append(f"{where}: {link} has no such anchor")
    for style in sorted(site.rglob("*.css")):
        for address in re.findall(r"url\([\"']?(https?:[^)\"']+)", style.read_text(encoding="utf-8")):
            found.append(f"{style.relative_to(site)} loads {address}")
    return found


def check(site: Path) -> None:
    found = faults(site)
    print("\n".join(found) or f"{len(list(site.rglob('*.html')))} pages, no dead link")
    sys.exit(3 if found else 0)


if __name__ == "__main__":
    {"gather": gather, "check": check}[sys.argv[1]](Path(sys.argv[2]))
