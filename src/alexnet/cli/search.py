"""The verbs index and search: find the images of one's own folders that a network finds alike."""

# No `from __future__ import annotations`: tyro must see the types of options.
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
    load_model,
    machine_of,
    parse,
    print_json,
)
from alexnet.core.errors import ImageError, UsageError, printable

if TYPE_CHECKING:
    from alexnet.evaluation.predict import Predictor

SHOWN_RESULTS, SHOWN_QUERIES = 10, 20
"""At most, in the picture."""


@dataclass(frozen=True, kw_only=True)
class IndexOptions(ModelOptions):
    """Make the images of folders searchable by what a network finds alike. A file that cannot be read is named and left out
    (exit 4).

    alexnet index runs/mine holiday/ scans/ --out photos.index
    """

    model: Word
    """Run directory, checkpoint of a run, or model folder."""
    folders: Words
    """Folders, searched for images, and files."""
    out: str
    """Folder of the index."""
    add: bool = False
    """Bring an index up to date: add what is not yet in it, by path, size and time, and take out what is gone from these
    folders; also what goes on after an interruption."""
    kind: Literal["exact", "ivf", "hnsw"] | None = None
    """How to search: exact, by a scan (default), or for more than some 100,000 images by faiss, which misses a few (how many is
    measured and printed)."""
    layer: str | None = None
    """Layer whose features are compared, by default fc7; a wrong name lists all."""
    precision: Literal["float32", "tf32", "bfloat16", "float64"] | None = None
    """Number format in which the network computes for this index and for searches in it; by default float32."""


def index(arguments: list[str]) -> int:
    options = parse(IndexOptions, "index", arguments)
    if not options.folders:
        raise UsageError("index needs folders or files with images after the model")
    from alexnet.core.console import Bar
    from alexnet.probes.search import add_to_index, build_index, open_index

    machine, faults, before = machine_of(options), _Faults(), 0
    gone: list[str] = []
    with Bar("index", 0, quiet=options.json) as bar:
        if options.add:
            old = open_index(options.out)
            paths = old.paths  # before their files are written again
            for name in ("kind", "layer", "precision"):
                if getattr(options, name) not in (None, old.meta[name]):
                    raise UsageError(
                        f"--{name} is {printable(getattr(options, name))}, and {printable(options.out)} was built with "
                        f"{printable(old.meta[name])}; leave it out, or build another index"
                    )
            predictor = load_model(options, machine, old.meta["precision"])
            found = add_to_index(
                old, predictor, options.folders, on_fault=faults.tell, on_gone=gone.append, progress=bar
            )
            before = len(paths) - sum(map(set(gone).__contains__, paths))
        else:
            predictor = load_model(options, machine, options.precision or "float32")
            found = build_index(
                predictor,
                options.folders,
                Path(options.out),
                model=options.model if predictor.state is None else predictor.state.path,
                layer=options.layer or "fc7",
                kind=options.kind or "exact",
                on_fault=faults.tell,
                progress=bar,
            )
    recall = (found.meta["faiss"] or {}).get("recall")
    if options.json:
        document: dict[str, Any] = {"index": options.out, "images": len(found), "added": len(found) - before}
        document["gone"] = gone
        print_json({**document, "left_out": faults.paths, "kind": found.meta["kind"], "recall": recall})
    else:
        taken_out = f" {len(gone):,} no longer there and taken out," if gone else ""
        print(f"{len(found) - before:,} images added,{taken_out} {len(faults.paths):,} left out; {len(found):,} in all")
        if recall is not None:
            print(
                f"recall@{recall['at']} of {found.meta['kind']} against exact: {recall['recall']:.1%} "
                f"({recall['found']} of {recall['of']} neighbors of {recall['queries']} of its own images)"
            )
        print(f"in {printable(options.out)}")
    return 4 if faults.paths else 0


@dataclass(frozen=True, kw_only=True)
class SearchOptions(DeviceOptions):
    """The images of an index that are nearest to given ones. A file that cannot be read is named, the others are answered
    (exit 4).

    alexnet search photos.index cat.jpg --top 10 --picture found.png
    """

    folder: Word
    """Folder that `alexnet index` wrote."""
    images: Words
    """Files, folders, or - for standard input."""
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
    from alexnet.evaluation.predict import load
    from alexnet.probes.search import open_index, query_vectors

    machine, faults = machine_of(options), _Faults()
    found = open_index(options.folder)
    model = options.model or found.meta["model"]
    if not Path(model).exists():
        raise UsageError(f"{printable(model)}: the model of this index is not there; say with --model where it is")
    predictor = load(model, machine.device, found.meta["precision"])
    queries, vector_QD = query_vectors(found, predictor, options.images, on_fault=faults.tell)
    nearest = found.search(vector_QD, options.top)
    documents: list[dict[str, Any]] = []
    for query, index_k, distance_k in zip(
        queries, nearest.index_Qk.tolist(), nearest.distance_Qk.tolist(), strict=True
    ):
        results = [
            {"path": (path := found.paths[number]), "distance": distance, "gone": not Path(path).exists()}
            for number, distance in zip(index_k, distance_k, strict=True)
            if number >= 0
        ]
        documents.append({"query": query, "results": results})
    if options.picture and documents:
        _draw(documents, predictor, found.meta["layer"], Path(options.picture))
    if options.json:
        print_json({"index": options.folder, "n": len(found), "searches": documents, "left_out": faults.paths})
    else:
        for document in documents:
            print(printable(document["query"]))
            for result in document["results"]:
                mark = "  (no longer there)" if result["gone"] else ""
                print(f"  {result['distance']:10.2f}  {printable(result['path'])}{mark}")
        if any(result["gone"] for document in documents for result in document["results"]):
            complain(
                f"some images are no longer there; `alexnet index MODEL FOLDER --out {printable(options.folder)} --add` "
                "takes out what is gone from a folder"
            )
        if options.picture and documents:
            print(f"in {printable(options.picture)}")
    return 4 if faults.paths else 0


class _Faults:
    """Names each file that cannot be read, once, on stderr."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def tell(self, error: ImageError) -> None:
        self.paths.append(str(error.path))
        complain(describe(error))


def _draw(documents: list[dict[str, Any]], predictor: "Predictor", layer: str, path: Path) -> None:
    from alexnet.report.pictures import save_pictures
    from alexnet.report.pictures.neighbors import Tile, draw_neighbors

    def tile(file: str, caption: str) -> Tile:
        try:
            return Tile(predictor.pixels(file), caption)
        except ImageError:
            return Tile(None, caption)

    rows = [
        (
            tile(document["query"], Path(document["query"]).name),
            [[tile(near["path"], f"{near['distance']:.2f}") for near in document["results"][:SHOWN_RESULTS]]],
        )
        for document in documents[:SHOWN_QUERIES]
    ]
    figure = draw_neighbors(rows, [f"nearest by {layer}, with their distances"], legend=False)
    save_pictures(path.parent, {path.name: figure})
