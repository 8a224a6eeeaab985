from __future__ import annotations

import csv
import io
import os
import shutil
import struct
import tarfile
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet.core.errors import DataError, ImageError
from alexnet.data import imagenet as imagenet_module
from alexnet.data.check import check
from alexnet.data.imagenet import is_imagenet, read_meta_mat
from alexnet.data.named import read_source
from alexnet.data.sources import Source, class_faults

WNIDS = ["n01440764", "n01443537", "n02119789"]
IDS = {"n01440764": 2, "n01443537": 3, "n02119789": 1}  # ILSVRC ids are in another order than wnids
VAL = [2, 2, 3, 1]  # ILSVRC ids of validation images 1..4


def jpeg(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def class_tar(wnid: str, count: int = 4) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for i in range(count):
            add(tar, f"{wnid}_{i}.JPEG", jpeg(IDS[wnid] * 10 + i))
    return buffer.getvalue()


def write_train_tar(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        for wnid in reversed(WNIDS):
            add(tar, f"{wnid}.tar", class_tar(wnid))


def write_numbered_tar(path: Path, stem: str, count: int = 4) -> None:
    with tarfile.open(path, "w") as tar:
        for i in range(1, count + 1):
            add(tar, f"{stem}_{i:08d}.JPEG", jpeg(100 + i))


def write_devkit(folder: Path, year: str = "2012") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"ILSVRC{year}_validation_ground_truth.txt").write_text("".join(f"{i}\n" for i in VAL))
    lines = sorted((i, wnid) for wnid, i in IDS.items())
    (folder / "map_clsloc.txt").write_text("".join(f"{wnid} {i} word_{i}\n" for i, wnid in lines))


def images(source: Source, split: str) -> list[tuple[str, str]]:
    return [(r.name.rpartition("/")[2], source.classes[r.label]) for r in source.records if r.split == split]


CLASSES = ["n01440764 word 2", "n01443537 word 3", "n02119789 word 1"]
TRAIN = [(f"{wnid}_{i}.JPEG", name) for wnid, name in zip(WNIDS, CLASSES, strict=True) for i in range(4)]
VALIDATION = [
    ("ILSVRC2012_val_00000001.JPEG", "n01440764 word 2"),
    ("ILSVRC2012_val_00000002.JPEG", "n01440764 word 2"),
    ("ILSVRC2012_val_00000003.JPEG", "n01443537 word 3"),
    ("ILSVRC2012_val_00000004.JPEG", "n02119789 word 1"),
]


def test_the_2012_tars_are_read_in_place(tmp_path: Path):
    write_train_tar(tmp_path / "ILSVRC2012_img_train.tar")
    write_numbered_tar(tmp_path / "ILSVRC2012_img_val.tar", "ILSVRC2012_val")
    write_numbered_tar(tmp_path / "ILSVRC2012_img_test.tar", "ILSVRC2012_test")  # has no public labels
    write_devkit(tmp_path / "ILSVRC2012_devkit_t12" / "data")
    assert is_imagenet(tmp_path)
    source = read_source(tmp_path)
    assert list(source.classes) == CLASSES
    assert images(source, "train") == TRAIN
    assert images(source, "val") == VALIDATION
    assert images(source, "test") == []
    assert source.records[5].read() == jpeg(IDS["n01443537"] * 10 + 1)
    assert source.records[12].read() == jpeg(101)


def test_the_2012_set_extracted(tmp_path: Path):
    for wnid in WNIDS:
        (tmp_path / "train" / wnid).mkdir(parents=True)
        for i in range(4):
            (tmp_path / "train" / wnid / f"{wnid}_{i}.JPEG").write_bytes(jpeg(i))
    (tmp_path / "val").mkdir()
    for n in range(1, 5):
        (tmp_path / "val" / f"ILSVRC2012_val_{n:08d}.JPEG").write_bytes(jpeg(100 + n))
    write_devkit(tmp_path / "devkit")
    source = read_source(tmp_path)
    assert images(source, "train") == TRAIN
    assert images(source, "val") == VALIDATION


@pytest.mark.parametrize("form", ["tars", "folders"])
def test_classes_are_those_of_the_images_that_are_there_and_not_those_of_the_kit(tmp_path: Path, form: str):
    write_2012(tmp_path)  # three classes, of which one is left out
    train = tmp_path / "ILSVRC2012_img_train.tar"
    if form == "tars":
        with tarfile.open(train, "w") as tar:
            for wnid in WNIDS[1:]:
                add(tar, f"{wnid}.tar", class_tar(wnid))
    else:
        extract(tmp_path)
        train.unlink()
        (tmp_path / "ILSVRC2012_img_val.tar").unlink()
        shutil.rmtree(tmp_path / "train" / WNIDS[0])
    source = read_source(tmp_path)
    assert list(source.classes) == CLASSES[1:]
    assert images(source, "train") == TRAIN[4:]
    assert images(source, "val") == VALIDATION[2:]
    assert class_faults(source) == []
    assert "held-out image of a class without training images: 2 skipped" in source.notes
    found = check(tmp_path, workers=1)["found"]
    assert (found["accepted"], found["rejected"]) == (10, 0)


def test_held_out_images_in_class_folders_need_no_kit(tmp_path: Path):
    for split, names in (("train", TRAIN), ("val", VALIDATION)):
        for name, wnid in names:
            folder = tmp_path / f"ILSVRC2012_img_{split}" / wnid.split()[0]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(jpeg(len(name)))
    source = read_source(tmp_path)
    assert images(source, "train") == [(name, label.split()[0]) for name, label in TRAIN]
    assert images(source, "val") == [(name, label.split()[0]) for name, label in VALIDATION]


def extract(folder: Path) -> None:
    """The tars unpacked beside themselves, as people do."""
    for wnid in WNIDS:
        (folder / "train" / wnid).mkdir(parents=True)
        with tarfile.open(fileobj=io.BytesIO(class_tar(wnid))) as tar:
            tar.extractall(folder / "train" / wnid, filter="data")
    (folder / "val").mkdir()
    with tarfile.open(folder / "ILSVRC2012_img_val.tar") as tar:
        tar.extractall(folder / "val", filter="data")


def write_2012(folder: Path) -> None:
    write_train_tar(folder / "ILSVRC2012_img_train.tar")
    write_numbered_tar(folder / "ILSVRC2012_img_val.tar", "ILSVRC2012_val")
    write_devkit(folder / "devkit")


def test_a_tar_beside_what_was_extracted_from_it_is_refused(tmp_path: Path):
    write_2012(tmp_path)
    extract(tmp_path)
    with pytest.raises(DataError, match=r"img_train.tar and .*/train/n\d+: both hold train/n\d+/.*; move the tar or"):
        read_source(tmp_path)
    (tmp_path / "ILSVRC2012_img_train.tar").unlink()
    with pytest.raises(DataError, match=r"img_val.tar and .*/val: both hold val image 1, which would count twice"):
        read_source(tmp_path)
    (tmp_path / "ILSVRC2012_img_val.tar").unlink()
    source = read_source(tmp_path)
    assert images(source, "train") == TRAIN
    assert images(source, "val") == VALIDATION


def test_every_file_is_counted_and_what_is_passed_over_is_noted(tmp_path: Path):
    write_2012(tmp_path)  # 12 + 4 images and two files of the kit
    write_numbered_tar(tmp_path / "ILSVRC2012_img_test.tar", "ILSVRC2012_test", count=3)
    (tmp_path / "train" / "dog").mkdir(parents=True)
    (tmp_path / "train" / "dog" / "a.jpg").write_bytes(jpeg(1))
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".hidden").write_text("x")
    source = read_source(tmp_path)
    assert (len(source.records), source.not_images) == (16, 2 + 3 + 1 + 1)
    assert "hidden file or folder: 1 skipped" in source.notes
    assert any(note.startswith("image without a label") and note.endswith(": 4 skipped") for note in source.notes)


@pytest.mark.parametrize("form", ["tars", "extracted"])
def test_a_file_replaced_since_it_was_listed_is_refused(tmp_path: Path, form: str):
    write_2012(tmp_path)
    if form == "extracted":
        extract(tmp_path)
        for name in ("train", "val"):
            (tmp_path / f"ILSVRC2012_img_{name}.tar").unlink()
    source = read_source(tmp_path)
    for record in (source.records[0], source.records[-1]):
        assert record.read()
        os.utime(record.file, (1, 1))
        with pytest.raises(ImageError, match="changed since it was listed"):
            record.read()


def test_a_class_tar_that_is_cut_loses_no_images(tmp_path: Path):
    with tarfile.open(tmp_path / "ILSVRC2012_img_train.tar", "w") as tar:
        for wnid in WNIDS:
            add(tar, f"{wnid}.tar", class_tar(wnid)[: 2048 if wnid == WNIDS[1] else None])
    with pytest.raises(DataError, match=r"not a readable tar .*(cut|damaged)"):
        read_source(tmp_path)


def test_kaggles_tree(tmp_path: Path):
    data = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    for wnid in WNIDS:
        (data / "train" / wnid).mkdir(parents=True)
        for i in range(4):
            (data / "train" / wnid / f"{wnid}_{i}.JPEG").write_bytes(jpeg(i))
    for split in ("val", "test"):
        (data / split).mkdir()
        for n in range(1, 5):
            (data / split / f"ILSVRC2012_{split}_{n:08d}.JPEG").write_bytes(jpeg(n))
    wnid_of_id = {i: wnid for wnid, i in IDS.items()}
    rows = [
        f"ILSVRC2012_val_{n:08d},{wnid_of_id[i]} 1 2 3 4 {wnid_of_id[i]} 5 6 7 8" for n, i in enumerate(VAL, start=1)
    ]
    (tmp_path / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *reversed(rows)]))
    (tmp_path / "LOC_synset_mapping.txt").write_text("".join(f"{wnid} word {IDS[wnid]}, other\n" for wnid in WNIDS))
    source = read_source(tmp_path)
    assert list(source.classes) == CLASSES
    assert images(source, "train") == TRAIN
    assert images(source, "val") == VALIDATION
    assert images(source, "test") == []


def test_the_2010_layout_has_public_test_labels(tmp_path: Path):
    write_train_tar(tmp_path / "ILSVRC2010_images_train.tar")
    write_numbered_tar(tmp_path / "ILSVRC2010_images_val.tar", "ILSVRC2010_val")
    write_numbered_tar(tmp_path / "ILSVRC2010_images_test.tar", "ILSVRC2010_test", count=2)
    write_devkit(tmp_path / "devkit-1.0" / "data", "2010")
    with pytest.raises(DataError, match=r"labels of the test images are missing; put .*test_ground_truth\.txt"):
        read_source(tmp_path)
    (tmp_path / "ILSVRC2010_test_ground_truth.txt").write_text("3\n1\n")
    source = read_source(tmp_path)
    assert [name for _, name in images(source, "val")] == [name for _, name in VALIDATION]
    assert [name for _, name in images(source, "test")] == [CLASSES[1], CLASSES[2]]


def test_whole_imagenet_class_tars_are_split_half_and_half(tmp_path: Path):
    for wnid in WNIDS:
        (tmp_path / f"{wnid}.tar").write_bytes(class_tar(wnid, count=10))
    source = read_source(tmp_path)
    assert list(source.classes) == WNIDS
    for wnid in WNIDS:
        assert [name for _, name in images(source, "train")].count(wnid) == 5
        assert [name for _, name in images(source, "val")].count(wnid) == 5
    assert images(source, "val") == images(read_source(tmp_path), "val")
    assert images(source, "val") != images(read_source(tmp_path, seed=1), "val")


@pytest.mark.parametrize(
    ("truth", "message"),
    [("2\n2\n3\n", "has no line"), ("2\n2\n3\n7\n", "line 4: 7 is no ILSVRC id"), ("2\nx\n3\n1\n", "line 2: x is no")],
)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, truth: str, message: str):
    write_train_tar(tmp_path / "ILSVRC2012_img_train.tar")
    write_numbered_tar(tmp_path / "ILSVRC2012_img_val.tar", "ILSVRC2012_val")
    write_devkit(tmp_path)
    (tmp_path / "ILSVRC2012_validation_ground_truth.txt").write_text(truth)
    with pytest.raises(DataError, match=message):
        read_source(tmp_path)


def test_a_plain_tree_of_class_folders_is_no_imagenet_form(tmp_path: Path):
    (tmp_path / "train" / "n01440764").mkdir(parents=True)
    (tmp_path / "val" / "n01440764").mkdir(parents=True)
    (tmp_path / "val" / "n01440764" / "ILSVRC2012_val_00000001.JPEG").write_bytes(jpeg(1))
    assert not is_imagenet(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "text", "flip"])
def test_a_meta_mat_that_is_none_is_refused(data_root: Path, tmp_path: Path, damage: str):
    data = bytearray((data_root / "imagenet-classes" / "devkit" / "meta.mat").read_bytes())
    if damage == "flip":
        data[1000] ^= 0xFF
    (tmp_path / "meta.mat").write_bytes({"cut": data[:5000], "text": b"hello" * 100, "flip": data}[damage])
    with pytest.raises(DataError, match=r"not the meta\.mat of a development kit"):
        read_meta_mat(tmp_path / "meta.mat")


def element(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def matrix(matrix_class: int, content: bytes) -> bytes:
    """A MATLAB matrix without a name."""
    flags, dimensions = struct.pack("<II", matrix_class, 0), struct.pack("<ii", 1, 1)
    return element(14, element(6, flags) + element(5, dimensions) + element(1, b"") + content)


def write_mat(path: Path, *variables: bytes) -> Path:
    packed = [zlib.compress(variable, 9) for variable in variables]
    content = b"".join(struct.pack("<II", 15, len(data)) + data for data in packed)
    path.write_bytes(b"MATLAB 5.0".ljust(124) + b"\0\1IM" + content)
    return path


def test_cells_in_cells_are_not_copied_at_each_level(tmp_path: Path):
    nested = matrix(4, element(2, bytes(1 << 20)))
    for _ in range(100):
        nested = matrix(1, nested)
    path = write_mat(tmp_path / "meta.mat", nested)
    assert path.stat().st_size < 10_000
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"not the meta\.mat of a development kit \(no synsets in it\)"):
            read_meta_mat(path)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_what_all_variables_unpack_to_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(imagenet_module, "MAX_DEVKIT_BYTES", 100_000)
    path = write_mat(tmp_path / "meta.mat", *[matrix(4, element(2, bytes(40_000)))] * 50)
    with pytest.raises(DataError, match="unpacked more than 100,000 bytes"):
        read_meta_mat(path)


@pytest.mark.parametrize(
    "content", [b"", element(5, b""), element(5, struct.pack("<i", 0)) + element(1, b"ab"), element(5, bytes(4))]
)
def test_a_struct_that_lacks_its_parts_is_refused(tmp_path: Path, content: bytes):
    with pytest.raises(DataError, match=r"not the meta\.mat"):
        read_meta_mat(write_mat(tmp_path / "meta.mat", matrix(2, content)))


def test_the_real_devkit_gives_the_class_order_of_caffe_and_torchvision(data_root: Path):
    with open(data_root / "imagenet-classes" / "classes.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    synsets = read_meta_mat(data_root / "imagenet-classes" / "devkit" / "meta.mat")
    assert len(synsets) == 1860
    leaves = sorted((s for s in synsets if s.ilsvrc_id <= 1000), key=lambda s: s.wnid)
    assert [(i, s.wnid, s.ilsvrc_id, s.words) for i, s in enumerate(leaves)] == [
        (int(row["index"]), row["wnid"], int(row["ilsvrc2012_id"]), row["synset_words"]) for row in rows
    ]
