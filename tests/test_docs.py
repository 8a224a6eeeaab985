"""The documentation: no dead link, and every block of the pages *Learn* and *Do* that can run does run.

A block of shell or Python is run with the quick tests; `<!-- long -->` before it: with the long ones, on a few small pictures;
`<!-- not run: WHY -->`: never. A block of text behind one is what it prints; `...` stands for lines left out."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from alexnet.cli import main
from alexnet.data.builtin import draw_picture

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*(DOCS / "learn").glob("*.md"), *(DOCS / "do").glob("*.md")])
BLOCK = re.compile(
    r"(?:^<!-- (long|not run: [^\n]+) -->\n)?^```(sh|python)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?",
    re.MULTILINE | re.DOTALL,
)
CHINESE = re.compile(r"[\u4e00-\u9fff]")


@dataclass(frozen=True)
class Block:
    mark: str
    language: str
    code: str
    printed: str


def blocks(page: Path) -> list[Block]:
    return [Block(*(part or "" for part in found)) for found in BLOCK.findall(page.read_text(encoding="utf-8"))]


def script(name: str) -> ModuleType:
    """A program of benchmarks/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


documentation = script("documentation")


@pytest.fixture(scope="module")
def gathered(tmp_path_factory) -> Path:
    """What the site is built from, without the help of every verb."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documentation, "commands", lambda: "# Command line\n")
        out = tmp_path_factory.mktemp("site") / "docs"
        documentation.gather(out)
    return out


def test_no_link_of_the_documentation_is_dead(gathered):
    dead = []
    for page in sorted(gathered.rglob("*.md")):
        texts: list[str] = []
        documentation.outside_of_code(lambda text, texts=texts: texts.append(text) or text, page.read_text("utf-8"))
        for link in re.findall(r"\]\(([^)\s]+)\)", "".join(texts)):
            path = link.partition("#")[0]
            if path and "://" not in path and not (page.parent / path).exists():
                dead.append(f"{page.relative_to(gathered)}: {link}")
    assert dead == []
    assert (gathered / "results" / "imagenette.json").is_file()  # a page links to it
    assert (gathered / "CONTRIBUTING.md").is_file()


def test_every_page_is_in_the_navigation_and_those_of_the_course_have_pictures(gathered):
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    named = {re.sub(r"^.*?- (?:.*: )?", "", line).strip() for line in navigation.splitlines() if line.endswith(".md")}
    there = {page.relative_to(gathered).as_posix() for page in gathered.rglob("*.md") if ".zh." not in page.name}
    assert there == named
    for page in (DOCS / "learn").glob("*.md"):
        if page.name.partition(".")[0] not in ("index", "notes"):
            assert re.search(r"!\[[^]]+\]\(", page.read_text(encoding="utf-8")), page.name


def test_links_are_moved_to_where_their_files_are(tmp_path):
    text = (
        "[a](../results/cpu.json) [b](../README.md#x) [c](api.md) [d](../results/claims/)\n```\n[e](../Makefile)\n```\n"
    )
    moved, found = documentation.linked(text, tmp_path / "data.md", DOCS / "data.md", tmp_path)
    assert (
        moved == "[a](results/cpu.json) [b](index.md#x) [c](api.md) [d](result-files.md)\n```\n[e](../Makefile)\n```\n"
    )
    assert found == {ROOT / "results" / "cpu.json"}


def test_what_is_dead_or_loaded_from_elsewhere_is_found(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "index.html").write_text('<h2 id="here"></h2>')
    (tmp_path / "index.html").write_text(
        '<a href="b/#here"></a><a href="b/#gone"></a><a href="c/"></a><a href="https://example.org/"></a>'
        '<script src="https://example.org/x.js"></script><link rel="stylesheet" href="https://example.org/x.css">'
    )
    (tmp_path / "a.css").write_text("@font-face { src: url(https://example.org/f) }")
    assert documentation.faults(tmp_path) == [
        "index.html: b/#gone has no such anchor",
        "index.html: c/ is not there",
        "index.html loads https://example.org/x.css",
        "index.html loads https://example.org/x.js",
        "a.css loads https://example.org/f",
    ]


def test_the_verdicts_of_the_course_are_those_of_the_ledger():
    """If not: python benchmarks/course.py"""
    made = script("course").pages()
    assert {page.name for page in made} >= {"counting.md", "counting.zh.md", "notes.md", "notes.zh.md"}
    assert [page.name for page, text in made.items() if page.read_text(encoding="utf-8") != text] == []
    for page in (DOCS / "learn" / "notes.md", DOCS / "learn" / "notes.zh.md"):
        assert re.findall(r"^\| N(\d+) \|", made[page], re.MULTILINE) == [str(n) for n in range(1, 50)]


@pytest.mark.parametrize("page", [page for page in PAGES if not page.name.endswith(".zh.md")], ids=lambda p: p.stem)
def test_both_languages_have_the_same_blocks_pictures_and_figures(page):
    chinese = page.with_suffix(".zh.md")
    ours, theirs = (blocks(each) for each in (page, chinese))
    assert [(b.mark, b.language) for b in ours] == [(b.mark, b.language) for b in theirs]
    assert [b.code for b in ours if b.language == "sh"] == [b.code for b in theirs if b.language == "sh"]
    english, other = (each.read_text(encoding="utf-8") for each in (page, chinese))
    for pattern in (r"!\[[^]]*\]\(([^)]+)\)", r"^(#+) ", r"<!-- verdicts: .*? -->", r"\]\(([^)#]+\.json)\)"):
        assert re.findall(pattern, english, re.MULTILINE) == re.findall(pattern, other, re.MULTILINE)
    prose = [
        re.sub(r"<!-- (?:verdicts|sentences).*?<!-- end.*?-->|```.*?```", "", t, flags=re.DOTALL)
        for t in (english, other)
    ]
    assert set(re.findall(r"\d+\.\d+ %", prose[0])) == set(re.findall(r"\d+\.\d+ %", prose[1]))
    assert len(CHINESE.findall(prose[1])) > 100


def test_blocks_that_are_never_run_are_few():
    """They say why, and are counted here, so that another one is a decision."""
    never = Counter(page.stem for page in PAGES for block in blocks(page) if block.mark.startswith("not run"))
    one = {"index": 1, "today": 1, "photographs": 1, "fine-tune": 1, "reproduce": 3, "gpus": 1, "serve": 1}
    assert never == Counter(one) + Counter({f"{name}.zh": number for name, number in one.items()})
    assert sum(len(blocks(page)) for page in PAGES) > 3 * never.total()


def run_block(block: Block, capsys: pytest.CaptureFixture[str], small: bool = False) -> None:
    """Run a block in this process, and see that it prints what stands behind it."""
    capsys.readouterr()
    if block.language == "python":
        exec(compile(block.code, "block", "exec"), {})
    else:
        for line in block.code.splitlines():
            command, _, file = line.partition(" > ")
            words = shlex.split(command, comments=True)
            assert words[0] == "alexnet"
            with pytest.raises(SystemExit) as end:
                main(in_small(words[1:]) if small else words[1:])
            assert end.value.code == 0, (line, capsys.readouterr().err)
            assert not file or capsys.readouterr().out
    rest = capsys.readouterr().out
    for line in block.printed.splitlines() if not small else ():
        if line.strip() != "...":
            assert line in rest, line
            rest = rest.partition(line)[2]


IN_BOTH = [pytest.param(page, marks=[pytest.mark.long] * (".zh." in page.name)) for page in PAGES]
"""The Chinese pages have the same commands and nearly the same Python, so that they wait for the long tests."""


@pytest.mark.parametrize("page", IN_BOTH, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_every_quick_block_runs_and_prints_what_the_page_says(page, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    for block in blocks(page):
        if block.language == "python":
            compile(block.code, page.name, "exec")
        if not block.mark:
            run_block(block, capsys)


def in_small(words: list[str]) -> list[str]:
    """A command of a page, made quick: one pass over a few pictures."""
    if words[0] not in ("train", "pretrain") or "--resume" in words:
        return words
    if "--epochs" in words:
        at = words.index("--epochs")
        words = words[:at] + words[at + 2 :]
    quick = ["--epochs", "1", "--threads", "1"]
    return [*words, *quick, *(["--train-images", "48"] if words[1] == "quickstart" else [])]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder with photos/ of two classes, holiday/ and cat.jpg, as the pages have them."""
    monkeypatch.chdir(tmp_path)
    for name, shape in (("cat", "circle"), ("dog", "star")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(10):
            draw_picture(shape, i).convert("RGB").save(tmp_path / "photos" / name / f"{i}.jpg")
    (tmp_path / "holiday").mkdir()
    for i in range(4):
        shutil.copy(tmp_path / "photos" / "cat" / f"{i}.jpg", tmp_path / "holiday" / f"{i}.jpg")
    shutil.copy(tmp_path / "photos" / "cat" / "1.jpg", tmp_path / "cat.jpg")
    return tmp_path


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_long_block_runs_in_a_small_form(folder, capsys):
    """In the order of a reader: photographs first, then what uses the run."""
    order = ["photographs", "fine-tune", "search", "serve", "gpus", "last-layer", "relu", "dropout", "towers"]
    done = set()
    for name in order:
        (page,) = (page for page in PAGES if page.stem == name)
        for block in blocks(page):
            if block.mark == "long":
                repeated = [line for line in block.code.splitlines() if line not in done]
                done.update(repeated)
                if block.language == "python" or repeated:
                    code = block.code if block.language == "python" else "\n".join(repeated)
                    run_block(Block("long", block.language, code, ""), capsys, small=True)
    assert {page.stem for page in PAGES for b in blocks(page) if b.mark == "long" and ".zh" not in page.stem} <= set(
        order
    )


@pytest.mark.long
def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("mkdocs_static_i18n", reason='needs pip install -e ".[docs]"')
    documentation.gather(tmp_path / "docs")
    configuration = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    configuration = configuration.replace("docs_dir: build/docs", "docs_dir: docs")
    (tmp_path / "mkdocs.yml").write_text(configuration.replace("paths: [src]", f"paths: [{ROOT / 'src'}]"))
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}  # as in the Makefile: its theme tells of a successor
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=quiet, timeout=280, check=False)
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    assert documentation.faults(tmp_path / "site") == []
