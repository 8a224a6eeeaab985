"""The verbs that ask a trained network: evaluate, predict."""

# No `from __future__ import annotations`: tyro must see the types of options.
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from alexnet.cli.shared import (
    ModelOptions,
    Word,
    Words,
    check_file,
    complain,
    describe,
    inert,
    load_model,
    machine_of,
    parse,
    print_json,
    tell,
)
from alexnet.core.errors import UsageError, printable


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(ModelOptions):
    """Exact top-1 and top-5 errors on every image of a split. Several models are an ensemble of averaged probabilities; a
    model may also be a file that --save wrote.

    alexnet evaluate runs/a runs/b --data photos/ --views 10
    """

    models: Words
    """Run directories, checkpoints, model folders, or .npz files of saved probabilities."""
    data: str | None = None
    """Packed directory, folder, CSV or named set; by default that of the run."""
    split: str | None = None
    """all, train, val or test; by default the images that the run held out or, of other data, its val or test images, or all
    where it names no splits."""
    views: str = "1"
    """1 (center), 10 (the paper's ten views) or random:K."""
    views_seed: int = 0
    """Seed for the crops of --views random:K."""
    precision: Literal["float32", "tf32", "bfloat16", "float64"] | None = None
    """Number format to compute in; by default that of the run, so that the errors are those that it ended with. For a model
    folder, and where there are no instructions for bfloat16, it is float32."""
    batch_size: int | None = None
    """Images at a time; by default as in the run, or 128."""
    weights: tuple[float, ...] | None = None
    """Weights of the models in an ensemble, one for each; by default equal."""
    search_weights: str | None = None
    """Search the weights on this split, val for example, by its top-5 errors, and judge them on the images of --split."""
    save: str | None = None
    """Write the probabilities to this .npz file, to be combined later."""
    out: str | None = None
    """Write the result to this JSON file."""


def evaluate(arguments: list[str]) -> int:
    options = parse(EvaluateOptions, "evaluate", arguments)
    if not options.models:
        raise UsageError("evaluate needs models: run directories, model folders or saved probabilities")
    if options.weights is not None and len(options.weights) != len(options.models):
        raise UsageError(
            f"--weights has {len(options.weights)} numbers for {len(options.models)} models; give one for each, or none"
        )
    check_file(options.save, "--save")
    check_file(options.out, "--out")
    from alexnet.evaluation.subject import evaluate

    evaluation = evaluate(
        options.models,
        options.data,
        machine_of(options),
        split=options.split,
        views=options.views,
        weights=options.weights,
        search_weights=options.search_weights,
        views_seed=options.views_seed,
        precision=options.precision,
        batch_size=options.batch_size,
        best=options.best,
        data_root=options.data_root,
    )
    if options.save and evaluation.probabilities is not None:
        evaluation.probabilities.save(Path(options.save))
    tell(evaluation.finding(options.data), options, options.out)
    return 0


@dataclass(frozen=True, kw_only=True)
class PredictOptions(ModelOptions):
    """The most probable classes of images of any size. A file that cannot be read is reported, the others are answered
    (exit 4).

    alexnet predict runs/mine cat.jpg holiday/ --views 10
    """

    model: Word
    """Run directory, checkpoint of a run, or model folder."""
    images: Words
    """Files, folders, or - for standard input."""
    views: str = "1"
    """1 (center), 10 (the paper's ten views) or random:K crops of the whole image, averaged."""
    top: int = 5
    """Classes to show."""
    csv: bool = False
    """Rows path,rank,class,probability on stdout."""
    precision: Literal["float32", "tf32", "bfloat16", "float64"] = "float32"
    """Number format to compute in."""


def predict(arguments: list[str]) -> int:
    options = parse(PredictOptions, "predict", arguments)
    if not options.images:
        raise UsageError("predict needs images after the model: files, folders, or - for standard input")
    if options.top < 1:
        raise UsageError(f"--top is {options.top}; it must be at least 1")
    if options.csv and options.json:
        raise UsageError("--csv and --json are two forms of one output; give one of them")
    machine = machine_of(options)
    predictor = load_model(options, machine)
    state = {} if predictor.state is None else {"state": predictor.state.record()}
    faults, documents = 0, []
    predictions = predictor.predict(iter(options.images), options.views, options.top, workers=machine.workers)
    if options.csv:
        import csv

        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["path", "rank", "class", "probability"])
    for prediction in predictions:
        if prediction.error is not None:
            faults += 1
            complain(describe(prediction.error))
        if options.json:
            answers = [{"class": a.name, "label": a.label, "probability": a.probability} for a in prediction.answers]
            error = {"reason": prediction.error.reason, "detail": prediction.error.detail} if prediction.error else None
            documents.append({"path": prediction.path, "predictions": answers, "error": error, **state})
        elif options.csv:
            for rank, a in enumerate(prediction.answers, start=1):
                writer.writerow([inert(prediction.path), rank, inert(a.name), f"{a.probability:.6f}"])
        elif prediction.error is None:
            print(printable(prediction.path))
            width = max(len(printable(a.name)) for a in prediction.answers)
            for a in prediction.answers:
                print(f"  {printable(a.name):<{width}} {a.probability:6.1%} {'█' * round(30 * a.probability)}")
    if options.json:
        print_json(documents)
    return 4 if faults else 0
