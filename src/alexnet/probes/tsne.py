"""A layer as a map: images whose activations are neighbors become neighbors on a plane (van der Maaten and Hinton 2008).

Shape suffixes: N images, D units, K neighbors, G cells of a grid, B images of a batch, S rows and columns, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from alexnet.core.console import say
from alexnet.core.errors import AlexNetError, UsageError
from alexnet.data.loader import batches
from alexnet.evaluation.error_rate import Split
from alexnet.evaluation.finding import Finding
from alexnet.evaluation.layers import PIXELS, Layer
from alexnet.evaluation.predict import Predictor
from alexnet.evaluation.subject import ImagesSettings, Subject
from alexnet.probes.features import BATCH, cached_features
from alexnet.probes.linear import AVERAGING, balanced_sample, pooled, pooled_shape, require_scikit_learn
from alexnet.report.pictures import contact_sheet
from alexnet.report.pictures.tsne import BORDER, point_maps, thumbnail_figure, thumbnail_map

MAX_POINTS = 20_000
"""Most points on a map: time and memory grow faster than their number."""
MAX_THUMBNAILS = 2_500
"""Most thumbnails in a picture: the time to find their places grows with the third power of their number."""
COMPONENTS = 50
"""Principal components that t-SNE reads."""
NEIGHBORS = 10
PERPLEXITY = 30
TRUSTED = 5_000
"""Most points on which trustworthiness is measured: it compares all pairs."""
SHEET = 2000
"""Side of a map of thumbnails, in pixels, about."""

TITLE = "A map of the images"
SENTENCE = (
    "Images placed so that those alike to the network, or by their pixels, lie together. How far apart others are means "
    "nothing."
)

Array = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Settings(ImagesSettings):
    """A layer as a map on which similar images are neighbors (t-SNE), beside the same of the pixels: as points by class and as
    thumbnails, with neighbor purity and silhouette as numbers.

    alexnet probe tsne runs/mine
    """

    layer: str | None = None
    """By default fc7, or the last hidden layer of a network without one; a wrong name lists all.
    fc7 is read after its ReLU and before the test-time halving."""
    points: int = 2500
    """Images on the map: of a larger split a sample, as many of each class. Above 20,000, 20,000 are taken."""
    perplexity: float | None = None
    """About how many neighbors each image has; by default 30, and less on fewer than 91 images."""
    seed: int = 0
    """Seed for choosing images and for t-SNE."""

    def __post_init__(self) -> None:
        if self.points < 2:
            raise ValueError(f"Settings.points is {self.points}; a map needs at least 2")


def measure(subject: Subject, settings: Settings) -> Finding:
    """The maps of a layer and of the pixels by :func:`tsne_map`, and their figures."""
    require_scikit_learn()
    layer = subject.predictor.usual_layer(settings.layer)
    split = subject.images
    image_N, perplexity = _chosen(split.labels, settings)
    label_N = split.labels[image_N]
    rows = _spaces(subject, layer, image_N)
    maps = {}
    with subject.progress("t-SNE", len(rows), "maps") as bar:
        for i, (what, rows_ND) in enumerate(rows.items()):
            maps[what] = tsne_map(rows_ND, label_N, perplexity=perplexity, seed=settings.seed)
            bar.update(i + 1)
    shown = balanced_sample(label_N, MAX_THUMBNAILS, settings.seed, "tsne/thumbnails")
    figures = {what: {"units": rows[what].shape[1], **found.to_json()} for what, found in maps.items()}
    points = {what: np.round(found.xy_N2.astype(float), 4).tolist() for what, found in maps.items()}
    of = subject.record(split.name)
    body = {
        "layer": layer.name,
        "maps": figures,
        "classes": subject.packed.classes,
        "points": {"path": [split.paths[i] for i in image_N], "label": label_N.tolist(), "maps": points},
    }
    images = (
        "the whole split"
        if len(image_N) == len(split)
        else f"a sample of {len(image_N):,} of {len(split):,}, as many of each class"
    )
    return Finding(
        subject=of,
        n=len(image_N),
        summary={
            f"{figure.replace('_', ' ')}, {what}": found[figure]
            for figure in ("neighbor_purity", "silhouette", "trustworthiness")
            for what, found in figures.items()
        },
        body=body,
        protocol={
            **PROTOCOL,
            "images": images,
            "points_asked": settings.points,
            "pixels": f"the network's input as {' x '.join(map(str, pooled_shape(_input_shape(subject.predictor))))} means",
            "perplexity": perplexity,
            "trustworthiness_points": min(len(image_N), TRUSTED),
            "thumbnails": f"{len(shown):,}, each in a cell of its own by the least sum of squared distances",
            "precision": subject.predictor.precision,
        },
        lines=[f"{len(image_N):,} images of {split.name}: {images}", *map(_line, figures, figures.values())],
        pictures={"tsne.png": point_maps({**body, **of})} | _sheets(split, image_N, shown, maps),
    )


PROTOCOL = {
    "points_most": MAX_POINTS,
    "view": "center",
    "position": "after the ReLU and before the test-time halving; layers called dropoutN are after it",
    "averaging": AVERAGING,
    "components": f"t-SNE reads the first {COMPONENTS} principal components, not standardized",
    "start": "the first two principal components",
    "neighbors": NEIGHBORS,
    "figures": "purity: Euclidean neighbors that have the point's class; silhouette: by class, Euclidean; in_space: before the "
    "principal components",
}


def _chosen(label_N: Labels, settings: Settings) -> tuple[Labels, float]:
    """The numbers of the images on the map, and the perplexity; what differs from what was asked for, or is usual, is said."""
    if settings.points > MAX_POINTS and len(label_N) > MAX_POINTS:
        say(
            f"note: t-SNE maps at most {MAX_POINTS:,} points, so {MAX_POINTS:,} of the {len(label_N):,} images are taken, "
            "as many of each class"
        )
    image_N = balanced_sample(label_N, min(settings.points, MAX_POINTS), settings.seed, "tsne")
    perplexity = usual_perplexity(len(image_N)) if settings.perplexity is None else settings.perplexity
    require_mappable(label_N[image_N], perplexity)
    if settings.perplexity is None and perplexity < PERPLEXITY:
        say(f"note: with {len(image_N)} images on the map the perplexity is {perplexity:g} instead of {PERPLEXITY}")
    return image_N, perplexity


def _spaces(subject: Subject, layer: Layer, image_N: Labels) -> dict[str, Array]:
    """The images of these numbers as rows of numbers: by the layer, unless it is the pixels, and by the pixels."""
    predictor, split, workers = subject.predictor, subject.images, subject.machine.workers
    rows = {}
    if layer.name != PIXELS:
        with subject.progress(layer.name, len(split)) as bar:
            found = cached_features(predictor, subject.packed, split.name, [layer.name], workers=workers, progress=bar)
        features = found[layer.name].matrix(layer.name)
        parts = [pooled(features[image_N[i : i + 256]], layer.shape) for i in range(0, len(image_N), 256)]
        rows[layer.name] = np.concatenate(parts)
    with subject.progress(PIXELS, len(image_N)) as bar:
        rows[PIXELS] = center_pixels(predictor, split, image_N, workers=workers, progress=bar)
    return rows


def _sheets(split: Split, image_N: Labels, shown: Labels, maps: Mapping[str, TsneMap]) -> dict[str, Figure]:
    """The maps as thumbnails of those images whose places in ``image_N`` are ``shown``."""
    place_N = np.unique(split.labels[image_N], return_inverse=True)[1]
    pictures = {}
    for what, found in maps.items():
        cell_N, side = grid_cells(found.xy_N2[shown])
        size = max(24, min(96, SHEET // side - 2 * BORDER))
        sheet_HWC = thumbnail_map(_thumbnails(split, image_N[shown], size), cell_N, side, place_N[shown])
        pictures[f"tsne-thumbnails-{what}.png"] = thumbnail_figure(sheet_HWC, what)
    return pictures


def _thumbnails(split: Split, image_N: Labels, size: int) -> NDArray[np.uint8]:
    """The stored images, whole, at this size: (N, size, size, 3) uint8."""
    sheets = [
        contact_sheet(list(split.read(image_N[i : i + 64])), 1, size=size, gap=0) for i in range(0, len(image_N), 64)
    ]
    return np.concatenate(sheets).reshape(-1, size, size, 3)


def _line(what: str, figures: Mapping[str, Any]) -> str:
    return (
        f"{what}: neighbor purity {figures['neighbor_purity']:.1%} (chance {figures['neighbor_purity_chance']:.1%}, before t-SNE "
        f"{figures['neighbor_purity_in_space']:.1%}), silhouette {figures['silhouette']:+.3f}, "
        f"trustworthiness {figures['trustworthiness']:.3f}"
    )


@dataclass(frozen=True)
class TsneMap:
    """A map, and how well it keeps the classes apart: on the plane, and in the space it was made from."""

    xy_N2: Array
    variance_kept: float
    """Share of the variance in the principal components."""
    kl_divergence: float
    """What t-SNE minimizes, in nats."""
    map_neighbors: int
    """Neighbors on the plane that have the class of their point."""
    space_neighbors: int
    """Neighbors in the space that have the class of their point."""
    num_neighbors: int
    """Number of neighbors of all points together."""
    chance_purity: float
    """The share of neighbors of the same class if they were drawn at random."""
    map_silhouette: float
    """From -1 to 1; 0 is what classes without any structure have (Rousseeuw 1987)."""
    space_silhouette: float
    trustworthiness: float
    """1 if all neighbors on the plane are neighbors in the space, about 0.5 for a random map (Venna and Kaski 2001)."""

    def to_json(self) -> dict[str, Any]:
        return {
            "neighbor_purity": self.map_neighbors / self.num_neighbors,
            "neighbor_purity_in_space": self.space_neighbors / self.num_neighbors,
            "neighbor_purity_chance": self.chance_purity,
            "neighbors": {"map": self.map_neighbors, "space": self.space_neighbors, "n": self.num_neighbors},
            "silhouette": self.map_silhouette,
            "silhouette_in_space": self.space_silhouette,
            "trustworthiness": self.trustworthiness,
            "variance_kept": self.variance_kept,
            "kl_divergence_nats": self.kl_divergence,
        }


def tsne_map(rows_ND: Array, label_N: Labels, *, perplexity: float = 30.0, seed: int = 0) -> TsneMap:
    """The map of these rows by scikit-learn: principal components first, t-SNE after, on one thread, so that the number of
    cores does not change it. Raises what :func:`require_mappable` raises, and :class:`AlexNetError` if all rows are equal."""
    require_scikit_learn()
    require_mappable(label_N, perplexity)
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from sklearn.metrics import silhouette_score
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    if (rows_ND == rows_ND[0]).all():
        raise AlexNetError("the features of all images are the same: there is nothing to map")
    pca = PCA(min(COMPONENTS, *rows_ND.shape), svd_solver="randomized", random_state=seed)
    tsne = TSNE(2, init="pca", perplexity=perplexity, random_state=seed)
    with threadpool_limits(1):  # else the order of sums, and in the end the whole map, depends on the number of threads
        xy_N2: Array = tsne.fit_transform(pca.fit_transform(rows_ND)).astype(np.float32)
    return TsneMap(
        xy_N2=xy_N2,
        variance_kept=float(pca.explained_variance_ratio_.sum()),
        kl_divergence=float(tsne.kl_divergence_),
        map_neighbors=neighbors_of_own_class(xy_N2, label_N),
        space_neighbors=neighbors_of_own_class(rows_ND, label_N),
        num_neighbors=len(rows_ND) * NEIGHBORS,
        chance_purity=chance_purity(label_N),
        map_silhouette=float(silhouette_score(xy_N2, label_N)),
        space_silhouette=float(silhouette_score(rows_ND, label_N)),
        trustworthiness=_trustworthiness(rows_ND, xy_N2, label_N, seed),
    )


def usual_perplexity(num: int) -> float:
    """30, or a third of the neighbors there are where that is less: t-SNE looks at three times as many as it says."""
    return float(min(PERPLEXITY, max(1, (num - 1) // 3)))


def require_mappable(label_N: Labels, perplexity: float) -> None:
    """Raise :class:`UsageError` for more than :data:`MAX_POINTS` images, for a perplexity that does not fit their number, and
    for labels that allow no figures."""
    n, num_classes = len(label_N), len(np.unique(label_N))
    if n > MAX_POINTS:
        raise UsageError(f"t-SNE maps at most {MAX_POINTS:,} points, and these are {n:,}; take a sample")
    if not 1 <= perplexity < n:
        raise UsageError(
            f"--perplexity is {perplexity:g}, and there are {n:,} points; it must be at least 1 and less than their number"
        )
    if n <= NEIGHBORS or not 2 <= num_classes < n:
        raise UsageError(
            f"{n} image{'s' * (n != 1)} of {num_classes} class{'es' * (num_classes != 1)} make{'s' * (n == 1)} no map: it "
            f"takes at least {NEIGHBORS + 1} images, two classes, and two images of one class; try --split all, or more "
            "--points"
        )


def neighbors_of_own_class(rows_ND: Array, label_N: Labels, num: int = NEIGHBORS) -> int:
    """How many of the ``num`` nearest of each row (Euclidean, itself left out) have its class, over all rows."""
    from sklearn.neighbors import NearestNeighbors

    neighbor_NK = NearestNeighbors(n_neighbors=num).fit(rows_ND).kneighbors(return_distance=False)
    return int((label_N[neighbor_NK] == label_N[:, None]).sum())


def chance_purity(label_N: Labels) -> float:
    """The probability that another row, drawn at random, has the class of a row drawn at random."""
    counts_K = np.unique(label_N, return_counts=True)[1]
    return float((counts_K * (counts_K - 1)).sum() / (len(label_N) * (len(label_N) - 1)))


def center_pixels(
    predictor: Predictor,
    split: Split,
    image_N: NDArray[np.int64],
    *,
    workers: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Array:
    """The network's input for the center views of the images of these numbers, averaged down as :func:`pooled` does: (N, D).
    No layer is computed."""
    shape = _input_shape(predictor)
    rows_ND = np.empty((len(image_N), math.prod(pooled_shape(shape))), np.float32)
    for batch in batches(split, image_N, BATCH, workers=workers):
        (x_BCHW,) = predictor.inputs(batch.pixels_BSSC)
        rows_ND[batch.position_B] = pooled(x_BCHW.flatten(1).cpu().numpy(), shape)
        if progress:
            progress(int(batch.position_B[-1]) + 1, len(image_N))
    return rows_ND


def _input_shape(predictor: Predictor) -> tuple[int, int, int]:
    preprocessing = predictor.preprocessing
    return preprocessing.channels, preprocessing.crop, preprocessing.crop


def grid_cells(xy_N2: Array) -> tuple[Labels, int]:
    """A cell of its own for each point, and the side of the square grid: (N,) cell numbers, row by row from the top left.

    Of all ways to fill the smallest grid that has room, the one with the least sum of squared distances between the points,
    brought to the unit square, and the centers of their cells (a linear assignment)."""
    from scipy.optimize import linear_sum_assignment

    side = math.isqrt(len(xy_N2) - 1) + 1
    low_2, high_2 = xy_N2.min(axis=0), xy_N2.max(axis=0)
    unit_N2 = (xy_N2 - low_2) / np.where(high_2 > low_2, high_2 - low_2, 1)
    centers = (np.arange(side) + 0.5) / side
    square_GG = [(column, 1 - row) for row in centers for column in centers]  # y points up, rows count down
    cost_NG = ((unit_N2[:, None, :] - np.array(square_GG)[None]) ** 2).sum(axis=-1)
    _, cell_N = linear_sum_assignment(cost_NG)
    return cell_N.astype(np.int64), side


def _trustworthiness(rows_ND: Array, xy_N2: Array, label_N: Labels, seed: int) -> float:
    from sklearn.manifold import trustworthiness

    part = balanced_sample(label_N, TRUSTED, seed, "tsne/trustworthiness")
    num = min(NEIGHBORS, (len(part) - 1) // 2)  # it is defined for less than half of the points
    return float(trustworthiness(rows_ND[part], xy_N2[part], n_neighbors=num))
