"""What response normalization sums over, and how a batch lies in memory with respect to that."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Window(NamedTuple):
    """What is summed over, and the constants of the formula."""

    size: int
    """Neighbors in the window, along each of its dimensions; odd."""
    coefficient: float
    """c, which multiplies the *sum* of squares."""
    beta: float
    k: float
    towers: int
    """Number of equal parts of the channels, within each of which channels are summed over; 0: positions are summed over, within
    each map."""
    relu: bool = False
    """Normalize max(x, 0) instead of x."""

    @property
    def half(self) -> int:
        """Neighbors on either side."""
        return self.size // 2


class Layout(NamedTuple):
    """A batch in memory order as (rows, groups, length, step). Sums run over ``length`` (channels of a tower, or columns),
    whose cells are ``step`` elements apart; for a window of positions over ``groups`` (the lines of a map) too.

        channels   NCHW: (B, T, C/T, H·W)   channels last: (B·H·W, T, C/T, 1)
        positions  NCHW: (B·C, H, W, 1)     channels last: (B, H, W, C)"""

    rows: int
    groups: int
    length: int
    step: int

    @classmethod
    def of(cls, x_BCHW: Tensor, window: Window) -> Layout:
        """The layout of a tensor that is contiguous, or else channels last."""
        B, C, H, W = x_BCHW.shape
        channels_last = not x_BCHW.is_contiguous()
        if window.towers:
            T = window.towers
            return cls(B * H * W, T, C // T, 1) if channels_last else cls(B, T, C // T, H * W)
        return cls(B, H, W, C) if channels_last else cls(B * C, H, W, 1)


def in_memory_order(x_BCHW: Tensor, layout: Layout) -> Tensor:
    """The same elements as a view of the layout's shape."""
    return (x_BCHW if x_BCHW.is_contiguous() else x_BCHW.permute(0, 2, 3, 1)).view(layout)
