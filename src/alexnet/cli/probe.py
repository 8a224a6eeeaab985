"""`alexnet probe KIND MODEL ...`: one command for all kinds, whose options are the settings of the kind."""

# No `from __future__ import annotations`: tyro must see the types of options.
from copy import copy
from dataclasses import dataclass, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import tyro

from alexnet.cli.helptext import listing
from alexnet.cli.shared import ModelOptions, Word, bring_back, check_folder, machine_of, parse, print_json
from alexnet.core.errors import UsageError, printable
from alexnet.probes import KINDS, Probe, keep, probe_of


@dataclass(frozen=True, kw_only=True)
class ProbeOptions(ModelOptions):
    """What is looked into, and where the result goes."""

    model: Word
    """Run directory, checkpoint of a run, or model folder."""
    out: str | None = None
    """Folder to write; by default the folder probes of the run."""


def probe(arguments: list[str]) -> int:
    if not arguments or arguments[0].startswith("-"):
        kinds = {kind: probe_of(kind).TITLE for kind in KINDS}
        print(
            listing("probe KIND MODEL [options]", "kinds", kinds, "`alexnet probe KIND --help` shows the options."),
            end="",
        )
        return 0 if set(arguments) & {"-h", "--help", "--help-all"} else 2
    kind = arguments[0]
    module = probe_of(kind)
    options: Any = parse(options_of(module), f"probe {kind}", arguments[1:])
    settings = module.Settings(**{field.name: getattr(options, field.name) for field in fields(module.Settings)})
    from alexnet.evaluation.subject import folder_for, subject_of

    if options.out is None:
        bring_back(Path(options.model))
    else:
        check_folder(Path(options.out), "--out")
    subject = subject_of(options.model, machine_of(options), settings, best=options.best, data_root=options.data_root)
    if (folder := folder_for(subject, "probes", options.out)) is None:
        raise UsageError(
            f"{printable(options.model)}: not a run, so it has no folder for probes; name a folder with --out"
        )
    finding = module.measure(subject, settings)
    document = keep(kind, finding, settings, folder)
    if options.json:
        print_json(document)
        return 0
    for line in finding.lines:
        print(line)
    for file in (f"{kind}.json", *document["files"]):
        print(printable(folder / file))
    return 0


def options_of(module: Probe) -> type:
    """The options of a kind: its settings, and those that all kinds have. A setting that is marked ``positional`` has no
    hyphens."""
    hints = get_type_hints(module.Settings)
    positional = [
        (field.name, Annotated[hints[field.name], tyro.conf.Positional], copy(field))
        for field in fields(module.Settings)
        if field.metadata.get("positional")
    ]
    options = make_dataclass(
        "Options",
        positional,
        bases=(module.Settings, ProbeOptions),
        namespace={"__doc__": module.Settings.__doc__},
        frozen=True,
        kw_only=True,
    )
    options.__module__ = "types"  # Python 3.12 and later name this module, in which nothing says what the fields are
    return options
