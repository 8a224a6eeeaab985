"""A trained network as a file of another program, checked on the spot: the file is read back and must answer what the network
answers, on real pictures where there are any.

Shape suffixes: B images, N pictures, S rows or columns of a square, C channels, H rows, W columns, K classes.
"""

from __future__ import annotations

import io
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from alexnet.core.device import Machine, autocast
from alexnet.core.errors import AlexNetError, UsageError, perhaps, printable, refused
from alexnet.core.runs import environment, fsync_folder
from alexnet.data.builtin import CLASSES, VAL_NUMBERS, draw_picture
from alexnet.data.loader import ahead
from alexnet.data.packed import is_packed
from alexnet.data.pictures import PictureLike, pictures
from alexnet.evaluation.onnx_network import OnnxNetwork, open_onnx
from alexnet.evaluation.predict import Predictor
from alexnet.evaluation.subject import Subject
from alexnet.interop.card import write_hub_folder
from alexnet.interop.onnx_graph import onnx_model
from alexnet.interop.torchvision import from_torchvision, to_torchvision
from alexnet.models import default_preprocessing
from alexnet.models.described import described, description
from alexnet.models.folder import load_model_folder, load_tensors, read_safetensors

To = Literal["torchvision", "safetensors", "torch-export", "onnx", "hub"]
TARGETS: tuple[To, ...] = get_args(To)
NUM_PICTURES = 100
"""Pictures of a check, at most."""
NUM_DRAWN = 24
BATCH = 16
EXACT: frozenset[To] = frozenset({"torchvision", "safetensors", "hub"})
"""These hold the weights bit for bit, and the same program computes with them: no difference is allowed."""
SUFFIXES: dict[To, str] = {"onnx": ".onnx", "torch-export": ".pt2"}
"""Names that files must end in, because the programs that read them ask for it."""
TOLERANCE = 1e-4
"""Largest difference of a score that another order of sums may make, as a share of the largest score."""
PIXEL_TOLERANCE = 1e-2
"""The same where the graph resizes photographs itself: its filter rounds some pixels otherwise than Pillow's."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Exported:
    """What was written, and how it answers."""

    file: Path
    to: To
    network: str
    bytes: int
    n: int
    """Pictures that both were asked."""
    pictures: str
    """Which these are."""
    difference: float
    """Largest difference of a score (logit)."""
    allowed: float
    largest_score: float
    same_first: int
    """Pictures whose most probable class is the same."""
    notes: tuple[str, ...]
    environment: Mapping[str, Any]
    """The machine, the device of the network, and versions."""

    def to_json(self) -> dict[str, Any]:
        return vars(self) | {"file": str(self.file), "notes": list(self.notes)}

    @property
    def lines(self) -> list[str]:
        """The same in words."""
        plural = "picture" if self.n == 1 else "pictures"
        return [
            f"checked on {self.n} {plural}, {self.pictures}",
            f"largest difference of a score: {self.difference:.2g}, of scores up to {self.largest_score:.3g} "
            f"({self.allowed:.2g} is allowed); the same first answer for {self.same_first} of {self.n}",
            *(f"note: {note}" for note in self.notes),
            f"{self.to}: {printable(self.file)} ({self.bytes / 1e6:,.1f} MB)",
        ]


def export(
    model: str | Path,
    to: str,
    out: str | Path,
    machine: Machine | None = None,
    *,
    pictures: PictureLike | None = None,
    with_preprocessing: bool = False,
    license: str | None = None,
    best: bool = False,
    data_root: str | Path | None = None,
) -> Exported:
    """Write the network of a run, a checkpoint or a model folder as a file that other programs read, and check it.

    ``to``: ``torchvision``, a state dict of its ``alexnet`` (torch.save; only networks that it can hold); ``safetensors``, the
    weights by their names here; ``torch-export``, a program of ``torch.export``; ``onnx``; ``hub``, a folder as it stands on
    the Hugging Face Hub, with a model card. All but the first carry classes and preprocessing. ``with_preprocessing``, for
    ``onnx``: the graph takes photographs and gives names. ``license``, for ``hub``: that of the weights, in the card.

    The file is read back and asked about at most 100 pictures, beside the network on the device of ``machine`` (by default the
    CPU): of ``pictures`` (a folder, a file, or what :func:`~alexnet.data.pictures.pictures` reads), or else of the images that
    the run held out if they are on this machine, or else drawn ones. The difference of any score must be within
    :attr:`Exported.allowed`, or :class:`AlexNetError`, and then nothing is left. Raises :class:`UsageError` for an unknown
    format, for ``out`` that exists, and for a network that cannot tell classes."""
    kind = _kind(to)
    if with_preprocessing and kind != "onnx":
        raise UsageError(f"--with-preprocessing is for --to onnx; {kind} keeps the preprocessing as data")
    if license is not None and kind != "hub":
        raise UsageError(f"--license is for the card that --to hub writes; {kind} has none")
    out = Path(out)
    _require_free(out, SUFFIXES.get(kind, ""), kind)
    machine = machine or Machine(device=torch.device("cpu"), quiet=True)
    subject = Subject(
        model=model,
        machine=replace(machine, device=torch.device("cpu")),  # what is written does not depend on the device
        precision="float32",
        best=best,
        data_root=data_root,
    )
    predictor = subject.predictor
    if isinstance(predictor.model, OnnxNetwork):
        raise UsageError(f"{printable(model)} is an export; name the run or the model folder that it was made from")
    predictor.require_answers()
    write, notes = _writer(kind, subject, with_preprocessing, license)
    shown, which = _pictures(subject, pictures, whole=with_preprocessing)
    new = out.with_name(f".{out.name}.new-{os.getpid()}{out.suffix}")
    try:
        write(new)
        with subject.progress("check", len(shown), "pictures") as bar:
            own = replace(predictor, model=predictor.model.to(machine.device), device=machine.device)
            compared = _compare(own, kind, new, shown, bar)
        share = PIXEL_TOLERANCE if with_preprocessing else 0.0 if kind in EXACT else TOLERANCE
        done = Exported(
            file=out,
            to=kind,
            network=predictor.name,
            bytes=sum(file.stat().st_size for file in ([new] if new.is_file() else new.iterdir())),
            n=len(shown),
            pictures=which,
            difference=compared.difference,
            allowed=share * compared.largest_score,
            largest_score=compared.largest_score,
            same_first=compared.same_first,
            notes=tuple(notes),
            environment=environment() | {"device": str(machine.device)},
        )
        if not done.difference <= done.allowed:  # also NaN
            raise AlexNetError(
                f"{printable(out)}: not written, because {kind} answers otherwise than the network: a score differs by "
                f"{done.difference:.2g} on {which}, and {done.allowed:.2g} is allowed"
            )
        new.rename(out)
        fsync_folder(out.parent)
    except OSError as error:
        raise AlexNetError(refused(error, out)) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
        with suppress(OSError):
            new.unlink(missing_ok=True)
    return done


def _kind(to: str) -> To:
    if to in TARGETS:
        return to
    raise UsageError(f"no export is called {printable(to)[:60]}{perhaps(to, TARGETS)}; there is {', '.join(TARGETS)}")


def _require_free(out: Path, suffix: str, kind: To) -> None:
    """Refuse a name that the programs which read this format do not take, or under which nothing can be written."""
    if suffix and out.suffix != suffix:
        raise UsageError(
            f"{printable(out)}: programs that read {kind} want a name ending in {suffix}; take such an --out"
        )
    if os.path.lexists(out):
        raise UsageError(f"{printable(out)} exists; take another --out, or remove it")
    if not out.parent.is_dir():
        raise UsageError(f"{printable(out)}: its folder is not there; make it first, or take another --out")


# What is written, and how it is read back ------------------------------------------------------------------------------


def _writer(
    to: To, subject: Subject, with_preprocessing: bool, license: str | None
) -> tuple[Callable[[Path], None], list[str]]:
    """How to write the file, and what is to be said of it. What cannot be written is refused here."""
    predictor, notes = subject.predictor, []
    match to:
        case "torchvision":
            state, content = to_torchvision(predictor.model), io.BytesIO()
            torch.save(state, content)
            notes.append(
                "the file holds weights alone; `alexnet import FILE --classes names.txt` names the classes again"
            )
            if predictor.preprocessing != default_preprocessing("alexnet_owt"):
                notes.append(
                    "the network was trained on another input than torchvision's (preprocessor.json of its model folder): "
                    "`--to safetensors` keeps it"
                )
            return _bytes_of(content.getvalue), notes
        case "safetensors":
            tensors = {key: tensor.contiguous() for key, tensor in predictor.model.state_dict().items()}
            return _bytes_of(lambda: safetensors.torch.save(tensors, _entries(predictor) | {"format": "pt"})), notes
        case "torch-export":
            return lambda path: _write_program(predictor, path), notes
        case "onnx":
            made = onnx_model(predictor, with_preprocessing=with_preprocessing)
            return _bytes_of(made.SerializeToString), notes
        case "hub":
            return lambda path: write_hub_folder(path, subject, license), notes


def _bytes_of(content: Callable[[], bytes]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with open(path, "wb") as file:
            file.write(content())
            file.flush()
            os.fsync(file.fileno())

    return write


class _Logits(nn.Module):
    """A network as a function of its input alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x_BCHW: Tensor) -> Tensor:
        logits_BK: Tensor = self.model(x_BCHW)
        return logits_BK


def _entries(predictor: Predictor) -> dict[str, str]:
    return description(predictor.model, predictor.name, predictor.preprocessing, predictor.classes, predictor.mean)


def _write_program(predictor: Predictor, path: Path) -> None:
    p = predictor.preprocessing
    x_BCHW = torch.zeros(2, p.channels, p.crop, p.crop)
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(_Logits(predictor.model).eval(), (x_BCHW,), dynamic_shapes=({0: batch},))
    content = io.BytesIO()
    torch.export.save(program, content, extra_files=_entries(predictor))
    _bytes_of(content.getvalue)(path)


def _read_back(to: To, path: Path) -> Callable[[Tensor], Tensor]:
    """What was written, as a function from inputs to scores, on the CPU."""
    match to:
        case "torchvision":
            return from_torchvision(path)
        case "safetensors":
            tensors, entries = read_safetensors(path)
            model = described(entries, path).model
            load_tensors(model, tensors, printable(path))
            return model.eval()
        case "torch-export":
            with warnings.catch_warnings():  # torch 2.11 warns of a buffer of its own, which it only reads
                warnings.filterwarnings("ignore", "The given buffer is not writable")
                program: Any = torch.export.load(path)
            module: Callable[[Tensor], Tensor] = program.module()
            return module
        case "onnx":
            return open_onnx(path)[0]
        case "hub":
            return load_model_folder(path).model


# The check -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Compared:
    difference: float
    largest_score: float
    same_first: int


def _compare(
    predictor: Predictor, to: To, path: Path, shown: Sequence[Image.Image], progress: Callable[[int, int], object]
) -> _Compared:
    """Scores of the network and of the file for every picture. The first batch is one picture, so that the size of a batch
    varies."""
    answer = _read_back(to, path)
    at = torch.device("cpu")
    if to in EXACT and isinstance(answer, nn.Module):  # bits are the same on the same device
        answer, at = answer.to(predictor.device), predictor.device
    difference, largest, same, done = 0.0, 0.0, 0, 0
    whole = isinstance(answer, OnnxNetwork) and answer.takes_pixels
    for group in _groups(shown, 1 if whole else BATCH):
        squares = np.stack([predictor.pixels_of(image) for image in group])
        with autocast(predictor.device, "float32"), torch.no_grad():
            (x_BCHW,) = predictor.inputs(torch.from_numpy(squares))
            own_BK = predictor.model(x_BCHW).cpu()
            theirs_BK = answer(_whole(group[0], predictor) if whole else x_BCHW.to(at)).cpu()
        largest = max(largest, own_BK.abs().max().item())
        difference = max(difference, (own_BK - theirs_BK).abs().nan_to_num(float("inf")).max().item())
        same += int((own_BK.argmax(1) == theirs_BK.argmax(1)).sum())
        done += len(group)
        progress(done, len(shown))
    return _Compared(difference, largest, same)


def _groups(shown: Sequence[Image.Image], size: int) -> Iterator[Sequence[Image.Image]]:
    yield shown[:1]
    for start in range(1, len(shown), size):
        yield shown[start : start + size]


def _whole(image: Image.Image, predictor: Predictor) -> Tensor:
    """A photograph as a graph with its preprocessing takes it, in the order of channels that the network has: (1, C, H, W)."""
    pixels_HWC = np.array(image.convert("L" if predictor.preprocessing.channels == 1 else "RGB"))
    return torch.from_numpy(pixels_HWC.reshape(*pixels_HWC.shape[:2], -1)).permute(2, 0, 1)[None]


def _pictures(subject: Subject, given: PictureLike | None, *, whole: bool) -> tuple[list[Image.Image], str]:
    """The pictures of a check, and which they are in words. ``whole``: of several shapes and sizes, as photographs are."""
    predictor = subject.predictor
    if given is not None:
        shown = [
            *ahead(
                lambda one: one.decode(predictor.preprocessing.sample_max),
                islice(pictures(given), NUM_PICTURES),
                workers=subject.machine.workers,
                what="the picture",
            )
        ]
        if not shown:
            raise UsageError("pictures is empty; give some, or none to take those of the run")
        called = printable(Path(given).name or given) if isinstance(given, str | os.PathLike) else "that were given"
        return shown, f"of {called}" if isinstance(given, str | os.PathLike) else called
    if (stored := _held_out(subject)) is not None:
        pixels_NSSC, which = stored
        shown = [Image.fromarray(one[..., 0] if one.shape[2] == 1 else one) for one in pixels_NSSC]
        return [_reshaped(one, i) for i, one in enumerate(shown)] if whole else shown, which
    drawn = [draw_picture(CLASSES[i % len(CLASSES)], VAL_NUMBERS + i) for i in range(NUM_DRAWN)]
    return drawn, "drawn by this program, since the data of the model is not here (--pictures names others)"


def _held_out(subject: Subject) -> tuple[NDArray[np.uint8], str] | None:
    """Images of the run's own data, evenly taken from those that it held out, if they are here and prepared."""
    settings = subject.settings
    if settings is None or not is_packed(Path(settings["data"]["path"])):
        return None
    try:
        images = subject.images
        image_N = np.unique(np.linspace(0, len(images) - 1, min(NUM_PICTURES, len(images))).astype(np.int64))
        pixels_NSSC = images.read(image_N)
    except AlexNetError:  # damaged or changed since: it is not what the model knows
        return None
    name = Path(subject.packed.source).name
    return pixels_NSSC, f"of {printable(name)} ({images.name})"


def _reshaped(image: Image.Image, i: int) -> Image.Image:
    """A stored square in other shapes and sizes, so that it is resized in both directions."""
    width, height = image.size
    match i % 4:
        case 1:
            return image.crop((0, 0, width, max(height * 3 // 4, 1)))
        case 2:
            return image.crop((0, 0, max(width * 2 // 3, 1), height)).resize((width, height * 3 // 2))
        case 3:
            return image.resize((width * 2, height * 2))
    return image
