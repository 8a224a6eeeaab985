"""Answers for photographs: any file or folder, any size and aspect.

Shape suffixes: B images, C channels, H rows, W columns, S rows or columns of a square, K classes.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from alexnet.core.config import fingerprint, to_json
from alexnet.core.console import say
from alexnet.core.device import Precision, warn_of_emulation
from alexnet.core.errors import DataError, ImageError, printable
from alexnet.core.preprocessing import Preprocessing
from alexnet.data.decode import MAX_FILE_BYTES, decode_image
from alexnet.data.folder import is_image, walk, without_unread_twins
from alexnet.data.pixels import resize_and_crop, resize_short_side
from alexnet.evaluation.error_rate import mean_log_probability
from alexnet.evaluation.views import Views, parse_views, random_views_of, views_of
from alexnet.models.lrn import kernels_in_use
from alexnet.models.states import State, open_model

STDIN = "-"


@dataclass(frozen=True)
class Answer:
    label: int
    name: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The answers for one image, most probable first; none, and the reason, if it could not be read."""

    path: str
    answers: tuple[Answer, ...]
    error: ImageError | None = None


@dataclass(frozen=True, eq=False)
class Predictor:
    """A network with what belongs to it: preprocessing, class names and mean image."""

    name: str
    model: nn.Module
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    mean: NDArray[np.float32] | None
    device: torch.device
    precision: Precision = "float32"
    state: State | None = None
    """Which checkpoint of a run it is, if it is one."""

    def predict(
        self,
        sources: Iterable[str | Path],
        views: str | Views = "1",
        top_k: int = 5,
        batch_size: int = 32,
    ) -> Iterator[Prediction]:
        """One :class:`Prediction` for each image, in order, as the batches are done. ``sources`` are files, folders
        (their images, recursively, in the order of their names) or ``-`` for the bytes of one image on standard input.
        An image that cannot be read gets a prediction that says why; the others are answered. A folder without
        images: :class:`DataError`.

        The short side is resized to ``preprocessing.resize``; the center view and the ten views come from the center
        square, ``random:K`` crops from the whole image."""
        views = parse_views(views) if isinstance(views, str) else views
        files = image_files(sources)
        while group := list(islice(files, batch_size)):
            if len(group) == batch_size:  # for fewer a compiler is not worth its second
                kernels_in_use(self.device, build=True)
            yield from self._predict_group(group, views, top_k)

    @torch.inference_mode()
    def _predict_group(self, group: Sequence[str], views: Views, top_k: int) -> list[Prediction]:
        images: dict[int, NDArray[np.uint8]] = {}
        predictions: list[Prediction] = []
        for i, path in enumerate(group):
            try:
                images[i] = self.pixels(path, whole=views.kind == "random")
                predictions.append(Prediction(path, ()))
            except ImageError as error:
                predictions.append(Prediction(path, (), error))
        if not images:
            return predictions

        mean_SSC = None if self.mean is None else torch.as_tensor(self.mean).to(self.device)
        if views.kind == "random":
            inputs = random_views_of(list(images.values()), views, self.preprocessing, mean_SSC, self.device)
        else:
            pixels_BSSC = torch.from_numpy(np.stack(list(images.values()))).to(self.device)
            inputs = views_of(pixels_BSSC, np.arange(len(images)), views, self.preprocessing, mean_SSC)
        probability_BK = mean_log_probability(self.model, inputs, self.precision).double().exp()
        order_BK = probability_BK.argsort(dim=1, descending=True, stable=True)[:, :top_k]
        for i, order_K, probability_K in zip(images, order_BK.tolist(), probability_BK.tolist(), strict=True):
            answers = tuple(Answer(label, self.classes[label], probability_K[label]) for label in order_K)
            predictions[i] = Prediction(group[i], answers)
        return predictions

    def pixels(self, path: str, *, whole: bool = False) -> NDArray[np.uint8]:
        """The center square (S, S, C) of an image file or of standard input, or with ``whole`` all of it (H, W, C) with its
        short side at S. A file that cannot be read: :class:`ImageError`."""
        stdin = path == STDIN
        source = sys.stdin.buffer.read(MAX_FILE_BYTES + 1) if stdin else Path(path)
        image = decode_image(source, path, self.preprocessing.sample_max)
        if self.preprocessing.channels == 1:
            image = image.convert("L")
        size = self.preprocessing.resize
        pixels_HWC = np.asarray(resize_short_side(image, size)) if whole else resize_and_crop(image, size)
        return pixels_HWC.reshape(*pixels_HWC.shape[:2], self.preprocessing.channels)


def load(
    model: str | Path, device: torch.device | str = "cpu", precision: Precision = "float32", *, best: bool = False
) -> Predictor:
    """The network in a run directory, a checkpoint of one or a model folder, ready to predict. Of a run that is not finished
    it is the newest sound checkpoint, with ``best`` the one with the lowest validation error; that is said aloud. Raises
    what :func:`~alexnet.models.states.open_model` raises."""
    device = torch.device(device)
    warn_of_emulation(device, precision)
    folder, state = open_model(model, best=best)
    if folder.origin is not None and folder.origin.new:
        say(f"note: {printable(model)}: {folder.origin}")
    network = folder.model.to(device).eval()
    if precision == "float64":
        network = network.double()
    classes = tuple(folder.classes)
    return Predictor(folder.name, network, folder.preprocessing, classes, folder.mean, device, precision, state)


def _is_folder(source: str) -> bool:
    try:
        return Path(source).is_dir()
    except OSError:  # a name that is too long: decoding it says so, and the others are answered
        return False


def model_fingerprint(predictor: Predictor) -> str:
    """A hash of the network's configuration, preprocessing, mean image and weights, bit for bit: two models with the same hash
    give the same features. It does not depend on the device, the number of threads or the precision that is computed with."""
    digest = hashlib.sha256()
    for name, tensor in predictor.model.state_dict().items():
        value = tensor.float() if tensor.is_floating_point() else tensor
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy())
    if predictor.mean is not None:
        digest.update(predictor.mean.tobytes())
    return fingerprint(
        [predictor.name, to_json(predictor.model.config), to_json(predictor.preprocessing), digest.hexdigest()]
    )


def image_files(sources: Iterable[str | Path]) -> Iterator[str]:
    """Files and ``-`` as they are, folders as their images, recursively, in the order of their names. A folder without
    images: :class:`DataError`."""
    for source in map(str, sources):
        if source == STDIN or not _is_folder(source):
            yield source
            continue
        found = False
        for file in without_unread_twins([*filter(is_image, walk(Path(source)).files)])[0]:
            found = True
            yield file.file
        if not found:
            raise DataError(f"{printable(source)}: no image files in this folder; name another folder or the files")
