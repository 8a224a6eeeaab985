"""`alexnet probe linear`: a linear classifier on each layer."""

# No `from __future__ import annotations`: tyro must see the types of options.
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from alexnet.cli.shared import ModelOptions, Word, clear_probe, machine_of, parse, print_json, probe_folder, subject_of
from alexnet.core.errors import UsageError, printable

if TYPE_CHECKING:
    from alexnet.core.console import Bar

PER_CLASS = (1, 5, 10, 50)
NUM_DRAWS = 5
DEEPEST = 3
"""Layers that few labels are tried on, besides the pixels."""


@dataclass(frozen=True, kw_only=True)
class Options(ModelOptions):
    """The held-out error of a linear classifier on each layer, from the pixels to the last hidden layer, with all labels and
    with few.

    alexnet probe linear runs/mine
    """

    model: Word
    """Run directory, checkpoint of a run, or model folder."""
    layers: tuple[str, ...] = ()
    """Layers to read; a wrong name lists all. By default the pixels and each layer with weights but the last, after its
    pooling."""
    data: str | None = None
    """Packed directory, folder, CSV or named set with the split train and another; by default that of the run."""
    images: int = 10_000
    """Most images to take from each split, as many of each class."""
    seed: int = 0
    """Seed for sampling images and for the part of them that chooses C; few labels are also drawn with the next four seeds."""
    precision: Literal["float32", "tf32", "bfloat16", "float64"] = "float32"
    """Number format to compute in."""
    out: str | None = None
    """Folder to write; by default RUN/probes."""


def run(arguments: list[str]) -> int:
    options = parse(Options, "probe linear", arguments)
    if options.images < 10:
        raise UsageError(f"--images is {options.images}; a classifier needs at least 10")
    folder = probe_folder(options)
    import numpy as np

    from alexnet.core.console import Bar
    from alexnet.core.runs import environment, write_json
    from alexnet.evaluation.classes import places
    from alexnet.evaluation.subject import provenance
    from alexnet.probes import linear
    from alexnet.probes.features import model_fingerprint
    from alexnet.probes.layers import PIXELS, find_layers, network_layers
    from alexnet.report.pictures import save_pictures
    from alexnet.report.pictures.linear import error_curves

    linear.require_scikit_learn()
    machine = machine_of(options)
    subject = subject_of(options, machine, training=True)
    predictor = subject.predictor
    found = find_layers(predictor.model, list(dict.fromkeys(options.layers)) or linear.default_layers(predictor.model))
    output = network_layers(predictor.model)[-1].name
    packed, name = subject.packed, subject.packed.source
    splits = {"train": packed.split("train"), "held out": packed.split(packed.held_out)}

    names = list(dict.fromkeys([*(layer.name for layer in found), output]))
    features, labels = {}, {}
    for what, split in splits.items():
        image_N = linear.balanced_sample(split.labels, options.images, options.seed, f"linear probe/{what}")
        labels[what] = split.labels[image_N]
        with Bar(f"features, {what}", len(image_N), quiet=options.json) as bar:
            features[what] = linear.pooled_features(
                predictor,
                split,
                names,
                image_N,
                workers=machine.workers,
                progress=partial(_show, bar),
            )
    label_N, label_M = labels["train"], labels["held out"]
    own = None
    known_M = places(packed.classes, predictor.classes)[label_M]
    if (known_M >= 0).all():
        own = linear.Errors(int((features["held out"][output].argmax(axis=1) != known_M).sum()), len(label_M))
    chance = linear.Errors(int((label_M != np.bincount(label_N).argmax()).sum()), len(label_M))

    rows: list[dict[str, Any]] = []
    few: list[dict[str, Any]] = []
    deepest = {layer.name for layer in found[-DEEPEST:]} | {PIXELS}
    seeds = list(range(options.seed, options.seed + NUM_DRAWS))
    with Bar("classifiers", len(found), "layers", quiet=options.json) as bar:
        for i, layer in enumerate(found):
            train_ND, held_out_MD = features["train"][layer.name], features["held out"][layer.name]
            probe = linear.linear_probe(train_ND, label_N, held_out_MD, label_M, seed=options.seed)
            rows.append(
                {
                    "layer": layer.name,
                    "shape": list(layer.shape),
                    "averaged": list(linear.pooled_shape(layer.shape)),
                    "units": train_ND.shape[1],
                    **probe.to_json(),
                }
            )
            if layer.name in deepest:
                results = linear.few_labels(train_ND, label_N, held_out_MD, label_M, per_class=PER_CLASS, seeds=seeds)
                few.extend({"layer": layer.name, **result.to_json()} for result in results)
            bar.update(i + 1)

    document = {
        "probe": "linear",
        "summary": {f"error, linear on {row['layer']}": row["error"] for row in rows},
        "n": len(label_M),
        "n_train": len(label_N),
        "seed": options.seed,
        "seeds": seeds,
        "layers": rows,
        "few_labels": few,
        "network": None if own is None else own.to_json(),
        "chance": chance.to_json(),
        "protocol": {
            "view": "center, of training and held-out images alike",
            "averaging": f"maps over a grid of windows, to at most {linear.MAX_SIDE} x {linear.MAX_SIDE} and "
            f"{linear.MAX_UNITS:,} numbers",
            "scaling": "each number to mean 0 and deviation 1 on the training images",
            "classifier": "scikit-learn's LogisticRegression: multinomial, penalty |w|^2 / 2, L-BFGS",
            "tolerance": linear.TOLERANCE,
            "C": f"the smallest of {', '.join(f'{c:g}' for c in linear.STRENGTHS)} with the fewest errors on one in "
            f"{linear.SELECTION_PART} training images of each class, tried in this order until the errors rise; then all "
            "training images are fitted",
            "few_labels": f"C {linear.FEW_LABELS_STRENGTH:g}; means and deviations of all {len(label_N):,} training images; "
            "the network was trained on whatever labels it was trained on",
            "interval": "Wilson, 95 %, over held-out images; not over trainings of the network",
            "images": {what: f"{len(labels[what]):,} of {len(split):,}" for what, split in splits.items()},
            "precision": predictor.precision,
        },
        "model": model_fingerprint(predictor),
        "data": provenance(name, packed, packed.held_out),
        "environment": environment(),
    }
    clear_probe(folder, "linear.json", "linear.png")
    save_pictures(folder, {"linear.png": error_curves(document)})
    write_json(folder / "linear.json", document)
    if options.json:
        print_json(document)
        return 0
    print(f"linear classifiers on {len(label_N):,} labeled images; errors of {len(label_M):,} of {packed.held_out}:")
    for row in rows:
        interval = f"({row['low']:.1%} to {row['high']:.1%})"
        print(f"  {row['layer']:<10} {row['error']:>6.1%} {interval:<18} {row['units']:>5,} numbers, C {row['C']:g}")
    if own is not None:
        print(f"  the network itself {own.errors / own.n:.1%}")
    print(f"few labels, mean of {len(seeds)} draws:")
    for layer_name in dict.fromkeys(row["layer"] for row in few):
        own_rows = [row for row in few if row["layer"] == layer_name]
        print(f"  {layer_name:<10} " + ", ".join(f"{r['images_per_class']}: {r['mean_error']:.1%}" for r in own_rows))
    print(f"in {printable(folder)}: linear.json, linear.png")
    return 0


def _show(bar: "Bar", done: int, _total: int) -> None:
    bar.update(done)
