"""Closed and full outputs, no home, no terminal, folders that are read-only or gone: every verb in each of them."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from surroundings import READ_ONLY, SURROUNDINGS, faults_in, run_in, verbs
from wrong_invocations import build_world

from alexnet.cli import VERBS


@pytest.fixture(scope="module")
def world() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="alexnet-test-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALEXNET_CACHE", f"{folder}/cache")
        patch.delenv("ALEXNET_DATA", raising=False)
        root = Path(folder, "großes Bild")
        root.mkdir()
        build_world(root)
        yield root
        (root / "locked").chmod(0o755)


def require_read_only(folder: Path) -> None:
    """For root it takes a mount of one's own."""
    try:
        subprocess.run([*READ_ONLY, str(folder), "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no read-only folder can be made here ({error})")


TRIED = VERBS.keys() - {"bench", "selftest"}  # which take minutes


def test_all_verbs_are_tried_but_two_that_take_minutes() -> None:
    assert verbs(Path("w"), Path("o")).keys() == TRIED


def test_one_verb_with_its_output_closed(tmp_path: Path) -> None:
    assert run_in("stdout closed", tmp_path, tmp_path / "place", ["claims"])["claims"] == (0, "")


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", list(SURROUNDINGS))
def test_every_verb_ends_as_it_should(name: str, world: Path, tmp_path: Path) -> None:
    if name == "read-only working folder":
        require_read_only(tmp_path)
    answers = run_in(name, world, tmp_path / "place", list(verbs(world, tmp_path)))
    assert answers.keys() == TRIED
    faults = {verb: (found, err) for verb, (code, err) in answers.items() if (found := faults_in(name, code, err))}
    assert faults == {}
