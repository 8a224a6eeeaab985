"""Thumbnails of mistakes: the right pictures under the right names, readable by the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from alexnet.evaluation.error_rate import Evaluation, Mistake
from alexnet.evaluation.mistakes import THUMBNAIL, save_mistakes
from alexnet.report.tables import read_thumbnails


@dataclass(frozen=True)
class Pictures:
    """Image i is of the one value 10 i."""

    num: int
    size: int
    channels: int

    def __len__(self) -> int:
        return self.num

    @property
    def labels(self) -> NDArray[np.int64]:
        return np.zeros(self.num, dtype=np.int64)

    @property
    def paths(self) -> Sequence[str]:
        return [f"val/{i}\n\udc80.jpg" for i in range(self.num)]

    def read(self, index_B: NDArray[np.int64]) -> NDArray[np.uint8]:
        shape = (len(index_B), self.size, self.size, self.channels)
        return np.broadcast_to(10 * index_B.astype(np.uint8)[:, None, None, None], shape).copy()


def evaluation(paths: Sequence[str]) -> Evaluation:
    mistakes = tuple(Mistake(path, 0, 1, 0.9, 0.1) for path in paths)
    return Evaluation(
        n=9, top1_errors=9, top5_errors=0, loss_nats=1.0, classes=(), confusion=(), mistakes=mistakes, protocol={}, environment={}
    )  # fmt: skip


@pytest.mark.parametrize(("size", "channels"), [(256, 3), (28, 1), (THUMBNAIL, 3)])
def test_every_mistake_of_every_evaluation_has_its_own_picture(tmp_path: Path, size: int, channels: int) -> None:
    split = Pictures(9, size, channels)
    first, second = [split.paths[i] for i in (7, 2)], [split.paths[i] for i in (2, 5)]
    save_mistakes(tmp_path, [evaluation(first), evaluation(second)], split)
    thumbnails = read_thumbnails(tmp_path / "mistakes.npz")
    assert list(thumbnails) == [split.paths[i] for i in (2, 5, 7)]
    for i in (2, 5, 7):
        assert thumbnails[split.paths[i]].shape == (THUMBNAIL, THUMBNAIL, 3)
        assert (thumbnails[split.paths[i]] == 10 * i).all()


def test_pixels_of_a_small_image_stay_squares(tmp_path: Path) -> None:
    class Checks(Pictures):
        def read(self, index_B: NDArray[np.int64]) -> NDArray[np.uint8]:
            return np.array([[0, 255], [255, 0]], dtype=np.uint8).reshape(1, 2, 2, 1)

    split = Checks(1, 2, 1)
    save_mistakes(tmp_path, [evaluation(split.paths)], split)
    (pixels_SSC,) = read_thumbnails(tmp_path / "mistakes.npz").values()
    assert set(np.unique(pixels_SSC)) == {0, 255}
    assert (pixels_SSC[: THUMBNAIL // 2, : THUMBNAIL // 2] == 0).all()


def test_a_network_without_a_mistake_leaves_an_empty_file(tmp_path: Path) -> None:
    save_mistakes(tmp_path, [evaluation([])], Pictures(2, 8, 3))
    assert read_thumbnails(tmp_path / "mistakes.npz") == {}


def test_the_file_is_the_same_every_time(tmp_path: Path) -> None:
    split = Pictures(3, 64, 3)
    contents = []
    for _ in range(2):
        save_mistakes(tmp_path, [evaluation(split.paths)], split)
        contents.append((tmp_path / "mistakes.npz").read_bytes())
    assert contents[0] == contents[1]
