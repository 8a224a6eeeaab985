"""Where and how precisely to compute, by name."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch

from alexnet.core.errors import UsageError, printable

DEVICES = "use auto, cpu, cuda, cuda:N or mps"
Precision = Literal["float32", "tf32", "bfloat16", "float64"]
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
    """``auto``: the first CUDA device, else Apple's, else the CPU. A device that is not there: :class:`UsageError`."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = "" if "device type" in str(error) else f" ({printable(str(error).splitlines()[0])[:100]})"
        raise UsageError(f"--device {printable(name)}: not usable here{reason}; {DEVICES}") from None
    if device.type == "meta":
        raise UsageError(f"--device meta: computes nothing; {DEVICES}")
    return device


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
