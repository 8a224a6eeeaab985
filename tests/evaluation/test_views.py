"""The views of an image: where they lie, in which order, and that nothing but (seed, image) decides the random ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alexnet.core.errors import UsageError
from alexnet.core.preprocessing import Preprocessing
from alexnet.evaluation.views import CENTER, TEN, Views, parse_views, positions, random_views_of, views_of


def listed(
    views: Views, image: int = 0, height: int = 256, width: int = 256, crop: int = 224
) -> list[tuple[int, int, bool]]:
    """(top, left, mirror) of each view of one image."""
    where = positions(views, np.array([image]), height, width, crop)
    columns = (where.top_BV[0].tolist(), where.left_BV[0].tolist(), where.mirror_BV[0].tolist())
    return list(zip(*columns, strict=True))


def test_ten_views_are_the_offsets_of_the_2012_program_in_its_order() -> None:
    # Fact sheet 5.5: offsets (0,0), (0,32), (16,16), (32,0), (32,32), then their mirror images.
    assert listed(TEN) == [
        (0, 0, False), (0, 32, False), (16, 16, False), (32, 0, False), (32, 32, False),
        (0, 0, True), (0, 32, True), (16, 16, True), (32, 0, True), (32, 32, True),
    ]  # fmt: skip


def test_offsets_of_an_odd_margin_are_rounded_down() -> None:
    # Caffe's networks: 256 - 227 = 29, half of it 14.5.
    assert listed(CENTER, crop=227) == [(14, 14, False)]
    assert listed(TEN, crop=227)[:5] == [
        (0, 0, False),
        (0, 29, False),
        (14, 14, False),
        (29, 0, False),
        (29, 29, False),
    ]


def test_an_image_no_larger_than_its_crop_has_one_place_for_every_view() -> None:
    for views in (CENTER, TEN, parse_views("random:3")):
        assert {place[:2] for place in listed(views, height=28, width=28, crop=28)} == {(0, 0)}


@pytest.mark.parametrize("text", ["1", "10", "random:1", "random:16", "random:1000"])
def test_what_is_parsed_prints_as_it_was_written(text: str) -> None:
    assert str(parse_views(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "2", "01", "ten", "random", "random:", "random:0", "random:-1", "random:1001", "random:٣", "Random:3", "1\n"],
)
def test_other_views_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError, match="must be 1") as caught:
        parse_views(text)
    assert "\n" not in str(caught.value)


def test_random_views_depend_on_seed_and_image_alone() -> None:
    together = positions(parse_views("random:4", seed=7), np.array([3, 900, 3]), 256, 256, 224)
    assert listed(parse_views("random:4", seed=7), image=900) == list(
        zip(together.top_BV[1].tolist(), together.left_BV[1].tolist(), together.mirror_BV[1].tolist(), strict=True)
    )
    assert (together.top_BV[0] == together.top_BV[2]).all()
    assert listed(parse_views("random:4", seed=7), 3) != listed(parse_views("random:4", seed=8), 3)
    assert listed(parse_views("random:4", seed=7), 3) != listed(parse_views("random:4", seed=7), 4)


def test_more_random_views_begin_with_the_same_ones() -> None:
    assert listed(parse_views("random:50"))[:5] == listed(parse_views("random:5"))


def test_random_views_reach_every_place_about_equally_often() -> None:
    where = positions(parse_views("random:1"), np.arange(33 * 400), 256, 256, 224)
    for offset_B in (where.top_BV[:, 0], where.left_BV[:, 0]):
        count = np.bincount(offset_B, minlength=33)
        assert len(count) == 33  # 0 .. 32, both ends included
        # 400 expected at each of 33 places: chi-squared has mean 32 and is above 70 once in 7000 seeds.
        assert ((count - 400) ** 2 / 400).sum() < 70
    assert abs(where.mirror_BV.mean() - 0.5) < 0.02  # 4.6 standard deviations
    for low_B in (
        where.top_BV[:, 0] < 16,
        where.left_BV[:, 0] < 16,
    ):  # and top, left and mirror know nothing of each other
        assert abs(where.mirror_BV[low_B, 0].mean() - 0.5) < 0.03
    assert abs(np.corrcoef(where.top_BV[:, 0], where.left_BV[:, 0])[0, 1]) < 0.04


def test_views_are_the_pixels_at_their_places() -> None:
    # A picture whose pixel (y, x) is 16 y + x, so that a crop tells where it comes from.
    pixels_BSSC = (16 * torch.arange(6)[:, None] + torch.arange(6)).to(torch.uint8)[None, :, :, None]
    preprocessing = Preprocessing(resize=6, crop=4, channels=1, mean="none")
    views_BCHW = list(views_of(pixels_BSSC, np.array([0]), TEN, preprocessing, None))
    # Top left and top right corner of each view; mirrored ones have them exchanged.
    corners = [(int(x[0, 0, 0, 0]), int(x[0, 0, 0, -1])) for x in views_BCHW]
    plain = [(0, 3), (2, 5), (17, 20), (32, 35), (34, 37)]
    assert corners == plain + [(right, left) for left, right in plain]
    assert all(x.shape == (1, 1, 4, 4) for x in views_BCHW)


def test_the_mean_is_that_of_the_center_or_that_under_the_view() -> None:
    image = torch.full((1, 6, 6, 1), 200, dtype=torch.uint8)
    mean_SSC = torch.arange(36.0).reshape(6, 6, 1)
    for mean_at, first_mean in [("center", [7] * 5), ("crop", [0, 2, 7, 12, 14])]:
        preprocessing = Preprocessing(resize=6, crop=4, channels=1, mean_at=mean_at)  # type: ignore[arg-type]
        views_BCHW = list(views_of(image, np.array([0]), TEN, preprocessing, mean_SSC))[:5]
        assert [200 - int(x[0, 0, 0, 0]) for x in views_BCHW] == first_mean


def test_random_views_of_whole_images_cover_the_long_side() -> None:
    # 8 x 40 pixels, each holding its column: crops of 8 begin at columns 0 .. 32, not in the center square alone.
    image_HWC = np.broadcast_to(np.arange(40, dtype=np.uint8)[None, :, None], (8, 40, 1))
    preprocessing = Preprocessing(resize=8, crop=8, channels=1, mean="none")
    views = parse_views("random:200")
    lefts = {int(x.min()) for x in random_views_of([image_HWC], views, preprocessing, None, torch.device("cpu"))}
    assert min(lefts) == 0
    assert max(lefts) == 32
    assert len(lefts) > 28  # 33 places, 200 draws: each is missed once in 500 times


def test_random_views_of_an_image_do_not_depend_on_the_others() -> None:
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, shape, dtype=np.uint8) for shape in [(12, 30, 3), (12, 12, 3), (17, 12, 3)]]
    mean_SSC = torch.from_numpy(generator.uniform(0, 255, (12, 12, 3)).astype(np.float32))
    preprocessing, views = Preprocessing(resize=12, crop=10), parse_views("random:5")
    together = list(random_views_of(images, views, preprocessing, mean_SSC, torch.device("cpu")))
    for i, image in enumerate(images):
        alone = random_views_of([image], views, preprocessing, mean_SSC, torch.device("cpu"))
        for both_BCHW, one_BCHW in zip(together, alone, strict=True):
            assert torch.equal(both_BCHW[i], one_BCHW[0])


def test_random_views_of_a_square_image_subtract_the_center_of_the_mean() -> None:
    mean_SSC = torch.arange(36.0).reshape(6, 6, 1)
    image_HWC = np.full((6, 6, 1), 200, dtype=np.uint8)
    preprocessing = Preprocessing(resize=6, crop=4, channels=1)
    for x_BCHW in random_views_of([image_HWC], parse_views("random:4"), preprocessing, mean_SSC, torch.device("cpu")):
        assert torch.equal(200 - x_BCHW[0, 0], mean_SSC[1:5, 1:5, 0])
