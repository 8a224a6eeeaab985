"""§6, Table 2, and §7: several networks as one, pre-training on other classes, a sixth convolutional layer, pre-training
without labels, and more of everything.

Shape suffixes: M members of an ensemble, N images, K classes, C candidates.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet.claims.experiment import Arm, Comparison, Experiment, Side, lower, vary
from alexnet.claims.laboratory import Laboratory, config_key, counts_of, evaluate_center, plain_result, train_in
from alexnet.claims.results import Result
from alexnet.claims.scales import fan_ins
from alexnet.core import rng
from alexnet.core.config import fingerprint
from alexnet.core.errors import UsageError, printable
from alexnet.data.packed import PackedSet, PackedSplit, Part
from alexnet.evaluation.ensemble import combine
from alexnet.evaluation.error_rate import count, label_ranks
from alexnet.evaluation.probabilities import Probabilities, load_probabilities
from alexnet.models.alexnet import AlexNetConfig, alexnet_2012_six_conv
from alexnet.training.config import TrainConfig
from alexnet.training.initial import load_initial
from alexnet.training.pretrain import pretrain
from alexnet.training.trainer import training_images

SIZES = (2, 5, 7)
"""Networks of an ensemble: Table 2 has five and seven."""
MEMBER_SEEDS = 10_000
"""Step between the seeds of an ensemble's members; the first has the seed of the result, as the plain network does."""
CANDIDATES = 500
"""Coefficients that a search tries, the equal ones among them."""

Numbers = NDArray[np.int64]


# Parts of a packed set ----------------------------------------------------------------------------------------------------


def only_classes(data: PackedSet, label_K: Numbers) -> PackedSet:
    """The images of these classes, numbered anew in this order. The mean image and the colors stay those of all classes."""
    number = {int(label): i for i, label in enumerate(label_K)}
    parts = {}
    for name, split in data.splits.items():
        image_N = np.flatnonzero(np.isin(split.labels, label_K))
        labels = np.array([number[int(label)] for label in split.labels[image_N]], dtype=np.int64)
        parts[name] = Part(split, image_N, labels)
    return _with_parts(data, parts, [data.classes[label] for label in label_K])


def only_images_of(data: PackedSet, config: TrainConfig) -> PackedSet:
    """The training images that a run of this configuration takes, which depend on its seed, as all training images."""
    split = data.split("train")
    image_N = training_images(len(split), config)
    return _with_parts(data, {**data.splits, "train": Part(split, image_N, split.labels[image_N])}, data.classes)


def _with_parts(data: PackedSet, parts: dict[str, Any], classes: list[str]) -> PackedSet:
    numbers = {
        name: hashlib.sha256(part.image_N.tobytes()).hexdigest()
        for name, part in parts.items()
        if isinstance(part, Part)
    }
    meta = data.meta | {"fingerprint": fingerprint([data.fingerprint, classes, numbers])}
    return replace(data, meta=meta, classes=classes, splits=cast(dict[str, PackedSplit], parts))


# Ensembles --------------------------------------------------------------------------------------------------------------


def member_config(config: TrainConfig, member: int) -> TrainConfig:
    return replace(config, seed=config.seed + MEMBER_SEEDS * member)


def ensemble(size: int, *, search: bool = False) -> Callable[[Laboratory, TrainConfig], Result]:
    """The mean of the probabilities of ``size`` networks; with ``search``, with searched coefficients."""

    def result(lab: Laboratory, config: TrainConfig) -> Result:
        train = partial(plain_result, lab, config)
        members = _members(lab, config, lab.open_data(config), size, lab.run_folder(config), train, "member")
        if isinstance(members, dict):
            return members
        return ensemble_result(members, search_seed=config.seed if search else None)

    return result


def _members(
    lab: Laboratory,
    config: TrainConfig,
    data: PackedSet,
    size: int,
    first: Path,
    train_first: Callable[[], Result],
    name: str,
) -> list[Probabilities] | Result:
    """The answers of networks that differ in their seed alone: all learn from the training images of the first, which is a run
    that other arms know too."""
    same = only_images_of(data, config)
    members = []
    for i in range(size):
        member, out = member_config(config, i), _folder(lab, config, f"{name}-{i}")
        train = partial(train_in, lab, member, out, same)
        found = answers_of(lab, member, same, *((first, train_first) if i == 0 else (out, train)))
        if isinstance(found, dict):
            return found
        members.append(found)
        if i > 0:
            _forget_model(out)
    return members


def _forget_model(out: Path) -> None:
    """The answers stay: a model of the whole network takes over 200 MB, and nothing else asks for those of further members."""
    shutil.rmtree(out / "model", ignore_errors=True)


def answers_of(
    lab: Laboratory, config: TrainConfig, data: PackedSet, out: Path, train: Callable[[], Result]
) -> Probabilities | Result:
    """What the network of the run in ``out`` answers for the held-out images, at the center; ``train`` is called first, unless
    they were kept. A training that diverged is returned as the result that it is."""
    if (saved := out / "answers.npz").is_file():
        return load_probabilities(saved)
    result = train()
    if "diverged" in result:
        return result
    evaluation = evaluate_center(lab, config, data, out, data.split(data.held_out), keep_probabilities=True)
    assert evaluation.probabilities is not None
    evaluation.probabilities.save(saved)
    return evaluation.probabilities


def ensemble_result(members: Sequence[Probabilities], search_seed: int | None = None) -> Result:
    """Errors of the ensemble, and of each member alone. With searched coefficients each half of the images is answered with
    those that were the best for the other half, so that all images count and none was seen by its own search."""
    result: Result = {"members": [counts_of(count(member)) for member in members]}
    if search_seed is None:
        evaluation = count(combine(members))
    else:
        halves = halves_of(len(members[0].label_N), search_seed, "claims/search")
        coefficients = [
            search_coefficients([_some(member, half) for member in members], search_seed) for half in halves
        ]
        answers = [
            combine([_some(member, half) for member in members], weights)
            for half, weights in zip(halves, reversed(coefficients), strict=True)
        ]
        evaluation = count(
            replace(
                members[0],
                log_probability_NK=np.concatenate([answer.log_probability_NK for answer in answers]),
                label_N=np.concatenate([answer.label_N for answer in answers]),
                paths=tuple(path for answer in answers for path in answer.paths),
            )
        )
        result["coefficients"] = coefficients
    return {"n": evaluation.n, "views": {"1": counts_of(evaluation)}, "protocol": evaluation.protocol, **result}


def search_coefficients(members: Sequence[Probabilities], seed: int) -> list[float]:
    """The coefficients with the fewest top-5 errors on these images, which is what the 2012 program's script minimized, then
    top-1 errors, then the least loss: of :data:`CANDIDATES` drawn uniformly from all that sum to 1, the equal ones first."""
    p_MNK = torch.from_numpy(np.exp([member.log_probability_NK.astype(np.float64) for member in members]))
    label_N = torch.from_numpy(members[0].label_N)
    drawn_CM = -np.log1p(-rng.uniform(seed, "claims/coefficients", 0, np.arange(CANDIDATES - 1), len(members)))
    weight_CM = np.concatenate([np.ones((1, len(members))), drawn_CM])
    weight_CM /= weight_CM.sum(axis=1, keepdims=True)
    best: tuple[tuple[int, int, float], list[float]] | None = None
    for weight_M in weight_CM:
        p_NK = torch.einsum("m,mnk->nk", torch.from_numpy(weight_M), p_MNK)
        rank_N = label_ranks(p_NK, label_N)
        loss = round(-float(p_NK.gather(1, label_N[:, None]).clamp(min=1e-300).log().mean()), 9)
        score = (int((rank_N >= 5).sum()), int((rank_N >= 1).sum()), loss)
        if best is None or score < best[0]:
            best = score, weight_M.tolist()
    assert best is not None
    return best[1]


def halves_of(num: int, seed: int, stream: str) -> tuple[Numbers, Numbers]:
    """The numbers below ``num`` in two halves, drawn, each in order; the first is the smaller if they cannot be equal."""
    order_N = rng.permutation(seed, stream, 0, num)
    return np.sort(order_N[: num // 2]), np.sort(order_N[num // 2 :])


def _some(answers: Probabilities, image_N: Numbers) -> Probabilities:
    return replace(
        answers,
        log_probability_NK=answers.log_probability_NK[image_N],
        label_N=answers.label_N[image_N],
        paths=tuple(answers.paths[i] for i in image_N),
    )


# Pre-training -----------------------------------------------------------------------------------------------------------


def class_halves(data: PackedSet, seed: int) -> tuple[PackedSet, PackedSet]:
    """Half of the classes, drawn, to pre-train on, and the other half, which is the task. :class:`UsageError` for fewer than
    four classes."""
    if len(data.classes) < 4:
        raise UsageError(
            f"{printable(data.path)} has {len(data.classes)} classes; pre-training on half of them and learning the others "
            "takes four or more"
        )
    before, after = halves_of(len(data.classes), seed, "claims/classes")
    return only_classes(data, before), only_classes(data, after)


def from_scratch(lab: Laboratory, config: TrainConfig) -> Result:
    """Half of the classes, learned from random weights."""
    _, data = class_halves(lab.open_data(config), config.seed)
    return train_in(lab, config, _folder(lab, config, "half"), data) | {"classes": list(data.classes)}


def fine_tuned(lab: Laboratory, config: TrainConfig) -> Result:
    """The same classes, learned from the weights of a network that was trained on the others: all its layers but the last,
    which is new."""
    before, data = class_halves(lab.open_data(config), config.seed)
    return _fine_tuned(lab, config, before, data, _folder(lab, config, "half-fine-tuned"))


def _fine_tuned(lab: Laboratory, config: TrainConfig, before: PackedSet, data: PackedSet, out: Path) -> Result:
    """Factors of single layers on the rate are those of the fine-tuning alone, so arms that differ in them share the run
    before."""
    first = replace(config, optimizer=replace(config.optimizer, layer_lr=()))
    source = _folder(lab, first, f"other-half-{before.fingerprint[:8]}")
    made = train_in(lab, first, source, before)
    if "diverged" in made:
        return made
    result = train_in(lab, config, out, data, lambda: load_initial(source))
    return result | {"classes": list(data.classes), "before": {"classes": list(before.classes), "views": made["views"]}}


def with_pretrained(scratch: int, pretrained: int) -> Callable[[Laboratory, TrainConfig], Result]:
    """An ensemble for half of the classes: networks from scratch, and six-layer ones pre-trained on the other half."""

    def result(lab: Laboratory, config: TrainConfig) -> Result:
        before, data = class_halves(lab.open_data(config), config.seed)
        train_first = partial(from_scratch, lab, config)
        members = _members(lab, config, data, scratch, _folder(lab, config, "half"), train_first, "half")
        if isinstance(members, dict):
            return members
        six = vary(config, six_conv_changes(config))
        for i in range(pretrained):
            member, out = member_config(six, i), _folder(lab, six, f"half-fine-tuned-{i}")
            train = partial(_fine_tuned, lab, member, only_images_of(before, config), only_images_of(data, config), out)
            if i == 0:
                out, train = _folder(lab, six, "half-fine-tuned"), partial(fine_tuned, lab, six)
            found = answers_of(lab, member, data, out, train)
            if isinstance(found, dict):
                return found
            members.append(found)
            if i > 0:
                _forget_model(out)
        return ensemble_result(members) | {"classes": list(data.classes)}

    return result


def autoencoder_first(lab: Laboratory, config: TrainConfig) -> Result:
    """The plain training, from convolutional layers that an autoencoder learned from the same images without their labels, in
    a third as many passes."""
    data = lab.open_data(config)
    machine, epochs = lab.machine, math.ceil(config.epochs / 3)
    return train_in(
        lab,
        config,
        _folder(lab, config, "autoencoder-first"),
        data,
        lambda: pretrain(
            config, data, epochs=epochs, device=machine.device, workers=machine.workers, quiet=machine.quiet
        ),
    ) | {"pretraining_epochs": epochs}


def _folder(lab: Laboratory, config: TrainConfig, what: str) -> Path:
    """The folder of a run that is not the plain one of its configuration."""
    return lab.folder / "runs" / f"{config_key(config)}-{what}"


# Six layers, and more of everything ---------------------------------------------------------------------------------------


def six_conv_changes(base: TrainConfig) -> dict[str, Any]:
    """The shape of ``alexnet_2012_six_conv``: over the last pooling a layer as wide as conv5 that reads both towers. Its
    initial weights stand to those of conv5 as there, larger by the root where fewer inputs make a sum."""
    model, program = base.model, alexnet_2012_six_conv()
    assert isinstance(model, AlexNetConfig)
    fields: dict[str, Any] = {
        "conv_channels": (*model.conv_channels, model.conv_channels[-1]),
        "joined": (*model.joined[:1], "conv6", *model.joined[1:]),
        **{
            name: (*getattr(model, name), getattr(program, name)[5])
            for name in ("conv_kernels", "conv_strides", "conv_padding", "stages")
        },
        "biases": (*model.biases[:5], program.biases[5], *model.biases[5:]),
        "weight_std": (*model.weight_std[:5], program.weight_std[5], *model.weight_std[5:]),
    }
    ours, theirs = (fan_ins(config)[4:6] for config in (replace(model, **fields), program))
    std = model.weight_std[4] * math.sqrt(ours[0] / ours[1] * theirs[1] / theirs[0])
    fields["weight_std"] = (*model.weight_std[:5], round(std, 5), *model.weight_std[5:])
    return {"network": "alexnet_2012_six_conv"} | {f"model.{name}": value for name, value in fields.items()}


def _more(base: TrainConfig) -> Sequence[Arm]:
    """Half as many passes again, as the 2012 program once went on (135 of 90), and half as many kernels and units again."""
    assert isinstance(base.model, AlexNetConfig)
    wider = {
        name: tuple(3 * width // 4 * 2 for width in getattr(base.model, name)) for name in ("conv_channels", "fc_units")
    }
    return (
        Arm(name="base"),
        Arm(name="longer", changes={"epochs": math.ceil(1.5 * base.epochs)}),
        Arm(name="wider", changes={f"model.{name}": widths for name, widths in wider.items()}),
    )


# The experiments --------------------------------------------------------------------------------------------------------


def _ensembles(_base: TrainConfig) -> Sequence[Arm]:
    return (
        *(Arm(name=f"ensemble-{size}", result=ensemble(size), same_training=True) for size in SIZES),
        *(Arm(name=f"searched-{size}", result=ensemble(size, search=True), same_training=True) for size in SIZES[1:]),
    )


def _transfers(base: TrainConfig) -> Sequence[Arm]:
    convs = [f"conv{i}" for i in range(1, 6)]
    rates = {name: tuple((conv, factor) for conv in convs) for name, factor in (("slow", 0.1), ("frozen", 0.0))}
    return (
        Arm(name="half", result=from_scratch),
        Arm(name="half-fine-tuned", result=fine_tuned),
        *(
            Arm(name=f"half-fine-tuned-{name}", changes={"optimizer.layer_lr": factors}, result=fine_tuned)
            for name, factors in rates.items()
        ),
        Arm(name="half-six-conv-fine-tuned", changes=six_conv_changes(base), result=fine_tuned),
    )


def _against_members(size: int, printed: tuple[float | None, float | None] = (None, None)) -> tuple[Comparison, ...]:
    arm = f"ensemble-{size}"
    return tuple(
        Comparison(
            claim="C29",
            says=f"the {name}error of the mean of {size} networks is lower than theirs alone",
            lower=Side(arm, f"center_error{suffix}"),
            higher=Side(arm, f"members_error{suffix}"),
            printed=effect,
        )
        for name, suffix, effect in (("", "", printed[0]), ("top-5 ", "_top5", printed[1]))
    )


EXPERIMENTS = (
    Experiment(
        id="ensembles",
        title="Ensembles of 2, 5 and 7 networks, with equal and with searched coefficients",
        arms=_ensembles,
        comparisons=(
            *_against_members(2),
            *_against_members(5, (2.6, 1.8)),
            *_against_members(7),
            *(
                lower(
                    measure,
                    "N27",
                    f"the {name}error of {size} networks is lower with searched coefficients than with equal ones",
                    arm=f"searched-{size}",
                    than=f"ensemble-{size}",
                )
                for size in SIZES[1:]
                for name, measure in (("top-5 ", "center_error_top5"), ("", "center_error"))
            ),
        ),
    ),
    Experiment(
        id="pretrained-ensemble",
        title="Two networks pre-trained on other classes beside five from scratch",
        arms=lambda base: (
            Arm(name="half-ensemble-5", result=with_pretrained(5, 0)),
            Arm(name="half-ensemble-5-and-2", result=with_pretrained(5, 2)),
        ),
        comparisons=tuple(
            lower(
                measure,
                "C31",
                f"the {name}error of five networks and two pre-trained ones is lower than of the five",
                arm="half-ensemble-5-and-2",
                than="half-ensemble-5",
                printed=printed,
            )
            for name, measure, printed in (("", "center_error", 1.4), ("top-5 ", "center_error_top5", 1.0))
        ),
    ),
    Experiment(
        id="fine-tuning",
        title="Half of the classes, from scratch and after pre-training on the other half",
        arms=_transfers,
        comparisons=(
            *(
                lower(
                    "center_error", "N26", f"the error is lower fine-tuned{how} than from scratch", arm=arm, than="half"
                )
                for arm, how in (
                    ("half-fine-tuned", ""),
                    ("half-fine-tuned-slow", " with convolutions at a tenth of the rate"),
                    ("half-fine-tuned-frozen", " with frozen convolutions"),
                )
            ),
            lower(
                "center_error",
                "C30",
                "the error of a pre-trained network with six convolutional layers is lower than of one with five from scratch",
                arm="half-six-conv-fine-tuned",
                than="half",
                printed=1.7,
            ),
            lower(
                "center_error_top5",
                "C30",
                "the top-5 error likewise",
                arm="half-six-conv-fine-tuned",
                than="half",
                printed=1.6,
            ),
        ),
    ),
    Experiment(
        id="six-conv",
        title="A sixth convolutional layer, without pre-training",
        arms=lambda base: (Arm(name="base"), Arm(name="six-conv", changes=six_conv_changes(base))),
        comparisons=(
            lower(
                "center_error",
                "C30",
                "the error is lower with a sixth convolutional layer",
                arm="six-conv",
                than="base",
            ),
        ),
    ),
    Experiment(
        id="autoencoder-first",
        title="After an autoencoder without labels, and from random weights",
        arms=lambda base: (Arm(name="base"), Arm(name="autoencoder-first", result=autoencoder_first)),
        comparisons=(
            lower(
                "center_error",
                "C38",
                "the error is lower after pre-training without labels, which the paper did without but expected to help",
                arm="autoencoder-first",
                than="base",
            ),
        ),
    ),
    Experiment(
        id="more",
        title="Half as many passes again, and half as many kernels and units again",
        arms=_more,
        comparisons=(
            lower(
                "center_error", "C38", "the error is lower after half as many passes again", arm="longer", than="base"
            ),
            lower(
                "center_error",
                "C38",
                "the error is lower with half as many kernels and units again",
                arm="wider",
                than="base",
            ),
        ),
    ),
)
