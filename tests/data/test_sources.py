from __future__ import annotations

import os
from pathlib import Path

import pytest
from rich.cells import cell_len

from alexnet.core.errors import DataError, ImageError
from alexnet.data import sources
from alexnet.data.sources import (
    Record,
    Source,
    class_faults,
    class_lines,
    class_notes,
    csv_list,
    hold_out,
    split_by_hash,
)


def test_one_fifth_is_held_out_whatever_the_order_and_few_change_when_images_join():
    names = [f"cat/{i}.jpg" for i in range(100)]
    held = split_by_hash(names, seed=0, fraction=0.2)
    assert len(held) == 20
    assert held == split_by_hash(names[::-1], seed=0, fraction=0.2)
    assert held != split_by_hash(names, seed=1, fraction=0.2)
    assert len(held - split_by_hash([*names, "cat/new.jpg"], seed=0, fraction=0.2)) <= 1


@pytest.mark.parametrize(("images", "held"), [(1, 0), (2, 1), (3, 1), (5, 1), (8, 2), (100, 20)])
def test_at_least_one_image_of_two_is_held_out_but_never_all(images: int, held: int):
    assert len(split_by_hash([str(i) for i in range(images)], 0, 0.2)) == held


def test_each_class_is_split_by_itself():
    records = [Record("train", label, f"{label}/{i}") for label, n in enumerate((5, 10, 50)) for i in range(n)]
    split = hold_out(records, seed=0)
    assert [sum(r.split == "val" and r.label == label for r in split) for label in range(3)] == [1, 2, 10]
    assert [(r.label, r.name) for r in split] == [(r.label, r.name) for r in records]


# --- CSV lists ------------------------------------------------------------------------------------------------------


def write_list(folder: Path, text: str | bytes, images: tuple[str, ...] = ("a.jpg", "b.jpg", "c.jpg", "d.jpg")) -> Path:
    for name in images:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    path = folder / "list.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_list_with_header_byte_order_mark_crlf_quotes_and_splits(tmp_path: Path):
    text = '\ufeffsplit,label,path\r\nval,"cat, wild","a.jpg"\r\n'
    text += 'train,dog,"odd ""name"",\nnew line.jpg"\r\n\r\ntest,dog,b.jpg\r\n'
    source = csv_list(write_list(tmp_path, text, ("a.jpg", "b.jpg", 'odd "name",\nnew line.jpg')))
    assert list(source.classes) == ["cat, wild", "dog"]
    assert [(r.split, r.label, r.name) for r in source.records] == [
        ("val", 0, "a.jpg"),
        ("train", 1, 'odd "name",\nnew line.jpg'),
        ("test", 1, "b.jpg"),
    ]
    assert source.records[0].read() == b"a.jpg"


def test_numbers_as_labels_are_in_the_order_of_their_values(tmp_path: Path):
    source = csv_list(write_list(tmp_path, "a.jpg,10\nb.jpg,9\nc.jpg,10\nd.jpg,9\n"))
    assert list(source.classes) == ["9", "10"]
    assert sorted(r.split for r in source.records) == ["train", "train", "val", "val"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows"),
        ("path,label\n", "no rows"),
        ("a.jpg,cat\nmissing.jpg,dog\n", r"row 2: missing.jpg: no such file"),
        ("a.jpg,cat\n../nowhere/x.jpg,dog\n", r"row 2: \.\./nowhere/x.jpg: no such file"),
        ("a.jpg,cat\nb.jpg,dog\na.jpg,dog\n", r"row 3: a.jpg is already in row 1"),
        ("a.jpg,cat\nb.jpg,dog\n./a.jpg,dog\n", r"row 3: \./a.jpg is already in row 1"),
        ("a.jpg,cat\nb.jpg,dog\nx/../a.jpg,dog\n", r"row 3: x/\.\./a.jpg is already in row 1"),
        ("a.jpg,cat\nb.jpg\n", r"row 2: 1 columns"),
        ("a.jpg,cat\nb.jpg,\n", r"row 2: 2 columns"),
        ("a.jpg,cat,train\nb.jpg,dog,holdout\n", r"row 2: split 'holdout'"),
        ('a.jpg,cat\n"b.jpg,dog\n', "after row 1: not a UTF-8 CSV"),
        (b"a.jpg,caf\xe9\n", "not a UTF-8 CSV"),
        ("a.jpg,cat\nnul\0byte.jpg,dog\n", "row 2|after row 1"),
        ("a.jpg,1\nb.jpg,2\nc.jpg,x3\n", "row 3: label 'x3' is not a whole number, but '1' in row 1 is"),
        ("a.jpg,cat\nb.jpg,2\n", "row 1: label 'cat' is not a whole number, but '2' in row 2 is"),
        ("a.jpg,1\nb.jpg,2.5\n", "row 2: label '2.5'"),
        ("a.jpg,1\nb.jpg,-2\n", "row 2: label '-2'"),
        ("a.jpg,1\nb.jpg,\u0662\n", "row 2: label '\u0662' is not"),
        ("a.jpg,1\nb.jpg,01\n", "row 2: label '01' is the number '1' of row 1"),
        ("a.jpg,cat\nb.jpg/x.jpg,dog\n", "row 2: b.jpg/x.jpg: no such file"),
        ("a.jpg,cat\n" + "x" * 300 + ".jpg,dog\n", "row 2: x+.jpg: File name too long"),
        ("a.jpg,cat\nb.jpg," + "x" * 200_000 + "\n", "after row 1: not a UTF-8 CSV"),
        ('a.jpg,"cat"s\n', "after row 0: not a UTF-8 CSV"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, text: str | bytes, message: str):
    with pytest.raises(DataError, match=message) as caught:
        csv_list(write_list(tmp_path, text))
    assert "list.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_as_labels_may_have_any_length(tmp_path: Path):
    source = csv_list(write_list(tmp_path, f"a.jpg,{'9' * 5000}\nb.jpg,8{'0' * 5000}\nc.jpg,0\nd.jpg,10\n"))
    assert [len(name) for name in source.classes] == [1, 2, 5000, 5001]


def test_a_list_may_name_files_elsewhere_and_what_is_no_file_is_refused_later(tmp_path: Path):
    folder = tmp_path / "lists"
    folder.mkdir()
    (tmp_path / "outside.jpg").write_bytes(b"x")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "folder.jpg").mkdir()
    source = csv_list(write_list(folder, "../outside.jpg,cat\npipe.jpg,dog\nfolder.jpg,dog\n"))
    assert source.records[0].read() == b"x"
    for record in source.records[1:]:
        with pytest.raises(ImageError, match="not a regular file"):
            record.read()


def test_a_list_that_is_no_file_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "list.csv")
    with pytest.raises(DataError, match="not a regular file"):
        csv_list(tmp_path / "list.csv")
    with pytest.raises(DataError, match="not a regular file"):
        csv_list(tmp_path)
    with pytest.raises(DataError, match="No such file"):
        csv_list(tmp_path / "missing.csv")


# --- records and classes --------------------------------------------------------------------------------------------


def test_a_record_is_a_part_of_a_file(tmp_path: Path):
    (tmp_path / "x.tar").write_bytes(b"0123456789")
    assert Record("train", 0, "x", str(tmp_path / "x.tar"), offset=3, length=4).read() == b"3456"
    with pytest.raises(ImageError, match="truncated"):
        Record("train", 0, "x", str(tmp_path / "x.tar"), offset=8, length=4).read()
    with pytest.raises(ImageError, match="too large"):
        Record("train", 0, "x", str(tmp_path / "x.tar"), offset=0, length=1 << 40).read()
    with pytest.raises(ImageError, match=r"x: missing \(.*y.tar: no such file"):
        Record("train", 0, "x", str(tmp_path / "y.tar"), offset=0, length=4).read()
    with pytest.raises(ImageError, match=r"x: damaged .*directory"):
        Record("train", 0, "x", str(tmp_path), offset=0, length=4).read()


def test_a_part_of_a_file_that_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(sources, "open", refuse, raising=False)
    with pytest.raises(ImageError, match="x: no permission") as caught:
        Record("train", 0, "x", str(tmp_path / "x.tar"), length=4).read()
    assert caught.value.reason == "no permission"


def test_a_file_named_once_by_its_whole_path_is_the_same_image(tmp_path: Path):
    with pytest.raises(DataError, match=r"row 2: .*a.jpg is already in row 1"):
        csv_list(write_list(tmp_path, f"a.jpg,cat\n{tmp_path}/a.jpg,dog\n"))


def source_of(classes: list[str], **labels_of_split: list[int]) -> Source:
    records = [
        Record(split, label, f"{split}/{label}") for split, labels in labels_of_split.items() for label in labels
    ]
    return Source(classes=classes, records=records, fingerprint="")


def test_classes_that_cannot_be_learned_are_faults():
    assert class_faults(source_of(["cat", "dog"], train=[0, 1], val=[0, 1])) == []
    assert [f.path for f in class_faults(source_of(["cat", "dog", "eel"], train=[0, 1], val=[0, 2]))] == ["eel"]
    assert "only class" in class_faults(source_of(["cat"], train=[0]))[0].reason
    assert class_faults(source_of(["cat", "dog"], val=[0])) == []  # nothing to learn: a set to evaluate on


def test_missing_and_confusable_classes_are_noted():
    notes = class_notes(source_of(["Cat", "caf\u00e9", "cafe\u0301", "cat"], train=[0, 1, 2, 3], val=[0, 1, 2]))
    assert any("cat has no val images" in note for note in notes)
    assert sum("differ by case or coding" in note for note in notes) == 2


def test_the_first_and_last_of_many_classes_are_shown_as_a_table():
    names = [f"n{i:03d}" for i in range(20)]
    names[1], names[2] = "金毛寻回犬", "x" * 60
    lines = class_lines(names, {"train": [1300] * 20, "val": [50] * 19 + [0]})
    assert lines == [
        "20 classes                                   train       val",
        "  n000                                       1,300        50",
        "  金毛寻回犬                                 1,300        50",
        "  xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...     1,300        50",
        "  n003                                       1,300        50",
        "  ... 12 more",
        "  n016                                       1,300        50",
        "  n017                                       1,300        50",
        "  n018                                       1,300        50",
        "  n019                                       1,300         0",
        "all images                                  26,000       950",
    ]
    assert {cell_len(line) for line in lines} == {60, 13}
    assert len(class_lines(names[:9], {"train": [1] * 9})) == 11  # nothing is left out for one class
    assert class_lines(["a\x1b[31m"], {"val": [2]})[1] == "  a\\x1b[31m         2"
