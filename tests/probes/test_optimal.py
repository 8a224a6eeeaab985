"""What a unit wants to see: against kernels, against the network's own answer to the pixels, and against real crops."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from alexnet.cli.probe import probe as command
from alexnet.core.device import Machine
from alexnet.core.errors import UsageError
from alexnet.core.preprocessing import Preprocessing
from alexnet.data.packed import PackedSet
from alexnet.data.prepare import prepare
from alexnet.evaluation.layers import find_layers
from alexnet.evaluation.predict import Predictor, load
from alexnet.evaluation.subject import Subject
from alexnet.models import create_model
from alexnet.models.folder import save_model_folder
from alexnet.probes.maps import top_patches
from alexnet.probes.optimal import (
    CROPS,
    MOMENTUM,
    RATE,
    Optimum,
    Settings,
    _Adam,
    frame_of,
    measure,
    named_channels,
    optimal_images,
)
from alexnet.report.pictures.maps import Tile
from alexnet.report.pictures.optimal import Row, draw_optimal

TRUNK = os.environ.get("ALEXNET_TRUNK")

NARROW: dict[str, Any] = {"conv_channels": (8, 8, 8, 8, 8), "fc_units": (16, 12), "num_classes": 4, "input_size": 67}


def predictor_of(name: str, *, mean: NDArray[np.float32] | None = None, **fields: Any) -> Predictor:
    """A network with random weights, and the preprocessing of an image that is stored 4 pixels larger than it is seen."""
    wide = {} if name.startswith(("cifar", "lenet")) else NARROW | {"init": "he"}
    model = create_model(name, **(wide | fields)).eval()
    config: Any = model.config
    size, channels = config.input_size, config.in_channels
    preprocessing = Preprocessing(
        resize=size + 4,
        crop=size,
        channels=channels,
        mean="none" if mean is None else "image",
        scale=1 / 64,
        channel_order="bgr" if channels == 3 else "rgb",
    )
    classes = tuple(f"class {k}" for k in range(config.num_classes))
    return Predictor(name, model, preprocessing, classes, mean, torch.device("cpu"))


def optimum(predictor: Predictor, layer: str, channel: int, **how: Any) -> Optimum:
    (found,) = find_layers(predictor.model, [layer])
    return optimal_images(predictor, found, [channel], **({"steps": 12, "starts": 2} | how))[0]


def seen_by_the_network(predictor: Predictor, layer: str, pixels_TFFC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The layer's activations for pictures that stand where the unit in the middle looks, in an image of noise."""
    (found,) = find_layers(predictor.model, [layer])
    frame, size = frame_of(predictor, found), predictor.preprocessing.resize
    whole = np.random.default_rng(5).integers(0, 256, (len(pixels_TFFC), size, size, pixels_TFFC.shape[3]), np.uint8)
    top, left = 2 + frame.top, 2 + frame.left
    whole[:, top : top + frame.side, left : left + frame.side] = pixels_TFFC
    output = predictor.activations(torch.from_numpy(whole), [found])[layer].reshape(len(whole), *found.shape)
    return output[:, :, frame.y, frame.x] if len(found.shape) == 3 else output


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("alexnet_2012", "conv1 norm1 conv2 conv5 fc8"),
        ("cifar_18pct", "conv1 norm1 conv3 fc10"),
        ("cifar_11pct", "conv1 local3 fc10"),
        ("lenet", "c1 s2 c3 c5 output"),
    ],
)
def test_the_activation_is_the_networks_own_for_the_final_pixels(name: str, layers: str) -> None:
    predictor = predictor_of(name)
    side, channels = predictor.preprocessing.crop, predictor.preprocessing.channels
    mean = np.random.default_rng(1).uniform(80, 160, (side + 4, side + 4, channels)).astype(np.float32)
    predictor = replace(predictor, mean=mean, preprocessing=replace(predictor.preprocessing, mean="image"))
    for layer in layers.split():
        found = optimum(predictor, layer, 1, steps=4)
        assert found.pixels_TFFC.dtype == np.uint8
        assert found.pixels_TFFC.shape[0] == 2
        assert found.pixels_TFFC.shape[3] == channels
        expected = seen_by_the_network(predictor, layer, found.pixels_TFFC)[:, 1]
        np.testing.assert_allclose(found.activation_T, expected, rtol=1e-4, atol=1e-6, err_msg=layer)
        assert (np.diff(found.before_T) <= 0).all()


def test_a_linear_convolution_wants_its_kernel() -> None:
    # A sum of products with a kernel is largest, among images of one contrast, for the kernel itself: here stripes.
    predictor = predictor_of("lenet", in_channels=3)
    model: nn.Module = predictor.model
    with torch.no_grad():
        stripes_RS = torch.cos(torch.arange(5) + 0.7 * torch.arange(5)[:, None])
        model.get_parameter("c1.weight")[2] = torch.tensor([1.0, -0.8, -1.0])[:, None, None] * stripes_RS
    kernel_CRS = model.get_parameter("c1.weight")[2].detach().numpy()
    found = optimum(predictor, "c1", 2, steps=64)
    for pixels_FFC in found.pixels_TFFC:
        seen_CRS = pixels_FFC[:, :, ::-1].transpose(2, 0, 1)  # the network reads blue first
        assert np.corrcoef(seen_CRS.ravel(), kernel_CRS.ravel())[0, 1] > 0.75
    calmest = optimum(predictor, "c1", 2, steps=64, negative=True)
    seen_CRS = calmest.pixels_TFFC[0][:, :, ::-1].transpose(2, 0, 1)
    assert np.corrcoef(seen_CRS.ravel(), kernel_CRS.ravel())[0, 1] < -0.75


def test_a_seed_and_a_start_have_their_own_pictures_whatever_else_is_asked() -> None:
    predictor = predictor_of("alexnet_2012")
    first = optimum(predictor, "conv2", 3)
    assert np.array_equal(first.pixels_TFFC, optimum(predictor, "conv2", 3).pixels_TFFC)
    assert not np.array_equal(first.pixels_TFFC, optimum(predictor, "conv2", 3, seed=1).pixels_TFFC)
    assert not np.array_equal(first.pixels_TFFC[0], first.pixels_TFFC[1])
    assert not np.array_equal(first.pixels_TFFC, optimum(predictor, "conv2", 4).pixels_TFFC)


def test_several_channels_are_climbed_together_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alexnet.probes.optimal.TOGETHER", 5)  # two channels of two starts, then the third
    predictor, seen = predictor_of("alexnet_2012"), list[int]()
    (layer,) = find_layers(predictor.model, ["conv2"])
    several = optimal_images(predictor, layer, [6, 1, 4], steps=4, progress=lambda done, _: seen.append(done))
    assert seen == [2, 3]
    for found in several:
        alone = optimum(predictor, "conv2", found.channel, steps=4)
        np.testing.assert_allclose(found.activation_T, alone.activation_T, rtol=1e-3)
        assert np.abs(found.pixels_TFFC.astype(int) - alone.pixels_TFFC).max() <= 2  # sums in another order


def test_the_ascent_is_adams() -> None:
    # torch's own descends, so it gets the gradients with the other sign.
    gradients = torch.from_numpy(np.random.default_rng(2).normal(size=(5, 3, 2)))
    ours, theirs = torch.zeros(3, 2, dtype=torch.float64), torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
    climb, adam = _Adam(ours), torch.optim.Adam([theirs], lr=RATE, betas=(MOMENTUM, 0.999), eps=1e-12)
    for gradient in gradients:
        climb.step(gradient)
        theirs.grad = -gradient
        adam.step()
    torch.testing.assert_close(ours, theirs.detach())


@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv5", "fc6"])
def test_a_unit_that_is_off_is_climbed_towards_all_the_same(layer: str) -> None:
    # A ReLU that is off gives no gradient: who ascends behind it gets the grey he began with.
    predictor = predictor_of("alexnet_2012")
    with torch.no_grad():
        predictor.model.get_parameter(f"{layer}.bias").fill_(-1e4)
    before, after = (optimum(predictor, layer, 1, steps=steps) for steps in (0, 24))
    assert (after.activation_T == 0).all()  # which a reader is told
    assert after.before_T[0] > before.before_T[0] + 0.1
    assert after.pixels_TFFC.std() > 3 * before.pixels_TFFC.std()


def test_weights_however_small_are_climbed() -> None:
    # The first weights of 2012 have a deviation of 0.01: eight layers up, gradients are below Adam's usual epsilon.
    predictor = predictor_of("alexnet_2012", init="gaussian")
    before, after = (optimum(predictor, "fc8", 2, steps=steps) for steps in (0, 24))
    assert after.pixels_TFFC.std() > 3 * before.pixels_TFFC.std()


def test_a_whole_channel_is_excited_at_more_places_than_a_unit() -> None:
    predictor = predictor_of("alexnet_2012")
    (layer,) = find_layers(predictor.model, ["conv1"])
    unit, channel = (optimum(predictor, "conv1", 0, aim=aim, steps=24, starts=1) for aim in ("unit", "channel"))
    assert unit.pixels_TFFC.shape == (1, 11, 11, 3)
    assert channel.pixels_TFFC.shape == (1, 67, 67, 3)
    whole = np.full((1, 71, 71, 3), 128, np.uint8)
    whole[:, 2:69, 2:69] = channel.pixels_TFFC
    map_HW = predictor.activations(torch.from_numpy(whole), [layer])["conv1"].reshape(layer.shape)[0]
    assert channel.activation_T[0] == pytest.approx(map_HW.max(), rel=1e-5)
    assert (map_HW > 0).mean() > 0.8


def test_frames_are_fields_that_lie_inside_the_image() -> None:
    predictor = predictor_of("alexnet_2012", input_size=224)
    layers = {layer.name: layer for layer in find_layers(predictor.model, ["conv1", "conv5", "pool5", "fc6"])}
    # A unit of conv5 sees 163 pixels, 16 from the next: of 13 the middle one begins at 6 * 16 - 64.
    frame = frame_of(predictor, layers["conv5"])
    assert (frame.top, frame.left, frame.side, frame.y, frame.x) == (32, 32, 163, 6, 6)
    assert frame_of(predictor, layers["conv1"]).side == 11
    assert frame_of(predictor, layers["conv1"], "channel").whole
    assert frame_of(predictor, layers["fc6"]).side == 224
    assert frame_of(predictor_of("cifar_13pct"), find_layers(create_model("cifar_13pct"), ["conv1"])[0]).whole


def test_a_channel_that_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match="conv2 has no channel 8; its channels are 0 to 7"):
        optimum(predictor_of("alexnet_2012"), "conv2", 8)


# The probe -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> PackedSet:
    """Six pictures of noise in two classes."""
    root, random = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for split, name, number in ((s, n, i) for s in ("train", "val") for n in ("猫", "狗") for i in range(3)):
        (root / split / name).mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 255, (71, 71, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return prepare(root, tmp_path_factory.mktemp("packed") / "set", size=71, workers=1)


def saved(folder: Path, predictor: Predictor) -> str:
    save_model_folder(folder, predictor.model, predictor.name, predictor.preprocessing, predictor.classes)
    return str(folder)


def test_the_probe_sets_images_beside_crops_and_says_which_units_are_silent(
    tmp_path: Path, packed: PackedSet, capsys: pytest.CaptureFixture[str]
) -> None:
    predictor = predictor_of("alexnet_2012")
    with torch.no_grad():
        predictor.model.get_parameter("conv2.bias")[5] = -1e4
    model, out = saved(tmp_path / "model", predictor), tmp_path / "out"
    arguments = ["--layer", "conv1", "conv2", "--channels", "1-2", "5", "--data", str(packed.path), "--out", str(out)]
    assert command(["optimal", model, *arguments]) == 0
    said = capsys.readouterr().out
    document = json.loads((out / "optimal.json").read_text())
    first, second = document["layers"]
    assert [row["channel"] for row in second["channels"]] == [1, 2, 5]
    assert [row["tower"] for row in second["channels"]] == [0, 0, 1]
    assert second["silent"] == [5]
    assert "conv2: no image was found for which these are above 0: channel 5" in said
    best = [row["activations"][0] for row in first["channels"]]
    assert first["sum"] == document["summary"]["conv1: sum of activations"] == pytest.approx(sum(best))
    split = packed.split("val")
    for row, patches in zip(first["channels"], top_patches(predictor, split, "conv1", [1, 2, 5], CROPS), strict=True):
        assert [crop["activation"] for crop in row["crops"]] == [
            pytest.approx(patch.activation, rel=1e-5) for patch in patches.patches
        ]
    assert first["above_crops"] == sum(
        a > row["crops"][0]["activation"] for a, row in zip(best, first["channels"], strict=True)
    )
    assert np.load(out / "optimal-conv1.npy").shape == (3, 2, 11, 11, 3)
    assert {file.name for file in out.glob("*.png")} == {"optimal-conv1.png", "optimal-conv2.png"}


def test_a_model_folder_without_data_has_a_sheet_without_crops(tmp_path: Path) -> None:
    predictor = predictor_of("lenet", num_classes=3)
    predictor = replace(predictor, classes=("猫", "dog", "1"))
    subject = Subject(
        model=saved(tmp_path / "model", predictor), machine=Machine(device=torch.device("cpu"), quiet=True)
    )
    finding = measure(subject, Settings(layer=("output",), channels=("猫", "2"), starts=1))
    (layer,) = finding.body["layers"]
    assert [(row["channel"], row["name"], row["crops"]) for row in layer["channels"]] == [
        (0, "猫", None),
        (2, "1", None),
    ]
    assert "--data adds them" in finding.lines[-1]


def test_towers_stand_side_by_side() -> None:
    tile = Tile(np.zeros((5, 5, 3), np.uint8), (0, 0, 5, 5), 1.0)
    rows = [Row("channel 0", [tile, tile], [tile])] * 3
    one, two = draw_optimal([rows], 5, 5, title="one"), draw_optimal([rows, rows[:1]], 5, 5, title="two")
    assert [len(axes.images) for axes in two.axes] == [9, 3]
    assert [axes.get_title(loc="left") for axes in two.axes] == ["tower 1", "tower 2"]
    assert two.get_figwidth() == pytest.approx(2 * one.get_figwidth())


def test_channels_by_number_range_class_and_tower() -> None:
    predictor = predictor_of("alexnet_2012")
    conv2, fc8 = find_layers(predictor.model, ["conv2", "fc8"])
    assert named_channels(predictor, conv2, ()) == [0, 1, 2, 3, 4, 5, 6, 7]
    wide = replace(conv2, shape=(256, 27, 27))
    assert named_channels(predictor, wide, ()) == [0, 1, 2, 3, 128, 129, 130, 131]
    assert named_channels(predictor, fc8, ()) == [0, 1, 2, 3]
    assert named_channels(predictor, conv2, ["3-5", "1", "4"]) == [3, 4, 5, 1]
    assert named_channels(predictor, fc8, ["class 2", "0"]) == [2, 0]
    for names, words in (
        ("8", "channels 0 to 7"),
        ("5-3", "upwards"),
        ("-1", "no such channel"),
        ("class 2", "last layer"),
    ):
        with pytest.raises(UsageError, match=words):
            named_channels(predictor, conv2, [names])
    with pytest.raises(UsageError, match="names of classes"):
        named_channels(predictor, fc8, ["cat"])
    with pytest.raises(ValueError, match=r"Settings.starts is 0"):
        Settings(starts=0)


@pytest.mark.long
@pytest.mark.skipif(TRUNK is None, reason="ALEXNET_TRUNK names no model folder with the trained convolutions of 2014")
def test_trained_units_answer_more_to_their_image_than_to_any_crop(packed: PackedSet) -> None:
    predictor = load(str(TRUNK))
    for name in ("conv2", "conv3"):
        (layer,) = find_layers(predictor.model, [name])
        crops = top_patches(predictor, packed.split("val"), name, [0, 1], 1)
        for found, best in zip(optimal_images(predictor, layer, (0, 1), starts=1), crops, strict=True):
            assert found.activation_T[0] > 1.5 * best.patches[0].activation
