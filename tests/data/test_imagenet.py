from __future__ import annotations

import csv
import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet.core.errors import DataError
from alexnet.data.imagenet import imagenet, is_imagenet, read_meta_mat
from alexnet.data.named import read_source
from alexnet.data.sources import Source

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


def test_the_real_devkit_gives_the_class_order_of_caffe_and_torchvision(data_root: Path):
    with open(data_root / "imagenet-classes" / "classes.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    synsets = read_meta_mat(data_root / "imagenet-classes" / "devkit" / "meta.mat")
    assert len(synsets) == 1860
    leaves = sorted((s for s in synsets if s.ilsvrc_id <= 1000), key=lambda s: s.wnid)
    assert [(i, s.wnid, s.ilsvrc_id, s.words) for i, s in enumerate(leaves)] == [
        (int(row["index"]), row["wnid"], int(row["ilsvrc2012_id"]), row["synset_words"]) for row in rows
    ]


def test_the_real_devkit_labels_fifty_thousand_validation_images(data_root: Path, tmp_path: Path):
    devkit = data_root / "imagenet-classes" / "devkit"
    for name in ("meta.mat", "ILSVRC2012_validation_ground_truth.txt"):
        shutil.copyfile(devkit / name, tmp_path / name)
    with tarfile.open(tmp_path / "ILSVRC2012_img_val.tar", "w") as tar:
        for n in range(1, 50_001):
            tar.addfile(tarfile.TarInfo(f"ILSVRC2012_val_{n:08d}.JPEG"))
    source = imagenet(tmp_path)
    with open(data_root / "imagenet-classes" / "classes.csv", newline="", encoding="utf-8") as file:
        index_of_id = {int(row["ilsvrc2012_id"]): int(row["index"]) for row in csv.DictReader(file)}
    truth = (devkit / "ILSVRC2012_validation_ground_truth.txt").read_text().split()
    assert len(source.classes) == 1000
    assert source.classes[0] == "n01440764 tench"
    assert [r.label for r in source.records] == [index_of_id[int(i)] for i in truth]
    assert np.bincount([r.label for r in source.records]).tolist() == [50] * 1000
