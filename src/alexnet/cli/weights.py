"""The verb import: a file of trained weights becomes a model."""

# No `from __future__ import annotations`: tyro must see the types of options.
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from alexnet.cli.shared import Word, check_folder, parse, print_json
from alexnet.core.errors import AlexNetError, UsageError, printable

MAX_NAMES_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Make a model of trained weights: of torchvision's alexnet or of a network of this package, whole or some of its layers.
    The file may be one of torch.save (.pth, .pt, .ckpt), of safetensors, or a checkpoint of another program. Nothing in it is
    run. Layers that it does not hold get random weights; the model can then be trained further.

    alexnet import alexnet-owt-7be5be79.pth --out models/alexnet
    alexnet import checkpoint.ckpt --out models/mine --classes names.txt
    """

    file: Word
    """File of weights."""
    out: Annotated[str, tyro.conf.arg(metavar="MODEL")]
    """Model folder to write; it must not exist yet."""
    classes: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """Text file with the names of the outputs, one a line, in order."""
    network: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Name of the network, needed where several have the same shapes; `alexnet info` lists the names."""
    seed: int = 0
    """Seed for the random weights of the layers that the file does not hold."""
    json: bool = False
    """Print one JSON document on stdout."""


def import_(arguments: list[str]) -> int:
    options = parse(ImportOptions, "import", arguments)
    check_folder(Path(options.out), "--out")
    names = None if options.classes is None else _names(Path(options.classes))
    from alexnet.interop.importing import import_weights

    made = import_weights(options.file, options.out, network=options.network, classes=names, seed=options.seed)
    if options.json:
        print_json(made.to_json())
    else:
        print(*made.lines, sep="\n")
    return 0


def _names(path: Path) -> list[str]:
    from alexnet.core.runs import read_file

    try:
        names = read_file(path, MAX_NAMES_BYTES).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise AlexNetError(f"{printable(path)}: not text in UTF-8; save it so, with one name a line") from None
    names = [name.strip() for name in names if name.strip()]
    if not names:
        raise UsageError(f"{printable(path)} names no classes; write one name a line")
    return names
