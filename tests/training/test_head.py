"""A last layer that is fitted: the arithmetic against scikit-learn and written-out sums, and a run that starts from it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from alexnet.core.device import Machine
from alexnet.core.errors import UsageError
from alexnet.data.packed import PackedSet
from alexnet.evaluation.predict import load
from alexnet.models import layer_shapes
from alexnet.recipes.run import train
from alexnet.training import head as heads
from alexnet.training.config import TrainConfig
from alexnet.training.head import fit_head, with_fitted_head
from alexnet.training.initial import Initial
from alexnet.training.trainer import fit, network

QUIET = Machine(device=torch.device("cpu"), quiet=True)


def points(num: int, units: int, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of overlapping classes, (num, 1, units), and their labels."""
    random = np.random.default_rng(seed)
    label_N = np.arange(num) % classes
    row_ND = random.normal(size=(num, units)) + 1.5 * random.normal(size=(classes, units))[label_N]
    return row_ND[:, None].astype(np.float32), label_N


@pytest.mark.parametrize(("num", "units"), [(30, 80), (80, 30)], ids=["fewer rows", "fewer features"])
@pytest.mark.parametrize("balanced", [False, True])
def test_the_fit_is_that_of_scikit_learn(num, units, balanced):
    linear_model = pytest.importorskip("sklearn.linear_model")
    row_NVD, label_N = points(num, units)
    label_N = np.where(np.arange(num) % 4 == 0, 0, label_N)
    found = fit_head(row_NVD, label_N, 3, balanced=balanced)
    row_ND = row_NVD[:, 0].astype(np.float64)
    weight_N = num / (3 * np.bincount(label_N))[label_N] if balanced else np.ones(num)
    mean_D = (weight_N @ row_ND) / num
    size = (weight_N @ np.square(row_ND - mean_D)).sum() / num
    theirs = linear_model.Ridge(alpha=found.penalty * size, solver="cholesky")
    theirs.fit(row_ND, 2 * np.eye(3)[label_N] - 1, sample_weight=weight_N)
    np.testing.assert_allclose(found.weight_KD / found.factor, theirs.coef_, atol=1e-9)
    np.testing.assert_allclose(found.bias_K / found.factor, theirs.intercept_, atol=1e-9)


def test_penalty_and_factor_are_those_that_do_best_on_images_left_out_in_turn():
    row_NVD, label_N = points(25, 40, classes=2)
    both_NVD = np.concatenate([row_NVD, row_NVD + 0.3], axis=1)  # two views, left out together
    found = fit_head(both_NVD, label_N, 2, seed=4)
    rank_N = heads.rng.rank_in_class(label_N, 4, "head/folds")
    row_RD, label_R, fold_R = both_NVD.reshape(50, 40).astype(np.float64), label_N.repeat(2), (rank_N % 5).repeat(2)
    for tried in found.tried:
        score_RK = np.empty((50, 2))
        for fold in range(5):
            kept = fold_R != fold
            mean_D, target_RK = row_RD[kept].mean(0), 2 * np.eye(2)[label_R[kept]] - 1
            x_RD = row_RD[kept] - mean_D
            gram_DD = x_RD.T @ x_RD + tried.penalty * np.square(x_RD).sum() / len(x_RD) * np.eye(40)
            weight_DK = np.linalg.solve(gram_DD, x_RD.T @ (target_RK - target_RK.mean(0)))
            score_RK[~kept] = (row_RD[~kept] - mean_D) @ weight_DK + target_RK.mean(0)
        assert tried.left_out.errors == (score_RK.argmax(1) != label_R).sum()

        def loss(factor: float, score_RK: np.ndarray = score_RK) -> float:
            logits = factor * score_RK
            return float(np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(50), label_R]))

        assert tried.loss_nats == pytest.approx(loss(tried.factor), abs=1e-12)
        assert tried.loss_nats == pytest.approx(min(loss(factor) for factor in heads.FACTORS), abs=1e-12)
    chosen = min(found.tried, key=lambda tried: tried.loss_nats)
    assert (found.penalty, found.factor) == (chosen.penalty, chosen.factor)


def test_balanced_classes_of_few_images_are_not_given_up():
    random = np.random.default_rng(0)
    label_N = np.array([0] * 200 + [1] * 6)
    row_NVD = (random.normal(size=(206, 1, 5)) + 1.2 * label_N[:, None, None]).astype(np.float32)
    plain, balanced = (fit_head(row_NVD, label_N, 2, balanced=on) for on in (False, True))
    found = [
        (torch.from_numpy(row_NVD[200:, 0]).double() @ head.weight_KD.T + head.bias_K).argmax(1).sum()
        for head in (plain, balanced)
    ]
    assert found[0] <= 2 < found[1]


def test_one_image_in_each_class_has_the_usual_penalty_and_says_so():
    row_NVD, label_N = points(3, 20)
    found = fit_head(row_NVD, label_N, 3)
    assert (found.penalty, found.factor) == heads.USUAL
    assert found.tried == ()
    assert "so it is the usual one" in str(found)
    logits_NK = torch.from_numpy(row_NVD[:, 0]).double() @ found.weight_KD.T + found.bias_K
    assert logits_NK.argmax(1).tolist() == [0, 1, 2]


def test_a_large_problem_leaves_one_part_out(monkeypatch):
    row_NVD, label_N = points(60, 8)
    monkeypatch.setattr(heads, "LARGE", 5)
    assert {tried.left_out.n for tried in fit_head(row_NVD, label_N, 3).tried} == {12}


def test_more_images_than_memory_holds_are_thinned_out_evenly(monkeypatch, tiny_set, fitted_config, source):
    units = 4 * network(fitted_config, 3).fc8.in_features
    monkeypatch.setattr(heads, "MAX_BYTES", 60 * units)
    _, head = with_fitted_head(fitted_config, tiny_set, source, QUIET)
    assert (head.images, head.views) == (54, 1)
    monkeypatch.setattr(heads, "MAX_BYTES", 12 * units)
    _, head = with_fitted_head(fitted_config, tiny_set, source, QUIET)
    assert (head.images, head.views) == (12, 1)


def test_features_are_kept_and_made_again_if_they_are_damaged(monkeypatch, tmp_path, tiny_set, fitted_config, source):
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path))
    image_N = np.arange(20)
    made = heads.frozen_features(fitted_config, tiny_set, source, image_N, QUIET)
    (rows,) = tmp_path.glob("features/*/rows.npy")
    compute = heads._compute_features
    monkeypatch.setattr(heads, "_compute_features", lambda *_: pytest.fail("computed again"))
    np.testing.assert_array_equal(heads.frozen_features(fitted_config, tiny_set, source, image_N, QUIET), made)
    content = bytearray(rows.read_bytes())
    content[-3] ^= 64
    rows.write_bytes(content)
    monkeypatch.setattr(heads, "_compute_features", compute)
    np.testing.assert_array_equal(heads.frozen_features(fitted_config, tiny_set, source, image_N, QUIET), made)
    assert rows.read_bytes() != content


# In a run -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def fitted_config(tiny_config) -> TrainConfig:
    return replace(tiny_config, last_layer="fitted", epochs=0, views=("1",))


@pytest.fixture
def source(tiny_config, tiny_set) -> Initial:
    """Weights of another seed, for other classes."""
    model = network(replace(tiny_config, seed=9), 3)
    return Initial("elsewhere", tiny_config.network, model.state_dict(), tiny_config.preprocessing)


def test_without_epochs_the_fitted_layer_on_the_given_weights_is_the_model(tiny_set, fitted_config, source, tmp_path):
    summary = train(fitted_config, tmp_path / "run", QUIET, data=tiny_set, initial=source)
    model = load(tmp_path / "run").model
    for name, value in model.state_dict().items():
        if not name.startswith("fc8"):
            assert torch.equal(value, source.tensors[name]), name
    split, model = tiny_set.split("train"), model.eval()
    seen = {}
    model.fc8.register_forward_pre_hook(lambda _module, inputs: seen.update(x=inputs[0]))
    rows = []
    for mirrored in (False, True):  # the input of the network, by an independent way
        pixels = torch.from_numpy(split.read(np.arange(54)))
        made = fitted_config.preprocessing
        start = (made.resize - made.crop) // 2
        x = pixels.float()[:, start : start + made.crop, start : start + made.crop]
        x = x.flip(2) if mirrored else x
        mean = torch.from_numpy(tiny_set.mean)[start : start + made.crop, start : start + made.crop]
        with torch.inference_mode():
            model((x - mean).permute(0, 3, 1, 2) * made.scale)
        rows.append(seen["x"].numpy())
    head = fit_head(np.stack(rows, axis=1), split.labels, 3, seed=fitted_config.seed)
    torch.testing.assert_close(model.fc8.weight.double(), head.weight_KD, atol=1e-4, rtol=1e-3)
    assert summary["head"]["top1_errors"] == summary["views"]["1"]["top1_errors"]
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["initial"]["made"]["head"]["penalty"] == head.penalty
    assert config["initial"]["new"] == {}


def test_a_run_goes_on_from_the_fitted_layer_as_it_would_have_begun(tiny_set, fitted_config, source, tmp_path):
    train(fitted_config, tmp_path / "a", QUIET, data=tiny_set, initial=source)
    longer = replace(fitted_config, epochs=2)
    went_on = train(longer, tmp_path / "a", QUIET, data=tiny_set, initial=source, resume=True)
    at_once = train(longer, tmp_path / "b", QUIET, data=tiny_set, initial=source)
    one, other = (load(tmp_path / name).model.state_dict() for name in "ab")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert went_on["head"] == at_once["head"]
    assert len((tmp_path / "a" / "log.jsonl").read_text().splitlines()) == 2 + 2 * 8  # the head and the change
    assert "Error of the fitted last layer alone" in (tmp_path / "a" / "report.html").read_text()


def test_what_cannot_be_fitted_is_refused_before_anything_is_done(tiny_set, fitted_config, source, tmp_path):
    def refusal(initial: Initial | None, config: TrainConfig = fitted_config) -> str:
        with pytest.raises(UsageError) as caught:
            train(config, tmp_path / "run", QUIET, data=tiny_set, initial=initial)
        assert not (tmp_path / "run").exists()
        return str(caught.value)

    assert "name some with --init-from" in refusal(None)
    layers, _ = layer_shapes(network(fitted_config, 3))
    part = {key: value for key, value in source.tensors.items() if key not in layers["fc7"]}
    assert "but fc7 would be new (the source has none)" in refusal(replace(source, tensors=part))
    with pytest.raises(ValueError, match=r"epochs is 0; it must be at least 1"):
        replace(fitted_config, last_layer="random")


def test_fit_takes_weights_as_they_are(tiny_set, fitted_config, source, tmp_path):
    initial, _ = with_fitted_head(fitted_config, tiny_set, source, QUIET)
    model = fit(fitted_config, tiny_set, tmp_path / "run", QUIET, initial=initial).model
    assert torch.equal(model.fc8.weight, initial.tensors["fc8.weight"])


def test_the_start_is_saved_in_the_checkpoint(tiny_set: PackedSet, fitted_config, source, tmp_path):
    train(fitted_config, tmp_path / "run", QUIET, data=tiny_set, initial=source)
    last = load(tmp_path / "run" / "checkpoint" / "last").model.state_dict()
    done = load(tmp_path / "run").model.state_dict()
    assert all(torch.equal(last[name], done[name]) for name in done)
