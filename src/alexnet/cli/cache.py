"""The verb that shows and empties the cache folder."""

# No `from __future__ import annotations`: tyro must see the types of options.
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from alexnet.cli.shared import complain, parse, print_json
from alexnet.core.errors import AlexNetError, UsageError, printable

if TYPE_CHECKING:
    from alexnet.data.cache import Entry


@dataclass(frozen=True, kw_only=True)
class CacheOptions:
    """List what the cache holds: packed sets with their sources, drawn sets, features, compiled kernels and trained weights that
    were fetched. All of it can be made again while its source is there. The cache is $ALEXNET_CACHE,
    $XDG_CACHE_HOME/alexnet or ~/.cache/alexnet, whichever is set first.

    alexnet cache

    alexnet cache --prune --yes
    """

    remove: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME")] = ()
    """Remove the entries of these names. One that a process uses stays."""
    prune: bool = False
    """Show what nobody needs: sets that were not finished, are damaged, were made by other versions of the decoders, or whose
    source is gone or has a newer set; and features that were not used for 90 days."""
    yes: bool = False
    """With --prune: remove these."""
    json: bool = False
    """One JSON document on stdout."""


def cache(arguments: list[str]) -> int:
    options = parse(CacheOptions, "cache", arguments)
    if options.remove and options.prune:
        raise UsageError("--remove takes names, --prune chooses: give one of them")
    if options.yes and not options.prune:
        raise UsageError("--yes needs --prune: it removes what --prune shows")
    from alexnet.core.runs import cache_folder
    from alexnet.data.cache import entries, named, remove
    from alexnet.data.prepare import decoder_versions

    folder, found = cache_folder(), entries(decoder_versions())
    needless = [entry for entry in found if entry.needless]
    chosen = needless if options.prune else named(options.remove, found)
    removed: list[str] = []
    kept: dict[str, str] = {}
    if options.yes or options.remove:
        for entry in chosen:
            try:
                remove(entry)
                removed.append(entry.name)
            except AlexNetError as error:
                kept[entry.name] = str(error)
    if options.json:
        document: dict[str, Any] = {"cache": str(folder), "entries": [entry.to_json() for entry in found]}
        print_json(document | {"removed": removed, "kept": kept})
        return 1 if kept else 0
    if options.prune or options.remove:
        for entry in chosen:
            if entry.name not in kept:
                verb = "removed " if entry.name in removed else ""
                print(
                    f"{verb}{printable(entry.name)}, {_size(entry.bytes)}{': ' if entry.needless else ''}{entry.needless}"
                )
        for why in kept.values():
            complain(why)
        if options.prune and not options.yes:
            total = _size(sum(entry.bytes for entry in chosen))
            print(f"nothing was removed; add --yes to remove these, {total}" if chosen else "nothing to remove")
        return 1 if kept else 0
    for entry in found:
        _print_entry(entry)
    print(
        f"{len(found)} {'entry' if len(found) == 1 else 'entries'}, {_size(sum(e.bytes for e in found))}, in {printable(folder)}"
    )
    if needless:
        print(f"nobody needs {len(needless)} of them, {_size(sum(e.bytes for e in needless))}: `alexnet cache --prune`")
    return 0


def _print_entry(entry: "Entry") -> None:
    print(printable(entry.name))
    print(f"  {entry.kind}, {_size(entry.bytes)}, used {_ago(time.time() - entry.used)}")
    for source in entry.to_json()["sources"]:
        print(f"  from {printable(source['path'])}{'' if source['exists'] else ' (gone)'}")
    if entry.needless:
        print(f"  nobody needs it: {entry.needless}")


def _size(num: int) -> str:
    value, units = float(num), ["bytes", "KB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "bytes" or value >= 10 else f"{value:.1f} {units[0]}"


def _ago(seconds: float) -> str:
    for length, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= length:
            num = int(seconds // length)
            return f"{num} {unit}{'s' if num > 1 else ''} ago"
    return "just now"
