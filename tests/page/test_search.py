"""Search in an index as the page does it: by features, by pixels and by codes, each as computed by hand."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rooms import room_of

from alexnet.core.errors import ImageError, UsageError
from alexnet.core.preprocessing import Preprocessing
from alexnet.page import search
from alexnet.page.room import Room
from alexnet.probes import autoencoder
from alexnet.probes import search as indexes
from alexnet.probes.search import add_to_index, build_index

INPUT = Preprocessing(resize=28, crop=28, mean="none", scale=1 / 255)


def draw(folder: Path, num: int, seed: int = 0) -> list[np.ndarray]:
    folder.mkdir(exist_ok=True)
    drawn = []
    for i in range(num):
        drawn.append(np.random.default_rng(seed + i).integers(0, 256, (28, 28, 3), dtype=np.uint8))
        Image.fromarray(drawn[-1]).save(folder / f"{i:03d} 山羊.png", compress_level=0)
    return drawn


def open_with_index(folder: Path, **options: str) -> Room:
    room = room_of("lenet", folder / "cache", preprocessing=INPUT, in_channels=3, num_classes=3)
    options = {"layer": "c1", "metric": "cosine"} | options
    index = build_index(room.predictor, [folder / "pictures"], folder / "index", model=folder, **options)
    return replace(room, index=index)


def test_matches_by_features_and_by_pixels_are_those_computed_by_hand(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "PART", 7)
    drawn = np.stack(draw(tmp_path / "pictures", 20))
    room = open_with_index(tmp_path)
    query = (
        (drawn[5].astype(int) + np.random.default_rng(9).integers(-60, 60, drawn[5].shape))
        .clip(0, 255)
        .astype(np.uint8)
    )
    found = search.matches(room, query)

    by_features = found["features"]["matches"]
    feature_ND = room.predictor.embed([*map(Image.fromarray, drawn)], "c1").astype(float)
    query_D = room.predictor.embed(Image.fromarray(query), "c1").astype(float)
    lengths = np.linalg.norm(feature_ND, axis=1) * np.linalg.norm(query_D)
    distance_N = 1 - feature_ND @ query_D / lengths
    assert found["features"]["metric"] == "cosine"
    assert [match["number"] for match in by_features] == np.argsort(distance_N)[:12].tolist()
    np.testing.assert_allclose([m["distance"] for m in by_features], np.sort(distance_N)[:12], atol=1e-4)  # of float16

    by_pixels = found["pixels"]["matches"]
    rms_N = np.sqrt(np.square(drawn.astype(float) - query).mean(axis=(1, 2, 3))) / 255
    assert (found["pixels"]["images"], found["pixels"]["of"]) == (20, 20)
    assert [match["number"] for match in by_pixels] == np.argsort(rms_N)[:12].tolist()
    np.testing.assert_allclose([match["distance"] for match in by_pixels], np.sort(rms_N)[:12], rtol=1e-5)
    first = {key: by_pixels[0][key] for key in ("name", "folder", "gone", "changed")}
    assert first == {"name": "005 山羊.png", "folder": "pictures", "gone": False, "changed": False}
    assert found["codes"] is None
    assert search.matches(room, drawn[3])["pixels"]["matches"][0]["distance"] == 0


def test_pictures_in_an_archive_are_shown_as_those_of_files(tmp_path):
    draw(tmp_path / "pictures", 3)
    room = open_with_index(tmp_path)
    with zipfile.ZipFile(tmp_path / "山羊.zip", "w") as archive:
        for file in sorted((tmp_path / "pictures").iterdir()):
            archive.write(file, f"goats/{file.name}")
    index = build_index(
        room.predictor, [tmp_path / "山羊.zip"], tmp_path / "second", model=tmp_path, layer="c1", metric="cosine"
    )
    packed = replace(room, index=index)
    assert search.thumbnail(packed, 1) == search.thumbnail(room, 1)
    found = search.matches(packed, np.zeros((28, 28, 3), np.uint8))
    assert found["pixels"]["images"] == 3
    assert {match["folder"] for match in found["features"]["matches"]} == {"goats"}
    (tmp_path / "山羊.zip").unlink()
    assert all(
        match["gone"] for match in search.matches(packed, np.zeros((28, 28, 3), np.uint8))["features"]["matches"]
    )
    with pytest.raises(ImageError, match="missing"):
        search.thumbnail(packed, 1)


def test_thumbnails_are_made_a_little_at_a_time_and_go_on_after_a_restart(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "PART", 4)
    monkeypatch.setattr(search, "SECONDS", 0.0)
    pixels = draw(tmp_path / "pictures", 10)[0]
    room = open_with_index(tmp_path)
    assert search.matches(room, pixels)["pixels"]["images"] == 0
    monkeypatch.setattr(search, "SECONDS", 60.0)
    assert search.matches(room, pixels)["pixels"]["images"] == 10
    files = sorted(room.cache.rglob("*.npz"))
    made = [file.stat().st_mtime_ns for file in files]
    files[1].write_bytes(b"damaged")
    assert len(search.matches(room, pixels)["pixels"]["matches"]) == 6  # what was damaged is found out
    again = open_with_index_again(room)
    assert len(search.matches(again, pixels)["pixels"]["matches"]) == 10
    assert [file.stat().st_mtime_ns for file in (files[0], files[2])] == [made[0], made[2]]


def open_with_index_again(room: Room) -> Room:
    assert room.index is not None
    return replace(room, index=indexes.open_index(room.index.folder))


def test_files_that_are_gone_or_have_changed_are_marked(tmp_path):
    drawn = draw(tmp_path / "pictures", 6)
    room = open_with_index(tmp_path)
    files = sorted((tmp_path / "pictures").iterdir())
    files[1].unlink()
    Image.new("RGB", (90, 50), "red").save(files[2])
    files[3].write_bytes(b"no picture")
    found = search.matches(room, drawn[1])
    about = {match["number"]: match for match in found["features"]["matches"]}
    assert [number for number, match in about.items() if match["gone"]] == [1]
    assert sorted(number for number, match in about.items() if match["changed"]) == [2, 3]
    assert sorted(match["number"] for match in found["pixels"]["matches"]) == [0, 2, 4, 5]
    red = Image.open(io.BytesIO(search.thumbnail(room, 2)))
    assert red.format == "JPEG"
    assert red.size == (224, 224)
    for number in (1, 3):
        with pytest.raises(ImageError, match=f"{number:03d} "):
            search.thumbnail(room, number)
    for number in (6, -1, 10**8):
        with pytest.raises(UsageError, match=f"the index has no picture {number:,}; its 6 pictures".replace(",0", "0")):
            search.thumbnail(room, number)


def test_a_file_that_was_indexed_again_is_found_once(tmp_path):
    draw(tmp_path / "pictures", 3)
    room = open_with_index(tmp_path)
    (new,) = draw(tmp_path / "pictures", 1, seed=50)
    room = replace(room, index=add_to_index(room.index, room.predictor, [tmp_path / "pictures"]))
    found = search.matches(room, new)
    for space in ("features", "pixels"):
        assert sorted(match["number"] for match in found[space]["matches"]) == [1, 2, 3]
        assert found[space]["matches"][0]["number"] == 3


def test_codes_are_compared_where_the_index_has_them(tmp_path, monkeypatch):
    monkeypatch.setattr(autoencoder, "STEPS", 40)
    monkeypatch.setattr(indexes, "COMPARED", 15)
    drawn = draw(tmp_path / "pictures", 40)
    room = open_with_index(tmp_path, kind="codes", layer="s4")
    found = search.matches(room, drawn[7])
    assert found["codes"]["bits"] == 40
    nearest = found["codes"]["matches"][0]
    assert nearest["distance"] == 0
    assert 7 in [match["number"] for match in found["codes"]["matches"] if match["distance"] == 0]
    assert all(match["distance"] * 40 % 1 == 0 for match in found["codes"]["matches"])
    exact = indexes.Index(room.index.folder, room.index.meta | {"kind": "exact"})
    shown = [match["number"] for match in found["features"]["matches"]]
    assert shown == [
        match["number"] for match in search.matches(replace(room, index=exact), drawn[7])["features"]["matches"]
    ]


def test_what_is_compared_is_read_once_and_compared_once(tmp_path, monkeypatch):
    monkeypatch.setattr(autoencoder, "STEPS", 4)
    monkeypatch.setattr(indexes, "COMPARED", 15)
    monkeypatch.setattr(search, "PART", 16)
    drawn = draw(tmp_path / "pictures", 40)
    room = open_with_index(tmp_path, kind="codes", layer="s4")
    first = search.matches(room, drawn[7])
    compared, really = [], indexes.Index.search_codes
    monkeypatch.setattr(search, "read_arrays", None)
    monkeypatch.setattr(indexes.Index, "search_codes", lambda *given: compared.append(1) or really(*given))
    again = search.matches(room, drawn[7])
    assert len(compared) == 1
    for space in ("pixels", "codes"):
        assert again[space]["matches"] == first[space]["matches"]
    assert again["pixels"]["images"] == 40


def test_without_an_index_a_search_says_how_to_start_one(tmp_path):
    room = room_of("lenet", tmp_path)
    with pytest.raises(UsageError, match="start `alexnet serve` with --index INDEX"):
        search.matches(room, np.zeros((28, 28, 1), np.uint8))


def test_thumbnails_are_averages():
    picture = np.zeros((1, 64, 64, 1), np.uint8)
    picture[0, :2, :2, 0] = [[10, 20], [30, 40]]
    assert search.small(picture)[0, :2].tolist() == [25, 0]
    assert search.small(picture).shape == (1, 32 * 32)
