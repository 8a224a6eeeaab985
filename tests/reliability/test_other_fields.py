"""Files whose seal fits and whose fields are others: named in one line, or passed over as damaged, as the file's rule is."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from other_fields import changes
from safetensors.torch import load_file

from alexnet.core.device import Machine
from alexnet.core.errors import AlexNetError
from alexnet.evaluation.predict import load
from alexnet.models.checkpoint import CONDITIONS, SEAL, read_checkpoint
from alexnet.recipes.run import train
from alexnet.training.checkpoint import save_tensors
from alexnet.training.trainer import fit, require_fitting
from shared import content, tiny_training

QUIET = Machine(device=torch.device("cpu"), quiet=True)


@pytest.fixture(scope="module")
def config(tiny_set):
    return tiny_training(tiny_set.path, epochs=1, batch_size=8, checkpoint_steps=3, views=("1",))


@pytest.fixture(scope="module")
def finished(config, tiny_set, tmp_path_factory):
    """Checkpoints at steps 6, in the first epoch, and 7, its end."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    train(config, out, QUIET, data=tiny_set, report=False)
    return out


@pytest.fixture
def run(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "run"))


def replace_state(folder: Path, state: object) -> None:
    """Another state.json in a checkpoint, with a manifest that fits."""
    (folder / "state.json").write_text(json.dumps(state))
    manifest = json.loads((folder / SEAL.head).read_text())
    SEAL.write(folder, manifest | {"files": SEAL.list_files(folder, manifest["files"])})


KEPT = {
    **{name: {"huge"} for name in ("log_bytes", "changes", "seconds", "loss_sum")},
    "start": {"null", "a number", "negative", "huge", "a path"},
    "warned": {"a list"},
    "history": {"a number", "huge", "unknown"},
    CONDITIONS: {"missing", "an object", "unknown", "a number", "negative", "huge", "a truth", "a text", "a path"},
}
"""Changes after which a state is still one that could have been written, by its field."""
SHOWN = {"dead_filters", "spread", "event"}
"""Fields of an epoch that are only shown."""


@pytest.mark.parametrize("step", [6, 7])
def test_every_other_field_of_a_state_is_named(step, finished, config, tiny_set):
    sound = read_checkpoint(finished / "checkpoint" / f"step-{step}")
    require_fitting(sound, config, tiny_set)
    refused = {change: refusal(replace(sound, state=change.value), config, tiny_set) for change in changes(sound.state)}
    accepted = [
        str(change)
        for change, said in refused.items()
        if not said and change.how not in KEPT.get(str(change.top), ()) and not SHOWN & set(change.field)
    ]
    assert accepted == []
    for change, said in refused.items():
        assert len(said) < 300
        assert said.isprintable()
        assert not said or re.match(rf"state\.json: .*\b{change.top or ''}", said), (str(change), said)
    missing = {
        change.top for change, said in refused.items() if said and len(change.field) == 1 and change.how == "missing"
    }
    assert missing == sound.state.keys()


def refusal(checkpoint, config, data):
    """What is said of a checkpoint; nothing of one that is taken."""
    try:
        require_fitting(checkpoint, config, data)
    except AlexNetError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"reproducible_with": None}, "state.json: reproducible_with"),
        ({"position": 55, "top1_errors": 0}, "state.json: position is beyond the training images"),
        ({"start": {"layer": "fc8"}}, "state.json: start.rms: missing"),
        ({"step": 6}, "state.json: step is not that of the checkpoint"),
    ],
)
def test_a_checkpoint_with_other_fields_is_passed_over_as_a_damaged_one_is(
    change, said, run, finished, config, tiny_set, capsys
):
    newest = run / "checkpoint" / "step-7"
    replace_state(newest, json.loads((newest / "state.json").read_text()) | change)
    shutil.rmtree(run / "model")
    if "step" in change:  # whoever reads the run alone sees this one too
        load(run)
        assert f"warning: damaged and passed over: step-7: {said}" in capsys.readouterr().err
    fit(config, tiny_set, run, QUIET, resume=True)
    assert f"warning: checkpoint step-7 is damaged and passed over: {said}" in capsys.readouterr().err
    assert content(newest)["model.safetensors"] == content(finished / "checkpoint" / "step-7")["model.safetensors"]


def test_weights_of_another_network_are_named(run, config, tiny_set):
    newest = run / "checkpoint" / "step-7"
    for name, said in {
        "optimizer": "conv1.bias/velocity is of no parameter",
        "model": "conv1.bias is not as in",
    }.items():
        tensors = load_file(newest / f"{name}.safetensors")
        save_tensors(
            {key: value[:-1] if key.startswith("conv1.bias") else value for key, value in tensors.items()},
            newest / f"{name}.safetensors",
        )
        replace_state(newest, json.loads((newest / "state.json").read_text()))
        with pytest.raises(AlexNetError, match=said):
            require_fitting(read_checkpoint(newest), config, tiny_set)
