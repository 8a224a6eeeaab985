"""The page of the claims: what it says is what the files say, it is written whatever they are, and it reads in a browser."""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from alexnet.claims import documents, verdicts
from alexnet.claims.drawing import arm_curves, columns_of, effect_axis, result_of
from alexnet.claims.facts import facts
from alexnet.claims.groups import EXPERIMENTS, find_experiments
from alexnet.claims.ledger import CLAIMS, find_claim
from alexnet.claims.page import write_page
from alexnet.claims.results import LINES, Results, write_lines
from alexnet.claims.scales import SCALES
from alexnet.core.errors import AlexNetError, UsageError

HOSTILE = (
    "</title></style><script>alert(1)</script><img src=x onerror=alert(1)>\"' {{ 7*7 }} $\\frac{ \u202e\x07\n\udc80"
)


@pytest.fixture(scope="module", autouse=True)
def the_ledger_alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the package publishes is not what these tests are about. Facts take a second, and are the same for every page."""
    folder = tmp_path_factory.mktemp("published")
    (folder / documents.PUBLISHED).write_text("[]")
    (folder / documents.CURVES).write_text("{}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "files", lambda _package: folder)
        patch.setattr(verdicts, "facts", functools.cache(facts))
        yield


class Table(HTMLParser):
    """Cells of the ledger by row id, and the text of the whole page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.rows: dict[str, list[str]] = {}
        self.row: list[str] | None = None
        self.words: list[str] = []
        self.skip = 0
        self.source = path.read_text("utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.skip += tag in ("script", "style")
        if tag == "tr":
            name = dict(attrs).get("id")
            self.row = self.rows.setdefault(name, []) if name else None
        elif tag in ("td", "th") and self.row is not None:
            self.row.append("")

    def handle_endtag(self, tag: str) -> None:
        self.skip -= tag in ("script", "style")
        if tag == "tr":
            self.row = None

    def handle_data(self, data: str) -> None:
        if self.skip:
            return
        self.words += data.split()
        if self.row:
            self.row[-1] = " ".join([*self.row[-1].split(), *data.split()])

    @property
    def text(self) -> str:
        return " ".join(self.words)


def result(arm: str, seed: int, *, epochs: int = 3, shift: float = 0.0, name: Any = str) -> dict[str, Any]:
    rows = [
        {"epoch": i + 1, "val_loss": 2.0 / (i + 1) + shift, "val_top1_error": 0.5 / (i + 1) + shift}
        for i in range(epochs)
    ]
    curve = [{"epoch": (i + 1) / 10, "loss": 3 - i / 100, "error": 0.9 - i / 1000} for i in range(10 * epochs)]
    return {"arm": name(arm), "seed": seed, "epochs": rows, "curve": curve, "config": {"name": name("a")}}


def comparison(says: str, lower: list[float], higher: list[float], measure: str = "center_error", **fields: Any) -> Any:
    return {
        "claim": "C13",
        "says": says,
        "lower": {"arm": "base", "measure": measure},
        "higher": {"arm": "no-overlap", "measure": measure},
        "unit": "points",
        "printed": 0.4,
        "each": False,
        "pool": "",
        "diverged": {},
        "untrained": [],
        "seeds": list(range(len(lower))),
        "lower_values": lower,
        "higher_values": higher,
        "lower_cut": [False] * len(lower),
        "higher_cut": [False] * len(higher),
        "n": len(lower),
        "verdict": "",
        "reasons": [],
        "cut": [],
    } | fields


def searched(best: float, name: Any = str) -> dict[str, Any]:
    """The search of an arm among four rates, of which the last diverged once, and two weight decays."""
    field = name("optimizer.lr")
    rates = [(lr, 0.0005, [0.3 + abs(lr - best), 0.31 + abs(lr - best)]) for lr in (0.005, 0.01, 0.02)]
    tried = [*rates, (0.04, 0.0005, [0.5, None]), (best, 0.001, [0.4, 0.41])]
    return {
        "measure": "center_error",
        "seeds": [1000, 1001],
        "fields": [field, "optimizer.weight_decay"],
        "chosen": {field: best, "optimizer.weight_decay": 0.0005},
        "candidates": [
            {"changes": {field: lr, "optimizer.weight_decay": decay}, "values": values, "results": []}
            for lr, decay, values in tried
        ],
    }


def write_experiment(out: Path, scale: str = "cifar10", name: Any = str, **fields: Any) -> dict[str, Any]:
    """The document and result files of an experiment on two arms and three seeds."""
    folder = out / scale
    folder.mkdir(parents=True, exist_ok=True)
    arms = {}
    for arm, shift in (("base", 0.0), ("no-overlap", 0.1)):
        for seed in range(3):
            (folder / f"{arm}-00ff-seed{seed}.json").write_text(
                json.dumps(result(arm, seed, epochs=3 + (seed == 2), shift=shift + 0.01 * seed, name=name))
            )
        changes = {"model.pool_size": 2, name("field"): name("value")} if shift else {}
        arms[arm] = {"changes": changes, "results": [f"{arm}-00ff-seed{seed}.json" for seed in range(3)]}
    document = {
        "experiment": "overlap",
        "title": name("Pooling windows"),
        "scale": scale,
        "says": name("10,000 images"),
        "seeds": [0, 1, 2],
        "chosen": {"no-overlap": {"optimizer.lr": 0.005}},
        "tuning": {arm: searched(best, name) for arm, best in (("base", 0.02), ("no-overlap", 0.005))},
        "arms": arms,
        "comparisons": [
            # Differences 0.9, 1.0 and 1.1: mean 1.0, standard deviation 0.1. Two comparisons share the 0.02 % of a look at three
            # seeds, and the second excludes no effect: 70.70 of Student's t, by 0.1 / sqrt(3), is 4.082.
            comparison(name("the error is lower"), [30.0, 30.0, 30.0], [30.9, 31.0, 31.1]),
            comparison(
                name("sooner there"),
                *([5.0, 5.0, 5.0], [10.0, 10.0, 10.0]),
                measure="epochs_to_goal",
                unit="times",
                printed=6.0,
            ),
        ],
        "command": name(f"alexnet claims run overlap --scale {scale} --seeds 3"),
        "environment": {"torch": name("2.13.0")},
    } | fields
    (folder / "overlap.json").write_text(json.dumps(document))
    return document


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("claims")
    write_experiment(folder)
    return folder


@pytest.fixture(scope="module")
def page(out: Path) -> Table:
    return Table(write_page(out, None))


def test_every_claim_of_the_ledger_has_its_row(page: Table) -> None:
    claims = {key: cells for key, cells in page.rows.items() if not key.startswith("why-")}
    assert list(claims) == [claim.id for claim in CLAIMS]
    for claim in CLAIMS:
        id, section, sentence, printed, logged, _, verdict, _ = claims[claim.id]
        assert (id, section, printed, logged) == (claim.id, claim.section, claim.printed, claim.logged)
        assert sentence.startswith(claim.sentence)
        assert verdict


def test_a_row_says_effect_interval_seeds_scale_verdict_and_command(page: Table) -> None:
    here, verdict, again = page.rows["C13"][5:]
    assert "inconclusive the error is lower: +1.00 points (99.98 %: −3.08 to +5.08; 3 seeds) cifar10" in here
    assert "confirmed sooner there: 2.00 times (99.99 %: 2.00 to 2.00; 3 seeds) cifar10" in here
    assert verdict == "mixed inconclusive, confirmed history"
    assert again.startswith(
        "alexnet claims run overlap --scale cifar10 --seeds 3 with all arms tuned: alexnet claims run C13 "
    )


def test_the_headline_counts_the_claims_of_the_ledger(page: Table, out: Path) -> None:
    entries = verdicts.entries(documents.read_documents(out))
    words = Counter(entry["verdict"].partition(":")[0] for entry in entries)
    number = verdicts.counts(entries)
    cards = re.findall(r'<b class="verdict [a-z-]+">([a-z ]+)</b></span><span class="value">(\d+)<', page.source)
    assert {word: int(num) for word, num in cards} == {
        word: words[word]
        for word in (
            "confirmed",
            "contradicted",
            "no effect as large",
            "inconclusive",
            "mixed",
            "not a fair test yet",
            "not tested",
        )
    }
    assert sum(int(num) for _, num in cards) == len(CLAIMS)
    assert f"{number['paper_decided']} of the paper's 39 claims have a verdict here" in page.text
    assert f"and {number['decided'] - number['paper_decided']} of the {len(CLAIMS) - 39} that its readers" in page.text
    mixed = Counter(
        "both" if e["facts"] and e["comparisons"] else "trained" if e["comparisons"] else "computed"
        for e in entries
        if e["verdict"].startswith("mixed")
    )
    assert f"{mixed['computed']} computed, {mixed['trained']} trained" in page.text


def test_an_experiment_says_arms_changes_rates_and_every_seed(page: Table) -> None:
    assert "Pooling windows overlap at cifar10 10,000 images. 3 seeds. For C13 ." in page.text
    assert "A base nothing B no-overlap model.pool_size 2" in page.text
    assert "optimizer.lr 0.005" in page.text
    assert "center error base 30 30 30 30 % center error no-overlap 30.9 31 31.1 31 %" in page.text
    assert "epochs to goal no-overlap 10 10 10 10 epochs" in page.text
    assert (
        "2 more seeds would decide. Printed 0.40 points. Looked for 0.4 points, which 5 seeds find with 80 % power."
        in page.text
    )
    assert (
        "3 seeds find it with 46 %. A run varies by 0.0707 points (standard deviation, 2 degrees of freedom"
        in page.text
    )
    assert "these two alone). The runs of base are in 1 other comparison too, those of no-overlap in 1." in page.text
    assert "Top-1 error of the held-out images at the center." in page.text


def test_the_tuning_of_every_arm_is_drawn_and_listed(page: Table) -> None:
    assert "How each arm was tuned: center error, %, on training images held out for this." in page.text
    curves = re.findall(r'aria-label="(What was searched[^"]*)"', page.source)
    assert curves == [  # of every setting the candidates that differ from what was chosen in it alone
        "What was searched, and the measure that chose; chosen: A 30.5 at 0.02; B 30.5 at 0.005",
        "What was searched, and the measure that chose; chosen: A 30.5 at 0.0005; B 30.5 at 0.0005",
    ]
    assert "base optimizer.lr 0.02 optimizer.weight_decay 0.0005 30 31 chosen" in page.text
    assert "base optimizer.lr 0.04 optimizer.weight_decay 0.0005 50 –" in page.text


def test_every_fact_is_there_with_how_it_was_computed(page: Table) -> None:
    for fact in facts():
        for text in (fact.statement, fact.computed, fact.how):
            assert " ".join(text.split()) in page.text


def test_what_is_not_tested_says_why(page: Table) -> None:
    for id in ("C1", "C3", "C39"):
        assert page.rows[f"why-{id}"][1] == find_claim(id).untested.replace("`", "")
    assert page.rows["why-N3"][1] == "Not run yet: the experiment max-average."
    assert page.rows["N3"][5] == "Not run yet: the experiment max-average."  # in the row itself, too
    assert page.rows["N3"][7] == "to try it: alexnet claims run N3 --scale cifar10-small --seeds 5"
    assert "why-C13" not in page.rows


def test_a_fact_alone_does_not_pass_for_the_whole_of_a_claim(page: Table) -> None:
    # C16: the 2,178 places are counted, but whether the network overfits without them takes its experiment.
    *_, verdict, again = page.rows["C16"]
    assert verdict.startswith("contradicted the computed part only. Not run yet:")
    assert again.startswith("alexnet claims list C16 the rest: alexnet claims run C16 --scale cifar10")
    assert page.rows["C14"][6] == "confirmed"  # the whole of it is computed


def test_any_row_can_be_repeated_with_the_command_beside_it(page: Table, tmp_path: Path) -> None:
    write_experiment(tmp_path, "smoke")
    computed = {fact.claim for fact in facts()}
    repeated = 0
    for table in (page, Table(write_page(tmp_path))):
        for command in re.findall(r"<code>(alexnet claims (?:list|run) [CNa-z][^<]*)</code>", table.source):
            verb, id, *options = shlex.split(command)[2:]
            if verb == "list":
                assert find_claim(id).id in computed
            else:
                scale = dict(zip(options[::2], options[1::2], strict=True))["--scale"]
                experiments = find_experiments(id)
                assert any(scale in (experiment.scales or SCALES) for experiment in experiments)
            repeated += 1
    assert repeated > 2 * len(EXPERIMENTS)


def test_a_smoke_test_is_shown_and_decides_nothing(tmp_path: Path) -> None:
    write_experiment(tmp_path, "smoke")
    page = Table(write_page(tmp_path))
    here, verdict, again = page.rows["C13"][5:]
    assert here.startswith("the code ran the error is lower: the code ran; at this scale nothing is judged smoke")
    assert "1.00" not in page.text.partition("Experiments Arms")[2].partition("Computed facts")[0]  # nor by seed
    assert "confirmed" not in here
    assert verdict == "not tested why"
    assert again == "alexnet claims run overlap --scale smoke --seeds 3"
    assert page.rows["why-C13"][1].startswith("Tried at the scale smoke only")
    assert "None of this is a result." in page.text


def test_the_largest_scale_decides_and_the_others_are_linked(tmp_path: Path) -> None:
    write_experiment(tmp_path, "cifar10")
    write_experiment(tmp_path, "fashion-mnist")
    write_experiment(tmp_path, "smoke")
    page = Table(write_page(tmp_path))
    assert page.rows["C13"][5].endswith("also at fashion-mnist")
    assert page.text.count("overlap at") == 3


def test_missing_and_damaged_result_files_are_named(tmp_path: Path) -> None:
    write_experiment(tmp_path)
    (tmp_path / "cifar10" / "base-00ff-seed1.json").unlink()
    (tmp_path / "cifar10" / "no-overlap-00ff-seed0.json").write_text("{")
    (tmp_path / "cifar10" / "no-overlap-00ff-seed1.json").write_text("[]")
    page = Table(write_page(tmp_path))
    missing = page.text.partition("Missing from this page")[2].partition("All claims")[0]
    assert "overlap at cifar10: base-00ff-seed1.json missing from" in missing
    assert "no-overlap-00ff-seed0.json: not valid JSON" in missing
    assert "no-overlap-00ff-seed1.json is not a result of `alexnet claims run`" in missing
    assert "+1.00 points (99.98 %: −3.08 to +5.08; 3 seeds)" in page.rows["C13"][5]
    assert page.source.count('aria-label="Training loss') == 1  # of the seeds that are left


def test_published_lines_serve_as_the_result_files_do(tmp_path: Path) -> None:
    document = write_experiment(tmp_path)
    before = write_page(tmp_path).read_text()
    results = [
        result | {"fingerprint": f"00ff-seed{result['seed']}"}
        for result in Results(tmp_path / "cifar10").all().values()
    ]
    for name in arm_files(document):
        (tmp_path / "cifar10" / name).unlink()
    write_lines(tmp_path / "cifar10", results)
    assert write_page(tmp_path).read_text() == before
    with (tmp_path / "cifar10" / LINES).open("a") as file:
        file.write("{")
    assert Table(write_page(tmp_path)).text.count("results.jsonl, line 7: not valid JSON") == 1


def test_what_results_show_is_a_table_of_means(tmp_path: Path) -> None:
    document = write_experiment(tmp_path)
    document["arms"]["base"]["shown"] = [
        {"top1_error": 0.25, "model_bytes": 1000},
        {"top1_error": 0.35, "model_bytes": 3000},
    ]
    (tmp_path / "cifar10" / "overlap.json").write_text(json.dumps(document))
    shown = write_page(tmp_path).read_text().partition('class="sortable shown"')[2].partition("</table>")[0]
    cells = re.findall(r">([^<>]+)</t[hd]>", shown)
    assert cells == ["arm", "top1 error", "model bytes", "base", "0.3", "2,000"]


@pytest.mark.parametrize("content", ["{", '{"experiment": "overlap"}', "arms"])
def test_a_damaged_document_is_named_and_the_page_is_written(tmp_path: Path, content: str) -> None:
    if content == "arms":
        write_experiment(tmp_path, arms={"base": 3})
    else:
        (tmp_path / "cifar10").mkdir()
        (tmp_path / "cifar10" / "overlap.json").write_text(content)
    page = Table(write_page(tmp_path))
    missing = page.text.partition("Missing from this page")[2].partition("All claims")[0]
    assert {"{": "overlap.json: not valid JSON", "arms": "overlap at cifar10: its result cannot be read"}.get(
        content, "not a result of `alexnet claims run`"
    ) in missing
    assert page.rows["C2"][6] == "confirmed"


def test_published_verdicts_are_shown_without_files_and_are_not_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = write_experiment(tmp_path / "elsewhere", "imagenette")
    (tmp_path / "published.json").write_text(json.dumps([document]))
    (tmp_path / "curves.json").write_text("{}")
    monkeypatch.setattr(documents, "PUBLISHED", str(tmp_path / "published.json"))
    monkeypatch.setattr(documents, "CURVES", str(tmp_path / "curves.json"))
    page = Table(write_page(tmp_path / "nothing" / "here", None))
    assert "+1.00 points (99.98 %: −3.08 to +5.08; 3 seeds) imagenette" in page.rows["C13"][5]
    assert "Published with the package." in page.text
    assert "No curves: its arms are measured on networks of other experiments" in page.text
    assert "Missing from this page" not in page.text


def test_published_curves_are_drawn_as_from_the_result_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = write_experiment(tmp_path / "own", "imagenette")
    read = {name: json.loads((tmp_path / "own" / "imagenette" / name).read_text()) for name in arm_files(document)}
    curves = {}
    for about in document["arms"].values():
        curves |= columns_of({f"imagenette/{name}": read[name] for name in about["results"]})
    (tmp_path / "published.json").write_text(json.dumps([document]))
    (tmp_path / "curves.json").write_text(json.dumps(curves))
    monkeypatch.setattr(documents, "PUBLISHED", str(tmp_path / "published.json"))
    monkeypatch.setattr(documents, "CURVES", str(tmp_path / "curves.json"))
    published = Table(write_page(tmp_path / "nothing", None))
    said = r'aria-label="([^"]*, against epochs[^"]*)"'
    assert len(re.findall(said, published.source)) == 4
    assert re.findall(said, published.source) == re.findall(said, Table(write_page(tmp_path / "own", None)).source)
    assert "No curves" not in published.text


def arm_files(document: dict[str, Any]) -> list[str]:
    return [name for about in document["arms"].values() for name in about["results"]]


def test_long_curves_are_thinned_as_they_are_drawn() -> None:
    long = {"curve": [{"epoch": i / 100, "loss": i / 100, "error": 0.5} for i in range(1000)], "epochs": []}
    short = {"curve": [{"epoch": i / 100, "loss": i / 100, "error": 0.5} for i in range(500)], "epochs": []}
    kept = columns_of({"a": long, "b": short, "diverged": {}})
    assert [len(kept[name]["curve"]["loss"]) for name in "ab"] == [1000 // 13, 500 // 13]  # by 13 neighbors: at most 80
    again = [result_of(kept[name]) for name in "ab"]
    ends = [re.findall(r"A [\d.]+ to [\d.]+", arm_curves([results])) for results in ([long, short], again)]
    assert ends[0] == ends[1] != []


def test_without_any_result_the_ledger_is_shown_with_its_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "published.json").write_text("[]")
    monkeypatch.setattr(documents, "PUBLISHED", str(tmp_path / "published.json"))
    page = Table(write_page(tmp_path))
    assert "No experiment has been run yet" in page.text
    assert page.rows["C2"][6] == "confirmed"
    assert page.rows["C13"][6] == "not tested why"


def test_a_training_that_diverged_is_said(tmp_path: Path) -> None:
    lost = comparison("lower", [], [], diverged={"no-overlap": 3}, reasons=["3 of 3 runs of no-overlap diverged"])
    document = write_experiment(tmp_path, comparisons=[lost])
    for name in document["arms"]["no-overlap"]["results"]:
        (tmp_path / "cifar10" / name).write_text('{"diverged": "step 7: the loss is nan"}')
    page = Table(write_page(tmp_path))
    assert "B no-overlap diverged: 3 of 3" in page.text
    assert "lower: there is no seed for which both sides have a number" in page.rows["C13"][5]


def test_what_is_no_fair_test_says_why_and_has_no_interval(tmp_path: Path) -> None:
    cut = {"measure": "epochs_to_goal", "unit": "times", "printed": 6.0, "higher_cut": [True] * 3, "cut": ["3 of 3"]}
    rows = [
        comparison("lower", [30.0] * 3, [31.0] * 3, reasons=["no rate was chosen"], notes=["seen twice"]),
        comparison("sooner", [5.0] * 3, [30.0] * 3, **cut),
        comparison("apart", [5.0, 5.0, 5.0], [4.0, 6.0, 4.0], each=True),
    ]
    write_experiment(tmp_path, comparisons=rows)
    page = Table(write_page(tmp_path))
    here = page.rows["C13"][5]
    assert "not a fair test yet lower: +1.00 points (no interval; 3 seeds) cifar10 Why: no rate was chosen." in here
    assert "Note: seen twice." in here
    assert "inconclusive sooner: at least 6.00 times (no interval; p = 0.25; 3 seeds) cifar10 Why: 3 of 3." in here
    assert (
        "apart: this is so in 1 of 3 runs; chance alone makes it so in one of twenty; all runs together: p = 0.14"
        in here
    )
    assert page.source.count('class="interval bound"') == 1


def test_what_would_decide_it_is_a_command(tmp_path: Path) -> None:
    write_experiment(tmp_path, "imagenette")
    page = Table(write_page(tmp_path))
    assert page.rows["C13"][7] == (
        "alexnet claims run overlap --scale imagenette --seeds 3 "
        "to decide it: alexnet claims run overlap --scale imagenette --seeds 5"
    )


def test_what_is_small_enough_is_said(tmp_path: Path) -> None:
    alike = comparison("alike", [30.0] * 5, [30.0, 30.1, 29.9, 30.05, 29.95])
    write_experiment(tmp_path, comparisons=[alike])
    page = Table(write_page(tmp_path))
    assert page.rows["C13"][6] == "no effect as large history"
    assert "no effect as large as 0.4 points +0.00 points (97.5 %: −0.12 to +0.12; 5 seeds)" in page.text


def test_a_reason_that_all_comparisons_share_is_said_once(tmp_path: Path) -> None:
    rows = [
        comparison("lower", [1.0], [2.0], reasons=["not tuned"]),
        comparison("also lower", [1.0], [2.0], reasons=["not tuned", "few classes"]),
    ]
    write_experiment(tmp_path, comparisons=rows)
    here = Table(write_page(tmp_path)).rows["C13"][5]
    assert "Why: few classes." in here
    assert here.endswith("Why, for all of these: not tuned.")
    assert here.count("not tuned") == 1


def test_a_fact_stands_with_its_statement(page: Table) -> None:
    assert "The network has 60 million parameters. Computed: 60,965,224 parameters" in page.rows["C2"][5]
    assert "In print: the paper divides it when the validation error stops improving" in page.rows["N37"][5]


def test_what_an_earlier_version_judged_has_no_verdict(tmp_path: Path) -> None:
    document = write_experiment(tmp_path)
    for row in document["comparisons"]:
        del row["cut"]
        row |= {"effect": 1.0, "low": 0.5, "high": 1.5}
    (tmp_path / "cifar10" / "overlap.json").write_text(json.dumps(document))
    page = Table(write_page(tmp_path))
    assert page.rows["C13"][6].startswith("not a fair test yet")
    assert "an earlier version judged it; its command judges it again, and trains nothing twice" in page.rows["C13"][5]


def test_seeds_without_a_pair_are_not_given_the_names_of_others(tmp_path: Path) -> None:
    write_experiment(tmp_path, comparisons=[comparison("lower", [30.0], [31.0], diverged={"base": 2})])
    page = Table(write_page(tmp_path))
    assert "center error base 30 (seeds with a pair) 30 %" in page.text
    assert "+1.00 points (no interval; 1 seed)" in page.rows["C13"][5]


def test_foreign_strings_are_text(tmp_path: Path) -> None:
    write_experiment(tmp_path, name=lambda what: what + HOSTILE)
    page = Table(write_page(tmp_path))
    assert page.source.count("<script") == 1
    assert "<img" not in page.source
    assert "49" not in page.rows["C13"][5]
    assert "\u202e" not in page.source
    assert "<script>alert(1)</script>" in page.text


def test_the_same_files_give_the_same_bytes(out: Path, tmp_path: Path) -> None:
    first, second = (write_page(out, tmp_path / name) for name in ("a.html", "b.html"))
    assert first.read_bytes() == second.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.html"]


def test_wrong_places_are_refused_in_one_line(out: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file; --results names the folder"):
        write_page(tmp_path / "file", None)
    with pytest.raises(UsageError, match="is a folder; --out names the file"):
        write_page(out, tmp_path)
    with pytest.raises(UsageError, match="no such folder"):
        write_page(out, tmp_path / "nowhere" / "page.html")


# Drawings -------------------------------------------------------------------------------------------------------------


def test_an_axis_of_differences_is_even_and_holds_zero() -> None:
    axis = effect_axis([1.0, 3.0], quotient=False)
    assert 0 < axis.null < axis.at(1.0) < axis.at(3.0) < 100
    assert axis.at(1.5) == pytest.approx((axis.at(0.0) + axis.at(3.0)) / 2, abs=0.01)
    assert (axis.null, "0") in axis.ticks
    assert all(place == axis.at(float(text.replace("−", "-"))) for place, text in axis.ticks)


def test_an_axis_of_quotients_is_even_in_their_logarithms() -> None:
    axis = effect_axis([0.25, 4.0], quotient=True)
    assert axis.null == pytest.approx(50)
    assert axis.at(2.0) == pytest.approx((axis.at(1.0) + axis.at(4.0)) / 2, abs=0.01)
    assert {"0.5", "1", "2"} <= {text for _, text in axis.ticks}


@pytest.mark.parametrize("quotient", [False, True])
def test_an_axis_of_no_effect_at_all_has_a_length(quotient: bool) -> None:
    axis = effect_axis([1.0] if quotient else [0.0], quotient=quotient)
    assert axis.null == 50
    assert effect_axis([], quotient=quotient).null == 50


def test_curves_are_means_over_the_epochs_that_all_seeds_reached() -> None:
    def seed(*errors: float) -> dict[str, Any]:
        return {"epochs": [{"epoch": i + 1, "val_top1_error": error} for i, error in enumerate(errors)]}

    svg = arm_curves([[seed(0.6, 0.4), seed(0.4, 0.2, 0.1)], [], [seed(0.5)]])
    # Arm A: (60 + 40) / 2 = 50 at epoch 1, (40 + 20) / 2 = 30 at epoch 2; the 10 % of one seed is in no mean.
    assert re.findall('aria-label="([^"]+)"', svg) == ["Held-out error, %, against epochs: A 50 to 30; C 50 to 50"]


def test_long_curves_of_different_lengths_keep_their_epochs_in_common() -> None:
    def seed(num: int) -> dict[str, Any]:
        return {"curve": [{"epoch": i / 100, "loss": i / 100, "error": 0.5} for i in range(num)]}

    # The loss is the epoch: if seeds were thinned each in its own way, the mean would not be.
    svg = arm_curves([[seed(1000), seed(500)]])
    width = -(-1000 // 80)
    ends = np.array([np.arange(width).mean(), np.arange(500 // width * width)[-width:].mean()]) / 100
    assert f'aria-label="Training loss, nats, against epochs: A {ends[0]:.3g} to {ends[1]:.3g}"' in svg


@pytest.mark.parametrize(
    "damaged",
    [{}, {"curve": None, "epochs": 3}, {"curve": [1, None, {}], "epochs": [{"epoch": 1, "val_loss": "x"}]}],
    ids=["nothing", "no lists", "no numbers"],
)
def test_a_result_without_curves_is_no_curve(damaged: dict[str, Any]) -> None:
    assert arm_curves([[damaged], []]) == ""


# In a browser ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tools() -> ModuleType:
    """What drives chromium for the pages of runs."""
    path = Path(__file__).parents[1] / "report" / "test_browser.py"
    spec = importlib.util.spec_from_file_location("browser_of_reports", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def chromium(tools: ModuleType) -> Iterator[Any]:
    if tools.CHROMIUM is None or tools.CHROMEDRIVER is None:
        pytest.skip("chromium and chromedriver are not on the PATH (Debian: apt-get install chromium chromium-driver)")
    with tools.browser() as session:
        yield session


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of three scales, foreign strings and a fault."""
    folder = tmp_path_factory.mktemp("shown")
    for scale, name in (("smoke", str), ("cifar10", str), ("fashion-mnist", lambda what: what + HOSTILE * 3)):
        write_experiment(folder, scale, name)
    (folder / "cifar10" / "base-00ff-seed1.json").unlink()
    return write_page(folder)


def test_nothing_is_loaded_and_nothing_complained_of(chromium: Any, shown: Path) -> None:
    chromium.open(shown)
    assert chromium.requests() == [shown.as_uri()]
    assert chromium.log("browser") == []


def test_the_ledger_sorts_by_click(chromium: Any, shown: Path) -> None:
    chromium.open(shown)
    column = "return [...document.querySelector('.ledger').tBodies[0].rows].map((row) => row.cells[%d].textContent)"
    click = "document.querySelector('.ledger').tHead.rows[0].cells[%d].firstChild.click()"
    ids = [claim.id for claim in CLAIMS]
    assert chromium.run(column % 0) == ids
    chromium.run(click % 0)
    assert chromium.run(column % 0) == ids[::-1]  # N10 before N9, which text would not give
    chromium.run(click % 6)
    words = [text.replace(" ", "") for text in chromium.run(column % 6)]
    pattern = "confirmed|contradicted|noeffectaslarge|inconclusive|mixed|notafairtestyet|nottested"
    first = [re.match(pattern, word)[0] for word in words]  # type: ignore
    assert first == sorted(first)


@pytest.mark.parametrize("width", [400, 900, 1100, 1400])
def test_nothing_sticks_out_sideways(chromium: Any, shown: Path, width: int) -> None:
    chromium.open(shown, width)
    chromium.run("document.querySelectorAll('details').forEach((each) => { each.open = true })")
    assert chromium.run("return innerWidth") == width
    assert chromium.run("return document.documentElement.scrollWidth <= innerWidth")
    cut = """return [...document.querySelectorAll('.ledger *, .forest > div > div, .why *')].filter((e) =>
      e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 100))"""
    assert chromium.run(cut) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(chromium: Any, shown: Path, tools: ModuleType, scheme: str) -> None:
    chromium.open(shown, scheme=scheme)
    assert chromium.run(tools.CONTRAST) == []


def test_print_is_black_on_white_and_fits_the_sheet(chromium: Any, shown: Path) -> None:
    chromium.open(shown, width=1016, scheme="dark", media="print")  # A4 across, less its margins
    assert chromium.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert chromium.run("return getComputedStyle(document.querySelector('nav')).display") == "none"
    wide = "return [...document.querySelectorAll('main *')].filter((e) => e.getBoundingClientRect().right > innerWidth)"
    assert chromium.run(wide + ".map((e) => e.outerHTML.slice(0, 100))") == []


def test_pictures_have_words_and_links_lead_somewhere(chromium: Any, shown: Path) -> None:
    chromium.open(shown)
    chromium.devtools("Accessibility.enable")
    nodes = [n for n in chromium.devtools("Accessibility.getFullAXTree")["nodes"] if not n["ignored"]]
    named = [n for n in nodes if n["role"]["value"] in {"image", "button", "link", "heading"}]
    assert {"image", "button", "link", "heading"} == {n["role"]["value"] for n in named}
    assert all(n["name"]["value"].strip() for n in named)
    effects = [n["name"]["value"] for n in named if n["role"]["value"] == "image" and " % interval" in str(n["name"])]
    assert len(effects) == 4  # two at each scale but smoke
    lost = "return [...document.links].map((a) => a.hash.slice(1)).filter((id) => !document.getElementById(id))"
    assert chromium.run(lost) == []


def test_the_marks_of_an_effect_stand_where_its_numbers_are(chromium: Any, shown: Path) -> None:
    chromium.open(shown)

    def middle(what: str) -> str:
        return f"const r = document.querySelector('{what}').getBoundingClientRect(); return r.left + r.width / 2"

    first = "#experiment-0 .forest .strip "
    zero, effect, printed = (chromium.run(middle(first + mark)) for mark in (".null", "circle:not(.pair)", "path"))
    low, high = (
        chromium.run(f"const r = document.querySelector('{first}.interval').getBoundingClientRect(); return r.{side}")
        for side in ("left", "right")
    )
    unit = effect - zero  # 1.0 points
    assert unit > 20
    assert printed - zero == pytest.approx(0.4 * unit, abs=1.5)
    assert low - zero == pytest.approx(-3.082 * unit, abs=1.5)
    assert high - zero == pytest.approx(5.082 * unit, abs=1.5)
    band, *pairs = (
        chromium.run(
            f"const r = document.querySelectorAll('{first}{mark}')[{i}].getBoundingClientRect(); return [r.left, r.right]"
        )
        for mark, i in (("rect", 0), (".pair", 0), (".pair", 1), (".pair", 2))
    )
    assert [x - zero for x in band] == pytest.approx([-0.4 * unit, 0.4 * unit], abs=1.5)
    assert [sum(x) / 2 - zero for x in pairs] == pytest.approx([0.9 * unit, 1.0 * unit, 1.1 * unit], abs=1.5)


ROW = {"claim": "C13", "says": "s", "n": 1, "unit": "points", "effect": 1.0, "low": None, "high": None, "printed": None}


@pytest.mark.parametrize(
    "changes",
    [
        {"experiment": ["x"]},
        {"scale": 7},
        {"arms": []},
        {"comparisons": None},
        {"comparisons": [1]},
        {"comparisons": [{"claim": "C13"}]},
        {"comparisons": [ROW | {"verdict": "v", "diverged": {}, "effect": "z"}]},
        {"comparisons": [ROW | {"verdict": "v", "diverged": {}, "unit": "miles"}]},
        {"comparisons": [comparison("s", [1.0], ["z"])]},
        {"comparisons": [comparison("s", [1.0], [2.0], seeds=["0"])]},
        {"comparisons": [comparison("s", [0.0], [2.0], unit="times")]},
        {"comparisons": [comparison("s", [1.0, 2.0], [2.0, 3.0], n=1)]},
        {"comparisons": [comparison("s", [1.0], [2.0], printed="6")]},
        {"comparisons": [ROW | {"verdict": "v", "diverged": {}, "n": 10**400, "effect": 10**400}]},
    ],
)
def test_a_document_of_wrong_types_is_named_and_left_out(tmp_path: Path, changes: dict[str, Any]) -> None:
    document = {"experiment": "x", "scale": "smoke", "command": "c", "arms": {}, "comparisons": []} | changes
    (tmp_path / "smoke").mkdir()
    (tmp_path / "smoke" / "x.json").write_text(json.dumps(document))
    faults: list[str] = []
    assert documents.read_documents(tmp_path, faults) == []
    assert "x.json is a damaged result of `alexnet claims run`" in faults[0]
    with pytest.raises(AlexNetError, match="a damaged result of `alexnet claims run`"):
        documents.read_documents(tmp_path)
