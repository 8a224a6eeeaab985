"""Crops, mirrors, means and noise, written out on images small enough to check by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from alexnet.core.preprocessing import ColorStatistics, Preprocessing
from alexnet.data.transforms import Augmentation, Draws, apply_crops, augment, draw, draw_mixes, fit, mix

SMALL = Preprocessing(resize=6, crop=4)
IMAGES = np.arange(100)


def images(num: int = 3, size: int = 6) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (num, size, size, 3), dtype=np.uint8))


def places(*values: int) -> torch.Tensor:
    return torch.tensor(values)


def draws_for(
    augmentation: Augmentation, preprocessing: Preprocessing = SMALL, epoch: int = 0, num: int = 100
) -> Draws:
    index = np.arange(num)
    return draw(augmentation, preprocessing, seed=1, epoch=epoch, image_B=index, position_B=index)


def test_a_crop_is_mirrored_and_loses_the_center_of_the_mean_wherever_it_lies():
    pixels, mean = images(), torch.rand(6, 6, 3) * 255
    x = apply_crops(pixels, places(0, 1, 2), places(2, 0, 1), torch.tensor([False, True, False]), SMALL, mean)
    center = mean[1:5, 1:5]
    expected = [pixels[0, 0:4, 2:6], pixels[1, 1:5, 0:4].flip(1), pixels[2, 2:6, 1:5]]
    for out, crop in zip(x, expected, strict=True):
        torch.testing.assert_close(out, (crop.float() - center).permute(2, 0, 1))


def test_caffe_subtracts_the_mean_under_the_crop_before_it_mirrors():
    pixels, mean = images(1), torch.rand(6, 6, 3) * 255
    caffe = replace(SMALL, mean_at="crop", channel_order="bgr")
    x = apply_crops(pixels, places(2), places(1), torch.tensor([True]), caffe, mean)
    expected = (pixels[0].float() - mean)[2:6, 1:5].flip(1).flip(2)
    torch.testing.assert_close(x[0], expected.permute(2, 0, 1))


def test_channel_statistics_and_scale():
    standard = Preprocessing(resize=6, crop=4, mean="channel", channel_mean=(10, 20, 30), std=(2, 4, 8))
    x = apply_crops(images(1), places(0), places(0), torch.tensor([False]), standard, None)
    pixel = images(1)[0, 0, 0].double()
    torch.testing.assert_close(x[0, :, 0, 0].double(), (pixel - torch.tensor([10, 20, 30])) / torch.tensor([2, 4, 8]))
    unit = Preprocessing(resize=6, crop=4, mean="none", scale=1 / 255)
    assert float(apply_crops(images(), *[places(0, 0, 0)] * 2, torch.zeros(3).bool(), unit, None).max()) <= 1


def test_random_crops_reach_every_place_and_depend_on_the_epoch_and_the_image_alone():
    many = draws_for(Augmentation(), num=3000)
    assert set(zip(many.top_B, many.left_B, strict=True)) == {(top, left) for top in range(3) for left in range(3)}
    assert 0.46 < many.mirror_B.mean() < 0.54
    again = draw(Augmentation(), SMALL, seed=1, epoch=0, image_B=np.array([7, 3]), position_B=np.array([500, 2]))
    assert (again.top_B == many.top_B[[7, 3]]).all()
    assert (again.noise_BC == many.noise_BC[[7, 3]]).all()
    assert (draws_for(Augmentation(), epoch=1).noise_BC != draws_for(Augmentation()).noise_BC).all()


def test_paper_crops_are_33_by_33_places_of_the_256_pixel_image():
    drawn = draws_for(Augmentation(), Preprocessing(), num=5000)
    assert (drawn.top_B.min(), drawn.top_B.max()) == (0, 32)


@pytest.mark.parametrize("crop", ["random", "resized"])
def test_few_crops_of_an_image_come_again_and_again_while_the_noise_is_always_new(crop):
    few, all_ = Augmentation(crop=crop, crops=3), Augmentation(crop=crop)
    preprocessing = replace(SMALL, resize=32, crop=24)

    def boxes(augmentation: Augmentation, epoch: int) -> np.ndarray:
        d = draws_for(augmentation, preprocessing, epoch)
        return np.stack([d.top_B, d.left_B, d.height_B, d.width_B, d.mirror_B], axis=1)

    for epoch in range(7):  # the crops of the first three passes, each as often as the others
        np.testing.assert_array_equal(boxes(few, epoch), boxes(all_, epoch % 3))
    assert all((boxes(few, 0) != boxes(few, epoch)).any() for epoch in (1, 2))
    noise = [draws_for(few, preprocessing, epoch).noise_BC for epoch in (0, 3)]
    assert not np.array_equal(*noise)


def test_the_2012_program_shares_crops_by_32_consecutive_positions_but_not_noise():
    drawn = draws_for(Augmentation(crop_draws="chunk"), Preprocessing(), num=128)
    for values in (drawn.top_B, drawn.left_B, drawn.mirror_B):
        assert (values.reshape(4, 32) == values.reshape(4, 32)[:, :1]).all()
    assert len(set(drawn.top_B)) > 1
    assert len(set(drawn.noise_BC[:, 0])) == 128


@pytest.fixture
def color() -> ColorStatistics:
    """The components that the author published for ImageNet (cuda-convnet2, input_meta)."""
    vectors = np.array(
        [[0.417955, -0.712580, -0.563511], [-0.816981, -0.023542, -0.576184], [0.397311, 0.701196, -0.592003]]
    )
    std = np.array([19.7208, 37.0939, 121.7801])
    return ColorStatistics(np.zeros(3), vectors @ np.diag(std**2) @ vectors.T, std**2, vectors, std)


def test_color_noise_is_standard_normal_times_a_tenth_of_each_deviation_along_each_component(color):
    none, noisy = Augmentation(crop="center", mirror=False, color_noise=0), Augmentation(crop="center", mirror=False)
    pixels, mean = images(100), torch.zeros(6, 6, 3)
    drawn = draws_for(noisy)
    plain = augment(pixels, draws_for(none), none, SMALL, mean, color)
    difference = augment(pixels, drawn, noisy, SMALL, mean, color) - plain
    assert drawn.noise_BC is not None
    for i in (0, 99):  # by hand: sum over components of 0.1 * normal * deviation * vector, the same for every pixel
        by_hand = sum(
            0.1 * drawn.noise_BC[i, c] * color.standard_deviations_C[c] * color.eigenvectors_CC[:, c] for c in range(3)
        )
        expected = torch.from_numpy(by_hand).float()[:, None, None].expand(3, 4, 4)
        torch.testing.assert_close(difference[i], expected, atol=1e-3, rtol=1e-4)
    components = difference[:, :, 0, 0].double().numpy() @ color.eigenvectors_CC
    assert components.std(axis=0) == pytest.approx(0.1 * color.standard_deviations_C, rel=0.25)


@pytest.mark.parametrize(
    ("of", "size"),
    [
        ("eigenvalue", lambda color: color.standard_deviations_C**2),
        ("constants", lambda color: 255 * np.array([0.0045, 0.0188, 0.2175])),
    ],
)
def test_color_noise_as_the_formula_has_it_and_as_others_copied_it(of, size, color):
    plain = Augmentation(crop="center", mirror=False)
    noisy = replace(plain, color_noise_of=of)
    pixels = torch.full((2, 10, 10, 3), 128, dtype=torch.uint8)
    mean = torch.zeros(10, 10, 3)
    drawn = draws_for(noisy, num=2)
    added = augment(pixels, drawn, noisy, SMALL, mean, color) - 128
    for i in range(2):
        expected = sum(0.1 * drawn.noise_BC[i, c] * size(color)[c] * color.eigenvectors_CC[:, c] for c in range(3))
        np.testing.assert_allclose(added[i, :, 3, 3], expected, rtol=2e-4, atol=2e-4)
    assert (drawn.noise_BC == draws_for(plain, num=2).noise_BC).all()


def test_the_program_divides_by_1_1_and_both_end_when_the_noise_is_switched_off(color):
    program = Augmentation(crop="center", mirror=False, divide_noise=True)
    paper = replace(program, divide_noise=False)
    pixels, mean, drawn = images(100), torch.zeros(6, 6, 3), draws_for(program)
    divided = augment(pixels, drawn, program, SMALL, mean, color)
    torch.testing.assert_close(divided * 1.1, augment(pixels, drawn, paper, SMALL, mean, color))
    off = augment(pixels, drawn, program, SMALL, mean, color, noise_factor=0.0)
    torch.testing.assert_close(off[0], pixels[0, 1:5, 1:5].float().permute(2, 0, 1))


def test_resized_crops_keep_area_and_aspect_and_lie_inside():
    drawn = draws_for(Augmentation(crop="resized"), Preprocessing(), num=4000)
    area = drawn.height_B * drawn.width_B / 256**2
    aspect = drawn.width_B / drawn.height_B
    assert 0.075 < area.min() < 0.1
    assert area.max() <= 1
    assert aspect.min() > 0.7 and aspect.max() < 1.4  # noqa: PT018, one fact
    assert (drawn.top_B + drawn.height_B <= 256).all()
    assert (drawn.left_B >= 0).all()


def test_a_resized_crop_of_the_whole_image_is_a_bilinear_resize():
    pixels = images(1, 8)
    whole = Draws(np.zeros(1), np.zeros(1), np.full(1, 8.0), np.full(1, 8.0), np.array([True]), None)
    half = Preprocessing(resize=8, crop=8, mean="none")
    x = augment(pixels, whole, Augmentation(crop="resized", color_noise=0), half, None, None)
    torch.testing.assert_close(x[0], pixels[0].flip(1).float().permute(2, 0, 1), atol=1e-2, rtol=0)
    less = replace(half, mean="channel", channel_mean=(1.0, 2.0, 3.0), std=(1.0, 2.0, 4.0))
    y = augment(pixels, whole, Augmentation(crop="resized", color_noise=0), less, None, None)
    mean_C11, std_C11 = (torch.tensor(v)[:, None, None] for v in (less.channel_mean, less.std))
    torch.testing.assert_close(y[0], (x[0] - mean_C11) / std_C11)
    up = augment(
        pixels,
        whole,
        Augmentation(crop="resized", color_noise=0),
        Preprocessing(resize=8, crop=4, mean="none"),
        None,
        None,
    )
    mean_of_four = pixels[0].flip(1).float().reshape(4, 2, 4, 2, 3).mean((1, 3)).permute(2, 0, 1)
    torch.testing.assert_close(up[0], mean_of_four, atol=1e-2, rtol=0)


def test_images_of_another_stored_size_are_resized_as_pillow_does():
    digit = np.random.default_rng(1).integers(0, 256, (28, 28), dtype=np.uint8)
    ours = fit(torch.from_numpy(digit)[None, :, :, None], 224)[0, :, :, 0].numpy()
    pillow = np.asarray(Image.fromarray(digit).resize((224, 224), Image.Resampling.BILINEAR), dtype=float)
    assert np.abs(ours - pillow).max() <= 1  # Pillow rounds to whole grey levels twice, after rows and after columns


@pytest.mark.parametrize(
    "make",
    [
        lambda: Augmentation(color_noise=-1),
        lambda: Augmentation(resized_area=(0.5, 2.0)),
        lambda: Augmentation(crops=0),
        lambda: Augmentation(crops=4, crop_draws="chunk"),
    ],
)
def test_augmentations_that_make_no_sense_are_refused(make):
    with pytest.raises(ValueError, match="Augmentation"):
        make()


def test_mixup_is_the_weighted_mean_of_two_images():
    mixes = draw_mixes(Augmentation(mixup=1.0), 6, seed=0, epoch=0, image_B=np.arange(4))
    x, other = torch.rand(2, 4, 3, 6, 6, dtype=torch.float64).unbind()
    share = torch.from_numpy(mixes.share_B)[:, None, None, None]
    torch.testing.assert_close(mix(x.clone(), other, mixes), share * x + (1 - share) * other)
    assert len(set(mixes.share_B.tolist())) == 4


def test_cutmix_pastes_a_rectangle_whose_area_is_the_share_of_its_image():
    image = np.arange(2000)
    mixes = draw_mixes(Augmentation(cutmix=1.0), 8, seed=0, epoch=0, image_B=image)
    mixed = mix(torch.zeros(2000, 1, 8, 8), torch.ones(2000, 1, 8, 8), mixes)
    np.testing.assert_allclose(mixed.mean(dim=(1, 2, 3)), 1 - mixes.share_B, atol=1e-6)
    for i in range(50):
        rows, columns = (mixed[i, 0].amax(dim=dim).sum() for dim in (0, 1))
        assert mixed[i].sum() == rows * columns  # one rectangle
    touched = mixed[:, 0].mean(dim=0)
    assert touched.min() > 0.1  # every pixel is covered now and then, and no side more than the other
    torch.testing.assert_close(touched, touched.flip(0, 1), atol=0.05, rtol=0)
    # Area 1 - share is uniform before rectangles are cut off at the border, which leaves 0.2 to 0.3 of the image on average.
    assert 0.2 < touched.mean() < 0.35


def test_with_both_each_image_is_mixed_one_way_by_itself():
    both = Augmentation(mixup=0.4, cutmix=1.0)
    mixes = draw_mixes(both, 32, seed=3, epoch=2, image_B=np.arange(400))
    assert 160 < mixes.averaged_B.sum() < 240
    assert not mixes.box_B4[mixes.averaged_B].any()
    alone = draw_mixes(both, 32, seed=3, epoch=2, image_B=np.array([17, 5]))
    for name in ("share_B", "box_B4", "averaged_B"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(mixes, name)[[17, 5]])
