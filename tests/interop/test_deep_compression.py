"""The decoder of Deep Compression files against an encoder written from the format's description, and against bytes
written out by hand."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.core.errors import AlexNetError
from alexnet.interop.deep_compression import ALEXNET, CompressedLayer, decode, read_deep_compression


def stored_entries(codes: Sequence[int]) -> list[tuple[int, int]]:
    """(gap, code) of what a file stores for a flat tensor of codes: every code but 0, and fillers over long gaps."""
    entries, gap = [], 0
    for code in codes:
        if code == 0 and gap < 15:
            gap += 1
        else:  # a weight, or a filler with code 0 that bridges 15 zeros and is itself the 16th
            entries.append((gap, code))
            gap = 0
    while entries and entries[-1][1] == 0:
        entries.pop()  # nothing follows that would need a bridge
    return entries


def packed(values: Sequence[int], bits: int) -> bytes:
    if bits == 8:
        return bytes(values)
    padded = [*values, *([0] * (len(values) % 2))]
    return bytes(low | high << 4 for low, high in zip(padded[::2], padded[1::2], strict=True))


def encode(
    layers: Sequence[CompressedLayer],
    codes: dict[str, np.ndarray],
    codebooks: dict[str, np.ndarray],
    biases: dict[str, np.ndarray],
) -> bytes:
    header, body = b"", b""
    for layer in layers:
        entries = stored_entries(codes[layer.name].reshape(-1).tolist())
        header += struct.pack("<I", len(entries))
        body += codebooks[layer.name].astype("<f4").tobytes() + biases[layer.name].astype("<f4").tobytes()
        body += packed([code for _, code in entries], layer.bits) + packed([gap for gap, _ in entries], 4)
    return header + body


def random_layer(
    generator: np.random.Generator, name: str, shape: tuple[int, ...], bits: Literal[4, 8], density: float
) -> tuple[CompressedLayer, np.ndarray, np.ndarray, np.ndarray]:
    codebook = np.concatenate([[0], generator.normal(size=2**bits - 1)]).astype(np.float32)
    codes = generator.integers(1, 2**bits, shape) * (generator.random(shape) < density)
    return CompressedLayer(name, shape, bits), codes, codebook, generator.normal(size=shape[0]).astype(np.float32)


def test_a_file_written_by_hand() -> None:
    # One layer of 2 x 10 weights with 4-bit codes. Weights: code 3 at 1, code 15 at 2, code 1 at 19.
    # Gaps: 1 zero before position 1, 0 before 2, then 16 zeros to 19: a filler bridges 15 and stands at 18.
    codebook = struct.pack("<16f", 0, 0.5, *[9] * 1, -2.0, *[9] * 11, 4.0)
    data = (
        struct.pack("<I", 4)
        + codebook
        + struct.pack("<2f", 1.5, -1.5)
        + bytes([0xF3, 0x10])  # codes 3, 15, 0 (filler), 1; the low half first
        + bytes([0x01, 0x0F])  # gaps 1, 0, 15, 0
    )
    state = decode(data, [CompressedLayer("fc", (2, 10), 4)])
    expected = np.zeros(20, dtype=np.float32)
    expected[1], expected[2], expected[19] = -2.0, 4.0, 0.5
    assert state["fc.weight"].tolist() == expected.reshape(2, 10).tolist()
    assert state["fc.bias"].tolist() == [1.5, -1.5]
    assert state["fc.weight"].dtype == np.float32


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.02, 0.3, 1.0]))
def test_what_is_encoded_comes_back(seed: int, density: float) -> None:
    generator = np.random.default_rng(seed)
    made = [
        random_layer(generator, "conv", (5, 3, 3, 3), 8, density),
        random_layer(generator, "fc", (7, 11), 4, density),
        random_layer(generator, "last", (1, 1), 4, density),
    ]
    layers = [layer for layer, *_ in made]
    data = encode(
        layers,
        {layer.name: codes for layer, codes, _, _ in made},
        {layer.name: codebook for layer, _, codebook, _ in made},
        {layer.name: bias for layer, _, _, bias in made},
    )
    state = decode(data, layers)
    assert list(state) == ["conv.weight", "conv.bias", "fc.weight", "fc.bias", "last.weight", "last.bias"]
    for layer, codes, codebook, bias in made:
        assert (state[f"{layer.name}.weight"] == codebook[codes]).all()
        assert state[f"{layer.name}.weight"].shape == layer.shape
        assert (state[f"{layer.name}.bias"] == bias).all()


def make_file(seed: int = 0) -> tuple[bytes, list[CompressedLayer]]:
    made = random_layer(np.random.default_rng(seed), "fc", (4, 9), 4, 0.5)
    layer, codes, codebook, bias = made
    return encode([layer], {"fc": codes}, {"fc": codebook}, {"fc": bias}), [layer]


def test_odd_and_even_numbers_of_weights_occur_in_these_tests() -> None:
    stored = {struct.unpack("<I", make_file(seed)[0][:4])[0] % 2 for seed in range(8)}
    assert stored == {0, 1}


@pytest.mark.parametrize("seed", range(4))
def test_a_file_of_any_other_length_is_refused(seed: int) -> None:
    data, layers = make_file(seed)
    for length in range(len(data)):
        with pytest.raises(ValueError, match="ends inside"):
            decode(data[:length], layers)
    with pytest.raises(ValueError, match="1 bytes follow the last layer"):
        decode(data + b"\0", layers)


def test_a_position_beyond_the_tensor_is_refused() -> None:
    data, layers = make_file()
    gaps = bytearray(data)
    gaps[-1] |= 0xFF
    gaps[-2] |= 0xFF
    with pytest.raises(ValueError, match="last position is"):
        decode(bytes(gaps), layers)


def test_the_last_position_is_the_last_and_no_further() -> None:
    # One stored weight after `gap` zeros in a tensor of 12: gap 11 is its last position, gap 12 is beyond.
    head = struct.pack("<I", 1) + struct.pack("<16f", 0, *range(1, 16)) + struct.pack("<f", 0)
    layers = [CompressedLayer("fc", (1, 12), 4)]
    assert decode(head + bytes([7, 11]), layers)["fc.weight"].tolist() == [[0] * 11 + [7]]
    with pytest.raises(ValueError, match="last position is 12 of 12"):
        decode(head + bytes([7, 12]), layers)


def test_more_weights_than_positions_are_refused() -> None:
    data, layers = make_file()
    with pytest.raises(ValueError, match="37 stored weights for 36 positions"):
        decode(struct.pack("<I", 37) + data[4:], layers)


@pytest.mark.parametrize("entry", [1.0, math.nan, math.inf])
def test_a_codebook_that_does_not_begin_with_zero_is_refused(entry: float) -> None:
    data, layers = make_file()
    with pytest.raises(ValueError, match="codebook begins with"):
        decode(data[:4] + struct.pack("<f", entry) + data[8:], layers)


@pytest.mark.parametrize("offset", [4 + 4 * 5, 4 + 4 * 16])  # an entry of the codebook, a bias
def test_values_that_are_not_finite_are_refused(offset: int) -> None:
    data, layers = make_file()
    with pytest.raises(ValueError, match="NaN or infinity"):
        decode(data[:offset] + struct.pack("<f", math.nan) + data[offset + 4 :], layers)


def test_the_published_counts_give_the_published_size_of_alexnet() -> None:
    # Stored weights as published, and the file's 9,037,369 bytes ("8.9 MB"): header, codebooks, biases, codes, gaps.
    stored = [29_388, 118_492, 309_138, 247_913, 163_904, 4_665_474, 1_959_380, 1_061_645]
    size = sum(
        4 + 4 * 2**layer.bits + 4 * layer.shape[0] + math.ceil(n * layer.bits / 8) + math.ceil(n / 2)
        for layer, n in zip(ALEXNET, stored, strict=True)
    )
    assert size == 9_037_369
    assert sum(math.prod(layer.shape) for layer in ALEXNET) == 60_954_656


def test_the_wrong_file_is_named_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "weights.net"
    with pytest.raises(AlexNetError, match=r"weights\.net"):
        read_deep_compression(path)
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(
        AlexNetError, match=r"weights\.net: not these layers .* \(conv1 has 4,294,967,295 stored"
    ) as caught:
        read_deep_compression(path)
    assert "\n" not in str(caught.value)
