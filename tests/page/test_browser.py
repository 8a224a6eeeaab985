"""The page in a real browser: every act in both languages, on a phone and on a desk. Whatever a test does there, the page may
complain of nothing, ask for nothing outside this machine, and not scroll sideways.

Things are found by role and name, or by ``data-part``.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import alexnet
from alexnet.core.device import Machine
from alexnet.data.packed import PackedSet
from alexnet.models import create_model
from alexnet.models.folder import save_model_folder
from alexnet.probes.library import index
from shared import tiny_training

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SWITCHES = ("--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
STATIC = Path(alexnet.__file__).parent / "page" / "static"
WORDS = {name: json.loads((STATIC / "text" / f"{name}.json").read_text("utf-8")) for name in ("en", "zh")}
LOCALES = {"en": "en-US", "zh": "zh-CN"}
ACTS = ("teach", "search")
DESK, PHONE = 1400, 400
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"

Visit = Callable[..., AbstractContextManager[Any]]


def lacking() -> str | None:
    """What has to be installed before the page can be opened in a browser here."""
    if CHROMIUM is None:
        return "chromium is not on the PATH (Debian: apt-get install chromium)"
    for module, extra in (
        ("playwright", "dev"),
        ("axe_playwright_python", "dev"),
        ("starlette", "serve"),
        ("uvicorn", "serve"),
    ):
        if importlib.util.find_spec(module) is None:
            return f'{module} is not installed: pip install "alexnet[{extra}]"'
    return None


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if reason := lacking():
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(SWITCHES))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def origin(
    chromium: Any, tiny_folder: Path, tiny_set: PackedSet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Where the page of a tiny network is served: of two towers, with random weights, data and an index of it."""
    folder = tmp_path_factory.mktemp("served")
    config = tiny_training(tiny_set.path)
    torch.manual_seed(0)
    network = create_model("alexnet_2012", **{**vars(config.model), "num_classes": 3})
    mean = np.full((36, 36, 3), 100.0)
    save_model_folder(folder / "net", network, "alexnet_2012", config.preprocessing, ["blue", "green", "red"], mean)
    machine = Machine(device=torch.device("cpu"), quiet=True)
    index(folder / "net", tiny_folder / "train", folder / "index", machine, metric="cosine")
    serve = f"serve net --data {tiny_set.path} --index index --port 0 --threads 1"
    command = [sys.executable, "-m", "alexnet", *serve.split()]
    environment = os.environ | {"ALEXNET_CACHE": str(folder / "cache")}
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().split()[-1].rstrip("/")  # net (alexnet_2012) at http://127.0.0.1:41234/
        finally:
            server.terminate()


@pytest.fixture
def visit(chromium: Any, origin: str) -> Visit:
    @contextlib.contextmanager
    def visit(address: str, *, language: str = "en", width: int = DESK, scheme: str = "light") -> Iterator[Any]:
        """The page at an address, once its act is there; at the end it must have behaved."""
        faults: list[str] = []
        context = chromium.new_context(
            locale=LOCALES[language],
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            reduced_motion="reduce",
        )
        context.set_default_timeout(15_000)
        page = context.new_page()
        page.on("console", lambda said: faults.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        context.on("request", lambda asked: None if is_at_home(asked.url, origin) else faults.append(asked.url))
        try:
            page.goto(origin + address)
            page.locator("main h1").wait_for()
            yield page
            assert faults == []
            assert page.evaluate(SIDEWAYS) == 0
        finally:
            context.close()

    return visit


def is_at_home(url: str, origin: str) -> bool:
    return url.startswith((origin + "/", "blob:", "data:"))


def settle(page: Any) -> None:
    """Wait until nothing is being computed any more."""
    page.wait_for_load_state("networkidle")
    page.locator("[data-part=busy]").first.wait_for(state="detached")


def faint_or_nameless(page: Any) -> list[str]:
    """What axe-core finds that somebody could not read, reach or understand."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [f"{fault['id']}: {node['html']}" for fault in found for node in fault["nodes"]]


# Words ---------------------------------------------------------------------------------------------------------------


def test_both_languages_have_the_same_texts_with_the_same_blanks() -> None:
    english, chinese = WORDS["en"], WORDS["zh"]
    assert list(english) == list(chinese)
    blanks = {key: set(re.findall(r"\{(\w+)\}", text)) for key, text in english.items()}
    assert {key: set(re.findall(r"\{(\w+)\}", text)) for key, text in chinese.items()} == blanks
    assert [key for key, text in {**english, **chinese}.items() if not text.strip()] == []


def test_every_text_that_the_page_asks_for_is_there() -> None:
    asked = {
        key
        for script in STATIC.glob("js/*.js")
        for key in re.findall(r"""\bt\(\s*"(\w+\.\w+)\"""", script.read_text("utf-8"))
    }
    assert len(asked) > 20
    assert asked - WORDS["en"].keys() == set()


# The acts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [DESK, PHONE])
@pytest.mark.parametrize("language", WORDS)
@pytest.mark.parametrize("act", ACTS)
def test_an_act_opens_by_its_address(visit: Visit, act: str, language: str, width: int) -> None:
    with visit(f"/{act}", language=language, width=width) as page:
        assert page.locator("main h1").inner_text() == WORDS[language][f"{act}.title"]
        assert page.evaluate("document.documentElement.lang") == {"en": "en", "zh": "zh-Hans"}[language]
        assert page.locator("nav [aria-current=page]").inner_text() == WORDS[language][f"nav.{act}"]


@pytest.mark.parametrize(("scheme", "language", "width"), [("light", "en", DESK), ("dark", "zh", PHONE)])
@pytest.mark.parametrize("act", ACTS)
def test_an_act_can_be_read_and_reached(visit: Visit, act: str, scheme: str, language: str, width: int) -> None:
    with visit(f"/{act}", language=language, width=width, scheme=scheme) as page:
        settle(page)
        assert faint_or_nameless(page) == []
