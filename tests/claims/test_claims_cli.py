"""`alexnet claims`: the ledger as text and JSON, a claim run from the command line."""

from __future__ import annotations

import json

import pytest

from alexnet.claims import verdicts
from alexnet.claims.verdicts import documents, entries, overall, sentence
from alexnet.cli import main


def alexnet(capsys, *words: object) -> tuple[int, str, str]:
    code = 0
    try:
        main([str(word) for word in words])
    except SystemExit as exit:
        code = int(exit.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def test_list_shows_all_39_claims_and_those_of_its_readers(capsys, tmp_path):
    code, out, _ = alexnet(capsys, "claims", "list", "--out", tmp_path)
    assert code == 0
    shown = [line.split()[0] for line in out.splitlines() if line[:1] in "CN" and line.endswith("]")]
    assert shown[:39] == [f"C{i}" for i in range(1, 40)]
    assert shown[39:] == [f"N{i}" for i in range(1, len(shown) - 38)]
    assert "conv1 to conv5 hold 0.06 %, 0.50 %, 1.45 %" in " ".join(out.split())


def test_list_of_one_says_what_decides_it_and_where_it_can_be_tried(capsys, tmp_path):
    code, out, _ = alexnet(capsys, "claims", "list", "c13", "--out", tmp_path)
    text = " ".join(out.split())
    assert code == 0
    assert "decides:" in text
    assert "experiment overlap: Pooling windows" in text
    assert "scales smoke, cifar10, imagenette, fashion-mnist, imagenet, DIR" in text
    code, out, _ = alexnet(capsys, "claims", "list", "C1", "C2", "--json", "--out", tmp_path)
    assert [entry["claim"]["id"] for entry in json.loads(out)] == ["C1", "C2"]


def test_run_trains_judges_and_is_shown_by_list(capsys, tmp_path):
    run = ("claims", "run", "C13", "--scale", "smoke", "--seeds", "2", "--out", tmp_path, "--device", "cpu")
    code, out, err = alexnet(capsys, *run)
    assert code == 0
    assert [line.split(":")[0].split()[0] for line in out.splitlines()] == ["C13"] * 3
    assert "smoke: 96 drawn images" in err
    code, out, _ = alexnet(capsys, *run, "--json")
    (document,) = json.loads(out)
    assert document["command"] == "alexnet claims run overlap --scale smoke --seeds 2"
    _, out, _ = alexnet(capsys, "claims", "list", "C13", "--out", tmp_path)
    assert document["command"] in " ".join(out.split())


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("claims", "try"), 2, "claims try: there are list, run, report"),
        (("claims", "run", "C99"), 2, "no claim or experiment is called 'C99'"),
        (("claims", "run"), 2, "claims run needs a claim or an experiment"),
        (("claims", "run", "C13", "--seeds", "0"), 2, "--seeds is 0; it must be at least 1"),
        (
            ("claims", "run", "C13", "--scale", "no-such-folder"),
            2,
            "no-such-folder: no such scale, folder or packed set",
        ),
        (("claims", "list", "X1"), 2, "X1"),
    ],
)
def test_what_is_wrong_is_one_line(capsys, tmp_path, words, code, message):
    out = ("--out", tmp_path) if len(words) > 2 or words[-1] == "run" else ()
    found, _, err = alexnet(capsys, *words, *out)
    assert found == code
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err


def test_a_claim_that_means_nothing_at_a_scale_says_so(capsys, tmp_path):
    code, out, err = alexnet(capsys, "claims", "run", "C7", "--scale", "imagenet", "--out", tmp_path, "--device", "cpu")
    assert (code, out) == (0, "")
    assert "C7 not at this scale: `relu-tanh` is for smoke, cifar10, fashion-mnist" in err


def row(verdict: str, scale: str) -> dict:
    return {"verdict": verdict, "scale": scale}


@pytest.mark.parametrize(
    ("facts", "rows", "word"),
    [
        ([], [], "not tested"),
        ([], [row("confirmed", "smoke")], "not tested"),
        ([], [row("confirmed", "imagenette"), row("contradicted", "cifar10")], "confirmed"),
        ([], [row("confirmed", "cifar10"), row("inconclusive", "cifar10")], "mixed: confirmed, inconclusive"),
        ([row("contradicted", "")], [], "contradicted"),
        ([row("confirmed", "")], [row("confirmed", "cifar10")], "confirmed"),
    ],
)
def test_one_word_for_a_claim(facts, rows, word):
    assert overall(facts, rows) == word


def test_own_results_stand_before_published_ones(tmp_path, monkeypatch):
    def document(effect: float) -> dict:
        comparison = {"claim": "C13", "says": "s", "unit": "points", "printed": 0.4, "diverged": {}, "n": 2}
        comparison |= {"verdict": "confirmed", "effect": effect, "low": 0.1, "high": 2.0}
        named = {"experiment": "overlap", "scale": "cifar10", "command": "c", "arms": {}}
        return named | {"comparisons": [comparison]}

    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "verdicts.json").write_text(json.dumps([document(1.0)]))
    monkeypatch.setattr(verdicts, "files", lambda _package: tmp_path / "published")
    found = next(e for e in entries(documents(None)) if e["claim"]["id"] == "C13")
    assert found["verdict"] == "confirmed"
    assert found["comparisons"][0]["text"].startswith("s: 1 points, 95 % interval 0.1 to 2, 2 seeds, printed 0.4")
    (tmp_path / "own" / "cifar10").mkdir(parents=True)
    (tmp_path / "own" / "cifar10" / "overlap.json").write_text(json.dumps(document(3.0)))
    (own,) = next(e for e in entries(documents(tmp_path / "own")) if e["claim"]["id"] == "C13")["comparisons"]
    assert own["effect"] == 3.0


def test_a_comparison_without_a_number_says_why():
    text = sentence({"n": 0, "says": "a is lower", "diverged": {"b": 3}})
    assert text == "a is lower: no pair of numbers (diverged: {'b': 3})"
