"""The command line as a user meets it: what it prints, where, and with which exit code."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from alexnet.cli import main
from alexnet.cli.shared import describe
from alexnet.data.packed import seal
from alexnet.models.folder import load_model_folder, save_model_folder
from alexnet.probes import KINDS

TINY = (
    "--size 36 --preprocessing.resize 36 --preprocessing.crop 32 --model.input-size 32 --model.fc-units 16 16 "
    "--model.conv-channels 8 8 8 8 8 --model.conv-kernels 5 3 3 3 3 --model.conv-padding 2 1 1 1 1 "
    "--epochs 2 --batch-size 8 --device cpu"
).split()


def alexnet(capsys, *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of one invocation."""
    with pytest.raises(SystemExit) as exit:
        main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return int(exit.value.code or 0), out, err


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Two classes told apart by color, landscape and portrait, 12 + 4 images each."""
    root, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split, num in (("train", 12), ("val", 4)):
        for label, name in enumerate(("cold", "warm")):
            (root / split / name).mkdir(parents=True)
            for i in range(num):
                pixels = random.integers(0, 100, (40, 60, 3) if i % 2 else (60, 44, 3), dtype=np.uint8)
                pixels[..., 2 - 2 * label] += 120
                Image.fromarray(pixels).save(root / split / name / f"{i}.jpg")
    return root


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory) -> Path:
    """A finished run on these photographs."""
    folder = tmp_path_factory.mktemp("runs")
    os.environ["ALEXNET_CACHE"] = str(folder / "cache")
    with pytest.raises(SystemExit) as exit:
        main(["train", "quickstart", "--data", str(photos), "--out", str(folder / "run"), *TINY])
    assert exit.value.code == 0
    return folder / "run"


def test_train_leaves_every_file_of_the_contract(run):
    for name in ("config.json", "environment.json", "log.jsonl", "summary.csv", "report.html"):
        assert (run / name).is_file(), name
    for name in ("config.json", "preprocessor.json", "classes.json", "model.safetensors"):
        assert (run / "model" / name).is_file(), name
    for name in ("final-center.json", "final-ten.json"):
        result = json.loads((run / "results" / name).read_text())
        assert result["n"] == 8
        assert result["top1_error"] == result["top1_errors"] / 8
        assert {"top5_errors", "top5_error", "views", "loss_nats", "protocol"} <= result.keys()


def test_a_finished_run_is_left_alone_and_an_existing_one_is_not_overwritten(run, photos, capsys):
    before = (run / "log.jsonl").read_bytes()
    arguments = ("train", "quickstart", "--data", photos, "--out", run, *TINY)
    code, out, _ = alexnet(capsys, *arguments, "--resume", "--json")
    assert code == 0
    assert json.loads(out)["views"]["10"]["n"] == 8
    code, _, err = alexnet(capsys, *arguments)
    assert code == 2
    assert "add --resume to go on, --fresh to start over" in err
    assert (run / "log.jsonl").read_bytes() == before


def test_fine_tuning_takes_over_input_and_layers_but_the_head_and_keeps_frozen_layers(run, photos, tmp_path, capsys):
    """`photos` under other names: conv1 and conv2 as they were, the rest has moved on, the head is new."""
    other, source = tmp_path / "other", tmp_path / "source"
    for split in ("train", "val"):
        for old, new in (("cold", "blueish"), ("warm", "reddish")):
            shutil.copytree(photos / split / old, other / split / new)
    made = load_model_folder(run / "model")
    save_model_folder(source, made.model, made.name, replace(made.preprocessing, scale=0.5), made.classes)
    out_folder = tmp_path / "tuned"
    again = ("train", "quickstart", "--data", other, "--out", out_folder, *TINY)
    start, own = ("--init-from", source), ("--preprocessing.channel-order", "bgr")
    arguments = (*again, *start, *own, "--optimizer.layer-lr", "conv1", 0, "conv2", 0, "conv3", 0.1)
    code, out, _ = alexnet(capsys, *arguments, "--dry-run", "--json")
    assert code == 0
    assert json.loads(out)["initial"]["new"] == {"fc8": "other classes"}
    assert not out_folder.exists()
    code, _, err = alexnet(capsys, *arguments)
    assert code == 0
    assert f"note: the input is that of {source}, not that of the recipe quickstart (preprocessing.scale)" in err
    assert f"initial weights of {source}: taken over: conv1, conv2" in err
    tuned = load_model_folder(out_folder / "model").preprocessing
    assert tuned == replace(made.preprocessing, scale=0.5, channel_order="bgr")
    before, after = (load_file(folder / "model.safetensors") for folder in (source, out_folder / "model"))
    same = {name for name in before if before[name].tobytes() == after[name].tobytes()}
    assert same == {"conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"}
    for command in (arguments, again, (*again, *start)):
        assert alexnet(capsys, *command, "--resume")[0] == 0
    code, _, err = alexnet(capsys, *arguments, "--resume", "--init-from", out_folder)
    assert code == 2
    assert "made with other settings (the initial weights)" in err.splitlines()[-1]


def test_evaluate_counts_every_image_and_combines_saved_probabilities(run, photos, tmp_path, capsys):
    saved = tmp_path / "p.npz"
    code, out, _ = alexnet(capsys, "evaluate", run, "--views", "10", "--device", "cpu", "--save", saved, "--json")
    result = json.loads(out)
    assert code == 0
    assert result["n"] == 8
    assert result["top1_errors"] == json.loads((run / "results" / "final-ten.json").read_text())["top1_errors"]
    code, out, _ = alexnet(
        capsys, "evaluate", run, saved, "--data", photos, "--views", "10", "--device", "cpu", "--json"
    )
    assert code == 0
    assert json.loads(out)["top1_errors"] == result["top1_errors"]


def test_predict_answers_what_it_can_and_names_what_it_cannot(run, photos, tmp_path, capsys):
    bad = tmp_path / "not-an-image.jpg"
    bad.write_text("text")
    good = photos / "val" / "warm" / "0.jpg"
    code, out, err = alexnet(capsys, "predict", run, bad, good, "--json", "--device", "cpu")
    answers = json.loads(out)
    assert code == 4
    assert answers[0]["error"]["reason"] == "not an image"
    assert sum(a["probability"] for a in answers[1]["predictions"]) == pytest.approx(1, abs=1e-5)
    assert err.count("\n") == 1
    assert str(bad) in err
    code, out, _ = alexnet(capsys, "predict", run, good, "--csv", "--views", "random:3", "--device", "cpu")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [r["rank"] for r in rows] == ["1", "2"]
    assert {r["class"] for r in rows} == {"cold", "warm"}


def test_prepare_and_check_say_what_they_found(photos, tmp_path, capsys):
    code, out, _ = alexnet(capsys, "prepare", photos, tmp_path / "packed", "--size", "40", "--json")
    assert code == 0
    assert json.loads(out)["classes"] == ["cold", "warm"]
    code, out, _ = alexnet(capsys, "check", tmp_path / "packed", "--json")
    assert (code, json.loads(out)["faults"]) == (0, [])
    images = tmp_path / "packed" / "train.images.npy"
    content = bytearray(images.read_bytes())
    content[-5] ^= 1
    images.write_bytes(content)
    code, out, _ = alexnet(capsys, "check", tmp_path / "packed", "--json")
    assert code == 4
    assert len(json.loads(out)["faults"]) >= 1


def test_what_a_set_says_of_rejected_files_is_printed_escaped(photos, tmp_path, capsys):
    command = ("prepare", photos, tmp_path / "packed", "--size", "8", "--workers", "1")
    assert alexnet(capsys, *command)[0] == 0
    meta = json.loads((tmp_path / "packed" / "meta.json").read_text())
    meta["rejected"] = [{"path": "a\n.jpg", "reason": "bad\x1b[2J\nin val: nothing"}]
    del meta["sha256"]
    (tmp_path / "packed" / "meta.json").write_text(json.dumps(seal(meta)))
    code, out, _ = alexnet(capsys, *command)
    assert (code, out.splitlines()[-1]) == (0, r"  rejected a\n.jpg: bad\x1b[2J\nin val: nothing")


def test_too_little_memory_is_answered_with_what_verbs_have():
    for error in (MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")):
        said = describe(error)
        assert all(
            word in said for word in ("--batch-size", "--size", "--workers", "whichever the verb has", "--device")
        )


def test_train_names_the_files_it_leaves_out_and_the_images_it_holds_out(tmp_path, capsys):
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(15):
            Image.fromarray(random.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(
                tmp_path / "photos" / name / f"{i}.png"
            )
    (tmp_path / "photos" / "a" / "cut.png").write_bytes((tmp_path / "photos" / "a" / "0.png").read_bytes()[:200])
    code, _, err = alexnet(
        capsys, "train", "quickstart", "--data", tmp_path / "photos", "--out", tmp_path / "run", *TINY
    )
    assert code == 0
    assert "left out: a/cut.png: truncated" in err
    assert "20% of each class held out as val" in err


def test_info_prints_the_exact_totals(capsys):
    code, out, _ = alexnet(capsys, "info", "alexnet_2012", "--json")
    network = json.loads(out)
    assert (code, network["parameters"], network["multiply_adds"]) == (0, 60_965_224, 724_406_816)
    code, out, _ = alexnet(capsys, "info", "alexnet_2012", "--diff", "alexnet_owt")
    assert "61,100,840" in out
    assert "normalization: lrn | none" in out


def test_dry_run_forecasts_and_writes_nothing(photos, tmp_path, capsys):
    out_folder = tmp_path / "run"
    code, out, _ = alexnet(
        capsys, "train", "quickstart", "--data", photos, "--out", out_folder, "--dry-run", "--json", *TINY
    )
    forecast = json.loads(out)
    assert code == 0
    assert forecast["steps"] == 6
    assert forecast["disk_free_bytes"] > forecast["disk_bytes"] > 4 * forecast["parameters"]
    assert not out_folder.exists()


WRONG = [
    (["trian"], 2, "unknown verb 'trian'"),
    (["train"], 2, "quickstart"),
    (
        ["train", "paper2013", "--out", "x"],
        2,
        "paper2013 is no recipe (perhaps paper2012) and no folder or file",
    ),
    (["train", "quickstart"], 2, "--out"),
    (["train", "quickstart", "--out", "x", "--epochs", "many"], 2, "epochs"),
    (["train", "quickstart", "--out", "x", "--epochs", "0"], 2, "must be at least 1"),
    (["train", "quickstart", "--out", "x", "--optimizer.rate", "1"], 2, "--optimizer.rate"),
    (["train", "quickstart", "--out", "x", "--data", "/nowhere"], 4, "/nowhere"),
    (["train", "quickstart", "--out", "x", "--device", "tpu"], 2, "--device tpu"),
    (["train", "quickstart", "--out", "x", "--init-from", "/nowhere"], 1, "/nowhere: no such model folder"),
    (["train", "quickstart", "--out", "x", "--resume", "--fresh"], 2, "give one of them"),
    (["evaluate", "/nowhere"], 1, "/nowhere"),
    (["evaluate"], 2, "models"),
    (["predict", "/nowhere", "a.jpg"], 1, "/nowhere"),
    (["info", "alexnet_2013"], 2, "alexnet_2012"),
    (["report", "/nowhere"], 2, "not a run"),
    (["check", "/nowhere"], 4, "/nowhere"),
    (["prepare", "/nowhere", "x"], 4, "/nowhere"),
]


@pytest.mark.parametrize(("arguments", "code", "names"), WRONG, ids=[" ".join(w[0]) for w in WRONG])
def test_a_wrong_invocation_is_one_line_that_names_the_thing(arguments, code, names, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    got, out, err = alexnet(capsys, *arguments)
    assert got == code, err
    said = err or out  # `train` alone lists the recipes on stdout
    assert names in said
    if err:
        assert err.count("\n") == 1, err
        assert len(err) <= 300
        assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_another_data_set_is_refused(run, tmp_path, capsys):
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "data" / "b").mkdir(parents=True)
    for name in ("a", "b"):
        for i in range(10):
            Image.new("RGB", (40, 40), (i * 20, 0, 0)).save(tmp_path / "data" / name / f"{i}.png")
    code, _, err = alexnet(capsys, "evaluate", run, "--data", tmp_path / "data", "--device", "cpu")
    assert code == 2
    assert "data holds 20 images of a, b, which" in err
    assert "tells cold, warm apart" in err


def test_help_answers_without_importing_torch():
    code = """
import sys
from alexnet.cli import main
try:
    main(["--help"])
except SystemExit:
    assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "alexnet train quickstart" in done.stdout


@pytest.mark.parametrize(("redirected", "code"), [(">/dev/full", 1), (">&-", 0)], ids=["full", "closed"])
def test_a_closed_or_full_stdout_is_no_traceback(redirected, code):
    """What every verb prints is flushed at one place; the help needs no torch."""
    python = ["sh", "-c", f'exec "$@" {redirected}', "sh", sys.executable, "-m", "alexnet", "--help"]
    done = subprocess.run(python, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_an_index_is_compared_by_the_metric_that_errs_less_on_validation(run, photos, tmp_path, capsys):
    out = tmp_path / "index"
    code, said, _ = alexnet(capsys, "index", run, photos, "--out", out, "--device", "cpu")
    assert code == 0
    assert re.search(r"compared in fc7 by (cosine|Euclidean) distance: the nearest neighbor errs in \d", said)
    assert re.search(r"% by cosine distance and in [0-9.]+% by Euclidean distance \(\d+ images of val\)", said)
    picture = sorted(photos.rglob("*.*"))[0]
    code, said, _ = alexnet(capsys, "search", out, picture, "--top", "1", "--device", "cpu")
    assert (code, said.split()[-1]) == (0, str(picture))


def test_features_are_files_that_numpy_reads(run, tmp_path, capsys):
    out_folder = tmp_path / "features"
    code, out, _ = alexnet(capsys, "features", run, "--layers", "fc6", "fc7", "--out", out_folder, "--device", "cpu")
    assert code == 0
    assert "fc7: 8 x 16 float32" in out
    matrix = np.load(out_folder / "fc7.npy")
    assert matrix.shape == (8, 16)
    assert matrix.min() >= 0
    code, _, err = alexnet(capsys, "features", run, "--layers", "fc9", "--out", tmp_path / "other", "--device", "cpu")
    assert code == 2
    assert "no layer is called 'fc9'; the layers are pixels, conv1, " in err
    assert not (tmp_path / "other").exists()


def test_probe_lists_its_kinds(capsys):
    code, out, _ = alexnet(capsys, "probe", "--help")
    assert code == 0
    code, _, err = alexnet(capsys, "probe", "minds")
    assert code == 2
    for kind in KINDS:
        assert kind in out
        assert kind in err


@pytest.mark.parametrize("kind", list(KINDS))
def test_each_probe_has_help_with_an_example_and_refuses_what_is_no_model(kind, tmp_path, capsys):
    code, out, _ = alexnet(capsys, "probe", kind, "--help")
    assert code == 0
    assert f"alexnet probe {kind}" in out
    code, _, err = alexnet(capsys, "probe", kind, tmp_path / "nothing", "--out", tmp_path / "out", "--device", "cpu")
    assert code in (1, 2)
    assert err.startswith("alexnet: ")
    assert err.count("\n") == 1
