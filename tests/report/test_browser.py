"""The pages in a real browser: nothing is loaded or complained of, tables sort, and everything fits on a phone.

The browser is driven as W3C WebDriver describes, over HTTP to chromedriver.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alexnet.report.comparison import write_comparison
from alexnet.report.page import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
SWITCHES = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions"),
)


class Browser:
    """One session of chromium."""

    def __init__(self, server: str, profile: str) -> None:
        options = {
            "binary": CHROMIUM,
            "args": [*SWITCHES, f"--user-data-dir={profile}"],
            "perfLoggingPrefs": {"enableNetwork": True},
        }
        self.session = server + "/session"
        asked = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        answer = self.call("", {"capabilities": {"alwaysMatch": asked}})
        self.session += "/" + answer["sessionId"]
        self.call("/url", {"url": "about:blank"})  # leaves the page that the browser starts with

    def call(self, path: str, body: Any = None, method: str = "POST") -> Any:
        data = None if method in ("GET", "DELETE") else json.dumps(body or {}).encode()
        request = urllib.request.Request(self.session + path, data, {"Content-Type": "application/json"}, method=method)
        with DIRECT.open(request, timeout=30) as response:
            return json.load(response)["value"]

    def devtools(self, command: str, **parameters: Any) -> Any:
        return self.call("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def run(self, script: str) -> Any:
        return self.call("/execute/sync", {"script": script, "args": []})

    def log(self, kind: str) -> list[dict[str, Any]]:
        """What was logged since the last call."""
        return list(self.call("/se/log", {"type": kind}))

    def open(self, page: Path, width: int = 1400, scheme: str = "light", media: str = "") -> None:
        self.log("browser")
        self.log("performance")
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.devtools("Emulation.setEmulatedMedia", media=media, features=features)
        self.call("/url", {"url": page.as_uri()})

    def requests(self) -> list[str]:
        """The addresses asked for since the page was opened."""
        events = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        driver = subprocess.Popen(
            [str(CHROMEDRIVER), "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            assert driver.stdout is not None
            port = next(m[1] for line in driver.stdout if (m := re.search(r"successfully on port (\d+)", line)))
            session = Browser(f"http://127.0.0.1:{port}", profile)
            try:
                yield session
            finally:
                session.call("", method="DELETE")
        finally:
            driver.terminate()
            driver.wait(10)
            driver.stdout.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if CHROMIUM is None or CHROMEDRIVER is None:
        pytest.skip("chromium and chromedriver are not on the PATH (Debian: apt-get install chromium chromium-driver)")
    with browser() as session:
        yield session


@pytest.fixture(scope="module")
def pages(
    tmp_path_factory: pytest.TempPathFactory, make_run: Callable[..., Path], hostile_strings: tuple[str, ...]
) -> dict[str, Path]:
    """A run of 3 classes, one of 40 with hostile names for everything, and both compared."""
    folder = tmp_path_factory.mktemp("runs")
    few = make_run(folder / "few")
    many = make_run(folder / "many", lambda what: what + " " + hostile_strings[len(what) % len(hostile_strings)], 40)
    path = many / "results" / "final-ten.json"
    result = json.loads(path.read_text())
    names = hostile_strings * 6
    for k, row in enumerate(result["classes"]):  # 0 and 39 are the best, 20 the worst
        row |= {"name": f"class {k} {names[k]}", "top1_errors": 20 - abs(20 - k)}
    path.write_text(json.dumps(result | {"top1_errors": sum(row["top1_errors"] for row in result["classes"])}))
    return {
        "few": write_report(few),
        "many": write_report(many),
        "comparison": write_comparison([few, many], folder / "comparison.html"),
    }


@pytest.mark.parametrize("name", ["few", "many", "comparison"])
def test_nothing_is_loaded_and_nothing_complained_of(chromium: Browser, pages: dict[str, Path], name: str) -> None:
    chromium.open(pages[name])
    addresses = chromium.requests()
    assert addresses[0] == pages[name].as_uri()
    assert all(address.startswith("data:image/") for address in addresses[1:])
    assert chromium.log("browser") == []
    assert chromium.run("return [...document.images].every((image) => image.naturalWidth > 0)")
    assert chromium.run("return document.scripts.length") == 1


def test_a_foreign_script_would_not_run(chromium: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    # If an escape were ever forgotten, the policy would still stand.
    source = pages["few"].read_text("utf-8")
    hole = "<script>document.title = 'hacked'</script><img src=x: onerror=\"document.title = 'hacked'\">"
    (tmp_path / "page.html").write_text(source.replace("<h1>", hole + "<h1>"), "utf-8")
    chromium.open(tmp_path / "page.html")
    assert chromium.run("return document.title") == "alexnet_2012 on shapes"
    assert len(chromium.log("browser")) >= 2


COLUMN = """const table = document.querySelector("#classes ~ .long table");
return [...table.tBodies[0].rows].map((row) => row.cells[%d].textContent)"""
SHOWN = """return [...document.querySelector("#classes ~ .long tbody").rows].filter((row) => row.offsetHeight).length"""
HEADS = """[...document.querySelector("#classes ~ .long table").tHead.rows[0].cells]"""


def test_tables_sort_by_click_and_by_key(chromium: Browser, pages: dict[str, Path]) -> None:
    chromium.open(pages["many"])

    def numbers(column: int) -> list[float]:
        return [float(text.split()[0].replace(",", "")) for text in chromium.run(COLUMN % column)]

    def click(column: int) -> str:
        return str(chromium.run(f"const head = {HEADS}[{column}]; head.firstChild.click(); return head.ariaSort"))

    assert numbers(2) == sorted(numbers(2), reverse=True)
    assert click(2) == "ascending"
    assert numbers(2) == sorted(numbers(2))
    assert numbers(2)[:2] == [0.0, 5.0]  # as numbers, not as text, where 10.0 comes before 5.0
    assert click(0) == "descending"
    assert numbers(0) == list(range(39, -1, -1))
    assert click(0) == "ascending"
    assert numbers(0) == list(range(40))
    assert click(1) == "ascending"
    assert [int(text.split()[1]) for text in chromium.run(COLUMN % 1)] == list(range(40))  # class 9 before class 10
    assert chromium.run(f"return {HEADS}.map((head) => head.ariaSort)") == [None, "ascending", *[None] * 6]

    chromium.run(f"{HEADS}[2].firstChild.focus()")
    for kind in ("keyDown", "keyUp"):
        chromium.devtools(
            "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r"
        )
    assert chromium.run(f"return {HEADS}[2].ariaSort") == "descending"
    assert numbers(2)[0] == 100.0


def test_a_long_table_shows_its_first_rows_or_all(chromium: Browser, pages: dict[str, Path]) -> None:
    chromium.open(pages["many"])
    assert chromium.run(SHOWN) == 20
    chromium.run("document.querySelector('label[for=all-classes]').click()")
    assert chromium.run(SHOWN) == 40


def test_without_scripts_the_page_says_the_same(chromium: Browser, pages: dict[str, Path]) -> None:
    chromium.open(pages["many"])
    text = chromium.run("return document.body.innerText")
    chromium.devtools("Emulation.setScriptExecutionDisabled", value=True)
    try:
        chromium.open(pages["many"])
        assert chromium.run("return document.querySelectorAll('th button').length") == 0
        assert chromium.run("return document.body.innerText").split() == text.split()
    finally:
        chromium.devtools("Emulation.setScriptExecutionDisabled", value=False)


@pytest.mark.parametrize("name", ["few", "many", "comparison"])
@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_sticks_out_sideways(chromium: Browser, pages: dict[str, Path], name: str, width: int) -> None:
    chromium.open(pages[name], width)
    assert chromium.run("return innerWidth") == width
    chromium.run("document.querySelectorAll('details').forEach((each) => { each.open = true })")
    chromium.run("document.querySelectorAll('[name=zoom][value=\"8\"]').forEach((each) => each.click())")
    assert chromium.run("return document.documentElement.scrollWidth <= innerWidth")


def test_the_confusion_picture_grows_within_its_frame(chromium: Browser, pages: dict[str, Path]) -> None:
    chromium.open(pages["many"])
    size = "return [document.querySelector('.cells').offsetWidth, document.querySelector('.plot').offsetWidth]"
    picture, frame = chromium.run(size)
    chromium.run("document.querySelector('[name=zoom][value=\"4\"]').click()")
    assert chromium.run(size) == [pytest.approx(4 * picture, abs=80), frame]  # less a scroll bar, times four


# Contrast as WCAG 2 counts it, of every text on the page with what is behind it.
CONTRAST = """
const parse = (text) => {
  const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
  return text.startsWith("color(") ? [r, g, b, a] : [r / 255, g / 255, b / 255, a];
};
const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
const behind = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const color = parse(getComputedStyle(at).backgroundColor);
    if (color[3] > 0) return color;
  }
  return [1, 1, 1];
};
const faint = [];
for (const element of document.querySelectorAll("main *:not(svg, svg *, details *)")) {
  if (![...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
  const [low, high] = [parse(getComputedStyle(element).color), behind(element)].map(luminance).sort((a, b) => a - b);
  if ((high + 0.05) / (low + 0.05) < 4.5) faint.push(element.outerHTML.slice(0, 200));
}
return faint"""


@pytest.mark.parametrize("name", ["few", "many", "comparison"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(chromium: Browser, pages: dict[str, Path], name: str, scheme: str) -> None:
    chromium.open(pages[name], scheme=scheme)
    red = int(re.findall(r"\d+", chromium.run("return getComputedStyle(document.body).backgroundColor"))[0])
    assert red < 40 if scheme == "dark" else red > 240
    assert chromium.run(CONTRAST) == []


def test_print_is_black_on_white_and_unfolded(chromium: Browser, pages: dict[str, Path]) -> None:
    chromium.open(pages["many"], width=700, scheme="dark", media="print")
    style = "return getComputedStyle(document.querySelector('%s')).%s"
    assert chromium.run(style % ("body", "backgroundColor")) == "rgb(255, 255, 255)"
    assert chromium.run(style % ("body", "color")) == "rgb(0, 0, 0)"
    assert chromium.run(style % ("nav", "display")) == "none"
    assert chromium.run("return document.querySelector('details:not(.aside) td').getBoundingClientRect().height") > 0
    wide = "return [...document.querySelectorAll('main *')].filter((e) => e.getBoundingClientRect().right > innerWidth)"
    assert chromium.run(wide + ".map((e) => e.outerHTML.slice(0, 100))") == []


def test_pictures_have_words_and_controls_have_names(chromium: Browser, pages: dict[str, Path]) -> None:
    for path in pages.values():
        chromium.open(path)
        chromium.devtools("Accessibility.enable")
        nodes = chromium.devtools("Accessibility.getFullAXTree")["nodes"]
        shown = [node for node in nodes if not node["ignored"]]
        roles = {"image", "button", "checkbox", "radio", "link", "heading"}
        named = [node for node in shown if node["role"]["value"] in roles]
        assert {"image", "button", "heading"} <= {node["role"]["value"] for node in named}
        assert all(node["name"]["value"].strip() for node in named)
