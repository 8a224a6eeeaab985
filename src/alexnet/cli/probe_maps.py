"""`alexnet probe maps`."""

# No `from __future__ import annotations`: tyro must see the types of options.
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alexnet.cli.shared import ModelOptions, Word, clear_probe, machine_of, parse, print_json, probe_folder, subject_of
from alexnet.core.errors import UsageError, printable

if TYPE_CHECKING:
    from alexnet.evaluation.predict import Predictor
    from alexnet.evaluation.subject import Subject


STRONGEST = 8
"""Channels to show where none are named."""


@dataclass(frozen=True, kw_only=True)
class Options(ModelOptions):
    """What a layer answers to an image, and which crops of a data set excite its channels most; either, or both. Without
    --image and --channels: the channels that answer most strongly.

    alexnet probe maps runs/mine

    alexnet probe maps runs/mine --layer conv5 --image cat.jpg

    alexnet probe maps runs/mine --layer conv5 --channels 0 5 9 --top 9
    """

    model: Word
    """Run directory, checkpoint of a run, or model folder."""
    layer: str | None = None
    """Layer to look at: by default conv5, or the last convolution of a network without one; a wrong name lists all.
    In fully connected layers channels are units, and each sees the whole image."""
    image: str | None = None
    """Image whose activations are drawn, and written to maps.npy."""
    show: int = 40
    """Channels drawn for the image: those with the largest activations."""
    channels: tuple[int, ...] = ()
    """Channels whose most exciting crops are looked for in the data."""
    top: int = 9
    """Crops for each channel, at most one of an image."""
    data: str | None = None
    """Packed directory, folder, CSV or named set; by default that of the run."""
    split: str | None = None
    """all, train, val or test; by default the images that the run held out or, of other data, its val or test images, or all
    where it names no splits."""
    precision: Literal["float32", "tf32", "bfloat16", "float64"] = "float32"
    """Number format to compute in."""
    out: str | None = None
    """Folder to write; by default the folder probes of the run."""


def run(arguments: list[str]) -> int:
    options = parse(Options, "probe maps", arguments)
    from alexnet.core.config import to_json
    from alexnet.core.runs import environment, write_json
    from alexnet.evaluation.predict import model_fingerprint
    from alexnet.probes.features import POSITIONS
    from alexnet.probes.layers import usual_layer

    if options.show < 1:
        raise UsageError(f"--show is {options.show}; it must be at least 1")
    if options.top < 1:
        raise UsageError(f"--top is {options.top}; it must be at least 1")
    folder, machine = probe_folder(options), machine_of(options)
    subject = subject_of(options, machine)
    predictor = subject.predictor
    layer = usual_layer(predictor.model, options.layer, "conv5")
    options = replace(options, layer=layer.name)
    field = layer.field
    document: dict[str, Any] = {
        "probe": "maps",
        "summary": {
            "layer": layer.name,
            "a unit sees": "the whole image" if field is None else f"{field.size} x {field.size} pixels",
        },
        "of": predictor.name,
        "model": model_fingerprint(predictor),
        "layer": layer.name,
        "shape": list(layer.shape),
        "receptive_field": None
        if field is None
        else {"size": field.size, "stride": field.stride, "offset": field.offset},
        "image": None,
        "n": 0,
        "data": None,
        "seed": None,
        "protocol": {
            "view": "center",
            "positions": POSITIONS,
            "precision": options.precision,
            "preprocessing": to_json(predictor.preprocessing),
            "boxes": "(top, left, bottom, right), the last two excluded; view_box in pixels of the network's input, cut at "
            "its borders, stored_box in pixels of the stored image at the size of the preprocessing's resize",
        },
        "environment": environment(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    lines: list[str] = []
    if options.image is not None:
        written += _image(options, predictor, folder, document, lines)
    if options.channels or options.image is None:
        written += _patches(options, subject, folder, document, lines)
    clear_probe(folder, *({"maps-image.png", "maps.npy", "maps-patches.png"} - {path.name for path in written}))
    write_json(folder / "maps.json", document)
    if options.json:
        print_json(document)
        return 0
    sees = "every unit sees the whole image"
    if field is not None:
        sees = f"a unit sees {field.size} x {field.size} pixels, {field.stride} from the next, the first from {field.offset} on"
    print(f"{layer.name}: {' x '.join(map(str, layer.shape))}; {sees}")
    for line in lines:
        print(line)
    for path in (*written, folder / "maps.json"):
        print(printable(path))
    return 0


def _image(
    options: Options, predictor: "Predictor", folder: Path, document: dict[str, Any], lines: list[str]
) -> list[Path]:
    import numpy as np

    from alexnet.core.runs import write_atomic
    from alexnet.probes.maps import maps_of
    from alexnet.report.pictures import save_pictures
    from alexnet.report.pictures.maps import draw_maps

    assert options.image is not None
    assert options.layer is not None
    maps = maps_of(predictor, options.image, options.layer)
    strongest = maps.strongest(options.show)
    channels = maps.to_json()
    document["image"] = {"path": options.image, "drawn": strongest, "channels": channels}
    clear_probe(folder, "maps.json")
    figure = draw_maps(maps.view_SSC, maps.activation_CHW, strongest, layer=options.layer)
    save_pictures(folder, {"maps-image.png": figure})
    write_atomic(folder / "maps.npy", lambda file: np.save(file, maps.activation_CHW, allow_pickle=False))
    first = ", ".join(f"{c} ({channels[c]['max']:.3g})" for c in strongest[:8])
    active = sum(channel["max"] > 0 for channel in channels)
    lines.append(
        f"{printable(options.image)}: {active} of {len(channels)} channels have an activation above 0; largest: {first}"
    )
    return [folder / "maps-image.png", folder / "maps.npy"]


def _patches(
    options: Options,
    subject: "Subject",
    folder: Path,
    document: dict[str, Any],
    lines: list[str],
) -> list[Path]:
    from alexnet.core.console import Bar
    from alexnet.evaluation.subject import provenance
    from alexnet.probes.layers import find_layers
    from alexnet.probes.maps import field_size, patch_pixels, top_patches
    from alexnet.report.pictures import save_pictures
    from alexnet.report.pictures.maps import Tile, draw_patches

    assert options.layer is not None
    predictor, packed, split = subject.predictor, subject.packed, subject.images
    name = packed.source
    (layer,) = find_layers(predictor.model, [options.layer])
    with Bar(f"{options.layer} of {split.name}", len(split), quiet=options.json) as bar:
        found = top_patches(
            predictor,
            split,
            options.layer,
            options.channels or range(layer.shape[0]),
            options.top,
            workers=subject.machine.workers,
            progress=lambda done, _total: bar.update(done),
        )
    if not options.channels and len(found) > STRONGEST:
        found = sorted(found, key=lambda channel: (-channel.patches[0].activation, channel.channel))[:STRONGEST]
        lines.append(
            f"the {STRONGEST} of {layer.shape[0]} channels with the largest activations; --channels names others"
        )
    document |= {"n": len(split), "top": options.top, "data": provenance(name, packed, split.name)}
    document["channels"] = [channel.to_json() for channel in found]
    rows = []
    for channel in found:
        pixels = patch_pixels(predictor, split, layer, channel.patches)
        tiles = [
            Tile(pixels_HWC, place, patch.activation)
            for (pixels_HWC, place), patch in zip(pixels, channel.patches, strict=True)
        ]
        rows.append((f"{'channel' if layer.field else 'unit'} {channel.channel}", tiles))
        best = channel.patches[0]
        lines.append(
            f"channel {channel.channel}: above 0 in {channel.images_above_zero:,} of {len(split):,} images; most in "
            f"{printable(best.path)} ({best.activation:.3g})"
        )
    size = field_size(layer, predictor.preprocessing)
    title = (
        f"{options.layer} of {predictor.name}: the crops of the {len(split):,} images of {split.name} that excite a channel "
        f"most, one of an image at most; {size} x {size} pixels, what lies outside the image is grey; activations below"
    )
    clear_probe(folder, "maps.json")
    save_pictures(folder, {"maps-patches.png": draw_patches(rows, size, title=title)})
    return [folder / "maps-patches.png"]
