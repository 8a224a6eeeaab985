"""§6, Table 2, and §7: pre-training on other classes and without labels, a sixth convolutional layer, more of everything."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from alexnet.claims.ensembles import answers_of, ensemble_result, forget_model, member_config, members_of
from alexnet.claims.experiment import Arm, Experiment, lower, vary
from alexnet.claims.laboratory import Laboratory, train_in
from alexnet.claims.results import Result
from alexnet.claims.scales import fan_ins
from alexnet.claims.subsets import class_halves, only_images_of
from alexnet.data.packed import PackedSet
from alexnet.models.alexnet import AlexNetConfig, alexnet_2012_six_conv
from alexnet.training.config import TrainConfig
from alexnet.training.initial import load_initial
from alexnet.training.pretrain import pretrain

# Pre-training -----------------------------------------------------------------------------------------------------------


def from_scratch(lab: Laboratory, config: TrainConfig) -> Result:
    """Half of the classes, learned from random weights."""
    _, data = class_halves(lab.open_data(config), config.seed)
    return train_in(lab, config, lab.run_folder(config, "half"), data) | {"classes": list(data.classes)}


def fine_tuned(lab: Laboratory, config: TrainConfig) -> Result:
    """The same classes, learned from the weights of a network that was trained on the others: all its layers but the last,
    which is new."""
    before, data = class_halves(lab.open_data(config), config.seed)
    return _fine_tuned(lab, config, before, data, lab.run_folder(config, "half-fine-tuned"))


def _fine_tuned(lab: Laboratory, config: TrainConfig, before: PackedSet, data: PackedSet, out: Path) -> Result:
    """Factors of single layers on the rate are those of the fine-tuning alone, so arms that differ in them share the run
    before."""
    first = replace(config, optimizer=replace(config.optimizer, layer_lr=()))
    source = lab.run_folder(first, f"other-half-{before.fingerprint[:8]}")
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
        members = members_of(lab, config, data, scratch, lab.run_folder(config, "half"), train_first, "half")
        if isinstance(members, dict):
            return members
        six = vary(config, six_conv_changes(config))
        for i in range(pretrained):
            member, out = member_config(six, i), lab.run_folder(six, f"half-fine-tuned-{i}")
            train = partial(_fine_tuned, lab, member, only_images_of(before, config), only_images_of(data, config), out)
            if i == 0:
                out, train = lab.run_folder(six, "half-fine-tuned"), partial(fine_tuned, lab, six)
            found = answers_of(lab, member, data, out, train)
            if isinstance(found, dict):
                return found
            members.append(found)
            if i > 0:
                forget_model(out)
        return ensemble_result(members) | {"classes": list(data.classes)}

    return result


def autoencoder_first(lab: Laboratory, config: TrainConfig) -> Result:
    """The plain training, from convolutional layers that an autoencoder learned from the same images without their labels, in
    a third as many passes."""
    return after_autoencoder(lab, config, config.train_images, math.ceil(config.epochs / 3))


def after_autoencoder(lab: Laboratory, config: TrainConfig, images: int | None, epochs: int) -> Result:
    """The plain training, from convolutional layers that an autoencoder learned from so many images without labels: those that
    the training has, and more."""
    data, machine = lab.open_data(config), lab.machine
    return train_in(
        lab,
        config,
        lab.run_folder(config, "autoencoder-first"),
        data,
        lambda: pretrain(
            replace(config, train_images=images),
            data,
            epochs=epochs,
            device=machine.device,
            workers=machine.workers,
            quiet=machine.quiet,
        ),
    ) | {"pretraining_epochs": epochs}


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


EXPERIMENTS = (
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
