"""A reader that dies, hangs or is stopped is noticed and named, and ends what waits for it."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from faults import CONTEXT, HANG
from processes import readers_lost, workers_lost

from alexnet.core.errors import AlexNetError
from alexnet.data.loader import batches


class Hanging:
    """A split whose second batch never comes."""

    labels = np.arange(8)

    def __len__(self) -> int:
        return 8

    def read(self, index_B: np.ndarray) -> np.ndarray:
        if 2 in index_B:
            threading.Event().wait()
        return np.zeros((len(index_B), 2, 2, 3), np.uint8)


def _read_in_vain() -> None:
    with pytest.raises(AlexNetError, match=r"position 2 took longer than 0\.2 s"):
        list(batches(Hanging(), np.arange(8), 2, workers=2, timeout=0.2))


def test_a_read_that_never_ends_does_not_keep_the_process_from_ending():
    process = CONTEXT.Process(target=_read_in_vain)
    process.start()
    process.join(HANG)
    ended = process.exitcode
    process.kill()
    assert ended == 0


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_twenty_reads_that_hang_or_are_damaged_are_named_and_lose_nothing(tiny_set, tmp_path):
    figure = readers_lost(tiny_set.path, tmp_path, 20, seed=0)
    assert (figure.count, figure.failures) == (20, [])


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_twenty_workers_of_prepare_are_killed_and_stopped_and_named(tmp_path):
    figure = workers_lost(tmp_path, 20, seed=0)
    assert (figure.count, figure.failures) == (20, [])
