"""The loader gives each image once, in order, from any position, with any number of readers."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest
import torch

from alexnet.core.errors import AlexNetError, DataError, UsageError
from alexnet.data import loader
from alexnet.data.loader import ResidentSplit, balanced_order, batches, epoch_order
from alexnet.data.pool import in_processes


class Split:
    """Image i is filled with i, its label is i."""

    def __init__(self, num: int) -> None:
        self.labels = np.arange(num)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index_B):
        return np.tile(index_B.astype(np.uint8)[:, None, None, None], (1, 2, 2, 3))


@pytest.mark.parametrize("workers", [None, 0, 1, 3])
@pytest.mark.parametrize("start", [0, 8, 20, 23])
def test_images_come_in_order_from_any_position(workers, start):
    order = epoch_order(23, seed=0, epoch=1)
    out = list(batches(Split(23), order, 4, start=start, workers=workers))
    assert [len(b.image_B) for b in out] == [min(4, 23 - i) for i in range(start, 23, 4)]
    assert [i for b in out for i in b.image_B] == order[start:].tolist()
    for b in out:
        assert b.pixels_BSSC[:, 0, 0, 0].tolist() == b.label_B.tolist() == b.image_B.tolist()
        assert b.position_B.tolist() == list(range(b.position_B[0], b.position_B[0] + len(b.image_B)))


def test_what_reading_raises_reaches_the_caller_and_no_thread_stays():
    class Broken(Split):
        def read(self, index_B):
            raise DataError("image 3 is damaged")

    with pytest.raises(DataError, match="image 3"):
        list(batches(Broken(8), np.arange(8), 2, workers=2))
    deadline = time.monotonic() + 5
    while any(t.name.startswith("alexnet-reader") for t in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(t.name.startswith("alexnet-reader") for t in threading.enumerate())


def test_a_batch_that_does_not_come_is_given_up():
    release = threading.Event()

    class Slow(Split):
        def read(self, index_B):
            release.wait(5)
            return super().read(index_B)

    with pytest.raises(AlexNetError, match=r"position 0 took longer than 0\.2 s"):
        next(batches(Slow(8), np.arange(8), 8, workers=1, timeout=0.2))
    release.set()


def test_images_are_read_where_the_system_does_not_tell_which_cores_may_be_used(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    read = [batch.image_B.tolist() for batch in batches(Split(6), np.arange(6), 2)]
    assert read == [[0, 1], [2, 3], [4, 5]]
    assert dict(in_processes(abs, [-1, -2], None)) == {-1: 1, -2: 2}


def test_readers_are_added_only_when_batches_are_waited_for(monkeypatch):
    monkeypatch.setattr(loader, "usable_cores", lambda: 4)
    reading, most = [], []

    class Counted(Split):
        def __init__(self, seconds: float) -> None:
            super().__init__(40)
            self.seconds = seconds

        def read(self, index_B):
            reading.append(1)
            most.append(len(reading))
            time.sleep(self.seconds)
            reading.pop()
            return super().read(index_B)

    for _batch in batches(Counted(0.02), np.arange(40), 1):
        pass  # a reader much slower than its consumer
    assert max(most) == 4
    most.clear()
    for _batch in batches(Counted(0.0), np.arange(40), 1):
        time.sleep(0.01)
    assert max(most) <= 3


def test_a_resident_split_holds_the_same_images(monkeypatch):
    monkeypatch.setattr(loader, "RESIDENT_PIECE", 3)
    split = Split(11)
    resident = ResidentSplit(split, torch.device("cpu"))
    assert len(resident) == 11
    index = np.array([7, 0, 10, 7])
    assert np.array_equal(resident.read(index).numpy(), split.read(index))
    (batch,) = batches(resident, index, 4, workers=0)
    assert batch.label_B.tolist() == index.tolist()


def test_a_resident_split_that_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (25 << 30, 80 << 30))
    huge = Split(1)
    huge.labels = np.broadcast_to(np.int64(0), 10**9)
    monkeypatch.setattr(huge, "read", lambda index_B: np.zeros((len(index_B), 256, 256, 3), np.uint8))
    with pytest.raises(
        UsageError, match="--resident: 1,000,000,000 images are 196,608 GB, 27 GB of the device are free"
    ):
        ResidentSplit(huge, torch.device("cuda"))


def test_a_balanced_epoch_shows_each_class_equally_often_and_each_place_has_draws_of_its_own():
    # Class 0 has 100 images, class 1 ten, class 2 one; of 211 in the split 111 are to be learned from.
    labels = np.repeat([0, 1, 2, 9], [100, 10, 1, 100])
    order = balanced_order(np.arange(111), labels, seed=0, epoch=0)
    image = order % 211
    assert np.bincount(labels[image]).tolist() == [37, 37, 37]
    assert len(set(order.tolist())) == 111  # equal numbers would be varied alike
    assert np.bincount(image)[:100].max() == 1  # 37 different ones of the large class
    assert sorted(np.bincount(image)[100:110].tolist()) == [3] * 3 + [4] * 7
    assert sorted(order[image == 110].tolist()) == [110 + 211 * place for place in range(37)]
    again = balanced_order(np.arange(111), labels, seed=0, epoch=1)
    assert set(again[labels[again % 211] == 0].tolist()) != set(order[labels[image] == 0].tolist())
    assert np.corrcoef(np.arange(111), labels[image])[0, 1] ** 2 < 0.05  # classes do not come one after the other


def test_a_rest_of_a_balanced_epoch_goes_to_other_classes_in_other_epochs():
    labels = np.repeat([0, 1, 2], [5, 2, 1])
    counts = {tuple(np.bincount(labels[balanced_order(np.arange(8), labels, 0, e) % 8])) for e in range(20)}
    assert counts == {(3, 3, 2), (3, 2, 3), (2, 3, 3)}


def test_partners_and_repeated_images_are_read_with_their_labels():
    order = np.array([3, 1, 3 + 5, 0])
    (batch,) = batches(Split(5), order, 4, partner_N=np.array([2, 0, 0, 3]), workers=0)
    assert batch.label_B.tolist() == batch.pixels_BSSC[:, 0, 0, 0].tolist() == [3, 1, 3, 0]
    assert batch.image_B.tolist() == [3, 1, 8, 0]
    partners = batch.partners
    assert (partners.image_B.tolist(), partners.position_B.tolist()) == ([8, 3, 3, 0], [2, 0, 0, 3])
    assert partners.label_B.tolist() == partners.pixels_BSSC[:, 0, 0, 0].tolist() == [3, 3, 3, 0]
