"""The verbs that read what is there: info, report."""

# No `from __future__ import annotations`: tyro must see the types of options.
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from alexnet.cli.helptext import listing
from alexnet.cli.shared import Words, bring_back, parse, print_json
from alexnet.core.errors import UsageError, printable


@dataclass(frozen=True, kw_only=True)
class InfoOptions:
    """Layers of a network with their output, kernels, strides, padding, groups, neurons, parameters and multiply-adds; or the
    list of networks.

    alexnet info
    alexnet info alexnet_2012
    alexnet info alexnet_2012 --diff alexnet_owt
    """

    model: Annotated[str, tyro.conf.Positional] = ""
    """Name of a network, or a run or model folder; without one, all names are listed."""
    diff: Annotated[str | None, tyro.conf.arg(metavar="OTHER")] = None
    """Compare with this network, layer by layer: = marks what is equal, ! what differs, < and > what one alone has."""
    json: bool = False
    """Print one JSON document on stdout."""


def info(arguments: list[str]) -> int:
    options = parse(InfoOptions, "info", arguments)
    if options.diff and not options.model:
        raise UsageError("--diff compares two networks; name the first one before it")
    from alexnet.evaluation.describe import describe, side_by_side, table
    from alexnet.models import about_model, list_models

    if not options.model:
        if options.json:
            print_json(list_models())
        else:
            about = {name: about_model(name) for name in list_models()}
            print(listing("info NAME [--diff OTHER]", "networks", about), end="")
        return 0
    networks = [describe(name) for name in (options.diff, options.model) if name][::-1]
    if options.json:
        print_json(networks if options.diff else networks[0])
    else:
        print(side_by_side(*networks) if options.diff else table(networks[0]))
    return 0


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Write RUN/report.html again, from the files of the run. Several runs are compared on one page.

    alexnet report runs/mine
    alexnet report runs/a runs/b --out comparison.html
    """

    runs: Words
    """Run directories."""
    out: str | None = None
    """File of the comparison; by default comparison.html in this folder."""


def report(arguments: list[str]) -> int:
    options = parse(ReportOptions, "report", arguments)
    runs = [Path(run) for run in options.runs]
    if not runs:
        raise UsageError("report needs a run: the --out of `alexnet train`")
    if options.out is not None and len(runs) == 1:
        raise UsageError("--out names the page that compares several runs; the report of one run is its report.html")
    for run in runs:
        bring_back(run)
        if not (run / "config.json").is_file():
            raise UsageError(f"{printable(run)}: not a run (no config.json); a run is the --out of `alexnet train`")
    if len(runs) == 1:
        from alexnet.report.page import write_report

        print(printable(write_report(runs[0])))
        return 0
    from alexnet.report.comparison import write_comparison

    print(printable(write_comparison(runs, Path(options.out or "comparison.html"))))
    return 0
