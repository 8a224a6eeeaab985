"""The webcam in motion: what the network says of one frame, and what its last hidden layer is then.

Shape suffixes: S rows or columns of a square, C channels.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet.evaluation.predict import most_probable
from alexnet.evaluation.video import probabilities_and_hidden
from alexnet.page.room import Room

FEW = 1000
"""Most classes whose probabilities are all sent."""
SHOWN = 5
LARGEST = float(np.finfo(np.float16).max)


def frame(room: Room, pixels: NDArray[np.uint8]) -> dict[str, Any]:
    """Of a picture (S, S, C): the probabilities of all classes, in their order, where they are at most :data:`FEW`, or else
    None; the five most probable ones; and, as float16 in base64, the activations of the last hidden layer with trained
    weights. Without answers where the network cannot tell classes."""
    predictor = room.predictor
    layer, can_answer = predictor.usual_layer(), predictor.why_no_answers is None
    (probability_K,), (hidden_D,) = probabilities_and_hidden(predictor, pixels[None], layer)
    answers = most_probable(probability_K, predictor.classes, SHOWN) if can_answer else ()
    return {
        "probabilities": probability_K.tolist() if can_answer and len(probability_K) <= FEW else None,
        "answers": [vars(answer) for answer in answers],
        "layer": layer.name,
        "hidden": base64.b64encode(hidden_D.clip(-LARGEST, LARGEST).astype(np.float16).tobytes()).decode(),
    }
