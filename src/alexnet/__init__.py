"""AlexNet, the system of Krizhevsky, Sutskever and Hinton (2012), on PyTorch.

The names below are imported when they are first used, so that ``import alexnet`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from alexnet.data.check import check as check
    from alexnet.data.prepare import prepare as prepare
    from alexnet.evaluation.predict import load as load
    from alexnet.evaluation.subject import evaluate as evaluate
    from alexnet.models import create_model as create_model
    from alexnet.models import list_models as list_models
    from alexnet.probes import probe as probe
    from alexnet.recipes import recipe as recipe
    from alexnet.recipes.run import run as train  # noqa: F401
    from alexnet.report.page import write_report as write_report

_HOMES = {
    "check": ("alexnet.data.check", "check"),
    "create_model": ("alexnet.models", "create_model"),
    "evaluate": ("alexnet.evaluation.subject", "evaluate"),
    "list_models": ("alexnet.models", "list_models"),
    "load": ("alexnet.evaluation.predict", "load"),
    "prepare": ("alexnet.data.prepare", "prepare"),
    "probe": ("alexnet.probes", "probe"),
    "recipe": ("alexnet.recipes", "recipe"),
    "write_report": ("alexnet.report.page", "write_report"),
    "train": ("alexnet.recipes.run", "run"),
}

__all__ = [*_HOMES, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'alexnet' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
