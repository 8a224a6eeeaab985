"""CONTRIBUTING.md names files, tables and commands that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILES = sorted(
    {
        name
        for name in re.findall(r"`((?:src|tests|docs|results|benchmarks|\.ci)/[\w./-]*)`", TEXT)
        if "NAME" not in name
    }
)
SOURCE = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "src").rglob("*.py")))
TABLES = sorted(set(re.findall(r"`(_?[A-Z][A-Z_]{4,})`", TEXT)))


@pytest.mark.parametrize("name", FILES)
def test_a_file_exists(name: str):
    assert (ROOT / name).exists()


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_in_the_source_or_in_the_tests(name: str):
    in_options = (ROOT / "tests" / "test_options.py").read_text(encoding="utf-8")
    assert re.search(rf"^{name}\b.*=", SOURCE + in_options, re.MULTILINE)


@pytest.mark.parametrize("what", ["an activation", "a network", "a data source", "a schedule", "a probe", "a claim"])
def test_there_is_a_recipe(what: str):
    assert f"\n## Add {what}\n\n" in TEXT


def test_targets_of_make_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {word for line in re.findall(r"`make ([a-z -]+)`", TEXT) for word in line.split()}
    assert targets >= {"check", "test", "format"}
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []
