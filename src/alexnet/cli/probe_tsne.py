"""`alexnet probe tsne`: a layer and the pixels as maps."""

# No `from __future__ import annotations`: tyro must see the types of options.
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from alexnet.cli.shared import ModelOptions, Word, clear_probe, machine_of, parse, print_json, probe_folder, subject_of
from alexnet.core.errors import UsageError, printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from alexnet.data.packed import AllSplits, PackedSplit

SHEET = 2000
"""Side of a map of thumbnails, in pixels, about."""


@dataclass(frozen=True, kw_only=True)
class Options(ModelOptions):
    """A layer as a map on which similar images are neighbors (t-SNE), beside the same of the pixels: as points by class and as
    thumbnails, with neighbor purity and silhouette as numbers.

    alexnet probe tsne runs/mine
    """

    model: Word
    """Run directory, checkpoint of a run, or model folder."""
    layer: str | None = None
    """By default fc7, or the last hidden layer of a network without one; a wrong name lists all.
    fc7 is read after its ReLU and before the test-time halving."""
    data: str | None = None
    """Packed directory, folder, CSV or named set; by default that of the run."""
    split: str | None = None
    """all, train, val or test; by default the images that the run held out or, of other data, its val or test images, or all
    where it names no splits."""
    points: int = 2500
    """Images on the map: of a larger split a sample, as many of each class. Above 20,000, 20,000 are taken."""
    perplexity: float | None = None
    """About how many neighbors each image has; by default 30, and less on fewer than 91 images."""
    seed: int = 0
    """Seed for choosing images and for t-SNE."""
    precision: Literal["float32", "tf32", "bfloat16", "float64"] = "float32"
    """Number format to compute in."""
    out: str | None = None
    """Folder to write; by default RUN/probes."""


def run(arguments: list[str]) -> int:
    options = parse(Options, "probe tsne", arguments)
    if options.points < 2:
        raise UsageError(f"--points is {options.points}; a map needs at least 2")
    folder = probe_folder(options)
    import numpy as np

    from alexnet.core.console import Bar, say
    from alexnet.core.runs import environment, write_json
    from alexnet.evaluation.predict import model_fingerprint
    from alexnet.evaluation.subject import provenance
    from alexnet.probes.features import cached_features
    from alexnet.probes.layers import PIXELS, usual_layer
    from alexnet.probes.linear import MAX_SIDE, MAX_UNITS, balanced_sample, pooled, pooled_shape, require_scikit_learn
    from alexnet.probes.tsne import (
        COMPONENTS,
        MAX_POINTS,
        MAX_THUMBNAILS,
        NEIGHBORS,
        PERPLEXITY,
        TRUSTED,
        center_pixels,
        grid_cells,
        require_mappable,
        tsne_map,
        usual_perplexity,
    )
    from alexnet.report.pictures import save_pictures
    from alexnet.report.pictures.tsne import BORDER, point_maps, thumbnail_figure, thumbnail_map

    require_scikit_learn()
    machine = machine_of(options)
    subject = subject_of(options, machine)
    predictor = subject.predictor
    layer = usual_layer(predictor.model, options.layer, "fc7")
    packed, split = subject.packed, subject.images
    name = packed.source
    if options.points > MAX_POINTS and len(split) > MAX_POINTS:
        say(
            f"t-SNE takes at most {MAX_POINTS:,} points: a sample of so many of the {len(split):,} images, even by class"
        )
    image_N = balanced_sample(split.labels, min(options.points, MAX_POINTS), options.seed, "tsne")
    label_N = split.labels[image_N]
    perplexity = usual_perplexity(len(image_N)) if options.perplexity is None else options.perplexity
    require_mappable(label_N, perplexity)
    if options.perplexity is None and perplexity < PERPLEXITY:
        say(f"there are {len(image_N)} images on the map: the perplexity is {perplexity:g}, not {PERPLEXITY}")

    rows: dict[str, NDArray[np.float32]] = {}
    if layer.name != PIXELS:
        with Bar(layer.name, len(split), quiet=options.json) as bar:
            features = cached_features(
                predictor,
                packed,
                split.name,
                [layer.name],
                workers=machine.workers,
                progress=lambda done, _total: bar.update(done),
            )[layer.name].matrix(layer.name)
        rows[layer.name] = np.concatenate(
            [pooled(features[image_N[i : i + 256]], layer.shape) for i in range(0, len(image_N), 256)]
        )
    with Bar(PIXELS, len(image_N), quiet=options.json) as bar:
        rows[PIXELS] = center_pixels(
            predictor, split, image_N, workers=machine.workers, progress=lambda done, _total: bar.update(done)
        )
    maps = {}
    with Bar("t-SNE", len(rows), "maps", quiet=options.json) as bar:
        for i, (what, rows_ND) in enumerate(rows.items()):
            maps[what] = tsne_map(rows_ND, label_N, perplexity=perplexity, seed=options.seed)
            bar.update(i + 1)

    shown = balanced_sample(label_N, MAX_THUMBNAILS, options.seed, "tsne/thumbnails")
    document: dict[str, Any] = {
        "probe": "tsne",
        "summary": {
            f"{figure.replace('_', ' ')}, {what}": value
            for figure in ("neighbor_purity", "silhouette", "trustworthiness")
            for what, value in ((what, found.to_json()[figure]) for what, found in maps.items())
        },
        "layer": layer.name,
        "n": len(image_N),
        "seed": options.seed,
        "maps": {what: {"units": rows[what].shape[1], **found.to_json()} for what, found in maps.items()},
        "protocol": {
            "images": "the whole split"
            if len(image_N) == len(split)
            else f"a sample of {len(image_N):,} of {len(split):,}, as many of each class",
            "points_asked": options.points,
            "points_most": MAX_POINTS,
            "view": "center",
            "position": "after the ReLU and before the test-time halving; layers called dropoutN are after it",
            "averaging": f"maps over a grid of windows, to at most {MAX_SIDE} x {MAX_SIDE} and {MAX_UNITS:,} numbers",
            "pixels": "the network's input as "
            + " x ".join(map(str, pooled_shape(_input_shape(predictor))))
            + " means",
            "components": f"t-SNE reads the first {COMPONENTS} principal components, not standardized",
            "perplexity": perplexity,
            "start": "the first two principal components",
            "neighbors": NEIGHBORS,
            "figures": "purity: Euclidean neighbors that have the point's class; silhouette: by class, Euclidean; in_space: "
            "before the principal components",
            "trustworthiness_points": min(len(image_N), TRUSTED),
            "thumbnails": f"{len(shown):,}, each in a cell of its own by the least sum of squared distances",
            "precision": predictor.precision,
        },
        "model": model_fingerprint(predictor),
        "data": provenance(name, packed, split.name),
        "environment": environment(),
        "classes": packed.classes,
        "points": {
            "path": [split.paths[i] for i in image_N],
            "label": label_N.tolist(),
            "maps": {what: np.round(found.xy_N2.astype(float), 4).tolist() for what, found in maps.items()},
        },
    }
    pictures = {"tsne.png": point_maps(document)}
    place_N = np.unique(label_N, return_inverse=True)[1]
    for what, found in maps.items():
        cell_N, side = grid_cells(found.xy_N2[shown])
        size = max(24, min(96, SHEET // side - 2 * BORDER))
        thumbnails_NSSC = _thumbnails(split, image_N[shown], size)
        sheet_HWC = thumbnail_map(thumbnails_NSSC, cell_N, side, place_N[shown])
        pictures[f"tsne-thumbnails-{what}.png"] = thumbnail_figure(sheet_HWC, what)
    clear_probe(folder, "tsne.json", "tsne.png", "tsne-thumbnails-*.png")
    document["numbered"] = save_pictures(folder, pictures)
    write_json(folder / "tsne.json", document)

    if options.json:
        print_json(document)
        return 0
    print(f"{len(image_N):,} images of {split.name}: {document['protocol']['images']}")
    for what, found in maps.items():
        figures = found.to_json()
        print(
            f"{what}: neighbor purity {figures['neighbor_purity']:.1%} (chance {found.chance_purity:.1%}, before t-SNE "
            f"{figures['neighbor_purity_in_space']:.1%}), silhouette {found.map_silhouette:+.3f}, "
            f"trustworthiness {found.trustworthiness:.3f}"
        )
    print(f"in {printable(folder)}: {', '.join(['tsne.json', *pictures])}")
    return 0


def _input_shape(predictor: Any) -> tuple[int, int, int]:
    preprocessing = predictor.preprocessing
    return preprocessing.channels, preprocessing.crop, preprocessing.crop


def _thumbnails(split: "PackedSplit | AllSplits", image_N: "NDArray[np.int64]", size: int) -> "NDArray[np.uint8]":
    """The stored images, whole, at this size: (N, size, size, 3) uint8."""
    import numpy as np

    from alexnet.report.pictures import contact_sheet

    sheets = [
        contact_sheet(list(split.read(image_N[i : i + 64])), 1, size=size, gap=0) for i in range(0, len(image_N), 64)
    ]
    return np.concatenate(sheets).reshape(-1, size, size, 3)
