"""What the command line takes from the habits of other programs: short names, settings from a file, hints, completion."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from alexnet.cli import ALIASES, VERBS, main
from alexnet.cli.completion import places
from alexnet.cli.names import SHORT, long_names
from alexnet.cli.options import options_of
from alexnet.cli.pretrain import pretrain
from alexnet.cli.train import train
from alexnet.core.config import to_json
from alexnet.core.errors import UsageError
from alexnet.interop.weights import KNOWN
from alexnet.recipes import recipe
from alexnet.training.config import TrainConfig
from alexnet.training.schedule import Steps


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a refusal."""
    with pytest.raises(SystemExit) as exit:
        main(list(arguments))
    out, err = capsys.readouterr()
    assert (exit.value.code, out, err.count("\n")) == (2, "", 1)
    return err.removeprefix("alexnet: ").strip()


def test_short_names_stand_for_the_long_ones(trained):
    config = trained("paper2012", "-b64", "--lr", "0.5", "--wd=0.25", "--momentum", "0.75", "-j", "1")
    optimizer = config.optimizer
    assert (config.batch_size, optimizer.lr, optimizer.weight_decay, optimizer.momentum) == (64, 0.5, 0.25, 0.75)
    assert long_names(["-b=8", "-b", "8", "-j0", "--out", "-b-x", "-1"]) == [
        *("--batch-size=8", "--batch-size", "8", "--workers=0", "--out", "-b-x", "-1")
    ]
    paths = {option.path for option in options_of(TrainConfig, recipe("modern"))} | {"config", "workers"}
    assert set(SHORT.values()) <= paths


def test_a_switch_that_is_on_already_may_be_named(trained):
    assert trained("modern", "--augmentation.mirror", "--no-resume") == trained("modern")


@pytest.mark.parametrize("name", ALIASES)
def test_validate_and_test_are_evaluate(name, capsys):
    assert said(capsys, name) == said(capsys, "evaluate")


def test_a_file_says_what_options_say(trained):
    Path("my.yaml").write_text(
        "recipe: quickstart\ndata: 2012\nbatch-size: 16\noptimizer:\n  lr: 1e-3\nschedule.kind: steps\nschedule: {every: 2}\n"
        "augmentation: {mirror: false}\nviews: [1]\nsize: null\n"
    )
    config = trained("-c", "my.yaml")
    assert (config.recipe, config.data, config.batch_size, config.optimizer.lr) == ("quickstart", "2012", 16, 0.001)
    assert (config.schedule, config.augmentation.mirror, config.views) == (Steps(every=2), False, ("1",))
    assert config.size is None
    other = trained("--config=my.yaml", "-b", "8", "--augmentation.mirror", "--schedule.kind", "cosine")
    assert (other.batch_size, other.augmentation.mirror, other.schedule) == (8, True, recipe("quickstart").schedule)
    assert trained("modern", "-c", "my.yaml").recipe == "modern"


def test_the_settings_of_a_run_are_those_of_its_config(trained):
    config = recipe("lenet")
    Path("run").mkdir()
    Path("run/config.json").write_text(json.dumps({"train": to_json(config), "data": {"path": "x"}}))
    for named in ("run/config.json", "run"):
        assert trained("-c", named) == config
    assert trained("lenet", "-c", "run", "--epochs", "7").epochs == 7
    with pytest.raises(
        UsageError, match=r"run/config.json is of a run, which leaves nothing to choose; leave modern out"
    ):
        train(["modern", "-c", "run", "--out", "new"])


class Opened(Exception):
    """Raised with what a verb would compute."""


def test_pretrain_learns_for_the_network_of_a_run(monkeypatch, capsys):
    config = replace(recipe("modern"), batch_size=7, data="elsewhere")
    Path("run").mkdir()
    Path("run/config.json").write_text(json.dumps({"train": to_json(config), "data": {"path": "x"}}))

    def stop(config: TrainConfig, *_: object, epochs: int, **__: object) -> None:
        raise Opened(config, epochs)

    monkeypatch.setattr("alexnet.recipes.run.pretrain", stop)
    with pytest.raises(Opened) as opened:
        pretrain(["shapes", "-c", "run", "--out", "start.safetensors", "--device", "cpu", "--seed", "3"])
    assert opened.value.args == (replace(config, data="shapes", seed=3), 30)  # a third of the 90 epochs


WRONG_FILES = [
    ("optimizer: {learning_rate: 1}", "optimizer.learning_rate is no option here (perhaps optimizer.lr)"),
    ("epochs: many", "--epochs is many; it takes a whole number"),
    ("epochs: 0", "--epochs is 0; it must be at least 1"),
    ("epochs: 3\nepochs: 4", "line 3: epochs is there twice"),
    ("schedule: {patience: 3}", "--schedule.patience belongs to --schedule.kind plateau"),
    ("schedule: {kind: linear}", "--schedule.kind is linear; the kinds are plateau, "),
    ("augmentation: {mirror: maybe}", "augmentation.mirror is maybe; it must be true or false"),
    ("batch_size: [1, 2]", "batch_size is a list; it must be one value"),
    ("model: {num_classes: 3}", "--model.num-classes cannot be set"),
    ("a: &x [1]\nb: *x", "line 3: *references are not read"),
    (" epochs: 3", "line 2: "),
    ("x: " + "[" * 1500, "too deeply nested"),
]


@pytest.mark.parametrize(("lines", "says"), WRONG_FILES, ids=[says for _, says in WRONG_FILES])
def test_what_is_wrong_in_a_file_is_named_with_it(lines, says, capsys):
    Path("my.yaml").write_text(f"recipe: modern\n{lines}\n")
    err = said(capsys, "train", "-c", "my.yaml", "--out", "new")
    assert err.startswith("my.yaml")
    assert says in err
    assert not Path("new").exists()


def test_every_verb_with_a_device_reads_files(capsys):
    Path("my.yaml").write_text("batch_size: many\n")
    assert said(capsys, "bench", "-c", "my.yaml").startswith("my.yaml: --batch-size is many; it takes a whole number")
    Path("my.yaml").write_text("batchsize: 3\n")
    assert said(capsys, "evaluate", "x", "-c", "my.yaml").startswith(
        "my.yaml: batchsize is no option here (perhaps batch_size)"
    )
    Path("my.yaml").write_text("models: [x]\n")
    assert said(capsys, "evaluate", "-c", "my.yaml").startswith("my.yaml: models: MODEL... stands on the command line")
    for words in (["--config="], ["-c", ""]):
        assert said(capsys, "evaluate", *words).startswith("the value after --config is empty")
    assert "nowhere.yaml: no such file" in said(capsys, "evaluate", "-c", "nowhere.yaml")


HINTS = [
    ("train modern --learning-rate 1", "train modern has no option --learning-rate (perhaps --optimizer.lr)"),
    ("train modern --warmup 1", "(perhaps --schedule.warmup)"),
    ("train modern --num_workers 1", "(perhaps --workers)"),
    ("train modern --gpu 1", "(perhaps --device)"),
    ("train modern --batch 1", "(perhaps --batch-size)"),
    ("train modern --nonsense 1", "train modern has no option --nonsense; "),
    ("train modern --resume yes", "--resume takes no value, and yes stands after it"),
    ("evaluate run --lr 1", "evaluate has no option --optimizer.lr, which --lr is short for"),
    ("validate run --batchsize 1", "(perhaps --batch-size)"),
    ("predict run x --pretrained", "`alexnet import alexnet-owt --out MODEL` makes a model"),
    ("bench --plam", "bench has no option --plam (perhaps --plan)"),
    ("cache -j 3", "cache has no option --workers, which -j is short for"),
]


@pytest.mark.parametrize(("line", "says"), HINTS, ids=[line for line, _ in HINTS])
def test_a_wrong_option_gets_the_nearest_of_this_verb(line, says, capsys):
    assert says in said(capsys, *line.split(), *(["--out", "new"] if line.startswith("train") else []))


def test_pretrained_takes_what_is_in_the_cache(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path))
    words = ("train", "owt", "--out", str(tmp_path / "new"), "--pretrained")
    assert "no trained weights of alexnet_owt are here yet; `alexnet weights get alexnet-owt` fetches" in said(
        capsys, *words
    )
    other = said(capsys, "train", "zfnet", "--out", str(tmp_path / "new"), "--pretrained")
    assert "no trained weights of zfnet are known by name, only of alexnet_owt; name others with --init-from" in other
    assert "give one of them" in said(capsys, *words, "--init-from", "run")
    monkeypatch.setattr(type(KNOWN[0]), "is_here", lambda each: each.name == "alexnet-owt-trunk")
    asked = []

    def load(source: str, network: str | None = None) -> None:
        asked.append(source)
        raise UsageError("x; y")

    monkeypatch.setattr("alexnet.recipes.run.load_initial", load)
    said(capsys, *words)
    assert asked == ["alexnet-owt-trunk"]


# --- completion -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the script of each shell, a run with a Chinese name, and a picture."""
    from alexnet.cli.completion import bash, fish, zsh

    folder = tmp_path_factory.mktemp("completion")
    known = list(places())
    for write in (bash, zsh, fish):
        (folder / write.__name__).write_text(write(known))
    (folder / "runs" / "猫 1" / "model").mkdir(parents=True)
    (folder / "cat.jpg").touch()
    return folder


def test_every_verb_has_its_place():
    known = {place.words: place for place in places()}
    assert {*VERBS, *ALIASES} <= known.keys()
    assert known["validate"].options == known["evaluate"].options
    for option in options_of(TrainConfig, recipe("modern")):
        assert option.name in known["train"].options or option.path.endswith(("num_classes", "sample_max"))


COMPLETED = [
    ("ev", ["evaluate"]),
    ("train mod", ["modern", "modern_photos"]),
    ("train modern --optimizer.kind ad", ["adam", "adamw"]),
    ("train modern --schedule.kind = co", ["cosine"]),
    ("train modern --optimizer.mom", ["--optimizer.momentum"]),
    ("validate runs/x --sp", ["--split"]),
    ("probe linear runs/", ["runs/猫 1"]),
    ("predict runs/x ca", ["cat.jpg"]),
    ("weights get alexnet-owt-", ["alexnet-owt-trunk"]),
    ("train modern -b ", []),
    ("nonsense ", []),
]


def test_bash_completes(scripts):
    lines = ["compopt() { :; }", "source ./bash"]
    for line, _ in COMPLETED:
        words = ["alexnet", *line.split(" ")]
        lines += [f"COMP_WORDS=({' '.join(word or chr(34) * 2 for word in words)}); COMP_CWORD={len(words) - 1}"]
        lines += ["COMPREPLY=(); _alexnet", "printf '%s|' \"${COMPREPLY[@]}\"; echo"]
    done = subprocess.run(["bash", "-c", "\n".join(lines)], cwd=scripts, capture_output=True, text=True, check=True)
    answers = [[word for word in line.split("|") if word] for line in done.stdout.splitlines()]
    assert dict(zip([line for line, _ in COMPLETED], answers, strict=True)) == dict(COMPLETED)
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_others_can_read_theirs(shell, scripts):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n", shell], cwd=scripts, check=True)
    if shell == "fish":
        asked = "source fish; complete -C 'alexnet train modern --optimizer.kind ad'"
        done = subprocess.run(["fish", "-c", asked], cwd=scripts, capture_output=True, text=True, check=True)
        assert re.findall(r"^\S+", done.stdout, re.MULTILINE) == ["adam", "adamw"]
