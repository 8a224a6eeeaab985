"""The See act: shapes with their arithmetic, answers, ten views, maps, windows, parts switched off, heat."""

from __future__ import annotations

import io
import json
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image
from rooms import SMALL, picture_for, room_of

from alexnet.core.errors import UsageError
from alexnet.core.preprocessing import Preprocessing
from alexnet.evaluation.layers import activations
from alexnet.evaluation.views import TEN
from alexnet.models import list_models
from alexnet.page import see

FORMULA = re.compile(r"\(([0-9 +×-]+)\) / (\d+) \+ 1 = (\d+(?:\.\d+)?)(?:, rounded (up|down) to (\d+))?")
UNSHARED = {"input_size": 30, "conv_strides": (1,) * 5, "conv_padding": (2, 1, 1, 1, 1), "unshared": ("conv1",)}
GREY_28 = Preprocessing(resize=28, crop=28, channels=1, mean="none", scale=1 / 255)


def fields_for(name: str) -> dict:
    """Fewer maps and units, the same windows."""
    if name.startswith("cifar") or name == "lenet":
        return {}
    layers = 6 if "six_conv" in name else 5
    return {"conv_channels": (4,) * layers, "fc_units": (4, 4), "num_classes": 5}


@pytest.fixture
def towers(tmp_path):
    """Two towers, response normalization that has the ReLU in it, dropout at test."""
    return room_of("alexnet_2012", tmp_path, **SMALL)


def shades(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


# The model ------------------------------------------------------------------------------------------------------------


def test_the_arithmetic_of_every_stage_gives_the_shape_that_the_network_has(tmp_path):
    for name in list_models():
        room = room_of(name, tmp_path, **fields_for(name))
        found = see.model(room)
        json.dumps(found, allow_nan=False)
        config = room.predictor.model.config
        x_1CHW = torch.zeros(1, config.in_channels, config.input_size, config.input_size)
        names = [stage["name"] for stage in found["stages"][1:]]
        shapes = {layer: list(x.shape[1:]) for layer, x in activations(room.predictor.model, x_1CHW, names).items()}
        assert found["parameters"] == sum(stage["parameters"] for stage in found["stages"])
        for stage in found["stages"][1:]:
            assert stage["shape"] == shapes[stage["name"]], (name, stage["name"])
            if stage["kind"] not in ("convolution", "pooling"):
                continue
            top, stride, value, way, rounded = FORMULA.search(stage["derivation"]["en"]).groups()
            exact = eval(top.replace("×", "*")) / int(stride) + 1
            assert float(value) == pytest.approx(exact, abs=0.006)
            side = exact if way is None else np.ceil(exact) if way == "up" else np.floor(exact)
            assert side == (float(value) if way is None else int(rounded)) == shapes[stage["name"]][1]
            for part in (top, f" {value}"):
                assert part in stage["derivation"]["zh"]


def test_the_arithmetic_of_parameters_and_multiply_adds_is_right(tmp_path):
    for name in (
        "alexnet_2012",
        "cifar_13pct",
    ):  # convolutions, towers, kernels of their own at each place, dense layers
        for stage in see.model(room_of(name, tmp_path, **fields_for(name)))["stages"]:
            for line in (stage["costs"] or {}).values():
                numbers = [int(number) for number in re.findall(r"\d+", line.replace(",", ""))]
                at = numbers.index(stage["parameters"])
                assert math.prod(numbers[: at - 1]) + numbers[at - 1] == stage["parameters"]
                assert numbers[-1] == stage["multiply_adds"]
                assert math.prod(numbers[at + 1 : -1]) == (numbers[-1] if stage["kind"] == "convolution" else 1) or (
                    name == "cifar_13pct" and stage["name"].startswith("local")
                )
    paper = {
        s["name"]: s
        for s in see.model(room_of("alexnet_2012", tmp_path, conv_channels=(96, 256, 8, 8, 8), fc_units=(8, 8)))[
            "stages"
        ]
    }
    assert paper["conv1"]["costs"]["en"].endswith("34,848 × 55 × 55 = 105,415,200 multiply-adds.")
    assert paper["conv2"]["parameters"] == 307_456  # 256 kernels of 5 x 5 x 48, and 256 biases


def test_why_55_and_why_224(tmp_path):
    paper = {s["name"]: s for s in see.model(room_of("alexnet_2012", tmp_path, **fields_for("")))["stages"]}
    assert (
        "(224 + 3 - 11) / 4 + 1 = 55. Without these zeros 224 pixels would give 54."
        in paper["conv1"]["derivation"]["en"]
    )
    assert "(224 + 3 - 11) / 4 + 1 = 55。不补这些零，224 像素只能得到 54。" in paper["conv1"]["derivation"]["zh"]
    assert "(256 - 224 + 1)² = 1,089 places" in paper["input"]["derivation"]["en"]
    assert "= 16 pixels from the top" in paper["input"]["derivation"]["en"]
    assert paper["conv2"]["field"] == {"size": 51, "stride": 8, "start": -16}
    owt = {s["name"]: s for s in see.model(room_of("alexnet_owt", tmp_path, **fields_for("")))["stages"]}
    assert (
        "(224 + 2 × 2 - 11) / 4 + 1 = 55.25, rounded down to 55: the last row and column"
        in owt["conv1"]["derivation"]["en"]
    )


def test_odd_zeros_and_odd_windows_are_counted_as_the_network_has_them(tmp_path):
    room = room_of(
        "alexnet_2012",
        tmp_path,
        **SMALL | {"input_size": 63, "conv_kernels": (4, 3, 3, 3, 3), "conv_padding": (3, 1, 1, 2, 0)},
    )
    sides = {s["name"]: s["shape"][1] for s in see.model(room)["stages"] if len(s["shape"]) == 3}
    words = {s["name"]: s["derivation"]["en"] for s in see.model(room)["stages"]}
    assert "(63 + 2 × 3 + 1 - 4) / 2 + 1 = 34. Without these zeros 63 pixels would give 33." in words["conv1"]
    assert "(34 - 3) / 2 + 1 = 16.5, rounded down to 16" in words["pool1"]
    assert (sides["conv1"], sides["pool1"], sides["conv4"], sides["conv5"]) == (34, 16, 9, 7)


def test_what_can_be_asked_of_a_network_is_what_it_has(tmp_path, towers):
    found = see.model(towers)
    assert found["can_answer"]
    assert found["why_not"] is None
    assert found["towers"] == 2
    assert found["switches"] == {"normalization": True, "towers": 2}
    assert found["input"] == {"size": 64, "channels": 3, "resize": 96}
    assert found["data"] is found["index"] is None
    kinds = {stage["name"]: (stage["kind"], stage["has_maps"], stage["has_units"]) for stage in found["stages"]}
    assert kinds["input"] == ("input", False, False)
    assert kinds["conv1"] == ("convolution", True, True)
    assert kinds["norm1"] == ("normalization", True, False)
    assert kinds["fc6"] == ("dense", False, True)
    assert kinds["dropout7"] == ("dropout", False, False)

    trunk = see.model(room_of("alexnet_owt", tmp_path, new=("fc6", "fc7", "fc8"), **SMALL))
    assert not trunk["can_answer"]
    assert "fc6, fc7, fc8 have random weights" in trunk["why_not"]
    assert trunk["switches"] == {"normalization": False, "towers": 0}
    shown = {stage["name"]: (stage["trained"], stage["has_units"]) for stage in trunk["stages"]}
    assert shown["conv5"] == (True, True)
    assert shown["fc6"] == shown["fc8"] == (False, False)


# Answers --------------------------------------------------------------------------------------------------------------


def test_each_of_the_ten_views_says_what_its_own_pixels_say(towers):
    picture = picture_for(towers)
    found = see.views(towers, picture)
    assert found["square"] == 96
    assert [v["mirrored"] for v in found["views"]] == [False] * 5 + [True] * 5
    assert [v["box"] for v in found["views"]][:5] == [
        [0, 0, 64, 64], [0, 32, 64, 96], [16, 16, 80, 80], [32, 0, 96, 64], [32, 32, 96, 96]
    ]  # fmt: skip
    whole = np.asarray(towers.predictor.mean)
    for view in (found["views"][1], found["views"][8]):  # cut out by hand, less the center of the mean image
        top, left, bottom, right = view["box"]
        pixels = picture[top:bottom, left:right].astype(np.float32)
        pixels = (pixels[:, ::-1] if view["mirrored"] else pixels) - whole[16:80, 16:80]
        logits = towers.predictor.model(torch.from_numpy(pixels / 64).permute(2, 0, 1)[None]).detach()
        best, label = logits.softmax(1)[0].max(0)
        assert view["answers"][0]["label"] == int(label)
        assert view["answers"][0]["probability"] == pytest.approx(float(best), rel=1e-4)
    together = towers.predictor.predict(picture, TEN).answers
    assert [a["label"] for a in found["answers"]] == [a.label for a in together]
    assert found["answers"][0]["probability"] == pytest.approx(together[0].probability, rel=1e-5)


def test_a_network_without_classes_refuses_to_answer(tmp_path):
    trunk = room_of("alexnet_owt", tmp_path, new=("fc6", "fc7", "fc8"), **SMALL)
    picture = picture_for(trunk)
    for ask in (
        lambda: see.views(trunk, picture),
        lambda: see.answers(trunk, picture, [("conv1", 0)]),
        lambda: see.saliency(trunk, picture, 0),
    ):
        with pytest.raises(UsageError, match="cannot tell classes yet"):
            ask()
    with pytest.raises(UsageError, match=r"fc6 shows nothing.*look at the layers conv1.*pool5$"):
        see.maps(trunk, picture, "fc6")
    assert see.maps(trunk, picture, "pool5")["shape"] == [8, 3, 3]


# Maps -----------------------------------------------------------------------------------------------------------------


def test_sheet_and_numbers_are_what_the_layers_compute(towers):
    picture = picture_for(towers)
    x_1CHW = next(towers.predictor.inputs(torch.from_numpy(picture[None])))
    for layer in ("conv1", "norm1", "conv3", "pool5", "fc6", "fc8"):
        expected = activations(towers.predictor.model, x_1CHW, [layer])[layer][0].numpy()
        expected = expected.reshape(*expected.shape, *(1,) * (3 - expected.ndim))
        found, sheet = see.maps(towers, picture, layer), shades(see.maps_sheet(towers, picture, layer))
        json.dumps(found, allow_nan=False)
        height, width = found["tile"]
        assert found["largest"] == pytest.approx(expected.max((1, 2)).tolist(), rel=1e-5)
        assert found["mean"] == pytest.approx(expected.mean((1, 2)).tolist(), rel=1e-4, abs=1e-6)
        above = np.sort(expected[expected > 0])[::-1]
        assert found["scale"] == pytest.approx(
            above[len(above) // 100], rel=1e-6
        )  # one value in 100 is whiter than white
        for c in (0, 1, len(expected) - 1):
            top, left = c // found["columns"] * height, c % found["columns"] * width
            shade = np.clip(np.round(expected[c] * 255 / found["scale"]), 0, 255)
            np.testing.assert_allclose(sheet[top : top + height, left : left + width], shade, atol=1)
            one = see.one_map(towers, picture, layer, c)
            np.testing.assert_allclose(one["values"], expected[c], rtol=1e-5, atol=1e-6)
            y, x = one["strongest"]
            assert one["values"][y][x] == pytest.approx(one["largest"], rel=1e-5)


def test_one_pass_serves_all_layers_of_a_picture_and_only_some_pictures_are_kept(towers, monkeypatch):
    passes = []
    towers.predictor.model.register_forward_pre_hook(lambda *_: passes.append(1))
    layers = [stage["name"] for stage in see.model(towers)["stages"] if stage["has_maps"]]
    passes.clear()
    pictures = [picture_for(towers, seed) for seed in range(3)]
    for layer in layers:
        see.maps(towers, pictures[0], layer)
        see.maps_sheet(towers, pictures[0], layer)
    assert len(passes) == 1
    size = sum(maps.nbytes for maps in see.recorded_maps(towers, pictures[0]).values())
    monkeypatch.setattr(see, "MOST_BYTES", 2 * size)
    for picture in pictures:  # the third takes the place of the first
        see.maps(towers, picture, "conv1")
    assert len(passes) == 3
    see.maps(towers, pictures[1], "conv1")
    assert len(passes) == 3
    see.maps(towers, pictures[0], "conv1")
    assert len(passes) == 4


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("alexnet_2012", SMALL),
        ("alexnet_owt", SMALL | {"conv_padding": (2, 1, 1, 1, 1)}),
        ("alexnet_2012_code", SMALL),
        ("alexnet_2012", SMALL | UNSHARED),
        ("caffenet", SMALL),
        ("cifar_13pct", {}),
        ("cifar_18pct", {}),
        ("lenet", {}),
    ],
)  # fmt: skip
def test_the_products_of_the_first_convolution_add_up_to_its_value(tmp_path, name, fields):
    room = room_of(name, tmp_path, **fields)
    model, picture = room.predictor.model, picture_for(room)
    first = see.model(room)["stages"][1]
    module = model.get_submodule(first["name"])
    raw = {}
    handle = module.register_forward_hook(lambda _m, inputs, output: raw.update(read=inputs[0][0], gave=output[0]))
    see.recorded_maps(room, picture)
    handle.remove()
    read_CHW, gave_CHW = raw["read"].double().numpy(), raw["gave"].numpy()
    channels, side, _ = gave_CHW.shape
    values = see.recorded_maps(room, picture)[first["name"]]
    for c, y, x in ((0, 0, 0), (channels - 1, side - 1, side - 1), (2, side // 2, side // 3)):
        found = see.window(room, picture, first["name"], c, y, x)
        json.dumps(found, allow_nan=False)
        products = found["products"]
        # Written out: every number that was read, times its weight, in float64, one after the other.
        total = 0.0
        for channel in range(len(read_CHW)):
            for i in range(first["kernel"]):
                for j in range(first["kernel"]):
                    row, column = y * first["stride"] - first["padding"] + i, x * first["stride"] - first["padding"] + j
                    inside = 0 <= row < read_CHW.shape[1] and 0 <= column < read_CHW.shape[2]
                    number = read_CHW[channel, row, column] if inside else 0.0
                    assert products["input"][channel][i][j] == pytest.approx(number, rel=1e-6)
                    product = products["input"][channel][i][j] * products["kernel"][channel][i][j]
                    assert products["products"][channel][i][j] == pytest.approx(product, rel=1e-5, abs=1e-12)
                    total += product
        assert products["sum"] == pytest.approx(total + products["bias"], rel=1e-5, abs=1e-6)
        assert products["sum"] == pytest.approx(float(gave_CHW[c, y, x]), rel=1e-4, abs=1e-4)
        assert products["after_relu"] == found["value"] == float(values[c, y, x])
        if name in ("alexnet_2012", "caffenet", "alexnet_owt"):
            assert found["value"] == pytest.approx(max(products["sum"], 0), rel=1e-4, abs=1e-4)
    assert see.window(room, picture, see.model(room)["stages"][2]["name"], 0, 0, 0)["products"] is None


def test_the_window_of_a_place_is_what_changes_it(towers):
    """Pixels outside the box leave the value as it is, pixels inside change it."""
    picture = picture_for(towers)
    c, (y, x) = 3, (1, 2)
    found = see.window(towers, picture, "conv3", c, y, x)
    top, left, bottom, right = (edge + 16 for edge in found["box"])  # the view begins at 16 of 96 pixels
    outside = 255 - picture
    outside[top:bottom, left:right] = picture[top:bottom, left:right]
    assert see.window(towers, outside, "conv3", c, y, x)["value"] == pytest.approx(found["value"], rel=1e-4)
    inside = picture.copy()
    inside[top:bottom, left:right] = 255 - picture[top:bottom, left:right]
    assert see.window(towers, inside, "conv3", c, y, x)["value"] != pytest.approx(found["value"], rel=1e-2)
    assert see.window(towers, picture, "fc6", 0, 0, 0)["box"] == [0, 0, 64, 64]


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda room, p: see.maps(room, p, "conv9"), "no layer is called 'conv9'; the layers are conv1, norm1"),
        (lambda room, p: see.maps_sheet(room, p, "pixels"), "no layer is called 'pixels'"),
        (lambda room, p: see.one_map(room, p, "conv1", 8), "conv1 has no channel 8; its channels are 0 to 7"),
        (lambda room, p: see.one_map(room, p, "conv1", -1), "conv1 has no channel -1"),
        (lambda room, p: see.window(room, p, "conv1", 0, 32, 0), "conv1 has no place 32, 0; rows are 0 to 30"),
        (lambda room, p: see.window(room, p, "fc6", 0, 0, 1), "fc6 has no place 0, 1"),
        (lambda room, p: see.answers(room, p, [("conv1", 8)]), "conv1 has no channel 8"),
        (lambda room, p: see.answers(room, p, [("fc8", 1)]), "the units of fc8 are the classes"),
        (lambda room, p: see.answers(room, p, (), ["tower2"]), "without is 'tower2'"),
        (lambda room, p: see.saliency(room, p, 7), "no class has the number 7; they are 0 to 6"),
        (
            lambda room, p: see.saliency(room, p, 0, "occlusion"),
            "no method is called 'occlusion'; the methods are gradient",
        ),
    ],
)
def test_what_is_not_there_is_refused_in_a_line(towers, ask, said):
    with pytest.raises(UsageError) as refused:
        ask(towers, picture_for(towers))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


# With parts switched off ----------------------------------------------------------------------------------------------


def test_a_channel_that_is_off_gives_the_answer_of_a_network_without_it(towers):
    """The oracle takes the weights away that read the channel: conv3 reads all of pool2, fc7 all of fc6."""
    picture = picture_for(towers)
    found = see.answers(towers, picture, [("pool2", 5), ("fc6", 3)])
    other = room_of("alexnet_2012", towers.cache, **SMALL).predictor.model
    with torch.no_grad():
        other.conv3.weight[:, 5] = 0
        other.fc7.weight[:, 3] = 0
        x_1CHW = next(towers.predictor.inputs(torch.from_numpy(picture[None])))
        expected_K, whole_K = other(x_1CHW).softmax(1)[0], towers.predictor.model(x_1CHW).softmax(1)[0]
    for answer in found["after"]:
        assert answer["probability"] == pytest.approx(float(expected_K[answer["label"]]), rel=1e-4)
        assert answer["probability_before"] == pytest.approx(float(whole_K[answer["label"]]), rel=1e-4)
    assert found["after"][0]["label"] == int(expected_K.argmax())
    assert len(found["before"]) == 5
    assert found["before"][0]["probability"] == pytest.approx(float(whole_K.max()), rel=1e-4)
    assert found["before"][0]["probability_after"] != pytest.approx(found["before"][0]["probability"], rel=1e-4)


def test_without_a_tower_only_the_other_one_is_left(towers):
    picture = picture_for(towers)
    found = see.answers(towers, picture, (), ["tower1"])
    other = room_of("alexnet_2012", towers.cache, **SMALL).predictor.model
    with torch.no_grad():  # nothing reads the second half of any layer
        for name in ("conv3", "fc6", "fc7", "fc8"):
            weight = getattr(other, name).weight
            weight[:, weight.shape[1] // 2 :] = 0
        expected_K = other(next(towers.predictor.inputs(torch.from_numpy(picture[None])))).softmax(1)[0]
    assert found["after"][0]["probability"] == pytest.approx(float(expected_K.max()), rel=1e-4)
    assert found["after"][0]["label"] == int(expected_K.argmax())


def test_without_normalization_the_network_is_the_one_without_it(towers):
    picture = picture_for(towers)
    found = see.answers(towers, picture, (), ["normalization"])
    plain = room_of("alexnet_2012", towers.cache, normalization="none", **SMALL).predictor.model
    plain.load_state_dict(towers.predictor.model.state_dict())
    expected_K = plain(next(towers.predictor.inputs(torch.from_numpy(picture[None])))).softmax(1)[0].detach()
    for answer in found["after"]:
        assert answer["probability"] == pytest.approx(float(expected_K[answer["label"]]), rel=1e-4)
    assert found["after"][0]["probability_before"] != pytest.approx(found["after"][0]["probability"], rel=1e-4)


def test_nothing_that_is_switched_off_stays_off(towers):
    picture, model = picture_for(towers), towers.predictor.model
    before, state = towers.predictor.answers([picture]), {k: v.clone() for k, v in model.state_dict().items()}
    structure = repr(model)
    see.answers(towers, picture, [("conv1", 1), ("norm1", 2), ("fc7", 0)], ["normalization", "tower0"])
    see.saliency(towers, picture, 1, "gradient")
    assert towers.predictor.answers([picture]) == before
    assert repr(model) == structure
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not any(m.training for m in model.modules())


def test_what_a_network_does_not_have_cannot_be_switched_off(tmp_path):
    room = room_of("alexnet_owt", tmp_path, **SMALL)
    with pytest.raises(UsageError, match="one tower"):
        see.answers(room, picture_for(room), (), ["tower0"])
    with pytest.raises(UsageError, match="no normalization"):
        see.answers(room, picture_for(room), (), ["normalization"])


# What an answer rests on ----------------------------------------------------------------------------------------------


def test_heat_is_most_where_the_logit_depends_most(tmp_path):
    pytest.importorskip("captum")
    room = room_of("lenet", tmp_path, preprocessing=GREY_28)
    picture = picture_for(room)
    heat = shades(see.saliency(room, picture, 3, "gradient"))
    assert heat.shape == (28, 28, 4)
    assert heat[..., 3].max() == 230
    x_1CHW = next(room.predictor.inputs(torch.from_numpy(picture[None]))).requires_grad_()
    room.predictor.model(x_1CHW)[0, 3].backward()
    size_HW = x_1CHW.grad.abs()[0].amax(0).numpy()
    assert np.corrcoef(size_HW.ravel(), heat[..., 3].ravel().astype(float))[0, 1] > 0.98
    covered = shades(see.occlusion(room, picture, 3))
    assert covered.shape == (28, 28, 4)
    assert len(np.unique(covered[..., 3])) > 1


def test_pictures_of_the_input_are_its_own_pixels(towers, tmp_path):
    picture = picture_for(towers)
    assert np.array_equal(shades(see.input_png(towers, picture)), picture[16:80, 16:80])
    assert np.array_equal(shades(see.square_png(towers, picture)), picture)
    grey = room_of("lenet", tmp_path, preprocessing=GREY_28)
    assert np.array_equal(shades(see.input_png(grey, picture_for(grey))), picture_for(grey)[..., 0])


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("alexnet_2012", SMALL | {"normalization": "batch", "activation": "prelu"}),
        ("alexnet_2012", SMALL | {"normalization": "layer", "head": "global_average"}),
        ("alexnet_2012", SMALL | {"dropout_place": "before", "joined": (), "conv_channels": (8, 8, 0, 12, 8)}),
        ("alexnet_d2l", SMALL | {"in_channels": 1, "input_size": 28, "conv_strides": (1,) * 5, "pool_size": 2}),
        ("cifar_18pct", {}),
        ("lenet", {}),
    ],
)
def test_every_stage_of_every_kind_of_network_can_be_looked_at(tmp_path, name, fields):
    room = room_of(name, tmp_path, **fields)
    picture, found = picture_for(room), see.model(room)
    assert found["parameters"] == sum(stage["parameters"] for stage in found["stages"])
    for stage in found["stages"][1:]:
        layer, last = stage["name"], stage["shape"][0] - 1
        assert see.maps(room, picture, layer)["shape"] == stage["shape"]
        assert shades(see.maps_sheet(room, picture, layer)).ndim == 2
        one, place = see.one_map(room, picture, layer, last), see.window(room, picture, layer, last, 0, 0)
        assert one["values"][0][0] == pytest.approx(place["value"], rel=1e-5)
        json.dumps([one, place], allow_nan=False)
        if stage is not found["stages"][-1]:
            json.dumps(see.answers(room, picture, [(layer, last)]), allow_nan=False)
    parts = ["normalization"] * found["switches"]["normalization"] + ["tower1"] * bool(found["switches"]["towers"])
    assert len(see.answers(room, picture, (), parts)["after"]) == 5
    assert see.views(room, picture)["answers"][0]["probability"] > 0
