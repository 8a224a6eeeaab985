"""What a network answered for each image of a split, with what is needed to count it, combine it and compare it.

Shape suffixes: N images of a split, K classes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

from alexnet.core.errors import AlexNetError, printable
from alexnet.core.runs import write_atomic

FORMAT = "alexnet probabilities 1"


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
    try:
        with ZipFile(path) as archive:
            if any(member.compress_type != ZIP_STORED for member in archive.infolist()):
                raise ValueError("compressed members, which this program does not write")
        with np.load(path, allow_pickle=False) as arrays:
            texts = json.loads(arrays["text"].tobytes())
            if texts["format"] != FORMAT:
                raise ValueError(f"format {texts['format']!r}, this program reads {FORMAT!r}")
            return Probabilities(
                np.asarray(arrays["log_probability"], dtype=np.float32),
                np.asarray(arrays["label"], dtype=np.int64),
                tuple(map(str, texts["paths"])),
                tuple(map(str, texts["classes"])),
                dict(texts["protocol"]),
            )
    except FileNotFoundError:
        raise AlexNetError(f"{printable(path)}: no such file") from None
    except (OSError, EOFError, ValueError, TypeError, LookupError, MemoryError, RecursionError, BadZipFile) as error:
        raise AlexNetError(
            f"{printable(path)}: not a sound file of saved probabilities ({printable(error)}); save it again with "
            "`alexnet evaluate --save`"
        ) from error
