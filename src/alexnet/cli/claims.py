"""The verb `claims`: the paper on trial."""

# No `from __future__ import annotations`: tyro must see the types of options.
import shutil
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill, shorten
from typing import Any

from rich.console import Console
from rich.text import Text

from alexnet.cli.shared import DeviceOptions, Words, check_folder, machine_of, parse, print_json
from alexnet.core.errors import UsageError, perhaps, printable

USAGE = """usage: alexnet claims list|run|report ...

The paper's 39 countable claims, and what its readers added: what was printed,
what the 2012 program logged, what was measured here.

  list [ID...] [--full]   every claim with its verdict, a line each; with IDs or
                          --full all that is known
  run ID... --scale S     train what decides a claim (C10) or an experiment
                          (lrn), with several seeds, and judge it
  report [--out FILE]     a page of all claims

examples:
  alexnet claims list
  alexnet claims list --full
  alexnet claims list C7 --json
  alexnet claims run C26 --scale cifar10-small --seeds 5
  alexnet claims run lrn --scale photos/ --seeds 5 --out runs/claims
"""

WIDTH = 100
WORD_WIDTH = 19
"""Columns of the longest verdict, "not a fair test yet"."""
STYLES = {
    "confirmed": "green",
    "contradicted": "red",
    "no effect as large": "blue",
    "inconclusive": "yellow",
    "mixed": "magenta",
    "not a fair test yet": "cyan",
    "not tested": "dim",
}
"""Colors of the verdicts on a terminal."""


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """Every claim with its last verdict, one line each; of those named, all that is known.

    alexnet claims list C7 N4
    """

    ids: Words = ()
    """C1 to C39 are the paper's; N1 and on are its readers'."""
    full: bool = False
    """Print all that is known of every claim, not a line each."""
    out: str = "runs/claims"
    """Folder with your own results; they come before the published ones."""
    json: bool = False
    """One JSON document on stdout."""


@dataclass(frozen=True, kw_only=True)
class RunOptions(DeviceOptions):
    """Train every arm with every seed, one result file each, and judge: confirmed, contradicted, no effect as large as the one
    that was looked for, or inconclusive, with the number of seeds that would decide; or not a fair test yet, with the reason.
    What was computed before is read, never written again; what was stopped goes on.

    alexnet claims run C26 --scale cifar10-small --seeds 5
    """

    ids: Words
    """Claims (C10) or experiments (lrn)."""
    scale: str = "smoke"
    """smoke (only shows that the code runs), cifar10-small, imagenette, imagenet, or a folder or packed set of your own
    photographs. cifar10 and fashion-mnist are history: their arms were not tuned alike."""
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
    if not arguments or arguments[0] in ("-h", "--help", "--help-all"):
        print(USAGE, end="")
        return 0 if arguments else 2
    if arguments[0] not in verbs:
        raise UsageError(f"claims {printable(arguments[0])}: there are {', '.join(verbs)}; `alexnet claims --help`")
    return verbs[arguments[0]](arguments[1:])


def _list(arguments: list[str]) -> int:
    options = parse(ListOptions, "claims list", arguments)
    from alexnet.claims.documents import read_documents
    from alexnet.claims.ledger import CLAIMS, find_claim
    from alexnet.claims.scales import HISTORY
    from alexnet.claims.verdicts import CHOSEN_ON_TEST_IMAGES, entries, words

    chosen = [find_claim(name).id for name in options.ids] or [claim.id for claim in CLAIMS]
    known = entries(read_documents(options.out))
    found = [entry for entry in known if entry["claim"]["id"] in chosen]
    if options.json:
        print_json(found)
        return 0
    console = Console(highlight=False, emoji=False, soft_wrap=True)
    if options.ids or options.full:
        for entry in found:
            claim = entry["claim"]
            console.print(
                Text(f"\n{claim['id']} ({claim['section']}) ").append(f"[{words(entry)}]", _style(words(entry)))
            )
            _print_entry(console, entry)
        if any(row["scale"] in HISTORY for entry in found for row in entry["comparisons"]):
            console.print(Text("\n" + fill(CHOSEN_ON_TEST_IMAGES, WIDTH)))
        return 0
    width = min(WIDTH, shutil.get_terminal_size((WIDTH, 0)).columns)
    for entry in known:
        _print_line(console, entry, width)
    for line in ("", *_summary(known), ""):
        console.print(Text(fill(line, width)))
    console.print(Text("all about a claim:       alexnet claims list C7"))
    console.print(Text("all about every claim:   alexnet claims list --full"))
    console.print(Text("train and judge a claim: alexnet claims run C26 --scale cifar10-small --seeds 5"))
    return 0


def _print_line(console: Console, entry: dict[str, Any], width: int) -> None:
    """A claim, its verdict, and as much of its sentence as the line has room for."""
    from alexnet.claims.verdicts import short_word

    word = short_word(entry)
    text = Text(f"{entry['claim']['id']:<4}").append(f"{word:<{WORD_WIDTH}} ", _style(word))
    console.print(text.append(shorten(entry["claim"]["sentence"], width - len(text), placeholder=" ...")))


def _summary(known: list[dict[str, Any]]) -> list[str]:
    """How many claims have a verdict, and how many have which word."""
    from alexnet.claims.verdicts import counts

    num = counts(known)
    words = Counter(entry["verdict"].partition(":")[0] for entry in known)
    several = ", ".join(f"{count} {word}" for word, count in words.most_common())
    return [
        f"{num['decided']} of these {num['entries']} entries have a verdict, {num['paper_decided']} of the paper's "
        f"{num['paper']} (C1 to C{num['paper']}); {num['trained']} of the verdicts come from training networks.",
        f"All entries: {several}.",
    ]


def _style(words: str) -> str:
    """The color of a verdict on a terminal; of several, that of mixed ones."""
    found = {style for word, style in STYLES.items() if word in words}
    return found.pop() if len(found) == 1 else STYLES["mixed"]


def _print_entry(console: Console, entry: dict[str, Any]) -> None:
    from alexnet.claims.verdicts import is_history

    claim = entry["claim"]
    console.print(Text(fill(claim["sentence"], WIDTH, initial_indent="  ", subsequent_indent="  ")))
    lines = [("printed", claim["printed"]), ("logged in 2012", claim["logged"]), ("decides", claim["decides"])]
    for fact in entry["facts"]:
        source = "In print" if fact["source"] == "read" else "Computed"
        lines.append((fact["verdict"], f"{fact['statement']} {source}: {fact['computed']}"))
    for row in entry["comparisons"]:
        lines += [(row["verdict"], row["text"]), *(("note", note) for note in row["notes"])]
    lines += [("again", command) for command in dict.fromkeys(row["command"] for row in entry["comparisons"])]
    lines += [("to decide", command) for command in dict.fromkeys(row["to_decide"] for row in entry["comparisons"])]
    lines.append(("see also", claim["elsewhere"]))
    lines.append(("the rest is not tested" if entry["facts"] else "not tested", entry["why"]))
    lines.append(("with all arms tuned" if is_history(entry) else "to try it", entry["to_try"]))
    for experiment in entry["experiments"]:
        lines.append(
            (f"experiment {experiment['id']}", f"{experiment['title']}; scales {', '.join(experiment['scales'])}")
        )
    for label, text in lines:
        if text:
            shown = fill(printable(f"{label}: {text}"), WIDTH, initial_indent="    ", subsequent_indent="      ")
            line = Text(shown)
            if label in STYLES:
                line.stylize(STYLES[label], 4, 4 + len(label))
            console.print(line)


def _run(arguments: list[str]) -> int:
    options = parse(RunOptions, "claims run", arguments)
    if options.seeds < 1:
        raise UsageError(f"--seeds is {options.seeds}; it must be at least 1")
    if not options.ids:
        raise UsageError("claims run needs a claim or an experiment, such as C13; `alexnet claims list` names them")
    check_folder(Path(options.out), "--out")
    from alexnet.claims.documents import judged_with_all
    from alexnet.claims.groups import find_experiments
    from alexnet.claims.laboratory import open_laboratory
    from alexnet.claims.runner import run_experiment
    from alexnet.claims.scales import SCALES, find_scale
    from alexnet.claims.verdicts import CHOSEN_ON_TEST_IMAGES, sentence, to_decide

    experiments = {e.id: e for name in options.ids for e in find_experiments(name)}
    if options.scale not in SCALES and not Path(options.scale).exists():
        near = perhaps(options.scale, SCALES)
        raise UsageError(
            f"{printable(options.scale)}: no such scale, folder or packed set{near}; the scales are {', '.join(SCALES)}"
        )
    machine = machine_of(options)
    scale, notes = find_scale(options.scale).on(machine.device)
    lab = open_laboratory(scale.name, Path(options.out), machine, options.data_root, notes)
    documents = []
    for experiment in experiments.values():
        if not experiment.fits(scale.name):
            where = f"`{experiment.id}` is for {', '.join(experiment.scales)}"
            print(f"{', '.join(experiment.claims)} not at this scale: {where}", file=sys.stderr)
            continue
        run_experiment(experiment, scale, range(options.seeds), lab)
        documents.append(judged_with_all(experiment.id, scale.name, options.out))
        if not options.json:
            for row in documents[-1]["comparisons"]:
                print(f"{row['claim']} {row['verdict']}: {sentence(row)}", flush=True)
                for note in row["notes"]:
                    print(f"    note: {note}", flush=True)
            if command := to_decide(documents[-1]):
                print(f"to decide what is inconclusive: {command}", file=sys.stderr)
    if options.json:
        print_json(documents)
    print(f"{printable(scale.name)}: {scale.says}", file=sys.stderr)
    if scale.is_history:
        print(f"{scale.name}: kept as history. {CHOSEN_ON_TEST_IMAGES} Take cifar10-small.", file=sys.stderr)
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
