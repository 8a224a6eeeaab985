"""Piles of pictures become a classifier: what the page says of a picture is what the kept model says of it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rooms import SMALL, room_of

from alexnet.core.errors import AlexNetError, UsageError
from alexnet.evaluation.predict import load
from alexnet.page import teach
from alexnet.page.room import Room

STAGES_2012 = ("norm pool act", "act", "act", "act", "pool act")
NETWORKS = {
    "two towers": ("alexnet_2012", SMALL, ["pool5", "fc6", "fc7"]),
    "dropout before": ("alexnet_2012", SMALL | {"dropout_place": "before"}, ["pool5", "fc6", "fc7"]),
    "pooled before ReLU": ("alexnet_2012_code", SMALL | {"stages": STAGES_2012}, ["act5", "fc6", "fc7"]),
    "without fc7": ("alexnet_owt", SMALL | {"fc_units": (24, 0)}, ["pool5", "fc6"]),
    "averaged maps": ("alexnet_2012", SMALL | {"head": "global_average", "normalization": "batch"}, ["pool5"]),
    "grey": ("lenet", {}, ["f6"]),
    "unshared": ("cifar_13pct", {}, ["local4"]),
}


def room_with(kind: str, folder: Path, **options: tuple[str, ...]) -> Room:
    network, fields, _ = NETWORKS[kind]
    return room_of(network, folder, **fields, **options)


def pictures(room: Room, num: int) -> np.ndarray:
    given = room.predictor.preprocessing
    shape = (num, given.resize, given.resize, given.channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Room:
    return room_with("two towers", tmp_path_factory.mktemp("room"))


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_page_says_what_the_kept_model_says_and_the_features_times_the_head(kind, tmp_path):
    room = room_with(kind, tmp_path)
    choices = teach.readings(room.predictor)
    assert [one.name for one in choices] == NETWORKS[kind][2]
    (picture,), random = pictures(room, 1), np.random.default_rng(2)
    feature_D = np.frombuffer(teach.features(room, picture), np.float16).astype(np.float64)
    parts = np.split(feature_D, np.cumsum([one.units for one in choices])[:-1])
    for i, part_D in enumerate(parts):
        weight_KD = random.normal(0, 1 / max(1, np.linalg.norm(part_D)), (3, len(part_D))).astype(np.float32)
        bias_K = np.array([0.1, 0.2, -0.1], np.float32)
        head = teach.Taught(("up", "down", "left"), i, weight_KD, bias_K).to_bytes()
        said = {one["name"]: one["probability"] for one in teach.head_answers(room, head, picture)["answers"]}
        logit_K = weight_KD @ part_D + bias_K
        expected_K = np.exp(logit_K) / np.exp(logit_K).sum()
        np.testing.assert_allclose([said[name] for name in ("up", "down", "left")], expected_K, atol=2e-3)  # of float16
        kept = teach.keep_head(room, head)
        assert kept["folder"] == f"taught-{i + 1}"
        answers = load(kept["path"]).predict(picture if picture.shape[2] == 3 else picture[..., 0]).answers
        assert [answer.name for answer in answers] == list(said)
        for answer in answers:
            assert answer.probability == pytest.approx(said[answer.name], abs=1e-5)


def test_piles_are_told_apart(room):
    """Dark and light pictures, each with noise: nothing to get wrong."""
    dark, light = pictures(room, 8) // 4, 192 + pictures(room, 8) // 4
    piles = [(name, [teach.features(room, one) for one in own[:7]]) for name, own in (("dark", dark), ("light", light))]
    found, head = teach.teach(room, piles)
    assert (found["images"], found["error"]) == (14, 0.0)
    assert found["piles"] == [{"name": "dark", "images": 7}, {"name": "light", "images": 7}]
    for name, own in (("dark", dark), ("light", light)):
        first, second = teach.head_answers(room, head, own[7])["answers"]
        assert first["name"] == name
        assert first["probability"] + second["probability"] == pytest.approx(1)


def test_what_it_looked_at_is_where_the_head_reads_a_map(room):
    """A head that reads the upper left place of each map of pool5: no pixel outside of what that sees can count."""
    (picture,) = pictures(room, 1)
    end, side = teach.readings(room.predictor)[0], room.predictor.preprocessing.crop
    weight_KD = np.zeros((2, end.units), np.float32)
    weight_KD[0, :: end.units // end.layer.shape[0]] = 1
    head = teach.Taught(("corner", "nothing"), 0, weight_KD, np.zeros(2, np.float32)).to_bytes()
    heat_HW4 = np.asarray(Image.open(io.BytesIO(teach.head_saliency(room, head, picture, 0))))
    assert heat_HW4.shape == (side, side, 4)
    _, _, bottom, right = end.layer.field.box(0, 0, side)
    assert max(bottom, right) < side
    assert heat_HW4[:bottom, :right, 3].any()
    assert not heat_HW4[bottom:, :, 3].any()
    assert not heat_HW4[:, right:, 3].any()
    with pytest.raises(UsageError, match="no class has the number 2"):
        teach.head_saliency(room, head, picture, 2)


def test_the_layer_is_the_one_that_tells_pictures_apart_that_were_left_out(room):
    random, units = np.random.default_rng(0), [one.units for one in teach.readings(room.predictor)]

    def feature(label: int) -> bytes:
        parts = [random.normal(size=num) for num in units]
        parts[1][:2] = [20 * label, -20 * label]
        return np.concatenate(parts).astype(np.float16).tobytes()

    found, _ = teach.teach(room, [(str(label), [feature(label) for _ in range(10)]) for label in range(2)])
    assert found["layer"] == "fc6"


def test_one_picture_a_pile_will_do_and_twenty_piles_of_one_script_each(room, tmp_path):
    names = ["Ж", "山羊", "קוף", "می‌خواهم", "👩‍👧", "<b>x</b>", "../../x", "a" * 80, "é", *map(str, range(11))]
    rows = pictures(room, len(names))
    found, head = teach.teach(
        room, [(name, [teach.features(room, row)]) for name, row in zip(names, rows, strict=True)]
    )
    assert found["error"] is None
    assert found["layer"] == "pool5"
    assert teach.head_answers(room, head, rows[3])["answers"][0]["name"] == names[3]
    kept = teach.keep_head(replace(room, keep=tmp_path), head)
    assert load(kept["path"]).classes == tuple(names)
    assert [path.name for path in tmp_path.iterdir()] == ["taught-1"]


def test_piles_that_tell_nothing_apart_are_refused_in_a_sentence(room):
    one = [teach.features(room, pictures(room, 1)[0])]
    for piles, words in (
        ([("a", one)], "fewer than two piles; add another"),
        ([], "fewer than two piles; add another"),
        ([("a", one), ("b", [])], "the pile b is empty; add a picture to it, or remove it"),
        ([("a", one), (" a\n", one)], "two piles are called a; give one of them another name"),
        ([("é", one), ("é", one)], "two piles are called é"),
        ([("a", one), ("\t ", one)], "pile 2 has no name; give it one"),
        ([("a", one), ("b" * 81, one)], "pile 2 has 81 letters; at most 80"),
        ([("a", one), ("b\x00", one)], "letters that cannot be written"),
        ([("a", one), ("\ud800", one)], "letters that cannot be written"),
        ([(str(i), one) for i in range(101)], "there are 101 piles; at most 100"),
        ([("a", one * 600), ("b", one * 401)], "there are 1,001 pictures; at most 1,000"),
        ([("a", one), ("b", [one[0][2:]])], "not of the model that is served; add the pictures again"),
    ):
        with pytest.raises(UsageError, match=words) as raised:
            teach.teach(room, piles)
        assert "\n" not in str(raised.value)


def test_pictures_that_are_all_the_same_are_as_likely_of_either_pile(room):
    same = np.full_like(pictures(room, 1)[0], 9)
    row = teach.features(room, same)
    _, head = teach.teach(room, [("few", [row] * 2), ("many", [row] * 9)])
    for one in teach.head_answers(room, head, same)["answers"]:
        assert one["probability"] == pytest.approx(0.5, abs=0.01)  # features are float16


def test_what_is_kept_takes_a_free_name_and_replaces_nothing(room, tmp_path):
    (tmp_path / "taught-1").write_text("mine")
    (tmp_path / "taught-3").symlink_to(tmp_path / "nowhere")
    own, row = replace(room, keep=tmp_path), teach.features(room, pictures(room, 1)[0])
    _, head = teach.teach(room, [("a", [row]), ("b", [row])])
    assert [teach.keep_head(own, head)["folder"] for _ in range(2)] == ["taught-2", "taught-4"]
    assert (tmp_path / "taught-1").read_text() == "mine"
    assert (tmp_path / "taught-3").is_symlink()
    with pytest.raises(AlexNetError, match="taught-1"):
        teach.keep_head(replace(room, keep=tmp_path / "taught-1"), head)


def test_layers_with_random_weights_are_not_read(tmp_path):
    room = room_with("two towers", tmp_path, new=("fc6", "fc7", "fc8"))
    (end,) = teach.readings(room.predictor)
    assert end.name == "pool5"
    head = teach.Taught(("a", "b"), 0, np.ones((2, end.units), np.float32), np.ones(2, np.float32))
    load(teach.keep_head(room, head.to_bytes())["path"]).require_answers()
    room = room_with("two towers", tmp_path, new=("conv5", "fc6", "fc7", "fc8"))
    with pytest.raises(UsageError, match="cannot be taught, because conv5, fc6, fc7, fc8 in it has random weights"):
        teach.features(room, pictures(room, 1)[0])
