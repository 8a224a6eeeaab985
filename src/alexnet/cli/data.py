"""The verbs that read pictures: prepare, check."""

# No `from __future__ import annotations`: tyro must see the types of options.
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from alexnet.cli.shared import Word, check_workers, parse, print_json, print_part
from alexnet.core.errors import UsageError, printable

if TYPE_CHECKING:
    from alexnet.evaluation.subject import Subject
    from alexnet.probes.alike import Alikes

ALIKE = {
    "leak": ("perhaps a leak between splits", "between splits"),
    "conflict": ("in different classes", "in different classes"),
    "duplicate": ("in one class", "in one class"),
}
SHOWN_ALIKE = 20
"""Pairs of images that are alike, at most, on the screen; --json has all."""


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """Decode every image once: short side to --size, center square, as plain NumPy files with checksums, the mean image
    and the color statistics. Interrupted, the same command goes on.

    alexnet prepare photos/ packed/

    alexnet prepare photos/ packed/ --part 2/4
    """

    source: Word
    """Folder (train/ and val/ of class folders, or class folders alone), .csv of path,label, .zip, .tar or .tar.gz,
    .parquet, IDX or CIFAR-10 files, the ILSVRC files, or a named set (a folder called like one is ./NAME)."""
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
    part: str | None = None
    """I/N: every N-th piece of the work only, from the I-th on.
    Run all N with the same options, on any hosts that share PACKED; the last to end joins them, to the bytes of one process."""
    max_bad: float | None = None
    """Unreadable images to put up with: a count, or a fraction if below 1."""
    sample_max: int | Literal["set"] | None = None
    """Sample that is white in files of more than 8 bits: 4095 for those of a 12-bit camera, or set: the largest in the training
    images. By default the largest that each file allows."""
    data_root: str | None = None
    """Where named sets are; by default $ALEXNET_DATA."""
    json: bool = False
    """One JSON document on stdout."""


def prepare(arguments: list[str]) -> int:
    options = parse(PrepareOptions, "prepare", arguments)
    check_workers(options.workers)
    if options.max_bad is not None and not 0 <= options.max_bad < float("inf"):
        raise UsageError(f"--max-bad is {options.max_bad}; it must be a count, or a fraction below 1")
    from alexnet.core.console import Bar
    from alexnet.core.parts import parse_part
    from alexnet.data.packed import open_packed
    from alexnet.data.prepare import prepare, prepare_part
    from alexnet.data.sources import class_lines

    part = None if options.part is None else parse_part(options.part)
    with Bar("prepare", 0, quiet=options.json) as bar:
        settings: dict[str, Any] = {
            "data_root": options.data_root,
            "size": options.size,
            "store": options.store,
            "workers": options.workers,
            "seed": options.seed,
            "max_bad": options.max_bad,
            "sample_max": options.sample_max,
            "progress": bar,
        }
        if part is None:
            packed = prepare(options.source, options.packed, **settings)
            left = []
        else:
            left = prepare_part(options.source, options.packed, part, **settings)
    if part is not None and left:
        print_part({"packed": options.packed}, part, left, json=options.json)
        return 0
    if part is not None:
        packed = open_packed(options.packed)
    rejected = packed.meta["rejected"]
    if options.json:
        print_json(
            {
                "packed": str(packed.path),
                **{k: packed.meta[k] for k in ("classes", "counts", "rejected", "fingerprint")},
            }
        )
        return 0
    print("\n".join(class_lines(packed.classes, packed.class_counts)))
    for note in packed.meta["notes"][:20]:
        print(f"note: {printable(note)}")
    print(f"{printable(packed.path)}: images of {packed.size} x {packed.size} pixels; {len(rejected):,} files rejected")
    for fault in rejected[:20]:
        print(f"  rejected {printable(fault['path'])}: {printable(fault['reason'])}")
    return 0


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Read everything as `prepare` would, write nothing, list every fault. Exit 4 if there is one.

    alexnet check photos/

    alexnet check photos/ --model runs/mine
    """

    source: Word
    """Anything `prepare` reads, or a packed directory. A folder called like a named set is ./NAME."""
    workers: int | None = None
    """Processes; by default one for each core."""
    seed: int = 0
    """Seed for the hold-out where the source has no split."""
    sample_max: int | Literal["set"] | None = None
    """Sample that is white in files of more than 8 bits: 4095 for those of a 12-bit camera, or set: the largest in the training
    images. By default the largest that each file allows."""
    model: str | None = None
    """Run, checkpoint or model folder, by whose features images are found that are alike and not equal, such as a photograph and
    a smaller copy of it, between splits (perhaps a leak), between classes, or within one. The set is then kept in the cache."""
    data_root: str | None = None
    """Where named sets are; by default $ALEXNET_DATA."""
    json: bool = False
    """One JSON document on stdout: {"faults": [{path, reason}], "notes": [...], "classes": [{name, train, val, test}],
    "found": {files, accepted, rejected, not_images}} (the counts of a source only); with --model also "alike": {pairs: [{path,
    other, kind, distance}], layer, limit, n}."""


def check(arguments: list[str]) -> int:
    options = parse(CheckOptions, "check", arguments)
    check_workers(options.workers)
    from alexnet.core.console import Bar
    from alexnet.data.check import check
    from alexnet.data.sources import SPLITS, class_lines

    subject = None if options.model is None else _subject(options, options.model)
    with Bar("check", 0, quiet=options.json) as bar:
        found = check(
            options.source,
            data_root=options.data_root,
            workers=options.workers,
            seed=options.seed,
            sample_max=options.sample_max,
            progress=bar,
        )
    alike = None
    if subject is not None:
        from alexnet.probes.alike import alikes

        alike = alikes(subject)
        found["alike"] = asdict(alike)
    if options.json:
        print_json(found)
    else:
        if rows := found.get("classes"):
            of_split = {split: [row[split] for row in rows] for split in SPLITS if split in rows[0]}
            print("\n".join(class_lines([row["name"] for row in rows], of_split)))
        for fault in found["faults"]:
            print(f"fault: {printable(fault['path'])}: {printable(fault['reason'])}")
        for note in found["notes"]:
            print(f"note: {printable(note)}")
        if alike is not None:
            _tell_alike(alike)
        if counts := found.get("found"):
            print(
                f"{counts['files']:,} files: {counts['accepted']:,} images, {counts['rejected']:,} rejected, "
                f"{counts['not_images']:,} not images"
            )
        faults, notes = len(found["faults"]), len(found["notes"])
        print(f"{faults} fault{'s' if faults != 1 else ''}, {notes} note{'s' if notes != 1 else ''}")
    return 4 if found["faults"] else 0


def _subject(options: CheckOptions, model: str) -> "Subject":
    """The model, opened before anything is read, and the images that it is asked about."""
    from alexnet.core.device import Machine, choose_device
    from alexnet.evaluation.subject import Subject

    machine = Machine(device=choose_device(), quiet=options.json)
    subject = Subject(
        model=model, machine=machine, data=options.source, precision="float32", data_root=options.data_root
    )
    _ = subject.predictor
    return subject


def _tell_alike(alike: "Alikes") -> None:
    for pair in alike.pairs[:SHOWN_ALIKE]:
        print(f"alike: {printable(pair.path)} and {printable(pair.other)}: {ALIKE[pair.kind][0]}")
    near = f"as near in {alike.layer} as smaller, compressed copies are to their originals"
    if not alike.pairs:
        print(f"no two of the {alike.n:,} images are {near}")
        return
    counts = ", ".join(
        f"{sum(pair.kind == kind for pair in alike.pairs):,} {many}" for kind, (_, many) in ALIKE.items()
    )
    print(f"{len(alike.pairs):,} pairs of the {alike.n:,} images are {near}: {counts}")
