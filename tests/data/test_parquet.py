"""Parquet files as the `datasets` library of Hugging Face writes them: by pyarrow alone, so that the library is not needed."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet.core.errors import AlexNetError, DataError, ImageError
from alexnet.data.check import check
from alexnet.data.named import find_source
from alexnet.data.pictures import is_one, pictures
from alexnet.data.pool import in_processes
from alexnet.data.prepare import prepare
from odd_images import RGB, png

pa = pytest.importorskip("pyarrow", reason="Parquet files are read with pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def picture(i: int) -> bytes:
    return png(np.roll(RGB, (i, 3 * i), (0, 1)), 2)


def table(
    labels: list[Any],
    first: int = 0,
    names: list[str] | None = None,
    image: str = "image",
    label: str = "label",
    **more: Any,
) -> Any:
    """Rows as the library writes them: the image a struct of bytes and path, names of classes in the metadata."""
    images = [{"bytes": picture(first + i), "path": f"{i}.png"} for i in range(len(labels))]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    made = pa.table({image: pa.array(images, kind), label: pa.array(labels), **more})
    if names is None:
        return made
    features = {image: {"_type": "Image"}, label: {"names": names, "_type": "ClassLabel"}}
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write(folder: Path, files: dict[str, Any], **options: Any) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(content, folder / name, **options)
    return folder


NAMES = ["wolf", "cat", "emu"]  # the order of the file, not of the letters


@pytest.fixture
def beans(tmp_path: Path) -> Path:
    files = {
        "data/train-00000-of-00002.parquet": table([2, 0, 1, 0, 1, 2, 0], 0, NAMES),
        "data/train-00001-of-00002.parquet": table([1, 2, 0, 1], 7, NAMES),
        "data/validation-00000-of-00001.parquet": table([1, 2, 0], 11, NAMES),
    }
    write(tmp_path / "beans", files, row_group_size=3)
    (tmp_path / "beans" / "README.md").write_text("a card")
    return tmp_path / "beans"


def test_classes_splits_and_pixels_are_those_of_the_rows(beans: Path, tmp_path: Path):
    source = find_source(beans)
    assert source.classes == NAMES
    assert [(record.split, record.label) for record in source.records] == [
        *(("train", label) for label in (2, 0, 1, 0, 1, 2, 0, 1, 2, 0, 1)),
        *(("val", label) for label in (1, 2, 0)),
    ]
    packed = prepare(beans, tmp_path / "packed", size=11, workers=2)
    assert packed.split("val").paths[1] == "data/validation-00000-of-00001.parquet/000001"
    by_hand = tmp_path / "folder"
    for i, record in enumerate(source.records):
        place = by_hand / record.split / NAMES[record.label]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i:03d}.png").write_bytes(picture(i))
    other = prepare(by_hand, tmp_path / "other", size=11, workers=1)
    for split in ("train", "val"):
        ours, theirs = ({np.asarray(x).tobytes() for x, _ in p.split(split)} for p in (packed, other))
        assert ours == theirs
    assert check(beans)["faults"] == []


@pytest.mark.parametrize("groups", [1, 4, 1000])
def test_rows_are_read_in_any_order_by_threads_and_processes(groups: int, tmp_path: Path):
    num = 150
    write(tmp_path / "set", {"train.parquet": table([i % 2 for i in range(num)])}, row_group_size=groups)
    records = {int(r.name[-6:]): r for r in find_source(tmp_path / "set").records}
    order = np.random.default_rng(0).permutation(num)[:40].tolist()
    assert [records[i].read() for i in order] == [picture(i) for i in order]
    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(lambda i: records[i].read(), range(num))) == [picture(i) for i in range(num)]
    for i, data in in_processes(lambda i: records[i].read(), [149, 0, 70, 71], 2):
        assert data == picture(i)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([3, 10, 3, 10], ["3", "10"]),
        (["dog", "猫", "dog", "猫"], ["dog", "猫"]),
        ([True, False, True, False], ["False", "True"]),
    ],
)
def test_without_metadata_columns_and_classes_are_known_by_what_they_hold(labels, classes, tmp_path: Path):
    made = table(labels, image="img", label="labels", other=pa.array(range(4)))
    source = find_source(write(tmp_path / "set", {"train.parquet": made, "test.parquet": made}))
    assert source.classes == classes
    assert {record.split for record in source.records} == {"train", "test"}


def test_plain_bytes_are_images_too_and_a_file_alone_is_a_set(tmp_path: Path):
    made = pa.table({"image": pa.array([picture(i) for i in range(10)]), "label": pa.array([0, 1] * 5)})
    write(tmp_path, {"mine.parquet": made})
    source = find_source(tmp_path / "mine.parquet")
    assert source.held_out == "hash"
    assert sorted(r.split for r in source.records) == ["train"] * 8 + ["val"] * 2
    assert {r.name: r.read() for r in source.records}["mine.parquet/000009"] == picture(9)


def test_rows_without_a_label_or_with_the_same_image_are_seen(tmp_path: Path):
    made = table([0, -1, 1, None, 1, 0])
    again = pa.concat_tables([made, made])
    source = find_source(write(tmp_path / "set", {"train.parquet": again}))
    assert "4 rows without a label are not used" in source.notes
    where: dict[bytes, set[str]] = {}
    for record in source.records:
        where.setdefault(record.read(), set()).add(record.split)
    assert all(len(splits) == 1 for splits in where.values())  # no image is on both sides


def test_names_that_are_there_twice_are_told_apart(tmp_path: Path):
    source = find_source(write(tmp_path / "set", {"train.parquet": table([0, 1, 2], names=["crane", "cat", "crane"])}))
    assert source.classes == ["crane (0)", "cat", "crane (2)"]


def test_the_rows_of_a_file_or_a_folder_are_many_pictures(beans: Path):
    file = beans / "data" / "train-00001-of-00002.parquet"
    assert not is_one(file)
    found = list(pictures(str(file)))
    assert [picture_.name for picture_ in found] == [f"{file}/{i:06d}" for i in range(4)]
    assert np.array_equal(found[1].decode(), np.roll(RGB, (8, 24), (0, 1)))
    assert len(list(pictures(beans))) == 14
    (beans / "photo.png").write_bytes(png(RGB, 2))  # then it is a folder of images, for every verb
    assert [one.name for one in pictures(beans)] == [str(beans / "photo.png")]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"train.parquet": {"x": [1], "label": [0]}}, "no column of images .* among x, label; call it image"),
        ({"train.parquet": {"image": [b"x"], "y": [0]}}, "no column of labels among image, y; call it label"),
        (
            {"train.parquet": {"image": [b"x"], "label": [0.5]}},
            r"row 0: its label is 0\.5; it must be a whole number or a name",
        ),
        ({"train.parquet": {"image": [b"x"], "label": [-1]}}, "no row has a label"),
        (
            {"train.parquet": {"image": [b"x"], "label": [0]}, "a.parquet": {"image": [b"x"], "label": [0]}},
            r"a\.parquet does not say which split it is of, as train\.parquet does",
        ),
        (
            {"train.parquet": {"image": [b"x"], "label": [0]}, "test.parquet": {"image": [b"x"], "label": ["a"]}},
            "labels are numbers in some rows and names in others",
        ),
    ],
)
def test_what_is_no_such_set_is_refused_in_one_line(files, said, tmp_path: Path):
    write(tmp_path / "set", {name: pa.table(columns) for name, columns in files.items()})
    with pytest.raises(DataError, match=said) as caught:
        find_source(tmp_path / "set")
    assert "\n" not in str(caught.value)


def test_a_label_beyond_the_names_is_refused_by_its_row(tmp_path: Path):
    write(tmp_path / "set", {"train.parquet": table([0, 1, 7], names=["a", "b"])})
    with pytest.raises(DataError, match="row 2: label 7, but there are 2 names of classes"):
        find_source(tmp_path / "set")


def test_rows_without_an_image_and_damaged_pages_are_faults_by_name(tmp_path: Path):
    made = table([0, 1, 0, 1])
    images = made.column("image").to_pylist()
    images[1] = {"bytes": None, "path": "/etc/passwd"}
    made = made.set_column(0, "image", pa.array(images, made.column("image").type))
    folder = write(
        tmp_path / "set", {"train.parquet": made}, compression="none", row_group_size=1, use_dictionary=False
    )
    records = {int(r.name[-6:]): r for r in find_source(folder).records}
    with pytest.raises(ImageError, match="the row has no image") as caught:
        records[1].read()
    assert (caught.value.path, caught.value.reason) == ("train.parquet/000001", "missing")
    assert records[2].read() == picture(2)
    data = bytearray((folder / "train.parquet").read_bytes())
    at = data.index(picture(3)) - 4  # the length of the value
    data[at : at + 4] = b"\xff" * 4
    (folder / "train.parquet").write_bytes(data)
    records = {int(r.name[-6:]): r for r in find_source(folder).records}
    with pytest.raises(ImageError):
        records[3].read()
    assert records[2].read() == picture(2)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_file_that_was_cut_or_changed_is_refused(share: float, tmp_path: Path):
    made = table([0, 1, 0, 1])
    file = write(tmp_path / "set", {"train.parquet": made, "test.parquet": made}) / "train.parquet"
    record = find_source(tmp_path / "set").records[0]
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(DataError, match=r"not a readable Parquet file .*get it again"):
        find_source(tmp_path / "set")
    with pytest.raises(ImageError):
        record.read()


def test_without_pyarrow_the_command_that_installs_it_is_said(beans: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(AlexNetError, match=r'pip install "alexnet\[parquet\]"'):
        find_source(beans)
