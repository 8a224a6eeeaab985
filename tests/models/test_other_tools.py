"""What other programs do with a network: trace it, take gradients of single images, write it as ONNX, copy it."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from alexnet.core.rng import DropoutDraw
from alexnet.models import create_model, list_models, model_config
from alexnet.models.lrn import LocalResponseNorm, MapResponseNorm, written_out

NAMES = list_models()
ONNX_NAMES = ["alexnet_2012", "alexnet_2012_code", "caffenet", "alexnet_owt", "cifar_11pct", "cifar_18pct", "lenet"]


def small(name: str, **fields: Any) -> nn.Module:
    """A network with few units, whose logits differ from image to image."""
    config = model_config(name)
    if hasattr(config, "fc_units"):
        few = {"input_size": 99, "conv_channels": (8,) * len(config.conv_channels), "fc_units": (16, 16), "init": "he"}
        return create_model(name, **few, num_classes=5, **fields)
    model = create_model(name, num_classes=5, **fields)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(10)
    return model


def pixels(model: nn.Module, batch: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    c, generator = model.config, torch.Generator().manual_seed(5)
    return torch.randn(batch, c.in_channels, c.input_size, c.input_size, generator=generator, dtype=dtype) * 3


def pickled(model: nn.Module) -> nn.Module:
    """What comes out of a pickle that the network was put into."""
    return pickle.loads(pickle.dumps(model))  # type: ignore[no-any-return]  # noqa: S301


copied = copy.deepcopy


# Tracing --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_traced_network_gives_the_same_bytes(name: str):
    model = small(name).eval()
    traced = torch.fx.symbolic_trace(model)
    with torch.no_grad():
        assert torch.equal(traced(pixels(model)), model(pixels(model)))


@pytest.mark.parametrize("training", [False, True])
def test_a_traced_network_can_be_copied_and_takes_a_draw(training: bool):
    model = small("alexnet_2012").train(training)
    traced, draw = torch.fx.symbolic_trace(model), DropoutDraw(seed=0, epoch=0, image_B=np.arange(3))
    x_BCHW, results = pixels(model).contiguous(memory_format=torch.channels_last), []
    for network in (model, traced, copied(traced), pickled(traced)):
        torch.manual_seed(0)  # of dropout without a draw
        results.append(torch.stack([network(x_BCHW), network(x_BCHW, draw)]))
    assert all(torch.equal(result, results[0]) for result in results[1:])


def test_a_traced_network_without_joined_layers_gives_the_same_bytes():
    model = small("alexnet_2012", joined=(), unshared=("conv3",)).eval()  # TowerLinear and LocalConv2d
    assert torch.equal(torch.fx.symbolic_trace(model)(pixels(model)), model(pixels(model)))


class ByModule(torch.fx.Tracer):
    """A tracer as extractors of features have it: which node is the result of which module."""

    def __init__(self) -> None:
        super().__init__()
        self.results: dict[str, torch.fx.Node] = {}

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        result = super().call_module(m, forward, args, kwargs)
        self.results[self.path_of_module(m)] = result.node
        return result


def test_an_extractor_on_the_traced_graph_gives_what_the_modules_give():
    model, tracer, found = small("alexnet_2012").eval(), ByModule(), {}
    layers = ["conv1", "stage1", "conv2", "stage5", "fc6"]
    for layer in layers:
        model.get_submodule(layer).register_forward_hook(lambda m, args, y, layer=layer: found.update({layer: y}))
    graph = tracer.trace(copied(model))
    graph.output_node().args = (tuple(tracer.results[layer] for layer in layers),)
    extractor = torch.fx.GraphModule(model, graph)
    extractor.graph.eliminate_dead_code()
    extractor.recompile()
    model(pixels(model))
    assert all(torch.equal(y, found[layer]) for layer, y in zip(layers, extractor(pixels(model)), strict=True))
    assert "fc8" not in extractor.code


# Gradients of single images -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "channels_last"),
    [
        ("alexnet_2012", False),
        ("alexnet_2012", True),
        ("alexnet_2012_code", False),
        ("lenet", False),
        ("cifar_13pct", False),
    ],
)
def test_gradients_of_single_images_are_those_of_a_loop(name: str, channels_last: bool):
    model = small(name).double().eval()
    x_BCHW, label_B = pixels(model, dtype=torch.float64), torch.tensor([0, 3, 1])
    if channels_last:
        x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
    parameters = {key: parameter.detach() for key, parameter in model.named_parameters()}

    def loss(parameters: dict[str, Tensor], x_CHW: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, parameters, (x_CHW[None],)), label[None])

    together = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, x_BCHW, label_B)
    for i in range(len(x_BCHW)):
        model.zero_grad()
        F.cross_entropy(model(x_BCHW[i : i + 1]), label_B[i : i + 1]).backward()
        for key, parameter in model.named_parameters():
            torch.testing.assert_close(together[key][i], parameter.grad, rtol=1e-9, atol=1e-12)


def test_networks_of_several_seeds_answer_in_one_call():
    models = [small("alexnet_2012", seed=seed).eval() for seed in range(3)]
    parameters, buffers = stack_module_state(models)
    x_BCHW = pixels(models[0], 8)

    def answer(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        return functional_call(models[0], (parameters, buffers), (x_BCHW,))

    with torch.no_grad():
        together, alone = vmap(answer)(parameters, buffers), torch.stack([model(x_BCHW) for model in models])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "norm", [LocalResponseNorm(alpha=0.3, towers=2, relu=True), MapResponseNorm(size=3, alpha=2.0)]
)
@pytest.mark.parametrize("dims", [(0, 0), (2, 1), (0, None), (None, 3)])
def test_normalization_over_another_dimension_is_that_of_more_images(norm: nn.Module, dims: tuple[int | None, ...]):
    generator = torch.Generator().manual_seed(1)
    x, g = (
        torch.randn((2, 4, 3, 5) if dim is None else (*(2, 4, 3, 5)[:dim], 3, *(2, 4, 3, 5)[dim:]), generator=generator)
        for dim in dims
    )

    def gradient(function: Any) -> Any:
        return lambda x, g: torch.func.vjp(function, x)[1](g)[0]

    ours = vmap(gradient(norm), in_dims=dims)(x, g)
    formula = vmap(gradient(lambda x: written_out(x, norm.window)), in_dims=dims)(x, g)
    torch.testing.assert_close(ours, formula, rtol=1e-5, atol=1e-6)


# ONNX -----------------------------------------------------------------------------------------------------------------


def answers(content: bytes, x_BCHW: Tensor) -> Tensor:
    """What onnxruntime makes of a batch."""
    session = pytest.importorskip("onnxruntime").InferenceSession(content)
    (logits_BK,) = session.run(None, {session.get_inputs()[0].name: x_BCHW.numpy()})
    return torch.from_numpy(logits_BK)


def operators(content: bytes) -> list[str]:
    onnx = pytest.importorskip("onnx")
    program = onnx.load_from_string(content)
    onnx.checker.check_model(program, full_check=True)
    return [node.op_type for node in program.graph.node]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The feature will be removed:UserWarning")
@pytest.mark.parametrize("opset", [13, None])
@pytest.mark.parametrize("name", ONNX_NAMES)
def test_onnx_by_torchscript_answers_as_the_network(name: str, opset: int | None):
    pytest.importorskip("onnx", reason="onnx is not installed")
    model, file = small(name).eval(), io.BytesIO()
    batch = {"images": {0: "batch"}}
    torch.onnx.export(
        model, (pixels(model),), file, dynamo=False, opset_version=opset, input_names=["images"], dynamic_axes=batch
    )
    norms = {"alexnet_2012": 4, "alexnet_2012_code": 4, "caffenet": 2, "cifar_11pct": 2}  # one in each of two towers
    assert operators(file.getvalue()).count("LRN") == norms.get(name, 0)
    x_BCHW = pixels(model, 5)
    with torch.no_grad():
        torch.testing.assert_close(answers(file.getvalue(), x_BCHW), model(x_BCHW), rtol=1e-4, atol=1e-4)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # of the exporter
@pytest.mark.parametrize("name", ONNX_NAMES)
def test_onnx_by_torch_export_answers_as_the_network(name: str):
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    model, file = small(name).eval(), io.BytesIO()
    program = torch.onnx.export(model, (pixels(model),), dynamo=True, dynamic_shapes=({0: "batch"},), verbose=False)
    program.save(file)
    norms = {"alexnet_2012": 4, "alexnet_2012_code": 4, "caffenet": 2, "cifar_11pct": 2}
    assert operators(file.getvalue()).count("LRN") == norms.get(name, 0)
    x_BCHW = pixels(model, 5)
    with torch.no_grad():
        torch.testing.assert_close(answers(file.getvalue(), x_BCHW), model(x_BCHW), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning")
def test_a_network_traced_by_torchscript_needs_nothing_of_ours():
    model = small("alexnet_2012").eval()
    traced = torch.jit.trace(model, pixels(model))
    assert "alexnet::" not in str(traced.inlined_graph)
    torch.testing.assert_close(traced(pixels(model, 5)), model(pixels(model, 5)), rtol=1e-4, atol=1e-5)


# Copies ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["alexnet_2012", "alexnet_2012_code", "lenet", "cifar_11pct"])
def test_copies_are_equal_and_of_their_own(name: str):
    model = small(name)
    x_BCHW = pixels(model, 8)
    for other in (copied(model), pickled(model)):
        assert other.config == model.config
        assert list(other.state_dict()) == list(model.state_dict())
        for training in (False, True):
            results = []
            for network in (model.train(training), other.train(training)):
                torch.manual_seed(3)
                results.append(network(x_BCHW))
            assert torch.equal(results[0], results[1])
        with torch.no_grad():
            assert torch.equal(other.eval()(x_BCHW), model.eval()(x_BCHW))
            next(other.parameters()).add_(1)
            assert not torch.equal(next(other.parameters()), next(model.parameters()))
