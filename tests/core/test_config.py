"""Settings survive JSON, and what does not fit is named."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import pytest

from alexnet.core.config import differences, fingerprint, from_json, to_json
from alexnet.core.errors import UsageError


@dataclass(frozen=True)
class Warm:
    kind: Literal["warm"] = "warm"
    degrees: float = 1.0


@dataclass(frozen=True)
class Cold:
    kind: Literal["cold"] = "cold"
    degrees: float = -1.0

    def __post_init__(self) -> None:
        if self.degrees > 0:
            raise ValueError(f"Cold.degrees is {self.degrees}; it must be at most 0")


@dataclass(frozen=True)
class Settings:
    name: str
    sizes: tuple[int, ...] = (1, 2)
    pair: tuple[float, float] = (0.5, 1.0)
    limit: int | None = None
    weather: Warm | Cold = field(default_factory=Warm)


def test_settings_survive_json():
    settings = Settings("a", sizes=(3,), limit=4, weather=Cold(degrees=-2))
    assert from_json(Settings, to_json(settings)) == settings


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"name": "a", "color": 1}, "config.color: unknown field"),
        ({}, "config.name: missing"),
        ({"name": 3}, "config.name is 3; it must be a value of type str"),
        ({"name": "a", "sizes": [1, "x"]}, "config.sizes[1] is 'x'"),
        ({"name": "a", "sizes": [True]}, "config.sizes[0] is True"),
        ({"name": "a", "pair": [1.0]}, "config.pair is [1.0]; it must be a list of 2"),
        ({"name": "a", "weather": {"kind": "cold", "degrees": 5}}, "Cold.degrees is 5.0; it must be at most 0"),
    ],
)
def test_what_does_not_fit_is_named(value, message):
    with pytest.raises(UsageError) as caught:
        from_json(Settings, value)
    assert message in str(caught.value)


def test_fingerprint_and_differences_see_every_field():
    a = Settings("a")
    b = replace(a, weather=Warm(degrees=2))
    assert fingerprint(a) != fingerprint(b)
    assert differences(to_json(a), to_json(b)) == ["weather.degrees"]
    assert differences(to_json(a), to_json(a)) == []
