"""Error rates: exact counts against another way of counting, each image once, nothing hidden by a NaN or a tie."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from alexnet.core.errors import AlexNetError, DataError, UsageError
from alexnet.core.preprocessing import Preprocessing
from alexnet.evaluation.error_rate import (
    NUM_MISTAKES,
    Evaluation,
    Tally,
    count,
    evaluate_split,
    label_ranks,
    mean_log_probability,
)
from alexnet.evaluation.views import CENTER, TEN, parse_views

INPUT = Preprocessing(resize=6, crop=4, channels=1, mean="none")
NAMES = [f"class {k}" for k in range(7)]


@dataclass
class Split:
    """Random pixels and labels, with a note of what was read."""

    pixels: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        self.paths = [f"{i}.png" for i in range(len(self.labels))]
        self.reads: list[int] = []

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index_B: np.ndarray) -> np.ndarray:
        self.reads += index_B.tolist()
        return self.pixels[index_B]


def make_split(n: int, num_classes: int = 7, seed: int = 0) -> Split:
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (n, 6, 6, 1), dtype=np.uint8)
    return Split(pixels, generator.integers(0, num_classes, n))


def make_model(num_classes: int = 7) -> nn.Module:
    """A linear network whose answers differ from image to image and from view to view."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, num_classes))
    model[1].weight.data = torch.randn(num_classes, 16, generator=generator) / 200
    model[1].bias.data = torch.zeros(num_classes)
    return model


def evaluate(split: Split, *, model: nn.Module | None = None, **options: Any) -> Evaluation:
    options = {"classes": NAMES, "views": CENTER, "batch_size": 8, **options}
    return evaluate_split(model or make_model(), split, INPUT, None, **options)


def tallied(score_BK: Tensor, label_B: Tensor, valid_B: Tensor) -> tuple[int, int]:
    """Top-1 and top-5 errors of the valid images, counted as in an evaluation."""
    tally = Tally(int(valid_B.sum()))
    image_B = np.cumsum(valid_B.numpy()) - 1
    tally.add(image_B, score_BK.log_softmax(1), label_B, valid_B)
    names = [str(k) for k in range(score_BK.shape[1])]
    result = tally.evaluation(label_B[valid_B].numpy(), names, names * len(label_B), {})
    return result.top1_errors, result.top5_errors


# Ranking --------------------------------------------------------------------------------------------------------------


def test_counts_of_a_table_worked_by_hand() -> None:
    score_BK = torch.tensor([
        [0.1, 0.7, 0.2],  # order 1, 2, 0
        [0.5, 0.2, 0.3],  # order 0, 2, 1
        [0.2, 0.3, 0.5],  # order 2, 1, 0
        [0.4, 0.4, 0.2],  # order 0, 1, 2: of equal ones the first class stands first
    ])  # fmt: skip
    label_B = torch.tensor([1, 1, 0, 1])
    assert label_ranks(score_BK, label_B).tolist() == [0, 2, 2, 1]
    for valid, errors in (([True] * 4, (3, 0)), ([True, False, True, False], (1, 0))):
        assert tallied(score_BK, label_B, torch.tensor(valid)) == errors


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_ranks_are_those_of_numpys_stable_sort_ties_included(data: st.DataObject) -> None:
    num_classes = data.draw(st.integers(1, 8))
    row = st.lists(st.sampled_from([-math.inf, -1.5, 0.0, 0.25, 3.0]), min_size=num_classes, max_size=num_classes)
    score_BK = np.array(data.draw(st.lists(row, min_size=1, max_size=6)))
    label_B = np.array(
        data.draw(st.lists(st.integers(0, num_classes - 1), min_size=len(score_BK), max_size=len(score_BK)))
    )
    order_BK = np.argsort(-score_BK, axis=1, kind="stable")
    expected = [order_K.tolist().index(label) for order_K, label in zip(order_BK, label_B, strict=True)]
    assert label_ranks(torch.from_numpy(score_BK), torch.from_numpy(label_B)).tolist() == expected


def test_a_constant_network_is_right_for_the_first_class_only() -> None:
    # A count that took ties as hits would call it perfect.
    score_BK, label_B = torch.zeros(10, 10), torch.arange(10)
    assert tallied(score_BK, label_B, torch.ones(10, dtype=torch.bool)) == (9, 5)


def test_a_list_of_names_that_cannot_be_read_is_found_before_the_work() -> None:
    split = make_split(20)

    class Damaged(Split):
        @property
        def paths(self) -> list[str]:
            raise DataError("val.paths.jsonl: damaged")

        @paths.setter
        def paths(self, _: list[str]) -> None: ...

    damaged = Damaged(split.pixels, split.labels)
    with pytest.raises(DataError, match="damaged"):
        evaluate(damaged)
    assert damaged.reads == []


def test_nan_is_no_rank() -> None:
    # A NaN is neither before nor after: comparing alone would give rank 0, a right answer.
    with pytest.raises(AlexNetError, match="NaN"):
        label_ranks(torch.tensor([[math.nan, math.nan]]), torch.tensor([0]))


# Averaging over views -------------------------------------------------------------------------------------------------


def test_probabilities_are_averaged_not_logits() -> None:
    # Two views of one image, logits ln(9), 0 and 0, ln(3): probabilities .9 .1 and .25 .75, mean .575 .425.
    views = [torch.tensor([[math.log(9), 0.0]]), torch.tensor([[0.0, math.log(3)]])]
    mean_BK = mean_log_probability(nn.Identity(), views).double().exp()
    assert mean_BK[0].tolist() == pytest.approx([0.575, 0.425], rel=1e-6)


def test_a_thousand_equal_views_are_as_good_as_one() -> None:
    # Summed in float32 the mean would drift by about 1e-5.
    view = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(mean_log_probability(nn.Identity(), [view] * 1000), mean_log_probability(nn.Identity(), [view]))


def test_the_order_of_very_improbable_classes_survives() -> None:
    # exp(-2000) is 0 in float64; the logarithm keeps the order of the classes.
    views = [torch.tensor([[0.0, -3000.0, -2000.0]]), torch.tensor([[0.0, -3000.0, -2500.0]])]
    mean_BK = mean_log_probability(nn.Identity(), views)
    assert mean_BK[0].tolist() == pytest.approx([-math.log(1), -3000.0, -2000.0 - math.log(2)])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_output_that_is_not_finite_raises(bad: float) -> None:
    with pytest.raises(AlexNetError, match="NaN or infinity"):
        mean_log_probability(nn.Identity(), [torch.tensor([[0.0, bad]])])


def test_ten_views_agree_with_a_plain_loop() -> None:
    split = make_split(5)
    model = make_model()
    result = evaluate(split, model=model, views=TEN, batch_size=2, keep_probabilities=True)
    assert result.probabilities is not None
    for i in range(5):
        pixels = split.pixels[i, ..., 0].astype(np.float64)
        total = np.zeros(7)
        for top, left in [(0, 0), (0, 2), (1, 1), (2, 0), (2, 2)]:
            crop = pixels[top : top + 4, left : left + 4]
            for view in (crop, crop[:, ::-1]):
                logits = model[1].weight.detach().double().numpy() @ view.reshape(-1)
                total += np.exp(logits) / np.exp(logits).sum()
        assert np.exp(result.probabilities.log_probability_NK[i]) == pytest.approx(total / 10, rel=1e-5)


# A whole split --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("n", range(1, 18))
def test_every_image_is_counted_once_whatever_the_batches(n: int, batch_size: int) -> None:
    split = make_split(n)
    result = evaluate(split, batch_size=batch_size)
    assert result.n == n == sum(counts.n for counts in result.classes)
    assert set(split.reads) == set(range(n))
    assert len(split.reads) == math.ceil(n / min(batch_size, n)) * min(batch_size, n)  # the last batch is filled up
    assert sum(num for _, _, num in result.confusion) == n
    assert [counts.n for counts in result.classes] == np.bincount(split.labels, minlength=7).tolist()


@pytest.mark.parametrize("views", [CENTER, TEN, parse_views("random:3", seed=5)])
def test_the_result_does_not_depend_on_the_batch_size(views: Any) -> None:
    split = make_split(17)
    results = [evaluate(split, views=views, batch_size=size, keep_probabilities=True) for size in (1, 3, 8, 100)]
    for result in results[1:]:
        assert (result.top1_errors, result.top5_errors) == (results[0].top1_errors, results[0].top5_errors)
        assert result.confusion == results[0].confusion
        ours, theirs = result.probabilities, results[0].probabilities
        assert ours is not None
        assert theirs is not None
        assert np.allclose(ours.log_probability_NK, theirs.log_probability_NK, atol=1e-5)


def test_all_counts_agree_with_numpy() -> None:
    split = make_split(300)
    result = evaluate(split, batch_size=64, keep_probabilities=True)
    assert result.probabilities is not None
    log_probability = result.probabilities.log_probability_NK
    order = np.argsort(-log_probability, axis=1, kind="stable")
    hit = order == split.labels[:, None]
    assert result.top1_errors == int((~hit[:, :1].any(axis=1)).sum())
    assert result.top5_errors == int((~hit[:, :5].any(axis=1)).sum())
    assert 0 < result.top5_errors < result.top1_errors < result.n
    assert result.loss_nats == pytest.approx(-log_probability[np.arange(300), split.labels].astype(np.float64).mean())
    matrix = np.zeros((7, 7), dtype=int)
    np.add.at(matrix, (split.labels, order[:, 0]), 1)
    assert [list(entry) for entry in result.confusion] == [
        [i, j, matrix[i, j]] for i in range(7) for j in range(7) if matrix[i, j]
    ]
    for k, counts in enumerate(result.classes):
        mine = split.labels == k
        assert (counts.n, counts.top1_errors) == (mine.sum(), (~hit[mine, 0]).sum())
        assert counts.top5_errors == (~hit[mine, :5].any(axis=1)).sum()


def test_the_surest_mistakes_come_first_and_are_mistakes() -> None:
    split = make_split(300)
    result = evaluate(split, batch_size=64, keep_probabilities=True)
    assert result.probabilities is not None
    probability = np.exp(result.probabilities.log_probability_NK.astype(np.float64))
    wrong = np.flatnonzero(probability.argmax(axis=1) != split.labels)
    surest = sorted(wrong, key=lambda i: -probability[i].max())[:NUM_MISTAKES]
    assert [m.path for m in result.mistakes] == [f"{i}.png" for i in surest]
    first, i = result.mistakes[0], surest[0]
    assert (first.label, first.predicted) == (split.labels[i], probability[i].argmax())
    assert (first.probability, first.label_probability) == pytest.approx(
        (probability[i].max(), probability[i, split.labels[i]])
    )


def test_with_five_classes_or_fewer_there_are_no_top5_errors() -> None:
    result = evaluate(make_split(40, num_classes=3), model=make_model(3), classes=NAMES[:3])
    assert result.top1_errors > 0
    assert result.top5_errors == 0


def test_a_class_without_images_stays_in_the_table() -> None:
    result = evaluate(make_split(20, num_classes=2))
    assert [counts.n for counts in result.classes][2:] == [0] * 5


def test_evaluation_leaves_the_model_in_its_mode_and_without_gradients() -> None:
    model = nn.Sequential(make_model(), nn.Dropout(0.5))
    first = evaluate(make_split(9), model=model.train(), keep_probabilities=True)
    second = evaluate(make_split(9), model=model.eval(), keep_probabilities=True)
    assert first.probabilities is not None
    assert second.probabilities is not None
    assert (first.probabilities.log_probability_NK == second.probabilities.log_probability_NK).all()  # dropout was off
    evaluate(make_split(9), model=model.train())
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_progress_ends_at_the_number_of_images() -> None:
    seen: list[tuple[int, int]] = []
    evaluate(make_split(10), batch_size=4, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 10), (8, 10), (10, 10)]


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(UsageError, match="no images"):
        evaluate(make_split(0))


def test_a_batch_of_none_is_refused() -> None:
    with pytest.raises(UsageError, match="batch_size is 0"):
        evaluate(make_split(5), batch_size=0)


def test_grey_images_are_not_spread_over_a_color_network() -> None:
    # Without the check, subtracting a color mean would broadcast one channel to three.
    color = Preprocessing(resize=6, crop=4, channels=3)
    with pytest.raises(UsageError, match="have 1 channels, the network reads 3"):
        evaluate_split(make_model(), make_split(3), color, np.zeros((6, 6, 3), np.float32), classes=NAMES, views=CENTER)


def test_another_number_of_classes_is_refused() -> None:
    with pytest.raises(UsageError, match="tells 7 classes apart, the data has 2"):
        evaluate(make_split(5, num_classes=2), classes=NAMES[:2])


def test_a_network_that_answers_nan_is_not_counted() -> None:
    model = make_model()
    model[1].bias.data[3] = math.nan
    with pytest.raises(AlexNetError, match="NaN"):
        evaluate(make_split(5), model=model)


def test_an_image_counted_twice_or_never_is_found() -> None:
    tally = Tally(4)
    one_B, log_probability_BK = torch.ones(4, dtype=torch.bool), torch.zeros(4, 7)
    tally.add(np.array([0, 1, 2, 0]), log_probability_BK, torch.zeros(4, dtype=torch.int64), one_B)
    with pytest.raises(AlexNetError, match=r"2 images .* once \(the first is 0.png\)"):
        tally.evaluation(np.zeros(4, np.int64), NAMES, [f"{i}.png" for i in range(4)], {})


def test_the_result_file_holds_what_the_contract_asks_for() -> None:
    views = parse_views("random:2", seed=3)
    result = evaluate(make_split(30), views=views, data={"split": "val", "fingerprint": "f00d"})
    value = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert value["n"] == 30
    assert value["top1_error"] == value["top1_errors"] / 30
    assert value["top5_error"] == value["top5_errors"] / 30
    assert value["views"] == "random:2"
    assert value["loss_nats"] == result.loss_nats
    protocol = value["protocol"]
    assert (protocol["views"], protocol["views_seed"]) == ("random:2", 3)
    assert (protocol["split"], protocol["fingerprint"]) == ("val", "f00d")
    assert (protocol["preprocessing"]["resize"], protocol["preprocessing"]["crop"]) == (6, 4)
    assert value["environment"]["torch"] == torch.__version__
    assert value["classes"][0].keys() == {"name", "n", "top1_errors", "top5_errors"}


def test_protocols_differ_where_the_measurement_does() -> None:
    split = make_split(3)

    def protocol(**options: Any) -> dict[str, Any]:
        return evaluate(split, **options).protocol

    same = protocol()
    assert protocol(batch_size=1) == same
    assert protocol(views=TEN) != same
    assert protocol(classes=NAMES[::-1]) != same
    other = evaluate_split(make_model(), split, replace(INPUT, scale=0.5), None, classes=NAMES, views=CENTER)
    assert other.protocol != same


def test_counting_saved_answers_gives_the_same_result() -> None:
    first = evaluate(make_split(50), keep_probabilities=True)
    assert first.probabilities is not None
    again = count(first.probabilities, batch_size=7)
    assert again.to_json() | {"loss_nats": 0} == first.to_json() | {"loss_nats": 0}
    assert again.loss_nats == pytest.approx(first.loss_nats, rel=1e-12)


def test_bfloat16_is_said_in_the_protocol_and_close_to_float32() -> None:
    split = make_split(40)
    exact, coarse = (
        evaluate(split, precision=precision, keep_probabilities=True) for precision in ("float32", "bfloat16")
    )
    assert coarse.protocol["precision"] == "bfloat16"
    assert exact.probabilities is not None
    assert coarse.probabilities is not None
    difference = coarse.probabilities.log_probability_NK - exact.probabilities.log_probability_NK
    assert 0 < np.abs(difference).max() < 0.2


def test_float64_is_computed_in_float64() -> None:
    seen: list[torch.dtype] = []

    class Spy(nn.Module):
        def forward(self, x_BCHW: Tensor) -> Tensor:
            seen.append(x_BCHW.dtype)
            return x_BCHW.flatten(1)[:, :7]

    evaluate(make_split(3), model=Spy(), precision="float64")
    assert seen == [torch.float64]


def test_class_names_are_kept_in_order() -> None:
    assert [counts.name for counts in evaluate(make_split(3)).classes] == NAMES
