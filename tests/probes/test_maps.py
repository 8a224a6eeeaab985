"""Maps of an image and the crops that excite a channel most: against a forward pass of everything, and on planted marks."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from alexnet.cli.probe import probe as command
from alexnet.core.device import Machine
from alexnet.core.errors import AlexNetError, ImageError, UsageError
from alexnet.core.preprocessing import Preprocessing
from alexnet.data.packed import PackedSet
from alexnet.data.prepare import prepare
from alexnet.evaluation.finding import Finding
from alexnet.evaluation.layers import activations, find_layers, network_layers
from alexnet.evaluation.predict import Predictor, load
from alexnet.evaluation.subject import subject_of
from alexnet.models import create_model
from alexnet.models.folder import save_model_folder
from alexnet.probes import maps as maps_probe
from alexnet.probes.maps import ImageMaps, Settings, field_size, maps_of, measure, patch_pixels, top_patches
from alexnet.report.pictures.maps import OUTSIDE, TILE, Tile, draw_maps, draw_patches


def run(arguments: list[str]) -> int:
    return command(["maps", *arguments])


SIZE, CROP, MARGIN = 36, 28, 4
NUM = 11
MARK = np.array([[1, 0, 0, 0, 1], [0, 1, 0, 1, 0], [0, 0, 1, 0, 0], [0, 1, 0, 1, 0], [1, 0, 0, 0, 1]])
INPUT = Preprocessing(resize=SIZE, crop=CROP, mean="none", scale=1 / 255)

# Where an X of 5 x 5 pixels stands in each picture, in pixels of the network's view, and how bright it is.
MARKS = {i: (3 + 2 * i, 23 - 2 * i, 100 + 10 * i) for i in range(NUM - 1)}
MARKS[NUM - 1] = (-2, 25, 250)  # hangs over the corner of the view


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> PackedSet:
    """Eleven black pictures with a mark each, in two classes; three of noise to train on."""
    root = tmp_path_factory.mktemp("marks")
    random = np.random.default_rng(0)
    for label, name in enumerate(("even", "odd")):
        (root / "val" / name).mkdir(parents=True)
        (root / "train" / name).mkdir(parents=True)
        Image.fromarray(random.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)).save(root / "train" / name / "a.png")
        for i in range(label, NUM, 2):
            y, x, shade = MARKS[i]
            pixels = np.zeros((SIZE, SIZE, 3), dtype=np.uint8)
            pixels[y + MARGIN : y + MARGIN + 5, x + MARGIN : x + MARGIN + 5] = (MARK * shade)[..., None]
            Image.fromarray(pixels).save(root / "val" / name / f"{i:02}.png")
    return prepare(root, tmp_path_factory.mktemp("packed") / "set", size=SIZE, workers=1)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """LeNet for color; channel 0 of c1 looks for the mark, channel 1 never fires, channel 2 answers alike to all."""
    model = create_model("lenet", in_channels=3, num_classes=2, activation="relu", pooling="max").eval()
    with torch.no_grad():
        weight, bias = model.get_parameter("c1.weight"), model.get_parameter("c1.bias")
        weight[0] = torch.from_numpy(2.0 * MARK - 1)
        weight[1:3], bias[1], bias[2] = 0, -1, 0.5
    return Predictor("lenet", model, INPUT, ("even", "odd"), None, torch.device("cpu"))


def read_all(packed: PackedSet) -> tuple[NDArray[np.uint8], torch.Tensor]:
    """The views of all images as pixels, and as the network's input."""
    split = packed.split("val")
    view = split.read(np.arange(len(split)))[:, MARGIN : MARGIN + CROP, MARGIN : MARGIN + CROP]
    return view, torch.from_numpy(view).permute(0, 3, 1, 2) / 255


# Top patches ----------------------------------------------------------------------------------------------------------


def test_the_brightest_marks_are_found_where_they_are(packed: PackedSet, predictor: Predictor) -> None:
    split = packed.split("val")
    (found,) = top_patches(predictor, split, "c1", [0], 4)
    assert [Path(patch.path).stem for patch in found.patches] == ["09", "08", "07", "06"]  # 10 is cut by the border
    assert found.images_above_zero == NUM
    for patch in found.patches:
        y, x, shade = MARKS[int(Path(patch.path).stem)]
        assert (patch.y, patch.x) == (y + 2, x + 2)
        assert patch.view_box == (y, x, y + 5, x + 5)
        assert patch.stored_box == (y + MARGIN, x + MARGIN, y + 5 + MARGIN, x + 5 + MARGIN)
        assert patch.activation == pytest.approx(3 * 9 * shade / 255, rel=1e-5)  # three channels, nine points of the X
        assert patch.label == split.labels[patch.image] == int(Path(patch.path).stem) % 2
        assert patch.path == split.paths[patch.image]


def test_crops_are_the_pixels_of_the_field_cut_at_the_borders(packed: PackedSet, predictor: Predictor) -> None:
    split, (layer,) = packed.split("val"), find_layers(predictor.model, ["c1"])
    (found,) = top_patches(predictor, split, "c1", [0], NUM)
    view_NSSC, _ = read_all(packed)
    crops = patch_pixels(predictor, split, layer, found.patches)
    for patch, (pixels_HWC, place) in zip(found.patches, crops, strict=True):
        top, left, bottom, right = patch.view_box
        assert (pixels_HWC == view_NSSC[patch.image, top:bottom, left:right]).all()
        assert pixels_HWC.shape[:2] == (place[2] - place[0], place[3] - place[1])
    by_name = {Path(patch.path).stem: crop for patch, crop in zip(found.patches, crops, strict=True)}
    assert by_name["09"][1] == (0, 0, 5, 5)
    assert (by_name["09"][0][..., 0] == MARK * 190).all()
    # Nothing excites the channel more than the X whose upper and right ends are cut, seen from the unit at its middle.
    assert by_name["10"][1] == (2, 0, 5, 3)
    assert (by_name["10"][0][..., 0] == (MARK * 250)[2:, :3]).all()


@pytest.mark.parametrize("layer", ["pixels", "c1", "s2", "c3", "s4", "f6", "output"])
@pytest.mark.parametrize("batch_size", [1, 4, 128])
def test_patches_are_those_of_a_forward_pass_of_everything(
    packed: PackedSet, predictor: Predictor, layer: str, batch_size: int
) -> None:
    split, k = packed.split("val"), 5
    (about,) = find_layers(predictor.model, [layer])
    channels = list(range(0, about.shape[0], 2))[::-1]
    _, x_BCHW = read_all(packed)
    output = activations(predictor.model, x_BCHW, [layer])[layer].numpy()
    output_NCU = output.reshape(len(split), about.shape[0], -1)
    found = top_patches(predictor, split, layer, channels, k, batch_size=batch_size)
    assert [entry.channel for entry in found] == channels
    for entry in found:
        unit_NU = output_NCU[:, entry.channel]
        best_N = unit_NU.max(1)
        expected = np.sort(best_N)[::-1][:k]
        np.testing.assert_allclose([p.activation for p in entry.patches], expected, rtol=1e-5, atol=1e-6)
        assert entry.images_above_zero == (best_N > 0).sum()
        assert len({p.image for p in entry.patches}) == k
        for patch in entry.patches:
            at = patch.y * (about.shape[2] if len(about.shape) == 3 else 1) + patch.x
            assert unit_NU[patch.image, at] == pytest.approx(patch.activation, rel=1e-5, abs=1e-6)
            if about.field is None:
                assert patch.view_box == (0, 0, CROP, CROP)


def test_equal_images_stand_in_their_order_and_a_silent_channel_is_known(
    packed: PackedSet, predictor: Predictor
) -> None:
    silent, alike = top_patches(predictor, packed.split("val"), "c1", [1, 2], 3, batch_size=2)
    assert silent.images_above_zero == 0
    assert alike.images_above_zero == NUM
    for entry in (silent, alike):
        assert [patch.image for patch in entry.patches] == [0, 1, 2]
        assert all((patch.y, patch.x) == (0, 0) for patch in entry.patches)


def test_more_patches_than_images_are_as_many_as_there_are(packed: PackedSet, predictor: Predictor) -> None:
    (found,) = top_patches(predictor, packed.split("val"), "c1", [0], 100)
    assert len(found.patches) == NUM


def test_wrong_channels_layers_and_counts_are_refused(packed: PackedSet, predictor: Predictor) -> None:
    split = packed.split("val")
    with pytest.raises(UsageError, match="c1 has no channel 6; its channels are 0 to 5"):
        top_patches(predictor, split, "c1", [0, 6])
    with pytest.raises(UsageError, match="c1 has no channel -1"):
        top_patches(predictor, split, "c1", [-1])
    with pytest.raises(UsageError, match="no layer is called 'conv5'; the layers are pixels, c1"):
        top_patches(predictor, split, "conv5", [0])
    with pytest.raises(UsageError, match="the 0 best of 11 images"):
        top_patches(predictor, split, "c1", [0], 0)
    with pytest.raises(UsageError, match="0 channels"):
        top_patches(predictor, split, "c1", [])


def test_activations_that_are_not_finite_are_refused(packed: PackedSet) -> None:
    model = create_model("lenet", in_channels=3, num_classes=2).eval()
    model.get_parameter("f6.bias").data[0] = torch.nan
    broken = Predictor("lenet", model, INPUT, ("even", "odd"), None, torch.device("cpu"))
    with pytest.raises(AlexNetError, match="f6: activations are not finite"):
        top_patches(broken, packed.split("val"), "f6", [0])
    assert top_patches(broken, packed.split("val"), "c3", [0])


# Maps of an image -----------------------------------------------------------------------------------------------------


def test_maps_of_an_image_file(tmp_path: Path, predictor: Predictor) -> None:
    # A picture of another size is resized and cut as `predict` does it; this one has the right size already.
    pixels = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    view_SSC = pixels[MARGIN : MARGIN + CROP, MARGIN : MARGIN + CROP]
    x_BCHW = torch.from_numpy(view_SSC).permute(2, 0, 1)[None] / 255
    for layer in network_layers(predictor.model):
        maps = maps_of(predictor, tmp_path / "a.png", layer.name)
        assert (maps.view_SSC == view_SSC).all()
        expected = activations(predictor.model, x_BCHW, [layer.name])[layer.name][0].numpy()
        np.testing.assert_allclose(maps.activation_CHW, expected.reshape(maps.activation_CHW.shape), atol=1e-5)
        assert maps.activation_CHW.shape == (layer.shape if len(layer.shape) == 3 else (*layer.shape, 1, 1))


def test_strongest_channels_and_their_figures(predictor: Predictor) -> None:
    (layer,) = find_layers(predictor.model, ["c3"])
    activation_CHW = np.zeros((16, 10, 10), dtype=np.float32)
    activation_CHW[5, 3, 7], activation_CHW[9, 0, 0], activation_CHW[2, 1, 1] = 4, 6, 4
    activation_CHW[9, :, 9] = 1
    maps = ImageMaps(layer, np.zeros((CROP, CROP, 3), dtype=np.uint8), activation_CHW)
    assert maps.strongest(4) == [9, 2, 5, 0]
    about = maps.to_json()
    assert about[5] == {
        "channel": 5,
        "max": 4.0,
        "mean": pytest.approx(0.04),
        "share_above_zero": 0.01,
        "y": 3,
        "x": 7,
        "view_box": [4, 12, 18, 26],  # 14 pixels, 2 from the next, from -2 on
    }
    assert about[9]["share_above_zero"] == pytest.approx(0.11)


def test_an_image_that_cannot_be_read_is_refused(tmp_path: Path, predictor: Predictor) -> None:
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(ImageError, match="not an image"):
        maps_of(predictor, tmp_path / "a.png", "c1")
    with pytest.raises(ImageError, match="missing"):
        maps_of(predictor, tmp_path / "b.png", "c1")


def test_a_field_may_be_larger_than_the_image(predictor: Predictor) -> None:
    s4, f6 = find_layers(predictor.model, ["s4", "f6"])
    assert field_size(s4, INPUT) == 16  # 5, 6, 14, 16
    assert field_size(f6, INPUT) == CROP


# Pictures -------------------------------------------------------------------------------------------------------------


def test_the_picture_of_maps_has_a_panel_for_each_channel() -> None:
    activation_CHW = np.random.default_rng(0).random((12, 4, 4))
    figure = draw_maps(np.zeros((8, 8, 1), dtype=np.uint8), activation_CHW, [7, 3, 11], layer="conv5")
    assert "conv5: the 3 of 12 channels with the largest activations, 4 x 4 positions" in figure.get_suptitle()
    assert [axes.get_title() for axes in figure.axes[1:]] == [
        f"{channel}: {activation_CHW[channel].max():.3g}" for channel in (7, 3, 11)
    ]
    panel = figure.axes[2].get_images()[0]
    assert (np.asarray(panel.get_array()) == activation_CHW[3]).all()
    assert panel.get_clim() == (0, activation_CHW[3].max())


def test_signed_maps_are_drawn_around_zero_and_units_as_bars() -> None:
    signed_CHW = np.array([[[-2.0, 1.0]]])
    figure = draw_maps(np.zeros((8, 8, 3), dtype=np.uint8), signed_CHW, [0], layer="conv1")
    assert figure.axes[1].get_images()[0].get_clim() == (-2, 2)
    figure = draw_maps(np.zeros((8, 8, 3), dtype=np.uint8), np.arange(5.0)[:, None, None], [4, 3], layer="fc7")
    assert [bar.get_width() for bar in figure.axes[1].patches] == [4, 3]  # type: ignore[attr-defined]


def test_patches_stand_row_by_row_and_what_is_outside_is_grey() -> None:
    whole = Tile(np.full((4, 4, 3), 7, dtype=np.uint8), (0, 0, 4, 4), 2.5)
    cut = Tile(np.full((2, 4, 1), 9, dtype=np.uint8), (2, 0, 4, 4), 1.5)
    figure = draw_patches([("channel 5", [whole, cut]), ("channel 6", [cut])], 4, title="title")
    (axes,) = figure.axes
    step_y, step_x = TILE + 24, TILE + 6
    tiles = {
        (image.get_extent()[0], image.get_extent()[3]): np.asarray(image.get_array()) for image in axes.get_images()
    }
    assert tiles.keys() == {(0, 0), (step_x, 0), (0, step_y)}
    assert (tiles[0, 0] == 7).all()
    assert (tiles[step_x, 0][: TILE // 2] == OUTSIDE).all()
    assert (tiles[step_x, 0][TILE // 2 :] == 9).all()
    assert (tiles[0, step_y][TILE // 2 :] == 9).all()
    assert [text.get_text() for text in axes.texts] == ["channel 5", "2.5", "1.5", "channel 6", "1.5"]


# Command --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, predictor: Predictor) -> str:
    save_model_folder(tmp_path / "model", predictor.model, "lenet", INPUT, predictor.classes)
    return str(tmp_path / "model")


def test_the_command_draws_an_image_and_patches(
    tmp_path: Path, folder: str, packed: PackedSet, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (50, 40), (200, 30, 60)).save(tmp_path / "red.png")
    out = tmp_path / "out"
    arguments = [
        folder, "--layer", "c1", "--image", str(tmp_path / "red.png"), "--channels", "0", "1", "--top", "3", "--show", "4",
        "--data", str(packed.path), "--out", str(out),
    ]  # fmt: skip
    assert run(arguments) == 0
    printed = capsys.readouterr().out
    assert "c1: 6 x 28 x 28; a unit sees 5 x 5 pixels, 1 from the next, the first from -2 on" in printed
    assert "channel 0: above 0 in 11 of 11 images; most in val/odd/09.png" in printed
    assert "channel 1: above 0 in 0 of 11 images" in printed
    assert sorted(path.name for path in out.iterdir()) == [
        "maps-image.png",
        "maps-patches.png",
        "maps.json",
        "maps.npy",
    ]
    document = json.loads((out / "maps.json").read_text())
    assert (document["probe"], document["n"], document["settings"]["top"]) == ("maps", 11, 3)
    assert document["settings"]["layer"] == document["layer"] == "c1"
    assert document["data"]["split"] == "val"
    assert document["receptive_field"] == {"size": 5, "stride": 1, "offset": -2}
    assert [len(channel["patches"]) for channel in document["channels"]] == [3, 3]
    assert len(document["image"]["channels"]) == 6
    assert len(document["image"]["drawn"]) == 4
    assert np.load(out / "maps.npy").shape == (6, 28, 28)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert run([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == document
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def found(folder: str, **settings: Any) -> Finding:
    asked = Settings(**settings)
    return measure(subject_of(folder, Machine(device=torch.device("cpu"), workers=0, quiet=True), asked), asked)


def test_a_layer_is_looked_at_by_an_image_by_data_or_by_both(
    tmp_path: Path, folder: str, packed: PackedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (50, 40), (200, 30, 60)).save(tmp_path / "red.png")
    image, data = {"image": str(tmp_path / "red.png")}, {"data": str(packed.path)}
    alone = found(folder, layer="c1", **image)
    assert (alone.n, alone.subject["data"], list(alone.pictures)) == (0, None, ["maps-image.png"])
    assert "channels" not in alone.body
    monkeypatch.setattr(maps_probe, "STRONGEST", 2)
    strongest = found(folder, layer="c1", top=1, **data)
    assert (strongest.n, strongest.body["image"], list(strongest.pictures)) == (11, None, ["maps-patches.png"])
    assert strongest.lines[1] == "the 2 of 6 channels with the largest activations; --channels names others"
    most = [
        c["patches"][0]["activation"]
        for c in found(folder, layer="c1", top=1, channels=tuple(range(6)), **data).body["channels"]
    ]
    assert [c["channel"] for c in strongest.body["channels"]] == sorted(range(6), key=lambda c: -most[c])[:2]
    both = found(folder, layer="c1", channels=(3,), **image, **data)
    assert (both.n, list(both.pictures), list(both.arrays)) == (
        11,
        ["maps-image.png", "maps-patches.png"],
        ["maps.npy"],
    )


def test_what_makes_no_finding_is_refused(tmp_path: Path, folder: str) -> None:
    with pytest.raises(UsageError, match="no layer is called 'conv5'"):
        found(folder, layer="conv5")
    with pytest.raises(UsageError, match="a model folder does not say what it was trained on; add --data"):
        found(folder, layer="c1", channels=(0,))
    for name in ("show", "top"):
        with pytest.raises(UsageError, match=f"--{name} is 0; it must be at least 1"):
            run([folder, f"--{name}", "0", "--out", str(tmp_path / "out")])
    with pytest.raises(UsageError, match="name a folder with --out"):
        run([folder, "--layer", "c1", "--channels", "0"])
    assert not (tmp_path / "out").exists()


# CaffeNet -------------------------------------------------------------------------------------------------------------


def test_real_conv1_and_conv2_on_the_cat(tmp_path: Path, data_root: Path) -> None:
    weights_folder = data_root / "weights" / "caffenet-conv1-conv2"
    file = Path(__file__).parents[2] / "benchmarks" / "caffenet.py"
    spec = importlib.util.spec_from_file_location("caffenet", file)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.build(weights_folder, tmp_path / "caffenet")
    predictor = load(tmp_path / "caffenet")

    # The same from the files, by torch's operations alone: blue first, less the mean under the crop.
    with np.load(weights_folder / "caffenet_conv1_conv2.npz") as stored:
        weights = {name: torch.from_numpy(stored[name]) for name in stored.files}
    square_SSC = predictor.pixels(str(weights_folder / "cat.jpg")).astype(np.float64)
    x_CHW = square_SSC[:, :, ::-1].transpose(2, 0, 1) - np.load(weights_folder / "ilsvrc_2012_mean.npy")
    x_BCHW = torch.from_numpy(x_CHW[None, :, 14:241, 14:241]).float()
    conv1 = F.conv2d(x_BCHW, weights["conv1_weight"], weights["conv1_bias"], stride=4).relu()
    norm1 = torch.nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)(F.max_pool2d(conv1, 3, 2))
    conv2 = F.conv2d(norm1, weights["conv2_weight"], weights["conv2_bias"], padding=2, groups=2).relu()
    for layer, expected in (("conv1", conv1), ("conv2", conv2)):
        maps = maps_of(predictor, weights_folder / "cat.jpg", layer)
        assert np.abs(maps.activation_CHW - expected[0].numpy()).max() < 1e-4 * expected.max()
        assert maps.view_SSC.shape == (227, 227, 3)
    assert maps.activation_CHW.shape == (256, 27, 27)
    assert (maps.activation_CHW.max((1, 2)) > 0).sum() == 250
    assert maps.strongest(3) == [113, 151, 139]


def test_figures_stand_beside_pictures_of_the_same_look_alone(tmp_path: Path, folder: str, packed: PackedSet) -> None:
    out, image = tmp_path / "out", tmp_path / "image.png"
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(image)
    given = [folder, "--layer", "c1", "--out", str(out), "--device", "cpu"]
    assert run([*given, "--channels", "0", "--data", str(packed.path)]) == 0
    (out / "maps-mine.png").write_bytes(b"of another program")
    assert (out / "maps-patches.png").exists()
    assert run([*given, "--image", str(image)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["maps-image.png", "maps-mine.png", "maps.json", "maps.npy"]
