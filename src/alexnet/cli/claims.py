"""The verb `claims`: the paper on trial."""

# No `from __future__ import annotations`: tyro must see the types of options.
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

from alexnet.cli.shared import DeviceOptions, Words, check_folder, machine_of, parse, print_json
from alexnet.core.errors import UsageError, perhaps, printable

USAGE = """usage: alexnet claims list|run|report ...

The paper's 39 countable claims, and what its readers added: what was printed, what the 2012 program logged, what was measured
here.

  list [ID...]                          every claim with its last verdict, or all about some
  run ID... --scale S --seeds N         train the arms of a claim (C10) or an experiment (lrn), and judge it
  report [--out FILE]                   a page of all of them

examples:
  alexnet claims list
  alexnet claims list C7 --json
  alexnet claims run C13 --scale cifar10 --seeds 3
  alexnet claims run lrn --scale photos/ --seeds 5 --out runs/claims
"""

WIDTH = 100


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """Every claim with its last verdict; of those named, all that is known.

    alexnet claims list C7 N4
    """

    ids: Words = ()
    """C1 to C39 are the paper's; N1 and on are its readers'."""
    out: str = "runs/claims"
    """Where results of one's own are; they come before the published ones."""
    json: bool = False
    """One JSON document on stdout."""


@dataclass(frozen=True, kw_only=True)
class RunOptions(DeviceOptions):
    """Train every arm with every seed, one result file each, and judge: confirmed, contradicted or inconclusive by the 95 %
    interval over paired seeds. What was computed before is read, never written again; what was stopped goes on.

    alexnet claims run C13 --scale cifar10 --seeds 3
    """

    ids: Words
    """Claims (C10) or experiments (lrn)."""
    scale: str = "smoke"
    """smoke, cifar10, imagenette, fashion-mnist, imagenet, or a folder or packed set of one's own photographs."""
    seeds: int = 3
    """Seeds 0, 1, ... of every arm."""
    out: str = "runs/claims"
    """Results: OUT/SCALE/*.json."""


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """One HTML file: every claim, what was printed, logged and measured here, with curves.

    alexnet claims report --out claims.html
    """

    results: str = "runs/claims"
    """Where `claims run` wrote."""
    out: str | None = None
    """The file to write; by default RESULTS/claims.html."""
    json: bool = False
    """One JSON document on stdout."""


def claims(arguments: list[str]) -> int:
    verbs = {"list": _list, "run": _run, "report": _report}
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if arguments else 2
    if arguments[0] not in verbs:
        raise UsageError(f"claims {printable(arguments[0])}: there are {', '.join(verbs)}; `alexnet claims --help`")
    return verbs[arguments[0]](arguments[1:])


def _list(arguments: list[str]) -> int:
    options = parse(ListOptions, "claims list", arguments)
    from alexnet.claims.ledger import CLAIMS, find_claim
    from alexnet.claims.verdicts import documents, entries, words

    chosen = [find_claim(name).id for name in options.ids] or [claim.id for claim in CLAIMS]
    found = [entry for entry in entries(documents(options.out)) if entry["claim"]["id"] in chosen]
    if options.json:
        print_json(found)
        return 0
    for entry in found:
        print(f"\n{entry['claim']['id']} ({entry['claim']['section']}) [{printable(words(entry))}]")
        _print_entry(entry, whole=bool(options.ids))
    if not options.ids:
        print("\nall about one: alexnet claims list C7; try one: alexnet claims run C13 --scale smoke")
    return 0


def _print_entry(entry: dict[str, Any], whole: bool) -> None:
    claim = entry["claim"]
    print(fill(claim["sentence"], WIDTH, initial_indent="  ", subsequent_indent="  "))
    lines = [("printed", claim["printed"]), ("logged in 2012", claim["logged"])]
    if whole:
        lines += [("decides", claim["decides"]), ("not tried", claim["untested"])]
    for fact in entry["facts"]:
        lines.append((fact["verdict"], f"{fact['statement']} Computed: {fact['computed']}"))
    for experiment in entry["experiments"] if whole else []:
        lines.append(
            (f"experiment {experiment['id']}", f"{experiment['title']}; scales {', '.join(experiment['scales'])}")
        )
    for row in entry["comparisons"]:
        lines.append((row["verdict"], row["text"]))
        if whole:
            lines.append(("again", row["command"]))
    for label, text in lines:
        if text:
            print(fill(printable(f"{label}: {text}"), WIDTH, initial_indent="    ", subsequent_indent="      "))


def _run(arguments: list[str]) -> int:
    options = parse(RunOptions, "claims run", arguments)
    if options.seeds < 1:
        raise UsageError(f"--seeds is {options.seeds}; it must be at least 1")
    if not options.ids:
        raise UsageError("claims run needs a claim or an experiment, such as C13; `alexnet claims list` names them")
    check_folder(Path(options.out), "--out")
    from alexnet.claims.groups import find_experiments
    from alexnet.claims.runner import default_bench, run_experiment
    from alexnet.claims.scales import SCALES, find_scale
    from alexnet.claims.verdicts import sentence

    experiments = {e.id: e for name in options.ids for e in find_experiments(name)}
    if options.scale not in SCALES and not Path(options.scale).exists():
        near = perhaps(options.scale, SCALES)
        raise UsageError(
            f"{printable(options.scale)}: no such scale, folder or packed set{near}; the scales are {', '.join(SCALES)}"
        )
    scale = find_scale(options.scale)
    bench = default_bench(scale.name, Path(options.out), machine_of(options), options.data_root)
    documents = []
    for experiment in experiments.values():
        if not experiment.fits(scale.name):
            where = f"`{experiment.id}` is for {', '.join(experiment.scales)}"
            print(f"{', '.join(experiment.claims)} not at this scale: {where}", file=sys.stderr)
            continue
        documents.append(run_experiment(experiment, scale, range(options.seeds), bench))
        if not options.json:
            for row in documents[-1]["comparisons"]:
                print(f"{row['claim']} {row['verdict']}: {sentence(row)}", flush=True)
    if options.json:
        print_json(documents)
    print(f"{printable(scale.name)}: {scale.says}", file=sys.stderr)
    return 0


def _report(arguments: list[str]) -> int:
    options = parse(ReportOptions, "claims report", arguments)
    from alexnet.claims.page import write_page

    page = write_page(options.results, options.out)
    if options.json:
        print_json({"page": str(page)})
    else:
        print(printable(page))
    return 0
