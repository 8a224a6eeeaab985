"""The verb export: a trained network as a file of another program."""

# No `from __future__ import annotations`: tyro must see the types of options.
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from alexnet.cli.shared import ModelOptions, Word, check_folder, machine_of, parse, print_json


@dataclass(frozen=True, kw_only=True)
class ExportOptions(ModelOptions):
    """Write a trained network as a file that other programs read. The file is read back at once and asked about pictures: if it
    does not answer what the network answers, it is not left there. The network answers on --device, ONNX and torch-export files
    on the CPU.

    torchvision is a state dict for torchvision.models.alexnet, of networks that this can hold; safetensors the weights by
    their names here; torch-export a program of torch.export; onnx a graph for ONNX programs; hub a folder as it stands on the
    Hugging Face Hub, with a model card.

    alexnet export runs/mine --to onnx --out mine.onnx
    alexnet export runs/mine --to onnx --with-preprocessing --out photos.onnx
    alexnet export runs/mine --to hub --out folder --license mit
    """

    model: Word
    """Run directory, checkpoint of a run, or model folder."""
    to: Literal["torchvision", "safetensors", "torch-export", "onnx", "hub"]
    """Format to write."""
    out: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """File to write, or folder for hub; it must not exist yet."""
    with_preprocessing: bool = False
    """Put resizing, cropping and scaling into the ONNX graph: it takes photographs (batch, height, width, channels) of uint8 and
    gives names of classes."""
    pictures: str | None = None
    """Folder or file of pictures for the check; by default the images that the run held out, if they are here, else drawn
    ones."""
    license: str | None = None
    """License of the weights, for the card that hub writes, such as mit or cc-by-4.0."""


def export(arguments: list[str]) -> int:
    options = parse(ExportOptions, "export", arguments)
    check_folder(Path(options.out).parent, "--out")
    from alexnet.interop.exporting import export

    done = export(
        options.model,
        options.to,
        options.out,
        machine_of(options),
        pictures=options.pictures,
        with_preprocessing=options.with_preprocessing,
        license=options.license,
        best=options.best,
        data_root=options.data_root,
    )
    if options.json:
        print_json(done.to_json())
    else:
        print(*done.lines, sep="\n")
    return 0
