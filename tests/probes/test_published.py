"""The published findings of ``results/inside/`` are documents as the probes write them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from alexnet.core.runs import read_json
from alexnet.probes import KINDS, probe_of
from alexnet.report.inside import read_sections

INSIDE = Path(__file__).parents[2] / "results" / "inside"
PUBLISHED = ("kernels", "towers", "maps", "neighbors", "codes", "tsne", "linear", "inputs")


HEAD = ["probe", "title", "sentence", "place", "network", "model", "data", "settings", "n", "summary"]


@pytest.mark.parametrize("kind", PUBLISHED)
def test_a_published_finding_is_a_document_of_its_kind(kind: str) -> None:
    document = read_json(INSIDE / f"{kind}.json")
    assert list(document)[: len(HEAD)] == HEAD
    assert list(document)[-4:] == ["protocol", "environment", "numbered", "files"]
    assert (document["probe"], document["place"]) == (kind, KINDS.index(kind))
    assert document["settings"].keys() <= {field.name for field in fields(probe_of(kind).Settings)}
    assert all(name.startswith(kind) for name in document["files"])


def test_the_report_shows_them_in_their_order() -> None:
    sections = [section for section in read_sections(INSIDE, []) if section.name in PUBLISHED]
    assert [section.name for section in sections] == sorted(PUBLISHED, key=KINDS.index)
    assert [section.title for section in sections] == [probe_of(section.name).TITLE for section in sections]
    assert all(section.figures for section in sections)
