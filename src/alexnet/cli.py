"""The command line: one verb, one function call; results on stdout, everything else on stderr.

Exit codes: 0 done, 1 failure, 2 usage, 3 ran but a check failed, 4 faults found in data, 75 stopped on request with a
checkpoint, 130 interrupted. A verb imports what it needs when it is called, so ``alexnet --help`` answers at once.
"""

# No `from __future__ import annotations`: tyro must see the types of the options of `train`, which are defined in a function.
import contextlib
import errno
import io
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import tyro

from alexnet.core.errors import AlexNetError, UsageError, printable

if TYPE_CHECKING:
    from alexnet.core.device import Machine

Options = TypeVar("Options")
Words = Annotated[tuple[str, ...], tyro.conf.Positional]
Word = Annotated[str, tyro.conf.Positional]

OPENMP_SPINS = "2000"
"""How long a waiting thread of torch spins before it sleeps. The default of GNU OpenMP, for ever, makes training 10 times slower
when anything else runs on the machine; never spinning costs a quarter of the speed (docs/experiment-log.md)."""

HELP = """usage: alexnet VERB ...

AlexNet (2012), complete: from a folder of photographs to exact error rates.

  prepare SOURCE PACKED     decode, resize and crop every image once; mean image and color statistics
  check SOURCE|PACKED       the same reading without writing; lists every fault
  train RECIPE --out RUN    train, validate, checkpoint, evaluate, report; --resume goes on after any stop
  evaluate MODEL... --data D    exact top-1 and top-5 errors; several models are an ensemble
  predict MODEL IMAGE...    the most probable classes of files, folders or - (standard input)
  info NAME|MODEL           stages, shapes, parameters, multiply-adds; --diff OTHER side by side
  report RUN                write RUN/report.html again
  bench                     rates of this machine, what limits it, and a forecast of the paper's training

examples:
  alexnet train quickstart --out runs/first
  alexnet train modern --data photos/ --out runs/mine --epochs 30
  alexnet evaluate runs/mine --data photos/ --views 10
  alexnet predict runs/mine cat.jpg --views 10

`alexnet VERB --help` lists the options of a verb. Data: a packed directory, a folder of class folders, a .csv of
path,label, a .tar, IDX or CIFAR-10 files, or a name: shapes, digits, fashion-mnist, cifar10, imagenette.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb and exit with its code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    os.environ.setdefault("GOMP_SPINCOUNT", OPENMP_SPINS)
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of stdout has left
        _silence_stdout()
        code = 1
    except KeyboardInterrupt:
        _complain("interrupted")
        code = 130
    except Exception as error:
        if debug:
            raise
        code = error.exit_code if isinstance(error, AlexNetError) else 1
        _complain(describe(error))
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    sys.exit(code)


def describe(error: Exception) -> str:
    """One line for a person. What is not expected to fail says how to see more."""
    if isinstance(error, AlexNetError):
        return printable(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{printable(error.filename or 'disk')}: no space left; free some and run the same command again"
    if isinstance(error, OSError):
        return printable(f"{error.filename}: {error.strerror}" if error.filename else error)
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "not enough memory; take a smaller --batch-size or another --device"
    return f"{type(error).__name__}: {printable(error)[:150]} (--debug shows where)"


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if arguments[0] == "--version":
        from alexnet import __version__

        print(f"alexnet {__version__}")
        return 0
    verbs = {
        "prepare": _prepare,
        "check": _check,
        "train": _train,
        "evaluate": _evaluate,
        "predict": _predict,
        "bench": _bench,
        "info": _info,
        "report": _report,
    }
    verb = arguments[0]
    if verb not in verbs:
        raise UsageError(f"unknown verb {printable(verb)!r}; the verbs are {', '.join(verbs)}")
    return verbs[verb](arguments[1:])


# The verbs ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """Decode every image once: short side to --size, center square, as plain NumPy files with checksums, the mean image
    and the color statistics. Interrupted, the same command goes on.

    alexnet prepare photos/ packed/
    """

    source: Word
    """Folder (train/ and val/ of class folders, or class folders alone), .csv of path,label, .tar, IDX or CIFAR-10
    files, the ILSVRC files, or a named set."""
    packed: Word
    """Folder to write."""
    size: int | None = None
    """Side of the stored squares; by default 256, or the size at which an IDX or CIFAR set comes."""
    store: Literal["pixels", "jpeg"] = "pixels"
    """Pixels, or JPEG records for sets beyond the disk."""
    workers: int | None = None
    """Processes; by default one for each core."""
    seed: int = 0
    """Decides which images are held out where the source does not say."""
    max_bad: float | None = None
    """Unreadable images to put up with: a count, or a fraction if below 1."""
    data_root: str | None = None
    """Where named sets are; by default $ALEXNET_DATA."""
    json: bool = False
    """One JSON document on stdout."""


def _prepare(arguments: list[str]) -> int:
    options = _parse(PrepareOptions, "prepare", arguments)
    from alexnet.core.console import Bar
    from alexnet.data.prepare import prepare

    with Bar("prepare", 0, quiet=options.json) as bar:
        packed = prepare(
            options.source,
            options.packed,
            data_root=options.data_root,
            size=options.size,
            store=options.store,
            workers=options.workers,
            seed=options.seed,
            max_bad=options.max_bad,
            progress=lambda done, total: bar.update(done, total=total),
        )
    rejected = packed.meta["rejected"]
    if options.json:
        _print_json(
            {
                "packed": str(packed.path),
                **{k: packed.meta[k] for k in ("classes", "counts", "rejected", "fingerprint")},
            }
        )
        return 0
    for split in packed.splits.values():
        print(f"{split.name}: {len(split):,} images of {packed.size} x {packed.size} pixels")
    print(f"{len(packed.classes):,} classes; {len(rejected):,} files rejected; in {printable(packed.path)}")
    for fault in rejected[:20]:
        print(f"  rejected {printable(fault['path'])}: {fault['reason']}")
    return 0


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Read everything as `prepare` would, write nothing, list every fault. Exit 4 if there is one.

    alexnet check photos/
    """

    source: Word
    """Anything `prepare` reads, or a packed directory."""
    workers: int | None = None
    """Processes; by default one for each core."""
    seed: int = 0
    data_root: str | None = None
    """Where named sets are; by default $ALEXNET_DATA."""
    json: bool = False
    """One JSON document on stdout: {"faults": [{path, reason}], "notes": [...]}."""


def _check(arguments: list[str]) -> int:
    options = _parse(CheckOptions, "check", arguments)
    from alexnet.core.console import Bar
    from alexnet.data.check import check

    with Bar("check", 0, quiet=options.json) as bar:
        found = check(
            options.source,
            data_root=options.data_root,
            workers=options.workers,
            seed=options.seed,
            progress=lambda done, total: bar.update(done, total=total),
        )
    if options.json:
        _print_json(found)
    else:
        for fault in found["faults"]:
            print(f"fault: {printable(fault['path'])}: {printable(fault['reason'])}")
        for note in found["notes"]:
            print(f"note: {printable(note)}")
        print(f"{len(found['faults'])} faults, {len(found['notes'])} notes")
    return 4 if found["faults"] else 0


@dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    """Where to compute."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    threads: int | None = None
    """CPU threads of torch; part of what makes two runs equal bit for bit."""
    workers: int | None = None
    """Threads that read images ahead; by default as many as turn out to be needed. Never changes a result."""
    data_root: str | None = None
    """Where named sets are; by default $ALEXNET_DATA."""
    json: bool = False
    """One JSON document on stdout."""


def _train(arguments: list[str]) -> int:
    from alexnet.recipes import RECIPES, recipe

    if not arguments or arguments[0].startswith("-"):
        if not arguments or set(arguments) & {"-h", "--help"}:
            print(
                "usage: alexnet train RECIPE --out RUN [options]\n\nrecipes (alexnet train RECIPE --help lists the options):"
            )
            for name, function in RECIPES.items():
                sentence = re.split(r"[.:](?=\s)", " ".join((function.__doc__ or "").split()))[0]
                print(f"  {name:<18} {sentence}")
            return 0 if arguments else 2
        raise UsageError(f"train needs the name of a recipe first: {', '.join(RECIPES)}")
    base = recipe(arguments[0])
    from alexnet.training.config import TrainConfig

    @dataclass(frozen=True, kw_only=True)
    class TrainOptions(DeviceOptions):
        out: str
        """Folder of the run."""
        resume: bool = False
        """Go on from the last checkpoint."""
        fresh: bool = False
        """Delete an earlier run in this folder first."""
        dry_run: bool = False
        """Measure a few steps; say what the run would take in time, memory and disk."""
        deterministic: bool = False
        """On CUDA: deterministic algorithms only."""
        resident: bool = False
        """Keep all training images in the memory of the device, if they fit."""
        config: Annotated[TrainConfig, tyro.conf.arg(name="")] = base

    TrainOptions.__doc__ = RECIPES[arguments[0]].__doc__
    options = _parse(TrainOptions, f"train {arguments[0]}", arguments[1:])
    from alexnet.recipes.run import open_data, plan, run

    config, out = options.config, Path(options.out)
    machine = replace(_machine(options), deterministic=options.deterministic, resident=options.resident)
    if options.resume and options.fresh:
        raise UsageError("--resume goes on, --fresh starts over: give one of them")
    _check_out(out, resume=options.resume, fresh=options.fresh or options.dry_run)
    data = open_data(config, options.data_root, quiet=options.json)
    if options.dry_run:
        forecast = plan(config, out, machine, data=data)
        if options.json:
            _print_json(forecast)
        else:
            print(
                f"{forecast['network']}, {forecast['parameters']:,} parameters; {forecast['training_images']:,} images, "
                f"{forecast['steps']:,} steps\ntime: {forecast['training_seconds']:,.0f} s of training at "
                f"{forecast['images_per_second']:.0f} images/s\nmemory: {forecast['peak_memory_bytes'] / 1e9:.1f} GB\n"
                f"disk: {forecast['disk_bytes'] / 1e9:.2f} GB of {forecast['disk_free_bytes'] / 1e9:.0f} GB free"
            )
        return 0
    summary = run(config, out, machine, data=data, resume=options.resume, fresh=options.fresh)
    if options.json:
        _print_json(summary)
        return 0
    for views, errors in summary["views"].items():
        print(_errors_line(views, errors))
    print(f"model: {printable(summary['model'])}\nreport: {printable(summary['report'])}")
    return 0


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(DeviceOptions):
    """Exact top-1 and top-5 errors on every image of a split. Several models are an ensemble of averaged probabilities; a
    model may also be a file that --save wrote.

    alexnet evaluate runs/a runs/b --data photos/ --views 10
    """

    models: Words
    """Run directories, model folders, or .npz files of saved probabilities."""
    data: str | None = None
    """Packed directory, folder, CSV or named set; by default that of the run."""
    split: str | None = None
    """train, val or test; by default val, or test where there is no val."""
    views: str = "1"
    """1 (center), 10 (the paper's ten views) or random:K."""
    seed: int = 0
    """Of random views, and of the split that is held out where the source does not say."""
    precision: Literal["float32", "tf32", "bfloat16", "float64"] = "float32"
    """Of the arithmetic."""
    batch_size: int = 128
    weights: tuple[float, ...] | None = None
    """Of the ensemble's members; by default equal."""
    save: str | None = None
    """Write the probabilities to this .npz file, to be combined later."""
    out: str | None = None
    """Write the result to this JSON file."""


def _evaluate(arguments: list[str]) -> int:
    options = _parse(EvaluateOptions, "evaluate", arguments)
    if not options.models:
        raise UsageError("evaluate needs models: run directories, model folders or saved probabilities")
    from alexnet.core.runs import write_json
    from alexnet.recipes.run import evaluate

    evaluation = evaluate(
        options.models,
        options.data,
        _machine(options),
        split=options.split,
        views=options.views,
        weights=options.weights,
        seed=options.seed,
        precision=options.precision,
        batch_size=options.batch_size,
        data_root=options.data_root,
    )
    if options.save and evaluation.probabilities is not None:
        evaluation.probabilities.save(Path(options.save))
    result = evaluation.to_json()
    if options.out:
        write_json(Path(options.out), result)
    if options.json:
        _print_json(result)
        return 0
    print(_errors_line(evaluation.views, result))
    print(f"loss {evaluation.loss_nats:.4f} nats")
    _print_classes(evaluation)
    return 0


@dataclass(frozen=True, kw_only=True)
class PredictOptions(DeviceOptions):
    """The most probable classes of images of any size. A file that cannot be read is reported, the others are answered
    (exit 4).

    alexnet predict runs/mine cat.jpg holiday/ --views 10
    """

    model: Word
    """Run directory or model folder."""
    images: Words
    """Files, folders, or - for standard input."""
    views: str = "1"
    """1 (center), 10 (the paper's ten views) or random:K crops of the whole image, averaged."""
    top: int = 5
    """Classes to show."""
    csv: bool = False
    """Rows path,rank,class,probability on stdout."""
    precision: Literal["float32", "tf32", "bfloat16", "float64"] = "float32"
    """Of the arithmetic."""


def _predict(arguments: list[str]) -> int:
    options = _parse(PredictOptions, "predict", arguments)
    if not options.images:
        raise UsageError("predict needs images after the model: files, folders, or - for standard input")
    if options.top < 1:
        raise UsageError(f"--top is {options.top}; it must be at least 1")
    from alexnet.evaluation.predict import load

    machine = _machine(options)
    predictor = load(options.model, machine.device, options.precision)
    faults, documents = 0, []
    if options.csv:
        import csv

        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["path", "rank", "class", "probability"])
    for prediction in predictor.predict(options.images, options.views, options.top):
        if prediction.error is not None:
            faults += 1
            _complain(describe(prediction.error))
        if options.json:
            answers = [{"class": a.name, "label": a.label, "probability": a.probability} for a in prediction.answers]
            error = {"reason": prediction.error.reason, "detail": prediction.error.detail} if prediction.error else None
            documents.append({"path": prediction.path, "predictions": answers, "error": error})
        elif options.csv:
            for rank, a in enumerate(prediction.answers, start=1):
                writer.writerow([_inert(prediction.path), rank, _inert(a.name), f"{a.probability:.6f}"])
        elif prediction.error is None:
            print(printable(prediction.path))
            width = max(len(printable(a.name)) for a in prediction.answers)
            for a in prediction.answers:
                print(f"  {printable(a.name):<{width}} {a.probability:6.1%} {'█' * round(30 * a.probability)}")
    if options.json:
        _print_json(documents)
    return 4 if faults else 0


@dataclass(frozen=True, kw_only=True)
class BenchOptions(DeviceOptions):
    """Rates of this machine from a JPEG file to a training step, what limits it, and how long the paper's 90 passes over
    1.28 million images would take. One to three minutes; nothing is kept.

    alexnet bench --precision bfloat16 --plan
    """

    network: Word = "alexnet_2012"
    """A network that reads 224 x 224 color images."""
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """Of the training step."""
    batch_size: int = 128
    data: str | None = None
    """Read these images instead of drawn ones; prepared first if need be."""
    plan: bool = False
    """Also what preparing and storing ImageNet would take here."""


def _bench(arguments: list[str]) -> int:
    options = _parse(BenchOptions, "bench", arguments)
    if options.batch_size < 1:
        raise UsageError(f"--batch-size is {options.batch_size}; it must be at least 1")
    from alexnet.bench.forecast import PAPER_EPOCHS, measure
    from alexnet.core.console import say

    forecast = measure(
        options.network,
        _machine(options),
        precision=options.precision,
        batch_size=options.batch_size,
        data=options.data,
        data_root=options.data_root,
        say=(lambda _stage: None) if options.json else (lambda stage: say(f"measuring: {stage}")),
    )
    if options.json:
        _print_json(forecast.to_json())
        return 0
    document = forecast.to_json()
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
    return 0


@dataclass(frozen=True, kw_only=True)
class InfoOptions:
    """Stages, shapes, parameters and multiply-adds of a network.

    alexnet info alexnet_2012 --diff alexnet_owt
    """

    model: Annotated[str, tyro.conf.Positional] = ""
    """Name of a network, run directory or model folder; without one, the names."""
    diff: str | None = None
    """Another one, side by side."""
    json: bool = False
    """One JSON document on stdout."""


def _info(arguments: list[str]) -> int:
    options = _parse(InfoOptions, "info", arguments)
    from alexnet.evaluation.describe import describe, side_by_side, table
    from alexnet.models import list_models

    if not options.model:
        _print_json(list_models()) if options.json else print("\n".join(list_models()))
        return 0
    networks = [describe(name) for name in (options.model, options.diff) if name]
    if options.json:
        _print_json(networks if options.diff else networks[0])
    else:
        print(side_by_side(*networks) if options.diff else table(networks[0]))
    return 0


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Write RUN/report.html again, from the files of the run.

    alexnet report runs/mine
    """

    run: Word


def _report(arguments: list[str]) -> int:
    options = _parse(ReportOptions, "report", arguments)
    from alexnet.report.page import write_report

    run = Path(options.run)
    if not (run / "config.json").is_file():
        raise UsageError(f"{printable(run)}: not a run (no config.json); a run is the --out of `alexnet train`")
    print(printable(write_report(run)))
    return 0


# Shared pieces --------------------------------------------------------------------------------------------------------


def _parse(cls: type[Options], verb: str, arguments: list[str]) -> Options:
    """The options of a verb. What tyro says of wrong ones, in a frame of several lines, becomes one :class:`UsageError`."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                cls,
                prog=f"alexnet {verb}",
                args=arguments,
                config=(tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff, tyro.conf.SuppressFixed),
            )
    except SystemExit as exit:
        if exit.code == 0:
            raise
    except ValueError as error:  # a settings dataclass refused its fields
        raise UsageError(printable(error)) from None
    lines = [re.sub(r"[\s│╭╮╰╯─-]+$|^[\s│╭╮╰╯─]+", "", line) for line in said.getvalue().splitlines()]
    lines = [line for line in lines if line and not line.startswith("For full helptext")][1:]
    text = re.sub(r"\s+", " ", " ".join(lines))[:150]
    raise UsageError(f"{text}; `alexnet {verb} --help` lists the options")


def _machine(options: DeviceOptions) -> "Machine":
    import torch

    from alexnet.core.device import Machine, choose_device
    from alexnet.core.memory import keep_freed_memory

    keep_freed_memory()

    if options.threads is not None:
        if options.threads < 1:
            raise UsageError(f"--threads is {options.threads}; it must be at least 1")
        torch.set_num_threads(options.threads)
    if options.workers is not None and options.workers < 0:
        raise UsageError(f"--workers is {options.workers}; it must be 0 or more")
    return Machine(device=choose_device(options.device), workers=options.workers, quiet=options.json)


def _check_out(out: Path, *, resume: bool, fresh: bool) -> None:
    """Refuse a folder that is in use before anything long begins."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{printable(out)} is a file; --out names the folder of the run")
    if out.is_dir() and any(out.iterdir()) and not (resume or fresh):
        raise UsageError(
            f"{printable(out)} is not empty; add --resume to go on, --fresh to start over, or take another --out"
        )


def _errors_line(views: str, errors: dict[str, Any]) -> str:
    names = {"1": "center view", "10": "ten views"}
    return (
        f"{names.get(views, views)}: top-1 error {errors['top1_error']:.2%} ({errors['top1_errors']} of {errors['n']}), "
        f"top-5 error {errors['top5_error']:.2%} ({errors['top5_errors']} of {errors['n']})"
    )


def _print_classes(evaluation: Any) -> None:
    width = max(len(printable(c.name)) for c in evaluation.classes)
    print(f"{'class':<{width}}      n  top-1  top-5 errors")
    for c in sorted(evaluation.classes, key=lambda c: -c.top1_errors / max(c.n, 1))[:20]:
        print(f"{printable(c.name):<{width}} {c.n:>6} {c.top1_errors:>6} {c.top5_errors:>6}")


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=True, allow_nan=False))


def _inert(text: str) -> str:
    """A CSV cell that no spreadsheet runs as a formula."""
    text = printable(text)
    return "'" + text if text[:1] in ("=", "+", "-", "@") and len(text) > 1 else text


def _complain(message: str) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(f"alexnet: {message}", file=sys.stderr, flush=True)


def _silence_stdout() -> None:
    """Let the interpreter's last flush go nowhere instead of into a closed pipe."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
