"""The verbs that bring trained weights in: weights fetches those that are known by name, import makes a model of a file."""

# No `from __future__ import annotations`: tyro must see the types of options.
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from alexnet.cli.shared import Word, Words, check_folder, parse, print_json
from alexnet.core.config import to_json
from alexnet.core.errors import AlexNetError, UsageError, printable

if TYPE_CHECKING:
    from alexnet.interop.weights import Known

MAX_NAMES_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True)
class WeightsOptions:
    """List the trained weights that are known by name: what they are, their license, where they can be had, and whether they are
    here. `get NAME` fetches some into the cache, compares them with their SHA-256, and goes on where it was cut off. Nothing
    is ever fetched without it.

    alexnet weights
    alexnet weights get alexnet-owt
    """

    words: Annotated[Words, tyro.conf.arg(metavar="get NAME")] = ()
    """Nothing, to list the weights; or `get` and the name of the weights to fetch."""
    json: bool = False
    """Print one JSON document on stdout."""


def weights(arguments: list[str]) -> int:
    options = parse(WeightsOptions, "weights", arguments)
    from alexnet.core.console import Bar
    from alexnet.interop.weights import KNOWN, fetch, known

    if not options.words:
        if options.json:
            print_json([_record(each) for each in KNOWN])
        else:
            print("\n\n".join("\n".join(_lines(each)) for each in KNOWN))
        return 0
    if len(options.words) != 2 or options.words[0] != "get":
        raise UsageError(
            f"weights does not know {printable(' '.join(options.words))!r}; `alexnet weights get NAME` fetches, and "
            "`alexnet weights` lists the names"
        )
    each = known(options.words[1])
    with Bar(f"fetch {each.name}", each.bytes // 10**6, "MB", quiet=options.json) as bar:
        path = fetch(each, lambda done, total: bar.update(done // 10**6, total=total // 10**6))
    if options.json:
        print_json(_record(each))
    else:
        print(f"{each.name}: {printable(path)}")
        print(f"license: {each.license}; origin: {each.origin}")
        print(f"to make a model of it: alexnet import {each.name} --out MODEL")
    return 0


def _record(each: "Known") -> dict[str, Any]:
    path, here = each.path(), each.is_here()
    return {**to_json(each), "here": here, "path": str(path)}


def _lines(each: "Known") -> list[str]:
    path = each.path()
    here = f"here: {printable(path)}" if each.is_here() else f"not here; `alexnet weights get {each.name}` fetches it"
    if path.is_file() and not each.is_here():
        here = f"damaged: {printable(path)}; `alexnet weights get {each.name}` fetches it again"
    return [
        each.name,
        f"  {each.what}",
        f"  layers: {each.layers}; {each.bytes / 1e6:.0f} MB",
        f"  license: {each.license}",
        f"  from {each.origin}",
        f"  SHA-256 {each.sha256}",
        f"  {here}",
    ]


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Make a model of trained weights, of a file or of what `alexnet weights get NAME` has fetched: AlexNet as torchvision has
    it, or a network of this package, whole or some of its layers. A file may be one of torch.save (.pth, .pt, .ckpt), of
    safetensors, or a checkpoint of another program. Nothing in it is run. Layers that it does not hold get random weights; the
    model can then be trained further.

    alexnet import alexnet-owt --out models/alexnet
    alexnet import checkpoint.ckpt --out models/mine --classes names.txt
    """

    file: Word
    """File of weights, or the name of weights that were fetched."""
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
