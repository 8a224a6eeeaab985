"""The command line: one verb, one function call; results on stdout, everything else on stderr.

Exit codes: 0 done, 1 failure, 2 usage, 3 ran but a check failed, 4 faults found in data, 75 stopped on request with a
checkpoint, 130 interrupted. A verb imports what it needs when it is called, so ``alexnet --help`` answers at once.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from alexnet.cli.shared import complain, describe, open_outputs, silence_stdout
from alexnet.core.errors import AlexNetError, StoppedError, UsageError, printable

OPENMP_SPINS = "2000"
"""How long a waiting thread of torch spins before it sleeps. The default of GNU OpenMP, for ever, makes training 10 times slower
when anything else runs on the machine; never spinning costs a quarter of the speed (docs/experiment-log.md)."""

HELP = """usage: alexnet VERB ...

AlexNet (2012), complete: from a folder of photographs to exact error rates.

  prepare SOURCE PACKED     decode, resize and crop every image once; mean image and color statistics
  check SOURCE|PACKED       the same reading without writing; lists every fault
  train RECIPE --out RUN    train, validate, checkpoint, evaluate, report; --resume goes on after any stop
  evaluate MODEL... --data D    exact top-1 and top-5 errors; several models are an ensemble
  predict MODEL IMAGE...    the most probable classes of files, folders or - (standard input)
  features MODEL --out F    activations of named layers for every image of a split, as NumPy files
  index MODEL FOLDER --out I    an index of the pictures in your folders
  search I IMAGE...         the pictures of an index that are most like these
  probe KIND MODEL          what the network has learned: pictures and figures (alexnet probe --help)
  baseline KIND --data D    what came before AlexNet, on the same data: pixels, SIFT with Fisher vectors, kernel machines
  claims list|run|report    the paper's claims, tried: what was printed, what was measured, the verdict
  info NAME|MODEL           stages, shapes, parameters, multiply-adds; --diff OTHER side by side
  report RUN...             write RUN/report.html again; several runs are compared on one page
  bench                     rates of this machine, what limits it, and a forecast of the paper's training
  selftest                  faults made on purpose on this machine: what is promised, tried in two minutes

examples:
  alexnet train quickstart --out runs/first
  alexnet train modern --data photos/ --out runs/mine --epochs 30
  alexnet evaluate runs/mine --data photos/ --views 10
  alexnet predict runs/mine cat.jpg --views 10

`alexnet VERB --help` lists the options of a verb. Data: a packed directory, a folder of class folders, a .csv of
path,label, a .tar, IDX or CIFAR-10 files, or a name: shapes, digits, fashion-mnist, cifar10, imagenette.
"""


VERBS = {
    **dict.fromkeys(("prepare", "check"), "data"),
    **dict.fromkeys(("features", "probe"), "inside"),
    **dict.fromkeys(("index", "search"), "search"),
    "baseline": "baseline",
    "claims": "claims",
    "selftest": "selftest",
    **dict.fromkeys(("train", "evaluate", "predict", "info", "report", "bench"), "network"),
}
"""Each verb, and the module with the function of its name."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb and exit with its code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    os.environ.setdefault("GOMP_SPINCOUNT", OPENMP_SPINS)
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
        if code != StoppedError.exit_code or rank == "0":  # that all ranks have stopped, one says
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
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if arguments[0] == "--version":
        from alexnet import __version__

        print(f"alexnet {__version__}")
        return 0
    verb = arguments[0]
    if verb not in VERBS:
        raise UsageError(f"unknown verb {printable(verb)!r}; the verbs are {', '.join(VERBS)}")
    if verb != "train" and _place()[1] != "1":
        raise UsageError(f"{verb} is of one process, and only train of several ranks; start it without torchrun")
    run: Callable[[list[str]], int] = getattr(import_module(f"alexnet.cli.{VERBS[verb]}"), verb)
    return run(arguments[1:])
