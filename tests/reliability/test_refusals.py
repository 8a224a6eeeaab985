"""What --fresh may cost: nothing, until the new run has a checkpoint."""

from __future__ import annotations

import pytest
from refusals import refusals, replacements_killed


def test_a_refused_fresh_start_leaves_the_old_run_whole_and_nothing_else(tiny_set, tmp_path):
    figure = refusals(tiny_set.path, tmp_path)
    assert figure.failures == []
    assert figure.count >= 20


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_fresh_start_that_is_killed_gives_the_old_run_back(tiny_set, tmp_path):
    assert replacements_killed(tiny_set.path, tmp_path).failures == []
