"""The Dataset of a packed set gives what our own training sees, whoever asks and in whatever order."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import alexnet
from alexnet.core.device import Machine
from alexnet.core.errors import DataError, UsageError
from alexnet.data.dataset import ImageDataset
from alexnet.data.packed import ALL, Subset, open_packed
from alexnet.data.prepare import prepare
from alexnet.data.transforms import Augmentation, apply_crops
from alexnet.training.trainer import _Trainer, fit

QUIET = Machine(device=torch.device("cpu"), quiet=True)


def dataset_of(config, packed, **more) -> ImageDataset:
    settings = {"preprocessing": config.preprocessing, "augmentation": config.augmentation, "seed": config.seed}
    return ImageDataset(packed, "train", **(settings | more))


@pytest.mark.parametrize("crop", ["random", "resized"])
def test_each_image_is_that_of_our_own_training_bit_for_bit(crop, tiny_config, tiny_set, tmp_path, monkeypatch):
    config = replace(tiny_config, epochs=2, augmentation=replace(tiny_config.augmentation, crop=crop))
    assert config.augmentation.color_noise
    assert config.augmentation.mirror
    seen = []

    def augmented(trainer, batch, rows, noise_factor, original=_Trainer._augmented):
        x_BCHW = original(trainer, batch, rows, noise_factor)
        seen.extend(zip([trainer.progress.epoch] * len(x_BCHW), batch.image_B[rows], x_BCHW, strict=True))
        return x_BCHW

    monkeypatch.setattr(_Trainer, "_augmented", augmented)
    fit(config, tiny_set, tmp_path / "run", QUIET)
    dataset = dataset_of(config, tiny_set)
    assert len({(epoch, int(i)) for epoch, i, _ in seen}) == 2 * len(dataset)
    for epoch, i, x_CHW in seen:
        dataset.set_epoch(epoch)
        assert torch.equal(dataset[i][0], x_CHW)
        assert dataset[i][1] == tiny_set.split("train").labels[i]


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.long)])
def test_workers_that_are_kept_draw_for_the_epoch_that_is_set(method, tiny_config, tiny_set):
    dataset = dataset_of(tiny_config, tiny_set)
    loader = DataLoader(
        dataset, batch_size=8, num_workers=1, persistent_workers=True, multiprocessing_context=method, shuffle=False
    )
    for epoch in (0, 3):
        dataset.set_epoch(epoch)
        x_NCHW = torch.cat([x_BCHW for x_BCHW, _ in loader])
        assert torch.equal(x_NCHW, dataset.inputs(np.arange(len(dataset)), epoch))
    assert torch.equal(torch.cat([label_B for _, label_B in loader]), torch.from_numpy(dataset.labels))


def test_without_augmentation_it_is_the_center(tiny_config, tiny_set):
    dataset = ImageDataset(tiny_set.path, "val", preprocessing=tiny_config.preprocessing)
    split, pre = tiny_set.split("val"), tiny_config.preprocessing
    at = torch.full((1,), (pre.resize - pre.crop) // 2)
    x_CHW, label = dataset[-1]
    pixels_BSSC = torch.from_numpy(split.read(np.array([len(split) - 1])))
    mean_SSC = torch.from_numpy(tiny_set.mean) if pre.mean == "image" else None
    assert torch.equal(x_CHW, apply_crops(pixels_BSSC, at, at, torch.tensor([False]), pre, mean_SSC)[0])
    assert (x_CHW.dtype, type(label), label) == (torch.float32, int, split.labels[-1])
    assert dataset.classes == tiny_set.classes
    assert alexnet.ImageDataset is ImageDataset


@pytest.mark.parametrize("store", ["pixels", "jpeg"])
def test_an_image_of_a_split_by_its_number(store, image_folder_of, tmp_path):
    source = image_folder_of({"train/cat": 3, "train/dog": 2, "val/cat": 1, "val/dog": 1})
    packed = prepare(source, tmp_path / "packed", size=16, store=store, workers=1)
    split = packed.split("train")
    every = split.read(np.arange(5))
    some = Subset(split, np.array([4, 0]), np.array([0, 1]))
    for images, i, pixels_SSC, label in [
        (split, 3, every[3], 1),
        (split, np.int64(-5), every[0], 0),
        (some, 0, every[4], 0),
        (packed.images(ALL), 6, packed.split("val").read(np.array([1]))[0], 1),
    ]:
        assert np.array_equal(images[i][0], pixels_SSC)
        assert images[i][1:] == (label,)
        assert type(images[i][1]) is int
    assert [label for _, label in split] == [0, 0, 0, 1, 1]  # so that a loop over it ends
    with pytest.raises(IndexError, match=r"^image 5 of 5: the numbers are 0 to 4, or -1 to -5 from the end$"):
        split[5]
    with pytest.raises(TypeError):
        split[0.5]


@pytest.mark.parametrize("store", ["pixels", "jpeg"])
def test_a_set_and_its_dataset_can_be_pickled_and_are_checked_again(store, image_folder_of, tmp_path, monkeypatch):
    source = image_folder_of({"train/cat": 3, "train/dog": 2})
    prepare(source, tmp_path / "packed", size=16, store=store, workers=1, seed=1)
    monkeypatch.chdir(tmp_path)
    dataset = ImageDataset("packed", preprocessing=alexnet.Preprocessing(resize=16, crop=12), seed=3)
    content = pickle.dumps(dataset)
    monkeypatch.chdir("/")
    again = pickle.loads(content)  # noqa: S301  # ours
    assert all(torch.equal(x, y) and a == b for (x, a), (y, b) in zip(dataset, again, strict=True))
    images = next((tmp_path / "packed").glob("train.images.*"))
    images.write_bytes(images.read_bytes()[:-9] + bytes(9))
    with pytest.raises(DataError, match="is damaged"):
        pickle.loads(content)[-1]  # noqa: S301


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"augmentation": Augmentation(mixup=0.2)}, ValueError, "mixup and cutmix mix two images"),
        ({"augmentation": Augmentation(crop_draws="chunk")}, ValueError, "take 'image'"),
        ({"preprocessing": alexnet.Preprocessing(channels=1, mean="none")}, UsageError, "3 channels"),
        ({"split": "test"}, DataError, "no split 'test'; there is train, val"),
    ],
)
def test_what_cannot_be_is_refused(settings, error, said, tiny_set):
    with pytest.raises(error, match=said):
        ImageDataset(open_packed(tiny_set.path), **settings)
