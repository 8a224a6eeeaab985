"""Ensembles: a mean of probabilities over the same images, and files of saved probabilities that damage cannot change."""

from __future__ import annotations

import contextlib
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet.core.errors import AlexNetError, UsageError
from alexnet.evaluation.ensemble import combine, searched_weights
from alexnet.evaluation.error_rate import count
from alexnet.evaluation.probabilities import Probabilities, load_probabilities


def answers(probability_NK: Any, **changes: Any) -> Probabilities:
    log_probability_NK = np.log(np.array(probability_NK, dtype=np.float32))
    n, k = log_probability_NK.shape
    made = Probabilities(
        log_probability_NK,
        np.zeros(n, dtype=np.int64),
        tuple(f"{i}.png" for i in range(n)),
        tuple(f"class {j}" for j in range(k)),
        {"views": "10", "split": "val"},
    )
    return replace(made, **changes)


def random_answers(seed: int, n: int = 40, k: int = 8) -> Probabilities:
    generator = np.random.default_rng(seed)
    made = answers(generator.dirichlet(np.full(k, 0.3), n) + 1e-12)
    return replace(made, label_N=np.random.default_rng(0).integers(0, k, n))


def test_an_ensemble_is_the_mean_of_probabilities() -> None:
    # Image 0: (.6 .4) and (.1 .9) -> (.35 .65): two members, one right and one wrong, are wrong together.
    first, second = answers([[0.6, 0.4], [0.2, 0.8]]), answers([[0.1, 0.9], [0.9, 0.1]])
    both = combine([first, second])
    assert np.exp(both.log_probability_NK) == pytest.approx(np.array([[0.35, 0.65], [0.55, 0.45]]), rel=1e-6)
    assert (count(first).top1_errors, count(second).top1_errors, count(both).top1_errors) == (1, 1, 1)


def test_weights_count_in_proportion() -> None:
    first, second = answers([[0.6, 0.4]]), answers([[0.1, 0.9]])
    # 3 : 1 -> .75 * .6 + .25 * .1 = .475
    for weights in ([3, 1], [0.75, 0.25], [300, 100]):
        assert np.exp(combine([first, second], weights).log_probability_NK[0, 0]) == pytest.approx(0.475, rel=1e-6)


def test_a_member_of_weight_zero_does_not_count() -> None:
    first, second = random_answers(1), random_answers(2)
    alone = combine([first, second], [1, 0])
    assert np.allclose(alone.log_probability_NK, first.log_probability_NK, atol=1e-6)


def test_an_ensemble_of_one_is_that_one() -> None:
    alone = random_answers(1)
    assert (combine([alone]).log_probability_NK == alone.log_probability_NK).all()
    assert count(combine([alone])).confusion == count(alone).confusion


def test_the_order_of_the_members_does_not_matter() -> None:
    members = [random_answers(seed) for seed in (1, 2, 3)]
    forward, backward = combine(members), combine(members[::-1])
    assert np.allclose(forward.log_probability_NK, backward.log_probability_NK, atol=1e-6)
    assert np.exp(forward.log_probability_NK.astype(np.float64)).sum(axis=1) == pytest.approx(np.ones(40))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"paths": ("0.png", "other.png")}, "has 'other.png' as image 1, the first has '1.png'"),
        ({"label_N": np.array([0, 1])}, "has 'class 1' as label 1, the first has 'class 0'"),
        ({"classes": ("class 0", "class 2")}, "knows the class 'class 1'"),
    ],
)
def test_members_must_answer_for_the_same_images_labels_and_classes(change: dict[str, Any], message: str) -> None:
    first = answers([[0.6, 0.4], [0.2, 0.8]])
    with pytest.raises(UsageError) as caught:
        combine([first, first, replace(first, **change)])
    assert "member 3" in str(caught.value)
    assert message in str(caught.value)


def test_members_of_different_length_are_refused() -> None:
    with pytest.raises(UsageError, match="member 2 of the ensemble has 1 image entries, the first has 2"):
        combine([answers([[0.6, 0.4], [0.2, 0.8]]), answers([[0.6, 0.4]])])


@pytest.mark.parametrize("weights", [[], [1], [1, 2, 3], [0, 0], [-1, 2], [float("nan"), 1], [float("inf"), 1]])
def test_weights_that_are_none_are_refused(weights: list[float]) -> None:
    with pytest.raises(UsageError, match="weights are"):
        combine([random_answers(1), random_answers(2)], weights)


def test_no_members_are_refused() -> None:
    with pytest.raises(UsageError, match="at least one"):
        combine([])


def test_the_protocol_says_what_the_members_share_and_where_they_differ() -> None:
    first = answers([[0.6, 0.4]], protocol={"views": "10", "split": "val", "model": "a"})
    second = answers([[0.1, 0.9]], protocol={"views": "1", "split": "val", "model": "b"})
    protocol = combine([first, second], [3, 1]).protocol
    assert protocol["split"] == "val"
    assert protocol["views"] == "1+10"
    assert protocol["ensemble"] == [
        {"weight": 0.75, "views": "10", "model": "a"},
        {"weight": 0.25, "views": "1", "model": "b"},
    ]


# Searched weights -----------------------------------------------------------------------------------------------------


def test_a_search_trusts_the_member_that_knows_and_leaves_equal_ones_equal() -> None:
    random = np.random.default_rng(0)
    label_N = random.integers(0, 8, 60)
    knows = np.full((60, 8), 0.3 / 7)
    knows[np.arange(60), label_N] = 0.7
    misled = np.full((60, 8), 0.1 / 7)
    misled[np.arange(60), (label_N + 1) % 8] = 0.9
    right, wrong = (answers(p_NK, label_N=label_N) for p_NK in (knows, misled))
    assert searched_weights([right, right, right]) == pytest.approx([1 / 3] * 3)
    assert searched_weights([wrong, right]) == pytest.approx([0, 1])  # the loss falls until the other is gone
    assert searched_weights([right]) == (1.0,)


def test_a_search_comes_as_near_to_the_best_weights_as_its_last_step() -> None:
    """Two classes, two members: p = w a + (1 - w) b of the right class. Of images with (a, b) = (0.9, 0.6) and twice
    (0.6, 0.8), the loss -ln(0.6 + 0.3 w) - 2 ln(0.8 - 0.2 w) is least where 0.3 (0.8 - 0.2 w) = 0.4 (0.6 + 0.3 w), which
    is below 0; with (0.9, 0.6), (0.6, 0.8) once each where 0.3 (0.8 - 0.2 w) = 0.2 (0.6 + 0.3 w): w = 1. Of two times the
    first and three times the second: 0.6 (0.8 - 0.2 w) = 0.6 (0.6 + 0.3 w): w = 0.2 / 0.5 = 0.4."""
    for once, twice, best in ((1, 2, 0.0), (1, 1, 1.0), (2, 3, 0.4)):
        a = [[0.9, 0.1]] * once + [[0.6, 0.4]] * twice
        b = [[0.6, 0.4]] * once + [[0.8, 0.2]] * twice
        weights = searched_weights([answers(a), answers(b)])
        assert weights[0] == pytest.approx(best, abs=1 / 64), (once, twice)
        assert sum(weights) == pytest.approx(1)


def test_fewer_top_5_errors_go_before_fewer_top_1_errors() -> None:
    """Image 0 is right by the first member alone, image 1 among the first five by the second member alone."""
    low, top = 0.01, 0.94
    first = [[top, *[low] * 6], [0.0, *[1 / 6] * 6]]
    second = [[0.0, 0.7, 0.1, 0.1, 0.05, 0.03, 0.02], [0.2, 0.3, 0.2, 0.2, 0.05, 0.03, 0.02]]
    members = [answers(np.array(p_NK) + 1e-9) for p_NK in (first, second)]
    alone = [count(member) for member in members]
    assert [(e.top5_errors, e.top1_errors) for e in alone] == [(1, 1), (1, 2)]
    found = count(combine(members, searched_weights(members)))
    grid = [count(combine(members, [w, 1 - w])) for w in np.linspace(0, 1, 101)]
    assert (found.top5_errors, found.top1_errors) == min((e.top5_errors, e.top1_errors) for e in grid)


def test_a_search_is_never_worse_than_equal_weights_and_matches_classes_by_name() -> None:
    members = [random_answers(seed) for seed in (1, 2, 3)]
    weights = searched_weights(members)
    equal, found = count(combine(members)), count(combine(members, weights))
    assert (found.top5_errors, found.top1_errors) <= (equal.top5_errors, equal.top1_errors)
    order = [3, 1, 0, 2, *range(4, 8)]
    turned = replace(
        members[1],
        log_probability_NK=members[1].log_probability_NK[:, order],
        label_N=np.argsort(order)[members[1].label_N],
        classes=tuple(members[1].classes[k] for k in order),
    )
    assert searched_weights([members[0], turned, members[2]]) == weights


# Files ----------------------------------------------------------------------------------------------------------------


def test_saved_answers_come_back_bit_for_bit(tmp_path: Path) -> None:
    names = ("nul\0.png", 'quote".png', "new\nline.png", "lone \udc80 surrogate.png", "日本.png")
    made = replace(random_answers(4, n=5), paths=names)
    made.save(tmp_path / "answers.npz")
    back = load_probabilities(tmp_path / "answers.npz")
    assert (back.log_probability_NK == made.log_probability_NK).all()
    assert (back.label_N == made.label_N).all()
    assert (back.paths, back.classes, back.protocol) == (made.paths, made.classes, made.protocol)
    assert [path.name for path in tmp_path.iterdir()] == ["answers.npz"]


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "answers.npz"
    made = random_answers(5)
    made.save(path)
    sound = path.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(300):
        position = int(generator.integers(len(sound)))
        path.write_bytes(
            sound[:position] + bytes([sound[position] ^ (1 << int(generator.integers(8)))]) + sound[position + 1 :]
        )
        with contextlib.suppress(AlexNetError):
            back = load_probabilities(path)  # passes for a bit that means nothing, such as one of a time stamp
            assert (back.log_probability_NK == made.log_probability_NK).all()
            assert (back.label_N == made.label_N).all()
            assert (back.paths, back.classes, back.protocol) == (made.paths, made.classes, made.protocol)


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "answers.npz"
    random_answers(5).save(path)
    sound = path.read_bytes()
    for length in (0, 1, 10, len(sound) // 2, len(sound) - 1):
        path.write_bytes(sound[:length])
        with pytest.raises(AlexNetError, match=r"answers.npz: not a sound file"):
            load_probabilities(path)


def _texts(**changes: Any) -> np.ndarray:
    made = random_answers(5)
    texts = {
        "format": "alexnet probabilities 1",
        "paths": made.paths,
        "classes": made.classes,
        "protocol": {},
        **changes,
    }
    return np.frombuffer(json.dumps(texts).encode(), dtype=np.uint8)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    made = random_answers(5)
    parts = {"log_probability": made.log_probability_NK, "label": made.label_N, "text": _texts()}
    bad: dict[str, dict[str, Any]] = {
        "pickled": {"label": np.array([{}], dtype=object)},
        "no text": {"text": np.zeros(0, dtype=np.uint8)},
        "other format": {"text": _texts(format="alexnet probabilities 2")},
        "one label short": {"label": made.label_N[:-1]},
        "one class more": {"classes": (), "text": _texts(classes=[*made.classes, "x"])},
        "deep": {"text": np.frombuffer(b"[" * 100_000, dtype=np.uint8)},
    }
    for name, change in bad.items():
        np.savez(tmp_path / "bad.npz", **{**parts, **change})
        with pytest.raises(AlexNetError, match="not a sound file"):
            load_probabilities(tmp_path / "bad.npz")
        assert name


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("text.npy", bytes(50_000_000))
    with pytest.raises(AlexNetError, match="compressed members"):
        load_probabilities(tmp_path / "bomb.npz")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(AlexNetError, match=r"absent\.npz: no such file"):
        load_probabilities(tmp_path / "absent.npz")


def test_answers_whose_sizes_disagree_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="must agree"):
        answers([[0.6, 0.4]], paths=())


@pytest.mark.parametrize("value", [np.inf, 5.0])
def test_what_is_no_probability_is_refused(tmp_path: Path, value: float) -> None:
    logs_NK = np.array([[0.0, value]], np.float32)
    Probabilities(logs_NK, np.zeros(1, np.int64), ("a",), ("x", "y"), {}).save(tmp_path / "a.npz")
    with pytest.raises(AlexNetError, match="of no probability"):
        load_probabilities(tmp_path / "a.npz")


def test_weights_may_be_of_any_size_that_has_a_sum() -> None:
    one, other = random_answers(1), random_answers(2)
    found = combine([one, other], [1e-320, 1e10])
    np.testing.assert_allclose(found.log_probability_NK, other.log_probability_NK, rtol=1e-6)
    with pytest.raises(UsageError, match="weights are"):
        combine([one, other], [1e308, 1e308])
