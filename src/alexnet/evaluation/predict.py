"""Answers for pictures in any form, of any size and aspect.

Shape suffixes: B images, C channels, H rows, W columns, S rows or columns of a square, K classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from alexnet.core.config import fingerprint, to_json
from alexnet.core.console import say
from alexnet.core.device import Precision, autocast, warn_of_emulation
from alexnet.core.errors import ImageError, UsageError, printable
from alexnet.core.preprocessing import Preprocessing
from alexnet.data.loader import ahead
from alexnet.data.pictures import File, Picture, PictureLike, is_one, pictures
from alexnet.data.pixels import KERNELS as PIXEL_KERNELS
from alexnet.data.pixels import resize_and_crop, resize_short_side
from alexnet.evaluation.error_rate import mean_log_probability
from alexnet.evaluation.layers import Layer, find_layers, recorded, usual_layer
from alexnet.evaluation.onnx_network import OnnxNetwork, is_onnx, open_onnx
from alexnet.evaluation.views import CENTER, Views, parse_views, random_views_of, views_of
from alexnet.models.folder import Origin
from alexnet.models.lrn import kernels_in_use
from alexnet.models.states import State, open_model

Decoded = tuple[str, NDArray[np.uint8] | ImageError]
"""The name of a picture, and its pixels or what is wrong with it."""


@dataclass(frozen=True)
class Answer:
    label: int
    name: str
    probability: float


def most_probable(probability_K: NDArray[np.floating], classes: Sequence[str], k: int) -> tuple[Answer, ...]:
    """The ``k`` most probable classes, of their probabilities; equally probable ones in their order."""
    order_k = np.argsort(-probability_K, kind="stable")[:k].tolist()
    return tuple(Answer(label, classes[label], float(probability_K[label])) for label in order_k)


@dataclass(frozen=True)
class Prediction:
    """The answers for one image, most probable first; none, and the reason, if it could not be read."""

    path: str
    """Its path, or which of the inputs it is (``input 0``), for what is no file."""
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
    origin: Origin | None = None
    """Where its weights come from, if it was not trained here."""

    @overload
    def predict(  # type: ignore[overload-overlap]  # a file is also an iterator, of its lines
        self,
        given: bytes | bytearray | memoryview | File | Image.Image,
        views: str | Views = ...,
        top_k: int = ...,
        batch_size: int = ...,
        workers: int | None = ...,
    ) -> Prediction: ...

    @overload
    def predict(
        self,
        given: Iterator[PictureLike],
        views: str | Views = ...,
        top_k: int = ...,
        batch_size: int = ...,
        workers: int | None = ...,
    ) -> Iterator[Prediction]: ...

    @overload
    def predict(
        self,
        given: list[Any] | tuple[Any, ...],
        views: str | Views = ...,
        top_k: int = ...,
        batch_size: int = ...,
        workers: int | None = ...,
    ) -> list[Prediction]: ...

    @overload  # a path may be a folder and an array a batch
    def predict(
        self,
        given: PictureLike | Iterable[PictureLike],
        views: str | Views = ...,
        top_k: int = ...,
        batch_size: int = ...,
        workers: int | None = ...,
    ) -> Any: ...

    def predict(
        self,
        given: PictureLike | Iterable[PictureLike],
        views: str | Views = "1",
        top_k: int = 5,
        batch_size: int = 32,
        workers: int | None = None,
    ) -> Prediction | list[Prediction] | Iterator[Prediction]:
        """The ``top_k`` most probable classes of pictures, in any of the forms that
        :func:`~alexnet.data.pictures.pictures` reads: paths, bytes, PIL images, arrays, tensors.

        One picture gives one :class:`Prediction`. A list, a folder or a batch gives a list of them, in order. An iterator
        gives an iterator, whose answers come as the batches are done: for pictures without end. A picture that cannot be
        read gets a prediction without answers that says why; the others are answered.

        The short side is resized to ``preprocessing.resize``; the center view and the ten views come from the center
        square, ``random:K`` crops from the whole image. ``workers`` threads decode while the network computes, 0 decodes
        in between; by default up to one a core. No more than two batches of pictures are in memory.

        Raises what :func:`~alexnet.data.pictures.pictures` raises, and :class:`UsageError` for other views and for a network
        that cannot tell classes, because layers of it have random weights."""
        views = views if isinstance(views, Views) else parse_views(str(views))
        self.require_answers(views)
        for name, number in (("top_k", top_k), ("batch_size", batch_size)):
            if number < 1:
                raise UsageError(f"{name} is {number}; it must be at least 1")
        answers = self._answers(pictures(given), views, top_k, batch_size, workers)
        if is_one(given):
            return next(answers)
        return answers if isinstance(given, Iterator) else list(answers)

    def _answers(
        self, given: Iterator[Picture], views: Views, top_k: int, batch_size: int, workers: int | None
    ) -> Iterator[Prediction]:
        for group in self.decoded(given, batch_size, whole=views.kind == "random", workers=workers):
            if len(group) == batch_size:  # for fewer a compiler is not worth its second
                kernels_in_use(self.device, build=True)
            yield from self._predict_group(group, views, top_k)

    def decoded(
        self, given: Iterator[Picture], batch_size: int, *, whole: bool = False, workers: int | None = None
    ) -> Iterator[list[Decoded]]:
        """Batches of pictures with their :meth:`pixels`, or with what is wrong with them, decoded by threads ahead of who
        asks."""

        def decode(picture: Picture) -> Decoded:
            try:
                return picture.name, self.pixels(picture, whole=whole)
            except ImageError as error:
                return picture.name, error

        decoded = ahead(decode, given, workers=workers, window=2 * batch_size, what="the picture")
        while group := list(islice(decoded, batch_size)):
            if len(group) == batch_size:  # for fewer a compiler is not worth its second
                PIXEL_KERNELS.available(build=True)
            yield group

    def _predict_group(self, group: Sequence[Decoded], views: Views, top_k: int) -> list[Prediction]:
        predictions = [Prediction(name, (), it if isinstance(it, ImageError) else None) for name, it in group]
        images = {i: it for i, (_, it) in enumerate(group) if not isinstance(it, ImageError)}
        if not images:
            return predictions

        for i, answers in zip(images, self.answers(list(images.values()), views, top_k), strict=True):
            predictions[i] = Prediction(predictions[i].path, answers)
        return predictions

    @torch.inference_mode()
    def answers(
        self, images: Sequence[NDArray[np.uint8]], views: Views = CENTER, top_k: int = 5
    ) -> list[tuple[Answer, ...]]:
        """The ``top_k`` most probable classes of each of these images, computed together: of their :meth:`pixels`, whole where
        ``views`` are random crops."""
        if views.kind == "random":
            inputs = random_views_of(list(images), views, self.preprocessing, self._mean(), self.device)
        else:
            inputs = self.inputs(torch.from_numpy(np.stack(images)), views)
        probability_BK = mean_log_probability(self.model, inputs, self.precision).double().exp().cpu().numpy()
        return [most_probable(probability_K, self.classes, top_k) for probability_K in probability_BK]

    def embed(
        self,
        given: PictureLike | Iterable[PictureLike],
        layer: str = "pool5",
        batch_size: int = 32,
        workers: int | None = None,
    ) -> NDArray[np.float32]:
        """What a layer computes for the center view of pictures, in any of the forms that :meth:`predict` takes: (D,) for
        one, (N, D) for several, maps flattened in the order channel, row, column. A wrong name lists all layers.

        Raises what :func:`~alexnet.data.pictures.pictures` raises, :class:`UsageError` for an unknown layer and no batch, and
        :class:`ImageError` for a picture that cannot be read."""
        if batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}; it must be at least 1")
        layers = find_layers(self.model, [layer])
        rows = [np.empty((0, layers[0].num_units), np.float32)]
        for group in self.decoded(pictures(given), batch_size, workers=workers):
            pixels = []
            for _, it in group:
                if isinstance(it, ImageError):
                    raise it
                pixels.append(it)
            rows.append(self.activations(torch.from_numpy(np.stack(pixels)), layers)[layer])
        row_ND = np.concatenate(rows)
        return row_ND[0] if is_one(given) else row_ND

    @torch.no_grad()
    def activations(self, pixels_BSSC: torch.Tensor, layers: Sequence[Layer]) -> dict[str, NDArray[np.float32]]:
        """The activations of these layers for the center view of a batch of stored images, (B, S, S, C) uint8: (B, D) each,
        maps flattened in the order channel, row, column."""
        model = self.model.eval()
        (x_BCHW,) = self.inputs(pixels_BSSC)
        with recorded(model, layers) as outputs, autocast(self.device, self.precision):
            model(x_BCHW.double() if self.precision == "float64" else x_BCHW)
        return {layer.name: outputs[layer.name].flatten(1).float().cpu().numpy() for layer in layers}

    def inputs(self, pixels_BSSC: torch.Tensor, views: Views = CENTER) -> Iterator[torch.Tensor]:
        """What the network reads of stored images (B, S, S, C) uint8: float32 (B, C, crop, crop) on the device, one for each of
        ``views``, which are no random ones."""
        pixels_BSSC = pixels_BSSC.to(self.device)
        return views_of(pixels_BSSC, np.arange(len(pixels_BSSC)), views, self.preprocessing, self._mean())

    def _mean(self) -> torch.Tensor | None:
        return None if self.mean is None else torch.as_tensor(self.mean).to(self.device)

    def usual_layer(self, name: str | None = None, usual: str = "fc7") -> Layer:
        """The layer called ``name``, or without one the usual one among those with trained weights
        (:func:`~alexnet.evaluation.layers.usual_layer`)."""
        return usual_layer(self.model, name, usual, () if self.origin is None else self.origin.new)

    @property
    def why_no_answers(self) -> str | None:
        """Why the network cannot tell classes: it has no last layer, or layers with random weights, so that the classes of a
        picture would be random. None if it can."""
        if not self.classes:
            return (
                "this model cannot tell classes, because it was saved without its last layer; use its other layers (alexnet "
                "features, index, search)"
            )
        if self.origin is None or not self.origin.new:
            return None
        return (
            f"this model cannot tell classes yet, because {self.origin.lack}; train it with --init-from, or use its trained "
            "layers (alexnet features, index, search)"
        )

    def require_answers(self, views: Views = CENTER) -> None:
        """:class:`UsageError` with :attr:`why_no_answers` if there is a reason, and for views that an ONNX file with its
        preprocessing does not take, which crops by itself."""
        if (why := self.why_no_answers) is not None:
            raise UsageError(why)
        if views != CENTER and isinstance(self.model, OnnxNetwork) and self.model.takes_pixels:
            raise UsageError(
                f"the preprocessing is in this ONNX file, which takes the center of a picture, so --views {views} cannot be had; "
                "export the network without --with-preprocessing"
            )

    def pixels(self, given: Picture | PictureLike, *, whole: bool = False) -> NDArray[np.uint8]:
        """The center square (S, S, C) of one picture, or with ``whole`` all of it (H, W, C) with its short side at S. A picture
        that cannot be read: :class:`ImageError`."""
        picture = given if isinstance(given, Picture) else next(pictures(given))
        return self.pixels_of(picture.decode(self.preprocessing.sample_max), whole=whole)

    def pixels_of(self, image: Image.Image, *, whole: bool = False) -> NDArray[np.uint8]:
        """The :meth:`pixels` of a picture that is decoded: upright, RGB."""
        if self.preprocessing.channels == 1:
            image = image.convert("L")
        size = self.preprocessing.resize
        pixels_HWC = np.asarray(resize_short_side(image, size)) if whole else resize_and_crop(image, size)
        return pixels_HWC.reshape(*pixels_HWC.shape[:2], self.preprocessing.channels)


def load(
    model: str | Path, device: torch.device | str = "cpu", precision: Precision = "float32", *, best: bool = False
) -> Predictor:
    """The network in a run directory, a checkpoint of one, a model folder, or a repository of the Hugging Face Hub
    (``hf-hub:OWNER/NAME``, or ``hf-hub:OWNER/NAME@REVISION``), ready to predict. Of a run that is not finished
    it is the newest sound checkpoint, with ``best`` the one with the lowest validation error; that is said aloud. A file that
    :func:`alexnet.export` wrote as ONNX is computed by onnxruntime on the CPU, and only answers. Raises
    what :func:`~alexnet.models.states.open_model` and :func:`~alexnet.evaluation.onnx_network.open_onnx` raise."""
    if is_onnx(path := Path(model)):
        return _load_onnx(path, precision, best=best)
    device = torch.device(device)
    warn_of_emulation(device, precision)
    folder, state = open_model(model, best=best)
    if folder.origin is not None and folder.origin.new:
        say(f"note: {printable(model)}: {folder.origin}")
    network = folder.model.to(device).eval()
    if precision == "float64":
        network = network.double()
    classes = tuple(folder.classes)
    return Predictor(
        folder.name, network, folder.preprocessing, classes, folder.mean, device, precision, state, folder.origin
    )


def _load_onnx(path: Path, precision: Precision, *, best: bool) -> Predictor:
    if best:
        raise UsageError(f"{printable(path)}: --best needs a run with checkpoints, the --out of `alexnet train`")
    if precision != "float32":
        raise UsageError(f"{printable(path)}: an ONNX file is computed in float32; leave --precision {precision} out")
    network, folder = open_onnx(path)
    p = folder.preprocessing
    if network.takes_pixels:  # it is given the stored square as it is
        p = Preprocessing(resize=p.resize, crop=p.resize, channels=p.channels, mean="none", sample_max=p.sample_max)
    mean = None if network.takes_pixels else folder.mean
    return Predictor(folder.name, network.eval(), p, tuple(folder.classes), mean, torch.device("cpu"))


def model_fingerprint(predictor: Predictor) -> str:
    """A hash of the network's configuration, preprocessing, mean image and weights, bit for bit: two models with the same hash
    give the same features. It does not depend on the device, the number of threads or the precision that is computed with, nor
    on settings that a later version adds, as long as they have their defaults: an index goes on to be one of its model."""
    if isinstance(predictor.model, OnnxNetwork):
        return predictor.model.fingerprint
    digest = hashlib.sha256()
    for name, tensor in predictor.model.state_dict().items():
        value = tensor.float() if tensor.is_floating_point() else tensor
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy())
    if predictor.mean is not None:
        digest.update(predictor.mean.tobytes())
    settings = map(_not_default, (predictor.model.config, predictor.preprocessing))
    return fingerprint([predictor.name, *settings, digest.hexdigest()])


def _not_default(config: Any) -> dict[str, Any]:
    """The fields of a configuration that have not their default."""
    usual = {field.name: field.default for field in fields(config)}
    return {name: value for name, value in to_json(config).items() if value != to_json(usual[name])}
