"""The names of options that other programs have taught people: ``-b`` and ``--lr`` beside the dotted names, and which option of a
verb is meant by one that it does not have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher

from alexnet.cli.options import Option, dashed, given
from alexnet.core.errors import printable

SHORT = {
    "-b": "batch_size",
    "-c": "config",
    "-j": "workers",
    "--lr": "optimizer.lr",
    "--momentum": "optimizer.momentum",
    "--wd": "optimizer.weight_decay",
}
"""Short names, and the fields that they stand for."""

ELSEWHERE = {
    "arch": ("network", "model"),
    "bs": ("batch_size",),
    "checkpoint": ("init_from", "model"),
    "dataset": ("data",),
    "dropout": ("model.dropout_rate",),
    "gpu": ("device",),
    "gpus": ("device",),
    "jobs": ("workers",),
    "k": ("top",),
    "learning-rate": ("optimizer.lr",),
    "lr": ("optimizer.lr",),
    "lr-scheduler": ("schedule.kind",),
    "output-dir": ("out",),
    "save-dir": ("out",),
    "scheduler": ("schedule.kind",),
    "topk": ("top",),
}
"""What other programs call some fields, where it is unlike the name here."""

ALIKE = 0.6
"""From which likeness on, between 0 and 1, one name may have been meant for another."""


def short_name(path: str) -> str | None:
    """The short name of a field."""
    return next((name for name, field in SHORT.items() if field == path), None)


def long_names(arguments: Sequence[str], options: Iterable[Option] | None = None) -> list[str]:
    """The arguments with short names written out: ``-b 64``, ``-b64`` and ``-b=64`` are ``--batch-size``. With ``options``, those
    of a verb, only names of its fields, and without switches that say what is so anyway (``--augmentation.mirror`` where images
    are mirrored)."""
    known = None if options is None else {option.path: option for option in options}
    words = []
    for word in arguments:
        match = re.fullmatch(r"(-[a-z])=?(\d+)", word) or re.fullmatch(r"(--?[a-z]+)(?:=(.*))?", word, re.DOTALL)
        path = SHORT.get(match[1]) if match else None
        if match and path and (known is None or path in known):
            words.append(dashed(path) + ("" if match[2] is None else f"={match[2]}"))
        elif known is None or not _says_nothing(word, known):
            words.append(word)
    return words


def _says_nothing(word: str, known: dict[str, Option]) -> bool:
    """Whether a switch is given as it stands without it."""
    if not word.startswith("--") or "=" in word:
        return False
    option = known.get(given([word])[0])
    return option is not None and isinstance(option.default, bool) and word.replace("_", "-") != option.name


def unknown(word: str, options: Sequence[Option], verb: str, before: str = "") -> str:
    """What to say of an argument that a verb does not know; ``before`` is the one before it."""
    named = [option for option in options if not option.positional]
    if not word.startswith("-") or re.match(r"-\d", word):
        switch = next((option for option in named if isinstance(option.default, bool) and option.name == before), None)
        if switch is None:
            return f"{verb} does not know what to do with {printable(word)[:60]!r}"
        return f"{before} takes no value, and {printable(word)[:60]} stands after it"
    name = word.partition("=")[0]
    if (path := SHORT.get(name)) is not None:
        return f"{verb} has no option {dashed(path)}, which {name} is short for"
    if name == "--pretrained":
        return f"{verb} has no option --pretrained: `alexnet import alexnet-owt --out MODEL` makes a model of trained weights"
    near = nearest(name, named)
    return f"{verb} has no option {printable(name)[:60]}" + (f" (perhaps {near})" if near else "")


def nearest(name: str, options: Sequence[Option]) -> str | None:
    """The option that was meant by a name, if one is like it: by what other programs call it, by the last part of its name, by
    its beginning or end, or by its letters."""
    plain = name.lstrip("-").lower().replace("_", "-")[:100]
    by_path = {option.path: option.name for option in options}
    for path in ELSEWHERE.get(plain.rpartition(".")[2], ()):
        if path in by_path:
            return by_path[path]
    best, chosen = ALIKE, None
    for path, shown in by_path.items():
        whole, last = path.replace("_", "-"), path.rpartition(".")[2].replace("_", "-")
        for known in (whole, last):
            like = SequenceMatcher(None, plain, known).ratio()
            if known == plain.removeprefix("no-"):
                like = 2.0
            elif len(plain) > 1 and (
                known.startswith(plain) or known.endswith(f"-{plain}") or plain.startswith(f"{known}-")
            ):
                like += 1 - ALIKE
            if like > best:
                best, chosen = like, shown
    return chosen
