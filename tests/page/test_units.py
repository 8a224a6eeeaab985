"""Units: their tower, color, field, kernel, and the crops that excite them most, which are looked for once."""

from __future__ import annotations

import json
from contextlib import suppress

import numpy as np
import pytest
import torch
from rooms import SMALL, picture_for, room_of
from serving import client_of, desk_of
from test_see import shades

from alexnet.core.errors import AlexNetError, UsageError
from alexnet.core.preprocessing import Preprocessing
from alexnet.page import see, units
from alexnet.page.worker import Pixels
from alexnet.probes.optimal import frame_of


def facts(room, layer, channel):
    """What is known of a unit once all images have been looked through; without the image made for it."""
    with suppress(AlexNetError):
        units.look_through(room, lambda *_: None)
    return units.unit(room, layer, channel, optimal=False)


FIELDS = SMALL | {"input_size": 32, "num_classes": 3}


@pytest.fixture
def room(tmp_path, tiny_set):
    """Two towers, and 12 images of 36 pixels of which the network sees 32."""
    return room_of("alexnet_2012", tmp_path / "cache", images=tiny_set, **FIELDS | {"preprocessing": TINY})


TINY = Preprocessing(resize=36, crop=32, scale=1 / 64)


def test_the_crops_are_those_that_excite_the_unit_most(room):
    images = room.subject.images
    for layer in ("conv3", "fc6"):
        channel = next(c for c in range(12) if facts(room, layer, c)["crops"])
        found = facts(room, layer, channel)
        json.dumps(found, allow_nan=False)
        strongest = []
        for i in range(len(images)):  # each image by itself, through the See act
            one = see.one_map(room, images.read(np.array([i]))[0], layer, channel)
            strongest.append((one["largest"], i, one["box"]))
        expected = sorted(strongest, key=lambda row: (-row[0], row[1]))[: units.CROPS]
        expected = [row for row in expected if row[0] > 0]
        assert [crop["activation"] for crop in found["crops"]] == pytest.approx([row[0] for row in expected], rel=1e-4)
        assert [crop["box"] for crop in found["crops"]] == [row[2] for row in expected]
        names = [room.subject.packed.classes[int(images.labels[i])] for _, i, _ in expected]
        assert [crop["label"] for crop in found["crops"]] == names
        assert found["why_no_crops"] is None

        row = shades(units.crops_png(room, layer, channel))
        side = found["field"]["size"] if found["field"] else 32
        assert row.shape == (side, side * len(expected), 3)
        _, i, (top, left, bottom, right) = expected[1]
        view = images.read(np.array([i]))[0][2:34, 2:34]
        square = row[:, side : 2 * side]
        inside = square[(square != 128).any(2).any(1)][:, (square != 128).any(2).any(0)]
        assert np.array_equal(inside, view[top:bottom, left:right])


def test_images_are_looked_through_once_for_all_layers(room, monkeypatch):
    first = facts(room, "conv2", 0)
    monkeypatch.setattr(units._Looks, "go_on", None)
    again = room_of("alexnet_2012", room.cache, images=room.subject.packed, **FIELDS | {"preprocessing": TINY})
    assert facts(again, "conv2", 0) == first  # by a new worker, too
    assert facts(again, "fc7", 5)["crops"] is not None
    units.crops_png(again, "conv2", 0)
    monkeypatch.undo()
    (file,) = room.cache.iterdir()
    for damage in (b"", file.read_bytes()[:300]):
        file.write_bytes(damage)
        units._looks.cache_clear()
        assert facts(again, "conv2", 0) == first
    assert list(room.cache.iterdir()) == [file]


def test_a_look_goes_on_with_every_question_and_others_are_answered_meanwhile(room, monkeypatch):
    # A question for a unit looks at images for so long; what is asked meanwhile is answered after it, not after the last image.
    monkeypatch.setattr(units, "SECONDS", 0.0)
    monkeypatch.setattr(units, "BATCH", 2)
    unit, picture = "/api/units/conv2/0", Pixels.of(picture_for(room))
    with desk_of(room) as desk:
        desk.ready.result()
        asked = [
            desk.ask("units.unit", {"layer": "conv2", "channel": 0, "optimal": False}, key=f"{unit} {i}")
            for i in range(8)
        ]
        seen_when_answered = []
        maps = desk.ask("see.maps", {"pixels": picture, "layer": "conv1"}, key="maps")
        maps.add_done_callback(lambda _: seen_when_answered.append(units.progress_of(room)[0]))
        said = [one.result().value for one in asked]
    assert [one["images"] for one in said] == [2, 4, 6, 8, 10, 12, 12, 12]
    assert all(one["of"] == 12 and (one["crops"] is None) == (one["images"] < 12) for one in said)
    assert all(one["why_no_crops"] is None for one in said)
    assert maps.result().value["layer"] == "conv1"
    assert seen_when_answered[0] <= 4
    assert said[-1]["crops"] == facts(room, "conv2", 0)["crops"]


def test_crops_that_are_still_looked_for_are_asked_for_again(room, monkeypatch):
    monkeypatch.setattr(units, "SECONDS", 0.0)
    with client_of(room) as client:
        first = client.get("/api/units/conv2/0/crops.png")
        assert (first.status_code, first.json()["kind"], first.headers["retry-after"]) == (503, "busy", "3")
        assert first.json()["error"] == "8 of 12 images have been looked through for crops; ask again"
        assert client.get("/api/units/conv2/0/crops.png").headers["content-type"] == "image/png"


def test_no_more_images_are_looked_through_than_the_limit(room, monkeypatch):
    monkeypatch.setattr(units, "IMAGES", 4)
    assert len(facts(room, "norm1", 0)["crops"]) <= 4
    assert len(units._images(room)) == 4


def test_why_there_are_no_crops(tmp_path, room, tiny_set):
    without = facts(room_of("alexnet_2012", tmp_path, **FIELDS), "conv1", 0)
    assert without["crops"] is None
    assert without["why_no_crops"] == "there are no images to take crops from; start the page with --data"

    grey = room_of(
        "lenet", tmp_path, images=tiny_set, preprocessing=Preprocessing(resize=28, crop=28, channels=1, mean="none")
    )
    assert "the images have 3 channels, the network reads 1" in facts(grey, "c1", 0)["why_no_crops"]

    with torch.no_grad():
        room.predictor.model.conv4.bias[2] = -1e6
    silent = facts(room, "conv4", 2)
    assert silent["crops"] == []
    assert silent["why_no_crops"] == "none of the 12 images brings this channel above 0"
    with pytest.raises(UsageError, match="brings this channel above 0"):
        units.crops_png(room, "conv4", 2)


def test_towers_fields_and_what_is_not_there(room, tmp_path):
    assert [facts(room, "conv3", c)["tower"] for c in (0, 5, 6, 11)] == [0, 0, 1, 1]
    assert facts(room, "fc7", 6)["tower"] == 1
    assert facts(room, "fc8", 0)["tower"] is None
    assert facts(room, "pool1", 0)["field"] == {"size": 9, "stride": 4, "start": 0}
    assert facts(room, "fc6", 0)["field"] is None
    assert facts(room, "conv5", 3)["channels"] == 8
    assert facts(room_of("lenet", tmp_path), "c3", 0)["tower"] is None
    for layer, channel, said in (("conv7", 0, "no layer is called"), ("conv1", 8, "conv1 has no channel 8")):
        for ask in (facts, units.crops_png, units.kernel_png, units.optimal_png):
            with pytest.raises(UsageError, match=said):
                ask(room, layer, channel)


def test_color_selectivity_and_picture_of_a_kernel(tmp_path):
    room = room_of("alexnet_2012", tmp_path, **FIELDS)
    weight = room.predictor.model.conv1.weight
    with torch.no_grad():
        weight[:3] = 0
        weight[0, :, 1, 2] = -0.5  # grey
        weight[1, 0, 0, 0], weight[1, 1, 0, 0] = 0.2, -0.2  # red against green
    assert facts(room, "conv1", 0)["selectivity"] == pytest.approx(0, abs=1e-6)
    assert facts(room, "conv1", 1)["selectivity"] == pytest.approx(1)
    assert facts(room, "conv1", 2)["selectivity"] is None
    assert facts(room, "conv2", 0)["selectivity"] is None
    kernel = shades(units.kernel_png(room, "conv1", 1))
    assert kernel.shape == (5, 5, 3)
    assert kernel[0, 0].tolist() == [255, 0, 128]
    assert (kernel[1:] == 128).all()
    with pytest.raises(UsageError, match="kernels of conv2 cannot be shown as pixels, only those of conv1"):
        units.kernel_png(room, "conv2", 0)
    unshared = FIELDS | {"conv_strides": (1,) * 5, "conv_padding": (2, 1, 1, 1, 1), "unshared": ("conv1",)}
    with pytest.raises(UsageError, match="this network has none"):
        units.kernel_png(room_of("alexnet_2012", tmp_path, **unshared), "conv1", 0)
    grey = room_of("lenet", tmp_path)
    assert facts(grey, "c1", 0)["selectivity"] is None
    assert shades(units.kernel_png(grey, "c1", 0)).shape == (5, 5, 3)


def test_the_image_that_a_unit_wants_excites_it_as_much_as_is_said(room, monkeypatch):
    layer = see.layer_of(room, "conv2")
    frame = frame_of(room.predictor, layer)
    channel = next(c for c in range(8) if facts(room, "conv2", c)["crops"])
    found = units.unit(room, "conv2", channel)
    wanted = shades(units.optimal_png(room, "conv2", channel))
    assert wanted.shape == (frame.side, frame.side, 3)
    whole = np.full((36, 36, 3), 128, np.uint8)  # the view begins at 2
    whole[2 + frame.top : 2 + frame.top + frame.side, 2 + frame.left : 2 + frame.left + frame.side] = wanted
    value = see.window(room, whole, "conv2", channel, frame.y, frame.x)["value"]
    assert found["optimal"]["activation"] == pytest.approx(value, rel=1e-4)
    assert found["optimal"]["crop_activation"] == found["crops"][0]["activation"]
    monkeypatch.setattr("alexnet.probes.optimal.optimal_images", None)
    assert units.unit(room, "conv2", channel) == found  # from the cache
    assert facts(room, "conv2", channel)["optimal"] is None
