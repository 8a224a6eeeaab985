from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alexnet.cli import main
from alexnet.core.errors import DataError
from alexnet.data.check import check
from alexnet.data.folder import image_folder
from alexnet.data.prepare import prepare
from alexnet.data.shards import Store
from alexnet.data.twins import packed_twins, warning_of

MakeFolder = Callable[..., Path]


def paths(report: dict[str, list[dict[str, str]]]) -> dict[str, str]:
    return {fault["path"]: fault["reason"] for fault in report["faults"]}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_sound_set_has_no_faults_and_no_notes(image_folder_of: MakeFolder, tmp_path: Path, workers: int):
    source = image_folder_of({"train/cat": 70, "train/dog": 12, "val/cat": 3, "val/dog": 3})
    found = {"files": 88, "accepted": 88, "rejected": 0, "not_images": 0}
    classes = [{"name": "cat", "train": 70, "val": 3}, {"name": "dog", "train": 12, "val": 3}]
    assert check(source, workers=workers) == {"faults": [], "notes": [], "found": found, "classes": classes}
    packed = prepare(source, tmp_path / "packed", size=8, workers=1)
    assert check(packed.path) == {"faults": [], "notes": [], "classes": classes}


def test_unreadable_files_are_named_with_their_reason(image_folder_of: MakeFolder):
    source = image_folder_of({"train/cat": 12, "train/dog": 12, "val/cat": 2, "val/dog": 2})
    whole = (source / "train/cat/001.png").read_bytes()
    (source / "train/cat/000.png").write_bytes(b"")
    (source / "train/cat/001.png").write_bytes(whole[: len(whole) // 2])
    (source / "train/dog/odd\nname.jpg").write_bytes(b"text")
    reasons = paths(check(source, workers=1))
    assert reasons.keys() == {"train/cat/000.png", "train/cat/001.png", "train/dog/odd\nname.jpg"}
    assert reasons["train/cat/000.png"].startswith("empty")
    assert reasons["train/cat/001.png"].startswith("truncated")
    assert reasons["train/dog/odd\nname.jpg"].startswith("not an image")


def test_the_same_image_in_two_splits_is_a_leak_in_two_classes_a_conflict_and_in_one_a_note(
    image_folder_of: MakeFolder,
):
    source = image_folder_of({"train/cat": 12, "train/dog": 12, "val/cat": 2, "val/dog": 2, "test/cat": 1})
    for original, copy in (
        ("train/cat/003.png", "val/cat/leak.png"),
        ("train/cat/004.png", "train/cat/twice.png"),
        ("train/cat/005.png", "train/dog/other.png"),
        ("train/cat/006.png", "val/dog/other.png"),
        ("val/dog/000.png", "test/dog/late.png"),
    ):
        (source / copy).parent.mkdir(exist_ok=True)
        shutil.copyfile(source / original, source / copy)
    with Image.open(source / "train/dog/007.png") as image:  # other bytes, the same pixels
        image.save(source / "val/dog/saved-again.png", compress_level=0)
    report = check(source, workers=1)
    assert paths(report) == {
        "val/cat/leak.png": "same bytes as train/cat/003.png: a leak between train and val",
        "val/dog/saved-again.png": "same pixels as train/dog/007.png: a leak between train and val",
        "test/dog/late.png": "same bytes as val/dog/000.png: a leak between val and test",
        "train/dog/other.png": "same bytes as train/cat/005.png: a label conflict, here dog and there cat",
        "val/dog/other.png": "same bytes as train/cat/006.png: a label conflict, here dog and there cat",
    }
    assert "same bytes: train/cat/004.png, train/cat/twice.png" in report["notes"]


@pytest.mark.parametrize("store", ["pixels", "jpeg"])
def test_a_packed_set_has_the_leaks_and_conflicts_of_its_source(
    image_folder_of: MakeFolder, tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str]
):
    source = image_folder_of({"train/cat": 12, "train/dog": 12, "val/cat": 2, "val/dog": 2})
    shutil.copyfile(source / "train/cat/003.png", source / "val/cat/leak.png")
    shutil.copyfile(source / "train/cat/005.png", source / "train/dog/other.png")
    packed = prepare(source, tmp_path / "packed", size=16, store=store, workers=1)
    assert paths(check(packed.path)) == {
        name: reason.replace("same bytes", "same pixels") for name, reason in paths(check(source, workers=1)).items()
    }
    said = (
        "1 of the 5 val images is also in train, and 1 image is in two classes; `alexnet check 'my photos'` names them"
    )
    assert warning_of(packed, "my photos") == said


def test_images_with_the_same_checksum_are_compared(image_folder_of: MakeFolder, tmp_path: Path):
    source = image_folder_of({"train/cat": 3, "train/dog": 3, "val/cat": 1, "val/dog": 1})
    packed = prepare(source, tmp_path / "packed", size=16, workers=1)
    for split in packed.splits.values():
        split.read(np.arange(len(split)))  # checked, so that the checksums are not looked at again
        split.crc32_N[:] = 7
    assert packed_twins(packed) == []
    assert warning_of(packed, "photos") == ""


def test_our_own_split_makes_no_leaks(image_folder_of: MakeFolder):
    source = image_folder_of({"cat": 20, "dog": 20})
    for i in range(8):  # of each of eight pictures three copies, and one of another class
        for copy in range(3):
            shutil.copyfile(source / f"cat/{i:03d}.png", source / f"cat/copy-{i}-{copy}.png")
    shutil.copyfile(source / "cat/009.png", source / "dog/other.png")
    for seed in range(10):
        report = check(source, workers=1, seed=seed)
        ((name, reason),) = paths(report).items()
        assert {name, reason.split()[3].rstrip(":")} == {"cat/009.png", "dog/other.png"}
        assert "a label conflict" in reason


def test_all_faults_of_classes_are_listed_together(image_folder_of: MakeFolder):
    source = image_folder_of(
        {"train/cat": 12, "train/dog": 12, "train/eel": 0, "train/fox": 2, "val/cat": 1, "val/gnu": 2, "val/dog": 1}
    )
    for file in (source / "train/fox").iterdir():
        file.write_bytes(b"broken")
    report = check(source, workers=1)
    reasons = paths(report)
    assert reasons["train/eel"].startswith("class folder without images")
    assert reasons["gnu"].startswith("a class without training images")
    assert reasons["train/fox"] == "class with no readable image"
    assert {"train/fox/000.png", "train/fox/001.png"} < reasons.keys()
    assert "class fox has only 2 training images" in report["notes"]
    assert "class fox has no val images" in report["notes"]


def test_classes_are_shown_with_their_counts_before_anything_is_learned(
    image_folder_of: MakeFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source = image_folder_of({"train_set/crack": 12, "train_set/whole": 12, "test_set/crack": 5, "test_set/whole": 4})
    table = [
        "2 classes      train      test",
        "  crack           12         5",
        "  whole           12         4",
        "all images        24         9",
        "note: train_set is read as train, test_set is read as test",
    ]

    def run(*arguments: str) -> None:
        with pytest.raises(SystemExit, match="0"):
            main([*arguments, "--workers", "1"])

    run("check", str(source))
    assert capsys.readouterr().out.splitlines() == [
        *table,
        "33 files: 33 images, 0 rejected, 0 not images",
        "0 faults, 1 note",
    ]
    run("prepare", str(source), str(tmp_path / "packed"), "--size", "8")
    assert capsys.readouterr().out.splitlines()[:5] == table


def test_odd_files_are_notes(image_folder_of: MakeFolder):
    source = image_folder_of({"train/cat": 12, "train/dog": 12, "val/cat": 2, "val/dog": 2})
    (source / "train/cat/000.png").rename(source / "train/cat/000.jpg")
    (source / "train/cat/.hidden.png").write_bytes(b"x")
    report = check(source, workers=1)
    assert report["faults"] == []
    assert report["notes"] == ["hidden file or folder: 1 skipped", "train/cat/000.jpg: a PNG file"]


def test_where_there_is_nothing_to_read_it_says_so(tmp_path: Path):
    with pytest.raises(DataError, match="no such file, folder or named set"):
        check(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no images"):
        check(tmp_path)


def test_an_unfinished_packed_set_is_a_fault(tmp_path: Path):
    (tmp_path / "packed" / ".unfinished").mkdir(parents=True)
    assert "unfinished: run prepare again" in check(tmp_path / "packed")["faults"][0]["reason"]


@pytest.mark.parametrize("name", ["train.labels.npy", "mean.npy", "train.paths.jsonl", "train.images.npy"])
def test_a_packed_set_of_which_a_file_cannot_be_read_has_a_fault(
    image_folder_of: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    packed = prepare(image_folder_of({"train/cat": 2, "train/dog": 2}), tmp_path / "packed", size=16)
    original = open

    def refuse(file: object, *arguments: Any, **options: Any) -> Any:
        if Path(str(file)).name == name:
            raise PermissionError(errno.EACCES, "Permission denied", str(file))
        return original(file, *arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr("builtins.open", refuse)
    (fault,) = check(packed.path)["faults"]
    assert name in fault["path"] + fault["reason"]
    assert "Permission denied" in fault["reason"]


def change(path: Path, how: str) -> None:
    """What may happen to a file after it was listed."""
    whole = path.read_bytes()
    if how != "touched":
        path.unlink()
    if how == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "emptied":
        path.write_bytes(b"")
    elif how == "replaced":
        path.write_bytes((path.parent / "003.png").read_bytes())
    elif how == "a pipe":
        os.mkfifo(path)
    elif how == "a folder":
        path.mkdir()
    elif how == "a link to nowhere":
        path.symlink_to("nowhere")
    elif how == "a link to a device":
        path.symlink_to("/dev/zero")
    elif how == "touched":
        os.utime(path, ns=(1, 1))


CHANGES = {
    "removed": "missing",
    "cut": "truncated",
    "emptied": "truncated",
    "replaced": "damaged",
    "a pipe": "not an image",
    "a folder": "not an image",
    "a link to nowhere": "missing",
    "a link to a device": "not an image",
    "touched": "damaged",
}


def test_a_source_that_changes_while_it_is_read_is_reported(image_folder_of: MakeFolder, tmp_path: Path):
    source = image_folder_of({"train/cat": 30, "train/dog": 30, "val/cat": 2, "val/dog": 2})
    listed = image_folder(source)
    for i, how in enumerate(CHANGES):
        change(source / f"train/cat/{i + 10:03d}.png", how)
    expected = {f"train/cat/{i + 10:03d}.png": reason for i, reason in enumerate(CHANGES.values())}
    report = check(listed, workers=1)
    assert {path: reason.split(" (")[0] for path, reason in paths(report).items()} == expected
    assert report["found"] == {"files": 64, "accepted": 55, "rejected": 9, "not_images": 0}
    packed = prepare(listed, tmp_path / "packed", size=8, workers=1, max_bad=9)
    assert {item["path"]: item["reason"] for item in packed.meta["rejected"]} == expected
    assert packed.meta["found"] == report["found"]
