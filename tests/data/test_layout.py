from __future__ import annotations

from collections import Counter

import pytest

from alexnet.core.errors import DataError
from alexnet.data.layout import Layout, splits_of, understand


def read(*folders: str) -> Layout:
    """The layout of a set given by its folders of images, ``NAME/NAME=COUNT`` (12 where no count is said)."""
    counts: dict[tuple[str, ...], int] = {}
    for folder in folders:
        path, _, count = folder.partition("=")
        counts[tuple(path.split("/")) if path else ()] = int(count or 12)
    return understand(counts, [], "set")


def placed(*folders: str) -> dict[str, Counter[str]]:
    """Classes of each split, with the numbers of their images."""
    layout = read(*folders)
    found: dict[str, Counter[str]] = {}
    for folder in folders:
        path, _, count = folder.partition("=")
        if at := layout.place(tuple(path.split("/"))[layout.wrapping :]):
            found.setdefault(at[0], Counter())[at[1]] += int(count or 12)
    return found


CAT_AND_DOG = {"cat": 12, "dog": 12}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"),
        ("train_set", "test_set"),
        ("training_set", "testing_set"),
        ("Training-Images", "Test Images"),
        ("TRAIN", "TEST"),
        ("TrainData", "testData"),
        ("trainset", "testset"),
        ("train2017", "test2017"),
        ("training_data", "test.data"),
        ("dataset_train", "dataset_test"),
        ("训练集", "测试集"),
        ("seg_train", "seg_test"),
        ("train_v2", "final_test"),
    ],
)
def test_splits_are_known_by_many_names(train: str, test: str):
    assert placed(f"{train}/cat", f"{train}/dog", f"{test}/cat", f"{test}/dog") == {
        "train": CAT_AND_DOG,
        "test": CAT_AND_DOG,
    }


@pytest.mark.parametrize(
    "val", ["val", "valid", "VALIDATION", "val_set", "dev", "dev-set", "eval", "held_out", "验证集"]
)
def test_validation_images_are_known_by_many_names(val: str):
    assert placed("train/cat", "train/dog", f"{val}/cat", f"{val}/dog") == {"train": CAT_AND_DOG, "val": CAT_AND_DOG}


def test_eval_is_the_test_where_something_else_is_for_validation():
    assert splits_of(["train", "dev", "eval"]) == {"train": "train", "dev": "val", "eval": "test"}
    assert splits_of(["train", "eval", "test"]) == {"train": "train", "eval": "val", "test": "test"}
    assert splits_of(["cat", "latest", "contest", "train station", "test_val"]) == {}


def test_other_names_of_splits_are_said():
    layout = read("train_set/cat", "train_set/dog", "dev/cat", "dev/dog")
    assert "train_set is read as train, dev is read as val" in layout.notes
    assert read("train/cat", "train/dog", "val/cat", "val/dog").notes == []


@pytest.mark.parametrize(
    "folders",
    [
        ("archive/data/train/cat", "archive/data/train/dog", "archive/data/test/cat"),  # wrapped twice
        ("training_set/training_set/cat", "training_set/training_set/dog", "test_set/test_set/cat"),
        ("seg_train/seg_train/cat", "seg_train/seg_train/dog", "seg_test/seg_test/cat"),
        ("train/images/cat", "train/images/dog", "test/images/cat"),
        ("test/train/cat", "test/train/dog", "test/test/cat"),  # a project of the name test
        ("train/A/Ape", "train/B/bee", "test/A/Ape"),
    ],
)
def test_folders_around_the_classes_are_passed_through(folders: tuple[str, ...]):
    found = placed(*folders)
    assert found.keys() == {"train", "test"}
    assert set(found["train"]) == ({"Ape", "bee"} if "train/B/bee" in folders else {"cat", "dog"})
    assert len(found["test"]) == 1


def test_letters_above_the_classes_are_none():
    assert placed("a/abbey", "a/alley", "b/bar", "b/bazaar/indoor", "b/bazaar/outdoor") == {
        "train": {"abbey": 12, "alley": 12, "bar": 12, "bazaar": 24}
    }
    assert set(placed("s/shirt", "s/shoes", "t/t-shirt")["train"]) == {"shirt", "shoes", "t-shirt"}
    assert placed("A/A_1", "B/B_1") == {"train": {"A": 12, "B": 12}}
    assert placed("A/user", "B/user") == {"train": {"A": 12, "B": 12}}  # letters of a sign language


def test_splits_may_lie_inside_the_classes():
    assert placed("cat/train", "cat/val=3", "dog/training", "dog/valid=4", "dog/test=5") == {
        "train": CAT_AND_DOG,
        "val": {"cat": 3, "dog": 4},
        "test": {"dog": 5},
    }
    with pytest.raises(DataError, match="cat holds the splits train and val, but dog beside it does not"):
        read("cat/train", "cat/val", "dog")


@pytest.mark.parametrize(
    ("folders", "classes"),
    [
        (("bus", "car", "train"), ["bus", "car", "train"]),
        (("control", "test"), ["control", "test"]),
        (("set/control", "set/test", "set/val"), ["control", "test", "val"]),
        (("train/test", "train/train"), ["test", "train"]),
        (("train/test/a", "train/train/a", "train/bus"), ["bus", "test", "train"]),
        (("cat", "dog", "validation=1"), ["cat", "dog", "validation"]),
        (("bus", "train=5", "train/old=2"), ["bus", "train"]),
    ],
)
def test_what_a_folder_holds_decides_and_not_its_name(folders: tuple[str, ...], classes: list[str]):
    assert sorted(placed(*folders)["train"]) == classes


def test_classes_called_like_splits_may_lie_in_splits():
    folders = [f"{split}/{name}" for split in ("train", "val") for name in ("bus", "test", "train")]
    assert placed(*folders) == {split: {"bus": 12, "test": 12, "train": 12} for split in ("train", "val")}


def test_a_class_called_like_a_split_is_said():
    assert read("bus", "car", "train").notes == [
        "train is a class, not a split: it holds images itself, as the folders beside it do"
    ]


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (
            ("old/cat", "old/dog", "new/cat", "new/dog"),
            r"old and new hold the same folders \(cat and dog\); if .* rename",
        ),
        (("train/cat", "train/dog", "unseen/cat", "unseen/dog"), "unseen holds the same folders as train"),
        (("all/cat", "all/dog", "train/cat", "train/dog", "val/cat"), "all holds the same folders as train and val"),
        (
            ("bus", "car", "train/old", "train/new"),
            r"train holds folders \(old and new\), while bus and car beside it hold",
        ),
        (("cat", "dog", "test/cat", "test/dog"), "test holds folders .* move cat and dog into train/ or elsewhere"),
        (("train", "test"), r"not in class folders: train and test hold them directly; .*train/CLASS/.*train/train/"),
        (("train",), "not in class folders: train holds them directly"),
        (("train", "val/cat", "val/dog"), "train holds 12 images but no class folders, as val does"),
        (("train/cat", "train/dog", "val=30"), "val holds 30 images but no class folders, as train does"),
    ],
)
def test_a_layout_that_may_be_two_is_refused_with_what_to_do(folders: tuple[str, ...], message: str):
    with pytest.raises(DataError, match=message) as caught:
        read(*folders)
    assert str(caught.value).startswith("set: ")
    assert "\n" not in str(caught.value)


def test_what_the_refusals_advise_is_accepted():
    assert sorted(placed("train/old/cat", "train/old/dog", "train/new/cat", "train/new/dog")["train"]) == ["new", "old"]
    assert sorted(placed("train/train", "train/test")["train"]) == ["test", "train"]
    assert sorted(placed("bus", "car", "train")["train"]) == ["bus", "car", "train"]


def test_images_that_are_not_used_are_said():
    layout = read("train/cat", "train/dog", "val/cat", "val/dog", "test=40", "extra=1", "masks/deep=2")
    assert "test has no class folders, so its 40 images are not used" in layout.notes
    assert "extra is not named like a split, so its 1 images are not used" in layout.notes
    assert "masks is not named like a split, so its 2 images are not used" in layout.notes


def test_classes_that_hold_only_folders_are_said():
    notes = read("animal/cat", "animal/dog", "vehicle/car", "vehicle/bus").notes
    assert notes == [
        "class animal holds folders (cat and dog) and no images itself; all that lies in them is animal "
        "(and so with 1 more classes)"
    ]
    assert read("cat", "cat/deep", "dog/images").notes == []


def test_folders_without_images_are_classes_where_classes_lie():
    layout = understand({("train", "cat"): 3, ("train", "dog"): 3}, [("val", "cat"), ("train", "eel")], "set")
    assert layout.is_class_folder(("val", "cat"))
    assert layout.is_class_folder(("train", "eel"))
    assert not layout.is_class_folder(("val",))
    assert not layout.is_class_folder(("train", "cat", "deep"))
