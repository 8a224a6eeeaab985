"""What the C library does with memory that is freed, and how much was in use."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def keep_freed_memory() -> None:
    """Have the C library keep what torch or Pillow frees for the next step or image instead of giving it back to the
    system: a CPU training step otherwise spends a seventh of its time on page faults, decoding a tenth. For glibc;
    elsewhere nothing happens. Results do not change."""
    m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018, raises AttributeError where the C library is another
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


def give_back_memory() -> None:
    """Have the C library give what was freed back to the system after all, until it is needed again. For glibc."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def peak_memory(device: torch.device) -> int:
    """Bytes of a CUDA device that were in use at most; elsewhere of this process, with its libraries."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if os.uname().sysname == "Darwin" else peak * 1024


def total_memory(device: torch.device) -> int | None:
    """Bytes that a CUDA device has, or this machine, or the share of it that its container may use. None where the system does
    not say."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.get_device_properties(device).total_memory)
    limits = []
    with contextlib.suppress(OSError, ValueError):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(OSError, ValueError):  # "max" where there is no limit
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(limits, default=None)
