"""Names with markup, control characters, line ends, terminal escapes and formulas come out of every verb as text on one line.

The pages themselves are tried with such strings in every field in tests/report and tests/claims; here they go the whole way,
from files and folders to terminals, CSV cells and the pages of runs."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from alexnet.cli import main
from alexnet.cli.shared import inert
from alexnet.core.console import Bar
from alexnet.core.errors import as_text, printable
from alexnet.data.prepare import prepare
from targets import SIZE, model_folder, pixels

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "\x1b[2J\x1b]0;owned\x07red",
    "two\nlines\r\n\x0bmore\x85\u2028end",
    "=cmd|' -C calc'!A0",
    "+1+1",
    "@SUM(A1)",
    "\t=1+1",
    "＝1+1",
    "\u202egpj.exe\u2066",
    "a,b;c\"d'e",
    "\udc80raw",
    "$\\frac{1}{$_^",
    "[bold][red]x[link=file:",
    "\x9b31mC1\x7f",
    "{{ 7*7 }}{% for x in y %}",
)
"""Each is a file name, too."""
CLASSES = tuple(sorted((*HOSTILE, "</title></style><svg onload=alert(1)>")))
MARK = "EXIF-MARK<script>alert(2)</script>\x1b[31m\n"


def assert_inert(text: str) -> None:
    """No character that moves a cursor, turns writing around or ends a line, but line ends of this program's own."""
    for character in set(text) - {"\n"}:
        assert unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"), repr(character)


@pytest.fixture
def alexnet(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Exit code and stdout of an invocation; both streams are inert."""

    def run(*arguments: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as exit:
            main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        assert_inert(out)
        assert_inert(err)
        return int(exit.value.code or 0), out

    return run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("hostile") / "[bold]\x1b[31m", classes=CLASSES)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of each hostile name, with hostile metadata; and a file of such a name that is no picture."""
    folder = tmp_path_factory.mktemp("photos")
    for i, name in enumerate(HOSTILE):
        save_marked(folder / name, i, SIZE)
    (folder / "\x1b[1mbad\n.png").write_text("text")
    return folder


def save_marked(path: Path, i: int, side: int) -> None:
    image, exif = Image.fromarray(pixels(i, side)), Image.Exif()
    exif[0x010E] = exif[0x013B] = MARK
    content = io.BytesIO()
    if i % 2:
        image.save(content, "JPEG", exif=exif, comment=MARK.encode(), quality=95)
    else:
        info = PngInfo()
        info.add_text("Comment", MARK)
        info.add_itxt(MARK[:20], MARK)
        image.save(content, "PNG", exif=exif, pnginfo=info)
    path.write_bytes(content.getvalue())


def test_answers_stand_on_one_line_each(
    model: Path, photos: Path, alexnet: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)  # so that a path begins with a formula
    code, out = alexnet("predict", model, *HOSTILE, "--device", "cpu", "--top", "2")
    assert code == 0
    assert len(out.splitlines()) == len(HOSTILE) * 3
    assert [line for line in out.splitlines() if not line.startswith("  ")] == [printable(name) for name in HOSTILE]


def test_csv_cells_are_read_back_and_are_no_formulas(
    model: Path, photos: Path, alexnet: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    code, out = alexnet("predict", model, *HOSTILE, "--device", "cpu", "--csv", "--top", len(CLASSES))
    assert code == 0
    assert len(out.splitlines()) == 1 + len(HOSTILE) * len(CLASSES)
    rows = list(csv.reader(io.StringIO(out), strict=True))[1:]
    assert list(dict.fromkeys(row[0] for row in rows)) == [inert(name) for name in HOSTILE]
    assert {row[2] for row in rows} == {inert(name) for name in CLASSES}
    for row in rows:
        assert len(row) == 4
        for cell in row:
            assert cell[:1] not in tuple("=+-@\t\r＝＋－＠")
            assert unicodedata.normalize("NFKC", cell)[:1] not in tuple("=+-@")


def test_json_gives_names_back_as_text(model: Path, photos: Path, alexnet: Callable[..., tuple[int, str]]) -> None:
    code, out = alexnet("predict", model, photos, "--device", "cpu", "--json", "--top", len(CLASSES))
    assert code == 4
    assert out.isascii()
    answers = json.loads(out)
    assert {Path(answer["path"]).name for answer in answers} == {*map(as_text, HOSTILE), "\x1b[1mbad\n.png"}
    assert {p["class"] for answer in answers for p in answer["predictions"]} == set(map(as_text, CLASSES))


def test_verbs_that_list_names_print_them_as_text(
    model: Path, photos: Path, tmp_path: Path, alexnet: Callable[..., tuple[int, str]]
) -> None:
    folder = tmp_path / "set\x1b[2J"
    for n, name in enumerate(HOSTILE):
        (folder / name).mkdir(parents=True)
        for i in range(3):
            save_marked(folder / name / f"{name}{i}", 3 * n + i, SIZE)
    (folder / HOSTILE[0] / "\x07no picture\n.jpg").write_text("text")
    code, out = alexnet("check", folder, "--workers", "1")
    assert code == 4
    assert "fault: <img src=x onerror=alert(1)>/\\x07no picture\\n.jpg: not an image" in out
    packed = tmp_path / "packed\n"
    code, out = alexnet("prepare", folder, packed, "--size", SIZE, "--workers", "1", "--max-bad", "0.5")
    assert code == 0
    assert "rejected <img src=x onerror=alert(1)>/\\x07no picture\\n.jpg: not an image" in out
    for file in packed.rglob("*"):  # metadata of images goes nowhere
        assert not file.is_file() or b"EXIF-MARK" not in file.read_bytes(), file
    assert alexnet("check", packed)[0] == 0
    assert alexnet("info", model)[0] == 0
    assert alexnet("predict", tmp_path / "<b>\x1b[31mnone\n", photos)[0] == 1
    assert alexnet("\x1b[31mverb\n")[0] == 2
    assert alexnet("check", tmp_path / "x\x1b[31m\n")[0] == 4


def test_foreign_verdicts_are_printed_as_text(tmp_path: Path, alexnet: Callable[..., tuple[int, str]]) -> None:
    name = "\x1b[31mred\u202e\n"
    comparison = {
        "claim": "C13",
        "says": name,
        "unit": "points",
        "printed": 0.4,
        "diverged": {},
        "n": 2,
        "verdict": name,
    }
    comparison |= {"effect": 1.0, "low": 0.1, "high": 2.0}
    document = {"experiment": "overlap", "scale": "cifar10", "command": name, "arms": {}, "comparisons": [comparison]}
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / "overlap.json").write_text(json.dumps(document))
    code, out = alexnet("claims", "list", "C13", "--out", tmp_path)
    assert code == 0
    assert "\\x1b[31mred\\u202e" in out


@pytest.mark.parametrize("name", [*HOSTILE, "[/bold]x"])
def test_a_bar_on_a_terminal_shows_names_as_text(name: str, on_a_terminal: Callable[[int, Callable], str]) -> None:
    def work() -> None:
        with Bar(f"prepare {printable(name)}", 10) as bar:
            bar.update(3, printable(name))
            bar.live.refresh()

    seen = on_a_terminal(300, work)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)  # rich's own
    assert f"prepare {printable(name)}" in plain
    assert "\x07" not in plain
    assert "\x1b]0;" not in plain


# The pages of a run that was trained on all this -----------------------------------------------------------------------


class Page(HTMLParser):
    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run on classes, files and metadata with hostile strings, in a folder with such a name."""
    root = tmp_path_factory.mktemp("hostile-run")
    source = root / "photos"
    for split, num in (("train", 5), ("val", 2)):
        for k, name in enumerate(HOSTILE[:6]):
            (source / split / name).mkdir(parents=True)
            for i in range(num):
                save_marked(source / split / name / f"{HOSTILE[(k + i) % len(HOSTILE)]}{i}", 50 * k + i, 40)
    prepare(source, root / "packed", size=36, workers=1)
    folder = root / "<img src=x onerror=alert(1)>\x1b[31m"
    tiny = (
        "--size 36 --preprocessing.resize 36 --preprocessing.crop 32 --model.input-size 32 --model.fc-units 16 16 "
        "--model.conv-channels 8 8 8 8 8 --model.conv-kernels 5 3 3 3 3 --model.conv-padding 2 1 1 1 1 "
        "--epochs 1 --batch-size 8 --device cpu"
    ).split()
    with pytest.raises(SystemExit) as exit:
        main(["train", "quickstart", "--data", str(root / "packed"), "--out", str(folder), *tiny])
    assert exit.value.code == 0
    yield folder
    shutil.rmtree(root)


@pytest.mark.long
def test_the_pages_of_a_run_hold_nothing_foreign(
    run: Path, tmp_path: Path, alexnet: Callable[..., tuple[int, str]]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    assert alexnet("report", run, other, "--out", tmp_path / "both.html")[0] == 0
    for file in (run / "report.html", tmp_path / "both.html"):
        source = file.read_text("utf-8")
        assert_inert(source.replace("\t", ""))
        page = Page(source)
        assert page.elements.count("script") == 1
        assert not {"svg"} & {e for e, n in zip(page.elements, page.elements[1:], strict=False) if n == "script"}
        assert not {"iframe", "object", "embed", "link", "base", "form"} & set(page.elements)
        for name, value in page.attributes:
            assert not name.startswith("on"), (name, value)
            if name in ("src", "href"):
                assert value is not None
                assert value.startswith(("data:image/png;base64,", "data:image/webp;base64,", "#")), value[:80]
                if value.startswith("data:"):
                    content = base64.b64decode(value.partition(",")[2])
                    assert b"EXIF-MARK" not in content
                    assert not Image.open(io.BytesIO(content)).getexif()
        assert "EXIF-MARK" not in source
        assert "<img src=x onerror=alert(1)>" in page.text  # as text, where a name belongs
    for file in run.rglob("*"):
        assert not file.is_file() or b"EXIF-MARK" not in file.read_bytes(), file


@pytest.mark.long
def test_every_verb_on_that_run_prints_text_and_draws_it(
    run: Path, photos: Path, tmp_path: Path, alexnet: Callable[..., tuple[int, str]]
) -> None:
    assert alexnet("evaluate", run, "--device", "cpu")[0] == 0
    assert alexnet("features", run, "--out", tmp_path / "f", "--device", "cpu")[0] == 0
    assert alexnet("index", run, photos, "--out", tmp_path / "index", "--device", "cpu")[0] == 4  # one is no picture
    code, out = alexnet(
        *("search", tmp_path / "index", *(photos / name for name in HOSTILE), "--device", "cpu"),
        *("--picture", tmp_path / "found.png", "--top", "3"),
    )
    assert code == 0
    assert len(out.splitlines()) == len(HOSTILE) * 4 + 1
    with Image.open(tmp_path / "found.png") as picture:
        assert picture.width > 100
    for kind in ("kernels", "towers"):
        assert alexnet("probe", kind, run, "--device", "cpu")[0] == 0
    assert alexnet("probe", "saliency", run, "--device", "cpu", "--images", "8")[0] in (0, 2)
    summary: list[dict[str, Any]] = list(csv.DictReader((run / "summary.csv").read_text().splitlines(), strict=True))
    assert len(summary) == 1
    assert np.isfinite(float(summary[0]["train_loss"]))
