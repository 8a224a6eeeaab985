from __future__ import annotations

from pathlib import Path

import pytest
from rich.cells import cell_len

from alexnet.core.errors import ImageError
from alexnet.data import sources
from alexnet.data.sources import (
    Record,
    Source,
    class_faults,
    class_lines,
    class_notes,
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


def test_images_that_stay_together_are_held_out_together():
    names = [f"cat/{i}.jpg" for i in range(20)]
    alone = split_by_hash(names, 0, 0.2)
    pair, many = sorted(alone)[:2], [names[0], *sorted(set(names) - alone)[:5]]
    assert split_by_hash(names, 0, 0.2, [pair]) == alone
    for seed in range(20):
        held = split_by_hash(names, seed, 0.2, [names[:2], names[2:5], names[5:15]])
        assert 0 < len(held) <= 4
        assert all(not held & set(group) or held >= set(group) for group in (names[:2], names[2:5], names[5:15]))
    assert not split_by_hash(names, 0, 0.2, [many]) & set(many)  # more than a fifth
    assert split_by_hash(names, 0, 0.2, [names[:10], names[10:]]) in (set(names[:10]), set(names[10:]))
    assert split_by_hash(names, 0, 0.2, [names]) == set()
    assert split_by_hash(["a"], 0, 0.2) == set()
