"""constraints.txt, the versions that were tested, fits pyproject.toml and holds versions alone."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DIRECT = [
    requirement
    for line in [
        *PROJECT["dependencies"],
        *(line for extra in PROJECT["optional-dependencies"].values() for line in extra),
    ]
    if (requirement := Requirement(line)).name
    not in (PROJECT["name"], "triton")  # each build of torch names its triton
]
LINES = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
TESTED = dict(line.lower().replace("_", "-").split("==") for line in LINES)


def test_every_line_is_a_package_and_a_version():
    # No registry, no folder of one machine, no build for one device.
    assert [line for line in LINES if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)] == []
    assert len(TESTED) == len(LINES)


@pytest.mark.parametrize("requirement", DIRECT, ids=str)
def test_every_direct_dependency_has_a_version_that_is_allowed(requirement: Requirement):
    assert requirement.specifier.contains(TESTED[requirement.name])


def test_torch_is_the_one_that_make_installs():
    (torch,) = re.findall(r"^TORCH \?= torch==(\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert TESTED["torch"] == torch
