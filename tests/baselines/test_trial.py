"""Which images a baseline gets, and how its answers are counted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import log_loss, top_k_accuracy_score

from alexnet.baselines import trial as module
from alexnet.baselines.trial import Answers, Trial, choose, count_errors, reduced_pixels, result, trial_on
from alexnet.core.errors import AlexNetError, UsageError
from alexnet.data.packed import PackedSet


@dataclass
class Images:
    """A split in memory."""

    pixels_NSSC: NDArray[np.uint8]
    labels: NDArray[np.int64]

    @property
    def paths(self) -> list[str]:
        return [str(i) for i in range(len(self.labels))]

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index_B: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.pixels_NSSC[index_B]


def answers(score_MK: NDArray[np.float64], *, log_probability: bool) -> Answers:
    return Answers(
        score_MK=score_MK,
        log_probability=log_probability,
        fit_seconds=1.0,
        test_seconds=2.0,
        model_bytes=12,
        method={"classifier": "none"},
    )


def test_a_part_of_the_training_images_is_balanced_and_held_by_a_larger_part(drawn: PackedSet) -> None:
    small, large = (trial_on(drawn, train_images=n, quiet=True) for n in (32, 80))
    assert sorted(np.bincount(small.label_N)) == [5, 5, 5, 5, 6, 6]
    assert set(small.image_N) < set(large.image_N)
    other = trial_on(drawn, train_images=32, seed=1, quiet=True)
    assert set(other.image_N) != set(small.image_N)


def test_one_training_image_in_five_of_each_class_chooses(trial: Trial) -> None:
    assert sorted(trial.image_N) == list(range(120))
    assert trial.num_fit == 96
    assert np.bincount(trial.label_N[96:]).tolist() == [4] * 6
    assert (trial.label_N == trial.train.labels[trial.image_N]).all()


@pytest.mark.parametrize(
    ("train_images", "said"),
    [(0, "at least 1"), (5, "no training image of"), (6, "5 training images in one")],
)
def test_too_few_training_images(drawn: PackedSet, train_images: int, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        trial_on(drawn, train_images=train_images)


def test_pixels_are_means_of_areas() -> None:
    random = np.random.default_rng(0)
    images = Images(random.integers(0, 256, (70, 8, 8, 3), dtype=np.uint8), np.zeros(70, np.int64))
    order = random.permutation(70)
    found_ND = reduced_pixels(images, order, 4, "test", quiet=True)
    means_NSSC = images.pixels_NSSC[order].reshape(70, 4, 2, 4, 2, 3).astype(float).mean(axis=(2, 4))
    assert (found_ND == means_NSSC.transpose(0, 3, 1, 2).reshape(70, -1)).all()
    whole_ND = reduced_pixels(images, order, 8, "test", quiet=True)
    assert (whole_ND == images.pixels_NSSC[order].transpose(0, 3, 1, 2).reshape(70, -1)).all()
    assert (reduced_pixels(images, order, 99, "test", quiet=True) == whole_ND).all()


def test_what_does_not_fit_into_memory_is_refused_before_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    images = Images(np.zeros((70, 8, 8, 3), np.uint8), np.zeros(70, np.int64))
    with pytest.raises(UsageError, match="--train-images"):
        reduced_pixels(images, np.arange(70), 8, "test", quiet=True)


def test_the_first_of_equally_good_settings_and_no_search_beyond_a_rise() -> None:
    errors = {1: 7, 2: 5, 3: 5, 4: 6, 5: 0}
    assert choose([1, 2, 3, 4, 5], errors.__getitem__) == (2, [(1, 7), (2, 5), (3, 5), (4, 6)])


def test_errors_are_counted_as_scikit_learn_does() -> None:
    random = np.random.default_rng(0)
    score_MK, label_M = random.normal(size=(200, 8)), random.integers(0, 8, 200)
    found = count_errors(score_MK, label_M)
    assert found["n"] == 200
    for k in (1, 5):
        hits = top_k_accuracy_score(label_M, score_MK, k=k, normalize=False, labels=range(8))
        assert found[f"top{k}_errors"] == 200 - hits
        assert found[f"top{k}_error"] == (200 - hits) / 200


def test_equal_scores_are_ranked_in_class_order() -> None:
    assert count_errors(np.zeros((3, 7)), np.array([0, 4, 5])) == {
        "n": 3,
        "top1_errors": 2,
        "top5_errors": 1,
        "top1_error": 2 / 3,
        "top5_error": 1 / 3,
    }
    with pytest.raises(AlexNetError, match="NaN"):
        count_errors(np.full((1, 3), math.nan), np.array([0]))


def test_a_loss_stands_in_the_result_where_scores_are_probabilities(trial: Trial) -> None:
    score_MK = torch.randn(60, 6, generator=torch.Generator().manual_seed(0)).double().log_softmax(1).numpy()
    found = result("test", trial, answers(score_MK, log_probability=True), {"split": "val"})
    assert found["loss_nats"] == pytest.approx(log_loss(trial.label_M, np.exp(score_MK)), rel=1e-12)
    assert found["protocol"]["split"] == "val"
    assert found["protocol"]["training_images"] == "120 of 120"
    assert [c["n"] for c in found["classes"]] == [10] * 6
    assert sum(c["top1_errors"] for c in found["classes"]) == found["top1_errors"]
    assert result("test", trial, answers(score_MK, log_probability=False), {})["loss_nats"] is None
