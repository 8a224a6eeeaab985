"""The verb predict: what a trained network answers to pictures."""

# No `from __future__ import annotations`: tyro must see the types of options.
import sys
from dataclasses import dataclass
from typing import Literal

from alexnet.cli.shared import (
    ModelOptions,
    Word,
    Words,
    complain,
    describe,
    inert,
    load_model,
    machine_of,
    parse,
    print_json,
)
from alexnet.core.errors import UsageError, printable


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
