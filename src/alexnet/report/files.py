"""The files of a run, as far as they are sound, and by name what is missing or damaged."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet.core.errors import AlexNetError, UsageError, printable
from alexnet.core.runs import read_json
from alexnet.report import tables
from alexnet.report.tables import Log, StoredEvaluation

RESULT_ORDER = ("final-ten", "final-center")
"""The results to headline, if they are there: the paper's ten views before the center."""
NOT_RESULTS = ("kernels.json", "trial.json")


@dataclass(frozen=True)
class RunFiles:
    folder: Path
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    log: Log
    results: dict[str, StoredEvaluation]
    """By file name without ``.json``; the one to headline first."""
    faults: list[str]

    @property
    def settings(self) -> Mapping[str, Any]:
        train = self.config.get("train")
        return train if isinstance(train, Mapping) else self.config

    @property
    def best(self) -> StoredEvaluation | None:
        return next(iter(self.results.values()), None)

    @property
    def network(self) -> str:
        return text_at(self.settings, "network") or self.folder.name

    @property
    def data(self) -> str:
        return Path(text_at(self.settings, "data") or text_at(self.config, "data", "path")).name

    @property
    def recipe(self) -> str:
        return text_at(self.settings, "recipe")

    @property
    def finished(self) -> bool:
        return any(name.startswith("final") for name in self.results)

    @property
    def command(self) -> str:
        """The command that makes the run again: as it was given, without what continues or deletes an earlier one."""
        command = self.environment.get("command") or self.config.get("command")
        if not isinstance(command, list):
            return command if isinstance(command, str) else ""
        words = [str(word) for word in command if word not in ("--resume", "--fresh", "--change")]
        if words[1:2] == ["train"] and Path(words[0]).name in ("__main__.py", "alexnet"):
            words[0] = "alexnet"
        return shlex.join(words)


def read_run(folder: Path) -> RunFiles:
    """:class:`UsageError` if ``folder`` is none; whatever else is wrong is named in ``faults``."""
    if not folder.is_dir():
        raise UsageError(f"{printable(folder)}: no such run; name the folder given to `alexnet train --out`")
    faults: list[str] = []
    return RunFiles(
        folder,
        read_object(folder / "config.json", faults),
        read_object(folder / "environment.json", faults),
        _read_log(folder, faults),
        _read_results(folder / "results", faults),
        faults,
    )


def read_object(path: Path, faults: list[str]) -> Mapping[str, Any]:
    """A JSON object; an empty one, and a fault, if the file does not hold one."""
    if not path.exists():
        faults.append(f"{path.name} is missing")
        return {}
    try:
        value = read_json(path)
        if not isinstance(value, dict):
            raise AlexNetError("not a JSON object")
        return value
    except (AlexNetError, OSError) as error:
        faults.append(f"{path.name} is not readable: {error}")
        return {}


def text_at(value: object, *keys: str) -> str:
    """The string, if there is one, that ``keys`` lead to."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, str) else ""


def _read_log(run: Path, faults: list[str]) -> Log:
    try:
        log = tables.read_log(run / "log.jsonl")
    except (AlexNetError, OSError) as error:
        faults.append(f"log.jsonl is not readable: {error}")
        log = Log()
    if not log.steps["step"] and not log.epochs and log.head is None:
        log.epochs = tables.read_summary(run / "summary.csv")
        faults.append(
            "log.jsonl has no rows, so "
            + ("the curves are those of summary.csv" if log.epochs else "there are no curves")
        )
    if log.dropped:
        faults.append(f"log.jsonl: {log.dropped} cut or damaged line{' is' if log.dropped == 1 else 's are'} left out")
    return log


def _read_results(folder: Path, faults: list[str]) -> dict[str, StoredEvaluation]:
    results: dict[str, StoredEvaluation] = {}
    for path in sorted(folder.glob("*.json")):
        if path.name not in NOT_RESULTS:
            try:
                results[path.stem] = tables.read_result(path)
            except (AlexNetError, OSError) as error:
                faults.append(f"results/{path.name} is not readable: {error}")
    if not results:
        faults.append("there is no final evaluation in results/")
    order = {name: i for i, name in enumerate(RESULT_ORDER)}
    return dict(sorted(results.items(), key=lambda item: order.get(item[0], len(order))))
