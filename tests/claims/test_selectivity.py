"""Class selectivity, with answers that can be written out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from alexnet.claims.laboratory import plain_result
from alexnet.claims.measures import MEASURES
from alexnet.claims.scales import find_scale
from alexnet.claims.selectivity import class_selectivity, responses, selectivity, untrained_selectivity
from alexnet.evaluation.predict import load

SMOKE = replace(find_scale("smoke").network, epochs=1)


@pytest.fixture(scope="module")
def trained(lab):
    plain_result(lab, SMOKE)
    return load(lab.run_folder(SMOKE))


def test_selectivity_is_the_lead_of_the_best_class_over_the_others():
    label_N = np.array([0, 0, 1, 1, 2, 2])
    response_NU = np.array([[3, 1, 2, 0], [5, 1, 2, 0], [0, 1, 1, 0], [0, 1, 3, 0], [0, 1, 1, 0], [0, 1, 1, 0]], float)
    # Class means 4, 0, 0: (4 - 0) / 4. All 1: 0. 2, 2, 1: (2 - 1.5) / 3.5. Never active: 0.
    assert class_selectivity(response_NU, label_N) == pytest.approx([1, 0, 1 / 7, 0])


def test_units_that_know_the_class_are_more_selective_than_shuffled_labels_make_them(lab, monkeypatch):
    """conv1 knows nothing and fc7 has a unit for each class."""
    random = np.random.default_rng(0)

    def planted(_predictor, split, names, _workers):
        noise = {name: random.uniform(size=(len(split), 24)) for name in names}
        return noise | {"fc7": np.eye(24)[split.labels]}

    monkeypatch.setattr("alexnet.claims.selectivity.responses", planted)
    result = untrained_selectivity(lab, SMOKE)
    found = result["selectivity"]
    assert found["fc7"]["mean"] == 1
    # Two images a class: with shuffled labels the two of a unit mostly fall into two classes, (1/2 - 1/46) / (1/2 + 1/46).
    assert found["fc7"]["by_chance"] == pytest.approx(0.92, abs=0.01)
    assert MEASURES["selectivity_fc7"](result) == pytest.approx(1 - found["fc7"]["by_chance"])
    assert abs(MEASURES["selectivity_conv1"](result)) < 0.05
    assert result["shown"]["conv1"] == MEASURES["selectivity_conv1"](result)


def test_a_map_answers_with_its_mean(lab, trained):
    split = lab.open_data(SMOKE).split("test")
    found = responses(trained, split, ("conv1", "fc7"), 0)
    seen = {}
    conv1 = trained.model.get_submodule("conv1")
    hook = conv1.register_forward_hook(lambda _m, _i, y_BCHW: seen.setdefault("conv1", y_BCHW.relu()))
    trained.activations(torch.from_numpy(split.read(np.arange(len(split)))), [])
    hook.remove()
    expected = seen["conv1"].mean((2, 3)).numpy()
    np.testing.assert_allclose(found["conv1"][: len(expected)], expected, rtol=1e-5)
    assert {name: rows.shape for name, rows in found.items()} == {"conv1": (48, 8), "fc7": (48, 32)}


def test_training_is_what_the_two_arms_differ_in(lab, trained):
    after, before = selectivity(lab, SMOKE, trained), untrained_selectivity(lab, SMOKE)
    assert after["selectivity"].keys() == before["selectivity"].keys()
    assert after["selectivity"]["conv1"] != before["selectivity"]["conv1"]
    assert untrained_selectivity(lab, SMOKE) == before
