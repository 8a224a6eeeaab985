"""The verbs index and search as functions: layer and metric by themselves, queries in any form."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import alexnet
from alexnet.cli.search import _why
from alexnet.core.device import Machine
from alexnet.core.errors import UsageError
from alexnet.core.preprocessing import Preprocessing
from alexnet.evaluation.subject import Subject
from alexnet.models import create_model
from alexnet.models.folder import Origin, save_model_folder
from alexnet.probes import library
from alexnet.probes.library import choose_metric, neighbor_errors

MACHINE = Machine(device=torch.device("cpu"), quiet=True)
INPUT = Preprocessing(resize=28, crop=28, channels=1, mean="none", scale=1 / 255)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library") / "model"
    save_model_folder(folder, create_model("lenet", num_classes=2), "lenet", INPUT, ["left", "right"])
    return folder


class Drawn:
    """Two bright and two dark images: of each pair one has its left half drawn, the other its right half."""

    name = "val"
    labels = np.array([0, 1, 0, 1])
    paths = ("a", "b", "c", "d")

    def __len__(self) -> int:
        return 4

    def read(self, index_B: np.ndarray) -> np.ndarray:
        pixels_NSSC = np.zeros((4, 28, 28, 1), np.uint8)
        pixels_NSSC[0, :, :14], pixels_NSSC[1, :, 14:] = 200, 200
        pixels_NSSC[2, :, :14], pixels_NSSC[3, :, 14:] = 40, 40
        return pixels_NSSC[index_B]


def photos(folder: Path, num: int) -> Path:
    folder.mkdir(parents=True)
    for i in range(num):
        pixels = np.random.default_rng(i).integers(0, 256, (28, 28), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def test_the_errors_of_the_nearest_other_image_are_those_by_hand(model: Path) -> None:
    # By cosine the other image of the same half is at 0, the others at 1. By Euclidean distance, in units of a half of one
    # grey level: bright to dark of the same half 160, dark to dark 40 * sqrt(2) = 57, bright to bright 283. So both dark
    # ones err, and the bright ones do not.
    errors = neighbor_errors(Subject(model=model, machine=MACHINE), Drawn(), "pixels")
    assert {metric: (found.errors, found.n) for metric, found in errors.items()} == {
        "cosine": (0, 4),
        "euclidean": (2, 4),
    }


def test_the_metric_is_the_one_that_errs_less(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject(model=model, machine=MACHINE)
    assert choose_metric(subject, "pixels") == ("cosine", None)  # a model folder has no images
    monkeypatch.setattr(library, "_validation_images", lambda _: Drawn())
    errors = {"cosine": 0, "euclidean": 2}
    metric, chosen = choose_metric(subject, "pixels")
    assert (metric, chosen) == ("cosine", {"n": 4, "split": "val", "errors": errors})
    assert _why(metric, chosen, None) == (
        "cosine distance: the nearest neighbor errs in 0.0% by cosine distance and in 50.0% by Euclidean distance "
        "(4 images of val)"
    )
    monkeypatch.setattr(Drawn, "labels", np.array([0, 0, 1, 1]))  # bright or dark
    assert choose_metric(subject, "pixels")[0] == "euclidean"
    monkeypatch.setattr(Drawn, "labels", np.zeros(4, int))
    assert choose_metric(subject, "pixels")[0] == "cosine"


def test_one_picture_in_any_form_finds_its_file(model: Path, tmp_path: Path) -> None:
    folder, out = photos(tmp_path / "photos", 6), tmp_path / "index"
    done = alexnet.index(model, folder, out, MACHINE, layer="c1")
    assert (len(done.index), done.added, done.gone, done.left_out) == (6, 6, (), ())
    file = folder / "4.png"
    pixels_HW = np.asarray(Image.open(file))
    forms: list[Any] = [file, file.read_bytes(), Image.open(file), pixels_HW, torch.from_numpy(pixels_HW.copy())]
    for form in forms:
        found = alexnet.search(out, form, MACHINE, top=2)
        assert (found.found[0].path, found.found[0].distance) == (str(file), 0.0)
        assert len(found.found) == 2
    several = alexnet.search(out, [*forms, b"no image"], MACHINE, top=1)
    assert [answer.found[0].path for answer in several[:-1]] == [str(file)] * 5
    assert several[-1].query == "input 5"
    assert several[-1].error.reason == "not an image"
    assert alexnet.search(out, b"no image", MACHINE).found == ()


def test_an_update_looks_at_all_files_and_needs_no_folders(model: Path, tmp_path: Path) -> None:
    one, other, out = photos(tmp_path / "one", 3), photos(tmp_path / "other", 4), tmp_path / "index"
    alexnet.index(model, [one, other], out, MACHINE, layer="c1")
    shutil.rmtree(one)
    added = alexnet.index(model, [other], out, MACHINE, add=True)
    assert (added.gone, len(added.index)) == ((), 7)  # not among what was named
    updated = alexnet.index(model, [], out, MACHINE, update=True)
    assert ({Path(path).parent for path in updated.gone}, updated.added, len(updated.index)) == ({one}, 0, 4)
    with pytest.raises(UsageError, match="name some"):
        alexnet.index(model, [], out, MACHINE, add=True)


def test_nothing_is_computed_for_a_folder_that_is_taken(model: Path, tmp_path: Path, monkeypatch: Any) -> None:
    folder = photos(tmp_path / "photos", 1)
    monkeypatch.delattr(library, "choose_metric")
    with pytest.raises(UsageError, match="exists and is not empty"):
        alexnet.index(model, folder, folder, MACHINE)


@pytest.mark.parametrize(("new", "layer"), [(("fc6", "fc7", "fc8"), "pool5"), (("fc8",), "fc7"), ((), "fc7")])
def test_layers_without_trained_weights_are_not_compared(tmp_path: Path, new: tuple[str, ...], layer: str) -> None:
    network = create_model("alexnet_owt", input_size=63, conv_channels=(8,) * 5, fc_units=(6, 6), num_classes=2)
    origin = Origin(file="trunk.pth", sha256="", taken=("conv1",), new=new, seed=0)
    input_ = Preprocessing(resize=63, crop=63, mean="none")
    folder = photos(tmp_path / "photos", 2)
    save_model_folder(tmp_path / "model", network, "alexnet_owt", input_, ["a", "b"], origin=origin)
    assert alexnet.index(tmp_path / "model", folder, tmp_path / "index", MACHINE).index.meta["layer"] == layer
