"""The training loop: exact, resumable at any step, stopped by a signal or by the first number that is not finite.

Shape suffixes: B images, C channels, H rows, W columns, S rows or columns of a square, K classes.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn

from alexnet.core import rng
from alexnet.core.config import differences, from_json
from alexnet.core.console import Bar, say
from alexnet.core.device import Machine, autocast
from alexnet.core.errors import AlexNetError, DataError, NotFiniteError, StoppedError, UsageError, printable
from alexnet.core.memory import total_memory
from alexnet.core.runs import REPLACED, write_json
from alexnet.core.signals import StopRequest
from alexnet.data import transforms
from alexnet.data.loader import (
    Batch,
    Images,
    ReadTimeoutError,
    ResidentSplit,
    balanced_order,
    batches,
    epoch_order,
)
from alexnet.data.packed import PackedSet, training_subset
from alexnet.distributed.collectives import add_up, any_of
from alexnet.distributed.launch import in_job, on_first
from alexnet.distributed.mesh import Mesh, build_mesh, chunk
from alexnet.evaluation.error_rate import Evaluation, evaluate_split
from alexnet.evaluation.views import CENTER
from alexnet.models import build_model, layer_parameters
from alexnet.models.checkpoint import CONDITIONS, Checkpoint, Progress, pointed, progress_of, read_checkpoint
from alexnet.models.folder import save_model_folder
from alexnet.models.lrn import kernels_in_use
from alexnet.models.states import NETWORK, read_settings
from alexnet.parallelize import Parallel, parallelize
from alexnet.training.checkpoint import save_checkpoint
from alexnet.training.config import TrainConfig, other_rate
from alexnet.training.ending import ends
from alexnet.training.files import (
    Log,
    clear,
    described,
    explained_faults,
    open_run,
    put_back,
    require_space,
    set_aside,
    write_summary,
)
from alexnet.training.initial import Initial, Transfer, other_input, transfer
from alexnet.training.optimizer import build_optimizer
from alexnet.training.ranks import rank_report, rank_table
from alexnet.training.schedule import Rates, best_epoch, judged_error, rates, set_rates
from alexnet.training.targets import class_weights, main_label, target_shares
from alexnet.training.tensorboard import Write, scalar_writer
from alexnet.training.watchdog import LayerSignal, dead_filters, guessing, signal_check, signal_warning, trouble

STEPS_UNREAD = {"cuda": 20, "mps": 20}
"""Steps whose losses stay on a device that works by itself: to read one is to wait for it. All are read before anything is
saved, so a loss that is not finite is found a few steps late, but nothing of it is kept."""

HEAD = ("n", "top1_errors", "top5_errors", "top1_error", "top5_error", "loss_nats", "balanced_top1_error")
"""What log.jsonl says of a last layer that was fitted."""

TRAINED = "trained"
"""Group of a checkpoint that holds the weights which training goes on with, where ``model`` holds a mean of weights."""
STARTED = "started"
"""Group of a checkpoint that holds the weights which the run started from, where ``model`` has a share of them."""

PROBE_IMAGES = 64
"""Images of the signal check and of the count of dead filters."""


@dataclass(frozen=True)
class _UnreadStep:
    """A step whose results are still on the device."""

    row: dict[str, Any]
    result_2: Tensor
    """Mean loss, and how many of its images were classified wrongly."""
    images: int


def fit(
    config: TrainConfig,
    data: PackedSet,
    run: Path,
    machine: Machine,
    *,
    initial: Initial | None = None,
    resume: bool = False,
    change: bool = False,
    fresh: bool = False,
    stop: StopRequest | None = None,
) -> Parallel:
    """Train ``config.network`` on ``data.splits["train"]``: the network, or this rank's part of it, in evaluation mode, after the
    last step; with ``config.ema`` the average of its weights, with ``config.start_share`` their mean with those that it started
    from, with ``config.early_stopping`` as it was after the best epoch.

    The first rank writes config.json, environment.json, log.jsonl, summary.csv and checkpoint/ into ``run``, and
    ranks.json where there are several. With ``resume`` the run goes on from its last sound checkpoint, bit for bit as if
    it had never stopped (same threads, versions and ranks on the CPU; with other ranks in the same order and with the
    same draws); with ``change`` it may go on with other rates, schedule, noise and batches, which is written down with the
    step. ``initial``: weights to start from, of the layers that fit; with a checkpoint they are no longer needed,
    and if given must be the same.
    Raises :class:`StoppedError` after a ``stop`` was requested (by default: by SIGINT or SIGTERM) of any rank, with a
    checkpoint; :class:`UsageError` if the run exists and ``resume`` is not given, or was made with other settings;
    :class:`AlexNetError` on a loss that is not finite.
    """
    require_possible(config, data, machine, initial, run)
    start = None if initial is None else transfer(initial, config, data.classes)
    mesh = build_mesh(machine.layout)
    trainer: _Trainer | None = None
    begun, made, before = False, not run.exists(), set[str]()
    try:
        with ExitStack() as stack:
            stop = stop or stack.enter_context(StopRequest())
            checkpoint: Checkpoint | None = None
            if mesh.rank == 0:
                run.mkdir(parents=True, exist_ok=True)
                stack.enter_context(explained_faults(run))

            def require(checkpoint: Checkpoint) -> None:
                require_fitting(checkpoint, config, data)

            def opened() -> list[Any] | None:
                nonlocal checkpoint, begun
                put_back(run)  # what a killed process had set aside
                if fresh:
                    set_aside(run)
                before.update(path.name for path in run.iterdir())
                begun = "config.json" not in before
                checkpoint = open_run(config, data, run, start, require, resume=resume, change=change)
                return None if checkpoint is None else [checkpoint.step, checkpoint.state]

            found = on_first("opening the run", opened)
            if mesh.rank and found is not None:
                checkpoint = Checkpoint(found[0], {}, found[1])  # its tensors come from the first rank
            trainer = _Trainer(config, data, run, machine, mesh, start, checkpoint, stop)
            checkpoint = None  # its tensors were copied
            return trainer.train()
    except BaseException:
        if mesh.rank == 0 and put_back(run):
            say(f"{printable(run)}: the new run has no checkpoint yet, the earlier one is back as it was")
        elif begun and (trainer is None or trainer.progress.step == 0):
            clear(run, keep=before)  # nothing was trained
            if made:
                with suppress(OSError):  # the lock of a whole run is there
                    run.rmdir()
        raise


def require_possible(
    config: TrainConfig, data: PackedSet, machine: Machine, initial: Initial | None, run: Path
) -> None:
    """:class:`UsageError` for what no training can be made of, :class:`AlexNetError` for one that finds no room on the disk:
    to be known before there is a run, or an old one is set aside."""
    if data.channels != config.preprocessing.channels:
        raise UsageError(
            f"{printable(data.path)} holds images of {data.channels} channels, {config.network} reads "
            f"{config.preprocessing.channels}; take another recipe, or set --preprocessing.channels and --model.in-channels"
        )
    reads = (config.model.in_channels, config.model.input_size)
    if reads != (made := (config.preprocessing.channels, config.preprocessing.crop)):
        raise UsageError(
            f"the network reads {_input(reads)} (--model.in-channels, --model.input-size), but is given {_input(made)} "
            "(--preprocessing.channels, --preprocessing.crop); make them equal"
        )
    # Torch's fused optimizers take no shapes for parameters.
    shapes = network(config, len(data.classes), weights=False)
    build_optimizer(shapes, replace(config.optimizer, kind="paper"))
    if machine.accumulate > 1 and any(isinstance(module, nn.BatchNorm2d) for module in shapes.modules()):
        raise UsageError(
            "--accumulate would normalize each part of a batch by itself; leave it out with model.normalization batch"
        )
    if initial is not None:
        transfer(initial, config, data.classes)
    _require_memory(shapes, config, machine)
    require_space(run, checkpoint_bytes(shapes, config))
    train, val = data.split("train"), data.split(data.held_out)
    if not len(train) or not len(val):
        raise UsageError(
            f"{printable(config.data)} has {len(train)} images to train on and {len(val)} to validate on; it needs at least one "
            "of each"
        )
    if config.train_images is not None and config.train_images > len(train):
        say(
            f"note: --train-images is {config.train_images:,}, but there are {len(train):,}: the run learns from all of them"
        )
    image_B = np.zeros(1, dtype=np.int64)
    pixels_BSSC, mean_SSC = _read(train, image_B, machine), torch.from_numpy(data.mean)
    x_BCHW = network_input(pixels_BSSC, image_B, config, mean_SSC)
    batch = min(config.batch_size, len(train))
    with torch.no_grad():
        shapes.to("meta").eval()(x_BCHW.to("meta").expand(batch, *x_BCHW.shape[1:]))


def require_fitting(checkpoint: Checkpoint, config: TrainConfig, data: PackedSet) -> None:
    """:class:`AlexNetError`, naming the file, for a checkpoint that is whole but not one of this run: of another network, or at
    a place beyond the training images."""
    progress, _ = progress_of(checkpoint)
    if progress.position > len(training_images(len(data.split("train")), config)):
        raise AlexNetError("state.json: position is beyond the training images")
    if progress.best != min(map(judged_error, progress.history), default=math.inf):
        raise AlexNetError("state.json: best is not the lowest validation error in history")
    if progress.start is not None:
        try:
            from_json(LayerSignal, progress.start, "start")
        except AlexNetError as error:
            raise AlexNetError(f"state.json: {error}") from error
    shapes = network(config, len(data.classes), weights=False)
    expected = {name: value.shape for name, value in shapes.state_dict().items()}
    if config.start_share and STARTED not in checkpoint.tensors:
        raise AlexNetError(f"{STARTED}.safetensors is not there, and a share of the weights in it is kept")
    for group in ("model", *sorted({TRAINED, STARTED} & checkpoint.tensors.keys())):
        found = {name: value.shape for name, value in checkpoint.tensors.get(group, {}).items()}
        if odd := sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)):
            raise AlexNetError(f"{group}.safetensors: {printable(odd[0])[:80]} is not as in {config.network}")
    parameters = dict(shapes.named_parameters())
    for key, value in checkpoint.tensors.get("optimizer", {}).items():
        name, _, slot = key.rpartition("/")
        parameter = parameters.get(name)
        if parameter is None or value.shape != (() if slot == "step" else parameter.shape):
            raise AlexNetError(f"optimizer.safetensors: {printable(key)[:80]} is of no parameter of {config.network}")


def _read(split: Images, image_B: NDArray[np.int64], machine: Machine) -> Tensor:
    """The images as stored, uint8 (B, S, S, C), read as a batch is: a disk that hangs is named after the same time."""
    return next(batches(split, image_B, len(image_B), workers=machine.workers)).pixels_BSSC


def _input(shape: tuple[int, int]) -> str:
    channels, side = shape
    return f"{side} x {side} pixels of {channels} {'channel' if channels == 1 else 'channels'}"


def _require_memory(shapes: nn.Module, config: TrainConfig, machine: Machine) -> None:
    """Refuse a network that does not fit: a system that promises more memory than it has kills the process later."""
    num, total = sum(p.numel() for p in shapes.parameters()), total_memory(machine.device)
    needed = num * config.itemsize * (1 if in_job() else 2 + config.optimizer.moments + _more_weights(config))
    if total is not None and needed > total:
        raise UsageError(
            f"{config.network} would have {num:,} parameters, which take {needed / 1e9:,.0f} GB with their gradients and "
            f"velocities; there are {total / 1e9:,.0f} GB: make model.conv_channels or model.fc_units smaller"
        )


def network_input(pixels_BSSC: Tensor, image_B: NDArray[np.int64], config: TrainConfig, mean_SSC: Tensor) -> Tensor:
    """The centers of images as the network reads them: (B, C, H, W) float32. Nothing is drawn."""
    none = replace(config.augmentation, crop="center", mirror=False, color_noise=0.0)
    draws = transforms.draw(none, config.preprocessing, seed=0, epoch=0, image_B=image_B, position_B=image_B)
    return transforms.augment(pixels_BSSC, draws, none, config.preprocessing, mean_SSC, None)


class _Trainer:
    """What the steps of one run share."""

    def __init__(
        self,
        config: TrainConfig,
        data: PackedSet,
        run: Path,
        machine: Machine,
        mesh: Mesh,
        start: Transfer | None,
        checkpoint: Checkpoint | None,
        stop: StopRequest,
    ) -> None:
        if machine.deterministic:  # without a workspace of fixed size cuBLAS is not
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(machine.deterministic)
        # Shapes do not change, so the fastest algorithms are found once.
        torch.backends.cudnn.benchmark = not machine.deterministic
        self.config, self.data, self.run = config, data, run
        self.machine, self.device, self.mesh, self.start, self.stop = machine, machine.device, mesh, start, stop
        self.checkpoint = checkpoint
        self.split: Images = data.split("train")
        self.val = data.split(data.held_out)
        if machine.resident:
            self.split = ResidentSplit(self.split, self.device)
        self.image_N = training_images(len(self.split), config)
        self.mean_SSC = torch.from_numpy(data.mean).to(self.device)
        self.kernels = kernels_in_use(self.device, build=True)
        dtype = torch.float64 if config.precision == "float64" else torch.float32
        whole = network(config, len(data.classes))
        if start is not None and checkpoint is None:
            whole.load_state_dict(start.tensors, strict=False)
        whole = whole.to(self.device, dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        untrained = mesh.rank == 0 and checkpoint is None
        self.signals = signal_check(whole, self._probe_input(dtype)) if untrained else []
        wire = torch.bfloat16 if machine.exchange == "bfloat16" else None
        mean = deepcopy(whole).requires_grad_(False) if config.ema or config.start_share else None
        self.parallel = parallelize(whole, mesh, wire=wire, scheme=machine.scheme)
        self.model = self.parallel.model
        self.kept = self.parallel
        """The network that is validated and becomes the model: a mean of weights, where one is kept."""
        if mean is not None:
            self.kept = parallelize(mean, mesh, wire=wire, scheme=machine.scheme)
        self.started_from: dict[str, Tensor] = {}
        """The weights that a share of is kept."""
        if config.start_share:
            self.started_from = {name: value.clone() for name, value in self.kept.model.state_dict().items()}
        self.optimizer = build_optimizer(self.model, config.optimizer)
        self.progress = Progress(start=asdict(self.signals[-1]) if self.signals else None)
        train_N, num_classes, balanced = self.split.labels[self.image_N], len(data.classes), config.balance != "none"
        weight_K = class_weights(train_N, num_classes) if config.balance == "weights" else np.ones(num_classes)
        self.weight_K = torch.from_numpy(weight_K).to(dtype).to(self.device)
        self.chance = guessing(train_N, self.val.labels, num_classes, balanced=balanced)
        self.saved_at, self.changed_at = 0 if checkpoint is None else checkpoint.step, -1
        self.unread: list[_UnreadStep] = []
        self.read_at = time.monotonic()

    def train(self) -> Parallel:
        if self.checkpoint is not None:
            self._restore(self.checkpoint)
            self.checkpoint = None
            begun = True
        else:
            begun = False
            if self.start is not None:
                say(self.start)
        config, progress = self.config, self.progress
        num, total = len(self.image_N), config.epochs * len(self.image_N)
        with ExitStack() as stack:
            self.log: Log | None = None
            self.scalars: Write = lambda _step, _scalars: None
            if self.mesh.rank == 0:
                self.log = stack.enter_context(Log(self.run / "log.jsonl", progress.log_bytes))
                self.scalars = stack.enter_context(scalar_writer(self.run / "tensorboard", progress.step))
            done = progress.epoch * num + progress.position
            bar = stack.enter_context(Bar("train", total, done=done, quiet=self.machine.quiet))
            if self.signals:
                self._note_signal()
            self._note_changes()
            self.started = time.monotonic() - progress.seconds
            self.first_step = progress.step + 1
            if config.last_layer == "fitted" and not begun:
                self._judge_head()
            while progress.epoch < config.epochs and not ends(config, progress.history):
                try:
                    self._train_epoch(bar)
                    self._finish_epoch()
                except (DataError, ReadTimeoutError):
                    if progress.position and self.mesh.world.size == 1:  # else the other ranks know nothing of it
                        self._save(best=False)
                    raise
        self._take_best()
        self.kept.model.eval()
        return self.kept

    def _take_best(self) -> None:
        """With early stopping, give the network that is kept the weights of the epoch with the lowest validation error."""
        history = self.progress.history
        if self.config.early_stopping is None or not history or (best := best_epoch(history)) is history[-1]:
            return
        pointer, tensors = self.run / "checkpoint" / "best", {}

        def read() -> None:
            try:
                found = read_checkpoint(pointer.parent / pointed(pointer), "model")
                if found.step != best["step"]:
                    raise AlexNetError(f"it is of step {found.step}, and the best epoch ended at {best['step']}")
                tensors.update(found.tensors["model"])
            except (AlexNetError, OSError, SafetensorError, KeyError) as error:
                raise AlexNetError(
                    f"{printable(pointer)}: the checkpoint that is to become the model is missing or damaged "
                    f"({printable(error)}); to keep the last weights instead, add --resume --change --early-stopping None"
                ) from error

        on_first("reading the best checkpoint", read)
        self.kept.model.load_state_dict(self.parallel.spread_state(tensors))
        say(
            f"early stopping: epoch {best['epoch']} had the lowest validation error, {judged_error(best):.1%}, and its weights "
            "become the model"
        )

    def _train_epoch(self, bar: Bar) -> None:
        config, progress = self.config, self.progress
        order_N = self._order()
        source = batches(
            self.split,
            order_N,
            config.batch_size,
            start=progress.position,
            workers=self.machine.workers,
            own=self._own_images,
            partner_N=self._partners(order_N) if config.augmentation.mixes else None,
            pin=self.device.type == "cuda",
        )
        self.model.train()
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
                module.eval()  # the statistics of a frozen layer are frozen as well
        asked = self.read_at = time.monotonic()
        for batch in source:
            self._step(batch, data_seconds=time.monotonic() - asked)
            if len(self.unread) >= STEPS_UNREAD.get(self.device.type, 1):
                row = self._read_losses()
                bar.update(
                    progress.epoch * len(order_N) + progress.position,
                    f"epoch {progress.epoch + 1}/{config.epochs}  loss {row['loss']:.3f}  "
                    f"error {progress.top1_errors / progress.position:.1%}  step {progress.step}  lr {row['lr']:.2g}  "
                    f"waited {row['data_seconds']:.2f} s for data",
                )
            self._stop_if_requested()
            if progress.step % config.checkpoint_steps == 0 and progress.position < len(order_N):
                self._save(best=False)
            asked = time.monotonic()

    def _order(self) -> NDArray[np.int64]:
        """The numbers of the images of the current epoch, in its order."""
        seed, epoch = self.config.seed, self.progress.epoch
        if self.config.balance == "sampler":
            return balanced_order(self.image_N, self.split.labels, seed, epoch)
        return self.image_N[epoch_order(len(self.image_N), seed, epoch)]

    def _partners(self, order_N: NDArray[np.int64]) -> NDArray[np.int64]:
        """For each place in the order of the epoch the place of the image that it is mixed with."""
        draw_N1 = rng.integers(self.config.seed, "mix/partner", self.progress.epoch, order_N, 1, len(order_N))
        return draw_N1[:, 0]

    def _parts(self, num: int) -> list[slice]:
        """The parts of a batch of ``num`` images that are computed one after the other."""
        count = min(self.machine.accumulate, num)
        return [chunk(num, part, count) for part in range(count)]

    def _own_images(self, num: int) -> NDArray[np.int64]:
        """The places in a batch of ``num`` images that this rank computes, part by part."""
        own = [part.start + np.arange(num)[self.mesh.images(part.stop - part.start)] for part in self._parts(num)]
        return np.concatenate(own)

    def _step(self, batch: Batch, data_seconds: float) -> None:
        progress = self.progress
        now, num = self._rates(progress.position), len(batch.image_N)
        set_rates(self.optimizer, now)
        self.optimizer.zero_grad()
        result_2 = torch.zeros(2, dtype=self._dtype, device=self.device)
        first = 0
        for part in self._parts(num):
            own = self.mesh.images(part.stop - part.start)
            rows = slice(first, first + own.stop - own.start)
            first = rows.stop
            x_BCHW, label_B, target = self._input(batch, rows, now.color_noise)
            result_2 += self._backward(x_BCHW, label_B, target, batch.image_N[part], num, last=part.stop == num)
        if self.device.type not in STEPS_UNREAD:  # reading them costs no waiting here: do so before the weights change
            result_2 = self._over_ranks(result_2)
            self._require_finite(progress.step + 1, float(result_2[0]), now.weight, x_BCHW)
        self.optimizer.step()
        progress.step += 1
        self._take_mean()
        progress.position += num
        row = {"event": "step", "step": progress.step, "epoch": progress.epoch + 1}
        row |= {"lr": now.weight, "data_seconds": data_seconds}
        self.unread.append(_UnreadStep(row, result_2, num))
        if progress.step == self.first_step and self.mesh.world.size > 1:
            self._report_ranks(num)

    def _take_mean(self) -> None:
        """Take the weights of this step into the mean that is kept, and with them the statistics of batch normalization, which go
        with the weights. The decay of early steps is that of TensorFlow's ExponentialMovingAverage with a count of updates."""
        if self.kept is self.parallel:
            return
        step, kept, now = self.progress.step, self.kept.model.state_dict(), self.model.state_dict()
        if self.started_from:
            mix(kept, self.started_from, now, self.config.start_share)
        else:
            mix(kept, kept, now, min(self.config.ema, (1 + step) / (10 + step)))

    def _backward(
        self,
        x_BCHW: Tensor,
        label_B: Tensor,
        target: Tensor,
        image_N: NDArray[np.int64],
        num: int,
        *,
        last: bool,
    ) -> Tensor:
        """Forward and backward for this rank's images of ``image_N``, a part of a batch of ``num``: their share of the mean
        loss against ``target``, labels (B,) or shares of classes (B, K), and how many were classified wrongly."""
        config, full = self.config, self._dtype
        loss = torch.zeros((), dtype=full, device=self.device)

        def loss_of(logits_BK: Tensor, rows: slice) -> Tensor:
            smoothing = 0.0 if target.dim() > 1 else config.label_smoothing
            value = F.cross_entropy(logits_BK.to(full), target[rows], label_smoothing=smoothing, reduction="sum") / num
            loss.add_(value.detach())
            return value

        logits_BK = self.parallel.backward(
            x_BCHW,
            rng.DropoutDraw(config.seed, self.progress.epoch, image_N),
            loss_of,
            last=last,
            forward_context=lambda: autocast(self.device, config.precision),
        )
        errors = (logits_BK.to(full).argmax(dim=1) != label_B).sum()
        return torch.stack([loss, errors.to(full)])

    def _over_ranks(self, result_S: Tensor) -> Tensor:
        """The sum over all ranks, on the CPU. If two ranks have the same images, only the first one's results count."""
        own_S = result_S.cpu().double()
        return add_up(self.mesh.world, "the sum of the losses", own_S if self.mesh.counts else torch.zeros_like(own_S))

    def _read_losses(self) -> dict[str, Any]:
        """Fetch the losses of the steps since the last time from the device, check and record them. Returns the last row."""
        row: dict[str, Any] = {}
        progress, steps = self.progress, self.unread
        if not steps:
            return row
        self.unread = []
        result_S2 = torch.stack([step.result_2 for step in steps])
        if self.device.type in STEPS_UNREAD:
            result_S2 = self._over_ranks(result_S2)
        now = time.monotonic()
        rate = sum(step.images for step in steps) / (now - self.read_at)
        self.read_at = now
        for step, (loss, errors) in zip(steps, result_S2.tolist(), strict=True):
            self._require_finite(step.row["step"], loss, step.row["lr"])
            wrong = round(errors)
            progress.loss_sum += loss * step.images
            progress.top1_errors += wrong
            row = step.row | {"loss": loss, "top1_error": wrong / step.images, "images_per_second": rate}
            self._record(row)
            self.scalars(row["step"], {"train/loss": loss, "lr": row["lr"]})
        return row

    def _record(self, row: dict[str, Any]) -> None:
        if self.log is not None:
            self.log.write(row)

    def _report_ranks(self, num: int) -> None:
        report = rank_report(self.parallel, self.optimizer, self.config, self.machine, num, len(self.data.classes))
        if report:
            write_json(self.run / "ranks.json", report)
            for line in rank_table(report):
                say(line)

    def _rates(self, position: int) -> Rates:
        """The rates of the step that starts at ``position`` in the current epoch."""
        config, progress = self.config, self.progress
        return rates(
            config.schedule,
            config.optimizer,
            epoch=progress.epoch + position / (math.ceil(len(self.image_N) / config.batch_size) * config.batch_size),
            epochs=config.epochs,
            val_errors=[judged_error(row) for row in progress.history],
        )

    def _input(self, batch: Batch, rows: slice, noise_factor: float) -> tuple[Tensor, Tensor, Tensor]:
        """Some of the images of a batch that were read, as the network's input, mixed with others where they are to be; the
        label that counts of each; and what the loss is taken against: labels, or shares of classes."""
        config = self.config
        x_BCHW, label_B = self._augmented(batch, rows, noise_factor), self._labels(batch, rows)
        if batch.partners is None and config.balance != "weights":
            return x_BCHW, label_B, label_B
        if batch.partners is None:
            return x_BCHW, label_B, target_shares(label_B, self.weight_K, config.label_smoothing)
        mixes = transforms.draw_mixes(
            config.augmentation,
            config.preprocessing.crop,
            seed=config.seed,
            epoch=self.progress.epoch,
            image_B=batch.image_B[rows],
        )
        x_BCHW = transforms.mix(x_BCHW, self._augmented(batch.partners, rows, noise_factor), mixes)
        other_B = self._labels(batch.partners, rows)
        share_B = torch.from_numpy(mixes.share_B).to(self._dtype).to(self.device)  # no float64 on MPS
        target_BK = target_shares(label_B, self.weight_K, config.label_smoothing, other_B, share_B)
        return x_BCHW, main_label(label_B, other_B, share_B), target_BK

    def _augmented(self, batch: Batch, rows: slice, noise_factor: float) -> Tensor:
        config = self.config
        draws = transforms.draw(
            config.augmentation,
            config.preprocessing,
            seed=config.seed,
            epoch=self.progress.epoch,
            image_B=batch.image_B[rows],
            position_B=batch.position_B[rows],
        )
        pixels_BSSC = batch.pixels_BSSC[rows].to(self.device, non_blocking=True)
        x_BCHW = transforms.augment(
            pixels_BSSC, draws, config.augmentation, config.preprocessing, self.mean_SSC, self.data.color, noise_factor
        )
        return x_BCHW.to(self._dtype)

    def _labels(self, batch: Batch, rows: slice) -> Tensor:
        return batch.label_B[rows].to(self.device, non_blocking=True)

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    def _validate(self) -> Evaluation:
        """The errors of the network that is kept on the held-out images."""
        config, progress = self.config, self.progress
        try:
            result = evaluate_split(
                self.kept.model,
                self.val,
                config.preprocessing,
                self.data.mean,
                classes=self.data.classes,
                views=CENTER,
                batch_size=config.batch_size,
                device=self.device,
                precision=config.precision,
                workers=self.machine.workers,
                mesh=self.mesh,
                progress=lambda _done, _total: self._stop_if_requested(),
            )
        except NotFiniteError:  # due to the last update, which no loss has shown yet
            self._require_finite(progress.step, math.nan, self._rates(progress.position).weight)
            raise
        self._require_finite(progress.step, result.loss_nats, self._rates(progress.position).weight)
        return result

    def _judge_head(self) -> None:
        """Record the errors of the fitted last layer alone, before anything is trained, and save it."""
        result = self._validate()
        self._record({"event": "head", **{name: getattr(result, name) for name in HEAD}})
        say(
            f"last layer fitted, nothing trained: validation error {result.top1_error:.1%} ({result.top1_errors} of {result.n})"
        )
        if self.config.epochs == 0:
            self._save(best=True)

    def _finish_epoch(self) -> None:
        """Validate, record, save."""
        config, progress = self.config, self.progress
        self._read_losses()
        result = self._validate()
        num = len(self.image_N)
        row = {
            "event": "epoch",
            "epoch": progress.epoch + 1,
            "step": progress.step,
            "train_loss": progress.loss_sum / num,
            "train_top1_error": progress.top1_errors / num,
            "val_n": result.n,
            "val_top1_errors": result.top1_errors,
            "val_top5_errors": result.top5_errors,
            "val_top1_error": result.top1_error,
            "val_top5_error": result.top5_error,
            "val_loss": result.loss_nats,
            **({} if config.balance == "none" else {"val_balanced_top1_error": result.balanced_top1_error}),
            "lr": self._rates(num - 1).weight,
            "dead_filters": self._dead_filters(),
            "spread": self._spread(),
        }
        progress.history.append(row)
        progress.epoch, progress.position = progress.epoch + 1, 0
        progress.seconds = time.monotonic() - self.started
        self._record(row | {"seconds": progress.seconds})
        mean = "" if config.balance == "none" else f"; mean over classes {result.balanced_top1_error:.1%}"
        say(
            f"epoch {progress.epoch}/{config.epochs}: training loss {row['train_loss']:.3f} error "
            f"{row['train_top1_error']:.1%}, validation loss {row['val_loss']:.3f} error {row['val_top1_error']:.1%} "
            f"({result.top1_errors} of {result.n}{mean}), {progress.seconds:.0f} s"
        )
        curves = {
            "train_loss": progress.loss_sum / num,
            "val_loss": result.loss_nats,
            "val_top1_error": result.top1_error,
        }
        self.scalars(progress.step, {f"epoch/{name}": value for name, value in curves.items()})
        progress.loss_sum, progress.top1_errors = 0.0, 0
        self._note_trouble()
        error = judged_error(row)
        best = error < progress.best
        progress.best = min(progress.best, error)
        if self.mesh.rank == 0:
            write_summary(self.run / "summary.csv", progress.history)  # again, if this process dies before it has saved
        self._save(best=best)

    def _save(self, *, best: bool) -> None:
        self._read_losses()
        progress, parallel = self.progress, self.parallel
        index = {id(p): name for name, p in self.model.named_parameters()}
        velocities = {
            f"{index[id(p)]}/{key}": torch.as_tensor(value)
            for p, state in self.optimizer.state.items()
            for key, value in state.items()
            if value is not None
        }
        tensors = {
            "model": parallel.gather_state(self.kept.model.state_dict()),
            "optimizer": parallel.gather_state(velocities),
        }
        if self.kept is not parallel:
            tensors[TRAINED] = parallel.gather_state(self.model.state_dict())
        if self.config.start_share:
            tensors[STARTED] = parallel.gather_state(self.started_from)
        progress.seconds = time.monotonic() - self.started

        def write() -> None:
            assert self.log is not None
            progress.log_bytes = self.log.sync()
            state = progress.to_json() | {CONDITIONS: self._conditions()}
            self._describe()
            save_checkpoint(self.run / "checkpoint", progress.step, tensors, state, best=best)
            shutil.rmtree(self.run / REPLACED, ignore_errors=True)  # the new run stands

        on_first("saving a checkpoint", write)
        self.saved_at = progress.step

    def _describe(self) -> None:
        """Write once what the weights of all checkpoints need to be a model: network, preprocessing, classes, mean image."""
        folder, config, data = self.run / "checkpoint" / NETWORK, self.config, self.data
        if not (folder / "config.json").is_file():
            mean = data.mean if config.preprocessing.mean == "image" else None
            shapes = network(config, len(data.classes), weights=False)
            save_model_folder(folder, shapes, config.network, config.preprocessing, data.classes, mean, weights=False)

    def _restore(self, checkpoint: Checkpoint) -> None:
        self.progress, before = progress_of(checkpoint)
        here = self._conditions()
        if changed := differences(before, here):
            what = ", ".join(f"{c} {before.get(c)} -> {here.get(c)}" for c in changed)
            say(f"note: not bit for bit the uninterrupted run, for {what} changed since the checkpoint")
        parallel = self.parallel
        kept = parallel.spread_state(checkpoint.tensors.get("model", {}))
        trained = parallel.spread_state(checkpoint.tensors.get(TRAINED, {}))
        self.kept.model.load_state_dict(kept)
        self.model.load_state_dict(trained or kept)
        for name, value in parallel.spread_state(checkpoint.tensors.get(STARTED, {})).items():
            self.started_from[name].copy_(value)
        by_name = dict(self.model.named_parameters())
        for key, value in parallel.spread_state(checkpoint.tensors.get("optimizer", {})).items():
            name, _, slot = key.rpartition("/")
            parameter = by_name[name]
            velocity = value.dim() > 0  # Adam's count of steps is a number
            copied = torch.empty_like(parameter).copy_(value) if velocity else value.clone().to(parameter.device)
            self.optimizer.state[parameter][slot] = copied
        say(f"resumed at step {self.progress.step} (epoch {self.progress.epoch + 1}, image {self.progress.position})")

    def _conditions(self) -> dict[str, Any]:
        """What bit-for-bit equality of two runs depends on."""
        return {
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "device": self.device.type,
            "numpy": np.__version__,
            "normalization kernels": self.kernels,
            "ranks": self._ranks(),
            "accumulate": self.machine.accumulate,
        }

    def _ranks(self) -> str:
        if self.mesh.world.size == 1:
            return "one"
        scheme = f" ({self.machine.scheme})" if self.mesh.layout == "hybrid" else ""
        return f"{self.mesh.world.size} in the layout {self.mesh.layout}{scheme}, exchange {self.machine.exchange}"

    def _probe_input(self, dtype: torch.dtype) -> Tensor:
        """The centers of the first training images, as network input."""
        image_B = self.image_N[: min(PROBE_IMAGES, len(self.image_N))]
        pixels_BSSC = _read(self.split, image_B, self.machine).to(self.device)
        return network_input(pixels_BSSC, image_B, self.config, self.mean_SSC).to(dtype)

    def _note_signal(self) -> None:
        """Note what the signal check of the untrained network has found."""
        start, x_BCHW = self.start, self._probe_input(self._dtype)
        if start is not None and (other := other_input(start.initial, self.config)):
            self._note(f"the initial weights were trained on another input ({', '.join(other)})")
        if lost := next((s.layer for s in self.signals if not math.isfinite(s.rms)), None):
            raise NotFiniteError(
                f"the outputs of the untrained network are not finite from {lost} on; use a smaller preprocessing.scale, or "
                "smaller initial weights"
            )
        input_std = float(x_BCHW.cpu().double().std())
        write_json(self.run / "signal.json", {"layers": [asdict(s) for s in self.signals], "input_std": input_std})
        if warning := signal_warning(self.signals, input_std):
            self._note(warning)

    def _note_changes(self) -> None:
        """Note what was changed since the checkpoint was made, and so is not in the log yet."""
        if self.log is None:
            return
        for entry in read_settings(self.run).get("history", [])[self.progress.changes :]:
            message = described(entry)
            say(message)
            self._record({"event": "change", **entry, "message": message})
            self.progress.changes += 1
            self.changed_at = entry["step"]
            self.progress.watched, self.progress.warned = len(self.progress.history), []

    def _note_trouble(self) -> None:
        """Say once what keeps the training from getting on, and what to do."""
        progress, config = self.progress, self.config
        watched = progress.history[progress.watched :]
        since = progress.history[progress.watched - 1]["step"] if progress.watched else 0
        start = None if progress.start is None else LayerSignal(**progress.start)
        found = trouble(watched, self.chance, since=since, start=start)
        if found is None or found.kind in progress.warned:
            return
        progress.warned.append(found.kind)
        cure = {
            "lost": f"the untrained weights let too little through; start again with --fresh{self._louder()}",
            "stuck": f"the learning rate is too high; start again with --fresh{other_rate(config, 0.1)}",
            "diverging": f"go on at a lower rate with --resume --change{other_rate(config, 0.1)}",
            "slow": f"go on at a higher rate with --resume --change{other_rate(config, 10)}",
        }[found.kind]
        self._note(f"{found.kind}: {found.seen}; {cure}")

    def _louder(self) -> str:
        """The options that give the untrained network outputs that differ between images."""
        quiet = self.config.preprocessing.scale < 1 and not self.config.preprocessing.std
        return " --preprocessing.scale 1" if quiet else " --model.init he"

    def _spread(self) -> float | None:
        """Spread of the network's outputs between images; None if they are not finite."""
        spread = signal_check(self.kept.model, self._probe_input(self._dtype))[-1].spread
        return spread if math.isfinite(spread) else None

    def _dead_filters(self) -> dict[str, list[int]]:
        """Dead filters of each convolution, by tower. Where each tower has ranks of its own, each counts its own filters."""
        apart = self.mesh.layout == "towers" and self.mesh.tower.size > 1
        towers = 1 if apart else int(getattr(self.config.model, "towers", 1))
        dead = dead_filters(self.kept.model, self._probe_input(self._dtype), towers)
        if apart:
            own = torch.zeros(len(dead), self.mesh.tower.size, dtype=torch.int64)
            own[:, self.mesh.tower.index] = torch.tensor(list(dead.values()))[:, 0]
            found = add_up(self.mesh.tower, "the count of dead filters", own)
            dead = dict(zip(dead, found.tolist(), strict=True))
        return dead

    def _note(self, message: str) -> None:
        say(f"warning: {message}")
        self._record({"event": "note", "step": self.progress.step, "message": message})

    def _require_finite(self, step: int, loss: float, lr: float, x_BCHW: Tensor | None = None) -> None:
        if math.isfinite(loss):
            return
        found = "the loss alone"
        if x_BCHW is not None and not bool(torch.isfinite(x_BCHW).all()):
            found = "the input"
        for name, p in self.model.named_parameters():
            if not bool(torch.isfinite(p).all()):
                found = name
                break
        raise NotFiniteError(
            f"step {step}: the loss is {loss} at learning rate {lr:g} (first non-finite: {found}); nothing of this step was "
            f"saved; {self._cure(found)}"
        )

    def _cure(self, found: str) -> str:
        """What to do about a number that is not finite."""
        if found == "the input":
            return "start again with --fresh and a smaller --preprocessing.scale"
        if (self.run / REPLACED).is_dir():
            return f"the earlier run is put back; start again with --fresh{other_rate(self.config, 0.1)}"
        if self.changed_at == self.saved_at:  # a lower rate was tried from there, in vain
            return f"its last checkpoint does so at any rate; start again with --fresh{other_rate(self.config, 0.1)}"
        return f"to go on from the last checkpoint at a lower rate, add --resume --change{other_rate(self.config, 0.1)}"

    def _stop_if_requested(self) -> None:
        if any_of(self.mesh.world, "asking whether to stop", self.stop.requested):
            self._save(best=False)
            progress = self.progress
            end = f", --resume --epochs {progress.epoch} ends the run here" if progress.epoch else ""
            raise StoppedError(
                f"stopped at step {progress.step}, checkpoint saved; the same command with --resume goes on{end}"
            )


def mix(into: Mapping[str, Tensor], first: Mapping[str, Tensor], last: Mapping[str, Tensor], share: float) -> None:
    """Write the mean of two states of a network into a third, which may be the first: this share of the first, the rest of the
    last. Whole numbers (how many batches batch normalization has seen) are those of the last."""
    for name, mean in into.items():
        if mean.is_floating_point():
            mean.copy_(first[name]).lerp_(last[name], 1 - share)
        else:
            mean.copy_(last[name])


def checkpoint_bytes(model: nn.Module, config: TrainConfig) -> int:
    """Bytes of one checkpoint: the weights, one velocity (Adam: two moments) for each, and what a mean of weights needs."""
    copies = 1 + config.optimizer.moments + _more_weights(config)
    return sum(p.numel() for p in model.parameters()) * config.itemsize * copies


def _more_weights(config: TrainConfig) -> int:
    """Copies of the weights that a run keeps beside those that it trains: their mean, and those it started from."""
    return 2 if config.start_share else int(config.ema > 0)


def training_images(num: int, config: TrainConfig) -> NDArray[np.int64]:
    """The numbers of the training images: all, or the first ``train_images`` of a fixed random order."""
    return training_subset(num, config.train_images, config.seed)


def network(config: TrainConfig, classes: int, *, weights: bool = True) -> nn.Module:
    """The untrained network of a run on data of ``classes`` classes, or only its shapes. Layers whose factor in
    ``optimizer.layer_lr`` is 0 get no gradient, and nothing is computed for it in vain."""
    seed = config.seed if weights else None
    model = build_model(replace(config.model, num_classes=classes), name=config.network, seed=seed)
    factors = dict(config.optimizer.layer_lr)
    for layer, parameters in layer_parameters(model).items():
        for parameter in (*parameters.weights, *parameters.biases):
            parameter.requires_grad_(factors.get(layer) != 0)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UsageError("optimizer.layer_lr freezes every layer; leave out one that is to learn")
    return model
