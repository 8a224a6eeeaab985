"""What is measured: a model, and the images that it is asked about. And the first measurement of all, its exact errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet.core.console import Bar, say
from alexnet.core.device import Machine, Precision, choose_device, emulates, lacking
from alexnet.core.errors import UsageError, printable
from alexnet.data.packed import ALL, AllSplits, PackedSet, PackedSplit, is_packed, open_packed, training_subset
from alexnet.data.prepare import resolve
from alexnet.evaluation.classes import by_name
from alexnet.evaluation.ensemble import combine, searched_weights
from alexnet.evaluation.error_rate import Evaluation, MemberErrors, WeightSearch, count, evaluate_split
from alexnet.evaluation.onnx_network import OnnxNetwork
from alexnet.evaluation.predict import Predictor, load, model_fingerprint
from alexnet.evaluation.probabilities import Probabilities, load_probabilities
from alexnet.evaluation.views import Views, parse_views
from alexnet.models.states import read_settings, run_of, state_of


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which data a measurement learns from and is counted on, and how precisely it is computed."""

    data: str | None = None
    """Packed directory, folder, archive, Parquet files, CSV or named set with the split train and another; by default that of
    the run."""
    precision: Precision = "float32"
    """Number format to compute in."""


@dataclass(frozen=True, kw_only=True)
class ImagesSettings(DataSettings):
    """Which images a measurement asks about, without learning from any."""

    data: str | None = None
    """Packed directory, folder, archive, Parquet files, CSV or named set; by default that of the run."""
    split: str | None = None
    """all, train, val or test; by default the images that the run held out or, of other data, its val or test images, or all
    where it names no splits."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model and the data that it is asked about. Each is opened when it is first used, and kept."""

    model: str | Path
    """Run directory, checkpoint of a run, or model folder."""
    machine: Machine
    data: str | None = None
    """A packed directory, anything that can be prepared, or a named set; by default what the run was trained with."""
    split: str | None = None
    """``train``, ``val``, ``test`` or ``all``. By default: of the data of the run, known by its content, the images that the run
    held out; of other data the split ``val`` or ``test`` if it names its splits, or else all its images."""
    training: bool = False
    """Whether something is learned from the data, of which a part is then held out."""
    precision: Precision | None = None
    """By default that of the run, or float32: for a model folder, and where the device has no instructions for it."""
    best: bool = False
    """Of a run the checkpoint with the lowest validation error, not the last state."""
    data_root: str | Path | None = None

    @cached_property
    def settings(self) -> dict[str, Any] | None:
        """The settings in config.json of the run that the model belongs to; None for a model folder."""
        return None if (run := run_of(self.model)) is None else read_settings(run)

    @property
    def trained(self) -> dict[str, Any]:
        """The settings of the training of that run; nothing of a model folder."""
        return {} if self.settings is None else self.settings.get("train", {})

    @cached_property
    def predictor(self) -> Predictor:
        return load(self.model, self.machine.device, self.precision or self._own_precision(), best=self.best)

    def _own_precision(self) -> Precision:
        """That of the run; float32 of a model folder, and where the device has no instructions for it, which is said."""
        precision: Precision = self.trained.get("precision", "float32")
        device = self.machine.device
        if not emulates(device, precision):
            return precision
        say(
            f"note: {printable(self.model)} was trained in {precision}; {lacking(device)} it, so this is computed in float32, "
            f"which is many times faster here (--precision {precision} computes as the run did)"
        )
        return "float32"

    @cached_property
    def packed(self) -> PackedSet:
        """The data at the size that the network takes, prepared into the cache first if need be. A model folder does not know
        its data: :class:`UsageError`."""
        if self.data is None and self.settings is None:
            what = "an ONNX file" if isinstance(self.predictor.model, OnnxNetwork) else "a model folder"
            raise UsageError(f"{printable(self.model)}: {what} does not say what it was trained on; add --data")
        preprocessing = self.predictor.preprocessing
        size = preprocessing.resize if self.settings is None else self.settings["train"].get("size")
        return _opened(self, size, preprocessing.sample_max)

    @cached_property
    def images(self) -> PackedSplit | AllSplits:
        """The images that the model is asked about. Raises :class:`UsageError` for a split that there is not."""
        chosen = self.split or (self.packed.held_out if self.is_own_data else self.packed.not_for_training)
        if chosen != ALL and chosen not in self.packed.splits:
            raise UsageError(
                f"{printable(self.packed.source)}: no split {printable(chosen)!r}; there is "
                f"{', '.join(self.packed.splits)}. `--split all` takes every image"
            )
        return self.packed.images(chosen)

    def asked_about(self, split: str) -> Subject:
        """The same model, asked about another split of the same data; neither is opened again."""
        other = replace(self, split=split)
        vars(other).update(predictor=self.predictor, packed=self.packed)
        return other

    @property
    def is_own_data(self) -> bool:
        """Whether the data is what the run was trained with, whatever it is called."""
        return self.settings is not None and self.packed.fingerprint == self.settings["data"].get("fingerprint")

    def provenance(self, split: str | None = None) -> dict[str, Any]:
        """Where the images come from, by default :attr:`images`, and of which checkpoint the model is, for the protocol of a
        result."""
        state = self.predictor.state
        checkpoint: dict[str, Any] = {} if state is None else {"state": state.record()}
        if isinstance(self.predictor.model, OnnxNetwork):
            checkpoint = {"runtime": self.predictor.model.runtime}
        return provenance(self.packed.source, self.packed, split or self.images.name) | checkpoint

    def record(self, split: str | None) -> dict[str, Any]:
        """The model and the data, for a document; None for a measurement that needs no data."""
        data = None if split is None else self.provenance(split)
        return {"network": self.predictor.name, "model": model_fingerprint(self.predictor), "data": data}

    def progress(self, what: str, n: int, unit: str = "images") -> Bar:
        """A bar over ``n`` steps of work, to be used by ``with``; quiet where the machine is."""
        return Bar(what, n, unit, quiet=self.machine.quiet)


def subject_of(
    model: str | Path,
    machine: Machine,
    settings: Any,
    *,
    best: bool = False,
    data_root: str | Path | None = None,
) -> Subject:
    """The subject that a measurement with these settings needs. A measurement that asks about no data has neither of
    :class:`DataSettings` and :class:`ImagesSettings`."""
    return Subject(
        model=model,
        machine=machine,
        data=getattr(settings, "data", None),
        split=settings.split if isinstance(settings, ImagesSettings) else None,
        training=not isinstance(settings, ImagesSettings),
        precision=getattr(settings, "precision", "float32"),
        best=best,
        data_root=data_root,
    )


def folder_for(subject: Subject, name: str, out: str | Path | None = None) -> Path | None:
    """Where to write what is found: ``out``, or the folder called ``name`` of a run; for a checkpoint a folder of its own in
    that, since the report shows the finished network. None for what is no run."""
    if out is not None:
        return Path(out)
    if (run := run_of(subject.model)) is None:
        return None
    state = state_of(subject.model, best=subject.best)
    return run / name if state is None else run / name / state.path.name


def provenance(name: str, packed: PackedSet, split: str) -> dict[str, Any]:
    """Where the images of a result come from, for its protocol."""
    stored = {"stored": packed.meta["protocol"], "fingerprint": packed.fingerprint}
    return {"data": Path(name).name or name, "split": split, **stored}


@contextmanager
def preparation(data: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar that appears when the first image is prepared: data in the cache needs none."""
    with ExitStack() as stack:
        bars: list[Bar] = []

        def progress(done: int, total: int) -> None:
            if not bars:
                bars.append(stack.enter_context(Bar(f"prepare {printable(data)}", total, quiet=quiet)))
            bars[0].update(done)

        yield progress


def _opened(subject: Subject, size: int | None, white: int | None) -> PackedSet:
    """The data of a subject. ``white``: what the model learned is white in files of more than 8 bits."""
    trained, data = subject.settings, subject.data
    where, called = data, data
    if where is None:
        assert trained is not None
        where, called = trained["data"]["path"], trained["train"].get("data")
        if not is_packed(Path(where)) and called is not None:  # the cache was emptied
            where = called
    if is_packed(Path(where)):
        size = None  # packed as it is; images of another size than the network's are resized on the way
    name = str(called or where)
    with preparation(name, subject.machine.quiet) as progress:
        packed = resolve(
            where,
            data_root=subject.data_root,
            size=size,
            sample_max=white,
            training=subject.training,
            progress=progress,
        )
    packed.require_sample_max(white, printable(name))
    if (
        data is None
        and trained is not None
        and packed.fingerprint != trained["data"].get("fingerprint", packed.fingerprint)
    ):
        raise UsageError(
            f"{printable(where)} is no longer what the run was trained with; name it with --data to use it as it is now"
        )
    return replace(packed, source=name)


def evaluate(
    models: Sequence[str | Path],
    data: str | None = None,
    machine: Machine | None = None,
    *,
    split: str | None = None,
    views: str = "1",
    views_seed: int = 0,
    weights: Sequence[float] | None = None,
    search_weights: str | None = None,
    precision: Precision | None = None,
    batch_size: int | None = None,
    best: bool = False,
    data_root: str | Path | None = None,
) -> Evaluation:
    """The exact errors of trained models on every image of a split: of one, or of several as an ensemble of averaged
    probabilities.

    ``models``: run directories, checkpoints of them, model folders, or ``.npz`` files of saved probabilities; with ``best``, of
    every run the checkpoint with the lowest validation error. ``data`` and ``split``: those of a :class:`Subject`.
    ``precision`` and ``batch_size`` are by default those of the run, so that the errors are those that it ended with where the
    device has instructions for its precision, or float32 and 128. Classes are matched by name: one without images has n = 0.
    Raises :class:`UsageError` for images of a class that a model does not know.

    ``search_weights``: a split of the data, on which the weights with the fewest errors are searched first
    (:func:`ensemble.searched_weights`). What they were found on is in the result; the images that are judged are those of
    another split, or :class:`UsageError`.
    """
    if search_weights is not None:
        _require_searchable(models, weights)
    machine, chosen = machine or Machine(device=choose_device()), parse_views(views, views_seed)

    def subject(model: str | Path, split: str | None) -> Subject:
        return Subject(
            model=model,
            machine=machine,
            data=data,
            split=split,
            precision=precision,
            best=best,
            data_root=data_root,
        )

    if split is None and len(models) > 1:  # all members answer for what one that was trained with this data held out
        subjects = (subject(model, None) for model in models)
        split = next((s.packed.held_out for s in subjects if s.settings and s.is_own_data), None)
    asked: Iterable[Subject | None] = (  # made when it is its turn, so that one network is in memory at a time
        None if str(model).endswith(".npz") else subject(model, split) for model in models
    )
    search = None
    if search_weights is not None:  # each network is asked twice, and kept
        asked = list(asked)
        weights, search = _search([of for of in asked if of is not None], search_weights, chosen, batch_size)
    members, looked_at = [], []
    for model, of in zip(models, asked, strict=True):
        if of is None:
            members.append(load_probabilities(Path(model)))
            continue
        members.append(answers(of, chosen, batch_size))
        looked_at.append(of.record(of.images.name))
    if len(members) == 1:
        return replace(count(members[0]), subject=looked_at[0] if looked_at else {})
    shares = weights or [1.0] * len(members)
    both = {key: [one[key] for one in looked_at] for key in ("network", "model")} if looked_at else {}
    evaluation = replace(
        count(combine(members, weights)), subject=both | ({"data": looked_at[0]["data"]} if both else {})
    )
    alone = [
        MemberErrors(str(model), share / sum(shares), own.top1_errors, own.top5_errors, own.protocol.get("precision"))
        for model, share, own in zip(models, shares, map(count, members), strict=True)
    ]
    return replace(evaluation, members=tuple(alone), search=search)


def _require_searchable(models: Sequence[str | Path], weights: Sequence[float] | None) -> None:
    if weights is not None:
        raise UsageError("weights are given or searched, not both: leave out --weights or --search-weights")
    if len(models) < 2:
        raise UsageError(
            "--search-weights needs several models, whose weights in an ensemble it finds; name two or more"
        )
    if saved := [model for model in models if str(model).endswith(".npz")]:
        raise UsageError(
            f"--search-weights asks every model about other images, and {printable(saved[0])} holds answers that were saved; "
            "name the model itself"
        )


def _search(
    subjects: Sequence[Subject], split: str, views: Views, batch_size: int | None
) -> tuple[Sequence[float], WeightSearch]:
    """The weights that are best for a split, which must not be the one that the subjects are asked about."""
    searched = []
    for subject in subjects:
        packed, judged = subject.packed, subject.images
        if split not in packed.splits:
            raise UsageError(
                f"{printable(packed.source)}: no split {printable(split)!r} to search weights on; there is "
                f"{', '.join(packed.splits)}"
            )
        if judged.name in (split, ALL):
            others = [name for name in packed.splits if name not in (split, "train")]
            remedy = f"add --split {others[0]}" if others else "this needs data with the splits val and test"
            raise UsageError(
                f"the weights would be searched on images that they are judged on ({judged.name}); {remedy}"
            )
        searched.append(subject.asked_about(split))
    if same := _in_both(searched[0].images, subjects[0].images.crc32_N):
        say(
            f"note: of the images of {split}, on which the weights are searched, {same:,} {'is' if same == 1 else 'are'} also "
            "among those that are judged"
        )
    found = [answers(subject, views, batch_size) for subject in searched]
    weights = searched_weights(found)
    equal, best = count(combine(found)), count(combine(found, weights))
    errors = (equal.top1_errors, equal.top5_errors, best.top1_errors, best.top5_errors)
    return weights, WeightSearch(split, equal.n, *errors, judged_too=same)


CHOSEN = "this epoch was chosen because it errs least on {images}, so the error here is lower than on new ones"
"""What is said of an error on images that chose the network."""


def answers(subject: Subject, views: Views, batch_size: int | None = None) -> Probabilities:
    """The probabilities of every class for each of the subject's images, ``batch_size`` at once, by default as many as in the
    training; that the model learned from some of them is said. Raises :class:`UsageError` for images of a class that it does
    not know."""
    subject.predictor.require_answers(views)
    predictor, images = subject.predictor, subject.images
    known = by_name(
        images, subject.packed.classes, predictor.classes, where=subject.packed.source, model=str(subject.model)
    )
    known_before = _known_to_the_run(subject)
    if seen := known_before.get("seen_in_training"):
        say(
            f"note: {printable(subject.model)} was trained on {seen:,} of these {len(images):,} images: the error on them is not "
            "that on new ones"
        )
    if num := known_before.get("chose_the_checkpoint"):
        which = f"{'these' if num == len(images) else f'{num:,} of these'} {len(images):,} images"
        say(f"note: {CHOSEN.format(images=which)}")
    with subject.progress(f"evaluate {printable(subject.model)}", len(images)) as bar:
        evaluation = evaluate_split(
            predictor.model,
            known,
            predictor.preprocessing,
            predictor.mean,
            classes=predictor.classes,
            views=views,
            batch_size=subject.trained.get("batch_size", 128) if batch_size is None else batch_size,
            device=subject.machine.device,
            precision=predictor.precision,
            workers=subject.machine.workers,
            data=subject.provenance() | known_before,
            keep_probabilities=True,
            progress=bar,
        )
    assert evaluation.probabilities is not None
    return evaluation.probabilities


def _known_to_the_run(subject: Subject) -> dict[str, int]:
    """How many of the images, known by their pixels, the run has learned from, unless they were asked for by the name ``train``;
    and, of an epoch that was taken for its errors (by ``best`` or by early stopping), how many chose it. Nothing where there are
    none, or it cannot be told."""
    trained, packed, images = subject.settings, subject.packed, subject.images
    if trained is None or not is_packed(Path(trained["data"]["path"])):
        return {}
    own = open_packed(trained["data"]["path"])
    if (own.size, own.channels, own.meta["store"]) != (packed.size, packed.channels, packed.meta["store"]):
        return {}
    found = {}
    if images.name != "train":
        all_N = own.split("train").crc32_N
        num, seed = trained["train"].get("train_images"), trained["train"].get("seed", 0)
        found["seen_in_training"] = _in_both(images, all_N[training_subset(len(all_N), num, seed)])
    stopped_early = subject.predictor.state is None and trained["train"].get("early_stopping") is not None
    if subject.best or Path(subject.model).name == "best" or stopped_early:
        found["chose_the_checkpoint"] = _in_both(images, own.split(own.held_out).crc32_N)
    return {name: count for name, count in found.items() if count}


def _in_both(images: PackedSplit | AllSplits, crc32_N: NDArray[np.uint32]) -> int:
    """How many images have one of these checksums; 0 where they may have it by chance."""
    both = int(np.isin(images.crc32_N, crc32_N).sum())
    by_chance = len(images) * len(crc32_N) / 2**32  # equal 32-bit checksums of different images
    return both if both > 10 * by_chance else 0
