"""What the program advises when a training does not get on is done as it is printed, until the network learns."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from alexnet.cli import main
from alexnet.training import trainer, watchdog

TINY = (
    "--size 36 --preprocessing.resize 36 --preprocessing.crop 32 --model.input-size 32 --model.fc-units 16 16 "
    "--model.conv-channels 8 8 8 8 8 --model.conv-kernels 5 3 3 3 3 --model.conv-padding 2 1 1 1 1 --augmentation.color-noise 0 "
    "--batch-size 8 --device cpu --threads 1 --epochs 8 --views 1 --checkpoint-steps 3"
).split()
CURE = re.compile(r"(?:--resume --change|--fresh)(?: --[a-z.-]+ [^\s;,]+)+")


@pytest.fixture
def warned(monkeypatch) -> SimpleNamespace:
    """Messages count early; the user stops a run as soon as it warns of more than the untrained signal."""
    seen, note = SimpleNamespace(kinds=[], requested=False), trainer._Trainer._note

    def noted(self, message: str) -> None:
        note(self, message)
        if not message.startswith("signal check"):
            seen.kinds.append(message.partition(":")[0])
            seen.requested = True

    monkeypatch.setattr(watchdog, "MIN_STEPS", 20)
    monkeypatch.setattr(trainer._Trainer, "_note", noted)
    monkeypatch.setattr("alexnet.recipes.run.StopRequest", lambda: nullcontext(seen))
    return seen


def attempt(out: Path, data: Path, words: list[str], capsys) -> tuple[int, str]:
    with pytest.raises(SystemExit) as exit:
        main(["train", "quickstart", "--data", str(data), "--out", str(out), *TINY, *words])
    return int(exit.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("--optimizer.lr 0.0002 --epochs 24", "slow"),
        ("--optimizer.lr 1", "stuck"),
        ("--model.init gaussian", "lost"),
        ("--optimizer.lr 1000 --optimizer.bias-lr 2000", None),  # a loss that is not finite
    ],
)
def test_the_remedy_works_as_it_is_printed(words, kind, warned, tiny_set, tmp_path, capsys):
    out, given = tmp_path / "run", words.split()
    code, said = attempt(out, tiny_set.path, given, capsys)
    assert kind is None or warned.kinds == [kind]
    for _ in range(14):
        if code == 0:
            break
        cure = CURE.search(said)
        assert cure is not None, said
        warned.requested = False
        code, said = attempt(out, tiny_set.path, [*given, *cure[0].split()], capsys)
    assert code == 0, said
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert min(row["val_top1_errors"] for row in rows if row["event"] == "epoch") <= 3  # 8 of 12 by guessing


def test_a_network_that_learns_is_warned_of_nothing(warned, tiny_set, tmp_path, capsys):
    for i, words in enumerate(([], ["--label-smoothing", "0.2"], ["--model.dropout-rate", "0.7"])):
        code, said = attempt(tmp_path / str(i), tiny_set.path, words, capsys)
        assert (code, warned.kinds) == (0, []), said
