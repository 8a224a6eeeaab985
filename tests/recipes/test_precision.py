"""Which number format a run computes in on a processor with instructions for bfloat16, and on one without."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from alexnet.claims.scales import find_scale
from alexnet.cli import main

TINY = (
    "--size 36 --preprocessing.resize 36 --preprocessing.crop 32 --model.input-size 32 --model.fc-units 16 16 "
    "--model.conv-channels 8 8 8 8 8 --model.conv-kernels 5 3 3 3 3 --model.conv-padding 2 1 1 1 1 "
    "--model.conv-strides 2 1 1 1 1 --schedule.warmup 0 --batch-size 8 --views 1 --device cpu --threads 1"
).split()
CHOSEN = "this processor has no instructions for bfloat16, so this run computes in float32"
WARNED = "warning: this processor has no instructions for bfloat16"


@pytest.fixture
def processor(monkeypatch):
    """Makes the processor one with instructions for bfloat16, or one without."""

    def make(has_bfloat16: bool) -> None:
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: has_bfloat16, raising=False)

    return make


@pytest.fixture
def alexnet(tiny_set, tmp_path, capsys, monkeypatch):
    """A verb on the run of the test: its exit code, stdout, and stderr."""
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))

    def call(verb: str, *options: str) -> tuple[int, str, str]:
        words = ("modern_photos", "--data", tiny_set.path, "--out", tmp_path / "run", *TINY)
        with pytest.raises(SystemExit) as exit:
            main([verb, *map(str, words if verb == "train" else (tmp_path / "run", "--device", "cpu")), *options])
        captured = capsys.readouterr()
        return int(exit.value.code or 0), captured.out, captured.err

    return call


def stored(run: Path) -> dict:
    return json.loads((run / "config.json").read_text())


@pytest.mark.parametrize(
    ("has_bfloat16", "options", "precision", "chosen", "warned"),
    [
        (True, [], "bfloat16", 0, 0),
        (False, [], "float32", 1, 0),
        (False, ["--precision", "bfloat16"], "bfloat16", 0, 1),
        (False, ["--precision=float32"], "float32", 0, 0),
    ],
)
def test_a_run_computes_in_what_the_processor_can_unless_it_is_named(
    processor, alexnet, tmp_path, has_bfloat16, options, precision, chosen, warned
):
    processor(has_bfloat16)
    code, out, err = alexnet("train", "--epochs", "1", "--resume", *options)
    assert code == 0, err
    assert (code, stored(tmp_path / "run")["train"]["precision"]) == (0, precision)
    assert (err.count(CHOSEN), err.count(WARNED)) == (chosen, warned)
    assert f"center view, {precision}: " in out


def test_what_was_chosen_at_the_start_holds_where_the_run_goes_on(processor, alexnet, tmp_path):
    processor(False)
    assert alexnet("train", "--epochs", "1")[0] == 0
    processor(True)
    assert alexnet("train", "--epochs", "2", "--resume", "--change")[0] == 0
    assert stored(tmp_path / "run")["train"]["precision"] == "float32"
    assert stored(tmp_path / "run")["history"][0]["changed"] == {"epochs": [1, 2]}


def test_a_run_in_bfloat16_goes_on_so_and_the_way_out_that_is_printed_works(processor, alexnet, tmp_path):
    processor(True)
    assert alexnet("train", "--epochs", "1")[0] == 0
    processor(False)
    code, _, err = alexnet("train", "--epochs", "2", "--resume", "--change")
    assert (code, err.count(WARNED), CHOSEN in err) == (0, 1, False)
    assert "; --resume --change --precision float32 is faster" in err
    assert stored(tmp_path / "run")["train"]["precision"] == "bfloat16"
    code, _, err = alexnet("train", "--epochs", "3", "--resume", "--change", "--precision", "float32")
    assert (code, WARNED in err) == (0, False)
    changed = stored(tmp_path / "run")["history"][1]["changed"]
    assert changed == {"epochs": [2, 3], "precision": ["bfloat16", "float32"]}


def test_evaluate_counts_in_what_the_processor_can_and_says_so(processor, alexnet):
    processor(True)
    assert alexnet("train", "--epochs", "1")[0] == 0
    processor(False)
    code, out, err = alexnet("evaluate")
    assert (code, "center view, float32: " in out) == (0, True)
    assert "run was trained in bfloat16; this processor has no instructions for it" in err
    code, out, err = alexnet("evaluate", "--precision", "bfloat16")
    assert (code, "center view, bfloat16: " in out, err.count(WARNED)) == (0, True, 1)


def test_a_dry_run_in_bfloat16_says_how_much_longer_it_takes(processor, alexnet, tmp_path):
    processor(False)
    code, out, err = alexnet("train", "--dry-run", "--json", "--precision", "bfloat16")
    forecast = json.loads(out)
    ratio = forecast["float32_images_per_second"] / forecast["images_per_second"]
    assert (code, err.count(WARNED)) == (0, 1)
    assert f"bfloat16 takes {ratio:.1f} times as long here as float32" in err
    code, out, err = alexnet("train", "--dry-run", "--json")
    assert (code, err.count(CHOSEN), json.loads(out)["config"]["precision"]) == (0, 1, "float32")
    assert not (tmp_path / "run").exists()


def test_claims_are_tried_in_what_the_processor_can(processor, capsys):
    scale = find_scale("cifar10")
    processor(True)
    assert scale.on(torch.device("cpu")) == (scale, [])
    processor(False)
    tried, (note,) = scale.on(torch.device("cpu"))
    assert (tried.network.precision, tried.four_layer.precision) == ("float32", "float32")
    assert tried.says == scale.says.replace("bfloat16", "float32")
    assert "no instructions for bfloat16, so all is computed in float32" in note
    assert capsys.readouterr().err == ""  # a laboratory says it, once it computes


def test_what_is_refused_is_said_alone(processor, alexnet, tmp_path):
    """The note on the number format would be about a run that never begins."""
    processor(False)
    code, _, err = alexnet("train", "--data", str(tmp_path / "nowhere"))
    assert (code > 0, len(err.splitlines()), CHOSEN in err) == (True, 1, False), err
