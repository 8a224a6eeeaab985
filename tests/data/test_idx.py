from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from alexnet.core.errors import DataError
from alexnet.data import idx
from alexnet.data.idx import FASHION_MNIST_CLASSES, idx_set, is_idx, read_idx
from alexnet.data.sources import MAX_IMAGES


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_pair(folder: Path, stem: str, images: np.ndarray, labels: np.ndarray, gz: bool = False) -> None:
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        data = idx_bytes(array)
        path = folder / f"{stem}-{kind}-ubyte{'.gz' if gz else ''}"
        path.write_bytes(gzip.compress(data) if gz else data)


IMAGES = np.arange(6 * 4 * 4, dtype=np.uint8).reshape(6, 4, 4)
LABELS = np.array([0, 1, 2, 0, 1, 2], dtype=np.uint8)


@pytest.mark.parametrize("gz", [False, True])
def test_a_folder_of_idx_files(tmp_path: Path, gz: bool):
    write_pair(tmp_path, "train", IMAGES, LABELS, gz)
    write_pair(tmp_path, "t10k", IMAGES[:2], LABELS[:2], gz)
    assert is_idx(tmp_path)
    source = idx_set(tmp_path)
    assert (source.size, source.channels, list(source.classes)) == (4, 1, ["0", "1", "2"])
    assert [r.split for r in source.records] == ["test"] * 2 + ["train"] * 6
    assert [r.label for r in source.records] == [0, 1, 0, 1, 2, 0, 1, 2]
    assert np.array_equal(source.records[3].read(), IMAGES[1][:, :, None])


def test_one_idx_file_is_split_by_class(tmp_path: Path):
    write_pair(tmp_path, "train", IMAGES, LABELS)
    source = idx_set(tmp_path / "train-images-idx3-ubyte")
    assert sorted((r.split, r.label) for r in source.records) == [(s, i) for s in ("train", "val") for i in range(3)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cannot be read as IDX"),
        (b"\x89PNG....", "not an IDX file"),
        (struct.pack(">HBBI", 0, 13, 1, 2) + b"\0" * 8, "unsigned bytes"),
        (idx_bytes(LABELS)[:-1], "fewer bytes"),
        (idx_bytes(LABELS) + b"\0", "more bytes"),
        (struct.pack(">HBB3I", 0, 8, 3, 2**20, 2**31, 2), "announces"),
        (struct.pack(">HBB3I", 0, 8, 3, MAX_IMAGES + 1, 1, 1), "announces 2,000,001 images; at most 2,000,000"),
        (struct.pack(">HBBI", 0, 8, 1, MAX_IMAGES + 1), "announces 2,000,001 images"),
    ],
)
def test_what_is_no_idx_file_is_refused(tmp_path: Path, data: bytes, message: str):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message):
        read_idx(path)


def test_a_damaged_gzip_is_refused(tmp_path: Path):
    data = bytearray(gzip.compress(idx_bytes(np.random.default_rng(0).integers(0, 256, (50, 8, 8), dtype=np.uint8))))
    data[len(data) // 2] ^= 1
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"cannot be read as IDX|bytes than"):
        read_idx(path)


def test_labels_missing_or_of_another_length_are_refused(tmp_path: Path):
    write_pair(tmp_path, "train", IMAGES, LABELS[:5])
    with pytest.raises(DataError, match="do not belong together"):
        idx_set(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="labels are missing; expected train-labels-idx1-ubyte"):
        idx_set(tmp_path)


def test_the_real_fashion_mnist_has_the_published_statistics(data_root: Path):
    source = idx_set(data_root / "fashion-mnist", classes=FASHION_MNIST_CLASSES)
    train = np.stack([r.read() for r in source.records if r.split == "train"]) / 255.0
    assert train.shape == (60000, 28, 28, 1)
    assert train.mean() == pytest.approx(0.28604, abs=5e-6)
    assert train.std() == pytest.approx(0.35302, abs=1e-5)
    labels = np.array([r.label for r in source.records if r.split == "test"])
    assert np.bincount(labels).tolist() == [1000] * 10


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "train-images-idx3-ubyte")
    with pytest.raises(DataError, match="not a regular file"):
        read_idx(tmp_path / "train-images-idx3-ubyte")


def test_the_images_of_all_files_together_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_pair(tmp_path, "train", IMAGES, LABELS)
    write_pair(tmp_path, "t10k", IMAGES, LABELS)
    monkeypatch.setattr(idx, "MAX_IMAGES", 12)
    assert len(idx_set(tmp_path).records) == 12
    monkeypatch.setattr(idx, "MAX_IMAGES", 11)
    with pytest.raises(DataError, match="more than 11 images"):
        idx_set(tmp_path)
