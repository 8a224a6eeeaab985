"""Training with nothing said but where the photographs are: what is seen of them, what is chosen, for how long, and where to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from alexnet.cli import main
from alexnet.cli.train import tell_summary
from alexnet.core.device import Machine
from alexnet.core.errors import DataError, UsageError
from alexnet.data.prepare import prepare
from alexnet.models import build_model
from alexnet.recipes import auto
from alexnet.recipes import run as runs
from alexnet.recipes.look import look
from alexnet.training.config import TrainConfig
from alexnet.training.initial import Initial, save_initial
from alexnet.training.schedule import Cosine
from shared import make_photographs, tiny_training

QUIET = Machine(device=torch.device("cpu"), quiet=True)
TWICE = "No image is both in training and held out, and none is in two classes."


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """An empty working folder, and a cache without weights."""
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("COLUMNS", "80")


class Clock:
    """Steps of a tenth of a second and answers of a hundredth, whatever the machine does."""

    def __init__(self, config: TrainConfig, _machine: Machine, num_classes: int) -> None:
        self.model = build_model(replace(config.model, num_classes=num_classes), name=config.network, seed=None)

    def step(self, _precision: str) -> float:
        return 0.1

    def answer(self) -> float:
        return 0.01


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(auto, "Pace", Clock)
    monkeypatch.setattr(auto, "SAVED_BYTES", 1e18)


def photographs(root: Path, side: int = 100, mode: str = "RGB", **counts: int) -> Path:
    """A folder for each class with so many images of one color each."""
    for label, (name, num) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for i in range(num):
            Image.new(
                mode, (side, side + 5), (40 * label + i) % 256 if mode == "L" else (i % 256, 60 * label, i // 256)
            ).save(root / name / f"{i}.png")
    return root


def packed(folder: Path, tmp_path: Path):
    return prepare(folder, tmp_path / "packed", size=36, workers=1)


def alexnet(capsys, *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit:
        main([*map(str, words)])
    said = capsys.readouterr()
    return int(exit.value.code or 0), said.out, said.err


# --- what is seen -----------------------------------------------------------------------------------------------------


def test_five_lines_say_what_is_in_a_set(tmp_path):
    folder = photographs(tmp_path / "猫狗", 猫=10, 狗=5)
    (folder / "猫" / "broken.png").write_bytes(b"no image")
    assert look(packed(folder, tmp_path), "猫狗").lines == (
        "猫狗: 15 images in 2 classes: 狗, 猫",
        "The largest class is 猫 with 8 images to learn from, the smallest 狗 with 4.",
        "1 file cannot be read and will be left out: 猫/broken.png.",
        TWICE,
        "3 images are held out to measure the error: a fifth of each class, at least one.",
    )


def test_a_leak_and_the_images_of_a_set_that_names_its_splits_are_said(tmp_path):
    folder = make_photographs(tmp_path / "photos", train=3, val=2)
    (folder / "val/red/0.png").write_bytes((folder / "train/red/0.png").read_bytes())
    seen = look(packed(folder, tmp_path), "photos")
    assert seen.lines[1] == "Each class has 3 images to learn from."
    assert seen.lines[3:] == (
        "Warning: 1 of the 6 val images is also in train; `alexnet check photos` names them.",
        "6 images are held out to measure the error: the val images of the set.",
    )
    assert (seen.images, seen.unread, seen.uneven) == ({"train": 9, "val": 6}, 0, False)


def test_a_class_of_one_image_is_learned_and_not_judged(tmp_path):
    seen = look(packed(photographs(tmp_path / "p", a=1, b=5), tmp_path), "p")
    assert seen.lines[4] == "1 image is held out to measure the error: a fifth of each class, at least one; none of a."
    assert seen.uneven


def test_of_a_thousand_classes_as_many_names_are_shown_as_fit_in_80_columns(tmp_path):
    data = packed(photographs(tmp_path / "p", a=2, b=2), tmp_path)
    counts = {"images": 1000, "per_class": [1] * 1000}
    many = replace(
        data,
        classes=[f"class{i:04}" for i in range(1000)],
        meta=data.meta | {"counts": {"train": counts, "val": counts}},
    )
    first = look(many, "p").lines[0]
    assert first == "p: 4 images in 1,000 classes: class0000, class0001, class0002 and 997 more"
    assert len(first) <= 80


# --- what is chosen ---------------------------------------------------------------------------------------------------


def test_batches_and_balance_follow_the_images(tmp_path):
    few = auto.propose(photographs(tmp_path / "few", cat=10, dog=10))
    assert (few.config.batch_size, few.config.balance, few.initial) == (8, "none", None)
    uneven = auto.propose(photographs(tmp_path / "uneven", often=500, rarely=5))
    assert (uneven.config.batch_size, uneven.config.balance) == (8, "sampler")
    assert uneven.lines[0].endswith(", showing each class equally often.")


@pytest.mark.parametrize(
    ("side", "few", "size", "crop"), [(300, 4, 256, 224), (300, 5, 56, 51), (32, 4, 56, 51), (8, 4, 56, 51)]
)
def test_few_or_small_images_get_a_small_network(tmp_path, monkeypatch, side, few, size, crop):
    monkeypatch.setattr(auto, "FEW", few)  # there are four to learn from
    config = auto.propose(photographs(tmp_path / "p", side, a=3, b=3)).config
    assert (config.size, config.preprocessing.crop, config.model.input_size) == (size, crop, crop)


@pytest.mark.parametrize(("size", "crop"), [(28, 25), (36, 32), (64, 58), (128, 112)])
def test_a_packed_set_of_any_size_is_read_as_it_is(tmp_path, size, crop):
    data = prepare(photographs(tmp_path / "p", a=3, b=3), tmp_path / "packed", size=size, workers=1)
    proposal = auto.propose(data.path)
    assert (proposal.config.size, proposal.config.preprocessing.resize, proposal.config.model.input_size) == (
        *(None, size),
        crop,
    )
    runs.require_possible(proposal.config, runs.find_data(proposal.config), QUIET, None, tmp_path)


def test_grey_characters_are_not_mirrored_and_no_weights_are_advised():
    proposal = auto.propose("digits")
    config = proposal.config
    assert (config.model.in_channels, config.preprocessing.channels, config.augmentation.mirror) == (1, 1, False)
    assert len(proposal.lines) == 1
    runs.require_possible(config, runs.find_data(config, quiet=True), QUIET, None, Path())


def test_weights_in_the_cache_are_taken_if_they_can_read_the_images(tmp_path, monkeypatch):
    folder = photographs(tmp_path / "p", a=3, b=3)
    assert "`alexnet weights get alexnet-owt-trunk`" in auto.propose(folder).lines[1]
    weights = trunk()
    monkeypatch.setattr(type(auto.KNOWN[0]), "is_here", lambda known: "trunk" in known.name)
    monkeypatch.setattr(auto, "load_initial", lambda name: replace(weights, source=str(name)))
    proposal = auto.propose(folder)
    assert proposal.lines[0] == "Plan: start from alexnet-owt-trunk, a trained alexnet_owt."
    assert (proposal.initial.source, proposal.config.network) == ("alexnet-owt-trunk", "alexnet_owt")
    grey = auto.propose("digits")
    assert grey.initial is None
    assert grey.lines[1] == "alexnet-owt-trunk is in the cache, but reads color, and these images are grey."


def trunk() -> Initial:
    """The convolutions of an alexnet_owt with random weights."""
    config = runs.RECIPES["owt"]()
    model = build_model(config.model, name="alexnet_owt", seed=0)
    tensors = {key: tensor for key, tensor in model.state_dict().items() if key.startswith("conv")}
    return Initial("trunk", "alexnet_owt", tensors, config.preprocessing)


# --- for how long -----------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path):
    """A proposal for 54 training and 12 held-out images in batches of 8: 7 steps and 0.82 s an epoch of :class:`Clock`, and
    1.32 s for an evaluation with eleven views."""
    data = packed(make_photographs(tmp_path / "photos"), tmp_path)
    config = replace(tiny_training(data.path), batch_size=8, schedule=Cosine(warmup=9), epochs=90)
    return auto.Proposal(config, None, ("Plan.",)), data


def test_epochs_follow_from_steps_where_there_is_time_and_from_the_time_where_not(small, clock, tmp_path):
    proposal, data = small
    planned = auto.plan(proposal, data, QUIET, tmp_path / "run")
    assert planned.config.epochs == 215  # the first with 1,500 steps of 7
    assert planned.lines[1] == "215 passes over the 54 training images in batches of 8: 1,505 steps."
    assert planned.seconds == pytest.approx({"training": 215 * 0.82, "evaluation": 1.32})
    assert planned.lines[2] == "Time: about 3 minutes."
    assert planned.config.schedule == Cosine(warmup=21.5)
    short = auto.plan(proposal, data, QUIET, tmp_path / "run", minutes=0.5)
    assert short.config.epochs == 34  # (30 - 1.32) / 0.82 = 34.98
    assert short.lines[2:] == (
        "That is little: from random weights a network needs some 1,500 steps; give it more --minutes.",
        "Time: about 30 seconds.",
    )


def own(proposal: auto.Proposal) -> Initial:
    """Weights of the network of a proposal."""
    config = proposal.config
    model = build_model(replace(config.model, num_classes=3), name=config.network, seed=0)
    return Initial("own", config.network, model.state_dict(), config.preprocessing)


def test_with_weights_a_last_layer_is_fitted_and_tuning_is_tried_where_there_are_enough_images(small, clock, tmp_path):
    proposal, data = small
    proposal = replace(proposal, config=replace(proposal.config, last_layer="fitted"), initial=own(proposal))
    planned = auto.plan(proposal, data, QUIET, tmp_path / "run")
    assert planned.lines[1:3] == (
        "First fit a last layer to what the other layers compute of the 54 training images.",
        "That is all: for tuning there are too few images, or there is too little time.",
    )
    assert (planned.config.epochs, planned.tries) == (0, False)
    assert planned.seconds == pytest.approx({"features": 1.08, "evaluation": 1.32})


def test_tuning_is_planned_with_its_trial(small, clock, tmp_path, monkeypatch):
    monkeypatch.setattr(auto, "LEAST", 10)  # 54 / 5
    proposal, data = small
    proposal = replace(proposal, config=replace(proposal.config, last_layer="fitted", epochs=6), initial=own(proposal))
    planned = auto.plan(proposal, data, QUIET, tmp_path / "run")
    assert (planned.config.epochs, planned.tries) == (6, True)
    assert planned.seconds == pytest.approx({"features": 1.08, "tuning": 6 * 0.82 * 1.8, "evaluation": 1.32})
    given = auto.plan(proposal, data, QUIET, tmp_path / "run", fixed=["epochs"])
    assert (given.config.epochs, given.tries) == (6, False)  # who says how many wants them


def test_epochs_that_are_given_stay_and_a_budget_that_they_break_is_said(small, clock, tmp_path):
    proposal, data = small
    planned = auto.plan(proposal, data, QUIET, tmp_path / "run", minutes=1, fixed=["epochs"])
    assert planned.config.epochs == 90
    assert planned.lines[-1] == "That is more than --minutes 1; there is nothing left to shorten."


def test_a_budget_of_less_than_one_epoch_is_refused_with_what_one_takes(small, clock, tmp_path):
    proposal, data = small
    with pytest.raises(
        UsageError, match=r"take about 10 seconds here, and there are 0\.01 minutes; give more --minutes"
    ):
        auto.plan(proposal, data, QUIET, tmp_path / "run", minutes=0.01)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(3, "10 seconds"), (42, "40 seconds"), (57, "1 minute"), (250, "4 minutes"), (7900, "2 hours 10 minutes")],
)
def test_times_are_said_as_people_say_them(seconds, words):
    assert auto.in_words(seconds) == f"about {words}"


def test_a_time_is_divided_where_it_is_some_minutes():
    assert auto._parts({"features": 65.0, "tuning": 170.0, "evaluation": 3.0}) == ": 1 for features, 3 for tuning"
    assert auto._parts({"features": 20.0, "tuning": 170.0}) == ": less than 1 for features, 3 for tuning"
    assert auto._parts({"training": 170.0, "evaluation": 3.0}) == auto._parts({"features": 9.0, "tuning": 60.0}) == ""


@pytest.mark.parametrize(("loss", "said"), [(0.5, 1), (0.25, 0)])
def test_the_fitted_layer_is_judged_by_itself_where_something_was_trained_after_it(loss, said, capsys):
    errors = {"n": 4, "top1_errors": 1, "top5_errors": 0, "loss_nats": 0.25, "classes": 3, "precision": "float32"}
    errors |= {"images_of_classes": [1, 1], "balanced_top1_error": 0.25}
    head = errors | {"loss_nats": loss}
    tell_summary({"head": head, "views": {"1": errors}, "model": "m", "report": "r"}, json=False)
    assert capsys.readouterr().out.count("fitted last layer alone: top-1 error 25.00% (1 of 4)") == said


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def carried_out(monkeypatch):
    """What would be trained, and where to: no training takes place."""
    asked = []

    def noted(config, out, _machine, *, data, initial, **options):
        asked.append((config, out, initial, options))
        out.mkdir(parents=True, exist_ok=True)
        (out / "config.json").write_text("{}")
        return {"run": str(out), "views": {}, "model": "", "report": ""}

    monkeypatch.setattr(runs, "train", noted)
    monkeypatch.setattr(auto, "train", noted)
    return asked


def test_photographs_become_runs_with_numbers_and_options_win(tmp_path, carried_out, clock, capsys):
    folder = photographs(tmp_path / "holiday", 30, a=5, b=5)
    for number in (1, 2):
        code, _, err = alexnet(capsys, "train", f"{folder}/", "--epochs", 3, "--optimizer.lr=0.5", "--device", "cpu")
        assert code == 0, err
        config, out, initial, _ = carried_out[-1]
        assert (out, initial) == (Path(f"runs/holiday-{number}"), None)
        assert (config.epochs, config.optimizer.lr, config.batch_size) == (3, 0.5, 8)
        assert "As you say: --epochs 3, --optimizer.lr 0.5." in err
        assert all(len(line) <= 80 for line in err.splitlines())
    assert auto.newest_run(folder) == Path("runs/holiday-2")
    assert alexnet(capsys, "train", folder, "--out", "mine", "--epochs", 1)[0] == 0
    assert carried_out[-1][1] == Path("mine")


def test_the_same_in_python(tmp_path, carried_out, clock):
    folder = photographs(tmp_path / "p", 30, a=5, b=5)
    assert auto.train_photos(folder, machine=QUIET)["run"] == "runs/p-1"
    assert auto.train_photos(folder, "mine", minutes=0.5, machine=QUIET)["run"] == "mine"
    assert [config.epochs for config, *_ in carried_out] == [300, 248]  # (30 - 0.22) / 0.12 = 248.2


def test_a_dry_run_prints_the_plan_and_writes_nothing(tmp_path, carried_out, clock, capsys):
    folder = photographs(tmp_path / "p", 30, a=5, b=5)
    code, out, _ = alexnet(capsys, "train", folder, "--dry-run")
    assert code == 0
    assert out.splitlines()[-1] == "The run is runs/p-1."
    code, out, _ = alexnet(capsys, "train", folder, "--dry-run", "--json", "--batch-size", 2)
    document = json.loads(out)
    assert (document["plan"]["config"]["batch_size"], document["look"]["of_class"]) == (2, [4, 4])
    assert not carried_out
    assert not Path("runs").exists()


def test_the_help_needs_no_photographs(capsys):
    code, out, _ = alexnet(capsys, "train", "PHOTOS", "--help")
    assert code == 0
    assert "--minutes X" in out
    assert "--data " not in out
    assert all(len(line) <= 80 for line in out.splitlines())


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nosuch"], 2, "nosuch is no recipe and no folder or file; `alexnet train --help` lists"),
        (["modren"], 2, "modren is no recipe (perhaps modern) and"),
        (["p", "--minutes", "0"], 2, "--minutes is 0; it must be more than 0"),
        (["p", "--minutes", "-3"], 2, "--minutes is -3; it must be more than 0"),
        (["p", "--minutes", "nan"], 2, "--minutes is nan; it must be more than 0"),
        (["p", "--minutes", "soon"], 2, "--minutes is soon; it takes a number"),
        (["p", "--data", "q"], 2, "--data cannot be set: it is what stands after train; leave it out"),
        (["p", "--fresh"], 2, "--fresh replaces an earlier run: name it with --out"),
        (["p", "--out", "used"], 2, "used is not empty; add --resume to go on"),
        (["p", "--init-from", "none.pth"], 1, "none.pth"),
        (["empty"], 4, "empty"),
        (["single"], 4, "single: a: the only class; a classifier needs two or more"),
        (["ones"], 4, "ones: one image in each class leaves none to hold out for validation"),
        (["p/a/0.png"], 4, "p/a/0.png: a single picture is no set of images"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_before_anything_begins(words, code, said, carried_out, clock, capsys):
    photographs(Path("p"), 30, a=5, b=5)
    photographs(Path("single"), 30, a=5)
    photographs(Path("ones"), 30, a=1, b=1)
    Path("empty").mkdir()
    Path("used").mkdir()
    Path("used/file").touch()
    before = sorted(Path().rglob("*"))
    found, _, err = alexnet(capsys, "train", *words)
    assert (found, said in err, err.count("\n")) == (code, True, 1), err
    assert not carried_out
    assert sorted(Path().rglob("*")) == before


def test_several_ranks_are_refused(monkeypatch, capsys):
    photographs(Path("p"), 30, a=5, b=5)
    monkeypatch.setattr("alexnet.cli.photos.job.in_job", lambda: True)
    code, _, err = alexnet(capsys, "train", "p")
    assert code == 2
    assert "plans a run of one process: leave torchrun out, or name a recipe and --data" in err


def test_a_run_goes_on_with_its_own_settings_whatever_would_be_planned_now(tmp_path, clock, capsys):
    data = packed(make_photographs(tmp_path / "photos"), tmp_path)
    config = tiny_training(data.path, epochs=1, batch_size=16, views=("1",))
    runs.train(replace(config, size=None), Path("runs/packed-1"), QUIET, data=data, report=False)
    Path("runs/packed-2").mkdir()
    Path("runs/packed-2").rmdir()
    code, out, err = alexnet(capsys, "train", data.path, "--resume", "--device", "cpu")
    assert code == 0, err
    assert "runs/packed-1 is finished; nothing to do" in err
    assert "model: runs/packed-1/model" in out
    code, _, err = alexnet(capsys, "train", data.path, "--resume", "--minutes", 3)
    assert (code, "--minutes plans a new run" in err) == (2, True)


def test_weights_that_are_named_are_started_from(tmp_path, carried_out, clock, capsys):
    folder = photographs(tmp_path / "p", 30, a=5, b=5)
    save_initial(trunk(), tmp_path / "start.safetensors")
    code, _, err = alexnet(capsys, "train", folder, "--init-from", tmp_path / "start.safetensors", "--epochs", 1)
    assert code == 0, err
    config, _, initial, _ = carried_out[0]
    assert (config.network, initial.network) == ("alexnet_owt", "alexnet_owt")


@pytest.mark.long
def test_a_hundred_steps_learn_what_49_images_in_batches_of_128_cannot(tmp_path):
    random = np.random.default_rng(0)
    for label, name in enumerate(("flat", "upright")):
        (tmp_path / "p" / name).mkdir(parents=True)
        for i in range(25):
            wave = 128 + 90 * np.sin(np.arange(60) / 3 + random.uniform(0, 6))
            pixels = np.tile(wave, (60, 1)) if label else np.tile(wave[:, None], (1, 60))
            noisy = (pixels[..., None] + random.normal(0, 20, (60, 60, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(tmp_path / "p" / name / f"{i}.png")
    proposal = auto.propose(tmp_path / "p")
    data = runs.find_data(proposal.config, quiet=True)
    planned = auto.plan(proposal, data, QUIET, "run", fixed=["epochs"])
    summary = runs.train(replace(planned.config, epochs=20, views=("1",)), "run", QUIET, data=data, report=False)
    assert summary["views"]["1"]["top1_errors"] <= 1


def test_a_class_without_training_images_is_refused_before_anything_is_decoded(tmp_path):
    photographs(tmp_path / "p" / "train", 9, a=2, c=2)
    photographs(tmp_path / "p" / "val", 9, b=1)
    with pytest.raises(DataError, match="b: a class without training images"):
        auto.propose(tmp_path / "p")
