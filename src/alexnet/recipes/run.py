"""A whole run: data, training, evaluation, model folder, report. What ``alexnet train`` does."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from alexnet.core.config import to_json
from alexnet.core.console import Bar, say
from alexnet.core.device import Machine, Precision, autocast, choose_device
from alexnet.core.errors import AlexNetError, StoppedError, UsageError, printable
from alexnet.core.memory import peak_memory
from alexnet.core.rng import DropoutDraw
from alexnet.core.runs import write_json
from alexnet.core.signals import StopRequest
from alexnet.data.packed import PackedSet, is_packed
from alexnet.data.prepare import resolve
from alexnet.data.sources import class_lines
from alexnet.data.twins import warning_of
from alexnet.distributed.collectives import any_of
from alexnet.distributed.launch import number, on_first
from alexnet.distributed.mesh import share_sizes
from alexnet.evaluation.ensemble import combine
from alexnet.evaluation.error_rate import Evaluation, count, evaluate_split
from alexnet.evaluation.mistakes import save_mistakes
from alexnet.evaluation.predict import Predictor, load
from alexnet.evaluation.probabilities import Probabilities, load_probabilities
from alexnet.evaluation.views import Views, parse_views
from alexnet.models.folder import save_model_folder
from alexnet.parallelize import Parallel
from alexnet.probes.kernels import save_kernels
from alexnet.report.page import write_report
from alexnet.report.tables import read_result
from alexnet.training.config import TrainConfig
from alexnet.training.files import (
    CHECKPOINTS,
    existing_parent,
    read_settings,
    recover,
    require_openable,
    require_run,
    sole_trainer,
)
from alexnet.training.initial import Initial, transfer
from alexnet.training.optimizer import build_optimizer
from alexnet.training.trainer import checkpoint_bytes, network, require_possible, train

TOLD = 5
"""Files left out, and notes on the data, that are named on stderr."""
VIEW_NAMES = {"1": "center", "10": "ten"}


def open_data(config: TrainConfig, data_root: str | Path | None = None, *, quiet: bool = False) -> PackedSet:
    """The training data of a run, prepared into the cache first if need be."""
    with _preparation(config.data, quiet) as progress:
        packed = resolve(config.data, data_root=data_root, size=config.size, progress=progress)
    for fault in packed.meta["rejected"][:TOLD]:
        say(f"left out: {fault['path']}: {fault['reason']}")
    if (more := len(packed.meta["rejected"]) - TOLD) > 0:
        say(f"left out: {more} more files; {packed.path / 'meta.json'} names them")
    for note in packed.meta["notes"][:TOLD]:
        say(f"note: {note}")
    if warning := warning_of(packed, config.data):
        say(f"warning: {warning}")
    return packed


def _show_classes(data: PackedSet) -> None:
    """What is about to be learned: a layout that was read otherwise than meant is seen here."""
    if number() == 0:
        for line in class_lines(data.classes, data.class_counts):
            say(line)


@contextmanager
def _preparation(data: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar that appears when the first image is prepared: data in the cache needs none."""
    with ExitStack() as stack:
        bars: list[Bar] = []

        def progress(done: int, total: int) -> None:
            if not bars:
                bars.append(stack.enter_context(Bar(f"prepare {printable(data)}", total, quiet=quiet)))
            bars[0].update(done)

        yield progress


def run(
    config: TrainConfig,
    out: str | Path,
    machine: Machine | None = None,
    *,
    data: PackedSet | None = None,
    initial: Initial | None = None,
    resume: bool = False,
    change: bool = False,
    fresh: bool = False,
    report: bool = True,
) -> dict[str, Any]:
    """Train into the folder ``out``, evaluate the last state on all held-out images, save the model folder, write the
    report (if ``report``). ``data`` is by default what ``config.data`` names, ``machine`` the best device there is.
    ``initial``: weights to start from, instead of random ones in the layers that fit.

    Returns a summary: where the files are, and the final errors. On a finished run with ``resume``: the same summary,
    nothing computed. With ``resume`` the epochs may be others, with ``change`` all that decides only how the network is
    optimized. Raises what :func:`~alexnet.training.trainer.train` raises.
    """
    out = Path(out)
    machine = machine or Machine(device=choose_device())
    data = data or open_data(config, quiet=machine.quiet)
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
            stack.enter_context(sole_trainer(out))
            return None

        if (summary := on_first("looking for an earlier run", found)) is not None:
            say(f"{printable(out)} is finished; nothing to do")
            if report and number() == 0 and not (out / "report.html").is_file():  # killed while it was written
                write_report(out)
            return summary
        _show_classes(data)
        with StopRequest() as stop:
            try:
                parallel = train(
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


def _evaluate(
    parallel: Parallel, config: TrainConfig, out: Path, machine: Machine, data: PackedSet, stop: StopRequest
) -> None:
    """Save the kernels and the model folder, and evaluate the last state on all held-out images."""
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
                data=provenance(config.data, data, data.held_out),
                progress=progress,
            )
        evaluations.append(evaluation)
        if mesh.rank == 0:
            save_mistakes(results, evaluations, split)  # before the result: a run is finished when that is there
            write_json(results / result_name(views), evaluation.to_json())


def _whole(parallel: Parallel, config: TrainConfig, classes: int) -> nn.Module | None:
    """The whole trained network, on the first rank; the others help to gather it."""
    state = parallel.gather_state(parallel.model.state_dict())
    if parallel.mesh.rank:
        return None
    if not parallel.splits:
        return parallel.model
    model = network(config, classes, weights=False).to_empty(device="cpu").to(next(iter(state.values())).dtype)
    model.load_state_dict(state)
    return model.eval()


def evaluate(
    models: Sequence[str | Path],
    data: str | None = None,
    machine: Machine | None = None,
    *,
    split: str | None = None,
    views: str = "1",
    weights: Sequence[float] | None = None,
    seed: int = 0,
    precision: Precision = "float32",
    batch_size: int = 128,
    data_root: str | Path | None = None,
) -> Evaluation:
    """The exact errors of trained models on every image of a split: of one, or of several as an ensemble of averaged
    probabilities.

    ``models``: run directories, model folders, or ``.npz`` files of saved probabilities. ``data``: a packed directory,
    anything that can be prepared, or a named set; by default what the run was trained with. ``split``: by default
    ``val``, or ``test`` where there is no ``val``. ``seed`` is that of random views, and of held-out images where the
    source names none. Raises :class:`UsageError` if model and data have other classes.
    """
    machine = machine or Machine(device=choose_device())
    members = [
        load_probabilities(Path(model))
        if str(model).endswith(".npz")
        else _answers(model, data, machine, split, parse_views(views, seed), seed, precision, batch_size, data_root)
        for model in models
    ]
    return count(combine(members, weights) if len(members) > 1 else members[0])


def _answers(
    model: str | Path,
    data: str | None,
    machine: Machine,
    split: str | None,
    views: Views,
    seed: int,
    precision: Precision,
    batch_size: int,
    data_root: str | Path | None,
) -> Probabilities:
    predictor = load(model, machine.device, precision)
    data, packed = data_of(model, predictor, data, seed=seed, data_root=data_root, quiet=machine.quiet)
    if tuple(packed.classes) != predictor.classes:
        ours, theirs = predictor.classes, packed.classes
        raise UsageError(
            f"{printable(model)} knows {len(ours)} classes ({printable(ours[0])}, ...), {printable(data)} has "
            f"{len(theirs)} ({printable(theirs[0])}, ...); they must be the same, in order"
        )
    name = split or packed.held_out
    images = packed.split(name)
    with Bar(f"evaluate {printable(model)}", len(images), quiet=machine.quiet) as bar:
        evaluation = evaluate_split(
            predictor.model,
            images,
            predictor.preprocessing,
            predictor.mean,
            classes=packed.classes,
            views=views,
            batch_size=batch_size,
            device=machine.device,
            precision=precision,
            workers=machine.workers,
            data=provenance(data, packed, name),
            keep_probabilities=True,
            progress=lambda done, _total: bar.update(done),
        )
    assert evaluation.probabilities is not None
    return evaluation.probabilities


def data_of(
    model: str | Path,
    predictor: Predictor,
    data: str | None = None,
    *,
    seed: int = 0,
    data_root: str | Path | None = None,
    quiet: bool = False,
) -> tuple[str, PackedSet]:
    """The name of ``data``, by default what the run ``model`` was trained with, and its images at the size that the network
    takes, prepared into the cache first if need be. A model folder does not know its data: :class:`UsageError`."""
    size: int | None = predictor.preprocessing.resize
    if (Path(model) / "model").is_dir():
        trained = read_settings(Path(model))
        size = trained["train"].get("size")
        data = data or trained["data"]["path"]
    if data is None:
        raise UsageError(f"{printable(model)}: a model folder does not say what it was trained on; add --data")
    if is_packed(Path(data)):
        size = None  # as it is; what is not of the network's size is resized on the way
    with _preparation(data, quiet) as progress:
        return data, resolve(data, data_root=data_root, size=size, seed=seed, progress=progress)


def provenance(name: str, packed: PackedSet, split: str) -> dict[str, Any]:
    """Where the images of a result come from, for its protocol."""
    stored = {"stored": packed.meta["protocol"], "fingerprint": packed.fingerprint}
    return {"data": Path(name).name, "split": split, **stored}


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
        errors[views] = {
            "n": result.n,
            "top1_errors": result.top1_errors,
            "top5_errors": result.top5_errors,
            "top1_error": result.top1_errors / result.n,
            "top5_error": result.top5_errors / result.n,
            "loss_nats": result.loss_nats,
        }
    return {"run": str(out), "model": str(out / "model"), "report": str(out / "report.html"), "views": errors}


def plan(
    config: TrainConfig,
    out: Path,
    machine: Machine,
    *,
    data: PackedSet,
    initial: Initial | None = None,
    steps: int = 3,
) -> dict[str, Any]:
    """What a run would take, measured over a few steps on random pixels: time, memory, disk; and what it would take over
    from ``initial``. Nothing is written. What cannot be trained is refused as by :func:`run`."""
    require_possible(config, data, machine, initial, out)
    taken = None if initial is None else transfer(initial, config, data.classes)
    if taken is not None:
        say(taken)
    _show_classes(data)
    crop = config.preprocessing.crop
    dtype = torch.float64 if config.precision == "float64" else torch.float32
    model = network(config, len(data.classes)).to(machine.device, dtype).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = build_optimizer(model, config.optimizer)
    parts = share_sizes(config.batch_size, min(machine.accumulate, config.batch_size))
    shape = (max(parts), config.preprocessing.channels, crop, crop)
    x_BCHW = torch.randn(shape, device=machine.device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    label_B = torch.zeros(max(parts), dtype=torch.long, device=machine.device)
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        optimizer.zero_grad()
        for num in parts:
            with autocast(machine.device, config.precision):
                logits_BK = model(x_BCHW[:num], DropoutDraw(0, 0, np.arange(num)))
            loss = F.cross_entropy(logits_BK.to(dtype), label_B[:num], reduction="sum") / config.batch_size
            loss.backward()  # type: ignore[no-untyped-call]
        for group in optimizer.param_groups:
            group["lr"] = 1e-12
        optimizer.step()
        if machine.device.type == "cuda":
            torch.cuda.synchronize(machine.device)
        seconds.append(time.perf_counter() - start)
    parameters = sum(p.numel() for p in model.parameters())
    images = min(config.train_images or len(data.split("train")), len(data.split("train")))
    return {
        "network": config.network,
        "parameters": parameters,
        "training_images": images,
        "steps": config.epochs * math.ceil(images / config.batch_size),
        "images_per_second": config.batch_size / min(seconds),
        "training_seconds": config.epochs * images / (config.batch_size / min(seconds)),
        "peak_memory_bytes": peak_memory(machine.device),
        "disk_bytes": CHECKPOINTS * checkpoint_bytes(model, config) + parameters * dtype.itemsize,
        "disk_free_bytes": shutil.disk_usage(existing_parent(out)).free,
        **({} if taken is None else {"initial": taken.record()}),
        "config": to_json(config),
    }
