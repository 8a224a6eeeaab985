"""The verdicts that come with the package follow from the result files of the repository."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alexnet.claims.comparison import compare_all
from alexnet.claims.documents import published_curves, read_documents
from alexnet.claims.groups import EXPERIMENTS
from alexnet.claims.judging import judge
from alexnet.claims.laboratory import Laboratory
from alexnet.claims.ledger import find_claim
from alexnet.claims.measures import share_at_chance
from alexnet.claims.plan import AT_OTHERS, AT_PLAN, AT_TWICE
from alexnet.claims.results import LINES, Results, write_lines
from alexnet.claims.runner import run_experiment
from alexnet.claims.scales import HISTORY, find_scale
from alexnet.core.device import Machine, choose_device
from alexnet.core.runs import read_json
from shared import script

collect_claims = script("collect_claims")
shortened = script("collect_probes").shortened

REPOSITORY = Path(__file__).parents[2]
RESULTS = REPOSITORY / "results" / "claims"
PUBLISHED = read_documents(None)
PUBLISHED_RESULTS = {scale: Results(RESULTS / scale) for scale in {document["scale"] for document in PUBLISHED}}


@pytest.fixture(scope="module")
def judged_again():
    """The documents with comparisons that are worked out from the result files alone: their numbers, the model of all arms of a
    scale, and the words."""
    found = []
    for document in PUBLISHED:
        results = {
            arm: [PUBLISHED_RESULTS[document["scale"]][name] for name in about["results"]]
            for arm, about in document["arms"].items()
        }
        for arm, of_arm in results.items():
            assert [result["seed"] for result in of_arm] == document["seeds"], arm
        rows = compare_all(EXPERIMENTS[document["experiment"]], find_scale(document["scale"]), results)
        found.append(document | {"comparisons": rows})
    return {(document["experiment"], document["scale"]): document for document in judge(found)}


NUMBERS = ("effect", "low", "high", "level", "p", "of_interest", "power", "spread", "df")


@pytest.mark.parametrize("document", PUBLISHED, ids=lambda d: f"{d['experiment']}-{d['scale']}")
def test_a_published_verdict_is_that_of_its_results(document, judged_again):
    again = judged_again[document["experiment"], document["scale"]]
    for row, published in zip(again["comparisons"], document["comparisons"], strict=True):
        for key in (
            "claim",
            "says",
            "verdict",
            "bound",
            "holds",
            "reasons",
            "cut",
            "seeds",
            "planned",
            "judged",
            "pooled",
        ):
            assert row[key] == published[key], key
        for key in ("more_seeds", "shares"):
            assert row[key] == published[key], key
        for key in NUMBERS:
            assert row[key] == (
                None if published[key] is None else pytest.approx(published[key], rel=1e-3, abs=2e-3)
            ), key


def test_what_is_published_was_judged_by_the_rules_of_today():
    for document in PUBLISHED:
        path = RESULTS / document["scale"] / f"{document['experiment']}.json"
        stored = read_json(path)["comparisons"]
        assert [row["verdict"] for row in stored] == [row["verdict"] for row in document["comparisons"]]
        assert [row["planned"] for row in stored] == [row["planned"] for row in document["comparisons"]]


def test_every_comparison_has_its_plan_its_spread_and_what_it_shares():
    for row in ROWS:
        assert row["planned"] >= 5, row["says"]
        assert (row["spread"] is None) == bool(row["each"] or row["cut"])
        assert row["spread"] is None or row["df"] >= 1
        assert (row["low"] is None) == (row["verdict"] == "not a fair test yet" or row["each"] or bool(row["cut"]))
        assert isinstance(row["shares"], list)


def test_the_error_rates_of_the_rules_are_below_five_percent():
    document = read_json(RESULTS / "error-rates.json")
    assert list(document["levels"].values()) == [AT_PLAN, AT_TWICE, AT_OTHERS]
    none, some = (
        [row for row in document["rates"] if row["true_effect_of_that_of_interest"] == effect] for effect in (0, 1)
    )
    assert max(row["confirmed"] + row["contradicted"] for row in none) < 0.05
    assert max(row["an_interval_ever_left_out_no_effect"] for row in none) < 0.05
    assert max(row["no effect as large"] for row in some) < 0.025
    assert min(row["confirmed"] for row in some) > 0.8


@pytest.fixture(scope="module")
def labs_without_data(tmp_path_factory):
    """A laboratory for each scale, in a folder with the published results and nothing else."""
    out = tmp_path_factory.mktemp("claims")
    machine = Machine(device=choose_device("cpu"), quiet=True)
    for scale in PUBLISHED_RESULTS:
        (out / scale).mkdir()
        (out / scale / LINES).write_bytes((RESULTS / scale / LINES).read_bytes())
    return {
        scale: Laboratory(scale, out, machine, lambda _config: pytest.fail("trains")) for scale in PUBLISHED_RESULTS
    }


@pytest.mark.parametrize("document", PUBLISHED, ids=lambda d: f"{d['experiment']}-{d['scale']}")
def test_an_experiment_finds_its_published_results_and_trains_nothing(document, labs_without_data):
    """A field that is added to the settings must not make results unknown: see laboratory.ADDED_FIELDS."""
    name = document["scale"]
    experiment = EXPERIMENTS[document["experiment"]]
    first = next(iter(document["arms"].values()))["results"][0]
    scale = find_scale(name).computed_in(PUBLISHED_RESULTS[name][first]["config"]["precision"])
    again = run_experiment(experiment, scale, document["seeds"], labs_without_data[name])
    for arm, about in document["arms"].items():
        assert again["arms"][arm]["results"] == about["results"]
    assert shortened(again["chosen"]) == document["chosen"]  # published numbers have six digits
    assert [row["n"] for row in again["comparisons"]] == [row["n"] for row in document["comparisons"]]


@pytest.mark.parametrize("scale", sorted(PUBLISHED_RESULTS))
def test_published_results_are_the_lines_of_one_file(scale, tmp_path):
    write_lines(tmp_path, PUBLISHED_RESULTS[scale].all().values())
    assert (tmp_path / LINES).read_bytes() == (RESULTS / scale / LINES).read_bytes()


def test_published_curves_are_those_of_the_result_files():
    known = published_curves()
    assert known
    shown = {f"{d['scale']}/{name}" for d in PUBLISHED for about in d["arms"].values() for name in about["results"]}
    assert known.keys() <= shown
    for name, columns in known.items():
        scale, _, file = name.partition("/")
        result = PUBLISHED_RESULTS[scale][file]
        curve = result["curve"]
        kept = columns["curve"]["loss"]
        assert len(kept) <= 80
        width = len(curve) // len(kept)
        assert kept[0] == pytest.approx(sum(point["loss"] for point in curve[:width]) / width, rel=1e-3)
        assert columns["epochs"]["val_top1_error"][-1] == pytest.approx(
            result["epochs"][-1]["val_top1_error"], rel=1e-3
        )


ROWS = [row for document in PUBLISHED for row in document["comparisons"]]


def of(claim: str) -> list[dict]:
    """What was compared where results are history: these stay."""
    kept = [document for document in PUBLISHED if document["scale"] in HISTORY]
    return [row for document in kept for row in document["comparisons"] if row["claim"] == claim]


def test_figure_1_is_a_bound_without_an_interval():
    # Two of the three tanh runs ended after 40 epochs above 25 % training error; all three came after all of ReLU.
    (row,) = of("C7")
    assert (row["verdict"], row["bound"], row["low"], row["high"]) == ("inconclusive", "at least", None, None)
    assert row["effect"] == pytest.approx(40 / 6.28389, rel=1e-4)  # of medians
    assert (row["p"], row["planned"], row["more_seeds"]) == (2 / 2**3, 7, 4)
    assert row["cut"] == ["2 of 3 runs of tanh had not got there when they ended, after 40 epochs"]


@pytest.mark.parametrize(
    "claim", ["C10", "C20", "C19", "C22", "C25", "C27", "N1", "N22", "N23", "C5", "C6", "C8", "C13"]
)
def test_what_was_not_tuned_alike_has_no_verdict(claim):
    assert {row["verdict"] for row in of(claim)} == {"not a fair test yet"}
    assert all(row["reasons"] and row["low"] is None for row in of(claim))


@pytest.mark.parametrize(
    ("claim", "reason"),
    [
        ("C10", "rate and initial weights were chosen for the unchanged recipe, not for no-norm"),
        ("C20", "rate and initial weights were chosen for the unchanged recipe, not for no-momentum"),
        ("C19", 'every run "converges" where the schedule lowers the rate'),
        ("C22", "mostly the loss of the first steps"),
        ("C27", "five answers out of 10 classes leave little to get wrong"),
        ("C26", "five answers out of 10 classes leave little to get wrong"),
        ("N22", "lenet failed to train: 3 of 3 runs spent 44 to 76 % of their passes at chance level"),
    ],
)
def test_the_reason_is_said(claim, reason):
    assert any(reason in text for row in of(claim) for text in row["reasons"])


def test_one_of_three_runs_has_a_division_of_labor():
    # By chance 95 % stay below 19.2, 17.5 and 21.7 points; 4.8, 15.1 and 33.8 were measured.
    (row,) = of("C34")
    assert (row["verdict"], row["holds"], row["n"], row["effect"], row["low"]) == ("inconclusive", 1, 3, None, None)
    assert row["p"] == pytest.approx(1 - 0.95**3, rel=1e-4)


def test_what_was_chosen_on_test_images_is_said():
    (row,) = of("N22")
    assert row["notes"] == [
        "the rate of lenet was chosen by the error on the same held-out images that are counted here"
    ]


def test_the_figures_of_other_results_are_in_their_files():
    imagenette = {run["recipe"]: run["results"] for run in read_json(REPOSITORY / "results/imagenette.json")["runs"]}
    modern, paper = imagenette["modern_photos"], imagenette["paper2012_photos"]
    today = [f"{100 * run['center']['top1_error']:.1f} %" for run in (modern, paper)]
    assert all(text in find_claim("N23").elsewhere for text in today)
    fisher = read_json(RESULTS / "baselines" / "sift-fisher-imagenette.json")["top1_error"]
    for error in (fisher, modern["ten"]["top1_error"]):
        assert f"{100 * error:.1f} %" in find_claim("C25").elsewhere


def test_the_page_of_results_counts_verdicts_as_they_are():
    results = " ".join((REPOSITORY / "docs" / "results.md").read_text(encoding="utf-8").split())
    assert collect_claims.counted() in results
    (row,) = of("C7")
    assert f"at least {row['effect']:.1f} times" in results


@pytest.mark.parametrize(
    "name", ["README.md", "README.zh.md", "docs/results.md", "docs/claims.md", "docs/experiment-log.md"]
)
def test_no_page_gives_the_withdrawn_interval(name):
    text = " ".join((REPOSITORY / name).read_text(encoding="utf-8").split())
    for withdrawn in ("4.9 to 7.7", "4.87 to 7.73", "No division of labor", "at least 6.1 times sooner"):
        assert withdrawn not in text


def test_the_table_of_the_docs_is_that_of_the_verdicts():
    assert collect_claims.table() in (REPOSITORY / "docs" / "claims.md").read_text(encoding="utf-8")


def test_a_scale_on_which_regularization_matters_was_found_before_anything_was_compared():
    docs = (REPOSITORY / "docs" / "claims.md").read_text(encoding="utf-8")
    assert collect_claims.pilot_table() in docs
    pilot = read_json(RESULTS / "pilot-cifar10-small.json")
    scale = find_scale(pilot["scale"])
    assert (pilot["says"], pilot["train_images"]) == (scale.says, scale.network.train_images)
    for run in pilot["runs"]:
        assert run["error"] < 0.3
        assert run["gap"] == pytest.approx(run["error"] - run["training_error"])
        assert run["cpu_seconds"] < 120
    assert pilot["summary"]["gap"]["mean"] == pytest.approx(
        sum(run["gap"] for run in pilot["runs"]) / len(pilot["runs"])
    )
    assert pilot["summary"]["gap"]["mean"] > 0.1


def test_publishing_adds_what_is_whole_to_what_is_published(tmp_path, monkeypatch):
    monkeypatch.setattr(collect_claims, "RESULTS", tmp_path / "published")
    for seed in (1, 0):
        out = Results(tmp_path / f"out-{seed}" / "cifar10")
        made = {"fingerprint": f"00ff-seed{seed}", "seed": seed, "error": 0.123456789}
        for arm in ("base", "tried", "unfinished"):
            out.add(made | {"arm": arm})
        name = f"00ff-seed{seed}.json"
        document = {
            "experiment": "lrn",
            "seeds": [seed],
            "arms": {"base": {"results": [f"base-{name}"]}},
            "tuning": {"base": {"candidates": [{"results": [f"tried-{name}"]}]}},
        }
        (out.folder / "lrn.json").write_text(json.dumps(document))
        for other in ("smoke", "imagenette"):  # the second has no experiment that is whole
            Results(tmp_path / f"out-{seed}" / other).add(made | {"arm": "base"})
        collect_claims.publish(tmp_path / f"out-{seed}")
    published = Results(tmp_path / "published" / "cifar10")
    found = [(result["arm"], result["seed"]) for result in published.all().values()]
    assert found == [("base", 0), ("base", 1), ("tried", 0), ("tried", 1)]
    assert {result["error"] for result in published.all().values()} == {0.123457}
    assert sorted(path.name for path in published.folder.iterdir()) == ["lrn.json", "results.jsonl"]
    assert read_json(published.folder / "lrn.json")["seeds"] == [0]
    assert [path.name for path in (tmp_path / "published").iterdir()] == ["cifar10"]


def test_curves_are_published_where_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(collect_claims, "RESULTS", tmp_path / "published")
    points = [{"epoch": i + 1, "loss": 1.0, "error": 0.75 if i < 4 else 0.2} for i in range(10)]
    out = Results(tmp_path / "out" / "cifar10-small")
    arms = {"base": "00aa", "slow": "00bb", "tried": "00cc"}
    for arm, key in arms.items():
        for seed in range(7):
            counts = {"num_classes": 4, "views": {"1": {"top1_error": 0.2}}, "curve": points, "epochs": points}
            out.add({"arm": arm, "seed": seed, "fingerprint": f"{key}-seed{seed}"} | counts)
    names = {arm: [f"{arm}-{key}-seed{seed}.json" for seed in range(7)] for arm, key in arms.items()}
    sides = {"lower": {"arm": "slow"}, "higher": {"arm": "slow"}}
    document = {
        "experiment": "dropout",
        "arms": {arm: {"results": names[arm]} for arm in ("base", "slow")},
        "tuning": {"base": {"candidates": [{"results": names["tried"]}]}},
        "comparisons": [sides | {"unit": "times"}, {"lower": {"arm": "base"}, **sides, "unit": "points"}],
    }
    (out.folder / "dropout.json").write_text(json.dumps(document))
    collect_claims.publish(tmp_path / "out")
    published = Results(tmp_path / "published" / "cifar10-small").all()
    assert {name for name, result in published.items() if "curve" not in result} == {*names["base"][5:]}
    assert {share_at_chance(result) for result in published.values()} == {0.4}
    collect_claims.publish(tmp_path / "published")  # once more, from what is published
    assert Results(tmp_path / "published" / "cifar10-small").all() == published


def test_at_least_ten_claims_were_trained_with_three_seeds():
    trained = {c["claim"] for d in PUBLISHED if len(d["seeds"]) >= 3 for c in d["comparisons"] if c["n"] >= 3}
    assert len(trained) >= 10
