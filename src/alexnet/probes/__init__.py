"""What a network has learned, in pictures and numbers: one module for each kind of probe.

A kind is a module of this package with the names of :class:`Probe`; nothing else is to be written for it but its name in
:data:`KINDS` and its drawing in ``report/pictures/``. Other modules here are what several kinds use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from alexnet.core.errors import UsageError, printable

if TYPE_CHECKING:
    from pathlib import Path

    from alexnet.core.device import Machine
    from alexnet.evaluation.finding import Finding
    from alexnet.evaluation.subject import Subject

KINDS = ("kernels", "towers", "maps", "neighbors", "codes", "tsne", "saliency", "linear", "inputs", "optimal")
"""In the order in which a page shows them."""


class Probe(Protocol):
    """A module of this package that is a kind of probe."""

    TITLE: str
    """Its heading on a page."""
    SENTENCE: str
    """What it shows, for a page."""
    Settings: type[Any]
    """Its options: a frozen dataclass that refuses what makes no sense by a :class:`ValueError`. Whatever has a field ``data``
    is a :class:`~alexnet.evaluation.subject.DataSettings` or :class:`~alexnet.evaluation.subject.ImagesSettings`."""

    def measure(self, subject: Subject, settings: Any, /) -> Finding:
        """Look into the subject."""


def probe_of(kind: str) -> Probe:
    """The module of a kind. Raises :class:`UsageError` that lists the kinds."""
    if kind not in KINDS:
        raise UsageError(f"no probe is called {printable(kind)!r}; the probes are {', '.join(KINDS)}")
    return cast(Probe, import_module(f"alexnet.probes.{kind}"))


def probe(
    kind: str,
    model: str | Path,
    *,
    out: str | Path | None = None,
    machine: Machine | None = None,
    best: bool = False,
    data_root: str | Path | None = None,
    **settings: Any,
) -> Finding:
    """Look into a trained network, as ``alexnet probe KIND`` does: ``probe("linear", "runs/mine", images=500)``.

    ``model``: a run directory, a checkpoint of a run, or a model folder. ``settings`` are the options of the kind, with
    underscores. ``KIND.json`` and the pictures are written to ``out``, by default the folder ``probes`` of the run; for a model
    folder without ``out`` nothing is written. Raises :class:`UsageError` for what the command refuses, and :class:`ValueError`
    for settings that make no sense.
    """
    from alexnet.core.device import Machine, choose_device
    from alexnet.evaluation.subject import folder_for, subject_of

    module = probe_of(kind)
    asked = module.Settings(**settings)
    subject = subject_of(model, machine or Machine(device=choose_device()), asked, best=best, data_root=data_root)
    folder = folder_for(subject, "probes", out)
    finding = module.measure(subject, asked)
    if folder is not None:
        keep(kind, finding, asked, folder)
    return finding


def keep(kind: str, finding: Finding, settings: Any, folder: Path) -> dict[str, Any]:
    """Publish the finding of a probe in ``folder``; returns its document."""
    from alexnet.evaluation.finding import publish

    module = probe_of(kind)
    head = {"probe": kind, "title": module.TITLE, "sentence": module.SENTENCE, "place": KINDS.index(kind)}
    return publish(finding, head | finding.document(settings), folder, kind)
