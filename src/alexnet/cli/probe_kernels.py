"""`alexnet probe kernels`."""

# No `from __future__ import annotations`: tyro must see the types of options.
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alexnet.cli.shared import ModelOptions, Word, clear_probe, load_model, machine_of, parse, print_json, probe_folder
from alexnet.core.errors import UsageError, printable

if TYPE_CHECKING:
    from alexnet.probes.kernels import Kernels


@dataclass(frozen=True, kw_only=True)
class KernelOptions(ModelOptions):
    """Where kernels come from."""

    model: Word
    """Run directory, model folder, or a .npy, .npz or .safetensors file with conv1's weights (K, C, rows, columns)."""
    layer: str | None = None
    """conv1, or conv2 as the sum of conv1's kernels that it is if the network were linear between them."""
    towers: int | None = None
    """Equal towers in a file of weights; 1 by default."""
    channel_order: Literal["rgb", "bgr"] | None = None
    """Order of the color channels in a file of weights; rgb by default."""
    out: str | None = None
    """Folder to write; by default the folder probes of the run."""


@dataclass(frozen=True, kw_only=True)
class Options(KernelOptions):
    """The kernels of the first layer as pictures, tower below tower (Figure 3).

    alexnet probe kernels runs/mine --scale common
    """

    scale: Literal["each", "common"] = "each"
    """Each kernel on its own scale, or one scale for all."""


def run(arguments: list[str]) -> int:
    options = parse(Options, "probe kernels", arguments)
    import numpy as np

    from alexnet.core.runs import environment, write_json
    from alexnet.report.pictures import save_pictures
    from alexnet.report.pictures.kernels import SCALES, draw_kernels

    folder = probe_folder(options)
    kernels, source = read_kernels(options)
    peak_K = np.abs(kernels.kernels_KCRS).max((1, 2, 3)).astype(float)
    num, channels, rows, columns = kernels.kernels_KCRS.shape
    document = {
        "probe": "kernels",
        "summary": {
            "layer": kernels.layer,
            "kernels": num,
            "towers": kernels.num_towers,
            "scale": SCALES[options.scale],
        },
        **source,
        "layer": kernels.layer,
        "n": num,
        "shape": [num, channels, rows, columns],
        "towers": kernels.num_towers,
        "largest_weight": float(peak_K.max()),
        "largest_weights": peak_K.tolist(),
        "data": None,
        "seed": None,
        "protocol": {
            "pictures": kernels.how,
            "channel_order": "rgb",
            "scale": options.scale,
            "scaling": SCALES[options.scale],
        },
        "environment": environment(),
    }
    clear_probe(folder, "kernels.json", "kernels.png")
    figure = draw_kernels(
        kernels.kernels_KCRS, kernels.num_towers, layer=kernels.layer, how=kernels.how, scale=options.scale
    )
    save_pictures(folder, {"kernels.png": figure})
    write_json(folder / "kernels.json", document)
    if options.json:
        print_json(document)
        return 0
    print(
        f"{kernels.layer}: {num} kernels of {rows} x {columns} pixels in {kernels.num_towers} tower(s); {kernels.how}"
    )
    print(f"largest weights from {peak_K.min():.3g} to {peak_K.max():.3g}; {SCALES[options.scale]}")
    print(f"{printable(folder / 'kernels.png')}\n{printable(folder / 'kernels.json')}")
    return 0


def read_kernels(options: KernelOptions) -> "tuple[Kernels, dict[str, Any]]":
    """The kernels that the options name, and whose they are, for the JSON document."""
    from alexnet.core.runs import sha256_file
    from alexnet.probes.features import model_fingerprint
    from alexnet.probes.kernels import is_weights_file, kernels_of, read_conv1

    path = Path(options.model)
    if is_weights_file(path):
        if options.layer not in (None, "conv1"):
            raise UsageError(f"--layer is {printable(options.layer)}; a file of weights is read for conv1 only")
        kernels = read_conv1(path, 1 if options.towers is None else options.towers, options.channel_order or "rgb")
        return kernels, {"of": path.name, "model": sha256_file(path)}
    for name, value in (("--towers", options.towers), ("--channel-order", options.channel_order)):
        if value is not None:
            raise UsageError(f"{name} is for a file of weights; a run or a model folder knows its own")
    predictor = load_model(options, machine_of(options), "float32")
    kernels = kernels_of(predictor.model, predictor.preprocessing, options.layer)
    return kernels, {"of": predictor.name, "model": model_fingerprint(predictor)}
