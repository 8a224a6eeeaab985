"""Sections of the probes: figures, pictures of a bearable size, and a word for what is missing or damaged."""

from __future__ import annotations

import base64
import io
import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from alexnet.report import inside
from alexnet.report.inside import AS_IT_IS_BYTES, MAX_WIDTH, read_sections
from alexnet.report.pictures import save_figure, show_at


def noise(path: Path, width: int, height: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def decoded(source: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))


def test_nothing_made_is_nothing_shown(tmp_path: Path) -> None:
    faults: list[str] = []
    assert read_sections(tmp_path / "absent", faults) == []
    assert faults == []


def leave(folder: Path, name: str, **document: object) -> None:
    """What a probe of this name leaves."""
    (folder / f"{name}.json").write_text(json.dumps({"probe": name, **document}))


def test_a_section_has_the_pictures_that_it_names_or_whose_names_begin_like_it(tmp_path: Path) -> None:
    for name in ("maps-b.png", "maps.png", "maps-a.png", "kernels.png", "kernels-of-my-own.png", "unknown.png"):
        noise(tmp_path / name, 3, 2)
    title = "What the channels answer to"
    leave(tmp_path, "maps", title=title, place=2, pictures={"maps-a.png": "Words"})
    leave(tmp_path, "kernels", place=0, files=["kernels.png", "kernels.npy", "../maps.png", 3])
    kernels, maps = read_sections(tmp_path, [])
    assert (kernels.name, maps.name) == ("kernels", "maps")
    said = [picture.text for picture in maps.pictures]
    assert said == ["What the channels answer to (maps)", "Words", "What the channels answer to (maps-b)"]
    assert [len(section.pictures) for section in (kernels, maps)] == [1, 3]


@pytest.mark.parametrize(
    ("document", "figures"),
    [
        ({"summary": {"error": 0.123456, "images": 2500, "layer": "fc7"}, "n": 9},
         [("error", "0.1235"), ("images", "2,500"), ("layer", "fc7")]),
        ({"n": 2500, "seed": 0, "error": 0.5, "model": "ab", "knn": {"k": 1}, "flag": True}, [("n", "2,500"), ("error", "0.5")]),
        ({"summary": {"a": None, "b": [1], "c": True, "d": float("nan"), "e": 10**400}}, []),
        ({"summary": [1, 2]}, []),
    ],
)  # fmt: skip
def test_figures_are_those_of_the_summary_or_the_numbers_at_the_top(
    tmp_path: Path, document: dict[str, object], figures: list[tuple[str, str]]
) -> None:
    (tmp_path / "linear.json").write_text(json.dumps(document))
    (section,) = read_sections(tmp_path, [])
    assert section.figures == figures


def test_a_small_picture_stays_as_it_is_and_a_large_one_is_reduced(tmp_path: Path) -> None:
    leave(tmp_path, "maps")
    noise(tmp_path / "maps-1.png", 20, 10)
    noise(tmp_path / "maps-2.png", 2 * MAX_WIDTH, 100)
    (section,) = read_sections(tmp_path, [])
    small, large = section.pictures
    assert small.source == "data:image/png;base64," + base64.b64encode((tmp_path / "maps-1.png").read_bytes()).decode()
    assert (small.width, small.height) == (20, 10)
    assert (tmp_path / "maps-2.png").stat().st_size > AS_IT_IS_BYTES
    assert decoded(large.source).format == "WEBP"
    assert decoded(large.source).size == (large.width, large.height) == (MAX_WIDTH, 50)


def test_transparency_becomes_white(tmp_path: Path) -> None:
    leave(tmp_path, "maps")
    Image.new("RGBA", (2 * MAX_WIDTH, 20), (0, 0, 0, 0)).save(tmp_path / "maps.png")
    (section,) = read_sections(tmp_path, [])
    assert np.asarray(decoded(section.pictures[0].source).convert("L")).min() > 250


def test_pictures_beyond_the_room_of_a_page_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(tmp_path, "maps")
    noise(tmp_path / "maps-1.png", 20, 20)
    noise(tmp_path / "maps-2.png", 20, 20)
    monkeypatch.setattr(inside, "ROOM_BYTES", 2000)  # one has 1,200 bytes of noise
    faults: list[str] = []
    (section,) = read_sections(tmp_path, faults)
    assert len(section.pictures) == 1
    assert len(faults) == 1
    assert "probes/maps-2.png is left out" in faults[0]


def png(width: int, height: int) -> bytes:
    """A PNG file that says it is so large, and holds nothing."""
    head = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    chunk = (13).to_bytes(4, "big") + head + zlib.crc32(head).to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IEND\xaeB`\x82"


@pytest.mark.parametrize(
    "content",
    [b"", b"<svg onload=alert(1)>", png(100_000, 100_000), png(10, 10), b"GIF89a\x01\x00\x01\x00\x00\x00\x00;"],
)
def test_what_is_no_sound_png_is_named(tmp_path: Path, content: bytes) -> None:
    leave(tmp_path, "tsne")
    (tmp_path / "tsne.png").write_bytes(content)
    faults: list[str] = []
    (section,) = read_sections(tmp_path, faults)
    assert section.pictures == []
    assert len(faults) == 1
    assert faults[0].startswith("probes/tsne.png is not readable: not a sound PNG file")


def test_a_damaged_json_is_named_and_its_pictures_are_shown(tmp_path: Path) -> None:
    noise(tmp_path / "tsne.png", 3, 2)
    (tmp_path / "tsne.json").write_text('{"n": ')
    faults: list[str] = []
    (section,) = read_sections(tmp_path, faults)
    assert (len(section.pictures), section.figures, section.provenance) == (1, [], [])
    assert len(faults) == 1
    assert faults[0].startswith("tsne.json is not readable")


def test_probes_of_different_models_are_named(tmp_path: Path) -> None:
    for name, model in (("codes", "aa"), ("tsne", "bb"), ("linear", "bb")):
        (tmp_path / f"{name}.json").write_text(json.dumps({"n": 1, "model": model}))
    faults: list[str] = []
    assert len(read_sections(tmp_path, faults)) == 3
    assert faults == ["the probes codes and tsne looked at different models; run the older ones again"]


def test_a_pipe_is_not_opened_as_a_picture(tmp_path: Path) -> None:
    leave(tmp_path, "maps")
    os.mkfifo(tmp_path / "maps.png")
    faults: list[str] = []
    (section,) = read_sections(tmp_path, faults)
    assert section.pictures == []
    assert "probes/maps.png is not readable" in faults[0]


def test_what_numbers_in_a_picture_stand_for_is_below_it(tmp_path: Path) -> None:
    for name in ("tsne.png", "tsne-thumbnails-fc7.png"):
        noise(tmp_path / name, 3, 2)
    (tmp_path / "tsne.json").write_text(json.dumps({"numbered": {"tsne.png": {"[1]": "猫", "[2]": "狗"}}}))
    (section,) = read_sections(tmp_path, [])
    assert [picture.numbered for picture in section.pictures] == ["[1] 猫, [2] 狗", ""]


def test_photographs_are_told_from_what_a_dark_page_turns_dark(tmp_path: Path) -> None:
    figure = Figure(figsize=(2, 1))
    axes = figure.add_axes((0.5, 0, 0.5, 1))
    axes.set_axis_off()
    show_at(axes, np.full((2, 2, 3), 255, dtype=np.uint8), 0, 0, 2, 2)  # as white as the paper
    leave(tmp_path, "maps")
    save_figure(figure, tmp_path / "maps.png")
    noise(tmp_path / "maps-other.png", 3, 2)
    ((picture, other),) = (section.pictures for section in read_sections(tmp_path, []))
    assert (picture.is_plain, other.is_plain) == (False, True)
    opaque = np.asarray(decoded(picture.photographs))[..., 3] == 255
    assert opaque.shape == (150, 300)
    assert opaque[:, 150:].all()
    assert not opaque[:, :150].any()


@pytest.mark.parametrize(
    "said", ["", "a,b", "1,2,3", "9,9,1,1", "-1,0,5,5", "99999999999999999999,0,1,1", "0,0,\u0663,5"]
)
def test_wrong_places_of_photographs_are_passed_over(tmp_path: Path, said: str) -> None:
    leave(tmp_path, "maps")
    chunks = PngInfo()
    chunks.add_text("Photographs", said)
    Image.new("RGB", (4, 4)).save(tmp_path / "maps.png", pnginfo=chunks)
    (section,) = read_sections(tmp_path, [])
    assert len(section.pictures) == 1


def test_no_text_of_a_picture_is_below_nine_pixels_in_a_report(tmp_path: Path) -> None:
    for inches in (4.0, 13.0):
        figure = Figure(figsize=(inches, 1))
        text = figure.text(0, 0.5, "small", fontsize=3)
        save_figure(figure, tmp_path / "a.png")
        shown = min(1.0, 944 / (150 * inches))
        assert text.get_fontsize() * 150 / 72 * shown == pytest.approx(9)
