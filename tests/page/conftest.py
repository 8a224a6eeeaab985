"""Tests of the page find `rooms` and `browsing`, which stand beside them, and one browser."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

pytest.register_assert_rewrite("browsing")

from browsing import CHROMIUM, SWITCHES, lacking  # noqa: E402


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Closed with its module: Playwright's loop runs until then, and nobody else could run one."""
    if reason := lacking():
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(SWITCHES))
        yield browser
        browser.close()
