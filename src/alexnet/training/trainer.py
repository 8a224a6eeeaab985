"""The training loop: exact, resumable at any step, stopped by a signal or by the first number that is not finite.

Shape suffixes: B images, C channels, H rows, W columns, S rows or columns of a square, K classes.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from alexnet.core import rng
from alexnet.core.config import differences, fingerprint, to_json
from alexnet.core.console import Bar, say
from alexnet.core.device import autocast
from alexnet.core.errors import AlexNetError, StoppedError, UsageError, printable
from alexnet.core.runs import environment, read_json, write_atomic, write_json
from alexnet.core.signals import StopRequest
from alexnet.data import transforms
from alexnet.data.loader import Batch, ResidentSplit, Split, batches, epoch_order
from alexnet.data.packed import PackedSet
from alexnet.evaluation.error_rate import evaluate_split
from alexnet.evaluation.views import CENTER
from alexnet.models import build_model, layer_parameters
from alexnet.models.lrn import kernels_in_use
from alexnet.models.lrn.compiled import KERNELS
from alexnet.training.checkpoint import KEEP, Checkpoint, load_checkpoint, save_checkpoint
from alexnet.training.config import TrainConfig
from alexnet.training.initial import Initial, Transfer, other_input, transfer
from alexnet.training.optimizer import build_optimizer
from alexnet.training.schedule import Rates, rates, set_rates
from alexnet.training.tensorboard import scalar_writer
from alexnet.training.watchdog import dead_filters, signal_check, signal_warning, stuck_warning

CHECKPOINTS = KEEP + 2
"""At most on the disk at once: the newest, the best, and one being written."""

NOT_COMPUTED = ("checkpoint_steps", "views")
"""Fields of a run that may change when it resumes: no number of the training depends on them."""

STEPS_UNREAD = {"cuda": 20, "mps": 20}
"""Steps whose losses stay on a device that works by itself: to read one is to wait for it. All are read before anything is
saved, so a loss that is not finite is found a few steps late, but nothing of it is kept."""

PROBE_IMAGES = 64
"""Images of the signal check and of the count of dead filters."""


@dataclass
class Progress:
    """How far a run has come. Everything here is in the checkpoint."""

    step: int = 0
    epoch: int = 0
    """Finished epochs."""
    position: int = 0
    """Images of the current epoch already used."""
    loss_sum: float = 0.0
    """Over these images."""
    top1_errors: int = 0
    """Among these images, as the network saw them: augmented, with dropout."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One row for each finished epoch."""
    best: float = math.inf
    """Lowest validation top-1 error."""
    log_bytes: int = 0
    """Length of log.jsonl."""
    seconds: float = 0.0
    """Spent training, over all starts."""


@dataclass(frozen=True)
class _UnreadStep:
    """A step whose results are still on the device."""

    row: dict[str, Any]
    loss: Tensor
    errors: Tensor
    """How many of its images were classified wrongly."""
    images: int


def train(
    config: TrainConfig,
    data: PackedSet,
    run: Path,
    *,
    device: torch.device,
    initial: Initial | None = None,
    workers: int | None = None,
    resume: bool = False,
    deterministic: bool = False,
    resident: bool = False,
    quiet: bool = False,
    stop: StopRequest | None = None,
) -> nn.Module:
    """Train ``config.network`` on ``data.splits["train"]`` and return it after the last step, in evaluation mode.

    ``run`` receives config.json, environment.json, log.jsonl, summary.csv and checkpoint/. With ``resume`` the run goes on
    from its last sound checkpoint, bit for bit as if it had never stopped (same threads and versions on the CPU).
    ``initial``: weights to start from, of the layers that fit; with a checkpoint they are no longer needed, and if given
    must be the same. ``resident`` keeps the training images in the memory of the device.
    Raises :class:`StoppedError` after a ``stop`` was requested (by default: by SIGINT or SIGTERM), with a checkpoint;
    :class:`UsageError` if the run exists and ``resume`` is not given, or was made with other settings;
    :class:`AlexNetError` on a loss that is not finite.
    """
    if data.channels != config.preprocessing.channels:
        raise UsageError(
            f"{printable(data.path)} holds images of {data.channels} channels, {config.network} reads "
            f"{config.preprocessing.channels}; take another recipe, or set --preprocessing.channels and --model.in-channels"
        )
    # A layer that is not there is refused before there is a run; torch's fused optimizers take no shapes for parameters.
    build_optimizer(network(config, len(data.classes), weights=False), replace(config.optimizer, kind="paper"))
    start = None if initial is None else transfer(initial, config, data.classes)
    run.mkdir(parents=True, exist_ok=True)
    with nullcontext(stop) if stop else StopRequest() as stop, _sole_trainer(run), _explained_faults(run):
        checkpoint = _open_run(config, data, run, start, resume=resume)
        trainer = _Trainer(config, data, run, device, workers, deterministic, resident, quiet, stop)
        return trainer.train(checkpoint, start)


class _Trainer:
    """What the steps of one run share."""

    def __init__(
        self,
        config: TrainConfig,
        data: PackedSet,
        run: Path,
        device: torch.device,
        workers: int | None,
        deterministic: bool,
        resident: bool,
        quiet: bool,
        stop: StopRequest,
    ) -> None:
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.benchmark = (
            not deterministic
        )  # shapes do not change, so the fastest algorithms are found once
        self.config, self.data, self.run = config, data, run
        self.device, self.workers, self.quiet, self.stop = device, workers, quiet, stop
        self.split: Split = data.split("train")
        self.val = data.split(data.held_out)
        if resident:
            self.split = ResidentSplit(self.split, device)
        self.image_N = training_images(len(self.split), config)
        model = network(config, len(data.classes))
        dtype = torch.float64 if config.precision == "float64" else torch.float32
        self.model: nn.Module = model.to(device, dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = build_optimizer(self.model, config.optimizer)
        self.mean_SSC = torch.from_numpy(data.mean).to(device)
        self.kernels = kernels_in_use(device, build=True)
        if self.kernels == "torch" and device.type == "cpu":
            say(f"note: response normalization takes three times as long here ({KERNELS.failure})")
        self.progress = Progress()
        self.unread: list[_UnreadStep] = []
        self.read_at = time.monotonic()

    def train(self, checkpoint: Checkpoint | None, start: Transfer | None) -> nn.Module:
        if checkpoint is not None:
            self._restore(checkpoint)
        elif start is not None:
            self.model.load_state_dict(start.tensors, strict=False)
            say(start)
        config, progress = self.config, self.progress
        _require_space(self.run, CHECKPOINTS * self._checkpoint_bytes())
        num, total = len(self.image_N), config.epochs * len(self.image_N)
        with (
            _Log(self.run / "log.jsonl", progress.log_bytes) as self.log,
            scalar_writer(self.run / "tensorboard", progress.step) as self.scalars,
            Bar("train", total, done=progress.epoch * num + progress.position, quiet=self.quiet) as bar,
        ):
            if progress.step == 0:
                if start is not None and (other := other_input(start.initial, config)):
                    self._note(f"the initial weights were trained on another input ({', '.join(other)})")
                self._check_signal()
            self.started = time.monotonic() - progress.seconds
            while progress.epoch < config.epochs and not self._reached_goal():
                self._train_epoch(bar)
                self._finish_epoch()
        self.model.eval()
        return self.model

    def _reached_goal(self) -> bool:
        goal, history = self.config.until_train_error, self.progress.history
        return goal is not None and any(row["train_top1_error"] <= goal for row in history)

    def _train_epoch(self, bar: Bar) -> None:
        config, progress = self.config, self.progress
        order_N = self.image_N[epoch_order(len(self.image_N), config.seed, progress.epoch)]
        source = batches(
            self.split,
            order_N,
            config.batch_size,
            start=progress.position,
            workers=self.workers,
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
                    f"epoch {progress.epoch + 1}/{config.epochs} step {progress.step} loss {row['loss']:.3f} "
                    f"error {progress.top1_errors / progress.position:.1%} lr {row['lr']:.2g} "
                    f"data {row['data_seconds']:.2f} s",
                )
            self._stop_if_requested()
            if progress.step % config.checkpoint_steps == 0 and progress.position < len(order_N):
                self._save(best=False)
            asked = time.monotonic()

    def _step(self, batch: Batch, data_seconds: float) -> None:
        config, progress = self.config, self.progress
        now = self._rates(progress.position)
        set_rates(self.optimizer, now)
        x_BCHW, label_B = self._input(batch, now.color_noise)
        draw = rng.DropoutDraw(config.seed, progress.epoch, batch.image_B)
        with autocast(self.device, config.precision):
            logits_BK = self.model(x_BCHW, draw)
        logits_BK = logits_BK if config.precision == "float64" else logits_BK.float()
        loss = F.cross_entropy(logits_BK, label_B, label_smoothing=config.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self.device.type not in STEPS_UNREAD:  # where it costs no waiting, before the weights change
            self._require_finite(progress.step + 1, loss.item(), now.weight, x_BCHW)
        self.optimizer.step()
        progress.step += 1
        progress.position += len(batch.image_B)
        row = {"event": "step", "step": progress.step, "epoch": progress.epoch + 1}
        row |= {"lr": now.weight, "data_seconds": data_seconds}
        errors = (logits_BK.detach().argmax(dim=1) != label_B).sum()
        self.unread.append(_UnreadStep(row, loss.detach(), errors, len(batch.image_B)))

    def _read_losses(self) -> dict[str, Any]:
        """Fetch the losses of the steps since the last time from the device, check and record them. The last row."""
        progress, steps, row = self.progress, self.unread, {}
        self.unread = []
        losses = torch.stack([step.loss for step in steps]).tolist() if steps else []
        errors = torch.stack([step.errors for step in steps]).tolist() if steps else []
        now = time.monotonic()
        rate = sum(step.images for step in steps) / (now - self.read_at)
        self.read_at = now
        for step, loss, wrong in zip(steps, losses, errors, strict=True):
            self._require_finite(step.row["step"], loss, step.row["lr"])
            progress.loss_sum += loss * step.images
            progress.top1_errors += wrong
            row = step.row | {"loss": loss, "top1_error": wrong / step.images, "images_per_second": rate}
            self.log.write(row)
            self.scalars(row["step"], {"train/loss": loss, "lr": row["lr"]})
        return row

    def _rates(self, position: int) -> Rates:
        """The rates of the step that starts at ``position`` in the current epoch."""
        config, progress = self.config, self.progress
        return rates(
            config.schedule,
            config.optimizer,
            epoch=progress.epoch + position / (math.ceil(len(self.image_N) / config.batch_size) * config.batch_size),
            epochs=config.epochs,
            val_errors=[row["val_top1_error"] for row in progress.history],
        )

    def _input(self, batch: Batch, noise_factor: float) -> tuple[Tensor, Tensor]:
        config = self.config
        draws = transforms.draw(
            config.augmentation,
            config.preprocessing,
            seed=config.seed,
            epoch=self.progress.epoch,
            image_B=batch.image_B,
            position_B=batch.position_B,
        )
        pixels_BSSC = batch.pixels_BSSC.to(self.device, non_blocking=True)
        x_BCHW = transforms.augment(
            pixels_BSSC, draws, config.augmentation, config.preprocessing, self.mean_SSC, self.data.color, noise_factor
        )
        return x_BCHW.to(next(self.model.parameters()).dtype), batch.label_B.to(self.device, non_blocking=True)

    def _finish_epoch(self) -> None:
        """Validate, record, save."""
        config, progress = self.config, self.progress
        self._read_losses()
        result = evaluate_split(
            self.model,
            self.val,
            config.preprocessing,
            self.data.mean,
            classes=self.data.classes,
            views=CENTER,
            batch_size=config.batch_size,
            device=self.device,
            precision=config.precision,
            progress=lambda _done, _total: self._stop_if_requested(),
        )
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
            "lr": self._rates(num - 1).weight,
            "dead_filters": dead_filters(self.model, self._probe_input()),
        }
        progress.history.append(row)
        progress.epoch, progress.position = progress.epoch + 1, 0
        progress.seconds = time.monotonic() - self.started
        self.log.write(row | {"seconds": progress.seconds})
        say(
            f"epoch {progress.epoch}/{config.epochs}: training loss {row['train_loss']:.3f} error "
            f"{row['train_top1_error']:.1%}, validation loss {row['val_loss']:.3f} error {row['val_top1_error']:.1%} "
            f"({result.top1_errors} of {result.n}), {progress.seconds:.0f} s"
        )
        curves = {
            "train_loss": progress.loss_sum / num,
            "val_loss": result.loss_nats,
            "val_top1_error": result.top1_error,
        }
        self.scalars(progress.step, {f"epoch/{name}": value for name, value in curves.items()})
        progress.loss_sum, progress.top1_errors = 0.0, 0
        if warning := stuck_warning([r["train_loss"] for r in progress.history], len(self.data.classes)):
            self._note(warning)
        best = result.top1_error < progress.best
        progress.best = min(progress.best, result.top1_error)
        self._save(best=best)
        _write_summary(self.run / "summary.csv", progress.history)

    def _save(self, *, best: bool) -> None:
        self._read_losses()
        progress = self.progress
        progress.log_bytes = self.log.sync()
        progress.seconds = time.monotonic() - self.started
        index = {id(p): name for name, p in self.model.named_parameters()}
        velocities = {
            f"{index[id(p)]}/{key}": torch.as_tensor(value)
            for p, state in self.optimizer.state.items()
            for key, value in state.items()
            if value is not None
        }
        state = asdict(progress) | {"best": progress.best if math.isfinite(progress.best) else None}
        state |= {"reproducible_with": self._conditions()}
        tensors = {"model": self.model.state_dict(), "optimizer": velocities}
        save_checkpoint(self.run / "checkpoint", progress.step, tensors, state, best=best)

    def _restore(self, checkpoint: Checkpoint) -> None:
        state = dict(checkpoint.state)
        before, here = state.pop("reproducible_with"), self._conditions()
        if changed := differences(before, here):
            what = ", ".join(f"{c} {before.get(c)} -> {here.get(c)}" for c in changed)
            say(f"note: not bit for bit the uninterrupted run, for {what} changed since the checkpoint")
        self.progress = Progress(**(state | {"best": math.inf if state["best"] is None else state["best"]}))
        self.model.load_state_dict(checkpoint.tensors["model"])
        by_name = dict(self.model.named_parameters())
        for key, value in checkpoint.tensors.get("optimizer", {}).items():
            name, _, slot = key.rpartition("/")
            parameter = by_name[name]
            velocity = value.dim() > 0  # AdamW's count of steps is a number
            kept = torch.empty_like(parameter).copy_(value) if velocity else value.to(parameter.device)
            self.optimizer.state[parameter][slot] = kept
        say(f"resumed at step {self.progress.step} (epoch {self.progress.epoch + 1}, image {self.progress.position})")

    def _checkpoint_bytes(self) -> int:
        """Of one checkpoint: weights, and one velocity (AdamW: two moments) for each."""
        moments = 2 if self.config.optimizer.kind == "adamw" else 1
        return sum(p.numel() * p.element_size() for p in self.model.parameters()) * (1 + moments)

    def _conditions(self) -> dict[str, Any]:
        """What bit-for-bit equality of two runs depends on."""
        return {
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "device": self.device.type,
            "numpy": np.__version__,
            "normalization kernels": self.kernels,
        }

    def _probe_input(self) -> Tensor:
        """The centers of the first training images, as network input."""
        image_B = self.image_N[: min(PROBE_IMAGES, len(self.image_N))]
        pixels_BSSC = torch.as_tensor(self.split.read(image_B)).to(self.device)
        none = replace(self.config.augmentation, crop="center", mirror=False, color_noise=0.0)
        preprocessing = self.config.preprocessing
        draws = transforms.draw(none, preprocessing, seed=0, epoch=0, image_B=image_B, position_B=image_B)
        x_BCHW = transforms.augment(pixels_BSSC, draws, none, preprocessing, self.mean_SSC, None)
        return x_BCHW.to(next(self.model.parameters()).dtype)

    def _check_signal(self) -> None:
        x_BCHW = self._probe_input()
        signals = signal_check(self.model, x_BCHW)
        write_json(self.run / "signal.json", {"layers": [asdict(s) for s in signals], "input_std": float(x_BCHW.std())})
        if warning := signal_warning(signals, float(x_BCHW.std())):
            self._note(warning)

    def _note(self, message: str) -> None:
        say(f"warning: {message}")
        self.log.write({"event": "note", "step": self.progress.step, "message": message})

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
        raise AlexNetError(
            f"step {step}: the loss is {loss} at learning rate {lr:g} (first non-finite: {found}); "
            f"nothing of this step was saved; lower optimizer.lr and go on from the last checkpoint with --resume"
        )

    def _stop_if_requested(self) -> None:
        if self.stop.requested:
            self._save(best=False)
            raise StoppedError(
                f"stopped at step {self.progress.step}, checkpoint saved; the same command with --resume goes on"
            )


def training_images(num: int, config: TrainConfig) -> NDArray[np.int64]:
    """The numbers of the training images: all, or the first ``train_images`` of a fixed random order."""
    if config.train_images is None or config.train_images >= num:
        return np.arange(num, dtype=np.int64)
    return np.sort(rng.permutation(config.seed, "subset", 0, num)[: config.train_images])


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


def require_same_run(config: TrainConfig, data: PackedSet, run: Path, initial: Initial | None = None) -> None:
    """Raise :class:`UsageError`, naming the fields, if ``run`` was made with other settings, other data, or (where
    ``initial`` is given) other initial weights."""
    stored = read_json(run / "config.json")
    changed = [d for d in differences(stored.get("train"), to_json(config)) if d not in NOT_COMPUTED]
    if stored.get("data", {}).get("fingerprint") != data.fingerprint:
        changed.append("the content of the data")
    if initial is not None and stored.get("initial", {}).get("fingerprint") != initial.fingerprint:
        changed.append("the initial weights")
    if changed:
        raise UsageError(
            f"{printable(run)} was made with other settings ({', '.join(changed[:4])}); resume with the same, or take "
            "another --out"
        )


def _open_run(
    config: TrainConfig, data: PackedSet, run: Path, start: Transfer | None, *, resume: bool
) -> Checkpoint | None:
    """Create the files of a new run, or check that an old one is the same and load its checkpoint."""
    checkpoint: Checkpoint | None = None
    faults: list[str] = []
    if not (run / "config.json").exists():
        settings = to_json(config)
        origin = {"path": str(data.path), "fingerprint": data.fingerprint}
        document = {"train": settings, "data": origin, "fingerprint": fingerprint(settings)}
        write_json(run / "config.json", document | ({} if start is None else {"initial": start.record()}))
    elif resume:
        require_same_run(config, data, run, None if start is None else start.initial)
        checkpoint, faults = load_checkpoint(run / "checkpoint")
        source = read_json(run / "config.json").get("initial", {}).get("source")
        if checkpoint is None and start is None and source is not None:
            raise UsageError(
                f"{printable(run)} has no checkpoint yet and starts from the weights of {printable(source)}; name them "
                "again with --init-from"
            )
    else:
        raise UsageError(
            f"{printable(run)} holds a run; add --resume to go on, --fresh to start over, or take another --out"
        )
    for fault in faults:
        say(f"warning: {fault}")
    if faults and checkpoint is not None:
        say(f"warning: going on from step {checkpoint.step}; the steps after it are computed again")
    if resume and checkpoint is None:
        say("no checkpoint yet: starting at step 0")
    write_json(run / "environment.json", environment() | {"command": sys.argv})
    return checkpoint


class _Log:
    """log.jsonl, cut back to where the checkpoint was made: rows are neither lost nor doubled."""

    def __init__(self, path: Path, length: int) -> None:
        self.file = open(path, "ab")  # noqa: SIM115, closed by __exit__
        self.file.truncate(length)

    def write(self, row: dict[str, Any]) -> None:
        self.file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
        self.file.flush()

    def sync(self) -> int:
        """Make the rows durable; the length of the file."""
        self.file.flush()
        os.fsync(self.file.fileno())
        return os.fstat(self.file.fileno()).st_size

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def _write_summary(path: Path, history: list[dict[str, Any]]) -> None:
    columns = [name for name in history[0] if name not in ("event", "dead_filters")]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_atomic(path, lambda file: file.write(text.getvalue().encode()))


def _require_space(run: Path, needed: int) -> None:
    """Refuse to begin what cannot be saved."""
    have = sum(p.stat().st_size for p in (run / "checkpoint").rglob("*") if p.is_file())
    free = shutil.disk_usage(run).free
    if free + have < needed:
        raise AlexNetError(
            f"{printable(run)}: checkpoints need {needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free; free some space or "
            "take another --out"
        )


@contextmanager
def _explained_faults(run: Path) -> Iterator[None]:
    """A full or broken disk as one line; what was saved before is sound."""
    try:
        yield
    except OSError as error:
        free = shutil.disk_usage(run).free
        raise AlexNetError(
            f"{printable(run)}: cannot be written ({printable(error.strerror or error)}; {free / 1e6:,.0f} MB are free); "
            "the last checkpoint is intact: mend this, then add --resume"
        ) from error


@contextmanager
def _sole_trainer(run: Path) -> Iterator[None]:
    """A lock that the kernel releases however the process ends."""
    with open(run / ".lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read(32).strip()
            raise AlexNetError(
                f"{printable(run)}: process {owner} is training here; wait, or take another --out"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
