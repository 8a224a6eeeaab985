"""The verbs that train and use a network: train, evaluate, predict, info, report, bench."""

# No `from __future__ import annotations`: tyro must see the types of options.
import sys
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from alexnet.cli.helptext import first_sentence, listing
from alexnet.cli.results import errors_lines, print_evaluation
from alexnet.cli.shared import (
    DeviceOptions,
    ModelOptions,
    Word,
    Words,
    bring_back,
    check_file,
    check_folder,
    complain,
    describe,
    inert,
    load_model,
    machine_of,
    parse,
    print_json,
)
from alexnet.core.errors import UsageError, printable


def train(arguments: list[str]) -> int:
    from alexnet.recipes import RECIPES, for_device, recipe

    if not arguments or arguments[0].startswith("-"):
        if not arguments or set(arguments) & {"-h", "--help", "--help-all"}:
            sentences = {name: first_sentence(function.__doc__) for name, function in RECIPES.items()}
            print(
                listing(
                    "train RECIPE --out RUN [options]",
                    "recipes",
                    sentences,
                    "`alexnet train RECIPE --help` shows the options. For photographs of your own begin with modern_photos.",
                ),
                end="",
            )
            return 0 if arguments else 2
        raise UsageError(f"train needs the name of a recipe first: {', '.join(RECIPES)}")
    base = recipe(arguments[0])
    from alexnet.cli.options import given, value_of
    from alexnet.cli.train_options import DECIDED, FIRST, refuse_unused, with_kinds
    from alexnet.core.config import from_json, to_json
    from alexnet.core.console import mute, say
    from alexnet.core.runs import standing
    from alexnet.distributed import launch as job
    from alexnet.recipes.run import open_data, plan, run
    from alexnet.training.config import TrainConfig
    from alexnet.training.files import recover, stored_config
    from alexnet.training.initial import load_initial

    in_job, named = job.in_job(), value_of(arguments, "out")
    if named and not job.number() and "--dry-run" not in arguments:
        recover(Path(named))
    chosen = "precision" in given(arguments)
    if named and ("--resume" in arguments or job.restarted()):
        stored = stored_config(standing(Path(named)))
        if stored is not None and stored.recipe == base.recipe:
            base, chosen = stored, True  # what the command does not say stays as it is
    base, rest = with_kinds(base, arguments[1:])

    @dataclass(frozen=True, kw_only=True)
    class TrainOptions(DeviceOptions):
        out: Annotated[str, tyro.conf.arg(metavar="RUN")]
        """Folder to write the run into: checkpoints, log, model and report."""
        init_from: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None
        """Fine-tune: start from the weights of this run, of a checkpoint of it (RUN/checkpoint/best) or of a model folder, layer
        by layer. If the classes differ, the last layer starts anew."""
        resume: bool = False
        """Go on from the last checkpoint, with the settings of the run. With --epochs it ends earlier or goes on longer."""
        change: bool = False
        """With --resume: go on with the other rates, schedule, noise or batches that this command names. What decides the
        network or its data stays as it is."""
        fresh: bool = False
        """Delete an earlier run in this folder first."""
        dry_run: bool = False
        """Measure a few steps and print how much time, memory and disk the run would take. Trains nothing."""
        deterministic: bool = False
        """Use only deterministic algorithms on CUDA, so that two runs are equal."""
        resident: bool = False
        """Keep all training images in the memory of the device. They must fit."""
        layout: Literal["data", "towers", "hybrid"] = "data"
        """What each rank holds when torchrun starts several. data: the whole network. towers: half of it, as in 2012. hybrid:
        all convolutions and a part of the fully connected layers. All ranks together compute one batch."""
        scheme: Literal["all", "turns", "slices"] = "all"
        """For --layout hybrid: whether the fully connected layers see the images of all ranks at once (all), those of one rank
        after another (turns), or a slice of each rank's (slices)."""
        exchange: Literal["full", "bfloat16"] = "full"
        """Number format in which ranks send activations and gradients to each other; full is that of the computation."""
        accumulate: int = 1
        """Compute each batch in this many parts, one after the other, if a whole one does not fit into memory."""
        config: Annotated[TrainConfig, tyro.conf.arg(name="")] = base

    TrainOptions.__doc__ = RECIPES[arguments[0]].__doc__
    options = parse(TrainOptions, f"train {arguments[0]}", rest, first=FIRST, decided=DECIDED)
    refuse_unused(options.config, base, rest)
    config, out = options.config, Path(options.out)
    resume, change, fresh = options.resume or job.restarted(), options.change, options.fresh
    machine = replace(
        machine_of(replace(options, device="cpu") if in_job else options),
        deterministic=options.deterministic,
        resident=options.resident,
        layout=options.layout,
        scheme=options.scheme,
        exchange=options.exchange,
        accumulate=options.accumulate,
    )
    if options.resume and fresh:
        raise UsageError("--resume goes on, --fresh starts over: give one of them")
    if change and not resume:
        raise UsageError("--change needs --resume: it goes on with a run under other settings")
    if options.accumulate < 1:
        raise UsageError(f"--accumulate is {options.accumulate}; it must be at least 1")
    if options.scheme != "all" and options.layout != "hybrid":
        raise UsageError(f"--scheme {options.scheme} has no effect here: it needs --layout hybrid")
    if options.exchange != "full" and not in_job:
        raise UsageError(
            f"--exchange {options.exchange} has no effect here: it needs several ranks, started with torchrun"
        )
    if options.layout != "data" and not in_job:
        raise UsageError(
            f"--layout {options.layout} needs several ranks: start them with torchrun --nproc-per-node N -m alexnet train ..."
        )
    if in_job and options.dry_run:
        raise UsageError("--dry-run measures one process; leave torchrun out")
    if in_job and fresh:
        raise UsageError(
            "--fresh under torchrun would delete the run again whenever ranks are started anew; delete it first, or take "
            "another --out"
        )
    if in_job and job.number():
        mute()
    else:  # what the first rank writes is not to surprise the others
        _check_out(out, resume=resume, fresh=fresh or options.dry_run)
    initial = None if options.init_from is None else load_initial(options.init_from)
    if not in_job and not chosen:
        config = for_device(config, machine.device)
    if options.dry_run:
        data = open_data(config, options.data_root, quiet=options.json)
        forecast = plan(config, out, machine, data=data, initial=initial)
        if options.json:
            print_json(forecast)
        else:
            print(
                f"{forecast['network']}, {forecast['parameters']:,} parameters; {forecast['training_images']:,} images, "
                f"{forecast['steps']:,} steps\ntime: {forecast['training_seconds']:,.0f} s of training at "
                f"{forecast['images_per_second']:.0f} images/s\nmemory: {forecast['peak_memory_bytes'] / 1e9:.1f} GB\n"
                f"disk: {forecast['disk_bytes'] / 1e9:.2f} GB of {forecast['disk_free_bytes'] / 1e9:.0f} GB free"
            )
        return 0
    with job.join(options.device) if in_job else nullcontext() as own:
        if own is not None:
            machine = replace(machine, device=own.device)
            config = config if chosen else for_device(config, own.device)
            settings = job.on_first("reading the settings of the run", lambda: to_json(config))
            config = from_json(TrainConfig, settings)  # the other ranks may have no access to it
            say(f"{own.world} ranks in the layout {options.layout}; batches of {config.batch_size} images in all")
        data = job.first_before_others(
            "preparing the data", lambda: open_data(config, options.data_root, quiet=options.json)
        )
        summary = run(config, out, machine, data=data, initial=initial, resume=resume, change=change, fresh=fresh)
    if own is not None and not own.first:
        return 0
    if options.json:
        print_json(summary)
        return 0
    for views, errors in summary["views"].items():
        print(errors_lines(views, errors, errors["classes"], errors["precision"]))
    print(f"model: {printable(summary['model'])}\nreport: {printable(summary['report'])}")
    return 0


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
    from alexnet.core.runs import write_json
    from alexnet.evaluation.subject import evaluate

    evaluation = evaluate(
        options.models,
        options.data,
        machine_of(options),
        split=options.split,
        views=options.views,
        weights=options.weights,
        views_seed=options.views_seed,
        precision=options.precision,
        batch_size=options.batch_size,
        best=options.best,
        data_root=options.data_root,
    )
    if options.save and evaluation.probabilities is not None:
        evaluation.probabilities.save(Path(options.save))
    result = evaluation.to_json()
    if options.out:
        write_json(Path(options.out), result)
    if options.json:
        print_json(result)
        return 0
    print_evaluation(evaluation, options.data)
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
    if options.csv:
        import csv

        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["path", "rank", "class", "probability"])
    for prediction in predictor.predict(options.images, options.views, options.top):
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


@dataclass(frozen=True, kw_only=True)
class BenchOptions(DeviceOptions):
    """Rates of this machine from a JPEG file to a training step, what limits it, and how long the paper's 90 passes over
    1.28 million images would take. One to three minutes; nothing is kept.

    alexnet bench --precision bfloat16 --plan
    alexnet bench --plan --gpus 8 --link 25
    """

    network: Word = "alexnet_2012"
    """A network that reads 224 x 224 color images."""
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """Number format of the training step."""
    batch_size: int = 128
    """Images in a step."""
    data: str | None = None
    """Read these images instead of drawn ones; prepared first if need be."""
    plan: bool = False
    """Also what preparing and storing ImageNet would take here and, with --gpus, a training step on several devices."""
    gpus: int | None = None
    """With --plan: on this many devices that share each batch, what a step would take, send and hold, in each layout. On a CPU
    they are ranks that share its cores."""
    link: float | None = None
    """With --gpus: GB/s that a device sends to the others while it receives as much; on a CPU by default what is measured."""


def bench(arguments: list[str]) -> int:
    options = parse(BenchOptions, "bench", arguments)
    if options.batch_size < 1:
        raise UsageError(f"--batch-size is {options.batch_size}; it must be at least 1")
    if options.gpus is not None and not options.plan:
        raise UsageError("--gpus needs --plan: it plans a job and starts nothing")
    if options.link is not None and options.gpus is None:
        raise UsageError("--link needs --plan --gpus N: it is the link between the devices of a plan")
    from alexnet.bench.forecast import PAPER_EPOCHS, measure
    from alexnet.bench.plan import check, plan
    from alexnet.core.console import say
    from alexnet.core.device import warn_of_emulation

    machine, devices = machine_of(options), None
    warn_of_emulation(machine.device, options.precision)
    if options.gpus is not None:
        check(options.network, options.gpus, options.link, machine)
    forecast = measure(
        options.network,
        machine,
        precision=options.precision,
        batch_size=options.batch_size,
        data=options.data,
        data_root=options.data_root,
        say=(lambda _stage: None) if options.json else (lambda stage: say(f"measuring: {stage}")),
    )
    document = forecast.to_json()
    if options.gpus is not None:
        if not options.json:
            say("measuring: what one of several devices computes")
        devices = plan(
            options.network,
            machine,
            precision=options.precision,
            batch_size=options.batch_size,
            devices=options.gpus,
            one_device=options.batch_size / forecast.step,
            link=options.link,
        )
        document["parallel"] = devices.to_json()
    if options.json:
        print_json(document)
        return 0
    for name, rate in (
        ("prepare (decode, resize, write)", forecast.prepare),
        ("decode our JPEG records, one thread", forecast.decode_packed),
        ("read packed pixels", forecast.read),
        ("augment", forecast.augment),
        (f"training step, batch {forecast.batch_size}, {forecast.precision}", forecast.step),
        ("end to end", forecast.end_to_end),
    ):
        print(f"{name:<44} {rate:>12,.0f} images/s")
    print(
        f"{'matrix product':<44} {forecast.product_flops / 1e9:>12,.0f} GFLOP/s\n"
        f"{'copy, read and written':<44} {forecast.copy_bytes / 1e9:>12,.1f} GB/s\n"
        f"response normalization: {forecast.kernels}; the step computes {forecast.flops_per_image / 1e9:.2f} GFLOP an image, "
        f"{forecast.arithmetic_share:.0%} of the matrix product's rate\n"
        f"limited by: {forecast.bottleneck}\n"
        f"{PAPER_EPOCHS} passes over ImageNet at this rate: {forecast.days_of_paper:,.1f} days (2012: 5 to 6 days on two GPUs)"
    )
    if options.plan:
        print(
            f"preparing ImageNet: {document['prepare_imagenet_hours']:.1f} hours; stored as pixels "
            f"{document['imagenet_pixels_bytes'] / 1e9:.0f} GB, as JPEG records of such pictures "
            f"{document['imagenet_jpeg_bytes'] / 1e9:.0f} GB"
        )
    if devices is not None:
        print(f"\n{devices.table()}")
    return 0


@dataclass(frozen=True, kw_only=True)
class InfoOptions:
    """Layers of a network with their output, kernels, strides, padding, groups, neurons, parameters and multiply-adds; or the
    list of networks.

    alexnet info
    alexnet info alexnet_2012
    alexnet info alexnet_2012 --diff alexnet_owt
    """

    model: Annotated[str, tyro.conf.Positional] = ""
    """Name of a network, or a run or model folder; without one, all names are listed."""
    diff: Annotated[str | None, tyro.conf.arg(metavar="OTHER")] = None
    """Compare with this network, layer by layer: = marks what is equal, ! what differs, < and > what one alone has."""
    json: bool = False
    """Print one JSON document on stdout."""


def info(arguments: list[str]) -> int:
    options = parse(InfoOptions, "info", arguments)
    if options.diff and not options.model:
        raise UsageError("--diff compares two networks; name the first one before it")
    from alexnet.evaluation.describe import describe, side_by_side, table
    from alexnet.models import about_model, list_models

    if not options.model:
        if options.json:
            print_json(list_models())
        else:
            about = {name: about_model(name) for name in list_models()}
            print(listing("info NAME [--diff OTHER]", "networks", about), end="")
        return 0
    networks = [describe(name) for name in (options.diff, options.model) if name][::-1]
    if options.json:
        print_json(networks if options.diff else networks[0])
    else:
        print(side_by_side(*networks) if options.diff else table(networks[0]))
    return 0


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Write RUN/report.html again, from the files of the run. Several runs are compared on one page.

    alexnet report runs/mine
    alexnet report runs/a runs/b --out comparison.html
    """

    runs: Words
    """Run directories."""
    out: str | None = None
    """File of the comparison; by default comparison.html in this folder."""


def report(arguments: list[str]) -> int:
    options = parse(ReportOptions, "report", arguments)
    runs = [Path(run) for run in options.runs]
    if not runs:
        raise UsageError("report needs a run: the --out of `alexnet train`")
    if options.out is not None and len(runs) == 1:
        raise UsageError("--out names the page that compares several runs; the report of one run is its report.html")
    for run in runs:
        bring_back(run)
        if not (run / "config.json").is_file():
            raise UsageError(f"{printable(run)}: not a run (no config.json); a run is the --out of `alexnet train`")
    if len(runs) == 1:
        from alexnet.report.page import write_report

        print(printable(write_report(runs[0])))
        return 0
    from alexnet.report.comparison import write_comparison

    print(printable(write_comparison(runs, Path(options.out or "comparison.html"))))
    return 0


def _check_out(out: Path, *, resume: bool, fresh: bool) -> None:
    """Refuse a folder that is in use before anything long begins."""
    from alexnet.training.files import RUN_FILES, RUN_FOLDERS

    check_folder(out, "--out")
    if resume and out.is_dir() and not (out / "config.json").is_file():
        known = {*RUN_FILES, *RUN_FOLDERS}
        if other := sorted(p.name for p in out.iterdir() if p.name not in known and p.name[0] != "."):
            raise UsageError(f"{printable(out)} holds no run but {printable(other[0])}; take another --out")
    if out.is_dir() and any(out.iterdir()) and not (resume or fresh):
        raise UsageError(
            f"{printable(out)} is not empty; add --resume to go on, --fresh to start over, or take another --out"
        )
