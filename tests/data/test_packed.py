from __future__ import annotations

import hashlib
import io
import json
import os
import random
import resource
import shutil
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet.core.errors import AlexNetError, DataError
from alexnet.data.check import check
from alexnet.data.packed import PackedSet, decode_record, is_packed, open_packed, seal
from alexnet.data.prepare import prepare
from alexnet.data.shards import Store

MakeFolder = Callable[..., Path]


@pytest.fixture(params=["pixels", "jpeg"])
def packed(request: pytest.FixtureRequest, image_folder_of: MakeFolder, tmp_path: Path) -> PackedSet:
    source = image_folder_of({"train/cat": 9, "train/dog": 8, "val/cat": 3, "val/dog": 2})
    store: Store = request.param
    return prepare(source, tmp_path / "packed", size=16, store=store, workers=1)


def read_everything(folder: Path) -> None:
    packed = open_packed(folder)
    for split in packed.splits.values():
        split.read(np.arange(len(split)))
        assert len(split.paths) == len(split)
    if "train" in packed.splits:
        _ = packed.mean, packed.color


def test_any_order_with_repeats(packed: PackedSet):
    split = packed.split("train")
    every = split.read(np.arange(17))
    assert np.array_equal(split.read(np.array([16, 0, 0, 5])), every[[16, 0, 0, 5]])
    assert split.read(np.array([], dtype=np.int64)).shape == (0, 16, 16, 3)
    assert split.path(16) == split.paths[16] == "train/dog/007.png"


def test_a_damaged_image_is_named_when_it_is_first_read(packed: PackedSet):
    folder = packed.path
    split = packed.split("train")
    file = next(folder.glob("train.images.*"))
    data = bytearray(file.read_bytes())
    jpeg = file.suffix == ".bin"
    at = int(split._offset_N[5]) + 30 if jpeg else 128 + 5 * 16 * 16 * 3 + 100
    data[at] ^= 1
    file.write_bytes(data)
    damaged = open_packed(folder)  # opening looks at no image
    damaged.split("train").read(np.array([4, 6]))
    with pytest.raises(DataError, match=r"train\.images\.(npy|bin): image 5 \(train/cat/005\.png\) is damaged"):
        damaged.split("train").read(np.array([4, 5]))
    faults = check(folder)["faults"]
    assert [fault["path"] for fault in faults] == ["train image 5"]


def test_every_flipped_bit_is_found(packed: PackedSet):
    folder = packed.path
    draw = random.Random(0)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    for trial in range(120):
        file = files[trial % len(files)]
        whole = file.read_bytes()
        damaged = bytearray(whole)
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        file.write_bytes(damaged)
        assert check(folder)["faults"], file.name
        if not file.name.endswith((".images.npy", ".images.bin")):
            with pytest.raises(DataError):
                read_everything(folder)
        file.write_bytes(whole)
    assert check(folder)["faults"] == check(folder)["notes"] == []


def test_every_file_cut_or_missing_is_found_at_once(packed: PackedSet):
    folder = packed.path
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        whole = file.read_bytes()
        for size in {0, 1, len(whole) // 2, len(whole) - 2}:  # of meta.json, -1 would only be the end of the line
            file.write_bytes(whole[:size])
            with pytest.raises(DataError):
                open_packed(folder)
        file.unlink()
        with pytest.raises(DataError):
            open_packed(folder)
        file.write_bytes(whole)
    read_everything(folder)


def test_a_file_of_images_cut_while_it_is_in_use_is_one_line(packed: PackedSet):
    # A file mapped into memory would end the process here (SIGBUS).
    split, file = packed.split("train"), next(packed.path.glob("train.images.*"))
    assert split.read(np.array([16])).shape == (1, 16, 16, 3)
    os.truncate(file, file.stat().st_size // 2)
    assert split.read(np.array([0])).shape == (1, 16, 16, 3)
    with pytest.raises(DataError, match=r"train\.images\.(npy|bin): cut short since it was opened"):
        split.read(np.array([0, 16]))


def test_a_file_of_images_replaced_while_it_is_in_use_changes_nothing(packed: PackedSet):
    split, file = packed.split("train"), next(packed.path.glob("train.images.*"))
    before = split.read(np.arange(17))
    (packed.path / "new").write_bytes(b"")
    (packed.path / "new").replace(file)
    assert np.array_equal(split.read(np.arange(17)), before)


def test_files_of_two_sets_mixed_are_found(packed: PackedSet, image_folder_of: MakeFolder, tmp_path: Path):
    other = prepare(
        image_folder_of({"train/cat": 8, "train/dog": 9, "val/cat": 3, "val/dog": 2}, name="other"),
        tmp_path / "other-packed",
        size=16,
        store=packed.meta["store"],
        workers=1,
    )
    for name in packed.meta["files"]:
        kept = (packed.path / name).read_bytes()
        if (other.path / name).read_bytes() == kept:
            continue
        shutil.copyfile(other.path / name, packed.path / name)
        assert check(packed.path)["faults"], name
        (packed.path / name).write_bytes(kept)


def test_another_version_an_edited_meta_and_no_set_at_all(packed: PackedSet, tmp_path: Path):
    meta_file = packed.path / "meta.json"
    meta = json.loads(meta_file.read_text())
    meta_file.write_text(json.dumps(meta | {"version": 99}))
    with pytest.raises(DataError, match="version 99, this program reads 1"):
        open_packed(packed.path)
    meta_file.write_text(json.dumps(meta | {"classes": ["dog", "cat"]}))
    with pytest.raises(DataError, match="damaged or edited"):
        open_packed(packed.path)
    for text in ("{}", "[]", "null", '{"format": "other"}', "{", ""):
        meta_file.write_text(text)
        with pytest.raises(AlexNetError):
            open_packed(packed.path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"not a packed set \(no meta.json\)"):
        open_packed(tmp_path / "empty")
    with pytest.raises(DataError, match="no such folder; make it with `alexnet prepare"):
        open_packed(tmp_path / "nowhere")


def test_a_record_of_several_scans_is_refused_undecoded(
    image_folder_of: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = prepare(image_folder_of({"train/cat": 2, "train/dog": 2}), tmp_path / "packed", size=16, store="jpeg").path
    Image.new("RGB", (16, 16), "red").save(buffer := io.BytesIO(), "JPEG", progressive=True)
    jpeg = buffer.getvalue()
    assert len(decode_record(jpeg, 3, 16)) == 16  # of ten scans; thousands take a decoder many seconds
    offset_N, crc32_N = np.load(folder / "train.offsets.npy"), np.load(folder / "train.crc32.npy")
    records = (folder / "train.images.bin").read_bytes()
    (folder / "train.images.bin").write_bytes(jpeg + records[offset_N[1] :])
    offset_N[1:] += len(jpeg) - offset_N[1]
    crc32_N[0] = zlib.crc32(jpeg)
    np.save(folder / "train.offsets.npy", offset_N)
    np.save(folder / "train.crc32.npy", crc32_N)
    meta = json.loads((folder / "meta.json").read_text())
    for name, file in meta["files"].items():
        file |= {
            "bytes": (folder / name).stat().st_size,
            "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
        }
    (folder / "meta.json").write_text(json.dumps(seal({k: v for k, v in meta.items() if k != "sha256"})))
    split = open_packed(folder).split("train")
    assert len(split.read(np.array([1]))) == 1
    monkeypatch.setattr("alexnet.data.packed.decode_record", None)
    for _ in range(2):
        with pytest.raises(DataError, match=r"image 0 \(.*\) is damaged: 10 scans, and not one"):
            split.read(np.array([0]))


def test_images_beside_a_meta_file_of_somebody_else_are_a_source(image_folder_of: MakeFolder, tmp_path: Path):
    source = image_folder_of({"train/cat": 2, "train/dog": 2})
    for text in ('{"camera": "mine"}', "", '{"notes": "' + "x" * 200 + 'alexnet packed set"}'):
        (source / "meta.json").write_text(text)
        assert not is_packed(source)
        assert check(source)["found"]["accepted"] == 4
    packed = prepare(source, tmp_path / "packed", size=16)
    for name in ("meta.json", "train.crc32.npy"):  # known by either
        whole = (packed.path / name).read_bytes()
        (packed.path / name).write_bytes(b"")
        assert is_packed(packed.path)
        (packed.path / name).unlink()
        assert is_packed(packed.path)
        (packed.path / name).write_bytes(whole)


def test_many_threads_read_the_same_images(packed: PackedSet):
    split = packed.split("train")
    expected = split.read(np.arange(17))
    fresh = open_packed(packed.path).split("train")
    wrong: list[int] = []

    def work(seed: int) -> None:
        draw = np.random.default_rng(seed)
        for _ in range(30):
            index_B = draw.integers(0, 17, 8)
            if not np.array_equal(fresh.read(index_B), expected[index_B]):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_fingerprint_names_the_content_and_not_where_it_came_from(image_folder_of: MakeFolder, tmp_path: Path):
    source = image_folder_of({"train/cat": 2, "train/dog": 2, "val/cat": 1, "val/dog": 1})
    first = prepare(source, tmp_path / "a", size=16, workers=1)
    shutil.copytree(source, tmp_path / "copy", copy_function=shutil.copyfile)  # same bytes, new times
    assert prepare(tmp_path / "copy", tmp_path / "b", size=16, workers=1).fingerprint == first.fingerprint
    assert prepare(source, tmp_path / "c", size=17, workers=1).fingerprint != first.fingerprint


def test_opening_costs_the_same_for_one_point_three_million_images(tmp_path: Path):
    n, size = 1_281_167, 256
    with open(tmp_path / "train.images.npy", "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (n, size, size, 3)}
        np.lib.format.write_array_header_1_0(file, header)
        try:
            file.truncate(file.tell() + n * size * size * 3)  # 252 GB that take no room
        except OSError:
            pytest.skip("the file system has no files of this size")
    np.save(tmp_path / "train.labels.npy", np.zeros(n, dtype=np.int64))
    zeros = zlib.crc32(bytes(size * size * 3))
    np.save(tmp_path / "train.crc32.npy", np.full(n, zeros, dtype=np.uint32))
    (tmp_path / "train.paths.jsonl").write_text('"x.jpg"\n' * n)
    names = [path.name for path in tmp_path.iterdir()]
    files = {
        name: {
            "bytes": (tmp_path / name).stat().st_size,
            "sha256": "" if "images" in name else hashlib.sha256((tmp_path / name).read_bytes()).hexdigest(),
        }
        for name in names
    }
    meta = {"format": "alexnet packed set", "version": 1, "complete": True, "classes": ["a", "b"], "size": size}
    meta |= {"channels": 3, "store": "pixels", "counts": {"train": {"images": n, "per_class": [n, 0]}}, "files": files}
    (tmp_path / "meta.json").write_text(json.dumps(seal(meta)))
    del meta, files, names
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    packed = open_packed(tmp_path)
    assert time.process_time() - start < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB
    assert packed.split("train").read(np.array([n - 1, 0])).sum() == 0
    assert packed.split("train").path(n - 1) == "x.jpg"
