from __future__ import annotations

import os
from pathlib import Path

import pytest

from alexnet.core.errors import DataError, ImageError
from alexnet.data.lists import csv_list
from alexnet.data.named import read_source
from alexnet.data.sources import Source


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
        ("a.jpg,cat,train\nb.jpg,dog,later\n", r"row 2: split 'later'"),
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


def test_a_file_named_once_by_its_whole_path_is_the_same_image(tmp_path: Path):
    with pytest.raises(DataError, match=r"row 2: .*a.jpg is already in row 1"):
        csv_list(write_list(tmp_path, f"a.jpg,cat\n{tmp_path}/a.jpg,dog\n"))


# --- lists of other programs ----------------------------------------------------------------------------------------


def read(folder: Path, text: str, name: str = "list.csv") -> Source:
    write_list(folder, text).rename(folder / name)
    return read_source(folder / name)


def rows(source: Source) -> list[tuple[str, str, str]]:
    return [(record.split, source.classes[record.label], record.name) for record in source.records]


FOUR = [(name, "cat" if name in "ab" else "dog") for name in "abcd"]


@pytest.mark.parametrize(
    "titles",
    [
        *(
            "path,label",
            "image_id,label",
            "filename,class",
            "file_name,label",
            "image,label",
            "fname,labels",
            "id,breed",
        ),
        *(
            "Image Path,Category",
            "filepath,target",
            "name,label",
            "pic,kind",
            "img,y",
            "Id,Species",
            "image_name,whatever",
        ),
    ],
)
def test_titles_of_other_programs_are_known(tmp_path: Path, titles: str):
    source = read(tmp_path, titles + "\n" + "".join(f"{name}.jpg,{label}\n" for name, label in FOUR))
    assert {(name, label) for _, label, name in rows(source)} == {(f"{name}.jpg", label) for name, label in FOUR}
    path, label = titles.split(",")
    said = [f"{word} is column {title}" for word, title in (("path", path), ("label", label)) if word != title]
    assert [note for note in source.notes if note.startswith("columns")] == (
        [f"columns: {', '.join(said)}"] if said else []
    )


@pytest.mark.parametrize("mark", [";", "\t", "|", " "])
@pytest.mark.parametrize("titles", ["path,label\n", ""])
def test_other_marks_may_stand_between_columns(tmp_path: Path, mark: str, titles: str):
    text = titles + "".join(f"{name}.jpg,{label}\n" for name, label in FOUR)
    name = {"\t": "list.tsv", " ": "list.txt"}.get(mark, "list.csv")
    assert rows(read(tmp_path, text.replace(",", mark), name)) == rows(read(tmp_path, text))


def test_backslashes_and_paths_without_suffix_are_understood(tmp_path: Path):
    for name in ("cat/a.jpg", "dog/b.png", "cat/back\\slash.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    source = read(tmp_path, "image_id,label\ncat\\a.jpg,x\ndog/b,y\ncat/back\\slash.jpg,y\n")
    assert sorted((r.name, r.read()) for r in source.records) == [
        ("cat/a.jpg", b"cat/a.jpg"),
        ("cat/back\\slash.jpg", b"cat/back\\slash.jpg"),
        ("dog/b.png", b"dog/b.png"),
    ]


def test_a_list_in_utf_16_as_spreadsheets_write_it(tmp_path: Path):
    text = "path\tlabel\r\na.jpg\t猫\r\nb.jpg\t狗\r\nc.jpg\t猫\r\nd.jpg\t狗\r\n"
    assert set(csv_list(write_list(tmp_path, text.encode("utf-16"))).classes) == {"猫", "狗"}


def test_files_whose_names_are_not_utf8_can_be_listed(tmp_path: Path):
    odd = os.fsdecode(b"caf\xe9.jpg")
    (tmp_path / odd).write_bytes(b"odd")
    source = csv_list(write_list(tmp_path, b"path,label\ncaf\xe9.jpg,cat\na.jpg,dog\nb.jpg,cat\n"))
    assert [record.name for record in source.records] == [r"caf\xe9.jpg", "a.jpg", "b.jpg"]
    assert source.records[0].read() == b"odd"
    with pytest.raises(DataError, match=r"row 2: nothing\\xe9.jpg: no such file.*save the list as UTF-8"):
        csv_list(write_list(tmp_path, b"path,label\nnothing\xe9.jpg,cat\n"))


@pytest.mark.parametrize(
    ("titles", "cells", "splits"),
    [
        ("is_valid", "True,False,true,FALSE", "val,train,val,train"),
        ("is_valid", "1,0,0,1", "val,train,train,val"),
        ("valid", "1,0,0,1", "val,train,train,val"),
        ("is_test", "no,no,yes,no", "train,train,test,train"),
        ("is_train", "1,1,1,0", "train,train,train,test"),
        ("is_val,is_test", "1,0|0,1|0,0|0,0", "val,test,train,train"),
        ("is_train,is_test", "1,0|0,1|0,0|1,0", "train,test,val,train"),
        ("split", "Train,dev,TEST,", "train,val,test,train"),
        ("subset", "training,validation,testing,training", "train,val,test,train"),
        ("Usage", "Training,Test,Training,Training", "train,test,train,train"),
        ("data set", "train,eval,train,train", "train,val,train,train"),
        ("anything", "train,test,train,val", "train,test,train,val"),
    ],
)
def test_columns_of_splits_are_used(tmp_path: Path, titles: str, cells: str, splits: str):
    values = cells.split("|") if "|" in cells else cells.split(",")
    text = f"path,label,{titles}\n" + "".join(
        f"{name}.jpg,{label},{value}\n" for (name, label), value in zip(FOUR, values, strict=True)
    )
    source = read(tmp_path, text)
    assert [split for split, _, _ in rows(source)] == splits.split(",")
    assert not any("not used" in note or "held out" in note for note in source.notes)


@pytest.mark.parametrize("title", ["fold", "kfold", "test_fold", "my_split", "valid"])
def test_a_column_that_may_be_a_split_and_is_not_used_is_said(tmp_path: Path, title: str):
    text = f"path,label,{title},width\n" + "".join(
        f"{name}.jpg,{label},{i},7\n" for i, (name, label) in enumerate(FOUR)
    )
    notes = read(tmp_path, text).notes
    assert any(note.startswith(f"column {title} is not used; if it says which images are held out") for note in notes)
    assert "column not used: width" in notes


@pytest.mark.parametrize("titles", ["path,cat,dog", "image,train,test", "image_id,is_cat,dog"])
def test_columns_of_zeros_and_ones_are_classes(tmp_path: Path, titles: str):
    text = (
        titles + "\n" + "".join(f"{name}.jpg,{int(label == 'cat')},{int(label == 'dog')}.0\n" for name, label in FOUR)
    )
    source = read(tmp_path, text)
    first, second = titles.split(",")[1:]
    assert {(name[0], label) for _, label, name in rows(source)} == {
        (name, first if label == "cat" else second) for name, label in FOUR
    }


def test_labels_may_be_called_like_splits(tmp_path: Path):
    source = read(tmp_path, "path,label\na.jpg,train\nb.jpg,test\nc.jpg,train\nd.jpg,test\n")
    assert list(source.classes) == ["test", "train"]
    assert sorted(split for split, _, _ in rows(source)) == ["train", "train", "val", "val"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,cat,dog\na.jpg,1,1\n", "row 2: 2 of the columns of classes are 1; an image has one class"),
        ("path,cat,dog\na.jpg,0,1\nb.jpg,0,0\n", "row 3: none of the columns of classes is 1"),
        ("path,width,height\na.jpg,640,480\n", "no column of labels among path, width, height; call it label"),
        ("kind,label\n3,cat\n", "no column of paths among kind, label; call it path"),
        ("path,label,is_val,is_test\na.jpg,cat,1,1\n", "row 2: in val and in test; an image is in one split"),
        ("filename,class\ndeep.jpg,cat\n", "row 2: deep.jpg: no such file; .*; it lies in images/"),
    ],
)
def test_what_a_list_does_not_say_is_asked_for(tmp_path: Path, text: str, message: str):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "deep.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match=message):
        csv_list(write_list(tmp_path, text))
