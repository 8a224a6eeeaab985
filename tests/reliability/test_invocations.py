"""Every error of a user is one line that names the thing, the rule and the remedy: wrong invocations of every verb."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import wrong_invocations
from wrong_invocations import WRONG, Answer, Wrong, answer, build_world, faults_of, remove_new

from alexnet.cli import VERBS

QUICK = [wrong for wrong in WRONG if not wrong.as_nobody][::4]
HANG = 30.0
"""Seconds, on a machine with other work to do, that no refusal takes."""


@pytest.fixture(scope="module")
def world() -> Iterator[Path]:
    """A folder that other users may enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory(prefix="alexnet-test-") as folder, pytest.MonkeyPatch.context() as patch:
        root = Path(folder)
        root.chmod(0o755)
        patch.setenv("ALEXNET_CACHE", str(root / "cache"))
        patch.delenv("ALEXNET_DATA", raising=False)
        (root / "world").mkdir()
        build_world(root / "world")
        yield root / "world"
        (root / "world" / "locked").chmod(0o755)


def test_they_are_enough_and_of_every_verb() -> None:
    assert len(WRONG) >= 200
    assert len(set(WRONG)) == len(WRONG)
    assert set(VERBS) <= {wrong.arguments[0] for wrong in WRONG}
    assert set(VERBS) <= {wrong.arguments[0] for wrong in QUICK}


@pytest.mark.parametrize(
    ("arguments", "got", "fault"),
    [
        ("evaluate nowhere", Answer(1, "", "alexnet: no model; name one\n", 0, 0), "does not name nowhere"),
        ("evaluate nowhere", Answer(1, "", "alexnet: nowhere: broken\n", 0, 0), "no rule or remedy"),
        ("evaluate nowhere", Answer(0, "", "", 0, 0), "exit 0"),
        ("evaluate nowhere", Answer(1, "", "nowhere; take\nanother\n", 0, 0), "2 lines"),
        ("evaluate nowhere", Answer(1, "", f"alexnet: nowhere; {'take ' * 50}\n", 0, 0), "characters"),
        (
            "evaluate nowhere",
            Answer(1, "", "alexnet: KeyError: nowhere; (--debug shows where)\n", 0, 0),
            "not foreseen",
        ),
    ],
)
def test_a_bad_answer_is_found(arguments: str, got: Answer, fault: str) -> None:
    faults = faults_of(Wrong(tuple(arguments.split()), "nowhere"), got)
    assert any(fault in found for found in faults), faults


@pytest.mark.parametrize("wrong", QUICK, ids=[wrong.id for wrong in QUICK])
def test_a_wrong_invocation_is_one_line(wrong: Wrong, world: Path) -> None:
    got = answer(wrong, world)
    assert faults_of(wrong, got) == [], got
    assert got.wall_seconds < HANG
    assert not remove_new(world) or 4 in wrong.codes, "something was written"


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_wrong_invocation_is_one_line_and_soon(world: Path) -> None:
    """In processes of their own that have imported nothing but torch, where others' folders are closed to them."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    python = [sys.executable, wrong_invocations.__file__, str(world)]
    done = subprocess.run(python, capture_output=True, text=True, env=environment, check=True)
    answers = [Answer(**fields) for fields in json.loads(done.stdout)]
    faults = {
        wrong.id: (found, got.err)
        for wrong, got in zip(WRONG, answers, strict=True)
        if (found := faults_of(wrong, got)) or got.cpu_seconds > HANG
    }
    assert faults == {}
