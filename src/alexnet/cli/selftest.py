"""The verb `selftest`: faults made on purpose on this machine."""

# No `from __future__ import annotations`: tyro must see the types of options.
import os
from dataclasses import dataclass
from pathlib import Path

from alexnet.cli.shared import check_file, parse, print_json
from alexnet.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class SelftestOptions:
    """Faults made on purpose on this machine, in two minutes: kill -9, a full disk, flipped bits, dead readers, workers and
    ranks, and figures that must be exact. Exit 3 if a promise was not kept. Nothing is left behind; $TMPDIR names the disk to
    try.

    alexnet selftest
    alexnet selftest --quick
    alexnet selftest --only kill disk-full
    """

    quick: bool = False
    """Only the checks that take seconds: figures that must be exact, and damaged files."""
    only: tuple[str, ...] = ()
    """Names of the checks to run, as the table has them; by default all."""
    out: str | None = None
    """Write the outcomes to this JSON file."""
    json: bool = False
    """One JSON document on stdout."""


def selftest(arguments: list[str]) -> int:
    options = parse(SelftestOptions, "selftest", arguments)
    if options.quick and options.only:
        raise UsageError("--quick chooses the checks, --only names them: give one of them")
    check_file(options.out, "--out")
    from alexnet.core.config import to_json
    from alexnet.core.console import say
    from alexnet.core.runs import environment, write_json
    from alexnet.selftest.checks import table
    from alexnet.selftest.trial import QUICK, selftest

    outcomes = selftest(QUICK if options.quick else options.only, (lambda _: None) if options.json else say)
    seconds = sum(outcome.seconds for outcome in outcomes)
    numbers = {result: sum(o.result == result for o in outcomes) for result in ("passed", "failed", "skipped")}
    document = {"checks": to_json(outcomes), **numbers, "seconds": seconds, "environment": environment()}
    if options.out is not None:
        write_json(Path(options.out), document)
    if options.json:
        print_json(document)
    else:
        print(table(outcomes))
        said = ", ".join(f"{number} {result}" for result, number in numbers.items())
        print(f"{said}; {seconds:.0f} s on {os.cpu_count()} cores")
    return 3 if numbers["failed"] else 0
