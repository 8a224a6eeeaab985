"""Claims that need no training: counted on the networks of this package, worked out from a formula, or read in the paper.

Shape suffixes: B images, V views, N masks, D units.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from alexnet.core.preprocessing import Preprocessing
from alexnet.evaluation.views import TEN, positions
from alexnet.models import build_model, model_config
from alexnet.models.lrn import LocalResponseNorm
from alexnet.models.summary import Stage, summarize
from alexnet.training.optimizer import PaperSGD


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A statement, what was computed of it, and whether they agree."""

    id: str
    """The claim's id and a word."""
    claim: str
    """Id in the ledger; several facts can belong to one claim."""
    statement: str
    """What is claimed, with the printed number."""
    computed: str
    """What was computed or read, in words and units."""
    value: float | tuple[float, ...]
    """The numbers that the verdict rests on."""
    verdict: Literal["confirmed", "contradicted"]
    how: str
    """From what it was computed, or where it was read."""
    source: Literal["computed", "read"] = "computed"
    """Whether it was computed, or what is printed answers it."""


def facts() -> tuple[Fact, ...]:
    """All facts, in the order of their claims. Takes a second or two; reads no data and trains nothing."""
    return (
        _parameters(),
        _neurons(),
        _share_of_each_convolution(),
        _one_tower_parameters(),
        _one_tower_arithmetic(),
        _lrn_constants(),
        _lrn_alpha(),
        _widths(),
        _input_values(),
        _listed_neurons(),
        _maps_of_conv1(),
        _places_of_a_crop(),
        _ten_views(),
        _size_of_color_noise(),
        _rule_at_a_constant_rate(),
        _dropout_of_a_linear_unit(),
        _dropout_under_cross_entropy(),
        _share_of_fully_connected(),
        _lenet_parameters(),
        _lenet_arithmetic(),
        _decay_is_l2(),
        _training_crops(),
        _deviations_as_printed(),
        _drops_as_printed(),
    )


# Size and geometry: C2, C5, C8, C14, C15 ------------------------------------------------------------------------------

PRINTED_NEURONS = (253_440, 186_624, 64_896, 64_896, 43_264, 4096, 4096, 1000)
"""Figure 2's caption, conv1 .. fc8."""


def _parameters() -> Fact:
    total = sum(stage.parameters for stage in _stages("alexnet_2012"))
    return Fact(
        id="C2-parameters",
        claim="C2",
        statement="The network has 60 million parameters.",
        computed=f"{total:,} parameters, {total / 60e6 * 100 - 100:+.1f} % (rounded, {total / 1e6:.0f} million)",
        value=total,
        verdict=_verdict(abs(total - 60e6) < 1e6),
        how="weights and biases of alexnet_2012, counted; confirmed if less than one unit of the last printed digit away",
    )


def _neurons() -> Fact:
    total = sum(map(_size, _layers("alexnet_2012")))
    return Fact(
        id="C2-neurons",
        claim="C2",
        statement="The network has 650,000 neurons.",
        computed=f"{total:,} outputs of conv1 to fc8, {total / 650e3 * 100 - 100:+.1f} % (rounded, {round(total, -4):,})",
        value=total,
        verdict=_verdict(abs(total - 650e3) < 10e3),
        how="shapes that alexnet_2012 gives for one image; confirmed if less than one unit of the last printed digit away",
    )


def _share_of_each_convolution() -> Fact:
    layers = _layers("alexnet_2012")
    total = sum(layer.parameters for layer in layers)
    shares = tuple(layer.parameters / total for layer in layers if len(layer.shape) == 3)
    return Fact(
        id="C5-share",
        claim="C5",
        statement="Each convolutional layer holds at most 1 % of the parameters.",
        computed="conv1 to conv5 hold " + ", ".join(f"{share * 100:.2f} %" for share in shares),
        value=shares,
        verdict=_verdict(max(shares) <= 0.01),
        how="weights and biases of each layer of alexnet_2012 over those of all",
    )


def _one_tower_parameters() -> Fact:
    two, one, narrow = (
        sum(stage.parameters for stage in stages)
        for stages in (
            _stages("alexnet_2012"),
            _stages("alexnet_2012_one_tower"),
            _stages("alexnet_2012_one_tower", conv_channels=(48, 128, 192, 192, 128)),
        )
    )
    return Fact(
        id="C8-parameters",
        claim="C8",
        statement="The last convolutional layer of the one-tower network was not halved, so that both networks have about as "
        "many parameters.",
        computed=f"one tower {one:,}, two towers {two:,}: {one / two * 100:.1f} %; "
        f"with conv5 halved too, {narrow:,}: {narrow / two * 100:.1f} %",
        value=(one, two),
        verdict=_verdict(0.95 < one / two < 1.05),
        how="alexnet_2012_one_tower and alexnet_2012, counted; confirmed if within 5 %",
    )


def _one_tower_arithmetic() -> Fact:
    two, one = (
        sum(stage.multiply_adds for stage in _stages(name)) for name in ("alexnet_2012", "alexnet_2012_one_tower")
    )
    return Fact(
        id="C8-arithmetic",
        claim="C8",
        statement="The comparison favors the one-tower network: it is more than half of the two-tower network.",
        computed=f"{one:,} multiply-adds an image against {two:,}: {one / two * 100:.1f} %",
        value=(one, two),
        verdict=_verdict(one / two > 0.5),
        how="alexnet_2012_one_tower and alexnet_2012, weights times positions, forward",
    )


def _widths() -> Fact:
    widths = tuple(layer.shape[0] for layer in _layers("alexnet_2012"))
    return Fact(
        id="C14-widths",
        claim="C14",
        statement="The layers have 96-256-384-384-256 kernels and 4096-4096-1000 units.",
        computed="-".join(map(str, widths[:5])) + ", " + "-".join(map(str, widths[5:])),
        value=widths,
        verdict=_verdict(widths == (96, 256, 384, 384, 256, 4096, 4096, 1000)),
        how="shapes that alexnet_2012 gives for one image",
    )


def _input_values() -> Fact:
    entry = _stages("alexnet_2012")[0]
    return Fact(
        id="C15-input",
        claim="C15",
        statement="The input has 150,528 values.",
        computed=" x ".join(map(str, entry.shape)) + f" = {_size(entry):,}",
        value=_size(entry),
        verdict=_verdict(_size(entry) == 150_528),
        how="shape that alexnet_2012 reads",
    )


def _listed_neurons() -> Fact:
    neurons = tuple(map(_size, _layers("alexnet_2012")))
    printed = PRINTED_NEURONS[0]
    return Fact(
        id="C15-neurons",
        claim="C15",
        statement="The layers have " + "-".join(f"{n:,}" for n in PRINTED_NEURONS) + " neurons.",
        computed="-".join(f"{n:,}" for n in neurons)
        + f": together {sum(neurons):,}, the printed ones {sum(PRINTED_NEURONS):,}. "
        f"The printed {printed:,} is 55 x 48 x 96; {printed // 96:,} positions of 96 kernels are no square map",
        value=neurons,
        verdict=_verdict(neurons == PRINTED_NEURONS),
        how="shapes that alexnet_2012 gives for one image, before pooling",
    )


def _maps_of_conv1() -> Fact:
    side = _layers("alexnet_2012")[0].shape[1]
    cut = _layers("alexnet_2012", overhang=False)[0].shape[1]
    wide = _layers("alexnet_2012", overhang=False, input_size=227)[0].shape[1]
    return Fact(
        id="C15-maps",
        claim="C15",
        statement="An image of 224 pixels gives maps of 55 x 55 in conv1.",
        computed=f"{side} x {side} if the last windows hang over the edge and read zeros, {cut} x {cut} if they do not. 227 "
        f"pixels would give {wide} x {wide} without overhang, but 256 less two equal borders is even",
        value=(side, cut, wide),
        verdict=_verdict(side == 55),
        how="shapes of alexnet_2012 with the 2012 program's rule (round up), and with torch's (round down)",
    )


# Normalization: C11 ---------------------------------------------------------------------------------------------------


def _lrn_constants() -> Fact:
    k, n, beta = ((w := _lrn("alexnet_2012_code").window).k, w.size, w.beta)
    return Fact(
        id="C11-constants",
        claim="C11",
        statement="k = 2, n = 5, beta = 0.75.",
        computed=f"k = {k:g}, n = {n}, beta = {beta:g}",
        value=(k, n, beta),
        verdict=_verdict((k, n, beta) == (2.0, 5, 0.75)),
        how="normalization of alexnet_2012_code, which has the constants of configuration 145",
    )


def _lrn_alpha() -> Fact:
    text, program = (_lrn(name).window.coefficient for name in ("alexnet_2012", "alexnet_2012_code"))
    return Fact(
        id="C11-alpha",
        claim="C11",
        statement="alpha = 1e-4 multiplies the sum of squares.",
        computed=f"{text:.0e} as the formula is printed, {program:.0e} in the program, which divides alpha by n first",
        value=(text, program),
        verdict=_verdict(math.isclose(text, program)),
        how="what one square counts for in alexnet_2012 (text) and alexnet_2012_code (configuration 145)",
    )


def _lrn(name: str) -> LocalResponseNorm:
    network = build_model(model_config(name), name=name, seed=None)
    return next(module for module in network.modules() if isinstance(module, LocalResponseNorm))


# Augmentation: C16, C17, C18, N35 -------------------------------------------------------------------------------------

COLOR_DEVIATIONS = (121.7801, 37.0939, 19.7208)
"""Standard deviations of ImageNet's pixels along their principal components, 0..255 (input_meta of cuda-convnet2)."""


def _offsets() -> int:
    """Number of different places of the crop along each side."""
    preprocessing = Preprocessing()
    return preprocessing.resize - preprocessing.crop + 1


def _places_of_a_crop() -> Fact:
    n = _offsets()
    num = n * n * 2
    return Fact(
        id="C16-places",
        claim="C16",
        statement="Crops and mirror images make the set 2,048 times larger.",
        computed=f"offsets 0 to {n - 1} both ways, and the mirror: {n} x {n} x 2 = {num:,} inputs an image; 2,048 is 32 x 32 x 2",
        value=num,
        verdict=_verdict(num == 2048),
        how="places of a 224-pixel square in 256 pixels",
    )


def _ten_views() -> Fact:
    preprocessing = Preprocessing()
    where = positions(TEN, np.zeros(1, dtype=np.int64), preprocessing.resize, preprocessing.resize, preprocessing.crop)
    views = {*zip(where.top_BV[0].tolist(), where.left_BV[0].tolist(), where.mirror_BV[0].tolist(), strict=True)}
    places = sorted({(top, left) for top, left, _ in views})
    far = preprocessing.resize - preprocessing.crop
    expected = sorted([*itertools.product((0, far), repeat=2), (far // 2, far // 2)])
    return Fact(
        id="C17-views",
        claim="C17",
        statement="Ten views: the four corners and the center, and their mirror images.",
        computed=f"{len(views)} different views at offsets " + ", ".join(f"({top}, {left})" for top, left in places),
        value=(len(views), len(places)),
        verdict=_verdict(len(views) == 10 and places == expected),
        how="the views that evaluation cuts out of 256 pixels",
    )


def _size_of_color_noise() -> Fact:
    deviation = max(COLOR_DEVIATIONS)
    by_eigenvalue, by_deviation = 0.1 * deviation**2, 0.1 * deviation
    on_unit_scale = 0.1 * (deviation / 255) ** 2 * 255
    return Fact(
        id="C18-size",
        claim="C18",
        statement="The color noise is a normal number of standard deviation 0.1 times the eigenvalue of each component, on "
        "pixels of 0 to 255.",
        computed=f"{by_eigenvalue:,.0f} grey levels along the first component, more than the 255 that there are; with its square "
        f"root, as in the program, {by_deviation:.1f}. On pixels of 0 to 1 the formula gives "
        f"{on_unit_scale:.1f} of these grey levels: it depends on the unit",
        value=(by_eigenvalue, by_deviation),
        verdict=_verdict(by_eigenvalue < 255),
        how="0.1 times the variance, and the standard deviation, that the author published for pixels of 0 to 255; the noise "
        "must be smaller than the range",
    )


def _training_crops() -> Fact:
    num = _offsets() ** 2 * 2
    return Fact(
        id="N35-crops",
        claim="N35",
        statement="Training uses five crops and their mirror images: 10 inputs an image.",
        computed=f"{num:,} inputs an image; the ten belong to the test",
        value=num,
        verdict=_verdict(num == 10),
        how="places of a 224-pixel square in 256 pixels, as training draws them",
    )


# What is printed: N36, N37 --------------------------------------------------------------------------------------------


def _deviations_as_printed() -> Fact:
    return Fact(
        id="N36-text",
        claim="N36",
        statement="The 0.01 of the initial weights and the 0.1 of the color noise are variances.",
        computed="the paper calls both standard deviations, and the program multiplies standard normal numbers by them",
        value=(0.01, 0.1),
        verdict="contradicted",
        how="sections 5 and 4.1 of the paper; initW in the 2012 program's layer.py",
        source="read",
    )


def _drops_as_printed() -> Fact:
    return Fact(
        id="N37-text",
        claim="N37",
        statement="The rate is divided by ten when the validation error rises.",
        computed="the paper divides it when the validation error stops improving; it need not rise",
        value=10.0,
        verdict="contradicted",
        how="section 5 of the paper",
        source="read",
    )


# The update rule: C20, N29 --------------------------------------------------------------------------------------------


def _rule_at_a_constant_rate() -> Fact:
    steps = [0.01] * 100
    paper, torchs = _way(PaperSGD, steps), _way(torch.optim.SGD, steps)
    apart = float((paper - torchs).abs().max())
    # After the drop there is neither gradient nor decay: what is left is the velocity running out.
    drop = [0.01] * 100 + [0.001] * 400
    coast_paper, coast_torch = (_way(kind, drop, gradients=100, decay=0.0) for kind in (PaperSGD, torch.optim.SGD))
    velocity = coast_paper[100] - coast_paper[99]
    velocities = float(((coast_paper[-1] - coast_torch[-1]) / velocity).abs())
    return Fact(
        id="C20-rule",
        claim="C20",
        statement="The printed rule, with the rate inside the velocity, is that of today's libraries while the rate is constant.",
        computed=f"{_apart(apart)} in 100 steps of 0.01. After a division of the rate by ten the two end up "
        f"{velocities:.1f} velocities apart",
        value=(apart, velocities),
        verdict=_verdict(apart < EXACT),
        how="one weight in float64 under the same gradients, by the printed rule and by torch.optim.SGD",
    )


def _decay_is_l2() -> Fact:
    steps = [0.01] * 50 + [0.001] * 50
    decayed = _way(PaperSGD, steps)
    penalized = _way(PaperSGD, steps, decay=0.0, penalty=0.0005)
    apart = float((decayed - penalized).abs().max())
    return Fact(
        id="N29-steps",
        claim="N29",
        statement="For SGD, weight decay and an L2 penalty in the loss are the same.",
        computed=f"{_apart(apart)} in 100 steps, the rate divided by ten half way",
        value=apart,
        verdict=_verdict(apart < EXACT),
        how="one weight in float64: the printed rule with decay 0.0005, and without on the loss plus 0.0005/2 times its square",
    )


EXACT = 1e-12
"""Two ways to compute the same weight in float64 differ by less than this if rounding alone is the cause."""


def _apart(difference: float) -> str:
    return "the same but for rounding" if difference < EXACT else f"up to {difference:.1g} apart"


def _way(
    kind: Callable[..., torch.optim.Optimizer],
    rates: list[float],
    *,
    gradients: int | None = None,
    decay: float = 0.0005,
    penalty: float = 0.0,
) -> torch.Tensor:
    """A weight that starts at 1, after 0, 1, .. steps at these rates. Its loss has the slope cos(step), for the first
    ``gradients`` steps (None: all), then none; ``penalty`` / 2 times its square comes on top."""
    w = nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = kind([w], lr=rates[0], momentum=0.9, weight_decay=decay)
    way = [w.detach().clone()]
    for step, rate in enumerate(rates):
        slope = math.cos(step) if gradients is None or step < gradients else 0.0
        w.grad = slope + penalty * w.detach()
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        way.append(w.detach().clone())
    return torch.cat(way)


# Dropout: N8 ----------------------------------------------------------------------------------------------------------

_TERMS = np.array([1.5, -0.5, 2.0, -1.0, 0.25, 1.0])
"""Weight times input of each of six units that feed a linear one."""
_MASKS_ND = np.array(list(itertools.product((0.0, 1.0), repeat=len(_TERMS))))


def _dropout_of_a_linear_unit() -> Fact:
    target = 0.75
    dropped = float(((_MASKS_ND @ _TERMS - target) ** 2).mean())
    penalized = (_TERMS.sum() / 2 - target) ** 2 + (_TERMS**2).sum() / 4
    return Fact(
        id="N8-linear",
        claim="N8",
        statement="For a linear unit and squared error dropout is more than an L2 penalty.",
        computed=f"mean squared error over all masks {dropped:.6f}; of the halved output, plus a quarter of the sum of squares "
        f"of weight times input, {penalized:.6f}",
        value=(dropped, penalized),
        verdict=_verdict(not math.isclose(dropped, penalized, rel_tol=1e-12)),
        how=f"all {len(_MASKS_ND)} masks of six units; the penalty counts each weight by its input",
    )


def _dropout_under_cross_entropy() -> Fact:
    penalties = [
        float(np.logaddexp(0, -_MASKS_ND @ terms).mean() - np.logaddexp(0, -terms.sum() / 2))
        for terms in (_TERMS, 2 * _TERMS)
    ]
    growth = penalties[1] / penalties[0]
    return Fact(
        id="N8-cross-entropy",
        claim="N8",
        statement="Under cross-entropy dropout is more than an L2 penalty, which doubled weights make four times as large.",
        computed=f"what dropout adds to the loss becomes {growth:.2f} times as large",
        value=growth,
        verdict=_verdict(not math.isclose(growth, 4.0, rel_tol=0.01)),
        how=f"mean loss over all {len(_MASKS_ND)} masks of six units, less the loss of the halved output; two classes",
    )


# Other networks: N11, N21 ----------------------------------------------------------------------------------------------


def _share_of_fully_connected() -> Fact:
    layers = _layers("alexnet_2012")
    connected = [layer for layer in layers if len(layer.shape) == 1]
    memory = sum(layer.parameters for layer in connected) / sum(layer.parameters for layer in layers)
    work = sum(layer.multiply_adds for layer in connected) / sum(layer.multiply_adds for layer in layers)
    averaged = sum(stage.parameters for stage in _stages("alexnet_2012", head="global_average"))
    return Fact(
        id="N11-memory",
        claim="N11",
        statement="The fully connected layers hold most of the memory.",
        computed=f"{memory * 100:.1f} % of the parameters, {work * 100:.1f} % of the multiply-adds; averaged maps "
        f"instead of fc6 and fc7 leave {averaged:,} parameters",
        value=(memory, work),
        verdict=_verdict(memory > 0.5),
        how="alexnet_2012, layer by layer, and with a global-average head",
    )


def _lenet_parameters() -> Fact:
    small, large = (sum(stage.parameters for stage in _stages(name)) for name in ("lenet", "alexnet_d2l"))
    return Fact(
        id="N21-parameters",
        claim="N21",
        statement="AlexNet has 10 times the parameters of LeNet.",
        computed=f"{large:,} against {small:,}: {large / small:,.0f} times",
        value=large / small,
        verdict=_verdict(9.5 <= large / small < 10.5),
        how="the textbook's pair, alexnet_d2l and lenet, counted; confirmed if it rounds to 10",
    )


def _lenet_arithmetic() -> Fact:
    small, large = (sum(stage.multiply_adds for stage in _stages(name)) for name in ("lenet", "alexnet_d2l"))
    return Fact(
        id="N21-arithmetic",
        claim="N21",
        statement="AlexNet takes 260 times the computation of LeNet.",
        computed=f"{large:,} multiply-adds an image against {small:,}: {large / small:,.0f} times",
        value=large / small,
        verdict=_verdict(255 <= large / small < 265),
        how="the textbook's pair, alexnet_d2l and lenet, weights times positions; confirmed if it rounds to 260",
    )


# Counting -------------------------------------------------------------------------------------------------------------


def _stages(name: str, **fields: Any) -> list[Stage]:
    """The stages of a named network with fields replaced; its weights take no memory."""
    return summarize(build_model(model_config(name, **fields), name=name, seed=None))


def _layers(name: str, **fields: Any) -> list[Stage]:
    """The layers with weights of a named network, conv1 .. fc8."""
    return [stage for stage in _stages(name, **fields) if stage.multiply_adds]


def _size(stage: Stage) -> int:
    return math.prod(stage.shape)


def _verdict(holds: bool) -> Literal["confirmed", "contradicted"]:
    return "confirmed" if holds else "contradicted"
