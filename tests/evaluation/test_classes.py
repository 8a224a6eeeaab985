"""Classes are matched by name: their places differ between folders, and between networks."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest

from alexnet.core.errors import UsageError
from alexnet.evaluation.classes import places
from alexnet.evaluation.ensemble import combine
from alexnet.evaluation.error_rate import count
from alexnet.evaluation.probabilities import Probabilities, load_probabilities


def answers(classes: list[str], label_names: list[str], probability_NK: list[list[float]]) -> Probabilities:
    label_N = np.array([classes.index(name) for name in label_names])
    paths = tuple(f"{i}.jpg" for i in range(len(label_N)))
    return Probabilities(np.log(np.array(probability_NK, np.float32)), label_N, paths, tuple(classes), {})


def test_places_are_those_of_the_name_in_any_unicode_form():
    ours = ["b\u00e9b\u00e9", "crane", "crane", "\u732b"]
    theirs = ["\u732b", unicodedata.normalize("NFD", "b\u00e9b\u00e9"), "crane", "dog"]
    assert places(theirs, ours).tolist() == [3, 0, -1, -1]  # which crane is meant cannot be told


def test_members_whose_classes_are_in_another_order_are_averaged_by_name(tmp_path):
    #            lynx  otter wolf            wolf  lynx  otter
    one = answers(["lynx", "otter", "wolf"], ["wolf", "lynx"], [[0.2, 0.2, 0.6], [0.5, 0.3, 0.2]])
    two = answers(["wolf", "lynx", "otter"], ["wolf", "lynx"], [[0.8, 0.1, 0.1], [0.5, 0.1, 0.4]])
    two.save(tmp_path / "two.npz")  # with the names of the classes
    for members, classes in (((one, two), one.classes), ((load_probabilities(tmp_path / "two.npz"), one), two.classes)):
        both = combine(members)
        assert both.classes == classes
        by_name = {name: np.exp(both.log_probability_NK[:, k]) for k, name in enumerate(classes)}
        np.testing.assert_allclose(by_name["wolf"], [0.7, 0.35], rtol=1e-6)
        np.testing.assert_allclose(by_name["lynx"], [0.15, 0.3], rtol=1e-6)
        assert count(both).top1_errors == 1
    with pytest.raises(UsageError, match=r"image 0.*|label 0"):
        combine([one, answers(["wolf", "lynx", "otter"], ["lynx", "lynx"], [[0.8, 0.1, 0.1], [0.5, 0.1, 0.4]])])


def test_an_ensemble_names_the_class_that_not_all_members_know():
    one = answers(["lynx", "wolf"], ["wolf"], [[0.2, 0.8]])
    for classes, probability in ((["bear", "lynx", "wolf"], [0.1, 0.1, 0.8]), (["bear", "wolf"], [0.2, 0.8])):
        with pytest.raises(UsageError, match=r"knows the class '(bear|lynx)'"):
            combine([one, answers(classes, ["wolf"], [probability])])
