"""The verb features."""

# No `from __future__ import annotations`: tyro must see the types of options.
from dataclasses import dataclass
from typing import Literal

from alexnet.cli.shared import ModelOptions, Word, machine_of, parse, print_part, tell
from alexnet.core.errors import UsageError


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
    layers: tuple[str, ...] | None = None
    """Their names, by default fc7, or the last hidden layer that holds trained weights; a wrong one lists all. fc7 is read after
    its ReLU and before the test-time halving, dropout7 after it."""
    data: str | None = None
    """Packed directory, folder, archive, Parquet files, CSV or named set; by default that of the run."""
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
    if options.layers == ():
        raise UsageError("--layers names no layer; name one or more, or leave it out")
    from alexnet.core.parts import parse_part
    from alexnet.probes.features import Features, features

    found = features(
        options.model,
        options.layers or (),
        options.out,
        options.data,
        machine_of(options),
        split=options.split,
        dtype=options.dtype,
        precision=options.precision,
        batch_size=options.batch_size,
        part=options.part,
        best=options.best,
        data_root=options.data_root,
    )
    if isinstance(found, Features):
        tell(found.finding(options.data), options)
    else:
        print_part({"features": options.out}, parse_part(options.part or ""), found, json=options.json)
    return 0
