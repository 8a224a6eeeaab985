"""Resuming is exact from every step, and says where it cannot be; numbers that are not finite go nowhere."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from faults import rows
from steps import QUIET, _bad_pixel, names, non_finite, not_finite, resumes, tiny

from alexnet.core.errors import AlexNetError
from alexnet.training.trainer import fit


def test_resumed_from_two_steps_with_two_readers(tiny_set, tmp_path):
    figure = resumes(tiny_set.path, tmp_path, workers=(2,), every=30)
    assert (figure.count, figure.failures) == (2, [])


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_resumed_from_every_step_of_forty_with_any_readers(tiny_set, tmp_path):
    figure = resumes(tiny_set.path, tmp_path, workers=(0, 1, 2, 4))
    assert (figure.count, figure.failures) == (39 * 4, [])


@pytest.mark.long
def test_resumed_under_six_other_names_of_the_same_photographs(tmp_path):
    figure = names(tmp_path, seed=1)
    assert (figure.count, figure.failures) == (6, [])


def test_other_threads_or_another_torch_are_noted_as_not_bit_for_bit(tiny_set, tmp_path, monkeypatch, capsys):
    config = tiny(tiny_set.path, epochs=1)
    fit(config, tiny_set, tmp_path / "run", QUIET)
    capsys.readouterr()
    fit(config, tiny_set, tmp_path / "run", QUIET, resume=True)
    assert "bit for bit" not in capsys.readouterr().err
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    monkeypatch.setattr(torch, "__version__", "2.11.0")
    fit(config, tiny_set, tmp_path / "run", QUIET, resume=True)
    said = capsys.readouterr().err
    assert "note: not bit for bit the uninterrupted run" in said
    assert "threads 1 -> 7" in said
    assert "-> 2.11.0" in said


def test_readers_and_intervals_may_change_silently(tiny_set, tmp_path, capsys):
    config = tiny(tiny_set.path, epochs=1)
    fit(config, tiny_set, tmp_path / "run", QUIET)
    capsys.readouterr()
    fit(replace(config, checkpoint_steps=2), tiny_set, tmp_path / "run", replace(QUIET, workers=3), resume=True)
    assert "bit for bit" not in capsys.readouterr().err


def test_what_a_killed_write_left_is_removed(tiny_set, tmp_path):
    left = [
        tmp_path / name for name in (".summary.csv.tmp-1", "checkpoint/.last.tmp-1", "results/.final-ten.json.tmp-1")
    ]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    fit(tiny(tiny_set.path, epochs=1, train_images=7), tiny_set, tmp_path, QUIET, resume=True)
    assert not [path for path in left if path.exists()]


def test_one_nan_in_the_input_stops_the_run_at_that_step(tiny_set, tmp_path):
    with _bad_pixel(5, math.nan), pytest.raises(AlexNetError, match=r"^step 5: .*first non-finite: the input"):
        fit(tiny(tiny_set.path), tiny_set, tmp_path / "run", QUIET)
    assert max(row["step"] for row in rows(tmp_path / "run")) == 4
    assert not_finite(tmp_path / "run") == []


def test_files_are_searched_for_numbers_that_are_not_finite(tmp_path):
    (tmp_path / "a.json").write_text('{"loss": NaN}')
    (tmp_path / "b.jsonl").write_text('{"loss": 1.0}\n{"loss": 1e999}\n')
    (tmp_path / "c.csv").write_text("loss,error\n1,2\n3,inf\n")
    (tmp_path / "d.json").write_text('{"loss": 1.5, "name": "NaN"}')
    assert [line.split()[0] for line in not_finite(tmp_path)] == ["a.json", "b.jsonl", "c.csv"]


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_nothing_that_is_not_finite_spreads(tiny_set, tmp_path):
    figure = non_finite(tiny_set.path, tmp_path, 24, seed=0)
    assert (figure.count, figure.failures) == (24, [])
