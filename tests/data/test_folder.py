from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from alexnet.core.errors import DataError
from alexnet.data.folder import image_folder, image_tar, tar_members, walk
from alexnet.data.sources import Source


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    return buffer.getvalue()


def build(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png())
    return root


def rows(source: Source) -> list[tuple[str, str, str]]:
    return [(r.split, source.classes[r.label], r.name) for r in source.records]


def test_splits_classes_and_nested_folders(tmp_path: Path):
    build(tmp_path, "train/dog/a.jpg", "train/cat/deep/er/b.jpg", "validation/dog/c.jpg", "test/cat/d.jpg")
    assert rows(image_folder(tmp_path)) == [
        ("train", "cat", "train/cat/deep/er/b.jpg"),
        ("train", "dog", "train/dog/a.jpg"),
        ("val", "dog", "validation/dog/c.jpg"),
        ("test", "cat", "test/cat/d.jpg"),
    ]


def test_class_folders_alone_are_split_by_class(tmp_path: Path):
    build(tmp_path, *(f"{name}/{i}.png" for name in ("cat", "dog") for i in range(10)))
    source = image_folder(tmp_path)
    assert [(split, name) for split, name, _ in rows(source)].count(("val", "cat")) == 2
    assert [(split, name) for split, name, _ in rows(source)].count(("val", "dog")) == 2
    assert rows(source) == rows(image_folder(tmp_path))
    assert any("held out" in note for note in source.notes)


def test_train_and_test_alone_are_left_as_they_are(tmp_path: Path):
    build(tmp_path, *(f"train/{name}/{i}.png" for name in ("cat", "dog") for i in range(10)), "test/cat/x.png")
    assert {split for split, _, _ in rows(image_folder(tmp_path))} == {"train", "test"}


def test_a_folder_that_only_wraps_the_set_is_left_away(tmp_path: Path):
    build(tmp_path, "imagenette2/train/cat/a.jpg", "imagenette2/train/dog/b.jpg", "imagenette2/val/cat/c.jpg")
    (tmp_path / "imagenette2" / "README.txt").write_text("about")
    source = image_folder(tmp_path)
    assert list(source.classes) == ["cat", "dog"]
    assert {split for split, _, _ in rows(source)} == {"train", "val"}


def test_files_are_known_as_images_by_name_or_else_by_content(tmp_path: Path):
    build(tmp_path, "cat/a.JPEG", "cat/no_suffix", "cat/odd.dat", "dog/b.webp")
    (tmp_path / "cat" / "notes.txt").write_text("BM is how these notes begin")
    (tmp_path / "cat" / "labels.csv").write_text("a,b")
    (tmp_path / "stray.jpg").write_bytes(png())
    source = image_folder(tmp_path)
    assert sorted(r.name for r in source.records) == ["cat/a.JPEG", "cat/no_suffix", "cat/odd.dat", "dog/b.webp"]
    assert source.not_images == 3  # two texts, and the image beside the class folders
    assert any("beside the class folders" in note for note in source.notes)


def test_hidden_files_are_skipped_and_counted(tmp_path: Path):
    build(tmp_path, "cat/a.jpg", "dog/b.jpg", "cat/.c.jpg", ".git/d.jpg", "__MACOSX/cat/a.jpg")
    source = image_folder(tmp_path)
    assert len(source.records) == 2
    assert "hidden file or folder: 3 skipped" in source.notes


def test_links_loops_and_pipes_end_and_each_file_counts_once(tmp_path: Path):
    root = build(tmp_path / "set", "cat/a.jpg", "dog/b.jpg")
    outside = build(tmp_path / "elsewhere", "c.jpg")
    (root / "cat" / "loop").symlink_to(root)
    (root / "cat" / "itself").symlink_to(root / "cat" / "itself")
    (root / "cat" / "again.jpg").symlink_to(root / "cat" / "a.jpg")
    os.link(root / "dog" / "b.jpg", root / "dog" / "hard.jpg")
    (root / "dog" / "outside.jpg").symlink_to(outside / "c.jpg")
    (root / "dog" / "nowhere.jpg").symlink_to(root / "missing.jpg")
    os.mkfifo(root / "dog" / "pipe.jpg")
    listing = walk(root)
    names = [found.name for found in listing.files]
    assert names == ["cat/a.jpg", "cat/itself", "dog/b.jpg", "dog/nowhere.jpg", "dog/outside.jpg"]
    assert listing.skipped == {"second name of a folder": 1, "second name of a file": 2, "pipe, socket or device": 1}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "no images among 0 files"),
        (("a.jpg",), "not in class folders"),
        (("notes/readme.txt",), "no images among 1"),
    ],
)
def test_what_is_no_set_is_refused(tmp_path: Path, names: tuple[str, ...], message: str):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png() if name.endswith("jpg") else b"text")
    with pytest.raises(DataError, match=message):
        image_folder(tmp_path)


def test_class_folders_without_images_are_all_named(tmp_path: Path):
    build(tmp_path, "train/cat/a.jpg", "train/dog/b.jpg", "val/cat/c.jpg")
    (tmp_path / "train" / "eel").mkdir()
    (tmp_path / "val" / "dog").mkdir()
    (tmp_path / "val" / "dog" / "note.txt").write_text("none yet")
    assert [fault.path for fault in image_folder(tmp_path).faults] == ["train/eel", "val/dog"]


def test_the_fingerprint_follows_names_sizes_and_times(tmp_path: Path):
    build(tmp_path, "cat/a.jpg", "dog/b.jpg")
    before = image_folder(tmp_path).fingerprint
    assert image_folder(tmp_path).fingerprint == before
    (tmp_path / "cat" / "a.jpg").write_bytes(png() + b"\0")
    assert image_folder(tmp_path).fingerprint != before


# --- tar ------------------------------------------------------------------------------------------------------------


def test_a_tar_is_read_in_place(tmp_path: Path):
    root = build(tmp_path / "set", "train/cat/a.png", "train/dog/b.png", "val/cat/c.png")
    (root / "train" / "cat" / "a.png").write_bytes(png() + b"first")
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        tar.add(root, arcname="./set")
    source = image_tar(tmp_path / "set.tar")
    assert rows(source) == rows(image_folder(root))
    assert [r.read() for r in source.records] == [r.read() for r in image_folder(root).records]


def test_a_tar_inside_a_tar_is_found_at_its_offset(tmp_path: Path):
    build(tmp_path, "a.png")
    with tarfile.open(tmp_path / "inner.tar", "w") as tar:
        tar.add(tmp_path / "a.png", arcname="a.png")
    with tarfile.open(tmp_path / "outer.tar", "w") as tar:
        tar.add(tmp_path / "a.png", arcname="before.png")
        tar.add(tmp_path / "inner.tar", arcname="inner.tar")
    outer = {member.name: member for member in tar_members(tmp_path / "outer.tar")}
    (inner,) = tar_members(tmp_path / "outer.tar", outer["inner.tar"].offset_data)
    data = (tmp_path / "outer.tar").read_bytes()
    assert data[inner.offset_data : inner.offset_data + inner.size] == png()


@pytest.mark.parametrize("damage", ["cut", "gzip", "text"])
def test_a_tar_that_cannot_be_read_says_so(tmp_path: Path, damage: str):
    root = build(tmp_path / "set", *(f"cat/{i}.png" for i in range(20)))
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w:gz" if damage == "gzip" else "w") as tar:
        tar.add(root, arcname=".")
    if damage != "gzip":
        path.write_bytes(path.read_bytes()[:7000] if damage == "cut" else b"no tar " * 1000)
    with pytest.raises(DataError, match=r"not a readable tar.*decompress"):
        image_tar(path)
