"""The verbs that read pictures: prepare, check."""

# No `from __future__ import annotations`: tyro must see the types of options.
from dataclasses import dataclass
from typing import Literal

from alexnet.cli.shared import Word, parse, print_json
from alexnet.core.errors import printable


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """Decode every image once: short side to --size, center square, as plain NumPy files with checksums, the mean image
    and the color statistics. Interrupted, the same command goes on.

    alexnet prepare photos/ packed/
    """

    source: Word
    """Folder (train/ and val/ of class folders, or class folders alone), .csv of path,label, .tar, IDX or CIFAR-10
    files, the ILSVRC files, or a named set."""
    packed: Word
    """Folder to write."""
    size: int | None = None
    """Side of the stored squares; by default 256, or the size at which an IDX or CIFAR set comes."""
    store: Literal["pixels", "jpeg"] = "pixels"
    """Pixels, or JPEG records for sets beyond the disk."""
    workers: int | None = None
    """Processes; by default one for each core."""
    seed: int = 0
    """Decides which images are held out where the source does not say."""
    max_bad: float | None = None
    """Unreadable images to put up with: a count, or a fraction if below 1."""
    data_root: str | None = None
    """Where named sets are; by default $ALEXNET_DATA."""
    json: bool = False
    """One JSON document on stdout."""


def prepare(arguments: list[str]) -> int:
    options = parse(PrepareOptions, "prepare", arguments)
    from alexnet.core.console import Bar
    from alexnet.data.prepare import prepare

    with Bar("prepare", 0, quiet=options.json) as bar:
        packed = prepare(
            options.source,
            options.packed,
            data_root=options.data_root,
            size=options.size,
            store=options.store,
            workers=options.workers,
            seed=options.seed,
            max_bad=options.max_bad,
            progress=lambda done, total: bar.update(done, total=total),
        )
    rejected = packed.meta["rejected"]
    if options.json:
        print_json(
            {
                "packed": str(packed.path),
                **{k: packed.meta[k] for k in ("classes", "counts", "rejected", "fingerprint")},
            }
        )
        return 0
    for split in packed.splits.values():
        print(f"{split.name}: {len(split):,} images of {packed.size} x {packed.size} pixels")
    print(f"{len(packed.classes):,} classes; {len(rejected):,} files rejected; in {printable(packed.path)}")
    for fault in rejected[:20]:
        print(f"  rejected {printable(fault['path'])}: {fault['reason']}")
    return 0


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Read everything as `prepare` would, write nothing, list every fault. Exit 4 if there is one.

    alexnet check photos/
    """

    source: Word
    """Anything `prepare` reads, or a packed directory."""
    workers: int | None = None
    """Processes; by default one for each core."""
    seed: int = 0
    data_root: str | None = None
    """Where named sets are; by default $ALEXNET_DATA."""
    json: bool = False
    """One JSON document on stdout: {"faults": [{path, reason}], "notes": [...]}."""


def check(arguments: list[str]) -> int:
    options = parse(CheckOptions, "check", arguments)
    from alexnet.core.console import Bar
    from alexnet.data.check import check

    with Bar("check", 0, quiet=options.json) as bar:
        found = check(
            options.source,
            data_root=options.data_root,
            workers=options.workers,
            seed=options.seed,
            progress=lambda done, total: bar.update(done, total=total),
        )
    if options.json:
        print_json(found)
    else:
        for fault in found["faults"]:
            print(f"fault: {printable(fault['path'])}: {printable(fault['reason'])}")
        for note in found["notes"]:
            print(f"note: {printable(note)}")
        print(f"{len(found['faults'])} faults, {len(found['notes'])} notes")
    return 4 if found["faults"] else 0
