"""Which pixels a network's answer rests on, by five methods, and two tests that keep their pictures from being believed on
sight: do the marked pixels matter to the answer, and does the map change when the weights do?

Every method explains the logit of one class for one image.

Shape suffixes: B images, C channels, H rows, W columns, P pixels (H times W), S steps of a curve, h rows and w columns of a
layer's maps.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from alexnet.core import rng
from alexnet.core.config import to_json
from alexnet.core.device import Precision, autocast
from alexnet.core.errors import AlexNetError, UsageError, printable
from alexnet.core.preprocessing import Preprocessing
from alexnet.data.pictures import image_files
from alexnet.evaluation.classes import by_name
from alexnet.evaluation.error_rate import mean_log_probability
from alexnet.evaluation.finding import Finding
from alexnet.evaluation.layers import Layer, ReceptiveField, network_layers, with_relu_modules
from alexnet.evaluation.predict import Predictor
from alexnet.evaluation.subject import ImagesSettings, Subject
from alexnet.evaluation.views import view_of
from alexnet.models import build_model
from alexnet.models.layers import WEIGHT_LAYERS, LocalConv2d
from alexnet.models.lrn import kernels_in_use
from alexnet.report.pictures.saliency import TITLES, caption, draw_maps, draw_sanity, draw_scores

Method = Literal["gradient", "integrated_gradients", "guided_backprop", "grad_cam", "occlusion"]
METHODS: tuple[Method, ...] = get_args(Method)
RANDOM, CENTER_PRIOR = "random", "center_prior"
"""Orders of the pixels that do not look at the network: what a method has to be better than."""

PATH_STEPS = 16
"""Points on the path of integrated gradients, placed by Gauss and Legendre."""
WINDOW, STRIDE = 1 / 4, 1 / 8
"""Window and stride of occlusion, as shares of the side: 56 and 28 pixels of 224, 49 places."""
CURVE_STEPS = 16
"""Equal steps in which the pixels are removed or inserted."""
BLUR = 0.05
"""Standard deviation of the blur that insertion starts from, as a share of the side: 11 pixels of 224."""
SAME_RANKS = math.sqrt(0.5)
"""Rank correlation above which two maps have more than half of the variance of their ranks in common."""
BATCH = 32
"""Inputs in one forward pass, whatever the number of images."""
TOGETHER = 8
"""Images whose maps are made at a time."""

TITLE = "Where an answer comes from"
SENTENCE = "The pixels that an answer rests on, by several methods, and tests of whether their pictures deserve belief."


@dataclass(frozen=True, kw_only=True)
class Settings(ImagesSettings):
    """Which pixels an answer rests on: gradient, integrated gradients, guided backpropagation, Grad-CAM and occlusion, with
    deletion and insertion scores, and a check with random weights.

    alexnet probe saliency runs/mine
    alexnet probe saliency runs/mine cat.jpg dog.jpg --scored 0 --sanity 0
    """

    precision: Precision = "float32"
    """Number format to compute in. bfloat16 has three digits: too few for small differences of logits."""
    images: tuple[str, ...] = field(default=(), metadata={"positional": True})
    """Files or folders to draw the maps of; by default random held-out images."""
    count: int = 8
    """Held-out images to draw, where none are given."""
    scored: int = 50
    """Held-out images to score by deletion and insertion; 0 for none."""
    sanity: int = 8
    """How many of the scored images to check with random weights; 0 for none."""
    seed: int = 0
    """Seed for choosing images, for random orders and for random weights."""

    def __post_init__(self) -> None:
        if self.count < 1 or min(self.scored, self.sanity) < 0:
            raise ValueError("Settings.count needs at least 1; Settings.scored and Settings.sanity need at least 0")
        if self.sanity > self.scored:
            raise ValueError(
                f"Settings.sanity is {self.sanity}, but only {self.scored} images are scored; raise Settings.scored"
            )


def measure(subject: Subject, settings: Settings) -> Finding:
    """The maps of all methods, of files or of held-out images; and of the held-out images what the two tests say of each
    method."""
    _captum()
    predictor = subject.predictor
    kernels_in_use(subject.machine.device, build=True)
    files = list(image_files(settings.images))
    pixels = [predictor.pixels(file) for file in files]
    split = None
    if num := max(settings.scored, 0 if files else settings.count):
        split = subject.images
        image_N, label_N, held_out = _held_out(subject, settings.seed, num)
    if files:
        drawn = _explain(subject, np.stack(pixels), "maps")
        images = _answered(predictor, drawn, files, [None] * len(files))
    else:
        assert split is not None
        drawn, some = held_out.first(settings.count), slice(settings.count)
        images = _answered(predictor, drawn, [split.paths[i] for i in image_N[some]], label_N[some].tolist())
    body: dict[str, Any] = {"images": images}
    if settings.scored:
        some = slice(settings.scored)
        body["scores"] = _scored(subject, held_out.first(settings.scored), image_N[some], label_N[some], settings.seed)
    if settings.sanity:
        checked = held_out.first(settings.sanity)
        with subject.progress("random weights", 1, "layers") as bar:
            body["sanity"] = sanity(
                predictor, checked.x_BCHW, checked.target_B, checked.map_of, seed=settings.seed, progress=bar
            )
    pictures = {"saliency.png": draw_maps(drawn.seen_BHWC, drawn.map_of, [_title(row) for row in images], body)}
    if settings.scored:
        pictures["saliency-scores.png"] = draw_scores(body["scores"])
    if settings.sanity:
        pictures["saliency-sanity.png"] = draw_sanity(body["sanity"])
    return Finding(
        subject=subject.record(None if split is None else split.name),
        n=len(images),
        summary=_summary(body),
        body=body,
        protocol={
            **explained(predictor.preprocessing, predictor.model),
            "precision": predictor.precision,
            "preprocessing": to_json(predictor.preprocessing),
        },
        lines=_lines(body),
        pictures=pictures,
    )


@dataclass(frozen=True, eq=False)
class Explanation:
    """Images, the network's answers, and the maps of all methods for these answers."""

    x_BCHW: Tensor
    seen_BHWC: NDArray[np.uint8]
    target_B: Tensor
    probability_B: Tensor
    map_of: Mapping[Any, NDArray[np.float32]]
    """By method."""

    def first(self, num: int) -> Explanation:
        return Explanation(
            self.x_BCHW[:num],
            self.seen_BHWC[:num],
            self.target_B[:num],
            self.probability_B[:num],
            {method: map_BHW[:num] for method, map_BHW in self.map_of.items()},
        )


def _explain(subject: Subject, pixels_BSSC: NDArray[np.uint8], what: str) -> Explanation:
    predictor = subject.predictor
    x_BCHW, seen_BHWC = center_inputs(predictor, pixels_BSSC)
    probability_B, target_B = answers(predictor, x_BCHW).max(1)
    parts: dict[Method, list[NDArray[np.float32]]] = {method: [] for method in METHODS}
    with subject.progress(what, len(x_BCHW)) as bar:
        for start in range(0, len(x_BCHW), TOGETHER):
            some = slice(start, start + TOGETHER)
            for method in METHODS:
                parts[method].append(saliency(predictor, x_BCHW[some], target_B[some], method))
            bar.update(min(start + TOGETHER, len(x_BCHW)))
    maps = {method: np.concatenate(found) for method, found in parts.items()}
    return Explanation(x_BCHW, seen_BHWC, target_B, probability_B, maps)


def _held_out(subject: Subject, seed: int, num: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Explanation]:
    """At most ``num`` images at random: their numbers, their classes as the network has them, and their maps."""
    packed, split, ours = subject.packed, subject.images, subject.predictor.classes
    known = by_name(split, packed.classes, ours, where=packed.source, model=str(subject.model))
    image_N = rng.permutation(seed, "saliency/images", 0, len(split))[:num]
    return image_N, known.labels[image_N], _explain(subject, split.read(image_N), "maps of held-out images")


def _answered(
    predictor: Predictor, drawn: Explanation, paths: Sequence[str], labels: Sequence[int | None]
) -> list[dict[str, Any]]:
    """Each image that is drawn, with the network's answer; its class where that is known."""
    classes = [printable(name) for name in predictor.classes]
    return [
        {
            "path": path,
            "class": None if label is None else classes[label],
            "predicted": classes[target],
            "probability": probability,
        }
        for path, label, target, probability in zip(
            paths, labels, drawn.target_B.tolist(), drawn.probability_B.tolist(), strict=True
        )
    ]


def _title(image: Mapping[str, Any]) -> str:
    wrong = image["class"] not in (None, image["predicted"])
    return f"{image['predicted']}, {image['probability']:.0%}" + (f"\n(is {image['class']})" if wrong else "")


def _scored(
    subject: Subject, some: Explanation, image_B: NDArray[np.int64], label_B: NDArray[np.int64], seed: int
) -> dict[str, Any]:
    predictor, x_BCHW, target_B = subject.predictor, some.x_BCHW, some.target_B
    with subject.progress("deletion and insertion", len(image_B)) as bar:
        curves = deletion_insertion(predictor, x_BCHW, target_B, some.map_of, seed=seed, image_B=image_B, progress=bar)
    return {
        "n": len(image_B),
        "mean_probability": float(some.probability_B.mean()),
        "share_right": float((target_B.numpy() == label_B).mean()),
        "integrated_gradients_off": incompleteness(predictor, x_BCHW, target_B, some.map_of["integrated_gradients"]),
        "orders": scores(curves),
    }


def _summary(body: Mapping[str, Any]) -> dict[str, float | str]:
    """The figures of the report: what the tests say of each method."""
    summary: dict[str, float | str] = {}
    for method, score in body.get("scores", {}).get("orders", {}).items():
        areas = (score[kind]["area"]["mean"] for kind in ("deletion", "insertion"))
        summary[f"deletion and insertion area, {TITLES[method]}"] = " and ".join(f"{area:.3f}" for area in areas)
    for method, rows in body.get("sanity", {}).get("correlation", {}).items():
        at = body["sanity"]["layers_of_the_verdict"] - 1
        verdict = ", not to be trusted" if method in body["sanity"]["fail"] else ""
        summary[f"rank correlation with half the layers random, {TITLES[method]}"] = f"{rows[at]['mean']:.2f}{verdict}"
    return summary


def _lines(body: Mapping[str, Any]) -> list[str]:
    lines = [f"{printable(row['path'])}: {row['predicted']} {row['probability']:.1%}" for row in body["images"]]
    if table := body.get("scores"):
        title = f"area under the curve, {table['n']} images"
        lines += ["", f"{title:<38} deletion  minus random [95 %]        insertion  minus random [95 %]"]
        for method, score in table["orders"].items():
            cells = []
            for kind in ("deletion", "insertion"):
                mean, d = score[kind]["area"]["mean"], score[kind].get("minus_random")
                against = f"{d['mean']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}]" if d else ""
                cells.append(f"{mean:>8.3f}  {against:<25}")
            lines.append(f"{TITLES[method]:<38} {'  '.join(cells)}".rstrip())
    if check := body.get("sanity"):
        title = f"rank correlation, {check['n']} images, random to"
        lines += ["", f"{title:<40} {'  '.join(f'{layer:>6}' for layer in check['layers'])}   other image"]
        for method, rows in check["correlation"].items():
            means = "  ".join(f"{row['mean']:>6.2f}" for row in rows)
            other = check["other_image"].get(method)
            lines.append(f"{TITLES[method]:<40} {means}   {other['mean'] if other else 0:>11.2f}")
    return [*lines, "", *caption(body).splitlines()]


def explained(preprocessing: Preprocessing, model: nn.Module) -> dict[str, str]:
    """What each method and each test computes for this network, in words."""
    baseline = "the mean image" if preprocessing.mean == "image" else "the mean color"
    if preprocessing.mean == "none":
        baseline = "black"
    side = preprocessing.crop
    window, stride = window_and_stride(side)
    layer = _last_convolution(with_relu_modules(model))
    relu = any(isinstance(module, nn.ReLU) for module in with_relu_modules(model).modules())
    return {
        "explained": "logit of the predicted class, center view",
        "baseline": f"input 0, which is {baseline}",
        "gradient": "largest absolute gradient of the channels (Simonyan et al. 2014)",
        "integrated_gradients": f"summed over channels, signed; from the baseline, {PATH_STEPS} Gauss-Legendre points "
        "(Sundararajan et al. 2017)",
        "guided_backprop": "largest absolute value of the channels (Springenberg et al. 2015)"
        + ("" if relu else "; this network has no ReLU, so it is the gradient"),
        "grad_cam": f"{layer.name} after its nonlinearity if that follows directly, {' x '.join(map(str, layer.shape))}, "
        "rectified; each unit stands at the middle of what it sees, bilinear between (Selvaraju et al. 2017)",
        "occlusion": f"fall of the logit when a window of {window} x {window} pixels is set to the baseline, stride {stride}, "
        "averaged over the windows that cover a pixel (Zeiler and Fergus 2014)",
        "deletion": f"pixels set to the baseline in {CURVE_STEPS} equal steps, the most salient first; area under the "
        "probability of the class predicted for the whole image (Petsiuk et al. 2018)",
        "insertion": f"pixels put back into the image blurred by {BLUR:.0%} of its side, likewise",
        "orders": "random: a random order; center_prior: from the center outwards; equal pixels in random order",
        "sanity": "fresh initial weights from the last layer down, one layer more at a time; Spearman's correlation of the "
        "absolute maps with those of the trained network (Adebayo et al. 2018); `fail`: with the last half of the layers "
        "random, the interval of the mean is above 0.71, so that more than half of the variance of the ranks is the same",
        "intervals": "95 %, of the mean over images, Student's t",
    }


def saliency(predictor: Predictor, x_BCHW: Tensor, target_B: Tensor, method: Method) -> NDArray[np.float32]:
    """How much each pixel of each input matters to the logit of its target class: (B, H, W), larger is more.

    Gradient and guided backpropagation are the largest absolute value of the channels, Grad-CAM is rectified; integrated
    gradients (summed over channels) and occlusion have a sign: a negative pixel speaks against the class. Raises
    :class:`UsageError` for an unknown method and :class:`AlexNetError` for a map that is not finite."""
    if method not in METHODS:
        raise UsageError(f"no method is called {printable(method)!r}; the methods are {', '.join(METHODS)}")
    attr, model = _captum(), with_relu_modules(predictor.model)
    x_BCHW = x_BCHW.detach().double() if predictor.precision == "float64" else x_BCHW.detach()
    target_B = target_B.to(x_BCHW.device)

    def logits(x_BCHW: Tensor) -> Tensor:
        output_BK: Tensor = model(x_BCHW)
        return output_BK.double() if predictor.precision == "float64" else output_BK.float()

    with autocast(predictor.device, predictor.precision), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum announces its hooks
        if method == "gradient":
            map_BHW = attr.Saliency(logits).attribute(x_BCHW, target_B, abs=True).amax(1)
        elif method == "integrated_gradients":
            map_BHW = (
                attr.IntegratedGradients(logits)
                .attribute(x_BCHW, 0.0, target_B, n_steps=PATH_STEPS, internal_batch_size=max(BATCH, len(x_BCHW)))
                .sum(1)
            )
        elif method == "guided_backprop":
            map_BHW = attr.GuidedBackprop(model).attribute(x_BCHW, target_B).abs().amax(1)
        elif method == "grad_cam":
            layer = _last_convolution(model)
            cam = attr.LayerGradCam(logits, model.get_submodule(layer.path))
            map_B1hw = cam.attribute(x_BCHW, target_B, relu_attributions=True)
            map_BHW = place(map_B1hw[:, 0], layer.field, x_BCHW.shape[2])
        else:
            num, (window, stride) = x_BCHW.shape[1], window_and_stride(x_BCHW.shape[2])
            map_BHW = attr.Occlusion(logits).attribute(
                x_BCHW,
                sliding_window_shapes=(num, window, window),
                strides=(num, stride, stride),
                baselines=0.0,
                target=target_B,
                perturbations_per_eval=max(1, BATCH // len(x_BCHW)),
            )[:, 0]
    if not torch.isfinite(map_BHW).all():
        raise AlexNetError(
            f"the map of {method} is not finite; pass --precision float32, or name an earlier checkpoint"
        )
    found_BHW: NDArray[np.float32] = map_BHW.detach().float().cpu().numpy()
    return found_BHW


def window_and_stride(side: int) -> tuple[int, int]:
    """Window and stride of occlusion, in pixels, for inputs of this side."""
    return max(1, round(side * WINDOW)), max(1, round(side * STRIDE))


def place(map_Bhw: Tensor, field: ReceptiveField | None, side: int) -> Tensor:
    """Maps of a layer brought to the size of the input, (B, side, side): each unit has its value at the middle of the pixels
    that it sees, between them it is bilinear, and constant beyond the outermost. Without a ``field`` the units are taken to
    divide the input evenly."""
    h = map_Bhw.shape[1]
    stride = field.stride if field else side / h
    first = field.offset + (field.size - 1) / 2 if field else (stride - 1) / 2
    position_S = ((torch.arange(side, dtype=torch.float64) - first) / stride).clamp(0, h - 1)
    weight_Sh = (1 - (position_S[:, None] - torch.arange(h)).abs()).clamp(min=0).to(map_Bhw)
    return weight_Sh @ map_Bhw @ weight_Sh.T


def center_inputs(predictor: Predictor, pixels_BSSC: NDArray[np.uint8]) -> tuple[Tensor, NDArray[np.uint8]]:
    """The center view of stored images, as the network reads it, (B, C, H, W), and as it looks, (B, H, W, C) uint8."""
    pixels = torch.from_numpy(pixels_BSSC)
    (x_BCHW,) = predictor.inputs(pixels)
    return x_BCHW, view_of(pixels, predictor.preprocessing)


@torch.no_grad()
def answers(predictor: Predictor, x_BCHW: Tensor) -> Tensor:
    """Probabilities of the classes, (B, K) float64."""
    inputs = (x_BCHW[start : start + BATCH] for start in range(0, len(x_BCHW), BATCH))
    parts = [mean_log_probability(predictor.model.eval(), [part], predictor.precision) for part in inputs]
    return torch.cat(parts).double().exp()


@torch.no_grad()
def incompleteness(
    predictor: Predictor, x_BCHW: Tensor, target_B: Tensor, integrated_BHW: NDArray[np.float32]
) -> dict[str, float]:
    """How far the sums of integrated gradients are from what they should be, the logit less that of the baseline: mean
    absolute difference, and the mean absolute value of what they should be. It is the error of the finite number of points."""
    with autocast(predictor.device, predictor.precision):
        x_BCHW = x_BCHW.double() if predictor.precision == "float64" else x_BCHW
        rise_BK = predictor.model.eval()(x_BCHW).double() - predictor.model(torch.zeros_like(x_BCHW[:1])).double()
    rise_B = rise_BK.cpu().gather(1, target_B.cpu()[:, None])[:, 0].numpy()
    off_B = integrated_BHW.sum((1, 2), dtype=np.float64) - rise_B
    return {"mean_absolute": float(np.abs(off_B).mean()), "of_mean_absolute": float(np.abs(rise_B).mean())}


# Do the pixels that a map marks matter? ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curves:
    """Probability of the target class while pixels are removed, or inserted, in the order of a map."""

    deletion_BS: NDArray[np.float64]
    """From the whole image (first) to the baseline (last): the faster it falls, the better the map."""
    insertion_BS: NDArray[np.float64]
    """From the blurred image to the whole: the faster it rises, the better."""


def deletion_insertion(
    predictor: Predictor,
    x_BCHW: Tensor,
    target_B: Tensor,
    map_of: Mapping[str, NDArray[np.float32]],
    *,
    seed: int,
    image_B: NDArray[np.int64],
    steps: int = CURVE_STEPS,
    progress: Callable[[int, int], object] | None = None,
) -> dict[str, Curves]:
    """Deletion and insertion (Petsiuk et al. 2018) for each map, and for a random order and one from the center outwards,
    ``steps`` equal shares of the pixels at a time. Equal pixels of a map come in a random order, which depends on ``seed``
    and on the number of the image, ``image_B``, alone."""
    num, _, height, width = x_BCHW.shape
    random_BP = np.stack([rng.uniform(seed, "saliency/order", 0, i, height * width)[0] for i in image_B[:, None]])
    y_H, x_W = np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2
    center_HW = -np.hypot(y_H[:, None], x_W[None, :])  # orders the pixels as a Gaussian of any width does
    all_maps: dict[str, NDArray[Any]] = {
        **map_of,
        RANDOM: np.zeros((num, height, width)),
        CENTER_PRIOR: np.broadcast_to(center_HW, (num, height, width)),
    }
    curves = {name: Curves(np.empty((num, steps + 1)), np.empty((num, steps + 1))) for name in all_maps}
    removed_S = np.round(np.linspace(0, height * width, steps + 1)).astype(np.int64)[1:-1]
    for b in range(num):
        blurred_CHW, k = blur(x_BCHW[b]), int(target_B[b])
        ends = torch.stack([x_BCHW[b], torch.zeros_like(blurred_CHW), blurred_CHW])  # ends of all curves
        whole, nothing, start = answers(predictor, ends)[:, k].tolist()
        for name, map_BHW in all_maps.items():
            rank_P = np.empty(height * width, dtype=np.int64)
            rank_P[np.lexsort((random_BP[b], -map_BHW[b].ravel()))] = np.arange(height * width)
            first_S1HW = torch.from_numpy(rank_P.reshape(1, 1, height, width) < removed_S[:, None, None, None])
            first_S1HW = first_S1HW.to(x_BCHW.device)
            without_SCHW = torch.where(first_S1HW, torch.zeros_like(blurred_CHW), x_BCHW[b])
            with_SCHW = torch.where(first_S1HW, x_BCHW[b], blurred_CHW)
            inputs = torch.cat([without_SCHW, with_SCHW]).contiguous(memory_format=torch.channels_last)
            removed, inserted = np.split(answers(predictor, inputs)[:, k].numpy(), 2)
            curves[name].deletion_BS[b] = [whole, *removed, nothing]
            curves[name].insertion_BS[b] = [start, *inserted, whole]
        if progress:
            progress(b + 1, num)
    return curves


def blur(x_CHW: Tensor) -> Tensor:
    """A Gaussian blur of :data:`BLUR` of the side, the border repeated."""
    from scipy.ndimage import gaussian_filter

    sigma = BLUR * x_CHW.shape[1]
    blurred_CHW = gaussian_filter(x_CHW.double().cpu().numpy(), (0, sigma, sigma), mode="nearest")
    return torch.from_numpy(blurred_CHW).to(x_CHW)


def area(curve_BS: NDArray[np.float64]) -> NDArray[np.float64]:
    """Under each curve, the horizontal axis going from 0 to 1: (B,)."""
    return np.asarray((curve_BS[:, 1:] + curve_BS[:, :-1]).mean(1) / 2)


def scores(curves: Mapping[str, Curves]) -> dict[str, Any]:
    """Areas under the curves of each order, as means over the images with 95 % intervals, and their differences, image by
    image, from the random order and from the center prior."""
    table: dict[str, Any] = {}
    for name, own in curves.items():
        table[name] = {}
        for kind in ("deletion", "insertion"):
            area_B = area(getattr(own, f"{kind}_BS"))
            table[name][kind] = {
                "area": mean_interval(area_B),
                "curve": getattr(own, f"{kind}_BS").mean(0).tolist(),
                **{
                    f"minus_{other}": mean_interval(area_B - area(getattr(curves[other], f"{kind}_BS")))
                    for other in (RANDOM, CENTER_PRIOR)
                    if other in curves and other != name
                },
            }
    return table


def mean_interval(value_N: NDArray[np.float64]) -> dict[str, float]:
    """The mean and its 95 % interval by Student's t; of a single value, no wider than itself."""
    from scipy.stats import t

    n, mean = len(value_N), float(value_N.mean())
    half = float(t.ppf(0.975, n - 1) * value_N.std(ddof=1) / math.sqrt(n)) if n > 1 else 0.0
    return {"mean": mean, "low": mean - half, "high": mean + half}


# Does a map change when the weights do? ----------------------------------------------------------------------------------


def cascade(predictor: Predictor, seed: int) -> Iterator[tuple[str, Predictor]]:
    """The network with fresh weights in its last layer, then in its last two, down to the first (Adebayo et al. 2018): the name
    of the layer that was added, and the network, which the next step changes. Fresh weights are drawn as the
    network's own initial weights are, from a seed of their own: with that of its training they would be its first weights.
    Gains of batch, layer and group normalization stay."""
    own_seed = int(rng.keys(seed, "saliency/weights", 0, np.zeros(1, dtype=np.int64))[0] >> np.uint64(1))
    config: Any = predictor.model.config
    fresh = build_model(config, name=predictor.name, seed=own_seed).to(next(predictor.model.parameters()))
    model = with_relu_modules(predictor.model)
    paths = [path for path, module in model.named_modules() if isinstance(module, WEIGHT_LAYERS)]
    for path in reversed(paths):
        model.set_submodule(path, fresh.get_submodule(path))
        yield path.rpartition(".")[2], replace(predictor, model=model)


def rank_correlation(one_HW: NDArray[Any], other_HW: NDArray[Any]) -> float:
    """Spearman's, of the absolute values of two maps; 0 if one of them is the same everywhere and so orders nothing."""
    from scipy.stats import rankdata

    one_P, other_P = rankdata(np.abs(one_HW)), rankdata(np.abs(other_HW))
    if one_P.std() == 0 or other_P.std() == 0:
        return 0.0
    return float(np.corrcoef(one_P, other_P)[0, 1])


def sanity(
    predictor: Predictor,
    x_BCHW: Tensor,
    target_B: Tensor,
    map_of: Mapping[Method, NDArray[np.float32]],
    *,
    seed: int,
    progress: Callable[[int, int], object] | None = None,
) -> dict[str, Any]:
    """How alike each method's maps stay, by :func:`rank_correlation`, while :func:`cascade` replaces the weights: for each
    layer the mean over the images with its 95 % interval. ``other_image`` is the correlation of each image's map with that
    of the next image: what maps share without having anything to do with each other. ``fail`` names the methods whose maps
    do not tell what the network has learned: with the last half of the layers random, the interval of the mean still lies
    above :data:`SAME_RANKS`."""
    layers: list[str] = []
    found: dict[str, list[dict[str, float]]] = {method: [] for method in map_of}
    constant: dict[str, int] = {}
    total = sum(isinstance(module, WEIGHT_LAYERS) for module in predictor.model.modules())
    half = math.ceil(total / 2)
    for layer, random in cascade(predictor, seed):
        layers.append(layer)
        for method, map_BHW in map_of.items():
            new_BHW = saliency(random, x_BCHW, target_B, method)
            rows = [rank_correlation(old, new) for old, new in zip(map_BHW, new_BHW, strict=True)]
            found[method].append(mean_interval(np.array(rows)))
            constant[method] = int((np.ptp(new_BHW, axis=(1, 2)) == 0).sum())
        if progress:
            progress(len(layers), total)
    other = {
        method: mean_interval(np.array([rank_correlation(a, b) for a, b in zip(m, np.roll(m, 1, 0), strict=True)]))
        for method, m in map_of.items()
    }
    return {
        "n": len(x_BCHW),
        "layers": layers,
        "correlation": found,
        "other_image": other if len(x_BCHW) > 1 else {},
        "constant_maps_at_the_end": constant,
        "layers_of_the_verdict": half,
        "fail": [method for method, rows in found.items() if rows[half - 1]["low"] > SAME_RANKS],
    }


def _last_convolution(model: nn.Module) -> Layer:
    kinds = (nn.Conv2d, LocalConv2d)
    names = {path.rpartition(".")[2] for path, module in model.named_modules() if isinstance(module, kinds)}
    return [layer for layer in network_layers(model) if layer.name in names][-1]


def _captum() -> ModuleType:
    try:
        import captum.attr
    except ImportError:
        raise AlexNetError('saliency maps need captum; install it with pip install "alexnet[probe]"') from None
    module: ModuleType = captum.attr
    return module
