"""Every verb in every surrounding that a process can be started in: closed or full outputs, no home, no terminal, ...

Run as a program it is that process: it has torch loaded, and forks once for each verb, so that a verb starts from what the
surrounding made of the interpreter and ends as the interpreter ends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wrong_invocations import TINY


@dataclass(frozen=True)
class Surrounding:
    redirection: str = ""
    """In bash's words."""
    environment: Mapping[str, str | None] = field(default_factory=dict)
    """Variables set, or unset by None."""
    folder: str | bytes = ""
    """What becomes of the working folder: deleted, read-only; or the name of the folder to write to."""
    code: int = 0
    """With which every verb ends."""


SURROUNDINGS = {
    "stdout closed": Surrounding(">&-"),
    "stdout a pipe whose reader left": Surrounding("> >(true)", code=1),
    "stdout full": Surrounding("> /dev/full", code=1),
    "stdin closed": Surrounding("<&-"),
    "no terminal": Surrounding("< /dev/null", {"TERM": "dumb"}),
    "no HOME": Surrounding(environment={"HOME": None}),
    "HOME is missing": Surrounding(environment={"HOME": "/proc/nowhere"}),
    "LC_ALL=C": Surrounding(environment={"LC_ALL": "C", "LANG": "C"}),
    "ASCII output": Surrounding(environment={"PYTHONIOENCODING": "ascii"}),
    "read-only working folder": Surrounding(folder="read-only"),
    "deleted working folder": Surrounding(folder="deleted", code=1),
    "folders of odd names": Surrounding(folder=b"caf\xe9\nnoir"),
}
"""Names of classes are not ASCII in the world of these tests."""

READ_ONLY = ["unshare", "--mount", "bash", "-c", 'mount -t tmpfs -o ro tmpfs "$1" && shift && exec "$@"', "bash"]
"""A command in front of another: what a folder is for the other one, even if that is root's."""


def verbs(world: Path, out: Path) -> dict[str, list[str]]:
    """One invocation of each verb that succeeds, by absolute paths."""
    image, run = str(world / "photos" / "val" / "kühl" / "0.png"), str(world / "run")
    lines = {
        "prepare": ["prepare", str(world / "photos"), str(out / "packed"), "--size", "36", "--workers", "1"],
        "check": ["check", str(world / "photos"), "--workers", "1"],
        "train": ["train", "quickstart", "--data", str(world / "packed"), "--out", str(out / "run"), *TINY.split()],
        "evaluate": ["evaluate", run, "--data", str(world / "packed")],
        "predict": ["predict", run, image],
        "features": ["features", run, "--data", str(world / "packed"), "--out", str(out / "features")],
        "index": ["index", run, str(world / "photos"), "--out", str(out / "index")],
        "search": ["search", str(world / "index"), image],
        "serve": ["serve", run, "--check", "--port", "0"],
        "probe": ["probe", "kernels", run, "--out", str(out / "probes")],
        "baseline": ["baseline", "pixels", "--data", str(world / "packed"), "--threads", "1"],
        "claims": ["claims", "list", "C7"],
        "info": ["info", run],
        "cache": ["cache"],
        "weights": ["weights"],
        "completion": ["completion", "bash"],
        "import": ["import", str(world / "weights.safetensors"), "--out", str(out / "imported")],
        "export": ["export", run, "--to", "safetensors", "--out", str(out / "exported.safetensors")],
        "report": ["report", run],
        "pretrain": [
            *("pretrain", str(world / "photos"), "--recipe", "quickstart", "--out", str(out / "start.safetensors")),
            *("--epochs", "1", "--train-images", "8", "--batch-size", "4"),
        ],
    }
    computing = {"train", "pretrain", "evaluate", "predict", "features", "index", "search", "probe", "serve"}
    return {verb: line + ["--device", "cpu"] * (verb in computing) for verb, line in lines.items()}


def run_in(name: str, world: Path, place: Path, chosen: list[str]) -> dict[str, tuple[int, str]]:
    """Exit code and stderr of each verb in a surrounding. ``place``: a new folder to write to."""
    surrounding = SURROUNDINGS[name]
    odd = isinstance(surrounding.folder, bytes)
    out, cwd = place / (os.fsdecode(surrounding.folder) if odd else "out"), place / "cwd"
    out.mkdir(parents=True)
    cwd.mkdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **surrounding.environment}
    python = [
        sys.executable,
        __file__,
        str(world),
        str(out),
        str(cwd),
        "-" if odd else str(surrounding.folder or "-"),
        *chosen,
    ]
    if surrounding.folder == "read-only":
        python = [*READ_ONLY, str(cwd), *python]
    command = ["bash", "-c", f'exec "$@" {surrounding.redirection}', "bash", *python]
    kept = {key: value for key, value in environment.items() if value is not None}
    subprocess.run(command, env=kept, check=True, timeout=900, start_new_session=True, cwd=cwd)
    return {verb: tuple(answer) for verb, answer in json.loads((out / "answers.json").read_text()).items()}


def faults_in(name: str, code: int, err: str) -> list[str]:
    """What is wrong with how a verb ended."""
    surrounding, faults = SURROUNDINGS[name], []
    complaints = [line for line in err.splitlines() if line.startswith("alexnet: ")]
    if code != surrounding.code:
        faults.append(f"exit {code}, not {surrounding.code}")
    for word in ("Traceback", "Exception ignored", "--debug", "Fatal"):
        if word in err:
            faults.append(word)
    if len(complaints) != (name in ("stdout full", "deleted working folder")):
        faults.append(f"{len(complaints)} complaints")
    return faults


def main(world: Path, out: Path, cwd: Path, folder: str, chosen: list[str]) -> None:
    import torch

    torch.set_num_threads(1)
    answers = {}
    for verb in chosen:
        file = out / f"{verb}.stderr"
        child = os.fork()
        if child == 0:
            signal.alarm(300)
            os.dup2(os.open(file, os.O_CREAT | os.O_WRONLY), 2)
            os.chdir(cwd)
            if folder == "deleted":
                gone = out / f"{verb}.cwd"
                gone.mkdir()
                os.chdir(gone)
                gone.rmdir()
            from alexnet.cli import main

            main(verbs(world, out)[verb])  # ends the child, as it ends the command line
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        answers[verb] = (code, file.read_text(errors="replace"))
    (out / "answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), sys.argv[4], sys.argv[5:])
    os._exit(0)  # whether this process can close its own outputs is not what is asked
