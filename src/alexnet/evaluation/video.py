"""Answers for a video, frame by frame, and averaged over time.

Shape suffixes: N frames that were asked, B of them at a time, K classes, D units, S rows or columns of a square, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet.core.errors import ImageError
from alexnet.data.pictures import Picture
from alexnet.data.pixels import KERNELS as PIXEL_KERNELS
from alexnet.data.video import Frame, frames
from alexnet.evaluation.error_rate import mean_log_probability
from alexnet.evaluation.layers import Layer, recorded
from alexnet.evaluation.motion import WINDOW, Steadiness, directions, running_mean, similarity, steadiness, stretches
from alexnet.evaluation.predict import Answer, Predictor, load, most_probable
from alexnet.models.lrn import kernels_in_use

BATCH = 32
MAX_ANSWERS = 10_000
"""Frames that are asked: their hidden layers are kept, 164 MB of 4,096 units."""
SHOWN_STRETCHES = 30


@dataclass(frozen=True, eq=False)
class VideoPrediction:
    """What a network answered to the frames of a video."""

    path: str
    every: int
    classes: tuple[str, ...]
    frame_N: NDArray[np.int64]
    """The place in the file of each frame that was asked, from 0."""
    seconds_N: NDArray[np.float64]
    """Time of each since the first frame."""
    probability_NK: NDArray[np.float32]
    """Of each frame alone, of its center view."""
    layer: str
    """The last hidden layer, or the last that holds trained weights."""
    similarity_N: NDArray[np.float64]
    """Cosine similarity of that layer to the frame before; NaN where there is none."""
    steadiness: Steadiness | None
    """None for a single frame."""

    def __len__(self) -> int:
        return len(self.frame_N)

    @cached_property
    def averaged_NK(self) -> NDArray[np.float64]:
        """The probabilities averaged over the last 32 frames (:func:`~alexnet.evaluation.motion.running_mean`)."""
        return running_mean(self.probability_NK)

    @property
    def overall_K(self) -> NDArray[np.float64]:
        """The probabilities averaged over all frames."""
        return np.asarray(self.probability_NK.mean(axis=0, dtype=np.float64))

    def answers(self, probability_K: NDArray[np.floating], top_k: int = 5) -> tuple[Answer, ...]:
        """The ``top_k`` most probable classes, of a row of probabilities."""
        return most_probable(probability_K, self.classes, top_k)

    def stretches(self) -> list[tuple[int, int]]:
        """First and last frame of each stretch of time with one averaged answer, by their places in the rows."""
        return stretches(self.averaged_NK.argmax(axis=1))

    def summary(self) -> dict[str, Any]:
        """As JSON: what holds for the video as a whole."""
        stretch = [
            {"from": float(self.seconds_N[a]), "to": float(self.seconds_N[b]), "class": self._averaged_answer(a).name}
            for a, b in self.stretches()
        ]
        return {
            "n": len(self),
            "every": self.every,
            "window": WINDOW,
            "stretches": stretch,
            "layer": self.layer,
            "steadiness": None if self.steadiness is None else asdict(self.steadiness),
        }

    def rows(self, top_k: int = 5) -> list[dict[str, Any]]:
        """As JSON: each frame."""
        return [
            {
                "frame": int(self.frame_N[i]),
                "seconds": float(self.seconds_N[i]),
                "predictions": [_in_json(answer) for answer in self.answers(self.probability_NK[i], top_k)],
                "averaged": [_in_json(answer) for answer in self.answers(self.averaged_NK[i], top_k)],
                "similarity": None if np.isnan(self.similarity_N[i]) else float(self.similarity_N[i]),
            }
            for i in range(len(self))
        ]

    def lines(self) -> list[str]:
        """In words: the answers over time, and how steady the layer is. Names of classes are as they are."""
        some = (
            f"{len(self):,} frame{'s' if len(self) != 1 else ''}{f' (one of every {self.every:,})' * (self.every > 1)}"
        )
        lines = [f"{some} from {clock(self.seconds_N[0])} to {clock(self.seconds_N[-1])}"]
        lines.append(f"the most probable class, averaged over the last {WINDOW} frames:")
        found = self.stretches()
        for a, b in found[:SHOWN_STRETCHES]:
            answer = self._averaged_answer(a)
            share = self.averaged_NK[a : b + 1, answer.label].mean()
            lines.append(f"  {clock(self.seconds_N[a])} to {clock(self.seconds_N[b])}  {share:6.1%}  {answer.name}")
        if (more := len(found) - SHOWN_STRETCHES) > 0:
            lines.append(f"  and {more:,} more; --json lists all")
        alone = len(stretches(self.probability_NK.argmax(axis=1))) - 1
        lines.append(f"it {_changes(len(found) - 1)}; without averaging it {_changes(alone)}")
        if (steady := self.steadiness) is not None:
            lines.append(
                f"steadiness: {self.layer} has a cosine similarity of {steady.cosine:.3f} from frame to frame,"
            )
            shuffled = f"95 % of {steady.shuffles} shuffles: {steady.low:.3f} to {steady.high:.3f}"
            lines.append(f"and of {steady.shuffled:.3f} where they are shuffled ({shuffled})")
        return lines

    def _averaged_answer(self, i: int) -> Answer:
        return self.answers(self.averaged_NK[i], 1)[0]


def predict_video(
    model: Predictor | str | Path,
    video: str | Path,
    every: int = 1,
    *,
    seed: int = 0,
    progress: Callable[[int, int], object] | None = None,
) -> VideoPrediction:
    """The answers of a network to every ``every``-th frame of a video file, each for the center view, as
    :meth:`~alexnet.evaluation.predict.Predictor.predict` answers a picture of that frame.

    ``seed`` decides the random orders that the steadiness is compared with. ``progress`` is called with the frames that were
    asked and those that there will be, as far as the file says. Frames are read as they are asked: memory does not grow with
    their pixels, but with the classes and the units of the last hidden layer, and at most 10,000 are asked.

    Raises :class:`~alexnet.core.errors.ImageError` for a file that is no sound video or has too many frames,
    :class:`~alexnet.core.errors.UsageError` for a network that cannot tell classes, and
    :class:`~alexnet.core.errors.AlexNetError` where PyAV is not installed (``pip install "alexnet[video]"``)."""
    predictor = model if isinstance(model, Predictor) else load(model)
    predictor.require_answers()
    layer, name = predictor.usual_layer(), str(video)
    asked: list[tuple[int, float]] = []
    probabilities: list[NDArray[np.float32]] = []
    hidden: list[NDArray[np.float32]] = []
    waiting: list[NDArray[np.uint8]] = []

    def ask() -> None:
        probability_BK, hidden_BD = probabilities_and_hidden(predictor, np.stack(waiting), layer)
        probabilities.append(probability_BK.astype(np.float32))
        hidden.append(directions(hidden_BD))
        waiting.clear()

    for frame in frames(video, every, name):
        total = max(-(-(frame.of or 0) // every), len(asked) + 1)
        _require_few(frame, total, every, name)
        asked.append((frame.number, frame.seconds))
        waiting.append(predictor.pixels(Picture(name, frame.image)))
        if len(waiting) == BATCH:
            kernels_in_use(predictor.device, build=True)  # for fewer a compiler is not worth its second
            PIXEL_KERNELS.available(build=True)
            ask()
        if progress is not None:
            progress(len(asked), total)
    if waiting:
        ask()
    unit_ND = np.concatenate(hidden)
    number_N, seconds_N = zip(*asked, strict=True)
    return VideoPrediction(
        path=name,
        every=every,
        classes=predictor.classes,
        frame_N=np.array(number_N, dtype=np.int64),
        seconds_N=np.array(seconds_N, dtype=np.float64),
        probability_NK=np.concatenate(probabilities),
        layer=layer.name,
        similarity_N=similarity(unit_ND),
        steadiness=steadiness(unit_ND, seed),
    )


@torch.inference_mode()
def probabilities_and_hidden(
    predictor: Predictor, pixels_BSSC: NDArray[np.uint8], layer: Layer
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """What a network answers to the center view of stored images, (B, K), and what a layer computes on the way, (B, D): both of
    one forward pass."""
    inputs = predictor.inputs(torch.from_numpy(pixels_BSSC))
    with recorded(predictor.model.eval(), [layer]) as outputs:
        log_probability_BK = mean_log_probability(predictor.model, inputs, predictor.precision)
    return log_probability_BK.double().exp().cpu().numpy(), outputs[layer.name].flatten(1).float().cpu().numpy()


def _require_few(frame: Frame, total: int, every: int, name: str) -> None:
    if total > MAX_ANSWERS:
        few = -(-max(frame.of or 0, frame.number + 1) // MAX_ANSWERS)
        said = f"{total:,} frames to answer, at most {MAX_ANSWERS:,}; take --every {max(few, 2 * every):,}"
        raise ImageError(name, "too large", said)


def _in_json(answer: Answer) -> dict[str, Any]:
    return {"class": answer.name, "label": answer.label, "probability": answer.probability}


def clock(seconds: float) -> str:
    """m:ss.s, or h:mm:ss.s."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest / 10:04.1f}" if hours else f"{minutes}:{rest / 10:04.1f}"


def _changes(num: int) -> str:
    return {0: "never changes", 1: "changes once", 2: "changes twice"}.get(num, f"changes {num:,} times")
