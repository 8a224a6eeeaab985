"""What a network answered for each image of a split, with what is needed to count it, combine it and compare it.

Shape suffixes: N images of a split, K classes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet.core.errors import AlexNetError, in_short, printable
from alexnet.core.runs import read_arrays, write_atomic

FORMAT = "alexnet probabilities 1"
ROUNDING = 1e-5
"""How far above 0 the logarithm of a probability near 1 may be, through rounding."""


@dataclass(frozen=True, eq=False)
class Probabilities:
    """The answers of one network, or of an ensemble, on all images of a split, in the order of the split."""

    log_probability_NK: NDArray[np.float32]
    """ln of the probability averaged over the views. The logarithm, because probabilities below 1e-45 would become
    equal zeros, and the order of classes among them would be lost."""
    label_N: NDArray[np.int64]
    paths: tuple[str, ...]
    classes: tuple[str, ...]
    protocol: dict[str, Any]
    """How the answers were made; becomes the protocol of every number counted from them."""

    def __post_init__(self) -> None:
        shape = (len(self.label_N), len(self.classes))
        if self.log_probability_NK.shape != shape or len(self.paths) != len(self.label_N):
            raise ValueError(
                f"Probabilities of shape {self.log_probability_NK.shape} with {len(self.label_N)} labels, "
                f"{len(self.paths)} paths and {len(self.classes)} classes; these numbers must agree"
            )

    def save(self, path: Path) -> None:
        """One ``.npz`` file, atomically. Every member of the archive carries a CRC, so damage does not pass unseen."""
        texts = {"format": FORMAT, "paths": self.paths, "classes": self.classes, "protocol": self.protocol}
        text = np.frombuffer(json.dumps(texts).encode(), dtype=np.uint8)
        log_probability, label = self.log_probability_NK, self.label_N
        write_atomic(path, lambda file: np.savez(file, log_probability=log_probability, label=label, text=text))


def load_probabilities(path: Path) -> Probabilities:
    """The inverse of :meth:`Probabilities.save`. A missing, foreign or damaged file: :class:`AlexNetError`."""
    arrays = read_arrays(path, what="a sound file of saved probabilities")
    try:
        texts = json.loads(arrays["text"].tobytes())
        if texts["format"] != FORMAT:
            raise ValueError(f"format {texts['format']!r}, this program reads {FORMAT!r}")
        label_N, log_probability_NK = arrays["label"], arrays["log_probability"]
        if label_N.dtype.kind not in "iu" or log_probability_NK.dtype.kind != "f":
            raise ValueError(f"labels of {label_N.dtype} and logarithms of {log_probability_NK.dtype}")
        found = Probabilities(
            np.asarray(log_probability_NK, dtype=np.float32),
            np.asarray(label_N, dtype=np.int64),
            tuple(map(str, texts["paths"])),
            tuple(map(str, texts["classes"])),
            dict(texts["protocol"]),
        )
        if not len(label_N) or not 0 <= found.label_N.min() <= found.label_N.max() < len(found.classes):
            raise ValueError(f"no labels, or labels beyond the {len(found.classes)} classes")
        if np.isnan(found.log_probability_NK).any():
            raise ValueError("logarithms that are NaN")
        if found.log_probability_NK.max() > ROUNDING:
            raise ValueError("logarithms above 0, which are of no probability")
        return found
    except (ValueError, TypeError, LookupError, MemoryError, RecursionError) as error:
        raise AlexNetError(
            f"{printable(path)}: not a sound file of saved probabilities ({in_short(error)}); save it again with "
            "`alexnet evaluate --save`"
        ) from error
