"""Samples of more than 8 bits: whether a file has them, how they become 8 bits, and how much of their range a set uses.

Pillow gives grey samples as they are, but of colors the high bytes alone. Where all 16 bits are needed, a file is decoded
twice, the second time for the low bytes. Nothing is guessed from one image: images of a set stay comparable.
"""

# Shape suffixes: H rows, W columns, C channels.

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SampleMax = int | Literal["set"] | None
"""What becomes white: this sample, the largest of the training images, or (None) what each file says."""
FULL = 65535
NARROW = 0.5
"""Share of its range up to which a set is said to be dark. Samples of 15 bits use that much; one photograph may use less."""
BLACK = 0.125
"""Share up to which it is said to be almost black: 32 grey levels are left."""

_BITS_PER_SAMPLE, _PHOTOMETRIC, _PLANAR = 258, 262, 284


def sample_max_fault(sample_max: SampleMax) -> str | None:
    """Why this is not a valid maximum; None if it is."""
    if sample_max is None or sample_max == "set" or 1 <= sample_max <= FULL:
        return None
    return f"sample_max is {sample_max}; it must be 'set', or at least 1 and at most {FULL}"


@dataclass(frozen=True)
class Range:
    """How much of their range the images of more than 8 bits use."""

    images: int = 0
    share: float = 0.0
    """Largest sample divided by the one that becomes white, in the image where this share is largest."""
    largest: int = 0
    beyond: int = 0
    """Images with samples that are larger than what becomes white."""

    def __add__(self, other: Range) -> Range:
        images, beyond = self.images + other.images, self.beyond + other.beyond
        return Range(images, max(self.share, other.share), max(self.largest, other.largest), beyond)

    @staticmethod
    def of(image: Image.Image) -> Range:
        """The range of one image that ``decode_image`` made."""
        if "samples" not in image.info:
            return Range()
        largest, white = image.info["samples"]
        return Range(1, largest / white, largest, int(largest > white))

    def notes(self, sample_max: SampleMax) -> list[str]:
        """What people should know before they train."""
        if self.beyond:
            return [
                f"{self.beyond:,} images of more than 8 bits have samples above {sample_max}, up to {self.largest}: these "
                "become white; a larger --sample-max keeps them apart"
            ]
        if not self.images or self.share > NARROW:
            return []
        look = "almost black" if self.share <= BLACK else "dark"
        return [
            f"{self.images:,} images of 16 bits use at most {self.share:.1%} of their range: they will be {look}; name the "
            "sample that is white (--sample-max 4095 for a 12-bit camera), or take the largest of the training images "
            "(--sample-max set)"
        ]


def is_wide(image: Image.Image) -> bool:
    """Whether an opened file that is not loaded has integer samples of more than 8 and at most 16 bits."""
    if image.mode == "F":
        return False
    for tile in image.tile:  # type: ignore[attr-defined]
        arguments = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        if any(bits in str(arguments[0]) for bits in (";16", ";12")) and "S" not in str(arguments[0]):
            return True
        if tile.codec_name.startswith("ppm") and isinstance(arguments[-1], int) and arguments[-1] > 255:
            return True
    return image.mode in ("RGB", "RGBA") and 16 in _tag(image, _BITS_PER_SAMPLE)


def mend_tiles(image: Image.Image) -> None:
    """Pillow reads the planes of uncompressed TIFF colors as if each sample were a byte."""
    if image.format == "TIFF" and _tag(image, _PLANAR) == (2,):
        order = "L" if image.tag_v2.prefix == b"II" else "B"  # type: ignore[attr-defined]
        _change_tiles(image, lambda raw: raw if len(raw) > 1 else f"{raw};16{order}")


def read_exactly(image: Image.Image, white: int) -> bool:
    """Have an opened file loaded so that no bit is lost, and say whether its low bytes must be loaded as well, from another
    opened file (:func:`read_low_bytes`). ``white`` is the sample that will become 255."""
    if image.format == "PPM":
        # Its samples would be scaled by what the file says is their maximum; colors become 8 bits at once.
        maximum = FULL if image.mode == "I" else max(white, 256)
        _change_tiles(image, lambda raw: raw, maximum)
        return False
    return image.mode not in ("I", "I;16", "I;16B", "I;16L")


def read_low_bytes(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """Have an opened file loaded with the low bytes of its samples in the place of the high ones. Returns what is to be done
    to the loaded image. Raises ValueError for samples that Pillow computes with."""
    native = "B" if sys.byteorder == "little" else "L"
    swapped = {"B": "L", "L": "B", "N": native}
    raws = set()

    def low(raw: str) -> str:
        raws.add(raw)
        if raw == "LA;16B":
            return "RGBA"  # for each pixel both bytes of grey, then both of alpha
        if ";16" not in raw or raw.startswith("RGBa"):
            raise ValueError(f"samples stored as {raw}")
        return raw[:-1] + swapped[raw[-1]]

    _change_tiles(image, low)
    if raws != {"LA;16B"}:
        return lambda loaded: loaded
    return lambda loaded: Image.merge("RGBA", [loaded.getchannel(i) for i in (1, 1, 1, 3)])


def join_bytes(high: Image.Image, low: Image.Image, white: int) -> tuple[Image.Image, int]:
    """An image of 8 bits whose color ``white`` became 255, rounded and cut there, and the largest sample. Alpha, which has
    the range of the file, is that of ``high``. A transparent color becomes white."""
    sample_HWC = np.asarray(high).astype(np.uint32) << 8 | np.asarray(low)
    colors = 3 if high.mode == "RGBA" else sample_HWC.shape[2]
    out_HWC = np.array(high)
    out_HWC[:, :, :colors] = to_8_bits(sample_HWC[:, :, :colors], white)
    transparent = high.info.get("transparency")
    if isinstance(transparent, tuple):
        out_HWC[(sample_HWC == transparent).all(axis=2)] = 255
    joined = Image.fromarray(out_HWC, high.mode)
    joined.info = {name: value for name, value in high.info.items() if name != "transparency"}
    return joined, int(sample_HWC[:, :, :colors].max())


def to_8_bits(sample: NDArray[Any], white: int) -> NDArray[np.uint8]:
    """Samples as 8 bits, rounded, so that the full range stays the full range."""
    sample = sample.clip(0, white).astype(np.uint32)
    return ((sample * 255 + white // 2) // white).astype(np.uint8)


def white_of(image: Image.Image) -> int:
    """The largest sample that the file says there may be (12 bits in some TIFF files)."""
    bits = _tag(image, _BITS_PER_SAMPLE)
    return (1 << bits[0]) - 1 if bits and image.mode.startswith("I;16") else FULL


def is_inverted(image: Image.Image) -> bool:
    """Whether 0 is white. Pillow sees to that for samples of up to 8 bits."""
    return image.mode.startswith("I;16") and _tag(image, _PHOTOMETRIC) == (0,)


def _tag(image: Image.Image, tag: int) -> tuple[int, ...]:
    value = getattr(image, "tag_v2", {}).get(tag, ())
    values: Sequence[Any] = value if isinstance(value, tuple) else (value,)
    return tuple(each for each in values if isinstance(each, int))


def _change_tiles(image: Image.Image, change: Callable[[str], str], last: int | None = None) -> None:
    """The name of the stored form of each tile, and ``last`` in place of the last argument, of those that have one."""
    tiles = []
    for tile in image.tile:  # type: ignore[attr-defined]
        if isinstance(tile.args, tuple):
            rest = tile.args[1:] if last is None or len(tile.args) < 2 else (*tile.args[1:-1], last)
            args: Any = (change(tile.args[0]), *rest)
        else:
            args = change(tile.args)
        tiles.append(tile._replace(args=args))
    image.tile = tiles  # type: ignore[attr-defined]
