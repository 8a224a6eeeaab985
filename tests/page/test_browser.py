"""The page in a real browser: every act in both languages, on a phone and on a desk. What must hold throughout is checked where a
visit ends (:func:`browsing.visited`).

Things are found by role and name, or by ``data-part``.
"""

from __future__ import annotations

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

ACTS = ("see", "teach", "search", "motion")

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


@pytest.mark.parametrize("width", [DESK, PHONE])
@pytest.mark.parametrize("language", WORDS)
@pytest.mark.parametrize("act", ACTS)
def test_an_act_opens_by_its_address(visit: Visit, act: str, language: str, width: int) -> None:
    with visit(f"/{act}", language=language, width=width) as page:
        settle(page)
        assert page.locator("main h1").inner_text() == WORDS[language][f"{act}.title"]
        assert page.evaluate("document.documentElement.lang") == {"en": "en", "zh": "zh-Hans"}[language]
        assert page.locator("nav [aria-current=page]").inner_text() == WORDS[language][f"nav.{act}"]


@pytest.mark.parametrize(("scheme", "language", "width"), [("light", "en", DESK), ("dark", "zh", PHONE)])
@pytest.mark.parametrize("act", ACTS)
def test_an_act_can_be_read_and_reached(visit: Visit, act: str, scheme: str, language: str, width: int) -> None:
    with visit(f"/{act}", language=language, width=width, scheme=scheme) as page:
        settle(page)
        assert faint_or_nameless(page) == []
