"""`alexnet claims`: the ledger as text and JSON, a claim run from the command line."""

from __future__ import annotations

import json

import pytest

from alexnet.claims import documents, laboratory
from alexnet.claims.documents import read_documents
from alexnet.claims.ledger import CLAIMS
from alexnet.claims.scales import HISTORY
from alexnet.claims.verdicts import counts, entries, level_of, overall, sentence, short_number, to_decide
from alexnet.cli import main
from alexnet.core.console import say
from alexnet.data.packed import PackedSet
from alexnet.data.sources import class_lines


@pytest.fixture(scope="module", autouse=True)
def history_alone(tmp_path_factory):
    """Of what the package publishes, what stays: of other scales there is more from time to time."""
    folder = tmp_path_factory.mktemp("published")
    published = json.loads(documents.files("alexnet.claims").joinpath(documents.PUBLISHED).read_text("utf-8"))
    kept = [document for document in published if document["scale"] in HISTORY]
    (folder / documents.PUBLISHED).write_text(json.dumps(kept), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "files", lambda _package: folder)
        yield


def alexnet(capsys, *words: object) -> tuple[int, str, str]:
    code = 0
    try:
        main([str(word) for word in words])
    except SystemExit as exit:
        code = int(exit.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def test_list_is_one_line_a_claim_and_a_summary(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = alexnet(capsys, "claims", "list", "--out", tmp_path)
    lines = out.splitlines()
    assert code == 0
    assert [line.split()[0] for line in lines[: len(CLAIMS)]] == [claim.id for claim in CLAIMS]
    assert max(map(len, lines)) <= 80
    assert lines[6].startswith("C7  inconclusive        A four-layer network")
    assert lines[9].startswith("C10 not a fair test yet Local response normalization")
    assert "\x1b" not in out
    number = counts(entries(read_documents(None)))
    summary = " ".join(" ".join(lines[len(CLAIMS) :]).split())
    assert (
        f"{number['decided']} of these {len(CLAIMS)} entries have a verdict, {number['paper_decided']} of the paper's 39"
        in summary
    )
    assert len(lines) < len(CLAIMS) + 12


def test_verdicts_have_colors_on_a_terminal_only(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    monkeypatch.delenv("NO_COLOR", raising=False)
    _, out, _ = alexnet(capsys, "claims", "list", "--out", tmp_path)
    assert "\x1b[32mconfirmed" in out
    assert "\x1b[31mcontradicted" in out
    monkeypatch.setenv("NO_COLOR", "1")
    _, out, _ = alexnet(capsys, "claims", "list", "--out", tmp_path)
    assert "[32m" not in out


def test_list_full_has_all_of_every_claim_and_each_reason(capsys, tmp_path):
    code, out, _ = alexnet(capsys, "claims", "list", "--full", "--out", tmp_path)
    text = " ".join(out.split())
    assert code == 0
    shown = [line.split()[0] for line in out.splitlines() if line[:1] in "CN" and line.endswith("]")]
    assert shown == [claim.id for claim in CLAIMS]
    assert "conv1 to conv5 hold 0.06 %, 0.50 %, 1.45 %" in text
    assert "chosen on the same held-out images" in text
    assert text.count("not tested: ") >= 40


def test_not_tested_always_has_its_reason():
    known = entries(read_documents(None))
    for entry in known:
        assert bool(entry["why"]) or entry["verdict"] != "not tested", entry["claim"]["id"]
    assert {entry["claim"]["id"]: entry["verdict"] for entry in known if entry["claim"]["id"] in ("N36", "N37")} == {
        "N36": "contradicted",  # by what is printed
        "N37": "contradicted",
    }


def test_list_of_one_says_what_decides_it_and_where_it_can_be_tried(capsys, tmp_path):
    code, out, _ = alexnet(capsys, "claims", "list", "c13", "--out", tmp_path)
    text = " ".join(out.split())
    assert code == 0
    assert "decides:" in text
    assert "experiment overlap: Pooling windows" in text
    assert "scales smoke, cifar10-small, cifar10, imagenette, fashion-mnist, imagenet, DIR" in text
    code, out, _ = alexnet(capsys, "claims", "list", "C1", "C2", "--json", "--out", tmp_path)
    assert [entry["claim"]["id"] for entry in json.loads(out)] == ["C1", "C2"]


def test_run_trains_judges_and_is_shown_by_list(capsys, tmp_path, few_images, monkeypatch):
    def opened(*_: object, **__: object) -> PackedSet:
        for line in class_lines(few_images.classes, few_images.class_counts):
            say(line)
        return few_images

    monkeypatch.setattr(laboratory, "open_data", opened)
    run = ("claims", "run", "C13", "--scale", "smoke", "--seeds", "2", "--out", tmp_path, "--device", "cpu")
    code, out, err = alexnet(capsys, *run)
    assert code == 0
    assert [line.partition(":")[0] for line in out.splitlines()] == ["C13 the code ran"] * 3
    assert not any(word in out for word in ("confirmed", "contradicted", "inconclusive", "points"))  # nothing else
    assert "smoke: 96 drawn images" in err
    assert err.count("24 classes") == 1  # not before each of four trainings
    code, out, _ = alexnet(capsys, *run, "--json")
    (document,) = json.loads(out)
    assert document["command"] == "alexnet claims run overlap --scale smoke --seeds 2"
    _, out, _ = alexnet(capsys, "claims", "list", "C13", "--out", tmp_path)
    assert document["command"] in " ".join(out.split())
    assert "the code ran: the error is lower with overlapping windows: not judged" in " ".join(out.split())


def test_only_of_history_it_is_said_that_choices_were_made_on_test_images(capsys, tmp_path):
    _, out, _ = alexnet(capsys, "claims", "list", "C13", "--out", tmp_path)
    assert "were chosen on the same held-out images" in " ".join(out.split())
    (tmp_path / "cifar10-small").mkdir()
    (tmp_path / "cifar10-small" / "overlap.json").write_text(json.dumps(document(1.0, "N13", "cifar10-small")))
    _, out, _ = alexnet(capsys, "claims", "list", "N13", "--out", tmp_path)
    assert "(cifar10-small)" in " ".join(out.split())
    assert "held-out images" not in out


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
    assert "C7 not at this scale: `relu-tanh` is for smoke, cifar10-small, cifar10, fashion-mnist" in err


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


def document(effect: float, claim: str = "C13", scale: str = "cifar10") -> dict:
    """Of one experiment with five seeds."""
    comparison = {"claim": claim, "says": "s", "unit": "points", "printed": 0.4, "diverged": {}, "n": 5}
    comparison |= {"verdict": "", "reasons": [], "cut": [], "untrained": [], "pool": "", "each": False}
    for side, mean in (("lower", 20.0), ("higher", 20.0 + effect)):
        values = {"values": [mean - 0.1, mean, mean, mean, mean + 0.1], "cut": [False] * 5}
        comparison |= {f"{side}_{key}": value for key, value in values.items()}
        comparison[side] = {"arm": side, "measure": "center_error"}
    comparison |= {"seeds": [0, 1, 2, 3, 4], "higher_values": [20 + effect] * 5}
    named = {"experiment": "overlap", "scale": scale, "command": "c", "arms": {}}
    return named | {"comparisons": [comparison]}


def test_own_results_stand_before_published_ones(tmp_path, monkeypatch):
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "verdicts.json").write_text(json.dumps([document(1.0)]))
    (tmp_path / "published" / "curves.json").write_text("{}")
    monkeypatch.setattr(documents, "files", lambda _package: tmp_path / "published")
    found = next(e for e in entries(read_documents(None)) if e["claim"]["id"] == "C13")
    assert found["verdict"] == "confirmed"
    assert found["comparisons"][0]["text"].startswith(
        # Differences 1.1, 1, 1, 1, 0.9: standard deviation 0.0707, and 3.495 for 97.5 % with four degrees of freedom.
        "s: 1 points, 97.5 % interval 0.889 to 1.11, 5 seeds, printed 0.4 (cifar10). Looked for 0.4 points, which 5 seeds find"
    )
    (tmp_path / "own" / "cifar10").mkdir(parents=True)
    (tmp_path / "own" / "cifar10" / "overlap.json").write_text(json.dumps(document(3.0)))
    (own,) = next(e for e in entries(read_documents(tmp_path / "own")) if e["claim"]["id"] == "C13")["comparisons"]
    assert own["effect"] == 3.0


def test_a_comparison_without_a_number_says_why():
    reasons = ["3 of 3 runs of b diverged, so no pair includes them"]
    row = {"n": 0, "says": "a is lower", "verdict": "not a fair test yet", "reasons": reasons}
    text = f"a is lower: there is no seed for which both sides have a number. Why: {reasons[0]}"
    assert sentence(row) == text


@pytest.mark.parametrize(("value", "text"), [(71244.5, "7.1e4"), (9999.0, "1e+04"), (5.8367, "5.84"), (-0.05, "-0.05")])
def test_figures_are_for_people(value, text):
    assert short_number(value) == text


def test_what_is_history_is_marked_and_says_how_it_is_tried_today(capsys, tmp_path):
    _, out, _ = alexnet(capsys, "claims", "list", "C10", "--out", tmp_path)
    text = " ".join(out.split())
    assert text.startswith("C10 (3.3) [trained not a fair test yet (history)]")
    assert "with all arms tuned: alexnet claims run C10 --scale cifar10-small --seeds 5" in text
    assert "Looked for 1.4 points, which 5 seeds find with 80 % power" in text
    _, out, _ = alexnet(capsys, "claims", "list", "C2", "--out", tmp_path)
    assert "history" not in out  # computed


def test_the_seeds_that_would_decide_are_a_command():
    command = "alexnet claims run lrn --scale 'my photos' --seeds 3"
    rows = [{"n": 3, "more_seeds": 18}, {"n": 3, "more_seeds": None}, {"n": 3, "more_seeds": 2}]
    document = {"command": command, "scale": "my photos", "comparisons": rows}
    assert to_decide(document) == "alexnet claims run lrn --scale 'my photos' --seeds 21"
    assert to_decide(document | {"scale": "cifar10"}) == ""
    assert to_decide(document | {"comparisons": rows[1:2]}) == ""


@pytest.mark.parametrize(
    ("level", "text"), [(0.025, "97.5"), (0.0125, "98.8"), (0.0002, "99.98"), (0.00005, "99.995"), (0.01, "99")]
)
def test_an_interval_is_never_said_to_be_sure(level, text):
    assert level_of({"level": level}) == text


def test_the_same_numbers_under_two_claims_are_said_to_be_one_experiment():
    """In a network whose conv4 and conv5 are equally wide, leaving out either is the same network."""
    known = {entry["claim"]["id"]: entry for entry in entries(read_documents(None))}
    notes = {id: [note for row in known[id]["comparisons"] for note in row["notes"]] for id in ("C5", "C6")}
    assert len(notes["C5"]) == len(notes["C6"]) == 1
    assert notes["C5"][0].startswith("these are the numbers of C6 (the error is lower with conv4) too")
    assert notes["C6"][0].startswith("these are the numbers of C5 (the error is lower with conv5) too")
