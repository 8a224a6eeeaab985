"""Pictures to begin with, and the routes that the page asks for them by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from rooms import SMALL, room_of
from serving import client_of
from test_see import shades

from alexnet.core.preprocessing import Preprocessing
from alexnet.page.samples import chosen, samples

FIELDS = SMALL | {"input_size": 32, "num_classes": 3}
TINY = Preprocessing(resize=36, crop=32, scale=1 / 64)


@pytest.fixture
def room(tmp_path, tiny_set):
    return room_of("alexnet_2012", tmp_path, images=tiny_set, preprocessing=TINY, **FIELDS)


def test_every_class_has_its_turn_before_any_comes_again():
    label_N = np.array([0] * 50 + [1] * 2 + [2] * 3)
    found = chosen(label_N)
    assert sorted(label_N[found[:3]]) == sorted(label_N[found[3:6]]) == [0, 1, 2]
    assert sorted(label_N[found[6:]]) == [0, 2]  # the second class has no third
    assert len(set(found)) == 8
    assert np.array_equal(found, chosen(label_N))
    assert len(chosen(label_N[:5])) == 5


def test_samples_are_images_of_the_room_as_the_network_takes_them(room):
    images = room.subject.images
    stored = {images.read(np.array([i]))[0].tobytes(): images.labels[i] for i in range(len(images))}
    found = samples(room)
    assert 0 < len(found) == min(8, len(images))
    for pixels, name in found:
        assert room.subject.packed.classes[stored[pixels.content]] == name
    smaller = room_of(
        "alexnet_2012", room.cache, images=room.subject.packed, preprocessing=replace(TINY, resize=34), **FIELDS
    )
    assert {pixels.shape for pixels, _ in samples(smaller)} == {(34, 34, 3)}


def test_there_are_no_samples_without_images_or_of_another_kind(room):
    assert samples(replace(room, has_images=False)) == []
    grey = replace(TINY, channels=1, mean="none")
    lenet = room_of("lenet", room.cache, images=room.subject.packed, preprocessing=grey)
    assert samples(lenet) == []


def test_a_sample_is_known_to_the_server_and_answered_as_its_upload_would_be(room):
    with client_of(room) as client:
        found = client.get("/api/samples").json()["samples"]
        assert client.get("/api/samples").json()["samples"] == found
        for sample in found[:2]:
            path = f"/api/pictures/{sample['picture']}"
            square = client.get(f"{path}/square.png")
            assert shades(square.content).shape == (36, 36, 3)
            sent = client.post("/api/pictures", content=square.content).json()
            known = client.get(path).json()
            assert known.pop("seconds") >= 0
            del sent["seconds"]
            assert known == sent


def test_a_picture_that_nobody_sent_is_forgotten(room):
    with client_of(room) as client:
        for path in ("/api/pictures/0123456789abcdef", "/api/pictures/0/square.png"):
            answer = client.get(path)
            assert (answer.status_code, answer.json()["kind"]) == (404, "forgotten")


def test_the_act_in_motion_has_an_address(room):
    with client_of(room) as client:
        assert client.get("/motion").text == client.get("/see").text
