"""Odd images come out right or are refused by name, in every command that reads images, and every file is counted."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from costly_images import MAX_MEGABYTES, MAX_SECONDS, Costly, costly_kinds, costs
from PIL import Image
from torch import nn

from alexnet.cli import main
from alexnet.core.errors import ImageError, as_text, printable
from alexnet.core.preprocessing import Preprocessing
from alexnet.data import decode
from alexnet.data.check import check
from alexnet.data.decode import decode_image
from alexnet.data.packed import PackedSet
from alexnet.data.prepare import prepare
from alexnet.evaluation.predict import Predictor
from alexnet.models import create_model
from alexnet.models.folder import save_model_folder
from odd_images import PICTURE, Kind, kinds, make_kinds

SIZE = 20
NOT_IMAGES = 3


def good() -> list[Kind]:
    return [kind for kind in kinds() if not kind.reason]


def bad() -> dict[str, str]:
    return {kind.file: kind.reason for kind in kinds() if kind.reason}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """In memory where there is such a file system."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as path:
        yield Path(path)


@pytest.fixture(scope="module")
def odd_set(folder: Path) -> Path:
    """Every kind in one of two classes of train, four plain pictures in val, and three files that claim nothing."""
    root = folder / "set"
    for name in ("train/a", "train/b", "val/a", "val/b"):
        (root / name).mkdir(parents=True)
    for i, kind in enumerate(kinds()):
        (root / "train" / "ab"[i % 2] / kind.file).write_bytes(kind.data)
    for i, name in enumerate(("val/a/1.png", "val/a/2.png", "val/b/3.png", "val/b/4.png")):
        Image.fromarray(np.roll(PICTURE, i + 1, axis=0)).save(root / name)
    (root / "README").write_text("about")
    (root / "train" / "notes.txt").write_text("about")
    (root / "train" / "a" / "labels.csv").write_text("a,b")
    return root


def file_of(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def files_below(folder: Path) -> int:
    """Counted without our own walk."""
    return sum(len(files) for _, _, files in os.walk(folder))


def square(pixels: np.ndarray) -> np.ndarray:
    """What is stored of these pixels (§2), by Pillow's functions."""
    image = Image.fromarray(pixels)
    if max(image.size) > 50 * min(image.size):
        width, height = (min(side, 50 * min(image.size)) for side in image.size)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
    short = min(image.size)
    image = image.resize((image.width * SIZE // short, image.height * SIZE // short), Image.Resampling.BILINEAR)
    left, top = (image.width - SIZE) // 2, (image.height - SIZE) // 2
    return np.asarray(image.crop((left, top, left + SIZE, top + SIZE)))


def differs(kind: Kind, pixels: np.ndarray, tolerance: int) -> bool:
    assert kind.pixels is not None
    return pixels.shape != kind.pixels.shape or np.abs(pixels.astype(int) - kind.pixels).max() > tolerance


def test_there_are_hundreds_of_kinds_and_all_are_named():
    assert len(kinds()) >= 300
    assert len({kind.file for kind in kinds()}) == len(kinds())
    assert len({kind.data for kind in kinds()}) >= len(kinds()) - 3  # an orientation of 1, written again
    assert all((kind.pixels is None) == bool(kind.reason) for kind in kinds())


def test_each_comes_out_right_or_is_refused_with_its_reason(capfd: pytest.CaptureFixture[str]):
    wrong = []
    for kind in kinds():
        try:
            pixels = np.asarray(decode_image(kind.data, kind.file))
        except ImageError as error:
            if error.reason != kind.reason:
                wrong.append(f"{error}; expected {kind.reason or 'pixels'}")
            wrong += str(error).splitlines()[1:]
            continue
        if kind.reason or differs(kind, pixels, kind.tolerance):
            wrong.append(f"{printable(kind.file)}: decoded; expected {kind.reason or 'other pixels'}")
    assert wrong == []
    assert capfd.readouterr() == ("", "")  # libtiff, too, is silent


def test_the_blocks_of_subsampled_jpegs_have_their_colors():
    # Chroma is interpolated between blocks, so only the middle of each is compared.
    for kind in kinds():
        if kind.file in ("jpeg-420.jpg", "jpeg-422.jpg"):
            assert kind.pixels is not None
            height = kind.pixels.shape[0] // 2
            middle = np.asarray(decode_image(kind.data))[height // 2 :: height, 8::16]
            assert np.abs(middle.astype(int) - kind.pixels[height // 2 :: height, 8::16]).max() <= 2


def test_in_strips_every_value_is_the_same(monkeypatch: pytest.MonkeyPatch):
    whole = {kind.file: np.asarray(decode_image(kind.data)) for kind in good()}
    monkeypatch.setattr(decode, "LARGE_PIXELS", 0)
    monkeypatch.setattr(decode, "_STRIP_PIXELS", 40)  # two or three rows
    different = [
        kind.file for kind in good() if not np.array_equal(np.asarray(decode_image(kind.data)), whole[kind.file])
    ]
    assert different == []


def test_check_names_exactly_the_bad_ones_and_counts_all(odd_set: Path):
    report = check(odd_set, workers=1)
    damaged = [fault for fault in report["faults"] if not fault["reason"].startswith("same ")]  # many hold one picture
    assert {file_of(fault["path"]): fault["reason"].split(" (")[0] for fault in damaged} == bad()
    found = report["found"]
    assert found == {
        "files": files_below(odd_set),
        "accepted": len(good()) + 4,
        "rejected": len(bad()),
        "not_images": NOT_IMAGES,
    }
    assert found["accepted"] + found["rejected"] + found["not_images"] == found["files"]
    assert any(note.endswith("of-another-format.jpg: a PNG file") for note in report["notes"])


@pytest.fixture(scope="module")
def packed(odd_set: Path, folder: Path) -> PackedSet:
    return prepare(odd_set, folder / "packed", size=SIZE, workers=1, max_bad=len(bad()))


def test_prepare_stores_the_good_ones_and_names_the_others(odd_set: Path, packed: PackedSet):
    assert {file_of(item["path"]): item["reason"] for item in packed.meta["rejected"]} == bad()
    found = packed.meta["found"]
    assert found["files"] == files_below(odd_set)
    assert found["accepted"] == sum(map(len, packed.splits.values())) == len(good()) + 4
    assert found["accepted"] + found["rejected"] + found["not_images"] == found["files"]
    split = packed.split("train")
    expected = {as_text(kind.file): kind for kind in good()}
    assert sorted(map(file_of, split.paths)) == sorted(expected)
    for i, path in enumerate(split.paths):
        kind = expected[file_of(path)]
        assert kind.pixels is not None
        stored = split.read(np.array([i]))[0].astype(int)
        assert np.abs(stored - square(kind.pixels)).max() <= kind.tolerance, kind.file


def test_predict_answers_the_good_ones_as_if_they_were_alone(odd_set: Path, packed: PackedSet):
    preprocessing = Preprocessing(resize=SIZE, crop=16, mean="none")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2)).eval()
    predictor = Predictor("linear", model, preprocessing, ("a", "b"), None, torch.device("cpu"))
    predictions = {file_of(p.path): p for p in predictor.predict([odd_set / "train"], top_k=2)}
    assert predictions.keys() == {kind.file for kind in kinds()}
    assert {name: p.error.reason for name, p in predictions.items() if p.error} == bad()
    assert all(len(predictions[kind.file].answers) == 2 for kind in good())
    split = packed.split("train")
    for i in range(0, len(split), 17):  # the same network on what `prepare` stored
        center_BSSC = torch.from_numpy(split.read(np.array([i]))[:, 2:18, 2:18])
        probability_K = model(center_BSSC.permute(0, 3, 1, 2).float())[0].softmax(0)
        for answer in predictions[file_of(split.paths[i])].answers:
            assert answer.probability == pytest.approx(probability_K[answer.label].item(), abs=1e-5)


# --- the command line, and what an image may cost -------------------------------------------------------------------


@pytest.fixture(scope="module")
def model_folder(folder: Path) -> Path:
    preprocessing = Preprocessing(resize=28, crop=28, channels=1, mean="none")
    save_model_folder(folder / "model", create_model("lenet", num_classes=2), "lenet", preprocessing, ["a", "b"])
    return folder / "model"


def alexnet(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, list[str]]:
    with pytest.raises(SystemExit) as exit:
        main([str(argument) for argument in arguments])
    out, err = capfd.readouterr()
    return int(exit.value.code or 0), out, err.splitlines()


def test_the_command_predict_says_one_line_for_each_bad_file_and_exits_4(
    odd_set: Path, model_folder: Path, capfd: pytest.CaptureFixture[str]
):
    code, out, lines = alexnet(capfd, "predict", model_folder, odd_set / "train", "--json", "--device", "cpu")
    assert code == 4
    assert len(lines) == len(bad())
    for name, reason in bad().items():
        assert sum(printable(name) in line and reason in line for line in lines) >= 1, name
    documents = json.loads(out)
    assert len(documents) == len(kinds())
    assert sum(bool(document["predictions"]) for document in documents) == len(good())


COMMANDS = [
    ("check SET", 4),
    ("check SET --workers 2 --json", 4),
    (f"prepare SET OUT --size {SIZE}", 4),
    (f"prepare SET OUT --size {SIZE} --workers 2 --max-bad 1000", 0),
    ("predict MODEL SET --device cpu", 4),
    ("predict MODEL SET --device cpu --csv --views 10", 4),
    ("predict MODEL SET --device cpu --views random:3", 4),
]


@pytest.mark.long
@pytest.mark.parametrize(("command", "code"), COMMANDS, ids=[command for command, _ in COMMANDS])
def test_the_commands_end_with_their_codes_and_without_a_traceback(
    odd_set: Path, model_folder: Path, tmp_path: Path, command: str, code: int
):
    places = {"SET": str(odd_set), "OUT": str(tmp_path / "packed"), "MODEL": str(model_folder)}
    words = [places.get(word, word) for word in command.split()]
    done = subprocess.run([sys.executable, "-m", "alexnet", *words], capture_output=True, timeout=250, check=False)
    assert done.returncode == code, done.stderr[-2000:]
    assert b"Traceback" not in done.stderr
    assert b"\x1b[31m" not in done.stdout + done.stderr  # of a file's name
    if words[0] == "predict":
        lines = done.stderr.splitlines()
        assert len(lines) == len(bad())
        assert all(any(name.encode() in line for line in lines) for name in bad())


@pytest.mark.long
def test_the_same_files_are_made_each_time():
    def digest() -> str:
        return hashlib.sha256(b"".join(kind.data for kind in make_kinds())).hexdigest()

    assert digest() == digest()


@pytest.mark.long
def test_no_kind_costs_much(odd_set: Path):
    paths = sorted(path for path in (odd_set / "train").glob("*/*") if file_of(str(path)) in {k.file for k in kinds()})
    measured = costs(*paths)
    assert len(measured) == len(kinds())
    assert max(cost.processor_seconds for cost in measured) < MAX_SECONDS
    assert max(cost.megabytes for cost in measured) < MAX_MEGABYTES


@pytest.mark.long
@pytest.mark.parametrize("costly", list(costly_kinds()), ids=lambda costly: costly.file)
def test_at_the_limits_an_image_takes_10_seconds_and_700_mb_at_most(costly: Costly, tmp_path: Path):
    path = tmp_path / costly.file
    path.write_bytes(costly.write())
    (cost,) = costs(path)
    assert cost.processor_seconds < MAX_SECONDS
    assert cost.megabytes < MAX_MEGABYTES
    if costly.reason:
        assert cost.reason == costly.reason
    elif costly.quarters is not None:
        assert cost.reason == ""
        assert np.abs(np.array(cost.quarters) - costly.quarters.astype(int)).max() <= 2
    else:
        assert cost.reason in ("", "too large")
