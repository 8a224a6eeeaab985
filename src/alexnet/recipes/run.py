"""A whole run: data, training, evaluation, model folder, report. What ``alexnet train`` does."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from alexnet.core.config import to_json
from alexnet.core.console import Bar, say
from alexnet.core.device import Machine, Precision, autocast, choose_device
from alexnet.core.errors import AlexNetError, DataError, StoppedError, UsageError, printable
from alexnet.core.memory import peak_memory
from alexnet.core.rng import DropoutDraw
from alexnet.core.runs import write_json
from alexnet.core.signals import StopRequest
from alexnet.data.packed import ALL, AllSplits, PackedSet, PackedSplit, is_packed, open_packed
from alexnet.data.prepare import resolve
from alexnet.data.sources import class_lines
from alexnet.data.twins import warning_of
from alexnet.distributed.collectives import any_of
from alexnet.distributed.launch import number, on_first
from alexnet.distributed.mesh import share_sizes
from alexnet.evaluation.classes import by_name
from alexnet.evaluation.ensemble import combine
from alexnet.evaluation.error_rate import Evaluation, MemberErrors, count, evaluate_split
from alexnet.evaluation.mistakes import save_mistakes
from alexnet.evaluation.predict import Predictor, load
from alexnet.evaluation.probabilities import Probabilities, load_probabilities
from alexnet.evaluation.views import Views, parse_views
from alexnet.models.folder import save_model_folder
from alexnet.models.states import run_of
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
    stored_config,
)
from alexnet.training.initial import Initial, transfer
from alexnet.training.optimizer import build_optimizer
from alexnet.training.trainer import checkpoint_bytes, network, require_possible, train, training_images

TOLD = 5
"""Files left out, and notes on the data, that are named on stderr."""
VIEW_NAMES = {"1": "center", "10": "ten"}


def open_data(config: TrainConfig, data_root: str | Path | None = None, *, quiet: bool = False) -> PackedSet:
    """The training data of a run, prepared into the cache first if need be."""
    with _preparation(config.data, quiet) as progress:
        packed = resolve(
            config.data, data_root=data_root, size=config.size, sample_max=config.sample_max, progress=progress
        )
    if "train" not in packed.splits:
        raise DataError(
            f"{printable(config.data)}: only {' and '.join(packed.splits)} images, none to train on; put class folders with "
            "training images into a folder train beside them"
        )
    if packed.held_out not in packed.splits:
        raise DataError(
            f"{printable(config.data)}: one image in each class leaves none to hold out for validation; add images, or a folder "
            "val with class folders (evaluate --split all needs none)"
        )
    for fault in packed.meta["rejected"][:TOLD]:
        say(f"left out: {fault['path']}: {fault['reason']}")
    if (more := len(packed.meta["rejected"]) - TOLD) > 0:
        say(f"left out: {more} more files; {packed.path / 'meta.json'} names them")
    for note in packed.meta["notes"][:TOLD]:
        say(f"note: {note}")
    if warning := warning_of(packed, config.data):
        say(f"warning: {warning}")
    return packed


def show_classes(data: PackedSet) -> None:
    """Show the classes that are about to be learned, so that a layout which was not read as meant is noticed."""
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
            stack.enter_context(sole_trainer(out))
            return None

        if (summary := on_first("looking for an earlier run", found)) is not None:
            say(f"{printable(out)} is finished; nothing to do")
            if report and number() == 0 and not (out / "report.html").is_file():  # killed while it was written
                write_report(out)
            return summary
        if report:  # a run without one is one of many on the same data, and these are shown once
            show_classes(data)
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
    views_seed: int = 0,
    weights: Sequence[float] | None = None,
    precision: Precision | None = None,
    batch_size: int | None = None,
    best: bool = False,
    data_root: str | Path | None = None,
) -> Evaluation:
    """The exact errors of trained models on every image of a split: of one, or of several as an ensemble of averaged
    probabilities.

    ``models``: run directories, checkpoints of them, model folders, or ``.npz`` files of saved probabilities; with ``best``, of
    every run the checkpoint with the lowest validation error. ``data``: a packed directory,
    anything that can be prepared, or a named set; by default what the run was trained with. ``split``: ``train``, ``val``,
    ``test`` or ``all``; by default what :func:`images_of` says. ``precision`` and ``batch_size`` are by default those of
    the run, so that the errors are those that it ended with, or float32 and 128. Classes are matched by name: one without
    images has n = 0. Raises :class:`UsageError` for images of a class that a model does not know.
    """
    machine = machine or Machine(device=choose_device())
    if split is None and len(models) > 1:
        split = _split_of_all(models, data, data_root, quiet=machine.quiet)
    members = [
        load_probabilities(Path(model))
        if str(model).endswith(".npz")
        else _answers(
            model, data, machine, split, parse_views(views, views_seed), precision, batch_size, best, data_root
        )
        for model in models
    ]
    if len(members) == 1:
        return count(members[0])
    shares = weights or [1.0] * len(members)
    evaluation = count(combine(members, weights))
    alone = [
        MemberErrors(str(model), share / sum(shares), own.top1_errors, own.top5_errors, own.protocol.get("precision"))
        for model, share, own in zip(models, shares, map(count, members), strict=True)
    ]
    return replace(evaluation, members=tuple(alone))


def _answers(
    model: str | Path,
    data: str | None,
    machine: Machine,
    split: str | None,
    views: Views,
    precision: Precision | None,
    batch_size: int | None,
    best: bool,
    data_root: str | Path | None,
) -> Probabilities:
    config = None if (run := run_of(model)) is None else stored_config(run)
    precision = precision or ("float32" if config is None else config.precision)
    if batch_size is None:
        batch_size = 128 if config is None else config.batch_size
    predictor = load(model, machine.device, precision, best=best)
    name, packed, images = images_of(model, predictor, data, split, data_root=data_root, quiet=machine.quiet)
    known = by_name(images, packed.classes, predictor.classes, where=name, model=str(model))
    seen = _seen_in_training(model, packed, images)
    if seen:
        say(
            f"note: {printable(model)} was trained on {seen['seen_in_training']:,} of these {len(images):,} images: the error on "
            "them is not that on new ones"
        )
    with Bar(f"evaluate {printable(model)}", len(images), quiet=machine.quiet) as bar:
        evaluation = evaluate_split(
            predictor.model,
            known,
            predictor.preprocessing,
            predictor.mean,
            classes=predictor.classes,
            views=views,
            batch_size=batch_size,
            device=machine.device,
            precision=precision,
            workers=machine.workers,
            data=provenance(name, packed, images.name) | seen | state_record(predictor),
            keep_probabilities=True,
            progress=lambda done, _total: bar.update(done),
        )
    assert evaluation.probabilities is not None
    return evaluation.probabilities


def _split_of_all(
    models: Sequence[str | Path], data: str | None, data_root: str | Path | None, *, quiet: bool
) -> str | None:
    """The split that all members of an ensemble answer for: what one that was trained with this data held out; None if none
    was."""
    for model in models:
        if (trained := _settings(model)) is not None:
            size, white = (trained["train"].get(name) for name in ("size", "sample_max"))
            _, packed = _opened(trained, data, size, white, data_root, quiet=quiet, training=False)
            if packed.fingerprint == trained["data"].get("fingerprint"):
                return packed.held_out
    return None


def data_of(
    model: str | Path,
    predictor: Predictor,
    data: str | None = None,
    *,
    data_root: str | Path | None = None,
    quiet: bool = False,
    training: bool = True,
) -> tuple[str, PackedSet]:
    """The name of ``data``, by default what the run ``model`` was trained with, and its images at the size that the network
    takes, prepared into the cache first if need be. A model folder does not know its data: :class:`UsageError`. Without
    ``training`` it need not be data that can be learned from."""
    trained = _settings(model)
    if data is None and trained is None:
        raise UsageError(f"{printable(model)}: a model folder does not say what it was trained on; add --data")
    size = predictor.preprocessing.resize if trained is None else trained["train"].get("size")
    white = predictor.preprocessing.sample_max
    return _opened(trained, data, size, white, data_root, quiet=quiet, training=training)


def images_of(
    model: str | Path,
    predictor: Predictor,
    data: str | None = None,
    split: str | None = None,
    *,
    data_root: str | Path | None = None,
    quiet: bool = False,
) -> tuple[str, PackedSet, PackedSplit | AllSplits]:
    """What :func:`data_of` gives, and the images of it that a model is asked about. By default: of the data of the run, known
    by its content, the images that the run held out; of other data the split ``val`` or ``test`` if it names its splits, or
    else all its images."""
    name, packed = data_of(model, predictor, data, data_root=data_root, quiet=quiet, training=False)
    trained = _settings(model)
    own = trained is not None and packed.fingerprint == trained["data"].get("fingerprint")
    chosen = split or (packed.held_out if own else packed.not_for_training)
    if chosen != ALL and chosen not in packed.splits:
        raise UsageError(
            f"{printable(name)}: no split {printable(chosen)!r}; there is {', '.join(packed.splits)}. "
            "`--split all` takes every image"
        )
    return name, packed, packed.images(chosen)


def _settings(model: str | Path) -> dict[str, Any] | None:
    """The settings in config.json of the run that a model belongs to; None for a model folder."""
    return None if (run := run_of(model)) is None else read_settings(run)


def _opened(
    trained: dict[str, Any] | None,
    data: str | None,
    size: int | None,
    white: int | None,
    data_root: str | Path | None,
    *,
    quiet: bool,
    training: bool,
) -> tuple[str, PackedSet]:
    """``data``, or that of a run, and how the user called it. ``white``: what the model learned is white in files of more than
    8 bits."""
    where, called = data, data
    if where is None:
        assert trained is not None
        where, called = trained["data"]["path"], trained["train"].get("data")
        if not is_packed(Path(where)) and called is not None:  # the cache was emptied
            where = called
    if is_packed(Path(where)):
        size = None  # packed as it is; images of another size than the network's are resized on the way
    with _preparation(str(called or where), quiet) as progress:
        packed = resolve(where, data_root=data_root, size=size, sample_max=white, training=training, progress=progress)
    packed.require_sample_max(white, printable(called or where))
    if (
        data is None
        and trained is not None
        and packed.fingerprint != trained["data"].get("fingerprint", packed.fingerprint)
    ):
        raise UsageError(
            f"{printable(where)} is no longer what the run was trained with; name it with --data to use it as it is now"
        )
    packed = replace(packed, source=str(called or where))
    return packed.source, packed


def _seen_in_training(model: str | Path, packed: PackedSet, images: PackedSplit | AllSplits) -> dict[str, int]:
    """How many of the images the run has learned from, known by their pixels, if any; nothing where that cannot be told, or
    was asked for by the name ``train``."""
    trained = _settings(model)
    if trained is None or images.name == "train" or not is_packed(Path(trained["data"]["path"])):
        return {}
    own, config = open_packed(trained["data"]["path"]), stored_config(Path(run_of(model) or model))
    if (own.size, own.channels, own.meta["store"]) != (packed.size, packed.channels, packed.meta["store"]):
        return {}
    learned_N = own.split("train").crc32_N
    if config is not None:
        learned_N = learned_N[training_images(len(learned_N), config)]
    seen = int(np.isin(images.crc32_N, learned_N).sum())
    by_chance = len(images) * len(learned_N) / 2**32  # equal 32-bit checksums of different images
    return {"seen_in_training": seen} if seen > 10 * by_chance else {}


def state_record(predictor: Predictor) -> dict[str, Any]:
    """Which checkpoint a model is, for the protocol of a result; nothing of a finished one."""
    return {} if predictor.state is None else {"state": predictor.state.record()}


def provenance(name: str, packed: PackedSet, split: str) -> dict[str, Any]:
    """Where the images of a result come from, for its protocol."""
    stored = {"stored": packed.meta["protocol"], "fingerprint": packed.fingerprint}
    return {"data": Path(name).name or name, "split": split, **stored}


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
            "classes": len(result.classes),
            "precision": config.precision,
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
    show_classes(data)
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
