"""Classes of data and of networks, matched by their names: not by their places, which are those of other folders.

Shape suffixes: N images of a split, K classes.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from alexnet.core.errors import UsageError, printable
from alexnet.data.packed import AllSplits, PackedSplit, Subset

SHOWN = 3
"""Names in a message."""


def by_name(
    images: PackedSplit | AllSplits, theirs: Sequence[str], ours: Sequence[str], *, where: str, model: str
) -> PackedSplit | AllSplits | Subset:
    """``images``, whose labels are places in ``theirs``, with those of the network ``model``, places in ``ours``. Raises
    :class:`UsageError` naming the classes of images that are not among ``ours``; ``where`` is their data."""
    if tuple(theirs) == tuple(ours):
        return images
    place_K = places(theirs, ours)
    images_K = np.bincount(images.labels, minlength=len(theirs))
    if unknown := np.flatnonzero((place_K < 0) & (images_K > 0)).tolist():
        raise UsageError(
            f"{printable(where)} holds {images_K[unknown].sum():,} images of {_listed([theirs[k] for k in unknown])}, which "
            f"{printable(model)} does not know: it tells {_listed(ours)} apart; leave these images out, or rename their class"
        )
    return Subset(images, np.arange(len(images)), place_K[images.labels])


def places(theirs: Sequence[str], ours: Sequence[str]) -> NDArray[np.int64]:
    """The place of each of ``theirs`` in ``ours``, -1 where it is not there or stands there twice (unless both are the same
    list). Letters with accents are the same in each of their Unicode forms, of which file systems choose one."""
    if tuple(theirs) == tuple(ours):
        return np.arange(len(ours))
    names = [unicodedata.normalize("NFC", name) for name in ours]
    times = Counter(names)
    place = {name: k for k, name in enumerate(names) if times[name] == 1}
    return np.array([place.get(unicodedata.normalize("NFC", name), -1) for name in theirs], dtype=np.int64)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(printable(name) for name in names[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown
