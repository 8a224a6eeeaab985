"""One table: older methods on as many images, LeNet and today's training as their recipes have them, sizes by count."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from alexnet.baselines.trial import Answers
from alexnet.claims import history
from alexnet.claims.experiment import Arm, arms_of, vary
from alexnet.claims.groups import EXPERIMENTS
from alexnet.claims.history import earlier, lenet_changes, modern_changes, trial_for
from alexnet.claims.runner import run_experiment
from alexnet.claims.scales import find_scale
from alexnet.core.errors import AlexNetError
from alexnet.recipes import lenet, modern, modern_photos

SMOKE = find_scale("smoke").network


def test_todays_training_is_the_recipe_modern():
    paper = find_scale("imagenet").network
    assert replace(vary(paper, modern_changes(paper)), recipe="modern") == modern()
    photos = find_scale("imagenette").network
    assert replace(vary(photos, modern_changes(photos)), recipe="modern_photos") == replace(
        modern_photos(), checkpoint_steps=photos.checkpoint_steps
    )


def test_todays_training_of_grey_images_takes_the_mean_of_the_colors():
    grey = find_scale("fashion-mnist").network
    pixels = vary(grey, modern_changes(grey)).preprocessing
    assert pixels.channel_mean == (pytest.approx((123.675 + 116.28 + 103.53) / 3, abs=1e-3),)
    assert pixels.std == (pytest.approx((58.395 + 57.12 + 57.375) / 3, abs=1e-3),)


@pytest.mark.parametrize(
    ("scale", "side", "channels"), [("fashion-mnist", 28, 1), ("cifar10", 32, 3), ("imagenet", 32, 3)]
)
def test_lenet_is_the_textbooks_on_small_images_of_the_same_set(scale, side, channels):
    base = find_scale(scale).network
    config = vary(base, lenet_changes(base))
    assert config.model == replace(lenet().model, input_size=side, in_channels=channels)
    assert (config.preprocessing.crop, config.preprocessing.resize) == (side, side)
    assert (config.data, config.size, config.epochs, config.batch_size) == (
        base.data,
        base.size,
        base.epochs,
        base.batch_size,
    )
    assert config.optimizer == lenet().optimizer
    if scale == "fashion-mnist":
        assert config.preprocessing == lenet().preprocessing


def test_the_older_methods_get_as_many_images_as_the_network(lab):
    data = lab.open_data(SMOKE)
    some = trial_for(data, replace(SMOKE, train_images=360), most=10_000, quiet=True)
    assert np.bincount(some.label_N).tolist() == [15] * 24
    assert len(trial_for(data, replace(SMOKE, train_images=360), most=240, quiet=True).image_N) == 240
    assert len(trial_for(data, SMOKE, most=10_000, quiet=True).image_N) == 240  # ten of each class at least
    assert len(trial_for(data, replace(SMOKE, train_images=None), most=10_000, quiet=True).image_N) == 480 - 48


def test_a_row_has_errors_seconds_and_bytes(lab, monkeypatch):
    def answered(_name, trial):
        score_MK = np.zeros((48, 24))
        score_MK[np.arange(48), trial.label_M] = np.where(np.arange(48) < 12, -1, 1)  # 12 wrong, also among five
        return Answers(
            score_MK=score_MK, log_probability=False, fit_seconds=2.5, test_seconds=0.5, model_bytes=77, method={}
        )

    monkeypatch.setattr(history, "_answers", answered)
    result = lab.result(Arm(name="planted", result=earlier("pixels-nearest")), SMOKE)
    assert (result["views"]["1"]["top1_errors"], result["views"]["1"]["top5_errors"], result["n"]) == (12, 12, 48)
    assert result["shown"] == {
        "top1_error": 0.25,
        "top5_error": 0.25,
        "seconds": 2.5,
        "model_bytes": 77,
        "train_images": 240,
    }
    assert result["config"]["data"] == "shapes"


def test_the_size_of_a_network_is_counted(monkeypatch, lab):
    class Thousand:
        classes = ("",) * 1000

    trained = {"views": {"1": {"top1_error": 0.4, "top5_error": 0.2}}, "seconds": 9.0, "n_train": 100, "arm": "base"}
    whole = replace(lab, open_data=lambda _config: Thousand())
    result = history._with_size(whole, find_scale("imagenet").network, trained)
    assert result["model_bytes"] == 4 * 60_965_224
    assert result["shown"]["seconds"] == 9.0
    assert "arm" not in result  # it gets its own
    assert history._with_size(whole, SMOKE, {"diverged": "x"}) == {"diverged": "x"}


def test_the_table_is_in_the_document(lab, monkeypatch):
    monkeypatch.setattr(
        history,
        "_answers",
        lambda _name, trial: Answers(
            score_MK=np.eye(24)[trial.label_M],
            log_probability=False,
            fit_seconds=1.0,
            test_seconds=1.0,
            model_bytes=8,
            method={},
        ),
    )
    document = run_experiment(EXPERIMENTS["history"], find_scale("smoke"), [0], lab)
    table = {name: arm["shown"] for name, arm in document["arms"].items()}
    assert set(table) == {*history.EARLIER, "lenet", "alexnet-2012", "alexnet-today"}
    assert all(len(rows) == 1 and rows[0]["model_bytes"] > 0 for rows in table.values())
    assert table["fisher-vectors"][0]["top1_error"] == 0
    assert table["alexnet-2012"][0]["model_bytes"] == table["alexnet-today"][0]["model_bytes"]
    assert set(document["chosen"]) == {"lenet"}


def test_a_missing_extra_is_one_line(lab, monkeypatch):
    monkeypatch.setattr("alexnet.baselines.trial.find_spec", lambda _name: None)
    with pytest.raises(AlexNetError, match=r'pip install "alexnet\[probe\]"'):
        earlier("pixels-linear")(lab, SMOKE)


def test_arms_keep_to_one_data_set():
    for scale in ("cifar10", "imagenette", "fashion-mnist"):
        base = find_scale(scale).network
        for _, config in arms_of(EXPERIMENTS["history"], find_scale(scale)).values():
            assert (config.data, config.size, config.train_images) == (base.data, base.size, base.train_images)
