"""Every arm has the same search for its settings, and no search sees an image that is counted."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from alexnet.claims import laboratory, tuning
from alexnet.claims.experiment import Arm, Experiment, arms_of, lower, vary
from alexnet.claims.fairness import objections
from alexnet.claims.groups import EXPERIMENTS
from alexnet.claims.laboratory import Laboratory
from alexnet.claims.results import write_lines
from alexnet.claims.runner import run_experiment
from alexnet.claims.scales import HISTORY, SCALES, find_scale
from alexnet.claims.subsets import to_learn_from, with_held_out
from alexnet.claims.tuning import FIRST_SEED, MOST_STEPS, scaled, search, tune
from alexnet.core.device import Machine, choose_device

SMOKE = find_scale("smoke")
FAIR = [name for name in SCALES if find_scale(name).tuning_seeds]


@pytest.mark.parametrize(
    ("best", "tried"), [(0, [-1, 0, 1]), (1, [-1, 0, 1, 2]), (3, [-1, 0, 1, 2, 3, 4]), (-2, [-3, -2, -1, 0, 1])]
)
def test_a_search_goes_on_while_the_best_is_at_the_border(best, tried):
    seen = set()

    def score(powers):
        seen.add(powers[0])
        return abs(powers[0] - best)

    assert search(score, 1) == (best,)
    assert sorted(seen) == tried


def test_a_search_ends_and_what_diverges_leads_downwards():
    assert search(lambda powers: -powers[0], 1) == (MOST_STEPS,)
    assert search(lambda _powers: math.inf, 1) == (-MOST_STEPS,)
    assert search(lambda _powers: math.inf, 2) == (-MOST_STEPS, -MOST_STEPS)  # and does not go on in the next round
    assert search(lambda powers: powers[0] if powers[0] < -3 else math.inf, 1) == (-MOST_STEPS,)


def test_two_settings_that_depend_on_each_other_are_searched_again():
    """A valley across both axes: 2 (x - 2)^2 + (x + y)^2 has its least at (2, -2), which the first round does not find."""
    assert search(lambda p: 2 * (p[0] - 2) ** 2 + (p[0] + p[1]) ** 2, 2) == (2, -2)


def test_settings_are_scaled_as_they_belong_together():
    config = SMOKE.network
    assert scaled(config, "optimizer.lr", 2.0) == {"optimizer.lr": 2 * config.optimizer.lr}
    biased = vary(config, {"optimizer.bias_lr": 0.5})
    assert scaled(biased, "optimizer.lr", 4.0)["optimizer.bias_lr"] == 2.0
    (stds,) = scaled(config, "model.weight_std", 0.5).values()
    assert stds == tuple(std / 2 for std in config.model.weight_std)


@pytest.mark.parametrize("scale", FAIR)
@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_where_arms_are_tuned_no_comparison_is_of_arms_that_were_tuned_otherwise(scale, experiment):
    if not experiment.fits(scale):
        pytest.skip(f"{experiment.id} means nothing at this scale")
    arms = {name: arm for name, (arm, _) in arms_of(experiment, find_scale(scale)).items()}
    for comparison in experiment.compared_at(find_scale(scale)):
        pair = [arms[name] for side in (comparison.lower, comparison.higher) for name in side.arms]
        assert objections(comparison, arms, {arm.name: [] for arm in pair}) == []


def test_the_base_is_tuned_by_what_every_arm_is():
    arms = arms_of(EXPERIMENTS["lrn"], find_scale("imagenette"))
    assert {arm.search for arm, _ in arms.values()} == {("optimizer.lr", "model.weight_std")}
    decay = arms_of(EXPERIMENTS["dropout-others"], find_scale("imagenette"))
    assert decay["no-regularization"][0].search == ("optimizer.lr",)  # it has no decay to choose
    assert decay["tuned-decay"][0].search == ("optimizer.lr", "optimizer.weight_decay")


def fake_lab(tmp_path, error_of) -> tuple[Laboratory, list]:
    """A laboratory whose trainings are a function of their configuration, and the configurations that it was asked for."""
    asked = []

    def result(lab, config):
        asked.append((lab.tunes, config))
        error = error_of(config)
        return {"diverged": "yes"} if error is None else {"views": {"1": {"top1_error": error}}, "n": 1}

    no_data = SimpleNamespace(classes=["a", "b"], splits={})
    return Laboratory("smoke", tmp_path, Machine(device=choose_device("cpu")), lambda _config: no_data), asked, result


def test_the_best_mean_over_the_tuning_seeds_is_taken_and_every_candidate_kept(tmp_path):
    rate = SMOKE.network.optimizer.lr
    lab, asked, result = fake_lab(
        tmp_path,
        # The first seed alone would choose the recipe's rate; at four times it one of two runs diverges.
        lambda c: {0.5: 0.5, 1: 0.1 + 0.6 * (c.seed - FIRST_SEED), 2: 0.2, 4: None if c.seed == FIRST_SEED else 0.0}[
            c.optimizer.lr / rate
        ],
    )
    arm = Arm(name="fake", result=result, search=("optimizer.lr",))
    found = tune(lab, arm, SMOKE.network, measure="center_error", seeds=2)
    assert found.chosen == {"optimizer.lr": 2 * rate}
    assert found.document["seeds"] == [FIRST_SEED, FIRST_SEED + 1]
    assert [c["changes"]["optimizer.lr"] / rate for c in found.document["candidates"]] == [0.5, 1, 2, 4]
    assert [c["values"] for c in found.document["candidates"]] == [[0.5] * 2, [0.1, 0.7], [0.2] * 2, [None, 0.0]]
    assert all(tuning for tuning, _ in asked)
    assert len(asked) == len({name for c in found.document["candidates"] for name in c["results"]}) == 8
    assert tune(lab, arm, SMOKE.network, measure="center_error", seeds=2) == found
    assert len(asked) == 8  # found again


def test_arms_that_share_the_base_share_its_search(tmp_path, monkeypatch):
    lab, asked, result = fake_lab(tmp_path, lambda config: abs(config.optimizer.lr - SMOKE.network.optimizer.lr))
    monkeypatch.setattr(laboratory, "train_and_measure", result)
    for name in ("ensemble-2", "ensemble-5"):
        arm = Arm(name=name, result=lambda *_: pytest.fail("trains an ensemble"), same_training=True)
        tune(lab, replace(arm, search=("optimizer.lr",)), SMOKE.network, measure="center_error", seeds=1)
    assert len(asked) == 3


def test_an_arm_that_asks_other_networks_is_tuned_as_these_are(tmp_path, monkeypatch):
    lab, asked, result = fake_lab(tmp_path, lambda config: abs(config.optimizer.lr - SMOKE.network.optimizer.lr))
    monkeypatch.setattr(laboratory, "train_and_measure", result)
    changes, search = {"model.dropout_rate": 0.0}, ("optimizer.lr",)
    config = vary(SMOKE.network, changes)
    plain = Arm(name="no-dropout", changes=changes, search=search)
    asks = replace(plain, name="asks", result=lambda *_: pytest.fail("asks"), same_training=True)
    assert tune(lab, asks, config, measure="center_error", seeds=1) == tune(
        lab, plain, config, measure="center_error", seeds=1
    )
    assert len(asked) == 3  # found again


def test_a_search_begins_where_the_arm_says(tmp_path):
    lab, _, result = fake_lab(tmp_path, lambda config: abs(config.optimizer.lr - 1e-4))
    arm = Arm(name="fake", result=result, search=("optimizer.lr",), starts_at={"optimizer.lr": 1e-4})
    assert tune(lab, arm, SMOKE.network, measure="center_error", seeds=1).chosen == {"optimizer.lr": 1e-4}


def test_augmentation_is_tried_at_a_tenth_of_the_rate_that_was_chosen_for_the_base(tmp_path, monkeypatch):
    """Not of the recipe's rate: here the best rate is twice that, and four times that without augmentation."""
    rate = SMOKE.network.optimizer.lr

    def error_of(config):
        return abs(config.optimizer.lr - (2 if config.augmentation.mirror else 4) * rate)

    lab, asked, result = fake_lab(tmp_path, error_of)
    monkeypatch.setattr(laboratory, "train_and_measure", result)
    chosen = run_experiment(EXPERIMENTS["augmentation-mistuned"], replace(SMOKE, tuning_seeds=1), [0], lab)["chosen"]
    assert {name: changes["optimizer.lr"] / rate for name, changes in chosen.items()} == pytest.approx(
        {"base": 2, "no-crops": 4, "slow": 0.2, "slow-no-crops": 0.2}
    )
    slow = [config for _, config in asked if config.optimizer.lr < 0.3 * rate]
    assert sorted(config.augmentation.mirror for config in slow) == [False, True]
    assert {config.seed for config in slow} == {0}


def test_no_choice_sees_an_image_that_is_counted(few_images):
    data = with_held_out(few_images, 100)
    num = len(few_images.split("train"))
    assert [len(data.splits[name]) for name in ("train", "tuning")] == [num - num // 10, num // 10]
    assert len(with_held_out(few_images, 7).splits["tuning"]) == 7
    paths = {name: set(split.paths) for name, split in data.splits.items()}
    assert paths["train"] | paths["tuning"] == set(few_images.split("train").paths)
    assert not paths["train"] & paths["tuning"]
    assert data.split(data.held_out).paths == few_images.split(few_images.held_out).paths
    seen = to_learn_from(data)
    assert {name: set(split.paths) for name, split in seen.splits.items()} == {
        "train": paths["train"],
        "val": paths["tuning"],
    }
    assert to_learn_from(few_images) is few_images


def test_an_experiment_with_tuned_arms(lab, tmp_path, monkeypatch):
    """What is trained, on what it validates, and what the document says of it."""
    held_out = []
    train = laboratory.train

    def watch(config, out, machine, *, data, **fields):
        held_out.append((config.seed, data.split(data.held_out).paths))
        return train(config, out, machine, data=data, **fields)

    monkeypatch.setattr(laboratory, "train", watch)
    monkeypatch.setattr(tuning, "MOST_STEPS", 1)  # how far a search goes is tried above, without training
    experiment = Experiment(
        id="tiny",
        title="",
        arms=lambda base: (Arm(name="base"), Arm(name="other", changes={"model.normalization": "none", "epochs": 1})),
        comparisons=(lower("center_error", "C10", "", than="other"),),
        setting={"epochs": 1, "views": ("1", "10")},
    )
    data = lab.open_data(SMOKE.network)
    document = run_experiment(experiment, replace(SMOKE, tuning_seeds=1), [0], lab)
    judging, counted = data.splits["tuning"].paths, data.split("test").paths
    assert {tuple(paths) for _, paths in held_out} == {tuple(judging)}
    assert sum(seed == 0 for seed, _ in held_out) == 2
    for arm, about in document["arms"].items():
        (name,) = about["results"]
        result = lab.results[name]
        assert result["n"] == len(counted)
        assert result["views"].keys() == {"1", "10"}
        assert document["chosen"][arm] == document["tuning"][arm]["chosen"]
        assert result["config"]["optimizer"]["lr"] == document["chosen"][arm]["optimizer.lr"]
        candidates = document["tuning"][arm]["candidates"]
        assert len(candidates) >= 3
        for candidate in candidates:
            (kept,) = (lab.results[name] for name in candidate["results"])
            assert (kept["seed"], kept["n"]) == (FIRST_SEED, len(judging))
            assert candidate["values"] == [kept["views"]["1"]["top1_error"]]
            assert "curve" not in kept
    assert not list((lab.folder / "runs").glob(f"*-seed{FIRST_SEED}"))
    write_lines(tmp_path / "smoke", lab.results.all().values())  # published
    elsewhere = replace(lab, out=tmp_path, open_data=lambda _config: pytest.fail("trains"))
    assert run_experiment(experiment, replace(SMOKE, tuning_seeds=1), [0], elsewhere) == document


@pytest.mark.long
@pytest.mark.parametrize(
    "name", ["history", "ensembles", "fine-tuning", "autoencoder-first", "linear-classifier", "relu-tanh"]
)
def test_arms_that_are_more_than_a_training_are_tuned_too(name, lab):
    pytest.importorskip("sklearn")
    document = run_experiment(EXPERIMENTS[name], replace(SMOKE, tuning_seeds=1), [0], lab)
    arms = {arm.name: arm for arm in EXPERIMENTS[name].arms(SMOKE.network)}
    assert document["tuning"].keys() == {arm.name for arm in arms.values() if not arm.chooses_itself}


def test_history_is_not_tuned_and_keeps_its_comparisons():
    for name in HISTORY:
        scale = find_scale(name)
        assert (scale.held_out, scale.tuning_seeds) == (0, 0)
        measures = {c.lower.measure for c in EXPERIMENTS["biases"].compared_at(scale)}
        assert measures == {"early_loss", "center_error"}
    now = {c.lower.measure for c in EXPERIMENTS["biases"].compared_at(find_scale("imagenette"))}
    assert now == {"epochs_to_loss_90", "epochs_to_loss_75", "center_error"}
