"""Rows in memory make the set that their images make as files, whatever form they come in."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alexnet.core.errors import DataError
from alexnet.data.check import check
from alexnet.data.named import find_source
from alexnet.data.packed import PackedSet
from alexnet.data.prepare import prepare
from odd_images import RGB, png

PICTURES = [np.roll(RGB, (i, 3 * i), (0, 1)) for i in range(12)]
ROWS = [{"image": png(pixels, 2), "label": i % 2} for i, pixels in enumerate(PICTURES)]


def stored(packed: PackedSet) -> dict[str, list[tuple[bytes, int]]]:
    """The pixels and labels of each split."""
    return {split: [(np.asarray(x).tobytes(), y) for x, y in packed.split(split)] for split in packed.splits}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[bytes, int]]]:
    """Of the same pictures in a folder, by their names as the rows have them."""
    folder = tmp_path_factory.mktemp("rows")
    for i, row in enumerate(ROWS):
        place = folder / "set" / ("train" if i < 8 else "val") / str(row["label"])
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i:06d}.png").write_bytes(row["image"])
    packed = stored(prepare(folder / "set", folder / "packed", size=8, workers=1))
    return {split: sorted(images) for split, images in packed.items()}


@pytest.mark.parametrize("form", ["bytes", "path", "Pillow", "array", "tensor", "struct"])
def test_images_in_every_form_are_those_of_files(form: str, expected: Any, tmp_path: Any) -> None:
    def image(i: int) -> Any:
        if form == "path":
            (tmp_path / f"{i}.png").write_bytes(ROWS[i]["image"])
            return tmp_path / f"{i}.png"
        if form == "tensor":
            torch = pytest.importorskip("torch")
            return torch.from_numpy(PICTURES[i].copy()).permute(2, 0, 1)
        return {
            "bytes": ROWS[i]["image"],
            "Pillow": Image.open(io.BytesIO(ROWS[i]["image"])),
            "array": PICTURES[i],
            "struct": {"bytes": ROWS[i]["image"], "path": None},
        }[form]

    rows = [{"image": image(i), "label": np.int64(i % 2)} for i in range(12)]
    packed = prepare({"train": rows[:8], "validation": rows[8:]}, tmp_path / "packed", size=8, workers=2)
    assert {split: sorted(images) for split, images in stored(packed).items()} == expected
    assert packed.classes == ["0", "1"]
    again = prepare({"train": rows[:8], "validation": rows[8:]}, tmp_path / "packed", size=8)  # the same rows
    assert again.meta == packed.meta


def test_a_fifth_is_held_out_and_rows_without_a_label_are_not_used() -> None:
    source = find_source([*ROWS, {"image": ROWS[0]["image"], "label": None}, {"image": None, "label": -1}])
    assert (source.held_out, len(source.records)) == ("hash", 12)
    assert sorted(record.split for record in source.records).count("val") == 2
    assert "2 rows without a label are not used" in source.notes
    assert find_source(ROWS).fingerprint != find_source(ROWS[1:]).fingerprint


def test_a_row_that_cannot_be_read_is_named() -> None:
    spoiled = [
        {"image": image, "label": i % 2} for i, image in enumerate((None, b"", b"x", "no.png", 7, np.stack([RGB] * 2)))
    ]
    faults = {fault["path"]: fault["reason"] for fault in check(ROWS + spoiled)["faults"]}
    assert {path: reason.split(" (")[0] for path, reason in faults.items() if path.isdigit()} == {
        "000012": "missing",
        "000013": "empty",
        "000014": "not an image",
        "000015": "missing",
        "000016": "not an image",
        "000017": "not an image",
    }


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        (7, TypeError, "int is no set"),
        ([], DataError, "the set has no rows"),
        ({}, DataError, "the set has no rows"),
        ([("a.png", 0)], DataError, "the rows, row 0: a row that is tuple; a row is like"),
        ([{"a": b"", "b": b"", "label": 0}], DataError, "no column of images among a, b, label; call it image"),
        ([{"image": b""}], DataError, "no column of labels among image; call it label"),
        ([*ROWS, {"image": b""}], DataError, "row 12: a row with image; every row must have image and label"),
        ([*ROWS, {"image": b"", "label": "cat"}], DataError, "labels are numbers in some rows and names in others"),
        ([*ROWS, {"image": b"", "label": 0.5}], DataError, "row 12: its label is 0.5"),
        ({"train": ROWS, "extra": ROWS}, DataError, "split extra is not train, validation or test"),
        ({"train": "photos"}, TypeError, "str is no set"),
    ],
)
def test_what_is_no_set_is_refused(given: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        find_source(given)


def test_datasets_of_the_library_keep_their_class_names_and_stored_bytes(expected: Any, tmp_path: Any) -> None:
    datasets = pytest.importorskip("datasets", reason="the datasets library is not installed")
    names = ["wolf", "cat"]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})

    def dataset(rows: Any) -> Any:
        images = [{"bytes": row["image"], "path": None} for row in rows]
        return datasets.Dataset.from_dict({"image": images, "label": [row["label"] for row in rows]}, features=features)

    given = datasets.DatasetDict(train=dataset(ROWS[:8]).with_format("numpy"), validation=dataset(ROWS[8:]))
    source = find_source(given)
    assert [record.read() for record in source.records] == [row["image"] for row in ROWS]
    packed = prepare(given, tmp_path / "packed", size=8, workers=2)
    assert packed.classes == names
    assert {split: sorted(images) for split, images in stored(packed).items()} == expected
    assert find_source(dataset(ROWS)).held_out == "hash"
    with pytest.raises(TypeError, match="load it without streaming=True"):
        find_source(dataset(ROWS).to_iterable_dataset())
    other = dataset(ROWS).cast_column("label", datasets.ClassLabel(names=["a", "b"]))
    with pytest.raises(DataError, match="test: other names of classes than in train"):
        find_source({"train": given["train"], "test": other})
