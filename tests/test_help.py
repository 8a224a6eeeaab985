"""What --help says, of every verb, kind and recipe: its width, its order, its words, and that its examples are understood."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import tyro

import alexnet.cli.shared
from alexnet.cli import VERBS, main
from alexnet.cli.baseline import KINDS as BASELINES
from alexnet.cli.options import Option, options_of
from alexnet.cli.train import FIRST
from alexnet.probes import KINDS
from alexnet.recipes import RECIPES

OVERVIEWS = [(), ("train",), ("probe",), ("baseline",), ("claims",)]
PLACES = [
    *((verb,) for verb in VERBS if (verb,) not in OVERVIEWS),
    *(("probe", kind) for kind in KINDS),
    *(("baseline", kind) for kind in BASELINES),
    *(("claims", kind) for kind in ("list", "run", "report")),
    *(("train", recipe) for recipe in ("PHOTOS", *RECIPES)),
]
ROOT = Path(__file__).parents[1]
PAIRS = [("README.md", "README.zh.md"), ("docs/use.md", "docs/use.zh.md")]
"""The pages of commands, in English and Chinese."""
PAGES = [ROOT / english for english, _ in PAIRS]
PAGES += sorted(
    page for folder in ("learn", "do") for page in (ROOT / "docs" / folder).glob("*.md") if ".zh." not in page.name
)
"""In English; the Chinese ones have the same commands (below, and in test_docs.py)."""


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as exit:
        main(list(arguments))
    out, err = capsys.readouterr()
    assert (exit.value.code, err) == (0, "")
    return out


@pytest.fixture(autouse=True)
def _eighty(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def declared(place: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> list[Option]:
    """The options of a verb that its help explains."""
    seen: list[Option] = []

    def record(cls: type, *arguments: object, hidden: object = (), **settings: object) -> str:
        seen.extend(option for option in options_of(cls) if option.path not in hidden)  # type: ignore[operator]
        return ""

    monkeypatch.setattr(alexnet.cli.shared, "help_text", record)
    with pytest.raises(SystemExit):
        main([*place, "--help"])
    return seen


@pytest.mark.parametrize("place", [*OVERVIEWS, *PLACES], ids=" ".join)
def test_help_fits_eighty_columns_and_has_an_example(place, capsys):
    for flag in ("--help", "--help-all"):
        text = printed(capsys, *place, flag)
        assert [line for line in text.splitlines() if len(line) > 80 and not line.startswith("  alexnet ")] == []
        assert "usage: alexnet" in text
        assert place in OVERVIEWS or "\nexamples:\n  alexnet " in text
    assert place in OVERVIEWS or [a for a in examples_of(text) if len(a) > 78] == []


@pytest.mark.parametrize("place", PLACES, ids=" ".join)
def test_every_option_says_what_it_is_for(place, monkeypatch):
    """In a sentence of its own: not "Of the arithmetic.", and not nothing."""
    options = declared(place, monkeypatch)
    assert options
    for option in options:
        assert len(option.help.split()) > 1, option.name
        assert not re.match(r"(Do not )?of\b", option.help, re.IGNORECASE), f"{option.name}: {option.help}"
        assert "``" not in option.help
        if option.default is True:
            assert ".no-" in option.name or option.name.startswith("--no-")
            assert re.match(r"Do not (let|round|mirror|divide|make|keep|use) ", option.help), option.help


def examples_of(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if re.match(r"\s*(alexnet|torchrun) [a-z-]+ .*\S", line)]


class Understood(BaseException):
    """Raised when tyro has read a command line without an error."""


def understand(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read = tyro.cli

    def stop(*arguments: object, **settings: object) -> None:
        read(*arguments, **settings)  # type: ignore[call-overload]
        raise Understood

    monkeypatch.setattr(tyro, "cli", stop)
    words = shlex.split(re.sub(r"^torchrun .* -m ", "", command).partition(" > ")[0], comments=True)
    with pytest.raises(SystemExit if "--help" in words else Understood) as end:
        main(words[1:])
    assert getattr(end.value, "code", 0) == 0
    monkeypatch.undo()


@pytest.mark.parametrize("place", [*OVERVIEWS, *PLACES], ids=" ".join)
def test_every_example_is_understood(place, capsys, monkeypatch):
    examples = [line for line in examples_of(printed(capsys, *place, "--help")) if "VERB" not in line]
    for command in examples:
        understand(command, monkeypatch)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_every_command_of_the_pages_is_understood(page, monkeypatch):
    commands = examples_of(page.read_text(encoding="utf-8"))
    assert len(commands) > (10 if page in PAGES[: len(PAIRS)] else -1)
    for command in commands:
        understand(command, monkeypatch)


def test_the_help_of_train_has_what_people_need_first(capsys):
    text = printed(capsys, "train", "modern", "--help")
    lines = text.splitlines()
    assert len(lines) < 66
    names = [re.findall(r"--[\w.*-]+(?=[ ,]|$)", line[:26])[-1] for line in lines if re.match(r"  --?[a-z]", line)]
    assert names[: len(FIRST)] == ["--" + path.replace("_", "-") for path in FIRST]
    assert re.search(r"\n  -b, --batch-size N  +Images in one step", text)
    assert "\n  --lr, --optimizer.lr X " in text
    assert names[len(FIRST) :] == [
        f"--{g}.*" for g in ("model", "preprocessing", "augmentation", "optimizer", "schedule")
    ]
    assert "`alexnet train modern --help-all`" in text
    everything = printed(capsys, "train", "modern", "--help-all")
    assert "\n  --model.conv-channels N ...\n" in everything
    assert re.search(r"--augmentation.no-mirror +Do not mirror training images", everything)
    assert "num-classes" not in everything


def test_a_chosen_kind_is_explained(capsys):
    text = printed(capsys, "train", "paper2012", "--schedule.kind", "cosine", "--help")
    assert "  --schedule.warmup X       Number of epochs in which the rate rises from 0." in text
    assert "--schedule.patience" not in text
    assert "--schedule.patience N" in printed(capsys, "train", "paper2012", "--help-all")
    assert "{alexnet,lenet,cifar_local,cifar_conv}" in printed(capsys, "train", "modern", "--model:lenet", "--help")


def test_positionals_have_names(capsys):
    assert printed(capsys, "prepare", "--help").startswith("usage: alexnet prepare SOURCE PACKED [options]\n")
    assert printed(capsys, "predict", "-h").startswith("usage: alexnet predict MODEL IMAGE... [options]\n")
    assert printed(capsys, "info", "-h").startswith("usage: alexnet info [MODEL] [options]\n")
    assert printed(capsys, "help", "info") == printed(capsys, "info", "--help")


def test_help_is_as_wide_as_the_terminal(capsys, monkeypatch):
    for columns in (40, 60, 120):
        monkeypatch.setenv("COLUMNS", str(columns))
        widths = [len(line) for line in printed(capsys, "prepare", "--help").partition("\nexamples:")[0].splitlines()]
        assert columns - 12 < max(widths) <= columns


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0])
def test_both_languages_have_the_same_commands_and_sections(pair):
    english, chinese = ((ROOT / name).read_text(encoding="utf-8") for name in pair)
    commands = [re.sub(r"\s+#.*", "", line) for line in examples_of(english)]
    assert [re.sub(r"\s+#.*", "", line) for line in examples_of(chinese)] == commands
    levels = re.findall(r"^(#+) ", re.sub(r"^```.*?^```", "", english, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    assert (
        re.findall(r"^(#+) ", re.sub(r"^```.*?^```", "", chinese, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
        == levels
    )
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", english)
    assert re.findall(r"!\[[^]]+\]\(([^)]+)\)", chinese) == pictures


def test_the_readmes_are_short_begin_with_a_picture_and_say_the_same():
    english, chinese = ((ROOT / name).read_text(encoding="utf-8") for name in PAIRS[0])
    for text in (english, chinese):
        assert len(text.splitlines()) <= 120
        assert re.match(r"# alexnet\n\n!\[", text)
    links = [re.findall(r"[^!]\[[^]]*\]\(([^)]+)\)", text) for text in (english, chinese)]
    assert [link.replace(".zh.md", ".md") for link in links[1][1:]] == links[0][1:]  # the first leads to the other
    for pattern in (r"\d+\.\d+ %", r"\b\d,\d{3}\b", r"`make \w+`"):
        assert re.findall(pattern, chinese) == re.findall(pattern, english)


def test_the_chinese_results_have_no_figure_that_the_english_ones_have_not():
    english, chinese = (
        set(re.findall(r"\d+\.\d+ %", (ROOT / "docs" / name).read_text("utf-8")))
        for name in ("results.md", "results.zh.md")
    )
    assert len(chinese) > 12
    assert chinese <= english
