"""What a unit wants to see: against kernels, against the network's own answer to the pixels, and against real crops."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from alexnet.core.errors import UsageError
from alexnet.core.preprocessing import Preprocessing
from alexnet.evaluation.layers import find_layers
from alexnet.evaluation.predict import Predictor
from alexnet.models import create_model
from alexnet.probes.optimal import Optimum, frame_of, optimal_images

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
    return optimal_images(predictor, found, channel, **({"steps": 12, "starts": 2} | how))


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
    unit, channel = (optimal_images(predictor, layer, 0, aim=aim, steps=24, starts=1) for aim in ("unit", "channel"))
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
