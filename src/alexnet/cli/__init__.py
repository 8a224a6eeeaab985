"""The command line: one verb, one function call; results on stdout, everything else on stderr.

Exit codes: 0 done, 1 failure, 2 usage, 3 ran but a check failed, 4 faults found in data, 75 stopped on request with a
checkpoint, 130 interrupted. A verb imports what it needs when it is called, so ``alexnet --help`` answers at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from keyword import iskeyword

from alexnet.cli.shared import complain, describe, open_outputs, silence_stdout
from alexnet.core.errors import AlexNetError, StoppedError, UsageError, perhaps, printable

OPENMP_SPINS = "2000"
"""How long a waiting thread of torch spins before it sleeps. The default of GNU OpenMP, for ever, makes training 10 times slower
when anything else runs on the machine; never spinning costs a quarter of the speed (docs/experiment-log.md)."""

HELP = """AlexNet (2012), complete: from a folder of photographs to exact error rates.

usage: alexnet VERB ... [options]

train and use a network:
  check SOURCE              read all images, write nothing, list every fault
  train PHOTOS              look, plan, train, evaluate and write a report
  train RECIPE --out RUN    the same as a recipe says
  pretrain DATA --out FILE  first layers from pictures without their labels
  evaluate MODEL...         exact top-1 and top-5 errors, also of ensembles
                            (validate and test are other names for it)
  predict MODEL IMAGE...    the most probable classes of pictures, or of a video
  report RUN...             write a run's report again, or compare several runs
  info [NAME]               layers, shapes and costs of a network, or of two
  weights [get NAME]        trained weights by name, and how to fetch them
  import FILE --out MODEL   make a model of a file of trained weights
  export MODEL --to FORMAT  write a model for other programs (ONNX and others)

look inside, and search your pictures:
  probe KIND MODEL          what a network has learned, in pictures and numbers
  features MODEL --out F    activations of named layers as NumPy files
  index MODEL FOLDER...     index the pictures in your folders
  search INDEX IMAGE...     find the pictures that are most like these
  serve MODEL               all of this on a page in your browser

try what the paper says:
  claims list|run|report    the paper's claims, and what was measured here
  baseline KIND --data D    what came before AlexNet, on the same pictures

data and machine:
  prepare SOURCE PACKED     decode, resize and crop every image once
  cache                     what is kept of your pictures, and remove it
  bench                     what this machine can do, and what limits it
  selftest                  make faults on purpose, and see that nothing is lost
  completion SHELL          let bash, zsh or fish complete what you type

examples:
  alexnet train quickstart --out runs/first
  alexnet train photos/
  alexnet evaluate runs/photos-1 --views 10
  alexnet predict runs/photos-1 cat.jpg

`alexnet VERB --help` shows the options of a verb. Data is a folder of class
folders, a packed folder, a .csv of path,label, a .zip or .tar, .parquet, IDX or
CIFAR-10 files, or a name: shapes, digits, fashion-mnist, cifar10, imagenette,
imagenet.
"""


ALIASES = {"validate": "evaluate", "test": "evaluate"}
"""Names that other programs have for a verb."""

VERBS = {
    **dict.fromkeys(("prepare", "check"), "data"),
    "features": "features",
    "probe": "probe",
    **dict.fromkeys(("index", "search"), "search"),
    "serve": "serve",
    "baseline": "baseline",
    "cache": "cache",
    "completion": "completion",
    "claims": "claims",
    "selftest": "selftest",
    "train": "train",
    "pretrain": "pretrain",
    "evaluate": "evaluate",
    "predict": "predict",
    **dict.fromkeys(("info", "report"), "info"),
    "bench": "bench",
    **dict.fromkeys(("weights", "import"), "weights"),
    "export": "export",
}
"""Each verb, and the module with the function of its name; of a word of Python, with _ behind it."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb and exit with its code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    os.environ.setdefault("GOMP_SPINCOUNT", OPENMP_SPINS)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # or it prints lines about its cache where there is no home
    open_outputs()
    try:
        _require_working_folder()
        code = _dispatch(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of stdout has left
        silence_stdout()
        code = 1
    except KeyboardInterrupt:
        complain("interrupted")
        code = 130
    except Exception as error:
        if debug:
            raise
        code = error.exit_code if isinstance(error, AlexNetError) else 1
        rank, world = _place()
        if code != StoppedError.exit_code or rank == "0":  # one rank says that all have stopped
            message = describe(error)
            complain(message if world == "1" or message.startswith("rank ") else f"rank {rank} of {world}: {message}")
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    sys.exit(code)


def _place() -> tuple[str, str]:
    """The rank of this process and the number of ranks, as torchrun says; 0 of 1 without it."""
    return (os.environ["RANK"], os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else ("0", "1")


def _require_working_folder() -> None:
    """Torch's libraries end the process where there is none."""
    try:
        os.getcwd()  # noqa: PTH109
    except OSError:
        raise AlexNetError("the working folder is gone; change to another (cd) and run the command again") from None


def _dispatch(arguments: list[str]) -> int:
    if len(arguments) > 1 and arguments[0] == "help":
        arguments = [*arguments[1:], "--help"]
    if not arguments or arguments[0] in ("-h", "--help", "--help-all", "help"):
        print(HELP, end="")
        return 0
    if arguments[0] == "--version":
        from alexnet import __version__

        print(f"alexnet {__version__}")
        return 0
    verb = ALIASES.get(arguments[0], arguments[0])
    if verb not in VERBS:
        near = perhaps(verb, [*VERBS, *ALIASES])
        raise UsageError(f"unknown verb {printable(verb)!r}{near}; `alexnet --help` lists the verbs")
    if verb != "train" and _place()[1] != "1":
        raise UsageError(f"{verb} runs in one process: start it without torchrun")
    run: Callable[[list[str]], int] = getattr(import_module(f"alexnet.cli.{VERBS[verb]}"), verb + "_" * iskeyword(verb))
    return run(arguments[1:])
