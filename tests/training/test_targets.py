"""The loss of weighted and of mixed images, written out in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from alexnet.training.targets import class_weights, main_label, target_shares

LOGITS = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]], dtype=torch.float64)


def nats(row: int, label: int) -> float:
    """-ln of the probability of a class, by hand."""
    values = LOGITS[row].tolist()
    return math.log(sum(math.exp(v) for v in values)) - values[label]


def loss_against(target_BK: torch.Tensor) -> list[float]:
    return F.cross_entropy(LOGITS, target_BK, reduction="none").tolist()


def test_classes_weigh_the_same_and_images_1_on_average():
    labels = np.repeat([0, 1, 3], [100, 10, 1])
    weight = class_weights(labels, 4)
    assert weight == pytest.approx([111 / 300, 111 / 30, 0, 111 / 3])  # the class without images has none
    assert weight[labels].mean() == pytest.approx(1)


def test_the_loss_of_an_image_is_weighted_by_its_class():
    weight = torch.tensor([0.5, 2.0, 7.0], dtype=torch.float64)
    assert loss_against(target_shares(torch.tensor([1, 2]), weight, 0.0)) == pytest.approx(
        [2 * nats(0, 1), 7 * nats(1, 2)]
    )


def test_smoothing_is_weighted_with_the_image():
    weight = torch.tensor([0.5, 2.0, 7.0], dtype=torch.float64)
    smooth = [0.9 * nats(0, 1) + 0.1 / 3 * sum(nats(0, k) for k in range(3))]
    assert loss_against(target_shares(torch.tensor([1, 1]), weight, 0.1))[:1] == pytest.approx([2 * smooth[0]])
    plain = F.cross_entropy(LOGITS, torch.tensor([1, 2]), label_smoothing=0.1, reduction="none").tolist()
    assert loss_against(target_shares(torch.tensor([1, 2]), torch.ones_like(weight), 0.1)) == pytest.approx(plain)


def test_the_loss_of_a_mixed_image_is_that_of_both_labels_by_their_shares():
    weight = torch.tensor([0.5, 2.0, 7.0], dtype=torch.float64)
    label, other, share = torch.tensor([1, 2]), torch.tensor([0, 2]), torch.tensor([0.3, 0.8], dtype=torch.float64)
    expected = [0.3 * 2 * nats(0, 1) + 0.7 * 0.5 * nats(0, 0), 7 * nats(1, 2)]
    assert loss_against(target_shares(label, weight, 0.0, other, share)) == pytest.approx(expected)
    assert main_label(label, other, share).tolist() == [0, 2]
