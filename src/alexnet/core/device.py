"""Where and how precisely to compute, by name."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch

from alexnet.core.errors import UsageError

Precision = Literal["float32", "tf32", "bfloat16", "float64"]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where a run is computed; none of this changes what it computes."""

    device: torch.device
    workers: int | None = None
    deterministic: bool = False
    resident: bool = False
    """Keep all training images in the memory of the device."""
    quiet: bool = False


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
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {name}: not usable here ({reason}); use auto, cpu, cuda, cuda:N or mps") from None
    return device


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """bfloat16: matrix products and convolutions in bfloat16, parameters and sums in float32 (torch.autocast). tf32: as
    float32, with CUDA's products rounded to 10 bits, in this process from now on; float32 does without that."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    if precision == "bfloat16":
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()
