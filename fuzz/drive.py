"""Runs a target under Atheris, which looks for inputs that reach new lines of Python."""

from __future__ import annotations

import random
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import atheris

from mutations import require_one_line

SEED_SHARE = 0.5
"""Of mutations that know JSON and headers; the others are libFuzzer's."""


def fuzz(name: str, *more: str) -> None:
    """Fuzz ``TARGETS[name]`` with libFuzzer's options from the command line. ``more`` names modules to instrument besides
    those of alexnet."""
    with atheris.instrument_imports(include=["alexnet", *more]):
        from targets import TARGETS
    warnings.simplefilter("error")
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as scratch:
        corpus = Path(scratch) / "corpus"
        (Path(scratch) / "files").mkdir()
        corpus.mkdir()
        target = TARGETS[name](Path(scratch) / "files")
        for i, seed in enumerate(target.seeds):
            (corpus / f"seed-{i}").write_bytes(seed)
        bodies = [seed[target.kept :] for seed in target.seeds]

        def one(data: bytes) -> None:
            try:
                target.check(data)
            except target.allowed as error:
                require_one_line(error)

        def damage(data: bytes, max_size: int, seed: int) -> Any:
            draw = random.Random(seed)
            if draw.random() < SEED_SHARE:
                data = draw.choice((data, draw.choice(target.seeds)))  # libFuzzer forgets what reaches no new line
                return (data[: target.kept] + target.damage(data[target.kept :], draw, bodies))[:max_size]
            return atheris.Mutate(data, max_size)

        atheris.Setup([*sys.argv, str(corpus)], one, custom_mutator=damage)
        atheris.Fuzz()
