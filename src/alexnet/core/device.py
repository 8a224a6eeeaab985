"""Where and how precisely to compute, by name."""

from __future__ import annotations

import os
import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from alexnet.core.console import say
from alexnet.core.errors import UsageError, printable

DEVICES = "use auto, cpu, cuda, cuda:N or mps"
Precision = Literal["float32", "tf32", "bfloat16", "float64"]
PRECISIONS = get_args(Precision)
Layout = Literal["data", "towers", "hybrid"]
Scheme = Literal["all", "turns", "slices"]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where a run is computed; none of this changes what it computes, but for rounding."""

    device: torch.device
    workers: int | None = None
    deterministic: bool = False
    resident: bool = False
    """Keep all training images in the memory of the device."""
    quiet: bool = False
    layout: Layout = "data"
    """With several ranks: what each of them holds (alexnet.distributed.mesh)."""
    scheme: Scheme = "all"
    """In the layout hybrid: whose images the fully connected layers see at a time."""
    exchange: Literal["full", "bfloat16"] = "full"
    """Number format in which activations and gradients are sent between ranks."""
    accumulate: int = 1
    """Parts in which each batch is computed, one after the other, their gradients added up: for batches that do not fit."""


def choose_device(name: str = "auto") -> torch.device:
    """``auto``: the first CUDA device, else Apple's, else the CPU. A device that is not there: :class:`UsageError` that says
    what is."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if not (found := re.fullmatch(r"(cpu|cuda|mps)(?::(\d{1,4}))?", name)):
        raise UsageError(f"--device {printable(name)[:60]}: no such device; {DEVICES}")
    kind, number = found[1], int(found[2] or 0)
    if number >= (count := _count(kind)):
        raise UsageError(f"--device {name}: {_absent(kind, count)}; use auto or {_here()}")
    device = torch.device(name)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = printable(str(error).splitlines()[0])[:100]
        raise UsageError(f"--device {name}: cannot be used ({reason}); use auto or {_here()}") from None
    return device


def _count(kind: str) -> int:
    """Devices of a kind that torch can use here."""
    if kind == "cuda":
        return torch.cuda.device_count() if torch.cuda.is_available() else 0
    return 1 if kind == "cpu" else int(torch.backends.mps.is_available())


def _absent(kind: str, count: int) -> str:
    if count:
        return f"there {'is only one' if count == 1 else f'are only {count}'} here, and numbers begin at 0"
    if kind == "mps":
        return "there is no Apple GPU here that torch can use"
    built = "" if torch.version.cuda else "; this torch was built without CUDA"
    return f"there is no CUDA device here that torch can use{built}"


def _here() -> str:
    """The devices of this machine, for messages."""
    cuda = [f"cuda:{i}" for i in range(_count("cuda"))]
    return " or ".join([*cuda, *["mps"] * _count("mps"), "cpu"])


def emulates(device: torch.device, precision: Precision) -> bool:
    """Whether the device has no instructions for a number format, so that it takes many times as long as float32 there
    (results/precision.json). Asked is what torch itself asks before it hands a product or a convolution to fast code."""
    if precision != "bfloat16":
        return False
    if device.type == "cuda":
        return not torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)  # None in a torch that lacks oneDNN
        return supported is None or not supported()
    return False


def warn_of_emulation(device: torch.device, precision: Precision, instead: str = "--precision float32") -> None:
    """Say it where :func:`emulates` is so; ``instead``: the options that compute faster."""
    if emulates(device, precision):
        say(
            f"warning: {lacking(device)} {precision}, which takes many times as long here as float32; {instead} is faster"
        )


def lacking(device: torch.device) -> str:
    """Who has no instructions for a number format, for messages that go on with its name."""
    return f"this {'processor' if device.type == 'cpu' else 'device'} has no instructions for"


def usable_cores() -> int:
    """Cores that this process may use, where the system tells; else all there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """bfloat16: matrix products and convolutions in bfloat16, parameters and sums in float32 (torch.autocast). tf32: as
    float32, with CUDA's products rounded to 10 bits, in this process from now on; float32 does without that."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    if precision == "bfloat16":
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()
