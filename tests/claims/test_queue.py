"""The queue takes every experiment to the seeds that its plan asks for, in order of worth, and ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alexnet.claims.groups import EXPERIMENTS
from alexnet.claims.scales import SCALES, find_scale
from alexnet.core.runs import read_json
from shared import script

RESULTS = Path(__file__).parents[2] / "results" / "claims"
queue = script("claims_queue")
Group, Turn = queue.Group, queue.Turn


def document(seeds: int, *rows: tuple[int, int | None], scale: str = "smoke", name: str = "") -> dict[str, Any]:
    """Of comparisons by what they have planned and what more would decide; None: they are decided, or no fair test."""
    return {
        "experiment": name,
        "scale": scale,
        "command": "",
        "arms": {},
        "seeds": list(range(seeds)),
        "comparisons": [{"n": seeds, "planned": planned, "more_seeds": more} for planned, more in rows],
    }


def turns(groups, run) -> list[tuple[str, int]]:
    """What is run, and to how many seeds, if ``run`` says what comes out of it."""
    found, documents, seen = [], {}, set()
    while turn := queue.next_turn(groups, documents, seen):
        found.append((turn.experiment, turn.seeds))
        documents["smoke", turn.experiment] = run(turn.experiment, turn.seeds)
        seen.add(("smoke", turn.experiment))
        assert len(found) < 50
    return found


def test_all_of_a_group_get_their_first_seeds_and_then_those_of_their_plan():
    def run(name: str, n: int) -> dict[str, Any]:
        if name == "decided":
            return document(n, (5, None), (60, None))
        # Inconclusive to the end, the next look after the planned one being that at twice the number.
        return document(n, *((planned, (planned if n < planned else 2 * planned) - n) for planned in (7, 12)))

    groups = (Group("smoke", ("long", "decided"), most=20), Group("smoke", ("last",), most=20, first=3))
    assert turns(groups, run) == [
        *(("long", 5), ("decided", 5), ("long", 7), ("long", 12)),
        *(("last", 3), ("last", 7), ("last", 12)),
    ]


def test_what_its_group_has_not_the_seeds_for_stays_inconclusive():
    rows = {"beyond": (30, 25), "sooner": (30, 4)}  # this effect is so large that nine seeds would show it
    groups = (Group("smoke", tuple(rows), most=20),)
    done = {"sooner": (30, None)}
    found = turns(groups, lambda name, n: document(n, done[name] if name in done and n > 5 else rows[name]))
    assert found == [("beyond", 5), ("sooner", 5), ("sooner", 9)]


def test_verdicts_that_change_as_others_come_in_are_looked_at_again():
    """The spread is that of all experiments: ``second`` may unsettle the plan of ``first``."""
    groups = (Group("smoke", ("first",), most=20), Group("smoke", ("second",), most=20))
    documents = {("smoke", "first"): document(5, (9, 4)), ("smoke", "second"): document(5, (5, None))}
    seen = set(documents)
    assert queue.next_turn(groups, documents, seen) == Turn(groups[0], "first", 9)


def test_what_was_run_before_is_run_again_once_with_as_many_seeds():
    groups = (Group("smoke", ("first", "second"), most=20),)
    documents = {("smoke", "first"): document(12, (12, None))}
    assert queue.next_turn(groups, documents, set()) == Turn(groups[0], "first", 12)
    assert queue.next_turn(groups, documents, {("smoke", "first")}) == Turn(groups[0], "second", 5)
    assert queue.next_turn(groups, documents, {("smoke", "first")}, {("smoke", "second")}) is None


def test_every_experiment_is_queued_once_where_arms_are_tuned_alike():
    queued = [(group.scale, name) for group in queue.GROUPS for name in group.experiments]
    assert len(queued) == len(set(queued))
    assert all(find_scale(scale).tuning_seeds and EXPERIMENTS[name].fits(scale) for scale, name in queued)
    at_small = {name for scale, name in queued if scale == "cifar10-small"}
    assert at_small == {name for name, experiment in EXPERIMENTS.items() if experiment.fits("cifar10-small")}
    assert queue.TRAININGS.keys() <= at_small
    assert queue.SECONDS.keys() <= SCALES.keys()


def test_hours_rest_on_what_was_measured():
    pilot = read_json(RESULTS / "pilot-cifar10-small.json")["summary"]["cpu_seconds"]["mean"]
    assert queue.SECONDS["cifar10-small"] == pytest.approx(pilot, rel=0.05)
    steps = read_json(RESULTS / "steps-imagenette.json")
    assert queue.SECONDS["imagenette"] == pytest.approx(steps["cpu_seconds_a_run"], rel=0.01)


def test_hours_are_those_of_what_is_not_there_yet():
    group = Group("cifar10-small", ("overlap", "tower-colors", "dropout"), most=10)
    overlap, colors, dropout = queue.work_left((group,), {})
    run = 70 / 3600
    # Two arms, each with four candidates by three tuning seeds; 5 or 10 seeds.
    assert overlap.hours == pytest.approx(2 * (4 * 3 + 5) * run)
    assert overlap.hours_at_most == pytest.approx(2 * (4 * 3 + 10) * run)
    assert colors.hours == 0  # the base, which overlap has trained
    assert dropout.hours == pytest.approx((4 * 3 + 5) * run)
    known = {(group.scale, "overlap"): document(5, (8, 3)), (group.scale, "dropout"): document(5, (12, 7))}
    overlap, _, dropout = queue.work_left((group,), known)
    assert (overlap.wanted, overlap.hours) == (8, pytest.approx(2 * 3 * run))
    assert overlap.hours_at_most == pytest.approx(2 * 5 * run)
    assert (dropout.wanted, dropout.hours, dropout.hours_at_most) == (None, 0, 0)  # 12 are more than it may have


def test_the_list_of_what_is_left_trains_nothing(tmp_path, capsys):
    assert queue.main(["--out", str(tmp_path), "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + sum(len(group.experiments) for group in queue.GROUPS) + 2
    assert lines[1].split()[:4] == ["cifar10-small", "overlap", "0", "5"]
    assert not list(tmp_path.iterdir())


def test_data_that_stand_for_those_of_no_scale_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        queue.main(["--out", str(tmp_path), "--data", "packed", "--list"])
    assert exit_.value.code == 2
    assert "--data needs --scale" in capsys.readouterr().err


def test_an_experiment_that_fails_is_named_and_the_others_go_on(tmp_path, capsys, monkeypatch):
    def run(experiment, scale, seeds, lab):
        if experiment.id == "overlap":
            raise ValueError("no such thing")
        lab.folder.mkdir()
        about = document(len(seeds), scale=scale.name, name=experiment.id)
        (lab.folder / f"{experiment.id}.json").write_text(json.dumps(about))

    monkeypatch.setattr(queue, "run_experiment", run)
    monkeypatch.setattr(queue, "stop_when_asked", lambda minutes: None)
    monkeypatch.setattr(queue.torch, "set_num_threads", lambda num: None)
    command = ["--out", str(tmp_path), "--scale", "smoke", "--only", "overlap", "dropout", "--seeds", "2"]
    assert queue.main(command) == 1
    printed = capsys.readouterr()
    assert "ValueError: no such thing" in printed.err
    assert printed.err.splitlines()[-1] == "overlap at smoke failed, see above"
    assert printed.out.splitlines() == ["overlap at smoke: to 2 seeds", "dropout at smoke: to 2 seeds"]
