"""Results of arms: a file for each arm and seed where they are made, a line for each where they are published.

A folder ``OUT/SCALE`` may hold both, and both are read alike. The file of a result, ``ARM-KEY.json``, is written whole or not at
all: several processes may run experiments into one folder, and one that is killed takes nothing with it. Published results are
the lines of ``results.jsonl``, in order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet.core.errors import AlexNetError, printable
from alexnet.core.runs import MAX_JSON_BYTES, RESTORE, parse_json, read_file, read_json, write_atomic, write_json

Result = dict[str, Any]
"""What is known of one arm and seed (docs/claims.md)."""

LINES = "results.jsonl"


def name_of(result: Result) -> str:
    """The name by which documents refer to a result, and that of its own file."""
    return f"{result['arm']}-{result['fingerprint']}.json"


@dataclass(frozen=True)
class Results:
    """The results in a folder. What is damaged raises :class:`AlexNetError` that names the file, and the line."""

    folder: Path

    def __getitem__(self, name: str) -> Result:
        """The result of this name, which was made here or is published: :class:`KeyError` if it is neither."""
        path = self.folder / Path(name).name
        if not path.exists():
            return self.published[path.name]
        result = read_json(path)
        if not isinstance(result, dict):
            raise AlexNetError(f"{printable(path)} is not a result of `alexnet claims run`; {RESTORE}")
        return result

    def find(self, key: str) -> Result | None:
        """The result that was computed from what ``key`` stands for, whichever arm it is named after."""
        if own := sorted(self.folder.glob(f"*-{key}.json")):
            return self[own[0].name]
        return next((result for result in self.published.values() if result["fingerprint"] == key), None)

    def add(self, result: Result) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / name_of(result), result)

    def all(self) -> dict[str, Result]:
        """Every result by its name."""
        own = sorted(path.name for path in self.folder.glob("*.json") if is_result(path))
        return self.published | {name: self[name] for name in own}

    @cached_property
    def published(self) -> dict[str, Result]:
        """The lines of ``results.jsonl`` by the names of their results; none where there is no such file."""
        path = self.folder / LINES
        if not path.exists():
            return {}
        found: dict[str, Result] = {}
        for number, line in enumerate(read_file(path, MAX_JSON_BYTES).splitlines(), start=1):
            where = path.with_name(f"{LINES}, line {number}")
            result = parse_json(line, where)
            texts = [result.get("arm"), result.get("fingerprint")] if isinstance(result, dict) else [None]
            if not all(isinstance(text, str) for text in texts):
                raise AlexNetError(f"{printable(where)} is not a result of `alexnet claims run`; {RESTORE}")
            if (name := name_of(result)) in found:
                raise AlexNetError(f"{printable(where)} holds {printable(name)} twice; {RESTORE}")
            found[name] = result
        return found


def is_result(path: Path) -> bool:
    """Whether a file among experiments' documents is the result of an arm and seed, by its name."""
    return "-seed" in path.name


def write_lines(folder: Path, results: Iterable[Result]) -> None:
    """Publish results: one a line, by arm, configuration and seed, so that the same results make the same file."""

    def order(result: Result) -> tuple[str, str, int]:
        return result["arm"], result["fingerprint"].partition("-seed")[0], result["seed"]

    lines = (
        json.dumps(r, separators=(",", ":"), ensure_ascii=False, allow_nan=False) for r in sorted(results, key=order)
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(
        folder / LINES, lambda file: file.writelines(f"{line}\n".encode("utf-8", "surrogatepass") for line in lines)
    )


def means_of_neighbors(value_P: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """A curve with fewer points: of each ``width`` neighbors the mean; of what is left at the end, none."""
    mean_P: NDArray[np.float64] = value_P[: len(value_P) // width * width].reshape(-1, width).mean(1)
    return mean_P
