"""Arms differ from their recipe in exactly what they name; every experiment runs; nothing is computed twice."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from alexnet.claims import documents, laboratory, tuning
from alexnet.claims.comparison import evidence_of
from alexnet.claims.experiment import Arm, Comparison, Experiment, Side, arms_of, lower, recipe_of, vary
from alexnet.claims.groups import EXPERIMENTS, experiments_of, find_experiments
from alexnet.claims.judging import judge
from alexnet.claims.laboratory import config_key, open_laboratory
from alexnet.claims.ledger import CLAIMS
from alexnet.claims.measures import MEASURES
from alexnet.claims.results import write_lines
from alexnet.claims.runner import run_experiment
from alexnet.claims.scales import SCALES, fan_ins, find_scale, scaled_network
from alexnet.claims.tuning import FIRST_SEED
from alexnet.core.config import differences, from_json, to_json
from alexnet.core.device import Machine, choose_device
from alexnet.core.errors import AlexNetError, UsageError
from alexnet.models import model_config
from alexnet.models.alexnet import alexnet_2012
from alexnet.probes import autoencoder
from alexnet.recipes import paper2012
from alexnet.training.config import TrainConfig

BY_ID = list(EXPERIMENTS.values())


def ids(experiment: Experiment) -> str:
    return experiment.id


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("experiment", BY_ID, ids=ids)
def test_arms_differ_from_the_recipe_in_exactly_what_they_name(experiment, scale):
    if not experiment.fits(scale):
        pytest.skip(f"{experiment.id} means nothing at this scale")
    base = to_json(recipe_of(experiment, find_scale(scale)))
    arms = arms_of(experiment, find_scale(scale))
    for arm, config in arms.values():
        named = set(arm.changes)
        changed = differences(base, to_json(config))
        assert {d for d in changed if not any(d == n or d.startswith(n + ".") for n in named)} == set()
        if scale == "cifar10":  # elsewhere a change may be none: grey images have no color noise to leave out
            assert {n for n in named if not any(d == n or d.startswith(n + ".") for d in changed)} == set()
        assert from_json(TrainConfig, to_json(config)) == config


@pytest.mark.parametrize("experiment", BY_ID, ids=ids)
def test_comparisons_are_of_arms_measures_and_claims_that_exist(experiment):
    scale = find_scale(experiment.scales[-1] if experiment.scales else "cifar10")
    arms = arms_of(experiment, scale)
    compared = {arm for c in experiment.comparisons for side in (c.lower, c.higher) for arm in side.arms}
    assert compared == set(arms)
    for comparison in experiment.comparisons:
        assert comparison.lower.measure in MEASURES
        assert comparison.higher.measure in MEASURES
        assert comparison.claim in {claim.id for claim in CLAIMS}
        assert comparison.lower != comparison.higher


def test_an_arm_of_the_same_name_is_the_same_everywhere():
    """So that a file's name says what it holds, and an arm is trained once."""
    changes: dict[tuple[str, str], str] = {}
    for experiment in BY_ID:
        if experiment.setting or not experiment.fits("cifar10"):
            continue
        for name, (arm, config) in arms_of(experiment, find_scale("cifar10")).items():
            key = config_key(config)
            assert changes.setdefault((experiment.recipe, name), key) == key, (experiment.id, arm.name)


@pytest.mark.parametrize("experiment", BY_ID, ids=ids)
def test_every_experiment_runs_at_the_smoke_scale(experiment, lab, monkeypatch):
    monkeypatch.setattr(autoencoder, "STEPS", 60)
    monkeypatch.setattr(tuning, "MOST_STEPS", 1)
    if not experiment.fits("smoke"):
        pytest.skip(f"{experiment.id} needs {', '.join(experiment.scales)}")

    def two_candidates(base: TrainConfig) -> list[Arm]:
        arms = experiment.arms(base)
        return [replace(arm, tuned=arm.tuned and (arm.tuned[0], arm.tuned[1][:2])) for arm in arms]

    document = run_experiment(replace(experiment, arms=two_candidates), find_scale("smoke"), [0], lab)
    assert [c["claim"] for c in document["comparisons"]] == [
        c.claim for c in experiment.compared_at(find_scale("smoke"))
    ]
    assert all(c["verdict"] == "the code ran" and c["n"] + sum(c["diverged"].values()) for c in document["comparisons"])
    assert not any("lower_values" in c or c["effect"] is not None for c in document["comparisons"])
    assert json.loads((lab.folder / f"{experiment.id}.json").read_text()) == document
    for arm in document["arms"].values():
        for name in arm["results"]:
            assert (lab.folder / name).is_file()


def tiny(arms, comparisons, **fields) -> Experiment:
    return Experiment(id="tiny", title="", arms=arms, comparisons=comparisons, **fields)


def test_a_result_is_computed_once_and_never_written_again(lab, tmp_path, monkeypatch):
    experiment = tiny(
        lambda base: (Arm(name="base"), Arm(name="other", changes={"model.normalization": "none"})),
        (lower("center_error", "C10", "", than="other"),),
    )
    first = run_experiment(experiment, find_scale("smoke"), [0, 1], lab)
    stamps = {file: file.stat().st_mtime_ns for file in lab.folder.glob("*-seed*.json")}
    monkeypatch.setattr(laboratory, "train", lambda *_, **__: pytest.fail("trained again"))
    again = run_experiment(experiment, find_scale("smoke"), [0, 1], lab)
    assert again == first
    assert {file: file.stat().st_mtime_ns for file in lab.folder.glob("*-seed*.json")} == stamps
    assert first["comparisons"][0]["n"] == 2
    write_lines(tmp_path / "smoke", lab.results.all().values())  # published
    elsewhere = replace(lab, out=tmp_path)
    assert run_experiment(experiment, find_scale("smoke"), [0, 1], elsewhere) == first
    assert sorted(path.name for path in elsewhere.folder.iterdir()) == ["results.jsonl", "tiny.json"]


def test_the_key_of_a_result_is_what_was_computed():
    config = find_scale("cifar10").network
    assert config_key(config) == config_key(replace(config, recipe="other", checkpoint_steps=3))
    assert config_key(config) != config_key(vary(config, {"optimizer.lr": 0.5}))
    assert config_key(config).rpartition("-")[0] == config_key(replace(config, seed=7)).rpartition("-")[0]


def test_the_best_candidate_is_taken_by_a_seed_that_is_not_compared(lab, monkeypatch):
    seen = []

    def fake(lab, config):
        seen.append((config.optimizer.lr, config.seed))
        return {"views": {"1": {"top1_error": abs(config.optimizer.lr - 0.02)}}}

    experiment = tiny(
        lambda base: (
            Arm(name="fake", tuned=("optimizer.lr", (0.01, 0.02, 0.04)), result=fake),
            Arm(name="fixed", result=fake),
        ),
        (lower("center_error", "C10", "", arm="fake", than="fixed"),),
    )
    document = run_experiment(experiment, find_scale("smoke"), [0, 1], lab)
    assert "lower_values" not in document["comparisons"][0]  # of this scale
    arms = {name: arm for name, (arm, _) in arms_of(experiment, find_scale("smoke")).items()}
    results = {name: [fake(None, vary(find_scale("smoke").network, {"optimizer.lr": 0.02}))] for name in arms}
    results["fixed"] = [{"views": {"1": {"top1_error": 0.01}}}]
    (row,) = (evidence_of(comparison, arms, results) for comparison in experiment.comparisons)
    assert (row["lower_values"], row["higher_values"]) == ([0], [pytest.approx(1.0)])  # percentage points
    assert document["chosen"] == {"fake": {"optimizer.lr": 0.02}}
    assert seen[:3] == [(0.01, FIRST_SEED), (0.02, FIRST_SEED), (0.04, FIRST_SEED)]


def test_a_training_that_diverges_is_a_result_and_no_number():
    diverged, fine = {"diverged": "step 3: the loss is nan"}, {"views": {"1": {"top1_error": 0.5}}}
    comparison = lower("center_error", "C10", "", arm="a", than="b")
    arms = {name: Arm(name=name) for name in "ab"}
    some = evidence_of(comparison, arms, {"a": [fine, diverged, fine], "b": [fine, fine, fine]})
    assert (some["n"], some["diverged"]) == (2, {"a": 1})
    # Seeds that failed are not left out at random.
    assert some["seeds"] == [0, 2]
    assert "1 of 3 runs of a diverged, so no pair includes them" in some["reasons"]
    none = evidence_of(comparison, arms, {"a": [diverged], "b": [fine]})
    assert (none["n"], none["seeds"], len(none["reasons"])) == (0, [], 1)


def test_a_training_with_an_absurd_rate_is_recorded_as_diverged(lab):
    config = vary(find_scale("smoke").network, {"optimizer.lr": 1e20})
    result = lab.result(Arm(name="absurd"), config)
    assert "the loss is" in result["diverged"]
    assert lab.result(Arm(name="absurd"), config) == result


def test_other_failures_are_not_results(lab, monkeypatch):
    def fail(*_, **__):
        raise AlexNetError("no space left")

    monkeypatch.setattr(laboratory, "train", fail)
    with pytest.raises(AlexNetError, match="no space"):
        lab.result(Arm(name="x"), vary(find_scale("smoke").network, {"seed": 99}))


def test_vary_replaces_nested_fields_and_refuses_unknown_ones():
    config = paper2012()
    assert vary(config, {"model.lrn_k": 1.0, "model.towers": 1, "epochs": 2}) == replace(
        config, model=replace(config.model, lrn_k=1.0, towers=1), epochs=2
    )
    with pytest.raises(TypeError, match="lrn_q"):
        vary(config, {"model.lrn_q": 1.0})


def test_the_imagenet_scale_is_the_published_schedule_unchanged():
    assert replace(find_scale("imagenet").network, recipe="paper2012") == paper2012()


def test_results_of_a_folder_of_photographs_do_not_lie_among_them(tmp_path):
    machine = Machine(device=choose_device("cpu"), quiet=True)
    folders = [open_laboratory(str(tmp_path / name / "photos"), tmp_path / "out", machine).folder for name in "ab"]
    assert {folder.parent for folder in folders} == {tmp_path / "out"}
    assert folders[0] != folders[1]
    assert open_laboratory("cifar10", tmp_path, machine).folder == tmp_path / "cifar10"


def test_a_folder_is_a_scale():
    assert find_scale("photos/mine").network.data == "photos/mine"
    assert "own photographs" in find_scale("photos/mine").says


def test_units_of_the_scaled_network_start_with_the_programs_signal():
    """Deviation of a unit's input sum: std * sqrt(fan-in), for inputs of one size."""
    std = (0.01, 0.01, 0.03, 0.03, 0.03, 0.01, 0.01, 0.01)
    for config in (scaled_network(24, channels=(8, 16, 16, 16, 16), fc_units=32), find_scale("cifar10").network.model):
        program = [s * fan**0.5 for s, fan in zip(std, fan_ins(alexnet_2012()), strict=True)]
        ours = [std * fan**0.5 for std, fan in zip(config.weight_std, fan_ins(config), strict=True)]
        assert ours == pytest.approx(program, rel=1e-3)
    assert fan_ins(alexnet_2012()) == (363, 1200, 2304, 1728, 1728, 9216, 4096, 4096)
    assert fan_ins(model_config("alexnet_2012_one_tower"))[1] == 48 * 25


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("C99", "no claim or experiment is called 'C99'"),
        ("C2", "C2 has no experiment to run; `alexnet claims list C2`"),
        ("C1", "C1 has no experiment to run; `alexnet claims list C1`"),
    ],
)
def test_what_cannot_be_run_is_said_in_a_line(name, message):
    with pytest.raises(UsageError, match=message):
        find_experiments(name)


def test_claims_and_experiments_are_found_by_name():
    assert [e.id for e in find_experiments("lrn")] == ["lrn"]
    assert "lrn" in [e.id for e in find_experiments("c10")]
    assert {e.id for e in experiments_of("C19")} == {"dropout"}


def test_a_scale_that_means_nothing_is_refused(lab):
    with pytest.raises(UsageError, match="relu-tanh cannot be run at the scale imagenet, only at smoke, cifar10-small"):
        run_experiment(EXPERIMENTS["relu-tanh"], find_scale("imagenet"), [0], lab)


def test_the_network_has_found_a_division_of_labor_if_one_tower_is_grey(tmp_path, lab):
    import numpy as np

    random = np.random.default_rng(0)
    kernels = random.normal(size=(16, 3, 5, 5))
    (tmp_path / "results").mkdir()
    np.save(tmp_path / "results" / "conv1.npy", kernels.astype(np.float32))
    mixed = laboratory.tower_colors(tmp_path)
    kernels[:8] = kernels[:8].mean(1, keepdims=True)
    np.save(tmp_path / "results" / "conv1.npy", kernels.astype(np.float32))
    parted = laboratory.tower_colors(tmp_path)
    assert mixed["difference"] < 2 * mixed["by_chance"]
    assert parted["difference"] > parted["by_chance"]
    assert parted["p"] == pytest.approx(1 / (1 + laboratory.PERMUTATIONS), rel=0.5)  # no other deal parts them as far
    assert mixed["p"] > 10 * parted["p"]
    for result in (mixed, parted):
        assert (result["p"] < 0.05) == (result["difference"] > result["by_chance"])
    assert parted["difference"] == pytest.approx(2 / 3, abs=0.1)  # color has two of three axes


def test_a_side_says_what_is_subtracted_where_something_is():
    assert Side("base", "gap").to_json() == {"arm": "base", "measure": "gap"}
    gain = Side("no-dropout", "center_error", less="base")
    assert gain.arms == ("no-dropout", "base")
    assert gain.to_json() == {"arm": "no-dropout", "measure": "center_error", "less": "base"}


def test_gains_are_compared_seed_by_seed():
    """Dropout gains 3 and 5 points in the whole network, 1 and 0 in the narrow one; the third seed has no number."""
    errors = {
        "base": (0.20, 0.22, 0.21),
        "no-dropout": (0.23, 0.27, 0.24),
        "narrow": (0.30, 0.31, 0.30),
        "narrow-no-dropout": (0.31, 0.31, None),
    }
    results = {
        name: [{"diverged": "nan"} if e is None else {"views": {"1": {"top1_error": e}}} for e in of_arm]
        for name, of_arm in errors.items()
    }
    comparison = Comparison(
        claim="N28",
        says="",
        lower=Side("narrow-no-dropout", "center_error", less="narrow"),
        higher=Side("no-dropout", "center_error", less="base"),
    )
    arms = {name: Arm(name=name, changes={"network": name}, search=("optimizer.lr",)) for name in errors}
    row = evidence_of(comparison, arms, results)
    assert row["lower_values"] == pytest.approx([1, 0])
    assert row["higher_values"] == pytest.approx([3, 5])
    assert (row["n"], row["seeds"], row["diverged"]) == (2, [0, 1], {"narrow-no-dropout": 1})
    assert row["reasons"] == ["1 of 3 runs of narrow-no-dropout diverged, so no pair includes them"]
    untuned = arms | {"base": Arm(name="base")}
    assert len(evidence_of(comparison, untuned, results)["reasons"]) > 1
    document = {"experiment": "tiny", "scale": "cifar10-small", "arms": {}, "comparisons": [row | {"reasons": []}]}
    (judged,) = judge([document])[0]["comparisons"]
    assert judged["effect"] == pytest.approx(((3 - 1) + (5 - 0)) / 2)


def test_runs_that_are_subtracted_are_shared_too():
    def row(**sides: dict) -> dict:
        numbers = {f"{side}_values": [1.0, 2.0] for side in sides}
        rest = {"claim": "N28", "unit": "points", "printed": None, "reasons": [], "untrained": [], "seeds": [0, 1]}
        return {**rest, **numbers, **{side: {"measure": "center_error", **of} for side, of in sides.items()}}

    gain = row(lower={"arm": "a", "less": "b"}, higher={"arm": "c", "less": "base"})
    plain = row(lower={"arm": "base"}, higher={"arm": "d"})
    arms = {name: {"results": [f"{name}-{name}{name}-seed0.json"]} for name in ("a", "b", "c", "d", "base")}
    document = {"experiment": "tiny", "scale": "cifar10-small", "arms": arms, "comparisons": [gain, plain]}
    first, second = judge([document])[0]["comparisons"]
    assert first["shares"] == [{"arm": "base", "comparisons": 1, "claims": ["N28"]}]
    assert second["shares"] == [{"arm": "base", "comparisons": 1, "claims": ["N28"]}]


def test_own_photographs_that_changed_are_not_compared_with_what_they_were(tmp_path):
    config = find_scale("smoke").network

    def lab_of(scale: str, fingerprint: str) -> laboratory.Laboratory:
        machine = Machine(device=choose_device("cpu"))
        return laboratory.Laboratory(scale, tmp_path, machine, lambda _config: SimpleNamespace(fingerprint=fingerprint))

    for fingerprint in ("before", "before"):
        lab_of("photos", fingerprint).require_same_data(config)
    with pytest.raises(UsageError, match="holds results for other images"):
        lab_of("photos", "after").require_same_data(config)
    lab_of("smoke", "after").require_same_data(config)  # a named set
    assert not (tmp_path / "smoke").exists()
    assert documents.read_documents(tmp_path, faults := [])
    assert faults == []


def test_narrow_layers_start_with_the_same_signal():
    base = find_scale("imagenet").network
    arms = arms_of(EXPERIMENTS["dropout-narrow"], find_scale("imagenet"))
    narrow = arms["narrow-fc"][1].model
    assert narrow.fc_units == (512, 512)
    # fc7 and fc8 read an eighth of the units: sqrt(8) = 2.828427 times the weights.
    assert narrow.weight_std[:6] == base.model.weight_std[:6]
    assert narrow.weight_std[6:] == pytest.approx([0.02828427, 0.02828427])
    assert arms["narrow-fc-no-dropout"][1].model == replace(narrow, dropout_rate=0.0)
