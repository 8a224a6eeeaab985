"""The webcam in motion: what the network says of one frame, and what its last hidden layer is then.

Shape suffixes: S rows or columns of a square, C channels.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet.evaluation.layers import recorded
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
    layer = predictor.usual_layer()
    num = len(predictor.classes)
    with recorded(predictor.model, [layer]) as outputs:
        (answers,) = predictor.answers([pixels], top_k=num if num <= FEW else SHOWN)
    hidden_D = outputs[layer.name].flatten().float().cpu().numpy().clip(-LARGEST, LARGEST).astype(np.float16)
    if predictor.why_no_answers is not None:
        answers, num = (), 0
    by_label = sorted(answers, key=lambda answer: answer.label)
    return {
        "probabilities": [answer.probability for answer in by_label] if 0 < num <= FEW else None,
        "answers": [vars(answer) for answer in answers[:SHOWN]],
        "layer": layer.name,
        "hidden": base64.b64encode(hidden_D.tobytes()).decode(),
    }
