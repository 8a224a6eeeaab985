"""The translation into ONNX: onnxruntime computes what the network does, for every kind of module."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from alexnet.core.preprocessing import Preprocessing
from alexnet.evaluation.predict import Predictor
from alexnet.models import create_model, default_preprocessing
from alexnet.models.layers import ACTIVATIONS

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
ort = pytest.importorskip("onnxruntime", reason="needs the extra onnx")

from alexnet.interop.onnx_graph import onnx_model  # noqa: E402

SMALL = {
    "input_size": 79,
    "conv_channels": (8, 8, 8, 8, 8),
    "fc_units": (16, 16),
    "num_classes": 7,
    "init": "he",
}
LEFT_OUT = {"conv_channels": (8, 8, 0, 8, 8), "fc_units": (0, 16)}
NETWORKS = {
    "alexnet_2012": {},
    "alexnet_2012_code": {},
    "alexnet_caffe": {"lrn_k": 2.0},
    "alexnet_owt": {},
    "zfnet": {},
}
VARIANTS = {
    **{name: (name, fields) for name, fields in NETWORKS.items()},
    **{f"activation {name}": ("alexnet_2012", {"activation": name}) for name in ACTIVATIONS if name != "relu"},
    **{f"normalization {name}": ("alexnet_owt", {"normalization": name}) for name in ("batch", "layer", "group")},
    "average pooling, rounded up": ("alexnet_2012", {"pooling": "average", "pool_ceil": True}),
    "mean over the maps": ("alexnet_2012", {"head": "global_average"}),
    "fully connected towers": ("alexnet_2012", {"joined": ("conv3", "fc6"), "normalization": "lrn"}),
    "kernels of each place": ("alexnet_2012", {"unshared": ("conv4",)}),
    "layers left out": ("alexnet_2012", LEFT_OUT),
}
OTHERS = ("lenet", "cifar_13pct", "cifar_11pct", "cifar_18pct")


def predictor_of(model: nn.Module, **fields: object) -> Predictor:
    model.eval()
    config = model.config
    preprocessing = Preprocessing(
        resize=config.input_size, crop=config.input_size, channels=config.in_channels, mean="none", **fields
    )
    classes = tuple(f"class {k}" for k in range(config.num_classes))
    return Predictor(model.name, model, preprocessing, classes, None, torch.device("cpu"))


def answers(made: object, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


@pytest.mark.parametrize("variant", [*VARIANTS, *OTHERS])
def test_the_graph_computes_what_the_network_does(variant):
    torch.manual_seed(0)
    name, fields = VARIANTS.get(variant, (variant, None))
    model = create_model(name) if fields is None else create_model(name, **SMALL | fields)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d | nn.GroupNorm | nn.PReLU):
            for tensor in norm.state_dict().values():
                if tensor.is_floating_point():
                    tensor.uniform_(0.5, 2)
    config = model.config
    x_BCHW = 40 * torch.randn(3, config.in_channels, config.input_size, config.input_size)
    made = onnx_model(predictor_of(model))
    with torch.inference_mode():
        expected = model.eval()(x_BCHW)
    (found,) = answers(made, {"input": x_BCHW.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    (one,) = answers(made, {"input": x_BCHW[:1].numpy()})
    np.testing.assert_allclose(one, found[:1], rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_normalization_is_onnx_s_own_operator_with_alpha_of_the_mean():
    # §3.3: alpha 1e-4 multiplies the sum over 5 channels; ONNX divides its alpha by their number: 5e-4.
    made = onnx_model(predictor_of(create_model("alexnet_2012", **SMALL)))
    norms = [node for node in made.graph.node if node.op_type == "LRN"]
    assert [node.name for node in norms] == ["stage1.norm1/norm", "stage2.norm2/norm"]
    found = {a.name: onnx.helper.get_attribute_value(a) for a in norms[0].attribute}
    assert found == {"size": 5, "alpha": pytest.approx(5e-4), "beta": 0.75, "bias": 2.0}


def test_the_preprocessing_in_the_graph_answers_a_photograph_with_names():
    model = create_model("alexnet_owt", **SMALL)
    usual = default_preprocessing("alexnet_owt")
    predictor = predictor_of(model)
    predictor = Predictor(
        model.name,
        model,
        Preprocessing(
            resize=90, crop=79, mean="channel", channel_mean=usual.channel_mean, std=usual.std, channel_order="bgr"
        ),
        tuple("αβγδεζη"),
        None,
        torch.device("cpu"),
    )
    random = np.random.default_rng(0)
    pixels_HWC = random.integers(0, 256, (4, 6, 3), dtype=np.uint8).repeat(25, 0).repeat(25, 1)
    names, probabilities, logits = answers(onnx_model(predictor, with_preprocessing=True), {"pixels": pixels_HWC[None]})
    ours = predictor.predict(pixels_HWC).answers
    assert names[0].tolist() == [answer.name for answer in ours]
    np.testing.assert_allclose(probabilities[0], [answer.probability for answer in ours], atol=2e-3)
    assert logits.shape == (1, 7)
