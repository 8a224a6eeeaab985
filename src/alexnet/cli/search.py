"""The verbs index and search: find the images of one's own folders that a network finds alike."""

# No `from __future__ import annotations`: tyro must see the types of options.
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alexnet.cli.shared import (
    DeviceOptions,
    ModelOptions,
    Word,
    Words,
    check_file,
    complain,
    describe,
    machine_of,
    parse,
    print_json,
)
from alexnet.core.errors import ImageError, UsageError, printable

if TYPE_CHECKING:
    from alexnet.evaluation.predict import Predictor
    from alexnet.probes.library import Match, Matches
    from alexnet.probes.search import Index

SHOWN_RESULTS, SHOWN_QUERIES = 10, 20
"""At most, in the picture."""
METRICS = {"cosine": "cosine distance", "euclidean": "Euclidean distance"}


@dataclass(frozen=True, kw_only=True)
class IndexOptions(ModelOptions):
    """Make the images of folders and archives searchable by what a network finds alike. A file that cannot be read is named and
    left out (exit 4).

    alexnet index runs/mine holiday/ scans/ --out photos.index
    """

    model: Word
    """Run directory, checkpoint of a run, or model folder."""
    folders: Words
    """Folders and archives (.zip, .tar, .tar.gz), which are searched for images; Parquet files or folders of them; and image
    files."""
    out: str
    """Folder of the index."""
    add: bool = False
    """Bring an index up to date: add what is not yet in it, by path, size and time, and take out what is gone from these
    folders; also what goes on after an interruption."""
    update: bool = False
    """Bring an index up to date as --add does, and look at every file in it as well: take out what is gone from anywhere, and
    read again what has changed (an archive as a whole). No folders need to be named."""
    kind: Literal["exact", "ivf", "hnsw", "codes"] | None = None
    """How to search: exact, by a scan (default), or for more than some 100,000 images by faiss (ivf, hnsw) or by the paper's
    short codes (codes), which miss a few. How many they find is measured and printed."""
    metric: Literal["cosine", "euclidean"] | None = None
    """What near means; by default the one by which the nearest neighbor errs less on the model's own validation images, or
    cosine where there are none."""
    layer: str | None = None
    """Layer whose features are compared, by default fc7, or the last hidden layer that holds trained weights; a wrong name lists
    all."""
    precision: Literal["float32", "tf32", "bfloat16", "float64"] | None = None
    """Number format in which the network computes for this index and for searches in it; by default float32."""


def index(arguments: list[str]) -> int:
    options = parse(IndexOptions, "index", arguments)
    if not options.folders and not options.update:
        raise UsageError("index needs folders, archives or files with images after the model; only --update needs none")
    from alexnet.probes.library import index

    done = index(
        options.model,
        options.folders,
        options.out,
        machine_of(options),
        add=options.add,
        update=options.update,
        layer=options.layer,
        metric=options.metric,
        kind=options.kind,
        precision=options.precision,
        best=options.best,
        data_root=options.data_root,
        on_fault=lambda error: complain(describe(error)),
    )
    meta = done.index.meta
    recall, chosen = (done.index.shortcut or {}).get("recall"), meta.get("chosen")
    if options.json:
        document: dict[str, Any] = {"index": options.out, "images": len(done.index), "added": done.added}
        document |= {"gone": list(done.gone), "left_out": [str(error.path) for error in done.left_out]}
        print_json({**document, "kind": meta["kind"], "metric": done.index.metric, "chosen": chosen, "recall": recall})
    else:
        taken_out = f" {len(done.gone):,} no longer there and taken out," if done.gone else ""
        print(f"{done.added:,} images added,{taken_out} {len(done.left_out):,} left out; {len(done.index):,} in all")
        if not (options.add or options.update):
            print(f"compared in {meta['layer']} by {_why(done.index.metric, chosen, options.metric)}")
        if recall is not None:
            print(
                f"recall@{recall['at']} of {meta['kind']} against exact: {recall['recall']:.1%} "
                f"({recall['found']} of {recall['of']} neighbors of {recall['queries']} of its own images)"
            )
        elif meta["kind"] == "codes":
            print("a search compares all of so few images; codes are made when there are more")
        print(f"in {printable(options.out)}")
    return 4 if done.left_out else 0


def _why(metric: str, chosen: Mapping[str, Any] | None, asked: str | None) -> str:
    """The metric, and why it was taken."""
    if asked is not None:
        return METRICS[metric]
    if chosen is None:
        return (
            f"{METRICS[metric]} (no validation images of the model are at hand to compare it with Euclidean distance)"
        )
    rates = {name: chosen["errors"][key] / chosen["n"] for key, name in METRICS.items()}
    tried = " and ".join(f"in {rate:.1%} by {name}" for name, rate in rates.items())
    return f"{METRICS[metric]}: the nearest neighbor errs {tried} ({chosen['n']:,} images of {chosen['split']})"


@dataclass(frozen=True, kw_only=True)
class SearchOptions(DeviceOptions):
    """The images of an index that are nearest to given ones. A file that cannot be read is named, the others are answered
    (exit 4).

    alexnet search photos.index cat.jpg --top 10 --picture found.png
    """

    folder: Word
    """Folder that `alexnet index` wrote."""
    images: Words
    """Files, folders, archives, pictures in an archive (photos.zip/cat/1.jpg), or - for standard input."""
    top: int = 10
    """Images to find."""
    picture: str | None = None
    """Write the images and what was found for them to this PNG file: ten results each of the first twenty."""
    model: str | None = None
    """Run directory or model folder, where it is no longer where the index says."""


def search(arguments: list[str]) -> int:
    options = parse(SearchOptions, "search", arguments)
    if not options.images:
        raise UsageError("search needs images after the index: files, folders, or - for standard input")
    if options.top < 1:
        raise UsageError(f"--top is {options.top}; it must be at least 1")
    if options.picture and "-" in options.images:
        raise UsageError("--picture needs files; standard input can be read only once")
    check_file(options.picture, "--picture")
    from alexnet.probes.library import matches, model_of
    from alexnet.probes.search import open_index

    found = open_index(options.folder)
    predictor = model_of(found, machine_of(options), options.model)
    answers = matches(found, predictor, list(options.images), options.top)
    faults = [answer.error for answer in answers if answer.error is not None]
    answers = [answer for answer in answers if answer.error is None]
    for fault in faults:
        complain(describe(fault))
    if options.picture and answers:
        _draw(answers, predictor, found, Path(options.picture))
    if options.json:
        searches = [{"query": answer.query, "results": [vars(match) for match in answer.found]} for answer in answers]
        about = {"index": options.folder, "n": len(found), "metric": found.metric}
        print_json({**about, "searches": searches, "left_out": [str(fault.path) for fault in faults]})
    else:
        for answer in answers:
            print(printable(answer.query))
            for match in answer.found:
                mark = "  (no longer there)" if match.gone else ""
                print(f"  {_distance(match, found.metric):>10}  {printable(match.path)}{mark}")
        if any(match.gone for answer in answers for match in answer.found):
            complain(
                f"some images are no longer there; `alexnet index MODEL --out {printable(options.folder)} --update` "
                "takes out what is gone"
            )
        if options.picture and answers:
            print(f"in {printable(options.picture)}")
    return 4 if faults else 0


def _distance(match: "Match", metric: str) -> str:
    return f"{match.distance:.3g}" if metric == "cosine" else f"{match.distance:.2f}"


def _draw(answers: "list[Matches]", predictor: "Predictor", index: "Index", path: Path) -> None:
    from alexnet.report.pictures import save_pictures
    from alexnet.report.pictures.neighbors import Tile, draw_neighbors

    def tile(file: str, caption: str) -> Tile:
        try:
            return Tile(predictor.pixels(file), caption)
        except ImageError:
            return Tile(None, caption)

    rows = [
        (
            tile(answer.query, Path(answer.query).name),
            [[tile(near.path, _distance(near, index.metric)) for near in answer.found[:SHOWN_RESULTS]]],
        )
        for answer in answers[:SHOWN_QUERIES]
    ]
    title = f"nearest by {index.meta['layer']}, with their {METRICS[index.metric]}s"
    save_pictures(path.parent, {path.name: draw_neighbors(rows, [title], legend=False)})
