"""Which images a trained model is asked about, and how its classes are matched with theirs."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from alexnet.cli import main
from alexnet.core.device import Machine
from alexnet.core.errors import UsageError
from alexnet.data.packed import AllSplits, open_packed, seal
from alexnet.data.prepare import prepare
from alexnet.evaluation import predict, subject
from alexnet.evaluation.ensemble import combine, searched_weights
from alexnet.evaluation.error_rate import count
from alexnet.evaluation.subject import evaluate
from alexnet.recipes.run import train
from shared import tiny_training

QUIET = Machine(device=torch.device("cpu"), quiet=True)
COLORS = {"blue": 2, "green": 1, "red": 0}


def photographs(root: Path, count: dict[str, int], seed: int = 0) -> Path:
    """So many images of each class, told apart by color."""
    random = np.random.default_rng(seed)
    for name, num in count.items():
        (root / name).mkdir(parents=True)
        for i in range(num):
            pixels = random.integers(0, 120, (36, 40, 3), dtype=np.uint8)
            if (channel := COLORS.get(name.rpartition("/")[2])) is not None:
                pixels[..., channel] += 100
            Image.fromarray(pixels).save(root / name / f"{i}.png", compress_level=0)
    return root


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """``photos`` without splits, and ``run``, trained on them with ten of each class held out."""
    place = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALEXNET_CACHE", str(place / "cache"))
        patch.chdir(place)
        photographs(place / "photos", dict.fromkeys(COLORS, 10))
        train(tiny_training("photos", epochs=1, batch_size=8, views=("1",)), place / "run", QUIET, report=False)
    return place


@pytest.fixture(autouse=True)
def here(place, monkeypatch):
    monkeypatch.setenv("ALEXNET_CACHE", str(place / "cache"))
    monkeypatch.chdir(place)


def code_of(*arguments: str) -> object:
    with pytest.raises(SystemExit) as exit:
        main(list(arguments))
    return exit.value.code


def told(capsys, *arguments: str) -> dict:
    assert code_of(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_the_run_is_asked_about_what_it_held_out_and_no_seed_changes_that(place):
    own = evaluate(["run"], machine=QUIET)
    assert (own.n, own.protocol["split"], own.protocol["data"]) == (6, "val", "photos")
    named = evaluate(["run"], "./photos", QUIET, views="random:1", views_seed=1)
    assert sorted(named.probabilities.paths) == sorted(own.probabilities.paths)
    assert "seen_in_training" not in named.protocol


def test_one_flag_is_no_seed_of_two_things(place, capsys):
    assert code_of("evaluate", "run", "--seed", "1") == 2
    assert "--views-seed" in capsys.readouterr().err


def test_images_that_the_run_has_learned_from_are_told_by_their_pixels(place, tmp_path, capsys):
    other = prepare("photos", tmp_path / "other", size=36, workers=1, seed=1)  # another fifth is held out
    evaluation = evaluate(["run"], str(other.path), QUIET)
    learned = set(open_packed_of("run").split("train").paths)
    assert evaluation.n == 30  # the source names no splits
    assert evaluation.protocol["seen_in_training"] == 24 == len(learned)
    assert "run was trained on 24 of these 30 images" in capsys.readouterr().err
    val = evaluate(["run"], str(other.path), QUIET, split="val")
    assert val.protocol["seen_in_training"] == len(learned & set(other.split("val").paths)) > 0


def test_the_error_of_a_checkpoint_on_the_images_that_chose_it_is_called_too_low(place, tmp_path, capsys):
    said = "this epoch was chosen because it errs least on"
    best = evaluate(["run"], machine=QUIET, best=True)
    assert best.protocol["chose_the_checkpoint"] == 6
    assert f"{said} these 6 images, so the error here is lower than on new ones" in capsys.readouterr().err
    everything = evaluate(["run/checkpoint/best"], machine=QUIET, split="all")
    assert (everything.n, everything.protocol["chose_the_checkpoint"]) == (30, 6)
    assert f"{said} 6 of these 30 images" in capsys.readouterr().err
    photographs(tmp_path / "new", dict.fromkeys(COLORS, 3), seed=5)
    for call in ({"data": str(tmp_path / "new"), "best": True}, {"split": "train", "best": True}, {}):
        assert "chose_the_checkpoint" not in evaluate(["run"], machine=QUIET, **call).protocol
    assert said not in capsys.readouterr().err


def test_a_run_with_all_controls_for_small_sets_says_what_its_errors_are_worth(place, tmp_path, capsys):
    photographs(tmp_path / "uneven", {"blue": 30, "green": 5, "red": 2})
    out = str(tmp_path / "run")
    words = (
        "--size 36 --preprocessing.resize 36 --preprocessing.crop 32 --preprocessing.scale 0.02 --model.input-size 32 "
        "--model.fc-units 16 16 --model.conv-channels 8 8 8 8 8 --model.conv-kernels 5 3 3 3 3 --model.conv-padding 2 1 1 1 1 "
        "--balance sampler --augmentation.mixup 0.2 --augmentation.cutmix 1 --ema 0.9 --early-stopping 2 --views 1 "
        "--epochs 2 --batch-size 8 --device cpu --threads 1"
    ).split()
    assert code_of("train", "quickstart", "--data", str(tmp_path / "uneven"), "--out", out, *words) == 0
    said, chosen = capsys.readouterr(), "this epoch was chosen because it errs least on these 8 images"
    mean = "mean of the errors of the classes, which have 1 to 6 images each"
    assert chosen in said.err
    assert "mean over classes" in said.err
    assert mean in said.out
    page = (tmp_path / "run" / "report.html").read_text()
    assert "early stopping chose the epoch on these images" in page
    assert "whose weights are model/ (early stopping" in page
    assert "(of 1 to 6 images each)" in page
    assert "class mean" in page
    assert code_of("evaluate", out) == 0
    said = capsys.readouterr()
    assert chosen in said.err
    assert mean in said.out
    new = photographs(tmp_path / "new", dict.fromkeys(COLORS, 3), seed=5)
    assert "chose_the_checkpoint" not in evaluate([out], str(new), QUIET).protocol
    assert "the lowest validation error" in str(subject.state_of(out, best=True))
    assert code_of("train", "quickstart", "--out", out, "--resume") == 0


def open_packed_of(run: str):
    return open_packed(json.loads(Path(run, "config.json").read_text())["data"]["path"])


def test_of_a_folder_that_names_no_splits_every_image_counts(place, capsys):
    photographs(place / "unseen", dict.fromkeys(COLORS, 5), seed=1)
    result = told(capsys, "evaluate", "run", "--data", "./unseen")
    assert (result["n"], result["protocol"]["split"]) == (15, "all")
    assert told(capsys, "features", "run", "--data", "./unseen", "--out", "vectors")["n"] == 15
    assert told(capsys, "probe", "inputs", "run", "--data", "./unseen", "--out", "looked", "--shifted", "0")["n"] == 15
    assert told(capsys, "evaluate", "run", "--data", "./unseen", "--split", "val")["n"] == 3
    assert code_of("evaluate", "run", "--data", "./unseen") == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "all 15 images of ./unseen"


def test_one_image_of_each_class_and_one_class_alone_can_be_evaluated(place):
    photographs(place / "few", dict.fromkeys(COLORS, 1), seed=2)
    assert evaluate(["run"], "few", QUIET).n == 3
    photographs(place / "only", {"green": 4}, seed=3)
    assert [c.n for c in evaluate(["run"], "only", QUIET).classes] == [0, 4, 0]


def test_a_source_that_names_its_splits_is_asked_for_them(place, capsys):
    photographs(place / "split", {"train/blue": 3, "train/red": 3, "val/blue": 2, "val/red": 1}, seed=4)
    assert evaluate(["run"], "split", QUIET).n == 3
    everything = evaluate(["run"], "split", QUIET, split="all")
    assert [c.n for c in everything.classes] == [5, 0, 4]
    assert code_of("evaluate", "run", "--data", "./split", "--split", "test") == 2
    message = capsys.readouterr().err
    assert "./split: no split 'test'; there is train, val" in message
    assert "--split all" in message
    assert "cache" not in message


def test_classes_are_matched_by_name(place):
    photographs(place / "trip", {"test/red": 5, "test/green": 3}, seed=5)
    (place / "trip" / "test" / "blue").mkdir()
    without = evaluate(["run"], "trip", QUIET).classes
    assert [(c.name, c.n) for c in without] == [("blue", 0), ("green", 3), ("red", 5)]
    (place / "trip" / "test" / "blue").rmdir()
    assert evaluate(["run"], "trip", QUIET).classes == without
    photographs(place / "trip", {"test/blue": 2}, seed=5)  # now green and red are classes 1 and 2 of the data too
    assert evaluate(["run"], "trip", QUIET).classes[1:] == without[1:]


def test_a_class_that_the_model_does_not_know_is_named(place):
    photographs(place / "more", {"green": 2, "violet": 3}, seed=7)
    with pytest.raises(
        UsageError, match="more holds 3 images of violet, which run does not know: it tells blue, green, red"
    ):
        evaluate(["run"], "more", QUIET)


def test_an_ensemble_answers_for_what_one_of_it_held_out(place, tmp_path):
    shutil.copytree("run/model", tmp_path / "model")
    both = evaluate([tmp_path / "model", "run"], "photos", QUIET)
    assert both.n == 6
    assert both.top1_errors == evaluate(["run"], machine=QUIET).top1_errors


def test_an_ensemble_has_one_network_in_memory_at_a_time(place, monkeypatch):
    loaded: list[weakref.ref] = []
    alive: list[int] = []

    def load(*given, **named):
        gc.collect()
        alive.append(sum(predictor() is not None for predictor in loaded))
        predictor = predict.load(*given, **named)
        loaded.append(weakref.ref(predictor))
        return predictor

    monkeypatch.setattr(subject, "load", load)
    assert evaluate(["run", "run/model", "run/checkpoint/last"], "photos", QUIET).n == 6
    assert len(loaded) == 4  # the first once more, to know what it held out
    assert max(alive) <= 1  # the one before, until the next is ready


def test_weights_are_searched_on_one_split_and_judged_on_another(place, tmp_path, capsys):
    photographs(tmp_path / "data", {f"{s}/{c}": n for s, n in (("val", 4), ("test", 5)) for c in COLORS}, seed=9)
    data, out = str(tmp_path / "data"), str(tmp_path / "result.json")
    train(tiny_training("photos", epochs=1, batch_size=8, seed=1, views=("1",)), tmp_path / "b", QUIET, report=False)
    models = ["run", str(tmp_path / "b")]
    words = ["--data", data, "--split", "test", "--search-weights", "val", "--views", "10"]
    assert code_of("evaluate", *models, *words, "--out", out) == 0
    assert "the weights were searched on 12 images of the split val, with" in capsys.readouterr().out
    result = json.loads(Path(out).read_text())

    val = [evaluate([model], data, QUIET, split="val", views="10").probabilities for model in models]
    weights = searched_weights(val)
    assert [member["weight"] for member in result["members"]] == list(weights)
    assert [member["weight"] for member in result["protocol"]["ensemble"]] == list(weights)
    judged = evaluate(models, data, QUIET, split="test", views="10", weights=weights)
    for name in ("n", "top1_errors", "loss_nats", "confusion"):
        assert result[name] == judged.to_json()[name], name
    assert result["n"] == 15
    equal, found = count(combine(val)), count(combine(val, weights))
    assert result["weights_searched"] == {
        "split": "val",
        "n": 12,
        "equal_top1_errors": equal.top1_errors,
        "equal_top5_errors": 0,
        "top1_errors": found.top1_errors,
        "top5_errors": 0,
        "judged_too": 0,
    }

    shutil.copy(tmp_path / "data/val/red/0.png", tmp_path / "data/test/red/again.png")
    again = evaluate(models, data, QUIET, split="test", search_weights="val")
    assert again.search.judged_too == 1
    assert "of the images of val, on which the weights are searched, 1 is also among" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "run run --search-weights val",
            "searched on images that they are judged on (val); this needs data with the splits",
        ),
        (
            "run run --search-weights val --split all",
            "searched on images that they are judged on (all); this needs data",
        ),
        ("run run --search-weights test", "photos: no split 'test' to search weights on; there is train, val"),
        ("run run --search-weights all", "photos: no split 'all' to search weights on"),
        ("run run --search-weights train --split train", "judged on (train); add --split val"),
        ("run --search-weights val", "--search-weights needs several models"),
        ("run run --search-weights val --weights 1 2", "leave out --weights or --search-weights"),
        ("run saved.npz --search-weights val", "saved.npz holds answers that were saved; name the model itself"),
    ],
)
def test_weights_are_never_judged_on_the_images_of_their_search(words, message, capsys):
    assert code_of("evaluate", *words.split()) == 2
    assert message in capsys.readouterr().err


def test_the_data_of_a_run_is_found_again_when_the_cache_was_emptied(place, tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "new"))
    shutil.copytree("run", tmp_path / "run")
    settings = json.loads((tmp_path / "run" / "config.json").read_text())
    settings["data"]["path"] = str(tmp_path / "gone")
    (tmp_path / "run" / "config.json").write_text(json.dumps(settings))
    assert evaluate([tmp_path / "run"], machine=QUIET).n == 6
    settings["train"]["data"] = str(photographs(tmp_path / "others", dict.fromkeys(COLORS, 5), seed=8))
    (tmp_path / "run" / "config.json").write_text(json.dumps(settings))
    with pytest.raises(UsageError, match="no longer what the run was trained with"):
        evaluate([tmp_path / "run"], machine=QUIET)


def test_all_splits_are_one_after_the_other(tiny_set):
    everything = tiny_set.images("all")
    assert isinstance(everything, AllSplits)
    train, val = tiny_set.split("train"), tiny_set.split("val")
    assert everything.paths == [*train.paths, *val.paths]
    index_B = np.array([0, len(train), len(train) + 2, 3, len(train) - 1])
    expected = np.concatenate(
        [train.read(np.array([0])), val.read(np.array([0, 2])), train.read(np.array([3, len(train) - 1]))]
    )
    np.testing.assert_array_equal(everything.read(index_B), expected)
    np.testing.assert_array_equal(
        everything.labels[index_B], [*train.labels[[0]], *val.labels[[0, 2]], *train.labels[[3, -1]]]
    )


def test_a_set_says_who_held_images_out_and_an_older_one_is_known_by_its_note(place, tiny_set, tmp_path):
    own = open_packed_of("run")
    assert own.meta["held_out"] == "hash"
    assert tiny_set.meta["held_out"] == "source"
    shutil.copytree(own.path, tmp_path / "older")
    meta = json.loads((tmp_path / "older" / "meta.json").read_text())
    del meta["held_out"], meta["sha256"]
    (tmp_path / "older" / "meta.json").write_text(json.dumps(seal(meta)))
    assert open_packed(tmp_path / "older").not_for_training == "all"


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_evaluate_gives_the_errors_that_the_run_ended_with(precision, tiny_set, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True, raising=False)
    config = tiny_training(tiny_set.path, epochs=1, batch_size=5, views=("10",), precision=precision)
    ended = train(config, tmp_path / "run", QUIET, data=tiny_set, report=False)["views"]["10"]
    again = evaluate([tmp_path / "run"], machine=QUIET, views="10")
    assert (again.n, again.top1_errors, again.loss_nats) == (ended["n"], ended["top1_errors"], ended["loss_nats"])
    assert again.protocol["precision"] == ended["precision"] == precision
    assert evaluate([tmp_path / "run" / "model"], str(tiny_set.path), QUIET).protocol["precision"] == "float32"
