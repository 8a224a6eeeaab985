"""The verb features."""

# No `from __future__ import annotations`: tyro must see the types of options.
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from alexnet.cli.shared import ModelOptions, Word, machine_of, parse, print_part, subject_of, tell
from alexnet.core.errors import printable


@dataclass(frozen=True, kw_only=True)
class FeaturesOptions(ModelOptions):
    """The activations of named layers for every image of a split, as NumPy files: a row an image, once each.

    alexnet features runs/mine --data photos/ --layers fc6 fc7 --out features/

    alexnet features runs/mine --layers fc6 fc7 --out features/ --part 2/4
    """

    model: Word
    """Run directory, checkpoint of a run, or model folder."""
    out: str
    """Folder to write."""
    layers: tuple[str, ...] = ("fc7",)
    """Their names; a wrong one lists all. fc7 is read after its ReLU and before the test-time halving, dropout7 after it."""
    data: str | None = None
    """Packed directory, folder, CSV or named set; by default that of the run."""
    split: str | None = None
    """all, train, val or test; by default the images that the run held out or, of other data, its val or test images, or all
    where it names no splits."""
    dtype: Literal["float32", "float16"] = "float32"
    """Number format of the files; float16 takes half the room."""
    precision: Literal["float32", "tf32", "bfloat16", "float64"] = "float32"
    """Number format to compute in."""
    batch_size: int = 128
    """Images that are computed together."""
    part: str | None = None
    """I/N: every N-th piece of the work only, from the I-th on.
    Run all N with the same options, on any hosts that share it; the last to end joins them, to the bytes of one process."""


def features(arguments: list[str]) -> int:
    options = parse(FeaturesOptions, "features", arguments)
    from alexnet.core.parts import parse_part
    from alexnet.evaluation.finding import Finding
    from alexnet.evaluation.lines import images_line
    from alexnet.probes.features import extract, extract_part, open_features

    part = None if options.part is None else parse_part(options.part)
    machine = machine_of(options)
    subject = subject_of(options, machine)
    predictor = subject.predictor
    packed, split = subject.packed, subject.images
    out = Path(options.out)
    with subject.progress("features", len(split)) as bar:
        settings: dict[str, Any] = {
            "classes": packed.classes,
            "dtype": options.dtype,
            "batch_size": options.batch_size,
            "workers": machine.workers,
            "data": subject.provenance(),
            "progress": bar,
        }
        if part is None:
            found, left = extract(predictor, split, options.layers, out, **settings), []
        else:
            left = extract_part(predictor, split, options.layers, out, part, **settings)
    if part is not None and left:
        print_part({"features": options.out}, part, left, json=options.json)
        return 0
    if part is not None:
        found = open_features(out)
    meta = {"features": options.out, **found.meta}
    lines = [images_line(len(found), meta["protocol"], options.data)]
    shapes = {layer: " x ".join(map(str, shape)) for layer, shape in meta["layers"].items()}
    lines += [f"{layer}: {len(found):,} x {shape} {options.dtype}" for layer, shape in shapes.items()]
    tell(
        Finding(
            subject=subject.record(split.name),
            n=len(found),
            summary=shapes,
            body=meta,
            protocol=meta["protocol"],
            lines=[*lines, f"in {printable(options.out)}"],
        ),
        options,
    )
    return 0
