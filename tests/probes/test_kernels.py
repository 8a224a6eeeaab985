"""The kernels of the first layer, as a report shows them, and what the second would look for if all were linear."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from alexnet.cli.probe import probe
from alexnet.core.errors import AlexNetError, UsageError
from alexnet.core.preprocessing import Preprocessing
from alexnet.models import create_model, default_preprocessing
from alexnet.models.folder import save_model_folder
from alexnet.probes.kernels import conv1_kernels, conv2_patterns, kernels_of, read_conv1, save_kernels
from alexnet.report.pictures.kernels import columns_of, draw_kernels, shaded, show_tiles

RGB = Preprocessing(mean="none")
BGR = Preprocessing(mean="none", channel_order="bgr")
LINEAR = {
    "stages": ("pool", "", "", "", "pool"),
    "pooling": "average",
    "pool_size": 1,  # a pooling that only steps
    "conv_channels": (8, 6, 4, 4, 4),
    "fc_units": (2, 2),
    "num_classes": 2,
}
"""AlexNet's geometry up to conv2 without a nonlinearity, and with means over one position for its maxima."""


def run(arguments: list[str]) -> int:
    return probe(["kernels", *arguments])


def test_kernels_are_the_weights_of_conv1_in_rgb_order() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 5), nn.Conv2d(4, 8, 3))
    weight = model[0].weight.detach().numpy()  # type: ignore[union-attr]
    assert (conv1_kernels(model, RGB) == weight).all()
    assert (conv1_kernels(model, BGR) == weight[:, [2, 1, 0]]).all()


@pytest.mark.parametrize("preprocessing", [RGB, BGR])
def test_kernels_are_a_copy(preprocessing: Preprocessing) -> None:
    model = nn.Conv2d(1, 2, 3)
    before = model.weight.detach().clone()
    conv1_kernels(model, preprocessing)[:] = 7
    assert torch.equal(model.weight, before)


def test_a_network_without_convolutions_has_none() -> None:
    with pytest.raises(AlexNetError, match="no convolution"):
        conv1_kernels(nn.Linear(2, 2), RGB)
    with pytest.raises(AlexNetError, match="no second convolution"):
        conv2_patterns(nn.Conv2d(3, 2, 3), RGB)


@pytest.mark.parametrize(
    ("name", "shape", "towers"),
    [("alexnet_2012", (96, 3, 11, 11), 2), ("alexnet_2012_one_tower", (48, 3, 11, 11), 1), ("lenet", (6, 1, 5, 5), 1)],
)
def test_the_files_of_a_run(tmp_path: Path, name: str, shape: tuple[int, ...], towers: int) -> None:
    narrow = {} if name == "lenet" else {"fc_units": (2, 2), "num_classes": 2}  # 60 million weights are not needed here
    save_kernels(tmp_path, create_model(name, **narrow), RGB)
    stored = np.load(tmp_path / "conv1.npy", allow_pickle=False)
    assert (stored.shape, stored.dtype) == (shape, np.float32)
    about = json.loads((tmp_path / "kernels.json").read_text())
    assert about == {"layer": "conv1", "towers": towers, "channels": shape[1]}


@pytest.mark.parametrize("joined", [("conv3", "fc6", "fc7"), ("conv2", "conv3", "fc6", "fc7")])
def test_patterns_of_conv2_are_the_gradients_of_a_linear_network(joined: tuple[str, ...]) -> None:
    # In a linear network the pattern of a unit is its gradient with respect to the pixels.
    model = create_model("alexnet_2012", **LINEAR, joined=joined)
    patterns_KCRS = conv2_patterns(model, BGR)
    assert patterns_KCRS.shape == (6, 3, 43, 43)  # 4 steps of 8 pixels, and 11
    x_BCHW = torch.rand(1, 3, 224, 224, requires_grad=True)
    conv2_BCHW = model.conv2(model.stage1(model.conv1(x_BCHW)))  # type: ignore[operator]
    for k in range(6):
        (gradient_BCHW,) = torch.autograd.grad(conv2_BCHW[0, k, 10, 4], x_BCHW, retain_graph=True)
        seen_CRS = gradient_BCHW[0, :, 64 : 64 + 43, 16 : 16 + 43]  # 8 * 10 - 16, 8 * 4 - 16
        np.testing.assert_allclose(patterns_KCRS[k], seen_CRS.flip(0).numpy(), atol=1e-9)
        assert torch.equal(gradient_BCHW.count_nonzero(), seen_CRS.count_nonzero())
    assert np.abs(patterns_KCRS).max() > 1e-4


def test_only_the_first_two_convolutions_have_pictures() -> None:
    model = create_model("lenet")
    assert kernels_of(model, RGB).layer == "c1"
    assert kernels_of(model, RGB, "c3").kernels_KCRS.shape == (16, 1, 13, 13)  # 4 steps of 2 pixels, and 5
    with pytest.raises(UsageError, match="'c5' cannot be drawn in pixels, only those of c1 and c3"):
        kernels_of(model, RGB, "c5")


# Files of weights -----------------------------------------------------------------------------------------------------

WEIGHTS = np.random.default_rng(0).standard_normal((6, 3, 5, 4)).astype(np.float32)


def test_conv1_is_read_from_arrays_of_several_kinds(tmp_path: Path) -> None:
    np.save(tmp_path / "bare.npy", WEIGHTS)
    np.savez(tmp_path / "caffe.npz", conv1_weight=WEIGHTS, conv1_bias=WEIGHTS[:, 0, 0, 0])
    tensors = {"features.0.weight": torch.from_numpy(WEIGHTS), "features.0.bias": torch.zeros(6)}
    safetensors.torch.save_file(tensors, tmp_path / "torchvision.safetensors")
    for name in ("bare.npy", "caffe.npz", "torchvision.safetensors"):
        kernels = read_conv1(tmp_path / name, num_towers=2)
        assert kernels.num_towers == 2
        assert (kernels.kernels_KCRS == WEIGHTS).all()
        assert (read_conv1(tmp_path / name, 1, "bgr").kernels_KCRS == WEIGHTS[:, [2, 1, 0]]).all()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.npy", None, "No such file"),
        ("text.npy", b"hello", "not a readable NumPy file"),
        ("cut.npz", b"PK\x03\x04 and no more", "not a readable NumPy file"),
        ("cut.safetensors", b"123", "not a sound safetensors file"),
        ("other.npz", {"fc_weight": WEIGHTS}, "holds no kernels of conv1, no array is called conv1_weight or"),
        ("flat.npy", WEIGHTS[0], r"conv1_weight is float32 \(3, 5, 4\); kernels are floats"),
        ("deep.npy", WEIGHTS.reshape(6, 6, 5, 2), "1 or 3 channels"),
        ("whole.npy", np.ones((2, 3, 4, 4), dtype=np.int64), "int64"),
        ("nan.npy", WEIGHTS * np.nan, "not finite"),
        ("pickle.npy", np.array([{}], dtype=object), "not a readable NumPy file"),
    ],
)
def test_a_file_that_holds_no_kernels_is_refused(tmp_path: Path, name: str, content: object, message: str) -> None:
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif isinstance(content, dict):
        np.savez(tmp_path / name, **content)
    elif content is not None:
        np.save(tmp_path / name, content)  # type: ignore[arg-type]
    with pytest.raises(AlexNetError, match=message):
        read_conv1(tmp_path / name)


def test_towers_must_divide_the_kernels(tmp_path: Path) -> None:
    np.save(tmp_path / "odd.npy", WEIGHTS[:5])
    with pytest.raises(UsageError, match="5 kernels cannot be the kernels of 2 equal towers"):
        read_conv1(tmp_path / "odd.npy", num_towers=2)


# Pictures -------------------------------------------------------------------------------------------------------------


def test_shades_on_their_own_scale_and_on_one_for_all() -> None:
    kernels_KCRS = np.zeros((2, 3, 1, 2))
    kernels_KCRS[0, :, 0, 0] = (0.5, -0.5, 0.25)
    kernels_KCRS[1, :, 0, 0] = (1.0, -0.5, 0.0)
    assert shaded(kernels_KCRS)[:, 0].tolist() == [[[255, 0, 191], [128] * 3], [[255, 64, 128], [128] * 3]]
    assert shaded(kernels_KCRS, "common")[:, 0].tolist() == [[[191, 64, 159], [128] * 3], [[255, 64, 128], [128] * 3]]
    assert (shaded(np.zeros((1, 1, 2, 2))) == 128).all()


def test_a_mosaic_has_every_tile_in_its_place() -> None:
    tiles_KRSC = np.broadcast_to(np.arange(5, dtype=np.uint8)[:, None, None, None], (5, 2, 3, 3))
    axes = Figure().add_subplot()
    show_tiles(axes, tiles_KRSC, 3)
    assert (axes.get_xlim(), axes.get_ylim()) == ((0, 11), (5, 0))
    for k, image in enumerate(axes.get_images()):
        top, left = 3 * (k // 3), 4 * (k % 3)
        assert tuple(image.get_extent()) == (left, left + 3, top + 2, top)
        assert (np.asarray(image.get_array()) == k).all()


@pytest.mark.parametrize(("num", "columns"), [(96, 16), (48, 16), (64, 16), (40, 10), (5, 5), (17, 16)])
def test_rows_are_full_where_they_can_be(num: int, columns: int) -> None:
    assert columns_of(num) == columns


def test_the_picture_has_a_panel_for_each_tower_and_says_the_scale() -> None:
    figure = draw_kernels(np.ones((96, 3, 11, 11)), 2, layer="conv1", how="weights of conv1", scale="common")
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "tower 1: kernels 0 to 47",
        "tower 2: kernels 48 to 95",
    ]
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == ["48", "64", "80"]
    assert "one scale for all" in figure.get_suptitle()
    assert len(figure.axes[0].get_images()) == 48
    assert (figure.axes[0].get_xlim(), figure.axes[0].get_ylim()) == ((0, 16 * 12 - 1), (3 * 12 - 1, 0))


# Command --------------------------------------------------------------------------------------------------------------


def test_the_command_draws_a_model_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model_folder(
        tmp_path / "model", create_model("lenet"), "lenet", default_preprocessing("lenet"), list("0123456789")
    )
    out = tmp_path / "out"
    assert run([str(tmp_path / "model"), "--out", str(out), "--scale", "common"]) == 0
    assert "c1: 6 kernels of 5 x 5 pixels" in capsys.readouterr().out
    document = json.loads((out / "kernels.json").read_text())
    assert (document["probe"], document["n"], document["shape"]) == ("kernels", 6, [6, 1, 5, 5])
    assert document["protocol"]["scale"] == "common"
    weight = create_model("lenet").get_parameter("c1.weight")
    assert document["largest_weight"] == pytest.approx(weight.abs().max().item(), rel=1e-6)
    first = (out / "kernels.png").read_bytes()
    assert run([str(tmp_path / "model"), "--out", str(out), "--scale", "common", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == document == json.loads((out / "kernels.json").read_text())
    assert (out / "kernels.png").read_bytes() == first
    with Image.open(out / "kernels.png") as image:
        assert image.width == 1500


def test_options_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", WEIGHTS)
    with pytest.raises(UsageError, match="name a folder with --out"):
        run([str(tmp_path / "w.npy")])
    with pytest.raises(UsageError, match="a file of weights is read for conv1 only"):
        run([str(tmp_path / "w.npy"), "--layer", "conv2", "--out", str(tmp_path / "out")])
    with pytest.raises(UsageError, match="--towers is for a file of weights"):
        run([str(tmp_path), "--towers", "2", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("shape", [(0, 3, 5, 5), (4, 3, 0, 0), (2, 3, 65, 65), (4097, 3, 1, 1)])
def test_a_file_of_kernels_has_a_bearable_size(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "k.npy", np.ones(shape, np.float32))
    with pytest.raises(AlexNetError, match="it must be 1 to 4,096 kernels of 1 to 64 pixels"):
        read_conv1(tmp_path / "k.npy")


def test_kernels_beyond_float32_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "k.npy", np.full((2, 3, 5, 5), 1e300))
    with pytest.raises(AlexNetError, match="not finite as float32"):
        read_conv1(tmp_path / "k.npy")
