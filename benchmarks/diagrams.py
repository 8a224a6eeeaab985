"""Draw the Mermaid diagrams of docs/ to docs/pictures/diagrams/, one file each, named by its text; unused files are removed.

npm pack mermaid@11 && tar xzf mermaid-11.*.tgz
python benchmarks/diagrams.py package/dist/mermaid.min.js     (needs Playwright and Chromium)
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from documentation import DIAGRAMS, DOCS, MERMAID, diagram_name

PAGE = """<!doctype html><meta charset="utf-8"><script>{script}</script>
<script>mermaid.initialize({{startOnLoad: false, theme: "neutral", flowchart: {{htmlLabels: false}},
 fontFamily: "system-ui, sans-serif"}})</script>"""

RENDER = """async source => {
  const holder = document.createElement("div");
  holder.innerHTML = (await mermaid.render("d", source)).svg;
  const svg = holder.firstElementChild, [, , width, height] = svg.getAttribute("viewBox").split(" ");
  svg.setAttribute("width", width);
  svg.setAttribute("height", height);
  svg.setAttribute("style", "background:white");
  return new XMLSerializer().serializeToString(svg);
}"""
"""As a file of its own: well-formed, with a size."""


def draw(script: Path) -> None:
    sources = [source for page in sorted(DOCS.rglob("*.md")) for source in MERMAID.findall(page.read_text("utf-8"))]
    out = DOCS / DIAGRAMS
    out.mkdir(exist_ok=True)
    wanted = {out / f"{diagram_name(source)}.svg": source for source in sources}
    for old in set(out.glob("*.svg")) - set(wanted):
        old.unlink()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"))
        page = browser.new_page()
        page.set_content(PAGE.format(script=script.read_text(encoding="utf-8")))
        for file, source in wanted.items():
            file.write_text(page.evaluate(RENDER, source) + "\n", encoding="utf-8")
        browser.close()


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
