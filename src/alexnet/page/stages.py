"""The stages of a network one by one: their shapes with the arithmetic that leads to them, and what they cost, in words.

Every number comes from the network itself; a test computes each line of arithmetic again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from torch import nn

from alexnet.core.preprocessing import Preprocessing
from alexnet.evaluation.layers import PIXELS, Layer, network_layers
from alexnet.evaluation.layers import num_towers as towers_with
from alexnet.evaluation.layers import tower_of as tower_among
from alexnet.models.layers import WEIGHT_LAYERS, Dropout, LocalConv2d
from alexnet.models.lrn import LocalResponseNorm, MapResponseNorm
from alexnet.models.summary import Stage, summarize

NORMALIZATIONS = (LocalResponseNorm, MapResponseNorm, nn.BatchNorm2d, nn.GroupNorm)
INPUT = "input"

Words = dict[str, str]
"""The same sentences in English (``en``) and Chinese (``zh``)."""


@lru_cache(maxsize=1)
def layers_of(model: nn.Module) -> Mapping[str, Layer]:
    """The layers of a network by their names, in forward order, without its input."""
    return {layer.name: layer for layer in network_layers(model) if layer.name != PIXELS}


def modules_of(model: nn.Module) -> Mapping[str, nn.Module]:
    """The modules that the layers are called after."""
    return {path.rpartition(".")[2]: module for path, module in model.named_modules() if not any(module.children())}


def num_towers(model: nn.Module) -> int:
    """2 for a network of two towers, otherwise 1."""
    return int(getattr(model.config, "towers", 1))


def tower_of(model: nn.Module, layer: Layer, channel: int) -> int | None:
    """The tower that a channel belongs to, 0 or 1; None in a network of one tower, and in the last layer, which reads both."""
    return tower_among(towers_with(model, list(layers_of(model).values()), layer), layer, channel)


def field_json(layer: Layer) -> dict[str, int] | None:
    """The side of what a unit sees, how far it lies from what the next one sees, and where that of the first begins, in pixels of
    the view; None where a unit sees all."""
    field = layer.field
    return None if field is None else {"size": field.size, "stride": field.stride, "start": field.offset}


def stages(model: nn.Module, preprocessing: Preprocessing, classes_known: bool) -> list[dict[str, Any]]:
    """All stages in forward order, the input first, as JSON. ``classes_known``: whether the last one tells classes."""
    layers, modules = layers_of(model), modules_of(model)
    counted = {stage.name: stage for stage in summarize(model)}
    side = preprocessing.crop
    before: tuple[int, ...] = (preprocessing.channels, side, side)
    found = [_json(Stage(INPUT, before, 0, 0), "input", input_words(preprocessing)) | {"field": None, "costs": None}]
    for layer in layers.values():
        module = modules[layer.name]
        stage = counted.get(layer.name, Stage(layer.name, layer.shape, 0, 0))
        follows = model.get_submodule(layer.path)  # the nonlinearity that is part of the layer, or the layer itself
        slopes = 0 if follows is module else sum(slope.numel() for slope in follows.parameters())
        stage = replace(stage, parameters=stage.parameters + slopes)
        is_last = classes_known and layer.name == list(layers)[-1]
        step = _Step(stage, module, before, num_towers(model), is_last, slopes)
        found.append(
            _json(stage, _kind(module), step.words())
            | {
                "field": field_json(layer),
                "costs": step.costs(),
                "has_maps": len(layer.shape) == 3,
                "has_units": isinstance(module, WEIGHT_LAYERS),
            }
        )
        before = layer.shape
    return found


def _json(stage: Stage, kind: str, words: Words) -> dict[str, Any]:
    return {
        "name": stage.name,
        "kind": kind,
        "shape": list(stage.shape),
        "kernel": stage.kernel,
        "stride": stage.stride,
        "padding": stage.padding,
        "overhang": stage.overhang,
        "groups": stage.groups,
        "parameters": stage.parameters,
        "multiply_adds": stage.multiply_adds,
        "derivation": words,
        "has_maps": False,
        "has_units": False,
    }


def _kind(module: nn.Module) -> str:
    if isinstance(module, nn.Conv2d | LocalConv2d):
        return "convolution"
    if isinstance(module, WEIGHT_LAYERS):
        return "dense"
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        return "pooling"
    if isinstance(module, NORMALIZATIONS):
        return "normalization"
    if isinstance(module, Dropout):
        return "dropout"
    return "relu" if isinstance(module, nn.ReLU) else "activation"


def input_words(preprocessing: Preprocessing) -> Words:
    """Where the input of the network comes from: why 224."""
    whole, side = preprocessing.resize, preprocessing.crop
    start, places = (whole - side) // 2, whole - side + 1
    en = f"The shorter side of a picture is brought to {whole} pixels, and the square in its middle is kept."
    zh = f"图片的短边先缩放到 {whole} 像素，再取正中的正方形。"
    if side == whole:
        en += f" The network sees all of these {side} x {side} pixels."
        zh += f"网络看到这 {side} × {side} 像素的全部。"
    else:
        en += (
            f" Of its {whole} x {whole} pixels the network sees {side} x {side}. Training as in 2012 takes this window from any "
            f"of ({whole} - {side} + 1)² = {places**2:,} places, so that the network learns not to rely on where things are; "
            f"here it lies in the middle, ({whole} - {side}) / 2 = {(whole - side) / 2:g} pixels from the top and the left"
        )
        zh += (
            f"网络只看其中 {side} × {side} 的一块：按 2012 年的做法，训练时它可以落在 "
            f"({whole} - {side} + 1)² = {places**2:,} 个位置中的任何一个，这样网络就学会不依赖物体的位置；"
            f"这里取正中的一块，离上边和左边各 ({whole} - {side}) / 2 = {(whole - side) / 2:g} 像素"
        )
        odd = (whole - side) % 2
        en += f", rounded down to {start}." if odd else "."
        zh += f"，舍去小数得 {start}。" if odd else "。"
    colors = {
        1: ("1 channel, grey", "1 个通道（灰度）"),
        3: ("3 channels: red, green and blue", "3 个通道：红、绿、蓝"),
    }
    channels = colors.get(preprocessing.channels)
    return {"en": f"{en} {channels[0]}.", "zh": f"{zh}{channels[1]}。"} if channels else {"en": en, "zh": zh}


@dataclass(frozen=True)
class _Step:
    """A stage, and what it reads."""

    stage: Stage
    module: nn.Module
    before: tuple[int, ...]
    towers: int
    is_last: bool
    """Whether its outputs are the classes."""
    slopes: int
    """Parameters of the nonlinearity that follows."""

    def words(self) -> Words:
        match _kind(self.module):
            case "convolution":
                return _joined(self._side(), _SPACE, self._kernels())
            case "pooling":
                return _joined(self._side(), _SPACE, self._pooled())
            case "dense":
                return _joined(self._listed(), self._units())
            case "normalization":
                return self._normalized()
            case "dropout":
                return _joined(self._listed(), self._dropped())
        return _unchanged(
            self.stage.shape,
            "Each value goes through the nonlinearity by itself.",
            "每个值各自通过非线性函数。",
        )

    def _side(self) -> Words:
        """How many windows fit: the side of the maps."""
        s, side, out = self.stage, self.before[1], self.stage.shape[1]
        kernel, stride, padding = s.kernel or 1, s.stride or 1, s.padding or 0
        steps = side + 2 * padding + s.overhang - kernel
        formula = f"({side}"
        formula += f" + 2 × {padding}" if padding else ""
        formula += f" + {s.overhang}" if s.overhang else ""
        formula += f" - {kernel}) / {stride} + 1 = "
        every = "at every pixel" if stride == 1 else f"every {stride} pixels"
        en = f"Windows of {kernel} x {kernel} start {every}"
        zh = (
            f"{kernel} × {kernel} 的窗口每隔 {stride} 个像素取一次"
            if stride > 1
            else f"{kernel} × {kernel} 的窗口逐个像素移动"
        )
        if padding:
            en += f", with {padding} {_plural(padding, 'row')} of zeros added on each side"
            zh += f"，四边各补 {padding} 圈零"
        if s.overhang:
            en += f", with {s.overhang} more {_plural(s.overhang, 'row')} and {_plural(s.overhang, 'column')} of zeros at the "
            en += "bottom and at the right, over which the last windows hang"
            zh += f"，下边和右边再补 {s.overhang} 行（列）零，最后的窗口伸到图像之外"
        en, zh = f"{en}: {formula}", f"{zh}：{formula}"
        if steps % stride == 0:
            en, zh = f"{en}{out}.", f"{zh}{out}。"
            if s.overhang:
                without = (steps - s.overhang) // stride + 1
                en += f" Without these zeros {side} pixels would give {without}."
                zh += f"不补这些零，{side} 像素只能得到 {without}。"
            return {"en": en, "zh": zh}
        exact = f"{steps / stride + 1:.4g}"
        if out == steps // stride + 1:
            left = steps % stride
            last = "row and column are" if left == 1 else f"{left} rows and columns are"
            en += f"{exact}, rounded down to {out}: the last {last} in no window."
            zh += f"{exact}，舍去小数得 {out}：最后 {left} 行（列）不在任何窗口里。"
        else:
            en += f"{exact}, rounded up to {out}: the last windows hang over the edge."
            zh += f"{exact}，进位得 {out}：最后的窗口伸到边缘之外。"
        return {"en": en, "zh": zh}

    def _kernels(self) -> Words:
        channels, (num, side, _) = self.before[0], self.stage.shape
        groups, kernel = self.stage.groups or 1, self.stage.kernel
        numbers = f"{kernel} x {kernel} x {channels // groups} = {(kernel or 1) ** 2 * channels // groups:,}"
        en, zh = (
            f"{num} kernels give {num} maps of {side} x {side}",
            f"{num} 个卷积核得到 {num} 张 {side} × {side} 的特征图",
        )
        if self.towers == 2:
            en, zh = f"{en}, {num // 2} in each tower", f"{zh}，两个塔各 {num // 2} 张"
        en += f". Each kernel reads {numbers} numbers"
        zh += f"。每个卷积核读 {numbers.replace('x', '×')} 个数"
        if groups > 1:
            en += f": only the {channels // groups} maps of its own tower"
            zh += f"：只看自己那个塔的 {channels // groups} 张特征图"
        elif self.towers == 2 and channels > 3:
            en, zh = f"{en}: the maps of both towers", f"{zh}：两个塔的特征图都看"
        if isinstance(self.module, LocalConv2d):
            en, zh = f"{en}; every place has kernels of its own", f"{zh}；每个位置用自己的卷积核"
        return {"en": f"{en}.", "zh": f"{zh}。"}

    def _pooled(self) -> Words:
        largest, num = isinstance(self.module, nn.MaxPool2d), self.stage.shape[0]
        en = f"Of each window the {'largest value' if largest else 'average'} is kept, in each of the {num} maps by itself"
        zh = f"每个窗口只留下{'最大值' if largest else '平均值'}，{num} 张特征图各算各的"
        kernel, stride = self.stage.kernel or 1, self.stage.stride or 1
        if stride < kernel:
            en, zh = (
                f"{en}; neighboring windows overlap by {kernel - stride}",
                f"{zh}；相邻窗口重叠 {kernel - stride} 个像素",
            )
        return {"en": f"{en}.", "zh": f"{zh}。"}

    def _listed(self) -> Words:
        """How maps become the numbers that a dense layer, or the dropout before it, reads; nothing where they are numbers."""
        if len(self.before) == 1:
            return {"en": "", "zh": ""}
        product, num = math.prod(self.before), self.before[0]
        if self._reads() == product:
            en, zh = f"{_shape(self.before)} = {product:,}", f"{_shape(self.before, '×')} = {product:,}"
            return {"en": f"All maps become one list of {en} numbers. ", "zh": f"所有特征图排成一列：{zh} 个数。"}
        return {"en": f"Of each of the {num:,} maps the average is taken. ", "zh": f"{num:,} 张特征图各取平均值。"}

    def _reads(self) -> int:
        """Numbers that a dense layer or a dropout reads."""
        if isinstance(self.module, Dropout):
            return self.stage.shape[0]
        return int(self.module.get_parameter("weight").shape[1]) * (self.stage.groups or 1)

    def _units(self) -> Words:
        num, groups, reads = self.stage.shape[0], self.stage.groups or 1, self._reads()
        en, zh = f"Each of the {num:,} units reads", f"{num:,} 个单元"
        if groups > 1:
            en, zh = (
                f"{en} the {reads // groups:,} numbers of its own tower",
                f"{zh}各读自己那个塔的 {reads // groups:,} 个数",
            )
        else:
            en, zh = f"{en} all {reads:,} numbers", f"{zh}每个都读全部 {reads:,} 个数"
        if self.is_last:
            en, zh = f"{en}. There is one unit for each class", f"{zh}。每个类别一个单元"
        elif self.towers == 2:
            en, zh = f"{en}. {num // 2:,} units are in each tower", f"{zh}。两个塔各 {num // 2:,} 个单元"
        return {"en": f"{en}.", "zh": f"{zh}。"}

    def _dropped(self) -> Words:
        keep = f"{self.module.keep:g}"
        en = f"In training a part of the values is set to 0 at random; to answer, all are multiplied by {keep}."
        return _unchanged(self.stage.shape, en, f"训练时随机把一部分值置零；回答时全部乘以 {keep}。")

    def _normalized(self) -> Words:
        module, shape = self.module, self.stage.shape
        if isinstance(module, LocalResponseNorm):
            size, crosses = module.window.size, self.towers == 2 and module.window.towers == 1
            en = f"Each value is divided by a number that grows with the squares of {size} neighboring maps at the same place"
            zh = f"局部响应归一化：每个值除以一个数，这个数随同一位置上相邻 {size} 张特征图的平方和增大"
            if module.window.towers == 2:
                en, zh = f"{en}, of the same tower", f"{zh}（只算同一个塔）"
            elif crosses:
                en, zh = f"{en}, across the border of the towers", f"{zh}（跨过两个塔的分界）"
            if module.window.relu:
                en, zh = f"{en}; values below 0 become 0 first", f"{zh}；负值先变为 0"
            return _unchanged(shape, f"{en}.", f"{zh}。")
        if isinstance(module, MapResponseNorm):
            size = module.window.size
            en = (
                f"Each value is divided by a number that grows with the squares of the {size} x {size} values around it"
            )
            return _unchanged(shape, f"{en}.", f"每个值除以一个数，这个数随它周围 {size} × {size} 个值的平方和增大。")
        return _unchanged(
            shape,
            "The values are shifted and scaled to a common mean and spread.",
            "把值平移、缩放到统一的均值和方差。",
        )

    def costs(self) -> Words | None:
        """How parameters and multiply-adds come about; None for a stage without weights."""
        if not isinstance(self.module, WEIGHT_LAYERS):
            return None
        s, weight = self.stage, self.module.get_parameter("weight")
        biases = sum(p.numel() for p in self.module.parameters()) - weight.numel()
        places = s.shape[1] * s.shape[2] if len(s.shape) == 3 else 1
        if isinstance(self.module, LocalConv2d):
            factors = [places, s.shape[0], weight.shape[2]]
        elif isinstance(self.module, nn.Conv2d):
            factors = [s.shape[0], weight.shape[1], weight.shape[2], weight.shape[3]]
        else:
            factors = [s.shape[0], weight.shape[1]]
        product = " × ".join(f"{factor:,}" for factor in factors)
        en, zh = f"{product} weights + {biases:,} biases", f"{product} 个权重 + {biases:,} 个偏置"
        if self.slopes:
            en, zh = f"{en} + {self.slopes} of the nonlinearity", f"{zh} + 非线性函数的 {self.slopes} 个"
        en, zh = f"{en} = {s.parameters:,} parameters.", f"{zh} = {s.parameters:,} 个参数。"
        if isinstance(self.module, nn.Conv2d):
            times = f"{weight.numel():,} × {s.shape[1]} × {s.shape[2]} = {s.multiply_adds:,}"
            en += f" Each weight is used in every place: {times} multiply-adds."
            zh += f"每个权重在每个位置都用一次：{times} 次乘加。"
        else:
            en += f" Each weight is used once: {s.multiply_adds:,} multiply-adds."
            zh += f"每个权重只用一次：{s.multiply_adds:,} 次乘加。"
        return {"en": en, "zh": zh}


_SPACE = {"en": " ", "zh": ""}


def _joined(*parts: Words) -> Words:
    return {language: "".join(part[language] for part in parts) for language in ("en", "zh")}


def _unchanged(shape: tuple[int, ...], en: str, zh: str) -> Words:
    return {"en": f"{en} The shape stays {_shape(shape)}.", "zh": f"{zh}形状不变：{_shape(shape, '×')}。"}


def _shape(shape: Iterable[int], times: str = "x") -> str:
    return f" {times} ".join(map(str, shape))


def _plural(num: int, word: str) -> str:
    return word if num == 1 else f"{word}s"
