"""The probe neighbors: the training images nearest to held-out ones."""

# No `from __future__ import annotations`: tyro must see the types of options.
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from alexnet.cli.shared import ModelOptions, Word, clear_probe, machine_of, parse, print_json, probe_folder, subject_of
from alexnet.core.errors import UsageError, printable

if TYPE_CHECKING:
    from alexnet.data.packed import PackedSet
    from alexnet.report.pictures.neighbors import Tile


USUAL_KS = (1, 5, 20)


@dataclass(frozen=True, kw_only=True)
class Options(ModelOptions):
    """Figure 4, right: held-out images beside the six training images nearest to them by the features of a layer, and by
    pixels; and the error of the k nearest neighbors in both spaces.

    alexnet probe neighbors runs/mine --queries 5
    """

    model: Word
    """Run directory, checkpoint of a run, or model folder."""
    data: str | None = None
    """Packed directory, folder, CSV or named set; by default that of the run."""
    out: str | None = None
    """Folder to write; by default RUN/probes."""
    layer: str | None = None
    """Layer whose features are compared: by default fc7, or the last hidden layer of a network without one; a wrong name lists
    all."""
    split: str | None = None
    """Where the queries are from; by default val, or test where there is no val."""
    queries: int = 10
    """Images to show, drawn by the seed, each of another class while there are."""
    images: tuple[int, ...] = ()
    """Show the images of these numbers instead."""
    ks: tuple[int, ...] = ()
    """Numbers of neighbors that vote; by default 1, 5 and 20, as far as there are so many training images."""
    limit: int | None = None
    """Count the errors on so many images of the split, drawn; by default on all."""
    seed: int = 0
    """Seed for choosing images."""
    precision: Literal["float32", "tf32", "bfloat16", "float64"] = "float32"
    """Number format to compute in."""


def run(arguments: list[str]) -> int:
    options = parse(Options, "probe neighbors", arguments)
    for name, value in (("queries", options.queries), ("limit", options.limit)):
        if value is not None and value < 1:
            raise UsageError(f"--{name} is {value}; it must be at least 1")
    if "--ks" in arguments and not options.ks:
        raise UsageError("--ks names no number; leave it out, or name some such as 1 5 20")
    from alexnet.core.console import Bar, say
    from alexnet.core.runs import environment, write_json
    from alexnet.evaluation.subject import provenance
    from alexnet.probes.layers import usual_layer
    from alexnet.probes.neighbors import neighbors
    from alexnet.report.pictures import save_pictures
    from alexnet.report.pictures.neighbors import draw_errors, draw_neighbors

    machine, folder = machine_of(options), probe_folder(options)
    subject = subject_of(options, machine, training=True)
    predictor = subject.predictor
    packed, name = subject.packed, subject.packed.source
    layer = usual_layer(predictor.model, options.layer, "fc7").name
    num_train = len(packed.split("train"))
    ks = options.ks or tuple(k for k in USUAL_KS if k <= num_train)
    if len(ks) < len(USUAL_KS) and not options.ks:
        say(f"there are {num_train} training images: k is {' and '.join(map(str, ks))}")
    with Bar("neighbors", len(packed.split("train")), quiet=options.json) as bar:
        found = neighbors(
            predictor,
            packed,
            layer=layer,
            split=options.split,
            images=options.images,
            queries=options.queries,
            ks=ks,
            limit=options.limit,
            seed=options.seed,
            workers=machine.workers,
            progress=lambda what, done, total: bar.update(done, what, total=total),
        )
    document = found.to_json()
    document["protocol"] |= provenance(name, packed, found.split)
    document["environment"] = environment()
    document["summary"] = {
        **{f"error, {errors[0].k} nearest by {space}": errors[0].error for space, errors in found.knn.items()},
        **{f"error, {errors[-1].k} nearest by {space}": errors[-1].error for space, errors in found.knn.items()},
    }
    clear_probe(folder, "neighbors.json", "neighbors.png", "neighbors_error.png")
    files = [folder / f"neighbors{end}" for end in (".json", ".png", "_error.png")]
    titles = [f"nearest of {document['train_images']:,} training images by {layer}", "nearest by pixels"]
    pictures = {
        files[1].name: draw_neighbors(_rows(document, packed, found.split), titles, legend=True),
        files[2].name: draw_errors(document),
    }
    document["numbered"] = save_pictures(folder, pictures)
    write_json(files[0], document)
    if options.json:
        print_json(document)
        return 0
    print(f"{'error of the k nearest':<24}" + "".join(f"{f'k = {k}':>10}" for k in ks))
    for space, errors in found.knn.items():
        print(f"{printable(space):<24}" + "".join(f"{e.error:>10.2%}" for e in errors))
    six = document["six_nearest"]
    for space, same in six["same_class"].items():
        print(f"of the six nearest by {printable(space)}, {same['fraction']:.1%} are of the query's class")
    print(
        f"{six['in_both']['fraction']:.1%} of the six nearest by {printable(layer)} are among the six nearest by "
        f"pixels; their median rank by pixels is {found.pixel_rank:.0%} of the way down (50% is chance)"
    )
    print("\n".join(f"in {printable(file)}" for file in files))
    return 0


def _rows(document: dict[str, Any], packed: "PackedSet", split: str) -> "list[tuple[Tile, list[list[Tile]]]]":
    import numpy as np

    from alexnet.report.pictures.neighbors import Tile

    def tile(split: str, image: dict[str, Any], caption: str, is_right: bool | None = None) -> Tile:
        return Tile(packed.split(split).read(np.array([image["image"]]))[0], caption, is_right)

    rows = []
    for query in document["queries"]:
        blocks = [
            [tile("train", near, near["class"], near["class"] == query["class"]) for near in query[space]]
            for space in document["knn"]
        ]
        rows.append((tile(split, query, query["class"]), blocks))
    return rows
