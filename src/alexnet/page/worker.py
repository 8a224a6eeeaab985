"""The process that decodes pictures and asks the network: it may crash or be killed at any moment, and keeps nothing that the
next one would need.

What comes through the pipe is a list of questions of one name; what goes back is an outcome for each, in their order. This module
imports nothing heavy, because the server takes its words from here.

Shape suffixes: S rows or columns of a square, C channels.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alexnet.core.errors import AlexNetError, DataError, ImageError, UsageError, printable
from alexnet.core.memory import give_back_memory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from alexnet.page.room import Room

LOOK = "look"
"""The question that is asked for several clients at once: to decode a picture, and what the network says to it."""
QUESTIONS = {
    LOOK: 30,
    "see.model": 30,
    **dict.fromkeys(("see.input_png", "see.square_png", "see.maps", "see.maps_sheet", "see.one_map", "see.window"), 30),
    **dict.fromkeys(("see.views", "see.answers", "see.saliency"), 60),
    "see.occlusion": 120,
    **dict.fromkeys(("samples.samples", "samples.about"), 60),
    "units.kernel_png": 30,
    **dict.fromkeys(("units.unit", "units.crops_png", "units.optimal_png"), 180),
    **dict.fromkeys(("teach.features", "teach.head_answers", "teach.head_saliency", "teach.keep_head"), 60),
    "teach.teach": 120,
    **dict.fromkeys(("search.matches", "search.thumbnail"), 60),
    "motion.frame": 30,
}
"""Each question, the module of this package and the function of it that answer, and after how many seconds the worker is taken
to hang. A decoder stops by itself after 10 s of processor time for a picture."""


IDLE_SECONDS = 0.5
"""After which a worker that nobody asks gives back the memory that it has kept for the next question."""


@dataclass(frozen=True)
class Pixels:
    """The center square of a picture as bytes: what the server keeps of it, which has no use for arrays."""

    id: str
    shape: tuple[int, int, int]
    content: bytes

    @classmethod
    def of(cls, pixels_SSC: NDArray[np.uint8]) -> Pixels:
        content = pixels_SSC.tobytes()
        return cls(hashlib.sha256(content).hexdigest()[:16], pixels_SSC.shape, content)

    def array(self) -> NDArray[np.uint8]:
        import numpy as np

        return np.frombuffer(self.content, np.uint8).reshape(self.shape).copy()  # torch wants to be able to write


@dataclass(frozen=True)
class Look:
    """A picture that was decoded."""

    pixels: Pixels
    width: int
    height: int
    """Of the whole picture, upright."""
    answers: list[dict[str, Any]] | None
    """The five most probable classes, for its center view; None where they were not asked for, or there are none."""


@dataclass(frozen=True)
class Done:
    """The answer to a question."""

    value: Any


@dataclass(frozen=True)
class Refused:
    """A question that has no answer, and why, in a sentence for the one who asked."""

    kind: Literal["unknown", "not-an-image", "unsupported", "too-large", "busy", "failed"]
    text: str


Outcome = Done | Refused


class NotYetError(AlexNetError):
    """What was asked for takes several questions to compute, of which this was not the last."""


@dataclass(frozen=True, kw_only=True)
class Opening:
    """What a worker opens before it answers; the same for all that come after one another."""

    model: str
    data: str | None = None
    index: str | None = None
    keep: str = "taught"
    device: str = "auto"
    threads: int | None = None
    workers: int | None = None
    best: bool = False
    data_root: str | None = None


@dataclass(frozen=True)
class Ready:
    """The first word of a worker that has opened everything."""

    name: str
    """Of the network."""
    num_classes: int
    can_answer: bool


def main(descriptor: int) -> None:
    """Open what the first message names, and answer questions until the pipe ends. Ends with the process that started this
    one, which holds the other end of standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # or it prints lines about its cache where there is no home
    threading.Thread(target=_follow, daemon=True).start()
    pipe: Connection[Any, Any] = Connection(descriptor)
    try:
        room = open_room(pipe.recv())
    except Exception as error:
        if not isinstance(error, AlexNetError | OSError):
            traceback.print_exc()
        pipe.send(_sendable(error))
        return
    pipe.send(ready(room))
    threading.Thread(target=warm_up, daemon=True).start()
    try:
        while True:
            if not pipe.poll(IDLE_SECONDS):
                give_back_memory()
            name, several = pipe.recv()
            pipe.send(answer(room, name, several))
    except (EOFError, OSError):  # the server has ended
        return


def warm_up() -> None:
    """Have at hand what answers need: the modules of the acts, and the C code, for which a server answers long enough to be worth
    a compiler's second."""
    from alexnet.data.pixels import KERNELS as PIXELS
    from alexnet.models.lrn.compiled import KERNELS as NORMALIZATION
    from alexnet.models.winograd import KERNELS as CONVOLUTION

    for module in sorted({name.partition(".")[0] for name in QUESTIONS} - {LOOK}):
        if find_spec(f"alexnet.page.{module}"):
            import_module(f"alexnet.page.{module}")
    for source in (PIXELS, NORMALIZATION, CONVOLUTION):
        source.available(build=True)


def _follow() -> None:
    """Standard input ends when the server does, however that ends; a computation is then no longer wanted."""
    while os.read(0, 1 << 10):
        pass
    os._exit(1)


def _sendable(error: Exception) -> Exception:
    """The error as one that can be made again in the server."""
    if isinstance(error, UsageError | DataError) and not isinstance(error, ImageError):
        return type(error)(*error.args)
    if isinstance(error, OSError):
        return OSError(error.errno, error.strerror, error.filename) if error.errno else OSError(str(error))
    return AlexNetError(str(error) if isinstance(error, AlexNetError) else f"{type(error).__name__}: {error}")


def open_room(opening: Opening) -> Room:
    """What an :class:`Opening` names, opened. Raises what opening a model, data or an index raises."""
    import torch

    from alexnet.core.device import Machine, choose_device
    from alexnet.core.memory import keep_freed_memory
    from alexnet.core.runs import cache_folder
    from alexnet.evaluation.layers import find_layers
    from alexnet.evaluation.predict import model_fingerprint
    from alexnet.evaluation.subject import Subject
    from alexnet.page.room import Room
    from alexnet.probes.search import open_index, require_model

    keep_freed_memory()
    if opening.threads is not None:
        torch.set_num_threads(opening.threads)
    subject = Subject(
        model=opening.model,
        machine=Machine(device=choose_device(opening.device), workers=opening.workers, quiet=False),
        data=opening.data,
        precision="float32",
        best=opening.best,
        data_root=opening.data_root,
    )
    predictor = subject.predictor
    has_images = opening.data is not None or subject.settings is not None
    if has_images:
        try:
            subject.images  # noqa: B018, opened now
        except AlexNetError:
            if opening.data is not None:
                raise
            has_images = False  # the run's own data is no longer there: units are shown without crops
    find_layers(predictor.model, [])  # the page shows layers; what has none is refused before it is served
    index = None
    if opening.index is not None:
        index = open_index(opening.index)
        require_model(index, predictor)
    cache = cache_folder() / "page" / model_fingerprint(predictor)
    return Room(subject=subject, has_images=has_images, index=index, cache=cache, keep=Path(opening.keep))


def ready(room: Room) -> Ready:
    return Ready(room.predictor.name, len(room.predictor.classes), room.predictor.why_no_answers is None)


def answer(room: Room, name: str, several: Sequence[Mapping[str, Any]]) -> list[Outcome]:
    """An outcome for each of several questions called ``name``, given by their arguments."""
    if name == LOOK:
        return look(room, [(one["content"], one["answer"]) for one in several])
    module, _, function = name.partition(".")
    where = f"alexnet.page.{module}"
    if name not in QUESTIONS or find_spec(where) is None or not hasattr(import_module(where), function):
        return [Refused("unknown", f"this version answers no {printable(name)}") for _ in several]
    work = getattr(import_module(where), function)

    def done(one: Mapping[str, Any]) -> Outcome:
        """Pixels, and the head before them, come first, whatever they are called."""
        about = [it.array() if isinstance(it, Pixels) else it for key in ("head", "pixels") if (it := one.get(key))]
        return tried(
            lambda: work(room, *about, **{key: it for key, it in one.items() if key not in ("head", "pixels")})
        )

    return [done(one) for one in several]


def tried(work: Callable[[], Any]) -> Outcome:
    """What ``work`` answers, or why it does not. What is not expected to fail is told on standard error, where whoever runs
    the server sees it."""
    try:
        return Done(work())
    except ImageError as error:
        kinds: dict[str, Literal["too-large", "unsupported"]]
        kinds = {"too large": "too-large", "unsupported format": "unsupported"}
        return Refused(kinds.get(error.reason, "not-an-image"), printable(error))
    except UsageError as error:
        return Refused("unknown", printable(error))
    except NotYetError as error:
        return Refused("busy", printable(error))
    except AlexNetError as error:
        return Refused("failed", printable(error))
    except Exception as error:
        with contextlib.suppress(OSError, ValueError):  # nobody reads the terminal
            traceback.print_exc(file=sys.stderr)
        return Refused("failed", f"{type(error).__name__}: {printable(error)[:150]}")


def look(room: Room, given: Sequence[tuple[bytes, bool]]) -> list[Outcome]:
    """Pictures decoded by threads, and those that are to be answered computed as one batch. One that cannot be read spoils its
    own answer alone."""
    from alexnet.data.loader import ahead
    from alexnet.data.pictures import Picture

    predictor = room.predictor

    def decode(content: bytes) -> Outcome:
        def work() -> Look:
            image = Picture("the picture", content).decode(predictor.preprocessing.sample_max)
            return Look(Pixels.of(predictor.pixels_of(image)), *image.size, answers=None)

        return tried(work)

    contents = [content for content, _ in given]
    workers = 0 if len(given) == 1 else room.subject.machine.workers
    outcomes = list(ahead(decode, contents, workers=workers, window=len(given), what="picture"))
    looks = {i: it.value for i, it in enumerate(outcomes) if isinstance(it, Done) and given[i][1]}
    if looks and predictor.why_no_answers is None:
        answered = tried(lambda: predictor.answers([it.pixels.array() for it in looks.values()]))
        for place, (i, it) in enumerate(looks.items()):
            outcomes[i] = answered
            if isinstance(answered, Done):
                outcomes[i] = Done(replace(it, answers=[vars(one) for one in answered.value[place]]))
    return outcomes
