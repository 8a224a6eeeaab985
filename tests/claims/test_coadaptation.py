"""Removed units of fc7, masked by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from alexnet.claims.coadaptation import inputs_of_fc8, kept, without_units
from alexnet.claims.laboratory import plain_result
from alexnet.claims.measures import MEASURES
from alexnet.claims.scales import find_scale
from alexnet.evaluation.predict import load

SMOKE = replace(find_scale("smoke").network, epochs=1)


def test_removed_units_are_drawn_and_the_others_make_up_for_them():
    factor_D = kept(32, 25, 0, 0)
    assert sorted(factor_D.tolist()) == [0.0] * 8 + [pytest.approx(4 / 3)] * 24
    assert kept(32, 25, 0, 0).tolist() == factor_D.tolist()
    assert len({tuple(kept(32, 25, seed, draw).tolist()) for seed in (0, 1) for draw in range(5)}) == 10


def test_the_whole_network_errs_as_always_and_less_of_it_as_masked_by_hand(lab):
    split = lab.open_data(SMOKE).split("test")
    label_N = torch.from_numpy(np.asarray(split.labels))
    plain = plain_result(lab, SMOKE)
    predictor = load(lab.run_folder(SMOKE))
    result = without_units(lab, SMOKE, predictor)
    assert result["views"]["1"]["top1_error"] == plain["views"]["1"]["top1_error"]
    model, x_ND = predictor.model, inputs_of_fc8(predictor, split, 0)
    errors = []
    for draw in range(5):
        factor_D = kept(32, 50, SMOKE.seed, draw)
        logits_NK = (x_ND * factor_D) @ model.fc8.weight.T + model.fc8.bias
        errors.append((logits_NK.argmax(1) != label_N).double().mean().item())
    assert result["percent_removed"]["50"] == pytest.approx(np.mean(errors))
    assert MEASURES["rise_without_50"](result) == pytest.approx(np.mean(errors) - result["views"]["1"]["top1_error"])
