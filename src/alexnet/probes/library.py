"""Search in one's own pictures, as `alexnet index` and `alexnet search` do it: which layer and which metric by themselves, and
pictures in any form as queries.

Shape suffixes: Q queries, N images, D dimensions, k neighbors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.core import rng
from alexnet.core.console import Bar
from alexnet.core.device import Machine, Precision, choose_device
from alexnet.core.errors import AlexNetError, DataError, ImageError, UsageError, printable
from alexnet.core.intervals import Errors
from alexnet.data.inside import is_there
from alexnet.data.loader import batches
from alexnet.data.packed import PackedSplit, is_packed
from alexnet.data.pictures import PictureLike, is_one, pictures
from alexnet.evaluation.error_rate import Split
from alexnet.evaluation.layers import find_layers
from alexnet.evaluation.predict import Predictor, load
from alexnet.evaluation.subject import Subject
from alexnet.models.lrn import kernels_in_use
from alexnet.probes.neighbors import nearest
from alexnet.probes.scan import Directions, Rows
from alexnet.probes.search import (
    BATCH,
    Index,
    Kind,
    Metric,
    add_to_index,
    build_index,
    features_of,
    open_index,
    require_model,
    require_possible,
)
from alexnet.probes.search import (
    Image as IndexedImage,
)

USUAL_METRIC: Metric = "cosine"
COMPARED = 500
"""Most validation images on which the metrics are compared."""


@dataclass(frozen=True)
class Indexed:
    """An index, and what bringing it up to date has changed."""

    index: Index
    added: int
    """Images that were not in it, or have changed."""
    gone: tuple[str, ...]
    """Paths of those that are no longer there."""
    left_out: tuple[ImageError, ...]
    """What is wrong with those that cannot be read."""


@dataclass(frozen=True)
class Match:
    """An image of an index."""

    path: str
    distance: float
    """From the query, by the metric of the index."""
    gone: bool
    """Whether its file, or the picture in its archive, is no longer there."""


@dataclass(frozen=True)
class Matches:
    """What was found for one query, nearest first; nothing, and the reason, if it could not be read."""

    query: str
    """Its path, or which of the inputs it is (``input 0``), for what is no file."""
    found: tuple[Match, ...]
    error: ImageError | None = None


def index(
    model: str | Path,
    sources: str | Path | Iterable[str | Path],
    out: str | Path,
    machine: Machine | None = None,
    *,
    add: bool = False,
    update: bool = False,
    layer: str | None = None,
    metric: Metric | None = None,
    kind: Kind | None = None,
    precision: Precision | None = None,
    best: bool = False,
    data_root: str | Path | None = None,
    on_fault: Callable[[ImageError], object] | None = None,
) -> Indexed:
    """Make the images of files, folders, archives and Parquet files searchable by what a model finds alike, in the new folder
    ``out``.

    ``layer``: by default fc7, or in a network without one the last hidden layer; where a model holds trained weights for a part
    of its layers alone, the last before those that it lacks. ``metric``: by default the one by which the nearest neighbor errs
    less on the model's own validation images (:func:`choose_metric`).

    With ``add`` the index that is there is brought up to date: images of ``sources`` that are not in it or have changed are
    added, and those of them that are gone are taken out. ``update`` does the same for every file of the index, wherever it is,
    and ``sources`` may be empty. An archive that has changed is read again as a whole. Layer, metric, kind and precision are
    then those of the index, and may not be others.

    A file that cannot be read is given to ``on_fault`` as it is met, and left out. Raises :class:`UsageError` for a folder
    that is not empty or for a model, layer or setting that does not fit, and :class:`DataError` if no image could be read."""
    sources = [sources] if isinstance(sources, str | Path) else list(sources)
    if not sources and not update:
        raise UsageError("an index needs folders, archives or files with images; name some")
    machine, out = machine or Machine(device=choose_device()), Path(out)
    left_out: list[ImageError] = []
    gone: list[str] = []

    def fault(error: ImageError) -> None:
        left_out.append(error)
        if on_fault:
            on_fault(error)

    if not (add or update):
        require_possible(out, kind or "exact")
        subject = Subject(
            model=model, machine=machine, precision=precision or "float32", best=best, data_root=data_root
        )
        predictor = subject.predictor
        layer = predictor.usual_layer(layer).name
        chosen = None
        if metric is None:
            metric, chosen = choose_metric(subject, layer)
        with Bar("index", 0, quiet=machine.quiet) as bar:
            built = build_index(
                predictor,
                sources,
                out,
                model=model if predictor.state is None else predictor.state.path,
                layer=layer,
                kind=kind or "exact",
                metric=metric,
                chosen=chosen,
                on_fault=fault,
                progress=bar,
            )
        return Indexed(built, len(built), (), tuple(left_out))
    old = open_index(out)
    before = set(old.images)  # read before their files are written again
    given = {"layer": layer, "metric": metric, "kind": kind, "precision": precision}
    for name, value in given.items():
        if value not in (None, own := old.metric if name == "metric" else old.meta[name]):
            raise UsageError(
                f"--{name} is {printable(value)}, and {printable(out)} was built with {printable(own)}; leave it out, or build "
                "another index"
            )
    predictor = load(model, machine.device, old.meta["precision"], best=best)
    with Bar("index", 0, quiet=machine.quiet) as bar:
        new = add_to_index(
            old, predictor, sources, everywhere=update, on_fault=fault, on_gone=gone.append, progress=bar
        )
    added = sum(image not in before for image in new.images)
    return Indexed(new, added, tuple(gone), tuple(left_out))


def search(
    folder: str | Path,
    given: PictureLike | Iterable[PictureLike],
    machine: Machine | None = None,
    *,
    top: int = 10,
    model: str | Path | None = None,
) -> Matches | list[Matches]:
    """The ``top`` images of an index that are nearest to a picture, in any of the forms that ``predictor.predict`` takes: one
    :class:`Matches` for one, a list of them for several. ``model``: where the model is, if it is no longer where the index
    says. Raises :class:`UsageError` for another model, and what :func:`~alexnet.data.pictures.pictures` raises."""
    found = open_index(folder)
    predictor = model_of(found, machine or Machine(device=choose_device()), model)
    answers = matches(found, predictor, given, top)
    return answers[0] if is_one(given) else answers


def model_of(index: Index, machine: Machine, model: str | Path | None = None) -> Predictor:
    """The model of an index, or the one at ``model``. One that is not there: :class:`UsageError`."""
    model = model or index.meta["model"]
    if not Path(model).exists():
        raise UsageError(f"{printable(model)}: the model of this index is not there; say with --model where it is")
    return load(model, machine.device, index.meta["precision"])


def matches(index: Index, predictor: Predictor, given: PictureLike | Iterable[PictureLike], top: int) -> list[Matches]:
    """The ``top`` images of an index that are nearest to each picture."""
    require_model(index, predictor)
    queries = list(features_of(index, predictor, pictures(given)))
    rows = [row for _, row in queries if not isinstance(row, ImageError)]
    if not rows:
        return [Matches(name, (), row) for name, row in queries if isinstance(row, ImageError)]
    nearest_Qk = index.search(np.array(rows), top)
    found = zip(nearest_Qk.index_Qk.tolist(), nearest_Qk.distance_Qk.tolist(), strict=True)
    answers = []
    for name, row in queries:
        if isinstance(row, ImageError):
            answers.append(Matches(name, (), row))
            continue
        near = [(index.images[n], distance) for n, distance in zip(*next(found), strict=True) if n >= 0]
        answers.append(Matches(name, tuple(Match(image[0], d, _is_gone(image)) for image, d in near)))
    return answers


def _is_gone(image: IndexedImage) -> bool:
    path, size, time_ns = image
    try:
        return not is_there(path, (size, time_ns))
    except DataError:  # the archive is damaged
        return True


def choose_metric(subject: Subject, layer: str) -> tuple[Metric, dict[str, Any] | None]:
    """The metric by which the nearest neighbor errs less on validation images of the model, and its errors by both; cosine
    if they are equal. Without such images at hand (a model folder, data that has moved or was never prepared) cosine, which is
    the better one of trained features, and None."""
    split = _validation_images(subject)
    if split is None or len(split) < 2:
        return USUAL_METRIC, None
    errors = neighbor_errors(subject, split, layer)
    metric = min(errors, key=lambda each: (errors[each].errors, each != USUAL_METRIC))
    counted = {each: one.errors for each, one in errors.items()}
    return metric, {"n": errors[metric].n, "split": split.name, "errors": counted}


def neighbor_errors(subject: Subject, split: Split, layer: str, limit: int = COMPARED) -> dict[Metric, Errors]:
    """By each metric, of how many images of a split the nearest other one is of another class: of all, or of ``limit`` that
    are drawn."""
    image_N = np.sort(rng.permutation(0, "search/metric", 0, len(split))[:limit])
    predictor, rows = subject.predictor, []
    layers = find_layers(predictor.model, [layer])
    kernels_in_use(predictor.device, build=len(image_N) > BATCH)
    with subject.progress("metric", len(image_N)) as bar:
        for batch in batches(split, image_N, BATCH, workers=subject.machine.workers):
            rows.append(predictor.activations(batch.pixels_BSSC, layers)[layer])
            bar.update(sum(map(len, rows)))
    row_ND, label_N = np.concatenate(rows), np.asarray(split.labels)[image_N]
    spaces: dict[Metric, Rows] = {"cosine": Directions(row_ND), "euclidean": row_ND}
    errors = {}
    for metric, space in spaces.items():
        near_N2 = nearest(space, space, 2).index_Qk
        own_N = np.arange(len(row_ND))
        other_N = np.where(near_N2[:, 0] == own_N, near_N2[:, 1], near_N2[:, 0])
        errors[metric] = Errors(int((label_N[other_N] != label_N).sum()), len(label_N))
    return errors


def _validation_images(subject: Subject) -> PackedSplit | None:
    """Those of a run, where they are prepared as they were when it was trained."""
    trained = subject.settings
    if trained is None or not is_packed(Path(trained["data"]["path"])):
        return None
    try:
        return subject.packed.split(subject.packed.held_out)
    except AlexNetError:  # changed or damaged, which is no reason not to make an index
        return None
