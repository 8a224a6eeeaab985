"""`alexnet baseline` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet.baselines import trial as module
from alexnet.cli import main


def alexnet(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of one invocation."""
    with pytest.raises(SystemExit) as exit:
        main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return int(exit.value.code or 0), out, err


@pytest.mark.parametrize(
    "kind",
    [
        ("pixels", "--side", 8),
        ("pixels", "--classifier", "linear", "--side", 8),
        ("kernel-svm", "--side", 8),
        ("sift-fisher", "--gaussians", 2, "--bands", 1, "--sift-only"),
    ],
)
def test_the_result_is_that_of_every_evaluation(
    packed_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: tuple[object, ...]
) -> None:
    file = tmp_path / "new" / "result.json"
    code, out, err = alexnet(capsys, "baseline", *kind, "--data", packed_folder, "--json", "--out", file)
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert json.loads(file.read_text()) == found
    assert found["n"] == 60
    assert found["top1_error"] == found["top1_errors"] / 60
    assert found["top5_error"] == found["top5_errors"] / 60
    assert (found["loss_nats"] is not None) == ("linear" in kind)
    assert found["protocol"]["split"] == "val"
    assert len(found["protocol"]["fingerprint"]) > 8
    assert found["model_bytes"] > 0
    assert found["fit_seconds"] > 0


def test_errors_time_and_size_are_printed(packed_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = alexnet(capsys, "baseline", "pixels", "--data", packed_folder, "--side", 8, "--train-images", 60)
    assert code == 0
    assert "top-1 error" in out
    assert "top-5 error" in out
    assert "fitted to 60 of 120 training images in" in out
    assert "model 0.0 MB" in out


def test_gray_images_have_no_colors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Small ones, as those of Fashion-MNIST: stripes across and down."""
    random = np.random.default_rng(0)
    for name in ("across", "down"):
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "val" / name).mkdir(parents=True)
        for i in range(20):
            stripes = np.tile(60 * (np.arange(28) // 3 % 2)[:, None], (1, 28)) + random.integers(0, 60, (28, 28))
            image = (stripes if name == "across" else stripes.T).astype(np.uint8)
            Image.fromarray(image).save(tmp_path / ("train" if i < 15 else "val") / name / f"{i}.png")
    code, out, err = alexnet(capsys, "prepare", tmp_path, tmp_path / "packed", "--size", 28, "--json")
    assert code == 0, err
    code, out, err = alexnet(
        capsys, "baseline", "sift-fisher", "--data", tmp_path / "packed", "--gaussians", 2, "--sift-only", "--json"
    )
    assert code == 0, err
    assert json.loads(out)["top1_errors"] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("magic", "--data", "DATA"), 2, "no baseline is called 'magic'; the baselines are pixels"),
        (("pixels",), 2, "--data"),
        (("pixels", "--data", "DATA", "--side", "0"), 2, "--side is 0"),
        (("pixels", "--data", "DATA", "--train-images", "2"), 2, "no training image of"),
        (("pixels", "--data", "DATA", "--threads", "0"), 2, "--threads is 0"),
        (("sift-fisher", "--data", "DATA", "--bands", "0"), 2, "--bands is 0"),
        (("pixels", "--data", "/nowhere"), 4, "/nowhere"),
    ],
)
def test_wrong_input_is_one_line(
    packed_folder: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, said: str
) -> None:
    words = [str(packed_folder) if word == "DATA" else word for word in arguments]
    found, out, err = alexnet(capsys, "baseline", *words)
    assert (found, out) == (code, "")
    assert err.count("\n") == 1
    assert said in err


def test_kinds_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = alexnet(capsys, "baseline", "--help")
    assert code == 0
    assert all(kind in out for kind in ("pixels", "sift-fisher", "kernel-svm"))
    assert alexnet(capsys, "baseline")[0] == 2


def test_a_missing_extra_is_named(
    packed_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    code, _, err = alexnet(capsys, "baseline", "pixels", "--data", packed_folder)
    assert code == 1
    assert err == 'alexnet: baselines need scikit-learn: pip install "alexnet[probe]"\n'
