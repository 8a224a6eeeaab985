"""Pages from templates: everything foreign escaped, and a policy under which a browser runs the one script and loads nothing."""

from __future__ import annotations

import base64
import hashlib
import math
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from alexnet.core.errors import printable
from alexnet.core.runs import write_atomic
from alexnet.report import tables

FOLDER = Path(__file__).parent


def write_page(path: Path, template: str, content: dict[str, Any], *, folder: Path = FOLDER) -> None:
    """The page of ``template`` with ``content``, written atomically: the same content gives the same bytes. A template in
    another ``folder`` may extend those here; the styles there are added."""
    page = _engine(folder).get_template(template).render(content).encode("utf-8", "replace")
    write_atomic(path, lambda file: file.write(page))


@cache
def _engine(folder: Path) -> jinja2.Environment:
    engine = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, FOLDER]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_safe,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    engine.filters |= {
        "percent": tables.percent,
        "duration": tables.duration,
        "figure": tables.figure,
        "flatten": tables.flatten,
        "count": tables.count,
        "finite": lambda value: math.isfinite(tables.number(value)),
    }
    styles = [FOLDER / "style.css", *(sorted(folder.glob("*.css")) if folder != FOLDER else [])]
    script = (FOLDER / "sort.js").read_text("utf-8")
    engine.globals |= {
        "style": Markup("".join(file.read_text("utf-8") for file in styles)),
        "script": Markup(script),
        "policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'",
    }
    return engine


def _hash(script: str) -> str:
    """The hash by which a content security policy names a script: that of the text between its tags."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _safe(value: object) -> object:
    """Foreign strings without control characters, direction marks and lone surrogates; the template escapes them."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
