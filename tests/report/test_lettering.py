"""Names of any script in pictures, on a machine with a font that has their letters and on one without: both are simulated,
by a font made here whose only letter, 猫, is a filled square."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image

from alexnet.report import lettering
from alexnet.report.pictures import save_figure, save_pictures
from alexnet.report.pictures.inputs import draw_classes
from alexnet.report.pictures.neighbors import Tile, draw_neighbors
from alexnet.report.pictures.tsne import point_maps

FAMILY = "One Cat"
Fonts = Callable[..., None]


@pytest.fixture
def fonts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Fonts]:
    """``fonts(*families)``: those are all that the machine has, besides matplotlib's own."""
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [*font_manager.fontManager.ttflist])
    font_manager.fontManager.addfont(_one_cat(tmp_path / "cat.ttf"))

    def only(*families: str) -> None:
        monkeypatch.setattr(lettering, "machine_fonts", lambda: families)
        _forget()

    yield only
    _forget()


def _forget() -> None:
    lettering._fonts_for.cache_clear()
    lettering._font.cache_clear()


def _one_cat(path: Path) -> Path:
    pen = TTGlyphPen(None)
    for place, point in enumerate(((100, 0), (100, 800), (900, 800), (900, 0))):
        (pen.lineTo if place else pen.moveTo)(point)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "cat"])
    builder.setupCharacterMap({ord("猫"): "cat"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "cat": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "cat": (1000, 100)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": FAMILY, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


def _figure(*texts: str) -> Figure:
    figure = Figure(figsize=(2, 1))
    for i, text in enumerate(texts):
        figure.text(0.1, 0.1 + 0.3 * i, text, fontsize=30, parse_math=False)
    return figure


def _texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def test_a_letter_is_drawn_by_a_font_that_has_it(fonts: Fonts, tmp_path: Path) -> None:
    fonts(FAMILY)
    figure = _figure("猫")
    assert save_figure(figure, tmp_path / "cat.png") == {}
    assert _texts(figure) == ["猫"]
    with Image.open(tmp_path / "cat.png") as image:
        ink = np.asarray(image.convert("L")) < 128
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    square = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert square.mean() > 0.97  # the missing-letter box of any font is hollow
    assert square.shape == pytest.approx((50, 50), abs=2)  # 0.8 of 30 points at 150 pixels an inch


def test_where_no_font_has_the_letters_numbers_stand_for_names(fonts: Fonts, tmp_path: Path) -> None:
    fonts()
    figure = _figure("猫", "cat 狗, 90%\n(is 猫)", "고양이 방")
    assert save_figure(figure, tmp_path / "a.png") == {"[1]": "猫", "[2]": "狗", "[3]": "고양이 방"}
    assert _texts(figure) == ["[1]", "cat [2], 90%\n(is [1])", "[3]"]


def test_a_font_with_some_of_the_letters_leaves_numbers_for_the_others(fonts: Fonts, tmp_path: Path) -> None:
    fonts(FAMILY)
    figure = _figure("猫", "狗")
    assert save_figure(figure, tmp_path / "a.png") == {"[1]": "狗"}
    assert _texts(figure) == ["猫", "[1]"]


@pytest.mark.parametrize("name", ["Jalapeño", "Łódź", "Ψυχή", "Ёжик", "Tiếng Việt", "naïve ☂", "ﬁsh"])
def test_accents_greek_and_cyrillic_need_no_font_of_the_machine(fonts: Fonts, tmp_path: Path, name: str) -> None:
    fonts()
    figure = _figure(name)
    assert save_figure(figure, tmp_path / "a.png") == {}
    assert _texts(figure) == [name]


def test_an_accent_of_its_own_is_drawn_on_its_letter(fonts: Fonts, tmp_path: Path) -> None:
    fonts()
    for file, name in (("one.png", "Cafe\u0301"), ("two.png", "Caf\u00e9")):
        save_figure(_figure(name), tmp_path / file)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_an_emoji_is_numbered_with_all_that_it_is_joined_from(fonts: Fonts, tmp_path: Path) -> None:
    fonts()
    assert list(save_figure(_figure("a \U0001f9d1\u200d\U0001f52c b"), tmp_path / "a.png")) == ["[1]"]


def test_the_screen_says_in_one_line_what_the_numbers_are(
    fonts: Fonts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fonts()
    numbered = save_pictures(tmp_path, {"a.png": _figure("猫", "狗"), "b.png": _figure("plain")})
    assert numbered == {"a.png": {"[1]": "猫", "[2]": "狗"}}
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("a.png: no font")
    assert "[1] 猫, [2] 狗" in said[0]


def test_every_picture_with_names_keeps_them_apart(fonts: Fonts, tmp_path: Path) -> None:
    names = ["猫", "狗", "猫头鹰"]
    rate = {"n": 4, "count": 1, "rate": 0.25, "low": 0.1, "high": 0.6}
    tile = Tile(np.zeros((4, 4, 3), np.uint8), "猫")
    about = {"neighbor_purity": 0.5, "neighbor_purity_chance": 0.3, "silhouette": 0.0, "trustworthiness": 0.9}
    pictures: dict[str, Callable[[], Figure]] = {
        "classes": lambda: draw_classes({"classes": [{"name": n, **rate} for n in names], "error": rate}),
        "neighbors": lambda: draw_neighbors(
            [(tile, [[Tile(None, "狗"), Tile(None, "猫头鹰")]])], ["nearest"], legend=True
        ),
        "tsne": lambda: point_maps(
            {
                "maps": {"fc7": about},
                "points": {"label": [0, 1, 2], "maps": {"fc7": [[0, 0], [1, 1], [2, 0]]}},
                "classes": names,
                "data": {"split": "val"},
            }
        ),
    }
    for name, draw in pictures.items():
        fonts()
        numbers = save_figure(draw(), tmp_path / f"{name}-numbered.png")
        assert sorted(numbers.values()) == sorted(names), name
        fonts(FAMILY)
        assert "猫" not in save_figure(draw(), tmp_path / f"{name}.png").values()


@pytest.mark.parametrize(
    ("name", "columns", "shown"),
    [
        ("cat", 3, "cat"),
        ("caterpillar", 5, "cate…"),
        ("猫头鹰", 6, "猫头鹰"),
        ("猫头鹰", 5, "猫头…"),
        ("e\u0301e\u0301e", 3, "éée"),
    ],
)
def test_names_are_cut_to_columns(name: str, columns: int, shown: str) -> None:
    assert lettering.shortened(name, columns) == shown


def test_a_font_installed_since_is_found_and_one_of_boxes_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [*font_manager.fontManager.ttflist])
    path = _one_cat(tmp_path / "new.ttf")
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [str(path), str(tmp_path / "damaged.ttf")])
    (tmp_path / "damaged.ttf").write_bytes(b"no font")
    found = lettering.machine_fonts.__wrapped__()
    assert FAMILY in found
    assert not [name for name in found if name.startswith("Last Resort")]
