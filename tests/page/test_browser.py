"""The page in a real browser: every act in both languages, on a phone and on a desk. What must hold throughout is checked where a
visit ends (:func:`browsing.visited`).

Things are found by role and name, or by ``data-part``.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browsing import DESK, PHONE, STATIC, WORDS, faint_or_nameless, settle, visited

from alexnet.core.device import Machine
from alexnet.data.packed import PackedSet
from alexnet.models import create_model
from alexnet.models.folder import save_model_folder
from alexnet.probes.library import index
from shared import tiny_training

Visit = Callable[..., AbstractContextManager[Any]]


@pytest.fixture(scope="module")
def home(
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
def visit(chromium: Any, home: str) -> Visit:
    return partial(visited, chromium, home)


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


def see(page: Any, say: dict[str, str], photos: Path) -> None:
    choose(page, photos / "val/red/0.png")
    settle(page)
    assert page.locator("[data-part=answer-box] li").count() == 3
    assert page.locator("[data-part=views] .view").count() == 10
    before = page.locator("[data-part=input]").first.get_attribute("src")
    page.get_by_role("button", name=say["drop.photograph"]).click()
    page.get_by_role("button", name=say["camera.take"]).click()
    page.locator("[data-part=camera]").wait_for(state="detached")
    settle(page)
    assert page.locator("[data-part=input]").first.get_attribute("src") != before
    page.get_by_role("radio", name=say["heat.saliency"]).check(force=True)
    page.locator("[data-part=heat]").first.wait_for()

    page.locator("#stage-conv1").focus()
    for _ in range(3):  # norm1, pool1, conv2
        page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "stage-conv2"
    assert page.locator(".stage-name").inner_text().startswith("conv2")
    settle(page)
    page.locator("[data-channel='5']").focus()
    page.keyboard.press("Enter")
    settle(page)
    reading = page.locator("[data-part=reading]").inner_text()
    page.locator("[data-part=map-pad]").press("ArrowUp")
    page.locator("[data-part=map-pad]").press("ArrowLeft")
    assert page.locator("[data-part=reading]").inner_text() != reading

    page.get_by_role("switch", name=say["unit.switch_off"]).check(force=True)
    page.get_by_role("switch", name=say["switch.normalization"]).check(force=True)
    page.get_by_role("list", name=say["switch.after"]).wait_for()
    assert page.get_by_role("button", name=say["switch.channel_on"].format(name="conv2.5")).is_visible()

    page.locator("a.permanent").click()
    settle(page)
    assert page.url.endswith("/unit/conv2/5")
    page.locator("[data-part=crops] li").first.wait_for()
    assert page.locator(f"[alt='{say['unit.optimal_alt'].format(layer='conv2', channel=5)}']").is_visible()


def teach(page: Any, say: dict[str, str], photos: Path) -> None:
    piles = page.locator("[data-part=pile]")
    for pile, color in enumerate(("blue", "red")):
        piles.nth(pile).locator("[data-part=pile-name]").fill(color)
        choose(piles.nth(pile), *(photos / f"train/{color}/{i}.png" for i in range(4)))
        piles.nth(pile).get_by_text(say["teach.count"].format(n=4)).wait_for()
    piles.nth(1).locator("[data-part=record]").hover()
    page.mouse.down()
    piles.nth(1).locator(".thumb").nth(4).wait_for()  # frames may come faster than they are read
    page.mouse.up()
    settle(page)
    page.locator("[data-part=teach]:enabled").click()
    choose(page.locator("[data-part=try]"), photos / "val/blue/0.png")
    answers = page.locator("[data-part=tried] li")
    answers.nth(1).wait_for()
    page.get_by_role("switch", name=say["teach.heat"]).check(force=True)
    page.locator("[data-part=try] [data-part=heat]").wait_for()
    page.locator("[data-part=live]").click()
    page.locator("[data-part=live][aria-pressed=true]").click()
    page.locator("[data-part=keep]").click()
    kept = Path(page.locator("[data-part=kept] code").first.inner_text())
    assert json.loads((kept / "classes.json").read_text()) == ["blue", "red"]


def search(page: Any, say: dict[str, str], photos: Path) -> None:
    choose(page, photos / "val/green/1.png")
    found = page.locator("[data-part=by-features] .match")
    found.nth(2).wait_for()
    settle(page)
    assert page.locator("[data-part=by-pixels] .match").count() == found.count()
    assert page.evaluate("[...document.images].filter((image) => image.complete && !image.naturalWidth).length") == 0
    found.first.click()
    page.locator("[data-part=busy]").wait_for(state="detached")
    assert page.get_by_role("heading", name=say["search.why"]).is_visible()


def motion(page: Any, say: dict[str, str], photos: Path) -> None:
    page.locator("[data-part=motion-start]").click()
    page.locator("[data-part=steady] dd").first.wait_for()
    page.locator("[data-part=motion-start]").click()
    assert page.locator("[data-part=averaged] li").count() == 3
    assert page.locator("[data-part=chart] polyline").count() == 3
    assert page.locator("[data-part=motion-start]").inner_text() == say["motion.go_on"]


ACTS = {act.__name__: act for act in (see, teach, search, motion)}


def choose(where: Any, *files: Path) -> None:
    """Give files to the door that stands there."""
    where.locator("[data-part=file-input]").first.set_input_files(list(files))


@pytest.mark.parametrize(
    ("language", "width", "scheme"),
    [
        ("en", DESK, "light"),
        ("zh", PHONE, "dark"),
        pytest.param("en", PHONE, "dark", marks=pytest.mark.long),
        pytest.param("zh", DESK, "light", marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("act", ACTS)
def test_an_act_is_played(visit: Visit, tiny_folder: Path, act: str, language: str, width: int, scheme: str) -> None:
    say = WORDS[language]
    with visit(f"/{act}", language=language, width=width, scheme=scheme) as page:
        assert page.locator("main h1").inner_text() == say[f"{act}.title"]
        assert page.locator("nav [aria-current=page]").inner_text() == say[f"nav.{act}"]
        assert page.evaluate("document.documentElement.lang") == {"en": "en", "zh": "zh-Hans"}[language]
        ACTS[act](page, say, tiny_folder)
        assert faint_or_nameless(page) == []


def test_the_page_is_walked_by_keyboard_in_the_other_language_and_colors(visit: Visit) -> None:
    with visit("/search") as page:
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"  # the act, past all that stands above it
        page.locator("[data-part=language]").press("Enter")
        page.get_by_role("heading", name=WORDS["zh"]["search.title"]).wait_for()
        assert page.evaluate("document.documentElement.lang") == "zh-Hans"
        page.locator("[data-part=theme]").press("Enter")
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        page.get_by_role("link", name=WORDS["zh"]["nav.teach"]).press("Enter")
        page.get_by_role("heading", name=WORDS["zh"]["teach.title"]).wait_for()
        page.reload()
        page.get_by_role("heading", name=WORDS["zh"]["teach.title"]).wait_for()  # both choices are remembered
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        page.go_back()
        page.get_by_role("heading", name=WORDS["zh"]["search.title"]).wait_for()


def test_a_unit_opens_by_its_address(visit: Visit) -> None:
    with visit("/unit/conv1/3") as page:
        settle(page)
        assert page.locator("main h1").inner_text().startswith("conv1, channel 3")
        page.get_by_role("img", name=WORDS["en"]["unit.kernel_alt"]).wait_for()
        products = page.locator("[data-part=products]")
        products.locator("tbody tr").nth(2).wait_for()
        terms, _, total = products.locator(".sum-line").inner_text().replace("−", "-").partition("=")
        sums = [float(sign + number) for sign, number in re.findall(r"(-?) ?(\d+(?:\.\d+)?)", terms)]
        assert sum(sums) == pytest.approx(float(total.split()[0]), abs=0.003)
        assert faint_or_nameless(page) == []


def test_an_address_that_is_none_is_told_so(visit: Visit) -> None:
    with visit("/unit/conv9/3", wants="[data-part=fault]", tolerated="conv9") as page:
        assert "conv9" in page.locator("[data-part=fault]").inner_text()
