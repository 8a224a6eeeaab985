"""The verb train with photographs in the place of a recipe: it looks at them, makes a plan, says it, and trains."""

# No `from __future__ import annotations`: tyro must see the types of options.
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from operator import attrgetter
from pathlib import Path
from textwrap import wrap
from typing import Annotated, Any

import tyro

from alexnet.cli.helptext import terminal_width
from alexnet.cli.options import given, options_of
from alexnet.cli.settings import Settings
from alexnet.cli.shared import print_json
from alexnet.cli.train import (
    DECIDED,
    FIRST,
    TrainOptions,
    check_out,
    machine_for,
    parsed,
    refuse,
    refuse_unused,
    tell_summary,
    with_kinds,
    with_words,
)
from alexnet.core.config import to_json
from alexnet.core.console import say
from alexnet.core.errors import UsageError, printable
from alexnet.core.runs import standing
from alexnet.distributed import launch as job
from alexnet.interop.weights import weights_here
from alexnet.models.states import read_settings
from alexnet.recipes import auto, modern_photos
from alexnet.recipes import run as runs
from alexnet.recipes.look import look
from alexnet.training.config import TrainConfig
from alexnet.training.files import has_checkpoint, recover, stored_config
from alexnet.training.initial import Initial, load_initial


@dataclass(frozen=True, kw_only=True)
class PhotosOptions(TrainOptions):
    """Train on photographs in class folders, or on any other data, with nothing else said. It looks at the images and at this
    machine, says what it has found and what it will do, and does it. It starts from trained weights if `alexnet weights get`
    has fetched some, or from those of --init-from; else from random ones.

    Every choice is an option, and an option that is given wins. The defaults below are those of `modern_photos`; --dry-run
    shows what is chosen for your images.

    alexnet train photos/

    alexnet train photos/ --minutes 20 --dry-run
    """

    out: Annotated[str | None, tyro.conf.arg(metavar="RUN")] = None
    """Folder to write the run into. By default runs/PHOTOS-1, or the first number that is free; with --resume, the newest."""
    minutes: float | None = None
    """Fit the run into this time, evaluation included. By default it takes at most 15 minutes."""


FIRST_OPTIONS = ("minutes", *(name for name in FIRST if name != "data"))


def train_photos(arguments: list[str], settings: Settings | None = None) -> int:
    """Train on the photographs that the first argument names, with the settings of a file."""
    photos, rest = arguments[0], arguments[1:]
    if settings is not None:
        rest = with_words(settings, PhotosOptions, _ANY, rest)
    with nullcontext() if settings is None else settings.blamed():
        options = _parsed(photos, _ANY, rest)  # what is wrong with them is said before anything is read
    auto.require_data(photos)
    auto.require_minutes(options.minutes)
    if job.in_job():
        raise UsageError(
            f"train {printable(photos)} plans a run of one process: leave torchrun out, or name a recipe and --data"
        )
    if options.fresh and options.out is None:
        raise UsageError("--fresh replaces an earlier run: name it with --out")
    resume = options.resume
    out = Path(options.out or (auto.newest_run if resume else auto.new_run)(photos))
    stored = _stored(out, photos) if resume else None
    if stored and options.minutes is not None:
        raise UsageError("--minutes plans a new run, and --resume goes on with the plan of one: leave one of them out")
    if options.pretrained and options.init_from is None:
        options = replace(options, init_from=weights_here())
    proposal = stored or auto.propose(photos, init_from=options.init_from, data_root=options.data_root)
    options = _parsed(photos, proposal.config, rest)
    refuse(options)
    refuse_unused(options.training, proposal.config, rest)
    check_out(out, resume=resume, fresh=options.fresh or options.dry_run)
    machine = machine_for(options)
    config = options.training
    initial = _initial(options, out, proposal)
    planned = auto.Plan(config, initial, {}, (), config.last_layer == "fitted" and not options.change)
    data = runs.find_data(config, options.data_root, quiet=options.json)
    if stored is None or options.dry_run:
        seen = look(data, photos)
        proposal = replace(proposal, config=config, initial=initial, lines=(*proposal.lines, *_chosen(config, rest)))
        fixed = given(rest) if stored is None else ("epochs", "precision")
        planned = auto.plan(proposal, data, machine, out, minutes=options.minutes, fixed=fixed)
        if options.dry_run and options.json:
            print_json({"look": asdict(seen), "plan": _plan_in_json(planned, out)})
            return 0
        for sentence in (*seen.lines, *planned.lines, f"The run is {printable(out)}."):
            for line in wrap(sentence, terminal_width(), subsequent_indent="  ", break_on_hyphens=False):
                print(line) if options.dry_run else say(line)
        if options.dry_run:
            return 0
    summary = auto.carry_out(
        planned, out, machine, data=data, resume=resume, change=options.change, fresh=options.fresh
    )
    tell_summary(summary, json=options.json)
    return 0


_ANY = replace(modern_photos(), last_layer="fitted")
"""A configuration that any option can change."""


def _parsed(photos: str, config: TrainConfig, rest: list[str]) -> Any:
    base, left = with_kinds(config, rest)
    decided = DECIDED | {"data": "it is what stands after train"}
    return parsed(PhotosOptions, PhotosOptions.__doc__, photos, base, left, FIRST_OPTIONS, decided)


def _stored(out: Path, photos: str) -> auto.Proposal | None:
    """The settings of a run that goes on; None if there is none."""
    recover(out)
    config = stored_config(standing(out))
    return None if config is None else auto.Proposal(replace(config, data=photos), None, ())


def _initial(options: PhotosOptions, out: Path, proposal: auto.Proposal) -> Initial | None:
    """The weights to start from; of a run that goes on before its first checkpoint, those that it began with."""
    if proposal.initial is not None or has_checkpoint(out) or not options.resume:
        return proposal.initial
    source = options.init_from
    if source is None and (out / "config.json").is_file():
        source = read_settings(out).get("initial", {}).get("source")
    return None if source is None else load_initial(source)


def _chosen(config: TrainConfig, rest: Sequence[str]) -> list[str]:
    """A line about what the user decided."""
    fields = {option.path for option in options_of(TrainConfig, config)}
    own = [f"--{path.replace('_', '-')} {_value(attrgetter(path)(config))}" for path in given(rest) if path in fields]
    return [f"As you say: {', '.join(own)}."] if own else []


def _value(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _plan_in_json(planned: auto.Plan, out: Path) -> dict[str, Any]:
    return {
        "run": str(out),
        "initial": None if planned.initial is None else planned.initial.source,
        "seconds": planned.seconds,
        "lines": planned.lines,
        "config": to_json(planned.config),
    }
