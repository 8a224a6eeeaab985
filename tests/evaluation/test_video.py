"""Answers over the frames of a video: those of the pictures that the frames are, at their times, and what is said of them."""

from __future__ import annotations

import csv
import io
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import alexnet
from alexnet.cli import main
from alexnet.core.errors import AlexNetError, ImageError
from alexnet.core.preprocessing import Preprocessing
from alexnet.evaluation import video as module
from alexnet.evaluation.motion import running_mean
from alexnet.evaluation.predict import Predictor, load
from alexnet.evaluation.video import clock, predict_video
from alexnet.models import create_model
from alexnet.models.folder import save_model_folder
from clips import LOSSLESS, REASON, panned, write_clip, write_sound

pytest.importorskip("av", reason=REASON)

CLASSES = ("form-star", "color-red", "一只戴着很长很长很长的名字的猫", "texture-grain")


@pytest.fixture(scope="module")
def model(drawn: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network whose answers change with what it sees in the clip."""
    folder = tmp_path_factory.mktemp("models") / "model"
    network = create_model("lenet", input_size=32, in_channels=3, num_classes=4, seed=0)
    seen = [Image.fromarray(pixels).resize((48, 36)).crop((8, 2, 40, 34)) for pixels in drawn[::4]]
    weight, bias = [*network.parameters()][-2:]
    with torch.no_grad():
        logits_BK = network.eval()(torch.from_numpy(np.stack(seen).transpose(0, 3, 1, 2) / 255).float())
        bias.sub_(logits_BK.mean(dim=0))
        for parameter in (weight, bias):
            parameter.mul_(2 / logits_BK.std(dim=0).max())
    save_model_folder(folder, network, "lenet", Preprocessing(resize=36, crop=32, mean="none", scale=1 / 255), CLASSES)
    return folder


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    return np.concatenate([panned("form-star", 22), panned("color-red", 22, number=3)])


@pytest.fixture(scope="module")
def clip(drawn: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "片段.mkv", drawn, LOSSLESS, rate=10)


@pytest.fixture(scope="module")
def predictor(model: Path) -> Predictor:
    return load(model)


def test_a_frame_is_answered_as_its_picture_is(predictor: Predictor, clip: Path, drawn: np.ndarray) -> None:
    found = predict_video(predictor, clip, every=3)
    assert found.frame_N.tolist() == list(range(0, 44, 3))
    assert found.seconds_N == pytest.approx(np.arange(0, 44, 3) / 10, abs=0.001)
    for i, prediction in zip(
        range(len(found)), predictor.predict([*map(Image.fromarray, drawn[::3])], top_k=4), strict=True
    ):
        expected = {answer.label: answer.probability for answer in prediction.answers}
        assert dict(enumerate(found.probability_NK[i].tolist())) == pytest.approx(expected, abs=1e-3)
        assert found.answers(found.probability_NK[i], 1)[0].name == prediction.answers[0].name
    np.testing.assert_array_equal(found.averaged_NK, running_mean(found.probability_NK))
    np.testing.assert_allclose(found.overall_K, found.probability_NK.mean(axis=0), atol=1e-6)
    assert len({row.argmax() for row in found.probability_NK}) > 1  # or else the test sees no change


def test_the_last_hidden_layer_is_compared_from_frame_to_frame(
    predictor: Predictor, clip: Path, drawn: np.ndarray
) -> None:
    found = predict_video(predictor, clip, every=2)
    hidden_ND = predictor.embed([*map(Image.fromarray, drawn[::2])], layer=found.layer)
    expected = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairwise(hidden_ND)]
    assert found.layer == predictor.usual_layer().name
    assert np.isnan(found.similarity_N[0])
    np.testing.assert_allclose(found.similarity_N[1:], expected, atol=1e-5)
    steady = found.steadiness
    assert steady is not None
    assert steady.cosine == pytest.approx(np.mean(expected), abs=1e-5)
    assert steady.cosine > steady.high  # it moves slowly


def test_a_still_clip_is_steady(predictor: Predictor, drawn: np.ndarray, tmp_path: Path) -> None:
    still = write_clip(
        tmp_path / "still.mp4", np.repeat(drawn[:1], 40, axis=0), ("libx264", "yuv420p"), options={"crf": "1"}
    )
    found = predict_video(predictor, still)
    assert found.steadiness is not None
    assert found.steadiness.cosine == pytest.approx(1, abs=1e-4)
    assert len(found.stretches()) == 1
    assert any(line == "it never changes; without averaging it never changes" for line in found.lines())


def test_progress_counts_the_frames_that_are_asked(predictor: Predictor, clip: Path) -> None:
    said: list[tuple[int, int]] = []
    predict_video(predictor, clip, every=10, progress=lambda done, total: said.append((done, total)))
    assert said == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


def test_more_frames_than_are_kept_are_refused_with_a_number_that_works(
    predictor: Predictor, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ANSWERS", 10)
    with pytest.raises(ImageError, match=r"too large \(44 frames to answer, at most 10; take --every 5\)"):
        predict_video(predictor, clip)
    assert len(predict_video(predictor, clip, every=5)) == 9


def test_a_model_may_be_named_and_its_lack_of_answers_is_said(model: Path, clip: Path) -> None:
    assert len(alexnet.predict_video(model, clip, every=20)) == 3
    with pytest.raises(AlexNetError, match="nowhere"):
        predict_video(model / "nowhere", clip)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00.0"), (59.96, "1:00.0"), (61.24, "1:01.2"), (3599.99, "1:00:00.0"), (7384.5, "2:03:04.5")],
)
def test_times_are_read_as_a_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit:
        main(["predict", *map(str, arguments), "--device", "cpu"])
    out, err = capsys.readouterr()
    return int(exit.value.code or 0), out, err


def test_the_command_says_how_the_answer_changes(model, clip, predictor, capsys, tmp_path) -> None:
    code, out, err = printed(capsys, model, clip, "--every", 4, "--picture", tmp_path / "time.png")
    assert (code, err) == (0, "")
    found = predict_video(predictor, clip, 4)
    lines = out.splitlines()
    assert lines[0] == str(clip)
    assert lines[5] == "  11 frames (one of every 4) from 0:00.0 to 0:04.0"
    assert [line[2:] for line in lines[5:-1]] == found.lines()
    assert lines[-1] == f"in {tmp_path / 'time.png'}"
    assert [line for line in lines[1:-1] if len(line) > 80] == []
    with Image.open(tmp_path / "time.png") as chart:
        assert min(chart.size) > 500
    (a, b) = found.stretches()[0]
    share, name = found.averaged_NK[a : b + 1].max(axis=1).mean(), found.answers(found.averaged_NK[a], 1)[0].name
    assert f"    {clock(found.seconds_N[a])} to {clock(found.seconds_N[b])}  {share:6.1%}  {name}" in lines


def test_json_has_a_row_for_each_frame_and_a_summary(model, clip, drawn, predictor, capsys, tmp_path) -> None:
    Image.fromarray(drawn[0]).save(tmp_path / "first.png")
    code, out, err = printed(capsys, model, tmp_path / "first.png", clip, "--every", 22, "--json", "--top", 2)
    assert (code, err) == (0, "")
    picture, video = json.loads(out)
    assert "frames" not in picture
    assert [(row["frame"], row["seconds"]) for row in video["frames"]] == [(0, 0.0), (22, 2.2)]
    for ours, theirs in zip(video["frames"][0]["predictions"], picture["predictions"], strict=True):
        assert ours == theirs | {"probability": pytest.approx(theirs["probability"], abs=1e-3)}
    first, second = video["frames"]
    assert first["similarity"] is None
    assert second["similarity"] == pytest.approx(video["summary"]["steadiness"]["cosine"])
    assert [answer["class"] for answer in second["averaged"]] == [answer["class"] for answer in video["predictions"]]
    assert {key: video["summary"][key] for key in ("n", "every", "window")} == {"n": 2, "every": 22, "window": 32}
    assert (video["error"], len(video["predictions"])) == (None, 2)


def test_csv_has_the_averaged_answers_with_their_times(model, clip, predictor, capsys) -> None:
    code, out, _ = printed(capsys, model, clip, "--every", 11, "--csv", "--top", 1)
    rows = list(csv.DictReader(io.StringIO(out)))
    found = predict_video(predictor, clip, 11)
    assert code == 0
    assert [row["seconds"] for row in rows] == ["0.000", "1.100", "2.200", "3.300"]
    assert [float(row["probability"]) for row in rows] == pytest.approx(found.averaged_NK.max(axis=1), abs=1e-3)


def test_a_damaged_video_is_named_and_the_others_are_answered(model, clip, drawn, capsys, tmp_path) -> None:
    (tmp_path / "cut.mkv").write_bytes(clip.read_bytes()[:3000])
    (tmp_path / "empty.mp4").touch()
    write_sound(tmp_path / "song.m4a")
    Image.fromarray(drawn[0]).save(tmp_path / "good.png")
    for name in ("cut.mkv", "empty.mp4", "song.m4a", "nowhere.mp4"):
        code, out, err = printed(capsys, model, tmp_path / name, tmp_path / "good.png")
        assert (code, out.count("good.png"), err.count("\n")) == (4, 1, 1), name
        assert err.startswith(f"alexnet: {tmp_path / name}: "), name
        code, out, err = printed(capsys, model, tmp_path / name, "--every", 5)
        assert (code, out, err.count("\n")) == (4, "", 1), name
    code, out, _ = printed(capsys, model, tmp_path / "cut.mkv", "--json")
    (document,) = json.loads(out)
    assert (code, document["error"]["reason"], document["predictions"]) == (4, "truncated", [])


def test_options_of_a_video_are_refused_where_there_is_none(model, clip, drawn, capsys, tmp_path) -> None:
    Image.fromarray(drawn[0]).save(tmp_path / "a.png")
    Image.fromarray(drawn[0]).save(
        tmp_path / "moving.gif", save_all=True, append_images=[*map(Image.fromarray, drawn[1:3])]
    )
    for arguments, message in (
        ((tmp_path / "a.png", "--every", 5), f"--every is for a video, and {tmp_path / 'a.png'} is none; leave it out"),
        ((tmp_path / "moving.gif", "--every", 1), f"--every is for a video, and {tmp_path / 'moving.gif'} is none"),
        ((tmp_path, "--every", 1), f"--every is for a video, and {tmp_path} is none"),
        (("-", "--picture", tmp_path / "p.png"), "--picture is for a video, and - is none"),
        ((clip, "--every", 0), "--every is 0; it must be at least 1"),
        ((clip, "--views", "10"), "--views 10 is for pictures"),
        ((clip, clip, "--picture", tmp_path / "p.png"), "--picture draws one video, and 2 are named"),
        ((clip, "--picture", tmp_path / "no" / "p.png"), "its folder is not there"),
    ):
        code, out, err = printed(capsys, model, *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1), arguments
        assert message in err
    assert not (tmp_path / "p.png").exists()


def test_an_animation_is_answered_by_its_first_frame(predictor, drawn, tmp_path) -> None:
    first, last = Image.fromarray(drawn[0]), Image.fromarray(drawn[-1])
    for fmt in ("GIF", "WEBP"):
        first.save(tmp_path / "moving", fmt, save_all=True, append_images=[last], lossless=True)
        first.save(tmp_path / "still", fmt, lossless=True)
        moving, still = predictor.predict([tmp_path / "moving", tmp_path / "still"])
        assert moving.answers[0].probability == pytest.approx(still.answers[0].probability, abs=1e-3), fmt
