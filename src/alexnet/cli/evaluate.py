"""The verb evaluate: the exact errors of a trained network."""

# No `from __future__ import annotations`: tyro must see the types of options.
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from alexnet.cli.shared import (
    ModelOptions,
    Words,
    check_file,
    machine_of,
    parse,
    tell,
)
from alexnet.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(ModelOptions):
    """Exact top-1 and top-5 errors on every image of a split. Several models are an ensemble of averaged probabilities; a
    model may also be a file that --save wrote.

    alexnet evaluate runs/a runs/b --data photos/ --views 10
    """

    models: Words
    """Run directories, checkpoints, model folders, or .npz files of saved probabilities."""
    data: str | None = None
    """Packed directory, folder, archive, Parquet files, CSV or named set; by default that of the run."""
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
