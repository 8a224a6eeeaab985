"""kill -9 at random moments loses nothing: the same command ends with the same bytes."""

from __future__ import annotations

import pytest
from processes import kills, prepare_kills


@pytest.mark.timeout(1200)
def test_twenty_five_kills_at_random_moments_change_no_byte(tiny_set, tmp_path):
    figure = kills(tiny_set.path, tmp_path, 25, seed=1, reach=0.4)
    assert (figure.count, figure.failures) == (25, [])


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_two_hundred_kills_at_random_moments_change_no_byte(tiny_set, tmp_path):
    figure = kills(tiny_set.path, tmp_path, 200, seed=0)
    assert (figure.count, figure.failures) == (200, [])
    assert {"while training", "after the last step"} <= figure.details["killed"].keys()


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_prepare_killed_fifty_times_makes_the_same_set(tmp_path):
    figure = prepare_kills(tmp_path, 50, seed=0)
    assert (figure.count, figure.failures) == (50, [])
