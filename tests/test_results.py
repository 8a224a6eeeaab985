"""What is printed of errors: intervals, members, classes that are left out, nothing that says nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from alexnet.evaluation.error_rate import ClassCounts, Evaluation, MemberErrors, count
from alexnet.evaluation.lines import class_lines, error_lines, evaluation_lines, images_line
from alexnet.evaluation.probabilities import Probabilities


def counted(sizes: list[int], wrong: list[int]) -> Evaluation:
    """So many images of each class, the first of each so many wrong."""
    label_N = np.repeat(np.arange(len(sizes)), sizes)
    first_N = np.concatenate([np.arange(size) for size in sizes])
    answer_N = np.where(first_N < np.repeat(wrong, sizes), (label_N + 1) % len(sizes), label_N)
    log_probability_NK = np.full((len(label_N), len(sizes)), np.log(0.01), np.float32)
    log_probability_NK[np.arange(len(label_N)), answer_N] = np.log(0.9)
    paths = tuple(f"{i}.jpg" for i in range(len(label_N)))
    protocol = {"views": "1", "split": "all", "data": "photos", "precision": "bfloat16"}
    return count(Probabilities(log_probability_NK, label_N, paths, tuple(f"c{k}" for k in range(len(sizes))), protocol))


def test_a_rate_is_said_with_its_count_its_interval_and_its_precision():
    # Wilson, by hand: z = 1.96, p = 0.2, n = 10: (0.2 + 0.19208) / 1.38416 +- 1.96 sqrt(0.016 + 0.0096040) / 1.38416
    (line,) = error_lines("1", {"n": 10, "top1_errors": 2, "top5_errors": 0}, 3, "bfloat16")
    assert line == "center view, bfloat16: top-1 error 20.00% (2 of 10), 95 % interval 5.7 to 51.0 %"
    lines = error_lines("10", {"n": 10, "top1_errors": 2, "top5_errors": 1}, 6)
    assert [" ".join(line.split()[:4]) for line in lines] == ["ten views: top-1 error", "top-5 error 10.00% (1"]
    assert images_line(1, {"split": "val", "data": "x"}, "./photos") == "1 image of ./photos (val)"


def test_the_mean_over_classes_is_said_where_they_differ_in_size():
    even = "\n".join(evaluation_lines(counted([10, 10], [1, 3])))
    assert even.startswith("all 20 images of photos\ncenter view, bfloat16: top-1 error 20.00% (4 of 20)")
    assert "mean of the errors" not in even
    assert "top-5" not in even
    evaluation = counted([90, 10], [0, 5])
    assert evaluation.top1_error == 0.05
    assert evaluation.balanced_top1_error == 0.25
    assert evaluation.to_json()["balanced_top1_error"] == 0.25
    said = evaluation_lines(evaluation)
    assert "mean of the errors of the classes, which have 10 to 90 images each: 25.00%" in said


def test_members_of_an_ensemble_are_shown_beside_it():
    members = (MemberErrors("runs/a", 0.75, 5, 0, "bfloat16"), MemberErrors("b.npz", 0.25, 9, 0, "bfloat16"))
    evaluation = replace(counted([10, 10], [1, 3]), members=members)
    said = "\n".join(evaluation_lines(evaluation))
    assert "member 1, runs/a, weight 0.75: top-1 error 25.00% (5 of 20)" in said
    assert "member 2, b.npz, weight 0.25: top-1 error 45.00% (9 of 20)" in said
    assert [member["top1_errors"] for member in evaluation.to_json()["members"]] == [5, 9]


def test_classes_that_are_left_out_are_counted():
    assert len(class_lines([ClassCounts(f"c{k}", 10, k % 10, 0) for k in range(30)])) == 31
    lines = class_lines([ClassCounts(f"c{k}", 10, k % 10, 0) for k in range(100)])
    assert len(lines) == 32
    assert lines[1].split() == ["c9", "10", "9", "0"]
    assert lines[-1] == "and 70 more classes, none of them worse; --json and --out list all"
