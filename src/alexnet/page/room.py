"""What whoever answers the page has at hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alexnet.evaluation.predict import Predictor
from alexnet.evaluation.subject import Subject
from alexnet.probes.search import Index


@dataclass(frozen=True, kw_only=True, eq=False)
class Room:
    """A model, and what is open beside it. Nothing in it changes while the page is served, so that a new worker answers as
    the one before it did."""

    subject: Subject
    """The model, and the images whose crops show what a unit looks for, if there are any."""
    has_images: bool
    """Whether ``subject.images`` may be asked for."""
    index: Index | None
    """Where the search act looks."""
    cache: Path
    """Where answers are kept that cost much and depend on the model alone: a folder for this model's fingerprint."""
    keep: Path
    """The folder that model folders of taught classifiers are kept in."""

    @property
    def predictor(self) -> Predictor:
        return self.subject.predictor
