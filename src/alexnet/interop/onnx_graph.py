"""A network as an ONNX graph: one node or a few for each of its modules, named after it, local response normalization as the
operator LRN that ONNX has. With its preprocessing in the graph it reads pixels and answers with names.

Shape suffixes: B images, C channels, H rows, W columns, D units, L positions, O outputs, T towers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from alexnet import __version__
from alexnet.core.errors import UsageError, as_text
from alexnet.data.transforms import fit
from alexnet.evaluation.layers import leaves
from alexnet.evaluation.onnx_network import INPUT, LOGITS, MAX_ONNX_BYTES, PIXELS, require_onnx
from alexnet.evaluation.predict import Predictor
from alexnet.models.described import description
from alexnet.models.layers import Dropout, LocalConv2d, StridedConv2d, TowerLinear
from alexnet.models.lrn import LocalResponseNorm, MapResponseNorm
from alexnet.models.lrn.onnx import fields_of

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 18
"""The first that resizes with an antialiasing filter."""
IR_VERSION = 8
"""That of opset 18: older programs read it too."""
TOP = 5
"""Names that a graph with its preprocessing answers with."""


def onnx_model(predictor: Predictor, *, with_preprocessing: bool = False) -> ModelProto:
    """The network of a predictor as ONNX, with its classes and its preprocessing in the metadata.

    ``input`` (batch, C, crop, crop) float32 gives ``logits`` (batch, K). ``with_preprocessing``: ``pixels``
    (batch, height, width, C) uint8, photographs of one size, gives also ``names`` (batch, 5) and ``probabilities``, most probable
    first. Raises :class:`UsageError` without the package onnx, for a network that is too large, and for a module that is not
    translated."""
    require_onnx()
    from onnx import TensorProto, checker, helper

    graph = Graph()
    p, model = predictor.preprocessing, predictor.model.eval()
    images = [p.channels, p.crop, p.crop]
    if with_preprocessing:
        _prepare(graph, predictor)
        inputs = [helper.make_tensor_value_info(PIXELS, TensorProto.UINT8, ["batch", "height", "width", p.channels])]
    else:
        inputs = [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", *images])]
    _network(graph, model, tuple(images))
    num = len(predictor.classes)
    outputs = [helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["batch", num])]
    if with_preprocessing:
        top = min(TOP, num)
        _answer(graph, predictor.classes, top)
        outputs = [
            helper.make_tensor_value_info("names", TensorProto.STRING, ["batch", top]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", top]),
            *outputs,
        ]
    made = helper.make_model(
        helper.make_graph(graph.nodes, predictor.name, inputs, outputs, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="alexnet",
        producer_version=__version__,
    )
    helper.set_model_props(
        made, description(model, predictor.name, p, predictor.classes, predictor.mean) | {"reads": inputs[0].name}
    )
    if made.ByteSize() > MAX_ONNX_BYTES:
        raise UsageError(
            f"{predictor.name}: an ONNX file holds 2 GB, this network needs {made.ByteSize() / 1e9:.1f} GB"
        )
    checker.check_model(made, full_check=True)
    return made


class Graph:
    """Nodes and constants of a graph, as they are added."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(
        self, operator: str, inputs: Sequence[str], name: str, outputs: Sequence[str] = (), **attributes: Any
    ) -> str:
        """Add a node; the name of its (first) output is its own where none is given."""
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, outputs or [name], name=name, **attributes))
        return (outputs or [name])[0]

    def constant(self, name: str, value: Tensor | NDArray[Any] | np.floating[Any] | Sequence[int]) -> str:
        from onnx import numpy_helper

        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def weights(self, name: str, module: nn.Module) -> list[str]:
        """The names of the weight and the bias of a module, where it has one."""
        return [self.constant(f"{name}.{key}", tensor.float()) for key, tensor in module.state_dict().items()]


def _network(graph: Graph, model: nn.Module, shape: tuple[int, ...]) -> None:
    """The nodes from ``input`` to ``logits``. The modules are a chain; what is not a module is the step from maps to vectors."""
    x = INPUT
    for path, module, after in leaves(model, shape):
        if len(shape) == 3 and len(after) == 1:
            vector = "vector"
            if module_inputs(module, after) != shape[0] * shape[1] * shape[2]:
                x = graph.add("GlobalAveragePool", [x], "average")
            x, shape = graph.add("Flatten", [x], vector, axis=1), (module_inputs(module, after),)
        x = _translated(module)(graph, module, x, path, shape)
        shape = after
    graph.add("Identity", [x], "output" if x == LOGITS else LOGITS, [LOGITS])


def module_inputs(module: nn.Module, after: tuple[int, ...]) -> int:
    """Units that the first module behind the maps reads of a vector."""
    if isinstance(module, TowerLinear):
        return module.towers * module.weight.shape[1]
    return module.in_features if isinstance(module, nn.Linear) else after[0]


Translation = Callable[[Graph, Any, str, str, tuple[int, ...]], str]
"""Adds a module to the graph: graph, module, name of what it reads, its own name, the shape of one image of what it reads."""


def _translated(module: nn.Module) -> Translation:
    for kind, translation in _TRANSLATIONS:
        if isinstance(module, kind):
            return translation
    raise UsageError(
        f"{type(module).__name__} has no translation into ONNX; take --to torch-export, which has all of torch"
    )


def _convolution(graph: Graph, m: nn.Conv2d, x: str, name: str, _shape: tuple[int, ...]) -> str:
    overhang = m.overhang if isinstance(m, StridedConv2d) else 0
    top, left = (int(side) for side in m.padding)
    pads = [top, left, top + overhang, left + overhang]
    return graph.add(
        "Conv",
        [x, *graph.weights(name, m)],
        name,
        kernel_shape=m.kernel_size,
        strides=m.stride,
        pads=pads,
        group=m.groups,
    )


def _unshared(graph: Graph, m: LocalConv2d, x: str, name: str, shape: tuple[int, ...]) -> str:
    """A kernel for each place: the shifted maps side by side are its patches, and a product for each place and group."""
    C, H, W = shape
    L, num, D = m.weight.shape
    groups, pad, k = m.groups, m.kernel // 2, m.kernel
    padded = graph.add("Pad", [x, graph.constant(f"{name}.pads", [0, 0, pad, pad, 0, 0, pad, pad])], f"{name}/pad")
    axes = graph.constant(f"{name}.axes", [2, 3])
    one = graph.constant(f"{name}.one", [2])
    shifted = []
    for i in range(k * k):
        top, left = divmod(i, k)
        start, end = (
            graph.constant(f"{name}.start{i}", [top, left]),
            graph.constant(f"{name}.end{i}", [top + H, left + W]),
        )
        piece = graph.add("Slice", [padded, start, end, axes], f"{name}/piece{i}")
        shifted.append(graph.add("Unsqueeze", [piece, one], f"{name}/shifted{i}"))
    patches = graph.add("Concat", shifted, f"{name}/patches", axis=2)
    patches = graph.add(
        "Reshape",
        [patches, graph.constant(f"{name}.by_group", [0, groups, C // groups * k * k, L])],
        f"{name}/by_group",
    )
    patches = graph.add("Transpose", [patches], f"{name}/by_place", perm=[3, 1, 0, 2])  # (L, groups, B, D)
    weight = graph.constant(f"{name}.weight", m.weight.view(L, groups, num // groups, D).mT.float())
    y = graph.add("MatMul", [patches, weight], f"{name}/products")
    y = graph.add("Transpose", [y], f"{name}/by_image", perm=[2, 1, 3, 0])
    y = graph.add("Reshape", [y, graph.constant(f"{name}.maps", [0, num, H, W])], f"{name}/maps")
    return graph.add("Add", [y, graph.constant(f"{name}.bias", m.bias.T.reshape(num, H, W).float())], name)


def _linear(graph: Graph, m: nn.Linear, x: str, name: str, _shape: tuple[int, ...]) -> str:
    return graph.add("Gemm", [x, *graph.weights(name, m)], name, transB=1)


def _tower_linear(graph: Graph, m: TowerLinear, x: str, name: str, _shape: tuple[int, ...]) -> str:
    num, D = m.weight.shape
    T = m.towers
    x = graph.add("Reshape", [x, graph.constant(f"{name}.towers", [0, T, 1, D])], f"{name}/towers")
    x = graph.add(
        "MatMul", [x, graph.constant(f"{name}.weight", m.weight.view(T, num // T, D).mT.float())], f"{name}/products"
    )
    x = graph.add("Reshape", [x, graph.constant(f"{name}.units", [0, num])], f"{name}/units")
    return graph.add("Add", [x, graph.constant(f"{name}.bias", m.bias.float())], name)


def _pooling(graph: Graph, m: nn.MaxPool2d | nn.AvgPool2d, x: str, name: str, _shape: tuple[int, ...]) -> str:
    kernel, stride, padding = (
        value if isinstance(value, tuple) else (value, value) for value in (m.kernel_size, m.stride, m.padding)
    )
    operator = "MaxPool" if isinstance(m, nn.MaxPool2d) else "AveragePool"
    return graph.add(
        operator, [x], name, kernel_shape=kernel, strides=stride, pads=[*padding, *padding], ceil_mode=int(m.ceil_mode)
    )


def _channel_norm(graph: Graph, m: LocalResponseNorm, x: str, name: str, shape: tuple[int, ...]) -> str:
    """Each tower becomes an image of its own, so that no window crosses from one to the other."""
    window, (C, H, W) = m.window, shape
    if window.relu:
        x = graph.add("Relu", [x], f"{name}/relu")
    if window.towers > 1:
        apart = graph.constant(f"{name}.apart", [-1, C // window.towers, H, W])
        x = graph.add("Reshape", [x, apart], f"{name}/apart")
    own = name if window.towers == 1 else f"{name}/norm"
    x = graph.add("LRN", [x], own, **fields_of(window))
    if window.towers > 1:
        x = graph.add("Reshape", [x, graph.constant(f"{name}.joined", [-1, C, H, W])], name)
    return x


def _map_norm(graph: Graph, m: MapResponseNorm, x: str, name: str, _shape: tuple[int, ...]) -> str:
    """ONNX has no operator for windows of positions; their means are an average pooling."""
    w = m.window
    square = graph.add("Mul", [x, x], f"{name}/square")
    mean = graph.add(
        "AveragePool",
        [square],
        f"{name}/mean",
        kernel_shape=[w.size, w.size],
        strides=[1, 1],
        pads=[w.half] * 4,
        count_include_pad=1,
    )
    factor, k, power = (
        graph.constant(f"{name}.{key}", np.float32(value))
        for key, value in (("factor", w.coefficient * w.size**2), ("k", w.k), ("power", -w.beta))
    )
    scale = graph.add("Add", [graph.add("Mul", [mean, factor], f"{name}/sum"), k], f"{name}/scale")
    return graph.add("Mul", [x, graph.add("Pow", [scale, power], f"{name}/factor")], name)


def _batch_norm(graph: Graph, m: nn.BatchNorm2d, x: str, name: str, _shape: tuple[int, ...]) -> str:
    tensors = {key: tensor.float() for key, tensor in m.state_dict().items()}
    keys = ("weight", "bias", "running_mean", "running_var")
    return graph.add(
        "BatchNormalization", [x, *(graph.constant(f"{name}.{key}", tensors[key]) for key in keys)], name, epsilon=m.eps
    )


def _group_norm(graph: Graph, m: nn.GroupNorm, x: str, name: str, shape: tuple[int, ...]) -> str:
    C, H, W = shape
    groups = graph.constant(f"{name}.groups", [0, m.num_groups, -1])
    ones, zeros = (
        graph.constant(f"{name}.{key}", np.full(m.num_groups, v, np.float32)) for key, v in (("ones", 1), ("zeros", 0))
    )
    x = graph.add("Reshape", [x, groups], f"{name}/groups")
    x = graph.add("InstanceNormalization", [x, ones, zeros], f"{name}/norm", epsilon=m.eps)
    x = graph.add("Reshape", [x, graph.constant(f"{name}.maps", [0, C, H, W])], f"{name}/maps")
    weight, bias = (
        graph.constant(f"{name}.{key}", getattr(m, key).float().view(-1, 1, 1)) for key in ("weight", "bias")
    )
    return graph.add("Add", [graph.add("Mul", [x, weight], f"{name}/scaled"), bias], name)


def _dropout(graph: Graph, m: Dropout, x: str, name: str, _shape: tuple[int, ...]) -> str:
    """The 2012 form: units are halved at test (§4.2)."""
    return graph.add("Mul", [x, graph.constant(f"{name}.keep", np.float32(m.keep))], name)


def _slope(graph: Graph, m: nn.PReLU, x: str, name: str, shape: tuple[int, ...]) -> str:
    slope = m.weight.float().view(-1, *(1,) * (len(shape) - 1))
    return graph.add("PRelu", [x, graph.constant(f"{name}.weight", slope)], name)


def _gelu(graph: Graph, _m: nn.GELU, x: str, name: str, _shape: tuple[int, ...]) -> str:
    """x times the share of a normal distribution below x."""
    root, one, half = (
        graph.constant(f"{name}.{key}", np.float32(v)) for key, v in (("root", 2**0.5), ("one", 1), ("half", 0.5))
    )
    share = graph.add("Erf", [graph.add("Div", [x, root], f"{name}/scaled")], f"{name}/erf")
    share = graph.add("Add", [share, one], f"{name}/share")
    return graph.add("Mul", [graph.add("Mul", [x, share], f"{name}/double"), half], name)


def _plain(operator: str) -> Translation:
    return lambda graph, _m, x, name, _shape: graph.add(operator, [x], name)


def _leaky(graph: Graph, m: nn.LeakyReLU, x: str, name: str, _shape: tuple[int, ...]) -> str:
    return graph.add("LeakyRelu", [x], name, alpha=float(m.negative_slope))


_TRANSLATIONS: tuple[tuple[type[nn.Module], Translation], ...] = (
    (nn.Conv2d, _convolution),
    (LocalConv2d, _unshared),
    (nn.Linear, _linear),
    (TowerLinear, _tower_linear),
    (nn.MaxPool2d, _pooling),
    (nn.AvgPool2d, _pooling),
    (LocalResponseNorm, _channel_norm),
    (MapResponseNorm, _map_norm),
    (nn.BatchNorm2d, _batch_norm),
    (nn.GroupNorm, _group_norm),
    (Dropout, _dropout),
    (nn.ReLU, _plain("Relu")),
    (nn.Tanh, _plain("Tanh")),
    (nn.Sigmoid, _plain("Sigmoid")),
    (nn.LeakyReLU, _leaky),
    (nn.PReLU, _slope),
    (nn.GELU, _gelu),
)


def _prepare(graph: Graph, predictor: Predictor) -> None:
    """The nodes from ``pixels`` to ``input``: short side to ``resize``, center square, center crop, mean, scale, order of
    channels. The filter is Pillow's; single pixels are rounded otherwise."""
    p = predictor.preprocessing
    number = {value: graph.constant(f"prepare.{value}", [value]) for value in {2, p.resize, p.crop}}

    def add(operator: str, *inputs: str, name: str, **attributes: Any) -> str:
        return graph.add(operator, inputs, f"prepare/{name}", **attributes)

    x = add("Transpose", PIXELS, name="channels_first", perm=[0, 3, 1, 2])
    sides = add("Shape", PIXELS, name="sides", start=1, end=3)
    long = add("Mul", sides, number[p.resize], name="times_size")
    sides = add("Div", long, add("ReduceMin", sides, name="short_side", keepdims=1), name="new_sides")
    shape = add("Concat", add("Shape", x, name="batch", start=0, end=2), sides, name="new_shape", axis=0)
    x = add("Resize", x, "", "", shape, name="resize", mode="linear", antialias=1)
    square = add("Div", add("Sub", sides, number[p.resize], name="spare"), number[2], name="square")
    start = add("Add", square, graph.constant("prepare.margin", [(p.resize - p.crop) // 2]), name="start")
    end = add("Add", start, number[p.crop], name="end")
    x = add("Slice", x, start, end, graph.constant("prepare.axes", [2, 3]), name="crop")
    x = add("Cast", x, name="float", to=1)
    if (mean := _mean(predictor)) is not None:
        x = add("Sub", x, graph.constant("prepare.mean", mean), name="less_mean")
    factor_C = np.full(p.channels, p.scale, np.float32) / (np.array(p.std, np.float32) if p.std else np.float32(1))
    x = add("Mul", x, graph.constant("prepare.factor", factor_C.reshape(-1, 1, 1)), name="scaled")
    if p.channel_order == "bgr":
        x = add("Gather", x, graph.constant("prepare.order", [2, 1, 0]), name="order", axis=1)
    graph.add("Identity", [x], "prepare/input", [INPUT])


def _mean(predictor: Predictor) -> NDArray[np.float32] | None:
    """What is subtracted from a center crop: (C, 1, 1) or (C, crop, crop)."""
    p = predictor.preprocessing
    if p.mean == "channel":
        return np.array(p.channel_mean, np.float32).reshape(-1, 1, 1)
    if predictor.mean is None or p.mean == "none":
        return None
    mean_SSC = fit(torch.from_numpy(predictor.mean)[None], p.resize)[0].numpy()
    start = (p.resize - p.crop) // 2
    return mean_SSC[start : start + p.crop, start : start + p.crop].transpose(2, 0, 1)


def _answer(graph: Graph, classes: Sequence[str], top: int) -> None:
    """From ``logits`` to the names of the most probable classes; of equal ones the first comes first, as everywhere here."""
    share = graph.add("Softmax", [LOGITS], "answer/softmax", axis=1)
    graph.add("TopK", [share, graph.constant("answer.top", [top])], "answer/top", ["probabilities", "labels"], axis=1)
    names = np.array([as_text(name) for name in classes], dtype=object)
    graph.add("Gather", [graph.constant("answer.classes", names), "labels"], "answer/names", ["names"], axis=0)
