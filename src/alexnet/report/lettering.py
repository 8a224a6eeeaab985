"""Names of any script in pictures: written in a font of this machine that has their letters, by numbers where none has them."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

from alexnet.core.errors import printable

FIRST = "DejaVu Sans"
"""The font that comes with matplotlib; it has Latin letters with accents, Greek and Cyrillic."""
PLACEHOLDERS = ("last resort", "adobe blank", "adobe notdef")
"""Fonts that show a box, or nothing, for every letter."""
REGIONS = (("\u3040", "\u30ff", " JP"), ("\u1100", "\u11ff", " KR"), ("\uac00", "\ud7a3", " KR"))
"""Letters that tell which of a family's national forms of Chinese characters to take; else the simplified ones."""


def write_names(figure: Figure) -> dict[str, str]:
    """Give every text of ``figure`` fonts that have its letters. Letters that no font of this machine has become a number, the
    same one wherever they stand in the figure: returned is what each number stands for, ``{"[1]": "猫"}``, empty as a
    rule."""
    numbers: dict[str, str] = {}
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            ticks = [tick.get_text() for tick in axis.get_ticklabels()]
            written = [_written(text, numbers) for text in ticks]
            if written != ticks:
                axis.set_ticklabels(written)  # not on each label: the axis would forget it
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_text(_written(text.get_text(), numbers))
        if more := _families(text.get_text()):
            text.set_fontfamily([FIRST, *more])
    return {number: letters for letters, number in numbers.items()}


def shortened(name: str, columns: int) -> str:
    """A foreign name on one line, of at most so many columns, of which a Chinese character takes two and an accent none."""
    letters = [(letter, _columns(letter)) for letter in unicodedata.normalize("NFC", printable(name))]
    if sum(width for _, width in letters) <= columns:
        return "".join(letter for letter, _ in letters)
    kept, room = "", columns - 1
    for letter, width in letters:
        if width > room:
            break
        kept, room = kept + letter, room - width
    return kept.rstrip() + "…"


def _columns(letter: str) -> int:
    if unicodedata.category(letter) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def _written(text: str, numbers: dict[str, str]) -> str:
    """``text`` with each row of letters that no font has as its number, which ``numbers`` has or gets."""
    text = unicodedata.normalize("NFC", text)
    lacking = _foreign(text)
    if lacking:
        lacking = set(_fonts_for(frozenset(lacking))[1])
    if not lacking:
        return text
    written, row = "", ""
    for letter in text + "\n":
        if letter in lacking or (row and (letter == " " or _joins(letter))):
            row += letter
            continue
        if said := row.rstrip():
            written += numbers.setdefault(said, f"[{len(numbers) + 1}]") + row[len(said) :]
        written, row = written + letter, ""
    return written[:-1]


def _families(text: str) -> tuple[str, ...]:
    foreign = _foreign(text)
    return _fonts_for(frozenset(foreign))[0] if foreign else ()


def _foreign(text: str) -> set[str]:
    """The letters that the first font does not have. Marks without a look of their own need no font."""
    return {letter for letter in set(text) - _has(FIRST, text) if not _is_invisible(letter)}


def _joins(letter: str) -> bool:
    """Whether it belongs to the letter before it."""
    return unicodedata.combining(letter) > 0 or (_is_invisible(letter) and not letter.isspace())


def _is_invisible(letter: str) -> bool:
    return letter.isspace() or unicodedata.category(letter) in ("Cf", "Cc") or "\ufe00" <= letter <= "\ufe0f"


@cache
def _fonts_for(letters: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Families that have these letters, as few as will do, and the letters that none has."""
    region = next((end for low, high, end in REGIONS if any(low <= letter <= high for letter in letters)), " SC")
    families = sorted(machine_fonts(), key=lambda family: not family.endswith(region))
    chosen: list[str] = []
    while letters and families:
        best = max(families, key=lambda family: len(_has(family, letters)))  # the first of equals
        if not (found := _has(best, letters)):
            break
        chosen.append(best)
        letters -= found
    return tuple(chosen), letters


@cache
def machine_fonts() -> tuple[str, ...]:
    """The families on this machine, the plainest first; also those installed since matplotlib made its list."""
    manager = font_manager.fontManager
    known = {str(entry.fname) for entry in manager.ttflist}
    for path in font_manager.findSystemFonts():
        if path not in known:
            with suppress(Exception):  # whatever a damaged font raises; bitmap fonts are refused
                manager.addfont(path)
    families = {entry.name for entry in manager.ttflist if Path(entry.fname).exists()}
    plain = [name for name in families if not name.lower().startswith(PLACEHOLDERS)]
    return tuple(sorted(plain, key=lambda name: (*_ornaments(name), name)))


def _ornaments(name: str) -> tuple[bool, ...]:
    words = name.lower().split()
    return ("mono" in words or "condensed" in words, "serif" in words, "sans" not in words)


@cache
def _font(family: str) -> FT2Font | None:
    try:
        with quiet_fonts():
            path = font_manager.findfont(font_manager.FontProperties(family=[family]), fallback_to_default=False)
            return font_manager.get_font(path)
    except Exception:  # a damaged font raises whatever it does
        return None


@contextmanager
def quiet_fonts() -> Iterator[None]:
    """Without matplotlib's remarks on weights that a family does not have."""
    logger = logging.getLogger("matplotlib.font_manager")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _has(family: str, letters: Iterable[str]) -> set[str]:
    """Which of the letters a family has."""
    font = _font(family)
    return set() if font is None else {letter for letter in set(letters) if font.get_char_index(ord(letter))}


def legend(numbers: dict[str, str], most: int | None = None) -> str:
    """What the numbers stand for, in one line: ``[1] 猫, [2] 狗``."""
    shown: Sequence[tuple[str, str]] = list(numbers.items())[:most]
    rest = f", and {len(numbers) - len(shown):,} more" if len(numbers) > len(shown) else ""
    return ", ".join(f"{number} {printable(letters)}" for number, letters in shown) + rest
