"""The page in a real browser: how a test opens it, and what must hold whatever the test does there."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import alexnet

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SWITCHES = ("--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
STATIC = Path(alexnet.__file__).parent / "page" / "static"
WORDS = {name: json.loads((STATIC / "text" / f"{name}.json").read_text("utf-8")) for name in ("en", "zh")}
LOCALES = {"en": "en-US", "zh": "zh-CN"}
DESK, PHONE = 1400, 400
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def lacking() -> str | None:
    """What has to be installed before the page can be opened in a browser here."""
    if CHROMIUM is None:
        return "chromium is not on the PATH (Debian: apt-get install chromium)"
    needed = {"playwright": "dev", "axe_playwright_python": "dev", "starlette": "serve", "uvicorn": "serve"}
    for module, extra in needed.items():
        if importlib.util.find_spec(module) is None:
            return f'{module} is not installed: pip install "alexnet[{extra}]"'
    return None


@contextlib.contextmanager
def visited(
    browser: Any,
    home: str,
    address: str,
    *,
    language: str = "en",
    width: int = DESK,
    scheme: str = "light",
    wants: str = "main h1",
    tolerated: str | None = None,
) -> Iterator[Any]:
    """The page at ``home + address``, once what ``wants`` selects is there. At the end it must have complained of nothing but
    what holds ``tolerated``, asked for nothing that does not begin with ``home``, left no key of a text in the place of the text,
    and not grown sideways."""
    faults: list[str] = []
    context = browser.new_context(
        locale=LOCALES[language], viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    context.set_default_timeout(60_000)
    page = context.new_page()
    page.on("console", lambda said: faults.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    at_home = (home, "blob:", "data:")
    context.on("request", lambda asked: None if asked.url.startswith(at_home) else faults.append(asked.url))
    try:
        page.goto(home + address)
        page.locator(wants).first.wait_for()
        yield page
        assert [fault for fault in faults if tolerated is None or tolerated not in fault] == []
        assert [key for key in WORDS["en"] if key in page.locator("body").inner_text()] == []
        assert page.evaluate(SIDEWAYS) == 0
    finally:
        context.close()


def settle(page: Any) -> None:
    """Wait until nothing is being computed any more."""
    page.wait_for_load_state("networkidle")
    page.locator("[data-part=busy], [aria-busy=true]").first.wait_for(state="detached")


def faint_or_nameless(page: Any) -> list[str]:
    """What axe-core finds that somebody could not read, reach or understand."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, options={"resultTypes": ["violations"], "preload": False}).response["violations"]
    return [f"{fault['id']}: {node['html']}" for fault in found for node in fault["nodes"]]
