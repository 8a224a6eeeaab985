"""A frame of the webcam: its probabilities, and the layer whose steadiness is measured."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from rooms import SMALL, picture_for, room_of

from alexnet.page import motion


@pytest.mark.parametrize(
    ("name", "fields", "layer"), [("alexnet_2012", SMALL, "fc7"), ("lenet", {}, "f6"), ("cifar_18pct", {}, "pool3")]
)
def test_a_frame_gives_the_answers_and_the_last_hidden_layer(name, fields, layer, tmp_path):
    room = room_of(name, tmp_path, **fields)
    picture = picture_for(room)
    found = motion.frame(room, picture)
    expected = room.predictor.answers([picture], top_k=len(room.predictor.classes))[0]
    assert found["answers"] == [vars(answer) for answer in expected[:5]]
    assert found["probabilities"] == [answer.probability for answer in sorted(expected, key=lambda one: one.label)]
    hidden_D = np.frombuffer(base64.b64decode(found["hidden"]), np.float16)
    assert found["layer"] == layer
    shown = picture if picture.shape[2] == 3 else picture[..., 0]
    np.testing.assert_allclose(hidden_D, room.predictor.embed(shown, layer), rtol=1e-3, atol=1e-3)


def test_of_many_classes_only_the_most_probable_are_told(tmp_path):
    room = room_of("lenet", tmp_path, num_classes=1001)
    found = motion.frame(room, picture_for(room))
    assert found["probabilities"] is None
    assert len(found["answers"]) == 5


def test_a_network_that_tells_no_classes_has_a_layer_all_the_same(tmp_path):
    room = room_of("alexnet_2012", tmp_path, new=("fc6", "fc7", "fc8"), **SMALL)
    found = motion.frame(room, picture_for(room))
    assert (found["probabilities"], found["answers"], found["layer"]) == (None, [], "pool5")
