"""A whole run: data, training, evaluation, model folder, report. What ``alexnet train`` does."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from alexnet.core.config import to_json
from alexnet.core.console import Bar, say
from alexnet.core.device import Machine, choose_device, emulates, warn_of_emulation
from alexnet.core.errors import AlexNetError, DataError, StoppedError, UsageError, printable
from alexnet.core.memory import peak_memory
from alexnet.core.runs import environment, write_json
from alexnet.core.signals import StopRequest
from alexnet.data.packed import PackedSet
from alexnet.data.prepare import resolve
from alexnet.data.sources import class_lines
from alexnet.data.twins import warning_of
from alexnet.distributed.collectives import any_of
from alexnet.distributed.launch import first_before_others, number, on_first
from alexnet.evaluation.error_rate import Evaluation, evaluate_split
from alexnet.evaluation.mistakes import save_mistakes
from alexnet.evaluation.subject import CHOSEN, preparation, provenance
from alexnet.evaluation.views import parse_views
from alexnet.models.folder import save_model_folder
from alexnet.parallelize import Parallel
from alexnet.probes.kernels import save_kernels
from alexnet.recipes import RECIPES
from alexnet.recipes.pace import Pace
from alexnet.report.page import write_report
from alexnet.report.tables import read_log, read_result
from alexnet.training.config import TrainConfig
from alexnet.training.files import (
    CHECKPOINTS,
    existing_parent,
    has_checkpoint,
    recover,
    require_openable,
    require_run,
    sole_trainer,
)
from alexnet.training.head import require_fittable, with_fitted_head
from alexnet.training.initial import Initial, load_initial, misfit, save_initial, transfer
from alexnet.training.pretrain import pretrain as learn_encoder
from alexnet.training.pretrain import require_convolutions
from alexnet.training.trainer import checkpoint_bytes, fit, network, require_possible

TOLD = 5
"""Files left out, and notes on the data, that are named on stderr."""
VIEW_NAMES = {"1": "center", "10": "ten"}


def open_data(
    config: TrainConfig, data_root: str | Path | None = None, *, quiet: bool = False, labels: bool = True
) -> PackedSet:
    """The training data of a run, prepared into the cache first if need be; without ``labels``, no classes and no held-out
    images are asked for. Its classes are shown, and what is odd about it is said."""
    data = find_data(config, data_root, quiet=quiet, labels=labels)
    _tell_of(data, config, quiet=quiet, labels=labels)
    return data


def _tell_of(data: PackedSet, config: TrainConfig, *, quiet: bool, labels: bool = True) -> None:
    for fault in data.meta["rejected"][:TOLD]:
        say(f"left out: {fault['path']}: {fault['reason']}")
    if (more := len(data.meta["rejected"]) - TOLD) > 0:
        say(f"left out: {more} more files; {data.path / 'meta.json'} names them")
    for note in data.meta["notes"][:TOLD]:
        say(f"note: {note}")
    if labels and (warning := warning_of(data, config.data)):
        say(f"warning: {warning}")
    if labels and not quiet and number() == 0:  # so that a layout which was not read as meant is noticed
        for line in class_lines(data.classes, data.class_counts):
            say(line)


def find_data(
    config: TrainConfig, data_root: str | Path | None = None, *, quiet: bool = False, labels: bool = True
) -> PackedSet:
    """The data of :func:`open_data`, of which nothing is said."""
    with preparation(config.data, quiet) as progress:
        packed = resolve(
            config.data,
            data_root=data_root,
            size=config.size,
            sample_max=config.sample_max,
            training=labels,
            labels=labels,
            progress=progress,
        )
    if "train" not in packed.splits:
        raise DataError(
            f"{printable(config.data)}: only {' and '.join(packed.splits)} images, none to train on; put class folders with "
            "training images into a folder train beside them"
        )
    if labels and packed.held_out not in packed.splits:
        raise DataError(
            f"{printable(config.data)}: one image in each class leaves none to hold out for validation; add images, or a folder "
            "val with class folders (evaluate --split all needs none)"
        )
    return packed


def pretrain(
    config: TrainConfig,
    out: str | Path,
    machine: Machine | None = None,
    *,
    epochs: int,
    data_root: str | Path | None = None,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Learn the convolutional layers of a network from the training images of ``config.data`` without their labels
    (:func:`alexnet.training.pretrain.pretrain`), and write them as the ``.safetensors`` file ``out``, which a run starts from
    (``--init-from``; :func:`~alexnet.training.initial.load_initial`). Pictures in a folder need not lie in class folders.

    Nothing is kept of an interrupted call: it does not resume. ``notes``: lines about ``config`` that are said once its data
    are found. Returns a summary."""
    machine, out = machine or Machine(device=choose_device()), Path(out)
    require_convolutions(config)
    if epochs < 1:
        raise UsageError(f"epochs is {epochs}; it must be at least 1")
    if out.suffix != ".safetensors":
        raise UsageError(
            f"{printable(out)}: the weights are written as a file NAME.safetensors; give --out such a name"
        )
    data = open_data(config, data_root, quiet=machine.quiet, labels=False)
    for note in notes:
        say(note)
    made = replace(config.preprocessing, sample_max=data.sample_max)
    config = replace(config, sample_max=data.sample_max, preprocessing=made)
    warn_of_emulation(machine.device, config.precision)
    initial = learn_encoder(
        config, data, epochs=epochs, device=machine.device, workers=machine.workers, quiet=machine.quiet
    )
    from_images = {"data": data.source, "fingerprint": data.fingerprint, "recipe": config.recipe, "seed": config.seed}
    initial = replace(initial, source=str(out), made={**initial.made, **from_images})
    save_initial(initial, out)
    layers = list(dict.fromkeys(name.partition(".")[0] for name in initial.tensors if name.startswith("conv")))
    return {
        "file": str(out),
        "network": initial.network,
        "layers": layers,
        **initial.made,
        "weights": initial.fingerprint,
        "environment": environment(),
    }


def start_from(source: str | Path, config: TrainConfig) -> Initial:
    """The weights that a run of ``config`` starts from. Raises what :func:`~alexnet.training.initial.load_initial` raises, and
    :class:`UsageError` if they are of another network, which names the recipes that have it."""
    initial = load_initial(source, config.network)
    if (why := misfit(initial, config)) is not None:
        fitting = [name for name, made in RECIPES.items() if misfit(initial, made()) is None]
        remedy = f"take the recipe {' or '.join(fitting)}" if fitting else f"take weights of {config.network}"
        raise UsageError(f"{why}; {remedy}")
    return initial


def train(
    config: TrainConfig,
    out: str | Path,
    machine: Machine | None = None,
    *,
    data: PackedSet | None = None,
    data_root: str | Path | None = None,
    initial: Initial | None = None,
    resume: bool = False,
    change: bool = False,
    fresh: bool = False,
    report: bool = True,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Train into the folder ``out``, evaluate the network on all held-out images, save the model folder, write the
    report (if ``report``). ``data`` is by default what ``config.data`` names (sets by name are looked for in ``data_root``), and
    is then described as soon as nothing is refused any more; ``machine`` is the best device there is.
    ``initial``: weights to start from, instead of random ones in the layers that fit. ``notes``: lines about ``config`` that are
    said then, too.

    Returns a summary: where the files are, and the final errors. On a finished run with ``resume``: the same summary,
    nothing computed. With ``resume`` the epochs may be others, with ``change`` all that decides only how the network is
    optimized. Raises what :func:`~alexnet.training.trainer.fit` raises.
    """
    out = Path(out)
    machine = machine or Machine(device=choose_device())
    tell = data is None
    if data is None:
        data = first_before_others("preparing the data", lambda: find_data(config, data_root, quiet=machine.quiet))
    made = replace(config.preprocessing, sample_max=data.sample_max)  # what the network learns, it will be asked
    config = replace(config, sample_max=data.sample_max, preprocessing=made)
    with ExitStack() as stack:

        def found() -> dict[str, Any] | None:
            recover(out)
            if fresh:
                require_run(out)
            else:
                changed = require_openable(config, data, out, initial, resume=resume, change=change)
                if resume and not changed and (summary := finished(config, out)) is not None:
                    return summary
            require_possible(config, data, machine, initial, out)
            if config.last_layer == "fitted" and (fresh or not has_checkpoint(out)):
                require_fittable(config, data, initial)
            if config.start_share and initial is None and (fresh or not has_checkpoint(out)):
                raise UsageError(
                    f"--start-share {config.start_share:g} keeps that share of the weights that a run starts from, and this one "
                    "starts from random ones; name trained weights with --init-from, or leave --start-share out"
                )
            faster = "--resume --change --precision float32" if has_checkpoint(out) else None
            warn_of_emulation(machine.device, config.precision, *([faster] if faster and not fresh else []))
            stack.enter_context(sole_trainer(out))
            return None

        if (summary := on_first("looking for an earlier run", found)) is not None:
            say(f"{printable(out)} is finished; nothing to do")
            if report and number() == 0 and not (out / "report.html").is_file():  # killed while it was written
                write_report(out)
            return summary
        for note in notes:  # what is refused is said alone
            say(note)
        if tell:
            _tell_of(data, config, quiet=machine.quiet)
        with StopRequest() as stop:
            try:
                if config.last_layer == "fitted" and (fresh or not has_checkpoint(out)):
                    initial = _fitted(config, data, machine, initial, stop)
                parallel = fit(
                    config, data, out, machine, initial=initial, resume=resume, change=change, fresh=fresh, stop=stop
                )
                _evaluate(parallel, config, out, machine, data, stop)
            except StoppedError:
                if report and number() == 0:
                    try:
                        write_report(out)
                    except (AlexNetError, OSError) as error:
                        say(f"note: no report: {error}")
                raise
            if report:
                on_first("writing the report", lambda: str(write_report(out)))
    summary = on_first("reading the results", lambda: finished(config, out))
    assert summary is not None
    return summary


def _fitted(
    config: TrainConfig, data: PackedSet, machine: Machine, initial: Initial | None, stop: StopRequest
) -> Initial:
    """The weights to start from with a last layer that is fitted to the training images."""
    assert initial is not None, "see require_fittable"
    with Bar("features for the last layer", len(data.split("train")), quiet=machine.quiet) as bar:

        def progress(done: int, total: int) -> None:
            bar.update(done)
            if stop.requested:
                raise StoppedError("stopped before the last layer was fitted; the same command begins again")

        fitted, head = with_fitted_head(config, data, initial, machine, progress=progress)
    say(head)
    return fitted


def _evaluate(
    parallel: Parallel, config: TrainConfig, out: Path, machine: Machine, data: PackedSet, stop: StopRequest
) -> None:
    """Save the kernels and the model folder, and evaluate the network on all held-out images."""
    results, mesh = out / "results", parallel.mesh
    whole = _whole(parallel, config, len(data.classes))

    def save() -> None:
        assert whole is not None
        results.mkdir(exist_ok=True)
        save_kernels(results, whole, config.preprocessing)
        mean = data.mean if config.preprocessing.mean == "image" else None
        save_model_folder(out / "model", whole, config.network, config.preprocessing, data.classes, mean)

    on_first("saving the network", save)
    split = data.split(data.held_out)
    of: dict[str, Any] = {"network": config.network, "data": provenance(config.data, data, data.held_out)}
    if config.early_stopping is not None:
        of["data"]["chose_the_checkpoint"] = len(split)
        say(f"note: {CHOSEN.format(images=f'these {len(split):,} images')}")
    evaluations: list[Evaluation] = []
    for views in config.views:
        with Bar(f"evaluate with views {views}", len(split), quiet=machine.quiet) as bar:

            def progress(done: int, _total: int, bar: Bar = bar) -> None:
                bar.update(done)
                if any_of(mesh.world, "asking whether to stop", stop.requested):
                    raise StoppedError("stopped after the last step, before the evaluation; --resume evaluates")

            evaluation = evaluate_split(
                parallel.model,
                split,
                config.preprocessing,
                data.mean,
                classes=data.classes,
                views=parse_views(views, config.seed),
                batch_size=config.batch_size,
                device=machine.device,
                precision=config.precision,
                workers=machine.workers,
                mesh=mesh,
                data=of["data"],
                progress=progress,
            )
        evaluation = replace(evaluation, subject=of)
        evaluations.append(evaluation)
        if mesh.rank == 0:
            save_mistakes(results, evaluations, split)  # before the result: a run is finished when that is there
            write_json(results / result_name(views), evaluation.to_json())


def _whole(parallel: Parallel, config: TrainConfig, classes: int) -> nn.Module | None:
    """The whole trained network, on the first rank; the others help to gather it."""
    state = parallel.gather_state(parallel.model.state_dict())
    if parallel.mesh.rank:
        return None
    if not parallel.chunked:
        return parallel.model
    model = network(config, classes, weights=False).to_empty(device="cpu").to(next(iter(state.values())).dtype)
    model.load_state_dict(state)
    return model.eval()


def result_name(views: str) -> str:
    """The file of a final evaluation: final-center.json, final-ten.json, final-random-16.json."""
    return f"final-{VIEW_NAMES.get(views, views.replace(':', '-'))}.json"


def finished(config: TrainConfig, out: Path) -> dict[str, Any] | None:
    """The summary of a run that has its model folder and all its final evaluations; else None."""
    files = [out / "results" / result_name(views) for views in config.views]
    if not (out / "model" / "config.json").is_file() or not all(file.is_file() for file in files):
        return None
    errors = {}
    for views, file in zip(config.views, files, strict=True):
        result = read_result(file)
        sizes = [row.n for row in result.classes if row.n] or [result.n]
        errors[views] = {
            "n": result.n,
            "top1_errors": result.top1_errors,
            "top5_errors": result.top5_errors,
            "top1_error": result.top1_errors / result.n,
            "top5_error": result.top5_errors / result.n,
            "loss_nats": result.loss_nats,
            "balanced_top1_error": result.balanced_top1_error,
            "classes": len(result.classes),
            "images_of_classes": [min(sizes), max(sizes)],
            "precision": config.precision,
        }
    head = {"head": read_log(out / "log.jsonl").head} if config.last_layer == "fitted" else {}
    return {"run": str(out), "model": str(out / "model"), "report": str(out / "report.html"), "views": errors, **head}


def dry_run(
    config: TrainConfig,
    out: Path,
    machine: Machine,
    *,
    data: PackedSet,
    initial: Initial | None = None,
    steps: int = 3,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """What a run would take, measured over a few steps on random pixels: time, memory, disk; and what it would take over
    from ``initial``. Nothing is written. What cannot be trained is refused, and ``notes`` are said, as by :func:`train`."""
    require_possible(config, data, machine, initial, out)
    for note in notes:
        say(note)
    warn_of_emulation(machine.device, config.precision)
    taken = None if initial is None else transfer(initial, config, data.classes)
    if taken is not None:
        say(taken)
    pace = Pace(config, machine, len(data.classes))
    seconds = min(pace.step(config.precision) for _ in range(steps))
    in_float32 = min(pace.step("float32") for _ in range(steps)) if emulates(machine.device, config.precision) else None
    if in_float32 is not None:
        say(f"{config.precision} takes {seconds / in_float32:.1f} times as long here as float32")
    parameters = pace.parameters
    images = min(config.train_images or len(data.split("train")), len(data.split("train")))
    return {
        "network": config.network,
        "parameters": parameters,
        "training_images": images,
        "steps": config.epochs * math.ceil(images / config.batch_size),
        "images_per_second": config.batch_size / seconds,
        "training_seconds": config.epochs * images / (config.batch_size / seconds),
        "peak_memory_bytes": peak_memory(machine.device),
        "disk_bytes": CHECKPOINTS * checkpoint_bytes(pace.model, config) + parameters * config.itemsize,
        "disk_free_bytes": shutil.disk_usage(existing_parent(out)).free,
        **({} if in_float32 is None else {"float32_images_per_second": config.batch_size / in_float32}),
        **({} if taken is None else {"initial": taken.record()}),
        "config": to_json(config),
    }
