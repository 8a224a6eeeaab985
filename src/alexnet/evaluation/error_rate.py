"""Exact error rates of a network on a split: every image once, counted in integers, divided at the end.

One ranking decides everything: classes in order of probability, equal ones in class order. The 2012 program shared the
credit of a right answer among equal classes (layer_kernels.cu), which gives counts that are not integers.

Shape suffixes: B images of a batch, N images of a split, K classes, C channels, H rows, W columns, S rows or columns of
a square.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from alexnet.core.config import fingerprint, to_json
from alexnet.core.device import Precision, autocast
from alexnet.core.errors import AlexNetError, NotFiniteError, UsageError, printable
from alexnet.core.intervals import wilson
from alexnet.core.preprocessing import Preprocessing
from alexnet.core.runs import environment
from alexnet.data.loader import batches
from alexnet.distributed.collectives import add_up
from alexnet.distributed.mesh import ONE_PROCESS, Mesh
from alexnet.evaluation.finding import Finding
from alexnet.evaluation.lines import evaluation_lines
from alexnet.evaluation.probabilities import Probabilities
from alexnet.evaluation.views import Views, views_of
from alexnet.models.lrn import kernels_in_use

NUM_MISTAKES = 20
"""Most confident mistakes kept in an :class:`Evaluation`."""


class Split(Protocol):
    """What an evaluation needs of a data set."""

    @property
    def labels(self) -> NDArray[np.int64]: ...

    @property
    def paths(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def read(self, index_B: NDArray[np.int64]) -> NDArray[np.uint8]: ...


def label_ranks(score_BK: Tensor, label_B: Tensor) -> Tensor:
    """How many classes stand before the right one: (B,) int64, 0 for a right answer. A NaN, which would compare as
    "not before", raises :class:`AlexNetError`."""
    if torch.isnan(score_BK).any():
        raise AlexNetError("a score is NaN: no class can be ranked; evaluate an earlier checkpoint")
    own_B1 = score_BK.gather(1, label_B[:, None])
    earlier_BK = torch.arange(score_BK.shape[1], device=score_BK.device) < label_B[:, None]
    return ((score_BK > own_B1) | ((score_BK == own_B1) & earlier_BK)).sum(dim=1)


def mean_log_probability(model: nn.Module, inputs: Iterable[Tensor], precision: Precision = "float32") -> Tensor:
    """ln of the mean over views of the softmax probabilities (§4.1), of one (B, C, H, W) input for each view: (B, K)
    float32 on the CPU. Summed in float64, in the logarithm, where nothing underflows. An output that is not finite
    raises :class:`AlexNetError`."""
    total_BK: Tensor | None = None
    num = 0
    for x_BCHW in inputs:
        with autocast(x_BCHW.device, precision):
            logits_BK = model(x_BCHW.double() if precision == "float64" else x_BCHW)
        if not torch.isfinite(logits_BK).all():
            raise NotFiniteError("the network's output holds NaN or infinity; evaluate an earlier checkpoint")
        log_probability_BK = logits_BK.cpu().double().log_softmax(dim=1)
        total_BK = log_probability_BK if total_BK is None else torch.logaddexp(total_BK, log_probability_BK)
        num += 1
    assert total_BK is not None, "an average needs at least one view"
    return torch.sub(total_BK, math.log(num)).float()


@dataclass(frozen=True)
class ClassCounts:
    name: str
    n: int
    top1_errors: int
    top5_errors: int


@dataclass(frozen=True)
class Mistake:
    """An image whose most probable class is not its own."""

    path: str
    label: int
    predicted: int
    probability: float
    """Probability of the predicted class."""
    label_probability: float


@dataclass(frozen=True)
class MemberErrors:
    """How one member of an ensemble does by itself."""

    name: str
    weight: float
    top1_errors: int
    top5_errors: int
    precision: str | None


@dataclass(frozen=True)
class WeightSearch:
    """What a search for the weights of an ensemble found: errors on the images that it looked at."""

    split: str
    n: int
    equal_top1_errors: int
    equal_top5_errors: int
    top1_errors: int
    """With the weights that were found."""
    top5_errors: int
    judged_too: int
    """Of these images, known by their pixels, those that are also among the images judged."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Counts over a whole split, and the protocol that made them."""

    n: int
    top1_errors: int
    top5_errors: int
    loss_nats: float
    """Mean over the images of -ln of the averaged probability of the right class."""
    classes: tuple[ClassCounts, ...]
    confusion: tuple[tuple[int, int, int], ...]
    """(class, predicted class, images), in this order, where there are any."""
    mistakes: tuple[Mistake, ...]
    """The most confident ones, worst first."""
    protocol: dict[str, Any]
    environment: dict[str, Any]
    probabilities: Probabilities | None = None
    """The answers to all images, if they were asked for."""
    members: tuple[MemberErrors, ...] = ()
    """The errors of each member of an ensemble; empty for a single network."""
    search: WeightSearch | None = None
    """How the weights of the members were found, if they were searched."""
    subject: Mapping[str, Any] = field(default_factory=dict)
    """What was evaluated: ``network``, ``model`` and ``data``, as far as they are known."""

    @property
    def top1_error(self) -> float:
        return self.top1_errors / self.n

    @property
    def top5_error(self) -> float:
        return self.top5_errors / self.n

    @property
    def balanced_top1_error(self) -> float:
        """The mean of the top-1 errors of the classes that have images."""
        rates = [c.top1_errors / c.n for c in self.classes if c.n]
        return sum(rates) / len(rates)

    @property
    def views(self) -> str:
        return str(self.protocol.get("views", ""))

    def finding(self, called: str | None = None) -> Finding:
        """The errors in words and as JSON; ``called``: how the user called the data."""
        return Finding(
            subject=self.subject,
            n=self.n,
            summary={"top-1 error": self.top1_error, "top-5 error": self.top5_error},
            body=self.to_json(),
            protocol=self.protocol,
            lines=evaluation_lines(self, called),
        )

    def to_json(self) -> dict[str, Any]:
        """The result file (docs/architecture.md), without the probabilities."""
        return {
            **self.subject,
            "n": self.n,
            "top1_errors": self.top1_errors,
            "top5_errors": self.top5_errors,
            "top1_error": self.top1_error,
            "top5_error": self.top5_error,
            "top1_interval": list(wilson(self.top1_errors, self.n)),
            "top5_interval": list(wilson(self.top5_errors, self.n)),
            "interval": "Wilson, 95 %, over images",
            "balanced_top1_error": self.balanced_top1_error,
            "views": self.views,
            "loss_nats": self.loss_nats,
            "protocol": self.protocol,
            "environment": self.environment,
            "classes": to_json(self.classes),
            "confusion": to_json(self.confusion),
            "mistakes": to_json(self.mistakes),
            **({"members": to_json(self.members)} if self.members else {}),
            **({"weights_searched": to_json(self.search)} if self.search else {}),
        }


class Tally:
    """What was answered to each image of a split, whichever rank was asked."""

    def __init__(self, num: int) -> None:
        self.times_N = np.zeros(num, dtype=np.int64)
        """How often each image was counted."""
        self.rank_N = np.zeros(num, dtype=np.int64)
        """How many classes stood before the image's own class."""
        self.predicted_N = np.zeros(num, dtype=np.int64)
        self.own_N = np.zeros(num)
        """ln of the probability of the image's own class."""
        self.best_N = np.zeros(num)
        """ln of the probability of the predicted class."""

    def add(self, image_B: NDArray[np.int64], log_probability_BK: Tensor, label_B: Tensor, valid_B: Tensor) -> None:
        """Count the valid images of a batch."""
        rank_B = label_ranks(log_probability_BK, label_B)
        predicted_B = log_probability_BK.argmax(dim=1)
        own_B, best_B = (log_probability_BK.gather(1, at_B[:, None])[:, 0] for at_B in (label_B, predicted_B))
        image_N = image_B[valid_B.numpy()]
        np.add.at(self.times_N, image_N, 1)
        for values_N, value_B in (
            (self.rank_N, rank_B),
            (self.predicted_N, predicted_B),
            (self.own_N, own_B),
            (self.best_N, best_B),
        ):
            values_N[image_N] = value_B[valid_B].numpy()

    def join(self, mesh: Mesh) -> None:
        """Join what the ranks counted. If two ranks have the same images, the first one's counts are taken."""
        for values_N in (self.times_N, self.rank_N, self.predicted_N, self.own_N, self.best_N):
            values_N[:] = _joined(mesh, values_N)

    def evaluation(
        self,
        label_N: NDArray[np.int64],
        classes: Sequence[str],
        paths: Sequence[str],
        protocol: Mapping[str, Any],
        probabilities: Probabilities | None = None,
    ) -> Evaluation:
        """The result, once every image was counted exactly once; :class:`AlexNetError` before."""
        wrong_N = np.flatnonzero(self.times_N != 1)
        if len(wrong_N):
            first = printable(paths[wrong_N[0]])
            raise AlexNetError(f"{len(wrong_N)} images were not counted exactly once (the first is {first})")
        n = len(self.times_N)
        errors = (self.rank_N >= 1, self.rank_N >= 5)
        counts_K3 = np.zeros((len(classes), 3), dtype=np.int64)
        np.add.at(counts_K3, label_N, np.stack([self.times_N, *errors], axis=1))
        pairs, times = np.unique(np.stack([label_N, self.predicted_N], axis=1), axis=0, return_counts=True)
        return Evaluation(
            n=n,
            top1_errors=int(errors[0].sum()),
            top5_errors=int(errors[1].sum()),
            loss_nats=float(-self.own_N.sum() / n),
            classes=tuple(ClassCounts(name, *row) for name, row in zip(classes, counts_K3.tolist(), strict=True)),
            confusion=tuple(
                (k, predicted, num) for (k, predicted), num in zip(pairs.tolist(), times.tolist(), strict=True)
            ),
            mistakes=self._mistakes(label_N, paths),
            protocol=dict(protocol),
            environment=environment(),
            probabilities=probabilities,
        )

    def _mistakes(self, label_N: NDArray[np.int64], paths: Sequence[str]) -> tuple[Mistake, ...]:
        """The most confident ones, by path where they are equally so."""
        wrong = np.flatnonzero(self.rank_N)
        if len(wrong) > NUM_MISTAKES:
            wrong = wrong[self.best_N[wrong] >= np.sort(self.best_N[wrong])[-NUM_MISTAKES]]
        mistakes = [
            Mistake(
                paths[i],
                int(label_N[i]),
                int(self.predicted_N[i]),
                math.exp(self.best_N[i]),
                math.exp(self.own_N[i]),
            )
            for i in wrong.tolist()
        ]
        mistakes.sort(key=lambda m: (-m.probability, m.label_probability, m.path))
        return tuple(mistakes[:NUM_MISTAKES])


def _joined(mesh: Mesh, values_N: NDArray[Any]) -> NDArray[Any]:
    """The values of all images, joined from the ranks of a job; each rank has zeros except at its own images."""
    own_N = torch.from_numpy(values_N if mesh.counts else np.zeros_like(values_N))
    return add_up(mesh.world, "joining the counts", own_N).numpy()


@torch.no_grad()
def evaluate_split(
    model: nn.Module,
    split: Split,
    preprocessing: Preprocessing,
    mean: NDArray[np.float32] | None,
    *,
    classes: Sequence[str],
    views: Views,
    batch_size: int = 128,
    device: torch.device | None = None,
    precision: Precision = "float32",
    workers: int | None = None,
    mesh: Mesh = ONE_PROCESS,
    data: Mapping[str, Any] | None = None,
    keep_probabilities: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> Evaluation:
    """The errors of ``model`` on all images of ``split``, each seen exactly once: by all ranks of ``mesh`` together, which
    all get the same result.

    ``classes`` are the names in the order of the labels. ``data`` is what the result shall say of where the images come
    from (fingerprint, split, resampler); it becomes part of the protocol. ``progress(done, total)`` is called after
    each batch. The last batch is filled up with copies that are not counted, so every forward pass has the same shape.
    The model is put back into the mode it was in. Raises :class:`UsageError` for an empty split or a network with
    another number of classes or channels, and :class:`AlexNetError` for an output that is not finite."""
    device = device or torch.device("cpu")
    n = len(split)
    if n == 0:
        raise UsageError("the split has no images: there is nothing to evaluate")
    if batch_size < 1:
        raise UsageError(f"batch_size is {batch_size}; it must be at least 1")
    number_M = mesh.evaluation_order(n, min(batch_size, math.ceil(n / mesh.chunks)))
    batch_size = min(batch_size, len(number_M))
    mean_SSC = None if mean is None else torch.as_tensor(mean).to(device)
    label_N, paths = np.asarray(split.labels, dtype=np.int64), split.paths  # first: damage shows before the work
    tally = Tally(n)
    kept_NK = np.zeros((n, len(classes)), dtype=np.float32) if keep_probabilities else None

    kernels_in_use(device, build=True)  # many images: worth a second of the compiler, the first time on a machine
    was_training = model.training
    model.to(device).eval()
    try:
        for batch in batches(split, np.minimum(number_M, n - 1), batch_size, workers=workers):
            inputs = views_of(batch.pixels_BSSC.to(device), batch.image_B, views, preprocessing, mean_SSC)
            log_probability_BK = mean_log_probability(model, inputs, precision)
            if log_probability_BK.shape[1] != len(classes):
                raise UsageError(
                    f"the network tells {log_probability_BK.shape[1]} classes apart, the data has {len(classes)}; "
                    "evaluate on data with the classes the network was trained on"
                )
            valid_B = torch.from_numpy(number_M[batch.position_B] < n)
            tally.add(batch.image_B, log_probability_BK, batch.label_B, valid_B)
            if kept_NK is not None:
                kept_NK[batch.image_B[valid_B.numpy()]] = log_probability_BK[valid_B].numpy()
            if progress:
                progress(min((int(batch.position_B[-1]) + 1) * mesh.chunks, n), n)
    finally:
        model.train(was_training)

    tally.join(mesh)
    kept_NK = None if kept_NK is None else _joined(mesh, kept_NK)
    protocol = describe_protocol(preprocessing, views, precision, classes, data)
    kept = None if kept_NK is None else Probabilities(kept_NK, label_N, tuple(paths), tuple(classes), protocol)
    return tally.evaluation(label_N, classes, paths, protocol, kept)


def describe_protocol(
    preprocessing: Preprocessing,
    views: Views,
    precision: Precision,
    classes: Sequence[str],
    data: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """How a number was measured. Two numbers may be compared when their protocols are equal."""
    return {
        "views": str(views),
        **({"views_seed": views.seed} if views.kind == "random" else {}),
        "averaging": "mean of softmax probabilities over views",
        "ranking": "by probability, equal ones in class order",
        "loss": "mean over images of -ln(averaged probability of the right class)",
        "class_order": fingerprint(list(classes)),
        "precision": precision,
        "preprocessing": to_json(preprocessing),
        **(data or {}),
    }


def count(probabilities: Probabilities, batch_size: int = 1024) -> Evaluation:
    """The errors of saved or combined answers."""
    n = len(probabilities.label_N)
    if n == 0:
        raise UsageError("there are no answers to count")
    tally = Tally(n)
    for start in range(0, n, batch_size):
        image_B = np.arange(start, min(start + batch_size, n))
        log_probability_BK = torch.from_numpy(probabilities.log_probability_NK[image_B])
        label_B = torch.from_numpy(probabilities.label_N[image_B])
        tally.add(image_B, log_probability_BK, label_B, torch.ones(len(image_B), dtype=torch.bool))
    return tally.evaluation(
        probabilities.label_N, probabilities.classes, probabilities.paths, probabilities.protocol, probabilities
    )
