"""Damage to bytes, drawn from a seed: what a disk, a network or an enemy might do to a file."""

from __future__ import annotations

import json
import random
import re
import resource
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from alexnet.core.errors import AlexNetError

MAX_BYTES = 1 << 16
"""Of a mutated file."""
NUMBERS = (
    *(0, 1, -1, 2, 127, 128, 255, 256, 32767, 65500, 65535, 65536),
    *((1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 62, -(1 << 63)),
)
JSON_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 1 << 31, 1 << 63, 10**25, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf")),
    *(
        "",
        "x",
        "..",
        "../../x",
        "/etc/passwd",
        "a\nb",
        "\x00",
        "\x1b[2J",
        "\udc80",
        "<b>",
        "x" * 300,
        [],
        {},
        [[]],
        [None],
    ),
    *([1, 2, 3], {"kind": "x"}, {"a": {"b": {}}}, [0] * 300, ["a"] * 3),
)

Damage = Callable[[bytes, random.Random, Sequence[bytes]], bytes]
"""Makes another file of one; the last are others of its kind."""


def mutate(data: bytes, draw: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """``data`` with one to four kinds of damage; JSON text often by replacing what it says instead of its bytes."""
    if data[:1] in (b"{", b"[") and draw.random() < 0.6:
        with suppress(ValueError, RecursionError):
            value = json.loads(data.decode("utf-8", "surrogatepass"))
            for _ in range(draw.choice((1, 1, 1, 2, 3))):
                value = _other_value(value, draw)
            return json.dumps(value).encode("utf-8", "surrogatepass")[:MAX_BYTES]
    damaged = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        damaged = bytearray(draw.choice(_KINDS)(damaged, draw, others))[:MAX_BYTES]
    return bytes(damaged)


def _flip(data: bytearray, draw: random.Random, _: Sequence[bytes]) -> bytes:
    for _ in range(draw.choice((1, 1, 2, 8))):
        if data:
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return data


def _flip_early(data: bytearray, draw: random.Random, _: Sequence[bytes]) -> bytes:
    """In the header, where it matters most."""
    if data:
        data[draw.randrange(min(len(data), 64))] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))
    return data


def _number(data: bytearray, draw: random.Random, _: Sequence[bytes]) -> bytes:
    size, order = draw.choice((1, 2, 4, 8)), draw.choice(("little", "big"))
    if len(data) >= size:
        at = draw.randrange(len(data) - size + 1)
        value = draw.choice(NUMBERS) % (1 << 8 * size)
        data[at : at + size] = value.to_bytes(size, order)  # type: ignore[arg-type]
    return data


def _digits(data: bytearray, draw: random.Random, _: Sequence[bytes]) -> bytes:
    """A number that is written out, as in the header of a NumPy file."""
    found = list(re.finditer(rb"\d+", data[:4096]))
    if not found:
        return data
    match = draw.choice(found)
    new = str(draw.choice((*NUMBERS, 10**25))).encode()
    if draw.random() < 0.5:  # a header that says its length keeps it
        new = new[: len(match[0])].ljust(len(match[0]))
    return data[: match.start()] + new + data[match.end() :]


def _cut(data: bytearray, draw: random.Random, _: Sequence[bytes]) -> bytes:
    return data[: draw.randrange(len(data) + 1)]


def _remove(data: bytearray, draw: random.Random, _: Sequence[bytes]) -> bytes:
    at = draw.randrange(len(data) + 1)
    return data[:at] + data[at + draw.choice((1, 2, 4, 16, 100)) :]


def _insert(data: bytearray, draw: random.Random, _: Sequence[bytes]) -> bytes:
    at = draw.randrange(len(data) + 1)
    new = draw.choice(
        (draw.randbytes(draw.choice((1, 2, 4, 16))), bytes(4), b"\xff" * 8, b"\n", b'"', b",", b"[" * 2000)
    )
    return data[:at] + new + data[at:]


def _repeat(data: bytearray, draw: random.Random, _: Sequence[bytes]) -> bytes:
    at = draw.randrange(len(data) + 1)
    return data[:at] + data[at : at + draw.choice((4, 16, 64, 200))] * draw.choice((2, 3, 20)) + data[at:]


def _splice(data: bytearray, draw: random.Random, others: Sequence[bytes]) -> bytes:
    if not others:
        return data
    other = draw.choice(others)
    return data[: draw.randrange(len(data) + 1)] + other[draw.randrange(len(other) + 1) :]


def _zero(data: bytearray, draw: random.Random, _: Sequence[bytes]) -> bytes:
    at = draw.randrange(len(data) + 1)
    length = len(data[at : at + draw.choice((4, 64, 4096))])
    data[at : at + length] = bytes(length)
    return data


_KINDS = (_flip, _flip, _flip_early, _number, _number, _digits, _cut, _remove, _insert, _repeat, _splice, _zero)


def _other_value(value: Any, draw: random.Random) -> Any:
    """One node of a JSON value replaced, removed, renamed or wrapped."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        value, key = dict(value), draw.choice(list(value))
        kind = draw.random()
        if kind < 0.08:
            del value[key]
        elif kind < 0.14:
            value[draw.choice(("", "x", f"{key}x", "__class__", "a\nb"))] = value.pop(key)
        elif kind < 0.18:
            value[draw.choice(("", "x", "kind"))] = draw.choice(JSON_VALUES)
        else:
            value[key] = _other_value(value[key], draw)
        return value
    if isinstance(value, list) and value and draw.random() < 0.8:
        value, at = list(value), draw.randrange(len(value))
        kind = draw.random()
        if kind < 0.15:
            del value[at]
        elif kind < 0.3:
            value.insert(at, value[at])
        else:
            value[at] = _other_value(value[at], draw)
        return value
    kind = draw.random()
    if isinstance(value, int) and not isinstance(value, bool) and kind < 0.4:
        return value + draw.choice((-1, 1, 1000))
    if isinstance(value, str) and value and kind < 0.3:
        at = draw.randrange(len(value))
        return value[:at] + draw.choice(("", "x", "\n", "../", "\x00")) + value[at + 1 :]
    return draw.choice(JSON_VALUES)


@dataclass
class Campaign:
    """What came of many mutated inputs."""

    cases: int = 0
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """By the class of the error."""
    faults: list[tuple[str, bytes]] = field(default_factory=list)
    """Anything else that happened, with the input."""
    slowest: float = 0.0
    growth_bytes: int = 0
    """Of the peak memory of the process."""

    def summary(self) -> dict[str, Any]:
        counts = {"cases": self.cases, "accepted": self.accepted, "refused": dict(sorted(self.refused.items()))}
        peak = {"slowest_seconds": round(self.slowest, 3), "memory_growth_mb": round(self.growth_bytes / 1e6)}
        return counts | {"faults": len(self.faults)} | peak


class HangError(BaseException):
    """A case took longer than its limit. Not an Exception, so that nothing takes it for a fault of the file."""


def campaign(
    target: Callable[[bytes], object],
    seeds: Sequence[bytes],
    count: int,
    seed: int,
    *,
    kept: int = 0,
    allowed: type[AlexNetError] = AlexNetError,
    damage: Damage = mutate,
    seconds: float = 12.0,
) -> Campaign:
    """``target`` with ``count`` inputs that ``damage`` made of ``seeds``. It may return or raise ``allowed`` with a message of
    one line; anything else is a fault, and so are more than ``seconds``. The first ``kept`` bytes of a seed stay as they are."""
    draw, done = random.Random(seed), Campaign()
    bodies = [data[kept:] for data in seeds]
    before = _peak()
    previous = signal.signal(signal.SIGALRM, _hang)
    try:
        for i in range(count):
            chosen = i % len(seeds)
            data = seeds[chosen][:kept] + damage(bodies[chosen], draw, bodies)
            start = time.perf_counter()
            signal.setitimer(signal.ITIMER_REAL, seconds)
            try:
                target(data)
                done.accepted += 1
            except allowed as error:
                done.refused[type(error).__name__] += 1
                if "\n" in str(error):
                    done.faults.append(("a message of several lines", data))
            except (Exception, HangError) as error:
                done.faults.append((f"{type(error).__name__}: {error}"[:300], data))
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            done.slowest = max(done.slowest, time.perf_counter() - start)
            done.cases += 1
    finally:
        signal.signal(signal.SIGALRM, previous)
    done.growth_bytes = _peak() - before
    return done


def require_one_line(error: AlexNetError) -> None:
    if "\n" in str(error):
        raise AssertionError(f"a message of several lines: {error}")


def _hang(_signal: int, _frame: FrameType | None) -> None:
    raise HangError("no answer in time")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
