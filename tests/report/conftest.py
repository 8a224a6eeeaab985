"""Runs as files, for the report, and pages as a parser reads them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "{{ 7*7 }}{% for x in y %}",
    "</title></style><svg onload=alert(1)>",
    "javascript:alert(1)",
    "$\\frac{1}{$ %s \u202egpj.exe \x00\x07 line\nbreak \udc80",
)
ELEMENTS = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "header",
        "div",
        "span",
        "h1",
        "h2",
        "p",
        "b",
        "i",
        "pre",
    ),
    *("dl", "dt", "dd", "ul", "li", "figure", "figcaption", "img", "details", "summary"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td"),
    *("svg", "defs", "g", "path", "use", "text", "clippath", "rect"),
    *("nav", "a", "h3", "ol", "br", "code", "script", "input", "label", "fieldset", "legend"),
}
VOID = {"meta", "img", "br", "input"}


class Page(HTMLParser):
    """The elements, attributes and text of a page, with a check that every element is closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.open: list[str] = []
        self.source = path.read_text("utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif self.open and self.open[-1] != "style":
            self.words += data.split()

    @property
    def text(self) -> str:
        return " ".join(self.words)


def make_run(run: Path, name: Any = lambda what: what, num_classes: int = 3) -> Path:
    """The files of a finished run. Every string in them is ``name(what it is)``."""
    (run / "results").mkdir(parents=True)
    train = {
        "recipe": name("quickstart"),
        "network": name("alexnet_2012"),
        "data": name("shapes"),
        "epochs": 2,
        "seed": 0,
    }
    config = {"train": train, "data": {"path": name("/cache/shapes")}, "fingerprint": "00ff"}
    environment = {"torch": name("2.13.0"), "command": ["alexnet", "train", name("quickstart"), "--out", name("a run")]}
    rows: list[dict[str, Any]] = [{"event": "note", "step": 0, "message": name("features hardly differ")}]
    for epoch in (1, 2):
        for step in (10 * epoch - 5, 10 * epoch):
            rows.append(
                {"event": "step", "step": step, "epoch": epoch, "loss": 2.5 / step, "lr": 0.01, "images_per_second": 70}
            )
        rows.append(
            {
                "event": "epoch",
                "epoch": epoch,
                "step": 10 * epoch,
                "train_loss": 1 / epoch,
                "train_top1_error": 0.5 / epoch,
            }
            | {"val_n": 60, "val_top1_errors": 30 // epoch, "val_top5_errors": 0, "val_top1_error": 0.5 / epoch}
            | {"val_top5_error": 0.0, "val_loss": 1.2 / epoch, "lr": 0.01, "seconds": 65.0 * epoch}
            | {"dead_filters": {name("conv1"): [0, 2]}}
        )
    write(run / "config.json", config)
    write(run / "environment.json", environment)
    (run / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for stem, views, wrong in [("final-center", "1", 18), ("final-ten", "10", 15)]:
        write(run / "results" / f"{stem}.json", make_result(name, num_classes, views, wrong))
    np.save(run / "results" / "conv1.npy", np.random.default_rng(0).normal(size=(96, 3, 11, 11)).astype(np.float32))
    write(run / "results" / "kernels.json", {"layer": "conv1", "towers": 2, "channels": 3})
    pixels_NSSC = np.full((1, 4, 4, 3), 200, dtype=np.uint8)
    np.savez(run / "results" / "mistakes.npz", pixels=pixels_NSSC, paths=np.array([name("val/a.jpg")]))
    make_probes(run / "probes", name)
    return run


def make_probes(folder: Path, name: Any = lambda what: what) -> None:
    """What the probes maps and linear might have left: a picture and figures, and figures alone."""
    folder.mkdir()
    Image.new("RGB", (8, 6), "red").save(folder / "maps-image.png")
    maps = {
        "probe": "maps",
        "title": "What the channels answer to",
        "place": 2,
        "model": "0f",
        "summary": {name("channels"): 36, name("layer"): name("conv5")},
    }
    write(
        folder / "maps.json",
        maps | {"pictures": {"maps-image.png": name("A red box")}, "protocol": {"view": name("center")}},
    )
    linear = {"probe": "linear", "title": "Layers", "place": 7, "model": "0f"}
    write(folder / "linear.json", linear | {"n": 60, "error": 0.25, "seed": 3, "layers": [1, 2]})


def make_result(name: Any, num_classes: int, views: str, wrong: int) -> dict[str, Any]:
    """20 images a class; ``wrong`` images of class 0 are taken for class 1."""
    n = 20 * num_classes
    return {
        "n": n,
        "top1_errors": wrong,
        "top5_errors": 1,
        "top1_error": wrong / n,
        "top5_error": 1 / n,
        "views": views,
        "loss_nats": 0.6543,
        "protocol": {"views": views, "averaging": name("mean of softmax"), "preprocessing": {"resize": 256, "std": []}},
        "environment": {},
        "classes": [
            {"name": name(f"class {k}"), "n": 20, "top1_errors": wrong if k == 0 else 0, "top5_errors": int(k == 0)}
            for k in range(num_classes)
        ],
        "confusion": [[0, 0, 20 - wrong], [0, 1, wrong], *([k, k, 20] for k in range(1, num_classes))],
        "mistakes": [
            {"path": name("val/a.jpg"), "label": 0, "predicted": 1, "probability": 0.987, "label_probability": 0.01}
        ],
    }


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), "utf-8")


def assert_harmless(page: Page) -> None:
    """Nothing that runs but the program's own script, and nothing that is loaded."""
    assert page.elements <= ELEMENTS
    for name, value in page.attributes:
        assert not name.startswith("on")
        if name in ("src", "href"):
            assert value is not None
            assert value.startswith(("data:image/png;base64,", "data:image/webp;base64,", "#"))
    for outside in ("http:", "https:", "//", "@import", "url(h", "xlink", "<link", "<iframe"):
        # base64 holds "//" too, and so do the comments of the script: both are left out
        source = "".join(part for part in page.source.split('"') if not part.startswith("data:image"))
        assert outside not in re.sub("<script>.*?</script>", "", source, flags=re.DOTALL)
    (script,) = page.scripts
    assert "localeCompare" in script
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [value for name, value in page.attributes if name == "content" and value and "default-src" in value]
    assert policy == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{allowed}'; base-uri 'none'; form-action 'none'"
    )


@pytest.fixture(params=HOSTILE)
def hostile(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def hostile_strings() -> tuple[str, ...]:
    return HOSTILE


@pytest.fixture(scope="session", name="make_run")
def make_run_fixture() -> Callable[..., Path]:
    return make_run


@pytest.fixture(scope="session", name="make_result")
def make_result_fixture() -> Callable[..., dict[str, Any]]:
    return make_result


@pytest.fixture(scope="session")
def read_page() -> Callable[[Path], Page]:
    """A page that was found harmless."""

    def read(path: Path) -> Page:
        page = Page(path)
        assert_harmless(page)
        return page

    return read
