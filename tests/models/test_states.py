"""A stopped run is a model: its newest sound checkpoint, its best one, or any that is named."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file

from alexnet.cli import main
from alexnet.core.device import Machine
from alexnet.core.errors import AlexNetError, UsageError
from alexnet.core.runs import REPLACED, REPLACING
from alexnet.evaluation.predict import load
from alexnet.evaluation.subject import evaluate
from alexnet.models.states import open_model, run_of
from alexnet.recipes.run import train
from alexnet.training.files import set_aside, sole_trainer
from alexnet.training.initial import load_initial
from shared import content, tiny_training

QUIET = Machine(device=torch.device("cpu"), quiet=True)


@pytest.fixture(scope="module")
def finished(tiny_set, tmp_path_factory):
    """Checkpoints at steps 18, in the third epoch, and 21, the end; the former stands for the best."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    config = tiny_training(tiny_set.path, epochs=3, batch_size=8, checkpoint_steps=3, views=("1",))
    train(config, out, QUIET, data=tiny_set, report=False)
    (out / "checkpoint" / "best").write_text("step-18\n")
    return out


@pytest.fixture
def stopped(finished, tmp_path):
    """The same without what is made at the end."""
    shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "model")
    return tmp_path / "run"


def weights_of(step):
    return load_file(step / "model.safetensors")


def assert_same_weights(model, tensors):
    state = model.state_dict()
    assert state.keys() == tensors.keys()
    assert all(torch.equal(state[key], tensors[key]) for key in state)


def test_a_stopped_run_is_its_newest_checkpoint_and_says_so(finished, stopped, capsys):
    predictor = load(stopped)
    assert (
        f"{stopped} is not finished; this is {stopped}/checkpoint/step-21, after epoch 3 of 3"
        in capsys.readouterr().err
    )
    assert_same_weights(predictor.model, weights_of(stopped / "checkpoint" / "step-21"))
    assert_same_weights(predictor.model, load(finished).model.state_dict())
    assert capsys.readouterr().err == ""
    assert predictor.classes == load(finished).classes
    evaluation = evaluate([stopped], machine=QUIET)
    assert (evaluation.n, evaluation.protocol["split"]) == (12, "val")
    assert evaluation.protocol["state"] == {"checkpoint": "step-21", "step": 21, "epoch": 3, "images_of_next": 0}
    assert evaluation.top1_errors == evaluate([finished], machine=QUIET).top1_errors


def test_a_damaged_checkpoint_is_passed_over_and_nothing_is_changed(stopped, capsys):
    file = stopped / "checkpoint" / "step-21" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    before = content(stopped)
    predictor = load(stopped)
    said = capsys.readouterr().err
    assert "damaged and passed over: step-21" in said
    assert "step-18, after epoch 2 of 3 and 32 images of the next" in said
    assert_same_weights(predictor.model, weights_of(stopped / "checkpoint" / "step-18"))
    assert content(stopped) == before
    with pytest.raises(AlexNetError, match="step-21: missing or damaged"):
        load(stopped / "checkpoint" / "step-21")


@pytest.mark.parametrize("name", ["", "checkpoint/best", "checkpoint/step-18"])
def test_any_checkpoint_can_be_named_also_of_a_finished_run(name, finished):
    opened, state = open_model(finished / name, best=not name)
    assert (state.step, state.epoch, state.position) == (18, 2, 32)
    assert_same_weights(opened.model, weights_of(finished / "checkpoint" / "step-18"))
    assert run_of(finished / name) == finished


def test_training_starts_from_the_best_checkpoint(finished):
    initial = load_initial(finished / "checkpoint" / "best")
    assert initial.made["checkpoint"] == "step-18"
    assert initial.tensors.keys() == weights_of(finished / "checkpoint" / "step-18").keys()


def test_probes_of_a_checkpoint_do_not_go_among_those_of_the_finished_network(stopped, capsys):
    for arguments in (["--best"], []):
        with pytest.raises(SystemExit) as exit:
            main(["probe", "kernels", str(stopped), *arguments])
        assert exit.value.code == 0
    assert sorted(path.name for path in (stopped / "probes").iterdir()) == ["step-18", "step-21"]
    with pytest.raises(SystemExit):
        main(["predict", str(stopped), "--best", "--json", str(stopped / "none.jpg")])
    capsys.readouterr()


def test_what_an_earlier_version_left_is_opened_where_the_model_is_there(finished, stopped):
    shutil.rmtree(stopped / "checkpoint" / "network")
    with pytest.raises(AlexNetError, match="an earlier version wrote none; go on with the run by --resume"):
        load(stopped)
    shutil.copytree(finished / "model", stopped / "model")
    assert load(stopped, best=True).state.step == 18


def test_what_is_no_model_is_told_what_it_is(finished, stopped, tmp_path):
    for name in ("a.pth", "b.onnx", "c.safetensors", "d.npz", "e.txt"):
        (tmp_path / name).touch()
    for name, said in {
        "a.pth": "holds weights without classes and preprocessing; make a model of it: alexnet import FILE --out MODEL",
        "b.onnx": "damaged, or not an ONNX file",
        "c.safetensors": "holds weights without classes",
        "d.npz": "holds arrays",
        "e.txt": "is a file; a model is a folder",
        "nowhere": "no such model folder",
    }.items():
        with pytest.raises(AlexNetError, match=said):
            load(tmp_path / name)
    with pytest.raises(UsageError, match=r"model\.safetensors belongs to a model; name its folder, .*/model$"):
        load(finished / "model" / "model.safetensors")
    with pytest.raises(UsageError, match="--best needs a run"):
        load(finished / "model", best=True)
    (stopped / "checkpoint" / "best").unlink()
    with pytest.raises(UsageError, match="no epoch of it was validated"):
        load(stopped, best=True)
    for step in ("step-18", "step-21"):
        (stopped / "checkpoint" / step / "state.json").write_text("{}")
    with pytest.raises(AlexNetError, match="no sound checkpoint"):
        load(stopped)


def test_a_run_in_float64_can_be_used(tiny_set, tmp_path):
    config = tiny_training(tiny_set.path, epochs=1, batch_size=8, views=("1",), precision="float64")
    train(config, tmp_path / "run", QUIET, data=tiny_set, report=False)
    model = load(tmp_path / "run").model
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}
    assert_same_weights(model, load(tmp_path / "run", best=True).model.state_dict())


@pytest.fixture
def replaced(finished, tmp_path):
    """The finished run behind a start with --fresh that was killed before its first checkpoint."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    set_aside(out)
    (out / "config.json").write_text((out / REPLACED / "config.json").read_text().replace('"seed": 0', '"seed": 7'))
    (out / "log.jsonl").write_text("")
    (out / "checkpoint").mkdir()
    return out


@pytest.mark.parametrize("part", ["", "model", "checkpoint/best", "checkpoint/step-21"])
def test_a_run_that_is_being_replaced_is_read_where_it_waits(part, finished, replaced, capsys):
    before = content(replaced)
    model = load(replaced / part).model
    said = capsys.readouterr().err
    assert f"{replaced / part}: a start with --fresh has no checkpoint yet, so this is the run before it" in said
    assert_same_weights(model, load(finished / part).model.state_dict())
    assert content(replaced) == before


def test_a_run_that_is_being_replaced_has_its_errors_and_its_best_checkpoint(finished, replaced):
    before = content(replaced)
    assert evaluate([replaced], machine=QUIET).to_json() == evaluate([finished], machine=QUIET).to_json()
    best = evaluate([replaced], machine=QUIET, best=True)
    assert best.protocol["state"]["step"] == 18
    assert best.to_json() == evaluate([finished], machine=QUIET, best=True).to_json()
    assert load_initial(replaced).fingerprint == load_initial(finished).fingerprint
    assert content(replaced) == before


@pytest.mark.parametrize("verb", [["report"], ["probe", "kernels"]])
@pytest.mark.parametrize("moving", [False, True])
def test_what_writes_into_a_run_puts_it_back_first(verb, moving, finished, replaced):
    if moving:  # killed while the old files went back
        shutil.rmtree(replaced / "checkpoint")
        for name in ("config.json", "log.jsonl"):
            (replaced / name).unlink()
        (replaced / REPLACED).rename(replaced / REPLACING)
        (replaced / REPLACING / "log.jsonl").rename(replaced / "log.jsonl")
    with pytest.raises(SystemExit) as exit:
        main([*verb, str(replaced)])
    assert exit.value.code in (0, None)
    after = content(replaced)
    assert {path: after[path] for path in content(finished)} == content(finished)
    assert not (replaced / REPLACED).exists()


def test_a_run_whose_files_are_being_moved_says_what_puts_it_back(replaced):
    (replaced / REPLACED).rename(replaced / REPLACING)
    for call in (load, run_of, lambda run: evaluate([run], machine=QUIET)):
        with pytest.raises(AlexNetError, match=r"cut off while it moved .*; `alexnet report .*/run` puts them back"):
            call(replaced)


def test_nothing_is_put_back_under_a_training_that_goes_on(replaced, capsys):
    with sole_trainer(replaced):
        before = content(replaced)
        with pytest.raises(SystemExit) as exit:
            main(["report", str(replaced)])
        assert (exit.value.code, content(replaced)) == (1, before)
    assert "a training that replaces this run goes on there; wait for its first checkpoint" in capsys.readouterr().err
