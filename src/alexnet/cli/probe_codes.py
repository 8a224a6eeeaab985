"""alexnet probe codes: search by a few bytes an image, beside search by floats."""

# No `from __future__ import annotations`: tyro must see the types of options.
from dataclasses import dataclass
from typing import Any, Literal

from alexnet.cli.shared import ModelOptions, Word, clear_probe, machine_of, parse, print_json, probe_folder, subject_of
from alexnet.core.errors import UsageError, printable


@dataclass(frozen=True, kw_only=True)
class Options(ModelOptions):
    """Short binary codes for image retrieval (§6.1): random hyperplanes, ITQ and an autoencoder, and an autoencoder on pixels.
    The training images are the database, the held-out ones the queries.

    alexnet probe codes runs/mine --bits 32 64
    """

    model: Word
    """Run directory, checkpoint of a run, or model folder."""
    data: str | None = None
    """Packed directory, folder, CSV or named set; by default that of the run."""
    layer: str | None = None
    """Layer to code, by default fc7, or the last hidden layer of a network without one; a wrong name lists all."""
    bits: tuple[int, ...] = ()
    """Lengths of the codes, multiples of 8; by default 16, 32, 64, 128 and 256, as far as there are so many images."""
    seeds: int = 3
    """How many times everything is fitted, with seeds 0, 1, ..."""
    precision: Literal["float32", "tf32", "bfloat16", "float64"] = "float32"
    """Number format to compute in."""
    out: str | None = None
    """Folder to write; by default the folder probes of the run."""


def run(arguments: list[str]) -> int:
    options = parse(Options, "probe codes", arguments)
    if options.seeds < 1:
        raise UsageError(f"--seeds is {options.seeds}; it must be at least 1")
    if "--bits" in arguments and not options.bits:
        raise UsageError("--bits names no length; leave it out, or name some of 8 16 32 64 128 256")
    folder = probe_folder(options)
    machine = machine_of(options)

    from alexnet.core.console import Bar, say
    from alexnet.core.runs import environment, write_json
    from alexnet.data.packed import PackedSplit
    from alexnet.evaluation.predict import model_fingerprint
    from alexnet.evaluation.subject import provenance
    from alexnet.probes.codes import (
        USUAL_BITS,
        Vectors,
        compare,
        describe_protocol,
        load_faiss,
        require_bits,
        thumbnails,
        usual_bits,
    )
    from alexnet.probes.features import cached_features
    from alexnet.probes.layers import usual_layer
    from alexnet.report.pictures import save_pictures
    from alexnet.report.pictures.codes import draw_codes

    load_faiss()
    subject = subject_of(options, machine, training=True)
    predictor = subject.predictor
    layer = usual_layer(predictor.model, options.layer, "fc7")
    packed, name = subject.packed, subject.packed.source
    database, queries = packed.split("train"), packed.split(packed.held_out)
    bits = tuple(sorted(set(options.bits or usual_bits(len(database), layer.num_units))))
    require_bits(bits, len(database), layer.num_units)
    if not options.bits and len(bits) < len(USUAL_BITS):
        say(f"there are {len(database)} training images: codes of {' and '.join(map(str, bits))} bits")

    def features_of(split: PackedSplit) -> Any:
        with Bar(f"{layer.name} of {split.name}", len(split), quiet=options.json) as bar:
            found = cached_features(
                predictor,
                packed,
                split.name,
                [layer.name],
                workers=machine.workers,
                progress=lambda done, _total: bar.update(done),
            )
        return found[layer.name].matrix(layer.name)[:]

    def pixels_of(split: PackedSplit) -> Any:
        with Bar(f"pixels of {split.name}", len(split), quiet=options.json) as bar:
            return thumbnails(split, progress=lambda done, _total: bar.update(done))

    features = Vectors(layer.name, features_of(database), features_of(queries))
    pixels = Vectors("raw pixels", pixels_of(database), pixels_of(queries))
    with Bar("codes", 4 * len(bits) * options.seeds, "coders", quiet=options.json) as bar:
        result = compare(
            features,
            pixels,
            database.labels,
            queries.labels,
            bits,
            range(options.seeds),
            progress=lambda done, total: bar.update(done, total=total),
        )
    document = {
        "probe": "codes",
        "summary": _summary(result),
        "layer": layer.name,
        "n": {"database": len(database), "queries": len(queries), "classes": len(packed.classes)},
        "bits": list(bits),
        "seeds": list(range(options.seeds)),
        **result,
        "protocol": describe_protocol(predictor, layer.name),
        "model": model_fingerprint(predictor),
        "data": {"database": provenance(name, packed, "train"), "queries": provenance(name, packed, queries.name)},
        "environment": environment(),
    }
    clear_probe(folder, "codes.json", "codes.png")
    save_pictures(folder, {"codes.png": draw_codes(document)})
    write_json(folder / "codes.json", document)
    if options.json:
        print_json(document)
        return 0
    _print_table(document)
    print(f"in {printable(folder)}: codes.json, codes.png")
    return 0


def _summary(result: dict[str, Any]) -> dict[str, float]:
    """The figures of the report: mean average precisions."""
    summary = {f"mAP, {row['input']}, floats": row["mean_average_precision"] for row in result["float"]}
    for row in result["curves"]:
        summary[f"mAP, {row['input']}, {row['coder']}, {row['bits']} bits"] = row["mean_average_precision"]["mean"]
    return summary


def _print_table(document: dict[str, Any]) -> None:
    depth = document["depth"]
    print(f"{'':<24} {'bits':>6} {'bytes':>6}    mAP {f'precision@{depth}':>14} {f'recall@{depth}':>11}  ms a query")
    lines = [(f"{row['input']}, floats", "", row["bytes"], row, row["search_ms"]) for row in document["float"]]
    for row in document["curves"]:
        mean = {key: value["mean"] for key, value in row.items() if isinstance(value, dict)}
        lines.append((f"{row['input']}, {row['coder']}", row["bits"], row["bytes"], mean, mean["search_ms"]))
    for what, bits, size, row, search_ms in lines:
        print(
            f"{what:<24} {bits:>6} {size:>6,} {row['mean_average_precision']:>6.3f} {row[f'precision_{depth}']:>14.3f} "
            f"{row[f'recall_{depth}']:>11.3f} {search_ms:>11.3f}"
        )
