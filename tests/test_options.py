"""What the command line makes of options: kinds of unions, spellings, values that would be ignored."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.cli.options import choose_kinds, options_of, spelled
from alexnet.cli.train import DECIDED, train
from alexnet.core.config import to_json
from alexnet.core.errors import UsageError
from alexnet.models import model_config
from alexnet.models.cifar import CifarConvConfig
from alexnet.models.lenet import LeNetConfig
from alexnet.recipes import RECIPES, recipe
from alexnet.training.config import TrainConfig
from alexnet.training.schedule import Cosine, Plateau, Staged, Steps

KINDS = {
    "schedule": ["plateau", "staged", "steps", "cosine"],
    "model": ["alexnet", "lenet", "cifar_local", "cifar_conv"],
}
CLASSES = {  # the kind by its class, as tyro calls its subcommands
    "plateau": "plateau",
    "staged": "staged",
    "steps": "steps",
    "cosine": "cosine",
    "alexnet": "alex-net-config",
    "lenet": "le-net-config",
    "cifar_local": "cifar-local-config",
    "cifar_conv": "cifar-conv-config",
}


def spellings(path: str, kind: str) -> list[list[str]]:
    """Every way in which a kind may be written."""
    words = {kind, kind.replace("_", "-"), kind.upper(), CLASSES[kind], f"{kind}-config"}
    return [
        way
        for word in sorted(words)
        for way in (
            [f"--{path}.kind", word],
            [f"--{path}.kind={word}"],
            [f"--{path}", word],
            [f"--{path}={word}"],
            [f"--{path}:{word}"],
            [f"{path}:{word}"],
        )
    ]


@pytest.mark.parametrize("path", KINDS)
def test_every_spelling_chooses_every_kind_of_every_union(path):
    for kind in KINDS[path]:
        for words in spellings(path, kind):
            config, left = choose_kinds(recipe("paper2012"), ["--epochs", "3", *words, "--seed", "1"])
            assert getattr(config, path).kind == kind, words
            assert left == ["--epochs", "3", "--seed", "1", f"--{path}.kind", kind], words


def test_a_chosen_kind_has_its_fields_and_its_defaults(trained):
    config = trained("paper2012", "--schedule.kind", "cosine", "--schedule.warmup", "2", "--schedule.final=0.1")
    assert config.schedule == Cosine(warmup=2, final=0.1)
    assert trained("modern", "schedule:steps-config", "--schedule.every", "7").schedule == Steps(every=7)
    assert trained("modern", "--schedule=staged").schedule == Staged()
    # The recipe's own kind keeps what the recipe says of it.
    assert trained("paper2012", "--schedule.kind", "plateau").schedule == Plateau(factor=0.1, patience=5, drops=3)
    for kind in ("adam", "adamw"):
        assert trained("modern", f"--optimizer.kind={kind}", "--optimizer.beta2", "0.99").optimizer.kind == kind


def test_a_network_of_another_kind_has_its_name_and_reads_what_the_recipe_makes(trained):
    config = trained("modern", "--model.kind", "lenet", "--model.activation", "tanh")
    assert config.model == LeNetConfig(input_size=224, in_channels=3, activation="tanh")
    assert config.network == "lenet"
    config = trained(
        "modern", "--model", "lenet", "--preprocessing.crop=64", "--preprocessing.channel-mean", "1", "2", "3"
    )
    assert (config.model.input_size, config.preprocessing.crop) == (64, 64)
    assert trained("cifar10", "--model", "cifar-conv").model == CifarConvConfig(input_size=24)
    config = trained("lenet", "--model:alexnet", "--model.in-channels=1")  # 28 pixels are too few for its kernels
    assert (config.network, config.model) == ("alexnet_2012", model_config("alexnet_2012", in_channels=1))


def test_underscores_hyphens_and_case_are_one_spelling(trained):
    config = trained(
        "paper2012",
        *("--model.conv_channels", "96", "256", "384", "384", "128"),
        *(
            "--model.head",
            "global-average",
            "--batch_size=64",
            "--label_smoothing",
            "0.1",
            "--model.activation=Leaky-ReLU",
        ),
    )
    assert config.model.conv_channels[-1] == 128
    assert (config.model.head, config.model.activation) == ("global_average", "leaky_relu")
    assert (config.batch_size, config.label_smoothing) == (64, 0.1)


@pytest.mark.parametrize("path", KINDS)
def test_a_wrong_kind_is_refused_with_the_list(path):
    for words in ([f"--{path}.kind", "linear"], [f"--{path}=linear"], [f"--{path}:linear"], [f"{path}:linear"]):
        with pytest.raises(UsageError, match=rf"--{path}.kind is linear; the kinds are {', '.join(KINDS[path])}"):
            choose_kinds(recipe("modern"), words)
    for words in ([f"--{path}.kind"], [f"--{path}", "--seed", "1"]):
        with pytest.raises(UsageError, match=f"--{path}.* needs a kind: {', '.join(KINDS[path])}"):
            choose_kinds(recipe("modern"), words)


def test_fields_of_a_kind_that_is_not_chosen_are_refused_by_name():
    for arguments in (
        ["--schedule.patience", "3", "--schedule.kind", "cosine"],
        ["--schedule.patience=3"],  # modern's schedule is a cosine
    ):
        with pytest.raises(UsageError, match=r"--schedule.patience belongs to --schedule.kind plateau, .* is cosine"):
            choose_kinds(recipe("modern"), arguments)
    with pytest.raises(UsageError, match=r"--schedule.factor belongs to --schedule.kind plateau or steps"):
        choose_kinds(recipe("modern"), ["--schedule.factor", "0.5"])
    with pytest.raises(UsageError, match=r"--model.conv-channels belongs to --model.kind alexnet"):
        choose_kinds(recipe("modern"), ["--model.kind", "lenet", "--model.conv_channels", "1"])


def test_a_path_that_only_looks_like_a_kind_stays_a_path():
    arguments = ["--out", "model:v2", "--data", "schedule:mine", "--init-from", "models"]
    assert choose_kinds(recipe("modern"), arguments) == (recipe("modern"), arguments)


other_words = st.lists(
    st.one_of(
        st.sampled_from(
            ["--epochs", "--out", "--json", "--model.towers", "--schedules", "-h", "schedule", "model.kind"]
        ),
        st.text(max_size=8).filter(lambda word: ":" not in word and "=" not in word and not word.startswith("--")),
    ),
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(before=other_words, after=other_words, data=st.data())
def test_choices_are_found_anywhere_and_nothing_else_is_touched(before, after, data):
    path = data.draw(st.sampled_from(sorted(KINDS)))
    kind = data.draw(st.sampled_from(KINDS[path]))
    words = data.draw(st.sampled_from(spellings(path, kind)))
    base = recipe("paper2012")
    if path == "model" and kind != "alexnet" and "--model.towers" in (*before, *after):
        with pytest.raises(UsageError, match=r"--model.towers belongs to --model.kind alexnet"):
            choose_kinds(base, [*before, *words, *after])
        return
    config, left = choose_kinds(base, [*before, *words, *after])
    assert left == [*before, *after, f"--{path}.kind", kind]
    assert getattr(config, path).kind == kind
    assert replace(config, **{path: getattr(base, path)}) == base
    assert choose_kinds(config, left) == (config, left)


@settings(max_examples=60, deadline=None)
@given(words=st.lists(st.text(max_size=10), max_size=8))
def test_only_values_of_closed_lists_are_respelled(words):
    assert spelled(type(recipe("modern")), words) == words or any(word.startswith("--") for word in words)


def _written(value: object) -> list[str]:
    if isinstance(value, tuple):
        return [word for item in value for word in _written(item)]
    return [str(value)]


@pytest.mark.parametrize("name", RECIPES)
def test_every_field_of_every_recipe_can_be_set_from_the_command_line(name, trained):
    """All options written out with their defaults, after the kinds, are the recipe again."""
    config = recipe(name)
    arguments = []
    for option in options_of(TrainConfig, config):
        if option.path in DECIDED or isinstance(option.default, bool):
            continue
        arguments += [option.name, *_written(option.default)]
    assert to_json(trained(name, *arguments)) == to_json(config)


IGNORED = [  # recipe, arguments, what the message must name
    (
        "paper2012",
        "--model.num-classes 10",
        "--model.num-classes cannot be set: .* one output for each class of the data",
    ),
    ("paper2012", "--model.num_classes=10", "--model.num-classes cannot be set"),
    ("lenet", "--model.num-classes 10", "--model.num-classes cannot be set"),
    ("paper2012", "--optimizer.beta2 0.9", "--optimizer.kind adam or adamw"),
    ("paper2012", "--preprocessing.channel-mean 1 2 3", "--preprocessing.mean channel"),
    ("modern", "--preprocessing.mean-at crop", "--preprocessing.mean image"),
    ("paper2012", "--augmentation.resized-area 0.5 1", "--augmentation.crop resized"),
    ("lenet", "--augmentation.crop-draws chunk", "random crops or mirrored images"),
    ("owt", "--augmentation.divide-noise", "--augmentation.color-noise above 0"),
    ("code2012", "--augmentation.color-noise 0 --schedule.noise-off 3", "--augmentation.color-noise above 0"),
    ("owt", "--model.lrn-k 1", "`norm` in --model.stages"),
    ("paper2012", "--model.normalization batch --model.lrn-beta 1", "--model.normalization lrn"),
    ("paper2012", "--model.towers 1 --model.joined conv3", "--model.towers 2"),
    ("paper2012", "--model.head global_average --model.fc-units 16 16", "--model.head fc"),
    ("paper2012", "--model.dropout-rate 0 --model.dropout inverted", "--model.dropout-rate above 0"),
    ("modern", "--model.weight-std 1 1 1 1 1 1 1 1", "--model.init gaussian"),
    ("paper2012", "--model.init torch --model.biases 0 0 0 0 0 0 0 0", "another --model.init than torch"),
    ("paper2012", "--scheme turns", "--layout hybrid"),
    ("paper2012", "--exchange bfloat16", "several ranks"),
]


@pytest.mark.parametrize(("name", "arguments", "names"), IGNORED, ids=[f"{n} {a}" for n, a, _ in IGNORED])
def test_an_option_that_would_be_ignored_is_refused(name, arguments, names, tmp_path):
    with pytest.raises(UsageError, match=names):
        train([name, "--out", str(tmp_path / "new"), "--device", "cpu", *arguments.split()])
    assert not (tmp_path / "new").exists()


def test_an_option_is_not_refused_where_it_is_used(trained):
    for name, arguments in (
        ("modern", ["--augmentation.resized-area", "0.5", "1", "--preprocessing.channel-mean", "1", "2", "3"]),
        (
            "paper2012",
            ["--model.lrn-k", "1", "--model.biases", *8 * "0", "--model.joined", "--preprocessing.mean-at", "crop"],
        ),
    ):
        trained(name, *arguments)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--model.biases 0", "--model.biases is (0.0,); it needs 8 entries"),
        ("--batch-size 0", "--batch-size is 0; it must be at least 1"),
        ("--schedule.kind plateau --schedule.factor 2", "--schedule.factor is 2.0; a drop needs 0 < factor < 1"),
        ("--model.towers", "--model.towers needs a whole number"),
        ("--model.fc-units 16", "--model.fc-units needs two whole numbers"),
        ("--optimizer.lr inf", "--optimizer.lr is NaN or infinite; it must be a finite number"),
        ("--precision half", "--precision is half; it takes one of float32, tf32, bfloat16, float64"),
        ("--optimizer.lr fast", "--optimizer.lr is fast; it takes a number"),
        ("--optimizer.layer-lr conv1", "--optimizer.layer-lr is conv1; it takes a value (LAYER X ...)"),
    ],
)
def test_a_wrong_value_is_named_by_its_option(arguments, says, tmp_path):
    with pytest.raises(UsageError) as refused:
        train(["paper2012", "--out", str(tmp_path / "new"), "--device", "cpu", *arguments.split()])
    assert str(refused.value).startswith(says)
