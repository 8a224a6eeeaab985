from __future__ import annotations

import io
import json
import os
import socket
import stat
import tarfile
import tempfile
import time
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alexnet.core.errors import DataError, ImageError, as_text
from alexnet.data.archives import image_archive, list_tar, tar_members
from alexnet.data.check import check
from alexnet.data.folder import image_folder, walk
from alexnet.data.named import find_pictures
from alexnet.data.pictures import image_files
from alexnet.data.prepare import prepare
from alexnet.data.sources import Source, class_notes


def png(color: tuple[int, int, int] = (0, 0, 0)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), color).save(buffer, "PNG")
    return buffer.getvalue()


def build(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png())
    return root


def distinct(root: Path) -> None:
    """Another picture in each file."""
    for i, path in enumerate(sorted(root.rglob("*.png"))):
        path.write_bytes(png((i % 256, i // 256, 0)))


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
    distinct(tmp_path)
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
    build(tmp_path, "lost+found/e.jpg", "cat/@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg")
    source = image_folder(tmp_path)
    assert len(source.records) == 2
    assert "hidden file or folder: 5 skipped" in source.notes


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
    assert [(found.name, found.twin_of) for found in listing.twins] == [
        ("dog/hard.jpg", "dog/b.jpg"),
        ("cat/again.jpg", "cat/a.jpg"),
    ]
    assert listing.linked_folders == {"cat/loop": ""}
    assert listing.skipped == {"second name of a folder": 1, "pipe, socket or device": 1}
    assert "second name of a file: 2 skipped" in image_folder(root).notes


def test_a_walk_through_loops_ends_and_counts_every_entry(tmp_path: Path):
    names = [f"class{i}/deep/{j}.png" for i in range(5) for j in range(3)]
    root = build(tmp_path / "set", *names)
    distinct(root)
    for i in range(5):  # every class holds all classes, and itself
        for j in range(5):
            (root / f"class{i}" / f"loop{j}").symlink_to(root / f"class{j}")
        (root / f"class{i}" / "deep" / "up").symlink_to("..")
    (root / "a").symlink_to(root / "b")
    (root / "b").symlink_to(root / "a")
    (root / "class0" / "c.jpg").symlink_to(root / "class0" / "d.jpg")
    (root / "class0" / "d.jpg").symlink_to(root / "class0" / "c.jpg")
    os.mkfifo(root / "class1" / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "class1" / "socket.jpg"))
    (root / "class1" / "zero.jpg").symlink_to("/dev/zero")
    if os.geteuid() == 0:
        os.mknod(root / "class1" / "device.jpg", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    special = 3 + (os.geteuid() == 0)
    start = time.perf_counter()
    listing = walk(root)
    assert time.perf_counter() - start < 10
    assert [found.name for found in listing.files if found.name.endswith(".png")] == names
    assert listing.skipped == {"second name of a folder": 30, "pipe, socket or device": special}
    entries = sum(len(names) for _, _, names in os.walk(root)) + 30  # a link to a folder is a folder there
    assert len(listing.files) + listing.skipped.total() == entries
    report = check(root, workers=1)
    assert {fault["path"] for fault in report["faults"]} == {"class0/c.jpg", "class0/d.jpg"}  # links to each other
    assert report["found"] == {"files": 19, "accepted": 15, "rejected": 2, "not_images": 2}


NAMES = [
    *(
        "two\nlines",
        "return\rtab\t",
        "\x1b[31mred\x1b[0m",
        "not-utf8-\udcff",
        "<img src=x onerror=alert(1)>",
        "&amp;\"'",
    ),
    *("=cmd|' calc'!A0", "-rf", "--help", "$(touch canary)", "%2e%2e%2f", "back\\slash", "..a", " ", "caf\u00e9"),
    *("cafe\u0301", "CAF\u00c9", "\u202egnp", "\u2028", "\U0001f600", "con", "a.jpg", "x" * 255),
]


def test_names_of_classes_and_files_may_hold_anything(tmp_path: Path):
    root = tmp_path / "set"
    visible = [name for name in NAMES if not name.startswith(".")]
    for i, name in enumerate(visible):
        for j in range(4):
            path = root / name / (visible[(i + j) % len(visible)][:200] + f"{j}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(4 * i + j).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    packed = prepare(root, tmp_path / "packed", size=8, workers=1)
    assert packed.classes == sorted(as_text(name) for name in visible)
    assert "not-utf8-\\xff" in packed.classes
    json.dumps(packed.meta, ensure_ascii=False).encode()  # no lone surrogates
    found = {path for split in packed.splits.values() for path in split.paths}
    files = {as_text(str(path.relative_to(root))): path for path in root.rglob("*.png")}
    assert found == files.keys()
    assert packed.meta["found"] == {
        "files": 4 * len(visible),
        "accepted": 4 * len(visible),
        "rejected": 0,
        "not_images": 0,
    }
    for split in packed.splits.values():
        for i, path in enumerate(split.paths):
            assert packed.classes[split.labels[i]] == path.split("/")[0]
            assert np.array_equal(split.read(np.array([i]))[0], np.asarray(Image.open(files[path])))
    twins = [note for note in check(root, workers=1)["notes"] if "differ by case or coding" in note]
    assert len(twins) == 2  # of three spellings of one word
    assert all(note.isprintable() for note in class_notes(image_folder(root)))


def test_classes_that_differ_by_case_or_coding_stay_apart_and_are_noted(tmp_path: Path):
    nfc, nfd = unicodedata.normalize("NFC", "\u00fc"), unicodedata.normalize("NFD", "\u00fc")
    build(tmp_path, "Cat/a.jpg", "cat/b.jpg", f"{nfc}/c.jpg", f"{nfd}/d.jpg", "dog/e.jpg")
    source = image_folder(tmp_path)
    assert list(source.classes) == sorted(["Cat", "cat", nfc, nfd, "dog"])
    twins = [note for note in class_notes(source) if "differ by case or coding" in note]
    assert len(twins) == 2


def test_hidden_empty_single_and_missing_classes_are_named(tmp_path: Path):
    build(tmp_path, *(f"train/{c}/{i}.png" for c in ("cat", "dog", ".hidden") for i in range(2)), "val/cat/x.png")
    build(tmp_path, "train/beside.png", "beside.png", "val/.hidden/y.png")
    (tmp_path / "train" / "empty").mkdir()
    report = check(tmp_path, workers=1)
    assert {fault["path"] for fault in report["faults"]} >= {"train/empty"}
    assert "class dog has no val images" in report["notes"]
    assert "hidden file or folder: 2 skipped" in report["notes"]
    assert "image beside the class folders: 2 skipped" in report["notes"]
    assert report["found"]["files"] == 7
    with pytest.raises(DataError, match="train/empty: class folder without images"):
        prepare(tmp_path, tmp_path / "packed", size=4, workers=1)
    one = build(tmp_path / "one", "cat/a.jpg", "cat/b.jpg")
    assert check(one, workers=1)["faults"][0]["path"] == "cat"
    with pytest.raises(DataError, match="cat: the only class"):
        prepare(one, tmp_path / "packed", size=4, workers=1)


# --- without permission ---------------------------------------------------------------------------------------------


def as_nobody(function: Callable[[], Any]) -> Any:
    """What ``function`` returns for a user who may not read everything: root becomes nobody, in a forked process."""
    if os.geteuid() != 0:
        return function()
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside torch's threads
        child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setegid(65534)
            os.seteuid(65534)
            answer: Any = function()
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        answer = json.loads(file.read())
    os.waitpid(child, 0)
    return answer


@pytest.fixture
def readable_by_all() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
        for path, folders, _ in os.walk(folder):
            for name in folders:
                (Path(path) / name).chmod(0o755)


def test_files_without_permission_are_refused_by_name(readable_by_all: Path):
    root = build(readable_by_all / "set", *(f"{c}/{i}.png" for c in ("cat", "dog") for i in range(3)), "dog/unknown")
    distinct(root)
    for name in ("cat/0.png", "dog/unknown"):  # the second may be an image: it cannot be known
        (root / name).chmod(0)
    report = as_nobody(lambda: check(root, workers=1))
    refused = {fault["path"]: fault["reason"] for fault in report["faults"]}
    assert {path: refused[path] for path in refused if "." in path or path == "dog/unknown"} == {
        "cat/0.png": "no permission",
        "dog/unknown": "no permission",
    }
    assert report["found"] == {"files": 7, "accepted": 5, "rejected": 2, "not_images": 0}


def test_a_folder_that_cannot_be_listed_or_entered_is_named(readable_by_all: Path):
    root = build(readable_by_all / "set", *(f"{c}/{i}.png" for c in ("cat", "dog", "eel") for i in range(2)))
    distinct(root)
    (root / "dog").chmod(0)
    message = as_nobody(lambda: check(root, workers=1))
    assert message == f"DataError: {root}/dog: cannot be listed (Permission denied)"
    (root / "dog").chmod(0o644)  # its names may be read, and nothing behind them
    report = as_nobody(lambda: check(root, workers=1))
    assert {fault["path"]: fault["reason"] for fault in report["faults"]} == {
        "dog/0.png": "no permission",
        "dog/1.png": "no permission",
        **{f"{split}/dog": "class with no readable image" for split in ("train", "val")},
    }


def test_a_pipe_with_the_name_of_a_tar_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "set.tar")
    with pytest.raises(DataError, match="not a regular file"):
        image_archive(tmp_path / "set.tar")


def test_a_set_whose_splits_are_links_is_found_to_leak(tmp_path: Path):
    # `cp -al train val`, or links to files: both names count, so that check finds the same bytes in two splits.
    root = build(tmp_path, *(f"train/{c}/{i}.png" for c in ("cat", "dog") for i in range(3)))
    distinct(root)
    for path in list(root.rglob("*.png")):
        linked = root / "val" / path.relative_to(root / "train")
        linked.parent.mkdir(parents=True, exist_ok=True)
        if "cat" in path.parts:
            os.link(path, linked)
        else:
            linked.symlink_to(path)
    source = image_folder(root)
    assert Counter(record.split for record in source.records) == {"train": 6, "val": 6}
    (note,) = (note for note in source.notes if "in two splits" in note)
    assert note.startswith("6 files are in two splits by links, as val/cat/0.png, which is train/cat/0.png")
    report = check(root, workers=1)
    assert sum("a leak between train and val" in fault["reason"] for fault in report["faults"]) == 6
    assert report["found"] == {"files": 12, "accepted": 12, "rejected": 0, "not_images": 0}


def test_a_split_or_class_folder_that_is_a_link_into_the_set_is_a_fault(tmp_path: Path):
    root = build(tmp_path, *(f"train/{c}/{i}.png" for c in ("cat", "dog") for i in range(3)), "val/dog/x.png")
    (root / "val" / "cat").symlink_to(root / "train" / "cat")
    (root / "test").symlink_to("train")
    assert [(f.path, f.reason.split(",")[0]) for f in image_folder(root).faults] == [
        ("test", "a link to train"),
        ("val/cat", "a link to train/cat"),
    ]


def test_files_that_are_not_images_are_counted_by_suffix(tmp_path: Path):
    root = build(tmp_path, *(f"{c}/{i}.png" for c in ("cat", "dog") for i in range(3)))
    for i in range(3):
        (root / "cat" / f"{i}.MOV").write_bytes(b"film")
    (root / "dog" / "notes").write_bytes(b"text")
    assert "files that are not images: 3 .mov, 1 without a suffix" in image_folder(root).notes
    for path in root.rglob("*.png"):
        path.unlink()
    with pytest.raises(DataError, match=r"no images among 4 files; .*; found 3 .mov, 1 without a suffix"):
        image_folder(root)


def test_images_beside_a_list_of_them_are_refused_with_its_name(tmp_path: Path):
    build(tmp_path, "0001.png", "0002.png")
    (tmp_path / "metadata.csv").write_text("file_name,label\n0001.png,cat\n")
    with pytest.raises(DataError, match=r"or name the list of them if it is one: .*/metadata\.csv"):
        image_folder(tmp_path)


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
    assert [fault.path for fault in image_folder(tmp_path).empty] == ["train/eel", "val/dog"]


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
    source = image_archive(tmp_path / "set.tar")
    assert rows(source) == rows(image_folder(root))
    assert [r.read() for r in source.records] == [r.read() for r in image_folder(root).records]


def test_hard_links_in_a_tar_are_the_files_that_they_name(tmp_path: Path):
    root = build(tmp_path / "set", "train/cat/a.png", "train/dog/b.png")
    distinct(root)
    (root / "val" / "dog").mkdir(parents=True)
    os.link(root / "train" / "dog" / "b.png", root / "val" / "dog" / "b.png")
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        tar.add(root / "train", arcname="train")
        tar.add(root / "val", arcname="val")
    source = image_archive(tmp_path / "set.tar")
    assert rows(source) == rows(image_folder(root))
    assert [r.read() for r in source.records] == [r.read() for r in image_folder(root).records]
    assert any(note.startswith("1 file is in two splits by links") for note in source.notes)


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


@pytest.mark.parametrize("damage", ["cut", "text"])
def test_a_tar_that_cannot_be_read_says_so(tmp_path: Path, damage: str):
    root = build(tmp_path / "set", *(f"cat/{i}.png" for i in range(20)))
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(root, arcname=".")
    path.write_bytes(path.read_bytes()[:7000] if damage == "cut" else b"no tar " * 1000)
    with pytest.raises(DataError, match=r"not a readable tar.*get it again"):
        image_archive(path)


def tar_of(*members: tuple[str | tarfile.TarInfo, bytes], end: int = 1024) -> bytes:
    """A tar by hand: headers, contents, and so many zeros at the end."""
    data = b""
    for name, content in members:
        header = name
        if isinstance(header, str):
            header = tarfile.TarInfo(header)
            header.size = len(content)
        data += header.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)
    return data + bytes(end)


SIX = [(f"{name}/{i}.png", png() + bytes([i])) for name in ("cat", "dog") for i in range(3)]


@pytest.mark.parametrize("end", [512, 1024, 10240])
def test_a_tar_may_end_with_one_block_of_zeros_or_with_many(tmp_path: Path, end: int):
    (tmp_path / "set.tar").write_bytes(tar_of(*SIX, end=end))
    assert [found.name for found in list_tar(tmp_path / "set.tar").files] == [name for name, _ in SIX]


@pytest.mark.parametrize(
    ("damage", "at"),
    [
        *((d, at) for d in ("bit", "cut before", "cut in header", "cut in content", "zeros") for at in range(1, 6)),
        *(("more zeros", at) for at in range(1, 5)),  # over the last picture they look like the end that follows
    ],
)
def test_a_tar_damaged_behind_its_first_file_is_refused_and_loses_nothing(tmp_path: Path, damage: str, at: int):
    data = bytearray(tar_of(*SIX))
    start = len(tar_of(*SIX[:at], end=0))
    if damage == "bit":
        data[start + 3] ^= 4
    elif damage.startswith("cut"):
        del data[start + {"cut before": 0, "cut in header": 100, "cut in content": 600}[damage] :]
    else:
        zeros = 512 if damage == "zeros" else 1024  # a header, or a header and its picture: the look of an end
        data[start : start + zeros] = bytes(zeros)
    (tmp_path / "set.tar").write_bytes(data)
    with pytest.raises(DataError, match=r"not a readable tar .*(cut|damaged).* at byte|is cut"):
        image_archive(tmp_path / "set.tar")


def test_two_tars_in_one_are_refused(tmp_path: Path):
    (tmp_path / "set.tar").write_bytes(tar_of(*SIX[:3]) + tar_of(*SIX[3:]))
    with pytest.raises(DataError, match="two tars joined without tar -A"):
        image_archive(tmp_path / "set.tar")


def header_with(size: int = 0, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo("dog/odd.png")
    info.size, info.type = size, kind
    return info


def pax(**fields: str) -> tuple[tarfile.TarInfo, bytes]:
    """An extended header for the next file."""
    text = b""
    for name, value in fields.items():
        record = f" {name.replace('_', '.')}={value}\n".encode()
        text += str(len(record) + 2).encode() + record  # lengths of two digits
    return header_with(len(text), tarfile.XHDTYPE), text


@pytest.mark.parametrize(
    "odd",
    [
        *([(header_with(size), b"")] for size in (-1, -512, -513, -(1 << 40), 1 << 40, 1 << 80)),
        *([pax(size=size), SIX[0]] for size in ("-1024", "-1", "x", "9" * 30)),
        [pax(GNU_sparse_map="a,b"), SIX[0]],
        [pax(GNU_sparse_size="zz"), SIX[0]],
        [pax(GNU_sparse_major="1", GNU_sparse_minor="0"), SIX[0]],
        [(header_with(1 << 60, tarfile.GNUTYPE_LONGNAME), b"")],
        [(header_with(0, tarfile.XHDTYPE), b"")] * 1200,
    ],
)
def test_a_header_with_odd_numbers_ends_the_tar_and_does_not_hang(tmp_path: Path, odd: list[Any]):
    (tmp_path / "set.tar").write_bytes(tar_of(SIX[0], *odd, *SIX[1:]))
    with pytest.raises(DataError, match="not a readable tar") as caught:
        list(islice(tar_members(tmp_path / "set.tar"), 20))
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_a_tar_inside_a_tar_ends_where_its_place_does(tmp_path: Path):
    whole, cut = tar_of(*SIX), tar_of(*SIX[:2], end=0)
    (tmp_path / "outer.tar").write_bytes(tar_of(("a.tar", whole), ("b.tar", cut), ("c.tar", whole)))
    inner = [(m.offset_data, m.size) for m in tar_members(tmp_path / "outer.tar")]
    assert len(list_tar(tmp_path / "outer.tar", *inner[0]).files) == len(
        list_tar(tmp_path / "outer.tar", *inner[2]).files
    )
    with pytest.raises(DataError, match="is cut, or has a wrong size"):  # and goes not on to c.tar
        list_tar(tmp_path / "outer.tar", *inner[1])


def test_of_two_files_of_one_name_in_a_tar_the_last_counts(tmp_path: Path):
    root = build(tmp_path / "set", "cat/a.png", "dog/b.png")
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        tar.add(root, arcname=".")
    (root / "cat" / "a.png").write_bytes(png() + b"newer")
    with tarfile.open(tmp_path / "set.tar", "a") as tar:
        tar.add(root / "cat" / "a.png", arcname="cat/a.png")
    source = image_archive(tmp_path / "set.tar")
    assert [r.name for r in source.records] == ["cat/a.png", "dog/b.png"]
    assert source.records[0].read() == png() + b"newer"
    assert "earlier file of the same name in the archive: 1 skipped" in source.notes


def test_a_tar_replaced_since_it_was_listed_is_refused(tmp_path: Path):
    # Pictures of one length: the places of the new ones are those of the old.
    path = tmp_path / "set.tar"
    path.write_bytes(tar_of(*SIX))
    before = image_archive(path)
    os.utime(path, (1, 1))
    record = image_archive(path).records[0]
    path.write_bytes(tar_of(*((name, content) for (name, _), (_, content) in zip(SIX, SIX[::-1], strict=True))))
    with pytest.raises(
        ImageError, match=r"cat/0.png: damaged \(.*set.tar changed since it was listed; run the command"
    ):
        record.read()
    assert image_archive(path).fingerprint != before.fingerprint


def test_camera_raw_and_heic_beside_an_image_of_the_same_name_are_skipped_and_counted(tmp_path: Path):
    root = build(tmp_path, *(f"{name}/{i}.PNG" for name in "ab" for i in range(6)))
    build(root, "a/0.NEF", "a/1.dng", "b/0.cr2", "b/1.CR3", "b/2.heic")
    found = image_folder(root)
    assert len(found.records) == 12
    assert found.not_images == 5
    assert found.notes[:2] == [
        "1 .heic file beside an image of the same name: skipped",
        "4 camera raw files beside an image of the same name: skipped",
    ]
    assert [Path(file).name for file in image_files([root / "a"])] == [f"{i}.PNG" for i in range(6)]


def test_camera_raw_alone_is_a_fault_with_the_way_out(tmp_path: Path):
    root = build(tmp_path, "a/0.png", "a/1.png", "b/0.png")
    Image.new("RGB", (4, 4)).save(root / "b" / "1.NEF", "TIFF")
    assert sorted(record.name for record in image_folder(root).records) == ["a/0.png", "a/1.png", "b/0.png", "b/1.NEF"]
    reason = "unsupported format (camera raw; export it from its program as JPEG or TIFF)"
    assert {"path": "b/1.NEF", "reason": reason} in check(root, workers=1)["faults"]


@pytest.mark.parametrize(
    ("names", "train"),
    [
        ("a.jpg b.jpg 2024/c.jpg 2024/deep/d.jpg", 4),  # no class folders: all
        ("2024/a.jpg 2024/b.jpg 2024/c.jpg 2024/d.jpg 2024/e.jpg stray.jpg", 6),  # some beside them: all
        ("train/x/a.jpg train/y/b.jpg test/x/c.jpg stray.jpg", 2),  # splits that are named stay what they are
    ],
)
def test_pictures_that_need_no_label_need_no_class_folder(tmp_path: Path, names: str, train: int) -> None:
    build(tmp_path, *names.split())
    source = find_pictures(tmp_path)
    (tmp_path / "empty").mkdir()
    assert sum(record.split == "train" for record in source.records) == train
    assert source.name == str(tmp_path)
    with pytest.raises(DataError, match="no images among 0 files"):
        find_pictures(tmp_path / "empty")
