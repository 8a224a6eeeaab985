"""The layers of a network by name: their activations for a batch, and what part of the image each unit sees.

Shape suffixes: B images, C channels, H rows, W columns, D units.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from alexnet.core.errors import UsageError, printable
from alexnet.models.layers import ACTIVATIONS, WEIGHT_LAYERS, Dropout, LocalConv2d, StridedConv2d
from alexnet.models.lrn import LocalResponseNorm, MapResponseNorm


@dataclass(frozen=True)
class ReceptiveField:
    """The square of input pixels that a unit sees. Unit (y, x) of a map sees rows ``offset + y * stride`` to
    ``offset + y * stride + size - 1``, columns likewise; pixels outside the image are padding, which is zero."""

    size: int
    stride: int
    offset: int
    end: int | None = None
    """Where the pixels end that the layers before see, if not with the image: a convolution or a pooling whose windows do
    not fill its input leaves out the last rows and columns, and no unit that reads it has them back."""

    def box(self, y: int, x: int, image_size: int) -> tuple[int, int, int, int]:
        """(top, left, bottom, right) of unit (y, x), the last two excluded, cut at the borders of what is there to see."""
        end = image_size if self.end is None else min(self.end, image_size)
        top, left = self.offset + y * self.stride, self.offset + x * self.stride
        return max(top, 0), max(left, 0), min(top + self.size, end), min(left + self.size, end)


@dataclass(frozen=True)
class Layer:
    """One layer in forward order. A layer with weights is read after the nonlinearity that directly follows it; so `fc7`
    is what the paper calls the last hidden layer, before the test-time halving, and `dropout7` is after it."""

    name: str
    shape: tuple[int, ...]
    """Shape of the output for one image: (C, H, W) or (D,)."""
    field: ReceptiveField | None
    """None from the first layer on that sees the whole image."""
    path: str
    """The submodule whose output it is."""
    relu: bool = False
    """Whether a ReLU is still to be applied to that output, because the module that follows has it built in."""

    @property
    def num_units(self) -> int:
        return int(torch.Size(self.shape).numel())


PIXELS = "pixels"
"""The name under which the network's input is read like a layer."""


def network_layers(model: nn.Module) -> list[Layer]:
    """The layers of a network in forward order, its input first, found by one forward pass of one image."""
    channels, size, _ = _input_shape(model)
    layers = [Layer(PIXELS, (channels, size, size), ReceptiveField(1, 1, 0, size), "")]
    may_take_nonlinearity = False
    for path, module, shape in leaves(model, layers[0].shape):
        name, last = path.rpartition(".")[2], layers[-1]
        if isinstance(module, tuple(ACTIVATIONS.values())) and may_take_nonlinearity:
            layers[-1] = replace(last, path=path)
            may_take_nonlinearity = False
            continue
        if isinstance(module, LocalResponseNorm) and module.window.relu and may_take_nonlinearity:
            layers[-1] = replace(last, relu=True)
        layers.append(Layer(name, shape, _field(module, last, shape, size), path))
        may_take_nonlinearity = isinstance(module, WEIGHT_LAYERS)
    return layers


def num_towers(model: nn.Module, layers: Sequence[Layer], layer: Layer) -> int:
    """In how many towers the units of a layer stand, equal parts in each. Those of the last of the network's ``layers``, which
    read both towers, are in one."""
    return 1 if layer.path == layers[-1].path else int(getattr(model.config, "towers", 1))


def tower_of(towers: int, layer: Layer, channel: int) -> int | None:
    """The tower that a channel of a layer in several towers belongs to; None where there is one."""
    return None if towers == 1 else channel * towers // layer.shape[0]


def find_layers(model: nn.Module, names: Sequence[str]) -> list[Layer]:
    """The layers of these names, in this order. An unknown name: :class:`UsageError` that lists all."""
    known = {layer.name: layer for layer in network_layers(model)}
    for name in names:
        if name not in known:
            raise UsageError(f"no layer is called {printable(name)!r}; the layers are {', '.join(known)}")
    return [known[name] for name in names]


def usual_layer(model: nn.Module, name: str | None, usual: str, untrained: Collection[str] = ()) -> Layer:
    """The layer called ``name``; without one ``usual``, fc7 or conv5. In a network that has no such layer, in the place of conv5
    the last hidden layer of maps with weights, and in the place of fc7 the last hidden layer with weights or, if that has maps,
    what the classifier reads of them: after pooling. Where layers are ``untrained``, none that comes after the first of them is
    chosen: the last before it is."""
    if name is not None:
        return find_layers(model, [name])[0]
    weights = {path.rpartition(".")[2] for path, module in model.named_modules() if isinstance(module, WEIGHT_LAYERS)}
    layers = network_layers(model)
    *hidden, last = [layer for layer in layers if layer.name in weights]
    maps = [layer for layer in hidden if len(layer.shape) == 3]
    if usual.startswith("conv"):
        other = (maps or hidden)[-1]
    else:
        other = layers[layers.index(last) - 1] if maps and hidden[-1] is maps[-1] else hidden[-1]
    found = next((layer for layer in hidden if layer.name == usual), other)
    first = next((i for i, layer in enumerate(layers) if layer.name in untrained), len(layers))
    return found if layers.index(found) < first else layers[max(first - 1, 0)]


@contextmanager
def recorded(model: nn.Module, layers: Sequence[Layer]) -> Iterator[dict[str, Tensor]]:
    """While open, each forward pass of ``model`` puts the activations of these layers into the dictionary, (B, C, H, W) or
    (B, D). They keep their place in the graph, so gradients with respect to them can be taken."""
    outputs: dict[str, Tensor] = {}

    def record(layer: Layer) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            outputs[layer.name] = output.relu() if layer.relu else output

        return hook

    def record_pixels(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        outputs[PIXELS] = inputs[0]

    handles = [
        model.register_forward_pre_hook(record_pixels)
        if layer.name == PIXELS
        else model.get_submodule(layer.path).register_forward_hook(record(layer))
        for layer in layers
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def activations(model: nn.Module, x_BCHW: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """The activations of the named layers for a batch of inputs, (B, C, H, W) or (B, D), without gradients. The network is
    read in evaluation mode, and put back into the mode it was in."""
    with torch.no_grad(), _evaluating(model), recorded(model, find_layers(model, names)) as outputs:
        model(x_BCHW)
    return {name: outputs[name] for name in names}


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode while open; then each module is back in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def with_relu_modules(model: nn.Module) -> nn.Module:
    """The same function on the same weights (they are shared, not copied), in evaluation mode, in which every ReLU is a
    module: one that a normalization has built in stands before it. Whoever changes the gradient of a ReLU, or reads what comes
    before it, finds it there."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    unfolded: nn.Module = copy.deepcopy(model, dict(shared))
    for path, module in list(unfolded.named_modules()):
        if isinstance(module, LocalResponseNorm) and module.window.relu:
            module.window = module.window._replace(relu=False)
            unfolded.set_submodule(path, nn.Sequential(nn.ReLU(), module))
    return unfolded.eval()


def before_nonlinearity(model: nn.Module, layer: Layer, *, unpadded: bool = False) -> Callable[[Tensor], Tensor]:
    """A layer as a function of the network's input, computed without the nonlinearity between the last weights and it, through
    which a unit that is off lets no gradient pass: (B, C, H, W) or (B, D). What comes after a layer of maps is not computed. A
    normalization after that nonlinearity divides by its neighbors' values, the negative ones too.

    ``unpadded``: no layer of maps completes its input with zeros, so that an image of the size of the layer's receptive field
    gives one unit alone, (B, C, 1, 1), at the cost of what that unit reads. Layers that know their place in the map, unshared
    convolutions and normalization within a map, cannot do this."""
    unfolded = with_relu_modules(model)
    if layer.name == PIXELS:
        return nn.Identity()
    was_norm_alone = isinstance(unfolded.get_submodule(layer.path), nn.Sequential)
    own = replace(layer, path=f"{layer.path}.1" if was_norm_alone else layer.path, relu=False)
    paths = [path for path, _, _ in leaves(unfolded, _input_shape(unfolded))]
    paths = paths[: paths.index(own.path) + 1]
    for path in reversed(paths):
        module = unfolded.get_submodule(path)
        if isinstance(module, tuple(ACTIVATIONS.values())):
            unfolded.set_submodule(path, nn.Identity())
            break
        if isinstance(module, WEIGHT_LAYERS):
            break
    if len(layer.shape) == 3:
        modules = [unfolded.get_submodule(path) for path in paths]
        for module in modules if unpadded else []:
            if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
                module.padding = 0 if isinstance(module.padding, int) else (0, 0)
            if isinstance(module, StridedConv2d):
                module.overhang = 0
        return nn.Sequential(*modules)

    def units(x_BCHW: Tensor) -> Tensor:
        with recorded(unfolded, [own]) as outputs:
            unfolded(x_BCHW)
        return outputs[own.name]

    return units


def negated(model: nn.Module, layer: Layer) -> nn.Module:
    """The network with the other sign for the weights and biases that a layer comes from, its own or the last before it: what
    excited a unit now calms it. All other weights are shared. A layer before all weights: :class:`UsageError`."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    changed: nn.Module = copy.deepcopy(model, dict(shared))
    names = [path for path, _, _ in leaves(changed, _input_shape(changed))]
    for path in reversed(names[: names.index(layer.path) + 1] if layer.path else []):
        module = changed.get_submodule(path)
        own = dict(module.named_parameters(recurse=False))
        if own and not isinstance(module, tuple(ACTIVATIONS.values())):
            for name, parameter in own.items():
                setattr(module, name, nn.Parameter(-parameter.detach(), requires_grad=parameter.requires_grad))
            return changed
    raise UsageError(f"{layer.name} has no weights before it whose sign could be changed; take another layer")


def _input_shape(model: nn.Module) -> tuple[int, int, int]:
    config: Any = model.config
    return config.in_channels, config.input_size, config.input_size


def leaves(model: nn.Module, shape: tuple[int, ...]) -> list[tuple[str, nn.Module, tuple[int, ...]]]:
    """Path, module and shape of output of all modules that do something, in forward order."""
    found: list[tuple[str, nn.Module, tuple[int, ...]]] = []

    def record(path: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, _inputs: Any, output: Tensor) -> None:
            if not _does_nothing(module):
                found.append((path, module, tuple(output.shape[1:])))

        return hook

    handles = [
        module.register_forward_hook(record(path))
        for path, module in model.named_modules()
        if path and not any(module.children())
    ]
    try:
        with torch.no_grad(), _evaluating(model):
            model(next(model.parameters()).new_zeros(1, *shape))
    finally:
        for handle in handles:
            handle.remove()
    return found


def _does_nothing(module: nn.Module) -> bool:
    """Whether a module does nothing in evaluation mode, such as the empty stage of a layer that is left out."""
    if isinstance(module, Dropout):
        return module.keep == 1.0 or module.kind == "inverted"
    return isinstance(module, nn.Identity | nn.Sequential)


def _field(module: nn.Module, last: Layer, shape: tuple[int, ...], image_size: int) -> ReceptiveField | None:
    """What a unit sees after ``module``, from what one sees in the layer before it. The zeros that complete conv1's last
    window are at the right and at the bottom, and move nothing."""
    before = last.field
    if before is None or len(shape) != 3 or isinstance(module, nn.GroupNorm):
        return None  # layer normalization looks at all of the map
    end = before.box(0, last.shape[2] - 1, image_size)[3]
    kernel, stride, padding = 1, 1, 0
    if isinstance(module, nn.Conv2d):
        kernel, stride, padding = module.kernel_size[0], module.stride[0], int(module.padding[0])
    elif isinstance(module, LocalConv2d):
        kernel, padding = module.kernel, module.kernel // 2
    elif isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        kernel, stride, padding = (_side(v) for v in (module.kernel_size, module.stride, module.padding))
    elif isinstance(module, MapResponseNorm):
        kernel, padding = module.window.size, module.window.half
    return ReceptiveField(
        before.size + (kernel - 1) * before.stride, before.stride * stride, before.offset - padding * before.stride, end
    )


def _side(value: Any) -> int:
    return int(value[0] if isinstance(value, tuple) else value)
