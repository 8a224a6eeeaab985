"""Weights in the format of Deep Compression (Han, Mao and Dally 2016): pruned, and quantized to a codebook.

A file is little-endian and has no magic number. It begins with one uint32 for each layer, the number n of its stored
weights. Then come, layer by layer: a codebook of 2^bits float32, the biases as float32, n codes of 8 or 4 bits, and n
gaps of 4 bits. Where two entries share a byte the low half comes first. The stored weights stand at the positions that
the running sum of (gap + 1), less 1, gives in the flattened tensor; a run of more than 15 zeros is bridged by entries
of code 0. All other weights have code 0, and ``codebook[0]`` is zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from alexnet.core.errors import AlexNetError, printable
from alexnet.core.runs import read_file


@dataclass(frozen=True)
class CompressedLayer:
    """What must be known about a layer and is not in the file."""

    name: str
    shape: tuple[int, ...]
    """Shape of the weights, outputs first. For grouped kernels the second number is inputs / groups."""
    bits: Literal[4, 8]
    """Bits of a code: 8 for convolutions, 4 for fully connected layers."""


ALEXNET = (
    CompressedLayer("conv1", (96, 3, 11, 11), 8),
    CompressedLayer("conv2", (256, 48, 5, 5), 8),
    CompressedLayer("conv3", (384, 256, 3, 3), 8),
    CompressedLayer("conv4", (384, 192, 3, 3), 8),
    CompressedLayer("conv5", (256, 192, 3, 3), 8),
    CompressedLayer("fc6", (4096, 9216), 4),
    CompressedLayer("fc7", (4096, 4096), 4),
    CompressedLayer("fc8", (1000, 4096), 4),
)
"""``AlexNet_compressed.net``: the weights of ``alexnet_caffe``, whose conv1 reads blue, green, red."""


MAX_BYTES = 1 << 29
"""Limit of a file. Uncompressed, the network takes 244 MB."""


def read_deep_compression(path: Path, layers: Sequence[CompressedLayer] = ALEXNET) -> dict[str, NDArray[np.float32]]:
    """The file's weights and biases by the names of a state dict, ``conv1.weight`` and so on, dense float32.

    Raises :class:`AlexNetError` if the file cannot be read, ends early or late, or breaks the format."""
    try:
        return decode(read_file(path, MAX_BYTES), layers)
    except (AlexNetError, ValueError) as error:
        raise AlexNetError(
            f"{printable(path)}: not these layers in Deep Compression format ({printable(error)})"
        ) from error


def decode(data: bytes, layers: Sequence[CompressedLayer]) -> dict[str, NDArray[np.float32]]:
    """The weights and biases that :func:`read_deep_compression` gives, from bytes. Raises :class:`ValueError`."""
    stream = _Stream(data)
    num_stored = stream.take("<u4", len(layers), "the header").tolist()
    state: dict[str, NDArray[np.float32]] = {}
    for layer, n in zip(layers, num_stored, strict=True):
        size = math.prod(layer.shape)
        if n > size:
            raise ValueError(f"{layer.name} has {n:,} stored weights for {size:,} positions")
        codebook = stream.take("<f4", 2**layer.bits, f"{layer.name}'s codebook")
        bias = stream.take("<f4", layer.shape[0], f"{layer.name}'s biases")
        codes = stream.codes(n, layer.bits, f"{layer.name}'s codes")
        gaps = stream.codes(n, 4, f"{layer.name}'s gaps")
        if codebook[0] != 0 or not np.isfinite(codebook).all() or not np.isfinite(bias).all():
            raise ValueError(f"{layer.name}'s codebook begins with {codebook[0]}, not 0, or holds NaN or infinity")
        positions = np.cumsum(gaps.astype(np.int64) + 1) - 1
        if n and positions[-1] >= size:
            raise ValueError(f"{layer.name}'s last position is {positions[-1]:,} of {size:,}")
        weight = np.zeros(size, dtype=np.float32)
        weight[positions] = codebook[codes]
        state[f"{layer.name}.weight"] = weight.reshape(layer.shape)
        state[f"{layer.name}.bias"] = bias.astype(np.float32)
    stream.end()
    return state


class _Stream:
    """Bytes read once, from the first to the last."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0

    def take(self, dtype: str, num: int, what: str) -> NDArray[np.generic]:
        length = num * np.dtype(dtype).itemsize
        if self.position + length > len(self.data):
            raise ValueError(f"the file ends inside {what}, {len(self.data):,} bytes from its start")
        values = np.frombuffer(self.data, dtype, num, self.position)
        self.position += length
        return values

    def codes(self, num: int, bits: int, what: str) -> NDArray[np.uint8]:
        """``num`` unsigned numbers of 8 or 4 bits. If an odd number of 4-bit numbers is read, the last 4 bits are unused."""
        if bits == 8:
            return self.take("u1", num, what).astype(np.uint8)
        pairs = self.take("u1", (num + 1) // 2, what).astype(np.uint8)
        return np.stack([pairs & 15, pairs >> 4], axis=1).reshape(-1)[:num]

    def end(self) -> None:
        if self.position != len(self.data):
            raise ValueError(f"{len(self.data) - self.position:,} bytes follow the last layer")
