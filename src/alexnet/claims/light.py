"""§4.1: color noise stands for changes of the light: errors when the held-out pictures are under another light.

Shape suffixes: B images of a batch, S rows and columns, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet.claims.augmentation import COLOR_SCALES, NO_COLOR_NOISE
from alexnet.claims.experiment import Arm, Experiment, lower
from alexnet.claims.laboratory import Laboratory, asked_of_the_network, counts_of, evaluate_network
from alexnet.claims.results import Result
from alexnet.evaluation.error_rate import Split
from alexnet.evaluation.predict import Predictor
from alexnet.training.config import TrainConfig

NEUTRAL = 6500
LOCUS = {3000: (0.4369, 0.4041), 4000: (0.3804, 0.3768), NEUTRAL: (0.3135, 0.3237), 10_000: (0.2807, 0.2884)}
"""Chromaticity (x, y) of a black body at so many kelvin, CIE 1931."""
FROM_XYZ = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])
"""From CIE XYZ to linear sRGB (IEC 61966-2-1)."""
INTENSITIES = (0.25, 0.5, 2.0)
"""Two stops and one less light, one stop more."""


@dataclass(frozen=True)
class Lit:
    """The images of a split under another light."""

    split: Split
    gain_C: NDArray[np.float64]
    """Factors of the light in red, green and blue."""

    @property
    def labels(self) -> NDArray[np.int64]:
        return self.split.labels

    @property
    def paths(self) -> Sequence[str]:
        return self.split.paths

    def __len__(self) -> int:
        return len(self.split)

    def read(self, index_B: NDArray[np.int64]) -> NDArray[np.uint8]:
        return relit(np.asarray(self.split.read(index_B)), self.gain_C)


def relit(pixels_BSSC: NDArray[np.uint8], gain_C: NDArray[np.float64]) -> NDArray[np.uint8]:
    """sRGB pixels whose light is multiplied by these gains. What becomes brighter than white is white."""
    light = np.arange(256) / 255
    light = np.where(light <= 0.04045, light / 12.92, ((light + 0.055) / 1.055) ** 2.4)
    light_C256 = np.minimum(gain_C[:, None] * light, 1.0)
    value_C256 = np.where(light_C256 <= 0.0031308, 12.92 * light_C256, 1.055 * light_C256 ** (1 / 2.4) - 0.055)
    table_C256 = np.round(255 * value_C256).astype(np.uint8)
    return np.stack([table_C256[c][pixels_BSSC[..., c]] for c in range(len(gain_C))], axis=-1)


def gains(kelvin: int) -> NDArray[np.float64]:
    """Factors of red, green and blue when what a black body of :data:`NEUTRAL` lit is lit, as brightly, by one of this heat."""

    def white(x: float, y: float) -> NDArray[np.float64]:
        white_C: NDArray[np.float64] = FROM_XYZ @ np.array([x / y, 1.0, (1 - x - y) / y])
        return white_C

    return white(*LOCUS[kelvin]) / white(*LOCUS[NEUTRAL])


LIGHTS: dict[str, dict[str, NDArray[np.float64]]] = {
    "color": {f"{kelvin} K": gains(kelvin) for kelvin in LOCUS if kelvin != NEUTRAL},
    "intensity": {f"x {factor:g}": np.full(3, factor) for factor in INTENSITIES},
}


def under_other_lights(lab: Laboratory, config: TrainConfig, predictor: Predictor) -> Result:
    """Errors of the held-out images as they are, and under each of :data:`LIGHTS`."""
    data = lab.open_data(config)
    split = data.split(data.held_out)

    def count(images: Split) -> Result:
        return counts_of(evaluate_network(lab, config, data, predictor, images))

    found = {what: {name: count(Lit(split, gain_C)) for name, gain_C in of.items()} for what, of in LIGHTS.items()}
    own = count(split)
    shown = {name: counts["top1_error"] for of in found.values() for name, counts in of.items()}
    return {"n": own["n"], "views": {"1": own}, "lights": found, "shown": {"as it is": own["top1_error"], **shown}}


def _arm(name: str, changes: Mapping[str, Any]) -> Arm:
    return Arm(name=name, changes=changes, result=asked_of_the_network(under_other_lights), same_training=True)


EXPERIMENTS = (
    Experiment(
        id="light",
        title="Pictures in another light, with and without color noise in training",
        arms=lambda _base: (
            _arm("light", {}),
            _arm("light-no-color-noise", NO_COLOR_NOISE),
        ),
        comparisons=tuple(
            lower(
                f"{measure}_{kind}",
                "N43",
                f"when the light has another {kind} the error {is_} after training with color noise",
                arm="light",
                than="light-no-color-noise",
            )
            for kind in LIGHTS
            for measure, is_ in (("error_by", "is lower"), ("rise_by", "rises less"))
        ),
        scales=COLOR_SCALES,
    ),
)
