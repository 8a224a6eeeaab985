"""Predictions for files, folders and standard input: any size, one bad file among good ones, and the same numbers as
an evaluation."""

from __future__ import annotations

import io
import os
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from alexnet.core.errors import AlexNetError, DataError, ImageError, UsageError
from alexnet.core.preprocessing import Preprocessing
from alexnet.data.decode import decode_image
from alexnet.data.pixels import resize_and_crop
from alexnet.evaluation.error_rate import evaluate_split
from alexnet.evaluation.predict import Prediction, Predictor, load
from alexnet.evaluation.views import TEN
from alexnet.models import create_model
from alexnet.models.folder import save_model_folder

INPUT = Preprocessing(resize=20, crop=16, mean="image")
CLASSES = tuple(f"class {k}" for k in range(7))


def make_predictor(preprocessing: Preprocessing = INPUT) -> Predictor:
    """A linear network over all pixels: every pixel and every view matters."""
    generator = torch.Generator().manual_seed(0)
    inputs = preprocessing.channels * preprocessing.crop**2
    model = nn.Sequential(nn.Flatten(), nn.Linear(inputs, 7))
    model[1].weight.data = torch.randn(7, inputs, generator=generator) / 1000
    mean = np.random.default_rng(1).uniform(90, 150, (20, 20, preprocessing.channels)).astype(np.float32)
    mean_or_none = mean if preprocessing.mean == "image" else None
    return Predictor("linear", model.eval(), preprocessing, CLASSES, mean_or_none, torch.device("cpu"))


@dataclass
class Squares:
    labels: np.ndarray
    paths: list[str]
    pixels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index_B: np.ndarray) -> np.ndarray:
        return self.pixels[index_B]


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder of nine images of different sizes and aspects, some in subfolders."""
    for i, size in enumerate([(20, 20), (33, 20), (20, 57), (400, 300), (7, 5), (1, 1), (300, 3), (50, 50), (21, 20)]):
        path = tmp_path / "photographs" / ("sub" if i % 3 == 0 else ".") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(*size, seed=i).save(path)
    return tmp_path / "photographs"


def numbers(prediction: Prediction) -> dict[int, float]:
    return {answer.label: answer.probability for answer in prediction.answers}


@pytest.mark.parametrize("views", ["1", "10", "random:4"])
def test_every_size_and_aspect_is_answered(photographs: Path, views: str) -> None:
    predictions = list(make_predictor().predict([photographs], views, top_k=7))
    assert len(predictions) == 9
    for prediction in predictions:
        assert prediction.error is None
        assert sum(numbers(prediction).values()) == pytest.approx(1, abs=1e-5)
        assert [a.probability for a in prediction.answers] == sorted(numbers(prediction).values(), reverse=True)
        assert all(answer.name == CLASSES[answer.label] for answer in prediction.answers)


@pytest.mark.parametrize("views", ["1", "10", "random:4"])
def test_an_answer_does_not_depend_on_the_batch_or_on_other_files(photographs: Path, views: str) -> None:
    predictor = make_predictor()
    together = list(predictor.predict([photographs], views, top_k=7))
    for size in (1, 2, 4):
        for ours, theirs in zip(predictor.predict([photographs], views, 7, batch_size=size), together, strict=True):
            assert ours.path == theirs.path
            assert numbers(ours) == pytest.approx(numbers(theirs), abs=1e-6)
    for theirs in together:
        (alone,) = predictor.predict([theirs.path], views, 7)
        assert numbers(alone) == pytest.approx(numbers(theirs), abs=1e-6)


def test_prediction_and_evaluation_give_the_same_probabilities(photographs: Path) -> None:
    predictor = make_predictor()
    predictions = list(predictor.predict([photographs], TEN, top_k=7))
    squares = np.stack([resize_and_crop(decode_image(Path(p.path)), INPUT.resize) for p in predictions])
    split = Squares(np.zeros(9, dtype=np.int64), [p.path for p in predictions], squares)
    result = evaluate_split(
        predictor.model, split, INPUT, predictor.mean, classes=CLASSES, views=TEN, batch_size=4, keep_probabilities=True
    )
    assert result.probabilities is not None
    for prediction, log_probability_K in zip(predictions, result.probabilities.log_probability_NK, strict=True):
        expected = dict(enumerate(np.exp(log_probability_K.astype(np.float64)).tolist()))
        assert numbers(prediction) == pytest.approx(expected, abs=1e-6)


def test_random_views_of_a_square_image_average_over_its_crops(tmp_path: Path) -> None:
    # Many random crops of an image approach the mean over all 25 places and both mirror images, computed one by one.
    picture(20, 20).save(tmp_path / "square.png")
    predictor = make_predictor(replace(INPUT, mean="none"))
    (prediction,) = predictor.predict([tmp_path / "square.png"], "random:1000", 7)
    pixels = np.asarray(picture(20, 20)).astype(np.float64)
    weight, bias = (p.detach().double().numpy() for p in (predictor.model[1].weight, predictor.model[1].bias))  # type: ignore[index]
    total = np.zeros(7)
    for top in range(5):
        for left in range(5):
            crop = pixels[top : top + 16, left : left + 16]
            for view in (crop, crop[:, ::-1]):
                logits = weight @ view.transpose(2, 0, 1).reshape(-1) + bias
                total += np.exp(logits) / np.exp(logits).sum() / 50
    assert [numbers(prediction)[k] for k in range(7)] == pytest.approx(total.tolist(), abs=0.02)


def test_only_random_views_see_the_ends_of_a_long_image(tmp_path: Path) -> None:
    pixels = np.asarray(picture(60, 20)).copy()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    pixels[:, :20] = 255 - pixels[:, :20]  # the center square is columns 20 .. 39
    Image.fromarray(pixels).save(tmp_path / "b.png")
    for views, same in [("1", True), ("10", True), ("random:50", False)]:
        a, b = make_predictor().predict([tmp_path / "a.png", tmp_path / "b.png"], views, 7)
        assert (numbers(a) == numbers(b)) is same


def test_one_bad_file_does_not_hide_the_others(photographs: Path) -> None:
    (photographs / "3b.png").write_bytes(b"")
    (photographs / "4b.jpg").write_bytes(b"no image at all")
    good = {p.path: numbers(p) for p in make_predictor().predict([photographs]) if p.error is None}
    predictions = list(make_predictor().predict([photographs, "absent.png"], batch_size=3))
    errors = {Path(p.path).name: p.error.reason for p in predictions if p.error}
    assert errors == {"3b.png": "empty", "4b.jpg": "not an image", "absent.png": "missing"}
    assert all(not p.answers for p in predictions if p.error)
    assert len(predictions) == 12
    assert {p.path for p in predictions if not p.error} == good.keys()


def test_files_that_are_no_images_are_passed_over_in_folders_only(photographs: Path) -> None:
    (photographs / "README.txt").write_text("about these photographs")
    (photographs / ".hidden.png").write_bytes(b"")
    (photographs / ".cache").mkdir()
    (photographs / ".cache" / "thumb.png").write_bytes(b"")
    assert sum(1 for _ in make_predictor().predict([photographs])) == 9
    (named,) = make_predictor().predict([photographs / "README.txt"])
    assert named.error is not None


def test_folders_are_walked_in_the_order_of_names_and_end(photographs: Path) -> None:
    (photographs / "sub" / "loop").symlink_to(photographs)
    names = [os.path.relpath(p.path, photographs) for p in make_predictor().predict([photographs])]
    assert names == ["1.png", "2.png", "4.png", "5.png", "7.png", "8.png", "sub/0.png", "sub/3.png", "sub/6.png"]


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image files"):
        list(make_predictor().predict([tmp_path]))


def test_standard_input_is_one_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(30, 40).save(tmp_path / "a.png")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO((tmp_path / "a.png").read_bytes())))
    piped, stored = make_predictor().predict(["-", tmp_path / "a.png"])
    assert piped.path == "-"
    assert numbers(piped) == numbers(stored)


@pytest.mark.parametrize(("workers", "most"), [(0, 2), (2, 7), (None, 7)])  # a batch, two ahead, and the one that waits
def test_an_iterator_is_answered_batch_by_batch(
    photographs: Path, monkeypatch: pytest.MonkeyPatch, workers: int | None, most: int
) -> None:
    opened: list[str] = []

    def spy(source: Path | bytes, name: str | None = None, *settings: Any) -> Image.Image:
        opened.append(str(name))
        return decode_image(source, name, *settings)

    monkeypatch.setattr("alexnet.data.pictures.decode_image", spy)
    predictions = make_predictor().predict(iter([photographs]), batch_size=2, workers=workers)
    next(predictions)
    assert 2 <= len(opened) <= most


@pytest.mark.parametrize("workers", [0, 1, 5])
def test_answers_come_in_order_however_many_threads_decode(photographs: Path, workers: int) -> None:
    (photographs / "3b.png").write_bytes(b"")
    files = [p.path for p in make_predictor().predict([photographs])] * 9
    predictions = make_predictor().predict(files, batch_size=7, workers=workers)
    assert [p.path for p in predictions] == files
    assert [numbers(p) for p in predictions] == [numbers(p) for p in predictions[:10]] * 9


def test_an_interrupt_ends_the_decoding(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoding, interrupted = [], threading.Event()

    def spy(source: Path | bytes, name: str | None = None, *settings: Any) -> Image.Image:
        decoding.append(name)
        interrupted.wait(0.1)
        return decode_image(source, name, *settings)

    def interrupt(*_: Any) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    monkeypatch.setattr("alexnet.data.pictures.decode_image", spy)
    monkeypatch.setattr("alexnet.evaluation.predict.mean_log_probability", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_predictor().predict([photographs] * 30, batch_size=2, workers=2)
    assert not any(thread.name.startswith("alexnet-reader") for thread in threading.enumerate())
    assert len(decoding) <= 10  # of 270


@pytest.mark.parametrize(("asked", "given"), [(1, 1), (5, 5), (7, 7), (100, 7)])
def test_as_many_answers_as_asked_for_or_as_there_are_classes(photographs: Path, asked: int, given: int) -> None:
    assert {len(p.answers) for p in make_predictor().predict([photographs], top_k=asked)} == {given}


@pytest.mark.parametrize("wrong", [{"top_k": 0}, {"batch_size": 0}, {"workers": -1}, {"views": 3}])
def test_numbers_that_cannot_be_are_refused_by_name(photographs: Path, wrong: dict[str, Any]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(UsageError, match=f"{name} is '?{value}'?; it must be"):
        make_predictor().predict([photographs], **wrong)


def test_embed_refuses_batches_of_none(photographs: Path) -> None:
    with pytest.raises(UsageError, match="batch_size is 0; it must be"):
        make_predictor().embed(photographs, batch_size=0)


def test_one_picture_gives_one_answer_and_several_give_a_list(photographs: Path, tmp_path: Path) -> None:
    predictor, file = make_predictor(), photographs / "1.png"
    (answer,) = predictor.predict([file])
    assert isinstance(answer, Prediction)
    assert [predictor.predict(one) for one in (file, str(file))] == [answer] * 2
    pixels = np.asarray(Image.open(file))
    batch = torch.from_numpy(np.stack([pixels, pixels[::-1]])).permute(0, 3, 1, 2)
    one, other = predictor.predict(batch)
    assert numbers(one) == pytest.approx(numbers(predictor.predict(pixels)), abs=1e-6)
    assert (one.path, other.path) == ("input 0[0]", "input 0[1]")
    folder = predictor.predict(photographs)
    assert folder == predictor.predict([photographs]) == list(predictor.predict(iter([photographs])))
    assert len(folder) == 9
    assert predictor.predict([]) == []
    broken = predictor.predict(tmp_path / "absent.png")
    assert (broken.answers, broken.error.reason) == ((), "missing")


def test_the_same_picture_has_the_same_probabilities_in_every_form(tmp_path: Path) -> None:
    file = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[274] = 6  # the camera was turned
    picture(40, 30).save(file, exif=exif, quality=100)
    image = decode_image(file)
    pixels_HWC = np.asarray(image)
    pixels_CHW = torch.from_numpy(pixels_HWC.copy()).permute(2, 0, 1)
    forms: list[Any] = [
        file,
        str(file),
        file.read_bytes(),
        bytearray(file.read_bytes()),
        memoryview(file.read_bytes()),
        Image.open(file),
        image,
        image.convert("RGBA"),
        pixels_HWC,
        pixels_HWC.astype(np.float32) / 255,
        pixels_CHW,
        pixels_CHW.float() / 255,
        (pixels_CHW.double() / 255).requires_grad_(),
    ]
    predictor = make_predictor()
    for views in ("1", "10", "random:3"):
        first, *others = (numbers(predictor.predict(form, views, top_k=7)) for form in forms)
        assert others == [first] * (len(forms) - 1)
        first, *others = (numbers(answer) for answer in predictor.predict(forms, views, top_k=7))
        assert others == [first] * (len(forms) - 1)


def test_embed_gives_what_a_layer_computes(tmp_path: Path) -> None:
    input_ = Preprocessing(resize=28, crop=28, channels=1, mean="none", scale=1 / 255)
    model = create_model("lenet").eval()
    predictor = Predictor("lenet", model, input_, tuple("0123456789"), None, torch.device("cpu"))
    pixels_NSS = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    x_BCHW = torch.from_numpy(pixels_NSS)[:, None].float() / 255
    with torch.no_grad():
        expected_ND = torch.sigmoid(model.get_submodule("c1")(x_BCHW)).flatten(1).numpy()
    found_ND = predictor.embed(list(pixels_NSS), layer="c1", batch_size=2)
    np.testing.assert_allclose(found_ND, expected_ND, atol=1e-6)
    np.testing.assert_allclose(predictor.embed(pixels_NSS[1], "c1"), expected_ND[1], atol=1e-6)
    assert predictor.embed([], "c1").shape == (0, expected_ND.shape[1])
    with pytest.raises(UsageError, match="no layer is called 'pool5'; the layers are pixels, c1"):
        predictor.embed(pixels_NSS[0])
    with pytest.raises(ImageError, match="input 1: not an image"):
        predictor.embed([pixels_NSS[0], b"no image at all"], "c1")


def test_wrong_views_are_refused(photographs: Path) -> None:
    with pytest.raises(UsageError, match="views is '3'"):
        list(make_predictor().predict([photographs], "3"))


def test_a_grey_network_reads_color_and_grey_files_alike(tmp_path: Path) -> None:
    grey = picture(30, 20).convert("L")
    grey.save(tmp_path / "grey.png")
    grey.convert("RGB").save(tmp_path / "color.png")
    predictor = make_predictor(replace(INPUT, channels=1))
    one, other = predictor.predict([tmp_path / "grey.png", tmp_path / "color.png"], top_k=7)
    assert numbers(one) == numbers(other)


def test_a_saved_model_predicts_from_its_folder_and_from_its_run(tmp_path: Path) -> None:
    model = create_model("lenet")
    preprocessing = Preprocessing(resize=28, crop=28, channels=1, mean="none", scale=1 / 255)
    names = [f"digit {k}" for k in range(10)]
    (tmp_path / "run").mkdir()
    save_model_folder(tmp_path / "run" / "model", model, "lenet", preprocessing, names)
    picture(40, 28).save(tmp_path / "a.png")
    pixels = resize_and_crop(picture(40, 28).convert("L").convert("RGB"), 28)[..., 0]
    with torch.no_grad():
        expected_K = model.eval()(torch.from_numpy(pixels).float()[None, None] / 255).softmax(dim=1)[0].tolist()
    for folder in (tmp_path / "run", tmp_path / "run" / "model"):
        predictor = load(folder)
        assert predictor.classes == tuple(names)
        (prediction,) = predictor.predict([tmp_path / "a.png"], top_k=10)
        assert numbers(prediction) == pytest.approx(dict(enumerate(expected_K)), abs=1e-6)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(AlexNetError, match="absent"):
        load(tmp_path / "absent")
