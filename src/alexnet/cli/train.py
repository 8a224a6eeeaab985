"""The verb train: a recipe, changed by options, becomes a run."""

# No `from __future__ import annotations`: tyro must see the types of options.
import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, make_dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from alexnet.cli.helptext import first_sentence, listing
from alexnet.cli.names import long_names
from alexnet.cli.options import choose_kinds, dashed, given, options_of, value_of
from alexnet.cli.settings import Settings, take_settings
from alexnet.cli.shared import DeviceOptions, check_folder, machine_of, parse, print_json
from alexnet.core.config import from_json, to_json
from alexnet.core.console import mute, say
from alexnet.core.device import Machine
from alexnet.core.errors import UsageError, perhaps, printable
from alexnet.core.runs import standing
from alexnet.distributed import launch as job
from alexnet.evaluation.lines import error_lines, uneven_line
from alexnet.interop.weights import weights_here
from alexnet.models import list_models, model_config
from alexnet.models.alexnet import AlexNetConfig
from alexnet.recipes import RECIPES, for_device, recipe
from alexnet.recipes import run as runs
from alexnet.recipes.run import dry_run, open_data, start_from
from alexnet.training.config import TrainConfig
from alexnet.training.files import RUN_FILES, RUN_FOLDERS, recover, stored_config
from alexnet.training.initial import Initial, with_input_of

FIRST = (
    "out",
    "data",
    "epochs",
    "batch_size",
    "optimizer.lr",
    "schedule.kind",
    "precision",
    "seed",
    "init_from",
    "pretrained",
    "config",
    "dry_run",
    "resume",
    "fresh",
    "device",
)
"""The options that most people need, in the order of the help."""

UNIONS = ("model", "schedule")
"""What a configuration has of several kinds."""

DECIDED = {
    "model.num_classes": "the network gets one output for each class of the data",
    "preprocessing.sample_max": "--sample-max decides it, with the data",
}
"""Fields of a configuration that are no options, and what sets them."""
INSTEAD = "name others with --init-from, or leave --pretrained out"
"""What to do where --pretrained knows no weights of a network."""


@dataclass(frozen=True, kw_only=True)
class TrainOptions(DeviceOptions):
    init_from: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None
    """Fine-tune: start from the weights of this run, of a checkpoint of it (RUN/checkpoint/best), of a model folder or of a
    file of weights. Every layer that fits is taken over; the others start anew, and the last one if the classes differ."""
    pretrained: bool = False
    """Start from weights of the network that `alexnet weights get` has fetched; --init-from names others."""
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


@dataclass(frozen=True, kw_only=True)
class RecipeOptions(TrainOptions):
    """What is said of a run of a recipe."""

    out: Annotated[str, tyro.conf.arg(metavar="RUN")]
    """Folder to write the run into: checkpoints, log, model and report."""


def train(arguments: list[str]) -> int:
    settings, arguments = take_settings(long_names(arguments))
    if settings is not None:
        arguments = _with_recipe(settings, arguments)
    if not arguments or arguments[0].startswith("-"):
        return _list_recipes(arguments)
    if arguments[0] not in RECIPES:
        from alexnet.cli.photos import train_photos

        return train_photos(arguments, settings)
    base, decided = recipe(arguments[0]), False
    if settings is not None and settings.run is not None:
        base, decided = from_json(TrainConfig, settings.run, settings.file), True
    with nullcontext() if settings is None else settings.blamed():
        if settings is not None:
            arguments = [arguments[0], *with_words(settings, RecipeOptions, base, arguments[1:])]
        base, rest, stored = _settings(base, arguments)
        options = parsed(RecipeOptions, RECIPES[arguments[0]].__doc__, arguments[0], base, rest)
        refuse_unused(options.training, base, rest)
        refuse(options)
    decided = decided or stored
    config, out, in_job = options.training, Path(options.out), job.in_job()
    resume = options.resume or job.restarted()
    machine = machine_for(options)
    if in_job and job.number():
        mute()
    else:  # what the first rank writes is not to surprise the others
        check_out(out, resume=resume, fresh=options.fresh or options.dry_run)
    initial = None
    notes: list[str] = []
    if options.init_from is not None or options.pretrained:
        initial = start_from(options.init_from or weights_here(config.network, INSTEAD), config)
        if not resume or stored_config(standing(out)) is None:
            config, notes = with_input_of(initial, config, given(arguments))

    def chosen(config: TrainConfig, device: torch.device) -> TrainConfig:
        config, note = (config, []) if decided else for_device(config, device)
        notes.extend(note)
        return config

    if not in_job:
        config = chosen(config, machine.device)
    if options.dry_run:
        return _dry_run(options, config, machine, initial, notes)
    with job.join(options.device) if in_job else nullcontext() as own:
        if own is not None:
            machine = replace(machine, device=own.device)
            config = chosen(config, own.device)
            first = job.on_first("reading the settings of the run", lambda: to_json(config))
            config = from_json(TrainConfig, first)  # the other ranks may have no access to it
            say(f"{own.world} ranks in the layout {options.layout}; batches of {config.batch_size} images in all")
        summary = runs.train(
            config,
            out,
            machine,
            data_root=options.data_root,
            initial=initial,
            resume=resume,
            change=options.change,
            fresh=options.fresh,
            notes=notes,
        )
    if own is not None and not own.first:
        return 0
    tell_summary(summary, json=options.json)
    return 0


def tell_summary(summary: dict[str, Any], *, json: bool) -> None:
    """The errors of a finished run, and where its files are."""
    if json:
        print_json(summary)
        return
    head, center = summary.get("head"), summary["views"].get("1")
    if head is not None and not (center and head["loss_nats"] == center["loss_nats"]):  # something was trained after it
        print(*error_lines("fitted last layer alone", head, 0), sep="\n")
    for views, errors in summary["views"].items():
        lines = error_lines(views, errors, errors["classes"], errors["precision"])
        lines += uneven_line(errors["images_of_classes"], errors["balanced_top1_error"])
        print(*lines, sep="\n")
    print(f"model: {printable(summary['model'])}\nreport: {printable(summary['report'])}")


def _with_recipe(settings: Settings, arguments: list[str]) -> list[str]:
    """The arguments with the recipe that the file names before them, unless they begin with one, or with photographs."""
    named = settings.fields.get("recipe") if settings.run is None else settings.run.get("recipe")
    if not arguments or arguments[0].startswith("-"):
        if not isinstance(named, str):
            raise UsageError(f"{settings} names no recipe; add a line `recipe: modern`, or name one after train")
        if named not in RECIPES:
            raise UsageError(f"{settings}: recipe is {printable(named)[:60]}{perhaps(named, RECIPES)}; name a recipe")
        return [named, *arguments]
    if settings.run is not None and arguments[0] != named:
        raise UsageError(
            f"{settings} is of a run, which leaves nothing to choose; leave {printable(arguments[0])} out, and name other data "
            "with --data"
        )
    return arguments


def with_words(settings: Settings, cls: type[TrainOptions], base: TrainConfig, arguments: list[str]) -> list[str]:
    """The arguments, and behind them what the file says beside them. If they choose the kind of a schedule or of a network, its
    fields are not those of the file."""
    chosen = [path.removesuffix(".kind") for path in given(arguments) if path.removesuffix(".kind") in UNIONS]
    chosen += [match[1] for word in arguments if (match := re.match(r"(?:--)?([a-z]+):", word)) and match[1] in UNIONS]
    fields = {path: value for path, value in settings.fields.items() if path.partition(".")[0] not in chosen}
    settings = replace(settings, fields=fields)
    kinds = [f"--{path}.kind={fields[f'{path}.kind']}" for path in UNIONS if f"{path}.kind" in fields]
    config, _ = with_kinds(base, kinds)
    options = [*options_of(TrainConfig, config), *options_of(cls)]
    for path in fields:
        if path.partition(".")[0] in UNIONS and path not in {option.path for option in options}:
            choose_kinds(config, [dashed(path)])  # says which kind it belongs to
    return [*arguments, *settings.words(options, arguments, ("recipe",))]


def _list_recipes(arguments: Sequence[str]) -> int:
    if arguments and not set(arguments) & {"-h", "--help", "--help-all"}:
        raise UsageError("train needs photographs or the name of a recipe first; `alexnet train` lists the recipes")
    sentences = {name: first_sentence(function.__doc__) for name, function in RECIPES.items()}
    last = (
        "For photographs of your own: `alexnet train PHOTOS`, which chooses everything itself. `alexnet train RECIPE --help` and "
        "`alexnet train PHOTOS --help` show the options."
    )
    print(
        listing("train RECIPE --out RUN [options], or alexnet train PHOTOS [options]", "recipes", sentences, last),
        end="",
    )
    return 0 if arguments else 2


def _settings(base: TrainConfig, arguments: list[str]) -> tuple[TrainConfig, list[str], bool]:
    """The configuration that the options change: that of the recipe or, of a run that goes on, its own; the options without
    the choices of kinds, which are made; and whether the precision was decided, by the user or by the run."""
    named = value_of(arguments, "out")
    decided = "precision" in given(arguments)
    if named and not job.number() and "--dry-run" not in arguments:
        recover(Path(named))
    if named and ("--resume" in arguments or job.restarted()):
        stored = stored_config(standing(Path(named)))
        if stored is not None and stored.recipe == base.recipe:
            base, decided = stored, True  # what the command does not say stays as it is
    base, rest = with_kinds(base, arguments[1:])
    return base, rest, decided


def parsed(
    cls: type[TrainOptions],
    words: str | None,
    name: str,
    base: TrainConfig,
    arguments: list[str],
    first: Sequence[str] = FIRST,
    decided: Mapping[str, str] = DECIDED,
) -> Any:
    """The options of a class, and each field of a configuration; ``words`` are what the help says of them."""
    config = ("training", Annotated[TrainConfig, tyro.conf.arg(name="")], base)
    made = make_dataclass("Options", [config], bases=(cls,), namespace={"__doc__": words}, frozen=True, kw_only=True)
    return parse(made, f"train {name}", arguments, first=first, decided=decided)


def refuse(options: TrainOptions) -> None:
    """Refuse options that contradict each other, or that need several ranks or one."""
    in_job, resume = job.in_job(), options.resume or job.restarted()
    if options.pretrained and options.init_from is not None:
        raise UsageError("--pretrained takes fetched weights, --init-from names others: give one of them")
    if options.resume and options.fresh:
        raise UsageError("--resume goes on, --fresh starts over: give one of them")
    if options.change and not resume:
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
    if in_job and options.fresh:
        raise UsageError(
            "--fresh under torchrun would delete the run again whenever ranks are started anew; delete it first, or take "
            "another --out"
        )


def machine_for(options: TrainOptions) -> Machine:
    """Where the run is computed; a rank of a job is told its device later."""
    return replace(
        machine_of(replace(options, device="cpu") if job.in_job() else options),
        deterministic=options.deterministic,
        resident=options.resident,
        layout=options.layout,
        scheme=options.scheme,
        exchange=options.exchange,
        accumulate=options.accumulate,
    )


def check_out(out: Path, *, resume: bool, fresh: bool) -> None:
    """Refuse a folder that is in use before anything long begins."""
    check_folder(out, "--out")
    if resume and out.is_dir() and not (out / "config.json").is_file():
        known = {*RUN_FILES, *RUN_FOLDERS}
        if other := sorted(p.name for p in out.iterdir() if p.name not in known and p.name[0] != "."):
            raise UsageError(f"{printable(out)} holds no run but {printable(other[0])}; take another --out")
    if out.is_dir() and any(out.iterdir()) and not (resume or fresh):
        raise UsageError(
            f"{printable(out)} is not empty; add --resume to go on, --fresh to start over, or take another --out"
        )


def _dry_run(
    options: RecipeOptions, config: TrainConfig, machine: Machine, initial: Initial | None, notes: Sequence[str]
) -> int:
    data = open_data(config, options.data_root, quiet=options.json)
    forecast = dry_run(config, Path(options.out), machine, data=data, initial=initial, notes=notes)
    if options.json:
        print_json(forecast)
        return 0
    print(
        f"{forecast['network']}, {forecast['parameters']:,} parameters; {forecast['training_images']:,} images, "
        f"{forecast['steps']:,} steps\ntime: {forecast['training_seconds']:,.0f} s of training at "
        f"{forecast['images_per_second']:.0f} images/s\nmemory: {forecast['peak_memory_bytes'] / 1e9:.1f} GB\n"
        f"disk: {forecast['disk_bytes'] / 1e9:.2f} GB of {forecast['disk_free_bytes'] / 1e9:.0f} GB free"
    )
    return 0


def with_kinds(base: TrainConfig, arguments: Sequence[str]) -> tuple[TrainConfig, list[str]]:
    """The configuration of a recipe with the kinds that the arguments choose. A network of another kind has its own
    defaults, and reads the input that the preprocessing makes, if it can."""
    config, arguments = choose_kinds(base, arguments)
    if type(config.model) is not type(base.model):
        network = next(name for name in list_models() if model_config(name) == config.model)
        config = replace(config, network=network)
        with contextlib.suppress(
            UsageError, ValueError
        ):  # too few pixels for its defaults; no number, which is refused later
            crop = int(value_of(arguments, "preprocessing.crop") or config.preprocessing.crop)
            channels = int(value_of(arguments, "preprocessing.channels") or config.preprocessing.channels)
            config = replace(config, model=model_config(network, input_size=crop, in_channels=channels))
    return config, arguments


def refuse_unused(config: TrainConfig, base: TrainConfig, arguments: Sequence[str]) -> None:
    """Refuse an option that changes ``base`` although nothing reads it with the other settings: whoever gives it expects an
    effect."""
    for path in given(arguments):
        for paths, is_used, condition in _CONDITIONS:
            if path in paths and not is_used(config) and attrgetter(path)(config) != attrgetter(path)(base):
                raise UsageError(f"--{path.replace('_', '-')} has no effect here: it needs {condition}")


def _alexnet(holds: Callable[[AlexNetConfig], bool]) -> Callable[[TrainConfig], bool]:
    return lambda config: not isinstance(config.model, AlexNetConfig) or holds(config.model)


def _follows(word: str) -> Callable[[AlexNetConfig], bool]:
    return lambda model: any(word in stage.split() for stage in model.stages)


_LRN = ("model.lrn_size", "model.lrn_alpha", "model.lrn_alpha_times", "model.lrn_beta", "model.lrn_k")
_POOLING = ("model.pooling", "model.pool_size", "model.pool_stride", "model.pool_ceil")

_CONDITIONS: tuple[tuple[Sequence[str], Callable[[TrainConfig], bool], str], ...] = (
    (("optimizer.beta2",), lambda c: c.optimizer.adaptive, "--optimizer.kind adam or adamw"),
    (("preprocessing.channel_mean",), lambda c: c.preprocessing.mean == "channel", "--preprocessing.mean channel"),
    (("preprocessing.mean_at",), lambda c: c.preprocessing.mean == "image", "--preprocessing.mean image"),
    (
        ("augmentation.resized_area", "augmentation.resized_aspect"),
        lambda c: c.augmentation.crop == "resized",
        "--augmentation.crop resized",
    ),
    (
        ("augmentation.crop_draws", "augmentation.crops"),
        lambda c: c.augmentation.crop != "center" or c.augmentation.mirror,
        "random crops or mirrored images",
    ),
    (
        ("augmentation.color_noise_of", "augmentation.divide_noise", "schedule.noise_off"),
        lambda c: c.augmentation.color_noise > 0,
        "an --augmentation.color-noise above 0",
    ),
    (
        (*_LRN, "model.lrn_crosses_towers"),
        _alexnet(lambda m: m.normalization == "lrn" and (_follows("norm")(m))),
        "--model.normalization lrn and a `norm` in --model.stages",
    ),
    (("model.normalization",), _alexnet(_follows("norm")), "a `norm` in --model.stages"),
    (_POOLING, _alexnet(_follows("pool")), "a `pool` in --model.stages"),
    (("model.joined", "model.lrn_crosses_towers"), _alexnet(lambda m: m.towers == 2), "--model.towers 2"),
    (("model.fc_units",), _alexnet(lambda m: m.head == "fc"), "--model.head fc"),
    (
        ("model.dropout", "model.dropout_place"),
        _alexnet(lambda m: m.dropout_rate > 0 and m.head == "fc"),
        "a --model.dropout-rate above 0 and --model.head fc",
    ),
    (("model.dropout_rate",), _alexnet(lambda m: m.head == "fc"), "--model.head fc"),
    (("model.weight_std",), _alexnet(lambda m: m.init == "gaussian"), "--model.init gaussian"),
    (("model.biases",), _alexnet(lambda m: m.init != "torch"), "another --model.init than torch"),
)
"""Options, when something reads them, and that condition in words."""
